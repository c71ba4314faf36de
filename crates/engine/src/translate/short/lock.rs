//! A free spin lock that is acquired and released without a call of the guest: two short calls and a note of the owner in the
//! scratch page. There is room for one such lock. It is reported before any other call of the guest
//! ([`crate::Guest::lock_taken`]): from then on the lock is the guest's, as if the guest had acquired it.
//!
//! It must be driver memory: the check is in the code, because a checked machine or one that learns what is shared has no
//! short locks.

use super::inline::{HIGHEST, Inline, irql};
use crate::clock::clock;
use crate::machine::state;
use crate::translate::emitter::condition::{ABOVE, BELOW, NOT_EQUAL};
use crate::translate::emitter::{Emitter, Hole, R10, R11, R13, RAX, RCX, RDX};
use crate::translate::frame::USED_FLAGS;
use crate::translate::noted;
use crate::translate::scratch::{
    ANSWERED_CALLS, FREE_LEVELS, HIGHEST_LEVEL, LEVEL, LOCK, LOCK_ANSWERED_CALLS, LOCK_CALLS, LOCK_COUNTDOWN,
    LOCK_FREE_LEVELS, LOCK_KNOWN, LOCK_PLACE, scratch,
};
use crate::translate::table::UPPER_HALF;
use crate::windows::{IMAGES, SYSTEM};

/// A spin lock that driver code has taken by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakenLock {
    /// Its address.
    pub lock: u64,
    /// Where the driver goes on after the call.
    pub place: u64,
    /// [`crate::Engine::now`] when it was taken.
    pub since: u64,
    /// [`crate::Engine::short_calls`] before the call.
    pub short_calls: u64,
    /// [`crate::Engine::answered_calls`] then.
    pub answered_calls: u64,
}

/// In `scratch.lock`: none is taken, and one may be.
pub(super) const ALLOWED: u64 = 0;
/// In `scratch.lock`: none is taken, and none may be. No lock lies there: a store faults.
const FORBIDDEN: u64 = 1;

/// See [`crate::Engine::allow_short_calls`]. Where driver code may have flags that no export returns with, there are none.
pub(crate) fn allow_calls(until: u64) {
    scratch().short_until.set(if scratch().has_used(USED_FLAGS) { 0 } else { until });
}

/// See [`crate::Engine::allow_short_locks`].
pub(crate) fn allow_locks() {
    let looked_at = state().looks_at_accesses() || scratch().has_used(USED_FLAGS);
    scratch().lock.set(if looked_at { FORBIDDEN } else { ALLOWED });
}

/// From now on none may be taken.
pub(crate) fn forbid_locks() {
    scratch().lock.set(FORBIDDEN);
}

/// Whether one may be taken.
pub(crate) fn allows_locks() -> bool {
    scratch().lock.get() == ALLOWED
}

/// The kernel is entered: tells the guest of the lock that is held, if one is, and notes what driver code has written down.
#[inline]
pub(in crate::translate) fn tell() {
    noted::settle();
    if scratch().lock.get() > FORBIDDEN {
        tell_of_one();
    }
}

#[cold]
fn tell_of_one() {
    let scratch = scratch();
    let taken = TakenLock {
        lock: scratch.lock.replace(FORBIDDEN),
        place: u64::from(UPPER_HALF) << 32 | u64::from(scratch.lock_place.get()),
        since: clock().at(scratch.lock_countdown.get()),
        short_calls: scratch.lock_calls.get() - scratch.asked_calls.get(),
        answered_calls: scratch.lock_answered_calls.get(),
    };
    state().guest().lock_taken(&taken);
}

/// DISPATCH_LEVEL.
pub(super) const DISPATCH: u8 = 2;

