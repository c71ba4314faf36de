//! Levels: the IRQL of each processor, the spin locks that bound it, and what a change of level lets in.
//!
//! The lowest room. `settle` alone names the rooms above: it asks each what waits there, and lets it in. The others know numbers, the
//! engine's level, and what was said here of what waits ([`State`]).
//!
//! Driver code changes its level by itself (CR8, the exports of [`irql::short`], free spin locks) as long as that can let nothing in, break
//! no rule and miss no event. Two numbers say how far, and both may only err upwards: what waits ([`crate::ke::State::invalidate_levels`] and
//! [`crate::ke::State::raise_pending`] raise it wherever something begins to wait; one look at everything, [`crate::cx::Kernel::publish_levels`],
//! lowers it), and the floor (a lock is held, a routine has a level of its own, a reader wants levels). A place that makes
//! something wait and does not say so is a bug that only debug assertions find (`check_published`). One look (`settle::find`) says both what is
//! to be let in now and how far driver code may go by itself until something changes.

pub(crate) mod irql;
pub(in crate::ke) mod level;
pub(crate) mod locks;
pub(crate) mod settle;

use locks::Locks;

/// What this room keeps.
pub(crate) struct State {
    /// Spin locks that are held.
    locks: Locks,
    /// Below which level something may wait: see [`level`].
    pending_below: u8,
    /// Something has changed that may end the slice earlier.
    rearm: bool,
    /// A reader gets every change of level.
    levels_are_read: bool,
    /// A reader gets every call of an export, or its end.
    calls_are_read: bool,
    /// The stacks of moments are asked for: see [`crate::nt::Settings::witness`].
    is_witnessed: bool,
}

impl State {
    /// As at boot.
    pub(super) fn new(is_witnessed: bool) -> Self {
        Self {
            locks: Locks::default(),
            pending_below: level::ASK_ALWAYS,
            rearm: false,
            levels_are_read: false,
            calls_are_read: false,
            is_witnessed,
        }
    }

    /// Spin locks that are held.
    #[inline]
    pub(crate) fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The same, for code that takes and gives back locks.
    #[inline]
    pub(crate) fn locks_mut(&mut self) -> &mut Locks {
        &mut self.locks
    }

    /// Whether something has changed since the slice was set that may end it earlier.
    #[inline]
    pub(in crate::ke) fn is_slice_stale(&self) -> bool {
        self.rearm
    }

    /// A slice begins: its end takes everything into account.
    #[inline]
    pub(in crate::ke) fn slice_is_set(&mut self) {
        self.rearm = false;
    }
}
