//! What comes back from translated code: each exit has a number, and this is what is done for it.
//!
//! Handlers borrow nothing while they call the guest. They go on at an original address, looked up anew, because
//! whatever the guest did may have thrown the translations away.

use std::rc::Rc;

use iced_x86::Instruction;

use super::block::guess::{self, Guess};
use super::emitter;
use super::frame::{Ended, Frame, RESUMES};
use super::host_words::host_words;
use super::inspect::Inspected;
use super::resume::{self, Resumed};
use super::scratch::{HostFault, scratch};
use super::{
    cache::{Saved, Translator},
    callout,
    classify::{Class, classify, is_fence, is_interlocked},
    compare, elements, extended, inspect, short, site,
};
use crate::clock::clock;
use crate::guest::{Args, Caller, Extended, Fault, FaultKind, Guest};
use crate::heap;
use crate::leave::{Flow, Leave};
use crate::machine::{State, state};
use crate::memory;
use crate::processor;
use crate::windows::{CACHE, is_call_out};

/// Why translated code came back. Small, because it is copied at each exit; `decoded` numbers an instruction that the cache
/// keeps (see [`super::cache::Cache::keep`]).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    /// The signal handler sent it; see `scratch.fault`.
    HostFault,
    /// A direct jump to a block that was not translated; once it is, the exit at `stub` (and the branch's displacement
    /// at `branch`, if not 0) is overwritten. Both are offsets in the cache.
    Chain { target: u64, stub: u32, branch: u32, from: u64 },
    /// The slice ends within or before this block, and there is no copy yet that ends with it; `cuts` is the number of the block's
    /// copies. What the head has charged is taken back.
    Slice { rip: u64, cuts: u32 },
    /// The slice has ended, exactly here; unless it was lengthened since the block was entered. By `dirql_access`.
    SliceEnded { rip: u64 },
    /// A `ret` to an address without a landing pad.
    ReturnMiss { rip: u64 },
    /// An indirect branch to an address that the table has no translation for; it goes on at `found`, with the translation in
    /// `scratch.jump`. A call may have pushed its return address already.
    IndirectMiss { rip: u64, found: u64, pushed: bool },
    /// The first call or jump through a register or memory at its site, a call after the push; and the first jump that goes elsewhere.
    Guess { rip: u64, guess: Guess },
    /// `in` or `out`; by `dirql_access`.
    Port { rip: u64, port: callout::Port },
    /// `mov cr8, r`, with `ahead` instructions behind it that were charged too.
    Level { level: callout::Level, ahead: u8 },
    /// A first use of extended registers, with `ahead` instructions behind it that were charged too.
    Extended { decoded: u32, state: Extended, ahead: u8 },
    /// Another sensitive instruction.
    CallOut { decoded: u32 },
    /// A move between a register and a device at `scratch.target`, with `ahead` instructions behind it that were charged too;
    /// by `dirql_access`.
    Move { rip: u64, device: site::Move, ahead: u8 },
    /// Another instruction on a device.
    Site { decoded: u32, ahead: u8 },
    /// An instruction that others can see, in a machine that watches for it: it has been charged and has not run. It stands at
    /// `resume`, if it can be run there; else that is 0.
    Visible { decoded: u32, resume: u64 },
    /// Its body has run.
    SiteDone { decoded: u32 },
    /// An instruction the virtual processor does not have.
    Invalid { decoded: u32 },
    /// An instruction dirql does not run.
    NotImplemented { decoded: u32 },
    /// Checked translation: what the instruction will touch is to be looked at first; its block has charged `unretired`
    /// instructions that have not run, it included. It goes on at `resume`, where it `notes` by itself what is reported.
    Inspect { decoded: u32, unretired: u8, notes: bool, resume: u64 },
    /// Checked translation: the block at `rip`, which has not charged anything, begins with a marked byte.
    InspectCode { rip: u64, resume: u64 },
    /// The next instruction's bytes are not there.
    BadFetch { rip: u64 },
}

