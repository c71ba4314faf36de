//! Writes machine code into the cache: the few encodings that stubs and block ends are made of.
//!
//! Everything refers to the scratch page by its absolute address, which fits in 31 bits, or loads from it relative to the instruction,
//! as [`super::host_cpu`] chooses; and to words of the host's by `fs:`. Branches are always near ones (32 bits): a body may
//! grow. The only short jumps are backward or forward over a known number of bytes, and are checked.

use std::ptr;

use super::host_cpu::loads_relative;
use super::host_words::HostWord;
use crate::windows::{CACHE, CACHE_WRITTEN, SCRATCH, SCRATCH_READ};

/// A general register's number in encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(pub(crate) u8);

pub(crate) const RAX: Reg = Reg(0);
pub(crate) const RCX: Reg = Reg(1);
pub(crate) const RDX: Reg = Reg(2);
pub(crate) const RSP: Reg = Reg(4);
pub(crate) const R10: Reg = Reg(10);
pub(crate) const R11: Reg = Reg(11);
/// The countdown, while translated code runs (see [`super::block`]).
pub(crate) const R13: Reg = Reg(13);

/// Conditions' numbers in encodings.
pub(crate) mod condition {
    pub(crate) const BELOW: u8 = 2;
    pub(crate) const ABOVE_OR_EQUAL: u8 = 3;
    pub(crate) const EQUAL: u8 = 4;
    pub(crate) const NOT_EQUAL: u8 = 5;
    pub(crate) const ABOVE: u8 = 7;
    pub(crate) const LESS: u8 = 0xC;
    pub(crate) const LESS_OR_EQUAL: u8 = 0xE;
}

/// A place in emitted code where a 32-bit displacement has yet to be filled in.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Hole(u64);

/// A position in the cache, moving on as code is written.
pub(crate) struct Emitter {
    at: u64,
}

impl Emitter {
    pub(crate) const fn new(at: u64) -> Self {
        Self { at }
    }

    /// Moves on to a multiple of `bytes`; nothing runs there.
    pub(crate) fn align(&mut self, bytes: u64) {
        self.at = self.at.next_multiple_of(bytes);
    }

    pub(crate) const fn here(&self) -> u64 {
        self.at
    }

    /// Takes everything back that was written from `to` on.
    pub(crate) fn roll_back(&mut self, to: u64) {
        assert!(to <= self.at);
        self.at = to;
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len() as u64;
        assert!(self.at >= CACHE.base && end <= CACHE.end(), "the code cache is left");
        // SAFETY: the range lies in the cache, and only this thread uses it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), written(self.at), bytes.len()) };
        self.at = end;
    }

    /// The first `length` of these bytes; what comes behind them is overwritten next.
    pub(crate) fn instruction(&mut self, bytes: &[u8; 15], length: usize) {
        assert!(length <= bytes.len(), "no instruction is longer");
        self.bytes(bytes);
        self.at -= (bytes.len() - length) as u64;
    }

