//! `kmdf-cancelable`: a client of KMDF does with a request that can be canceled what needs `WdfRequestUnmarkCancelable` first: it completes it, forwards,
//! requeues or sends it, marks it again, or asks whether it is canceled.
//!
//! Pages: *WdfRequestMarkCancelable function*, *WdfRequestUnmarkCancelable function*, *WdfRequestStopAcknowledge function*, *WdfRequestIsCanceled function*,
//! *Canceling I/O Requests*, *ReqMarkCancelableSend rule (kmdf)*, *ReqIsCancOnCancReq rule (kmdf)*. A request that is marked twice, or forwarded, is in two of the
//! framework's lists by one entry; that a request is asked for, only the framework's verifier minds. *It does not* follow requests of
//! `WdfRequestMarkCancelableEx`, which may have failed, nor a client that takes requests by callbacks that are not seen.

use std::collections::BTreeSet;

use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::follower::Follower;
use crate::kmdf_requests::is_of_the_unseen;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-cancelable";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfCancelable {
    /// Requests that were marked, and neither unmarked nor canceled.
    cancelable: BTreeSet<u64>,
    is_blind: bool,
    found: Option<Verdict>,
}

impl KmdfCancelable {
    fn called(&mut self, name: &'static str, request: u64, more: u64) {
        let is_wrong = match name {
            "WdfRequestMarkCancelable" => !self.cancelable.insert(request),
            "WdfRequestMarkCancelableEx" | "WdfRequestIsCanceled" => self.cancelable.contains(&request),
            "WdfRequestComplete"
            | "WdfRequestCompleteWithInformation"
            | "WdfRequestCompleteWithPriorityBoost"
            | "WdfRequestForwardToIoQueue"
            | "WdfRequestForwardToParentDeviceIoQueue"
            | "WdfRequestRequeue"
            | "WdfRequestSend" => self.cancelable.remove(&request),
            "WdfRequestStopAcknowledge" => more & 0xFF != 0 && self.cancelable.remove(&request),
            "WdfRequestUnmarkCancelable" | "WdfRequestReuse" | "WdfObjectDelete" => {
                self.cancelable.remove(&request);
                false
            }
            name => {
                self.is_blind |= is_of_the_unseen(name);
                false
            }
        };
        if is_wrong && !self.is_blind {
            self.found = Some(verdict(name, request));
        }
    }
}

fn verdict(name: &str, request: u64) -> Verdict {
    let message = format!(
        "{name}: the request {request:#x} can be canceled still: its cancel callback may run at any moment, and complete it"
    );
    match name {
        "WdfRequestIsCanceled" => Verdict::verifier("kmdf-cancelable", message),
        _ => Verdict::error("kmdf-cancelable", message),
    }
}

impl Follower for KmdfCancelable {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter)
    }

    fn follow(&mut self, _stamp: &Stamp, event: &Event) {
        match event {
            Event::Enter { role, object, .. } if gets_a_request(*role) => {
                self.cancelable.remove(object);
            }
            Event::Ddi { export, arguments, .. } => {
                if let Some(row) = exports::row(*export) {
                    self.called(row.name, arguments[1], arguments[2]);
                }
            }
            _ => {}
        }
    }

    fn shows(&self) -> bool {
        self.found.is_some()
    }

    fn found(&mut self) -> Option<Verdict> {
        self.found.take()
    }
}

/// Whether a callback gets a request that cannot be canceled any more, or not yet.
fn gets_a_request(role: Role) -> bool {
    role == Role::EvtRequestCancel || crate::kmdf_requests::is_delivery(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Following;
    use crate::rig::{call, enter};

    const REQUEST: u64 = 0x1000;
    const OTHER: u64 = 0x2000;

    /// What is said after these events, of which each tells its strand.
    fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
        crate::rig::said(&mut Following(KmdfCancelable::default()), events)
    }

    fn mark() -> (u32, Event) {
        (1, call("WdfRequestMarkCancelable", REQUEST, 0))
    }

    #[test]
    fn a_request_that_can_be_canceled_is_unmarked_or_canceled_first() {
        for (name, more) in [
            ("WdfRequestComplete", 0),
            ("WdfRequestForwardToIoQueue", OTHER),
            ("WdfRequestIsCanceled", 0),
            ("WdfRequestMarkCancelable", 0),
            ("WdfRequestMarkCancelableEx", 0),
            ("WdfRequestRequeue", 0),
            ("WdfRequestSend", OTHER),
            ("WdfRequestStopAcknowledge", 1),
        ] {
            let does = |request| (1, call(name, request, more));
            let message = said([mark(), does(REQUEST)]).unwrap();
            assert!(message.starts_with(&format!("{name}: the request 0x1000 can be canceled")), "{message}");
            assert_eq!(said([mark(), does(OTHER)]), None, "{name}");
            for before in
                [call("WdfRequestUnmarkCancelable", REQUEST, 0), enter(Role::EvtRequestCancel, REQUEST)]
            {
                assert_eq!(said([mark(), (2, before), does(REQUEST)]), None, "{name}");
            }
        }
        assert_eq!(said([mark(), (1, call("WdfRequestStopAcknowledge", REQUEST, 0))]), None, "it is kept");
    }

    #[test]
    fn of_a_request_that_may_not_have_been_marked_nothing_is_said() {
        let complete = || (1, call("WdfRequestComplete", REQUEST, 0));
        assert_eq!(said([(1, call("WdfRequestMarkCancelableEx", REQUEST, 0)), complete()]), None);
        assert_eq!(said([mark(), (1, enter(Role::EvtIoRead, REQUEST)), complete()]), None, "a later one");
        assert_eq!(said([(1, call("WdfCxDeviceInitAllocate", OTHER, 0)), mark(), complete()]), None);
    }
}
