//! Whose doing it was: a failing run made again names, with stack and source line, who allocated, who freed, who took the
//! lock, who completed the request first.

use std::path::Path;

use dirql::explore::Policy;
use dirql::{Bench, Explanation, Moments, Play, Report, explain, script};

use super::rig::driver;

fn bench() -> Bench {
    Bench::new().driver(driver("faults.sys")).policy(Policy::random(5))
}

fn play(number: u32) -> Play {
    let code = 0x0022_2800 + number * 4;
    let text = format!("open \\\\.\\DirqlFaults as f; ioctl f {code:#x}");
    Play::new(script::parse("test", &text).unwrap(), Path::new("")).unwrap()
}

fn fails(number: u32, bench: fn() -> Bench) -> Report {
    bench().run(Some(play(number))).unwrap()
}

/// What a second run tells about the moments of a first one.
fn told_of(number: u32, bench: fn() -> Bench) -> String {
    let report = fails(number, bench);
    let moments = Moments::of(&report).unwrap_or_else(|| panic!("fault {number} names no moment\n{report}"));
    let text = moments.to_string();
    assert_eq!(text.parse::<Moments>().unwrap(), moments, "it survives the way to another process");
    let explained: Option<Explanation> = explain(bench(), Some(play(number)), &moments).unwrap();
    explained.unwrap_or_else(|| panic!("fault {number} did not come again")).to_string()
}

/// The line of `faults.c` with `code` in `routine`, as stacks show it.
fn line_of(routine: &str, code: &str) -> String {
    line_in("faults.c", include_str!("../../../drivers/c/faulty/faults.c"), routine, code)
}

fn line_in(name: &str, source: &str, routine: &str, code: &str) -> String {
    let lines = source.lines().enumerate();
    let begin = lines
        .clone()
        .position(|(_, line)| line.starts_with("static") && line.contains(&format!("{routine}(")))
        .unwrap();
    let (index, _) = lines.skip(begin).find(|(_, line)| line.contains(code)).unwrap();
    format!("(drivers/c/faulty/{name}:{})", index + 1)
}

/// The first line under the heading of a moment.
fn under<'a>(text: &'a str, what: &str) -> &'a str {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{what} at (event ")));
    lines.nth(1).unwrap_or_else(|| panic!("no `{what}` in\n{text}"))
}

#[test]
fn a_double_free_tells_who_allocated_and_who_freed_first() {
    let text = told_of(35, bench);
    let allocated = under(&text, "allocated");
    assert!(allocated.contains("faults!DoubleFree+"), "{text}");
    assert!(allocated.ends_with(&line_of("DoubleFree", "ExAllocatePoolWithTag")), "{text}");
    let freed = under(&text, "freed");
    assert!(freed.ends_with(&line_of("DoubleFree", "ExFreePoolWithTag")), "the first of the two\n{text}");
    assert!(text.contains("faults!DispatchDeviceControl"), "the whole stack is there\n{text}");
}

#[test]
fn an_overrun_tells_who_allocated_the_block() {
    let text = told_of(32, bench);
    assert!(under(&text, "allocated").ends_with(&line_of("PoolOverrun", "ExAllocatePoolWithTag")), "{text}");
    assert!(!text.contains("freed at"), "{text}");
}

#[test]
fn a_use_after_free_in_a_checked_machine_tells_both() {
    let checked = || bench().checked(true);
    let text = told_of(34, checked);
    assert!(under(&text, "allocated").ends_with(&line_of("UseAfterFree", "ExAllocatePoolWithTag")), "{text}");
    assert!(under(&text, "freed").ends_with(&line_of("UseAfterFree", "ExFreePoolWithTag")), "{text}");
}

#[test]
fn a_leak_tells_who_allocated() {
    let text = told_of(37, bench);
    assert!(under(&text, "allocated").contains("faults!PoolLeak+"), "{text}");
}

#[test]
fn a_lock_taken_twice_or_kept_tells_who_took_it() {
    let text = told_of(24, bench);
    assert!(under(&text, "taken").contains("faults!AcquireTwice+"), "{text}");
    assert!(under(&text, "taken").ends_with(&line_of("AcquireTwice", "KeAcquireSpinLock(")), "{text}");
    let text = told_of(23, bench);
    assert!(under(&text, "taken").contains("faults!ReturnLocked+"), "{text}");
}

