//! What polling costs: a register that is read again and again takes longer each time, so that a driver that polls gets anywhere.
//! Follows *Avoid Polling Devices*. It decides nothing: the clock goes on by what it says.

/// Registers that are read again and again and have the same values each time, with nothing written meanwhile but the same: after every
/// so many such reads in a row each takes twice as long, up to a few dozen microseconds. A driver that polls gets anywhere so, and
/// overshoots by little. Where it was given up that anything comes of it (`patience`), up to milliseconds.
#[derive(Default)]
pub(crate) struct Polls {
    /// Those accessed lately, with their values.
    seen: [(u64, u64); Self::TOGETHER],
    /// Which of them is the oldest,
    oldest: usize,
    /// and which was accessed last.
    last: usize,
    reads: u32,
}

impl Polls {
    /// So many registers may be polled by turns.
    const TOGETHER: usize = 4;
    const DOUBLED_AFTER: u32 = 4096;
    const DOUBLED_AT_MOST: u32 = 8;
    /// The same where nothing is hoped for.
    const GIVEN_UP: u32 = 14;
    /// Set in the address of a port,
    pub(super) const PORT: u64 = 1 << 63;
    /// and of what is written.
    const WRITTEN: u64 = 1 << 62;

    /// How long a read takes that usually takes `cost` nanoseconds.
    #[inline]
    pub(super) fn cost(&self, address: u64, cost: u64, given_up: bool) -> u64 {
        if self.reads < Self::DOUBLED_AFTER { cost } else { self.longer(address, cost, given_up) }
    }

    /// The same, of what may be polled.
    #[cold]
    #[inline(never)]
    fn longer(&self, address: u64, cost: u64, given_up: bool) -> u64 {
        if self.seen.iter().all(|seen| seen.0 != address) {
            return cost;
        }
        let most = if given_up { Self::GIVEN_UP } else { Self::DOUBLED_AT_MOST };
        cost << (self.reads / Self::DOUBLED_AFTER).min(most)
    }

    /// This was read.
    #[inline]
    pub(super) fn saw(&mut self, address: u64, value: u64) {
        let same = self.is_seen(address, value);
        self.reads = if same { self.reads.saturating_add(1) } else { 0 };
    }

    /// This is written.
    #[inline]
    pub(super) fn writes(&mut self, address: u64, value: u64) {
        if !self.is_seen(address | Self::WRITTEN, value) {
            self.reads = 0;
        }
    }

    /// Whether it was so lately; from now on it is.
    #[inline]
    fn is_seen(&mut self, address: u64, value: u64) -> bool {
        let seen = &mut self.seen[self.last % Self::TOGETHER];
        if seen.0 == address {
            std::mem::replace(&mut seen.1, value) == value
        } else {
            self.seeks(address, value)
        }
    }

    /// The same, of what was not accessed last.
    fn seeks(&mut self, address: u64, value: u64) -> bool {
        match self.seen.iter().position(|seen| seen.0 == address) {
            Some(index) => {
                self.last = index;
                std::mem::replace(&mut self.seen[index].1, value) == value
            }
            None => {
                self.last = self.oldest;
                self.seen[self.oldest] = (address, value);
                self.oldest = (self.oldest + 1) % Self::TOGETHER;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An access of each round: where, to which value, and whether it is a write.
    type Access = (u64, fn(u32) -> u64, bool);

    /// The cost of a read of `address` after so many rounds of these accesses.
    fn after(rounds: u32, accesses: &[Access], address: u64) -> u64 {
        let mut polls = Polls::default();
        for round in 0..rounds {
            for (at, value, write) in accesses {
                if *write {
                    polls.writes(*at, value(round));
                } else {
                    polls.saw(*at, value(round));
                }
            }
        }
        polls.cost(address, 250, false)
    }

    const ONES: fn(u32) -> u64 = |_| u64::MAX;
    const COUNTS: fn(u32) -> u64 = |round| round.into();

    #[test]
    fn registers_that_never_change_take_longer_alone_and_by_turns() {
        assert_eq!(after(100, &[(8, ONES, false)], 8), 250);
        assert_eq!(after(100_000, &[(8, ONES, false)], 8), 250 << 8);
        assert_eq!(after(100_000, &[(8, ONES, false), (12, ONES, false)], 12), 250 << 8);
        assert_eq!(
            after(100_000, &[(8, ONES, false), (8, ONES, true)], 8),
            250 << 8,
            "acknowledged each time"
        );
        assert_eq!(after(100_000, &[(8, ONES, false)], 12), 250, "another register");
    }

    #[test]
    fn what_changes_and_what_is_written_anew_is_no_polling() {
        assert_eq!(after(100_000, &[(8, COUNTS, false)], 8), 250);
        assert_eq!(after(100_000, &[(8, ONES, false), (12, COUNTS, false)], 8), 250, "status and data");
        assert_eq!(after(100_000, &[(8, COUNTS, true), (12, ONES, false)], 12), 250, "index and data");
    }

    #[test]
    fn where_nothing_is_hoped_for_the_clock_goes_faster_still() {
        let mut polls = Polls::default();
        (0..100_000).for_each(|_| polls.saw(8, 0));
        assert_eq!(polls.cost(8, 250, true), 250 << 14);
    }
}
