//! `kmdf-waits`: a client of KMDF waits in a callback for that callback: stops its timer or flushes its work item with a wait; or it waits in a callback
//! of an I/O queue until a queue has stopped.
//!
//! Pages: *WdfTimerStop function*, *WdfWorkItemFlush function*, *WdfIoQueueStopSynchronously function* (which forbids it in these callbacks, whatever the
//! queue), *NoIoQueuePurgeSynchronously rule (kmdf)*. The framework sees a thread that would wait for itself, and does not wait; its verifier breaks. *It does
//! not* follow `WdfDpcCancel`, whose callback runs at `DISPATCH_LEVEL`, where no wait is allowed; a queue that waits for its own request is a deadlock,
//! which the kernel finds.

use engine::StrandId;
use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::callbacks::Callbacks;
use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-waits";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfWaits {
    callbacks: Callbacks,
    found: Option<Verdict>,
}

impl KmdfWaits {
    fn called(&mut self, name: &str, strand: StrandId, handle: u64, more: u64) -> Option<Verdict> {
        let own = match name {
            "WdfTimerStop" if more & 0xFF != 0 => Role::EvtTimerFunc,
            "WdfWorkItemFlush" => Role::EvtWorkItem,
            name if stops_a_queue(name) => return self.in_a_queues_callback(name, strand),
            _ => return None,
        };
        self.callbacks.is_in_one_for(strand, &[own], handle).then(|| {
            let message = format!("{name}: {own} of {handle:#x} waits until it has returned itself");
            Verdict::verifier("kmdf-waits", message)
        })
    }

    fn in_a_queues_callback(&self, name: &str, strand: StrandId) -> Option<Verdict> {
        let role = self.callbacks.innermost(strand).filter(|role| presents_a_request(*role))?;
        let message = format!(
            "{name}: {role} waits for the requests of a queue: for its own, if that is not completed"
        );
        Some(Verdict::warning("kmdf-waits", message))
    }
}

fn stops_a_queue(name: &str) -> bool {
    matches!(
        name,
        "WdfIoQueueDrainSynchronously"
            | "WdfIoQueuePurgeSynchronously"
            | "WdfIoQueueStopAndPurgeSynchronously"
            | "WdfIoQueueStopSynchronously"
    )
}

fn presents_a_request(role: Role) -> bool {
    matches!(
        role,
        Role::EvtIoDefault
            | Role::EvtIoDeviceControl
            | Role::EvtIoInternalDeviceControl
            | Role::EvtIoRead
            | Role::EvtIoWrite
    )
}

impl Follower for KmdfWaits {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter | Kind::Leave)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        self.callbacks.follow(stamp.strand, event);
        if let Event::Ddi { export, arguments, .. } = event
            && let Some(row) = exports::row(*export)
        {
            self.found = self.called(row.name, stamp.strand, arguments[1], arguments[2]);
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
    use crate::rig::{call, enter, leave};

    const OBJECT: u64 = 0x1000;
    const OTHER: u64 = 0x2000;

    fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
        crate::rig::said(&mut Following(KmdfWaits::default()), events)
    }

    #[test]
    fn a_callback_does_not_wait_for_itself() {
        for (role, name, wait) in
            [(Role::EvtTimerFunc, "WdfTimerStop", 1), (Role::EvtWorkItem, "WdfWorkItemFlush", 0)]
        {
            let begins = || (1, enter(role, OBJECT));
            let waits = |strand, object| (strand, call(name, object, wait));
            assert!(said([begins(), waits(1, OBJECT)]).unwrap().contains("waits until it has returned"));
            assert_eq!(said([begins(), waits(1, OTHER)]), None, "{name}: another");
            assert_eq!(said([begins(), waits(2, OBJECT)]), None, "{name}: another thread");
            assert_eq!(said([begins(), (1, leave(role)), waits(1, OBJECT)]), None, "{name}: later");
        }
        let without = [(1, enter(Role::EvtTimerFunc, OBJECT)), (1, call("WdfTimerStop", OBJECT, 0))];
        assert_eq!(said(without), None);
    }

    #[test]
    fn queues_are_not_waited_for_where_they_present_requests() {
        let stops = || (1, call("WdfIoQueueStopSynchronously", OTHER, 0));
        assert!(said([(1, enter(Role::EvtIoWrite, OBJECT)), stops()]).unwrap().contains("EvtIoWrite waits"));
        for role in [Role::EvtDeviceD0Exit, Role::EvtDeviceSelfManagedIoSuspend, Role::EvtWorkItem] {
            assert_eq!(said([(1, enter(role, OBJECT)), stops()]), None, "{role}");
        }
        let within = [(1, enter(Role::EvtIoRead, OBJECT)), (1, enter(Role::EvtDeviceD0Exit, OTHER)), stops()];
        assert_eq!(said(within), None);
        let lets_go = [(1, enter(Role::EvtIoRead, OBJECT)), (1, call("WdfIoQueueStop", OTHER, 0))];
        assert_eq!(said(lets_go), None);
    }
}
