//! Which requests a driver knows, and with what input it takes them.

use std::collections::BTreeSet;

use super::super::wanted::{Came, ENDING, Wanted, wanted};
use super::Operation;
use super::asking::Asking;
use super::question::{
    Answer, Input, LENGTH, LONG, Question, SIZES, WAITING, answer, answer_within, life, succeeds,
};
use crate::error::Error;

/// Codes that no driver has.
const NOBODYS: [u32; 2] = [0x7A5C_2F44, 0x0022_3FFC];
/// Words that codes are asked with besides zero and what the driver compares with, as a count, a kind or a number of something.
pub(super) const WORDS: [u32; 8] = [1, 2, 3, 4, 8, 0x10, 0x64, 0x1000];
/// So many of the driver's own are tried.
pub(super) const OWN_WORDS: usize = 24;
/// What writes are made of besides: digits, letters, ends of lines, and what no text has.
const TEXTS: [u32; 6] = [0x3030_3030, 0x3131_3131, 0x4141_4141, 0x6161_6161, 0x0A0A_0A0A, 0xFFFF_FFFF];
/// Bytes of the blocks of drives and of memory.
const BLOCKS: [u32; 2] = [512, 4096];
/// The sizes of buffers that these stand in.
const WORD_SIZES: [u32; 4] = [64, 4, 8, 16];
/// So many words are looked at that a code is asked with, and so many of them are taken.
const ELSEWHERE_OF: usize = 24;
const ELSEWHERE: usize = 2;
/// So many inputs of one code are tried, each changed by what the driver has compared.
const TRIALS: usize = 96;
/// Which of [`SIZES`] is mostly right, and so many are begun with that have other answers.
const USUAL: usize = 1;
const UNLIKE: usize = 3;
/// `STATUS_INVALID_DEVICE_REQUEST`.
const INVALID_REQUEST: u32 = 0xC000_0010;

/// A request that the driver knows, and how it was asked.
pub(super) struct Known {
    pub(super) operation: Operation,
    pub(super) question: Question,
}

