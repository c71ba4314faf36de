//! Which instructions of drivers touch memory that another flow of control touches too, one of them storing: learned while
//! driver code runs, from every access that an instruction makes by itself.
//!
//! Byte by byte, so that neighbours in one word share nothing. What the kernel touches in a call of the driver's is its caller's
//! ([`crate::Engine::on_behalf_of`]): calls are visible without this, so it is the other flow's instruction that is learned.
//! What the kernel touches on its own account is not noted, nor are devices and what lies behind `gs`; whether a lock keeps the two
//! apart is not asked. The notes are of one run, and taken back with it; what was learned stays.
//!
//! What a flow does on its own stack is most of what it does, and meets nothing of others unless another flow reaches into that stack. So it
//! is spared at first; the first access from elsewhere to a stack that was spared says that the run has taught too little
//! ([`crate::Engine::must_learn_again`]), and from then on stacks are noted like all else.

mod history;
mod touches;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::arena::arena;
use crate::guest::Runner;
use crate::machine::state;
use crate::windows::DRIVER_MEMORY;
use crate::{heap, memory};
use history::History;
pub use history::mixed;
use touches::{Touch, Touches};

/// Whether the live machine's accesses are noted.
static LIVE: AtomicBool = AtomicBool::new(false);

/// Whether the live machine's history is kept.
static KEPT: AtomicBool = AtomicBool::new(false);

/// Whose the kernel's accesses are now, if they are a driver's. It is taken back with the machine.
pub(crate) type Behalf = Cell<Option<Caller>>;

/// A runner that waits for the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    flow: u64,
    stack: [u64; 2],
}

/// Whether accesses are noted: without a way through the machine's state, for accessors that have none.
#[inline]
pub(crate) fn is_live() -> bool {
    LIVE.load(Relaxed)
}

/// Whether the run's history is kept ([`history`]).
#[inline]
pub(crate) fn keeps_history() -> bool {
    KEPT.load(Relaxed)
}

fn set_live(live: bool) {
    LIVE.store(live, Relaxed);
    memory::set_noted(live);
}

/// Acts for `runner`, if accesses are noted.
#[inline]
pub(crate) fn on_behalf_of<R>(runner: impl FnOnce() -> Runner, act: impl FnOnce() -> R) -> R {
    if !is_live() {
        return act();
    }
    let Runner { flow, stack } = runner();
    with(Some(Caller { flow, stack: [stack.start, stack.end] }), act)
}

/// Calls `act` on behalf of no flow: driver code runs, and its accesses are noted as its own.
#[inline]
pub(crate) fn unattributed<R>(act: impl FnOnce() -> R) -> R {
    if is_live() { with(None, act) } else { act() }
}

fn with<R>(caller: Option<Caller>, act: impl FnOnce() -> R) -> R {
    let before = arena().behalf.replace(caller);
    let result = act();
    arena().behalf.set(before);
    result
}

/// The kernel touches memory of drivers. While [`is_live`].
#[cold]
#[inline(never)]
pub(crate) fn kernel_touches(address: u64, length: u64, stores: bool) {
    if let Some(Caller { flow, stack: [start, end] }) = arena().behalf.get() {
        state().sharing.note(&Runner { flow, stack: start..end }, None, address, length, stores);
    } else if keeps_history() && DRIVER_MEMORY.iter().any(|window| window.contains(address)) {
        state().sharing.change_history(|history| history.kernel_touches(address, length, stores));
    }
}

/// The live machine's notes.
#[derive(Default)]
pub(crate) struct Sharing {
    on: Cell<bool>,
    /// What a flow does on its own stack is not noted; and one that was spared was reached into.
    spares_stacks: Cell<bool>,
    last_spared: Cell<u64>,
    reached_into: Cell<bool>,
    notes: RefCell<Notes>,
}

impl Drop for Sharing {
    fn drop(&mut self) {
        set_live(false);
        KEPT.store(false, Relaxed);
    }
}

#[derive(Default)]
struct Notes {
    /// Of the run so far.
    touches: Touches,
    shared: BTreeSet<u64>,
    /// Stacks that were spared, by their lowest addresses, with what is behind them.
    spared: BTreeMap<u64, u64>,
    history: History,
}

