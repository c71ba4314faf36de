//! Which instructions of drivers touch memory that another flow of control touches too, one of them storing: learned while
//! driver code runs, from every access that an instruction makes by itself.
//!
//! Byte by byte, so that neighbours in one word share nothing. What the kernel touches in a call of the driver's is its caller's
//! ([`crate::Engine::on_behalf_of`]): calls are visible without this, so it is the other flow's instruction that is learned.
//! What the kernel touches on its own account is not noted, nor are devices and what lies behind `gs`; whether a lock keeps the two
//! apart is not asked. The notes are of one run, and taken back with it; what was learned stays.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::arena::arena;
use crate::guest::Runner;
use crate::machine::state;
use crate::{heap, memory};

/// Bytes that are noted together.
const WORD: u64 = 8;

/// Whether the live machine's accesses are noted.
static LIVE: AtomicBool = AtomicBool::new(false);

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
    }
}

/// The live machine's notes.
#[derive(Default)]
pub(crate) struct Sharing {
    on: Cell<bool>,
    notes: RefCell<Notes>,
}

impl Drop for Sharing {
    fn drop(&mut self) {
        set_live(false);
    }
}

/// By the number of the word: who touched it in a run so far, each way once.
pub(crate) type Words = BTreeMap<u64, Vec<Touch>>;

#[derive(Default)]
struct Notes {
    words: Words,
    shared: BTreeSet<u64>,
}

/// What one instruction did to a word in one flow of control.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    flow: u64,
    /// None if the guest is asked before it anyway, or cannot be.
    instruction: Option<u64>,
    stores: bool,
    /// A bit for each byte.
    bytes: u8,
}

impl Touch {
    fn alike(&self, other: &Self) -> bool {
        (self.flow, self.instruction, self.stores) == (other.flow, other.instruction, other.stores)
    }

    fn meets(&self, other: &Self) -> bool {
        self.flow != other.flow && self.bytes & other.bytes != 0 && (self.stores || other.stores)
    }
}

impl Sharing {
    /// Whether accesses are noted.
    pub(crate) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// From now on they are, or no more. True if that is a change.
    pub(crate) fn switch(&self, on: bool) -> bool {
        heap::outside(|| self.notes.borrow_mut().words.clear());
        set_live(on);
        self.on.replace(on) != on
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
        // All routines that run on a stack are one flow there, in whatever order they come.
        let flow = if runner.stack.contains(&address) { runner.stack.start } else { runner.flow };
        heap::outside(|| {
            let mut notes = self.notes.borrow_mut();
            for (word, bytes) in words(address, length) {
                notes.touch(word, Touch { flow, instruction, stores, bytes });
            }
        });
    }

    /// What was at these bytes is gone: who touched it touched nothing that is there from now on.
    pub(crate) fn forget(&self, address: u64, length: u64) {
        if !self.is_on() {
            return;
        }
        heap::outside(|| {
            let mut notes = self.notes.borrow_mut();
            let known = notes.words.range(address / WORD..(address + length).div_ceil(WORD));
            for word in known.map(|(word, _)| *word).collect::<Vec<_>>() {
                let bytes = mask(word, address, length);
                let touches = notes.words.get_mut(&word).expect("it was found there");
                touches.iter_mut().for_each(|touch| touch.bytes &= !bytes);
                touches.retain(|touch| touch.bytes != 0);
            }
        });
    }

    /// What was touched so far in this run. On the host's side.
    pub(crate) fn touched(&self) -> Words {
        self.notes.borrow().words.clone()
    }

    /// The run was taken back to where that was all. On the host's side.
    pub(crate) fn take_back(&self, touched: &Words) {
        self.notes.borrow_mut().words.clone_from(touched);
    }

    /// What was learned in all runs, by address.
    pub(crate) fn learned(&self) -> Vec<u64> {
        self.notes.borrow().shared.iter().copied().collect()
    }
}

impl Notes {
    fn touch(&mut self, word: u64, touch: Touch) {
        let touches = self.words.entry(word).or_default();
        match touches.iter_mut().find(|known| known.alike(&touch)) {
            Some(known) if known.bytes & touch.bytes == touch.bytes => return,
            Some(known) => known.bytes |= touch.bytes,
            None => touches.push(touch),
        }
        for other in touches.iter().filter(|other| other.meets(&touch)) {
            self.shared.extend([other.instruction, touch.instruction].into_iter().flatten());
        }
    }
}

/// The words of a range, and which bytes of each.
fn words(address: u64, length: u64) -> impl Iterator<Item = (u64, u8)> {
    let words = address / WORD..address.saturating_add(length).div_ceil(WORD);
    words.map(move |word| (word, mask(word, address, length)))
}

fn mask(word: u64, address: u64, length: u64) -> u8 {
    let inside = |byte: &u64| (word * WORD + byte).wrapping_sub(address) < length;
    (0..WORD).filter(inside).fold(0, |mask, byte| mask | 1 << byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 0x9000;

    /// Notes accesses of (flow, instruction, address, length, stores), in this order.
    fn learned(touches: &[(u64, u64, u64, u64, bool)]) -> Vec<u64> {
        let sharing = Sharing::default();
        sharing.switch(true);
        for (flow, instruction, address, length, stores) in touches {
            let stack = STACK + flow * 0x1000..STACK + (flow + 1) * 0x1000;
            sharing.note(&Runner { flow: *flow, stack }, Some(*instruction), *address, *length, *stores);
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
    fn an_access_across_words_meets_what_it_covers_of_each() {
        assert_eq!(learned(&[(1, 10, 0x106, 4, true), (2, 20, 0x109, 1, true)]), [10, 20]);
        assert_eq!(learned(&[(1, 10, 0x106, 4, true), (2, 20, 0x10A, 1, true)]), []);
        assert_eq!(learned(&[(1, 10, 0x100, 64, true), (2, 20, 0x13F, 1, false)]), [10, 20]);
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
        let runner = |flow| Runner { flow, stack: 0..0 };
        sharing.note(&runner(1), Some(10), 0x100, 16, true);
        sharing.forget(0x104, 8);
        sharing.note(&runner(2), Some(20), 0x104, 8, true);
        assert_eq!(sharing.learned(), []);
        sharing.note(&runner(2), Some(20), 0x10C, 1, true);
        assert_eq!(sharing.learned(), [10, 20]);
        sharing.take_back(&Words::new());
        assert_eq!(sharing.learned(), [10, 20], "it stays learned");
    }
}
