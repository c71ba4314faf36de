//! What is due when: timers that are set, time-outs of waits, DPC queues that wait for a tick, and the outside world's alarms.
//! Follows *Timer Accuracy*, *High-Resolution Timers*.
//!
//! Everything costs O(log n) of what is set on all processors together. What happens when something is due is `timer`'s.

use std::collections::{BTreeMap, BTreeSet};

use engine::StrandId;

use super::clock::Clock;
use super::time::{self, Due};

/// How a timer is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setting {
    /// When it is due next, without what its tolerance allows.
    pub(crate) due: Due,
    /// Units of 100 ns from one expiration to the next, or 0.
    pub(crate) period: u64,
    /// By how many units it may come late.
    pub(crate) tolerance: u64,
    /// The clock ticks at its finest for it.
    pub(crate) fine: bool,
    /// The moment when a driver set it.
    pub(crate) set: u64,
}

/// What has become due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expired {
    /// A timer object, and how it was set.
    Timer(u64, Setting),
    /// A wait of this thread.
    Timeout(StrandId),
    /// DPCs that have waited for a tick.
    Dpcs,
}

/// What becomes due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Timer(u64),
    Timeout(StrandId),
    Dpcs(usize),
}

/// Interrupt time in units of 100 ns, then the order of setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key(u64, u64);

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        #[cfg(test)]
        tests::count();
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Where something stands in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    key: Key,
    fine: bool,
}

/// How a wait with a time limit is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ke) struct Limit {
    /// When it ends.
    pub(in crate::ke) due: Due,
    /// Its thread comes back so often: a processor may be held up until then, as until a timer.
    pub(in crate::ke) polls: bool,
}

/// What is found by ticks of one resolution.
#[derive(Default)]
struct Wheel {
    due: BTreeMap<Key, (What, usize)>,
    by_processor: BTreeSet<(usize, Key)>,
}

impl Wheel {
    fn add(&mut self, key: Key, what: What, processor: usize) {
        self.due.insert(key, (what, processor));
        self.by_processor.insert((processor, key));
    }

    fn remove(&mut self, key: Key) -> Option<What> {
        let (what, processor) = self.due.remove(&key)?;
        self.by_processor.remove(&(processor, key));
        Some(what)
    }

    fn move_to(&mut self, key: Key, processor: usize) {
        if let Some((_, of)) = self.due.get_mut(&key) {
            self.by_processor.remove(&(*of, key));
            self.by_processor.insert((processor, key));
            *of = processor;
        }
    }

    fn first(&self) -> Option<u64> {
        self.due.first_key_value().map(|(key, _)| key.0)
    }

    /// The next thing due on `processor` at interrupt time `now`.
    fn next(&self, now: u64, processor: usize) -> Option<Key> {
        let all = (processor, Key(0, 0))..=(processor, Key(now, u64::MAX));
        self.by_processor.range(all).next().map(|(_, key)| *key)
    }

    /// When the first is due after `now`.
    fn after(&self, now: u64) -> Option<u64> {
        self.due.range(Key(now + 1, 0)..).next().map(|(key, _)| key.0)
    }
}

/// Later than any time.
const NEVER: u64 = u64::MAX;
/// What is due in nearly three hundred years, as where a driver waits for -2^63 units, does not come.
const FOREVER: u64 = u64::MAX / 2;

/// All timers that are set and all time-outs of waits, by due time.
pub(crate) struct TimerQueue {
    /// Who finds them.
    pub(crate) clock: Clock,
    /// For the clock as it ticks, and for its finest resolution.
    wheels: [Wheel; 2],
    timers: BTreeMap<u64, (Place, Setting)>,
    timeouts: BTreeMap<StrandId, (Place, Limit)>,
    /// How many of them poll.
    polls: usize,
    drains: BTreeMap<usize, Place>,
    /// Threads of the outside world by when they wake, in nanoseconds: exact, whatever the clock's ticks.
    alarms: BTreeMap<(u64, u64), StrandId>,
    sequence: u64,
    /// When the clock finds the first of all, in nanoseconds; `NEVER` if there is none.
    next_tick: u64,
    /// When the first of `alarms` rings, or `patience` looks; `NEVER` if neither does.
    next_alarm: u64,
    /// When `patience` looks, in nanoseconds: that cannot end a wait.
    watch: u64,
}

