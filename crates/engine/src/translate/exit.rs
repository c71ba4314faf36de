//! What comes back from translated code: each exit has a number, and this is what is done for it.
//!
//! Handlers borrow nothing while they call the guest. They go on at an original address, looked up anew, because
//! whatever the guest did may have thrown the translations away.

use iced_x86::Instruction;

use super::emitter;
use super::frame::{Ended, Frame};
use super::scratch::{HostFault, scratch};
use super::{cache::Saved, callout, leave_code, site};
use crate::guest::{Args, Caller, Fault, FaultKind};
use crate::leave::{Flow, Leave};
use crate::machine::state;
use crate::memory;
use crate::windows::{DEVICE, SHARED_DATA};

/// Why translated code came back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    /// The signal handler sent it; see `scratch.fault`.
    HostFault,
    /// A direct jump to a block that was not translated; once it is, the exit at `stub` (and the branch's displacement
    /// at `branch`, if not 0) is overwritten.
    Chain { target: u64, stub: u64, branch: u64, from: u64 },
    /// The slice ends within or before this block.
    Slice { rip: u64, charged: u32 },
    /// The slice has ended, exactly here.
    SliceEnded { rip: u64 },
    /// A `ret` to an address without a landing pad.
    ReturnMiss { rip: u64 },
    /// An indirect branch to an address without a translation; `sequence` looks it up again.
    IndirectMiss { rip: u64, sequence: u64 },
    /// A sensitive instruction.
    CallOut { instruction: Instruction },
    /// An instruction that has touched device memory before.
    Site { instruction: Instruction, operand: Option<site::Operand> },
    /// Its body has run.
    SiteDone { instruction: Instruction, operand: Option<site::Operand> },
    /// An instruction the virtual processor does not have.
    Invalid { instruction: Instruction },
    /// An instruction dirql does not run.
    NotImplemented { instruction: Instruction },
    /// The next instruction's bytes are not there.
    BadFetch { rip: u64 },
}

/// Called by `dirql_exit`: answers where to go on in the cache, or with what to leave.
pub(crate) extern "sysv64" fn on_exit(frame: *mut Frame, number: u32) -> Ended {
    // SAFETY: the stub passes the live frame at the host's stack pointer; nobody else holds a reference to it.
    let frame = unsafe { &mut *frame };
    ended(state().caught(|| handle(frame, number)))
}

/// Called by `dirql_gate`.
pub(crate) extern "sysv64" fn on_export(frame: *mut Frame, number: u32) -> Ended {
    // SAFETY: as in `on_exit`; only plain integers are read before the guest is called.
    let registers = unsafe { &(*frame).registers };
    let [_, rcx, rdx, _, rsp, _, _, _, r8, r9, ..] = registers.general;
    let args = Args { registers: [rcx, rdx, r8, r9], rsp };
    ended(state().caught(|| state().guest().export(number, &args)))
}

fn ended(flow: Flow<u64>) -> Ended {
    match flow {
        Ok(value) => Ended { value, left: 0 },
        Err(leave) => Ended { value: 0, left: leave_code(leave) },
    }
}

fn handle(frame: &mut Frame, number: u32) -> Flow<u64> {
    let exit = state().translator.with(|cache| cache.exits[number as usize]);
    match exit {
        Exit::HostFault => host_fault(frame, scratch().fault.get()),
        Exit::Chain { target, stub, branch, from } => chain(frame, target, stub, branch, from),
        Exit::Slice { rip, charged } => slice(frame, rip, charged),
        Exit::SliceEnded { rip } => end_slice(frame, rip),
        Exit::ReturnMiss { rip } => {
            frame.rip = rip;
            return_to_stack_top(frame, 0)
        }
        Exit::IndirectMiss { rip, sequence } => indirect_miss(frame, rip, sequence),
        Exit::CallOut { instruction } => {
            frame.rip = instruction.ip();
            callout::perform(frame, &instruction)
        }
        Exit::Site { instruction, operand } => {
            frame.rip = instruction.ip();
            site::enter(frame, &instruction, operand)
        }
        Exit::SiteDone { instruction, operand } => {
            frame.rip = instruction.ip();
            site::done(frame, &instruction, operand)
        }
        Exit::Invalid { instruction } => refuse(frame, &instruction, FaultKind::InvalidOpcode),
        Exit::NotImplemented { instruction } => refuse(frame, &instruction, FaultKind::NotImplemented),
        Exit::BadFetch { rip } => {
            frame.rip = rip;
            Err(fault(frame, FaultKind::Execute, rip, ""))
        }
    }
}

/// Reports a fault of the driver's at `frame.rip`.
pub(super) fn fault(frame: &Frame, kind: FaultKind, address: u64, what: &'static str) -> Leave {
    let caller = Caller { rip: frame.rip, registers: frame.registers };
    state().guest().fault(&Fault { kind, address, caller, what })
}

/// The instruction that was charged at its block's head does not retire.
pub(super) fn take_back(instructions: u32) {
    let countdown = &scratch().countdown;
    countdown.set(countdown.get() + i64::from(instructions));
}

/// An instruction is about to run that no block's head has charged.
pub(super) fn charge(instructions: u32) {
    let countdown = &scratch().countdown;
    countdown.set(countdown.get() - i64::from(instructions));
}

/// Where translated code for `target` begins; if there is none, the branch at `frame.rip` was to a bad address.
pub(super) fn go_on(frame: &mut Frame, target: u64) -> Flow<u64> {
    match state().translator.jump_entry(target) {
        Ok(translated) => Ok(translated),
        Err(kind) => Err(fault(frame, kind, target, "code outside driver images")),
    }
}

