//! Lengths of memory and port ranges in resource lists, where more than 32 bits are packed into 32.
//!
//! Pages: *RtlCmEncodeMemIoResource function*, *RtlCmDecodeMemIoResource function*, *RtlIoEncodeMemIoResource function*,
//! *RtlIoDecodeMemIoResource function*. A length of 4 GiB or more is counted in units of 256, 65,536 or 4 Gi bytes, as its type's flags say.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    CM_PARTIAL_RESOURCE_DESCRIPTOR, CM_RESOURCE_MEMORY_LARGE_40, CM_RESOURCE_MEMORY_LARGE_48,
    CM_RESOURCE_MEMORY_LARGE_64, CmResourceTypeMemory, CmResourceTypeMemoryLarge, CmResourceTypePort,
    DriverPtr, IO_RESOURCE_DESCRIPTOR, NtStatus,
};
use engine::Flow;

use crate::cx::Cx;

/// The flags of a large range, and by how many bits its lengths are shifted.
const LARGE: [(u16, u32); 3] =
    [(CM_RESOURCE_MEMORY_LARGE_40, 8), (CM_RESOURCE_MEMORY_LARGE_48, 16), (CM_RESOURCE_MEMORY_LARGE_64, 32)];
const ANY_LARGE: u16 =
    CM_RESOURCE_MEMORY_LARGE_40 | CM_RESOURCE_MEMORY_LARGE_48 | CM_RESOURCE_MEMORY_LARGE_64;

/// The type, the flag and the packed form of values that are all packed alike; none if one of them has bits that would be lost.
fn pack<const N: usize>(kind: u8, values: [u64; N]) -> Option<(u8, u16, [u32; N])> {
    let all = |shift: u32| -> Option<[u32; N]> {
        let mut packed = [0; N];
        for (to, value) in packed.iter_mut().zip(values) {
            if value & ((1 << shift) - 1) != 0 {
                return None;
            }
            *to = u32::try_from(value >> shift).ok()?;
        }
        Some(packed)
    };
    if let Some(packed) = all(0) {
        return Some((kind, 0, packed));
    }
    if kind != CmResourceTypeMemory && kind != CmResourceTypeMemoryLarge {
        return None;
    }
    LARGE.iter().find_map(|(flag, shift)| Some((CmResourceTypeMemoryLarge, *flag, all(*shift)?)))
}

const fn is_range(kind: u8) -> bool {
    matches!(kind, CmResourceTypePort | CmResourceTypeMemory | CmResourceTypeMemoryLarge)
}

fn shift_of(kind: u8, flags: u16) -> u32 {
    let large = LARGE.iter().find(|(flag, _)| kind == CmResourceTypeMemoryLarge && flags & flag != 0);
    large.map_or(0, |(_, shift)| *shift)
}

/// `RtlCmEncodeMemIoResource`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn encode_assigned(
    cx: &mut Cx<'_>,
    to: DriverPtr<CM_PARTIAL_RESOURCE_DESCRIPTOR>,
    kind: u8,
    length: u64,
    start: u64,
) -> Flow<NtStatus> {
    if !is_range(kind) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let Some((kind, flag, [length])) = pack(kind, [length]) else { return Ok(NtStatus::UNSUCCESSFUL) };
    let flags = cx.read(to + CM_PARTIAL_RESOURCE_DESCRIPTOR::Flags)? & !ANY_LARGE;
    cx.write(to + CM_PARTIAL_RESOURCE_DESCRIPTOR::Type, kind)?;
    cx.write(to + CM_PARTIAL_RESOURCE_DESCRIPTOR::Flags, flags | flag)?;
    cx.write(to + CM_PARTIAL_RESOURCE_DESCRIPTOR::u_Memory_Start, start)?;
    cx.write(to + CM_PARTIAL_RESOURCE_DESCRIPTOR::u_Memory_Length, length)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlCmDecodeMemIoResource`: the length, and the start where it is asked for.
///
/// # Errors
/// As [`encode_assigned`].
pub(crate) fn decode_assigned(
    cx: &mut Cx<'_>,
    from: DriverPtr<CM_PARTIAL_RESOURCE_DESCRIPTOR>,
    start: DriverPtr<u64>,
) -> Flow<u64> {
    let kind = cx.read(from + CM_PARTIAL_RESOURCE_DESCRIPTOR::Type)?;
    let flags = cx.read(from + CM_PARTIAL_RESOURCE_DESCRIPTOR::Flags)?;
    let at = cx.read(from + CM_PARTIAL_RESOURCE_DESCRIPTOR::u_Memory_Start)?;
    let length = cx.read(from + CM_PARTIAL_RESOURCE_DESCRIPTOR::u_Memory_Length)?;
    if !start.is_null() {
        cx.write(start, at)?;
    }
    Ok(u64::from(length) << shift_of(kind, flags))
}

/// `RtlIoEncodeMemIoResource`.
///
/// # Errors
/// As [`encode_assigned`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn encode_required(
    cx: &mut Cx<'_>,
    to: DriverPtr<IO_RESOURCE_DESCRIPTOR>,
    kind: u8,
    length: u64,
    alignment: u64,
    lowest: u64,
    highest: u64,
) -> Flow<NtStatus> {
    if !is_range(kind) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let Some((kind, flag, [length, alignment])) = pack(kind, [length, alignment]) else {
        return Ok(NtStatus::UNSUCCESSFUL);
    };
    let flags = cx.read(to + IO_RESOURCE_DESCRIPTOR::Flags)? & !ANY_LARGE;
    cx.write(to + IO_RESOURCE_DESCRIPTOR::Type, kind)?;
    cx.write(to + IO_RESOURCE_DESCRIPTOR::Flags, flags | flag)?;
    cx.write(to + IO_RESOURCE_DESCRIPTOR::u_Memory_Length, length)?;
    cx.write(to + IO_RESOURCE_DESCRIPTOR::u_Memory_Alignment, alignment)?;
    cx.write(to + IO_RESOURCE_DESCRIPTOR::u_Memory_MinimumAddress, lowest)?;
    cx.write(to + IO_RESOURCE_DESCRIPTOR::u_Memory_MaximumAddress, highest)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlIoDecodeMemIoResource`: the length, and the rest where it is asked for.
///
/// # Errors
/// As [`encode_assigned`].
pub(crate) fn decode_required(
    cx: &mut Cx<'_>,
    from: DriverPtr<IO_RESOURCE_DESCRIPTOR>,
    alignment: DriverPtr<u64>,
    lowest: DriverPtr<u64>,
    highest: DriverPtr<u64>,
) -> Flow<u64> {
    let kind = cx.read(from + IO_RESOURCE_DESCRIPTOR::Type)?;
    let flags = cx.read(from + IO_RESOURCE_DESCRIPTOR::Flags)?;
    let shift = shift_of(kind, flags);
    let length = cx.read(from + IO_RESOURCE_DESCRIPTOR::u_Memory_Length)?;
    let own = [
        (alignment, u64::from(cx.read(from + IO_RESOURCE_DESCRIPTOR::u_Memory_Alignment)?) << shift),
        (lowest, cx.read(from + IO_RESOURCE_DESCRIPTOR::u_Memory_MinimumAddress)?),
        (highest, cx.read(from + IO_RESOURCE_DESCRIPTOR::u_Memory_MaximumAddress)?),
    ];
    for (to, value) in own {
        if !to.is_null() {
            cx.write(to, value)?;
        }
    }
    Ok(u64::from(length) << shift)
}
