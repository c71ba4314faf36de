//! Who has accessed which bytes, and what of that is not ordered with an access that is made now.
//!
//! Kept for each eight bytes: of each flow its last load and its last store of the same bytes, until a later access of another flow stands for it,
//! which comes behind it in any case.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::clock::{Clock, Slot};

/// Bytes of a cell.
const CELL: u64 = 8;
/// Cells that are kept together.
const CELLS: usize = 64;
const LINE: u64 = CELL * CELLS as u64;
/// So many lines are found without a search.
const LAST: usize = 16;

/// How an access uses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    Load,
    Store,
    /// One instruction loads and stores, and another processor may come between.
    Update,
    /// None may.
    Atomic,
}

impl Use {
    pub(super) const fn stores(self) -> bool {
        !matches!(self, Self::Load)
    }
}

/// An access.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) how: Use,
    /// A store where its flow has loaded before, and has synchronised with no other since; or of a pointer beside one that was so stored: the
    /// other end of a list.
    pub(super) after_load: bool,
    /// Of a load: the instruction that stores in the same place what follows from it.
    pub(super) stored_back: Option<u64>,
    /// Of a store: it follows from what was loaded there.
    pub(super) derived: bool,
    /// An interlocked one whose value follows from what is there.
    pub(super) adds: bool,
    pub(super) slot: Slot,
    /// The flow's own.
    pub(super) time: u32,
    /// The instruction.
    pub(super) code: u64,
    /// A routine that the driver has called did it.
    pub(super) kernel: bool,
    pub(super) routine: usize,
    pub(super) irql: u8,
    /// The number of the event.
    pub(super) event: u64,
    /// What its flow knew, of a plain store.
    pub(super) known: Option<Rc<Clock>>,
}

impl Access {
    /// It is a word that memory holds as one.
    pub(super) fn is_word(&self) -> bool {
        matches!(self.bytes, 1 | 2 | 4 | 8) && self.address.is_multiple_of(self.bytes)
    }

    /// It is the load of an update that a store is to end.
    pub(super) fn is_half(&self) -> bool {
        self.stored_back.is_some()
    }

    /// It loads what is there, and stores what follows from it.
    pub(super) fn modifies(&self) -> bool {
        self.how == Use::Update || self.derived
    }

    /// A store of a word by which one flow may tell another one something. Pointers that were looked at before are those of lists, too.
    fn is_flag(&self) -> bool {
        let looked_at = self.after_load && self.bytes == CELL;
        self.how == Use::Store && !self.derived && !looked_at && self.is_word()
    }

    /// The bytes that both touch.
    pub(super) fn shared(&self, other: &Self) -> u64 {
        let end = |access: &Self| access.address.saturating_add(access.bytes);
        end(self).min(end(other)).saturating_sub(self.address.max(other.address))
    }
}

#[derive(Clone, Debug)]
struct Record {
    /// A bit for each byte of the cell.
    mask: u8,
    /// As in the access: here, because they are looked at each time.
    how: Use,
    after_load: bool,
    slot: Slot,
    time: u32,
    access: Rc<Access>,
}

impl Record {
    /// Whether this access is one more of the same, to bytes beside those of the first.
    fn continues(&self, access: &Access) -> bool {
        let is_same = |known: &Access| {
            known.code == access.code
                && known.derived == access.derived
                && known.stored_back == access.stored_back
        };
        (self.slot, self.time, self.how) == (access.slot, access.time, access.how)
            && self.after_load == access.after_load
            && is_same(&self.access)
    }
}

#[derive(Clone, Default)]
struct Cell {
    records: Vec<Record>,
    /// It was accessed by an interlocked instruction: what is known to those that access it so.
    word: Option<Rc<Clock>>,
}

type Line = [Cell; CELLS];

/// What one access has come upon.
pub(super) struct Met {
    /// The access, with what its flow did before.
    pub(super) access: Rc<Access>,
    pub(super) found: Found,
}

/// The same, of the cells that were looked at.
#[derive(Default)]
pub(super) struct Found {
    /// Accesses that it is not ordered with, one of the two storing.
    pub(super) races: Vec<Rc<Access>>,
    /// What its flow knows from now on.
    pub(super) learned: Vec<Rc<Clock>>,
    /// It is a store to a word that is accessed by interlocked instructions, or such an instruction: those that do the same learn of it.
    pub(super) publishes: bool,
}

