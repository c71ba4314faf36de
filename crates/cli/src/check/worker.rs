//! A process of `dirql check`: it makes the survey, or carries exercises out and searches them, and says line by line what comes of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use dirql::check::{self, Campaign, Cause, Decided, Exercise, Extent, Stories, Totals};
use dirql::files::DriverFile;
use dirql::{Bench, Boots, Error, Jail, Play, Report, ScriptText};
use serde::{Deserialize, Serialize};

use super::Surveys;
use super::campaign::Job;
use crate::arguments::Check;
use crate::isolate::{self, Done};
use crate::outputs::Outputs;
use crate::remote_runner::joined;

/// What a process is to do.
#[derive(Serialize, Deserialize)]
pub(super) enum Turn {
    /// Find out so much of what the driver offers.
    Survey(Extent),
    /// Do these with exercises of those that follow from the surveys, all in one machine.
    Jobs(Box<Surveys>, Jobs),
}

/// What is left of a batch.
#[derive(Serialize, Deserialize)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<Job>,
    /// Of the first one, the attempts before this one have been made.
    pub(super) first: u64,
    /// So many attempts have hung, as the job before it said.
    pub(super) hung: u32,
}

impl Turn {
    /// As an argument.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("plain values")
    }
}

/// What makes an attempt again.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Shown {
    /// The script; empty for none.
    pub(super) script: String,
    /// The option of `dirql run` or `dirql explore` that says what departs from the usual.
    pub(super) option: String,
}

impl From<check::Shown> for Shown {
    fn from(check::Shown { script, decided }: check::Shown) -> Self {
        let option = match decided {
            Decided::By(policy) => format!("--policy={policy}"),
            Decided::But(choices) => format!("--{}={}", crate::explore::FOLLOW, joined(&choices)),
        };
        Self { script, option }
    }
}

/// What such a process says.
#[derive(Serialize, Deserialize)]
pub(super) enum Line {
    /// Something wrong that it has not said before, by its number from then on; and what shows it.
    Known { cause: Box<Cause>, shown: Shown },
    /// What came of an attempt.
    Tried { number: u64, causes: Vec<usize>, no_answer: Option<String> },
    /// Sequences of requests that came to new code.
    Sequences(Vec<String>),
    /// The code that was reached: the distance of each instruction from the one before.
    Reached(Vec<u32>),
    /// All of the job was tried.
    Ended { attempts: u64, failed: u64, could_fail: u64, complete: bool, hung: u32 },
}

/// Does what the watching process wants.
///
/// # Errors
/// What was given is of no use; the host's.
pub(super) fn run(arguments: &Check) -> Result<u8> {
    let outputs = Outputs::new(&arguments.isolation, []);
    isolate::in_turns(&arguments.isolation, &outputs, None, |jail, turn| {
        match serde_json::from_str(turn.context("no turn")?)? {
            Turn::Survey(extent) => survey(arguments, jail, extent),
            Turn::Jobs(surveys, jobs) => do_jobs(arguments, jail, &surveys, jobs),
        }
    })
}

fn bench(arguments: &Check, jail: Option<Jail>) -> Result<Bench, Error> {
    let bench = crate::run::bench(&arguments.setup)?.checked(true).unobserved();
    Ok(jail.into_iter().fold(bench, Bench::jailed))
}

fn survey(arguments: &Check, jail: Option<Jail>, extent: Extent) -> Result<Done> {
    let driver = DriverFile::read(&arguments.setup.driver).map_err(Error::Input)?;
    let bench = bench(arguments, jail)?;
    let signals = check::Signals::of(&bench, extent);
    // Whether a script may name what is not there when it begins.
    let names_children =
        ScriptText::typed("remove-device child#0").play().is_ok_and(|play| bench.check(&play).is_ok());
    let script = crate::run::script(&arguments.setup)?;
    let play = script.map(|script| script.play()).transpose().map_err(Error::Input)?;
    let mut survey = check::survey(&mut bench.boots()?, &driver.image, signals, play.as_ref(), extent)?;
    if !names_children {
        survey.children.clear();
    }
    isolate::tell(&serde_json::to_string(&survey)?);
    Ok(Done::with(0))
}

