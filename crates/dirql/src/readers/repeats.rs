//! Lines that come again and again, as those of a timer that expires every millisecond: the first few dozen are shown, then how many more
//! there were. It follows no page.

use std::collections::VecDeque;

/// Lines that come by turns at most.
const BY_TURNS: usize = 8;
/// So many lines in a row that have all been there lately are shown.
const SHOWN: u32 = 64;

/// What is known of the lines shown last.
#[derive(Default)]
pub(super) struct Repeats {
    lately: VecDeque<String>,
    /// So many lines in a row have all been there lately.
    again: u32,
    /// So many of them were not shown.
    hidden: u64,
}

/// What is to be done with a line.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is shown, behind a remark on so many that were not.
    Shown(u64),
    /// It says nothing new.
    Hidden,
}

impl Repeats {
    /// A line, without its time, comes.
    pub(super) fn look(&mut self, text: &str) -> Fate {
        if self.lately.iter().any(|line| line == text) {
            self.again += 1;
            if self.again > SHOWN {
                self.again = SHOWN;
                self.hidden += 1;
                return Fate::Hidden;
            }
            return Fate::Shown(0);
        }
        self.again = 0;
        if self.lately.len() == BY_TURNS {
            self.lately.pop_front();
        }
        self.lately.push_back(text.to_owned());
        Fate::Shown(self.rest())
    }

    /// The number of hidden lines that no line has reported yet.
    pub(super) fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_and_again_is_counted_until_something_else_comes() {
        let mut repeats = Repeats::default();
        let looked: Vec<Fate> =
            (0..1_000).map(|line| repeats.look(if line % 2 == 0 { "DPC queued" } else { "DPC" })).collect();
        assert_eq!(looked.iter().filter(|fate| **fate == Fate::Shown(0)).count(), 66, "two, and 64 again");
        assert_eq!(repeats.look("something else"), Fate::Shown(934));
        assert_eq!(repeats.look("DPC"), Fate::Shown(0), "a new row begins");
        assert_eq!(repeats.rest(), 0);
    }
}
