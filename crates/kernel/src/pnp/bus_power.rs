//! What the two bus drivers without an image answer to `IRP_MJ_POWER` on a physical device object. A device that is no card only has a state.
//!
//! Pages: *IRP_MN_SET_POWER*, *IRP_MN_QUERY_POWER*, *IRP_MN_WAIT_WAKE*, *Handling IRP_MN_SET_POWER for Device Power States* ("If the driver cannot complete the IRP
//! immediately, it calls IoMarkIrpPending, returns STATUS_PENDING from its DispatchPower routine, and completes the IRP later"). What becomes of the card is in [`super::card_power`], what wakes it in
//! [`super::wake`].
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DEVICE_OBJECT, DevicePowerState, DriverPtr, IO_STACK_LOCATION, IRP, IRP_MN_QUERY_POWER, IRP_MN_SET_POWER,
    IRP_MN_WAIT_WAKE, NtStatus, PowerDeviceD0, PowerDeviceD1, PowerDeviceD3,
};
use engine::Flow;

use super::node::NodeId;
use super::{bus, card_power, wake};
use crate::cx::Cx;
use crate::{io, ke};

/// `IRP_MJ_POWER` on a physical device object.
///
/// # Errors
/// As completing.
pub(crate) fn dispatch(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    let location = io::irp::current(cx, irp)?;
    let minor = cx.read(location + IO_STACK_LOCATION::MinorFunction)?;
    let kind = cx.read(location + IO_STACK_LOCATION::Parameters_Power_Type)?;
    let state = cx.read(location + IO_STACK_LOCATION::Parameters_Power_State)?;
    let id = NodeId(device.address);
    let is_card = cx.with(|k| {
        let Some(node) = k.pnp.nodes.get_mut(&id) else { return false };
        node.seen = true;
        let is_card = node.card().is_some();
        if minor == IRP_MN_SET_POWER && kind == DevicePowerState {
            node.power = state;
            match state {
                _ if !is_card => {}
                PowerDeviceD0 => card_power::raise(k, id),
                PowerDeviceD1..=PowerDeviceD3 => card_power::lower(k, id, state),
                _ => {}
            }
        }
        is_card
    });
    ke::interrupt::deliver(cx)?;
    if minor == IRP_MN_WAIT_WAKE && is_card {
        return wake::wait(cx, id, irp, location);
    }
    match minor {
        IRP_MN_SET_POWER | IRP_MN_QUERY_POWER => bus::complete_power(cx, irp, Some(NtStatus::SUCCESS)),
        // "The device does not support wake-up."
        IRP_MN_WAIT_WAKE => bus::complete(cx, irp, Some(NtStatus::NOT_SUPPORTED), None),
        _ => bus::complete(cx, irp, None, None),
    }
}
