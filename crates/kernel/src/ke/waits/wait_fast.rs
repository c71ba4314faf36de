//! The ordinary wait, for one object and for ever, and the ordinary signal, of an event for which one thread waits so. Follows
//! *KeWaitForSingleObject function*, *KeSetEvent function*.
//!
//! Each looks at all it needs at once, before it changes anything, and leaves everything unusual to the general path (`wait`,
//! `dispatcher`), which explains each step and reports errors. A test runs the same story on both.

use abi::{DISPATCHER_HEADER, DriverPtr, KWAIT_BLOCK, LIST_ENTRY, NtStatus};
use engine::View;

use super::dispatcher::Kind;
use super::user_apc::WaitMode;
use super::wait::{BLOCKS_AT, Wait};
use crate::cx::Kernel;
use crate::few::Few;
use crate::ke::levels::irql::DISPATCH_LEVEL;
use crate::ke::sched::scheduler;
use crate::ke::sched::thread_record::State;
use crate::mm::space::Zone;

/// What became of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    /// The object was signaled: it has had the effects of that.
    Satisfied,
    /// The thread waits, and has left its processor.
    Waits,
}

/// The current thread waits for an object, by a wait that nothing interrupts. `None`: the fast path does not apply, nothing was done.
#[inline]
pub(crate) fn begin(k: &mut Kernel, header: DriverPtr<DISPATCHER_HEADER>) -> Option<Begun> {
    let processor = k.ke.processor();
    let strand = processor.thread;
    let may = k.level() < DISPATCH_LEVEL
        && !processor.is_idle()
        && processor.interrupts_enabled
        && !processor.wait_next
        // The general path reports a wait of a threaded DPC.
        && k.ke.irq.has_no_threaded_dpcs();
    if !may {
        return None;
    }
    let object = Object::at(k, header)?;
    let is_in_queue = k.ke.sched.threads().get(strand).is_some_and(|thread| thread.queue != 0);
    if matches!(object.kind, Kind::Mutant | Kind::Queue) || is_in_queue {
        return None;
    }
    if object.state > 0 {
        let left = match object.kind {
            Kind::SynchronizationEvent | Kind::SynchronizationTimer => Some(0),
            Kind::Semaphore => Some(object.state.wrapping_sub(1)),
            _ => None,
        };
        if let Some(left) = left {
            object.set_state(k, left)?;
        }
        return Some(Begun::Satisfied);
    }
    let thread = k.ke.sched.threads_mut().get_mut(strand)?;
    let blocks = DriverPtr::new(thread.object.address + BLOCKS_AT);
    let block: View<KWAIT_BLOCK> = k.engine.view(blocks)?;
    k.engine.peek_own("a thread has its wait blocks", || {
        block.set(KWAIT_BLOCK::Thread, thread.object);
        block.set(KWAIT_BLOCK::Object, header.cast());
    });
    object.append(k, block.part(KWAIT_BLOCK::WaitListEntry))?;
    k.ke.waits.waits.get_or_insert_with(header.address, Few::default).push(strand);
    let thread = k.ke.sched.threads_mut().get_mut(strand)?;
    let wait =
        Wait { objects: Few::one(header), all: false, wait_mode: WaitMode::KERNEL, blocks, granted: None };
    (thread.wait, thread.state) = (Some(wait), State::Waiting);
    scheduler::leave_to_wait(k);
    Some(Begun::Waits)
}

