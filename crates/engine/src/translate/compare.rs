//! Comparisons of driver code, which are noted before they are made ([`crate::compares`]).

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::classify::{Class, classify};
use super::frame::Frame;
use super::site;
use crate::compares::{Asked, Compare};
use crate::machine::state;
use crate::memory;

/// Whether it compares two numbers, takes a constant from one, as a switch does, or the bits of a constant or of what lies in memory, as compilers do
/// where several numbers must be equal: what is left of each is put together and must be nothing.
pub(super) fn is_one(instruction: &Instruction) -> bool {
    let by_constant = || !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory);
    classify(instruction) == Class::Plain
        && match instruction.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Test => true,
            Mnemonic::Sub => by_constant() && instruction.op0_register() != Register::RSP,
            Mnemonic::Xor => instruction.op1_kind() != OpKind::Register,
            _ => false,
        }
}

/// Notes what such an instruction is about to compare, if that can be read.
pub(super) fn note(frame: &Frame, instruction: &Instruction) {
    let size = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        _ => instruction.memory_size().size(),
    };
    let Some(mask) = u32::try_from(size).ok().and_then(|size| u64::MAX.checked_shr(64 - 8 * size)) else {
        return;
    };
    let operands = [0, 1].map(|index| operand(frame, instruction, index, size));
    if let [Some(left), Some(right)] = operands {
        let asked = if instruction.mnemonic() == Mnemonic::Test { Asked::Bits } else { Asked::Order };
        let (left, right) = (left & mask, right & mask);
        state().compares.note(Compare {
            rip: instruction.ip(),
            bytes: mask.count_ones() / 8,
            asked,
            left,
            right,
        });
    }
}

fn operand(frame: &Frame, instruction: &Instruction, index: u32, size: usize) -> Option<u64> {
    match instruction.op_kind(index) {
        OpKind::Register => match instruction.op_register(index) {
            Register::AH | Register::BH | Register::CH | Register::DH => None,
            register => site::register(frame, register),
        },
        OpKind::Memory => {
            let mut bytes = [0; 8];
            let address = site::address_of(frame, instruction, index)?;
            memory::peek(address, bytes.get_mut(..size)?).ok().map(|()| u64::from_le_bytes(bytes))
        }
        _ => instruction.try_immediate(index).ok(),
    }
}
