//! Which run came first to each state that runs were asked in. A later run that comes to the same is not departed from there: all that could come of it comes
//! of the first one.
//!
//! A state is known by one number, of the history that has led to it and of what that does not tell ([`engine::Chooser::comes_to`]). The table has a
//! fixed size. A state for which there is no room is not known: then more runs are made than must be.

use crate::schedule::Questions;

/// So many slots are looked at for each state.
const NEAR: usize = 16;

/// The runs that came first, by states.
pub(crate) struct Histories {
    /// A power of two; none before the first state comes.
    slots: Vec<(u64, u32)>,
    size: usize,
    /// The run that is taken now, from 1.
    run: u32,
}

impl Histories {
    /// Room for about so many states, a power of two.
    pub(crate) fn new(size: usize) -> Self {
        assert!(size.is_power_of_two(), "the table is indexed by the last bits");
        Self { slots: Vec::new(), size, run: 0 }
    }

    /// Nothing is known.
    pub(crate) fn clear(&mut self) {
        (self.slots, self.run) = (Vec::new(), 0);
    }

    /// The next run is taken: where it comes to a state that an earlier run came to, its questions end, and it is the first at those in front. That
    /// it comes to one state twice itself does not matter. Returns whether they ended.
    pub(crate) fn cut(&mut self, questions: &mut Questions) -> bool {
        self.run = self.run.saturating_add(1);
        let end = questions.states().find(|(_, state)| !self.is_first(*state));
        if let Some((end, _)) = end {
            questions.truncate(end);
        }
        end.is_some()
    }

    /// Whether no earlier run came to this state. From now on this one did.
    fn is_first(&mut self, state: u64) -> bool {
        if self.slots.is_empty() {
            self.slots = vec![(0, 0); self.size];
        }
        let last = self.size - 1;
        let begin = usize::try_from(state & last as u64).unwrap_or(0);
        for near in 0..NEAR {
            let slot = &mut self.slots[(begin + near) & last];
            match *slot {
                (_, 0) => {
                    *slot = (state, self.run);
                    return true;
                }
                (known, run) if known == state => return run == self.run,
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(histories: &mut Histories, states: &[u64]) -> usize {
        let mut questions = Questions::default();
        for state in states {
            questions.add("1c2".parse::<Questions>().unwrap().backwards().next().unwrap(), Some(*state));
        }
        let is_cut = histories.cut(&mut questions);
        assert_eq!(is_cut, questions.len() < states.len());
        questions.len()
    }

    #[test]
    fn a_run_ends_at_what_an_earlier_one_came_to_and_not_at_its_own() {
        let mut histories = Histories::new(64);
        assert_eq!(cut(&mut histories, &[1, 2, 1, 3]), 4, "it comes round to where it was");
        assert_eq!(cut(&mut histories, &[4, 5, 2, 6]), 2);
        assert_eq!(cut(&mut histories, &[6, 5]), 1, "behind its end a run was the first at nothing");
        assert_eq!(cut(&mut histories, &[3]), 0);
        histories.clear();
        assert_eq!(cut(&mut histories, &[3]), 1);
    }

    #[test]
    fn what_has_no_room_is_not_known() {
        let mut histories = Histories::new(64);
        let all: Vec<u64> = (0..1000).map(|number| number * 64).collect();
        assert_eq!(cut(&mut histories, &all), 1000);
        assert_eq!(cut(&mut histories, &all[..1]), 0);
        assert_eq!(cut(&mut histories, &all[500..]), 500);
    }
}