fn play(exercise: &Exercise) -> Result<Option<Play>, Error> {
    check::play(&exercise.script).map_err(Error::Input)
}

/// What the process has said is wrong.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    /// Says what came of an attempt. `shown` makes one again that has a cause.
    fn attempt(
        &mut self,
        number: u64,
        causes: Vec<Cause>,
        no_answer: Option<String>,
        mut shown: impl FnMut(&Cause) -> Result<Shown, Error>,
    ) -> Result<(), Error> {
        let mut numbers = Vec::new();
        for cause in causes {
            let known = self.0.iter().position(|key| *key == cause.key);
            numbers.push(known.unwrap_or(self.0.len()));
            if known.is_none() {
                self.0.push(cause.key.clone());
                let shown = shown(&cause)?;
                say(&Line::Known { cause: Box::new(cause), shown });
            }
        }
        say(&Line::Tried { number, causes: numbers, no_answer });
        Ok(())
    }
}

fn say(line: &Line) {
    isolate::tell(&serde_json::to_string(line).expect("plain values"));
}

fn do_jobs(
    arguments: &Check,
    jail: Option<Jail>,
    surveys: &Surveys,
    Jobs { jobs, mut first, mut hung }: Jobs,
) -> Result<Done> {
    let exercises = super::exercises(arguments, surveys)?;
    let bench = bench(arguments, jail)?;
    for job in &jobs {
        if let Some(play) = &play(&exercises[job.exercise])? {
            bench.check(play)?;
        }
    }
    let mut boots = bench.boots()?;
    boots.keep_reached();
    let (mut reached, mut advised, mut shrunk) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for job in &jobs {
        let exercise = &exercises[job.exercise];
        if job.search {
            search(&mut boots, exercise, hung, &mut shrunk)?;
            continue;
        }
        let totals = Totals { hung, ..Totals::default() };
        let work = Work {
            boots: &mut boots,
            surveys,
            said: Said::default(),
            totals,
            advised: &mut advised,
            shrunk: &mut shrunk,
        };
        let (totals, sequences) = work.whole(exercise, std::mem::take(&mut first))?;
        let Totals { attempts, failed, could_fail, .. } = totals;
        // Where one exercise has hung, one attempt of each of the others may.
        hung = totals.hung.min(check::HUNG - 1);
        let fresh = boots.reached().into_iter().filter(|offset| reached.insert(*offset));
        let mut before = 0;
        let distance = |at: u32| at - std::mem::replace(&mut before, at);
        say(&Line::Reached(fresh.map(distance).collect()));
        if arguments.corpus.is_some() {
            // Behind what was reached, which it forgets.
            let sequences = check::worth_keeping(&mut boots, &surveys.own, &surveys.kept, &sequences)?;
            say(&Line::Sequences(sequences));
        }
        say(&Line::Ended { attempts, failed, could_fail, complete: true, hung });
    }
    Ok(Done::with(0))
}

/// An exercise that is carried out.
struct Work<'b> {
    boots: &'b mut Boots,
    surveys: &'b Surveys,
    said: Said,
    totals: Totals,
    /// Keys of advice that this process has given,
    advised: &'b mut BTreeSet<String>,
    /// and of causes for which it has looked for what shows them shortest: what an earlier exercise has shown is what is reported.
    shrunk: &'b mut BTreeSet<String>,
}

