//! The entries of clients' function tables: code that says which function of its framework a client calls, and goes on there with the
//! registers and the stack that it was called with.
//!
//! An entry loads the thunk of its function and jumps to what all share: that keeps the four register arguments in the caller's home space, as every
//! function may use it (*x64 calling convention*), calls the thunk, whose result is the framework's function, and jumps there. So the
//! function sees the client as its caller.

use super::{distance, place};
use crate::cx::Cx;
use crate::exports;
use crate::wdf::answers::short_ddi;
use crate::wdf::ddis::{COUNT, DDIS};

/// The number where the entries lie, one for each function, in the place of thunks.
const FIRST: u32 = 0x1800;

/// What all entries share: `rax` is the thunk.
const COMMON: &[u8] = &[
    0x48, 0x89, 0x4c, 0x24, 0x08, // mov [rsp+8], rcx
    0x48, 0x89, 0x54, 0x24, 0x10, // mov [rsp+10h], rdx
    0x4c, 0x89, 0x44, 0x24, 0x18, // mov [rsp+18h], r8
    0x4c, 0x89, 0x4c, 0x24, 0x20, // mov [rsp+20h], r9
    0x48, 0x83, 0xec, 0x28, // sub rsp, 28h
    0xff, 0xd0, // call rax
    0x48, 0x83, 0xc4, 0x28, // add rsp, 28h
    0x48, 0x8b, 0x4c, 0x24, 0x08, // mov rcx, [rsp+8]
    0x48, 0x8b, 0x54, 0x24, 0x10, // mov rdx, [rsp+10h]
    0x4c, 0x8b, 0x44, 0x24, 0x18, // mov r8, [rsp+18h]
    0x4c, 0x8b, 0x4c, 0x24, 0x20, // mov r9, [rsp+20h]
    0xff, 0xe0, // jmp rax
];
/// Where in it the stack pointer is lower by [`PUSHED`]: from behind the `sub` until behind the `add`.
const LOWERED: std::ops::Range<u64> = 24..30;
/// From the stack pointer that the thunk is called with to the client's return address.
pub(crate) const PUSHED: u16 = 0x28;

const _: () = assert!(exports::rows() <= FIRST as usize);

/// The entry of the function of this index.
pub(crate) fn entry(index: usize) -> u64 {
    place(FIRST + u32::try_from(index).expect("there are some hundred"))
}

fn common() -> u64 {
    entry(COUNT)
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
        // lea rax, [the thunk]; jmp to what all share.
        code.extend([0x48, 0x8d, 0x05]);
        code.extend(distance(at + 7, place(exports::number_of_ddi(index))));
        code.push(0xe9);
        code.extend(distance(at + 12, common()));
        code.extend([0xcc; 4]);
    }
    code.extend(COMMON);
    code
}

/// Whether `address` lies in this code.
pub(super) fn contains(address: u64) -> bool {
    (entry(0)..common() + COMMON.len() as u64).contains(&address)
}

/// How far above the stack pointer the return address is at `address`.
pub(super) fn pushed_at(address: u64) -> Option<u64> {
    let lowered = address.checked_sub(common()).is_some_and(|offset| LOWERED.contains(&offset));
    contains(address).then_some(if lowered { PUSHED.into() } else { 0 })
}

/// The function whose entry `address` lies in.
pub(super) fn name_at(address: u64) -> Option<String> {
    let index = usize::try_from(address.checked_sub(entry(0))? / 16).ok()?;
    let ddi = DDIS.get(index)?;
    Some(format!("wdfldr.sys!{}", ddi.name))
}
