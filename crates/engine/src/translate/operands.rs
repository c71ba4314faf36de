//! Which memory an instruction touches, explicitly and by its nature (stack, string registers): what a check needs.

use iced_x86::{
    CodeSize, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic, OpAccess, OpKind, Register,
    UsedMemory,
};

use super::classify::{Class, classify};
use crate::processor;

/// One access, by the registers that name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Operand {
    /// Relative to `gs`.
    pub(super) gs: bool,
    /// `Register::None` for an address known now.
    pub(super) base: Register,
    pub(super) index: Register,
    scale: u32,
    pub(super) displacement: i64,
    /// 1 to 64.
    pub(super) bytes: u32,
    /// It stores, or loads and stores.
    pub(super) write: bool,
}

/// What an instruction touches.
pub(super) enum Operands {
    /// No memory.
    None,
    /// These.
    Some(Vec<Operand>),
    /// What only its registers tell when it runs: repeated strings, bit offsets, tables.
    Implicit,
}

impl Operand {
    fn new(used: &UsedMemory) -> Option<Self> {
        let plain =
            |register: Register| register == Register::None || register.is_gpr64() || register.is_gpr32();
        let bytes = u32::try_from(used.memory_size().size()).ok().filter(|bytes| (1..=64).contains(bytes))?;
        if !plain(used.base()) || !plain(used.index()) || used.address_size() == CodeSize::Code16 {
            return None;
        }
        let narrow = used.address_size() == CodeSize::Code32;
        let named = used.base() != Register::None || used.index() != Register::None;
        let displacement = match used.displacement() {
            low if narrow && named => i64::from(((low & 0xFFFF_FFFF) as u32).cast_signed()),
            all => all.cast_signed(),
        };
        let gs = used.segment() == Register::GS;
        let near = i32::try_from(displacement).is_ok_and(|near| near < i32::MAX - 64);
        if !near && (named || gs) {
            return None;
        }
        Some(Self {
            gs,
            base: used.base(),
            index: used.index(),
            scale: used.scale(),
            displacement,
            bytes,
            write: writes(used.access()),
        })
    }

    /// Its bytes in pieces that a register holds: offset and length.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u32, u32)> {
        let bytes = self.bytes;
        let mut offset = 0;
        std::iter::from_fn(move || {
            let length = [8, 4, 2, 1].into_iter().find(|length| *length <= bytes - offset)?;
            offset += length;
            Some((offset - length, length))
        })
    }

    /// As an operand of `lea`, which knows no segment.
    pub(super) fn memory(&self) -> MemoryOperand {
        let size = u32::from(self.displacement != 0);
        MemoryOperand::new(self.base, self.index, self.scale, self.displacement, size, false, Register::None)
    }

    pub(super) fn same_registers(&self, other: &Self) -> bool {
        let key = |o: &Self| (o.gs, o.base, o.index, o.scale);
        key(self) == key(other)
    }

    pub(super) fn uses(&self, register: Register) -> bool {
        [self.base, self.index].iter().any(|own| *own != Register::None && own.full_register() == register)
    }
}

pub(super) const fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// What `instruction` touches.
pub(super) fn operands(instruction: &Instruction) -> Operands {
    if classify(instruction) == Class::JumpIndirect {
        return jump_indirect(instruction);
    }
    let used = touched(instruction);
    if used.is_empty() {
        return Operands::None;
    }
    let repeated = instruction.is_string_instruction()
        && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
    let masked = processor::is_masked(instruction);
    if repeated || masked || moves_by_bit(instruction) {
        return Operands::Implicit;
    }
    used.iter().map(Operand::new).collect::<Option<Vec<_>>>().map_or(Operands::Implicit, Operands::Some)
}

/// The operand, and the top of the stack: where it goes may be an export, which stores its arguments there.
fn jump_indirect(instruction: &Instruction) -> Operands {
    let used = touched(instruction);
    let stack = Operand {
        gs: false,
        base: Register::RSP,
        index: Register::None,
        scale: 1,
        displacement: 0,
        bytes: 8,
        write: false,
    };
    let operands: Option<Vec<_>> = used.iter().map(Operand::new).chain([Some(stack)]).collect();
    operands.map_or(Operands::Implicit, Operands::Some)
}

/// The memory that it touches, without what is only computed, or fetched in advance.
pub(super) fn touched(instruction: &Instruction) -> Vec<UsedMemory> {
    InstructionInfoFactory::new()
        .info(instruction)
        .used_memory()
        .iter()
        .filter(|used| !matches!(used.access(), OpAccess::None | OpAccess::NoMemAccess))
        .copied()
        .collect()
}

/// `bt m, r` and its kind: the bit's number moves the address.
pub(super) fn moves_by_bit(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
}
