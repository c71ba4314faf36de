//! One call into driver code: its frame on the host stack, and the host's side of every transition.
//!
//! `dirql_enter` makes the frame and goes to translated code; `dirql_exit` (a call-out with all registers), `dirql_access`
//! (the same for an access to a device or port, which mostly goes back where it came from), `dirql_gate` (an import, by the
//! calling convention) and `dirql_returned` are where translated code comes back. While driver code runs the host's stack
//! pointer is the frame's address, in [`super::host_words`]; while the host runs, the frame holds the driver's registers. Host
//! code never sees the driver's MXCSR or direction flag, and the driver never sees a host value: what the calling
//! convention leaves undefined is zeroed. MXCSR, vector and x87 registers, the direction and the identification flag are
//! saved, loaded and zeroed only once code that may look at them has been translated: before that no code can
//! see that they have their first values. One test in each direction covers all of that but `xmm0`–`xmm5`, which compilers use
//! everywhere.

use std::mem::offset_of;

use iced_x86::Register;
use zerocopy::IntoBytes;

use super::host_words::{ALLOWED, BLOCKED, HostWords};
use super::scratch::Scratch;
use super::stubs;
use super::table::UPPER_HALF;
use crate::guest::Args;
use crate::registers::Registers;
use crate::registers::number::{RCX, RDX};
use crate::windows::{IMAGES, SCRATCH, TABLE};

/// The saved state of driver code that has called out, at the host's stack pointer.
#[repr(C, align(16))]
pub(crate) struct Frame {
    pub(crate) registers: Registers,
    /// The original address of the instruction that called out; for an export 0 (its return address is at `rsp`).
    pub(crate) rip: u64,
    /// The frame this one was called under; 0 at the bottom of a strand.
    pub(crate) previous: u64,
    /// Where in the block an access came from.
    back: u64,
    /// Of an export. Its registers of arguments are saved here only.
    arguments: Args,
    pub(crate) driver_mxcsr: u32,
    pub(crate) depth: u32,
    /// [`Scratch::used`] when the driver called out: what of the vector state was saved.
    pub(crate) used: u32,
    aligning: [u32; 3],
    pub(crate) xmm: [[u64; 2]; 16],
    /// The upper halves of `ymm0`–`ymm15`; a call of the kernel leaves them undefined.
    pub(crate) ymm: [[u64; 2]; 16],
    /// As `fnsave` has it.
    pub(crate) x87: [u64; 14],
}

impl Frame {
    /// The integer registers; of an export those that [`crate::Caller`] speaks of.
    pub(crate) fn registers(&self) -> Registers {
        let mut registers = self.registers;
        if self.rip == 0 {
            let [rcx, rdx, r8, r9] = self.arguments.registers;
            (registers.general[RCX], registers.general[RDX]) = (rcx, rdx);
            (registers.general[8], registers.general[9]) = (r8, r9);
        }
        registers
    }

