//! A device's message-signaled interrupts, connected all at once; or its line, if it has no messages.
//!
//! Pages: *Using the CONNECT_MESSAGE_BASED Version of IoConnectInterruptEx*, *IO_INTERRUPT_MESSAGE_INFO*. Whether a device has
//! messages its INF says, and the machine. One lock, the system's, serves all. A platform that knows only the fully
//! specified form gives the line by that, and no messages.

use core::ffi::c_void;

use abi::{
    Code, DriverPtr, IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MessageBased,
    IO_CONNECT_INTERRUPT_PARAMETERS as Connect, IO_INTERRUPT_MESSAGE_INFO as Table, KINTERRUPT,
};

use super::MessageService;
use super::connection::{Connection, Context, fully_specified, line_routine};
use crate::device::Device;
use crate::irql::{AtMostDispatch, Dirql, Passive};
use crate::pool::Tag;
use crate::resource::InterruptLine;
use crate::{Result, raw, sys};

/// A connection to the device's messages, or to its line. Dropping it disconnects and waits for the DPCs that were
/// requested, at
/// `PASSIVE_LEVEL`. Its device cannot be removed while it is there: it goes when the device is stopped.
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
        let context = Context::new(device, state, tag, passive)?;
        let routine: sys::MessageServiceRoutine = serve_message::<S>;
        let routines = [raw::stored((routine as *const ()).cast_mut()), line_routine::<S>()];
        let parameters = message_based(abi::CONNECT_MESSAGE_BASED, device, &context, routines);
        let again = line.map(|line| fully_specified(device, &context, line_routine::<S>(), &line.0));
        let waits = line.is_some_and(|line| line.0.irql == abi::PASSIVE_LEVEL);
        // SAFETY: at PASSIVE_LEVEL; filled in for this context, and for the device.
        unsafe { Connection::make(device, context, parameters, again, waits) }.map(Self)
    }

    /// Runs `body` on the service routine's state, at its level and with the lock of all messages held
    /// (`KeSynchronizeExecution`). Of a line whose level is `PASSIVE_LEVEL`, at that only.
    pub fn synchronize<L: AtMostDispatch, R>(
        &self,
        _level: &mut L,
        body: impl FnOnce(&mut S, &mut Dirql) -> R,
    ) -> R {
        // SAFETY: connected with routines at a device's level; the caller is at most at DISPATCH_LEVEL.
        unsafe { self.0.synchronize(body) }
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
        MessageTable::of(&self.0)
    }
}

impl MessageTable {
    pub(super) fn of<S>(connection: &Connection<S>) -> Option<Self> {
        let table = connection.table()?;
        // SAFETY: the table lives, unchanged, for as long as the connection.
        unsafe {
            let (count, irql) = (raw::get(table, Table::MessageCount), raw::get(table, Table::UnifiedIrql));
            Some(Self { count, irql })
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

/// One of the two forms for all messages; `routines` are the messages' and the line's.
pub(super) fn message_based<T, S: Send + 'static>(
    version: u32,
    device: &Device<T>,
    context: &Context<S>,
    routines: [DriverPtr<Code>; 2],
) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let messages = Connect::MessageBased.of(at);
    let [of_messages, of_line] = routines;
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, version);
        raw::set(messages, MessageBased::PhysicalDeviceObject, raw::stored(device.pdo().object()));
        raw::set(messages, MessageBased::ConnectionContext_Generic, context.receiver());
        raw::set(messages, MessageBased::MessageServiceRoutine, of_messages);
        raw::set(messages, MessageBased::ServiceContext, context.service_context());
        raw::set(messages, MessageBased::FallBackServiceRoutine, of_line);
    }
    parameters
}
