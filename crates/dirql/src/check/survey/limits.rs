//! At which of a driver's own time limits it gives a request up that the card does not answer, and whether it powers its device down after one.

use kernel::hal::platform::Promptness;

use super::asking::Asking;
use super::company::PAIRED;
use super::known::Known;
use super::question::{Answer, Question, ended};
use super::usual;
use crate::error::Error;

/// The longest time limit of a driver's that is looked for, and the most that a request may live through.
const LONGEST_LIMIT: u64 = 11_000_000_000;
const MOST_LIMITS: u32 = 4096;

impl Asking<'_> {
    /// Whether the device is powered down while nothing is asked for, with a handle open.
    pub(super) fn powers_down(&mut self) -> Result<bool, Error> {
        let powered_down = self.with_handle(|machine, _| machine.wait_for_power_down().unwrap_or(false))?;
        Ok(powered_down.unwrap_or(false))
    }

    /// Which the driver gives up after a time limit, and at which of its limits.
    pub(super) fn limited(&mut self, known: &[Known]) -> Result<Vec<(usize, u32)>, Error> {
        let usual = known.iter().enumerate().filter(|(_, one)| one.operation.is_usual());
        let mut limited = Vec::new();
        for (place, one) in usual.take(PAIRED) {
            limited.extend(self.limit(one.question)?.map(|limit| (place, limit)));
        }
        Ok(limited)
    }

    /// At which of its limits the driver gives a request up whose card is late; none if it does not, or not in each such run without a transfer behind it.
    fn limit(&mut self, question: Question) -> Result<Option<u32>, Error> {
        if self.is_given_up(question, Promptness::Silent)? != Some(true) {
            return Ok(None);
        }
        // The first is one of those up to `last`.
        let (mut not, mut last) = (0, 1);
        loop {
            match self.is_given_up(question, Promptness::AtLimit(last))? {
                Some(true) => break,
                Some(false) if last < MOST_LIMITS => (not, last) = (last, last * 2),
                _ => return Ok(None),
            }
        }
        while last - not > 1 {
            let middle = u32::midpoint(not, last);
            match self.is_given_up(question, Promptness::AtLimit(middle))? {
                Some(true) => last = middle,
                Some(false) => not = middle,
                None => return Ok(None),
            }
        }
        Ok(Some(last))
    }

    /// Whether the driver ends a request with an error after a while whose card is so prompt. None if the card transfers something after that: not every card
    /// can be kept from it, so a driver may have no other choice.
    fn is_given_up(&mut self, question: Question, cards: Promptness) -> Result<Option<bool>, Error> {
        let Self { boots, name } = self;
        let (end, report) = boots.boot_with(Some(cards), usual(), |machine| {
            let handle = machine.open_overlapped(name).ok()?;
            let request = question.begin(&handle).ok()?;
            let _ = machine.wait(LONGEST_LIMIT);
            Some(ended(request))
        })?;
        let is_given_up =
            matches!(end, Some(Answer::Later(status) | Answer::Status(status)) if status >> 31 != 0);
        let transfers = report.verdict.is_some_and(|verdict| verdict.rule == "dma-after-unmap");
        Ok((!transfers).then_some(is_given_up))
    }
}
