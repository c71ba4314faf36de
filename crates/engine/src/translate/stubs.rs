//! The permanent code at the cache's start: how driver code is entered and left. It survives flushes.

use super::cuts::RECORD_SHIFT;
use super::emitter::condition::{ABOVE_OR_EQUAL, EQUAL};
use super::emitter::{Emitter, R13, RAX, RCX, RDX, RSP};
use super::frame;
use super::host_words::{
    ACCESS_ENTRY, EXIT_ENTRY, FRAME, GATE_ENTRY, HostWord, JUMP, RECORDS, RESUME, RETURNED_ENTRY, host_words,
};
use super::scratch::{
    COUNTDOWN, DRIVER_R13, RAX as SAVED_RAX, RCX as SAVED_RCX, RDX as SAVED_RDX, RSP as SAVED_RSP,
};
use super::short::{Short, ShortExport};
use super::table::{self, Column, UPPER_HALF};
use crate::registers::number;
use crate::windows::{CACHE, IMAGES, TABLE};

/// The original address that stands for "returned to the kernel".
pub(crate) const RETURN_TO_KERNEL: u64 = IMAGES.base + 0xF00;
/// The common exit stands first: it saves the stack pointer and goes to `dirql_exit`; `eax` is the exit's number. The signal
/// handler, which may borrow nothing, sends faults of driver code here.
pub(crate) const EXIT: u64 = CACHE.base;
/// Switches to the driver's stack and calls `scratch.resume`.
pub(crate) const ENTER: u64 = CACHE.base + 0x40;
/// Switches to the driver's stack and jumps to `scratch.resume`.
pub(crate) const RESUME_STUB: u64 = CACHE.base + 0xC0;
/// On the driver's stack, with an export's result: its return address has no translation yet.
pub(crate) const LOST: u64 = CACHE.base + 0x100;
/// A slice ends in a block: goes to the copy that ends with it, or to the exit that makes it; `eax` is the block's number.
pub(crate) const SLICE: u64 = CACHE.base + 0x140;
/// Where the thunks of exports begin.
const THUNKS: u64 = CACHE.base + 0x400;
/// Room for the stubs and the thunks of exports; translations follow.
pub(crate) const PERMANENT: u64 = 4 << 20;
/// Bytes of the longest thunk of an export.
const LONGEST_THUNK: u64 = 64;

/// Where the stubs lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stubs {
    /// Landing pad of `enter`'s call.
    landing: u64,
    /// Where the next export thunk goes.
    pub(crate) next_thunk: u64,
}

/// Writes the stubs and tells them where the host's code is.
pub(crate) fn write(return_miss: u32) -> Stubs {
    let words = host_words();
    words.exit_entry.set(frame::dirql_exit as *const () as u64);
    words.access_entry.set(frame::dirql_access as *const () as u64);
    words.gate_entry.set(frame::dirql_gate as *const () as u64);
    words.host_mxcsr.set(frame::host_mxcsr());
    words.returned_entry.set(frame::dirql_returned as *const () as u64);
    for short in Short::WITH_ENTRIES {
        if let Some((index, entry)) = short.entry() {
            words.short_entries[index].set(entry);
        }
    }

    let mut e = Emitter::new(EXIT);
    to_host(&mut e);
    e.store(SAVED_RSP, RSP);
    e.load_host(RSP, FRAME);
    e.jump_through(EXIT_ENTRY);

    let mut e = next(&e, ENTER);
    to_driver(&mut e);
    e.load(RSP, SAVED_RSP);
    let call = e.call_hole();
    let landing = e.here();
    restore_return_address(&mut e, RETURN_TO_KERNEL);
    to_host(&mut e);
    e.load_host(RSP, FRAME);
    e.jump_through(RETURNED_ENTRY);
    let thunk = e.here();
    e.fill(call, thunk);
    original_return_address(&mut e, RETURN_TO_KERNEL);
    e.jump_through(RESUME);

    let mut e = next(&e, RESUME_STUB);
    to_driver(&mut e);
    e.load(RSP, SAVED_RSP);
    e.jump_through(RESUME);

    let mut e = next(&e, LOST);
    exit_stub(&mut e, return_miss);

    let mut e = next(&e, SLICE);
    find_cut(&mut e);

    next(&e, THUNKS);
    let stubs = Stubs { landing, next_thunk: THUNKS };
    stubs.enter_in_table();
    stubs
}

/// The next stub's place; the one before must not reach into it.
fn next(before: &Emitter, at: u64) -> Emitter {
    assert!(before.here() <= at, "a stub is longer than its place");
    Emitter::new(at)
}

/// Whether a translated address is an export's.
pub(crate) fn is_thunk(translated: u64) -> bool {
    translated < CACHE.base + PERMANENT
}

impl Stubs {
    /// Makes returns to the kernel find the landing pad, and what comes there in another way (`ret imm16`, `retf`, `pop` and a jump)
    /// what lies behind its store: such an instruction left no slot to put right. Again after the table was cleared.
    pub(crate) fn enter_in_table(&self) {
        table::set(RETURN_TO_KERNEL, Column::Return, self.landing);
        table::set(RETURN_TO_KERNEL, Column::Jump, self.landing + RESTORED);
    }

