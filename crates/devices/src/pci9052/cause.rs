//! What a board of which nothing is known does by itself: it makes an interrupt input active until the driver has taken back what it takes for the cause.
//!
//! *Ours*: that is so at its third access to the local bus behind a read of INTCSR that showed the input active; where it never looks there, at its twelfth;
//! or after 200 ms: a driver that lets the level interrupt without a look at the board shows as a storm by then, and one that looks for the cause elsewhere is
//! not called for ever.

/// The access to the local bus that takes a cause back which the driver has seen, and one that it may not have seen.
const ACCESSES: u32 = 3;
const UNSEEN: u32 = 12;
/// How long it lasts otherwise, in ns.
const LONGEST: u64 = 200_000_000;

#[derive(Clone, Copy, Debug)]
struct Cause {
    /// So many accesses take it back.
    accesses: u32,
    seen: bool,
    until: u64,
}

/// One for each input.
#[derive(Clone, Default, Debug)]
pub(super) struct Causes([Option<Cause>; 2]);

impl Causes {
    /// The board raises one, or takes it back itself.
    pub(super) fn set(&mut self, input: usize, raised: bool, now: u64) {
        self.0[input] = raised.then_some(Cause { accesses: UNSEEN, seen: false, until: now + LONGEST });
    }

    pub(super) fn raised(&self) -> [bool; 2] {
        self.0.map(|cause| cause.is_some())
    }

    /// The driver has read INTCSR.
    pub(super) fn seen(&mut self) {
        for cause in self.0.iter_mut().flatten().filter(|cause| !cause.seen) {
            (cause.seen, cause.accesses) = (true, ACCESSES);
        }
    }

    /// The driver has accessed the local bus.
    pub(super) fn accessed(&mut self) {
        for cause in &mut self.0 {
            let left = cause.filter(|cause| cause.accesses > 1);
            *cause = left.map(|cause| Cause { accesses: cause.accesses - 1, ..cause });
        }
    }

    /// When the first of them ends by itself.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.0.iter().flatten().map(|cause| cause.until).min()
    }

    pub(super) fn advance(&mut self, now: u64) {
        for cause in &mut self.0 {
            *cause = cause.filter(|cause| cause.until > now);
        }
    }
}
