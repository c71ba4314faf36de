//! Instructions that have touched device memory (or `KUSER_SHARED_DATA`): learned at their first fault.
//!
//! Each execution asks where the operand lies now: in the block itself where the operand is explicit. On RAM the original
//! instruction runs. A [`Move`] between a device and a general register is done here. For everything else the same instruction
//! runs with its operand replaced by the scratch page, between a read from the device (if it reads) and a write to it (if it
//! writes): no semantics are written by hand. String instructions, whose operands are implicit, are done by [`strings`]. Bit
//! tests with a register offset (which moves the address), masked moves and gathers (see [`super::elements`]) are refused by
//! name.

use iced_x86::{Code, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::block;
use super::classify::{Class, classify, is_interlocked};
use super::elements::elements;
use super::exit::{charge, fault, go_on, refuse};
use super::frame::Frame;
use super::scratch::{DEVICE as SCRATCH_DATA, scratch};
use super::strings;
use crate::guest::{Access, FaultKind, Guest};
use crate::leave::Flow;
use crate::machine::state;
use crate::processor;
use crate::windows;
use iced_x86::Instruction;

/// Remembers the instruction at `rip`. False if it was known already, so that its body cannot be helped.
pub(super) fn learn(rip: u64) -> bool {
    let new = state().translator.with(|cache| cache.sites.insert(rip));
    if new {
        state().translator.flush();
    }
    new
}

pub(super) fn is_device(address: u64) -> bool {
    windows::is_call_out(address)
}

/// Whether the block itself tests where the operand lies, and comes here for a device only.
pub(super) fn is_inline(instruction: &Instruction) -> bool {
    operand(instruction).is_some()
        && !instruction.is_string_instruction()
        && !matches!(instruction.memory_segment(), Register::FS | Register::GS)
        && !moves_by_bit(instruction)
        && by_operand(instruction.code()).is_none()
}

/// A move between the accumulator and an absolute address of 64 bits, as compilers read `KUSER_SHARED_DATA`: the same with an
/// operand that can lie elsewhere.
fn by_operand(code: Code) -> Option<Code> {
    Some(match code {
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_RAX_moffs64 => Code::Mov_r64_rm64,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Mov_moffs64_RAX => Code::Mov_rm64_r64,
        _ => return None,
    })
}

/// `lea rcx, operand`.
pub(super) fn address_in_rcx(instruction: &Instruction) -> Instruction {
    let mut lea = Instruction::default();
    lea.set_code(Code::Lea_r64_m);
    lea.set_op0_kind(OpKind::Register);
    lea.set_op0_register(Register::RCX);
    lea.set_op1_kind(OpKind::Memory);
    lea.set_memory_base(instruction.memory_base());
    lea.set_memory_index(instruction.memory_index());
    lea.set_memory_index_scale(instruction.memory_index_scale());
    lea.set_memory_displacement64(instruction.memory_displacement64());
    lea.set_memory_displ_size(instruction.memory_displ_size());
    lea
}

/// A learned instruction is about to run, on a device if its block could test that.
pub(super) fn enter(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    if instruction.is_string_instruction() {
        return strings::perform(frame, instruction);
    }
    let Some(address) = on_device(frame, instruction) else {
        return Ok(body(instruction, false));
    };
    let operand = operand(instruction).expect("it has an address");
    if operand.bytes == 0 {
        return refuse(frame, instruction, FaultKind::NotImplemented);
    }
    around(instruction, operand, address)
}

/// Where its explicit operand lies, if that is a device.
fn on_device(frame: &Frame, instruction: &Instruction) -> Option<u64> {
    let address = address_of(frame, instruction, memory_operand(instruction)?)?;
    is_device(address).then_some(address)
}

pub(super) fn is_on_device(frame: &Frame, instruction: &Instruction) -> bool {
    on_device(frame, instruction).is_some()
}

/// Any other instruction on a device: between a read, if it reads, and a write, if it writes (see [`done`]).
fn around(instruction: &Instruction, operand: Operand, address: u64) -> Flow<u64> {
    let mut data = [0; 64];
    if operand.reads {
        let access = Access { address, bytes: operand.bytes };
        state().guest().device_read(access, &mut data[..operand.bytes.into()])?;
    }
    scratch().device.0.set(data);
    scratch().target.set(address);
    Ok(body(instruction, true))
}

/// The body of a learned instruction has run; on a device, what it stored goes there.
pub(super) fn done(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let address = scratch().target.replace(0);
    if is_device(address) {
        let guest = state().guest();
        let operand = operand(instruction).expect("the body was made for it");
        if operand.writes {
            let data = scratch().device.0.get();
            let access = Access { address, bytes: operand.bytes };
            guest.device_write(access, &data[..operand.bytes.into()])?;
        }
        if is_interlocked(instruction) {
            guest.fence()?;
        }
        guest.accessed()?;
    }
    go_on(frame, instruction.next_ip())
}

/// Runs the instruction at `frame.rip` alone, before anything is translated anew: it writes to a page that holds code.
pub(super) fn step_over(frame: &mut Frame) -> Flow<u64> {
    let instruction = instruction_at(frame.rip).filter(|instruction| classify(instruction) == Class::Plain);
    let Some(instruction) = instruction else {
        let what = "a call or a jump whose stack or operand lies in its own code";
        return Err(fault(frame, FaultKind::NotImplemented, frame.rip, what));
    };
    charge(1);
    Ok(body(&instruction, false))
}

/// An instruction that has been charged runs by itself, on no device.
pub(super) fn alone(instruction: &Instruction) -> u64 {
    body(instruction, false)
}

/// The translated body: on the scratch page, or the original.
pub(super) fn body(instruction: &Instruction, on_scratch: bool) -> u64 {
    let translator = &state().translator;
    if !on_scratch {
        scratch().target.set(0);
    }
    let key = (instruction.ip(), on_scratch);
    if let Some(made) = translator.with(|cache| cache.site_bodies.get(&key).copied()) {
        return made;
    }
    translator.make_room();
    translator.with(|cache| {
        let body = if on_scratch { redirected(instruction) } else { *instruction };
        let made = block::translate_site(cache, instruction, &body);
        cache.site_bodies.insert(key, made);
        made
    })
}

fn redirected(instruction: &Instruction) -> Instruction {
    let mut body = *instruction;
    if let Some(code) = by_operand(instruction.code()) {
        body.set_code(code);
    }
    body.set_segment_prefix(Register::None);
    body.set_memory_base(Register::None);
    body.set_memory_index(Register::None);
    body.set_memory_index_scale(1);
    body.set_memory_displ_size(8);
    body.set_memory_displacement64(SCRATCH_DATA);
    body
}

/// What an instruction does with its memory operand; found out once, when it is translated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    /// Which operand it is.
    index: u32,
    /// Bytes; 0 if no device is asked for so many.
    bytes: u8,
    pub(super) reads: bool,
    writes: bool,
}