impl Default for TimerQueue {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            wheels: Default::default(),
            timers: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            polls: 0,
            drains: BTreeMap::new(),
            alarms: BTreeMap::new(),
            sequence: 0,
            next_tick: NEVER,
            next_alarm: NEVER,
            watch: NEVER,
        }
    }
}

impl TimerQueue {
    /// After every change of what is due, of `alarms` or of the clock.
    fn look_ahead(&mut self) {
        let found = |fine: bool| {
            let first = self.wheels[usize::from(fine)].first();
            first.map(|due| self.clock.found(due, fine)).filter(|time| *time < FOREVER).unwrap_or(NEVER)
        };
        self.next_tick = found(false).min(found(true));
        self.next_alarm = self.alarms.first_key_value().map_or(NEVER, |((time, _), _)| *time).min(self.watch);
    }

    /// `patience` looks at this time, and not at any that it said before; `u64::MAX`: at none.
    pub(crate) fn watch(&mut self, time: u64) {
        self.watch = time;
        self.look_ahead();
    }

    /// That time.
    pub(crate) const fn watched(&self) -> u64 {
        self.watch
    }

    /// Whether that time has come.
    pub(in crate::ke) fn watch_is_over(&self, now: u64) -> bool {
        self.watch <= now
    }

    /// Whether a thread of the outside world sleeps.
    pub(in crate::ke) fn has_alarms(&self) -> bool {
        !self.alarms.is_empty()
    }

    /// How many things have been set since boot.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When the last of all is found due that is not periodic and was among the first so many that were set, in nanoseconds.
    pub(in crate::ke) fn last_single(&self, sequence: u64) -> Option<u64> {
        let timers = self.timers.values().filter(|(_, setting)| setting.period == 0).map(|(place, _)| place);
        let all = timers.chain(self.timeouts.values().map(|(place, _)| place));
        let all = all.filter(|place| place.key.1 <= sequence);
        all.map(|place| self.clock.found(place.key.0, place.fine)).filter(|time| *time < FOREVER).max()
    }

    fn add(&mut self, due: u64, what: What, fine: bool, processor: usize) -> Place {
        self.sequence += 1;
        let key = Key(due, self.sequence);
        self.wheels[usize::from(fine)].add(key, what, processor);
        self.look_ahead();
        Place { key, fine }
    }

    fn remove(&mut self, place: Place) -> bool {
        let was_there = self.wheels[usize::from(place.fine)].remove(place.key).is_some();
        self.look_ahead();
        was_there
    }

    /// Sets a timer that is not set, so many units later than it is due.
    pub(in crate::ke) fn set_timer(&mut self, timer: u64, setting: Setting, late: u64, processor: usize) {
        let due = setting.due.time.saturating_add(late);
        let place = self.add(due, What::Timer(timer), setting.fine, processor);
        self.timers.insert(timer, (place, setting));
    }

    /// Whether the timer was set.
    pub(in crate::ke) fn cancel_timer(&mut self, timer: u64) -> bool {
        self.timers.remove(&timer).is_some_and(|(place, _)| self.remove(place))
    }

    /// When the clock finds the first of all that are set, in nanoseconds, if that is a timer, or the end of a wait that polls.
    pub(in crate::ke) fn first_to_be_held_up_until(&self) -> Option<u64> {
        if !self.may_hold_up() {
            return None;
        }
        let first = |fine: bool| {
            let (key, (what, _)) = self.wheels[usize::from(fine)].due.first_key_value()?;
            let counts = match what {
                What::Timer(_) => true,
                What::Timeout(strand) => self.timeouts.get(strand).is_some_and(|(_, limit)| limit.polls),
                What::Dpcs(_) => false,
            };
            Some((self.clock.found(key.0, fine), counts))
        };
        let (time, counts) = [false, true].into_iter().filter_map(first).min_by_key(|(time, _)| *time)?;
        counts.then_some(time)
    }

    /// When the clock finds the first timer, or the end of a driver's wait, behind this moment, in nanoseconds.
    pub(crate) fn first_limit(&self, behind: u64) -> Option<u64> {
        let came = [self.clock.came_at(behind), self.clock.finely_came_at(behind)];
        let found = |fine: bool| {
            let due = self.wheels[usize::from(fine)].after(came[usize::from(fine)]);
            due.map(|due| self.clock.found(due, fine))
        };
        [false, true].into_iter().filter_map(found).filter(|time| *time < FOREVER).min()
    }

