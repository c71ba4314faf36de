//! Strands: stackful coroutines that carry kernel threads, application threads and work items.
//!
//! A strand's host stack lies in the machine's arena and holds Rust frames only; driver frames are on a stack of the
//! guest's. What a strand runs is looked up by the guest when it starts ([`crate::Guest::strand`]), so nothing of the
//! host is captured in it.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::windows::STACKS;

/// A strand's number: 1 and up in the order of creation; 0 is the scheduler itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct StrandId(pub u32);

/// How a strand came back to the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It called [`crate::Engine::suspend`].
    Suspended,
    /// It is over and its stack is free again.
    Finished,
}

/// Host stack of a strand: kernel frames need 3–7 KB in release and up to 55 KB in debug builds.
const STACK_SIZE: u64 = 256 << 10;
/// Distance of two stacks; the difference is guard.
const STACK_STRIDE: u64 = 320 << 10;

struct ArenaStack {
    slot: u64,
}

impl ArenaStack {
    fn limit_address(&self) -> u64 {
        STACKS.base + self.slot * STACK_STRIDE + (STACK_STRIDE - STACK_SIZE)
    }
}

// SAFETY: the slot's range is mapped readable and writable by `Strands::spawn`, is aligned to a page and used by one
// strand at a time.
unsafe impl Stack for ArenaStack {
    fn base(&self) -> StackPointer {
        address(self.limit_address() + STACK_SIZE)
    }

    fn limit(&self) -> StackPointer {
        address(self.limit_address())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
fn address(value: u64) -> StackPointer {
    NonZeroUsize::new(value as usize).expect("stacks do not lie at address zero")
}

type Body = Coroutine<(), (), (), ArenaStack>;

struct Slot {
    body: Option<Box<Body>>,
    yielder: *const Yielder<(), ()>,
    /// The innermost driver frame while the strand is suspended.
    frame: u64,
}

/// All strands of a machine.
#[derive(Default)]
pub(crate) struct Strands {
    slots: RefCell<Vec<Slot>>,
    free_stacks: RefCell<Vec<u64>>,
    stacks: Cell<u64>,
    current: Cell<StrandId>,
}

impl Strands {
    pub(crate) fn current(&self) -> StrandId {
        self.current.get()
    }

    /// Makes a strand that will call `start` with its id, once it is first resumed.
    pub(crate) fn spawn(&self, start: fn(StrandId), make_stack: impl FnOnce(u64, u64)) -> StrandId {
        let slot = self.free_stacks.borrow_mut().pop().unwrap_or_else(|| {
            let slot = self.stacks.replace(self.stacks.get() + 1);
            let stack = ArenaStack { slot };
            assert!(stack.limit_address() + STACK_SIZE <= STACKS.end(), "too many strands at once");
            make_stack(stack.limit_address(), STACK_SIZE);
            slot
        });
        let mut slots = self.slots.borrow_mut();
        let id = StrandId(u32::try_from(slots.len() + 1).expect("fewer than 2^32 strands"));
        let body = Coroutine::with_stack(ArenaStack { slot }, move |yielder: &Yielder<(), ()>, ()| {
            crate::machine::state().strands.slots.borrow_mut()[index(id)].yielder = yielder;
            start(id);
        });
        slots.push(Slot { body: Some(Box::new(body)), yielder: std::ptr::null(), frame: 0 });
        id
    }

    /// Runs a strand until it suspends or ends. Only from the scheduler's stack.
    pub(crate) fn resume(&self, id: StrandId, frame: &Cell<u64>) -> Progress {
        assert_eq!(self.current.get(), StrandId(0), "a strand is resumed from the scheduler only");
        let mut body = {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[index(id)];
            frame.set(slot.frame);
            slot.body.take().expect("a strand that is resumed exists and is not running")
        };
        self.current.set(id);
        let result = body.resume(());
        self.current.set(StrandId(0));
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index(id)];
        slot.frame = frame.replace(0);
        match result {
            CoroutineResult::Yield(()) => {
                slot.body = Some(body);
                Progress::Suspended
            }
            CoroutineResult::Return(()) => {
                drop(slots);
                self.free_stacks.borrow_mut().push(body.into_stack().slot);
                Progress::Finished
            }
        }
    }

    /// Goes back to the scheduler; returns when it resumes this strand.
    pub(crate) fn suspend(&self) {
        assert!(!std::thread::panicking(), "a strand must not suspend while it unwinds");
        let id = self.current.get();
        assert_ne!(id, StrandId(0), "the scheduler itself cannot wait");
        let yielder = self.slots.borrow()[index(id)].yielder;
        // SAFETY: the yielder lives on this strand's own stack as long as the strand runs, and it does.
        unsafe { (*yielder).suspend(()) }
    }

    /// Forgets strands that have not ended: their stacks go with the arena. Dropping them would unwind through
    /// driver frames.
    pub(crate) fn abandon(&self) {
        for slot in self.slots.borrow_mut().drain(..) {
            if let Some(body) = slot.body {
                std::mem::forget(body);
            }
        }
    }
}

const fn index(id: StrandId) -> usize {
    id.0 as usize - 1
}
