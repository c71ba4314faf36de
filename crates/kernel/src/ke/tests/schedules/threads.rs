//! Threads: priorities, preemption, equals, boosts, affinity, several processors.

use super::{ALL, Plan, Policy, Scenario};

const TWICE: &str = "ROUTINE void twice(u64 letter) { say(letter); say(letter); }";

/// A thread's work: its letter twice.
const fn twice(letter: u8, priority: u8, affinity: u64) -> super::Part {
    ("twice", letter as u64, priority, affinity)
}

#[test]
fn the_highest_ready_priority_runs_and_a_lower_one_only_after_it() {
    let threads = [twice(b'l', 4, ALL), twice(b'h', 12, ALL), twice(b'm', 8, ALL)];
    Scenario::new(TWICE, &threads).is(&["hhmmll"], &[]);
}

#[test]
fn each_processor_has_its_own_order_of_priorities() {
    // The two highest share the processors; the lowest one gets the first that is free.
    let threads = [twice(b'l', 4, ALL), twice(b'h', 12, ALL), twice(b'm', 8, ALL)];
    let scenario = Scenario::new(TWICE, &threads).on(2);
    scenario.always(|log| log.len() == 6 && (log.starts_with(['h', 'm'])));
    let found = scenario.search();
    assert!(found.contains("hhmmll") && found.contains("mmllhh"), "{found:?}");
}

const WAKES: &str = "
    ROUTINE void setup(void) { KeInitializeEvent(event[0], 1, 0); KeInitializeEvent(event[1], 1, 0); }
    ROUTINE void waits(u64 letter) { KeWaitForSingleObject(event[0], 0, 0, 0, 0); say(letter); }
    ROUTINE void wakes(u64 boost) { say('1'); KeSetEvent(event[0], (int)boost, 0); say('2'); }
    ROUTINE void late(u64 boost) { KeWaitForSingleObject(event[1], 0, 0, 0, 0); wakes(boost); }
    ROUTINE void starts(void) { KeSetEvent(event[1], 0, 0); }
    ROUTINE void wakes_raised(void) {
        say('1'); u8 old = KfRaiseIrql(2); KeSetEvent(event[0], 0, 0); say('2'); KeLowerIrql(old); say('3');
    }
    ROUTINE void wakes_and_waits(void) {
        say('1'); KeSetEvent(event[0], 0, 1); say('2'); KeWaitForSingleObject(event[1], 0, 0, 0, &zero); say('3');
    }
";

fn wakes(waker: &'static str, boost: u64, waiters: &[(u8, u8)]) -> Scenario {
    let waiting = waiters.iter().map(|(letter, priority)| ("waits", u64::from(*letter), *priority, ALL));
    let mut threads: Vec<_> = waiting.collect();
    threads.push((waker, boost, 8, ALL));
    Scenario::new(WAKES, &threads).first("setup")
}

#[test]
fn a_thread_that_becomes_ready_preempts_a_lower_one_at_once() {
    wakes("wakes", 0, &[(b'H', 12)]).is(&["1H2"], &[]);
    // A lower one waits for the end; it came to its own wait only then.
    wakes("wakes", 0, &[(b'L', 4)]).is(&["12L"], &[]);
}

/// Holds: irql/dispatch
#[test]
fn at_dispatch_level_the_one_that_became_ready_waits_until_the_level_falls() {
    wakes("wakes_raised", 0, &[(b'H', 12)]).is(&["12H3"], &[]);
    wakes("wakes_raised", 0, &[(b'H', 12)]).on(2).is(&["12H3", "123H", "1H23"], &["H123"]);
}

#[test]
fn a_boost_lets_an_equal_preempt_who_woke_it_and_without_one_either_goes_on() {
    let late = |boost| {
        // The waker waits too, so that its equal waits already; a lower one lets it go.
        let threads = [("waits", u64::from(b'W'), 8, ALL), ("late", boost, 8, ALL), ("starts", 0, 4, ALL)];
        Scenario::new(WAKES, &threads).first("setup")
    };
    late(2).is(&["1W2"], &[]);
    late(0).is(&["1W2", "12W"], &[]);
}

#[test]
fn who_says_that_it_waits_next_is_not_preempted_before_it_does() {
    wakes("wakes_and_waits", 0, &[(b'H', 12)]).is(&["12H3"], &[]);
}

#[test]
fn a_synchronization_event_wakes_who_has_waited_longest() {
    wakes("wakes", 0, &[(b'A', 14), (b'B', 12), (b'C', 10)]).is(&["1A2"], &[]);
}

#[test]
fn equals_run_in_any_order_and_are_preempted_between_any_two_instructions() {
    let threads = [twice(b'a', 8, ALL), twice(b'b', 8, ALL)];
    Scenario::new(TWICE, &threads).is(&["aabb", "abba", "bbaa", "baab"], &["abab", "baba"]);
}

#[test]
fn at_dispatch_level_equals_do_not_interleave_on_one_processor_and_do_on_two() {
    const RAISED: &str = "
        ROUTINE void raised(u64 letter) { u8 old = KfRaiseIrql(2); say(letter); say(letter); KeLowerIrql(old); }";
    let threads = [("raised", u64::from(b'a'), 8, ALL), ("raised", u64::from(b'b'), 8, ALL)];
    Scenario::new(RAISED, &threads).is(&["aabb", "bbaa"], &[]);
    let both = ["aabb", "bbaa", "abba", "baab"];
    Scenario::new(RAISED, &threads).on(2).is(&both, &["abab", "baba"]);
}

