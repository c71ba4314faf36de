//! What a store has of an earlier load: which bits of the stored value are those that were loaded, as they were.
//!
//! Found by the instructions between the two, along every way that leads from the load to the store without calling anything that changes the registers
//! in question. It says *carried* only where that follows from the instructions alone, and from masks that the registers hold at the store; values that go
//! through memory other than the routine's own stack, shifts and sums are not followed. Where it is known what was loaded and stored, ways by which the one
//! could not have become the other were not gone.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

use crate::memory;
use crate::registers::Registers;

/// So many instructions of a way are looked at, and so many of all ways together.
const LENGTH: usize = 96;
const TOTAL: usize = 512;
/// The longest instruction.
const LONGEST: usize = 15;
/// What a call may change.
const VOLATILE: [Register; 7] =
    [Register::RAX, Register::RCX, Register::RDX, Register::R8, Register::R9, Register::R10, Register::R11];

/// Bits of a value.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Carried {
    /// A zero in these was loaded as a zero.
    pub zeroes: u64,
    /// A one in these was loaded as a one.
    pub ones: u64,
}

impl Carried {
    const fn all(bits: u64) -> Self {
        Self { zeroes: bits, ones: bits }
    }

    /// The bits in which `value`, which was stored, is what was loaded.
    #[must_use]
    pub const fn bits(self, value: u64) -> u64 {
        value & self.ones | !value & self.zeroes
    }

    /// Of both, by whichever the value has come.
    const fn meet(self, other: Self) -> Self {
        Self { zeroes: self.zeroes & other.zeroes, ones: self.ones & other.ones }
    }
}

/// What was loaded, and what was stored.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The former.
    pub loaded: u64,
    /// The latter.
    pub stored: u64,
}

/// What is known of a value: which bits it has of what was loaded, and which are zero or one whatever that was.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Known {
    carried: Carried,
    zero: u64,
    one: u64,
}

impl Known {
    const fn number(number: u64) -> Self {
        Self { carried: Carried::all(0), zero: !number, one: number }
    }

    /// Whether all these bits are known.
    const fn is_number(self, bits: u64) -> bool {
        (self.zero | self.one) & bits == bits
    }

    fn is_of_load(self) -> bool {
        self.carried != Carried::default()
    }

    /// Of both, by whichever the value has come.
    const fn meet(self, other: Self) -> Self {
        Self {
            carried: self.carried.meet(other.carried),
            zero: self.zero & other.zero,
            one: self.one & other.one,
        }
    }

    const fn or(self, other: Self) -> Self {
        let (own, others) = (self.carried, other.carried);
        let one = self.one | other.one;
        let zeroes = (own.zeroes | others.zeroes) & !one;
        let ones = own.ones & (other.zero | others.ones) | others.ones & (self.zero | own.ones);
        Self { carried: Carried { zeroes, ones: ones & !one }, zero: self.zero & other.zero, one }
    }

    const fn not(self) -> Self {
        Self { carried: Carried::all(0), zero: self.one, one: self.zero }
    }

    const fn and(self, other: Self) -> Self {
        let (own, others) = (self.carried, other.carried);
        let zero = self.zero | other.zero;
        let ones = (own.ones | others.ones) & !zero;
        let zeroes = own.zeroes & (other.one | others.zeroes) | others.zeroes & (self.one | own.zeroes);
        Self { carried: Carried { zeroes: zeroes & !zero, ones }, zero, one: self.one & other.one }
    }

    const fn xor(self, other: Self) -> Self {
        let (own, others) = (self.carried, other.carried);
        let carried = Carried {
            zeroes: own.zeroes & other.zero | others.zeroes & self.zero,
            ones: own.ones & other.zero | others.ones & self.zero,
        };
        let zero = self.zero & other.zero | self.one & other.one;
        Self { carried, zero, one: self.zero & other.one | self.one & other.zero }
    }

