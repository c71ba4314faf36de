//! What a framework calls in the place of its client's event callbacks: code that says which callback it is, calls that, and says
//! when it has returned.
//!
//! There is a slot for each callback: its entry, the thunk for before and the one for behind. An entry keeps the register
//! arguments in the caller's home space, as it may. Arguments on the stack the kernel hands on, where the callback has some ([`ARGUMENTS`]): an
//! outermost frame may have nothing there.

use super::{KEEP, call, ddi, load, place};
use crate::cx::Cx;
use crate::ldr::STUBBED;
use crate::ldr::pseudo::FIRST_DOCUMENTED;
use crate::wdf::answers::short_moment;

/// Callbacks that can be seen.
pub(crate) const SLOTS: usize = COUNT as usize;

const COUNT: u32 = 376;
/// The thunks for before and for behind, one for each.
const BEFORE: u32 = 0x1D00;
const BEHIND: u32 = BEFORE + COUNT;

/// Numbers that an entry takes the place of, and its bytes.
const NUMBERS: u32 = 5;
const OWN: u64 = 16 * NUMBERS as u64;
/// The numbers where the entries lie, and behind them.
const ENTRIES: u32 = ddi::END;
const END: u32 = ENTRIES + NUMBERS * COUNT;

const _: () = assert!(BEHIND + COUNT <= STUBBED);
const _: () = assert!(END <= FIRST_DOCUMENTED);

const LOWER: [u8; 4] = [0x48, 0x83, 0xec, 0x58]; // sub rsp, 58h
/// `test eax, eax`: no flag is kept over what comes next, so that translated code need not save any.
const SET_FLAGS: [u8; 2] = [0x85, 0xc0];
const CALL_ROUTINE: [u8; 2] = [0xff, 0xd0]; // call rax
const KEEP_RESULT: [u8; 8] = [0x48, 0x89, 0x44, 0x24, 0x50, 0x48, 0x89, 0xc1]; // mov [rsp+50h], rax; mov rcx, rax
const LOAD_RESULT: [u8; 5] = [0x48, 0x8b, 0x44, 0x24, 0x50]; // mov rax, [rsp+50h]
const RAISE: [u8; 4] = [0x48, 0x83, 0xc4, 0x58]; // add rsp, 58h
const RETURN: u8 = 0xc3;
/// What [`LOWER`] takes.
const PUSHED: u8 = 0x58;
/// Where in an entry the stack pointer is lower by [`PUSHED`]: from behind [`LOWER`] to [`RETURN`].
const LOWERED: std::ops::Range<u64> = 24..77;
/// Above the stack pointer that a thunk is called with: where the callback's fifth argument goes, and where it was.
pub(crate) const ARGUMENTS: (u16, u16) = (8 + 0x20, 8 + PUSHED as u16 + 0x28);

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

/// The end of the code.
pub(super) fn end() -> u64 {
    place(END)
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
    let base = entry(0);
    for slot in 0..SLOTS {
        let thunk = |first: u32| place(first + u32::try_from(slot).expect("some hundred"));
        code.extend(KEEP);
        code.extend(LOWER);
        call(&mut code, base, thunk(BEFORE));
        code.extend(load(PUSHED));
        code.extend(SET_FLAGS);
        code.extend(CALL_ROUTINE);
        code.extend(KEEP_RESULT);
        code.extend(SET_FLAGS);
        call(&mut code, base, thunk(BEHIND));
        code.extend(LOAD_RESULT);
        code.extend(RAISE);
        assert_eq!(base + code.len() as u64, entry(slot) + LOWERED.end, "the layout is known");
        code.push(RETURN);
        super::pad(&mut code, base, entry(slot) + OWN);
    }
    code
}

/// Whether `address` lies in this code.
pub(crate) fn contains(address: u64) -> bool {
    (entry(0)..end()).contains(&address)
}

/// How far above the stack pointer the return address is at `address`.
pub(super) fn pushed_at(address: u64) -> Option<u64> {
    let lowered = LOWERED.contains(&(address.checked_sub(entry(0))? % OWN));
    contains(address).then_some(if lowered { PUSHED.into() } else { 0 })
}
