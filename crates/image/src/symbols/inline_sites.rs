//! Inline sites of a PDB's modules: where code of inlined routines lies, and its lines.
//!
//! As LLVM's page "CodeView Symbol Records" has `S_INLINESITE` and its binary annotations, and the CodeView subsection
//! `DEBUG_S_INLINEELINES`; the names are `LF_FUNC_ID` and `LF_MFUNC_ID` records of the IPI stream. Columns are not read.

use std::collections::BTreeMap;

use super::inlines::{Inlines, Piece};
use super::reader::Reader;
use super::records::rva;
use crate::memory::MAX_NAME;
use crate::sections::Section;

const FUNCTION_ID: u16 = 0x1601;
const MEMBER_FUNCTION_ID: u16 = 0x1602;
const STRING_ID: u16 = 0x1605;
/// Sites within sites; no compiler goes so deep.
const DEEPEST: usize = 128;

/// The names of inlined routines by their numbers, from the IPI stream.
pub(super) fn names(stream: &[u8]) -> BTreeMap<u32, String> {
    let (mut functions, mut scopes) = (BTreeMap::new(), BTreeMap::new());
    let _ends_at_damage = read_names(stream, &mut functions, &mut scopes);
    let name = |(id, (scope, name)): (u32, (u32, String))| match scopes.get(&scope) {
        Some(scope) => (id, format!("{scope}::{name}")),
        None => (id, name),
    };
    functions.into_iter().map(name).collect()
}

fn read_names(
    stream: &[u8],
    functions: &mut BTreeMap<u32, (u32, String)>,
    scopes: &mut BTreeMap<u32, String>,
) -> Option<()> {
    let mut reader = Reader(stream);
    let (_version, header, first) = (reader.u32()?, reader.u32()? as usize, reader.u32()?);
    let mut records = Reader(stream.get(header..)?);
    for id in first.. {
        let length = records.u16()?;
        let mut record = Reader(records.bytes(length.into())?);
        let text = |mut record: Reader<'_>| {
            let text = record.text().filter(|text| (1..=MAX_NAME).contains(&text.len()))?;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        match record.u16()? {
            kind @ (FUNCTION_ID | MEMBER_FUNCTION_ID) => {
                let (scope, _type) = (record.u32()?, record.u32()?);
                // The class of a member function is a type, and those are not read.
                let scope = if kind == FUNCTION_ID { scope } else { 0 };
                functions.extend(text(record).map(|name| (id, (scope, name))));
            }
            STRING_ID => {
                record.u32()?;
                scopes.extend(text(record).map(|name| (id, name)));
            }
            _ => {}
        }
    }
    Some(())
}

/// Where an inlined routine's source begins: the offset of its file's checksum, and the line.
pub(super) type Sources = BTreeMap<u32, (u32, u32)>;

/// Reads one `DEBUG_S_INLINEELINES` subsection.
pub(super) fn sources(data: &[u8], into: &mut Sources) -> Option<()> {
    let mut reader = Reader(data);
    let with_more_files = reader.u32()? == 1;
    loop {
        let (inlinee, file, line) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if with_more_files {
            let more = reader.u32()? as usize;
            reader.bytes(more.checked_mul(4)?)?;
        }
        into.insert(inlinee, (file, line));
    }
}

/// What the sites of one module need to be understood.
pub(super) struct Module<'m> {
    pub(super) sections: &'m [Section],
    pub(super) names: &'m BTreeMap<u32, String>,
    pub(super) sources: &'m Sources,
}

