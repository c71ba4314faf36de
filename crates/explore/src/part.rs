//! Parts of a search: runs that are made in one place, one after the other. Which they are depends on the runs alone, so
//! that a search is the same wherever its parts are made, and however many at a time.
//!
//! A part holds some courses; to these come, while it is made, those that depart further and free of cost. What it has not
//! come to by its end is left over for other parts. All its runs are asked in the same places, so that its questions count alike
//! wherever it is made. It is written as one argument of a process, which the host allows 128 KiB: there is room for some
//! twenty thousand places.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::course::{Course, CourseError, Departures, Questions};
use crate::places::Places;

/// A search has at least so many parts at a time, if there are courses enough.
const PARTS: usize = 16;
/// A part begins with so many courses at least, and at most: less does not pay for starting a machine.
const COURSES: (usize, usize) = (16, 256);
/// So many runs end a part.
const RUNS: usize = 256;
/// So many departures, of all courses together, fill a part: it is handed to its process as an argument.
const DEPARTURES: usize = 4096;
/// Between courses, where they are written.
const SEPARATOR: char = ';';
/// Before the places, if there are any.
const PLACES: char = '@';

/// Runs that are made in one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    waiting: VecDeque<Course>,
    /// How many runs it may still make.
    left: usize,
    /// Where they are asked, of those places that runs teach.
    places: Places,
}

/// Divides courses, in their order, in a search that may make so many more runs and knows these places.
pub(crate) fn parts(courses: Vec<Course>, more: u64, places: &Places) -> Vec<Part> {
    let left = usize::try_from(more).unwrap_or(RUNS).min(RUNS);
    let size = courses.len().div_ceil(PARTS).clamp(COURSES.0, COURSES.1);
    let mut parts: Vec<Part> = Vec::new();
    let mut departures = 0;
    for course in courses {
        departures += course.length();
        match parts.last_mut() {
            Some(part) if part.waiting.len() < size && departures <= DEPARTURES => {
                part.waiting.push_back(course);
            }
            _ => {
                departures = course.length();
                parts.push(Part { waiting: VecDeque::from([course]), left, places: places.clone() });
            }
        }
    }
    parts
}

impl Part {
    /// The run to make now; none if the part is over.
    #[must_use]
    pub fn course(&self) -> Option<&Course> {
        self.waiting.front().filter(|_| self.left > 0)
    }

    /// That run was made, and asked this: on to the next. Courses that cost one departure more go to `deeper`.
    pub fn made(&mut self, questions: &Questions, mut deeper: impl FnMut(Course)) {
        let Some(course) = self.pass() else { return };
        course.further(
            questions,
            |counts, course| {
                if counts { deeper(course) } else { self.waiting.push_back(course) }
            },
        );
    }

    /// Nothing is known of that run: on to the next.
    pub fn pass(&mut self) -> Option<Course> {
        self.left = self.left.saturating_sub(1);
        self.waiting.pop_front()
    }

    /// A part of one run, asked where this part's runs are.
    #[must_use]
    pub fn alone(&self, course: Course) -> Self {
        Self { waiting: VecDeque::from([course]), left: 1, places: self.places.clone() }
    }

    /// Departures that all its runs begin with, and the first question where one of them departs from the others. None if
    /// that is not known.
    pub(crate) fn stem(&self) -> Option<(Departures, usize)> {
        let all: Option<Vec<&[(usize, u32)]>> = self.waiting.iter().map(Course::departures).collect();
        let all = all?;
        let shortest = all.iter().map(|departures| departures.len()).min()?;
        let common = |length: &usize| all.iter().all(|departures| departures[..*length] == all[0][..*length]);
        let length = (0..shortest).rev().find(common)?;
        let first = all.iter().map(|departures| departures[length].0).min()?;
        Some((all[0][..length].to_vec(), first))
    }

    /// Where its runs are asked, of those places that runs teach.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// What the part has not come to.
    pub(crate) fn left_over(self) -> impl Iterator<Item = Course> {
        self.waiting.into_iter()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.left)?;
        if !self.places.is_empty() {
            write!(f, "{PLACES}{}", self.places)?;
        }
        self.waiting.iter().try_for_each(|course| write!(f, "{SEPARATOR}{course}"))
    }
}

impl FromStr for Part {
    type Err = CourseError;

    fn from_str(text: &str) -> Result<Self, CourseError> {
        let (left, courses) = text.split_once(SEPARATOR).ok_or(CourseError)?;
        let (left, places) = left.split_once(PLACES).unwrap_or((left, ""));
        let waiting = courses.split(SEPARATOR).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { waiting, left: left.parse().map_err(|_| CourseError)?, places: places.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn courses(count: usize) -> Vec<Course> {
        (0..count).map(|number| Course::Departing(vec![(number, 1)])).collect()
    }

    #[test]
    fn parts_hold_all_courses_in_order_and_none_is_too_long() {
        for (count, expected) in [(1, 1), (17, 2), (256, 16), (1000, 16), (20_000, 79)] {
            let parts = parts(courses(count), u64::MAX, &Places::default());
            assert_eq!(parts.len(), expected, "{count} courses");
            let all: Vec<Course> = parts.into_iter().flat_map(Part::left_over).collect();
            assert_eq!(all, courses(count));
        }
        let long = Course::Departing((0..3000).map(|number| (number, 1)).collect());
        assert_eq!(parts(vec![long; 4], u64::MAX, &Places::default()).len(), 4, "each fills a part");
    }

    #[test]
    fn a_part_is_read_as_it_is_written_at_any_time_of_its_making() {
        let mut part = parts(courses(3), u64::MAX, &Places::default()).remove(0);
        part.made(&"1f2,1c2".parse().unwrap(), |_| ());
        assert_eq!(part.to_string(), "255;1=1;2=1;0=1,1=1");
        assert_eq!(part.to_string().parse(), Ok(part));
        assert_eq!("".parse::<Part>(), Err(CourseError));
        part = parts(courses(1), u64::MAX, &[0x30, 0x34].into_iter().collect()).remove(0);
        assert_eq!(part.to_string(), "256@30+4;0=1");
        assert_eq!(part.to_string().parse(), Ok(part));
    }

    #[test]
    fn a_stem_is_what_all_runs_of_a_part_begin_with() {
        let stem = |text: &str| text.parse::<Part>().unwrap().stem();
        assert_eq!(stem("9;3=1,7=1;3=1,9=2;3=1,9=3"), Some((vec![(3, 1)], 7)));
        assert_eq!(stem("9;3=1,7=1;4=1,5=2"), Some((vec![], 3)));
        assert_eq!(stem("9;3=1,7=1"), Some((vec![(3, 1)], 7)), "the last departure is open");
        assert_eq!((stem("9;usual"), stem("9;seed4")), (None, None));
    }

    #[test]
    fn a_part_ends_and_leaves_over_what_it_has_not_come_to() {
        let mut part = parts(courses(1), u64::MAX, &Places::default()).remove(0);
        let mut made = 0;
        while part.course().is_some() {
            part.made(&"40f2".parse().unwrap(), |_| ());
            made += 1;
        }
        assert_eq!(made, RUNS);
        assert!(part.left_over().count() > RUNS);
    }
}
