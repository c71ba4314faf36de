//! Writes that are on their way to a card: `--platform posted=TIME`. A compiled driver (`drivers/c/posted.c`) that reads a register back behind a write
//! it depends on is right whatever the policy chooses; one that does not is wrong by default.

use std::collections::BTreeSet;

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Outcome, Platform, Report, ScriptText};

use super::rig::{driver, finish, seeds, start};

const RAISE: u32 = 0x0022_3840;
const DATA: u32 = 0x0022_3844;
const ORDER: u32 = 0x0022_3848;
const REFUSED: u32 = 0x0022_384C;
const LEAVE: u32 = 0x0022_3850;

const NOT_THERE: u32 = 0xEEEE_EEEE;

fn bench(platform: &str) -> Bench {
    let bench = Bench::new().driver(driver("posted.sys")).inf(driver("posted.inf")).device("bench,pin=a");
    bench.platform(platform.parse::<Platform>().unwrap())
}

/// The two words that a request tells.
fn answer(bench: impl Fn() -> Bench, code: u32, reads_back: bool) -> (u32, u32) {
    let machine = start(bench);
    let file = machine.open(r"\\.\DirqlPosted").unwrap();
    let words = file.device_control(code, &u32::from(reads_back).to_le_bytes(), 8).unwrap();
    file.close().unwrap();
    finish(machine);
    let word = |at: usize| u32::from_le_bytes(words[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

/// What it tells in random schedules.
fn told_at_random(code: u32, reads_back: bool) -> BTreeSet<(u32, u32)> {
    let at = |seed| answer(|| bench("posted=2us").policy(Policy::random(seed)), code, reads_back);
    seeds(24).map(at).collect()
}

#[test]
fn a_write_that_acknowledges_may_come_after_the_service_routine_which_is_called_once_more() {
    for (platform, again) in [("", 0), ("posted=2us", 1)] {
        assert_eq!(answer(|| bench(platform), RAISE, false), (1, again), "by default it is on its way");
    }
    let all = told_at_random(RAISE, false);
    assert_eq!(all, BTreeSet::from([(1, 0), (1, 1)]), "no more: the read in the routine brings it home");
    assert_eq!(told_at_random(RAISE, true), BTreeSet::from([(1, 0)]));
}

#[test]
fn what_a_command_on_its_way_starts_has_not_happened_until_a_read_brings_it_home() {
    assert_eq!(answer(|| bench("posted=2us"), DATA, false), (NOT_THERE, 0));
    assert_eq!(told_at_random(DATA, false), BTreeSet::from([(0, 0), (NOT_THERE, 0)]));
    assert_eq!(told_at_random(DATA, true), BTreeSet::from([(0, 0)]));
}

#[test]
fn a_read_never_passes_a_write_and_a_write_none_that_was_made_before() {
    assert_eq!(told_at_random(ORDER, false), BTreeSet::from([(0x11, 0x22)]));
}

#[test]
fn a_write_that_the_card_does_not_take_is_told_when_it_has_arrived() {
    for platform in ["", "posted=2us"] {
        let machine = start(|| bench(platform));
        let file = machine.open(r"\\.\DirqlPosted").unwrap();
        assert!(file.device_control(REFUSED, &[0; 4], 8).is_err());
        let verdict = machine.finish().verdict.expect("the card refuses it");
        assert_eq!(verdict.rule, "register-refused");
        assert_eq!(
            verdict.message.contains("that was on its way"),
            !platform.is_empty(),
            "{}",
            verdict.message
        );
    }
}

/// The bus driver disables a stopped card in configuration space, and what is written there does not pass writes to memory.
#[test]
fn what_a_driver_writes_before_its_device_is_stopped_arrives() {
    let machine = start(|| bench("posted=2us"));
    let held = || {
        let file = machine.open(r"\\.\DirqlPosted").unwrap();
        let words = file.device_control(LEAVE, &[0; 4], 8).unwrap();
        file.close().unwrap();
        words[0]
    };
    assert_eq!(held(), 0);
    machine.stop_device("bench#0").unwrap();
    machine.start_device("bench#0").unwrap();
    assert_eq!(held(), 0x40);
    finish(machine);
}

#[test]
fn a_search_finds_the_driver_that_takes_the_command_for_done() {
    let script = |reads_back: u32| {
        format!(
            r"open \\.\DirqlPosted as f
            ioctl f 0x223844 in u32:{reads_back} out 8 expect u64:0
            close f"
        )
    };
    let one = Bounds {
        preemptions: 1,
        schedules: 10_000,
        faults: false,
        shared: false,
        cuts: true,
        instructions: false,
        policy: None,
    };
    for (reads_back, is_found) in [(0, true), (1, false)] {
        let play = ScriptText::typed(&script(reads_back)).play().unwrap();
        let broken = |report: &Report| report.outcome() != Outcome::Clean;
        let bench = bench("posted=2us").unobserved();
        let searched = bench.search(&play, &one, broken).unwrap_or_else(|error| panic!("{error}"));
        assert!(searched.found.is_some() == is_found && (is_found || searched.complete));
    }
}
