//! Flows of control: threads, and what runs in the middle of them. What one flow does is in one order.
//!
//! All runs of one DPC object are one flow, and so are all of one interrupt object, of one work item and of one timer: they seldom overlap, and where
//! they do, a race between them is missed. What a routine calls, and what the kernel calls for it, belongs to its flow.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use kernel::event::{Class, Role, Stamp};

use super::clock::{Clock, Slot};

const DISPATCH_LEVEL: u8 = 2;
/// From so many flows on, a thread's is used again when the thread has ended.
const MANY: usize = 64;

/// What a flow is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// A strand.
    Thread(u32),
    /// A work item.
    Work(u64),
    /// What comes between at DISPATCH_LEVEL: a DPC, or the callback of a timer.
    Deferred(u64),
    /// An interrupt object.
    Interrupt(u64),
    /// Interprocessor calls on a processor.
    Interprocessor(u32),
}

/// A flow of control.
#[derive(Clone)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) clock: Rc<Clock>,
    /// The highest level below that at which it begins.
    pub(super) base: u8,
    /// The level up to which it keeps others off its processor, where there is one.
    pub(super) held: u8,
}

/// A routine that runs in a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Routine {
    pub(super) key: Key,
    /// None: no routine has been called.
    pub(super) called: Option<(Role, u64)>,
}

#[derive(Clone, Copy)]
struct Running {
    slot: Slot,
    routine: usize,
    code: u64,
}

/// Where the code of an event belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Here {
    pub(super) slot: Slot,
    /// The innermost routine: an index of [`Flows::routine`].
    pub(super) routine: usize,
}

/// All flows, and what runs.
#[derive(Clone, Default)]
pub(super) struct Flows {
    all: Vec<Flow>,
    by_key: BTreeMap<Key, Slot>,
    /// Threads that have ended, and flows of such.
    ended: Vec<u32>,
    free: Vec<Slot>,
    /// What came between, by processor; innermost last.
    between: BTreeMap<u32, Vec<Running>>,
    /// Routines of threads, by strand; innermost last.
    threads: BTreeMap<u32, Vec<Running>>,
    routines: Vec<Routine>,
    by_routine: BTreeMap<Routine, usize>,
}

/// The flow that a routine begins, if it does: it comes between what runs, or has a thread for itself.
fn begins(role: Role, object: u64, stamp: &Stamp) -> Option<Key> {
    let deferred = stamp.irql >= DISPATCH_LEVEL;
    match (role.class(), role) {
        (Class::Isr, _) => Some(Key::Interrupt(object)),
        (Class::Dpc, _) => Some(Key::Deferred(object)),
        (Class::ThreadedDpc, _) | (_, Role::IoTimer | Role::ExTimerCallback) if deferred => {
            Some(Key::Deferred(object))
        }
        (_, Role::IpiGenericCall) => Some(Key::Interprocessor(stamp.processor)),
        (_, Role::WorkItem | Role::WorkerRoutine) => Some(Key::Work(object)),
        _ => None,
    }
}

