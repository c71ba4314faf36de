//! Threads that could run, by priority. Follows *Scheduling Priorities* and *Thread Scheduling*.
//!
//! Thirty-two queues; within one the thread that has waited longest is first. They know since when their oldest
//! thread waits, so that a switch asks by one comparison whether a thread starves. The scheduler, not this file, decides who runs.

use std::collections::VecDeque;

use engine::StrandId;

use super::thread_record::HIGHEST_DYNAMIC;
use crate::few::Few;

/// Priorities are 0–31; 16 and up are real-time.
pub(crate) const PRIORITIES: usize = 32;

/// A ready thread, and where it may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    strand: StrandId,
    affinity: u64,
    /// The clock when it became ready.
    since: u64,
}

/// Threads one of which is to be chosen.
pub(crate) type Candidates = Few<StrandId, 4>;

/// The ready queues.
pub(crate) struct ReadyQueues {
    queues: [VecDeque<Entry>; PRIORITIES],
    /// Bit n is set if queue n is not empty.
    occupied: u32,
    /// No thread that is here became ready before.
    oldest: u64,
}

impl Default for ReadyQueues {
    fn default() -> Self {
        Self { queues: std::array::from_fn(|_| VecDeque::new()), occupied: 0, oldest: 0 }
    }
}

impl ReadyQueues {
    /// A thread's turn comes after its equals.
    pub(crate) fn push_back(&mut self, strand: StrandId, priority: u8, affinity: u64, since: u64) {
        self.comes(priority, since);
        self.queues[usize::from(priority)].push_back(Entry { strand, affinity, since });
    }

    /// A thread that was preempted comes before its equals.
    pub(crate) fn push_front(&mut self, strand: StrandId, priority: u8, affinity: u64, since: u64) {
        self.comes(priority, since);
        self.queues[usize::from(priority)].push_front(Entry { strand, affinity, since });
    }

    #[inline]
    fn comes(&mut self, priority: u8, since: u64) {
        self.oldest = if self.occupied == 0 { since } else { self.oldest.min(since) };
        self.occupied |= 1 << priority;
    }

    /// Whether all that are here became ready after `moment`. Conservative: false may be wrong.
    #[inline]
    pub(super) fn all_since(&self, moment: u64) -> bool {
        self.occupied == 0 || self.oldest > moment
    }

    /// Whether no thread is ready.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// The highest priority of a thread that may run on a processor of `mask`.
    #[inline]
    pub(crate) fn highest(&self, mask: u64) -> Option<u8> {
        let may = |priority: &u8| {
            let queue = &self.queues[usize::from(*priority)];
            // Mostly the first may.
            let first = queue.front().is_some_and(|e| e.affinity & mask != 0);
            first || queue.iter().any(|e| e.affinity & mask != 0)
        };
        self.occupied(u32::MAX).find(may)
    }

    /// The priorities among `these`, a bit each, of which there are threads: the highest first. Mostly it is one or none, and looking
    /// into all queues would cost a switch as much as all else.
    fn occupied(&self, these: u32) -> impl Iterator<Item = u8> + use<> {
        let mut left = self.occupied & these;
        std::iter::from_fn(move || {
            let highest = left.checked_ilog2()?;
            left &= !(1 << highest);
            u8::try_from(highest).ok()
        })
    }

    /// The threads below the highest dynamic priority, but those of priority 0.
    fn low(&self) -> impl Iterator<Item = &Entry> {
        let low = (1 << HIGHEST_DYNAMIC) - 2;
        self.occupied(low).flat_map(|priority| &self.queues[usize::from(priority)])
    }

    /// The threads of one priority that may run on a processor of `mask`, longest waiting first, go to `into`: what is moved
    /// would wait for what has just been stored.
    #[inline]
    pub(crate) fn candidates(&self, priority: u8, mask: u64, into: &mut Candidates) {
        let queue = &self.queues[usize::from(priority)];
        into.extend(queue.iter().filter(|entry| entry.affinity & mask != 0).map(|entry| entry.strand));
    }

    /// The thread that a processor of `mask` takes next, if that is beyond question: no other has its priority, or no policy chooses
    /// which of several goes first.
    #[inline]
    pub(super) fn sole_best(&self, mask: u64, asked: bool) -> Option<StrandId> {
        let highest = self.occupied.checked_ilog2()?;
        let queue = &self.queues[highest as usize];
        let first = queue.front()?;
        ((!asked || queue.len() == 1) && first.affinity & mask != 0).then_some(first.strand)
    }

    /// Takes the thread out that is the first of all.
    #[inline]
    pub(super) fn take_best(&mut self) {
        if let Some(highest) = self.occupied.checked_ilog2() {
            let queue = &mut self.queues[highest as usize];
            queue.pop_front();
            if queue.is_empty() {
                self.occupied &= !(1 << highest);
            }
        }
    }

