//! Interrupts of a line that a test moves: delivery, chains, storms, synchronisation.

use std::cell::RefCell;
use std::rc::Rc;

use abi::{DriverPtr, KINTERRUPT};
use engine::{Chooser, Defaults};

use crate::Cx;
use crate::ke::irq::interrupt::{self, Connection, irql_of_line, vector_of_line};
use crate::ke::rig::{Driver, LINE, Line, Rig, Scripted, Trace, bug_check, message, rule, settle};
use crate::ke::sched::scheduler::End;

const CARD: &str = "
    u64 event[3], dpc[8]; int calls, others, in_isr; void *interrupt;
    ROUTINE u8 isr(void *interrupt, void *context) {
        calls++; in_isr = KeGetCurrentIrql(); KeInsertQueueDpc(dpc, 0, 0); return 1;
    }
    ROUTINE u8 not_mine(void *interrupt, void *context) { others++; return 0; }
    void bottom_half(void *d, void *context, void *a, void *b) { KeSetEvent(event, 0, 0); }
    ROUTINE int setup(void) { KeInitializeEvent(event, 1, 0); KeInitializeDpc(dpc, bottom_half, 0); return 0; }
    ROUTINE int wait(void) { KeWaitForSingleObject(event, 0, 0, 0, 0); return calls << 16 | others << 8 | in_isr; }
    ROUTINE int counts(void) { return calls << 8 | others; }
    ROUTINE int raised(void) { u8 old = KfRaiseIrql(12); KeStallExecutionProcessor(40); int seen = calls; KeLowerIrql(old); return seen << 8 | calls; }
    ROUTINE int masked(void) {
        __asm__ volatile(\"cli\"); KeStallExecutionProcessor(40); int seen = calls; __asm__ volatile(\"sti\");
        return seen << 8 | calls;
    }
    u8 crit(void *context) { *(int *)context = KeGetCurrentIrql(); return 1; }
    ROUTINE int synch(void *object) { int level = 0; u8 answer = KeSynchronizeExecution(object, crit, &level); return answer << 8 | level; }
    static inline u32 in(unsigned short p) { u32 v; __asm__ volatile(\"inl %1, %0\" : \"=a\"(v) : \"d\"(p)); return v; }
    static inline void out(unsigned short p, u32 v) { __asm__ volatile(\"outl %0, %1\" :: \"a\"(v), \"d\"(p)); }
    ROUTINE u8 polite(void *interrupt, void *context) {
        if (!in(0x300)) return 0;
        calls++; out(0x300, 0); KeInsertQueueDpc(dpc, 0, 0); return 1;
    }
    ROUTINE int write(void) {
        out(0x300, 1); int at_once = calls;
        KeWaitForSingleObject(event, 0, 0, 0, 0); return at_once << 8 | calls;
    }
    u8 KeAcquireInterruptSpinLock(void *); void KeReleaseInterruptSpinLock(void *, u8); void IoDisconnectInterrupt(void *);
    ROUTINE int leave(void *object) {
        u8 old = KeAcquireInterruptSpinLock(object); for (volatile int i = 0; i < 300000; i++) ; KeReleaseInterruptSpinLock(object, old);
        IoDisconnectInterrupt(object); return calls;
    }
    ROUTINE u8 careless(void *interrupt, void *context) { KeSetEvent(event, 0, 0); return 1; }
";

/// Runs `test` with the card's driver loaded and set up, and the line.
fn with_card<R>(
    chooser: Box<dyn Chooser>,
    test: impl FnOnce(&mut Cx<'_>, &Driver, &RefCell<Line>) -> R,
) -> R {
    let line = Rc::new(RefCell::new(Line::default()));
    let rig = Rig { line: line.clone(), chooser, ..Rig::default() };
    rig.run(|cx| {
        let driver = Driver::load(cx, "card", CARD);
        assert_eq!(driver.run(cx, "setup", &[]), Some(0));
        test(cx, &driver, &line)
    })
}

fn card(test: impl FnOnce(&mut Cx<'_>, &Driver, &RefCell<Line>)) {
    with_card(Box::new(Defaults), test);
}

/// The line rises in `after` nanoseconds, and falls so much later, if it does.
fn rise(cx: &mut Cx<'_>, line: &RefCell<Line>, after: u64, falls: Option<u64>) {
    let at = cx.engine().now() + after;
    *line.borrow_mut() = Line { at: Some(at), until: falls.map(|length| at + length), ..Line::default() };
}

pub(super) fn connection(routine: u64) -> Connection {
    Connection {
        routine,
        context: 0,
        lock: 0,
        vector: vector_of_line(LINE),
        irql: irql_of_line(LINE),
        synchronize_irql: irql_of_line(LINE),
        latched: false,
        shared: true,
        affinity: u64::MAX,
        message: None,
    }
}

pub(super) fn connect(cx: &mut Cx<'_>, routine: u64) -> DriverPtr<KINTERRUPT> {
    interrupt::connect(cx, &connection(routine)).unwrap().unwrap()
}

#[test]
fn an_interrupt_runs_the_service_routine_then_its_dpc_then_the_thread_that_waits() {
    card(|cx, driver, line| {
        connect(cx, driver.at("isr"));
        rise(cx, line, 1_000_000, Some(1));
        let trace = Trace::of(cx);
        assert_eq!(
            driver.run(cx, "wait", &[]),
            Some(1 << 16 | u64::from(irql_of_line(LINE))),
            "{}",
            message(cx)
        );
        let lines = trace.lines();
        let place = |what: &str| lines.iter().position(|line| line.contains(what)).expect(what);
        let order = [
            "Line { line: 5, asserted: true }",
            "role: Isr",
            "DpcQueued",
            "claimed: true",
            "Enter { role: CustomDpc",
            "Woken",
        ];
        assert!(order.map(place).is_sorted(), "{lines:#?}");
        let isr = &lines[place("Enter { role: Isr")];
        assert!(isr.contains(&format!("irql{}", irql_of_line(LINE))), "{isr}");
        assert!(lines[place("Enter { role: CustomDpc")].contains("irql2"));
    });
}

/// Holds: interrupts/line-chain
#[test]
fn on_a_shared_line_the_routine_that_claims_ends_the_pass() {
    card(|cx, driver, line| {
        connect(cx, driver.at("not_mine"));
        connect(cx, driver.at("isr"));
        let last = connect(cx, driver.at("not_mine"));
        rise(cx, line, 1_000, Some(1));
        assert_eq!(driver.run(cx, "wait", &[]), Some(1 << 16 | 1 << 8 | u64::from(irql_of_line(LINE))));
        interrupt::disconnect(cx, last).unwrap();
        assert!(interrupt::disconnect(cx, last).is_err());
        assert_eq!(rule(cx), Some("interrupt-not-connected"));
    });
}

/// Holds: interrupts/line-chain
#[test]
fn a_level_that_stays_calls_again_until_it_falls() {
    card(|cx, driver, line| {
        connect(cx, driver.at("isr"));
        rise(cx, line, 1_000, Some(1_500));
        settle(cx);
        let calls = driver.run(cx, "counts", &[]).unwrap() >> 8;
        assert!((3..10).contains(&calls), "{calls} calls in 1500 ns");
    });
}

#[test]
fn a_disconnection_waits_for_a_processor_that_waits_for_the_lock_to_run_the_routine() {
    let line = Rc::new(RefCell::new(Line::default()));
    let rig = Rig { line: Rc::clone(&line), ..Rig::processors(2) };
    rig.run(|cx| {
        let driver = Driver::load(cx, "card", CARD);
        driver.run(cx, "setup", &[]).unwrap();
        rise(cx, &line, 100_000, Some(10));
        let on_second = Connection { affinity: 0b10, ..connection(driver.at("isr")) };
        let object = interrupt::connect(cx, &on_second).unwrap().unwrap();
        let calls = driver.run(cx, "leave", &[object.address]);
        assert_eq!((calls, rule(cx)), (Some(1), None), "{}", message(cx));
    });
}

/// Holds: interrupts/line-unclaimed
#[test]
fn a_shared_line_nobody_claims_is_an_interrupt_storm() {
    card(|cx, driver, line| {
        connect(cx, driver.at("not_mine"));
        connect(cx, driver.at("not_mine"));
        rise(cx, line, 1_000, None);
        assert_eq!(settle(cx), End::Stopped);
        assert_eq!((rule(cx), bug_check(cx)), (Some("interrupt-storm"), Some(0xF2)));
        assert!(message(cx).contains("line 5, asserted by rig#0"), "{}", message(cx));
        let parameters = cx.nt().verdict().unwrap().bug_check.unwrap().parameters;
        assert_eq!((parameters[0], parameters[3]), (driver.at("not_mine"), 2));
    });
}

/// Holds: interrupts/line-unclaimed
#[test]
fn one_unclaimed_pass_is_a_line_that_fell_late() {
    card(|cx, driver, line| {
        connect(cx, driver.at("not_mine"));
        rise(cx, line, 1_000, Some(300));
        assert_eq!(settle(cx), End::Quiet);
        assert!(driver.run(cx, "counts", &[]).unwrap() & 0xFF >= 1);
    });
}

#[test]
fn a_line_that_nobody_is_connected_to_stays_pending_until_somebody_is() {
    card(|cx, driver, line| {
        rise(cx, line, 1_000, None);
        assert_eq!(settle(cx), End::Quiet);
        connect(cx, driver.at("isr"));
        settle(cx);
        assert_eq!(rule(cx), Some("interrupt-storm"), "it was called, and nothing made the line fall");
        assert!(message(cx).contains("though it was claimed"));
    });
}

/// Holds: irql/held-back
#[test]
fn a_raised_level_and_a_cleared_interrupt_flag_hold_an_interrupt_back() {
    for routine in ["raised", "masked"] {
        card(|cx, driver, line| {
            connect(cx, driver.at("isr"));
            // While the routine stalls.
            rise(cx, line, 10_000, Some(32_000));
            let seen = driver.run(cx, routine, &[]).unwrap();
            assert_eq!(seen >> 8, 0, "{routine}: none while it was held back");
            assert!(seen & 0xFF >= 1, "{routine}: and at once after");
        });
    }
}

#[test]
fn a_synch_critical_section_runs_at_the_interrupts_level() {
    card(|cx, driver, _| {
        let object = connect(cx, driver.at("isr"));
        let expected = 1 << 8 | u64::from(irql_of_line(LINE));
        assert_eq!(driver.run(cx, "synch", &[object.address]), Some(expected));
    });
}

/// Holds: irql/export
#[test]
fn a_service_routine_that_calls_what_its_level_forbids_is_told() {
    card(|cx, driver, line| {
        connect(cx, driver.at("careless"));
        rise(cx, line, 1_000, Some(1));
        assert_eq!(settle(cx), End::Stopped);
        assert_eq!(rule(cx), Some("irql-too-high"));
        assert!(message(cx).contains("KeSetEvent was called at IRQL 8"), "{}", message(cx));
    });
}

#[test]
fn a_register_that_asserts_the_line_interrupts_before_the_next_instruction() {
    card(|cx, driver, _| {
        connect(cx, driver.at("polite"));
        assert_eq!(driver.run(cx, "write", &[]), Some(1 << 8 | 1), "{}", message(cx));
        assert_eq!(settle(cx), End::Quiet);
    });
}

/// Holds: interrupts/full-vector, interrupts/full-irql
#[test]
fn connecting_refuses_what_windows_refuses() {
    card(|cx, _, _| {
        let good = connection(0x1000);
        let wrong = [
            Connection { routine: 0, ..good },
            Connection { vector: 0x20, ..good },
            Connection { irql: 4, ..good },
            Connection { synchronize_irql: good.irql - 1, ..good },
            Connection { synchronize_irql: 16, ..good },
            Connection { affinity: 0b10, ..good },
        ];
        for connection in wrong {
            let refused = interrupt::connect(cx, &connection).unwrap();
            assert_eq!(refused, Err(abi::NtStatus::INVALID_PARAMETER), "{connection:?}");
        }
    });
}

#[test]
fn two_runs_with_interrupts_and_slices_leave_the_same_trace() {
    let run = || {
        let chooser = Box::new(Scripted { answers: Vec::new(), slice: 11 });
        with_card(chooser, |cx, driver, line| {
            let trace = Trace::of(cx);
            connect(cx, driver.at("isr"));
            rise(cx, line, 1_000_000, Some(2_000));
            driver.run(cx, "wait", &[]);
            trace.lines()
        })
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 40);
    assert_eq!(first, second);
}

#[test]
fn the_same_interrupts_with_slices_of_seven_instructions_leave_the_same_results() {
    let run = |slice: u64| {
        let chooser = Box::new(Scripted { answers: Vec::new(), slice });
        with_card(chooser, |cx, driver, line| {
            connect(cx, driver.at("isr"));
            rise(cx, line, 1_000_000, Some(1));
            driver.run(cx, "wait", &[])
        })
    };
    assert_eq!(run(7), run(u64::MAX));
}
