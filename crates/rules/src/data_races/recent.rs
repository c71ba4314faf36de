//! Accesses that were made again and again: one that a flow has made before in the same way, without anything between that orders flows and without
//! another flow's turn, changes nothing, and is not looked at.
//!
//! Of plain loads and stores it is known which bytes they were of, whichever instructions made them; of others, which instruction made them.

use engine::{AccessKind, MemoryAccess};

use super::clock::Slot;

/// So many others are known, each in the place that its address and its instruction give.
const KNOWN: usize = 256;
/// Of so many lines the bytes are known, each in the place that its number gives; and the bytes of a line.
const LINES: usize = 256;
const LINE: u64 = 64;

/// Bytes of a line that were loaded and stored, a bit for each. They count at this age alone.
#[derive(Clone, Copy, Default)]
struct Line {
    line: u64,
    age: u64,
    loaded: u64,
    stored: u64,
}

/// Those that were made last.
#[derive(Clone)]
pub(super) struct Recent {
    lines: Vec<Line>,
    /// Address, instruction, and age.
    others: Vec<(u64, u64, u64)>,
    age: u64,
    /// Whose turn it is, and its time.
    turn: (Slot, u32),
}

impl Default for Recent {
    fn default() -> Self {
        Self { lines: vec![Line::default(); LINES], others: vec![(0, 0, 0); KNOWN], age: 1, turn: (0, 0) }
    }
}

impl Recent {
    /// Whether this flow, at this time, has made this access before. From now on it has.
    #[inline]
    pub(super) fn has(&mut self, turn: (Slot, u32), access: &MemoryAccess) -> bool {
        if self.turn != turn {
            self.turn = turn;
            self.forget();
        }
        let MemoryAccess { address, bytes, kind, .. } = *access;
        let at = address % LINE;
        if bytes > LINE - at {
            return self.has_other(access);
        }
        let place = usize::try_from(address / LINE % LINES as u64).expect("they are few");
        let line = &mut self.lines[place];
        if (line.line, line.age) != (address / LINE, self.age) {
            *line = Line { line: address / LINE, age: self.age, loaded: 0, stored: 0 };
        }
        let bits = u64::MAX >> (LINE - bytes) << at;
        match kind {
            AccessKind::Store => {
                let before = line.stored;
                line.stored |= bits;
                before & bits == bits
            }
            AccessKind::Load if access.stored_back.is_none() => {
                let before = line.loaded;
                line.loaded |= bits;
                let is_known = before & bits == bits;
                // A store behind a load is another one than the same store before that.
                line.stored &= if is_known { u64::MAX } else { !bits };
                is_known
            }
            AccessKind::Load | AccessKind::Update => {
                let is_known = self.has_other(access);
                self.lines[place].stored &= if is_known { u64::MAX } else { !bits };
                is_known
            }
        }
    }

    fn has_other(&mut self, access: &MemoryAccess) -> bool {
        let made = (access.address, access.rip, self.age);
        let mixed = (access.address >> 1 ^ access.rip << 3) % KNOWN as u64;
        let place = usize::try_from(mixed).expect("they are few");
        access.bytes <= 16 && std::mem::replace(&mut self.others[place], made) == made
    }

    pub(super) fn forget(&mut self) {
        self.age += 1;
    }
}
