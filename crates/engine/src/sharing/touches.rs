//! Who touched what in a run so far: found by hashing, and taken back to where a mark was made in about the time that it took to note what came
//! behind it.

use std::num::NonZero;
use std::ops::Range;

/// Bytes that are noted together: as many as a word has bits.
const LINE: u64 = 64;

/// What one instruction does in one flow of control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Touch {
    pub(super) flow: u64,
    /// None if the guest is asked before it anyway, or cannot be.
    pub(super) instruction: Option<NonZero<u64>>,
    pub(super) stores: bool,
}

impl Touch {
    /// Of what it does to a line.
    fn hash(&self, line: u64) -> u64 {
        let instruction = self.instruction.map_or(0, NonZero::get);
        hash(line ^ hash(self.flow ^ hash(instruction << 1 | u64::from(self.stores))))
    }
}

/// Touches, by line and by what they do there. What came last can be taken away: each list is in the order in which things came.
///
/// A line has its visits, one for each flow that came there, and these their touches: most lines are touched by many instructions of few flows, so that whether
/// anything meets is seen by the visits.
#[derive(Default)]
pub(super) struct Touches {
    lines: Vec<Line>,
    by_number: Index,
    visits: Vec<Visit>,
    touched: Vec<Touched>,
    by_touch: Index,
    /// What `visits` and `touched` had that were there at the last mark, before it was changed.
    visits_before: Vec<(usize, Bytes)>,
    touched_before: Vec<(usize, u64)>,
    /// So many of them were there at the last mark.
    marked: Mark,
    /// How often all was forgotten: marks from before mean that nothing is known.
    age: u64,
    recent: Recent,
}

/// All that is known at one time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mark {
    age: u64,
    lines: usize,
    visits: usize,
    touched: usize,
    visits_before: usize,
    touched_before: usize,
}

struct Line {
    number: u64,
    /// Its newest visit.
    first: Place,
}

/// What one flow of control did to a line.
struct Visit {
    line: Place,
    flow: u64,
    bytes: Bytes,
    /// Its newest touch.
    first: Place,
    /// The next of the line.
    next: Place,
}

/// Which bytes of a line were touched, a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Bytes {
    loaded: u64,
    stored: u64,
    /// By instructions that can be learned. Some of those that were may count still.
    loaded_anew: u64,
    stored_anew: u64,
}

/// What one instruction did to it.
struct Touched {
    line: u64,
    visit: Place,
    touch: Touch,
    bytes: u64,
    /// The next of the visit.
    next: Place,
    /// Its instruction was learned.
    learned: bool,
}

impl Bytes {
    /// Which of these, loaded or stored, meet what is stored, or loaded.
    fn met(&self, stores: bool) -> u64 {
        if stores { self.loaded | self.stored } else { self.stored }
    }

    fn met_anew(&self, stores: bool) -> u64 {
        if stores { self.loaded_anew | self.stored_anew } else { self.stored_anew }
    }

    fn add(&mut self, touch: &Touch, bytes: u64) {
        let [all, anew] = if touch.stores {
            [&mut self.stored, &mut self.stored_anew]
        } else {
            [&mut self.loaded, &mut self.loaded_anew]
        };
        *all |= bytes;
        *anew |= if touch.instruction.is_some() { bytes } else { 0 };
    }

    fn without(self, bytes: u64) -> Self {
        Self {
            loaded: self.loaded & !bytes,
            stored: self.stored & !bytes,
            loaded_anew: self.loaded_anew & !bytes,
            stored_anew: self.stored_anew & !bytes,
        }
    }
}

