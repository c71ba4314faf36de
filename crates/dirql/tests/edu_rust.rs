//! Stories of `edu_rust.sys`, a driver in Rust, on the model of QEMU's educational device: its requests end by the card's message
//! or by its line, one after the other, whatever Plug and Play and applications do meanwhile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use std::path::PathBuf;

use dirql::explore::Policy;
use dirql::{Bench, Machine, Platform};
use rig::{driver, finish, play, start};

const FACTORIAL: u32 = 0x0022_3000;
const STATE: u32 = 0x0022_3004;

/// Versions of `IO_CONNECT_INTERRUPT_PARAMETERS`.
const FULLY_SPECIFIED: u32 = 1;
const LINE_BASED: u32 = 2;
const MESSAGE_BASED: u32 = 3;

/// What a story finds: messages, or only the line.
const BOTH: [bool; 2] = [true, false];

/// The driver's INF, which allows messages or does not; `story` has a copy of its own.
fn inf(story: &str, messages: bool) -> PathBuf {
    const SUPPORTED: &str = "MSISupported,0x00010001,1";
    if messages {
        return driver("edu_rust.inf");
    }
    rig::changed_inf(story, "edu_rust.inf", |text| {
        assert!(text.contains(SUPPORTED));
        text.replace(SUPPORTED, "MSISupported,0x00010001,0")
    })
}

fn bench(story: &str, card: &str, messages: bool) -> Bench {
    Bench::new().driver(driver("edu_rust.sys")).inf(inf(story, messages)).device(card)
}

/// What the driver tells: version, messages, level, interrupts, passed on.
fn state(machine: &Machine) -> [u32; 5] {
    let file = machine.open(r"\\.\EduRust-0").unwrap();
    let told = file.device_control(STATE, &[], 20).unwrap();
    file.close().unwrap();
    [0, 4, 8, 12, 16].map(|at| u32::from_le_bytes(told[at..at + 4].try_into().unwrap()))
}
/// Holds: interrupts/version-left-message-based, interrupts/message-fall-back, interrupts/resource-inf
#[test]
fn a_factorial_is_told_to_a_rust_driver_by_a_message_or_by_the_line() {
    for messages in BOTH {
        let machine = start(|| bench("told", "edu,factorial=25us", messages));
        let file = machine.open(r"\\.\EduRust-0").unwrap();
        for (number, product) in [(0_u32, 1_u32), (5, 120), (12, 479_001_600), (13, 0x7328_CC00), (99, 0)] {
            let before = machine.now();
            let answer = file.device_control(FACTORIAL, &number.to_le_bytes(), 4).unwrap();
            assert_eq!(answer, product.to_le_bytes());
            assert!(machine.now() - before >= 25_000, "it takes its time");
        }
        file.close().unwrap();
        let [version, count, level, interrupts, passed] = state(&machine);
        let expected = if messages { (MESSAGE_BASED, 1) } else { (LINE_BASED, 0) };
        assert_eq!((version, count), expected);
        assert!((3..=12).contains(&level), "a device's level: {level}");
        assert_eq!((interrupts, passed), (5, 0), "one for each request");
        let report = finish(machine);
        assert_eq!(report.sums.interrupts, (5, 0), "{report}");
    }
}

#[test]
fn what_the_rust_driver_cannot_use_it_refuses() {
    let machine = start(|| bench("refused", "edu", true));
    play(
        &machine,
        r"open \\.\EduRust-0 as card
        ioctl card 0x223000 in u32:5 out 3 expect STATUS_BUFFER_TOO_SMALL
        ioctl card 0x223000 in hex:050000 out 4 expect STATUS_BUFFER_TOO_SMALL
        ioctl card 0x223004 out 19 expect STATUS_BUFFER_TOO_SMALL
        ioctl card 0x223008 out 4 expect STATUS_INVALID_DEVICE_REQUEST
        read card 4 expect STATUS_INVALID_DEVICE_REQUEST
        close card",
    );
    finish(machine);
}

#[test]
fn two_threads_requests_to_the_rust_driver_keep_apart_in_random_schedules() {
    for seed in rig::seeds(16) {
        let (messages, processors) = (seed % 2 == 0, if seed % 3 == 0 { 1 } else { 2 });
        let machine = start(|| {
            bench("threads", "edu,factorial=3us", messages)
                .processors(processors)
                .policy(Policy::Random(seed))
        });
        play(
            &machine,
            r"open \\.\EduRust-0 as one; open \\.\EduRust-0 as two
            a: ioctl one 0x223000 in u32:4 out 4 expect u32:24
            a: ioctl one 0x223000 in u32:7 out 4 expect u32:5040
            b: ioctl two 0x223000 in u32:6 out 4 expect u32:720
            b: ioctl two 0x223004 out 20
            b: ioctl two 0x223000 in u32:3 out 4 expect u32:6
            join a; join b; close one; close two",
        );
        assert_eq!(state(&machine)[3], 4, "seed {seed}: an interrupt for each");
        finish(machine);
    }
}

/// Holds: interrupts/message-connection
#[test]
fn a_request_waits_while_the_rust_drivers_device_is_stopped_and_one_on_the_card_ends_first() {
    for messages in BOTH {
        let machine = start(|| bench("stopped", "edu,factorial=500us", messages));
        play(
            &machine,
            r"open \\.\EduRust-0 as card overlapped
            async before ioctl card 0x223000 in u32:5 out 4
            stop-device
            join before expect u32:120
            async waits ioctl card 0x223000 in u32:6 out 4
            wait 10ms
            expect pending waits
            ioctl card 0x223004 out 20 expect STATUS_DEVICE_NOT_READY
            start-device
            join waits expect u32:720
            close card",
        );
        let expected = if messages { MESSAGE_BASED } else { LINE_BASED };
        assert_eq!((state(&machine)[0], state(&machine)[3]), (expected, 1), "connected again");
        finish(machine);
    }
}

