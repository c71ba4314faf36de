//! Stories of a card that no model knows (`pci`), with what its data sheet says of its registers, and a driver written from it
//! (`sheet.sys`): a script sets and reads registers, raises the interrupt, and the driver's acknowledge lowers it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Error, Machine, Report};
use rig::{driver, start, try_play};

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
