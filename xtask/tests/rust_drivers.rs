//! The Rust driver as a file: what a loader, a debugger and somebody who wants to check our build find in it.
//!
//! It does not run it; the tests of crate `dirql` do.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Checksum, Image, Lines, Symbols};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// An empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder can be made");
    path
}

/// `pci9052.sys` and its PDB, as the checkout at `root` builds them into `out`.
fn built(root: &Path, out: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.env("CARGO_MANIFEST_DIR", root.join("xtask")).arg("drivers").arg("--out").arg(out);
    let output = xtask.output().expect("xtask starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |extension| fs::read(out.join("pci9052").with_extension(extension)).expect("it is made");
    (read("sys"), read("pdb"))
}

#[test]
fn a_debugger_finds_every_routine_and_its_line() {
    let (sys, pdb) = built(&root(), &folder("symbols"));
    let image = Image::parse("pci9052.sys", &sys).expect("it is an image");
    let symbols = Symbols::new(&image, Some(&pdb)).expect("the PDB is its own");
    let lines = Lines::new(&image, Some(&pdb));
    assert!(!image.functions().is_empty());
    let mut isr = 0;
    for function in image.functions() {
        let symbol = symbols.lookup(function.begin).expect("a routine has a name");
        let line = lines.at(function.begin).map_or("", |line| line.file);
        isr += usize::from(symbol.name.contains("serve") && line.ends_with("connection.rs"));
    }
    assert_eq!(isr, 1, "the interrupt service routine is one routine with a line");
    assert!(symbols.find("DriverEntry").is_some());
}

#[test]
fn it_is_what_windows_loads() {
    let (sys, _) = built(&root(), &folder("image"));
    let image = Image::parse("pci9052.sys", &sys).expect("it is an image");
    let Checksum { stored, computed } = image.checksum();
    assert_eq!(stored, computed);
    let entry = image.section_at(image.entry_point().expect("it has an entry")).expect("in a section");
    assert_eq!(entry.name, "INIT", "DriverEntry is discarded after it has run");
    assert!(!image.relocations_stripped());
    assert!(image.exports().is_empty());
    for import in image.imports() {
        assert_eq!(import.module, "ntoskrnl.exe");
    }
}

#[test]
fn no_path_of_this_machine_is_in_it() {
    let (sys, _) = built(&root(), &folder("paths"));
    let place = root().display().to_string();
    assert!(!sys.windows(place.len()).any(|bytes| bytes == place.as_bytes()), "{place} is in it");
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
    let (ours, our_pdb) = built(&root(), &folder("here"));
    let (theirs, their_pdb) = built(&elsewhere, &elsewhere.join("out"));
    assert!(ours == theirs, "pci9052.sys differs");
    let image = Image::parse("pci9052.sys", &ours).expect("it is an image");
    for pdb in [our_pdb, their_pdb] {
        assert!(Symbols::new(&image, Some(&pdb)).is_ok(), "either PDB is good for it");
    }
    let _ = fs::remove_dir_all(elsewhere);
}
