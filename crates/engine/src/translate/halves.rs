//! Updates in two instructions: a load, and a store behind it that stores in the same place what follows from what was loaded. Another processor may come
//! between the two, as it may within `inc` without `lock`.
//!
//! Found by the instructions that follow the load in memory, up to the first that goes elsewhere. *Not found* is a store whose operand is named by
//! other registers, or by one that was loaded anew.

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::classify::{Class, classify};
use super::operands::{Operand, Operands, operands};
use crate::memory;

/// So many instructions behind a load are looked at.
const LOOKED_AT: usize = 12;
/// Bytes that they may take.
const BYTES: usize = 15 * LOOKED_AT;

/// The store that ends the update which this instruction begins, if it begins one.
pub(super) fn stored_back(load: &Instruction) -> Option<u64> {
    let loads =
        matches!(load.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd)
            && load.op1_kind() == OpKind::Memory
            && load.op0_register().is_gpr();
    if !loads {
        return None;
    }
    let place = only_operand(load)?;
    let mut follows = Follows(vec![load.op0_register().full_register()]);
    if follows.0.iter().any(|register| place.uses(*register)) {
        return None;
    }
    let mut code = [0; BYTES];
    let there = (1..=BYTES)
        .rev()
        .step_by(15)
        .find(|count| memory::peek(load.next_ip(), &mut code[..*count]).is_ok())?;
    let decoder = Decoder::with_ip(64, &code[..there], load.next_ip(), DecoderOptions::NONE);
    for instruction in decoder.into_iter().take(LOOKED_AT) {
        if instruction.is_invalid() || classify(&instruction) != Class::Plain || instruction.has_lock_prefix()
        {
            return None;
        }
        if stores_a_register(&instruction)
            && only_operand(&instruction).is_some_and(|other| is_same(&place, &other))
        {
            return follows.has(instruction.op1_register()).then(|| instruction.ip());
        }
        follows.after(&instruction, &place)?;
    }
    None
}

fn only_operand(instruction: &Instruction) -> Option<Operand> {
    match operands(instruction) {
        Operands::Some(all) => <[Operand; 1]>::try_from(all).ok().map(|[operand]| operand),
        _ => None,
    }
}

fn stores_a_register(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
}

fn is_same(one: &Operand, other: &Operand) -> bool {
    one.same_registers(other) && one.displacement == other.displacement && one.bytes == other.bytes
}

/// The registers whose values follow from what was loaded.
struct Follows(Vec<Register>);

impl Follows {
    fn has(&self, register: Register) -> bool {
        self.0.contains(&register.full_register())
    }

    /// What the instruction makes of them. None if the place that was loaded from cannot be named any more.
    fn after(&mut self, instruction: &Instruction, place: &Operand) -> Option<()> {
        let clears = matches!(instruction.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
            && instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register();
        let mut factory = InstructionInfoFactory::new();
        let used = factory.info(instruction).used_registers();
        let writes =
            |access: OpAccess| !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        let reads = |access: OpAccess| !matches!(access, OpAccess::Write | OpAccess::CondWrite);
        let is_address = |register: Register| {
            let named = [instruction.memory_base(), instruction.memory_index()];
            instruction.mnemonic() != Mnemonic::Lea && named.iter().any(|own| own.full_register() == register)
        };
        let follow = !clears
            && used.iter().any(|used| {
                let register = used.register().full_register();
                reads(used.access()) && !is_address(register) && self.has(register)
            });
        for written in used.iter().filter(|used| writes(used.access())) {
            let register = written.register().full_register();
            if place.uses(register) {
                return None;
            }
            self.0.retain(|known| *known != register);
            if follow && register.is_gpr() {
                self.0.push(register);
            }
        }
        Some(())
    }
}
