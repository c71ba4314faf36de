//! Loops that call the kernel: endless ones get a verdict, long ones are left alone.

use crate::ke::rig::{Driver, Rig, machine, message, rule};
use crate::{Cx, Settings};

const LOOPS: &str = "
    void KeInitializeEvent(void *, int, unsigned char);
    long KeReadStateEvent(void *);
    unsigned DbgPrint(const char *, ...);
    u64 event[3];
    ROUTINE int polls(void) { KeInitializeEvent(event, 0, 0); for (;;) if (KeReadStateEvent(event)) return 1; }
    ROUTINE int polls_for_long(void) { KeInitializeEvent(event, 0, 0); for (int i = 0; i < 300000; i++) if (KeReadStateEvent(event)) return 1; return 2; }
    ROUTINE int prints(void) { for (;;) DbgPrint(\"again\\n\"); }
";

fn of_budget(budget: u64) -> Rig {
    Rig { settings: Settings { instruction_budget: budget, ..Settings::default() }, ..Rig::default() }
}

#[test]
fn a_loop_of_calls_reaches_the_budget_though_it_runs_few_instructions() {
    of_budget(2_000_000).run(|cx: &mut Cx<'_>| {
        let driver = Driver::load(cx, "loops", LOOPS);
        assert_eq!(driver.run(cx, "polls", &[]), None);
        assert_eq!(rule(cx), Some("endless-loop"));
        assert!(cx.engine().now() < 1_000_000, "the clock counts instructions only: {}", cx.engine().now());
        assert!(message(cx).contains("a call of the kernel counts as 50"), "{}", message(cx));
    });
}

#[test]
fn a_loop_of_prints_reaches_it_sooner() {
    of_budget(2_000_000).run(|cx: &mut Cx<'_>| {
        let driver = Driver::load(cx, "loops", LOOPS);
        assert_eq!(driver.run(cx, "prints", &[]), None);
        assert_eq!(rule(cx), Some("endless-loop"));
        assert!(cx.engine().now() < 100_000, "{}", cx.engine().now());
    });
}

#[test]
fn three_hundred_thousand_calls_are_no_endless_loop() {
    machine(|cx: &mut Cx<'_>| {
        let driver = Driver::load(cx, "loops", LOOPS);
        assert_eq!(driver.run(cx, "polls_for_long", &[]), Some(2), "{}", message(cx));
        assert_eq!(driver.run(cx, "polls_for_long", &[]), Some(2), "each call has a budget of its own");
    });
}
