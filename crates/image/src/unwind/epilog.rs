//! Recognises an epilog by its instructions.
//!
//! As the Microsoft pages "x64 prolog and epilog" and "x64 exception handling" have it: an optional `add rsp` or `lea rsp`,
//! pops, and a return or a jump out of the function. Anything else is body.

use super::UnwindRegisters;
use super::entry::FunctionEntry;
use crate::image::Image;

/// A function has no more registers to restore.
const MOST_POPS: usize = 16;

/// What is left to be done of an epilog before its return or jump.
pub(super) struct Epilog {
    /// The stack pointer before the first pop.
    pub(super) rsp: u64,
    /// The registers to pop, in order.
    pub(super) pops: Vec<usize>,
}

impl Epilog {
    /// The rest of the epilog that `rva`, in the function `entry`, is in.
    pub(super) fn at(
        image: &Image,
        entry: &FunctionEntry,
        rva: u32,
        registers: &UnwindRegisters,
    ) -> Option<Self> {
        let code = image.memory.tail(rva);
        let within = (entry.function.end.saturating_sub(rva)) as usize;
        let mut code = Code { bytes: code.get(..within).unwrap_or(code), rva };
        let rsp = code.release(entry.frame_register(), registers);
        let pops = std::iter::from_fn(|| code.pop()).take(MOST_POPS).collect();
        code.leaves(image, entry).then_some(Self { rsp, pops })
    }
}

/// Instructions yet to be recognised.
struct Code<'c> {
    bytes: &'c [u8],
    rva: u32,
}

impl Code<'_> {
    fn skip(&mut self, length: u8) {
        self.bytes = self.bytes.get(usize::from(length)..).unwrap_or_default();
        self.rva = self.rva.saturating_add(length.into());
    }

    /// Takes an `add rsp, n` or `lea rsp, [frame + n]`, if one is next; the stack pointer after it.
    fn release(&mut self, frame: Option<usize>, registers: &UnwindRegisters) -> u64 {
        let rsp = registers.rsp();
        let (value, length) = match *self.bytes {
            [0x48, 0x83, 0xc4, n, ..] => (rsp.wrapping_add(signed(n)), 4),
            [0x48, 0x81, 0xc4, a, b, c, d, ..] => (rsp.wrapping_add(signed_long([a, b, c, d])), 7),
            [rex @ (0x48 | 0x49), 0x8d, modrm, ref rest @ ..] if modrm & 0x38 == 0x20 => {
                let register = usize::from(modrm & 7 | (rex & 1) << 3);
                match displacement(modrm, rest).filter(|_| frame == Some(register)) {
                    Some((distance, length)) => {
                        (registers.general[register].wrapping_add(distance), 3 + length)
                    }
                    None => (rsp, 0),
                }
            }
            _ => (rsp, 0),
        };
        self.skip(length);
        value
    }

    /// Takes a pop of a 64-bit register, if one is next.
    fn pop(&mut self) -> Option<usize> {
        let (register, length) = match *self.bytes {
            [op @ 0x58..=0x5f, ..] => (op & 7, 1),
            [0x41, op @ 0x58..=0x5f, ..] => (op & 7 | 8, 2),
            _ => return None,
        };
        self.skip(length);
        Some(usize::from(register))
    }

    /// Whether a return, or a jump to another function, is next.
    fn leaves(&self, image: &Image, entry: &FunctionEntry) -> bool {
        match *self.bytes {
            [0xc3, ..] | [0xf3, 0xc3, ..] | [0xc2, _, _, ..] => true,
            [0xeb, n, ..] => self.goes_elsewhere(image, entry, 2, signed(n)),
            [0xe9, a, b, c, d, ..] => self.goes_elsewhere(image, entry, 5, signed_long([a, b, c, d])),
            [0xff, 0x25, _, _, _, _, ..] => true,
            [0x48 | 0x49, 0xff, modrm, ..] => modrm & 0x38 == 0x20 && matches!(modrm >> 6, 0 | 3),
            _ => false,
        }
    }

    /// A jump within the function is body; one to its own first instruction is a tail call of itself.
    fn goes_elsewhere(&self, image: &Image, entry: &FunctionEntry, length: u64, distance: u64) -> bool {
        let target = u64::from(self.rva).wrapping_add(length).wrapping_add(distance);
        let Ok(target) = u32::try_from(target) else { return true };
        if target == entry.primary.begin {
            return true;
        }
        FunctionEntry::find(image, target).is_none_or(|other| other.primary.begin != entry.primary.begin)
    }
}

/// The displacement of a memory operand with a base register and no index, and its bytes; a bare base has none.
fn displacement(modrm: u8, rest: &[u8]) -> Option<(u64, u8)> {
    let (rest, sib) = match (modrm & 7, rest) {
        (4, [0x24, rest @ ..]) => (rest, 1),
        (4, _) => return None,
        _ => (rest, 0),
    };
    match (modrm >> 6, rest) {
        (0, _) if modrm & 7 != 5 => Some((0, sib)),
        (1, [n, ..]) => Some((signed(*n), sib + 1)),
        (2, [a, b, c, d, ..]) => Some((signed_long([*a, *b, *c, *d]), sib + 4)),
        _ => None,
    }
}

fn signed(byte: u8) -> u64 {
    i64::from(byte.cast_signed()).cast_unsigned()
}

fn signed_long(bytes: [u8; 4]) -> u64 {
    i64::from(i32::from_le_bytes(bytes)).cast_unsigned()
}
