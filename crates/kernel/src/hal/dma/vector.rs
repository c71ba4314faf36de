//! Vectors of common buffers: several of one size, by their index.
//!
//! Pages: *PALLOCATE_COMMON_BUFFER_VECTOR callback function*, *PGET_COMMON_BUFFER_FROM_VECTOR_BY_INDEX callback function*,
//! *PFREE_COMMON_BUFFER_FROM_VECTOR callback function*, *PFREE_COMMON_BUFFER_VECTOR callback function*, which give no more than the arguments.

use abi::{DMA_ADAPTER, DriverPtr, NtStatus};
use engine::Flow;

use super::{common_buffer, find};
use crate::cx::Cx;
use crate::mm::pool;
use crate::verdict::Verdict;

const TAG: u32 = pool::tag(b"DmaV");
/// More elements than any device takes.
const MOST: u32 = 1 << 16;

/// One.
pub(crate) struct Vector {
    adapter: u64,
    /// Where the driver has each that is not freed.
    elements: Vec<Option<Element>>,
}

/// Where the driver has a common buffer, and where the device has it.
type Element = (u64, u64);

/// `AllocateCommonBufferVector`: all of them or none.
///
/// # Errors
/// A verdict if it is no adapter, or on a bad pointer.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    lowest: u64,
    highest: u64,
    _cache: u32,
    _node: u32,
    _flags: u32,
    count: u32,
    size: u64,
    vector: DriverPtr<u64>,
) -> Flow<NtStatus> {
    const NAME: &str = "AllocateCommonBufferVector";
    let at = find(cx, NAME, adapter)?;
    if count == 0 || count > MOST || size == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let body = pool::allocate::<()>(cx, pool::Kind::NonPaged, 16, TAG)?;
    let mut elements = Vec::new();
    for _ in 0..count {
        match common_buffer::place(cx, NAME, at, (lowest, highest), size)? {
            Some((address, buffer)) if !body.is_null() => elements.push(Some((address, buffer.logical))),
            placed => {
                let placed = placed.map(|(address, buffer)| (address, buffer.logical));
                for address in elements.into_iter().flatten().chain(placed) {
                    common_buffer::give(cx, NAME, address)?;
                }
                if !body.is_null() {
                    pool::free(cx, body)?;
                }
                return Ok(NtStatus::INSUFFICIENT_RESOURCES);
            }
        }
    }
    cx.with(|k| k.hal.dma.vectors.insert(body.address, Vector { adapter: at, elements }));
    cx.write(vector, body.address)?;
    Ok(NtStatus::SUCCESS)
}

/// The elements of a vector of the adapter's.
fn elements(
    cx: &mut Cx<'_>,
    name: &str,
    adapter: DriverPtr<DMA_ADAPTER>,
    vector: u64,
) -> Flow<Vec<Option<Element>>> {
    let at = find(cx, name, adapter)?;
    let found = cx.with(|k| {
        let known = k.hal.dma.vectors.get(&vector).filter(|known| known.adapter == at);
        known.map(|known| known.elements.clone())
    });
    found.ok_or_else(|| {
        let message = format!("{name} was called with {vector:#x}, which is no vector of common buffers of the adapter's, or is freed");
        cx.stop(Verdict::error("not-a-common-buffer-vector", message))
    })
}

/// One of them.
fn element(
    cx: &mut Cx<'_>,
    name: &str,
    adapter: DriverPtr<DMA_ADAPTER>,
    vector: u64,
    index: u32,
) -> Flow<Element> {
    let all = elements(cx, name, adapter, vector)?;
    all.get(index as usize).copied().flatten().ok_or_else(|| {
        let count = all.len();
        let message = format!("{name} was called for element {index} of the vector {vector:#x}, which has {count}, or it is freed");
        cx.stop(Verdict::error("not-a-common-buffer-vector", message))
    })
}

/// `GetCommonBufferFromVectorByIndex`.
///
/// # Errors
/// A verdict if there is no such element.
pub(crate) fn get(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    vector: u64,
    index: u32,
    address: DriverPtr<u64>,
    logical: DriverPtr<u64>,
) -> Flow<()> {
    let (at, mapped) = element(cx, "GetCommonBufferFromVectorByIndex", adapter, vector, index)?;
    cx.write(address, at)?;
    cx.write(logical, mapped)
}

/// `FreeCommonBufferFromVector`.
///
/// # Errors
/// A verdict if there is no such element.
pub(crate) fn free_one(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    vector: u64,
    index: u32,
) -> Flow<()> {
    const NAME: &str = "FreeCommonBufferFromVector";
    let at = element(cx, NAME, adapter, vector, index)?;
    cx.with(|k| {
        if let Some(known) = k.hal.dma.vectors.get_mut(&vector) {
            known.elements[index as usize] = None;
        }
    });
    common_buffer::give(cx, NAME, at)
}

/// `FreeCommonBufferVector`: with all that are left in it.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn free(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>, vector: u64) -> Flow<()> {
    const NAME: &str = "FreeCommonBufferVector";
    for address in elements(cx, NAME, adapter, vector)?.into_iter().flatten() {
        common_buffer::give(cx, NAME, address)?;
    }
    cx.with(|k| k.hal.dma.vectors.remove(&vector));
    pool::free(cx, DriverPtr::<()>::new(vector))
}