    /// When the clock finds the last timer, or the end of the last wait, of those that it finds up to this moment, in nanoseconds.
    pub(crate) fn last_limit(&self, most: u64) -> Option<u64> {
        let timers =
            self.timers.values().map(|(_, set)| (set.due.time.saturating_add(set.tolerance), set.fine));
        let waits = self.timeouts.values().map(|(_, limit)| (limit.due.time, false));
        let found = timers.chain(waits).map(|(due, fine)| self.clock.found(due, fine));
        found.filter(|time| *time <= most).max()
    }

    /// Whether the timer is set.
    pub(crate) fn is_set(&self, timer: u64) -> bool {
        self.timers.contains_key(&timer)
    }

    /// The moment when the timer was set, if it is.
    pub(crate) fn set_at(&self, timer: u64) -> Option<u64> {
        self.timers.get(&timer).map(|(_, setting)| setting.set)
    }

    /// How the timer was set, if it is.
    pub(crate) fn setting(&self, timer: u64) -> Option<Setting> {
        self.timers.get(&timer).map(|(_, setting)| *setting)
    }

    /// Whether a wait of `strand` ends by a time-out.
    pub(in crate::ke) fn has_timeout(&self, strand: StrandId) -> bool {
        self.timeouts.contains_key(&strand)
    }

    /// Whether a timer is set, or a wait that polls.
    #[inline]
    pub(in crate::ke) fn may_hold_up(&self) -> bool {
        self.polls > 0 || !self.timers.is_empty()
    }

    /// Whether no timer is set.
    #[inline]
    pub(in crate::ke) fn is_none_set(&self) -> bool {
        self.timers.is_empty()
    }

    /// A timer of `base..base+length` that is set.
    pub(in crate::ke) fn set_in(&self, base: u64, length: u64) -> Option<u64> {
        if self.timers.is_empty() {
            return None;
        }
        self.timers.range(base..base.saturating_add(length)).next().map(|(&timer, _)| timer)
    }

    /// All timers that are set.
    pub(crate) fn all_set(&self) -> Vec<u64> {
        self.timers.keys().copied().collect()
    }

    /// A wait of `strand` has this limit.
    pub(in crate::ke) fn add_timeout(&mut self, limit: Limit, strand: StrandId, processor: usize) {
        let place = self.add(limit.due.time, What::Timeout(strand), false, processor);
        self.polls += usize::from(limit.polls);
        self.timeouts.insert(strand, (place, limit));
    }

    fn take_timeout(&mut self, strand: StrandId) -> Option<(Place, Limit)> {
        let taken = self.timeouts.remove(&strand)?;
        self.polls -= usize::from(taken.1.polls);
        Some(taken)
    }

    /// The wait ended otherwise.
    #[inline]
    pub(in crate::ke) fn cancel_timeout(&mut self, strand: StrandId) {
        if self.timeouts.is_empty() {
            return;
        }
        if let Some((place, _)) = self.take_timeout(strand) {
            self.remove(place);
        }
    }

    /// The DPC queue of `processor` is looked at when the clock ticks next.
    pub(in crate::ke) fn drain_at_next_tick(&mut self, now: u64, processor: usize) {
        if !self.drains.contains_key(&processor) {
            let tick = self.clock.next_tick(now) / super::time::UNIT;
            let place = self.add(tick, What::Dpcs(processor), false, processor);
            self.drains.insert(processor, place);
        }
    }

    /// Nothing waits there any more.
    pub(in crate::ke) fn cancel_drain(&mut self, processor: usize) {
        if self.drains.is_empty() {
            return;
        }
        if let Some(place) = self.drains.remove(&processor) {
            self.remove(place);
        }
    }

    /// Changes the clock.
    pub(super) fn change_clock(&mut self, change: impl FnOnce(&mut Clock)) {
        change(&mut self.clock);
        self.look_ahead();
    }

