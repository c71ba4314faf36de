//! `dirql run --runs N`: many runs by as many seeds, each in a process of its own, some at a time; then the first that is
//! not clean, shown as if it had been asked for alone.
//!
//! What is told depends on the runs and their order only: not on how many there are at a time, nor on which ends first.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::Result;
use dirql::explore::{Policy, Remarks};
use dirql::{Error, InputError};

use crate::arguments::Run;
use crate::out::{complain, say};
use crate::progress::Progress;
use crate::said::{Hears, Said};
use crate::{NO_ANSWER, UNUSABLE, again, isolate, remarked, terminal};

/// Which of the runs a process makes.
pub(crate) const NTH: &str = "nth";
/// It shows and records nothing.
pub(crate) const UNTOLD: &str = "untold";
/// It is checked, though the user wants fast ones.
pub(crate) const ANYWAY: &str = "checked-anyway";
/// Options that make no sense in the command that makes one of the runs again, each with a value.
const IN_MANY_ONLY: [&str; 5] = ["runs", "workers", "policy", "record", "figure"];
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
    let trials = trials(arguments, runs, workers)?;
    let first_with = |wanted: &dyn Fn(u8) -> bool| {
        trials.iter().find(|(_, trial)| wanted(trial.code)).map(|(run, trial)| (*run, trial.code))
    };
    let unusable = first_with(&|code| code == UNUSABLE);
    let shown =
        unusable.or_else(|| first_with(&|code| code == BROKEN)).or_else(|| first_with(&|code| code != CLEAN));
    let name = shown.map(|(run, _)| policy(arguments, run)).transpose()?;
    if unusable.is_none() {
        tell(arguments, trials, last, name);
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
            "--policy {}: it has no seed for each of so many runs; use random:SEED or pct:SEED,DEPTH",
            arguments.policy
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

/// What came of each run. Where one says that what was given is of no use, not all are made.
fn trials(arguments: &Run, runs: u32, workers: u32) -> Result<Trials> {
    let (next, trials) = (AtomicU32::new(0), Mutex::new(Trials::new()));
    let progress = Progress::new(!arguments.view.quiet);
    progress.at(|| so_far(&Trials::new(), runs));
    let work = || -> Result<()> {
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return Ok(());
            }
            let trial = trial(arguments, run)?;
            if trial.code == UNUSABLE {
                next.store(runs, Ordering::Relaxed);
            }
            let mut trials = trials.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            trials.insert(run, trial);
            progress.at(|| so_far(&trials, runs));
        }
    };
    // Outside of any machine: each thread only waits for processes.
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.min(runs)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("waiting does not panic"))
    })?;
    Ok(trials.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
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
    let heard = |told: &[String]| {
        let mut hears = Hears::default();
        for line in told {
            hears.takes(line);
        }
        hears.said()
    };
    let (ended, told) = isolate::untold(&arguments.isolation, &more(&[UNTOLD]))?;
    Ok(match ended {
        Ok(code) => Trial { code, said: heard(&told) },
        Err(death) if death.is_of_itself() && crate::run::after_death(arguments).is_some() => {
            let (again, told) = isolate::untold(&arguments.isolation, &more(&[UNTOLD, ANYWAY]))?;
            let code = again.ok().filter(|code| *code != CLEAN).unwrap_or(NO_ANSWER);
            Trial { code, said: heard(&told) }
        }
        Err(_) => Trial { code: NO_ANSWER, said: Said::new() },
    })
}

fn tell(arguments: &Run, trials: Trials, last: Policy, shown: Option<Policy>) {
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
        "{runs} runs, {first} to {last}: {clean} clean, {broken} with a broken rule or expectation, {without} without an answer{}",
        if arguments.is_checked() { "" } else { " (fast: not checked)" }
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
