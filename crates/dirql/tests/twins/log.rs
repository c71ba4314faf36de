//! Entries of the event log.

use std::cell::RefCell;
use std::rc::Rc;

use kernel::event::{Event, Kind, Reader, Stamp};

use super::twin::holds;
use super::{C, RUST};
use crate::rig::start;

/// Keeps what drivers write into the event log: code, place, status.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<(u32, u32, u32)>>>);

impl Log {
    /// What there is.
    pub(crate) fn entries(&self) -> Vec<(u32, u32, u32)> {
        self.0.borrow().clone()
    }
}

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

stories! {
    fn a_stop_that_the_card_did_not_let_happen_is_in_the_log(twin) {
        let log = Log::default();
        holds(start(|| twin.bench(&["pci9052,latency=3s"]).reader(log.clone())), "open DEV as card
            t: write card hex:01 at 0
            wait 1ms
            query-stop expect STATUS_DEVICE_BUSY
            join t; close card");
        assert_eq!(log.entries(), [(0xC004_0009, 1, 0xC000_00B5)]);
    }

    fn a_transfer_that_the_power_went_from_under_is_in_the_log(twin) {
        let log = Log::default();
        holds(start(|| twin.bench(&["pci9052,latency=3s"]).reader(log.clone())), "open DEV as card
            t: write card hex:01 at 0
            wait 1ms
            power d3; power d0
            join t; close card");
        assert_eq!(log.entries(), [(0xC004_0009, 1, 0xC000_00B5)]);
    }

    fn a_card_that_works_is_not_in_the_log(twin) {
        let log = Log::default();
        holds(start(|| twin.bench(&["pci9052"]).reader(log.clone())), "open DEV as card
            write card hex:01 at 0; stop-device; start-device; power d3; power d0; close card
            surprise-remove");
        assert!(log.entries().is_empty());
    }
}
