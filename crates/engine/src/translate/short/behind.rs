//! A short call that could not be done in its block: behind the call, where the gate would be entered. The same as there
//! ([`super::inline`]), and then a return as translated code has it. Of locks only the release is here: it is what compilers let a routine
//! end with, by a jump. A lock that is taken this way is the guest's.

use std::mem::offset_of;

use super::answers::{NotedCall, PLACE_MASK, PLACE_SHIFT, ROW_SHIFT, Row};
use super::{Short, ShortExport, lock};
use crate::translate::frame;
use crate::translate::host_words::HostWords;
use crate::translate::scratch::Scratch;
use crate::translate::stubs;
use crate::translate::table::UPPER_HALF;
use crate::windows::{IMAGES, SCRATCH, TABLE};

impl Short {
    /// One of each kind that has host code.
    pub(in crate::translate) const WITH_ENTRIES: [Self; 7] = [
        Self::Level,
        Self::Raise,
        Self::RaiseTo(0),
        Self::Lower,
        Self::Answer(0, 0),
        Self::ReleaseLower,
        Self::Release,
    ];

    /// Host code for it, if there is any, which is entered as the gate is, and the index of the word that holds its address. `r10`
    /// is what [`ShortExport::in_r10`] says.
    pub(in crate::translate) fn entry(self) -> Option<(usize, u64)> {
        let (index, entry): (_, unsafe extern "sysv64" fn()) = match self {
            Self::Level => (0, dirql_short_level),
            Self::Raise => (1, dirql_short_raise),
            Self::RaiseTo(_) => (2, dirql_short_raise_to),
            Self::Lower => (3, dirql_short_lower),
            Self::Answer(..) => (4, dirql_short_answer),
            Self::ReleaseLower => (5, dirql_short_release_lower),
            Self::Release => (6, dirql_short_release),
            Self::AcquireRaise | Self::Acquire => return None,
        };
        Some((index, entry as *const () as u64))
    }
}

impl ShortExport {
    /// What its code behind the call finds in `r10`: the level of [`Short::RaiseTo`], and above it the counter; or the row of
    /// [`Short::Answer`], and above it how far the return address is.
    pub(in crate::translate) fn in_r10(self) -> u32 {
        match self.what {
            Short::Answer(row, noted) => u32::from(noted) << 16 | u32::from(row),
            Short::RaiseTo(level) => u32::from(self.counter) << 8 | u32::from(level),
            _ => u32::from(self.counter) << 8,
        }
    }
}

/// Keeps the export's number for the gate, and `r10`, and goes to the gate if short calls are not allowed. Leaves the scratch page's address in
/// `r10`.
macro_rules! unless_told {
    () => {
        "mov [rsp - 8], rax
        mov [rsp - 16], r10
        movabs r10, {scratch}
        mov rax, [r10 + {s_calls}]
        cmp rax, [r10 + {s_short_until}]
        jae dirql_short_not"
    };
}

/// Goes to the gate if the level in `al` is lower than driver code may set by itself.
macro_rules! unless_asked {
    () => {
        "cmp al, [r10 + {s_free_levels}]
        jb dirql_short_not"
    };
}

/// The arguments' home, as the gate stores it.
macro_rules! store_home {
    () => {
        "mov [r11 + 8], rcx
        mov [r11 + 16], rdx
        mov [r11 + 24], r8
        mov [r11 + 32], r9"
    };
}

/// Goes to the gate if driver code has not taken the lock at `rcx` by itself. Leaves the lowest free level before it in `al`.
macro_rules! unless_taken {
    () => {
        "cmp rcx, [r10 + {s_lock}]
        jne dirql_short_not
        mov al, [r10 + {s_lock_free_levels}]"
    };
}

/// The lock at `rcx` is free, and the lowest free level is `al` again. The result is 0.
macro_rules! give_back {
    () => {
        concat!(
            store_home!(),
            "
        mov qword ptr [rcx], 0
        mov qword ptr [r10 + {s_lock}], {allowed}
        mov [r10 + {s_free_levels}], al
        xor eax, eax"
        )
    };
}

