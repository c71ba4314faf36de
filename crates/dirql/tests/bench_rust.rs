//! Stories of `bench_rust.sys`, a driver in Rust, on the `bench` card: its messages connected all at once, all at once at
//! PASSIVE_LEVEL, and each vector for itself; what each promises of its routines, in random schedules too.

use std::path::PathBuf;

use dirql::explore::Policy;
use dirql::{Bench, Machine, Platform};

use super::rig::{self, driver, finish, play, start};

const RAISE: u32 = 0x0022_2400;
const STATE: u32 = 0x0022_2404;
const HOLD: u32 = 0x0022_2408;

/// Versions of `IO_CONNECT_INTERRUPT_PARAMETERS`.
const FULLY_SPECIFIED: u32 = 1;
const LINE_BASED: u32 = 2;
const MESSAGE_BASED: u32 = 3;
const MESSAGE_BASED_PASSIVE: u32 = 5;

/// Two threads that raise sources of their own, and some of both.
const TWO_RAISERS: &str = r"open \\.\BenchRust-0 as one; open \\.\BenchRust-0 as two
    a: ioctl one 0x222400 in hex:0f000000
    b: ioctl two 0x222400 in hex:06000000
    join a; join b
    close one; close two";

/// The driver's INF, which says how to connect, and whether there are messages.
fn inf(story: &str, connect: u32, messages: bool) -> PathBuf {
    rig::changed_inf(story, "bench_rust.inf", |mut text| {
        for (setting, value) in
            [("Connect,0x00010001,3", connect), ("MSISupported,0x00010001,1", messages.into())]
        {
            assert!(text.contains(setting));
            let (head, _) = setting.rsplit_once(',').unwrap();
            text = text.replace(setting, &format!("{head},{value}"));
        }
        text
    })
}

fn bench(story: &str, card: &str, connect: u32) -> Bench {
    Bench::new().driver(driver("bench_rust.sys")).inf(inf(story, connect, true)).device(card)
}

/// What the driver answers: see its `Counted`.
struct Counted {
    version: u32,
    connections: u32,
    level: u32,
    /// The most routines that ran at once.
    most: u32,
    passed: u32,
    /// What the routines counted in states of their own.
    own: u32,
    served: Vec<u32>,
}

fn counted(machine: &Machine) -> Counted {
    let file = machine.open(r"\\.\BenchRust-0").unwrap();
    let words = file.device_control(STATE, &[], 56).unwrap();
    file.close().unwrap();
    let word = |index: usize| u32::from_le_bytes(words[index * 4..index * 4 + 4].try_into().unwrap());
    let served = (6..14).map(word).collect();
    Counted {
        version: word(0),
        connections: word(1),
        level: word(2),
        most: word(3),
        passed: word(4),
        own: word(5),
        served,
    }
}

/// Raises sources and waits until all have been served.
fn raise(machine: &Machine, sources: u32) {
    let file = machine.open(r"\\.\BenchRust-0").unwrap();
    file.device_control(RAISE, &sources.to_le_bytes(), 0).unwrap();
    file.close().unwrap();
}

/// Keeps the routine of connection `whose` out and raises a source: how often it was served until that ended.
fn served_while_held(machine: &Machine, whose: u32, source: u32) -> u32 {
    let file = machine.open(r"\\.\BenchRust-0").unwrap();
    let input: Vec<u8> = [whose, source].into_iter().flat_map(u32::to_le_bytes).collect();
    let served = file.device_control(HOLD, &input, 4).unwrap();
    file.close().unwrap();
    play(machine, "wait 30ms");
    u32::from_le_bytes(served[..4].try_into().unwrap())
}
/// Holds: interrupts/version-left-message-based, interrupts/passive-thread
#[test]
fn a_rust_driver_has_its_messages_at_their_level_or_at_passive_level() {
    for (story, card) in [("msi", "bench,msi=4"), ("msix", "bench,msix=4")] {
        for (connect, at_passive) in [(MESSAGE_BASED, false), (MESSAGE_BASED_PASSIVE, true)] {
            let machine = start(|| bench(story, card, connect));
            let before = machine.now();
            raise(&machine, 0b1010);
            raise(&machine, 0b0010);
            let waited = machine.now() - before >= 3_000_000;
            let counted = counted(&machine);
            assert_eq!(
                (counted.version, counted.connections, counted.level == 0),
                (connect, 4, at_passive),
                "{story}"
            );
            assert_eq!(waited, at_passive, "only a routine at PASSIVE_LEVEL waits, and this one does");
            assert_eq!(counted.served, [0, 2, 0, 1, 0, 0, 0, 0]);
            assert_eq!((counted.own, counted.most, counted.passed), (3, 1, 0));
            play(&machine, "stop-device; start-device");
            raise(&machine, 0b1111);
            finish(machine);
        }
    }
}