    /// Of these bits alone.
    const fn within(self, bits: u64) -> Self {
        let Carried { zeroes, ones } = self.carried;
        Self {
            carried: Carried { zeroes: zeroes & bits, ones: ones & bits },
            zero: self.zero & bits,
            one: self.one & bits,
        }
    }

    /// These bits of this, and all others of another one.
    const fn over(self, bits: u64, other: Self) -> Self {
        let (own, rest) = (self.within(bits), other.within(!bits));
        Self {
            carried: Carried {
                zeroes: own.carried.zeroes | rest.carried.zeroes,
                ones: own.carried.ones | rest.carried.ones,
            },
            zero: own.zero | rest.zero,
            one: own.one | rest.one,
        }
    }

    const fn down(self, shift: u32) -> Self {
        let Carried { zeroes, ones } = self.carried;
        let carried = Carried { zeroes: zeroes >> shift, ones: ones >> shift };
        Self { carried, zero: self.zero >> shift, one: self.one >> shift }
    }

    const fn up(self, shift: u32) -> Self {
        let Carried { zeroes, ones } = self.carried;
        let carried = Carried { zeroes: zeroes << shift, ones: ones << shift };
        Self { carried, zero: self.zero << shift, one: self.one << shift }
    }

    /// Whether what was loaded could have become what was stored, in these bits.
    const fn allows(self, Moved { loaded, stored }: Moved, bits: u64) -> bool {
        let changed = self.carried.bits(stored) & (loaded ^ stored);
        (self.zero & stored | self.one & !stored | changed) & bits == 0
    }
}

/// What the store at `store` has of the load at `load`; nothing if it does not follow it, or they are no plain ones. With the registers at the store, masks
/// count that stand in one of them since they were used; with the values, only ways that lead from the one to the other.
pub(crate) fn carried(load: u64, store: u64, registers: Option<Registers>, moved: Option<Moved>) -> Carried {
    let sure = by_ways(load, store, None, moved);
    let masked = registers.map(|registers| by_ways(load, store, Some(registers), moved)).unwrap_or_default();
    Carried { zeroes: sure.zeroes | masked.zeroes, ones: sure.ones | masked.ones }
}

fn by_ways(load: u64, store: u64, registers: Option<Registers>, moved: Option<Moved>) -> Carried {
    let Some(instruction) = decode(load) else { return Carried::default() };
    let loads = match instruction.mnemonic() {
        Mnemonic::In => true,
        Mnemonic::Mov | Mnemonic::Movzx => instruction.op1_kind() == OpKind::Memory,
        _ => false,
    };
    let Some(part) = part(instruction.op0_register()).filter(|_| loads) else { return Carried::default() };
    let width = match instruction.op1_kind() {
        OpKind::Memory => bits_of(8 * instruction.memory_size().size()),
        _ => part.bits,
    };
    let mut values = Values { registers, ..Values::default() };
    let above = if instruction.op0_register().size() < 4 { 0 } else { !width };
    let loaded = Known { carried: Carried::all(width), zero: above, one: 0 };
    values.set(Place::Register(part.register), loaded);
    let mut ways = Ways { load, store, moved, left: TOTAL, found: None };
    ways.follow(instruction.next_ip(), values, LENGTH);
    ways.found.unwrap_or_default()
}

pub(super) fn decode(at: u64) -> Option<Instruction> {
    let mut code = [0; LONGEST];
    // The end of what is mapped may come sooner.
    let there = (1..=LONGEST).rev().find(|count| memory::peek(at, &mut code[..*count]).is_ok())?;
    let instruction = Decoder::with_ip(64, &code[..there], at, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

const fn bits_of(width: usize) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

/// A register, or a part of it.
#[derive(Clone, Copy)]
struct Part {
    register: Register,
    /// The bits of the part.
    bits: u64,
    /// Where they begin.
    shift: u32,
}

fn part(register: Register) -> Option<Part> {
    if !register.is_gpr() {
        return None;
    }
    let shift =
        if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) { 8 } else { 0 };
    Some(Part { register: register.full_register(), bits: bits_of(8 * register.size()) << shift, shift })
}

/// Where a value may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Register(Register),
    /// On the routine's stack, by a register and a distance.
    Stack(Register, u64),
}

