//! Devices that do not serve for a while serve again: one that is stopped, or may soon be stopped or removed, or that others have powered down.
//! In Windows none of that lasts, so a driver may keep a thread waiting meanwhile.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *Handling an IRP_MN_CANCEL_REMOVE_DEVICE Request*.

use abi::{PowerDeviceD0, PowerSystemWorking};
use engine::Flow;

use super::node::{self, State};
use crate::cx::{Cx, Kernel};
use crate::po;

/// The system's process.
const SYSTEM: u64 = 0;

/// Whether an application's thread waits in a driver, and a device does not serve for a while.
#[must_use]
pub fn is_waited_for(k: &Kernel) -> bool {
    let mut threads = k.ke.sched.threads().iter();
    let waits = threads.any(|thread| thread.process != SYSTEM && !thread.callouts.is_empty());
    let rests = |state: State| matches!(state, State::Stopped | State::StopPending | State::RemovePending);
    let all_serve = !po::system::sleeps(k)
        && k.po.lowered_from_outside.is_empty()
        && !k.pnp.nodes.values().any(|node| rests(node.state));
    waits && !all_serve
}

/// Has all devices serve that do not for a while. On a system thread, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver.
pub fn serve_again(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| po::system::sleeps(k)) {
        let _ = po::system::set(cx, PowerSystemWorking)?;
    }
    for device in super::devices(cx) {
        if cx.with(|k| k.po.lowered_from_outside.contains(&device.id.0)) {
            let _ = po::request::set_device(cx, device.id, PowerDeviceD0)?;
        }
        match node::state(cx, device.id) {
            State::Stopped => drop(super::restart(cx, device.id)?),
            State::StopPending => drop(super::stop::cancel_stop(cx, device.id)?),
            State::RemovePending => drop(super::remove::cancel_remove(cx, device.id)?),
            _ => {}
        }
    }
    Ok(())
}