/// Called by `dirql_exit`: answers where to go on in the cache, or with what to leave.
pub(crate) extern "sysv64" fn on_exit(frame: *mut Frame, number: u32) -> Ended {
    // SAFETY: the stub passes the live frame at the host's stack pointer; there is no other reference to it.
    let frame = unsafe { &mut *frame };
    let flow = state().caught(|| {
        short::tell();
        handle(frame, number)
    });
    match flow {
        Ok(value) => Ended { value, left: 0 },
        left => settled(frame, left, 0),
    }
}

/// Where translated code enters a guest for an export and an access. Made for its type, so that what the guest does stands
/// behind one call: each call with its return takes as long as a dozen other instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GuestEntryPoints {
    export: u64,
    access: u64,
}

impl GuestEntryPoints {
    /// Those of guests of this type.
    pub(crate) fn of<G: Guest>() -> Self {
        Self { export: on_export::<G> as *const () as u64, access: on_access::<G> as *const () as u64 }
    }

    /// Those of no guest: no driver code runs.
    pub(crate) fn closed() -> Self {
        let refuse = on_nobody as *const () as u64;
        Self { export: refuse, access: refuse }
    }

    /// From now on translated code enters by these; answers which it were. A guest of their type is in [`State`], whenever
    /// driver code runs.
    pub(crate) fn open(self) -> Self {
        let words = host_words();
        Self { export: words.on_export.replace(self.export), access: words.on_access.replace(self.access) }
    }

    /// Whether translated code enters by these.
    pub(crate) fn are_open(self) -> bool {
        let words = host_words();
        self == Self { export: words.on_export.get(), access: words.on_access.get() }
    }
}

/// Called where driver code runs and there is no guest.
extern "sysv64" fn on_nobody() -> Ended {
    unreachable!("driver code runs inside Host::run only")
}

/// Called by `dirql_access`: as [`on_exit`], and 0 for going on behind the instruction in its block.
extern "sysv64" fn on_access<G: Guest>(frame: *mut Frame, number: u32) -> Ended {
    // SAFETY: as in `on_exit`.
    let frame = unsafe { &mut *frame };
    let state = state();
    let flow = state.caught(|| {
        short::tell();
        access::<G>(state, frame, number)
    });
    match flow {
        Ok(value) => Ended { value, left: 0 },
        left => settled(frame, left, 0),
    }
}

/// Called by `dirql_gate`, with the driver's arguments (in the frame, which does not change meanwhile).
extern "sysv64" fn on_export<G: Guest>(frame: *mut Frame, number: u32, args: &Args) -> Ended {
    let state = state();
    // SAFETY: who sets a guest opens the doors of its type (`root::Hosted`).
    let guest = unsafe { state.guest_as::<G>() };
    let flow = state.caught(|| {
        short::tell();
        scratch().count_asked_call();
        guest.export(number, args)
    });
    match flow {
        Ok(value) => Ended { value, left: 0 },
        // SAFETY: as in `on_exit`; `args` is not used any more.
        left => settled(unsafe { &mut *frame }, left, RESUMES),
    }
}

/// How it goes on where a handler has left: with `resumes`, if the frame's registers say where.
#[cold]
fn settled(frame: &mut Frame, flow: Flow<u64>, resumes: u64) -> Ended {
    match resume::settle(frame, flow) {
        Resumed::Elsewhere(value) => Ended { value, left: resumes },
        Resumed::Not(flow) => ended(flow),
    }
}

fn ended(flow: Flow<u64>) -> Ended {
    match flow {
        Ok(value) => Ended { value, left: 0 },
        Err(leave) => Ended { value: 0, left: leave as u64 },
    }
}

