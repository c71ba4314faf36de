//! The other half of the museum: the rules one by one, each broken by a driver that does nothing else wrong (`drivers/c/pairs`).
//!
//! `pairs.sys` and `pairs_pnp.sys` have all of them; the registry says which one is carried out and which half of it. `dirql check` looks at each
//! as at any other driver, with no script. So no rule is without a driver that breaks it, which the bugs of the museum alone would not show.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{drivers, rules};

/// Where the service's key has what `pairs.sys` is to do.
const KEY: &str = r"HKLM\System\CurrentControlSet\Services\pairs\Parameters";
/// The header whose pairs are those of `pairs_pnp.sys`, and what the others of that driver begin with.
const CARD: &str = "card";
/// Options of Driver Verifier's that are on only where they are named.
const NAMED: [&str; 2] = ["code-integrity", "invariant-mdl"];

/// A rule that a driver breaks, or, in its right half, does not.
pub(crate) struct Pair {
    pub(crate) rule: String,
    /// The driver.
    pub(crate) image: PathBuf,
    /// The place among the pairs of `pairs_pnp.sys`; none in `pairs.sys`.
    place: Option<usize>,
    /// An option of Driver Verifier's without which the rule says nothing.
    option: Option<&'static str>,
}

/// A rule of a tier above advice.
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) tiers: String,
}

/// All rules of tiers above advice, by their names.
///
/// # Errors
/// The table of rules cannot be read.
pub(crate) fn rules(root: &Path) -> Result<Vec<Rule>> {
    let table = fs::read_to_string(root.join(rules::TABLE)).context(rules::TABLE)?;
    let above_advice = rules::rows(&table).filter(|row| row.tiers != "advice");
    Ok(above_advice.map(|row| Rule { name: row.name.to_owned(), tiers: row.tiers.to_owned() }).collect())
}

/// The pairs of all these rules.
///
/// # Errors
/// A header cannot be read.
pub(crate) fn pairs(root: &Path, rules: &[Rule]) -> Result<Vec<Pair>> {
    let out = drivers::default_out(root);
    let mut pairs = Vec::new();
    for header in drivers::files_with(&root.join(rules::PAIRS), "h")? {
        let text = fs::read_to_string(&header).with_context(|| header.display().to_string())?;
        let of_card = header.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with(CARD));
        let named = text.split("PAIR(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for (place, name) in named.enumerate() {
            let Some(rule) = rules.iter().find(|rule| rule.name == name) else { continue };
            let option = |option: &&str| rule.tiers == format!("verifier:{option}");
            pairs.push(Pair {
                rule: name.to_owned(),
                image: out.join(if of_card { "pairs_pnp.sys" } else { "pairs.sys" }),
                place: of_card.then_some(place + 1),
                option: NAMED.into_iter().find(option),
            });
        }
    }
    pairs.sort_by(|a, b| a.rule.cmp(&b.rule));
    Ok(pairs)
}

impl Pair {
    /// The options that have the driver carry out a half. What has to be written for that goes to `out`.
    ///
    /// # Errors
    /// The INF cannot be read or written.
    pub(crate) fn options(&self, out: &Path, wrong: bool) -> Result<Vec<String>> {
        let mut options = Vec::new();
        if let Some(place) = self.place {
            let usual = self.image.with_extension("inf");
            let text = fs::read_to_string(&usual).with_context(|| usual.display().to_string())?;
            let set = |text: &str, name: &str, value: usize| {
                text.replace(&format!("{name},0x00010001,0 "), &format!("{name},0x00010001,{value} "))
            };
            let inf = self.answers(out, wrong).with_extension("inf");
            let text = set(&set(&text, "Pair", place), "Wrong", usize::from(wrong));
            drivers::write_if_changed(text.as_bytes(), &inf)?;
            options.extend([format!("--inf={}", inf.display()), "--device=bench".to_owned()]);
        } else {
            let half = format!("Wrong=dword:{}", u32::from(wrong));
            let value = |text: String| format!("--registry-value={KEY}\\{text}");
            options.extend([value(format!("Pair=\"{}\"", self.rule)), value(half)]);
        }
        options.extend(self.option.map(|option| format!("--verifier=all,{option},logging")));
        Ok(options)
    }

    /// What the files that are kept of a half are called, but for their ending.
    pub(crate) fn answers(&self, out: &Path, wrong: bool) -> PathBuf {
        let half = if wrong { "wrong" } else { "right" };
        out.join(format!("pair_{}_{half}", self.rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_says_what_its_driver_is_to_do() {
        let root = crate::root();
        let rules = rules(&root).unwrap();
        let all = pairs(&root, &rules).unwrap();
        assert!(all.len() > 300 && rules.iter().all(|rule| rule.tiers != "advice"));
        let named = |rule: &str| all.iter().find(|pair| pair.rule == rule).unwrap();
        let out = tempfile::tempdir().unwrap();
        let wrong = named("executable-pool").options(out.path(), true).unwrap();
        assert_eq!(wrong[0], format!("--registry-value={KEY}\\Pair=\"executable-pool\""));
        assert!(wrong[1].ends_with(r"\Wrong=dword:1") && wrong[2] == "--verifier=all,code-integrity,logging");
        let [.., half] = &named("double-free").options(out.path(), false).unwrap()[..] else { panic!() };
        assert!(half.ends_with(r"\Wrong=dword:0"), "{half}");
    }
}
