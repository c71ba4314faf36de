//! Stories of `card_rust.sys`, a driver in Rust, on the `bench` card: an application's pages that the processor copies and that the card
//! reaches itself, work items, and the mistakes that safe code can still make with a card.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, Outcome, Platform, ScriptText};
use kernel::verdict::{Tier, Verdict};

use super::rig::{self, driver, finish, pattern, play, start};

const DEVICE: &str = r"\\.\CardRust-0";
const PUT: u32 = 0x0022_3801;
const GET: u32 = 0x0022_3806;
const MISTAKE: u32 = 0x0022_3810;
const STATE: u32 = 0x0022_3814;
const BY_PROCESSOR: u32 = 0x0022_3818;

const STALE: u32 = 1;
const LONGER: u32 = 2;
const OTHER_WAY: u32 = 3;

fn bench(card: &str) -> Bench {
    Bench::new().driver(driver("card_rust.sys")).inf(driver("card_rust.inf")).device(card)
}

/// Interrupts and transfers since the start.
fn state(machine: &Machine) -> [u32; 2] {
    let file = machine.open(DEVICE).unwrap();
    let answer = file.device_control(STATE, &[], 8).unwrap();
    file.close().unwrap();
    [0, 4].map(|at| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap()))
}

/// A script in which `DEV` is the device.
fn script(text: &str) -> String {
    text.replace("open DEV ", &format!("open {DEVICE} "))
}

/// Bytes at an offset of the card's memory, by the processor.
fn seen(machine: &Machine, offset: u32, length: u32) -> Vec<u8> {
    let file = machine.open(DEVICE).unwrap();
    let bytes = file.device_control(GET, &offset.to_le_bytes(), length).unwrap();
    file.close().unwrap();
    bytes
}

/// Tells the driver a number.
fn set(machine: &Machine, code: u32, number: u32) {
    let file = machine.open(DEVICE).unwrap();
    file.device_control(code, &number.to_le_bytes(), 0).unwrap();
    file.close().unwrap();
}

#[test]
fn an_applications_pages_are_copied_to_the_cards_memory_and_back() {
    for checked in [false, true] {
        let machine = start(|| bench("bench,ram").checked(checked));
        set(&machine, BY_PROCESSOR, 1);
        let file = machine.open(DEVICE).unwrap();
        let bytes = pattern(0x2345);
        for offset in [0x101, 0x4000] {
            assert_eq!(file.write_at(&bytes, Some(offset)).unwrap(), 0x2345);
            assert_eq!(file.read_at(0x2345, Some(offset)).unwrap(), bytes);
        }
        assert!(file.read_at(0, Some(0)).unwrap().is_empty());
        assert!(file.write_at(&[1; 9], Some(0xFFF8)).is_err(), "the card's memory ends there");
        file.close().unwrap();
        assert_eq!(seen(&machine, 0x101, 0x2345), bytes, "pages of METHOD_OUT_DIRECT");
        // The pages of METHOD_IN_DIRECT, which are the output's, are zero here.
        let file = machine.open(DEVICE).unwrap();
        file.device_control(PUT, &0x201_u32.to_le_bytes(), 0x100).unwrap();
        let past = file.try_device_control(PUT, &0xFFF8_u32.to_le_bytes(), 9).unwrap();
        assert_eq!(past.status, abi::NtStatus::INVALID_PARAMETER.0);
        file.close().unwrap();
        let after = seen(&machine, 0x101, 0x2345);
        assert_eq!((&after[..0x100], &after[0x200..]), (&bytes[..0x100], &bytes[0x200..]));
        assert_eq!(after[0x100..0x200], [0; 0x100]);
        assert_eq!(state(&machine), [0, 0], "the card moved nothing itself");
        finish(machine);
    }
}

#[test]
fn a_request_of_another_kind_has_no_pages_and_an_input_that_is_short_is_told() {
    let machine = start(|| bench("bench,ram"));
    play(
        &machine,
        &script(
            r"open DEV as card
            ioctl card 0x223801 in hex:0000 out 4 expect STATUS_BUFFER_TOO_SMALL
            ioctl card 0x223806 in u32:0 out 0 expect bytes 0
            ioctl card 0x223806 in u32:0xffffffff out 4 expect STATUS_INVALID_PARAMETER
            ioctl card 0x223820 out 4 expect STATUS_INVALID_DEVICE_REQUEST
            close card",
        ),
    );
    finish(machine);
}

