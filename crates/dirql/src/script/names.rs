//! The names a script gives: handles, threads and requests, so that a mistyped one is found before anything runs.

use std::collections::BTreeMap;

use super::ast::Position;
use super::error::{Outcome, fault, unknown};
use super::lexer::Word;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Handle { overlapped: bool },
    Thread,
    Request,
    Pointer,
    Memory,
    Port,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Handle { .. } => "handle",
            Self::Thread => "thread",
            Self::Request => "request",
            Self::Pointer => "pointer",
            Self::Memory => "memory",
            Self::Port => "port",
        }
    }
}

struct Entry {
    kind: Kind,
    given: Position,
    /// Where the handle was closed or the request joined.
    ended: Option<Position>,
}

/// All names given so far, in the order of the text.
#[derive(Default)]
pub(super) struct Names(BTreeMap<String, Entry>);

impl Names {
    /// Gives a name; one that has ended may be given again.
    pub(super) fn give(&mut self, name: &Word, kind: Kind) -> Outcome<String> {
        let text = checked(name)?;
        if let Some(old) = self.0.get(&*text).filter(|old| old.ended.is_none()) {
            let (noun, line) = (old.kind.noun(), old.given.line);
            return fault(
                name.at,
                format!("`{text}` is already the name of a {noun} (line {line}); take another name"),
            );
        }
        self.0.insert(text.clone(), Entry { kind, given: name.at, ended: None });
        Ok(text)
    }

    /// Names a thread, which exists from the first time it is named.
    pub(super) fn thread(&mut self, name: &Word) -> Outcome<String> {
        match name.plain().and_then(|text| self.0.get(text)) {
            Some(Entry { kind: Kind::Thread, .. }) => checked(name),
            _ => self.give(name, Kind::Thread),
        }
    }

    /// What a name stands for, if `wanted` admits it; `what` says in words what is wanted.
    pub(super) fn find(&self, name: &Word, what: &str, wanted: fn(Kind) -> bool) -> Outcome<(String, Kind)> {
        let text = name.text();
        let live = || {
            self.0.iter().filter(|(_, e)| e.ended.is_none() && wanted(e.kind)).map(|(name, _)| name.as_str())
        };
        match self.0.get(&*text) {
            Some(Entry { kind, ended: None, .. }) if wanted(*kind) => Ok((text.into_owned(), *kind)),
            Some(Entry { kind, ended: Some(end), .. }) if wanted(*kind) => {
                let how = match *kind {
                    Kind::Request => "was joined",
                    Kind::Memory => "was unmapped",
                    _ => "was closed",
                };
                fault(name.at, format!("the {} `{text}` {how} on line {} already", kind.noun(), end.line))
            }
            Some(Entry { kind, .. }) => {
                fault(name.at, format!("`{text}` is a {}; name a {what} here", kind.noun()))
            }
            None if live().next().is_none() => {
                fault(name.at, format!("there is no {what} `{text}`, nor any other yet"))
            }
            None => fault(name.at, unknown(what, &text, live().collect::<Vec<_>>())),
        }
    }

    /// A handle's name, and whether it is overlapped.
    pub(super) fn handle(&self, name: &Word) -> Outcome<(String, bool)> {
        let (text, kind) = self.find(name, "handle", |kind| matches!(kind, Kind::Handle { .. }))?;
        Ok((text, kind == Kind::Handle { overlapped: true }))
    }

    /// The name of a request, which may have been joined already.
    pub(super) fn request(&self, name: &Word) -> Outcome<String> {
        match self.0.get(&*name.text()) {
            Some(Entry { kind: Kind::Request, .. }) => Ok(name.text().into_owned()),
            _ => self.find(name, "request", |kind| kind == Kind::Request).map(|(text, _)| text),
        }
    }

    /// The handle is closed, the request joined.
    pub(super) fn end(&mut self, name: &str, at: Position) {
        if let Some(entry) = self.0.get_mut(name) {
            entry.ended = Some(at);
        }
    }

    /// The name was never given: its `open` is expected to fail.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// The word as a name: a letter, then letters, digits, `_` and `-`.
fn checked(name: &Word) -> Outcome<String> {
    let text = name.text();
    let mut letters = text.chars();
    let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    if starts && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Ok(text.into_owned());
    }
    fault(name.at, format!("`{text}` cannot be a name; take a letter, then letters, digits, `_` and `-`"))
}
