//! The text of a registry file, line by line, to what it asks for.
//!
//! Page: *How to add, modify, or delete registry subkeys and values by using a .reg file*. The first mistake is reported, with what was found there.

use super::paths::{is_systems, resolve};
use super::{Action, VERSIONS, What};
use crate::inf::{Outcome, Spot, fault};
use crate::script::suggest::nearest;

/// The most characters of a value's name.
const LONGEST: usize = 16_383;

/// All that a file asks for, in its order.
pub(super) fn read(text: &str) -> Outcome<Vec<Action>> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { text, starts, at: 0, ansi: false, key: Key::None, actions: Vec::new() };
    reader.version()?;
    while reader.at < text.len() {
        reader.line()?;
    }
    Ok(reader.actions)
}

/// Where a key's name ends: the `]` behind which there is nothing but a comment, since a name may have others.
pub(super) fn closing(line: &str) -> Option<usize> {
    let is_last = |at: &usize| matches!(line[at + 1..].trim_start().chars().next(), None | Some(';'));
    line.match_indices(']').map(|(at, _)| at).find(is_last)
}

/// Which key values are for.
enum Key {
    None,
    Deleted,
    Is(String),
}

/// A text, and how far it is read.
pub(super) struct Reader<'t> {
    text: &'t str,
    /// Where each line begins, in bytes.
    starts: Vec<usize>,
    /// How far it is read, in bytes.
    pub(super) at: usize,
    /// Texts that are given as bytes are in the ANSI code page.
    pub(super) ansi: bool,
    key: Key,
    actions: Vec<Action>,
}

impl<'t> Reader<'t> {
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub(super) fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// What is left of the line.
    pub(super) fn rest_of_line(&self) -> &'t str {
        let rest = self.rest();
        rest[..rest.find('\n').unwrap_or(rest.len())].trim_end()
    }

    pub(super) fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
    }

    pub(super) fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += rest.find('\n').map_or(rest.len(), |end| end + 1);
    }

    fn spot(&self, at: usize) -> Spot {
        let line = self.starts.partition_point(|start| *start <= at);
        Spot { line, column: self.text[self.starts[line - 1]..at].chars().count() + 1 }
    }

    pub(super) fn fault<T>(&self, at: usize, message: impl Into<String>) -> Outcome<T> {
        fault(Some(self.spot(at)), message.into())
    }

    /// What stands here, for messages.
    pub(super) fn found(&self) -> String {
        match self.rest_of_line() {
            "" => "the line ends here".to_owned(),
            line if line.chars().count() > 40 => {
                format!("`{}…` stands here", line.chars().take(40).collect::<String>())
            }
            line => format!("`{line}` stands here"),
        }
    }

    fn version(&mut self) -> Outcome<()> {
        let line = self.rest_of_line();
        let Some((_, ansi)) = VERSIONS.iter().find(|(version, _)| *version == line) else {
            let [(five, _), (four, _)] = VERSIONS;
            let near = nearest(line, [five, four])
                .map_or("is this a registry file?".to_owned(), |near| format!("did you mean `{near}`?"));
            return self.fault(0, format!("the first line is neither `{five}` nor `{four}`; {near}"));
        };
        self.ansi = *ansi;
        self.skip_line();
        Ok(())
    }

    fn line(&mut self) -> Outcome<()> {
        self.skip_blanks();
        match self.next() {
            None | Some('\n' | ';') => {
                self.skip_line();
                Ok(())
            }
            Some('[') => self.key(),
            Some('"' | '@') => self.value(),
            Some(_) => {
                let hint =
                    if self.rest_of_line().contains('=') { "; a value's name stands in quotes" } else { "" };
                let found = self.found();
                self.fault(
                    self.at,
                    format!("{found}, which is no [key], no \"name\"=value and no comment (;){hint}"),
                )
            }
        }
    }

    /// `[KEY]` or `[-KEY]`.
    fn key(&mut self) -> Outcome<()> {
        let (at, line) = (self.at, self.rest_of_line());
        let Some(end) = closing(line) else {
            return self.fault(
                at,
                r"this key's `[` has no `]` at the end of the line; write [HKEY_LOCAL_MACHINE\…]",
            );
        };
        let deletes = line[1..].starts_with('-');
        let begin = 1 + usize::from(deletes);
        let path = match resolve(&line[begin..end]) {
            Ok(path) => path,
            Err((into, message)) => return self.fault(at + begin + into, message),
        };
        if deletes && is_systems(&path) {
            return self.fault(at, "this key is the system's own and cannot be deleted; name one below it");
        }
        let (key, what) =
            if deletes { (Key::Deleted, What::Delete) } else { (Key::Is(path.clone()), What::Make) };
        self.key = key;
        self.actions.push(Action { spot: self.spot(at), key: path, what });
        self.skip_line();
        Ok(())
    }

    /// `"name"=data` or `@=data`.
    fn value(&mut self) -> Outcome<()> {
        let at = self.at;
        let name = self.name()?;
        self.skip_blanks();
        if self.next() != Some('=') {
            let found = self.found();
            return self.fault(self.at, format!("{found}, where a `=` belongs, behind the value's name"));
        }
        self.at += 1;
        self.skip_blanks();
        let key = match &self.key {
            Key::Is(key) => key.clone(),
            Key::None => {
                return self.fault(at, "this value stands before the first [key]; write its key above it");
            }
            Key::Deleted => {
                return self.fault(
                    at,
                    "this value stands under a key that is deleted; write [key] above it, without the `-`",
                );
            }
        };
        let (begin, what) = (self.at, self.data(name)?);
        let end = self.at;
        self.skip_blanks();
        if !matches!(self.next(), None | Some('\n' | ';')) {
            if self.text[begin..end].contains('\n') && self.text[begin..].starts_with('"') {
                return self.fault(
                    begin,
                    "this string does not end on its line, nor with one below; put a `\"` where it ends",
                );
            }
            let found = self.found();
            return self
                .fault(self.at, format!("{found}, behind the value's data; put it on a line of its own"));
        }
        self.skip_line();
        self.actions.push(Action { spot: self.spot(at), key, what });
        Ok(())
    }

    fn name(&mut self) -> Outcome<String> {
        let at = self.at;
        if self.next() == Some('@') {
            self.at += 1;
            return Ok(String::new());
        }
        let name = self.string()?;
        let length = name.encode_utf16().count();
        if name.contains('\n') {
            return self
                .fault(at, "the name that begins here does not end on its line; put a `\"` where it ends");
        }
        if length > LONGEST {
            return self
                .fault(at, format!("this value's name has {length} characters; one has at most {LONGEST}"));
        }
        Ok(name)
    }
}
