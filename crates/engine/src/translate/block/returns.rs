//! A `ret` whose target is looked up ahead: in front of the pops that end a routine their registers and the flags are free,
//! so that nothing is saved and restored, and the look-up has no jump that is taken.
//!
//! Only where nothing in between can store to memory or read the return address, whose place already holds the translated
//! one. If the address is not known, or a load of the look-up faults, the same instructions run as they are (written
//! aside), and leave by an exit.

use iced_x86::{
    Code, ConditionCode, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::aside::Aside;
use super::{Builder, Source};
use crate::translate::cache::{Cache, Saved};
use crate::translate::classify::{Class, classify, touches_memory};
use crate::translate::emitter::condition::{EQUAL, NOT_EQUAL};
use crate::translate::emitter::{Hole, Reg};
use crate::translate::exit::Exit;
use crate::translate::flags::Live;
use crate::translate::scratch::{RCX as SAVED_RCX, RDX as SAVED_RDX};
use crate::translate::table::{self, UPPER_HALF};
use crate::windows::IMAGES;

/// The place in a block where the target of its `ret` is looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    /// In front of this instruction.
    pub(super) before: usize,
    /// From the stack pointer there to the return address.
    offset: i32,
    /// From the stack pointer there: the lowest and the highest of the loads up to the `ret`.
    loads: Option<(i32, i32)>,
    /// Two registers that are written before they are read, or else are saved.
    registers: [Reg; 2],
    saved: [bool; 2],
}

/// Beyond this from the stack pointer no load is known to lie on a page that was touched.
const REACH: i32 = 0x800;

/// The last place that will do, in a block that ends in `ret`.
pub(super) fn early(cache: &Cache, instructions: &[Instruction]) -> Option<Early> {
    let last = instructions.len() - 1;
    let mut seen = Tail::default();
    let mut best = None;
    for (index, instruction) in instructions[..last].iter().enumerate().rev() {
        if cache.sites.contains(&instruction.ip()) || !seen.add(instruction) {
            break;
        }
        let tail = &instructions[index..];
        if seen.offset < 0 || seen.offset >= REACH || !sets_flags_first(tail) {
            continue;
        }
        let place = seen.place(index, tail);
        if best.is_none_or(|best: Early| place.costs() < best.costs()) {
            best = Some(place);
        }
        if place.costs() == 0 {
            break;
        }
    }
    best
}

/// Whether all flags are written before one is read, and before anything can fault.
fn sets_flags_first(tail: &[Instruction]) -> bool {
    let calm = tail.iter().position(touches_memory_at_all).unwrap_or(tail.len());
    !Live::ALL.before(&tail[..calm]).any()
}

fn touches_memory_at_all(instruction: &Instruction) -> bool {
    touches_memory(instruction) || instruction.is_stack_instruction()
}

/// Instructions from some place up to the `ret`, gathered backwards.
#[derive(Default)]
struct Tail {
    offset: i32,
    loads: Option<(i32, i32)>,
}

impl Tail {
    /// Takes one more in; false if it may do more than move registers and load from the frame.
    fn add(&mut self, instruction: &Instruction) -> bool {
        if classify(instruction) != Class::Plain || !only_loads_can_fault(instruction) {
            return false;
        }
        let Some(step) = stack_step(instruction) else { return false };
        let load = match instruction.mnemonic() {
            Mnemonic::Pop => Some((0, 8)),
            Mnemonic::Lea => None,
            _ if instruction.is_stack_instruction() => return false,
            _ if !touches_memory(instruction) => None,
            _ => match frame_load(instruction) {
                Some(load) => Some(load),
                None => return false,
            },
        };
        self.offset += step;
        self.loads = self.loads.map(|(low, high)| (low + step, high + step));
        if let Some((at, bytes)) = load {
            let (low, high) = (at, at + bytes - 1);
            let apart = high < self.offset || low >= self.offset + 8;
            if !apart || !(0..REACH).contains(&low) || high >= REACH {
                return false;
            }
            self.loads = Some(self.loads.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
        }
        true
    }

    fn place(&self, before: usize, tail: &[Instruction]) -> Early {
        let uses = first_uses(tail);
        // What has to be saved had better not be what the tail waits for.
        let by_use = |wanted: Option<bool>, saved| {
            let those = ORDER.into_iter().filter(move |number| uses[usize::from(*number)] == wanted);
            those.map(move |number| (Reg(number), saved))
        };
        let free = by_use(Some(true), false);
        let mut chosen = free.chain(by_use(None, true)).chain(by_use(Some(false), true));
        let [a, b] = std::array::from_fn(|_| chosen.next().expect("there are fourteen"));
        Early { before, offset: self.offset, loads: self.loads, registers: [a.0, b.0], saved: [a.1, b.1] }
    }
}

impl Early {
    fn costs(&self) -> usize {
        self.saved.iter().filter(|saved| **saved).count()
    }

