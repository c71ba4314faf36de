//! The checked translation's own code: before an instruction touches memory, the marks of the bytes it will touch are
//! loaded (see `crate::shadow`). All zero, and it runs; anything else goes to `inspect`.
//!
//! A stray address has no marks: the load of them faults, and the fault is an inspection as well. So no window is tested
//! here, no flag is touched, and an access outside driver memory never happens. Instructions, their count and the places
//! where a slice may end are those of the fast translation. It decides nothing.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

use super::block::{counter, restore_flags, save_flags};
use super::blocks::Block;
use super::cache::{Cache, MapEntry, Saved};
use super::classify::{Class, classify};
use super::emitter::condition::ABOVE_OR_EQUAL;
use super::emitter::{Emitter, Hole, RCX, RDX};
use super::exit::Exit;
use super::inspect::Inspected;
use super::noted::{self, Access};
use super::operands::{Operand, Operands, operands};
use super::scratch::{
    GS_MARKS, GS_STORED, LOG, OWN_STACK, OWN_STACK_BYTES, RCX as SAVED_RCX, RDX as SAVED_RDX,
};
use super::{covered::Covered, flags::Live, reporting, stubs};
use crate::guest::MemoryAccess;
use crate::machine::state;
use crate::windows::{MARKS, STORED};

/// What is emitted for the checks of one block.
#[derive(Default)]
pub(super) struct Checks {
    /// Jumps to inspections, which stand behind the block.
    slow: Vec<Slow>,
    covered: Covered,
    /// Marks are loaded.
    tests: bool,
    /// Every access is inspected, but for what a flow does on its own stack.
    learns: bool,
    /// So is each that is reported to the guest before it happens.
    reports: bool,
    /// Those that are reported when the kernel is next entered are written down.
    notes: bool,
    /// Flags that may be read behind the block.
    live_behind: Live,
}

/// A jump taken where a mark is not zero, or an access is to be noted.
struct Slow {
    hole: Hole,
    saved: Saved,
    /// So are the flags.
    flags_live: bool,
    noted: Option<Noted>,
    /// Where it is looked at, unless it is noted here.
    exit: u32,
}

/// An access that is written down, its address in `rcx`.
struct Noted {
    access: Access,
    /// The address is one in the stack that runs.
    in_stack: bool,
    /// Where it goes on, with `rcx` and the flags restored.
    back: u64,
}

impl Checks {
    /// For a block that is entered at `pc`; none if the machine is not checked, does not learn and does not report.
    pub(super) fn new(cache: &mut Cache, pc: u64, live_behind: Live) -> Option<Self> {
        let shadow = state().shadow;
        let (tests, learns, notes) = (shadow.is_on(), state().sharing.is_on(), Self::note_reports());
        let reports = state().reporting.is_on() && !notes;
        if !tests && !learns && !reports && !notes {
            return None;
        }
        if shadow.mark_of(pc) != 0 {
            ask(cache, |resume| Exit::InspectCode { rip: pc, resume });
        }
        let (covered, slow) = (Covered::default(), Vec::new());
        Some(Self { tests, learns, reports, notes, live_behind, covered, slow })
    }

    /// Whether what is reported is written down where it can be. In a machine that learns, too, each access is inspected anyway.
    pub(super) fn note_reports() -> bool {
        state().reporting.is_noted() && !state().sharing.is_on()
    }

    /// Checks what the first of these instructions, the `index`-th of `block`, touches. A `site` may touch a device and is always inspected.
    pub(super) fn before(
        &mut self,
        cache: &mut Cache,
        block: &mut Block,
        instructions: &[Instruction],
        index: usize,
        site: bool,
    ) {
        let instruction = &instructions[0];
        let index = u32::try_from(index).expect("a block is short");
        let unretired = u8::try_from(block.charged - index).expect("a block is short");
        match operands(instruction) {
            Operands::None => {}
            Operands::Some(operands) if !site && !self.inspects(&operands) => {
                let jumps = if self.tests { self.test(cache, block, index, &operands) } else { Vec::new() };
                if !jumps.is_empty() {
                    let (decoded, resume) = (cache.keep(instruction), cache.emitter.here());
                    let exit = cache.exit(Exit::Inspect { decoded, unretired, notes: self.notes, resume });
                    self.slow.extend(jumps.into_iter().map(|(hole, saved)| Slow {
                        hole,
                        saved,
                        flags_live: false,
                        noted: None,
                        exit,
                    }));
                }
                if self.notes && operands.iter().any(reporting::reports_of) {
                    self.note_reported(cache, instructions, &operands, unretired);
                }
            }
            Operands::Some(_)
                if !site && self.only_learns() && instruction.segment_prefix() == Register::GS => {}
            Operands::Some(operands) if !site && self.only_learns() => {
                match Inspected::new(*instruction).accesses() {
                    Some(accesses) => {
                        let accesses: Vec<Option<Access>> = accesses.into_iter().map(Some).collect();
                        self.note(cache, instructions, (&operands, &accesses), unretired);
                    }
                    None => inspect_here(cache, instruction, unretired),
                }
            }
            Operands::Some(_) | Operands::Implicit => inspect_here(cache, instruction, unretired),
        }
        self.covered.after(instruction);
    }

