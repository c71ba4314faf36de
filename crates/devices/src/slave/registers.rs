//! The card's registers as one table. All are 32 bits; what is not listed reads 0.

use crate::bits::bits;
use crate::register::{Row, is_sorted};

/// What identification reads: `Slav`.
pub(super) const IDENTIFICATION: u32 = u32::from_le_bytes(*b"Slav");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// Read only: [`IDENTIFICATION`].
    Identification,
    /// Read only: which of the system's channels it is wired to.
    Channel,
    /// [`Command`].
    Command,
    /// [`Status`].
    Status,
    /// Read only: bytes that were moved since START.
    Moved,
    /// In the card's memory: where the next byte is.
    Offset,
}

const fn row(register: Register, offset: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes: 4, name }
}

pub(super) const TABLE: &[Row<Register>] = &[
    row(Register::Identification, 0x00, "IDENTIFICATION"),
    row(Register::Channel, 0x04, "CHANNEL"),
    row(Register::Command, 0x08, "COMMAND"),
    row(Register::Status, 0x0C, "STATUS"),
    row(Register::Moved, 0x10, "MOVED"),
    row(Register::Offset, 0x14, "OFFSET"),
];

const _: () = assert!(is_sorted(TABLE));

bits! {
    /// COMMAND.
    pub(super) struct Command {
        /// A one written starts, a zero stops; reads as one as long as the card asks for its channel.
        START = 0;
        /// From the card to memory; else from memory to the card.
        TO_MEMORY = 1;
        /// Interrupt at terminal count.
        INTERRUPT = 2;
        /// Go on behind terminal count, as a channel that initializes itself does.
        CONTINUE = 3;
    }
}

bits! {
    /// STATUS. A one written clears it.
    pub(super) struct Status {
        /// The channel's count has ended.
        TERMINAL_COUNT = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_models_has_every_register_at_its_offset() {
        let page = include_str!("../../../../docs/models.md");
        let (_, part) = page.split_once("\n## slave\n").expect("the model has its part");
        for row in TABLE {
            let line = format!("| {:02X}h | {} |", row.offset, row.name);
            assert!(part.contains(&line), "docs/models.md lacks `{line}`");
        }
    }
}
