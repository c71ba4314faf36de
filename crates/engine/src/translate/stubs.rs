//! The permanent code at the cache's start: how driver code is entered and left. It survives flushes.

use super::emitter::{Emitter, R13, RAX, RCX, RDX, RSP};
use super::frame;
use super::scratch::{
    COUNTDOWN, DRIVER_R13, EXIT_ENTRY, FRAME, GATE_ENTRY, JUMP, RAX as SAVED_RAX, RCX as SAVED_RCX,
    RDX as SAVED_RDX, RESUME, RETURNED_ENTRY, RSP as SAVED_RSP, scratch,
};
use super::short::Short;
use super::table::{self, Column, UPPER_HALF};
use crate::windows::{CACHE, IMAGES, TABLE};

/// The original address that stands for "returned to the kernel".
pub(crate) const RETURN_TO_KERNEL: u64 = IMAGES.base + 0xF00;
/// The common exit stands first: it saves the stack pointer and goes to `dirql_exit`; `eax` is the exit's number. The signal
/// handler, which may borrow nothing, sends faults of driver code here.
pub(crate) const EXIT: u64 = CACHE.base;
/// Room for the stubs and the thunks of exports; translations follow.
pub(crate) const PERMANENT: u64 = 4 << 20;
/// Bytes of the longest thunk of an export.
const LONGEST_THUNK: u64 = 64;

/// Where the stubs lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stubs {
    /// Switches to the driver's stack and calls `scratch.resume`.
    pub(crate) enter: u64,
    /// Switches to the driver's stack and jumps to `scratch.resume`.
    pub(crate) resume: u64,
    /// Switches to the driver's stack, whose pointer is in `r11`, and returns from an export.
    pub(crate) gate_return: u64,
    /// Goes to `dirql_gate`; `eax` is the export's number.
    gate: u64,
    /// Landing pad of `enter`'s call.
    landing: u64,
    /// Where the next export thunk goes.
    pub(crate) next_thunk: u64,
}

/// Writes the stubs and tells them where the host's code is.
pub(crate) fn write(return_miss: u32) -> Stubs {
    scratch().exit_entry.set(frame::dirql_exit as *const () as u64);
    scratch().gate_entry.set(frame::dirql_gate as *const () as u64);
    scratch().host_mxcsr.set(frame::host_mxcsr());
    scratch().returned_entry.set(frame::dirql_returned as *const () as u64);
    let mut e = Emitter::new(CACHE.base);

    assert_eq!(e.here(), EXIT);
    to_host(&mut e);
    e.store(SAVED_RSP, RSP);
    e.load(RSP, FRAME);
    e.jump_through(EXIT_ENTRY);

    let gate = e.here();
    to_host(&mut e);
    e.bytes(&[0x49, 0x89, 0xE3]); // mov r11, rsp
    e.load(RSP, FRAME);
    e.jump_through(GATE_ENTRY);

    let resume = e.here();
    to_driver(&mut e);
    e.load(RSP, SAVED_RSP);
    e.jump_through(RESUME);

    let enter = e.here();
    to_driver(&mut e);
    e.load(RSP, SAVED_RSP);
    let call = e.call_hole();
    let landing = e.here();
    restore_return_address(&mut e, RETURN_TO_KERNEL);
    to_host(&mut e);
    e.store(SAVED_RSP, RSP);
    e.load(RSP, FRAME);
    e.jump_through(RETURNED_ENTRY);
    let thunk = e.here();
    e.fill(call, thunk);
    original_return_address(&mut e, RETURN_TO_KERNEL);
    e.jump_through(RESUME);

    let gate_return = e.here();
    to_driver(&mut e);
    return_from_gate(&mut e, return_miss);

    let mut stubs =
        Stubs { enter, resume, gate_return, gate, landing, next_thunk: e.here().next_multiple_of(16) };
    stubs.next_thunk = stubs.next_thunk.max(CACHE.base + 0x400);
    stubs.enter_in_table();
    stubs
}

/// Whether a translated address is an export's.
pub(crate) fn is_thunk(translated: u64) -> bool {
    translated < CACHE.base + PERMANENT
}

