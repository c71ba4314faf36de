//! The registers as one table, with the names and the fields of QEMU's documentation (docs/specs/edu.rst).

use crate::bits::bits;
use crate::register::{Row, is_sorted};

/// What identification reads: version 1.0, `edu`.
pub(super) const IDENTIFICATION: u32 = 0x0100_00ED;
/// From here on 8 bytes at a time are allowed, too.
pub(super) const WIDE_FROM: u64 = 0x80;
/// Where the card's buffer is, for its bus master alone.
pub(super) const BUFFER: u64 = 0x4_0000;
/// Its bytes.
pub(super) const BUFFER_LENGTH: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// Read only.
    Identification,
    /// Reads the complement of what was written.
    Liveness,
    /// A number written is replaced by its factorial.
    Factorial,
    /// [`Status`].
    Status,
    /// Read only: what raised the interrupt and was not acknowledged.
    InterruptStatus,
    /// Write only: ones are put into the interrupt status.
    InterruptRaise,
    /// Write only: ones are taken out of it.
    InterruptAcknowledge,
    /// 64 bits, as the three behind it.
    DmaSource,
    DmaDestination,
    DmaCount,
    /// [`Command`] in its lower half.
    DmaCommand,
}

const fn row(register: Register, offset: u64, bytes: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes, name }
}

/// What is not listed reads as ones.
pub(super) const TABLE: &[Row<Register>] = &[
    row(Register::Identification, 0x00, 4, "IDENTIFICATION"),
    row(Register::Liveness, 0x04, 4, "LIVENESS"),
    row(Register::Factorial, 0x08, 4, "FACTORIAL"),
    row(Register::Status, 0x20, 4, "STATUS"),
    row(Register::InterruptStatus, 0x24, 4, "INTERRUPT_STATUS"),
    row(Register::InterruptRaise, 0x60, 4, "INTERRUPT_RAISE"),
    row(Register::InterruptAcknowledge, 0x64, 4, "INTERRUPT_ACKNOWLEDGE"),
    row(Register::DmaSource, 0x80, 8, "DMA_SOURCE"),
    row(Register::DmaDestination, 0x88, 8, "DMA_DESTINATION"),
    row(Register::DmaCount, 0x90, 8, "DMA_COUNT"),
    row(Register::DmaCommand, 0x98, 8, "DMA_COMMAND"),
];

const _: () = assert!(is_sorted(TABLE));

bits! {
    /// The status register.
    pub(super) struct Status {
        COMPUTING = 0;
        /// Raise [`FACTORIAL_DONE`] when a factorial has been computed.
        INTERRUPT = 7;
    }
}

bits! {
    /// The DMA command register.
    pub(super) struct Command {
        START = 0;
        /// From the card to memory; else from memory to the card.
        TO_MEMORY = 1;
        /// Raise [`TRANSFER_DONE`] at the end.
        INTERRUPT = 2;
    }
}

/// What a computed factorial puts into the interrupt status.
pub(super) const FACTORIAL_DONE: u32 = 0x001;
/// What the end of a transfer puts there.
pub(super) const TRANSFER_DONE: u32 = 0x100;
