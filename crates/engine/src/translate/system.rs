//! Instructions of an operating system: descriptor tables, segments, far transfers, system calls.
//!
//! What changes nothing, or only what a driver may change, is done here, with the selectors and descriptors of x64 Windows.
//! What takes the processor away from the kernel is the guest's to judge. Task switches and gates are not here: x64 has none.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::callout::{load, set_flags, store};
use super::exit::{fault, go_on, name_of, refuse, take_back};
use super::frame::Frame;
use super::site;
use crate::guest::{FaultKind, Special, Table, TakeOver};
use crate::leave::Flow;
use crate::machine::state;
use crate::memory;
use crate::registers::number::{RSI, RSP};

const ZERO: u64 = 1 << 6;

const KERNEL_CODE: u16 = 0x10;
const KERNEL_DATA: u16 = 0x18;
const USER_DATA: u16 = 0x2B;
const TASK: u16 = 0x40;
const THREAD_BLOCK: u16 = 0x53;
/// Of the descriptor tables.
const GLOBAL_LIMIT: u16 = 0x57;
const INTERRUPT_LIMIT: u16 = 0xFFF;

/// Performs the instruction and answers where to go on.
pub(super) fn perform(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Sgdt => table(frame, instruction, Table::Global, GLOBAL_LIMIT)?,
        M::Sidt => table(frame, instruction, Table::Interrupt, INTERRUPT_LIMIT)?,
        M::Sldt => put(frame, instruction, 0)?,
        M::Str => put(frame, instruction, TASK.into())?,
        M::Smsw => {
            let value = state().guest().special(Special::ReadControl(0))?;
            put(frame, instruction, value)?;
        }
        M::Lmsw => machine_status(frame, instruction)?,
        M::Lar | M::Lsl | M::Verr | M::Verw => about_selector(frame, instruction)?,
        // What they empty does not exist, or is empty: caches of memory and of addresses, the task-switched flag.
        M::Clts | M::Wbinvd | M::Wbnoinvd | M::Invlpg => {}
        M::Mov if names_a_segment(instruction) => move_segment(frame, instruction)?,
        M::Push if names_a_segment(instruction) => push_segment(frame, instruction)?,
        M::Pop if names_a_segment(instruction) => pop_segment(frame, instruction)?,
        M::Lss | M::Lfs | M::Lgs => load_pointer(frame, instruction)?,
        M::Retf => return far_return(frame, instruction),
        M::Iret | M::Iretd | M::Iretq => return interrupt_return(frame, instruction),
        M::Jmp | M::Call if is_far(instruction) => return far_jump(frame, instruction),
        M::Lgdt => take_over(instruction, TakeOver::GlobalTable)?,
        M::Lidt => take_over(instruction, TakeOver::InterruptTable)?,
        M::Syscall => take_over(instruction, TakeOver::SystemCall)?,
        M::Swapgs => take_over(instruction, TakeOver::ProcessorBlock)?,
        M::Sysret | M::Sysretq => take_over(instruction, TakeOver::UserMode)?,
        M::Invd => take_over(instruction, TakeOver::Caches)?,
        // Nothing is set up for them, and no selector is one of a local table or of a free task.
        M::Lldt if selector_operand(frame, instruction)? & !3 == 0 => {}
        M::Lldt | M::Ltr | M::Sysenter | M::Sysexit | M::Sysexitq => return protection(frame, instruction),
        // The processor traps once it has run.
        M::Int1 => {
            frame.rip = instruction.next_ip();
            return Err(fault(frame, FaultKind::Trap, frame.rip, ""));
        }
        _ if instruction.segment_prefix() == Register::FS => return through_fs(frame, instruction),
        _ => return refuse(frame, instruction, FaultKind::NotImplemented),
    }
    go_on(frame, instruction.next_ip())
}

fn take_over(instruction: &Instruction, what: TakeOver) -> Flow<()> {
    state().guest().special(Special::TakeOver(what, name_of(instruction))).map(drop)
}

