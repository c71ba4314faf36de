//! What drivers tell the power manager about their devices.
//!
//! Page: *PoSetPowerState function*. A device whose state was never set is unspecified.

use abi::{
    DEVICE_OBJECT, DevicePowerState, DriverPtr, PowerDeviceD0, PowerDeviceMaximum, PowerDeviceUnspecified,
    PowerSystemMaximum, PowerSystemUnspecified,
};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::ke;
use crate::verdict::Verdict;

/// `PoSetPowerState`: remembers the state and returns the one before.
///
/// A state that does not exist is not remembered; no page says that Windows would stop.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn set(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, kind: u32, state: u32) -> Flow<u32> {
    cx.read(device + DEVICE_OBJECT::Type)?;
    let for_device = kind == DevicePowerState;
    let end = if for_device { PowerDeviceMaximum } else { PowerSystemMaximum };
    if kind > DevicePowerState || state == PowerDeviceUnspecified || state >= end {
        let message =
            format!("PoSetPowerState was called with type {kind} and state {state}, which do not exist");
        cx.report(Verdict::warning("bad-power-state", message));
        return Ok(cx.with(|k| before(k, device, for_device)));
    }
    if ke::irql::current(cx) >= 2 && state != PowerDeviceD0 {
        let message = format!(
            "PoSetPowerState was called at DISPATCH_LEVEL for D{}; there it may only say D0",
            state - 1
        );
        cx.report(Verdict::warning("irql-too-high", message));
    }
    Ok(cx.with(|k| {
        let before = before(k, device, for_device);
        let states = if for_device { &mut k.po.devices } else { &mut k.po.system };
        states.insert(device.address, state);
        before
    }))
}

/// The state that was set last.
fn before(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>, for_device: bool) -> u32 {
    let (states, unspecified) = if for_device {
        (&k.po.devices, PowerDeviceUnspecified)
    } else {
        (&k.po.system, PowerSystemUnspecified)
    };
    states.get(&device.address).copied().unwrap_or(unspecified)
}
