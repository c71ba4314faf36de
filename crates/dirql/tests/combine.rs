//! Write-combined device memory, by a compiled driver (`drivers/c/combine.c`): each misuse beside its correct twin. A driver that puts a fence, an
//! interlocked instruction or an uncached access between is right whatever the policy chooses; one that does not is found.

use std::collections::BTreeSet;

use dirql::explore::{Bounds, Policy};
use dirql::readers::{Flow, Sink};
use dirql::{Bench, Machine, Outcome, Platform, Report, ScriptText};

use super::rig::{Buffer, driver, finish, seeds, start, start_unheard};

const ORDER: u32 = 0x0022_3880;
const FIFO: u32 = 0x0022_3884;
const FRAME: u32 = 0x0022_3888;
const OTHER: u32 = 0x0022_388C;
const KIND: u32 = 0x0022_3890;
const FENCE: u32 = 0x0022_3894;

const POLL: u32 = 0x0022_3898;
const WRONG: u32 = 0x0022_389C;

/// What the card sends back: the frame as it was before, and as it was stored.
const OLD: u32 = 0x0D0D_0D0D;
const NEW: u32 = 0x4E4E_4E4E;

fn bench() -> Bench {
    Bench::new()
        .driver(driver("combine.sys"))
        .inf(driver("combine.inf"))
        .device("bench,pin=a,ram")
        .processors(2)
}

/// The two words that a request tells.
fn answer(bench: impl Fn() -> Bench, code: u32, asked: u32) -> (u32, u32) {
    let machine = start(bench);
    let words = told_by(&machine, code, asked);
    finish(machine);
    words
}

