//! The register file of a generated function, in its data page: how it is loaded and stored, and what lies where.

use iced_x86::Instruction;
use iced_x86::code_asm::*;

use super::{Family, Random};

/// Offsets in the data page. Up to here: what memory operands refer to (the widest ones end before the next).
pub(super) const OPERANDS: u64 = 0x600;
/// Masks that keep a gather's index small, in eight lanes and in four.
pub(super) const SMALL_32: i32 = 0x700;
pub(super) const SMALL_64: i32 = 0x720;
/// 16 integer registers.
const GENERAL: i32 = 0x800;
const FLAGS: i32 = 0x880;
const MXCSR: i32 = 0x888;
/// What MXCSR and x87's control word are in code that has not said otherwise.
const MXCSR_DEFAULT: i32 = 0x88C;
const X87_CONTROL: i32 = 0x890;
/// 16 vector registers, 32 bytes each, of which the family says how many count.
const VECTORS: i32 = 0x900;
/// As `fnsave` has it.
const X87: i32 = 0xB00;
/// In that: where the last instruction and its operand were.
const X87_PLACES: i32 = 12;

/// The contents of a data page before a run.
pub(crate) fn data(random: &mut Random, length: usize) -> Vec<u8> {
    let mut data: Vec<u8> = (0..length).map(|_| (random.next() >> 24) as u8).collect();
    let mut put =
        |at: i32, bytes: &[u8]| data[at.unsigned_abs() as usize..][..bytes.len()].copy_from_slice(bytes);
    for lane in 0..8 {
        put(SMALL_32 + 4 * lane, &0x78u32.to_le_bytes());
    }
    for lane in 0..4 {
        put(SMALL_64 + 8 * lane, &0x78u64.to_le_bytes());
    }
    put(FLAGS, &(random.next() & 0xCD5 | 2).to_le_bytes());
    // Any rounding, with denormals as they are or as zeroes; all exceptions masked.
    put(MXCSR, &(random.next() as u32 & 0xE040 | 0x1F80).to_le_bytes());
    put(MXCSR_DEFAULT, &0x1F80u32.to_le_bytes());
    put(X87_CONTROL, &(random.next() as u16 & 0xC00 | 0x27F).to_le_bytes());
    data
}

/// What lies at an offset of the data page, for messages.
pub(crate) fn place(at: usize) -> String {
    match at {
        0x800..0x880 => format!("register {}", (at - 0x800) / 8),
        0x880..0x888 => "flags".to_owned(),
        0x888..0x88C => "mxcsr".to_owned(),
        0x900..0xB00 => format!("byte {} of ymm{}", (at - 0x900) % 32, (at - 0x900) / 32),
        0xB00..0xB6C => format!("byte {} of the x87 state", at - 0xB00),
        _ => format!("memory {at:#x}"),
    }
}

fn general(index: i32) -> AsmRegister64 {
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
        [index.unsigned_abs() as usize]
}

fn vector(index: i32) -> AsmRegisterXmm {
    [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15]
        [index.unsigned_abs() as usize]
}

fn wide(index: i32) -> AsmRegisterYmm {
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15]
        [index.unsigned_abs() as usize]
}

/// Integer registers that the body may use: all but rsp and r15.
fn integers() -> impl Iterator<Item = i32> {
    (0..15).filter(|i| *i != 4)
}

pub(super) fn prologue(family: Family) -> Vec<Instruction> {
    let mut a = CodeAssembler::new(64).unwrap();
    for saved in [3, 5, 6, 7, 12, 13, 14, 15] {
        a.push(general(saved)).unwrap();
    }
    a.sub(rsp, 0xA8).unwrap();
    for i in 6..16 {
        a.movups(ptr(rsp + 16 * (i - 6)), vector(i)).unwrap();
    }
    a.mov(r15, rcx).unwrap();
    for i in 0..16 {
        if family == Family::Avx {
            a.vmovups(wide(i), ptr(r15 + VECTORS + 32 * i)).unwrap();
        } else {
            a.movups(vector(i), ptr(r15 + VECTORS + 32 * i)).unwrap();
        }
    }
    if family == Family::X87 {
        a.fninit().unwrap();
        a.fldcw(word_ptr(r15 + X87_CONTROL)).unwrap();
        // All eight: `fninit` leaves what they hold, and MMX sees it.
        for i in 0..8 {
            a.fld(qword_ptr(r15 + 8 * i)).unwrap();
        }
        a.fstp(st0).unwrap();
        a.fstp(st0).unwrap();
        a.fnclex().unwrap();
    }
    a.ldmxcsr(dword_ptr(r15 + MXCSR)).unwrap();
    a.push(qword_ptr(r15 + FLAGS)).unwrap();
    a.popfq().unwrap();
    for i in integers() {
        a.mov(general(i), qword_ptr(r15 + GENERAL + 8 * i)).unwrap();
    }
    a.take_instructions()
}

pub(super) fn epilogue(family: Family) -> Vec<Instruction> {
    let mut a = CodeAssembler::new(64).unwrap();
    for i in integers() {
        a.mov(qword_ptr(r15 + GENERAL + 8 * i), general(i)).unwrap();
    }
    a.pushfq().unwrap();
    a.pop(qword_ptr(r15 + FLAGS)).unwrap();
    a.cld().unwrap();
    a.stmxcsr(dword_ptr(r15 + MXCSR)).unwrap();
    a.ldmxcsr(dword_ptr(r15 + MXCSR_DEFAULT)).unwrap();
    if family == Family::X87 {
        a.fnsave(ptr(r15 + X87)).unwrap();
        for i in 0..4 {
            a.mov(dword_ptr(r15 + X87 + X87_PLACES + 4 * i), 0).unwrap();
        }
    }
    for i in 0..16 {
        if family == Family::Avx {
            a.vmovups(ptr(r15 + VECTORS + 32 * i), wide(i)).unwrap();
        } else {
            a.movups(ptr(r15 + VECTORS + 32 * i), vector(i)).unwrap();
        }
    }
    if family == Family::Avx {
        a.vzeroupper().unwrap();
    }
    a.mov(byte_ptr(r15 + 0xFFF), 0).unwrap();
    for i in 6..16 {
        a.movups(vector(i), ptr(rsp + 16 * (i - 6))).unwrap();
    }
    a.add(rsp, 0xA8).unwrap();
    for saved in [15, 14, 13, 12, 7, 6, 5, 3] {
        a.pop(general(saved)).unwrap();
    }
    a.mov(eax, 0).unwrap();
    a.ret().unwrap();
    a.take_instructions()
}
