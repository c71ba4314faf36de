//! For how long a page stays open to writes that is as its copy each time the two are compared.
//!
//! A comparison costs little, but comes each time the machine is taken back; a page that is closed costs a fault when it is next written, or a share of one where a
//! fault opens many. So a page that is opened has few comparisons in vain, twice as many when it is opened again soon after it was closed, and half as
//! many when it has differed only after more than a fault would have cost. What one sequence of requests in thirty writes to is closed soon, and
//! what every fifth writes to stays open.

/// So many comparisons in vain a page has at first, and at most.
const FEWEST: u8 = 4;
const MOST: u8 = 128;
/// A fault costs as much as so many comparisons, and to copy a page as much as so many.
const FAULT: u64 = 24;
const COPY: u8 = 2;

/// How a page was used so far. All zeros: it was never open.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Use {
    /// When it was closed, in times that the machine was taken back, which begin at zero again.
    closed: u16,
    /// Comparisons in vain since the page was opened or last differed, and as many as it has.
    in_vain: u8,
    patience: u8,
    /// What it costs to open the page, in comparisons.
    cost: u8,
    /// It has differed since it was opened.
    differed: bool,
}

impl Use {
    /// The page is opened, as one of so many that a fault opens.
    pub(super) fn open(&mut self, now: u16, together: u64) {
        let share = FAULT / together.max(1);
        #[allow(clippy::cast_possible_truncation, reason = "a share is less than the whole, which is small")]
        let cost = COPY + share as u8;
        // A page that is always the same again is written to while it is open, too, for all that is known.
        let open_in_vain = if self.differed { u16::from(self.patience) } else { 0 };
        let since_written = now.wrapping_sub(self.closed).saturating_add(open_in_vain);
        let soon = self.patience > 0 && since_written < u16::from(self.cost);
        self.patience = if soon { MOST.min(self.patience.saturating_mul(2)) } else { FEWEST.min(cost) };
        (self.cost, self.in_vain, self.differed) = (cost, 0, false);
    }

    /// It was compared.
    pub(super) fn compared(&mut self, differs: bool) {
        if !differs {
            self.in_vain = self.in_vain.saturating_add(1);
            return;
        }
        self.differed = true;
        if self.in_vain > self.cost {
            self.patience = FEWEST.min(self.cost).max(self.patience / 2);
        }
        self.in_vain = 0;
    }

    /// Whether it is to be closed.
    pub(super) fn is_quiet(self) -> bool {
        self.in_vain >= self.patience
    }

    /// It is closed.
    pub(super) fn close(&mut self, now: u16) {
        self.closed = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page and whether it is open, how many of all times it was, and how often it was opened.
    #[derive(Default)]
    struct Page {
        used: Use,
        is_open: bool,
        open: u16,
        faults: u16,
    }

    impl Page {
        /// The machine was taken back once more.
        fn pass(&mut self, now: u16, is_written: bool, differs: bool, together: u64) {
            if is_written && !self.is_open {
                self.used.open(now, together);
                (self.is_open, self.faults) = (true, self.faults + 1);
            }
            if self.is_open {
                self.open += 1;
                self.used.compared(differs);
                if self.used.is_quiet() {
                    self.used.close(now);
                    self.is_open = false;
                }
            }
        }
    }

    /// One that is written every so many of a thousand times, opened by faults that open so many.
    fn written_every(times: u16, together: u64) -> Page {
        let mut page = Page::default();
        (0..1_000).for_each(|now| page.pass(now, now % times == 0, now % times == 0, together));
        page
    }

    #[test]
    fn a_page_that_is_often_written_stays_open_and_one_that_seldom_is_is_closed_soon() {
        let always = written_every(1, 1);
        assert_eq!((always.open, always.faults), (1_000, 1));
        let often = written_every(15, 1);
        assert!(often.open > 900 && often.faults < 6, "{} {}", often.open, often.faults);
        let seldom = written_every(100, 1);
        assert!(seldom.open < 60 && seldom.faults == 10, "{} {}", seldom.open, seldom.faults);
        let of_many = written_every(15, 64);
        assert!(of_many.open < 250, "it costs little to open them: {}", of_many.open);
    }

    #[test]
    fn a_page_that_was_often_written_and_seldom_is_now_is_closed_soon() {
        let mut page = Page::default();
        (0..1_000).for_each(|now| page.pass(now, true, false, 1));
        assert!(page.faults < 14, "as it was each time, and opened seldom: {}", page.faults);
        page.open = 0;
        (1_000..2_000).for_each(|now| page.pass(now, now % 50 == 0, now % 50 == 0, 1));
        assert!(page.open < 400, "{}", page.open);
    }
}
