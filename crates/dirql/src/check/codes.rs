//! Which device control codes a driver knows, read from its code: what it compares `Parameters.DeviceIoControl.IoControlCode` with.
//!
//! A routine loads the code from its stack location (offset 18h), subtracts, and compares: in a row, as a binary search, or as the index of a
//! jump table. Instructions are gone through from the first to the last, and for each register it is kept by how much it is less than a code
//! that was loaded; a branch takes that to where it goes, if that is further on. Branches back are not followed, nor calls, so what is found is a
//! guess: [`super::Survey`] asks the driver which of these codes it knows.
//! A code may be handed to another routine: numbers that are compared elsewhere are taken for codes if they are of a device type that one is known of, or
//! of `FILE_DEVICE_UNKNOWN`, halves of 64-bit numbers among them; and a register from which such a number is taken is taken for one that holds a code.
//! Tables of codes in data, as some drivers search through, are found where they lie: by words that look like codes of one device type.
//!
//! Page: *Defining I/O Control Codes*.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use image::Image;

/// `Parameters.DeviceIoControl.IoControlCode` in an `IO_STACK_LOCATION`.
const CODE_IN_LOCATION: u64 = 0x18;
/// So many at most are tried: a driver has seldom a hundred.
const MOST: usize = 512;
/// So many other values at most.
const MOST_VALUES: usize = 64;
/// The longest jump table, in entries.
const LONGEST_TABLE: u32 = 0x1000;
/// The greatest that a code less the first one is, where no jump through a table is seen.
const LONGEST_INDEX: u32 = 0x100;
/// How far behind a comparison its jump through a table stands, in instructions.
const REACH: usize = 10;

/// What a driver's code compares with.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Compared {
    /// Device control codes that it may know, sorted.
    pub(super) codes: Vec<u32>,
    /// Other numbers: limits, lengths, magic words; sorted. None that looks like a status.
    pub(super) values: Vec<u32>,
}

/// Goes through the code of an image.
#[must_use]
pub(super) fn compared(image: &Image) -> Compared {
    let word = |rva| read(image, rva);
    let mut scan = Scan::new(&word);
    for section in image.sections().iter().filter(|section| section.protection.execute) {
        scan.code(image.section_data(section), section.rva.into());
    }
    let Scan { mut found, values, elsewhere, .. } = scan;
    found.extend(of_known_types(&elsewhere, &found));
    found.extend(in_tables(image, &found));
    let values = values.into_iter().filter(|value| !found.contains(value)).take(MOST_VALUES).collect();
    Compared { codes: found.into_iter().take(MOST).collect(), values }
}

/// So many bits at most that a driver clears before it compares: each doubles the codes that are equal then. Of more, the code that has none of them stands for
/// all.
const MOST_CLEARED: u32 = 3;
/// `FILE_DEVICE_UNKNOWN`, which most drivers make codes of.
const UNKNOWN: u32 = 0x22;

/// A value that is a code less this much, shifted right by so many bits, without some bits: two neighbours are often one comparison.
#[derive(Clone, Copy)]
struct Less {
    by: u32,
    shift: u32,
    cleared: u32,
}

impl Less {
    /// A code less this much.
    const fn whole(by: u32) -> Self {
        Self { by, shift: 0, cleared: 0 }
    }

    /// What is left of it when a number is taken from it.
    const fn minus(self, value: u32) -> Self {
        Self { by: self.by.wrapping_add(value << self.shift), ..self }
    }

    fn code(self, value: u32) -> u32 {
        self.by.wrapping_add(value << self.shift)
    }

    /// All that are this value without the bits.
    fn codes(self, value: u32) -> impl Iterator<Item = u32> {
        let told_apart = if self.cleared.count_ones() <= MOST_CLEARED { self.cleared } else { 0 };
        let subset =
            move |last: &u32| Some(last.wrapping_sub(told_apart) & told_apart).filter(|next| *next != 0);
        std::iter::successors(Some(0), subset).map(move |bits| self.code(value | bits))
    }

    /// Without the bits that a mask clears, if what is left still tells codes apart: by some of the function's number.
    fn masked(self, mask: u32) -> Option<Self> {
        let cleared = self.cleared | !mask;
        let function = FUNCTION & !(cleared << self.shift);
        (function.count_ones() > MOST_CLEARED).then_some(Self { cleared, ..self })
    }
}

/// What is known of a register.
#[derive(Clone, Copy)]
enum Held {
    Code(Less),
    /// A number, to which a code may be added.
    Number(u32),
}

type Known = BTreeMap<Register, Held>;

