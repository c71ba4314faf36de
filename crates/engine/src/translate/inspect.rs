//! What a check of the checked translation leaves to be looked at: where an instruction's accesses lie, byte by byte,
//! before it runs. The guest judges touches of marked memory; an access outside driver memory is a fault, though the
//! host has something there. A machine that learns what is shared has each access noted here, and one whose guest wants to hear of accesses
//! reports it (`reporting`).

use std::cell::OnceCell;

use iced_x86::{CodeSize, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register, UsedMemory};
use smallvec::SmallVec;

use super::cache::Place;
use super::checked::Checks;
use super::classify::{Class, adds, classify, is_interlocked, may_be_watched};
use super::elements::{Element, elements};
use super::exit::{charge, fault, go_on, take_back};
use super::frame::Frame;
use super::noted::{self, Access};
use super::operands::{moves_by_bit, touched, writes};
use super::{halves, reporting, site};
use crate::guest::{AccessKind, Caller, FaultKind, MemoryAccess, Runner, Touch, TouchKind};
use crate::leave::Flow;
use crate::machine::state;
use crate::memory;
use crate::processor;
use crate::registers::number::RCX;
use crate::windows::{DRIVER_MEMORY, PAGE, Window};

const DIRECTION: u64 = 1 << 10;

/// A stretch of memory that an instruction will touch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) address: u64,
    pub(super) bytes: u64,
    /// Bytes that it touches at once.
    pub(super) element: u64,
    /// The highest element is the first.
    pub(super) down: bool,
    write: bool,
    /// What it does there, if that is reported to the guest at all.
    pub(super) kind: Option<AccessKind>,
}

impl Stretch {
    fn new(address: u64, bytes: u64, kind: AccessKind) -> Self {
        Self {
            address,
            bytes,
            element: bytes,
            down: false,
            write: kind != AccessKind::Load,
            kind: Some(kind),
        }
    }

    /// Where the first `count` elements lie, and how many bytes they are.
    pub(super) fn first(&self, count: u64) -> (u64, u64) {
        let bytes = (count * self.element).min(self.bytes);
        (if self.down { self.address + (self.bytes - bytes) } else { self.address }, bytes)
    }
}

/// What an instruction accesses, most often no more than these.
type Stretches = SmallVec<[Stretch; 4]>;

/// What is known of an instruction that is inspected, wherever its operands lie: found out once.
pub(crate) struct Inspected {
    instruction: Instruction,
    /// What it [touches](touched).
    used: Vec<UsedMemory>,
    /// Where its accesses are those of its operands (it is not repeated, takes no bits or elements, and is no jump), and registers of 64 bits and
    /// constants say where they lie.
    operands: Option<SmallVec<[Plain; 2]>>,
    /// The guest can be asked before it.
    may_be_watched: bool,
    /// See [`halves::stored_back`], looked up when it is first reported.
    stored_back: OnceCell<Option<u64>>,
}

impl Inspected {
    pub(super) fn new(instruction: Instruction) -> Self {
        let is_plain = !(processor::is_masked(&instruction)
            || is_repeated(&instruction)
            || moves_by_bit(&instruction)
            || classify(&instruction) == Class::JumpIndirect);
        let (used, may_be_watched) = (touched(&instruction), may_be_watched(&instruction));
        let operands = || used.iter().map(|used| Plain::of(&instruction, used)).collect();
        let operands = if is_plain { operands() } else { None };
        Self { instruction, operands, used, may_be_watched, stored_back: OnceCell::new() }
    }

    pub(super) const fn instruction(&self) -> &Instruction {
        &self.instruction
    }

    /// The store that ends the update which it begins, if it begins one.
    pub(super) fn stored_back(&self) -> Option<u64> {
        *self.stored_back.get_or_init(|| halves::stored_back(&self.instruction))
    }

    /// What it does to each of its operands, as the guest hears of it when it has been [written down](noted): none of those that are not reported. None if
    /// it cannot be.
    pub(super) fn reports(&self) -> Option<SmallVec<[Option<MemoryAccess>; 2]>> {
        let (rip, atomic) = (self.instruction.ip(), is_interlocked(&self.instruction));
        let adds = atomic && adds(&self.instruction);
        let report = |Plain { stretch, .. }: &Plain| {
            let kind = stretch.kind?;
            let (atomic, adds) = (atomic && kind == AccessKind::Update, adds && kind == AccessKind::Update);
            let stored_back = self.stored_back().filter(|_| kind == AccessKind::Load);
            Some(MemoryAccess { address: 0, bytes: stretch.bytes, kind, atomic, adds, stored_back, rip })
        };
        Some(self.operands.as_ref()?.iter().map(report).collect())
    }

