//! Stories of message-signaled interrupts: `message.sys` on the `bench` card, from what the INF allows to what the service
//! routine is called with. The driver checks what Windows promises of the routine while it runs, and tells what it found.

use std::path::PathBuf;

use dirql::explore::Policy;
use dirql::{Bench, Machine, Outcome, Platform, Report};

use super::rig::{self, driver, start};

const RAISE: u32 = 0x0022_6400;
const STATE: u32 = 0x0022_6404;

const MSI_SUPPORTED: &str = "MSISupported,0x00010001,1";
const LIMIT: &str = "MessageNumberLimit,0x00010001,2048";
const POLICY: &str = "DevicePolicy,0x00010001,0";
const OVERRIDE: &str = "AssignmentSetOverride,0x00010001,0";
const PRIORITY: &str = "DevicePriority,0x00010001,0";
const CONNECT: &str = "HKR,,Connect,0x00010001,3";
const KEEP: &str = "HKR,,Keep,0x00010001,0";
const PROCESSORS: &str = "HKR,,Processors,0x00010001,0";
const OWN_LOCK: &str = "HKR,,OwnLock,0x00010001,0";
const PASSIVE: &str = "HKR,,Passive,0x00010001,0";
const RAW: &str = "HKR,,Raw,0x00010001,0";

/// Versions of `IO_CONNECT_INTERRUPT_PARAMETERS`.
const FULLY_SPECIFIED: u32 = 1;
const LINE_BASED: u32 = 2;
const MESSAGE_BASED: u32 = 3;
const MESSAGE_BASED_PASSIVE: u32 = 5;

/// The driver's INF with some settings changed: the last number of each line.
fn inf(name: &str, changes: &[(&str, u32)]) -> PathBuf {
    rig::changed_inf(name, "message.inf", |mut text| {
        for (line, value) in changes {
            let (head, _) = line.rsplit_once(',').unwrap();
            assert!(text.contains(line), "the INF has `{line}`");
            text = text.replace(line, &format!("{head},{value}"));
        }
        text
    })
}

fn bench(name: &str, card: &str, changes: &[(&str, u32)]) -> Bench {
    Bench::new().driver(driver("message.sys")).inf(inf(name, changes)).device(card)
}

/// A platform that gives a device so many messages at most.
fn platform(messages: u32) -> Platform {
    Platform { messages, ..Platform::default() }
}

/// What the driver has seen: `MESSAGE_STATE`.
struct State(Vec<u8>);

impl State {
    fn of(machine: &Machine) -> Self {
        let file = machine.open(r"\\.\Message").unwrap();
        let state = file.device_control(STATE, &[], 0xCC).unwrap();
        file.close().unwrap();
        Self(state)
    }

    fn at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.0[offset..offset + 4].try_into().unwrap())
    }

    fn connected(&self) -> (u32, u32, u32) {
        (self.at(0), self.at(4), self.at(8))
    }

    /// How often the routine was called, by message.
    fn served(&self, count: usize) -> Vec<u32> {
        (0..count).map(|message| self.at(0x40 + message * 4)).collect()
    }
}

/// Raises sources and waits until all have been served.
fn raise(machine: &Machine, sources: u32) {
    let file = machine.open(r"\\.\Message").unwrap();
    file.device_control(RAISE, &sources.to_le_bytes(), 0).unwrap();
    file.close().unwrap();
}

/// Carries out a story that the driver checks itself.
fn tell(machine: &Machine, story: &str, checks: u32) {
    let made = rig::checks_made(machine, r"\\.\Message", story, &[]);
    let made = made.unwrap_or_else(|why| panic!("{story}: {why}"));
    assert!(made >= checks, "{story}: only {made} checks were made");
}

/// What came of a machine that a story ends.
fn ends(machine: Machine, story: &str) -> Report {
    let file = machine.open(r"\\.\Message").unwrap();
    let _ended = file.device_control(rig::TELL_STORY, story.as_bytes(), 8);
    machine.finish()
}

