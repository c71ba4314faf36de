//! Parts of a search: runs that are made in one place, one after the other. Which they are depends on the runs alone, so
//! that a search is the same wherever its subtrees are made, and however many at a time.
//!
//! A subtree holds some schedules; to these come, while it is made, those that depart further and free of cost. What it has not
//! come to by its end is left over for other subtrees. Where the search compares the states that runs come to, none come: which of them depart further it
//! knows only when it has taken the run.
//!
//! All its runs are asked in the same places, so that its questions count alike
//! wherever it is made. It is written as one argument of a process, which the host allows 128 KiB: there is room for some
//! twenty thousand places.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::places::Places;
use crate::schedule::{Departures, Questions, Schedule, ScheduleError};

/// A search has at least so many subtrees at a time, if there are schedules enough.
const PARTS: usize = 16;
/// A subtree begins with so many schedules at least, and at most: less does not pay for starting a machine.
const SCHEDULES: (usize, usize) = (16, 2048);
/// So many runs end a subtree.
const RUNS: usize = 2048;
/// So many departures, of all schedules together, fill a subtree: it is handed to its process as an argument.
const DEPARTURES: usize = 4096;
/// Between schedules, where they are written.
const SEPARATOR: char = ';';
/// Behind the number of runs, if their states are compared.
const COMPARED: char = '+';
/// Before the places, if there are any.
const PLACES: char = '@';

/// Runs that are made in one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subtree {
    waiting: VecDeque<Schedule>,
    /// How many runs it may still make.
    left: usize,
    /// Where they are asked, of those places that runs teach.
    places: Places,
    /// Whether the search needs the states in which its runs are asked.
    compared: bool,
}

/// Divides schedules, in their order, in a search that knows these places.
pub(crate) fn subtrees(schedules: Vec<Schedule>, places: &Places, compared: bool) -> Vec<Subtree> {
    let left = RUNS;
    let size = schedules.len().div_ceil(PARTS).clamp(SCHEDULES.0, SCHEDULES.1);
    let mut subtrees: Vec<Subtree> = Vec::new();
    let mut departures = 0;
    for schedule in schedules {
        departures += schedule.length();
        match subtrees.last_mut() {
            Some(subtree) if subtree.waiting.len() < size && departures <= DEPARTURES => {
                subtree.waiting.push_back(schedule);
            }
            _ => {
                departures = schedule.length();
                let (waiting, places) = (VecDeque::from([schedule]), places.clone());
                subtrees.push(Subtree { waiting, left, places, compared });
            }
        }
    }
    subtrees
}

impl Subtree {
    /// The run to make now; none if the subtree is over.
    #[must_use]
    pub fn schedule(&self) -> Option<&Schedule> {
        self.waiting.front().filter(|_| self.left > 0)
    }

    /// That run was made, and asked this: on to the next. Returns it, if there was one: schedules that cost one departure more than it are
    /// none of this subtree's.
    pub fn made(&mut self, questions: &Questions) -> Option<Schedule> {
        let schedule = self.pass()?;
        if self.compared {
            return Some(schedule);
        }
        schedule.further(questions, |counts, schedule| {
            if !counts {
                self.waiting.push_back(schedule);
            }
        });
        Some(schedule)
    }

    /// How many schedules it holds now.
    pub(crate) fn schedules(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing is known of that run: on to the next.
    pub fn pass(&mut self) -> Option<Schedule> {
        self.left = self.left.saturating_sub(1);
        self.waiting.pop_front()
    }

    /// The same for a search that may make only so many more runs: beyond them nothing is asked of it.
    pub(crate) fn at_most(&self, more: u64) -> Self {
        Self { left: usize::try_from(more).unwrap_or(RUNS).min(self.left), ..self.clone() }
    }

    /// A subtree of one run, asked where this subtree's runs are.
    #[must_use]
    pub fn alone(&self, schedule: Schedule) -> Self {
        Self {
            waiting: VecDeque::from([schedule]),
            left: 1,
            places: self.places.clone(),
            compared: self.compared,
        }
    }

    /// Departures that all its runs begin with, and the first question where one of them departs from the others. None if
    /// that is not known.
    pub(crate) fn stem(&self) -> Option<(Departures, usize)> {
        let all: Option<Vec<&[(usize, u32)]>> = self.waiting.iter().map(Schedule::departures).collect();
        let all = all?;
        let shortest = all.iter().map(|departures| departures.len()).min()?;
        let common = |length: &usize| all.iter().all(|departures| departures[..*length] == all[0][..*length]);
        let length = (0..shortest).rev().find(common)?;
        let first = all.iter().map(|departures| departures[length].0).min()?;
        Some((all[0][..length].to_vec(), first))
    }

    /// Where its runs are asked, of those places that runs teach.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Whether the search needs the states in which its runs are asked.
    pub(crate) fn compared(&self) -> bool {
        self.compared
    }

    /// What the subtree has not come to.
    pub(crate) fn left_over(self) -> impl Iterator<Item = Schedule> {
        self.waiting.into_iter()
    }
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.left)?;
        if self.compared {
            write!(f, "{COMPARED}")?;
        }
        if !self.places.is_empty() {
            write!(f, "{PLACES}{}", self.places)?;
        }
        self.waiting.iter().try_for_each(|schedule| write!(f, "{SEPARATOR}{schedule}"))
    }
}

