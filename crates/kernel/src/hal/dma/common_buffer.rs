//! Common buffers: memory that a driver and its device share for as long as they like.
//!
//! Pages: *PALLOCATE_COMMON_BUFFER callback function*, *PFREE_COMMON_BUFFER callback function*. Its contents are not zeroes. Caching has no
//! effect: memory is always coherent here.

use abi::{DMA_ADAPTER, DriverPtr};
use engine::Flow;

use super::domain::{Direction, Mapping};
use super::{By, DMA_VIOLATION, find, transfer};
use crate::cx::Cx;
use crate::mm::contiguous;
use crate::mm::physical::Limits;
use crate::verdict::Verdict;

/// One.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(super) adapter: u64,
    pub(super) bytes: u64,
    logical: u64,
    pub(super) by: By,
}

/// `AllocateCommonBuffer`: where the driver has it; null without memory that the device reaches.
///
/// # Errors
/// A verdict if it is no adapter, or on a bad pointer.
pub fn allocate(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    length: u32,
    logical: DriverPtr<u64>,
    _cached: bool,
) -> Flow<u64> {
    make(cx, "AllocateCommonBuffer", adapter, u64::MAX, length, logical)
}

/// `AllocateCommonBufferEx`: at an address that is given at most, physical and logical. There is one node.
///
/// # Errors
/// As [`allocate`].
pub fn allocate_ex(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    highest: DriverPtr<u64>,
    length: u32,
    logical: DriverPtr<u64>,
    _cached: bool,
    _node: u32,
) -> Flow<u64> {
    let highest = if highest.is_null() { u64::MAX } else { cx.read(highest)? };
    make(cx, "AllocateCommonBufferEx", adapter, highest, length, logical)
}

fn make(
    cx: &mut Cx<'_>,
    name: &'static str,
    adapter: DriverPtr<DMA_ADAPTER>,
    highest: u64,
    length: u32,
    logical: DriverPtr<u64>,
) -> Flow<u64> {
    let at = find(cx, name, adapter)?;
    if length == 0 {
        transfer::expect_bytes(cx, name, 0)?;
        return Ok(0);
    }
    if cx.choose("fault.dma", 2) == 1 {
        return Ok(0);
    }
    let mask = cx.with(|k| k.hal.dma.adapters[&at].mask).min(highest);
    let bytes = u64::from(length);
    let by = By::now(cx);
    let limits = Limits { highest: mask, ..Limits::NONE };
    let Some(run) = contiguous::allocate(cx, bytes, limits) else { return Ok(0) };
    let mapping = Mapping {
        physical: run.physical,
        bytes,
        direction: Direction::Both,
        is_copy: false,
        routine: name,
        by,
    };
    let mapped = cx.with(|k| k.hal.dma.domain.map(&mut k.mm.physical, mask, mapping));
    let Some(mapped) = mapped else {
        contiguous::free(cx, run.address)?;
        return Ok(0);
    };
    let buffer = Buffer { adapter: at, bytes, logical: mapped, by };
    cx.with(|k| k.hal.dma.buffers.insert(run.address, buffer));
    cx.write(logical, mapped)?;
    Ok(run.address)
}

/// `FreeCommonBuffer`: with all that it was allocated with.
///
/// # Errors
/// A verdict if it is no common buffer of the adapter's, or another one than the arguments say.
pub fn free(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    length: u32,
    logical: u64,
    address: u64,
    _cached: bool,
) -> Flow<()> {
    let at = find(cx, "FreeCommonBuffer", adapter)?;
    let found = cx.with(|k| k.hal.dma.buffers.get(&address).copied());
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
    let by = By::now(cx);
    cx.with(|k| {
        k.hal.dma.buffers.remove(&address);
        k.hal.dma.domain.unmap(&mut k.mm.physical, logical, "FreeCommonBuffer", by);
    });
    contiguous::free(cx, address)
}
