//! The form of an INF file: sections of entries, an entry being an optional key and a list of values.
//!
//! Follows *General Syntax Rules for INF Files*: case-insensitive names, sections of one name merged, quotes with `""`
//! inside, comments, `\` at a line's end. A quoted string that runs over several lines is refused, though the page
//! *INF Strings Section* hints at it.

use std::collections::BTreeMap;

use super::error::{Outcome, fault};
use super::strings::Strings;

/// A line of a section: `key = value, value` or `value, value`. Quotes are gone, `%tokens%` still stand.
#[derive(Clone, Debug)]
struct Line {
    number: usize,
    key: Option<String>,
    values: Vec<String>,
}

#[derive(Clone, Debug)]
struct Body {
    /// The name as first written.
    name: String,
    line: usize,
    lines: Vec<Line>,
}

/// All sections of a file.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    /// By lower-case name.
    bodies: BTreeMap<String, Body>,
    strings: Strings,
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    /// The name as written.
    pub(super) name: &'a str,
    /// Where it begins.
    pub(super) line: usize,
    lines: &'a [Line],
    strings: &'a Strings,
}

/// One entry; what it hands out has its `%tokens%` replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    line: &'a Line,
    strings: &'a Strings,
}

impl Sections {
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        let mut bodies: BTreeMap<String, Body> = BTreeMap::new();
        let mut current: Option<String> = None;
        for (number, line) in logical_lines(text) {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix('[') {
                let name = header(number, rest)?;
                let key = name.to_lowercase();
                bodies.entry(key.clone()).or_insert_with(|| Body {
                    name: name.to_owned(),
                    line: number,
                    lines: Vec::new(),
                });
                current = Some(key);
                continue;
            }
            let Some(entry) = entry(number, line)? else { continue };
            match current.as_ref().and_then(|key| bodies.get_mut(key)) {
                Some(body) => body.lines.push(entry),
                None => {
                    return fault(
                        Some(number),
                        "this line stands before the first [section]; is this an INF file?".to_owned(),
                    );
                }
            }
        }
        let mut sections = Self { bodies, strings: Strings::default() };
        sections.strings = Strings::choose(&sections)?;
        Ok(sections)
    }

    /// The section of this name.
    pub(super) fn get(&self, name: &str) -> Option<Section<'_>> {
        let body = self.bodies.get(&name.to_lowercase())?;
        Some(Section { name: &body.name, line: body.line, lines: &body.lines, strings: &self.strings })
    }

    /// The section of this name, which the entry at `line` leads to.
    pub(super) fn led_to(&self, name: &str, line: usize) -> Outcome<Section<'_>> {
        match self.get(name) {
            Some(section) => Ok(section),
            None => {
                // A model names its install section without the decoration.
                let names = self.bodies.values().map(|body| body.name.as_str());
                let names = names.flat_map(|name| [name, name.split('.').next().unwrap_or(name)]);
                let hint = match crate::script::suggest::nearest(name, names) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("add a section [{name}]"),
                };
                fault(
                    Some(line),
                    format!("this leads to a section [{name}], which the file does not have; {hint}"),
                )
            }
        }
    }

    /// Names of all sections, lower case.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.bodies.keys().map(String::as_str)
    }
}

impl<'a> Section<'a> {
    pub(super) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        self.lines.iter().map(move |line| Entry { line, strings: self.strings })
    }

    /// The first value of the first entry with this key.
    pub(super) fn value_of(self, key: &str) -> Option<String> {
        self.entries().find(|entry| entry.is(key)).and_then(|entry| entry.value(0).ok())
    }
}

impl<'a> Entry<'a> {
    pub(super) fn line(self) -> usize {
        self.line.number
    }

    /// Whether the key is this one, in any case.
    pub(super) fn is(self, key: &str) -> bool {
        self.line.key.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(key))
    }

    /// The key as written, `%tokens%` and all.
    pub(super) fn raw_key(self) -> Option<&'a str> {
        self.line.key.as_deref()
    }

    /// The key.
    pub(super) fn key(self) -> Outcome<Option<String>> {
        self.line.key.as_ref().map(|key| self.replaced(key)).transpose()
    }

    /// How many values there are.
    pub(super) fn len(self) -> usize {
        self.line.values.len()
    }

    /// A value; empty where it is left out.
    pub(super) fn value(self, index: usize) -> Outcome<String> {
        self.line.values.get(index).map_or(Ok(String::new()), |value| self.replaced(value))
    }

    /// The values from one on.
    pub(super) fn values_from(self, first: usize) -> Outcome<Vec<String>> {
        (first..self.len()).map(|index| self.value(index)).collect()
    }

    /// The values that are not empty.
    pub(super) fn values(self) -> Outcome<Vec<String>> {
        let mut values = self.values_from(0)?;
        values.retain(|value| !value.is_empty());
        Ok(values)
    }

    fn replaced(self, text: &str) -> Outcome<String> {
        self.strings.replace(text, self.line.number)
    }
}

/// Lines with comments cut off and continued ones joined, each with the number of its first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = without_comment(line).trim_end();
        let (number, mut joined) = pending.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(start) if !quote_is_open(line) => {
                joined.push_str(start.trim_end_matches('\\'));
                pending = Some((number, joined));
            }
            _ => {
                joined.push_str(line);
                lines.push((number, joined));
            }
        }
    }
    lines.extend(pending);
    lines
}

