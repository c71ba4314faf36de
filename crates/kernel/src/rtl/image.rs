//! `RtlImageNtHeader`, `RtlImageDirectoryEntryToData`: where the parts of an image lie that is in memory.
//!
//! No page describes them: layouts are those of *PE Format*, answers what drivers rely on that look for exports themselves. A base with its
//! lowest bit set means an image that lies as it does in its file. 32-bit images have their directories elsewhere, and they are found.

use abi::DriverPtr;
use engine::Flow;

use crate::cx::Cx;

/// `IMAGE_DOS_HEADER::e_lfanew`, and the most it may be.
const NEW_HEADER: u64 = 0x3C;
const FARTHEST: u32 = 0x1000_0000;
/// Of `IMAGE_NT_HEADERS`: sections, bytes of the optional header, and where that begins.
const SECTIONS: u64 = 6;
const OPTIONAL_BYTES: u64 = 0x14;
const OPTIONAL: u64 = 0x18;
/// Of `IMAGE_OPTIONAL_HEADER`, of 32 and of 64 bits: how many directories there are; they follow.
const DIRECTORIES: [(u16, u64); 2] = [(0x10B, 0x5C), (0x20B, 0x6C)];
/// Of `IMAGE_OPTIONAL_HEADER`.
const SIZE_OF_HEADERS: u64 = 0x3C;
/// Bytes of an `IMAGE_SECTION_HEADER`.
const SECTION: u64 = 0x28;

/// `RtlImageNtHeader`: the `IMAGE_NT_HEADERS` of the image at `base`; null if there is none.
///
/// # Errors
/// A verdict if it cannot be read.
pub(crate) fn nt_header(cx: &mut Cx<'_>, base: DriverPtr<u16>) -> Flow<u64> {
    if base.is_null() || base.address == u64::MAX || cx.read(base)? != u16::from_le_bytes(*b"MZ") {
        return Ok(0);
    }
    let offset: u32 = cx.read(base.byte_add(NEW_HEADER).cast())?;
    if offset >= FARTHEST {
        return Ok(0);
    }
    let header: DriverPtr<u32> = base.byte_add(offset.into()).cast();
    Ok(if cx.read(header)? == u32::from_le_bytes(*b"PE\0\0") { header.address } else { 0 })
}

/// `RtlImageDirectoryEntryToData`: where data directory `entry` lies, and its bytes in `size`; null if there is none.
///
/// # Errors
/// As [`nt_header`].
pub(crate) fn directory_entry_to_data(
    cx: &mut Cx<'_>,
    base: DriverPtr<u16>,
    is_mapped: bool,
    entry: u16,
    size: DriverPtr<u32>,
) -> Flow<u64> {
    let is_mapped = is_mapped && base.address & 1 == 0;
    let base = DriverPtr::<u16>::new(base.address & !1);
    let header = nt_header(cx, base)?;
    if header == 0 {
        return Ok(0);
    }
    let optional = DriverPtr::<u16>::new(header + OPTIONAL);
    let magic = cx.read(optional)?;
    let Some((_, count_at)) = DIRECTORIES.iter().find(|(known, _)| *known == magic) else { return Ok(0) };
    let count: u32 = cx.read(optional.byte_add(*count_at).cast())?;
    if u32::from(entry) >= count {
        return Ok(0);
    }
    let row: DriverPtr<u32> = optional.byte_add(count_at + 4 + 8 * u64::from(entry)).cast();
    let (rva, bytes) = (cx.read(row)?, cx.read(row.index(1))?);
    if rva == 0 {
        return Ok(0);
    }
    cx.write(size, bytes)?;
    let headers: u32 = cx.read(optional.byte_add(SIZE_OF_HEADERS).cast())?;
    if is_mapped || rva < headers {
        return Ok(base.address + u64::from(rva));
    }
    in_file(cx, base, header, rva)
}

/// Where an RVA lies in an image that is as its file.
fn in_file(cx: &mut Cx<'_>, base: DriverPtr<u16>, header: u64, rva: u32) -> Flow<u64> {
    let header = DriverPtr::<u16>::new(header);
    let sections = cx.read(header.byte_add(SECTIONS))?;
    let bytes = cx.read(header.byte_add(OPTIONAL_BYTES))?;
    let first: DriverPtr<u32> = header.byte_add(OPTIONAL + u64::from(bytes)).cast();
    for section in 0..u64::from(sections) {
        let at = first.byte_add(section * SECTION);
        // VirtualAddress, SizeOfRawData, PointerToRawData.
        let (begin, raw, file) = (cx.read(at.index(3))?, cx.read(at.index(4))?, cx.read(at.index(5))?);
        if rva.checked_sub(begin).is_some_and(|within| within < raw) {
            return Ok(base.address + u64::from(file) + u64::from(rva - begin));
        }
    }
    Ok(0)
}
