//! Sensitive instructions: what the engine does in their place. Each has retired when this returns `Ok`.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::exit::{fault, go_on, refuse, return_to_stack_top, take_back};
use super::frame::Frame;
use crate::guest::{FaultKind, Special};
use crate::leave::Flow;
use crate::machine::state;
use crate::memory;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;

const DIRECTION: u64 = 1 << 10;
const INTERRUPT: u64 = 1 << 9;
const TRAP: u64 = 1 << 8;
/// What `popfq` may change of the host's flags: the arithmetic ones, the direction and the identification flag.
const SETTABLE: u64 = 0xCD5 | 1 << 21;

/// Performs the instruction and answers where to go on.
pub(super) fn perform(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    use Mnemonic as M;
    let guest = state().guest();
    match instruction.mnemonic() {
        M::In => port_in(frame, instruction)?,
        M::Out => port_out(frame, instruction)?,
        M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => string(frame, instruction)?,
        M::Mov => return move_special(frame, instruction),
        M::Cli => guest.set_interrupt_flag(false)?,
        M::Sti => guest.set_interrupt_flag(true)?,
        M::Pushfq => push_flags(frame)?,
        M::Popfq => pop_flags(frame)?,
        M::Cpuid => identify(frame),
        M::Rdtsc => set_pair(frame, guest.special(Special::TimeStamp)?),
        M::Rdtscp => {
            set_pair(frame, guest.special(Special::TimeStamp)?);
            frame.registers.general[RCX] = guest.special(Special::ProcessorId)? & 0xFFFF_FFFF;
        }
        M::Rdmsr => {
            let number = low32(frame.registers.general[RCX]);
            set_pair(frame, guest.special(Special::ReadMsr(number))?);
        }
        M::Wrmsr => {
            let general = &frame.registers.general;
            let value = general[RDX] << 32 | general[RAX] & 0xFFFF_FFFF;
            guest.special(Special::WriteMsr(low32(general[RCX]), value))?;
        }
        M::Hlt => drop(guest.special(Special::Halt)?),
        M::Int3 => drop(guest.special(Special::Interrupt(3))?),
        M::Int => drop(guest.special(Special::Interrupt(instruction.immediate8()))?),
        M::Ret => return return_to_stack_top(frame, instruction.immediate16().into()),
        _ => return refuse(frame, instruction, FaultKind::NotImplemented),
    }
    go_on(frame, instruction.next_ip())
}