#[test]
fn a_request_completed_twice_tells_who_completed_it_first() {
    let text = told_of(14, bench);
    assert!(under(&text, "completed").contains("faults!"), "{text}");
    assert!(text.contains("faults!DoubleCompletion+"), "{text}");
}

#[test]
fn a_request_touched_after_its_completion_is_told_as_such_in_a_checked_machine() {
    let checked = || bench().checked(true);
    let report = fails(14, checked);
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "use-after-free", "{report}");
    assert!(verdict.message.contains("it was the IRP 0x"), "{report}");
    let text = told_of(14, checked);
    assert!(under(&text, "completed").contains("faults!DoubleCompletion+"), "{text}");
}

#[test]
fn a_request_completed_with_its_cancel_routine_set_names_both_by_name_and_line() {
    let report = fails(15, bench);
    let message = &report.expect_verdict().message;
    assert!(message.contains("(IRP_MJ_DEVICE_CONTROL)"), "{report}");
    assert!(message.contains("the cancel routine faults.sys!"), "{report}");
    assert!(message.contains(" (faults.c:"), "{report}");
    let check = report.expect_verdict().bug_check.unwrap();
    assert!(check.parameters[1] >= 0x2000_0000_0000, "parameter 2 is the cancel routine: {report}");
}

// ---- what does not end ----

fn stuck() -> Bench {
    Bench::new().driver(driver("stuck.sys"))
}

/// The moments of a request of `stuck.sys` that does not end, found by a second run.
fn lost(code: u32, moments: &[&str]) -> String {
    let play = || {
        let text = format!("open \\\\.\\DirqlStuck as s; ioctl s {code:#x} in u32:0");
        Play::new(script::parse("test", &text).unwrap(), Path::new("")).unwrap()
    };
    let report = stuck().run(Some(play())).unwrap();
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("{code:#x} ends\n{report}"));
    let named: Vec<&str> = failure.moments.iter().map(|related| related.what).collect();
    assert_eq!(named, moments, "{report}");
    assert!(report.json_end().contains(r#""moments":[{"what":""#), "{}", report.json_end());
    let moments = Moments::of(&report).unwrap();
    let explained = explain(stuck(), Some(play()), &moments).unwrap();
    explained.unwrap_or_else(|| panic!("{code:#x} did not come again")).to_string()
}

/// The moment `what` stands at `code` of `routine`.
fn is_at(text: &str, what: &str, routine: &str, code: &str) {
    let source = include_str!("../../../drivers/c/faulty/stuck.c");
    let line = line_in("stuck.c", source, routine, code);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(what));
    assert!(lines.any(|shown| shown.ends_with(&line)), "no `{what}` at {line}\n{text}");
}

#[test]
fn a_request_that_nothing_ends_tells_which_routine_kept_it() {
    for code in [0x0022_2000, 0x0022_203C] {
        let text = lost(code, &["marked pending"]);
        assert!(under(&text, "marked pending").contains("stuck!DispatchDeviceControl"), "{text}");
    }
    let own = lost(0x0022_240C, &["allocated", "sent", "marked pending"]);
    is_at(&own, "sent", "WaitsForRequest", "IoCallDriver(");
}

#[test]
fn a_deadlock_of_fast_mutexes_tells_where_each_was_acquired() {
    let text = lost(0x0022_2404, &["acquired", "acquired"]);
    is_at(&text, "acquired", "Inverts", "ExAcquireFastMutex(&Extension->First)");
    let source = include_str!("../../../drivers/c/faulty/stuck.c");
    let backwards = source.lines().position(|line| line.contains("ExAcquireFastMutex(&Extension->Second)"));
    assert!(text.contains(&format!("stuck.c:{})", backwards.unwrap() + 1)), "{text}");
}

#[test]
fn a_remove_lock_that_is_not_released_tells_who_acquired_it() {
    let text = lost(0x0022_2408, &["acquired"]);
    is_at(&text, "acquired", "WaitsForRemoval", "(PVOID)0x1234");
}

// ---- who owns what ----

fn owners() -> Bench {
    Bench::new().driver(driver("owners.sys"))
}

