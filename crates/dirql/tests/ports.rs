//! Stories of completion ports, as applications use them on a driver whose requests wait (`drivers/c/queue.c`).

use abi::NtStatus;
use dirql::explore::Bounds;
use dirql::{Bench, Error, Machine, Outcome, Packet, Report, ScriptText};

use super::rig::{self, driver, play, start};

const DEVICE: &str = r"\\.\DirqlQueue";
/// Answered at once, with 20 bytes.
const STATE: u32 = 0x0022_2008;

fn machine() -> Machine {
    start(|| Bench::new().driver(driver("queue.sys")))
}

fn parts(packet: Packet) -> (u64, NtStatus, u64) {
    (packet.key, NtStatus(packet.status), packet.information)
}

#[track_caller]
fn fails<T>(done: Result<T, Error>, wanted: NtStatus) {
    match done.map(|_| ()) {
        Err(Error::Status { status, .. }) if status == wanted.0 => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_come_in_the_order_of_the_ends_with_key_request_status_and_bytes() {
    let machine = machine();
    let (one, other) = (machine.open_overlapped(DEVICE).unwrap(), machine.open_overlapped(DEVICE).unwrap());
    let port = machine.completion_port(1).unwrap();
    port.bind(&one, 7).unwrap();
    port.bind(&other, 9).unwrap();
    let first = one.begin_read(4, None).unwrap();
    let second = other.begin_read(4, None).unwrap();
    let third = one.begin_read(4, None).unwrap();
    let write = other.begin_write(&[1, 2], None).unwrap();
    fails(port.next(Some(0)), NtStatus::TIMEOUT);
    assert!(second.cancel().unwrap());
    let packet = port.next(None).unwrap();
    assert!(packet.is_of(&second) && !packet.is_of(&first));
    assert_eq!(parts(packet), (9, NtStatus::CANCELLED, 0));
    let packet = port.next(None).unwrap();
    assert!(packet.is_of(&write), "the transfer takes 2 ms, the tick of reads 10");
    assert_eq!(parts(packet), (9, NtStatus::SUCCESS, 2));
    let packet = port.next(None).unwrap();
    assert!(packet.is_of(&first));
    assert_eq!(parts(packet), (7, NtStatus::SUCCESS, 4));
    assert_eq!(first.wait().unwrap().data, [1, 0, 0, 0]);
    let packet = port.next(None).unwrap();
    assert!(packet.is_of(&third));
    assert_eq!(parts(packet), (7, NtStatus::SUCCESS, 4));
    fails(port.next(Some(50_000_000)), NtStatus::TIMEOUT);
    one.close().unwrap();
    other.close().unwrap();
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn what_succeeds_at_once_has_a_packet_unless_it_is_skipped_and_what_fails_at_once_has_none() {
    let machine = machine();
    let file = machine.open_overlapped(DEVICE).unwrap();
    let port = machine.completion_port(0).unwrap();
    port.bind(&file, 1).unwrap();
    let at_once = file.begin_device_control(STATE, &[], 20).unwrap();
    let packet = port.next(Some(0)).unwrap();
    assert!(packet.is_of(&at_once));
    assert_eq!(parts(packet), (1, NtStatus::SUCCESS, 20));
    let fails_at_once = file.begin_device_control(STATE, &[], 4).unwrap();
    assert_eq!(fails_at_once.wait().unwrap().status, NtStatus::BUFFER_TOO_SMALL.0);
    fails(port.next(Some(0)), NtStatus::TIMEOUT);
    file.set_completion_modes(1).unwrap();
    assert!(file.begin_device_control(STATE, &[], 20).unwrap().is_over());
    fails(port.next(Some(0)), NtStatus::TIMEOUT);
    let pends = file.begin_read(4, None).unwrap();
    assert!(port.next(None).unwrap().is_of(&pends), "what was pending has one all the same");
    fails(file.set_completion_modes(0x80), NtStatus::INVALID_PARAMETER);
    machine.finish().expect_clean();
}

#[test]
fn a_file_has_one_port_and_one_that_is_synchronous_none() {
    let machine = machine();
    let file = machine.open_overlapped(DEVICE).unwrap();
    let synchronous = machine.open(DEVICE).unwrap();
    let (port, other) = (machine.completion_port(1).unwrap(), machine.completion_port(1).unwrap());
    port.bind(&file, 1).unwrap();
    fails(port.bind(&file, 2), NtStatus::INVALID_PARAMETER);
    fails(other.bind(&file, 2), NtStatus::INVALID_PARAMETER);
    fails(port.bind(&synchronous, 2), NtStatus::INVALID_PARAMETER);
    port.post(5, 6).unwrap();
    assert_eq!(parts(port.next(None).unwrap()), (5, NtStatus::SUCCESS, 6));
    machine.finish().expect_clean();
}

#[test]
fn a_port_that_is_closed_with_requests_under_way_hears_nothing_of_their_ends() {
    let machine = machine();
    let file = machine.open_overlapped(DEVICE).unwrap();
    let port = machine.completion_port(1).unwrap();
    port.bind(&file, 1).unwrap();
    let (first, second) = (file.begin_read(4, None).unwrap(), file.begin_read(4, None).unwrap());
    assert_eq!(first.wait().unwrap().data, [1, 0, 0, 0]);
    // With the packet of the first one in it.
    port.close().unwrap();
    assert_eq!(second.wait().unwrap().data, [2, 0, 0, 0]);
    file.close().unwrap();
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_thread_that_waits_for_a_packet_hears_that_the_port_is_closed() {
    let machine = machine();
    play(
        &machine,
        r"open \\.\DirqlQueue as q overlapped; port ends; bind q to ends key 3
          waiter: dequeue ends expect STATUS_ABANDONED_WAIT_0
          async r1 read q 4
          wait 1ms
          expect pending waiter
          close ends
          join waiter
          join r1 expect u32:1",
    );
    machine.finish().expect_clean();
}

#[test]
fn the_thread_that_came_last_goes_first_and_the_other_one_while_it_waits() {
    let machine = machine();
    play(
        &machine,
        r"port ends threads 1
          early: dequeue ends key 2 expect bytes 20
          wait 1ms
          thread late { dequeue ends key 1 expect bytes 10; wait 5ms; dequeue ends key 3 }
          wait 1ms
          post ends key 1 bytes 10; post ends key 2 bytes 20
          join early
          expect pending late
          post ends key 3
          join late",
    );
    machine.finish().expect_clean();
}

#[test]
fn a_packet_of_another_request_is_told_by_its_name() {
    let machine = machine();
    let text = r"open \\.\DirqlQueue as q overlapped; port ends; bind q to ends
                 async r1 read q 4; async r2 read q 4
                 dequeue ends of r2";
    match rig::try_play(&machine, text) {
        Err(Error::Failed(failure)) => {
            assert_eq!(failure.message, "expected the packet of r2, saw that of r1");
        }
        other => panic!("{other:?}"),
    }
    let _ = machine.finish();
}

/// Two requests, one of which is cancelled while the other may end: each has its packet, once.
const RACE: &str = r"open \\.\DirqlQueue as q overlapped; port ends; bind q to ends key 1
    async r1 read q 4; async r2 write q hex:01
    canceller: cancel q
    dequeue ends key 1 expect any
    dequeue ends key 1 expect any
    join canceller
    dequeue ends timeout 30ms expect STATUS_TIMEOUT
    join r1 expect success or STATUS_CANCELLED; join r2 expect success or STATUS_CANCELLED";

#[test]
fn each_request_has_one_packet_in_every_schedule_with_two_preemptions() {
    let play = ScriptText::typed(RACE).play().unwrap();
    let bounds = Bounds { preemptions: 2, shared: false, ..Bounds::default() };
    let bench = Bench::new().driver(driver("queue.sys")).processors(2).unobserved();
    let broken = |report: &Report| report.outcome() != Outcome::Clean;
    let searched = bench.search(&play, &bounds, broken).unwrap();
    let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(searched.complete && found.is_none(), "{}", found.unwrap_or_default());
    assert!(searched.schedules.iter().sum::<u64>() > 5, "{:?}", searched.schedules);
}

#[test]
fn several_packets_are_taken_at_once() {
    let machine = machine();
    let port = machine.completion_port(1).unwrap();
    for key in 1..=5 {
        port.post(key, 10 * key).unwrap();
    }
    let keys = |packets: Vec<Packet>| {
        packets.into_iter().map(|packet| (packet.key, packet.information)).collect::<Vec<_>>()
    };
    assert_eq!(keys(port.next_several(3, None, false).unwrap()), [(1, 10), (2, 20), (3, 30)]);
    assert_eq!(keys(port.next_several(16, Some(0), true).unwrap()), [(4, 40), (5, 50)]);
    fails(port.next_several(16, Some(1_000_000), false), NtStatus::TIMEOUT);
    fails(port.next_several(0, None, false), NtStatus::INVALID_PARAMETER);
    // The first is waited for.
    let file = machine.open_overlapped(DEVICE).unwrap();
    port.bind(&file, 7).unwrap();
    let read = file.begin_read(4, None).unwrap();
    let packets = port.next_several(16, None, false).unwrap();
    assert!(packets.len() == 1 && packets[0].is_of(&read), "{packets:?}");
    // In a script; an alertable wait ends with a user APC, another does not.
    play(
        &machine,
        r"port ends
        post ends key 9 bytes 3; post ends key 8
        dequeue ends several 2 expect bytes 2 and u64:9 + u64:3 + u64:8 + u64:0
        dequeue ends several 4 timeout 1ms expect STATUS_TIMEOUT
        waits: dequeue ends several 4 alertable expect STATUS_USER_APC
        wait 1ms
        apc waits
        join waits
        post ends key 1
        dequeue ends several 4 alertable expect u64:1 + u64:0",
    );
    read.wait().unwrap();
    file.close().unwrap();
    port.close().unwrap();
    machine.finish().expect_clean();
}
