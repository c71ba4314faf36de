//! Data races: `races.sys` has pairs of what two flows of control do to the same memory, wrong and right. In none do the two meet in the run; the wrong
//! ones are found all the same, and the right ones are not accused.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Report};
use rig::{driver, start};

const NAME: &str = r"\\.\DirqlRaces";

fn bench(processors: u32) -> Bench {
    Bench::new().driver(driver("races.sys")).checked(true).races(true).processors(processors)
}

/// What is found while the driver tells a story.
fn told(story: &str, processors: u32) -> Report {
    let machine = start(|| bench(processors));
    rig::checks_made(&machine, NAME, story, &[]).unwrap();
    machine.finish()
}

#[test]
fn print_all() {
    let machine = start(|| bench(2));
    let all = rig::stories(&machine, NAME).unwrap();
    drop(machine);
    for story in all {
        for n in [1, 2] {
            let report = told(&story, n);
            println!(
                "{story} {n}: {:?}",
                report.findings.iter().map(|f| (f.rule, &f.message)).collect::<Vec<_>>()
            );
        }
    }
}
