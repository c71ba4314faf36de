//! The form of an INF file: sections of entries, an entry being an optional key and a list of values.
//!
//! Follows *General Syntax Rules for INF Files*: case-insensitive names, sections of one name merged, quotes with `""`
//! inside, comments, `\` at a line's end. A quoted string that runs over several lines is refused, though the page
//! *INF Strings Section* hints at it.

use std::collections::BTreeMap;

use super::error::{Fault, Outcome, Spot, fault};
use super::reader::{Item, Line, read};
use super::strings::Strings;

#[derive(Clone, Debug)]
struct Body {
    /// The name as first written.
    name: String,
    /// Where its name is first written.
    at: usize,
    lines: Vec<Line>,
}

/// All sections of a file.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    text: String,
    /// Where each line begins.
    starts: Vec<usize>,
    /// In the order of the file.
    bodies: Vec<Body>,
    /// Places in `bodies`, by lower-case name.
    places: BTreeMap<String, usize>,
    strings: Strings,
    /// What is wrong with the form, in the order of the file.
    faults: Vec<Fault>,
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    /// The name as written.
    pub(super) name: &'a str,
    body: &'a Body,
    sections: &'a Sections,
}

/// One entry; what it hands out has its `%tokens%` replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    line: &'a Line,
    sections: &'a Sections,
}

impl Sections {
    /// The sections of a text that has the form of an INF file.
    pub(super) fn parse(text: String) -> Outcome<Self> {
        let sections = Self::read(text);
        match sections.faults.first() {
            Some(first) => Err(first.clone()),
            None => Ok(sections),
        }
    }

    /// The sections of any text, and what is wrong with its form.
    pub(super) fn read(text: String) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut sections = Self {
            text: String::new(),
            starts,
            bodies: Vec::new(),
            places: BTreeMap::new(),
            strings: Strings::default(),
            faults: Vec::new(),
        };
        let mut current = None;
        let mut wrong = Vec::new();
        for item in read(&text) {
            match item {
                Item::Section { at, name } => current = Some(sections.place(at, name)),
                Item::Entry(line) => match current {
                    Some(place) => sections.bodies[place].lines.push(line),
                    None => wrong.push((
                        line.at,
                        "this line stands before the first [section]; is this an INF file?".to_owned(),
                    )),
                },
                Item::Fault { at, message } => wrong.push((at, message)),
            }
        }
        sections.text = text;
        sections.faults =
            wrong.into_iter().map(|(at, message)| Fault { spot: Some(sections.spot(at)), message }).collect();
        match Strings::choose(&sections) {
            Ok(strings) => sections.strings = strings,
            Err(wrong) => sections.faults.push(wrong),
        }
        sections.name_by_strings();
        sections
    }

    /// Where the section of this name is in `bodies`.
    fn place(&mut self, at: usize, name: &str) -> usize {
        let next = self.bodies.len();
        let place = *self.places.entry(name.to_lowercase()).or_insert(next);
        if place == next {
            self.bodies.push(Body { name: name.to_owned(), at, lines: Vec::new() });
        }
        place
    }

    /// A section whose name has a `%token%` is found by the token's text, too.
    fn name_by_strings(&mut self) {
        for place in 0..self.bodies.len() {
            let name = &self.bodies[place].name;
            if name.contains('%')
                && let Ok(name) = self.strings.replace(name, Spot { line: 0, column: 0 })
            {
                self.places.entry(name.to_lowercase()).or_insert(place);
            }
        }
    }

    /// What is wrong with the form.
    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The place that is so many bytes into the text.
    fn spot(&self, at: usize) -> Spot {
        let line = self.starts.partition_point(|&start| start <= at).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at).unwrap_or_default();
        Spot { line, column: before.chars().count() + 1 }
    }

    /// The section of this name.
    pub(super) fn get(&self, name: &str) -> Option<Section<'_>> {
        let place = *self.places.get(&name.trim().to_lowercase())?;
        Some(self.at(place))
    }

    fn at(&self, place: usize) -> Section<'_> {
        let body = &self.bodies[place];
        Section { name: &body.name, body, sections: self }
    }

    /// The section of this name, which what stands at `spot` leads to.
    pub(super) fn led_to(&self, name: &str, spot: Spot) -> Outcome<Section<'_>> {
        match self.get(name) {
            Some(section) => Ok(section),
            None => {
                let hint = match self.nearest(name) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("add a section [{name}]"),
                };
                fault(
                    Some(spot),
                    format!("this leads to a section [{name}], which the file does not have; {hint}"),
                )
            }
        }
    }

    /// The section whose name is nearest to this one.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        // A model names its install section without the decoration.
        let names = self.bodies.iter().map(|body| body.name.as_str());
        let names = names.flat_map(|name| [name, name.split('.').next().unwrap_or(name)]);
        crate::script::suggest::nearest(name, names)
    }

    /// All sections, in the order of the file.
    pub(super) fn all(&self) -> impl Iterator<Item = Section<'_>> {
        (0..self.bodies.len()).map(|place| self.at(place))
    }

    /// What tokens stand for.
    pub(super) fn strings(&self) -> &Strings {
        &self.strings
    }
}

