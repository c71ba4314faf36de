//! What a framework calls in the place of its client's event callbacks: code that says which callback it is, calls that, and says
//! when it has returned.
//!
//! There is a slot for each callback: its entry, the thunk for before and the one for behind. All share a routine that keeps the register
//! arguments in the caller's home space, as it may. Arguments on the stack the kernel hands on, where the callback has some ([`ARGUMENTS`]): an
//! outermost frame may have nothing there.

use super::{distance, place};
use crate::cx::Cx;
use crate::ldr::STUBBED;
use crate::wdf::answers::short_moment;

/// Callbacks that can be seen.
pub(crate) const SLOTS: usize = COUNT as usize;

const COUNT: u32 = 376;
/// The number where the entries lie, two for each; behind them what all share; the thunks for before and for behind, one for each.
const ENTRIES: u32 = 0x1A00;
const SHARED: u32 = ENTRIES + 2 * COUNT;
const BEFORE: u32 = 0x1D00;
const BEHIND: u32 = BEFORE + COUNT;

const _: () = assert!(SHARED as usize + COMMON.len().div_ceil(16) <= BEFORE as usize);
const _: () = assert!(BEHIND + COUNT <= STUBBED);

/// What all entries share: `rax` is the thunk for before, `r10` the one for behind.
const COMMON: &[u8] = &[
    0x48, 0x89, 0x4c, 0x24, 0x08, // mov [rsp+8], rcx
    0x48, 0x89, 0x54, 0x24, 0x10, // mov [rsp+10h], rdx
    0x4c, 0x89, 0x44, 0x24, 0x18, // mov [rsp+18h], r8
    0x4c, 0x89, 0x4c, 0x24, 0x20, // mov [rsp+20h], r9
    0x48, 0x83, 0xec, 0x58, // sub rsp, 58h
    0x4c, 0x89, 0x54, 0x24, 0x48, // mov [rsp+48h], r10
    0xff, 0xd0, // call rax
    0x48, 0x8b, 0x4c, 0x24, 0x60, // mov rcx, [rsp+60h]
    0x48, 0x8b, 0x54, 0x24, 0x68, // mov rdx, [rsp+68h]
    0x4c, 0x8b, 0x44, 0x24, 0x70, // mov r8, [rsp+70h]
    0x4c, 0x8b, 0x4c, 0x24, 0x78, // mov r9, [rsp+78h]
    0xff, 0xd0, // call rax
    0x48, 0x89, 0x44, 0x24, 0x50, // mov [rsp+50h], rax
    0x48, 0x89, 0xc1, // mov rcx, rax
    0xff, 0x54, 0x24, 0x48, // call [rsp+48h]
    0x48, 0x8b, 0x44, 0x24, 0x50, // mov rax, [rsp+50h]
    0x48, 0x83, 0xc4, 0x58, // add rsp, 58h
    0xc3, // ret
];
/// Where in it the stack pointer is lower by [`PUSHED`]: from behind the `sub` to the `ret`.
const LOWERED: std::ops::Range<u64> = 24..COMMON.len() as u64 - 1;
const PUSHED: u16 = 0x58;
/// Above the stack pointer that a thunk is called with: where the callback's fifth argument goes, and where it was.
pub(crate) const ARGUMENTS: (u16, u16) = (8 + 0x20, 8 + PUSHED + 0x28);

/// What an entry has for itself.
const OWN: u64 = 32;

/// Which thunk was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// Before the callback of this slot.
    Before(usize),
    /// Behind it.
    Behind(usize),
}

/// The thunk that has this number, if it is one of these.
pub(crate) fn moment(number: u32) -> Option<Moment> {
    let slot = |first: u32| {
        let slot = usize::try_from(number.checked_sub(first)?).ok()?;
        (slot < SLOTS).then_some(slot)
    };
    slot(BEFORE).map(Moment::Before).or_else(|| slot(BEHIND).map(Moment::Behind))
}

/// The entry of a slot.
pub(crate) fn entry(slot: usize) -> u64 {
    place(ENTRIES) + OWN * slot as u64
}

/// The slot whose entry lies there.
pub(crate) fn slot_at(address: u64) -> Option<usize> {
    let slot = usize::try_from(address.checked_sub(entry(0))? / OWN).ok()?;
    (slot < SLOTS).then_some(slot)
}

/// Where what all share begins.
fn common() -> u64 {
    place(SHARED)
}

/// The end of the code.
pub(super) fn end() -> u64 {
    common() + COMMON.len() as u64
}

/// Defines the thunks.
pub(super) fn define(cx: &mut Cx<'_>) {
    cx.engine().define_exports((BEFORE..BEHIND + COUNT).map(|number| {
        let short = moment(number).map(short_moment);
        (place(number), number, short)
    }));
}

/// The code, from the first entry on.
pub(super) fn code() -> Vec<u8> {
    let mut code = Vec::new();
    for slot in 0..SLOTS {
        let at = entry(slot);
        let number = |first: u32| first + u32::try_from(slot).expect("some hundred");
        // lea rax, [the thunk for before]; lea r10, [the one for behind]; jmp to what all share.
        code.extend([0x48, 0x8d, 0x05]);
        code.extend(distance(at + 7, place(number(BEFORE))));
        code.extend([0x4c, 0x8d, 0x15]);
        code.extend(distance(at + 14, place(number(BEHIND))));
        code.push(0xe9);
        code.extend(distance(at + 19, common()));
        code.extend([0xcc; 13]);
    }
    code.extend(COMMON);
    code
}

/// Whether `address` lies in this code.
pub(crate) fn contains(address: u64) -> bool {
    (entry(0)..end()).contains(&address)
}

/// How far above the stack pointer the return address is at `address`.
pub(super) fn pushed_at(address: u64) -> Option<u64> {
    let lowered = address.checked_sub(common()).is_some_and(|offset| LOWERED.contains(&offset));
    contains(address).then_some(if lowered { PUSHED.into() } else { 0 })
}