    /// A thunk that calls export `number`, or does what it does: both find the number in `eax` and the driver's `rsp` in `r11`.
    pub(crate) fn export_thunk(&mut self, number: u32, short: Option<ShortExport>) -> u64 {
        let thunk = self.next_thunk;
        assert!(thunk + LONGEST_THUNK <= CACHE.base + PERMANENT, "too many exports");
        let mut e = Emitter::new(thunk);
        let behind = short.and_then(|short| Some((short, short.what.entry()?.0)));
        if behind.is_none() {
            to_host(&mut e);
        }
        e.bytes(&[0x49, 0x89, 0xE3]); // mov r11, rsp
        e.load_host(RSP, FRAME);
        e.constant_eax(number);
        match behind {
            None => e.jump_through(GATE_ENTRY),
            Some((short, index)) => {
                e.bytes(&[0x41, 0xBA]); // mov r10d, ...
                e.bytes(&short.in_r10().to_le_bytes());
                e.jump_through(HostWord::of_short(index));
            }
        }
        self.next_thunk = e.here().next_multiple_of(16);
        thunk
    }
}

/// The host sees the driver's `r13` in the register, and the countdown in its word.
fn to_host(e: &mut Emitter) {
    e.store(COUNTDOWN, R13);
    e.load(R13, DRIVER_R13);
}

/// Translated code counts in `r13`.
fn to_driver(e: &mut Emitter) {
    e.store(DRIVER_R13, R13);
    e.load(R13, COUNTDOWN);
}

/// Bytes of an exit.
pub(crate) const EXIT_STUB: u64 = 18;

/// An exit: [`EXIT_STUB`] bytes.
pub(crate) fn exit_stub(e: &mut Emitter, number: u32) {
    e.store(SAVED_RAX, RAX);
    e.constant_eax(number);
    e.jump(EXIT);
}

/// To [`SLICE`].
pub(crate) fn slice_stub(e: &mut Emitter, cuts: u32) {
    e.store(SAVED_RAX, RAX);
    e.constant_eax(cuts);
    e.jump(SLICE);
}

