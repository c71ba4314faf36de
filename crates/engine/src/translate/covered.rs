//! Which memory a block has checked already, in terms of the registers that name it: nothing changes marks within a
//! block, so a second access to the same bytes needs no second check.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::operands::Operand;

/// Checked operands whose registers hold what they held then.
#[derive(Default)]
pub(super) struct Covered {
    operands: Vec<Operand>,
}

impl Covered {
    /// Whether all bytes of `operand` have been checked for what it does to them.
    pub(super) fn has(&self, operand: &Operand) -> bool {
        self.operands.iter().any(|known| {
            let distance = operand.displacement.wrapping_sub(known.displacement);
            let behind = i64::from(known.bytes) - i64::from(operand.bytes);
            known.same_registers(operand)
                && (0..=behind).contains(&distance)
                && (known.write || !operand.write)
        })
    }

    pub(super) fn add(&mut self, operand: &Operand) {
        self.operands.push(*operand);
    }

    /// Forgets what `instruction` makes unknown; a stack pointer that moves by a constant stays known.
    pub(super) fn after(&mut self, instruction: &Instruction) {
        let moved = stack_moves(instruction);
        let mut factory = InstructionInfoFactory::new();
        for used in factory.info(instruction).used_registers() {
            let reads = matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            let register = used.register().full_register();
            let known_still = reads || register == Register::RSP && moved.is_some();
            self.operands.retain(|known| known_still || !known.uses(register));
        }
        if let Some(bytes) = moved {
            for known in self.operands.iter_mut().filter(|known| known.uses(Register::RSP)) {
                known.displacement = known.displacement.wrapping_sub(bytes);
            }
        }
    }
}

/// By how many bytes the instruction moves `rsp`, if that is known.
fn stack_moves(instruction: &Instruction) -> Option<i64> {
    match instruction.mnemonic() {
        Mnemonic::Push => Some(instruction.stack_pointer_increment().into()),
        Mnemonic::Pop if instruction.op0_register() != Register::RSP => {
            Some(instruction.stack_pointer_increment().into())
        }
        Mnemonic::Sub | Mnemonic::Add if instruction.op0_register() == Register::RSP => {
            let immediate = match instruction.op1_kind() {
                OpKind::Immediate8to64 => instruction.immediate8to64(),
                OpKind::Immediate32to64 => instruction.immediate32to64(),
                _ => return None,
            };
            Some(if instruction.mnemonic() == Mnemonic::Sub { -immediate } else { immediate })
        }
        _ => None,
    }
}
