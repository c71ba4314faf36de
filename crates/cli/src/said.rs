//! The findings that only Driver Verifier stops for, as lines from a process that makes runs to the one that watches it.
//!
//! A finding is sent in full before the first run that had it, and as its number from then on: a search makes thousands of runs that all
//! have the same.

use dirql::explore::{Choices, Remark};
use serde_json::{Value, json};

use crate::isolate;
use crate::remote_runner::{joined, parted};

/// How a finding's line begins, before the first run of the process that had it: JSON follows, with the choices of that run.
const FOUND: &str = "found ";
/// Before the line of a run: which of the findings sent so far it had, by their numbers.
const HAD: &str = "had ";

/// What a run has said besides.
pub(crate) type Said = Vec<(Remark, Choices)>;

/// In the process that makes the runs: the findings that it has sent.
#[derive(Default)]
pub(crate) struct Tells {
    /// Of each finding, its key; where it is, is its number.
    keys: Vec<String>,
}

impl Tells {
    fn number(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Sends what the run has said whose line is sent next.
    pub(crate) fn tell(&mut self, said: Said) {
        if said.is_empty() {
            return;
        }
        let mut had = Vec::new();
        for (Remark { key, text }, choices) in said {
            if let (None, Some(text)) = (self.number(&key), text) {
                let found = json!({"key": key, "text": text, "choices": joined(&choices)});
                isolate::tell(&format!("{FOUND}{found}"));
                self.keys.push(key.clone());
            }
            had.extend(self.number(&key).map(|number| number.to_string()));
        }
        isolate::tell(&format!("{HAD}{}", had.join(" ")));
    }
}

/// In the process that watches it: the findings that have arrived.
#[derive(Default)]
pub(crate) struct Hears {
    keys: Vec<String>,
    said: Said,
}

impl Hears {
    /// Whether a line is about findings. What cannot be read of it is passed over: it decides nothing.
    pub(crate) fn takes(&mut self, line: &str) -> bool {
        if let Some(found) = line.strip_prefix(FOUND) {
            let found: Value = serde_json::from_str(found).unwrap_or_default();
            let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
            self.keys.push(text("key"));
            let remark = Remark { key: text("key"), text: Some(text("text")) };
            self.said.push((remark, parted(&text("choices")).unwrap_or_default()));
            return true;
        }
        let Some(had) = line.strip_prefix(HAD) else { return false };
        for number in had.split(' ') {
            let key = number.parse::<usize>().ok().and_then(|number| self.keys.get(number));
            let is_new = |key: &&String| self.said.iter().all(|(said, _)| said.key != **key);
            if let Some(key) = key.filter(is_new) {
                self.said.push((Remark { key: key.clone(), text: None }, Choices::default()));
            }
        }
        true
    }

    /// What the run has said whose line is next.
    pub(crate) fn said(&mut self) -> Said {
        std::mem::take(&mut self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_heard_in_full_once_and_by_its_number_then() {
        let mut hears = Hears::default();
        assert!(
            hears.takes(r#"found {"key":"a","text":"{}","choices":"preempt 3 after 7"}"#)
                && hears.takes("had 0")
        );
        let said = hears.said();
        assert_eq!(said.len(), 1);
        assert_eq!(
            (said[0].0.text.as_deref(), joined(&said[0].1)),
            (Some("{}"), "preempt 3 after 7".to_owned())
        );
        assert!(hears.takes("had 0"));
        assert_eq!(hears.said(), [(Remark { key: "a".to_owned(), text: None }, Choices::default())]);
        assert!(!hears.takes("usual 1f2") && hears.said().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let mut hears = Hears::default();
        assert!(hears.takes("had 7 x") && hears.said().is_empty());
        assert!(hears.takes("found {") && hears.said().len() == 1);
    }
}
