//! How one run of a search goes, and which further runs it leads to; and how both are written, for another process.
//!
//! A schedule by departures says at which questions the run does not take the default; a schedule by seed leaves all to a policy.
//! Questions are counted from where the search begins, and only by the runs of a search: in records, questions have names.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::guided::Question;

/// Between questions and their states, where they are written.
const STATES: char = '~';
/// A state is written as so many.
const DIGITS: usize = 16;

/// Answers other than 0, by the number of the question, in their order.
pub(crate) type Departures = Vec<(usize, u32)>;

/// How a run goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Schedule {
    /// As usual, but for these answers.
    Departing(Departures),
    /// As a policy says: by its own seed and so many more.
    Seed(u64),
}

/// The questions behind a run's last departure: where further runs depart.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Questions {
    /// Equal ones that follow each other are kept as one.
    kept: Vec<(Question, usize)>,
    /// In which state each was asked; none where that is not known.
    states: Vec<u64>,
}

impl Schedule {
    /// How often it departs.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Departing(departures) => departures.len(),
            Self::Seed(_) => 1,
        }
    }

    /// Where it departs; none where a seed says.
    pub(crate) fn departures(&self) -> Option<&[(usize, u32)]> {
        match self {
            Self::Departing(departures) => Some(departures),
            Self::Seed(_) => None,
        }
    }

    /// The first question behind its last departure.
    pub(crate) fn open_from(&self) -> usize {
        match self {
            Self::Departing(departures) => departures.last().map_or(0, |(number, _)| number + 1),
            Self::Seed(_) => usize::MAX,
        }
    }

    /// Each schedule that departs once more than this one, after all its departures so far: so none is taken twice. `each`
    /// also gets whether the departure counts towards the bound.
    pub(crate) fn further(&self, questions: &Questions, mut each: impl FnMut(bool, Self)) {
        let Self::Departing(departures) = self else { return };
        let all = questions.kept.iter().flat_map(|(question, times)| std::iter::repeat_n(question, *times));
        for (number, question) in (self.open_from()..).zip(all) {
            for answer in 1..question.n {
                let mut further = departures.clone();
                further.push((number, answer));
                each(question.counts, Self::Departing(further));
            }
        }
    }
}

impl Questions {
    /// One more, asked in this state.
    pub(crate) fn add(&mut self, question: Question, state: Option<u64>) {
        match self.kept.last_mut() {
            Some((last, times)) if *last == question => *times += 1,
            _ => self.kept.push((question, 1)),
        }
        self.states.extend(state);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.kept.iter().map(|(_, times)| times).sum()
    }

    /// Whether their states are known as far as a search needs them that compares these.
    pub(crate) fn suffice(&self, compared: bool) -> bool {
        !compared || self.states.len() == self.len()
    }

    /// The states in which they were asked, each with how many questions come before it.
    pub(crate) fn states(&self) -> impl Iterator<Item = (usize, u64)> {
        let known = if self.states.len() == self.len() { &self.states[..] } else { &[] };
        known.iter().copied().enumerate()
    }

    /// The states are not needed any more.
    pub(crate) fn forget_states(&mut self) {
        self.states = Vec::new();
    }

    /// Only so many are left, and their states are not needed any more.
    pub(crate) fn truncate(&mut self, length: usize) {
        let mut left = length;
        self.kept.retain_mut(|(_, times)| {
            *times = (*times).min(left);
            left -= *times;
            *times > 0
        });
        self.states = Vec::new();
    }

    /// Each, from the last one on.
    pub(crate) fn backwards(&self) -> impl Iterator<Item = Question> {
        self.kept.iter().rev().flat_map(|(question, times)| std::iter::repeat_n(*question, *times))
    }

    /// How many schedules depart once more, at one of these, and count.
    pub(crate) fn departures_that_count(&self) -> u64 {
        let counting = self.kept.iter().filter(|(question, _)| question.counts);
        let of = |(Question { n, .. }, times): &(Question, usize)| {
            u64::from(n.saturating_sub(1)).saturating_mul(u64::try_from(*times).unwrap_or(u64::MAX))
        };
        counting.map(of).fold(0, u64::saturating_add)
    }
}

/// A text that is none of this file's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScheduleError;

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither a schedule of a search nor its questions")
    }
}

impl std::error::Error for ScheduleError {}