impl Module<'_> {
    /// Adds the sites in a module's symbol records. `file` gives the number of a file by the offset of its checksum.
    pub(super) fn read(
        &self,
        records: &[u8],
        inlines: &mut Inlines,
        file: &mut dyn FnMut(u32) -> Option<usize>,
    ) {
        let mut reader = Reader(records);
        let (mut start, mut depth) = (None, 0);
        while let Some(length) = reader.u16() {
            let Some(record) = reader.bytes(length.into()) else { return };
            let mut record = Reader(record);
            match record.u16() {
                // S_LPROC32, S_GPROC32, their _ID forms and the DPC forms.
                Some(0x110f | 0x1110 | 0x1146 | 0x1147 | 0x1155 | 0x1156) => {
                    (start, depth) = (self.procedure(record), 0);
                }
                // S_INLINESITE, S_INLINESITE2.
                Some(kind @ (0x114d | 0x115d)) => {
                    depth += 1;
                    if let Some(start) = start.filter(|_| depth <= DEEPEST) {
                        let _ends_at_damage =
                            self.site(record, kind == 0x115d, (start, depth), inlines, file);
                    }
                }
                // S_INLINESITE_END.
                Some(0x114e) => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn procedure(&self, mut record: Reader<'_>) -> Option<u32> {
        record.bytes(28)?;
        let (offset, section) = (record.u32()?, record.u16()?);
        rva(self.sections, section, offset)
    }

    fn site(
        &self,
        mut record: Reader<'_>,
        counted: bool,
        (start, depth): (u32, usize),
        inlines: &mut Inlines,
        file: &mut dyn FnMut(u32) -> Option<usize>,
    ) -> Option<()> {
        let (_parent, _end, inlinee) = (record.u32()?, record.u32()?, record.u32()?);
        if counted {
            record.u32()?;
        }
        let name = inlines.name(self.names.get(&inlinee)?.clone());
        let source = self.sources.get(&inlinee).copied();
        let (mut at, mut line) =
            (source.map(|(file, _)| file), source.map_or(0, |(_, line)| i64::from(line)));
        let depth = u32::try_from(depth).ok()?;
        // A row lasts until the next one, or as long as a length says.
        let mut open: Option<Piece> = None;
        let (mut base, mut offset) = (start, 0_u32);
        while let Some(step) = annotation(&mut record) {
            match step {
                Step::Offset(value) => offset = value,
                Step::Base(value) => base = base.checked_add(value)?,
                Step::Length(length) => {
                    if let Some(piece) = open.take() {
                        inlines.push(Piece { end: piece.rva.saturating_add(length), ..piece });
                    }
                    offset = offset.saturating_add(length);
                }
                Step::File(value) => at = Some(value),
                Step::Line(delta) => line += delta,
                Step::Row { code, line: delta, length } => {
                    line += delta;
                    offset = offset.checked_add(code)?;
                    let rva = base.checked_add(offset)?;
                    if let Some(piece) = open.take() {
                        inlines.push(Piece { end: rva, ..piece });
                    }
                    let line = u32::try_from(line).ok().and_then(|line| Some((file(at?)?, line)));
                    let piece = Piece { rva, end: rva, depth, name, line };
                    match length {
                        Some(length) => {
                            inlines.push(Piece { end: rva.saturating_add(length), ..piece });
                            offset = offset.saturating_add(length);
                        }
                        None => open = Some(piece),
                    }
                }
                Step::Nothing => {}
            }
        }
        Some(())
    }
}

/// One binary annotation.
enum Step {
    Offset(u32),
    Base(u32),
    Length(u32),
    File(u32),
    Line(i64),
    Row { code: u32, line: i64, length: Option<u32> },
    Nothing,
}

fn annotation(reader: &mut Reader<'_>) -> Option<Step> {
    let mut next = || compressed(reader);
    Some(match next()? {
        1 => Step::Offset(next()?),
        2 => Step::Base(next()?),
        3 => Step::Row { code: next()?, line: 0, length: None },
        4 => Step::Length(next()?),
        5 => Step::File(next()?),
        6 => Step::Line(signed(next()?)),
        7..=10 | 13 => {
            next()?;
            Step::Nothing
        }
        11 => {
            let both = next()?;
            Step::Row { code: both & 0xF, line: signed(both >> 4), length: None }
        }
        12 => {
            let length = next()?;
            Step::Row { code: next()?, line: 0, length: Some(length) }
        }
        _ => return None,
    })
}

/// The lowest bit is the sign.
fn signed(value: u32) -> i64 {
    let size = i64::from(value >> 1);
    if value & 1 == 0 { size } else { -size }
}

/// A number of one, two or four bytes, the highest bits of the first telling which.
fn compressed(reader: &mut Reader<'_>) -> Option<u32> {
    let first = *reader.bytes(1)?.first()?;
    match first {
        0..0x80 => Some(first.into()),
        0x80..0xC0 => {
            let next = *reader.bytes(1)?.first()?;
            Some(u32::from(first & 0x3F) << 8 | u32::from(next))
        }
        0xC0..0xE0 => {
            let [a, b, c] = *reader.bytes(3)?.first_chunk()?;
            Some(u32::from_be_bytes([first & 0x1F, a, b, c]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compressed_in_three_sizes() {
        let read = |bytes: &[u8]| compressed(&mut Reader(bytes));
        assert_eq!(read(&[0x7F]), Some(0x7F));
        assert_eq!(read(&[0x81, 0x02]), Some(0x102));
        assert_eq!(read(&[0xC0, 0x01, 0x02, 0x03]), Some(0x1_0203));
        assert_eq!(read(&[0xFF]), None);
        assert_eq!((signed(4), signed(5)), (2, -2));
    }

    #[test]
    fn a_site_has_rows_with_lines() {
        let sections = [];
        let names = BTreeMap::from([(7, "inner".to_owned())]);
        let sources = Sources::from([(7, (24, 100))]);
        let module = Module { sections: &sections, names: &names, sources: &sources };
        let mut record = vec![0; 8];
        record.extend(7_u32.to_le_bytes());
        // Code +4 and line +1, then code +3 and line +2, then four bytes to the end.
        record.extend([11, 2 << 4 | 4, 11, 4 << 4 | 3, 4, 4, 0]);
        let mut inlines = Inlines::default();
        module.site(Reader(&record), false, (0x1000, 1), &mut inlines, &mut |_| Some(0));
        inlines.sort();
        let line = |rva| inlines.at(rva).first().and_then(|piece| piece.line);
        assert_eq!((line(0x1003), line(0x1004), line(0x1007)), (None, Some((0, 101)), Some((0, 103))));
        assert_eq!((line(0x100A), line(0x100B)), (Some((0, 103)), None));
    }
}
