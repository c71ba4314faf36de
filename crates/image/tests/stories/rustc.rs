//! Builds a driver and its PDB with rustc and its own linker, as a Rust driver's author would.
//!
//! It needs the target that `rust-toolchain.toml` names, which rustup fetches by itself.

use std::path::Path;
use std::process::Command;

/// The image and the PDB of a fixture.
pub(crate) fn driver(source: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::Builder::new().prefix("rust-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.expect("the target folder can be written");
    let stem = folder.path().join("driver");
    let (image, pdb) = (stem.with_extension("sys"), stem.with_extension("pdb"));
    let link = "-Clink-args=/DRIVER /SUBSYSTEM:NATIVE,10.0 /ENTRY:DriverEntry /NODEFAULTLIB /NXCOMPAT /DYNAMICBASE \
                /RELEASE /DEBUG /MANIFEST:NO";
    let result = Command::new("rustc")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--edition=2024", "--crate-type=bin", "--target=x86_64-pc-windows-msvc", "-Clinker=rust-lld"])
        .args(["-Cpanic=abort", "-Copt-level=1", "-Cdebuginfo=2", link])
        .arg(format!("tests/fixtures/{source}"))
        .arg("-o")
        .arg(&image)
        .output()
        .expect("rustc runs");
    assert!(
        result.status.success(),
        "rustc for x86_64-pc-windows-msvc (`rustup target add x86_64-pc-windows-msvc` if it is missing): {}",
        String::from_utf8_lossy(&result.stderr)
    );
    let take = |path: &Path| std::fs::read(path).expect("the linker wrote it");
    (take(&image), take(&pdb))
}
