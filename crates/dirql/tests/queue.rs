//! Stories of requests that wait: lists, StartIo, timers, cancellation, clean-up.

use super::rig::run;

#[test]
fn reads_wait_for_the_timer_and_are_answered_one_by_one() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q overlapped
          async a read q 4; async b read q 4
          expect pending a; expect pending b
          join a expect u32:1
          expect pending b
          join b expect u32:2",
    );
    report.expect_clean();
    assert_eq!(report.sums.dpcs, 2, "{report}");
}

#[test]
fn a_cancelled_read_completes_and_the_next_one_is_served() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q overlapped
          async a read q 4; async b read q 4
          cancel a
          join a expect STATUS_CANCELLED
          join b expect u32:1",
    );
    report.expect_clean();
}

#[test]
fn a_thread_that_waits_is_set_free_by_cancelling_its_request() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q
          reader: read q 4 expect STATUS_CANCELLED
          wait 100us
          expect pending reader
          cancel reader
          join reader",
    );
    report.expect_clean();
}

#[test]
fn writes_go_through_start_io_one_at_a_time() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q overlapped
          async a write q hex:01_02; async b write q hex:04; async c write q hex:08
          join a expect bytes 2
          expect pending b
          join b expect bytes 1
          join c expect bytes 1
          ioctl q 0x222008 out 20 expect prefix u32:0 + u32:3 + u32:15",
    );
    report.expect_clean();
}

#[test]
fn a_queued_write_is_cancelled_and_the_one_behind_it_still_starts() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q overlapped
          async a write q hex:01; async b write q hex:02; async c write q hex:04
          cancel b
          join b expect STATUS_CANCELLED
          join a; join c
          ioctl q 0x222008 out 20 expect prefix u32:0 + u32:2 + u32:5 + u32:1",
    );
    report.expect_clean();
}

#[test]
fn closing_a_handle_cancels_what_it_left_behind() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as gone overlapped
          open \\.\DirqlQueue as q overlapped
          async lost read gone 4; async kept read q 4
          close gone
          join lost expect STATUS_CANCELLED
          join kept expect u32:1",
    );
    report.expect_clean();
}

#[test]
fn an_event_ends_a_wait_or_the_time_does() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q
          open \\.\DirqlQueue as other
          ioctl q 0x222000 in u32:50 expect STATUS_TIMEOUT
          waiter: ioctl q 0x222000 in u32:500
          ioctl other 0x222004 in u32:20
          join waiter",
    );
    report.expect_clean();
}

#[test]
fn the_end_of_the_process_cancels_what_is_under_way() {
    let report =
        run("queue.sys", r"open \\.\DirqlQueue as q overlapped; async a read q 4; async b write q hex:01");
    report.expect_clean();
}

#[test]
fn the_io_timer_paces_the_same_driver() {
    let report = run(
        "queue_iotimer.sys",
        r"open \\.\DirqlQueue as q overlapped
          async a read q 4; async b read q 4
          wait 100ms
          expect pending a
          join a expect u32:1; join b expect u32:2",
    );
    report.expect_clean();
    assert!(report.sums.time > 1_000_000_000, "a second or more has passed\n{report}");
}

#[test]
fn a_time_out_of_a_month_comes_at_once() {
    let report = run(
        "queue.sys",
        r"open \\.\DirqlQueue as q; ioctl q 0x222000 in u32:2592000000 expect STATUS_TIMEOUT",
    );
    report.expect_clean();
    assert!(report.sums.time > 2_592_000_000_000_000, "{report}");
}