#[test]
fn the_card_reaches_an_applications_pages_in_one_piece_or_by_a_list_of_them() {
    for card in ["bench,ram,dma=0", "bench,ram,dma=30us", "bench,ram,msi=8", "bench,ram,msix=8"] {
        for checked in [false, true] {
            let machine = start(|| bench(card).checked(checked));
            let file = machine.open(DEVICE).unwrap();
            let mut transfers = 0;
            for (at, length) in [(0_u32, 1_u32), (3, 4096), (0x7FFF, 3 * 4096 + 123), (0, 0x1_0000)] {
                let offset = u64::from(at);
                let bytes: Vec<u8> = pattern(length as usize).iter().map(|byte| byte ^ 0x5A).collect();
                assert_eq!(file.write_at(&bytes, Some(offset)).unwrap(), u64::from(length));
                assert!(seen(&machine, at, length) == bytes, "{card}: {length} at {at}");
                assert!(file.read_at(length, Some(offset)).unwrap() == bytes);
                transfers += 2;
            }
            file.close().unwrap();
            assert_eq!(state(&machine), [transfers; 2], "an interrupt for each");
            finish(machine);
        }
    }
}

#[test]
fn transfers_of_two_threads_keep_apart_in_random_schedules() {
    for seed in rig::seeds(20) {
        let card = ["bench,ram,dma=3us", "bench,ram,msi=8,dma=0"][usize::from(seed % 2 == 0)];
        let machine = start(|| bench(card).checked(seed % 4 == 0).processors(2).policy(Policy::random(seed)));
        play(
            &machine,
            &script(
                r"open DEV as one; open DEV as two
                a: write one text:abcdefgh at 16; a: read one 8 at 16 expect text:abcdefgh
                a: write one text:ABCDEFGH at 16; a: read one 8 at 16 expect text:ABCDEFGH
                b: write two text:stuvwxyz at 0xfff8; b: read two 8 at 0xfff8 expect text:stuvwxyz
                b: ioctl two 0x223808 in u32:1 out 4 expect u32:0
                join a; join b; close one; close two",
            ),
        );
        assert_eq!(state(&machine)[1], 6, "seed {seed}");
        finish(machine);
    }
}

#[test]
fn a_card_that_is_stopped_or_pulled_out_in_a_transfer_leaves_nothing_mapped() {
    for seed in rig::seeds(10) {
        for end in ["stop-device; start-device", "surprise-remove"] {
            let machine = start(|| bench("bench,ram,dma=40us").processors(2).policy(Policy::random(seed)));
            play(
                &machine,
                &script(&format!(
                    r"open DEV as card overlapped
                    async one read card 9000 at 5
                    async two write card text:abcdefgh at 16
                    async three read card 8 at 16
                    wait 50us
                    {end}
                    wait 1ms
                    close card"
                )),
            );
            finish(machine);
        }
    }
}

#[test]
fn every_schedule_of_a_transfer_and_its_cancellation_up_to_two_preemptions_is_clean() {
    let script = script(
        r"open DEV as card overlapped
        t: cancel card
        async w write card text:abcdefgh at 16
        join t
        wait 1ms
        close card",
    );
    let play = ScriptText::typed(&script).play().unwrap();
    let bounds = Bounds { preemptions: 2, schedules: 200_000, shared: false, ..Bounds::default() };
    let searched = bench("bench,ram,dma=3us").unobserved().processors(2);
    let searched = searched.search(&play, &bounds, |report| report.outcome() != Outcome::Clean);
    let searched = searched.unwrap_or_else(|error| panic!("{error}"));
    println!("{:?} schedules, complete: {}", searched.schedules, searched.complete);
    let found = searched.found.map(|found| found.1.to_string());
    assert!(searched.complete && found.is_none(), "{found:?}");
}

#[test]
fn a_work_item_ends_a_request_where_it_may_wait_and_its_thread_goes_on_meanwhile() {
    let machine = start(|| bench("bench,ram"));
    let before = machine.now();
    play(
        &machine,
        &script(
            r"open DEV as card overlapped
            async long ioctl card 0x223808 in u32:20 out 4
            async short ioctl card 0x223808 in u32:5 out 4
            expect pending long
            join short expect u32:0
            join long expect u32:1
            ioctl card 0x223808 in u32:1 out 3 expect STATUS_BUFFER_TOO_SMALL
            close card",
        ),
    );
    assert!(machine.now() - before >= 20_000_000, "it has slept");
    finish(machine);
}

