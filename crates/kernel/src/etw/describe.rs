//! Events that describe themselves (TraceLogging): their names, and their fields as text.
//!
//! Pages: *TraceLogging Wrapper Macros*, *EVENT_DATA_DESCRIPTOR structure* (`EVENT_DATA_DESCRIPTOR_TYPE_EVENT_METADATA`), *TDH_IN_TYPE*,
//! *TDH_OUT_TYPE*; the layout as `TraceLoggingProvider.h` has it, and crate `win_etw_metadata` too: a size of 16 bits, tags, the name, and for each field its name, how it lies in the
//! data, and how it is to be shown. What is not understood is shown as bytes.

use crate::wmi::guid_text;

/// In a field's type: how many values there are, and that an output type follows.
const SHAPE: u8 = 0x60;
const FIXED_COUNT: u8 = 0x20;
const COUNT_IN_DATA: u8 = 0x40;
const MORE: u8 = 0x80;
/// A field of which so many that follow are the members.
const STRUCTURE: u8 = 24;
/// Values and structures that are shown of an event, and how deep they lie in each other.
const MOST: usize = 256;
const DEEPEST: u32 = 16;

/// Output types.
const OUT_STRING: u8 = 2;
const OUT_BOOLEAN: u8 = 3;
const OUT_HEX: u8 = 4;
const OUT_WIN32_ERROR: u8 = 13;
const OUT_NTSTATUS: u8 = 14;
const OUT_HRESULT: u8 = 15;

