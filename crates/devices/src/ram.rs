//! Sparse memory for the inside of a card: zero until written, so that a window of any size costs what is used.
//!
//! It has no end of its own: who owns it bounds the offsets.

use std::collections::BTreeMap;

const PAGE: u64 = 4096;

/// Bytes by offset; those never written read as 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseRam {
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl SparseRam {
    /// Back to all zeroes.
    pub(crate) fn clear(&mut self) {
        let Self { pages } = self;
        pages.clear();
    }

    /// `bytes` (1–8) bytes at `offset`, little endian.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> u64 {
        (0..bytes).rev().fold(0, |value, i| value << 8 | u64::from(self.byte(offset.wrapping_add(i))))
    }

    /// Puts the `bytes` (1–8) lowest bytes of `value` at `offset`, little endian.
    pub(crate) fn write(&mut self, offset: u64, bytes: u64, value: u64) {
        for (i, byte) in (0..bytes).zip(value.to_le_bytes()) {
            self.set_byte(offset.wrapping_add(i), byte);
        }
    }

    /// One byte.
    pub(crate) fn byte(&self, offset: u64) -> u8 {
        self.pages.get(&(offset / PAGE)).map_or(0, |page| page[index(offset)])
    }

    /// Sets one byte.
    pub(crate) fn set_byte(&mut self, offset: u64, byte: u8) {
        let page = self.pages.entry(offset / PAGE).or_insert_with(|| vec![0; index(PAGE - 1) + 1].into());
        page[index(offset)] = byte;
    }
}

/// Where in its page a byte lies.
const fn index(offset: u64) -> usize {
    (offset & (PAGE - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_until_written_and_runs_over_pages() {
        let mut ram = SparseRam::default();
        assert_eq!(ram.read(0xFFC, 8), 0);
        ram.write(0xFFC, 8, 0x1122_3344_5566_7788);
        assert_eq!(ram.read(0x1000, 4), 0x1122_3344);
        assert_eq!(ram.read(0xFFF, 2), 0x4455);
        ram.clear();
        assert_eq!(ram.read(0xFFC, 8), 0);
    }
}
