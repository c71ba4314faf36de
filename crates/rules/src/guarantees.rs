//! `guarantees`: holds a machine to what the documentation promises drivers of interrupts, DPCs and levels. What is broken is a fault of
//! dirql's own, never a driver's.
//!
//! - A service routine interrupts only what is below its level, does not overlap itself or what is synchronized with it, and is not
//!   called before it is connected or after it was disconnected (*Registering an ISR*, *Removing an ISR*, *KeSynchronizeExecution*).
//! - While it or a DPC runs, its processor runs nothing else below its level (*Managing Hardware Priorities*).
//! - A DPC runs once for each time that it was queued, at DISPATCH_LEVEL, not inside another, and not after it was removed
//!   (*KeInsertQueueDpc*, *KeRemoveQueueDpc*).
//! - At DISPATCH_LEVEL and above no thread is switched, and time does not run backwards.
//! - Where it reads details, what `promises` says of locks and APCs.
//! - When a run is over that was not stopped, each service routine and DPC has returned, and each DPC that was queued has run, unless a
//!   threaded one that came before it waits for ever.

use std::any::Any;
use std::collections::BTreeSet;

use engine::StrandId;
use kernel::event::{Class, Event, Judgement, Kind, Reader, Role, Stamp};

use crate::promises::Promises;

const DISPATCH_LEVEL: u8 = 2;

/// Whether it came between, and keeps its processor until it returns.
const fn is_asynchronous(class: Class) -> bool {
    matches!(class, Class::Isr | Class::Dpc)
}

/// Whether it has the lock of an interrupt object.
const fn has_interrupt(class: Class) -> bool {
    matches!(class, Class::Isr | Class::PassiveIsr | Class::Synchronized)
}

/// Whether anything is promised of a routine of this role.
fn class_of(role: Role) -> Option<Class> {
    let class = role.class();
    (has_interrupt(class) || matches!(class, Class::Dpc | Class::ThreadedDpc)).then_some(class)
}

/// A routine that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    class: Class,
    object: u64,
    strand: StrandId,
    processor: u32,
    level: u8,
}

/// A processor, as its events tell.
#[derive(Clone, Default)]
struct Processor {
    /// What its level was before each rise that it has not come back from, innermost last.
    below: Vec<u8>,
}

#[derive(Clone, Default)]
struct State {
    /// By number.
    processors: Vec<Processor>,
    running: Vec<Running>,
    connected: BTreeSet<u64>,
    queued: BTreeSet<u64>,
    /// DPCs that have run: the kernel's own are queued, and call no routine of a driver's as one.
    of_drivers: BTreeSet<u64>,
    time: u64,
    promises: Promises,
}

/// The reader.
#[derive(Clone, Default)]
pub struct Guarantees {
    state: State,
    broken: Option<String>,
    reads_details: bool,
}

impl Guarantees {
    /// One that reads details too, for which the kernel takes its long ways.
    #[must_use]
    pub fn with_details() -> Self {
        Self { reads_details: true, ..Self::default() }
    }
}

impl Reader for Guarantees {
    fn wants(&self, kind: Kind) -> bool {
        !matches!(kind, Kind::Allocated | Kind::Freed)
    }

    fn wants_detail(&self, kind: Kind) -> bool {
        self.reads_details && Promises::wants(kind)
    }

    fn reads_names(&self) -> bool {
        false
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        if let Some(complaint) = self.state.follow(stamp, event) {
            self.broken.get_or_insert_with(|| format!("{complaint}: {stamp:?} {event:?}"));
        }
    }

    fn event_shows(&mut self, stamp: &Stamp, event: &Event) -> bool {
        self.event(stamp, event);
        self.broken.is_some()
    }

    fn judges(&self) -> bool {
        true
    }

    fn judgement(&mut self) -> Option<Judgement> {
        self.broken.take().map(Judgement::Fault)
    }

    fn conclusions(&mut self) -> Vec<Judgement> {
        self.state.left().into_iter().map(Judgement::Fault).collect()
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.clone()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        self.clone_from(saved.downcast_ref().expect("it gave its state"));
    }
}