fn finish(machine: Machine) -> Report {
    if machine.is_ready() {
        assert_eq!(
            State::of(&machine).at(0x34),
            0,
            "the routine found faults:\n  {}",
            machine.prints().join("\n  ")
        );
    }
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    report
}

/// Holds: interrupts/service-or-message, interrupts/version-message-based
/// Holds: interrupts/version-left-message-based, interrupts/message-device, interrupts/message-routine
/// Holds: interrupts/message-table, interrupts/resource-descriptors
#[test]
fn msi_is_asked_for_by_one_descriptor_and_given_by_one_pair_with_its_count() {
    let machine = start(|| bench("msi", "bench,msi=4", &[]));
    let state = State::of(&machine);
    assert_eq!(
        (state.at(0x0C), state.at(0x10), state.at(0x14)),
        (1, 4, 2),
        "one descriptor, and a list for the line"
    );
    assert_eq!(
        (state.at(0x18), state.at(0x1C), state.at(0x20)),
        (1, 3, 4),
        "LATCHED | MESSAGE, and its count"
    );
    assert_eq!((state.at(0x24), state.at(0x28)), (3, 0x38), "the level is the vector's upper half");
    assert_eq!(state.connected(), (MESSAGE_BASED, 3, 4), "all on one level");
    tell(&machine, "TableIsTrue", 30);
    raise(&machine, 0b1010);
    assert_eq!(State::of(&machine).served(4), [0, 1, 0, 1], "each routine call gets its message");
    let report = finish(machine);
    assert_eq!(report.sums.interrupts, (2, 0), "{report}");
}

/// Holds: interrupts/version-left-message-based, interrupts/message-device, interrupts/message-level
/// Holds: interrupts/message-table, interrupts/resource-descriptors
/// Holds: irql/of-a-device
#[test]
fn msi_x_is_asked_for_and_given_one_by_one_and_runs_at_the_unified_level() {
    let machine = start(|| bench("msix", "bench,msix=8", &[]));
    let state = State::of(&machine);
    assert_eq!((state.at(0x0C), state.at(0x10), state.at(0x14)), (8, 1, 2), "a descriptor for each");
    assert_eq!((state.at(0x18), state.at(0x1C), state.at(0x20)), (8, 3, 1));
    assert_eq!(state.connected(), (MESSAGE_BASED, 10, 8), "levels 3 to 10: the unified one is the highest");
    tell(&machine, "TableIsTrue", 80);
    raise(&machine, 0xFF);
    assert_eq!(State::of(&machine).served(8), [1; 8]);
    finish(machine);
}

/// Holds: interrupts/full-lock, interrupts/message-lock, interrupts/message-lock-synchronizes
#[test]
fn a_masked_message_pends_and_a_raised_level_or_the_lock_holds_it_back() {
    for (name, own_lock) in [("masked", 0), ("own-lock", 1)] {
        let machine = start(|| bench(name, "bench,msix=4", &[(OWN_LOCK, own_lock)]));
        tell(&machine, "MaskedPends", 2);
        tell(&machine, "HeldBack", 6);
        finish(machine);
    }
}

/// Holds: interrupts/disconnect-waits, interrupts/message-connection
#[test]
fn after_disconnecting_nothing_is_served_and_what_pends_comes_with_the_next_connection() {
    for (name, card) in
        [("again-x", "bench,msix=4"), ("again", "bench,msi=4"), ("again-32", "bench,msi=2,msi32,nomask")]
    {
        let machine = start(|| bench(name, card, &[]));
        tell(&machine, "Reconnect", 4);
        finish(machine);
    }
}

/// Holds: interrupts/refused-version, interrupts/refused-parameter, interrupts/not-found
/// Holds: interrupts/one-line-of-many, interrupts/full-device, interrupts/full-mode
/// Holds: interrupts/full-no-processor
#[test]
fn every_documented_refusal_has_its_status_and_connects_nothing() {
    let machine = start(|| bench("refused", "bench,msi=2", &[]));
    tell(&machine, "Refused", 10);
    raise(&machine, 3);
    finish(machine);
}

