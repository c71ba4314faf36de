//! `kmdf-requests`: a client of KMDF completes a request twice, or one that it has marked cancelable and not unmarked.
//!
//! Pages: *WdfRequestComplete function*, *WdfRequestMarkCancelable function*, *WdfRequestUnmarkCancelable function*, *Canceling I/O Requests*. It follows
//! requests by their handles, from the callbacks that a client gets them in and the functions that it calls. A handle may be that of a later request:
//! where a function could have given one out, nothing is said of those that were completed before it returned. *It does not* follow what it is not
//! shown: of a client that takes requests by callbacks that are not seen nothing is said, nor of requests of `WdfRequestMarkCancelableEx`, which may have
//! failed.

use std::collections::{BTreeMap, BTreeSet};

use engine::StrandId;
use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-requests";

/// Functions that may give a request out.
const GIVING: [&str; 6] = [
    "WdfIoQueueFindRequest",
    "WdfIoQueueRetrieveFoundRequest",
    "WdfIoQueueRetrieveNextRequest",
    "WdfIoQueueRetrieveRequestByFileObject",
    "WdfRequestCreate",
    "WdfRequestCreateFromIrp",
];
/// What a client calls that gets requests by callbacks that are not seen: this, and functions for class extensions.
const UNSEEN: &str = "WdfIoQueueAssignForwardProgressPolicy";
const CLASS_EXTENSION: &str = "WdfCx";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfRequests {
    completed: BTreeSet<u64>,
    cancelable: BTreeSet<u64>,
    /// Who is inside a function that may give a request out, as far as is known, and in how many callbacks there.
    giving: BTreeMap<StrandId, u32>,
    /// Requests reach a client in ways that are not seen.
    is_blind: bool,
    found: Option<String>,
}

impl KmdfRequests {
    /// A callback gets this request.
    fn delivered(&mut self, role: Role, request: u64) {
        match role {
            Role::EvtDeviceFileCreate
            | Role::EvtIoCanceledOnQueue
            | Role::EvtIoDefault
            | Role::EvtIoDeviceControl
            | Role::EvtIoInCallerContext
            | Role::EvtIoInternalDeviceControl
            | Role::EvtIoRead
            | Role::EvtIoWrite => self.forget(request),
            Role::EvtRequestCancel => {
                self.cancelable.remove(&request);
            }
            _ => {}
        }
    }

    fn forget(&mut self, request: u64) {
        self.completed.remove(&request);
        self.cancelable.remove(&request);
    }

    /// A callback begins: where it came between, its strand is inside a function still.
    fn entered(&mut self, strand: StrandId) {
        if let Some(callbacks) = self.giving.get_mut(&strand) {
            *callbacks += 1;
        }
    }

    fn left(&mut self, strand: StrandId) {
        match self.giving.get_mut(&strand) {
            Some(0) => drop(self.giving.remove(&strand)),
            Some(callbacks) => *callbacks -= 1,
            None => {}
        }
    }

    fn called(&mut self, name: &'static str, strand: StrandId, handle: u64) {
        if self.giving.get(&strand) == Some(&0) {
            self.giving.remove(&strand);
        }
        match name {
            "WdfRequestComplete"
            | "WdfRequestCompleteWithInformation"
            | "WdfRequestCompleteWithPriorityBoost" => self.complete(name, handle),
            "WdfRequestMarkCancelable" => {
                self.cancelable.insert(handle);
            }
            "WdfRequestUnmarkCancelable" => {
                self.cancelable.remove(&handle);
            }
            "WdfRequestReuse" | "WdfObjectDelete" => self.forget(handle),
            name if GIVING.contains(&name) => {
                self.completed.clear();
                self.giving.entry(strand).or_default();
            }
            name => self.is_blind |= name == UNSEEN || name.starts_with(CLASS_EXTENSION),
        }
    }

    fn complete(&mut self, name: &str, request: u64) {
        if self.is_blind {
            return;
        }
        if self.completed.contains(&request) {
            self.found = Some(format!("{name}: the request {request:#x} has been completed already"));
        } else if self.cancelable.remove(&request) {
            self.found = Some(format!(
                "{name}: the request {request:#x} can be canceled still: its cancel callback may run, and complete it, too"
            ));
        }
        if self.giving.is_empty() {
            self.completed.insert(request);
        } // else it may be the request that is being given out
    }
}

