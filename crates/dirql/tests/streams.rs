//! String instructions with ports and device memory in a compiled driver (`drivers/c/streams.c`), with a card whose FIFOs are behind
//! ports (`drivers/c/streams.sheet`).

use dirql::{Bench, Machine, Report};

use super::rig::{self, driver, start};

const DEVICE: &str = r"\\.\Streams";

fn machine(checked: bool) -> Machine {
    let sheet = driver("streams.sys").ancestors().nth(3).unwrap().join("drivers/c/streams.sheet");
    start(|| {
        let card = format!("pci,sheet={}", sheet.display());
        Bench::new().driver(driver("streams.sys")).device(card).checked(checked)
    })
}

/// Has the driver tell a story of so many checks, all of which hold, in a fast and a checked machine.
#[track_caller]
fn tell(story: &str, checks: u32) {
    for checked in [false, true] {
        rig::tell(machine(checked), DEVICE, story, checks, "").expect_clean();
    }
}

/// How a story ends that does not.
fn stopped(story: &str, checked: bool) -> Report {
    let machine = machine(checked);
    let _ = rig::try_play(&machine, &format!(r"open {DEVICE} as s; {}", rig::command("s", story)));
    machine.finish()
}

#[test]
fn words_of_each_width_go_out_and_come_back() {
    tell("EveryWidth", 6);
}

#[test]
fn a_count_of_none_does_nothing_and_one_without_a_prefix_does_one() {
    tell("NoneAndOne", 6);
}

#[test]
fn the_direction_flag_is_heeded() {
    tell("Backwards", 3);
}

#[test]
fn a_buffer_may_lie_across_pages() {
    tell("AcrossPages", 3);
}

#[test]
fn memory_may_be_the_cards_own() {
    tell("FromWindowToPort", 4);
}

#[test]
fn every_other_string_instruction_reaches_device_memory() {
    tell("InTheWindow", 5);
}

#[test]
fn a_string_that_goes_into_freed_memory_is_told_with_its_line() {
    let verdict = stopped("IntoFreedMemory", true).verdict.unwrap();
    assert_eq!(verdict.rule, "use-after-free", "{verdict:?}");
    assert!(verdict.message.contains("IntoFreedMemory"), "{verdict:?}");
}

#[test]
fn a_string_beyond_the_cards_ports_reads_ones() {
    let report = stopped("BeyondItsPorts", false);
    report.expect_clean();
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["port-of-no-device"], "{report}");
}
