//! Names of functions from DWARF (`.debug_info`), where the COFF symbol table has none.
//!
//! As the DWARF standard, versions 2 to 5, has them under "Subroutine and Entry Point Entries": entries with an address,
//! named by themselves or by the entry they are an instance or the definition of. Inlined calls and types are not read.

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, LittleEndian, Section as _, Unit};

use super::dwarf::{self, MOST_BYTES, Slice};
use super::{Named, Source};
use crate::image::Image;

/// The most entries that are looked at.
pub(super) const MOST_ENTRIES: usize = 4 << 20;
/// An entry is named by one that is named by another; no compiler makes longer chains.
pub(super) const MOST_STEPS: usize = 4;

/// The functions of `image` that its DWARF names; what comes after a damaged part is not read.
pub(super) fn read(image: &Image) -> Vec<Named> {
    let mut names = Vec::new();
    let section = |id: gimli::SectionId| -> gimli::Result<Slice<'_>> {
        Ok(Slice::new(dwarf::section(image, id.name()), LittleEndian))
    };
    if let Ok(all) = Dwarf::load(section)
        && all.debug_info.reader().len() <= MOST_BYTES
    {
        let _ends_at_damage = collect(image, &all, &mut names);
    }
    names
}

fn collect(image: &Image, all: &Dwarf<Slice<'_>>, names: &mut Vec<Named>) -> gimli::Result<()> {
    let mut left = MOST_ENTRIES;
    let mut units = all.units();
    while let Some(header) = units.next()? {
        let unit = all.unit(header)?;
        let mut entries = unit.entries();
        while let Some((_, entry)) = entries.next_dfs()? {
            let Some(fewer) = left.checked_sub(1) else { return Ok(()) };
            left = fewer;
            if entry.tag() == gimli::DW_TAG_subprogram
                && let Some(rva) = address(image, entry)?
                && let Some(name) = name(all, &unit, entry, MOST_STEPS)?
            {
                names.push(Named { rva, source: Source::Dwarf, name, extent: None });
            }
        }
    }
    Ok(())
}

/// Where the function begins.
fn address(
    image: &Image,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
) -> gimli::Result<Option<u32>> {
    let Some(AttributeValue::Addr(address)) = entry.attr_value(gimli::DW_AT_low_pc)? else { return Ok(None) };
    let rva = address.checked_sub(image.preferred_base()).and_then(|rva| u32::try_from(rva).ok());
    Ok(rva.filter(|&rva| rva < image.size()))
}

pub(super) fn name(
    all: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
    steps: usize,
) -> gimli::Result<Option<String>> {
    if let Some(value) = entry.attr_value(gimli::DW_AT_name)? {
        let text = all.attr_string(unit, value)?;
        return Ok(Some(dwarf::name(text.slice())));
    }
    let of = match entry.attr_value(gimli::DW_AT_abstract_origin)? {
        None => entry.attr_value(gimli::DW_AT_specification)?,
        origin => origin,
    };
    match (of, steps.checked_sub(1)) {
        (Some(AttributeValue::UnitRef(offset)), Some(steps)) => name(all, unit, &unit.entry(offset)?, steps),
        _ => Ok(None),
    }
}
