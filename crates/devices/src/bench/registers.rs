//! The card's registers as one table. All are 32 bits; what is not listed reads 0.

use crate::register::{Row, is_sorted};

/// What identification reads: `Benc`.
pub(super) const IDENTIFICATION: u32 = u32::from_le_bytes(*b"Benc");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// Read only: [`IDENTIFICATION`].
    Identification,
    /// Read only: how many sources there are.
    Sources,
    /// Write only: ones set status bits, after the delay.
    Raise,
    /// Reads the sources that were raised; a one written clears its bit.
    Status,
    /// Reads status and clears all of it.
    StatusAndClear,
    /// The sources that may interrupt.
    Enable,
    /// Write only: signals the message of that number, whatever status and enable say.
    Signal,
    /// Read only: how many messages were signaled since reset.
    Count,
    /// Nanoseconds from a write to RAISE until it takes effect; 0 is at once.
    Delay,
    /// Reads take a word out of the FIFO, writes put one in.
    Fifo,
    /// What of the FIFO there is, and was lost; a one written clears what was lost.
    FifoStatus,
    /// Of one of the card's bus masters.
    Dma(usize, Dma),
}

/// A bus master's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dma {
    /// In the machine's memory: of the bytes, or of the list of pieces.
    AddressLow,
    AddressHigh,
    /// Bytes of a plain transfer.
    Length,
    /// In the card's memory.
    Offset,
    Command,
    Status,
    /// Read only: bytes that were moved.
    Moved,
    /// Nanoseconds that a transfer takes.
    Delay,
}

const fn row(register: Register, offset: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes: 4, name }
}

pub(super) const TABLE: &[Row<Register>] = &[
    row(Register::Identification, 0x00, "IDENTIFICATION"),
    row(Register::Sources, 0x04, "SOURCES"),
    row(Register::Raise, 0x08, "RAISE"),
    row(Register::Status, 0x0C, "STATUS"),
    row(Register::StatusAndClear, 0x10, "STATUS_AND_CLEAR"),
    row(Register::Enable, 0x14, "ENABLE"),
    row(Register::Signal, 0x18, "SIGNAL"),
    row(Register::Count, 0x1C, "COUNT"),
    row(Register::Delay, 0x20, "DELAY"),
    row(Register::Fifo, 0x24, "FIFO"),
    row(Register::FifoStatus, 0x28, "FIFO_STATUS"),
    row(Register::Dma(0, Dma::AddressLow), 0x30, "DMA_ADDRESS_LOW"),
    row(Register::Dma(0, Dma::AddressHigh), 0x34, "DMA_ADDRESS_HIGH"),
    row(Register::Dma(0, Dma::Length), 0x38, "DMA_LENGTH"),
    row(Register::Dma(0, Dma::Offset), 0x3C, "DMA_OFFSET"),
    row(Register::Dma(0, Dma::Command), 0x40, "DMA_COMMAND"),
    row(Register::Dma(0, Dma::Status), 0x44, "DMA_STATUS"),
    row(Register::Dma(0, Dma::Moved), 0x48, "DMA_MOVED"),
    row(Register::Dma(0, Dma::Delay), 0x4C, "DMA_DELAY"),
    row(Register::Dma(1, Dma::AddressLow), 0x50, "DMA2_ADDRESS_LOW"),
    row(Register::Dma(1, Dma::AddressHigh), 0x54, "DMA2_ADDRESS_HIGH"),
    row(Register::Dma(1, Dma::Length), 0x58, "DMA2_LENGTH"),
    row(Register::Dma(1, Dma::Offset), 0x5C, "DMA2_OFFSET"),
    row(Register::Dma(1, Dma::Command), 0x60, "DMA2_COMMAND"),
    row(Register::Dma(1, Dma::Status), 0x64, "DMA2_STATUS"),
    row(Register::Dma(1, Dma::Moved), 0x68, "DMA2_MOVED"),
    row(Register::Dma(1, Dma::Delay), 0x6C, "DMA2_DELAY"),
];

const _: () = assert!(is_sorted(TABLE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_models_has_every_register_at_its_offset() {
        let page = include_str!("../../../../docs/models.md");
        for row in TABLE {
            let line = format!("| {:02X}h | {} |", row.offset, row.name);
            assert!(page.contains(&line), "docs/models.md lacks `{line}`");
        }
    }
}
