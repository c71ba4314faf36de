//! Stories of pool that is charged to processes, as a compiled driver tells them (`drivers/c/quota.c`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Machine};
use rig::{driver, start};

const CODE: u32 = 0x0022_2000;
const LIMIT: u64 = 0x1_0000;
const KEEP: u32 = 4;
const HAS_NONE: u32 = 5;
const HAS_ALL: u32 = 6;
const FREE_KEPT: u32 = 7;

fn bench() -> Bench {
    Bench::new().driver(driver("quota.sys")).quota(LIMIT)
}

fn tell(index: u32, checks: u32) {
    rig::tell(start(bench), r"\\.\DirqlQuota", CODE + 4 * index, checks, &format!("story {index}"));
}

fn say(machine: &Machine, index: u32) {
    rig::checks_made(machine, r"\\.\DirqlQuota", CODE + 4 * index, &[]).unwrap();
}

#[test]
fn pool_is_charged_to_a_process_up_to_its_limit() {
    tell(0, 14);
}

#[test]
fn a_request_is_charged_if_its_driver_says_so() {
    tell(1, 6);
}

#[test]
fn what_is_charged_and_returned_by_hand_counts_as_blocks_do() {
    tell(2, 8);
}

#[test]
fn the_system_process_has_no_limit() {
    tell(3, 2);
}

#[test]
fn without_a_limit_pool_is_charged_all_the_same() {
    let machine = start(|| bench().quota(None));
    say(&machine, KEEP);
    say(&machine, HAS_ALL);
    say(&machine, FREE_KEPT);
    machine.finish().expect_clean();
}

#[test]
fn what_a_block_was_charged_goes_back_to_its_process_whoever_frees_it() {
    let machine = start(bench);
    let [one, other] = ["one.exe", "other.exe"].map(|name| machine.begin_process(name).unwrap());
    machine.within(one, || say(&machine, KEEP));
    machine.within(one, || say(&machine, HAS_NONE));
    machine.within(other, || say(&machine, HAS_ALL));
    machine.within(other, || say(&machine, FREE_KEPT));
    machine.within(one, || say(&machine, HAS_ALL));
    // The process may have ended by then.
    machine.within(one, || say(&machine, KEEP));
    machine.end_process(one);
    machine.within(other, || say(&machine, HAS_ALL));
    machine.within(other, || say(&machine, FREE_KEPT));
    machine.finish().expect_clean();
}
