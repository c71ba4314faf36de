//! `%strkey%` tokens and the `[Strings]` section that gives them their text.
//!
//! Follows *INF Strings Section*; the machine's language is English (United States), so `[Strings.0409]` is preferred.
//! A token without a definition stays as it is, as in Windows (`%12%` is a directory, not a string).

use std::collections::BTreeMap;

use super::error::{Outcome, fault};
use super::sections::Sections;

/// The longest string after replacement, in characters, as Windows has it.
const MAX_LENGTH: usize = 4095;

/// The texts of tokens, by lower-case key.
#[derive(Clone, Default, Debug)]
pub(super) struct Strings(BTreeMap<String, String>);

impl Strings {
    /// The one section that Windows would choose for English.
    pub(super) fn choose(sections: &Sections) -> Outcome<Self> {
        let english = |name: &&str| {
            let language = name.strip_prefix("strings.").and_then(|id| u16::from_str_radix(id, 16).ok());
            language.is_some_and(|language| language & 0x3ff == 0x09)
        };
        let chosen = sections
            .get("Strings.0409")
            .or_else(|| sections.get("Strings.0009"))
            .or_else(|| sections.names().find(english).and_then(|name| sections.get(name)))
            .or_else(|| sections.get("Strings"));
        let mut texts = BTreeMap::new();
        for entry in chosen.into_iter().flat_map(super::sections::Section::entries) {
            // Still without strings of its own, so that values come as they are written.
            if let Some(key) = entry.raw_key() {
                texts.entry(key.to_lowercase()).or_insert(entry.value(0)?);
            }
        }
        Ok(Self(texts))
    }

    /// The text with tokens replaced and `%%` made `%`.
    pub(super) fn replace(&self, text: &str, line: usize) -> Outcome<String> {
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
                Some(value) => out.push_str(value),
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
                Some(line),
                format!(
                    "a string is longer than {MAX_LENGTH} characters, which Windows does not take; shorten it"
                ),
            );
        }
        Ok(out)
    }
}
