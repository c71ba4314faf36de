//! Stories of APCs (`drivers/c/apcs.c`). Special kernel ones: the end of a request is reported in the thread that made it, wherever that
//! is, and not where it may not be; the driver checks itself, in random schedules, and in all within a bound. User ones, and the end
//! of a thread: which waits they interrupt.

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, Outcome, Report, ScriptText};

use super::rig::{self, driver, start};

fn bench(processors: u32) -> Bench {
    Bench::new().driver(driver("apcs.sys")).processors(processors)
}

/// Carries out a story of the driver's; at least `checks` of its checks must have been made, all with success.
fn tell(machine: Machine, story: &str, checks: u32) {
    rig::tell(machine, r"\\.\DirqlApcs", story, checks, "");
}

/// The story holds as it comes, on one processor and on several, and in random schedules.
fn holds(story: &str, checks: u32) {
    for processors in [1, 2, 4] {
        tell(start(|| bench(processors)), story, checks);
    }
    for seed in rig::seeds(20) {
        let processors = u32::try_from(seed % 3 + 1).unwrap();
        tell(start(|| bench(processors).policy(Policy::random(seed))), story, checks);
    }
}

#[test]
fn a_request_that_a_thread_waits_for_is_told_to_it() {
    holds("Waited", 2);
}

/// Holds: irql/apc-held-back
#[test]
fn what_holds_back_normal_apcs_holds_back_no_special_one() {
    holds("InCriticalRegion", 6);
    holds("FastMutexUnsafe", 2);
}

/// Holds: irql/special-apc
#[test]
fn a_thread_that_computes_is_told_between_two_instructions() {
    holds("WhileItComputes", 2);
}

/// Holds: irql/apc-held-back
#[test]
fn a_thread_at_apc_level_is_told_when_its_level_falls() {
    holds("AtApcLevel", 3);
}

/// Holds: irql/apc-held-back
#[test]
fn a_thread_in_a_guarded_region_is_told_when_it_leaves_the_outermost() {
    holds("InGuardedRegion", 5);
}

/// Holds: irql/special-apc
#[test]
fn a_wait_for_something_else_goes_on_behind_it() {
    holds("WhileItWaits", 11);
}

/// Holds: irql/apc-held-back
#[test]
fn several_that_were_held_back_are_all_told() {
    holds("Several", 6);
}

/// Holds: irql/special-apc
#[test]
fn another_thread_that_waits_for_the_event_is_told_no_sooner() {
    holds("ForAnotherThread", 6);
}

/// Holds: irql/special-apc
#[test]
fn another_thread_is_told_no_sooner_in_every_schedule_with_two_preemptions() {
    let script = format!(r"open \\.\DirqlApcs as f; {}", rig::command("f", "ForAnotherThread"));
    let bounds = Bounds { preemptions: 2, shared: false, ..Bounds::default() };
    // A check that fails is printed.
    let broken = |report: &Report| {
        report.outcome() != Outcome::Clean || report.prints.iter().any(|line| line.starts_with("apcs:"))
    };
    let play = ScriptText::typed(&script).play().unwrap();
    let searched = bench(2).unobserved().search(&play, &bounds, broken).unwrap();
    let found = searched
        .found
        .map(|(choices, report)| format!("{choices:#?}\n{}\n{report}", report.prints.join("\n")));
    assert!(searched.complete && found.is_none(), "{}", found.unwrap_or_default());
    assert!(searched.schedules.iter().sum::<u64>() > 20, "{:?}", searched.schedules);
}

/// Holds: irql/apc-never
#[test]
fn who_waits_where_it_cannot_be_told_waits_for_ever() {
    for (mistake, why) in
        [("WaitsInGuardedRegion", "in a guarded region"), ("WaitsWithFastMutex", "at APC_LEVEL")]
    {
        let machine = start(|| bench(1));
        let _ended =
            rig::try_play(&machine, &format!(r"open \\.\DirqlApcs as f; {}", rig::command("f", mistake)));
        let report = machine.finish();
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, "irp-never-completed", "{report}");
        assert!(verdict.message.contains("special kernel APC") && verdict.message.contains(why), "{report}");
    }
}

// ---- what an application may interrupt ----

const USER: u32 = 1;
const ALERTABLE: u32 = 2;
const CRITICAL: u32 = 4;
const DELAY: u32 = 8;

const WAIT: u32 = 0x0022_23C4;
const LET_GO: u32 = 0x0022_23C8;

