//! Runs driver code from translations: block by block, made when first reached, kept until the cache is flushed.
//!
//! What it guarantees: original text is never executed and never changed; return addresses on a driver's stack are
//! original ones; every sensitive instruction is a call-out; no instruction runs uncounted; a slice ends before the
//! exact instruction.
//!
//! `cache` makes blocks, `exit` handles what comes back from them, `callout` and `site` do what an instruction could not
//! do by itself.

mod block;
mod blocks;
mod cache;
mod callout;
mod carried;
mod checked;
mod classify;
mod compare;
mod covered;
mod cuts;
mod elements;
mod emitter;
mod exit;
mod extended;
mod flags;
mod looks;
#[macro_use]
mod frame;
mod halves;
mod host_cpu;
mod host_words;
mod inspect;
mod next;
mod noted;
mod operands;
mod places;
mod reporting;
mod resume;
mod scratch;
mod short;
mod site;
mod strings;
mod stubs;
mod system;
mod table;

pub(crate) use cache::{Shelved, Translator};
pub(crate) use carried::carried;
pub use carried::{Carried, Moved};
pub(crate) use exit::GuestEntryPoints;
pub(crate) use extended::ask_for_extended;
pub(crate) use frame::fixup;
pub use host_cpu::encode_for_the_other_maker;
#[cfg(test)]
pub(crate) use host_words::BLOCKED;
pub(crate) use host_words::{ALLOWED, host_words};
pub(crate) use looks::looks_at;
pub(crate) use next::{driver_state, next_step};
pub(crate) use noted::close as close_access_log;
pub(crate) use reporting::{Reported, Reporting};
pub(crate) use resume::{Resumption, contexts, resume_at};
pub(crate) use scratch::{HostFault, Saved as SavedWords, scratch};
pub use short::{ANSWERS, Answer, Short, TakenLock};
pub(crate) use short::{
    Answers, answered, make as make_answers, note as note_call, noted as noted_call, open as open_answers,
    set as set_answer,
};
pub(crate) use short::{allow_calls, allow_locks, allows_locks, forbid_locks};
pub(crate) use stubs::EXIT;
pub(crate) use table::begin as lay_table;

use crate::fill::Fill;
use crate::gone;
use crate::guest::{Caller, Fault, FaultKind};
use crate::leave::{Flow, Leave};
use crate::machine::{Stack, state};
use crate::memory;
use crate::registers::{LeftBehind, Registers};
use crate::windows::{PAGE, SYSTEM};
use frame::Frame;

/// The return address a driver's routine sees when the kernel called it. It is no code; stacks end here.
pub const RETURN_TO_KERNEL: u64 = stubs::RETURN_TO_KERNEL;

/// Calls driver code. See [`crate::Engine::call`].
pub(crate) fn call(target: u64, arguments: &[u64], stack: Stack) -> Flow<u64> {
    gone::carry_out();
    let state = state();
    let top = match stack {
        Stack::At(top) => top,
        Stack::Current => innermost().expect("a call on the current stack is nested in one").registers.rsp(),
    };
    let slots = arguments.len().max(4) as u64;
    let rsp = top.wrapping_sub(8 * slots) & !15;
    // The return address is no driver's store: it goes where drivers' memory is, and faults there at worst.
    let pushed = rsp.wrapping_sub(8);
    if !SYSTEM.contains(pushed) && !memory::is_driver_memory(pushed, 8) {
        return Err(refuse(FaultKind::Write, pushed, target, rsp));
    }
    if arguments.len() > 4 {
        store_further(arguments, target, rsp)?;
    }
    if state.fills_stacks.get() {
        fill_below(pushed);
    }
    let translated = match state.translator.jump_entry(target) {
        Ok(translated) => translated,
        Err(kind) => return Err(refuse(kind, target, target, rsp)),
    };
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    let (rcx, rdx, r8, r9) = (argument(0), argument(1), argument(2), argument(3));
    ask_for_extended();
    // SAFETY: a translated address in the cache; driver code can only come back through `dirql_exit`, `dirql_access`,
    // `dirql_gate` and `dirql_returned`, which restore the host's state.
    let ended = unsafe { frame::dirql_enter(translated, rsp, rdx, rcx, r8, r9, depth() + 1) };
    short::tell();
    ask_for_extended();
    match leave_of(ended.left) {
        None => Ok(ended.value),
        Some(leave) => Err(leave),
    }
}

