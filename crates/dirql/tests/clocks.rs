//! Stories of DPCs, timers and time that a compiled driver tells and checks itself (`drivers/c/clocks`): what Microsoft's pages
//! guarantee holds when everything runs until it blocks, and in random schedules, on one processor and on several.

use dirql::{Bench, Machine, Outcome, Report};
use engine::{Chooser, Point};

use super::rig::{self, Undelayed, driver, start, try_play};

const NAME: &str = r"\\.\DirqlClocks";

fn bench() -> Bench {
    Bench::new().driver(driver("clocks.sys"))
}

/// Carries out one story of the driver's table; at least `checks` of its checks must have been made, all with success.
fn carry_out(machine: Machine, story: &str, checks: u32, how: &str) -> Machine {
    match rig::checks_made(&machine, NAME, story, &[]) {
        Ok(made) => assert!(made >= checks, "{story} {how}: only {made} checks were made"),
        Err(why) => panic!("{story} {how}: {why}\n{}", machine.finish()),
    }
    machine
}

fn tell(bench: impl Fn() -> Bench, story: &str, checks: u32, how: &str) -> Report {
    carry_out(start(bench), story, checks, how).finish()
}

/// Tells a story until blocked and in random schedules, on so many processors.
fn tell_every_way(processors: u32, story: &str, checks: u32) {
    tell(|| bench().processors(processors), story, checks, "until blocked").expect_clean();
    for seed in rig::seeds(20) {
        let bench = || bench().processors(processors).chooser(Undelayed::random(seed));
        tell(bench, story, checks, &format!("random:{seed}")).expect_clean();
    }
}

