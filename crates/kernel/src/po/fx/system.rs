//! What the framework does when the system goes to sleep and wakes.
//!
//! Pages: *ComponentActiveConditionCallback* ("the Windows kernel might activate the component on behalf of the driver before sending … a system set-power
//! IRP"), *PoFxReportDevicePoweredOn function* (a request for S0 is to be answered with it), *PoFxSetDeviceIdleTimeout function*. Whether the components
//! are activated is the choice `po.fx_sleep`: they are, by default. From then until the driver says that its device is on nothing is done
//! with the device but what its driver is told about components that become idle. *It does not* activate components before Plug and Play requests.

use abi::{DEVICE_OBJECT, DriverPtr};
use engine::Flow;

use super::{Condition, drive, of_device};
use crate::cx::Cx;
use crate::ke::wait::Timeout;

/// The drivers of a device are about to get a request that the system goes to sleep.
///
/// # Errors
/// Of what a driver's routines do.
pub(crate) fn before_sleep(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let managed = |device: &super::Device| device.started && !device.gone && !device.held;
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
