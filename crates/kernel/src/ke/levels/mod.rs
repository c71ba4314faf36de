//! Levels: the IRQL of each processor, the spin locks that bound it, and what a change of level lets in.
//!
//! The lowest room. `settle` alone names the rooms above: it asks each what waits there, and lets it in. The others know numbers, the
//! engine's level, and what was said here of what waits ([`State`]).
//!
//! Driver code changes its level by itself (CR8, the exports of [`irql::short`], free spin locks) as long as that can let nothing in, break
//! no rule and miss no event. Two numbers say how far, and both may only err upwards: what waits ([`crate::ke::State::unsettled`] and
//! [`crate::ke::State::waits_below`] raise it wherever something begins to wait; one look at everything, [`crate::cx::Kernel::settled`],
//! lowers it), and what is forbidden (a lock is held, a routine has a level of its own, a reader wants levels). A place that makes
//! something wait and does not say so is a bug that only debug assertions find (`check_settled`). `settle::next` answers in one look what
//! `next_work` and `waiting` say in two; debug assertions compare them.

pub(crate) mod irql;
pub(in crate::ke) mod level;
pub(crate) mod locks;
pub(crate) mod settle;