/// Answers one question its own way, and all others by default.
#[derive(Clone, Copy)]
struct Answers(&'static str, u32);

impl Chooser for Answers {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point == Point(self.0) { self.1.min(n - 1) } else { 0 }
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

// ---- ExAllocateTimer and its kin ----

#[test]
fn a_timer_of_the_systems_is_never_early_and_calls_once_a_setting() {
    tell_every_way(1, "ExTimers", 23);
    tell_every_way(2, "ExTimers", 23);
}

#[test]
fn a_timer_is_deleted_when_nothing_of_it_can_run_any_more() {
    tell_every_way(1, "ExDeletions", 9);
    tell_every_way(2, "ExDeletions", 9);
    tell(|| bench().chooser(Answers("ex.timer_delete", 1)), "ExDeletions", 9, "deleted later").expect_clean();
}

#[test]
fn periodic_timers_do_not_drift_and_high_resolution_ones_come_within_a_millisecond() {
    tell(bench, "ExPeriods", 48, "until blocked").expect_clean();
    tell(|| bench().processors(4), "ExPeriods", 48, "on four processors").expect_clean();
}

#[test]
fn a_no_wake_timer_is_late_by_its_tolerance_at_most() {
    tell_every_way(1, "ExNoWake", 5);
    for answer in 1..=2 {
        tell(|| bench().chooser(Answers("ke.timer_tolerance", answer)), "ExNoWake", 5, "late").expect_clean();
    }
}

#[test]
fn the_resolution_is_the_finest_that_somebody_wants() {
    tell_every_way(1, "Resolutions", 15);
}

// ---- DPC queues ----

#[test]
fn a_dpc_begins_at_once_by_its_importance_and_runs_once_a_queueing() {
    tell_every_way(1, "Importance", 11);
    tell_every_way(2, "Importance", 11);
    tell(|| bench().chooser(Answers("ke.dpc_rate", 1)), "Importance", 11, "requests are rare").expect_clean();
}

#[test]
fn dpcs_of_low_importance_wait_for_company_a_long_queue_an_idle_processor_or_a_flush() {
    tell(bench, "LowOnesWait", 24, "until blocked").expect_clean();
}

#[test]
fn on_another_processor_a_medium_dpc_waits_for_the_tick_and_a_higher_one_does_not() {
    tell_every_way(2, "Elsewhere", 6);
}

#[test]
fn an_idle_processor_has_its_turn_for_a_dpc_while_another_is_busy() {
    tell(|| bench().processors(2), "IdleElsewhere", 3, "until blocked").expect_clean();
}

#[test]
fn a_dpc_can_queue_itself_be_removed_and_be_waited_for() {
    tell_every_way(1, "Queueing", 10);
    tell_every_way(2, "Queueing", 27);
}

#[test]
fn the_watchdog_says_how_much_time_is_left() {
    tell(bench, "Watchdog", 7, "until blocked").expect_clean();
}

// ---- threaded DPCs ----

#[test]
fn threaded_dpcs_run_at_either_level_with_the_same_guarantees() {
    for processors in 1..=2 {
        tell_every_way(processors, "ThreadedDpcs", 15);
        let disabled = || bench().processors(processors).chooser(Answers("ke.threaded_dpcs", 1));
        tell(disabled, "ThreadedDpcs", 15, "disabled").expect_clean();
    }
}

#[test]
fn threaded_dpcs_are_enabled_by_default_and_can_be_disabled() {
    for (answer, level) in [(0, 0), (1, 2)] {
        let machine = start(|| bench().chooser(Answers("ke.threaded_dpcs", answer)));
        let machine = carry_out(machine, "ThreadedLevel", 2, "threaded");
        let expected = format!("clocks: a threaded DPC ran at IRQL {level}");
        assert!(machine.prints().iter().any(|line| line.contains(&expected)), "{:?}", machine.prints());
        machine.finish().expect_clean();
    }
}

// ---- timers and time ----

#[test]
fn a_timer_whose_dpc_is_queued_or_has_run_is_not_cancelled() {
    tell_every_way(1, "Cancellations", 16);
    tell_every_way(2, "Cancellations", 16);
}

#[test]
fn a_periodic_timer_keeps_its_phase_and_makes_up_for_nothing() {
    tell(bench, "Periods", 30, "until blocked").expect_clean();
    tell(|| bench().processors(2), "Periods", 30, "on two processors").expect_clean();
}

#[test]
fn a_coalescable_timer_uses_of_its_tolerance_what_is_chosen() {
    for answer in 0..=2 {
        tell(|| bench().chooser(Answers("ke.timer_tolerance", answer)), "Coalescing", 20, "coalescable")
            .expect_clean();
    }
    for seed in rig::seeds(20) {
        let bench = || bench().chooser(Undelayed::random(seed));
        tell(bench, "Coalescing", 20, &format!("random:{seed}")).expect_clean();
    }
}

/// Holds: irql/clock
#[test]
fn loops_that_poll_the_time_see_it_move_unless_they_hold_the_clock_up() {
    tell_every_way(1, "StandingStill", 11);
}

#[test]
fn a_stall_of_more_than_50_microseconds_is_told_and_one_of_50_is_not() {
    let report = tell(bench, "LongStall", 2, "until blocked");
    report.expect_clean();
    let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["long-stall"], "{report}");
    assert!(report.to_string().contains("51 microseconds"), "{report}");
}

#[test]
fn when_the_clock_is_set_absolute_timers_follow_and_relative_ones_do_not() {
    let machine = start(bench);
    let machine = carry_out(machine, "ClockIsSetLater", 2, "set");
    try_play(&machine, "clock forward 3600s; wait 100ms").unwrap();
    let machine = carry_out(machine, "ClockWasSet", 6, "forward");
    let machine = carry_out(machine, "ClockIsSetLater", 2, "set");
    // The absolute one is due in an hour and a half now, the relative one in an hour still.
    try_play(&machine, "clock back 1800s; wait 3600s; wait 100ms").unwrap();
    let machine = carry_out(machine, "ClockWasSetBack", 3, "back");
    machine.finish().expect_clean();
}

#[test]
fn a_wait_until_a_system_time_ends_when_the_clock_is_set_there() {
    let machine = start(bench);
    let waits = r"open \\.\DirqlClocks as file
late: ioctl file 0x223ff8 in text:WaitUntil out 8 expect hex:00000000????????
wait 100ms
expect pending late
clock forward 3600s
wait 100ms
expect print waited
join late";
    try_play(&machine, waits).unwrap();
    assert!(machine.now() < 1_000_000_000, "an hour did not have to pass");
    machine.finish().expect_clean();
}

// ---- what must not be done ----

fn commit(bench: impl Fn() -> Bench, bug: &str) -> Report {
    let machine = start(bench);
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!("open {NAME} as f; {}", rig::command("f", bug)));
    machine.finish()
}

fn ends(bug: &str, rule: &str, names: &str) -> Report {
    let report = commit(|| bench().instruction_budget(100_000_000), bug);
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    assert_eq!(report.expect_verdict().rule, rule, "{report}");
    assert!(report.to_string().contains(names), "{report}");
    report
}

