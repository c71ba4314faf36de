//! Names of functions from DWARF (`.debug_info`), where the COFF symbol table has none.
//!
//! As the DWARF standard, versions 2 to 5, has them under "Subroutine and Entry Point Entries": entries with an address,
//! named by themselves or by the entry they are an instance or the definition of. Inlined calls and types are not read.

use gimli::{AttributeValue, DebuggingInformationEntry};

use super::dwarf::{MOST_BYTES, Slice};
use super::{Named, Source, entries};
use crate::image::Image;

/// The functions of `image` that its DWARF names; what comes after a damaged part is not read.
pub(super) fn read(image: &Image) -> Vec<Named> {
    let mut names = Vec::new();
    entries::each(image, MOST_BYTES, |place, entry| {
        if entry.tag() == gimli::DW_TAG_subprogram
            && let Some(rva) = address(image, entry)?
            && let Some(name) = entries::name(place, entry)?
        {
            names.push(Named { rva, source: Source::Dwarf, name, extent: None });
        }
        Ok(())
    });
    names
}

/// Where the function begins.
fn address(
    image: &Image,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
) -> gimli::Result<Option<u32>> {
    let Some(AttributeValue::Addr(address)) = entry.attr_value(gimli::DW_AT_low_pc)? else { return Ok(None) };
    Ok(entries::rva(image, address))
}
