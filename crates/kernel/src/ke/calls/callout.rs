//! Calls of a driver's routines: emitted as events, and checked for what they must leave as they found it. Follows the
//! pages of the callback routines (*KDEFERRED_ROUTINE*, *KSERVICE_ROUTINE*, *DRIVER_DISPATCH*, …).
//!
//! A routine that interrupts (a service routine, a DPC) begins in one look at the kernel's state and ends in another (`begin`,
//! `called`): level, lock, stack, account, and what it must leave as it found it.
//!
//! What a routine is called with, and what its result means, is its caller's business.

use abi::{Code, DriverPtr};
use engine::{Flow, LeftBehind, Stack};

use super::extended::Saved;
use super::{depth, fault, stack};
use crate::cx::{Cx, Kernel};
use crate::event::{Class, Event, Kind, Role};
use crate::ke::sched::history::{self, Operation};
use crate::ke::sched::processor::{Entered, Processor};
use crate::ke::sched::slice;
use crate::ke::sched::spin::FIRST_LOOK;
use crate::ke::sched::thread_record::{Account, Thread};
use crate::mm::stack::KernelStack;
use crate::verdict::{Tier, Verdict};
use crate::{io, ldr};

/// A routine of a driver that is to be called, or is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Callout {
    /// What kind of routine: `DispatchWrite`, `StartIo`, `Isr`, …
    pub(crate) role: Role,
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
    attached: u16,
}

/// [`Kept`], as it is compared: two words, which pass in registers.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Marks(u64, u64);

impl Marks {
    /// How it is now; `change` is done to the thread on the way.
    #[inline]
    fn now(k: &mut Kernel, change: impl FnOnce(&mut Thread)) -> Self {
        let irql = k.level();
        // One by one: a copy of all at once would wait for what was stored in pieces.
        let Processor { number, thread, interrupts_enabled, .. } = k.ke.processor();
        let (number, thread, interrupts_enabled) = (*number, *thread, *interrupts_enabled);
        let spin_locks = k.ke.levels.locks().count(number);
        let (mut apc_disable, mut extended, mut attached) = (0, 0, 0);
        if let Some(thread) = k.ke.sched.threads_mut().get_mut(thread) {
            change(thread);
            (apc_disable, extended) =
                (thread.apc_disable + thread.special_apc_disable, thread.extended.len());
            attached = thread.attached.len();
        }
        let attached = u64::from(u16::try_from(attached).unwrap_or(u16::MAX));
        let state = u64::from(irql) | u64::from(interrupts_enabled) << 8 | attached << 16;
        Self(
            state | u64::from(apc_disable.cast_unsigned()) << 32,
            spin_locks as u64 | (extended as u64) << 32,
        )
    }