impl Touches {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.undo(Mark::default());
        self.age += 1;
    }

    /// Remembers what is known.
    pub(super) fn mark(&mut self) -> Mark {
        self.marked = Mark {
            age: self.age,
            lines: self.lines.len(),
            visits: self.visits.len(),
            touched: self.touched.len(),
            visits_before: self.visits_before.len(),
            touched_before: self.touched_before.len(),
        };
        self.marked
    }

    /// Knows again what was known at `mark`. Marks that are younger than it mean nothing any more.
    pub(super) fn take_back(&mut self, mark: Mark) {
        if mark.age == self.age {
            self.undo(mark);
        } else {
            self.clear();
        }
    }

    fn undo(&mut self, to: Mark) {
        self.recent = Recent::default();
        for (place, bytes) in self.touched_before.drain(to.touched_before..).rev() {
            self.touched[place].bytes = bytes;
        }
        for (place, bytes) in self.visits_before.drain(to.visits_before..).rev() {
            self.visits[place].bytes = bytes;
        }
        while self.touched.len() > to.touched {
            let Touched { line, visit, touch, next, .. } = self.touched.pop().expect("there are more");
            self.visits[visit.expect()].first = next;
            self.by_touch.remove(touch.hash(line), self.touched.len());
        }
        for Visit { line, next, .. } in self.visits.drain(to.visits..).rev() {
            self.lines[line.expect()].first = next;
        }
        while self.lines.len() > to.lines {
            let Line { number, .. } = self.lines.pop().expect("there are more");
            self.by_number.remove(hash(number), self.lines.len());
        }
        self.marked = to;
    }

    /// These bytes are touched; `learn` gets the instructions that meet others there, some of them more than once.
    pub(super) fn note(
        &mut self,
        address: u64,
        length: u64,
        touch: Touch,
        mut learn: impl FnMut(NonZero<u64>),
    ) {
        for line in lines(address, length) {
            self.note_in(line, touch, mask(line, address, length), &mut learn);
        }
    }

    fn note_in(&mut self, number: u64, touch: Touch, bytes: u64, learn: &mut impl FnMut(NonZero<u64>)) {
        if touch.instruction.is_none() && !self.recent.add(number, &touch, bytes) {
            return;
        }
        let hash = touch.hash(number);
        let is_it = |place: usize| self.touched[place].line == number && self.touched[place].touch == touch;
        let place = match self.by_touch.find(hash, is_it) {
            Some(place) if self.touched[place].bytes & bytes == bytes => return,
            Some(place) => place,
            None => self.add(number, touch, hash),
        };
        self.change_touched(place, |known| known | bytes);
        let visit = self.touched[place].visit.expect();
        self.change_visit(visit, |known| known.add(&touch, bytes));
        let mut met = false;
        let mut next = self.lines[self.visits[visit].line.expect()].first;
        while let Some(place) = next.get() {
            let other = &self.visits[place];
            next = other.next;
            if other.flow != touch.flow && other.bytes.met(touch.stores) & bytes != 0 {
                met = true;
                if other.bytes.met_anew(touch.stores) & bytes != 0 {
                    self.learn_of(place, touch.stores, bytes, learn);
                }
            }
        }
        if met {
            touch.instruction.into_iter().for_each(learn);
        }
    }

    /// All that a visit did to these bytes is learned, or what it stored there.
    fn learn_of(&mut self, visit: usize, all: bool, bytes: u64, learn: &mut impl FnMut(NonZero<u64>)) {
        let Visit { bytes: known, first, .. } = &mut self.visits[visit];
        let mut left = Bytes { loaded_anew: 0, stored_anew: 0, ..*known };
        let mut next = *first;
        while let Some(place) = next.get() {
            let Touched { touch, bytes: touched, next: later, learned, .. } = &mut self.touched[place];
            next = *later;
            if (all || touch.stores) && *touched & bytes != 0 && !std::mem::replace(learned, true) {
                touch.instruction.into_iter().for_each(&mut *learn);
            } else if !*learned {
                left.add(touch, *touched);
            }
        }
        *known = left;
    }

    /// A touch that is new, of no bytes so far.
    fn add(&mut self, number: u64, touch: Touch, hash: u64) -> usize {
        let visit = self.visit(number, touch.flow);
        let place = self.touched.len();
        let hash_of = |place: usize| self.touched[place].touch.hash(self.touched[place].line);
        self.by_touch.add(hash, place, hash_of);
        let next = std::mem::replace(&mut self.visits[visit].first, Place::of(place));
        self.touched.push(Touched {
            line: number,
            visit: Place::of(visit),
            touch,
            bytes: 0,
            next,
            learned: false,
        });
        place
    }

    /// The visit of a flow to a line.
    fn visit(&mut self, number: u64, flow: u64) -> usize {
        let line = self.find_line(number).unwrap_or_else(|| {
            let hash_of = |place: usize| hash(self.lines[place].number);
            self.by_number.add(hash(number), self.lines.len(), hash_of);
            self.lines.push(Line { number, first: Place::NONE });
            self.lines.len() - 1
        });
        let mut next = self.lines[line].first;
        while let Some(place) = next.get() {
            let known = &self.visits[place];
            if known.flow == flow {
                return place;
            }
            next = known.next;
        }
        let place = self.visits.len();
        let next = std::mem::replace(&mut self.lines[line].first, Place::of(place));
        let line = Place::of(line);
        self.visits.push(Visit { line, flow, bytes: Bytes::default(), first: Place::NONE, next });
        place
    }

    fn find_line(&self, number: u64) -> Option<usize> {
        self.by_number.find(hash(number), |place| self.lines[place].number == number)
    }

    /// What was at these bytes is gone, with all who touched it.
    pub(super) fn forget(&mut self, address: u64, length: u64) {
        let range = lines(address, length);
        self.recent.forget(&range);
        let count = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if count <= self.lines.len() {
            for number in range {
                if let Some(line) = self.find_line(number) {
                    self.forget_in(line, mask(number, address, length));
                }
            }
            return;
        }
        for line in 0..self.lines.len() {
            let number = self.lines[line].number;
            if range.contains(&number) {
                self.forget_in(line, mask(number, address, length));
            }
        }
    }

    fn forget_in(&mut self, line: usize, bytes: u64) {
        let mut visits = self.lines[line].first;
        while let Some(visit) = visits.get() {
            let Visit { first, next, .. } = self.visits[visit];
            visits = next;
            self.change_visit(visit, |known| *known = known.without(bytes));
            let mut touches = first;
            while let Some(place) = touches.get() {
                touches = self.touched[place].next;
                self.change_touched(place, |known| known & !bytes);
            }
        }
    }

    fn change_touched(&mut self, place: usize, change: impl Fn(u64) -> u64) {
        let known = &mut self.touched[place].bytes;
        let before = std::mem::replace(known, change(*known));
        if place < self.marked.touched && before != *known {
            self.touched_before.push((place, before));
        }
    }

    fn change_visit(&mut self, place: usize, change: impl Fn(&mut Bytes)) {
        let known = &mut self.visits[place].bytes;
        let before = *known;
        change(known);
        if place < self.marked.visits && before != *known {
            self.visits_before.push((place, before));
        }
    }
}

