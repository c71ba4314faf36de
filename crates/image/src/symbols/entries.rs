//! The entries of an image's DWARF (`.debug_info`), one after the other, and what those who look for names ask of one.
//!
//! As the DWARF standard, versions 2 to 5, has them under "Debugging Information Entries".

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, LittleEndian, Section as _, Unit};

use super::dwarf::{self, Slice};
use crate::image::Image;

/// The most entries that are looked at.
const MOST_ENTRIES: usize = 4 << 20;
/// An entry is named by one that is named by another; no compiler makes longer chains.
const MOST_STEPS: usize = 4;

/// Where an entry stands.
pub(super) struct Place<'p, 's> {
    pub(super) all: &'p Dwarf<Slice<'s>>,
    pub(super) unit: &'p Unit<Slice<'s>>,
    /// Below so many others of its unit.
    pub(super) depth: isize,
}

/// Visits the entries of `image`, unless there are more than `most_bytes` of them; what comes after a damaged part is not read.
pub(super) fn each(
    image: &Image,
    most_bytes: usize,
    mut visit: impl FnMut(&Place<'_, '_>, &DebuggingInformationEntry<'_, '_, Slice<'_>>) -> gimli::Result<()>,
) {
    let section = |id: gimli::SectionId| -> gimli::Result<Slice<'_>> {
        Ok(Slice::new(dwarf::section(image, id.name()), LittleEndian))
    };
    let mut walk = |all: &Dwarf<Slice<'_>>| -> gimli::Result<()> {
        let mut left = MOST_ENTRIES;
        let mut units = all.units();
        while let Some(header) = units.next()? {
            let unit = all.unit(header)?;
            let mut depth = 0;
            let mut entries = unit.entries();
            while let Some((deeper, entry)) = entries.next_dfs()? {
                let Some(fewer) = left.checked_sub(1) else { return Ok(()) };
                left = fewer;
                depth += deeper;
                visit(&Place { all, unit: &unit, depth }, entry)?;
            }
        }
        Ok(())
    };
    if let Ok(all) = Dwarf::load(section)
        && all.debug_info.reader().len() <= most_bytes
    {
        let _ends_at_damage = walk(&all);
    }
}

/// What an entry is called, by itself or by the entry it is an instance or the definition of.
pub(super) fn name(
    place: &Place<'_, '_>,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
) -> gimli::Result<Option<String>> {
    name_by(place.all, place.unit, entry, MOST_STEPS)
}

fn name_by(
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
        (Some(AttributeValue::UnitRef(offset)), Some(steps)) => {
            name_by(all, unit, &unit.entry(offset)?, steps)
        }
        _ => Ok(None),
    }
}

/// Where in `image` an address of its DWARF lies.
pub(super) fn rva(image: &Image, address: u64) -> Option<u32> {
    let rva = address.checked_sub(image.preferred_base()).and_then(|rva| u32::try_from(rva).ok());
    rva.filter(|&rva| rva < image.size())
}
