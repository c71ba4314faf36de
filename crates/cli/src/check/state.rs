//! `dirql check --state FILE`: what came of each job, written when it is over, and read where the check goes on.
//!
//! What comes of a job depends on the driver, its exercise and the budget alone, so it is kept whole, a line each, in a [`StateFile`]: `job 12 {…}`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use dirql::Error;
use dirql::check::Exercise;
use dirql::record::Recording;
use serde_json::json;

use super::campaign::JobResult;
use crate::arguments::Check;
use crate::outputs::Outputs;
use crate::state_file::{StateFile, Work, summed};

const CHECK: Work = Work { name: "check", format: 4 };

/// The file, while the check is made.
pub(super) struct CheckState(Mutex<StateFile>);

/// Opens it or makes it: and what came of jobs before, by their numbers.
///
/// # Errors
/// As [`StateFile::open`].
pub(super) fn open(
    arguments: &Check,
    path: &Path,
    exercises: &[Exercise],
) -> Result<(CheckState, BTreeMap<usize, JobResult>)> {
    let bench = crate::run::bench(&arguments.setup)?.checked(true);
    let script = crate::run::script(&arguments.setup)?;
    let machine = Recording::prepare(&bench, CHECK.name, script.as_ref()).map_err(Error::Input)?;
    let (_, tried) = summed("", &serde_json::to_string(exercises)?);
    let bounds = json!({"budget": arguments.budget, "exercises": tried});
    let outputs = Outputs::new(&arguments.isolation, [Some(&path.to_owned())]);
    let mut done = BTreeMap::new();
    let file = StateFile::open(&CHECK, path, &outputs, &CHECK.head(&bounds, &machine), &mut |line| {
        let (number, result) = line.strip_prefix("job ")?.split_once(' ')?;
        done.insert(number.parse().ok()?, serde_json::from_str(result).ok()?);
        Some(())
    })?;
    Ok((CheckState(Mutex::new(file)), done))
}

impl CheckState {
    /// This came of the job of that number.
    pub(super) fn done(&self, number: usize, result: &JobResult) {
        let result = serde_json::to_string(result).expect("plain values");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(&format!("job {number} {result}\n"));
    }
}
