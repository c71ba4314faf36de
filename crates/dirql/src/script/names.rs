//! The names a script gives: handles, threads and requests, so that a mistyped one is found before anything runs; and what of it another
//! process has.

use std::collections::BTreeMap;

use super::ast::{Name, Position};
use super::error::{Outcome, fault, unknown};
use super::lexer::Word;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Handle {
        overlapped: bool,
    },
    Thread,
    Request,
    Pointer,
    /// What a driver has answered.
    Number,
    Memory,
    Port,
    /// A handle of a process.
    OpenProcess,
    /// A handle of a key of the registry.
    Key,
}

impl Kind {
    /// Whether it has a number that applications know it by.
    pub(super) fn is_handle(self) -> bool {
        matches!(self, Self::Handle { .. } | Self::OpenProcess | Self::Key)
    }

    /// What can be loaded from and stored to: also what is unmapped by then.
    pub(super) fn is_pointer(self) -> bool {
        matches!(self, Self::Pointer | Self::Memory)
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Handle { .. } => "handle",
            Self::Thread => "thread",
            Self::Request => "request",
            Self::Pointer => "pointer",
            Self::Number => "number",
            Self::Memory => "memory",
            Self::Port => "port",
            Self::OpenProcess => "process' handle",
            Self::Key => "key",
        }
    }
}

struct Entry {
    kind: Kind,
    /// The process that has it; `None`: the first one.
    process: Option<Name>,
    /// A thread that is the first of a process of this name.
    is_process: bool,
    given: Position,
    /// Where the handle was closed or the request joined.
    ended: Option<Position>,
}

/// All names given so far, in the order of the text.
#[derive(Default)]
pub(super) struct Names {
    all: BTreeMap<Name, Entry>,
    /// The process whose thread carries the command out; `None`: the first one.
    within: Option<Name>,
    /// What has ended can still be named (`tolerate`).
    tolerant: bool,
}

impl Names {
    /// From now on what has ended can still be named.
    pub(super) fn tolerate(&mut self) {
        self.tolerant = true;
    }

    /// Gives a name; one that has ended may be given again, and that of a number to another number.
    pub(super) fn give(&mut self, name: &Word, kind: Kind) -> Outcome<Name> {
        let text = checked(name)?;
        let is_another = |old: &&Entry| kind == Kind::Number && old.kind == Kind::Number;
        if let Some(old) = self.all.get(&*text).filter(|old| old.ended.is_none() && !is_another(old)) {
            let (noun, line) = (old.kind.noun(), old.given.line);
            return fault(
                name.at,
                format!("`{text}` is already the name of a {noun} (line {line}); take another name"),
            );
        }
        let process = self.within.clone();
        self.all
            .insert(text.clone(), Entry { kind, process, is_process: false, given: name.at, ended: None });
        Ok(text)
    }

    /// Names a thread, which exists from the first time it is named.
    pub(super) fn thread(&mut self, name: &Word) -> Outcome<Name> {
        match name.plain().and_then(|text| self.all.get_key_value(text)) {
            Some((_, Entry { kind: Kind::Thread, ended: Some(end), .. })) => {
                fault(name.at, format!("the process `{}` has exited on line {}", name.text(), end.line))
            }
            Some((known, Entry { kind: Kind::Thread, .. })) => Ok(known.clone()),
            _ => self.give(name, Kind::Thread),
        }
    }

    /// Names a process, and its first thread.
    pub(super) fn give_process(&mut self, name: &Word) -> Outcome<Name> {
        let text = self.give(name, Kind::Thread)?;
        if let Some(entry) = self.all.get_mut(&text) {
            entry.is_process = true;
        }
        Ok(text)
    }

    /// A process that has not exited.
    pub(super) fn process(&self, name: &Word) -> Outcome<Name> {
        let text = self.find(name, "process", |kind| kind == Kind::Thread)?.0;
        if self.is_process(&text) {
            return Ok(text);
        }
        fault(name.at, format!("`{text}` is a thread; name a process here"))
    }

    fn is_process(&self, name: &str) -> bool {
        self.all.get(name).is_some_and(|entry| entry.is_process)
    }

    /// The next command is carried out by this thread.
    pub(super) fn enter(&mut self, thread: Option<&Name>) {
        self.within = thread.filter(|thread| self.is_process(thread)).cloned();
    }