/// What was touched last without an instruction that can be learned, by a few lines: the kernel comes to the same fields of an IRP time and again. All of it is
/// among the touches, too.
struct Recent([RecentLine; Recent::LINES]);

/// What one flow did last to a line, a bit for each byte.
#[derive(Clone, Copy, Default)]
struct RecentLine {
    number: u64,
    flow: u64,
    loaded: u64,
    stored: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self([RecentLine::default(); Self::LINES])
    }
}

impl Recent {
    const LINES: usize = 64;

    fn slot(&mut self, number: u64) -> &mut RecentLine {
        &mut self.0[usize::try_from(number % Self::LINES as u64).expect("a small number")]
    }

    /// Whether it is not known here that these bytes were touched so. From now on it is.
    fn add(&mut self, number: u64, touch: &Touch, bytes: u64) -> bool {
        let slot = self.slot(number);
        if (slot.number, slot.flow) != (number, touch.flow) {
            *slot = RecentLine { number, flow: touch.flow, ..RecentLine::default() };
        }
        let known = if touch.stores { &mut slot.stored } else { &mut slot.loaded };
        let is_new = *known & bytes != bytes;
        *known |= bytes;
        is_new
    }

    /// It is not known what was touched in these lines.
    fn forget(&mut self, range: &Range<u64>) {
        if range.end - range.start > Self::LINES as u64 {
            *self = Self::default();
            return;
        }
        for number in range.clone() {
            let slot = self.slot(number);
            if slot.number == number {
                *slot = RecentLine::default();
            }
        }
    }
}

/// Where something stands in a list, or that it stands nowhere: 0, else its place and 1.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Place(u32);

impl Place {
    const NONE: Self = Self(0);

    fn of(place: usize) -> Self {
        Self(u32::try_from(place + 1).expect("fewer than 2^32 touches"))
    }

    fn get(self) -> Option<usize> {
        self.0.checked_sub(1).map(|place| place as usize)
    }

    fn expect(self) -> usize {
        self.get().expect("it stands there")
    }
}

/// Where things of a list stand, by hashes of them. Those that came last go first.
#[derive(Default)]
pub(super) struct Index {
    /// A power of two, of which at most half are in use; or none.
    slots: Vec<Slot>,
}

/// A place, and half of its hash: the list is looked at for few others.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Slot {
    place: Place,
    half: u32,
}

/// What a slot has of a hash; the rest says which slot it is.
#[allow(clippy::cast_possible_truncation, reason = "half of it")]
fn half(hash: u64) -> u32 {
    hash as u32
}

