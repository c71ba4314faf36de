//! A call that never ends, made of exports that cost the host much more than they have instructions: what they cost counts, so each ends as
//! an endless loop, after a number of rounds that the host can bear (`drivers/c/hostile/costly.c`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Report};
use rig::{driver, start, try_play};

const CODE: u32 = 0x0022_2000;
/// A two-hundredth of the usual one.
const BUDGET: u64 = 5_000_000;

fn carry_out(index: u32, checked: bool) -> Report {
    let bench = || Bench::new().driver(driver("costly.sys")).instruction_budget(BUDGET).checked(checked);
    let machine = start(bench);
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!(r"open \\.\DirqlCostly as f; ioctl f {:#x}", CODE + 4 * index));
    machine.finish()
}

/// How many calls of exports there were.
fn calls(report: &Report) -> u64 {
    let text = report.to_string();
    let line = text.lines().find(|line| line.trim_start().starts_with("exports")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn what_an_export_costs_the_host_counts() {
    // By export or pair: at most so many calls of a budget that has 100,000 cheap ones.
    let most = [
        (0, "KeSetEvent", 100_000),
        (2, "a megabyte of pool", 120),
        (3, "a megabyte compared", 100),
        (4, "a line printed", 1_000),
        (5, "a megabyte locked and mapped", 400),
        (6, "a value of 64 KiB", 1_500),
        (7, "a device object of some pages", 5_000),
        (8, "a megabyte of contiguous memory", 500),
        (10, "a thread", 1_500),
        (13, "a long text copied and compared", 2_500),
    ];
    for (index, what, most) in most {
        let report = carry_out(index, false);
        assert_eq!(report.expect_verdict().rule, "endless-loop", "{what}\n{report}");
        let calls = calls(&report);
        assert!(calls <= most, "{what}: {calls} calls\n{report}");
    }
}

#[test]
fn the_same_is_counted_in_a_checked_machine() {
    for index in [2, 5, 6, 14] {
        let [fast, checked] = [false, true].map(|checked| carry_out(index, checked));
        assert_eq!(fast.expect_verdict().rule, checked.expect_verdict().rule, "{index}");
        assert_eq!(calls(&fast), calls(&checked), "{index}\n{fast}\n{checked}");
    }
}
