//! The card's bus master: one transfer at a time between its own memory and the machine's, plain or by a list of pieces.
//!
//! A piece of a list is 16 bytes in the machine's memory: address (8), length (4), flags (4; bit 0: the last). It has no
//! transfers from card to card, and does not go on where nobody answers.

use crate::bits::bits;
use crate::pci::Master;
use crate::ram::SparseRam;
use crate::register::low32;

/// Bytes of memory on the card.
pub(super) const RAM: u64 = 0x1_0000;
/// Pieces of a list that the card follows: a list without an end is an error.
const MOST_PIECES: u32 = 256;
/// Bit 0 of a piece's flags.
const LAST: u32 = 1;

bits! {
    /// DMA_COMMAND.
    pub(super) struct Command {
        /// A one written starts; reads as one until the transfer is over.
        START = 0;
        /// From the card to memory; else from memory to the card.
        TO_MEMORY = 1;
        /// The address is that of a list of pieces.
        SCATTER = 2;
        /// Raise a source at the end, which is not done otherwise.
        RAISE = 3;
        /// Which one.
        SOURCE = 8..=12;
    }
}

bits! {
    /// DMA_STATUS. Ones written clear the two.
    pub(super) struct Status {
        DONE = 0;
        /// Nobody answered, the list has no end, or the card's memory has: DMA_MOVED says how far it came.
        FAILED = 1;
    }
}

/// The bus master's registers.
#[derive(Default)]
pub(super) struct Transfer {
    pub(super) address: u64,
    pub(super) length: u32,
    /// In the card's memory.
    pub(super) offset: u32,
    pub(super) command: Command,
    pub(super) status: Status,
    pub(super) moved: u32,
    /// Nanoseconds from the start to the end.
    pub(super) delay: u32,
    /// When the one that was started happens.
    pub(super) at: Option<u64>,
}

impl Transfer {
    /// As after reset; `delay` is what the user chose.
    pub(super) fn reset(&mut self, delay: u32) {
        *self = Self { delay, ..Self::default() };
    }

    /// A write to DMA_COMMAND.
    pub(super) fn start(&mut self, now: u64, command: Command) {
        if self.at.is_none() {
            self.command = command;
            if command.is(Command::START) {
                (self.status, self.moved) = (Status::default(), 0);
                self.at = Some(now + u64::from(self.delay));
            }
        }
    }

    /// Moves the bytes; the source to raise, if one is.
    pub(super) fn carry_out(&mut self, ram: &mut SparseRam, master: &mut Master<'_>) -> Option<u32> {
        let done = if self.command.is(Command::SCATTER) {
            self.pieces(ram, master)
        } else {
            self.piece(ram, master, self.address, self.length)
        };
        self.status =
            if done { self.status.with(Status::DONE, 1) } else { self.status.with(Status::FAILED, 1) };
        self.command = self.command.with(Command::START, 0);
        self.command.is(Command::RAISE).then(|| self.command.get(Command::SOURCE))
    }

    fn pieces(&mut self, ram: &mut SparseRam, master: &mut Master<'_>) -> bool {
        let mut list = self.address;
        for _ in 0..MOST_PIECES {
            let mut piece = [0; 16];
            if !master.read(list, &mut piece) {
                return false;
            }
            let [address, sizes] = [0, 8].map(|at| number(&piece[at..at + 8]));
            if !self.piece(ram, master, address, low32(sizes)) {
                return false;
            }
            if low32(sizes >> 32) & LAST != 0 {
                return true;
            }
            list = list.wrapping_add(16);
        }
        false
    }

    /// Moves one piece, behind those that were moved before.
    fn piece(&mut self, ram: &mut SparseRam, master: &mut Master<'_>, address: u64, length: u32) -> bool {
        let from = u64::from(self.offset) + u64::from(self.moved);
        if from + u64::from(length) > RAM {
            return false;
        }
        let offsets = from..from + u64::from(length);
        let answered = if self.command.is(Command::TO_MEMORY) {
            let bytes: Vec<u8> = offsets.map(|offset| ram.byte(offset)).collect();
            master.write(address, &bytes)
        } else {
            let mut bytes: Vec<u8> = offsets.clone().map(|_| 0).collect();
            let answered = master.read(address, &mut bytes);
            if answered {
                offsets.zip(bytes).for_each(|(offset, byte)| ram.set_byte(offset, byte));
            }
            answered
        };
        self.moved += if answered { length } else { 0 };
        answered
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