struct Scan<'a> {
    /// A word of the image, by its relative address.
    word: &'a dyn Fn(u32) -> Option<u32>,
    found: BTreeSet<u32>,
    values: BTreeSet<u32>,
    /// What is compared with something of which nothing is known.
    elsewhere: BTreeSet<u32>,
}

impl<'a> Scan<'a> {
    fn new(word: &'a dyn Fn(u32) -> Option<u32>) -> Self {
        Self { word, found: BTreeSet::new(), values: BTreeSet::new(), elsewhere: BTreeSet::new() }
    }

    fn code(&mut self, bytes: &[u8], rva: u64) {
        let mut decoder = Decoder::with_ip(64, bytes, rva, DecoderOptions::NONE);
        let all: Vec<Instruction> = decoder.iter().collect();
        let mut known = Known::new();
        // What is known where branches go.
        let mut taken: BTreeMap<u64, Known> = BTreeMap::new();
        for (at, instruction) in all.iter().enumerate() {
            known.extend(taken.remove(&instruction.ip()).unwrap_or_default());
            let is_branch = instruction.is_jcc_short_or_near() || instruction.is_jmp_short_or_near();
            if is_branch && instruction.near_branch_target() > instruction.ip() && !known.is_empty() {
                taken.entry(instruction.near_branch_target()).or_default().extend(&known);
            }
            self.step(instruction, &all[at + 1..all.len().min(at + 1 + REACH)], &mut known);
        }
    }

    fn step(&mut self, it: &Instruction, behind: &[Instruction], known: &mut Known) {
        let (target, of) = (full(it.op0_register()), full(it.op1_register()));
        let less = |register: Register| match known.get(&register) {
            Some(Held::Code(less)) => Some(*less),
            _ => None,
        };
        let number = |register: Register| match known.get(&register) {
            Some(Held::Number(number)) => Some(*number),
            _ => None,
        };
        let value = immediate(it, 1);
        // A number from which something is taken that is a code: it may be one that another routine was handed.
        let handed = || {
            let taken =
                value.map(|value| if it.mnemonic() == Mnemonic::Add { value.wrapping_neg() } else { value });
            taken.filter(|taken| is_code_of_most(*taken)).map(|_| Less::whole(0))
        };
        match it.mnemonic() {
            Mnemonic::Cmp if is_code(it) => {
                value.into_iter().for_each(|value| self.add(value));
            }
            Mnemonic::Cmp => {
                let Some(value) = value else { return };
                let Some(less) = less(target) else { return self.note(value) };
                match table_behind(behind) {
                    Some(table) => self.add_table(less, value, table),
                    // The index of a table that another routine goes by.
                    None if is_beyond(behind)
                        && value <= LONGEST_INDEX
                        && behind.iter().all(|it| it.mnemonic() != Mnemonic::Bt) =>
                    {
                        self.add_table(less, value, Table { of: None, default: None });
                    }
                    None => less.codes(value).for_each(|code| self.add(code)),
                }
            }
            Mnemonic::Mov if it.op0_kind() == OpKind::Register && is_code(it) => {
                set(known, target, Some(Held::Code(Less::whole(0))));
            }
            Mnemonic::Mov if it.op0_kind() == OpKind::Register && it.op1_kind() == OpKind::Register => {
                let held = known.get(&of).copied();
                set(known, target, held);
            }
            // Two neighbours compared at once: a code, and the major function before it.
            Mnemonic::Mov if it.op1_kind() == OpKind::Immediate64 => {
                let pair = it.immediate64();
                let halves = [pair & 0xFFFF_FFFF, pair >> 32].map(|half| u32::try_from(half).ok());
                self.elsewhere.extend(halves.into_iter().flatten());
                set(known, target, None);
            }
            Mnemonic::Mov if it.op0_kind() == OpKind::Register && value.is_some() => {
                set(known, target, value.map(Held::Number));
            }
            // A number to which a code is added is that code less what the number lacks of a whole turn.
            Mnemonic::Add if number(target).is_some() => {
                let code =
                    if is_code(it) { Some(Less::whole(0)) } else { less(of).filter(|less| less.shift == 0) };
                let sum = code.zip(number(target)).map(|(code, number)| code.minus(number.wrapping_neg()));
                sum.into_iter().for_each(|less| self.add(less.code(0)));
                set(known, target, sum.map(Held::Code));
            }
            Mnemonic::Sub | Mnemonic::Add | Mnemonic::Dec if less(target).or_else(handed).is_some() => {
                let subtracted = match it.mnemonic() {
                    Mnemonic::Dec => Some(1),
                    Mnemonic::Add => value.map(u32::wrapping_neg),
                    _ => value,
                };
                let code = less(target).or_else(handed);
                let rest = code.zip(subtracted).map(|(less, value)| less.minus(value));
                // The result is zero for the code that it was all of.
                rest.into_iter().for_each(|less| self.add(less.code(0)));
                set(known, target, rest.map(Held::Code));
            }
            Mnemonic::Lea => {
                let base = full(it.memory_base());
                let plain = it.memory_index() == Register::None;
                let added = u32::try_from(it.memory_displacement64() & 0xFFFF_FFFF).unwrap_or(0);
                let handed = is_code_of_most(added.wrapping_neg()).then_some(Less::whole(0));
                let code = less(base).or(handed).filter(|_| plain);
                let sum = code.map(|less| less.minus(added.wrapping_neg()));
                set(known, target, sum.map(Held::Code));
            }
            Mnemonic::Shr | Mnemonic::Ror | Mnemonic::Rol if less(target).is_some() => {
                // To the left is to the right by the rest of a turn.
                let right =
                    if it.mnemonic() == Mnemonic::Rol { value.map(|value| 32 - value % 32) } else { value };
                let moved = less(target).zip(right).filter(|(less, value)| less.shift + value < 16);
                let moved = moved.map(|(less, value)| Less { shift: less.shift + value, ..less });
                set(known, target, moved.map(Held::Code));
            }
            Mnemonic::And if less(target).is_some() => {
                let masked = less(target).zip(value).and_then(|(less, mask)| less.masked(mask));
                masked.into_iter().flat_map(|less| less.codes(0)).for_each(|code| self.add(code));
                set(known, target, masked.map(Held::Code));
            }
            // The result is zero for the codes that differ from it in these bits alone.
            Mnemonic::Test if less(target).is_some() => {
                let masked = less(target).zip(value).and_then(|(less, mask)| less.masked(mask));
                masked.into_iter().flat_map(|less| less.codes(0)).for_each(|code| self.add(code));
            }
            // Which of a row of codes: the bits of a number say.
            Mnemonic::Bt => {
                let bits = number(target).zip(less(of));
                let each = bits.map(|(bits, less)| {
                    (0..32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| less.code(bit))
                });
                each.into_iter().flatten().for_each(|code| self.add(code));
            }
            Mnemonic::Call => {
                let volatile = [
                    Register::RAX,
                    Register::RCX,
                    Register::RDX,
                    Register::R8,
                    Register::R9,
                    Register::R10,
                    Register::R11,
                ];
                known.retain(|register, _| !volatile.contains(register));
            }
            Mnemonic::Test | Mnemonic::Push => {}
            _ if it.op0_kind() == OpKind::Register && !it.is_jcc_short_or_near() => {
                known.remove(&target);
            }
            _ => {}
        }
    }

