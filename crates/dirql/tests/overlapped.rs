//! Stories of a test in Rust that has several requests under way: begun, looked at, cancelled, waited for, left behind.

use abi::NtStatus;
use dirql::{Bench, Completion, Error, Machine};

use super::rig::{driver, start, start_unheard, try_play};

const DEVICE: &str = r"\\.\DirqlQueue";
/// A request that waits for a tick, which comes so many milliseconds after the second one asks for it.
const WAIT: u32 = 0x0022_2000;
const ARM: u32 = 0x0022_2004;

fn machine() -> Machine {
    start(|| Bench::new().driver(driver("queue.sys")))
}

fn cancelled() -> Completion {
    Completion { status: NtStatus::CANCELLED.0, information: 0, data: Vec::new() }
}

#[test]
fn several_requests_are_under_way_at_once_and_end_in_the_drivers_order() {
    let machine = machine();
    let queue = machine.open_overlapped(DEVICE).unwrap();
    let first = queue.begin_read(4, None).unwrap();
    let second = queue.begin_read(4, None).unwrap();
    let write = queue.begin_write(&[1, 2], None).unwrap();
    assert!(!first.is_over() && !second.is_over() && !write.is_over());
    assert_eq!(first.wait().unwrap().data, [1, 0, 0, 0]);
    assert!(write.is_over(), "the transfer takes 2 ms, the tick of reads 10");
    assert!(!second.is_over());
    assert_eq!(second.wait().unwrap().data, [2, 0, 0, 0]);
    assert_eq!(write.wait().unwrap().information, 2);
    queue.close().unwrap();
    machine.finish().expect_clean();
}

#[test]
fn one_of_two_requests_is_cancelled_and_the_other_goes_on() {
    let machine = machine();
    let queue = machine.open_overlapped(DEVICE).unwrap();
    let first = queue.begin_read(4, None).unwrap();
    let second = queue.begin_read(4, None).unwrap();
    assert!(first.cancel().unwrap());
    assert_eq!(first.wait().unwrap(), cancelled());
    assert_eq!(second.wait().unwrap().data, [1, 0, 0, 0]);
    machine.finish().expect_clean();
}

#[test]
fn all_requests_of_a_handle_are_cancelled_and_what_is_over_is_not() {
    let machine = machine();
    let queue = machine.open_overlapped(DEVICE).unwrap();
    let write = queue.begin_write(&[7], None).unwrap();
    machine.wait(50_000_000).unwrap();
    assert!(write.is_over());
    assert!(!write.cancel().unwrap(), "there is nothing to cancel any more");
    assert!(!queue.cancel().unwrap());
    let reads: Vec<_> = (0..3).map(|_| queue.begin_read(4, None).unwrap()).collect();
    assert!(queue.cancel().unwrap());
    for read in reads {
        assert_eq!(read.wait().unwrap(), cancelled());
    }
    assert_eq!(write.wait().unwrap().information, 1);
    machine.finish().expect_clean();
}

#[test]
fn a_control_request_waits_while_another_one_wakes_it() {
    let machine = machine();
    let waiter = machine.open_overlapped(DEVICE).unwrap();
    let other = machine.open(DEVICE).unwrap();
    // The driver waits in its dispatch routine: so the call returns when the tick has come.
    other.device_control(ARM, &1_u32.to_le_bytes(), 0).unwrap();
    let wait = waiter.begin_device_control(WAIT, &100_u32.to_le_bytes(), 0).unwrap();
    assert_eq!(wait.wait().unwrap().status, NtStatus::SUCCESS.0);
    machine.finish().expect_clean();
}

#[test]
fn what_a_test_leaves_behind_is_cancelled_as_a_process_that_exits_has_it() {
    let machine = machine();
    let queue = machine.open_overlapped(DEVICE).unwrap();
    for _ in 0..2 {
        let _ = queue.begin_read(4, None).unwrap();
    }
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.dpcs, 0, "no tick has answered them\n{report}");
}

