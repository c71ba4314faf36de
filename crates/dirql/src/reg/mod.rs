//! Registry files (`.reg`): what of a machine's registry is given, and what it holds, as text that Windows' Registry Editor reads.
//!
//! Page: *How to add, modify, or delete registry subkeys and values by using a .reg file*. Both versions are read, `Windows Registry Editor Version
//! 5.00` and `REGEDIT4`; the first is written. Where the page is silent:
//!
//! - A line that the Registry Editor would pass over, because it is no key, value or comment, is refused with its place.
//! - Roots may be written short (`HKLM`). `HKEY_CURRENT_USER` is the user of system threads, `\Registry\User\.Default`; `HKEY_CLASSES_ROOT` is the machine's
//!   `Software\Classes`, `HKEY_CURRENT_CONFIG` the current hardware profile.
//! - A text without a byte order mark is UTF-8 if it can be; `REGEDIT4` is Windows-1252, and bytes of its texts (`hex(1)`, `hex(2)`, `hex(7)`) are, too.
//! - A string may go over several lines, as the Registry Editor writes one that has line ends in it.
//! - Keys that the system cannot be without are not deleted.

mod data;
mod paths;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use paths::{is_kept, is_within};
pub(crate) use write::{encode, write};

use crate::inf::{Error, Outcome, Spot, fault, text_of};

/// The longest file that is read, in bytes: all of a PC's registry has some hundred MB, its `SYSTEM` some ten.
const MAX_FILE: usize = 64 << 20;

/// The first line of each version, and whether bytes of texts are in the ANSI code page.
const VERSIONS: [(&str, bool); 2] = [("Windows Registry Editor Version 5.00", false), (ANSI, true)];
const ANSI: &str = "REGEDIT4";

/// A registry file that can be written to a machine's registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RegFile {
    /// The file as the user knows it.
    pub(crate) file: String,
    /// What it says, as text.
    pub(crate) text: String,
    /// What is to be done, in this order.
    pub(crate) actions: Vec<Action>,
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Action {
    /// Where the file says so.
    pub(crate) spot: Spot,
    /// The key's path from `\Registry` on, without links.
    pub(crate) key: String,
    pub(crate) what: What,
}

/// What is done to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// It is made, if it is not there.
    Make,
    /// It is deleted, with all below it.
    Delete,
    /// A value is set; an empty name is the key's default value.
    Set { name: String, kind: u32, data: Vec<u8> },
    /// A value is deleted.
    DeleteValue { name: String },
}

/// Reads a registry file. `file` is its name as the user knows it.
///
/// # Errors
/// What is no registry file, or wrong in it: with the place and what to do about it.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<RegFile, Error> {
    let text = decode(bytes).map_err(|fault| fault.of(file))?;
    parse_text(file, text)
}

/// The same, where the text is known.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_text(file: &str, text: String) -> Result<RegFile, Error> {
    let actions = read::read(&text).map_err(|fault| fault.of(file))?;
    Ok(RegFile { file: file.to_owned(), text, actions })
}

/// Reads one value that is given as `KEY\NAME=DATA`, or a key alone, given as `KEY\`.
///
/// # Errors
/// What is wrong in it.
pub(crate) fn parse_value(value: &str) -> Result<RegFile, Error> {
    let file = format!("registry value {value}");
    let refused = |message: String| Error { file: file.clone(), spot: None, message };
    let (path, data) = value.split_once('=').map_or((value, None), |(path, data)| (path, Some(data)));
    let (key, name) = match (path.rsplit_once('\\'), data) {
        (Some((key, "")), None) => (key, None),
        (Some((key, name)), Some(_)) => (key, Some(name)),
        _ => {
            return Err(refused(
                r"this is neither a value, KEY\NAME=DATA, nor a key alone, KEY\; for example HKLM\System\CurrentControlSet\Services\card\Parameters\Depth=dword:1".to_owned(),
            ));
        }
    };
    let [(version, _), _] = VERSIONS;
    let line = match (name, data) {
        (Some(name), Some(data)) => format!("\"{name}\"={data}\n"),
        _ => String::new(),
    };
    let read = parse_text(&file, format!("{version}\n\n[{key}]\n{line}"));
    let read = read.map_err(|error| refused(error.message))?;
    let is_one = read.actions.len() == 1 + usize::from(name.is_some());
    is_one
        .then_some(read)
        .ok_or_else(|| refused("there is more than one value in it; give each by itself".to_owned()))
}

fn decode(bytes: &[u8]) -> Outcome<String> {
    if bytes.is_empty() {
        return fault(None, "the file is empty".to_owned());
    }
    if bytes.len() > MAX_FILE {
        let (size, most) = (bytes.len() >> 20, MAX_FILE >> 20);
        return fault(
            None,
            format!("the file has {size} MiB; at most {most} are read: keep only the keys that matter"),
        );
    }
    if bytes.starts_with(ANSI.as_bytes()) {
        let letters: String = bytes.iter().map(|&byte| kernel::rtl::text::ansi_to_char(byte)).collect();
        return text_of(letters.as_bytes());
    }
    text_of(bytes)
}
