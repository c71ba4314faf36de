//! Connected interrupts, a line or messages, and the state that their service routine has for itself.
//!
//! Pages: *IoConnectInterruptEx*, *Registering an ISR*, *Removing an ISR*. What the service routine works on belongs to the
//! connection: the routine has it alone, and others reach it only by `synchronize`. The routine may be called before its
//! driver knows that it is connected. Its type says at which level it runs: a [`Service`] at a device's, a [`PassiveService`] at
//! `PASSIVE_LEVEL`. Nothing is reported inactive.

mod connection;
#[cfg(test)]
mod fake;
mod line;
mod message;
mod passive;
#[cfg(test)]
mod tests;
mod vector;

pub use line::Interrupt;
pub use message::{MessageTable, Messages};
pub use passive::PassiveMessages;
pub use vector::Message;

use crate::irql::{Dirql, Passive};

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
    /// The routine of a line, or of one message. It runs at the interrupt's level with its lock held.
    fn service(&mut self, dirql: &mut Dirql) -> Claim;
}

/// The state of an interrupt message service routine. [`Service::service`] is its fall-back: it is called where the device
/// has only its line.
pub trait MessageService: Service {
    /// The routine of all messages, which share one lock: it never overlaps itself. `message` counts from 0.
    fn message(&mut self, message: u32, dirql: &mut Dirql) -> Claim;
}

/// The state of an interrupt service routine at `PASSIVE_LEVEL`.
pub trait PassiveService: Send + 'static {
    /// The routine of a line, on a thread of the system's: it may wait. The line is masked until it returns.
    fn service(&mut self, passive: &mut Passive) -> Claim;
}

/// The state of an interrupt message service routine at `PASSIVE_LEVEL`. [`PassiveService::service`] is its fall-back: it is called
/// where the device has only its line.
pub trait PassiveMessageService: PassiveService {
    /// The routine of all messages: it never overlaps itself. `message` counts from 0.
    fn message(&mut self, message: u32, passive: &mut Passive) -> Claim;
}
