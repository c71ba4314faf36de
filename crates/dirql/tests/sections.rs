//! Stories of sections and views that a compiled driver tells and checks itself (`drivers/c/sections`), and of applications that share
//! memory and registers with it.

use std::path::Path;

use dirql::explore::Policy;
use dirql::{Bench, Error, Exploration, Machine, Play, Report, script};
use engine::Tracking;
use kernel::verdict::Tier;

use super::rig::{self, NoRoom, driver, play, start};

const DEVICE: &str = r"\\.\DirqlSections";

fn bench() -> Bench {
    Bench::new().driver(driver("sections.sys"))
}

fn with_card() -> Bench {
    bench().device("pci,id=1234:5678,bar0=mem:4K")
}

/// A story of the driver's table, which may have no finding, fast and checked.
fn tell(story: &str, checks: u32, bench: fn() -> Bench) {
    for checked in [false, true] {
        let machine = start(|| bench().checked(checked));
        rig::tell(machine, DEVICE, story, checks, &format!("checked {checked}"));
    }
}

/// A story that goes on, and its findings.
fn doubt(story: &str) -> Vec<(&'static str, Tier)> {
    let machine = start(bench);
    let made = rig::checks_made(&machine, DEVICE, story, &[]);
    let report = machine.finish();
    assert!(made.is_ok() && report.verdict.is_none(), "{story}: {made:?}\n{report}");
    report.findings.iter().map(|finding| (finding.rule, finding.tier)).collect()
}

/// A story that ends with a verdict.
fn wrong(story: &str, bench: impl Fn() -> Bench) -> Report {
    let machine = start(bench);
    let _ = rig::checks_made(&machine, DEVICE, story, &[]);
    machine.finish()
}

#[test]
fn two_views_of_a_section_are_one_memory_that_outlives_its_handle() {
    tell("TwoViews", 20, bench);
}

#[test]
fn an_offset_is_rounded_down_to_64_kib_and_the_view_holds_what_was_asked_for() {
    tell("Parts", 12, bench);
}

#[test]
fn pages_of_a_reserved_section_are_there_once_they_are_committed_for_all_views() {
    tell("Reserved", 8, bench);
}

#[test]
fn a_view_in_system_space_is_there_for_every_thread() {
    tell("SystemSpace", 17, bench);
}

#[test]
fn a_view_belongs_to_the_process_that_it_was_mapped_into() {
    tell("OwnProcess", 13, bench);
}

#[test]
fn a_section_that_cannot_be_is_refused_by_its_parameter() {
    tell("RefusedSections", 19, bench);
}

#[test]
fn a_view_that_cannot_be_is_refused_by_its_parameter() {
    tell("RefusedViews", 22, bench);
}

#[test]
fn a_named_section_is_found_as_long_as_a_handle_is_open() {
    tell("Names", 22, bench);
}

#[test]
fn a_drivers_own_memory_is_found_in_physical_memory() {
    tell("OwnRam", 9, bench);
}

#[test]
fn firmware_s_part_of_physical_memory_reads_as_ones_and_there_is_nothing_behind_its_end() {
    tell("Firmware", 8, bench);
}

#[test]
fn a_cards_window_in_physical_memory_is_the_one_that_mm_map_io_space_shows() {
    tell("CardsWindow", 12, with_card);
}

#[test]
fn every_story_holds_in_random_schedules() {
    let stories = rig::stories_before(start(bench), DEVICE, "CardsWindow");
    for seed in rig::seeds(4) {
        for story in &stories {
            let machine = start(|| bench().policy(Policy::random(seed)));
            let made = rig::checks_made(&machine, DEVICE, story, &[]);
            let report = machine.finish();
            assert!(made.is_ok(), "{story}, seed {seed}: {made:?}\n{report}");
            report.expect_clean();
        }
    }
}

#[test]
fn where_there_is_no_room_a_view_and_an_allocation_fail_and_nothing_is_left() {
    let machine = start(|| bench().chooser(NoRoom));
    play(
        &machine,
        r"open \\.\DirqlSections as s
        ioctl s 0x222400 out 8 expect STATUS_NO_MEMORY
        ioctl s 0x222408 out 8 expect STATUS_NO_MEMORY
        ioctl s 0x222410 in hex:00000000000000000100000000000000 out 8 expect STATUS_NO_MEMORY
        close s",
    );
    machine.finish().expect_clean();
}

