//! Stories of what keeps threads and processors apart or brings them together (`drivers/c/locks`): reader/writer spin locks,
//! `KeIpiGenericCall`, run-down protection, push locks, queue objects, sequenced lists, and whatever threads wait for. The driver checks the guarantees that are documented; it
//! does so when nothing comes between, in random schedules, and in all schedules within a bound.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use std::collections::BTreeSet;

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Outcome, Play, Report, ScriptText};
use engine::Tracking;

use super::rig::{self, driver, start};

fn bench(processors: u32) -> Bench {
    Bench::new().driver(driver("locks.sys")).processors(processors).instruction_budget(50_000_000)
}

// ---- stories ----

/// Carries out one story of the driver's table on so many processors; at least `checks` of its checks must have been made,
/// all with success.
fn tell(story: &str, processors: u32, checks: u32) {
    let how = format!("on {processors} processors");
    rig::tell(start(|| bench(processors)), r"\\.\DirqlLocks", story, checks, &how);
}

#[test]
fn a_reader_writer_spin_lock_is_shared_or_had_alone() {
    tell("OneProcessorsLock", 1, 6);
}

#[test]
fn a_writer_that_waits_comes_before_readers_that_ask_later() {
    tell("WriterComesFirst", 3, 4);
    tell("WriterComesFirst", 8, 4);
}

#[test]
fn a_threaded_dpc_raises_for_its_spin_locks_if_it_must() {
    tell("ThreadedDpcs", 2, 4);
}

#[test]
fn an_interprocessor_call_runs_once_on_each_of_1_to_64_processors_at_the_same_time() {
    for processors in [1, 2, 3, 7, 64] {
        tell("Broadcasts", processors, 3);
    }
}

/// Holds: irql/high
#[test]
fn an_interprocessor_call_waits_for_a_processor_at_high_level() {
    tell("BroadcastWaitsForHigh", 2, 2);
}

#[test]
fn a_rundown_wait_ends_when_all_references_are_gone() {
    tell("Rundowns", 1, 11);
    tell("Rundowns", 4, 11);
}

#[test]
fn cache_aware_rundown_protection_is_the_same() {
    tell("CacheAwareRundowns", 4, 13);
}

#[test]
fn a_push_lock_goes_to_who_waits_in_their_order() {
    tell("PushLocks", 1, 10);
    tell("PushLocks", 4, 10);
}

#[test]
fn a_sequenced_list_is_changed_inline_and_by_exports_alike() {
    tell("SequencedInline", 1, 9);
}

#[test]
fn a_queue_object_gives_its_entries_in_order_and_nothing_when_it_is_run_down() {
    tell("QueueOrder", 1, 20);
    tell("QueueOrder", 4, 20);
}

#[test]
fn a_queue_objects_last_waiter_goes_on_first_and_the_other_one_while_it_waits() {
    tell("QueueWorkers", 1, 13);
    tell("QueueWorkers", 4, 13);
}

#[test]
fn a_queue_object_lets_so_many_threads_run_and_no_more() {
    tell("QueueLimit", 4, 11);
}

// ---- misuse ----

/// Bug check code, and parameter 1 where that tells the kind.
type Check = Option<(u32, Option<u64>)>;

