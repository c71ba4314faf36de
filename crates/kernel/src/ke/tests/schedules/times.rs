//! Time: timers and their DPCs, delays.

use std::collections::BTreeSet;

use super::{ALL, Plan, Policy, Scenario};
use crate::ke::timing::time::TICK;

const TIMERS: &str = "
    void expired(void *d, void *c, void *a, void *b) { say('t'); }
    ROUTINE void setup(void) { KeInitializeTimerEx(timer, 0); KeInitializeDpc(dpc[0], expired, 0); }
    u32 KeGetCurrentProcessorNumberEx(void *);
    void where(void *d, void *c, void *a, void *b) { say('a' + KeGetCurrentProcessorNumberEx(0)); }
    ROUTINE void setup_where(void) { KeInitializeTimerEx(timer, 0); KeInitializeDpc(dpc[0], where, 0); }
    ROUTINE void sets_on_the_first(i64 due) { KeSetTargetProcessorDpc(dpc[0], 0); KeSetTimerEx(timer, due, 0, dpc[0]); }
    ROUTINE void sets(i64 due) { KeSetTimerEx(timer, due, 0, dpc[0]); }
    ROUTINE void spends(u64 milliseconds) { for (u64 i = 0; i < milliseconds * 20; i++) KeStallExecutionProcessor(50); say('1'); }
    ROUTINE void holds_back(i64 due) {
        KeSetTimerEx(timer, due, 0, dpc[0]); u8 old = KfRaiseIrql(2);
        for (int i = 0; i < 1000; i++) KeStallExecutionProcessor(50);
        say('1'); KeLowerIrql(old); say('2');
    }
";
/// 20 ms from now, which ends at the second tick.
const DUE: u64 = (-200_000_i64).cast_unsigned();

#[test]
fn a_timer_is_never_early_and_its_dpc_waits_for_the_tick_after() {
    // 20 ms are over before a thread has spent 31 ms, and the tick comes only after them.
    let at = |milliseconds| {
        let threads = [("sets", DUE, 12, ALL), ("spends", milliseconds, 8, ALL)];
        Scenario::new(TIMERS, &threads).first("setup")
    };
    for (milliseconds, log) in [(19, "1t"), (31, "1t"), (32, "t1"), (60, "t1")] {
        let found = at(milliseconds).sample();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [log], "beside {milliseconds} ms");
    }
    let whole = at(1).run(&Policy::plan(Plan::default()), None);
    assert_eq!((whole.log.as_str(), whole.length >= 2 * TICK - TICK), ("1t", true));
}

#[test]
fn any_processor_takes_the_tick_that_finds_a_timer_and_a_targeted_dpc_runs_where_it_is_to() {
    let logs = |routine, argument| {
        let threads = [(routine, argument, 12, 0b01), ("spends", 60, 8, 0b01)];
        Scenario::new(TIMERS, &threads).on(2).first("setup_where").undrained().sample()
    };
    let found = |first: &str| [format!("{first}1")].into_iter().collect::<BTreeSet<_>>();
    assert_eq!(logs("sets", DUE), &found("a") | &found("b"));
    assert_eq!(logs("sets_on_the_first", DUE), found("a"));
}

#[test]
fn a_level_holds_the_dpc_of_a_timer_back_however_late_it_gets() {
    let found = Scenario::new(TIMERS, &[("holds_back", DUE, 8, ALL)]).first("setup").sample();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["1t2"]);
}
