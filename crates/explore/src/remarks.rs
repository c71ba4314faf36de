//! What runs say beside whether they were looked for: each remark once, with the first run that made it and how many did.
//!
//! What a remark says is the subject's business; here only its key distinguishes it from others. A subject says a remark in full once:
//! a reader of its runs in their order knows it from then on by its key.

use std::collections::BTreeMap;

/// What a run says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// Equal where the same is said; one line.
    pub key: String,
    /// In full, one line, where the subject has not said it before.
    pub text: Option<String>,
}

/// A remark of some runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remarked<F> {
    /// As the first run said it.
    pub text: String,
    /// How that one is made again.
    pub first: F,
    /// How many runs said it.
    pub runs: u64,
}

/// The remarks of all runs, in the order of their first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remarks<F> {
    list: Vec<Remarked<F>>,
    /// Where in the list each key is.
    known: BTreeMap<String, usize>,
}

impl<F> Default for Remarks<F> {
    fn default() -> Self {
        Self { list: Vec::new(), known: BTreeMap::new() }
    }
}

impl<F> Remarks<F> {
    /// One run has said this, once; `first` says how that run is made again.
    pub fn add(&mut self, remark: Remark, first: impl FnOnce() -> F) {
        let Remark { key, text } = remark;
        match (self.known.get(&key), text) {
            (Some(at), _) => self.list[*at].runs += 1,
            (None, Some(text)) => {
                self.known.insert(key, self.list.len());
                self.list.push(Remarked { text, first: first(), runs: 1 });
            }
            // The run that said it in full was lost.
            (None, None) => {}
        }
    }

    /// Each, in the order of their first runs.
    pub fn iter(&self) -> impl Iterator<Item = &Remarked<F>> {
        self.list.iter()
    }

    /// Whether no run has said anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_runs_say_is_there_once_with_the_first_of_them() {
        let mut remarks = Remarks::default();
        let said =
            |key: &str, text: Option<&str>| Remark { key: key.to_owned(), text: text.map(str::to_owned) };
        remarks.add(said("b", Some("of b")), || 1);
        remarks.add(said("a", Some("of a")), || 2);
        remarks.add(said("b", None), || 3);
        remarks.add(said("a", Some("in other words")), || 3);
        remarks.add(said("never in full", None), || 3);
        let all: Vec<_> = remarks.iter().map(|it| (it.text.as_str(), it.first, it.runs)).collect();
        assert_eq!(all, [("of b", 1, 2), ("of a", 2, 2)]);
    }
}