/// A general protection fault without an address.
fn protection(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    refuse(frame, instruction, FaultKind::Protection)
}

/// A reference through FS, whose base is zero in the kernel. What lies there is unmapped, or an application's by accident.
fn through_fs(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let operand = site::operand(instruction);
    let address = match site::operand_of(frame) {
        Some(address) => address,
        None if instruction.is_string_instruction() => frame.registers.general[RSI],
        None => return refuse(frame, instruction, FaultKind::NotImplemented),
    };
    if memory::peek(address, &mut [0]).is_ok() {
        return refuse(frame, instruction, FaultKind::NotImplemented);
    }
    take_back(1);
    let reads = operand.is_none_or(|operand| operand.reads);
    Err(fault(frame, if reads { FaultKind::Read } else { FaultKind::Write }, address, ""))
}

/// Whether a branch names a segment.
pub(super) fn is_far(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    )
}

/// `sgdt`, `sidt`.
fn table(frame: &mut Frame, instruction: &Instruction, table: Table, limit: u16) -> Flow<()> {
    let base = state().guest().special(Special::TableBase(table))?;
    let address = memory_operand(frame, instruction)?;
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&limit.to_le_bytes());
    bytes[2..].copy_from_slice(&base.to_le_bytes());
    store(frame, address, &bytes)
}

fn memory_operand(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    match site::operand_of(frame) {
        Some(address) => Ok(address),
        None => Err(refuse(frame, instruction, FaultKind::NotImplemented).expect_err("it always refuses")),
    }
}

/// Puts a value into operand 0: a register of any width, or 16 bits of memory.
fn put(frame: &mut Frame, instruction: &Instruction, value: u64) -> Flow<()> {
    if instruction.op0_kind() == OpKind::Register {
        set(frame, instruction.op0_register(), value);
        return Ok(());
    }
    let address = memory_operand(frame, instruction)?;
    store(frame, address, &value.to_le_bytes()[..2])
}

/// Writes a general register as an instruction of its width does.
fn set(frame: &mut Frame, register: Register, value: u64) {
    let target = &mut frame.registers.general[register.number() & 15];
    *target = match register.size() {
        2 => *target & !0xFFFF | value & 0xFFFF,
        4 => value & 0xFFFF_FFFF,
        _ => value,
    };
}

