//! Accesses to hardware that nobody gave the driver: ports that no device has, and windows of a device that is stopped.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *Handling an IRP_MN_STOP_DEVICE Request*. These are warnings: on a
//! PC such an access reads ones or hits what is there now. Whose driver may touch which window is not known here.

use std::collections::BTreeSet;

use crate::cx::Cx;
use crate::verdict::Verdict;

/// Windows whose device has given them back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Released {
    /// The device's name.
    pub(crate) device: String,
    /// `stopped` or `removed`.
    pub(crate) state: &'static str,
    /// I/O space if true, else memory.
    pub(crate) port: bool,
    /// First address.
    pub(crate) base: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// What has been looked at already, and what has been given back.
pub(crate) struct Stale {
    released: Vec<Released>,
    /// Ports that are known to be right, or were told about: a bit each.
    seen_ports: Vec<u64>,
    told_devices: BTreeSet<String>,
}

impl Default for Stale {
    fn default() -> Self {
        let seen_ports = vec![0; usize::from(u16::MAX) / 64 + 1];
        Self { released: Vec::new(), seen_ports, told_devices: BTreeSet::new() }
    }
}

impl Stale {
    /// Whether every device has its windows.
    #[inline]
    pub(crate) fn nothing_released(&self) -> bool {
        self.released.is_empty()
    }

    /// Notes a port; whether it was not noted yet.
    #[inline]
    fn is_new(&mut self, port: u16) -> bool {
        let (word, bit) = (usize::from(port / 64), 1 << (port % 64));
        let new = self.seen_ports[word] & bit == 0;
        self.seen_ports[word] |= bit;
        new
    }

    /// A device gave its windows back.
    pub(crate) fn release(&mut self, windows: impl IntoIterator<Item = Released>) {
        self.seen_ports.fill(0);
        self.released.extend(windows);
    }

    /// The device has its windows (again).
    pub(crate) fn assign(&mut self, device: &str) {
        self.seen_ports.fill(0);
        self.told_devices.remove(device);
        self.released.retain(|window| window.device != device);
    }

    fn released_at(&mut self, port: bool, address: u64) -> Option<Released> {
        let hit = |w: &&Released| w.port == port && address.wrapping_sub(w.base) < w.length;
        let window = self.released.iter().find(hit)?.clone();
        self.told_devices.insert(window.device.clone()).then_some(window)
    }
}

/// CONFIG_ADDRESS and CONFIG_DATA.
const CONFIG_PORTS: std::ops::RangeInclusive<u16> = 0xCF8..=0xCFF;

/// Before a port access.
#[inline]
pub(crate) fn check_port(cx: &mut Cx<'_>, port: u16, bytes: u8) {
    if cx.with(|k| k.hal.stale.is_new(port)) && !CONFIG_PORTS.contains(&port) {
        check_new_port(cx, port, bytes);
    }
}

fn check_new_port(cx: &mut Cx<'_>, port: u16, bytes: u8) {
    let (released, owned) = cx.with(|k| {
        let released = k.hal.stale.released_at(true, port.into());
        let has = |window: &super::hardware::Window| {
            window.port && u64::from(port).wrapping_sub(window.base) < window.length
        };
        (released, k.hal.hardware.functions().iter().flat_map(|f| &f.windows).any(has))
    });
    if let Some(window) = released {
        warn_released(cx, &window, port.into());
    } else if !owned {
        let message = format!(
            "the driver accessed {bytes} byte(s) at port {port:#x}, which no device of this machine has; reads give ones"
        );
        warn(cx, "port-of-no-device", message);
    }
}

/// Before an access to device memory at a bus address.
pub(crate) fn check_memory(cx: &mut Cx<'_>, address: u64) {
    if cx.with(|k| k.hal.stale.released.is_empty()) {
        return;
    }
    if let Some(window) = cx.with(|k| k.hal.stale.released_at(false, address)) {
        warn_released(cx, &window, address);
    }
}

fn warn_released(cx: &mut Cx<'_>, window: &Released, address: u64) {
    let Released { device, state, port, .. } = window;
    let space = if *port { "port" } else { "bus address" };
    let message = format!(
        "the driver accessed {space} {address:#x} of {device}, which is {state}: its resources belong to it no more"
    );
    warn(cx, "resource-used-after-release", message);
}

fn warn(cx: &mut Cx<'_>, rule: &'static str, message: String) {
    cx.report(Verdict::warning(rule, message));
}
