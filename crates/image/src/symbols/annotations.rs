//! Annotations of a PDB: texts that a source has the compiler put there (`__annotation`), by which WPP's formats come into it.
//!
//! As Microsoft's published `cvinfo.h` has `S_ANNOTATION`: an address, a count, and as many texts.

use super::reader::Reader;

const ANNOTATION: u16 = 0x1019;
/// Longer texts are no trace formats.
const LONGEST: usize = 0x1000;

/// Adds the annotations in a list of records, each with its texts; what comes after a damaged record is not read.
pub(super) fn read(records: &[u8], found: &mut Vec<Vec<String>>) {
    let mut reader = Reader(records);
    while let Some(length) = reader.u16() {
        let Some(record) = reader.bytes(length.into()) else { return };
        found.extend(one(Reader(record)));
    }
}

fn one(mut record: Reader<'_>) -> Option<Vec<String>> {
    if record.u16()? != ANNOTATION {
        return None;
    }
    let (_offset, _section, count) = (record.u32()?, record.u16()?, record.u16()?);
    let texts = (0..count).map(|_| {
        let text = record.text().filter(|text| text.len() <= LONGEST)?;
        Some(String::from_utf8_lossy(text).into_owned())
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len() + 2).unwrap();
        [&length.to_le_bytes()[..], &kind.to_le_bytes(), body].concat()
    }

    /// lld leaves annotations out of a PDB, and no other linker is here: so these are made by hand.
    #[test]
    fn the_texts_of_each_annotation_are_read_among_other_records() {
        let head = [0x10, 0, 0, 0, 1, 0];
        let two = [&head[..], &[2, 0], b"TMF:\0one\0\0"].concat();
        let none = [&head[..], &[0, 0]].concat();
        let short = [&head[..], &[3, 0], b"TMF:\0one\0"].concat();
        let long = [&head[..], &[1, 0], &[b'x'; LONGEST + 1], &[0]].concat();
        let records = [
            record(0x110E, b"\0\0\0\0\x10\0\0\0\x01\0public\0"),
            record(ANNOTATION, &two),
            record(ANNOTATION, &short),
            record(ANNOTATION, &long),
            record(ANNOTATION, &none),
            record(6, &[]),
            record(ANNOTATION, &two),
            vec![0xFF, 0xFF, 0x19, 0x10],
        ];
        let mut found = Vec::new();
        read(&records.concat(), &mut found);
        assert_eq!(found, [vec!["TMF:", "one"], vec![], vec!["TMF:", "one"]]);
    }
}
