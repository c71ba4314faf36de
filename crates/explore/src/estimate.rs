//! An estimate of how many schedules a search has left, by the number of their preemptions.
//!
//! The schedules that depart further from a run depart at one of its questions. If a departure changed none of the questions behind it, how many there are
//! in all would be known from the questions of the one run. A departure does change them: so each run that is made is compared with what
//! was expected of it, and by the mean of that what is expected of the others is corrected, once for each further preemption. That these change
//! as those did that were made is the assumption.

use std::collections::VecDeque;

use crate::guided::Question;
use crate::schedule::Questions;

/// How many schedules depart from one, it included, with 0, 1, … preemptions more than it has.
pub(crate) type Sizes = Box<[f64]>;

/// From so many runs on a mean is a mean.
const ENOUGH: u64 = 16;

/// Of some runs, what was expected of them and what their own questions lead to expect.
#[derive(Clone, Default)]
struct Compared {
    runs: u64,
    expected: Vec<f64>,
    own: Vec<f64>,
}

/// What is expected of the schedules that are left.
#[derive(Clone, Default)]
pub(crate) struct Forecast {
    /// Of those that cost as much as the runs that are made now.
    waiting: Vec<f64>,
    /// Of those that cost one preemption more.
    deeper: Vec<f64>,
    /// The runs of this cost.
    now: Compared,
    /// Those of the cost before.
    before: Compared,
}

/// What a run's questions lead to expect of those that depart from it once, in their order, and of all.
pub(crate) struct Expected {
    pub(crate) free: VecDeque<Sizes>,
    /// Of all that cost a preemption together.
    counting: Vec<f64>,
    own: Vec<f64>,
}

/// With this question in front, where each departure at it has what is behind it.
fn ahead(sizes: &mut [f64], Question { n, counts }: Question) {
    let others = f64::from(n.saturating_sub(1));
    if counts {
        for more in (1..sizes.len()).rev() {
            sizes[more] += others * sizes[more - 1];
        }
    } else {
        sizes.iter_mut().for_each(|size| *size *= 1.0 + others);
    }
}

fn add(sum: &mut Vec<f64>, sizes: &[f64], times: f64) {
    sum.resize(sum.len().max(sizes.len()), 0.0);
    sum.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += times * size);
}

/// The nearest whole number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is beyond is the most there is"
)]
fn whole(size: f64) -> u64 {
    size.round() as u64
}

/// What a run with these questions leads to expect, if there may be so many preemptions more.
pub(crate) fn expected(questions: &Questions, preemptions: usize) -> Expected {
    let (mut free, mut counting) = (VecDeque::new(), vec![0.0; preemptions]);
    let own = from_the_last(questions, preemptions, |question, sizes| {
        let others = question.n.saturating_sub(1);
        if question.counts {
            add(&mut counting, &sizes[..preemptions], f64::from(others));
        } else {
            (0..others).for_each(|_| free.push_front(sizes.into()));
        }
    });
    Expected { free, counting, own }
}

/// What is expected of those that depart from it once, for a preemption, in their order.
pub(crate) fn expected_of_each(questions: &Questions, preemptions: usize) -> VecDeque<Sizes> {
    let mut counting = VecDeque::new();
    if preemptions > 0 {
        from_the_last(questions, preemptions, |question, sizes| {
            let others = if question.counts { question.n.saturating_sub(1) } else { 0 };
            (0..others).for_each(|_| counting.push_front(sizes[..preemptions].into()));
        });
    }
    counting
}

/// What is expected in front of all questions; each is shown with what is expected behind it.
fn from_the_last(
    questions: &Questions,
    preemptions: usize,
    mut each: impl FnMut(Question, &[f64]),
) -> Vec<f64> {
    let mut sizes = vec![0.0; preemptions + 1];
    sizes[0] = 1.0;
    for question in questions.backwards() {
        each(question, &sizes);
        ahead(&mut sizes, question);
    }
    sizes
}

impl Forecast {
    /// Those that cost one preemption more are made from now on.
    pub(crate) fn next_cost(&mut self) {
        self.waiting = std::mem::take(&mut self.deeper);
        self.before = std::mem::take(&mut self.now);
    }

    /// A run was made, or lost, of which this was expected.
    pub(crate) fn passed(&mut self, expected: &[f64]) {
        add(&mut self.waiting, expected, -1.0);
    }

    /// That run has led to expect this.
    pub(crate) fn made(&mut self, expected: &[f64], found: &Expected) {
        found.free.iter().for_each(|sizes| add(&mut self.waiting, sizes, 1.0));
        add(&mut self.deeper, &found.counting, 1.0);
        if !expected.is_empty() {
            self.now.runs += 1;
            add(&mut self.now.expected, expected, 1.0);
            add(&mut self.now.own, &found.own, 1.0);
        }
    }

    /// How many are left that have 0, 1, … preemptions more than those made now. None while too few runs were made to say.
    pub(crate) fn left(&self) -> Option<Vec<u64>> {
        let mut compared = self.now.clone();
        if compared.runs < ENOUGH {
            compared.runs += self.before.runs;
            add(&mut compared.expected, &self.before.expected, 1.0);
            add(&mut compared.own, &self.before.own, 1.0);
        }
        if compared.runs < ENOUGH {
            return None;
        }
        let ratio = |more: usize| compared.ratio(more).unwrap_or(1.0);
        let corrected = |more: usize| match more {
            0 => ratio(0),
            more => (1..=more).map(ratio).product(),
        };
        let of =
            |sizes: &[f64], more: usize| sizes.get(more).map_or(0.0, |size| size.max(0.0) * corrected(more));
        let costs = self.waiting.len().max(self.deeper.len() + 1);
        let left = |more: usize| {
            of(&self.waiting, more) + more.checked_sub(1).map_or(0.0, |more| of(&self.deeper, more))
        };
        Some((0..costs).map(|more| whole(left(more))).collect())
    }
}

impl Compared {
    /// How many times what was expected runs have come to.
    fn ratio(&self, more: usize) -> Option<f64> {
        let (expected, own) = (*self.expected.get(more)?, *self.own.get(more)?);
        (expected > 0.0).then_some(own / expected)
    }
}
