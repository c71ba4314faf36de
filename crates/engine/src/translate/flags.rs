//! Whether the flags are live where a block begins: whether its instructions may read one before writing it.
//!
//! "Undefined" does not count as written (the result may depend on the old value, and then the schedule would show),
//! with one exception: the logic operations, which leave AF clear on every processor this runs on.

use iced_x86::{Code, Instruction, Mnemonic, RflagsBits};

const ARITHMETIC: u32 =
    RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;

/// Flags that may be read somewhere before they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Live(u32);

impl Live {
    /// All arithmetic flags: nothing is known of what comes.
    pub(crate) const ALL: Self = Self(ARITHMETIC);

    /// In front of these instructions, behind which these may be read.
    pub(crate) fn before<'i>(self, instructions: impl IntoIterator<Item = &'i Instruction>) -> Self {
        let (mut read, mut unwritten) = (0, ARITHMETIC);
        for instruction in instructions {
            read |= instruction.rflags_read() & unwritten;
            unwritten &= !surely_written(instruction);
            if unwritten == 0 {
                break;
            }
        }
        Self(read | self.0 & unwritten)
    }

    /// Whether there is any.
    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::ALL
    }
}

/// Whether a flag after it may be anything: then it is what the processor makes of this very form, which may be another for
/// registers than for memory.
pub(crate) fn leaves_some_undefined(instruction: &Instruction) -> bool {
    instruction.rflags_undefined() & !(if is_logic(instruction) { RflagsBits::AF } else { 0 }) != 0
}

fn is_logic(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test)
}

fn surely_written(instruction: &Instruction) -> u32 {
    if conditional_writer(instruction) {
        return 0;
    }
    let mut bits = instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
    if is_logic(instruction) {
        bits |= RflagsBits::AF;
    }
    bits
}

/// Instructions that leave the flags alone when a count is zero.
fn conditional_writer(instruction: &Instruction) -> bool {
    if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
        return true;
    }
    match instruction.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar | Mnemonic::Shld | Mnemonic::Shrd => {
            true
        }
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr => true,
        _ => matches!(instruction.code(), Code::Sahf | Code::Popfq),
    }
}
