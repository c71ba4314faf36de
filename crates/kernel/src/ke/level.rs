//! The level of each processor, and how low the current one may go without a call of the kernel. Follows *Managing
//! Hardware Priorities*.
//!
//! The current processor's level is the engine's, because driver code may change it by itself (see [`engine::Engine::set_free_levels`]);
//! the others' are in their records. [`Kernel::level`] and [`Kernel::set_level`] are the only ones that touch either. What a change of level lets in is
//! `irql`'s.
//!
//! Two numbers bound what a change of level may let in; both are conservative: they may be higher than necessary, never lower.
//! [`State::waits_below`] sums up what waits: code that makes something wait raises it, and only a look at everything lowers it
//! ([`Kernel::settled`]). The engine's is how low driver code may go by itself: it covers the first, what is forbidden (a lock is held, a
//! routine has a level of its own) and readers of events. So one comparison decides about events, too.

use abi::KPCR;

use super::irql::Work;
use super::processor::{APC_LEVEL, CLOCK_LEVEL, DISPATCH_LEVEL, IPI_LEVEL, PASSIVE_LEVEL};
use super::vectors::irql_of_vector;
use super::{State, apc, budget, clock, dpc, ipi, irql, scheduler, slice, timer};
use crate::cx::Kernel;

/// Above all levels: every change of level must be asked about.
pub(crate) const ASK_ALWAYS: u8 = 16;

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
    pub(crate) fn make_current(&mut self, index: usize) {
        let before = self.ke.current;
        if before != index {
            self.ke.processors[before].parked_level = self.engine.level();
            self.engine.set_level(self.ke.processors[index].parked_level);
            self.ke.current = index;
        }
        self.ke.unsettled();
    }

    /// The processor that runs now, and its IRQL.
    #[must_use]
    #[inline]
    pub fn where_now(&self) -> (u32, u8) {
        // They are numbered as they lie.
        (u32::try_from(self.ke.current).unwrap_or(u32::MAX), self.level())
    }

    /// Everything that waited has been let in: publishes down to which level driver code may go on this processor, until
    /// [`State::unsettled`] is called, without letting anything in, breaking a rule or missing an event.
    #[inline]
    pub(crate) fn settled(&mut self) {
        if !self.all_is_promised() {
            self.promise(waiting(self));
        }
    }

    /// Whether the lowest level and all calls are published already.
    #[inline]
    fn all_is_promised(&self) -> bool {
        self.ke.waits_below == PASSIVE_LEVEL && self.engine.free_levels() == self.ke.lowest_alone()
    }

    /// As [`Kernel::settled`], where [`super::irql::next_work`] has just found nothing that the level lets in.
    #[inline]
    pub(crate) fn settled_as_nothing_waits(&mut self) {
        // At PASSIVE_LEVEL that is all there is.
        let all = self.level() == PASSIVE_LEVEL && self.ke.processor().interrupts_enabled;
        if !all {
            self.settled();
        } else if !self.all_is_promised() {
            self.promise(if self.ke.rearm { ASK_ALWAYS } else { held_clock(self) });
        }
    }

    /// Publishes that nothing waits for a level below `level`.
    #[inline]
    fn promise(&mut self, level: u8) {
        self.ke.waits_below = level;
        self.ke.forbids_less();
        let until = if calls_are_free(self) { budget::calls_until_look(self) } else { 0 };
        self.engine.free_calls(until);
        self.engine.allow_short_calls(if self.ke.calls_are_told { 0 } else { until });
        self.engine.allow_short_locks(locks_are_free(self));
    }

    /// A lock was given back.
    #[inline]
    pub(crate) fn a_lock_is_free(&mut self) {
        self.ke.forbids_less();
        self.engine.allow_short_locks(locks_are_free(self));
    }

    /// What the current processor is to do now. If that is nothing, does what [`Kernel::settled`] does: one look at what waits
    /// answers both, as [`super::irql::next_work`] and [`waiting`] would.
    pub(crate) fn next(&mut self) -> Next {
        let (index, level) = (self.ke.current, self.level());
        if self.ke.rearm {
            return irql::next_work(self, index).map_or(Next::Slice, Next::Work);
        }
        let mut lowest = held_clock(self);
        let processor = &self.ke.processors[index];
        if processor.interrupts_enabled {
            if ipi::calls(self, index) {
                if level < IPI_LEVEL {
                    return Next::Work(Work::Ipi);
                }
                lowest = lowest.max(IPI_LEVEL);
            }
            if self.ke.interrupts.is_any_wanted() {
                let mask = processor.mask();
                if let Some(vector) = self.ke.interrupts.highest(mask, level) {
                    return Next::Work(Work::Interrupt(vector));
                }
                lowest = lowest.max(highest_line(self, mask));
            }
            if level >= DISPATCH_LEVEL && forbidden(&self.ke) >= DISPATCH_LEVEL {
                // A routine that may go below lets them in then.
                lowest = lowest.max(DISPATCH_LEVEL);
            }
            if lowest.min(level) < DISPATCH_LEVEL
                && let Some((work, below)) = below_dispatch(self, index)
            {
                if level < below {
                    return Next::Work(work);
                }
                lowest = lowest.max(below);
            }
        }
        if slice::a_deadline_came_nearer(self) {
            return Next::Slice;
        }
        debug_assert!(irql::next_work(self, index).is_none(), "something waits at {lowest}");
        self.promise(lowest);
        Next::Nothing
    }

    /// Whether nothing can be waiting for the level that is set now, and the slice ends when it should.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        !self.ke.may_wait_at(self.level())
            && self.engine.now() < self.ke.armed_until
            && !slice::a_deadline_came_nearer(self)
    }

    /// Driver code runs on: what [`Kernel::settled`] published must be true.
    #[inline]
    pub(crate) fn check_settled(&self) {
        // What has become due at this very instruction ends the slice, before the next one.
        let due = || self.engine.now() >= self.ke.armed_until;
        debug_assert!(
            self.ke.waits_below >= waiting(self) || due(),
            "something that wants attention at {} was not said to be unsettled",
            waiting(self)
        );
        debug_assert!(
            self.engine.free_levels() >= self.ke.alone_from(),
            "driver code may go below {} by itself",
            self.ke.alone_from()
        );
        debug_assert!(
            !self.engine.allows_short_calls()
                || calls_are_free(self) && !self.ke.calls_are_told
                || self.engine.free_levels() == ASK_ALWAYS,
            "a reader wants every call, and it was not said to be unsettled"
        );
        debug_assert!(
            !self.engine.frees_calls() || calls_are_free(self),
            "the kernel must look at every call, and it was not said to be unsettled"
        );
        debug_assert!(
            !self.engine.allows_short_locks()
                || locks_are_free(self)
                || self.engine.free_levels() == ASK_ALWAYS,
            "a lock is held, and it was not said to be unsettled"
        );
    }
}

