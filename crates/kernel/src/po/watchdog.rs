//! How long a stack still has for a power request.
//!
//! Page: *PoQueryWatchdogTime function*. Its time-out is the one after which [`super::overdue`] stops the machine: ten minutes.

use abi::{DEVICE_OBJECT, DriverPtr};
use engine::Flow;

use super::overdue::PATIENCE;
use crate::cx::Cx;
use crate::ke::time;

/// Units of 100 ns in a second.
const SECOND: u64 = 10_000_000;

/// A request that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watched {
    /// The bottom of its stack.
    bottom: u64,
    /// When it is overdue, in 100 ns since boot.
    due: u64,
}

/// Has `send` send a request that sets or queries a state to the stack above `bottom`.
pub(super) fn watch<R>(cx: &mut Cx<'_>, bottom: u64, send: impl FnOnce(&mut Cx<'_>) -> Flow<R>) -> Flow<R> {
    let due = cx.with(|k| time::due(k, PATIENCE).time);
    let watched = Watched { bottom, due };
    cx.with(|k| k.po.watched.push(watched));
    let sent = send(cx);
    cx.with(|k| {
        let place = k.po.watched.iter().position(|other| *other == watched);
        place.map(|place| k.po.watched.remove(place))
    });
    sent
}

/// `PoQueryWatchdogTime`: whether a request is under way, and how many seconds remain of the time of the oldest.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn query(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    seconds: DriverPtr<u32>,
) -> Flow<bool> {
    cx.read(device + DEVICE_OBJECT::Type)?;
    let own = |watched: &&Watched| watched.bottom == device.address;
    let Some(due) = cx.with(|k| k.po.watched.iter().filter(own).map(|watched| watched.due).min()) else {
        return Ok(false);
    };
    cx.reads_clock();
    let left = due.saturating_sub(time::interrupt_time(cx.engine())) / SECOND;
    cx.write(seconds, u32::try_from(left).unwrap_or(u32::MAX))?;
    Ok(true)
}
