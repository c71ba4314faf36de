//! Stories of what an administrator sees of `pci9052.sys`: counters, a setting, a method and an event by WMI, entries of the event log, and who may open the card.
//! And of what becomes of the driver where a call fails that could succeed, each one once.

use std::cell::RefCell;
use std::rc::Rc;

use dirql::{Bench, Outcome, Report};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::rig::failures::{Failing, whichever_fails};
use super::rig::{driver, start, try_play};

const STATISTICS: &str = "block:{8F2D4B61-2C3E-4A7D-9B15-6E0CD38A7F42}";
const TIMED_OUT: &str = "block:{8F2D4B62-2C3E-4A7D-9B15-6E0CD38A7F42}";
/// A card that takes long for a transfer.
const SLOW: &str = "pci9052,latency=100ms";

fn bench(card: &str) -> Bench {
    Bench::new().driver(driver("pci9052.sys")).inf(driver("pci9052.inf")).device(card)
}

/// A script with the names of blocks in it, behind the moment in which the driver says what it offers.
fn named(text: &str) -> String {
    let text = text.replace("STATISTICS", STATISTICS).replace("TIMED_OUT", TIMED_OUT);
    format!("wait 1ms\n{}", text.replace("open DEV ", r"open \\.\Pci9052-0 "))
}

/// Carried out, clean, with nothing left.
fn run(card: &'static str, text: &str) -> Report {
    let machine = start(|| bench(card));
    let played = try_play(&machine, &named(text));
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report.expect_clean();
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    report
}

#[test]
fn an_administrator_reads_what_was_transferred_and_sets_all_back_to_0() {
    run(
        "pci9052",
        "wmi query STATISTICS expect zero:32 + u32:1000 + u32:0x10000
         open DEV as card
         write card hex:3c_a5_00_ff at 0x10
         read card 2 at 0x10
         wmi query STATISTICS instance 0 expect u32:2 + u32:0 + u32:4 + u32:0 + u32:2 + u32:2 + zero:8 + u32:1000 + u32:0x10000
         wmi execute STATISTICS method 1 out 4 expect u32:2
         wmi execute STATISTICS method 1 expect u32:0
         wmi execute STATISTICS method 2 expect STATUS_WMI_ITEMID_NOT_FOUND
         wmi query STATISTICS expect zero:32 + u32:1000 + u32:0x10000
         close card",
    );
}

#[test]
fn only_the_stop_timeout_can_be_set_and_not_to_anything() {
    run(
        "pci9052",
        "wmi set STATISTICS item 7 u32:20
         wmi query STATISTICS expect zero:32 + u32:20 + u32:0x10000
         wmi set STATISTICS item 7 u32:60001 expect STATUS_WMI_SET_FAILURE
         wmi set STATISTICS item 7 hex:01 expect STATUS_WMI_SET_FAILURE
         wmi set STATISTICS item 3 u32:1 expect STATUS_WMI_READ_ONLY
         wmi set STATISTICS item 9 u32:1 expect STATUS_WMI_ITEMID_NOT_FOUND
         wmi set STATISTICS zero:32 + u32:30 + u32:7
         wmi query STATISTICS expect zero:32 + u32:30 + u32:0x10000
         wmi set STATISTICS zero:36 expect STATUS_WMI_SET_FAILURE
         wmi query TIMED_OUT expect STATUS_WMI_GUID_NOT_FOUND
         wmi query STATISTICS instance 1 expect STATUS_WMI_INSTANCE_NOT_FOUND",
    );
}

/// Keeps what drivers write into the event log.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<(u32, u32, u32)>>>);

impl Reader for Log {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::ErrorLog
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        if let Event::ErrorLog { code, unique, status, .. } = event {
            self.0.borrow_mut().push((*code, *unique, *status));
        }
    }
}

#[test]
fn a_card_that_does_not_end_in_time_is_an_event_a_count_and_an_entry_of_the_event_log() {
    let log = Log::default();
    let machine = bench(SLOW).reader(log.clone()).start().unwrap();
    let text = "wmi enable TIMED_OUT
         wmi set STATISTICS item 7 u32:20
         open DEV as card
         t: write card hex:07 at 0
         wait 1ms
         query-stop expect STATUS_DEVICE_BUSY
         wmi event TIMED_OUT expect u32:20 + u32:1 + u32:0
         power d3
         wmi event TIMED_OUT expect u32:20 + u32:2 + u32:1
         power d0
         join t
         wmi query STATISTICS expect prefix zero:8 + u32:1
         read card 1 at 0 expect hex:07
         wmi disable TIMED_OUT
         close card";
    let played = try_play(&machine, &named(text));
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report.expect_clean();
    let timed_out = (0xC004_0009, 1, 0xC000_00B5);
    assert_eq!(*log.0.borrow(), [timed_out, timed_out], "{report}");
}

#[test]
fn a_card_without_its_windows_is_an_entry_of_the_event_log() {
    let log = Log::default();
    let machine = bench("pci,id=10b5:9050,bar0=mem:128,irq").reader(log.clone()).start().unwrap();
    let report = machine.finish();
    assert_eq!(report.outcome(), Outcome::Unexpected, "the device does not start\n{report}");
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    assert_eq!(*log.0.borrow(), [(0xC004_0003, 2, 0xC000_0182)]);
}

#[test]
fn blocks_go_with_the_card_and_stay_while_it_is_stopped() {
    let machine = start(|| bench("pci9052"));
    let blocks = || machine.wmi_blocks().unwrap().len();
    machine.wait(1_000_000).unwrap();
    assert_eq!(blocks(), 2);
    try_play(
        &machine,
        &named("stop-device\nwmi query STATISTICS expect zero:32 + u32:1000 + u32:0\nstart-device"),
    )
    .unwrap();
    assert_eq!(blocks(), 2);
    machine.surprise_remove("pci9052#0").unwrap();
    assert_eq!(blocks(), 0);
    machine.finish().expect_clean();
}

#[test]
fn users_may_read_and_administrators_write() {
    run(
        "pci9052",
        "open DEV as administrator
         user plain
         open DEV as writer expect STATUS_ACCESS_DENIED
         open DEV as reader read-only
         read reader 1 at 0
         wmi query STATISTICS expect bytes 40
         close reader; close administrator",
    );
}

#[test]
fn whichever_call_fails_the_driver_breaks_no_rule_and_leaves_nothing() {
    let text = named(
        "wmi enable TIMED_OUT expect any
         wmi set STATISTICS item 7 u32:1 expect any
         open DEV as card expect any
         t: write card hex:07 at 0 expect any
         wait 100us
         query-stop expect any
         cancel-stop expect any
         join t
         wmi query STATISTICS expect any
         wmi execute STATISTICS method 1 out 4 expect any
         power d3 expect any; power d0 expect any
         wmi disable TIMED_OUT expect any",
    );
    let calls = whichever_fails(|| bench("pci9052,latency=5ms"), Failing::One, &text);
    assert!(calls > 11, "only {calls} calls could fail");
}
