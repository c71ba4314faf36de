//! `dirql check --until RULES`: nothing more is tried once one of these was found.
//!
//! What is reported does not depend on how many processes work: batches of jobs are begun in one order, those before the first one that has found it are done to
//! their end, and what came of later ones is left out.

use std::sync::atomic::{AtomicUsize, Ordering};

use dirql::InputError;
use dirql::check::Cause;

use super::campaign::JobResult;

/// What is enough.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// Any rule that is broken.
    Any,
    /// One of these.
    Rules(Vec<String>),
}

impl Until {
    /// `any`, or names of rules with commas between them.
    ///
    /// # Errors
    /// One of the names is none.
    pub(crate) fn typed(list: &str) -> Result<Self, InputError> {
        if list == "any" {
            return Ok(Self::Any);
        }
        let each = list.split(',').map(str::trim);
        each.map(|name| dirql::rules::named(name).map(|rule| rule.name.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self::Rules)
    }

    /// Whether this is what it asks for.
    pub(super) fn names(&self, cause: &Cause) -> bool {
        cause.aside.is_none()
            && match self {
                Self::Any => true,
                Self::Rules(rules) => rules.contains(&cause.rule),
            }
    }
}

/// How far the batches of a check are to be done.
pub(super) struct Enough<'u> {
    until: Option<&'u Until>,
    /// The first batch that has found it, or a number beyond all.
    last: AtomicUsize,
}

impl<'u> Enough<'u> {
    pub(super) fn new(until: Option<&'u Until>) -> Self {
        Self { until, last: AtomicUsize::new(usize::MAX) }
    }

    /// This came of a job of the batch. Whether that is enough.
    pub(super) fn is_met_by(&self, batch: usize, result: &JobResult) -> bool {
        let is_met = |until: &Until| result.found.iter().any(|found| until.names(&found.cause));
        let is_enough = self.until.is_some_and(is_met);
        if is_enough {
            self.last.fetch_min(batch, Ordering::Relaxed);
        }
        is_enough
    }

    /// Whether the batch comes behind one that has found it.
    pub(super) fn excludes(&self, batch: usize) -> bool {
        batch > self.last.load(Ordering::Relaxed)
    }
}
