//! `dirql run --runs N`: many runs by as many seeds, in some processes at a time; then the first that is not clean, shown as if it
//! had been asked for alone.
//!
//! A process makes some hundred runs in one machine, which is taken back to where nothing is loaded; what it says of them is
//! believed once it has ended well. If it does not, each of its runs so far, and the one that it died of, is made once more in a process
//! of its own. The output depends on the runs and their order only: not on how many there are at a time, nor on which ends first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use dirql::explore::{Choices, Policy, Remarks};
use dirql::{Bench, Error, InputError, Jail, Play, Report};

use crate::arguments::Run;
use crate::isolate::{self, Done, End};
use crate::out::{complain, say};
use crate::progress::Progress;
use crate::said::{Hears, Said, Tells};
use crate::{NO_ANSWER, UNUSABLE, again, remarked, terminal};

/// Which of the runs a process makes.
pub(crate) const NTH: &str = "nth";
/// It shows and records nothing.
pub(crate) const UNTOLD: &str = "untold";
/// It is checked, though the user wants fast ones.
pub(crate) const ANYWAY: &str = "checked-anyway";
/// The turn in which a process makes several runs: the numbers of the first, and of the one behind the last, follow.
pub(crate) const SEVERAL: &str = "several:";
/// Sent in place of codes, where a machine cannot be taken back.
const ALONE: &str = "alone";
/// So many at most: if the process dies, those that it has made are made again.
const MOST: u32 = 256;
/// Options that make no sense in the command that makes one of the runs again, each with a value.
const IN_MANY_ONLY: [&str; 7] =
    ["runs", "workers", "policy", "record", "figure", "files-save", "registry-save"];
/// The exit code of a clean run.
const CLEAN: u8 = 0;
/// The exit code of a run with a broken rule or expectation.
const BROKEN: u8 = 1;

/// Makes the runs, tells what came of them, and shows one.
///
/// # Errors
/// The policy has not so many seeds; processes cannot be started.
pub(crate) fn run(arguments: &Run, runs: u32) -> Result<u8> {
    let last = policy(arguments, runs - 1)?;
    let workers = arguments.many.workers.unwrap_or_else(host_processors);
    let (trials, alone) = trials(arguments, runs, workers)?;
    let first_with = |wanted: &dyn Fn(u8) -> bool| {
        trials.iter().find(|(_, trial)| wanted(trial.code)).map(|(run, trial)| (*run, trial.code))
    };
    let unusable = first_with(&|code| code == UNUSABLE);
    let shown =
        unusable.or_else(|| first_with(&|code| code == BROKEN)).or_else(|| first_with(&|code| code != CLEAN));
    let name = shown.map(|(run, _)| policy(arguments, run)).transpose()?;
    if unusable.is_none() {
        tell(arguments, trials, last, name, alone);
    }
    let Some((run, code)) = shown else { return Ok(CLEAN) };
    let again = isolate::shown(
        &arguments.isolation,
        &[format!("--{NTH}={run}")],
        &crate::run::outputs(arguments),
        crate::run::after_death(arguments),
    )?;
    if again != code {
        complain!(
            "dirql: this run has ended otherwise before, with code {code}: a fault of dirql, or of this host"
        );
        return Ok(NO_ANSWER);
    }
    Ok(again)
}

