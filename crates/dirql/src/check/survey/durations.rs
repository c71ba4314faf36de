//! Requests that wait for as long as the word in front of their input says: what is longer must not be over sooner.

use super::Timed;
use super::asking::Asking;
use super::company::PAIRED;
use super::known::Known;
use super::question::{Answer, Question, ended};
use crate::error::Error;

/// What such a word counts: how long one is, in nanoseconds; two words that show it; and longer ones. Those are, in 100 ns or in microseconds, just no numbers of
/// 31 or of 32 bits, and one is no number of 16 bits.
struct Unit {
    length: u64,
    shown_by: [u32; 2],
    longer: [u32; 5],
}

const MILLISECOND: Unit = Unit {
    length: 1_000_000,
    shown_by: [200, 1_000],
    longer: [65_537, 214_749, 429_497, 2_147_484, 4_294_968],
};
const SECOND: Unit =
    Unit { length: 1_000_000_000, shown_by: [2, 5], longer: [215, 430, 2_148, 4_295, 65_537] };

/// So much sooner and later than a word says a request may end, in nanoseconds: the clock ticks.
const SOONER: u64 = 20_000_000;
const LATER: u64 = 40_000_000;

impl Asking<'_> {
    /// Those of which two words show what they count.
    pub(super) fn timed(&mut self, known: &[Known]) -> Result<Vec<Timed>, Error> {
        let alone = known.iter().filter(|one| one.operation.is_usual() && one.operation.needs.is_none());
        let mut timed = Vec::new();
        for one in alone.take(PAIRED) {
            for unit in [MILLISECOND, SECOND] {
                timed.extend(self.counts(one.question, &unit)?);
            }
        }
        Ok(timed)
    }

    fn counts(&mut self, question: Question, unit: &Unit) -> Result<Option<Timed>, Error> {
        let [short, long] = unit.shown_by;
        let Some(status) = self.lasts(question, short, unit)? else { return Ok(None) };
        if self.lasts(question, long, unit)? != Some(status) {
            return Ok(None);
        }
        let longer = unit.longer.into_iter().filter_map(|word| question.with_first(word));
        let longer = longer.map(|question| question.known(true, true).operation).collect();
        Ok(Some(Timed { longer, least: u64::from(long) * unit.length, status }))
    }

    /// The status with which the request ends as the time is over that this word says; none if it does not end then.
    fn lasts(&mut self, question: Question, word: u32, unit: &Unit) -> Result<Option<u32>, Error> {
        let Some(question) = question.with_first(word) else { return Ok(None) };
        let time = u64::from(word) * unit.length;
        let status = self.with_handle(|machine, handle| {
            let request = question.begin(handle).ok()?;
            let _ = machine.wait(time - SOONER);
            let is_over_before = request.is_over();
            let _ = machine.wait(SOONER + LATER);
            match ended(request) {
                Answer::Later(status) | Answer::Status(status) if !is_over_before => Some(status),
                _ => None,
            }
        })?;
        Ok(status.flatten())
    }
}
