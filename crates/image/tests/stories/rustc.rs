//! Builds a driver and its PDB with rustc and its own linker, as a Rust driver's author would.
//!
//! It needs the target that `rust-toolchain.toml` names, which rustup fetches by itself.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The image and the PDB of a fixture.
pub(crate) fn driver(source: &str) -> (Vec<u8>, Vec<u8>) {
    static BUILDS: AtomicU32 = AtomicU32::new(0);
    let number = BUILDS.fetch_add(1, Ordering::Relaxed);
    let stem = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rust-{}-{number}", std::process::id()));
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
    let take = |path: &Path| {
        let bytes = std::fs::read(path).expect("the linker wrote it");
        std::fs::remove_file(path).expect("it can be removed");
        bytes
    };
    (take(&image), take(&pdb))
}
