//! Requests of the user's script: it knows inputs that the driver takes which cannot be found out, and which come behind which.

use std::collections::BTreeSet;

use super::Operation;
use super::asking::Asking;
use super::known::Known;
use super::needs::behind_needs;
use super::question::{Answer, Input, LENGTH, Question, succeeds};
use crate::error::Error;
use crate::play::Play;
use crate::script::{self, Command, Request};

/// What a script asks a device for, in its order.
pub(super) struct Given {
    /// The device's name.
    pub(super) name: String,
    questions: Vec<Question>,
}

impl Given {
    /// Of the device that the script opens first, if it is one of these. What is known only when the script runs is left out, and so is its own memory.
    pub(super) fn new(play: &Play, names: &[String]) -> Option<Self> {
        let (mut name, mut handles) = (None::<String>, BTreeSet::new());
        let mut questions = Vec::new();
        for statement in &play.script.statements {
            let request = match &statement.command {
                Command::Open(open) => {
                    if let script::Path::Name(path) = &open.path
                        && let Some(known) = names.iter().find(|name| name.eq_ignore_ascii_case(path))
                        && name.as_ref().is_none_or(|name| name == known)
                    {
                        name = Some(known.clone());
                        handles.insert(open.handle.clone());
                    }
                    continue;
                }
                Command::Request { request, .. }
                | Command::Async { request, .. }
                | Command::Pointer { request, .. }
                | Command::Number { request, .. } => request,
                _ => continue,
            };
            if handles.contains(&request.handle) {
                questions.extend(question(play, request));
            }
        }
        Some(Self { name: name?, questions })
    }
}

fn question(play: &Play, request: &Request) -> Option<Question> {
    if request.input.is_some() || request.output.is_some() {
        return None;
    }
    // A survey is one of a process, and so is its script.
    let input = |data| play.said(data).map(|bytes| Input::Given(Box::leak(bytes.into_boxed_slice())));
    match &request.operation {
        script::Operation::Read { .. } => Some(Question::Read(LENGTH)),
        script::Operation::Write { data, .. } => Some(Question::Write(input(data)?)),
        script::Operation::Ioctl { code, input: None, output } => {
            Some(Question::Control { code: *code, input: Input::Zeroes(0), output: *output })
        }
        script::Operation::Ioctl { code, input: Some(data), output } => {
            Some(Question::Control { code: *code, input: input(data)?, output: *output })
        }
        _ => None,
    }
}

impl Asking<'_> {
    /// Those of a script's requests that succeed, alone or behind one before them in the script, are known; they stand in the place of what is known of the
    /// same code, if that fails.
    pub(super) fn add_given(&mut self, known: &mut Vec<Known>, given: Given) -> Result<(), Error> {
        let mut before: Vec<usize> = Vec::new();
        for question in given.questions {
            let Some((needs, answer)) = self.behind_one_of(known, &before, question)? else { continue };
            let Known { operation, .. } = question.known(needs.is_none(), answer == Answer::Waits);
            let one = Known { operation: Operation { needs, ..operation }, question };
            let alike = |other: &Known| other.operation.command == one.operation.command;
            let failing = |other: &Known| {
                other.operation.code == one.operation.code
                    && !other.operation.succeeds
                    && other.operation.needs.is_none()
            };
            let place = known.iter().position(alike).or_else(|| known.iter().position(failing));
            let place = place.unwrap_or(known.len());
            match known.get_mut(place) {
                Some(other) if other.operation.succeeds => {}
                Some(other) => *other = one,
                None => known.push(one),
            }
            if !before.contains(&place) {
                before.push(place);
            }
        }
        Ok(())
    }

    /// A request that succeeds alone, or behind one of these, the last of them first; and what it is answered.
    fn behind_one_of(
        &mut self,
        known: &[Known],
        before: &[usize],
        question: Question,
    ) -> Result<Option<(Option<usize>, Answer)>, Error> {
        let places = [None].into_iter().chain(before.iter().rev().map(|place| Some(*place)));
        for place in places {
            let chain = place.map(|place| behind_needs(known, &[place])).unwrap_or_default();
            let answer = self.ask_behind(&chain, &[question])?.first().copied();
            if let Some(answer) = answer.filter(|answer| succeeds(*answer)) {
                return Ok(Some((place, answer)));
            }
        }
        Ok(None)
    }
}
