//! Answers that differ from the default: what a record keeps of a run's choices, and how they are written.
//!
//! An answer is kept by (strand, point, occurrence), a preemption by how many driver instructions its strand had retired:
//! dropping one renumbers none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use engine::{Delay, DelayPlace};

/// One answer that is not the default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Choice {
    /// At a point, other than 0.
    Answer {
        /// Who asked; 0 is the scheduler.
        strand: u32,
        /// Where.
        point: String,
        /// The how many-th question of this strand at this point it was, from 0.
        occurrence: u64,
        /// What was answered, 1 or more.
        answer: u32,
    },
    /// The strand gave way at the end of a slice.
    Preemption {
        /// The strand.
        strand: u32,
        /// How many driver instructions of its own it had retired by then.
        retired: u64,
    },
    /// The strand gave way before an instruction that was watched.
    Before {
        /// The strand.
        strand: u32,
        /// How many driver instructions of its own it had retired by then.
        retired: u64,
        /// The instruction's address.
        instruction: u64,
    },
    /// The strand was held up until what was due next had come.
    Delay {
        /// The strand.
        strand: u32,
        /// Where it stood.
        at: Delay,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { strand, point, occurrence, answer } => {
                write!(f, "choice {strand} {point} {occurrence} = {answer}")
            }
            Self::Preemption { strand, retired } => write!(f, "preempt {strand} after {retired}"),
            Self::Before { strand, retired, instruction } => {
                write!(f, "preempt {strand} after {retired} before {instruction:#x}")
            }
            Self::Delay { strand, at: Delay { retired, place } } => {
                write!(f, "delay {strand} after {retired}")?;
                match place {
                    DelayPlace::Call(returns) => write!(f, " returning {returns:#x}"),
                    DelayPlace::Visible(instruction) => write!(f, " at {instruction:#x}"),
                    DelayPlace::Watched(instruction) => write!(f, " before {instruction:#x}"),
                    DelayPlace::SliceEnd => Ok(()),
                }
            }
        }
    }
}

/// A line that is no choice: what it should look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChoiceError;

impl fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "none of `choice STRAND POINT OCCURRENCE = ANSWER`, `preempt STRAND after INSTRUCTIONS [before ADDRESS]` and \
             `delay STRAND after INSTRUCTIONS [returning|at|before ADDRESS]`",
        )
    }
}

impl std::error::Error for ChoiceError {}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(line: &str) -> Result<Self, ChoiceError> {
        let words: Vec<&str> = line.split(' ').collect();
        let choice = match words[..] {
            ["choice", strand, point, occurrence, "=", answer] if !point.is_empty() => Self::Answer {
                strand: number(strand)?,
                point: point.to_owned(),
                occurrence: number(occurrence)?,
                answer: number(answer)?,
            },
            ["preempt", strand, "after", retired] => {
                Self::Preemption { strand: number(strand)?, retired: number(retired)? }
            }
            ["preempt", strand, "after", retired, "before", address] => {
                let (strand, retired, instruction) = (number(strand)?, number(retired)?, hex(address)?);
                return Ok(Self::Before { strand, retired, instruction });
            }
            ["delay", strand, "after", retired, ref place @ ..] => {
                let place = match *place {
                    [] => DelayPlace::SliceEnd,
                    ["returning", address] => DelayPlace::Call(hex(address)?),
                    ["at", address] => DelayPlace::Visible(hex(address)?),
                    ["before", address] => DelayPlace::Watched(hex(address)?),
                    _ => return Err(ChoiceError),
                };
                let at = Delay { retired: number(retired)?, place };
                return Ok(Self::Delay { strand: number(strand)?, at });
            }
            _ => return Err(ChoiceError),
        };
        match choice {
            Self::Answer { answer: 0, .. } | Self::Preemption { retired: 0, .. } => Err(ChoiceError),
            choice => Ok(choice),
        }
    }
}

fn number<N: FromStr>(text: &str) -> Result<N, ChoiceError> {
    if !text.starts_with(|letter: char| letter.is_ascii_digit()) {
        return Err(ChoiceError);
    }
    text.parse().map_err(|_| ChoiceError)
}

/// An address, as it is written.
fn hex(text: &str) -> Result<u64, ChoiceError> {
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(ChoiceError)
}

/// What one point was answered, by occurrence.
type Answers = BTreeMap<u64, u32>;

/// All answers of a run that are not the default.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Choices {
    answers: BTreeMap<u32, BTreeMap<String, Answers>>,
    preemptions: BTreeMap<u32, BTreeSet<u64>>,
    /// By strand: instructions retired, and which came next.
    before: BTreeMap<u32, BTreeSet<(u64, u64)>>,
    delays: BTreeSet<(u32, Delay)>,
}

impl Choices {
    /// Adds one; false if there is one for the same question already, which stays.
    pub fn insert(&mut self, choice: Choice) -> bool {
        match choice {
            Choice::Answer { strand, point, occurrence, answer } => {
                let answers = self.answers.entry(strand).or_default().entry(point).or_default();
                let new = !answers.contains_key(&occurrence);
                answers.entry(occurrence).or_insert(answer);
                new
            }
            Choice::Preemption { strand, retired } => {
                self.preemptions.entry(strand).or_default().insert(retired)
            }
            Choice::Before { strand, retired, instruction } => {
                self.before.entry(strand).or_default().insert((retired, instruction))
            }
            Choice::Delay { strand, at } => self.delays.insert((strand, at)),
        }
    }

    /// Takes one away; false if it was not there.
    pub fn remove(&mut self, choice: &Choice) -> bool {
        match choice {
            Choice::Answer { strand, point, occurrence, .. } => {
                self.take_answer(*strand, point, *occurrence).is_some()
            }
            Choice::Preemption { strand, retired } => self.take_preemption(*strand, *retired),
            Choice::Before { strand, retired, instruction } => {
                self.take_before(*strand, *retired, *instruction)
            }
            Choice::Delay { strand, at } => self.take_delay(*strand, *at),
        }
    }

