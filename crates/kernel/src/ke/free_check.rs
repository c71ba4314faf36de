//! What the kernel still uses in memory that is about to be freed. Follows *Bug Check 0xC7 TIMER_OR_DPC_INVALID*,
//! *Bug Check 0xC4* (15, 100B).
//!
//! What still calls a driver that is unloaded is the I/O manager's to ask.

use abi::DriverPtr;

use super::irq::dpc;
use super::sched::spinlock;
use super::waits::{dispatcher, timer};
use crate::cx::Kernel;
use crate::ex;
use crate::verdict::Verdict;

/// Whether the kernel uses nothing of the kind wherever it may lie: mostly so, and asked for little.
#[inline]
pub(crate) fn is_nothing_anywhere(k: &Kernel) -> bool {
    k.ke.timing.timers().is_none_set()
        && k.ke.irq.is_nothing_queued()
        && k.ke.levels.locks().is_none_held()
        && ex::is_nothing_in_use(k)
        && k.ke.waits.is_no_thread_waiting()
        && k.ke.lock_order.is_empty()
}

/// Whether the kernel still uses something there, of which [`in_memory`] says what, or is to forget a lock.
pub(crate) fn is_any_in(k: &Kernel, base: u64, length: u64) -> bool {
    timer::set_in(k, base, length).is_some()
        || dpc::queued_in(k, base, length).is_some()
        || spinlock::held_in(k, base, length).is_some()
        || ex::in_use(k, base, length).is_some()
        || dispatcher::waited_for_in(k, base, length).is_some()
        || k.ke.lock_order.knows_any_in(base, length)
}

/// Memory is freed in which locks are held that only Driver Verifier asks for: they are held no longer.
pub(crate) fn forget_locks(k: &mut Kernel, base: u64, length: u64) {
    k.ke.levels.locks_mut().forget(base, length);
    let own: Vec<u64> = k.ex.push_locks.range(base..base.saturating_add(length)).map(|(at, _)| *at).collect();
    own.iter().for_each(|at| drop(k.ex.push_locks.remove(at)));
}

/// The verdict on freeing `base..base+length` now, if the kernel still uses something there.
#[must_use]
pub(crate) fn in_memory(k: &Kernel, base: u64, length: u64) -> Option<Verdict> {
    if !is_any_in(k, base, length) {
        return None;
    }
    let freed = |rule, what: String, code: u32, parameters| {
        let message = format!("the driver frees the {length} bytes at {base:#x}, and {what}");
        Verdict::error(rule, message).bug_check(code, parameters)
    };
    if let Some(at) = timer::set_in(k, base, length) {
        let what = format!("timer {at:#x} in it is set");
        let verdict = freed("freed-active-timer", what, 0xC7, [0, at, base, length]);
        return Some(verdict.related_if("set", k.ke.timing.timers().set_at(at)));
    }
    if let Some(at) = dpc::queued_in(k, base, length) {
        let what = format!("DPC {at:#x} in it is queued");
        let verdict = freed("freed-queued-dpc", what, 0xC7, [1, at, base, length]);
        return Some(verdict.related_if("queued", dpc::queued_at(k, at)));
    }
    if let Some(at) = spinlock::held_in(k, base, length) {
        let verdict =
            freed("freed-held-lock", format!("spin lock {at:#x} in it is held"), 0xC4, [0x100B, at, 0, 0]);
        let own = k.ke.processor().number;
        let is_own = k.ke.levels.locks().holders(at).all(|held| held.processor == own)
            && !k.ke.levels.locks().is_wanted(at);
        // A spin lock is a word: the driver that frees its own may have no more use for it, and Windows does not notice. Another
        // processor releases it, which writes to what is freed.
        let verdict = if is_own { verdict.as_verifier() } else { verdict };
        return Some(verdict.of_lock(k.ke.levels.locks().holder(at)));
    }
    if let Some(ex::InUse { at, what, acquired, is_own }) = ex::in_use(k, base, length) {
        let what = format!("{what} {at:#x} in it is in use");
        let verdict = freed("freed-held-lock", what, 0xC4, [0x100B, at, 0, 0]).acquired(acquired);
        return Some(if is_own { verdict.as_verifier() } else { verdict });
    }
    let at = dispatcher::waited_for_in(k, base, length)?;
    let what = format!("a thread waits for the {}", dispatcher::describe(k, DriverPtr::new(at)));
    Some(freed("freed-while-waited-for", what, 0xC4, [0x16, base, length, at]))
}
