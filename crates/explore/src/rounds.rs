//! A search while it is made: by rounds of subtrees, all of one cost. What it has come to, and what it knows to be left, is a function of what
//! came of its runs, in the order in which it takes them.

use std::collections::VecDeque;

use crate::estimate::{Forecast, Sizes, expected};
use crate::histories::Histories;
use crate::level::Level;
use crate::places::Places;
use crate::remarks::Remarks;
use crate::schedule::Schedule;
use crate::search::{Bounds, Lost, NotTried, Ran, Runner, Searched, SoFar};
use crate::subtree::{Subtree, subtrees};

/// Room for so many states, in 64 MiB.
const STATES: usize = 1 << 22;
/// So many schedules of the next cost are kept at least: all that a short search chooses from.
const KEPT: u64 = 10_000;
/// So many schedules are divided at a time.
const ROUND: usize = 1 << 16;

/// A search, while it is made.
pub(crate) struct Search<'r, R: Runner + ?Sized> {
    runner: &'r mut R,
    course: Course<'r, R::Outcome>,
}

/// What it has come to.
struct Course<'b, O> {
    bounds: &'b Bounds,
    searched: Searched<O>,
    /// Where runs are asked.
    known: Places,
    /// And where they have taught that they could be.
    taught: Places,
    /// How many preemptions the runs have that are made now.
    cost: usize,
    /// How many schedules of this cost are known that were not made.
    waiting: u64,
    /// Those of this cost that the runs of the subtree that is made now have led to, where states are compared.
    free: Vec<Schedule>,
    /// Those with one preemption more.
    deeper: Level,
    /// Which run was the first at each state.
    histories: Histories,
    forecast: Forecast,
    /// What is expected to depart from the schedules of the subtree that is made now, in their order.
    sizes: VecDeque<Sizes>,
}

impl<'r, R: Runner + ?Sized> Search<'r, R> {
    /// One that has made nothing yet.
    pub(crate) fn new(runner: &'r mut R, bounds: &'r Bounds) -> Self {
        let costs = if bounds.policy.is_some() { 1 } else { bounds.preemptions + 1 };
        let searched = Searched {
            schedules: vec![0; costs],
            repeated: 0,
            learned: 0,
            complete: false,
            found: None,
            lost: Vec::new(),
            remarks: Remarks::default(),
            not_tried: NotTried::default(),
        };
        let course = Course {
            bounds,
            searched,
            known: Places::default(),
            taught: Places::default(),
            cost: 0,
            waiting: 0,
            free: Vec::new(),
            deeper: Level::default(),
            histories: Histories::new(STATES),
            forecast: Forecast::default(),
            sizes: VecDeque::new(),
        };
        Self { runner, course }
    }

    /// Makes it, to its end.
    pub(crate) fn made(mut self) -> Searched<R::Outcome> {
        let all = if self.course.bounds.policy.is_some() { self.all_seeds() } else { self.all_departures() };
        self.course.searched.complete = all.is_some() && self.course.searched.lost.is_empty();
        self.course.searched.not_tried = self.course.not_tried();
        self.course.searched
    }

    /// None if the search ends before.
    fn all_seeds(&mut self) -> Option<()> {
        let mut seeds = 0..self.course.bounds.schedules;
        self.course.waiting = self.course.bounds.schedules;
        loop {
            let schedules: Vec<Schedule> = seeds.by_ref().take(ROUND).map(Schedule::Seed).collect();
            if schedules.is_empty() {
                return Some(());
            }
            self.rounds(schedules, VecDeque::new())?;
        }
    }

    /// None if the search ends before.
    fn all_departures(&mut self) -> Option<()> {
        while !self.each_cost()? {
            self.course.searched.repeated = self.course.searched.total();
            self.course.searched.schedules.fill(0);
            self.course.forecast = Forecast::default();
            self.course.histories.clear();
        }
        Some(())
    }

    /// All runs, those with fewer preemptions first; false if those with the same number have taught something, so that each is to
    /// be made again with more questions.
    fn each_cost(&mut self) -> Option<bool> {
        let mut level = Level::first();
        for cost in 0..=self.course.bounds.preemptions {
            (self.course.cost, self.course.waiting) = (cost, level.count());
            level.spread_over(self.course.more().unwrap_or(1));
            loop {
                let (schedules, sizes) = level.take(ROUND, self.course.bounds.preemptions - cost);
                if schedules.is_empty() {
                    break;
                }
                self.rounds(schedules, sizes)?;
            }
            self.course.forecast.next_cost();
            level = std::mem::take(&mut self.course.deeper);
            if self.course.taught != self.course.known {
                self.course.known = self.course.taught.clone();
                self.course.searched.learned = self.course.known.len();
                return Some(false);
            }
        }
        Some(true)
    }

    /// Makes these runs and those that depart from them free of cost; none if the search is over.
    fn rounds(&mut self, mut schedules: Vec<Schedule>, mut sizes: VecDeque<Sizes>) -> Option<()> {
        while !schedules.is_empty() {
            schedules = self.round(schedules, &mut sizes)?;
        }
        Some(())
    }

