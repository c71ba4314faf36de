//! A client's event callbacks: what it gives to its framework is an address of ours (`ldr::between`), so that each call of a callback is seen
//! as a call of a routine of any driver's is, with its role and the handle that it is called for.
//!
//! Callbacks stand in structures that a client hands over (their layouts are those of the public headers, and have only grown), or are arguments
//! themselves. A structure may be constant, so the framework gets a copy of it, which lives until the call is over.

use std::collections::BTreeMap;

use abi::DriverPtr;
use engine::{Args, Flow, StrandId};

use super::ddis::{DDIS, index_of};
use super::{TAG, answers, power_policy};
use crate::cx::Cx;
use crate::event::{Event, Role};
use crate::ke::{irql, stack};
use crate::ldr::between::callback::{self, SLOTS};
use crate::ldr::{self, between, symbols};
use crate::mm::pool;
use crate::verdict::Verdict;

/// Where a function of the framework gets callbacks.
struct Given {
    ddi: &'static str,
    /// Which argument it is, from 0.
    argument: u64,
    what: What,
}

/// What that argument is.
enum What {
    /// A callback.
    Routine(Role),
    /// The address of a structure that begins with its size, and has callbacks at these offsets: what they are of, in words.
    Structure(&'static str, &'static [(u64, Role)]),
}

const fn structure(
    ddi: &'static str,
    argument: u64,
    of: &'static str,
    members: &'static [(u64, Role)],
) -> Given {
    Given { ddi, argument, what: What::Structure(of, members) }
}

const fn routine(ddi: &'static str, argument: u64, role: Role) -> Given {
    Given { ddi, argument, what: What::Routine(role) }
}

static GIVEN: [Given; 14] = [
    structure(
        "WdfDeviceInitSetFileObjectConfig",
        2,
        "files",
        &[(0x8, Role::EvtDeviceFileCreate), (0x10, Role::EvtFileClose), (0x18, Role::EvtFileCleanup)],
    ),
    routine("WdfDeviceInitSetIoInCallerContextCallback", 2, Role::EvtIoInCallerContext),
    structure(
        "WdfDeviceInitSetPnpPowerEventCallbacks",
        2,
        "device",
        &[
            (0x8, Role::EvtDeviceD0Entry),
            (0x10, Role::EvtDeviceD0EntryPostInterruptsEnabled),
            (0x18, Role::EvtDeviceD0Exit),
            (0x20, Role::EvtDeviceD0ExitPreInterruptsDisabled),
            (0x28, Role::EvtDevicePrepareHardware),
            (0x30, Role::EvtDeviceReleaseHardware),
            (0x38, Role::EvtDeviceSelfManagedIoCleanup),
            (0x40, Role::EvtDeviceSelfManagedIoFlush),
            (0x48, Role::EvtDeviceSelfManagedIoInit),
            (0x50, Role::EvtDeviceSelfManagedIoSuspend),
            (0x58, Role::EvtDeviceSelfManagedIoRestart),
            (0x60, Role::EvtDeviceSurpriseRemoval),
            (0x68, Role::EvtDeviceQueryRemove),
            (0x70, Role::EvtDeviceQueryStop),
            (0x78, Role::EvtDeviceUsageNotification),
            (0x80, Role::EvtDeviceRelationsQuery),
            (0x88, Role::EvtDeviceUsageNotificationEx),
        ],
    ),
    structure("WdfDpcCreate", 1, "DPC", &[(0x8, Role::EvtDpcFunc)]),
    structure(
        "WdfDriverCreate",
        4,
        "driver",
        &[(0x8, Role::EvtDriverDeviceAdd), (0x10, Role::EvtDriverUnload)],
    ),
    structure(
        "WdfInterruptCreate",
        2,
        "interrupt",
        &[
            (0x18, Role::EvtInterruptIsr),
            (0x20, Role::EvtInterruptDpc),
            (0x28, Role::EvtInterruptEnable),
            (0x30, Role::EvtInterruptDisable),
            (0x38, Role::EvtInterruptWorkItem),
        ],
    ),
    routine("WdfInterruptSynchronize", 2, Role::EvtInterruptSynchronize),
    structure(
        "WdfIoQueueCreate",
        2,
        "queue",
        &[
            (0x10, Role::EvtIoDefault),
            (0x18, Role::EvtIoRead),
            (0x20, Role::EvtIoWrite),
            (0x28, Role::EvtIoDeviceControl),
            (0x30, Role::EvtIoInternalDeviceControl),
            (0x38, Role::EvtIoStop),
            (0x40, Role::EvtIoResume),
            (0x48, Role::EvtIoCanceledOnQueue),
        ],
    ),
    routine("WdfIoQueueReadyNotify", 2, Role::EvtIoQueueState),
    routine("WdfRequestMarkCancelable", 2, Role::EvtRequestCancel),
    routine("WdfRequestMarkCancelableEx", 2, Role::EvtRequestCancel),
    routine("WdfRequestSetCompletionRoutine", 2, Role::EvtRequestCompletionRoutine),
    structure("WdfTimerCreate", 1, "timer", &[(0x8, Role::EvtTimerFunc)]),
    structure("WdfWorkItemCreate", 1, "work item", &[(0x8, Role::EvtWorkItem)]),
];

