//! Which events order flows of control, and how.

use engine::StrandId;
use kernel::event::{Class, Event, Kind, LockKind, Role, Stamp};

use super::DataRaces;
use super::clock::Slot;
use super::edges::At;
use super::exports::{self, Order};
use super::flows::Key;
use super::wake_ups::{self, Does};

/// Where images lie, whose addresses may be routines.
const IMAGES: std::ops::Range<u64> = 0x2000_0000_0000..0x2000_6000_0000;
const DISPATCH_LEVEL: u8 = 2;
/// The part of an IRP that stands before its stack locations.
const IRP_BYTES: u64 = 0xD0;

/// Whether events of this kind are read.
pub(super) fn wants(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Call
            | Kind::Return
            | Kind::Enter
            | Kind::Leave
            | Kind::Device
            | Kind::Connection
            | Kind::DpcQueued
            | Kind::IrpSent
            | Kind::IrpCompleted
            | Kind::Thread
            | Kind::Wait
            | Kind::LockAcquired
            | Kind::LockReleased
            | Kind::ProtectionReleased
            | Kind::ProtectionEnded
            | Kind::Signalled
            | Kind::WaitSatisfied
            | Kind::TimerSet
            | Kind::TimerFired
            | Kind::TimerCancelled
            | Kind::ApcQueued
            | Kind::ApcRun
            | Kind::WorkQueued
            | Kind::WorkRun
            | Kind::ThreadEnded
            | Kind::IrpCancelled
    )
}

/// What has just happened on a processor, where the next event says to which flow it belongs.
#[derive(Clone, Copy)]
pub(super) enum Pending {
    /// A timer has fired: what it signals and queues next is the doing of who has set it.
    Fired(u64),
    /// A lock was acquired: by the service routine that is called next, or else by what runs.
    Locked(u64, LockKind),
    /// A service routine of this flow has returned: the lock that is released next was its own.
    Served(Slot),
}

impl DataRaces {
    /// What is pending on this processor belongs to what runs.
    pub(super) fn settle(&mut self, stamp: &Stamp) {
        if let Some(Pending::Locked(lock, kind)) = self.pending.remove(&stamp.processor) {
            let slot = self.flows.here(stamp).slot;
            self.lock(slot, lock, kind);
        }
    }

    /// An event happens.
    pub(super) fn synchronize(&mut self, stamp: &Stamp, event: &Event) {
        let pending = self.pending.get(&stamp.processor).copied();
        match (pending, event) {
            (
                Some(Pending::Fired(timer)),
                Event::Signalled { object, .. } | Event::DpcQueued { dpc: object, .. },
            ) => {
                if let Some(known) = self.edges.known(At::Object(timer)).cloned() {
                    self.edges.give(At::Object(*object), &known);
                }
            }
            (Some(Pending::Locked(lock, kind)), Event::Enter { role, routine, object })
                if role.class() == Class::Isr =>
            {
                self.pending.remove(&stamp.processor);
                self.enter(stamp, *role, *routine, *object);
                let slot = self.flows.here(stamp).slot;
                self.lock(slot, lock, kind);
            }
            (Some(Pending::Served(slot)), Event::LockReleased { lock, .. }) => {
                self.pending.remove(&stamp.processor);
                self.unlock(slot, *lock);
            }
            _ => {
                self.settle(stamp);
                self.follow(stamp, event);
            }
        }
    }