fn handle(frame: &mut Frame, number: u32) -> Flow<u64> {
    let translator = &state().translator;
    let exit = translator.exit(number);
    // By reference: a copy of a copy would wait for the store buffer.
    match &exit {
        Exit::HostFault => host_fault(frame, host_words().fault.get()),
        Exit::Chain { target, stub, branch, from } => chain(frame, *target, *stub, *branch, *from),
        Exit::Slice { rip, cuts } => slice(frame, *rip, *cuts),
        Exit::ReturnMiss { rip } => {
            frame.rip = *rip;
            return_to_stack_top(frame, 0)
        }
        Exit::IndirectMiss { rip, found, pushed } => indirect_miss(frame, *rip, *found, *pushed),
        Exit::Guess { rip, guess } => guess::learn(frame, *rip, *guess),
        Exit::Level { level, ahead } => {
            take_back((*ahead).into());
            level.perform(frame)
        }
        Exit::CallOut { decoded } => {
            let instruction = translator.kept(*decoded);
            frame.rip = instruction.ip();
            callout::perform(frame, &instruction)
        }
        Exit::Extended { decoded, state, ahead } => {
            take_back(u32::from(*ahead) + 1);
            extended::ask(frame, translator.kept(*decoded).ip(), *state)
        }
        Exit::Port { .. } | Exit::Move { .. } | Exit::SliceEnded { .. } => {
            unreachable!("what mostly goes on where it was is an exit of its own kind")
        }
        Exit::Site { decoded, ahead } => {
            let instruction = translator.kept(*decoded);
            take_back((*ahead).into());
            frame.rip = instruction.ip();
            site::enter(frame, &instruction)
        }
        Exit::Visible { decoded, resume } => visible(frame, *decoded, *resume),
        Exit::SiteDone { decoded } => {
            let instruction = translator.kept(*decoded);
            frame.rip = instruction.ip();
            site::done(frame, &instruction)
        }
        Exit::Invalid { decoded } => refuse(frame, &translator.kept(*decoded), FaultKind::InvalidOpcode),
        Exit::NotImplemented { decoded } => {
            refuse(frame, &translator.kept(*decoded), FaultKind::NotImplemented)
        }
        Exit::Inspect { decoded, unretired, notes, resume } => {
            let inspected = translator.inspected(*decoded);
            inspect::instruction(frame, &inspected, ((*unretired).into(), *notes), *resume)
        }
        Exit::InspectCode { rip, resume } => inspect::code(frame, *rip, *resume),
        Exit::BadFetch { rip } => {
            frame.rip = *rip;
            Err(fault(frame, FaultKind::Execute, *rip, ""))
        }
    }
}

/// An access that is done in one go. It goes on in its block, unless the slice ends within what is left of that, or
/// translations were thrown away.
#[inline]
fn access<G: Guest>(state: &State, frame: &mut Frame, number: u32) -> Flow<u64> {
    let translator = &state.translator;
    // SAFETY: as in `on_export`.
    let guest = unsafe { state.guest_as::<G>() };
    let generation = translator.generation();
    let (length, ahead) = match translator.exit(number) {
        Exit::Move { rip, device, ahead } => {
            take_back(ahead.into());
            frame.rip = rip;
            (device.perform(guest, frame)?, ahead)
        }
        Exit::Port { rip, port } => {
            frame.rip = rip;
            (port.perform(guest, frame)?, 0)
        }
        Exit::SliceEnded { rip } => return slice_ended(guest, translator, frame, rip),
        _ => unreachable!("no other exit goes by `dirql_access`"),
    };
    guest.accessed()?;
    let countdown = &scratch().countdown;
    let left = countdown.get() - i64::from(ahead);
    if left >= 0 && translator.generation() == generation {
        if ahead != 0 {
            countdown.set(left);
        }
        return Ok(0);
    }
    go_on(frame, frame.rip + u64::from(length))
}

/// Reports a fault of the driver's at `frame.rip`.
pub(super) fn fault(frame: &Frame, kind: FaultKind, address: u64, what: &'static str) -> Leave {
    let caller = Caller { rip: frame.rip, registers: frame.registers };
    state().guest().fault(&Fault { kind, address, caller, what })
}

/// The instruction that was charged at its block's head does not retire.
#[inline]
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
    // The first to ask makes a table of all instructions, on the heap.
    heap::outside(|| instruction.op_code().instruction_string())
}

