//! Stories of `edu_rust.sys`, a driver in Rust, on the model of QEMU's educational device: its requests end by the card's message
//! or by its line, one after the other, whatever Plug and Play and applications do meanwhile.

use std::path::PathBuf;

use dirql::explore::Policy;
use dirql::{Bench, Machine, Platform};

use super::rig::{self, Undelayed, driver, finish, pattern, play, start};

const FACTORIAL: u32 = 0x0022_3000;
const STATE: u32 = 0x0022_3004;
const DIRECT: u32 = 0x0022_300A;

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
    let state = file.device_control(STATE, &[], 20).unwrap();
    file.close().unwrap();
    [0, 4, 8, 12, 16].map(|at| u32::from_le_bytes(state[at..at + 4].try_into().unwrap()))
}
#[test]
fn a_rust_driver_walks_the_capabilities_of_a_pci_express_card_and_reads_beyond_256_bytes() {
    const CONFIGURATION: u32 = 0x0022_300C;
    let card = "edu,express=gen4+x16,serial=0011223344556677,aer,caps=09:04ff,pm";
    let machine = start(|| bench("configuration", card, true));
    let file = machine.open(r"\\.\EduRust-0").unwrap();
    let read = |offset: u32| file.device_control(CONFIGURATION, &offset.to_le_bytes(), 16).unwrap();
    let byte = |offset: u32| read(offset)[0];
    let (mut at, mut found) = (u32::from(byte(0x34)), Vec::new());
    while at != 0 {
        found.push((byte(at), at));
        at = u32::from(byte(at + 1));
    }
    assert_eq!(found, [(9, 0xBC), (0x10, 0x80), (1, 0x60), (5, 0x40)]);
    let (mut at, mut found) = (0x100, Vec::new());
    while at != 0 {
        let head = u32::from_le_bytes(read(at)[..4].try_into().unwrap());
        found.push((head & 0xFFFF, at));
        at = head >> 20;
    }
    assert_eq!(found, [(3, 0x100), (1, 0x140)]);
    assert_eq!(read(0x104)[..8], [0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00]);
    // 16 GT/s and 16 lanes.
    assert_eq!(read(0x92)[..2], [0x04, 0x11]);
    assert_eq!((read(0xFF8).len(), read(0x1000).len()), (8, 0));
    file.close().unwrap();
    finish(machine);
    // A conventional card ends at 100h.
    let machine = start(|| bench("configuration", "edu", true));
    let file = machine.open(r"\\.\EduRust-0").unwrap();
    let lengths = [0xF8_u32, 0x100]
        .map(|offset| file.device_control(CONFIGURATION, &offset.to_le_bytes(), 16).unwrap().len());
    assert_eq!(lengths, [8, 0]);
    file.close().unwrap();
    finish(machine);
}