impl FromStr for Subtree {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let (left, schedules) = text.split_once(SEPARATOR).ok_or(ScheduleError)?;
        let (left, places) = left.split_once(PLACES).unwrap_or((left, ""));
        let number = left.strip_suffix(COMPARED);
        let (compared, left) = (number.is_some(), number.unwrap_or(left));
        let waiting = schedules.split(SEPARATOR).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self {
            waiting,
            left: left.parse().map_err(|_| ScheduleError)?,
            places: places.parse()?,
            compared,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedules(count: usize) -> Vec<Schedule> {
        (0..count).map(|number| Schedule::Departing(vec![(number, 1)])).collect()
    }

    #[test]
    fn parts_hold_all_schedules_in_order_and_none_is_too_long() {
        for (count, expected) in [(1, 1), (17, 2), (256, 16), (1000, 16), (20_000, 16), (60_000, 30)] {
            let subtrees = subtrees(schedules(count), &Places::default(), false);
            assert_eq!(subtrees.len(), expected, "{count} schedules");
            let all: Vec<Schedule> = subtrees.into_iter().flat_map(Subtree::left_over).collect();
            assert_eq!(all, schedules(count));
        }
        let long = Schedule::Departing((0..3000).map(|number| (number, 1)).collect());
        assert_eq!(subtrees(vec![long; 4], &Places::default(), false).len(), 4, "each fills a subtree");
    }

    #[test]
    fn a_part_is_read_as_it_is_written_at_any_time_of_its_making() {
        let mut subtree = subtrees(schedules(3), &Places::default(), false).remove(0);
        subtree.made(&"1f2,1c2".parse().unwrap());
        assert_eq!(subtree.to_string(), "2047;1=1;2=1;0=1,1=1");
        assert_eq!(subtree.to_string().parse(), Ok(subtree));
        assert_eq!("".parse::<Subtree>(), Err(ScheduleError));
        subtree = subtrees(schedules(1), &[0x30, 0x34].into_iter().collect(), true).remove(0);
        assert_eq!(subtree.to_string(), "2048+@30+4;0=1");
        assert_eq!(subtree.to_string().parse(), Ok(subtree));
    }

    #[test]
    fn where_states_are_compared_the_search_says_which_runs_come() {
        let mut subtree = subtrees(schedules(2), &Places::default(), true).remove(0);
        assert_eq!(subtree.made(&"1f2".parse().unwrap()), Some(schedules(1).remove(0)));
        assert_eq!(subtree.to_string(), "2047+;1=1");
        assert_eq!(subtree.to_string().parse(), Ok(subtree));
    }

    #[test]
    fn a_stem_is_what_all_runs_of_a_part_begin_with() {
        let stem = |text: &str| text.parse::<Subtree>().unwrap().stem();
        assert_eq!(stem("9;3=1,7=1;3=1,9=2;3=1,9=3"), Some((vec![(3, 1)], 7)));
        assert_eq!(stem("9;3=1,7=1;4=1,5=2"), Some((vec![], 3)));
        assert_eq!(stem("9;3=1,7=1"), Some((vec![(3, 1)], 7)), "the last departure is open");
        assert_eq!((stem("9;usual"), stem("9;seed4")), (None, None));
    }

    #[test]
    fn a_part_ends_and_leaves_over_what_it_has_not_come_to() {
        let mut subtree = subtrees(schedules(1), &Places::default(), false).remove(0);
        let mut made = 0;
        while subtree.schedule().is_some() {
            subtree.made(&"40f2".parse().unwrap());
            made += 1;
        }
        assert_eq!(made, RUNS);
        assert!(subtree.left_over().count() > RUNS);
    }
}