    fn dword(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// The displacement that ends a branch, or another instruction that refers to an address.
    pub(crate) fn relative(&mut self, target: u64) {
        let displacement = displacement(self.at + 4, target);
        self.dword(displacement);
    }

    /// The operands of an instruction: a word of the scratch page, and the register (or what the opcode has for one) with
    /// this number, of which three bits are taken.
    pub(crate) fn scratch_operand(&mut self, register: u8, address: u64) {
        assert!(SCRATCH.contains(address), "only the scratch page lies so low");
        self.bytes(&[0x04 | (register & 7) << 3, 0x25]);
        self.dword((address & 0xFFFF_FFFF) as u32);
    }

    /// An instruction with a word of the scratch page and a register, as in [`Self::scratch_operand`].
    pub(crate) fn scratch(&mut self, opcode: &[u8], register: u8, address: u64) {
        self.bytes(opcode);
        self.scratch_operand(register, address);
    }

    /// `mov [address], reg`.
    pub(crate) fn store(&mut self, address: u64, reg: Reg) {
        self.bytes(&[0x48 | (reg.0 >> 3) << 2, 0x89]);
        self.scratch_operand(reg.0, address);
    }

    /// The operands of an instruction that loads, without an immediate: as in [`Self::scratch_operand`].
    fn loaded_operand(&mut self, register: u8, address: u64) {
        if !loads_relative() {
            return self.scratch_operand(register, address);
        }
        self.bytes(&[0x05 | (register & 7) << 3]);
        self.relative(read_address(address));
    }

    /// `mov reg, [address]`: [`load_bytes`] bytes.
    pub(crate) fn load(&mut self, reg: Reg, address: u64) {
        self.bytes(&[0x48 | (reg.0 >> 3) << 2, 0x8B]);
        self.loaded_operand(reg.0, address);
    }

    /// `mov reg32, [address]`, for the low eight registers.
    pub(crate) fn load32(&mut self, reg: Reg, address: u64) {
        self.bytes(&[0x8B]);
        self.loaded_operand(reg.0, address);
    }

    /// `mov reg, imm64`.
    pub(crate) fn constant(&mut self, reg: Reg, value: u64) {
        self.bytes(&[0x48 | reg.0 >> 3, 0xB8 | (reg.0 & 7)]);
        self.bytes(&value.to_le_bytes());
    }

    /// `mov eax, imm32`.
    pub(crate) fn constant_eax(&mut self, value: u32) {
        self.bytes(&[0xB8]);
        self.dword(value);
    }

    /// `sub r13, count`, for counts up to 127.
    pub(crate) fn count_down(&mut self, count: u8) {
        assert!(count < 128, "the immediate is sign-extended");
        self.bytes(&[0x49, 0x83, 0xED, count]);
    }

    /// `lea r13, [r13+count]`: an addition that touches no flag.
    pub(crate) fn count_up(&mut self, count: u8) {
        assert!(count < 128, "the displacement is sign-extended");
        self.bytes(&[0x4D, 0x8D, 0x6D, count]);
    }

    /// An instruction with two registers of 64 bits, the first in the place where an operand may be memory.
    pub(crate) fn registers(&mut self, opcode: u8, first: Reg, second: Reg) {
        let high = 0x48 | second.0 >> 3 << 2 | first.0 >> 3;
        self.bytes(&[high, opcode, 0xC0 | (second.0 & 7) << 3 | first.0 & 7]);
    }

    /// `jmp target`.
    pub(crate) fn jump(&mut self, target: u64) {
        self.bytes(&[0xE9]);
        self.relative(target);
    }

    /// `jmp ?`.
    pub(crate) fn jump_hole(&mut self) -> Hole {
        self.bytes(&[0xE9]);
        self.hole()
    }

    /// `jcc ?` with the condition's number in encodings.
    pub(crate) fn jump_if_hole(&mut self, condition: u8) -> Hole {
        self.bytes(&[0x0F, 0x80 | condition]);
        self.hole()
    }

    /// `call ?`.
    pub(crate) fn call_hole(&mut self) -> Hole {
        self.bytes(&[0xE8]);
        self.hole()
    }

    /// The operands of an instruction: a word of the host's, and as in [`Self::scratch_operand`].
    fn host_operand(&mut self, register: u8, word: HostWord) {
        self.bytes(&[0x04 | (register & 7) << 3, 0x25]);
        self.bytes(&word.displacement().to_le_bytes());
    }

    /// `mov fs:[word], reg`.
    pub(crate) fn store_host(&mut self, word: HostWord, reg: Reg) {
        self.bytes(&[0x64, 0x48 | (reg.0 >> 3) << 2, 0x89]);
        self.host_operand(reg.0, word);
    }

    /// `mov reg, fs:[word]`.
    pub(crate) fn load_host(&mut self, reg: Reg, word: HostWord) {
        self.bytes(&[0x64, 0x48 | (reg.0 >> 3) << 2, 0x8B]);
        self.host_operand(reg.0, word);
    }

    /// `add reg, fs:[word]`.
    pub(crate) fn add_host(&mut self, reg: Reg, word: HostWord) {
        self.bytes(&[0x64, 0x48 | (reg.0 >> 3) << 2, 0x03]);
        self.host_operand(reg.0, word);
    }

    /// `call fs:[word]`.
    pub(crate) fn call_through(&mut self, word: HostWord) {
        self.bytes(&[0x64, 0xFF]);
        self.host_operand(2, word);
    }

    /// `jmp fs:[word]`.
    pub(crate) fn jump_through(&mut self, word: HostWord) {
        self.bytes(&[0x64, 0xFF]);
        self.host_operand(4, word);
    }

    /// An instruction with an operand at `offset` from the stack pointer, and a register (or what the opcode has for one).
    pub(crate) fn frame(&mut self, opcode: &[u8], register: u8, offset: i32) {
        self.bytes(opcode);
        let register = (register & 7) << 3;
        match i8::try_from(offset) {
            Ok(near) => self.bytes(&[0x44 | register, 0x24, near.cast_unsigned()]),
            Err(_) => {
                self.bytes(&[0x84 | register, 0x24]);
                self.bytes(&offset.to_le_bytes());
            }
        }
    }

    /// `lea ecx, [rcx+value]`: an addition that touches no flag.
    pub(crate) fn add_to_ecx(&mut self, value: u32) {
        self.bytes(&[0x8D, 0x89]);
        self.dword(value);
    }

    /// `jrcxz` over a jump that is never taken else: `jrcxz 1; jmp 2; 1: jmp ?; 2:`.
    pub(crate) fn jump_if_rcx_zero_hole(&mut self) -> Hole {
        self.bytes(&[0xE3, 2, 0xEB, 5]);
        self.jump_hole()
    }

    /// `jrcxz target`, within 127 bytes.
    pub(crate) fn jump_if_rcx_zero(&mut self, target: u64) {
        let distance = target.wrapping_sub(self.at + 2).cast_signed();
        let short = i8::try_from(distance).expect("a short jump reaches 127 bytes");
        self.bytes(&[0xE3, short.cast_unsigned()]);
    }

    fn hole(&mut self) -> Hole {
        let at = self.at;
        self.dword(0);
        Hole(at)
    }

    /// Lets a hole lead to what is written next.
    pub(crate) fn fill_here(&mut self, hole: Hole) {
        self.fill(hole, self.at);
    }

    /// Lets a hole lead to `target`.
    pub(crate) fn fill(&mut self, hole: Hole, target: u64) {
        patch_displacement(hole.0, target);
    }
}

impl Hole {
    pub(crate) const fn address(self) -> u64 {
        self.0
    }
}

/// Where a byte of the cache is written: the mapping that is executed is not writable. (The processor detects changed code by physical
/// addresses; between a store here and its execution lies the return to the driver.)
fn written(at: u64) -> *mut u8 {
    (CACHE_WRITTEN.base() + (at - CACHE.base)) as *mut u8
}

/// Where a word of the scratch page is read relative to the instruction.
pub(crate) fn read_address(address: u64) -> u64 {
    assert!(SCRATCH.contains(address), "only the scratch page is mapped twice for that");
    address - SCRATCH.base + SCRATCH_READ.base
}

/// Bytes of [`Emitter::store`].
pub(crate) const STORE_BYTES: u64 = 8;

/// Bytes of [`Emitter::load`].
pub(crate) fn load_bytes() -> u64 {
    if loads_relative() { 7 } else { 8 }
}

/// Overwrites the 32-bit displacement at `at` (whose instruction ends behind it) so that it leads to `target`.
pub(crate) fn patch_displacement(at: u64, target: u64) {
    assert!(CACHE.contains(at));
    let displacement = displacement(at + 4, target).to_le_bytes();
    // SAFETY: the field lies in the cache; one thread runs and patches code.
    unsafe { ptr::copy_nonoverlapping(displacement.as_ptr(), written(at), 4) };
}

/// Overwrites the 64-bit constant at `at`.
pub(crate) fn patch_constant(at: u64, value: u64) {
    Emitter::new(at).bytes(&value.to_le_bytes());
}

/// Bytes of a direct jump or call.
pub(crate) const JUMP_BYTES: u64 = 5;

/// Overwrites the code at `at` with `jmp target`.
pub(crate) fn patch_jump(at: u64, target: u64) {
    Emitter::new(at).jump(target);
}

/// Overwrites the code at `at` with `call target`: as many bytes as a jump.
pub(crate) fn patch_call(at: u64, target: u64) {
    let mut e = Emitter::new(at);
    let hole = e.call_hole();
    e.fill(hole, target);
}

/// Overwrites a direct jump at `at` with an instruction that does nothing.
pub(crate) fn patch_nothing(at: u64) {
    Emitter::new(at).bytes(&[0x0F, 0x1F, 0x44, 0x00, 0x00]); // nop dword [rax+rax]
}

fn displacement(from: u64, to: u64) -> u32 {
    let distance = to.wrapping_sub(from).cast_signed();
    i32::try_from(distance).expect("cache and images lie within 2 GiB").cast_unsigned()
}