/// What is to come of each misuse, on two processors.
const MISUSES: &[(&str, &str, Check)] = &[
    ("AloneTwice", "spin-lock-recursion", Some((0xF, None))),
    ("SharedThenAlone", "spin-lock-recursion", Some((0xF, None))),
    ("AloneThenShared", "spin-lock-recursion", Some((0xF, None))),
    ("SharedTwice", "spin-lock-shared-twice", None),
    ("ReleaseNotHeld", "spin-lock-not-held", Some((0x10, None))),
    ("ReleaseOtherwise", "spin-lock-not-held", Some((0x10, None))),
    ("ConvertNotShared", "spin-lock-not-held", Some((0x10, None))),
    ("NotZeroed", "spin-lock-damaged", None),
    ("ReturnSharing", "spin-lock-held-on-return", Some((0xC4, Some(0x4_0009)))),
    ("LowerSharing", "spin-lock-held-below-dispatch", None),
    ("FreeHeld", "freed-held-lock", Some((0xC4, Some(0x100B)))),
    ("PlainAsShared", "spin-lock-damaged", None),
    ("Crossed", "spin-lock-deadlock", Some((0xC4, Some(0x1001)))),
    ("ReleaseUnheld", "rundown-not-held", None),
    ("ReuseHeld", "rundown-not-complete", None),
    ("ReuseNotRunDown", "rundown-not-complete", None),
    ("WaitForItself", "irp-never-completed", None),
    ("NoCacheAware", "rundown-not-initialized", None),
    ("WaitTooHigh", "irql-too-high", None),
    ("PushTwice", "push-lock-recursion", None),
    ("PushSharedThenAlone", "push-lock-recursion", None),
    ("PushNotHeld", "push-lock-not-held", Some((0x162, None))),
    ("PushOutsideRegion", "push-lock-apcs", None),
    ("PushTooHigh", "irql-too-high", None),
    ("PushNeverGiven", "irp-never-completed", None),
    ("IpiTooHigh", "irql-too-high", None),
    ("IpiRaises", "irql-changed-by-routine", Some((0xC8, None))),
    ("IpiLowers", "irql-lowered-in-callback", Some((0xC4, Some(0x31)))),
    ("IpiSetsEvent", "irql-too-high", None),
    ("IpiWithLock", "ipi-deadlock", Some((0x101, None))),
    ("IpiWantsLock", "ipi-deadlock", Some((0x101, None))),
    ("GuardedOutsideRegion", "guarded-mutex-apcs", None),
    ("GuardedTwice", "fast-mutex-recursive", None),
];

/// Survived: documented as wrong, or what only Driver Verifier stops for.
const SURVIVED: [&str; 5] =
    ["SharedTwice", "FreeHeld", "ReuseNotRunDown", "PushOutsideRegion", "GuardedOutsideRegion"];

fn misuse(name: &str) -> Report {
    let machine = start(|| bench(2));
    // What goes wrong stands in the report.
    let _ = rig::try_play(&machine, &format!(r"open \\.\DirqlLocks as f; {}", rig::command("f", name)));
    machine.finish()
}

#[test]
fn each_misuse_ends_in_its_verdict() {
    for (name, rule, check) in MISUSES {
        let report = misuse(name);
        let verdict = report.verdict.as_ref().or(report.findings.first());
        let verdict = verdict.unwrap_or_else(|| panic!("misuse {name} goes unseen\n{report}"));
        assert_eq!(verdict.rule, *rule, "misuse {name}\n{report}");
        assert_eq!(verdict.bug_check.map(|check| check.code), check.map(|(code, _)| code), "{report}");
        if let (Some((_, Some(first))), Some(check)) = (check, verdict.bug_check) {
            assert_eq!(check.parameters[0], *first, "misuse {name}\n{report}");
        }
        assert_eq!(report.verdict.is_none(), SURVIVED.contains(name), "misuse {name}\n{report}");
    }
}

#[test]
fn a_deadlock_names_who_waits_for_what() {
    let message = |name: &str| misuse(name).expect_verdict().message.clone();
    let crossed = message("Crossed");
    assert!(
        crossed.contains("processor 0 holds since") && crossed.contains("processor 1 holds since"),
        "{crossed}"
    );
    let held_back = message("IpiWithLock");
    assert!(held_back.contains("for all processors to take the interrupt"), "{held_back}");
    let within = message("IpiWantsLock");
    assert!(within.contains("for the routine to return on all processors"), "{within}");
}

#[test]
fn a_mutex_taken_twice_is_told_by_the_name_of_what_was_called() {
    let report = misuse("GuardedTwice");
    let message = &report.expect_verdict().message;
    assert!(message.starts_with("KeAcquireGuardedMutex was called for the mutex"), "{message}");
}

// ---- schedules ----

/// The script in which these steps are taken at once, each by a thread of its own; nothing may have gone wrong then.
fn at_once(steps: &[u32]) -> String {
    let mut text = String::new();
    for index in 0..steps.len() {
        text += &format!("open \\\\.\\DirqlLocks as f{index}\n");
    }
    for (index, step) in steps.iter().enumerate() {
        text += &format!("t{index}: ioctl f{index} {:#x}\n", 0x0022_2400 + 4 * step);
    }
    for index in 0..steps.len() {
        text += &format!("join t{index}\n");
    }
    // What DPCs still have to do is done when the next request's thread runs again.
    text + "wait 1ms\nioctl f0 0x2227fc out 4 expect u32:0"
}

