//! The processes of `dirql check`: one that makes the survey, and as many as are worth having that carry exercises out and search them.
//!
//! A machine costs more to make than many an exercise to carry out: so a process has one machine, and does several jobs with it, which need the same. A
//! process that dies costs the attempt that it died of, and another one goes on behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use dirql::check::{self, Cause, Exercise, Extent, Survey};
use serde::{Deserialize, Serialize};

use super::Surveys;
use super::report::Found;
use super::state::CheckState;
use super::until;
use super::worker::{Jobs, Line, Shown, Turn};
use crate::arguments::Check;
use crate::isolate::{self, End};
use crate::many::host_processors;
use crate::out::errors;
use crate::progress::{Progress, Share};

/// How often a job's process may die before the job is given up.
const DEATHS: u32 = 3;
/// So many jobs are done by one process.
const BATCH: usize = 32;

/// The campaign's processes.
pub(super) struct Campaign<'a> {
    pub(super) arguments: &'a Check,
    /// Arguments of each.
    pub(super) more: Vec<String>,
    /// Set when the user does not want to wait.
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: Progress,
}

/// Jobs that one process does, and how many attempts had hung behind those before them.
struct Batch {
    jobs: Vec<usize>,
    hung: u32,
}

/// What one process has to do with one exercise.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) struct Job {
    /// The exercise's number.
    pub(super) exercise: usize,
    /// Its schedules are searched; else it is carried out.
    pub(super) search: bool,
}

/// What came of one job: an exercise's attempts, or its search.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct JobResult {
    /// What is wrong, with what shows it, in the order in which it was found.
    pub(super) found: Vec<Found>,
    /// How often it was tried.
    pub(super) attempts: u64,
    /// Of the calls that may fail, how many did, and how many there are.
    pub(super) failed: u64,
    pub(super) could_fail: u64,
    /// The instructions that were reached, as offsets in the image.
    pub(super) reached: BTreeSet<u32>,
    /// Sequences of requests that came to new code.
    pub(super) sequences: Vec<String>,
    /// A search has tried all schedules within its bound.
    pub(super) complete: bool,
    /// So many attempts had hung by then in its process, as the next job there has to know.
    hung: u32,
    /// What dirql lacks, or its own faults.
    pub(super) no_answers: Vec<String>,
}

impl JobResult {
    /// The job's process has said this of it.
    fn take(&mut self, line: Line, known: &mut Vec<(Cause, Shown)>, exercise: usize) {
        match line {
            Line::Known { cause, shown } => known.push((*cause, shown)),
            Line::Tried { causes, no_answer, .. } => {
                self.attempts += 1;
                for known in causes.into_iter().filter_map(|index| known.get(index).cloned()) {
                    self.add(known, exercise);
                }
                no_answer.into_iter().for_each(|why| self.no_answer(why));
            }
            Line::Reached(distances) => {
                let offsets = distances.iter().scan(0, |at, distance| {
                    *at += distance;
                    Some(*at)
                });
                self.reached.extend(offsets);
            }
            Line::Sequences(scripts) => self.sequences = scripts,
            Line::Ended { attempts, failed, could_fail, complete, hung } => {
                (self.failed, self.could_fail) = (failed, could_fail);
                (self.complete, self.hung) = (complete, hung);
                self.attempts = self.attempts.max(attempts);
            }
        }
    }

    /// One attempt has shown this.
    fn add(&mut self, (cause, shown): (Cause, Shown), exercise: usize) {
        match self.found.iter_mut().find(|found| found.cause.key == cause.key) {
            Some(found) => found.attempts += 1,
            None => self.found.push(Found { cause, shown, exercise, attempts: 1, departures: 0 }),
        }
    }

    fn no_answer(&mut self, why: String) {
        if !self.no_answers.contains(&why) {
            self.no_answers.push(why);
        }
    }
}

