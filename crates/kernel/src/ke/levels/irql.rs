//! The interrupt request level of the current processor, and what it holds back. Follows *Managing Hardware Priorities*,
//! *KeRaiseIrql macro*, *KeLowerIrql function*.
//!
//! [`settle()`] lets in what waited: interrupts above the level, then below DISPATCH_LEVEL due timers and DPCs, then
//! another thread, then below APC_LEVEL what the thread itself is to do. Everything that lowers a level, sets the interrupt flag, queues or signals ends with it.

use engine::{Flow, Short};

use super::settle;
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::verdict::Verdict;

/// Highest level on x64, where nothing interrupts.
pub(crate) const HIGH_LEVEL: u8 = 15;
/// Where interrupts from other processors come in.
pub(crate) const IPI_LEVEL: u8 = 14;
/// Where the clock ticks.
pub(crate) const CLOCK_LEVEL: u8 = 13;
/// Where threads are switched and DPCs run.
pub(crate) const DISPATCH_LEVEL: u8 = 2;
/// Where asynchronous procedure calls run.
pub(crate) const APC_LEVEL: u8 = 1;
/// Where threads run.
pub(crate) const PASSIVE_LEVEL: u8 = 0;

/// The level now.
pub(crate) fn current(cx: &mut Cx<'_>) -> u8 {
    cx.with(|k| k.level())
}

/// `KeGetCurrentIrql`.
///
/// # Errors
/// None of its own.
pub(crate) fn get(cx: &mut Cx<'_>) -> Flow<u8> {
    Ok(current(cx))
}

/// `KfRaiseIrql`: raises; returns the old level.
///
/// # Errors
/// A verdict if that would lower it, or if there is no such level.
pub(crate) fn raise(cx: &mut Cx<'_>, level: u8) -> Flow<u8> {
    let (old, raised) = cx.with(|k| {
        let old = k.level();
        let freely = old <= level && level <= HIGH_LEVEL && level >= k.engine.free_levels();
        if freely {
            k.set_level(k.ke.current, level);
        }
        (old, freely)
    });
    if raised {
        return Ok(old);
    }
    if level < old || level > HIGH_LEVEL {
        let message = format!("KeRaiseIrql was called with level {level} at IRQL {old}");
        let verdict = Verdict::error("irql-raise-lowers", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0x30, old.into(), level.into(), 0])));
    }
    set(cx, level);
    Ok(old)
}

/// `KeRaiseIrqlToDpcLevel`.
///
/// # Errors
/// As [`raise`].
pub(crate) fn raise_to_dispatch(cx: &mut Cx<'_>) -> Flow<u8> {
    raise(cx, DISPATCH_LEVEL)
}

/// `KeLowerIrql`: lowers, and lets in what was waiting: interrupts, DPCs, another thread.
///
/// # Errors
/// A verdict if that would raise it, if an interrupt routine or DPC gives up its own level, or if a spin lock is held.
pub(crate) fn lower(cx: &mut Cx<'_>, level: u8) -> Flow<()> {
    let (old, lowered) = cx.with(|k| {
        let old = k.level();
        // As the processor itself, where CR8 is written inline.
        let freely =
            level <= old && level >= k.engine.free_levels() && k.engine.now() < k.ke.sched.slice_end();
        if freely {
            k.set_level(k.ke.current, level);
        }
        (old, freely)
    });
    if lowered {
        return Ok(());
    }
    if level > old {
        let message = format!("KeLowerIrql was called with level {level} at IRQL {old}");
        let verdict = Verdict::error("irql-lower-raises", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0x31, old.into(), level.into(), 0])));
    }
    check_lowering(cx, old, level)?;
    set(cx, level);
    settle(cx)
}

