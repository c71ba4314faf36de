//! Sensitive instructions: what the engine does in their place. Each has retired when this returns `Ok`.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::classify::{Class, classify, is_serializing};
use super::emitter::Reg;
use super::exit::{charge, fault, go_on, return_to_stack_top, take_back};
use super::frame::Frame;
use super::site::is_device;
use super::strings::read;
use super::system;
use crate::guest::{Access, FaultKind, Guest, Special};
use crate::leave::Flow;
use crate::machine::state;
use crate::memory;
use crate::registers::number::{RAX, RCX, RDI, RDX, RSI, RSP};

const DIRECTION: u64 = 1 << 10;
const INTERRUPT: u64 = 1 << 9;
const TRAP: u64 = 1 << 8;
/// What `popfq` may change of the host's flags: the arithmetic ones, the direction and the identification flag.
pub(super) const SETTABLE: u64 = 0xCD5 | 1 << 21;

/// Performs the instruction and answers where to go on.
pub(super) fn perform(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    use Mnemonic as M;
    let guest = state().guest();
    if is_serializing(instruction) {
        take_back(1);
        guest.fence()?;
        charge(1);
    }
    match instruction.mnemonic() {
        M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => string(frame, instruction)?,
        M::Mov => return move_special(frame, instruction),
        M::Cli => guest.set_interrupt_flag(false)?,
        M::Sti => guest.set_interrupt_flag(true)?,
        M::Pushfq => push_flags(frame, 8)?,
        M::Popfq => pop_flags(frame, 8, instruction)?,
        M::Pushf => push_flags(frame, 2)?,
        M::Popf => pop_flags(frame, 2, instruction)?,
        M::Cpuid => identify(frame),
        M::Rdtsc => set_pair(frame, guest.special(Special::TimeStamp)?),
        M::Rdtscp => {
            set_pair(frame, guest.special(Special::TimeStamp)?);
            frame.registers.general[RCX] = guest.special(Special::ProcessorId)? & 0xFFFF_FFFF;
        }
        M::Xgetbv => {
            let number = low32(frame.registers.general[RCX]);
            set_pair(frame, guest.special(Special::ReadExtended(number))?);
        }
        M::Rdpmc => {
            let number = low32(frame.registers.general[RCX]);
            set_pair(frame, guest.special(Special::ReadCounter(number))?);
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
        _ => return system::perform(frame, instruction),
    }
    go_on(frame, instruction.next_ip())
}

#[inline]
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

/// `mov` to or from CR8, decoded once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(super) write: bool,
    pub(super) register: Reg,
    rip: u64,
    /// Of the instruction.
    length: u8,
}

impl Level {
    pub(super) fn of(instruction: &Instruction) -> Option<Self> {
        if classify(instruction) != Class::Level {
            return None;
        }
        let write = instruction.op0_register() == Register::CR8;
        let register = if write { instruction.op1_register() } else { instruction.op0_register() };
        let register = Reg(u8::try_from(register.number() & 15).expect("there are 16"));
        let length = u8::try_from(instruction.len()).expect("at most 15");
        Some(Self { write, register, rip: instruction.ip(), length })
    }

    /// Tells the guest the new level, and goes on behind the instruction.
    pub(super) fn perform(self, frame: &mut Frame) -> Flow<u64> {
        frame.rip = self.rip;
        state().guest().set_irql(frame.registers.general[usize::from(self.register.0)])?;
        go_on(frame, self.rip + u64::from(self.length))
    }
}

/// `in` or `out`, decoded once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    /// In the instruction; else it is in `dx`.
    number: Option<u8>,
    bytes: u8,
    out: bool,
    /// Of the instruction.
    length: u8,
}

