//! `dirql explore`: a script carried out in every schedule within a bound; the first broken run, shown and recorded.
//!
//! The search is made in parts, each in one machine that is taken back (`remote_runner.rs` has them made in processes of their own);
//! what it finds is run once more from the machine's start, which is what is shown. What is searched, and what is not,
//! is said in `docs/replay.md`.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::{Context, Result};
use dirql::explore::{Bounds, Choices, Memory, Remembering, Replay, Searched, search_by};
use dirql::interrupts::Interrupts;
use dirql::record::Recording;
use dirql::{Bench, Error, InputError, Jail, Outcome, Play, Report};
use serde_json::{Value, json};

use crate::arguments::Explore;
use crate::isolate::{self, Done};
use crate::many::host_processors;
use crate::out::{self, complain};
use crate::outputs::Outputs;
use crate::progress::Progress;
use crate::remote_runner::{self, CHECKED_PART, PART, RemoteRunner, WorkerConfig};
use crate::run::{AFTER_DEATH, Files, bench, note_death, script, shown};
use crate::said::Tells;
use crate::search_state::SearchState;
use crate::view::{Show, silently};
use crate::{again, not_tried, remarked, search_state};

/// The option of a process that shows a schedule; its value is the choices of that schedule.
pub(crate) const FOUND: &str = "found";

/// The user's option to see one schedule; its value is the choices of that schedule.
pub(crate) const FOLLOW: &str = "follow";

/// Options that make no sense in the command that makes one of the schedules again, each with a value.
const IN_SEARCH_ONLY: [&str; 7] =
    ["workers", "schedules", "preemptions", "state", "record", "figure", FOLLOW];

/// The policy that stands in the state of a search.
const SEARCH: &str = "search";

/// The turn of a process that runs the default schedule once more, checked.
const CONFIRM: &str = "confirm";

/// Searches, and returns the exit code: that of the first broken run, if there is one.
///
/// # Errors
/// Something given cannot be used, or this host cannot run a machine.
pub(crate) fn run(arguments: &Explore) -> Result<u8> {
    if !arguments.isolation.in_process && arguments.isolation.confined.is_none() {
        return match &arguments.follow {
            Some(_) => show_apart(arguments, &[]),
            None => search_apart(arguments),
        };
    }
    isolate::in_turns(&arguments.isolation, &outputs(arguments), None, |jail, turn| {
        match (arguments.found.as_ref().or(arguments.follow.as_ref()), turn) {
            (Some(choices), turn) => {
                let death = turn.and_then(|turn| turn.strip_prefix(AFTER_DEATH));
                follow(arguments, jail, choices, death)
            }
            (None, None) => search_here(arguments, jail),
            (None, Some(CONFIRM)) => {
                let code = confirm(arguments, jail)?.outcome().exit_code();
                if arguments.isolation.confined.is_some() {
                    return Ok(Done::with(code));
                }
                if code != Outcome::Clean.exit_code() {
                    return Ok(Done::then(String::new()));
                }
                tell_confirmed(arguments)?;
                Ok(Done::with(code))
            }
            (None, Some(turn)) => match (turn.strip_prefix(PART), turn.strip_prefix(CHECKED_PART)) {
                (Some(part), _) => make_part(arguments, jail, part, arguments.checked),
                (_, Some(part)) => make_part(arguments, jail, part, true),
                _ => follow(arguments, jail, turn, None),
            },
        }
    })
}

