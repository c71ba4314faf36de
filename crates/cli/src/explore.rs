//! `dirql explore`: a script carried out in every schedule within a bound; the first broken run, shown and recorded.
//!
//! The search runs in one machine that is taken back; what it finds is run once more from the machine's start, which is what
//! is shown. What is searched, and what is not, is said in `docs/replay.md`.

use anyhow::Result;
use dirql::explore::{Bounds, Choice, Choices, Replay, Searched};
use dirql::{Error, InputError, Jail, Outcome, Report};

use crate::arguments::Explore;
use crate::isolate::{self, Done};
use crate::run::{bench, script, shown};
use crate::view::Show;

/// Between choices, where one process tells them to the next.
const SEPARATOR: char = ';';

/// Searches, and returns the exit code: that of the first broken run, if there is one.
///
/// # Errors
/// Something given cannot be used, or this host cannot run a machine.
pub(crate) fn run(arguments: &Explore) -> Result<u8> {
    isolate::in_turns(&arguments.isolation, |jail, turn| match turn {
        None => search(arguments, jail),
        Some(choices) => follow(arguments, jail, choices).map(Done::with),
    })
}

fn search(arguments: &Explore, jail: Option<Jail>) -> Result<Done> {
    let Some(script) = script(&arguments.setup)? else {
        let message = "there is nothing to carry out in many schedules: give a script, with --do or --script";
        return Err(Error::Input(InputError::new(message)).into());
    };
    let play = script.play().map_err(Error::Input)?;
    let bounds = Bounds {
        preemptions: arguments.preemptions.into(),
        schedules: arguments.schedules,
        faults: arguments.faults,
        shared: !arguments.instructions,
        instructions: arguments.instructions,
    };
    let bench = jail.into_iter().fold(bench(&arguments.setup)?.unobserved(), dirql::Bench::jailed);
    let searched = bench.search(&play, &bounds, |report| report.outcome() != Outcome::Clean)?;
    let show = Show::new(&arguments.view);
    show.line(&if show.is_json() { as_json(&searched) } else { as_text(&searched, arguments) });
    Ok(match &searched.found {
        Some((choices, _)) => Done::then(joined(choices)),
        None => Done::with(Outcome::Clean.exit_code()),
    })
}

/// Runs the schedule that was found, from the machine's start.
fn follow(arguments: &Explore, jail: Option<Jail>, choices: &str) -> Result<u8> {
    let choices: Choices = choices
        .split(SEPARATOR)
        .filter(|choice| !choice.is_empty())
        .map(str::parse::<Choice>)
        .collect::<Result<_, _>>()?;
    let show = Show::new(&arguments.view);
    let replay = Replay::new(choices);
    let policy = (Box::new(replay.clone()) as Box<_>, format!("exhaustive:{}", arguments.preemptions));
    let policy = (policy.0, policy.1.as_str());
    let bench = bench(&arguments.setup)?;
    let report = shown(&show, bench, &arguments.setup, policy, jail, arguments.record.as_deref())?;
    if arguments.record.is_none() {
        show.note("with --record FILE, `dirql replay FILE` makes this run again");
    }
    if report.outcome() == Outcome::Clean || !replay.complaints().is_empty() {
        eprintln!(
            "dirql: the schedule that was found is broken in the search and not from the machine's start:"
        );
        eprintln!("dirql: this is a fault of dirql, not of the driver");
        return Ok(crate::NO_ANSWER);
    }
    Ok(report.outcome().exit_code())
}

fn joined(choices: &Choices) -> String {
    let all: Vec<String> = choices.iter().map(|choice| choice.to_string()).collect();
    all.join(&SEPARATOR.to_string())
}

fn as_text(searched: &Searched<Report>, arguments: &Explore) -> String {
    let total = searched.total();
    let all = searched.schedules.iter().enumerate().filter(|(_, runs)| **runs > 0);
    let counts: Vec<String> = all
        .map(|(preemptions, runs)| match preemptions {
            0 => format!("{runs} without a preemption"),
            n => format!("{runs} with {n}"),
        })
        .collect();
    let learned = match searched.learned {
        0 => String::new(),
        n => format!(
            "; {} before it was known that {n} instructions touch what others touch",
            searched.repeated
        ),
    };
    let counts = format!("{}{learned}", counts.join(", "));
    match &searched.found {
        Some((choices, report)) => {
            let choices: Vec<String> = choices.iter().map(|choice| format!("  {choice}")).collect();
            let choices = if choices.is_empty() { "  (all as usual)".to_owned() } else { choices.join("\n") };
            let outcome = report.outcome().name();
            format!(
                "explored {total} schedules ({counts}): the last one is {outcome}. Its choices:\n{choices}\n"
            )
        }
        None if searched.complete => format!(
            "explored {total} schedules ({counts}): all there are with up to {} preemptions, and none is broken",
            arguments.preemptions
        ),
        None => format!(
            "explored {total} schedules ({counts}), and none is broken; there are more (--schedules says how many to try)"
        ),
    }
}

fn as_json(searched: &Searched<Report>) -> String {
    let choices = searched.found.as_ref().map(|(choices, _)| {
        choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(",")
    });
    let runs: Vec<String> = searched.schedules.iter().map(ToString::to_string).collect();
    let choices = choices.map_or_else(|| "null".to_owned(), |choices| format!("[{choices}]"));
    format!(
        r#"{{"explored":{{"schedules":[{}],"repeated":{},"shared_instructions":{},"complete":{},"choices":{choices}}}}}"#,
        runs.join(","),
        searched.repeated,
        searched.learned,
        searched.complete
    )
}
