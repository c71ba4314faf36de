//! Requests that hand out the number of something, and others that take it.

use super::asking::Asking;
use super::company::PAIRED;
use super::known::Known;
use super::question::{Question, answer, number, succeeds};
use crate::error::Error;

/// Bytes of a number.
const NUMBER: usize = 4;

impl Asking<'_> {
    /// Which requests take what another has handed out: not only its first number, and not a number that it has not handed out.
    pub(super) fn numbered(&mut self, known: &[Known]) -> Result<Vec<(usize, usize)>, Error> {
        let takes = known.iter().enumerate().filter(|(_, one)| {
            let is_control = matches!(one.question, Question::Control { .. });
            is_control && one.operation.needs.is_some() && one.question.input().len() >= NUMBER
        });
        let mut pairs = Vec::new();
        for (takes, one) in takes.take(PAIRED) {
            let gives = one.operation.needs.expect("those that need none are left out");
            let is_plain = known[gives].operation.needs.is_none() && !known[gives].operation.waits;
            if is_plain && self.takes_its_number(known[gives].question, one.question)? {
                pairs.push((gives, takes));
            }
        }
        Ok(pairs)
    }

    fn takes_its_number(&mut self, gives: Question, takes: Question) -> Result<bool, Error> {
        let takes_it = self.with_handle(|machine, handle| {
            let (first, second) = (number(machine, handle, gives)?, number(machine, handle, gives)?);
            let asked = |number| match takes.with_first(number) {
                Some(question) => succeeds(answer(machine, handle, question)),
                None => false,
            };
            let unknown = first.max(second).wrapping_add(second.abs_diff(first).max(1));
            Some(first != second && !asked(unknown) && asked(second) && asked(first))
        })?;
        Ok(takes_it.flatten().unwrap_or(false))
    }
}
