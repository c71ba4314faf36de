//! Driver code that waits busily: locks of its own, flags, lock orders. Waits that end run on, those that never end get a verdict.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::interrupts::{connect, connection};
use crate::Cx;
use crate::ke::irq::interrupt;
use crate::ke::rig::{Driver, Line, Rig, Scripted, bug_check, machine, message, rule, settle};
use crate::ke::sched::scheduler::End;

const SPINS: &str = "
    typedef struct { u64 mask; unsigned short group, reserved[3]; } affinity;
    void KeSetSystemAffinityThread(u64); int KeSetPriorityThread(void *, int); void KeSetTargetProcessorDpc(void *, char);
    void KeAcquireSpinLockAtDpcLevel(u64 *); void KeReleaseSpinLockFromDpcLevel(u64 *);
    static inline void *current(void) { void *v; __asm__ volatile(\"mov %%gs:0x188, %0\" : \"=r\"(v)); return v; }
    volatile int lock, flag, ready, count, toggled; u64 handle, event[3], dpc[8], timer[8]; i64 interval = -20 * 10000;
    static void take(void) { while (__sync_val_compare_and_swap(&lock, 0, 1)) __builtin_ia32_pause(); }
    static void take_by_exchange(void) { while (__sync_lock_test_and_set(&lock, 1)) while (lock) ; }
    static void give(void) { __sync_lock_release(&lock); }
    ROUTINE int counts(int rounds) { for (int i = 0; i < rounds; i++) { take(); int n = count; flag ^= 1; count = n + 1; give(); } return count; }
    ROUTINE int counts_by_exchange(int rounds) { for (int i = 0; i < rounds; i++) { take_by_exchange(); int n = count; flag ^= 1; count = n + 1; give(); } return count; }
    ROUTINE int takes_twice(void) { take(); take(); return 0; }
    ROUTINE int waits_for_flag(void) { while (!flag) ; return 7; }
    ROUTINE int waits_on_its_stack(void) { volatile int own = 0; while (!own) ; return 0; }
    ROUTINE int sets_flag_late(void) { for (volatile int i = 0; i < 300000; i++) ; flag = 1; return 0; }
    ROUTINE int sees_toggle(void) { while (!toggled) ; flag = 1; return 1; }
    ROUTINE int toggles(void) { while (!flag) { __sync_fetch_and_add(&toggled, 1); __sync_fetch_and_sub(&toggled, 1); } return 2; }
    void sets(void *d, void *c, void *a, void *b) { flag = 1; }
    ROUTINE int raised(int level) {
        KeInitializeDpc(dpc, sets, 0); u8 old = KfRaiseIrql(level); KeInsertQueueDpc(dpc, 0, 0);
        while (!flag) ; KeLowerIrql(old); return 9;
    }
    ROUTINE int timed(int level) {
        KeInitializeDpc(dpc, sets, 0); KeInitializeTimerEx(timer, 0); KeSetTimerEx(timer, -500000, 0, dpc);
        u8 old = KfRaiseIrql(level); while (!flag) ; KeLowerIrql(old); return 5;
    }
    void high(void *priority) { KeSetPriorityThread(current(), (int)(u64)priority); take(); give(); flag = 1; }
    ROUTINE int inverted(u64 priority) {
        take(); PsCreateSystemThread(&handle, 0, 0, 0, 0, high, (void *)priority);
        give(); while (!flag) ; return 11;
    }
    void a_high(void *priority) { KeDelayExecutionThread(0, 0, &interval); high(priority); }
    ROUTINE int inverted_later(u64 priority) {
        take(); PsCreateSystemThread(&handle, 0, 0, 0, 0, a_high, (void *)priority);
        for (volatile int i = 0; i < 15000000; i++) ; give(); while (!flag) ; return 11;
    }
    ROUTINE int counts_for_ever(void) { for (;;) count++; }
    ROUTINE void polls_port(void) { u8 v; do __asm__ volatile(\"in %%dx, %0\" : \"=a\"(v) : \"d\"(0x300)); while (!v); }
    u64 first, second;
    ROUTINE int one_two(void) { u8 o = KeAcquireSpinLockRaiseToDpc(&first); ready++; while (ready < 2) ; KeAcquireSpinLockAtDpcLevel(&second);
        KeReleaseSpinLockFromDpcLevel(&second); KeReleaseSpinLock(&first, o); return 0; }
    ROUTINE int two_one(void) { u8 o = KeAcquireSpinLockRaiseToDpc(&second); ready++; while (ready < 2) ; KeAcquireSpinLockAtDpcLevel(&first);
        KeReleaseSpinLockFromDpcLevel(&first); KeReleaseSpinLock(&second, o); return 0; }
    ROUTINE int holds_and_polls(void) { u8 o = KeAcquireSpinLockRaiseToDpc(&first); while (!flag) ; KeReleaseSpinLock(&first, o); return 1; }
    ROUTINE int acquires(void) { u8 o = KeAcquireSpinLockRaiseToDpc(&first); KeReleaseSpinLock(&first, o); return 2; }
    ROUTINE u8 isr_takes(void *interrupt, void *context) { take(); count++; give(); return 1; }
    ROUTINE int owns(void) { take(); for (volatile int i = 0; i < 300000; i++) ; give(); return count; }
    ROUTINE int equals_wait(void) { ready++; while (!flag) ; return 0; }
    ROUTINE int flushes(void) { KeInitializeDpc(dpc, (void *)waits_for_flag, 0); KeSetTargetProcessorDpc(dpc, 1);
        KeInsertQueueDpc(dpc, 0, 0); KeFlushQueuedDpcs(); return 0; }
";

/// Runs `routines` on threads of their own until all is quiet; what each returned.
fn together(cx: &mut Cx<'_>, driver: &Driver, routines: &[(&str, u64)]) -> Vec<Option<u64>> {
    let results: Vec<_> = routines.iter().map(|_| Rc::new(Cell::new(None))).collect();
    for ((name, argument), result) in routines.iter().zip(&results) {
        driver.start(cx, name, &[*argument], result);
    }
    settle(cx);
    results.iter().map(|result| result.get()).collect()
}

/// One run on so many processors: results, verdict, sentence, virtual milliseconds.
fn run(processors: u32, routines: &[(&str, u64)]) -> (Vec<Option<u64>>, Option<&'static str>, String, u64) {
    let mut rig = Rig::processors(processors);
    rig.settings.instruction_budget = 200_000_000;
    run_in(rig, routines)
}

fn run_in(rig: Rig, routines: &[(&str, u64)]) -> (Vec<Option<u64>>, Option<&'static str>, String, u64) {
    let routines = routines.to_vec();
    rig.run(move |cx| {
        let driver = Driver::load(cx, "spins", SPINS);
        let results = together(cx, &driver, &routines);
        let seen = (results, rule(cx), message(cx), cx.engine().now() / 1_000_000);
        let (results, rule, text, time) = &seen;
        engine::outside(|| (results.clone(), *rule, text.clone(), *time))
    })
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_lock_of_the_drivers_own_is_contended_and_every_thread_gets_it() {
    for (processors, threads) in [(1, 3), (2, 2), (4, 6), (64, 64)] {
        let rounds = if threads == 64 { 3 } else { 20 };
        for routine in ["counts", "counts_by_exchange"] {
            for slice in if threads == 64 { [u64::MAX, 17].as_slice() } else { &[u64::MAX, 1000, 17, 3] } {
                let slice = *slice;
                let chooser = Box::new(Scripted { answers: Vec::new(), slice });
                let rig = Rig { chooser, ..Rig::processors(processors) };
                let (results, rule, text, _) = run_in(rig, &vec![(routine, rounds); threads]);
                assert_eq!(rule, None, "{routine} on {processors}, slices of {slice}: {text}");
                let most = results.iter().map(|result| result.unwrap()).max();
                assert_eq!(most, Some(rounds * threads as u64));
            }
        }
    }
}

#[test]
fn a_lock_of_the_drivers_own_that_is_taken_twice_is_a_livelock() {
    let (_, rule, text, time) = run(1, &[("takes_twice", 0)]);
    assert_eq!((rule, time), (Some("livelock"), 0), "{text}");
    says(&text, &["takes_twice", "polls spins.sys!lock", "(0x1)"]);
}

#[test]
fn a_flag_that_is_set_late_is_seen_on_another_processor() {
    let (results, rule, text, _) = run(2, &[("waits_for_flag", 0), ("sets_flag_late", 0)]);
    assert_eq!((results, rule), (vec![Some(7), Some(0)], None), "{text}");
}

#[test]
fn a_flag_that_nobody_sets_is_a_livelock_that_names_who_polls_what() {
    let (_, rule, text, _) = run(2, &[("waits_for_flag", 0), ("equals_wait", 0), ("waits_for_flag", 0)]);
    assert_eq!(rule, Some("livelock"), "{text}");
    says(&text, &["on processor 0 at IRQL 0 polls", "on processor 1 at IRQL 0 polls", "gets no processor"]);
    let (_, rule, text, _) = run(1, &[("waits_on_its_stack", 0)]);
    assert_eq!(rule, Some("livelock"), "{text}");
}

#[test]
fn a_value_that_is_there_only_for_a_moment_may_be_seen_and_is_no_livelock() {
    let rig = Rig { chooser: Box::new(Scripted { answers: Vec::new(), slice: 7 }), ..Rig::processors(2) };
    let (results, rule, text, _) = run_in(rig, &[("sees_toggle", 0), ("toggles", 0)]);
    assert_eq!((results, rule), (vec![Some(1), Some(2)], None), "{text}");
    let (_, rule, ..) = run(2, &[("sees_toggle", 0), ("toggles", 0)]);
    assert_ne!(rule, Some("livelock"), "whether it is seen is a matter of the schedule");
}

#[test]
fn a_dpc_cannot_run_below_the_level_at_which_somebody_polls_for_it() {
    let (results, rule, text, _) = run(1, &[("raised", 1)]);
    assert_eq!((results, rule), (vec![Some(9)], None), "{text}");
    let (_, rule, text, time) = run(1, &[("raised", 2)]);
    assert_eq!((rule, time), (Some("livelock"), 0), "{text}");
    says(&text, &["raised", "at IRQL 2 polls", "1 DPC(s) queued that its level holds back"]);
}

#[test]
fn a_timer_ends_a_busy_wait_after_its_time_and_above_its_level_never() {
    let (results, rule, text, time) = run(1, &[("timed", 0)]);
    assert_eq!((results, rule), (vec![Some(5)], None), "{text}");
    assert!((50..80).contains(&time), "{time}");
    let (results, rule, text, _) = run(2, &[("timed", 0)]);
    assert_eq!((results, rule), (vec![Some(5)], None), "{text}");
    let (_, rule, text, _) = run(1, &[("timed", 2)]);
    assert!(matches!(rule, Some("livelock" | "endless-loop")), "{text}");
}

#[test]
fn a_spinning_thread_of_higher_priority_starves_the_owner_for_four_seconds_and_a_real_time_one_for_ever() {
    let (results, rule, text, time) = run(1, &[("inverted_later", 12)]);
    assert_eq!((results, rule), (vec![Some(11)], None), "{text}");
    assert!((4000..4500).contains(&time), "{time}");
    let (_, rule, text, _) = run(1, &[("inverted_later", 16)]);
    assert_eq!(rule, Some("livelock"), "{text}");
    says(&text, &["polls", "inverted_later", "at priority 8, is ready and gets no processor"]);
    let (results, rule, text, _) = run(2, &[("inverted_later", 16)]);
    assert_eq!((results, rule), (vec![Some(11)], None), "{text}");
}

#[test]
fn a_loop_that_counts_and_one_that_polls_a_register_end_by_their_budgets() {
    let (_, rule, text, _) = run(1, &[("counts_for_ever", 0)]);
    assert_eq!(rule, Some("endless-loop"));
    says(&text, &["instructions at IRQL 0"]);
    let mut rig = Rig::default();
    rig.settings.instruction_budget = 10_000_000;
    let (_, rule, text, time) = run_in(rig, &[("polls_port", 0)]);
    assert_eq!((rule, time), (Some("endless-loop"), 6000), "{text}");
    says(&text, &["6000 ms, nearly all of it in busy waits"]);
}

#[test]
fn locks_in_different_order_on_two_processors_are_a_deadlock_that_names_both_with_owners_and_places() {
    let (_, rule, text, _) = run(2, &[("one_two", 0), ("two_one", 0)]);
    assert_eq!(rule, Some("spin-lock-deadlock"), "{text}");
    says(&text, &["processor 0 spins on lock", "which processor 1 holds since spins.sys!two_one+", "; "]);
    says(&text, &["processor 1 spins on lock", "which processor 0 holds since spins.sys!one_two+"]);
}

#[test]
fn a_lock_whose_owner_polls_is_waited_for_as_long_as_that_may_end() {
    let (_, rule, text, _) = run(2, &[("holds_and_polls", 0), ("acquires", 0)]);
    assert_eq!(rule, Some("livelock"), "{text}");
    says(&text, &["polls", "holding lock", "acquires", "spins on lock"]);
    let routines = [("holds_and_polls", 0), ("acquires", 0), ("sets_flag_late", 0)];
    let (results, rule, text, _) = run(3, &routines);
    assert_eq!((results, rule), (vec![Some(1), Some(2), Some(0)], None), "{text}");
}

#[test]
fn a_flush_that_waits_for_a_dpc_that_polls_is_told() {
    let (_, rule, text, _) = run(2, &[("flushes", 0)]);
    assert_eq!(rule, Some("livelock"), "{text}");
    says(&text, &["KeFlushQueuedDpcs", "CustomDpc", "polls"]);
}

#[test]
fn a_livelock_at_a_raised_level_is_the_watchdogs_bug_check() {
    machine(|cx| {
        let driver = Driver::load(cx, "spins", SPINS);
        assert_eq!(driver.run(cx, "raised", &[2]), None);
        assert_eq!((rule(cx), bug_check(cx)), (Some("livelock"), Some(0x133)));
        assert!(!cx.nt().verdict().unwrap().stack.is_empty(), "the one who spins tells where");
        assert_eq!(settle(cx), End::Stopped);
    });
}

#[test]
fn an_interrupt_routine_that_wants_the_lock_of_what_it_interrupted_is_a_livelock() {
    for processors in [1, 2] {
        let line = Rc::new(RefCell::new(Line { at: Some(200_000), until: Some(200_010), ..Line::default() }));
        let rig = Rig { line, ..Rig::processors(processors) };
        rig.run(|cx| {
            let driver = Driver::load(cx, "spins", SPINS);
            connect(cx, driver.at("isr_takes"));
            let results = together(cx, &driver, &[("owns", 0)]);
            assert_eq!((results[0], rule(cx)), (None, Some("livelock")), "{}", message(cx));
            says(&message(cx), &["the Isr routine", "polls", "over its Test routine spins.sys!owns"]);
            assert_eq!(bug_check(cx), Some(0x133));
        });
    }
}

#[test]
fn an_interrupt_routine_on_another_processor_gets_the_lock_when_its_owner_gives_it_back() {
    let line = Rc::new(RefCell::new(Line { at: Some(200_000), until: Some(200_010), ..Line::default() }));
    let rig = Rig { line, ..Rig::processors(2) };
    rig.run(|cx| {
        let driver = Driver::load(cx, "spins", SPINS);
        let mut connection = connection(driver.at("isr_takes"));
        connection.affinity = 0b10;
        interrupt::connect(cx, &connection).unwrap().unwrap();
        let results = together(cx, &driver, &[("owns", 0)]);
        assert_eq!((results[0], rule(cx)), (Some(0), None), "{}", message(cx));
        assert_eq!(driver.run(cx, "counts", &[0]), Some(1), "the routine got the lock in the end");
    });
}
