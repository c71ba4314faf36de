//! Plug and Play: device nodes, resources, the PCI bus driver, the order of start, stop and remove.
//!
//! Here is only what the I/O manager asks about a physical device object.

use std::collections::BTreeMap;

use abi::{DEVICE_OBJECT, DriverPtr};

use crate::cx::Kernel;
use crate::nt::Settings;

/// The line interrupt a device was given, translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// The line: raw level and raw vector.
    pub line: u32,
    /// Translated vector.
    pub vector: u32,
    /// Translated level: the IRQL.
    pub irql: u8,
    /// The processors it is delivered to.
    pub affinity: u64,
}

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// Interrupts by physical device object.
    pub interrupts: BTreeMap<u64, Interrupt>,
    /// Instance paths by physical device object.
    pub instances: BTreeMap<u64, String>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}

/// Whether `device` is the physical device object of a device that has been enumerated.
#[must_use]
pub fn is_physical(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    k.pnp.instances.contains_key(&device.address)
}

/// The name in the registry of the device with this physical device object: `PCI\VEN_…\3&…`.
#[must_use]
pub fn instance_path(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Option<String> {
    k.pnp.instances.get(&device.address).cloned()
}

/// The line interrupt that a device was started with, by its physical device object.
#[must_use]
pub fn interrupt_of(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Option<Interrupt> {
    k.pnp.interrupts.get(&device.address).copied()
}