/// A lock of `owners.sys`: its index, where the thread that keeps it acquires it, and how messages say whose it is.
struct Lock {
    index: u32,
    taken: (&'static str, &'static str),
    wanted: (&'static str, &'static str),
}

const LOCKS: [Lock; 6] = [
    Lock { index: 0, taken: ("TakeMutex", "KeWaitForSingleObject"), wanted: ("the mutex 0x", "owns") },
    Lock { index: 1, taken: ("TakeFast", "ExAcquireFastMutex"), wanted: ("the fast mutex 0x", "owns") },
    Lock { index: 2, taken: ("TakePush", "ExAcquirePush"), wanted: ("the push lock 0x", "holds") },
    Lock { index: 3, taken: ("SharePush", "ExAcquirePush"), wanted: ("the push lock 0x", "shares") },
    Lock { index: 4, taken: ("TakeResource", "ExAcquireRes"), wanted: ("the resource 0x", "owns alone") },
    Lock { index: 5, taken: ("ShareResource", "ExAcquireRes"), wanted: ("the resource 0x", "shares") },
];

fn act(number: u32, lock: &Lock) -> Play {
    let code = 0x0022_2400 + (number * 0x10 + lock.index) * 4;
    let text = format!(r"open \\.\DirqlOwners as o; ioctl o {code:#x}");
    Play::new(script::parse("test", &text).unwrap(), Path::new("")).unwrap()
}

/// The report of an act with a lock, and what a second run says about its moments.
fn told_of_act(number: u32, lock: &Lock) -> (Report, String) {
    let report = owners().run(Some(act(number, lock))).unwrap();
    let moments = Moments::of(&report).unwrap_or_else(|| panic!("no moments\n{report}"));
    let explained = explain(owners(), Some(act(number, lock)), &moments).unwrap();
    let text = explained.unwrap_or_else(|| panic!("it did not come again\n{report}")).to_string();
    (report, text)
}

/// The lock was acquired where its row says, by `caller`.
fn is_acquired(text: &str, lock: &Lock, caller: &str) {
    let (routine, code) = lock.taken;
    let source = include_str!("../../../drivers/c/faulty/owners.c");
    let line = under(text, "acquired");
    assert!(line.contains(&format!("owners!{routine}+")), "{text}");
    assert!(line.ends_with(&line_in("owners.c", source, routine, code)), "{text}");
    let mut stack = text.lines().skip_while(|line| !line.starts_with("acquired at")).skip(2);
    assert!(stack.any(|line| line.contains(&format!("owners!{caller}+"))), "not by {caller}\n{text}");
}

#[test]
fn a_wait_for_a_lock_that_is_kept_tells_whose_it_is_and_where_that_acquired_it() {
    for lock in &LOCKS {
        let (report, text) = told_of_act(0, lock);
        let message = &report.failure.as_ref().unwrap().message;
        let (name, verb) = lock.wanted;
        assert!(message.contains(&format!("waits for {name}")), "{report}");
        assert!(message.contains(&format!("which the system thread owners.sys!KeepIt {verb}")), "{report}");
        is_acquired(&text, lock, "KeepIt");
    }
}

#[test]
fn a_lock_that_another_thread_releases_tells_where_its_owner_acquired_it() {
    let rules = ["mutex-not-owned", "fast-mutex-not-owned", "push-lock-not-held", "push-lock-not-held"];
    let rules = [&rules[..], &["resource-not-owned"; 2]].concat();
    for (lock, rule) in LOCKS.iter().zip(rules) {
        let (report, text) = told_of_act(1, lock);
        assert_eq!(report.expect_verdict().rule, rule, "{report}");
        is_acquired(&text, lock, "KeepIt");
    }
}

#[test]
fn memory_that_is_freed_with_a_push_lock_or_a_resource_in_it_tells_who_has_acquired_it() {
    for lock in &LOCKS[2..] {
        let (report, text) = told_of_act(2, lock);
        let rule = if lock.index < 4 { "freed-held-lock" } else { "freed-while-in-use" };
        assert_eq!(report.expect_verdict().rule, rule, "{report}");
        is_acquired(&text, lock, "KeepIt");
        assert!(under(&text, "allocated").contains("owners!DispatchDeviceControl+"), "{text}");
    }
}