    /// Has each operand written down that is reported to the guest. Where a jump leads, and what is loaded for it, is not.
    fn note_reported(
        &mut self,
        cache: &mut Cache,
        instructions: &[Instruction],
        operands: &[Operand],
        unretired: u8,
    ) {
        let instruction = &instructions[0];
        if matches!(classify(instruction), Class::CallIndirect | Class::JumpIndirect) {
            return;
        }
        match Inspected::new(*instruction).reports() {
            Some(reports) => {
                let keep = |report: Option<MemoryAccess>| report.map(|report| cache.keep_reported(report));
                let accesses: Vec<Option<Access>> = reports.into_iter().map(keep).collect();
                self.note(cache, instructions, (operands, &accesses), unretired);
            }
            None => inspect_here(cache, instruction, unretired),
        }
    }

    /// Has each operand of the first of these instructions noted for which there is an access, and which is not on the stack whose owner runs and is
    /// spared ([`super::inspect`]).
    fn note(
        &mut self,
        cache: &mut Cache,
        instructions: &[Instruction],
        (operands, accesses): (&[Operand], &[Option<Access>]),
        unretired: u8,
    ) {
        let decoded = cache.keep(&instructions[0]);
        let flags_live = self.live_behind.before(instructions).any();
        let e = &mut cache.emitter;
        let emitted = |(operand, access): (&Operand, &Option<Access>)| {
            let (access, in_stack) = ((*access)?, may_be_on_stack(operand));
            let hole = if in_stack {
                unless_on_own_stack(e, operand, flags_live)
            } else {
                always(e, operand, flags_live)
            };
            Some((hole, Noted { access, in_stack, back: e.here() }))
        };
        let all: Vec<(Hole, Noted)> = operands.iter().zip(accesses).filter_map(emitted).collect();
        let resume = cache.emitter.here();
        let exit = cache.exit(Exit::Inspect { decoded, unretired, notes: false, resume });
        let saved = Saved::CheckRcx;
        self.slow.extend(all.into_iter().map(|(hole, noted)| Slow {
            hole,
            saved,
            flags_live,
            noted: Some(noted),
            exit,
        }));
    }

    /// Whether an instruction with these operands is inspected in any case.
    fn inspects(&self, operands: &[Operand]) -> bool {
        self.learns || self.reports && operands.iter().any(reporting::reports_of)
    }

    /// Whether inspections do no more than note who touches what.
    fn only_learns(&self) -> bool {
        self.learns && !self.tests && !self.reports
    }

    /// What may be touched may have changed in the middle of the block: by another level, or by what came in between.
    pub(super) fn begin_anew(&mut self) {
        self.covered = Covered::default();
    }

    /// The tests of one instruction's operands, but for those that an earlier one of the block has made.
    fn test(
        &mut self,
        cache: &mut Cache,
        block: &mut Block,
        index: u32,
        operands: &[Operand],
    ) -> Vec<(Hole, Saved)> {
        let mut jumps = Vec::new();
        for operand in operands {
            if !self.covered.has(operand) {
                let e = &mut cache.emitter;
                let place = Place::of(operand);
                block.map.push(MapEntry { at: e.here(), index, saved: Saved::Nothing });
                place.begin(e, operand);
                block.map.push(MapEntry { at: e.here(), index, saved: place.saved() });
                let holes =
                    operand.pieces().map(|(offset, bytes)| place.load_marks(e, operand, offset, bytes));
                jumps.extend(holes.map(|hole| (hole, place.saved())));
                if operand.write {
                    operand
                        .pieces()
                        .for_each(|(offset, bytes)| place.store_stored(e, operand, offset, bytes));
                }
                place.restore(e);
                self.covered.add(operand);
            }
        }
        jumps
    }

