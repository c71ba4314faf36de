//! What a call may use up before it counts as an endless loop: instructions, and what calls of the kernel stand for.
//!
//! A loop that spends its time in kernel services runs few instructions of its own. So each call counts as [`SERVICE`] more,
//! and one that prints by [`charge`] as many more. Only the account grows: the clock does not, and no schedule depends on it.
//! (What a service declares as time, as those that move memory do, is on the account anyway.) It follows no page: Windows has no such limit.

use engine::Flow;

use super::{patience, slice};
use crate::cx::{Cx, Kernel};
use crate::ke::State;

/// Instructions that a call of the kernel counts as: a call that makes twenty million of them has no end in sight.
pub(crate) const SERVICE: u64 = 50;
/// The same for a line that the driver prints: a hundred thousand.
pub(crate) const PRINT: u64 = 10_000;
/// The same for each of the host's areas of memory that is mapped or taken away,
const AREA: u64 = 400;
/// and for each page.
const OF_PAGE: u64 = 400;
/// The same for a text or value that is taken from driver memory, or put there, and for each 16 bytes of it.
const DATA: u64 = 20;
/// The same for a thread, its end included.
pub(in crate::ke) const NEW_THREAD: u64 = 20_000;
/// So often in a budget the account is looked at: by default after twenty thousand calls.
const LOOKS: u64 = 1_000;

/// What is used up besides instructions.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Budget {
    /// By [`charge`], in instructions, since boot.
    charged: u64,
    /// When the account is looked at next.
    next_look: u64,
}

impl Budget {
    /// What was used up by [`charge`] since boot.
    pub(crate) const fn charged(&self) -> u64 {
        self.charged
    }

    /// So much more is used up.
    pub(crate) fn charge(&mut self, instructions: u64) {
        self.charged += instructions;
    }
}

impl State {
    /// What was used up besides instructions, since boot.
    #[inline]
    pub(crate) fn services(&self) -> u64 {
        self.sched.spending.charged + SERVICE * self.engine.calls()
    }
}

/// A driver has called the kernel. Whether the account is to be looked at, by [`look`].
#[inline]
pub(in crate::ke) fn is_look_due(k: &Kernel) -> bool {
    k.ke.services() >= k.ke.sched.spending.next_look
}

/// How many calls there will have been when the account is looked at.
pub(in crate::ke) fn calls_until_look(k: &Kernel) -> u64 {
    let Budget { charged, next_look } = k.ke.sched.spending;
    next_look.saturating_sub(charged).div_ceil(SERVICE).saturating_sub(1)
}

/// A service does as much as so many instructions.
#[inline]
pub(crate) fn charge(k: &mut Kernel, instructions: u64) {
    k.ke.sched.spending.charge(instructions);
    k.ke.invalidate_levels();
}

/// The host has changed so many areas, of so many pages.
pub(crate) fn mapped(k: &mut Kernel, areas: usize, pages: u64) {
    charge(k, AREA * areas as u64 + OF_PAGE * pages);
}

/// So many bytes were taken or put.
#[inline]
pub(crate) fn moved(k: &mut Kernel, bytes: u64) {
    charge(k, DATA + bytes / 16);
}

/// As [`charge`], where nothing else would look for long.
///
/// # Errors
/// As [`judge`].
pub(crate) fn spend(cx: &mut Cx<'_>, instructions: u64) -> Flow<()> {
    cx.with(|k| charge(k, instructions));
    judge(cx)
}

/// Whether what runs has used up its budget.
///
/// # Errors
/// The verdict on an endless loop.
fn judge(cx: &mut Cx<'_>) -> Flow<()> {
    let now = cx.engine().now();
    match cx.with(|k| slice::endless(k, now)) {
        Some(verdict) => Err(cx.stop(verdict)),
        None => Ok(()),
    }
}

/// Looks whether what runs has used up its budget, and says when that is looked at next.
///
/// # Errors
/// The verdict on an endless loop.
#[cold]
pub(crate) fn look(cx: &mut Cx<'_>) -> Flow<()> {
    judge(cx)?;
    cx.with(|k| {
        k.ke.sched.spending.next_look = k.ke.services() + (k.ke.sched.budget / LOOKS).max(SERVICE);
        k.ke.invalidate_levels();
    });
    patience::hurry(cx)
}

/// The account is looked at with the next call of the kernel.
pub(crate) fn look_soon(k: &mut Kernel) {
    k.ke.sched.spending.next_look = k.ke.services();
    k.ke.invalidate_levels();
}
