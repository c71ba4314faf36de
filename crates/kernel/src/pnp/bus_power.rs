//! What the PCI bus driver answers to `IRP_MJ_POWER` on a physical device object.
//!
//! Pages: *IRP_MN_SET_POWER*, *IRP_MN_QUERY_POWER*, *IRP_MN_WAIT_WAKE*. A state is remembered; a card that loses its registers in
//! D3 is not modelled yet, nor is waking.

use abi::{
    DEVICE_OBJECT, DevicePowerState, DriverPtr, IO_STACK_LOCATION, IRP, IRP_MN_QUERY_POWER, IRP_MN_SET_POWER,
    IRP_MN_WAIT_WAKE, NtStatus,
};
use engine::Flow;

use super::bus;
use super::node::NodeId;
use crate::cx::Cx;
use crate::io;

/// `IRP_MJ_POWER` on a physical device object.
///
/// # Errors
/// As completing.
pub fn dispatch(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>) -> Flow<NtStatus> {
    let location = io::irp::current(cx, irp)?;
    let minor = cx.read(location + IO_STACK_LOCATION::MinorFunction)?;
    let kind = cx.read(location + IO_STACK_LOCATION::Parameters_Power_Type)?;
    let state = cx.read(location + IO_STACK_LOCATION::Parameters_Power_State)?;
    let id = NodeId(device.address);
    cx.with(|k| {
        if let Some(node) = k.pnp.nodes.get_mut(&id) {
            node.seen = true;
            if minor == IRP_MN_SET_POWER && kind == DevicePowerState {
                node.power = state;
            }
        }
    });
    let status = match minor {
        IRP_MN_SET_POWER | IRP_MN_QUERY_POWER => Some(NtStatus::SUCCESS),
        IRP_MN_WAIT_WAKE => Some(NtStatus::NOT_SUPPORTED),
        _ => None,
    };
    bus::complete(cx, irp, status, None)
}
