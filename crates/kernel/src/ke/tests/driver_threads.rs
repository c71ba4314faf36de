//! System threads of compiled drivers, quanta, timers with DPCs, endless loops.

use crate::ke::calls::stack;
use crate::ke::rig::{Driver, Rig, Scripted, bug_check, machine, message, rule, settle};
use crate::ke::sched::scheduler::End;

const THREADS: &str = "
    u64 event[3], handle; volatile int flag, seen; i64 interval = -20 * 10000;
    ROUTINE void deep(int status) { seen = 42; KeSetEvent(event, 0, 0); PsTerminateSystemThread(status); seen = 1; }
    void worker(void *context) { KeDelayExecutionThread(0, 0, &interval); deep(0); }
    ROUTINE int starts(void) {
        KeInitializeEvent(event, 0, 0);
        if (PsCreateSystemThread(&handle, 0, 0, 0, 0, worker, 0)) return -1;
        KeWaitForSingleObject(event, 0, 0, 0, 0);
        KeDelayExecutionThread(0, 0, &interval);
        return seen;
    }
    void setter(void *context) { flag = 1; }
    ROUTINE int spins(void) {
        PsCreateSystemThread(&handle, 0, 0, 0, 0, setter, 0);
        while (!flag) ;
        return 7;
    }
    ROUTINE int never(void) { for (;;) ; }
    u64 dpc[8], timer[8]; int ticks;
    void endless(void *d, void *c, void *a, void *b) { for (;;) ; }
    ROUTINE int never_in_dpc(void) { KeInitializeDpc(dpc, endless, 0); KeInsertQueueDpc(dpc, 0, 0); return 0; }
    void stalls(void *d, void *c, void *a, void *b) { for (;;) KeStallExecutionProcessor(50); }
    ROUTINE int stalls_in_dpc(void) { KeInitializeDpc(dpc, stalls, 0); KeInsertQueueDpc(dpc, 0, 0); return 0; }
    void tick(void *d, void *c, void *a, void *b) { if (++ticks == 3) { KeCancelTimer(timer); KeSetEvent(event, 0, 0); } }
    ROUTINE int periodic(void) {
        KeInitializeEvent(event, 0, 0); KeInitializeTimerEx(timer, 0); KeInitializeDpc(dpc, tick, 0);
        KeSetTimerEx(timer, -10000, 50, dpc); KeWaitForSingleObject(event, 0, 0, 0, 0); return ticks;
    }
    ROUTINE int polls_shared_time(void) {
        volatile i64 *time = (i64 *)0xFFFFF78000000008; i64 start = *time; int reads = 0;
        while (*time - start < 500000 && reads < 100000) reads++;
        return reads < 100000;
    }
    ROUTINE int promises(void) { KeInitializeEvent(event, 1, 0); KeSetEvent(event, 0, 1); KeSetEvent(event, 0, 0); return 0; }
";

#[test]
fn a_system_thread_runs_and_ends_from_the_depth_of_its_calls() {
    machine(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "starts", &[]), Some(42), "{}", message(cx));
        assert_eq!(rule(cx), None);
        assert!(cx.with(|k| stack::deepest(k)).values().any(|depth| *depth >= 0x40));
    });
}

#[test]
fn a_thread_that_spins_on_a_flag_gives_way_to_its_equal_when_its_quantum_ends() {
    machine(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "spins", &[]), Some(7), "{}", message(cx));
        assert!(cx.engine().now() >= 31_000_000, "two clock ticks");
    });
}

#[test]
fn on_two_processors_the_spinning_thread_sees_the_flag_long_before_its_quantum_ends() {
    Rig::processors(2).run(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "spins", &[]), Some(7), "{}", message(cx));
        assert!(cx.engine().now() < 1_000_000, "{}", cx.engine().now());
    });
}

#[test]
fn a_policy_that_preempts_lets_the_flag_be_set_early_too() {
    let rig = Rig { chooser: Box::new(Scripted { answers: Vec::new(), slice: 100 }), ..Rig::default() };
    rig.run(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "spins", &[]), Some(7));
        assert!(cx.engine().now() < 100_000);
    });
}

#[test]
fn an_endless_loop_is_told_and_in_a_dpc_it_is_the_watchdogs_bug_check() {
    for (routine, code) in [("never", None), ("never_in_dpc", Some(0x133))] {
        let mut rig = Rig::default();
        rig.settings.instruction_budget = 3_000_000;
        rig.run(|cx| {
            let driver = Driver::load(cx, "threads", THREADS);
            assert_eq!(driver.run(cx, routine, &[]), None);
            assert_eq!((rule(cx), bug_check(cx)), (Some("endless-loop"), code));
            assert!(!cx.nt().verdict().unwrap().stack.is_empty());
        });
    }
}

#[test]
fn a_dpc_that_waits_busily_for_20_seconds_meets_the_watchdog() {
    machine(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "stalls_in_dpc", &[]), None);
        assert_eq!((rule(cx), bug_check(cx)), (Some("dpc-watchdog"), Some(0x133)));
        assert_eq!(cx.engine().now() / 1_000_000_000, 20);
    });
}

#[test]
fn a_driver_that_polls_the_shared_time_gets_its_50_milliseconds() {
    machine(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "polls_shared_time", &[]), Some(1), "{}", message(cx));
        assert!((50..80).contains(&(cx.engine().now() / 1_000_000)), "{}", cx.engine().now());
    });
}

#[test]
fn set_event_with_wait_that_is_not_followed_by_a_wait_is_told() {
    machine(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "promises", &[]), None);
        assert_eq!(rule(cx), Some("wait-promised"));
    });
}

#[test]
fn a_periodic_timer_runs_its_dpc_until_that_cancels_it() {
    machine(|cx| {
        let driver = Driver::load(cx, "threads", THREADS);
        assert_eq!(driver.run(cx, "periodic", &[]), Some(3), "{}", message(cx));
        let milliseconds = cx.engine().now() / 1_000_000;
        assert_eq!(milliseconds, 109, "due at 1, 51, 101, found at the next tick");
        assert_eq!(settle(cx), End::Quiet);
    });
}
