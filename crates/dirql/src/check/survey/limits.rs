//! At which of a driver's own time limits it gives a request up that the card, or a driver below, does not answer, and whether it powers its device down after one.

use kernel::hal::platform::Promptness;

use super::asking::Asking;
use super::company::PAIRED;
use super::known::Known;
use super::question::{Answer, Question, ended};
use super::usual;
use crate::error::Error;
use crate::machine::Tempo;

/// The longest time limit of a driver's that is looked for, and the most that a request may live through.
const LONGEST_LIMIT: u64 = 11_000_000_000;
const MOST_LIMITS: u32 = 4096;
/// The rule about what a card transfers that the driver has given up.
const USED_AFTER: &str = "dma-after-time-limit";
/// What takes no longer is refused at once and not given up, in ns.
const AT_ONCE: u64 = 100_000;

impl Asking<'_> {
    /// Whether the device is powered down while nothing is asked for, with a handle open.
    pub(super) fn powers_down(&mut self) -> Result<bool, Error> {
        let powered_down = self.with_handle(|machine, _| machine.wait_for_power_down().unwrap_or(false))?;
        Ok(powered_down.unwrap_or(false))
    }

    /// Which the driver gives up after a time limit, and at which of its limits: `tempo` says who is late.
    pub(super) fn limited(
        &mut self,
        known: &[Known],
        tempo: fn(Promptness) -> Tempo,
    ) -> Result<Vec<(usize, u32)>, Error> {
        // What a driver below would have to answer does not succeed: none that is there knows it.
        let may_fail = matches!(tempo(Promptness::Silent), Tempo::Below(_));
        let is_tried = |one: &Known| one.operation.is_usual() || may_fail && !one.operation.variant;
        let tried = known.iter().enumerate().filter(|(_, one)| is_tried(one));
        let mut limited = Vec::new();
        for (place, one) in tried.take(PAIRED) {
            limited.extend(self.limit(one.question, tempo)?.map(|limit| (place, limit)));
        }
        Ok(limited)
    }

    /// At which of its limits the driver gives a request up whose answer is late; none if it does not, or not in each such run without a transfer behind it.
    fn limit(&mut self, question: Question, tempo: fn(Promptness) -> Tempo) -> Result<Option<u32>, Error> {
        let silent = self.given_up(question, tempo(Promptness::Silent))?;
        if silent.is_none() {
            return Ok(None);
        }
        let mut at = |limit| self.given_up(question, tempo(Promptness::AtLimit(limit)));
        // The first is one of those up to `last`. An answer that came in time may be an error, too, but another one.
        let (mut not, mut last) = (0, 1);
        while at(last)? != silent {
            if last >= MOST_LIMITS {
                return Ok(None);
            }
            (not, last) = (last, last * 2);
        }
        while last - not > 1 {
            let middle = u32::midpoint(not, last);
            if at(middle)? == silent {
                last = middle;
            } else {
                not = middle;
            }
        }
        Ok(Some(last))
    }

    /// The error by which the driver ends a request after a while whose answer is so prompt. None if it does not, or if the card transfers something after that: not
    /// every card can be kept from it, so a driver may have no other choice.
    fn given_up(&mut self, question: Question, tempo: Tempo) -> Result<Option<u32>, Error> {
        let Self { boots, name } = self;
        let (end, report) = boots.boot_with(Some(tempo), usual(), |machine| {
            let handle = machine.open_overlapped(name).ok()?;
            let begun = machine.now();
            let request = question.begin(&handle).ok()?;
            let takes = machine.now() - begun;
            let _ = machine.wait(LONGEST_LIMIT);
            Some((ended(request), takes))
        })?;
        if report.findings.iter().any(|finding| finding.rule == USED_AFTER) {
            return Ok(None);
        }
        Ok(match end {
            Some((Answer::Later(status), _)) if status >> 31 != 0 => Some(status),
            Some((Answer::Status(status), takes)) if status >> 31 != 0 && takes > AT_ONCE => Some(status),
            _ => None,
        })
    }
}
