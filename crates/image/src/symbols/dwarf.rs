//! Line numbers from DWARF, which mingw's compilers leave in the image itself (`.debug_line` and its strings).
//!
//! As the DWARF standard, versions 2 to 5, has them under "Line Number Information". Names, types and files
//! of separate debug information are not read.

use std::collections::BTreeMap;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, LineProgramHeader, LittleEndian, Reader as _};

use super::inlined_subroutines;
use super::lines::{Lines, Row};
use crate::image::Image;
use crate::memory::MAX_NAME;

pub(super) type Slice<'s> = gimli::EndianSlice<'s, LittleEndian>;

/// The most lines that are read; the largest real drivers have a tenth.
const MOST_ROWS: usize = 4 << 20;
/// The largest section that is read, bytes: what it says is a multiple of its size.
pub(super) const MOST_BYTES: usize = 64 << 20;
/// The largest header of one program that is read, bytes: it lists files and folders.
const MOST_OF_A_HEADER: u64 = 1 << 20;
/// The most files whose names are kept.
const MOST_FILES: usize = 1 << 16;
/// A row of no source line.
const NO_LINE: u32 = 0;

/// The lines of `image`; what comes after a damaged part is not read.
pub(super) fn read(image: &Image) -> Lines {
    let line = section(image, ".debug_line");
    let strings = Strings { line: section(image, ".debug_line_str"), other: section(image, ".debug_str") };
    let mut program =
        Program { base: image.preferred_base(), size: image.size(), strings, lines: Lines::default() };
    if line.len() <= MOST_BYTES {
        program.units(line);
    }
    program.lines.sort();
    inlined_subroutines::read(image, &mut program.lines);
    program.lines
}

/// What the section of this name holds; nothing, if there is none.
pub(super) fn section<'i>(image: &'i Image, name: &str) -> &'i [u8] {
    let found = image.sections().iter().find(|section| section.name == name);
    found.map_or(&[], |section| image.section_data(section))
}

/// The beginning of a name, as much as anybody reads of one.
pub(super) fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_NAME).unwrap_or(bytes)).into_owned()
}

/// A file's name in its folder, unless it names that itself.
pub(super) fn path(folder: &str, name: String) -> String {
    let absolute = name.starts_with(['/', '\\']) || name.get(1..2) == Some(":");
    if absolute || matches!(folder, "" | ".") { name } else { format!("{folder}/{name}") }
}

struct Strings<'s> {
    line: &'s [u8],
    other: &'s [u8],
}

struct Program<'s> {
    base: u64,
    size: u32,
    strings: Strings<'s>,
    lines: Lines,
}

/// How long the header is of the program that begins here, by its own word.
fn header_length(program: &[u8]) -> Option<u64> {
    let mut reader = Slice::new(program, LittleEndian);
    let (_, format) = reader.read_initial_length().ok()?;
    if reader.read_u16().ok()? >= 5 {
        reader.skip(2).ok()?;
    }
    Some(reader.read_length(format).ok()? as u64)
}

impl<'s> Program<'s> {
    /// One program after the other. A damaged one ends the reading only if its length is not known.
    fn units(&mut self, section: &'s [u8]) {
        let debug_line = DebugLine::new(section, LittleEndian);
        let mut offset = 0;
        while offset < section.len() && self.lines.len() < MOST_ROWS {
            let Ok(length) = Slice::new(&section[offset..], LittleEndian).read_initial_length() else {
                return;
            };
            let (length, format) = length;
            let whole = length.saturating_add(format.initial_length_size().into());
            if header_length(&section[offset..]).is_some_and(|length| length <= MOST_OF_A_HEADER)
                && let Ok(program) = debug_line.program(DebugLineOffset(offset), 8, None, None)
            {
                self.unit(program);
            }
            offset = offset.saturating_add(whole);
        }
    }

    fn unit(&mut self, program: gimli::IncompleteLineProgram<Slice<'s>>) -> Option<()> {
        let mut rows = program.rows();
        let mut files = BTreeMap::new();
        // The row whose end the next one tells.
        let mut open: Option<(u32, u64, u32)> = None;
        while let Some((header, row)) = rows.next_row().ok()? {
            let rva = row.address().checked_sub(self.base).filter(|&rva| rva <= self.size.into());
            let rva = rva.and_then(|rva| u32::try_from(rva).ok());
            if let (Some((start, file, line)), Some(end)) = (open.take(), rva)
                && start < end
                && line != NO_LINE
                && let Some(file) = self.file(&mut files, header, file)
            {
                self.lines.push(Row { rva: start, end, file, line });
            }
            if self.lines.len() >= MOST_ROWS {
                return None;
            }
            let line = row.line().map_or(NO_LINE, |line| u32::try_from(line.get()).unwrap_or(NO_LINE));
            open = rva.filter(|_| !row.end_sequence()).map(|rva| (rva, row.file_index(), line));
        }
        Some(())
    }

    /// The number of the file that this program calls `index`. `files` has those that were asked for.
    fn file(
        &mut self,
        files: &mut BTreeMap<u64, Option<usize>>,
        header: &LineProgramHeader<Slice<'s>>,
        index: u64,
    ) -> Option<usize> {
        if let Some(number) = files.get(&index) {
            return *number;
        }
        let name = self.path(header, index).filter(|_| self.lines.files() < MOST_FILES);
        let number = name.map(|name| self.lines.file(name));
        files.insert(index, number);
        number
    }

    fn path(&self, header: &LineProgramHeader<Slice<'s>>, index: u64) -> Option<String> {
        let file = header.file(index)?;
        let name = self.text(file.path_name())?;
        let folder = file.directory(header).and_then(|folder| self.text(folder)).unwrap_or_default();
        Some(path(&folder, name))
    }

    fn text(&self, value: AttributeValue<Slice<'s>>) -> Option<String> {
        let from = |strings: &'s [u8], offset: usize| strings.get(offset..)?.split(|&byte| byte == 0).next();
        let text = match value {
            AttributeValue::String(text) => text.slice(),
            AttributeValue::DebugLineStrRef(at) => from(self.strings.line, at.0)?,
            AttributeValue::DebugStrRef(at) => from(self.strings.other, at.0)?,
            _ => return None,
        };
        Some(name(text))
    }
}
