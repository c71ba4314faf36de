//! Inlined calls from DWARF (`.debug_info`): where code of inlined routines lies, and from which line each was called.
//!
//! As the DWARF standard, versions 2 to 5, has them under "Inlined Subroutine Entries" (`DW_AT_call_file`, `DW_AT_call_line`) and "Code
//! Addresses, Ranges and Base Addresses". Types and parameters are not read.

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, Unit};

use super::dwarf::{self, MOST_BYTES, Slice};
use super::entries::{self, Place};
use super::inlines::{MOST_PIECES, Piece};
use super::lines::Lines;
use crate::image::Image;

/// Adds the inlined calls of `image` to its lines; what comes after a damaged part is not read.
pub(super) fn read(image: &Image, lines: &mut Lines) {
    lines.inlines.calls = true;
    // How deep each inlined call lies that the entry is in, by the depths of their entries.
    let mut around: Vec<isize> = Vec::new();
    entries::each(image, MOST_BYTES, |place, entry| {
        around.retain(|outer| *outer < place.depth);
        if entry.tag() != gimli::DW_TAG_inlined_subroutine {
            return Ok(());
        }
        around.push(place.depth);
        one(image, place, entry, around.len(), lines)
    });
    lines.inlines.sort();
}

fn one(
    image: &Image,
    place: &Place<'_, '_>,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
    depth: usize,
    lines: &mut Lines,
) -> gimli::Result<()> {
    let Some(text) = entries::name(place, entry)? else { return Ok(()) };
    let Place { all, unit, .. } = *place;
    let (name, depth) = (lines.inlines.name(text), u32::try_from(depth).unwrap_or(u32::MAX));
    let line = called_from(all, unit, entry, lines)?;
    let rva = |address: u64| {
        let rva = address.checked_sub(image.preferred_base()).and_then(|rva| u32::try_from(rva).ok());
        rva.filter(|rva| *rva <= image.size())
    };
    let mut ranges = all.die_ranges(unit, entry)?;
    for _ in 0..MOST_PIECES {
        let Some(range) = ranges.next()? else { break };
        if let (Some(rva), Some(end)) = (rva(range.begin), rva(range.end)) {
            lines.inlines.push(Piece { rva, end, depth, name, line });
        }
    }
    Ok(())
}

/// The file and the line of the call.
fn called_from(
    all: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    entry: &DebuggingInformationEntry<'_, '_, Slice<'_>>,
    lines: &mut Lines,
) -> gimli::Result<Option<(usize, u32)>> {
    let file = match entry.attr_value(gimli::DW_AT_call_file)? {
        Some(AttributeValue::FileIndex(index)) => index,
        Some(other) => other.udata_value().unwrap_or_default(),
        None => return Ok(None),
    };
    let line = entry.attr_value(gimli::DW_AT_call_line)?.and_then(|line| line.udata_value());
    let Some(line) = line.and_then(|line| u32::try_from(line).ok()) else { return Ok(None) };
    let Some(header) = unit.line_program.as_ref().map(gimli::IncompleteLineProgram::header) else {
        return Ok(None);
    };
    let Some(file) = header.file(file) else { return Ok(None) };
    let text = |value| -> gimli::Result<String> { Ok(dwarf::name(all.attr_string(unit, value)?.slice())) };
    let name = text(file.path_name())?;
    let folder = file.directory(header).map_or(Ok(String::new()), text)?;
    Ok(Some((lines.file(dwarf::path(&folder, name)), line)))
}
