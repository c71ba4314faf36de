//! The import tables: what an image takes from others, and the slots its code calls and reads through.
//!
//! As the Microsoft page "PE Format" has it under "The .idata Section" and "Delay-Load Import Tables". It resolves nothing
//! and ignores bound addresses.

use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT, IMAGE_DIRECTORY_ENTRY_IMPORT, ImageDelayloadDescriptor,
    ImageImportDescriptor,
};

use crate::error::Problem;
use crate::headers::Headers;
use crate::memory::Memory;
use crate::selector::Selector;

/// Imports, and modules, that are accepted of one image.
const MAX_IMPORTS: u32 = 16_384;
const ORDINAL_FLAG: u64 = 1 << 63;

/// One entry that an image takes from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Import {
    /// The other module as written, e.g. `ntoskrnl.exe`; case does not matter.
    pub module: String,
    /// Its entry.
    pub selector: Selector,
    /// Index at which the exporter's name table probably has the name; 0 for an ordinal.
    pub hint: u16,
    /// RVA of the 8-byte slot that is to hold the entry's address.
    pub slot: u32,
    /// Whether the image asks for it on first use only (delay load) rather than when it is loaded.
    pub delayed: bool,
}

/// Every import of the image: first those of the import directory, then the delayed ones, in the file's order.
pub(crate) fn read(headers: &Headers, memory: &Memory) -> Result<Vec<Import>, Problem> {
    let mut reader = Reader { headers, memory, imports: Vec::new() };
    if let Some((rva, _)) = headers.directory(IMAGE_DIRECTORY_ENTRY_IMPORT) {
        reader.directory(rva)?;
    }
    if let Some((rva, _)) = headers.directory(IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT) {
        reader.delayed_directory(rva)?;
    }
    Ok(reader.imports)
}

struct Reader<'i> {
    headers: &'i Headers,
    memory: &'i Memory,
    imports: Vec<Import>,
}

impl Reader<'_> {
    /// The directory's size is not used: as in Windows, the list ends at its null entry.
    fn directory(&mut self, rva: u32) -> Result<(), Problem> {
        for index in 0..MAX_IMPORTS {
            let at = element(rva, index, 20);
            let Some(entry) = at.and_then(|at| self.memory.read::<ImageImportDescriptor>(at)) else {
                return Err(self.wild("an import descriptor", at.unwrap_or(rva).into()));
            };
            let (name, slots) = (entry.name.get(LE), entry.first_thunk.get(LE));
            if name == 0 || slots == 0 {
                return Ok(());
            }
            let names = entry.original_first_thunk.get(LE);
            self.module(name, if names == 0 { slots } else { names }, slots, false)?;
        }
        Err(Problem::TooMany { what: "modules to import from", limit: MAX_IMPORTS })
    }

    fn delayed_directory(&mut self, rva: u32) -> Result<(), Problem> {
        for index in 0..MAX_IMPORTS {
            let at = element(rva, index, 32);
            let Some(entry) = at.and_then(|at| self.memory.read::<ImageDelayloadDescriptor>(at)) else {
                return Err(self.wild("a delay-load descriptor", at.unwrap_or(rva).into()));
            };
            if entry.dll_name_rva.get(LE) == 0 {
                return Ok(());
            }
            let (names, slots) =
                (entry.import_name_table_rva.get(LE), entry.import_address_table_rva.get(LE));
            self.module(entry.dll_name_rva.get(LE), names, slots, true)?;
        }
        Err(Problem::TooMany { what: "modules to delay-load", limit: MAX_IMPORTS })
    }

    fn module(&mut self, name: u32, names: u32, slots: u32, delayed: bool) -> Result<(), Problem> {
        let Some(module) = self.memory.name(name) else {
            return Err(Problem::BadName { what: "an imported module's name", rva: name });
        };
        for index in 0..=MAX_IMPORTS {
            let at = element(names, index, 8);
            let Some(thunk) = at.and_then(|at| self.memory.u64(at)) else {
                return Err(self.wild("an import name table", at.unwrap_or(names).into()));
            };
            if thunk == 0 {
                return Ok(());
            }
            if self.imports.len() >= MAX_IMPORTS as usize {
                break;
            }
            let slot = element(slots, index, 8).filter(|&slot| slot <= self.headers.mapped_size() - 8);
            let Some(slot) = slot else {
                return Err(self.wild("an import address table", slots.into()));
            };
            let (selector, hint) = self.selector(thunk)?;
            self.imports.push(Import { module: module.clone(), selector, hint, slot, delayed });
        }
        Err(Problem::TooMany { what: "imports", limit: MAX_IMPORTS })
    }

    fn selector(&self, thunk: u64) -> Result<(Selector, u16), Problem> {
        if thunk & ORDINAL_FLAG != 0 {
            let [low, high, ..] = thunk.to_le_bytes();
            return Ok((Selector::Ordinal(u16::from_le_bytes([low, high])), 0));
        }
        let rva = u32::try_from(thunk).ok().filter(|&rva| rva < self.headers.mapped_size() - 2);
        let Some(rva) = rva else {
            return Err(self.wild("an imported name", thunk));
        };
        match (self.memory.u16(rva), self.memory.name(rva + 2)) {
            (Some(hint), Some(name)) => Ok((Selector::Name(name), hint)),
            _ => Err(Problem::BadName { what: "an imported name", rva }),
        }
    }

    fn wild(&self, what: &'static str, rva: u64) -> Problem {
        Problem::WildRva { what, rva, size_of_image: self.headers.size_of_image }
    }
}

fn element(table: u32, index: u32, size: u32) -> Option<u32> {
    index.checked_mul(size).and_then(|offset| table.checked_add(offset))
}
