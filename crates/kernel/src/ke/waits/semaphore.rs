//! Semaphore objects. Follows *KeInitializeSemaphore function*, *KeReleaseSemaphore function*.

use abi::{DISPATCHER_HEADER, DriverPtr, KSEMAPHORE, NtStatus};
use engine::Flow;

use super::dispatcher::{self, Kind};
use super::event::{boost, finish};
use crate::cx::Cx;
use crate::ke::calls::exception;
use crate::ke::levels::irql::{self, PASSIVE_LEVEL};
use crate::verdict::Verdict;

/// `KeInitializeSemaphore`.
///
/// # Errors
/// A verdict if the pointer is bad or a thread waits for it.
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    semaphore: DriverPtr<KSEMAPHORE>,
    count: i32,
    limit: i32,
) -> Flow<()> {
    if limit <= 0 || count < 0 || count > limit {
        let message = format!("KeInitializeSemaphore was called with count {count} and limit {limit}");
        // Windows does not look; what is released beyond the limit raises an exception.
        cx.report(Verdict::warning("semaphore-count", message));
    }
    let bytes = size_of::<KSEMAPHORE>() as u64;
    dispatcher::set_up(cx, semaphore.cast(), Kind::Semaphore, bytes, count)?;
    cx.write(semaphore + KSEMAPHORE::Limit, limit)
}

/// `KeReleaseSemaphore`: adds to the count; returns the count before.
///
/// # Errors
/// STATUS_SEMAPHORE_LIMIT_EXCEEDED is raised if it would exceed its limit or nothing is added: the count stays as it is. A verdict if
/// it is no semaphore; [`engine::Leave`] of what runs at once.
pub(crate) fn release(
    cx: &mut Cx<'_>,
    semaphore: DriverPtr<KSEMAPHORE>,
    increment: i32,
    adjustment: i32,
    wait: bool,
) -> Flow<i32> {
    dispatcher::expect(cx, semaphore.cast(), "KeReleaseSemaphore", &[Kind::Semaphore])?;
    let count = cx.read((semaphore + KSEMAPHORE::Header) + DISPATCHER_HEADER::SignalState)?;
    let limit = cx.read(semaphore + KSEMAPHORE::Limit)?;
    let Some(after) = count.checked_add(adjustment).filter(|after| adjustment > 0 && *after <= limit) else {
        let message = format!(
            "KeReleaseSemaphore adds {adjustment} to a count of {count}; the limit of the semaphore is {limit}"
        );
        let verdict = Verdict::error("semaphore-limit-exceeded", message);
        return Err(exception::raise_or(cx, NtStatus::SEMAPHORE_LIMIT_EXCEEDED, verdict));
    };
    let irql = irql::current(cx);
    if wait && irql > PASSIVE_LEVEL {
        let message = format!(
            "KeReleaseSemaphore was called with Wait TRUE at IRQL {irql}; it may be at PASSIVE_LEVEL"
        );
        cx.report(Verdict::warning("irql-too-high", message));
    }
    dispatcher::signal(cx, semaphore.cast(), after, boost(increment))?;
    finish(cx, wait)?;
    Ok(count)
}

/// `KeReadStateSemaphore`: the count.
///
/// # Errors
/// A verdict if it is no semaphore.
pub(crate) fn read_state(cx: &mut Cx<'_>, semaphore: DriverPtr<KSEMAPHORE>) -> Flow<i32> {
    dispatcher::expect(cx, semaphore.cast(), "KeReadStateSemaphore", &[Kind::Semaphore])?;
    cx.read((semaphore + KSEMAPHORE::Header) + DISPATCHER_HEADER::SignalState)
}