/// Holds: interrupts/version-fully-specified, interrupts/full-vector, interrupts/full-context
#[test]
fn a_rust_driver_connects_each_vector_for_itself() {
    for (story, card, highest) in [("each-msi", "bench,msi=4", 3), ("each-msix", "bench,msix=4", 6)] {
        let machine = start(|| bench(story, card, FULLY_SPECIFIED));
        raise(&machine, 0b1101);
        raise(&machine, 0b0100);
        let state = counted(&machine);
        assert_eq!((state.version, state.connections, state.level), (FULLY_SPECIFIED, 4, highest), "{story}");
        assert_eq!(state.served, [1, 0, 2, 1, 0, 0, 0, 0], "each vector has its own state");
        assert_eq!((state.own, state.passed), (4, 0));
        play(&machine, "stop-device; start-device");
        raise(&machine, 0b1111);
        assert_eq!(counted(&machine).own, 4);
        finish(machine);
    }
}

/// Holds: interrupts/passive-synchronize, interrupts/message-lock, interrupts/full-lock
#[test]
fn synchronizing_keeps_out_the_routine_and_of_other_vectors_only_what_its_level_does() {
    for connect in [MESSAGE_BASED, MESSAGE_BASED_PASSIVE] {
        let machine = start(|| bench("held", "bench,msix=4", connect));
        for source in 0..4 {
            assert_eq!(served_while_held(&machine, 0, source), 0, "all messages have one lock");
        }
        assert_eq!(counted(&machine).served[..4], [1; 4], "and come when it is free");
        finish(machine);
    }
    let machine = start(|| bench("held-each", "bench,msix=4", FULLY_SPECIFIED));
    // Levels 3 to 6.
    for (whose, source, served) in [(0, 0, 0), (3, 3, 0), (3, 0, 0), (0, 3, 1), (1, 2, 1)] {
        assert_eq!(
            served_while_held(&machine, whose, source),
            served,
            "source {source} while {whose} is held"
        );
    }
    assert_eq!(counted(&machine).own, 5);
    finish(machine);
}

/// Holds: interrupts/passive-thread, interrupts/message-lock
#[test]
fn random_schedules_keep_a_rust_drivers_messages_apart_and_let_its_vectors_overlap() {
    let mut overlapped = 0;
    for seed in rig::seeds(30) {
        let connect = match seed % 3 {
            0 => MESSAGE_BASED,
            1 => MESSAGE_BASED_PASSIVE,
            _ => FULLY_SPECIFIED,
        };
        let card = if seed % 2 == 0 { "bench,msi=4" } else { "bench,msix=4" };
        let machine = start(|| bench("random", card, connect).processors(3).policy(Policy::random(seed)));
        play(&machine, TWO_RAISERS);
        let state = counted(&machine);
        assert_eq!(state.version, connect);
        assert_eq!(state.served[..4], [1, 2, 2, 1], "seed {seed}");
        assert_eq!(state.own, 6, "seed {seed}: no count of a routine's own is lost");
        if connect == FULLY_SPECIFIED {
            overlapped += u32::from(state.most > 1);
        } else {
            assert_eq!(state.most, 1, "seed {seed}: one routine for all messages");
        }
        finish(machine);
    }
    assert!(overlapped > 0, "routines of several vectors run beside each other in some schedules");
}