/// Holds: interrupts/full-share
#[test]
fn a_vector_that_is_shared_calls_both_routines_of_a_message() {
    let machine = start(|| bench("shared", "bench,msix=2", &[]));
    tell(&machine, "TwiceOnOneVector", 3);
    finish(machine);
}

/// Holds: interrupts/version-fully-specified
#[test]
fn each_vector_can_be_connected_for_itself_latched() {
    for (name, card) in [("full-msi", "bench,msi=4"), ("full-msix", "bench,msix=4")] {
        let machine = start(|| bench(name, card, &[(CONNECT, FULLY_SPECIFIED)]));
        raise(&machine, 0b1101);
        let state = State::of(&machine);
        assert_eq!(state.connected(), (FULLY_SPECIFIED, 0, 4));
        assert_eq!(state.served(4), [1, 0, 1, 1]);
        finish(machine);
    }
}

/// Holds: interrupts/one-line-of-many, interrupts/version-line-based, interrupts/line-level
#[test]
fn one_line_cannot_stand_for_several_messages_but_for_a_single_one() {
    let machine = start(|| bench("line-of-many", "bench,msi=2", &[(CONNECT, LINE_BASED)]));
    assert!(!machine.is_ready());
    assert!(machine.prints().iter().any(|line| line.contains("c0000010")), "STATUS_INVALID_DEVICE_REQUEST");
    let _refused = machine.finish();
    let machine = start(|| bench("line-of-one", "bench,msi=1", &[(CONNECT, LINE_BASED)]));
    raise(&machine, 1);
    assert_eq!(State::of(&machine).served(1), [1]);
    finish(machine);
}

/// Holds: interrupts/service-or-message, interrupts/not-found, interrupts/version-message-based
/// Holds: interrupts/version-left-line-based, interrupts/message-connection, interrupts/message-fall-back
/// Holds: interrupts/message-fall-back-context, interrupts/resource-inf
#[test]
fn without_msi_supported_in_the_inf_the_device_has_its_line_and_the_driver_falls_back() {
    let cards = ["bench,msi=4", "bench,msix=4", "bench"];
    for (name, card) in ["unsupported", "unsupported-x", "no-messages"].into_iter().zip(cards) {
        let supported = u32::from(card == "bench");
        let machine = start(|| bench(name, card, &[(MSI_SUPPORTED, supported)]));
        let state = State::of(&machine);
        assert_eq!((state.at(0x0C), state.at(0x14), state.at(0x1C)), (1, 1, 0), "one level-sensitive line");
        assert_eq!(state.connected().0, LINE_BASED, "Version says what was connected");
        tell(&machine, "LineOnly", 3);
        raise(&machine, 0b11);
        finish(machine);
    }
}

/// Holds: interrupts/resource-inf
#[test]
fn the_inf_limits_what_is_asked_for_and_the_machine_what_is_given() {
    let machine = start(|| bench("limit", "bench,msi=8", &[(LIMIT, 2)]));
    assert_eq!((State::of(&machine).at(0x10), State::of(&machine).at(8)), (2, 2));
    raise(&machine, 0b1111_1111);
    finish(machine);

    let machine = start(|| bench("fewer", "bench,msi=8", &[]).platform(platform(3)));
    let state = State::of(&machine);
    assert_eq!((state.at(0x10), state.at(0x20), state.at(8)), (8, 2, 2), "a power of two");
    raise(&machine, 0b1111_1111);
    finish(machine);

    let machine = start(|| bench("fewer-x", "bench,msix=8", &[]).platform(platform(3)));
    let state = State::of(&machine);
    assert_eq!((state.at(0x0C), state.at(0x18), state.at(8)), (8, 3, 3));
    raise(&machine, 0b111);
    finish(machine);

    let machine = start(|| bench("none-left", "bench,msix=8", &[]).platform(platform(0)));
    assert_eq!(State::of(&machine).connected().0, LINE_BASED, "the second list: the line");
    raise(&machine, 1);
    finish(machine);
}

