//! `%strkey%` tokens and the `[Strings]` section that gives them their text.
//!
//! Follows *INF Strings Section*; the machine's language is English (United States), so `[Strings.0409]` is preferred.
//! A token without a definition stays as it is, as in Windows (`%12%` is a directory, not a string).

use std::collections::BTreeMap;

use super::error::{Outcome, Spot, fault};
use super::sections::{Section, Sections};

/// The longest string after replacement, in characters, as Windows has it.
pub(super) const MAX_LENGTH: usize = 4095;

/// What a token stands for.
#[derive(Clone, Debug)]
struct Text {
    /// The token as it is defined.
    token: String,
    text: String,
}

/// The texts of tokens, by lower-case token.
#[derive(Clone, Default, Debug)]
pub(super) struct Strings(BTreeMap<String, Text>);

/// The language of a section `[Strings.LanguageID]`.
pub(super) fn language(section: &str) -> Option<u16> {
    let lower = section.to_lowercase();
    let id = lower.strip_prefix("strings.")?;
    u16::from_str_radix(id.strip_prefix("0x").unwrap_or(id), 16).ok()
}

impl Strings {
    /// Whether a token is defined.
    pub(super) fn has(&self, token: &str) -> bool {
        self.0.contains_key(&token.to_lowercase())
    }

    /// The tokens.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|text| text.token.as_str())
    }

    /// The one section that Windows would choose for English.
    pub(super) fn choose(sections: &Sections) -> Outcome<Self> {
        let english = |section: &Section<'_>| language(section.name).is_some_and(|id| id & 0x3ff == 0x09);
        let of = |id: u16| sections.all().find(|section| language(section.name) == Some(id));
        let chosen = of(0x0409).or_else(|| of(0x0009)).or_else(|| sections.all().find(english));
        let chosen = chosen.or_else(|| sections.get("Strings"));
        let mut texts = BTreeMap::new();
        for entry in chosen.into_iter().flat_map(Section::entries) {
            if let Some(key) = entry.raw_key() {
                let text = || Text { token: key.to_owned(), text: entry.raw_value(0).to_owned() };
                texts.entry(key.to_lowercase()).or_insert_with(text);
            }
        }
        Ok(Self(texts))
    }

    /// The text with tokens replaced and `%%` made `%`.
    pub(super) fn replace(&self, text: &str, spot: Spot) -> Outcome<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            out.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            let Some(end) = rest.find('%') else {
                out.push('%');
                break;
            };
            match self.0.get(&rest[..end].to_lowercase()) {
                _ if end == 0 => out.push('%'),
                Some(value) => out.push_str(&value.text),
                None => {
                    out.push('%');
                    out.push_str(&rest[..end]);
                    // The second `%` may begin a token of its own, if what came before it was none.
                    if rest[..end].contains([' ', '\\']) {
                        rest = &rest[end..];
                        continue;
                    }
                    out.push('%');
                }
            }
            rest = &rest[end + 1..];
            if out.len() > 4 * MAX_LENGTH {
                break;
            }
        }
        out.push_str(rest);
        if out.chars().count() > MAX_LENGTH {
            return fault(
                Some(spot),
                format!(
                    "a string is longer than {MAX_LENGTH} characters, which Windows does not take; shorten it"
                ),
            );
        }
        Ok(out)
    }
}
