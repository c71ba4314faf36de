//! Stories of files, names and processes as correct drivers use them; each one failed here once.

use dirql::{Bench, Outcome, Report};

use super::rig::{self, driver, start};

const DEVICE: &str = r"\\.\DirqlFiles";

/// Has the driver tell a story of at least so many checks, all of which hold.
#[track_caller]
fn tell(story: &str, checks: u32) -> Report {
    let machine = start(|| Bench::new().driver(driver("files.sys")));
    rig::tell(machine, DEVICE, story, checks, "")
}

/// What was found but for what the driver's second device is for: that names behind its own are opened as they are.
#[track_caller]
fn advice(report: &Report) -> Vec<&str> {
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    let rules = report.findings.iter().map(|finding| finding.rule);
    rules.filter(|rule| *rule != "device-not-secure-open").collect()
}

#[test]
fn a_null_buffer_with_a_length_is_no_buffer() {
    tell("NullBuffers", 10);
}

/// Not: no-disk
#[test]
fn a_drivers_own_handle_is_not_checked_for_access() {
    tell("AccessOfHandles", 5);
}

#[test]
fn a_driver_reads_who_opens_its_device_in_the_access_state() {
    tell("AccessStates", 9);
}

#[test]
fn extended_attributes_reach_the_driver_if_their_list_is_sound() {
    tell("ExtendedAttributes", 6);
}

#[test]
fn every_option_of_an_open_reaches_the_driver() {
    tell("Options", 13);
}

#[test]
fn an_asynchronous_file_is_read_at_an_offset_or_not_at_all() {
    tell("Offsets", 6);
}

#[test]
fn a_transfer_of_no_bytes_is_a_buffered_one_all_the_same() {
    tell("EmptyTransfers", 6);
}

#[test]
fn the_cleanup_of_a_synchronous_file_waits_for_its_request() {
    tell("CleanupComesLater", 6);
}

#[test]
fn a_string_constant_without_room_is_read_by_its_length() {
    assert_eq!(
        advice(&tell("ShortMaximum", 4)),
        ["malformed-string"; 4],
        "to each instruction, of each string"
    );
}

#[test]
fn global_names_are_those_of_the_first_session() {
    tell("GlobalNames", 4);
}

#[test]
fn a_file_on_a_disk_is_not_there_and_nobody_is_blamed() {
    assert_eq!(advice(&tell("FilesOnDisks", 3)), ["no-disk"; 3]);
}

#[test]
fn defaults_apply_below_an_optional_key_that_is_missing() {
    tell("RegistryDefaults", 4);
}

#[test]
fn empty_texts_among_many_are_told_too() {
    tell("MultipleTexts", 4);
}

#[test]
fn what_does_not_fit_is_cut_off_and_bits_are_cleared_by_words() {
    tell("ShortStrings", 7);
}

#[test]
fn an_object_is_referenced_by_its_type_only_for_applications() {
    tell("Objects", 9);
}

#[test]
fn the_system_process_is_a_variable() {
    tell("SystemProcess", 4);
}

#[test]
fn a_process_ends_with_its_application() {
    let machine = start(|| Bench::new().driver(driver("files.sys")));
    let file = machine.open(DEVICE).unwrap();
    file.device_control(0x0022_23FC, &[], 0).unwrap();
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

#[test]
fn an_application_asks_and_sets_what_is_known_of_a_file_and_has_it_flushed() {
    let script = r"open \\.\DirqlSystem as f
        set f FileEndOfFileInformation u64:0x1234
        query f FileStandardInformation 24 expect u64:0 + u64:0x1234 + u64:0
        query f FileStandardInformation 20 expect STATUS_INFO_LENGTH_MISMATCH
        query f 9 20 expect STATUS_INVALID_PARAMETER
        set f FilePositionInformation u64:0x100
        query f FilePositionInformation 8 expect u64:0x100
        query f FilePositionInformation 7 expect STATUS_INFO_LENGTH_MISMATCH
        query f FileModeInformation 4 expect u32:0x20
        set f FileDispositionInformation hex:01 expect STATUS_INVALID_PARAMETER
        flush f
        close f
        open \\.\DirqlSystem as r read-only
        flush r expect STATUS_ACCESS_DENIED
        close r
        open \\.\DirqlSystem as o overlapped
        query o FilePositionInformation 8 expect STATUS_INVALID_PARAMETER
        query o FileStandardInformation 24 expect u64:0 + u64:0x1234 + u64:0
        flush o
        close o";
    for checked in [false, true] {
        let machine = start(|| Bench::new().driver(driver("system.sys")).checked(checked));
        rig::play(&machine, script);
        rig::finish(machine);
    }
    let machine = start(|| Bench::new().driver(driver("legacy.sys")));
    rig::play(&machine, r"open \\.\DirqlLegacy as f; flush f expect STATUS_INVALID_DEVICE_REQUEST; close f");
    rig::finish(machine);
}

#[test]
fn a_duplicate_is_a_handle_to_the_same_file_which_ends_with_the_last() {
    let machine = start(|| Bench::new().driver(driver("legacy.sys")));
    rig::play(
        &machine,
        r"open \\.\DirqlLegacy as f
        write f text:hello
        duplicate f as g
        close f
        ioctl g 0x226010 out 20 expect prefix u32:4096 + u32:5 + u32:1
        read g 5 at 0 expect text:hello
        query g FilePositionInformation 8 expect u64:5
        open \\.\DirqlLegacy as h
        ioctl h 0x226010 out 20 expect prefix u32:4096 + u32:5 + u32:2
        close g
        ioctl h 0x226010 out 20 expect prefix u32:4096 + u32:5 + u32:1
        close h",
    );
    // In Rust alike.
    let first = machine.open(r"\\.\DirqlLegacy").unwrap();
    let second = first.duplicate().unwrap();
    first.set_information(14, &3u64.to_le_bytes()).unwrap();
    assert_eq!(second.query_information(14, 8).unwrap(), 3u64.to_le_bytes());
    first.close().unwrap();
    assert_eq!(second.read(2).unwrap(), b"lo");
    assert!(matches!(second.flush(), Err(dirql::Error::Status { status: 0xC000_0010, .. })));
    second.close().unwrap();
    rig::finish(machine);
}
