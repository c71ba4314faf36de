//! Counters: numbers that are only added to. Where one loses an update because nothing orders two of them, that is advice, not something wrong: it is how
//! many drivers keep statistics. What comes of it where the number matters (a block that is freed too early) is found as what it is.

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use image::Image;

/// How far in front of a store the instruction is looked for that makes its value.
const BACK: usize = 12;

/// Whether the instruction at this offset adds to a number in memory, or stores a sum.
#[must_use]
pub(super) fn is_counted(image: &Image, rva: u32) -> bool {
    let Some(function) = image.function_at(rva) else { return false };
    let Some(section) = image.section_at(function.begin) else { return false };
    let at = (function.begin - section.rva) as usize;
    let Some(bytes) = image.section_data(section).get(at..) else { return false };
    let decoder = Decoder::with_ip(64, bytes, function.begin.into(), DecoderOptions::NONE);
    let all: Vec<Instruction> = decoder.into_iter().take_while(|it| it.ip() <= rva.into()).collect();
    let Some((store, before)) = all.split_last().filter(|(last, _)| last.ip() == u64::from(rva)) else {
        return false;
    };
    if store.op0_kind() != OpKind::Memory {
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

fn adds(it: &Instruction) -> bool {
    matches!(it.mnemonic(), Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Add | Mnemonic::Sub)
}