/// Not: io-space-ram
#[test]
fn ram_of_others_in_a_view_is_told_and_is_ram_and_what_is_none_reads_as_ones() {
    assert_eq!(doubt("FirstMegabyte"), [("physical-memory-view", Tier::Warning); 2]);
}

#[test]
fn ram_is_cached_and_a_view_of_it_that_is_not_conflicts() {
    assert_eq!(doubt("UncachedRam"), []);
}

#[test]
fn what_a_process_is_shown_of_memory_or_a_card_is_its_own_only() {
    let benches = [(bench as fn() -> Bench, true), (with_card, false), (with_card, true)];
    let stories = ["TouchedElsewhere", "TouchedMappedElsewhere"];
    for (story, (bench, checked)) in stories.into_iter().flat_map(|story| benches.map(|how| (story, how))) {
        let report = wrong(story, || bench().checked(checked));
        let found = report.verdict.as_ref().unwrap_or_else(|| panic!("{report}"));
        assert_eq!(found.rule, "user-memory-elsewhere", "{report}");
        assert!(found.message.contains("an application's memory (process "), "{}", found.message);
        assert!(found.message.ends_with("in the context of a system thread"), "{}", found.message);
    }
}

#[test]
fn a_view_in_the_system_process_is_not_an_applications() {
    let report = wrong("TouchedByApplication", || bench().checked(true));
    let found = report.verdict.as_ref().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(found.rule, "user-memory-elsewhere", "{report}");
    assert!(found.message.contains("the user half of the system process"), "{}", found.message);
}

#[test]
fn memory_of_a_process_is_reserved_committed_decommitted_and_released() {
    tell("Allocates", 22, bench);
}

#[test]
fn memory_that_cannot_be_allocated_or_freed_is_refused_by_its_parameter() {
    tell("RefusedAllocations", 29, bench);
}

#[test]
fn two_processes_have_different_memory_at_one_address_each_when_its_thread_runs() {
    tell("OneAddress", 13, bench);
    for (seed, processors) in rig::seeds(8).flat_map(|seed| [(seed, 1), (seed, 2)]) {
        let machine =
            start(|| bench().policy(Policy::random(seed)).processors(processors).checked(seed % 2 == 0));
        rig::tell(machine, DEVICE, "OneAddress", 13, &format!("seed {seed}, {processors} processors"));
    }
}

/// Allocates a page in the process that asks, at an address or (0) anywhere; its address.
fn allocate(machine: &Machine, at: u64, value: u64) -> u64 {
    let file = machine.open(DEVICE).unwrap();
    let answer =
        file.device_control(0x0022_2410, &[at.to_le_bytes(), value.to_le_bytes()].concat(), 8).unwrap();
    file.close().unwrap();
    u64::from_le_bytes(answer.try_into().unwrap())
}

/// What the driver's thread finds there in a process.
fn seen(machine: &Machine, process: u64, at: u64) -> u64 {
    let file = machine.open(DEVICE).unwrap();
    let answer =
        file.device_control(0x0022_2414, &[process.to_le_bytes(), at.to_le_bytes()].concat(), 8).unwrap();
    file.close().unwrap();
    u64::from_le_bytes(answer.try_into().unwrap())
}

#[test]
fn applications_have_different_memory_at_one_address_and_a_driver_that_attaches_finds_each() {
    for (checked, processors) in [(false, 1), (true, 1), (true, 2)] {
        let machine = start(|| bench().checked(checked).processors(processors));
        let (one, two) = (machine.begin_process("one").unwrap(), machine.begin_process("two").unwrap());
        let at = machine.within(one, || allocate(&machine, 0, 111));
        assert_eq!(machine.within(two, || allocate(&machine, at, 222)), at);
        let own = |process| machine.within(process, || machine.load(at, 8).unwrap());
        assert_eq!((own(one), own(two)), (111_u64.to_le_bytes().to_vec(), 222_u64.to_le_bytes().to_vec()));
        assert!(machine.load(at, 8).is_err(), "the first application has nothing there");
        machine.within(two, || machine.store(at, &333_u64.to_le_bytes()).unwrap());
        assert_eq!(own(one), 111_u64.to_le_bytes());
        let id = |process| machine.process_id(process);
        assert_eq!((seen(&machine, id(one), at), seen(&machine, id(two), at)), (111, 333));
        machine.end_process(two);
        assert_eq!(seen(&machine, id(one), at), 111);
        assert_eq!(allocate(&machine, at, 444), at);
        machine.finish().expect_clean();
    }
}

