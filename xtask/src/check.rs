//! `test` and `check`: what a contributor runs before a commit, and what CI runs. They are the same.
//!
//! The tidy test (`xtask/tests/tidy`) is one of the tests, so it is not called by name.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{call, drivers, install, museum, solo};

/// The library and what it needs, as crates.io is to have them.
const LIBRARY: &[&str] = &[
    "dirql-abi",
    "dirql-image",
    "dirql-engine",
    "dirql-explore",
    "dirql-kernel",
    "dirql-rules",
    "dirql-devices",
    "dirql",
];

/// Installs what tests need, builds the drivers and what of the museum a test names, then runs every test: the documentation's and the driver crate's, and last, each in a process of
/// its own, the workspace's, so that what is printed last is the sum of most.
///
/// # Errors
/// A program is missing and cannot be installed, something does not build, or a test fails.
pub(crate) fn test(root: &Path, filters: &[String]) -> Result<()> {
    install::for_tests()?;
    drivers::build(root, &drivers::default_out(root))?;
    museum::build_for_tests(root)?;
    if filters.is_empty() {
        let mut cargo = call::cargo(root);
        call::step("documentation's tests", cargo.args(["test", "--workspace", "--doc", "--quiet"]))?;
        if root.join("drivers/Cargo.toml").is_file() {
            let mut cargo = call::cargo(&root.join("drivers"));
            // By the variable, because a test of it starts cargo itself.
            cargo.env("CARGO_TARGET_DIR", root.join("target/drivers-build"));
            let arguments = ["test", "--quiet", "--package", "dirql-wdm"];
            call::step("tests of the drivers' crate", cargo.args(arguments))?;
        }
    }
    if !call::works("cargo-nextest", &["nextest", "--version"]) {
        return solo::run(root, filters);
    }
    let mut cargo = call::cargo(root);
    cargo.args(["nextest", "run", "--workspace", "--no-fail-fast"]).args(filters);
    call::step("tests, by cargo-nextest", &mut cargo)
}

/// Everything CI does.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(root: &Path) -> Result<()> {
    let folder = root.join("drivers");
    let has_drivers = folder.join("Cargo.toml").is_file();
    call::step("format", call::cargo(root).args(["fmt", "--all", "--check"]))?;
    if has_drivers {
        call::step("format of the drivers", call::cargo(&folder).args(["fmt", "--all", "--check"]))?;
    }
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    call::step("lints", call::cargo(root).args(lints))?;
    let mut cargo = call::cargo(root);
    cargo.args(["clippy", "-p", "dirql-pci9052", "--target", install::RUST_TARGET, "--", "-D", "warnings"]);
    call::step("lints of what runs on Windows", &mut cargo)?;
    if has_drivers {
        install::all(root)?;
        let mut cargo = call::cargo(&folder);
        cargo.args(["clippy", "--workspace", "--release", "--target", install::RUST_TARGET, "--target-dir"]);
        cargo.arg(root.join("target/drivers-build")).args(["--", "-D", "warnings"]);
        call::step("lints of the drivers", &mut cargo)?;
    }
    museum::only_build(root)?;
    test(root, &[])?;
    let mut cargo = call::cargo(root);
    cargo.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--quiet"]);
    call::step("documentation", &mut cargo)?;
    if has_drivers {
        let mut cargo = call::cargo(&folder);
        cargo.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--quiet"]);
        cargo.args(["--target", install::RUST_TARGET, "--target-dir"]).arg(root.join("target/drivers-build"));
        call::step("documentation of the drivers", &mut cargo)?;
    }
    let built = root.join("target/packages");
    forget_packages(&built.join("debug"));
    let mut cargo = call::cargo(root);
    cargo.args(["publish", "--dry-run", "--allow-dirty", "--quiet", "--target-dir"]).arg(built);
    // Whether they compile is the question.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.args(LIBRARY.iter().flat_map(|name| ["-p", name]));
    call::step("packages of the library, as crates.io would have them", &mut cargo)?;
    if has_drivers { packages_of_drivers(root, &folder) } else { Ok(()) }
}

/// Removes what an earlier dry run has unpacked and built (in this folder of a target directory): cargo takes a package of a version
/// that it has seen for the same package. A registry without a host is one that cargo makes for a dry run.
fn forget_packages(built: &Path) {
    let unpacked = call::cargo_home().map(|home| home.join("registry/src")).unwrap_or_default();
    for (folder, prefix) in [(unpacked, "-"), (built.join(".fingerprint"), "dirql-")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The crate that drivers are written with, and what it needs. From a copy: there `abi` is a link, which cargo does not package.
fn packages_of_drivers(root: &Path, folder: &Path) -> Result<()> {
    let copy = root.join("target/publish");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).with_context(|| format!("{} cannot be made", copy.display()))?;
    call::quietly(Command::new("cp").arg("-rL").arg(folder).arg(&copy))?;
    let built = root.join("target/packages");
    forget_packages(&built.join(install::RUST_TARGET).join("debug"));
    let mut cargo = call::cargo(&copy.join("drivers"));
    cargo.args(["publish", "--dry-run", "--allow-dirty", "--quiet", "-p", "dirql-abi", "-p", "dirql-wdm"]);
    cargo.args(["--target", install::RUST_TARGET, "--target-dir"]).arg(built);
    call::step("packages of what drivers are written with, as crates.io would have them", &mut cargo)
}
