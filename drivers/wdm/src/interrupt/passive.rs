//! A device's message-signaled interrupts, or its line, served at `PASSIVE_LEVEL`: the routine runs on a thread of the system's and
//! may wait.
//!
//! Pages: *Using Passive-Level Interrupt Service Routines*, *IO_CONNECT_INTERRUPT_PARAMETERS*. One event, the system's, serves
//! all. It is there from Windows 8 on; before, connecting is `STATUS_INVALID_PARAMETER_1`.
//!
//! Nothing above `PASSIVE_LEVEL` can synchronize with such a routine:
//!
//! ```compile_fail,E0308
//! fn dpc<S: wdm::PassiveMessageService>(messages: &wdm::PassiveMessages<S>, dispatch: &mut wdm::Dispatch) {
//!     messages.synchronize(dispatch, |_state, _passive| ());
//! }
//! ```

use core::ffi::c_void;

use abi::{Code, DriverPtr, KINTERRUPT};

use super::connection::{Connection, Context, fully_specified};
use super::message::message_based;
use super::{MessageTable, PassiveMessageService, PassiveService};
use crate::device::Device;
use crate::irql::Passive;
use crate::pool::Tag;
use crate::resource::{InterruptLine, Vector};
use crate::{Result, raw, sys};

/// A connection to the device's messages, or to its line, whose routine runs at `PASSIVE_LEVEL`. Dropping it disconnects and waits
/// for the routine and for the DPCs that were requested, at
/// `PASSIVE_LEVEL`. Its device cannot be removed while it is there: it goes when the device is stopped.
pub struct PassiveMessages<S>(Connection<S>);

impl<S: PassiveMessageService> PassiveMessages<S> {
    /// Connects `state`'s message service routine to all messages of the device, or its service routine to the line if the
    /// device has no messages. The card must be quiet, or the routine ready for it. `line` is the line among the device's
    /// resources, if there is one; only a platform that knows no better form of connecting asks for it.
    ///
    /// # Errors
    /// Those of `IoConnectInterruptEx`, and `STATUS_INSUFFICIENT_RESOURCES`; `state` is dropped.
    pub fn connect<T>(
        device: &Device<T>,
        line: Option<&InterruptLine>,
        state: S,
        tag: Tag,
        passive: &mut Passive,
    ) -> Result<Self> {
        let context = Context::new(device, state, tag, passive)?;
        let routine: sys::MessageServiceRoutine = serve_passive_message::<S>;
        let routines = [raw::stored((routine as *const ()).cast_mut()), line_routine::<S>()];
        let parameters = message_based(abi::CONNECT_MESSAGE_BASED_PASSIVE, device, &context, routines);
        let again = line.map(|line| {
            let at_passive = Vector { irql: abi::PASSIVE_LEVEL, ..line.0 };
            fully_specified(device, &context, line_routine::<S>(), &at_passive)
        });
        // SAFETY: at PASSIVE_LEVEL; filled in for this context, and for the device.
        unsafe { Connection::make(device, context, parameters, again, false) }.map(Self)
    }

    /// Runs `body` on the service routine's state, at `PASSIVE_LEVEL` while the routine is kept out (`KeSynchronizeExecution`).
    /// It may wait, but not for an interrupt of this device.
    pub fn synchronize<R>(&self, _passive: &mut Passive, body: impl FnOnce(&mut S, &mut Passive) -> R) -> R {
        // SAFETY: connected with routines at PASSIVE_LEVEL, which is the caller's too.
        unsafe { self.0.synchronize(body) }
    }
}

impl<S> PassiveMessages<S> {
    /// By which form it was connected in the end: `CONNECT_MESSAGE_BASED_PASSIVE`, `CONNECT_LINE_BASED` or
    /// `CONNECT_FULLY_SPECIFIED`.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.version()
    }

    /// The messages; none if it is the line that was connected.
    #[must_use]
    pub fn table(&self) -> Option<MessageTable> {
        MessageTable::of(&self.0)
    }
}

fn line_routine<S: PassiveService>() -> DriverPtr<Code> {
    let routine: sys::ServiceRoutine = serve_passive::<S>;
    raw::stored((routine as *const ()).cast_mut())
}

unsafe extern "system" fn serve_passive<S: PassiveService>(
    _interrupt: *mut KINTERRUPT,
    context: *mut c_void,
) -> u8 {
    // SAFETY: registered with a context of this type, at PASSIVE_LEVEL.
    unsafe { Context::<S>::call(context, S::service) }
}

unsafe extern "system" fn serve_passive_message<S: PassiveMessageService>(
    _interrupt: *mut KINTERRUPT,
    context: *mut c_void,
    message: u32,
) -> u8 {
    // SAFETY: registered with a context of this type, at PASSIVE_LEVEL.
    unsafe { Context::<S>::call(context, |state: &mut S, passive| state.message(message, passive)) }
}
