//! What `docs/museum.md` says already: `cargo xtask museum --new` looks only at the exhibits and rules that are not in it, or whose headers say something
//! else than it does, and writes it again with them. All of them take hours.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What is marked so was looked at since all were.
pub(crate) const MARK: &str = " *";
/// What ends the paragraph about what all of them have shown.
pub(crate) const END_OF_SHOWN: &str = " What has found a bug is counted in attempts";

/// By what was found, in how many attempts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    /// What the bug was found as; empty in the table of rules, or if it was not found.
    pub(crate) rule: String,
    /// The exercise; none if it was not found.
    pub(crate) exercise: Option<String>,
    pub(crate) attempts: u64,
    /// It was looked at since all were.
    pub(crate) is_marked: bool,
}

/// The tables, and the sentences above them about all that was looked at.
#[derive(Default)]
pub(crate) struct Kept {
    /// By `AREA/NAME`, with the columns that its header decides.
    exhibits: BTreeMap<String, (String, Known)>,
    rules: BTreeMap<String, Known>,
    /// How the findings were made again, and which twins come to less than their bugs.
    pub(crate) shown: String,
}

/// What stands for a bug or rule that was not found.
pub(crate) const NOT_FOUND: &str = "*not found*";

impl Kept {
    /// # Errors
    /// The page cannot be read.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join("docs/museum.md");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        let mut kept = Self::default();
        for line in text.lines() {
            if let Some((shown, _)) = line.split_once(END_OF_SHOWN) {
                shown.clone_into(&mut kept.shown);
            } else if let Some((name, known)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
                kept.add(name, known);
            }
        }
        kept
    }

    /// A row behind its name.
    fn add(&mut self, name: &str, row: &str) {
        let is_marked = row.starts_with(MARK);
        let columns: Vec<&str> = row.trim_end_matches(" |").rsplitn(4, " | ").collect();
        let [attempts, by, found, head] = columns[..] else { return };
        let exercise = (by != NOT_FOUND && !by.is_empty()).then(|| by.to_owned());
        let is_exhibit = name.contains('/');
        let rule = if is_exhibit { found.trim_matches('`').to_owned() } else { String::new() };
        let known = Known { rule, exercise, attempts: attempts.parse().unwrap_or(0), is_marked };
        if is_exhibit {
            let head = head.trim_start_matches(MARK).trim_start_matches(" | ").to_owned();
            self.exhibits.insert(name.to_owned(), (head, known));
        } else {
            self.rules.insert(name.to_owned(), known);
        }
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.exhibits.is_empty()
    }

    /// An exhibit whose header has what this row has, and by one of whose rules it was found, if it was.
    pub(crate) fn exhibit(&self, name: &str, head: &str, rules: &[String]) -> Option<&Known> {
        let (own, known) = self.exhibits.get(name)?;
        (own == head && (known.exercise.is_none() || rules.contains(&known.rule))).then_some(known)
    }

    /// A rule that has a driver which breaks it alone.
    pub(crate) fn rule(&self, name: &str) -> Option<&Known> {
        self.rules.get(name).filter(|known| known.exercise.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# The museum\n\n7 findings, each made again. Each twin comes to all. What has found a bug is counted in attempts: so many.\n\n\
        | bug | what is wrong | shows by | found as | by this exercise | attempts |\n| --- | --- | --- | --- | --- | --- |\n\
        | `blind/one` | a || b is wrong | ioctl | `pool-leak` | ioctl 0x222000 | 12 |\n\
        | `blind/two` * | freed | ioctl, power | `double-free` | read | 3 |\n\
        | `blind/three` | lost | device |  | *not found* | 99 |\n\n\
        | rule | tier |\n| `pool-leak` | error | 2 | read of all sizes | 5 |\n| `zero-bytes` | error | 1 |  |  |\n";

    #[test]
    fn what_the_page_says_of_an_exhibit_holds_as_long_as_its_header_says_the_same() {
        let kept = Kept::of(PAGE);
        assert_eq!(kept.shown, "7 findings, each made again. Each twin comes to all.");
        let leak = ["pool-leak".to_owned()];
        let one = kept.exhibit("blind/one", "a || b is wrong | ioctl", &leak).unwrap();
        assert_eq!(
            (one.exercise.as_deref(), one.attempts, one.is_marked),
            (Some("ioctl 0x222000"), 12, false)
        );
        assert!(kept.exhibit("blind/one", "a is wrong | ioctl", &leak).is_none());
        assert!(kept.exhibit("blind/one", "a || b is wrong | ioctl", &["double-free".to_owned()]).is_none());
        let two = kept.exhibit("blind/two", "freed | ioctl, power", &["double-free".to_owned()]).unwrap();
        assert!(two.is_marked);
        let three = kept.exhibit("blind/three", "lost | device", &leak).unwrap();
        assert_eq!((three.exercise.as_deref(), three.attempts), (None, 99));
    }

    #[test]
    fn a_rule_is_known_if_a_driver_that_breaks_it_alone_was_looked_at() {
        let kept = Kept::of(PAGE);
        let leak = kept.rule("pool-leak").unwrap();
        assert_eq!((leak.exercise.as_deref(), leak.attempts), (Some("read of all sizes"), 5));
        assert!(kept.rule("zero-bytes").is_none() && kept.rule("new-rule").is_none());
    }
}
