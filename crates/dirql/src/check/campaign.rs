//! One exercise, carried out again and again in a machine that is booted each time: the usual way, with calls that fail, in other orders.
//!
//! What is tried is a function of the exercise and of what its usual run asks. Each attempt is named by a policy, so `dirql run --policy` makes it again.

use std::collections::BTreeSet;

use explore::{Failing, Policy};

use super::cause::{Aside, Cause};
use super::counter::is_counted;
use super::exercise::{Exercise, LATE_CARDS, SILENT_CARDS};
use super::signals::raises_a_guess;
use crate::error::Error;
use crate::machine::{Boots, Machine};
use crate::play::Play;
use crate::report::{HANGS, Report};

/// For so many calls that may fail there is one seed of `scarce`, with these percentages in turn.
const FAILING_FOR_A_SCARCE: usize = 10;
const SCARCE: [u64; 2] = [10, 40];

/// Of so many calls each two fail that are no neighbours, where the driver's start is tried, and elsewhere.
const TWO_OF_START: u64 = 24;
const TWO_OF: u64 = 10;

/// Of so many seeds one is tried by `pct`, too. A seed of `random` shows most of what happens at once twice to ten times as often; some are the other way round.
const PCT_ONE_IN: u64 = 4;

/// One seed in so many departs from the usual from the beginning, too, where others do from the script on only.
const FROM_START_ONE_IN: u64 = 8;

/// Of an exercise of which so many attempts have hung no more are made: each takes as long as thousands of others, and they show one thing.
pub const HUNG: u32 = 4;

/// So many events all attempts at one exercise have at most, but for the first: some drivers read a card's whole window at each request, 32,768 accesses, and
/// one attempt at a script of hundreds takes seconds.
const EVENTS: u64 = 4_000_000;

/// What came of one attempt.
pub struct Tried {
    /// How it is made again.
    pub policy: Policy,
    /// What is wrong by it, and what is advised.
    pub causes: Vec<Cause>,
    /// What dirql lacks that it has needed, or a fault of dirql's own.
    pub no_answer: Option<String>,
    /// As [`hangs`].
    pub has_hung: bool,
}

/// What was tried in all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Calls that could fail in the usual run.
    pub could_fail: u64,
    /// Of these, how many did, one at a time.
    pub failed: u64,
    /// Attempts in all.
    pub attempts: u64,
    /// Of these, how many have hung.
    pub hung: u32,
}

/// An exercise and the machine that it is carried out in.
pub struct Campaign<'c> {
    boots: &'c mut Boots,
    exercise: &'c Exercise,
    play: Option<Play>,
    hung: u32,
    /// Keys of advice that was given.
    advised: &'c mut BTreeSet<String>,
}

impl<'c> Campaign<'c> {
    /// The exercise's script is `play`; without one, the machine is left alone for a while. So many attempts of other scripts of the exercise have `hung`. What
    /// is known to have been `advised` is not once more.
    pub fn new(
        boots: &'c mut Boots,
        exercise: &'c Exercise,
        play: Option<Play>,
        hung: u32,
        advised: &'c mut BTreeSet<String>,
    ) -> Self {
        Self { boots, exercise, play, hung, advised }
    }

