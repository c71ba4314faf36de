//! `kmdf-requests`: a client of KMDF completes a request twice, or one that it has marked cancelable and not unmarked.
//!
//! Pages: *WdfRequestComplete function*, *WdfRequestMarkCancelable function*, *WdfRequestUnmarkCancelable function*, *Canceling I/O Requests*. It follows
//! requests by their handles, from the callbacks that a client gets them in and the functions that it calls. A handle may be that of a later request:
//! where a function could have given one out, nothing is said of those that were completed before. *It does not* follow what it is not shown: of a client
//! that takes requests by callbacks that are not seen nothing is said, nor of requests of `WdfRequestMarkCancelableEx`, which may have failed.

use std::any::Any;
use std::collections::BTreeSet;

use kernel::event::{Event, Judgement, Kind, Reader, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

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

/// The reader.
#[derive(Clone, Default)]
pub struct KmdfRequests {
    completed: BTreeSet<u64>,
    cancelable: BTreeSet<u64>,
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

    fn called(&mut self, name: &'static str, handle: u64) {
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
            name if GIVING.contains(&name) => self.completed.clear(),
            name => self.is_blind |= name == UNSEEN || name.starts_with(CLASS_EXTENSION),
        }
    }

    fn complete(&mut self, name: &str, request: u64) {
        if self.is_blind {
            return;
        }
        if !self.completed.insert(request) {
            self.found = Some(format!("{name}: the request {request:#x} has been completed already"));
        } else if self.cancelable.remove(&request) {
            self.found = Some(format!(
                "{name}: the request {request:#x} can be canceled still: its cancel callback may run, and complete it, too"
            ));
        }
    }
}

impl Reader for KmdfRequests {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        match event {
            Event::Enter { role, object, .. } => self.delivered(*role, *object),
            Event::Ddi { export, arguments, .. } => {
                if let Some(row) = exports::row(*export) {
                    self.called(row.name, arguments[1]);
                }
            }
            _ => {}
        }
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        let message = self.found.take()?;
        Some(Judgement::Finding(Box::new(Verdict::error("kmdf-requests", message))))
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.clone()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        self.clone_from(saved.downcast_ref().expect("it gave its state"));
    }
}
