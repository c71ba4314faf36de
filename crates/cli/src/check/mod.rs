//! `dirql check`: the driver is asked what it offers, and everything is tried that the kernel contract allows, by as many processes as are worth having.
//!
//! One process makes the survey, then each exercise has one of its own, and one more for its search. What they find does not depend on how many there are
//! at a time: results are put together in the order of the exercises. A process that dies costs the attempt that it died of.

mod report;
mod setting;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use dirql::check::{self, Cause, Exercise, Survey};

use crate::arguments::Check;
use crate::isolate::{self, End};
use crate::many::host_processors;
use crate::out::errors;
use crate::progress::Progress;
use report::{Found, Report};
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
    let mut campaign = Campaign {
        arguments: &arguments,
        more,
        stop: AtomicBool::new(false),
        progress: Progress::new(!arguments.quiet),
    };
    let survey = match campaign.survey()? {
        Ok(survey) => survey,
        Err(code) => return Ok(code),
    };
    let (survey, device) = match setting::device_for(&arguments.setup, &survey) {
        None => (survey, None),
        Some(device) => {
            campaign.more.push(format!("--device={device}"));
            match campaign.survey()? {
                Ok(survey) => (survey, Some(device)),
                Err(code) => return Ok(code),
            }
        }
    };
    let exercises = exercises(&arguments, &survey)?;
    let results = campaign.all(&survey, &exercises)?;
    let report = Report::new(&arguments, device, &survey, &exercises, results);
    report.tell();
    Ok(report.exit_code())
}

/// What is tried: the user's own script behind the first.
fn exercises(arguments: &Check, survey: &Survey) -> Result<Vec<Exercise>> {
    let mut exercises = check::exercises(survey, arguments.budget);
    if let Some(script) = crate::run::script(&arguments.setup)? {
        script.play().map_err(dirql::Error::Input)?;
        let usual = exercises[0].clone();
        exercises.insert(1, Exercise { title: script.source, script: script.text, ..usual });
    }
    Ok(exercises)
}

/// The campaign's processes.
struct Campaign<'a> {
    arguments: &'a Check,
    /// Arguments of each.
    more: Vec<String>,
    stop: AtomicBool,
    progress: Progress,
}

/// What came of one job: an exercise's attempts, or its search.
#[derive(Default)]
pub(super) struct JobResult {
    /// What is wrong, with what shows it, in the order in which it was found.
    found: Vec<Found>,
    /// How often it was tried.
    attempts: u64,
    /// Of the calls that may fail, how many did, and how many there are.
    failed: u64,
    could_fail: u64,
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
    fn survey(&self) -> Result<Result<Survey, u8>> {
        self.progress.at(|| "asking the driver what it offers".to_owned());
        let mut survey = None;
        let turn = format!("--{}={}", isolate::TURN, Turn::Survey.text());
        let more: Vec<String> = self.more.iter().cloned().chain([turn]).collect();
        let end = isolate::watch(&self.arguments.isolation, &more, &self.stop, |line| {
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
            _ => Ok(Survey::default()),
        })
    }

    /// All jobs, by as many processes at a time as was asked for.
    fn all(&self, survey: &Survey, exercises: &[Exercise]) -> Result<Vec<JobResult>> {
        let mut jobs: Vec<(usize, bool)> = Vec::new();
        for (at, exercise) in exercises.iter().enumerate() {
            // What a search finds departs from the usual at fewer places.
            if exercise.effort.schedules > 0 {
                jobs.push((at, true));
            }
            jobs.push((at, false));
        }
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<JobResult>>> = Mutex::new(jobs.iter().map(|_| None).collect());
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((at, search)) = jobs.get(number) else { return Ok(()) };
                self.progress.at(|| format!("{} of {} jobs: {}", number, jobs.len(), exercises[*at].title));
                let result = self.job(survey, *at, &exercises[*at], *search)?;
                results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
            }
        };
        let workers = self.arguments.workers.unwrap_or_else(host_processors);
        // Outside of any machine: each thread only waits for processes.
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("waiting does not panic"))
        })?;
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(results.into_iter().flatten().collect())
    }

    fn job(&self, survey: &Survey, at: usize, exercise: &Exercise, search: bool) -> Result<JobResult> {
        let mut result = JobResult::default();
        let mut first = 0;
        for _ in 0..DEATHS {
            let survey = survey.clone();
            let turn = if search { Turn::Search(survey, at) } else { Turn::Exercise(survey, at, first) };
            let mut attempt = first;
            let mut known: Vec<(Cause, Shown)> = Vec::new();
            let more = [
                format!("--{}={}", isolate::TURN, turn.text()),
                format!("--processors={}", exercise.processors.max(self.arguments.setup.processors)),
            ];
            let more: Vec<String> = self.more.iter().cloned().chain(more).collect();
            let end = isolate::watch(&self.arguments.isolation, &more, &self.stop, |line| {
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
