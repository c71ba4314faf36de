//! What orders one flow of control behind another: who gives its knowledge to what, and who learns from it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::clock::Clock;

/// What flows meet at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum At {
    /// A lock, as who has it alone has left it.
    Lock(u64),
    /// The same, as those have left it who have shared it.
    Shared(u64),
    /// An object: an event, a DPC, a work item, a packet, a queue.
    Object(u64),
    /// What is given to the kernel, which calls one of the driver's routines for it; or the routine.
    Given(u64),
    /// A DPC, when it is over.
    Over(u64),
    /// DPCs that run on this processor only.
    Processor(u32),
    /// A level of the only processor.
    Level(u8),
    /// Threads that are over, for what makes others from outside the machine.
    Outside,
    /// Registers of devices: stores to them are what interrupts follow from.
    Devices,
    /// DPCs that are over.
    DpcsOver,
    /// Interprocessor calls that are over.
    CallsOver,
    /// Callbacks that are over.
    CallbacksOver,
    /// Service routines of this interrupt object that are over.
    ServiceOver(u64),
    /// Routines that are over.
    RoutinesOver,
    /// Drivers and devices are set up.
    SetUp,
    /// Files are open.
    Opened,
}

/// What is known at each.
#[derive(Clone, Default)]
pub(super) struct Edges(BTreeMap<At, Rc<Clock>>);

impl Edges {
    /// What a flow learns that comes there.
    pub(super) fn known(&self, at: At) -> Option<&Rc<Clock>> {
        self.0.get(&at)
    }

    /// A flow that knows this comes there.
    pub(super) fn give(&mut self, at: At, known: &Rc<Clock>) {
        match self.0.get_mut(&at) {
            Some(clock) if clock.lacks(known) => drop(Rc::make_mut(clock).join(known)),
            Some(_) => {}
            None => drop(self.0.insert(at, Rc::clone(known))),
        }
    }

    /// What lay in this memory is gone.
    pub(super) fn forget(&mut self, address: u64, bytes: u64) {
        for of in [At::Lock, At::Shared, At::Object, At::Given, At::Over] {
            let gone: Vec<At> =
                self.0.range(of(address)..of(address.saturating_add(bytes))).map(|(at, _)| *at).collect();
            gone.iter().for_each(|at| drop(self.0.remove(at)));
        }
    }
}