    /// A value that is no code: a limit, a length.
    fn note(&mut self, value: u32) {
        self.elsewhere.insert(value);
        // Neither what every driver compares with, nor a status.
        if value > 1 && value >> 28 < 8 {
            self.values.insert(value);
        }
    }

    /// A code, if it looks like one.
    fn add(&mut self, code: u32) {
        if looks_like_a_code(code) {
            self.found.insert(code);
        }
    }

    /// The codes that lead elsewhere than to the default of a jump table.
    fn add_table(&mut self, less: Less, last: u32, table: Table) {
        let last = last.min(LONGEST_TABLE);
        for index in 0..=last {
            let entry = table.of.and_then(|rva| (self.word)(rva.wrapping_add(4 * index)));
            let goes = entry.zip(table.of).map(|(entry, table)| table.wrapping_add(entry));
            // Of a table that cannot be read only codes of the first one's method are tried.
            let is_one = match goes {
                Some(goes) => Some(goes) != table.default,
                None => (index << less.shift).is_multiple_of(4),
            };
            if is_one {
                self.add(less.code(index));
            }
        }
    }
}

/// What a jump through a table goes by.
#[derive(Clone, Copy)]
struct Table {
    /// Where it lies, of offsets from itself; none if it is of another form.
    of: Option<u32>,
    /// Where what is beyond its end goes.
    default: Option<u32>,
}

/// The table that is jumped through behind a comparison, whose first instruction is `behind`: `ja default`, and a jump by a register.
fn table_behind(behind: &[Instruction]) -> Option<Table> {
    let beyond = behind.first().filter(|_| is_beyond(behind))?;
    let jump =
        behind.iter().position(|it| it.mnemonic() == Mnemonic::Jmp && it.op0_kind() == OpKind::Register)?;
    let address =
        behind[..jump].iter().find(|it| it.mnemonic() == Mnemonic::Lea && it.is_ip_rel_memory_operand());
    let of = address.and_then(|it| u32::try_from(it.ip_rel_memory_address()).ok());
    Some(Table { of, default: u32::try_from(beyond.near_branch_target()).ok() })
}