/// What it waits for is stored by a plain instruction before the register is written, and the routine on the other processor must see it.
#[test]
fn what_is_stored_before_a_register_is_written_is_seen_by_the_routine_of_its_interrupt() {
    for seed in rig::seeds(40) {
        let machine = start(|| {
            let bench = bench("late_stores", "bench", LINE_BASED).processors(2).policy(Policy::random(seed));
            bench.platform("late-stores".parse().unwrap())
        });
        play(&machine, TWO_RAISERS);
        finish(machine);
    }
}

/// Holds: interrupts/disconnect-waits
#[test]
fn a_bench_card_stopped_or_pulled_out_while_it_interrupts_leaves_nothing_of_the_rust_driver_behind() {
    for connect in [MESSAGE_BASED, MESSAGE_BASED_PASSIVE, FULLY_SPECIFIED] {
        for seed in rig::seeds(6) {
            for end in ["stop-device; start-device", "surprise-remove"] {
                let machine = start(|| {
                    bench("ends", "bench,msix=4", connect).processors(2).policy(Policy::random(seed))
                });
                play(
                    &machine,
                    &format!(
                        r"open \\.\BenchRust-0 as card
                        poke bench#0 raise 0; poke bench#0 raise 2
                        {end}
                        wait 30ms
                        close card"
                    ),
                );
                finish(machine);
            }
        }
    }
}

/// Holds: interrupts/message-fall-back, interrupts/version-left-fully-specified, interrupts/full-passive
#[test]
fn without_messages_the_rust_driver_has_its_line_at_the_level_it_asked_for() {
    let old = Platform { fully_specified: true, ..Platform::default() };
    for (story, platform, version) in
        [("line", Platform::default(), LINE_BASED), ("line-old", old, FULLY_SPECIFIED)]
    {
        for (connect, at_passive) in [(MESSAGE_BASED, false), (MESSAGE_BASED_PASSIVE, true)] {
            let inf = inf(story, connect, false);
            let machine = start(|| {
                let bench = Bench::new().driver(driver("bench_rust.sys")).inf(&inf).device("bench,msix=4");
                bench.platform(platform)
            });
            let before = machine.now();
            raise(&machine, 0b0101);
            assert_eq!(machine.now() - before >= 1_000_000, at_passive, "{story}: the routine waits");
            let counted = counted(&machine);
            assert_eq!(
                (counted.version, counted.connections, counted.level == 0),
                (version, 0, at_passive),
                "{story}"
            );
            assert_eq!((counted.served[0], counted.served[2], counted.most), (1, 1, 1));
            finish(machine);
        }
    }
    let inf = inf("line-each", FULLY_SPECIFIED, false);
    let machine = start(|| Bench::new().driver(driver("bench_rust.sys")).inf(&inf).device("bench,msix=4"));
    assert!(!machine.is_ready(), "it has no vectors of messages");
    let report = machine.finish();
    assert!(report.verdict.is_none(), "{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

/// Holds: interrupts/refused-version
#[test]
fn before_windows_8_the_rust_driver_is_told_that_there_is_no_such_version() {
    let windows = dirql::windows::parse("7").unwrap();
    let inf = inf("seven", MESSAGE_BASED_PASSIVE, true);
    let for_ten = std::fs::read_to_string(&inf).unwrap();
    std::fs::write(&inf, for_ten.replace("NTamd64.10.0...16299", "NTamd64")).unwrap();
    let bench = || Bench::new().driver(driver("bench_rust.sys")).inf(&inf).device("bench,msix=4");
    let machine = start(|| bench().windows(windows));
    assert!(!machine.is_ready());
    let report = machine.finish();
    assert!(report.to_string().contains("STATUS_INVALID_PARAMETER_1"), "{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}
