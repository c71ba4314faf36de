//! `cargo xtask bench`: what a call, a request, an access, an interrupt and a start cost, in nanoseconds.
//!
//! Pinned to one processor and warmed up; each figure is the median and the 99th percentile of many samples, most of which
//! repeat the thing many times. `--json` writes one object of `name: {median_ns, p99_ns, samples, repeats}`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_types, reason = "it measures the host's time, outside any machine's")]

mod driver;
mod strands;

use std::time::Instant;

/// What was measured.
pub(crate) struct Figure {
    name: &'static str,
    /// Nanoseconds for one, one value a sample.
    samples: Vec<f64>,
    /// How often a sample repeats it.
    repeats: u32,
}

impl Figure {
    /// From the samples of a thing repeated `repeats` times each.
    pub(crate) fn new(name: &'static str, repeats: u32, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { name, samples, repeats }
    }

    fn at(&self, percent: usize) -> f64 {
        let last = self.samples.len().saturating_sub(1);
        self.samples.get(last * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

/// Nanoseconds that one of `repeats` took since `begun`.
pub(crate) fn each(begun: Instant, repeats: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(repeats)
}

fn main() {
    pin();
    let mut figures = vec![strands::switch()];
    figures.extend(driver::all());
    figures.sort_by_key(|figure| figure.name);
    if std::env::args().any(|argument| argument == "--json") {
        let object: serde_json::Map<String, serde_json::Value> = figures.iter().map(json).collect();
        println!("{}", serde_json::Value::from(object));
        return;
    }
    println!("{:20} {:>14} {:>14} {:>9} {:>9}", "", "median", "p99", "samples", "repeats");
    for figure in &figures {
        let (name, samples, repeats) = (figure.name, figure.samples.len(), figure.repeats);
        println!("{name:20} {:>11.1} ns {:>11.1} ns {samples:>9} {repeats:>9}", figure.at(50), figure.at(99));
    }
}

fn json(figure: &Figure) -> (String, serde_json::Value) {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let value = serde_json::json!({
        "median_ns": tenths(figure.at(50)),
        "p99_ns": tenths(figure.at(99)),
        "samples": figure.samples.len(),
        "repeats": figure.repeats,
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
