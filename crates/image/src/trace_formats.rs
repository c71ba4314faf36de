//! The formats of WPP's trace messages: what a driver's source says of them stands in its PDB.
//!
//! Pages: *Trace Message Format File*, *What are the WPP Extended Format Specification Strings?*, *WmiTraceMessage function*. A message is an
//! annotation of these texts: `TMF:`; the GUID and the source file; `#typev NAME NUMBER "TEXT" // LEVEL=… FUNC=…`; `{`; one
//! `ARGUMENT, ItemTYPE -- NUMBER` for each argument; `}`. Microsoft keeps the form to itself, and it may change: what is not understood
//! is no message here. A status is written as its number.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::debug::guid_text;
use crate::error::ImageError;
use crate::image::Image;
use crate::symbols::read_annotations;

/// The formats of an image's trace messages.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TraceFormats {
    messages: BTreeMap<([u8; 16], u16), Message>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    text: String,
    /// What stands behind it: `LEVEL`, `FLAGS`, `FUNC`, … and their values.
    attributes: BTreeMap<String, String>,
    arguments: Vec<Argument>,
}

/// An argument of a message, in the order of its data.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Argument {
    /// What the text calls it by.
    number: u32,
    item: Item,
}

/// What an argument's data are.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    /// An integer of so many bytes.
    Integer(usize),
    /// An integer of 4 bytes, in hexadecimal whatever the text says: a status.
    Status,
    Double,
    Guid,
    /// ANSI, to a zero.
    Text,
    /// UTF-16, to a zero.
    Wide,
    /// ANSI, behind its length in bytes.
    CountedText,
    /// UTF-16, behind its length in bytes.
    CountedWide,
    /// Bytes, behind their number.
    Bytes,
    /// An integer of so many bytes that counts names.
    OneOf(usize, Vec<String>),
    /// An integer of so many bytes each bit of which has a name.
    AllOf(usize, Vec<String>),
}

/// What an argument is.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    /// Of so many bytes.
    Integer(u64, usize),
    Double(f64),
    Text(String),
}

impl TraceFormats {
    /// Those in the PDB of `image`.
    ///
    /// # Errors
    /// If `pdb` is no PDB, a damaged one, or not the one that was written when `image` was linked.
    pub fn read(image: &Image, pdb: &[u8]) -> Result<Self, ImageError> {
        let found = read_annotations(image, pdb)?;
        Ok(Self { messages: found.iter().filter_map(|texts| message(texts)).collect() })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The text of a message, whose arguments' data lie one behind the other; none if its format is not known, or the data are not as it says.
    #[must_use]
    pub fn text(&self, guid: &[u8; 16], number: u16, data: &[u8]) -> Option<String> {
        let message = self.messages.get(&(*guid, number))?;
        let mut rest = data;
        let mut values = BTreeMap::new();
        for argument in &message.arguments {
            values.insert(argument.number, argument.item.read(&mut rest)?);
        }
        Some(message.write(&values))
    }

    /// The routine that sends a message, if its format says so.
    #[must_use]
    pub fn routine(&self, guid: &[u8; 16], number: u16) -> Option<&str> {
        self.messages.get(&(*guid, number))?.attributes.get("FUNC").map(String::as_str)
    }
}

// ---- the annotation ----

fn message(texts: &[String]) -> Option<(([u8; 16], u16), Message)> {
    let [mark, source, format, rest @ ..] = texts else { return None };
    let guid = parse_guid(source.split_whitespace().next()?)?;
    let head = format.strip_prefix("#typev").filter(|_| mark == "TMF:")?;
    let (names, quoted) = head.split_once('"')?;
    let number = names.split_whitespace().nth(1)?.parse().ok()?;
    let end = quoted.rfind("\" //").or_else(|| quoted.rfind('"'))?;
    let text = quoted[..end].strip_prefix("%0").unwrap_or(&quoted[..end]).to_owned();
    let attributes = quoted[end..].split_whitespace().filter_map(|word| word.split_once('='));
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let lines = rest.iter().filter(|line| !matches!(line.as_str(), "{" | "}"));
    let arguments = (10..).zip(lines).map(|(number, line)| argument(number, line)).collect::<Option<_>>()?;
    Some(((guid, number), Message { text, attributes, arguments }))
}

fn argument(number: u32, line: &str) -> Option<Argument> {
    // What is passed may be an expression with commas in it.
    let item = &line[line.rfind(", Item")? + 2..];
    let (item, number) = match item.split_once("--") {
        Some((item, number)) => (item, number.trim().parse().ok()?),
        None => (item, number),
    };
    let (name, names) = match item.trim().split_once('(') {
        Some((name, names)) => (name, names.trim_end_matches(')')),
        None => (item.trim(), ""),
    };
    let names = || names.split(',').map(|name| name.trim().to_owned()).collect();
    let item = match name {
        "ItemChar" | "ItemUChar" => Item::Integer(1),
        "ItemShort" | "ItemUShort" => Item::Integer(2),
        "ItemLong" | "ItemULong" | "ItemULongX" | "ItemEnum" => Item::Integer(4),
        "ItemLongLong" | "ItemULongLong" | "ItemLongLongX" | "ItemLongLongO" | "ItemPtr"
        | "ItemTimestamp" | "ItemTimeDelta" | "ItemWaitTime" => Item::Integer(8),
        "ItemNTSTATUS" | "ItemHRESULT" | "ItemWINERROR" | "ItemNDIS_STATUS" | "ItemNDIS_OID" => Item::Status,
        "ItemDouble" => Item::Double,
        "ItemGuid" | "ItemCLSID" | "ItemLIBID" | "ItemIID" => Item::Guid,
        "ItemString" | "ItemRString" => Item::Text,
        "ItemWString" | "ItemRWString" => Item::Wide,
        "ItemPString" => Item::CountedText,
        "ItemPWString" => Item::CountedWide,
        "ItemHEXDump" => Item::Bytes,
        "ItemListByte" => Item::OneOf(1, names()),
        "ItemListShort" => Item::OneOf(2, names()),
        "ItemListLong" => Item::OneOf(4, names()),
        "ItemSetByte" => Item::AllOf(1, names()),
        "ItemSetShort" => Item::AllOf(2, names()),
        "ItemSetLong" => Item::AllOf(4, names()),
        _ => return None,
    };
    Some(Argument { number, item })
}

/// `8-4-4-4-12` hexadecimal digits, as a GUID lies in memory.
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.split('-').collect();
    let is_one = text.len() == 36 && digits.len() == 32;
    let number = u128::from_str_radix(digits.get(..32)?, 16).ok().filter(|_| is_one)?;
    let mut guid = number.to_be_bytes();
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    Some(guid)
}

