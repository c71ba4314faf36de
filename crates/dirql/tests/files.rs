//! Stories of files, names and processes as correct drivers use them; each one failed here once.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use dirql::{Bench, Outcome, Report};
use rig::{driver, start};

const DEVICE: &str = r"\\.\DirqlFiles";

/// Has the driver tell a story of at least so many checks, all of which hold.
#[track_caller]
fn tell(index: u32, checks: u32) -> Report {
    let machine = start(|| Bench::new().driver(driver("files.sys")));
    rig::tell(machine, DEVICE, 0x0022_2000 + 4 * index, checks, &format!("story {index}"))
}

#[track_caller]
fn advice(report: &Report) -> Vec<&str> {
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    report.findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn a_null_buffer_with_a_length_is_no_buffer() {
    tell(0, 10);
}

/// Not: no-disk
#[test]
fn a_drivers_own_handle_is_not_checked_for_access() {
    tell(1, 5);
}

#[test]
fn a_driver_reads_who_opens_its_device_in_the_access_state() {
    tell(2, 9);
}

#[test]
fn extended_attributes_reach_the_driver_if_their_list_is_sound() {
    tell(3, 6);
}

#[test]
fn every_option_of_an_open_reaches_the_driver() {
    tell(4, 13);
}

#[test]
fn an_asynchronous_file_is_read_at_an_offset_or_not_at_all() {
    tell(5, 6);
}

#[test]
fn a_transfer_of_no_bytes_is_a_buffered_one_all_the_same() {
    tell(6, 6);
}

#[test]
fn the_cleanup_of_a_synchronous_file_waits_for_its_request() {
    tell(7, 6);
}

#[test]
fn a_string_constant_without_room_is_read_by_its_length() {
    assert_eq!(advice(&tell(8, 4)), ["malformed-string"; 4], "to each instruction, of each string");
}

#[test]
fn global_names_are_those_of_the_first_session() {
    tell(9, 4);
}

#[test]
fn a_file_on_a_disk_is_not_there_and_nobody_is_blamed() {
    assert_eq!(advice(&tell(10, 3)), ["no-disk"; 3]);
}

#[test]
fn defaults_apply_below_an_optional_key_that_is_missing() {
    tell(11, 4);
}

#[test]
fn empty_texts_among_many_are_told_too() {
    tell(12, 4);
}

#[test]
fn what_does_not_fit_is_cut_off_and_bits_are_cleared_by_words() {
    tell(13, 7);
}

#[test]
fn an_object_is_referenced_by_its_type_only_for_applications() {
    tell(14, 9);
}

#[test]
fn the_system_process_is_a_variable() {
    tell(15, 4);
}

#[test]
fn a_process_ends_with_its_application() {
    let machine = start(|| Bench::new().driver(driver("files.sys")));
    let file = machine.open(DEVICE).unwrap();
    file.device_control(0x0022_2000 + 4 * 0xFF, &[], 0).unwrap();
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(
        report.prints,
        [
            "files: 00000102 before, its id is still known",
            "files: a lookup after the last reference: c000000d"
        ],
        "{report}"
    );
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}
