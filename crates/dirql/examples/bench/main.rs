//! `cargo xtask bench`: what a call, a request, an access, an interrupt and a start cost, in nanoseconds.
//!
//! Pinned to one processor and warmed up; each figure is the median and the 99th percentile of many samples, most of which
//! repeat the thing many times. `--json` writes one object of `name: {median, p99, unit, samples}`. Names given as
//! arguments are measured alone.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_types, reason = "it measures the host's time, outside any machine's")]

mod devices;
mod driver;
mod forks;
mod infs;
mod kmdf;
mod rules;
mod schedules;
mod strands;
mod wmi;

use std::path::{Path, PathBuf};
use std::time::Instant;

/// What was measured.
pub(crate) struct Figure {
    name: &'static str,
    /// Nanoseconds (or what the unit says) for one, one value a sample.
    samples: Vec<f64>,
    /// How often a sample repeats it.
    repeats: u32,
    unit: &'static str,
}

impl Figure {
    /// From the samples of a thing repeated `repeats` times each.
    pub(crate) fn new(name: &'static str, repeats: u32, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { name, samples, repeats, unit: "ns" }
    }

    /// Of something else than time, measured once.
    pub(crate) fn once(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, samples: vec![value], repeats: 1, unit }
    }

    pub(crate) fn at(&self, percent: usize) -> f64 {
        let last = self.samples.len().saturating_sub(1);
        self.samples.get(last * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

/// A driver's file, or its INF.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/drivers").join(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask drivers` first", path.display());
    path
}

/// Nanoseconds that one of `repeats` took since `begun`.
pub(crate) fn each(begun: Instant, repeats: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(repeats)
}

fn main() {
    pin();
    let (options, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let wanted = |name: &str| names.is_empty() || names.iter().any(|other| other == name);
    let mut figures = Vec::new();
    if wanted("resident") {
        // First, so that nothing else has left memory behind.
        figures.push(Figure::once("resident", driver::resident(), "MB"));
    }
    if wanted("irp_outstanding") {
        figures.push(Figure::once("irp_outstanding", driver::outstanding(), "B"));
    }
    if wanted("strand_switch") {
        figures.push(strands::switch());
    }
    if wanted("strand_switch_across") {
        figures.push(strands::across());
    }
    if wanted("inf_parse") {
        figures.push(infs::parse());
    }
    if wanted("kmdf_ioctl") {
        figures.push(kmdf::ioctl());
    }
    if wanted("wmi_query") {
        figures.push(wmi::query());
    }
    if wanted("enumerate_1000_devices") {
        figures.push(devices::enumerate());
    }
    if wanted("power_cycle_device") {
        figures.push(devices::power_cycle());
    }
    figures.extend(forks::all(&wanted));
    figures.extend(driver::all(&wanted));
    figures.extend(schedules::all(&wanted));
    figures.extend(rules::all(&wanted));
    figures.sort_by_key(|figure| figure.name);
    if options.iter().any(|option| option == "--json") {
        let object: serde_json::Map<String, serde_json::Value> = figures.iter().map(json).collect();
        println!("{}", serde_json::Value::from(object));
        return;
    }
    println!("{:22} {:>14} {:>14} {:>9} {:>9}", "", "median", "p99", "samples", "repeats");
    for figure in &figures {
        let (name, samples, repeats) = (figure.name, figure.samples.len(), figure.repeats);
        let (unit, median, p99) = (figure.unit, figure.at(50), figure.at(99));
        println!("{name:22} {median:>11.1} {unit} {p99:>11.1} {unit} {samples:>9} {repeats:>9}");
    }
}

fn json(figure: &Figure) -> (String, serde_json::Value) {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let value = serde_json::json!({
        "median": tenths(figure.at(50)),
        "p99": tenths(figure.at(99)),
        "unit": figure.unit,
        "samples": figure.samples.len(),
    });
    (figure.name.to_owned(), value)
}

/// Stays on the last processor it may use; where that cannot be, the figures are only noisier.
fn pin() {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let last = (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    if let Some(cpu) = last {
        let mut one = rustix::thread::CpuSet::new();
        one.set(cpu);
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
}
