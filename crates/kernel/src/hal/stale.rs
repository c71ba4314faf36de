//! Accesses to hardware that the driver was not given: ports that no device has, windows of a device that is stopped, and those that a
//! device had before it was started elsewhere.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *Handling an IRP_MN_STOP_DEVICE Request*, *IRP_MN_START_DEVICE*. On a PC such an
//! access reads ones or hits what is there now. The first two are warnings; the last is an error: the driver was given the device's new
//! address, and takes something else for it. Which driver may touch which window is not known here.

use std::collections::BTreeSet;

use engine::Flow;

use super::hardware::Window;
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ke::callout::Callout;
use crate::pnp::resource;
use crate::verdict::Verdict;

/// Why a driver has a device's windows no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The device is `stopped` or `removed`.
    GivenBack(&'static str),
    /// The card is below D0: in which state.
    NoPower(&'static str),
}

/// Windows whose device has given them back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Released {
    /// The device's name.
    pub(crate) device: String,
    pub(crate) why: Why,
    /// Where it was.
    pub(crate) window: Window,
    /// Where it is since the device was started again, if that is elsewhere.
    pub(crate) now: Option<u64>,
}

impl Released {
    fn has(&self, port: bool, address: u64) -> bool {
        self.window.has(port, address)
    }
}

/// A bit for each port.
const PORT_WORDS: usize = (u16::MAX as usize + 1) / 64;

/// What has been looked at already, and what has been given back.
pub(crate) struct Stale {
    released: Vec<Released>,
    /// Ports that are known to be right, or were reported: a bit each.
    seen_ports: Box<[u64; PORT_WORDS]>,
    /// Devices of which an access was reported, and those of which one by a service routine was.
    told_devices: BTreeSet<String>,
    told_services: BTreeSet<String>,
}

impl Default for Stale {
    fn default() -> Self {
        let seen_ports = Box::new([0; PORT_WORDS]);
        Self {
            released: Vec::new(),
            seen_ports,
            told_devices: BTreeSet::new(),
            told_services: BTreeSet::new(),
        }
    }
}

impl Stale {
    /// Whether every device has its windows.
    #[inline]
    pub(crate) fn nothing_released(&self) -> bool {
        self.released.is_empty()
    }

    /// Whether a port was noted.
    #[inline]
    pub(super) fn is_known(&self, port: u16) -> bool {
        self.seen_ports[usize::from(port / 64)] & 1 << (port % 64) != 0
    }

    /// Notes a port; whether it was not noted yet.
    #[inline]
    fn is_new(&mut self, port: u16) -> bool {
        let new = !self.is_known(port);
        self.seen_ports[usize::from(port / 64)] |= 1 << (port % 64);
        new
    }

    /// A device gave its windows back.
    pub(crate) fn release(&mut self, windows: Vec<Released>) {
        self.seen_ports.fill(0);
        for new in &windows {
            for old in self.released.iter_mut().filter(|old| old.device == new.device) {
                (old.why, old.now) = (new.why, None);
            }
        }
        self.released.extend(windows);
    }

    /// The device is gone, with or without power: its registers read as ones, and drivers find out by that.
    pub(crate) fn gone(&mut self, device: &str) {
        self.released.retain(|old| old.device != device || !matches!(old.why, Why::NoPower(_)));
    }

    /// The device has these windows now. Where it was and is no more, its driver has lost nothing.
    pub(crate) fn assign(&mut self, device: &str, windows: &[Window]) {
        self.seen_ports.fill(0);
        self.told_devices.remove(device);
        self.told_services.remove(device);
        let overlaps = |one: &Window, other: &Window| {
            one.port == other.port
                && one.base < other.base + other.length
                && other.base < one.base + one.length
        };
        self.released.retain(|old| !windows.iter().any(|new| overlaps(&old.window, new)));
        for old in self.released.iter_mut().filter(|old| old.device == device) {
            old.now = windows.iter().find(|new| new.bar == old.window.bar).map(|new| new.base);
        }
        self.released.retain(|old| old.device != device || old.now.is_some());
    }

    /// A device has moved; it may have run until now.
    pub(crate) fn moved(&mut self, device: &str, from: &[Window], to: &[Window]) {
        let is_elsewhere = |old: &&Window| to.iter().all(|new| new.bar != old.bar || new.base != old.base);
        for window in from.iter().filter(is_elsewhere) {
            if !self.released.iter().any(|known| known.device == device && known.window == *window) {
                let (device, why) = (device.to_owned(), Why::GivenBack("stopped"));
                self.released.push(Released { device, why, window: *window, now: None });
            }
        }
        self.assign(device, to);
    }

    fn released_at(&self, port: bool, address: u64) -> Option<Released> {
        self.released.iter().find(|window| window.has(port, address)).cloned()
    }

