//! Calls of a driver's routines: told as events, and checked for what they must leave as they found it. Follows the
//! pages of the callback routines (*KDEFERRED_ROUTINE*, *KSERVICE_ROUTINE*, *DRIVER_DISPATCH*, …).
//!
//! What a routine is called with, and what its result means, is its caller's business.

use abi::{Code, DriverPtr};
use engine::{Flow, LeftBehind};

use super::processor::Processor;
use super::thread::{Account, Thread};
use super::{fault, stack};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::verdict::{Tier, Verdict};
use crate::{io, ldr};

/// A routine of a driver that is to be called, or is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Callout {
    /// What kind of routine: `DispatchWrite`, `StartIo`, `Isr`, …
    pub(crate) role: &'static str,
    /// Its address.
    pub(crate) routine: DriverPtr<Code>,
    /// The object it is called for; 0 if none.
    pub(crate) object: u64,
    /// The level below which it must not go.
    pub(crate) floor: u8,
}

/// What a routine must leave as it found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kept {
    irql: u8,
    spin_locks: usize,
    apc_disable: i32,
    interrupts: bool,
    extended: usize,
}

impl Kept {
    /// How it is now; `change` is done to the thread on the way.
    #[inline]
    fn now(k: &mut Kernel, change: impl FnOnce(&mut Thread)) -> Self {
        let irql = k.level();
        let Processor { number, thread, interrupts_enabled: interrupts, .. } = *k.ke.processor();
        let spin_locks = k.ke.locks.count(number);
        let (mut apc_disable, mut extended) = (0, 0);
        if let Some(thread) = k.ke.threads.get_mut(thread) {
            change(thread);
            (apc_disable, extended) =
                (thread.apc_disable + thread.special_apc_disable, thread.extended.len());
        }
        Self { irql, spin_locks, apc_disable, interrupts, extended }
    }
}

/// Calls a routine of a driver in the context of its caller: dispatch routines, StartIo, completion routines, …
///
/// # Errors
/// A verdict if the routine is null, or comes back with another IRQL, with a spin lock, in another number of critical
/// regions or with interrupts disabled; [`engine::Leave`] if it does not come back.
pub fn call_routine(
    cx: &mut Cx<'_>,
    role: &'static str,
    routine: DriverPtr<Code>,
    object: u64,
    arguments: &[u64],
) -> Flow<u64> {
    let call = Callout { role, routine, object, floor: 0 };
    checked(cx, call, arguments, true)
}

/// As [`call_routine`], for routines that interrupt a thread and do not belong to it: what they run is not on its
/// account, and they must not lower the level they are called at.
pub(crate) fn asynchronous(cx: &mut Cx<'_>, call: &Callout, arguments: &[u64]) -> Flow<u64> {
    let (now, depth) = (cx.engine().now(), cx.engine().depth());
    let interrupted = cx.with(|k| {
        k.ke.account(now);
        let processor = k.ke.processor_mut();
        if processor.floors.is_empty() {
            processor.raised_since = now;
        }
        processor.interrupted.push(depth);
        k.ke.push_floor(call.floor);
        match k.ke.thread_mut() {
            Some(thread) => (std::mem::take(&mut thread.account), std::mem::take(&mut thread.extended)),
            None => (Account::default(), Vec::new()),
        }
    });
    let (account, extended) = interrupted;
    let result = checked(cx, *call, arguments, false);
    let now = cx.engine().now();
    cx.with(|k| {
        k.ke.account(now);
        k.ke.pop_floor();
        k.ke.processor_mut().interrupted.pop();
        k.ke.change_thread(|thread| (thread.account, thread.extended) = (account, extended));
    });
    result
}

