//! What waits for the level of the current processor, in all rooms: interrupts above it, then below DISPATCH_LEVEL due timers and
//! DPCs, then another thread, then below APC_LEVEL what the thread itself is to do. Follows *Managing Hardware Priorities*.
//!
//! This is the one file of this room that names rooms above it: it asks each what waits there, publishes the answer
//! ([`Kernel::publish_levels`]) and lets it in ([`let_in`]).

use engine::{Flow, StrandId};

use super::irql::{APC_LEVEL, CLOCK_LEVEL, DISPATCH_LEVEL, IPI_LEVEL, PASSIVE_LEVEL};
use super::level::{ASK_ALWAYS, current_floor};
use crate::cx::{Cx, Kernel};
use crate::hal;
use crate::ke::irq::message::InARow;
use crate::ke::irq::{dpc, dpc_drain, interrupt_delivery, ipi};
use crate::ke::sched::{budget, history, scheduler, slice, taker};
use crate::ke::timing::clock;
use crate::ke::waits::apc;

/// What the export path asks.
pub(crate) struct Gate {
    /// The level now.
    pub(crate) irql: u8,
    /// The thread has said that it waits next.
    pub(crate) waits_next: bool,
    /// Another thread may be able to go on in its place, if the policy wants it.
    pub(crate) others: bool,
    /// Its use of the budget must be looked at.
    pub(crate) look: bool,
}

/// What waits for the level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Another processor's interrupt, for a routine that runs on all.
    Ipi,
    /// The interrupt of this vector.
    Interrupt(u32),
    /// Due timers or DPCs.
    Dispatch,
    /// Another thread has the better claim to the processor.
    Switch,
    /// What the thread itself is to do first.
    Apc,
}

impl Work {
    /// Whether any processor could take it: a line's interrupt, or what the clock may have found.
    pub(in crate::ke) const fn comes_by_itself(self) -> bool {
        matches!(self, Self::Interrupt(_) | Self::Dispatch)
    }

    /// As one number.
    fn number(self) -> u64 {
        match self {
            Self::Ipi => 1,
            Self::Interrupt(vector) => 2 | u64::from(vector) << 8,
            Self::Dispatch => 3,
            Self::Switch => 4,
            Self::Apc => 5,
        }
    }
}

/// What the current processor is to do before anything else goes on.
pub(crate) enum Next {
    /// Nothing, and [`Kernel::publish_levels`]'s work is done.
    Nothing,
    /// Nothing but to set the slice's end, if that has changed, and to call [`Kernel::publish_levels`].
    Slice,
    /// This, and then to ask again.
    Work(Work),
}

#[inline]
pub(crate) fn at_gate(cx: &mut Cx<'_>) -> Gate {
    cx.with(|k| Gate {
        look: budget::is_look_due(k),
        irql: k.level(),
        waits_next: k.ke.processor().wait_next,
        others: k.engine.may_depart() && !scheduler::is_alone(k),
    })
}

impl Kernel {
    /// Everything that waited has been let in: publishes down to which level driver code may go on this processor, until
    /// [`crate::ke::State::invalidate_levels`] is called, without letting anything in, breaking a rule or missing an event.
    #[inline]
    pub(crate) fn publish_levels(&mut self) {
        if !self.is_all_published() {
            self.publish(waiting(self));
        }
    }

    /// Whether the lowest level and all calls are published already.
    #[inline]
    fn is_all_published(&self) -> bool {
        self.ke.levels.pending_below == PASSIVE_LEVEL && self.engine.free_levels() == self.ke.lowest_free()
    }

    /// As [`Kernel::publish_levels`], where [`next_work`] has just found nothing that the level lets in.
    #[inline]
    pub(in crate::ke) fn publish_as_nothing_waits(&mut self) {
        // At PASSIVE_LEVEL that is all there is.
        let all = self.level() == PASSIVE_LEVEL && self.ke.processor().interrupts_enabled;
        if !all {
            self.publish_levels();
        } else if !self.is_all_published() {
            self.publish(if self.ke.levels.rearm { ASK_ALWAYS } else { held_clock(self) });
        }
    }

    /// Publishes that nothing waits for a level below `level`.
    #[inline]
    fn publish(&mut self, level: u8) {
        self.ke.levels.pending_below = level;
        self.ke.publish_floor();
        let until = if calls_are_free(self) { budget::calls_until_look(self) } else { 0 };
        self.engine.free_calls(until);
        self.engine.allow_short_calls(if self.ke.levels.calls_are_read { 0 } else { until });
        self.engine.allow_short_locks(locks_are_free(self));
    }

    /// A lock was given back.
    #[inline]
    pub(in crate::ke) fn publish_free_lock(&mut self) {
        self.ke.publish_floor();
        self.engine.allow_short_locks(locks_are_free(self));
    }

