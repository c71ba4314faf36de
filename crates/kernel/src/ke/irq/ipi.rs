//! A routine on all processors at once. Follows *KeIpiGenericCall function*, *KIPI_BROADCAST_WORKER callback function*.
//!
//! One broadcast is under way at a time. Its initiator interrupts every other processor; each comes to a barrier at
//! IPI_LEVEL, and none calls the routine before all have come. The initiator goes on once the routine has returned
//! everywhere. A processor at HIGH_LEVEL or with interrupts disabled comes as soon as it lets interrupts in.

use abi::{Code, DriverPtr};
use engine::Flow;

use super::interrupt_delivery;
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ke::calls::callout::{self, Callout};
use crate::ke::calls::stack;
use crate::ke::levels::irql::{self, IPI_LEVEL};
use crate::ke::sched::processor::WaitsFor;
use crate::ke::sched::{affinity, scheduler, slice};

const ROLE: Role = Role::IpiGenericCall;

/// A routine that runs on all processors, or is about to.
#[derive(Clone, Copy)]
pub(crate) struct Broadcast {
    routine: DriverPtr<Code>,
    context: u64,
    /// The processors that have not come to the barrier.
    pub(crate) away: u64,
    /// The processors on which the routine has not returned.
    pub(crate) busy: u64,
}

/// Whether processor `index` is to come to the barrier.
#[inline]
pub(crate) fn calls(k: &Kernel, index: usize) -> bool {
    k.ke.irq.broadcast.is_some_and(|broadcast| broadcast.away & 1 << index != 0)
}

/// Whether what a processor waits for in here has come about.
pub(crate) fn is_over(k: &Kernel, what: WaitsFor) -> bool {
    let Some(broadcast) = k.ke.irq.broadcast else { return true };
    match what {
        WaitsFor::IpiBarrier => broadcast.away == 0,
        WaitsFor::IpiEnd => broadcast.busy == 0,
        _ => false,
    }
}

/// `KeIpiGenericCall`: what the routine returned on the caller's processor.
///
/// # Errors
/// As [`callout::call_routine`]; [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn generic_call(cx: &mut Cx<'_>, routine: DriverPtr<Code>, context: u64) -> Flow<u64> {
    while cx.with(|k| k.ke.irq.broadcast.is_some()) {
        // The wait lets in the other broadcast's interrupt.
        scheduler::wait_for(cx, WaitsFor::IpiTurn)?;
    }
    let old = irql::current(cx);
    cx.with(|k| {
        let (all, own) = (affinity::all(k), k.ke.processor().mask());
        k.ke.irq.broadcast = Some(Broadcast { routine, context, away: all & !own, busy: all });
        k.ke.sched.made_progress();
        k.ke.invalidate_levels();
    });
    irql::set(cx, IPI_LEVEL);
    let result = initiate(cx);
    cx.with(|k| {
        k.ke.irq.broadcast = None;
        k.ke.sched.made_progress();
        k.ke.invalidate_levels();
    });
    let value = result?;
    irql::set(cx, old);
    irql::settle(cx)?;
    Ok(value)
}

/// The initiator's part, on the stack it stands on.
fn initiate(cx: &mut Cx<'_>) -> Flow<u64> {
    let Broadcast { routine, context, .. } = meet(cx)?.expect("it is ours");
    cx.with(|k| k.ke.push_floor(IPI_LEVEL));
    let value = callout::call_routine(cx, ROLE, routine, 0, &[context]);
    cx.with(|k| k.ke.pop_floor());
    let value = value?;
    returned(cx);
    while !cx.with(|k| is_over(k, WaitsFor::IpiEnd)) {
        scheduler::wait_for(cx, WaitsFor::IpiEnd)?;
    }
    Ok(value)
}

/// Another processor's part: its interrupt.
///
/// # Errors
/// As [`generic_call`].
pub(crate) fn service(cx: &mut Cx<'_>) -> Flow<()> {
    let (old, base) = cx.with(|k| {
        let (own, base) = (k.ke.processor().mask(), k.ke.processor().interrupt_stack);
        if let Some(broadcast) = &mut k.ke.irq.broadcast {
            broadcast.away &= !own;
        }
        k.ke.sched.made_progress();
        k.ke.invalidate_levels();
        (k.level(), base)
    });
    irql::set(cx, IPI_LEVEL);
    slice::charge(cx, interrupt_delivery::LATENCY);
    let result = stack::on(cx, base, |cx| {
        if let Some(Broadcast { routine, context, .. }) = meet(cx)? {
            let call = Callout { role: ROLE, routine, object: 0, floor: IPI_LEVEL };
            callout::asynchronous(cx, &call, base, &[context])?;
            returned(cx);
        }
        Ok(())
    });
    irql::set(cx, old);
    cx.with(|k| k.ke.invalidate_levels());
    result
}

/// Waits at the barrier; nothing if the broadcast was given up meanwhile, by an exception in the initiator's routine.
fn meet(cx: &mut Cx<'_>) -> Flow<Option<Broadcast>> {
    while !cx.with(|k| is_over(k, WaitsFor::IpiBarrier)) {
        scheduler::wait_for(cx, WaitsFor::IpiBarrier)?;
    }
    Ok(cx.with(|k| k.ke.irq.broadcast))
}

/// The routine has returned on this processor.
fn returned(cx: &mut Cx<'_>) {
    cx.with(|k| {
        let own = k.ke.processor().mask();
        if let Some(broadcast) = &mut k.ke.irq.broadcast {
            broadcast.busy &= !own;
        }
        k.ke.sched.made_progress();
    });
}
