//! A connected interrupt line.
//!
//! Page: *Using the CONNECT_LINE_BASED Version of IoConnectInterruptEx*. Where the platform does not know that form it asks
//! for the fully specified one, and gets it.

use abi::{
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LineBased, IO_CONNECT_INTERRUPT_PARAMETERS as Connect,
};

use super::Service;
use super::connection::{Connection, Context, fully_specified, line_routine};
use crate::device::Device;
use crate::irql::{AtMostDispatch, Dirql, Passive};
use crate::pool::Tag;
use crate::resource::InterruptLine;
use crate::{Result, raw};

/// A connection to the device's line. Dropping it disconnects and waits for the DPCs that were requested, at
/// `PASSIVE_LEVEL`. Its device cannot be removed while it is there: it goes when the device is stopped.
pub struct Interrupt<S>(Connection<S>);

impl<S: Service> Interrupt<S> {
    /// Connects `state`'s service routine to the device's line. The card must be quiet, or the routine ready for it.
    ///
    /// # Errors
    /// Those of `IoConnectInterruptEx`, and `STATUS_INSUFFICIENT_RESOURCES`; `state` is dropped.
    pub fn connect<T>(
        device: &Device<T>,
        line: &InterruptLine,
        state: S,
        tag: Tag,
        passive: &mut Passive,
    ) -> Result<Self> {
        let context = Context::new(device, state, tag, passive)?;
        let parameters = line_based(device, &context);
        let again = fully_specified(device, &context, line_routine::<S>(), &line.0);
        // SAFETY: at PASSIVE_LEVEL; filled in for this context, and for the device.
        unsafe {
            Connection::make(device, context, parameters, Some(again), line.0.irql == abi::PASSIVE_LEVEL)
        }
        .map(Self)
    }

    /// Runs `body` on the service routine's state, at its level and with its lock held (`KeSynchronizeExecution`). Of a line
    /// whose level is `PASSIVE_LEVEL`, at that only.
    pub fn synchronize<L: AtMostDispatch, R>(
        &self,
        _level: &mut L,
        body: impl FnOnce(&mut S, &mut Dirql) -> R,
    ) -> R {
        // SAFETY: connected with a routine at the line's level; the caller is at most at DISPATCH_LEVEL.
        unsafe { self.0.synchronize(body) }
    }
}

fn line_based<T, S: Service>(device: &Device<T>, context: &Context<S>) -> Connect {
    let mut parameters = Connect::zeroed();
    let at = &raw mut parameters;
    let line = Connect::LineBased.of(at);
    // SAFETY: the parameters are ours.
    unsafe {
        raw::set(at, Connect::Version, abi::CONNECT_LINE_BASED);
        raw::set(line, LineBased::PhysicalDeviceObject, raw::stored(device.pdo().object()));
        raw::set(line, LineBased::InterruptObject, context.receiver());
        raw::set(line, LineBased::ServiceRoutine, line_routine::<S>());
        raw::set(line, LineBased::ServiceContext, context.service_context());
    }
    parameters
}
