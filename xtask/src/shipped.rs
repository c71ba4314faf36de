//! `cargo xtask shipped`: `dirql check` looks at each driver that is shipped, or shown as right, in its usual budget. None may be accused.
//!
//! Not among them: `card_rust.sys`, of which the guide shows two mistakes, and drivers that are there for a test's sake.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{call, drivers};

const DRIVERS: [&str; 11] = [
    "bench_rust",
    "bus_rust",
    "correct",
    "correct_pnp",
    "edu_rust",
    "pci9052",
    "pci9052_c",
    "pciline",
    "queue",
    "relay_rust",
    "wmi",
];

/// Builds the drivers and the command, and has it look at each with so much of its usual budget, in hundredths.
///
/// # Errors
/// Something does not build, or a driver is accused, or there is no answer about it.
pub(crate) fn check(root: &Path, budget: u32) -> Result<()> {
    let folder = drivers::default_out(root);
    drivers::build(root, &folder)?;
    let mut cargo = call::cargo(root);
    call::step("dirql is built", cargo.args(["build", "--quiet", "--release", "--package", "dirql-cli"]))?;
    let mut accused = Vec::new();
    for name in DRIVERS {
        let mut dirql = Command::new(root.join("target/release/dirql"));
        dirql.arg("check").arg(folder.join(name).with_extension("sys"));
        dirql.args(["--budget", &budget.to_string()]).stderr(Stdio::inherit());
        let output = dirql.output().context("dirql cannot be started")?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            accused.push(name);
        }
    }
    ensure!(accused.is_empty(), "not clean: {}", accused.join(", "));
    Ok(())
}