impl Index {
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let half = half(hash);
        let is_it = |slot: Slot| slot.place.get().is_none_or(|place| slot.half == half && is_it(place));
        self.slots.get(self.slot(hash, is_it))?.place.get()
    }

    /// What stands at `place` behind all that are in it; `hash_of` are the hashes of those.
    pub(super) fn add(&mut self, hash: u64, place: usize, hash_of: impl Fn(usize) -> u64) {
        if 2 * place >= self.slots.len() {
            self.slots = vec![Slot::default(); (2 * self.slots.len()).max(1 << 10)];
            (0..place).for_each(|earlier| self.put(hash_of(earlier), earlier));
        }
        self.put(hash, place);
    }

    fn put(&mut self, hash: u64, place: usize) {
        let slot = self.slot(hash, |taken| taken.place == Place::NONE);
        self.slots[slot] = Slot { place: Place::of(place), half: half(hash) };
    }

    /// The one that came last.
    pub(super) fn remove(&mut self, hash: u64, place: usize) {
        let slot = self.slot(hash, |taken| taken.place == Place::of(place));
        self.slots[slot] = Slot::default();
    }

    /// The first slot for this hash of which this is so.
    fn slot(&self, hash: u64, is_it: impl Fn(Slot) -> bool) -> usize {
        let last = self.slots.len().wrapping_sub(1);
        let mut slot = usize::try_from(hash >> 32).expect("32 bits") & last;
        while self.slots.get(slot).is_some_and(|taken| !is_it(*taken)) {
            slot = (slot + 1) & last;
        }
        slot
    }
}

