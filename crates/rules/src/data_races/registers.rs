//! `register-update-race`: a register of a device that one flow of control reads, changes and writes back, and that another one writes in between as soon as
//! it comes to that: nothing orders them. What `register-update-lost` says where it has happened, this says whether or not the two have met.
//!
//! Pages: *Using Critical Sections*, *Introduction to Spin Locks*, *Using Interrupt Service Routines*. Only bits count which the one flow writes as it
//! has read them, by its instructions, which the register keeps, and which the other flow has changed.

use std::collections::BTreeMap;
use std::rc::Rc;

use kernel::event::{RegisterUse, Stamp};
use kernel::verdict::{Related, Verdict};

use super::clock::{Clock, Slot};
use super::flows::{Flows, Here};

/// The rule's name.
const RULE: &str = "register-update-race";

/// An access that was made, and the time of its flow.
#[derive(Clone, Copy)]
struct Made {
    here: Here,
    time: u32,
    code: u64,
    event: u64,
    irql: u8,
    /// Bits that it has changed, or that it has written as they were read.
    bits: u64,
}

/// What is known of one register: of each flow the latest.
#[derive(Clone, Default)]
struct Register {
    written: Option<u64>,
    /// What was known to flows that have read it and not written since.
    reads: BTreeMap<Slot, (Rc<Clock>, u64)>,
    writes: BTreeMap<Slot, Made>,
    /// Writes of what was read before, in part.
    updates: BTreeMap<Slot, Made>,
}

/// An update, and another's write of bits that it keeps.
pub(super) struct Race {
    update: Made,
    write: Made,
}

/// The registers that drivers have accessed: by whether it is a port, and its address.
#[derive(Clone, Default)]
pub(super) struct Registers(BTreeMap<(bool, u64), Register>);

impl Registers {
    /// A flow that knows this accesses a register. What another flow does to it that nothing orders with that.
    pub(super) fn access(
        &mut self,
        stamp: &Stamp,
        here: Here,
        known: &Rc<Clock>,
        made: &RegisterUse,
    ) -> Option<Race> {
        let Here { slot, .. } = here;
        let register = self.0.entry((made.port, made.address)).or_default();
        if !made.write {
            register.reads.insert(slot, (Rc::clone(known), stamp.number));
            return None;
        }
        let changed = register.written.replace(made.value).map_or(0, |before| before ^ made.value);
        let of = |bits| Made {
            here,
            time: known.time(slot),
            code: made.code,
            event: stamp.number,
            irql: stamp.irql,
            bits,
        };
        let (write, update) = (of(changed), of(made.keeps));
        let of_others = |all: &BTreeMap<Slot, Made>, bits: u64, is_unordered: &dyn Fn(&Made) -> bool| {
            let mut others = all.values().filter(|one| one.here.slot != slot && one.bits & bits != 0);
            others.find(|one| is_unordered(one)).copied()
        };
        let read = register.reads.remove(&slot).filter(|_| made.keeps != 0);
        let mut race = None;
        if let Some((then, event)) = &read {
            // One that has come between is judged where that is seen.
            let is_unordered = |one: &Made| then.time(one.here.slot) < one.time && one.event < *event;
            let found = of_others(&register.writes, made.keeps, &is_unordered);
            race = found.map(|write| Race { update, write });
            register.updates.insert(slot, update);
        }
        let is_unordered = |one: &Made| known.time(one.here.slot) < one.time;
        let found = of_others(&register.updates, changed, &is_unordered);
        race = race.or(found.map(|update| Race { update, write }));
        if changed != 0 {
            register.writes.insert(slot, write);
        }
        race
    }
}

impl Race {
    /// Which two instructions.
    pub(super) fn pair(&self) -> (u64, u64) {
        (self.update.code, self.write.code)
    }

    /// The finding.
    pub(super) fn verdict(&self, flows: &Flows, made: &RegisterUse) -> Verdict {
        let Self { update, write } = self;
        let who = |one: &Made| flows.who(one.here.routine);
        let what = if made.port { "port" } else { "register at bus address" };
        let message = format!(
            "{} reads the {what} {:#x}, and writes it back by the instruction {:#x} at IRQL {} with bits {:#x} as they were; nothing orders that with {}, which \
             writes it by the instruction {:#x} at IRQL {}: where it does so between the two, what it changes in these bits is undone",
            who(update),
            made.address,
            update.code,
            update.irql,
            update.bits & write.bits,
            who(write),
            write.code,
            write.irql
        );
        let (now, earlier) = if update.event > write.event { (update, write) } else { (write, update) };
        let related = vec![Related { what: "written", event: earlier.event }];
        Verdict { instruction: Some(now.code), related, ..Verdict::warning(RULE, message) }
    }
}
