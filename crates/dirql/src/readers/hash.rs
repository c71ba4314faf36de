//! One number for a whole run: two runs with the same inputs have the same, on every machine and under every address
//! randomisation of the host.
//!
//! Events are hashed by their fields, as they are declared, a word at a time: no text is made of them. It compares runs; it is no
//! defence against forgery.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use kernel::event::{Event, Kind, Reader, Stamp, Words};

/// A hash of 128 bits of words, in two halves that do not know of each other. Each word changes either half in a way that can be taken
/// back, so two sequences that differ in one word never have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash128(u64, u64);

impl Default for Hash128 {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142, 0x62b8_2175_6295_c58d)
    }
}

impl Hash128 {
    /// Takes a word in.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        let first = (self.0 ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
        let second = (self.1.rotate_left(29) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        *self = Self(first ^ first >> 32, second ^ second >> 29);
    }

    /// Takes bytes in, and how many they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.word(joined(rest));
        }
    }

    /// Takes in what another one stands for.
    #[inline]
    pub fn hash(&mut self, other: Self) {
        self.word(other.0);
        self.word(other.1);
    }

    /// The hash of all that was taken in.
    #[must_use]
    pub fn value(self) -> u128 {
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}

/// One to seven bytes as a number, as they would be read with zeros behind them: from pieces that overlap, without a copy.
#[inline(always)]
fn joined(bytes: &[u8]) -> u64 {
    let last = bytes.len() - 1;
    if let (Some(first), Some(behind)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let [first, behind] = [first, behind].map(|half| u64::from(u32::from_le_bytes(*half)));
        return first | behind << (8 * (last - 3));
    }
    let middle = bytes.len() / 2;
    u64::from(bytes[0]) | u64::from(bytes[middle]) << (8 * middle) | u64::from(bytes[last]) << (8 * last)
}

impl Words for Hash128 {
    #[inline(always)]
    fn word(&mut self, word: u64) {
        Self::word(self, word);
    }

    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        Self::bytes(self, bytes);
    }
}

/// The hash of one event.
#[must_use]
#[inline]
pub(crate) fn of_event(stamp: &Stamp, event: &Event) -> Hash128 {
    let mut hash = Hash128::default();
    add(&mut hash, stamp, event);
    hash
}

/// Takes an event in. The name of a register is no part of the hash: it follows from the rest, and need not be there.
#[inline]
fn add(hash: &mut Hash128, stamp: &Stamp, event: &Event) {
    // There are 64 processors at most, and 16 levels.
    let place = u64::from(stamp.processor) << 40 | u64::from(stamp.irql) << 32 | u64::from(stamp.strand.0);
    [event.kind().word() ^ place, stamp.number, stamp.time].into_iter().for_each(|word| hash.word(word));
    if let Event::Device { port, address, bytes, write, value, register: _ } = event {
        let access = u64::from(*bytes) << 2 | u64::from(*port) << 1 | u64::from(*write);
        [access, *address, *value].into_iter().for_each(|word| hash.word(word));
        return;
    }
    event.words(hash);
}

/// Hashes every event but changes of level, calls, of frameworks' functions too, and their ends: each event has the level and counts the calls before it, and driver code
/// makes most of the three by itself where no reader reads them. A clone is the same hash.
#[derive(Clone, Default)]
pub struct TraceHash(Rc<RefCell<Hash128>>);

impl TraceHash {
    /// The hash of all events so far.
    #[must_use]
    pub fn value(&self) -> u128 {
        self.0.borrow().value()
    }
}

impl Reader for TraceHash {
    fn wants(&self, kind: Kind) -> bool {
        !matches!(kind, Kind::Irql | Kind::Call | Kind::Return | Kind::Ddi)
    }

    fn reads_names(&self) -> bool {
        false
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        add(&mut self.0.borrow_mut(), stamp, event);
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(*self.0.borrow()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        if let Some(hash) = saved.downcast_ref() {
            *self.0.borrow_mut() = *hash;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Hash128;

    fn of(bytes: &[u8]) -> u128 {
        let mut hash = Hash128::default();
        hash.bytes(bytes);
        hash.value()
    }

    #[test]
    fn no_two_of_many_texts_and_lengths_have_the_same_hash() {
        let mut seen = std::collections::BTreeSet::new();
        for length in 0..40 {
            for at in 0..=length {
                for bit in 0..8 {
                    let mut bytes = vec![0_u8; length];
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = 1 << bit;
                    }
                    let new = seen.insert(of(&bytes));
                    assert!(new || at == length, "{bytes:?}");
                }
            }
        }
        assert_ne!(of(b"ab"), of(b"ba"));
    }
}
