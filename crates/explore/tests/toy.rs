//! Policies on a toy: strands that take a shared counter, are visible in between, and put it back one higher.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use engine::Question;
use explore::{
    Bounds, Choice, Choices, Chooser, Complaint, Defaults, Local, Pct, Places, Point, Policy, Questions, Ran,
    Random, Recorder, Remark, Replay, Runner, SLICE_END, Schedule, Searched, Subject, Subtree, make_part,
    search, search_by,
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
        policy.script_begins();
        self.play(&mut *policy)
    }
}

const TWO: Toy = Toy { strands: 2, rounds: 1, visible: true };

fn recorded(toy: Toy, policy: impl Chooser + 'static) -> (u32, Choices) {
    let choices = Rc::new(RefCell::new(Choices::default()));
    let log = Rc::clone(&choices);
    let mut recorder = Recorder::new(Box::new(policy), move |choice| {
        assert!(log.borrow_mut().insert(choice), "no choice is recorded twice");
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

/// A toy whose steps are not known to be seen by others until a run teaches it, in which strands follow each other so.
#[derive(Clone)]
struct Learning {
    toy: Toy,
    teaches: fn(&[u32]) -> bool,
    learned: Places,
}

impl Learning {
    fn new(toy: Toy, teaches: fn(&[u32]) -> bool) -> Self {
        Self { toy: Toy { visible: false, ..toy }, teaches, learned: Places::default() }
    }
}

impl Subject for Learning {
    type Outcome = u32;

    fn run(&mut self, policy: Box<dyn Chooser>) -> u32 {
        let mut followed = Following { policy, order: Vec::new() };
        let end = self.toy.play(&mut followed);
        if (self.teaches)(&followed.order) {
            self.learned = [PLACE].into_iter().collect();
        }
        end
    }

    fn learned(&mut self) -> Places {
        self.learned.clone()
    }

    fn watch(&mut self, places: &Places) {
        self.toy.visible = places.iter().any(|place| place == PLACE);
    }
}

const PLACE: u64 = 0x1000;

/// Notes who follows whom.
struct Following {
    policy: Box<dyn Chooser>,
    order: Vec<u32>,
}

impl Chooser for Following {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        self.policy.choose(strand, point, n)
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.policy.slice(strand, retired)
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let next = self.policy.next_strand(strand, point, strands);
        self.order.push(strands[next as usize]);
        next
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        self.policy.give_way(strand, point, others)
    }
}

#[test]
fn a_search_that_learns_of_more_places_begins_again_with_them() {
    let bounds = Bounds { preemptions: 1, ..Bounds::default() };
    let all = search(&mut TWO.clone(), &bounds, |_| false);
    let learning = || Learning::new(TWO, |order| order[0] == 2);
    let searched = search(&mut learning(), &bounds, |_| false);
    assert_eq!((searched.schedules, searched.complete, searched.learned), (all.schedules, true, 1));
    assert_eq!(searched.repeated, 2, "those without a preemption");
    assert!(search(&mut learning(), &bounds, |end| *end < 2).found.is_some());
    let unshared = search(&mut learning(), &Bounds { shared: false, ..bounds }, |end| *end < 2);
    assert!(unshared.complete && unshared.found.is_none());
}

#[test]
fn what_runs_teach_is_taken_up_by_all_wherever_it_was_learned() {
    // Of the 720 orders, which are several subtrees, the last one teaches; and then all go another way.
    let toy = Toy { strands: 6, rounds: 1, visible: false };
    let subject = || Learning::new(toy, |order| order.starts_with(&[6, 5, 4, 3, 2]));
    let lost: fn(&u32) -> bool = |end| *end < 4;
    let never: fn(&u32) -> bool = |_| false;
    for (wanted, schedules) in
        [lost, never].into_iter().flat_map(|w| [719, 720, 721, 1000, 3000].map(|n| (w, n)))
    {
        let bounds = Bounds { preemptions: 2, schedules, ..Bounds::default() };
        let here = search(&mut subject(), &bounds, wanted);
        let (elsewhere, _) = Elsewhere::search(subject(), bounds, wanted, |_| false);
        assert_eq!(here, elsewhere, "{bounds:?}");
        let learned = (here.repeated, here.learned);
        assert_eq!(learned, if schedules < 720 { (0, 0) } else { (720, 1) });
        assert!(
            here.total() == schedules && here.found.is_none() || schedules > 1440 && here.found.is_some()
        );
    }
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
    let lines: Vec<String> = replay.complaints().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
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

/// Makes subtrees elsewhere, the last first, and knows of them only what is said in a line; dies of some schedules.
struct Elsewhere<S> {
    subject: S,
    bounds: Bounds,
    wanted: fn(&u32) -> bool,
    deadly: fn(&Schedule) -> bool,
    made: Vec<Vec<Made>>,
    said: Vec<(Remark, Choices)>,
    runs: u64,
}

impl<S: Subject<Outcome = u32> + Clone> Elsewhere<S> {
    fn make(&mut self, mut subtree: Subtree) -> Vec<Made> {
        let mut all = Vec::new();
        while subtree.schedule().is_some() {
            let mut subject = self.subject.clone();
            let mut here =
                Mortal { local: Local::new(&mut subject, self.bounds, self.wanted), deadly: self.deadly };
            let mut lines = Vec::new();
            make_part(subtree.to_string().parse().unwrap(), &mut here, |ran, said| {
                lines.push((ran.clone(), said));
            });
            for (ran, said) in lines {
                self.runs += 1;
                match &ran {
                    Ran::Usual(questions, _) => {
                        let questions: Questions = questions.to_string().parse().unwrap();
                        subtree.made(&questions);
                    }
                    Ran::Lost(_) => drop(subtree.pass()),
                    Ran::Wanted(..) | Ran::Refused => {
                        all.push((ran, said));
                        return all;
                    }
                }
                all.push((ran, said));
            }
        }
        all
    }

    fn search(subject: S, bounds: Bounds, wanted: fn(&u32) -> bool, deadly: fn(&Schedule) -> bool) -> Done {
        let mut elsewhere =
            Self { subject, bounds, wanted, deadly, made: Vec::new(), said: Vec::new(), runs: 0 };
        let searched = search_by(&mut elsewhere, &bounds);
        (searched, elsewhere.runs)
    }
}

/// What came of a run, and what it has said.
type Made = (Ran<u32>, Vec<(Remark, Choices)>);

/// What a search has come to, and how many runs were made for it.
type Done = (Searched<u32>, u64);

impl<S: Subject<Outcome = u32> + Clone> Runner for Elsewhere<S> {
    type Outcome = u32;

    fn begin(&mut self, subtrees: &[Subtree]) {
        let mut made: Vec<_> = subtrees.iter().rev().map(|subtree| self.make(subtree.clone())).collect();
        made.reverse();
        made.iter_mut().for_each(|subtree| subtree.reverse());
        self.made = made;
    }

    fn run(&mut self, subtree: usize, _schedule: &Schedule) -> Ran<u32> {
        let (ran, said) = self.made[subtree].pop().expect("a subtree has all its runs");
        self.said = said;
        ran
    }

    fn remarks(&mut self) -> Vec<(Remark, Choices)> {
        std::mem::take(&mut self.said)
    }
}

struct Mortal<'t, S> {
    local: Local<'t, S, fn(&u32) -> bool>,
    deadly: fn(&Schedule) -> bool,
}

impl<S: Subject<Outcome = u32>> Runner for Mortal<'_, S> {
    type Outcome = u32;

    fn begin(&mut self, subtrees: &[Subtree]) {
        self.local.begin(subtrees);
    }

    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<u32> {
        if (self.deadly)(schedule) { Ran::Lost("dead".to_owned()) } else { self.local.run(subtree, schedule) }
    }

    fn remarks(&mut self) -> Vec<(Remark, Choices)> {
        self.local.remarks()
    }
}

/// Says of each run that has lost something how much.
#[derive(Clone)]
struct Remarking {
    toy: Toy,
    said: BTreeSet<u32>,
}

impl Subject for Remarking {
    type Outcome = u32;

    fn run(&mut self, policy: Box<dyn Chooser>) -> u32 {
        self.toy.run(policy)
    }

    fn remarks(&mut self, end: &u32) -> Vec<Remark> {
        let text = || format!("{end} of 6");
        let remark = |lost| Remark { key: format!("-{lost}"), text: self.said.insert(*end).then(text) };
        6_u32.checked_sub(*end).filter(|lost| *lost > 0).map(remark).into_iter().collect()
    }
}

#[test]
fn what_runs_say_besides_is_counted_and_told_with_the_first_wherever_they_are_made() {
    let subject = Remarking { toy: Toy { strands: 3, rounds: 2, visible: true }, said: BTreeSet::new() };
    let worst: fn(&u32) -> bool = |end| *end < 3;
    for (wanted, schedules) in [(worst, 5000), (|_: &u32| false, 5000), (|_: &u32| false, 300)] {
        let bounds = Bounds { preemptions: 3, schedules, ..Bounds::default() };
        let here = search(&mut subject.clone(), &bounds, wanted);
        let (elsewhere, _) = Elsewhere::search(subject.clone(), bounds, wanted, |_| false);
        assert_eq!(here, elsewhere, "{bounds:?}");
        assert!(here.remarks.len() > 1 && here.remarks.iter().all(|remark| remark.runs > 0));
        for remark in here.remarks.iter() {
            let (mut toy, replay) = (subject.toy, Replay::new(remark.first.clone()));
            assert_eq!(format!("{} of 6", toy.run(Box::new(replay))), remark.text, "it is made again");
        }
    }
}

#[test]
fn a_search_whose_parts_are_made_elsewhere_is_the_same_search() {
    let toy = Toy { strands: 3, rounds: 2, visible: true };
    let lost: fn(&u32) -> bool = |end| *end < 6;
    let worst: fn(&u32) -> bool = |end| *end < 3;
    let never: fn(&u32) -> bool = |_| false;
    let policies = [None, Some(Policy::random(3)), Some(Policy::pct(1, 3, 30))];
    for (wanted, schedules, policy) in [lost, worst, never]
        .into_iter()
        .flat_map(|wanted| [1, 7, 400, 5000].map(|schedules| (wanted, schedules)))
        .flat_map(|(wanted, schedules)| policies.map(|policy| (wanted, schedules, policy)))
    {
        let bounds = Bounds { preemptions: 3, schedules, policy, ..Bounds::default() };
        let here = search(&mut toy.clone(), &bounds, wanted);
        let (elsewhere, _) = Elsewhere::search(toy, bounds, wanted, |_| false);
        assert_eq!(here, elsewhere, "{bounds:?}");
        assert!(here.total() <= schedules);
        assert!(here.found.is_some() || here.total() == schedules || here.complete, "{bounds:?}");
    }
}

#[test]
fn what_is_below_a_deadly_run_is_not_searched_and_all_else_is() {
    let bounds = Bounds { preemptions: 2, ..Bounds::default() };
    let whole = search(&mut TWO.clone(), &bounds, |_| false);
    // The first strand gives way at once: that run, and the three that begin so.
    let deadly: fn(&Schedule) -> bool = |schedule| schedule.to_string().starts_with("1=1");
    let (cut, runs) = Elsewhere::search(TWO, bounds, |_| false, deadly);
    let lost: Vec<String> = cut.lost.iter().map(|lost| lost.schedule.to_string()).collect();
    assert_eq!(lost, ["1=1"], "what is below it is not tried");
    assert!(!cut.complete && whole.complete);
    assert_eq!(runs, cut.total() + 1);
    let mut below = 0;
    let mut toy = TWO;
    let local = Local::new(&mut toy, bounds, |_: &u32| false);
    assert_eq!(search_by(&mut Counting { local, below: &mut below }, &bounds), whole);
    assert!(below > 1);
    assert_eq!(cut.total() + below, whole.total());
}

/// Counts the runs that begin like the deadly one.
struct Counting<'c, R> {
    local: R,
    below: &'c mut u64,
}

