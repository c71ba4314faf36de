//! What drivers tell the power manager about their devices.
//!
//! Page: *PoSetPowerState function*. A device that nobody spoke of is unspecified.

use abi::{
    DEVICE_OBJECT, DevicePowerState, DriverPtr, PowerDeviceD0, PowerDeviceMaximum, PowerDeviceUnspecified,
    PowerSystemMaximum, PowerSystemUnspecified,
};
use engine::Flow;

use crate::cx::Cx;
use crate::ke;
use crate::verdict::Verdict;

/// `PoSetPowerState`: remembers the state and returns the one before.
///
/// # Errors
/// A verdict if there is no such state.
pub fn set(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, kind: u32, state: u32) -> Flow<u32> {
    cx.read(device + DEVICE_OBJECT::Type)?;
    let for_device = kind == DevicePowerState;
    let end = if for_device { PowerDeviceMaximum } else { PowerSystemMaximum };
    if kind > DevicePowerState || state == PowerDeviceUnspecified || state >= end {
        let message =
            format!("PoSetPowerState was called with type {kind} and state {state}, which do not exist");
        return Err(cx.stop(Verdict::error("bad-power-state", message)));
    }
    if ke::irql::current(cx) >= 2 && state != PowerDeviceD0 {
        let message = format!(
            "PoSetPowerState was called at DISPATCH_LEVEL for D{}; there it may only say D0",
            state - 1
        );
        cx.report(Verdict::warning("irql-too-high", message));
    }
    Ok(cx.with(|k| {
        let states = if for_device { &mut k.po.devices } else { &mut k.po.system };
        let before = states.insert(device.address, state);
        before.unwrap_or(if for_device { PowerDeviceUnspecified } else { PowerSystemUnspecified })
    }))
}