    fn unpack(self) -> Kept {
        let Self(state, counts) = self;
        let half = |word: u64| usize::try_from(word & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let [irql, interrupts, low, high, apc_disable @ ..] = state.to_le_bytes();
        Kept {
            irql,
            spin_locks: half(counts),
            apc_disable: i32::from_le_bytes(apc_disable),
            interrupts: interrupts != 0,
            extended: half(counts >> 32),
            attached: u16::from_le_bytes([low, high]),
        }
    }
}

/// Calls a routine of a driver in the context of its caller: dispatch routines, StartIo, completion routines, …
///
/// # Errors
/// A verdict if the routine is null, or comes back with another IRQL, with a spin lock, in another number of critical
/// regions or with interrupts disabled; [`engine::Leave`] if it does not come back.
pub(crate) fn call_routine(
    cx: &mut Cx<'_>,
    role: Role,
    routine: DriverPtr<Code>,
    object: u64,
    arguments: &[u64],
) -> Flow<u64> {
    call_routine_on(cx, role, routine, object, arguments, None)
}

/// As [`call_routine`], on a stack of the caller's choice if there is one.
///
/// # Errors
/// As [`call_routine`].
#[inline]
pub(super) fn call_routine_on(
    cx: &mut Cx<'_>,
    role: Role,
    routine: DriverPtr<Code>,
    object: u64,
    arguments: &[u64],
    own: Option<Stack>,
) -> Flow<u64> {
    if routine.is_null() {
        return Err(null_routine(cx, role));
    }
    if let Some(result) = io::routine::call_kernel_routine(cx, routine, arguments) {
        return result;
    }
    let depth = cx.engine().depth();
    let (before, stack, measured) = cx.with(|k| {
        let floor = k.ke.processor().floors.last().copied().unwrap_or(0);
        let is_outermost = k.ke.thread().is_some_and(|thread| thread.callouts.is_empty());
        let before = enter(k, Callout { role, routine, object, floor }, is_outermost);
        (before, own.unwrap_or_else(|| stack::for_call(k, depth)), k.ke.calls.depths.is_some())
    });
    let call = Callout { role, routine, object, floor: 0 };
    tell_enter(cx, &call);
    let measured = measured && depth::begin(cx, stack);
    let result = cx.call_on(routine, arguments, stack);
    if measured {
        depth::end(cx, &call);
    }
    let left = cx.engine().left_behind();
    let after = cx.with(leave);
    let value = result?;
    if is_told_well(cx, &call, value, before == after, left) {
        return Ok(value);
    }
    judge(cx, &call, before, after, left).map(|()| value)
}

/// A routine that interrupts a thread and does not belong to it, which is about to be called: what the thread has is put aside. It is
/// constructed in place: moving a freshly written record stalls on store forwarding.
#[derive(Default)]
pub(crate) struct Begun {
    account: Account,
    extended: Vec<Saved>,
    /// It is the first on its stack.
    first: bool,
    before: Marks,
    stack: Option<Stack>,
    /// Its depth is measured.
    measured: bool,
}

/// A routine that interrupts a thread and does not belong to it begins, at this time and with so many calls of drivers around: what it
/// runs is not on the thread's account, it must not lower the level it is called at, and it runs on the stack of the processor's at
/// `base`, unless that is in use already: then below what is there, as on x64. Call [`called`] next.
#[inline]
pub(crate) fn begin(k: &mut Kernel, begun: &mut Begun, call: &Callout, base: u64, (now, depth): (u64, u32)) {
    put_aside(k, begun, call.floor, base, (now, depth));
    // Field by field: it was just made field by field, and a wider load would wait for those stores.
    let Callout { role, routine, object, floor } = *call;
    begun.before = enter(k, Callout { role, routine, object, floor }, false);
    begun.stack = Some(stack::for_call(k, depth));
    begun.measured = k.ke.calls.depths.is_some();
}

/// Calls the routine that has begun. `then` is done with its end, in one look; whether all went well is for it to know.
///
/// # Errors
/// (in the answer) As [`call_routine`].
#[inline]
pub(crate) fn called<R>(
    cx: &mut Cx<'_>,
    call: &Callout,
    begun: &mut Begun,
    arguments: &[u64],
    then: impl FnOnce(&mut Kernel, bool) -> R,
) -> (Flow<u64>, R) {
    let result = if call.routine.is_null() || io::routine::is_kernel_routine(cx, call.routine) {
        let result = not_a_drivers(cx, call, arguments);
        cx.with(leave);
        result
    } else {
        tell_enter(cx, call);
        let stack = begun.stack.expect("it has begun");
        begun.measured = begun.measured && depth::begin(cx, stack);
        let result = cx.call_on(call.routine, arguments, stack);
        if begun.measured {
            depth::end(cx, call);
        }
        let left = cx.engine().left_behind();
        let after = cx.with(leave);
        if result.is_ok_and(|value| is_told_well(cx, call, value, begun.before == after, left)) {
            result
        } else {
            result.and_then(|value| judge(cx, call, begun.before, after, left).map(|()| value))
        }
    };
    let now = cx.engine().now();
    let then = cx.with(|k| {
        put_back(k, begun, now);
        then(k, result.is_ok())
    });
    (result, then)
}

/// As [`begin`] and [`called`].
///
/// # Errors
/// As [`call_routine`].
pub(crate) fn asynchronous(cx: &mut Cx<'_>, call: &Callout, base: u64, arguments: &[u64]) -> Flow<u64> {
    let moment = (cx.engine().now(), cx.engine().depth());
    let mut begun = Begun::default();
    cx.with(|k| begin(k, &mut begun, call, base, moment));
    called(cx, call, &mut begun, arguments, |_, _| ()).0
}

/// A routine has returned. True if there is no verdict on it.
#[inline]
fn is_told_well(cx: &mut Cx<'_>, call: &Callout, value: u64, kept: bool, left: LeftBehind) -> bool {
    tell_leave(cx, call, value);
    kept && !is_convention_broken(left)
}

/// One that is the kernel's own (or a test's), or none at all.
#[cold]
fn not_a_drivers(cx: &mut Cx<'_>, call: &Callout, arguments: &[u64]) -> Flow<u64> {
    match io::routine::call_kernel_routine(cx, call.routine, arguments) {
        Some(result) if !call.routine.is_null() => result,
        _ => Err(null_routine(cx, call.role)),
    }
}

#[inline]
fn put_aside(k: &mut Kernel, begun: &mut Begun, floor: u8, base: u64, (now, depth): (u64, u32)) {
    let mark = k.ke.mark(now);
    let bytes = k.ke.calls.kernel_stack;
    let processor = k.ke.processor_mut();
    if processor.floors.is_empty() {
        processor.raised_since = now;
    }
    processor.interrupted.push(depth);
    processor.floors.push(floor);
    // Mostly none is in use.
    begun.first = processor.entered.iter().all(|entered| entered.stack.base != base);
    if begun.first {
        processor.entered.push(Entered { stack: KernelStack { limit: base - bytes, base }, depth });
    }
    k.ke.raise_floor(floor);
    let Some(thread) = k.ke.thread_mut() else { return };
    begun.account = thread.account.with_what_ran(thread.mark, mark);
    (thread.account, thread.mark) = (Account::default(), mark);
    if !thread.extended.is_empty() {
        begun.extended = std::mem::take(&mut thread.extended);
    }
    slice::look_within(k, mark, FIRST_LOOK);
}

/// The routine is over: the interrupted thread gets back what was put aside.
#[inline]
fn put_back(k: &mut Kernel, aside: &mut Begun, now: u64) {
    let mark = k.ke.mark(now);
    k.ke.pop_floor();
    let processor = k.ke.processor_mut();
    processor.interrupted.pop();
    if aside.first {
        // A routine that runs at DISPATCH_LEVEL or above ends on the processor it began on.
        processor.entered.pop();
    }
    let Some(thread) = k.ke.thread_mut() else { return };
    (thread.account, thread.mark) = (aside.account, mark);
    if !(aside.extended.is_empty() && thread.extended.is_empty()) {
        thread.extended = std::mem::take(&mut aside.extended);
    }
    slice::look_within(k, mark, aside.account.look_at.saturating_sub(aside.account.stepped));
}

/// A routine is called. The outermost one of a thread begins with an empty account.
#[inline]
fn enter(k: &mut Kernel, call: Callout, is_outermost: bool) -> Marks {
    k.ke.sched.made_progress();
    if is_outermost {
        begin_account(k);
    }
    Marks::now(k, |thread| thread.callouts.push(call))
}

/// What has run on this thread before is on no account of what it does next.
#[inline]
fn begin_account(k: &mut Kernel) {
    let mark = k.ke.mark(k.engine.now());
    k.ke.change_thread(|thread| {
        (thread.account, thread.mark) = (Account::default(), mark);
        thread.begun += 1;
    });
    slice::look_within(k, mark, FIRST_LOOK);
}

/// The routine has returned.
#[inline]
fn leave(k: &mut Kernel) -> Marks {
    Marks::now(k, |thread| {
        thread.callouts.pop();
    })
}

#[inline]
fn tell_enter(cx: &mut Cx<'_>, call: &Callout) {
    history::operates(cx, Operation::Enter, call.routine.address ^ call.object.rotate_left(32));
    if cx.count_event(Kind::Enter) {
        cx.emit(Event::Enter { role: call.role, routine: call.routine.address, object: call.object });
    }
}

#[inline]
fn tell_leave(cx: &mut Cx<'_>, call: &Callout, value: u64) {
    history::operates(cx, Operation::Leave, value);
    if cx.count_event(Kind::Leave) {
        cx.emit(Event::Leave { role: call.role, routine: call.routine.address, value });
    }
}

/// The verdict on a routine that did not leave all as it was, or left the processor in another state.
#[cold]
fn judge(cx: &mut Cx<'_>, call: &Callout, before: Marks, after: Marks, left: LeftBehind) -> Flow<()> {
    let Callout { role, routine, .. } = *call;
    let verdict = broken(call, before.unpack(), after.unpack()).or_else(|| convention_broken(left));
    let Some(verdict) = verdict else { return Ok(()) };
    let who = ldr::symbols::describe(cx, routine.address);
    let mut verdict = Verdict { message: format!("{role} routine {who} {}", verdict.message), ..verdict };
    if verdict.rule == "spin-lock-held-on-return" {
        verdict = verdict.of_lock(cx.with(|k| k.ke.levels.locks().last_of(k.ke.processor().number)));
    }
    if verdict.tier == Tier::Error {
        return Err(cx.stop(verdict));
    }
    cx.report(verdict);
    Ok(())
}

#[cold]
fn null_routine(cx: &mut Cx<'_>, role: Role) -> engine::Leave {
    let message = format!("the driver's {role} routine is to be called, and it is null");
    let verdict = Verdict::error("null-routine", message);
    let check = fault::null_call(cx);
    cx.stop(verdict.bug_check(check.code, check.parameters))
}

/// The bits of MXCSR that are a caller's: all but the status flags.
const MXCSR_CONTROL: u32 = 0xFFC0;

/// Whether [`convention_broken`] has a verdict.
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
    Some(Verdict::warning("mxcsr-changed-on-return", message))
}