// As at the gate: `eax` is the export's number, `r11` the driver's stack pointer, `rsp` the frame. `rax` and `r10` are free, and `r13` is
// still the countdown. A
// store to the driver's stack that faults goes on at the gate, which has its own way with it: nothing has been changed by then.
std::arch::global_asm!(
    ".global dirql_short_level, dirql_short_raise, dirql_short_raise_to, dirql_short_lower, dirql_short_answer",
    ".global dirql_short_release_lower, dirql_short_release",
    ".global dirql_short_not, dirql_short_back, dirql_short_back_end, dirql_short_lost",
    "dirql_short_level:",
    unless_told!(),
    "cmp byte ptr [r10 + {s_free_levels}], 15",
    "ja dirql_short_not",
    store_home!(),
    "movzx eax, byte ptr [r10 + {s_level}]",
    "jmp 3f",
    //
    "dirql_short_raise_to:",
    unless_told!(),
    "mov eax, [rsp - 16]",
    "jmp 2f",
    "dirql_short_raise:",
    unless_told!(),
    "movzx eax, cl",
    "2:",
    "cmp al, [r10 + {s_highest_level}]",
    "ja dirql_short_not",
    "cmp al, [r10 + {s_level}]",
    "jb dirql_short_not",
    unless_asked!(),
    store_home!(),
    "movzx ecx, byte ptr [r10 + {s_level}]",
    "mov [r10 + {s_level}], al",
    "mov gs:[{kpcr_irql}], al",
    "mov eax, ecx",
    "jmp 3f",
    //
    "dirql_short_lower:",
    unless_told!(),
    // At a slice's end, what came with it comes first.
    "test r13, r13",
    "jle dirql_short_not",
    "movzx eax, cl",
    "cmp al, [r10 + {s_level}]",
    "ja dirql_short_not",
    unless_asked!(),
    store_home!(),
    "mov [r10 + {s_level}], al",
    "mov gs:[{kpcr_irql}], al",
    "xor eax, eax",
    "jmp 3f",
    //
    "dirql_short_release_lower:",
    unless_told!(),
    unless_taken!(),
    "test r13, r13",
    "jle dirql_short_not",
    "cmp byte ptr [r10 + {s_level}], {dispatch}",
    "jne dirql_short_not",
    "cmp dl, {dispatch}",
    "ja dirql_short_not",
    "cmp dl, al",
    "jb dirql_short_not",
    give_back!(),
    "mov [r10 + {s_level}], dl",
    "mov gs:[{kpcr_irql}], dl",
    "jmp 3f",
    //
    "dirql_short_release:",
    unless_told!(),
    unless_taken!(),
    "cmp byte ptr [r10 + {s_level}], {dispatch}",
    "jb dirql_short_not",
    give_back!(),
    //
    "3:",
    "inc qword ptr [r10 + {s_calls}]",
    "movzx ecx, byte ptr [rsp - 15]",
    "inc qword ptr [r10 + 8 * rcx + {s_short_calls}]",
    "4:",
    "pxor xmm0, xmm0",
    "pxor xmm1, xmm1",
    "pxor xmm2, xmm2",
    "pxor xmm3, xmm3",
    "pxor xmm4, xmm4",
    "pxor xmm5, xmm5",
    // As the gate returns.
    "dirql_short_back:",
    look_return_up!("dirql_short_lost",),
    "dirql_short_back_end:",
    to_driver!(),
    "ret",
    "dirql_short_lost:",
    to_driver!(),
    "jmp qword ptr [rip + 92f]",
    //
    "dirql_short_answer:",
    unless_told!(),
    "cmp rax, [r10 + {s_free_until}]",
    "jae dirql_short_not",
    // rax: the row. Host code is at home below 2 GiB, too.
    "movzx eax, word ptr [rsp - 16]",
    "shl eax, {row_shift}",
    "add rax, fs:[dirql_host_words@TPOFF + {h_answers}]",
    "movzx r10d, byte ptr [r10 + {s_open_answers}]",
    "test [rax + {a_group}], r10b",
    "je dirql_short_not",
    "movzx r10d, byte ptr [{scratch} + {s_level}]",
    "cmp r10b, [rax + {a_lowest}]",
    "jb dirql_short_not",
    "cmp r10b, [rax + {a_highest}]",
    "ja dirql_short_not",
    store_home!(),
    "movzx r10d, byte ptr [rsp - 14]",
    "test r10d, r10d",
    "je 5f",
    // The last access to the driver's stack that may fault: arguments are not needed behind it.
    "mov r10, [r11 + r10]",
    "movzx ecx, byte ptr [rsp - 14]",
    "add rcx, r11",
    "mov edx, ecx",
    "and edx, {place_mask}",
    "shl edx, {place_shift}",
    "add rdx, fs:[dirql_host_words@TPOFF + {h_noted_calls}]",
    "mov [rdx + {n_place}], rcx",
    "mov [rdx + {n_return_address}], r10",
    "movzx ecx, word ptr [rsp - 16]",
    "mov [rdx + {n_row}], rcx",
    "7:",
    "movabs r10, {scratch}",
    "inc qword ptr [r10 + {s_calls}]",
    "inc qword ptr [r10 + {s_answered_calls}]",
    "inc qword ptr [rax + {a_calls}]",
    "mov rax, [rax + {a_value}]",
    "jmp 4b",
    // It is not noted, and may hand a word on. rax is the row again.
    "5:",
    "movzx r10d, word ptr [rax + {a_from}]",
    "test r10d, r10d",
    "je 7b",
    "mov [rsp - 24], rax",
    "mov r10, [r11 + r10]",
    "movzx eax, word ptr [rax + {a_to}]",
    "mov [r11 + rax], r10",
    "mov rax, [rsp - 24]",
    "jmp 7b",
    //
    "dirql_short_not:",
    "movabs r10, {scratch}",
    exchange_r13!("s_countdown", "s_driver_r13"),
    "mov rax, [rsp - 8]",
    "jmp {gate}",
    ".p2align 3",
    "92: .quad {lost_stub}",
    scratch = const SCRATCH.base,
    table = const TABLE.base,
    images = const IMAGES.base,
    upper_half = const UPPER_HALF,
    lost_stub = const stubs::LOST,
    s_calls = const offset_of!(Scratch, calls),
    s_short_until = const offset_of!(Scratch, short_until),
    s_short_calls = const offset_of!(Scratch, short_calls),
    s_lock = const offset_of!(Scratch, lock),
    s_lock_free_levels = const offset_of!(Scratch, lock_free_levels),
    dispatch = const lock::DISPATCH,
    allowed = const lock::ALLOWED,
    s_free_until = const offset_of!(Scratch, free_until),
    s_answered_calls = const offset_of!(Scratch, answered_calls),
    s_open_answers = const offset_of!(Scratch, open_answers),
    h_answers = const offset_of!(HostWords, answers),
    h_noted_calls = const offset_of!(HostWords, noted_calls),
    a_value = const offset_of!(Row, value),
    a_calls = const offset_of!(Row, calls),
    a_group = const offset_of!(Row, group),
    a_lowest = const offset_of!(Row, lowest),
    a_highest = const offset_of!(Row, highest),
    a_to = const offset_of!(Row, to),
    a_from = const offset_of!(Row, from),
    n_place = const offset_of!(NotedCall, place),
    n_return_address = const offset_of!(NotedCall, return_address),
    n_row = const offset_of!(NotedCall, row),
    row_shift = const ROW_SHIFT,
    place_mask = const PLACE_MASK,
    place_shift = const PLACE_SHIFT,
    s_highest_level = const offset_of!(Scratch, highest_level),
    s_level = const offset_of!(Scratch, level),
    s_free_levels = const offset_of!(Scratch, free_levels),
    s_countdown = const offset_of!(Scratch, countdown),
    s_driver_r13 = const offset_of!(Scratch, driver_r13),
    kpcr_irql = const abi::KPCR::Irql.offset(),
    gate = sym frame::dirql_gate,
);

unsafe extern "sysv64" {
    fn dirql_short_level();
    fn dirql_short_raise();
    fn dirql_short_raise_to();
    fn dirql_short_lower();
    fn dirql_short_answer();
    fn dirql_short_release_lower();
    fn dirql_short_release();
    static dirql_short_back: u8;
    static dirql_short_back_end: u8;
    static dirql_short_lost: u8;
    static dirql_short_not: u8;
}

/// If `rip` is an access to the driver's stack here: where to go on without it.
pub(in crate::translate) fn fixup(rip: u64) -> Option<u64> {
    let back = (&raw const dirql_short_back) as u64..(&raw const dirql_short_back_end) as u64;
    if back.contains(&rip) {
        return Some((&raw const dirql_short_lost) as u64);
    }
    let start = dirql_short_level as *const () as u64;
    let gate = (&raw const dirql_short_not) as u64;
    (start..gate).contains(&rip).then_some(gate)
}