/// Holds: interrupts/resource-filter
#[test]
fn a_driver_filters_its_requirements_for_count_and_processors() {
    for (name, card, flags) in [("keep", "bench,msi=8", 2), ("keep-x", "bench,msix=8", 3)] {
        let changes = [(KEEP, flags), (PROCESSORS, 2)];
        let machine = start(|| bench(name, card, &changes).processors(4));
        let state = State::of(&machine);
        assert_eq!((state.at(8), state.at(0x2C)), (flags, 2), "so many messages, on the second processor");
        tell(&machine, "TableIsTrue", 18);
        raise(&machine, 0b11);
        finish(machine);
    }
}

/// Holds: interrupts/resource-filter
#[test]
fn the_inf_says_which_processors_and_how_urgent() {
    let specified = [(POLICY, 4), (OVERRIDE, 0b1010)];
    let low = [(PRIORITY, 1)];
    let high = [(PRIORITY, 3)];
    let spread = [(POLICY, 5)];
    for (name, card, changes, level, affinity) in [
        ("policy-msi", "bench,msi=4", &specified[..], 3, 0b1010),
        ("policy-msix", "bench,msix=4", &specified[..], 3, 0b1010),
        ("policy-line", "bench", &specified[..], 11, 0b1010),
        ("policy-low", "bench,msix=1", &low[..], 3, 0b1111),
        ("policy-high", "bench,msix=1", &high[..], 12, 0b1111),
        ("policy-spread", "bench,msix=4", &spread[..], 3, 0b0001),
    ] {
        let machine = start(|| bench(name, card, changes).processors(4));
        let state = State::of(&machine);
        assert_eq!((state.at(0x24), state.at(0x2C)), (level, affinity), "{name}: level and processors");
        raise(&machine, 0b1);
        finish(machine);
    }
}

#[test]
fn a_stopped_device_starts_again_with_its_messages() {
    let machine = start(|| bench("stopped", "bench,msix=4", &[]));
    raise(&machine, 0b11);
    rig::play(&machine, "stop-device; start-device");
    raise(&machine, 0b11);
    assert_eq!(State::of(&machine).served(2), [2, 2]);
    tell(&machine, "TableIsTrue", 40);
    finish(machine);
}

/// Holds: interrupts/message-routine
#[test]
fn a_message_from_outside_is_served_too() {
    let machine = start(|| bench("poked", "bench,msi=4", &[]));
    rig::play(&machine, "poke bench#0 raise 2; wait 10us");
    assert_eq!(State::of(&machine).served(4), [0, 0, 1, 0]);
    finish(machine);
}

/// Holds: interrupts/message-lock
#[test]
fn random_schedules_on_several_processors_keep_what_is_promised_of_the_routine() {
    for seed in rig::seeds(40) {
        let (card, connect) = match seed % 4 {
            0 => ("bench,msi=4", MESSAGE_BASED),
            1 => ("bench,msix=4", MESSAGE_BASED),
            2 => ("bench,msix=4", FULLY_SPECIFIED),
            _ => ("bench,msi=4,nomask", MESSAGE_BASED),
        };
        let machine =
            start(|| bench("random", card, &[(CONNECT, connect)]).processors(3).policy(Policy::random(seed)));
        rig::play(
            &machine,
            r"open \\.\Message as one; open \\.\Message as two
            a: ioctl one 0x226400 in hex:0f000000
            b: ioctl two 0x226400 in hex:06000000
            join a; join b
            close one; close two",
        );
        let served = State::of(&machine).served(4);
        // Messages that come while one pends are one with it; the two raises never overlap.
        assert_eq!(served, [1, 2, 2, 1], "seed {seed}");
        finish(machine);
    }
}

/// Holds: interrupts/early
#[test]
fn random_schedules_let_a_pending_message_in_before_the_connection_is_known() {
    let mut early = 0;
    for seed in 0..30 {
        let machine = start(|| bench("early", "bench,msix=4", &[]).policy(Policy::random(seed)));
        tell(&machine, "Reconnect", 4);
        early += State::of(&machine).at(0x30);
        finish(machine);
    }
    assert!(
        (1..30).contains(&early),
        "sometimes the routine runs before IoConnectInterruptEx returns: {early}"
    );
}

// ---- routines at PASSIVE_LEVEL ----