    /// All of them, by strand.
    pub fn iter(&self) -> impl Iterator<Item = Choice> {
        let answers = self.answers.iter().flat_map(|(strand, points)| {
            points.iter().flat_map(|(point, answers)| {
                answers.iter().map(|(occurrence, answer)| Choice::Answer {
                    strand: *strand,
                    point: point.clone(),
                    occurrence: *occurrence,
                    answer: *answer,
                })
            })
        });
        let preemptions = self.preemptions.iter().flat_map(|(strand, all)| {
            all.iter().map(|retired| Choice::Preemption { strand: *strand, retired: *retired })
        });
        let before = self.before.iter().flat_map(|(strand, all)| {
            let choice = |(retired, instruction): &(u64, u64)| Choice::Before {
                strand: *strand,
                retired: *retired,
                instruction: *instruction,
            };
            all.iter().map(choice)
        });
        let delays = self.delays.iter().map(|(strand, at)| Choice::Delay { strand: *strand, at: *at });
        answers.chain(preemptions).chain(before).chain(delays)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the run was all defaults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn take_answer(&mut self, strand: u32, point: &str, occurrence: u64) -> Option<u32> {
        self.answers.get_mut(&strand)?.get_mut(point)?.remove(&occurrence)
    }

    pub(crate) fn take_preemption(&mut self, strand: u32, retired: u64) -> bool {
        self.preemptions.get_mut(&strand).is_some_and(|all| all.remove(&retired))
    }

    pub(crate) fn take_before(&mut self, strand: u32, retired: u64, instruction: u64) -> bool {
        self.before.get_mut(&strand).is_some_and(|all| all.remove(&(retired, instruction)))
    }

    pub(crate) fn take_delay(&mut self, strand: u32, at: Delay) -> bool {
        self.delays.remove(&(strand, at))
    }

    /// The instructions that must be watched for these to be asked about, by address.
    pub(crate) fn watched(&self) -> BTreeSet<u64> {
        let before = self.before.values().flatten().map(|(_, instruction)| *instruction);
        let delays = self.delays.iter().filter_map(|(_, at)| match at.place {
            DelayPlace::Watched(instruction) => Some(instruction),
            _ => None,
        });
        before.chain(delays).collect()
    }

    /// At which instruction after `retired` a slice of the strand must end next, for it to be asked.
    pub(crate) fn next_slice_end(&self, strand: u32, retired: u64) -> Option<u64> {
        let preemption =
            self.preemptions.get(&strand).and_then(|all| all.range(retired + 1..).next().copied());
        let delays = self.delays.iter().filter(|(of, at)| *of == strand && at.place == DelayPlace::SliceEnd);
        let delay = delays.map(|(_, at)| at.retired).find(|at| *at > retired);
        preemption.into_iter().chain(delay).min()
    }
}

impl FromIterator<Choice> for Choices {
    fn from_iter<I: IntoIterator<Item = Choice>>(choices: I) -> Self {
        let mut all = Self::default();
        for choice in choices {
            all.insert(choice);
        }
        all
    }
}

/// Counts the questions of each strand at each point.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Occurrences(BTreeMap<(u32, &'static str), u64>);

impl Occurrences {
    /// The number of this question, from 0.
    pub(crate) fn next(&mut self, strand: u32, point: &'static str) -> u64 {
        let count = self.0.entry((strand, point)).or_default();
        let number = *count;
        *count += 1;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for text in [
            "choice 5 ke.before_export 17 = 1",
            "preempt 3 after 1234",
            "preempt 3 after 0 before 0x20001000",
            "delay 3 after 0 at 0x20001000",
            "delay 3 after 12 before 0x20001000",
            "delay 3 after 12",
            "delay 3 after 12 returning 0x20001000",
        ] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_line_that_is_no_choice_is_refused() {
        let wrong = [
            "",
            "choice",
            "choice 5 ke.turn 0 = 0",
            "choice 5 ke.turn 0 1",
            "choice 5  0 = 1",
            "choice +5 ke.turn 0 = 1",
            "choice 5 ke.turn -1 = 1",
            "choice 4294967296 ke.turn 0 = 1",
            "preempt 3 after 0",
            "preempt 3 after 18446744073709551616",
            "preempt 3 before 7",
            "preempt 3 after 7 before 20001000",
            "preempt 3 after 7 before 0x+1",
            "delay 3 after",
            "delay 3 after 7 in 0x1",
            "delay 3 after 7 at 1",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Choice>(), Err(ChoiceError), "{text}");
        }
    }

    #[test]
    fn dropping_one_choice_leaves_the_others_as_they_are() {
        let lines = [
            "choice 1 a 0 = 1",
            "choice 1 a 2 = 1",
            "preempt 1 after 10",
            "preempt 1 after 10 before 0x7",
            "delay 1 after 10 at 0x7",
            "delay 1 after 10 before 0x8",
        ];
        let mut choices: Choices = lines.iter().map(|line| line.parse().unwrap()).collect();
        assert_eq!((choices.len(), choices.watched().len()), (6, 2));
        assert!(choices.remove(&lines[4].parse().unwrap()));
        assert!(choices.remove(&lines[0].parse().unwrap()));
        assert!(choices.remove(&lines[2].parse().unwrap()));
        assert!(!choices.remove(&lines[2].parse().unwrap()));
        let left: Vec<String> = choices.iter().map(|choice| choice.to_string()).collect();
        assert_eq!(left, [lines[1], lines[3], lines[5]]);
    }
}
