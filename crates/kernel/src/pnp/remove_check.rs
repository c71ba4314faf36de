//! What a driver must have given back when its device is stopped, removed, or gone.
//!
//! Pages: *Handling an IRP_MN_REMOVE_DEVICE Request*, *Handling an IRP_MN_STOP_DEVICE Request*, *Handling an
//! IRP_MN_SURPRISE_REMOVAL Request*, *Bug Check 0xC9* (21D, 21E, 241, 242), *Enabling and Disabling a Device Interface Instance* ("the
//! PnP manager will disable the interfaces when it removes the device"). Memory and handles are looked at on unload.

use std::collections::BTreeSet;

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr};
use engine::Flow;

use super::node::{self, NodeId, State};
use super::notify;
use super::resource;
use crate::cx::{Cx, Kernel};
use crate::hal::stale::{Released, Why};
use crate::io;
use crate::ke;
use crate::mm::io_space;
use crate::po;
use crate::verdict::Verdict;

type Device = DriverPtr<DEVICE_OBJECT>;

/// The driver whose device it is, and the device.
pub(super) fn names(cx: &mut Cx<'_>, id: NodeId) -> (String, String) {
    let (driver, device, bottom) = cx.with(|k| {
        let bottom = k.io.devices.get(id.0).map_or(0, |device| device.driver);
        (k.pnp.node(id).driver, k.pnp.node(id).name.clone(), DriverPtr::new(bottom))
    });
    // A raw device has its bus driver only.
    let driver = if driver.is_null() { bottom } else { driver };
    (io::driver::service(cx, driver), device)
}

/// A device that a driver attached to the physical one, and the driver's service.
pub(super) struct Attached {
    device: Device,
    service: String,
}

/// The devices of the stack above the physical one.
///
/// # Errors
/// As reading memory.
pub(super) fn above(cx: &mut Cx<'_>, id: NodeId) -> Flow<Vec<Attached>> {
    let mut above = Vec::new();
    for device in node::stack(cx, id)?.split_off(1) {
        let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
        above.push(Attached { device, service: io::driver::service(cx, driver) });
    }
    Ok(above)
}

/// Whether a device object is there, its deletion not even asked for.
fn is_alive(k: &Kernel, device: Device) -> bool {
    k.io.devices.get(device.address).is_some_and(|record| !record.delete_pending && !record.deleted)
}

fn is_attached(k: &Kernel, device: Device) -> bool {
    k.io.devices.get(device.address).is_some_and(|record| record.below != 0)
}

/// `AddDevice` failed: the stack must be as before.
///
/// # Errors
/// As reading memory.
pub(super) fn after_failed_add(
    cx: &mut Cx<'_>,
    id: NodeId,
    driver: DriverPtr<DRIVER_OBJECT>,
    stack: &[Device],
) -> Flow<()> {
    let (service, device) = (io::driver::service(cx, driver), cx.with(|k| k.pnp.node(id).name.clone()));
    if stack.len() > 1 {
        let message = format!(
            "AddDevice of {service} failed and left its device object {:#x} attached to {device}",
            stack[1].address
        );
        return Err(cx.stop(Verdict::error("add-device-left-attached", message)));
    }
    Ok(())
}

/// After `IRP_MN_STOP_DEVICE`: the device has no resources. Windows goes on; a service routine that accesses its device gets a verdict there.
pub(super) fn after_stop(cx: &mut Cx<'_>, id: NodeId) {
    if let Some(verdict) = still_connected(cx, id, "IRP_MN_STOP_DEVICE") {
        cx.report(verdict.as_warning());
    }
    still_mapped(cx, id, "IRP_MN_STOP_DEVICE");
}

fn still_connected(cx: &mut Cx<'_>, id: NodeId, what: &str) -> Option<Verdict> {
    let (service, device) = names(cx, id);
    let object = connected(cx, id)?;
    let message = format!(
        "{service} completed {what} of {device} and its interrupt {object:#x} is still connected: IoDisconnectInterrupt(Ex) first"
    );
    Some(Verdict::error("interrupt-still-connected", message))
}

fn still_mapped(cx: &mut Cx<'_>, id: NodeId, what: &str) {
    let (service, device) = names(cx, id);
    for (mapping, caller) in mapped(cx, id) {
        let message = format!(
            "{service} completed {what} of {device} and {:#x} bytes of its memory at {:#x}, mapped by {caller}, are still mapped: MmUnmapIoSpace",
            mapping.bytes, mapping.bus
        );
        // The mapping may be undone later still; an access through it is reported where it is made.
        cx.report(Verdict::warning("io-space-still-mapped", message));
    }
}