impl Port {
    pub(super) fn of(instruction: &Instruction) -> Option<Self> {
        let out = match instruction.mnemonic() {
            Mnemonic::In => false,
            Mnemonic::Out => true,
            _ => return None,
        };
        let (port, data) = if out { (0, 1) } else { (1, 0) };
        let number = (instruction.op_kind(port) == OpKind::Immediate8).then(|| instruction.immediate8());
        let bytes = match instruction.op_register(data) {
            Register::AL => 1,
            Register::AX => 2,
            _ => 4,
        };
        let length = u8::try_from(instruction.len()).expect("at most 15");
        Some(Self { number, bytes, out, length })
    }

    /// Asks the guest; answers the instruction's length.
    #[inline]
    pub(super) fn perform<G: Guest>(self, guest: &G, frame: &mut Frame) -> Flow<u8> {
        let Self { number, bytes, out, length } = self;
        let port = number.map_or((frame.registers.general[RDX] & 0xFFFF) as u16, u16::from);
        let rax = &mut frame.registers.general[RAX];
        if out {
            guest.port_write(port, bytes, low32(*rax) & mask(bytes))?;
        } else {
            let value = guest.port_read(port, bytes)?;
            *rax = match bytes {
                1 => *rax & !0xFF | value & 0xFF,
                2 => *rax & !0xFFFF | value & 0xFFFF,
                _ => value,
            };
        }
        Ok(length)
    }
}

#[inline]
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
            let address = frame.registers.general[RDI];
            let data = &value.to_le_bytes()[..bytes.into()];
            if is_device(address) {
                guest.device_write(Access { address, bytes }, data)?;
            } else {
                store(frame, address, data)?;
            }
            step(frame, RDI, bytes);
        } else {
            let mut value = [0; 4];
            read(frame, frame.registers.general[RSI], &mut value[..bytes.into()])?;
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

fn push_flags(frame: &mut Frame, bytes: u8) -> Flow<()> {
    let interrupt = if state().guest().interrupt_flag() { INTERRUPT } else { 0 };
    let flags = frame.registers.flags & SETTABLE | interrupt | 2;
    let rsp = frame.registers.rsp().wrapping_sub(bytes.into());
    store(frame, rsp, &flags.to_le_bytes()[..bytes.into()])?;
    frame.registers.general[RSP] = rsp;
    Ok(())
}

fn pop_flags(frame: &mut Frame, bytes: u8, instruction: &Instruction) -> Flow<()> {
    let rsp = frame.registers.rsp();
    let mut flags = frame.registers.flags.to_le_bytes();
    load(frame, rsp, &mut flags[..bytes.into()])?;
    frame.registers.general[RSP] = rsp.wrapping_add(bytes.into());
    frame.rip = instruction.next_ip();
    set_flags(frame, u64::from_le_bytes(flags))
}

/// Sets the flags to what the driver wants; the instruction at `frame.rip` comes next, and a trap is reported there.
pub(super) fn set_flags(frame: &mut Frame, flags: u64) -> Flow<()> {
    frame.registers.flags = frame.registers.flags & !SETTABLE | flags & SETTABLE;
    let guest = state().guest();
    let on = flags & INTERRUPT != 0;
    if guest.interrupt_flag() != on {
        guest.set_interrupt_flag(on)?;
    }
    if flags & TRAP != 0 {
        return Err(fault(frame, FaultKind::Trap, frame.rip, ""));
    }
    Ok(())
}

/// `mov` from and to control and debug registers.
fn move_special(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let guest = state().guest();
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    let number = |register: Register| u8::try_from(register.number()).expect("control registers are few");
    let general = |register: Register| register.number() & 15;
    if from.is_cr() {
        frame.registers.general[general(to)] = guest.special(Special::ReadControl(number(from)))?;
    } else if to.is_cr() {
        let value = frame.registers.general[general(from)];
        guest.special(Special::WriteControl(number(to), value))?;
    } else if from.is_dr() {
        frame.registers.general[general(to)] = guest.special(Special::ReadDebug(number(from)))?;
    } else if to.is_dr() {
        let value = frame.registers.general[general(from)];
        guest.special(Special::WriteDebug(number(to), value))?;
    } else {
        return system::perform(frame, instruction);
    }
    go_on(frame, instruction.next_ip())
}
