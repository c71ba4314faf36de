//! A device's message-signaled interrupts, connected all at once; or its line, if it has no messages.
//!
//! Pages: *Using the CONNECT_MESSAGE_BASED Version of IoConnectInterruptEx*, *IO_INTERRUPT_MESSAGE_INFO*. Whether a device has
//! messages its INF says, and the machine. One lock, the system's, serves all. A platform that knows only the fully
//! specified form gives the line by that, and no messages.

use core::ffi::c_void;

use abi::{
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MessageBased,
    IO_CONNECT_INTERRUPT_PARAMETERS as Connect, IO_INTERRUPT_MESSAGE_INFO as Table, KINTERRUPT,
};

use super::MessageService;
use super::connection::{Connection, Context};
use crate::device::Device;
use crate::irql::{AtMostDispatch, Dirql, Passive};
use crate::pool::Tag;
use crate::resource::InterruptLine;
use crate::{Result, raw, sys};

/// A connection to the device's messages, or to its line. Dropping it disconnects and waits for the DPCs that were
/// requested, so it must not be dropped above `PASSIVE_LEVEL`: it is not [`Send`], so that only a [`crate::Rundown`] can
/// hold it in a device.
pub struct Messages<S>(Connection<S>);

/// The messages that a device was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageTable {
    /// How many: their numbers are below this.
    pub count: u32,
    /// `UnifiedIrql`: the level at which the routine runs, whichever message comes.
    pub irql: u8,
}

impl<S: MessageService> Messages<S> {
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
        let context = Context::new(device, state, tag)?;
        let parameters = message_based(device, &context);
        // SAFETY: filled in for this context, and for the device, which outlives what it holds.
        unsafe { Connection::make(device, context, parameters, line, passive) }.map(Self)
    }

    /// Runs `body` on the service routine's state, at its level and with the lock of all messages held
    /// (`KeSynchronizeExecution`). Of a line whose level is `PASSIVE_LEVEL`, at that only.
    pub fn synchronize<L: AtMostDispatch, R>(
        &self,
        level: &mut L,
        body: impl FnOnce(&mut S, &mut Dirql) -> R,
    ) -> R {
        self.0.synchronize(level, body)
    }
}

impl<S> Messages<S> {
    /// By which form it was connected in the end: `CONNECT_MESSAGE_BASED`, `CONNECT_LINE_BASED` or
    /// `CONNECT_FULLY_SPECIFIED`.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.version()
    }

    /// The messages; none if it is the line that was connected.
    #[must_use]
    pub fn table(&self) -> Option<MessageTable> {
        let table = self.0.table()?;
        // SAFETY: the table lives, unchanged, for as long as the connection.
        unsafe {
            let (count, irql) = (raw::get(table, Table::MessageCount), raw::get(table, Table::UnifiedIrql));
            Some(MessageTable { count, irql })
        }
    }
}

unsafe extern "system" fn serve_message<S: MessageService>(
    _interrupt: *mut KINTERRUPT,
    context: *mut c_void,
    message: u32,
) -> u8 {
    // SAFETY: registered with a context of this type.
    unsafe { Context::<S>::call(context, |state, dirql| state.message(message, dirql)) }
}

fn message_based<T, S: MessageService>(device: &Device<T>, context: &Context<S>) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let messages = Connect::MessageBased.of(at);
    let routine: sys::MessageServiceRoutine = serve_message::<S>;
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, abi::CONNECT_MESSAGE_BASED);
        raw::set(messages, MessageBased::PhysicalDeviceObject, raw::stored(device.pdo().object()));
        raw::set(messages, MessageBased::ConnectionContext_Generic, context.receiver());
        raw::set(
            messages,
            MessageBased::MessageServiceRoutine,
            raw::stored((routine as *const ()).cast_mut()),
        );
        raw::set(messages, MessageBased::ServiceContext, context.service_context());
        raw::set(messages, MessageBased::FallBackServiceRoutine, Context::<S>::line_routine());
    }
    parameters
}
