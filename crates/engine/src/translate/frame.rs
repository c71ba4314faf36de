//! One call into driver code: its frame on the host stack, and the host's side of every transition.
//!
//! `dirql_enter` makes the frame and goes to translated code; `dirql_exit` (a call-out with all registers),
//! `dirql_gate` (an import, by the calling convention) and `dirql_returned` are where translated code comes back. While
//! driver code runs the host's stack pointer is the frame's address, in the scratch page; while the host runs, the
//! frame holds the driver's registers. Host code never sees the driver's MXCSR or direction flag, and the driver never
//! sees a host value: what the calling convention leaves undefined is zeroed. MXCSR, `xmm6`–`xmm15`, the direction and the
//! identification flag are saved only once code
//! that may change them has been translated: before that a driver's have their first values.

use std::mem::offset_of;

use iced_x86::Register;
use zerocopy::IntoBytes;

use super::scratch::Scratch;
use crate::registers::Registers;

/// The saved state of driver code that has called out, at the host's stack pointer.
#[repr(C, align(16))]
pub(crate) struct Frame {
    pub(crate) registers: Registers,
    /// The original address of the instruction that called out; for an export 0 (its return address is at `rsp`).
    pub(crate) rip: u64,
    /// The frame this one was called under; 0 at the bottom of a strand.
    pub(crate) previous: u64,
    pub(super) scratch: u64,
    resume_stub: u64,
    pub(super) return_stub: u64,
    pub(crate) driver_mxcsr: u32,
    pub(crate) depth: u32,
    /// [`Scratch::used`] when the driver called out: what of the vector state was saved.
    pub(crate) used: u32,
    pub(crate) xmm: [[u64; 2]; 16],
    /// The upper halves of `ymm0`–`ymm15`; a call of the kernel leaves them undefined.
    pub(crate) ymm: [[u64; 2]; 16],
    /// As `fnsave` has it.
    pub(crate) x87: [u64; 14],
}

impl Frame {
    /// XMM0–15 and MXCSR as the driver has them, after an exit with all registers.
    pub(crate) fn vectors(&self) -> ([[u64; 2]; 16], u32) {
        let mut vectors = self.xmm;
        if self.used & USED_XMM6 == 0 {
            vectors[6..].fill([0; 2]);
        }
        (vectors, if self.used & USED_MXCSR == 0 { MXCSR_DEFAULT } else { self.driver_mxcsr })
    }

    /// What an `mm`, `xmm` or `ymm` register holds, after an exit with all registers; zeroes behind it.
    pub(crate) fn vector(&self, register: Register) -> [u8; 32] {
        let mut bytes = [0; 32];
        let number = register.number();
        if register.is_mm() {
            if self.used & USED_X87 != 0 {
                bytes[..8].copy_from_slice(&self.mmx(number));
            }
            return bytes;
        }
        let (low, _) = self.vectors();
        bytes[..16].copy_from_slice(low[number].as_bytes());
        if register.is_ymm() && self.used & USED_YMM != 0 {
            bytes[16..].copy_from_slice(self.ymm[number].as_bytes());
        }
        bytes
    }

    /// `fnsave` stores the registers from the top of the stack on; those of MMX are numbered without one.
    fn mmx(&self, number: usize) -> [u8; 8] {
        const STATUS: usize = 4;
        const STACK: usize = 28;
        let image = self.x87.as_bytes();
        let top = usize::from(image[STATUS + 1] >> 3 & 7);
        let slot = STACK + (number.wrapping_sub(top) & 7) * 10;
        *image[slot..].first_chunk().expect("the image holds eight registers")
    }
}

const _: () = assert!(offset_of!(Frame, xmm).is_multiple_of(16));

/// In [`Scratch::used`]: the driver may have an MXCSR of its own.
pub(crate) const USED_MXCSR: u32 = 1;
/// In [`Scratch::used`]: the driver may have something in `xmm6`–`xmm15`.
pub(crate) const USED_XMM6: u32 = 2;
/// In [`Scratch::used`]: the driver may have set its direction or identification flag.
pub(crate) const USED_FLAGS: u32 = 4;
/// In [`Scratch::used`]: the driver may have something in the upper halves of `ymm0`–`ymm15`.
pub(crate) const USED_YMM: u32 = 8;
/// In [`Scratch::used`]: the driver may have used x87 or MMX registers.
pub(crate) const USED_X87: u32 = 16;