/// What is known of values.
#[derive(Clone, Default)]
struct Values {
    /// Those of which something is.
    all: Vec<(Place, Known)>,
    /// The registers at the store, if masks in them count.
    registers: Option<Registers>,
    /// Registers with masks that were used: they must stay as they are up to the store.
    masks: Vec<Register>,
    /// One of them has not.
    is_mask_gone: bool,
}

impl Values {
    fn get(&self, place: Place) -> Known {
        self.all.iter().find(|(at, _)| *at == place).map(|(_, known)| *known).unwrap_or_default()
    }

    fn set(&mut self, place: Place, known: Known) {
        self.all.retain(|(at, _)| *at != place);
        if known != Known::default() {
            self.all.push((place, known));
        }
        self.is_mask_gone |= matches!(place, Place::Register(register) if self.masks.contains(&register));
    }

    /// What is known of an operand, its lowest bit first.
    fn operand(&self, instruction: &Instruction, number: u32) -> Known {
        match instruction.op_kind(number) {
            OpKind::Register => part(instruction.op_register(number)).map_or(Known::default(), |part| {
                self.get(Place::Register(part.register)).within(part.bits).down(part.shift)
            }),
            OpKind::Memory => on_stack(instruction).map_or(Known::default(), |place| {
                self.get(place).within(bits_of(8 * instruction.memory_size().size()))
            }),
            _ => Known::default(),
        }
    }

    /// This is known of the first operand from now on.
    fn put(&mut self, instruction: &Instruction, known: Known) {
        match instruction.op0_kind() {
            OpKind::Register => {
                let Some(part) = part(instruction.op0_register()) else { return };
                let place = Place::Register(part.register);
                // An operation of 32 bits makes the upper half zero.
                let rest =
                    if instruction.op0_register().size() < 4 { self.get(place) } else { Known::number(0) };
                self.set(place, known.up(part.shift).over(part.bits, rest));
                self.without_base(part.register);
            }
            OpKind::Memory => {
                if let Some(place) = on_stack(instruction) {
                    self.set(place, known.within(bits_of(8 * instruction.memory_size().size())));
                }
            }
            _ => {}
        }
    }

    /// This register points elsewhere.
    fn without_base(&mut self, register: Register) {
        self.all.retain(|(place, _)| !matches!(place, Place::Stack(base, _) if *base == register));
    }

    /// What an instruction makes of them, which does not go elsewhere.
    fn after(&mut self, instruction: &Instruction) {
        let number = immediate(instruction);
        let known = number.or_else(|| self.mask(instruction)).map(Known::number);
        let own = self.operand(instruction, 0);
        let other = known.unwrap_or_else(|| self.operand(instruction, 1));
        let made = match (instruction.mnemonic(), number) {
            (Mnemonic::Test | Mnemonic::Cmp | Mnemonic::Bt, _) => return,
            (Mnemonic::Mov | Mnemonic::Movzx, _) => other,
            (Mnemonic::Xor | Mnemonic::Sub, _) if is_of_one_register(instruction) => Known::number(0),
            (Mnemonic::Or, _) => own.or(other),
            (Mnemonic::Xor, _) => own.xor(other),
            (Mnemonic::And, _) => own.and(other),
            (Mnemonic::Not, _) => own.not(),
            (Mnemonic::Bts, Some(bit)) => own.or(Known::number(1 << (bit & 63))),
            (Mnemonic::Btr, Some(bit)) => own.and(Known::number(!(1 << (bit & 63)))),
            (Mnemonic::Btc, Some(bit)) => own.xor(Known::number(1 << (bit & 63))),
            (mnemonic, None) if is_conditional_move(mnemonic) => own.meet(other),
            _ => return self.overwritten(instruction),
        };
        self.put(instruction, made);
    }