fn number<N: FromStr>(text: &str) -> Result<N, ScheduleError> {
    text.parse().map_err(|_| ScheduleError)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Departing(departures) if departures.is_empty() => f.write_str("usual"),
            Self::Departing(departures) => {
                let all: Vec<String> =
                    departures.iter().map(|(number, answer)| format!("{number}={answer}")).collect();
                f.write_str(&all.join(","))
            }
            Self::Seed(seed) => write!(f, "seed{seed}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text == "usual" {
            return Ok(Self::Departing(Departures::new()));
        }
        if let Some(seed) = text.strip_prefix("seed") {
            return Ok(Self::Seed(number(seed)?));
        }
        let one = |text: &str| {
            let (question, answer) = text.split_once('=').ok_or(ScheduleError)?;
            Ok((number(question)?, number(answer)?))
        };
        let departures = text.split(',').map(one).collect::<Result<Departures, ScheduleError>>()?;
        let ordered = departures.is_sorted_by(|(one, _), (next, _)| one < next);
        let depart = departures.iter().all(|(_, answer)| *answer > 0);
        if ordered && depart { Ok(Self::Departing(departures)) } else { Err(ScheduleError) }
    }
}

impl fmt::Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(Question { n, counts }, times): &(Question, usize)| {
            let kind = if *counts { 'c' } else { 'f' };
            format!("{times}{kind}{n}")
        };
        f.write_str(&self.kept.iter().map(one).collect::<Vec<_>>().join(","))?;
        if !self.states.is_empty() {
            f.write_char(STATES)?;
        }
        self.states.iter().try_for_each(|state| write!(f, "{state:0DIGITS$x}"))
    }
}

impl FromStr for Questions {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let one = |text: &str| {
            let at = text.find(['c', 'f']).ok_or(ScheduleError)?;
            let question = Question { n: number(&text[at + 1..])?, counts: text[at..].starts_with('c') };
            Ok((question, number(&text[..at])?))
        };
        let (kept, states) = text.split_once(STATES).unwrap_or((text, ""));
        let kept = kept.split(',').filter(|text| !text.is_empty()).map(one).collect::<Result<_, _>>()?;
        let state = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).map_err(|_| ScheduleError)?;
            u64::from_str_radix(digits, 16).map_err(|_| ScheduleError)
        };
        let states = states.as_bytes().chunks(DIGITS).map(state).collect::<Result<Vec<_>, _>>()?;
        let questions = Self { kept, states };
        let fits = [0, questions.len()].contains(&questions.states.len());
        if fits { Ok(questions) } else { Err(ScheduleError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_and_its_questions_are_read_as_they_are_written() {
        for text in ["usual", "0=1", "3=1,17=4", "seed18446744073709551615"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in ["", "3c2", "1f4,20c2,1f3", "1c2,1f3~0000000000000001ffffffffffffffff"] {
            assert_eq!(text.parse::<Questions>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_a_dying_process_might_say_is_no_schedule() {
        for text in ["", "3", "3=", "3=0", "17=1,3=1", "3=1;", "seed", "usual,"] {
            assert_eq!(text.parse::<Schedule>(), Err(ScheduleError), "{text}");
        }
        for text in ["c", "3x2", "c2", "3c", "end 0", "2c2,1f3~0000000000000001", "1c2~x"] {
            assert_eq!(text.parse::<Questions>(), Err(ScheduleError), "{text}");
        }
    }

    #[test]
    fn questions_end_where_they_are_cut() {
        let mut questions: Questions =
            "2c2,1f3~000000000000000100000000000000020000000000000003".parse().unwrap();
        assert_eq!(questions.states().collect::<Vec<_>>(), [(0, 1), (1, 2), (2, 3)]);
        questions.truncate(1);
        assert_eq!(questions.to_string(), "1c2");
        questions.truncate(0);
        assert_eq!(questions.to_string(), "");
    }

    #[test]
    fn each_further_schedule_departs_behind_the_last_departure() {
        let questions = "2c2,1f3".parse().unwrap();
        let mut further = Vec::new();
        "4=1".parse::<Schedule>().unwrap().further(&questions, |counts, schedule| {
            further.push(format!("{schedule} {counts}"));
        });
        assert_eq!(further, ["4=1,5=1 true", "4=1,6=1 true", "4=1,7=1 false", "4=1,7=2 false"]);
    }
}
