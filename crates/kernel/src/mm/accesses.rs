//! Accesses to memory as events ([`Event::Access`]): those of driver code, and those that a routine of the kernel's makes in its place.
//!
//! It only hands them on: no choice, no time and no memory of the machine depends on whether a reader hears of them. Left out is the stack of what
//! runs: as long as no pointer to it is given away, no other code knows of it. A routine's own accesses are reported by the few that move, fill,
//! compare and search bytes (`rtl::memory`) and by sequenced lists (`ex::slist`). What other exports read and write is dirql's own way to do it
//! (it may read a structure whole where Windows reads a field), and no event.

use engine::MemoryAccess;

use crate::cx::Cx;
use crate::event::{AccessKind, Event, Kind};
use crate::hal::access;
use crate::ke::stack;

/// Driver code is about to access memory.
pub(crate) fn by_driver(cx: &Cx<'_>, made: &MemoryAccess) {
    report(cx, made, false);
}

/// A routine that a driver has called has loaded or stored these bytes for it.
#[inline]
pub(crate) fn by_routine(cx: &Cx<'_>, address: u64, bytes: u64, kind: AccessKind) {
    if cx.nt().wants_accesses() {
        of_routine(cx, address, bytes, kind, false);
    }
}

/// The same where no other processor comes between its load and its store.
#[inline]
pub(crate) fn interlocked(cx: &Cx<'_>, address: u64, bytes: u64) {
    if cx.nt().wants_accesses() {
        of_routine(cx, address, bytes, AccessKind::Update, true);
    }
}

#[cold]
#[inline(never)]
fn of_routine(cx: &Cx<'_>, address: u64, bytes: u64, kind: AccessKind, atomic: bool) {
    let code = cx.engine().caller_rip();
    if bytes != 0 && code != 0 && !access::answers(address) {
        report(
            cx,
            &MemoryAccess { address, bytes, kind, atomic, adds: false, stored_back: None, rip: code },
            true,
        );
    }
}

/// Unless it is the stack's of what runs.
fn report(cx: &Cx<'_>, made: &MemoryAccess, kernel: bool) {
    let MemoryAccess { address, bytes, kind, atomic, rip: code, .. } = *made;
    let own = stack::limits(&cx.nt().kernel.borrow());
    if !(own.limit..own.base).contains(&address) {
        cx.nt().deliver_accesses(std::slice::from_ref(made), kernel);
        cx.detail(Kind::Access, || Event::Access { address, bytes, kind, atomic, kernel, code });
    }
}
