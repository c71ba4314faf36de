//! A search whose runs are made in other processes, subtree by subtree, some parts at a time.
//!
//! A process makes one subtree from a machine's start, so what comes of it depends on the subtree alone. It tells each run as it ends:
//! if it dies, it is known which run it died of. That one is made with checks, in a process of its own: if it has a verdict then, that is what
//! was looked for. Else it is lost, with all below it, and another process goes on behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use anyhow::{Error, Result};
use dirql::explore::{Choice, Choices, Places, Questions, Ran, Runner, Schedule, SoFar, Subtree};

use crate::arguments::Isolation;
use crate::crash_report::{Death, unexplained};
use crate::isolate::{self, End};
use crate::not_tried;
use crate::progress::{Progress, Rate};
use crate::said::{Hears, Said};
use crate::search_state::SearchState;

/// The turn in which a subtree of a search is made, which follows.
pub(crate) const PART: &str = "subtree:";
/// The same, in checked machines.
pub(crate) const CHECKED_PART: &str = "checked-subtree:";
/// Between choices, where one process sends them to the next.
pub(crate) const SEPARATOR: char = ';';
/// How the line of a run begins of which nothing was looked for.
const USUAL: &str = "usual ";
/// Behind its questions: what it has taught.
const TAUGHT: char = '@';
/// How the line of a run begins that was looked for.
const WANTED: &str = "wanted ";
/// Sent instead of runs, before the message that says why.
pub(crate) const REFUSED: &str = "refused";

/// The processes that make the runs.
#[derive(Clone, Copy)]
pub(crate) struct WorkerConfig<'e> {
    pub(crate) isolation: &'e Isolation,
    /// So many at a time.
    pub(crate) workers: u32,
    /// Their machines are checked ones.
    pub(crate) checked: bool,
    /// Where what comes of their runs is kept.
    pub(crate) state: Option<&'e SearchState>,
    /// Set: they are to stop.
    pub(crate) stop: &'e AtomicBool,
}

/// Makes the runs of a search.
pub(crate) struct RemoteRunner<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    config: WorkerConfig<'e>,
    parts: Vec<Receiver<Reply>>,
    /// How fast runs arrive.
    rate: Rate,
    /// What the last of them has said.
    remarks: Said,
    progress: Progress,
    /// Why no run can be made: an exit code, and what was said.
    pub(crate) refused: Option<(u8, String)>,
    /// Why no process can be started.
    pub(crate) failed: Option<Error>,
}

/// What a worker sends of a subtree.
enum Reply {
    Ran(Ran<String>, Said),
    Refused(u8, String),
    Failed(Error),
}

/// Subtrees that no worker has taken yet, each with the channel for its runs.
type Waiting = Mutex<VecDeque<(Subtree, Sender<Reply>)>>;

impl<'s, 'e> RemoteRunner<'s, 'e> {
    /// Processes of this command, watched by threads of `scope`.
    pub(crate) fn new(scope: &'s Scope<'s, 'e>, config: WorkerConfig<'e>, progress: Progress) -> Self {
        Self {
            scope,
            config,
            parts: Vec::new(),
            rate: Rate::default(),
            remarks: Said::new(),
            progress,
            refused: None,
            failed: None,
        }
    }
}

impl Runner for RemoteRunner<'_, '_> {
    /// Its name.
    type Outcome = String;