impl Campaign<'_> {
    /// Has machines made with another device than the one that was chosen.
    pub(super) fn with_device(&mut self, device: &str) {
        self.more.retain(|more| !more.starts_with("--device="));
        self.more.push(format!("--device={device}"));
    }

    /// The survey; or the exit code, if what was given is of no use.
    pub(super) fn survey(&self, extent: Extent, besides: &[String]) -> Result<Result<Survey, u8>> {
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

    /// All jobs but those that are done, by as many processes at a time as was asked for. Nothing came of those that were not over when it was interrupted, or
    /// that come behind what `--until` asks for.
    pub(super) fn all(
        &self,
        surveys: &Surveys,
        exercises: &[Exercise],
        state: Option<&CheckState>,
        mut done: BTreeMap<usize, JobResult>,
    ) -> Result<Vec<Option<JobResult>>> {
        let jobs = jobs(exercises);
        let results: Vec<_> = (0..jobs.len()).map(|number| done.remove(&number)).collect();
        let hung = |number: usize| results[number].as_ref().map(|result: &JobResult| result.hung);
        let batches = self.batches(exercises, &jobs, hung);
        let (next, results) = (AtomicUsize::new(0), Mutex::new(results));
        let keep = |number: usize, result: JobResult| {
            if let Some(state) = state {
                state.done(number, &result);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
        };
        let enough = until::Enough::new(self.arguments.until.as_ref());
        let sizes = || batches.iter().flat_map(|batch| &batch.jobs).map(|job| jobs[*job].size(exercises));
        let share = Share::of(sizes().sum());
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(batch) = batches.get(number).filter(|_| !enough.excludes(number)) else { break };
                let keep = |job: usize, result: JobResult| {
                    let is_enough = enough.is_met_by(number, &result);
                    keep(job, result);
                    share.done(jobs[job].size(exercises));
                    !is_enough
                };
                let tell = |number: usize| {
                    let title = &exercises[jobs[number].exercise].title;
                    self.progress.at(|| format!("{share}, job {number} of {}: {title}", jobs.len()));
                };
                self.batch(surveys, exercises, &jobs, batch, (&keep, &tell), &|| enough.excludes(number))?;
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(())
        };
        let workers = self.arguments.workers.unwrap_or_else(host_processors);
        // Outside of any machine: each thread only waits for processes.
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("waiting does not panic"))
        })?;
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let beyond = batches.iter().enumerate().filter(|(number, _)| enough.excludes(*number));
        beyond.flat_map(|(_, batch)| &batch.jobs).for_each(|job| results[*job] = None);
        Ok(results)
    }

    /// What one process does, for each process, in the order of their first jobs; without those that are done, of which it is known how many attempts had `hung`
    /// behind them.
    fn batches(
        &self,
        exercises: &[Exercise],
        jobs: &[Job],
        hung: impl Fn(usize) -> Option<u32>,
    ) -> Vec<Batch> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut open = BTreeMap::new();
        for (number, job) in jobs.iter().enumerate() {
            let exercise = &exercises[job.exercise];
            let alone = exercise.is_long().then_some(number);
            let batch =
                open.entry((alone, job.search, self.options(exercise, job.search))).or_insert(usize::MAX);
            if batches.get(*batch).is_none_or(|batch| batch.len() == BATCH) {
                *batch = batches.len();
                batches.push(Vec::new());
            }
            batches[*batch].push(number);
        }
        // Which jobs have a process in common does not depend on what is done: a process does them in their order.
        let left = batches.into_iter().map(|jobs| {
            let before = jobs.iter().map_while(|job| hung(*job)).last();
            let jobs = jobs.into_iter().filter(|job| hung(*job).is_none()).collect();
            Batch { jobs, hung: before.unwrap_or(0) }
        });
        left.filter(|batch| !batch.jobs.is_empty()).collect()
    }

    /// The options of the machine that an exercise needs.
    fn options(&self, exercise: &Exercise, search: bool) -> Vec<String> {
        let processors = exercise.processors.max(self.arguments.setup.processors);
        // A search has its own way to what two threads touch.
        let of_exercise = exercise.more.iter().filter(|option| !search || *option != check::RACES);
        of_exercise.cloned().chain([format!("--processors={processors}")]).collect()
    }

    /// Has these jobs done by one process, and more of them if it dies. What came of each goes to `keep`, which says whether the others are to be done; none are
    /// once they are `excluded`. Each is passed to `tell` before it is begun.
    fn batch(
        &self,
        surveys: &Surveys,
        exercises: &[Exercise],
        jobs: &[Job],
        batch: &Batch,
        (keep, tell): (&impl Fn(usize, JobResult) -> bool, &impl Fn(usize)),
        excluded: &impl Fn() -> bool,
    ) -> Result<()> {
        let first = jobs[batch.jobs[0]];
        let options = self.options(&exercises[first.exercise], first.search);
        let (mut left, mut hung) = (batch.jobs.as_slice(), batch.hung);
        // Of the first job that is left.
        let (mut result, mut attempt, mut deaths) = (JobResult::default(), 0, 0);
        while let Some(number) = left.first() {
            let of_process = left.iter().map(|number| jobs[*number]).collect();
            let of_process = Jobs { jobs: of_process, first: attempt, hung };
            let turn = Turn::Jobs(Box::new(surveys.clone()), of_process);
            let more = self.more.iter().chain(&options).cloned();
            let more: Vec<String> = more.chain([format!("--{}={}", isolate::TURN, turn.text())]).collect();
            let (mut known, mut goes_on) = (Vec::new(), true);
            tell(*number);
            let end = isolate::watch(&self.arguments.isolation, &more, self.stop, |line| {
                let (Ok(line), Some(number)) = (serde_json::from_str(line), left.first()) else {
                    return false;
                };
                if let Line::Tried { number, .. } = &line {
                    attempt = number + 1;
                }
                let is_over = matches!(line, Line::Ended { .. });
                result.take(line, &mut known, jobs[*number].exercise);
                if is_over {
                    hung = result.hung;
                    goes_on = keep(*number, std::mem::take(&mut result));
                    known.clear();
                    (attempt, deaths, left) = (0, 0, if goes_on { &left[1..] } else { &[] });
                    left.first().copied().into_iter().for_each(tell);
                }
                goes_on && !excluded()
            })?;
            let Some(number) = left.first() else { break };
            if self.stop.load(Ordering::Relaxed) || excluded() {
                break;
            }
            let why = match end {
                End::With(0, _) => "it has ended before its time".to_owned(),
                End::With(_, text) => text,
                End::Died(death) => death.what().to_owned(),
                End::Stopped => "it has said what cannot be understood".to_owned(),
            };
            let job = jobs[*number];
            let title = &exercises[job.exercise].title;
            result.no_answer(format!(
                "attempt {attempt} of \"{title}\" has ended its process: {}",
                why.trim_end()
            ));
            (attempt, deaths) = (attempt + 1, deaths + 1);
            if job.search || deaths == DEATHS {
                result.hung = hung;
                if !keep(*number, std::mem::take(&mut result)) {
                    break;
                }
                (attempt, deaths, left) = (0, 0, &left[1..]);
            }
        }
        Ok(())
    }
}

impl Job {
    /// About how much there is to do, in attempts.
    fn size(&self, exercises: &[Exercise]) -> u64 {
        let effort = exercises[self.exercise].effort;
        if self.search { effort.schedules } else { effort.attempts() }
    }
}

/// What is to be done, in the order in which it is reported.
pub(super) fn jobs(exercises: &[Exercise]) -> Vec<Job> {
    let of = |(at, exercise): (usize, &Exercise)| {
        let job = Job { exercise: at, search: false };
        // What a search finds departs from the usual at fewer places.
        let search = (exercise.effort.schedules > 0).then_some(Job { search: true, ..job });
        search.into_iter().chain([job])
    };
    exercises.iter().enumerate().flat_map(of).collect()
}