#[test]
fn a_card_that_does_not_come_to_rest_is_not_stopped_and_goes_on() {
    for messages in BOTH {
        let machine = start(|| bench("busy", "edu,factorial=3s", messages));
        play(
            &machine,
            r"open \\.\EduRust-0 as card overlapped
            async long ioctl card 0x223000 in u32:5 out 4
            async next ioctl card 0x223000 in u32:6 out 4
            query-stop expect failure
            expect pending long
            join long expect u32:120
            join next expect u32:720
            close card",
        );
        assert_eq!(state(&machine)[3], 2);
        finish(machine);
    }
}

#[test]
fn a_card_pulled_out_fails_what_the_rust_driver_has_on_it_and_in_its_queue() {
    for messages in BOTH {
        for seed in rig::seeds(6) {
            let machine = start(|| {
                bench("pulled", "edu,factorial=50us", messages).processors(2).policy(Policy::Random(seed))
            });
            play(
                &machine,
                r"open \\.\EduRust-0 as card overlapped
                async on-it ioctl card 0x223000 in u32:5 out 4
                async queued ioctl card 0x223000 in u32:6 out 4
                wait 1us
                surprise-remove
                join on-it expect STATUS_DEVICE_NOT_CONNECTED
                join queued expect STATUS_DEVICE_NOT_CONNECTED
                ioctl card 0x223000 in u32:7 out 4 expect STATUS_DEVICE_NOT_CONNECTED
                close card",
            );
            finish(machine);
        }
    }
}

#[test]
fn a_card_pulled_out_while_it_interrupts_leaves_nothing_of_the_rust_driver_behind() {
    for messages in BOTH {
        for seed in rig::seeds(12) {
            let machine = start(|| {
                bench("pulled-early", "edu,factorial=2us", messages)
                    .processors(2)
                    .policy(Policy::Random(seed))
            });
            play(
                &machine,
                r"open \\.\EduRust-0 as card overlapped
                async first ioctl card 0x223000 in u32:5 out 4
                async second ioctl card 0x223000 in u32:6 out 4
                surprise-remove
                wait 1ms
                close card",
            );
            finish(machine);
        }
    }
}

#[test]
fn a_queued_request_of_the_rust_driver_is_cancelled_and_one_on_the_card_is_not() {
    for messages in BOTH {
        for seed in rig::seeds(6) {
            let machine = start(|| {
                bench("cancelled", "edu,factorial=50us", messages).processors(2).policy(Policy::Random(seed))
            });
            play(
                &machine,
                r"open \\.\EduRust-0 as card overlapped
                async on-it ioctl card 0x223000 in u32:5 out 4
                async goes ioctl card 0x223000 in u32:6 out 4
                async stays ioctl card 0x223000 in u32:7 out 4
                cancel goes
                cancel on-it
                join goes expect STATUS_CANCELLED
                join on-it expect u32:120
                join stays expect u32:5040
                close card",
            );
            assert_eq!(state(&machine)[3], 2, "the card was not asked for what was cancelled");
            finish(machine);
        }
    }
}

#[test]
fn an_interrupt_that_the_rust_driver_did_not_ask_for_ends_no_request() {
    for messages in BOTH {
        let machine = start(|| bench("stray", "edu,factorial=50us", messages));
        play(
            &machine,
            r"open \\.\EduRust-0 as card overlapped
            async on-it ioctl card 0x223000 in u32:5 out 4
            poke edu#0 raise 4
            wait 10us
            expect pending on-it
            join on-it expect u32:120
            close card",
        );
        assert_eq!(state(&machine)[3], 2);
        finish(machine);
    }
}

/// Holds: interrupts/version-left-fully-specified, interrupts/version-left-line-based
#[test]
fn the_rust_driver_connects_as_the_platform_lets_it() {
    let computer = Platform { messages: 0, ..Platform::default() };
    let cases = [
        ("none-left", computer, LINE_BASED),
        ("relayed", Platform { relayed_lines: true, ..computer }, LINE_BASED),
        ("old", Platform { fully_specified: true, ..computer }, FULLY_SPECIFIED),
        ("old-relayed", Platform { fully_specified: true, relayed_lines: true, ..computer }, FULLY_SPECIFIED),
    ];
    for (name, platform, expected) in cases {
        for seed in rig::seeds(4) {
            let machine = start(|| {
                let bench = bench(name, "edu,factorial=5us", true).platform(platform);
                bench.processors(2).policy(Policy::Random(seed))
            });
            play(
                &machine,
                r"open \\.\EduRust-0 as card
                ioctl card 0x223000 in u32:5 out 4 expect u32:120
                stop-device; start-device
                ioctl card 0x223000 in u32:6 out 4 expect u32:720
                close card",
            );
            let [version, messages, level, interrupts, _] = state(&machine);
            assert_eq!((version, messages, interrupts), (expected, 0, 1), "{name}");
            assert_eq!(level == 0, platform.relayed_lines, "{name}: a relayed line has PASSIVE_LEVEL");
            finish(machine);
        }
    }
}

#[test]
fn the_rust_driver_does_not_start_where_it_has_messages_and_may_connect_only_a_vector() {
    let platform = Platform { fully_specified: true, ..Platform::default() };
    let machine = start(|| bench("old-messages", "edu", true).platform(platform));
    assert!(!machine.is_ready(), "{:?}", machine.prints());
    let report = machine.finish();
    assert!(report.verdict.is_none(), "{report}");
    assert!(report.to_string().contains("IRP_MN_START_DEVICE failed with STATUS_NOT_SUPPORTED"), "{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}
