//! Requests whose answers their inputs decide, and nothing that was asked for before: what one of them gives must not be another's.

use super::Answered;
use super::asking::Asking;
use super::company::PAIRED;
use super::known::Known;
use super::question::{Question, given};
use crate::error::Error;

/// Words that stand in front of the inputs. Smaller ones may be a number of requests as well.
const WORDS: [u32; 7] = [4, 5, 6, 8, 0x10, 0x64, 0x1000];

/// Longer answers are not looked at.
const LONGEST: usize = 256;

impl Asking<'_> {
    /// Pairs of such requests, of one code each, that end by themselves when they are made at once.
    pub(super) fn own_answers(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
    ) -> Result<Vec<[Answered; 2]>, Error> {
        let alone = known.iter().enumerate().filter(|(place, one)| {
            one.operation.is_usual()
                && one.operation.needs.is_none()
                && self_ending.contains(&(*place, *place))
        });
        let mut pairs = Vec::new();
        for (_, one) in alone.take(PAIRED) {
            pairs.extend(self.two_answers(one.question)?);
        }
        Ok(pairs)
    }

    /// This request with two words that have other answers.
    fn two_answers(&mut self, question: Question) -> Result<Option<[Answered; 2]>, Error> {
        let mut worded: Vec<Question> =
            WORDS.into_iter().filter_map(|word| question.with_first(word)).collect();
        if worded.is_empty() {
            return Ok(None);
        }
        let forth = self.each_twice(&worded)?;
        worded.reverse();
        let mut back = self.each_twice(&worded)?;
        worded.reverse();
        back.reverse();
        let mut own =
            worded.into_iter().zip(forth.into_iter().zip(back)).filter_map(|(question, answers)| {
                let (answer, again) = answers;
                let answer = answer.filter(|answer| again.as_ref() == Some(answer))?;
                // What is left as it was sent is no answer.
                let is_one = (1..=LONGEST).contains(&answer.len()) && !question.input().starts_with(&answer);
                is_one.then(|| Answered { operation: question.known(true, false).operation, answer })
            });
        let Some(first) = own.next() else { return Ok(None) };
        Ok(own.find(|other| other.answer != first.answer).map(|other| [first, other]))
    }

    /// What these give, one after the other and each twice in a row; none of one that does not give the same, or not well.
    fn each_twice(&mut self, questions: &[Question]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let given = self.with_handle(|machine, handle| {
            let ask = |question: &Question| {
                let first = given(machine, handle, *question)?;
                (given(machine, handle, *question)? == first).then_some(first)
            };
            questions.iter().map(ask).collect::<Vec<_>>()
        })?;
        Ok(given.unwrap_or_default())
    }
}