// ---- the data ----

impl Item {
    /// Takes its data from the front of `rest`.
    fn read(&self, rest: &mut &[u8]) -> Option<Value> {
        Some(match self {
            Self::Integer(size) => Value::Integer(integer(rest, *size)?, *size),
            Self::Status => Value::Text(format!("{:#010x}", integer(rest, 4)?)),
            Self::Double => Value::Double(f64::from_bits(integer(rest, 8)?)),
            Self::Guid => Value::Text(guid_text(take(rest, 16)?.first_chunk()?)),
            Self::Text => {
                let length = rest.iter().position(|byte| *byte == 0)?;
                let text = ansi(take(rest, length)?);
                take(rest, 1)?;
                Value::Text(text)
            }
            Self::Wide => {
                let length = rest.chunks_exact(2).position(|unit| unit == [0, 0])?;
                let text = wide(take(rest, 2 * length)?);
                take(rest, 2)?;
                Value::Text(text)
            }
            Self::CountedText => Value::Text(ansi(counted(rest)?)),
            Self::CountedWide => Value::Text(wide(counted(rest)?)),
            Self::Bytes => {
                let bytes = counted(rest)?.iter();
                let bytes: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
                Value::Text(bytes.join(" "))
            }
            Self::OneOf(size, names) => {
                let value = integer(rest, *size)?;
                let name = usize::try_from(value).ok().and_then(|value| names.get(value));
                Value::Text(name.cloned().unwrap_or_else(|| value.to_string()))
            }
            Self::AllOf(size, names) => {
                let value = integer(rest, *size)?;
                let is_set = |bit: &usize| value >> bit & 1 != 0;
                let name =
                    |bit: usize| names.get(bit).cloned().unwrap_or_else(|| format!("{:#x}", 1u64 << bit));
                let set: Vec<String> = (0..8 * size).filter(is_set).map(name).collect();
                Value::Text(set.join("|"))
            }
        })
    }
}

fn take<'d>(rest: &mut &'d [u8], length: usize) -> Option<&'d [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn integer(rest: &mut &[u8], size: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(take(rest, size)?);
    Some(u64::from_le_bytes(bytes))
}

fn counted<'d>(rest: &mut &'d [u8]) -> Option<&'d [u8]> {
    let length = integer(rest, 2)?;
    take(rest, usize::try_from(length).ok()?)
}

