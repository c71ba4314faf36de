//! The history of a run: which operations of its flows of control came before which, as one number.
//!
//! Each flow has a hash of all that it has done. An operation is mixed into its flow's hash together with the hashes of what it conflicts with: a load
//! with the last store to the same memory, a store with that and with all loads since, and what the kernel does with what it did last. So two runs
//! have the same hashes exactly if they have done the same operations in an order that differs only between operations that do not conflict, but for
//! hashes that are equal by chance. All flows together are a sum, in which their order does not matter.
//!
//! Memory is known by pieces of eight bytes: neighbours in one piece conflict, which only makes histories differ that could be equal. What a flow
//! does on its own stack is its own business until another flow has been there. Both must not depend on whether own stacks are noted
//! ([`super`]): a run in which that matters is made again.
//!
//! All of it is put back with the machine. Time is not known here: who acts by it gives it with the operation.

use super::touches::{Index, hash};

/// Bytes that conflict.
const PIECE: u64 = 8;
/// Pieces that are found together.
const PIECES: u64 = 8;
/// The flow of what the kernel does on its own account, which is the first.
const KERNEL: u64 = u64::MAX;

/// Two numbers as one, in this order.
#[must_use]
#[inline]
pub fn mixed(one: u64, other: u64) -> u64 {
    let odd = (one.rotate_left(23) ^ other).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let product =
        u128::from(odd ^ 0xD6E8_FEB8_6659_FD93) * u128::from(0xA076_1D64_78BD_642F ^ (odd << 1 | 1));
    let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
    u64::try_from(low ^ high).unwrap_or(0) ^ odd.rotate_left(31)
}

/// What was done to a piece of memory.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// The hash of its last store.
    stored: u64,
    /// The sum of those of all loads since.
    loaded: u64,
}

/// Pieces beside each other.
#[derive(Clone, Copy)]
struct Line {
    number: u64,
    /// Which of them a flow has touched that does not run on the stack where they lie: a bit for each.
    met: u8,
    pieces: [Piece; 8],
}

/// A flow of control.
#[derive(Clone, Copy)]
struct Flow {
    name: u64,
    hash: u64,
    /// What it did on its own stack and is not in its hash.
    unmixed: u64,
    /// The question that it stands behind: it was asked, and has not gone on since. 0 if none.
    stands: u64,
}

/// A list whose elements change, and which is put back to what it was at a mark.
struct Kept<T> {
    /// Each with the age in which it was last put aside or made.
    all: Vec<(T, u32)>,
    /// What elements were at the last mark, before they were changed.
    before: Vec<(usize, T)>,
    age: u32,
}

impl<T: Copy> Kept<T> {
    const fn new() -> Self {
        Self { all: Vec::new(), before: Vec::new(), age: 0 }
    }

    fn add(&mut self, element: T) -> usize {
        self.all.push((element, self.age));
        self.all.len() - 1
    }

    fn change(&mut self, at: usize) -> &mut T {
        let (element, age) = &mut self.all[at];
        if *age != self.age {
            self.before.push((at, *element));
            *age = self.age;
        }
        element
    }

    fn mark(&mut self) -> [usize; 2] {
        self.age += 1;
        [self.all.len(), self.before.len()]
    }

    /// Everything is as it was at the mark. What has come since is left, for the caller to take away.
    fn put_back(&mut self, [_, before]: [usize; 2]) {
        for (at, element) in self.before.drain(before..).rev() {
            self.all[at].0 = element;
        }
        self.age += 1;
    }
}

/// All that is known at one time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mark {
    lines: [usize; 2],
    flows: [usize; 2],
    /// How often all was forgotten before.
    times: u64,
}

/// The history of the run so far.
pub(super) struct History {
    lines: Kept<Line>,
    by_number: Index,
    flows: Kept<Flow>,
    times: u64,
}

impl Default for History {
    fn default() -> Self {
        let mut flows = Kept::new();
        flows.add(Flow { name: KERNEL, hash: 0, unmixed: 0, stands: 0 });
        Self { lines: Kept::new(), by_number: Index::default(), flows, times: 0 }
    }
}

/// Of an access, what falls into one line.
struct Part {
    line: u64,
    /// A bit for each piece.
    pieces: u8,
    what: u64,
}

fn parts(address: u64, length: u64, stores: bool) -> impl Iterator<Item = Part> {
    let end = address.saturating_add(length);
    let what = mixed(mixed(address, length), stores.into());
    let (first, last) = (address / PIECE, end.saturating_sub(1).max(address) / PIECE);
    (first / PIECES..=last / PIECES).map(move |line| {
        let from = first.max(line * PIECES) % PIECES;
        let to = last.min(line * PIECES + PIECES - 1) % PIECES;
        Part { line, pieces: u8::MAX << from & u8::MAX >> (PIECES - 1 - to), what }
    })
}

impl Line {
    fn of(&mut self, pieces: u8) -> impl Iterator<Item = &mut Piece> {
        self.pieces
            .iter_mut()
            .enumerate()
            .filter(move |(at, _)| pieces >> at & 1 != 0)
            .map(|(_, piece)| piece)
    }

