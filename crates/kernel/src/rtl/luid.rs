//! Identifiers that are unique until the machine is booted again.
//!
//! Pages: *RtlCopyLuid function*, *RtlEqualLuid function*, *ZwAllocateLocallyUniqueId function*.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use crate::cx::Cx;

/// As on Windows, the first ones are those of privileges and logon sessions.
const FIRST: u64 = 1000;

/// `RtlCopyLuid`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn copy(cx: &mut Cx<'_>, to: DriverPtr<u64>, from: DriverPtr<u64>) -> Flow<()> {
    let luid = cx.read(from)?;
    cx.write(to, luid)
}

/// `RtlEqualLuid`.
///
/// # Errors
/// As [`copy`].
pub(crate) fn equal(cx: &mut Cx<'_>, one: DriverPtr<u64>, two: DriverPtr<u64>) -> Flow<bool> {
    Ok(cx.read(one)? == cx.read(two)?)
}

/// `ZwAllocateLocallyUniqueId`.
///
/// # Errors
/// As [`copy`].
pub(crate) fn zw_allocate(cx: &mut Cx<'_>, to: DriverPtr<u64>) -> Flow<NtStatus> {
    let luid = cx.with(|k| {
        k.ex.luids += 1;
        FIRST + k.ex.luids
    });
    cx.write(to, luid)?;
    Ok(NtStatus::SUCCESS)
}