    fn begin(&mut self, parts: &[Subtree]) {
        let mut waiting = VecDeque::new();
        self.parts.clear();
        for subtree in parts {
            let (sender, receiver) = channel();
            waiting.push_back((subtree.clone(), sender));
            self.parts.push(receiver);
        }
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(waiting));
        let config = self.config;
        // Outside of any machine: each thread only waits for processes.
        for _ in 0..parts.len().min(usize::try_from(config.workers).unwrap_or(1)) {
            let waiting = Arc::clone(&waiting);
            self.scope.spawn(move || {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some((subtree, replies)) = next() {
                    let replies = Replies { replies, places: subtree.places().clone(), state: config.state };
                    if let Err(error) = make(subtree, config, &replies) {
                        replies.send(Reply::Failed(error));
                    }
                }
            });
        }
    }

    fn run(&mut self, subtree: usize, _schedule: &Schedule) -> Ran<String> {
        match self.parts[subtree].recv() {
            Ok(Reply::Ran(ran, remarks)) => {
                self.rate.count();
                self.remarks = remarks;
                return ran;
            }
            Ok(Reply::Refused(code, why)) => self.refused = Some((code, why)),
            Ok(Reply::Failed(error)) => self.failed = Some(error),
            Err(_) if self.config.stop.load(Ordering::Relaxed) => {}
            Err(_) => self.failed = Some(Error::msg("the thread that watched the processes is gone")),
        }
        Ran::Refused
    }

    fn remarks(&mut self) -> Said {
        std::mem::take(&mut self.remarks)
    }

    fn came_to(&mut self, so_far: &dyn Fn() -> SoFar) {
        self.progress.at(|| not_tried::in_a_line(&so_far(), self.rate.a_second()));
    }
}

/// Where what comes of a subtree's runs goes.
struct Replies<'e> {
    replies: Sender<Reply>,
    /// Where its runs are asked.
    places: Places,
    state: Option<&'e SearchState>,
}

impl Replies<'_> {
    /// This came of the run of that schedule.
    fn ran(&self, schedule: Option<&Schedule>, (ran, said): (Ran<String>, Said)) {
        if let Some((state, schedule)) = self.state.zip(schedule) {
            state.made(&self.places, schedule, &ran, &said);
        }
        self.send(Reply::Ran(ran, said));
    }

    fn send(&self, reply: Reply) {
        // The channel is closed once the search is over.
        let _ = self.replies.send(reply);
    }
}

/// Makes a subtree, in one process unless one dies.
fn make(mut subtree: Subtree, config: WorkerConfig<'_>, replies: &Replies<'_>) -> Result<()> {
    let stop = config.stop;
    while subtree.schedule().is_some() && !stop.load(Ordering::Relaxed) {
        let more = [format!("--{}={PART}{subtree}", isolate::TURN)];
        // A process that dies behind its last run has died of that one, too.
        let (mut last, mut found, mut refused, mut strange) = (None, false, false, false);
        let (mut at, mut hears) = (None, Hears::default());
        let end = isolate::watch(config.isolation, &more, stop, |line| {
            if line == REFUSED {
                refused = true;
                return true;
            }
            if hears.takes(line) {
                return true;
            }
            let ran = read(line).filter(|_| subtree.schedule().is_some() && !found);
            at = subtree.schedule().cloned();
            match &ran {
                Some(Ran::Usual(questions, _)) => drop(subtree.made(questions)),
                Some(Ran::Wanted(..)) => found = true,
                _ => strange = true,
            }
            if subtree.schedule().is_none() {
                last = ran.map(|ran| (ran, hears.said()));
            } else if let Some(ran) = ran {
                replies.ran(at.as_ref(), (ran, hears.said()));
            }
            !strange
        })?;
        let ran = match end {
            _ if found => return Ok(()),
            // A process may have been ended by what ends the search.
            _ if stop.load(Ordering::Relaxed) => return Ok(()),
            End::With(code, why) if refused => {
                replies.send(Reply::Refused(code, why));
                return Ok(());
            }
            End::Stopped if !strange => return Ok(()),
            End::With(0, _) if last.is_some() => last.take(),
            End::With(0, _) | End::Stopped => Some((Ran::Lost(STRANGE.to_owned()), Said::new())),
            End::With(_, why) => Some((Ran::Lost(why), Said::new())),
            End::Died(death) => {
                match subtree.schedule().cloned().or(at.clone()).filter(|_| explains(&death, config)) {
                    Some(schedule) => again_checked(subtree.alone(schedule), &death, config)?,
                    None => Some((Ran::Lost(death.crash_report(None)), Said::new())),
                }
            }
        };
        if let Some((Ran::Wanted(..), _)) = &ran {
            ran.into_iter().for_each(|ran| replies.ran(None, ran));
            return Ok(());
        }
        // It was at this one, if it was not at its end.
        let schedule = if subtree.schedule().is_some() { subtree.pass() } else { at };
        ran.into_iter().for_each(|ran| replies.ran(schedule.as_ref(), ran));
    }
    Ok(())
}

