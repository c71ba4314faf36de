//! Passing power IRPs down a stack.
//!
//! Pages: *PoCallDriver function*, *PoStartNextPowerIrp function*, *Calling IoCallDriver vs. Calling PoCallDriver*. Since Windows Vista the
//! first is `IoCallDriver` and the second does nothing; older rules for them are not checked.

use abi::{DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IRP, IRP_MJ_POWER, NtStatus};
use engine::Flow;

use crate::cx::Cx;
use crate::io;
use crate::verdict::Verdict;

/// `PoCallDriver`.
///
/// # Errors
/// As `IoCallDriver`.
pub(crate) fn call_driver(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    let next = io::irp::next(cx, irp)?;
    let major = cx.read(next + IO_STACK_LOCATION::MajorFunction)?;
    if major != IRP_MJ_POWER {
        let message = format!(
            "PoCallDriver was called for the IRP {:#x}, whose major function is {major:#x}; it is for IRP_MJ_POWER only",
            irp.address
        );
        // Since Windows Vista it does what IoCallDriver does.
        cx.report(Verdict::warning("not-a-power-irp", message));
    }
    io::irp::call_driver(cx, device, irp)
}

/// `PoStartNextPowerIrp`: since Windows Vista the power manager knows by itself.
///
/// # Errors
/// A verdict if the IRP cannot be read.
pub(crate) fn start_next(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<()> {
    cx.read(irp + IRP::Type).map(|_| ())
}