    /// Makes all attempts, and gives `each` what came of it. `first` skips those before that number: they have been made.
    ///
    /// # Errors
    /// As [`Boots::boot`].
    pub fn run(
        &mut self,
        first: u64,
        mut each: impl FnMut(&mut Boots, u64, Tried) -> Result<(), Error>,
    ) -> Result<Totals, Error> {
        let effort = self.exercise.effort;
        let count = Failing::new(0, 1);
        let usual = Box::new(count.clone());
        let play = self.play.clone();
        let perform = |machine: &Machine| machine.perform(play.clone());
        // What may go wrong before the script begins is the first exercise's business.
        let (_, report) = match effort.from_start {
            true => self.boots.boot(usual, perform)?,
            false => self.boots.boot_to_script(usual, perform)?,
        };
        let could_fail = count.asked();
        // What the usual run does not come to, another order of its beginning does not either.
        let is_broken = report.verdict.is_some() || report.our_fault.is_some();
        let mut totals = Totals { could_fail, failed: 0, attempts: 1, hung: 0 };
        if first == 0 {
            let usual = self.tried(Policy::default(), &report);
            totals.hung += u32::from(usual.has_hung);
            each(self.boots, 0, usual)?;
        }
        let calls = (1..=could_fail).take(effort.failing);
        let mut policies: Vec<Policy> = calls.clone().map(Policy::failing).collect();
        // What a driver does where one fails may be what fails next.
        policies.extend(calls.map(|call| Policy::failing_in_row(call, 2)));
        policies.extend(two_of(could_fail.min(effort.failing as u64), effort.from_start));
        // With one call there is nothing more to try.
        if could_fail > 1 {
            let seeds = 1..=effort.failing.div_ceil(FAILING_FOR_A_SCARCE) as u64;
            let scarce = seeds.zip(SCARCE.into_iter().cycle());
            policies.extend(scarce.map(|(seed, percent)| Policy::scarce(seed, 1, percent)));
        }
        let failing = policies.len();
        if effort.from_start {
            policies.extend((1..=could_fail).take(effort.failing).map(Policy::failing_from));
        }
        if !is_broken {
            // Another story says more than another attempt at one.
            let is_no_story = effort.stories.count == 0;
            policies.extend(is_no_story.then(Policy::early));
            policies.extend((is_no_story && self.exercise.processors > 1).then(Policy::late));
            policies.extend((1..=effort.seeds).flat_map(of_seed));
        }
        if !effort.from_start {
            policies = policies.into_iter().map(Policy::at_script).collect();
            // What the driver has begun in its start may meet what the script asks for.
            if !is_broken {
                let seeds = (1..=effort.seeds).filter(|seed| seed.is_multiple_of(FROM_START_ONE_IN));
                policies.extend(seeds.flat_map(of_seed));
            }
        }
        let attempts = usize::try_from(EVENTS / report.events.max(1)).unwrap_or(usize::MAX);
        for (place, policy) in thinned(policies.into_iter().enumerate().collect(), attempts) {
            if self.hung + totals.hung >= HUNG {
                break;
            }
            let number = totals.attempts;
            totals.attempts += 1;
            totals.failed += u64::from(place < failing);
            if number < first {
                continue;
            }
            let ((), report) = self.boots.boot_by(policy, perform)?;
            let tried = self.tried(policy, &report);
            totals.hung += u32::from(tried.has_hung);
            each(self.boots, number, tried)?;
        }
        Ok(totals)
    }

    fn tried(&mut self, policy: Policy, report: &Report) -> Tried {
        let mut causes = causes(report, self.exercise);
        for cause in &mut causes {
            if cause.rule == "data-race" && is_counter(cause, self.boots) {
                cause.aside.get_or_insert(Aside::Advice);
            }
        }
        let has_hung = hangs(report, &causes) || goes_on(report);
        causes.extend(report.advice(self.advised));
        Tried { policy, causes, no_answer: report.no_answer(), has_hung }
    }
}

/// A run of so many events takes as long as hundreds of others.
const LONG: u64 = 200_000;

/// Whether the run of which these are the causes shows something wrong, and takes as long as hundreds of others for it: a loop without an end, a DPC that
/// queues itself until the watchdog stops it.
#[must_use]
pub fn hangs(report: &Report, causes: &[Cause]) -> bool {
    let counts = causes.iter().any(|cause| cause.aside.is_none());
    causes.iter().any(|cause| cause.rule == HANGS) || counts && report.events >= LONG
}

/// Whether a DPC has queued itself until the watchdog stopped it, be that a finding or a guess of ours.
fn goes_on(report: &Report) -> bool {
    report.verdict.as_ref().is_some_and(|verdict| verdict.rule == GOES_ON)
}

/// Rules of requests that are not completed.
pub(super) const NEVER_ENDS: [&str; 2] = ["irp-never-completed", "stuck"];

/// Rules about what is left for ever to a card that is later than the driver's time limit, so that it may use it.
const LEFT_TO_LATE_CARDS: [&str; 4] =
    ["common-buffer-leak", "contiguous-memory-leak", "dma-adapter-leak", "dma-map-registers-leak"];
/// The rule about what describes that: its MDL, say.
const LEFT_WITH_IT: &str = "pool-leak";

/// The rule about DPCs that never come to an end.
const GOES_ON: &str = "dpc-watchdog";

/// The rule about commands that a busy card ignores: a card that answers nothing at all is no busy one.
const IGNORED: &str = "register-write-ignored";

