//! A machine whose run of a script, to its very end, can be taken back and gone through otherwise.
//!
//! Every question of the machine comes to the caller, who answers it, marks where the machine stands, and goes back to a mark
//! as often as it likes. Which answers are worth trying is a policy's business, and not here.

use engine::{Chooser, Question, Run, Snapshot, StartError, TO_THE_CHOOSER, Tracking, Turn, outside};
use kernel::Nt;
use kernel::nt::ReaderStates;

use super::boot::Loaded;
use super::end::wind_down;
use super::{Machine, Stage};
use crate::error::Error;
use crate::play::Play;
use crate::report::{Failure, Report};

/// A place that the machine can be taken back to.
pub struct Mark {
    pub(super) snapshot: Snapshot,
    pub(super) readers: ReaderStates,
}

/// A run of a script that is explored: the script, the exit of its process, and the end of the machine.
pub struct Exploration<'m> {
    machine: &'m Machine,
    run: Run<'m, Ended>,
    beginning: Mark,
}

/// What a run that has ended tells of itself, besides what is asked of the machine. Lies outside.
struct Ended {
    failure: Option<Failure>,
    notes: Vec<String>,
}

impl Machine {
    /// Prepares a script for being carried out in many ways, and hands it to `explore`; nothing of it has run yet. Afterwards
    /// the machine is as it was before.
    ///
    /// Readers of the caller's own are taken back as far as they can be ([`kernel::event::Reader::save`]).
    ///
    /// # Errors
    /// [`Error::Host`] if this host cannot watch the machine's memory in this way; [`Error::Stopped`] if the machine is not
    /// ready; [`Error::Stuck`] if something that was asked of it before has never ended.
    pub fn explore<R>(
        &self,
        play: &Play,
        tracking: Tracking,
        explore: impl FnOnce(&mut Exploration<'_>) -> R,
    ) -> Result<R, Error> {
        if !self.is_ready() {
            return Err(Error::Stopped);
        }
        if self.stuck.get() {
            return Err(Error::Stuck("what was asked of the machine before has not ended".to_owned()));
        }
        self.host.track(tracking).map_err(host)?;
        self.explore_tracked(play, explore)
    }

    /// As [`Machine::explore`], of a machine that is ready, and can be taken back already.
    pub(super) fn explore_tracked<R>(
        &self,
        play: &Play,
        explore: impl FnOnce(&mut Exploration<'_>) -> R,
    ) -> Result<R, Error> {
        let stage = self.stage(play);
        let (nt, loaded, process) = (self.nt(), self.loaded.borrow(), self.process.get());
        let whole = || whole(nt, &stage, process, &loaded);
        let run = self.host.explore(nt, whole);
        let beginning = self.mark()?;
        Ok(explore(&mut Exploration { machine: self, run, beginning }))
    }
}

impl Machine {
    /// Marks where the machine stands.
    pub(super) fn mark(&self) -> Result<Mark, Error> {
        let snapshot = self.host.snapshot().map_err(host)?;
        Ok(Mark { snapshot, readers: self.nt().save_readers() })
    }

    /// Takes it back to a mark.
    pub(super) fn back(&self, mark: &Mark) {
        self.host.rewind(mark.snapshot);
        self.nt().restore_readers(&mark.readers);
    }
}

pub(super) fn host(error: StartError) -> Error {
    Error::Host(error.to_string())
}

/// All of a run, on the machine's own stack.
fn whole(nt: &Nt, stage: &Stage, process: u64, loaded: &Loaded) -> Ended {
    nt.script_begins();
    let end = stage.run(nt, process);
    let failure = stage.failure(nt, end);
    // What is asked behind this is a place that a machine may be taken back to. So the failure lies inside until the end.
    let inside = failure.clone();
    outside(|| drop(failure));
    stage.exit(nt, process);
    let notes = wind_down(nt, process, &[], loaded);
    Ended { failure: outside(|| inside.clone()), notes }
}

impl Exploration<'_> {
    /// Runs up to the next question: from the beginning, or with the answer to the last one left as it was.
    pub fn go(&mut self) -> Turn<Report> {
        let turn = self.run.go();
        self.reported(turn)
    }

    /// Answers the open question and runs up to the next.
    pub fn answer(&mut self, answer: u64) -> Turn<Report> {
        let turn = self.run.answer(answer);
        self.reported(turn)
    }

    fn reported(&self, turn: Turn<Ended>) -> Turn<Report> {
        match turn {
            Turn::Asked(question) => Turn::Asked(question),
            Turn::Ended(Ended { failure, notes }) => Turn::Ended(self.machine.report(failure, &notes)),
        }
    }

    /// Marks where the machine stands: at a question, which will be open again, or at the end.
    ///
    /// # Errors
    /// [`Error::Host`] if the host refuses.
    pub fn mark(&self) -> Result<Mark, Error> {
        self.machine.mark()
    }

    /// Takes the machine back to a mark, which stays; marks made after it are void.
    pub fn back(&mut self, mark: &Mark) {
        self.machine.back(mark);
    }

    /// Takes the machine back to the beginning of the script.
    pub fn restart(&mut self) {
        self.machine.back(&self.beginning);
    }

    /// Forgets a mark; others stand.
    pub fn forget(&mut self, mark: Mark) {
        self.machine.host.discard(mark.snapshot);
    }

    /// One whole run from the beginning of the script, in which `policy` answers.
    pub fn run(&mut self, policy: Box<dyn Chooser>) -> Report {
        self.restart();
        let nt = self.machine.nt();
        let usual = nt.replace_chooser(policy);
        let Ended { failure, notes } = self.run.finish();
        drop(nt.replace_chooser(usual));
        self.machine.report(failure, &notes)
    }

    /// A run from the beginning of the script, in which `policy` answers, up to the first question of which `here` says that it
    /// is the place: marked there, before the answer. None if the run ends before.
    ///
    /// # Errors
    /// As [`Exploration::mark`].
    pub fn mark_at(
        &mut self,
        policy: Box<dyn Chooser>,
        mut here: impl FnMut(&Question) -> bool,
    ) -> Result<Option<Mark>, Error> {
        self.restart();
        let nt = self.machine.nt();
        let usual = nt.replace_chooser(policy);
        let mut turn = self.run.go();
        let marked = loop {
            match turn {
                Turn::Ended(_) => break None,
                Turn::Asked(question) if here(&question) => break Some(self.mark()),
                Turn::Asked(_) => turn = self.run.answer(TO_THE_CHOOSER),
            }
        };
        drop(nt.replace_chooser(usual));
        marked.transpose()
    }

    /// The rest of a run, from a mark at a question, which `policy` answers like all that follow.
    pub fn run_from(&mut self, mark: &Mark, mut policy: Box<dyn Chooser>) -> Report {
        self.back(mark);
        // Before the mark.
        policy.script_begins();
        let nt = self.machine.nt();
        let usual = nt.replace_chooser(policy);
        let Ended { failure, notes } = self.run.answer_and_finish(TO_THE_CHOOSER);
        drop(nt.replace_chooser(usual));
        self.machine.report(failure, &notes)
    }

    /// From now on runs learn, instruction by instruction, which of the drivers' plain loads and stores touch memory that
    /// another thread, DPC or interrupt routine touches too, one of them storing. Slow, and changes nothing else.
    pub fn learn(&mut self) {
        self.machine.host.learn_shared(true);
    }

    /// From now on the policy of each run hears in which state it is asked ([`Chooser::comes_to`]). It takes [`Exploration::learn`], and changes
    /// nothing else.
    pub fn keep_history(&mut self, on: bool) {
        self.machine.host.keep_history(on);
    }

    /// Whether the last run has taught too little and is to be made again, from the beginning: see [`engine::Engine::must_learn_again`].
    pub fn must_learn_again(&mut self) -> bool {
        self.machine.host.must_learn_again()
    }

    /// The addresses of all instructions learned so far, sorted.
    #[must_use]
    pub fn learned(&self) -> Vec<u64> {
        self.machine.host.shared()
    }

    /// Lets the policy of further runs be asked before the instructions at these addresses, and no others of this kind.
    pub fn watch(&mut self, instructions: &[u64]) {
        self.machine.host.watch(instructions);
    }

    /// Everything in the machine as one number, for telling states apart within this process: see
    /// [`engine::Engine::fingerprint`]. Slow.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.machine.host.fingerprint()
    }
}

impl Drop for Exploration<'_> {
    fn drop(&mut self) {
        self.restart();
        self.machine.host.keep_history(false);
        self.machine.host.learn_shared(false);
        self.machine.host.watch(&[]);
        self.machine.host.discard(self.beginning.snapshot);
    }
}

/// What a policy answers to a question. The question does not say which strands it is about: a policy that goes by strands (PCT)
/// decides from inside the machine.
#[must_use]
pub fn put(question: &Question, policy: &mut dyn Chooser) -> u64 {
    match *question {
        Question::Choice { strand, point, n } | Question::NextStrand { strand, point, n } => {
            policy.choose(strand, point, n).into()
        }
        Question::GiveWay { strand, point } => policy.choose(strand, point, 2).into(),
        Question::Slice { strand, retired } => policy.slice(strand, retired),
    }
}
