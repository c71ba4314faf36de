//! `dirql check`: the driver is asked what it offers, and everything is tried that the kernel contract allows, by as many processes as are worth having.
//!
//! One process makes the survey, then each exercise has one of its own, and one more for its search. What they find does not depend on how many there are
//! at a time: results are put together in the order of the exercises. A process that dies costs the attempt that it died of.

mod html;
mod junit;
mod kept;
mod report;
mod sarif;
mod setting;
mod state;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use dirql::check::{self, Cause, Exercise, Extent, Survey};
use dirql::interrupts::Interrupts;
use serde::{Deserialize, Serialize};

use crate::arguments::Check;
use crate::isolate::{self, End};
use crate::many::host_processors;
use crate::out::{self, complain, errors};
use crate::outputs::Outputs;
use crate::progress::Progress;
use report::{Found, Report};
use state::CheckState;
use worker::{Line, Shown, Turn};

/// How often a job's process may die before the job is given up.
const DEATHS: u32 = 3;

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
    let interrupts = Interrupts::note().context("signals cannot be noted")?;
    let stop = interrupts.came();
    let mut campaign =
        Campaign { arguments: &arguments, more, stop, progress: Progress::new(!arguments.quiet) };
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
    let of_more = |more: Option<Vec<String>>| -> Result<Option<(Survey, Vec<String>)>> {
        let Some(more) = more else { return Ok(None) };
        Ok(campaign.survey(Extent::Requests, &more)?.ok().map(|survey| (survey, more)))
    };
    let neighbours = of_more(setting::neighbours(&arguments.setup, &survey))?;
    let busy = of_more(setting::busy_line(&arguments.setup, &survey))?;
    if stop.load(Ordering::Relaxed) {
        complain!("dirql: interrupted before anything was tried");
        return Ok(crate::NO_ANSWER);
    }
    let surveys = Surveys { own: survey, neighbours, busy };
    let exercises = exercises(&arguments, &surveys)?;
    let (state, done) = match &arguments.state {
        Some(path) => state::open(&arguments, path, &exercises).map(|(state, done)| (Some(state), done))?,
        None => (None, BTreeMap::new()),
    };
    let results = campaign.all(&surveys, &exercises, state.as_ref(), done)?;
    drop(interrupts);
    let survey = surveys.own;
    let report = Report::new(&arguments, device, &survey, &exercises, results)?;
    write(&arguments, &report, &files)?;
    report.tell();
    Ok(report.exit_code())
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
    /// The same with two cards more, and the options for these.
    neighbours: Option<(Survey, Vec<String>)>,
    /// The same with one card more, and another that interrupts all the time on its line.
    busy: Option<(Survey, Vec<String>)>,
}

/// What is tried: the user's own script behind the first.
fn exercises(arguments: &Check, surveys: &Surveys) -> Result<Vec<Exercise>> {
    let mut exercises = check::exercises(&surveys.own, arguments.budget);
    if let Some(script) = crate::run::script(&arguments.setup)? {
        script.play().map_err(dirql::Error::Input)?;
        let usual = exercises[0].clone();
        exercises.insert(1, Exercise { title: script.source, script: script.text, ..usual });
    }
    if let Some((survey, more)) = &surveys.neighbours {
        exercises.extend(check::exercises_of_neighbours(survey, more, arguments.budget));
    }
    if let Some((survey, more)) = &surveys.busy {
        exercises.extend(check::exercises_on_busy_line(survey, more, arguments.budget));
    }
    Ok(exercises)
}

/// The campaign's processes.
struct Campaign<'a> {
    arguments: &'a Check,
    /// Arguments of each.
    more: Vec<String>,
    /// Set when the user does not want to wait.
    stop: &'a AtomicBool,
    progress: Progress,
}

/// What came of one job: an exercise's attempts, or its search.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct JobResult {
    /// What is wrong, with what shows it, in the order in which it was found.
    found: Vec<Found>,
    /// How often it was tried.
    attempts: u64,
    /// Of the calls that may fail, how many did, and how many there are.
    failed: u64,
    could_fail: u64,
    /// The instructions that were reached, as offsets in the image.
    reached: BTreeSet<u32>,
    /// A search has tried all schedules within its bound.
    complete: bool,
    /// What dirql lacks, or its own faults.
    no_answers: Vec<String>,
}

impl JobResult {
    /// One attempt has shown this.
    fn add(&mut self, (cause, shown): (Cause, Shown), exercise: usize) {
        match self.found.iter_mut().find(|found| found.cause.key == cause.key) {
            Some(found) => found.attempts += 1,
            None => self.found.push(Found { cause, shown, exercise, attempts: 1 }),
        }
    }

    fn no_answer(&mut self, why: String) {
        if !self.no_answers.contains(&why) {
            self.no_answers.push(why);
        }
    }
}

