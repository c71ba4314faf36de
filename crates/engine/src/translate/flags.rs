//! Whether the flags are live where a block begins: whether its instructions may read one before writing it.
//!
//! "Undefined" does not count as written (the result may depend on the old value, and then the schedule would show),
//! with one exception: the logic operations, which leave AF clear on every processor this runs on.

use iced_x86::{Code, Instruction, Mnemonic, RflagsBits};

const ARITHMETIC: u32 =
    RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;

/// Whether any arithmetic flag may be read before it is written, or is still unwritten at the end.
pub(crate) fn live_at_head(instructions: &[Instruction]) -> bool {
    let mut unwritten = ARITHMETIC;
    for instruction in instructions {
        if instruction.rflags_read() & unwritten != 0 {
            return true;
        }
        unwritten &= !surely_written(instruction);
        if unwritten == 0 {
            return false;
        }
    }
    true
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
