//! A record read back: its lines taken apart, its checksum and counts held against them.

use std::path::Path;

use explore::Choices;

use super::header::{FORMAT, Header, sha256};
use super::line::{End, EventMark, Line};
use crate::error::InputError;
use crate::files;

/// A run that was recorded.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its file's name, for messages.
    pub source: String,
    /// What the machine was made of.
    pub header: Header,
    /// Every answer that was not the default.
    pub choices: Choices,
    /// Every event.
    pub events: Vec<EventMark>,
    /// After each 1,000 events, the hash of all so far.
    pub states: Vec<u128>,
    /// How it ended.
    pub end: End,
}

impl Record {
    /// Reads a record's file.
    ///
    /// # Errors
    /// It cannot be read, or is no whole record of this version of the format; one message says what, where, and what to do.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let bytes = files::read(path, "the record")?;
        // What is no text has a wrong first line, or a wrong checksum.
        Self::parse(&path.display().to_string(), &String::from_utf8_lossy(&bytes))
    }

    /// Takes a record apart; `source` names it in messages.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn parse(source: &str, text: &str) -> Result<Self, InputError> {
        let wrong = |what: String| InputError::new(format!("{source}: {what}"));
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let header = header(first).map_err(&wrong)?;
        let Some(body) = whole(text) else {
            return Err(wrong(
                "is cut short: a record ends with a line `sha256 …`, and this run was stopped before that; record it again"
                    .to_owned(),
            ));
        };
        let (mut choices, mut events, mut states, mut end) =
            (Choices::default(), Vec::new(), Vec::new(), None);
        for (number, line) in (2..).zip(rest.lines()) {
            if end.is_some() {
                break; // the checksum
            }
            let at = |what: &str| {
                wrong(format!("line {number}: {what}; the file was changed, record the run again"))
            };
            match Line::parse(line) {
                Some(Line::Choice(choice)) => {
                    if !choices.insert(choice) {
                        return Err(at("this choice stands there twice"));
                    }
                }
                Some(Line::Event(event)) => events.push(event),
                Some(Line::State { hash, .. }) => states.push(hash),
                Some(Line::End(last)) => end = Some(last),
                None => return Err(at("this is no line of a record")),
            }
        }
        let Some(end) = end else {
            return Err(wrong("has no line `end …`; the file was changed, record the run again".to_owned()));
        };
        let changed = sha256(body.as_bytes()) != checksum(text);
        if changed || end.events != events.len() as u64 || end.choices != choices.len() as u64 {
            return Err(wrong(
                "was changed after it was written: its checksum does not fit; record the run again"
                    .to_owned(),
            ));
        }
        Ok(Self { source: source.to_owned(), header, choices, events, states, end })
    }
}

/// Everything above the checksum, if the checksum is there and the last line.
fn whole(text: &str) -> Option<&str> {
    let body = &text[..text.strip_suffix('\n')?.rfind('\n')? + 1];
    let last = text[body.len()..].strip_prefix("sha256 ")?;
    (last.len() == 65).then_some(body)
}

fn checksum(text: &str) -> &str {
    text.trim_end().rsplit(' ').next().unwrap_or_default()
}

/// The first line. What is wrong with it, if it is none of this version's.
fn header(line: &str) -> Result<Header, String> {
    let none = "is no record of dirql's: its first line is not `{\"dirql_record\":…}`; give a file that `dirql run --record` wrote";
    let value: serde_json::Value = serde_json::from_str(line).map_err(|_| none.to_owned())?;
    match value.get("dirql_record").and_then(serde_json::Value::as_u64) {
        None => return Err(none.to_owned()),
        Some(format) if format != u64::from(FORMAT) => {
            let by = value.get("dirql").and_then(serde_json::Value::as_str).unwrap_or("?");
            return Err(format!(
                "is a record in format {format}, by dirql {by}; this is dirql {}, which reads format {FORMAT}: replay it with the version that wrote it",
                env!("CARGO_PKG_VERSION")
            ));
        }
        Some(_) => {}
    }
    let header: Header = serde_json::from_value(value)
        .map_err(|error| format!("line 1: {error}; the file was changed, record the run again"))?;
    if let Some((what, theirs, ours)) = header.foreign() {
        return Err(format!(
            "was recorded with the {what} {theirs}; this is dirql {} with {ours}: replay it with the version that wrote it",
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(header)
}