/// What `dirql_enter` starts a call with.
#[repr(C)]
pub(crate) struct Entry {
    /// Translated address to call.
    pub(crate) target: u64,
    /// The driver's stack pointer before the call.
    pub(crate) rsp: u64,
    /// `rcx rdx r8 r9`.
    pub(crate) arguments: [u64; 4],
    /// The stub in the cache that performs the call.
    pub(crate) enter_stub: u64,
    pub(crate) resume_stub: u64,
    pub(crate) return_stub: u64,
    pub(crate) depth: u32,
}

/// How a call into driver code ended.
#[repr(C)]
pub(crate) struct Ended {
    /// `rax`.
    pub(crate) value: u64,
    /// 0: it returned; else the [`crate::Leave`] an exit handler left with.
    pub(crate) left: u64,
}

/// In [`Ended::left`], of an export: it does not return to its caller; the frame's registers go on at `value`.
pub(super) const RESUMES: u64 = i32::MAX as u64;
/// MXCSR of driver code that has not said otherwise.
pub(super) const MXCSR_DEFAULT: u32 = 0x1F80;
/// The state that x87 code starts with, as `fnsave` has it: a control word for 53 bits of precision, all registers empty. They
/// are zeroes too, which `fninit` would leave as they were, and MMX would see.
static X87_FIRST: [u16; 54] = {
    let mut image = [0; 54];
    image[0] = 0x27F;
    image[4] = 0xFFFF;
    image
};

/// The same instruction for each of `xmm6`–`xmm15`, whose number stands twice in it.
macro_rules! for_xmm6_to_15 {
    ($before:literal, $between:literal, $behind:literal) => {
        for_xmm6_to_15!($before, $between, $behind, 6 7 8 9 10 11 12 13 14 15)
    };
    ($before:literal, $between:literal, $behind:literal, $($n:literal)*) => {
        concat!($($before, $n, $between, $n, $behind, "\n"),*)
    };
}

