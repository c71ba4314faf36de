//! How requests end in company: by themselves, by another request, or by what happens outside of the card.

use super::super::exercise::MANY;
use super::super::signals::{Outside, causes_of_each};
use super::asking::Asking;
use super::known::Known;
use super::needs::behind_needs;
use super::question::{Answer, LONG, PATIENCE, Question, answer, answer_within, ended, ends_well, succeeds};
use super::{Ended, EndedBeside};
use crate::error::Error;
use crate::machine::Machine;

/// So many requests are made in pairs: as many as take part in what is done at once, and some.
pub(super) const PAIRED: usize = 8;
/// More requests than an exercise makes of one kind.
pub(super) const MORE_THAN_ANY: usize = 300;
/// How long a bus driver may take until it reports what has come, in the machine's time: contacts bounce.
const SETTLING: u64 = 100_000_000;
/// So many pairs of them are found that go together.
const TOGETHER: usize = 4;
/// So many requests are found that are made beside one which ends another.
const BESIDE: usize = 4;
/// So many are cancelled before one that is to succeed.
const CANCELLED: usize = 2;
/// So many handles are opened one behind the other for a request that is to end well on each.
const ANEW: usize = 4;
/// Between two things that are done to a card.
pub(super) const BETWEEN: u64 = 1_000_000;

