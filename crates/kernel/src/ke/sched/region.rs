//! Critical and guarded regions. Follows *KeEnterCriticalRegion function*, *KeEnterGuardedRegion function*,
//! *KeAreApcsDisabled function* and *Disabling APCs*.
//!
//! A thread's counts go down on entry and up on leaving, as Windows's do. What they hold back is `apc`'s.

use engine::Flow;

use crate::cx::Cx;
use crate::ke::levels::irql::{self, APC_LEVEL};
use crate::verdict::Verdict;

/// `KeEnterCriticalRegion`: no normal kernel APCs.
///
/// # Errors
/// None of its own.
pub(crate) fn enter_critical(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| k.ke.change_thread(|thread| thread.apc_disable -= 1));
    Ok(())
}

/// `KeLeaveCriticalRegion`.
///
/// # Errors
/// A verdict if the thread is in none.
pub(crate) fn leave_critical(cx: &mut Cx<'_>) -> Flow<()> {
    let left = cx.with(|k| {
        let thread = k.ke.thread_mut()?;
        thread.apc_disable += 1;
        (thread.apc_disable > 0).then(|| thread.name.clone())
    });
    match left {
        None => Ok(()),
        Some(name) => {
            let message = format!("KeLeaveCriticalRegion: the {name} is in no critical region");
            Err(cx.stop(Verdict::error("critical-region-unpaired", message).bug_check(0xC4, [0x3E, 0, 0, 0])))
        }
    }
}

/// `KeEnterGuardedRegion`: no APCs at all.
///
/// # Errors
/// None of its own.
pub(crate) fn enter_guarded(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| k.ke.change_thread(|thread| thread.special_apc_disable -= 1));
    Ok(())
}

/// `KeLeaveGuardedRegion`.
///
/// # Errors
/// A verdict if the thread is in none; as what was held back.
pub(crate) fn leave_guarded(cx: &mut Cx<'_>) -> Flow<()> {
    let left = cx.with(|k| {
        k.ke.invalidate_levels();
        let thread = k.ke.thread_mut()?;
        thread.special_apc_disable += 1;
        (thread.special_apc_disable > 0).then(|| thread.name.clone())
    });
    match left {
        None => irql::settle(cx),
        Some(name) => {
            let message = format!("KeLeaveGuardedRegion: the {name} is in no guarded region");
            let verdict = Verdict::error("guarded-region-unpaired", message);
            Err(cx.stop(verdict.bug_check(0xC4, [0x4_000E, 0, 0, 0])))
        }
    }
}

/// `KeAreApcsDisabled`: whether normal kernel APCs are.
///
/// # Errors
/// None of its own.
pub(crate) fn are_apcs_disabled(cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(cx.with(|k| k.ke.thread().is_some_and(|thread| thread.apc_disable + thread.special_apc_disable != 0)))
}

/// `KeAreAllApcsDisabled`: whether special ones are as well.
///
/// # Errors
/// None of its own.
pub(crate) fn are_all_apcs_disabled(cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(cx.with(|k| {
        let guarded = k.ke.thread().is_some_and(|thread| thread.special_apc_disable != 0);
        guarded || k.level() >= APC_LEVEL
    }))
}
