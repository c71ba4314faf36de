//! What the registry holds, as the Registry Editor writes it: version 5.00, keys in the order of their names, lines of bytes wrapped at 80 columns.
//!
//! Written is what a reboot would leave: keys that are volatile are left out, with all below them (`HKEY_LOCAL_MACHINE\Hardware` is one). What a link leads to
//! stands under the link, `CurrentControlSet`, and not a second time. Values come in the order in which they were made, since
//! drivers find them so. A string that quotes would not give back (without a zero at its end, with one inside, with line ends or lone surrogates) is
//! written as bytes, `hex(1)`; what has a name that no text can have is left out, which a comment says.

use std::fmt::Write;

use abi::{REG_BINARY, REG_DWORD, REG_SZ};
use kernel::cm::registry::{KeyId, Registry, Value};

use super::VERSIONS;
use super::paths::{DEEPEST, WHOLE};
use super::read::closing;

/// Why something is left out.
const NO_TEXT: &str = "whose name no text can have";
/// From this column on, bytes go on in the next line.
const FULL: usize = 76;

/// The text, with its lines ended as on Windows.
pub(crate) fn write(registry: &Registry) -> String {
    let mut text = format!("{}\r\n\r\n", VERSIONS[0].0);
    for (name, path) in WHOLE {
        let path: Vec<u16> = path.encode_utf16().collect();
        if let Ok(key) = registry.open(None, &path) {
            below(registry, key, name, 1, &mut text);
        }
    }
    text
}

/// The bytes of a file with this text: UTF-16 with its mark, as the Registry Editor has it.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    text.encode_utf16().fold(vec![0xff, 0xfe], |mut bytes, unit| {
        bytes.extend(unit.to_le_bytes());
        bytes
    })
}

/// A key and all below it.
fn below(registry: &Registry, key: KeyId, path: &str, level: usize, text: &mut String) {
    let _ = write!(text, "[{path}]\r\n");
    for value in (0..).map_while(|index| registry.value_at(key, index).ok()) {
        one(value, text);
    }
    text.push_str("\r\n");
    let children: Vec<KeyId> = (0..).map_while(|index| registry.subkey(key, index).ok()).collect();
    let linked: Vec<KeyId> = children.iter().filter_map(|child| registry.target(*child)).collect();
    for &child in &children {
        // A link to elsewhere is not written: what it leads to stands there.
        let meant = registry.target(child).unwrap_or(child);
        if linked.contains(&child) || !children.contains(&meant) || registry.is_volatile(meant) {
            continue;
        }
        let Ok(facts) = registry.facts(child) else { continue };
        let name = plain(&facts.name);
        let below_path = format!("{path}\\{}", name.as_deref().unwrap_or_default());
        if level == DEEPEST {
            left_out("key", &facts.name, &format!("which lies deeper than {DEEPEST} levels"), text);
        } else if name.is_some() && closing(&format!("{below_path}]")) == Some(below_path.len()) {
            below(registry, meant, &below_path, level + 1, text);
        } else {
            left_out("key", &facts.name, NO_TEXT, text);
        }
    }
}

/// A value's line, or lines.
fn one(value: &Value, text: &mut String) {
    let Some(name) = plain(&value.name) else { return left_out("value", &value.name, NO_TEXT, text) };
    let start = text.len();
    match name.as_str() {
        "" => text.push('@'),
        name => quote(name, text),
    }
    text.push('=');
    let number = <[u8; 4]>::try_from(value.data.as_slice()).ok().filter(|_| value.kind == REG_DWORD);
    let string = (value.kind == REG_SZ).then(|| string(&value.data)).flatten();
    match (number, string) {
        (Some(number), _) => {
            let _ = write!(text, "dword:{:08x}", u32::from_le_bytes(number));
        }
        (None, Some(string)) => quote(&string, text),
        (None, None) => {
            text.push_str("hex");
            if value.kind != REG_BINARY {
                let _ = write!(text, "({:x})", value.kind);
            }
            text.push(':');
            let column = text[start..].chars().count();
            bytes(&value.data, column, text);
        }
    }
    text.push_str("\r\n");
}

fn bytes(data: &[u8], mut column: usize, text: &mut String) {
    for (index, byte) in data.iter().enumerate() {
        let _ = write!(text, "{byte:02x}");
        if index + 1 == data.len() {
            return;
        }
        text.push(',');
        column += 3;
        if column > FULL {
            text.push_str("\\\r\n  ");
            column = 2;
        }
    }
}

fn quote(plain: &str, text: &mut String) {
    text.push('"');
    text.push_str(&plain.replace('\\', r"\\").replace('"', "\\\""));
    text.push('"');
}

/// The text of a `REG_SZ`, if quotes give it back.
fn string(data: &[u8]) -> Option<String> {
    let (units, rest) = data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    plain(units.strip_suffix(&[0])?).filter(|_| rest.is_empty())
}

/// Code units as text, if they are, without letters that end a line or a file.
fn plain(units: &[u16]) -> Option<String> {
    let text = String::from_utf16(units).ok()?;
    (!text.contains(|letter| letter < ' ' && letter != '\t')).then_some(text)
}

fn left_out(what: &str, name: &[u16], why: &str, text: &mut String) {
    let shown: String = char::decode_utf16(name.iter().copied())
        .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
        .map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter })
        .collect();
    let _ = write!(text, "; left out: the {what} {shown}, {why}\r\n");
}