    /// What the current processor is to do now. If that is nothing, does what [`Kernel::publish_levels`] does: one look answers both.
    pub(crate) fn next(&mut self) -> Next {
        let (index, level) = (self.ke.current, self.level());
        if self.ke.levels.rearm {
            return next_work(self, index).map_or(Next::Slice, Next::Work);
        }
        match find(self, index, level, current_floor(&self.ke)) {
            Found::Work(work) => Next::Work(work),
            Found::Below(_) if slice::a_deadline_came_nearer(self) => Next::Slice,
            Found::Below(below) => {
                self.publish(below);
                Next::Nothing
            }
        }
    }

    /// Whether nothing can be waiting for the level that is set now, and the slice ends when it should.
    #[inline]
    pub(crate) fn is_nothing_pending(&self) -> bool {
        !self.ke.may_pend_at(self.level())
            && self.engine.now() < self.ke.sched.slice_end()
            && !slice::a_deadline_came_nearer(self)
    }

    /// Driver code runs on: what [`Kernel::publish_levels`] published must be true.
    #[inline]
    pub(crate) fn check_published(&self) {
        // What has become due at this very instruction ends the slice, before the next one.
        let due = || self.engine.now() >= self.ke.sched.slice_end();
        debug_assert!(
            self.ke.levels.pending_below >= waiting(self) || due(),
            "something waits below {}, and the free levels were not raised",
            waiting(self)
        );
        debug_assert!(
            self.engine.free_levels() >= self.ke.free_from(),
            "driver code may go below {} by itself",
            self.ke.free_from()
        );
        debug_assert!(
            !self.engine.allows_short_calls()
                || calls_are_free(self) && !self.ke.levels.calls_are_read
                || self.engine.free_levels() == ASK_ALWAYS,
            "a reader wants every call, and the free levels were not invalidated"
        );
        debug_assert!(
            !self.engine.frees_calls() || calls_are_free(self),
            "the kernel must look at every call, and the free levels were not invalidated"
        );
        debug_assert!(
            !self.engine.allows_short_locks()
                || locks_are_free(self)
                || self.engine.free_levels() == ASK_ALWAYS,
            "a lock is held, and the free levels were not invalidated"
        );
    }
}

/// What waits for a processor.
enum Found {
    /// The first thing that its level lets in.
    Work(Work),
    /// Its level lets in nothing. Below this one something waits; [`PASSIVE_LEVEL`]: nothing does.
    Below(u8),
}

/// What waits for processor `index` at this level, in the order in which it is let in. What waits below DISPATCH_LEVEL is not looked for
/// where the level is not below it and cannot go there from here, for `floor` is not below it either: then something may wait there.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the one look of each return to driver code")]
fn find(k: &Kernel, index: usize, level: u8, floor: u8) -> Found {
    let mut lowest = held_clock(k);
    let processor = &k.ke.processors[index];
    if !processor.interrupts_enabled {
        return Found::Below(lowest);
    }
    if ipi::calls(k, index) {
        if level < IPI_LEVEL {
            return Found::Work(Work::Ipi);
        }
        lowest = lowest.max(IPI_LEVEL);
    }
    if k.ke.irq.is_any_wanted() {
        let mask = processor.mask();
        if let Some(vector) = k.ke.irq.highest(mask, level) {
            return Found::Work(Work::Interrupt(vector));
        }
        lowest = lowest.max(highest_line(k, mask));
    }
    if level >= DISPATCH_LEVEL && floor >= DISPATCH_LEVEL {
        return Found::Below(lowest.max(DISPATCH_LEVEL));
    }
    if lowest.min(level) < DISPATCH_LEVEL
        && let Some((work, below)) = below_dispatch(k, index)
    {
        if level < below {
            return Found::Work(work);
        }
        lowest = lowest.max(below);
    }
    Found::Below(lowest)
}

/// What processor `index` must do before anything else goes on, if anything.
#[inline]
pub(in crate::ke) fn next_work(k: &Kernel, index: usize) -> Option<Work> {
    match find(k, index, k.level_of(index), DISPATCH_LEVEL) {
        Found::Work(work) => Some(work),
        Found::Below(_) => None,
    }
}