/// All memory.
#[derive(Clone, Default)]
pub(super) struct Memory {
    /// Where lines are, by their numbers.
    places: BTreeMap<u64, usize>,
    lines: Vec<Rc<Line>>,
    /// Of the lines that were looked for last, one of each remainder, and where it is.
    last: [Option<(u64, usize)>; LAST],
}

/// The cells of a stretch, and a bit for each byte in them.
fn parts(address: u64, bytes: u64) -> impl Iterator<Item = (u64, u8)> {
    let end = address.saturating_add(bytes);
    (address / CELL..end.div_ceil(CELL)).map(move |cell| {
        let from = address.max(cell * CELL) - cell * CELL;
        let to = end.min((cell + 1) * CELL) - cell * CELL;
        (cell, u8::MAX << from & u8::MAX >> (CELL - to))
    })
}

impl Memory {
    /// Whether the flow has made such an access to these bytes at this time, and no other flow has been there since: it changes nothing then.
    #[inline]
    pub(super) fn repeats(
        &mut self,
        (address, bytes): (u64, u64),
        how: Use,
        (slot, time): (Slot, u32),
    ) -> bool {
        let cell = address / CELL;
        if bytes > CELL - address % CELL {
            return false;
        }
        let Some(place) = self.find(cell * CELL / LINE) else { return false };
        let Cell { records, word } = &self.lines[place][index(cell)];
        let mask = u8::MAX >> (CELL - bytes) << (address % CELL);
        // A store of a pointer behind a load of it is another one than the same store before that.
        let loads_it = |record: &Record| record.how == Use::Load && record.mask & mask != 0;
        let is_behind_load = how == Use::Store && bytes == CELL && records.iter().any(loads_it);
        let is_same = |record: &Record| {
            record.time == time
                && record.how == how
                && (record.after_load || !is_behind_load)
                && record.mask & mask == mask
        };
        word.is_none()
            && records.iter().all(|record| record.slot == slot || record.mask & mask == 0)
            && records.iter().any(is_same)
    }

    fn find(&mut self, line: u64) -> Option<usize> {
        let last = &mut self.last[usize::try_from(line % LAST as u64).expect("they are few")];
        match *last {
            Some((known, place)) if known == line => Some(place),
            _ => {
                let place = *self.places.get(&line)?;
                *last = Some((line, place));
                Some(place)
            }
        }
    }

    /// An access is made by a flow that knows this.
    pub(super) fn access(&mut self, mut access: Access, known: &Rc<Clock>) -> Met {
        let mut found = Found::default();
        access.after_load = self.is_beside_looked_at(&access);
        for (cell, mask) in parts(access.address, access.bytes) {
            self.cell(cell).meet(mask, &mut access, known, &mut found);
        }
        let access = Rc::new(access);
        for (cell, mask) in parts(access.address, access.bytes) {
            self.cell(cell).note(mask, &access, known);
        }
        Met { access, found }
    }

    /// Whether a pointer is stored beside one that the flow has looked at and stored just before: as where the last entry of a list is taken, and
    /// both ends of the list are its head again.
    fn is_beside_looked_at(&mut self, access: &Access) -> bool {
        let is_pointer = access.how == Use::Store && access.bytes == CELL && access.is_word();
        let cell = access.address / CELL;
        is_pointer && [cell - 1, cell + 1].into_iter().any(|beside| self.has_looked_at(beside, access))
    }

    /// Whether the flow of this access has looked at the pointer in the cell and stored another one, and has synchronised with no other since.
    fn has_looked_at(&mut self, cell: u64, access: &Access) -> bool {
        let Some(place) = self.find(cell * CELL / LINE) else { return false };
        let is_such = |record: &Record| {
            let is_own = (record.slot, record.time) == (access.slot, access.time);
            is_own && record.how == Use::Store && record.after_load && record.mask == u8::MAX
        };
        self.lines[place][index(cell)].records.iter().any(is_such)
    }

    /// Those that access these words by interlocked instructions learn what this flow knows.
    pub(super) fn publish(&mut self, address: u64, bytes: u64, known: &Rc<Clock>) {
        for (cell, _) in parts(address, bytes) {
            let word = &mut self.cell(cell).word;
            match word {
                Some(word) => drop(Rc::make_mut(word).join(known)),
                None => *word = Some(Rc::clone(known)),
            }
        }
    }