/// A way to connect: its name, the card, whether its lines are relayed, and the settings.
type Way = (&'static str, &'static str, bool, Vec<(&'static str, u32)>);

/// Each way to have the routine at PASSIVE_LEVEL.
fn passive_ways() -> Vec<Way> {
    let only_line = (MSI_SUPPORTED, 0);
    vec![
        ("p-line-full", "bench", false, vec![only_line, (CONNECT, FULLY_SPECIFIED), (PASSIVE, 1)]),
        ("p-relayed-full", "bench", true, vec![only_line, (CONNECT, FULLY_SPECIFIED), (PASSIVE, 1)]),
        ("p-relayed-line", "bench", true, vec![only_line, (CONNECT, LINE_BASED)]),
        ("p-relayed-fall-back", "bench", true, vec![only_line]),
        ("p-msi", "bench,msi=4", false, vec![(CONNECT, MESSAGE_BASED_PASSIVE)]),
        ("p-msix", "bench,msix=4", false, vec![(CONNECT, MESSAGE_BASED_PASSIVE)]),
        ("p-fall-back", "bench", false, vec![only_line, (CONNECT, MESSAGE_BASED_PASSIVE)]),
        ("p-vectors", "bench,msix=4", false, vec![(CONNECT, FULLY_SPECIFIED), (PASSIVE, 1)]),
    ]
}

fn relayed(relayed_lines: bool) -> Platform {
    Platform { relayed_lines, ..Platform::default() }
}

/// Holds: interrupts/full-passive, interrupts/line-passive, interrupts/passive-thread
#[test]
fn a_routine_at_passive_level_runs_on_a_thread_may_wait_and_serves_every_kind_of_interrupt() {
    for (name, card, lines, changes) in passive_ways() {
        let machine = start(|| bench(name, card, &changes).platform(relayed(lines)));
        raise(&machine, 0b11);
        raise(&machine, 0b01);
        let state = State::of(&machine);
        assert!(state.at(0xC4) >= 2, "{name}: the routine has run");
        assert_eq!(state.at(4), 0, "{name}: UnifiedIrql");
        let version = state.at(0);
        let expected = match name {
            "p-msi" | "p-msix" => MESSAGE_BASED_PASSIVE,
            "p-relayed-line" | "p-relayed-fall-back" | "p-fall-back" => LINE_BASED,
            _ => FULLY_SPECIFIED,
        };
        assert_eq!(version, expected, "{name}: what was connected");
        assert_eq!(state.at(0x24) == 0, lines, "{name}: a relayed line has PASSIVE_LEVEL");
        finish(machine);
    }
}

/// Holds: interrupts/passive-synchronize
#[test]
fn ke_synchronize_execution_keeps_a_routine_at_passive_level_out_by_an_event() {
    for (name, card, lines, changes) in passive_ways() {
        let machine = start(|| bench(name, card, &changes).platform(relayed(lines)));
        tell(&machine, "PassiveSynchronized", 4);
        finish(machine);
    }
}

/// Holds: interrupts/passive-registered, interrupts/passive-spin-lock
#[test]
fn a_routine_at_passive_level_has_no_spin_lock_and_no_other_level() {
    for (name, card, lines, changes) in passive_ways() {
        let machine = start(|| bench(name, card, &changes).platform(relayed(lines)));
        tell(&machine, "PassiveRefused", 6);
        raise(&machine, 1);
        finish(machine);
    }
    let machine = start(|| bench("p-spin-lock", "bench,msi=2", &[(CONNECT, MESSAGE_BASED_PASSIVE)]));
    let report = ends(machine, "SpinLockOfAPassiveOne");
    assert_eq!(report.expect_verdict().rule, "passive-interrupt-spin-lock", "{report}");
}

/// Holds: interrupts/full-passive, interrupts/passive-registered
#[test]
fn before_windows_8_there_are_no_routines_at_passive_level() {
    let windows = dirql::windows::parse("7").unwrap();
    for (connect, passive, status) in
        [(MESSAGE_BASED_PASSIVE, 0, "c00000ef"), (FULLY_SPECIFIED, 1, "c000000d")]
    {
        let changes = [(CONNECT, connect), (PASSIVE, passive)];
        let inf = inf("p-seven", &changes);
        let for_ten = std::fs::read_to_string(&inf).unwrap();
        std::fs::write(&inf, for_ten.replace("NTamd64.10.0...16299", "NTamd64")).unwrap();
        let bench = || Bench::new().driver(driver("message.sys")).inf(&inf).device("bench,msix=4");
        let machine = start(|| bench().windows(windows));
        assert!(!machine.is_ready());
        assert!(machine.prints().iter().any(|line| line.contains(status)), "{:?}", machine.prints());
        let _refused = machine.finish();
    }
}

/// Holds: interrupts/disconnect-waits
#[test]
fn disconnecting_waits_for_a_routine_that_runs() {
    for (name, card, lines, changes) in passive_ways() {
        for seed in 0..6 {
            let platform = relayed(lines);
            let policy = if seed == 0 { Policy::default() } else { Policy::random(seed) };
            let machine =
                start(|| bench(name, card, &changes).platform(platform).processors(2).policy(policy));
            tell(&machine, "DisconnectedWhileItRuns", 3);
            finish(machine);
        }
    }
    for (name, card) in [("gone-msi", "bench,msi=4"), ("gone-msix", "bench,msix=4"), ("gone-line", "bench")] {
        for seed in 1..6 {
            let changes = [(MSI_SUPPORTED, u32::from(card != "bench"))];
            let machine = start(|| bench(name, card, &changes).processors(2).policy(Policy::random(seed)));
            tell(&machine, "DisconnectedWhileItRuns", 3);
            finish(machine);
        }
    }
}

/// Holds: interrupts/passive-thread
#[test]
fn random_schedules_keep_a_routine_at_passive_level_from_overlapping_itself() {
    for (name, card, lines, changes) in passive_ways() {
        for seed in rig::seeds(5) {
            let machine = start(|| {
                bench(name, card, &changes)
                    .platform(relayed(lines))
                    .processors(3)
                    .policy(Policy::random(seed))
            });
            rig::play(
                &machine,
                r"open \\.\Message as one; open \\.\Message as two
                a: ioctl one 0x226400 in hex:03000000
                b: ioctl two 0x226400 in hex:01000000
                join a; join b
                close one; close two",
            );
            finish(machine);
        }
    }
}

// ---- other platforms, and routines that are not called for a while ----

/// Holds: interrupts/version-left-fully-specified
#[test]
fn a_platform_that_knows_only_fully_specified_says_so_and_the_driver_tries_again() {
    let only = Platform { fully_specified: true, ..Platform::default() };
    for (name, card, connect) in [
        ("only-msi", "bench,msi=4", MESSAGE_BASED),
        ("only-msix", "bench,msix=4", MESSAGE_BASED),
        ("only-passive", "bench,msix=4", MESSAGE_BASED_PASSIVE),
        ("only-line", "bench", LINE_BASED),
    ] {
        let changes = [(CONNECT, connect), (MSI_SUPPORTED, u32::from(card != "bench"))];
        // The driver retries at the level of the vectors.
        let connect = if connect == MESSAGE_BASED_PASSIVE { continue } else { connect };
        let machine = start(|| bench(name, card, &changes).platform(only));
        let state = State::of(&machine);
        assert_eq!((state.at(0), state.at(0xC0)), (FULLY_SPECIFIED, 1), "{name}: connect {connect}");
        raise(&machine, 0b1);
        finish(machine);
    }
}

/// Holds: interrupts/before-vista
#[test]
fn a_driver_that_imports_io_connect_interrupt_ex_cannot_be_used_before_vista() {
    let before = Platform { before_vista: true, ..Platform::default() };
    let machine =
        start(|| bench("vista", "bench", &[(MSI_SUPPORTED, 0), (CONNECT, LINE_BASED)]).platform(before));
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "export-too-new", "{report}");
    assert!(
        verdict.message.contains("IoConnectInterruptEx") && verdict.message.contains("Vista"),
        "{report}"
    );
}

/// Holds: interrupts/message-storm
#[test]
fn a_routine_whose_every_call_sends_the_next_message_is_a_storm() {
    for (name, processors) in [("storm", 1), ("storm-2", 2)] {
        let machine = start(|| bench(name, "bench,msi=4", &[]).processors(processors));
        let report = ends(machine, "SignalsItself");
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, "interrupt-storm", "{report}");
        assert_eq!(verdict.bug_check.as_ref().map(|check| check.code), Some(0x133), "{report}");
        assert!(verdict.message.contains("by message"), "{report}");
    }
}

