//! What a run costs by the built command itself, as its users run it: 20,000 writes that each end in an interrupt and a DPC, on
//! `bench.sys` and a PCI 9052; for one of them, what a run with a single write takes left out.
//!
//! `run_quiet` is `--fast --quiet`, `run_checked` `--quiet`, `run_text` no option at all, `run_json` `--json`. What is printed goes through a
//! pipe and is read.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::{call, drivers};

/// Writes of a run.
const WRITES: u32 = 20_000;
/// Runs of each kind; their median counts.
const RUNS: usize = 5;
/// The figures, and how the command is called for each.
const FIGURES: [(&str, &[&str]); 4] = [
    ("run_quiet", &["--fast", "--quiet"]),
    ("run_checked", &["--quiet"]),
    ("run_text", &[]),
    ("run_json", &["--json"]),
];

/// The host's clock: it measures the command from outside.
#[allow(clippy::disallowed_types, reason = "it measures a process from outside, and no machine sees it")]
type Clock = std::time::Instant;

/// Builds the command and measures it; times in nanoseconds.
///
/// # Errors
/// It does not build, or a run is not clean.
pub(crate) fn measured(root: &Path) -> Result<Map<String, Value>> {
    call::quietly(call::cargo(root).args(["build", "--quiet", "--release", "-p", "dirql-cli"]))?;
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut figures = Map::new();
    for (name, options) in FIGURES {
        let mut samples = Vec::new();
        for _ in 0..RUNS {
            let whole = run(root, &folder, options, WRITES + 1)?;
            let start = run(root, &folder, options, 1)?;
            samples.push((whole - start) * 1e9 / f64::from(WRITES));
        }
        samples.sort_by(f64::total_cmp);
        let (median, last) = (samples[RUNS / 2], samples[RUNS - 1]);
        figures.insert(
            name.to_owned(),
            json!({ "median": median.round(), "p99": last.round(), "unit": "ns", "samples": RUNS }),
        );
    }
    Ok(figures)
}

/// Seconds that a run of so many writes takes.
fn run(root: &Path, folder: &Path, options: &[&str], writes: u32) -> Result<f64> {
    let script = folder.join(format!("writes-{writes}.txt"));
    let mut text = String::from("open \\\\.\\DirqlBench as card\n");
    (0..writes).for_each(|_| text.push_str("write card hex:00000000 at 0\n"));
    fs::write(&script, text).with_context(|| format!("{} cannot be written", script.display()))?;
    let mut command = Command::new(root.join("target/release/dirql"));
    command
        .arg("run")
        .arg(drivers::default_out(root).join("bench.sys"))
        .args(["--device", "pci9052", "--script"])
        .arg(&script)
        .args(options)
        .stdout(Stdio::piped());
    let begun = Clock::now();
    let mut child = command.spawn().context("the built command cannot be started")?;
    discard(&mut child)?;
    let status = child.wait()?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "a run of {writes} writes with {options:?} is not clean");
    Ok(took)
}

/// Reads all that the command prints, and keeps none of it: 100 MB that are kept cost as much as the run.
fn discard(child: &mut Child) -> Result<()> {
    let mut printed = child.stdout.take().context("the command has no output")?;
    let mut buffer = vec![0; 1 << 16];
    while printed.read(&mut buffer)? > 0 {}
    Ok(())
}
