//! Work that the system does on threads of its own, waited for.

use std::cell::RefCell;
use std::rc::Rc;

use abi::{DriverPtr, KEVENT};
use engine::Flow;
use kernel::Cx;
use kernel::ke::{event, thread, wait};
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

/// Runs `work` on a system thread, as the PnP manager does what it is asked for, and waits for its end.
pub(crate) fn on_system_thread<R: 'static>(
    cx: &mut Cx<'_>,
    name: &str,
    work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static,
) -> Flow<R> {
    let done = new_event(cx)?;
    let result = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&result);
    let body: thread::Work = Box::new(move |cx| {
        let value = work(cx)?;
        *slot.borrow_mut() = Some(value);
        event::set(cx, done, 0, false).map(|_| ())
    });
    thread::spawn(cx, name, body)?;
    let _ = wait::for_object(cx, done)?;
    pool::free(cx, done)?;
    let value = result.borrow_mut().take();
    Ok(value.expect("the event is set after the result"))
}