/// Holds: interrupts/inactive
#[test]
fn an_inactive_routine_is_not_called_until_it_is_active_again() {
    let mut ways = passive_ways();
    ways.push(("i-msi", "bench,msi=4", false, vec![]));
    ways.push(("i-msix", "bench,msix=4", false, vec![]));
    ways.push(("i-line", "bench", false, vec![(MSI_SUPPORTED, 0)]));
    for (name, card, lines, changes) in ways {
        let machine = start(|| bench(name, card, &changes).platform(relayed(lines)));
        tell(&machine, "Inactive", 3);
        finish(machine);
    }
    let machine = start(|| bench("i-wrong", "bench,msi=4", &[]));
    let report = ends(machine, "InactiveByTheWrongContext");
    assert_eq!(report.expect_verdict().rule, "interrupt-not-connected", "{report}");
}

/// Holds: interrupts/resource-raw
/// Not: io-space-raw-address
#[test]
fn raw_addresses_are_the_translated_ones_until_they_are_not() {
    let shifted = Platform { shifted_bus: true, ..Platform::default() };
    let machine = start(|| bench("shifted", "bench,msix=4", &[]).platform(shifted));
    raise(&machine, 0b11);
    tell(&machine, "TableIsTrue", 30);
    finish(machine);

    let machine = start(|| bench("raw", "bench,msix=4", &[(RAW, 1)]).platform(shifted));
    assert!(!machine.is_ready(), "the identification reads as ones");
    let report = machine.finish();
    assert_ne!(report.outcome(), Outcome::Clean);
    let finding = report.findings.iter().find(|finding| finding.rule == "io-space-raw-address");
    let message = &finding.unwrap_or_else(|| panic!("{report}")).message;
    assert!(message.contains("AllocatedResourcesTranslated"), "{message}");
}

