//! Cards that sit loosely in their slots: `--platform loose-cards`. At each access of driver code to its card the card may be gone: a choice,
//! `fault.card`, by default not. From the next access on its registers read as ones, as after any surprise removal, and the Plug and Play manager, which
//! gets to know of it a little later, sends IRP_MN_SURPRISE_REMOVAL; of a card that goes during its start, behind that.
//!
//! Pages: *Handling an IRP_MN_SURPRISE_REMOVAL Request*, *Unexpected Device Removal*. *Ours*: how long it takes until the system knows.

use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::pnp::surprise;

/// After so many nanoseconds the system knows: longer than a routine at a raised IRQL runs, sooner than any driver gives up.
const NOTICED: u64 = 1_000_000;

/// Which card was accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) port: bool,
    pub(super) address: u64,
}

/// Driver code accesses this place.
#[inline]
pub(super) fn accessed(k: &mut Kernel, port: bool, address: u64) {
    if k.hal.platform.loose_cards {
        k.hal.touched = Some(Place { port, address });
    }
}

/// The access has retired: its card may go now.
///
/// # Errors
/// [`engine::Leave`] of what is let in now.
#[cold]
pub(super) fn may_go(cx: &mut Cx<'_>) -> Flow<()> {
    let Some(Place { port, address }) = cx.with(|k| k.hal.touched.take()) else { return Ok(()) };
    let Some(card) = cx.with(|k| surprise::present_at(k, port, address)) else { return Ok(()) };
    if cx.choose("fault.card", 2) == 1 { surprise::goes(cx, card, NOTICED) } else { Ok(()) }
}