pub(super) fn hash(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The lines that a range has bytes of.
fn lines(address: u64, length: u64) -> Range<u64> {
    address / LINE..address.saturating_add(length).div_ceil(LINE)
}

/// Which bytes of a line lie in a range that has some of it.
fn mask(line: u64, address: u64, length: u64) -> u64 {
    let begin = line * LINE;
    let first = address.saturating_sub(begin);
    let end = address.saturating_add(length).saturating_sub(begin).min(LINE);
    u64::MAX << first & u64::MAX >> (LINE - end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn touch(flow: u64, instruction: u64) -> Touch {
        Touch { flow, instruction: NonZero::new(instruction), stores: true }
    }

    /// Who touched this byte: flows, by name, as visits have it and as touches do.
    fn flows(touches: &Touches, address: u64) -> Vec<u64> {
        let bit = mask(address / LINE, address, 1);
        let line = touches.find_line(address / LINE).map(|line| touches.lines[line].first);
        let visits = std::iter::successors(line.and_then(Place::get), |at| touches.visits[*at].next.get());
        let mut flows = Vec::new();
        for Visit { flow, bytes, first, .. } in visits.map(|visit| &touches.visits[visit]) {
            let mut all = std::iter::successors(first.get(), |at| touches.touched[*at].next.get());
            let is_touched = all.any(|place| touches.touched[place].bytes & bit != 0);
            assert_eq!(bytes.met(true) & bit != 0, is_touched);
            flows.extend(Some(*flow).filter(|_| is_touched));
        }
        flows.sort_unstable();
        flows
    }

    #[test]
    fn the_bytes_of_a_line_in_a_range() {
        for address in 0..200_u64 {
            for length in 1..150 {
                for line in lines(address, length) {
                    let inside = |byte: &u64| (address..address + length).contains(&(line * LINE + byte));
                    let each = (0..LINE).filter(inside).fold(0, |mask, byte| mask | 1 << byte);
                    assert_eq!(mask(line, address, length), each, "{length} bytes at {address}, line {line}");
                }
            }
        }
    }

    #[test]
    fn lines_are_found_however_many_there_are() {
        let mut touches = Touches::default();
        for round in 1..=2 {
            for line in 0..5000 {
                let address = line * 0x2000;
                assert!(flows(&touches, address).is_empty(), "{line}");
                for flow in [line + 10, round] {
                    touches.note(address, 1, touch(flow, 0), |_| {});
                }
            }
            assert_eq!(touches.lines.len(), 5000);
            for line in 0..5000 {
                assert_eq!(flows(&touches, line * 0x2000), [round, line + 10]);
                assert!(flows(&touches, line * 0x2000 + LINE).is_empty());
            }
            touches.clear();
        }
    }

    /// Numbers that look random, below what is asked for.
    fn random() -> impl FnMut(u64) -> u64 {
        let mut seed = 1_u64;
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        }
    }

    /// Against touches byte by byte, each compared with all: the same instructions meet, whatever is forgotten and taken back between.
    #[test]
    fn what_is_learned_is_what_meets() {
        type Known = Vec<(u64, Touch)>;
        let mut random = random();
        for _ in 0..300 {
            let (mut table, mut known) = (Touches::default(), Known::new());
            let (mut learned, mut expected) = (BTreeSet::new(), BTreeSet::new());
            let mut marks = vec![(table.mark(), known.clone())];
            for _ in 0..60 {
                let (address, length) = (random(150), 1 + random(16));
                let range = address..address + length;
                match random(10) {
                    0 => {
                        table.forget(address, length);
                        known.retain(|(byte, _)| !range.contains(byte));
                    }
                    1 => marks.push((table.mark(), known.clone())),
                    2 => {
                        marks.truncate(1 + usize::try_from(random(marks.len() as u64)).unwrap());
                        let (mark, then) = marks.last().unwrap();
                        table.take_back(*mark);
                        known.clone_from(then);
                    }
                    _ => {
                        let stores = random(3) == 0;
                        // Often one that cannot be learned.
                        let touch = Touch { stores, ..touch(random(3), random(12).saturating_sub(4)) };
                        for byte in range {
                            let meets =
                                |other: &Touch| other.flow != touch.flow && (other.stores || touch.stores);
                            let met = known.iter().filter(|(at, other)| *at == byte && meets(other));
                            let both = met.flat_map(|(_, other)| [other.instruction, touch.instruction]);
                            expected.extend(both.flatten());
                            known.push((byte, touch));
                        }
                        table.note(address, length, touch, |instruction| learned.extend([instruction]));
                        assert_eq!(learned, expected);
                    }
                }
            }
        }
    }

    /// Of what comes again and again the second time is not written down, unless the first was forgotten.
    #[test]
    fn what_was_forgotten_counts_when_it_comes_again() {
        for (address, length) in [(0x100, 8), (0x104, 1), (0xF0, 0x40), (0, 0x10_0000)] {
            let mut touches = Touches::default();
            let mut learned = Vec::new();
            for _ in 0..2 {
                touches.note(0x100, 8, touch(1, 0), |_| ());
            }
            touches.forget(address, length);
            touches.note(0x104, 1, touch(2, 20), |instruction| learned.push(instruction.get()));
            assert_eq!(learned, [], "it is gone: {address:#x}, {length:#x}");
            touches.note(0x100, 8, touch(1, 0), |instruction| learned.push(instruction.get()));
            assert_eq!(learned, [20], "{address:#x}, {length:#x}");
        }
    }

    /// What a table says after random changes and steps back is what one says that only ever had what counts.
    #[test]
    fn what_is_taken_back_was_never_there() {
        const SPAN: u64 = 100_000;
        let mut random = random();
        type Change = (u64, u64, Option<u64>);
        let carry_out = |touches: &mut Touches, (address, length, flow): Change| match flow {
            Some(flow) => touches.note(address, length, touch(flow, 0), |_| {}),
            None => touches.forget(address, length),
        };
        let assert_same = |table: &Touches, changes: &[Change]| {
            let mut other = Touches::default();
            changes.iter().for_each(|change| carry_out(&mut other, *change));
            for address in (0..SPAN + 300).step_by(10) {
                assert_eq!(flows(table, address), flows(&other, address), "{address:#x}");
            }
        };
        let (mut table, mut changes) = (Touches::default(), Vec::<Change>::new());
        let mut marks = vec![(table.mark(), 0)];
        for _ in 0..100 {
            for _ in 0..random(200) {
                let flow = Some(random(5)).filter(|flow| *flow != 0);
                let change = (random(SPAN), 1 + random(300), flow);
                carry_out(&mut table, change);
                changes.push(change);
            }
            if random(3) != 0 {
                marks.push((table.mark(), changes.len()));
            } else {
                let to = usize::try_from(random(marks.len() as u64)).unwrap();
                marks.truncate(to + 1);
                let (mark, count) = marks[to];
                table.take_back(mark);
                changes.truncate(count);
                assert_same(&table, &changes);
            }
        }
        assert!(table.by_number.slots.len() > 1 << 10, "it has grown meanwhile");
    }

    #[test]
    fn a_mark_from_before_all_was_forgotten_means_that_nothing_is_known() {
        let mut touches = Touches::default();
        touches.note(0x100, 8, touch(1, 0), |_| {});
        let mark = touches.mark();
        touches.clear();
        touches.note(0x100, 8, touch(2, 0), |_| {});
        touches.take_back(mark);
        assert!(flows(&touches, 0x100).is_empty());
    }
}
