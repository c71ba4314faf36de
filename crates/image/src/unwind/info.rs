//! `UNWIND_INFO`: what a function's prolog did, in the order in which it is to be undone.
//!
//! As the Microsoft page "x64 exception handling" has it under "struct UNWIND_INFO". Of version 2, the epilog descriptors are
//! skipped: epilogs are recognised by their instructions, as in version 1.

use super::UnwindRegisters;
use crate::memory::Memory;
use crate::runtime_functions::RuntimeFunction;

/// Flags.
const EXCEPTION_HANDLER: u8 = 1;
const TERMINATION_HANDLER: u8 = 2;
const CHAINED: u8 = 4;

/// The language-specific handler of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handler {
    /// RVA of the handler, e.g. of a jump to `__C_specific_handler`.
    pub rva: u32,
    /// RVA of its data, e.g. a scope table.
    pub data: u32,
    /// Whether it is asked about exceptions (`UNW_FLAG_EHANDLER`).
    pub exceptions: bool,
    /// Whether it is called when frames are unwound (`UNW_FLAG_UHANDLER`).
    pub termination: bool,
}

/// One thing a prolog did. Registers are 0–15, offsets are bytes from the stack pointer after the prolog's allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Push(usize),
    Allocate(u32),
    SetFrame,
    Save { register: usize, offset: u32 },
    SaveXmm { register: usize, offset: u32 },
    MachineFrame { error_code: bool },
    Nothing,
}

/// What follows the unwind codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    Nothing,
    Handler(Handler),
    Chained(RuntimeFunction),
}

/// Decoded unwind data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UnwindInfo {
    /// Bytes of prolog.
    pub(crate) prolog: u8,
    /// The frame register and its distance in bytes above the stack pointer after the allocation.
    pub(crate) frame: Option<(usize, u32)>,
    /// Each with the offset of the end of its instruction in the prolog, last first.
    pub(crate) operations: Vec<(u8, Operation)>,
    pub(crate) rest: Rest,
}

impl UnwindInfo {
    /// The unwind data at `rva`, if they make sense.
    pub(crate) fn read(memory: &Memory, size_of_image: u32, rva: u32) -> Option<Self> {
        let [first, prolog, count, frame] = memory.u32(rva)?.to_le_bytes();
        let (version, flags) = (first & 7, first >> 3);
        if !(1..=2).contains(&version) {
            return None;
        }
        let slots = memory.bytes(rva.checked_add(4)?, 2 * u32::from(count))?.as_chunks::<2>().0;
        let rest = rva.checked_add(4 + 2 * u32::from(count).next_multiple_of(2))?;
        Some(Self {
            prolog,
            frame: (frame & 15 != 0).then_some((usize::from(frame & 15), 16 * u32::from(frame >> 4))),
            operations: Slots { version, slots }.decode()?,
            rest: read_rest(memory, size_of_image, flags, rest)?,
        })
    }

    /// The stack pointer after the prolog's allocation, as the frame register tells it.
    pub(crate) fn frame_pointer_base(&self, registers: &UnwindRegisters) -> Option<u64> {
        let (register, distance) = self.frame?;
        Some(registers.general[register].wrapping_sub(distance.into()))
    }

    /// The same, by the frame register if it is set once `ran` bytes of the function have run, else by RSP itself.
    pub(crate) fn frame_base(&self, registers: &UnwindRegisters, ran: u32) -> u64 {
        let mut set_frame = self.operations.iter().filter(|(_, operation)| *operation == Operation::SetFrame);
        let is_set = ran >= u32::from(self.prolog) || set_frame.any(|(at, _)| u32::from(*at) <= ran);
        self.frame_pointer_base(registers).filter(|_| is_set).unwrap_or(registers.rsp())
    }
}

fn read_rest(memory: &Memory, size_of_image: u32, flags: u8, rva: u32) -> Option<Rest> {
    if flags & CHAINED != 0 {
        return RuntimeFunction::read(memory, size_of_image, rva).map(Rest::Chained);
    }
    if flags & (EXCEPTION_HANDLER | TERMINATION_HANDLER) == 0 {
        return Some(Rest::Nothing);
    }
    Some(Rest::Handler(Handler {
        rva: memory.u32(rva).filter(|&handler| handler < size_of_image)?,
        data: rva.checked_add(4)?,
        exceptions: flags & EXCEPTION_HANDLER != 0,
        termination: flags & TERMINATION_HANDLER != 0,
    }))
}

/// The unwind codes as they are written: 2-byte slots, one to three for an operation.
struct Slots<'s> {
    version: u8,
    slots: &'s [[u8; 2]],
}

impl Slots<'_> {
    /// Every operation, or `None` if one is unknown or cut off.
    fn decode(mut self) -> Option<Vec<(u8, Operation)>> {
        let mut operations = Vec::new();
        while let Some([at, code]) = self.next() {
            let operation = self.operation(code & 15, code >> 4)?;
            operations.push((at, operation));
        }
        Some(operations)
    }

    fn next(&mut self) -> Option<[u8; 2]> {
        let (first, rest) = self.slots.split_first()?;
        self.slots = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u32> {
        self.next().map(|slot| u16::from_le_bytes(slot).into())
    }

    fn double_word(&mut self) -> Option<u32> {
        Some(self.word()? | self.word()? << 16)
    }

    fn operation(&mut self, code: u8, operand: u8) -> Option<Operation> {
        let register = usize::from(operand);
        Some(match (code, operand) {
            (0, _) => Operation::Push(register),
            (1, 0) => Operation::Allocate(8 * self.word()?),
            (1, 1) => Operation::Allocate(self.double_word()?),
            (2, _) => Operation::Allocate(8 * u32::from(operand) + 8),
            (3, _) => Operation::SetFrame,
            (4, _) => Operation::Save { register, offset: 8 * self.word()? },
            (5, _) => Operation::Save { register, offset: self.double_word()? },
            (6, _) if self.version == 2 => Operation::Nothing,
            (8, _) => Operation::SaveXmm { register, offset: 16 * self.word()? },
            (9, _) => Operation::SaveXmm { register, offset: self.double_word()? },
            (10, 0 | 1) => Operation::MachineFrame { error_code: operand == 1 },
            _ => return None,
        })
    }
}