/// The exports that driver code does by itself while no reader wants their events: see [`crate::cx::Kernel::publish_levels`].
pub(crate) fn short(name: &str) -> Option<Short> {
    Some(match name {
        "KeGetCurrentIrql" => Short::Level,
        "KfRaiseIrql" => Short::Raise,
        "KeRaiseIrqlToDpcLevel" => Short::RaiseTo(DISPATCH_LEVEL),
        "KeLowerIrql" => Short::Lower,
        "KeAcquireSpinLockRaiseToDpc" | "KeAcquireSpinLockForDpc" => Short::AcquireRaise,
        "KeAcquireSpinLockAtDpcLevel" => Short::Acquire,
        "KeReleaseSpinLock" | "KeReleaseSpinLockForDpc" => Short::ReleaseLower,
        "KeReleaseSpinLockFromDpcLevel" => Short::Release,
        _ => return None,
    })
}

/// Whether an export does nothing but to move the level from or to CR8.
pub(crate) fn moves_level(name: &str) -> bool {
    matches!(short(name), Some(Short::Level | Short::Raise | Short::RaiseTo(_) | Short::Lower))
}

/// `mov cr8, r`, which compilers make of `KeRaiseIrql` and `KeLowerIrql`.
///
/// # Errors
/// As [`lower`]; a verdict if there is no such level.
pub(crate) fn set_by_cr8(cx: &mut Cx<'_>, level: u64) -> Flow<()> {
    let old = current(cx);
    let level = match u8::try_from(level) {
        Ok(level) if level <= HIGH_LEVEL => level,
        _ => {
            let message = format!("the driver moved {level:#x} to CR8; levels go from 0 to {HIGH_LEVEL}");
            let verdict = Verdict::error("irql-invalid", message);
            return Err(cx.stop(verdict.bug_check(0x1E, [0xC000_0096, 0, 0, 0])));
        }
    };
    if level < old {
        check_lowering(cx, old, level)?;
    }
    set(cx, level);
    settle(cx)
}

/// `cli`, `sti`.
///
/// # Errors
/// [`engine::Leave`] of what was let in.
pub(crate) fn set_interrupt_flag(cx: &mut Cx<'_>, on: bool) -> Flow<()> {
    cx.with(|k| {
        k.ke.processor_mut().interrupts_enabled = on;
        k.ke.invalidate_levels();
    });
    settle(cx)
}

/// Sets the level without asking or letting anything in.
pub(crate) fn set(cx: &mut Cx<'_>, to: u8) {
    let from = cx.with(|k| k.set_level(k.ke.current, to));
    tell(cx, from, to);
}

/// The level has been changed.
#[inline]
pub(crate) fn tell(cx: &mut Cx<'_>, from: u8, to: u8) {
    if from != to && cx.count_event(Kind::Irql) {
        cx.emit_counted(Event::Irql { from, to });
    }
}

fn check_lowering(cx: &mut Cx<'_>, old: u8, level: u8) -> Flow<()> {
    let floor = cx.with(|k| k.ke.processor().floors.last().copied().unwrap_or(0));
    if level < floor {
        let message = format!("a routine that runs at IRQL {floor} lowered its level from {old} to {level}");
        let verdict = Verdict::error("irql-lowered-in-callback", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0x31, old.into(), level.into(), 1])));
    }
    if level < DISPATCH_LEVEL
        && let Some(lock) = cx.with(|k| k.ke.levels.locks.held_by(k.ke.processor().number))
    {
        let message = format!("the level was lowered from {old} to {level} with spin lock {lock:#x} held");
        let held = cx.with(|k| k.ke.levels.locks.holder(lock));
        return Err(cx.stop(Verdict::error("spin-lock-held-below-dispatch", message).of_lock(held)));
    }
    Ok(())
}

/// Lets in what the level of the current processor no longer holds back. Does nothing outside strands.
///
/// # Errors
/// [`engine::Leave`] of what was let in, or because the machine ends.
#[inline]
pub(crate) fn settle(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| k.is_nothing_pending()) { Ok(()) } else { settle::let_in(cx) }
}