    /// Writes what the jumps lead to.
    pub(super) fn finish(self, e: &mut Emitter) {
        for Slow { hole, saved, flags_live, noted, exit } in self.slow {
            e.fill_here(hole);
            if let Some(noted) = noted {
                write_down(e, &noted, flags_live);
            }
            if flags_live {
                restore_flags(e);
            }
            restore(e, saved);
            stubs::exit_stub(e, exit);
        }
    }
}

/// What the instruction touches is looked at, whatever it is.
fn inspect_here(cache: &mut Cache, instruction: &Instruction, unretired: u8) {
    let decoded = cache.keep(instruction);
    ask(cache, |resume| Exit::Inspect { decoded, unretired, notes: false, resume });
}

/// An exit that comes back right behind itself.
pub(super) fn ask(cache: &mut Cache, exit: impl FnOnce(u64) -> Exit) {
    let resume = cache.emitter.here() + stubs::EXIT_STUB;
    let number = cache.exit(exit(resume));
    stubs::exit_stub(&mut cache.emitter, number);
}

fn restore(e: &mut Emitter, saved: Saved) {
    if saved == Saved::CheckRcxRdx {
        e.load(RDX, SAVED_RDX);
    }
    e.load(RCX, SAVED_RCX);
}

/// How an operand's address is had: `rcx` holds a distance, the rest is one of these.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The operand's own base register, and its displacement.
    Base,
    /// The operand's displacement alone: an address known now, or one behind `gs`.
    Fixed,
    /// `rdx`, where it has been computed.
    Computed,
}

impl Place {
    fn of(operand: &Operand) -> Self {
        let usable = operand.base.is_gpr64() && operand.base != Register::RCX && !counter::is(operand.base);
        match (operand.base, operand.index) {
            (Register::None, Register::None) => Self::Fixed,
            (_, Register::None) if usable => Self::Base,
            _ => Self::Computed,
        }
    }

    const fn saved(self) -> Saved {
        match self {
            Self::Base | Self::Fixed => Saved::CheckRcx,
            Self::Computed => Saved::CheckRcxRdx,
        }
    }

    fn begin(self, e: &mut Emitter, operand: &Operand) {
        e.store(SAVED_RCX, RCX);
        if self == Self::Computed {
            e.store(SAVED_RDX, RDX);
            put_address(e, Register::RDX, operand);
        }
    }

    fn restore(self, e: &mut Emitter) {
        restore(e, self.saved());
    }

    /// Loads the marks of `bytes` bytes at `offset` into `rcx`; the jump is taken if they are not zero.
    fn load_marks(self, e: &mut Emitter, operand: &Operand, offset: u32, bytes: u32) -> Hole {
        let code = match bytes {
            1 => Code::Movzx_r32_rm8,
            2 => Code::Movzx_r32_rm16,
            4 => Code::Mov_r32_rm32,
            _ => Code::Mov_r64_rm64,
        };
        let register = if bytes == 8 { Register::RCX } else { Register::ECX };
        let memory = self.at(e, operand, offset, MARKS, GS_MARKS);
        put(e, Instruction::with2(code, register, memory));
        e.bytes(&[0xE3, 0x05]); // jrcxz over the jump
        e.jump_hole()
    }

    /// The bytes count as stored.
    fn store_stored(self, e: &mut Emitter, operand: &Operand, offset: u32, bytes: u32) {
        let code = match bytes {
            1 => Code::Mov_rm8_imm8,
            2 => Code::Mov_rm16_imm16,
            4 => Code::Mov_rm32_imm32,
            _ => Code::Mov_rm64_imm32,
        };
        let memory = self.at(e, operand, offset, STORED, GS_STORED);
        put(e, Instruction::with2(code, memory, 0));
    }