/// Where each function's row stands among these; beyond them, that it gets no callbacks.
static PLACES: [u8; DDIS.len()] = {
    let mut places = [u8::MAX; DDIS.len()];
    let mut row: u8 = 0;
    while (row as usize) < GIVEN.len() {
        places[index_of(GIVEN[row as usize].ddi)] = row;
        row += 1;
    }
    places
};

/// No structure of these has more bytes; what says so is none of them, and is handed on as it is.
const MOST_BYTES: u32 = 0x200;

/// The callbacks that are known, and the copies of structures whose calls are not over.
#[derive(Default)]
pub(super) struct Callbacks {
    /// By their slots.
    routines: Vec<(u64, Role)>,
    slots: BTreeMap<(u64, Role), usize>,
    /// What they are of, those that were handed over together.
    together: Vec<(&'static str, Vec<(Role, u64)>)>,
    copies: Vec<Copy>,
}

impl Callbacks {
    /// Whether calls of any thread may be over whose structures were copied.
    pub(super) fn has_any_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Whether calls of this thread may be over whose structures were copied.
    #[inline]
    pub(super) fn has_copies(&self, strand: StrandId) -> bool {
        self.copies.iter().any(|copy| copy.strand == strand)
    }
}

/// A copy of a structure, for the call whose return address lies at `place`, of this thread.
struct Copy {
    strand: StrandId,
    place: u64,
    block: DriverPtr<u8>,
}

/// Whether the function of this index gets callbacks.
#[inline]
pub(super) fn is_given(index: usize) -> bool {
    PLACES[index] != u8::MAX
}

/// A client calls a function of its framework: the framework gets our addresses for the callbacks that are handed over. `place` is where the
/// return address lies on the client's stack, below its arguments.
///
/// # Errors
/// A verdict if what is handed over cannot be read.
#[inline(never)]
pub(super) fn hand_over(cx: &mut Cx<'_>, index: usize, place: u64, args: &Args) -> Flow<()> {
    forget_calls(cx, place)?;
    match GIVEN.get(usize::from(PLACES[index])) {
        Some(given) => replace(cx, given, place, args),
        None => Ok(()),
    }
}

/// Replaces the callbacks in an argument by ours.
fn replace(cx: &mut Cx<'_>, given: &Given, place: u64, args: &Args) -> Flow<()> {
    // What the framework reads: the caller's home space, which is loaded again, and the arguments behind it.
    let argument: DriverPtr<u64> = DriverPtr::new(place + 8 + 8 * given.argument);
    let value = match args.registers.get(usize::try_from(given.argument).expect("one of eight")) {
        Some(value) => *value,
        None => cx.read(argument)?,
    };
    match given.what {
        What::Routine(role) => match ours(cx, value, role) {
            Some(entry) => cx.write(argument, entry),
            None => Ok(()),
        },
        What::Structure(of, members) => match copy(cx, value, (of, members), place)? {
            Some(copy) => cx.write(argument, copy),
            None => Ok(()),
        },
    }
}

/// What the driver whose image begins at `base` has given its framework callbacks of, and which: a line each, for the device tree.
pub(super) fn shown(cx: &mut Cx<'_>, base: u64) -> Vec<String> {
    cx.with(|k| {
        let is_its = |(_, routines): &&(&str, Vec<(Role, u64)>)| {
            routines.iter().any(|(_, routine)| ldr::image_containing(k, *routine) == Some(base))
        };
        let line = |(of, routines): &(&str, Vec<(Role, u64)>)| {
            let routines = routines.iter();
            let routines = routines.map(|(role, at)| format!("{} {}", role.name(), symbols::code(k, *at)));
            format!("{of}: {}", routines.collect::<Vec<_>>().join(", "))
        };
        k.wdf.callbacks.together.iter().filter(is_its).map(line).collect()
    })
}

/// Whether pool may be allocated and freed at this level.
fn has_pool(cx: &Cx<'_>) -> bool {
    cx.engine().level() <= irql::DISPATCH_LEVEL
}

/// The address of ours for a callback; none for a null pointer, one that is ours, and where there are too many.
fn ours(cx: &mut Cx<'_>, routine: u64, role: Role) -> Option<u64> {
    if routine == 0 || between::contains(routine) {
        return None;
    }
    cx.with(|k| {
        let callbacks = &mut k.wdf.callbacks;
        if let Some(slot) = callbacks.slots.get(&(routine, role)) {
            return Some(callback::entry(*slot));
        }
        let slot = callbacks.routines.len();
        if slot >= SLOTS {
            return None;
        }
        callbacks.routines.push((routine, role));
        callbacks.slots.insert((routine, role), slot);
        answers::callback_comes(k, slot, (routine, role));
        Some(callback::entry(slot))
    })
}

/// A copy of the structure at `from` with our addresses in it.
fn copy(
    cx: &mut Cx<'_>,
    from: u64,
    (of, members): (&'static str, &[(u64, Role)]),
    place: u64,
) -> Flow<Option<u64>> {
    if from == 0 || !has_pool(cx) {
        return Ok(None);
    }
    let size = cx.read(DriverPtr::<u32>::new(from))?;
    if size > MOST_BYTES {
        return Ok(None);
    }
    let mut bytes = cx.read_bytes(from, size.into())?;
    let mut given = Vec::new();
    for (offset, role) in members {
        let at = usize::try_from(*offset).expect("small");
        let Some(member) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) else { break };
        let routine = u64::from_le_bytes(*member);
        if let Some(entry) = ours(cx, routine, *role) {
            *member = entry.to_le_bytes();
            given.push((*role, routine));
        }
    }
    if given.is_empty() {
        return Ok(None);
    }
    let given = (of, given);
    cx.with(|k| {
        let together = &mut k.wdf.callbacks.together;
        if !together.contains(&given) {
            together.push(given);
        }
    });
    let block: DriverPtr<u8> = pool::allocate(cx, pool::Kind::NonPaged, size.into(), TAG)?;
    if block.is_null() {
        return Ok(None); // the callbacks are called, and not seen
    }
    cx.write_bytes(block.address, &bytes)?;
    let strand = cx.engine().strand();
    cx.with(|k| {
        k.wdf.callbacks.copies.push(Copy { strand, place, block });
        answers::open(k);
    });
    Ok(Some(block.address))
}

/// Frees the copies of this thread's calls that are over: of those that were made from as deep in the stack as `place`, or deeper.
fn forget_calls(cx: &mut Cx<'_>, place: u64) -> Flow<()> {
    let strand = cx.engine().strand();
    if !has_pool(cx) || !cx.with(|k| k.wdf.callbacks.has_copies(strand)) {
        return Ok(());
    }
    // A DPC has a stack of its own, and comes in the middle of calls.
    let stack = cx.with(|k| stack::limits(k));
    let stack = stack.limit..stack.base;
    forget(cx, |copy| copy.strand == strand && stack.contains(&copy.place) && copy.place <= place)
}

/// A routine of a driver has returned that is no callback of a framework's: the calls are over that it has made on this thread.
///
/// # Errors
/// A verdict if a driver has damaged a copy.
pub(crate) fn routine_is_over(cx: &mut Cx<'_>) -> Flow<()> {
    let caller = cx.engine().caller();
    forget_calls(cx, caller.map_or(u64::MAX, |caller| caller.registers.rsp()))
}

/// Frees all copies: the last client is gone.
///
/// # Errors
/// A verdict if a driver has damaged them.
pub(super) fn forget_all(cx: &mut Cx<'_>) -> Flow<()> {
    forget(cx, |_| true)
}

fn forget(cx: &mut Cx<'_>, is_over: impl Fn(&Copy) -> bool) -> Flow<()> {
    let over: Vec<Copy> = cx.with(|k| {
        let over = k.wdf.callbacks.copies.extract_if(.., |copy| is_over(copy)).collect();
        answers::open(k);
        over
    });
    over.into_iter().try_for_each(|copy| pool::free(cx, copy.block))
}

/// A framework calls the callback of this slot: its address, where the call goes on.
///
/// # Errors
/// A verdict if an argument cannot be read.
pub(crate) fn enter(cx: &mut Cx<'_>, slot: usize, args: &Args) -> Flow<u64> {
    let (routine, role) = known(cx, slot)?;
    if has_fifth_argument(role) {
        let (to, from) = callback::ARGUMENTS;
        let fifth = cx.read(DriverPtr::<u64>::new(args.rsp + u64::from(from)))?;
        cx.write(DriverPtr::new(args.rsp + u64::from(to)), fifth)?;
    }
    if role == Role::EvtDriverDeviceAdd {
        cx.with(|k| power_policy::init_is_given(k, args.registers[1]));
    }
    let object = args.registers[usize::from(is_for_request(role))];
    cx.emit(Event::Enter { role, routine, object });
    Ok(routine)
}

/// Whether a callback has an argument that is no register's.
pub(super) fn has_fifth_argument(role: Role) -> bool {
    matches!(role, Role::EvtIoDeviceControl | Role::EvtIoInternalDeviceControl)
}

/// The callback of a slot, and its role. A driver that has come to an entry that was given to no framework has a wild pointer.
fn known(cx: &mut Cx<'_>, slot: usize) -> Flow<(u64, Role)> {
    let callback = cx.with(|k| k.wdf.callbacks.routines.get(slot).copied());
    callback.ok_or_else(|| {
        let message = "the driver called code of the frameworks' loader that it was given no address of";
        cx.stop(Verdict::error("execute-of-data", message))
    })
}

/// Whether the second argument is what a callback is called for: a request of the queue, or of the device, that is the first.
fn is_for_request(role: Role) -> bool {
    matches!(
        role,
        Role::EvtDeviceFileCreate
            | Role::EvtIoCanceledOnQueue
            | Role::EvtIoDefault
            | Role::EvtIoDeviceControl
            | Role::EvtIoInCallerContext
            | Role::EvtIoInternalDeviceControl
            | Role::EvtIoRead
            | Role::EvtIoResume
            | Role::EvtIoStop
            | Role::EvtIoWrite
    )
}

/// What the call behind a callback returns, which no code looks at.
pub(super) const BEHIND: u64 = 0;

/// It has returned: the first argument is what. So are the calls over that it has made.
///
/// # Errors
/// A verdict if a driver has damaged a copy.
pub(crate) fn leave(cx: &mut Cx<'_>, slot: usize, args: &Args) -> Flow<u64> {
    forget_calls(cx, args.rsp)?;
    let (routine, role) = known(cx, slot)?;
    cx.emit(Event::Leave { role, routine, value: args.registers[0] });
    Ok(BEHIND)
}

/// The callback of a slot, for verdicts.
pub(crate) fn routine_of(k: &crate::Kernel, slot: usize) -> Option<u64> {
    k.wdf.callbacks.routines.get(slot).map(|(routine, _)| *routine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_function_and_members_are_in_order() {
        for (row, given) in GIVEN.iter().enumerate() {
            let index = DDIS.iter().position(|ddi| ddi.name == given.ddi).unwrap();
            assert_eq!(usize::from(PLACES[index]), row, "{}", given.ddi);
            if let What::Structure(_, members) = given.what {
                assert!(members.is_sorted_by_key(|(offset, _)| *offset), "{}", given.ddi);
                assert!(members.iter().all(|(offset, _)| offset % 8 == 0), "{}", given.ddi);
            }
        }
    }
}