/// A move between a general register and a device: what nearly all accesses are, decoded once and done here in one go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    way: Way,
    /// The register's number, and how much of it is loaded.
    register: u8,
    register_bytes: u8,
    /// Of the access.
    bytes: u8,
    /// Of the instruction.
    length: u8,
    /// What [`Way::StoreConstant`] stores.
    constant: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `mov`, `movzx` to a register.
    Load,
    /// `movsx`.
    LoadSigned,
    /// `mov` from the low part of a register.
    Store,
    /// `mov` of a constant.
    StoreConstant,
}

impl Move {
    pub(super) fn of(instruction: &Instruction) -> Option<Self> {
        let low = |register: Register| {
            let high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
            let number = u8::try_from(register.full_register().number()).ok()?;
            (register.is_gpr() && !high).then_some((number, u8::try_from(register.size()).ok()?))
        };
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        let (way, register) = match (instruction.mnemonic(), instruction.op0_kind(), instruction.op1_kind()) {
            (Mnemonic::Mov | Mnemonic::Movzx, OpKind::Register, OpKind::Memory) => (Way::Load, low(to)?),
            (Mnemonic::Movsx | Mnemonic::Movsxd, OpKind::Register, OpKind::Memory) => {
                (Way::LoadSigned, low(to)?)
            }
            (Mnemonic::Mov, OpKind::Memory, OpKind::Register) => (Way::Store, low(from)?),
            (Mnemonic::Mov, OpKind::Memory, _) => (Way::StoreConstant, (0, 0)),
            _ => return None,
        };
        let bytes = u8::try_from(instruction.memory_size().size()).ok()?;
        let constant = if way == Way::StoreConstant { instruction.immediate(1) } else { 0 };
        let length = u8::try_from(instruction.len()).ok()?;
        Some(Self { way, register: register.0, register_bytes: register.1, bytes, length, constant })
    }