/// What the current processor is to do before anything else goes on.
pub(crate) enum Next {
    /// Nothing, and [`Kernel::settled`]'s work is done.
    Nothing,
    /// Nothing but to set the slice's end, if that has changed, and to call [`Kernel::settled`].
    Slice,
    /// This, and then to ask again.
    Work(Work),
}

impl State {
    /// Something has changed that the level of the current processor may hold back, or that forbids to lower it.
    #[inline]
    pub(crate) fn unsettled(&mut self) {
        self.waits_below = ASK_ALWAYS;
        self.engine.set_free_levels(ASK_ALWAYS);
        self.engine.free_calls(0);
    }

    /// As [`State::unsettled`], where it is known that levels from `level` on hold it back: no change above it needs the kernel.
    #[inline]
    pub(crate) fn waits_below(&mut self, level: u8) {
        self.waits_below = self.waits_below.max(level);
        self.forbids(level);
    }

    /// Whether anything may wait for a level to fall to `level`.
    #[inline]
    pub(crate) fn may_wait_at(&self, level: u8) -> bool {
        self.waits_below > level
    }

    /// Whether anything may wait at all.
    #[inline]
    pub(crate) fn may_wait(&self) -> bool {
        self.may_wait_at(PASSIVE_LEVEL)
    }

    /// From now on driver code may not go below this level by itself.
    #[inline]
    pub(crate) fn forbids(&mut self, level: u8) {
        if self.engine.free_levels() < level {
            self.engine.set_free_levels(level);
        }
    }

    /// One thing that forbade it is over; there may be more.
    #[inline]
    pub(crate) fn forbids_less(&mut self) {
        self.engine.set_free_levels(self.alone_from());
    }

    /// Down to which level driver code may go by itself.
    #[inline]
    fn alone_from(&self) -> u8 {
        self.waits_below.max(forbidden(self)).max(self.lowest_alone())
    }

    /// The same where nothing waits and nothing is forbidden.
    #[inline]
    fn lowest_alone(&self) -> u8 {
        if self.levels_are_told { ASK_ALWAYS } else { PASSIVE_LEVEL }
    }

    /// Sets whether a reader wants every change of level, and every call of an export or its end.
    pub(crate) fn are_told(&mut self, levels: bool, calls: bool) {
        (self.levels_are_told, self.calls_are_told) = (levels, calls);
        self.unsettled();
    }

    /// Whether a reader wants every change of level.
    #[inline]
    pub(crate) fn levels_are_told(&self) -> bool {
        self.levels_are_told
    }

    /// As [`State::unsettled`], and the end of the slice may be another.
    #[inline]
    pub(crate) fn rearm(&mut self) {
        self.rearm = true;
        self.unsettled();
    }
}

/// Below which level something waits: 0 if nothing does, [`ASK_ALWAYS`] if there is something to do at any.
pub(crate) fn waiting(k: &Kernel) -> u8 {
    if k.ke.rearm {
        return ASK_ALWAYS;
    }
    let index = k.ke.current;
    let processor = &k.ke.processors[index];
    let clock = held_clock(k);
    if !processor.interrupts_enabled {
        return clock;
    }
    if ipi::calls(k, index) {
        return IPI_LEVEL.max(clock);
    }
    let lines = highest_line(k, processor.mask()).max(clock);
    match below_dispatch(k, index) {
        Some((_, below)) if lines < DISPATCH_LEVEL => lines.max(below),
        _ => lines,
    }
}