fn play(steps: &[u32]) -> Play {
    ScriptText::typed(&at_once(steps)).play().unwrap()
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const CONVERT: u32 = 2;
const TRY: u32 = 3;
const QUEUE_BOTH: u32 = 4;
const BROADCAST: u32 = 5;
const HOLD: u32 = 6;
const MOVE: u32 = 7;
const USE: u32 = 8;
const USE_MANY: u32 = 9;
const RUN_DOWN: u32 = 10;
const USE_AWARE: u32 = 11;
const RUN_DOWN_AWARE: u32 = 12;
const PUSH_READ: u32 = 13;
const PUSH_WRITE: u32 = 14;
const SHUFFLE: u32 = 15;
const MUTEX: u32 = 16;
const FAST: u32 = 17;
const TRY_FAST: u32 = 18;
const GUARDED: u32 = 19;
const EVENT: u32 = 20;
const ANY: u32 = 21;
const ALL: u32 = 22;
const PLACE: u32 = 23;
const SHARE: u32 = 24;
const SHARE_FIRST: u32 = 25;
const OWN: u32 = 26;
const QUEUED: u32 = 27;
const ITEMS: u32 = 28;
const PUT: u32 = 29;
const TAKE: u32 = 30;

/// How many random schedules of each script.
const ROUNDS: u64 = 200;

/// The steps hold the guarantees when nothing comes between and in random schedules, of which many are different.
fn hold_at_random(processors: u32, steps: &[u32]) {
    let machine = start(|| bench(processors));
    rig::play(&machine, &at_once(steps));
    machine.finish().expect_clean();
    let machine = start(|| bench(processors));
    let explored = machine.explore(&play(steps), Tracking::Faults, |exploration| {
        let mut seen = BTreeSet::new();
        for seed in rig::seeds(ROUNDS) {
            let report = exploration.run(Policy::random(seed).chooser());
            assert_eq!(report.outcome(), Outcome::Clean, "random:{seed}\n{report}");
            seen.insert(report.trace_hash);
        }
        seen.len() as u64
    });
    let different = explored.unwrap();
    let rounds = *rig::seeds(ROUNDS).end();
    println!("{different} different schedules of {rounds}");
    // A short script has not many more.
    assert!(different > rounds.min(ROUNDS) / 4, "{different} different schedules of {rounds}");
}

/// The steps hold the guarantees in all schedules with at most so many preemptions before calls, device accesses and interlocked
/// instructions; and with one before these and before whatever plain instruction touches what others touch.
fn hold_always(processors: u32, steps: &[u32], preemptions: usize) {
    hold_within(processors, steps, Bounds { preemptions, shared: false, ..Bounds::default() });
    hold_within(processors, steps, Bounds { preemptions: 1, ..Bounds::default() });
}

fn hold_within(processors: u32, steps: &[u32], bounds: Bounds) {
    let broken = |report: &Report| report.outcome() != Outcome::Clean;
    let searched = bench(processors).unobserved().search(&play(steps), &bounds, broken).unwrap();
    println!("{:?} schedules, {} learned", searched.schedules, searched.learned);
    let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(searched.complete && found.is_none(), "{}", found.unwrap_or_default());
    assert!(searched.schedules.iter().sum::<u64>() > 20, "{:?}", searched.schedules);
}

#[test]
fn readers_exclude_writers_in_random_schedules() {
    hold_at_random(4, &[READ, WRITE, CONVERT, TRY, WRITE, READ, QUEUE_BOTH]);
}

#[test]
fn a_reader_and_a_writer_exclude_each_other_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[READ, WRITE], 2);
}

#[test]
fn two_that_would_convert_exclude_each_other_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[CONVERT, CONVERT], 2);
}

#[test]
fn dpcs_that_share_and_write_exclude_each_other_in_every_schedule_with_one_preemption() {
    hold_always(2, &[QUEUE_BOTH, TRY], 1);
}

#[test]
fn interprocessor_calls_run_everywhere_once_in_random_schedules() {
    hold_at_random(4, &[BROADCAST, BROADCAST, BROADCAST, MOVE]);
}

/// Not: ipi-deadlock
#[test]
fn nothing_moves_during_an_interprocessor_call_in_random_schedules() {
    // Who moves comes first, and is on the move when the call is made.
    hold_at_random(3, &[MOVE, MOVE, HOLD, WRITE]);
}

