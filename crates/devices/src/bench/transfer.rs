//! One of the card's bus masters: one transfer at a time between its own memory and the machine's, plain or by a list of pieces.
//!
//! A transfer that comes in parts (`plan`) reads its list anew for each of them. A piece of a list is 16 bytes in the machine's memory: address (8), length (4), flags (4; bit 0: the last). It has no
//! transfers from card to card, and does not go on where an address is not claimed.

use crate::bits::bits;
use crate::pci::Master;
use crate::plan::{Freedom, Part, Plan};
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
        /// An address was not claimed, the list has no end, or the transfer went past the card's memory: DMA_MOVED says how far it came.
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
    pub(super) plan: Option<Plan>,
}

impl Transfer {
    /// As after reset; `delay` is what the user chose.
    pub(super) fn reset(&mut self, delay: u32) {
        *self = Self { delay, ..Self::default() };
    }

    /// Whether this would start a transfer, and one is under way.
    pub(super) fn is_busy_for(&self, command: u32) -> bool {
        self.plan.is_some() && Command(command).is(Command::START)
    }

    /// A write to DMA_COMMAND.
    pub(super) fn start(&mut self, now: u64, command: Command, freedom: Freedom) {
        if self.plan.is_none() {
            self.command = command;
            if command.is(Command::START) {
                (self.status, self.moved) = (Status::default(), 0);
                self.plan = Some(Plan::new(freedom, now, self.delay.into()));
            }
        }
    }

    /// Moves a part of the bytes; the source to raise, if one is. Where an address is not claimed, the rest is not tried.
    pub(super) fn carry_out(
        &mut self,
        part: Part,
        is_last: bool,
        ram: &mut SparseRam,
        master: &mut Master<'_>,
    ) -> Option<u32> {
        let (pieces, is_whole) = self.pieces(master);
        let is_moved = self.move_part(&pieces, part, ram, master) && is_whole;
        if is_moved && !is_last {
            return None;
        }
        let field = if is_moved { Status::DONE } else { Status::FAILED };
        self.status = self.status.with(field, 1);
        self.plan = None;
        self.command = self.command.with(Command::START, 0);
        self.command.is(Command::RAISE).then(|| self.command.get(Command::SOURCE))
    }

    /// Where the bytes lie, address and length of each piece; and whether these are all.
    fn pieces(&self, master: &mut Master<'_>) -> (Vec<(u64, u64)>, bool) {
        if !self.command.is(Command::SCATTER) {
            return (vec![(self.address, self.length.into())], true);
        }
        let (mut list, mut pieces) = (self.address, Vec::new());
        for _ in 0..MOST_PIECES {
            let mut piece = [0; 16];
            if !master.read(list, &mut piece) {
                return (pieces, false);
            }
            let [address, sizes] = [0, 8].map(|at| number(&piece[at..at + 8]));
            pieces.push((address, low32(sizes).into()));
            if low32(sizes >> 32) & LAST != 0 {
                return (pieces, true);
            }
            list = list.wrapping_add(16);
        }
        (pieces, false)
    }

    /// Moves what of these pieces is in a part of them all.
    fn move_part(
        &mut self,
        pieces: &[(u64, u64)],
        part: Part,
        ram: &mut SparseRam,
        master: &mut Master<'_>,
    ) -> bool {
        let range = part.of(pieces.iter().map(|(_, length)| length).sum());
        let mut begin = 0;
        for (address, length) in pieces {
            let (from, to) = (range.start.max(begin), range.end.min(begin + length));
            // An empty piece is a transfer, too.
            let is_empty = *length == 0 && part.index == 0;
            if (from < to || is_empty)
                && !self.piece(
                    ram,
                    master,
                    (address.wrapping_add(from - begin.min(from)), from),
                    to.saturating_sub(from),
                )
            {
                return false;
            }
            begin += length;
        }
        true
    }

    /// Moves bytes between memory and the card's, from `place` on behind where the transfer begins there.
    fn piece(
        &mut self,
        ram: &mut SparseRam,
        master: &mut Master<'_>,
        (address, place): (u64, u64),
        length: u64,
    ) -> bool {
        let from = u64::from(self.offset) + place;
        if from + length > RAM {
            return false;
        }
        let offsets = from..from + length;
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
        self.moved += if answered { low32(length) } else { 0 };
        answered
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
