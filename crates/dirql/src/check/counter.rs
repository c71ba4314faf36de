//! Counters: numbers that are only added to. Where one loses an update because nothing orders two of them, that is advice, not something wrong: it is how
//! many drivers keep statistics. Not so where the routine itself goes by the number: compares it, or finds an element by it. What comes of other numbers that
//! matter (a block that is freed too early) is found as what it is.

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    UsedMemory, UsedRegister,
};
use image::Image;

/// How far in front of a store the instruction is looked for that makes its value.
const BACK: usize = 12;

/// Behind a load of the number, so far the register is followed that it is in.
const AHEAD: usize = 16;

/// Whether the instruction at this offset adds to a number in memory, or stores a sum, and the routine does not go by that number.
#[must_use]
pub(super) fn is_counted(image: &Image, rva: u32) -> bool {
    let Some(function) = image.function_at(rva) else { return false };
    let Some(section) = image.section_at(function.begin) else { return false };
    let at = (function.begin - section.rva) as usize;
    let Some(bytes) = image.section_data(section).get(at..) else { return false };
    let decoder = Decoder::with_ip(64, bytes, function.begin.into(), DecoderOptions::NONE);
    let all: Vec<Instruction> = decoder.into_iter().take_while(|it| it.ip() < function.end.into()).collect();
    let Some(place) = all.iter().position(|it| it.ip() == u64::from(rva)) else { return false };
    let (before, store) = (&all[..place], &all[place]);
    if store.op0_kind() != OpKind::Memory || goes_by(&all, store) {
        return false;
    }
    if adds(store) {
        return true;
    }
    if store.mnemonic() != Mnemonic::Mov || store.op1_kind() != OpKind::Register {
        return false;
    }
    let value = store.op1_register().full_register();
    let mut factory = InstructionInfoFactory::new();
    let made = before.iter().rev().take(BACK).find(|it| {
        let used = factory.info(it).used_registers();
        let writes = |access| !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        used.iter().any(|used| used.register().full_register() == value && writes(used.access()))
    });
    made.is_some_and(|it| adds(it) || it.mnemonic() == Mnemonic::Lea)
}

/// Whether any of these instructions compares the number that `store` stores, or finds memory by it: where it is, or in the register it was loaded into.
fn goes_by(all: &[Instruction], store: &Instruction) -> bool {
    let place = |it: &Instruction| (it.memory_base(), it.memory_index(), it.memory_displacement64());
    let is_it = |it: &Instruction| {
        let of_memory = |operand| it.op_kind(operand) == OpKind::Memory;
        (0..it.op_count()).any(of_memory) && place(it) == place(store)
    };
    let mut factory = InstructionInfoFactory::new();
    all.iter().enumerate().filter(|(_, it)| is_it(it)).any(|(at, it)| {
        if compares(it) {
            return true;
        }
        if !matches!(it.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsxd)
            || it.op0_kind() != OpKind::Register
        {
            return false;
        }
        let number = it.op0_register().full_register();
        for behind in all[at + 1..].iter().take(AHEAD) {
            let info = factory.info(behind);
            let is_used = info.used_registers().iter().any(|used| used.register().full_register() == number);
            let finds = |used: &UsedMemory| {
                let registers = [used.base(), used.index()].map(Register::full_register);
                used.access() != OpAccess::NoMemAccess && registers.contains(&number)
            };
            if is_used && compares(behind) || info.used_memory().iter().any(finds) {
                return true;
            }
            let is_new = |used: &UsedRegister| {
                used.register().full_register() == number && used.access() == OpAccess::Write
            };
            if info.used_registers().iter().any(is_new) {
                return false;
            }
        }
        false
    })
}

fn compares(it: &Instruction) -> bool {
    matches!(it.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
}

fn adds(it: &Instruction) -> bool {
    matches!(it.mnemonic(), Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Add | Mnemonic::Sub)
}