/// What a routine did not leave as it found it; the message lacks its subject.
fn broken(call: &Callout, before: Kept, after: Kept) -> Option<Verdict> {
    let Callout { role, routine, .. } = *call;
    let dispatch = role.is(Class::Dispatch);
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
            Role::IoCompletion => verdict.bug_check(0xC4, [0xFA, routine.address, was, is]),
            Role::Isr => verdict.bug_check(0xC4, [0x111, routine.address, was, is]),
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
    if after.attached != before.attached {
        let message = "returned attached to another process than it was called in";
        return Some(Verdict::error("still-attached", message.to_owned()).bug_check(0x5, [0, 0, 1, 0]));
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
            Role::CustomDpc | Role::DpcForIsr => verdict.bug_check(0xC7, [4, routine.address, was, is]),
            Role::CustomTimerDpc => verdict.bug_check(0xC7, [5, routine.address, was, is]),
            _ => verdict.bug_check(0x1, [routine.address, is, was, 0]),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Kept =
        Kept { irql: 0, spin_locks: 0, apc_disable: 0, interrupts: true, extended: 0, attached: 0 };

    fn verdict(role: Role, after: Kept) -> (&'static str, Option<u32>, u64) {
        let call = Callout { role, routine: DriverPtr::new(0x1000), object: 0, floor: 0 };
        let verdict = broken(&call, BEFORE, after).unwrap();
        let check = verdict.bug_check;
        (verdict.rule, check.map(|c| c.code), check.map_or(0, |c| c.parameters[0]))
    }

    #[test]
    fn a_routine_that_leaves_all_as_it_was_is_fine() {
        let call = Callout { role: Role::StartIo, routine: DriverPtr::new(0x1000), object: 0, floor: 2 };
        assert!(broken(&call, BEFORE, BEFORE).is_none());
    }

    #[test]
    fn each_kind_of_routine_has_windows_own_bug_check_for_a_changed_irql() {
        let raised = Kept { irql: 2, ..BEFORE };
        assert_eq!(verdict(Role::DispatchWrite, raised), ("irql-changed-by-routine", Some(0xC9), 5));
        assert_eq!(verdict(Role::IoCompletion, raised), ("irql-changed-by-routine", Some(0xC4), 0xFA));
        assert_eq!(verdict(Role::Isr, raised), ("irql-changed-by-routine", Some(0xC4), 0x111));
        assert_eq!(verdict(Role::StartIo, raised), ("irql-changed-by-routine", Some(0xC8), 0x2_0002));
    }

    #[test]
    fn a_lock_an_interrupt_flag_and_a_region_left_behind_are_told() {
        assert_eq!(verdict(Role::StartIo, Kept { spin_locks: 1, ..BEFORE }).0, "spin-lock-held-on-return");
        assert_eq!(
            verdict(Role::DispatchRead, Kept { interrupts: false, ..BEFORE }),
            ("interrupt-flag-changed-by-routine", Some(0xC4), 0xC1)
        );
        assert_eq!(verdict(Role::StartIo, Kept { attached: 1, ..BEFORE }), ("still-attached", Some(0x5), 0));
        let entered = Kept { apc_disable: -1, ..BEFORE };
        assert_eq!(verdict(Role::CustomDpc, entered), ("critical-region-unpaired", Some(0xC7), 4));
    }
}
