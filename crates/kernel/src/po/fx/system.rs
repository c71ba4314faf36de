//! What the framework does when the system goes to sleep and wakes, and before requests for a lower device state.
//!
//! Pages: *ComponentActiveConditionCallback* ("the Windows kernel might activate the component on behalf of the driver before sending … a system set-power
//! IRP"), *PoFxReportDevicePoweredOn function* (a request for S0 is to be answered with it), *PO_FX_COMPONENT_V2* (`PO_FX_COMPONENT_FLAG_F0_ON_DX`). Whether the components
//! are activated is the choice `po.fx_sleep`: they are, by default. From then until the driver says that its device is on nothing is done
//! with the device but calls of its driver for components that become idle. *It does not* activate components before Plug and Play requests.

use abi::{DEVICE_OBJECT, DriverPtr};
use engine::Flow;

use super::{Condition, Device, drive, of_device};
use crate::cx::Cx;
use crate::ke::wait::Timeout;

/// The drivers of a device are about to get a request that the system goes to sleep.
///
/// # Errors
/// Of what a driver's routines do.
pub(crate) fn before_sleep(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let managed = |device: &Device| device.started && !device.gone && !device.held;
    let handle = cx.with(|k| of_device(k, pdo).filter(|handle| managed(&k.po.fx[handle])));
    let Some(handle) = handle else { return Ok(()) };
    if cx.choose("po.fx_sleep", 2) == 0 {
        cx.with(|k| {
            let device = k.po.fx.get_mut(&handle)?;
            device.held = true;
            (0..device.components.len()).for_each(|index| device.activate(index, false));
            Some(())
        });
        let act = |cx: &mut Cx<'_>| drive::look(cx, handle);
        drive::wait_until(cx, handle, Timeout::Never, act, |k| {
            let device = &k.po.fx[&handle];
            let is_told = |it: &super::Component| it.condition == Condition::Active && it.driven.is_none();
            device.components.iter().all(is_told) || device.is_suspended()
        })?;
    }
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.sleeps = true));
    Ok(())
}

/// The drivers of a device are about to get a request for S0, after which they say that it is on.
pub(crate) fn before_working(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) {
    cx.with(|k| {
        let device = of_device(k, pdo).and_then(|handle| k.po.fx.get_mut(&handle))?;
        device.owed += 1;
        Some(())
    });
}

/// A request for a lower device state is about to be sent to the stack of a physical device object, or one to wait for a wake signal: the
/// components that are to be in F0 then go there first.
///
/// # Errors
/// Of what a driver's routines do.
pub(crate) fn before_lower(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>, waits: bool) -> Flow<()> {
    let Some(handle) = cx.with(|k| of_device(k, pdo)) else { return Ok(()) };
    let is_needed = cx.with(|k| {
        let device = k.po.fx.get_mut(&handle)?;
        device.lowered |= !waits;
        device.waits += u32::from(waits);
        Some(device.components.iter().any(|component| component.f0_on_dx))
    });
    if is_needed != Some(true) {
        return Ok(());
    }
    let act = |cx: &mut Cx<'_>| drive::look(cx, handle);
    let is_there = |device: &Device| {
        let mut kept = device.components.iter().filter(|component| component.f0_on_dx);
        kept.all(|component| component.state == 0 && component.changing.is_none())
    };
    drive::wait_until(cx, handle, Timeout::Never, act, |k| is_there(&k.po.fx[&handle])).map(|_| ())
}

/// A request to wait for a wake signal has ended.
///
/// # Errors
/// Of what is done next.
pub(crate) fn after_wait(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let Some(handle) = cx.with(|k| of_device(k, pdo)) else { return Ok(()) };
    // One that was sent before the device was registered is not counted.
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.waits = device.waits.saturating_sub(1)));
    drive::advance(cx, handle)
}