#[test]
fn the_watchdog_ends_one_dpc_after_20_seconds_and_all_together_after_two_minutes() {
    let one = commit(bench, "OneDpcForever");
    assert_eq!(one.expect_verdict().rule, "dpc-watchdog", "{one}");
    let check = one.expect_verdict().bug_check.unwrap();
    let [kind, ticks, limit, _] = check.parameters;
    assert_eq!((check.code, kind, limit), (0x133, 0, 0x500));
    assert!(ticks > limit && ticks <= limit + 64, "reported after the stall in which it happened: {ticks}");
    let all = commit(bench, "DpcsForever");
    assert!(all.to_string().contains("one after another"), "{all}");
    let check = all.expect_verdict().bug_check.unwrap();
    assert_eq!((check.code, check.parameters[..2].to_vec()), (0x133, vec![1, 0x1E00]));
}

#[test]
fn a_threaded_dpc_that_waits_is_told_and_ends_the_run_where_they_are_disabled() {
    let report = commit(bench, "WaitsInThreadedDpc");
    assert!(report.findings.iter().any(|finding| finding.rule == "threaded-dpc-waits"), "{report}");
    let report = commit(|| bench().chooser(Answers("ke.threaded_dpcs", 1)), "WaitsInThreadedDpc");
    assert_eq!(report.expect_verdict().rule, "wait-at-raised-irql", "{report}");
    ends("AffinityInThreadedDpc", "affinity-not-reverted", "KeRevertToUserAffinityThread");
}

#[test]
fn what_the_pages_of_the_systems_timers_forbid_is_told() {
    ends("BothAttributes", "ex-timer", "both high-resolution and no-wake");
    ends("AbsoluteHighResolution", "ex-timer", "absolute due time");
    ends("WaitWithoutCancel", "ex-timer", "without Cancel");
    ends("DeleteWaitsAtDispatch", "wait-at-raised-irql", "ExDeleteTimer");
    ends("UsedAfterDelete", "ex-timer", "ExSetTimer");
    ends("NegativeTolerance", "ex-timer", "NoWakeTolerance -2");
}

#[test]
fn a_timer_that_is_left_behind_is_a_leak_and_one_that_is_set_calls_into_the_void() {
    let report = commit(bench, "LeavesTimer");
    assert!(report.findings.iter().any(|finding| finding.rule == "ex-timer-leak"), "{report}");
    ends("LeavesTimerSet", "unload-still-called", "ExAllocateTimer");
}

/// Holds: irql/clock
#[test]
fn a_loop_that_waits_for_a_tick_at_high_level_never_ends() {
    ends("PollsStandingClock", "endless-loop", "PollsStandingClock");
}

// ---- what never comes ----

/// Due times that never come, as a script writes them: relative and absolute, at the ends of what a LARGE_INTEGER counts.
const NEVER: [&str; 4] =
    ["0x8000000000000000", "0x8000000000000001", "0x7fffffffffffffff", "0x7ffffffffffffffe"];

#[test]
fn a_timer_that_is_set_for_ever_is_set_and_never_expires() {
    tell(bench, "NeverDue", 40, "until blocked").expect_clean();
    tell(|| bench().processors(2), "NeverDue", 40, "on two processors").expect_clean();
}

#[test]
fn a_thread_that_delays_for_ever_delays_until_it_is_ended() {
    for due in NEVER {
        let machine = start(bench);
        let script = format!(
            r"open {NAME} as f
              sleeper: ioctl f 0x222c04 in u64:{due} expect any
              wait 3600s
              expect pending sleeper
              terminate sleeper
              join sleeper"
        );
        try_play(&machine, &script).unwrap_or_else(|error| panic!("{due}: {error}"));
        machine.finish().expect_clean();
    }
}

#[test]
fn a_request_that_delays_for_ever_is_told_as_stuck_at_once() {
    for due in NEVER {
        let machine = start(bench);
        let script = format!("open {NAME} as f; ioctl f 0x222c00 in u64:{due}");
        let error = try_play(&machine, &script).unwrap_err().to_string();
        assert!(error.contains("does not end"), "{due}: {error}");
        let seconds = machine.now() / 1_000_000_000;
        // A minute until it is reported; and the end of the process waits five more for the request that it has cancelled.
        assert!(seconds < 400, "{due}: it took {seconds} virtual seconds");
        let _ = machine.finish();
    }
}
