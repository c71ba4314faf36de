//! Stories of drivers that claim resources by themselves, as on Windows NT 4 (`drivers/c/claims.c`).

use dirql::Bench;

use super::rig::{self, driver, start};

const CARD: &str = "pci,id=abcd:0001,bar0=mem:128,irq,reg0=0:12345678";

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("claims.sys")).device(CARD));
    rig::tell(machine, r"\\.\DirqlClaims", story, checks, "");
}

#[test]
fn a_driver_is_assigned_what_the_card_in_a_slot_has() {
    tell("OfTheCard", 13);
}

#[test]
fn a_claim_that_conflicts_with_another_is_refused_and_one_that_is_given_back_does_not() {
    tell("OfItsOwn", 11);
}

#[test]
fn what_a_card_has_is_not_given_for_detection() {
    tell("Detection", 6);
}

#[test]
fn requirements_are_met_where_nobody_is() {
    tell("OfItsChoice", 10);
}

#[test]
fn there_are_no_controllers_that_firmware_describes() {
    tell("Described", 1);
}
