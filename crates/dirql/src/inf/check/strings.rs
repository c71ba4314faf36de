//! `%tokens%`: those that are not defined, and those that one language lacks.
//!
//! Follows *INF Strings Section* and *Using Dirids*.

use std::collections::BTreeSet;

use super::Walk;
use crate::inf::error::Spot;
use crate::inf::folders;
use crate::inf::sections::Section;
use crate::inf::strings::{MAX_LENGTH, language};
use crate::script::suggest::nearest;

impl Walk<'_> {
    pub(super) fn strings(&mut self) {
        for section in self.sections.all() {
            if is_strings(section) {
                continue;
            }
            for entry in section.entries() {
                self.tokens(entry.raw_key().unwrap_or_default(), entry.spot());
                for index in 0..entry.len() {
                    self.tokens(entry.raw_value(index), entry.spot_of(index));
                }
            }
        }
        self.languages();
    }

    fn tokens(&mut self, text: &str, spot: Spot) {
        for token in tokens(text) {
            if self.sections.strings().has(token)
                || folders::find(token).is_some()
                || folders::is_custom(token)
            {
                continue;
            }
            let hint = match nearest(token, self.sections.strings().names()) {
                Some(near) => format!("did you mean %{near}%?"),
                None if token.bytes().all(|digit| digit.is_ascii_digit()) => {
                    "as a directory's number Windows does not know it either".to_owned()
                }
                None => format!(
                    "add {token} = \"…\" there, or write %%{token}%% if the percent signs are meant to stand in the text"
                ),
            };
            self.error(1235, spot, format!("the token %{token}% is not defined in [Strings]; {hint}"));
        }
        if text.chars().count() > MAX_LENGTH {
            self.error(
                0,
                spot,
                format!(
                    "this is longer than {MAX_LENGTH} characters, which Windows does not take; shorten it"
                ),
            );
        }
    }

    /// Windows takes one section for all tokens, so each has to have all.
    fn languages(&mut self) {
        let strings: Vec<Section<'_>> = self.sections.all().filter(|section| is_strings(*section)).collect();
        let keys = |section: &Section<'_>| -> BTreeSet<String> {
            section.entries().filter_map(|entry| entry.raw_key()).map(str::to_lowercase).collect()
        };
        let all: BTreeSet<String> = strings.iter().flat_map(keys).collect();
        for section in strings {
            let own = keys(&section);
            let missing: Vec<&str> = all.difference(&own).take(5).map(String::as_str).collect();
            if !missing.is_empty() {
                self.warning(
                    0,
                    section.spot(),
                    format!(
                        "[{}] lacks tokens that another language has ({}): Windows takes one section for all of them; add them here",
                        section.name,
                        missing.join(", ")
                    ),
                );
            }
        }
    }
}

fn is_strings(section: Section<'_>) -> bool {
    section.name.eq_ignore_ascii_case("Strings") || language(section.name).is_some()
}

/// The tokens of a text: what stands between two `%` and could be a name.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let Some((token, behind)) = after.split_once('%') else { break };
        if token.contains([' ', '\\']) {
            rest = after;
            continue;
        }
        if !token.is_empty() {
            found.push(token);
        }
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_and_percent_signs_are_none() {
        assert_eq!(tokens(r"%12%\%Name%.sys"), ["12", "Name"]);
        assert_eq!(tokens("%%SystemRoot%%\\x 50% of 60%"), Vec::<&str>::new());
        assert_eq!(tokens("100% %Name%"), ["Name"]);
    }
}
