//! The schedules of one cost that a search has not come to yet. Most of them are kept as the run that they depart from, with its
//! questions, and written out some at a time: a run has hundreds.

use std::collections::VecDeque;

use crate::estimate::{Sizes, expected_of_each};
use crate::schedule::{Questions, Schedule};

/// Schedules of one cost, in their order.
#[derive(Default)]
pub(crate) struct Level {
    /// The first of them, written out, each with what is expected to depart from it.
    ready: VecDeque<(Schedule, Sizes)>,
    /// Runs from which the others depart.
    parents: VecDeque<(Schedule, Questions)>,
    /// One in so many of these comes first, so that a search which ends soon has tried some of everything.
    stride: u64,
    /// Of those that come first: from how many runs they were taken, and how many departures these have.
    spread: (usize, u64),
    /// Of the rest: how many departures the runs had that are gone.
    passed: u64,
    /// How many depart from these.
    kept: u64,
    /// How many schedules there are in all.
    count: u64,
}

impl Level {
    /// Only the one that departs nowhere.
    pub(crate) fn first() -> Self {
        let usual = (Schedule::Departing(Vec::new()), Sizes::default());
        Self { ready: [usual].into(), count: 1, ..Self::default() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// All that depart once more than this run, at a question that counts. If there are more than `enough` already, these are counted and
    /// not kept: the search ends before it comes to them.
    pub(crate) fn add(&mut self, run: Schedule, questions: Questions, enough: u64) {
        let more = questions.departures_that_count();
        self.count = self.count.saturating_add(more);
        if more > 0 && self.kept <= enough {
            self.kept += more;
            self.parents.push_back((run, questions));
        }
    }

    /// No more than `most` of them will be taken, so they are to be some of everything.
    pub(crate) fn spread_over(&mut self, most: u64) {
        self.stride = self.count.div_ceil(most.max(1));
    }

    /// Takes the first `most` of them, or all, and what is expected to depart from each, where there may be so many preemptions more.
    pub(crate) fn take(&mut self, most: usize, preemptions: usize) -> (Vec<Schedule>, VecDeque<Sizes>) {
        let stride = self.stride.max(1);
        while self.ready.len() < most
            && stride > 1
            && let Some((run, questions)) = self.parents.get(self.spread.0)
        {
            let ready = &mut self.ready;
            departures(run, questions, preemptions, |at, one| {
                if (self.spread.1 + at).is_multiple_of(stride) {
                    ready.push_back(one);
                }
            });
            self.spread = (self.spread.0 + 1, self.spread.1 + questions.departures_that_count());
        }
        while self.ready.len() < most
            && let Some((run, questions)) = self.parents.pop_front()
        {
            let ready = &mut self.ready;
            departures(&run, &questions, preemptions, |at, one| {
                if stride == 1 || !(self.passed + at).is_multiple_of(stride) {
                    ready.push_back(one);
                }
            });
            self.passed += questions.departures_that_count();
            self.kept -= questions.departures_that_count();
        }
        let taken: (Vec<_>, VecDeque<_>) = self.ready.drain(..most.min(self.ready.len())).unzip();
        self.count -= u64::try_from(taken.0.len()).unwrap_or(u64::MAX);
        taken
    }
}

/// Each schedule that departs once more than this run at a question that counts, by its number among them.
fn departures(
    run: &Schedule,
    questions: &Questions,
    preemptions: usize,
    mut each: impl FnMut(u64, (Schedule, Sizes)),
) {
    let mut sizes = expected_of_each(questions, preemptions + 1);
    let mut number = 0;
    run.further(questions, |counts, schedule| {
        if counts {
            each(number, (schedule, sizes.pop_front().unwrap_or_default()));
            number += 1;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    #[test]
    fn schedules_come_in_order_however_many_are_taken_at_a_time() {
        for most in [1, 2, 100] {
            let mut level = Level::default();
            level.add(run("usual"), "1f3,2c3".parse().unwrap(), 100);
            level.add(run("0=1"), "1c2".parse().unwrap(), 100);
            assert_eq!(level.count(), 5);
            let taken = std::iter::from_fn(|| Some(level.take(most, 0).0).filter(|some| !some.is_empty()));
            let taken: Vec<String> = taken.flatten().map(|schedule| schedule.to_string()).collect();
            assert_eq!(taken, ["1=1", "1=2", "2=1", "2=2", "0=1,1=1"]);
            assert_eq!(level.count(), 0);
        }
    }

    #[test]
    fn where_not_all_are_to_be_taken_some_of_everything_come_first() {
        let mut level = Level::default();
        level.add(run("usual"), "4c2".parse().unwrap(), 100);
        level.add(run("0=1"), "1c4".parse().unwrap(), 100);
        level.spread_over(3);
        let taken = std::iter::from_fn(|| Some(level.take(2, 0).0).filter(|some| !some.is_empty()));
        let taken: Vec<String> = taken.flatten().map(|schedule| schedule.to_string()).collect();
        assert_eq!(taken, ["0=1", "3=1", "0=1,1=3", "1=1", "2=1", "0=1,1=1", "0=1,1=2"]);
        assert_eq!(level.count(), 0, "and behind them the rest");
    }

    #[test]
    fn beyond_what_is_enough_schedules_are_only_counted() {
        let mut level = Level::default();
        for _ in 0..10 {
            level.add(run("usual"), "3c2".parse().unwrap(), 4);
        }
        assert_eq!((level.count(), level.parents.len()), (30, 2), "more than 4");
        assert_eq!((level.take(100, 0).0.len(), level.count()), (6, 24));
    }
}
