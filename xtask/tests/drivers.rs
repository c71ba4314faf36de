//! `cargo xtask drivers`: the files it makes are drivers, always the same bytes, and made only when something changed.
//!
//! What it has made for all tests, in `target/drivers`, is looked at here; only one test builds all anew. It does not run them; the
//! tests of crate `dirql` do.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder that is removed with its contents when the test ends.
struct Folder(TempDir);

impl Folder {
    fn new(name: &str) -> Self {
        let made = tempfile::Builder::new().prefix(name).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self(made.expect("the target folder can be written"))
    }

    /// Builds the drivers there; returns what xtask said.
    fn build(&self) -> String {
        let output =
            Command::new(env!("CARGO_BIN_EXE_xtask")).arg("drivers").arg("--out").arg(self.0.path()).output();
        let output = output.expect("xtask starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }
}

/// Where `cargo xtask drivers` puts them for all tests.
fn shipped() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/drivers");
    assert!(folder.is_dir(), "{} is not there: run `cargo xtask drivers` first", folder.display());
    folder
}

/// The drivers in a folder, by name.
fn drivers(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path());
    let mut drivers: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sys"))
        .map(|path| {
            (
                path.file_stem().expect("named").to_string_lossy().into_owned(),
                fs::read(path).expect("readable"),
            )
        })
        .collect();
    drivers.sort();
    drivers
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

/// Microsoft's "PE Format": the file header lies 4 bytes behind the signature, the optional header 20 behind that.
#[test]
fn every_file_is_a_movable_native_x64_program() {
    let drivers = drivers(&shipped());
    let names = [
        "bench_rust",
        "edu_rust",
        "faults",
        "hostile",
        "legacy",
        "pci9052",
        "pciline",
        "queue",
        "queue_iotimer",
        "seh",
        "touches",
    ];
    for name in names {
        assert!(drivers.iter().any(|(driver, _)| driver == name), "{name}.sys is made");
    }
    for (name, bytes) in drivers {
        let signature = usize::try_from(dword(&bytes, 0x3C)).expect("it fits");
        let (file, optional) = (signature + 4, signature + 24);
        assert_eq!(word(&bytes, file), 0x8664, "{name}: machine");
        assert_eq!(word(&bytes, file + 18) & 0x2001, 0, "{name}: neither a DLL nor stripped of relocations");
        assert_eq!(word(&bytes, optional), 0x20B, "{name}: PE32+");
        assert_eq!(word(&bytes, optional + 68), 1, "{name}: subsystem native");
        assert_ne!(dword(&bytes, optional + 64), 0, "{name}: checksum");
        assert_ne!(word(&bytes, optional + 70) & 0x140, 0, "{name}: dynamic base and NX");
    }
    assert!(shipped().join("pciline.inf").is_file(), "an INF lies beside its driver");
}

#[test]
fn two_builds_in_two_folders_give_the_same_bytes_and_the_next_one_makes_nothing() {
    let anew = Folder::new("bytes-other-and-longer");
    assert!(anew.build().contains("legacy.sys"));
    let shipped = drivers(&shipped());
    for (name, bytes) in drivers(anew.0.path()) {
        let same = shipped.iter().any(|(other, others)| *other == name && *others == bytes);
        assert!(
            same,
            "{name}.sys differs from target/drivers: is that what `cargo xtask drivers` makes now?"
        );
    }
    let said = anew.build();
    assert!(!said.contains(".sys"), "it made something: {said}");
}
