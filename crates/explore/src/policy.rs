//! Policies by the names that people type: `default`, `random:SEED`, `pct:SEED[,DEPTH][,STEPS]`, `fail:CALL[,COUNT]`, `pair:CALL,OTHER`,
//! `scarce:SEED[,CALL][,PERCENT]`, `early`, `late`; each with `@script` behind it, too.
//!
//! A policy is one row: its name, what it does, the numbers it is given, and the function that makes its [`Chooser`]. Parsing, printing,
//! later seeds, error messages and the command line's help follow from the rows. A row stands in the file of its chooser; [`POLICIES`] lists
//! them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use engine::{Chooser, Defaults};

use crate::at_script::AtScript;

/// The rows, in the order to show them. The first is what holds if no policy is asked for.
static POLICIES: &[&Entry] = &[
    &DEFAULT,
    &crate::random::ENTRY,
    &crate::pct::ENTRY,
    &crate::failing::ENTRY,
    &crate::failing::TWO,
    &crate::scarce::ENTRY,
    &crate::early::ENTRY,
    &crate::late::ENTRY,
];

static DEFAULT: Entry = Entry {
    name: "default",
    summary: "a thread runs until it waits",
    parameters: &[],
    make: |_| Box::new(Defaults),
};

/// The parameter that says all random numbers of a policy; [`Policy::later`] counts on from it.
pub(crate) const SEED: Parameter = Parameter { name: "SEED", range: 0..=u64::MAX, default: None };

/// Behind a policy: it decides from where the script begins, and up to there everything goes its usual way.
const AT_SCRIPT: &str = "@script";

/// How many parameters a row may have.
const MOST: usize = 4;

/// A number that a policy is given.
pub struct Parameter {
    /// As help and errors show it.
    pub name: &'static str,
    /// What it may be.
    pub range: RangeInclusive<u64>,
    /// What it is if it is not typed. None: it must be. Parameters with a default follow all that have none.
    pub default: Option<u64>,
}

/// A row of the table of policies.
pub struct Entry {
    /// As typed, in front of the `:`.
    pub name: &'static str,
    /// What the policy does: part of a sentence, which may name the parameters.
    pub summary: &'static str,
    /// In the order in which they are typed.
    pub parameters: &'static [Parameter],
    /// Makes the policy's chooser, at its beginning, from one number for each parameter.
    pub(crate) make: fn(&[u64]) -> Box<dyn Chooser>,
}

/// The policies, in the order to show them.
#[must_use]
pub fn policies() -> &'static [&'static Entry] {
    POLICIES
}

impl Entry {
    /// What is typed for it, with the names of its parameters: `pct:SEED[,DEPTH][,STEPS]`.
    #[must_use]
    pub fn form(&self) -> String {
        let mut form = self.name.to_owned();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let mark = if index == 0 { ':' } else { ',' };
            match parameter.default {
                None => form.extend([mark.to_string().as_str(), parameter.name]),
                Some(_) => form.extend(["[", mark.to_string().as_str(), parameter.name, "]"]),
            }
        }
        form
    }

    /// Whether it has a seed, and so as many different runs as there are seeds.
    #[must_use]
    pub fn is_seeded(&self) -> bool {
        self.seed().is_some()
    }

    fn seed(&self) -> Option<usize> {
        self.parameters.iter().position(|parameter| parameter.name == SEED.name)
    }

    /// The policy of these numbers. One that its parameter may not be becomes the nearest that it may be.
    pub(crate) fn with(&'static self, numbers: &[u64]) -> Policy {
        let mut values = [0; MOST];
        for ((value, parameter), number) in values.iter_mut().zip(self.parameters).zip(numbers) {
            *value = (*number).clamp(*parameter.range.start(), *parameter.range.end());
        }
        Policy { entry: self, values, at_script: false }
    }

    /// The policy of the numbers behind the name. None if they are too few or too many, or one may not be what it is.
    fn read(&'static self, rest: Option<&str>) -> Option<Policy> {
        let mut typed = rest.into_iter().flat_map(|rest| rest.split(','));
        let mut values = [0; MOST];
        for (value, parameter) in values.iter_mut().zip(self.parameters) {
            *value = match typed.next() {
                None => parameter.default?,
                Some(text) => text.parse().ok().filter(|number| parameter.range.contains(number))?,
            };
        }
        typed.next().is_none().then_some(Policy { entry: self, values, at_script: false })
    }

    /// What its numbers may be, where not every number will do: `DEPTH 1 to 100`.
    fn limits(&self) -> impl Iterator<Item = String> {
        let limited = self.parameters.iter().filter(|parameter| parameter.range != SEED.range);
        limited.map(|parameter| match (parameter.range.start(), parameter.range.end()) {
            (least, &u64::MAX) => format!("{} {least} and up", parameter.name),
            (least, most) => format!("{} {least} to {most}", parameter.name),
        })
    }
}

