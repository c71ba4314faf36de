//! `kmdf-requests`: a client of KMDF completes a request twice, or uses one that it has completed.
//!
//! Pages: *WdfRequestComplete function*, *Completing I/O Requests*, *DoubleCompletion rule (kmdf)*, *InvalidReqAccess rule (kmdf)*. It follows
//! requests by their handles, from the callbacks that a client gets them in and the functions that it calls. A handle may be that of a later request:
//! where a function could have given one out, nothing is said of those that were completed before it returned. *It does not* follow what it is not
//! shown: of a client that takes requests by callbacks that are not seen nothing is said; nor of the use of a completed request while a reference to it may
//! be held: one of the client's, the framework's during a callback, or that of a request that was found in a queue. What was read of a request before
//! its completion, its buffers, is memory.

use std::collections::{BTreeMap, BTreeSet};

use engine::StrandId;
use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::callbacks::Callbacks;
use crate::follower::Follower;
use crate::giving::Giving;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-requests";

/// Functions that may give a request out.
const GIVING: [&str; 6] = [
    FIND,
    "WdfIoQueueRetrieveFoundRequest",
    "WdfIoQueueRetrieveNextRequest",
    "WdfIoQueueRetrieveRequestByFileObject",
    CREATE,
    "WdfRequestCreateFromIrp",
];
const FIND: &str = "WdfIoQueueFindRequest";
const CREATE: &str = "WdfRequestCreate";
/// Callbacks during which the framework has a reference to the request, completed or not.
const REFERENCING: [Role; 4] =
    [Role::EvtIoCanceledOnQueue, Role::EvtIoResume, Role::EvtIoStop, Role::EvtRequestCancel];
/// What a client may ask of a completed request that it has made itself.
const OF_ITS_OWN: [&str; 3] =
    ["WdfRequestGetCompletionParams", "WdfRequestGetInformation", "WdfRequestGetStatus"];

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfRequests {
    completed: BTreeSet<u64>,
    /// How often each object was referenced and not dereferenced.
    references: BTreeMap<u64, u32>,
    callbacks: Callbacks,
    giving: Giving,
    /// Requests reach a client in ways that are not seen.
    is_blind: bool,
    /// Requests were found in queues: each with a reference.
    finds: bool,
    /// Requests were made by a client.
    makes: bool,
    found: Option<String>,
}

impl KmdfRequests {
    fn called(&mut self, name: &'static str, strand: StrandId, handle: u64) {
        match name {
            "WdfRequestComplete"
            | "WdfRequestCompleteWithInformation"
            | "WdfRequestCompleteWithPriorityBoost" => self.complete(name, handle),
            "WdfObjectReferenceActual" => *self.references.entry(handle).or_default() += 1,
            "WdfObjectDereferenceActual" => self.dereference(handle),
            "WdfRequestReuse" | "WdfObjectDelete" => drop(self.completed.remove(&handle)),
            name if GIVING.contains(&name) => {
                self.completed.clear();
                self.giving.begin(strand);
                self.finds |= name == FIND;
                self.makes |= name.starts_with(CREATE);
            }
            name if name.starts_with("WdfRequest") => self.used(name, strand, handle),
            name => self.is_blind |= is_of_the_unseen(name),
        }
    }

    fn dereference(&mut self, handle: u64) {
        if let Some(count) = self.references.get_mut(&handle) {
            *count -= 1;
            if *count == 0 {
                self.references.remove(&handle);
            }
        }
    }

    fn complete(&mut self, name: &str, request: u64) {
        if self.is_blind {
            return;
        }
        if self.completed.contains(&request) {
            self.found = Some(format!("{name}: the request {request:#x} has been completed already"));
        }
        if !self.giving.is_under_way() {
            self.completed.insert(request);
        } // else it may be the request that is being given out
    }

    /// A request that is completed is gone, unless there is a reference to it.
    fn used(&mut self, name: &str, strand: StrandId, request: u64) {
        let may_be_there = self.finds
            || self.makes && OF_ITS_OWN.contains(&name)
            || self.references.contains_key(&request)
            || self.callbacks.is_in_one_for(strand, &REFERENCING, request);
        if self.completed.contains(&request) && !self.is_blind && !may_be_there {
            self.found =
                Some(format!("{name}: the request {request:#x} has been completed, and is gone with that"));
        }
    }
}

/// Whether a callback gets a request that a client has not had, or has again.
pub(super) fn is_delivery(role: Role) -> bool {
    matches!(
        role,
        Role::EvtDeviceFileCreate
            | Role::EvtIoCanceledOnQueue
            | Role::EvtIoDefault
            | Role::EvtIoDeviceControl
            | Role::EvtIoInCallerContext
            | Role::EvtIoInternalDeviceControl
            | Role::EvtIoRead
            | Role::EvtIoWrite
    )
}

/// Whether who calls this function gets requests by callbacks that are not seen.
pub(super) fn is_of_the_unseen(name: &str) -> bool {
    name == "WdfIoQueueAssignForwardProgressPolicy" || name.starts_with("WdfCx")
}

impl Follower for KmdfRequests {
    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter | Kind::Leave)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        self.callbacks.follow(stamp.strand, event);
        self.giving.follow(stamp.strand, event);
        match event {
            Event::Enter { role, object, .. } if is_delivery(*role) => {
                self.completed.remove(object);
            }
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
    fn a_completed_request_is_not_used_unless_there_is_a_reference_to_it() {
        let ask = || call("WdfRequestIsCanceled", REQUEST, 0);
        let reference = |name| call(name, REQUEST, 0);
        let done = [(1, complete(REQUEST)), (2, ask())];
        assert!(said(done).unwrap().contains("is gone with that"));
        let held = [(1, reference("WdfObjectReferenceActual")), (1, complete(REQUEST)), (2, ask())];
        assert_eq!(said(held), None);
        let given_back = [
            (1, reference("WdfObjectReferenceActual")),
            (1, complete(REQUEST)),
            (1, reference("WdfObjectDereferenceActual")),
            (1, ask()),
        ];
        assert!(said(given_back).is_some());
        for role in REFERENCING {
            assert_eq!(said([(1, enter(role, REQUEST)), (1, complete(REQUEST)), (1, ask())]), None, "{role}");
        }
        let found = [(1, call(FIND, OTHER, 0)), (1, ask()), (1, complete(REQUEST)), (1, ask())];
        assert_eq!(said(found), None);
    }

    #[test]
    fn of_requests_that_a_client_makes_it_may_ask_when_they_are_completed() {
        for (name, is_wrong) in [("WdfRequestGetStatus", false), ("WdfRequestGetIoQueue", true)] {
            let made = [
                (1, call(CREATE, 0, 0)),
                (1, call("WdfRequestSend", REQUEST, 0)),
                (1, complete(REQUEST)),
                (1, call(name, REQUEST, 0)),
            ];
            assert_eq!(said(made).is_some(), is_wrong, "{name}");
        }
    }

    #[test]
    fn of_clients_whose_callbacks_are_not_seen_nothing_is_said() {
        for name in ["WdfIoQueueAssignForwardProgressPolicy", "WdfCxDeviceInitAllocate"] {
            assert_eq!(
                said([(1, call(name, OTHER, 0)), (1, complete(REQUEST)), (1, complete(REQUEST))]),
                None,
                "{name}"
            );
        }
    }
}
