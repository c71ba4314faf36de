//! Whether a routine looks at an argument that it gets in a register: by its instructions, along every way from its entry on.
//!
//! Only what follows from the instructions alone counts. A register that is stored on the stack, as unoptimised code does with all of them, is not followed
//! further; a call ends a way, as it changes the register.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::carried::decode;

/// So many instructions are looked at in all.
const TOTAL: usize = 512;

/// Where the calling convention has a routine's first arguments.
const ARGUMENTS: [Register; 4] = [Register::RCX, Register::RDX, Register::R8, Register::R9];

/// Whether the routine at this address reads the register of this argument before it holds something else.
pub(crate) fn looks_at(routine: u64, argument: usize) -> bool {
    let register = ARGUMENTS[argument];
    let (mut seen, mut left) = (Vec::new(), vec![routine]);
    while let Some(at) = left.pop() {
        if seen.contains(&at) || seen.len() == TOTAL {
            continue;
        }
        seen.push(at);
        let Some(instruction) = decode(at) else { continue };
        match used(&instruction, register) {
            Use::Read => return true,
            Use::Overwritten => continue,
            Use::None => {}
        }
        match instruction.flow_control() {
            FlowControl::Next => left.push(instruction.next_ip()),
            FlowControl::UnconditionalBranch => left.push(instruction.near_branch_target()),
            FlowControl::ConditionalBranch => {
                left.extend([instruction.next_ip(), instruction.near_branch_target()]);
            }
            _ => {}
        }
    }
    false
}

/// What an instruction does to a register.
enum Use {
    None,
    Read,
    Overwritten,
}

fn used(instruction: &Instruction, register: Register) -> Use {
    let is_saved = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RSP
        && instruction.op1_kind() == OpKind::Register;
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let own = info.used_registers().iter().filter(|used| used.register().full_register() == register);
    let mut overwritten = false;
    for used in own {
        match used.access() {
            OpAccess::Write => overwritten = true,
            OpAccess::NoMemAccess | OpAccess::None => {}
            _ if is_saved => {}
            _ => return Use::Read,
        }
    }
    if overwritten { Use::Overwritten } else { Use::None }
}
