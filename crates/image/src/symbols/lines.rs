//! Line numbers: from which file and line the code at an address was compiled.
//!
//! As LLVM's page "The Module Information Stream" and the CodeView `DEBUG_S_LINES` and `DEBUG_S_FILECHKSMS` subsections have
//! them. Columns and inlined calls are not read.

use std::collections::BTreeMap;

use super::SourceLine;
use super::reader::Reader;
use super::records::rva;
use crate::memory::MAX_NAME;
use crate::sections::Section;

const LINES: u32 = 0xf2;
const FILE_CHECKSUMS: u32 = 0xf4;
/// Line numbers from here on mean code that no line stands for.
const HIDDEN: u32 = 0xf0_0f00;

/// Lines of an image by address, and their files.
#[derive(Clone, Default, Debug)]
pub(super) struct Lines {
    rows: Vec<Row>,
    files: Vec<String>,
}

/// From `rva` up to `end`, code of one line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Row {
    rva: u32,
    end: u32,
    file: usize,
    line: u32,
}

impl Lines {
    /// The line of the code at `rva`.
    pub(super) fn at(&self, rva: u32) -> Option<SourceLine<'_>> {
        let after = self.rows.partition_point(|row| row.rva <= rva);
        let row = self.rows.get(after.checked_sub(1)?).filter(|row| rva < row.end && row.line < HIDDEN)?;
        Some(SourceLine { file: self.files.get(row.file)?, line: row.line })
    }
}

/// Collects the lines of one module after another.
pub(super) struct Collector<'p> {
    /// The PDB's string table.
    names: &'p [u8],
    sections: &'p [Section],
    /// Files by the offset of their name.
    known: BTreeMap<u32, usize>,
    lines: Lines,
}

impl<'p> Collector<'p> {
    /// `names` are the bytes of the PDB's string table.
    pub(super) fn new(names: &'p [u8], sections: &'p [Section]) -> Self {
        Self { names, sections, known: BTreeMap::new(), lines: Lines::default() }
    }

    /// Reads the C13 line information of a module; what comes after a damaged part is not read.
    pub(super) fn module(&mut self, c13: &[u8]) {
        let subsections = subsections(c13);
        let checksums =
            subsections.iter().find(|(kind, _)| *kind == FILE_CHECKSUMS).map_or(&[][..], |(_, data)| data);
        for (_, data) in subsections.iter().filter(|(kind, _)| *kind == LINES) {
            self.section_lines(Reader(data), checksums);
        }
    }

    /// Every line, by address.
    pub(super) fn finish(mut self) -> Lines {
        self.lines.rows.sort_unstable();
        self.lines.rows.dedup_by_key(|row| row.rva);
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
                if rva < end {
                    self.lines.rows.push(Row { rva, end: next.clamp(rva, end), file, line });
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
        let file = self.lines.files.len();
        self.lines.files.push(String::from_utf8_lossy(text).into_owned());
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
