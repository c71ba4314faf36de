//! `kmdf-surprise-removal`: a client of KMDF completes or cancels requests, or stops queues, in `EvtDeviceSurpriseRemoval`.
//!
//! Pages: *EvtSurpriseRemoveNoRequestComplete rule (kmdf)*, *EvtSurpriseRemoveNoSuspendQueue rule (kmdf)*, *NoCancelFromEvtSurpriseRemove rule (kmdf)*: that callback
//! is not synchronised with the device's way out of power, by which the framework does the same; the callbacks of self-managed I/O are. *It does not* judge what a
//! callback does that is called meanwhile.

use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::callbacks::Callbacks;
use crate::follower::Follower;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-surprise-removal";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfSurpriseRemoval {
    callbacks: Callbacks,
    found: Option<String>,
}

/// What is better done elsewhere.
fn ends_requests(name: &str) -> bool {
    matches!(
        name,
        "WdfIoQueueDrain"
            | "WdfIoQueueDrainSynchronously"
            | "WdfIoQueuePurge"
            | "WdfIoQueuePurgeSynchronously"
            | "WdfIoQueueStop"
            | "WdfIoQueueStopAndPurge"
            | "WdfIoQueueStopAndPurgeSynchronously"
            | "WdfIoQueueStopSynchronously"
            | "WdfRequestCancelSentRequest"
            | "WdfRequestComplete"
            | "WdfRequestCompleteWithInformation"
            | "WdfRequestCompleteWithPriorityBoost"
    )
}

impl Follower for KmdfSurpriseRemoval {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter | Kind::Leave)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        self.callbacks.follow(stamp.strand, event);
        if let Event::Ddi { export, .. } = event
            && self.callbacks.innermost(stamp.strand) == Some(Role::EvtDeviceSurpriseRemoval)
        {
            let name = exports::row(*export).map(|row| row.name).filter(|name| ends_requests(name));
            self.found = name.map(|name| {
                format!("{name}: EvtDeviceSurpriseRemoval may run while the device goes out of power, which ends its requests, too")
            });
        }
    }

    fn shows(&self) -> bool {
        self.found.is_some()
    }

    fn found(&mut self) -> Option<Verdict> {
        let message = self.found.take()?;
        Some(Verdict::advice("kmdf-surprise-removal", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Following;
    use crate::rig::{call, enter, leave};

    const DEVICE: u64 = 0x1000;
    const REQUEST: u64 = 0x2000;

    fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
        crate::rig::said(&mut Following(KmdfSurpriseRemoval::default()), events)
    }

    #[test]
    fn requests_are_left_to_the_callbacks_that_are_synchronised_with_power() {
        let removed = || (1, enter(Role::EvtDeviceSurpriseRemoval, DEVICE));
        for name in ["WdfRequestComplete", "WdfRequestCancelSentRequest", "WdfIoQueuePurge"] {
            let does = |strand| (strand, call(name, REQUEST, 0));
            assert!(said([removed(), does(1)]).unwrap().starts_with(name));
            assert_eq!(said([removed(), does(2)]), None, "{name}: another thread");
            assert_eq!(
                said([removed(), (1, leave(Role::EvtDeviceSurpriseRemoval)), does(1)]),
                None,
                "{name}"
            );
            assert_eq!(
                said([removed(), (1, enter(Role::EvtRequestCancel, REQUEST)), does(1)]),
                None,
                "{name}"
            );
            let suspended = (1, enter(Role::EvtDeviceSelfManagedIoSuspend, DEVICE));
            assert_eq!(said([suspended, does(1)]), None, "{name}");
        }
        assert_eq!(said([removed(), (1, call("WdfTimerStop", DEVICE, 0))]), None);
    }
}
