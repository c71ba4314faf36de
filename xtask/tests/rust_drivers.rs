//! The Rust drivers as files: what a loader, a debugger and a reader who checks our build find in them.
//!
//! It does not run them; the tests of crate `dirql` do.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Checksum, Image, Lines, Symbols};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// A folder of the caller's own, empty.
fn folder(name: &str) -> PathBuf {
    let made = tempfile::Builder::new().prefix(name).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    made.expect("the target folder can be written").keep()
}

/// The drivers, each with the number of its interrupt service routines.
const DRIVERS: [(&str, usize); 6] = [
    ("pci9052", 1),
    ("edu_rust", 2),
    ("bench_rust", 5),
    ("card_rust", 2),
    ("relay_rust", 0),
    ("bus_rust", 0),
];

/// A driver and its PDB.
type Built = (Vec<u8>, Vec<u8>);

/// The Rust drivers, as the checkout at `root` builds them into `out`.
fn built(root: &Path, out: &Path) -> [Built; DRIVERS.len()] {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.env("CARGO_MANIFEST_DIR", root.join("xtask")).args(["drivers", "--rust", "--out"]).arg(out);
    let output = xtask.output().expect("xtask starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read(out)
}

/// The same, as `cargo xtask drivers` has made them for all tests.
fn shipped() -> [Built; DRIVERS.len()] {
    read(&root().join("target/drivers"))
}

fn read(out: &Path) -> [Built; DRIVERS.len()] {
    DRIVERS.map(|(name, _)| {
        let read = |extension| {
            let path = out.join(name).with_extension(extension);
            fs::read(&path).unwrap_or_else(|_| panic!("{}: run `cargo xtask drivers` first", path.display()))
        };
        (read("sys"), read("pdb"))
    })
}

fn parsed(name: &str, sys: &[u8]) -> Image {
    Image::parse(&format!("{name}.sys"), sys).expect("it is an image")
}

#[test]
fn a_debugger_finds_every_routine_and_its_line() {
    for ((name, routines), (sys, pdb)) in DRIVERS.into_iter().zip(shipped()) {
        let image = parsed(name, &sys);
        let symbols = Symbols::new(&image, Some(&pdb)).expect("the PDB is its own");
        let lines = Lines::new(&image, Some(&pdb));
        assert!(!image.functions().is_empty());
        let (mut isr, mut inlined) = (0, 0);
        for function in image.functions() {
            // What was inlined there has names and lines, and the routine around it has its own.
            let frames =
                (function.begin..function.end).map(|rva| lines.frames(rva)).find(|frames| frames.len() > 1);
            if let Some([inner, .., outer]) = frames.as_deref() {
                assert!(
                    inner.inlined.is_some_and(|name| !name.is_empty()) && outer.inlined.is_none(),
                    "{name}"
                );
                inlined += usize::from(inner.line.is_some() && outer.line.is_some());
            }
            let symbol = symbols.lookup(function.begin).expect("a routine has a name");
            let line = lines.at(function.begin).map_or("", |line| line.file);
            isr += usize::from(symbol.name.contains("interrupt::") && symbol.name.contains("serve"))
                * usize::from(line.contains("wdm/src/interrupt/"));
        }
        assert_eq!(isr, routines, "{name}: each interrupt service routine is one routine with a line");
        assert!(inlined > 10, "{name}: {inlined} routines with inlined code that has a line");
        assert!(symbols.find("DriverEntry").is_some());
    }
}

#[test]
fn they_are_what_windows_loads() {
    for ((name, _), (sys, _)) in DRIVERS.into_iter().zip(shipped()) {
        let image = parsed(name, &sys);
        let Checksum { stored, computed } = image.checksum();
        assert_eq!(stored, computed);
        let entry = image.section_at(image.entry_point().expect("it has an entry")).expect("in a section");
        assert_eq!(entry.name, "INIT", "{name}: DriverEntry is discarded after it has run");
        assert!(!image.relocations_stripped());
        assert!(image.exports().is_empty());
        for import in image.imports() {
            let is_provider = name == "pci9052" && import.module == "wmilib.sys";
            assert!(import.module == "ntoskrnl.exe" || is_provider, "{name} imports from {}", import.module);
        }
    }
}

#[test]
fn no_path_of_this_machine_is_in_them() {
    let place = root().display().to_string();
    for ((name, _), (sys, _)) in DRIVERS.into_iter().zip(shipped()) {
        assert!(!sys.windows(place.len()).any(|bytes| bytes == place.as_bytes()), "{name}: {place} is in it");
    }
}

/// What git would check out, with what is not committed yet.
fn checkout(to: &Path) {
    let list =
        Command::new("git").current_dir(root()).args(["ls-files", "-co", "--exclude-standard"]).output();
    let list = list.expect("git starts");
    for path in String::from_utf8(list.stdout).expect("names are text").lines() {
        let (from, to) = (root().join(path), to.join(path));
        let Ok(about) = fs::symlink_metadata(&from) else { continue };
        fs::create_dir_all(to.parent().expect("it is in a folder")).expect("folders can be made");
        if about.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from).expect("a link leads somewhere"), to)
                .expect("as here");
        } else {
            fs::copy(from, to).expect("a file can be copied");
        }
    }
}

#[test]
fn a_checkout_elsewhere_gives_the_same_bytes() {
    let elsewhere = folder("elsewhere");
    checkout(&elsewhere);
    let (ours, theirs) = (shipped(), built(&elsewhere, &elsewhere.join("out")));
    for ((name, _), (ours, theirs)) in DRIVERS.into_iter().zip(ours.into_iter().zip(theirs)) {
        assert!(
            ours.0 == theirs.0,
            "{name}.sys differs from target/drivers: is that what `cargo xtask drivers` makes?"
        );
        let image = parsed(name, &ours.0);
        for pdb in [ours.1, theirs.1] {
            assert!(Symbols::new(&image, Some(&pdb)).is_ok(), "{name}: either PDB is good for it");
        }
    }
    let _ = fs::remove_dir_all(elsewhere);
}