impl Campaign<'_> {
    /// The survey; or the exit code, if what was given is of no use.
    fn survey(&self, extent: Extent, besides: &[String]) -> Result<Result<Survey, u8>> {
        self.progress.at(|| "asking the driver what it offers".to_owned());
        let mut survey = None;
        let turn = format!("--{}={}", isolate::TURN, Turn::Survey(extent).text());
        let more: Vec<String> = self.more.iter().chain(besides).cloned().chain([turn]).collect();
        let end = isolate::watch(&self.arguments.isolation, &more, self.stop, |line| {
            survey = serde_json::from_str(line).ok();
            true
        })?;
        Ok(match (end, survey) {
            (End::With(0, _), Some(survey)) => Ok(survey),
            (End::With(code, text), _) => {
                errors(text.as_bytes());
                Err(code)
            }
            // What kills the process as soon as the driver is loaded is tried again where each attempt is watched.
            _ => Ok(Survey {
                failure: Some("the process that asked it what it offers has died".to_owned()),
                ..Survey::default()
            }),
        })
    }

    /// All jobs but those that are done, by as many processes at a time as was asked for. Nothing came of those that were not over when it was interrupted.
    fn all(
        &self,
        surveys: &Surveys,
        exercises: &[Exercise],
        state: Option<&CheckState>,
        mut done: BTreeMap<usize, JobResult>,
    ) -> Result<Vec<Option<JobResult>>> {
        let mut jobs: Vec<(usize, bool)> = Vec::new();
        for (at, exercise) in exercises.iter().enumerate() {
            // What a search finds departs from the usual at fewer places.
            if exercise.effort.schedules > 0 {
                jobs.push((at, true));
            }
            jobs.push((at, false));
        }
        let next = AtomicUsize::new(0);
        let results: Vec<_> = (0..jobs.len()).map(|number| done.remove(&number)).collect();
        let known: Vec<bool> = results.iter().map(Option::is_some).collect();
        let results = Mutex::new(results);
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((at, search)) = jobs.get(number) else { return Ok(()) };
                if known[number] {
                    continue;
                }
                self.progress.at(|| format!("{} of {} jobs: {}", number, jobs.len(), exercises[*at].title));
                let result = self.job(surveys, *at, &exercises[*at], *search)?;
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if let Some(state) = state {
                    state.done(number, &result);
                }
                results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
            }
        };
        let workers = self.arguments.workers.unwrap_or_else(host_processors);
        // Outside of any machine: each thread only waits for processes.
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("waiting does not panic"))
        })?;
        Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn job(&self, surveys: &Surveys, at: usize, exercise: &Exercise, search: bool) -> Result<JobResult> {
        let mut result = JobResult::default();
        let mut first = 0;
        for _ in 0..DEATHS {
            let surveys = surveys.clone();
            let turn = if search { Turn::Search(surveys, at) } else { Turn::Exercise(surveys, at, first) };
            let mut attempt = first;
            let mut known: Vec<(Cause, Shown)> = Vec::new();
            let more = [
                format!("--{}={}", isolate::TURN, turn.text()),
                format!("--processors={}", exercise.processors.max(self.arguments.setup.processors)),
            ];
            // A search has its own way to what two threads touch.
            let of_exercise = exercise.more.iter().filter(|option| !search || *option != check::RACES);
            let more: Vec<String> = self.more.iter().chain(of_exercise).cloned().chain(more).collect();
            let end = isolate::watch(&self.arguments.isolation, &more, self.stop, |line| {
                match serde_json::from_str(line) {
                    Ok(Line::Known { cause, shown }) => known.push((cause, shown)),
                    Ok(Line::Tried { number, causes, no_answer }) => {
                        attempt = number + 1;
                        result.attempts += 1;
                        for known in causes.into_iter().filter_map(|index| known.get(index).cloned()) {
                            result.add(known, at);
                        }
                        no_answer.into_iter().for_each(|why| result.no_answer(why));
                    }
                    Ok(Line::Reached(distances)) => {
                        let offsets = distances.iter().scan(0, |at, distance| {
                            *at += distance;
                            Some(*at)
                        });
                        result.reached.extend(offsets);
                    }
                    Ok(Line::Ended { attempts, failed, could_fail, complete }) => {
                        (result.failed, result.could_fail, result.complete) = (failed, could_fail, complete);
                        result.attempts = result.attempts.max(attempts);
                    }
                    Err(_) => return false,
                }
                true
            })?;
            let why = match end {
                End::With(0, _) => return Ok(result),
                End::With(_, text) => text,
                End::Died(death) => death.what().to_owned(),
                End::Stopped => "it has said what cannot be understood".to_owned(),
            };
            result.no_answer(format!(
                "attempt {attempt} of \"{}\" has ended its process: {}",
                exercise.title,
                why.trim_end()
            ));
            if search {
                break;
            }
            first = attempt + 1;
        }
        Ok(result)
    }
}
