//! A card wakes its device and the system: `IRP_MN_WAIT_WAKE` at the bus driver, and what PME# does.
//!
//! Pages: *Handling a Wait/Wake IRP in a Bus Driver (PDO)*, *IRP_MN_WAIT_WAKE*, *Completing a Wait/Wake IRP*, *Canceling a Wait/Wake IRP*. PCI Bus Power
//! Management Interface Specification 1.2, 7; *Removing a Device in a Bus Driver* ("Complete any requests queued in the driver"), for which the page of the request
//! has no status but STATUS_CANCELLED. pci.sys owns PME_En and PME_Status. A signal for which no request waits is cleared, and has no effect.

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IRP, NtStatus, PCI_CAPABILITY_ID_POWER_MANAGEMENT,
    PowerSystemWorking,
};
use engine::Flow;

use super::card_power::{PMCSR, PME_ENABLE};
use super::node::NodeId;
use super::{bus, capabilities, remove_check};
use crate::cx::{Cx, Kernel};
use crate::hal::hardware::Width;
use crate::io::{self, cancel};
use crate::ke::thread;
use crate::po;
use crate::verdict::Verdict;

/// PMCSR: the function asserts PME#; cleared by writing 1.
const PME_STATUS: u32 = 1 << 15;
/// PMCSR: the device state.
const STATE: u32 = 3;

/// `IRP_MN_WAIT_WAKE` on the physical device object of a card: pends until the card wakes, or it is cancelled.
pub(super) fn wait(
    cx: &mut Cx<'_>,
    id: NodeId,
    irp: DriverPtr<IRP>,
    location: DriverPtr<IO_STACK_LOCATION>,
) -> Flow<NtStatus> {
    let system = cx.read(location + IO_STACK_LOCATION::Parameters_WaitWake_PowerState)?;
    if let Some(status) = cx.with(|k| refusal(k, id, system)) {
        return bus::complete(cx, irp, Some(status), None);
    }
    bus::hold(cx, irp, location, "PciCancelWaitWake", |k| {
        k.pnp.card_mut(id).waiting = irp;
        set_enabled(k, id, true);
    })?;
    Ok(NtStatus::PENDING)
}

/// Why the card cannot wake the system from that state.
fn refusal(k: &mut Kernel, id: NodeId, system: u32) -> Option<NtStatus> {
    let at = k.pnp.card(id).function.address;
    let pmc = capabilities::power_management(k.configuration(), at);
    let lowest = capabilities::device_wake(pmc);
    if lowest == abi::PowerDeviceUnspecified {
        return Some(NtStatus::NOT_SUPPORTED);
    }
    if system > capabilities::system_wake(pmc) || k.pnp.node(id).power > lowest {
        return Some(NtStatus::INVALID_DEVICE_STATE);
    }
    (!k.pnp.card(id).waiting.is_null()).then_some(NtStatus::DEVICE_BUSY)
}

/// The card may assert PME# from now on, or may not; if it does now, that ends.
pub(super) fn set_enabled(k: &mut Kernel, id: NodeId, enabled: bool) {
    let at = k.pnp.card(id).function.address;
    let hardware = k.configuration();
    let Some(place) = capabilities::find(hardware, at, PCI_CAPABILITY_ID_POWER_MANAGEMENT) else { return };
    let register = (place + PMCSR).into();
    let state = hardware.config_read(at, register, Width::Word) & STATE;
    let enable = if enabled { PME_ENABLE } else { 0 };
    hardware.config_write(at, register, Width::Word, state | PME_STATUS | enable);
}

/// The cancel routine of a request that waits.
///
/// # Errors
/// As completing.
pub fn cancel(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>) -> Flow<()> {
    let id = NodeId(device.address);
    cx.with(|k| {
        if k.pnp.card(id).waiting == irp {
            k.pnp.card_mut(id).waiting = DriverPtr::NULL;
            set_enabled(k, id, false);
        }
    });
    let irql = cx.read(irp + IRP::CancelIrql)?;
    cancel::release(cx, irql)?;
    bus::complete(cx, irp, Some(NtStatus::CANCELLED), None).map(|_| ())
}

/// The outside world has acted on the cards: those that have asserted PME# wake the system, if it sleeps, and then their devices.
///
/// # Errors
/// A verdict on a driver.
pub fn look(cx: &mut Cx<'_>) -> Flow<()> {
    let awake = cx.with(|k| {
        let signaled = k.hal.hardware.take_wakes();
        let is_signaled = |id: &NodeId| signaled.contains(&k.pnp.card(*id).function.address);
        super::card_power::cards(k).into_iter().filter(is_signaled).collect::<Vec<_>>()
    });
    if awake.is_empty() {
        return Ok(());
    }
    thread::wait_for_system(cx, "power manager", move |cx| {
        let wakes_system = cx.with(|k| po::system::sleeps(k));
        if wakes_system {
            let _working = po::system::set(cx, PowerSystemWorking)?;
        }
        awake.into_iter().try_for_each(|id| signaled(cx, id, wakes_system))
    })
}

/// A card has asserted PME#: the request that waits for it ends, marked if it has woken the system.
fn signaled(cx: &mut Cx<'_>, id: NodeId, wakes_system: bool) -> Flow<()> {
    end(cx, id, NtStatus::SUCCESS, wakes_system)
}

/// The device's drivers are being removed: a request that still waits would never be completed.
///
/// # Errors
/// What its completion routines come to.
pub(super) fn device_goes(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let irp = cx.with(|k| k.pnp.card(id).waiting);
    if irp.is_null() {
        return Ok(());
    }
    let (service, device) = remove_check::names(cx, id);
    let message = format!(
        "{service} passed IRP_MN_REMOVE_DEVICE of {device} down and has not cancelled the IRP_MN_WAIT_WAKE {:#x} that it has sent: IoCancelIrp when the \
         device stops, or is asked whether it may be removed",
        irp.address
    );
    let verdict = io::pending::of_irp(cx, irp.address, Verdict::warning("wait-wake-not-cancelled", message));
    cx.report(verdict);
    end(cx, id, NtStatus::CANCELLED, false)
}

/// The request that waits, if there is one, ends with this status, marked if it has woken the system.
fn end(cx: &mut Cx<'_>, id: NodeId, status: NtStatus, wakes_system: bool) -> Flow<()> {
    let irql = cancel::acquire(cx)?;
    let irp = cx.with(|k| {
        set_enabled(k, id, false);
        std::mem::replace(&mut k.pnp.card_mut(id).waiting, DriverPtr::NULL)
    });
    // If it is cancelled meanwhile, its cancel routine completes it.
    let is_ours = !irp.is_null() && !cancel::take_routine(cx, irp)?.is_null();
    cancel::release(cx, irql)?;
    if is_ours {
        if wakes_system {
            po::system_wake::set(cx, irp)?;
        }
        let _ = bus::complete(cx, irp, Some(status), None)?;
    }
    Ok(())
}