    /// The system time was set so many units forward: what is due at a system time is due so much earlier. Returns timers and
    /// when they are due now.
    pub(super) fn follow_system_time(&mut self, units: i64) -> Vec<(u64, u64)> {
        let moves = |due: u64| match due {
            time::NEVER.. => due,
            _ => due.saturating_add_signed(units.saturating_neg()),
        };
        let timers: Vec<u64> = self
            .timers
            .iter()
            .filter(|(_, (_, setting))| setting.due.absolute)
            .map(|(timer, _)| *timer)
            .collect();
        let mut moved = Vec::new();
        for timer in timers {
            let Some((place, mut setting)) = self.timers.remove(&timer) else { continue };
            let processor = self.processor_of(place);
            self.remove(place);
            let late = place.key.0 - setting.due.time;
            setting.due.time = moves(setting.due.time);
            self.set_timer(timer, setting, late, processor);
            moved.push((timer, setting.due.time));
        }
        let waits: Vec<StrandId> = self
            .timeouts
            .iter()
            .filter(|(_, (_, limit))| limit.due.absolute)
            .map(|(strand, _)| *strand)
            .collect();
        for strand in waits {
            let Some((place, mut limit)) = self.take_timeout(strand) else { continue };
            let processor = self.processor_of(place);
            self.remove(place);
            limit.due.time = moves(limit.due.time);
            self.add_timeout(limit, strand, processor);
        }
        moved
    }

    fn processor_of(&self, place: Place) -> usize {
        self.wheels[usize::from(place.fine)].due.get(&place.key).map_or(0, |(_, processor)| *processor)
    }

    /// The next thing that the clock has found due on `processor`.
    fn next(&self, now: u64, processor: usize) -> Option<Place> {
        if self.next_tick > now {
            return None;
        }
        let coarse = self.wheels[0].next(self.clock.ticked_at(now), processor);
        let fine = self.wheels[1].next(self.clock.finely_ticked_at(now), processor);
        let coarse = coarse.map(|key| Place { key, fine: false });
        let fine = fine.map(|key| Place { key, fine: true });
        coarse.into_iter().chain(fine).min_by_key(|place| place.key)
    }

    /// Whether the clock has found something due on `processor`.
    #[inline]
    pub(crate) fn is_due(&self, now: u64, processor: usize) -> bool {
        self.next_tick <= now && self.next(now, processor).is_some()
    }

    /// Whether the clock has found something due on any processor: what it leads to has not been done.
    pub(crate) fn is_anything_due(&self, now: u64) -> bool {
        self.next_tick <= now
    }

    /// Whether the clock has found a timer due, on any processor.
    pub(in crate::ke) fn is_any_timer_due(&self, now: u64) -> bool {
        self.is_anything_due(now) && self.timers_due(now).next().is_some()
    }

    /// Timers that the clock has found due, each with its wheel.
    fn timers_due(&self, now: u64) -> impl Iterator<Item = (usize, Key)> {
        let ticked = [self.clock.ticked_at(now), self.clock.finely_ticked_at(now)];
        self.wheels.iter().zip(ticked).enumerate().flat_map(|(wheel, (set, ticked))| {
            let due = set.due.range(..=Key(ticked, u64::MAX));
            let timers = due.filter(|(_, (what, _))| matches!(what, What::Timer(_)));
            timers.map(move |(key, _)| (wheel, *key))
        })
    }

    /// All timers that the clock has found due expire on this processor.
    pub(in crate::ke) fn expire_on(&mut self, now: u64, processor: usize) {
        for (wheel, key) in self.timers_due(now).collect::<Vec<_>>() {
            self.wheels[wheel].move_to(key, processor);
        }
    }

    /// Takes out the next thing that the clock has found due on `processor`.
    pub(in crate::ke) fn take_due(&mut self, now: u64, processor: usize) -> Option<Expired> {
        let place = self.next(now, processor)?;
        let what = self.wheels[usize::from(place.fine)].remove(place.key)?;
        if place.fine {
            // What finds it is a tick of the clock.
            let tick = self.clock.finely_ticked_at(now);
            self.clock.ticks_at(tick);
        }
        let expired = match what {
            What::Timer(timer) => {
                self.timers.remove(&timer).map(|(_, setting)| Expired::Timer(timer, setting))
            }
            What::Timeout(strand) => {
                self.take_timeout(strand);
                Some(Expired::Timeout(strand))
            }
            What::Dpcs(processor) => {
                self.drains.remove(&processor);
                Some(Expired::Dpcs)
            }
        };
        self.look_ahead();
        expired
    }

    /// Wakes `strand` at this time, in nanoseconds.
    pub(in crate::ke) fn add_alarm(&mut self, time: u64, strand: StrandId) {
        self.sequence += 1;
        self.alarms.insert((time, self.sequence), strand);
        self.look_ahead();
    }

