//! In which order locks are acquired: an order that can end in a deadlock is a finding, though nothing waits for anything.
//! Follows *Deadlock Detection* and *Bug Check 0xC4* (1001).
//!
//! A step is a lock that is acquired while another is held. Steps that lead from a lock back to itself are an inversion if their flows of
//! control could all be there at once, each waiting for what the next holds. They could not if two of them hold the same lock, which is
//! the gate of their steps; nor where both ends of a lock share it.
//!
//! A step begins and ends with spin locks of one processor, or with locks of one thread: what holds a spin lock waits for no mutex. One who
//! does not wait, or not for ever, makes no step, but holds what it got. Locks are known by address, until their memory is freed or they
//! are initialised by a routine. *Not looked at*: locks on stacks and in contiguous memory, whose end is not noticed here, and what drivers make
//! of events and semaphores. Verifier knows fewer kinds of locks ([`LockKind`]): an order that it would not see is a warning.

use std::collections::{BTreeMap, BTreeSet};

use engine::windows::IMAGES;
use engine::{Flow, StrandId};

use super::levels::locks::Held;
use super::who_waits;
use crate::cx::{Cx, Kernel};
use crate::event::LockKind;
use crate::mm::space::Zone;
use crate::verdict::Verdict;

/// So many locks make the longest inversion that is looked for, and so many steps are tried for it.
const LONGEST: usize = 6;
const TRIES: usize = 2_000;
/// So many ways to go from one lock to another are kept: with different gates.
const WAYS: usize = 4;
/// So many pairs of locks are kept. A driver with more has a lock in each of its many objects.
const PAIRS: usize = 4_096;

/// A lock, how it is held, and since which moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hold {
    pub(crate) lock: u64,
    pub(crate) kind: LockKind,
    pub(crate) acquired: u64,
}

impl Hold {
    const fn is_shared(&self) -> bool {
        matches!(self.kind, LockKind::SharedSpin | LockKind::SharedPushLock | LockKind::SharedResource)
    }

    /// Whether two flows of control can hold this lock and that at once.
    const fn goes_with(&self, other: &Self) -> bool {
        self.lock != other.lock || (self.is_shared() && other.is_shared())
    }

    /// Whether Verifier's graph has it.
    const fn is_verifiers(&self) -> bool {
        matches!(self.kind, LockKind::Spin | LockKind::FastMutex | LockKind::Mutex)
    }

    fn of_spin_lock((lock, held): (u64, Held)) -> Self {
        Self { lock, kind: held.mode.kind(), acquired: held.taken }
    }
}

/// A lock that was acquired while others were held.
#[derive(Clone, Debug)]
struct Step {
    first: Hold,
    second: Hold,
    /// All that were held, `first` too.
    held: Vec<Hold>,
}

impl Step {
    /// Whether its flow of control and the other's can both be there at once.
    fn goes_with(&self, other: &Self) -> bool {
        self.held.iter().all(|held| other.held.iter().all(|its| held.goes_with(its)))
    }

    /// Whether it may happen wherever the other one does, and leads as far.
    fn covers(&self, other: &Self) -> bool {
        let has = |held: &Hold| {
            other.held.iter().any(|its| its.lock == held.lock && its.is_shared() <= held.is_shared())
        };
        self.second.is_shared() <= other.second.is_shared()
            && self.first.is_shared() <= other.first.is_shared()
            && self.held.iter().all(has)
    }
}

/// What is known of the order of locks.
#[derive(Default)]
pub(crate) struct State {
    /// Locks that threads hold, in the order in which they were acquired.
    owned: Vec<(StrandId, Hold)>,
    /// By first and second lock.
    steps: BTreeMap<(u64, u64), Vec<Step>>,
    /// All that are in `steps`.
    locks: BTreeSet<u64>,
}

impl State {
    /// Whether nothing of the kind is known of any lock.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// Whether something is known of a lock in `base..base+length`.
    pub(crate) fn knows_any_in(&self, base: u64, length: u64) -> bool {
        self.locks.range(base..base.saturating_add(length)).next().is_some()
    }

    /// The memory is freed, or what was there is initialised anew.
    pub(crate) fn forget(&mut self, base: u64, length: u64) {
        if self.knows_any_in(base, length) {
            let is_in = |lock: u64| lock.wrapping_sub(base) < length;
            self.steps.retain(|(first, second), _| !is_in(*first) && !is_in(*second));
            self.locks = self.steps.keys().flat_map(|(first, second)| [*first, *second]).collect();
            self.owned.retain(|(_, hold)| !is_in(hold.lock));
        }
    }

    /// The thread is gone.
    pub(crate) fn forget_thread(&mut self, strand: StrandId) {
        self.owned.retain(|(owner, _)| *owner != strand);
    }

    fn owned_by(&self, strand: StrandId) -> impl Iterator<Item = Hold> {
        self.owned.iter().filter(move |(owner, _)| *owner == strand).map(|(_, hold)| *hold)
    }