impl State {
    fn follow(&mut self, stamp: &Stamp, event: &Event) -> Option<&'static str> {
        if std::mem::replace(&mut self.time, stamp.time) > stamp.time {
            return Some("time runs backwards");
        }
        let keeper = self
            .running
            .iter()
            .rev()
            .find(|running| is_asynchronous(running.class) && running.processor == stamp.processor);
        if let Some(keeper) = keeper
            && stamp.strand != StrandId(0)
            && (stamp.strand != keeper.strand || stamp.irql < keeper.level)
            && !matches!(event, Event::Irql { .. } | Event::Leave { .. })
        {
            return Some("something else runs where a service routine or DPC has not returned");
        }
        let number = stamp.processor as usize;
        if number >= self.processors.len() {
            self.processors.resize_with(number + 1, Processor::default);
        }
        let processor = &mut self.processors[number];
        match event {
            Event::Irql { from, to } => {
                processor.below.retain(|below| below < to);
                if to > from {
                    processor.below.push(*from);
                }
                None
            }
            Event::Switch { .. } if stamp.irql >= DISPATCH_LEVEL => {
                Some("threads are switched at DISPATCH_LEVEL or above")
            }
            Event::Connection { object, made: true, .. } => {
                (!self.connected.insert(*object)).then_some("an interrupt object is connected twice")
            }
            Event::Connection { object, made: false, .. } => {
                self.connected.remove(object);
                self.runs(*object).then_some("a service routine runs when it has been disconnected")
            }
            Event::DpcQueued { dpc, inserted } => {
                let wrong = self.queued.insert(*dpc) != *inserted && self.of_drivers.contains(dpc);
                wrong.then_some("a DPC is in a queue twice, or in none")
            }
            Event::DpcRemoved { dpc } => {
                (!self.queued.remove(dpc)).then_some("a DPC is removed that was not queued")
            }
            Event::Enter { role, object, .. } => {
                class_of(*role).and_then(|class| self.enter(stamp, class, *object))
            }
            Event::Leave { role, .. } => {
                let class = class_of(*role)?;
                let innermost = self
                    .running
                    .iter()
                    .rposition(|running| running.class == class && running.strand == stamp.strand);
                match innermost {
                    Some(innermost) => drop(self.running.remove(innermost)),
                    None => return Some("a routine returns that was not called"),
                }
                None
            }
            event => self.promises.follow(stamp, event),
        }
    }

    /// What should be over when the run is.
    fn left(&self) -> Option<String> {
        if let Some(left) = self.running.iter().find(|running| is_asynchronous(running.class)) {
            return Some(format!("a routine has not returned when the run is over: {left:?}"));
        }
        let waits = self.running.iter().any(|running| running.class == Class::ThreadedDpc);
        let queued = self.queued.intersection(&self.of_drivers).next().filter(|_| !waits);
        queued.map(|dpc| format!("the DPC {dpc:#x} was queued and has not run when the run is over"))
    }

    /// Whether a routine that belongs to this interrupt object runs.
    fn runs(&self, object: u64) -> bool {
        self.running.iter().any(|running| has_interrupt(running.class) && running.object == object)
    }

    fn enter(&mut self, stamp: &Stamp, class: Class, object: u64) -> Option<&'static str> {
        let wrong = self.wrong(stamp, class, object);
        if matches!(class, Class::Dpc | Class::ThreadedDpc) {
            self.queued.remove(&object);
            self.of_drivers.insert(object);
        }
        let Stamp { strand, processor, irql: level, .. } = *stamp;
        self.running.push(Running { class, object, strand, processor, level });
        wrong
    }

    /// What is wrong with a call of a routine now.
    fn wrong(&self, stamp: &Stamp, class: Class, object: u64) -> Option<&'static str> {
        let mut here = self.running.iter().filter(|running| running.processor == stamp.processor);
        if has_interrupt(class) && !self.connected.contains(&object) {
            return Some("the routine of an interrupt object that is not connected is called");
        }
        if has_interrupt(class) && self.runs(object) {
            return Some("what is synchronized with one interrupt runs twice at once");
        }
        match class {
            Class::Isr => {
                let below = self.processors.get(stamp.processor as usize)?.below.last()?;
                (*below >= stamp.irql).then_some("a service routine interrupts its own level or a higher one")
            }
            Class::Dpc | Class::ThreadedDpc if !self.queued.contains(&object) => {
                Some("a DPC runs that is in no queue")
            }
            Class::Dpc if stamp.irql != DISPATCH_LEVEL => Some("a DPC begins at another level than 2"),
            Class::Dpc if here.any(|running| running.class == Class::Dpc) => {
                Some("a DPC runs inside another on the same processor")
            }
            _ => None,
        }
    }
}
