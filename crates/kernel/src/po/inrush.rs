//! Devices that draw a surge of current are powered up one at a time.
//!
//! Pages: *Setting Device Object Flags for Power Management* ("the power manager ensures that only one power inrush IRP is active anywhere in the system at any given
//! time"; one driver of the stack says DO_POWER_INRUSH for all), *PoCallDriver function* ("queues the current IRP for handling after the previous IRP
//! completes"). A request is held before the first driver gets it, as `IoCallDriver`, by which drivers pass it on, holds nothing. Those that wait go
//! in the order in which they came. *Ours:* one for a device that the active one's hangs on does not wait, as its driver may need it to go on.

use std::collections::VecDeque;

use abi::{DEVICE_OBJECT, DriverPtr, KEVENT};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::io::violation::device_name;
use crate::ke;
use crate::mm::pool;
use crate::pnp::{NodeId, tree};
use crate::verdict::Verdict;

/// Who is powered up.
#[derive(Default)]
pub(crate) struct State {
    /// The bottoms of the stacks whose requests are active: one, or one and what it hangs on.
    active: Vec<u64>,
    /// The bottoms of those whose requests wait, and what each waits for.
    waiting: VecDeque<(u64, DriverPtr<KEVENT>)>,
}

/// Has `send` send a request for D0 to the stack above `bottom` when no other such request is active.
pub(super) fn alone<R>(
    cx: &mut Cx<'_>,
    bottom: DriverPtr<DEVICE_OBJECT>,
    send: impl FnOnce(&mut Cx<'_>) -> Flow<R>,
) -> Flow<R> {
    match cx.with(|k| whom_to_wait_for(k, bottom.address)) {
        Some(other) => wait(cx, bottom, DriverPtr::new(other))?,
        None => cx.with(|k| k.po.inrush.active.push(bottom.address)),
    }
    let sent = send(cx)?;
    cx.with(|k| k.po.inrush.active.retain(|active| *active != bottom.address));
    while let Some(turn) = cx.with(next) {
        ke::event::set(cx, turn, 0, false)?;
    }
    Ok(sent)
}

/// Makes the first request active that need not wait any more: what it waits for.
fn next(k: &mut Kernel) -> Option<DriverPtr<KEVENT>> {
    let place = k.po.inrush.waiting.iter().position(|(bottom, _)| whom_to_wait_for(k, *bottom).is_none())?;
    let (bottom, turn) = k.po.inrush.waiting.remove(place)?;
    k.po.inrush.active.push(bottom);
    Some(turn)
}

/// The device that is powered up, unless it hangs on this one.
fn whom_to_wait_for(k: &Kernel, bottom: u64) -> Option<u64> {
    let hangs = |active: &u64| tree::is_below(k, NodeId(*active), NodeId(bottom));
    k.po.inrush.active.iter().copied().find(|active| !hangs(active))
}

/// Waits until the device that was active has passed its turn to this one.
fn wait(cx: &mut Cx<'_>, bottom: DriverPtr<DEVICE_OBJECT>, other: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let [own, active] = [bottom, other].map(|device| device_name(cx, device));
    cx.emit(Event::Pnp { step: "inrush request for D0 of", of: own, after: Some(active), value: None });
    let turn: DriverPtr<KEVENT> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, pool::tag(b"PoIn"))?;
    if turn.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for an inrush power request")));
    }
    ke::event::initialize(cx, turn, abi::NotificationEvent, false)?;
    cx.with(|k| k.po.inrush.waiting.push_back((bottom.address, turn)));
    let _ = ke::wait::for_object(cx, turn)?;
    pool::free(cx, turn)
}
