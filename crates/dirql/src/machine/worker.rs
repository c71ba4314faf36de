//! Work that the system does on threads of its own, waited for.

use abi::{DriverPtr, KEVENT};
use engine::Flow;
use kernel::Cx;
use kernel::ke::event;
use kernel::mm::pool;

/// Pool of dirql's own, which drivers have nothing to do with.
pub(crate) const TAG: u32 = pool::tag(b"dirq");

/// An event in the machine's memory.
pub(crate) fn new_event(cx: &mut Cx<'_>) -> Flow<DriverPtr<KEVENT>> {
    let event: DriverPtr<KEVENT> = pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, TAG)?;
    assert!(!event.is_null(), "the machine has no memory left for an event of dirql's own");
    event::initialize(cx, event, 0, false)?;
    Ok(event)
}
