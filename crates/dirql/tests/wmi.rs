//! Stories of WMI: a function driver that offers its blocks through the library (`drivers/c/wmi.c`), one that handles the requests by itself and
//! asks its own blocks (`drivers/c/wmi_raw.c`), and what an administrator's program sees of both.

use dirql::explore::Policy;
use dirql::{Bench, Machine, Report, WmiInstance, WmiQuestion};
use engine::{Chooser, Point};
use kernel::verdict::Tier;

use super::rig::{self, driver, start, try_play};

const CARD: &str = "pci,id=abcd:0001,bar0=mem:128,irq";
const COUNTERS: &str = "block:{D1B0C0DE-0000-4000-8000-000000000001}";
const METHODS: &str = "block:{D1B0C0DE-0000-4000-8000-000000000002}";
const EVENTS: &str = "block:{D1B0C0DE-0000-4000-8000-000000000003}";

fn bench(sys: &str) -> Bench {
    Bench::new().driver(driver(sys)).device(CARD)
}

/// A script with the names of blocks in it.
fn named(text: &str) -> String {
    text.replace("COUNTERS", COUNTERS).replace("METHODS", METHODS).replace("EVENTS", EVENTS)
}

fn run_on(bench: impl Fn() -> Bench, text: &str) -> Report {
    let machine = start(bench);
    let played = try_play(&machine, &named(text));
    let report = machine.finish();
    assert!(played.is_ok() || report.verdict.is_some(), "{played:?}\n{report}");
    report
}

/// Carried out by the library's driver, clean, with nothing left; what the driver has printed.
fn run(text: &str) -> Vec<String> {
    let machine = start(|| bench("wmi.sys"));
    let played = try_play(&machine, &named(text));
    let prints = machine.prints();
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{prints:?}\n{report}");
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    assert!(report.findings.is_empty(), "{report}");
    prints
}