/// How many processes are worth having at a time.
pub(crate) fn host_processors() -> u32 {
    thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

/// The policy of a run of this number.
///
/// # Errors
/// [`Error::Input`] if it has not so many seeds.
pub(crate) fn policy(arguments: &Run, run: u32) -> Result<Policy, Error> {
    arguments.policy.later(run.into()).ok_or_else(|| {
        Error::Input(InputError::new(format!(
            "--policy {}: it has no seed for each of so many runs; use {}",
            arguments.policy,
            Policy::seeded_forms()
        )))
    })
}

/// What came of one run.
struct Trial {
    /// Its exit code.
    code: u8,
    /// Its findings that only Driver Verifier stops for.
    said: Said,
}

/// By number.
type Trials = BTreeMap<u32, Trial>;

/// What came of each run, and whether each had to have a process of its own. Where one says that what was given is of no use, not all are
/// made.
fn trials(arguments: &Run, runs: u32, workers: u32) -> Result<(Trials, bool)> {
    let size = runs.div_ceil(workers).min(MOST);
    let (next, progress) = (AtomicU32::new(0), Progress::new(!arguments.view.quiet));
    let making = Making {
        arguments,
        runs,
        progress,
        trials: Mutex::default(),
        alone: false.into(),
        unusable: false.into(),
    };
    making.progress.at(|| so_far(&Trials::new(), runs));
    let work = || -> Result<()> {
        loop {
            let first = next.fetch_add(size, Ordering::Relaxed);
            if first >= runs || making.unusable.load(Ordering::Relaxed) {
                return Ok(());
            }
            making.some(first..runs.min(first + size))?;
        }
    };
    // Outside of any machine: each thread only waits for processes.
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.min(runs)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("waiting does not panic"))
    })?;
    let Making { trials, alone, .. } = making;
    Ok((trials.into_inner().unwrap_or_else(PoisonError::into_inner), alone.into_inner()))
}

/// Many runs, while they are made.
struct Making<'a> {
    arguments: &'a Run,
    /// So many.
    runs: u32,
    progress: Progress,
    trials: Mutex<Trials>,
    /// A machine cannot be taken back on this host: each run has a process of its own.
    alone: AtomicBool,
    /// What was given is of no use.
    unusable: AtomicBool,
}

impl Making<'_> {
    /// This came of a run; what an earlier process said of it is forgotten.
    fn enter(&self, run: u32, trial: Trial) {
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        trials.insert(run, trial);
        self.progress.at(|| so_far(&trials, self.runs));
    }

    /// Makes some runs that follow each other.
    fn some(&self, runs: Range<u32>) -> Result<()> {
        let mut next = runs.start;
        while next < runs.end {
            let apart = runs.end - next == 1 || self.alone.load(Ordering::Relaxed);
            let (behind, well) = if apart { (next, false) } else { self.several(next..runs.end)? };
            if well && behind == runs.end {
                return Ok(());
            }
            // The first run without a result, and those before it, whose process may have said anything.
            for run in next..runs.end.min(behind + 1) {
                if self.unusable.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let trial = trial(self.arguments, run)?;
                self.unusable.fetch_or(trial.code == UNUSABLE, Ordering::Relaxed);
                self.enter(run, trial);
            }
            next = behind + 1;
        }
        Ok(())
    }

    /// Has one process make them: the first run without a result, and whether the process has ended as it should.
    fn several(&self, runs: Range<u32>) -> Result<(u32, bool)> {
        let Range { start: mut run, end } = runs;
        let turn = [format!("--{}={SEVERAL}{run}-{end}", isolate::TURN)];
        let mut hears = Hears::default();
        let ended = isolate::watch(&self.arguments.isolation, &turn, &self.unusable, |line| {
            if line == ALONE {
                self.alone.store(true, Ordering::Relaxed);
                return true;
            }
            if hears.takes(line) {
                return true;
            }
            let code = line.parse().ok().filter(|_| run < end);
            if let Some(code) = code {
                self.enter(run, Trial { code, said: hears.said() });
                run += 1;
            }
            code.is_some()
        })?;
        Ok((run, matches!(ended, End::With(CLEAN, _))))
    }
}

/// In a process: makes several runs in one machine, and tells what came of each as it ends.
///
/// # Errors
/// What is given is of no use; or the host's.
pub(crate) fn several(
    arguments: &Run,
    bench: Bench,
    play: Option<&Play>,
    jail: Option<Jail>,
    runs: &str,
) -> Result<Done> {
    let (first, end) = runs.split_once('-').context("no runs")?;
    let mut boots = match jail.into_iter().fold(bench, Bench::jailed).boots() {
        Err(error @ Error::Host(_)) => {
            isolate::tell(ALONE);
            return Err(error.into());
        }
        boots => boots?,
    };
    let (mut tells, mut known) = (Tells::default(), BTreeSet::new());
    for run in first.parse::<u32>()?..end.parse()? {
        let ((), report) = boots.boot_by(policy(arguments, run)?, |machine| {
            #[cfg(debug_assertions)]
            crate::failing::as_asked(machine, arguments.is_checked());
            machine.perform(play.cloned());
        })?;
        tells.tell(said(&report, &mut known));
        isolate::tell(&report.outcome().exit_code().to_string());
    }
    Ok(Done::with(CLEAN))
}

