//! `Hal*` and what stands below it: hardware, interrupt lines, bus data.

pub mod access;
pub mod hardware;

use hardware::Hardware;

/// State of this prefix.
pub struct State {
    /// The devices, ports and lines of the machine.
    pub hardware: Box<dyn Hardware>,
}

impl State {
    /// On this hardware.
    #[must_use]
    pub fn new(hardware: Box<dyn Hardware>) -> Self {
        Self { hardware }
    }
}
