//! `data-race`: two accesses of the driver's to the same memory, one of them storing, that nothing orders, where an update is lost or a structure torn;
//! and `unordered-access`, the rest of them, which are advice. What else its clocks and accesses show is judged beside: `registers.rs`, `wake_ups.rs`.
//! `docs/races.md` says how it works, and what orders what.
//!
//! Pages: *Introduction to Spin Locks*, *Using Interlocked Operations*, *Using Critical Sections*. It finds a race whether or not the two have met in
//! the run that it reads: each flow of control keeps a clock, which says how far it knows the others, and gives it on where the kernel orders them.
//!
//! *It does not* see what a flow does on its own stack, in memory of applications, in memory behind another address of it, and what the kernel does to
//! its own structures in drivers' memory.

mod clock;
mod dpcs;
mod edges;
mod exports;
mod flows;
mod memory;
mod race;
mod recent;
mod registers;
mod synchronize;
#[cfg(test)]
mod tests;
mod wake_ups;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use engine::{AccessKind, MemoryAccess};
use kernel::event::{Event, Judgement, Kind, Reader, RegisterUse, Stamp};
use kernel::verdict::Verdict;

use clock::{Clock, Slot};
use dpcs::Dpcs;
use edges::{At, Edges};
use flows::{Flows, Here};
use memory::{Access, Found, Memory, Met, Use};
use race::Harm;
use recent::Recent;
use registers::Registers;
use synchronize::Pending;
use wake_ups::WakeUps;

/// The rule's name.
pub(super) const RULE: &str = "data-race";
/// Memory of applications lies below.
const DRIVERS: u64 = 0x2000_0000_0000;

/// The reader.
#[derive(Clone, Default)]
pub(crate) struct DataRaces {
    /// There is one processor.
    is_alone: bool,
    flows: Flows,
    edges: Edges,
    memory: Memory,
    registers: Registers,
    wake_ups: WakeUps,
    recent: Recent,
    /// Who shares which locks.
    sharing: BTreeSet<(Slot, u64)>,
    dpcs: Dpcs,
    /// The DPC that a flow has queued below DISPATCH_LEVEL, by a call that has not returned.
    inserting: BTreeMap<Slot, u64>,
    /// The objects of calls that have not returned and order who comes to these; innermost last.
    ordering: Vec<(Slot, [u64; 2])>,
    /// What the next event of a processor belongs to.
    pending: BTreeMap<u32, Pending>,
    /// Pairs of instructions that were reported.
    reported: BTreeSet<(u64, u64, bool)>,
    reported_of_registers: BTreeSet<(u64, u64)>,
    found: VecDeque<Box<Verdict>>,
}

impl Reader for DataRaces {
    fn wants(&self, kind: Kind) -> bool {
        synchronize::wants(kind)
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        synchronize::wants(kind)
    }

    fn reads_names(&self) -> bool {
        false
    }

    fn reads_accesses(&self) -> bool {
        true
    }

    fn begins(&mut self, processors: u32) {
        self.is_alone = processors == 1;
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        self.synchronize(stamp, event);
    }

    fn event_shows(&mut self, stamp: &Stamp, event: &Event) -> bool {
        self.event(stamp, event);
        !self.found.is_empty()
    }

    fn accessed(&mut self, stamp: &Stamp, accesses: &[MemoryAccess], by_routine: bool) {
        self.settle(stamp);
        let here = self.flows.here(stamp);
        self.comes_to(here, stamp.irql);
        let mut turn = (here.slot, self.flows.time(here.slot));
        for access in accesses.iter().filter(|access| access.address >= DRIVERS && access.bytes != 0) {
            let bytes = (access.address, access.bytes);
            if self.recent.has(turn, access) {
                continue;
            }
            self.wake_ups.access(here.slot, stamp.number, access);
            if access.stored_back.is_some() || !self.memory.repeats(bytes, how(access), turn) {
                self.access((stamp, here), access, by_routine);
                turn.1 = self.flows.time(here.slot);
            }
        }
    }

    fn register(&mut self, stamp: &Stamp, made: &RegisterUse) {
        self.settle(stamp);
        let here = self.flows.here(stamp);
        self.comes_to(here, stamp.irql);
        self.wake_ups.begins(here.slot);
        let known = Rc::clone(&self.flows.get(here.slot).clock);
        let race = self.registers.access(stamp, here, &known, made);
        if let Some(race) = race.filter(|race| self.reported_of_registers.insert(race.pair())) {
            self.found.push_back(Box::new(race.verdict(&self.flows, made)));
        }
    }

    fn fresh(&mut self, address: u64, bytes: u64) {
        self.memory.forget(address, bytes);
        self.recent.forget();
        self.edges.forget(address, bytes);
        self.dpcs.forget(address, bytes);
        self.wake_ups.forget(address, bytes);
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        Some(Judgement::Finding(self.found.pop_front()?))
    }