fn ansi(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn wide(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

// ---- the text ----

impl Message {
    fn write(&self, values: &BTreeMap<u32, Value>) -> String {
        let (mut text, mut rest) = (String::new(), self.text.as_str());
        while let Some((before, behind)) = rest.split_once('%') {
            text.push_str(before);
            rest = self.insert(behind, values, &mut text);
        }
        text.push_str(rest);
        text
    }

    /// Writes what `%` and the beginning of `behind` stand for; what comes then.
    fn insert<'t>(&self, behind: &'t str, values: &BTreeMap<u32, Value>, text: &mut String) -> &'t str {
        let digits = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if let Ok(number) = behind[..digits].parse::<u32>() {
            let rest = &behind[digits..];
            let (how, rest) =
                rest.strip_prefix('!').and_then(|how| how.split_once('!')).unwrap_or(("", rest));
            match values.get(&number) {
                Some(value) => text.push_str(&Spec::of(how).write(value)),
                None => _ = write!(text, "%{number}"),
            }
            return rest;
        }
        let named = behind.strip_prefix('!').and_then(|name| name.split_once('!'));
        if let Some((name, rest)) = named {
            text.push_str(self.attributes.get(name).map_or("", String::as_str));
            return rest;
        }
        let mut characters = behind.chars();
        match characters.next() {
            Some('n' | 'r' | 't' | 'b') => text.push(' '),
            Some(other) => text.push(other),
            None => text.push('%'),
        }
        characters.as_str()
    }
}

/// How `printf` writes a value: what stands between `!` and `!`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Spec {
    left: bool,
    zeroes: bool,
    /// `#`: with a prefix.
    prefixed: bool,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

impl Spec {
    /// No wider than this: a number in a source is not believed.
    const WIDEST: usize = 256;

    fn of(text: &str) -> Self {
        let flags = text.len() - text.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        let (flags, rest) = text.split_at(flags);
        let number = |text: &str| text.parse().map_or(0, |number: usize| number.min(Self::WIDEST));
        let size = rest.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (size, kind) = match rest.find("I64") {
            Some(at) => (&rest[..at], &rest[at..]),
            None => rest.split_at(size),
        };
        let (width, precision) = match size.split_once('.') {
            Some((width, precision)) => (width, Some(number(precision))),
            None => (size, None),
        };
        Self {
            left: flags.contains('-'),
            zeroes: flags.contains('0'),
            prefixed: flags.contains('#'),
            width: number(width),
            precision,
            kind: kind.chars().last().unwrap_or(' '),
        }
    }

    fn write(self, value: &Value) -> String {
        let (sign, body) = match value {
            Value::Integer(bits, size) => self.integer(*bits, *size),
            Value::Double(value) => ("", format!("{value:.*}", self.precision.unwrap_or(6))),
            Value::Text(text) => ("", text.chars().take(self.precision.unwrap_or(usize::MAX)).collect()),
        };
        let zeroes = self.zeroes && !self.left && !matches!(value, Value::Text(_));
        let missing = self.width.saturating_sub(sign.len() + body.chars().count());
        match (self.left, zeroes) {
            (true, _) => format!("{sign}{body}{}", " ".repeat(missing)),
            (false, true) => format!("{sign}{}{body}", "0".repeat(missing)),
            (false, false) => format!("{}{sign}{body}", " ".repeat(missing)),
        }
    }