/// A policy with its numbers: a row of the table, filled in.
#[derive(Clone, Copy)]
pub struct Policy {
    entry: &'static Entry,
    /// One for each parameter of the row; 0 behind them.
    values: [u64; MOST],
    /// It decides from where the script begins.
    at_script: bool,
}

impl Policy {
    /// The same with a later seed: the `n`th after this one. None if there is no such seed.
    #[must_use]
    pub fn later(self, n: u64) -> Option<Self> {
        let Some(seed) = self.entry.seed() else { return (n == 0).then_some(self) };
        let mut values = self.values;
        values[seed] = values[seed].checked_add(n)?;
        Some(Self { values, ..self })
    }

    /// Its numbers, if it is a policy of this row.
    pub(crate) fn numbers_of(&self, entry: &Entry) -> Option<&[u64]> {
        (self.entry.name == entry.name).then(|| &self.values[..self.entry.parameters.len()])
    }

    /// The same with this seed. None if it has none.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Option<Self> {
        Some(self.with_number(self.entry.seed()?, seed))
    }

    /// The same with this number for the parameter at that place.
    pub(crate) fn with_number(mut self, at: usize, number: u64) -> Self {
        self.values[at] = number;
        self
    }

    /// The same from where the script begins. Up to there everything goes its usual way, and it hears of nothing: `fail` and `scarce` count
    /// calls from there.
    #[must_use]
    pub fn at_script(self) -> Self {
        Self { at_script: true, ..self }
    }

    /// Whether it decides only from where the script begins.
    #[must_use]
    pub fn is_at_script(self) -> bool {
        self.at_script
    }

    /// The policy itself, at its beginning.
    #[must_use]
    pub fn chooser(self) -> Box<dyn Chooser> {
        let chooser = (self.entry.make)(&self.values[..self.entry.parameters.len()]);
        if self.at_script { Box::new(AtScript::new(chooser)) } else { chooser }
    }

    /// The forms of the policies that have a seed, as errors and help name them: `random:SEED or …`.
    #[must_use]
    pub fn seeded_forms() -> String {
        let seeded = POLICIES.iter().filter(|entry| entry.is_seeded());
        seeded.map(|entry| entry.form()).collect::<Vec<_>>().join(" or ")
    }

    /// The forms of all policies, and what each does, for help.
    #[must_use]
    pub fn summaries() -> String {
        let each = POLICIES.iter().map(|entry| format!("`{}` ({})", entry.form(), entry.summary));
        let each = each.collect::<Vec<_>>().join(", ");
        format!(
            "{each}; with `{AT_SCRIPT}` behind it from where the script begins, and the usual way up to there"
        )
    }
}

/// What holds if no policy is asked for.
impl Default for Policy {
    fn default() -> Self {
        POLICIES[0].with(&[])
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        let Self { entry, values, at_script } = self;
        entry.name == other.entry.name && *values == other.values && *at_script == other.at_script
    }
}

impl Eq for Policy {}

/// As it is typed. Numbers at the end that are what they would be without being typed are left out.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, values, at_script } = self;
        let given = |(parameter, value): (&Parameter, &u64)| parameter.default != Some(*value);
        let shown = entry.parameters.iter().zip(values).rposition(given).map_or(0, |last| last + 1);
        f.write_str(entry.name)?;
        for (index, value) in values[..shown].iter().enumerate() {
            write!(f, "{}{value}", if index == 0 { ':' } else { ',' })?;
        }
        f.write_str(if *at_script { AT_SCRIPT } else { "" })
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A name that is no policy's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyError(String);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        let forms: Vec<String> = POLICIES.iter().map(|entry| entry.form()).collect();
        let limits: Vec<String> = POLICIES.iter().flat_map(|entry| entry.limits()).collect();
        let (forms, limits) = (forms.join(", "), limits.join(", "));
        write!(
            f,
            "`{name}` is no policy; there are: {forms} ({limits}), each with {AT_SCRIPT} behind it, too"
        )
    }
}

impl std::error::Error for PolicyError {}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(typed: &str) -> Result<Self, PolicyError> {
        let (form, at_script) = match typed.strip_suffix(AT_SCRIPT) {
            Some(form) => (form, true),
            None => (typed, false),
        };
        let (name, rest) = match form.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (form, None),
        };
        let entry = POLICIES.iter().copied().find(|entry| entry.name == name);
        let policy = entry.and_then(|entry| entry.read(rest)).ok_or_else(|| PolicyError(typed.to_owned()))?;
        Ok(Self { at_script, ..policy })
    }
}

#[cfg(test)]
mod tests;
