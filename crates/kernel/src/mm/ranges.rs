//! What drivers ask of all memory and of the watch over drivers.
//!
//! Pages: *MmGetPhysicalMemoryRangesEx2 function* (the older form, without arguments, has none), *MmIsDriverVerifying function*.

use abi::DriverPtr;
use engine::Flow;

use super::physical::RAM;
use super::pool;
use crate::cx::Cx;
use crate::fields::Fields;
use crate::ldr;

/// `MmGetPhysicalMemoryRanges`: pairs of an address and a length in bytes in nonpaged pool, which the caller frees; the last are 0. Null if
/// there is no memory.
///
/// # Errors
/// None of its own.
pub(crate) fn get_physical_memory_ranges(cx: &mut Cx<'_>) -> Flow<DriverPtr<u64>> {
    let pairs = RAM.iter().fold(Fields::default(), |pairs, range| pairs.u64(range.base).u64(range.length));
    let bytes = pairs.u64(0).u64(0).done();
    let block = pool::allocate_for_caller(cx, pool::Kind::NonPaged, bytes.len() as u64, pool::tag(b"hPmM"))?;
    if !block.is_null() {
        cx.write_bytes(block.address, &bytes)?;
    }
    Ok(block)
}

/// `MmGetPhysicalMemoryRangesEx`: of the whole machine; a partition is not to be had.
///
/// # Errors
/// None of its own.
pub(crate) fn get_physical_memory_ranges_ex(cx: &mut Cx<'_>, partition: u64) -> Flow<DriverPtr<u64>> {
    get_physical_memory_ranges_ex2(cx, partition, 0)
}

/// `MmGetPhysicalMemoryRangesEx2`: without flags; there is no memory of a file to include.
///
/// # Errors
/// None of its own.
pub(crate) fn get_physical_memory_ranges_ex2(
    cx: &mut Cx<'_>,
    partition: u64,
    flags: u32,
) -> Flow<DriverPtr<u64>> {
    /// `MM_GET_PHYSICAL_MEMORY_RANGES_INCLUDE_FILE_ONLY`.
    const FILE_ONLY: u32 = 1;
    if partition != 0 || flags & !FILE_ONLY != 0 {
        Ok(DriverPtr::NULL)
    } else {
        get_physical_memory_ranges(cx)
    }
}

/// `MmIsDriverVerifying`: all drivers of a machine are watched, or none.
///
/// # Errors
/// None.
pub(crate) fn is_driver_verifying(cx: &mut Cx<'_>, _driver: u64) -> Flow<u32> {
    Ok(cx.nt().is_watched().into())
}

/// `MmIsDriverVerifyingByAddress`.
///
/// # Errors
/// None.
pub(crate) fn is_driver_verifying_by_address(cx: &mut Cx<'_>, address: u64) -> Flow<u32> {
    let is_driver = cx.with(|k| ldr::image_containing(k, address).is_some());
    Ok((is_driver && cx.nt().is_watched()).into())
}
