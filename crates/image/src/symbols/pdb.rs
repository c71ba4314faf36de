//! Names and lines from a program database, if it is the image's own.
//!
//! As LLVM's pages "The PDB Info Stream" and "The PDB DBI Stream" have it. Address maps of images that were rearranged
//! after linking (OMAP) are not read. It is read here rather than by a crate: `pdb2` can be made to panic and
//! to allocate without bound by a damaged file, `ms-pdb` brings forty crates.

use super::c13::Collector;
use super::lines::Lines;
use super::msf::Streams;
use super::reader::Reader;
use super::type_sizes::Types;
use super::{Named, annotations, inline_sites, records};
use crate::debug::guid_text;
use crate::error::Problem;
use crate::image::Image;

const INFO: usize = 1;
/// The TPI stream: types.
const TYPES: usize = 2;
/// The IPI stream: names of inlined routines.
const IDS: usize = 4;
const DEBUG_INFORMATION: usize = 3;
/// Bytes of a module's entry before its names.
const MODULE: usize = 64;

/// The names, by no order.
pub(super) fn names(image: &Image, pdb: &[u8]) -> Result<Vec<Named>, Problem> {
    let mut database = Database::open(image, pdb)?;
    let mut found = Vec::new();
    let types = Types::read(&database.streams.read(TYPES).unwrap_or_default());
    let records = database.streams.read(database.records.into())?;
    records::read(&records, image.sections(), &types, &mut found);
    for module in modules(&database.modules) {
        let stream = module.open(&mut database.streams)?;
        records::read(module.symbols(&stream)?, image.sections(), &types, &mut found);
    }
    Ok(found)
}

/// The texts of each annotation.
pub(super) fn annotations(image: &Image, pdb: &[u8]) -> Result<Vec<Vec<String>>, Problem> {
    let mut database = Database::open(image, pdb)?;
    let mut found = Vec::new();
    for module in modules(&database.modules) {
        let stream = module.open(&mut database.streams)?;
        annotations::read(module.symbols(&stream)?, &mut found);
    }
    Ok(found)
}

/// The lines.
pub(super) fn lines(image: &Image, pdb: &[u8]) -> Result<Lines, Problem> {
    let mut database = Database::open(image, pdb)?;
    let names = database.streams.read(database.names_stream.unwrap_or(usize::MAX))?;
    let inlined = inline_sites::names(&database.streams.read(IDS).unwrap_or_default());
    let mut lines = Collector::new(names.get(12..).unwrap_or_default(), image.sections(), inlined);
    for module in modules(&database.modules) {
        let stream = module.open(&mut database.streams)?;
        lines.module(module.lines(&stream)?, module.symbols(&stream)?);
    }
    Ok(lines.finish())
}

/// A PDB that is the image's own.
struct Database<'p> {
    streams: Streams<'p>,
    names_stream: Option<usize>,
    records: u16,
    modules: Vec<u8>,
}

impl<'p> Database<'p> {
    fn open(image: &Image, pdb: &'p [u8]) -> Result<Self, Problem> {
        let Some(reference) = image.pdb() else { return Err(Problem::NoPdbReference) };
        let mut streams = Streams::open(pdb)?;
        let info = Info::read(&streams.read(INFO)?).ok_or(Problem::DamagedPdb("the information stream"))?;
        let stream = streams.read(DEBUG_INFORMATION)?;
        let debug =
            DebugInformation::read(&stream).ok_or(Problem::DamagedPdb("the debug information stream"))?;
        if (info.guid, debug.age) != (reference.guid, reference.age) {
            let found = format!("{}, age {}", guid_text(&info.guid), debug.age);
            return Err(Problem::PdbOfAnother { wanted: reference.to_string(), found });
        }
        let (records, modules) = (debug.records, debug.modules.to_vec());
        Ok(Self { streams, names_stream: info.names_stream, records, modules })
    }
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

/// One object file that went into the image, and has a stream.
struct Module {
    stream: u16,
    symbols: usize,
    c11: usize,
    c13: usize,
}

const DAMAGED_MODULE: Problem = Problem::DamagedPdb("a module's stream");

impl Module {
    /// Its stream.
    fn open(&self, streams: &mut Streams<'_>) -> Result<Vec<u8>, Problem> {
        streams.read(self.stream.into())
    }

    /// Its symbol records.
    fn symbols<'s>(&self, stream: &'s [u8]) -> Result<&'s [u8], Problem> {
        Ok(stream.get(..self.symbols).ok_or(DAMAGED_MODULE)?.get(4..).unwrap_or_default())
    }

    /// Its C13 line information.
    fn lines<'s>(&self, stream: &'s [u8]) -> Result<&'s [u8], Problem> {
        let start = self.symbols.checked_add(self.c11);
        let range = start.and_then(|start| Some(start..start.checked_add(self.c13)?));
        range.and_then(|range| stream.get(range)).ok_or(DAMAGED_MODULE)
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
    (stream != u16::MAX).then_some(Module { stream, symbols, c11, c13 })
}
