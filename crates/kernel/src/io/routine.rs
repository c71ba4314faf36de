//! Entering a driver's routine: through `ke::callout`, which checks what it leaves behind.
//!
//! A routine that is one of the kernel's own (a preset dispatch routine, a cancel routine of a cancel-safe queue) is
//! called directly. It does not know what the routines are for.

use abi::{Code, DriverPtr};
use engine::{Args, Flow};

use crate::cx::Cx;
use crate::event::{Event, Role};
pub(crate) use crate::ke::callout::call_routine as call;
use crate::verdict::Verdict;
use crate::{exports, ke, ldr};

/// Where the thunks of exports begin in the pseudo-image, and the bytes of each.
const THUNKS: u64 = 0x1000;
const THUNK: u64 = 16;

/// A routine that a test put in the place of a driver's.
#[cfg(test)]
pub(crate) type RustRoutine = fn(&mut Cx<'_>, &[u64]) -> Flow<u64>;

/// Calls a routine that is meant to change IRQL and locks: it must return at `irql`, if that is given.
///
/// # Errors
/// As [`call`].
pub(crate) fn call_changing(
    cx: &mut Cx<'_>,
    role: Role,
    routine: DriverPtr<Code>,
    object: u64,
    arguments: &[u64],
    irql: Option<u8>,
) -> Flow<u64> {
    if let Some(result) = call_kernel_routine(cx, routine, arguments) {
        return result;
    }
    if routine.is_null() {
        let message = format!("the driver's {role} routine is to be called for {object:#x}, and it is null");
        return Err(cx.stop(Verdict::error("null-routine", message)));
    }
    cx.emit(Event::Enter { role, routine: routine.address, object });
    let value = cx.call(routine, arguments)?;
    cx.emit(Event::Leave { role, routine: routine.address, value });
    match irql {
        Some(expected) => expect_level(cx, role, routine, expected).map(|()| value),
        None => Ok(value),
    }
}

/// A routine that is meant to change IRQL has returned: it must have come back at this one.
///
/// # Errors
/// A verdict if it has not.
pub(crate) fn expect_level(cx: &mut Cx<'_>, role: Role, routine: DriverPtr<Code>, expected: u8) -> Flow<()> {
    let now = ke::irql::current(cx);
    if now == expected {
        return Ok(());
    }
    let message = format!(
        "the {role} routine {:#x} returned at IRQL {now}; it must return at {expected}",
        routine.address
    );
    let parameter = u64::from(now) << 16 | u64::from(expected) << 8 | 2;
    let verdict = Verdict::error("irql-changed-by-routine", message);
    Err(cx.stop(verdict.bug_check(0xC8, [parameter, routine.address, 0, 0])))
}

/// The result, if the routine is the kernel's own (or a test's).
pub(crate) fn call_kernel_routine(
    cx: &mut Cx<'_>,
    routine: DriverPtr<Code>,
    arguments: &[u64],
) -> Option<Flow<u64>> {
    #[cfg(test)]
    if let Some(rust) = cx.with(|k| k.io.rust_routines.get(&routine.address).copied()) {
        return Some(rust(cx, arguments));
    }
    let row = row_at(routine.address)?;
    let mut registers = [0; 4];
    for (register, argument) in registers.iter_mut().zip(arguments) {
        *register = *argument;
    }
    Some((row.call)(cx, &Args { registers, rsp: 0 }))
}

/// Whether [`call_kernel_routine`] has a result.
#[inline]
pub(crate) fn is_kernel_routine(cx: &mut Cx<'_>, routine: DriverPtr<Code>) -> bool {
    #[cfg(test)]
    if cx.with(|k| k.io.rust_routines.contains_key(&routine.address)) {
        return true;
    }
    let _ = cx;
    row_at(routine.address).is_some()
}

/// The row of the export tables whose thunk `address` is.
fn row_at(address: u64) -> Option<&'static exports::Export> {
    let first = ldr::exports_base() + THUNKS;
    exports::row(u32::try_from(address.checked_sub(first)? / THUNK).ok()?)
}