/// `belongs`: it is its caller's, with the caller's floor; the outermost one of a thread begins with an empty account.
#[inline]
fn checked(cx: &mut Cx<'_>, mut call: Callout, arguments: &[u64], belongs: bool) -> Flow<u64> {
    if call.routine.is_null() {
        return Err(null_routine(cx, &call));
    }
    let Callout { role, routine, object, .. } = call;
    if let Some(result) = io::routine::own(cx, routine, arguments) {
        return result;
    }
    if cx.happens(Kind::Enter) {
        cx.emit(Event::Enter { role, routine: routine.address, object });
    }
    let depth = cx.engine().depth();
    let (before, stack) = cx.with(|k| {
        k.ke.progress += 1;
        if belongs {
            call.floor = k.ke.processor().floors.last().copied().unwrap_or(0);
        }
        // Field by field: it was just made field by field, and a wider load would wait for those stores.
        let call = Callout { role, routine, object, floor: call.floor };
        let before = Kept::now(k, |thread| {
            if belongs && thread.callouts.is_empty() {
                thread.account = Account::default();
            }
            thread.callouts.push(call);
        });
        (before, stack::for_call(k, depth))
    });
    let result = cx.call_on(routine, arguments, stack);
    let left = cx.engine().left_behind();
    let after = cx.with(|k| {
        Kept::now(k, |thread| {
            thread.callouts.pop();
        })
    });
    let value = result?;
    if cx.happens(Kind::Leave) {
        cx.emit(Event::Leave { role, routine: routine.address, value });
    }
    if before == after && !is_convention_broken(left) {
        return Ok(value);
    }
    judge(cx, &call, before, after, left).map(|()| value)
}

/// What is to be said about a routine that did not leave all as it was, or left the processor in another state.
#[cold]
fn judge(cx: &mut Cx<'_>, call: &Callout, before: Kept, after: Kept, left: LeftBehind) -> Flow<()> {
    let Callout { role, routine, .. } = *call;
    let verdict = broken(call, before, after).or_else(|| convention_broken(left));
    let Some(verdict) = verdict else { return Ok(()) };
    let who = ldr::symbols::describe(cx, routine.address);
    let mut verdict = Verdict { message: format!("{role} routine {who} {}", verdict.message), ..verdict };
    if verdict.rule == "spin-lock-held-on-return" {
        verdict = verdict.of_lock(cx.with(|k| k.ke.locks.last_of(k.ke.processor().number)));
    }
    if verdict.tier == Tier::Error {
        return Err(cx.stop(verdict));
    }
    cx.report(verdict);
    Ok(())
}

#[cold]
fn null_routine(cx: &mut Cx<'_>, call: &Callout) -> engine::Leave {
    let message = format!("the driver's {} routine is to be called, and it is null", call.role);
    let verdict = Verdict::error("null-routine", message);
    let check = fault::null_call(cx);
    cx.stop(verdict.bug_check(check.code, check.parameters))
}

/// The bits of MXCSR that are a caller's: all but the status flags.
const MXCSR_CONTROL: u32 = 0xFFC0;

/// Whether [`convention_broken`] has anything to say.
#[inline]
fn is_convention_broken(left: LeftBehind) -> bool {
    left.direction || left.mxcsr & MXCSR_CONTROL != LeftBehind::default().mxcsr & MXCSR_CONTROL
}

/// What the calling convention has a routine keep, and code that runs next would stumble over (page *x64 calling
/// convention*); the message lacks its subject.
fn convention_broken(left: LeftBehind) -> Option<Verdict> {
    if left.direction {
        let message =
            "returned with the direction flag set: the kernel's next string instruction goes backwards";
        return Some(Verdict::error("direction-flag-set-on-return", message.to_owned()));
    }
    let control = left.mxcsr & MXCSR_CONTROL;
    if control == LeftBehind::default().mxcsr & MXCSR_CONTROL {
        return None;
    }
    let message = format!(
        "returned with MXCSR {:#x}: rounding, exceptions or denormals are another's now (it was 0x1f80)",
        left.mxcsr
    );
    Some(Verdict { tier: Tier::Warning, ..Verdict::error("mxcsr-changed-on-return", message) })
}