    /// What it does to each of its operands, if it can be [written down](noted).
    pub(super) fn accesses(&self) -> Option<SmallVec<[Access; 2]>> {
        let access = |operand: &Plain| {
            let Stretch { bytes, write, .. } = operand.stretch;
            Access::new(self.instruction.ip(), bytes, write, self.may_be_watched)
        };
        self.operands.as_ref()?.iter().map(access).collect()
    }
}

/// An operand whose address is a sum of registers and a constant.
struct Plain {
    base: Option<usize>,
    index: Option<usize>,
    scale: u64,
    /// At address 0.
    stretch: Stretch,
    displacement: u64,
}

impl Plain {
    fn of(instruction: &Instruction, used: &UsedMemory) -> Option<Self> {
        let number = |register: Register| match register {
            Register::None => Some(None),
            register if register.is_gpr64() => Some(Some(register.number())),
            _ => None,
        };
        let is_narrow = used.address_size() != CodeSize::Code64;
        if is_narrow || matches!(used.segment(), Register::FS | Register::GS) {
            return None;
        }
        Some(Self {
            base: number(used.base())?,
            index: number(used.index())?,
            scale: used.scale().into(),
            stretch: stretch_at(0, instruction, used),
            displacement: used.displacement(),
        })
    }

    fn stretch(&self, frame: &Frame) -> Stretch {
        let value = |register: Option<usize>| register.map_or(0, |number| frame.registers.general[number]);
        let named = value(self.base).wrapping_add(value(self.index).wrapping_mul(self.scale));
        Stretch { address: named.wrapping_add(self.displacement), ..self.stretch }
    }
}

/// What the instruction does to this operand, which lies there.
fn stretch_at(address: u64, instruction: &Instruction, used: &UsedMemory) -> Stretch {
    let bytes = (width(instruction, used) as u64).max(1);
    let reported = reporting::is_reported(used.segment() == Register::GS, used.base(), used.index());
    let stretch = Stretch::new(address, bytes, kind_of(used.access()));
    Stretch { kind: stretch.kind.filter(|_| reported), ..stretch }
}

/// Looks at all accesses of an instruction that is about to run; it goes on at `resume`. They are reported here, unless it `notes` them by itself.
pub(super) fn instruction(
    frame: &mut Frame,
    inspected: &Inspected,
    (unretired, notes): (u32, bool),
    resume: u64,
) -> Flow<u64> {
    frame.rip = inspected.instruction.ip();
    let translator = &state().translator;
    let generation = translator.generation();
    let learned = inspected.may_be_watched.then(|| inspected.instruction.ip());
    look(frame, inspected, learned, (unretired, notes))?;
    if translator.generation() == generation {
        return Ok(resume);
    }
    take_back(unretired);
    go_on(frame, frame.rip)
}

/// Looks at the accesses of an instruction that the guest was asked before, which has been charged and runs by itself next.
pub(super) fn before(frame: &mut Frame, inspected: &Inspected) -> Flow<()> {
    look(frame, inspected, None, (1, false))
}

/// `learned` is the instruction, if it is to be learned where it meets others.
fn look(
    frame: &mut Frame,
    inspected: &Inspected,
    learned: Option<u64>,
    (unretired, notes): (u32, bool),
) -> Flow<()> {
    if !state().looks_at_accesses() {
        return Ok(());
    }
    let only_learns = !state().shadow.is_on() && !state().reporting.is_on();
    if let Some(operands) = inspected.operands.as_ref().filter(|_| only_learns) {
        note(&inspected.instruction, learned, operands.iter().map(|operand| operand.stretch(frame)));
        return Ok(());
    }
    let stretches = stretches(frame, inspected);
    if state().sharing.is_on() {
        note(&inspected.instruction, learned, stretches.iter().copied());
    }
    if state().shadow.is_on() {
        stretches.iter().try_for_each(|stretch| examine(frame, *stretch, unretired))?;
    }
    if !state().reporting.is_on() || notes {
        return Ok(());
    }
    reporting::report(inspected, &stretches, unretired)
}

/// Notes who touches what. Until the kernel is entered again, where another flow may go on, this one writes down by itself what it touches, and nothing
/// of what it touches on its own stack.
fn note(instruction: &Instruction, learned: Option<u64>, stretches: impl Iterator<Item = Stretch>) {
    if instruction.segment_prefix() == Register::GS {
        return; // the processor's own
    }
    let runner = state().guest().runner();
    for stretch in stretches {
        note_bytes(&runner, learned, stretch.address, stretch.bytes, stretch.write);
    }
    noted::open();
    if state().sharing.spares(&runner) {
        noted::spare(&runner);
    }
}