impl<R: Runner> Runner for Counting<'_, R> {
    type Outcome = R::Outcome;

    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<R::Outcome> {
        *self.below += u64::from(schedule.to_string().starts_with("1=1"));
        self.local.run(subtree, schedule)
    }
}

#[test]
fn a_search_by_seeds_finds_the_first_seed_and_counts_those_before() {
    let toy = Toy { strands: 3, rounds: 5, visible: true };
    let first = (0..).find(|n| recorded(toy, Random::new(40 + n)).0 < 9).unwrap();
    let bounds = Bounds { policy: Some(Policy::random(40)), schedules: 10_000, ..Bounds::default() };
    let searched = search(&mut toy.clone(), &bounds, |end| *end < 9);
    assert_eq!(searched.schedules, [first + 1]);
    let (choices, counter) = searched.found.unwrap();
    assert_eq!(toy.play(&mut Replay::new(choices)), counter);
    let all = search(&mut toy.clone(), &Bounds { schedules: first, ..bounds }, |end| *end < 9);
    assert!(all.complete && all.found.is_none() && all.total() == first);
}

/// The toy, whose runs can begin behind a question: what was answered before it is answered so again, without a policy.
struct Standing {
    toy: Toy,
    given: Vec<u64>,
    stood: u32,
}

/// Answers until it is where it was to go, and remembers what.
struct Until<'h> {
    policy: Box<dyn Chooser>,
    here: &'h mut dyn FnMut(&Question) -> bool,
    given: Vec<u64>,
    there: bool,
}

