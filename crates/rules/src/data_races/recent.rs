//! Accesses that were made again and again: one that a flow has made before in the same way, without anything between that orders flows and without
//! another flow's turn, changes nothing, and is not looked at.

use engine::MemoryAccess;

use super::clock::Slot;

/// So many are known, each in the place that its address and its instruction give.
const KNOWN: usize = 1024;

/// Those that were made last.
#[derive(Clone)]
pub(super) struct Recent {
    /// Address, instruction, and age.
    all: Vec<(u64, u64, u64)>,
    age: u64,
    /// Whose turn it is, and its time.
    turn: (Slot, u32),
}

impl Default for Recent {
    fn default() -> Self {
        Self { all: vec![(0, 0, 0); KNOWN], age: 1, turn: (0, 0) }
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
        let made = (access.address, access.rip, self.age);
        let mixed = (access.address >> 1 ^ access.rip << 3) % KNOWN as u64;
        let place = usize::try_from(mixed).expect("they are few");
        access.bytes <= 16 && std::mem::replace(&mut self.all[place], made) == made
    }

    pub(super) fn forget(&mut self) {
        self.age += 1;
    }
}
