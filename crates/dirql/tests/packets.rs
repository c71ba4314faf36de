//! Stories of packets that go through `IoStartPacket`, `StartIo` and a DPC (`drivers/c/packets.c`): buffered, direct and neither, overlapped and synchronous,
//! cancelled in every state, each completed exactly once.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use abi::NtStatus;
use dirql::explore::Bounds;
use dirql::{Bench, Handle, Machine, Outcome, Report, Request, ScriptText};

use super::rig::{driver, start};

const WAYS: [&str; 3] = ["Buffered", "Direct", "Neither"];

const ATTRIBUTES: u32 = 0x0022_2000;
const MODE: u32 = 0x0022_2004;
const RELEASE: u32 = 0x0022_2008;
const STATE: u32 = 0x0022_200C;
const CLOSE_LATE: u32 = 0x0022_2010;

const AT_ONCE: u32 = 1;
const HELD: u32 = 2;

fn bench() -> Bench {
    Bench::new().driver(driver("packets.sys"))
}

fn device(way: &str) -> String {
    format!(r"\\.\DirqlPackets{way}")
}

fn ask(file: &Handle<'_>, code: u32, words: &[u32]) {
    let input: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.device_control(code, &input, 0).unwrap();
}

/// Begun, completed, cancelled, deepest, sum, starts, and the keys of the packets that were started.
fn state(file: &Handle<'_>) -> Vec<u32> {
    let bytes = file.device_control(STATE, &[], 56).unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn read<'m>(file: &'m Handle<'m>, key: u64) -> Request<'m> {
    file.begin_read(4, Some(key)).unwrap()
}

#[test]
fn packets_move_bytes_in_each_way_of_getting_at_a_buffer() {
    for way in WAYS {
        let machine = start(bench);
        let file = machine.open(&device(way)).unwrap();
        assert_eq!(file.read_at(6000, Some(7)).unwrap()[4094..4098], [7, 7, 8, 8], "{way}");
        assert_eq!(file.write(&[3; 5000]).unwrap(), 5000, "{way}");
        assert_eq!(state(&file)[..6], [2, 2, 0, 0, 15_000, 2], "{way}");
        file.close().unwrap();
        let report = machine.finish();
        report.expect_clean();
        assert_eq!(report.sums.still_allocated(), 0, "{report}");
    }
}

#[test]
fn pages_that_lie_apart_are_one_transfer_to_the_driver() {
    let machine = start(|| bench().checked(true));
    let file = machine.open_unbuffered(&device("Direct")).unwrap();
    // Each page of a read is filled with another byte.
    let read = file.read_scatter(3 * 4096, Some(5)).unwrap();
    assert_eq!([read[0], read[4095], read[4096], read[8191], read[8192], read[12_287]], [5, 5, 6, 6, 7, 7]);
    assert_eq!(read.len(), 3 * 4096);
    let bytes: Vec<u8> = (0..2 * 4096).map(|index| if index < 4096 { 1 } else { 10 }).collect();
    assert_eq!(file.write_gather(&bytes, Some(0)).unwrap(), 8192);
    assert_eq!(state(&machine.open(&device("Direct")).unwrap())[..6], [2, 2, 0, 0, 4096 * 11, 2]);
    let buffered = machine.open_overlapped(&device("Direct")).unwrap();
    match buffered.read_scatter(4096, Some(0)) {
        Err(dirql::Error::Status { status, .. }) if status == NtStatus::INVALID_PARAMETER.0 => {}
        other => panic!("{other:?}"),
    }
    file.close().unwrap();
    buffered.close().unwrap();
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_handle_that_a_process_inherits_keeps_the_file_open() {
    let machine = start(bench);
    let file = machine.open(&device("Buffered")).unwrap();
    let own = machine.open(&device("Direct")).unwrap();
    let alone = machine.begin_process_inheriting("alone.exe").unwrap();
    assert!(machine.within(alone, || file.read(4)).is_err(), "nothing is inherited unless it is said");
    file.set_inherit(true).unwrap();
    let child = machine.begin_process_inheriting("child.exe").unwrap();
    assert_eq!(machine.within(child, || file.read_at(4, Some(9))).unwrap(), [9; 4]);
    assert!(machine.within(child, || own.read(4)).is_err());
    let cleanups =
        |machine: &Machine| machine.prints().iter().filter(|line| line.contains("cleanup")).count();
    file.close().unwrap();
    assert_eq!(cleanups(&machine), 0, "the child has it open");
    machine.end_process(child);
    assert_eq!(cleanups(&machine), 1);
    machine.end_process(alone);
    own.close().unwrap();
    assert_eq!(cleanups(&machine), 2);
    machine.finish().expect_clean();
}

fn played(machine: &Machine, text: &str) -> Result<(), dirql::Error> {
    machine.play(ScriptText::typed(text).play().unwrap())
}

#[test]
fn a_script_reads_to_and_writes_from_pages_that_lie_apart() {
    let machine = start(|| bench().checked(true));
    let script = "open \\\\.\\DirqlPacketsDirect as pages overlapped unbuffered
        read-scatter pages 8192 at 5 expect bytes 8192 and prefix hex:0505
        write-gather pages zero:4096 + hex:0a0a + zero:4094 at 0 expect bytes 8192
        async both read-scatter pages 4096 at 9
        join both expect bytes 4096 and prefix hex:0909
        open \\\\.\\DirqlPacketsDirect as buffered overlapped
        read-scatter buffered 4096 at 0 expect STATUS_INVALID_PARAMETER
        ioctl buffered 0x22200c out 56 expect prefix u32:3 + u32:3 + u32:0 + u32:0 + u32:20";
    played(&machine, script).unwrap();
    // What stands behind the first page is the next one's.
    let wrong = "open \\\\.\\DirqlPacketsDirect as pages overlapped unbuffered; \
                 read-scatter pages 8192 at 5 expect data hex:05";
    assert!(played(&machine, wrong).is_err());
    let report = machine.finish();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_script_begins_processes_that_inherit_handles() {
    let machine = start(bench);
    let script = r#"open \\.\DirqlPacketsBuffered as file inherit
        open \\.\DirqlPacketsDirect as own
        process alone
        alone: read file 4 expect STATUS_INVALID_HANDLE
        process child inheriting
        child: read file 4 at 9 expect hex:09090909
        child: read own 4 expect STATUS_INVALID_HANDLE
        join child; join alone
        child: open \\.\DirqlPacketsBuffered as mine
        join child
        close file; close own
        expect print "cleanup"
        child: close mine
        join child
        expect print "cleanup"
        child: read file 4 at 3 expect hex:03030303
        join child
        exit child
        expect print "cleanup"
        exit alone"#;
    played(&machine, script).unwrap();
    let cleanups = machine.prints().iter().filter(|line| line.contains("cleanup")).count();
    assert_eq!(cleanups, 3);
    // A handle that is not to be inherited any more; what is under way in a process that exits with the script is cancelled.
    let script = r"open \\.\DirqlPacketsBuffered as file inherit
        inherit file off
        process child inheriting
        child: read file 4 expect STATUS_INVALID_HANDLE
        join child
        inherit file
        process other inheriting
        other: ioctl file 0x222004 in u32:2
        other: read file 4 expect any
        wait 1ms
        expect pending other
        exit other";
    played(&machine, script).unwrap();
    machine.finish().expect_clean();
}

/// A packet that is held, and three behind it.
fn four<'m>(queue: &'m Handle<'m>, file: &Handle<'_>) -> [Request<'m>; 4] {
    ask(file, MODE, &[HELD]);
    [0, 30, 10, 20].map(|key| read(queue, key))
}

fn opened(machine: &Machine) -> [Handle<'_>; 2] {
    [machine.open_overlapped(&device("Buffered")).unwrap(), machine.open(&device("Buffered")).unwrap()]
}

fn data(request: Request<'_>) -> Vec<u8> {
    request.wait().unwrap().data
}

#[test]
fn packets_wait_in_the_order_of_their_keys_and_the_next_one_is_asked_for_by_key() {
    let machine = start(bench);
    let [queue, file] = opened(&machine);
    let [a, b, c, d] = four(&queue, &file);
    // The first one whose key is not less; else the first of all.
    for key in [15, 25, 40, 0] {
        ask(&file, RELEASE, &[key]);
    }
    assert_eq!(state(&file)[5..10], [4, 0, 20, 30, 10]);
    assert_eq!([a, b, c, d].map(data), [[0; 4], [30; 4], [10; 4], [20; 4]]);
    drop((queue, file));
    machine.finish().expect_clean();
}

#[test]
fn a_start_io_that_starts_the_next_packet_is_within_itself_unless_that_is_deferred() {
    for (deferred, deepest) in [(0, 3), (1, 1)] {
        let machine = start(bench);
        let [queue, file] = opened(&machine);
        ask(&file, ATTRIBUTES, &[deferred, 0]);
        let all = four(&queue, &file);
        ask(&file, MODE, &[AT_ONCE]);
        ask(&file, RELEASE, &[0]);
        machine.wait(1_000_000).unwrap();
        assert!(all.iter().all(Request::is_over));
        assert_eq!(state(&file)[..4], [4, 4, 0, deepest], "deferred: {deferred}");
        assert_eq!(state(&file)[5..10], [4, 0, 10, 20, 30]);
        drop(all);
        drop((queue, file));
        machine.finish().expect_clean();
    }
}

#[test]
fn a_packet_that_was_started_cannot_be_cancelled_if_the_device_says_so() {
    for (not_cancelable, status) in [(0, NtStatus::CANCELLED), (1, NtStatus::SUCCESS)] {
        let machine = start(bench);
        let [queue, file] = opened(&machine);
        ask(&file, ATTRIBUTES, &[0, not_cancelable]);
        ask(&file, MODE, &[HELD]);
        let (first, second) = (read(&queue, 1), read(&queue, 2));
        assert!(first.cancel().unwrap());
        machine.wait(1_000_000).unwrap();
        assert_eq!(first.is_over(), status == NtStatus::CANCELLED);
        if !first.is_over() {
            ask(&file, RELEASE, &[0]);
        }
        ask(&file, RELEASE, &[0]);
        assert_eq!(first.wait().unwrap().status, status.0);
        assert_eq!(data(second), [2; 4]);
        drop((queue, file));
        machine.finish().expect_clean();
    }
}

#[test]
fn the_last_reference_of_a_file_goes_on_a_thread_of_the_systems() {
    let machine = start(bench);
    let file = machine.open(&device("Buffered")).unwrap();
    assert_eq!(file.device_control(CLOSE_LATE, &[], 4).unwrap(), [1, 0, 0, 0]);
    file.close().unwrap();
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

// ---- every state, every schedule ----

/// Two packets on one device, the first of which is cancelled at any time: current, under way, over; the other one begins meanwhile.
fn overlapped(way: &str) -> String {
    format!(
        r"open \\.\DirqlPackets{way} as q overlapped
        open \\.\DirqlPackets{way} as f
        async r1 read q 4 at 1
        c: cancel r1
        async r2 write q hex:0102 at 2
        join c
        join r1 expect success or STATUS_CANCELLED
        join r2 expect bytes 2
        {COUNTED}"
    )
}

/// Both are cancelled: the one that has begun, and the one that waits behind it, which is started meanwhile.
fn queued(way: &str) -> String {
    format!(
        r"open \\.\DirqlPackets{way} as q overlapped
        open \\.\DirqlPackets{way} as f
        async r1 read q 4 at 1
        async r2 write q hex:0102 at 2
        c: cancel r2
        cancel r1
        join c
        join r1 expect success or STATUS_CANCELLED
        join r2 expect success or STATUS_CANCELLED
        {COUNTED}"
    )
}

/// All of the handle's are cancelled while one begins, and is ended by a DPC.
fn by_dpc(way: &str) -> String {
    format!(
        r"open \\.\DirqlPackets{way} as q overlapped
        open \\.\DirqlPackets{way} as f
        ioctl f 0x222004 in u32:3
        c: cancel q
        async r1 read q 4 at 1
        async r2 write q hex:0102 at 2
        join c
        join r1 expect success or STATUS_CANCELLED
        join r2 expect success or STATUS_CANCELLED
        {COUNTED}"
    )
}

/// The same by threads that wait for their requests: one is cancelled before it is sent, before it is started, or later.
fn synchronous(way: &str) -> String {
    format!(
        r"open \\.\DirqlPackets{way} as a
        open \\.\DirqlPackets{way} as f
        t: read a 4 at 1 expect success or STATUS_CANCELLED
        cancel a
        write f hex:0102 at 2
        join t
        {COUNTED}"
    )
}

/// All packets that were begun have ended; the bytes behind are not looked at.
const COUNTED: &str = "ioctl f 0x22200c out 56 expect prefix u32:2";

fn each_ends_once(script: &str, preemptions: usize) {
    let play = ScriptText::typed(script).play().unwrap();
    let bounds = Bounds { preemptions, shared: false, ..Bounds::default() };
    let broken = |report: &Report| report.outcome() != Outcome::Clean || report.sums.still_allocated() != 0;
    let searched = bench().processors(2).search(&play, &bounds, broken).unwrap();
    println!("{:?} schedules", searched.schedules);
    let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(searched.complete && found.is_none(), "{}", found.unwrap_or_default());
    assert!(searched.schedules.iter().sum::<u64>() > 20, "{:?}", searched.schedules);
}

#[test]
fn overlapped_current_buffered_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&overlapped("Buffered"), 2);
}

#[test]
fn overlapped_current_direct_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&overlapped("Direct"), 2);
}

#[test]
fn overlapped_current_neither_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&overlapped("Neither"), 2);
}

#[test]
fn overlapped_queued_buffered_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&queued("Buffered"), 2);
}

#[test]
fn overlapped_queued_direct_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&queued("Direct"), 2);
}

#[test]
fn overlapped_queued_neither_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&queued("Neither"), 2);
}

#[test]
fn synchronous_buffered_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&synchronous("Buffered"), 2);
}

#[test]
fn synchronous_direct_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&synchronous("Direct"), 2);
}

#[test]
fn synchronous_neither_packets_that_are_cancelled_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&synchronous("Neither"), 2);
}

#[test]
fn overlapped_buffered_packets_that_a_dpc_ends_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&by_dpc("Buffered"), 2);
}

#[test]
fn overlapped_direct_packets_that_a_dpc_ends_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&by_dpc("Direct"), 2);
}

#[test]
fn overlapped_neither_packets_that_a_dpc_ends_end_once_in_every_schedule_with_two_preemptions() {
    each_ends_once(&by_dpc("Neither"), 2);
}
