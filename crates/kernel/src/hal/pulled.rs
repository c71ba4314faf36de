//! `interrupt-claimed-without-card`: a service routine says that its device has interrupted, and the device was pulled out: all that the routine has read
//! are the ones that nothing answers with.
//!
//! Pages: *Writing an ISR* (the routine returns FALSE if the interrupt is not its device's), *Handling an IRP_MN_SURPRISE_REMOVAL Request*.
//! Others on the line are not asked behind a routine that claims a level. *It does not* see
//! routines that read a register of a device that is there as well, or none.

use super::access::RegisterAccess;
use super::hardware::{Function, Window};
use super::stale;
use crate::cx::{Cx, Kernel};
use crate::ldr;
use crate::pnp::surprise;
use crate::verdict::Verdict;

/// What a processor has read in service routines since a card was pulled out.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reads {
    /// Of cards that are gone,
    of_gone: u64,
    /// and of others.
    of_others: u64,
}

/// The windows of cards that were pulled out.
#[derive(Default)]
pub(crate) struct Pulled {
    windows: Vec<Window>,
    /// By processors.
    reads: Vec<Reads>,
}

impl Pulled {
    /// A card is pulled out.
    pub(crate) fn add(&mut self, card: &Function) {
        self.windows.extend(card.windows.iter().copied());
    }

    fn has(&self, port: bool, address: u64) -> bool {
        self.windows.iter().any(|window| window.has(port, address))
    }
}

/// A register was read or written.
#[inline]
pub(super) fn accessed(k: &mut Kernel, access: RegisterAccess) {
    if !k.hal.pulled.windows.is_empty() && !access.write {
        count(k, access);
    }
}

#[cold]
fn count(k: &mut Kernel, access: RegisterAccess) {
    if !stale::is_in_service_routine(k) {
        return;
    }
    let RegisterAccess { port, address, .. } = access;
    let is_gone = k.hal.pulled.has(port, address) && surprise::present_at(k, port, address).is_none();
    let (processor, all) = (k.ke.current, &mut k.hal.pulled.reads);
    if all.len() <= processor {
        all.resize(processor + 1, Reads::default());
    }
    let reads = &mut all[processor];
    *if is_gone { &mut reads.of_gone } else { &mut reads.of_others } += 1;
}

/// What the processor has read in service routines so far; none as long as no card was pulled out.
#[inline]
pub(crate) fn reads(k: &Kernel) -> Option<Reads> {
    let Pulled { windows, reads } = &k.hal.pulled;
    (!windows.is_empty()).then(|| reads.get(k.ke.current).copied().unwrap_or_default())
}

/// A routine for a level that has begun behind these reads has claimed it.
#[cold]
pub(crate) fn judge_claimed(cx: &mut Cx<'_>, before: Reads, routine: u64) {
    let now = cx.with(|k| reads(k)).unwrap_or_default();
    if now.of_gone == before.of_gone || now.of_others != before.of_others {
        return;
    }
    let line = ldr::stack::line_of(cx, routine);
    let message = format!(
        "the service routine {} has returned TRUE, and has read nothing but ones of a card that was pulled out: the interrupt is that of another \
         device on the line, whose routine is not called now",
        line.symbol
    );
    // What was interrupted has nothing to do with it.
    cx.report(Verdict { stack: vec![line], ..Verdict::warning("interrupt-claimed-without-card", message) });
}