    /// The thread holds a lock from here on.
    fn own(&mut self, strand: StrandId, hold: Hold) {
        // One that none else can hold was held by others no longer: its memory is another lock's now.
        self.owned.retain(|(owner, other)| *owner == strand || hold.goes_with(other));
        self.owned.push((strand, hold));
    }

    /// It holds it once less.
    fn give(&mut self, strand: StrandId, lock: u64) {
        let is_it = |(owner, hold): &(StrandId, Hold)| *owner == strand && hold.lock == lock;
        if let Some(at) = self.owned.iter().rposition(is_it) {
            self.owned.remove(at);
        }
    }

    fn is_news(&self, step: &Step) -> bool {
        let known = self.steps.get(&(step.first.lock, step.second.lock));
        known.is_none_or(|ways| ways.len() < WAYS && !ways.iter().any(|way| way.covers(step)))
    }

    fn add(&mut self, step: Step) {
        if self.steps.len() >= PAIRS {
            self.steps.clear();
            self.locks.clear();
        }
        self.locks.extend([step.first.lock, step.second.lock]);
        let ways = self.steps.entry((step.first.lock, step.second.lock)).or_default();
        ways.retain(|way| !step.covers(way));
        ways.push(step);
    }

    /// The steps that lead from the end of `step` back to its beginning, if those of all can be made at once.
    fn way_back(&self, step: &Step) -> Option<Vec<Step>> {
        let mut tries = TRIES;
        let mut way = vec![step];
        self.search(&mut way, &mut tries).then(|| way.into_iter().skip(1).cloned().collect())
    }

    fn search<'a>(&'a self, way: &mut Vec<&'a Step>, tries: &mut usize) -> bool {
        let (start, end) = (way[0].first, way[way.len() - 1].second);
        for ((_, to), ways) in self.steps.range((end.lock, 0)..=(end.lock, u64::MAX)) {
            for next in ways {
                if *tries == 0 {
                    return false;
                }
                *tries -= 1;
                let waits = !end.goes_with(&next.first);
                if !waits || !way.iter().all(|step| step.goes_with(next)) {
                    continue;
                }
                let is_back = *to == start.lock;
                way.push(next);
                if is_back && !next.second.goes_with(&start) {
                    return true;
                }
                if !is_back && way.len() < LONGEST && self.search(way, tries) {
                    return true;
                }
                way.pop();
            }
        }
        false
    }
}

/// Whether the end of this memory is noticed here.
fn is_followed(lock: u64) -> bool {
    IMAGES.contains(lock) || matches!(Zone::of(lock), Some(Zone::NonPagedPool | Zone::PagedPool))
}

/// The current processor has acquired a spin lock while it held another.
///
/// # Errors
/// [`engine::Leave::Stop`] if Verifier stops for an inversion.
#[cold]
pub(crate) fn spin_lock_acquired(cx: &mut Cx<'_>, lock: u64) -> Flow<()> {
    let found = cx.with(|k| {
        let (here, strand) = (k.ke.processor().number, k.ke.processor().thread);
        let second = Hold::of_spin_lock((lock, k.ke.levels.locks().of_processor(lock, here)?));
        let held = k.ke.levels.locks().of(here).map(Hold::of_spin_lock);
        let firsts: Vec<_> = held.filter(|hold| hold.lock != lock).collect();
        let gates: Vec<_> = firsts.iter().copied().chain(k.ke.lock_order.owned_by(strand)).collect();
        note(k, second, &firsts, &gates)
    });
    tell(cx, found)
}

/// The current thread has acquired a lock of a thread's; `waits`: had it not been free, the thread would have waited for ever.
///
/// # Errors
/// As [`spin_lock_acquired`].
pub(crate) fn acquired(cx: &mut Cx<'_>, hold: Hold, waits: bool) -> Flow<()> {
    let found = cx.with(|k| {
        let strand = k.ke.processor().thread;
        let is_step = waits && k.ke.lock_order.owned.iter().any(|(owner, _)| *owner == strand);
        let found = if is_step { note_owned(k, strand, hold) } else { None };
        k.ke.lock_order.own(strand, hold);
        found
    });
    tell(cx, found)
}

#[cold]
fn note_owned(k: &mut Kernel, strand: StrandId, hold: Hold) -> Option<Vec<Step>> {
    let held: Vec<_> = k.ke.lock_order.owned_by(strand).collect();
    // What it owns already it does not wait for.
    let is_first = held.iter().all(|other| other.lock != hold.lock);
    is_first.then(|| note(k, hold, &held, &held)).flatten()
}

/// The current thread has released a lock of a thread's.
pub(crate) fn released(cx: &mut Cx<'_>, lock: u64) {
    cx.with(|k| {
        let strand = k.ke.processor().thread;
        k.ke.lock_order.give(strand, lock);
    });
}

/// A lock of the thread with this object was released, by any thread; none: it is no thread's any longer.
pub(crate) fn released_of(cx: &mut Cx<'_>, lock: u64, thread: u64) {
    cx.with(|k| {
        if let Some(strand) = k.ke.thread_of(thread).map(|thread| thread.strand) {
            k.ke.lock_order.give(strand, lock);
        }
    });
}