/// Whether what is beyond goes elsewhere: the instruction behind a comparison.
fn is_beyond(behind: &[Instruction]) -> bool {
    behind.first().is_some_and(|it| matches!(it.mnemonic(), Mnemonic::Ja | Mnemonic::Jae))
}

/// Whether its memory operand is the code of a stack location.
fn is_code(it: &Instruction) -> bool {
    let memory = (0..it.op_count()).any(|at| it.op_kind(at) == OpKind::Memory);
    memory
        && it.memory_displacement64() == CODE_IN_LOCATION
        && it.memory_index() == Register::None
        && it.memory_base() != Register::RSP
        && it.memory_size().size() == 4
}

fn set(known: &mut Known, register: Register, held: Option<Held>) {
    match held {
        Some(held) => drop(known.insert(register, held)),
        None => drop(known.remove(&register)),
    }
}

/// The whole of a register that a part of it belongs to.
fn full(register: Register) -> Register {
    register.full_register()
}

fn immediate(it: &Instruction, at: u32) -> Option<u32> {
    let kind = it.try_op_kind(at).ok()?;
    let value = match kind {
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate8to16
        | OpKind::Immediate32
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => it.try_immediate(at).ok()?,
        _ => return None,
    };
    u32::try_from(value & 0xFFFF_FFFF).ok()
}

/// `CTL_CODE` has the device type in the upper half; nothing smaller is one, and nothing has all its bits set.
const fn looks_like_a_code(code: u32) -> bool {
    let kind = code >> 16;
    kind != 0 && kind < 0xFF00 && kind != 0xC000
}

/// Where the function's number stands in a code.
const FUNCTION: u32 = 0x3FFC;

/// Whether a number is what most drivers would have as a code: of `FILE_DEVICE_UNKNOWN` or of a vendor's device type, with a vendor's function.
const fn is_code_of_most(number: u32) -> bool {
    looks_like_a_code(number) && (number >> 16 == UNKNOWN || number >> 31 == 1) && number & 0x2000 != 0
}

/// Those of these numbers that look like codes of a device type that a code is of.
fn of_known_types(numbers: &BTreeSet<u32>, codes: &BTreeSet<u32>) -> Vec<u32> {
    let kinds: BTreeSet<u32> = codes.iter().map(|code| code >> 16).chain([UNKNOWN]).collect();
    numbers.iter().copied().filter(|number| kinds.contains(&(number >> 16))).collect()
}

/// Codes that stand in data, in rows of one size, where at least three of one device type follow each other.
fn in_tables(image: &Image, of: &BTreeSet<u32>) -> BTreeSet<u32> {
    let kinds: BTreeSet<u32> = of.iter().map(|code| code >> 16).chain([UNKNOWN]).collect();
    let mut found = BTreeSet::new();
    let data = image.sections().iter().filter(|section| !section.protection.execute);
    for section in data {
        let words: Vec<u32> = image
            .section_data(section)
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        for stride in 1..=8 {
            let row = |at: usize| words.get(at).filter(|word| kinds.contains(&(**word >> 16)));
            for at in 0..words.len() {
                let rows = [row(at), row(at + stride), row(at + 2 * stride)];
                if let [Some(first), Some(second), Some(third)] = rows
                    && first != second
                    && second != third
                    && [first, second, third].iter().all(|code| **code >> 16 == *first >> 16)
                {
                    found.extend([*first, *second, *third]);
                }
            }
        }
    }
    found
}

