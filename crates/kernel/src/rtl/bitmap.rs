//! Bit maps in the driver's memory.
//!
//! Page: *RTL_BITMAP*, *RtlFindClearBits function* and their neighbours. Bits beyond the map's size are not used.

use abi::{DriverPtr, RTL_BITMAP};
use engine::Flow;

use crate::cx::Cx;
use crate::ke::slice;

/// What a search returns that finds nothing.
const NONE: u32 = u32::MAX;

/// `RtlInitializeBitMap`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    map: DriverPtr<RTL_BITMAP>,
    buffer: DriverPtr<u32>,
    bits: u32,
) -> Flow<()> {
    cx.write(map + RTL_BITMAP::SizeOfBitMap, bits)?;
    cx.write(map + RTL_BITMAP::Buffer, buffer)
}

pub(super) fn load(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>) -> Flow<Vec<bool>> {
    let bits = cx.read(map + RTL_BITMAP::SizeOfBitMap)?;
    let buffer = cx.read(map + RTL_BITMAP::Buffer)?;
    let bytes = cx.read_bytes(buffer.address, u64::from(bits.div_ceil(32)) * 4)?;
    slice::work(cx, 8 + u64::from(bits / 32))?;
    let bit = |index: u32| bytes[index as usize / 8] & 1 << (index % 8) != 0;
    Ok((0..bits).map(bit).collect())
}

fn change(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: u32, count: u32, on: bool) -> Flow<()> {
    let bits = cx.read(map + RTL_BITMAP::SizeOfBitMap)?;
    let buffer = cx.read(map + RTL_BITMAP::Buffer)?;
    for index in start..start.saturating_add(count).min(bits) {
        let at = buffer.cast::<u8>().byte_add(u64::from(index / 8));
        let (byte, bit) = (cx.read(at)?, 1 << (index % 8));
        cx.write(at, if on { byte | bit } else { byte & !bit })?;
    }
    Ok(())
}

/// `RtlSetBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn set(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: u32, count: u32) -> Flow<()> {
    change(cx, map, start, count, true)
}

/// `RtlClearBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn clear(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: u32, count: u32) -> Flow<()> {
    change(cx, map, start, count, false)
}

/// `RtlSetAllBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn set_all(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>) -> Flow<()> {
    fill(cx, map, 0xFF)
}

/// `RtlSetAllBits`, `RtlClearAllBits`: whole words, those bits of the last one that are behind the map's size too.
fn fill(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, byte: u8) -> Flow<()> {
    let bits = cx.read(map + RTL_BITMAP::SizeOfBitMap)?;
    let buffer = cx.read(map + RTL_BITMAP::Buffer)?;
    super::memory::fill(cx, buffer.address, 4 * u64::from(bits.div_ceil(32)), byte)
}

/// `RtlClearAllBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn clear_all(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>) -> Flow<()> {
    fill(cx, map, 0)
}

/// `RtlSetBit`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn set_one(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, index: u32) -> Flow<()> {
    change(cx, map, index, 1, true)
}

/// `RtlClearBit`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn clear_one(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, index: u32) -> Flow<()> {
    change(cx, map, index, 1, false)
}

/// `RtlTestBit`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn test(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, index: u32) -> Flow<bool> {
    are(cx, map, index, 1, true)
}

/// `RtlAreBitsSet`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn are_set(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: u32, count: u32) -> Flow<bool> {
    are(cx, map, start, count, true)
}

/// `RtlAreBitsClear`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn are_clear(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: u32, count: u32) -> Flow<bool> {
    are(cx, map, start, count, false)
}

fn are(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, start: u32, count: u32, on: bool) -> Flow<bool> {
    let bits = load(cx, map)?;
    let (start, count) = (start as usize, count as usize);
    Ok(count > 0 && bits.get(start..start + count).is_some_and(|run| run.iter().all(|&bit| bit == on)))
}

/// `RtlNumberOfSetBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn count_set(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>) -> Flow<u32> {
    let bits = load(cx, map)?;
    Ok(u32::try_from(bits.iter().filter(|&&bit| bit).count()).unwrap_or(0))
}

/// `RtlFindClearBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn find_clear(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, count: u32, hint: u32) -> Flow<u32> {
    find(cx, map, count, hint, false)
}

/// `RtlFindSetBits`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn find_set(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, count: u32, hint: u32) -> Flow<u32> {
    find(cx, map, count, hint, true)
}

/// `RtlFindClearBitsAndSet`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn find_clear_and_set(
    cx: &mut Cx<'_>,
    map: DriverPtr<RTL_BITMAP>,
    count: u32,
    hint: u32,
) -> Flow<u32> {
    let found = find(cx, map, count, hint, false)?;
    if found != NONE {
        set(cx, map, found, count)?;
    }
    Ok(found)
}

/// The first run of `count` equal bits from `hint` on, then from the start. For 0 bits: the hint, down to a byte.
fn find(cx: &mut Cx<'_>, map: DriverPtr<RTL_BITMAP>, count: u32, hint: u32, on: bool) -> Flow<u32> {
    let bits = load(cx, map)?;
    let hint = if (hint as usize) < bits.len() { hint & !7 } else { 0 };
    if count == 0 {
        return Ok(hint);
    }
    let run = |from: usize| {
        let mut windows = bits.get(from..).unwrap_or_default().windows(count as usize);
        windows.position(|window| window.iter().all(|&bit| bit == on)).map(|at| from + at)
    };
    let found = run(hint as usize).or_else(|| run(0));
    Ok(found.and_then(|at| u32::try_from(at).ok()).unwrap_or(NONE))
}