#[test]
fn a_device_is_not_removed_before_its_work_items_have_returned() {
    for seed in rig::seeds(12) {
        for end in ["remove-device", "surprise-remove"] {
            let machine =
                start(|| bench("bench,ram").checked(true).processors(2).policy(Policy::random(seed)));
            play(
                &machine,
                &script(&format!(
                    r"open DEV as card
                    ioctl card 0x22380c in u32:5 + u32:3
                    close card
                    {end}"
                )),
            );
            let report = finish(machine);
            let slept: Vec<_> = report.prints.iter().filter(|line| line.starts_with("card_rust: ")).collect();
            let (last, others) = slept.split_last().unwrap();
            assert!(last.contains("the device has gone"), "seed {seed}: {slept:?}");
            assert!(others[0].contains("slept, 3 times to go"), "seed {seed}: {slept:?}");
            assert!(others.len() >= 2, "it slept on, or learned that the device goes: {slept:?}");
        }
    }
}

/// What a mistake comes to.
fn mistaken(mistake: u32, write: bool) -> Vec<Verdict> {
    let machine = start(|| bench("bench,ram,dma=1us"));
    let file = machine.open(DEVICE).unwrap();
    file.write_at(&pattern(2048), Some(0)).unwrap();
    set(&machine, MISTAKE, mistake);
    let _ = if write {
        file.write_at(&pattern(2048), Some(0)).map(drop)
    } else {
        file.read_at(2048, Some(0)).map(drop)
    };
    let report = machine.finish();
    let mut found: Vec<Verdict> = report.findings.iter().chain(&report.verdict).cloned().collect();
    found.sort_by_key(|finding| finding.tier);
    found
}

#[test]
fn each_mistake_that_safe_code_makes_with_a_card_is_told() {
    for (mistake, write, rule, tier) in [
        (STALE, false, "dma-after-unmap", Tier::Error),
        (LONGER, false, "dma-behind-mapping", Tier::Error),
        (LONGER, true, "dma-behind-mapping", Tier::Error),
        (OTHER_WAY, false, "dma-wrong-direction", Tier::Verifier),
    ] {
        let found = mistaken(mistake, write);
        assert_eq!(
            found.first().map(|finding| (finding.rule, finding.tier)),
            Some((rule, tier)),
            "{found:?}"
        );
        assert!(found[0].message.contains("bench#0"), "{}", found[0].message);
    }
}

/// The bug check of a panic in Rust, "RUST".
const PANIC: u32 = 0x5255_5354;

/// The verdict on a fault, and the source line that made it, as the machine stops.
fn faulty(fault: u32, platform: Platform, checked: bool) -> Option<Verdict> {
    let machine = start(|| bench("bench,ram").platform(platform).checked(checked));
    // What goes wrong stands in the report.
    let _ = rig::try_play(
        &machine,
        &script(&format!("open DEV as card; ioctl card 0x22381c in u32:{fault}; close card")),
    );
    machine.finish().verdict
}

#[test]
fn what_types_cannot_refuse_is_a_bug_check_before_memory_is_harmed() {
    let relayed = Platform { relayed_lines: true, messages: 0, ..Platform::default() };
    for fault in 1..=12 {
        let platform = if fault == 11 { relayed } else { Platform::default() };
        for checked in [false, true] {
            let verdict =
                faulty(fault, platform, checked).unwrap_or_else(|| panic!("fault {fault} is not found"));
            let code = verdict.bug_check.map(|check| check.code);
            assert_eq!(code, Some(PANIC), "fault {fault}: {} {}", verdict.rule, verdict.message);
        }
    }
    assert!(
        faulty(11, Platform::default(), true).is_none(),
        "where the line has a level of its own, that is none"
    );
}

#[test]
fn what_lies_in_paged_pool_is_read_at_passive_level_and_freed_with_the_device() {
    let machine = start(|| bench("bench,ram").checked(true));
    play(
        &machine,
        &script(
            "open DEV as card
             ioctl card 0x223828 in u32:99 out 4 expect u32:9801
             ioctl card 0x223828 in u32:100 out 4 expect STATUS_INVALID_PARAMETER
             close card",
        ),
    );
    finish(machine);
}

#[test]
fn only_administrators_open_the_card_because_its_driver_says_so() {
    let machine = start(|| bench("bench,ram"));
    play(
        &machine,
        &script(
            "open DEV as administrator
             user plain
             open DEV as user expect STATUS_ACCESS_DENIED
             open DEV as reader read-only expect STATUS_ACCESS_DENIED
             close administrator",
        ),
    );
    finish(machine);
}
