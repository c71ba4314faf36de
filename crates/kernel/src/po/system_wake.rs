//! Which requests to wait for a wake signal have woken the system.
//!
//! Pages: *PoSetSystemWake function*, *PoGetSystemWake function*. The mark is on the request until it ends. Of any other request it is no mark, and
//! nothing is wrong with asking.

use abi::{DriverPtr, IO_STACK_LOCATION, IRP, IRP_MJ_POWER, IRP_MN_WAIT_WAKE};
use engine::Flow;

use crate::cx::Cx;
use crate::io::irp;

/// `PoSetSystemWake`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn set(cx: &mut Cx<'_>, request: DriverPtr<IRP>) -> Flow<()> {
    if is_wait_wake(cx, request)? {
        cx.with(|k| k.po.woken.insert(request.address));
    }
    Ok(())
}

/// `PoGetSystemWake`.
///
/// # Errors
/// As [`set`].
pub(crate) fn get(cx: &mut Cx<'_>, request: DriverPtr<IRP>) -> Flow<bool> {
    cx.read(request + IRP::Type)?;
    Ok(cx.with(|k| k.po.woken.contains(&request.address)))
}

fn is_wait_wake(cx: &mut Cx<'_>, request: DriverPtr<IRP>) -> Flow<bool> {
    let location = irp::current(cx, request)?;
    Ok(!location.is_null()
        && cx.read(location + IO_STACK_LOCATION::MajorFunction)? == IRP_MJ_POWER
        && cx.read(location + IO_STACK_LOCATION::MinorFunction)? == IRP_MN_WAIT_WAKE)
}