    /// Where the table's entry is, with `rcx` set to what that takes.
    fn at(self, e: &mut Emitter, operand: &Operand, offset: u32, distance: u64, gs: u64) -> MemoryOperand {
        let offset = i64::from(offset);
        if self == Self::Fixed && !operand.gs {
            e.constant(RCX, operand.displacement.cast_unsigned().wrapping_add(distance));
            return address(Register::RCX, Register::None, offset);
        }
        if operand.gs {
            e.load(RCX, gs);
        } else {
            e.constant(RCX, distance);
        }
        match self {
            Self::Base => address(operand.base, Register::RCX, operand.displacement + offset),
            Self::Fixed => address(Register::RCX, Register::None, operand.displacement + offset),
            Self::Computed => address(Register::RDX, Register::RCX, offset),
        }
    }
}

/// `lea register, operand`.
fn put_address(e: &mut Emitter, register: Register, operand: &Operand) {
    let lent = counter::is(operand.base) || counter::is(operand.index);
    if lent {
        counter::lend(e);
    }
    put(e, Instruction::with2(Code::Lea_r64_m, register, operand.memory()));
    if lent {
        counter::take(e, false);
    }
}

fn address(base: Register, index: Register, displacement: i64) -> MemoryOperand {
    MemoryOperand::new(base, index, 1, displacement, u32::from(displacement != 0), false, Register::None)
}

/// Whether only its registers tell where it lies.
fn may_be_on_stack(operand: &Operand) -> bool {
    !operand.gs && (operand.base != Register::None || operand.index != Register::None)
}

/// The jump is taken, with `rcx` saved, and the flags if they are live, unless the operand begins on the stack whose owner runs and is spared
/// ([`super::inspect`]).
fn unless_on_own_stack(e: &mut Emitter, operand: &Operand, flags_live: bool) -> Hole {
    e.store(SAVED_RCX, RCX);
    put_address(e, Register::RCX, operand);
    if flags_live {
        save_flags(e);
    }
    e.scratch(&[0x48, 0x2B], RCX.0, OWN_STACK); // sub rcx, [own_stack]
    e.scratch(&[0x48, 0x3B], RCX.0, OWN_STACK_BYTES); // cmp rcx, [own_stack_bytes]
    let elsewhere = e.jump_if_hole(ABOVE_OR_EQUAL);
    if flags_live {
        restore_flags(e);
    }
    e.load(RCX, SAVED_RCX);
    elsewhere
}

/// The jump is taken, with `rcx` saved, and the flags if they are live. The operand's address is known, and in `rcx`.
fn always(e: &mut Emitter, operand: &Operand, flags_live: bool) -> Hole {
    e.store(SAVED_RCX, RCX);
    e.constant(RCX, operand.displacement.cast_unsigned());
    if flags_live {
        save_flags(e);
    }
    e.jump_hole()
}

/// Writes an access into the log and goes back. Goes on behind this if the log is closed or full.
fn write_down(e: &mut Emitter, noted: &Noted, flags_live: bool) {
    if noted.in_stack {
        e.scratch(&[0x48, 0x03], RCX.0, OWN_STACK); // add rcx, [own_stack]
    }
    e.store(SAVED_RDX, RDX);
    e.load(RDX, LOG);
    let end = u32::try_from(noted::END).expect("the scratch page lies low");
    e.bytes(&[0x48, 0x81, 0xFA]); // cmp rdx, end
    e.bytes(&end.to_le_bytes());
    let full = e.jump_if_hole(ABOVE_OR_EQUAL);
    e.bytes(&[0x48, 0x89, 0x0A]); // mov [rdx], rcx
    e.constant(RCX, noted.access.0);
    e.bytes(&[0x48, 0x89, 0x4A, 0x08]); // mov [rdx+8], rcx
    e.bytes(&[0x48, 0x83, 0xC2, noted::ENTRY]); // add rdx, ENTRY
    e.store(LOG, RDX);
    e.load(RDX, SAVED_RDX);
    if flags_live {
        restore_flags(e);
    }
    e.load(RCX, SAVED_RCX);
    e.jump(noted.back);
    e.fill_here(full);
    e.load(RDX, SAVED_RDX);
}

/// Encodes an instruction of ours.
fn put(e: &mut Emitter, instruction: Result<Instruction, iced_x86::IcedError>) {
    let instruction = instruction.expect("the operands fit the code");
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, e.here()).expect("`Operand` admits no other displacement");
    e.bytes(&encoder.take_buffer());
}