fn chain(frame: &mut Frame, target: u64, stub: u32, branch: u32, from: u64) -> Flow<u64> {
    frame.rip = from;
    let translator = &state().translator;
    let generation = translator.generation();
    let translated = go_on(frame, target)?;
    if translator.generation() == generation {
        emitter::patch_jump(CACHE.base + u64::from(stub), translated);
        if branch != 0 {
            emitter::patch_displacement(CACHE.base + u64::from(branch), translated);
        }
    }
    Ok(translated)
}

fn slice(frame: &mut Frame, rip: u64, cuts: u32) -> Flow<u64> {
    frame.rip = rip;
    // Less than nothing may be left, where an instruction was charged by itself.
    let left = usize::try_from(scratch().countdown.get()).unwrap_or(0);
    match state().translator.truncate(rip, left, cuts) {
        Ok(translated) => Ok(translated),
        Err(kind) => Err(fault(frame, kind, rip, "")),
    }
}

/// A copy of a block has run to its end: it goes on there, unless translations were thrown away.
#[inline]
fn slice_ended<G: Guest>(guest: &G, translator: &Translator, frame: &mut Frame, rip: u64) -> Flow<u64> {
    frame.rip = rip;
    let countdown = &scratch().countdown;
    if countdown.get() > 0 {
        return Ok(0);
    }
    let generation = translator.generation();
    guest.slice()?;
    if countdown.get() <= 0 {
        clock().set_slice(u64::MAX);
    }
    if translator.generation() == generation { Ok(0) } else { go_on(frame, rip) }
}

/// Asks the guest, and then runs the instruction by itself: whatever happened meanwhile, it is asked once.
fn visible(frame: &mut Frame, decoded: u32, resume: u64) -> Flow<u64> {
    let translator = &state().translator;
    let (instruction, generation) = (&translator.kept(decoded), translator.generation());
    frame.rip = instruction.ip();
    take_back(1);
    let guest = state().guest();
    let is_noted = state().compares.is_on() && compare::is_one(instruction);
    if is_noted {
        compare::note(frame, instruction);
    }
    if !is_fence(instruction) {
        // What is noted comes here though the guest may not be asked about it.
        if !is_noted || translator.watches(instruction.ip()) {
            guest.before_shared(instruction.ip())?;
        }
    } else if is_interlocked(instruction) && state().translator.watches_interlocked() {
        guest.before_interlocked()?;
    }
    if is_fence(instruction) {
        guest.fence()?;
    }
    charge(1);
    // Not sooner: a machine that is taken back to where the guest was asked would let go of it twice.
    let stands = || translator.generation() == generation;
    if state().looks_at_accesses() {
        let anew = || Rc::new(Inspected::new(*instruction));
        let inspected = if stands() { translator.inspected(decoded) } else { anew() };
        inspect::before(frame, &inspected)?;
    }
    if resume != 0 && stands() && !site::is_on_device(frame, instruction) {
        Ok(resume)
    } else if classify(instruction) == Class::Plain {
        site::enter(frame, instruction)
    } else {
        Ok(site::alone(instruction))
    }
}

/// A return that translated code could not do: `extra` bytes of arguments are dropped as well.
pub(super) fn return_to_stack_top(frame: &mut Frame, extra: u64) -> Flow<u64> {
    let rsp = frame.registers.rsp();
    let mut target = [0; 8];
    if memory::peek(rsp, &mut target).is_err() {
        take_back(1);
        return Err(fault(frame, FaultKind::Read, rsp, ""));
    }
    let target = u64::from_le_bytes(target);
    if target == super::RETURN_TO_KERNEL && extra != 0 {
        // The kernel's callers keep what they have pushed: they would go on with a stack that is not theirs.
        return Err(fault(frame, FaultKind::StackMoved, extra, ""));
    }
    frame.registers.general[4] = rsp.wrapping_add(8 + extra);
    go_on(frame, target)
}

fn indirect_miss(frame: &mut Frame, rip: u64, found: u64, pushed: bool) -> Flow<u64> {
    frame.rip = rip;
    let translator = &state().translator;
    let generation = translator.generation();
    let target = scratch().target.get();
    if pushed {
        return guess::go_on_pushed(frame, target);
    }
    let translated = go_on(frame, target)?;
    if translator.generation() == generation {
        host_words().jump.set(translated);
        return Ok(found);
    }
    let instruction = site::instruction_at(rip);
    if let Some(visible) = instruction.filter(|it| translator.with(|cache| cache.asks_before(it))) {
        return Ok(site::alone(&visible)); // the guest was asked
    }
    take_back(1);
    go_on(frame, rip)
}

