//! The entries of clients' function tables: code that says which function of its framework a client calls, and goes on there with the
//! registers and the stack that it was called with.
//!
//! An entry keeps the four register arguments in the caller's home space, as every function may use it (*x64 calling convention*), calls the
//! thunk of its function, whose result is the framework's function, and jumps there. So the function sees the client as its caller. Each
//! has all of its code for itself, so that its call and its jump lead to one place each: translated code goes there straight.

use super::{KEEP, call, load, place};
use crate::cx::Cx;
use crate::exports;
use crate::ldr::pseudo::FIRST_BETWEEN;
use crate::wdf::answers::short_ddi;
use crate::wdf::ddis::{COUNT, DDIS};

/// Numbers that an entry takes the place of, and its bytes.
const NUMBERS: u32 = 4;
const OWN: u64 = 16 * NUMBERS as u64;

/// The number behind the last entry.
#[allow(clippy::cast_possible_truncation, reason = "there are some hundred")]
pub(super) const END: u32 = FIRST_BETWEEN + NUMBERS * COUNT as u32;

/// From the stack pointer that the thunk is called with to the client's return address.
pub(crate) const PUSHED: u8 = 0x28;
const LOWER: [u8; 4] = [0x48, 0x83, 0xec, 0x28]; // sub rsp, 28h
const RAISE: [u8; 4] = [0x48, 0x83, 0xc4, 0x28]; // add rsp, 28h
const GO_ON: [u8; 2] = [0xff, 0xe0]; // jmp rax
/// Where in an entry the stack pointer is lower by [`PUSHED`]: from behind [`LOWER`] until behind [`RAISE`].
const LOWERED: std::ops::Range<u64> = {
    let begin = (KEEP.len() + LOWER.len()) as u64;
    begin..begin + super::CALL as u64 + RAISE.len() as u64
};

/// The entry of the function of this index.
pub(crate) fn entry(index: usize) -> u64 {
    place(FIRST_BETWEEN) + OWN * index as u64
}

/// Defines the thunks.
pub(super) fn define(cx: &mut Cx<'_>) {
    cx.engine().define_exports((0..COUNT).map(|index| {
        let number = exports::number_of_ddi(index);
        (place(number), number, Some(short_ddi(index)))
    }));
}

/// The code, from the first entry on.
pub(super) fn code() -> Vec<u8> {
    let mut code = Vec::new();
    for index in 0..COUNT {
        let at = entry(index);
        code.extend(KEEP);
        code.extend(LOWER);
        call(&mut code, entry(0), place(exports::number_of_ddi(index)));
        code.extend(RAISE);
        code.extend(load(0));
        code.extend(GO_ON);
        super::pad(&mut code, entry(0), at + OWN);
    }
    code
}

/// Whether `address` lies in this code.
pub(super) fn contains(address: u64) -> bool {
    (entry(0)..place(END)).contains(&address)
}

/// How far above the stack pointer the return address is at `address`.
pub(super) fn pushed_at(address: u64) -> Option<u64> {
    let lowered = LOWERED.contains(&(address.checked_sub(entry(0))? % OWN));
    contains(address).then_some(if lowered { PUSHED.into() } else { 0 })
}

/// The function whose entry `address` lies in.
pub(super) fn name_at(address: u64) -> Option<String> {
    let index = usize::try_from(address.checked_sub(entry(0))? / OWN).ok()?;
    let ddi = DDIS.get(index)?;
    Some(format!("wdfldr.sys!{}", ddi.name))
}
