//! The export table: what an image gives to others.
//!
//! As the Microsoft page "PE Format" has it under "The .edata Section". Forwarders are read, not followed.

use object::LittleEndian as LE;
use object::pe::{IMAGE_DIRECTORY_ENTRY_EXPORT, ImageExportDirectory};

use crate::error::Problem;
use crate::headers::Headers;
use crate::memory::Memory;
use crate::selector::Forwarder;

/// Entries, and names, that are accepted of one image.
const MAX_EXPORTS: u32 = 16_384;

/// One entry that an image gives. An entry with two names is two of these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// Its number.
    pub ordinal: u32,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Where it is.
    pub target: ExportTarget,
}

/// Where an exported entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExportTarget {
    /// In this image, at this RVA: a function or a variable.
    Rva(u32),
    /// In another module.
    Forward(Forwarder),
}

/// Every export of the image, by ordinal.
pub(crate) fn read(headers: &Headers, memory: &Memory) -> Result<Vec<Export>, Problem> {
    let Some((rva, size)) = headers.directory(IMAGE_DIRECTORY_ENTRY_EXPORT) else { return Ok(Vec::new()) };
    let Some(directory) = memory.read::<ImageExportDirectory>(rva) else {
        return Err(wild(headers, "the export directory", rva));
    };
    let reader = Reader { headers, memory, directory, range: rva..rva.saturating_add(size) };
    let mut exports = reader.unnamed()?;
    reader.name(&mut exports)?;
    exports.retain(|export| export.target != ExportTarget::Rva(0));
    exports.sort_by(|a, b| (a.ordinal, &a.name).cmp(&(b.ordinal, &b.name)));
    Ok(exports)
}

fn wild(headers: &Headers, what: &'static str, rva: u32) -> Problem {
    Problem::WildRva { what, rva: rva.into(), size_of_image: headers.size_of_image }
}

struct Reader<'i> {
    headers: &'i Headers,
    memory: &'i Memory,
    directory: ImageExportDirectory,
    /// RVAs of the directory: an entry that points here is a forwarder's text.
    range: std::ops::Range<u32>,
}

impl Reader<'_> {
    /// The address table, one export an entry, gaps included (RVA 0).
    fn unnamed(&self) -> Result<Vec<Export>, Problem> {
        let count = bounded(self.directory.number_of_functions.get(LE), "exports")?;
        let rva = self.directory.address_of_functions.get(LE);
        let Some(table) = self.memory.bytes(rva, 4 * count) else {
            return Err(wild(self.headers, "the export address table", rva));
        };
        let base = self.directory.base.get(LE);
        let rvas = table.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let export = |(index, rva)| {
            Ok(Export { ordinal: base.wrapping_add(index), name: None, target: self.target(rva)? })
        };
        (0..count).zip(rvas).map(export).collect()
    }

    fn target(&self, rva: u32) -> Result<ExportTarget, Problem> {
        if self.range.contains(&rva) {
            let forwarder = self.memory.name(rva).and_then(|text| Forwarder::parse(&text));
            return forwarder.map(ExportTarget::Forward).ok_or(Problem::BadName { what: "a forwarder", rva });
        }
        if rva < self.headers.mapped_size() {
            Ok(ExportTarget::Rva(rva))
        } else {
            Err(wild(self.headers, "an exported entry", rva))
        }
    }

    /// Gives the entries their names; a second name of one entry is a second export.
    fn name(&self, exports: &mut Vec<Export>) -> Result<(), Problem> {
        let count = bounded(self.directory.number_of_names.get(LE), "exported names")?;
        let (names, ordinals) =
            (self.directory.address_of_names.get(LE), self.directory.address_of_name_ordinals.get(LE));
        let (Some(names), Some(indices)) =
            (self.memory.bytes(names, 4 * count), self.memory.bytes(ordinals, 2 * count))
        else {
            return Err(wild(self.headers, "the export name table", names));
        };
        for (name, index) in names.as_chunks().0.iter().zip(indices.as_chunks().0) {
            let rva = u32::from_le_bytes(*name);
            let Some(name) = self.memory.name(rva) else {
                return Err(Problem::BadName { what: "an exported name", rva });
            };
            match exports.get_mut(usize::from(u16::from_le_bytes(*index))) {
                Some(entry) if entry.name.is_none() => entry.name = Some(name),
                Some(entry) => {
                    let again = Export { name: Some(name), ..entry.clone() };
                    exports.push(again);
                }
                None => return Err(Problem::BadName { what: "the entry of an exported name", rva }),
            }
        }
        Ok(())
    }
}

fn bounded(count: u32, what: &'static str) -> Result<u32, Problem> {
    if count <= MAX_EXPORTS { Ok(count) } else { Err(Problem::TooMany { what, limit: MAX_EXPORTS }) }
}
