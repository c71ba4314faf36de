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

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
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
    /// What a flow does on its own stack is not noted; and one that was spared was reached into.
    spares_stacks: Cell<bool>,
    last_spared: Cell<u64>,
    reached_into: Cell<bool>,
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
    /// At the last snapshot, or where the machine was taken back to.
    before: Rc<Words>,
    /// Words that were touched since: all that is known of them.
    since: Since,
    shared: BTreeSet<u64>,
    /// Stacks that were spared, by their lowest addresses, with what is behind them.
    spared: BTreeMap<u64, u64>,
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
        heap::outside(|| {
            let mut notes = self.notes.borrow_mut();
            notes.before = Rc::default();
            notes.since.clear();
            notes.spared.clear();
        });
        self.spares_stacks.set(on);
        self.last_spared.set(0);
        self.reached_into.set(false);
        set_live(on);
        self.on.replace(on) != on
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
            if self.spares_stacks.get() && notes.has_spared(address, length) {
                self.reached_into.set(true);
            }
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
            for word in notes.known(address / WORD..(address + length).div_ceil(WORD)) {
                notes.forget(word, mask(word, address, length));
            }
        });
    }

    /// What was touched so far in this run. On the host's side.
    pub(crate) fn touched(&self) -> Rc<Words> {
        self.notes.borrow_mut().settle()
    }

    /// The run was taken back to where that was all. On the host's side.
    pub(crate) fn take_back(&self, touched: &Rc<Words>) {
        let mut notes = self.notes.borrow_mut();
        notes.before = Rc::clone(touched);
        notes.since.clear();
    }

    /// What was learned in all runs, by address.
    pub(crate) fn learned(&self) -> Vec<u64> {
        self.notes.borrow().shared.iter().copied().collect()
    }
}

impl Notes {
    fn touch(&mut self, word: u64, touch: Touch) {
        let list = self.list(word);
        match self.since.find(list, |known| known.alike(&touch)) {
            Some(known) if known.bytes & touch.bytes == touch.bytes => return,
            Some(known) => known.bytes |= touch.bytes,
            None => self.since.add(list, touch),
        }
        for other in self.since.touches(list).filter(|other| other.meets(&touch)) {
            self.shared.extend([other.instruction, touch.instruction].into_iter().flatten());
        }
    }

    fn forget(&mut self, word: u64, bytes: u8) {
        let list = self.list(word);
        self.since.change(list, |touch| touch.bytes &= !bytes);
    }

    /// Whether a stack that was spared has one of these bytes.
    fn has_spared(&self, address: u64, length: u64) -> bool {
        let below = self.spared.range(..address.saturating_add(length)).next_back();
        below.is_some_and(|(_, end)| *end > address)
    }

    /// The list of a word, with what was known of it before.
    fn list(&mut self, word: u64) -> List {
        let (list, is_new) = self.since.list(word);
        if is_new && let Some(before) = self.before.get(&word) {
            before.iter().for_each(|touch| self.since.add(list, *touch));
        }
        list
    }

    /// The words of a range that something is known of.
    fn known(&self, range: Range<u64>) -> Vec<u64> {
        let mut words: Vec<u64> = self.before.range(range.clone()).map(|(word, _)| *word).collect();
        let count = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if count <= self.since.used.len() {
            words.extend(range.filter(|word| self.since.find_list(*word).is_ok()));
        } else {
            words.extend(self.since.words().filter(|word| range.contains(word)));
        }
        words.sort_unstable();
        words.dedup();
        words
    }

    /// All that is known, in one.
    fn settle(&mut self) -> Rc<Words> {
        if self.since.words().next().is_some() {
            let mut all = Words::clone(&self.before);
            for word in self.since.words() {
                let list = self.since.find_list(word).expect("it is one of its words");
                let touches = self.since.touches(list).filter(|touch| touch.bytes != 0).copied();
                all.insert(word, touches.collect());
            }
            self.before = Rc::new(all);
            self.since.clear();
        }
        Rc::clone(&self.before)
    }
}

/// Touches by word, found by hashing, and all forgotten at once: a search that learns makes and forgets some thousand in each schedule.
struct Since {
    /// A power of two of them, of which at most half are in use.
    slots: Vec<Slot>,
    /// Which slots are in use.
    used: Vec<usize>,
    touches: Vec<(Touch, Next)>,
    /// Slots with another one are empty.
    stamp: u64,
}

/// Where the next touch of a word is; 0 is none, `n + 1` the one at `n`.
type Next = u32;

#[derive(Clone, Copy, Default)]
struct Slot {
    word: u64,
    first: Next,
    stamp: u64,
}

/// The touches of a word: its slot, as long as no other word gets one.
type List = usize;

impl Default for Since {
    fn default() -> Self {
        Self { slots: vec![Slot::default(); 1 << 10], used: Vec::new(), touches: Vec::new(), stamp: 1 }
    }
}

impl Since {
    fn clear(&mut self) {
        self.stamp += 1;
        self.used.clear();
        self.touches.clear();
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.used.iter().map(|slot| self.slots[*slot].word)
    }

    /// The slot of a word, or the one that it would have.
    fn find_list(&self, word: u64) -> Result<List, List> {
        let last = self.slots.len() - 1;
        let mut slot =
            usize::try_from(word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).expect("32 bits") & last;
        while self.slots[slot].stamp == self.stamp {
            if self.slots[slot].word == word {
                return Ok(slot);
            }
            slot = (slot + 1) & last;
        }
        Err(slot)
    }

