//! How large the types of a program database are: what the extent of a variable is known by.
//!
//! As LLVM's pages "The PDB TPI and IPI Streams" and "CodeView Type Records" have them. Members, methods and names of types are not read,
//! but the names by which a structure that is only declared finds its definition.

use std::collections::BTreeMap;

use super::reader::Reader;

/// The types below are built in: their kind and mode are in the number.
const FIRST: u32 = 0x1000;
/// How many types refer to one another in a chain (an array of modified structures) at most; no compiler makes longer chains.
const MOST_STEPS: usize = 16;
/// A structure is only declared here.
const FORWARD: u16 = 0x80;

/// The sizes of the types of a PDB.
pub(super) struct Types {
    /// By number, from the first on.
    sizes: Vec<Size>,
    /// Of structures and unions that are defined.
    defined: BTreeMap<Vec<u8>, u32>,
}

/// What is known of a type's size.
enum Size {
    Bytes(u32),
    /// As this type's.
    Of(u32),
    /// That of the structure of this name, which is defined elsewhere.
    Named(Vec<u8>),
    Unknown,
}

impl Types {
    /// The types of the TPI stream; what comes after a damaged record is not known.
    pub(super) fn read(stream: &[u8]) -> Self {
        let mut types = Self { sizes: Vec::new(), defined: BTreeMap::new() };
        let mut reader = Reader(stream);
        let (Some(_version), Some(header)) = (reader.u32(), reader.u32()) else { return types };
        if reader.u32() != Some(FIRST) {
            return types;
        }
        let mut records = Reader(stream.get(header as usize..).unwrap_or_default());
        while let Some(record) = records.u16().and_then(|length| records.bytes(length.into())) {
            let size = types.one(Reader(record)).unwrap_or(Size::Unknown);
            types.sizes.push(size);
        }
        types
    }

    /// Bytes that a value of this type has, if that is known.
    pub(super) fn size(&self, index: u32) -> Option<u32> {
        let mut index = index;
        for _ in 0..MOST_STEPS {
            let Some(place) = index.checked_sub(FIRST) else { return built_in(index) };
            match self.sizes.get(place as usize)? {
                Size::Bytes(bytes) => return Some(*bytes),
                Size::Of(other) => index = *other,
                Size::Named(name) => return self.defined.get(name).copied(),
                Size::Unknown => return None,
            }
        }
        None
    }

    fn one(&mut self, mut record: Reader<'_>) -> Option<Size> {
        let leaf = record.u16()?;
        Some(match leaf {
            // LF_MODIFIER.
            0x1001 => Size::Of(record.u32()?),
            // LF_POINTER: its size stands in its attributes.
            0x1002 => {
                record.u32()?;
                Size::Bytes(record.u32()? >> 13 & 0x3F)
            }
            // LF_ARRAY.
            0x1503 => {
                record.bytes(8)?;
                Size::Bytes(number(&mut record)?)
            }
            // LF_CLASS, LF_STRUCTURE; LF_UNION, which is derived from nothing.
            0x1504..=0x1506 => {
                record.u16()?;
                let properties = record.u16()?;
                record.bytes(if leaf == 0x1506 { 4 } else { 12 })?;
                let bytes = number(&mut record)?;
                let name = record.text()?.to_vec();
                if properties & FORWARD != 0 {
                    return Some(Size::Named(name));
                }
                self.defined.insert(name, bytes);
                Size::Bytes(bytes)
            }
            // LF_ENUM.
            0x1507 => {
                record.bytes(4)?;
                Size::Of(record.u32()?)
            }
            _ => Size::Unknown,
        })
    }
}

/// A number of the form that small ones are written in by themselves, and others behind what they are.
fn number(record: &mut Reader<'_>) -> Option<u32> {
    match record.u16()? {
        small @ 0..=0x7FFF => Some(small.into()),
        // LF_USHORT, LF_LONG or LF_ULONG.
        0x8002 => record.u16().map(u32::from),
        0x8003 | 0x8004 => record.u32(),
        _ => None,
    }
}

/// The size of a built-in type: of the pointer that its mode says it is, else of its kind.
const fn built_in(index: u32) -> Option<u32> {
    match (index >> 8 & 0xF, index & 0xFF) {
        (4, _) => Some(4),
        (6, _) => Some(8),
        (0, 0x10 | 0x20 | 0x30 | 0x68 | 0x69 | 0x70 | 0x7C) => Some(1),
        (0, 0x11 | 0x21 | 0x31 | 0x71..=0x73 | 0x7A) => Some(2),
        (0, 0x08 | 0x12 | 0x22 | 0x32 | 0x40 | 0x74 | 0x75 | 0x7B) => Some(4),
        (0, 0x13 | 0x23 | 0x33 | 0x41 | 0x76 | 0x77) => Some(8),
        _ => None,
    }
}
