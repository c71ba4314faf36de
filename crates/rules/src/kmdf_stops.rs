//! `kmdf-stops`: a client of KMDF calls `WdfRequestStopAcknowledge` in another callback than `EvtIoStop`.
//!
//! Pages: *WdfRequestStopAcknowledge function*, *EVT_WDF_IO_QUEUE_IO_STOP callback function*, *StopAckWithinEvtIoStop rule (kmdf)*. The framework looks at the answer
//! when `EvtIoStop` returns, and not before the next one otherwise; its verifier breaks. *It does not* judge a thread that is in no callback that is seen.

use engine::StrandId;
use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::callbacks::Callbacks;
use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-stops";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfStops {
    callbacks: Callbacks,
    found: Option<String>,
}

impl KmdfStops {
    fn acknowledged(&mut self, strand: StrandId, request: u64) {
        let role = self.callbacks.innermost(strand);
        let Some(role) = role.filter(|role| role.name().starts_with("Evt")) else { return };
        if !self.callbacks.is_in(strand, Role::EvtIoStop) {
            self.found = Some(format!(
                "WdfRequestStopAcknowledge: {role} acknowledges the stop of the request {request:#x}, which EvtIoStop alone can"
            ));
        }
    }
}

impl Follower for KmdfStops {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter | Kind::Leave)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        self.callbacks.follow(stamp.strand, event);
        if let Event::Ddi { export, arguments, .. } = event
            && exports::row(*export).is_some_and(|row| row.name == "WdfRequestStopAcknowledge")
        {
            self.acknowledged(stamp.strand, arguments[1]);
        }
    }

    fn shows(&self) -> bool {
        self.found.is_some()
    }

    fn found(&mut self) -> Option<Verdict> {
        let message = self.found.take()?;
        Some(Verdict::verifier("kmdf-stops", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Following;
    use crate::rig::{call, enter, leave};

    const REQUEST: u64 = 0x1000;

    fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
        crate::rig::said(&mut Following(KmdfStops::default()), events)
    }

    fn acknowledge() -> (u32, Event) {
        (1, call("WdfRequestStopAcknowledge", REQUEST, 0))
    }

    #[test]
    fn a_stop_is_acknowledged_by_the_callback_that_asks_for_it() {
        let stop = || (1, enter(Role::EvtIoStop, REQUEST));
        assert_eq!(said([stop(), acknowledge()]), None);
        assert_eq!(said([stop(), (1, enter(Role::EvtRequestCancel, REQUEST)), acknowledge()]), None);
        for role in [Role::EvtIoResume, Role::EvtTimerFunc, Role::EvtDeviceD0Exit] {
            assert!(said([(1, enter(role, REQUEST)), acknowledge()]).unwrap().contains(role.name()));
        }
        let after =
            [(1, enter(Role::EvtDeviceD0Exit, REQUEST)), stop(), (1, leave(Role::EvtIoStop)), acknowledge()];
        assert!(said(after).is_some());
    }

    #[test]
    fn where_the_callback_may_not_have_been_seen_nothing_is_said() {
        assert_eq!(said([acknowledge()]), None);
        assert_eq!(said([(1, enter(Role::DispatchPower, REQUEST)), acknowledge()]), None);
    }
}