/// A word of an image.
fn read(image: &Image, rva: u32) -> Option<u32> {
    let section = image.section_at(rva)?;
    let at = usize::try_from(rva - section.rva).ok()?;
    let bytes = image.section_data(section).get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_takes_a_code_past_a_call() {
        // mov eax, [rdx+18h]; cmp eax, 222008h; ja behind; call …; ret; behind: cmp eax, 22200Ch; ret
        let bytes =
            b"\x8B\x42\x18\x3D\x08\x20\x22\x00\x77\x06\xE8\x00\x00\x00\x00\xC3\x3D\x0C\x20\x22\x00\xC3";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(Vec::from_iter(scan.found), [0x22_2008, 0x22_200C]);
    }

    #[test]
    fn a_code_may_be_added_to_a_number() {
        // mov eax, 0FFDDDFF8h; add eax, [rdx+18h]; cmp eax, 4; je …; mov ecx, [rdx+18h]; mov eax, 0FFDDD000h; add eax, ecx; cmp eax, 8
        let bytes = b"\xB8\xF8\xDF\xDD\xFF\x03\x42\x18\x83\xF8\x04\x74\x00\x8B\x4A\x18\xB8\x00\xD0\xDD\xFF\x01\xC8\x83\xF8\x08";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(Vec::from_iter(scan.found), [0x22_2008, 0x22_200C, 0x22_3000, 0x22_3008]);
    }

    #[test]
    fn a_code_may_be_turned_to_the_left() {
        // mov eax, [rdx+18h]; add eax, 0FFDDD800h; rol eax, 30; cmp eax, 2; je …
        let bytes = b"\x8B\x42\x18\x05\x00\xD8\xDD\xFF\xC1\xC0\x1E\x83\xF8\x02\x74\x00";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(Vec::from_iter(scan.found), [0x22_2800, 0x22_2808]);
    }

    #[test]
    fn a_code_that_another_routine_compares_is_one_by_its_device_type() {
        // mov eax, [rdx+18h]; cmp eax, 9C406400h; ret; cmp r9d, 9C40A444h; je …; cmp r9d, 0C000000Dh
        let bytes = b"\x8B\x42\x18\x3D\x00\x64\x40\x9C\xC3\x41\x81\xF9\x44\xA4\x40\x9C\x74\x00\x41\x81\xF9\x0D\x00\x00\xC0";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(Vec::from_iter(scan.found.clone()), [0x9C40_6400]);
        assert_eq!(of_known_types(&scan.elsewhere, &scan.found), [0x9C40_A444]);
    }

    #[test]
    fn a_code_may_be_compared_with_what_stands_before_it() {
        // mov rax, 0FFFFFFFF000000FFh; and rax, [rdx+18h]; mov rdx, 22288400000000Eh; cmp rax, rdx
        let bytes = b"\x48\xB8\xFF\x00\x00\x00\xFF\xFF\xFF\xFF\x48\x23\x42\x18\x48\xBA\x0E\x00\x00\x00\x84\x28\x22\x00\x48\x39\xD0";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(of_known_types(&scan.elsewhere, &scan.found), [0x22_2884]);
    }

    #[test]
    fn a_comparison_without_some_bits_is_one_with_all_codes_that_they_tell_apart() {
        let code = Less { by: 0x22_2000, shift: 0, cleared: 0 };
        assert_eq!(code.codes(8).collect::<Vec<_>>(), [0x22_2008]);
        let masked = code.masked(!0b1100).unwrap();
        assert_eq!(masked.codes(0).collect::<Vec<_>>(), [0x22_2000, 0x22_2004, 0x22_2008, 0x22_200C]);
        assert!(code.masked(3).is_none(), "what is compared then is the method");
        let many = code.masked(0xFFFF_FF0F).unwrap();
        assert_eq!(many.codes(8).collect::<Vec<_>>(), [0x22_2008], "one stands for all");
    }

    #[test]
    fn bits_of_a_number_tell_codes_of_a_row() {
        // mov ecx, 0FFDDE000h; add ecx, [rax+18h]; rol ecx, 30; cmp ecx, 6; ja …; mov r8d, 4Bh; bt r8d, ecx
        let bytes = b"\xB9\x00\xE0\xDD\xFF\x03\x48\x18\xC1\xC1\x1E\x83\xF9\x06\x77\x00\x41\xB8\x4B\x00\x00\x00\x41\x0F\xA3\xC8";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(Vec::from_iter(scan.found), [0x22_2000, 0x22_2004, 0x22_200C, 0x22_2018]);
    }

    #[test]
    fn a_number_from_which_a_code_is_taken_is_one_that_was_handed_over() {
        // add ecx, -222004h; cmp ecx, 4; je …; lea eax, [rdx-222010h]; cmp eax, 8; ja …; sub r9d, 0C0000000h; cmp r9d, 5
        let bytes = b"\x81\xC1\xFC\xDF\xDD\xFF\x83\xF9\x04\x74\x00\x8D\x82\xF0\xDF\xDD\xFF\x83\xF8\x08\x77\x00\x41\x81\xE9\x00\x00\x00\xC0\x41\x83\xF9\x05";
        let mut scan = Scan::new(&|_| None);
        scan.code(bytes, 0x1000);
        assert_eq!(Vec::from_iter(scan.found), [0x22_2004, 0x22_2008, 0x22_2010, 0x22_2014, 0x22_2018]);
    }
}