#[test]
fn a_lock_that_was_handed_on_was_acquired_by_who_waited_for_it() {
    // At APC_LEVEL, where a fast mutex puts its owner, no thread can be made.
    for lock in LOCKS.iter().filter(|lock| lock.index != 1) {
        let (report, text) = told_of_act(3, lock);
        assert!(report.failure.is_some(), "{report}");
        is_acquired(&text, lock, "KeepIt");
    }
}

#[test]
fn a_lock_that_its_owner_waits_for_tells_where_it_was_acquired_first() {
    let rules = [
        (1, "fast-mutex-recursive"),
        (2, "push-lock-recursion"),
        (3, "push-lock-recursion"),
        (5, "resource-self-deadlock"),
    ];
    for (index, rule) in rules {
        let lock = &LOCKS[index];
        let (report, text) = told_of_act(4, lock);
        assert_eq!(report.expect_verdict().rule, rule, "{report}");
        is_acquired(&text, lock, "TakenTwice");
    }
}

#[test]
fn a_variable_without_a_symbol_is_told_by_its_section_and_not_by_its_neighbour() {
    let report = owners().run(Some(act(5, &LOCKS[0]))).unwrap();
    let message = &report.failure.as_ref().unwrap().message;
    let (_, event) = message.split_once("waits for the notification event ").unwrap();
    assert!(event.starts_with("owners.sys+0x") && event.contains(" (.bss+0x"), "{report}");
    assert!(!event.split(')').next().unwrap().contains('!'), "{report}");
}

#[test]
fn a_deadlock_of_spin_locks_tells_where_each_was_acquired() {
    let bench = || Bench::new().driver(driver("locks.sys")).processors(2);
    let play = || {
        let text = r"open \\.\DirqlLocks as f; ioctl f 0x223ff8 in text:Crossed out 8";
        Play::new(script::parse("test", text).unwrap(), Path::new("")).unwrap()
    };
    let report = bench().run(Some(play())).unwrap();
    assert_eq!(report.expect_verdict().rule, "spin-lock-deadlock", "{report}");
    let moments = Moments::of(&report).unwrap();
    let text = explain(bench(), Some(play()), &moments).unwrap().unwrap().to_string();
    let stands_in = |routine: &str| text.contains(&format!("locks!{routine}+"));
    assert!(stands_in("Crossed") && stands_in("CrossedThread"), "{text}");
}

#[test]
fn a_thread_that_ends_with_a_mutex_tells_where_it_acquired_it() {
    let bench = || Bench::new().driver(driver("pairs.sys")).processors(1);
    let play = || {
        let rule: String = "thread-ended-owning-mutex".bytes().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(r"open \\.\DirqlPairs as p; ioctl p 0x222000 in hex:01{rule} out 64");
        Play::new(script::parse("test", &text).unwrap(), Path::new("")).unwrap()
    };
    let report = bench().run(Some(play())).unwrap();
    assert_eq!(report.expect_verdict().rule, "thread-ended-owning-mutex", "{report}");
    let moments = Moments::of(&report).unwrap();
    let text = explain(bench(), Some(play()), &moments).unwrap().unwrap().to_string();
    assert!(under(&text, "acquired").contains("pairs!"), "{text}");
}

// ---- who set and removed a cancel routine ----

#[test]
fn a_request_completed_with_its_cancel_routine_set_tells_who_set_it() {
    let text = told_of(15, || bench().checked(true));
    let line = under(&text, "cancel routine set");
    assert!(line.contains("faults!"), "{text}");
    let source = include_str!("../../../drivers/c/faulty/faults.c");
    let at = line.rsplit(':').next().unwrap().trim_end_matches(')').parse::<usize>().unwrap();
    let shown = source.lines().nth(at - 1).unwrap();
    assert!(shown.contains("IoSetCancelRoutine"), "{shown}\n{text}");
}

