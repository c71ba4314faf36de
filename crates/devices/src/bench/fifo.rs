//! The card's FIFO: words that a driver or the outside world puts in, and that come out in their order. Reading takes one out; what
//! was lost is kept until a driver clears it.

use std::collections::VecDeque;

use crate::bits::bits;
use crate::register::low32;

/// How many words it holds.
const DEPTH: usize = 16;

bits! {
    /// FIFO_STATUS.
    pub(super) struct FifoStatus {
        /// Words in it.
        LEVEL = 0..=7;
        EMPTY = 8;
        FULL = 9;
        /// One was taken out of an empty FIFO. A one written clears it.
        UNDERRUN = 10;
        /// One was put into a full FIFO, and is lost. A one written clears it.
        OVERRUN = 11;
    }
}

/// The FIFO.
#[derive(Default)]
pub(super) struct Fifo {
    words: VecDeque<u32>,
    lost: FifoStatus,
}

impl Fifo {
    pub(super) fn reset(&mut self) {
        let Self { words, lost } = self;
        words.clear();
        *lost = FifoStatus::default();
    }

    /// Puts a word in.
    pub(super) fn push(&mut self, word: u32) {
        if self.words.len() == DEPTH {
            self.lost = self.lost.with(FifoStatus::OVERRUN, 1);
        } else {
            self.words.push_back(word);
        }
    }

    /// Takes one out; 0 if there is none.
    pub(super) fn pop(&mut self) -> u32 {
        self.words.pop_front().unwrap_or_else(|| {
            self.lost = self.lost.with(FifoStatus::UNDERRUN, 1);
            0
        })
    }

    pub(super) fn status(&self) -> u32 {
        let level = self.words.len();
        self.lost
            .with(FifoStatus::LEVEL, low32(level as u64))
            .with(FifoStatus::EMPTY, (level == 0).into())
            .with(FifoStatus::FULL, (level == DEPTH).into())
            .0
    }

    /// Ones written to the status clear what was lost.
    pub(super) fn clear(&mut self, ones: u32) {
        self.lost = FifoStatus(self.lost.0 & !ones);
    }
}
