//! The rules as people ask for them: the answer of `dirql rules`.
//!
//! The table is the kernel's ([`kernel::rules`]); bug checks get their names here.

use std::fmt::Write as _;

pub use kernel::rules::{Rule, all, find};
pub use rules::{ALL as JUDGES, Judge};

use crate::error::InputError;
use crate::readers::{json_array, json_object};
use crate::report::{Dismissal, bugcheck};
use crate::script::suggest::nearest;

/// The rule of this name.
///
/// # Errors
/// There is none; the message names one that reads alike, if there is.
pub fn named(name: &str) -> Result<Rule, InputError> {
    find(name).ok_or_else(|| {
        let hint = nearest(name, all().map(|rule| rule.name))
            .map_or_else(|| "`dirql rules` lists all".to_owned(), |near| format!("did you mean `{near}`?"));
        InputError::new(format!("there is no rule `{name}`; {hint}"))
    })
}

/// The readers that judge which a list names: names with commas between them, `all` or `none`.
///
/// # Errors
/// One of the names is none; the message says which there are.
pub fn judges(list: &str) -> Result<Vec<Judge>, InputError> {
    rules::named(list).map_err(|name| no_judge(&name))
}

/// What `--rules` says.
#[derive(Clone, Default, Debug)]
pub struct Selection {
    /// As it is typed.
    pub list: String,
    /// The readers that it attaches; none if it says nothing of these.
    pub judges: Option<Vec<Judge>>,
    /// The rules that are not to count.
    pub dismissals: Vec<Dismissal>,
}

impl Selection {
    /// The same with all readers attached, if it says nothing of these.
    ///
    /// # Errors
    /// None: what has been read is read again.
    pub fn or_all(self) -> Result<Self, InputError> {
        let all = ["all", &self.list].join(",");
        if self.judges.is_some() { Ok(self) } else { selection(all.trim_end_matches(',')) }
    }
}

/// What a list says: `all`, `none` or names of readers with commas between them, and `-NAME` for each rule that is not to count.
///
/// # Errors
/// One of the names is none; the message says which there are.
pub fn selection(list: &str) -> Result<Selection, InputError> {
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let wanted: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    let mut judges = if wanted.is_empty() { None } else { Some(judges(&wanted.join(","))?) };
    let mut dismissals = Vec::new();
    for name in words.iter().filter_map(|word| word.strip_prefix('-')) {
        if !JUDGES.iter().any(|judge| judge.name == name) {
            named(name)?;
        }
        judges.iter_mut().for_each(|judges| judges.retain(|judge| judge.name != name));
        dismissals.push(Dismissal::of_rule(name));
    }
    Ok(Selection { list: words.join(","), judges, dismissals })
}

/// Those of these names.
pub(crate) fn judges_named(names: &[String]) -> Result<Vec<Judge>, InputError> {
    names.iter().map(|name| rules::find(name).map_err(|name| no_judge(&name))).collect()
}

fn no_judge(name: &str) -> InputError {
    let names: Vec<&str> = JUDGES.iter().map(|judge| judge.name).collect();
    InputError::new(format!("there is no rule `{name}` to be attached; there are {}", names.join(", ")))
}

/// One rule with all that is known of it.
#[must_use]
pub fn text(rule: &Rule) -> String {
    let mut text = format!("{}\n", rule.name);
    let _ = writeln!(text, "  tier         {}", tiers(rule));
    for (code, first) in &rule.checks {
        let name = bugcheck::name(*code).unwrap_or("the driver's own");
        let first_text = first.map(|first| format!(", parameter 1 {first:#x}")).unwrap_or_default();
        let _ = writeln!(text, "  bug check    {name} ({code:#X}{first_text})");
        if let Some(meaning) = bugcheck::meaning(*code, first.unwrap_or(u64::MAX)) {
            let _ = writeln!(text, "               {meaning}");
        }
        let check =
            kernel::verdict::BugCheck { code: *code, parameters: [first.unwrap_or(u64::MAX), 0, 0, 0] };
        for (index, what) in bugcheck::parameters(&check).iter().enumerate() {
            let _ = writeln!(text, "    {}  {what}", index + 1);
        }
    }
    if let Some(page) = rule.page {
        let _ = writeln!(text, "  page         {page}");
    }
    let _ = writeln!(text, "  mend         {}", rule.remedy);
    text
}

