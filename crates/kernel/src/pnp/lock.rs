//! Windows' lock of the device tree: one thread at a time changes the state of a device. A change of the system's power state holds it, and while the
//! system sleeps no other thread gets it: what happens to a device meanwhile, its drivers get to know when the system is awake.
//!
//! Pages: *System Power States* (in S1 to S4 the computer runs nothing).

use abi::{KEVENT, NotificationEvent};
use engine::Flow;

use crate::cx::Cx;
use crate::mm::pool;
use crate::{ke, po};

/// Runs `work` while no other thread changes the state of a device, and the system is awake.
///
/// # Errors
/// As `work`.
pub(crate) fn exclusively<R>(cx: &mut Cx<'_>, work: impl FnOnce(&mut Cx<'_>) -> Flow<R>) -> Flow<R> {
    exclusively_asleep_too(cx, |cx| {
        while cx.with(|k| po::system::sleeps(k)) && wait_until_awake(cx)? {}
        work(cx)
    })
}

/// As [`exclusively`], for what changes power states: in a system that sleeps, too.
///
/// # Errors
/// As `work`.
pub(crate) fn exclusively_asleep_too<R>(
    cx: &mut Cx<'_>,
    work: impl FnOnce(&mut Cx<'_>) -> Flow<R>,
) -> Flow<R> {
    let idle = cx.with(|k| k.pnp.idle);
    if idle.is_null() {
        // No device was looked for.
        return work(cx);
    }
    let _ = ke::wait::for_object(cx, idle)?;
    let result = work(cx)?;
    ke::event::set(cx, idle, 0, false)?;
    Ok(result)
}

/// Gives the lock back until the system is awake. False if there is no lock, or no memory to wait by: it is kept.
fn wait_until_awake(cx: &mut Cx<'_>) -> Flow<bool> {
    let idle = cx.with(|k| k.pnp.idle);
    if idle.is_null() {
        return Ok(false);
    }
    let size = size_of::<KEVENT>() as u64;
    let awake = pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"PnpA"))?;
    if awake.is_null() {
        return Ok(false);
    }
    ke::event::initialize(cx, awake, NotificationEvent, false)?;
    cx.with(|k| k.pnp.until_awake.push(awake));
    ke::event::set(cx, idle, 0, false)?;
    let _ = ke::wait::for_object(cx, awake)?;
    pool::free(cx, awake)?;
    let _ = ke::wait::for_object(cx, idle)?;
    Ok(true)
}

/// The system is awake: who waits for that goes on.
///
/// # Errors
/// None of its own.
pub(crate) fn awake(cx: &mut Cx<'_>) -> Flow<()> {
    for event in cx.with(|k| std::mem::take(&mut k.pnp.until_awake)) {
        ke::event::set(cx, event, 0, false)?;
    }
    Ok(())
}