    /// Asks the guest for what lies at `scratch.target`, or tells it; answers the instruction's length.
    #[inline]
    pub(super) fn perform<G: Guest>(self, guest: &G, frame: &mut Frame) -> Flow<u8> {
        let access = Access { address: scratch().target.get(), bytes: self.bytes };
        let number = usize::from(self.register & 15);
        match self.way {
            Way::Load => {
                let value = guest.device_load(access)?;
                load_register(&mut frame.registers.general[number], self.register_bytes, value);
            }
            Way::LoadSigned => {
                let value = extended(guest.device_load(access)?, self.bytes);
                load_register(&mut frame.registers.general[number], self.register_bytes, value);
            }
            Way::Store => guest.device_store(access, frame.registers.general[number])?,
            Way::StoreConstant => guest.device_store(access, self.constant)?,
        }
        Ok(self.length)
    }
}

/// The sign of the low `bytes` in all bits above them.
#[inline]
fn extended(value: u64, bytes: u8) -> u64 {
    let unused = 64 - 8 * u32::from(bytes);
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}

/// Writes the low `bytes` of a register as the processor does: 4 clear the upper half, 1 and 2 leave the rest alone.
#[inline]
fn load_register(register: &mut u64, bytes: u8, value: u64) {
    *register = match bytes {
        8 => value,
        4 => value & 0xFFFF_FFFF,
        bytes => {
            let mask = (1 << (8 * u32::from(bytes))) - 1;
            *register & !mask | value & mask
        }
    };
}

/// The explicit memory operand; string instructions have none.
pub(crate) fn operand(instruction: &Instruction) -> Option<Operand> {
    let index = memory_operand(instruction)?;
    let (reads, writes) = match InstructionInfoFactory::new().info(instruction).op_access(index) {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write => (false, true),
        OpAccess::NoMemAccess | OpAccess::None => (false, false),
        _ => (true, true),
    };
    let bytes = match u8::try_from(instruction.memory_size().size()) {
        Ok(bytes @ 1..=64) if !moves_by_bit(instruction) => bytes,
        _ => 0,
    };
    Some(Operand { index, bytes, reads, writes })
}

/// Which operand lies in memory.
fn memory_operand(instruction: &Instruction) -> Option<u32> {
    (0..instruction.op_count()).find(|index| instruction.op_kind(*index) == OpKind::Memory)
}

fn moves_by_bit(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && instruction.op1_kind() == OpKind::Register
}

pub(super) fn address_of(frame: &Frame, instruction: &Instruction, operand: u32) -> Option<u64> {
    instruction.virtual_address(operand, 0, |register, _, _| self::register(frame, register))
}

/// What a register adds to an address.
pub(super) fn register(frame: &Frame, register: Register) -> Option<u64> {
    if register.is_segment_register() {
        return Some(if register == Register::GS { crate::signals::gs() } else { 0 });
    }
    let value = frame.registers.general.get(register.full_register().number())?;
    Some(match register {
        narrow if narrow.is_gpr32() => value & 0xFFFF_FFFF,
        narrow if narrow.is_gpr16() => value & 0xFFFF,
        Register::AL => value & 0xFF,
        _ => *value,
    })
}

/// The address that the instruction at `frame.rip` refers to: for a fault whose address the processor does not tell.
pub(super) fn operand_of(frame: &Frame) -> Option<u64> {
    let instruction = instruction_at(frame.rip)?;
    if processor::is_masked(&instruction) {
        let elements = elements(frame, &instruction);
        let first = elements.iter().find(|element| !is_canonical(element.address)).or(elements.first());
        return first.map(|element| element.address);
    }
    address_of(frame, &instruction, operand(&instruction)?.index)
}

/// Whether a processor with 48 bits of address has it.
pub(super) const fn is_canonical(address: u64) -> bool {
    (address << 16).cast_signed() >> 16 == address.cast_signed()
}

pub(super) fn instruction_at(rip: u64) -> Option<Instruction> {
    let mut bytes = [0; 15];
    let available = (1..=15).rev().find(|n| crate::memory::peek(rip, &mut bytes[..*n]).is_ok())?;
    let cpu = state().cpu.get();
    let mut decoder = iced_x86::Decoder::with_ip(64, &bytes[..available], rip, cpu.decoding());
    Some(cpu.understood(decoder.decode()))
}