    /// What an access to these pieces conflicts with.
    fn seen(&self, pieces: u8, stores: bool) -> u64 {
        let of = |piece: &Piece| if stores { mixed(piece.stored, piece.loaded) } else { piece.stored };
        let touched = self.pieces.iter().enumerate().filter(|(at, _)| pieces >> at & 1 != 0);
        touched.fold(0, |seen, (_, piece)| mixed(seen, of(piece)))
    }

    /// They were accessed by what has this hash.
    fn note(&mut self, pieces: u8, stores: bool, hash: u64) {
        for piece in self.of(pieces) {
            if stores {
                *piece = Piece { stored: hash, loaded: 0 };
            } else {
                piece.loaded = piece.loaded.wrapping_add(mixed(1, hash));
            }
        }
    }
}

impl History {
    /// Nothing has happened.
    pub(super) fn clear(&mut self) {
        *self = Self { times: self.times + 1, ..Self::default() };
    }

    pub(super) fn mark(&mut self) -> Mark {
        Mark { lines: self.lines.mark(), flows: self.flows.mark(), times: self.times }
    }

    pub(super) fn take_back(&mut self, mark: Mark) {
        if mark.times != self.times {
            return self.clear();
        }
        self.lines.put_back(mark.lines);
        while self.lines.all.len() > mark.lines[0] {
            let (Line { number, .. }, _) = self.lines.all.pop().expect("there are more");
            self.by_number.remove(hash(number), self.lines.all.len());
        }
        self.flows.put_back(mark.flows);
        self.flows.all.truncate(mark.flows[0]);
    }

    /// The history as one number.
    pub(super) fn sum(&self) -> u64 {
        // A flow that has done nothing but on its own stack may be known here, or not.
        let counts = |(flow, _): &&(Flow, u32)| flow.hash != 0 || flow.stands != 0;
        let number = |(flow, _): &(Flow, u32)| mixed(mixed(flow.name, flow.hash), flow.stands);
        self.flows.all.iter().filter(counts).map(number).fold(0, u64::wrapping_add)
    }

    /// A flow does what only its own hash tells: it goes on behind a question.
    pub(super) fn goes_on(&mut self, flow: u64, what: u64) {
        let flow = self.flow(flow);
        let flow = self.flows.change(flow);
        (flow.hash, flow.stands) = (mixed(flow.hash, what), 0);
    }

    /// A flow was asked something, and others go first.
    pub(super) fn stands(&mut self, flow: u64, at: u64) {
        let flow = self.flow(flow);
        self.flows.change(flow).stands = at;
    }

    /// A flow does something in the kernel, which conflicts with all else there.
    pub(super) fn operates(&mut self, flow: u64, what: u64) {
        let flow = self.flow(flow);
        let hash = mixed(mixed(self.flows.all[flow].0.hash, what), self.flows.all[0].0.hash);
        self.flows.change(0).hash = hash;
        let flow = self.flows.change(flow);
        (flow.hash, flow.stands) = (hash, 0);
    }

    /// A flow touches memory, which may lie on the stack that it runs on.
    pub(super) fn touches(&mut self, flow: u64, own: bool, address: u64, length: u64, stores: bool) {
        let flow = self.flow(flow);
        for Part { line, pieces, what } in parts(address, length, stores) {
            let line = self.line(line);
            let met = self.lines.all[line].0.met & pieces != 0;
            if own && !met {
                let flow = self.flows.change(flow);
                flow.unmixed += 1;
                let hash = mixed(flow.hash, flow.unmixed);
                self.lines.change(line).note(pieces, stores, hash);
                continue;
            }
            let seen = self.lines.all[line].0.seen(pieces, stores);
            let flow = self.flows.change(flow);
            flow.hash = mixed(mixed(flow.hash, what), seen);
            let line = self.lines.change(line);
            line.met |= pieces;
            line.note(pieces, stores, flow.hash);
        }
    }

    /// The kernel, or a device, touches memory on its own account, within what it does now.
    pub(super) fn kernel_touches(&mut self, address: u64, length: u64, stores: bool) {
        for Part { line, pieces, what } in parts(address, length, stores) {
            let known = self.find(line);
            let met = known.is_some_and(|line| self.lines.all[line].0.met & pieces != 0);
            if !met && !stores {
                continue;
            }
            let line = known.unwrap_or_else(|| self.line(line));
            if met {
                let seen = self.lines.all[line].0.seen(pieces, stores);
                let kernel = self.flows.change(0);
                kernel.hash = mixed(mixed(kernel.hash, what), seen);
            }
            let hash = mixed(self.flows.all[0].0.hash, what);
            self.lines.change(line).note(pieces, stores, hash);
        }
    }

    fn flow(&mut self, name: u64) -> usize {
        let known = self.flows.all.iter().position(|(flow, _)| flow.name == name);
        known.unwrap_or_else(|| self.flows.add(Flow { name, hash: 0, unmixed: 0, stands: 0 }))
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.by_number.find(hash(number), |at| self.lines.all[at].0.number == number)
    }