    /// What was there is gone.
    pub(super) fn forget(&mut self, address: u64, bytes: u64) {
        let end = address.saturating_add(bytes);
        let known: Vec<(u64, usize)> = self
            .places
            .range(address / LINE..end.div_ceil(LINE))
            .map(|(line, place)| (*line, *place))
            .collect();
        for (line, place) in known {
            let from = address.max(line * LINE);
            let line = Rc::make_mut(&mut self.lines[place]);
            for (cell, mask) in parts(from, end.min(from / LINE * LINE + LINE) - from) {
                line[index(cell)].forget(mask);
            }
        }
    }

    /// What is known to those that have accessed words there by interlocked instructions.
    pub(super) fn words(&self, address: u64, bytes: u64) -> Vec<Rc<Clock>> {
        let word = |cell: u64| {
            let place = *self.places.get(&(cell * CELL / LINE))?;
            self.lines[place][index(cell)].word.clone()
        };
        parts(address, bytes).filter_map(|(cell, _)| word(cell)).collect()
    }

    fn cell(&mut self, cell: u64) -> &mut Cell {
        let line = cell * CELL / LINE;
        let place = self.find(line).unwrap_or_else(|| {
            let place = self.lines.len();
            self.lines.push(Rc::new(std::array::from_fn(|_| Cell::default())));
            self.places.insert(line, place);
            place
        });
        &mut Rc::make_mut(&mut self.lines[place])[index(cell)]
    }
}

fn index(cell: u64) -> usize {
    usize::try_from(cell % CELLS as u64).expect("a line is short")
}

impl Cell {
    /// Finds what an access to these bytes is not ordered with.
    fn meet(&mut self, mask: u8, access: &mut Access, known: &Rc<Clock>, met: &mut Found) {
        let Access { slot, time, how, .. } = *access;
        for record in self.records.iter().filter(|record| record.mask & mask != 0) {
            let earlier = &record.access;
            if record.slot == slot {
                let covers = record.mask & mask == mask && earlier.time == time;
                let loaded = earlier.how == Use::Load || earlier.after_load;
                access.after_load |= how == Use::Store && loaded && covers;
                access.derived |= how == Use::Store && earlier.stored_back == Some(access.code);
                continue;
            }
            let is_ordered = earlier.time <= known.time(earlier.slot);
            let conflicts = earlier.how.stores() || how.stores();
            let both_atomic = earlier.how == Use::Atomic && how == Use::Atomic;
            if is_ordered || !conflicts || both_atomic {
                continue;
            }
            // What is to be said of the load of an update is said of its store.
            let is_half = access.is_half() || earlier.is_half();
            if !is_half && !met.races.iter().any(|other| Rc::ptr_eq(other, earlier)) {
                met.races.push(Rc::clone(earlier));
            }
            // A word that one flow stores and another one reads hands over what was stored before it: x86 keeps stores and loads in order.
            let covers = record.mask & mask == mask;
            if how == Use::Load && !access.is_half() && access.is_word() && earlier.is_flag() && covers {
                met.learned.extend(earlier.known.clone());
            }
        }
        met.publishes |= how == Use::Atomic;
        if let Some(word) = &self.word {
            met.publishes |= access.is_flag();
            if matches!(how, Use::Load | Use::Atomic) {
                met.learned.push(Rc::clone(word));
            }
        }
    }

    /// It is made.
    fn note(&mut self, mask: u8, access: &Rc<Access>, known: &Rc<Clock>) {
        let Access { how, after_load, slot, time, .. } = **access;
        let mut is_continued = false;
        self.records.retain_mut(|record| {
            let is_before = record.slot == slot || record.time <= known.time(record.slot);
            // A load stays beside a store of the same time: where the two take turns, each repeats itself.
            let takes_turns = (record.slot, record.time) == (slot, time) && record.how != how;
            if record.continues(access) {
                record.mask |= mask;
                is_continued = true;
            } else if is_before && !takes_turns && (how.stores() || !record.how.stores()) {
                record.mask &= !mask;
            }
            record.mask != 0
        });
        if !is_continued {
            self.records.push(Record { mask, how, after_load, slot, time, access: Rc::clone(access) });
        }
    }

    fn forget(&mut self, mask: u8) {
        self.word = None;
        self.records.retain_mut(|record| {
            record.mask &= !mask;
            record.mask != 0
        });
    }
}
