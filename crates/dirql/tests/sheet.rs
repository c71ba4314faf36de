//! Stories of a card that no model knows (`pci`), with what its data sheet says of its registers, and a driver written from it
//! (`sheet.sys`): a script sets and reads registers, raises the interrupt, and the driver's acknowledge lowers it.

use dirql::{Bench, Error, Machine, Report};

use super::rig::{driver, start, try_play};

/// What the data sheet says of a revision's interrupt.
const REVISIONS: [&str; 5] = [
    "status0=8,enable0=4,ack0=c",
    "enable0=4,ack0=8",
    "enable0=4,ack0=8:zeros",
    "status0=8,enable0=4,ack0=c:write",
    "enable0=4,ack0=8:read",
];
const WAIT: u32 = 0x0022_2000;

fn card(revision: usize) -> String {
    let rule = REVISIONS[revision - 1];
    format!("pci,id=abcd:0001,bar0=mem:128,irq,reg0=0:5ee7000{revision}+10:cafe,{rule}")
}

fn machine(revision: usize) -> Machine {
    start(|| Bench::new().driver(driver("sheet.sys")).device(card(revision)))
}

fn run(revision: usize, script: &str) -> Report {
    let machine = machine(revision);
    // What goes wrong stands in the report.
    let _ = try_play(&machine, script);
    machine.finish()
}

#[test]
fn a_script_raises_the_interrupt_and_the_drivers_acknowledge_lowers_it_by_each_rule() {
    for revision in 1..=REVISIONS.len() {
        let report = run(
            revision,
            r"open \\.\Sheet as s overlapped
              async w ioctl s 0x222000 out 8
              wait 1ms
              expect pending w
              poke pci#0 bar0+10 0x1234
              poke pci#0 irq 0x81
              join w expect u32:0x81 + u32:0x1234
              peek pci#0 bar0+8 expect u32:0
              async v ioctl s 0x222000 out 8
              expect pending v
              poke pci#0 irq 2
              join v expect u32:2 + u32:0x1234
              ioctl s 0x222008 out 0x20 expect prefix u32:0x1234 + u32:1 + u32:2",
        );
        report.expect_clean();
        assert_eq!(report.sums.interrupts, (2, 0), "revision {revision}: one for each poke\n{report}");
    }
}

#[test]
fn causes_that_are_not_enabled_wait_until_they_are() {
    let report = run(
        2,
        r"open \\.\Sheet as s overlapped
          ioctl s 0x222004 in u32:0xfffffffe
          async w ioctl s 0x222000 out 8
          poke pci#0 irq 1
          wait 1ms
          expect pending w
          peek pci#0 bar0+8 expect u32:1
          peek pci#0 bar0+4 expect u32:0xfffffffe
          ioctl s 0x222004 in u32:1
          join w expect u32:1 + u32:0xcafe",
    );
    report.expect_clean();
}

#[test]
fn a_driver_that_acknowledges_by_another_cards_rule_is_in_a_storm() {
    // It believes the identification, and the card is another revision than it says.
    let device = "pci,id=abcd:0001,bar0=mem:128,irq,reg0=0:5ee70002,enable0=4,ack0=8:zeros";
    let machine = start(|| Bench::new().driver(driver("sheet.sys")).device(device));
    let _ = try_play(&machine, "poke pci#0 irq 1");
    let report = machine.finish();
    assert_eq!(report.expect_verdict().rule, "interrupt-storm", "{report}");
    assert!(report.to_string().contains("pci#0"), "{report}");
}

#[test]
fn a_driver_that_finds_another_card_refuses_to_start() {
    let machine =
        start(|| Bench::new().driver(driver("sheet.sys")).device("pci,id=abcd:0001,bar0=mem:128,irq"));
    assert!(!machine.is_ready());
    let report = machine.finish();
    assert_eq!(report.prints, ["sheet: the card says it is 00000000"], "{report}");
}

// ---- stopped, and started elsewhere ----

const STATE: u32 = 0x0022_2008;

/// What the driver knows: starts, vector, where BAR0 is.
fn state(sheet: &dirql::Handle<'_>) -> (u32, u32, u64) {
    let state = sheet.device_control(STATE, &[], 0x20).unwrap();
    let word = |at: usize| u32::from_le_bytes(state[at..at + 4].try_into().unwrap());
    (word(4), word(12), u64::from_le_bytes(state[16..24].try_into().unwrap()))
}

/// Not: stale-resource-used, io-space-still-mapped, interrupt-not-assigned
#[test]
fn a_driver_that_maps_and_connects_anew_works_wherever_its_device_is_started() {
    let machine = machine(1);
    let sheet = machine.open_overlapped(r"\\.\Sheet").unwrap();
    let first = state(&sheet);
    let mut seen = vec![(first.1, first.2)];
    for start in 2..=5 {
        machine.stop_device("pci#0").unwrap();
        machine.start_device_elsewhere("pci#0").unwrap();
        let (starts, vector, base) = state(&sheet);
        assert_eq!(starts, start);
        assert!(!seen.contains(&(vector, base)), "{vector:#x}, {base:#x}: it was there before: {seen:x?}");
        let (last_vector, last_base) = seen[seen.len() - 1];
        assert!(vector != last_vector && base != last_base, "both are others");
        seen.push((vector, base));
        let wait = sheet.begin_device_control(WAIT, &[], 8).unwrap();
        machine.poke("pci#0", "irq", 4).unwrap();
        assert_eq!(wait.wait().unwrap().data[..4], [4, 0, 0, 0]);
    }
    machine.finish().expect_clean();
}

