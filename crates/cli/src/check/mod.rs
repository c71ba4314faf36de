//! `dirql check`: the driver is asked what it offers, and everything is tried that the kernel contract allows, by as many processes as are worth having.
//!
//! One process makes the survey; others carry out the exercises and their searches ([`campaign`]). What they find does not depend on how many there are
//! at a time: results are put together in the order of the exercises.

mod campaign;
mod confirm;
mod corpus;
mod html;
mod junit;
mod kept;
mod report;
mod sarif;
mod setting;
mod state;
mod things;
mod until;
mod worker;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use dirql::check::{self, Absent, Exercise, Extent, KeptSequence, Survey, WithValues};
use dirql::interrupts::Interrupts;
use serde::{Deserialize, Serialize};

use crate::arguments::Check;
use crate::many::host_processors;
use crate::out::{self, complain};
use crate::outputs::Outputs;
use crate::progress::Progress;
use campaign::Campaign;
use report::Report;

pub(crate) use until::Until;

/// So often a driver is asked what more it looks for in the registry, where there is what it looked for before.
const ROUNDS: usize = 4;
/// So much is there at most.
const VALUES: usize = 16;

/// Makes the campaign, and tells what came of it.
///
/// # Errors
/// What is given cannot be used; processes cannot be started.
pub(crate) fn run(mut arguments: Check) -> Result<u8> {
    let more = setting::complete(&mut arguments.setup)?;
    if arguments.isolation.confined.is_some() {
        return worker::run(&arguments);
    }
    if arguments.isolation.in_process {
        bail!("--in-process: a check makes many machines, each in a process of its own; leave it out");
    }
    let files = outputs(&arguments)?;
    arguments.keep.as_deref().map(kept::check).transpose()?;
    let kept = arguments.corpus.as_deref().map(corpus::read).transpose()?.unwrap_or_default();
    let interrupts = Interrupts::note().context("signals cannot be noted")?;
    let stop = interrupts.came();
    let progress = Progress::new(!arguments.quiet);
    let mut campaign = Campaign { arguments: &arguments, more, stop, progress };
    let survey = match campaign.survey(Extent::Everything, &[])? {
        Ok(survey) => survey,
        Err(code) => return Ok(code),
    };
    let (survey, device) = match setting::device_for(&arguments.setup, &survey) {
        None => (survey, None),
        Some(device) => {
            campaign.more.push(format!("--device={device}"));
            match campaign.survey(Extent::Everything, &[])? {
                Ok(survey) => (survey, Some(device)),
                Err(code) => return Ok(code),
            }
        }
    };
    let (survey, other) = with_another_card(&mut campaign, survey, device.as_deref())?;
    let Campaign { more, progress, .. } = campaign;
    if more.contains(&setting::low_memory()) {
        arguments.setup.platform.push(setting::LOW_MEMORY.to_owned());
    }
    let device = match (device, other) {
        (Some(_), Some(other)) => Some(other),
        (device, None) => device,
        // The INF's is as good as the user's.
        (None, Some(other)) => {
            arguments.setup.devices = vec![other];
            None
        }
    };
    let campaign = Campaign { arguments: &arguments, more, stop, progress };
    let of_more = |more: Option<Vec<String>>| -> Result<Option<(Survey, Vec<String>)>> {
        let Some(more) = more else { return Ok(None) };
        if !survey.is_hardware {
            // A word may be another device's number.
            return Ok(campaign.survey(Extent::Requests, &more)?.ok().map(|found| (found, more)));
        }
        // The driver offers the same, and to ask it all again takes long where a line is busy.
        let found = campaign.survey(Extent::Start, &more)?.ok();
        Ok(found.map(|found| (found.with_requests_of(&survey), more)))
    };
    let neighbours = of_more(setting::neighbours(&arguments.setup, &survey, device.as_deref()))?;
    let busy = of_more(setting::busy_line(&arguments.setup, &survey))?;
    if stop.load(Ordering::Relaxed) {
        complain!("dirql: interrupted before anything was tried");
        return Ok(crate::NO_ANSWER);
    }
    let values = with_values(&campaign, &survey)?;
    let has_little_memory = campaign.more.contains(&setting::low_memory());
    let surveys = Surveys { own: survey, neighbours, busy, values, has_little_memory, kept };
    let exercises = exercises(&arguments, &surveys)?;
    if exercises.is_empty() {
        let titles = arguments.exercise.join("` or `");
        bail!("--exercise: no exercise has a title that begins with `{titles}`; `--json` shows all of them");
    }
    let (state, done) = match &arguments.state {
        Some(path) => state::open(&arguments, path, &exercises).map(|(state, done)| (Some(state), done))?,
        None => (None, BTreeMap::new()),
    };
    let results = campaign.all(&surveys, &exercises, state.as_ref(), done)?;
    drop(interrupts);
    if let Some(folder) = &arguments.corpus {
        let sequences = results.iter().flatten().flat_map(|result| &result.sequences).cloned();
        corpus::write(folder, &surveys.kept, &sequences.collect::<Vec<_>>())?;
    }
    let survey = surveys.own;
    let mut report = Report::new(&arguments, device, &survey, &exercises, results)?;
    report.confirm(arguments.workers.unwrap_or_else(host_processors));
    write(&arguments, &report, &files)?;
    report.tell();
    Ok(report.exit_code())
}

