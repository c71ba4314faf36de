//! Base relocations: the addresses in an image that change when it is not where it was linked for.
//!
//! As the Microsoft page "PE Format" has it under "The .reloc Section". Of the kinds, x64 images have `DIR64` and padding
//! only; any other is refused by name.

use object::pe::{IMAGE_DIRECTORY_ENTRY_BASERELOC, IMAGE_REL_BASED_ABSOLUTE, IMAGE_REL_BASED_DIR64};

use crate::error::Problem;
use crate::headers::Headers;
use crate::memory::Memory;

/// Adds `delta` to every relocated address in `bytes`, the memory image.
pub(crate) fn apply(headers: &Headers, memory: &Memory, delta: u64, bytes: &mut [u8]) -> Result<(), Problem> {
    let Some((start, size)) = headers.directory(IMAGE_DIRECTORY_ENTRY_BASERELOC) else { return Ok(()) };
    let Some(directory) = memory.bytes(start, size) else {
        let size_of_image = headers.size_of_image;
        return Err(Problem::WildRva { what: "the relocation directory", rva: start.into(), size_of_image });
    };
    let mut rest = directory;
    let mut block_rva = start;
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        let [p0, p1, p2, p3, s0, s1, s2, s3] = *head;
        let (page, block) = (u32::from_le_bytes([p0, p1, p2, p3]), u32::from_le_bytes([s0, s1, s2, s3]));
        if page == 0 && block == 0 {
            return Ok(());
        }
        let Some(entries) = rest.get(8..block as usize) else {
            return Err(Problem::RelocationBlock { rva: block_rva, size: block });
        };
        for entry in entries.as_chunks().0 {
            patch(headers, page, u16::from_le_bytes(*entry), delta, bytes)?;
        }
        rest = &rest[block as usize..];
        block_rva += block;
    }
    Ok(())
}

fn patch(headers: &Headers, page: u32, entry: u16, delta: u64, bytes: &mut [u8]) -> Result<(), Problem> {
    let (kind, offset) = (entry >> 12, u32::from(entry & 0xfff));
    if kind == IMAGE_REL_BASED_ABSOLUTE.0 {
        return Ok(());
    }
    if kind != IMAGE_REL_BASED_DIR64.0 {
        return Err(Problem::RelocationKind { kind, rva: page.saturating_add(offset) });
    }
    let at = page as usize + offset as usize;
    let Some(address) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) else {
        let size_of_image = headers.size_of_image;
        return Err(Problem::WildRva { what: "a relocated address", rva: at as u64, size_of_image });
    };
    *address = u64::from_le_bytes(*address).wrapping_add(delta).to_le_bytes();
    Ok(())
}
