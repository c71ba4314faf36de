//! Searches that end before they are complete, and go on: they come to what one comes to that was never interrupted.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod trees;

use std::cell::RefCell;

use explore::{
    Bounds, Choices, Known, Local, Memory, Places, Policy, Ran, Remark, Remembering, Runner, Schedule,
    Searched, Subtree, search_by,
};
use trees::{Ask, Tree};

/// Eight questions, two of them free; two more where the place is known, and those behind a departure depend on it.
fn ask(answers: &[u32], watched: bool) -> Option<Ask> {
    let departed = answers.iter().filter(|answer| **answer > 0).count();
    match answers.len() {
        0 => Some(Ask::Free(3)),
        3 => Some(Ask::Free(2 + u32::try_from(departed).unwrap())),
        1 | 2 | 7 => Some(Ask::Counts(3)),
        4..=6 => Some(Ask::Counts(2)),
        8 | 9 if watched => Some(Ask::Counts(2)),
        _ => None,
    }
}

fn tree() -> Tree {
    Tree::new(ask, |answers| answers[1] == 2 && answers[3] == 1)
}

type Said = Vec<(Remark, Choices)>;
/// A run that was made: where it was asked, its schedule, what came of it and what it said.
type Line = (Places, Schedule, Known, Said);

/// Makes runs, and notes them; after some it is interrupted. Dies of some schedules.
struct Noting<'n, R> {
    runner: R,
    left: u64,
    notes: &'n RefCell<Vec<Line>>,
    places: Vec<Places>,
    said: Said,
    deadly: fn(&Schedule) -> bool,
}

impl<R: Runner> Runner for Noting<'_, R> {
    type Outcome = R::Outcome;

    fn begin(&mut self, subtrees: &[Subtree]) {
        self.places = subtrees.iter().map(|subtree| subtree.places().clone()).collect();
        self.runner.begin(subtrees);
    }

    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<R::Outcome> {
        if self.left == 0 {
            return Ran::Refused;
        }
        self.left -= 1;
        let dies = (self.deadly)(schedule);
        let ran = if dies { Ran::Lost("it died".to_owned()) } else { self.runner.run(subtree, schedule) };
        self.said = if dies { Said::new() } else { self.runner.remarks() };
        let known = match &ran {
            Ran::Usual(questions, places) => Known::Usual(questions.clone(), places.clone()),
            Ran::Lost(why) => Known::Lost(why.clone()),
            Ran::Wanted(..) | Ran::Refused => return ran,
        };
        let line = (self.places[subtree].clone(), schedule.clone(), known, self.said.clone());
        self.notes.borrow_mut().push(line);
        ran
    }

    fn remarks(&mut self) -> Said {
        std::mem::take(&mut self.said)
    }
}

/// Searches from what was noted, `left` runs further at most.
fn search(
    bounds: Bounds,
    wanted: fn(&Vec<u32>) -> bool,
    deadly: fn(&Schedule) -> bool,
    notes: &RefCell<Vec<Line>>,
    left: u64,
) -> Searched<Vec<u32>> {
    let mut memory = Memory::default();
    for (places, schedule, known, said) in notes.borrow().iter().cloned() {
        memory.add(&places, &schedule, known, said);
    }
    let mut subject = tree();
    let runner = Local::new(&mut subject, bounds, wanted);
    let mut noting = Noting { runner, left, notes, places: Vec::new(), said: Said::new(), deadly };
    search_by(&mut Remembering::new(&mut noting, memory), &bounds)
}

const NEVER: fn(&Vec<u32>) -> bool = |_| false;
const LATE: fn(&Vec<u32>) -> bool = |answers| answers[..] == [2, 2, 0, 0, 0, 1, 0, 0, 0, 1];
const NONE: fn(&Schedule) -> bool = |_| false;
const DEADLY: fn(&Schedule) -> bool = |schedule| schedule.to_string().starts_with("0=1,2=1");

#[test]
fn a_search_that_is_interrupted_at_any_run_ends_as_one_that_is_not() {
    let all = Bounds { preemptions: 3, cuts: false, ..Bounds::default() };
    let seeds = Bounds { policy: Some(Policy::random(3)), schedules: 700, ..all };
    let cases = [
        (all, NEVER, NONE),
        (all, LATE, NONE),
        (all, NEVER, DEADLY),
        (Bounds { schedules: 400, ..all }, NEVER, NONE),
        (seeds, NEVER, NONE),
    ];
    for (bounds, wanted, deadly) in cases {
        let whole = search(bounds, wanted, deadly, &RefCell::default(), u64::MAX);
        assert!(whole.total() > 300 && !whole.remarks.is_empty(), "{}", whole.total());
        assert!(bounds.policy.is_some() || whole.learned == 1 && whole.repeated > 0, "it learns");
        for step in [29, 100, 333] {
            let notes = RefCell::default();
            let mut ended = search(bounds, wanted, deadly, &notes, step);
            let mut times = 1;
            while ended != whole {
                assert!(!ended.complete && ended.not_tried.is_any(), "{step} at a time, the {times}-th");
                assert!(ended.tried() <= step * times && step * times < whole.tried() + step);
                ended = search(bounds, wanted, deadly, &notes, step);
                times += 1;
            }
            let made = u64::try_from(notes.borrow().len()).unwrap() + u64::from(whole.found.is_some());
            assert_eq!(made, whole.tried(), "each run is made once");
        }
    }
}

#[test]
fn a_search_goes_on_behind_its_bounds_as_if_these_had_never_been() {
    let bounds = Bounds { preemptions: 3, cuts: false, ..Bounds::default() };
    let whole = search(bounds, NEVER, DEADLY, &RefCell::default(), u64::MAX);
    let notes = RefCell::default();
    for schedules in [1, 30, 31, 500, 900] {
        let bounds = Bounds { schedules, preemptions: 2, ..bounds };
        let ended = search(bounds, NEVER, DEADLY, &notes, u64::MAX);
        assert!(ended.tried() == schedules || !ended.not_tried.is_any());
    }
    assert_eq!(search(bounds, NEVER, DEADLY, &notes, u64::MAX), whole);
}

#[test]
fn what_is_known_to_be_left_is_there() {
    let bounds = Bounds { preemptions: 3, cuts: false, ..Bounds::default() };
    let whole = search(bounds, NEVER, NONE, &RefCell::default(), u64::MAX);
    assert_eq!(whole.not_tried.known, [0; 4]);
    for schedules in (1..whole.total()).step_by(7) {
        let ended = search(Bounds { schedules, ..bounds }, NEVER, NONE, &RefCell::default(), u64::MAX);
        let left: u64 = ended.not_tried.known.iter().sum();
        assert!(ended.not_tried.is_any() && left <= whole.total() - schedules, "{left} behind {schedules}");
        if ended.repeated > 0 {
            let of_each = ended.not_tried.known.iter().zip(&ended.schedules).zip(&whole.schedules);
            assert!(of_each.into_iter().all(|((left, made), all)| left + made <= *all), "{schedules}");
        }
    }
}
