//! Memory routines: copying, filling, comparing.
//!
//! Pages: *RtlCopyMemory macro*, *RtlMoveMemory macro*, *RtlFillMemory macro*, *RtlCompareMemory function*, *memcpy*.
//! They run on the kernel's side and charge one instruction for eight bytes, plus eight for the call; they are not
//! preempted in the middle, and what becomes due meanwhile comes at their end. Device memory is accessed eight bytes at a time, as compilers' own copies do.

use engine::windows::DEVICE;
use engine::{Access, Flow, TouchKind};

use crate::cx::Cx;
use crate::hal::access;
use crate::ke::slice;
use crate::mm::shadow;

/// Bytes that are moved at once.
const PIECE: u64 = 0x1_0000;

/// Lets the time pass that moving `bytes` bytes takes.
fn charge(cx: &mut Cx<'_>, bytes: u64) -> Flow<()> {
    slice::work(cx, 8 + bytes / 8)
}

/// Reads memory, a device's included.
pub(crate) fn load(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<Vec<u8>> {
    if !DEVICE.contains(address) {
        shadow::pointed(cx, address, bytes, TouchKind::Read)?;
        return cx.read_bytes(address, bytes);
    }
    let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let mut at = address;
    for piece in data.chunks_mut(step(address)) {
        access::device_read(cx, access_to(at, piece.len()), piece)?;
        at += piece.len() as u64;
    }
    Ok(data)
}

/// Writes memory, a device's included.
pub(crate) fn store(cx: &mut Cx<'_>, address: u64, data: &[u8]) -> Flow<()> {
    if !DEVICE.contains(address) {
        shadow::pointed(cx, address, data.len() as u64, TouchKind::Write)?;
        return cx.write_bytes(address, data);
    }
    let mut at = address;
    for piece in data.chunks(step(address)) {
        access::device_write(cx, access_to(at, piece.len()), piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Bytes of one device access: eight where the range is aligned for it, else one.
const fn step(address: u64) -> usize {
    if address.is_multiple_of(8) { 8 } else { 1 }
}

fn access_to(address: u64, bytes: usize) -> Access {
    Access { address, bytes: u8::try_from(bytes).unwrap_or(8) }
}

/// `memcpy`, `memmove`, `RtlMoveMemory`, `RtlCopyMemory`: ranges may overlap. Returns the destination.
///
/// # Errors
/// A verdict on a bad pointer.
pub fn copy(cx: &mut Cx<'_>, to: u64, from: u64, bytes: u64) -> Flow<u64> {
    // The direction matters only if the destination begins inside the source.
    let backwards = to.wrapping_sub(from) < bytes;
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

/// `memset`. Returns the destination.
///
/// # Errors
/// A verdict on a bad pointer.
pub fn set(cx: &mut Cx<'_>, to: u64, byte: u8, bytes: u64) -> Flow<u64> {
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
pub fn fill(cx: &mut Cx<'_>, to: u64, bytes: u64, byte: u8) -> Flow<()> {
    set(cx, to, byte, bytes).map(|_| ())
}

/// `RtlZeroMemory`.
///
/// # Errors
/// As [`set`].
pub fn zero(cx: &mut Cx<'_>, to: u64, bytes: u64) -> Flow<()> {
    fill(cx, to, bytes, 0)
}

/// `RtlCompareMemory`: how many bytes are equal from the start.
///
/// # Errors
/// A verdict on a bad pointer; bytes behind the first difference are not read.
pub fn compare(cx: &mut Cx<'_>, one: u64, two: u64, bytes: u64) -> Flow<u64> {
    let mut start = 0;
    while start < bytes {
        let piece = 0x1000.min(bytes - start);
        let (a, b) = (load(cx, one + start, piece)?, load(cx, two + start, piece)?);
        let equal = a.iter().zip(&b).take_while(|(a, b)| a == b).count() as u64;
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
pub fn order(cx: &mut Cx<'_>, one: u64, two: u64, bytes: u64) -> Flow<i32> {
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
pub fn find(cx: &mut Cx<'_>, at: u64, byte: i32, bytes: u64) -> Flow<u64> {
    let [wanted, ..] = byte.to_le_bytes();
    for offset in 0..bytes {
        if load(cx, at + offset, 1)? == [wanted] {
            charge(cx, offset)?;
            return Ok(at + offset);
        }
    }
    charge(cx, bytes)?;
    Ok(0)
}