/// Signals an event for which at most one thread waits: returns the state before. `None`: the fast path does not apply, nothing was done.
#[inline]
pub(crate) fn signal(k: &mut Kernel, header: DriverPtr<DISPATCHER_HEADER>, boost: u8) -> Option<i32> {
    let object = Object::at(k, header)?;
    let stays = match object.kind {
        Kind::NotificationEvent => 1,
        Kind::SynchronizationEvent => 0,
        _ => return None,
    };
    let strand = match k.ke.waits.waits.get(&header.address).map(|waiting| &**waiting) {
        // What lies on a stack may be gone.
        None if Zone::of(header.address) == Some(Zone::Stacks) => return None,
        None => {
            object.set_state(k, 1)?;
            return Some(object.state);
        }
        Some(&[only]) => only,
        Some(_) => return None,
    };
    let thread = k.ke.sched.threads().get(strand)?;
    let wait = thread.wait.as_ref()?;
    if thread.queue != 0
        || wait.all
        || wait.objects.len() != 1
        || thread.state != State::Waiting
        || object.state > 0
    {
        return None;
    }
    object.remove_only(k, wait.blocks + KWAIT_BLOCK::WaitListEntry, stays)?;
    let thread = k.ke.sched.threads_mut().get_mut(strand)?;
    thread.wait = None;
    (thread.wait_status, thread.boost) = (NtStatus::SUCCESS, boost);
    k.ke.timing.timers_mut().cancel_timeout(strand);
    scheduler::make_ready(k, strand);
    k.ke.waits.waits.remove(&header.address);
    Some(object.state)
}

/// A dispatcher object as it is now, and where.
#[derive(Clone, Copy)]
struct Object {
    view: View<DISPATCHER_HEADER>,
    head: View<LIST_ENTRY>,
    kind: Kind,
    state: i32,
    first: DriverPtr<LIST_ENTRY>,
    last: DriverPtr<LIST_ENTRY>,
}

impl Object {
    #[inline]
    fn at(k: &Kernel, header: DriverPtr<DISPATCHER_HEADER>) -> Option<Self> {
        let view = k.engine.view(header)?;
        k.engine.peek(|| {
            let head = view.part(DISPATCHER_HEADER::WaitListHead);
            let (kind, state) = (view.get(DISPATCHER_HEADER::Type), view.get(DISPATCHER_HEADER::SignalState));
            let (first, last) = (head.get(LIST_ENTRY::Flink), head.get(LIST_ENTRY::Blink));
            let kind = Kind::from_byte(kind)?;
            (!first.is_null()).then_some(Self { view, head, kind, state, first, last })
        })
    }

    /// None: it could not be written, and is as it was.
    #[inline]
    fn set_state(self, k: &Kernel, state: i32) -> Option<()> {
        k.engine.try_store(|| self.view.set(DISPATCHER_HEADER::SignalState, state))
    }

    /// Puts an entry at the end of its wait list. None, and nothing is done, if the list does not hold together.
    #[inline]
    fn append(self, k: &Kernel, entry: View<LIST_ENTRY>) -> Option<()> {
        let engine = k.engine;
        let end = engine.view(self.last)?;
        engine.peek(|| (end.get(LIST_ENTRY::Flink) == self.head.at()).then_some(()))?;
        engine.try_store(|| {
            entry.set(LIST_ENTRY::Flink, self.head.at());
            entry.set(LIST_ENTRY::Blink, self.last);
            self.head.set(LIST_ENTRY::Blink, entry.at());
        })?;
        let linked = engine.try_store(|| end.set(LIST_ENTRY::Flink, entry.at()));
        if linked.is_none() {
            engine.peek_own("it was written a moment ago", || self.head.set(LIST_ENTRY::Blink, self.last));
        }
        linked
    }

    /// Takes the only entry out of its wait list, and leaves it in this state. None, and nothing is done, if the list does not hold
    /// together.
    #[inline]
    fn remove_only(self, k: &Kernel, entry: DriverPtr<LIST_ENTRY>, stays: i32) -> Option<()> {
        let head = self.head.at();
        let only = k.engine.view(entry)?;
        let links = k.engine.peek(|| Some((only.get(LIST_ENTRY::Flink), only.get(LIST_ENTRY::Blink))))?;
        if (self.first, self.last, links) != (entry, entry, (head, head)) {
            return None;
        }
        k.engine.try_store(|| {
            self.head.set(LIST_ENTRY::Flink, head);
            self.head.set(LIST_ENTRY::Blink, head);
            self.view.set(DISPATCHER_HEADER::SignalState, stays);
        })
    }
}
