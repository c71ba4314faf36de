//! A number for a string, by which it is found again.
//!
//! Page: *RtlHashUnicodeString function*. x65599, the default algorithm, multiplies what it has by 65599 and adds the next character, which is
//! upcased where case does not matter.

use abi::{DriverPtr, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::{string, text};
use crate::cx::Cx;

/// `HASH_STRING_ALGORITHM_DEFAULT` and `HASH_STRING_ALGORITHM_X65599`.
const ALGORITHMS: [u32; 2] = [0, 1];

/// `RtlHashUnicodeString`; STATUS_INVALID_PARAMETER for another algorithm, no string, or nowhere to put the value.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn unicode(
    cx: &mut Cx<'_>,
    from: DriverPtr<UNICODE_STRING>,
    ignore_case: bool,
    algorithm: u32,
    value: DriverPtr<u32>,
) -> Flow<NtStatus> {
    if from.is_null() || value.is_null() || !ALGORITHMS.contains(&algorithm) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let units = string::read(cx, from)?;
    let folded = units.iter().map(|&unit| if ignore_case { text::upcase(unit) } else { unit });
    let hash = folded.fold(0u32, |hash, unit| hash.wrapping_mul(65_599).wrapping_add(unit.into()));
    cx.write(value, hash)?;
    Ok(NtStatus::SUCCESS)
}
