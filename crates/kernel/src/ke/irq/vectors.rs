//! Interrupt vectors: which are a line's and which a message's, and sets of them.
//!
//! x64 has 256 vectors; a vector's upper half is its level. Devices have levels 3–12: lines take the lower half of
//! levels 3–11, messages the rest. A vector is the same on all processors, so there are as many messages as free vectors.

use super::interrupt::{line_of_vector, vector_of_line};

/// The levels of devices.
const DEVICE_LEVELS: std::ops::RangeInclusive<u32> = 3..=12;

/// Whether a vector can be a message's.
#[must_use]
pub(super) const fn is_message(vector: u32) -> bool {
    let level = vector >> 4;
    *DEVICE_LEVELS.start() <= level && level <= *DEVICE_LEVELS.end() && line_of_vector(vector).is_none()
}

/// The vector a driver gets for a line that a controller relays at PASSIVE_LEVEL: beyond the processors' vectors.
const RELAYED: u32 = 0x100;

/// The vector that drivers know for `line` where lines are relayed.
#[must_use]
pub(crate) const fn vector_of_relayed_line(line: u32) -> u32 {
    RELAYED + line
}

/// The processors' vector for one that a driver was given.
#[must_use]
pub(crate) const fn of_processors(vector: u32) -> u32 {
    match vector.checked_sub(RELAYED) {
        Some(line @ 0..64) => vector_of_line(line),
        _ => vector,
    }
}

/// The level of a vector of a device.
#[must_use]
pub(crate) const fn irql_of_vector(vector: u32) -> u8 {
    // At most 15.
    (vector >> 4 & 0xF).to_le_bytes()[0]
}

/// The vectors that messages can have, in the order in which they are given out: from level to level, so that messages with
/// vectors of their own differ in level.
pub(crate) fn of_messages() -> impl Iterator<Item = u32> {
    let upper = (8..16).flat_map(|low| DEVICE_LEVELS.map(move |level| level << 4 | low));
    let rest = DEVICE_LEVELS.flat_map(|level| (0..8).map(move |low| level << 4 | low));
    upper.chain(rest).filter(|vector| is_message(*vector))
}

/// A set of vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Vectors([u64; 4]);

impl Vectors {
    fn place(vector: u32) -> (usize, u64) {
        ((vector >> 6 & 3) as usize, 1 << (vector & 63))
    }

    pub(crate) fn insert(&mut self, vector: u32) {
        let (word, bit) = Self::place(vector);
        self.0[word] |= bit;
    }

    pub(crate) fn remove(&mut self, vector: u32) {
        let (word, bit) = Self::place(vector);
        self.0[word] &= !bit;
    }

    pub(crate) fn contains(&self, vector: u32) -> bool {
        let (word, bit) = Self::place(vector);
        self.0[word] & bit != 0
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// From the highest down.
    pub(super) fn descending(self) -> impl Iterator<Item = u32> {
        (0..256).rev().filter(move |vector| self.contains(*vector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_a_lines_or_a_messages_and_of_a_device_level() {
        let all: Vec<u32> = of_messages().collect();
        assert_eq!(all.len(), 160 - 64, "what 64 lines leave of ten levels");
        for vector in all.iter().copied() {
            assert!((3..=12).contains(&irql_of_vector(vector)) && line_of_vector(vector).is_none());
        }
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len(), "each is given out once");
        assert_eq!(all[..3], [0x38, 0x48, 0x58], "from level to level");
    }

    #[test]
    fn a_set_is_read_from_its_highest_vector_down() {
        let mut set = Vectors::default();
        for vector in [0x38, 0xC9, 0x47] {
            set.insert(vector);
        }
        assert!(set.descending().eq([0xC9, 0x47, 0x38]));
        set.remove(0xC9);
        assert!(!set.contains(0xC9) && set.contains(0x47) && !set.is_empty());
    }
}