/// Not: stale-resource-used
#[test]
fn a_device_that_is_started_where_it_was_has_what_it_had() {
    let machine = machine(1);
    let sheet = machine.open(r"\\.\Sheet").unwrap();
    let (_, vector, base) = state(&sheet);
    machine.stop_device("pci#0").unwrap();
    machine.start_device("pci#0").unwrap();
    assert_eq!(state(&sheet), (2, vector, base));
    machine.finish().expect_clean();
}

#[test]
fn a_driver_that_goes_on_with_its_old_addresses_is_told_where_its_device_is() {
    let machine = start(|| Bench::new().driver(driver("sheet_stale.sys")).device(card(1)));
    try_play(&machine, "stop-device; start-device pci#0 elsewhere").unwrap_err();
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "stale-resource-used", "{report}");
    for part in ["bus address 0xe0000000", "BAR0 of pci#0 was", "is at 0xe0001000"] {
        assert!(verdict.message.contains(part), "no `{part}`\n{report}");
    }
    assert!(report.findings.iter().any(|finding| finding.rule == "io-space-still-mapped"), "{report}");
}

#[test]
fn the_default_life_of_a_device_is_enough_to_find_a_driver_that_keeps_its_addresses_or_its_vector() {
    for (sys, rule) in
        [("sheet_stale.sys", "stale-resource-used"), ("sheet_deaf.sys", "interrupt-not-assigned")]
    {
        let report = start(|| Bench::new().driver(driver(sys)).device(card(1))).carry_out(None);
        let found = report.verdict.iter().chain(&report.findings).any(|finding| finding.rule == rule);
        assert!(found, "{sys}\n{report}");
    }
    start(|| Bench::new().driver(driver("sheet.sys")).device(card(1))).carry_out(None).expect_clean();
}

#[test]
fn a_driver_that_connects_to_its_old_vector_is_told_which_its_device_has() {
    let machine = start(|| Bench::new().driver(driver("sheet_deaf.sys")).device(card(1)));
    try_play(&machine, "stop-device; start-device elsewhere").unwrap();
    let report = machine.finish();
    let found: Vec<_> =
        report.findings.iter().filter(|finding| finding.rule == "interrupt-not-assigned").collect();
    assert!(!found.is_empty(), "{report}");
    assert!(found[0].message.contains("given to none of its devices: pci#0 has 0x"), "{report}");
}

#[test]
fn a_driver_that_asks_for_other_resources_is_stopped_and_started_elsewhere_or_started_as_it_runs() {
    // PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED, alone and with PNP_DEVICE_FAILED.
    for (code, stops) in [(0x0022_200C, 0), (0x0022_2010, 1)] {
        let machine = machine(1);
        let sheet = machine.open(r"\\.\Sheet").unwrap();
        let (_, vector, base) = state(&sheet);
        sheet.device_control(code, &[], 0).unwrap();
        machine.wait(1_000_000).unwrap();
        let answer = sheet.device_control(STATE, &[], 0x20).unwrap();
        assert_eq!((answer[0x18], answer[0x1C]), (stops, stops), "asked and stopped so often");
        let (starts, now_vector, now_base) = state(&sheet);
        assert_eq!(starts, 2);
        assert!(now_vector != vector && now_base != base, "both are others");
        machine.finish().expect_clean();
    }
}

#[test]
fn a_test_in_rust_sets_and_reads_registers_too() {
    let machine = machine(1);
    let sheet = machine.open_overlapped(r"\\.\Sheet").unwrap();
    let wait = sheet.begin_device_control(WAIT, &[], 8).unwrap();
    assert_eq!(machine.peek("pci#0", "bar0+0"), Ok(0x5EE7_0001));
    assert_eq!(machine.peek("pci#0", "bar0+4"), Ok(u32::MAX), "the driver has enabled all causes");
    machine.poke("pci#0", "bar0+10", 7).unwrap();
    machine.poke("pci#0", "irq", 0x10).unwrap();
    assert_eq!(wait.wait().unwrap().data, [0x10, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(machine.peek("pci#0", "bar0+8"), Ok(0));
    let refused = |why: Result<(), Error>| why.unwrap_err().to_string();
    assert_eq!(
        refused(machine.poke("pci#0", "bar0+80", 0)),
        "pci#0: `bar0+80`: the window has only 80h bytes"
    );
    assert_eq!(refused(machine.poke("pci#0", "bar1+0", 0)), "pci#0: `bar1+0`: it has no BAR 1");
    assert!(
        refused(machine.poke("pci#1", "irq", 0)).contains("no device `pci#1` on the bus; there are: pci#0")
    );
    machine.finish().expect_clean();
}

#[test]
fn a_device_whose_button_is_pressed_is_removed_unless_it_is_open() {
    let report = run(
        1,
        r"open \\.\Sheet as s
          ioctl s 0x222014
          wait 1ms
          ioctl s 0x222008 out 0x20
          ioctl s 0x222014 in u32:1
          close s
          wait 1ms
          open \\.\Sheet as t expect failure",
    );
    report.expect_clean();
}