// ---- member by member ----

/// Holds: interrupts/full-object, interrupts/full-routine, interrupts/full-context, interrupts/full-lock
/// Holds: interrupts/full-level, interrupts/full-level-of-a-set, interrupts/full-floating
/// Holds: interrupts/full-share, interrupts/full-share-message, interrupts/full-vector, interrupts/full-irql
/// Holds: interrupts/full-no-processor, interrupts/full-group
#[test]
fn every_member_of_the_parameters_is_honoured_or_refused() {
    for (seed, processors) in [(None, 1), (None, 4), (Some(3), 2)] {
        let machine = start(|| {
            let policy = seed.map_or_else(Policy::default, Policy::random);
            bench("members", "bench,msix=4", &[]).processors(processors).policy(policy)
        });
        tell(&machine, "Members", 20);
        let report = finish(machine);
        let advice = report.findings.iter().filter(|finding| finding.rule == "floating-save");
        assert_eq!(advice.count(), 1, "for the one instruction that connects: {report}");
    }
}

/// Holds: interrupts/disconnect-unconnected, interrupts/full-mode
#[test]
fn a_line_has_one_mode_and_a_foreign_pointer_disconnects_nothing() {
    let machine = start(|| bench("modes", "bench", &[(MSI_SUPPORTED, 0)]));
    let report = ends(machine, "LineModes");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "interrupt-not-connected", "{report}");
}

/// One processor, several, and several where others come in between.
const COMPUTERS: [(Option<u64>, u32); 4] = [(None, 1), (None, 4), (Some(3), 2), (Some(8), 2)];

