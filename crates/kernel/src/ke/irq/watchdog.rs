//! How long DPCs and interrupt routines may take: one alone, and all that run before the level falls below DISPATCH_LEVEL.
//! Follows *Bug Check 0x133 DPC_WATCHDOG_VIOLATION*, *KeQueryDpcWatchdogInformation function*, *KDPC_WATCHDOG_INFORMATION
//! structure*.
//!
//! In virtual time, by ticks of the coarsest resolution. A routine that computes for ever is `slice`'s.

use abi::{DriverPtr, KDPC_WATCHDOG_INFORMATION as Information, NtStatus};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::ke::timing::time::TICK;
use crate::verdict::Verdict;

/// DPC_WATCHDOG_VIOLATION.
const VIOLATION: u32 = 0x133;
/// How many clock ticks one DPC or interrupt routine may take: 20 seconds.
pub(crate) const SINGLE: u64 = 0x500;
/// How many clock ticks all may take, one after another: two minutes.
const CUMULATIVE: u64 = 0x1E00;

/// Ticks since `then`.
fn ticks_since(k: &Kernel, then: u64) -> u64 {
    k.engine.now().saturating_sub(then) / TICK
}

/// The verdict on an interrupt routine or DPC that has waited busily for longer than Windows' watchdog lets it.
pub(crate) fn look(k: &Kernel) -> Option<Verdict> {
    let processor = k.ke.processor();
    let ticks = ticks_since(k, processor.raised_since);
    if processor.floors.is_empty() || ticks <= SINGLE {
        return cumulative(k);
    }
    let call = k.ke.thread()?.callouts.last()?;
    let (role, routine) = (call.role, call.routine.address);
    let message =
        format!("the {role} routine {routine:#x} has run for {ticks} clock ticks, most of it in busy waits");
    Some(Verdict::error("dpc-watchdog", message).bug_check(VIOLATION, [0, ticks, SINGLE, 0]))
}

/// The verdict on DPCs that run one after another and let no thread run.
pub(super) fn cumulative(k: &Kernel) -> Option<Verdict> {
    let processor = k.ke.processor();
    let dpc = processor.running_dpc.or_else(|| processor.dpcs.front().map(|next| next.object))?;
    let ticks = ticks_since(k, processor.dispatch_since);
    if ticks <= CUMULATIVE {
        return None;
    }
    let message = format!(
        "DPCs have run for {ticks} clock ticks one after another, {dpc:#x} among them, and the level has not fallen below DISPATCH_LEVEL"
    );
    Some(Verdict::error("dpc-watchdog", message).bug_check(VIOLATION, [1, CUMULATIVE, 0, 0]))
}

/// `KeQueryDpcWatchdogInformation`: limits, and what is left of them.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn query(cx: &mut Cx<'_>, into: DriverPtr<Information>) -> Flow<NtStatus> {
    let Some((single, all)) = cx.with(|k| {
        let processor = k.ke.processor();
        processor.running_dpc?;
        Some((ticks_since(k, processor.raised_since), ticks_since(k, processor.dispatch_since)))
    }) else {
        return Ok(NtStatus::UNSUCCESSFUL);
    };
    let word = |ticks: u64| u32::try_from(ticks).expect("a limit is small");
    cx.write(into, Information::zeroed())?;
    cx.write(into + Information::DpcTimeLimit, word(SINGLE))?;
    cx.write(into + Information::DpcTimeCount, word(SINGLE.saturating_sub(single)))?;
    cx.write(into + Information::DpcWatchdogLimit, word(CUMULATIVE))?;
    cx.write(into + Information::DpcWatchdogCount, word(CUMULATIVE.saturating_sub(all)))?;
    Ok(NtStatus::SUCCESS)
}