/// The tiers in words.
#[must_use]
pub fn tiers(rule: &Rule) -> String {
    let tier = |text: &str| match text.split_once(':') {
        Some((tier, _)) => {
            let option = rule.option().map_or("", kernel::verifier::VerifierOption::title);
            format!("{tier} ({option})")
        }
        None => text.to_owned(),
    };
    rule.tiers.split(',').map(tier).collect::<Vec<_>>().join(" or ")
}

/// As JSON: `{"name","tiers","option","bug_checks":[{"code","parameter_1","name"}],"page","remedy"}`.
#[must_use]
pub fn json(rule: &Rule) -> String {
    let tiers = rule.tiers.split(',').map(|tier| tier.split(':').next().unwrap_or(tier));
    let tiers = tiers.map(|tier| format!("\"{tier}\""));
    let check = |(code, first): &(u32, Option<u64>)| {
        let object = json_object().number("code", *code);
        let object = match first {
            Some(first) => object.address("parameter_1", *first),
            None => object.raw("parameter_1", "null"),
        };
        object.optional("name", bugcheck::name(*code)).end()
    };
    json_object()
        .text("name", rule.name)
        .raw("tiers", &json_array(tiers))
        .optional("option", rule.option().map(kernel::verifier::VerifierOption::name))
        .raw("bug_checks", &json_array(rule.checks.iter().map(check)))
        .optional("page", rule.page)
        .text("remedy", rule.remedy)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_check_of_the_table_has_a_name_and_every_page_of_one_is_its_own() {
        for rule in all() {
            for (code, _) in &rule.checks {
                assert!(bugcheck::name(*code).is_some(), "{}: {code:#X}", rule.name);
            }
            let Some(title) = rule.page.and_then(|page| page.strip_prefix("Bug Check ")) else { continue };
            let (code, name) = title.split_once(' ').unwrap();
            let code = u32::from_str_radix(code.trim_start_matches("0x"), 16).unwrap();
            assert_eq!(bugcheck::name(code), Some(name), "{}", rule.name);
        }
    }

    #[test]
    fn a_list_attaches_readers_and_dismisses_rules() {
        let read = |list: &str| {
            let Selection { judges, dismissals, .. } = selection(list).unwrap();
            let judges = judges.map(|judges| judges.iter().map(|judge| judge.name).collect::<Vec<_>>());
            (judges, dismissals.into_iter().map(|one| one.rule).collect::<Vec<_>>())
        };
        assert_eq!(read(""), (None, vec![]));
        assert_eq!(read("none"), (Some(vec![]), vec![]));
        assert_eq!(read("-pool-leak"), (None, vec!["pool-leak".to_owned()]));
        assert_eq!(read("dpc-stalls, -wild-read"), (Some(vec!["dpc-stalls"]), vec!["wild-read".to_owned()]));
        let (judges, dismissed) = read("all,-dpc-stalls");
        assert!(judges.is_some_and(|judges| judges.len() > 5 && !judges.contains(&"dpc-stalls")));
        assert_eq!(dismissed, ["dpc-stalls"]);
        assert_eq!(selection("-pool-leak").unwrap().or_all().unwrap().list, "all,-pool-leak");
        assert_eq!(selection("none,-pool-leak").unwrap().or_all().unwrap().list, "none,-pool-leak");
        assert!(selection("-pool-leek").unwrap_err().to_string().contains("did you mean `pool-leak`?"));
        assert!(selection("pool-leak").unwrap_err().to_string().contains("to be attached"));
    }

    #[test]
    fn a_rule_that_is_not_there_is_told_with_one_that_is() {
        assert_eq!(
            named("pool-leek").unwrap_err().to_string(),
            "there is no rule `pool-leek`; did you mean `pool-leak`?"
        );
        assert!(named("zzzzzz").unwrap_err().to_string().contains("`dirql rules` lists all"));
        assert!(text(&named("double-completion").unwrap()).contains("MULTIPLE_IRP_COMPLETE_REQUESTS (0x44)"));
    }
}
