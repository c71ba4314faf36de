//! Idle devices: after so many seconds the power manager sends them to a lower state.
//!
//! Pages: *PoRegisterDeviceForIdleDetection function*, *PoSetDeviceBusyEx function*, *PoSetDeviceBusy macro*, *PoStartDeviceBusy function*,
//! *PoEndDeviceBusy function*, *IRP_MN_SET_POWER*. The counter that a driver gets counts the seconds since its device was busy last; the macro sets it
//! to 0. It stands still while the device is busy or below D0. The one for performance counts on mains, the one for conservation otherwise. What
//! Windows has as standard times of disks, for which -1 asks, is a matter of its power schemes: 20 minutes here.

use abi::{
    DEVICE_OBJECT, DriverPtr, FILE_DEVICE_DISK, FILE_DEVICE_MASS_STORAGE, IRP_MN_SET_POWER, KDPC, KTIMER,
    PowerDeviceD0,
};
use engine::Flow;

use super::request;
use crate::cx::{Cx, Kernel};
use crate::io::stack;
use crate::mm::pool;
use crate::pnp::NodeId;
use crate::verdict::Verdict;
use crate::{ke, ldr};

/// What a driver's pointer is to: the counter, then what counts.
const TIMER_AT: u64 = 0x10;
const DPC_AT: u64 = TIMER_AT + size_of::<KTIMER>() as u64;
const SIZE: u64 = DPC_AT + size_of::<KDPC>() as u64;
/// One second, in 100 ns and in milliseconds.
const SECOND: i64 = 10_000_000;
const PERIOD: i32 = 1000;
/// The time that stands for the standard one of the device's class.
const STANDARD: u32 = u32::MAX;
/// The standard time of disks, in seconds.
const OF_DISKS: u32 = 20 * 60;

/// What is known of a device that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    counter: DriverPtr<u32>,
    /// Seconds; 0 for never.
    conservation: u32,
    performance: u32,
    /// `PowerDevice*`.
    state: u32,
    /// How many of its busy times are not over.
    busy: u32,
}

/// `PoRegisterDeviceForIdleDetection`: the counter; null if the device is not watched any more.
///
/// # Errors
/// A verdict if the device is none.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    conservation: u32,
    performance: u32,
    state: u32,
) -> Flow<u64> {
    let kind = cx.read(device + DEVICE_OBJECT::DeviceType)?;
    let is_disk = matches!(kind, FILE_DEVICE_DISK | FILE_DEVICE_MASS_STORAGE);
    if !is_disk && (conservation == STANDARD || performance == STANDARD) {
        return Ok(0);
    }
    let seconds = |time: u32| if time == STANDARD { OF_DISKS } else { time };
    let (conservation, performance) = (seconds(conservation), seconds(performance));
    let known = cx.with(|k| k.po.idle.get(&device.address).copied());
    let counter = match known {
        Some(watched) => watched.counter,
        None if conservation == 0 && performance == 0 => return Ok(0),
        None => make(cx, device)?,
    };
    if counter.is_null() {
        return Ok(0);
    }
    let timer = DriverPtr::new(counter.address + TIMER_AT);
    cx.write(counter, 0)?;
    let busy = known.map_or(0, |watched| watched.busy);
    let watched = Watched { counter, conservation, performance, state, busy };
    cx.with(|k| k.po.idle.insert(device.address, watched));
    if conservation == 0 && performance == 0 {
        // The counter stays as long as its device: drivers set it at any time.
        ke::timer::cancel(cx, timer)?;
        return Ok(0);
    }
    ke::timer::set_ex(cx, timer, -SECOND, PERIOD, DriverPtr::new(counter.address + DPC_AT))?;
    Ok(counter.address)
}

fn make(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<DriverPtr<u32>> {
    let counter: DriverPtr<u32> = pool::allocate(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"PoId"))?;
    if !counter.is_null() {
        ke::timer::initialize(cx, DriverPtr::new(counter.address + TIMER_AT))?;
        let tick = ldr::internal_address("PopIdleTick").address;
        ke::dpc::initialize(cx, DriverPtr::new(counter.address + DPC_AT), tick, device.address)?;
    }
    Ok(counter)
}

