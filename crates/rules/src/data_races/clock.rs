//! Vector clocks: what a flow of control knows of the others. One thing happens before another if the second one's flow knew the time of the first.

/// Which flow.
pub(super) type Slot = u32;

/// For each flow, the time up to which all that it did has happened before.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Clock(Vec<u32>);

impl Clock {
    pub(super) fn time(&self, slot: Slot) -> u32 {
        self.0.get(index(slot)).copied().unwrap_or(0)
    }

    /// Knows what the other one knows, too. Whether that is news.
    pub(super) fn join(&mut self, other: &Self) -> bool {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut is_news = false;
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            is_news |= *own < *other;
            *own = (*own).max(*other);
        }
        is_news
    }

    /// Whether joining it would be news.
    pub(super) fn lacks(&self, other: &Self) -> bool {
        (0..).zip(&other.0).any(|(slot, time)| self.time(slot) < *time)
    }

    /// The flow's own time goes on.
    pub(super) fn tick(&mut self, slot: Slot) {
        let at = index(slot);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += 1;
    }
}

fn index(slot: Slot) -> usize {
    slot as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(times: &[u32]) -> Clock {
        Clock(times.to_vec())
    }

    #[test]
    fn a_join_has_the_later_time_of_each_flow() {
        let mut one = clock(&[3, 1]);
        assert!(one.lacks(&clock(&[1, 2, 5])) && one.join(&clock(&[1, 2, 5])));
        assert_eq!(one, clock(&[3, 2, 5]));
        assert!(!one.lacks(&clock(&[3, 2])) && !one.join(&clock(&[3, 2])));
    }

    #[test]
    fn a_flow_that_is_not_known_has_time_0() {
        let mut one = Clock::default();
        assert_eq!(one.time(7), 0);
        one.tick(7);
        assert_eq!((one.time(7), one.time(6)), (1, 0));
    }
}