/// All that is known of a run at one time.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    touches: touches::Mark,
    history: history::Mark,
}

impl Sharing {
    /// Whether accesses are noted.
    pub(crate) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// From now on they are, or no more. True if that is a change.
    pub(crate) fn switch(&self, on: bool) -> bool {
        heap::outside(|| {
            let mut notes = self.notes.borrow_mut();
            notes.touches.clear();
            notes.spared.clear();
            if on {
                notes.shared.clear();
            }
        });
        self.spares_stacks.set(on);
        self.last_spared.set(0);
        self.reached_into.set(false);
        set_live(on);
        self.on.replace(on) != on
    }

    /// From now on the run's history is kept, and nothing has happened so far; or it is no more.
    pub(crate) fn keep_history(&self, on: bool) {
        KEPT.store(on, Relaxed);
        self.change_history(History::clear);
    }

    /// The history of the run so far as one number.
    pub(crate) fn history(&self) -> u64 {
        self.notes.borrow().history.sum()
    }

    /// A flow of control goes on behind a question: see [`crate::Engine::goes_on`].
    pub(crate) fn goes_on(&self, flow: u64, what: u64) {
        self.change_history(|history| history.goes_on(flow, what));
    }

    /// See [`crate::Engine::stands`].
    pub(crate) fn stands(&self, flow: u64, at: u64) {
        self.change_history(|history| history.stands(flow, at));
    }

    /// See [`crate::Engine::operates`].
    pub(crate) fn operates(&self, flow: u64, what: u64) {
        self.change_history(|history| history.operates(flow, what));
    }

    fn change_history(&self, change: impl FnOnce(&mut History)) {
        heap::outside(|| change(&mut self.notes.borrow_mut().history));
    }

    /// See [`crate::Engine::must_learn_again`].
    pub(crate) fn must_learn_again(&self) -> bool {
        let again = self.reached_into.take();
        if again {
            self.spares_stacks.set(false);
        }
        again
    }

    /// Whether what this flow does on its own stack is not noted. If so, it counts as done.
    pub(crate) fn spares(&self, runner: &Runner) -> bool {
        let spares = self.spares_stacks.get();
        if spares && self.last_spared.replace(runner.stack.start) != runner.stack.start {
            heap::outside(|| self.notes.borrow_mut().spared.insert(runner.stack.start, runner.stack.end));
        }
        spares
    }

    /// `instruction`, if it is to be learned, is about to touch `length` bytes at `address`.
    pub(crate) fn note(
        &self,
        runner: &Runner,
        instruction: Option<u64>,
        address: u64,
        length: u64,
        stores: bool,
    ) {
        let own = runner.stack.contains(&address);
        if own && self.spares(runner) {
            return;
        }
        // All routines that run on a stack are one flow there, in whatever order they come.
        let flow = if own { runner.stack.start } else { runner.flow };
        heap::outside(|| {
            let mut notes = self.notes.borrow_mut();
            if keeps_history() {
                notes.history.touches(runner.flow, own, address, length, stores);
            }
            if self.spares_stacks.get() && notes.has_spared(address, length) {
                self.reached_into.set(true);
            }
            let touch = Touch { flow, instruction: instruction.and_then(NonZero::new), stores };
            let Notes { touches, shared, .. } = &mut *notes;
            touches.note(address, length, touch, |instruction| shared.extend([instruction.get()]));
        });
    }

    /// What was at these bytes is gone: who touched it touched nothing that is there from now on.
    pub(crate) fn forget(&self, address: u64, length: u64) {
        if self.is_on() {
            heap::outside(|| self.notes.borrow_mut().touches.forget(address, length));
        }
    }

    /// Remembers what was touched so far in this run. On the host's side.
    pub(crate) fn mark(&self) -> Mark {
        let mut notes = self.notes.borrow_mut();
        Mark { touches: notes.touches.mark(), history: notes.history.mark() }
    }

    /// The run was taken back to where this was all. On the host's side.
    pub(crate) fn take_back(&self, mark: Mark) {
        let mut notes = self.notes.borrow_mut();
        notes.touches.take_back(mark.touches);
        notes.history.take_back(mark.history);
    }