    /// The list of a word, and whether it is new.
    fn list(&mut self, word: u64) -> (List, bool) {
        if 2 * self.used.len() >= self.slots.len() {
            self.grow();
        }
        match self.find_list(word) {
            Ok(list) => (list, false),
            Err(slot) => {
                self.slots[slot] = Slot { word, first: 0, stamp: self.stamp };
                self.used.push(slot);
                (slot, true)
            }
        }
    }

    fn grow(&mut self) {
        let larger = vec![Slot::default(); 2 * self.slots.len()];
        let before = std::mem::replace(&mut self.slots, larger);
        for slot in std::mem::take(&mut self.used) {
            let (Ok(free) | Err(free)) = self.find_list(before[slot].word);
            self.slots[free] = before[slot];
            self.used.push(free);
        }
    }

    fn add(&mut self, list: List, touch: Touch) {
        self.touches.push((touch, self.slots[list].first));
        self.slots[list].first = Next::try_from(self.touches.len()).expect("fewer than 2^32 touches");
    }

    /// Where the touches of a list stand.
    fn places(&self, list: List) -> impl Iterator<Item = usize> {
        let at = |next: Next| next.checked_sub(1).map(|at| at as usize);
        std::iter::successors(at(self.slots[list].first), move |place| at(self.touches[*place].1))
    }

    fn touches(&self, list: List) -> impl Iterator<Item = &Touch> {
        self.places(list).map(|place| &self.touches[place].0)
    }

    fn find(&mut self, list: List, is_it: impl Fn(&Touch) -> bool) -> Option<&mut Touch> {
        let place = self.places(list).find(|place| is_it(&self.touches[*place].0))?;
        Some(&mut self.touches[place].0)
    }

    fn change(&mut self, list: List, change: impl Fn(&mut Touch)) {
        let places: Vec<usize> = self.places(list).collect();
        places.into_iter().for_each(|place| change(&mut self.touches[place].0));
    }
}

/// The words of a range, and which bytes of each.
fn words(address: u64, length: u64) -> impl Iterator<Item = (u64, u8)> {
    let words = address / WORD..address.saturating_add(length).div_ceil(WORD);
    words.map(move |word| (word, mask(word, address, length)))
}

/// Which bytes of a word lie in a range that has some of it.
fn mask(word: u64, address: u64, length: u64) -> u8 {
    let begin = word * WORD;
    let first = address.saturating_sub(begin);
    let end = address.saturating_add(length).saturating_sub(begin).min(WORD);
    u8::MAX << first & u8::MAX >> (WORD - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 0x9000;

    /// Notes accesses of (flow, instruction, address, length, stores), in this order; again, if the first time has taught too little.
    fn learned(touches: &[(u64, u64, u64, u64, bool)]) -> Vec<u64> {
        let sharing = Sharing::default();
        sharing.switch(true);
        let run = || {
            for (flow, instruction, address, length, stores) in touches {
                let stack = STACK + flow * 0x1000..STACK + (flow + 1) * 0x1000;
                sharing.note(&Runner { flow: *flow, stack }, Some(*instruction), *address, *length, *stores);
            }
        };
        run();
        if sharing.must_learn_again() {
            assert_eq!(sharing.learned(), []);
            sharing.take_back(&Rc::default());
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
    fn an_access_across_words_meets_what_it_covers_of_each() {
        assert_eq!(learned(&[(1, 10, 0x106, 4, true), (2, 20, 0x109, 1, true)]), [10, 20]);
        assert_eq!(learned(&[(1, 10, 0x106, 4, true), (2, 20, 0x10A, 1, true)]), []);
        assert_eq!(learned(&[(1, 10, 0x100, 64, true), (2, 20, 0x13F, 1, false)]), [10, 20]);
    }

    #[test]
    fn the_bytes_of_a_word_in_a_range() {
        for address in 0..24_u64 {
            for length in 1..24 {
                for (word, bytes) in words(address, length) {
                    let inside = |byte: &u64| (address..address + length).contains(&(word * WORD + byte));
                    let each = (0..WORD).filter(inside).fold(0, |mask, byte| mask | 1 << byte);
                    assert_eq!(bytes, each, "{length} bytes at {address}, word {word}");
                }
            }
        }
    }

    #[test]
    fn words_are_found_however_many_there_are() {
        let mut since = Since::default();
        for round in 1..=2 {
            for word in 0..5000 {
                let (list, is_new) = since.list(word * 0x200);
                assert!(is_new, "{word}");
                let touch = |flow| Touch { flow, instruction: None, stores: true, bytes: 1 };
                [word, round].into_iter().for_each(|flow| since.add(list, touch(flow)));
            }
            assert_eq!(since.words().count(), 5000);
            for word in 0..5000 {
                let list = since.find_list(word * 0x200).unwrap();
                let flows: Vec<u64> = since.touches(list).map(|touch| touch.flow).collect();
                assert_eq!(flows, [round, word]);
                assert!(since.find_list(word * 0x200 + 1).is_err());
            }
            since.clear();
        }
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
        sharing.take_back(&Rc::default());
        assert_eq!(sharing.learned(), [10, 20], "it stays learned");
    }
}
