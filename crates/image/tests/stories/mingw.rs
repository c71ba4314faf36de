//! Builds the fixtures with mingw, as a C driver's author without the WDK would.
//!
//! It caches nothing: a fixture takes a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

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
    static BUILDS: AtomicU32 = AtomicU32::new(0);
    let number = BUILDS.fetch_add(1, Ordering::Relaxed);
    let output =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}-{number}.sys", std::process::id()));
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
    let image = std::fs::read(&output).expect("the linker wrote its output");
    std::fs::remove_file(&output).expect("the output can be removed");
    image
}
