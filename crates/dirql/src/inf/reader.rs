//! The text of an INF file as a row of section names and entries, each with its place.
//!
//! Follows *General Syntax Rules for INF Files*, the part on lines, continuations, comments and quotes. It knows no tokens but where
//! they end, and goes on behind what is wrong, so that one reading tells all of it.

/// A key or a value, as written, without its quotes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Where it begins, in bytes.
    pub(super) at: usize,
    pub(super) text: String,
}

/// An entry: `key = value, value` or `value, value`.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Where it begins, in bytes.
    pub(super) at: usize,
    pub(super) key: Option<Piece>,
    pub(super) values: Vec<Piece>,
}

/// What stands in a file.
pub(super) enum Item<'t> {
    /// `[name]`.
    Section {
        at: usize,
        name: &'t str,
    },
    Entry(Line),
    /// Something that breaks the form.
    Fault {
        at: usize,
        message: String,
    },
}

/// All that stands in the text, in its order.
pub(super) fn read(text: &str) -> Vec<Item<'_>> {
    let mut reader = Reader { text, at: 0, items: Vec::new() };
    while reader.at < text.len() {
        reader.line();
    }
    reader.items
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    items: Vec<Item<'t>>,
}

/// One field as it is collected: white space around it goes, but for what was quoted.
struct Field {
    at: usize,
    text: String,
    /// Length up to which trailing white space was quoted.
    keep: usize,
    quoted: bool,
}

impl Field {
    fn new(at: usize) -> Self {
        Self { at, text: String::new(), keep: 0, quoted: false }
    }

    /// Adds what stands unquoted at `at`.
    fn push(&mut self, at: usize, text: &str) {
        if self.text.is_empty() && !self.quoted {
            let rest = text.trim_start();
            if !rest.is_empty() {
                self.at = at + text.len() - rest.len();
            }
            self.text.push_str(rest);
        } else {
            self.text.push_str(text);
        }
    }

    fn finish(mut self) -> Piece {
        let end = self.text.trim_end().len().max(self.keep);
        self.text.truncate(end);
        Piece { at: self.at, text: self.text }
    }
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.items.push(Item::Fault { at, message: message.into() });
    }

    /// How far the line goes from here, without its end.
    fn length_of_line(&self) -> usize {
        self.rest().find('\n').unwrap_or(self.rest().len())
    }

    /// Goes to the next line.
    fn skip_line(&mut self) {
        self.at = (self.at + self.length_of_line() + 1).min(self.text.len());
    }

    /// Reads a line, with those that continue it.
    fn line(&mut self) {
        let line = &self.rest()[..self.length_of_line()];
        self.at += line.len() - line.trim_start().len();
        match line.trim_start().chars().next() {
            None | Some(';') => self.skip_line(),
            Some('[') => self.header(line.trim_start()),
            Some(_) => self.entry(),
        }
    }

    fn header(&mut self, line: &'t str) {
        let at = self.at;
        match line[1..].split_once(']') {
            None => self.fault(at, "this section's `[` has no `]`; write [Name]"),
            Some((name, _)) if name.trim().is_empty() => {
                self.fault(at, "this section has no name; write [Name]")
            }
            Some((name, after)) => {
                self.items.push(Item::Section { at, name: name.trim() });
                let after = after.trim_start();
                if !after.is_empty() && !after.starts_with(';') {
                    let name = name.trim();
                    self.fault(
                        at + line.len() - after.len(),
                        format!("there is text after [{name}]; put it on a line of its own"),
                    );
                }
            }
        }
        self.skip_line();
    }

    fn entry(&mut self) {
        let at = self.at;
        let mut key = None;
        let mut values = Vec::new();
        let mut field = Field::new(at);
        loop {
            let rest = self.rest();
            let plain = rest.find(['"', '%', '=', ',', ';', '\\', '\n']).unwrap_or(rest.len());
            field.push(self.at, &rest[..plain]);
            self.at += plain;
            let here = self.at;
            match self.text.as_bytes().get(here) {
                None | Some(b'\n' | b';') => break,
                Some(b'"') => self.quoted(&mut field),
                Some(b'%') => {
                    let whole = token(self.rest()).unwrap_or("%");
                    field.push(here, whole);
                    self.at += whole.len();
                }
                Some(b'=') if key.is_none() && values.is_empty() => {
                    self.at += 1;
                    key = Some(std::mem::replace(&mut field, Field::new(self.at)).finish());
                }
                Some(b',') => {
                    self.at += 1;
                    values.push(std::mem::replace(&mut field, Field::new(self.at)).finish());
                }
                Some(b'\\') => match continued(self.rest()) {
                    Some(length) => self.at += length,
                    None => {
                        field.push(here, "\\");
                        self.at += 1;
                    }
                },
                Some(_) => {
                    field.push(here, &self.text[here..=here]);
                    self.at += 1;
                }
            }
        }
        values.push(field.finish());
        self.items.push(Item::Entry(Line { at, key, values }));
        self.skip_line();
    }

    /// Takes a quoted string into the field.
    fn quoted(&mut self, field: &mut Field) {
        let line = &self.rest()[..self.length_of_line()];
        if field.text.is_empty() && !field.quoted {
            field.at = self.at;
        }
        field.quoted = true;
        let mut at = 1;
        while let Some(length) = line[at..].find('"') {
            field.text.push_str(&line[at..at + length]);
            at += length + 1;
            if !line[at..].starts_with('"') {
                field.keep = field.text.len();
                self.at += at;
                return;
            }
            field.text.push('"');
            at += 1;
        }
        field.text.push_str(&line[at..]);
        let start = self.at;
        self.at += line.len();
        self.fault(start, "a quote is not closed on this line; put a `\"` where the string ends");
    }
}

/// The `%token%` at the start of `text`, or its `%%`; a token holds neither quotes nor commas.
fn token(text: &str) -> Option<&str> {
    let end = text[1..].find(['%', '"', ',', '=', '\n'])? + 1;
    text[end..].starts_with('%').then(|| &text[..=end])
}

/// If the backslashes at the start of `text` are the last of their line: how far the next line is. Of several the last one continues the
/// line, and the others are passed over.
fn continued(text: &str) -> Option<usize> {
    let line = &text[..text.find('\n').unwrap_or(text.len())];
    let after = line.trim_start_matches('\\').trim_start();
    (after.is_empty() || after.starts_with(';')).then(|| (line.len() + 1).min(text.len()))
}
