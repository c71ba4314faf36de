//! Requests that succeed behind another one only, and words by which one ends another that waits.

use super::super::signals::Outside;
use super::asking::Asking;
use super::company::{BETWEEN, PAIRED, variants_last, waiting};
use super::known::{Known, OWN_WORDS, WORDS};
use super::question::{Answer, Input, Question, answer, ended, ends_well, number, succeeds};
use super::{Operation, needed_before};
use crate::error::Error;

/// The largest word of an answer that is taken for the number of something.
const LARGEST_NUMBER: u32 = 0xFFFF;

/// So many requests are what another may need, those with the nearest codes, and so many may be made before one.
const NEEDED: usize = 12;
const DEPTH: usize = 3;

/// These, behind what they need, and what that needs.
pub(super) fn behind_needs(known: &[Known], places: &[usize]) -> Vec<Question> {
    let needed = needed_before(places.iter().copied(), |place| known[place].operation.needs);
    needed.iter().chain(places).map(|place| known[*place].question).collect()
}

/// Of requests, with what they are answered, those that the one at `place` needs most likely: a driver's codes that belong together have near numbers.
fn nearest(
    known: &[Known],
    place: usize,
    all: &[(usize, Option<u32>)],
) -> impl Iterator<Item = (usize, Option<u32>)> + use<> {
    let code = |place: usize| known[place].operation.code;
    let distance = |other: usize| code(place).zip(code(other)).map_or(0, |(one, other)| one.abs_diff(other));
    let mut nearest = all.to_vec();
    nearest.sort_by_key(|(other, _)| distance(*other));
    nearest.into_iter().take(NEEDED)
}

impl Asking<'_> {
    /// What is over at once may do something with another word: one that ends a request that waits is what it is asked with.
    pub(super) fn find_words_that_end(&mut self, known: &mut [Known], own: &[u32]) -> Result<(), Error> {
        let waiting = known.iter().filter(|one| one.operation.waits).take(PAIRED);
        let waiting: Vec<Question> = waiting.map(|one| one.question).collect();
        let is_plain = |one: &&mut Known| one.operation.succeeds && !one.operation.waits;
        for one in known.iter_mut().filter(is_plain).take(PAIRED) {
            let Question::Control { code, input: Input::Zeroes(length @ 4..), output } = one.question else {
                continue;
            };
            for waits in &waiting {
                let words = WORDS.iter().chain(own.iter().take(OWN_WORDS));
                let worded =
                    words.map(|word| Question::Control { code, input: Input::Word(*word, length), output });
                let questions: Vec<Question> = [one.question].into_iter().chain(worded).collect();
                let first = self.first_that_ends(*waits, &questions)?;
                // Neither do zeroes nor the time.
                let Some(at) = first.filter(|at| *at > 0) else { continue };
                if self.all_end_spaced(&[*waits, questions[at]])?
                    && !self.all_end_spaced(&[*waits, one.question])?
                {
                    *one = questions[at].known(true, false);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Behind which of these, asked one after the other, a request is over that waits.
    fn first_that_ends(&mut self, waits: Question, questions: &[Question]) -> Result<Option<usize>, Error> {
        let first = self.with_handle(|machine, handle| {
            let request = waits.begin(handle).ok()?;
            let first = questions.iter().position(|question| {
                let is_answered = ends_well(answer(machine, handle, *question));
                let _ = machine.wait(BETWEEN);
                is_answered && request.is_over()
            });
            let _ = ended(request);
            first
        })?;
        Ok(first.flatten())
    }

    /// Of those that fail alone, which succeed behind another, or while it waits: with zeroes, with the word that the other has, or with what it was answered.
    /// What succeeds so may be what the next one needs.
    pub(super) fn find_needs(&mut self, known: &mut [Known]) -> Result<(), Error> {
        let succeeding = variants_last(known).filter(|(_, one)| one.operation.succeeds);
        let succeeding: Vec<usize> = succeeding.map(|(place, _)| place).collect();
        let mut fresh = Vec::new();
        for place in succeeding {
            fresh.push((place, self.answered(known[place].question)?));
        }
        for _ in 0..DEPTH {
            let failing = |one: &Known| !one.operation.succeeds && one.operation.needs.is_none();
            let failing = known.iter().enumerate().filter(|(_, one)| failing(one)).take(PAIRED);
            let failing: Vec<usize> = failing.map(|(place, _)| place).collect();
            let mut found = Vec::new();
            for place in failing {
                for (before, answered) in nearest(known, place, &fresh) {
                    let questions = known[place].question.behind(known[before].question, answered);
                    let behind = self.ask_behind(&behind_needs(known, &[before]), &questions)?;
                    let Some(at) = behind.iter().position(|answer| succeeds(*answer)) else { continue };
                    let waits = behind[at] == Answer::Waits;
                    let Known { operation, question } = questions[at].known(false, waits);
                    known[place] =
                        Known { operation: Operation { needs: Some(before), ..operation }, question };
                    found.extend((!waits).then_some((place, None)));
                    break;
                }
            }
            fresh = found;
        }
        Ok(())
    }

    /// Of those that wait, and that neither another request ends nor what happens outside of the cards alone, which end by that behind another one: it arms the
    /// card, or enables its interrupt.
    pub(super) fn find_what_arms(
        &mut self,
        known: &mut [Known],
        ended_by: &[(usize, usize)],
        outside: &[Outside],
    ) -> Result<(), Error> {
        let plain = variants_last(known).filter(|(_, one)| one.operation.succeeds && !one.operation.waits);
        let plain: Vec<(usize, Option<u32>)> = plain.map(|(place, _)| (place, None)).collect();
        let waits = |place: &usize| ended_by.iter().all(|(waits, _)| waits != place);
        let alone = waiting(known).filter(|(_, one)| one.operation.needs.is_none()).map(|(place, _)| place);
        for place in alone.filter(waits).collect::<Vec<_>>() {
            if self.is_ended(known, &[place], outside)? {
                continue;
            }
            for (before, _) in nearest(known, place, &plain) {
                let both = [before, place];
                if self.is_ended(known, &both, outside)? {
                    known[place].operation.needs = Some(before);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether all of these end by one of what happens outside of the cards.
    fn is_ended(&mut self, known: &[Known], places: &[usize], outside: &[Outside]) -> Result<bool, Error> {
        let questions = behind_needs(known, places);
        for event in outside {
            if self.all_end_by(&questions, &[event], BETWEEN)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The word that a request is answered with, if that may be a number of something.
    fn answered(&mut self, question: Question) -> Result<Option<u32>, Error> {
        let word = self.with_handle(|machine, handle| number(machine, handle, question))?;
        Ok(word.flatten().filter(|word| (1..=LARGEST_NUMBER).contains(word)))
    }
}
