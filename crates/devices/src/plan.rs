//! When the parts of a transfer happen, and in which order: what a bus master leaves open, where its user lets it.
//!
//! A card with `late=N` takes up to N times as long as it is said to; one with `pieces=N` moves its bytes in up to N parts, each at a time of its
//! own, and any of them first. Which it is are questions to the machine's chooser, whose default answer is what a card without these keys does. They
//! are asked when the transfer is started, and nothing is moved before they are answered. Without the keys there is no question.

use kernel::hal::hardware::Question;

/// Why a write to a bus master's command register has no effect.
pub(crate) const BUSY: &str = "starts no transfer while the one before is under way";

/// What the user lets a card leave open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freedom {
    /// As long as it is said to, or up to so many times: at least 1.
    pub(crate) late: u32,
    /// In one part, or up to so many: at least 1.
    pub(crate) pieces: u32,
}

impl Default for Freedom {
    fn default() -> Self {
        Self { late: 1, pieces: 1 }
    }
}

/// A part of a transfer: this one of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) index: u32,
    pub(crate) count: u32,
}

impl Part {
    /// Which of `total` bytes it is.
    pub(crate) fn of(self, total: u64) -> std::ops::Range<u64> {
        let (index, count) = (u64::from(self.index), u64::from(self.count));
        total * index / count..total * (index + 1) / count
    }
}

/// What is asked next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Open {
    Late,
    Pieces,
    Order,
    Nothing,
}

/// Of one transfer.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    freedom: Freedom,
    open: Open,
    begun: u64,
    takes: u64,
    count: u32,
    /// Parts in the order in which they are moved, as far as that is said.
    order: Vec<u32>,
    /// Those behind them.
    rest: Vec<u32>,
    moved: u32,
}

impl Plan {
    /// Of a transfer that was started now and takes so long.
    pub(crate) fn new(freedom: Freedom, begun: u64, takes: u64) -> Self {
        let (order, rest) = (Vec::new(), vec![0]);
        let mut plan = Self { freedom, open: Open::Late, begun, takes, count: 1, order, rest, moved: 0 };
        plan.skip();
        plan
    }

    /// How many answers there are to what is open.
    fn answers(&self) -> u32 {
        match self.open {
            Open::Late => self.freedom.late,
            Open::Pieces => self.freedom.pieces,
            Open::Order => u32::try_from(self.rest.len()).unwrap_or(u32::MAX),
            Open::Nothing => 0,
        }
    }

    /// What is open next, if it can be answered in more than one way.
    pub(crate) fn question(&self) -> Option<Question> {
        let point = match self.open {
            Open::Late => "device.late",
            Open::Pieces => "device.pieces",
            Open::Order => "device.order",
            Open::Nothing => return None,
        };
        Some(Question { point, answers: self.answers() })
    }

    /// The answer to it.
    pub(crate) fn answer(&mut self, answer: u32) {
        match self.open {
            Open::Late => {
                self.takes = self.takes.max(1).saturating_mul(u64::from(answer) + 1);
                self.open = Open::Pieces;
            }
            Open::Pieces => {
                self.count = answer + 1;
                self.rest = (0..self.count).collect();
                self.open = Open::Order;
            }
            Open::Order => self.order.push(self.rest.remove(answer as usize)),
            Open::Nothing => {}
        }
        self.skip();
    }

    /// Passes over what has one answer.
    fn skip(&mut self) {
        while self.open != Open::Nothing && self.answers() < 2 {
            self.open = match self.open {
                Open::Late => Open::Pieces,
                Open::Pieces => Open::Order,
                _ => {
                    self.order.append(&mut self.rest);
                    Open::Nothing
                }
            };
        }
    }

    /// When the next part is moved; none while something is open.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let part = u64::from(self.moved) + 1;
        (self.open == Open::Nothing).then(|| self.begun + self.takes * part / u64::from(self.count))
    }

    /// The part that is due, and whether it is the last one.
    pub(crate) fn due(&mut self, now: u64) -> Option<(Part, bool)> {
        self.deadline().filter(|at| *at <= now)?;
        let index = *self.order.get(self.moved as usize)?;
        self.moved += 1;
        Some((Part { index, count: self.count }, self.moved == self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times and parts of a plan to whose questions these are the answers.
    fn played(freedom: Freedom, answers: &[u32]) -> (Vec<u32>, Vec<(u64, u32, bool)>) {
        let mut plan = Plan::new(freedom, 1_000, 100);
        let (mut asked, mut answers) = (Vec::new(), answers.iter());
        while let Some(question) = plan.question() {
            assert_eq!(plan.deadline(), None, "nothing is moved before it is answered");
            asked.push(question.answers);
            plan.answer(answers.next().copied().unwrap_or(0));
        }
        let mut parts = Vec::new();
        while let Some(at) = plan.deadline() {
            assert!(plan.due(at - 1).is_none());
            let (part, is_last) = plan.due(at).unwrap();
            parts.push((at, part.index, is_last));
            if is_last {
                break;
            }
        }
        (asked, parts)
    }

    #[test]
    fn a_card_without_freedom_is_asked_nothing_and_one_with_it_does_the_same_by_default() {
        assert_eq!(played(Freedom::default(), &[]), (vec![], vec![(1_100, 0, true)]));
        assert_eq!(played(Freedom { late: 3, pieces: 4 }, &[]), (vec![3, 4], vec![(1_100, 0, true)]));
    }

    #[test]
    fn parts_come_later_and_in_the_order_that_is_chosen() {
        let (asked, parts) = played(Freedom { late: 3, pieces: 4 }, &[2, 2, 1, 1]);
        assert_eq!(asked, [3, 4, 3, 2]);
        assert_eq!(parts, [(1_100, 1, false), (1_200, 2, false), (1_300, 0, true)]);
        let part = |index| Part { index, count: 3 }.of(10);
        assert_eq!([part(0), part(1), part(2)], [0..3, 3..6, 6..10]);
    }
}