    fn follow(&mut self, stamp: &Stamp, event: &Event) {
        let slot = self.flows.here(stamp).slot;
        match event {
            Event::Enter { role, routine, object } => self.enter(stamp, *role, *routine, *object),
            Event::Leave { role, routine, .. } => self.leave(stamp, slot, *role, *routine),
            Event::Call { export, arguments, caller } => {
                match wake_ups::does(*export) {
                    Does::Clears => self.wake_ups.begin_clearing(slot, arguments[0], *caller),
                    Does::Begins => self.wake_ups.begins(slot),
                    Does::Nothing => {}
                }
                self.call(stamp, slot, exports::order(*export), arguments);
            }
            Event::Wait { object, count } => {
                let here = self.flows.here(stamp);
                let lost = self.wake_ups.wait(&self.flows, here, (*object, *count));
                self.recent.forget();
                self.found.extend(lost.map(Box::new));
            }
            Event::Return { export, .. } => {
                if wake_ups::does(*export) == Does::Clears {
                    self.wake_ups.clear(slot);
                    self.recent.forget();
                }
                self.returns(slot, exports::order(*export));
            }
            Event::LockAcquired { lock, kind } => self.pend(stamp, Pending::Locked(*lock, *kind)),
            Event::LockReleased { lock, .. } => self.unlock(slot, *lock),
            Event::Device { write: true, .. } => self.release(slot, At::Devices),
            Event::Connection { object, made: true, .. } => self.release(slot, At::Object(*object)),
            Event::Connection { object, .. } => self.acquire(slot, At::ServiceOver(*object)),
            Event::Thread { thread, .. } => {
                if stamp.strand == StrandId(0) {
                    self.learn_at(slot, At::Outside);
                }
                let known = self.flows.get(slot).clock.clone();
                let begun = self.flows.begin_thread(thread.0, &known);
                self.tick(slot);
                self.tick(begun);
            }
            Event::ThreadEnded { thread } => {
                self.ordering.retain(|(of, _)| *of != slot);
                self.release(slot, At::Outside);
                self.flows.end_thread(thread.0);
            }
            Event::TimerFired { timer } => self.pend(stamp, Pending::Fired(*timer)),
            Event::DpcQueued { dpc, inserted } => {
                if *inserted {
                    self.dpcs.queue(*dpc, slot, stamp.processor, stamp.number);
                }
                self.release(slot, At::Object(*dpc));
            }
            Event::Signalled { object, kind, .. } => {
                if wake_ups::is_event(*kind) {
                    let here = self.flows.here(stamp);
                    self.wake_ups.signal(*object, here, stamp.number);
                }
                self.release(slot, At::Object(*object));
            }
            Event::IrpCancelled { irp, .. } => {
                for known in self.memory.words(*irp, IRP_BYTES) {
                    self.learn(slot, &known);
                }
                self.release(slot, At::Object(*irp));
            }
            Event::WaitSatisfied { object } => {
                self.wake_ups.woke(slot, *object);
                self.recent.forget();
                self.acquire(slot, At::Object(*object));
            }
            event => self.meet(slot, event),
        }
    }

    fn pend(&mut self, stamp: &Stamp, what: Pending) {
        self.pending.insert(stamp.processor, what);
    }

    /// Events that only tell which object the flow comes to.
    fn meet(&mut self, slot: Slot, event: &Event) {
        match event {
            Event::TimerSet { timer: object, .. }
            | Event::ApcQueued { object, .. }
            | Event::WorkQueued { item: object, .. }
            | Event::IrpSent { irp: object, .. }
            | Event::ProtectionReleased { protection: object, .. } => self.release(slot, At::Object(*object)),
            Event::TimerCancelled { timer: object }
            | Event::ApcRun { object }
            | Event::WorkRun { item: object }
            | Event::ProtectionEnded { protection: object, .. } => self.acquire(slot, At::Object(*object)),
            Event::IrpCompleted { irp, .. } => {
                self.acquire(slot, At::Object(*irp));
                self.release(slot, At::Object(*irp));
            }
            _ => {}
        }
    }

    fn enter(&mut self, stamp: &Stamp, role: Role, routine: u64, object: u64) {
        let here = self.flows.enter(stamp, role, routine, object);
        let slot = here.slot;
        self.comes_to(here, stamp.irql);
        match role.class() {
            Class::Driver => self.learn_at(slot, At::RoutinesOver),
            Class::Isr | Class::PassiveIsr => {
                self.learn_at(slot, At::Devices);
                self.learn_at(slot, At::Object(object));
            }
            Class::Dispatch => self.enter_dispatch(slot, role),
            Class::BugCheck => {}
            Class::Dpc => {
                if self.dpcs.is_targeted(object) {
                    self.learn_at(slot, At::Processor(stamp.processor));
                }
                if let Some(before) = self.dpcs.begin(object, stamp.processor, stamp.number) {
                    self.learn_at(slot, At::Over(before));
                }
                self.learn_given(slot, routine, object);
            }
            _ => self.learn_given(slot, routine, object),
        }
        self.learn_at(slot, At::SetUp);
        // The call that calls it has come to its object by now.
        if let Some((_, objects)) = self.ordering.iter().rfind(|(of, _)| *of == slot).copied() {
            objects.iter().for_each(|object| self.learn_at(slot, At::Object(*object)));
        }
        self.tick(slot);
    }

    /// A routine is called for what was given to the kernel.
    fn learn_given(&mut self, slot: Slot, routine: u64, object: u64) {
        for at in [At::Object(object), At::Given(object), At::Given(routine)] {
            self.learn_at(slot, at);
        }
    }