impl Asking<'_> {
    /// A read or write, unless the driver refuses it.
    pub(super) fn plain(&mut self, question: Question) -> Result<Option<Known>, Error> {
        let answers = self.ask(&[question])?;
        Ok(match answers.first() {
            None | Some(Answer::Status(INVALID_REQUEST) | Answer::Later(INVALID_REQUEST)) => None,
            Some(answer) => {
                let waits = *answer == Answer::Waits;
                Some(question.known(succeeds(*answer), waits))
            }
        })
    }

    /// A read, as [`Asking::plain`]: of the usual length; or if it fails, of a block, or of a length that the driver asks for.
    pub(super) fn read(&mut self) -> Result<Option<Known>, Error> {
        let usual = self.plain(Question::Read(LENGTH))?;
        if usual.as_ref().is_none_or(|known| known.operation.succeeds) {
            return Ok(usual);
        }
        if let Some(known) = self.of_blocks(Question::Read)? {
            return Ok(Some(known));
        }
        Ok(self.asked_for(|wanted| Question::Read(wanted.output))?.or(usual))
    }

    /// The first of such requests for whole blocks that succeeds, as [`Asking::plain`].
    fn of_blocks(&mut self, question: impl Fn(u32) -> Question) -> Result<Option<Known>, Error> {
        for length in BLOCKS {
            if let Some(known) = self.plain(question(length))?.filter(|known| known.operation.succeeds) {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    /// The first of such requests that succeeds and is for some bytes, if one does.
    fn asked_for(&mut self, question: impl Fn(&Wanted) -> Question) -> Result<Option<Known>, Error> {
        self.boots.note_compares(true);
        let wanted = self.wanted(question, &[])?;
        self.boots.note_compares(false);
        let succeeds =
            |(question, life): &(Question, u32)| *life > 0 && *life != ENDING && !question.is_empty();
        let found = wanted.into_iter().find(succeeds);
        Ok(found.map(|(question, life)| question.known(true, life == WAITING)))
    }

    /// A write, as [`Asking::plain`]: of zeroes; or if it fails, of what it succeeds with and lives longest: text, what the driver compares with, or what it asks
    /// for.
    pub(super) fn write(&mut self, own: &[u32]) -> Result<Option<Known>, Error> {
        let zeroes = self.plain(Question::Write(Input::Zeroes(LENGTH)))?;
        if zeroes.as_ref().is_none_or(|known| known.operation.succeeds) {
            return Ok(zeroes);
        }
        if let Some(known) = self.of_blocks(|length| Question::Write(Input::Zeroes(length)))? {
            return Ok(Some(known));
        }
        let repeated = |value: u32| if value <= 0xFF { value * 0x0101_0101 } else { value };
        let words: Vec<u32> =
            TEXTS.into_iter().chain(own.iter().take(OWN_WORDS).copied().map(repeated)).collect();
        let of_length =
            |length: u32| words.iter().map(move |word| Question::Write(Input::Filled(*word, length)));
        let answered = self.answers(&WORD_SIZES.into_iter().flat_map(of_length).collect::<Vec<_>>())?;
        // The first of those that live longest.
        let longest = answered.iter().rev().max_by_key(|(_, answer)| life(*answer));
        let known = longest.filter(|(_, answer)| life(*answer) > 0);
        match known.map(|(question, answer)| question.known(true, *answer == Answer::Waits)) {
            Some(known) => Ok(Some(known)),
            None => Ok(self.asked_for(|wanted| Question::Write(Input::wanted(wanted)))?.or(zeroes)),
        }
    }

    /// What the driver answers to codes that no driver has.
    pub(super) fn refusals(&mut self) -> Result<Vec<Answer>, Error> {
        let mut refused = Vec::new();
        for code in NOBODYS {
            for (input, output) in [SIZES[0], SIZES[1]] {
                refused.extend(self.ask(&[Question::Control {
                    code,
                    input: Input::Zeroes(input),
                    output,
                }])?);
            }
        }
        Ok(refused)
    }

    /// A code, if the driver knows it: with zeroes, and with words by which it does more than that.
    pub(super) fn code(&mut self, code: u32, refused: &[Answer], own: &[u32]) -> Result<Vec<Known>, Error> {
        let questions =
            SIZES.map(|(input, output)| Question::Control { code, input: Input::Zeroes(input), output });
        // One that ends the machine says nothing of the others.
        let answers: Vec<Answer> = self.answers(&questions)?.into_iter().map(|(_, answer)| answer).collect();
        // A driver that lets every code succeed, its `switch` having no default, does not tell which it knows.
        let tells = !refused.iter().any(|answer| succeeds(*answer));
        if answers.is_empty() {
            return Ok(Vec::new());
        }
        if tells && answers.iter().all(|answer| refused.contains(answer)) {
            return self.hidden(code);
        }
        let best = answers.iter().position(|answer| succeeds(*answer));
        let waits = answers.contains(&Answer::Waits);
        let plain = questions[best.unwrap_or(USUAL)].known(best.is_some(), waits);
        let reached = answers.iter().map(|answer| life(*answer)).max().unwrap_or(0);
        let worded = self.with_words(code, own)?;
        let mut known = Vec::new();
        // The first of those that live longest.
        let longest = worded.iter().rev().max_by_key(|(_, answer)| life(*answer));
        let longer = longest.filter(|(_, answer)| life(*answer) > reached);
        if longer.is_none() || plain.operation.succeeds {
            known.push(plain);
        }
        known.extend(longer.map(|(question, answer)| question.known(true, *answer == Answer::Waits)));
        let (last, reached) =
            (known[known.len() - 1].question, longer.map_or(reached, |(_, answer)| life(*answer)));
        known.extend(variant(last, reached, &worded));
        self.boots.note_compares(true);
        known.extend(self.going_elsewhere(last, reached, &worded)?);
        let others = if known[0].operation.succeeds { Vec::new() } else { unlike(&answers) };
        let mut wanted = self.wanted(of_code(code), &others)?;
        self.boots.note_compares(false);
        wanted.retain(|(_, life)| *life > 0 || !known[0].operation.succeeds);
        // Of what fails otherwise it is the first that succeeds or comes furthest, and the others do something else.
        if !known[0].operation.succeeds && !wanted.is_empty() {
            known.clear();
        }
        add_wanted(&mut known, wanted);
        Ok(known)
    }

    /// A code that is answered as codes are that no driver has, if there is an input that it takes. It is looked for where more is compared than for those.
    fn hidden(&mut self, code: u32) -> Result<Vec<Known>, Error> {
        self.boots.note_compares(true);
        let mut sites = |code| -> Result<BTreeSet<u64>, Error> {
            let question = of_code(code)(&Wanted::first());
            Ok(self.compared_by(question)?.iter().flat_map(Came::sites).collect())
        };
        let goes_on = !sites(code)?.is_subset(&sites(NOBODYS[0])?);
        let mut wanted = if goes_on { self.wanted(of_code(code), &[])? } else { Vec::new() };
        self.boots.note_compares(false);
        wanted.retain(|(_, life)| *life > 0);
        let mut known = Vec::new();
        add_wanted(&mut known, wanted);
        Ok(known)
    }

    /// Of words by which requests live as long as by the last one, those that lead to most comparisons which it does not lead to.
    fn going_elsewhere(
        &mut self,
        last: Question,
        reached: u32,
        worded: &[(Question, Answer)],
    ) -> Result<Vec<Known>, Error> {
        if reached == 0 {
            return Ok(Vec::new());
        }
        let mut sites = |question| -> Result<BTreeSet<u64>, Error> {
            Ok(self.compared_by(question)?.iter().flat_map(Came::sites).collect())
        };
        let mut seen = sites(last)?;
        let living = || worded.iter().filter(|(_, answer)| life(*answer) == reached);
        let length = last.input().len();
        // Of the usual size; or where none of that size lives as long, of the last one's.
        let is_usual = living().any(|(question, _)| question.is_short());
        let has_size = |question: &Question| {
            if is_usual { question.is_short() } else { question.input().len() == length }
        };
        let alike = living().filter(|(question, _)| has_size(question));
        let mut left = Vec::new();
        for (question, _) in alike.take(ELSEWHERE_OF) {
            left.push((*question, sites(*question)?));
        }
        let mut known = Vec::new();
        for _ in 0..ELSEWHERE {
            let fresh = |(_, sites): &(Question, BTreeSet<u64>)| sites.difference(&seen).count();
            let best = left.iter().rev().max_by_key(|other| fresh(other)).filter(|best| fresh(best) > 0);
            let Some((question, sites)) = best else { break };
            let Known { operation, question } = question.known(true, reached == WAITING);
            known.push(Known { operation: Operation { variant: true, ..operation }, question });
            // It is not fresh any more.
            seen.extend(sites);
        }
        Ok(known)
    }

    /// What comes of a request, and what the driver compares until it is over.
    fn compared_by(&mut self, question: Question) -> Result<Option<Came>, Error> {
        self.with_handle(|machine, handle| {
            drop(machine.compared());
            let reached = machine.reached_count();
            let life = match answer(machine, handle, question) {
                Answer::Ends(_) => ENDING,
                answer => life(answer),
            };
            Came { life, compared: machine.compared(), new_code: machine.reached_count() > reached }
        })
    }

    /// Such requests with what the driver's comparisons ask for; and how long each lives. If none succeeds, buffers of other lengths are begun with.
    fn wanted(
        &mut self,
        question: impl Fn(&Wanted) -> Question,
        lengths: &[(u32, u32)],
    ) -> Result<Vec<(Question, u32)>, Error> {
        let others = lengths.iter().map(|(input, output)| Wanted::of_lengths(*input as usize, *output));
        let mut found = Vec::new();
        for first in [Wanted::first()].into_iter().chain(others.clone()) {
            let next = wanted(first, TRIALS, |wanted| self.compared_by(question(wanted)))?;
            if !next.is_empty() {
                found = next;
            }
            if found.iter().any(|(_, life)| *life > 0) {
                break;
            }
        }
        // Where no change leads further, the lengths do by which most is compared.
        if found.is_empty() {
            let mut most = 0;
            for other in others.map(|other| other.plain()) {
                let came = self.compared_by(question(&other))?;
                let sites: BTreeSet<u64> = came.iter().flat_map(Came::sites).collect();
                if sites.len() > most {
                    (most, found) = (sites.len(), vec![(other, 0)]);
                }
            }
        }
        Ok(found.iter().map(|(wanted, life)| (question(wanted), *life)).collect())
    }

    /// Which wait when nothing was asked before: behind others, what they have used up may be what a request waits for.
    pub(super) fn ask_again(&mut self, known: &mut [Known]) -> Result<(), Error> {
        for Known { operation, question } in known.iter_mut().filter(|one| one.operation.waits) {
            operation.waits =
                self.ask(&[*question])?.first() == Some(&Answer::Waits) && self.waits_for_long(*question)?;
        }
        Ok(())
    }

    /// Whether it still waits when all is over that it is asked in company with: else its own time limit may seem to be what another has done.
    fn waits_for_long(&mut self, question: Question) -> Result<bool, Error> {
        let waits = self
            .with_handle(|machine, handle| answer_within(machine, handle, question, LONG) == Answer::Waits)?;
        Ok(waits.unwrap_or(false))
    }

    /// What a request of this code is answered with which words.
    fn with_words(&mut self, code: u32, own: &[u32]) -> Result<Vec<(Question, Answer)>, Error> {
        let mut questions = Vec::new();
        for length in WORD_SIZES {
            for word in WORDS.iter().chain(own.iter().take(OWN_WORDS)) {
                let inputs = [Input::Word(*word, length), Input::Filled(*word, length)];
                // They are the same in four bytes.
                let inputs = inputs.iter().take(if length == 4 { 1 } else { 2 });
                questions.extend(inputs.map(|input| Question::Control {
                    code,
                    input: *input,
                    output: length,
                }));
            }
        }
        self.answers(&questions)
    }
}

/// Requests of a code.
fn of_code(code: u32) -> impl Fn(&Wanted) -> Question {
    move |wanted| Question::Control { code, input: Input::wanted(wanted), output: wanted.output }
}

/// The lengths of buffers that have other answers than those that are mostly right, the first of each.
fn unlike(answers: &[Answer]) -> Vec<(u32, u32)> {
    let mut seen: Vec<Answer> = answers.get(USUAL).into_iter().copied().collect();
    let mut lengths = Vec::new();
    for ((input, output), answer) in SIZES.into_iter().zip(answers) {
        if !seen.contains(answer) && lengths.len() < UNLIKE {
            seen.push(*answer);
            lengths.push((input, output));
        }
    }
    lengths
}

/// Those of these inputs that are others than what is known; each lives so long.
fn add_wanted(known: &mut Vec<Known>, wanted: Vec<(Question, u32)>) {
    for (question, life) in wanted {
        // Room for a longer answer is nothing else.
        if known.iter().any(|one| one.question.input() == question.input()) {
            continue;
        }
        let succeeds = life != 0 && life != ENDING;
        let Known { operation, question } = question.known(succeeds, life == WAITING);
        // What ends the machine is tried alone, too.
        let variant = !known.is_empty() && life != ENDING;
        known.push(Known { operation: Operation { variant, ..operation }, question });
    }
}

/// The question with another of [`WORDS`] that lives as long, if it lives longer than the driver's routine.
fn variant(question: Question, reached: u32, worded: &[(Question, Answer)]) -> Option<Known> {
    let Question::Control { input, .. } = question else { return None };
    let first = input.bytes();
    let is_other = |asked: &Question| match asked {
        Question::Control { input: input @ Input::Word(word, length), .. } => {
            *length as usize == first.len() && WORDS.contains(word) && input.bytes() != first
        }
        _ => false,
    };
    let mut others = worded.iter().filter(|(asked, answer)| is_other(asked) && life(*answer) == reached);
    let (other, answer) = others.next().filter(|_| reached > 1)?;
    let Known { operation, question } = other.known(true, *answer == Answer::Waits);
    Some(Known { operation: Operation { variant: true, ..operation }, question })
}
