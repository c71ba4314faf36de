//! Code of the pseudo-image that stands between clients of a driver framework and the framework: what a client calls in the place of the
//! framework's functions, and the framework in the place of the client's callbacks. It is executable, and is laid out when the first client is
//! bound. What is seen there is `wdf`'s.

pub(crate) mod callback;
pub(crate) mod ddi;

use engine::Protection;
use engine::windows::PAGE;

use super::{pseudo, symbols};
use crate::cx::{Cx, Kernel};
use crate::mm::map::Page;
use crate::wdf;

/// Lays it out, the first time. False if the machine has no memory for it.
#[must_use]
pub(crate) fn boot(cx: &mut Cx<'_>) -> bool {
    if cx.with(|k| k.ldr.has_clients) {
        return true;
    }
    let first = ddi::entry(0) & !(PAGE - 1);
    let count = (callback::end() - first).div_ceil(PAGE);
    let laid_out = cx.with(|k| {
        let Some(pages) = k.mm.physical.take_pages(count) else { return false };
        let page = Page { physical: 0, protection: Protection::READ_EXECUTE, pageable: false };
        k.mm.map.map_filled(k.engine, first, &pages, page, |engine| {
            engine.fill(first, count * PAGE, 0xcc)?;
            engine.write_bytes(ddi::entry(0), &ddi::code())?;
            engine.write_bytes(callback::entry(0), &callback::code())
        });
        k.ldr.has_clients = true;
        true
    });
    if laid_out {
        ddi::define(cx);
        callback::define(cx);
    }
    laid_out
}

/// Whether `address` lies in it: such frames say nothing to an engineer.
pub(crate) fn contains(address: u64) -> bool {
    ddi::contains(address) || callback::contains(address)
}

/// How far above the stack pointer the return address is at `address`.
pub(crate) fn pushed_at(address: u64) -> Option<u64> {
    ddi::pushed_at(address).or_else(|| callback::pushed_at(address))
}

/// The function or the callback whose entry `address` lies in.
pub(super) fn name_at(k: &Kernel, address: u64) -> Option<String> {
    let of_callback = || {
        let routine = wdf::callbacks::routine_of(k, callback::slot_at(address)?)?;
        Some(symbols::code(k, routine))
    };
    ddi::name_at(address).or_else(of_callback)
}

/// Keeps the register arguments in the caller's home space, at an entry: `mov [rsp+8], rcx` and so on.
const KEEP: [u8; 20] = [
    0x48, 0x89, 0x4c, 0x24, 0x08, 0x48, 0x89, 0x54, 0x24, 0x10, // rcx, rdx
    0x4c, 0x89, 0x44, 0x24, 0x18, 0x4c, 0x89, 0x4c, 0x24, 0x20, // r8, r9
];

/// Loads them again, where the stack pointer is lower by `pushed`.
fn load(pushed: u8) -> [u8; 20] {
    let [rcx, rdx, r8, r9] = [8, 16, 24, 32].map(|offset| pushed + offset);
    [
        0x48, 0x8b, 0x4c, 0x24, rcx, 0x48, 0x8b, 0x54, 0x24, rdx, //
        0x4c, 0x8b, 0x44, 0x24, r8, 0x4c, 0x8b, 0x4c, 0x24, r9,
    ]
}

/// Bytes of a call.
const CALL: usize = 5;

/// Adds a call of `to` to code that begins at `base`.
fn call(code: &mut Vec<u8>, base: u64, to: u64) {
    code.push(0xe8);
    let behind = base + code.len() as u64 + 4;
    let distance = i64::try_from(to).expect("low") - i64::try_from(behind).expect("low");
    code.extend(i32::try_from(distance).expect("both lie in the pseudo-image").to_le_bytes());
}

/// Fills such code up to `end`.
fn pad(code: &mut Vec<u8>, base: u64, end: u64) {
    let length = usize::try_from(end - base).expect("it is small");
    assert!(code.len() <= length, "an entry is longer than its place");
    code.resize(length, 0xcc);
}

/// The address of a number, thunk or not.
fn place(number: u32) -> u64 {
    pseudo::thunk(number)
}