/// See [`crate::Engine::fill_stacks`].
#[cold]
fn fill_below(pushed: u64) {
    const MOST: u64 = 0x400;
    let from = pushed.saturating_sub(MOST).max(pushed & !(PAGE - 1));
    if memory::is_driver_memory(from, pushed - from) {
        // A page that is not there faults when the routine comes to it.
        let _ = memory::fill(from, pushed - from, Fill::FRESH);
    }
}

/// The arguments that have no register, above the home space at `rsp`.
#[cold]
fn store_further(arguments: &[u64], target: u64, rsp: u64) -> Flow<()> {
    for (index, argument) in arguments.iter().enumerate().skip(4) {
        if let Err(bad) = memory::write(rsp + 8 * index as u64, &argument.to_le_bytes()) {
            return Err(refuse(FaultKind::Write, bad.address, target, rsp));
        }
    }
    Ok(())
}

/// See [`crate::Engine::left_behind`].
#[inline]
pub(crate) fn left_behind() -> LeftBehind {
    let scratch = scratch();
    if scratch.used.get() & (frame::USED_MXCSR | frame::USED_FLAGS) == 0 {
        return LeftBehind::default();
    }
    LeftBehind { direction: scratch.left_flags.get() & DIRECTION != 0, mxcsr: scratch.left_mxcsr.get() }
}

/// The direction flag.
const DIRECTION: u32 = 0x400;

/// A call that cannot even begin.
#[cold]
#[inline(never)]
fn refuse(kind: FaultKind, address: u64, target: u64, rsp: u64) -> Leave {
    let mut registers = Registers::default();
    registers.general[4] = rsp;
    let fault = Fault { kind, address, caller: Caller { rip: target, registers }, what: "" };
    state().guest().fault(&fault)
}

/// `Leave` from the register that carries it through the stubs; 0 is none.
fn leave_of(code: u64) -> Option<Leave> {
    match code {
        0 => None,
        code if code == Leave::Unwind as u64 => Some(Leave::Unwind),
        _ => Some(Leave::Stop),
    }
}

#[inline]
fn innermost() -> Option<&'static Frame> {
    frame_at(host_words().frame.get())
}

#[inline]
fn frame_at(address: u64) -> Option<&'static Frame> {
    // SAFETY: the chain holds addresses of live frames on this strand's host stack, or ends with 0.
    unsafe { (address as *const Frame).as_ref() }
}

#[inline]
fn caller_of(frame: &Frame) -> Caller {
    let registers = frame.registers();
    let rip = match frame.rip {
        0 => return_address(registers.rsp()),
        rip => rip,
    };
    Caller { rip, registers }
}

/// See [`crate::Engine::caller`].
#[inline]
pub(crate) fn caller() -> Option<Caller> {
    innermost().map(caller_of)
}

/// See [`crate::Engine::caller_rip`].
#[inline]
pub(crate) fn caller_rip() -> u64 {
    innermost().map_or(0, |frame| match frame.rip {
        0 => return_address(frame.registers.rsp()),
        rip => rip,
    })
}

/// See [`crate::Engine::callers`].
pub(crate) fn callers() -> Vec<Caller> {
    std::iter::successors(innermost(), |frame| frame_at(frame.previous)).map(caller_of).collect()
}

/// See [`crate::Engine::callers_of`]; `frame` is the innermost one of a strand that is suspended.
pub(crate) fn callers_from(frame: u64) -> Vec<Caller> {
    std::iter::successors(frame_at(frame), |frame| frame_at(frame.previous)).map(caller_of).collect()
}

/// Whether driver code has called out, or was called out of, anywhere, and may go on.
pub(crate) fn is_on_any_stack() -> bool {
    host_words().frame.get() != 0 || state().strands.has_any_frame()
}

/// See [`crate::Engine::depth`].
#[inline]
pub(crate) fn depth() -> u32 {
    innermost().map_or(0, |frame| frame.depth)
}

/// What lies on top of the driver's stack, or 0.
#[inline]
fn return_address(rsp: u64) -> u64 {
    let mut bytes = [0; 8];
    if memory::read_plain(rsp, &mut bytes) {
        return u64::from_le_bytes(bytes);
    }
    match memory::peek(rsp, &mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}