    /// Makes runs that all cost the same, and returns those that are left over; none if the search is over.
    fn round(&mut self, schedules: Vec<Schedule>, sizes: &mut VecDeque<Sizes>) -> Option<Vec<Schedule>> {
        let more = self.course.more()?;
        let subtrees = subtrees(schedules, &self.course.known, self.course.compared());
        let bounded: Vec<Subtree> = subtrees.iter().map(|subtree| subtree.at_most(more)).collect();
        self.runner.begin(&bounded);
        let (mut left_over, mut left_sizes) = (Vec::new(), VecDeque::new());
        for (number, mut subtree) in subtrees.into_iter().enumerate() {
            self.course.sizes = sizes.drain(..subtree.schedules().min(sizes.len())).collect();
            while let Some(schedule) = subtree.schedule() {
                self.course.more()?;
                let ran = self.runner.run(number, schedule);
                for (remark, choices) in self.runner.remarks() {
                    self.course.searched.remarks.add(remark, || choices);
                }
                self.course.take(ran, &mut subtree)?;
                self.runner.came_to(&|| self.course.so_far());
            }
            left_over.extend(subtree.left_over());
            left_over.append(&mut self.course.free);
            left_sizes.append(&mut self.course.sizes);
        }
        *sizes = left_sizes;
        Some(left_over)
    }
}

impl<O> Course<'_, O> {
    /// How many runs it may still make; none if it may make none.
    fn more(&self) -> Option<u64> {
        self.bounds.schedules.checked_sub(self.searched.tried()).filter(|more| *more > 0)
    }

    /// Whether it needs the states in which runs are asked now.
    fn compared(&self) -> bool {
        let deeper = self.cost + 1 < self.searched.schedules.len();
        deeper && self.bounds.compares()
    }

    /// Takes in what came of the first run of a subtree. None if the search is over.
    fn take(&mut self, ran: Ran<O>, subtree: &mut Subtree) -> Option<()> {
        let compared = self.compared();
        let searched = &mut self.searched;
        let sizes = self.sizes.pop_front().unwrap_or_default();
        self.forecast.passed(&sizes);
        match ran {
            Ran::Usual(mut questions, places) => {
                searched.schedules[self.cost] += 1;
                self.taught.add(&places);
                let before = subtree.schedules();
                let schedule = subtree.made(&questions)?;
                self.waiting -= 1;
                let mut more = subtree.schedules() + 1 - before;
                if compared {
                    self.histories.cut(&mut questions);
                    schedule.further(&questions, |counts, schedule| {
                        if !counts {
                            self.free.push(schedule);
                            more += 1;
                        }
                    });
                }
                self.waiting += u64::try_from(more).unwrap_or(u64::MAX);
                if self.bounds.policy.is_none() {
                    let mut found = expected(&questions, self.bounds.preemptions - self.cost);
                    self.forecast.made(&sizes, &found);
                    self.sizes.append(&mut found.free);
                }
                if self.cost + 1 < searched.schedules.len() {
                    questions.forget_states();
                    self.deeper.add(schedule, questions, self.bounds.schedules.max(KEPT));
                }
            }
            Ran::Wanted(choices, outcome) => {
                searched.schedules[self.cost] += 1;
                self.waiting -= 1;
                searched.found = Some((choices, outcome));
                return None;
            }
            Ran::Lost(why) => {
                let number = searched.tried() + 1;
                self.waiting -= 1;
                searched.lost.extend(subtree.pass().map(|schedule| Lost { number, schedule, why }));
            }
            Ran::Refused => return None,
        }
        Some(())
    }

    /// What it knows to be left.
    fn not_tried(&self) -> NotTried {
        let mut known = vec![0; self.searched.schedules.len()];
        known[self.cost] = self.waiting;
        if let Some(deeper) = known.get_mut(self.cost + 1) {
            *deeper = self.deeper.count();
        }
        let begins_again = self.taught != self.known;
        let estimate = |left: Vec<u64>| {
            let of = |(cost, count): (usize, &u64)| {
                let more = cost.checked_sub(self.cost).filter(|more| *more > 0 || self.waiting > 0);
                more.and_then(|more| left.get(more)).map_or(*count, |left| (*left).max(*count))
            };
            known.iter().enumerate().map(of).collect()
        };
        let is_all = self.bounds.policy.is_some() || self.waiting == 0 && self.cost + 1 == known.len();
        let estimated = match self.forecast.left().filter(|_| !begins_again) {
            None if is_all => Some(known.clone()),
            left => left.map(estimate),
        };
        NotTried { known, estimated, begins_again }
    }

    fn so_far(&self) -> SoFar {
        let Self { searched, cost, .. } = self;
        let (tried, remarks) = (searched.tried(), searched.remarks.len());
        SoFar { tried, cost: *cost, remarks, not_tried: self.not_tried() }
    }
}