/// A machine in which the members of one form are tried; its report, which has so many findings of advice.
fn members(name: &str, card: &str, changes: &[(&str, u32)], story: (&str, u32), advice: (&str, usize)) {
    for (seed, processors) in COMPUTERS {
        let machine = start(|| {
            let policy = seed.map_or_else(Policy::default, Policy::random);
            bench(name, card, changes).processors(processors).policy(policy)
        });
        tell(&machine, story.0, story.1);
        let report = finish(machine);
        let found = report.findings.iter().filter(|finding| finding.rule == advice.0);
        assert_eq!(found.count(), advice.1, "{report}");
    }
}

/// Holds: interrupts/one-parameter, interrupts/message-union, interrupts/message-routine
/// Holds: interrupts/message-context, interrupts/message-fall-back-unused, interrupts/message-lock
/// Holds: interrupts/message-lock-synchronizes, interrupts/message-level, interrupts/message-floating
#[test]
fn every_member_of_a_message_based_connection_counts() {
    members("members-message", "bench,msix=4", &[], ("MessageBasedMembers", 12), ("floating-save", 1));
}

/// Holds: interrupts/service-or-message, interrupts/one-parameter, interrupts/version-line-based
/// Holds: interrupts/full-device, interrupts/line-device, interrupts/line-object, interrupts/line-routine
/// Holds: interrupts/line-context, interrupts/line-lock, interrupts/line-level, interrupts/line-floating
/// Not: passive-interrupt-spin-lock
#[test]
fn every_member_of_a_line_based_connection_counts() {
    let only_line = [(MSI_SUPPORTED, 0)];
    members("members-line", "bench", &only_line, ("LineBasedMembers", 9), ("floating-save", 1));
}

/// Holds: interrupts/full-share-line
#[test]
fn a_line_that_is_not_to_be_shared_is_connected_and_advised_against() {
    let only_line = [(MSI_SUPPORTED, 0)];
    members("members-share", "bench", &only_line, ("LineNotShared", 2), ("line-not-shared", 1));
}

/// Holds: interrupts/full-lock-initialized
#[test]
fn a_spin_lock_that_nobody_initialized_is_told_when_the_routine_wants_it() {
    let machine = start(|| bench("members-lock", "bench,msix=4", &[]));
    let report = ends(machine, "LockThatIsNone");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "spin-lock-damaged", "{report}");
    assert!(verdict.message.contains("never initialised"), "{report}");
}

/// Holds: interrupts/full-level-of-a-set
#[test]
fn two_vectors_with_one_lock_and_two_levels_spin_for_ever() {
    let machine = start(|| bench("members-levels", "bench,msix=4", &[]));
    let report = ends(machine, "OneLockTwoLevels");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "spin-lock-recursion", "{report}");
}

/// Holds: interrupts/full-processors
#[test]
fn a_routine_runs_on_each_processor_of_its_mask_and_on_no_other() {
    members("members-processors", "bench,msix=4", &[], ("EachProcessor", 5), ("none", 0));
    for (name, card) in
        [("where-msi", "bench,msi=4"), ("where-msix", "bench,msix=4"), ("where-line", "bench")]
    {
        let changes = [(POLICY, 4), (OVERRIDE, 0b1010), (MSI_SUPPORTED, u32::from(card != "bench"))];
        let mut ran = 0;
        for seed in 1..=12 {
            let machine = start(|| bench(name, card, &changes).processors(4).policy(Policy::random(seed)));
            raise(&machine, 0b1);
            raise(&machine, 0b1);
            ran |= State::of(&machine).at(0xC8);
            finish(machine);
        }
        assert_eq!(ran, 0b1010, "{name}: on both in some schedules, and on no other in any");
    }
}

/// Holds: interrupts/not-found
#[test]
fn a_device_without_an_interrupt_has_none_to_connect() {
    for connect in [LINE_BASED, MESSAGE_BASED, MESSAGE_BASED_PASSIVE] {
        let machine = start(|| bench("none", "bench,pin=none", &[(CONNECT, connect)]));
        assert!(!machine.is_ready());
        let printed = machine.prints().iter().any(|line| line.contains("c0000225"));
        assert!(printed, "STATUS_NOT_FOUND: {:?}", machine.prints());
        let _refused = machine.finish();
    }
}