/// In worker processes.
fn search_apart(arguments: &Explore) -> Result<u8> {
    let workers = arguments.workers.unwrap_or_else(host_processors);
    let (state, memory) = match &arguments.state {
        Some(path) => state(arguments, path).map(|(state, memory)| (Some(state), memory))?,
        None => (None, Memory::default()),
    };
    let interrupts = Interrupts::note().context("signals cannot be noted")?;
    let stop = interrupts.came();
    let (searched, interrupted, refused, failed) = thread::scope(|scope| {
        let (checked, state) = (arguments.checked, state.as_ref());
        let progress = Progress::new(!arguments.view.quiet);
        let config = WorkerConfig { isolation: &arguments.isolation, workers, checked, state, stop };
        let mut remote_runner = RemoteRunner::new(scope, config, progress);
        let searched = search_by(&mut Remembering::new(&mut remote_runner, memory), &bounds(arguments));
        let interrupted = stop.swap(true, Ordering::Relaxed);
        let interrupted = interrupted && searched.found.is_none() && searched.not_tried.is_any();
        (searched, interrupted, remote_runner.refused, remote_runner.failed)
    });
    drop(interrupts);
    if let Some(state) = state {
        state.end();
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some((code, why)) = refused {
        out::errors(why.as_bytes());
        return Ok(code);
    }
    tell(&searched, interrupted, arguments)?;
    if let Some(first) = searched.lost.first() {
        complain!("dirql: schedule {} has ended its process: {}", first.number, first.why.trim_end());
    }
    match &searched.found {
        Some((choices, _)) => {
            show_apart(arguments, &[format!("--{FOUND}={}", remote_runner::joined(choices))])
        }
        None if interrupted || !searched.lost.is_empty() => Ok(crate::NO_ANSWER),
        None if !wants_confirmation(arguments) => Ok(Outcome::Clean.exit_code()),
        None => confirm_apart(arguments),
    }
}

/// The file in which this search is kept, and what it has of it.
fn state(arguments: &Explore, path: &Path) -> Result<(SearchState, Memory)> {
    let (bench, _) = subject(arguments, None)?;
    let (bench, script) = (bench.checked(arguments.checked), script(&arguments.setup)?);
    let machine = Recording::prepare(&bench, SEARCH, script.as_ref()).map_err(Error::Input)?;
    let inputs = crate::run::inputs(&arguments.setup, &bench, script.as_ref())?;
    let named = [Some(path), arguments.record.as_deref(), arguments.figure.as_deref()];
    let named = named.map(|path| path.map(Path::to_owned));
    Outputs::new(&arguments.isolation, named.each_ref().map(Option::as_ref)).check(&inputs)?;
    let bounds = match arguments.policy {
        Some(policy) => json!({"policy": policy.to_string()}),
        // How many preemptions there may be, and how many schedules, changes none of them.
        None => json!({"instructions": arguments.instructions, "faults": arguments.faults}),
    };
    let outputs = Outputs::new(&arguments.isolation, [named[0].as_ref()]);
    Ok(search_state::open(path, &outputs, &search_state::head(&bounds, &machine))?)
}

/// Runs the default schedule once more, checked: nothing is shown if it is clean.
fn confirm_apart(arguments: &Explore) -> Result<u8> {
    match isolate::untold(&arguments.isolation, &[format!("--{}={CONFIRM}", isolate::TURN)])?.0 {
        Ok(code) if code == Outcome::Clean.exit_code() => {
            tell_confirmed(arguments)?;
            Ok(code)
        }
        // It is broken, or its process has died of it: that is shown.
        _ => isolate::shown(&arguments.isolation, &[format!("--{FOUND}=")], &outputs(arguments), None),
    }
}

/// Shows one schedule in a process of its own. `more` follows this process's arguments.
fn show_apart(arguments: &Explore, more: &[String]) -> Result<u8> {
    let after_death = arguments.fast.then_some(AFTER_DEATH);
    isolate::shown(&arguments.isolation, more, &outputs(arguments), after_death)
}

/// Whether a search that found nothing is clean only after a checked run: it was not checked, and the user has not asked for `--fast`.
fn wants_confirmation(arguments: &Explore) -> bool {
    !arguments.checked && !arguments.fast
}

/// Runs the default schedule, checked, and shows nothing.
fn confirm(arguments: &Explore, jail: Option<Jail>) -> Result<Report> {
    let (bench, play) = subject(arguments, jail)?;
    Ok(silently(bench.checked(true).chooser(Replay::new(Choices::default())), Some(play), None)?)
}

/// Says that this run was clean.
fn tell_confirmed(arguments: &Explore) -> Result<()> {
    if !arguments.view.json {
        let show = Show::new(&arguments.view, &arguments.isolation)?;
        show.line(
            "with every access checked, the schedule without a preemption is clean too (--checked tests all)",
        );
    }
    Ok(())
}

/// Searches in this process.
fn search_here(arguments: &Explore, jail: Option<Jail>) -> Result<Done> {
    let (bench, play) = subject(arguments, jail)?;
    let bench = bench.checked(arguments.checked);
    let searched = bench.search(&play, &bounds(arguments), is_wanted)?;
    let searched = searched.map(|report| report.outcome().name().to_owned());
    tell(&searched, false, arguments)?;
    Ok(match &searched.found {
        Some((choices, _)) => Done::then(remote_runner::joined(choices)),
        None if wants_confirmation(arguments) => Done::then(CONFIRM.to_owned()),
        None => Done::with(Outcome::Clean.exit_code()),
    })
}

/// Searches one part, in a worker process.
fn make_part(arguments: &Explore, jail: Option<Jail>, part: &str, checked: bool) -> Result<Done> {
    let make = || {
        let (bench, play) = subject(arguments, jail)?;
        let mut tells = Tells::default();
        let tell = |ran: &_, said| {
            tells.tell(said);
            remote_runner::tell(ran, |report: &Report| report.outcome().name());
        };
        let is_wanted = |report: &Report| {
            #[cfg(debug_assertions)]
            crate::failing::in_a_search(report, checked);
            is_wanted(report)
        };
        bench.checked(checked).search_part(&play, &bounds(arguments), part.parse()?, is_wanted, tell)?;
        Ok(Done::with(0))
    };
    make().inspect_err(|_| isolate::tell(remote_runner::REFUSED))
}

fn outputs(arguments: &Explore) -> Outputs {
    Outputs::new(&arguments.isolation, [arguments.record.as_ref(), arguments.figure.as_ref()])
}

fn bounds(arguments: &Explore) -> Bounds {
    Bounds {
        preemptions: arguments.preemptions.into(),
        schedules: arguments.schedules,
        faults: arguments.faults,
        shared: true,
        cuts: true,
        instructions: arguments.instructions,
        policy: arguments.policy,
    }
}

fn is_wanted(report: &Report) -> bool {
    report.outcome() != Outcome::Clean
}

/// The machine that is searched, and what it carries out.
fn subject(arguments: &Explore, jail: Option<Jail>) -> Result<(Bench, Play)> {
    let Some(script) = script(&arguments.setup)? else {
        let message = "there is nothing to carry out in many schedules: give a script, with --do or --script";
        return Err(Error::Input(InputError::new(message)).into());
    };
    let play = script.play().map_err(Error::Input)?;
    Ok((jail.into_iter().fold(bench(&arguments.setup)?.unobserved(), Bench::jailed), play))
}

/// Runs the schedule that was found, from the machine's start. It is checked if a process has died of it: `death` says how.
fn follow(arguments: &Explore, jail: Option<Jail>, choices: &str, death: Option<&str>) -> Result<Done> {
    let mut show = Show::new(&arguments.view, &arguments.isolation)?;
    if let Some(death) = death {
        show = show.without_events();
        note_death(&show, death);
    }
    let replay = Replay::new(remote_runner::parted(choices)?);
    let name = match arguments.policy {
        None => format!("exhaustive:{}", arguments.preemptions),
        Some(policy) => format!("explore {policy}"),
    };
    let policy = (Box::new(replay.clone()) as Box<_>, name.as_str());
    let bench = bench(&arguments.setup)?.checked(!arguments.fast || death.is_some());
    let outputs = outputs(arguments);
    let (record, figure) = (arguments.record.as_deref(), arguments.figure.as_deref());
    let files = Files { outputs: &outputs, record, figure, archive: None, registry: None };
    let report = shown(&show, bench, &arguments.setup, policy, jail, files)?;
    if arguments.record.is_none() {
        show.note("with --record FILE, `dirql replay FILE` makes this run again");
    }
    if arguments.found.is_none() {
        return Ok(show.behind_all(Done::with(followed(&report, &replay)?), &report));
    }
    if report.outcome() == Outcome::Clean || !replay.complaints().is_empty() {
        complain!(
            "dirql: the schedule that was found is broken in the search and not from the machine's start:"
        );
        complain!("dirql: this is a fault of dirql, not of the driver");
        return Ok(Done::with(crate::NO_ANSWER));
    }
    Ok(show.behind_all(Done::with(report.outcome().exit_code()), &report))
}

/// The exit code of a schedule that the user asked to see.
fn followed(report: &Report, replay: &Replay) -> Result<u8> {
    if let Some(complaint) = replay.complaints().first() {
        let message = format!(
            "--{FOLLOW}: these are no choices of such a run, as where the driver has changed since they were found: {complaint}"
        );
        return Err(Error::Input(InputError::new(message)).into());
    }
    Ok(report.outcome().exit_code())
}

/// What the search has come to.
fn tell(searched: &Searched<String>, interrupted: bool, arguments: &Explore) -> Result<()> {
    let show = Show::new(&arguments.view, &arguments.isolation)?;
    let fast = if arguments.fast && searched.found.is_none() { " (fast: not checked)" } else { "" };
    let replay = |choices: &Choices| {
        let follow = format!("--{FOLLOW}={}", remote_runner::joined(choices));
        again::command(&IN_SEARCH_ONLY, &[follow])
    };
    if show.is_json() {
        let findings = remarked::as_json(&searched.remarks, replay);
        show.line(&as_json(searched, interrupted, checked(arguments), &findings));
        return Ok(());
    }
    show.line(&(as_text(searched, interrupted, arguments) + fast));
    let by_cost = arguments.policy.is_none();
    if searched.found.is_none()
        && let Some(text) = not_tried::as_text(&searched.not_tried, by_cost)
    {
        show.line(&text);
    }
    if interrupted {
        show.line(&goes_on(arguments));
    }
    let runs = schedules(searched.total());
    if let Some(text) = remarked::as_text(&searched.remarks, &runs, replay) {
        show.line(&show.dressed(&text));
    }
    if searched.found.is_some() && !searched.remarks.is_empty() {
        show.line("The last schedule, from its beginning:\n");
    }
    Ok(())
}

/// How an interrupted search goes on.
fn goes_on(arguments: &Explore) -> String {
    match arguments.state {
        Some(_) => {
            let words: Vec<String> =
                again::command(&[], &[]).iter().map(|word| again::quoted(word)).collect();
            format!("to go on: {}", words.join(" "))
        }
        None => "to go on, it has to begin anew: with --state FILE it would go on where it was".to_owned(),
    }
}

fn as_text(searched: &Searched<String>, interrupted: bool, arguments: &Explore) -> String {
    let explored = counted(searched, arguments);
    let lost = match searched.lost.len() {
        0 => String::new(),
        n => format!("; {n} more ended their process, and what departs from them further was not searched"),
    };
    match &searched.found {
        Some((choices, outcome)) => {
            let departures = match choices.len() {
                0 => "It is the usual one".to_owned(),
                1 => "It departs from the usual one once; the report says how, in words".to_owned(),
                n => format!("It departs from the usual one {n} times; the report says how, in words"),
            };
            // What was found besides stands between this and the run.
            let begins = if searched.remarks.is_empty() { " That run, from its beginning:\n" } else { "" };
            format!("{explored}: the last one is {outcome}{lost}. {departures}.{begins}")
        }
        None if interrupted => format!("{explored}{lost}: it was interrupted, and none of them is broken"),
        None if !searched.complete && lost.is_empty() => {
            format!("{explored}, and none is broken; there are more (--schedules says how many to try)")
        }
        None if !searched.complete => format!("{explored}, and none is broken{lost}"),
        None if arguments.policy.is_some() => format!("{explored}, and none is broken"),
        None => format!(
            "{explored}: all there are with up to {} preemption{}, and none is broken",
            arguments.preemptions,
            if arguments.preemptions == 1 { "" } else { "s" }
        ),
    }
}

fn counted(searched: &Searched<String>, arguments: &Explore) -> String {
    let total = searched.total();
    if let Some(policy) = arguments.policy {
        return format!("explored {} from {policy} on", schedules(total));
    }
    let all = searched.schedules.iter().enumerate().filter(|(_, runs)| **runs > 0);
    let counts: Vec<String> = all
        .map(|(preemptions, runs)| match preemptions {
            0 => format!("{runs} without a preemption"),
            n => format!("{runs} with {n}"),
        })
        .collect();
    let mut counts = counts.join(", ");
    if searched.learned > 0 {
        counts += &format!(
            "; {} before it was known that {} instructions touch what others touch",
            searched.repeated, searched.learned
        );
    }
    let counts = if counts.is_empty() { counts } else { format!(" ({counts})") };
    format!("explored {}{counts}", schedules(total))
}

/// `1 schedule`, `2 schedules`.
pub(crate) fn schedules(count: u64) -> String {
    if count == 1 { "1 schedule".to_owned() } else { format!("{count} schedules") }
}

/// Of which schedules each access is tested.
fn checked(arguments: &Explore) -> &'static str {
    match (arguments.checked, arguments.fast) {
        (true, _) => "all",
        (_, true) => "none",
        _ => "shown",
    }
}

fn as_json(searched: &Searched<String>, interrupted: bool, checked: &str, findings: &Value) -> String {
    let choices = searched.found.as_ref().map(|(choices, _)| {
        choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(",")
    });
    let runs: Vec<String> = searched.schedules.iter().map(ToString::to_string).collect();
    let choices = choices.map_or_else(|| "null".to_owned(), |choices| format!("[{choices}]"));
    format!(
        r#"{{"explored":{{"checked":"{}","schedules":[{}],"repeated":{},"shared_instructions":{},"complete":{},"choices":{choices},"not_searched":{},"interrupted":{interrupted},"not_tried":{},"findings":{findings}}}}}"#,
        checked,
        runs.join(","),
        searched.repeated,
        searched.learned,
        searched.complete,
        searched.lost.len(),
        not_tried::as_json(&searched.not_tried)
    )
}
