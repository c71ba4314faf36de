//! One-time initialization, by the caller that needs it first.
//!
//! Pages: *RtlRunOnceInitialize function*, *RtlRunOnceExecuteOnce function*, *RtlRunOnceBeginInitialize function*, *RtlRunOnceComplete function*. The
//! two lowest bits of an `RTL_RUN_ONCE` say how far it is, the rest of it is what the initialization has left.

use abi::{Code, DriverPtr, NtStatus};
use engine::{Flow, StrandId};

use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::ke::{irql, wait};
use crate::mm::pool;
use crate::verdict::Verdict;

/// How far it is.
const PHASE: u64 = 3;
const BEGUN: u64 = 1;
const DONE: u64 = 2;
/// Several may initialize it at the same time: the first that is ready has done it.
const BEGUN_BY_MANY: u64 = 3;

/// `RTL_RUN_ONCE_CHECK_ONLY`, `RTL_RUN_ONCE_ASYNC`, `RTL_RUN_ONCE_INIT_FAILED`.
const CHECK_ONLY: u32 = 1;
const ASYNC: u32 = 2;
const INIT_FAILED: u32 = 4;

/// `RtlRunOnceInitialize`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn initialize(cx: &mut Cx<'_>, once: DriverPtr<u64>) -> Flow<()> {
    cx.write(once, 0)
}

/// What the initialization has left goes to `context`.
fn hand_out(cx: &mut Cx<'_>, value: u64, context: DriverPtr<u64>) -> Flow<()> {
    if context.is_null() { Ok(()) } else { cx.write(context, value & !PHASE) }
}

/// `RtlRunOnceBeginInitialize`: STATUS_PENDING if the caller is to initialize it. It waits for another that does.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn begin(
    cx: &mut Cx<'_>,
    once: DriverPtr<u64>,
    flags: u32,
    context: DriverPtr<u64>,
) -> Flow<NtStatus> {
    loop {
        let value = cx.read(once)?;
        match (value & PHASE, flags) {
            (_, flags) if flags & !(CHECK_ONLY | ASYNC) != 0 || flags == CHECK_ONLY | ASYNC => {
                return Ok(NtStatus::INVALID_PARAMETER);
            }
            (DONE, _) => {
                hand_out(cx, value, context)?;
                return Ok(NtStatus::SUCCESS);
            }
            (_, CHECK_ONLY) => return Ok(NtStatus::UNSUCCESSFUL),
            (0, ASYNC) | (BEGUN_BY_MANY, ASYNC) => {
                cx.write(once, BEGUN_BY_MANY)?;
                return Ok(NtStatus::PENDING);
            }
            (0, _) => {
                cx.write(once, BEGUN)?;
                return Ok(NtStatus::PENDING);
            }
            (BEGUN, 0) => {
                cx.with(|k| {
                    let strand = k.ke.processor().thread;
                    k.ex.run_once.entry(once.address).or_default().push(strand);
                });
                wait::for_grant(cx, once.address, "RtlRunOnceBeginInitialize")?;
            }
            _ => return Ok(NtStatus::INVALID_PARAMETER),
        }
    }
}

/// `RtlRunOnceComplete`: it is initialized, with this left of it; or the initialization has failed, and another may try.
///
/// # Errors
/// A verdict on a context whose two lowest bits are not free.
pub(crate) fn complete(cx: &mut Cx<'_>, once: DriverPtr<u64>, flags: u32, context: u64) -> Flow<NtStatus> {
    if context & PHASE != 0 {
        let message = format!(
            "RtlRunOnceComplete was called with context {context:#x}, whose two lowest bits are not 0"
        );
        return Err(cx.stop(Verdict::error("run-once-context", message)));
    }
    let value = cx.read(once)?;
    match (value & PHASE, flags) {
        (BEGUN, 0) | (BEGUN_BY_MANY, ASYNC) => cx.write(once, context | DONE)?,
        (BEGUN, INIT_FAILED) if context == 0 => cx.write(once, 0)?,
        (DONE, ASYNC) => return Ok(NtStatus::OBJECT_NAME_COLLISION),
        (BEGUN, ASYNC) => return Ok(NtStatus::INVALID_OWNER),
        (0 | DONE, _) => return Ok(NtStatus::UNSUCCESSFUL),
        _ => return Ok(NtStatus::INVALID_PARAMETER),
    }
    let waiting: Vec<StrandId> = cx.with(|k| k.ex.run_once.remove(&once.address)).unwrap_or_default();
    cx.with(|k| waiting.into_iter().for_each(|strand| wait::grant(k, strand)));
    irql::settle(cx)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlRunOnceExecuteOnce`: has `routine` initialize it, if that is not done.
///
/// # Errors
/// As [`complete`]; whatever the routine comes to.
pub(crate) fn execute(
    cx: &mut Cx<'_>,
    once: DriverPtr<u64>,
    routine: DriverPtr<Code>,
    parameter: u64,
    context: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let begun = begin(cx, once, 0, context)?;
    if begun != NtStatus::PENDING {
        return Ok(begun);
    }
    let left: DriverPtr<u64> = if context.is_null() {
        pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"Once"))?
    } else {
        context
    };
    if left.is_null() {
        return complete(cx, once, INIT_FAILED, 0).map(|_| NtStatus::NO_MEMORY);
    }
    cx.write(left, 0)?;
    let arguments = [once.address, parameter, left.address];
    let done = call_routine(cx, Role::RtlRunOnceInitFn, routine, once.address, &arguments)?
        & u64::from(u32::MAX)
        != 0;
    let value = cx.read(left)?;
    if context.is_null() {
        pool::free(cx, left)?;
    }
    if done {
        return complete(cx, once, 0, value);
    }
    complete(cx, once, INIT_FAILED, 0).map(|_| NtStatus::UNSUCCESSFUL)
}
