//! The level of each processor, and how low the current one may go without a call of the kernel. Follows *Managing
//! Hardware Priorities*.
//!
//! The current processor's level is the engine's, because driver code may change it by itself (see [`engine::Engine::set_free_levels`]);
//! the others' are in their records. [`Kernel::level`] and [`Kernel::set_level`] are the only ones that touch either. What a change of level lets in is
//! `settle`'s.
//!
//! Two numbers bound what a change of level may let in; both are conservative: they may be higher than necessary, never lower.
//! `pending_below` sums up what waits for a lower level: code that makes something wait raises it ([`State::raise_pending`],
//! [`State::invalidate_levels`]), and only a look at everything lowers it ([`Kernel::publish_levels`]). The engine's free level says how low driver
//! code may go by itself: it covers the first number, the floor (a lock is held, a routine has a level of its own) and readers of levels.

use abi::KPCR;

use super::irql::{DISPATCH_LEVEL, PASSIVE_LEVEL};
use crate::cx::Kernel;
use crate::ke::State;

/// Above all levels: every change of level must be asked about.
pub(super) const ASK_ALWAYS: u8 = 16;

impl Kernel {
    /// The level of the processor that runs now.
    #[inline]
    pub(crate) fn level(&self) -> u8 {
        self.level_of(self.ke.current)
    }

    /// The level of processor `index`.
    #[inline]
    pub(crate) fn level_of(&self, index: usize) -> u8 {
        if index == self.ke.current { self.engine.level() } else { self.ke.processors[index].parked_level }
    }

    /// Changes the level of processor `index`, also for drivers that read it in the control region. Emits no event and lets
    /// nothing in; returns what it was.
    #[inline]
    pub(crate) fn set_level(&mut self, index: usize, to: u8) -> u8 {
        let from = self.level_of(index);
        if from == to {
            return from;
        }
        if index == self.ke.current {
            self.engine.set_level(to);
        } else {
            self.ke.processors[index].parked_level = to;
        }
        let region = self.ke.processors[index].region;
        if !self.engine.write_plain(region + KPCR::Irql, &to) && !region.is_null() {
            self.engine.write(region + KPCR::Irql, to).expect("the control region is memory of ours");
        }
        from
    }

    /// Processor `index` becomes the current one. The engine holds the level of that one only.
    pub(in crate::ke) fn make_current(&mut self, index: usize) {
        let before = self.ke.current;
        if before != index {
            self.ke.processors[before].parked_level = self.engine.level();
            self.engine.set_level(self.ke.processors[index].parked_level);
            self.ke.current = index;
        }
        self.ke.invalidate_levels();
    }

    /// The processor that runs now, and its IRQL.
    #[must_use]
    #[inline]
    pub(crate) fn where_now(&self) -> (u32, u8) {
        // They are numbered as they lie.
        (u32::try_from(self.ke.current).unwrap_or(u32::MAX), self.level())
    }
}

impl State {
    /// Something has changed that may be pending at any level, or raise the floor: every change of level is a call of the kernel until
    /// [`Kernel::publish_levels`].
    #[inline]
    pub(crate) fn invalidate_levels(&mut self) {
        self.levels.pending_below = ASK_ALWAYS;
        self.engine.set_free_levels(ASK_ALWAYS);
        self.engine.free_calls(0);
    }

    /// Something is pending that only a level below `level` lets in: changes above it need no call of the kernel.
    #[inline]
    pub(in crate::ke) fn raise_pending(&mut self, level: u8) {
        self.levels.pending_below = self.levels.pending_below.max(level);
        self.raise_floor(level);
    }

    /// Whether anything may wait for a level to fall to `level`.
    #[inline]
    pub(in crate::ke) fn may_pend_at(&self, level: u8) -> bool {
        self.levels.pending_below > level
    }

    /// Whether anything may wait at all.
    #[inline]
    pub(crate) fn may_pend(&self) -> bool {
        self.may_pend_at(PASSIVE_LEVEL)
    }

    /// From now on driver code may not go below this level by itself.
    #[inline]
    pub(crate) fn raise_floor(&mut self, level: u8) {
        if self.engine.free_levels() < level {
            self.engine.set_free_levels(level);
        }
    }

    /// What has raised the floor is over: computes it anew.
    #[inline]
    pub(in crate::ke) fn publish_floor(&mut self) {
        self.engine.set_free_levels(self.free_from());
    }

    /// Down to which level driver code may go by itself.
    #[inline]
    pub(super) fn free_from(&self) -> u8 {
        self.levels.pending_below.max(current_floor(self)).max(self.lowest_free())
    }

    /// The same where nothing is pending and no floor is raised.
    #[inline]
    pub(super) fn lowest_free(&self) -> u8 {
        if self.levels.levels_are_read { ASK_ALWAYS } else { PASSIVE_LEVEL }
    }

    /// Sets whether a reader wants every change of level, and every call of an export or its end.
    pub(crate) fn set_read(&mut self, levels: bool, calls: bool) {
        (self.levels.levels_are_read, self.levels.calls_are_read) = (levels, calls);
        self.invalidate_levels();
    }

    /// Whether a reader wants every change of level.
    #[inline]
    pub(in crate::ke) fn levels_are_read(&self) -> bool {
        self.levels.levels_are_read
    }

    /// As [`State::invalidate_levels`], and the end of the slice may be another.
    #[inline]
    pub(crate) fn rearm(&mut self) {
        self.levels.rearm = true;
        self.invalidate_levels();
    }
}

/// Below this the current processor must not go by itself, even if nothing is pending.
#[inline]
pub(super) fn current_floor(ke: &State) -> u8 {
    let processor = ke.processor();
    let floor = processor.floors.last().copied().unwrap_or(PASSIVE_LEVEL);
    let owns = ke.levels.locks.count(processor.number) != 0;
    floor.max(if owns { DISPATCH_LEVEL } else { PASSIVE_LEVEL })
}