/// An instruction that dirql or its processor refuses.
pub(super) fn refuse(frame: &mut Frame, instruction: &Instruction, kind: FaultKind) -> Flow<u64> {
    frame.rip = instruction.ip();
    take_back(1);
    Err(fault(frame, kind, instruction.ip(), name_of(instruction)))
}

/// The mnemonic, for messages.
pub(super) fn name_of(instruction: &Instruction) -> &'static str {
    instruction.op_code().instruction_string()
}

fn chain(frame: &mut Frame, target: u64, stub: u64, branch: u64, from: u64) -> Flow<u64> {
    frame.rip = from;
    let translator = &state().translator;
    let generation = translator.generation();
    let translated = go_on(frame, target)?;
    if translator.generation() == generation {
        emitter::patch_jump(stub, translated);
        if branch != 0 {
            emitter::patch_displacement(branch, translated);
        }
    }
    Ok(translated)
}

fn slice(frame: &mut Frame, rip: u64, charged: u32) -> Flow<u64> {
    take_back(charged);
    let left = scratch().countdown.get();
    if left <= 0 {
        return end_slice(frame, rip);
    }
    frame.rip = rip;
    let left = u32::try_from(left).expect("less than the block that did not fit");
    match state().translator.truncated(rip, left) {
        Ok(translated) => Ok(translated),
        Err(kind) => Err(fault(frame, kind, rip, "")),
    }
}

fn end_slice(frame: &mut Frame, rip: u64) -> Flow<u64> {
    frame.rip = rip;
    state().guest().slice()?;
    if scratch().countdown.get() <= 0 {
        state().clock.set_slice(u64::MAX);
    }
    go_on(frame, rip)
}

/// A return that translated code could not do: `extra` bytes of arguments are dropped as well.
pub(super) fn return_to_stack_top(frame: &mut Frame, extra: u64) -> Flow<u64> {
    let rsp = frame.registers.rsp();
    let mut target = [0; 8];
    if memory::read(rsp, &mut target).is_err() {
        take_back(1);
        return Err(fault(frame, FaultKind::Read, rsp, ""));
    }
    frame.registers.general[4] = rsp.wrapping_add(8 + extra);
    let target = u64::from_le_bytes(target);
    if target == super::RETURN_TO_KERNEL && extra != 0 {
        return Err(fault(
            frame,
            FaultKind::NotImplemented,
            target,
            "ret imm16 out of a routine of the kernel's",
        ));
    }
    go_on(frame, target)
}

fn indirect_miss(frame: &mut Frame, rip: u64, sequence: u64) -> Flow<u64> {
    frame.rip = rip;
    let translator = &state().translator;
    let generation = translator.generation();
    let target = scratch().target.get();
    if let Err(kind) = translator.jump_entry(target) {
        return Err(fault(frame, kind, target, "code outside driver images"));
    }
    if translator.generation() == generation {
        return Ok(sequence);
    }
    take_back(1);
    go_on(frame, rip)
}

fn host_fault(frame: &mut Frame, seen: HostFault) -> Flow<u64> {
    let translator = &state().translator;
    let Some(place) = translator.place(seen.rip) else {
        panic!("a fault in the cache at {:#x} belongs to no translation: {seen:?}", seen.rip);
    };
    restore(frame, place.saved);
    take_back(place.unretired);
    frame.rip = place.rip;
    let write = seen.trap == PAGE_FAULT && seen.error & 2 != 0;
    if write && translator.written(seen.address) {
        return site::step_over(frame);
    }
    let outside = DEVICE.contains(seen.address) || SHARED_DATA.contains(seen.address);
    if seen.trap == PAGE_FAULT && outside {
        if site::learn(place.rip) {
            return go_on(frame, place.rip);
        }
        return Err(fault(
            frame,
            FaultKind::NotImplemented,
            seen.address,
            "this instruction on device memory",
        ));
    }
    let (kind, address) = interpret(frame, &seen);
    Err(fault(frame, kind, address, ""))
}

const PAGE_FAULT: u32 = 14;

fn restore(frame: &mut Frame, saved: Saved) {
    let general = &mut frame.registers.general;
    match saved {
        Saved::Nothing => {}
        Saved::R11 => general[11] = scratch().r11.get(),
        Saved::RcxRdx => {
            general[1] = scratch().rcx.get();
            general[2] = scratch().rdx.get();
        }
    }
}

/// What the processor's trap means to the driver.
fn interpret(frame: &Frame, seen: &HostFault) -> (FaultKind, u64) {
    match (seen.signal, seen.trap) {
        (_, PAGE_FAULT) if seen.error & 2 != 0 => (FaultKind::Write, seen.address),
        (_, PAGE_FAULT) => (FaultKind::Read, seen.address),
        (libc::SIGFPE, 0) => (FaultKind::Divide, frame.rip),
        (libc::SIGFPE, _) => (FaultKind::FloatingPoint, frame.rip),
        (libc::SIGILL, _) => (FaultKind::InvalidOpcode, frame.rip),
        (libc::SIGTRAP, _) => (FaultKind::Trap, frame.rip),
        (libc::SIGSYS, _) => (FaultKind::NotImplemented, frame.rip),
        _ => site::operand_of(frame).map_or((FaultKind::Protection, frame.rip), |address| {
            let canonical = (address << 16).cast_signed() >> 16 == address.cast_signed();
            if canonical { (FaultKind::Protection, address) } else { (FaultKind::NonCanonical, address) }
        }),
    }
}