/// After `IRP_MN_REMOVE_DEVICE`: nothing of the driver is left on the device. `above` are the devices that were attached.
///
/// # Errors
/// A verdict on devices that are still attached or there, or on an interrupt that is still connected.
pub(super) fn after_remove(cx: &mut Cx<'_>, id: NodeId, above: &[Attached]) -> Flow<()> {
    let device = names(cx, id).1;
    for &Attached { device: left, ref service } in above {
        let (alive, attached) = cx.with(|k| (is_alive(k, left), is_attached(k, left)));
        if !alive && !attached {
            continue;
        }
        let (rule, code, rest) = if attached {
            ("device-not-detached", 0x21D, "is still attached: IoDetachDevice")
        } else {
            ("device-not-deleted", 0x21E, "is still there: IoDeleteDevice")
        };
        let message = format!(
            "{service} completed IRP_MN_REMOVE_DEVICE of {device} and its device object {:#x} {rest}",
            left.address
        );
        cx.stop_or_log(Verdict::error(rule, message).bug_check(0xC9, [code, 0, left.address, 0]))?;
    }
    for &Attached { device: left, ref service } in above {
        for irp in cx.with(|k| k.io.frames.held_by(left.address)) {
            let message = format!(
                "{service} completed IRP_MN_REMOVE_DEVICE of {device} and did not complete the IRP {irp:#x} that it was sent: it stays pending"
            );
            let verdict = Verdict::error("request-pending-after-remove", message);
            let verdict = io::pending::of_irp(cx, irp, verdict);
            cx.report(verdict);
        }
    }
    let service = names(cx, id).0;
    po::fx::after_remove(cx, id.pdo(), &service)?;
    disable_interfaces(cx, id, "IRP_MN_REMOVE_DEVICE")?;
    let interfaces = cx.with(|k| std::mem::take(&mut k.pnp.node_mut(id).interfaces));
    if interfaces > 0 {
        let message = format!(
            "{service} completed IRP_MN_REMOVE_DEVICE of {device} and holds {interfaces} reference(s) to its BUS_INTERFACE_STANDARD: InterfaceDereference"
        );
        cx.report(Verdict::warning("bus-interface-leak", message));
    }
    // Its service routine would be called with what the device objects held, which is gone.
    if let Some(verdict) = still_connected(cx, id, "IRP_MN_REMOVE_DEVICE") {
        return Err(cx.stop(verdict));
    }
    still_mapped(cx, id, "IRP_MN_REMOVE_DEVICE");
    Ok(())
}

/// After `IRP_MN_SURPRISE_REMOVAL`: the devices are still there, for the files on them.
///
/// # Errors
/// With Driver Verifier's I/O option, a verdict on a device that was detached or deleted.
pub(super) fn after_surprise(cx: &mut Cx<'_>, id: NodeId, above: &[Attached]) -> Flow<()> {
    let device = names(cx, id).1;
    for &Attached { device: left, ref service } in above {
        let (alive, attached) = cx.with(|k| (is_alive(k, left), is_attached(k, left)));
        if alive && attached {
            continue;
        }
        let (rule, code, verb) = if alive {
            ("detached-in-surprise-removal", 0x241, "detached")
        } else {
            ("deleted-in-surprise-removal", 0x242, "deleted")
        };
        let message = format!(
            "{service} {verb} its device object {:#x} in IRP_MN_SURPRISE_REMOVAL of {device}; that is for IRP_MN_REMOVE_DEVICE, which follows",
            left.address
        );
        // Windows goes on: the removal that follows does not reach this device any more.
        cx.verify(Verdict::verifier(rule, message).bug_check(0xC9, [code, 0, left.address, 0]))?;
    }
    cx.with(|k| {
        let at = k.engine.now();
        for Attached { device: left, service } in above {
            let held = k.io.frames.calls_held_by(left.address);
            let left = held.into_iter().map(|(call, irp)| Left {
                call,
                irp,
                at,
                service: service.clone(),
                device: device.clone(),
            });
            k.pnp.left.extend(left);
        }
    });
    Ok(())
}

/// A request that a driver had when it had completed the surprise removal of its device, at that moment.
pub(super) struct Left {
    /// The number of the call with which it got it.
    call: u64,
    irp: u64,
    at: u64,
    service: String,
    device: String,
}

/// So long after a surprise removal the requests of before have ended: 1 s. No page says how long it may take.
const ENDS_WITHIN: u64 = 1_000_000_000;

