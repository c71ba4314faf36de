//! Security as a compiled driver uses it (`drivers/c/security.c`): what it makes is held against what Microsoft's pages say.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::Bench;
use rig::{driver, start};

/// One story of the driver's table, with so many checks at least, once in a checked machine.
fn tell(index: u32, checks: u32) {
    for checked in [false, true] {
        let machine = start(|| Bench::new().driver(driver("security.sys")).checked(checked));
        let story = format!("story {index}");
        rig::tell(machine, r"\\.\DirqlSecurity", 0x0022_2000 + 4 * index, checks, &story);
    }
}

#[test]
fn an_identifier_is_made_copied_and_compared() {
    tell(0, 15);
}

#[test]
fn an_identifier_has_a_text() {
    tell(1, 6);
}

#[test]
fn generic_rights_mean_what_the_mapping_says() {
    tell(2, 4);
}

#[test]
fn a_list_takes_entries_at_its_end_and_in_front_as_long_as_they_fit() {
    tell(3, 35);
}

#[test]
fn an_absolute_descriptor_points_to_its_parts() {
    tell(4, 30);
}

#[test]
fn a_descriptor_in_one_piece_holds_what_the_absolute_one_points_to() {
    tell(5, 27);
}

#[test]
fn a_token_says_whose_process_it_is() {
    tell(6, 8);
}

#[test]
fn a_token_is_asked_class_by_class() {
    tell(7, 30);
}

#[test]
fn a_subject_context_has_the_token_of_its_process() {
    tell(8, 5);
}

#[test]
fn access_is_granted_entry_by_entry_in_their_order() {
    tell(9, 20);
}

#[test]
fn a_privilege_grants_what_no_list_does() {
    tell(10, 12);
}

#[test]
fn a_captured_descriptor_is_a_copy_and_a_logged_one_is_shared() {
    tell(11, 14);
}

#[test]
fn a_new_descriptor_is_of_what_is_said_handed_down_and_usual() {
    tell(12, 30);
}

#[test]
fn a_device_has_a_descriptor_that_its_driver_may_change() {
    tell(13, 15);
}