impl Inline<'_> {
    /// Takes the lock at `rcx`.
    pub(super) fn acquire(&mut self, raises: bool) {
        self.e.scratch(&[0x48, 0x83], 7, LOCK); // cmp qword [lock], allowed
        self.e.bytes(&[ALLOWED.to_le_bytes()[0]]);
        self.ordinary_if(NOT_EQUAL);
        self.e.scratch(&[0x48, 0x3B], RCX.0, LOCK_KNOWN); // cmp rcx, [lock_known]
        self.look_if_not_equal();
        self.unless_told();
        self.e.scratch(&[0x0F, 0xB6], 0, LEVEL); // movzx eax, byte [level]
        self.e.scratch(&[0x44, 0x0F, 0xB6], R11.0, FREE_LEVELS); // movzx r11d, byte [free_levels]
        self.e.bytes(&[0x3C, DISPATCH]); // cmp al, 2
        self.ordinary_if(if raises { ABOVE } else { BELOW });
        if raises {
            self.compare(HIGHEST_LEVEL, DISPATCH);
            self.ordinary_if(BELOW);
        }
        self.e.bytes(&[0x41, 0x80, 0xFB, if raises { DISPATCH } else { HIGHEST }]); // cmp r11b, …
        self.ordinary_if(ABOVE);
        self.e.bytes(&[0x48, 0x83, 0x39, 0]); // cmp qword [rcx], 0
        self.ordinary_if(NOT_EQUAL);
        self.e.bytes(&[0x48, 0xC7, 0x01, 1, 0, 0, 0]); // mov qword [rcx], 1
        self.note();
        if raises {
            self.set_level(DISPATCH);
            self.e.scratch(&[0xC6], 0, FREE_LEVELS); // mov byte [free_levels], 2
            self.e.bytes(&[DISPATCH]);
        } else {
            self.e.bytes(&[0xB8, DISPATCH, 0, 0, 0]); // mov eax, 2
            self.e.bytes(&[0x41, 0x39, 0xC3]); // cmp r11d, eax
            self.e.bytes(&[0x41, 0x0F, 0x47, 0xC3]); // cmova eax, r11d
            self.e.scratch(&[0x88], RAX.0, FREE_LEVELS); // mov [free_levels], al
            self.e.bytes(&[0x31, 0xC0]); // xor eax, eax
        }
        self.count();
        self.scrub();
    }

    /// Who has it, and what gives it back: `r11b` is the lowest free level, `r10` the number of calls.
    fn note(&mut self) {
        self.e.store(LOCK, RCX);
        self.e.store(LOCK_CALLS, R10);
        self.e.load(RDX, ANSWERED_CALLS); // an argument that is not needed any more
        self.e.store(LOCK_ANSWERED_CALLS, RDX);
        self.e.scratch(&[0x44, 0x88], R11.0, LOCK_FREE_LEVELS); // mov [...], r11b
        self.e.scratch(&[0xC7], 0, LOCK_PLACE); // mov dword [...], low half
        self.e.bytes(&self.next.to_le_bytes()[..4]);
        self.e.store(LOCK_COUNTDOWN, R13);
    }

    /// Gives the lock at `rcx` back.
    pub(super) fn release(&mut self, lowers: bool) {
        self.e.scratch(&[0x48, 0x3B], RCX.0, LOCK); // cmp rcx, [lock]
        self.ordinary_if(NOT_EQUAL);
        self.unless_told();
        self.e.scratch(&[0x44, 0x0F, 0xB6], R11.0, LOCK_FREE_LEVELS); // movzx r11d, byte [...]
        self.compare(LEVEL, DISPATCH);
        if lowers {
            self.ordinary_if(NOT_EQUAL);
            self.e.bytes(&[0x80, 0xFA, DISPATCH]); // cmp dl, 2
            self.ordinary_if(ABOVE);
            self.e.bytes(&[0x44, 0x38, 0xDA]); // cmp dl, r11b
            self.ordinary_if(BELOW);
            self.unless_slice_ends();
        } else {
            self.ordinary_if(BELOW);
        }
        self.e.bytes(&[0x31, 0xC0]); // xor eax, eax
        self.e.bytes(&[0x48, 0x89, 0x01]); // mov [rcx], rax
        self.e.store(LOCK, RAX);
        self.e.scratch(&[0x44, 0x88], R11.0, FREE_LEVELS); // mov [free_levels], r11b
        if lowers {
            self.e.scratch(&[0x88], 2, LEVEL); // mov [level], dl
            self.e.bytes(&[0x65, 0x88, 0x14, 0x25]); // mov gs:[Irql], dl
            self.e.bytes(&irql());
        }
        self.count();
        self.scrub();
    }
}

/// A lock lies aligned, in pool or an image: then `rcx` is known for one. The jumps are taken if it does not.
pub(super) fn look_at_address(e: &mut Emitter) -> [Hole; 2] {
    e.bytes(&[0xF6, 0xC1, 7]); // test cl, 7
    let crooked = e.jump_if_hole(NOT_EQUAL);
    e.bytes(&[0x48, 0x89, 0xC8]); // mov rax, rcx
    e.bytes(&[0x48, 0xC1, 0xE8, UNIT]); // shr rax, …
    let images = u32::try_from(IMAGES.base >> UNIT).expect("it lies below 2^47");
    let system = u32::try_from(SYSTEM.base >> UNIT).expect("it lies below 2^47");
    let units = u32::try_from(SYSTEM.size >> UNIT).expect("it is smaller than that");
    e.bytes(&[0x44, 0x8D, 0x98]); // lea r11d, [rax-system]
    e.bytes(&0u32.wrapping_sub(system).to_le_bytes());
    e.bytes(&[0x41, 0x83, 0xFB, u8::try_from(units).expect("they are few")]); // cmp r11d, units
    e.bytes(&[0x72, 11]); // jb over the next two
    e.bytes(&[0x3D]); // cmp eax, images
    e.bytes(&images.to_le_bytes());
    let elsewhere = e.jump_if_hole(NOT_EQUAL);
    e.store(LOCK_KNOWN, RCX);
    [crooked, elsewhere]
}

/// Bits of the windows' unit: images have one, system memory has some.
const UNIT: u8 = 30;

const _: () = assert!(IMAGES.size == 1 << UNIT && SYSTEM.size >> UNIT < 128);