/// Bytes that are read from their beginning.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|two| u16::from_le_bytes([two[0], two[1]]))
    }

    /// So many bytes as a number.
    fn number(&mut self, length: usize) -> Option<u64> {
        let mut whole = [0; 8];
        whole[..length].copy_from_slice(self.take(length)?);
        Some(u64::from_le_bytes(whole))
    }

    /// A name, up to its zero.
    fn name(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let name = self.take(end + 1)?;
        Some(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    fn skip_tags(&mut self) -> Option<()> {
        while self.u8()? & MORE != 0 {}
        Some(())
    }
}

/// How often a field's value is there.
#[derive(Clone, Copy)]
enum Count {
    One,
    Fixed(u16),
    InData,
}

struct Field {
    name: String,
    kind: u8,
    shown: u8,
    count: Count,
}

fn field(from: &mut Bytes<'_>) -> Option<Field> {
    let name = from.name()?;
    let kind = from.u8()?;
    let mut shown = 0;
    if kind & MORE != 0 {
        shown = from.u8()?;
        if shown & MORE != 0 {
            from.skip_tags()?;
        }
    }
    let count = match kind & SHAPE {
        0 => Count::One,
        FIXED_COUNT => Count::Fixed(from.u16()?),
        COUNT_IN_DATA => Count::InData,
        _ => return None, // described by the provider's own words
    };
    Some(Field { name, kind: kind & !(SHAPE | MORE), shown: shown & !MORE, count })
}

/// The name in a provider's metadata.
pub(super) fn provider(metadata: &[u8]) -> Option<String> {
    let mut from = Bytes(metadata);
    from.u16()?;
    from.name()
}

/// An event's name, and its fields with their values.
pub(super) fn event(metadata: &[u8], data: &[u8]) -> Option<(String, String)> {
    let size = Bytes(metadata).u16()?;
    let mut from = Bytes(metadata.get(2..usize::from(size))?);
    from.skip_tags()?;
    let name = from.name()?;
    let mut fields = Vec::new();
    let mut is_whole = true;
    while !from.0.is_empty() {
        let Some(field) = field(&mut from) else {
            is_whole = false;
            break;
        };
        fields.push(field);
    }
    let (mut data, mut shown) = (Bytes(data), Vec::new());
    let (mut rest, mut room) = (fields.iter(), MOST);
    while is_whole && !rest.as_slice().is_empty() {
        is_whole = values(&mut rest, 1, &mut data, &mut shown, (&mut room, DEEPEST)).is_some();
    }
    if !is_whole || !data.0.is_empty() {
        shown.push(format!("rest={}", hex(data.0)));
    }
    Some((name, shown.join(" ")))
}

/// The values of the next `count` fields, of which `room` more are shown, in structures so much deeper; none if one is not understood.
fn values(
    fields: &mut std::slice::Iter<'_, Field>,
    count: usize,
    data: &mut Bytes<'_>,
    shown: &mut Vec<String>,
    (room, deeper): (&mut usize, u32),
) -> Option<()> {
    for _ in 0..count {
        let field = fields.next()?;
        let times = match field.count {
            Count::One => 1,
            Count::Fixed(count) => count,
            Count::InData => data.u16()?,
        };
        if field.kind == STRUCTURE {
            let members = fields.clone();
            skip(fields, field.shown.into())?;
            for _ in 0..times {
                *room = room.checked_sub(1)?;
                *fields = members.clone();
                let mut inner = Vec::new();
                let ended =
                    values(fields, field.shown.into(), data, &mut inner, (room, deeper.checked_sub(1)?));
                shown.push(format!("{}={{{}}}", field.name, inner.join(" ")));
                ended?;
            }
            continue;
        }
        let mut all = Vec::new();
        for _ in 0..times {
            *room = room.checked_sub(1)?;
            all.push(value(field, data)?);
        }
        let is_one = matches!(field.count, Count::One);
        let text = if is_one { all.concat() } else { format!("[{}]", all.join(" ")) };
        shown.push(format!("{}={text}", field.name));
    }
    Some(())
}

/// Passes over so many fields, with their members.
fn skip(fields: &mut std::slice::Iter<'_, Field>, mut count: usize) -> Option<()> {
    while count > 0 {
        let field = fields.next()?;
        count -= 1;
        if field.kind == STRUCTURE {
            count += usize::from(field.shown);
        }
    }
    Some(())
}

/// One value, by its input type.
fn value(field: &Field, data: &mut Bytes<'_>) -> Option<String> {
    Some(match field.kind {
        1 => {
            let end = data.0.chunks_exact(2).position(|unit| unit == [0, 0])?;
            let text = wide(data.take(2 * end)?);
            data.take(2)?;
            text
        }
        2 => format!("{:?}", data.name()?),
        kind @ 3..=10 => {
            let bytes = 1 << ((kind - 3) / 2);
            integer(data.number(bytes)?, bytes, kind % 2 == 1, field.shown)
        }
        11 => f32::from_bits(u32::try_from(data.number(4)?).ok()?).to_string(),
        12 => f64::from_bits(data.number(8)?).to_string(),
        13 => (data.number(4)? != 0).to_string(),
        14 | 25 => {
            let length = data.u16()?;
            hex(data.take(length.into())?)
        }
        15 => guid_text(data.take(16)?.try_into().ok()?),
        17 | 21 => format!("{:#x}", data.number(8)?),
        18 => {
            let mut part = || data.u16();
            let [year, month, _, day] = [part()?, part()?, part()?, part()?];
            let [hour, minute, second, milli] = [part()?, part()?, part()?, part()?];
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}")
        }
        19 => {
            let count = *data.0.get(1)?;
            hex(data.take(8 + 4 * usize::from(count))?)
        }
        20 => format!("{:#x}", data.number(4)?),
        22 => {
            let length = data.u16()?;
            wide(data.take(length.into())?)
        }
        23 => {
            let length = data.u16()?;
            format!("{:?}", String::from_utf8_lossy(data.take(length.into())?))
        }
        _ => return None,
    })
}