/// Keeps what is new of the steps to `second`; the first inversion among them, the new step before the others.
fn note(k: &mut Kernel, second: Hold, firsts: &[Hold], held: &[Hold]) -> Option<Vec<Step>> {
    let order = &mut k.ke.lock_order;
    let mut found = None;
    for &first in firsts {
        let step = Step { first, second, held: held.to_vec() };
        let is_followed = is_followed(first.lock) && is_followed(second.lock);
        if !is_followed || !order.is_news(&step) {
            continue;
        }
        if found.is_none() {
            found = order.way_back(&step).map(|back| [vec![step.clone()], back].concat());
        }
        order.add(step);
    }
    found
}

fn tell(cx: &mut Cx<'_>, found: Option<Vec<Step>>) -> Flow<()> {
    match found {
        None => Ok(()),
        Some(steps) => inversion(cx, &steps),
    }
}

/// Says that the first of the steps, which is made now, inverts the order of the others.
#[cold]
fn inversion(cx: &mut Cx<'_>, steps: &[Step]) -> Flow<()> {
    let name =
        |k: &Kernel, hold: Hold| format!("{} {}", hold.kind.name(), who_waits::whereabouts(k, hold.lock));
    let names: Vec<_> =
        cx.with(|k| steps.iter().map(|step| (name(k, step.first), name(k, step.second))).collect());
    let (first, second) = &names[0];
    let elsewhere: Vec<_> =
        names[1..].iter().map(|(first, second)| format!("{second} while {first} is held")).collect();
    let message = format!(
        "{second} is acquired while {first} is held, and elsewhere {}: flows of control that do so at the same time wait for one another for ever",
        elsewhere.join(", ")
    );
    let verdict =
        Verdict::verifier("lock-order-inversion", message).related("acquired first", steps[0].first.acquired);
    let verdict = steps[1..].iter().fold(verdict, |verdict, step| {
        let verdict = verdict.related("elsewhere acquired first", step.first.acquired);
        verdict.related("elsewhere acquired second", step.second.acquired)
    });
    if steps.iter().all(|step| step.first.is_verifiers() && step.second.is_verifiers()) {
        return cx.verify(verdict.bug_check(0xC4, [0x1001, steps[0].second.lock, 0, 0]));
    }
    cx.report(verdict.as_warning());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(lock: u64, kind: LockKind) -> Hold {
        Hold { lock, kind, acquired: 0 }
    }

    fn step(held: &[Hold], second: Hold) -> Step {
        Step { first: held[0], second, held: held.to_vec() }
    }

    /// Takes the steps one after another; whether the last one inverts an order.
    fn inverts(steps: &[Step]) -> bool {
        let mut state = State::default();
        let found = steps.iter().map(|step| {
            let found = state.way_back(step).is_some();
            state.add(step.clone());
            found
        });
        let found: Vec<_> = found.collect();
        assert!(!found[..found.len() - 1].contains(&true), "too early");
        found.last() == Some(&true)
    }

    const SPIN: LockKind = LockKind::Spin;

    #[test]
    fn two_locks_and_three_that_come_back_to_the_first_are_inversions() {
        let [a, b, c] = [1, 2, 3].map(|lock| hold(lock, SPIN));
        assert!(inverts(&[step(&[a], b), step(&[b], a)]));
        assert!(inverts(&[step(&[a], b), step(&[b], c), step(&[c], a)]));
        assert!(!inverts(&[step(&[a], b), step(&[b], c), step(&[a], c)]));
    }

    #[test]
    fn a_lock_that_both_orders_are_under_keeps_them_apart() {
        let [a, b, gate] = [1, 2, 3].map(|lock| hold(lock, SPIN));
        assert!(!inverts(&[step(&[a, gate], b), step(&[b, gate], a)]));
        assert!(inverts(&[step(&[a, gate], b), step(&[b], a)]));
        let shared = hold(3, LockKind::SharedResource);
        assert!(inverts(&[step(&[a, shared], b), step(&[b, shared], a)]));
    }

    #[test]
    fn those_that_only_share_do_not_wait_for_one_another() {
        let [a, b] = [1, 2].map(|lock| hold(lock, LockKind::SharedResource));
        let alone = hold(2, LockKind::Resource);
        assert!(!inverts(&[step(&[a], b), step(&[b], a)]));
        assert!(!inverts(&[step(&[a], alone), step(&[alone], a)]), "the first one is shared both times");
        let first = hold(1, LockKind::Resource);
        assert!(inverts(&[step(&[a], b), step(&[alone], first)]));
    }

    #[test]
    fn a_lock_whose_memory_was_freed_is_another_one() {
        let [a, b] = [0x1000, 0x2000].map(|lock| hold(lock, SPIN));
        let mut state = State::default();
        state.add(step(&[a], b));
        assert!(state.way_back(&step(&[b], a)).is_some());
        state.forget(0x1F00, 0x100);
        assert!(state.way_back(&step(&[b], a)).is_some());
        state.forget(0x1F00, 0x101);
        assert!(state.way_back(&step(&[b], a)).is_none() && !state.knows_any_in(0, u64::MAX));
    }
}
