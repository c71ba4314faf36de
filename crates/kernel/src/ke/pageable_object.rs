//! Objects of the kernel's that a driver keeps in pageable memory. Follows *Bug Check 0xC4* (E1, 131), *Force IRQL Checking*.
//!
//! The kernel touches them at DISPATCH_LEVEL, whatever the driver's level is then. Looked at where they are initialised: what lies in paged
//! pool. *Not looked at*: pageable sections of images, and spin locks, whose initialisation is a store of the driver's own.

use engine::Flow;

use crate::cx::Cx;
use crate::mm::space::Zone;
use crate::verdict::Verdict;

/// Parameter 1 of Verifier's bug check for objects that synchronise, and for work items.
pub(crate) const SYNCHRONIZES: u64 = 0xE1;
pub(crate) const WORK_ITEM: u64 = 0x131;

/// An object called `what` is initialised at `address`.
///
/// # Errors
/// As [`Cx::verify`].
#[inline]
pub(crate) fn initialized(cx: &mut Cx<'_>, address: u64, what: &str, code: u64) -> Flow<()> {
    if Zone::PagedPool.window().contains(address) { pageable(cx, address, what, code) } else { Ok(()) }
}

#[cold]
fn pageable(cx: &mut Cx<'_>, address: u64, what: &str, code: u64) -> Flow<()> {
    let message =
        format!("the {what} at {address:#x} lies in paged pool, and the kernel uses it at DISPATCH_LEVEL");
    let verdict = Verdict::verifier("object-in-pageable-memory", message);
    cx.verify(verdict.bug_check(0xC4, [code, address, 0, 0]))
}
