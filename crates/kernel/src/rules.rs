//! The registry of rules: what can be said about a driver, each with its tier, its bug checks, the page it follows and what mends it.
//!
//! One line a rule in `rules.tsv`; a place that fires names it by a string. It knows no rule's condition: that stands where the rule fires.

use crate::verdict::Tier;
use crate::verifier::VerifierOption;

const TABLE: &str = include_str!("rules.tsv");

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// In kebab case, as a verdict has it.
    pub name: &'static str,
    /// The tiers it fires in, as the table writes them: `error`, `verifier:io`.
    pub tiers: &'static str,
    /// The bug checks that Windows or Verifier shows: code, and parameter 1 where that tells which.
    pub checks: Vec<(u32, Option<u64>)>,
    /// The title of Microsoft's page; none for what is dirql's own.
    pub page: Option<&'static str>,
    /// What usually mends it, as an instruction without full stop.
    pub remedy: &'static str,
}

impl Rule {
    /// Whether it may fire in this tier.
    #[must_use]
    pub fn allows(&self, tier: Tier) -> bool {
        self.tiers.split(',').any(|text| parse(text).is_some_and(|(known, _)| known == tier))
    }

    /// The option of Driver Verifier's that it belongs to, where only Verifier stops for it.
    #[must_use]
    pub fn option(&self) -> Option<VerifierOption> {
        self.tiers.split(',').find_map(|text| parse(text)?.1)
    }
}

/// A tier as the table writes it.
fn parse(text: &str) -> Option<(Tier, Option<VerifierOption>)> {
    match text.split_once(':') {
        Some(("verifier", option)) => Some((Tier::Verifier, Some(VerifierOption::find(option)?))),
        Some(_) => None,
        None => Tier::ALL.into_iter().find(|tier| tier.name() == text).map(|tier| (tier, None)),
    }
}

fn rule(line: &'static str) -> Option<Rule> {
    let mut cells = line.split('\t');
    let (name, tiers, checks) = (cells.next()?, cells.next()?, cells.next()?);
    let (page, remedy) = (cells.next()?, cells.next()?);
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let check = |text: &str| match text.split_once('/') {
        Some((code, first)) => Some((u32::try_from(hex(code)?).ok()?, Some(hex(first)?))),
        None => Some((u32::try_from(hex(text)?).ok()?, None)),
    };
    let checks = checks.split(' ').filter(|text| *text != "-").map(check).collect::<Option<Vec<_>>>()?;
    Some(Rule { name, tiers, checks, page: (page != "-").then_some(page), remedy })
}

/// All rules, by name.
pub fn all() -> impl Iterator<Item = Rule> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(rule)
}

/// The rule of this name.
#[must_use]
pub fn find(name: &str) -> Option<Rule> {
    TABLE.lines().find(|line| line.split('\t').next() == Some(name)).and_then(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_whole_and_names_are_sorted() {
        let lines: Vec<_> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        let rules: Vec<_> = lines.iter().map(|line| rule(line).unwrap_or_else(|| panic!("{line}"))).collect();
        for (rule, line) in rules.iter().zip(&lines) {
            assert_eq!(line.split('\t').count(), 5, "{line}");
            assert!(rule.tiers.split(',').all(|tier| parse(tier).is_some()), "{line}");
            assert!(!rule.remedy.is_empty() && !rule.remedy.ends_with('.'), "{line}");
        }
        assert!(rules.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn a_rule_says_what_it_is() {
        let rule = find("double-completion").unwrap();
        assert!(rule.allows(Tier::Error) && !rule.allows(Tier::Warning) && rule.option().is_none());
        assert_eq!(rule.checks, [(0x44, None)]);
        let rule = find("irql-too-high").unwrap();
        assert!(rule.allows(Tier::Error) && rule.allows(Tier::Verifier));
        assert_eq!(rule.option(), Some(VerifierOption::Ddi));
        assert_eq!(find("double-completions"), None);
    }
}
