//! What the driver's next instruction will do, decoded before it runs: for a guest that steps through driver code to find out
//! whether it only waits.
//!
//! Decodes one instruction; changes nothing. Whatever is not plainly a step inside driver code (an instruction of the
//! platform's, a device access, a repeated string, a masked move, x87 state) is [`Step::Other`].

use iced_x86::{CpuidFeature, InstructionInfoFactory, OpAccess, UsedMemory};

use super::classify::{Class, classify};
use super::frame::Frame;
use super::{innermost, site};
use crate::guest::{DriverState, Reference, Step};
use crate::memory::is_driver_memory;
use crate::processor;

/// All that driver code can see of the processor, at the innermost call-out. See [`crate::Engine::driver_state`].
pub(crate) fn driver_state() -> Option<DriverState> {
    let frame = innermost()?;
    let (vectors, control) = frame.vectors();
    Some(DriverState { rip: frame.rip, registers: frame.registers(), vectors, control })
}

/// See [`crate::Engine::next_step`].
pub(crate) fn next_step() -> Step {
    innermost().and_then(step).unwrap_or(Step::Other)
}

fn step(frame: &Frame) -> Option<Step> {
    let instruction = site::instruction_at(frame.rip)?;
    let rsp = frame.registers.rsp();
    let (pushes, lands) = match classify(&instruction) {
        Class::Plain => (instruction.is_stack_instruction(), None),
        Class::JumpIf | Class::CountedJump => (false, None),
        Class::Jump | Class::JumpIndirect => (false, Some(rsp)),
        Class::Call | Class::CallIndirect => (true, Some(rsp.wrapping_sub(8))),
        Class::Return => (false, Some(rsp.wrapping_add(8))),
        Class::Level | Class::CallOut | Class::Invalid | Class::NotImplemented => return None,
    };
    if processor::is_masked(&instruction) {
        return None;
    }
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if instruction.is_string_instruction() && repeated {
        return None;
    }
    // The stack of the x87 is no operand, and no part of the state that is compared.
    let x87 = [CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387];
    if instruction.cpuid_features().iter().any(|feature| x87.contains(feature)) {
        return None;
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&instruction);
    let known = |register: iced_x86::Register| {
        register.is_gpr() || register.is_xmm() || register.is_segment_register() || register.is_ip()
    };
    if !info.used_registers().iter().all(|used| known(used.register())) {
        return None;
    }
    let (mut loads, mut stores) = ([None; 2], [None; 2]);
    for memory in info.used_memory() {
        let (reads, writes) = match memory.access() {
            OpAccess::None | OpAccess::NoMemAccess => continue,
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write | OpAccess::CondWrite => (false, true),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        };
        let touch = touched(frame, memory)?;
        if reads {
            *loads.iter_mut().find(|slot| slot.is_none())? = Some(touch);
        }
        if writes {
            *stores.iter_mut().find(|slot| slot.is_none())? = Some(touch);
        }
    }
    Some(Step::Inside { loads, stores, pushes, lands })
}

fn touched(frame: &Frame, memory: &UsedMemory) -> Option<Reference> {
    let address = memory.virtual_address(0, |register, _, _| site::register(frame, register))?;
    let bytes = u8::try_from(memory.memory_size().size()).ok().filter(|bytes| (1..=32).contains(bytes))?;
    is_driver_memory(address, bytes.into()).then_some(Reference { address, bytes })
}