impl Asking<'_> {
    /// Which pairs end by themselves and succeed, in either order, on one handle and on two: what one of them has acquired, another one may wait for. Neither ends the
    /// other one badly that is under way.
    /// Without hardware that takes what was queued, a request may use something up for which the next ones wait, as places of a ring that a card of which nothing is known never empties:
    /// there, so many `in_a_row` must, more than are ever made.
    pub(super) fn self_ending(
        &mut self,
        known: &[Known],
        in_a_row: usize,
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut alone: Vec<(usize, Question)> =
            succeeding(known).map(|(place, one)| (place, one.question)).collect();
        if in_a_row > 0 {
            let mut lasting = Vec::new();
            for (place, question) in alone {
                if self.all_end(&vec![question; in_a_row])? {
                    lasting.push((place, question));
                }
            }
            alone = lasting;
        }
        let mut pairs = Vec::new();
        for (at, &(one, first)) in alone.iter().enumerate() {
            for &(other, second) in &alone[at..] {
                if self.all_end(&[first, second, first])?
                    && self.all_end_on_two_handles(&[first, second, first])?
                    && (one == other
                        || self.all_end(&[second, first, second])?
                            && self.all_end_on_two_handles(&[second, first, second])?
                            && !self.is_ended_badly([second, first])?)
                    && !self.is_ended_badly([first, second])?
                {
                    pairs.push((one.min(other), one.max(other)));
                }
            }
        }
        Ok(pairs)
    }

    /// Whether one of these fails beside the other, as what is under way does beside a request to abort it.
    fn is_ended_badly(&mut self, questions: [Question; 2]) -> Result<bool, Error> {
        let answers = self.with_handle(|machine, handle| {
            let mut begun = Vec::new();
            for question in questions {
                begun.extend(question.begin(handle));
                let _ = machine.wait(BETWEEN);
            }
            let _ = machine.wait(2 * LONG);
            begun.into_iter().map(ended).collect::<Vec<_>>()
        })?;
        let fails = |answer: &Answer| *answer != Answer::Waits && !ends_well(*answer);
        Ok(answers.unwrap_or_default().iter().any(fails))
    }

    /// Which of those that do not succeed again and again give up altogether: one fails, the next is not answered. `self_ending` are those that do.
    pub(super) fn stuck(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
    ) -> Result<Vec<(usize, usize)>, Error> {
        let lasting: Vec<usize> = alone(self_ending).collect();
        let mut stuck = Vec::new();
        for (place, one) in succeeding(known).filter(|(place, _)| !lasting.contains(place)) {
            let answers = self.with_handle(|machine, handle| {
                let all = (0..MANY).map(|_| answer_within(machine, handle, one.question, LONG));
                all.take_while(|answer| *answer != Answer::Waits).collect::<Vec<_>>()
            })?;
            let answers = answers.unwrap_or_default();
            let fails = answers
                .last()
                .is_some_and(|last| matches!(last, Answer::Status(_) | Answer::Later(_)) && !succeeds(*last));
            if fails && answers.len() > 1 && answers.len() < MANY as usize {
                stuck.push((place, answers.len()));
            }
        }
        Ok(stuck)
    }

    /// Which end by themselves beside one that does not.
    pub(super) fn ending_beside(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut pairs = Vec::new();
        for one in alone(self_ending) {
            for (other, beside) in variants_last(known).take(PAIRED) {
                if one == other || self_ending.contains(&(one.min(other), one.max(other))) {
                    continue;
                }
                let (first, second) = (known[one].question, beside.question);
                let begun_last = self.together(&[second, first], &[], BETWEEN)?;
                if begun_last.get(1).is_some_and(|answer| ends_well(*answer))
                    && self
                        .together(&[first, second], &[], BETWEEN)?
                        .first()
                        .is_some_and(|answer| ends_well(*answer))
                {
                    pairs.push((one, other));
                }
            }
        }
        Ok(pairs)
    }

    /// Which of those that end by themselves still succeed behind another one that was cancelled, again and again.
    pub(super) fn behind_cancelled(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut pairs = Vec::new();
        for (waits, beside) in waiting(known) {
            for one in alone(self_ending) {
                let mut questions = vec![beside.question; CANCELLED];
                questions.push(known[one].question);
                let answers = self.ask(&questions)?;
                let last = answers.get(CANCELLED).copied();
                if answers.iter().take(CANCELLED).all(|answer| *answer == Answer::Waits)
                    && last.is_some_and(ends_well)
                {
                    pairs.push((waits, one));
                }
            }
        }
        Ok(pairs)
    }

    /// The devices that come when each of these has been asked for.
    pub(super) fn children(&mut self, known: &[Known], devices: &[String]) -> Result<Vec<String>, Error> {
        // One of them may take away what the one before it has brought.
        let came = self.with_handle(|machine, handle| {
            let mut came = Vec::new();
            for one in known {
                if matches!(answer(machine, handle, one.question), Answer::Ends(_)) {
                    break;
                }
                let _ = machine.wait(SETTLING);
                let is_new = |name: &String| !devices.contains(name) && !came.contains(name);
                let new: Vec<String> = machine.device_names().into_iter().filter(is_new).collect();
                came.extend(new);
            }
            came
        })?;
        Ok(came.unwrap_or_default())
    }

    /// Which wait until another is made: one that succeeds alone, though perhaps not as often as is asked, where it is kept for those that come.
    pub(super) fn ended_by(&mut self, known: &[Known]) -> Result<Vec<(usize, usize)>, Error> {
        let mut pairs = Vec::new();
        for (waits, _) in waiting(known) {
            for (ends, _) in succeeding(known) {
                let sequences = [
                    &[waits, ends][..],
                    &[ends, waits, ends],
                    &[ends, ends, waits, ends],
                    &[waits, ends, waits, ends, ends],
                ];
                let mut is_so = true;
                for places in sequences {
                    is_so = is_so && self.all_end_spaced(&behind_needs(known, places))?;
                }
                is_so = is_so
                    && (self.all_end_spaced(&behind_needs(known, &[waits, waits, ends, ends]))?
                        || self.one_at_a_time(known, waits, ends)?);
                pairs.extend(is_so.then_some((waits, ends)));
            }
        }
        Ok(pairs)
    }

    /// Whether a second request of the kind is refused while one waits, which is ended then as if there had been none.
    fn one_at_a_time(&mut self, known: &[Known], waits: usize, ends: usize) -> Result<bool, Error> {
        let questions = behind_needs(known, &[waits, waits, ends]);
        let second = questions.len() - 2;
        let is_so = |(place, answer): (usize, Answer)| match answer {
            Answer::Status(_) if place == second => !ends_well(answer),
            _ => place != second && ends_well(answer),
        };
        Ok(self.spaced(&questions)?.is_some_and(|answers| answers.into_iter().enumerate().all(is_so)))
    }

    /// Which two wait until another is made, of which there is enough then for one more that comes later, and not for the second: that is passed over. It is none
    /// of `ended_by` then.
    pub(super) fn passed_over(
        &mut self,
        known: &[Known],
        ended_by: &[(usize, usize)],
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut pairs = Vec::new();
        for (waits, one) in waiting(known).filter(|(_, one)| one.operation.needs.is_none()) {
            for (ends, other) in succeeding(known).filter(|(ends, _)| !ended_by.contains(&(waits, *ends))) {
                let (waiting, ending) = (one.question, other.question);
                let answers = self.spaced(&[waiting, waiting, ending, waiting])?;
                let is_passed_over = answers.is_some_and(|answers| {
                    answers[1] == Answer::Waits && [0, 2, 3].iter().all(|at| ends_well(answers[*at]))
                });
                pairs.extend(is_passed_over.then_some((waits, ends)));
            }
        }
        Ok(pairs)
    }

    /// Which end well on one handle behind the other, each of which is closed before the next is opened.
    pub(super) fn ending_anew(&mut self, known: &[Known]) -> Result<Vec<usize>, Error> {
        let name = self.name.clone();
        let mut all = Vec::new();
        for (place, one) in succeeding(known) {
            let is_so = self.with_handle(|machine, _| {
                (0..ANEW).all(|_| {
                    let Ok(handle) = machine.open_overlapped(&name) else { return false };
                    ends_well(answer_within(machine, &handle, one.question, LONG)) && handle.close().is_ok()
                })
            })?;
            all.extend((is_so == Some(true)).then_some(place));
        }
        Ok(all)
    }

    /// Which of these pairs have a request beside what ends the first, which leaves that to it; one of the same code counts more.
    pub(super) fn ended_beside(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
        ended_by: &[(usize, usize)],
    ) -> Result<Vec<EndedBeside>, Error> {
        let mut all: Vec<EndedBeside> = Vec::new();
        for &(waits, ends) in ended_by {
            let leaves_it = alone(self_ending).filter(|beside| !ended_by.contains(&(waits, *beside)));
            all.extend(leaves_it.map(|beside| EndedBeside { waits, ends, beside }));
        }
        let code = |place: usize| known[place].operation.code;
        all.sort_by_key(|one| code(one.beside) != code(one.ends));
        let mut found: Vec<EndedBeside> = Vec::new();
        for one in all {
            let EndedBeside { waits, ends, beside } = one;
            if found.len() == BESIDE || found.iter().any(|known| (known.waits, known.ends) == (waits, ends)) {
                continue;
            }
            let mut is_so = true;
            for places in [[waits, beside, ends], [waits, ends, beside]] {
                let questions = behind_needs(known, &places);
                // One that is made just behind what ends the first may undo that.
                is_so = is_so && self.all_end_together(&questions)? && self.all_end_spaced(&questions)?;
            }
            found.extend(is_so.then_some(one));
        }
        Ok(found)
    }

    /// Which two of these pairs of requests go together: each ends well, in whichever order those that end them are made.
    pub(super) fn ended_together(
        &mut self,
        known: &[Known],
        ended_by: &[(usize, usize)],
    ) -> Result<Vec<[(usize, usize); 2]>, Error> {
        let mut together = Vec::new();
        for (at, &(waits, ends)) in ended_by.iter().enumerate() {
            for &(other, ends_other) in &ended_by[at + 1..] {
                let are_apart = other != waits
                    && ends_other != ends
                    && !ended_by.contains(&(waits, ends_other))
                    && !ended_by.contains(&(other, ends));
                if !are_apart || together.len() == TOGETHER {
                    continue;
                }
                let mut is_so = true;
                for places in [[waits, other, ends, ends_other], [waits, other, ends_other, ends]] {
                    is_so = is_so && self.all_end_spaced(&behind_needs(known, &places))?;
                }
                together.extend(is_so.then_some([(waits, ends), (other, ends_other)]));
            }
        }
        Ok(together)
    }

    /// Whether all of these end well, which are made one just behind the other.
    fn all_end_together(&mut self, questions: &[Question]) -> Result<bool, Error> {
        self.all_end_by(questions, &[], BETWEEN)
    }

    /// Whether all of these end well, which are made one after the other, each a while behind the one before.
    pub(super) fn all_end_spaced(&mut self, questions: &[Question]) -> Result<bool, Error> {
        Ok(self.spaced(questions)?.is_some_and(|answers| answers.into_iter().all(ends_well)))
    }

    /// The answers to requests that are made so; none if one cannot be made.
    fn spaced(&mut self, questions: &[Question]) -> Result<Option<Vec<Answer>>, Error> {
        let answers = self.with_handle(|machine, handle| {
            let mut begun = Vec::new();
            for question in questions {
                begun.push(question.begin(handle).ok()?);
                let _ = machine.wait(PATIENCE);
            }
            Some(begun.into_iter().map(ended).collect())
        })?;
        Ok(answers.flatten())
    }

    /// Which wait until something is done to the card.
    pub(super) fn ended(&mut self, known: &[Known], outside: &[Outside]) -> Result<Vec<Ended>, Error> {
        let (mut alone, mut all) = (Vec::new(), Vec::new());
        let waiting = variants_last(known).filter(|(_, one)| one.operation.waits).take(PAIRED);
        for (place, _) in waiting {
            for (by, event) in outside.iter().enumerate() {
                let ends = |held| self.all_end_by(&behind_needs(known, &[place]), &[event], held);
                if first_of([BETWEEN, PATIENCE], ends)?.is_some() {
                    alone.push((place, by));
                }
            }
        }
        for (at, &(one, first)) in alone.iter().enumerate().take(PAIRED) {
            let event = &outside[first];
            let questions = behind_needs(known, &[one]);
            let before = self.ends_behind(&questions, event)?;
            let twice = self.is_ended_again(&questions, event)?;
            all.push(Ended { operations: vec![one], by: vec![first], before, twice });
            for &(other, second) in alone[at + 1..].iter().filter(|(_, second)| *second != first) {
                let (questions, events) =
                    (behind_needs(known, &[one, other]), [&outside[first], &outside[second]]);
                if self.all_end_by(&questions, &events, BETWEEN)? {
                    all.push(Ended {
                        operations: vec![one, other],
                        by: vec![first, second],
                        before: false,
                        twice: false,
                    });
                }
            }
        }
        Ok(all)
    }

    /// Which are ended by an input of a board of which nothing is known while its registers show many bits, too: the input alone may end them only by what the
    /// driver has written to registers, which a board loses with its power.
    pub(super) fn ended_by_bits(
        &mut self,
        known: &[Known],
        ended: &[Ended],
        outside: &[Outside],
    ) -> Result<Vec<(usize, Outside)>, Error> {
        let mut by_bits = Vec::new();
        for Ended { operations, by, .. } in ended {
            let ([place], [by]) = (operations.as_slice(), by.as_slice()) else { continue };
            let event = outside[*by].with_bits();
            if let Some(event) =
                event.filter(|event| by_bits.iter().all(|(known, other)| (known, other) != (place, event)))
                && self.all_end_by(&behind_needs(known, &[*place]), &[&event], BETWEEN)?
            {
                by_bits.push((*place, event));
            }
        }
        Ok(by_bits)
    }

    /// Which wait until one of these causes comes, and the first that ends each, but for those of which it is known already. A request that cannot be cancelled
    /// counts as one that fails.
    pub(super) fn ended_by_causes(
        &mut self,
        known: &[Known],
        ended_already: &[Ended],
        causes: &[Outside],
    ) -> Result<Vec<(usize, Outside)>, Error> {
        let mut ended = Vec::new();
        for (place, one) in variants_last(known)
            .filter(|(_, one)| one.operation.waits || !one.operation.succeeds)
            .filter(|(place, _)| !ended_already.iter().any(|ended| ended.operations.contains(place)))
            .take(PAIRED)
        {
            for cause in causes {
                if self.all_end_by(&[one.question], &[cause], BETWEEN)? {
                    ended.push((place, cause.clone()));
                    break;
                }
            }
        }
        Ok(ended)
    }

    /// Of the causes of each card's interrupts the one at which the driver writes most to its device, if that is more than at the first.
    pub(super) fn stirring(&mut self, signals: &[String], boards: &[String]) -> Result<Vec<Outside>, Error> {
        let mut stirring = Vec::new();
        for causes in causes_of_each(signals, boards) {
            let mut written = Vec::new();
            for cause in &causes {
                let count = self.with_handle(|machine, _| {
                    let before = machine.register_writes();
                    let _ = machine.poke(&cause.device, &cause.signal, cause.values[0]);
                    let _ = machine.wait(BETWEEN);
                    machine.register_writes() - before
                })?;
                written.push(count.unwrap_or(0));
            }
            let most = written.iter().copied().max().unwrap_or(0);
            let first = causes.into_iter().zip(&written).find(|(_, count)| **count == most);
            stirring.extend(first.filter(|_| written.first() < Some(&most)).map(|(cause, _)| cause));
        }
        Ok(stirring)
    }

    /// Whether all of these end well, which are under way together while this is done to their cards: each value of it is `held` so long.
    pub(super) fn all_end_by(
        &mut self,
        questions: &[Question],
        events: &[&Outside],
        held: u64,
    ) -> Result<bool, Error> {
        Ok(self.together(questions, events, held)?.iter().all(|answer| ends_well(*answer)))
    }

    /// The answers to such requests.
    fn together(
        &mut self,
        questions: &[Question],
        events: &[&Outside],
        held: u64,
    ) -> Result<Vec<Answer>, Error> {
        let answers = self.with_handle(|machine, handle| {
            let begun: Result<Vec<_>, _> = questions.iter().map(|question| question.begin(handle)).collect();
            let Ok(begun) = begun else { return vec![Answer::Ends(0)] };
            let _ = machine.wait(BETWEEN);
            for event in events {
                happen(machine, event, held);
            }
            let _ = machine.wait(PATIENCE);
            begun.into_iter().map(ended).collect()
        })?;
        Ok(answers.unwrap_or_else(|| vec![Answer::Ends(0)]))
    }

    /// Whether the last of these ends well when that is done to the card, the others being made before it, and does so once more when that is done again.
    fn is_ended_again(&mut self, questions: &[Question], event: &Outside) -> Result<bool, Error> {
        let Some((last, needed)) = questions.split_last() else { return Ok(false) };
        let ends = self.with_handle(|machine, handle| {
            let begun: Result<Vec<_>, _> = needed.iter().map(|question| question.begin(handle)).collect();
            let is_ended = (0..2).all(|_| {
                let Ok(request) = last.begin(handle) else { return false };
                let _ = machine.wait(BETWEEN);
                happen(machine, event, BETWEEN);
                let _ = machine.wait(PATIENCE);
                ends_well(ended(request))
            });
            is_ended && begun.is_ok_and(|begun| begun.into_iter().all(|request| ends_well(ended(request))))
        })?;
        Ok(ends.unwrap_or(false))
    }

    /// Whether the last of these ends well that is made behind what is done to the card, and the others before that.
    fn ends_behind(&mut self, questions: &[Question], event: &Outside) -> Result<bool, Error> {
        let Some((last, needed)) = questions.split_last() else { return Ok(false) };
        let ends = self.with_handle(|machine, handle| {
            let begun: Result<Vec<_>, _> = needed.iter().map(|question| question.begin(handle)).collect();
            let (first, rest) = event.values.split_first()?;
            let _ = machine.wait(BETWEEN);
            let _ = machine.poke(&event.device, &event.signal, *first);
            let _ = machine.wait(PATIENCE);
            let request = last.begin(handle).ok()?;
            let _ = machine.wait(PATIENCE);
            let ends = ends_well(ended(request));
            rest.iter().for_each(|value| drop(machine.poke(&event.device, &event.signal, *value)));
            Some(begun.ok()?.into_iter().fold(ends, |all_end, request| ends_well(ended(request)) && all_end))
        })?;
        Ok(ends.flatten().unwrap_or(false))
    }
}