/// Holds: interrupts/version-left-message-based, interrupts/message-fall-back, interrupts/resource-inf
#[test]
fn a_factorial_is_told_to_a_rust_driver_by_a_message_or_by_the_line() {
    for messages in BOTH {
        let machine = start(|| bench("early", "edu,factorial=25us", messages));
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
        ioctl card 0x223010 out 4 expect STATUS_INVALID_DEVICE_REQUEST
        ioctl card 0x22300a out 0 expect STATUS_BUFFER_TOO_SMALL
        read card 4 at 4093 expect STATUS_INVALID_PARAMETER
        write card hex:00 at 4096 expect STATUS_INVALID_PARAMETER
        read card 0 at 5000
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
                .policy(Policy::random(seed))
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
                bench("pulled", "edu,factorial=50us", messages).processors(2).chooser(Undelayed::random(seed))
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
                    .policy(Policy::random(seed))
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
                bench("cancelled", "edu,factorial=50us", messages)
                    .processors(2)
                    .chooser(Undelayed::random(seed))
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
                bench.processors(2).policy(Policy::random(seed))
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

/// A card and its INF that say how wide the card's addresses are.
fn wide(story: &str, bits: u32, dma: &str) -> Bench {
    const SETTING: &str = "DmaBits,0x00010001,28";
    let inf = rig::changed_inf(story, "edu_rust.inf", |text| {
        assert!(text.contains(SETTING));
        text.replace(SETTING, &format!("DmaBits,0x00010001,{bits}"))
    });
    let mask = u64::MAX >> (64 - bits);
    Bench::new()
        .driver(driver("edu_rust.sys"))
        .inf(inf)
        .device(format!("edu,dma_mask={mask:#x},dma={dma},factorial=3us"))
}

/// Not: wild-dma
#[test]
fn what_is_written_to_the_card_comes_back_to_the_rust_driver_from_where_it_was_put() {
    for messages in BOTH {
        let machine = start(|| bench("written", "edu", messages));
        let file = machine.open(r"\\.\EduRust-0").unwrap();
        let bytes = pattern(4096);
        let before = machine.now();
        assert_eq!(file.write_at(&bytes, Some(0)).unwrap(), 4096);
        let took = machine.now() - before;
        assert!((100_000_000..101_000_000).contains(&took), "100 ms of the machine's time: {took} ns");
        assert_eq!(file.write_at(b"in between", Some(1000)).unwrap(), 10);
        let mut expected = bytes;
        expected[1000..1010].copy_from_slice(b"in between");
        assert_eq!(file.read_at(4096, Some(0)).unwrap(), expected);
        assert_eq!(file.read_at(7, Some(1003)).unwrap(), b"between");
        file.close().unwrap();
        assert_eq!(state(&machine)[3], 4, "an interrupt for each transfer");
        finish(machine);
    }
}

/// Not: dma-not-flushed
#[test]
fn an_applications_own_pages_are_mapped_for_the_card_part_by_part() {
    for bits in [24, 28, 32, 64] {
        for checked in [false, true] {
            let machine = start(|| wide("direct", bits, "10us").checked(checked));
            let file = machine.open(r"\\.\EduRust-0").unwrap();
            let bytes = pattern(4096);
            file.write_at(&bytes, Some(0)).unwrap();
            for length in [1, 4096, 3 * 4096 + 123, 0x4000 * 2 + 5] {
                let came = file.device_control(DIRECT, &[], length).unwrap();
                let expected: Vec<u8> = bytes.iter().cycle().take(length as usize).copied().collect();
                assert!(came == expected, "{bits} bits, {length} bytes: the card's buffer, over and over");
            }
            file.close().unwrap();
            assert!(state(&machine)[3] >= 15, "an interrupt for each page");
            finish(machine);
        }
    }
}

/// Not: dma-after-unmap
#[test]
fn transfers_of_two_threads_by_the_rust_driver_keep_apart_in_random_schedules() {
    for seed in rig::seeds(16) {
        let bits = [24, 28, 64][usize::try_from(seed).unwrap() % 3];
        let machine = start(|| {
            let bench = wide("threads", bits, "20us").checked(seed % 4 == 0);
            bench.processors(if seed % 2 == 0 { 1 } else { 2 }).policy(Policy::random(seed))
        });
        play(
            &machine,
            r"open \\.\EduRust-0 as one; open \\.\EduRust-0 as two
            a: write one text:abcdefgh at 16; a: read one 8 at 16 expect text:abcdefgh
            a: ioctl one 0x22300a out 5000
            b: write two text:stuvwxyz at 3000; b: ioctl two 0x223000 in u32:6 out 4 expect u32:720
            b: read two 8 at 3000 expect text:stuvwxyz
            join a; join b; close one; close two",
        );
        finish(machine);
    }
}

#[test]
fn a_card_that_is_stopped_or_pulled_out_in_a_transfer_leaves_nothing_of_the_rust_driver_mapped() {
    for seed in rig::seeds(8) {
        for end in ["stop-device; start-device", "surprise-remove"] {
            let machine = start(|| wide("ends", 28, "30us").processors(2).policy(Policy::random(seed)));
            play(
                &machine,
                &format!(
                    r"open \\.\EduRust-0 as card overlapped
                    async direct ioctl card 0x22300a out 9000
                    async read read card 8 at 16
                    async write write card text:abcdefgh at 16
                    wait 50us
                    {end}
                    wait 1ms
                    close card"
                ),
            );
            finish(machine);
        }
    }
}
