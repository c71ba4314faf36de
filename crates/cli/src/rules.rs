//! `dirql rules`: what can be said about a driver, by name.

use anyhow::Result;
use dirql::rules::{self, Rule};

use crate::out::{self, say};

/// Lists all rules, or tells one in full.
///
/// # Errors
/// There is no rule of that name.
pub(crate) fn run(name: Option<&str>, json: bool) -> Result<()> {
    let wanted: Vec<Rule> = match name {
        Some(name) => vec![rules::named(name).map_err(dirql::Error::Input)?],
        None => rules::all().collect(),
    };
    if json {
        let rules: Vec<String> = wanted.iter().map(rules::json).collect();
        say!("{{\"rules\":[{}]}}", rules.join(","));
    } else if name.is_some() {
        wanted.iter().for_each(|rule| out::bytes(rules::text(rule).as_bytes()));
    } else {
        let width = wanted.iter().map(|rule| rule.name.len()).max().unwrap_or(0);
        for rule in &wanted {
            say!("{:width$}  {}", rule.name, rules::tiers(rule));
        }
        say!("{} rules; `dirql rules NAME` tells one in full", wanted.len());
        say!("\nReaders that judge, which `--rules` attaches:");
        for judge in rules::JUDGES {
            say!("{:width$}  {}", judge.name, judge.about);
        }
    }
    Ok(())
}