/// A driver that does not start with the card that was made for it is given one whose registers hold what it looks for, one with larger windows, or both, if it
/// starts with that: what it offers then, and that card. Else it is given a computer with little memory, if it starts there, or if more of its requests
/// succeed.
fn with_another_card(
    campaign: &mut Campaign<'_>,
    survey: Survey,
    chosen: Option<&str>,
) -> Result<(Survey, Option<String>)> {
    let devices = &campaign.arguments.setup.devices;
    let cards = setting::cards_of_unknown(devices, survey.ready, chosen);
    let before = campaign.more.clone();
    let mut looked_for = survey.identity.clone();
    for (at, card) in cards.into_iter().enumerate() {
        if at > 0 {
            campaign.with_device(&card);
            match campaign.survey(Extent::Everything, &[])? {
                Ok(other) if other.ready => return Ok((other, Some(card))),
                other => looked_for = other.map(|other| other.identity).unwrap_or_default(),
            }
        }
        if looked_for.is_empty() {
            continue;
        }
        let card = format!("{card},{}", looked_for.join(","));
        campaign.with_device(&card);
        if let Ok(other) = campaign.survey(Extent::Everything, &[])?
            && other.ready
        {
            return Ok((Survey { identity: looked_for, ..other }, Some(card)));
        }
    }
    campaign.more = before;
    let setup = &campaign.arguments.setup;
    let requests = &survey.operations;
    // A handle may be refused that needs memory which the card reaches.
    let offers_all =
        survey.ready && !requests.is_empty() && requests.iter().all(|one| one.succeeds || one.variant);
    if !offers_all && !setup.platform().low_memory && setting::takes_bus_addresses(setup) {
        // Its card may not reach all addresses.
        campaign.more.push(setting::low_memory());
        match campaign.survey(Extent::Everything, &[])? {
            Ok(other) if offered(&other) > offered(&survey) => return Ok((other, None)),
            _ => drop(campaign.more.pop()),
        }
    }
    Ok((survey, None))
}

/// How much a driver offers: whether it starts, and then how many kinds of requests succeed.
fn offered(survey: &Survey) -> (bool, usize) {
    let kinds = survey.operations.iter().filter(|one| one.succeeds && !one.variant);
    (survey.ready, kinds.count())
}

/// What is in the registry in more exercises: what the driver asks for and what is not there. A key that is there, and a value that is 1, may have it ask for
/// more.
fn with_values(campaign: &Campaign<'_>, own: &Survey) -> Result<Option<WithValues>> {
    let start = |values: &[Absent]| campaign.survey(Extent::Start, &check::registry_options(values));
    let mut all: Vec<Absent> = Vec::new();
    let (mut fresh, mut ready) = (own.absent.clone(), own.ready);
    for _ in 0..ROUNDS {
        fresh.truncate(VALUES.saturating_sub(all.len()));
        if fresh.is_empty() {
            break;
        }
        all.append(&mut fresh);
        let Ok(survey) = start(&all)? else { break };
        ready = survey.ready;
        fresh = survey.absent.into_iter().filter(|one| !all.iter().any(|known| known.is_same(one))).collect();
    }
    if all.iter().all(|one| one.name.is_none()) {
        return Ok(None);
    }
    let mut usable = all.clone();
    if own.ready && !ready {
        usable.clear();
        for one in &all {
            if start(std::slice::from_ref(one))?.is_ok_and(|survey| survey.ready) {
                usable.push(one.clone());
            }
        }
    }
    let survey = campaign.survey(Extent::Requests, &check::registry_options(&usable))?;
    Ok(survey.ok().map(|survey| WithValues { all, usable, survey }))
}

