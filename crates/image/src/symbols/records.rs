//! CodeView symbol records: procedures, variables and public names with their addresses.
//!
//! As LLVM's page "CodeView Symbol Records" has them. How large a variable is, its type says (`type_sizes`). Locals, scopes and inlined
//! calls are not read.

use super::reader::Reader;
use super::type_sizes::Types;
use super::{Named, Source};
use crate::memory::MAX_NAME;
use crate::sections::Section;

/// The address of section `number` (from 1) plus `offset`.
pub(super) fn rva(sections: &[Section], number: u16, offset: u32) -> Option<u32> {
    let section = sections.get(usize::from(number).checked_sub(1)?)?;
    (offset < section.virtual_size).then(|| section.rva.checked_add(offset))?
}

/// Adds the names in a list of records to `names`; what comes after a damaged record is not read.
pub(super) fn read(records: &[u8], sections: &[Section], types: &Types, names: &mut Vec<Named>) {
    let mut reader = Reader(records);
    while let Some(length) = reader.u16() {
        let Some(record) = reader.bytes(length.into()) else { return };
        names.extend(one(Reader(record), sections, types));
    }
}

fn one(mut record: Reader<'_>, sections: &[Section], types: &Types) -> Option<Named> {
    let (source, before_address, after_address) = match record.u16()? {
        // S_LPROC32, S_GPROC32, their _ID forms and the DPC forms.
        0x110f | 0x1110 | 0x1146 | 0x1147 | 0x1155 | 0x1156 => (Source::Procedure, 28, 1),
        // S_THUNK32.
        0x1102 => (Source::Procedure, 12, 3),
        // S_PUB32.
        0x110e => (Source::Public, 4, 0),
        // S_LDATA32, S_GDATA32.
        0x110c | 0x110d => (Source::Data, 4, 0),
        _ => return None,
    };
    let first = Reader(record.bytes(before_address)?).u32()?;
    let (offset, section) = (record.u32()?, record.u16()?);
    record.bytes(after_address)?;
    let name = record.text().filter(|name| (1..=MAX_NAME).contains(&name.len()))?;
    let extent = (source == Source::Data).then(|| types.size(first)).flatten();
    Some(Named {
        rva: rva(sections, section, offset)?,
        source,
        name: String::from_utf8_lossy(name).into_owned(),
        extent,
    })
}