impl Until<'_> {
    fn answered(&mut self, question: &Question, answer: impl FnOnce(&mut dyn Chooser) -> u64) -> u64 {
        self.there = self.there || (self.here)(question);
        if self.there {
            return u64::from(matches!(question, Question::Slice { .. })); // whatever: this is no run
        }
        let answer = answer(&mut *self.policy);
        self.given.push(answer);
        answer
    }
}

impl Chooser for Until<'_> {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        let question = Question::Choice { strand, point, n };
        self.answered(&question, |policy| policy.choose(strand, point, n).into()).try_into().unwrap()
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.answered(&Question::Slice { strand, retired }, |policy| policy.slice(strand, retired))
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let question = Question::NextStrand { strand, point, n: strands.len().try_into().unwrap() };
        let answer = self.answered(&question, |policy| policy.next_strand(strand, point, strands).into());
        answer.try_into().unwrap()
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let question = Question::GiveWay { strand, point };
        self.answered(&question, |policy| policy.give_way(strand, point, others).into()) == 1
    }
}

/// Gives the answers that were given, and then a policy's.
struct Behind {
    given: std::vec::IntoIter<u64>,
    policy: Box<dyn Chooser>,
}

impl Chooser for Behind {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        let given = self.given.next().map(|answer| answer.try_into().unwrap());
        given.unwrap_or_else(|| self.policy.choose(strand, point, n))
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.given.next().unwrap_or_else(|| self.policy.slice(strand, retired))
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let given = self.given.next().map(|answer| answer.try_into().unwrap());
        given.unwrap_or_else(|| self.policy.next_strand(strand, point, strands))
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let given = self.given.next().map(|answer| answer == 1);
        given.unwrap_or_else(|| self.policy.give_way(strand, point, others))
    }
}