/// The files that are wanted. Asked before hours of work: whether they, and the one of `--state`, can be written.
fn outputs(arguments: &Check) -> Result<Outputs> {
    let Check { setup, isolation, sarif, junit, html, lcov, state, .. } = arguments;
    let bench = crate::run::bench(setup)?;
    let inputs = crate::run::inputs(setup, &bench, crate::run::script(setup)?.as_ref())?;
    let reports = [sarif, junit, html, lcov].map(Option::as_ref);
    Outputs::new(isolation, reports.into_iter().chain([state.as_ref()])).check(&inputs)?;
    Ok(Outputs::new(isolation, reports))
}

/// Writes them.
fn write(arguments: &Check, report: &Report<'_>, files: &Outputs) -> Result<()> {
    let put = |path: &PathBuf, text: String| -> Result<()> {
        let mut file = files.create(path)?;
        out::note(&path.display().to_string(), file.write_all(text.as_bytes()));
        Ok(())
    };
    if let Some(path) = &arguments.sarif {
        put(path, sarif::text(report))?;
    }
    if let Some(path) = &arguments.junit {
        put(path, junit::text(report))?;
    }
    if let Some(path) = &arguments.html {
        put(path, html::text(report, path))?;
    }
    if let Some(path) = &arguments.lcov {
        put(path, report.coverage().lcov())?;
    }
    if let Some(folder) = &arguments.keep {
        kept::write(folder, report)?;
    }
    Ok(files.keep()?)
}

/// What was found out of the driver.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Surveys {
    /// In the machine that the user has described.
    own: Survey,
    /// The same with two devices more, and the options for these.
    neighbours: Option<(Survey, Vec<String>)>,
    /// The same with one card more, and another that interrupts all the time on its line.
    busy: Option<(Survey, Vec<String>)>,
    /// What is in the registry in more exercises.
    values: Option<WithValues>,
    /// The computer has little memory, so that more requests succeed.
    has_little_memory: bool,
    /// What earlier checks have come upon.
    kept: Vec<KeptSequence>,
}

/// What is tried: the user's own script behind the first.
fn exercises(arguments: &Check, surveys: &Surveys) -> Result<Vec<Exercise>> {
    let mut exercises = check::exercises(&surveys.own, arguments.budget);
    if let Some(script) = crate::run::script(&arguments.setup)? {
        script.play().map_err(dirql::Error::Input)?;
        let usual = exercises[0].clone();
        exercises.insert(1, Exercise { title: script.source, script: script.text, ..usual });
    }
    exercises.extend(check::exercises_of_kept(&surveys.own, &surveys.kept, arguments.budget));
    if let Some((survey, more)) = &surveys.neighbours {
        exercises.extend(check::exercises_of_neighbours(survey, more, arguments.budget));
    }
    if let Some((survey, more)) = &surveys.busy {
        exercises.extend(check::exercises_on_busy_line(survey, more, arguments.budget));
    }
    if surveys.has_little_memory {
        exercises.extend(check::exercises_beyond_reach(&surveys.own, arguments.budget));
    }
    if let Some(values) = &surveys.values {
        exercises.extend(check::exercises_with_values(values, arguments.budget));
    }
    if !arguments.exercise.is_empty() {
        exercises
            .retain(|exercise| arguments.exercise.iter().any(|wanted| is_title(wanted, &exercise.title)));
    }
    Ok(exercises)
}

/// Whether this is a title's beginning, or what a finding is shown by: a title, and how what happened departs from the usual.
fn is_title(wanted: &str, title: &str) -> bool {
    title.starts_with(wanted) || wanted.strip_prefix(title).is_some_and(|how| how.starts_with(", "))
}
