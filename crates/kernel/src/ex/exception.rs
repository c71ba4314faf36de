//! Exceptions that kernel routines raise in the driver that called them. Follows *ExRaiseStatus function*,
//! *ProbeForRead function*, *ProbeForWrite function*, *RtlRaiseException function*.
//!
//! The way to a driver's `__except` is `ke::exception`'s.

use abi::{DriverPtr, EXCEPTION_MAXIMUM_PARAMETERS, EXCEPTION_RECORD, NtStatus};
use engine::{Flow, Leave};

use crate::cx::Cx;
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::ke::exception::{self, Record};
use crate::mm::{paging, user_access};
use crate::verdict::Verdict;

/// Raises `status` in the driver that called `routine`.
pub(crate) fn raise(cx: &mut Cx<'_>, status: NtStatus, routine: &str) -> Leave {
    exception::raise(cx, status, routine)
}

/// `ExRaiseStatus`.
///
/// # Errors
/// Always: it does not return.
pub(crate) fn raise_status(cx: &mut Cx<'_>, status: NtStatus) -> Flow<()> {
    Err(raise(cx, status, "ExRaiseStatus"))
}

/// `ExRaiseAccessViolation`.
///
/// # Errors
/// Always: it does not return.
pub(crate) fn raise_access_violation(cx: &mut Cx<'_>) -> Flow<()> {
    Err(raise(cx, NtStatus::ACCESS_VIOLATION, "ExRaiseAccessViolation"))
}

/// `ExRaiseDatatypeMisalignment`.
///
/// # Errors
/// Always: it does not return.
pub(crate) fn raise_datatype_misalignment(cx: &mut Cx<'_>) -> Flow<()> {
    Err(raise(cx, NtStatus::DATATYPE_MISALIGNMENT, "ExRaiseDatatypeMisalignment"))
}

/// `RtlRaiseException`: what the driver wrote into `record`, at the place that called.
///
/// # Errors
/// Always: where the driver goes on, or the verdict that it has no handler.
pub(crate) fn raise_exception(cx: &mut Cx<'_>, record: DriverPtr<EXCEPTION_RECORD>) -> Flow<()> {
    let caller = cx.engine().caller().map_or(0, |caller| caller.rip);
    let count = cx.read(record + EXCEPTION_RECORD::NumberParameters)?;
    if count > EXCEPTION_MAXIMUM_PARAMETERS {
        let message = format!(
            "RtlRaiseException was given {count} parameters; {EXCEPTION_MAXIMUM_PARAMETERS} are possible"
        );
        return Err(cx.stop(Verdict::error("exception-parameters", message)));
    }
    cx.write(record + EXCEPTION_RECORD::ExceptionAddress, DriverPtr::new(caller))?;
    let information = cx.read(record + EXCEPTION_RECORD::ExceptionInformation)?;
    let exception = Record {
        code: cx.read(record + EXCEPTION_RECORD::ExceptionCode)?,
        flags: cx.read(record + EXCEPTION_RECORD::ExceptionFlags)?,
        chained: cx.read(record + EXCEPTION_RECORD::ExceptionRecord)?.address,
        address: caller,
        information: information[..count as usize].to_vec(),
    };
    Err(match exception::dispatch(cx, &exception) {
        Some(leave) => leave,
        None => exception::unhandled(cx, exception.code, "RtlRaiseException", caller),
    })
}

/// `ProbeForRead`: raises if the range is no user-mode range or not aligned; it is not touched.
///
/// # Errors
/// The exception.
pub(crate) fn probe_for_read(
    cx: &mut Cx<'_>,
    address: DriverPtr<()>,
    length: u64,
    alignment: u32,
) -> Flow<()> {
    probe_range(cx, address.address, length, alignment, "ProbeForRead")
}

/// `ProbeForWrite`: as `ProbeForRead`, and every page of it must be writable.
///
/// # Errors
/// The exception.
pub(crate) fn probe_for_write(
    cx: &mut Cx<'_>,
    address: DriverPtr<()>,
    length: u64,
    alignment: u32,
) -> Flow<()> {
    probe_range(cx, address.address, length, alignment, "ProbeForWrite")?;
    if length == 0 {
        return Ok(());
    }
    let last = address.address + length - 1;
    let writable = cx.with(|k| {
        let pages = address.address / PAGE..=last / PAGE;
        pages
            .map(|page| paging::page(k, page * PAGE))
            .all(|page| page.is_some_and(|page| page.protection.write))
    });
    if writable { Ok(()) } else { Err(raise(cx, NtStatus::ACCESS_VIOLATION, "ProbeForWrite")) }
}

const PAGE: u64 = engine::windows::PAGE;

fn probe_range(cx: &mut Cx<'_>, address: u64, length: u64, alignment: u32, name: &str) -> Flow<()> {
    cx.with(|k| k.engine.note_address(address));
    if length == 0 {
        return Ok(());
    }
    if !matches!(alignment, 1 | 2 | 4 | 8 | 16) {
        let message = format!(
            "{name} was given the alignment {alignment}; 1, 2, 4, 8 and 16 are documented, another is a mask for what it is worth"
        );
        cx.report(Verdict::warning("probe-alignment", message));
    }
    if address & u64::from(alignment.wrapping_sub(1)) != 0 {
        return Err(raise(cx, NtStatus::DATATYPE_MISALIGNMENT, name));
    }
    match address.checked_add(length) {
        Some(end) if end <= USER_PROBE_ADDRESS => {
            user_access::probed(cx, address, length);
            Ok(())
        }
        _ => Err(raise(cx, NtStatus::ACCESS_VIOLATION, name)),
    }
}
