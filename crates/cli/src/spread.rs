//! A search whose runs are made in other processes, part by part, some parts at a time.
//!
//! A process makes one part from a machine's start, so what comes of it depends on the part alone. It tells each run as it ends:
//! if it dies, it is known which run it died of. That one is lost, with all below it, and another process goes on behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use anyhow::{Error, Result};
use dirql::explore::{Choice, Choices, Course, Part, Places, Questions, Ran, Runner};

use crate::arguments::Isolation;
use crate::isolate::{self, End};

/// The turn in which a part of a search is made, which follows.
pub(crate) const PART: &str = "part:";
/// Between choices, where one process tells them to the next.
const SEPARATOR: char = ';';
/// How a run is told of which nothing was looked for.
const USUAL: &str = "usual ";
/// Behind its questions: what it has taught.
const TAUGHT: char = '@';
/// How one is told that was looked for.
const WANTED: &str = "wanted ";
/// Told instead of runs, before the message that says why.
pub(crate) const REFUSED: &str = "refused";

/// Makes the runs of a search.
pub(crate) struct Spread<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    isolation: &'e Isolation,
    /// So many processes at a time.
    workers: u32,
    /// Whoever works is to stop.
    stop: &'e AtomicBool,
    parts: Vec<Receiver<Told>>,
    /// Why no run can be made: an exit code, and what was said.
    pub(crate) refused: Option<(u8, String)>,
    /// Why no process can be started.
    pub(crate) failed: Option<Error>,
}

/// What a worker tells of a part.
enum Told {
    Ran(Ran<String>),
    Refused(u8, String),
    Failed(Error),
}

/// Parts that nobody makes yet, and who is to be told.
type Waiting = Mutex<VecDeque<(Part, Sender<Told>)>>;

impl<'s, 'e> Spread<'s, 'e> {
    /// Processes of this command, watched by threads of `scope`.
    pub(crate) fn new(
        scope: &'s Scope<'s, 'e>,
        isolation: &'e Isolation,
        workers: u32,
        stop: &'e AtomicBool,
    ) -> Self {
        Self { scope, isolation, workers, stop, parts: Vec::new(), refused: None, failed: None }
    }
}

impl Runner for Spread<'_, '_> {
    /// Its name.
    type Outcome = String;

    fn begin(&mut self, parts: &[Part]) {
        let mut waiting = VecDeque::new();
        self.parts.clear();
        for part in parts {
            let (told, hears) = channel();
            waiting.push_back((part.clone(), told));
            self.parts.push(hears);
        }
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(waiting));
        let (isolation, stop) = (self.isolation, self.stop);
        // Outside of any machine: each thread only waits for processes.
        for _ in 0..parts.len().min(usize::try_from(self.workers).unwrap_or(1)) {
            let waiting = Arc::clone(&waiting);
            self.scope.spawn(move || {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some((part, told)) = next() {
                    // Nobody hears it once the search is over.
                    let _ = match make(part, isolation, stop, &told) {
                        Ok(()) => Ok(()),
                        Err(error) => told.send(Told::Failed(error)),
                    };
                }
            });
        }
    }

    fn run(&mut self, part: usize, _course: &Course) -> Ran<String> {
        match self.parts[part].recv() {
            Ok(Told::Ran(ran)) => return ran,
            Ok(Told::Refused(code, why)) => self.refused = Some((code, why)),
            Ok(Told::Failed(error)) => self.failed = Some(error),
            Err(_) => self.failed = Some(Error::msg("whoever watched the processes is gone")),
        }
        Ran::Refused
    }
}

/// Makes a part, in one process unless one dies.
fn make(mut part: Part, isolation: &Isolation, stop: &AtomicBool, told: &Sender<Told>) -> Result<()> {
    while part.course().is_some() && !stop.load(Ordering::Relaxed) {
        let more = [format!("--{}={PART}{part}", isolate::TURN)];
        // A process that dies behind its last run has died of that one, too.
        let (mut last, mut found, mut refused, mut strange) = (None, false, false, false);
        let end = isolate::told(isolation, &more, stop, |line| {
            if line == REFUSED {
                refused = true;
                return true;
            }
            let ran = read(line).filter(|_| part.course().is_some() && !found);
            match &ran {
                Some(Ran::Usual(questions, _)) => part.made(questions, |_| ()),
                Some(Ran::Wanted(..)) => found = true,
                _ => strange = true,
            }
            if part.course().is_none() {
                last = ran;
            } else if let Some(ran) = ran {
                let _ = told.send(Told::Ran(ran));
            }
            !strange
        })?;
        let ran = match end {
            _ if found => return Ok(()),
            End::With(code, why) if refused => {
                let _ = told.send(Told::Refused(code, why));
                return Ok(());
            }
            End::Stopped if !strange => return Ok(()),
            End::With(0, _) if last.is_some() => last.take(),
            End::With(0, _) | End::Stopped => Some(Ran::Lost(STRANGE.to_owned())),
            End::With(_, why) | End::Died(why) => Some(Ran::Lost(why)),
        };
        // It was at this one, if it was not at its end.
        if part.course().is_some() {
            part.pass();
        }
        ran.into_iter().for_each(|ran| drop(told.send(Told::Ran(ran))));
    }
    Ok(())
}

const STRANGE: &str = "the process that ran the machine said what no process of dirql's says\n  whose fault: dirql's; or the \
                       driver has written over dirql's own memory, which was not noticed then";

/// In the process that makes a part: tells what came of a run.
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
