//! What translated code costs beside the same bytes run natively, and what each way between driver and host costs
//! with no kernel above the engine: the engine's part of `cargo xtask bench`.
//!
//! Prints one JSON object, `name: {best, median, p99, unit, samples}`; a ratio is taken within each sample, one run after the
//! other. Names given as arguments are measured alone.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_types, reason = "it measures the host's time, outside any machine's")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark that cannot go on ends"
)]

mod kernels;
mod ways;

#[path = "../../tests/rig/mod.rs"]
mod rig;

use std::time::Instant;

/// One figure: its samples, sorted.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    samples: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(name: &str, unit: &'static str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { name: name.to_owned(), unit, samples }
    }

    pub(crate) fn at(&self, percent: usize) -> f64 {
        self.samples[(self.samples.len() - 1) * percent / 100]
    }
}

/// Samples of `work`, in nanoseconds for one of `repeats`.
pub(crate) fn sampled(samples: u32, repeats: u32, mut work: impl FnMut(u32)) -> Vec<f64> {
    work(repeats);
    let sample = |_| {
        let begun = Instant::now();
        work(repeats);
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(repeats)
    };
    (0..samples).map(sample).collect()
}

/// Whether the command line names it, or nothing.
pub(crate) fn wanted(name: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|argument| argument != "--json").peekable();
    names.peek().is_none() || names.any(|part| name.contains(&part))
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

fn main() {
    pin();
    let mut figures = ways::all();
    figures.extend(kernels::all());
    let object: serde_json::Map<String, serde_json::Value> = figures.iter().map(json).collect();
    println!("{}", serde_json::to_string_pretty(&object).unwrap());
}

fn json(figure: &Figure) -> (String, serde_json::Value) {
    let cut = |value: f64| (value * 1000.0).round() / 1000.0;
    let value = serde_json::json!({
        "best": cut(figure.at(1)),
        "median": cut(figure.at(50)),
        "p99": cut(figure.at(99)),
        "unit": figure.unit,
        "samples": figure.samples.len(),
    });
    (figure.name.clone(), value)
}