/// The 16 bits that an instruction takes as a selector from its last operand.
fn selector_operand(frame: &mut Frame, instruction: &Instruction) -> Flow<u16> {
    let last = instruction.op_count() - 1;
    if instruction.op_kind(last) == OpKind::Register {
        let register = instruction.op_register(last).number() & 15;
        return Ok((frame.registers.general[register] & 0xFFFF) as u16);
    }
    let address = memory_operand(frame, instruction)?;
    let mut bytes = [0; 2];
    load(frame, address, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

/// `lmsw`: the lowest four bits of CR0; the first cannot be cleared.
fn machine_status(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let value = u64::from(selector_operand(frame, instruction)?);
    let guest = state().guest();
    let control = guest.special(Special::ReadControl(0))?;
    guest.special(Special::WriteControl(0, control & !0xE | value & 0xF)).map(drop)
}

/// What a descriptor of Windows' global table says: access rights as `lar` gives them, and the limit.
struct Descriptor {
    rights: u32,
    limit: u32,
}

impl Descriptor {
    /// Type bits: what may be done, by `verr` and `verw`.
    fn allows(&self, write: bool) -> bool {
        let is_segment = self.rights & 0x1000 != 0;
        let code = self.rights & 0x800 != 0;
        let bit = self.rights & 0x200 != 0;
        is_segment && if write { !code && bit } else { !code || bit }
    }

    fn privilege(&self) -> u16 {
        (self.rights >> 13 & 3) as u16
    }
}

/// The descriptor that `selector` names, if there is one.
fn descriptor(selector: u16, processor: u32) -> Option<Descriptor> {
    let (rights, limit) = match selector & !3 {
        0x10 => (0x0020_9B00, 0),
        0x18 => (0x0040_9300, 0),
        0x20 => (0x00CF_FB00, u32::MAX),
        0x28 => (0x00CF_F300, u32::MAX),
        0x30 => (0x0020_FB00, 0),
        TASK => (0x0000_8B00, 0x67),
        // The limit also holds the processor's number.
        0x50 => (0x0040_F300, 0x3C00 | processor << 14),
        _ => return None,
    };
    Some(Descriptor { rights, limit })
}

/// `lar`, `lsl`, `verr`, `verw`: the zero flag tells whether the selector may be asked about.
fn about_selector(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let selector = selector_operand(frame, instruction)?;
    let processor = (state().guest().special(Special::ProcessorId)? & 0x3F) as u32;
    let found = descriptor(selector, processor).filter(|found| selector & 3 <= found.privilege());
    let target = instruction.op0_register();
    let known = match (instruction.mnemonic(), found) {
        (_, None) => false,
        (Mnemonic::Verr, Some(found)) => found.allows(false),
        (Mnemonic::Verw, Some(found)) => found.allows(true),
        (Mnemonic::Lar, Some(found)) => {
            set(frame, target, found.rights.into());
            true
        }
        (_, Some(found)) => {
            set(frame, target, found.limit.into());
            true
        }
    };
    frame.registers.flags = frame.registers.flags & !ZERO | if known { ZERO } else { 0 };
    Ok(())
}

/// The selectors that x64 Windows loads in kernel mode.
fn selector_of(segment: Register) -> u16 {
    match segment {
        Register::CS => KERNEL_CODE,
        Register::SS => KERNEL_DATA,
        Register::FS => THREAD_BLOCK,
        _ => USER_DATA,
    }
}

/// Loads a segment register. Of what it can be loaded with only GS makes a difference: its base is lost.
fn load_segment(frame: &mut Frame, instruction: &Instruction, segment: Register, selector: u16) -> Flow<()> {
    let allowed = match segment {
        Register::SS => matches!(selector, 0 | KERNEL_DATA),
        Register::CS => false,
        _ => selector & !3 == 0 || matches!(selector & !3, 0x10 | 0x18 | 0x20 | 0x28 | 0x30 | 0x50),
    };
    if !allowed {
        return protection(frame, instruction).map(drop);
    }
    if segment == Register::GS { take_over(instruction, TakeOver::ProcessorBlock) } else { Ok(()) }
}

fn names_a_segment(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|index| instruction.op_register(index).is_segment_register())
}

/// `mov` to or from a segment register.
fn move_segment(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    if from.is_segment_register() {
        return put(frame, instruction, selector_of(from).into());
    }
    let selector = selector_operand(frame, instruction)?;
    load_segment(frame, instruction, to, selector)
}

/// How wide the stack's slot is.
fn slot(instruction: &Instruction) -> u64 {
    if matches!(instruction.code(), Code::Pushw_FS | Code::Pushw_GS | Code::Popw_FS | Code::Popw_GS) {
        2
    } else {
        8
    }
}

fn push_segment(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    push(frame, slot(instruction), selector_of(instruction.op0_register()).into())
}

fn pop_segment(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let size = slot(instruction);
    let selector = (at_stack(frame, 0, size)? & 0xFFFF) as u16;
    load_segment(frame, instruction, instruction.op0_register(), selector)?;
    frame.registers.general[RSP] = frame.registers.rsp().wrapping_add(size);
    Ok(())
}

/// `lss`, `lfs`, `lgs`: an offset into a register, and the selector behind it.
fn load_pointer(frame: &mut Frame, instruction: &Instruction) -> Flow<()> {
    let target = instruction.op0_register();
    let size = target.size();
    let address = memory_operand(frame, instruction)?;
    let mut bytes = [0; 10];
    load(frame, address, &mut bytes[..size + 2])?;
    let selector = u16::from_le_bytes([bytes[size], bytes[size + 1]]);
    let segment = match instruction.mnemonic() {
        Mnemonic::Lss => Register::SS,
        Mnemonic::Lfs => Register::FS,
        _ => Register::GS,
    };
    load_segment(frame, instruction, segment, selector)?;
    bytes[size..].fill(0);
    let offset = u64::from_le_bytes(*bytes.first_chunk().expect("there are ten"));
    set(frame, target, offset);
    Ok(())
}

fn push(frame: &mut Frame, size: u64, value: u64) -> Flow<()> {
    let rsp = frame.registers.rsp().wrapping_sub(size);
    store(frame, rsp, &value.to_le_bytes()[..memory::usize_of(size)])?;
    frame.registers.general[RSP] = rsp;
    Ok(())
}

/// The `index`-th slot of the stack, from its top.
fn at_stack(frame: &mut Frame, index: u64, size: u64) -> Flow<u64> {
    let address = frame.registers.rsp().wrapping_add(index * size);
    let mut bytes = [0; 8];
    load(frame, address, &mut bytes[..memory::usize_of(size)])?;
    Ok(u64::from_le_bytes(bytes))
}

/// Whether a transfer to code segment `selector` stays in the kernel; one to user mode is the guest's to judge, any other is
/// a fault.
fn stays(frame: &mut Frame, instruction: &Instruction, selector: u16) -> Flow<()> {
    match selector {
        KERNEL_CODE => Ok(()),
        0x23 | 0x33 => take_over(instruction, TakeOver::UserMode),
        _ => protection(frame, instruction).map(drop),
    }
}

/// `retf`: an address and a code segment.
fn far_return(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let size = match instruction.code() {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => 8,
    };
    let (target, selector) = (at_stack(frame, 0, size)?, at_stack(frame, 1, size)?);
    stays(frame, instruction, (selector & 0xFFFF) as u16)?;
    let dropped = if instruction.op_count() > 0 { u64::from(instruction.immediate16()) } else { 0 };
    frame.registers.general[RSP] = frame.registers.rsp().wrapping_add(2 * size + dropped);
    go_on(frame, target)
}

/// `iret`: an address, a code segment, flags, a stack pointer, a stack segment.
fn interrupt_return(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let size = match instruction.mnemonic() {
        Mnemonic::Iret => 2,
        Mnemonic::Iretd => 4,
        _ => 8,
    };
    let mut words = [0; 5];
    for (index, word) in (0..).zip(&mut words) {
        *word = at_stack(frame, index, size)?;
    }
    let [target, code, flags, rsp, stack] = words;
    stays(frame, instruction, (code & 0xFFFF) as u16)?;
    if !matches!((stack & 0xFFFF) as u16, 0 | KERNEL_DATA) {
        return protection(frame, instruction);
    }
    frame.registers.general[RSP] = rsp;
    // From here on a fault is at what it returns to.
    frame.rip = target;
    set_flags(frame, flags)?;
    go_on(frame, target)
}

/// `jmp` or `call` through an address and a selector in memory. Only the kernel's own code segment can be named: from the
/// kernel there is no way out by a jump.
fn far_jump(frame: &mut Frame, instruction: &Instruction) -> Flow<u64> {
    let size = match instruction.code() {
        Code::Jmp_m1616 | Code::Call_m1616 => 2,
        Code::Jmp_m1632 | Code::Call_m1632 => 4,
        _ => 8,
    };
    let address = memory_operand(frame, instruction)?;
    let (mut target, mut selector) = ([0; 8], [0; 2]);
    load(frame, address, &mut target[..size])?;
    load(frame, address.wrapping_add(size as u64), &mut selector)?;
    if u16::from_le_bytes(selector) != KERNEL_CODE {
        return protection(frame, instruction);
    }
    if instruction.mnemonic() == Mnemonic::Call {
        let size = size as u64;
        push(frame, size, KERNEL_CODE.into())?;
        push(frame, size, instruction.next_ip())?;
    }
    go_on(frame, u64::from_le_bytes(target))
}
