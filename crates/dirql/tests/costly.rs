//! A call that never ends, made of exports that cost the host much more than they have instructions: what they cost counts, so each ends as
//! an endless loop, after a number of rounds that the host can bear (`drivers/c/hostile/costly.c`).

use dirql::{Bench, Error, Report};

use super::rig::{driver, start, try_play};

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

/// As often as that (the most is without end, and has a small budget), in a machine that has so much memory: nothing is given back.
fn keep(index: u32, rounds: u32, megabytes: u64) -> (Result<(), Error>, Report) {
    let bench = || {
        let bench = Bench::new().driver(driver("costly.sys")).memory(megabytes << 20);
        if rounds == u32::MAX { bench.instruction_budget(10 * BUDGET) } else { bench }
    };
    let machine = start(bench);
    let code = CODE + 4 * index;
    let played =
        try_play(&machine, &format!(r"open \\.\DirqlCostly as f; ioctl f {code:#x} in u32:{rounds}"));
    (played, machine.finish())
}

fn says(report: &Report, rule: &str, text: &str) -> bool {
    let mut all = report.findings.iter().chain(&report.verdict);
    all.any(|finding| finding.rule == rule && finding.message.contains(text))
}

#[test]
fn contiguous_memory_that_is_kept_is_used_up_by_name_and_asking_for_more_ends() {
    let (played, report) = keep(15, 200, 64);
    assert!(played.is_ok(), "each call is answered\n{report}");
    assert!(says(&report, "memory-used-up", "the machine's memory of 64 MiB is used up"), "{report}");
    assert!(says(&report, "contiguous-memory-leak", "allocated by costly.sys!KeepContiguous+"), "{report}");
    let (_, report) = keep(15, u32::MAX, 64);
    assert!(says(&report, "memory-used-up", "of 64 MiB"), "{report}");
    assert_eq!(report.expect_verdict().rule, "endless-loop", "{report}");
}

#[test]
fn threads_without_number_are_one_line_of_the_verdict() {
    let (played, report) = keep(16, 20_000, 64);
    assert!(played.is_ok(), "{report}");
    assert!(says(&report, "memory-used-up", "the machine's memory of 64 MiB is used up"), "{report}");
    assert_eq!(report.expect_verdict().rule, "unload-still-called", "{report}");

    let machine = start(|| Bench::new().driver(driver("costly.sys")));
    let asked = format!(r"open \\.\DirqlCostly as f; ioctl f {:#x} in u32:2000", CODE + 4 * 16);
    let asked = format!("{asked}; ioctl f {:#x} in u32:1", CODE + 4 * 19);
    let message = try_play(&machine, &asked).unwrap_err().to_string();
    assert!(message.contains(" (2000 such threads)") && message.len() < 2_000, "{message}");
    let report = machine.finish().to_string();
    assert!(report.len() < 20_000, "{report}");
}

#[test]
fn mappings_without_number_are_told_as_so_many_and_end_by_name() {
    let (played, report) = keep(17, 1_000, 192);
    assert!(played.is_ok(), "{report}");
    assert!(says(&report, "locked-pages-leak", "left 936 more MDLs with pages locked or mapped, locked by"));
    assert!(says(&report, "pool-leak", "left 936 more blocks of pool, allocated by costly.sys!KeepMapping+"));
    let (_, report) = keep(17, 25_000, 192);
    assert!(says(&report, "not-implemented", "more than 42,000 areas of memory at once"), "{report}");
    assert!(report.findings.len() < 200, "{report}");
}
