//! Exports without a call of the guest: those of the processor's level, and of a free spin lock, are executed at the call
//! ([`inline`], [`lock`]), or just [`behind`] it, in a few instructions, as long as the guest
//! allows it ([`crate::Engine::allow_short_calls`]). So are exports that the guest has answered in advance ([`answers`]). Everything a driver could see is as after a call through the gate: its home space,
//! what lies below its stack pointer, its registers, its flags.
//!
//! If the call would unmask an interrupt, break a rule or emit an event, the guest handles it: such a call goes on through
//! the gate as if it had come there first.

mod answers;
mod behind;
pub(super) mod inline;
mod lock;

pub use answers::{ANSWERS, Answer};
pub(crate) use answers::{Answers, answered, make, note, noted, open, set};
pub(super) use behind::fixup;
pub use lock::TakenLock;
pub(super) use lock::tell;
pub(crate) use lock::{allow_calls, allow_locks, allows_locks, forbid_locks};

/// At most so many exports are [`Short`].
pub(crate) const SHORT_EXPORTS: usize = 16;

/// A [`Short`] export, as the cache knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ShortExport {
    pub(crate) what: Short,
    /// The index of its calls in [`super::scratch::Scratch::short_calls`].
    pub(crate) counter: u8,
}

/// What an export does, if the guest need not be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Short {
    /// Returns the level.
    Level,
    /// Raises the level to `cl` and returns what it was.
    Raise,
    /// Raises the level to so much, which is below 16, and returns what it was.
    RaiseTo(u8),
    /// Lowers the level to `cl`, and returns 0.
    Lower,
    /// Takes the spin lock at `rcx`, which is free, raises the level to 2 and returns what it was. Only where
    /// [`crate::Engine::allow_short_locks`] lets it, and in a block, as the next three.
    AcquireRaise,
    /// Takes the spin lock at `rcx` at a level of at least 2, and returns 0.
    Acquire,
    /// Gives back the spin lock at `rcx`, which was taken this way, lowers the level from 2 to `dl` and returns 0.
    ReleaseLower,
    /// Gives back the spin lock at `rcx`, which was taken this way, at a level of at least 2, and returns 0.
    Release,
    /// Returns what this row of the table of answers says ([`crate::Engine::make_answers`]), below [`ANSWERS`]. The second is how far above the
    /// stack pointer the return address lies that the call is noted with, from 8 to 123; or 0, it is not, and may hand a word on.
    Answer(u16, u8),
}

impl Short {
    /// Whether its calls are counted in [`super::scratch::Scratch::short_calls`].
    pub(in crate::translate) fn is_counted_there(self) -> bool {
        !matches!(self, Self::Answer(..))
    }
}
