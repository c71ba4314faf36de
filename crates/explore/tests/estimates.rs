//! What a search expects to be left, on trees whose size is known.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod trees;

use explore::{Bounds, Local, NotTried, Ran, Runner, Schedule, SoFar, Subtree, search_by};
use trees::{Ask, Tree};

/// Makes runs, and notes what is left behind each.
struct Noting<'n, R> {
    runner: R,
    notes: &'n mut Vec<NotTried>,
}

impl<R: Runner> Runner for Noting<'_, R> {
    type Outcome = R::Outcome;

    fn begin(&mut self, subtrees: &[Subtree]) {
        self.runner.begin(subtrees);
    }

    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<R::Outcome> {
        self.runner.run(subtree, schedule)
    }

    fn came_to(&mut self, so_far: &dyn Fn() -> SoFar) {
        self.notes.push(so_far().not_tried);
    }
}

type Asks = fn(&[u32], bool) -> Option<Ask>;

/// Behind each run of a search, how many are left, and what it knew and expected of that.
fn moments(ask: Asks, preemptions: usize) -> Vec<(u64, NotTried)> {
    let bounds = Bounds { preemptions, schedules: u64::MAX, ..Bounds::default() };
    let (mut tree, mut notes) = (Tree::new(ask, |_| false), Vec::new());
    let runner = Local::new(&mut tree, bounds, |_: &Vec<u32>| false);
    let searched = search_by(&mut Noting { runner, notes: &mut notes }, &bounds);
    assert!(searched.complete);
    (1..).map(|made| searched.total() - made).zip(notes).collect()
}

/// No answer changes what is asked behind it.
fn uniform(answers: &[u32], _: bool) -> Option<Ask> {
    match answers.len() {
        2 | 9 => Some(Ask::Free(3)),
        0..20 => Some(Ask::Counts(2 + u32::from(answers.len() == 5))),
        _ => None,
    }
}

/// Each departure takes away a part of what is left, the early ones more.
fn shrinking(answers: &[u32], _: bool) -> Option<Ask> {
    let gone: usize =
        answers.iter().zip(0..).filter(|(answer, _)| **answer > 0).map(|(_, at)| 6 - at / 6).sum();
    (answers.len() + gone < 30).then_some(if answers.len() % 9 == 4 { Ask::Free(2) } else { Ask::Counts(2) })
}

/// Each departure adds to what is left.
fn growing(answers: &[u32], _: bool) -> Option<Ask> {
    let departed = answers.iter().filter(|answer| **answer > 0).count();
    (answers.len() < 14 + 4 * departed).then_some(Ask::Counts(2))
}

/// Only behind one departure there is much.
fn lopsided(answers: &[u32], _: bool) -> Option<Ask> {
    let long = answers.get(3) == Some(&1);
    (answers.len() < if long { 60 } else { 12 }).then_some(Ask::Counts(2))
}

/// Three strands of four steps: before each the strand is asked whether another goes first, and where one is over, who is next is free.
fn strands(answers: &[u32], _: bool) -> Option<Ask> {
    let (mut left, mut current, mut answers) = ([4_u32; 3], None, answers.iter());
    loop {
        let ready: Vec<usize> = (0..3).filter(|strand| left[*strand] > 0).collect();
        let me = match current {
            _ if ready.is_empty() => return None,
            Some(me) if left[me] > 0 => me,
            _ if ready.len() == 1 => ready[0],
            _ => match answers.next() {
                None => return Some(Ask::Free(u32::try_from(ready.len()).unwrap())),
                Some(answer) => ready[*answer as usize],
            },
        };
        current = Some(me);
        let others: Vec<usize> = ready.into_iter().filter(|other| *other != me).collect();
        if !others.is_empty() {
            let Some(answer) = answers.next() else { return Some(Ask::Counts(2)) };
            if *answer == 1 {
                let next = match (others.len(), answers.len()) {
                    (1, _) => 0,
                    (_, 0) => return Some(Ask::Free(2)),
                    _ => *answers.next().unwrap() as usize,
                };
                current = Some(others[next]);
                left[others[next]] -= 1;
                continue;
            }
        }
        left[me] -= 1;
    }
}

/// Of all moments behind the sixteenth run, and behind a sixteenth of all, in how many of a hundred as many schedules are left as is expected, or at most
/// twice as many, or at least half as many.
fn within_twice(moments: &[(u64, NotTried)]) -> usize {
    let from = (moments.len() / 16).max(17);
    let later = &moments[from..moments.len() - 1];
    let is_within = |(left, not_tried): &&(u64, NotTried)| {
        let about: u64 = not_tried.estimated.as_ref().unwrap().iter().sum();
        (left.div_ceil(2)..=left * 2).contains(&about)
    };
    100 * later.iter().filter(is_within).count() / later.len()
}

#[test]
fn what_is_known_is_less_than_what_is_left_and_what_is_expected_is_near_it() {
    let trees: [(&str, Asks); 5] = [
        ("uniform", uniform),
        ("shrinking", shrinking),
        ("growing", growing),
        ("lopsided", lopsided),
        ("strands", strands),
    ];
    for ((name, ask), preemptions) in trees.into_iter().flat_map(|tree| [1, 2, 3].map(|n| (tree, n))) {
        let moments = moments(ask, preemptions);
        for (left, NotTried { known, estimated, .. }) in &moments {
            let known_in_all = known.iter().sum::<u64>();
            assert!(known_in_all <= *left, "{name}: {known_in_all} of {left}");
            let of_each = estimated.iter().flat_map(|all| all.iter().zip(known));
            assert!(of_each.into_iter().all(|(about, known)| about >= known), "{name}");
        }
        let at_the_end = moments.last().map(|(_, it)| (it.is_any(), it.estimated.clone()));
        assert_eq!(at_the_end, Some((false, Some(vec![0; preemptions + 1]))), "{name}");
        if moments.len() > 20 {
            let near = within_twice(&moments);
            assert!(near >= 95, "{name}, {preemptions} preemptions: {near} of a hundred");
        }
    }
}

#[test]
fn where_no_answer_changes_what_is_asked_the_number_is_exact_from_the_seventeenth_run_on() {
    let moments = moments(uniform, 3);
    assert!(moments[..16].iter().all(|(_, it)| it.estimated.is_none()), "too few runs to say");
    for (left, not_tried) in &moments[16..] {
        assert_eq!(not_tried.estimated.as_ref().unwrap().iter().sum::<u64>(), *left);
    }
}
