//! IRPs: allocation, sending, completion.

use abi::{DEVICE_OBJECT, DriverPtr, IRP, NtStatus};
use engine::Flow;

use crate::cx::Cx;

/// `IoAllocateIrp`: an IRP with `stack_size` (1–127) locations from nonpaged pool; null if there is no memory.
pub fn allocate(_cx: &mut Cx<'_>, _stack_size: u8, _charge_quota: bool) -> Flow<DriverPtr<IRP>> {
    todo!("io helper")
}

/// `IoFreeIrp`.
pub fn free(_cx: &mut Cx<'_>, _irp: DriverPtr<IRP>) -> Flow<()> {
    todo!("io helper")
}

/// `IofCallDriver`: sends the IRP to the driver of `device`, whose dispatch routine answers.
pub fn call_driver(
    _cx: &mut Cx<'_>,
    _device: DriverPtr<DEVICE_OBJECT>,
    _irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    todo!("io helper")
}

/// `IofCompleteRequest`.
pub fn complete(_cx: &mut Cx<'_>, _irp: DriverPtr<IRP>, _priority_boost: u8) -> Flow<()> {
    todo!("io helper")
}
