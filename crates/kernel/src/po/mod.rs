//! `Po*`: power IRPs and states.
//!
//! [`request`] sends them for drivers, [`irp`] passes them down a stack, [`state`] remembers what drivers say, [`system`] sends all to
//! sleep, [`overdue`] reports drivers that keep a request for too long, [`watchdog`] how long a stack still has; [`idle`] finds idle
//! devices, [`setting`] tells drivers what the user wants, [`awake`] knows who does not let the system sleep, [`system_wake`] who woke it,
//! [`level`] says at which level they are sent, [`inrush`] that some are sent one at a time, [`fx`] is the runtime power management framework (`PoFx*`).

pub mod awake;
pub mod fx;
pub(crate) mod idle;
pub(crate) mod information;
mod inrush;
pub(crate) mod irp;
mod level;
pub(crate) mod overdue;
pub mod request;
pub mod setting;
pub(crate) mod state;
pub mod system;
pub(crate) mod system_wake;
pub(crate) mod watchdog;

use std::collections::{BTreeMap, BTreeSet};

use engine::StrandId;

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
    /// Devices registered with the runtime power management framework, by their handles.
    pub(crate) fx: fx::Devices,
    /// Why system requests are under way: `PowerAction*`.
    pub(crate) action: u32,
    /// Devices that are watched for idleness, by device object.
    pub(crate) idle: BTreeMap<u64, idle::Watched>,
    pub(crate) settings: setting::State,
    pub(crate) awake: awake::State,
    /// Requests to wait for a wake signal that have woken the system.
    pub(crate) woken: BTreeSet<u64>,
    /// Requests that set or query a state and have not ended, by the bottom of the stack they went to: when each is overdue.
    pub(crate) watched: Vec<watchdog::Watched>,
    pub(crate) inrush: inrush::State,
    /// Stacks by their bottoms for which a driver could not request a state: what it can do is hand that on with a request that must not fail, and leave the
    /// device where it is, until the next request for D0.
    pub(crate) refused: BTreeSet<u64>,
    /// Stacks by their bottoms whose device is in a lower state because a script has sent it there, not its drivers nor a system that goes to sleep.
    pub(crate) lowered_from_outside: BTreeSet<u64>,
    /// How often in a row a request to wait for a wake signal was cancelled and its callback asked for the next, while no application asked for anything, by device
    /// object.
    pub(crate) rearmed: BTreeMap<u64, u32>,
    /// How many such requests were asked for.
    pub(crate) wakes_asked: u64,
    /// Threads of scripts that sleep until a device is to be powered down.
    pub(crate) lowering_awaited: Vec<StrandId>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
