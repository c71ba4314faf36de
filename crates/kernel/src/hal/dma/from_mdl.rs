//! Common buffers of memory that the driver has already.
//!
//! Pages: *PCREATE_COMMON_BUFFER_FROM_MDL callback function*, *DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION structure*. Its pages may lie apart and
//! anywhere, as behind an IOMMU. `FreeCommonBuffer` takes the logical addresses away, and leaves the memory.

use abi::{
    CommonBufferConfigTypeHardwareAccessPermissions, CommonBufferConfigTypeLogicalAddressLimits,
    CommonBufferConfigTypeSubSection, CommonBufferHardwareAccessReadOnly,
    CommonBufferHardwareAccessReadWrite, CommonBufferHardwareAccessWriteOnly, DMA_ADAPTER,
    DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION, DriverPtr, MDL, MDL_MAPPED_TO_SYSTEM_VA,
    MDL_SOURCE_IS_NONPAGED_POOL, NtStatus,
};
use engine::Flow;
use engine::windows::PAGE;

use super::common_buffer::Buffer;
use super::domain::{Direction, GAP, Stretch, Terms};
use super::pieces::{self, Piece};
use super::{By, find};
use crate::cx::Cx;
use crate::few::Few;
use crate::mm::mdl;
use crate::mm::physical::Limits;

/// More configurations than there are kinds.
const MOST: u32 = 16;

/// What the configurations come to.
struct Wanted {
    limits: Option<(u64, u64)>,
    part: Option<(u64, u64)>,
    direction: Option<Direction>,
}

/// None if one is given twice, or means nothing.
#[allow(non_upper_case_globals, reason = "Microsoft's names")]
fn configurations(
    cx: &mut Cx<'_>,
    first: DriverPtr<DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION>,
    count: u32,
) -> Flow<Option<Wanted>> {
    type One = DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION;
    let mut wanted = Wanted { limits: None, part: None, direction: None };
    if count > MOST {
        return Ok(None);
    }
    for index in 0..u64::from(count) {
        let one = first.byte_add(index * size_of::<One>() as u64);
        let is_twice = match cx.read(one + One::ConfigType)? {
            CommonBufferConfigTypeLogicalAddressLimits => {
                let lowest = cx.read(one + One::LogicalAddressLimits_MinimumAddress)?;
                let highest = cx.read(one + One::LogicalAddressLimits_MaximumAddress)?;
                wanted.limits.replace((lowest, highest)).is_some()
            }
            CommonBufferConfigTypeSubSection => {
                let offset = cx.read(one + One::SubSection_Offset)?;
                let length = cx.read(one + One::SubSection_Length)?;
                wanted.part.replace((offset, length.into())).is_some()
            }
            CommonBufferConfigTypeHardwareAccessPermissions => {
                let direction = match cx.read(one + One::HardwareAccessType)? {
                    CommonBufferHardwareAccessReadOnly => Direction::ToDevice,
                    CommonBufferHardwareAccessWriteOnly => Direction::ToMemory,
                    CommonBufferHardwareAccessReadWrite => Direction::Both,
                    _ => return Ok(None),
                };
                wanted.direction.replace(direction).is_some()
            }
            _ => return Ok(None),
        };
        if is_twice {
            return Ok(None);
        }
    }
    Ok(Some(wanted))
}

/// The MDL of a chain that holds all of a part, and where in it that begins; none if there is none, or more of them are needed.
fn holder(
    cx: &mut Cx<'_>,
    mdl: DriverPtr<MDL>,
    part: Option<(u64, u64)>,
) -> Flow<Option<(DriverPtr<MDL>, u64, u64)>> {
    let Some((mut offset, length)) = part else {
        let is_alone = cx.read(mdl + MDL::Next)?.is_null();
        let (_, count) = mdl::buffer(cx, mdl)?;
        return Ok(is_alone.then_some((mdl, 0, count)));
    };
    let mut at = mdl;
    // As long as the offset leads on, which ends: it is a number of bytes.
    while !at.is_null() {
        let (_, count) = mdl::buffer(cx, at)?;
        if offset < count {
            return Ok((length <= count - offset).then_some((at, offset, length)));
        }
        if count == 0 {
            return Ok(None);
        }
        offset -= count;
        at = cx.read(at + MDL::Next)?;
    }
    Ok(None)
}

/// `CreateCommonBufferFromMdl`.
///
/// # Errors
/// A verdict if it is no adapter, or on a bad pointer.
pub(crate) fn create(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    configuration: DriverPtr<DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION>,
    count: u32,
    logical: DriverPtr<u64>,
) -> Flow<NtStatus> {
    const NAME: &str = "CreateCommonBufferFromMdl";
    let at = find(cx, NAME, adapter)?;
    let Some(wanted) = configurations(cx, configuration, count)? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let Some((mdl, offset, bytes)) = holder(cx, mdl, wanted.part)? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let start = mdl::buffer(cx, mdl)?.0.wrapping_add(offset);
    let is_shown = mdl::flags(cx, mdl)? & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0;
    if !is_shown || bytes == 0 || !start.is_multiple_of(PAGE) || !bytes.is_multiple_of(PAGE) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let address = cx.read(mdl + MDL::MappedSystemVa)?.address.wrapping_add(offset);
    let Some(found) = pieces::of(cx, NAME, mdl, (start, bytes), false)? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    if cx.choose("fault.dma", 2) == 1 {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let by = By::now(cx);
    let last = found.len() - 1;
    let terms = Terms { direction: wanted.direction.unwrap_or(Direction::Both), routine: NAME, by };
    let mut stretches = Few::default();
    for (index, Piece { physical, bytes }) in found.into_iter().enumerate() {
        stretches.push(Stretch::new(physical, bytes, false, if index == last { GAP } else { 0 }));
    }
    let (lowest, highest) = wanted.limits.unwrap_or((0, u64::MAX));
    let placed = cx.with(|k| {
        let highest = k.hal.dma.adapters[&at].mask.min(highest);
        let limits = Limits { lowest, highest, boundary: 0 };
        let placed = k.hal.dma.domain.map_all(&mut k.mm.physical, limits, terms, stretches, |_| {})?;
        let buffer = Buffer { adapter: at, bytes, logical: placed, is_lent: true, by };
        k.hal.dma.buffers.insert((address, placed), buffer);
        Some(placed)
    });
    match placed {
        Some(placed) => cx.write(logical, placed).map(|()| NtStatus::SUCCESS),
        None => Ok(NtStatus::INSUFFICIENT_RESOURCES),
    }
}
