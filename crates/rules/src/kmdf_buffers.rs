//! `kmdf-buffers`: a client of KMDF asks a read request for its input, a write request for its output, or a request for its file though it has asked the
//! framework for no files: there is none, whatever the call returns.
//!
//! Pages: *InputBufferAPI rule (kmdf)*, *OutputBufferAPI rule (kmdf)*, *FileObjectConfigured rule (kmdf)*, *WdfRequestGetFileObject function*, *Accessing Data Buffers
//! in WDF Drivers*. It knows that a request is a read or a write by the callback that it came in, for as long as the client has it. *It does not*
//! know what requests of `EvtIoDefault` and of manual queues are, nor of files if another client has asked for some: a class extension may, in its client's stead.

use std::collections::BTreeMap;

use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::follower::Follower;
use crate::kmdf_requests::{is_delivery, is_of_the_unseen};

/// The rule's name.
pub(super) const RULE: &str = "kmdf-buffers";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfBuffers {
    /// By what callback the requests have come that a client has.
    came_by: BTreeMap<u64, Role>,
    /// A client has asked for files, or they may be there for another reason.
    may_have_files: bool,
    found: Option<Verdict>,
}

impl KmdfBuffers {
    fn called(&mut self, name: &str, handle: u64) -> Option<Verdict> {
        match name {
            "WdfDeviceInitSetFileObjectConfig" => self.may_have_files = true,
            "WdfRequestGetFileObject" if !self.may_have_files => {
                let message = format!(
                    "{name}: the request {handle:#x} has no file: WdfDeviceInitSetFileObjectConfig was not called"
                );
                return Some(Verdict::advice("kmdf-buffers", message));
            }
            name if name.starts_with("WdfRequestRetrieve") => return self.retrieved(name, handle),
            name if gives_away(name) => drop(self.came_by.remove(&handle)),
            name => self.may_have_files |= is_of_the_unseen(name),
        }
        None
    }

    fn retrieved(&self, name: &str, request: u64) -> Option<Verdict> {
        let missing = match self.came_by.get(&request)? {
            Role::EvtIoRead => "Input",
            Role::EvtIoWrite => "Output",
            _ => return None,
        };
        name.contains(missing).then(|| {
            let role = self.came_by[&request];
            let what = missing.to_lowercase();
            Verdict::warning(
                "kmdf-buffers",
                format!("{name}: the request {request:#x} has come by {role}: it has no {what}"),
            )
        })
    }
}

/// Whether a client may not have the request any more that it hands to this function.
fn gives_away(name: &str) -> bool {
    matches!(
        name,
        "WdfRequestComplete"
            | "WdfRequestCompleteWithInformation"
            | "WdfRequestCompleteWithPriorityBoost"
            | "WdfRequestForwardToIoQueue"
            | "WdfRequestForwardToParentDeviceIoQueue"
            | "WdfRequestRequeue"
            | "WdfRequestReuse"
            | "WdfRequestSend"
            | "WdfRequestStopAcknowledge"
    )
}

impl Follower for KmdfBuffers {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter)
    }

    fn follow(&mut self, _stamp: &Stamp, event: &Event) {
        match event {
            Event::Enter { role, object, .. } if is_delivery(*role) => {
                self.came_by.insert(*object, *role);
            }
            Event::Ddi { export, arguments, .. } => {
                if let Some(row) = exports::row(*export) {
                    self.found = self.called(row.name, arguments[1]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Following;
    use crate::rig::{call, enter};

    const REQUEST: u64 = 0x1000;
    const OTHER: u64 = 0x2000;

    fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
        crate::rig::said(&mut Following(KmdfBuffers::default()), events)
    }

    #[test]
    fn reads_have_output_and_writes_have_input() {
        for (role, has, has_not) in
            [(Role::EvtIoRead, "Output", "Input"), (Role::EvtIoWrite, "Input", "Output")]
        {
            let comes = || (1, enter(role, REQUEST));
            for form in ["Buffer", "Memory", "WdmMdl"] {
                let asks = |what| (1, call(&format!("WdfRequestRetrieve{what}{form}"), REQUEST, 0));
                assert!(said([comes(), asks(has_not)]).unwrap().contains(role.name()));
                assert_eq!(said([comes(), asks(has)]), None);
                let another = enter(Role::EvtIoDeviceControl, REQUEST);
                assert_eq!(said([comes(), (1, another), asks(has_not)]), None);
            }
            let asks = || (1, call(&format!("WdfRequestRetrieveUnsafeUser{has_not}Buffer"), REQUEST, 0));
            assert!(said([comes(), asks()]).is_some());
            assert_eq!(
                said([comes(), (1, call("WdfRequestForwardToIoQueue", REQUEST, OTHER)), asks()]),
                None
            );
        }
    }

    #[test]
    fn files_are_there_if_they_were_asked_for() {
        let asks = || (1, call("WdfRequestGetFileObject", REQUEST, 0));
        assert!(said([asks()]).unwrap().contains("has no file"));
        assert_eq!(said([(1, call("WdfDeviceInitSetFileObjectConfig", OTHER, 0)), asks()]), None);
        assert_eq!(said([(1, call("WdfCxDeviceInitAllocate", OTHER, 0)), asks()]), None);
    }
}
