//! The chores that run the product itself: the demo; replays, rewinds, schedules and sequences in great number; long traffic.
//!
//! What they show is decided elsewhere: in the demo's script, and in the tests of crates `engine` and `dirql`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{call, drivers, suite};

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

/// Builds the drivers, then records and replays `runs` runs of each; CI does the same with few.
///
/// # Errors
/// Something does not build, or a run differs from its record.
pub(crate) fn replays(root: &Path, runs: u32) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    let mut stories = stories(root, "dirql", "replays")?;
    stories.env("DIRQL_REPLAYS", runs.to_string());
    call::step(&format!("{runs} runs of each driver, recorded and replayed"), &mut stories)
}

/// Takes a machine with suspended strands back `rewinds` times by each way of tracking, and a machine with a driver a
/// thirtieth of that; CI does the same with few.
///
/// # Errors
/// Something does not build, or the machine is not as it was.
pub(crate) fn rewinds(root: &Path, rewinds: u32) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    for (krate, test, each) in
        [("dirql-engine", "rewind", rewinds), ("dirql", "rewinds", rewinds.div_ceil(30))]
    {
        let mut stories = stories(root, krate, test)?;
        stories.env("DIRQL_ROUNDS", each.to_string());
        call::step(&format!("{each} rewinds for each story of {test}"), &mut stories)?;
    }
    Ok(())
}

/// Tells each story of locks, time, messages, cards and clients of KMDF in `schedules` random schedules; CI does the same with few.
///
/// # Errors
/// Something does not build, or a guarantee does not hold in one of them.
pub(crate) fn schedules(root: &Path, schedules: u32) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    for test in [
        "locks",
        "clocks",
        "messages",
        "edu",
        "edu_rust",
        "kmdf",
        "bench_rust",
        "card_rust",
        "relay_rust",
        "bus_rust",
    ] {
        let mut stories = stories(root, "dirql", test)?;
        stories.env("DIRQL_SEEDS", schedules.to_string());
        call::step(&format!("{schedules} random schedules for each story of {test}"), &mut stories)?;
    }
    Ok(())
}

/// Does `sequences` random sequences of Plug and Play, power and requests to each of some trees of devices; CI does the same with few.
///
/// # Errors
/// Something does not build; or something is left, or hangs, or is accused.
pub(crate) fn sequences(root: &Path, sequences: u32) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    let mut stories = stories(root, "dirql", "sequences")?;
    stories.env("DIRQL_SEQUENCES", sequences.to_string());
    call::step(&format!("{sequences} random sequences for each tree of devices"), &mut stories)
}

/// Lets so many hours of the machines' time pass, with random traffic of applications to each driver; CI does the same with few.
///
/// # Errors
/// Something does not build; or something is left, or lost, or the memory grows.
pub(crate) fn soak(root: &Path, hours: u32) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    let mut stories = stories(root, "dirql", "soak")?;
    stories.env("DIRQL_HOURS", hours.to_string());
    call::step(&format!("{hours} hours of traffic to each driver"), &mut stories)
}

/// One file of a crate's tests, in release, with one test after the other.
fn stories(root: &Path, krate: &str, file: &str) -> Result<Command> {
    let tests = suite::build_file(root, krate, file, &["--release"])?;
    suite::in_a_row(&tests).context("a file has tests")
}
