//! Stories of pool that is charged to processes, as a compiled driver tells them (`drivers/c/quota.c`).

use dirql::{Bench, Machine};

use super::rig::{self, driver, start};

const LIMIT: u64 = 0x1_0000;

fn bench() -> Bench {
    Bench::new().driver(driver("quota.sys")).quota(LIMIT)
}

fn tell(story: &str, checks: u32) {
    rig::tell(start(bench), r"\\.\DirqlQuota", story, checks, "");
}

fn say(machine: &Machine, story: &str) {
    rig::checks_made(machine, r"\\.\DirqlQuota", story, &[]).unwrap();
}

#[test]
fn pool_is_charged_to_a_process_up_to_its_limit() {
    tell("UpToTheLimit", 14);
}

#[test]
fn a_request_is_charged_if_its_driver_says_so() {
    tell("RequestsAreCharged", 6);
}

#[test]
fn what_is_charged_and_returned_by_hand_counts_as_blocks_do() {
    tell("ChargedByHand", 8);
}

#[test]
fn the_system_process_has_no_limit() {
    tell("SystemHasNoLimit", 2);
}

#[test]
fn without_a_limit_pool_is_charged_all_the_same() {
    let machine = start(|| bench().quota(None));
    say(&machine, "Keep");
    say(&machine, "HasAll");
    say(&machine, "FreeKept");
    machine.finish().expect_clean();
}

#[test]
fn what_a_block_was_charged_goes_back_to_its_process_whoever_frees_it() {
    let machine = start(bench);
    let [one, other] = ["one.exe", "other.exe"].map(|name| machine.begin_process(name).unwrap());
    machine.within(one, || say(&machine, "Keep"));
    machine.within(one, || say(&machine, "HasNone"));
    machine.within(other, || say(&machine, "HasAll"));
    machine.within(other, || say(&machine, "FreeKept"));
    machine.within(one, || say(&machine, "HasAll"));
    // The process may have ended by then.
    machine.within(one, || say(&machine, "Keep"));
    machine.end_process(one);
    machine.within(other, || say(&machine, "HasAll"));
    machine.within(other, || say(&machine, "FreeKept"));
    machine.finish().expect_clean();
}
