//! `dirql replay`: a recorded run, made again and held against its record.

use anyhow::Result;
use dirql::record::{Difference, Record};
use dirql::{Error, Jail};

use crate::arguments::Replay;
use crate::isolate::{self, Done};
use crate::view::{MOMENTS, Show};

/// The run is not the recorded one.
const DIFFERENT: u8 = 4;

/// In the JSON of an event that is a finding or a verdict.
const FINDING: &str = r#""event":"finding""#;

/// Makes it again and returns the exit code: the run's own, if it is the same.
///
/// # Errors
/// The record or a file that it names cannot be used, or this host cannot run a machine.
pub(crate) fn run(arguments: &Replay) -> Result<u8> {
    isolate::in_turns(&arguments.isolation, None, |jail, turn| replay(arguments, jail, turn))
}

fn replay(arguments: &Replay, jail: Option<Jail>, turn: Option<&str>) -> Result<Done> {
    let record = Record::read(&arguments.record).map_err(Error::Input)?;
    let made = record.bench(arguments.driver.as_deref(), arguments.inf.as_deref());
    let (bench, play, comparison) = made.map_err(Error::Input)?;
    let bench = if arguments.checked { bench.checked(true) } else { bench };
    let show = Show::new(&arguments.view);
    if let Some(moments) = turn {
        return show.explain(bench, play, jail, moments.strip_prefix(MOMENTS).unwrap_or(moments));
    }
    let report = show.run(bench, play, jail)?;
    match comparison.difference(&report) {
        None => {
            show.note(&format!("replay: the same run, {} events", comparison.events()));
            Ok(show.done(&report, MOMENTS))
        }
        Some(Difference::Event { number, seen: Some(seen), .. })
            if arguments.checked && !record.header.is_checked() && seen.contains(FINDING) =>
        {
            show.note(&format!(
                "replay: the same run, up to event {number}: what the record tells later, or not at all, the checked run tells here"
            ));
            Ok(show.done(&report, MOMENTS))
        }
        Some(difference) => {
            eprintln!("dirql: {}: replay is not the recorded run: {difference}", arguments.record.display());
            Ok(Done::with(DIFFERENT))
        }
    }
}