/// The command by which a card is gone, and ends nothing any more.
pub(super) const PULLED: &str = "surprise-remove";

/// What is wrong with the driver by a run of an exercise. Memory that is left to a card that is later than the driver's time limit is not: from its transfer
/// not every card can be kept. Nor is a request that is not completed where nothing is known of the card, and it is not pulled: it may be what such cards always
/// end soon. Nor is a DPC that queues itself as long as a register says so which a script has set, and which no card empties.
#[must_use]
pub fn causes(report: &Report, exercise: &Exercise) -> Vec<Cause> {
    let mut causes = report.causes();
    if exercise.card_is_unknown && !was_pulled(report, &exercise.script) {
        causes.retain(|cause| !NEVER_ENDS.contains(&&*cause.rule));
    }
    if raises_a_guess(&exercise.script) && !was_pulled(report, &exercise.script) {
        causes.retain(|cause| cause.rule != GOES_ON);
    }
    let has = |platform: &str| exercise.more.iter().any(|option| option.starts_with(platform));
    if has(LATE_CARDS) || has(SILENT_CARDS) {
        let is_left = |cause: &Cause| LEFT_TO_LATE_CARDS.contains(&&*cause.rule);
        let leaves = causes.iter().any(is_left);
        let is_with_it = |cause: &Cause| leaves && cause.rule == LEFT_WITH_IT;
        causes.retain(|cause| !is_left(cause) && !is_with_it(cause));
    }
    if has(SILENT_CARDS) {
        causes.retain(|cause| cause.rule != IGNORED);
    }
    causes
}

/// Whether the card was pulled before what has not ended was looked at.
fn was_pulled(report: &Report, script: &str) -> bool {
    let Some(pulled) = script.find(PULLED) else { return false };
    let is_at_once = script[..pulled].ends_with(": ");
    let is_behind = |command: &str| script.rfind(command).is_some_and(|at| at >= pulled);
    is_at_once || report.failure.as_ref().is_none_or(|failure| is_behind(&failure.command))
}

/// Each two of the first calls that may fail, but neighbours.
fn two_of(calls: u64, from_start: bool) -> impl Iterator<Item = Policy> {
    let calls = calls.min(if from_start { TWO_OF_START } else { TWO_OF });
    (1..=calls).flat_map(move |one| (one + 2..=calls).map(move |other| Policy::failing_two(one, other)))
}

/// So many of all, of each part of them as much as of any other.
fn thinned<T>(all: Vec<T>, most: usize) -> impl Iterator<Item = T> {
    let count = all.len().max(1);
    let share = move |number: usize| number * most.min(count) / count;
    all.into_iter()
        .enumerate()
        .filter(move |(number, _)| share(*number) < share(number + 1))
        .map(|(_, one)| one)
}

/// What is tried with one seed.
fn of_seed(seed: u64) -> impl Iterator<Item = Policy> {
    let pct = seed.is_multiple_of(PCT_ONE_IN).then(|| Policy::pct(seed, 0, 0));
    [Policy::random(seed)].into_iter().chain(pct)
}

/// Whether a race is about a number that is only added to.
fn is_counter(cause: &Cause, boots: &Boots) -> bool {
    let offset = cause.instruction.and_then(|address| boots.offset_in_driver(address));
    offset.is_some_and(|offset| is_counted(boots.driver_image(), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_a_script_sets_are_guesses_and_what_models_surroundings_do_is_none() {
        for guess in
            ["poke pci#0 bar2+8 1", "read h 1; t: poke pci#1 cause 4; wait 1ms", "poke pci9052#0 shows 1"]
        {
            assert!(raises_a_guess(guess), "{guess}");
        }
        for known in ["poke pci9052#0 linti1 1; read h 1", "poke pci#0 pulse", "open bar as h", ""] {
            assert!(!raises_a_guess(known), "{known}");
        }
    }

    #[test]
    fn what_is_thinned_keeps_a_share_of_each_part() {
        let of = |most| thinned((0..12).collect(), most).collect::<Vec<u32>>();
        assert!(of(0).is_empty());
        assert_eq!(of(1), [11]);
        assert_eq!(of(4), [2, 5, 8, 11]);
        assert_eq!(of(12), (0..12).collect::<Vec<_>>());
        assert_eq!(of(usize::MAX), of(12));
        assert_eq!(thinned(Vec::<u32>::new(), 3).count(), 0);
    }
}