/// `a` waits in the driver as `how` says; then the script goes on.
fn waits(how: u32, then: &str) -> Report {
    let machine = start(|| bench(1));
    let script = format!(
        r"open \\.\DirqlApcs as f; open \\.\DirqlApcs as g
        a: ioctl f {WAIT:#x} in u32:{how}
        wait 1ms
        {then}
        join a; close f; close g",
    );
    rig::play(&machine, &script.replace("LET_GO", &format!("ioctl g {LET_GO:#x}")));
    let report = machine.finish();
    report.expect_clean();
    report
}

fn ended(report: &Report, status: u32) -> bool {
    report.prints.iter().any(|line| line.ends_with(&format!("ended with {status:08x}")))
}

const SUCCESS: u32 = 0;
const USER_APC: u32 = 0xC0;

/// Holds: irql/user-apc
#[test]
fn a_user_apc_interrupts_alertable_waits_only() {
    for how in [USER | ALERTABLE, ALERTABLE, USER | ALERTABLE | DELAY] {
        let report = waits(how, "apc a");
        assert!(ended(&report, USER_APC), "{how}: {report}");
    }
    for how in [USER, 0, USER | ALERTABLE | CRITICAL] {
        let report = waits(how, "apc a; wait 50ms; expect pending a; LET_GO");
        assert!(ended(&report, SUCCESS), "{how}: {report}");
    }
}

/// Holds: irql/user-apc
#[test]
fn the_end_of_a_thread_interrupts_waits_in_user_mode_only() {
    for how in [USER, USER | ALERTABLE, USER | DELAY] {
        let report = waits(how, "terminate a");
        assert!(ended(&report, USER_APC), "{how}: {report}");
    }
    for how in [0, ALERTABLE, USER | CRITICAL] {
        let report = waits(how, "terminate a; wait 50ms; expect pending a; LET_GO");
        assert!(ended(&report, SUCCESS), "{how}: {report}");
    }
}

/// Holds: irql/user-apc
#[test]
fn a_user_apc_waits_for_an_alertable_wait_and_comes_once() {
    let both = USER | ALERTABLE;
    let machine = start(|| bench(1));
    let script = format!(
        r"open \\.\DirqlApcs as f; open \\.\DirqlApcs as g
        a: wait 10ms
        a: ioctl f {WAIT:#x} in u32:{both} expect STATUS_USER_APC
        a: ioctl f {WAIT:#x} in u32:{both} expect STATUS_SUCCESS
        wait 1ms; apc a; wait 100ms; expect pending a; ioctl g {LET_GO:#x}; join a; close f; close g",
    );
    rig::play(&machine, &script);
    machine.finish().expect_clean();
}

/// Holds: irql/user-apc
#[test]
fn a_thread_that_is_terminated_drops_what_it_was_handed_and_cancels_what_it_waits_for() {
    let machine = start(|| Bench::new().driver(driver("queue.sys")));
    let script = r"open \\.\DirqlQueue as f
        a: read f 16; a: read f 16
        wait 1ms; expect pending a; terminate a; join a; close f";
    rig::play(&machine, script);
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_script_that_fails_terminates_its_threads() {
    let machine = start(|| bench(1));
    let script = format!(
        r"open \\.\DirqlApcs as f; open \\.\DirqlApcs as g
        a: ioctl f {WAIT:#x} in u32:{USER}
        wait 1ms; ioctl g {LET_GO:#x} expect STATUS_UNSUCCESSFUL",
    );
    let failed = rig::try_play(&machine, &script);
    assert!(failed.is_err(), "it was a success");
    let report = machine.finish();
    assert!(report.verdict.is_none(), "the driver is not to blame: {report}");
}

/// A request of `ReadFileEx`'s kind: its end is a user APC for the thread that made it, and for no other.
#[test]
fn the_end_of_a_request_with_an_apc_interrupts_what_its_thread_waits_for() {
    let wait = |expect: &str| {
        format!(
            r"open \\.\DirqlApcs as f overlapped
            open \\.\DirqlApcs as g
            thread t {{
                async r1 ioctl f 0x2223c0 in u32:7 out 4{}
                ioctl g 0x2223c4 in u32:3 expect {expect}
            }}
            wait 50ms
            ioctl f 0x2223c8
            join t
            join r1 expect u32:8",
            if expect == "STATUS_USER_APC" { " apc" } else { "" }
        )
    };
    for expect in ["STATUS_USER_APC", "STATUS_SUCCESS"] {
        let machine = start(|| bench(1));
        rig::play(&machine, &wait(expect));
        machine.finish().expect_clean();
    }
}