/// The findings of a run that only Driver Verifier stops for, in full but for those that are `known`.
pub(crate) fn said(report: &Report, known: &mut BTreeSet<String>) -> Said {
    report.remarks(known).into_iter().map(|remark| (remark, Choices::default())).collect()
}

/// How far it has come.
fn so_far(trials: &Trials, runs: u32) -> String {
    let others = trials.values().filter(|trial| trial.code != CLEAN).count();
    let others = if others == 0 { String::new() } else { format!(", {others} not clean") };
    format!("{} of {runs} runs{others}", trials.len())
}

/// What came of one run. If its process dies, that of the same run with checks, unless that is clean: then the death has no
/// explanation.
fn trial(arguments: &Run, run: u32) -> Result<Trial> {
    let more = |flags: &[&str]| -> Vec<String> {
        let flags = flags.iter().map(|flag| format!("--{flag}"));
        std::iter::once(format!("--{NTH}={run}")).chain(flags).collect()
    };
    let remarks = |lines: &[String]| {
        let mut hears = Hears::default();
        for line in lines {
            hears.takes(line);
        }
        hears.said()
    };
    let (ended, lines) = isolate::untold(&arguments.isolation, &more(&[UNTOLD]))?;
    Ok(match ended {
        Ok(code) => Trial { code, said: remarks(&lines) },
        Err(death) if death.is_of_itself() && crate::run::after_death(arguments).is_some() => {
            let (again, lines) = isolate::untold(&arguments.isolation, &more(&[UNTOLD, ANYWAY]))?;
            let code = again.ok().filter(|code| *code != CLEAN).unwrap_or(NO_ANSWER);
            Trial { code, said: remarks(&lines) }
        }
        Err(_) => Trial { code: NO_ANSWER, said: Said::new() },
    })
}

fn tell(arguments: &Run, trials: Trials, last: Policy, shown: Option<Policy>, alone: bool) {
    let first = arguments.policy;
    let (runs, with) = (trials.len(), |wanted| trials.values().filter(|trial| trial.code == wanted).count());
    let (clean, broken) = (with(CLEAN), with(BROKEN));
    let without = runs - clean - broken;
    let mut remarks = Remarks::default();
    for (run, trial) in trials {
        trial.said.into_iter().for_each(|(remark, _)| remarks.add(remark, || run));
    }
    let replay = |run: &u32| {
        let policy = first.later((*run).into()).unwrap_or(first);
        again::command(&IN_MANY_ONLY, &["--policy".to_owned(), policy.to_string()])
    };
    if arguments.view.json {
        let [first, last] = [first, last].map(|policy| policy.to_string());
        let shown = shown.map(|policy| policy.to_string());
        say!(
            "{}",
            serde_json::json!({
                "runs": runs, "first": first, "last": last, "clean": clean, "broken": broken, "no_answer": without,
                "checked": arguments.is_checked(), "shown": shown, "findings": remarked::as_json(&remarks, replay),
            })
        );
        return;
    }
    say!(
        "{runs} runs, {first} to {last}: {clean} clean, {broken} with a broken rule or expectation, {without} without an answer{}{}",
        if arguments.is_checked() { "" } else { " (fast: not checked)" },
        if alone { " (each booted by itself: this host lets no machine be taken back)" } else { "" },
    );
    if let Some(text) = remarked::as_text(&remarks, &format!("{runs}"), replay) {
        say!("{}", terminal::dress(arguments.view.color).on(text.trim_end()));
    }
    if let Some(policy) = shown {
        say!(
            "the first {}, --policy {policy}:\n",
            if remarks.is_empty() { "of these" } else { "that is not clean" }
        );
    } else if let Some(path) = &arguments.record {
        say!("all are clean, so {} is not written", path.display());
    }
}