#[test]
fn an_administrator_reads_all_instances_of_a_block_or_one() {
    let prints = run("wait 1ms
         wmi query COUNTERS expect hex:10111213_20212223242526272829
         wmi query COUNTERS instance 1 expect hex:20212223242526272829
         wmi query COUNTERS instance 2 expect STATUS_WMI_INSTANCE_NOT_FOUND
         wmi query METHODS expect u32:0
         wmi query EVENTS expect STATUS_WMI_GUID_NOT_FOUND
         wmi query block:{D1B0C0DE-0000-4000-8000-000000000099} expect STATUS_WMI_GUID_NOT_FOUND");
    // Expensive data are collected while a program has the block open.
    let switches: Vec<&str> = prints.iter().map(|line| line.trim()).collect();
    assert_eq!(switches, ["wmi: data of block 1 on", "wmi: data of block 1 off"].repeat(3));
}

#[test]
fn an_instance_and_an_item_of_it_are_set() {
    run("wait 1ms
         wmi set COUNTERS instance 1 hex:aabbccddeeff
         wmi query COUNTERS instance 1 expect hex:aabbccddeeff
         wmi set COUNTERS item 1 u32:0x01020304
         wmi query COUNTERS expect hex:04030201_aabbccddeeff
         wmi set COUNTERS item 2 u32:0 expect STATUS_WMI_ITEMID_NOT_FOUND
         wmi set COUNTERS item 1 hex:00 expect STATUS_WMI_SET_FAILURE
         wmi set COUNTERS instance 0 zero:17 expect STATUS_WMI_SET_FAILURE
         wmi set COUNTERS instance 5 hex:00 expect STATUS_WMI_INSTANCE_NOT_FOUND
         wmi set METHODS hex:00 expect STATUS_WMI_READ_ONLY");
}

#[test]
fn a_method_is_run_with_input_and_output_and_again_where_its_buffer_was_too_small() {
    let prints = run("wait 1ms
         wmi execute METHODS method 1 in u32:40 + u32:2 out 4 expect u32:42
         wmi execute METHODS method 2 in u32:3 out 3 expect hex:5a5a5a
         wmi query METHODS expect u32:2
         wmi execute METHODS method 4 expect STATUS_WMI_ITEMID_NOT_FOUND
         wmi execute COUNTERS method 1 expect STATUS_WMI_ITEMID_NOT_FOUND
         wmi execute METHODS method 2 in u32:0x2000 out 4 expect bytes 0x2000");
    assert!(prints.iter().any(|line| line.contains("method 2 needs 8192 bytes")), "{prints:?}");
}

#[test]
fn events_come_from_when_they_are_enabled_until_they_are_disabled() {
    let prints = run("wait 1ms
         wmi execute METHODS method 3 in text:lost
         wait 1ms
         wmi enable EVENTS
         wmi enable EVENTS expect STATUS_WMI_ALREADY_ENABLED
         wmi execute METHODS method 3 in text:first
         wmi execute METHODS method 3 in text:second
         wmi event EVENTS expect text:first
         wmi event EVENTS expect text:second
         wmi execute METHODS method 3
         wmi event EVENTS expect bytes 0
         wmi disable EVENTS
         wmi disable EVENTS expect STATUS_WMI_ALREADY_DISABLED
         wmi execute METHODS method 3 in text:late
         wmi event EVENTS expect STATUS_NO_MORE_ENTRIES");
    let switches: Vec<&str> =
        prints.iter().map(|line| line.trim()).filter(|line| line.contains("events")).collect();
    assert_eq!(switches, ["wmi: events of block 3 on", "wmi: events of block 3 off"]);
}

#[test]
fn blocks_are_named_after_the_device_and_go_and_come_with_it() {
    let machine = start(|| bench("wmi.sys"));
    machine.wait(1_000_000).unwrap();
    let blocks = machine.wmi_blocks().unwrap();
    assert_eq!(blocks.len(), 3);
    let names = blocks[0].names.clone().unwrap();
    assert_eq!(names.len(), 2);
    assert!(names[0].starts_with(r"PCI\VEN_ABCD&DEV_0001") && names[0].ends_with("_0"), "{names:?}");
    let counters = COUNTERS.strip_prefix("block:").unwrap();
    let by_name = WmiInstance::Name(names[1].clone());
    assert_eq!(machine.wmi(counters, &by_name, &WmiQuestion::Query).unwrap().len(), 10);
    try_play(&machine, &named(&format!("wmi query COUNTERS name \"{}\" expect bytes 10", names[1]))).unwrap();
    machine.stop_device("pci#0").unwrap();
    assert!(machine.wmi_blocks().unwrap().is_empty());
    assert!(machine.wmi(counters, &WmiInstance::All, &WmiQuestion::Query).is_err());
    machine.start_device("pci#0").unwrap();
    machine.wait(1_000_000).unwrap();
    assert_eq!(machine.wmi_blocks().unwrap().len(), 3);
    machine.surprise_remove("pci#0").unwrap();
    assert!(machine.wmi_blocks().unwrap().is_empty());
    machine.finish().expect_clean();
}

/// Not: wmi-bad-block, wmi-still-registered, wmi-deregistered-twice, wmi-pdo-not-referenced
#[test]
fn whoever_asks_sets_and_runs_methods_while_the_device_comes_and_goes_accuses_nobody() {
    let text = named(
        r"t: wmi query COUNTERS expect any
          u: wmi set COUNTERS instance 1 zero:16 expect any
          u: wmi query METHODS expect any
          v: wmi execute METHODS method 1 in u32:1 + u32:1 out 4 expect any
          wmi enable EVENTS expect any
          t: wmi execute METHODS method 3 in text:event expect any
          stop-device; start-device
          t: wmi query COUNTERS expect any
          join t; join u; join v
          wmi disable EVENTS",
    );
    for seed in rig::seeds(30) {
        let made = || bench("wmi.sys").processors(2).policy(Policy::random(seed));
        let machine = start(made);
        let played = try_play(&machine, &text);
        let report = machine.finish();
        assert!(played.is_ok(), "seed {seed}: {played:?}\n{report}");
        report.expect_clean();
        assert!(report.findings.is_empty(), "seed {seed}: {report}");
        assert_eq!(report.sums.still_allocated(), 0, "seed {seed}: {report}");
    }
}

#[test]
fn a_driver_that_says_it_has_written_more_than_there_was_room_for_is_told() {
    let report = run_on(|| bench("wmi_overruns.sys"), "wait 1ms; wmi query COUNTERS expect any");
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "wmi-bad-block", "{report}");
    assert!(verdict.message.contains("BufferUsed of WmiCompleteRequest"), "{report}");
}

#[test]
fn a_device_that_is_deleted_and_still_registered_is_told_and_asked_no_more() {
    let report = run_on(
        || bench("wmi_stays.sys"),
        "wait 1ms; remove-device; wmi query COUNTERS expect STATUS_WMI_GUID_NOT_FOUND",
    );
    report.expect_clean();
    let found: Vec<_> = report.findings.iter().map(|found| (found.rule, found.tier)).collect();
    assert_eq!(found, [("wmi-still-registered", Tier::Verifier)], "{report}");
    assert_eq!(
        report.findings[0].bug_check.map(|check| (check.code, check.parameters[0])),
        Some((0xC4, 0xDB))
    );
}

#[test]
fn a_device_object_in_a_registration_that_was_not_referenced_is_told() {
    let report = run_on(|| bench("wmi_by_hand.sys"), "wait 1ms; wmi query COUNTERS expect bytes 14");
    let found: Vec<_> = report.findings.iter().map(|found| (found.rule, found.tier)).collect();
    // Once for each start of the default life.
    assert_eq!(found, [("wmi-pdo-not-referenced", Tier::Warning)], "{report}");
}

// ---- wmi_raw.sys ----

fn raw() -> Machine {
    start(|| Bench::new().driver(driver("wmi_raw.sys")))
}

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    rig::tell(raw(), r"\\.\DirqlWmiRaw", story, checks, "");
}

#[test]
fn a_driver_reads_all_instances_with_the_names_that_their_driver_says_or_has_registered() {
    tell("AllInstances", 21);
}

#[test]
fn a_driver_reads_and_sets_one_instance_by_its_name() {
    tell("OneInstance", 16);
}

#[test]
fn a_driver_runs_a_method() {
    tell("Methods", 6);
}

#[test]
fn a_driver_is_told_of_events_which_their_provider_sends_while_somebody_listens() {
    tell("Events", 12);
}

#[test]
fn instances_have_numbers_and_names_that_are_suggested_and_found() {
    tell("Names", 16);
}

#[test]
fn a_driver_asks_several_blocks_at_once() {
    tell("Several", 9);
}

#[test]
fn blocks_are_taken_away_and_come_back_by_updates_of_the_registration() {
    tell("Updates", 7);
}

#[test]
fn a_registration_is_refused_where_it_makes_no_sense() {
    tell("Registrations", 13);
}

#[test]
fn consumers_may_be_at_apc_level() {
    tell("Levels", 1);
}

#[test]
fn an_event_that_is_too_large_is_asked_for() {
    tell("LargeEvent", 3);
}

fn stopped(story: &str) -> Report {
    let machine = raw();
    let _ = try_play(&machine, &format!(r"open \\.\DirqlWmiRaw as w; {}", rig::command("w", story)));
    machine.finish()
}

#[test]
fn who_deregisters_in_a_request_waits_for_itself() {
    let report = stopped("DeregistersInRequest");
    assert_eq!(report.expect_verdict().rule, "wmi-deregistered-in-request", "{report}");
}

#[test]
fn an_object_whose_last_reference_is_gone_is_no_block() {
    let report = stopped("WrongObject");
    assert_eq!(report.expect_verdict().rule, "not-a-wmi-block", "{report}");
}

/// First buffers have room for no data.
struct SmallBuffers;

impl Chooser for SmallBuffers {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        u32::from(point == Point("wmi.small_buffer"))
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

#[test]
fn first_buffers_that_are_small_are_a_choice_that_drivers_have_to_stand() {
    let machine = start(|| bench("wmi.sys").chooser(SmallBuffers));
    let text = "wait 1ms
        wmi query COUNTERS expect bytes 14
        wmi query COUNTERS instance 1 expect bytes 10
        wmi query METHODS expect u32:0";
    let played = try_play(&machine, &named(text));
    let prints = machine.prints();
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report.expect_clean();
    assert_eq!(prints.iter().filter(|line| line.contains("bytes are too few")).count(), 2, "{prints:?}");
}
