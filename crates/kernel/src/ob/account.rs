//! Which references to access tokens, processes, threads, callback objects, devices of a stack and what threads wait for a driver has taken and not given
//! back: of these the kernel takes none over.
//!
//! Pages: *Life Cycle of an Object*, *ObReferenceObjectByHandle function*, *PsLookupProcessByProcessId function*, *PsReferencePrimaryToken function*,
//! *ExCreateCallback function*, *IoGetAttachedDeviceReference function*, *IoGetLowerDeviceObject function*.
//! Other references to devices, those to files and others are passed on with their references (to the PnP manager, into an MDL), so no account is kept of them.

use super::object::{self, Kind};
use crate::cx::Cx;
use crate::ldr;
use crate::mm::pool;
use crate::se::subject;

/// A reference.
struct Taken {
    body: u64,
    /// [`OBJECT`], or what else has taken it.
    taken_by: &'static str,
    /// Base of the image.
    owner: u64,
    /// Return address of its call.
    caller: u64,
}

/// All of them, in the order in which they were taken.
#[derive(Default)]
pub(crate) struct State(Vec<Taken>);

/// What takes a reference to any object.
pub(crate) const OBJECT: &str = "ObReferenceObject";

const fn is_counted(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Callback
            | Kind::Event
            | Kind::Mutant
            | Kind::Process
            | Kind::Semaphore
            | Kind::Thread
            | Kind::Timer
    )
}

/// A driver has taken one by [`OBJECT`] or another routine for objects of any kind.
pub(crate) fn taken(cx: &mut Cx<'_>, body: u64) {
    if object::kind(cx, body).is_some_and(is_counted) {
        note(cx, OBJECT, body);
    }
}

/// A driver has taken one by a routine of its own kind.
pub(crate) fn note(cx: &mut Cx<'_>, taken_by: &'static str, body: u64) {
    if let (Some(owner), caller) = pool::caller(cx) {
        cx.with(|k| k.ob.account.0.push(Taken { body, taken_by, owner, caller }));
    }
}

/// A driver gives one back by `ObDereferenceObject`, a token, too, as drivers of Windows 2000 do: any but that of a subject context.
pub(crate) fn given_back(cx: &mut Cx<'_>, body: u64) {
    if cx.with(|k| !k.ob.account.0.is_empty()) {
        forget(cx, body, |taken_by| taken_by != subject::CAPTURE);
    }
}

/// One is given back: of the driver's own before another's.
pub(crate) fn forget(cx: &mut Cx<'_>, body: u64, taken_by: impl Fn(&str) -> bool) {
    let owner = pool::caller(cx).0;
    cx.with(|k| {
        let all = &mut k.ob.account.0;
        let is_it = |known: &Taken| known.body == body && taken_by(known.taken_by);
        let own = all.iter().rposition(|known| is_it(known) && Some(known.owner) == owner);
        if let Some(found) = own.or_else(|| all.iter().rposition(is_it)) {
            all.remove(found);
        }
    });
}

/// A reference that a driver has left: what has taken it, and where.
pub(crate) struct Left {
    pub(crate) taken_by: &'static str,
    pub(crate) body: u64,
    pub(crate) caller: String,
}

/// The references that the image at `owner` has left.
pub(crate) fn outstanding(cx: &mut Cx<'_>, owner: u64) -> Vec<Left> {
    let left: Vec<_> = cx.with(|k| {
        let own = k.ob.account.0.iter().filter(|taken| taken.owner == owner);
        own.map(|taken| (taken.taken_by, taken.body, taken.caller)).collect()
    });
    let described =
        |(taken_by, body, caller)| Left { taken_by, body, caller: ldr::symbols::describe(cx, caller) };
    left.into_iter().map(described).collect()
}
