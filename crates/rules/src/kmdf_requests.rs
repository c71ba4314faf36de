//! `kmdf-requests`: a client of KMDF completes a request twice, or uses one that it has completed.
//!
//! Pages: *WdfRequestComplete function*, *Completing I/O Requests*, *DoubleCompletion rule (kmdf)*, *InvalidReqAccess rule (kmdf)*. It follows
//! requests by their handles, from the callbacks that a client gets them in and the functions that it calls. A handle may be that of a later request:
//! where a function could have given one out, nothing is said of those that were completed before it returned. *It does not* follow what it is not
//! shown: of a client that takes requests by callbacks that are not seen nothing is said; nor of the use of a completed request while a reference to it may
//! be held: one of the client's, the framework's during a callback, or that of a request that was found in a queue; nor, in a client that has asked for callbacks
//! of objects, of what the thread does that completes it, until it leaves its routine: it may be in `EvtCleanupCallback`. What was read of a request
//! before its completion, its buffers, is memory.

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

/// Whether what a client hands to this function may have a callback that runs while a request is being completed.
fn may_have_cleanup(name: &str) -> bool {
    matches!(name, "WdfDeviceInitSetRequestAttributes" | "WdfObjectAllocateContext" | "WdfObjectCreate")
        || name.starts_with("WdfMemoryCreate")
}

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfRequests {
    completed: BTreeSet<u64>,
    /// Of those, which a strand may be completing still, and in how many routines it was then.
    completing: BTreeMap<u64, (StrandId, usize)>,
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
    /// Callbacks may run while a request is being completed.
    cleans_up: bool,
    found: Option<String>,
}

impl KmdfRequests {
    fn called(&mut self, name: &'static str, strand: StrandId, handle: u64) {
        match name {
            "WdfRequestComplete"
            | "WdfRequestCompleteWithInformation"
            | "WdfRequestCompleteWithPriorityBoost" => self.complete(name, strand, handle),
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
            name => {
                self.is_blind |= is_of_the_unseen(name);
                self.cleans_up |= may_have_cleanup(name);
            }
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

    fn complete(&mut self, name: &str, strand: StrandId, request: u64) {
        if self.is_blind {
            return;
        }
        if self.completed.contains(&request) {
            self.found = Some(format!("{name}: the request {request:#x} has been completed already"));
        }
        if !self.giving.is_under_way() {
            self.completed.insert(request);
            self.completing.insert(request, (strand, self.callbacks.depth(strand)));
        } // else it may be the request that is being given out
    }

    /// A request that is completed is gone, unless there is a reference to it.
    fn used(&mut self, name: &str, strand: StrandId, request: u64) {
        let may_be_there = self.finds
            || self.makes && OF_ITS_OWN.contains(&name)
            || self.references.contains_key(&request)
            || self.cleans_up && self.completing.get(&request).is_some_and(|(by, _)| *by == strand)
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
    const OF_FRAMEWORK: bool = true;

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
            Event::Leave { .. } => {
                let depth = self.callbacks.depth(stamp.strand);
                self.completing.retain(|_, (by, then)| *by != stamp.strand || *then <= depth);
            }
            Event::Ddi { export, arguments, .. } => {
                if let Some(row) = exports::row(*export) {
                    self.called(row.name, stamp.strand, arguments[1]);
                }
            }
            _ => {}
        }
    }

    fn shows(&self) -> bool {
        self.found.is_some()
    }

    fn found(&mut self) -> Option<Verdict> {
        let message = self.found.take()?;
        Some(Verdict::error("kmdf-requests", message))
    }
}

#[cfg(test)]
mod tests;
