//! Stories of `card.sys` on the `bench` card: side effects of its registers, its bus master, and what a driver does when the card
//! never interrupts, interrupts early, does not let go of its line, or is gone.

use std::path::PathBuf;

use dirql::explore::Policy;
use dirql::record::{Record, Recording};
use dirql::{Bench, Machine, ScriptText};
use kernel::verdict::Verdict;

use super::rig::{self, Buffer, driver, finish, play, start, try_play};

const SERVED: u32 = 0x0022_3410;

/// The driver's INF; with `careless` it connects before it has what its service routine uses.
fn inf(careless: bool) -> PathBuf {
    const SETTING: &str = "Careless,0x00010001,0";
    if !careless {
        return driver("card.inf");
    }
    rig::changed_inf("card-careless", "card.inf", |text| {
        assert!(text.contains(SETTING));
        text.replace(SETTING, "Careless,0x00010001,1")
    })
}

fn bench(card: &str, careless: bool) -> Bench {
    Bench::new().driver(driver("card.sys")).inf(inf(careless)).device(card)
}

/// Carries out a story that the driver checks itself.
fn tell(machine: &Machine, story: &str, checks: u32) {
    let made = rig::checks_made(machine, r"\\.\Card", story, &[]);
    assert_eq!(made, Ok(checks), "{story}: one that leaves early has not looked at everything");
}

/// The interrupts that the driver has served.
fn served(machine: &Machine) -> u32 {
    let file = machine.open(r"\\.\Card").unwrap();
    let answer = file.device_control(SERVED, &[], 4).unwrap();
    file.close().unwrap();
    u32::from_le_bytes(answer.try_into().unwrap())
}
/// Carries out a script that ends in a verdict.
fn verdict(bench: impl Fn() -> Bench, text: &str) -> Verdict {
    let machine = start(bench);
    let _ = try_play(&machine, text);
    let report = machine.finish();
    report.verdict.clone().unwrap_or_else(|| panic!("no verdict:\n{report}"))
}

#[test]
fn the_fifo_keeps_its_order_and_says_what_was_lost() {
    let machine = start(|| bench("bench", false));
    tell(&machine, "FifoKeepsOrder", 23);
    play(&machine, "poke bench#0 push 77; poke bench#0 push 78");
    tell(&machine, "PushedFromOutside", 3);
    finish(machine);
}

#[test]
fn a_status_is_cleared_by_a_one_or_by_a_read_as_its_register_says() {
    let machine = start(|| bench("bench", false));
    tell(&machine, "StatusIsClearedInTwoWays", 4);
    assert_eq!(served(&machine), 0, "nothing was enabled");
    finish(machine);
}

#[test]
fn the_bus_master_moves_what_is_contiguous_and_what_is_not() {
    for card in ["bench,dma=0", "bench,dma=30us", "bench,pin=c,dma=1ms"] {
        let machine = start(|| bench(card, false));
        tell(&machine, "PlainTransfer", 5);
        tell(&machine, "ScatteredTransfer", 7);
        assert_eq!(served(&machine), 5, "an interrupt for each transfer");
        finish(machine);
    }
}

#[test]
fn a_card_that_interrupts_ends_the_request_before_its_time_limit() {
    let machine = start(|| bench("bench,delay=50us", false));
    let before = machine.now();
    play(&machine, r"open \\.\Card as c; ioctl c 0x223400 in u32:10; close c");
    assert!((50_000..1_000_000).contains(&(machine.now() - before)));
    assert_eq!(served(&machine), 1);
    finish(machine);
}

#[test]
fn a_card_that_never_interrupts_lets_the_request_time_out_and_be_cancelled() {
    let machine = start(|| bench("bench,never", false));
    let before = machine.now();
    play(&machine, r"open \\.\Card as c overlapped; ioctl c 0x223400 in u32:10 expect STATUS_IO_TIMEOUT");
    assert!(machine.now() - before >= 10_000_000, "the request waited for its 10 ms");
    play(
        &machine,
        r"open \\.\Card as d overlapped
        async r ioctl d 0x223400 in u32:100000
        wait 1ms; expect pending r
        cancel r; join r expect STATUS_CANCELLED
        ioctl d 0x223400 in u32:1 expect STATUS_IO_TIMEOUT
        poke bench#0 never 0
        ioctl d 0x223400 in u32:1000",
    );
    assert_eq!(served(&machine), 2, "what was raised meanwhile comes at once, then the last request's");
    finish(machine);
}

#[test]
fn a_line_that_stays_asserted_when_acknowledged_is_an_interrupt_storm() {
    let found = verdict(
        || bench("bench", false),
        r"open \\.\Card as c; ioctl c 0x223400 in u32:10; poke bench#0 stuck 1; ioctl c 0x223400 in u32:10",
    );
    assert_eq!((found.rule, found.bug_check.unwrap().code), ("interrupt-storm", 0xF2), "{}", found.message);
    assert!(found.message.contains("asserted by bench#0"), "{}", found.message);
}

#[test]
fn a_card_that_interrupts_early_finds_the_driver_that_connects_too_soon() {
    let machine = start(|| bench("bench,early", false));
    assert!(machine.is_ready());
    assert_eq!(served(&machine), 1, "before it was enabled, and after the driver was ready for it");
    play(&machine, "poke bench#0 early 1; wait 10us");
    assert_eq!(served(&machine), 2);
    finish(machine);

    let machine = start(|| bench("bench", true));
    assert!(machine.is_ready(), "a card that waits until it is enabled does not find it");
    finish(machine);

    let found = verdict(|| bench("bench,early", true), "");
    assert_eq!((found.rule, found.bug_check.unwrap().code), ("wild-read", 0xD1), "{}", found.message);
    assert!(found.message.starts_with("card.sys!OnLine"), "{}", found.message);
}