impl<'a> Section<'a> {
    /// Where its name is first written.
    pub(super) fn spot(self) -> Spot {
        self.sections.spot(self.body.at)
    }

    pub(super) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        self.body.lines.iter().map(move |line| Entry { line, sections: self.sections })
    }

    /// The first entry with this key.
    pub(super) fn entry(self, key: &str) -> Option<Entry<'a>> {
        self.entries().find(|entry| entry.is(key))
    }

    /// The first value of the first entry with this key.
    pub(super) fn value_of(self, key: &str) -> Option<String> {
        self.entry(key).and_then(|entry| entry.value(0).ok())
    }
}

impl<'a> Entry<'a> {
    /// Where it begins.
    pub(super) fn spot(self) -> Spot {
        self.sections.spot(self.line.at)
    }

    /// Where a value begins; of one that is left out, where the entry does.
    pub(super) fn spot_of(self, index: usize) -> Spot {
        self.sections.spot(self.line.values.get(index).map_or(self.line.at, |value| value.at))
    }

    /// Whether the key is this one, in any case.
    pub(super) fn is(self, key: &str) -> bool {
        self.raw_key().is_some_and(|own| own.eq_ignore_ascii_case(key))
    }

    /// The key as written, `%tokens%` and all.
    pub(super) fn raw_key(self) -> Option<&'a str> {
        self.line.key.as_ref().map(|key| key.text.as_str())
    }

    /// The key.
    pub(super) fn key(self) -> Outcome<Option<String>> {
        self.raw_key().map(|key| self.replaced(key)).transpose()
    }

    /// How many values there are.
    pub(super) fn len(self) -> usize {
        self.line.values.len()
    }

    /// A value; empty where it is left out.
    pub(super) fn value(self, index: usize) -> Outcome<String> {
        self.replaced(self.raw_value(index))
    }

    /// A value as written, `%tokens%` and all.
    pub(super) fn raw_value(self, index: usize) -> &'a str {
        self.line.values.get(index).map_or("", |value| value.text.as_str())
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
        if !text.contains('%') && text.len() < super::strings::MAX_LENGTH {
            return Ok(text.to_owned());
        }
        self.sections.strings.replace(text, self.spot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> (Option<String>, Vec<String>) {
        let sections = Sections::parse(format!("[S]\n{text}\n[Strings]\nName = \"a, b\"\nx=y;z\n")).unwrap();
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
        let sections = Sections::parse("[A]\nx=1\n[B]\ny=2\n[a]\nx=3\n".to_owned()).unwrap();
        assert_eq!(sections.get("A").unwrap().entries().count(), 2);
    }

    #[test]
    fn each_value_knows_its_line_and_column_also_behind_a_continuation() {
        let text = "[S]\n  é = one, \"two\",\\ ; more\n     three,\r\n[ T ] ; a comment\n";
        let sections = Sections::parse(text.to_owned()).unwrap();
        let entry = sections.get("S").unwrap().entries().next().unwrap();
        let spots = (0..4).map(|index| entry.spot_of(index).to_string()).collect::<Vec<_>>();
        assert_eq!(
            (entry.spot().to_string().as_str(), spots),
            ("2:3", ["2:7", "2:12", "3:6", "3:12"].map(String::from).to_vec())
        );
        assert_eq!(sections.get("t").unwrap().spot().to_string(), "4:1");
    }

    #[test]
    fn a_section_is_found_by_its_quoted_name_and_by_a_token() {
        let text =
            "[A]\nAddReg = \";; Std [Mfg\", %Name%\n[;; Std [Mfg]\n[%Name%]\n[Strings]\nName = Other\n";
        let sections = Sections::parse(text.to_owned()).unwrap();
        let entry = sections.get("A").unwrap().entries().next().unwrap();
        assert_eq!(entry.values().unwrap().iter().filter(|name| sections.get(name).is_some()).count(), 2);
    }

    #[test]
    fn what_breaks_the_form_is_told_with_its_place() {
        for (text, spot, says) in [
            ("a=b\n[S]", "1:1", "before the first [section]"),
            ("[S]\nk=a, \"abc\nx=1", "2:6", "quote is not closed"),
            ("\n [S", "2:2", "no `]`"),
            ("[S] x", "1:5", "text after [S]"),
            ("[ ]", "1:1", "no name"),
        ] {
            let error = Sections::parse(text.to_owned()).unwrap_err();
            assert_eq!(error.spot.unwrap().to_string(), spot, "{text}");
            assert!(error.message.contains(says), "{text}: {}", error.message);
        }
        assert_eq!(Sections::read("[S\n[S] x\n\"\n".to_owned()).faults().len(), 3, "all are found");
    }
}