    /// Whether an access to the device is reported for the first time.
    fn is_first(&mut self, device: &str, by_service: bool) -> bool {
        let reported = if by_service { &mut self.told_services } else { &mut self.told_devices };
        reported.insert(device.to_owned())
    }
}

/// CONFIG_ADDRESS and CONFIG_DATA.
const CONFIG_PORTS: std::ops::RangeInclusive<u16> = 0xCF8..=0xCFF;

/// Before a port access.
#[inline]
pub(crate) fn check_port(cx: &mut Cx<'_>, port: u16, bytes: u8) -> Flow<()> {
    if cx.with(|k| k.hal.stale.is_new(port)) && !CONFIG_PORTS.contains(&port) {
        return check_new_port(cx, port, bytes);
    }
    Ok(())
}

fn check_new_port(cx: &mut Cx<'_>, port: u16, bytes: u8) -> Flow<()> {
    let (released, owned) = cx.with(|k| {
        let released = k.hal.stale.released_at(true, port.into());
        let functions = k.hal.hardware.functions();
        let is_of_a_card =
            functions.iter().flat_map(|f| &f.windows).any(|window| window.has(true, port.into()));
        // A device on no bus has what its INF gives it, whether or not there is a model of it.
        (released, is_of_a_card || resource::has_port(k, port))
    });
    if let Some(window) = released {
        return tell_released(cx, &window, port.into());
    }
    if !owned {
        let message = format!(
            "the driver accessed {bytes} byte(s) at port {port:#x}, which no device of this machine has; reads give ones"
        );
        warn(cx, "port-of-no-device", message);
    }
    Ok(())
}

/// Before an access to device memory at a bus address.
pub(crate) fn check_memory(cx: &mut Cx<'_>, address: u64) -> Flow<()> {
    if cx.with(|k| k.hal.stale.nothing_released()) {
        return Ok(());
    }
    match cx.with(|k| k.hal.stale.released_at(false, address)) {
        Some(window) => tell_released(cx, &window, address),
        None => Ok(()),
    }
}

#[cold]
fn tell_released(cx: &mut Cx<'_>, released: &Released, address: u64) -> Flow<()> {
    let Released { device, why, window, now } = released;
    let space = if window.port { "port" } else { "bus address" };
    if let Some(now) = now {
        let bar = window.bar;
        let message = format!(
            "the driver accessed {space} {address:#x}, where BAR{bar} of {device} was until it was stopped: it has been started again, and IRP_MN_START_DEVICE said that BAR{bar} is at {now:#x}"
        );
        return Err(cx.stop(Verdict::error("stale-resource-used", message)));
    }
    let by_service = matches!(why, Why::NoPower(_)) && cx.with(is_in_service_routine);
    let is_first = |cx: &mut Cx<'_>| cx.with(|k| k.hal.stale.is_first(device, by_service));
    match why {
        // It is called for other devices on its line, too: it reads ones, and most do not claim the interrupt then.
        Why::NoPower(state) if by_service => {
            if is_first(cx) {
                let message = format!(
                    "a service routine accessed {space} {address:#x} of {device}, which is {state}: it reads ones there, and some machines log an error; a flag of the driver's says without an access that the interrupt is another device's"
                );
                cx.report(Verdict::advice("card-without-power", message));
            }
        }
        // Its drivers alone send a device to a lower state: where they never do, it is in D0 when Windows removes it.
        Why::NoPower(_) if cx.with(is_sent_away_while_lowered) => {}
        _ if !is_first(cx) => {}
        Why::NoPower(state) => {
            let message = format!(
                "the driver accessed {space} {address:#x} of {device}, which is {state}: reads give ones, and writes are lost"
            );
            warn(cx, "card-without-power", message);
        }
        Why::GivenBack(state) => {
            let message = format!(
                "the driver accessed {space} {address:#x} of {device}, which is {state}: its resources belong to it no more"
            );
            warn(cx, "resource-used-after-release", message);
        }
    }
    Ok(())
}

/// The processor is in a service routine, or in what that calls: not in a thread that holds the interrupt's lock.
pub(super) fn is_in_service_routine(k: &mut Kernel) -> bool {
    let processor = k.ke.processor();
    processor.entered.iter().any(|entered| entered.stack.base == processor.interrupt_stack)
}

/// The thread is in a driver's dispatch routine for Plug and Play requests, and a script has sent a device to a lower state.
fn is_sent_away_while_lowered(k: &mut Kernel) -> bool {
    let is_plug_and_play = |call: &Callout| call.role == Role::DispatchPnp;
    !k.po.lowered_from_outside.is_empty()
        && k.ke.thread().is_some_and(|thread| thread.callouts.iter().any(is_plug_and_play))
}

fn warn(cx: &mut Cx<'_>, rule: &'static str, message: String) {
    cx.report(Verdict::warning(rule, message));
}