#[test]
fn two_interprocessor_calls_run_everywhere_once_in_every_schedule_with_one_preemption() {
    hold_always(2, &[BROADCAST, BROADCAST], 1);
}

#[test]
fn a_rundown_wait_ends_without_references_in_random_schedules() {
    hold_at_random(4, &[USE, RUN_DOWN, USE_MANY, USE, RUN_DOWN]);
    hold_at_random(4, &[USE_AWARE, RUN_DOWN_AWARE, USE_AWARE]);
}

#[test]
fn a_rundown_wait_ends_without_references_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[USE, RUN_DOWN], 2);
}

#[test]
fn a_push_lock_keeps_threads_apart_in_random_schedules() {
    hold_at_random(4, &[PUSH_READ, PUSH_WRITE, PUSH_READ, PUSH_WRITE, PUSH_READ]);
    hold_at_random(1, &[PUSH_READ, PUSH_WRITE, PUSH_WRITE, PUSH_READ]);
}

#[test]
fn a_push_lock_keeps_two_threads_apart_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[PUSH_READ, PUSH_WRITE], 2);
}

#[test]
fn no_entry_of_a_sequenced_list_is_lost_in_random_schedules() {
    hold_at_random(4, &[SHUFFLE, SHUFFLE, SHUFFLE]);
}

#[test]
fn no_entry_of_a_sequenced_list_is_lost_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[SHUFFLE, SHUFFLE], 2);
}

#[test]
fn mutexes_of_all_kinds_have_one_owner_in_random_schedules() {
    hold_at_random(1, &[MUTEX, FAST, GUARDED, MUTEX, TRY_FAST, GUARDED]);
    hold_at_random(4, &[MUTEX, FAST, GUARDED, MUTEX, TRY_FAST, GUARDED, FAST]);
}

#[test]
fn mutexes_of_all_kinds_have_one_owner_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[MUTEX, MUTEX], 2);
    hold_always(2, &[FAST, TRY_FAST], 2);
    hold_always(2, &[GUARDED, GUARDED], 2);
}

#[test]
fn a_wait_for_several_objects_has_one_or_all_in_random_schedules() {
    hold_at_random(1, &[ANY, ALL, EVENT, MUTEX, ANY]);
    hold_at_random(4, &[ANY, ALL, EVENT, MUTEX, ANY, ALL]);
}

#[test]
fn a_wait_for_several_objects_has_one_or_all_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[ANY, ANY], 2);
    hold_always(2, &[ALL, EVENT], 2);
    hold_always(1, &[ALL, MUTEX], 2);
}

#[test]
fn a_semaphore_lets_as_many_in_as_it_has_places_for_in_random_schedules() {
    hold_at_random(1, &[PLACE, PLACE, PLACE]);
    hold_at_random(4, &[PLACE, PLACE, PLACE, PLACE]);
}

#[test]
fn a_semaphore_lets_as_many_in_as_it_has_places_for_in_every_schedule_with_two_preemptions() {
    hold_always(1, &[PLACE, PLACE, PLACE], 2);
}

#[test]
fn a_resource_is_shared_or_owned_in_random_schedules() {
    hold_at_random(1, &[SHARE, OWN, SHARE_FIRST, OWN]);
    hold_at_random(4, &[SHARE, OWN, SHARE_FIRST, OWN, SHARE]);
}

#[test]
fn a_resource_is_shared_or_owned_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[SHARE, OWN], 2);
    hold_always(2, &[OWN, OWN], 2);
}

#[test]
fn a_queued_spin_lock_and_an_interlocked_list_keep_processors_apart_in_random_schedules() {
    hold_at_random(4, &[QUEUED, QUEUED, ITEMS, ITEMS, QUEUED]);
}

/// Not: spin-lock-deadlock
#[test]
fn a_queued_spin_lock_and_an_interlocked_list_keep_processors_apart_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[QUEUED, QUEUED], 2);
    hold_always(2, &[ITEMS, ITEMS], 2);
}

#[test]
fn an_entry_of_a_queue_object_is_taken_once_in_random_schedules() {
    hold_at_random(1, &[TAKE, PUT, TAKE, PUT, PUT, TAKE]);
    hold_at_random(4, &[TAKE, PUT, TAKE, PUT, PUT, TAKE]);
}

#[test]
fn an_entry_of_a_queue_object_is_taken_once_in_every_schedule_with_two_preemptions() {
    hold_always(2, &[TAKE, PUT], 2);
}