/// An IRP is cancelled: if it is one that its driver has kept since its device went, and that was long ago, it would have kept it for ever.
pub(crate) fn cancelled(cx: &mut Cx<'_>, irp: u64) {
    let kept = cx.with(|k| {
        let now = k.engine.now();
        let kept =
            |left: &&Left| left.irp == irp && now - left.at >= ENDS_WITHIN && k.io.frames.is_held(left.call);
        let Left { at, service, device, .. } = k.pnp.left.iter().find(kept)?;
        Some((now - at, service.clone(), device.clone()))
    });
    let Some((since, service, device)) = kept else { return };
    let message = format!(
        "{service} completed IRP_MN_SURPRISE_REMOVAL of {device} {} ms ago and has kept the IRP {irp:#x} until it is cancelled now: outstanding requests fail \
         when the device is gone, or who waits for them keeps its handle, and the device stays",
        since / 1_000_000
    );
    let verdict = Verdict::warning("request-pending-after-surprise-removal", message);
    let verdict = io::pending::of_irp(cx, irp, verdict);
    cx.report(verdict);
}

/// The device's windows are not assigned from now on: an access to them is a verdict.
pub(super) fn release_windows(k: &mut Kernel, id: NodeId, why: Why) {
    let node = k.pnp.node(id);
    // A card that is gone reads as ones, and drivers find out by that.
    if node.state == State::SurpriseRemoved {
        return;
    }
    let device = node.name.clone();
    let windows = resource::windows(&node.resources);
    let released =
        windows.into_iter().map(|window| Released { device: device.clone(), why, window, now: None });
    k.hal.stale.release(released.collect());
}

/// An interrupt object that the device's driver still has on one of the device's messages, or on its line. A driver with several devices on one line has one
/// connection for each that is started.
fn connected(cx: &mut Cx<'_>, id: NodeId) -> Option<u64> {
    cx.with(|k| {
        let node = k.pnp.node(id);
        if let Some(object) = node.messages().find_map(|message| ke::interrupt::first_on(k, message.vector)) {
            return Some(object);
        }
        let (driver, interrupt) = (node.driver, node.interrupt()?);
        let others = k.pnp.nodes.iter().filter(|(other, node)| {
            **other != id
                && node.has_driver(driver.address)
                && node.interrupt().is_some_and(|i| i.vector == interrupt.vector)
                && matches!(node.state, State::Started | State::StopPending | State::RemovePending)
        });
        let others = others.count();
        let on_line = k.io.interrupts.iter().filter(|(object, connected)| {
            connected.owner == Some(driver.address)
                && ke::interrupt::vector_of(k, **object) == Some(interrupt.vector)
        });
        on_line.map(|(object, _)| *object).nth(others)
    })
}

/// Mappings of the device's windows by its drivers' images.
fn mapped(cx: &mut Cx<'_>, id: NodeId) -> Vec<(io_space::Mapping, String)> {
    let (images, windows) = cx.with(|k| {
        let node = k.pnp.node(id);
        let records =
            node.filters.iter().chain([&node.driver]).filter_map(|it| k.io.drivers.get(&it.address));
        let images: BTreeSet<u64> = records.map(|driver| driver.base).filter(|base| *base != 0).collect();
        (images, node.card().map_or_else(Vec::new, |card| card.function.windows.clone()))
    });
    let mut mappings = Vec::new();
    for image in images {
        mappings.extend(io_space::outstanding(cx, image));
    }
    mappings.retain(|(mapping, _)| {
        windows.iter().any(|w| !w.port && w.base != 0 && mapping.bus.wrapping_sub(w.base) < w.length)
    });
    mappings
}

/// Disables the device's interfaces that its drivers have left enabled in `what`: from now on they must not do it themselves.
///
/// # Errors
/// As telling others of it.
pub(super) fn disable_interfaces(cx: &mut Cx<'_>, id: NodeId, what: &str) -> Flow<()> {
    let (service, device) = names(cx, id);
    for (class, interface) in cx.with(|k| io::interface::disable_device(k, id.pdo())) {
        let message = format!(
            "{service} completed {what} of {device} and left its interface {interface} enabled, which the PnP manager has disabled now: \
             a driver should do it itself (IoSetDeviceInterfaceState), and must not any more after this"
        );
        cx.report(Verdict::advice("interface-still-enabled", message));
        notify::queue::interface_changed(cx, class, interface, false)?;
    }
    Ok(())
}
