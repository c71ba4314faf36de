//! The power of a registered device: whether it has to stay in D0.
//!
//! Pages: *DevicePowerRequiredCallback*, *DevicePowerNotRequiredCallback*, *PoFxReportDevicePoweredOn function*,
//! *PoFxCompleteDevicePowerNotRequired function*, *PoFxSetDeviceIdleTimeout function*, *PoFxNotifySurprisePowerOn function*, *PoFxPowerControl
//! function*, *PoFxSetTargetDripsDevicePowerState function*. When a device is reported to be on, all its components are, so idle ones are taken to their
//! F-states from F0 once more; a driver called for a lower F-state before D3 is not called for F0 first (no page says either). A device that was turned
//! on beside another is treated so too, and then as any that is idle.

use abi::{DEVICE_OBJECT, DriverPtr, GUID, NtStatus, PowerDeviceMaximum, PowerDeviceUnspecified};
use engine::Flow;

use super::report::Answer;
use super::{Directed, Power, component, directed, drive, of_device, report};
use crate::cx::Cx;

/// `PoFxSetDeviceIdleTimeout`: in 100 ns.
///
/// # Errors
/// A verdict on the handle.
pub(crate) fn set_idle_timeout(cx: &mut Cx<'_>, handle: u64, timeout: u64) -> Flow<()> {
    report::check(cx, "PoFxSetDeviceIdleTimeout", handle)?;
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.idle_timeout = timeout));
    drive::advance(cx, handle)
}

/// `PoFxReportDevicePoweredOn`: also what the driver says after a request for S0.
///
/// # Errors
/// A verdict on the handle, or if the driver was not asked.
pub(crate) fn report_powered_on(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    report::check(cx, "PoFxReportDevicePoweredOn", handle)?;
    directed::judge(cx, handle, false)?;
    component::answer(cx, handle, Answer::PoweredOn, |device| {
        device.owed = device.owed.checked_sub(1)?;
        device.is_on();
        if device.directed == Directed::Raising {
            device.directed = Directed::Up;
        }
        if std::mem::take(&mut device.sleeps) && std::mem::take(&mut device.held) {
            for component in &mut device.components {
                component.inner -= 1;
            }
        }
        Some(())
    })
}

/// `PoFxCompleteDevicePowerNotRequired`.
///
/// # Errors
/// A verdict on the handle, or if the driver's callback was not called.
pub(crate) fn complete_not_required(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    report::check(cx, "PoFxCompleteDevicePowerNotRequired", handle)?;
    component::answer(cx, handle, Answer::NotRequired, |device| {
        (device.power == Power::Dropping).then(|| device.power = Power::Dropped)
    })
}

/// `PoFxNotifySurprisePowerOn`: nothing happens to a device that is not registered, or whose DevicePowerNotRequired callback was not called.
///
/// # Errors
/// None of its own.
pub(crate) fn notify_surprise_power_on(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let Some(handle) = cx.with(|k| of_device(k, pdo)) else { return Ok(()) };
    cx.with(|k| {
        let device = k.po.fx.get_mut(&handle)?;
        (device.power == Power::Dropped).then(|| device.is_on())
    });
    component::answered(cx, handle)
}

/// `PoFxPowerControl`: no plug-in knows the device.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn power_control(
    cx: &mut Cx<'_>,
    handle: u64,
    code: DriverPtr<GUID>,
    _input: u64,
    _input_size: u64,
    _output: u64,
    _output_size: u64,
    returned: DriverPtr<u64>,
) -> Flow<NtStatus> {
    report::check(cx, "PoFxPowerControl", handle)?;
    cx.read(code)?;
    if !returned.is_null() {
        cx.write(returned, 0)?;
    }
    Ok(NtStatus::NOT_SUPPORTED)
}

/// `PoFxSetTargetDripsDevicePowerState`: the machine has no deepest runtime idle state of a platform, so any device state is accepted and holds nothing up.
///
/// # Errors
/// A verdict on the handle.
pub(crate) fn set_target_drips(cx: &mut Cx<'_>, handle: u64, state: u32) -> Flow<NtStatus> {
    report::check(cx, "PoFxSetTargetDripsDevicePowerState", handle)?;
    let exists = (PowerDeviceUnspecified..PowerDeviceMaximum).contains(&state);
    Ok(if exists { NtStatus::SUCCESS } else { NtStatus::INVALID_PARAMETER })
}