impl Flows {
    pub(super) fn get(&self, slot: Slot) -> &Flow {
        &self.all[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Flow {
        &mut self.all[slot as usize]
    }

    /// What time it is in this flow.
    pub(super) fn time(&self, slot: Slot) -> u32 {
        self.get(slot).clock.time(slot)
    }

    pub(super) fn slots(&self) -> std::ops::Range<Slot> {
        0..u32::try_from(self.all.len()).expect("flows are few")
    }

    pub(super) fn routine(&self, index: usize) -> Routine {
        self.routines[index]
    }

    /// A routine and its flow, in words.
    pub(super) fn who(&self, index: usize) -> impl fmt::Display {
        Who(self.routine(index))
    }

    /// Where the event of this stamp belongs.
    pub(super) fn here(&mut self, stamp: &Stamp) -> Here {
        let top = |stack: Option<&Vec<Running>>| stack.and_then(|stack| stack.last().copied());
        let running =
            top(self.between.get(&stamp.processor)).or_else(|| top(self.threads.get(&stamp.strand.0)));
        match running {
            Some(Running { slot, routine, .. }) => Here { slot, routine },
            None => {
                let key = Key::Thread(stamp.strand.0);
                Here { slot: self.slot(key, 1), routine: self.index_of(Routine { key, called: None }) }
            }
        }
    }

    /// A routine is called.
    pub(super) fn enter(&mut self, stamp: &Stamp, role: Role, code: u64, object: u64) -> Here {
        let begins = begins(role, object, stamp);
        let slot = match begins {
            Some(key) => self.slot(key, base(key, stamp.irql)),
            None => self.here(stamp).slot,
        };
        let key = self.get(slot).key;
        let routine = self.index_of(Routine { key, called: Some((role, code)) });
        let is_between =
            matches!(begins, Some(Key::Deferred(_) | Key::Interrupt(_) | Key::Interprocessor(_)))
                || self.between.get(&stamp.processor).is_some_and(|stack| !stack.is_empty());
        let stack = if is_between {
            self.between.entry(stamp.processor).or_default()
        } else {
            self.threads.entry(stamp.strand.0).or_default()
        };
        stack.push(Running { slot, routine, code });
        Here { slot, routine }
    }

    /// It has returned; so have those further in that were left by an exception.
    pub(super) fn leave(&mut self, stamp: &Stamp, code: u64) {
        let between = self.between.entry(stamp.processor).or_default();
        let stack =
            if between.is_empty() { self.threads.entry(stamp.strand.0).or_default() } else { between };
        if let Some(at) = stack.iter().rposition(|running| running.code == code) {
            stack.truncate(at);
        }
    }

    /// A thread begins, which knows what its maker knows.
    pub(super) fn begin_thread(&mut self, strand: u32, known: &Clock) -> Slot {
        self.end_threads();
        let key = Key::Thread(strand);
        let slot = match self.free.pop_if(|_| self.all.len() > MANY) {
            Some(slot) => {
                self.by_key.insert(key, slot);
                self.get_mut(slot).key = key;
                slot
            }
            None => self.slot(key, 1),
        };
        Rc::make_mut(&mut self.get_mut(slot).clock).join(known);
        slot
    }

    /// A thread has ended. What follows of it (its object is signalled) is still its own.
    pub(super) fn end_thread(&mut self, strand: u32) {
        self.ended.push(strand);
    }

    fn end_threads(&mut self) {
        for strand in std::mem::take(&mut self.ended) {
            self.threads.remove(&strand);
            self.free.extend(self.by_key.remove(&Key::Thread(strand)));
        }
    }

    fn slot(&mut self, key: Key, base: u8) -> Slot {
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        let slot = self.slots().end;
        let mut clock = Clock::default();
        clock.tick(slot);
        self.all.push(Flow { key, clock: Rc::new(clock), base, held: base });
        self.by_key.insert(key, slot);
        slot
    }

    fn index_of(&mut self, routine: Routine) -> usize {
        let next = self.routines.len();
        let index = *self.by_routine.entry(routine).or_insert(next);
        if index == next {
            self.routines.push(routine);
        }
        index
    }
}

fn base(key: Key, level: u8) -> u8 {
    match key {
        Key::Thread(_) | Key::Work(_) => DISPATCH_LEVEL - 1,
        _ => level.saturating_sub(1),
    }
}

/// What runs, in words.
struct Who(Routine);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Routine { key, called } = self.0;
        match called {
            Some((role, code)) => write!(f, "{} {code:#x}", role.name())?,
            None => write!(f, "driver code")?,
        }
        match key {
            Key::Thread(strand) => write!(f, " on thread {strand}"),
            Key::Work(item) => write!(f, " of the work item {item:#x}"),
            Key::Deferred(dpc) => write!(f, " of {dpc:#x}"),
            Key::Interrupt(object) => write!(f, " of the interrupt {object:#x}"),
            Key::Interprocessor(processor) => write!(f, " on processor {processor}"),
        }
    }
}