#[test]
fn a_request_that_never_ends_is_told_by_name() {
    let machine = start_unheard(|| Bench::new().driver(driver("stuck.sys")));
    let file = machine.open_overlapped(r"\\.\DirqlStuck").unwrap();
    // Nothing of the driver's is alive, and it has a cancel routine.
    let request = file.begin_device_control(0x0022_2000 + 15 * 4, &[0; 4], 0).unwrap();
    match request.wait() {
        Err(Error::Stuck(why)) => {
            assert!(why.starts_with(r"DeviceIoControl on \\.\DirqlStuck does not end: "), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let _ = machine.finish();
}

#[test]
fn a_request_that_must_end_is_named_as_it_was_made_and_not_as_another_of_its_name() {
    let machine = machine();
    let script = format!(
        r"open {DEVICE} as q overlapped; async r ioctl q {WAIT:#x} in u32:500; must-end r; join r expect STATUS_TIMEOUT; async r read q 4; must-end r; join r"
    );
    try_play(&machine, &script).unwrap();
    let report = machine.finish();
    let [found] = report.findings.as_slice() else { panic!("{report}") };
    assert_eq!(found.rule, "request-timed-out");
    assert!(
        found.message.starts_with("`ioctl q 0x222000 in u32:500` has failed with STATUS_TIMEOUT"),
        "{}",
        found.message
    );
}

#[test]
fn a_request_that_another_ends_must_end_if_that_has_succeeded() {
    let machine = start(|| Bench::new().driver(driver("stuck.sys")).with(driver("queue.sys")));
    // The first waits until it is cancelled.
    let script = format!(
        r"tolerate; open \\.\DirqlStuck as s overlapped; open {DEVICE} as q overlapped
        async waits ioctl s 0x22203c in u32:0
        async fails ioctl q 0x22fffc; must-end waits if fails
        async other write q hex:01; wait 10ms; must-end waits if other
        cancel waits; join waits; join fails; join other"
    );
    try_play(&machine, &script).unwrap();
    let report = machine.finish();
    let [found] = report.findings.as_slice() else { panic!("{report}") };
    assert_eq!(found.rule, "request-forgotten");
    let said = "It ends when `write q hex:01` is made, and that has succeeded since";
    assert!(found.message.contains(said), "{}", found.message);
}

/// Not: request-forgotten
#[test]
fn what_a_timer_of_the_drivers_ends_is_waited_for_until_that_has_run_out() {
    let machine = machine();
    let script = format!(
        r"open {DEVICE} as q overlapped; async r ioctl q {WAIT:#x} in u32:60000; wait 1ms; ioctl q 0x222004 in u32:30000; must-end r; join r"
    );
    try_play(&machine, &script).unwrap();
    machine.finish().expect_clean();
}

/// Not: request-forgotten
#[test]
fn what_must_recover_is_judged_only_behind_a_call_that_failed() {
    let machine = start(|| Bench::new().driver(driver("stuck.sys")));
    let script = r"open \\.\DirqlStuck as s overlapped; async waits ioctl s 0x22203c in u32:0; must-recover waits; cancel waits; join waits expect failure";
    try_play(&machine, script).unwrap();
    let report = machine.finish();
    assert!(report.findings.is_empty(), "{report}");
}

#[test]
fn a_request_that_must_end_is_said_to_be_ended_by_what_happened_to_a_card_since() {
    let bench = || {
        Bench::new()
            .driver(driver("card.sys"))
            .inf(driver("card.inf"))
            .device("bench")
            .with(driver("stuck.sys"))
    };
    let said = |script: &str| {
        let machine = start(bench);
        let script =
            format!(r"tolerate; open \\.\DirqlStuck as s overlapped; {script}; cancel s; join waits");
        try_play(&machine, &script).unwrap();
        let report = machine.finish();
        let [found] = report.findings.as_slice() else { panic!("{report}") };
        assert_eq!(found.rule, "request-forgotten");
        found.message.clone()
    };
    let waits = "async waits ioctl s 0x22203c in u32:0";
    let behind = said(&format!("{waits}; poke bench#0 never 1; must-end waits"));
    let by_it = "It ends by itself or by what comes of `poke bench#0 never 1`, and that has happened since";
    assert!(behind.contains(by_it), "{behind}");
    let before = said(&format!("poke bench#0 never 1; {waits}; must-end waits"));
    assert!(before.contains("Made alone it ends by itself"), "{before}");
}

#[test]
fn a_request_that_was_not_made_is_not_what_must_end() {
    let machine = machine();
    let script = format!(r"open {DEVICE} as q overlapped; t: wait 10ms; t: async r read q 4; must-end r");
    let why = try_play(&machine, &script).unwrap_err().to_string();
    assert!(why.contains("request r has not been made yet"), "{why}");
    let report = machine.finish();
    assert!(report.findings.is_empty() && report.verdict.is_none(), "{report}");
}
