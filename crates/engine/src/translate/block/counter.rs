//! The register that holds the countdown while translated code runs, and the driver's instructions that name it.
//!
//! A head that subtracts in memory waits for the head before it, 5 to 8 cycles; in a register, one. `r13` is the general
//! register that compilers name least (1 % of the instructions of our drivers). Meanwhile the driver's own is a word of the
//! scratch page. An instruction that names it has that word as its operand where it can, else it is lent the register.
//! Stubs exchange the two on each way between driver and host: only code of this folder ever sees a countdown in `r13`.

use iced_x86::{Code, Encoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};

use super::Builder;
use crate::guest::FaultKind;
use crate::translate::cache::Saved;
use crate::translate::emitter::{self, Emitter, R13};
use crate::translate::scratch::{DRIVER_R13, HELD};
use crate::translate::{flags, host_cpu};

/// Whether the instruction names the register, or a part of it.
pub(in crate::translate) fn names(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|index| is(instruction.op_register(index))) || addresses_by(instruction)
}

/// Whether its memory operand does.
pub(super) fn addresses_by(instruction: &Instruction) -> bool {
    is(instruction.memory_base()) || is(instruction.memory_index())
}

pub(in crate::translate) fn is(register: Register) -> bool {
    register != Register::None && register.full_register() == Register::R13
}

/// From here on the register is the driver's.
pub(in crate::translate) fn lend(e: &mut Emitter) {
    e.store(HELD, R13);
    e.load(R13, DRIVER_R13);
}

/// From here on it is the countdown again; `changed` says whether the driver's has another value now.
pub(in crate::translate) fn take(e: &mut Emitter, changed: bool) {
    if changed {
        e.store(DRIVER_R13, R13);
    }
    e.load(R13, HELD);
}

impl Builder<'_> {
    /// An instruction that names the register: `index` is its place in the block.
    pub(super) fn encode_naming(&mut self, instruction: &Instruction, index: usize) -> Result<(), FaultKind> {
        if let Some(other) = in_memory(instruction) {
            return self.encode(&other);
        }
        lend(&mut self.cache.emitter);
        self.lent = true;
        self.map(index, Saved::Lent);
        let encoded = self.encode_here(instruction, index);
        self.lent = false;
        take(&mut self.cache.emitter, changes(instruction));
        encoded
    }

    /// An instruction of ours that takes the driver's registers and touches no memory.
    pub(super) fn encode_lea(&mut self, instruction: &Instruction) -> Result<(), FaultKind> {
        if !names(instruction) {
            return self.encode(instruction);
        }
        lend(&mut self.cache.emitter);
        self.encode(instruction)?;
        take(&mut self.cache.emitter, false);
        Ok(())
    }
}

fn changes(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let reads = |access| {
        matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
    };
    factory.info(instruction).used_registers().iter().any(|used| is(used.register()) && !reads(used.access()))
}

/// The same instruction with the word of the scratch page in place of the register, if there is one that does exactly the
/// same.
fn in_memory(instruction: &Instruction) -> Option<Instruction> {
    let mut operands = (0..instruction.op_count()).filter(|index| is(instruction.op_register(*index)));
    let (operand, more) = (operands.next()?, operands.next());
    let pins_bytes = matches!(
        instruction.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc | Mnemonic::Xchg | Mnemonic::Lea
    );
    if more.is_some() || addresses_by(instruction) || pins_bytes || flags::leaves_some_undefined(instruction)
    {
        return None;
    }
    let mut other = *instruction;
    if let Some(code) = turned(instruction, operand) {
        other.set_code(code);
    }
    let narrow = instruction.op_register(operand).is_gpr32();
    if narrow && changes(instruction) {
        return None; // it clears the upper half
    }
    other.set_op_kind(operand, iced_x86::OpKind::Memory);
    other.set_memory_base(Register::None);
    other.set_memory_index(Register::None);
    other.set_memory_index_scale(1);
    other.set_memory_displ_size(8);
    other.set_memory_displacement64(DRIVER_R13);
    // Not every operand may be memory. iced's table of opcodes knows, which takes 2 ms to make.
    Encoder::new(64).encode(&other, 0).ok()?;
    if host_cpu::loads_relative() && !changes(instruction) {
        other.set_memory_base(Register::RIP);
        other.set_memory_displacement64(emitter::read_address(DRIVER_R13));
    }
    Some(other)
}

/// The encoding of the same operation in which the operand may be memory, if it is not this very one.
fn turned(instruction: &Instruction, operand: u32) -> Option<Code> {
    use Code as C;
    let pairs = [
        (C::Mov_rm32_r32, C::Mov_r32_rm32),
        (C::Mov_rm64_r64, C::Mov_r64_rm64),
        (C::Add_rm32_r32, C::Add_r32_rm32),
        (C::Add_rm64_r64, C::Add_r64_rm64),
        (C::Sub_rm32_r32, C::Sub_r32_rm32),
        (C::Sub_rm64_r64, C::Sub_r64_rm64),
        (C::Cmp_rm32_r32, C::Cmp_r32_rm32),
        (C::Cmp_rm64_r64, C::Cmp_r64_rm64),
        (C::And_rm32_r32, C::And_r32_rm32),
        (C::And_rm64_r64, C::And_r64_rm64),
        (C::Or_rm32_r32, C::Or_r32_rm32),
        (C::Or_rm64_r64, C::Or_r64_rm64),
        (C::Xor_rm32_r32, C::Xor_r32_rm32),
        (C::Xor_rm64_r64, C::Xor_r64_rm64),
    ];
    let code = instruction.code();
    match (code, operand) {
        (C::Push_r64, 0) => return Some(C::Push_rm64),
        (C::Pop_r64, 0) => return Some(C::Pop_rm64),
        _ => {}
    }
    let registers = instruction.op0_kind() == iced_x86::OpKind::Register;
    let found = |(from, to)| match operand {
        1 if code == from && registers => Some(to),
        // The other way round: a destination in the register field.
        0 if code == to && instruction.op1_kind() == iced_x86::OpKind::Register => Some(from),
        _ => None,
    };
    pairs.into_iter().find_map(found)
}
