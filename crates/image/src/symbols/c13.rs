//! CodeView line information of a PDB's modules.
//!
//! As LLVM's page "The Module Information Stream" and the CodeView `DEBUG_S_LINES` and `DEBUG_S_FILECHKSMS` subsections have
//! it. Columns and the older C11 form are not read.

use std::collections::BTreeMap;

use super::inline_sites::{self, Sources};
use super::lines::{Lines, Row};
use super::reader::Reader;
use super::records::rva;
use crate::memory::MAX_NAME;
use crate::sections::Section;

const LINES: u32 = 0xf2;
const FILE_CHECKSUMS: u32 = 0xf4;
const INLINEE_LINES: u32 = 0xf6;
/// Line numbers from here on mean code that no line stands for.
const HIDDEN: u32 = 0xf0_0f00;

/// Collects the lines of one module after another.
pub(super) struct Collector<'p> {
    /// The PDB's string table.
    names: &'p [u8],
    sections: &'p [Section],
    /// Files by the offset of their name.
    known: BTreeMap<u32, usize>,
    lines: Lines,
    /// Names of inlined routines by their numbers.
    inlined: BTreeMap<u32, String>,
}

impl<'p> Collector<'p> {
    /// `names` are the bytes of the PDB's string table.
    pub(super) fn new(names: &'p [u8], sections: &'p [Section], inlined: BTreeMap<u32, String>) -> Self {
        Self { names, sections, known: BTreeMap::new(), lines: Lines::default(), inlined }
    }

    /// Reads the C13 line information of a module, and the inline sites among its symbols; what comes after a damaged part is not read.
    pub(super) fn module(&mut self, c13: &[u8], symbols: &[u8]) {
        let subsections = subsections(c13);
        let checksums =
            subsections.iter().find(|(kind, _)| *kind == FILE_CHECKSUMS).map_or(&[][..], |(_, data)| data);
        for (_, data) in subsections.iter().filter(|(kind, _)| *kind == LINES) {
            self.section_lines(Reader(data), checksums);
        }
        let mut sources = Sources::new();
        for (_, data) in subsections.iter().filter(|(kind, _)| *kind == INLINEE_LINES) {
            let _ends_at_damage = inline_sites::sources(data, &mut sources);
        }
        let names = std::mem::take(&mut self.inlined);
        let mut inlines = std::mem::take(&mut self.lines.inlines);
        let sites = inline_sites::Module { sections: self.sections, names: &names, sources: &sources };
        sites.read(symbols, &mut inlines, &mut |offset| self.file(checksums, offset));
        (self.inlined, self.lines.inlines) = (names, inlines);
    }

    /// Every line, by address.
    pub(super) fn finish(mut self) -> Lines {
        self.lines.sort();
        self.lines.inlines.sort();
        self.lines
    }

    fn section_lines(&mut self, mut reader: Reader<'_>, checksums: &[u8]) -> Option<()> {
        let (offset, section, _flags, size) = (reader.u32()?, reader.u16()?, reader.u16()?, reader.u32()?);
        let start = rva(self.sections, section, offset)?;
        let end = start.checked_add(size)?;
        loop {
            let (file, count, length) = (reader.u32()?, reader.u32()? as usize, reader.u32()? as usize);
            let mut block = Reader(reader.bytes(length.checked_sub(12)?)?);
            let rows = block.bytes(count.checked_mul(8)?)?.as_chunks::<8>().0;
            let Some(file) = self.file(checksums, file) else { continue };
            for (index, row) in rows.iter().enumerate() {
                let next = rows.get(index + 1).map_or(end, |next| start.saturating_add(offset_of(next)));
                let rva = start.saturating_add(offset_of(row));
                let [_, _, _, _, a, b, c, _] = *row;
                let line = u32::from_le_bytes([a, b, c, 0]);
                if rva < end && line < HIDDEN {
                    self.lines.push(Row { rva, end: next.clamp(rva, end), file, line });
                }
            }
        }
    }

    /// The file whose checksum entry is at `offset`.
    fn file(&mut self, checksums: &[u8], offset: u32) -> Option<usize> {
        let name = Reader(checksums.get(offset as usize..)?).u32()?;
        if let Some(&file) = self.known.get(&name) {
            return Some(file);
        }
        let text = Reader(self.names.get(name as usize..)?).text().filter(|text| text.len() <= MAX_NAME)?;
        let file = self.lines.file(String::from_utf8_lossy(text).into_owned());
        self.known.insert(name, file);
        Some(file)
    }
}

fn offset_of(row: &[u8; 8]) -> u32 {
    let [a, b, c, d, ..] = *row;
    u32::from_le_bytes([a, b, c, d])
}

fn subsections(c13: &[u8]) -> Vec<(u32, &[u8])> {
    let mut reader = Reader(c13);
    let mut found = Vec::new();
    while let Some(kind) = reader.u32() {
        let Some(data) = reader.sized() else { break };
        found.push((kind, data));
        reader.align(c13);
    }
    found
}
