//! Variables with their extents from DWARF (`.debug_info`), which the COFF symbol table does not tell, and of which it lacks some.
//!
//! As the DWARF standard, versions 2 to 5, has them under "Data Object Entries" and "Type Entries": entries outside of functions and in
//! them whose location is one address. Members and variables on stacks are not read.

use gimli::{AttributeValue, DebuggingInformationEntry, Operation, Unit, UnitOffset};

use super::dwarf::Slice;
use super::{Named, Source, entries};
use crate::image::Image;

/// The largest `.debug_info` that is read: loading a driver waits for it.
const MOST_BYTES: usize = 4 << 20;
/// How many types refer to one another in a chain at most (a typedef of a volatile array of structures).
const MOST_TYPES: usize = 16;

/// The variables of `image` that its DWARF names; what comes after a damaged part is not read.
pub(super) fn read(image: &Image) -> Vec<Named> {
    let mut names = Vec::new();
    entries::each(image, MOST_BYTES, |place, entry| {
        if entry.tag() == gimli::DW_TAG_variable
            && let Some(rva) = address(image, place.unit, entry)?
            && let Some(name) = entries::name(place, entry)?
        {
            let extent = size(place.unit, entry, MOST_TYPES)?.and_then(|bytes| u32::try_from(bytes).ok());
            names.push(Named { rva, source: Source::Dwarf, name, extent });
        }
        Ok(())
    });
    names
}

/// Where the variable lies, if that is one address.
fn address(
    image: &Image,
    unit: &Unit<Slice<'_>>,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
) -> gimli::Result<Option<u32>> {
    let location = entry.attr_value(gimli::DW_AT_location)?.and_then(|value| value.exprloc_value());
    let Some(mut operations) = location.map(|location| location.operations(unit.encoding())) else {
        return Ok(None);
    };
    let (first, second) = (operations.next()?, operations.next()?);
    let (Some(Operation::Address { address }), None) = (first, second) else { return Ok(None) };
    Ok(entries::rva(image, address))
}

/// Bytes of the entry's type, or of the type that it is.
fn size(
    unit: &Unit<Slice<'_>>,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
    steps: usize,
) -> gimli::Result<Option<u64>> {
    if let Some(bytes) = entry.attr_value(gimli::DW_AT_byte_size)? {
        return Ok(bytes.udata_value());
    }
    let Some(steps) = steps.checked_sub(1) else { return Ok(None) };
    let of = match entry.attr_value(gimli::DW_AT_type)? {
        None => entry.attr_value(gimli::DW_AT_specification)?,
        of => of,
    };
    let Some(AttributeValue::UnitRef(of)) = of else { return Ok(None) };
    let Some(one) = size(unit, &unit.entry(of)?, steps)? else { return Ok(None) };
    if entry.tag() != gimli::DW_TAG_array_type {
        return Ok(Some(one));
    }
    Ok(elements(unit, entry.offset())?.and_then(|count| count.checked_mul(one)))
}

/// The elements of an array in all its dimensions.
fn elements(unit: &Unit<Slice<'_>>, array: UnitOffset) -> gimli::Result<Option<u64>> {
    let mut tree = unit.entries_tree(Some(array))?;
    let mut dimensions = tree.root()?.children();
    let mut count = Some(1u64);
    while let Some(dimension) = dimensions.next()? {
        let entry = dimension.entry();
        if entry.tag() != gimli::DW_TAG_subrange_type {
            continue;
        }
        let value = |name| Ok(entry.attr_value(name)?.and_then(|value| value.udata_value()));
        let own = match value(gimli::DW_AT_count)? {
            None => value(gimli::DW_AT_upper_bound)?.and_then(|last| last.checked_add(1)),
            own => own,
        };
        count = count.zip(own).and_then(|(count, own)| count.checked_mul(own));
    }
    Ok(count)
}
