//! Requests that wait for a time that they are given: one with a longer time is not over sooner.

use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::steps::{ENDED_ALONE, asks, open, words};

/// Adds that for each of them, with times that may be no numbers of 32 bits in the driver's units.
pub(super) fn last_as_long_as_they_say(survey: &Survey, name: &str, plan: &mut Plan) {
    for timed in &survey.timed {
        let (least, status) = (timed.least / 1_000_000, timed.status);
        for operation in &timed.longer {
            let script = format!(
                "{}; {}; must-last a {least}ms as {status:#x}; {ENDED_ALONE}",
                open(name),
                asks("a", operation)
            );
            plan.add(format!("{}, which is a long time", words(operation)), script, Kind::Usual);
        }
    }
}
