//! Exceptions that kernel routines raise in the driver that called them. Follows *ExRaiseStatus function*,
//! *ProbeForRead function*, *ProbeForWrite function*.
//!
//! The way to a driver's `__except` is not built yet: raising ends the run by name.

use abi::{DriverPtr, NtStatus};
use engine::{Flow, Leave};

use crate::cx::Cx;
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::verdict::Verdict;

/// Raises `status` in the driver that called `routine`.
pub fn raise(cx: &mut Cx<'_>, status: NtStatus, routine: &str) -> Leave {
    cx.stop(Verdict::not_implemented(&format!("the exception {status} that {routine} raises")))
}

/// `ExRaiseStatus`.
///
/// # Errors
/// Always: it does not return.
pub fn raise_status(cx: &mut Cx<'_>, status: NtStatus) -> Flow<()> {
    Err(raise(cx, status, "ExRaiseStatus"))
}

/// `ExRaiseAccessViolation`.
///
/// # Errors
/// Always: it does not return.
pub fn raise_access_violation(cx: &mut Cx<'_>) -> Flow<()> {
    Err(raise(cx, NtStatus::ACCESS_VIOLATION, "ExRaiseAccessViolation"))
}

/// `ExRaiseDatatypeMisalignment`.
///
/// # Errors
/// Always: it does not return.
pub fn raise_datatype_misalignment(cx: &mut Cx<'_>) -> Flow<()> {
    Err(raise(cx, NtStatus::DATATYPE_MISALIGNMENT, "ExRaiseDatatypeMisalignment"))
}

/// `ProbeForRead`: raises if the range is no user-mode range or not aligned; it is not touched.
///
/// # Errors
/// The exception.
pub fn probe_for_read(cx: &mut Cx<'_>, address: DriverPtr<()>, length: u64, alignment: u32) -> Flow<()> {
    probe_range(cx, address.address, length, alignment, "ProbeForRead")
}

/// `ProbeForWrite`: as `ProbeForRead`, and every page of it must be writable.
///
/// # Errors
/// The exception.
pub fn probe_for_write(cx: &mut Cx<'_>, address: DriverPtr<()>, length: u64, alignment: u32) -> Flow<()> {
    probe_range(cx, address.address, length, alignment, "ProbeForWrite")?;
    if length == 0 {
        return Ok(());
    }
    let last = address.address + length - 1;
    let writable = cx.with(|k| {
        let pages = address.address / PAGE..=last / PAGE;
        pages
            .map(|page| k.mm.map.page(page * PAGE))
            .all(|page| page.is_some_and(|page| page.protection.write))
    });
    if writable { Ok(()) } else { Err(raise(cx, NtStatus::ACCESS_VIOLATION, "ProbeForWrite")) }
}

const PAGE: u64 = engine::windows::PAGE;

fn probe_range(cx: &mut Cx<'_>, address: u64, length: u64, alignment: u32, name: &str) -> Flow<()> {
    if length == 0 {
        return Ok(());
    }
    if !matches!(alignment, 1 | 2 | 4 | 8 | 16) {
        let message = format!("{name} was given the alignment {alignment}; 1, 2, 4, 8 and 16 are legal");
        return Err(cx.stop(Verdict::error("probe-alignment", message)));
    }
    if !address.is_multiple_of(alignment.into()) {
        return Err(raise(cx, NtStatus::DATATYPE_MISALIGNMENT, name));
    }
    match address.checked_add(length) {
        Some(end) if end <= USER_PROBE_ADDRESS => Ok(()),
        _ => Err(raise(cx, NtStatus::ACCESS_VIOLATION, name)),
    }
}
