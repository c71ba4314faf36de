//! The level of each processor, and how low the current one may go without anybody being asked. Follows *Managing
//! Hardware Priorities*.
//!
//! The current processor's level is the engine's, because driver code may change it by itself (see [`engine::Engine::set_free_levels`]);
//! the others' are in their records. [`Kernel::level`] and [`Kernel::set_level`] are the only ones that touch either. What a change of level lets in is
//! `irql`'s.

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

    /// Changes the level of processor `index`, also for drivers that read it in the control region. Tells nobody and lets
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

    /// Everything that waited has been let in: down to which level the processor that runs now may go, from now on and until
    /// somebody says [`State::unsettled`], without letting anything in, breaking a rule or being told about.
    #[inline]
    pub(crate) fn settled(&mut self) {
        if self.engine.free_levels() != PASSIVE_LEVEL {
            self.promise(attention(self));
        }
    }

    /// As [`Kernel::settled`], where [`super::irql::next_work`] has just found nothing that the level lets in.
    #[inline]
    pub(crate) fn settled_as_nothing_waits(&mut self) {
        // At PASSIVE_LEVEL that is all there is.
        let all = self.level() == PASSIVE_LEVEL && self.ke.processor().interrupts_enabled;
        if !all {
            self.settled();
        } else if self.engine.free_levels() != PASSIVE_LEVEL {
            self.promise(if matters_always(self) { ASK_ALWAYS } else { forbidden(self) });
        }
    }

    #[inline]
    fn promise(&mut self, level: u8) {
        self.ke.nothing_came = false;
        self.engine.set_free_levels(level);
        let until = if calls_are_free(self) { budget::calls_until_look(self) } else { 0 };
        self.engine.allow_short_calls(until);
        self.engine.allow_short_locks(locks_are_free(self));
    }

    /// What the current processor is to do now. If that is nothing, what is said by [`Kernel::settled`] is said: one look at what waits
    /// answers both, as [`super::irql::next_work`] and [`attention`] would.
    pub(crate) fn next(&mut self) -> Next {
        let (index, level) = (self.ke.current, self.level());
        if self.ke.rearm {
            return irql::next_work(self, index).map_or(Next::Slice, Next::Work);
        }
        let mut lowest = forbidden(self);
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
        self.promise(if self.ke.levels_are_told { ASK_ALWAYS } else { lowest });
        Next::Nothing
    }

    /// Nothing waits, and what runs from here on may make it. The answer is for [`Kernel::is_settled_as_before`].
    #[inline]
    pub(crate) fn note_settled(&mut self) -> u8 {
        self.ke.nothing_came = true;
        self.engine.free_levels()
    }

    /// What ran is over, and the level is what it was: what was promised before holds, if nothing has come since. Whether nothing waits.
    #[inline]
    pub(crate) fn is_settled_as_before(&mut self, promised: u8) -> bool {
        if std::mem::take(&mut self.ke.nothing_came) {
            self.engine.set_free_levels(promised);
        }
        self.is_settled()
    }

    /// Whether nothing can be waiting for the level that is set now, and the slice ends when it should.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.engine.free_levels() <= self.level()
            && self.engine.now() < self.ke.armed_until
            && !slice::a_deadline_came_nearer(self)
    }

    /// Driver code runs on: what was promised by [`Kernel::settled`] must be true.
    #[inline]
    pub(crate) fn check_settled(&self) {
        // What has become due at this very instruction ends the slice, before the next one.
        let due = || self.engine.now() >= self.ke.armed_until;
        debug_assert!(
            self.engine.free_levels() >= attention(self) || due(),
            "something that wants attention at {} was not said to be unsettled",
            attention(self)
        );
        debug_assert!(
            !self.engine.allows_short_calls()
                || calls_are_free(self)
                || self.engine.free_levels() == ASK_ALWAYS,
            "somebody must hear of calls, and it was not said to be unsettled"
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
    /// Nothing, and all is said.
    Nothing,
    /// Nothing but to set the slice's end, if that is another, and to say [`Kernel::settled`].
    Slice,
    /// This, and then to ask again.
    Work(Work),
}

impl State {
    /// Something has changed that the level of the current processor may hold back, or that forbids to lower it.
    #[inline]
    pub(crate) fn unsettled(&mut self) {
        self.nothing_came = false;
        self.engine.set_free_levels(ASK_ALWAYS);
    }

    /// As [`State::unsettled`], where it is known that levels from `level` on hold it back: who stays there has nothing to ask. What was
    /// promised is the summary of all that waits, and whoever makes something wait adds to it.
    #[inline]
    pub(crate) fn waits_below(&mut self, level: u8) {
        self.nothing_came = false;
        self.holds_back(level);
    }

    /// Until the next look, or until it is over, nobody may go below this level.
    #[inline]
    pub(crate) fn holds_back(&mut self, level: u8) {
        if self.engine.free_levels() < level {
            self.engine.set_free_levels(level);
        }
    }

    /// Whether somebody reads every change of level, and every call of an export or its end.
    pub(crate) fn are_told(&mut self, levels: bool, calls: bool) {
        (self.levels_are_told, self.calls_are_told) = (levels, calls);
        self.unsettled();
    }

    /// Whether somebody reads every change of level.
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

/// The lowest level that the current processor may go to with nothing let in, no rule broken and nobody told: 0 if nothing
/// is pending, [`ASK_ALWAYS`] if every change of level matters to somebody.
pub(crate) fn attention(k: &Kernel) -> u8 {
    if matters_always(k) {
        return ASK_ALWAYS;
    }
    let index = k.ke.current;
    let processor = &k.ke.processors[index];
    let own = forbidden(k);
    if !processor.interrupts_enabled {
        return own;
    }
    if ipi::calls(k, index) {
        return IPI_LEVEL.max(own);
    }
    let lines = highest_line(k, processor.mask()).max(own);
    match below_dispatch(k, index) {
        Some((_, below)) if lines < DISPATCH_LEVEL => lines.max(below),
        _ => lines,
    }
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

/// Whether every change of level must be asked about.
#[inline]
fn matters_always(k: &Kernel) -> bool {
    k.ke.levels_are_told || k.ke.rearm
}

/// Below this the current processor must not go by itself, whatever is pending.
#[inline]
fn forbidden(k: &Kernel) -> u8 {
    let processor = k.ke.processor();
    let floor = processor.floors.last().copied().unwrap_or(PASSIVE_LEVEL);
    let owns = k.ke.locks.count(processor.number) != 0;
    let own = floor.max(if owns { DISPATCH_LEVEL } else { PASSIVE_LEVEL });
    // Where the clock stands still, it goes on as soon as it may.
    if k.ke.current == 0 && clock::is_held(k) { own.max(CLOCK_LEVEL) } else { own }
}

/// Whether a call of an export is neither told nor a question, so that [`super::irql::short`] ones need not come here.
#[inline]
fn calls_are_free(k: &Kernel) -> bool {
    // Who asks nobody is as good as alone; and a promise is made anew at each turn, so who asks later finds none that forgets it.
    let alone = k.ke.processors.len() == 1 && k.ke.ready.is_empty() || !k.engine.may_depart();
    alone && !k.ke.calls_are_told && !k.ke.processor().wait_next
}

/// Whether a spin lock is held by nobody if its word is 0, and may be taken with no moment to be witnessed: so that driver code
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

    /// What was promised, which must never be less than the truth.
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
