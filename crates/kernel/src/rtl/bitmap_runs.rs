//! Runs of clear bits in bit maps, and single bits of numbers.
//!
//! Pages: *RtlFindClearRuns function*, *RtlFindLongestRunClear function*, *RtlFindNextForwardRunClear function*, *RtlFindLastBackwardRunClear
//! function*, *RtlFindFirstRunClear function*, *RtlNumberOfClearBits function*, *RtlFindMostSignificantBit function*.

use abi::{DriverPtr, RTL_BITMAP};
use engine::Flow;

use super::bitmap::{self, load};
use crate::cx::Cx;

/// What is given for the start of a run that is not there.
const NONE: u32 = u32::MAX;
/// Bytes of an `RTL_BITMAP_RUN`: its start and its length.
const RUN: u64 = 8;

/// All runs of clear bits: start and length.
fn runs(bits: &[bool]) -> Vec<(u32, u32)> {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let mut runs = Vec::new();
    let mut at = 0;
    while at < bits.len() {
        let length = bits[at..].iter().take_while(|&&bit| !bit).count();
        if length > 0 {
            runs.push((number(at), number(length)));
        }
        at += length + 1;
    }
    runs
}

/// `RtlNumberOfClearBits`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn count_clear(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>) -> Flow<u32> {
    let bits = load(cx, map)?;
    Ok(u32::try_from(bits.iter().filter(|&&bit| !bit).count()).unwrap_or(0))
}

/// The length of a run, and its start for `start`.
fn tell(cx: &mut Cx<'_>, start: DriverPtr<u32>, run: Option<(u32, u32)>, otherwise: u32) -> Flow<u32> {
    let (at, length) = run.unwrap_or((otherwise, 0));
    cx.write(start, at)?;
    Ok(length)
}

/// `RtlFindLongestRunClear`: the first of those that are longest.
///
/// # Errors
/// As [`count_clear`].
pub(crate) fn longest(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: DriverPtr<u32>) -> Flow<u32> {
    let runs = runs(&load(cx, map)?);
    let longest = runs.iter().rev().max_by_key(|(_, length)| *length).copied();
    tell(cx, start, longest, 0)
}

/// `RtlFindFirstRunClear`.
///
/// # Errors
/// As [`count_clear`].
pub(crate) fn first(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: DriverPtr<u32>) -> Flow<u32> {
    next_forward(cx, map, 0, start)
}

/// `RtlFindNextForwardRunClear`: from a bit on.
///
/// # Errors
/// As [`count_clear`].
pub(crate) fn next_forward(
    cx: &mut Cx<'_>,
    map: DriverPtr<RTL_BITMAP>,
    from: u32,
    start: DriverPtr<u32>,
) -> Flow<u32> {
    let bits = load(cx, map)?;
    let behind = bits.get(from as usize..).unwrap_or_default();
    let run = runs(behind).first().map(|(at, length)| (from + at, *length));
    tell(cx, start, run, NONE)
}

/// `RtlFindLastBackwardRunClear`: the one that ends at a bit, or before it.
///
/// # Errors
/// As [`count_clear`].
pub(crate) fn last_backward(
    cx: &mut Cx<'_>,
    map: DriverPtr<RTL_BITMAP>,
    from: u32,
    start: DriverPtr<u32>,
) -> Flow<u32> {
    let bits = load(cx, map)?;
    let before = &bits[..bits.len().min((from as usize).saturating_add(1))];
    tell(cx, start, runs(before).last().copied(), NONE)
}

/// `RtlFindClearRuns`: as many as there is room for, the longest if that is asked for; how many.
///
/// # Errors
/// As [`count_clear`].
pub(crate) fn find_runs(
    cx: &mut Cx<'_>,
    map: DriverPtr<RTL_BITMAP>,
    to: DriverPtr<u32>,
    room: u32,
    longest: bool,
) -> Flow<u32> {
    let mut runs = runs(&load(cx, map)?);
    if longest {
        runs.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
    }
    runs.truncate(room as usize);
    for (index, (at, length)) in (0..).zip(&runs) {
        cx.write(to.byte_add(RUN * index), *at)?;
        cx.write(to.byte_add(RUN * index + 4), *length)?;
    }
    Ok(u32::try_from(runs.len()).unwrap_or(u32::MAX))
}

/// `RtlFindSetBitsAndClear`.
///
/// # Errors
/// As [`count_clear`].
pub(crate) fn find_set_and_clear(
    cx: &mut Cx<'_>,
    map: DriverPtr<RTL_BITMAP>,
    count: u32,
    hint: u32,
) -> Flow<u32> {
    let found = bitmap::find_set(cx, map, count, hint)?;
    if found != NONE {
        bitmap::clear(cx, map, found, count)?;
    }
    Ok(found)
}

/// `RtlFindMostSignificantBit`: −1 of 0.
///
/// # Errors
/// None.
pub(crate) fn most_significant(_cx: &mut Cx<'_>, value: u64) -> Flow<i32> {
    Ok(value.checked_ilog2().map_or(-1, u32::cast_signed))
}

/// `RtlFindLeastSignificantBit`: −1 of 0.
///
/// # Errors
/// None.
pub(crate) fn least_significant(_cx: &mut Cx<'_>, value: u64) -> Flow<i32> {
    Ok(if value == 0 { -1 } else { value.trailing_zeros().cast_signed() })
}

/// `RtlNumberOfSetBitsUlongPtr`.
///
/// # Errors
/// None.
pub(crate) fn count_of_number(_cx: &mut Cx<'_>, value: u64) -> Flow<u32> {
    Ok(value.count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_between_set_bits_and_at_both_ends() {
        let bits: Vec<bool> = "001000110".bytes().map(|bit| bit == b'1').collect();
        assert_eq!(runs(&bits), [(0, 2), (3, 3), (8, 1)]);
        assert_eq!(runs(&[true; 4]), []);
        assert_eq!(runs(&[]), []);
    }
}
