//! The chores that run the product itself: the demo and the benchmarks.
//!
//! What they show is decided elsewhere: in the demo's script, and in the benchmark of crate `dirql`.

use std::path::Path;

use anyhow::Result;

use crate::{call, drivers};

/// What the demo runs, after `dirql`, from the workspace's folder.
const DEMO: &[&str] = &[
    "run",
    "target/drivers/pci9052.sys",
    "--inf",
    "target/drivers/pci9052.inf",
    "--device",
    "pci9052",
    "--script",
    "demo/pci9052.dirql",
];

/// Builds the drivers and `dirql`, and shows one write on a card.
///
/// # Errors
/// Something does not build, or the run does not end clean.
pub(crate) fn demo(root: &Path) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    eprintln!("xtask: building dirql");
    call::quietly(call::cargo(root).args(["build", "--quiet", "--release", "-p", "dirql-cli"]))?;
    let mut cargo = call::cargo(root);
    cargo.args(["run", "--quiet", "--release", "-p", "dirql-cli", "--"]).args(DEMO);
    call::step(&format!("dirql {}", DEMO.join(" ")), &mut cargo)
}

/// Builds the drivers and runs the benchmark, which writes JSON if `json`.
///
/// # Errors
/// Something does not build, or the benchmark fails.
pub(crate) fn bench(root: &Path, json: bool) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    let mut cargo = call::cargo(root);
    cargo.args(["run", "--quiet", "--release", "-p", "dirql", "--example", "bench", "--"]);
    call::quietly(cargo.args(json.then_some("--json")))
}