fn integer(value: u64, bytes: usize, signed: bool, shown: u8) -> String {
    match shown {
        OUT_BOOLEAN => (value != 0).to_string(),
        OUT_HEX | OUT_WIN32_ERROR | OUT_NTSTATUS | OUT_HRESULT => format!("{value:#x}"),
        OUT_STRING => {
            let letter = u32::try_from(value).ok().and_then(char::from_u32);
            letter.map_or_else(|| value.to_string(), |letter| format!("{letter:?}"))
        }
        _ if signed => {
            let above = 64 - 8 * bytes;
            (value.cast_signed() << above >> above).to_string()
        }
        _ => value.to_string(),
    }
}

fn wide(bytes: &[u8]) -> String {
    format!("{:?}", text(bytes))
}

/// UTF-16 as text.
pub(super) fn text(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    String::from_utf16_lossy(&units)
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A string takes what is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata of an event `Sent`, with these fields.
    fn metadata(fields: &[u8]) -> Vec<u8> {
        let size = u16::try_from(2 + 1 + 5 + fields.len()).unwrap();
        [&size.to_le_bytes()[..], &[0], b"Sent\0", fields].concat()
    }

    fn shown(fields: &[u8], data: &[u8]) -> String {
        let (name, text) = event(&metadata(fields), data).unwrap();
        assert_eq!(name, "Sent");
        text
    }

    #[test]
    fn numbers_are_shown_as_their_types_say() {
        let fields = [&b"a\0\x07"[..], b"b\0\x88\x04", b"c\0\x84\x03", b"d\0\x0b", b"e\0\x05"].concat();
        let data = [
            &(-3_i32).to_le_bytes()[..],
            &255_u32.to_le_bytes(),
            &[1],
            &1.5_f32.to_le_bytes(),
            &[0xFE, 0xFF],
        ];
        assert_eq!(shown(&fields, &data.concat()), "a=-3 b=0xff c=true d=1.5 e=-2");
    }

    #[test]
    fn texts_are_zero_terminated_or_counted() {
        let fields = [&b"a\0\x01"[..], b"b\0\x02", b"c\0\x16", b"d\0\x17", b"e\0\x0e"].concat();
        let data = [&b"h\0i\0\0\0"[..], b"ho\0", b"\x02\0x\0", b"\x02\0yz", b"\x02\0\xAB\xCD"].concat();
        assert_eq!(shown(&fields, &data), r#"a="hi" b="ho" c="x" d="yz" e=abcd"#);
    }

    #[test]
    fn arrays_and_structures_are_shown_with_what_is_in_them() {
        // One that is not there at all has its members all the same.
        let none = [&b"s\0\xD8\x02"[..], b"x\0\x04", b"y\0\x04", b"z\0\x04"].concat();
        assert_eq!(shown(&none, &[0, 0, 9]), "z=9");
        // Two numbers; as many as the data say; a structure of two members, with tags.
        let fields =
            [&b"a\0\x24\x02\0"[..], b"b\0\x44", b"s\0\x98\x82\x81\x01", b"x\0\x04", b"y\0\x04"].concat();
        let data = [1, 2, 1, 0, 3, 4, 5];
        assert_eq!(shown(&fields, &data), "a=[1 2] b=[3] s={x=4 y=5}");
    }

    #[test]
    fn what_is_not_understood_is_bytes_and_nothing_is_read_beyond_the_end() {
        assert_eq!(shown(b"a\0\x04b\0\x10", &[7, 8, 9]), "a=7 rest=0809");
        assert_eq!(shown(b"a\0\x08", &[7]), "rest=07");
        assert_eq!(shown(b"", &[]), "");
        assert_eq!(event(&[9, 0, 0], &[]), None);
        let whole = metadata(b"a\0\x58\x01");
        for end in 0..whole.len() {
            let _ = event(&whole[..end], &[0xFF; 9]);
        }
        // Structures in structures, each many times over, and no data.
        let nested = metadata(&b"s\0\xB8\x01\xFF\xFF".repeat(200));
        assert!(event(&nested, &[]).unwrap().1.ends_with("rest="));
    }
}