/// A machine in which this happens can be taken back in the middle of it.
fn taken_back(tracking: Tracking) {
    let machine = start(|| bench().processors(2));
    let play = Play::new(
        script::parse(
            "test",
            r"open \\.\DirqlSections as s; ioctl s 0x223ff8 in text:OneAddress out 8 expect u32:0; close s",
        )
        .unwrap(),
        Path::new(""),
    );
    let explored = machine.explore(&play.unwrap(), tracking, |exploration| {
        let run = |exploration: &mut Exploration<'_>, seed: u64| {
            let report = exploration.run(Policy::random(seed).chooser());
            (report.trace_hash, report.memory_hash, report.verdict.is_none())
        };
        let first: Vec<_> = rig::seeds(6).map(|seed| run(exploration, seed)).collect();
        let again: Vec<_> = rig::seeds(6).map(|seed| run(exploration, seed)).collect();
        assert_eq!(first, again);
        assert!(first.iter().all(|(.., well)| *well));
    });
    match explored {
        Err(Error::Host(_)) if tracking == Tracking::Userfault => {}
        other => other.unwrap(),
    }
    machine.finish().expect_clean();
}

#[test]
fn a_machine_with_two_address_spaces_is_taken_back_by_faults() {
    taken_back(Tracking::Faults);
}

#[test]
fn a_machine_with_two_address_spaces_is_taken_back_by_userfaultfd() {
    taken_back(Tracking::Userfault);
}

#[test]
fn an_attached_thread_is_in_the_other_process_and_belongs_to_its_own() {
    tell("Attaches", 5, bench);
}

#[test]
fn secured_memory_is_neither_freed_nor_protected_further() {
    tell("Secures", 19, bench);
}

#[test]
fn an_application_and_a_driver_share_memory() {
    for checked in [false, true] {
        let machine = start(|| bench().checked(checked));
        play(
            &machine,
            r"open \\.\DirqlSections as s
            pointer memory ioctl s 0x222400 out 8
            load memory 8 expect u64:0
            store memory u64:41
            ioctl s 0x222404 out 8 expect u64:41
            load memory 8 at 8 expect u64:42
            load memory 8 at 0x3ff8 expect u64:0
            load memory 1 at 0x4000 expect STATUS_ACCESS_VIOLATION
            ioctl s 0x22240c out 8
            load memory 8 expect STATUS_ACCESS_VIOLATION
            close s",
        );
        machine.finish().expect_clean();
    }
}

#[test]
fn an_application_uses_a_cards_registers_by_a_view_of_physical_memory() {
    let machine = start(with_card);
    play(
        &machine,
        r"open \\.\DirqlSections as s
        pointer registers ioctl s 0x222408 out 8
        store registers u32:0x12345678 at 0x10
        load registers 4 at 0x10 expect u32:0x12345678
        load registers 2 at 0x12 expect u16:0x1234
        load registers 1 at 0x1000 expect STATUS_ACCESS_VIOLATION
        ioctl s 0x22240c out 8
        load registers 4 at 0x10 expect STATUS_ACCESS_VIOLATION
        close s",
    );
    machine.finish().expect_clean();
}

/// A view that nothing unmaps goes with its process, and is no leak of the driver's: the application may unmap it.
#[test]
fn a_view_goes_with_its_process() {
    let machine = start(with_card);
    play(&machine, r"open \\.\DirqlSections as s; pointer registers ioctl s 0x222408 out 8; close s");
    machine.finish().expect_clean();
}

#[test]
fn what_a_process_has_at_an_address_is_told_as_far_as_it_is_alike() {
    tell("AddressesAreKnown", 26, bench);
}