    /// Whether the command is carried out by a thread of the first process.
    pub(super) fn within_first(&self) -> bool {
        self.within.is_none()
    }

    /// Whether its name is free again, for the process that carries the command out: what that has inherited it closes itself.
    fn has_ended(&self, entry: &Entry) -> Option<Position> {
        entry.ended.filter(|_| entry.kind == Kind::Thread || entry.process == self.within)
    }

    /// A thread, whose process everyone can name; else what the process has that carries the command out, or has inherited.
    fn is_reachable(&self, entry: &Entry) -> bool {
        let inherits = entry.kind.is_handle() && entry.process.is_none();
        entry.kind == Kind::Thread || entry.process == self.within || inherits
    }

    /// What a name stands for, if `wanted` admits it; `what` says in words what is wanted.
    pub(super) fn find(&self, name: &Word, what: &str, wanted: fn(Kind) -> bool) -> Outcome<(Name, Kind)> {
        let text = name.text();
        let live = || {
            let found = |e: &Entry| self.has_ended(e).is_none() && wanted(e.kind) && self.is_reachable(e);
            self.all.iter().filter(move |(_, e)| found(e)).map(|(name, _)| &**name)
        };
        match self.all.get_key_value(&*text) {
            Some((_, entry)) if wanted(entry.kind) && !self.is_reachable(entry) => {
                let whose = |process: &Option<Name>| match process {
                    Some(process) => format!("process `{process}`"),
                    None => "the first process".to_owned(),
                };
                let (noun, owner) = (entry.kind.noun(), whose(&entry.process));
                fault(
                    name.at,
                    format!("the {noun} `{text}` is of {owner}, which {} has not", whose(&self.within)),
                )
            }
            Some((known, entry)) if wanted(entry.kind) => {
                let kind = &entry.kind;
                let Some(end) = self.has_ended(entry).filter(|_| !self.tolerant) else {
                    return Ok((known.clone(), *kind));
                };
                let how = match *kind {
                    Kind::Request => "was joined",
                    Kind::Memory => "was unmapped",
                    Kind::Thread => "has exited",
                    _ => "was closed",
                };
                fault(name.at, format!("the {} `{text}` {how} on line {} already", kind.noun(), end.line))
            }
            Some((_, Entry { kind, .. })) => {
                fault(name.at, format!("`{text}` is a {}; name a {what} here", kind.noun()))
            }
            None if live().next().is_none() => {
                fault(name.at, format!("there is no {what} `{text}`, nor any other yet"))
            }
            None => fault(name.at, unknown(what, &text, live().collect::<Vec<_>>())),
        }
    }

    /// A handle's name, and whether it is overlapped.
    pub(super) fn handle(&self, name: &Word) -> Outcome<(Name, bool)> {
        let (text, kind) = self.find(name, "handle", |kind| matches!(kind, Kind::Handle { .. }))?;
        Ok((text, kind == Kind::Handle { overlapped: true }))
    }

    /// The name of a request, which may have been joined already.
    pub(super) fn request(&self, name: &Word) -> Outcome<Name> {
        match self.all.get_key_value(&*name.text()) {
            Some((known, Entry { kind: Kind::Request, .. })) => Ok(known.clone()),
            _ => self.find(name, "request", |kind| kind == Kind::Request).map(|(text, _)| text),
        }
    }

    /// The handle is closed, the request joined, the process has exited. A process that has inherited a handle closes its own only.
    pub(super) fn end(&mut self, name: &str, at: Position) {
        let within = &self.within;
        let own = |entry: &&mut Entry| entry.is_process || entry.process == *within;
        if let Some(entry) = self.all.get_mut(name).filter(own) {
            entry.ended = Some(at);
        }
    }

    /// The name was never given: its `open` is expected to fail.
    pub(super) fn forget(&mut self, name: &str) {
        self.all.remove(name);
    }
}

/// The word as a name: a letter, then letters, digits, `_` and `-`.
pub(super) fn checked(name: &Word) -> Outcome<Name> {
    let text = name.text();
    let mut letters = text.chars();
    let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    if starts && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Ok(Name::from(&*text));
    }
    fault(name.at, format!("`{text}` cannot be a name; take a letter, then letters, digits, `_` and `-`"))
}