#[test]
fn a_request_that_is_kept_tells_who_set_its_cancel_routine() {
    let checked = || stuck().checked(true);
    let play = || {
        let text = r"open \\.\DirqlStuck as s; ioctl s 0x22203c in u32:0";
        Play::new(script::parse("test", text).unwrap(), Path::new("")).unwrap()
    };
    let report = checked().run(Some(play())).unwrap();
    let moments = &report.failure.as_ref().unwrap().moments;
    let named: Vec<&str> = moments.iter().map(|related| related.what).collect();
    assert_eq!(named, ["marked pending", "cancel routine set"], "{report}");
    let text = explain(checked(), Some(play()), &Moments::of(&report).unwrap()).unwrap().unwrap().to_string();
    is_at(&text, "cancel routine set", "Keep", "IoSetCancelRoutine(Irp, CancelHeld)");
}

#[test]
fn a_request_that_is_forgotten_in_its_cancel_routine_tells_who_set_and_who_removed_it() {
    let rule = "irp-never-completed";
    let moments = ["marked pending", "cancel routine set", "cancel routine removed"];
    // By IoCancelIrp, when the application's thread ends; by the driver itself.
    let text = left_by(|| leaves().checked(true), 21, rule, &moments);
    stands_at(&text, "cancel routine set", "ForgetCancelled", "IoSetCancelRoutine(Irp, OnCancel)");
    assert!(under(&text, "cancel routine removed").contains("by the kernel"), "{text}");
    let text = left_by(|| leaves().checked(true), 22, rule, &moments);
    stands_at(&text, "cancel routine set", "ForgetTaken", "IoSetCancelRoutine(Irp, OnCancel)");
    stands_at(&text, "cancel routine removed", "ForgetTaken", "IoSetCancelRoutine(Irp, NULL)");
}

#[test]
fn a_run_that_is_another_one_explains_nothing() {
    let moments = Moments::of(&fails(35, bench)).unwrap();
    assert!(explain(bench(), Some(play(36)), &moments).unwrap().is_none());
}

#[test]
fn a_verdict_without_earlier_moments_needs_no_second_run() {
    assert_eq!(Moments::of(&fails(1, bench)), None);
}

#[test]
fn moments_that_nobody_wrote_are_refused() {
    for text in ["", "12", "12:", "xyz:freed@1", "12:freed", "12:freed@x"] {
        let refused = text.parse::<Moments>().unwrap_err();
        assert!(refused.to_string().contains("HASH:WHAT@EVENT"), "{text}: {refused}");
    }
}

// ---- what is left behind when a driver goes ----

fn leaves() -> Bench {
    Bench::new().driver(driver("leaves.sys"))
}

fn leave(number: u32) -> Play {
    let code = 0x0022_3400 + number * 4;
    let text = format!("open \\\\.\\DirqlLeaves as f; ioctl f {code:#x}");
    Play::new(script::parse("test", &text).unwrap(), Path::new("")).unwrap()
}

/// The moments of the rule that this leaves broken, in their order, found by a second run.
fn left(number: u32, rule: &str, moments: &[&str]) -> String {
    left_by(leaves, number, rule, moments)
}

fn left_by(leaves: fn() -> Bench, number: u32, rule: &str, moments: &[&str]) -> String {
    let report = leaves().run(Some(leave(number))).unwrap();
    let broken = report.verdict.iter().chain(&report.findings).find(|verdict| verdict.rule == rule);
    let broken = broken.unwrap_or_else(|| panic!("{number} does not break {rule}\n{report}"));
    let named: Vec<&str> = broken.related.iter().map(|related| related.what).collect();
    assert_eq!(named, moments, "{number}\n{report}");
    let moments = Moments::of(&report).unwrap();
    let explained = explain(leaves(), Some(leave(number)), &moments).unwrap();
    explained.unwrap_or_else(|| panic!("{number} did not come again")).to_string()
}

/// The moment `what` stands at `code` of `routine`, and the routine that led there is on its stack, too.
fn stands_at(text: &str, what: &str, routine: &str, code: &str) {
    let line = under(text, what);
    assert!(line.contains(&format!("leaves!{routine}+")), "`{what}` in {line}\n{text}");
    let source = include_str!("../../../drivers/c/faulty/leaves.c");
    assert!(line.ends_with(&line_in("leaves.c", source, routine, code)), "`{what}` at {line}\n{text}");
}