#[test]
fn a_card_that_is_gone_reads_as_ones_which_one_loop_believes_and_one_does_not() {
    let machine = start(|| bench("bench,dma=100us", false));
    play(
        &machine,
        r"open \\.\Card as c
        ioctl c 0x223404; ioctl c 0x223408
        poke bench#0 pulled 1
        ioctl c 0x223408 expect STATUS_DEVICE_DOES_NOT_EXIST
        wait 200us; poke bench#0 pulled 0
        ioctl c 0x223408
        close c; surprise-remove bench#0",
    );
    finish(machine);

    let gone = r"open \\.\Card as c; poke bench#0 pulled 1; ioctl c 0x223404";
    let found = verdict(|| bench("bench,dma=100us", false).instruction_budget(2_000_000), gone);
    assert_eq!(found.rule, "endless-loop", "{}", found.message);
    let polls =
        |line: &kernel::verdict::StackLine| line.symbol.contains("Poll") || line.symbol.contains("Control");
    assert!(found.stack.iter().any(polls), "{:?}", found.stack);
}

/// Nothing has noticed that it is gone: its windows are still the driver's, to be mapped.
#[test]
fn a_card_that_is_gone_unseen_is_started_again_and_what_it_was_given_is_mapped() {
    let machine = start(|| bench("bench", false));
    play(
        &machine,
        "tolerate; poke bench#0 pulled 1; stop-device; start-device; stop-device; start-device elsewhere",
    );
    let report = machine.finish();
    assert!(report.findings.iter().all(|found| found.rule != "io-space-outside"), "{report}");
    assert!(report.verdict.is_none(), "{report}");
}

/// The driver maps the card's registers for the application, which uses them itself: as the cards of data acquisition are used.
#[test]
fn an_application_reads_and_writes_registers_that_the_driver_has_mapped_for_it() {
    let machine = start(|| bench("bench", false));
    play(
        &machine,
        r"open \\.\Card as c
        pointer registers ioctl c 0x223414 out 8
        load registers 4 expect text:Benc
        store registers u32:77 at 0x24; store registers u32:78 at 0x24
        load registers 4 at 0x28 expect u32:2
        load registers 4 at 0x24 expect u32:77
        load registers 4 at 0x24 expect u32:78
        ioctl c 0x223414 out 8 expect failure
        close c
        load registers 4 expect STATUS_ACCESS_VIOLATION
        store registers u32:1 at 0x24 expect STATUS_ACCESS_VIOLATION",
    );
    finish(machine);
}

/// What files hold is stored, is looked for in what is loaded, and is the input of the request that answers with the pointer; a record
/// has the files in it.
#[test]
fn values_of_files_go_through_a_pointer_and_stand_in_a_record() {
    const TEXT: &str = r"open \\.\Card as c
        pointer registers ioctl c 0x223414 in file:none.bin out 8
        load registers 4 expect file:name.txt
        store registers file:two.bin at 0x24; load registers 4 at 0x28 expect file:one.bin
        load registers 4 at 0x24 expect file:two.bin
        close c";
    let folder = rig::folder("pointer-files");
    let files: [(&str, &[u8]); 4] =
        [("none.bin", b""), ("name.txt", b"Benc"), ("one.bin", &[1, 0, 0, 0]), ("two.bin", &[0xFE, 2, 0, 0])];
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let written = ScriptText { folder: folder.clone(), ..ScriptText::typed(TEXT) };
    let text = Buffer::default();
    let bench = bench("bench", false);
    let chooser = Policy::default().chooser();
    let started = Recording::start(bench, chooser, "default", Some(&written), text.clone());
    let (bench, recording) = started.unwrap();
    let report = bench.run(Some(written.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    report.expect_clean();

    // Another value in a file is another story, and it is the values that count.
    std::fs::write(folder.join("one.bin"), [3, 0, 0, 0]).unwrap();
    let machine = start(|| self::bench("bench", false));
    let wrong = machine.play(written.play().unwrap()).unwrap_err().to_string();
    assert!(wrong.contains("test") || wrong.contains("--do:4"), "{wrong}");
    drop(machine.finish());

    // The record is of the files as they were, and says which one is not any more.
    let record = Record::parse("card", &text.text()).unwrap();
    let changed = record.bench(None, None, None).map(drop).unwrap_err().to_string();
    assert!(changed.contains("one.bin: has changed since"), "{changed}");
    std::fs::write(folder.join("one.bin"), [1, 0, 0, 0]).unwrap();
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let again = bench.run(play).unwrap();
    assert_eq!(comparison.difference(&again), None, "{again}");
    again.expect_clean();

    std::fs::remove_file(folder.join("two.bin")).unwrap();
    let refused = written.play().unwrap_err().to_string();
    assert!(refused.starts_with("--do:4:") && refused.contains("two.bin"), "{refused}");
}

#[test]
fn a_store_of_an_application_to_the_card_interrupts_as_one_of_the_drivers() {
    let machine = start(|| bench("bench", false));
    let file = machine.open(r"\\.\Card").unwrap();
    let answer = file.device_control(0x0022_3414, &[], 8).unwrap();
    let registers = u64::from_le_bytes(answer.try_into().unwrap());
    machine.store(registers + 8, &1_u32.to_le_bytes()).unwrap();
    assert_eq!(served(&machine), 1);
    assert_eq!(machine.load(registers + 0xC, 4).unwrap(), [0; 4], "the service routine has cleared it");
    assert!(machine.load(registers + 0x10_0000, 4).is_err());
    file.close().unwrap();
    assert!(machine.load(registers, 4).is_err(), "it goes with the handle");
    finish(machine);
}