/// See [`SLICE`]: finds the record of the block and, by what is left of the slice, the copy. What the head has charged is taken back.
/// No flag is changed.
fn find_cut(e: &mut Emitter) {
    e.store(SAVED_RCX, RCX);
    e.store(SAVED_RDX, RDX);
    e.bytes(&[0x89, 0xC1]); // mov ecx, eax
    e.bytes(&[0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
    e.load_host(RDX, RECORDS);
    e.bytes(&[0xC1, 0xE1, RECORD_SHIFT]); // shl ecx, ...
    e.bytes(&[0x48, 0x01, 0xCA]); // add rdx, rcx
    e.bytes(&[0x8B, 0x4A, 0x08]); // mov ecx, [rdx+8]
    e.bytes(&[0x49, 0x01, 0xCD]); // add r13, rcx
    e.bytes(&[0x49, 0x39, 0xCD]); // cmp r13, rcx
    let nothing_left = e.jump_if_hole(ABOVE_OR_EQUAL);
    e.bytes(&[0x48, 0x8B, 0x0A]); // mov rcx, [rdx]
    e.bytes(&[0x4A, 0x8B, 0x0C, 0xE9]); // mov rcx, [rcx+r13*8]
    e.bytes(&[0x48, 0x85, 0xC9]); // test rcx, rcx
    let not_made = e.jump_if_hole(EQUAL);
    e.store_host(JUMP, RCX);
    restore_rcx_rdx(e);
    e.bytes(&[0x04, 0x7F, 0x9E]); // add al, 7Fh; sahf
    e.load(RAX, SAVED_RAX);
    e.jump_through(JUMP);
    e.fill_here(nothing_left);
    e.fill_here(not_made);
    e.bytes(&[0x8B, 0x4A, 0x0C]); // mov ecx, [rdx+12]
    e.bytes(&[0x04, 0x7F, 0x9E]);
    e.bytes(&[0x89, 0xC8]); // mov eax, ecx
    restore_rcx_rdx(e);
    e.jump(EXIT);
}

/// An exit that comes back right behind itself, if it can, with the driver's `rcx` in `scratch.rcx`: to `dirql_access`, which
/// finds `rax`, `rcx` and `rsp` in the frame. No flag is touched.
pub(crate) fn access_stub(e: &mut Emitter, number: u32) {
    let general = |register: usize| u8::try_from(8 * register).expect("there are 16");
    to_host(e);
    e.bytes(&[0x48, 0x89, 0xE1]); // mov rcx, rsp
    e.load_host(RSP, FRAME);
    e.bytes(&[0x48, 0x89, 0x4C, 0x24, general(number::RSP)]); // mov [rsp+...], rcx
    e.load(RCX, SAVED_RCX);
    e.bytes(&[0x48, 0x89, 0x4C, 0x24, general(number::RCX)]);
    e.bytes(&[0x48, 0x89, 0x44, 0x24, general(number::RAX)]); // mov [rsp+...], rax
    e.constant_eax(number);
    e.call_through(ACCESS_ENTRY);
    e.bytes(&[0x48, 0x8B, 0x64, 0x24, general(number::RSP)]); // mov rsp, [rsp+...]
    to_driver(e);
}

/// Behind a translated call: puts the original return address over the translated one that the call has pushed. In images
/// only the low half differs.
pub(crate) fn original_return_address(e: &mut Emitter, address: u64) {
    e.bytes(&[0xC7, 0x04, 0x24]); // mov dword [rsp], low half
    e.bytes(&low(address));
    if !table::covers(address) {
        e.bytes(&[0xC7, 0x44, 0x24, 0x04]); // mov dword [rsp+4], upper half
        e.bytes(&low(address >> 32));
    }
}

/// Pushes a return address. If that faults, nothing has been stored.
pub(crate) fn push(e: &mut Emitter, address: u64) {
    e.bytes(&[0x68]); // push low half
    e.bytes(&low(address));
    e.bytes(&[0xC7, 0x44, 0x24, 0x04]); // mov dword [rsp+4], upper half
    e.bytes(&low(address >> 32));
}

/// Bytes of [`restore_return_address`].
pub(crate) const RESTORED: u64 = 8;

/// At a landing pad: the slot that `ret` has consumed holds the original address again, for code that reads below `rsp`.
/// [`RESTORED`] bytes.
pub(crate) fn restore_return_address(e: &mut Emitter, address: u64) {
    e.bytes(&[0xC7, 0x44, 0x24, 0xF8]);
    e.bytes(&low(address));
}

/// A driver's `ret`: looks the original return address up, and returns through the processor's own predictor. No flag
/// is touched. Answers the addresses of the loads from the driver's stack, and the end of the saved-registers span.
pub(crate) fn return_sequence(e: &mut Emitter, miss: impl FnOnce(&mut Emitter)) -> (u64, u64) {
    e.store(SAVED_RCX, RCX);
    e.store(SAVED_RDX, RDX);
    let loads = e.here();
    e.bytes(&[0x8B, 0x14, 0x24]); // mov edx, [rsp]
    e.bytes(&[0x8B, 0x4C, 0x24, 0x04]); // mov ecx, [rsp+4]
    let to_ok = compare_upper_half(e);
    let miss_at = e.here();
    restore_rcx_rdx(e);
    miss(e);
    to_ok.fill(e);
    e.constant(RCX, TABLE.base);
    e.bytes(&[0x8B, 0x4C, 0xD1, 0x04]); // mov ecx, [rcx+rdx*8+4]
    e.jump_if_rcx_zero(miss_at);
    e.constant(RDX, IMAGES.base);
    e.bytes(&[0x48, 0x8D, 0x0C, 0x11]); // lea rcx, [rcx+rdx]
    e.bytes(&[0x48, 0x89, 0x0C, 0x24]); // mov [rsp], rcx
    restore_rcx_rdx(e);
    let end = e.here();
    e.bytes(&[0xC3]);
    (loads, end)
}

/// With the target in the scratch page, at `word`: finds the translated target, leaves it in `scratch.jump` and restores
/// `rcx` and `rdx`; or restores them and runs `miss`.
pub(crate) fn look_up_jump(
    e: &mut Emitter,
    word: u64,
    restore: impl Fn(&mut Emitter),
    miss: impl FnOnce(&mut Emitter),
) {
    e.load32(RCX, word + 4);
    let to_ok = compare_upper_half(e);
    let miss_at = e.here();
    restore(e);
    miss(e);
    to_ok.fill(e);
    e.load32(RCX, word);
    e.constant(RDX, IMAGES.base);
    e.bytes(&[0x8B, 0x8C, 0xCA]); // mov ecx, [rdx+rcx*8+jump column]
    e.bytes(&table::JUMP_COLUMN.to_le_bytes());
    e.jump_if_rcx_zero(miss_at);
    e.bytes(&[0x48, 0x8D, 0x0C, 0x11]); // lea rcx, [rcx+rdx]
    e.store_host(JUMP, RCX);
    restore(e);
}

pub(crate) fn restore_rcx_rdx(e: &mut Emitter) {
    e.load(RCX, SAVED_RCX);
    e.load(RDX, SAVED_RDX);
}

/// A short forward jump whose distance is filled in later.
struct ShortHole(u64);

impl ShortHole {
    fn fill(self, e: &mut Emitter) {
        let here = e.here();
        let mut back = Emitter::new(self.0);
        back.jump_if_rcx_zero(here);
    }
}

/// `lea ecx, [rcx - upper half]; jrcxz ?`: taken where the address lies in the window of images.
fn compare_upper_half(e: &mut Emitter) -> ShortHole {
    e.bytes(&[0x8D, 0x89]);
    e.bytes(&0u32.wrapping_sub(UPPER_HALF).to_le_bytes());
    let at = e.here();
    e.bytes(&[0xE3, 0x00]);
    ShortHole(at)
}

fn low(address: u64) -> [u8; 4] {
    ((address & 0xFFFF_FFFF) as u32).to_le_bytes()
}