/// This is done to the card: each value of it is `held` so long.
fn happen(machine: &Machine, event: &Outside, held: u64) {
    for value in &event.values {
        let _ = machine.poke(&event.device, &event.signal, *value);
        let _ = machine.wait(held);
    }
}

/// The first of these with which it is so.
fn first_of(
    times: [u64; 2],
    mut is_so: impl FnMut(u64) -> Result<bool, Error>,
) -> Result<Option<u64>, Error> {
    for time in times {
        if is_so(time)? {
            return Ok(Some(time));
        }
    }
    Ok(None)
}

/// The first that wait, variants last.
pub(super) fn waiting(known: &[Known]) -> impl Iterator<Item = (usize, &Known)> {
    variants_last(known).filter(|(_, one)| one.operation.waits).take(PAIRED)
}

/// The first that succeed by themselves, variants last.
fn succeeding(known: &[Known]) -> impl Iterator<Item = (usize, &Known)> {
    variants_last(known).filter(|(_, one)| one.operation.succeeds && !one.operation.waits).take(PAIRED)
}

/// Of the pairs that end by themselves, those of two of one kind: its place.
fn alone(self_ending: &[(usize, usize)]) -> impl Iterator<Item = usize> {
    self_ending.iter().filter(|(one, other)| one == other).map(|(one, _)| *one)
}

/// All requests with their places, those first that are no variants: each time so many are taken.
pub(super) fn variants_last(known: &[Known]) -> impl Iterator<Item = (usize, &Known)> {
    let of = move |variant: bool| {
        known.iter().enumerate().filter(move |(_, one)| one.operation.variant == variant)
    };
    of(false).chain(of(true))
}
