//! Stories of a driver without hardware or Plug and Play: every way a request carries data.

use dirql::{Bench, Error, Machine};

use super::rig::{self, driver, play, start};

const UPPERCASE: u32 = 0x0022_2000;
const STORE: u32 = 0x0022_A005;
const SUM: u32 = 0x0022_200A;
const REVERSE: u32 = 0x0022_200F;
const STATE: u32 = 0x0022_6010;
const END_OF_FILE: u32 = 0xC000_0011;

fn legacy() -> Machine {
    start(|| Bench::new().driver(driver("legacy.sys")))
}

#[test]
fn without_a_request_the_driver_is_loaded_and_unloaded() {
    let report = legacy().finish();
    report.expect_clean();
    assert!(report.prints[0].contains(r"Services\legacy, keeps 4096 bytes"), "{report}");
    assert_eq!(report.prints[1], "legacy: unloaded");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn what_is_written_is_read_back_from_where_it_was_put() {
    let machine = legacy();
    let file = machine.open(r"\\.\DirqlLegacy").unwrap();
    assert_eq!(file.write(b"hello").unwrap(), 5);
    assert_eq!(file.write(b" world").unwrap(), 6, "the file has a position");
    assert_eq!(file.read_at(64, Some(4)).unwrap(), b"o world");
    assert_eq!(file.write_at(b"J", Some(0)).unwrap(), 1);
    assert_eq!(file.read_at(5, Some(0)).unwrap(), b"Jello");
    match file.read_at(1, Some(4096)) {
        Err(Error::Status { status: END_OF_FILE, .. }) => {}
        other => panic!("{other:?}"),
    }
    file.close().unwrap();
    machine.finish().expect_clean();
}

#[test]
fn a_program_unloads_the_driver_with_the_last_file_and_one_of_plug_and_play_stays() {
    let machine = legacy();
    play(
        &machine,
        r#"open \\.\DirqlLegacy as h
unload expect success
open \\.\DirqlLegacy as i expect failure
write h text:still
close h
expect print "legacy: unloaded"
unload expect STATUS_OBJECT_NAME_NOT_FOUND
open \\.\DirqlLegacy as i expect STATUS_OBJECT_NAME_NOT_FOUND"#,
    );
    machine.finish().expect_clean();
    let machine = start(|| Bench::new().driver(driver("edu.sys")).device("edu"));
    play(&machine, "unload expect STATUS_INVALID_DEVICE_REQUEST");
    machine.finish().expect_clean();
}

#[test]
fn buffered_control_codes_share_one_buffer() {
    let machine = legacy();
    let file = machine.open(r"\\.\DirqlLegacy").unwrap();
    assert_eq!(file.device_control(UPPERCASE, b"irql", 16).unwrap(), b"IRQL");
    assert!(file.device_control(UPPERCASE, b"irql", 3).is_err(), "the output would not fit");
    machine.finish().expect_clean();
}

#[test]
fn direct_control_codes_reach_the_buffer_by_its_pages() {
    let machine = legacy();
    let file = machine.open(r"\\.\DirqlLegacy").unwrap();
    // The "output" buffer of METHOD_IN_DIRECT is read by the driver: 4 zero bytes are kept from offset 2 on.
    file.write(b"abcdefgh").unwrap();
    let kept = file.try_device_control(STORE, &2_u32.to_le_bytes(), 4).unwrap();
    assert_eq!((kept.status, kept.information), (0, 4));
    assert_eq!(file.read_at(8, Some(0)).unwrap(), b"ab\0\0\0\0gh");
    let numbers: Vec<u8> = [1_u32, 2, 39].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(file.device_control(SUM, &numbers, 8).unwrap(), [3, 0, 0, 0, 42, 0, 0, 0]);
    machine.finish().expect_clean();
}

#[test]
fn a_large_direct_buffer_crosses_pages_that_do_not_lie_together() {
    let machine = legacy();
    let file = machine.open(r"\\.\DirqlLegacy").unwrap();
    let numbers = vec![1_u8; 64 << 10];
    let sum = file.device_control(SUM, &numbers, 8).unwrap();
    assert_eq!(u32::from_le_bytes(sum[..4].try_into().unwrap()), 16384);
    assert_eq!(u32::from_le_bytes(sum[4..].try_into().unwrap()), 0x0101_0101_u32.wrapping_mul(16384));
    machine.finish().expect_clean();
}

#[test]
fn a_neither_control_code_uses_the_callers_own_addresses() {
    let machine = legacy();
    let file = machine.open(r"\\.\DirqlLegacy").unwrap();
    assert_eq!(file.device_control(REVERSE, b"desserts", 8).unwrap(), b"stressed");
    machine.finish().expect_clean();
}

#[test]
fn a_handle_counts_as_open_until_it_is_closed() {
    let machine = legacy();
    let first = machine.open(r"\\.\DirqlLegacy").unwrap();
    let second = machine.open(r"\\.\DirqlLegacy").unwrap();
    let handles = |state: Vec<u8>| state[8];
    assert_eq!(handles(first.device_control(STATE, &[], 20).unwrap()), 2);
    second.close().unwrap();
    assert_eq!(handles(first.device_control(STATE, &[], 20).unwrap()), 1);
    machine.finish().expect_clean();
}

#[test]
fn a_name_nobody_made_known_cannot_be_opened() {
    let machine = legacy();
    play(&machine, r"open \\.\Absent as none expect STATUS_OBJECT_NAME_NOT_FOUND");
    assert!(matches!(machine.open(r"\\.\Absent"), Err(Error::Status { status: 0xC000_0034, .. })));
    machine.finish().expect_clean();
}

#[test]
fn a_handle_for_reading_cannot_write() {
    let machine = legacy();
    play(
        &machine,
        r"open \\.\DirqlLegacy as in read-only
          write in hex:00 expect STATUS_ACCESS_DENIED
          read in 1 expect STATUS_END_OF_FILE
          open \\.\DirqlLegacy as out write-only
          write out text:x expect bytes 1
          read out 1 expect STATUS_ACCESS_DENIED
          read in 8 expect text:x",
    );
    machine.finish().expect_clean();
}

#[test]
fn an_expectation_that_does_not_hold_is_told_with_its_place() {
    let machine = legacy();
    let failed = rig::try_play(
        &machine,
        "open \\\\.\\DirqlLegacy as f\nwrite f text:ab\nread f 2 at 0 expect text:ac",
    );
    let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.place, "test:3");
    assert!(failure.message.contains("expected hex:6163, saw hex:6162; byte 1 differs"), "{failure}");
    let report = machine.finish();
    assert_eq!(report.outcome(), dirql::Outcome::Unexpected, "{report}");
}

#[test]
fn prints_are_expected_in_order() {
    let machine = legacy();
    play(&machine, r#"expect print "loaded from""#);
    let again = rig::try_play(&machine, r#"expect print "never printed""#);
    assert!(matches!(again, Err(Error::Failed(_))), "{again:?}");
    drop(machine);
}