/// What a routine did not leave as it found it; the message lacks its subject.
fn broken(call: &Callout, before: Kept, after: Kept) -> Option<Verdict> {
    let Callout { role, routine, .. } = *call;
    let dispatch = role.starts_with("Dispatch");
    if after.spin_locks > before.spin_locks {
        let message = format!(
            "returned with {} more spin lock(s) held than it was called with",
            after.spin_locks - before.spin_locks
        );
        return Some(
            Verdict::error("spin-lock-held-on-return", message)
                .bug_check(0xC4, [0x4_0009, routine.address, 0, 0]),
        );
    }
    if after.irql != before.irql {
        let message = format!("was called at IRQL {} and returned at {}", before.irql, after.irql);
        let (was, is) = (u64::from(before.irql), u64::from(after.irql));
        let verdict = Verdict::error("irql-changed-by-routine", message);
        return Some(match role {
            _ if dispatch => verdict.bug_check(0xC9, [5, routine.address, was, is]),
            "IoCompletion" => verdict.bug_check(0xC4, [0xFA, routine.address, was, is]),
            "Isr" => verdict.bug_check(0xC4, [0x111, routine.address, was, is]),
            _ => verdict.bug_check(0xC8, [is << 16 | was << 8 | 2, routine.address, 0, 0]),
        });
    }
    if after.interrupts != before.interrupts {
        let state = if after.interrupts { "enabled" } else { "disabled" };
        let verdict =
            Verdict::error("interrupt-flag-changed-by-routine", format!("returned with interrupts {state}"));
        return Some(if dispatch { verdict.bug_check(0xC4, [0xC1, routine.address, 0, 0]) } else { verdict });
    }
    if after.extended > before.extended {
        let message = "returned without KeRestoreExtendedProcessorState after KeSaveExtendedProcessorState";
        return Some(Verdict::error("extended-state-not-restored", message));
    }
    if after.apc_disable != before.apc_disable {
        let regions = before.apc_disable - after.apc_disable;
        let message =
            format!("returned in {regions} more critical or guarded region(s) than it was called in");
        let verdict = Verdict::error("critical-region-unpaired", message);
        let (was, is) = (before.apc_disable, after.apc_disable);
        let (was, is) = (i64::from(was).cast_unsigned(), i64::from(is).cast_unsigned());
        return Some(match role {
            _ if dispatch => verdict.bug_check(0xC4, [0xC5, routine.address, is, was]),
            "CustomDpc" | "DpcForIsr" => verdict.bug_check(0xC7, [4, routine.address, was, is]),
            "CustomTimerDpc" => verdict.bug_check(0xC7, [5, routine.address, was, is]),
            _ => verdict.bug_check(0x1, [routine.address, is, was, 0]),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Kept = Kept { irql: 0, spin_locks: 0, apc_disable: 0, interrupts: true, extended: 0 };

    fn verdict(role: &'static str, after: Kept) -> (&'static str, Option<u32>, u64) {
        let call = Callout { role, routine: DriverPtr::new(0x1000), object: 0, floor: 0 };
        let verdict = broken(&call, BEFORE, after).unwrap();
        let check = verdict.bug_check;
        (verdict.rule, check.map(|c| c.code), check.map_or(0, |c| c.parameters[0]))
    }

    #[test]
    fn a_routine_that_leaves_all_as_it_was_is_fine() {
        let call = Callout { role: "StartIo", routine: DriverPtr::new(0x1000), object: 0, floor: 2 };
        assert!(broken(&call, BEFORE, BEFORE).is_none());
    }

    #[test]
    fn each_kind_of_routine_has_windows_own_bug_check_for_a_changed_irql() {
        let raised = Kept { irql: 2, ..BEFORE };
        assert_eq!(verdict("DispatchWrite", raised), ("irql-changed-by-routine", Some(0xC9), 5));
        assert_eq!(verdict("IoCompletion", raised), ("irql-changed-by-routine", Some(0xC4), 0xFA));
        assert_eq!(verdict("Isr", raised), ("irql-changed-by-routine", Some(0xC4), 0x111));
        assert_eq!(verdict("StartIo", raised), ("irql-changed-by-routine", Some(0xC8), 0x2_0002));
    }

    #[test]
    fn a_lock_an_interrupt_flag_and_a_region_left_behind_are_told() {
        assert_eq!(verdict("StartIo", Kept { spin_locks: 1, ..BEFORE }).0, "spin-lock-held-on-return");
        assert_eq!(
            verdict("DispatchRead", Kept { interrupts: false, ..BEFORE }),
            ("interrupt-flag-changed-by-routine", Some(0xC4), 0xC1)
        );
        let entered = Kept { apc_disable: -1, ..BEFORE };
        assert_eq!(verdict("CustomDpc", entered), ("critical-region-unpaired", Some(0xC7), 4));
    }
}
