//! Strands: stackful coroutines that carry kernel threads, application threads and work items.
//!
//! A strand's host stack lies in the machine's arena and holds Rust frames only; driver frames are on a stack of the
//! guest's. What a strand runs is looked up by the guest when it starts ([`crate::Guest::strand`]), so nothing of the
//! host is captured in it. Strands are resumed from the [root](crate::root), which is a coroutine itself.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::num::NonZeroUsize;

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::arena::arena;
use crate::by_strand::ByStrand;
use crate::windows::{STACKS, Window};

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

/// Host stack of a strand: kernel frames need 3–7 KB in release and up to 55 KB in debug builds, and 64 calls into drivers
/// may be nested. What is not touched takes no memory.
const STACK_SIZE: u64 = 960 << 10;
/// Distance of two stacks; the difference is guard.
const STACK_STRIDE: u64 = 1 << 20;
/// Stacks whose guard is not accessible. It is an area of the host's more for each, of which it has 65,530 for all; between
/// the stacks behind these, what would be guard is memory that is not used.
const GUARDED: u64 = 8192;
/// The root strand's stack, which carries the scheduler and whatever the host asks for, and its guard.
const ROOT_SIZE: u64 = (2 << 20) - ROOT_GUARD;
const ROOT_GUARD: u64 = 64 << 10;
/// Where the strands' stacks begin.
fn first() -> u64 {
    STACKS.base() + ROOT_GUARD + ROOT_SIZE
}

/// A host stack in the arena.
pub(crate) struct ArenaStack {
    limit: u64,
    size: u64,
}

impl ArenaStack {
    /// The one of the root strand.
    pub(crate) fn root() -> Self {
        Self { limit: STACKS.base() + ROOT_GUARD, size: ROOT_SIZE }
    }

    fn of_slot(slot: u64) -> Self {
        Self { limit: first() + slot * STACK_STRIDE + (STACK_STRIDE - STACK_SIZE), size: STACK_SIZE }
    }

    /// What the host maps for the stack of a slot: that, and from [`GUARDED`] slots on what lies below it.
    fn laid(slot: u64) -> Window {
        let stack = Self::of_slot(slot).window();
        let below = if slot < GUARDED { 0 } else { STACK_STRIDE - STACK_SIZE };
        Window { base: stack.base - below, size: stack.size + below }
    }

    /// Where it is, guard excluded.
    pub(crate) const fn window(&self) -> Window {
        Window { base: self.limit, size: self.size }
    }
}

/// The host stacks of the machine: the root's, and those of the first `slots` slots.
pub(crate) fn stacks(slots: u64) -> impl Iterator<Item = Window> {
    let strands = (0..slots).map(ArenaStack::of_slot);
    std::iter::once(ArenaStack::root()).chain(strands).map(|stack| stack.window())
}

/// Whether `address` lies in a stack of the first `slots` slots or the root's, and not in a guard.
pub(crate) fn in_stack(address: u64, slots: u64) -> bool {
    if address < first() {
        return ArenaStack::root().window().contains(address);
    }
    let (slot, offset) = ((address - first()) / STACK_STRIDE, (address - first()) % STACK_STRIDE);
    slot < slots && offset >= STACK_STRIDE - STACK_SIZE
}

// SAFETY: the range is mapped readable and writable before it is used (`Strands::spawn`, `Host::start`), is aligned
// to a page and used by one strand at a time.
unsafe impl Stack for ArenaStack {
    fn base(&self) -> StackPointer {
        address(self.limit + self.size)
    }

    fn limit(&self) -> StackPointer {
        address(self.limit)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
fn address(value: u64) -> StackPointer {
    NonZeroUsize::new(value as usize).expect("stacks do not lie at address zero")
}

/// Why a strand gives its processor back to the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gives {
    /// It waits.
    Way,
    /// It asks the host something, and goes on as soon as that is answered.
    Question,
}

type Body = Coroutine<(), Gives, (), ArenaStack>;

struct Slot {
    id: StrandId,
    /// Only the scheduler reaches it, and never while the strand runs.
    body: UnsafeCell<Body>,
    /// Which stack it has.
    stack: u64,
    yielder: Cell<*const Yielder<(), Gives>>,
    /// The innermost driver frame while the strand is suspended.
    frame: Cell<u64>,
}

/// All strands of a machine. Lies in the arena, with the slots and coroutines in its heap.
pub(crate) struct Strands {
    /// Of the strands that have not ended.
    slots: RefCell<ByStrand<Slot>>,
    /// How many strands have been made.
    made: Cell<u32>,
    free_stacks: RefCell<Vec<u64>>,
    stacks: Cell<u64>,
    /// The strand that runs; null while the scheduler does.
    current: Cell<*const Slot>,
}

impl Default for Strands {
    fn default() -> Self {
        Self {
            slots: RefCell::default(),
            made: Cell::new(0),
            free_stacks: RefCell::default(),
            stacks: Cell::new(0),
            current: Cell::new(std::ptr::null()),
        }
    }
}

impl Strands {
    #[inline]
    pub(crate) fn current(&self) -> StrandId {
        self.running().map_or(StrandId(0), |slot| slot.id)
    }