    /// What was learned in all runs, by address.
    pub(crate) fn learned(&self) -> Vec<u64> {
        self.notes.borrow().shared.iter().copied().collect()
    }
}

impl Notes {
    /// Whether a stack that was spared has one of these bytes.
    fn has_spared(&self, address: u64, length: u64) -> bool {
        let below = self.spared.range(..address.saturating_add(length)).next_back();
        below.is_some_and(|(_, end)| *end > address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 0x9000;

    /// Notes accesses of (flow, instruction, address, length, stores), in this order; again, if the first time has taught too little.
    fn learned(touches: &[(u64, u64, u64, u64, bool)]) -> Vec<u64> {
        let sharing = Sharing::default();
        sharing.switch(true);
        let start = sharing.mark();
        let run = || {
            for (flow, instruction, address, length, stores) in touches {
                let stack = STACK + flow * 0x1000..STACK + (flow + 1) * 0x1000;
                sharing.note(&Runner { flow: *flow, stack }, Some(*instruction), *address, *length, *stores);
            }
        };
        run();
        if sharing.must_learn_again() {
            assert_eq!(sharing.learned(), []);
            sharing.take_back(start);
            run();
        }
        sharing.learned()
    }

    #[test]
    fn a_store_and_a_load_of_two_flows_are_shared_in_either_order() {
        assert_eq!(learned(&[(1, 10, 0x100, 4, true), (2, 20, 0x102, 1, false)]), [10, 20]);
        assert_eq!(learned(&[(2, 20, 0x102, 1, false), (1, 10, 0x100, 4, true)]), [10, 20]);
    }

    #[test]
    fn loads_alone_one_flow_alone_and_neighbouring_bytes_share_nothing() {
        assert_eq!(learned(&[(1, 10, 0x100, 8, false), (2, 20, 0x100, 8, false)]), []);
        assert_eq!(learned(&[(1, 10, 0x100, 8, true), (1, 20, 0x100, 8, false)]), []);
        assert_eq!(learned(&[(1, 10, 0x103, 1, true), (2, 20, 0x104, 1, true)]), []);
    }

    #[test]
    fn an_access_across_lines_meets_what_it_covers_of_each() {
        assert_eq!(learned(&[(1, 10, 0x13E, 4, true), (2, 20, 0x141, 1, true)]), [10, 20]);
        assert_eq!(learned(&[(1, 10, 0x13E, 4, true), (2, 20, 0x142, 1, true)]), []);
        assert_eq!(learned(&[(1, 10, 0x100, 512, true), (2, 20, 0x2FF, 1, false)]), [10, 20]);
    }

    #[test]
    fn what_cannot_be_watched_is_the_other_side_and_not_learned() {
        let sharing = Sharing::default();
        let runner = |flow| Runner { flow, stack: 0..0 };
        sharing.note(&runner(1), None, 0x100, 4, true);
        sharing.note(&runner(2), Some(20), 0x100, 4, false);
        assert_eq!(sharing.learned(), [20]);
    }

    #[test]
    fn a_stack_is_its_owners_until_another_reaches_into_it() {
        let own = STACK + 0x1000;
        assert_eq!(learned(&[(1, 10, own, 8, true), (1, 11, own, 8, false)]), []);
        assert_eq!(learned(&[(1, 10, own, 8, true), (2, 20, own, 8, false)]), [10, 20]);
    }

    #[test]
    fn what_comes_to_lie_where_something_was_is_something_else() {
        let sharing = Sharing::default();
        sharing.switch(true);
        let start = sharing.mark();
        let runner = |flow| Runner { flow, stack: 0..0 };
        sharing.note(&runner(1), Some(10), 0x100, 16, true);
        sharing.forget(0x104, 8);
        sharing.note(&runner(2), Some(20), 0x104, 8, true);
        assert_eq!(sharing.learned(), []);
        sharing.note(&runner(2), Some(20), 0x10C, 1, true);
        assert_eq!(sharing.learned(), [10, 20]);
        sharing.take_back(start);
        assert_eq!(sharing.learned(), [10, 20], "it stays learned");
    }
}
