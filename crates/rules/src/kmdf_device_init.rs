//! `kmdf-device-init`: a client of KMDF uses or frees a WDFDEVICE_INIT that it has freed, or does not finish the initialisation of a control device.
//!
//! Pages: *WdfDeviceInitFree function*, *WdfControlFinishInitializing function*, *DoubleDeviceInitFree rule (kmdf)*, *CtlDeviceFinishInitDrEntry rule (kmdf)*. What
//! `EvtDriverDeviceAdd` gets is not freed by `WdfDeviceInitFree`, and no event says which it is: *it does not* follow what is called in there, nor in callbacks of
//! child lists, nor in class extensions. What `WdfDeviceCreate` gets is the address of a pointer, which it sets to NULL.

use std::collections::{BTreeMap, BTreeSet};

use engine::StrandId;
use kernel::event::{Event, Kind, Role, Stamp};
use kernel::exports;
use kernel::verdict::Verdict;

use crate::callbacks::Callbacks;
use crate::follower::Follower;
use crate::giving::Giving;

/// The rule's name.
pub(super) const RULE: &str = "kmdf-device-init";

/// What it follows.
#[derive(Clone, Default)]
pub(crate) struct KmdfDeviceInit {
    callbacks: Callbacks,
    giving: Giving,
    freed: BTreeSet<u64>,
    /// Who has begun a control device, and not created it or given it up.
    begun: BTreeSet<StrandId>,
    /// Control devices that were created and not finished, by the globals of their clients.
    unfinished: BTreeMap<u64, u32>,
    /// The globals of clients, by the handles of their drivers.
    clients: BTreeMap<u64, u64>,
    is_blind: bool,
    found: Option<Verdict>,
}

impl KmdfDeviceInit {
    fn called(&mut self, name: &str, strand: StrandId, globals: u64, argument: u64) {
        let is_seen = self.callbacks.innermost(strand).is_some_and(owns_what_it_frees);
        if is_of_other_kinds(name) {
            self.is_blind = true;
        } else if name.ends_with("InitAllocate") {
            self.freed.clear();
            self.giving.begin(strand);
            self.begun.remove(&strand);
        } else if takes_init(name) && self.freed.contains(&argument) {
            let message = format!("{name}: the WDFDEVICE_INIT {argument:#x} has been freed");
            self.found = Some(Verdict::error("kmdf-device-init", message));
        }
        match name {
            "WdfControlDeviceInitAllocate" if is_seen => {
                self.clients.insert(argument, globals);
                self.begun.insert(strand);
            }
            "WdfDeviceInitFree" if is_seen && !self.is_blind => {
                if !self.giving.is_under_way() {
                    self.freed.insert(argument);
                }
                if !self.begun.remove(&strand) {
                    self.finish_one(globals); // it could not be created
                }
            }
            "WdfDeviceCreate" if is_seen && self.begun.remove(&strand) => {
                *self.unfinished.entry(globals).or_default() += 1;
            }
            "WdfControlFinishInitializing" => self.finish_one(globals),
            "WdfObjectDelete" => drop(self.unfinished.remove(&globals)), // it may be the device
            _ => {}
        }
    }

    fn finish_one(&mut self, globals: u64) {
        if let Some(count) = self.unfinished.get_mut(&globals) {
            *count = count.saturating_sub(1);
        }
    }

    /// A client is about to go.
    fn unloaded(&mut self, driver: u64) {
        let globals = self.clients.remove(&driver);
        let unfinished = globals.and_then(|globals| self.unfinished.remove(&globals));
        if unfinished.is_some_and(|count| count > 0) && !self.is_blind {
            let message = "WdfControlFinishInitializing was not called for a control device that was created: \
                           the framework hands no request to it";
            self.found = Some(Verdict::warning("kmdf-device-init", message));
        }
    }
}

/// Whether a client that calls this may have structures on the framework's stack, besides those of `EvtDriverDeviceAdd`.
fn is_of_other_kinds(name: &str) -> bool {
    name.starts_with("WdfCx")
        || name.starts_with("WdfChildList")
        || name == "WdfFdoInitSetDefaultChildListConfig"
}

fn takes_init(name: &str) -> bool {
    ["WdfDeviceInit", "WdfPdoInit", "WdfFdoInit", "WdfControlDeviceInitSet"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Whether a routine has no WDFDEVICE_INIT but those that the client has allocated.
fn owns_what_it_frees(role: Role) -> bool {
    role == Role::DriverEntry || role.name().starts_with("Evt") && role != Role::EvtDriverDeviceAdd
}

impl Follower for KmdfDeviceInit {
    const OF_FRAMEWORK: bool = true;

    fn wants(kind: Kind) -> bool {
        matches!(kind, Kind::Ddi | Kind::Enter | Kind::Leave)
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        self.callbacks.follow(stamp.strand, event);
        self.giving.follow(stamp.strand, event);
        match event {
            Event::Enter { role: Role::EvtDriverUnload, object, .. } => self.unloaded(*object),
            Event::Ddi { export, arguments, .. } => {
                if let Some(row) = exports::row(*export) {
                    self.called(row.name, stamp.strand, arguments[0], arguments[1]);
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

    const DRIVER: u64 = 0x1000;
    const INIT: u64 = 0x2000;
    const DEVICE: u64 = 0x3000;

    fn said(events: impl IntoIterator<Item = Event>) -> Option<String> {
        let events = events.into_iter().map(|event| (1, event));
        crate::rig::said(&mut Following(KmdfDeviceInit::default()), events)
    }

    fn entry() -> Event {
        enter(Role::DriverEntry, 0)
    }

    fn allocate() -> Event {
        call("WdfControlDeviceInitAllocate", DRIVER, 0)
    }

    fn free() -> Event {
        call("WdfDeviceInitFree", INIT, 0)
    }

    fn create() -> Event {
        call("WdfDeviceCreate", DEVICE, 0)
    }

    fn unload() -> Event {
        enter(Role::EvtDriverUnload, DRIVER)
    }

    #[test]
    fn what_is_freed_is_used_no_more() {
        let set = || call("WdfDeviceInitSetExclusive", INIT, 1);
        assert!(said([entry(), allocate(), free(), set()]).unwrap().contains("has been freed"));
        assert!(said([entry(), allocate(), free(), free()]).unwrap().contains("has been freed"));
        assert_eq!(said([entry(), allocate(), free(), allocate(), set()]), None, "at the same address");
        let given = enter(Role::EvtDriverDeviceAdd, DRIVER);
        assert_eq!(said([given, free(), set()]), None, "it is the framework's");
        assert_eq!(said([free(), set()]), None, "who knows");
        let children = call("WdfFdoInitSetDefaultChildListConfig", INIT, 0);
        assert_eq!(said([entry(), children, allocate(), free(), set()]), None);
    }

    #[test]
    fn a_control_device_is_finished_deleted_or_given_up() {
        assert!(said([entry(), allocate(), create(), unload()]).unwrap().contains("Finish"));
        for ends in
            [call("WdfControlFinishInitializing", DEVICE, 0), call("WdfObjectDelete", DEVICE, 0), free()]
        {
            assert_eq!(said([entry(), allocate(), create(), ends, unload()]), None);
        }
        assert_eq!(said([entry(), allocate(), free(), unload()]), None);
        let of_a_card = [enter(Role::EvtDriverDeviceAdd, DRIVER), create(), unload()];
        assert_eq!(said(of_a_card), None);
        let of_a_child = [entry(), allocate(), call("WdfPdoInitAllocate", DEVICE, 0), create(), unload()];
        assert_eq!(said(of_a_child), None);
    }
}
