//! The debug directory: which PDB the linker wrote beside the image.
//!
//! As the Microsoft page "PE Format" has it under "The .debug Section" (`IMAGE_DEBUG_TYPE_CODEVIEW`, the `RSDS` record).
//! Other debug types are not read, and a damaged directory is none.

use std::fmt;

use object::LittleEndian as LE;
use object::pe::{IMAGE_DEBUG_TYPE_CODEVIEW, IMAGE_DIRECTORY_ENTRY_DEBUG, ImageDebugDirectory};

use crate::headers::Headers;
use crate::memory::Memory;

/// Debug directory entries that are looked at.
const MAX_ENTRIES: u32 = 32;

/// The program database that belongs to an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PdbReference {
    /// Where the linker wrote it, a path of the build machine.
    pub path: String,
    /// Its signature, in the byte order of a GUID structure in memory.
    pub guid: [u8; 16],
    /// How often it was rewritten since it got that signature.
    pub age: u32,
}

impl PdbReference {
    /// The path's last part, in either system's notation.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.path.rsplit(['\\', '/']).next().unwrap_or(&self.path)
    }

    /// The signature as people write it, without braces.
    #[must_use]
    pub fn guid_text(&self) -> String {
        guid_text(&self.guid)
    }
}

impl fmt::Display for PdbReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, age {})", self.path, self.guid_text(), self.age)
    }
}

/// A GUID structure as people write it.
pub(crate) fn guid_text(guid: &[u8; 16]) -> String {
    let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = *guid;
    let [d0, d1, e @ ..] = rest;
    let node: String = e.iter().map(|byte| format!("{byte:02X}")).collect();
    let (a, b, c) =
        (u32::from_le_bytes([a0, a1, a2, a3]), u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
    format!("{a:08X}-{b:04X}-{c:04X}-{d0:02X}{d1:02X}-{node}")
}

/// The first CodeView entry of the debug directory, if it refers to a PDB.
pub(crate) fn read(headers: &Headers, memory: &Memory) -> Option<PdbReference> {
    let (rva, size) = headers.directory(IMAGE_DIRECTORY_ENTRY_DEBUG)?;
    let entries = (0..(size / 28).min(MAX_ENTRIES)).map_while(|index| rva.checked_add(28 * index));
    let mut entries = entries.map_while(|at| memory.read::<ImageDebugDirectory>(at));
    let entry = entries.find(|entry| entry.typ.get(LE) == IMAGE_DEBUG_TYPE_CODEVIEW)?;
    let record = entry.address_of_raw_data.get(LE);
    let (magic, rest) = memory.tail(record).split_first_chunk::<4>()?;
    let (guid, rest) = rest.split_first_chunk::<16>()?;
    let (age, _) = rest.split_first_chunk::<4>()?;
    let path = memory.name(record.checked_add(24)?)?;
    (magic == b"RSDS").then_some(PdbReference { path, guid: *guid, age: u32::from_le_bytes(*age) })
}