fn low32(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

/// `edx:eax`.
fn set_pair(frame: &mut Frame, value: u64) {
    frame.registers.general[RAX] = value & 0xFFFF_FFFF;
    frame.registers.general[RDX] = value >> 32;
}

fn identify(frame: &mut Frame) {
    let general = &mut frame.registers.general;
    let [eax, ebx, ecx, edx] = state().guest().cpuid(low32(general[RAX]), low32(general[RCX]));
    general[RAX] = eax.into();
    general[3] = ebx.into();
    general[RCX] = ecx.into();
    general[RDX] = edx.into();
}

/// The width of `al`, `ax` or `eax`.
fn width_of(register: Register) -> u8 {
    match register {
        Register::AL => 1,
        Register::AX => 2,
        _ => 4,
    }
}

fn port_of(frame: &Frame, instruction: &Instruction, operand: u32) -> u16 {
    if instruction.op_kind(operand) == OpKind::Immediate8 {
        instruction.immediate8().into()
    } else {
        (frame.registers.general[RDX] & 0xFFFF) as u16
    }
}

fn port_in(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let guest = state().guest();
    let bytes = width_of(instruction.op0_register());
    let value = u64::from(guest.port_read(port_of(frame, instruction, 1), bytes)?);
    let rax = &mut frame.registers.general[RAX];
    *rax = match bytes {
        1 => *rax & !0xFF | value & 0xFF,
        2 => *rax & !0xFFFF | value & 0xFFFF,
        _ => value,
    };
    guest.accessed()
}

fn port_out(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let guest = state().guest();
    let bytes = width_of(instruction.op1_register());
    let value = low32(frame.registers.general[RAX]) & mask(bytes);
    guest.port_write(port_of(frame, instruction, 0), bytes, value)?;
    guest.accessed()
}

fn mask(bytes: u8) -> u32 {
    match bytes {
        1 => 0xFF,
        2 => 0xFFFF,
        _ => 0xFFFF_FFFF,
    }
}

/// `ins`, `outs`, with and without `rep`: one element after the other. Registers are updated after each, so that a
/// fault leaves them as the processor would.
fn string(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let (input, bytes) = match instruction.mnemonic() {
        Mnemonic::Insb => (true, 1),
        Mnemonic::Insw => (true, 2),
        Mnemonic::Insd => (true, 4),
        Mnemonic::Outsb => (false, 1),
        Mnemonic::Outsw => (false, 2),
        _ => (false, 4),
    };
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    while !repeated || frame.registers.general[RCX] != 0 {
        let guest = state().guest();
        let port = (frame.registers.general[RDX] & 0xFFFF) as u16;
        if input {
            let value = guest.port_read(port, bytes)?;
            store(frame, frame.registers.general[RDI], &value.to_le_bytes()[..bytes.into()])?;
            step(frame, RDI, bytes);
        } else {
            let mut value = [0; 4];
            load(frame, frame.registers.general[RSI], &mut value[..bytes.into()])?;
            guest.port_write(port, bytes, u32::from_le_bytes(value))?;
            step(frame, RSI, bytes);
        }
        guest.accessed()?;
        if !repeated {
            break;
        }
        frame.registers.general[RCX] -= 1;
    }
    Ok(())
}

/// Moves an index register by one element, in the direction the flag says.
pub(super) fn step(frame: &mut Frame, register: usize, bytes: u8) {
    let index = &mut frame.registers.general[register];
    let bytes = u64::from(bytes);
    *index = if frame.registers.flags & DIRECTION == 0 {
        index.wrapping_add(bytes)
    } else {
        index.wrapping_sub(bytes)
    };
}

/// Loads from the driver's memory on behalf of its instruction.
pub(super) fn load(frame: &mut Frame, address: u64, into: &mut [u8]) -> Flow<()> {
    memory::read(address, into).map_err(|_| {
        take_back(1);
        fault(frame, FaultKind::Read, address, "")
    })
}

/// Stores to the driver's memory on behalf of its instruction.
pub(super) fn store(frame: &mut Frame, address: u64, from: &[u8]) -> Flow<()> {
    memory::write(address, from).map_err(|_| {
        take_back(1);
        fault(frame, FaultKind::Write, address, "")
    })
}

fn push_flags(frame: &mut Frame) -> Flow<()> {
    let interrupt = if state().guest().interrupt_flag() { INTERRUPT } else { 0 };
    let flags = frame.registers.flags & SETTABLE | interrupt | 2;
    let rsp = frame.registers.rsp().wrapping_sub(8);
    store(frame, rsp, &flags.to_le_bytes())?;
    frame.registers.general[RSP] = rsp;
    Ok(())
}

fn pop_flags(frame: &mut Frame) -> Flow<()> {
    let rsp = frame.registers.rsp();
    let mut flags = [0; 8];
    load(frame, rsp, &mut flags)?;
    let flags = u64::from_le_bytes(flags);
    if flags & TRAP != 0 {
        return Err(fault(frame, FaultKind::NotImplemented, frame.rip, "popfq with the trap flag"));
    }
    frame.registers.general[RSP] = rsp.wrapping_add(8);
    frame.registers.flags = frame.registers.flags & !SETTABLE | flags & SETTABLE;
    let guest = state().guest();
    let on = flags & INTERRUPT != 0;
    if guest.interrupt_flag() == on { Ok(()) } else { guest.set_interrupt_flag(on) }
}

/// `mov` from and to control, debug and segment registers.
fn move_special(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let guest = state().guest();
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    let number = |register: Register| u8::try_from(register.number()).expect("control registers are few");
    let general = |register: Register| register.number() & 15;
    if from.is_segment_register() && instruction.op0_kind() == OpKind::Register {
        let selector = selector(from);
        let target = &mut frame.registers.general[general(to)];
        *target = if to.is_gpr16() { *target & !0xFFFF | selector } else { selector };
    } else if from.is_cr() {
        let value = match number(from) {
            8 => guest.irql().into(),
            cr => guest.special(Special::ReadControl(cr))?,
        };
        frame.registers.general[general(to)] = value;
    } else if to.is_cr() {
        let value = frame.registers.general[general(from)];
        match number(to) {
            8 => guest.set_irql(value)?,
            cr => drop(guest.special(Special::WriteControl(cr, value))?),
        }
    } else if from.is_dr() {
        frame.registers.general[general(to)] = guest.special(Special::ReadDebug(number(from)))?;
    } else if to.is_dr() {
        let value = frame.registers.general[general(from)];
        guest.special(Special::WriteDebug(number(to), value))?;
    } else {
        return refuse(frame, instruction, FaultKind::NotImplemented);
    }
    go_on(frame, instruction.next_ip())
}

/// The selectors that x64 Windows loads in kernel mode.
fn selector(segment: Register) -> u64 {
    match segment {
        Register::CS => 0x10,
        Register::SS => 0x18,
        Register::FS => 0x53,
        _ => 0x2B,
    }
}
