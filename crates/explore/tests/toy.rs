//! Policies on a toy: strands that take a shared counter, are visible in between, and put it back one higher.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::rc::Rc;

use explore::{
    Bounds, Choice, Choices, Chooser, Complaint, Defaults, Pct, Point, Random, Recorder, Replay, SLICE_END,
    Subject, search,
};

const VISIBLE: Point = Point("toy.visible");
const NEXT: Point = Point("toy.next");

/// So many strands, each adding one so often.
#[derive(Clone, Copy)]
struct Toy {
    strands: u32,
    rounds: u32,
    /// Whether taking and putting back are visible; else only the end of a slice comes between.
    visible: bool,
}

/// A strand: what it has left to do, what it has taken.
#[derive(Clone, Copy, Default)]
struct Strand {
    steps_left: u32,
    taken: Option<u32>,
    retired: u64,
    question: Option<u64>,
}

impl Toy {
    /// The counter at the end.
    fn play(self, policy: &mut dyn Chooser) -> u32 {
        let mut counter = 0;
        let one = Strand { steps_left: 2 * self.rounds, ..Strand::default() };
        let mut strands = vec![one; usize::try_from(self.strands).unwrap()];
        let mut current: Option<u32> = None;
        loop {
            let ready: Vec<u32> = (1_u32..)
                .zip(&strands)
                .filter(|(_, strand)| strand.steps_left > 0)
                .map(|(name, _)| name)
                .collect();
            let me = match (current, &ready[..]) {
                (_, []) => return counter,
                (Some(me), _) if ready.contains(&me) => me,
                (_, [only]) => *only,
                _ => ready[policy.next_strand(0, NEXT, &ready) as usize],
            };
            current = Some(me);
            let others: Vec<u32> = ready.iter().copied().filter(|other| *other != me).collect();
            let strand = &mut strands[me as usize - 1];
            if !others.is_empty() && gives_way(self, strand, me, policy, &others) {
                let next = if others.len() > 1 { policy.next_strand(0, NEXT, &others) } else { 0 };
                current = Some(others[next as usize]);
                continue;
            }
            step(strand, &mut counter);
        }
    }
}

/// Before its next step, a strand is asked whether another goes first.
fn gives_way(toy: Toy, strand: &mut Strand, me: u32, policy: &mut dyn Chooser, others: &[u32]) -> bool {
    if toy.visible && policy.give_way(me, VISIBLE, others) {
        return true;
    }
    let retired = strand.retired;
    let question = *strand.question.get_or_insert_with(|| policy.slice(me, retired).saturating_add(retired));
    if retired < question {
        return false;
    }
    let yes = policy.give_way(me, SLICE_END, others);
    strand.question = Some(policy.slice(me, retired).saturating_add(retired));
    yes
}

fn step(strand: &mut Strand, counter: &mut u32) {
    match strand.taken.take() {
        None => strand.taken = Some(*counter),
        Some(taken) => *counter = taken + 1,
    }
    strand.steps_left -= 1;
    strand.retired += 1;
}

impl Subject for Toy {
    type Outcome = u32;

    fn run(&mut self, mut policy: Box<dyn Chooser>) -> u32 {
        self.play(&mut *policy)
    }
}

const TWO: Toy = Toy { strands: 2, rounds: 1, visible: true };

fn recorded(toy: Toy, policy: impl Chooser + 'static) -> (u32, Choices) {
    let choices = Rc::new(RefCell::new(Choices::default()));
    let log = Rc::clone(&choices);
    let mut recorder = Recorder::new(Box::new(policy), move |choice| {
        assert!(log.borrow_mut().insert(choice), "no choice is told twice");
    });
    let counter = toy.play(&mut recorder);
    (counter, choices.take())
}

#[test]
fn run_until_blocked_loses_no_update_and_records_nothing() {
    let (counter, choices) = recorded(TWO, Defaults);
    assert_eq!(counter, 2);
    assert!(choices.is_empty());
}

#[test]
fn one_preemption_finds_the_lost_update() {
    let searched = search(&mut TWO.clone(), &Bounds { preemptions: 1, ..Bounds::default() }, |end| *end < 2);
    let (choices, counter) = searched.found.unwrap();
    assert_eq!((counter, choices.len()), (1, 1), "{choices:?}");
    assert_eq!(TWO.play(&mut Replay::new(choices)), 1, "and it replays");
}

