//! Stories of `edu.sys` on the model of QEMU's educational device: interrupts by a message and by the line, transfers by the card's
//! bus master into the driver's memory and an application's, and the addresses that no driver may give a card.

use std::path::PathBuf;

use dirql::explore::Policy;
use dirql::{Bench, Machine, Platform};
use kernel::verdict::Verdict;

use super::rig::{self, driver, finish, play, start, try_play};

const FACTORIAL: u32 = 0x0022_3000;
const STATE: u32 = 0x0022_3004;
const DIRECT: u32 = 0x0022_300A;

/// Kinds of `IOCTL_EDU_MISUSE`.
const GIVEN_BACK: u32 = 0;
const HIGH: u32 = 1;
const PAGEABLE: u32 = 2;
const NO_MEMORY: u32 = 3;
const FREED_POOL: u32 = 4;
const BUFFER_LEFT: u32 = 5;

/// A card that reaches all memory.
const WIDE: &str = "edu,dma_mask=0xffffffffffffffff,dma=10us";

/// Versions of `IO_CONNECT_INTERRUPT_PARAMETERS`.
const LINE_BASED: u32 = 2;
const MESSAGE_BASED: u32 = 3;

/// The driver's INF, which allows messages or does not.
fn inf(messages: bool) -> PathBuf {
    const SUPPORTED: &str = "MSISupported,0x00010001,1";
    if messages {
        return driver("edu.inf");
    }
    rig::changed_inf("edu-line", "edu.inf", |text| {
        assert!(text.contains(SUPPORTED));
        text.replace(SUPPORTED, "MSISupported,0x00010001,0")
    })
}

fn bench(card: &str, messages: bool) -> Bench {
    Bench::new().driver(driver("edu.sys")).inf(inf(messages)).device(card)
}

/// The words of the driver's `EDU_STATE`.
fn state(machine: &Machine) -> [u32; 5] {
    let file = machine.open(r"\\.\Edu").unwrap();
    let state = file.device_control(STATE, &[], 20).unwrap();
    file.close().unwrap();
    [0, 4, 8, 12, 16].map(|at| u32::from_le_bytes(state[at..at + 4].try_into().unwrap()))
}

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256).to_le_bytes()[0]).collect()
}
#[test]
fn a_factorial_is_told_by_a_message_or_by_the_line() {
    for (messages, version) in [(true, MESSAGE_BASED), (false, LINE_BASED)] {
        let machine = start(|| bench("edu,factorial=25us", messages));
        let file = machine.open(r"\\.\Edu").unwrap();
        for (number, product) in [(5_u32, 120_u32), (12, 479_001_600), (13, 0x7328_CC00)] {
            let before = machine.now();
            let answer = file.device_control(FACTORIAL, &number.to_le_bytes(), 4).unwrap();
            assert_eq!(answer, product.to_le_bytes());
            assert!(machine.now() - before >= 25_000, "it takes its time");
        }
        file.close().unwrap();
        assert_eq!(state(&machine), [version, !0x1234_5678, 3, 0, 0], "messages: {messages}");
        finish(machine);
    }
}

/// Holds: interrupts/before-vista
/// Not: export-too-new
#[test]
fn before_vista_a_driver_finds_no_io_connect_interrupt_ex_and_connects_the_old_way() {
    const OLD: u32 = 0;
    let platform = Platform { messages: 0, before_vista: true, ..Platform::default() };
    let machine = start(|| bench("edu", true).platform(platform));
    let file = machine.open(r"\\.\Edu").unwrap();
    assert_eq!(file.device_control(FACTORIAL, &5_u32.to_le_bytes(), 4).unwrap(), 120_u32.to_le_bytes());
    file.close().unwrap();
    assert_eq!(state(&machine)[0], OLD);
    finish(machine);
}

/// Not: wild-dma
#[test]
fn what_is_written_to_the_card_comes_back_from_where_it_was_put() {
    for messages in [true, false] {
        let machine = start(|| bench("edu", messages));
        let file = machine.open(r"\\.\Edu").unwrap();
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
        assert_eq!(state(&machine)[2..], [4, 0, 4], "an interrupt for each transfer");
        finish(machine);
    }
}

#[test]
fn an_applications_own_pages_are_reached_one_by_one() {
    let machine = start(|| bench(WIDE, true));
    let file = machine.open(r"\\.\Edu").unwrap();
    let bytes = pattern(4096);
    file.write_at(&bytes, Some(0)).unwrap();
    let length = 3 * 4096 + 123;
    let came = file.device_control(DIRECT, &[], length).unwrap();
    let expected: Vec<u8> = bytes.iter().cycle().take(length as usize).copied().collect();
    assert!(came == expected, "the card's buffer, over and over");
    file.close().unwrap();
    assert!(state(&machine)[4] >= 5, "a transfer for each page");
    finish(machine);
}

