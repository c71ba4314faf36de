//! Names and lines from a program database, if it is the image's own.
//!
//! As LLVM's pages "The PDB Info Stream" and "The PDB DBI Stream" have it. Types are not read, nor are the address maps of
//! images that were rearranged after linking (OMAP). It is read here rather than by a crate: `pdb2` can be made to panic and
//! to allocate without bound by a damaged file, `ms-pdb` brings forty crates.

use super::lines::{Collector, Lines};
use super::msf::Streams;
use super::reader::Reader;
use super::{Named, records};
use crate::debug::guid_text;
use crate::error::Problem;
use crate::image::Image;
use crate::sections::Section;

const INFO: usize = 1;
const DEBUG_INFORMATION: usize = 3;
/// Bytes of a module's entry before its names.
const MODULE: usize = 64;

/// Names and lines, by no order.
pub(super) fn read(image: &Image, pdb: &[u8]) -> Result<(Vec<Named>, Lines), Problem> {
    let Some(reference) = image.pdb() else { return Err(Problem::NoPdbReference) };
    let mut streams = Streams::open(pdb)?;
    let info = Info::read(&streams.read(INFO)?).ok_or(Problem::DamagedPdb("the information stream"))?;
    let stream = streams.read(DEBUG_INFORMATION)?;
    let debug = DebugInformation::read(&stream).ok_or(Problem::DamagedPdb("the debug information stream"))?;
    if (info.guid, debug.age) != (reference.guid, reference.age) {
        let found = format!("{}, age {}", guid_text(&info.guid), debug.age);
        return Err(Problem::PdbOfAnother { wanted: reference.to_string(), found });
    }
    let names = streams.read(info.names_stream.unwrap_or(usize::MAX))?;
    let mut lines = Collector::new(names.get(12..).unwrap_or_default(), image.sections());
    let mut found = Vec::new();
    records::read(&streams.read(debug.records.into())?, image.sections(), &mut found);
    for module in modules(debug.modules) {
        module.read(&mut streams, image.sections(), &mut found, &mut lines)?;
    }
    Ok((found, lines.finish()))
}

/// The stream that says which PDB this is.
struct Info {
    guid: [u8; 16],
    /// The stream of the string table, `/names`.
    names_stream: Option<usize>,
}

impl Info {
    fn read(stream: &[u8]) -> Option<Self> {
        let mut reader = Reader(stream);
        reader.bytes(12)?;
        let guid = *reader.bytes(16)?.first_chunk()?;
        Some(Self { guid, names_stream: find_stream(reader, b"/names") })
    }
}

/// Looks a stream up by name in the map of names, a hash table of which only the filled entries are written.
fn find_stream(mut reader: Reader<'_>, wanted: &[u8]) -> Option<usize> {
    let texts = reader.sized()?;
    let (count, _capacity) = (reader.u32()?, reader.u32()?);
    for _bit_set in ["present", "deleted"] {
        let words = reader.u32()? as usize;
        reader.bytes(words.checked_mul(4)?)?;
    }
    for _ in 0..count {
        let (name, stream) = (reader.u32()?, reader.u32()?);
        if Reader(texts.get(name as usize..)?).text() == Some(wanted) {
            return Some(stream as usize);
        }
    }
    None
}

/// The head of the debug information stream.
struct DebugInformation<'s> {
    age: u32,
    /// The stream of global symbol records.
    records: u16,
    modules: &'s [u8],
}

impl<'s> DebugInformation<'s> {
    fn read(stream: &'s [u8]) -> Option<Self> {
        let mut reader = Reader(stream);
        let (_signature, _version, age) = (reader.u32()?, reader.u32()?, reader.u32()?);
        reader.bytes(8)?;
        let (records, _rebuild) = (reader.u16()?, reader.u16()?);
        let size = reader.u32()? as usize;
        reader.bytes(36)?;
        Some(Self { age, records, modules: reader.bytes(size)? })
    }
}

/// One object file that went into the image.
struct Module {
    stream: u16,
    symbols: usize,
    c11: usize,
    c13: usize,
}

impl Module {
    fn read(
        &self,
        streams: &mut Streams<'_>,
        sections: &[Section],
        names: &mut Vec<Named>,
        lines: &mut Collector<'_>,
    ) -> Result<(), Problem> {
        let stream = match self.stream {
            u16::MAX => return Ok(()),
            number => streams.read(number.into())?,
        };
        let mut reader = Reader(&stream);
        let damaged = || Problem::DamagedPdb("a module's stream");
        let symbols = reader.bytes(self.symbols).ok_or_else(damaged)?;
        records::read(symbols.get(4..).unwrap_or_default(), sections, names);
        reader.bytes(self.c11).ok_or_else(damaged)?;
        lines.module(reader.bytes(self.c13).ok_or_else(damaged)?);
        Ok(())
    }
}

/// The modules of the image; what comes after a damaged one is not read.
fn modules(list: &[u8]) -> Vec<Module> {
    let mut reader = Reader(list);
    let mut modules = Vec::new();
    while let Some(entry) = reader.bytes(MODULE) {
        modules.extend(module(entry));
        if reader.text().and(reader.text()).is_none() {
            break;
        }
        reader.align(list);
    }
    modules
}

fn module(entry: &[u8]) -> Option<Module> {
    let mut reader = Reader(entry);
    reader.bytes(34)?;
    let stream = reader.u16()?;
    let (symbols, c11, c13) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()? as usize);
    Some(Module { stream, symbols, c11, c13 })
}