#[test]
fn a_search_without_preemptions_is_complete_and_finds_nothing() {
    let bounds = Bounds { preemptions: 0, ..Bounds::default() };
    let searched = search(&mut TWO.clone(), &bounds, |end| *end < 2);
    assert!(searched.complete && searched.found.is_none());
    assert_eq!(searched.schedules, [2], "either strand first");
}

#[test]
fn a_search_makes_each_run_once_and_all_of_them() {
    let bounds = Bounds { preemptions: 4, ..Bounds::default() };
    let mut runs = Vec::new();
    let mut toy = Noted { toy: TWO, runs: &mut runs };
    let searched = search(&mut toy, &bounds, |_| false);
    assert!(searched.complete);
    let all = runs.len();
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), all, "none twice");
    // Two strands of two steps each: six orders, and each has been made.
    let mut orders: Vec<&Vec<u32>> = runs.iter().map(|(order, _)| order).collect();
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), 6, "{orders:?}");
}

/// Notes who was asked in which order, and what was answered.
struct Noted<'a> {
    toy: Toy,
    runs: &'a mut Vec<(Vec<u32>, Vec<bool>)>,
}

struct Note {
    policy: Box<dyn Chooser>,
    order: Vec<u32>,
    answers: Vec<bool>,
}

impl Chooser for Note {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        self.policy.choose(strand, point, n)
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.policy.slice(strand, retired)
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let next = self.policy.next_strand(strand, point, strands);
        self.answers.push(next != 0);
        next
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let yes = self.policy.give_way(strand, point, others);
        self.answers.push(yes);
        if !yes {
            self.order.push(strand);
        }
        yes
    }
}

impl Subject for Noted<'_> {
    type Outcome = u32;

    fn run(&mut self, policy: Box<dyn Chooser>) -> u32 {
        let mut note = Note { policy, order: Vec::new(), answers: Vec::new() };
        let counter = self.toy.play(&mut note);
        // Who goes on alone is not asked any more.
        let done = |strand| note.order.iter().filter(|step| **step == strand).count();
        let alone = if done(1) == 2 { 2 } else { 1 };
        let missing = 4 - note.order.len();
        note.order.extend(std::iter::repeat_n(alone, missing));
        self.runs.push((note.order, note.answers));
        counter
    }
}

#[test]
fn between_invisible_instructions_only_a_search_of_every_instruction_preempts() {
    let mut toy = Toy { visible: false, ..TWO };
    let visible = Bounds::default();
    assert!(search(&mut toy, &visible, |end| *end < 2).found.is_none());
    let every = Bounds { instructions: true, ..visible };
    let (choices, _) = search(&mut toy, &every, |end| *end < 2).found.unwrap();
    let all: Vec<Choice> = choices.iter().collect();
    assert!(matches!(all[..], [Choice::Preemption { strand: 1, retired: 1 }]), "{all:?}");
    assert_eq!(toy.play(&mut Replay::new(choices)), 1);
}

#[test]
fn a_search_ends_where_it_was_told_to() {
    let mut toy = Toy { strands: 3, rounds: 4, visible: true };
    let searched = search(&mut toy, &Bounds { schedules: 50, ..Bounds::default() }, |_| false);
    assert!(!searched.complete);
    assert_eq!(searched.total(), 50);
}

/// A toy whose steps are not known to be seen by others until so many runs have taught it.
struct Learning {
    toy: Toy,
    runs: u64,
    teaches_at: u64,
}

impl Subject for Learning {
    type Outcome = u32;

    fn run(&mut self, mut policy: Box<dyn Chooser>) -> u32 {
        self.runs += 1;
        self.toy.play(&mut *policy)
    }

    fn learn(&mut self) -> usize {
        let new = !self.toy.visible && self.runs >= self.teaches_at;
        self.toy.visible |= new;
        usize::from(new)
    }
}