/// The line up to a `;` that stands neither in quotes nor in a `%token%`.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut skip_to = 0;
    for (at, c) in line.char_indices() {
        match c {
            _ if at < skip_to => {}
            '"' => quoted = !quoted,
            '%' if !quoted => skip_to = at + token(&line[at..]).map_or(1, str::len),
            ';' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The `%token%` at the start of `text`, or its `%%`; a token holds neither quotes nor commas.
fn token(text: &str) -> Option<&str> {
    let end = text[1..].find(['%', '"', ',', '='])? + 1;
    text[end..].starts_with('%').then(|| &text[..=end])
}

fn quote_is_open(line: &str) -> bool {
    line.matches('"').count() % 2 == 1
}

fn header(number: usize, rest: &str) -> Outcome<&str> {
    match rest.split_once(']') {
        Some((name, after)) if after.trim().is_empty() && !name.trim().is_empty() => Ok(name.trim()),
        Some((name, _)) if name.trim().is_empty() => {
            fault(Some(number), "this section has no name; write [Name]".to_owned())
        }
        Some((name, _)) => {
            fault(Some(number), format!("there is text after [{name}]; put it on a line of its own"))
        }
        None => fault(Some(number), "this section's `[` has no `]`; write [Name]".to_owned()),
    }
}

/// One field as it is collected: white space around it goes, but for what was quoted.
#[derive(Default)]
struct Field {
    text: String,
    /// Length up to which trailing white space was quoted.
    keep: usize,
    quoted: bool,
}

impl Field {
    fn push(&mut self, c: char) {
        if !(c.is_whitespace() && self.text.is_empty() && !self.quoted) {
            self.text.push(c);
        }
    }

    fn finish(self) -> String {
        let end = self.text.trim_end().len().max(self.keep);
        self.text[..end].to_owned()
    }
}

fn entry(number: usize, line: &str) -> Outcome<Option<Line>> {
    if line.is_empty() {
        return Ok(None);
    }
    let mut key = None;
    let mut values = Vec::new();
    let mut field = Field::default();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '"' => length = quoted(number, rest, &mut field)?,
            '%' => {
                let whole = token(rest).unwrap_or("%");
                whole.chars().for_each(|c| field.push(c));
                length = whole.len();
            }
            '=' if key.is_none() && values.is_empty() => key = Some(std::mem::take(&mut field).finish()),
            ',' => values.push(std::mem::take(&mut field).finish()),
            _ => field.push(c),
        }
        rest = &rest[length..];
    }
    values.push(field.finish());
    Ok(Some(Line { number, key, values }))
}

/// Takes a quoted string into the field; returns how much of `rest` it was.
fn quoted(number: usize, rest: &str, field: &mut Field) -> Outcome<usize> {
    let mut at = 1;
    field.quoted = true;
    while let Some(length) = rest[at..].find('"') {
        field.text.push_str(&rest[at..at + length]);
        at += length + 1;
        if !rest[at..].starts_with('"') {
            field.keep = field.text.len();
            return Ok(at);
        }
        field.text.push('"');
        at += 1;
    }
    fault(Some(number), "a quote is not closed on this line; put a `\"` where the string ends".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> (Option<String>, Vec<String>) {
        let sections = Sections::parse(&format!("[S]\n{text}\n[Strings]\nName = \"a, b\"\nx=y;z\n")).unwrap();
        let entry = sections.get("s").unwrap().entries().next().unwrap();
        (entry.key().unwrap(), entry.values_from(0).unwrap())
    }

    fn values(text: &str) -> Vec<String> {
        only(text).1
    }

    #[test]
    fn keys_values_quotes_and_comments_come_apart() {
        assert_eq!(
            only("Key = a , \" b;c \" , ; comment"),
            (Some("Key".into()), vec!["a".into(), " b;c ".into(), String::new()])
        );
        assert_eq!(
            only("HKR,,Name,,x=y"),
            (None, vec!["HKR".into(), String::new(), "Name".into(), String::new(), "x=y".into()])
        );
        assert_eq!(values("k=\"say \"\"hi\"\"\""), ["say \"hi\""]);
    }

    #[test]
    fn tokens_are_replaced_also_in_quotes_and_unknown_ones_stay() {
        assert_eq!(values("k=%Name%,\"<%name%>\""), ["a, b", "<a, b>"]);
        assert_eq!(values("k=%12%\\x.sys"), ["%12%\\x.sys"]);
        assert_eq!(values("k=\"%%SystemRoot%%\\x\",50%"), ["%SystemRoot%\\x", "50%"]);
    }

    #[test]
    fn a_backslash_continues_a_line_but_not_in_quotes() {
        assert_eq!(values("k=a,\\ ; more\n  b"), ["a", "b"]);
        assert_eq!(values("k=\"dir\\\"\\\n,file"), ["dir\\", "file"]);
        assert_eq!(values("k=dir\\\\\n,file"), ["dir", "file"]);
    }

    #[test]
    fn sections_of_one_name_are_one_section() {
        let sections = Sections::parse("[A]\nx=1\n[B]\ny=2\n[a]\nx=3\n").unwrap();
        assert_eq!(sections.get("A").unwrap().entries().count(), 2);
    }

    #[test]
    fn what_breaks_the_form_is_told_with_its_line() {
        for (text, line, says) in [
            ("a=b\n[S]", 1, "before the first [section]"),
            ("[S]\nk=\"abc\nx=1", 2, "quote is not closed"),
            ("\n[S", 2, "no `]`"),
            ("[S] x", 1, "text after [S]"),
            ("[ ]", 1, "no name"),
        ] {
            let error = Sections::parse(text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text}");
            assert!(error.message.contains(says), "{text}: {}", error.message);
        }
    }
}