    /// The threads below the highest dynamic priority that have been ready since `before` or longer.
    pub(super) fn starving(&self, before: u64) -> Vec<StrandId> {
        if self.all_since(before) {
            return Vec::new();
        }
        let low = self.queues[1..usize::from(HIGHEST_DYNAMIC)].iter().flatten();
        low.filter(|entry| entry.since <= before).map(|entry| entry.strand).collect()
    }

    /// Whether there are threads of a higher priority than this, wherever they may run.
    #[inline]
    pub(super) fn has_above(&self, priority: u8) -> bool {
        // There is no priority 32.
        u64::from(self.occupied) >> (priority + 1) != 0
    }

    /// Since when a thread below the highest dynamic priority, that may run on a processor of `mask` and counts, has been
    /// ready.
    pub(super) fn starving_since(&self, mask: u64, counts: impl Fn(StrandId) -> bool) -> Option<u64> {
        let low = self.low().filter(|entry| entry.affinity & mask != 0 && counts(entry.strand));
        low.map(|entry| entry.since).min()
    }

    /// All of them, in the order in which they have a claim to a processor.
    pub(crate) fn iter(&self) -> impl Iterator<Item = StrandId> {
        let queues = self.occupied(u32::MAX).map(|priority| &self.queues[usize::from(priority)]);
        queues.flatten().map(|entry| entry.strand)
    }

    /// Takes a thread out, wherever it stands; false if it was not ready.
    pub(crate) fn remove(&mut self, strand: StrandId) -> bool {
        for priority in self.occupied(u32::MAX) {
            let queue = &mut self.queues[usize::from(priority)];
            if let Some(at) = queue.iter().position(|entry| entry.strand == strand) {
                // Mostly it is the first, and nothing moves.
                if at == 0 {
                    queue.pop_front()
                } else {
                    queue.remove(at)
                };
                if queue.is_empty() {
                    self.occupied &= !(1 << priority);
                }
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StrandId = StrandId(1);
    const B: StrandId = StrandId(2);
    const C: StrandId = StrandId(3);

    fn candidates(ready: &ReadyQueues, priority: u8, mask: u64) -> Vec<StrandId> {
        let mut candidates = Candidates::default();
        ready.candidates(priority, mask, &mut candidates);
        candidates.to_vec()
    }

    #[test]
    fn a_higher_priority_goes_first_and_equals_in_the_order_of_arrival() {
        let mut ready = ReadyQueues::default();
        ready.push_back(A, 8, 1, 0);
        ready.push_back(B, 8, 1, 0);
        ready.push_back(C, 16, 1, 0);
        assert_eq!(ready.highest(1), Some(16));
        assert!(ready.remove(C));
        assert_eq!(ready.highest(1), Some(8));
        assert_eq!(candidates(&ready, 8, 1), [A, B]);
        ready.push_front(C, 8, 1, 0);
        assert_eq!(candidates(&ready, 8, 1), [C, A, B]);
        assert!(!ready.remove(StrandId(9)));
    }

    #[test]
    fn a_thread_is_no_candidate_where_its_affinity_forbids_it() {
        let mut ready = ReadyQueues::default();
        ready.push_back(A, 20, 0b10, 0);
        ready.push_back(B, 8, 0b01, 0);
        assert_eq!(ready.highest(0b01), Some(8));
        assert_eq!(ready.highest(0b11), Some(20));
        assert_eq!(candidates(&ready, 20, 0b01), []);
    }

    #[test]
    fn who_has_been_ready_for_long_starves_unless_it_is_real_time() {
        let mut ready = ReadyQueues::default();
        ready.push_back(A, 8, 0b01, 100);
        ready.push_back(B, 8, 0b10, 200);
        ready.push_back(C, 16, 0b11, 0);
        assert_eq!(ready.starving(99), []);
        assert_eq!(ready.starving(150), [A]);
        assert_eq!(
            (ready.starving_since(0b11, |_| true), ready.starving_since(0b11, |s| s != A)),
            (Some(100), Some(200))
        );
        assert_eq!(ready.starving_since(0b10, |_| true), Some(200));
    }

    #[test]
    fn nobody_is_said_to_have_become_ready_later_than_he_did() {
        let mut ready = ReadyQueues::default();
        assert!(ready.all_since(u64::MAX - 1), "no thread has");
        ready.push_back(A, 8, 1, 50);
        ready.push_front(B, 20, 1, 30);
        assert!(ready.all_since(29) && !ready.all_since(30));
        assert!(ready.remove(B));
        assert!(!ready.all_since(30), "who has gone may be counted still");
        assert!(ready.starving(49).is_empty());
        assert_eq!(ready.starving(50), [A]);
        assert!(ready.remove(A));
        ready.push_back(C, 8, 1, 70);
        assert!(ready.all_since(69), "an empty queue begins anew");
    }
}