    fn enter_dispatch(&mut self, slot: Slot, role: Role) {
        match role {
            Role::DispatchPnp | Role::DispatchPower | Role::DispatchCleanup | Role::DispatchClose => {
                self.learn_at(slot, At::RoutinesOver);
            }
            Role::DispatchCreate => {}
            _ => self.learn_at(slot, At::Opened),
        }
    }

    fn leave(&mut self, stamp: &Stamp, slot: Slot, role: Role, routine: u64) {
        let key = self.flows.get(slot).key;
        self.release(slot, At::RoutinesOver);
        match (role.class(), role) {
            (Class::Driver, _) | (_, Role::DispatchPnp | Role::DispatchPower) => {
                self.release(slot, At::SetUp);
            }
            (_, Role::DispatchCreate) => self.release(slot, At::Opened),
            (_, Role::IpiGenericCall) => self.release(slot, At::CallsOver),
            (Class::Dpc | Class::ThreadedDpc, _) => {
                self.release(slot, At::DpcsOver);
                if let Key::Deferred(dpc) = key {
                    self.release(slot, At::Over(dpc));
                    if self.dpcs.is_targeted(dpc) {
                        self.release(slot, At::Processor(stamp.processor));
                    }
                }
            }
            (Class::Callback, _) => {
                self.release(slot, At::DpcsOver);
                self.release(slot, At::CallbacksOver);
            }
            (Class::Isr, _) => {
                if let Key::Interrupt(object) = key {
                    self.release(slot, At::ServiceOver(object));
                }
            }
            _ => {}
        }
        self.flows.leave(stamp, routine);
        if role.class() == Class::Isr {
            self.pend(stamp, Pending::Served(slot));
        }
    }

    fn call(&mut self, stamp: &Stamp, slot: Slot, order: Order, arguments: &[u64; 4]) {
        match order {
            Order::First => self.begin_ordering(slot, [arguments[0]; 2]),
            Order::Others => self.begin_ordering(slot, [arguments[1], arguments[2]]),
            Order::Gives => arguments.iter().for_each(|given| self.release(slot, At::Given(*given))),
            Order::Queues => {
                self.begin_ordering(slot, [arguments[0]; 2]);
                arguments.iter().for_each(|given| self.release(slot, At::Given(*given)));
            }
            Order::InsertsDpc if stamp.irql < DISPATCH_LEVEL => {
                self.inserting.insert(slot, arguments[0]);
            }
            Order::TargetsDpc => self.dpcs.target(arguments[0]),
            Order::Interprocessor => self.release(slot, At::Given(arguments[0])),
            Order::None => {
                for routine in arguments.iter().filter(|argument| IMAGES.contains(argument)) {
                    self.release(slot, At::Given(*routine));
                }
            }
            Order::InsertsDpc | Order::FlushesDpcs | Order::EndsCallbacks => {}
        }
    }

    /// A call comes to these objects, which may be one: now, or later, if another flow comes between.
    fn begin_ordering(&mut self, slot: Slot, objects: [u64; 2]) {
        self.order(slot, objects);
        self.ordering.push((slot, objects));
    }

    fn order(&mut self, slot: Slot, [one, other]: [u64; 2]) {
        for object in std::iter::once(one).chain((other != one).then_some(other)) {
            self.acquire(slot, At::Object(object));
            self.release(slot, At::Object(object));
        }
    }

    fn returns(&mut self, slot: Slot, order: Order) {
        match order {
            Order::First | Order::Others | Order::Queues => {
                if let Some(at) = self.ordering.iter().rposition(|(of, _)| *of == slot) {
                    let (_, objects) = self.ordering.remove(at);
                    self.order(slot, objects);
                }
            }
            Order::FlushesDpcs => self.acquire(slot, At::DpcsOver),
            Order::InsertsDpc => {
                if let Some(dpc) = self.inserting.remove(&slot) {
                    self.acquire(slot, At::Over(dpc));
                }
            }
            Order::Interprocessor => self.acquire(slot, At::CallsOver),
            Order::EndsCallbacks => self.acquire(slot, At::CallbacksOver),
            _ => {}
        }
    }

    fn lock(&mut self, slot: Slot, lock: u64, kind: LockKind) {
        let shares =
            matches!(kind, LockKind::SharedSpin | LockKind::SharedPushLock | LockKind::SharedResource);
        if shares {
            self.sharing.insert((slot, lock));
        } else {
            self.learn_at(slot, At::Shared(lock));
        }
        self.acquire(slot, At::Lock(lock));
    }

    fn unlock(&mut self, slot: Slot, lock: u64) {
        let shared = self.sharing.remove(&(slot, lock));
        self.release(slot, if shared { At::Shared(lock) } else { At::Lock(lock) });
    }
}