impl Stubs {
    /// Makes returns to the kernel find the landing pad; again after the table was cleared.
    pub(crate) fn enter_in_table(&self) {
        table::set(RETURN_TO_KERNEL, Column::Return, self.landing);
    }

    /// A thunk that calls export `number`, or does what it does.
    pub(crate) fn export_thunk(&mut self, number: u32, short: Option<Short>) -> u64 {
        let thunk = self.next_thunk;
        assert!(thunk + LONGEST_THUNK <= CACHE.base + PERMANENT, "too many exports");
        let mut e = Emitter::new(thunk);
        e.constant_eax(number);
        match short {
            None => e.jump(self.gate),
            Some(short) => {
                if let Short::RaiseTo(level) = short {
                    e.bytes(&[0x41, 0xB2, level]); // mov r10b, level
                }
                to_host(&mut e);
                e.bytes(&[0x49, 0x89, 0xE3]); // mov r11, rsp
                e.load(RSP, FRAME);
                e.bytes(&[0xFF, 0x25, 0, 0, 0, 0]); // jmp [what lies behind]
                e.bytes(&short.entry().to_le_bytes());
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

/// At a landing pad: the slot that `ret` has consumed holds the original address again, for whoever reads below `rsp`.
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

/// The way back from an export, with the driver's stack pointer in `r11`: a `ret` as above, in which the volatile registers
/// and the flags are ours to use, and end as zeros.
fn return_from_gate(e: &mut Emitter, return_miss: u32) {
    e.bytes(&[0x4C, 0x89, 0xDC]); // mov rsp, r11
    e.bytes(&[0x8B, 0x14, 0x24]); // mov edx, [rsp]
    e.bytes(&[0x81, 0x7C, 0x24, 0x04]); // cmp dword [rsp+4], upper half
    e.bytes(&UPPER_HALF.to_le_bytes());
    let elsewhere = e.jump_if_hole(NOT_EQUAL);
    e.constant(RCX, TABLE.base);
    e.bytes(&[0x8B, 0x4C, 0xD1, 0x04]); // mov ecx, [rcx+rdx*8+4]
    e.bytes(&[0x85, 0xC9]); // test ecx, ecx
    let unknown = e.jump_if_hole(EQUAL);
    e.constant(RDX, IMAGES.base);
    e.bytes(&[0x48, 0x01, 0xD1]); // add rcx, rdx
    e.bytes(&[0x48, 0x89, 0x0C, 0x24]); // mov [rsp], rcx
    scrub(e);
    e.bytes(&[0xC3]);
    let miss = e.here();
    e.fill(elsewhere, miss);
    e.fill(unknown, miss);
    scrub(e);
    exit_stub(e, return_miss);
}

/// `xor` of `ecx`, `edx` and `r11d`.
fn scrub(e: &mut Emitter) {
    e.bytes(&[0x31, 0xC9, 0x31, 0xD2, 0x45, 0x31, 0xDB]);
}

/// Conditions' numbers in encodings.
const EQUAL: u8 = 4;
const NOT_EQUAL: u8 = 5;

/// With the target's halves in `edx` and `ecx`: finds the translated target, leaves it in `scratch.jump` and restores
/// `rcx` and `rdx`; or restores them and runs `miss`.
pub(crate) fn look_up_jump(e: &mut Emitter, restore: impl Fn(&mut Emitter), miss: impl FnOnce(&mut Emitter)) {
    let to_ok = compare_upper_half(e);
    let miss_at = e.here();
    restore(e);
    miss(e);
    to_ok.fill(e);
    e.constant(RCX, TABLE.base);
    e.bytes(&[0x8B, 0x0C, 0xD1]); // mov ecx, [rcx+rdx*8]
    e.jump_if_rcx_zero(miss_at);
    e.constant(RDX, IMAGES.base);
    e.bytes(&[0x48, 0x8D, 0x0C, 0x11]); // lea rcx, [rcx+rdx]
    e.store(JUMP, RCX);
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