    fn spills(&self) -> impl Iterator<Item = (Reg, u64)> {
        let all = [(self.registers[0], SAVED_RCX), (self.registers[1], SAVED_RDX)];
        all.into_iter().zip(self.saved).filter(|(_, saved)| *saved).map(|(spill, _)| spill)
    }
}

/// Whether it works on general registers, and faults at most where it loads. (A division faults by itself, and so does
/// arithmetic of vectors.)
fn only_loads_can_fault(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let general = (0..instruction.op_count()).all(|index| {
        let register = instruction.op_register(index);
        register == Register::None || register.is_gpr()
    });
    let conditional = instruction.condition_code() != ConditionCode::None;
    let known = matches!(
        instruction.mnemonic(),
        M::Mov
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Lea
            | M::Pop
            | M::Nop
            | M::Add
            | M::Adc
            | M::Sub
            | M::Sbb
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
            | M::And
            | M::Or
            | M::Xor
            | M::Test
            | M::Cmp
            | M::Shl
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Imul
            | M::Bswap
            | M::Cdq
            | M::Cqo
            | M::Cwde
            | M::Cdqe
    );
    general && (known || conditional)
}

/// By how much the instruction moves the stack pointer; none if that is not known.
fn stack_step(instruction: &Instruction) -> Option<i32> {
    let on_rsp = instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Pop if !on_rsp && instruction.code() == Code::Pop_r64 => Some(8),
        Mnemonic::Pop => None,
        _ if !on_rsp => Some(0),
        Mnemonic::Add if instruction.op0_register() == Register::RSP => match instruction.op1_kind() {
            OpKind::Immediate8to64 => i32::try_from(instruction.immediate8to64()).ok(),
            OpKind::Immediate32to64 => i32::try_from(instruction.immediate32to64()).ok(),
            _ => None,
        },
        _ => None,
    }
    .filter(|step| (0..REACH).contains(step))
}

/// `mov r, [rsp+n]`: the offset and the bytes.
fn frame_load(instruction: &Instruction) -> Option<(i32, i32)> {
    let plain = matches!(instruction.code(), Code::Mov_r64_rm64 | Code::Mov_r32_rm32)
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.segment_prefix() == Register::None;
    let at = i32::try_from(instruction.memory_displacement64().cast_signed()).ok()?;
    let bytes = if instruction.code() == Code::Mov_r64_rm64 { 8 } else { 4 };
    plain.then_some((at, bytes))
}

/// All but the stack pointer and the countdown, those first that need no prefix.
const ORDER: [u8; 14] = [1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15];

/// For each register whether its first use writes it whole; none if there is no use.
fn first_uses(tail: &[Instruction]) -> [Option<bool>; 16] {
    let mut factory = InstructionInfoFactory::new();
    let mut first: [Option<bool>; 16] = [None; 16];
    for instruction in tail {
        let before = first;
        for used in factory.info(instruction).used_registers() {
            let register = used.register();
            let number = register.full_register().number();
            if !register.is_gpr() || before[number].is_some() {
                continue;
            }
            let whole = register.is_gpr64() || register.is_gpr32();
            let written = used.access() == OpAccess::Write && whole;
            first[number] = Some(first[number].unwrap_or(true) && written);
        }
    }
    first
}

impl Builder<'_> {
    /// In front of `early.before`: puts the translated return address where the original one lies.
    pub(super) fn return_early(&mut self, early: Early, source: &Source) {
        let [a, b] = early.registers;
        self.map(early.before, Saved::Untried);
        let e = &mut self.cache.emitter;
        early.spills().for_each(|(reg, word)| e.store(word, reg));
        if let Some((low, high)) = early.loads {
            if low < early.offset {
                e.frame(&[0x84], 0, low); // test [rsp+low], al
            }
            if high > early.offset {
                e.frame(&[0x84], 0, high);
            }
        }
        e.frame(&[0x81], 7, early.offset + 4); // cmp dword [rsp+n+4], upper half
        e.bytes(&UPPER_HALF.to_le_bytes());
        let elsewhere = e.jump_if_hole(NOT_EQUAL);
        e.frame(if a.0 > 7 { &[0x44, 0x8B] } else { &[0x8B] }, a.0, early.offset); // mov a32, [rsp+n]
        e.constant(b, IMAGES.base);
        let (high_a, high_b) = (a.0 >> 3, b.0 >> 3);
        e.bytes(&[0x40 | high_a << 2 | high_a << 1 | high_b, 0x8B, 0x84 | (a.0 & 7) << 3]);
        e.bytes(&[0xC0 | (a.0 & 7) << 3 | b.0 & 7]); // mov a32, [b+a*8+return column]
        e.bytes(&table::RETURN_COLUMN.to_le_bytes());
        e.bytes(&[0x40 | high_a << 2 | high_a, 0x85, 0xC0 | (a.0 & 7) << 3 | a.0 & 7]); // test a32, a32
        let unknown = e.jump_if_hole(EQUAL);
        e.bytes(&[0x48 | high_b << 2 | high_a, 0x01, 0xC0 | (b.0 & 7) << 3 | a.0 & 7]); // add a, b
        e.frame(if a.0 > 7 { &[0x4C, 0x89] } else { &[0x48, 0x89] }, a.0, early.offset); // mov [rsp+n], a
        early.spills().for_each(|(reg, word)| e.load(reg, word));
        self.asides.push(Aside::Return {
            holes: [elsewhere, unknown],
            block: self.start,
            early,
            source: source.clone(),
        });
    }
}

/// The end of a block whose early look-up has failed.
pub(super) fn write_plain(cache: &mut Cache, holes: [Hole; 2], block: u64, early: Early, source: &Source) {
    let here = cache.emitter.here();
    if let Some(block) = cache.blocks.beginning_at(block) {
        block.retry = here;
    }
    holes.into_iter().for_each(|hole| cache.emitter.fill(hole, here));
    let all: Vec<u64> = source.instructions.iter().map(Instruction::ip).collect();
    let charged = u32::try_from(all.len()).expect("a block is short");
    let mut builder = Builder::empty(cache, all, charged);
    early.spills().for_each(|(reg, word)| builder.cache.emitter.load(reg, word));
    let last = source.instructions.len() - 1;
    builder.copy_from(source, early.before, last).expect("it was encoded before");
    builder.map(last, Saved::Nothing);
    builder.exit(Exit::ReturnMiss { rip: source.instructions[last].ip() });
    builder.finish();
}
