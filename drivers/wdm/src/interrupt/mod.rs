//! Connected interrupts, a line or messages, and the state that their service routine has for itself.
//!
//! Pages: *IoConnectInterruptEx*, *Registering an ISR*, *Removing an ISR*. What the service routine works on belongs to the
//! connection: the routine has it alone, and others reach it only by `synchronize`. The routine may be called before its
//! driver knows that it is connected. There is no CONNECT_MESSAGE_BASED_PASSIVE, and nothing is reported inactive.

mod connection;
#[cfg(test)]
mod fake;
mod line;
mod message;
#[cfg(test)]
mod tests;

pub use line::Interrupt;
pub use message::{MessageTable, Messages};

use crate::irql::Dirql;

/// Whose interrupt it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Another device's on this line.
    Other,
    /// This device's; nothing is left to do.
    Mine,
    /// This device's; its `DpcForIsr` shall run (`IoRequestDpc`).
    MineAndDpc,
}

/// The state of an interrupt service routine.
pub trait Service: Send + 'static {
    /// The routine of a line. It runs at the device's level with the interrupt's lock held.
    fn service(&mut self, dirql: &mut Dirql) -> Claim;
}

/// The state of an interrupt message service routine. [`Service::service`] is its fall-back: it is called where the device
/// has only its line.
pub trait MessageService: Service {
    /// The routine of all messages, which share one lock: it never overlaps itself. `message` counts from 0.
    fn message(&mut self, message: u32, dirql: &mut Dirql) -> Claim;
}