    fn conclusions(&mut self) -> Vec<Judgement> {
        self.found.drain(..).map(Judgement::Finding).collect()
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.clone()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        self.clone_from(saved.downcast_ref().expect("it gave its state"));
    }
}

impl DataRaces {
    fn access(&mut self, (stamp, here): (&Stamp, Here), made: &MemoryAccess, by_routine: bool) {
        let known = Rc::clone(&self.flows.get(here.slot).clock);
        let access = access(stamp, made, by_routine, here, &known);
        let Met { access, found: Found { races, learned, publishes } } = self.memory.access(access, &known);
        self.judge(&races, &access);
        let mut is_news = false;
        for clock in &learned {
            is_news |= self.learn(here.slot, clock);
        }
        if publishes {
            let known = Rc::clone(&self.flows.get(here.slot).clock);
            self.memory.publish(made.address, made.bytes, &known);
        }
        if publishes || is_news {
            self.tick(here.slot);
        }
    }

    /// Keeps the worst of these races that was not reported before.
    fn judge(&mut self, races: &[Rc<Access>], now: &Access) {
        let harmful = |earlier: &Rc<Access>| race::harm(earlier, now);
        let pair = |earlier: &Rc<Access>| {
            let pair = (earlier.code.min(now.code), earlier.code.max(now.code));
            (pair.0, pair.1, harmful(earlier) != Harm::Unordered)
        };
        let races = races.iter().filter(|earlier| harmful(earlier) != Harm::None);
        let news = races.filter(|earlier| !self.reported.contains(&pair(earlier)));
        let Some(worst) = news.max_by_key(|earlier| harmful(earlier)) else { return };
        self.reported.insert(pair(worst));
        self.found.push_back(Box::new(race::verdict(&self.flows, worst, now)));
    }

    /// The flow knows this from now on. Whether that is news.
    fn learn(&mut self, slot: Slot, known: &Rc<Clock>) -> bool {
        let clock = &mut self.flows.get_mut(slot).clock;
        clock.lacks(known) && Rc::make_mut(clock).join(known)
    }

    /// What the flow does from now on is later than what others have learned from it.
    fn tick(&mut self, slot: Slot) {
        Rc::make_mut(&mut self.flows.get_mut(slot).clock).tick(slot);
    }

    fn learn_at(&mut self, slot: Slot, at: At) {
        if let Some(known) = self.edges.known(at) {
            let known = Rc::clone(known);
            self.learn(slot, &known);
        }
    }

    /// The flow comes there, and has learned what is known there.
    fn acquire(&mut self, slot: Slot, at: At) {
        self.learn_at(slot, at);
        self.tick(slot);
    }

    /// Who comes there later knows what the flow knows.
    fn release(&mut self, slot: Slot, at: At) {
        self.edges.give(at, &self.flows.get(slot).clock);
        self.tick(slot);
    }

    /// Where there is one processor, code that runs at a raised level keeps off what runs at most at that level, unless it is what comes between.
    fn comes_to(&mut self, here: Here, irql: u8) {
        let held = self.flows.get(here.slot).held;
        if !self.is_alone || held == irql.max(self.flows.get(here.slot).base) {
            return;
        }
        self.change_level(here.slot, held, irql.max(self.flows.get(here.slot).base));
    }

    #[cold]
    fn change_level(&mut self, slot: Slot, from: u8, to: u8) {
        for level in to + 1..=from {
            self.release(slot, At::Level(level));
        }
        self.flows.get_mut(slot).held = to;
        if to <= from {
            return;
        }
        // Others that held these levels have left them: there is one processor.
        for other in self.flows.slots().filter(|other| *other != slot) {
            let held = self.flows.get(other).held;
            if held > from.max(self.flows.get(other).base) {
                let left = from.max(self.flows.get(other).base);
                self.change_level(other, held, left);
            }
        }
        for level in from + 1..=to {
            self.acquire(slot, At::Level(level));
        }
    }
}

const fn how(made: &MemoryAccess) -> Use {
    match made.kind {
        AccessKind::Load => Use::Load,
        AccessKind::Update if made.atomic => Use::Atomic,
        AccessKind::Update => Use::Update,
        AccessKind::Store => Use::Store,
    }
}

fn access(
    stamp: &Stamp,
    made: &MemoryAccess,
    by_routine: bool,
    Here { slot, routine }: Here,
    known: &Rc<Clock>,
) -> Access {
    let how = how(made);
    Access {
        address: made.address,
        bytes: made.bytes,
        how,
        after_load: false,
        stored_back: made.stored_back,
        derived: false,
        adds: made.adds,
        slot,
        time: known.time(slot),
        code: made.rip,
        kernel: by_routine,
        routine,
        irql: stamp.irql,
        event: stamp.number,
        known: (how == Use::Store).then(|| Rc::clone(known)),
    }
}
