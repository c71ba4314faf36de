//! Builds the fixtures with mingw, as a C driver's author without the WDK would.
//!
//! It caches nothing: a fixture takes a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// A driver from `source` (in `tests/fixtures`), linked natively with `DriverEntry` as its entry.
pub(crate) fn driver(source: &str) -> Vec<u8> {
    build(&[source], &["-Wl,--entry,DriverEntry"])
}

/// An export library: no entry point.
pub(crate) fn library() -> Vec<u8> {
    build(&["library.c", "library.def"], &["-Wl,--entry,0"])
}

/// Compiles and links `sources` with more arguments.
pub(crate) fn build(sources: &[&str], more: &[&str]) -> Vec<u8> {
    let folder = tempfile::Builder::new().prefix("image-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.expect("the target folder can be written");
    let output = folder.path().join("image.sys");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let sources: Vec<PathBuf> = sources.iter().map(|source| fixtures.join(source)).collect();
    let common = [
        "-O2",
        "-Wall",
        "-Werror",
        "-shared",
        "-nostdlib",
        "-nostartfiles",
        "-Wl,--subsystem,native",
        "-Wl,--dynamicbase",
    ];
    let run = Command::new(COMPILER)
        .args(common)
        .args(more)
        .args(&sources)
        .arg("-o")
        .arg(&output)
        .arg("-lntoskrnl")
        .output();
    let result = run.unwrap_or_else(|error| {
        panic!("{COMPILER}: {error}; it is in the package gcc-mingw-w64-x86-64, and `cargo xtask test` installs it")
    });
    assert!(result.status.success(), "{COMPILER}: {}", String::from_utf8_lossy(&result.stderr));
    std::fs::read(&output).expect("the linker wrote its output")
}
