//! `RtlRandom` and `RtlRandomEx`: numbers that follow from the caller's seed alone.
//!
//! Page: *RtlRandomEx function*. The numbers are not those of Windows; the range, below 2^31 − 1, is.

use abi::DriverPtr;
use engine::Flow;

use crate::cx::Cx;

/// `RtlRandom`, `RtlRandomEx`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn random(cx: &mut Cx<'_>, seed: DriverPtr<u32>) -> Flow<u32> {
    const MODULUS: u64 = 0x7FFF_FFFF;
    let next = (u64::from(cx.read(seed)?) * 48_271 + 11) % MODULUS;
    let next = u32::try_from(next).unwrap_or(0);
    cx.write(seed, next)?;
    Ok(next)
}
