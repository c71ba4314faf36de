//! Every decision of the machine that could have gone otherwise is a question to one [`Chooser`].
//!
//! Answer 0 is the default. A record of a run holds only the answers that are not, keyed by (strand, point,
//! occurrence). Policies live in other crates; here is only the one that always answers 0.

/// Where a decision is taken: a name that stays the same between versions, e.g. `ke.next_strand`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Point(pub &'static str);

/// Answers the machine's questions. It lives outside the machine and is not rewound with it.
pub trait Chooser {
    /// One of `0..n` (`n` ≥ 1), asked by `strand` at `point`.
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32;

    /// How many driver instructions may retire before the next question about preemption; at least 1.
    fn slice(&mut self, strand: u32) -> u64;
}

/// Always answers 0 and never preempts: run until blocked.
#[derive(Clone, Copy, Default, Debug)]
pub struct Defaults;

impl Chooser for Defaults {
    fn choose(&mut self, _strand: u32, _point: Point, _n: u32) -> u32 {
        0
    }

    fn slice(&mut self, _strand: u32) -> u64 {
        u64::MAX
    }
}