#[test]
fn a_request_that_is_never_completed_tells_which_routine_marked_it_pending() {
    let text = left(0, "irp-never-completed", &["marked pending"]);
    let line = under(&text, "marked pending");
    assert!(line.contains("leaves!DispatchDeviceControl"), "{text}");
}

#[test]
fn a_request_that_is_never_completed_tells_who_queued_it() {
    let text = left(1, "irp-never-completed", &["queued", "marked pending"]);
    stands_at(&text, "queued", "ForgetPacket", "IoStartPacket");
    assert!(under(&text, "marked pending").contains("leaves!DispatchDeviceControl"), "{text}");
}

#[test]
fn an_irp_of_the_drivers_own_tells_who_allocated_sent_and_pended_it() {
    let text = left(2, "irp-leak", &["allocated", "sent", "marked pending"]);
    stands_at(&text, "allocated", "ForgetOwn", "IoAllocateIrp");
    stands_at(&text, "sent", "ForgetOwn", "IoCallDriver");
    assert!(under(&text, "marked pending").contains("leaves!DispatchInternal"), "{text}");
    let mut behind = text.lines().skip_while(|line| !line.starts_with("marked pending")).skip(2);
    let behind = behind.find(|line| !line.trim_start().starts_with("in ")).unwrap();
    assert!(behind.contains("leaves!ForgetOwn+"), "the sender is named behind the routine\n{text}");
}

#[test]
fn pool_and_work_items_that_are_left_tell_who_allocated_them() {
    stands_at(&left(3, "pool-leak", &["allocated"]), "allocated", "Allocate", "ExAllocatePoolWithTag");
    stands_at(
        &left(4, "work-item-leak", &["allocated"]),
        "allocated",
        "AbandonWorkItem",
        "IoAllocateWorkItem",
    );
    // One that is queued runs first: its reference keeps the image.
    let queued = left(5, "work-item-leak", &["allocated"]);
    stands_at(&queued, "allocated", "AbandonQueuedWorkItem", "IoAllocateWorkItem");
}

#[test]
fn what_still_calls_an_unloaded_driver_tells_who_queued_set_or_made_it() {
    let rule = "unload-still-called";
    stands_at(&left(6, rule, &["queued"]), "queued", "QueueOldItem", "ExQueueWorkItem");
    stands_at(&left(7, rule, &["set"]), "set", "AbandonTimer", "KeSetTimerEx");
    stands_at(&left(8, rule, &["queued"]), "queued", "QueueDpc", "KeInsertQueueDpc");
    stands_at(&left(9, rule, &["started"]), "started", "AbandonIoTimer", "IoStartTimer");
    stands_at(&left(10, rule, &["created"]), "created", "AbandonThread", "PsCreateSystemThread");
}

#[test]
fn a_lock_that_is_held_at_unload_tells_who_took_it() {
    let text = left(11, "spin-lock-held-on-return", &["taken"]);
    stands_at(&text, "taken", "KeepLock", "KeAcquireSpinLock(");
    assert!(text.contains("leaves!DriverUnload"), "{text}");
}

#[test]
fn memory_that_is_freed_with_something_of_the_kernels_in_it_tells_both_moments() {
    for (number, rule, what, routine, code) in [
        (12, "freed-held-lock", "taken", "FreeHeldLock", "KeAcquireSpinLock("),
        (13, "freed-active-timer", "set", "FreeSetTimer", "KeSetTimer("),
        (14, "freed-queued-dpc", "queued", "FreeQueuedDpc", "KeInsertQueueDpc"),
    ] {
        let text = left(number, rule, &[what, "allocated"]);
        stands_at(&text, what, routine, code);
        stands_at(&text, "allocated", "Allocate", "ExAllocatePoolWithTag");
    }
}

#[test]
fn objects_that_were_written_over_are_told_at_the_end_of_the_run_or_where_they_are_used() {
    for (number, rule) in [
        (15, "device-object-damaged"),
        (16, "driver-object-damaged"),
        (17, "device-object-damaged"),
        (18, "thread-object-damaged"),
        (19, "processor-region-damaged"),
        (20, "thread-object-damaged"),
    ] {
        let report = leaves().run(Some(leave(number))).unwrap();
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, rule, "{number}\n{report}");
        assert!(verdict.message.contains("was written over"), "{report}");
    }
}