    /// XMM0–15 and MXCSR as the driver has them, after an exit with all registers.
    pub(crate) fn vectors(&self) -> ([[u64; 2]; 16], u32) {
        let mut vectors = self.xmm;
        if self.used & USED_XMM0 == 0 {
            vectors[..6].fill([0; 2]);
        }
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
/// In [`Scratch::used`]: the driver may look at `xmm0`–`xmm5`.
pub(crate) const USED_XMM0: u32 = 32;

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

/// The same instruction for each of some registers, whose number stands twice or three times in it.
macro_rules! for_each {
    ($($n:literal)*; $before:literal, $between:literal, $behind:literal) => {
        concat!($($before, $n, $between, $n, $behind, "\n"),*)
    };
    ($($n:literal)*; $before:literal, $first:literal, $second:literal, $behind:literal) => {
        concat!($($before, $n, $first, $n, $second, $n, $behind, "\n"),*)
    };
}

/// For `xmm0`–`xmm5`, which a call leaves undefined.
macro_rules! for_xmm0_to_5 {
    ($($text:literal),*) => { for_each!(0 1 2 3 4 5; $($text),*) };
}

/// For `xmm6`–`xmm15`, which a call preserves.
macro_rules! for_xmm6_to_15 {
    ($($text:literal),*) => { for_each!(6 7 8 9 10 11 12 13 14 15; $($text),*) };
}

macro_rules! for_ymm {
    ($($text:literal),*) => { for_each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; $($text),*) };
}

/// Stores all registers but `rax`, `rcx` and `rsp` in the frame at `rsp`.
macro_rules! save_general {
    () => {
        concat!(
            "mov [rsp + 16], rdx\n",
            "mov [rsp + 24], rbx\n",
            "mov [rsp + 40], rbp\n",
            "mov [rsp + 48], rsi\n",
            "mov [rsp + 56], rdi\n",
            "mov [rsp + 64], r8\n",
            "mov [rsp + 72], r9\n",
            "mov [rsp + 80], r10\n",
            "mov [rsp + 88], r11\n",
            "mov [rsp + 96], r12\n",
            "mov [rsp + 104], r13\n",
            "mov [rsp + 112], r14\n",
            "mov [rsp + 120], r15\n",
        )
    };
}

/// The arithmetic flags go to `edx`; `eax` is lost. `pushfq` and reading it back is slow.
macro_rules! flags_to_edx {
    () => {
        "lahf\nseto al\nmovzx edx, ah\nmovzx eax, al\nshl eax, 11\nor edx, eax\n"
    };
}

/// Loads the arithmetic flags and all registers but `rsp` from the frame; at `rare` the others are set as well. `popfq` is
/// slow: `sahf` and an addition that overflows do.
macro_rules! load_all {
    ($rare:literal, $back:literal) => {
        concat!(
            "mov eax, [rsp + {f_flags}]\n",
            "test eax, 0x200400\n",
            "jnz ",
            $rare,
            "f\n",
            "mov edx, eax\n",
            "shr eax, 11\n",
            "and eax, 1\n",
            "mov ah, dl\n",
            "add al, 0x7F\n",
            "sahf\n",
            $back,
            ":\n",
            "mov rax, [rsp]\n",
            "mov rcx, [rsp + 8]\n",
            "mov rdx, [rsp + 16]\n",
            "mov rbx, [rsp + 24]\n",
            "mov rbp, [rsp + 40]\n",
            "mov rsi, [rsp + 48]\n",
            "mov rdi, [rsp + 56]\n",
            "mov r8, [rsp + 64]\n",
            "mov r9, [rsp + 72]\n",
            "mov r10, [rsp + 80]\n",
            "mov r11, [rsp + 88]\n",
            "mov r12, [rsp + 96]\n",
            "mov r13, [rsp + 104]\n",
            "mov r14, [rsp + 112]\n",
            "mov r15, [rsp + 120]\n",
        )
    };
}

/// The rest of a call-out with all registers: the frame at `rsp` gets the vectors and flags that are used. `rcx` is the scratch
/// page, `edx` the arithmetic flags.
macro_rules! save_used {
    () => {
        concat!(
            "mov eax, [rcx + {s_used}]\n",
            "mov [rsp + {f_used}], eax\n",
            "test eax, {used_xmm0}\n",
            "je 5f\n",
            for_xmm0_to_5!("movaps [rsp + {f_xmm} + 16 * ", "], xmm", ""),
            "5:\n",
            "test eax, {used_seldom}\n",
            "jnz 6f\n",
            "7:\n",
            "mov [rsp + {f_flags}], rdx\n",
        )
    };
}

/// All registers but `rsp` are the frame's again. `rcx` is the scratch page.
macro_rules! load_used {
    () => {
        concat!(
            "mov edx, [rcx + {s_used}]\n",
            "test edx, {used_xmm0}\n",
            "je 5f\n",
            "test dword ptr [rsp + {f_used}], {used_xmm0}\n",
            "je 8f\n",
            for_xmm0_to_5!("movaps xmm", ", [rsp + {f_xmm} + 16 * ", "]"),
            "5:\n",
            "test edx, {used_seldom}\n",
            "jnz 40f\n",
            "26:\n",
            load_all!("16", "17"),
        )
    };
}

/// What [`save_used`] and [`load_used`] above it do seldom.
macro_rules! used_aside {
    () => {
        concat!(
            "6:\n",
            "lea rdi, [rip + 7b]\n",
            "jmp 50f\n",
            "40:\n",
            "lea rdi, [rip + 26b]\n",
            "jmp 51f\n",
            "8:\n",
            for_xmm0_to_5!("pxor xmm", ", xmm", ""),
            "jmp 5b\n",
            "16:\n",
            "push qword ptr [rsp + {f_flags}]\n",
            "popfq\n",
            "jmp 17b\n",
        )
    };
}

/// A `ret` as translated code has it (see `stubs::return_sequence`), of an export: `r11` is the driver's `rsp`, whose return
/// address is replaced by the translated one; else it goes to `lost`. `more` stands where an access may still fault.
macro_rules! look_return_up {
    ($lost:literal, $($more:literal)*) => {
        concat!(
            "mov edx, [r11]\n",
            "cmp dword ptr [r11 + 4], {upper_half}\n",
            "jne ", $lost, "\n",
            "movabs rcx, {table}\n",
            "mov ecx, [rcx + rdx * 8 + 4]\n",
            "test ecx, ecx\n",
            "je ", $lost, "\n",
            "movabs rdx, {images}\n",
            "add rcx, rdx\n",
            $($more, "\n",)*
            "mov [r11], rcx\n",
        )
    };
}

/// What `r13` holds goes to a word of the scratch page at `r10`, and another word comes: translated code counts in it.
macro_rules! exchange_r13 {
    ($goes:literal, $comes:literal) => {
        concat!("mov [r10 + {", $goes, "}], r13\n", "mov r13, [r10 + {", $comes, "}]\n")
    };
}

/// To the driver's stack at `r11`, without a host value in the registers that a call leaves undefined.
macro_rules! to_driver {
    () => {
        "mov rsp, r11
        xor ecx, ecx
        xor edx, edx
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d"
    };
}

std::arch::global_asm!(
    ".global dirql_enter",
    ".global dirql_exit",
    ".global dirql_access",
    ".global dirql_gate",
    ".global dirql_gate_home",
    ".global dirql_gate_home_end",
    ".global dirql_gate_back",
    ".global dirql_gate_back_end",
    ".global dirql_gate_lost",
    ".global dirql_returned",
    // rdi: translated address; rsi: the driver's stack pointer; rcx, rdx, r8, r9: arguments; on the stack: depth.
    ".p2align 4",
    "dirql_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, {frame_size} + 8",
    "movabs rax, {scratch}",
    "mov r10, fs:[dirql_host_words@TPOFF + {h_frame}]",
    "mov [rsp + {f_previous}], r10",
    "mov fs:[dirql_host_words@TPOFF + {h_frame}], rsp",
    "mov r10d, [rsp + {frame_size} + 64]",
    "mov [rsp + {f_depth}], r10d",
    "mov fs:[dirql_host_words@TPOFF + {h_resume}], rdi",
    "mov [rax + {s_rsp}], rsi",
    "mov dword ptr [rsp + {f_driver_mxcsr}], {mxcsr}",
    "mov r10d, [rax + {s_used}]",
    "test r10d, r10d",
    "jnz 21f",
    "22:",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {blocked}",
    "xor eax, eax",
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
    "jmp qword ptr [rip + 90f]",
    "21:",
    for_xmm0_to_5!("pxor xmm", ", xmm", ""),
    for_xmm6_to_15!("pxor xmm", ", xmm", ""),
    "test r10d, {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rsp + {f_driver_mxcsr}]",
    "5:",
    "test r10d, {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test r10d, {used_x87}",
    "je 22b",
    "frstor [rip + {x87}]",
    "jmp 22b",
    //
    // The driver returned: rax is its result.
    ".p2align 4",
    "dirql_returned:",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {allowed}",
    "xor edx, edx",
    "movabs rcx, {scratch}",
    "test dword ptr [rcx + {s_used}], {used_rare} | {used_flags}",
    "jnz 20f",
    // rax, rdx: the answer
    "4:",
    "mov r8, [rsp + {f_previous}]",
    "mov fs:[dirql_host_words@TPOFF + {h_frame}], r8",
    "add rsp, {frame_size} + 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    // What a routine left in MXCSR and the direction flag, that may have changed them.
    "20:",
    "pushfq",
    "pop r8",
    "mov [rcx + {s_left_flags}], r8d",
    "cld",
    "stmxcsr [rcx + {s_left_mxcsr}]",
    "test dword ptr [rcx + {s_used}], {used_mxcsr}",
    "je 5f",
    "ldmxcsr fs:[dirql_host_words@TPOFF + {h_host_mxcsr}]",
    "5:",
    "test dword ptr [rcx + {s_used}], {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test dword ptr [rcx + {s_used}], {used_x87}",
    "je 4b",
    "fninit",
    "jmp 4b",
    //
    // A call-out with all registers: eax is the exit's number, the driver's rax and rsp are in the scratch page.
    ".p2align 4",
    "dirql_exit:",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {allowed}",
    "mov [rsp + 8], rcx",
    save_general!(),
    "mov esi, eax",
    flags_to_edx!(),
    "movabs rcx, {scratch}",
    "mov rax, [rcx + {s_rax}]",
    "mov [rsp], rax",
    "mov rax, [rcx + {s_rsp}]",
    "mov [rsp + 32], rax",
    save_used!(),
    "mov rdi, rsp",
    "call {on_exit}",
    "test rdx, rdx",
    "jnz 4b",
    // All registers are the frame's; rax is where to go on.
    "19:",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {blocked}",
    "movabs rcx, {scratch}",
    "mov fs:[dirql_host_words@TPOFF + {h_resume}], rax",
    "mov rdx, [rsp + 32]",
    "mov [rcx + {s_rsp}], rdx",
    load_used!(),
    "jmp qword ptr [rip + 91f]",
    used_aside!(),
    //
    // As `dirql_exit`, by a call whose return address is on the host's stack, from a sequence in a block: the driver's rax,
    // rcx and rsp are in the frame already. It goes back there, if its instruction is over and nothing has changed.
    ".p2align 4",
    "dirql_access:",
    "pop qword ptr [rsp + {f_back}]",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {allowed}",
    save_general!(),
    "mov esi, eax",
    flags_to_edx!(),
    "movabs rcx, {scratch}",
    save_used!(),
    "mov rdi, rsp",
    "call qword ptr fs:[dirql_host_words@TPOFF + {h_on_access}]",
    "test rdx, rdx",
    "jnz 4b",
    "test rax, rax",
    "jnz 19b",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {blocked}",
    "movabs rcx, {scratch}",
    load_used!(),
    "push qword ptr [rsp + {f_back}]",
    "ret",
    used_aside!(),
    //
    // On the way out: what is used seldom. eax: the frame's `used`; rcx: scratch; edx: the arithmetic flags; it goes on at
    // rdi.
    "50:",
    "test eax, {used_flags}",
    "je 5f",
    "pushfq",
    "pop r8",
    "and r8d, 0x200400",
    "or edx, r8d",
    "cld",
    "5:",
    "test eax, {used_xmm6}",
    "je 5f",
    for_xmm6_to_15!("movaps [rsp + {f_xmm} + 16 * ", "], xmm", ""),
    "5:",
    "test eax, {used_mxcsr}",
    "je 5f",
    "stmxcsr [rsp + {f_driver_mxcsr}]",
    "ldmxcsr fs:[dirql_host_words@TPOFF + {h_host_mxcsr}]",
    "5:",
    "test eax, {used_ymm}",
    "je 5f",
    for_ymm!("vextractf128 [rsp + {f_ymm} + 16 * ", "], ymm", ", 1"),
    "vzeroupper",
    "5:",
    "test eax, {used_x87}",
    "je 5f",
    "fnsave [rsp + {f_x87}]",
    "5:",
    "jmp rdi",
    // On the way back: what was not saved has its first value. edx: what is used now; it goes on at rdi.
    "51:",
    "test edx, {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rsp + {f_driver_mxcsr}]",
    "5:",
    "test dword ptr [rsp + {f_used}], {used_xmm6}",
    "je 43f",
    for_xmm6_to_15!("movaps xmm", ", [rsp + {f_xmm} + 16 * ", "]"),
    "44:",
    "test edx, {used_ymm}",
    "je 47f",
    "test dword ptr [rsp + {f_used}], {used_ymm}",
    "je 45f",
    for_ymm!("vinsertf128 ymm", ", ymm", ", [rsp + {f_ymm} + 16 * ", "], 1"),
    "47:",
    "test edx, {used_x87}",
    "je 5f",
    "test dword ptr [rsp + {f_used}], {used_x87}",
    "je 46f",
    "frstor [rsp + {f_x87}]",
    "5:",
    "jmp rdi",
    "43:",
    for_xmm6_to_15!("pxor xmm", ", xmm", ""),
    "jmp 44b",
    "45:",
    "vzeroupper",
    "jmp 47b",
    "46:",
    "frstor [rip + {x87}]",
    "jmp rdi",
    //
    // A driver called an export: eax is its number, r11 the driver's rsp. What the host's convention preserves is not
    // loaded again.
    ".p2align 4",
    "dirql_gate:",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {allowed}",
    "mov [rsp + {f_arguments}], rcx",
    "mov [rsp + {f_arguments} + 8], rdx",
    "mov [rsp + {f_arguments} + 16], r8",
    "mov [rsp + {f_arguments} + 24], r9",
    "mov [rsp + {f_arguments} + 32], r11",
    "mov [rsp + 24], rbx",
    "mov [rsp + 32], r11",
    "mov [rsp + 40], rbp",
    "mov [rsp + 48], rsi",
    "mov [rsp + 56], rdi",
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
    "movabs r10, {scratch}",
    "mov r11d, [r10 + {s_used}]",
    "mov [rsp + {f_used}], r11d",
    "test r11d, {used_seldom}",
    "jnz 30f",
    "31:",
    "mov rdi, rsp",
    "mov esi, eax",
    "lea rdx, [rsp + {f_arguments}]",
    "call qword ptr fs:[dirql_host_words@TPOFF + {h_on_export}]",
    "test rdx, rdx",
    "jnz 18f",
    "mov byte ptr fs:[dirql_host_words@TPOFF + {h_system_calls}], {blocked}",
    for_xmm0_to_5!("pxor xmm", ", xmm", ""),
    "movabs r10, {scratch}",
    "mov r10d, [r10 + {s_used}]",
    "test r10d, {used_seldom}",
    "jnz 32f",
    "33:",
    "mov r11, [rsp + 32]",
    "movabs r10, {scratch}",
    exchange_r13!("s_driver_r13", "s_countdown"),
    "dirql_gate_back:",
    look_return_up!("dirql_gate_lost", "mov rsi, [rsp + 48]" "mov rdi, [rsp + 56]"),
    "dirql_gate_back_end:",
    to_driver!(),
    "ret",
    "dirql_gate_lost:",
    "mov r11, [rsp + 32]",
    "mov rsi, [rsp + 48]",
    "mov rdi, [rsp + 56]",
    to_driver!(),
    "jmp qword ptr [rip + 92f]",
    // Around an export: r11d is what was used; then r10d what is. Upper halves of vectors do not outlive a call.
    "30:",
    "test r11d, {used_flags}",
    "je 5f",
    "cld",
    "5:",
    "test r11d, {used_xmm6}",
    "je 5f",
    for_xmm6_to_15!("movaps [rsp + {f_xmm} + 16 * ", "], xmm", ""),
    "5:",
    "test r11d, {used_rare}",
    "je 31b",
    "test r11d, {used_mxcsr}",
    "je 5f",
    "stmxcsr [rsp + {f_driver_mxcsr}]",
    "ldmxcsr fs:[dirql_host_words@TPOFF + {h_host_mxcsr}]",
    "5:",
    "test r11d, {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test r11d, {used_x87}",
    "je 31b",
    "fnsave [rsp + {f_x87}]",
    "jmp 31b",
    "32:",
    "test dword ptr [rsp + {f_used}], {used_xmm6}",
    "je 8f",
    for_xmm6_to_15!("movaps xmm", ", [rsp + {f_xmm} + 16 * ", "]"),
    "9:",
    "test r10d, {used_rare}",
    "je 33b",
    "test r10d, {used_mxcsr}",
    "je 5f",
    "ldmxcsr [rsp + {f_driver_mxcsr}]",
    "5:",
    "test r10d, {used_ymm}",
    "je 5f",
    "vzeroupper",
    "5:",
    "test r10d, {used_x87}",
    "je 33b",
    "test dword ptr [rsp + {f_used}], {used_x87}",
    "je 34f",
    "frstor [rsp + {f_x87}]",
    "jmp 33b",
    "34:",
    "frstor [rip + {x87}]",
    "jmp 33b",
    "8:",
    for_xmm6_to_15!("pxor xmm", ", xmm", ""),
    "jmp 9b",
    // The export does not return: the call is left, or an exception has a handler in it.
    "18:",
    "cmp rdx, {resumes}",
    "jne 4b",
    "jmp 19b",
    // Stubs in the cache, out of reach of a displacement.
    ".p2align 3",
    "90: .quad {enter_stub}",
    "91: .quad {resume_stub}",
    "92: .quad {lost_stub}",
    frame_size = const size_of::<Frame>(),
    mxcsr = const MXCSR_DEFAULT,
    resumes = const RESUMES,
    f_flags = const offset_of!(Frame, registers) + offset_of!(Registers, flags),
    f_rip = const offset_of!(Frame, rip),
    f_previous = const offset_of!(Frame, previous),
    f_back = const offset_of!(Frame, back),
    f_arguments = const offset_of!(Frame, arguments),
    f_used = const offset_of!(Frame, used),
    f_driver_mxcsr = const offset_of!(Frame, driver_mxcsr),
    f_depth = const offset_of!(Frame, depth),
    f_xmm = const offset_of!(Frame, xmm),
    f_ymm = const offset_of!(Frame, ymm),
    f_x87 = const offset_of!(Frame, x87),
    scratch = const SCRATCH.base,
    table = const TABLE.base,
    images = const IMAGES.base,
    upper_half = const UPPER_HALF,
    enter_stub = const stubs::ENTER,
    resume_stub = const stubs::RESUME_STUB,
    lost_stub = const stubs::LOST,
    s_used = const offset_of!(Scratch, used),
    s_countdown = const offset_of!(Scratch, countdown),
    s_driver_r13 = const offset_of!(Scratch, driver_r13),
    used_mxcsr = const USED_MXCSR,
    used_xmm6 = const USED_XMM6,
    used_flags = const USED_FLAGS,
    used_ymm = const USED_YMM,
    used_x87 = const USED_X87,
    used_xmm0 = const USED_XMM0,
    used_seldom = const USED_MXCSR | USED_XMM6 | USED_FLAGS | USED_YMM | USED_X87,
    used_rare = const USED_MXCSR | USED_YMM | USED_X87,
    x87 = sym X87_FIRST,
    s_left_flags = const offset_of!(Scratch, left_flags),
    s_left_mxcsr = const offset_of!(Scratch, left_mxcsr),
    s_rax = const offset_of!(Scratch, rax),
    s_rsp = const offset_of!(Scratch, rsp),
    h_frame = const offset_of!(HostWords, frame),
    h_resume = const offset_of!(HostWords, resume),
    h_on_access = const offset_of!(HostWords, on_access),
    h_on_export = const offset_of!(HostWords, on_export),
    h_host_mxcsr = const offset_of!(HostWords, host_mxcsr),
    h_system_calls = const offset_of!(HostWords, system_calls),
    allowed = const ALLOWED,
    blocked = const BLOCKED,
    on_exit = sym super::exit::on_exit,
);

unsafe extern "sysv64" {
    /// Calls translated code at `target` with the driver's stack pointer `rsp`; its arguments are `rcx`, `rdx`, `r8`, `r9`.
    pub(crate) fn dirql_enter(
        target: u64,
        rsp: u64,
        rdx: u64,
        rcx: u64,
        r8: u64,
        r9: u64,
        depth: u32,
    ) -> Ended;
    pub(crate) fn dirql_exit();
    pub(crate) fn dirql_access();
    pub(crate) fn dirql_gate();
    pub(crate) fn dirql_returned();
    static dirql_gate_home: u8;
    static dirql_gate_home_end: u8;
    static dirql_gate_back: u8;
    static dirql_gate_back_end: u8;
    static dirql_gate_lost: u8;
}

/// MXCSR as this thread has it now.
pub(crate) fn host_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes to a local of that size.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

/// If `rip` is an access of an export's to the driver's stack: where to go on without its stores to the home space, or to
/// return the long way.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    super::short::fixup(rip).or_else(|| gate_fixup(rip))
}

fn gate_fixup(rip: u64) -> Option<u64> {
    let at = |symbol: *const u8| symbol as u64;
    if (at(&raw const dirql_gate_home)..at(&raw const dirql_gate_home_end)).contains(&rip) {
        return Some(at(&raw const dirql_gate_home_end));
    }
    let back = at(&raw const dirql_gate_back)..at(&raw const dirql_gate_back_end);
    back.contains(&rip).then_some(at(&raw const dirql_gate_lost))
}