/// Where the clock stands still, it goes on as soon as it may.
#[inline]
fn held_clock(k: &Kernel) -> u8 {
    if k.ke.current == 0 && clock::is_held(k) { CLOCK_LEVEL } else { PASSIVE_LEVEL }
}

/// What may happen below DISPATCH_LEVEL, and below which level it does.
#[inline]
fn below_dispatch(k: &Kernel, index: usize) -> Option<(Work, u8)> {
    if dpc::is_wanted(k, index) || timer::is_due(k, index) {
        Some((Work::Dispatch, DISPATCH_LEVEL))
    } else if scheduler::must_switch(k, index) {
        Some((Work::Switch, DISPATCH_LEVEL))
    } else {
        apc::is_pending(k, index).then_some((Work::Apc, APC_LEVEL))
    }
}

/// Below this the current processor must not go by itself, whatever waits.
#[inline]
fn forbidden(ke: &State) -> u8 {
    let processor = ke.processor();
    let floor = processor.floors.last().copied().unwrap_or(PASSIVE_LEVEL);
    let owns = ke.locks.count(processor.number) != 0;
    floor.max(if owns { DISPATCH_LEVEL } else { PASSIVE_LEVEL })
}

/// Whether the kernel has nothing to do before a call of an export, so that [`super::irql::short`] ones need not come here if no
/// reader wants them.
#[inline]
fn calls_are_free(k: &Kernel) -> bool {
    // A policy that gives defaults only needs no question. The flag is recomputed on every scheduler turn.
    let alone = k.ke.processors.len() == 1 && k.ke.ready.is_empty() || !k.engine.may_depart();
    alone && !k.ke.processor().wait_next && k.hal.combining.is_empty()
}

/// Whether a spin lock whose word is 0 is free, and may be taken with no moment to be witnessed: so that driver code
/// may take one by itself.
fn locks_are_free(k: &Kernel) -> bool {
    k.ke.locks.is_none_held() && !k.ke.is_witnessed
}

/// The highest level of a line or message that wants service by a processor of `mask`.
fn highest_line(k: &Kernel, mask: u64) -> u8 {
    k.ke.interrupts.highest(mask, PASSIVE_LEVEL).map_or(PASSIVE_LEVEL, irql_of_vector)
}

#[cfg(test)]
mod tests {
    use abi::DriverPtr;

    use super::*;
    use crate::cx::Cx;
    use crate::ke::rig::{self, machine, settle};
    use crate::ke::{spinlock, thread};
    use crate::mm::pool;

    /// The published free level, which must never be too low.
    fn promise(cx: &mut Cx<'_>) -> u8 {
        cx.nt().check_settled();
        cx.engine().free_levels()
    }

    #[test]
    fn a_level_falls_freely_until_something_waits_for_it() {
        machine(|cx| {
            rig::spawn(cx, "caller", |cx| {
                let memory: DriverPtr<u64> =
                    pool::allocate(cx, pool::Kind::NonPaged, 256, pool::tag(b"Test"))?;
                irql::settle(cx)?;
                assert_eq!(promise(cx), 0, "nothing waits");

                irql::raise(cx, 2)?;
                spinlock::acquire_at_dispatch(cx, memory)?;
                assert_eq!(promise(cx), 2, "a lock is held");
                spinlock::release_from_dispatch(cx, memory)?;

                let object = DriverPtr::new(memory.address + 64);
                dpc::initialize(cx, object, 0x1000, 0)?;
                dpc::insert(cx, object, DriverPtr::NULL, DriverPtr::NULL)?;
                assert_eq!(promise(cx), 2, "a DPC waits");
                dpc::remove(cx, object)?;
                cx.with(|k| k.ke.processor_mut().dispatch_requested = false);

                let better = thread::spawn(cx, "better", Box::new(|_| Ok(())))?;
                cx.with(|k| assert!(k.ke.ready.remove(better)));
                cx.with(|k| {
                    k.ke.threads.get_mut(better).unwrap().base_priority = 15;
                    scheduler::make_ready(k, better);
                });
                irql::settle(cx)?;
                assert_eq!(promise(cx), 2, "a better thread waits");
                irql::lower(cx, 0)?;
                assert_eq!(promise(cx), 0);

                cx.with(|k| k.ke.push_floor(5));
                irql::settle(cx)?;
                assert_eq!(promise(cx), 5, "a routine that must not go below 5");
                cx.with(|k| k.ke.pop_floor());
                Ok(())
            });
            assert_eq!(settle(cx), crate::ke::scheduler::End::Quiet, "{}", rig::message(cx));
        });
    }

    #[test]
    fn who_reads_every_change_of_level_is_asked_about_each() {
        machine(|cx| {
            let trace = rig::Trace::of(cx);
            rig::spawn(cx, "caller", |cx| {
                irql::settle(cx)?;
                assert_eq!(promise(cx), ASK_ALWAYS);
                Ok(())
            });
            assert_eq!(settle(cx), crate::ke::scheduler::End::Quiet);
            drop(trace);
        });
    }
}