#[test]
fn a_search_that_learns_of_more_places_begins_again_with_them() {
    let invisible = Toy { visible: false, ..TWO };
    let bounds = Bounds { preemptions: 1, ..Bounds::default() };
    let all = search(&mut TWO.clone(), &bounds, |_| false);
    let learning = |teaches_at| Learning { toy: invisible, runs: 0, teaches_at };
    let searched = search(&mut learning(1), &bounds, |_| false);
    assert_eq!((searched.schedules, searched.complete, searched.learned), (all.schedules, true, 1));
    assert_eq!(searched.repeated, 2, "those without a preemption");
    assert!(search(&mut learning(1), &bounds, |end| *end < 2).found.is_some());
    let unshared = search(&mut learning(1), &Bounds { shared: false, ..bounds }, |end| *end < 2);
    assert!(unshared.complete && unshared.found.is_none());
}

#[test]
fn random_and_pct_find_the_lost_update_and_every_run_replays() {
    let toy = Toy { strands: 3, rounds: 5, visible: true };
    let (mut random, mut pct) = (0, 0);
    for seed in 0..500 {
        let (counter, choices) = recorded(toy, Random::new(seed));
        assert_eq!(toy.play(&mut Replay::new(choices)), counter, "random:{seed}");
        random += u32::from(counter < 15);
        let (counter, choices) = recorded(toy, Pct::new(seed, 3, 30));
        assert_eq!(toy.play(&mut Replay::new(choices)), counter, "pct:{seed}");
        pct += u32::from(counter < 15);
    }
    assert!(random > 250 && pct > 50, "random {random}, pct {pct} of 500");
}

#[test]
fn a_seed_says_everything() {
    let toy = Toy { strands: 3, rounds: 20, visible: true };
    for seed in 0..20 {
        assert_eq!(recorded(toy, Random::new(seed)), recorded(toy, Random::new(seed)));
        assert_eq!(recorded(toy, Pct::new(seed, 4, 100)), recorded(toy, Pct::new(seed, 4, 100)));
    }
    assert_ne!(recorded(toy, Random::new(1)).1, recorded(toy, Random::new(2)).1);
}

#[test]
fn pct_without_change_points_follows_its_priorities_alone() {
    // Depth 1: the strand that is highest runs to its end.
    let toy = Toy { strands: 3, rounds: 5, visible: true };
    for seed in 0..100 {
        assert_eq!(recorded(toy, Pct::new(seed, 1, 30)).0, 15, "pct:{seed},1");
    }
}

#[test]
fn what_does_not_fit_is_said_by_name() {
    let wrong: Choices = ["choice 1 toy.visible 0 = 7", "choice 9 toy.nowhere 3 = 1", "preempt 2 after 4000"]
        .iter()
        .map(|line| line.parse::<Choice>().unwrap())
        .collect();
    let mut replay = Replay::new(wrong);
    assert_eq!(TWO.play(&mut replay.clone()), 2, "it gets the default");
    let told: Vec<String> = replay.complaints().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "`choice 1 toy.visible 0 = 7`: the question has only the answers 0 to 1",
            "`choice 9 toy.nowhere 3 = 1`: this question never came",
            "`preempt 2 after 4000`: this question never came",
        ]
    );
    assert!(matches!(replay.complaints()[0], Complaint::TooFewAnswers { n: 2, .. }));
    assert_eq!(replay.choose(1, Point("toy.new"), 3), 0, "what is not recorded is 0");
}

#[test]
fn a_choice_that_is_dropped_leaves_the_others_where_they_were() {
    let toy = Toy { strands: 2, rounds: 3, visible: true };
    let (_, choices) =
        (0..).map(|seed| recorded(toy, Random::new(seed))).find(|(_, all)| all.len() > 3).unwrap();
    for dropped in choices.iter() {
        let mut fewer = choices.clone();
        assert!(fewer.remove(&dropped));
        let kept: Vec<Choice> = fewer.iter().collect();
        assert!(choices.iter().filter(|choice| *choice != dropped).eq(kept), "the rest have their names");
        // It may not fit any more, and then says so; it never makes another choice than the recorded ones.
        let (_, made) = recorded(toy, Replay::new(fewer.clone()));
        assert!(made.iter().all(|choice| fewer.iter().any(|recorded| recorded == choice)));
    }
}
