//! Deferred procedure calls of compiled drivers.

use crate::Cx;
use crate::ke::rig::{Driver, Rig, Trace, bug_check, machine, message, rule};

const QUEUE: &str = "
    u64 dpc[3][8]; char log[32]; int used;
    void routine(void *dpc, void *context, void *a, void *b) {
        log[used++] = (char)(u64)context; log[used++] = '0' + (char)KeGetCurrentIrql(); log[used++] = '0' + (char)(u64)a;
    }
    void init(void) { for (u64 i = 0; i < 3; i++) KeInitializeDpc(dpc[i], routine, (void *)('a' + i)); }
    ROUTINE char *text(void) { return log; }
    ROUTINE int immediate(void) { init(); KeInsertQueueDpc(dpc[0], (void *)7, 0); return used; }
    ROUTINE int held_back(void) {
        init(); set_cr8(2);
        u8 first = KeInsertQueueDpc(dpc[0], (void *)1, 0), again = KeInsertQueueDpc(dpc[0], (void *)2, 0);
        KeSetImportanceDpc(dpc[1], 2); KeInsertQueueDpc(dpc[1], (void *)3, 0);
        KeInsertQueueDpc(dpc[2], (void *)4, 0); u8 removed = KeRemoveQueueDpc(dpc[2]);
        int before = used; set_cr8(0);
        return first | again << 1 | removed << 2 | before << 3;
    }
    ROUTINE int flushed(void) {
        init(); KeSetImportanceDpc(dpc[0], 0); KeInsertQueueDpc(dpc[0], 0, 0);
        int before = used; KeFlushQueuedDpcs(); return before << 8 | used;
    }
    void again(void *d, void *context, void *a, void *b) { KeInsertQueueDpc(d, 0, 0); }
    ROUTINE int forever(void) { KeInitializeDpc(dpc[0], again, 0); KeInsertQueueDpc(dpc[0], 0, 0); return 0; }
    void raised(void *d, void *context, void *a, void *b) { KfRaiseIrql(5); }
    ROUTINE int leaves_raised(void) { KeInitializeDpc(dpc[0], raised, 0); KeInsertQueueDpc(dpc[0], 0, 0); return 0; }
    void lowers(void *d, void *context, void *a, void *b) { KeLowerIrql(0); }
    ROUTINE int goes_down(void) { KeInitializeDpc(dpc[0], lowers, 0); KeInsertQueueDpc(dpc[0], 0, 0); return 0; }
    ROUTINE u64 not_initialized(void) { u64 raw[8] = {0}; return KeInsertQueueDpc(raw, 0, 0); }
    u64 event[3]; i64 nothing;
    void waits(void *d, void *context, void *a, void *b) { KeWaitForSingleObject(event, 0, 0, 0, 0); }
    ROUTINE int blocks(void) {
        KeInitializeEvent(event, 1, 0); KeInitializeDpc(dpc[0], waits, 0); KeInsertQueueDpc(dpc[0], 0, 0); return 0;
    }
    void locks(void *d, void *context, void *a, void *b) { KeAcquireSpinLockRaiseToDpc(context); }
    ROUTINE int keeps_lock(u64 *lock) { KeInitializeDpc(dpc[0], locks, lock); KeInsertQueueDpc(dpc[0], 0, 0); return 0; }
";

fn text(driver: &Driver, cx: &mut Cx<'_>) -> String {
    let at = driver.run(cx, "text", &[]).unwrap();
    let bytes = cx.read_bytes(at, 32).unwrap();
    String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
}

#[test]
fn below_dispatch_level_a_dpc_runs_before_the_call_that_queued_it_returns() {
    machine(|cx| {
        let driver = Driver::load(cx, "dpc", QUEUE);
        assert_eq!(driver.run(cx, "immediate", &[]), Some(3));
        assert_eq!(text(&driver, cx), "a27");
    });
}

#[test]
fn dpcs_queued_at_dispatch_level_run_when_it_falls_once_each_and_high_ones_first() {
    machine(|cx| {
        let trace = Trace::of(cx);
        let driver = Driver::load(cx, "dpc", QUEUE);
        assert_eq!(driver.run(cx, "held_back", &[]), Some(0b101), "{}", message(cx));
        assert_eq!(text(&driver, cx), "b23a21", "the second insert of a changed nothing, c was removed");
        let queued = trace.lines().iter().filter(|line| line.contains("DpcQueued")).count();
        assert_eq!(queued, 4);
    });
}

#[test]
fn a_dpc_of_low_importance_waits_until_it_is_flushed() {
    machine(|cx| {
        let driver = Driver::load(cx, "dpc", QUEUE);
        assert_eq!(driver.run(cx, "flushed", &[]), Some(3));
    });
}

#[test]
fn what_a_dpc_must_not_do_is_told() {
    let cases = [
        ("forever", "dpc-watchdog", Some(0x133)),
        ("leaves_raised", "irql-changed-by-routine", Some(0xC8)),
        ("goes_down", "irql-lowered-in-callback", Some(0xC4)),
        ("not_initialized", "dpc-not-initialized", Some(0xC7)),
        ("blocks", "wait-at-raised-irql", Some(0xB8)),
    ];
    for (routine, expected, code) in cases {
        machine(|cx| {
            let driver = Driver::load(cx, "dpc", QUEUE);
            assert_eq!(driver.run(cx, routine, &[]), None);
            assert_eq!((rule(cx), bug_check(cx)), (Some(expected), code), "{routine}: {}", message(cx));
        });
    }
}

#[test]
fn a_dpc_that_returns_with_a_spin_lock_is_told_by_name() {
    machine(|cx| {
        let driver = Driver::load(cx, "dpc", QUEUE);
        let lock = crate::mm::pool::allocate::<u64>(cx, crate::mm::pool::Kind::NonPaged, 8, 1).unwrap();
        driver.run(cx, "keeps_lock", &[lock.address]);
        assert_eq!((rule(cx), bug_check(cx)), (Some("spin-lock-held-on-return"), Some(0xC4)));
        assert!(message(cx).starts_with("CustomDpc routine dpc.sys"), "{}", message(cx));
    });
}

#[test]
fn a_dpc_runs_on_the_processor_it_is_targeted_at() {
    const TARGET: &str = "
        void KeSetTargetProcessorDpc(void *, u8); u64 dpc[8]; u64 event[3]; volatile int ran_on = -1;
        void routine(void *d, void *c, void *a, void *b) {
            int n; __asm__ volatile(\"movl %%gs:0x184, %0\" : \"=r\"(n)); ran_on = (u8)n; KeSetEvent(event, 0, 0);
        }
        ROUTINE int target(void) {
            KeInitializeEvent(event, 1, 0); KeInitializeDpc(dpc, routine, 0); KeSetTargetProcessorDpc(dpc, 2);
            KeInsertQueueDpc(dpc, 0, 0); KeWaitForSingleObject(event, 0, 0, 0, 0); return ran_on;
        }";
    Rig::processors(4).run(|cx| {
        let driver = Driver::load(cx, "target", TARGET);
        assert_eq!(driver.run(cx, "target", &[]), Some(2), "{}", message(cx));
    });
}
