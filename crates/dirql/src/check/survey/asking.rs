//! One question after the other to a driver in a machine that is booted again where a question ends it.

use super::question::{Answer, LONG, PATIENCE, Question, answer, answer_within, ended, ends_well};
use super::usual;
use crate::error::Error;
use crate::machine::{Boots, Handle, Machine};
use crate::report::{Report, instruction};

/// So often the machine is booted for one code, if words end it.
const BOOTS: usize = 6;

/// A machine that is booted with the driver, and the name of its device.
pub(super) struct Asking<'b> {
    pub(super) boots: &'b mut Boots,
    pub(super) name: String,
}

/// The answers to one request after the other, up to the first that ends the machine.
fn in_turn(machine: &Machine, handle: &Handle<'_>, questions: &[Question]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for question in questions {
        answers.push(answer(machine, handle, *question));
        if matches!(answers.last(), Some(Answer::Ends(_))) {
            break;
        }
    }
    answers
}

impl Asking<'_> {
    /// The answers to one request after the other, on one handle, up to the first that ends the machine.
    pub(super) fn ask(&mut self, questions: &[Question]) -> Result<Vec<Answer>, Error> {
        let (answers, report) =
            self.with_handle_reported(|machine, handle| in_turn(machine, handle, questions))?;
        let mut answers = answers.unwrap_or_default();
        if let Some(Answer::Ends(place)) = answers.last_mut() {
            *place = report.verdict.as_ref().and_then(instruction).unwrap_or(0);
        }
        Ok(answers)
    }

    /// As [`Asking::ask`], behind requests that are under way still if they do not end by themselves.
    pub(super) fn ask_behind(
        &mut self,
        before: &[Question],
        questions: &[Question],
    ) -> Result<Vec<Answer>, Error> {
        let answers = self.with_handle(|machine, handle| {
            let mut under_way = Vec::new();
            for question in before {
                under_way.extend(question.begin(handle));
                let _ = machine.wait(PATIENCE);
            }
            let answers = in_turn(machine, handle, questions);
            for request in under_way {
                let _ = ended(request);
            }
            answers
        })?;
        Ok(answers.unwrap_or_default())
    }

    /// What comes of this with a machine whose device is open. None if it cannot be opened.
    pub(super) fn with_handle<R>(
        &mut self,
        work: impl FnOnce(&Machine, &Handle<'_>) -> R,
    ) -> Result<Option<R>, Error> {
        self.with_handle_reported(work).map(|(done, _)| done)
    }

    /// As [`Asking::with_handle`], with what is reported of it.
    fn with_handle_reported<R>(
        &mut self,
        work: impl FnOnce(&Machine, &Handle<'_>) -> R,
    ) -> Result<(Option<R>, Report), Error> {
        let Self { boots, name } = self;
        boots.boot_to_script(usual(), |machine| {
            let handle = machine.open_overlapped(name).ok()?;
            Some(work(machine, &handle))
        })
    }

    /// The answers to one request after the other, though some may end the machine.
    pub(super) fn answers(&mut self, questions: &[Question]) -> Result<Vec<(Question, Answer)>, Error> {
        let (mut rest, mut answered) = (questions, Vec::new());
        for _ in 0..BOOTS {
            let answers = self.ask(rest)?;
            answered.extend(rest.iter().copied().zip(answers.iter().copied()));
            rest = &rest[answers.len()..];
            if answers.is_empty() || rest.is_empty() {
                break;
            }
        }
        Ok(answered)
    }

    /// Whether each of these, asked for one after the other, ends by itself and succeeds.
    pub(super) fn all_end(&mut self, questions: &[Question]) -> Result<bool, Error> {
        let all_end = self.with_handle(|machine, handle| {
            questions.iter().all(|question| ends_well(answer_within(machine, handle, *question, LONG)))
        })?;
        Ok(all_end.unwrap_or(false))
    }

    /// As [`Asking::all_end`], on two handles in turn, if there can be two.
    pub(super) fn all_end_on_two_handles(&mut self, questions: &[Question]) -> Result<bool, Error> {
        let name = self.name.clone();
        let all_end = self.with_handle(|machine, first| {
            let Ok(second) = machine.open_overlapped(&name) else { return true };
            let mut in_turn = questions.iter().zip([first, &second].into_iter().cycle());
            in_turn.all(|(question, handle)| ends_well(answer_within(machine, handle, *question, LONG)))
        })?;
        Ok(all_end.unwrap_or(false))
    }
}