impl Work<'_> {
    /// All of it, but the attempts before the one of number `first`; the sequences that came to new code, too.
    fn whole(mut self, exercise: &Exercise, first: u64) -> Result<(Totals, Vec<String>)> {
        let Surveys { own: survey, kept, .. } = self.surveys;
        let mut sequences = Vec::new();
        if exercise.effort.inputs > 0 {
            let found = check::inputs(self.boots, survey, kept, exercise.effort.inputs)?;
            for script in &found.scripts {
                self.carry_out(&Exercise { script: script.clone(), ..exercise.clone() }, first)?;
            }
            self.totals.attempts += found.tried;
            sequences = found.scripts;
        } else if exercise.effort.stories.count > 0 {
            let Stories { first: number, count, behind, as_found } = exercise.effort.stories;
            let found = check::inputs(self.boots, survey, kept, behind)?;
            self.totals.attempts += found.tried;
            let scripts = if as_found {
                check::at_once_as_found(survey, &found.sequences, count)
            } else {
                check::stories(&survey.clone().with_sequences(found.sequences), number, count)
            };
            for script in scripts {
                self.carry_out(&Exercise { script, ..exercise.clone() }, first)?;
            }
        } else {
            self.carry_out(exercise, first)?;
        }
        Ok((self.totals, sequences))
    }

    /// All attempts of one script, but those before the one of number `first`.
    fn carry_out(&mut self, exercise: &Exercise, first: u64) -> Result<()> {
        let Self { boots, said, totals, advised, shrunk, .. } = self;
        if totals.hung >= check::HUNG {
            return Ok(());
        }
        let play = play(exercise)?;
        let before = totals.attempts;
        let own = Campaign::new(boots, exercise, play, totals.hung, advised).run(
            first.saturating_sub(before),
            |boots, number, tried| {
                said.attempt(before + number, tried.causes, tried.no_answer, |cause| {
                    let script = exercise.script.clone();
                    let whole = check::Shown { script, decided: Decided::By(tried.policy) };
                    // What does not count is worth no more attempts.
                    if cause.aside.is_some() || !shrunk.insert(cause.key.clone()) {
                        return Ok(whole.into());
                    }
                    let short = check::shrink(boots, &whole, &cause.key)?;
                    Ok(match check::fewest_departures(boots, &short, &cause.key)? {
                        Some(choices) => check::Shown { decided: Decided::But(choices), ..short }.into(),
                        None => short.into(),
                    })
                })
            },
        )?;
        totals.attempts += own.attempts;
        totals.failed += own.failed;
        totals.could_fail += own.could_fail;
        totals.hung += own.hung;
        Ok(())
    }
}

fn search(boots: &mut Boots, exercise: &Exercise, hung: u32, shrunk: &mut BTreeSet<String>) -> Result<()> {
    let Some(play) = play(exercise)? else { bail!("there is nothing to search") };
    let bounds = check::search_bounds(exercise.effort.schedules);
    // What the usual run shows, which is a search's first, the exercise itself has found.
    let mut usual: Option<Vec<String>> = None;
    let is_more = |report: &Report| {
        let causes = check::causes(report, exercise);
        // Each schedule of a driver that hangs takes as long as thousands of others.
        let hangs = check::hangs(report, &causes);
        let keys: Vec<String> =
            causes.into_iter().filter(|cause| cause.aside.is_none()).map(|cause| cause.key).collect();
        let usual = usual.get_or_insert_with(|| keys.clone());
        hangs || keys.iter().any(|key| !usual.contains(key))
    };
    let searched = boots.search(&play, &bounds, is_more)?;
    let mut said = Said::default();
    let attempts = searched.total();
    if let Some((choices, report)) = &searched.found {
        let whole = check::Shown { script: exercise.script.clone(), decided: Decided::But(choices.clone()) };
        let no_answer = report.no_answer();
        said.attempt(attempts.saturating_sub(1), check::causes(report, exercise), no_answer, |cause| {
            if cause.aside.is_some() || !shrunk.insert(cause.key.clone()) {
                return Ok(whole.clone().into());
            }
            Ok(check::shrink(boots, &whole, &cause.key)?.into())
        })?;
    }
    say(&Line::Ended { attempts, failed: 0, could_fail: 0, complete: searched.complete, hung });
    Ok(())
}