#[test]
fn a_thread_runs_only_where_its_affinity_lets_it() {
    // All on the second processor, in order of priority, though the first has nothing to do.
    let threads = [twice(b'l', 4, 0b10), twice(b'h', 12, 0b10), twice(b'm', 8, 0b10)];
    Scenario::new(TWICE, &threads).on(2).is(&["hhmmll"], &[]);
}

#[test]
fn two_processors_lose_an_update_that_is_not_interlocked_and_no_interlocked_one() {
    let source = |add: &str| {
        format!(
            "volatile int count, over;
             ROUTINE void adds(void) {{ {add}; if (__sync_add_and_fetch(&over, 1) == 2) say('0' + count); }}"
        )
    };
    let run = |add: &str, processors| {
        Scenario::new(&source(add), &[("adds", 0, 8, ALL), ("adds", 0, 8, ALL)]).on(processors)
    };
    let plain = "int n = count; count = n + 1";
    run(plain, 2).is(&["1", "2"], &[]);
    run(plain, 1).is(&["1", "2"], &[]);
    run("__sync_fetch_and_add(&count, 1)", 2).is(&["2"], &[]);
}

#[test]
fn a_spin_lock_keeps_others_out_whatever_the_schedule() {
    const LOCKED: &str = "
        u64 lock;
        ROUTINE void locked(u64 letter) { u8 old = KeAcquireSpinLockRaiseToDpc(&lock); say(letter); say(letter); KeReleaseSpinLock(&lock, old); }";
    let threads = [("locked", u64::from(b'a'), 8, ALL), ("locked", u64::from(b'b'), 8, ALL)];
    Scenario::new(LOCKED, &threads).on(2).is(&["aabb", "bbaa"], &[]);
}

/// Its letter every 10 ms, eight times.
const STALLS: &str = "
    ROUTINE void stalls(u64 letter) { for (int i = 0; i < 8; i++) { for (int n = 0; n < 200; n++) KeStallExecutionProcessor(50); say(letter); } }";

#[test]
fn equals_take_turns_at_the_end_of_a_quantum_at_the_latest() {
    let threads = [("stalls", u64::from(b'a'), 8, ALL), ("stalls", u64::from(b'b'), 8, ALL)];
    let scenario = Scenario::new(STALLS, &threads);
    let alone = |log: &str| ["aaaaa", "bbbbb"].iter().any(|run| log[..11].contains(run));
    for log in scenario.sample() {
        assert!(!alone(&log), "more than two ticks in a row while the other one is ready: {log}");
    }
    let policy = Policy::plan(Plan::default());
    assert_eq!(scenario.run(&policy, None).log, "aaabbbaaabbbaabb");
}

#[test]
fn the_end_of_a_quantum_is_nothing_to_a_lower_thread() {
    let threads = [("stalls", u64::from(b'a'), 9, ALL), ("stalls", u64::from(b'b'), 8, ALL)];
    let found = Scenario::new(STALLS, &threads).sample();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["aaaaaaaabbbbbbbb"]);
}

#[test]
fn a_thread_that_starves_is_boosted_after_four_seconds_unless_the_other_one_is_real_time() {
    const BUSY: &str = "
        ROUTINE void busy(void) { for (int i = 0; i < 100; i++) KeStallExecutionProcessor(50000); say('h'); }
        ROUTINE void low(void) { say('l'); }";
    for (priority, log) in [(12, "lh"), (15, "lh"), (16, "hl")] {
        let threads = [("busy", 0, priority, ALL), ("low", 0, 4, ALL)];
        let policy = Policy::plan(Plan::default());
        assert_eq!(Scenario::new(BUSY, &threads).run(&policy, None).log, log, "beside priority {priority}");
    }
}

#[test]
fn code_at_dispatch_level_is_told_to_yield_when_something_waits_and_may_be_told_earlier() {
    const POLITE: &str = "
        struct { unsigned short length, maximum; const unsigned short *text; } name;
        void *MmGetSystemRoutineAddress(void *);
        void late(void *d, void *c, void *a, void *b) { say('d'); }
        ROUTINE void polite(void) {
            name.length = 44; name.maximum = 46; name.text = L\"KeShouldYieldProcessor\";
            u32 (*KeShouldYieldProcessor)(void) = MmGetSystemRoutineAddress(&name);
            KeInitializeDpc(dpc[0], late, 0); u8 old = KfRaiseIrql(2);
            say('0' + !!KeShouldYieldProcessor()); KeInsertQueueDpc(dpc[0], 0, 0); say('0' + !!KeShouldYieldProcessor());
            KeLowerIrql(old); say('e');
        }";
    Scenario::new(POLITE, &[("polite", 0, 8, ALL)]).is(&["01de", "11de"], &[]);
}

#[test]
fn work_items_run_in_any_order_and_beside_each_other() {
    const ITEMS: &str = "
        void ExQueueWorkItem(void *, int); u64 items[2][4];
        void work(void *letter) { say((u64)letter); say((u64)letter); }
        ROUTINE void queues(void) {
            for (int i = 0; i < 2; i++) { items[i][2] = (u64)work; items[i][3] = 'a' + i; ExQueueWorkItem(items[i], 1); }
        }";
    let scenario = Scenario::new(ITEMS, &[("queues", 0, 12, ALL)]);
    scenario.is(&["aabb", "abba", "bbaa", "baab"], &["abab", "baba"]);
}