/// The DPC of each device that is watched: another second has gone by.
///
/// # Errors
/// As sending a request.
pub(crate) fn tick(cx: &mut Cx<'_>, _dpc: DriverPtr<KDPC>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let Some(watched) = cx.with(|k| k.po.idle.get(&device.address).copied()) else { return Ok(()) };
    let (limit, is_on) = cx.with(|k| {
        let limit = if k.po.settings.is_plugged_in() { watched.performance } else { watched.conservation };
        (limit, is_on(k, device))
    });
    if limit == 0 || watched.busy != 0 || !is_on {
        return cx.write(watched.counter, 0);
    }
    let idle = cx.read(watched.counter)?.saturating_add(1);
    if idle < limit {
        return cx.write(watched.counter, idle);
    }
    cx.write(watched.counter, 0)?;
    request::send_later(cx, device, IRP_MN_SET_POWER, watched.state)
}

/// Whether the device is in D0, as far as the bus knows or else its driver has said, with no request under way that sets its state.
fn is_on(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    let bottom = stack::bottom(k, device);
    let said = k.po.devices.get(&device.address).copied().unwrap_or(PowerDeviceD0);
    let state = k.pnp.nodes.get(&NodeId(bottom.address)).map_or(said, |node| node.power);
    state == PowerDeviceD0 && !k.po.requests.contains_key(&bottom.address)
}

/// `PoSetDeviceBusyEx`.
///
/// # Errors
/// A verdict if it is no counter.
pub(crate) fn set_busy(cx: &mut Cx<'_>, counter: DriverPtr<u32>) -> Flow<()> {
    of(cx, counter, "PoSetDeviceBusyEx")?;
    cx.write(counter, 0)
}

/// `PoStartDeviceBusy`.
///
/// # Errors
/// As [`set_busy`].
pub(crate) fn start_busy(cx: &mut Cx<'_>, counter: DriverPtr<u32>) -> Flow<()> {
    let device = of(cx, counter, "PoStartDeviceBusy")?;
    cx.with(|k| k.po.idle.get_mut(&device).expect("it was found").busy += 1);
    cx.write(counter, 0)
}

/// `PoEndDeviceBusy`.
///
/// # Errors
/// As [`set_busy`].
pub(crate) fn end_busy(cx: &mut Cx<'_>, counter: DriverPtr<u32>) -> Flow<()> {
    let device = of(cx, counter, "PoEndDeviceBusy")?;
    let was_busy = cx.with(|k| {
        let watched = k.po.idle.get_mut(&device).expect("it was found");
        let was_busy = watched.busy != 0;
        watched.busy = watched.busy.saturating_sub(1);
        was_busy
    });
    if !was_busy {
        let message = "PoEndDeviceBusy was called once more than PoStartDeviceBusy for its device";
        cx.report(Verdict::warning("device-not-busy", message));
    }
    cx.write(counter, 0)
}

/// The device whose counter it is.
fn of(cx: &mut Cx<'_>, counter: DriverPtr<u32>, ddi: &str) -> Flow<u64> {
    let found = cx.with(|k| {
        k.po.idle.iter().find(|(_, watched)| watched.counter == counter).map(|(device, _)| *device)
    });
    found.ok_or_else(|| {
        let message = format!(
            "{ddi} was called with {:#x}, which PoRegisterDeviceForIdleDetection has not returned",
            counter.address
        );
        cx.stop(Verdict::error("not-a-power-object", message))
    })
}

/// The device goes: its counter, too.
pub(crate) fn stop_for_deletion(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let Some(watched) = cx.with(|k| k.po.idle.remove(&device.address)) else { return Ok(()) };
    ke::timer::cancel(cx, DriverPtr::new(watched.counter.address + TIMER_AT))?;
    ke::dpc::remove(cx, DriverPtr::new(watched.counter.address + DPC_AT))?;
    pool::free(cx, watched.counter)
}