std::arch::global_asm!(
    ".global dirql_enter",
    ".global dirql_exit",
    ".global dirql_gate",
    ".global dirql_gate_home",
    ".global dirql_gate_home_end",
    ".global dirql_returned",
    // rdi: &Entry, rsi: &Scratch
    "dirql_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, {frame_size} + 8",
    "mov rax, [rsi + {s_frame}]",
    "mov [rsp + {f_previous}], rax",
    "mov [rsi + {s_frame}], rsp",
    "mov [rsp + {f_scratch}], rsi",
    "mov rax, [rdi + {e_resume_stub}]",
    "mov [rsp + {f_resume_stub}], rax",
    "mov rax, [rdi + {e_return_stub}]",
    "mov [rsp + {f_return_stub}], rax",
    "mov eax, [rdi + {e_depth}]",
    "mov [rsp + {f_depth}], eax",
    "mov rax, [rdi + {e_target}]",
    "mov [rsi + {s_resume}], rax",
    "mov rax, [rdi + {e_rsp}]",
    "mov [rsi + {s_rsp}], rax",
    "mov dword ptr [rsp + {f_driver_mxcsr}], {mxcsr}",
    "test dword ptr [rsi + {s_used}], {used_rare}",
    "jnz 21f",
    "22:",
    "mov rcx, [rdi + {e_arguments}]",
    "mov rdx, [rdi + {e_arguments} + 8]",
    "mov r8, [rdi + {e_arguments} + 16]",
    "mov r9, [rdi + {e_arguments} + 24]",
    "mov rax, [rdi + {e_enter_stub}]",
    "mov [rsp - 8], rax",
    "pxor xmm0, xmm0",
    "pxor xmm1, xmm1",
    "pxor xmm2, xmm2",
    "pxor xmm3, xmm3",
    "pxor xmm4, xmm4",
    "pxor xmm5, xmm5",
    for_xmm6_to_15!("pxor xmm", ", xmm", ""),
    "xor ebx, ebx",
    "xor ebp, ebp",
    "xor esi, esi",
    "xor edi, edi",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "xor r12d, r12d",
    "xor r13d, r13d",
    "xor r14d, r14d",
    "xor r15d, r15d",
    "cld",
    "xor eax, eax",
    "jmp qword ptr [rsp - 8]",
    "21:",
    "test dword ptr [rsi + {s_used}], {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rsp + {f_driver_mxcsr}]",
    "5:",
    "test dword ptr [rsi + {s_used}], {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test dword ptr [rsi + {s_used}], {used_x87}",
    "je 22b",
    "frstor [rip + {x87}]",
    "jmp 22b",
    //
    // The driver returned: rax is its result.
    "dirql_returned:",
    "xor edx, edx",
    "mov rcx, [rsp + {f_scratch}]",
    "test dword ptr [rcx + {s_used}], {used_rare} | {used_flags}",
    "jnz 20f",
    // rax, rdx: the answer
    "4:",
    "mov rcx, [rsp + {f_scratch}]",
    "mov r8, [rsp + {f_previous}]",
    "mov [rcx + {s_frame}], r8",
    "test dword ptr [rcx + {s_used}], {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rcx + {s_host_mxcsr}]",
    "5:",
    "cld",
    "add rsp, {frame_size} + 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    //
    // A call-out with all registers: eax is the exit's number, the driver's rax and rsp are in the scratch page.
    "dirql_exit:",
    "mov [rsp + 8], rcx",
    "mov [rsp + 16], rdx",
    "mov [rsp + 72], r9",
    "mov r9d, eax",
    // `pushfq` and reading it back is slow: only if a direction or identification flag may be set.
    "lahf",
    "seto al",
    "mov rcx, [rsp + {f_scratch}]",
    "test dword ptr [rcx + {s_used}], {used_flags}",
    "jnz 6f",
    "movzx edx, ah",
    "movzx eax, al",
    "shl eax, 11",
    "or edx, eax",
    "7:",
    "mov [rsp + {f_flags}], rdx",
    "mov rdx, [rcx + {s_rax}]",
    "mov [rsp], rdx",
    "mov rdx, [rcx + {s_rsp}]",
    "mov [rsp + 32], rdx",
    "mov [rsp + 24], rbx",
    "mov [rsp + 40], rbp",
    "mov [rsp + 48], rsi",
    "mov [rsp + 56], rdi",
    "mov [rsp + 64], r8",
    "mov [rsp + 80], r10",
    "mov [rsp + 88], r11",
    "mov [rsp + 96], r12",
    "mov [rsp + 104], r13",
    "mov [rsp + 112], r14",
    "mov [rsp + 120], r15",
    "movaps [rsp + {f_xmm}], xmm0",
    "movaps [rsp + {f_xmm} + 16], xmm1",
    "movaps [rsp + {f_xmm} + 32], xmm2",
    "movaps [rsp + {f_xmm} + 48], xmm3",
    "movaps [rsp + {f_xmm} + 64], xmm4",
    "movaps [rsp + {f_xmm} + 80], xmm5",
    "mov edx, [rcx + {s_used}]",
    "mov [rsp + {f_used}], edx",
    "test edx, {used_xmm6}",
    "je 5f",
    for_xmm6_to_15!("movaps [rsp + {f_xmm} + 16 * ", "], xmm", ""),
    "5:",
    "test edx, {used_rare}",
    "jnz 23f",
    "24:",
    "cld",
    "mov rdi, rsp",
    "mov esi, r9d",
    "call {on_exit}",
    "test rdx, rdx",
    "jnz 4b",
    // All registers are the frame's; rax is where to go on.
    "19:",
    "mov rcx, [rsp + {f_scratch}]",
    "mov [rcx + {s_resume}], rax",
    "mov rdx, [rsp + 32]",
    "mov [rcx + {s_rsp}], rdx",
    "test dword ptr [rcx + {s_used}], {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rsp + {f_driver_mxcsr}]",
    "5:",
    "movaps xmm0, [rsp + {f_xmm}]",
    "movaps xmm1, [rsp + {f_xmm} + 16]",
    "movaps xmm2, [rsp + {f_xmm} + 32]",
    "movaps xmm3, [rsp + {f_xmm} + 48]",
    "movaps xmm4, [rsp + {f_xmm} + 64]",
    "movaps xmm5, [rsp + {f_xmm} + 80]",
    "test dword ptr [rsp + {f_used}], {used_xmm6}",
    "je 8f",
    for_xmm6_to_15!("movaps xmm", ", [rsp + {f_xmm} + 16 * ", "]"),
    "9:",
    "test dword ptr [rcx + {s_used}], {used_ymm} | {used_x87}",
    "jnz 25f",
    "26:",
    // `popfq` is slow: `sahf` and an addition that overflows do, unless the direction or identification flag is set.
    "mov eax, [rsp + {f_flags}]",
    "test eax, 0x200400",
    "jnz 16f",
    "mov edx, eax",
    "shr eax, 11",
    "and eax, 1",
    "mov ah, dl",
    "add al, 0x7F",
    "sahf",
    "17:",
    "mov rax, [rsp]",
    "mov rcx, [rsp + 8]",
    "mov rdx, [rsp + 16]",
    "mov rbx, [rsp + 24]",
    "mov rbp, [rsp + 40]",
    "mov rsi, [rsp + 48]",
    "mov rdi, [rsp + 56]",
    "mov r8, [rsp + 64]",
    "mov r9, [rsp + 72]",
    "mov r10, [rsp + 80]",
    "mov r11, [rsp + 88]",
    "mov r12, [rsp + 96]",
    "mov r13, [rsp + 104]",
    "mov r14, [rsp + 112]",
    "mov r15, [rsp + 120]",
    "jmp qword ptr [rsp + {f_resume_stub}]",
    // The arithmetic flags from before `test`, the others as they are.
    "6:",
    "movzx edx, ah",
    "movzx eax, al",
    "shl eax, 11",
    "or edx, eax",
    "pushfq",
    "pop rax",
    "and eax, 0x200400",
    "or edx, eax",
    "jmp 7b",
    "16:",
    "push qword ptr [rsp + {f_flags}]",
    "popfq",
    "jmp 17b",
    // On the way out: what is used seldom. edx: the frame's `used`.
    "23:",
    "test edx, {used_mxcsr}",
    "je 5f",
    "stmxcsr [rsp + {f_driver_mxcsr}]",
    "ldmxcsr [rcx + {s_host_mxcsr}]",
    "5:",
    "test edx, {used_ymm}",
    "je 5f",
    "vextractf128 [rsp + {f_ymm}], ymm0, 1",
    "vextractf128 [rsp + {f_ymm} + 16], ymm1, 1",
    "vextractf128 [rsp + {f_ymm} + 32], ymm2, 1",
    "vextractf128 [rsp + {f_ymm} + 48], ymm3, 1",
    "vextractf128 [rsp + {f_ymm} + 64], ymm4, 1",
    "vextractf128 [rsp + {f_ymm} + 80], ymm5, 1",
    "vextractf128 [rsp + {f_ymm} + 96], ymm6, 1",
    "vextractf128 [rsp + {f_ymm} + 112], ymm7, 1",
    "vextractf128 [rsp + {f_ymm} + 128], ymm8, 1",
    "vextractf128 [rsp + {f_ymm} + 144], ymm9, 1",
    "vextractf128 [rsp + {f_ymm} + 160], ymm10, 1",
    "vextractf128 [rsp + {f_ymm} + 176], ymm11, 1",
    "vextractf128 [rsp + {f_ymm} + 192], ymm12, 1",
    "vextractf128 [rsp + {f_ymm} + 208], ymm13, 1",
    "vextractf128 [rsp + {f_ymm} + 224], ymm14, 1",
    "vextractf128 [rsp + {f_ymm} + 240], ymm15, 1",
    "vzeroupper",
    "5:",
    "test edx, {used_x87}",
    "je 24b",
    "fnsave [rsp + {f_x87}]",
    "jmp 24b",
    // On the way back: what was not saved has its first value.
    "25:",
    "test dword ptr [rcx + {s_used}], {used_ymm}",
    "je 27f",
    "test dword ptr [rsp + {f_used}], {used_ymm}",
    "je 28f",
    "vinsertf128 ymm0, ymm0, [rsp + {f_ymm}], 1",
    "vinsertf128 ymm1, ymm1, [rsp + {f_ymm} + 16], 1",
    "vinsertf128 ymm2, ymm2, [rsp + {f_ymm} + 32], 1",
    "vinsertf128 ymm3, ymm3, [rsp + {f_ymm} + 48], 1",
    "vinsertf128 ymm4, ymm4, [rsp + {f_ymm} + 64], 1",
    "vinsertf128 ymm5, ymm5, [rsp + {f_ymm} + 80], 1",
    "vinsertf128 ymm6, ymm6, [rsp + {f_ymm} + 96], 1",
    "vinsertf128 ymm7, ymm7, [rsp + {f_ymm} + 112], 1",
    "vinsertf128 ymm8, ymm8, [rsp + {f_ymm} + 128], 1",
    "vinsertf128 ymm9, ymm9, [rsp + {f_ymm} + 144], 1",
    "vinsertf128 ymm10, ymm10, [rsp + {f_ymm} + 160], 1",
    "vinsertf128 ymm11, ymm11, [rsp + {f_ymm} + 176], 1",
    "vinsertf128 ymm12, ymm12, [rsp + {f_ymm} + 192], 1",
    "vinsertf128 ymm13, ymm13, [rsp + {f_ymm} + 208], 1",
    "vinsertf128 ymm14, ymm14, [rsp + {f_ymm} + 224], 1",
    "vinsertf128 ymm15, ymm15, [rsp + {f_ymm} + 240], 1",
    "jmp 27f",
    "28:",
    "vzeroupper",
    "27:",
    "test dword ptr [rcx + {s_used}], {used_x87}",
    "je 26b",
    "test dword ptr [rsp + {f_used}], {used_x87}",
    "je 29f",
    "frstor [rsp + {f_x87}]",
    "jmp 26b",
    "29:",
    "frstor [rip + {x87}]",
    "jmp 26b",
    "8:",
    for_xmm6_to_15!("pxor xmm", ", xmm", ""),
    "jmp 9b",
    //
    // A driver called an export: eax is its number, r11 the driver's rsp. The arguments are already where the host's
    // convention wants the third to the sixth.
    "dirql_gate:",
    "mov [rsp + 8], rcx",
    "mov [rsp + 16], rdx",
    "mov [rsp + 24], rbx",
    "mov [rsp + 32], r11",
    "mov [rsp + 40], rbp",
    "mov [rsp + 48], rsi",
    "mov [rsp + 56], rdi",
    "mov [rsp + 64], r8",
    "mov [rsp + 72], r9",
    "mov [rsp + 96], r12",
    "mov [rsp + 104], r13",
    "mov [rsp + 112], r14",
    "mov [rsp + 120], r15",
    "dirql_gate_home:",
    "mov [r11 + 8], rcx",
    "mov [r11 + 16], rdx",
    "mov [r11 + 24], r8",
    "mov [r11 + 32], r9",
    "dirql_gate_home_end:",
    "mov qword ptr [rsp + {f_rip}], 0",
    "mov r10, [rsp + {f_scratch}]",
    "mov r10d, [r10 + {s_used}]",
    "mov [rsp + {f_used}], r10d",
    "test r10d, {used_xmm6}",
    "je 5f",
    for_xmm6_to_15!("movaps [rsp + {f_xmm} + 16 * ", "], xmm", ""),
    "5:",
    "test r10d, {used_rare}",
    "jnz 30f",
    "31:",
    "cld",
    "mov rdi, rsp",
    "mov esi, eax",
    "call {on_export}",
    "test rdx, rdx",
    "jnz 18f",
    // What the host's convention preserves is the driver's still.
    "mov r10, [rsp + {f_scratch}]",
    "test dword ptr [r10 + {s_used}], {used_rare}",
    "jnz 32f",
    "33:",
    "test dword ptr [rsp + {f_used}], {used_xmm6}",
    "je 8f",
    for_xmm6_to_15!("movaps xmm", ", [rsp + {f_xmm} + 16 * ", "]"),
    "9:",
    "pxor xmm0, xmm0",
    "pxor xmm1, xmm1",
    "pxor xmm2, xmm2",
    "pxor xmm3, xmm3",
    "pxor xmm4, xmm4",
    "pxor xmm5, xmm5",
    "mov rsi, [rsp + 48]",
    "mov rdi, [rsp + 56]",
    "mov r11, [rsp + 32]",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "jmp qword ptr [rsp + {f_return_stub}]",
    "8:",
    for_xmm6_to_15!("pxor xmm", ", xmm", ""),
    "jmp 9b",
    // What a routine left in MXCSR and the direction flag, that may have changed them.
    "20:",
    "pushfq",
    "pop r8",
    "mov [rcx + {s_left_flags}], r8d",
    "stmxcsr [rcx + {s_left_mxcsr}]",
    "test dword ptr [rcx + {s_used}], {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test dword ptr [rcx + {s_used}], {used_x87}",
    "je 4b",
    "fninit",
    "jmp 4b",
    // Around an export: r10d, then [r10 + s_used], is what was used. Upper halves of vectors do not outlive a call.
    "30:",
    "test r10d, {used_mxcsr}",
    "je 5f",
    "stmxcsr [rsp + {f_driver_mxcsr}]",
    "mov r11, [rsp + {f_scratch}]",
    "ldmxcsr [r11 + {s_host_mxcsr}]",
    "5:",
    "test r10d, {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test r10d, {used_x87}",
    "je 31b",
    "fnsave [rsp + {f_x87}]",
    "jmp 31b",
    "32:",
    "test dword ptr [r10 + {s_used}], {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rsp + {f_driver_mxcsr}]",
    "5:",
    "test dword ptr [r10 + {s_used}], {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test dword ptr [r10 + {s_used}], {used_x87}",
    "je 33b",
    "test dword ptr [rsp + {f_used}], {used_x87}",
    "je 34f",
    "frstor [rsp + {f_x87}]",
    "jmp 33b",
    "34:",
    "frstor [rip + {x87}]",
    "jmp 33b",
    // The export does not return: the call is left, or an exception has a handler in it.
    "18:",
    "cmp rdx, {resumes}",
    "jne 4b",
    "jmp 19b",
    frame_size = const size_of::<Frame>(),
    mxcsr = const MXCSR_DEFAULT,
    resumes = const RESUMES,
    f_flags = const offset_of!(Frame, registers) + offset_of!(Registers, flags),
    f_rip = const offset_of!(Frame, rip),
    f_previous = const offset_of!(Frame, previous),
    f_scratch = const offset_of!(Frame, scratch),
    f_resume_stub = const offset_of!(Frame, resume_stub),
    f_return_stub = const offset_of!(Frame, return_stub),
    f_used = const offset_of!(Frame, used),
    f_driver_mxcsr = const offset_of!(Frame, driver_mxcsr),
    f_depth = const offset_of!(Frame, depth),
    f_xmm = const offset_of!(Frame, xmm),
    f_ymm = const offset_of!(Frame, ymm),
    f_x87 = const offset_of!(Frame, x87),
    e_target = const offset_of!(Entry, target),
    e_rsp = const offset_of!(Entry, rsp),
    e_arguments = const offset_of!(Entry, arguments),
    e_enter_stub = const offset_of!(Entry, enter_stub),
    e_resume_stub = const offset_of!(Entry, resume_stub),
    e_return_stub = const offset_of!(Entry, return_stub),
    e_depth = const offset_of!(Entry, depth),
    s_host_mxcsr = const offset_of!(Scratch, host_mxcsr),
    s_used = const offset_of!(Scratch, used),
    used_mxcsr = const USED_MXCSR,
    used_xmm6 = const USED_XMM6,
    used_flags = const USED_FLAGS,
    used_ymm = const USED_YMM,
    used_x87 = const USED_X87,
    used_rare = const USED_MXCSR | USED_YMM | USED_X87,
    x87 = sym X87_FIRST,
    s_frame = const offset_of!(Scratch, frame),
    s_left_flags = const offset_of!(Scratch, left_flags),
    s_left_mxcsr = const offset_of!(Scratch, left_mxcsr),
    s_rax = const offset_of!(Scratch, rax),
    s_rsp = const offset_of!(Scratch, rsp),
    s_resume = const offset_of!(Scratch, resume),
    on_exit = sym super::exit::on_exit,
    on_export = sym super::exit::on_export,
);

unsafe extern "sysv64" {
    pub(crate) fn dirql_enter(entry: *const Entry, scratch: *const Scratch) -> Ended;
    pub(crate) fn dirql_exit();
    pub(crate) fn dirql_gate();
    pub(crate) fn dirql_returned();
    static dirql_gate_home: u8;
    static dirql_gate_home_end: u8;
}

/// MXCSR as this thread has it now.
pub(crate) fn host_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes to a local of that size.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

/// If `rip` is a store of an export's to the driver's home space: where to go on without it.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    super::short::fixup(rip).or_else(|| gate_fixup(rip))
}

fn gate_fixup(rip: u64) -> Option<u64> {
    let start = (&raw const dirql_gate_home) as u64;
    let end = (&raw const dirql_gate_home_end) as u64;
    (start..end).contains(&rip).then_some(end)
}