    /// What stands before the digits, and the digits.
    fn integer(self, bits: u64, size: usize) -> (&'static str, String) {
        let digits = self.precision.unwrap_or(1);
        match self.kind {
            'x' => (if self.prefixed { "0x" } else { "" }, format!("{bits:0digits$x}")),
            'X' => (if self.prefixed { "0X" } else { "" }, format!("{bits:0digits$X}")),
            'p' => ("", format!("{bits:016X}")),
            'o' => (if self.prefixed { "0" } else { "" }, format!("{bits:0digits$o}")),
            'u' => ("", format!("{bits:0digits$}")),
            'c' => ("", u32::try_from(bits).ok().and_then(char::from_u32).unwrap_or('?').to_string()),
            _ => {
                let unused = 64 - 8 * u32::try_from(size).unwrap_or(8);
                let value = (bits << unused).cast_signed() >> unused;
                let sign = if value < 0 { "-" } else { "" };
                (sign, format!("{:0digits$}", value.unsigned_abs()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "6B29FC40-CA47-1067-B31D-00DD010662DA";

    fn of(format: &str, arguments: &[&str]) -> TraceFormats {
        let source = format!("{GUID} tracing // SRC=tracing.c MJ= MN=");
        let texts = [&["TMF:", &source, format, "{"], arguments, &["}"]].concat();
        let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
        TraceFormats { messages: message(&texts).into_iter().collect() }
    }

    fn text(format: &str, arguments: &[&str], data: &[u8]) -> Option<String> {
        of(format, arguments).text(&parse_guid(GUID).unwrap(), 11, data)
    }

    #[test]
    fn a_message_is_written_as_its_format_says() {
        let format = "#typev tracing_c258 11 \"%0%!FUNC!: \"%10!s!\" of %11!d!, %12!08X! 100%%\" //   LEVEL=TRACE_LEVEL_ERROR FLAGS=All FUNC=Start";
        let arguments = ["Name, ItemString -- 10", "max(A, B), ItemLong -- 11", "Mask, ItemLong -- 12"];
        let data = [&b"one\0"[..], &(-2i32).to_le_bytes(), &0xBEEFu32.to_le_bytes()].concat();
        assert_eq!(text(format, &arguments, &data).unwrap(), "Start: \"one\" of -2, 0000BEEF 100%");
        let formats = of(format, &arguments);
        assert_eq!(formats.routine(&parse_guid(GUID).unwrap(), 11), Some("Start"));
        assert_eq!(text(format, &arguments, &data[..data.len() - 1]), None, "a part of the data");
        assert_eq!(formats.text(&parse_guid(GUID).unwrap(), 12, &data), None, "another's");
    }

    #[test]
    fn each_kind_of_argument_is_read() {
        let one = |item: &str, how: &str, data: &[u8]| {
            text(
                &format!("#typev t_c1 11 \"%0[%10!{how}!]\" // FUNC=F"),
                &[&format!("X, {item} -- 10")],
                data,
            )
        };
        let wide: Vec<u8> = "héllo".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let counted = [&10u16.to_le_bytes()[..], &wide].concat();
        let cases: &[(&str, &str, &[u8], &str)] = &[
            ("ItemNTSTATUS", "s", &0xC000_0010u32.to_le_bytes(), "0xc0000010"),
            ("ItemChar", "d", &[0xFF], "-1"),
            ("ItemUChar", "u", &[0xFF], "255"),
            ("ItemShort", "5d", &[0xFE, 0xFF], "   -2"),
            ("ItemShort", "05d", &[0xFE, 0xFF], "-0002"),
            ("ItemLong", "-4d", &[7, 0, 0, 0], "7   "),
            ("ItemLong", "#x", &[16, 0, 0, 0], "0x10"),
            ("ItemLong", ".3d", &[7, 0, 0, 0], "007"),
            ("ItemLongLong", "I64d", &u64::MAX.to_le_bytes(), "-1"),
            ("ItemLongLongX", "20I64x", &16u64.to_le_bytes(), "                  10"),
            ("ItemPtr", "p", &0xFFFF_8000u64.to_le_bytes(), "00000000FFFF8000"),
            ("ItemDouble", ".2f", &1.5f64.to_bits().to_le_bytes(), "1.50"),
            ("ItemWString", "s", &[&wide[..], &[0, 0]].concat(), "héllo"),
            ("ItemPWString", "8.3s", &counted, "     hél"),
            ("ItemPString", "s", &[2, 0, b'o', b'k'], "ok"),
            ("ItemHEXDump", "s", &[2, 0, 0xAB, 1], "ab 01"),
            ("ItemListLong(low,high)", "s", &[1, 0, 0, 0], "high"),
            ("ItemListByte(low,high)", "s", &[9], "9"),
            ("ItemSetByte(read,write)", "s", &[7], "read|write|0x4"),
            ("ItemGuid", "s", &parse_guid(GUID).unwrap(), "6b29fc40-ca47-1067-b31d-00dd010662da"),
        ];
        for (item, how, data, expected) in cases {
            let text = one(item, how, data);
            assert_eq!(
                text.map(|text| text.to_lowercase()),
                Some(format!("[{}]", expected.to_lowercase())),
                "{item} {how}"
            );
        }
        assert_eq!(one("ItemOfNextYear", "s", &[0; 64]), None);
    }

    #[test]
    fn what_is_no_format_is_none_and_no_width_is_believed() {
        for format in [
            "",
            "#typev",
            "#typev a",
            "#typev a 11 b",
            "#typev a x \"b\"",
            "#type a 11 \"b\"",
            "#typev a 11 \"",
        ] {
            assert!(of(format, &[]).is_empty(), "{format}");
        }
        assert!(of("#typev a 11 \"b\"", &["X"]).is_empty());
        assert!(of("#typev a 11 \"b\"", &["X, ItemLong -- y"]).is_empty());
        let text = text("#typev a 11 \"%10!999999999d!%\" //", &["X, ItemLong"], &[0; 4]).unwrap();
        assert_eq!(text.len(), 257);
    }
}
