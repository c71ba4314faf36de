//! `dirql replay`: a recorded run, made again and held against its record.

use anyhow::Result;
use dirql::record::{Difference, Record, Recording};
use dirql::{Error, Jail, Outcome};

use crate::arguments::Replay;
use crate::crash_report::unexplained;
use crate::isolate::{self, Done};
use crate::out::complain;
use crate::outputs::Outputs;
use crate::run::{AFTER_DEATH, CHECKED_MOMENTS, drawn, note_death};
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
    let outputs = Outputs::new(&arguments.isolation, [arguments.figure.as_ref()]);
    isolate::in_turns(&arguments.isolation, &outputs, after_death(arguments), |jail, turn| {
        replay(arguments, &outputs, jail, turn)
    })
}

/// The turn that finds out why the process died: there is one, unless the run was checked already. It is the watcher's to know.
fn after_death(arguments: &Replay) -> Option<&'static str> {
    let is_watcher = arguments.isolation.confined.is_none() && !arguments.isolation.in_process;
    let checks =
        || arguments.checked || Record::read(&arguments.record).is_ok_and(|it| it.header.is_checked());
    (is_watcher && !checks()).then_some(AFTER_DEATH)
}

fn replay(arguments: &Replay, outputs: &Outputs, jail: Option<Jail>, turn: Option<&str>) -> Result<Done> {
    let record = Record::read(&arguments.record).map_err(Error::Input)?;
    let made =
        record.bench(arguments.driver.as_deref(), arguments.inf.as_deref(), arguments.files.as_deref());
    let (bench, play, comparison) = made.map_err(Error::Input)?;
    let (death, moments) = (turn.and_then(|it| it.strip_prefix(AFTER_DEATH)), turn.and_then(moments));
    let checked =
        arguments.checked || death.is_some() || moments.is_some_and(|(prefix, _)| prefix == CHECKED_MOMENTS);
    let bench = if checked { bench.checked(true) } else { bench };
    let mut show = Show::new(&arguments.view, &arguments.isolation)?;
    if let Some((_, moments)) = moments {
        return show.explain(bench, play, jail, moments);
    }
    if let Some(death) = death {
        show = show.without_events();
        note_death(&show, death);
    }
    let (bench, jail) = match &arguments.figure {
        Some(path) => {
            let mut inputs =
                Recording::inputs(&bench, "", record.header.script().as_ref()).map_err(Error::Input)?;
            inputs.push(arguments.record.clone());
            outputs.check(&inputs)?;
            drawn(bench, jail, outputs, path)?
        }
        None => (bench, jail),
    };
    let report = show.run(bench, play, jail)?;
    if let Some(death) = death
        && report.outcome() == Outcome::Clean
    {
        complain!("dirql: {}", unexplained(death));
        return Ok(show.behind_all(Done::with(crate::NO_ANSWER), &report));
    }
    let after = if death.is_some() { CHECKED_MOMENTS } else { MOMENTS };
    match comparison.difference(&report) {
        None => {
            show.note(&format!("replay: the same run, {} events", comparison.events()));
            Ok(show.done(&report, after))
        }
        Some(Difference::Event { number, seen: Some(seen), .. })
            if checked && !record.header.is_checked() && seen.contains(FINDING) =>
        {
            show.note(&format!(
                "replay: the same run, up to event {number}: what the record tells later, or not at all, the checked run tells here"
            ));
            Ok(show.done(&report, after))
        }
        Some(difference) => {
            complain!("dirql: {}: replay is not the recorded run: {difference}", arguments.record.display());
            Ok(show.behind_all(Done::with(DIFFERENT), &report))
        }
    }
}

/// The moments that a turn is to tell of, and which kind of turn it is.
fn moments(turn: &str) -> Option<(&'static str, &str)> {
    [CHECKED_MOMENTS, MOMENTS].into_iter().find_map(|prefix| Some((prefix, turn.strip_prefix(prefix)?)))
}