/// Whether a checked machine may tell what the process died of.
fn explains(death: &Death, config: WorkerConfig<'_>) -> bool {
    death.is_of_itself() && !config.checked
}

/// Makes the one run of a subtree with checks, of which another process has died: its verdict, if it has one. None if the search is over.
fn again_checked(
    subtree: Subtree,
    first: &Death,
    config: WorkerConfig<'_>,
) -> Result<Option<(Ran<String>, Said)>> {
    let more = [format!("--{}={CHECKED_PART}{subtree}", isolate::TURN)];
    let (mut ran, mut hears) = (None, Hears::default());
    let end = isolate::watch(config.isolation, &more, config.stop, |line| {
        if hears.takes(line) {
            return true;
        }
        ran = read(line);
        ran.is_some()
    })?;
    let lost = |why| Some((Ran::Lost(why), Said::new()));
    Ok(match (end, ran) {
        (_, Some(wanted @ Ran::Wanted(..))) => Some((wanted, hears.said())),
        (End::Stopped, _) => None,
        (End::Died(death), _) => lost(death.crash_report(Some(first))),
        (End::With(0, _), Some(_)) => lost(unexplained(first.what())),
        (End::With(..), _) => lost(first.crash_report(None)),
    })
}

const STRANGE: &str = "the process that ran the machine said what no process of dirql's says\n  whose fault: dirql's; or the \
                       driver has written over dirql's own memory, which was not noticed then";

/// In the process that makes a subtree: tells what came of a run.
pub(crate) fn tell<O>(ran: &Ran<O>, name: impl Fn(&O) -> &'static str) {
    match ran {
        Ran::Usual(questions, places) if places.is_empty() => isolate::tell(&format!("{USUAL}{questions}")),
        Ran::Usual(questions, places) => isolate::tell(&format!("{USUAL}{questions}{TAUGHT}{places}")),
        Ran::Wanted(choices, outcome) => {
            isolate::tell(&format!("{WANTED}{}{SEPARATOR}{}", name(outcome), joined(choices)));
        }
        // Where runs are made, none is lost, and one that is refused is an error.
        Ran::Lost(_) | Ran::Refused => {}
    }
}

fn read(line: &str) -> Option<Ran<String>> {
    if let Some(questions) = line.strip_prefix(USUAL.trim_end()) {
        let (questions, places) = questions.split_once(TAUGHT).unwrap_or((questions, ""));
        let (questions, places): (Questions, Places) =
            (questions.trim_start().parse().ok()?, places.parse().ok()?);
        return Some(Ran::Usual(questions, places));
    }
    let (outcome, choices) = line.strip_prefix(WANTED)?.split_once(SEPARATOR)?;
    Some(Ran::Wanted(parted(choices).ok()?, outcome.to_owned()))
}

/// Choices as one line.
pub(crate) fn joined(choices: &Choices) -> String {
    let all: Vec<String> = choices.iter().map(|choice| choice.to_string()).collect();
    all.join(&SEPARATOR.to_string())
}

/// The same, read.
///
/// # Errors
/// It was made otherwise.
pub(crate) fn parted(text: &str) -> Result<Choices> {
    let all = text.split(SEPARATOR).filter(|choice| !choice.is_empty());
    Ok(all.map(str::parse::<Choice>).collect::<Result<_, _>>()?)
}
