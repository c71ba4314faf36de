//! Memory that is filled with a pattern, or looked through for one.
//!
//! Pages: *RtlCompareMemoryUlong function*, *RtlFillMemoryUlong macro*, *RtlIsZeroMemory function*, *RtlFillMemoryNonTemporal function*,
//! *RtlPrefetchMemoryNonTemporal function*. Lengths are bytes; of whole patterns. There are no caches, so what goes past them does as the rest.

use engine::Flow;

use super::memory;
use crate::cx::Cx;
use crate::ke::slice;

/// Bytes that are looked at in one step.
const PIECE: u64 = 0x1000;

/// `RtlCompareMemoryUlong`: how many bytes from the start on are made of it.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn compare(cx: &mut Cx<'_>, at: u64, length: u64, pattern: u32) -> Flow<u64> {
    let whole = length & !3;
    let mut done = 0;
    while done < whole {
        let piece = memory::reach(at.wrapping_add(done), 4, PIECE.min(whole - done));
        let bytes = memory::load(cx, at.wrapping_add(done), piece)?;
        slice::work(cx, 8 + piece / 4)?;
        let words: &[[u8; 4]] = bytes.as_chunks().0;
        let equal = words.iter().take_while(|word| **word == pattern.to_le_bytes()).count() as u64;
        done += 4 * equal;
        if 4 * equal < piece {
            break;
        }
    }
    Ok(done)
}

fn fill(cx: &mut Cx<'_>, to: u64, length: u64, pattern: &[u8]) -> Flow<()> {
    let unit = pattern.len() as u64;
    let whole = length - length % unit;
    let mut done = 0;
    while done < whole {
        let piece = PIECE.min(whole - done);
        let bytes = pattern.repeat(usize::try_from(piece / unit).unwrap_or(0));
        memory::store(cx, to.wrapping_add(done), &bytes)?;
        slice::work(cx, 8 + piece / 8)?;
        done += piece;
    }
    Ok(())
}

/// `RtlFillMemoryUlong`.
///
/// # Errors
/// As [`compare`].
pub(crate) fn fill_long(cx: &mut Cx<'_>, to: u64, length: u64, pattern: u32) -> Flow<()> {
    fill(cx, to, length, &pattern.to_le_bytes())
}

/// `RtlFillMemoryUlonglong`.
///
/// # Errors
/// As [`compare`].
pub(crate) fn fill_long_long(cx: &mut Cx<'_>, to: u64, length: u64, pattern: u64) -> Flow<()> {
    fill(cx, to, length, &pattern.to_le_bytes())
}

/// `RtlFillMemoryNonTemporal`.
///
/// # Errors
/// As [`compare`].
pub(crate) fn fill_past_caches(cx: &mut Cx<'_>, to: u64, length: u64, byte: u8) -> Flow<()> {
    memory::fill(cx, to, length, byte)
}

/// `RtlIsZeroMemory`.
///
/// # Errors
/// As [`compare`].
pub(crate) fn is_zero(cx: &mut Cx<'_>, at: u64, length: u64) -> Flow<bool> {
    let mut done = 0;
    while done < length {
        let piece = memory::reach(at.wrapping_add(done), 1, PIECE.min(length - done));
        slice::work(cx, 8 + piece / 8)?;
        if memory::load(cx, at.wrapping_add(done), piece)?.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        done += piece;
    }
    Ok(true)
}
