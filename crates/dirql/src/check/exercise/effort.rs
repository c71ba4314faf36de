//! How often each sort of exercise is carried out, in hundredths of the usual, and the list that exercises are added to.

use super::super::survey::Survey;
use super::{Effort, Exercise, RACES, Stories};

/// From this budget on as many calls fail, one in each attempt, as by the usual one.
const ALL_FAILING: usize = 10;
/// So many stories are one exercise, and so many seeds each of them has.
const STORIES: u64 = 200;
const STORY_SEEDS: u64 = 3;
/// So many scripts of two requests at once are made of sequences, and so many seeds each of them has.
const AS_FOUND: u64 = 200;
const AS_FOUND_SEEDS: u64 = 16;

/// What sort of exercise it is: by that it is carried out so often.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Start,
    StartOnTwo,
    StartElsewhere,
    StartWithValues,
    /// The usual way only.
    Usual,
    Plain,
    Little,
    Sizes,
    Requests,
    /// The card is gone at each access,
    Loose,
    /// in its start, too.
    LooseFromStart,
    AtOnce,
    Behind,
    LateStores,
    Quick,
    /// Two ends of a request meet within a few instructions.
    AnsweredLate,
    /// All orders of two requests and of what they write to a card.
    Posted,
    Inputs,
    /// The same on two processors: races show whether or not two requests meet.
    InputsAtOnce,
    /// Behind so many sequences.
    Stories {
        part: u64,
        behind: u64,
    },
    /// Two requests at once as so many sequences have found them.
    AsFound {
        behind: u64,
    },
}

pub(super) struct Plan {
    pub(super) all: Vec<Exercise>,
    pub(super) budget: u64,
    /// Of what is added next.
    pub(super) more: Vec<String>,
    /// As [`Exercise::card_is_unknown`].
    pub(super) card_is_unknown: bool,
}

impl Plan {
    /// Of a driver of which this is known; with these options at first.
    pub(super) fn new(survey: &Survey, budget: u64, more: Vec<String>) -> Self {
        Self { all: Vec::new(), budget, more, card_is_unknown: !survey.signals.is_empty() }
    }

    pub(super) fn add(&mut self, title: impl Into<String>, script: impl Into<String>, kind: Kind) {
        let share = |usual: u64| usual * self.budget / 100;
        // All of them, but for a look so short that they would be nearly all of it.
        let failing = |usual: usize| {
            let shared = usual * usize::try_from(self.budget).unwrap_or(usize::MAX).min(ALL_FAILING);
            shared.div_ceil(ALL_FAILING)
        };
        let none = Effort::default();
        let effort = match kind {
            Kind::Start => Effort { failing: failing(400), from_start: true, seeds: share(48), ..none },
            Kind::StartOnTwo => Effort { from_start: true, seeds: share(160), ..none },
            Kind::StartElsewhere => Effort { from_start: true, seeds: share(16), ..none },
            Kind::StartWithValues => {
                Effort { failing: failing(60), from_start: true, seeds: share(8), ..none }
            }
            Kind::Usual => none,
            Kind::Plain => Effort { failing: failing(60), seeds: share(16), ..none },
            Kind::Little => Effort { seeds: share(4), ..none },
            Kind::Sizes => Effort { failing: failing(20), seeds: share(2), ..none },
            Kind::Requests => Effort { failing: failing(60), seeds: share(20), ..none },
            Kind::Loose => Effort { failing: failing(120), ..none },
            Kind::LooseFromStart => Effort { failing: failing(400), from_start: true, ..none },
            Kind::AtOnce => Effort { seeds: share(100), schedules: share(120), ..none },
            Kind::Behind | Kind::LateStores => Effort { seeds: share(24), schedules: share(40), ..none },
            Kind::Posted => Effort { seeds: share(24), schedules: share(1_500), ..none },
            Kind::AnsweredLate => Effort { seeds: share(3_000), schedules: share(120), ..none },
            Kind::Quick => Effort { seeds: share(8), schedules: share(80), ..none },
            Kind::Stories { part, behind } => {
                let (first, count) = (part * STORIES, share(STORIES));
                let stories = Stories { first, count, behind: share(behind), as_found: false };
                Effort { seeds: STORY_SEEDS, stories, ..none }
            }
            Kind::AsFound { behind } => {
                let stories =
                    Stories { first: 0, count: share(AS_FOUND), behind: share(behind), as_found: true };
                Effort { seeds: AS_FOUND_SEEDS, stories, ..none }
            }
            Kind::InputsAtOnce => Effort { inputs: share(2_000), ..none },
            Kind::Inputs => Effort { failing: failing(10), seeds: share(2), inputs: share(10_000), ..none },
        };
        let processors = match kind {
            Kind::AtOnce
            | Kind::Behind
            | Kind::LateStores
            | Kind::Quick
            | Kind::AnsweredLate
            | Kind::StartOnTwo
            | Kind::InputsAtOnce
            | Kind::Stories { .. }
            | Kind::AsFound { .. } => 2,
            _ => 1,
        };
        let mut more = self.more.clone();
        if matches!(kind, Kind::AtOnce | Kind::AnsweredLate) {
            more.push(RACES.to_owned());
        }
        let card_is_unknown = self.card_is_unknown;
        let (title, script) = (title.into(), script.into());
        self.all.push(Exercise { title, script, processors, more, effort, card_is_unknown });
    }
}
