//! Memory routines: copying, filling, comparing.
//!
//! Pages: *RtlCopyMemory macro*, *RtlMoveMemory macro*, *RtlFillMemory macro*, *RtlCompareMemory function*, *memcpy*.
//! They run on the kernel's side and charge one instruction for eight bytes, plus eight for the call; they are not
//! preempted in the middle, and what becomes due meanwhile comes at their end. Device memory is accessed in pieces as wide as they are
//! aligned, and what is compared or searched byte by byte.

use engine::{Flow, TouchKind};

use super::stack_stores;
use crate::cx::Cx;
use crate::event::AccessKind;
use crate::hal::access;
use crate::ke::{budget, slice};
use crate::mm::{accesses, shadow};
use crate::verdict::Verdict;

/// Bytes that are moved at once.
const PIECE: u64 = 0x1_0000;

/// Lets the time pass that moving `bytes` bytes takes.
fn charge(cx: &mut Cx<'_>, bytes: u64) -> Flow<()> {
    slice::work(cx, 8 + bytes / 8)
}

/// Reads memory, a device's included.
pub(crate) fn load(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<Vec<u8>> {
    judged(cx, address, bytes)?;
    let data = cx.read_bytes(address, bytes)?;
    accesses::by_routine(cx, address, bytes, AccessKind::Load);
    Ok(data)
}

/// Writes memory, a device's included.
pub(crate) fn store(cx: &mut Cx<'_>, address: u64, data: &[u8]) -> Flow<()> {
    if !access::answers(address) {
        stack_stores::check(cx, address, data.len() as u64)?;
        shadow::pointed(cx, address, data.len() as u64, TouchKind::Write)?;
    }
    cx.write_bytes(address, data)?;
    accesses::by_routine(cx, address, data.len() as u64, AccessKind::Store);
    Ok(())
}

/// How many bytes from `address` on can be read at once, of which perhaps not all are meant: to the page's end, in pieces of `unit`
/// bytes, but one piece of a device, which may answer to being read. At least one piece, and at most `most` bytes.
pub(crate) fn reach(address: u64, unit: u64, most: u64) -> u64 {
    const PAGE: u64 = engine::windows::PAGE;
    let pieces = if access::answers(address) { 1 } else { ((PAGE - address % PAGE) / unit).max(1) };
    (pieces * unit).min(most)
}

/// The bytes that [`reach`] tells of, as they are; which of them are meant is said by [`looked_at`].
pub(crate) fn peek(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<Vec<u8>> {
    let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
    if access::answers(address) {
        access::fetch(cx, address, &mut data)?;
    } else if let Err(bad) = cx.engine().read_bytes(address, &mut data) {
        return Err(cx.bad_pointer(bad));
    }
    Ok(data)
}

/// A driver's routine would have read these bytes: in a checked machine, a verdict if it must not.
pub(crate) fn looked_at(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<()> {
    judged(cx, address, bytes)?;
    accesses::by_routine(cx, address, bytes, AccessKind::Load);
    Ok(())
}

fn judged(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<()> {
    if access::answers(address) { Ok(()) } else { shadow::pointed(cx, address, bytes, TouchKind::Read) }
}

/// `memmove`, `RtlMoveMemory`: ranges may overlap. Returns the destination.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn copy(cx: &mut Cx<'_>, to: u64, from: u64, bytes: u64) -> Flow<u64> {
    // The direction matters only if the destination begins inside the source.
    let backwards = to.wrapping_sub(from) < bytes;
    let engine = cx.engine();
    let apart = !backwards && from.wrapping_sub(to) >= bytes;
    if apart && (1..=PIECE).contains(&bytes) && engine.is_plain() && engine.copy_plain(to, from, bytes) {
        cx.with(|k| budget::moved(k, bytes));
        charge(cx, bytes)?;
        return Ok(to);
    }
    let pieces = bytes.div_ceil(PIECE);
    for index in 0..pieces {
        let index = if backwards { pieces - 1 - index } else { index };
        let start = index * PIECE;
        let data = load(cx, from.wrapping_add(start), PIECE.min(bytes - start))?;
        store(cx, to.wrapping_add(start), &data)?;
    }
    charge(cx, bytes)?;
    Ok(to)
}

/// `memcpy`, `RtlCopyMemory`: as [`copy`], whose ranges must not overlap.
///
/// # Errors
/// As [`copy`]; as [`Cx::verify`].
pub(crate) fn copy_apart(cx: &mut Cx<'_>, to: u64, from: u64, bytes: u64) -> Flow<u64> {
    // One that moves nothing is what compilers make of an assignment to itself.
    if to != from && (to.wrapping_sub(from) < bytes || from.wrapping_sub(to) < bytes) {
        let message = format!(
            "{bytes} bytes were copied from {from:#x} to {to:#x}, which overlap: which of them are overwritten before they are read is not defined (use RtlMoveMemory)"
        );
        let verdict = Verdict::verifier("overlapping-copy", message);
        cx.verify(verdict.bug_check(0xC4, [0xF0, to, from, bytes]))?;
    }
    copy(cx, to, from, bytes)
}

/// `memset`. Returns the destination.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn set(cx: &mut Cx<'_>, to: u64, byte: u8, bytes: u64) -> Flow<u64> {
    let mut start = 0;
    while start < bytes {
        let piece = PIECE.min(bytes - start);
        let data = vec![byte; usize::try_from(piece).unwrap_or(0)];
        store(cx, to.wrapping_add(start), &data)?;
        start += piece;
    }
    charge(cx, bytes)?;
    Ok(to)
}

/// `RtlFillMemory`: length before byte, unlike `memset`.
///
/// # Errors
/// As [`set`].
pub(crate) fn fill(cx: &mut Cx<'_>, to: u64, bytes: u64, byte: u8) -> Flow<()> {
    set(cx, to, byte, bytes).map(|_| ())
}

/// `RtlZeroMemory`.
///
/// # Errors
/// As [`set`].
pub(crate) fn zero(cx: &mut Cx<'_>, to: u64, bytes: u64) -> Flow<()> {
    fill(cx, to, bytes, 0)
}

/// `RtlCompareMemory`: how many bytes are equal from the start.
///
/// # Errors
/// A verdict on a bad pointer; bytes behind the first difference are not read.
pub(crate) fn compare(cx: &mut Cx<'_>, one: u64, two: u64, bytes: u64) -> Flow<u64> {
    let mut start = 0;
    while start < bytes {
        let (at, other) = (one.wrapping_add(start), two.wrapping_add(start));
        let piece = reach(at, 1, bytes - start).min(reach(other, 1, bytes - start));
        let (a, b) = (peek(cx, at, piece)?, peek(cx, other, piece)?);
        let equal = a.iter().zip(&b).take_while(|(a, b)| a == b).count() as u64;
        let looked = (equal + 1).min(piece);
        looked_at(cx, at, looked)?;
        looked_at(cx, other, looked)?;
        start += equal;
        if equal < piece {
            break;
        }
    }
    charge(cx, start)?;
    Ok(start)
}

/// `memcmp`: below 0, 0 or above 0.
///
/// # Errors
/// As [`compare`].
pub(crate) fn order(cx: &mut Cx<'_>, one: u64, two: u64, bytes: u64) -> Flow<i32> {
    let equal = compare(cx, one, two, bytes)?;
    if equal == bytes {
        return Ok(0);
    }
    let (a, b) = (load(cx, one + equal, 1)?, load(cx, two + equal, 1)?);
    Ok(if a < b { -1 } else { 1 })
}

/// `memchr`: where the byte first occurs, or null.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn find(cx: &mut Cx<'_>, at: u64, byte: i32, bytes: u64) -> Flow<u64> {
    let [wanted, ..] = byte.to_le_bytes();
    let mut start = 0;
    while start < bytes {
        let from = at.wrapping_add(start);
        let piece = peek(cx, from, reach(from, 1, bytes - start))?;
        let found = piece.iter().position(|&byte| byte == wanted);
        looked_at(cx, from, found.map_or(piece.len(), |found| found + 1) as u64)?;
        if let Some(found) = found {
            charge(cx, start + found as u64)?;
            return Ok(from + found as u64);
        }
        start += piece.len() as u64;
    }
    charge(cx, bytes)?;
    Ok(0)
}
