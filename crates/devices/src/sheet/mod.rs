//! Cards and boards that a text file describes: registers with bits and side effects, FIFOs, memories, timers, interrupt lines and messages,
//! bus mastering. The language is that of `docs/sheet.md`.
//!
//! [`card`] is a PCI card that a sheet makes whole (`--device pci,sheet=FILE`); behind a bridge, a sheet describes the board
//! (`--device pci9052,local=FILE`). It is for a user's own card: nothing here knows any.

pub(crate) mod card;
mod cursor;
mod description;
mod error;
mod expression;
mod names;
mod parse;
mod state;
mod token;

pub(crate) use description::Rest;
pub(crate) use parse::Ports;
pub(crate) use state::{At, State};

use crate::spec::{ReadFile, SpecError};

/// Bytes of a sheet at most.
const LARGEST: usize = 1 << 20;

/// A sheet that was read: what it says of the card, and how it behaves.
pub(crate) struct Sheet {
    /// Its `card` line and windows, as keys of `--device pci`.
    pub(crate) keys: Vec<(String, Option<String>)>,
    /// How many messages it needs.
    pub(crate) messages: u16,
    /// Whether it drives its first line.
    pub(crate) drives: bool,
    /// Its spaces' last used bytes.
    pub(crate) ends: [u64; 6],
    pub(crate) state: State,
}

/// The sheet in a file that the key `key` names.
pub(crate) fn read(
    model: &str,
    key: &str,
    path: &str,
    read_file: &ReadFile<'_>,
    ports: &Ports,
) -> Result<Sheet, SpecError> {
    let in_file = |why: String| SpecError::new(format!("device `{model}`: {key}={path}: {why}"));
    let bytes = read_file(path).map_err(in_file)?;
    if bytes.len() > LARGEST {
        return Err(in_file("it has more than 1 MiB; a sheet is a small text file".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| in_file("it is not text (UTF-8)".to_owned()))?;
    let sheet = parse::parse(&text, ports).map_err(|wrong| SpecError::new(wrong.located(path)))?;
    let mut ends = [0; 6];
    for area in &sheet.areas {
        let end = &mut ends[usize::from(area.space)];
        *end = area.offset.saturating_add(area.bytes).max(*end);
    }
    Ok(Sheet {
        keys: sheet.keys.clone(),
        messages: sheet.messages.iter().map(|(number, _)| number + 1).max().unwrap_or(0),
        drives: !sheet.lines.is_empty(),
        ends,
        state: State::new(sheet),
    })
}