    #[inline]
    fn running(&self) -> Option<&Slot> {
        // SAFETY: null, or the slot of a strand that runs, which stays where it is until the strand has ended.
        unsafe { self.current.get().as_ref() }
    }

    /// How many stacks have been made.
    pub(crate) fn stacks(&self) -> u64 {
        self.stacks.get()
    }

    /// Whether a strand has begun and not ended.
    pub(crate) fn is_any_suspended(&self) -> bool {
        self.slots.borrow().iter().any(|slot| !slot.yielder.get().is_null())
    }

    /// Makes a strand that will call `start` with its id, once it is first resumed. In the machine's scope.
    pub(crate) fn spawn(&self, start: fn(StrandId), make_stack: impl FnOnce(u64, Window)) -> StrandId {
        let stack = self.free_stacks.borrow_mut().pop().unwrap_or_else(|| {
            let slot = self.stacks.replace(self.stacks.get() + 1);
            let window = ArenaStack::of_slot(slot).window();
            assert!(window.end() <= STACKS.end(), "too many strands at once");
            make_stack(slot, ArenaStack::laid(slot));
            slot
        });
        let id = StrandId(self.made.get().checked_add(1).expect("fewer than 2^32 strands"));
        self.made.set(id.0);
        let run = move |yielder: &Yielder<(), Gives>, ()| {
            let slot = arena().strands.running().expect("the strand itself runs");
            slot.yielder.set(yielder);
            start(id);
        };
        let body = Coroutine::with_stack(ArenaStack::of_slot(stack), run);
        let (yielder, frame) = (Cell::new(std::ptr::null()), Cell::new(0));
        self.slots.borrow_mut().insert(id, Slot { id, body: UnsafeCell::new(body), stack, yielder, frame });
        id
    }

    /// Runs a strand until it suspends or ends. Only from the scheduler's stack.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see below")]
    pub(crate) fn resume(&self, id: StrandId, frame: &Cell<u64>) -> Progress {
        assert!(self.current.get().is_null(), "a strand is resumed from the scheduler only");
        let slot = self.slot(id);
        // SAFETY: a slot stays where it is until its strand has ended; there is no other reference to its coroutine, because only the
        // scheduler resumes and the strand itself does not look at it.
        let (slot, body) = unsafe { (&*slot, &mut *(*slot).body.get()) };
        self.current.set(slot);
        frame.set(slot.frame.get());
        crate::translate::ask_for_extended();
        let mut result = body.resume(());
        while result == CoroutineResult::Yield(Gives::Question) {
            arena().root.ask();
            result = body.resume(());
        }
        self.current.set(std::ptr::null());
        slot.frame.set(frame.replace(0));
        if result == CoroutineResult::Return(()) {
            let ended = self.slots.borrow_mut().remove(id);
            self.free_stacks.borrow_mut().extend(ended.map(|slot| slot.stack));
            return Progress::Finished;
        }
        Progress::Suspended
    }

    /// The innermost driver frame of a strand that is suspended; `None` of the one that runs.
    pub(crate) fn innermost_frame(&self, id: StrandId) -> Option<u64> {
        if self.current() == id {
            return None;
        }
        // One that has ended has none.
        Some(self.slots.borrow().get(id).map_or(0, |slot| slot.frame.get()))
    }

    /// Whether a strand that is suspended has a driver frame.
    pub(crate) fn has_any_frame(&self) -> bool {
        let current = self.current();
        self.slots.borrow().iter().any(|slot| slot.id != current && slot.frame.get() != 0)
    }

    fn slot(&self, id: StrandId) -> *const Slot {
        self.slots.borrow().get(id).expect("a strand that is resumed has not ended")
    }

    // A strand that gives way returns through frames whose calls the processor's return predictor has forgotten: the
    // fewer there are, the better.

    /// Goes back to the scheduler; returns when it resumes this strand.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see above")]
    pub(crate) fn suspend(&self) {
        self.running().expect("the scheduler itself cannot wait").give(Gives::Way);
    }

    /// Lets the host's side answer what it was asked; returns once it has.
    pub(crate) fn ask(&self) {
        match self.running() {
            Some(slot) => slot.give(Gives::Question),
            None => arena().root.ask(),
        }
    }
}

impl Slot {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see above")]
    fn give(&self, gives: Gives) {
        assert!(!std::thread::panicking(), "a strand must not suspend while it unwinds");
        // SAFETY: the yielder lives on this strand's own stack as long as the strand runs, and it does.
        unsafe { (*self.yielder.get()).suspend(gives) }
    }
}