    /// Whether an alarm rings at `now` or has rung.
    #[inline]
    pub(crate) fn rings(&self, now: u64) -> bool {
        self.next_alarm <= now
    }

    /// A thread whose alarm rings at `now` or has rung; it is taken out.
    pub(in crate::ke) fn take_alarm(&mut self, now: u64) -> Option<StrandId> {
        let (_, strand) = self.alarms.first_entry().filter(|first| first.key().0 <= now)?.remove_entry();
        self.look_ahead();
        Some(strand)
    }

    /// When the clock finds something due next, or a thread wakes, in nanoseconds.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<u64> {
        let next = self.next_tick.min(self.next_alarm);
        (next != NEVER).then_some(next)
    }

    /// As [`TimerQueue::deadline`], past what is due already: that waits for a level to fall, and what comes next does not wait for it.
    #[inline]
    pub(in crate::ke) fn deadline_ahead(&self, now: u64) -> Option<u64> {
        let next = self.next_tick.min(self.next_alarm);
        if next > now { (next != NEVER).then_some(next) } else { self.deadline_past(now) }
    }

    #[cold]
    fn deadline_past(&self, now: u64) -> Option<u64> {
        let tick = if self.next_tick > now { Some(self.next_tick) } else { self.first_limit(now) };
        let alarm = self.alarms.range((now + 1, 0)..).next().map(|((time, _), _)| *time);
        let all = [tick, alarm, Some(self.watch)].into_iter().flatten();
        all.filter(|time| *time > now && *time < FOREVER).min()
    }

    /// The same, past what is due already and waits for a level to fall.
    pub(in crate::ke) fn deadline_after(&self, now: u64) -> Option<u64> {
        let alarm = self.alarms.first_key_value().map(|((time, _), _)| *time);
        [self.first_limit(now), alarm.filter(|time| *time < FOREVER)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ke::timing::clock::FINEST;
    use crate::ke::timing::time::{INCREMENT, TICK, UNIT};

    thread_local! {
        // tidy: a test counts here; no heap behind it.
        static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        COMPARISONS.set(COMPARISONS.get() + 1);
    }

    fn once(time: u64) -> Setting {
        Setting { due: Due { time, absolute: false }, period: 0, tolerance: 0, fine: false, set: 0 }
    }

    fn finely(time: u64) -> Setting {
        Setting { fine: true, ..once(time) }
    }

    #[test]
    fn a_timer_is_found_due_at_the_first_tick_at_or_after_its_time() {
        let mut queue = TimerQueue::default();
        assert_eq!(queue.deadline(), None);
        queue.set_timer(0x1000, once(156_250), 0, 0);
        assert_eq!(queue.deadline(), Some(TICK), "due exactly at a tick");
        assert!(queue.cancel_timer(0x1000) && !queue.cancel_timer(0x1000));
        queue.set_timer(0x1000, once(156_251), 0, 0);
        assert_eq!(queue.deadline(), Some(2 * TICK));
    }

    #[test]
    fn equal_due_times_expire_in_the_order_of_setting_each_on_its_processor() {
        let mut queue = TimerQueue::default();
        queue.set_timer(0x2000, once(10), 0, 0);
        let due = Due { time: 10, absolute: false };
        queue.add_timeout(Limit { due, polls: false }, StrandId(7), 1);
        queue.set_timer(0x1000, once(10), 0, 0);
        assert_eq!(queue.take_due(TICK - 1, 0), None);
        assert_eq!(queue.take_due(TICK, 0), Some(Expired::Timer(0x2000, once(10))));
        assert_eq!(queue.take_due(TICK, 0), Some(Expired::Timer(0x1000, once(10))));
        assert_eq!(queue.take_due(TICK, 0), None);
        assert_eq!(queue.take_due(TICK, 1), Some(Expired::Timeout(StrandId(7))));
    }

    #[test]
    fn a_processor_is_held_up_until_a_timer_or_the_end_of_a_wait_that_polls_and_beyond_no_other_end() {
        let mut queue = TimerQueue::default();
        let limit = |time, polls| Limit { due: Due { time, absolute: false }, polls };
        queue.add_timeout(limit(2 * INCREMENT, false), StrandId(7), 0);
        assert!(!queue.may_hold_up() && queue.first_to_be_held_up_until().is_none());
        queue.add_timeout(limit(INCREMENT, true), StrandId(8), 0);
        assert_eq!(queue.first_to_be_held_up_until(), Some(TICK));
        queue.cancel_timeout(StrandId(8));
        assert!(!queue.may_hold_up());
        queue.set_timer(0x1000, once(3 * INCREMENT), 0, 0);
        assert_eq!(queue.first_to_be_held_up_until(), None, "a wait ends before it");
        queue.cancel_timeout(StrandId(7));
        assert_eq!(queue.first_to_be_held_up_until(), Some(3 * TICK));
    }

    #[test]
    fn a_fine_timer_is_found_by_a_tick_that_all_others_see() {
        let mut queue = TimerQueue::default();
        queue.set_timer(0x1000, finely(FINEST + 1), 0, 0);
        queue.set_timer(0x2000, once(FINEST + 1), 0, 0);
        assert_eq!(queue.deadline(), Some(2 * FINEST * UNIT));
        assert_eq!(queue.take_due(2 * FINEST * UNIT - 1, 0), None);
        assert!(matches!(queue.take_due(2 * FINEST * UNIT, 0), Some(Expired::Timer(0x1000, _))));
        assert_eq!(queue.clock.ticked_at(2 * FINEST * UNIT), 2 * FINEST);
        assert!(matches!(queue.take_due(2 * FINEST * UNIT, 0), Some(Expired::Timer(0x2000, _))));
    }

    #[test]
    fn what_is_due_at_a_system_time_follows_the_system_time() {
        let mut queue = TimerQueue::default();
        let absolute = Setting { due: Due { time: 100 * INCREMENT, absolute: true }, ..once(0) };
        queue.set_timer(0x1000, absolute, 0, 3);
        queue.set_timer(0x2000, once(100 * INCREMENT), 0, 3);
        let forward = (90 * INCREMENT).cast_signed();
        assert_eq!(queue.follow_system_time(forward), [(0x1000, 10 * INCREMENT)]);
        assert_eq!(queue.deadline(), Some(10 * TICK));
        assert_eq!(queue.follow_system_time(-forward), [(0x1000, 100 * INCREMENT)]);
        assert_eq!(queue.deadline(), Some(100 * TICK));
    }

    #[test]
    fn what_is_due_and_waits_hides_nothing_that_comes_next() {
        let mut queue = TimerQueue::default();
        queue.set_timer(0x1000, once(2 * INCREMENT), 0, 0);
        queue.set_timer(0x2000, once(4 * INCREMENT), 0, 1);
        queue.add_alarm(TICK, StrandId(7));
        queue.add_alarm(5 * TICK, StrandId(8));
        let ahead = [0, TICK, 2 * TICK, 3 * TICK, 4 * TICK, 5 * TICK].map(|now| queue.deadline_ahead(now));
        let next = [TICK, 2 * TICK, 4 * TICK, 4 * TICK, 5 * TICK].map(Some);
        assert_eq!(ahead, [&next[..], &[None]].concat()[..]);
    }

    /// Comparisons for each of `count` timers of each of `processors` processors: set, half of them cancelled, the rest expired,
    /// all at one tick.
    fn comparisons(processors: usize, count: u64) -> u64 {
        let mut queue = TimerQueue::default();
        COMPARISONS.set(0);
        let address = |processor: usize, index: u64| (processor as u64) << 32 | index << 8;
        for index in 0..count {
            for processor in 0..processors {
                queue.set_timer(address(processor, index), once(index % 7), 0, processor);
            }
        }
        for processor in 0..processors {
            for index in (0..count).step_by(2) {
                assert!(queue.cancel_timer(address(processor, index)));
            }
        }
        let mut expired = 0;
        for processor in 0..processors {
            assert!(queue.is_due(TICK, processor));
            while queue.take_due(TICK, processor).is_some() {
                expired += 1;
            }
        }
        assert_eq!((expired, queue.deadline()), (processors as u64 * count / 2, None));
        COMPARISONS.get() / (processors as u64 * count)
    }

    #[test]
    fn sixty_four_processors_with_a_thousand_timers_each_cost_the_logarithm() {
        let (few, many) = (comparisons(4, 16), comparisons(64, 1_000));
        // A thousand times as many: ten more halvings to find one of them, not a thousand times the work.
        assert!(many <= 4 * few, "{few} comparisons a timer became {many}");
    }
}