#[test]
fn requests_of_two_threads_keep_apart_in_random_schedules() {
    for seed in rig::seeds(12) {
        let machine = start(|| {
            bench("edu,dma=20us,factorial=3us", seed % 2 == 0).processors(2).policy(Policy::random(seed))
        });
        play(
            &machine,
            r"open \\.\Edu as one; open \\.\Edu as two
            a: write one text:abcdefgh at 16; a: read one 8 at 16 expect text:abcdefgh
            b: write two text:stuvwxyz at 3000; b: ioctl two 0x223000 in u32:6 out 4 expect u32:720
            b: read two 8 at 3000 expect text:stuvwxyz
            join a; join b; close one; close two",
        );
        finish(machine);
    }
}

#[test]
fn an_interrupt_that_nobody_asked_for_is_acknowledged() {
    let machine = start(|| bench("edu", false));
    play(&machine, "poke edu#0 raise 4; wait 10us");
    assert_eq!(state(&machine)[2], 1);
    finish(machine);
}

#[test]
fn an_interrupt_that_nobody_asked_for_ends_no_request() {
    for messages in [true, false] {
        for processors in [1, 2] {
            let machine = start(|| bench("edu,factorial=50us,dma=50us", messages).processors(processors));
            // Bit 0 is a factorial's end, bit 8 a transfer's: each comes while the other is awaited.
            play(
                &machine,
                r"open \\.\Edu as card overlapped
                async product ioctl card 0x223000 in u32:5 out 4
                poke edu#0 raise 4; poke edu#0 raise 256
                wait 10us
                expect pending product
                join product expect u32:120
                async put write card text:abcdefgh at 16
                poke edu#0 raise 4; poke edu#0 raise 1
                wait 10us
                expect pending put
                join put
                async got read card 8 at 16
                poke edu#0 raise 1
                wait 10us
                expect pending got
                join got expect text:abcdefgh
                close card",
            );
            let state = state(&machine);
            assert!((6..=8).contains(&state[2]), "two may come as one: {state:?}");
            assert_eq!(state[4], 2, "a transfer for each");
            finish(machine);
        }
    }
}

/// The verdict on an address that no driver may give a card.
fn misuse(card: &str, kind: u32, checked: bool) -> Option<Verdict> {
    let machine = start(|| bench(card, true).checked(checked));
    // What goes wrong stands in the report.
    let _ = try_play(&machine, &format!(r"open \\.\Edu as c; ioctl c 0x22300c in u32:{kind}"));
    machine.finish().verdict
}

#[test]
fn memory_that_nobody_gave_the_card_is_a_wild_transfer() {
    let freed = "in memory that is not allocated";
    let cases = [
        ("edu", GIVEN_BACK, false, freed),
        (WIDE, PAGEABLE, false, "in memory that can be paged out"),
        ("edu", NO_MEMORY, false, "where there is no memory"),
        (WIDE, FREED_POOL, true, "in pool that is freed"),
    ];
    for (card, kind, checked, why) in cases {
        let verdict = misuse(card, kind, checked).unwrap_or_else(|| panic!("kind {kind}: no verdict"));
        assert_eq!(verdict.rule, "wild-dma", "kind {kind}: {}", verdict.message);
        assert!(verdict.message.contains("edu#0 wrote 0x10 bytes by DMA"), "{}", verdict.message);
        assert!(verdict.message.contains(why), "kind {kind}: {}", verdict.message);
        let check = verdict.bug_check.unwrap();
        assert_eq!((check.code, check.parameters[0]), (0xE6, 0x26));
    }
    assert!(
        misuse(WIDE, HIGH, false).is_none_or(|verdict| verdict.rule != "wild-dma"),
        "that is the card's to reach"
    );
}

#[test]
fn a_transfer_that_the_card_cannot_do_is_refused_at_the_instruction_that_starts_it() {
    for (kind, why) in [(HIGH, "which the card cannot reach"), (BUFFER_LEFT, "whose buffer is 40000h-40FFFh")]
    {
        let verdict = misuse("edu", kind, false).unwrap();
        assert!(verdict.message.contains("edu#0 BAR0+98h DMA_COMMAND"), "{}", verdict.message);
        assert!(verdict.message.contains(why), "{}", verdict.message);
        assert!(verdict.stack.iter().any(|line| line.symbol.contains("StartIo")), "{:?}", verdict.stack);
    }
}