    /// The mask in the second operand's register, as that is at the store; none if the instructions themselves say which it is.
    fn mask(&mut self, instruction: &Instruction) -> Option<u64> {
        let is_masking = matches!(instruction.mnemonic(), Mnemonic::And | Mnemonic::Or | Mnemonic::Xor);
        if !is_masking || instruction.op1_kind() != OpKind::Register {
            return None;
        }
        let part = part(instruction.op1_register())?;
        let (own, other) = (self.operand(instruction, 0), self.operand(instruction, 1));
        let is_unknown = !other.is_of_load() && !other.is_number(part.bits >> part.shift);
        let registers = self.registers.filter(|_| own.is_of_load() && is_unknown)?;
        self.masks.push(part.register);
        Some((registers.general[part.register.number()] & part.bits) >> part.shift)
    }

    /// By an instruction whose result has nothing of what was loaded.
    fn overwritten(&mut self, instruction: &Instruction) {
        if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory {
            self.put(instruction, Known::default());
        }
        let mut factory = InstructionInfoFactory::new();
        for used in factory.info(instruction).used_registers() {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess) {
                self.set(Place::Register(used.register().full_register()), Known::default());
                self.without_base(used.register().full_register());
            }
        }
    }
}

/// What is known of the second operand: a number.
fn immediate(instruction: &Instruction) -> Option<u64> {
    let is_known = instruction.op_count() > 1 && instruction.try_immediate(1).is_ok();
    is_known.then(|| instruction.immediate(1))
}

/// Both operands are the same register.
fn is_of_one_register(instruction: &Instruction) -> bool {
    instruction.op1_kind() == OpKind::Register && instruction.op0_register() == instruction.op1_register()
}

fn is_conditional_move(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cmova
            | M::Cmovae
            | M::Cmovb
            | M::Cmovbe
            | M::Cmove
            | M::Cmovg
            | M::Cmovge
            | M::Cmovl
            | M::Cmovle
            | M::Cmovne
            | M::Cmovno
            | M::Cmovnp
            | M::Cmovns
            | M::Cmovo
            | M::Cmovp
            | M::Cmovs
    )
}

/// The place on the routine's stack that an instruction names.
fn on_stack(instruction: &Instruction) -> Option<Place> {
    let base = instruction.memory_base();
    let is_stack =
        matches!(base, Register::RSP | Register::RBP) && instruction.memory_index() == Register::None;
    is_stack.then(|| Place::Stack(base, instruction.memory_displacement64()))
}

/// All ways from the load to the store.
struct Ways {
    load: u64,
    store: u64,
    moved: Option<Moved>,
    left: usize,
    /// What the store has by all of those that were found.
    found: Option<Carried>,
}

impl Ways {
    fn follow(&mut self, from: u64, mut values: Values, length: usize) {
        let mut at = from;
        for gone in 0..length {
            // It is loaded anew.
            if at == self.load || self.found == Some(Carried::default()) {
                return;
            }
            let Some(instruction) = decode(at).filter(|_| self.left > 0) else { return };
            self.left -= 1;
            if at == self.store {
                let is_plain =
                    matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Out) && !values.is_mask_gone;
                let stored = if is_plain { values.operand(&instruction, 1) } else { Known::default() };
                let bits = part(instruction.op1_register()).map_or(0, |part| part.bits >> part.shift);
                if self.moved.is_none_or(|moved| stored.allows(moved, bits)) {
                    self.found = Some(self.found.map_or(stored.carried, |found| found.meet(stored.carried)));
                }
                return;
            }
            at = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::Next => values.after(&instruction),
                FlowControl::Call | FlowControl::IndirectCall => {
                    VOLATILE
                        .iter()
                        .for_each(|register| values.set(Place::Register(*register), Known::default()));
                }
                FlowControl::UnconditionalBranch => at = instruction.near_branch_target(),
                FlowControl::ConditionalBranch => {
                    self.follow(instruction.near_branch_target(), values.clone(), length - gone - 1);
                }
                _ => return,
            }
        }
    }
}