/// Notes an access that driver code has written down.
pub(super) fn note_access(runner: &Runner, address: u64, access: Access) {
    note_bytes(runner, access.instruction(), address, access.bytes(), access.stores());
}

fn note_bytes(runner: &Runner, instruction: Option<u64>, address: u64, bytes: u64, stores: bool) {
    if let Some(window) = DRIVER_MEMORY.into_iter().find(|window| window.contains(address)) {
        let bytes = mapped(address, bytes.min(window.end() - address));
        state().sharing.note(runner, instruction, address, bytes, stores);
    }
}

/// The check itself has faulted: there is no shadow of what it was to look at.
pub(super) fn faulted(frame: &mut Frame, place: &Place, translated: u64) -> Flow<u64> {
    let behind = state().translator.behind_check(translated);
    match (site::instruction_at(place.rip), behind) {
        (Some(decoded), Some(resume)) => {
            let notes = Checks::note_reports();
            instruction(frame, &Inspected::new(decoded), (place.unretired, notes), resume)
        }
        _ => panic!("a check at {translated:#x} belongs to no instruction"),
    }
}

/// A block whose first byte is marked is about to run.
pub(super) fn code(frame: &mut Frame, rip: u64, resume: u64) -> Flow<u64> {
    frame.rip = rip;
    let translator = &state().translator;
    let generation = translator.generation();
    let mark = state().shadow.mark_of(rip);
    if mark != 0 {
        ask(frame, TouchKind::Execute, &Stretch::new(rip, 1, AccessKind::Load), rip, mark)?;
    }
    if translator.generation() == generation { Ok(resume) } else { go_on(frame, rip) }
}

fn ask(frame: &Frame, kind: TouchKind, stretch: &Stretch, address: u64, mark: u8) -> Flow<()> {
    let caller = Caller { rip: frame.rip, registers: frame.registers };
    let Stretch { address: start, bytes, .. } = *stretch;
    state().guest().touched(&Touch { kind, start, bytes, address, mark, caller })
}

fn examine(frame: &mut Frame, stretch: Stretch, unretired: u32) -> Flow<()> {
    let Some(window) = DRIVER_MEMORY.into_iter().find(|window| window.contains(stretch.address)) else {
        return outside(frame, stretch, unretired);
    };
    let bytes = mapped(stretch.address, stretch.bytes.min(window.end() - stretch.address));
    let kind = if stretch.write { TouchKind::Write } else { TouchKind::Read };
    let (mut at, end) = (stretch.address, stretch.address + bytes);
    while let Some((marked, mark, alike)) = state().shadow.first_marked(at, end - at) {
        take_back(unretired);
        ask(frame, kind, &stretch, marked, mark)?;
        charge(unretired);
        at = marked + alike;
    }
    if stretch.write {
        state().shadow.stored(stretch.address, bytes);
    }
    Ok(())
}

/// Nothing of the driver's is there. Devices and addresses that are none have their own ways; the rest must not happen,
/// because it could be ours.
fn outside(frame: &mut Frame, stretch: Stretch, unretired: u32) -> Flow<()> {
    if !site::is_canonical(stretch.address) || site::is_device(stretch.address) {
        return Ok(());
    }
    take_back(unretired);
    let kind = if stretch.write { FaultKind::Write } else { FaultKind::Read };
    Err(fault(frame, kind, stretch.address, ""))
}

/// How much of a long stretch is there at all: where a page is missing, the instruction itself will fault.
fn mapped(address: u64, bytes: u64) -> u64 {
    let mut length = PAGE - address % PAGE;
    while length < bytes && memory::peek(address + length, &mut [0]).is_ok() {
        length += PAGE;
    }
    length.min(bytes)
}

fn stretches(frame: &Frame, inspected: &Inspected) -> Stretches {
    let Inspected { instruction, used, .. } = inspected;
    if let Some(operands) = &inspected.operands {
        return operands.iter().map(|operand| operand.stretch(frame)).collect();
    }
    if processor::is_masked(instruction) {
        let write = used.iter().any(|used| writes(used.access()));
        let kind = if write { AccessKind::Store } else { AccessKind::Load };
        let stretch = |Element { address, bytes }| Stretch::new(address, bytes, kind);
        return elements(frame, instruction).into_iter().map(stretch).collect();
    }
    let stretch = |used: &UsedMemory| {
        let address = used.virtual_address(0, |register, _, _| site::register(frame, register))?;
        Some(stretch_at(address, instruction, used))
    };
    let mut all: Stretches = used.iter().filter_map(stretch).collect();
    if is_repeated(instruction) {
        repeat(frame, instruction, &mut all);
    } else if moves_by_bit(instruction) {
        all.iter_mut().for_each(|stretch| move_by_bit(frame, instruction, stretch));
    } else if classify(instruction) == Class::JumpIndirect {
        all.push(Stretch { kind: None, ..Stretch::new(frame.registers.rsp(), 8, AccessKind::Load) });
    }
    all
}

