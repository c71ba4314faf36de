//! What is on the local side of the chip: the built-in board, or one that a sheet describes.
//!
//! A sheet's one space, `local`, has the local addresses; what it does not describe is memory. It drives both LINTi pins.

use super::local::{self, ByteOrder, LocalBus};
use crate::pci::Master;
use crate::register::at;
use crate::sheet::{At, Ports, Rest, State};

/// What a sheet of a board can have.
pub(super) const PORTS: Ports =
    Ports { spaces: &["local"], rest: Rest::Memory, lines: &["linti1", "linti2"], is_card: false };

/// A board.
pub(super) enum Board {
    BuiltIn(LocalBus),
    Sheet(Box<State>),
}

/// Where on the local bus an access goes.
#[derive(Clone, Copy)]
pub(super) struct Local {
    pub(super) now: u64,
    pub(super) address: u32,
    /// 1–8.
    pub(super) bytes: u64,
    pub(super) order: ByteOrder,
}

impl Board {
    /// Power-on: memory too.
    pub(super) fn reset(&mut self) {
        match self {
            Self::BuiltIn(board) => board.reset(),
            Self::Sheet(board) => board.reset(),
        }
    }

    /// LRESET#: memory keeps its contents.
    pub(super) fn reset_peripheral(&mut self) {
        match self {
            Self::BuiltIn(board) => board.reset_peripheral(),
            Self::Sheet(board) => board.restart(),
        }
    }

    /// The levels that it drives on LINTi1 and LINTi2.
    pub(super) fn linti(&self) -> [bool; 2] {
        match self {
            Self::BuiltIn(board) => [board.linti1(), false],
            Self::Sheet(board) => [board.line(0), board.line(1)],
        }
    }

    /// When it next does something by itself.
    pub(super) fn deadline(&self) -> Option<u64> {
        match self {
            Self::BuiltIn(board) => board.deadline(),
            Self::Sheet(board) => board.deadline(),
        }
    }

    /// Time is now `now`.
    pub(super) fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        match self {
            Self::BuiltIn(board) => board.advance(now),
            Self::Sheet(board) => board.advance(now, master),
        }
    }

    /// Whether a read can change that, or a level.
    pub(super) fn reads_change(&self) -> bool {
        match self {
            Self::BuiltIn(_) => false,
            Self::Sheet(board) => board.reads_change(),
        }
    }

    /// A read, or what the board says against it.
    pub(super) fn read(&mut self, access: &Local) -> Result<u64, String> {
        let Local { address, bytes, order, .. } = *access;
        match self {
            Self::BuiltIn(board) => Ok(board.read(address, bytes, order)),
            Self::Sheet(board) => access.cycles().try_fold(0, |value, cycle| {
                let found = board.read(&cycle.at)?;
                Ok(value | cycle.turned(found) << (8 * cycle.from))
            }),
        }
    }

    /// A write, or what the board says against it.
    pub(super) fn write(&mut self, access: &Local, value: u64) -> Result<(), String> {
        let Local { now, address, bytes, order } = *access;
        match self {
            Self::BuiltIn(board) => {
                board.write(now, address, bytes, value, order);
                Ok(())
            }
            Self::Sheet(board) => access
                .cycles()
                .try_for_each(|cycle| board.write(&cycle.at, cycle.turned(value >> (8 * cycle.from)))),
        }
    }

    /// How long the board holds READY# back for its registers at local addresses, ns.
    pub(super) fn takes(&self, now: u64, address: u32, bytes: u64) -> u64 {
        match self {
            Self::BuiltIn(_) => 0,
            Self::Sheet(board) => board.takes(&At { now, space: 0, offset: address.into(), bytes }),
        }
    }

    /// The name of the register at a local address.
    pub(super) fn name(&self, address: u32) -> Option<&str> {
        match self {
            Self::BuiltIn(_) => at(local::TABLE, address.into()).map(|row| row.name),
            Self::Sheet(board) => board.name(0, address.into()),
        }
    }
}

/// A cycle on the local bus: bytes of one access that lie side by side there.
struct Cycle {
    at: At,
    /// Bytes of the access before it.
    from: u64,
    /// Its bytes come in the other order.
    is_turned: bool,
}

impl Local {
    /// As big-endian spaces turn bytes within a bus word, an access to one is cut into bus words.
    fn cycles(self) -> impl Iterator<Item = Cycle> {
        let Self { now, address, bytes, order } = self;
        let word = u64::from(order.0) + 1;
        let mut from = 0;
        std::iter::from_fn(move || {
            let left = bytes.checked_sub(from).filter(|left| *left > 0)?;
            let begin = u64::from(address) + from;
            let length = if word == 1 { left } else { left.min(word - begin % word) };
            let last = order.address(address, from + length - 1);
            let offset = order.address(address, from).min(last);
            let cycle = Cycle { at: At { now, space: 0, offset, bytes: length }, from, is_turned: word > 1 };
            from += length;
            Some(cycle)
        })
    }
}

impl Cycle {
    /// The cycle's bytes as the access has them, or the other way round.
    fn turned(&self, value: u64) -> u64 {
        let unused = 64 - 8 * self.at.bytes;
        if self.is_turned { (value << unused).swap_bytes() } else { value << unused >> unused }
    }
}