/// Below which level something waits for the current processor: [`PASSIVE_LEVEL`] if nothing does, [`ASK_ALWAYS`] if there is something to
/// do at any.
pub(crate) fn waiting(k: &Kernel) -> u8 {
    if k.ke.levels.rearm {
        return ASK_ALWAYS;
    }
    match find(k, k.ke.current, ASK_ALWAYS, PASSIVE_LEVEL) {
        Found::Below(level) => level,
        Found::Work(work) => unreachable!("no level is above the highest, and lets {work:?} in"),
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
    if dpc::is_wanted(k, index) || is_time_due(k, index) {
        Some((Work::Dispatch, DISPATCH_LEVEL))
    } else if scheduler::must_switch(k, index) {
        Some((Work::Switch, DISPATCH_LEVEL))
    } else {
        apc::is_pending(k, index).then_some((Work::Apc, APC_LEVEL))
    }
}

/// Whether the kernel has nothing to do before a call of an export, so that [`super::irql::short`] ones need not come here if no
/// reader wants them.
#[inline]
fn calls_are_free(k: &Kernel) -> bool {
    // A policy that gives defaults only needs no question. The flag is recomputed on every scheduler turn.
    // What may become due between two calls, by an access to a device, is asked about before each.
    !k.engine.may_depart()
        && !k.ke.processor().wait_next
        && k.hal.combining.is_empty()
        && !k.hal.platform.late_stores
}

/// Whether a spin lock whose word is 0 is free, and may be taken with no moment to be witnessed: so that driver code
/// may take one by itself.
fn locks_are_free(k: &Kernel) -> bool {
    k.ke.levels.locks.is_none_held() && !k.ke.levels.is_witnessed
}

/// Whether the clock has found something due on processor `index`.
#[inline]
fn is_time_due(k: &Kernel, index: usize) -> bool {
    k.ke.timing.timers().is_due(k.engine.now(), index)
}

/// The highest level of a line or message that wants service by a processor of `mask`.
fn highest_line(k: &Kernel, mask: u64) -> u8 {
    k.ke.irq.highest_level(mask)
}

/// As [`super::irql::settle`], where something may wait.
pub(super) fn let_in(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.engine().strand() == StrandId(0) {
        return Ok(());
    }
    let mut next = cx.with(|k| {
        if clock::is_held(k) {
            clock::look(k);
        }
        k.next()
    });
    let mut row = InARow::default();
    loop {
        match next {
            Next::Nothing => return Ok(()),
            Next::Slice => break,
            Next::Work(work) => {
                if taker::is_taken(cx, work)? {
                    next = cx.with(Kernel::next);
                    continue;
                }
                // An interrupt empties the processor's buffers.
                hal::empty_buffers(cx)?;
                if work != Work::Switch {
                    history::takes(cx, work.number());
                }
                match work {
                    Work::Ipi => ipi::service(cx)?,
                    Work::Interrupt(vector) => {
                        interrupt_delivery::service(cx, vector)?;
                        if let Some(storm) = cx.with(|k| row.count(k, vector)) {
                            return Err(cx.stop(storm));
                        }
                    }
                    Work::Dispatch => dpc_drain::dispatch(cx)?,
                    Work::Switch => scheduler::give_way(cx)?,
                    Work::Apc => apc::deliver(cx)?,
                }
            }
        }
        next = cx.with(Kernel::next);
    }
    slice::tighten(cx);
    cx.with(Kernel::publish_as_nothing_waits);
    Ok(())
}

#[cfg(test)]
mod tests {
    use abi::DriverPtr;

    use super::*;
    use crate::cx::Cx;
    use crate::ke::levels::irql;
    use crate::ke::rig::{self, machine, settle};
    use crate::ke::sched::spinlock;
    use crate::ke::waits::thread;
    use crate::mm::pool;

    /// The published free level, which must never be too low.
    fn publish(cx: &mut Cx<'_>) -> u8 {
        cx.nt().check_published();
        cx.engine().free_levels()
    }

    #[test]
    fn a_level_falls_freely_until_something_waits_for_it() {
        machine(|cx| {
            rig::spawn(cx, "caller", |cx| {
                let memory: DriverPtr<u64> =
                    pool::allocate(cx, pool::Kind::NonPaged, 256, pool::tag(b"Test"))?;
                irql::settle(cx)?;
                assert_eq!(publish(cx), 0, "nothing waits");

                irql::raise(cx, 2)?;
                spinlock::acquire_at_dispatch(cx, memory)?;
                assert_eq!(publish(cx), 2, "a lock is held");
                spinlock::release_from_dispatch(cx, memory)?;

                let object = DriverPtr::new(memory.address + 64);
                dpc::initialize(cx, object, 0x1000, 0)?;
                dpc::insert(cx, object, DriverPtr::NULL, DriverPtr::NULL)?;
                assert_eq!(publish(cx), 2, "a DPC waits");
                dpc::remove(cx, object)?;
                cx.with(|k| k.ke.processor_mut().dispatch_requested = false);

                let better = thread::spawn(cx, "better", Box::new(|_| Ok(())))?;
                cx.with(|k| assert!(k.ke.sched.take_from_ready(better)));
                cx.with(|k| {
                    k.ke.sched.threads_mut().get_mut(better).unwrap().base_priority = 15;
                    scheduler::make_ready(k, better);
                });
                irql::settle(cx)?;
                assert_eq!(publish(cx), 2, "a better thread waits");
                irql::lower(cx, 0)?;
                assert_eq!(publish(cx), 0);

                cx.with(|k| k.ke.push_floor(5));
                irql::settle(cx)?;
                assert_eq!(publish(cx), 5, "a routine that must not go below 5");
                cx.with(|k| k.ke.pop_floor());
                Ok(())
            });
            assert_eq!(settle(cx), crate::ke::sched::scheduler::End::Quiet, "{}", rig::message(cx));
        });
    }

    #[test]
    fn who_reads_every_change_of_level_is_asked_about_each() {
        machine(|cx| {
            let trace = rig::Trace::of(cx);
            rig::spawn(cx, "caller", |cx| {
                irql::settle(cx)?;
                assert_eq!(publish(cx), ASK_ALWAYS);
                Ok(())
            });
            assert_eq!(settle(cx), crate::ke::sched::scheduler::End::Quiet);
            drop(trace);
        });
    }
}
