//! Requests of the application that are under way while it does something else: overlapped ones, for tests in Rust.
//!
//! Pages: *Synchronous and Asynchronous I/O*, *CancelIoEx function*, *GetOverlappedResult function*. Each has a thread of the
//! application's, which waits for its end: the end of a thread would cancel it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use abi::{DriverPtr, IO_STATUS_BLOCK, NtStatus};
use engine::outside;
use kernel::Cx;
use kernel::io::cancel;
use kernel::ob;

use super::Machine;
use super::transfer::{self, Completion, Transfer};
use crate::error::Error;

/// A request that was begun ([`crate::Handle::begin_read`]). What is still under way when the machine is finished is cancelled then.
pub struct Request<'m> {
    machine: &'m Machine,
    what: String,
    /// In the machine, as what its thread works on.
    state: Rc<RefCell<State>>,
    /// What a completion port calls it by; 0 where it was not even begun.
    id: u64,
    pending: bool,
}

/// How far it has come.
enum State {
    /// The dispatch routine has not returned.
    Asked,
    /// Its end will be written here.
    UnderWay(DriverPtr<IO_STATUS_BLOCK>),
    Over(Completion),
}

impl<'m> Request<'m> {
    /// Begins one; returns when the dispatch routine has returned.
    pub(super) fn begin(
        machine: &'m Machine,
        handle: ob::Handle,
        what: String,
        transfer: Transfer<'static>,
    ) -> Result<Self, Error> {
        let (state, begun) =
            machine.inside(|_| (Rc::new(RefCell::new(State::Asked)), Rc::new(Cell::new((0, false)))));
        let (slot, first) = (Rc::clone(&state), Rc::clone(&begun));
        let body = move |cx: &mut Cx<'_>| {
            let begun = transfer::begin(cx, handle, &transfer, false)?;
            if let Some(overlapped) = begun.overlapped() {
                *slot.borrow_mut() = State::UnderWay(overlapped.status_block);
                first.set((overlapped.id, begun.is_pending()));
            }
            let end = begun.wait(cx)?;
            outside(|| *slot.borrow_mut() = State::Over(end.clone()));
            Ok(())
        };
        if machine.inside(|nt| machine.spawn(nt, Box::new(body))).is_err() {
            return Err(Error::Stopped);
        }
        let has_returned = || (!matches!(*state.borrow(), State::Asked)).then_some(());
        machine.await_value(&what, has_returned)?;
        let (number, pending) = begun.get();
        machine.inside(|_| drop(begun));
        Ok(Self { machine, what, state, id: number, pending })
    }

    /// Whether `STATUS_PENDING` was returned when it was begun, though it may have ended by then.
    #[must_use]
    pub const fn was_pending(&self) -> bool {
        self.pending
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it has ended. Time passes only where the machine is asked for something, e.g. by [`Machine::wait`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), State::Over(_))
    }

    /// Cancels it (`CancelIoEx`). Whether it was under way; how it ends, [`Request::wait`] tells.
    ///
    /// # Errors
    /// [`Error::Stuck`] if the cancel routine does not return; [`Error::Stopped`].
    pub fn cancel(&self) -> Result<bool, Error> {
        let State::UnderWay(block) = *self.state.borrow() else { return Ok(false) };
        let what = format!("CancelIoEx of {}", self.what);
        let status = self.machine.on_thread(&what, move |cx| cancel::cancel_request(cx, block))?;
        Ok(status == NtStatus::SUCCESS)
    }

    /// Waits for its end, whatever its status.
    ///
    /// # Errors
    /// [`Error::Stuck`] if it never ends; [`Error::Stopped`].
    pub fn wait(self) -> Result<Completion, Error> {
        self.machine.await_value(&self.what, || match &*self.state.borrow() {
            State::Over(end) => Some(outside(|| end.clone())),
            State::Asked | State::UnderWay(_) => None,
        })
    }
}
