//! How urgent an IRP is: what drivers say of it and ask for. Nothing here goes by it.
//!
//! Pages: *Using IRP Priority Hints*, *IoGetIoPriorityHint function*, *IoSetIoPriorityHint function*, *IO_PRIORITY_HINT enumeration*. Not here: the hints of threads
//! and files, which new IRPs would get.

use abi::{DriverPtr, IRP, NtStatus};
use engine::Flow;

use crate::cx::Cx;

/// `IoPriorityNormal`: each IRP's, unless another is set.
pub(crate) const NORMAL: u8 = 2;
/// `MaxIoPriorityTypes`.
const END: u32 = 5;

/// `IoGetIoPriorityHint`.
///
/// # Errors
/// None.
pub(crate) fn get(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<u32> {
    Ok(cx.with(|k| k.io.irps.live.get(irp.address).map_or(NORMAL, |record| record.priority)).into())
}

/// `IoSetIoPriorityHint`.
///
/// # Errors
/// None.
pub(crate) fn set(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, hint: u32) -> Flow<NtStatus> {
    let Some(hint) = u8::try_from(hint).ok().filter(|hint| u32::from(*hint) < END) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let set = cx.with(|k| {
        k.io.irps.live.get_mut(irp.address)?.priority = hint;
        Some(())
    });
    Ok(set.map_or(NtStatus::INVALID_PARAMETER, |()| NtStatus::SUCCESS))
}