fn is_repeated(instruction: &Instruction) -> bool {
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    repeated && instruction.is_string_instruction()
}

/// Bytes of an access; of a repeated string instruction those of an element, which the decoder's uses of memory leave open.
fn width(instruction: &Instruction, used: &UsedMemory) -> usize {
    let of_string = || instruction.is_string_instruction().then(|| instruction.memory_size().size());
    Some(used.memory_size().size()).filter(|bytes| *bytes != 0).or_else(of_string).unwrap_or(0)
}

/// What an instruction does to an operand.
const fn kind_of(access: OpAccess) -> AccessKind {
    match access {
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => AccessKind::Update,
        access if writes(access) => AccessKind::Store,
        _ => AccessKind::Load,
    }
}

/// All elements of a repeated string instruction; comparisons as far as they will go.
fn repeat(frame: &Frame, instruction: &Instruction, stretches: &mut Stretches) {
    use Mnemonic as M;
    let counter =
        frame.registers.general[RCX] & if counts_in_ecx(instruction) { 0xFFFF_FFFF } else { u64::MAX };
    let compares = matches!(
        instruction.mnemonic(),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq
    );
    let down = frame.registers.flags & DIRECTION != 0;
    let count = if compares { compared(frame, instruction, stretches, counter, down) } else { counter };
    if count == 0 {
        stretches.clear();
    }
    for stretch in stretches {
        extend(stretch, count, down);
    }
}

fn counts_in_ecx(instruction: &Instruction) -> bool {
    InstructionInfoFactory::new()
        .info(instruction)
        .used_registers()
        .iter()
        .any(|r| r.register() == Register::ECX)
}

/// From its first element to all of `count`; downwards no further than its window.
fn extend(stretch: &mut Stretch, count: u64, down: bool) {
    let element = stretch.bytes;
    let more = count.saturating_sub(1).saturating_mul(element);
    stretch.bytes = more.saturating_add(element);
    stretch.down = down;
    if down {
        let inside = |window: &Window| window.contains(stretch.address);
        let floor = DRIVER_MEMORY.into_iter().find(inside).map_or(stretch.address, |window| window.base);
        let below = more.min(stretch.address - floor);
        stretch.address -= below;
        stretch.bytes = below + element;
    }
}

/// How many elements a repeated comparison looks at.
fn compared(
    frame: &Frame,
    instruction: &Instruction,
    stretches: &[Stretch],
    counter: u64,
    down: bool,
) -> u64 {
    let Some(bytes) = stretches.first().map(|stretch| stretch.bytes) else { return 0 };
    let while_equal = instruction.has_rep_prefix();
    let width = memory::usize_of(bytes);
    let accumulator = frame.registers.general[0].to_le_bytes();
    for done in 0..counter {
        let distance = done.wrapping_mul(bytes);
        let element = |stretch: &Stretch| {
            let address = if down {
                stretch.address.wrapping_sub(distance)
            } else {
                stretch.address.wrapping_add(distance)
            };
            let mut value = [0; 8];
            memory::peek(address, &mut value[..width]).ok().map(|()| value)
        };
        let left = stretches.first().and_then(element);
        let right = match stretches.get(1) {
            Some(other) => element(other),
            None => Some(accumulator),
        };
        let (Some(left), Some(right)) = (left, right) else { return done + 1 };
        if (left[..width] == right[..width]) != while_equal {
            return done + 1;
        }
    }
    counter
}

/// Where the bit is that the register numbers.
fn move_by_bit(frame: &Frame, instruction: &Instruction, stretch: &mut Stretch) {
    let Some(number) = site::register(frame, instruction.op1_register()) else { return };
    let words = match stretch.bytes {
        2 => i64::from(((number & 0xFFFF) as u16).cast_signed()) >> 4,
        4 => i64::from(((number & 0xFFFF_FFFF) as u32).cast_signed()) >> 5,
        _ => number.cast_signed() >> 6,
    };
    stretch.address = stretch.address.wrapping_add_signed(words.wrapping_mul(stretch.bytes.cast_signed()));
}