    fn line(&mut self, number: u64) -> usize {
        self.find(number).unwrap_or_else(|| {
            let hash_of = |at: usize| hash(self.lines.all[at].0.number);
            self.by_number.add(hash(number), self.lines.all.len(), hash_of);
            self.lines.add(Line { number, met: 0, pieces: [Piece::default(); 8] })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accesses of (flow, address, stores), in this order.
    fn history(accesses: &[(u64, u64, bool)]) -> u64 {
        let mut history = History::default();
        accesses
            .iter()
            .for_each(|(flow, address, stores)| history.touches(*flow, false, *address, 8, *stores));
        history.sum()
    }

    #[test]
    fn the_order_of_what_does_not_conflict_does_not_matter() {
        assert_eq!(
            history(&[(1, 0x10, true), (2, 0x18, true)]),
            history(&[(2, 0x18, true), (1, 0x10, true)])
        );
        assert_eq!(
            history(&[(1, 0x10, false), (2, 0x10, false)]),
            history(&[(2, 0x10, false), (1, 0x10, false)])
        );
    }

    #[test]
    fn the_order_of_what_conflicts_does_matter() {
        for (one, other) in [(true, false), (false, true), (true, true)] {
            let (first, second) = ((1, 0x10, one), (2, 0x10, other));
            assert_ne!(history(&[first, second]), history(&[second, first]), "{one} {other}");
        }
        let mut orders = [[1, 2, 3], [2, 1, 3], [3, 1, 2]].map(|order| {
            let mut history = History::default();
            order.iter().for_each(|flow| history.operates(*flow, 7));
            history.sum()
        });
        orders.sort_unstable();
        assert!(orders.is_sorted_by(|one, other| one < other), "the kernel's operations are in one order");
    }

    #[test]
    fn a_load_sees_which_store_was_the_last() {
        let stores = |last: bool| [(1, 0x10, true), (2, 0x10, true), (if last { 2 } else { 1 }, 0x10, true)];
        let with = |last| [&stores(last)[..], &[(3, 0x10, false)]].concat();
        assert_ne!(history(&with(true)), history(&with(false)));
    }

    #[test]
    fn an_access_to_several_pieces_and_lines_conflicts_with_each() {
        let order = |first: bool, address| {
            let mut history = History::default();
            let large = |history: &mut History| history.touches(1, false, 0x104, 0x100, true);
            if first {
                large(&mut history);
            }
            history.touches(2, false, address, 1, false);
            if !first {
                large(&mut history);
            }
            history.sum()
        };
        for (address, conflicts) in
            [(0xFF, false), (0x100, true), (0x104, true), (0x1C0, true), (0x203, true), (0x208, false)]
        {
            assert_eq!(order(true, address) != order(false, address), conflicts, "{address:#x}");
        }
    }

    #[test]
    fn what_the_kernel_touches_itself_conflicts_with_what_flows_do() {
        let order = |first: bool, stores| {
            let mut history = History::default();
            if first {
                history.kernel_touches(0x10, 8, true);
            }
            history.touches(1, false, 0x10, 8, stores);
            if !first {
                history.kernel_touches(0x10, 8, true);
            }
            history.touches(2, false, 0x10, 8, false);
            history.sum()
        };
        assert_ne!(order(true, false), order(false, false));
        assert_ne!(order(true, true), order(false, true));
    }

    #[test]
    fn a_stack_is_its_owners_own_business_until_another_has_been_there() {
        let mut quiet = History::default();
        quiet.goes_on(1, 5);
        let own = |history: &mut History| history.touches(1, true, 0x9000, 8, true);
        let mut noted = History::default();
        noted.goes_on(1, 5);
        own(&mut noted);
        assert_eq!(noted.sum(), quiet.sum());
        let order = |before: bool| {
            let mut history = History::default();
            own(&mut history);
            if before {
                own(&mut history);
            }
            history.touches(2, false, 0x9000, 8, false);
            if !before {
                own(&mut history);
            }
            history.sum()
        };
        assert_ne!(order(true), order(false));
    }

    #[test]
    fn what_is_taken_back_has_not_happened() {
        let act = |history: &mut History, from: u64| {
            for number in from..from + 50 {
                history.touches(number % 3, false, number * 24 % 512, 8, number % 2 == 0);
                history.operates(number % 4, number);
                history.kernel_touches(number * 40 % 512, 4, number % 5 == 0);
                history.stands(number % 3, number);
            }
        };
        let mut history = History::default();
        let start = history.mark();
        act(&mut history, 0);
        let (middle, half) = (history.mark(), history.sum());
        act(&mut history, 50);
        let whole = history.sum();
        for _ in 0..2 {
            history.take_back(middle);
            assert_eq!(history.sum(), half);
            act(&mut history, 50);
            assert_eq!(history.sum(), whole);
        }
        history.take_back(start);
        assert_eq!(history.sum(), History::default().sum());
        act(&mut history, 0);
        assert_eq!(history.sum(), half);
        history.clear();
        history.take_back(middle);
        assert_eq!(history.sum(), History::default().sum(), "a mark from before all was forgotten");
    }
}