fn told_by(machine: &Machine, code: u32, asked: u32) -> (u32, u32) {
    let file = machine.open(r"\\.\DirqlCombine").unwrap();
    let words = file.device_control(code, &asked.to_le_bytes(), 8).unwrap();
    file.close().unwrap();
    let word = |at: usize| u32::from_le_bytes(words[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

/// What it tells in random schedules.
fn told_at_random(code: u32, asked: u32) -> BTreeSet<(u32, u32)> {
    seeds(24).map(|seed| answer(|| bench().policy(Policy::random(seed)), code, asked)).collect()
}

#[test]
fn a_doorbell_that_is_combined_may_arrive_before_the_frame_unless_a_fence_is_between() {
    for careful in [0, 1] {
        assert_eq!(answer(bench, ORDER, careful), (NEW, NEW), "by default the oldest line goes first");
    }
    assert_eq!(told_at_random(ORDER, 0), BTreeSet::from([(NEW, NEW), (OLD, OLD)]));
    assert_eq!(told_at_random(ORDER, 1), BTreeSet::from([(NEW, NEW)]));
}

#[test]
fn words_stored_to_one_combined_register_become_one_unless_a_barrier_is_between() {
    assert_eq!(answer(bench, FIFO, 0), (1, 3), "the card has the last");
    assert_eq!(answer(bench, FIFO, 1), (3, 1));
    assert_eq!(told_at_random(FIFO, 0), BTreeSet::from([(1, 3), (2, 1), (2, 2), (3, 1)]));
    assert_eq!(told_at_random(FIFO, 1), BTreeSet::from([(3, 1)]));
}

#[test]
fn a_doorbell_that_is_not_combined_never_passes_the_frame() {
    for careful in [0, 1] {
        assert_eq!(answer(bench, FRAME, careful), (NEW, NEW));
        assert_eq!(told_at_random(FRAME, careful), BTreeSet::from([(NEW, NEW)]));
    }
}

#[test]
fn another_processor_rings_behind_the_frame_under_a_spin_lock_and_not_by_a_flag() {
    for careful in [0, 1] {
        assert_eq!(answer(bench, OTHER, careful), (NEW, NEW));
    }
    assert_eq!(told_at_random(OTHER, 0), BTreeSet::from([(NEW, NEW), (OLD, OLD)]));
    assert_eq!(told_at_random(OTHER, 1), BTreeSet::from([(NEW, NEW)]));
}

#[test]
fn each_way_to_map_combines_if_it_asks_for_it_and_cached_device_memory_is_uncached() {
    // MmNonCached, MmCached, MmWriteCombined; PAGE_NOCACHE, PAGE_WRITECOMBINE; MDLs; views of physical memory.
    for (way, arrive) in [2, 2, 1, 2, 1, 2, 1, 2, 1].into_iter().enumerate() {
        assert_eq!(answer(bench, KIND, u32::try_from(way).unwrap()).0, arrive, "way {way}");
    }
}

/// What stands between two stores of `IOCTL_COMBINE_FENCE`.
const KEEPS: [u32; 5] = [0, 1, 2, 3, 4];
const EMPTIES: std::ops::RangeInclusive<u32> = 10..=22;

#[test]
fn fences_interlocked_and_serializing_instructions_calls_and_ticks_empty_the_buffers() {
    for (name, bench) in [
        ("one processor", (|| bench().processors(1)) as fn() -> Bench),
        ("checked", || bench().checked(true)),
        ("two", bench),
    ] {
        for way in KEEPS {
            assert_eq!(answer(bench, FENCE, way).0, 1, "{name}: {way} is no fence");
        }
        for way in EMPTIES {
            assert_eq!(answer(bench, FENCE, way).0, 2, "{name}: {way}");
        }
        // No reader listens: driver code takes locks and moves the level by itself.
        assert_eq!(
            [3, 19].map(|way| told_by(&start_unheard(|| bench().unobserved()), FENCE, way).0),
            [1, 2],
            "{name}"
        );
    }
}

#[test]
fn an_access_that_the_card_or_the_mapping_does_not_have_is_told_at_its_instruction_and_combined_at_the_fence()
{
    let refused = ["FIFO: accepts 4 bytes, aligned", "outside its mapping of 0x100 bytes"];
    for (way, why) in [(0, 0), (1, 0), (2, 1), (3, 1), (16, 0), (17, 0), (18, 1), (19, 1)] {
        let machine = start(bench);
        let file = machine.open(r"\\.\DirqlCombine").unwrap();
        assert!(file.device_control(WRONG, &u32::to_le_bytes(way), 8).is_err());
        let verdict = machine.finish().verdict.expect("that cannot be");
        assert_eq!(verdict.rule, ["register-refused", "device-access-past-mapping"][why], "{way}");
        assert!(verdict.message.contains(refused[why]), "{way}: {}", verdict.message);
        assert_eq!(verdict.message.contains("combined"), way >= 16 && why == 0, "{way}: {}", verdict.message);
        let line = format!("{:?}", verdict.stack.first());
        assert!(line.contains("Wrong"), "{way}: {line}");
    }
}

#[test]
fn a_driver_that_forgets_the_fence_and_waits_in_a_loop_waits_no_longer_than_for_the_clock() {
    for processors in [1, 2] {
        assert_eq!(answer(|| bench().processors(processors), POLL, 0), (NEW, NEW));
    }
    assert_eq!(told_at_random(POLL, 0), BTreeSet::from([(NEW, NEW)]));
}

#[test]
fn what_is_combined_comes_behind_a_bridge_that_posts_too() {
    let posted = || bench().platform("posted=2us".parse::<Platform>().unwrap());
    assert_eq!(answer(posted, FIFO, 0), (1, 3));
    assert_eq!(answer(posted, ORDER, 1), (NEW, NEW));
    let random = |seed| answer(|| posted().policy(Policy::random(seed)), FRAME, 1);
    assert_eq!(seeds(8).map(random).collect::<BTreeSet<_>>(), BTreeSet::from([(NEW, NEW)]));
}

#[test]
fn a_trace_has_each_store_and_what_reaches_the_card() {
    let buffer = Buffer::default();
    answer(
        || {
            let bench = bench();
            let symbols = bench.symbols();
            bench.reader(Flow::new(Sink::new(buffer.clone()), symbols))
        },
        FIFO,
        0,
    );
    let text = buffer.text();
    let of = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!((of(", to be combined"), of("write bench#0 FIFO ← 00000003")), (3, 1), "{text}");
}

/// All schedules with at most two preemptions, or so many.
const BOUNDS: Bounds = Bounds {
    preemptions: 2,
    schedules: 20_000,
    faults: false,
    shared: true,
    cuts: true,
    instructions: false,
    policy: None,
};

/// A script in which the request answers this.
fn wanted(code: u32, careful: u32, answer: u64) -> String {
    format!(
        r"open \\.\DirqlCombine as f
        ioctl f {code:#x} in u32:{careful} out 8 expect u64:{answer}
        close f"
    )
}

fn broken(report: &Report) -> bool {
    report.outcome() != Outcome::Clean
}

const WHOLE_FRAME: u64 = (NEW as u64) << 32 | NEW as u64;

#[test]
fn a_search_finds_each_misuse_and_nothing_in_its_twin() {
    for (code, right) in [(ORDER, WHOLE_FRAME), (FRAME, WHOLE_FRAME), (FIFO, 1 << 32 | 3)] {
        for careful in [0, 1] {
            let play = ScriptText::typed(&wanted(code, careful, right)).play().unwrap();
            let bench = bench().processors(1).unobserved();
            let searched = bench.search(&play, &BOUNDS, broken).unwrap_or_else(|error| panic!("{error}"));
            let is_found = code != FRAME && careful == 0;
            assert!(searched.found.is_some() == is_found, "{code:#x} {careful}");
            assert!(is_found || searched.complete, "{code:#x} {careful}");
        }
    }
}

/// It takes two: the thread begins on its creator's processor, and to switch there empties the buffers.
#[test]
fn a_search_with_two_preemptions_finds_the_processor_that_rings_for_another_by_a_flag() {
    let search = |preemptions| {
        let play = ScriptText::typed(&wanted(OTHER, 0, WHOLE_FRAME)).play().unwrap();
        let bounds = Bounds { preemptions, ..BOUNDS };
        bench().unobserved().search(&play, &bounds, broken).unwrap_or_else(|error| panic!("{error}"))
    };
    let [one, two] = [1, 2].map(search);
    assert!(one.found.is_none() && one.complete);
    assert!(two.found.is_some());
}