fn host_fault(frame: &mut Frame, mut seen: HostFault) -> Flow<u64> {
    let translator = &state().translator;
    let Some(place) = translator.place(seen.rip) else {
        panic!("a fault in the cache at {:#x} belongs to no translation: {seen:?}", seen.rip);
    };
    if place.saved == Saved::Untried {
        return Ok(place.retry);
    }
    if let Saved::CallThrough(through) = place.saved {
        frame.rip = place.rip;
        go_on(frame, through.target(frame))?;
    }
    restore(frame, place.saved);
    let write = seen.trap == PAGE_FAULT && seen.error & 2 != 0;
    if write && place.saved == Saved::RcxRdx {
        // A `ret` stores nothing: only its translation does.
        frame.rip = place.rip;
        return return_to_stack_top(frame, 0);
    }
    if matches!(place.saved, Saved::CheckRcx | Saved::CheckRcxRdx) {
        return inspect::faulted(frame, &place, seen.rip);
    }
    take_back(place.unretired);
    frame.rip = place.rip;
    if write && translator.written(seen.address) {
        return site::step_over(frame);
    }
    let masked = site::instruction_at(place.rip).filter(processor::is_masked);
    if seen.trap == PAGE_FAULT
        && let Some(instruction) = &masked
    {
        seen.address = elements::missing(frame, instruction, write).unwrap_or(seen.address);
    }
    if seen.trap == PAGE_FAULT && is_call_out(seen.address) {
        if let Some(instruction) = masked {
            let what = name_of(&instruction);
            return Err(fault(frame, FaultKind::NotImplemented, seen.address, what));
        }
        if is_of_the_stack(frame, seen.address) {
            let kind = if write { FaultKind::Write } else { FaultKind::Read };
            return Err(fault(frame, kind, seen.address, ""));
        }
        if site::learn(place.rip) {
            return go_on(frame, place.rip);
        }
        let what = site::instruction_at(place.rip).map_or("", |instruction| name_of(&instruction));
        return Err(fault(frame, FaultKind::NotImplemented, seen.address, what));
    }
    let (kind, address) = interpret(frame, &seen);
    Err(fault(frame, kind, address, ""))
}

/// Whether the instruction at `frame.rip` has come to this address by its stack pointer, not by an operand: a stack in a device's
/// memory or in the shared data is no stack.
fn is_of_the_stack(frame: &Frame, address: u64) -> bool {
    let uses = site::instruction_at(frame.rip).is_some_and(|instruction| instruction.is_stack_instruction());
    uses && site::operand_of(frame) != Some(address)
}

const PAGE_FAULT: u32 = 14;

fn restore(frame: &mut Frame, saved: Saved) {
    let general = &mut frame.registers.general;
    match saved {
        Saved::Nothing | Saved::Untried | Saved::CallThrough(_) => {}
        Saved::R11 => general[11] = scratch().r11.get(),
        Saved::InR11(register) => general[usize::from(register)] = scratch().r11.get(),
        Saved::Lent => scratch().countdown.set(scratch().held.get()),
        Saved::LentInR11(register) => {
            general[usize::from(register)] = scratch().r11.get();
            scratch().countdown.set(scratch().held.get());
        }
        Saved::CheckRcx => general[1] = scratch().rcx.get(),
        Saved::RcxRdx | Saved::CheckRcxRdx => {
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
        _ => {
            let wild = |address: &u64| !site::is_canonical(*address);
            let operand = site::operand_of(frame);
            // The operand, or else the stack that the instruction pushes to.
            match operand.filter(wild).or_else(|| Some(frame.registers.rsp()).filter(wild)) {
                Some(address) => (FaultKind::NonCanonical, address),
                None => (FaultKind::Protection, operand.unwrap_or(frame.rip)),
            }
        }
    }
}