impl Follower for KmdfRequests {
    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter | Kind::Leave)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        match event {
            Event::Enter { role, object, .. } => {
                self.entered(stamp.strand);
                self.delivered(*role, *object);
            }
            Event::Leave { .. } => self.left(stamp.strand),
            Event::Ddi { export, arguments, .. } => {
                if let Some(row) = exports::row(*export) {
                    self.called(row.name, stamp.strand, arguments[1]);
                }
            }
            _ => {}
        }
    }

    fn found(&mut self) -> Option<Verdict> {
        let message = self.found.take()?;
        Some(Verdict::error("kmdf-requests", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Following;
    use crate::rig::{call, enter, leave};

    const REQUEST: u64 = 0x1000;
    const OTHER: u64 = 0x2000;

    /// What is said after these events, of which each tells its strand.
    fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
        crate::rig::said(&mut Following(KmdfRequests::default()), events)
    }

    fn complete(request: u64) -> Event {
        call("WdfRequestComplete", request, 0)
    }

    #[test]
    fn a_request_is_completed_once_by_whichever_function() {
        for name in ["WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"] {
            let message = said([(1, complete(REQUEST)), (2, call(name, REQUEST, 0))]).unwrap();
            assert_eq!(message, format!("{name}: the request 0x1000 has been completed already"));
        }
        assert_eq!(said([(1, complete(REQUEST)), (1, complete(OTHER))]), None);
    }

    #[test]
    fn a_handle_that_comes_by_a_callback_or_is_made_anew_is_another_request() {
        for role in [
            Role::EvtDeviceFileCreate,
            Role::EvtIoCanceledOnQueue,
            Role::EvtIoDefault,
            Role::EvtIoDeviceControl,
            Role::EvtIoInCallerContext,
            Role::EvtIoInternalDeviceControl,
            Role::EvtIoRead,
            Role::EvtIoWrite,
        ] {
            assert_eq!(
                said([(1, complete(REQUEST)), (1, enter(role, REQUEST)), (1, complete(REQUEST))]),
                None,
                "{role}"
            );
        }
        for name in ["WdfRequestReuse", "WdfObjectDelete"] {
            assert_eq!(
                said([(1, complete(REQUEST)), (1, call(name, REQUEST, 0)), (1, complete(REQUEST))]),
                None
            );
        }
        let of_another = [(1, complete(REQUEST)), (1, enter(Role::EvtIoRead, OTHER)), (1, complete(REQUEST))];
        assert!(said(of_another).is_some());
    }

    #[test]
    fn a_function_that_may_give_a_request_out_makes_all_handles_new() {
        for name in GIVING {
            assert_eq!(
                said([(1, complete(REQUEST)), (1, call(name, OTHER, 0)), (1, complete(REQUEST))]),
                None,
                "{name}"
            );
        }
        let twice_after = [(1, call(GIVING[2], OTHER, 0)), (1, complete(REQUEST)), (1, complete(REQUEST))];
        assert!(said(twice_after).is_some());
    }

    #[test]
    fn what_is_completed_while_a_function_gives_a_request_out_may_be_that_one() {
        let gives = || (1, call("WdfIoQueueRetrieveNextRequest", OTHER, 0));
        let between = [gives(), (2, complete(REQUEST)), (1, complete(REQUEST))];
        assert_eq!(said(between), None);
        let interrupted = [
            gives(),
            (1, enter(Role::EvtInterruptDpc, OTHER)),
            (1, call("WdfSpinLockAcquire", OTHER, 0)),
            (2, complete(REQUEST)),
            (1, leave(Role::EvtInterruptDpc)),
            (1, complete(REQUEST)),
        ];
        assert_eq!(said(interrupted), None);
        for returned in [leave(Role::EvtIoRead), call("WdfSpinLockAcquire", OTHER, 0)] {
            assert!(said([gives(), (1, returned), (2, complete(REQUEST)), (1, complete(REQUEST))]).is_some());
        }
    }

    #[test]
    fn a_request_that_can_be_canceled_is_unmarked_or_canceled_before_it_is_completed() {
        let mark = || (1, call("WdfRequestMarkCancelable", REQUEST, 0));
        assert!(said([mark(), (1, complete(REQUEST))]).unwrap().contains("can be canceled still"));
        assert_eq!(said([mark(), (1, complete(OTHER))]), None);
        for before in [call("WdfRequestUnmarkCancelable", REQUEST, 0), enter(Role::EvtRequestCancel, REQUEST)]
        {
            assert_eq!(said([mark(), (2, before), (2, complete(REQUEST))]), None);
        }
        let may_have_failed = [(1, call("WdfRequestMarkCancelableEx", REQUEST, 0)), (1, complete(REQUEST))];
        assert_eq!(said(may_have_failed), None);
    }

    #[test]
    fn of_clients_whose_callbacks_are_not_seen_nothing_is_said() {
        for name in [UNSEEN, "WdfCxDeviceInitAllocate"] {
            assert_eq!(
                said([(1, call(name, OTHER, 0)), (1, complete(REQUEST)), (1, complete(REQUEST))]),
                None,
                "{name}"
            );
        }
    }
}
