//! One message of a device, connected for itself, with a routine, a state, a lock and a level of its own.
//!
//! Page: *Using the CONNECT_FULLY_SPECIFIED Version of IoConnectInterruptEx*. Routines of several vectors run beside each other,
//! or one inside another: what they have in common they share as processors do. A set of vectors with one lock and one level is
//! what [`crate::Messages`] is; it is not made here. At `PASSIVE_LEVEL` there are only whole sets.

use super::Service;
use super::connection::{Connection, Context, fully_specified, line_routine};
use crate::Result;
use crate::device::Device;
use crate::irql::{AtMostDispatch, Dirql, Passive};
use crate::pool::Tag;
use crate::resource::MessageVector;

/// A connection to one message by its vector. Dropping it disconnects and waits for the DPCs that were requested, at
/// `PASSIVE_LEVEL`. A device cannot be removed while it is there: stop it before.
pub struct Message<S>(Connection<S>);

impl<S: Service> Message<S> {
    /// Connects `state`'s service routine to the vector. The card must be quiet, or the routine ready for it.
    ///
    /// # Errors
    /// Those of `IoConnectInterruptEx`, and `STATUS_INSUFFICIENT_RESOURCES`; `state` is dropped.
    pub fn connect<T>(
        device: &Device<T>,
        vector: &MessageVector,
        state: S,
        tag: Tag,
        passive: &mut Passive,
    ) -> Result<Self> {
        let context = Context::new(device, state, tag, passive)?;
        let parameters = fully_specified(device, &context, line_routine::<S>(), &vector.0);
        // SAFETY: at PASSIVE_LEVEL; filled in for this context, and for the device.
        unsafe { Connection::make(device, context, parameters, None, false) }.map(Self)
    }

    /// Runs `body` on this vector's state, at its level and with its lock held (`KeSynchronizeExecution`). The routines of other
    /// vectors are not kept out.
    pub fn synchronize<L: AtMostDispatch, R>(
        &self,
        _level: &mut L,
        body: impl FnOnce(&mut S, &mut Dirql) -> R,
    ) -> R {
        // SAFETY: connected with a routine at the vector's level; the caller is at most at DISPATCH_LEVEL.
        unsafe { self.0.synchronize(body) }
    }
}
