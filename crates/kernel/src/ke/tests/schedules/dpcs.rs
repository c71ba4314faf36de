//! Deferred procedure calls: when they run, where, and what may run beside them.

use super::{ALL, Scenario};

const DPCS: &str = "
    void lettered(void *d, void *letter, void *a, void *b) { say((u64)letter); }
    void slow(void *d, void *c, void *a, void *b) { say('x'); say('y'); }
    ROUTINE void setup(void) { KeInitializeDpc(dpc[0], lettered, (void *)'a'); KeInitializeDpc(dpc[1], lettered, (void *)'b'); }
    ROUTINE void queues(void) { say('1'); KeInsertQueueDpc(dpc[0], 0, 0); say('2'); }
    ROUTINE void queues_two(u64 importance) {
        KeSetImportanceDpc(dpc[1], (int)importance); u8 old = KfRaiseIrql(2);
        KeInsertQueueDpc(dpc[0], 0, 0); KeInsertQueueDpc(dpc[1], 0, 0); say('1'); KeLowerIrql(old); say('2');
    }
    ROUTINE void setup_targeted(void) { setup(); KeSetTargetProcessorDpc(dpc[0], 1); }
    ROUTINE void setup_slow(void) { KeInitializeDpc(dpc[0], slow, 0); }
    ROUTINE void only_queues(void) { KeInsertQueueDpc(dpc[0], 0, 0); }
    ROUTINE void queues_and_says(void) { u8 queued = KeInsertQueueDpc(dpc[0], 0, 0); say('0' + queued); }
    ROUTINE void queues_twice(void) {
        u8 old = KfRaiseIrql(2); u8 first = KeInsertQueueDpc(dpc[0], 0, 0), second = KeInsertQueueDpc(dpc[0], 0, 0);
        say('0' + first); say('0' + second); KeLowerIrql(old);
    }
    ROUTINE u8 isr(void *interrupt, void *context) { out(0x300, 0); say('i'); KeInsertQueueDpc(dpc[0], 0, 0); say('j'); return 1; }
    ROUTINE u8 bare_isr(void *interrupt, void *context) { out(0x300, 0); say('i'); return 1; }
    ROUTINE void steps(void) { say('1'); u8 old = KfRaiseIrql(2); say('2'); say('3'); KeLowerIrql(old); say('4'); }
";

#[test]
fn below_dispatch_level_a_dpc_runs_before_the_next_instruction() {
    Scenario::new(DPCS, &[("queues", 0, 8, ALL)]).first("setup").is(&["1a2"], &[]);
}

/// Holds: irql/dispatch
#[test]
fn dpcs_drain_in_order_before_the_level_falls_below_dispatch() {
    for (importance, log) in [(1, "1ab2"), (2, "1ba2"), (3, "1ab2")] {
        Scenario::new(DPCS, &[("queues_two", importance, 8, ALL)]).first("setup").is(&[log], &[]);
    }
}

#[test]
fn a_dpc_runs_after_the_interrupt_routine_that_queued_it_and_not_before_the_level_allows() {
    let possible = ["ija1234", "1ija234", "12ij3a4", "123ija4", "1234ija", "1ij23a4"];
    let rare = ["123ija4", "123ij4a"];
    let scenario = Scenario::new(DPCS, &[("steps", 0, 8, ALL)]).first("setup").interrupted_by("isr", ALL);
    scenario.is(&possible, &rare[..1]);
    scenario.always(|log| log.contains("ij") && (!log.contains("2ij3") || log.contains("3a4")));
}

#[test]
fn a_dpc_is_interrupted_between_any_two_instructions() {
    let scenario = Scenario::new(DPCS, &[("only_queues", 0, 8, ALL)])
        .first("setup_slow")
        .interrupted_by("bare_isr", ALL);
    scenario.is(&["ixy", "xiy", "xyi"], &[]);
}

#[test]
fn dpcs_of_one_processor_never_nest_nor_overlap() {
    let threads = [("queues_two", 1, 8, ALL), ("queues", 0, 8, ALL)];
    let scenario = Scenario::new(DPCS, &threads).first("setup").interrupted_by("bare_isr", ALL);
    // The reader of events complains if they do.
    scenario.always(|log| log.contains('b'));
}

#[test]
fn a_targeted_dpc_runs_on_its_processor_beside_the_one_that_queued_it() {
    let scenario = Scenario::new(DPCS, &[("queues", 0, 8, 0b01)]).first("setup_targeted").on(2).undrained();
    scenario.is(&["1a2", "12a"], &[]);
}

#[test]
fn a_dpc_that_is_queued_is_not_queued_again() {
    Scenario::new(DPCS, &[("queues_twice", 0, 8, ALL)]).first("setup_slow").is(&["10xy"], &[]);
}

#[test]
fn a_dpc_is_in_its_queue_until_its_routine_begins_and_another_processor_finds_it_there() {
    let threads = [("queues_and_says", 0, 8, 0b01), ("queues_and_says", 0, 8, 0b10)];
    let scenario = Scenario::new(DPCS, &threads).first("setup").on(2).undrained();
    scenario.is(&["a1a1", "aa11", "0a1", "a10"], &["a01"]);
}

#[test]
fn a_dpc_that_runs_may_be_queued_again_and_run_on_two_processors_at_once() {
    let threads = [("only_queues", 0, 8, 0b01), ("only_queues", 0, 8, 0b10)];
    let scenario = Scenario::new(DPCS, &threads).first("setup_slow").on(2).undrained();
    scenario.is(&["xyxy", "xxyy"], &["xy"]);
    let here = [("only_queues", 0, 8, ALL), ("only_queues", 0, 8, ALL)];
    Scenario::new(DPCS, &here).first("setup_slow").is(&["xyxy"], &[]);
}
