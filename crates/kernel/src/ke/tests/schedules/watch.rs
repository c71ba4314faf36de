//! A reader of events that knows what no Windows machine ever does, and notes each time it sees that.
//!
//! It follows lines 1, 3, 9, 17, 19, 22, 23 and 26 of `docs/schedules.md`. It errs on the side of silence: a thread
//! whose wait has ended counts as waiting until it runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use engine::StrandId;

use crate::event::{Event, Kind, Reader, Role, Stamp};

/// A thread of the scenario.
struct Thread {
    priority: u8,
    affinity: u64,
    waiting: bool,
}

/// A processor as its events tell.
#[derive(Default)]
struct Processor {
    level: u8,
    /// What its level was before each rise that it has not come back from, innermost last.
    below: Vec<u8>,
    thread: Option<StrandId>,
    /// Interrupt routines and DPCs that run, with the strand they run on.
    asynchronous: Vec<(Role, u64, StrandId)>,
    queued: Vec<u64>,
}

#[derive(Default)]
struct State {
    threads: BTreeMap<StrandId, Thread>,
    processors: BTreeMap<u32, Processor>,
    /// DPCs go where they are queued from, and the interrupt flag is never cleared.
    drains: bool,
    time: u64,
    complaints: Vec<String>,
}

/// The reader, of which the test keeps a hold.
#[derive(Clone, Default)]
pub(super) struct Watch(Rc<RefCell<State>>);

const DPCS: [Role; 3] = [Role::CustomDpc, Role::CustomTimerDpc, Role::DpcForIsr];

impl Watch {
    pub(super) fn new(drains: bool) -> Self {
        let watch = Self::default();
        watch.0.borrow_mut().drains = drains;
        watch
    }

    pub(super) fn thread(&self, strand: StrandId, priority: u8, affinity: u64) {
        let thread = Thread { priority, affinity, waiting: false };
        self.0.borrow_mut().threads.insert(strand, thread);
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.0.borrow().complaints.clone()
    }
}

impl Reader for Watch {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let mut state = self.0.borrow_mut();
        let complaint = state.follow(stamp, event);
        if let Some(complaint) = complaint {
            state.complaints.push(format!("{complaint}: {stamp:?} {event:?}"));
        }
    }
}

impl State {
    fn follow(&mut self, stamp: &Stamp, event: &Event) -> Option<&'static str> {
        let time = std::mem::replace(&mut self.time, stamp.time);
        if time > stamp.time {
            return Some("time runs backwards");
        }
        let driver_runs = matches!(event, Event::Call { .. } | Event::Return { .. } | Event::Print { .. });
        if driver_runs && let Some(complaint) = self.may_run(stamp) {
            return Some(complaint);
        }
        let running: Vec<u64> =
            self.processors.values().flat_map(|p| &p.asynchronous).map(|(_, object, _)| *object).collect();
        let drains = self.drains;
        let processor = self.processors.entry(stamp.processor).or_default();
        if let Some((_, _, strand)) = processor.asynchronous.last()
            && *strand != stamp.strand
        {
            return Some("another strand runs while an interrupt routine or DPC does");
        }
        match event {
            Event::Irql { from, to } => {
                processor.below.retain(|below| below < to);
                if to > from {
                    processor.below.push(*from);
                }
                processor.level = *to;
            }
            Event::Switch { to, .. } => {
                if processor.level >= 2 {
                    return Some("threads are switched at DISPATCH_LEVEL or above");
                }
                (processor.thread, processor.level) = (Some(*to), stamp.irql);
            }
            Event::Wait { .. } => {
                if let Some(thread) = self.threads.get_mut(&stamp.strand) {
                    thread.waiting = true;
                }
            }
            Event::Woken { .. } => {
                if let Some(thread) = self.threads.get_mut(&stamp.strand) {
                    thread.waiting = false;
                }
            }
            Event::DpcQueued { dpc, inserted: true } if drains => processor.queued.push(*dpc),
            Event::Enter { role: Role::Isr, object, .. } => {
                if processor.below.last().is_some_and(|below| *below >= stamp.irql) {
                    return Some("an interrupt routine interrupts its own level or a higher one");
                }
                if running.contains(object) {
                    return Some("an interrupt routine runs twice at once");
                }
                processor.asynchronous.push((Role::Isr, *object, stamp.strand));
            }
            Event::Enter { role, object, .. } if DPCS.contains(role) => {
                if processor.asynchronous.iter().any(|(other, _, _)| DPCS.contains(other)) {
                    return Some("a DPC runs inside another on the same processor");
                }
                if stamp.irql != 2 {
                    return Some("a DPC begins at another level than 2");
                }
                processor.queued.retain(|queued| queued != object);
                processor.asynchronous.push((*role, *object, stamp.strand));
            }
            Event::Leave { role, .. } if *role == Role::Isr || DPCS.contains(role) => {
                processor.asynchronous.pop();
            }
            Event::Leave { role: Role::Test, .. } => {
                self.threads.remove(&stamp.strand);
            }
            _ => {}
        }
        None
    }

    /// Driver code of a thread runs below DISPATCH_LEVEL: whether it has the right to.
    fn may_run(&self, stamp: &Stamp) -> Option<&'static str> {
        let me = self.threads.get(&stamp.strand).filter(|_| stamp.irql < 2)?;
        if me.affinity & 1 << stamp.processor == 0 {
            return Some("a thread runs on a processor that its affinity forbids");
        }
        if self.processors.get(&stamp.processor).is_some_and(|p| !p.queued.is_empty()) {
            return Some("driver code runs below DISPATCH_LEVEL while DPCs wait there");
        }
        let placed = |strand: &StrandId| self.processors.values().any(|p| p.thread == Some(*strand));
        let better = self.threads.iter().any(|(strand, other)| {
            let ready = !other.waiting && !placed(strand);
            ready && other.priority > me.priority && other.affinity & 1 << stamp.processor != 0
        });
        better.then_some("a thread runs while one of higher priority is ready for the same processor")
    }
}
