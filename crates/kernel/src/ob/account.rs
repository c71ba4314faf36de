//! Which references to processes, threads and what threads wait for a driver has taken and not given back: of these the kernel takes none over.
//!
//! Pages: *Life Cycle of an Object*, *ObReferenceObjectByHandle function*, *PsLookupProcessByProcessId function*. Devices, files and others are
//! passed on with their references (to the PnP manager, into an MDL), so no account is kept of them.

use super::object::{self, Kind};
use crate::cx::Cx;
use crate::ldr;
use crate::mm::pool;

/// A reference.
struct Taken {
    body: u64,
    kind: Kind,
    /// Base of the image.
    owner: u64,
    /// Return address of its call.
    caller: u64,
}

/// All of them, in the order in which they were taken.
#[derive(Default)]
pub(crate) struct State(Vec<Taken>);

const fn is_counted(kind: Kind) -> bool {
    matches!(kind, Kind::Event | Kind::Mutant | Kind::Process | Kind::Semaphore | Kind::Thread | Kind::Timer)
}

/// A driver has taken one.
pub(crate) fn taken(cx: &mut Cx<'_>, body: u64) {
    let Some(kind) = object::kind(cx, body).filter(|kind| is_counted(*kind)) else { return };
    if let (Some(owner), caller) = pool::caller(cx) {
        cx.with(|k| k.ob.account.0.push(Taken { body, kind, owner, caller }));
    }
}

/// A driver gives one back: one of its own before another's.
pub(crate) fn given_back(cx: &mut Cx<'_>, body: u64) {
    if cx.with(|k| k.ob.account.0.is_empty()) {
        return;
    }
    let owner = pool::caller(cx).0;
    cx.with(|k| {
        let all = &mut k.ob.account.0;
        let own = all.iter().rposition(|known| known.body == body && Some(known.owner) == owner);
        if let Some(found) = own.or_else(|| all.iter().rposition(|known| known.body == body)) {
            all.remove(found);
        }
    });
}

/// What an image has left: the object's kind, the object, and who has referenced it.
pub(crate) fn outstanding(cx: &mut Cx<'_>, owner: u64) -> Vec<(Kind, u64, String)> {
    let left: Vec<_> = cx.with(|k| {
        let own = k.ob.account.0.iter().filter(|taken| taken.owner == owner);
        own.map(|taken| (taken.kind, taken.body, taken.caller)).collect()
    });
    let described = |(kind, body, caller)| (kind, body, ldr::symbols::describe(cx, caller));
    left.into_iter().map(described).collect()
}
