//! Common buffers: memory that a driver and its device share for as long as they like.
//!
//! Pages: *PALLOCATE_COMMON_BUFFER callback function*, *PFREE_COMMON_BUFFER callback function*. Its contents are not zeroes. Caching has no
//! effect: memory is always coherent here.

use abi::{DMA_ADAPTER, DriverPtr};
use engine::Flow;

use super::domain::{Direction, GAP, Stretch, Terms};
use super::{By, DMA_VIOLATION, NOT_YET_TRANSFERRED, find, transfer};
use crate::cx::Cx;
use crate::mm::contiguous;
use crate::mm::physical::Limits;
use crate::verdict::Verdict;

/// One.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(super) adapter: u64,
    pub(super) bytes: u64,
    pub(super) logical: u64,
    /// The memory is the driver's own.
    pub(super) is_lent: bool,
    pub(super) by: By,
}

/// `AllocateCommonBuffer`: where the driver has it; null without memory that the device reaches.
///
/// # Errors
/// A verdict if it is no adapter, or on a bad pointer.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    length: u32,
    logical: DriverPtr<u64>,
    _cached: bool,
) -> Flow<u64> {
    make(cx, "AllocateCommonBuffer", adapter, (0, u64::MAX), length.into(), logical)
}

/// `AllocateCommonBufferEx`: at an address that is given at most, physical and logical. There is one node.
///
/// # Errors
/// As [`allocate`].
pub(crate) fn allocate_ex(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    highest: DriverPtr<u64>,
    length: u32,
    logical: DriverPtr<u64>,
    _cached: bool,
    _node: u32,
) -> Flow<u64> {
    let highest = if highest.is_null() { u64::MAX } else { cx.read(highest)? };
    make(cx, "AllocateCommonBufferEx", adapter, (0, highest), length.into(), logical)
}

/// `AllocateCommonBufferWithBounds`: within logical addresses, where they are given.
///
/// # Errors
/// As [`allocate`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn allocate_with_bounds(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    lowest: DriverPtr<u64>,
    highest: DriverPtr<u64>,
    length: u32,
    _flags: u32,
    _cache: DriverPtr<u32>,
    _node: u32,
    logical: DriverPtr<u64>,
) -> Flow<u64> {
    let lowest = if lowest.is_null() { 0 } else { cx.read(lowest)? };
    let highest = if highest.is_null() { u64::MAX } else { cx.read(highest)? };
    make(cx, "AllocateCommonBufferWithBounds", adapter, (lowest, highest), length.into(), logical)
}

fn make(
    cx: &mut Cx<'_>,
    name: &'static str,
    adapter: DriverPtr<DMA_ADAPTER>,
    bounds: (u64, u64),
    bytes: u64,
    logical: DriverPtr<u64>,
) -> Flow<u64> {
    let at = find(cx, name, adapter)?;
    match place(cx, name, at, bounds, bytes)? {
        Some((address, buffer)) => {
            cx.write(logical, buffer.logical)?;
            Ok(address)
        }
        None => Ok(0),
    }
}

/// A common buffer within logical addresses: where the driver has it.
pub(super) fn place(
    cx: &mut Cx<'_>,
    name: &'static str,
    at: u64,
    (lowest, highest): (u64, u64),
    bytes: u64,
) -> Flow<Option<(u64, Buffer)>> {
    transfer::expect_bytes(cx, name, bytes)?;
    if bytes == 0 || cx.choose("fault.dma", 2) == 1 {
        return Ok(None);
    }
    let highest = cx.with(|k| k.hal.dma.adapters[&at].mask).min(highest);
    let by = By::now(cx);
    let limits = Limits { highest, ..Limits::NONE };
    let Some(run) = contiguous::allocate(cx, bytes, limits, NOT_YET_TRANSFERRED) else { return Ok(None) };
    let terms = Terms { direction: Direction::Both, routine: name, by };
    let stretch = Stretch::new(run.physical, bytes, false, GAP);
    let limits = Limits { lowest, highest, boundary: 0 };
    let mapped = cx.with(|k| k.hal.dma.domain.map(&mut k.mm.physical, limits, terms, stretch));
    let Some(logical) = mapped else {
        contiguous::free(cx, run.address)?;
        return Ok(None);
    };
    let buffer = Buffer { adapter: at, bytes, logical, is_lent: false, by };
    cx.with(|k| k.hal.dma.buffers.insert((run.address, logical), buffer));
    Ok(Some((run.address, buffer)))
}

/// `FreeCommonBuffer`: with all that it was allocated with.
///
/// # Errors
/// A verdict if it is no common buffer of the adapter's, or another one than the arguments say.
pub(crate) fn free(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    length: u32,
    logical: u64,
    address: u64,
    _cached: bool,
) -> Flow<()> {
    let at = find(cx, "FreeCommonBuffer", adapter)?;
    let found = cx.with(|k| {
        let buffers = &k.hal.dma.buffers;
        let mut here = buffers.range((address, 0)..=(address, u64::MAX)).map(|(_, buffer)| buffer);
        buffers.get(&(address, logical)).or_else(|| here.next()).copied()
    });
    let wrong = match found {
        Some(buffer) if buffer.adapter != at => Some("which is another adapter's".to_owned()),
        Some(buffer) if buffer.bytes != length.into() => {
            Some(format!("with {length:#x} bytes; {:#x} were allocated", buffer.bytes))
        }
        Some(buffer) if buffer.logical != logical => {
            Some(format!("with the logical address {logical:#x}; its own is {:#x}", buffer.logical))
        }
        Some(_) => None,
        None => Some("which is not allocated, or freed already".to_owned()),
    };
    if let Some(wrong) = wrong {
        let message = format!("FreeCommonBuffer was given {address:#x}, {wrong}");
        let verdict = Verdict::error("bad-common-buffer-free", message);
        return Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x3, at, address, 0])));
    }
    give(cx, "FreeCommonBuffer", (address, logical))
}

/// Frees one that is there.
pub(super) fn give(cx: &mut Cx<'_>, name: &'static str, (address, logical): (u64, u64)) -> Flow<()> {
    let by = By::now(cx);
    let freed = cx.with(|k| {
        let buffer = k.hal.dma.buffers.remove(&(address, logical))?;
        k.hal.dma.domain.unmap(&mut k.mm.physical, logical, name, by);
        Some(buffer)
    });
    match freed {
        Some(buffer) if !buffer.is_lent => contiguous::free(cx, address),
        _ => Ok(()),
    }
}