impl Subject for Standing {
    type Outcome = u32;

    fn run(&mut self, policy: Box<dyn Chooser>) -> u32 {
        self.toy.play(&mut Behind { given: self.given.clone().into_iter(), policy })
    }

    fn begin_at(&mut self, policy: Box<dyn Chooser>, here: &mut dyn FnMut(&Question) -> bool) -> bool {
        let mut until = Until { policy, here, given: Vec::new(), there: false };
        self.toy.play(&mut until);
        self.given = if until.there { until.given } else { Vec::new() };
        self.stood += u32::from(until.there);
        until.there
    }

    fn begin_anew(&mut self) {
        self.given.clear();
    }
}

#[test]
fn runs_that_begin_behind_what_they_have_in_common_are_the_same_runs() {
    for (visible, instructions) in [(true, false), (false, true), (true, true)] {
        let toy = Toy { strands: 3, rounds: 3, visible };
        let bounds = Bounds { preemptions: 2, instructions, ..Bounds::default() };
        for wanted in [|_: &u32| false, |end: &u32| *end < 9, |end: &u32| *end < 6] {
            let whole = search(&mut toy.clone(), &bounds, wanted);
            let mut standing = Standing { toy, given: Vec::new(), stood: 0 };
            assert_eq!(search(&mut standing, &bounds, wanted), whole, "{bounds:?}");
            assert!(standing.stood > 0 || whole.total() < 20);
        }
    }
}
