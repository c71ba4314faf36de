//! Findings that the user has dismissed: `--dismiss FILE`, and `-NAME` in `--rules`. They are reported, with the reason, and make nothing fail.
//!
//! A file has a dismissal a line: the rule, where (or nothing: everywhere), and behind `#` why. Where is a routine (`card!OnInterrupt`, `OnInterrupt`, with a
//! distance or without), a file of the driver's source, or a line of it (`card.c:88`), as reports name them. What belongs to no instruction, as a leak, is at the
//! places that its words name. What stops Windows ends a run all the same.

use kernel::verdict::Verdict;
use serde::{Deserialize, Serialize};

use super::place;
use crate::error::InputError;
use crate::readers::SymbolBook;
use crate::rules;

/// What is not to count.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Dismissal {
    /// The rule.
    pub rule: String,
    /// Where; without it, everywhere.
    pub place: Option<String>,
    /// Why.
    pub reason: String,
    /// Where it is written: `known.txt:3`.
    pub source: String,
}

/// A finding that does not count.
#[derive(Debug)]
pub struct Dismissed {
    /// What was found.
    pub verdict: Verdict,
    /// Why it does not count.
    pub by: Dismissal,
}

impl Dismissal {
    /// What a file has, whose text this is.
    ///
    /// # Errors
    /// A line that is none: which, and what it should be.
    pub fn parse(file: &str, text: &str) -> Result<Vec<Self>, InputError> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(number, line)| Self::line(format!("{file}:{number}"), line)).collect()
    }

    fn line(source: String, line: &str) -> Result<Self, InputError> {
        let (what, reason) = line.split_once('#').unwrap_or((line, ""));
        let (what, reason) = (what.trim(), reason.trim());
        if reason.is_empty() {
            return Err(InputError::new(format!(
                "{source}: `{line}` gives no reason; write RULE PLACE # REASON, or RULE # REASON for everywhere"
            )));
        }
        let (rule, place) = what.split_once(char::is_whitespace).unwrap_or((what, ""));
        rules::named(rule).map_err(|error| InputError::new(format!("{source}: {error}")))?;
        let place = Some(place.trim()).filter(|place| !place.is_empty()).map(str::to_owned);
        Ok(Self { rule: rule.to_owned(), place, reason: reason.to_owned(), source })
    }

    /// As `--rules -NAME` says it.
    pub(crate) fn of_rule(rule: &str) -> Self {
        let (reason, source) = ("not wanted".to_owned(), format!("--rules -{rule}"));
        Self { rule: rule.to_owned(), place: None, reason, source }
    }

    fn covers(&self, verdict: &Verdict, symbols: &SymbolBook) -> bool {
        if self.rule != verdict.rule || verdict.not_implemented {
            return false;
        }
        let Some(wanted) = &self.place else { return true };
        let wanted = wanted.replace(".sys!", "!");
        match verdict.stack.first() {
            Some(line) => {
                let at = place(symbols, line);
                let inlined =
                    at.inlined.iter().flat_map(|(routine, source)| [Some(routine), source.as_ref()]);
                let mut names = [Some(&at.symbol), at.source.as_ref()].into_iter().chain(inlined).flatten();
                names.any(|name| is_in(name, &wanted))
            }
            None => {
                let words = verdict.message.split_whitespace();
                let mut names = words.map(|word| word.trim_matches(['(', ')', ',', ';', ':', '.']));
                names.any(|name| is_in(name, &wanted))
            }
        }
    }
}

/// Whether what a report calls so, `card.sys!OnInterrupt+0x12` or `card.c:88`, is this place or within it.
fn is_in(name: &str, place: &str) -> bool {
    let name = name.replace(".sys!", "!");
    let within = |name: &str| {
        name.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ':']))
    };
    within(&name) || name.split_once('!').is_some_and(|(_, routine)| within(routine))
}

/// What dismisses a finding, if something does.
pub(crate) fn of<'d>(
    dismissals: &'d [Dismissal],
    verdict: &Verdict,
    symbols: &SymbolBook,
) -> Option<&'d Dismissal> {
    dismissals.iter().find(|dismissal| dismissal.covers(verdict, symbols))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_rule_a_place_and_a_reason_a_line() {
        let text = "# known\n\npool-leak Start # freed by the next version\n  wild-read card.c:8 #  sic \nstuck # all of them\n";
        let text = text.replace("stuck", "pool-leak");
        let all = Dismissal::parse("known.txt", &text).unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|it| (it.rule.as_str(), it.place.as_deref(), it.reason.as_str(), it.source.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("pool-leak", Some("Start"), "freed by the next version", "known.txt:3"),
                ("wild-read", Some("card.c:8"), "sic", "known.txt:4"),
                ("pool-leak", None, "all of them", "known.txt:5"),
            ]
        );
    }

    #[test]
    fn a_line_without_a_reason_or_of_no_rule_is_refused_with_its_place() {
        let error = |text| Dismissal::parse("known.txt", text).unwrap_err().to_string();
        assert!(error("\npool-leak Start").starts_with("known.txt:2: `pool-leak Start` gives no reason;"));
        assert!(error("pool-leak #").contains("gives no reason"));
        assert_eq!(
            error("pool-leek # why"),
            "known.txt:1: there is no rule `pool-leek`; did you mean `pool-leak`?"
        );
    }

    #[test]
    fn a_place_is_a_routine_a_file_or_a_line() {
        for place in ["card!OnInterrupt", "OnInterrupt", "OnInterrupt+0x12", "card!OnInterrupt+0x12"] {
            assert!(is_in("card.sys!OnInterrupt+0x12", place), "{place}");
        }
        for place in ["OnInter", "card", "OnInterrupt+0x1", "other!OnInterrupt", "Interrupt"] {
            assert!(!is_in("card.sys!OnInterrupt+0x12", place), "{place}");
        }
        assert!(is_in("card.c:88", "card.c") && is_in("card.c:88", "card.c:88"));
        assert!(!is_in("card.c:88", "card.c:8"));
    }

    #[test]
    fn what_belongs_to_no_instruction_is_where_its_words_say() {
        let leak =
            Verdict::verifier("pool-leak", "8 bytes, allocated by card.sys!Start+0x1c (card.c:33), are left");
        let covers =
            |line: &str| Dismissal::parse("f", line).unwrap()[0].covers(&leak, &SymbolBook::default());
        assert!(
            covers("pool-leak Start # known")
                && covers("pool-leak card.c:33 # known")
                && covers("pool-leak # known")
        );
        assert!(!covers("pool-leak Stop # known") && !covers("wild-read Start # known"));
    }
}
