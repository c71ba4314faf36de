//! `Po*`: power IRPs and states.
//!
//! [`request`] sends them for drivers, [`irp`] passes them down a stack, [`state`] remembers what drivers say, [`system`] sends all to
//! sleep, [`overdue`] tells who keeps a request for too long. Idle detection and the runtime power framework (`PoFx*`) come later.

pub mod information;
pub mod irp;
pub(crate) mod overdue;
pub mod request;
pub mod state;
pub mod system;

use std::collections::BTreeMap;

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// What drivers said of their devices, by device object: `PowerDevice*`.
    pub(crate) devices: BTreeMap<u64, u32>,
    /// What drivers said of the system, by device object: `PowerSystem*`.
    pub(crate) system: BTreeMap<u64, u32>,
    /// Requests by the bottom of the stack they go to; the first is under way.
    pub(crate) requests: BTreeMap<u64, Vec<request::Pending>>,
    /// The state that the system has gone to, `PowerSystem*`; unspecified while it works.
    pub(crate) asleep: u32,
    /// Why system requests are under way: `PowerAction*`.
    pub(crate) action: u32,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
