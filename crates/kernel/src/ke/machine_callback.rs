//! Routines of drivers that are called for changes of the machine: processors that are added, interrupts that cannot be masked.
//!
//! Pages: *KeRegisterProcessorChangeCallback function*, *KeRegisterNmiCallback function*. A machine has all of its processors from the boot on, so
//! only a driver that asks for those that are there gets any; no such interrupt comes.

use abi::{Code, DriverPtr, KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT, NtStatus, PROCESSOR_NUMBER};
use engine::Flow;

use super::calls::callout::call_routine;
use super::sched::affinity;
use crate::cx::Cx;
use crate::event::Role;
use crate::mm::pool;

/// `KE_PROCESSOR_CHANGE_ADD_EXISTING`.
const ADD_EXISTING: u32 = 1;

/// `KE_PROCESSOR_CHANGE_NOTIFY_STATE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Begins = 0,
    Ends = 1,
    Fails = 2,
}

/// What is registered, by the addresses of the blocks that drivers know it by.
#[derive(Default)]
pub(crate) struct State {
    routines: std::collections::BTreeMap<u64, DriverPtr<Code>>,
}

impl State {
    pub(crate) fn all(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        self.routines.values().copied()
    }
}

fn keep(cx: &mut Cx<'_>, routine: DriverPtr<Code>) -> Flow<u64> {
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, 0x20, pool::tag(b"KeCb"))?;
    if !block.is_null() {
        cx.with(|k| k.ke.machine_callbacks.routines.insert(block.address, routine));
    }
    Ok(block.address)
}

fn forget(cx: &mut Cx<'_>, handle: u64) -> Flow<bool> {
    if cx.with(|k| k.ke.machine_callbacks.routines.remove(&handle)).is_none() {
        return Ok(false);
    }
    pool::free(cx, DriverPtr::<()>::new(handle)).map(|()| true)
}

/// `KeRegisterNmiCallback`: a handle, or null without memory.
///
/// # Errors
/// None of its own.
pub(crate) fn register_nmi(cx: &mut Cx<'_>, routine: DriverPtr<Code>, _context: u64) -> Flow<u64> {
    keep(cx, routine)
}

/// `KeDeregisterNmiCallback`.
///
/// # Errors
/// None of its own.
pub(crate) fn deregister_nmi(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    Ok(if forget(cx, handle)? { NtStatus::SUCCESS } else { NtStatus::INVALID_HANDLE })
}

/// `KeRegisterProcessorChangeCallback`: a handle; null without memory, or if the routine refuses a processor that is there.
///
/// # Errors
/// A verdict on the routine.
pub(crate) fn register_processors(
    cx: &mut Cx<'_>,
    routine: DriverPtr<Code>,
    context: u64,
    flags: u32,
) -> Flow<u64> {
    let handle = keep(cx, routine)?;
    if handle == 0 || flags & ADD_EXISTING == 0 {
        return Ok(handle);
    }
    let count = cx.with(|k| affinity::all(k).count_ones());
    for index in 0..count {
        if !tell(cx, routine, context, Stage::Begins, index)?.is_success() {
            for notified in 0..=index {
                let _ = tell(cx, routine, context, Stage::Fails, notified)?;
            }
            forget(cx, handle)?;
            return Ok(0);
        }
    }
    for index in 0..count {
        let _ = tell(cx, routine, context, Stage::Ends, index)?;
    }
    Ok(handle)
}

/// The status that the routine leaves for a processor.
fn tell(cx: &mut Cx<'_>, routine: DriverPtr<Code>, context: u64, stage: Stage, index: u32) -> Flow<NtStatus> {
    type Change = KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT;
    let bytes = size_of::<Change>() as u64 + 8;
    let change: DriverPtr<Change> = pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"KeCb"))?;
    if change.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let (group, number) = cx.with(|k| affinity::number(k, index));
    cx.write(change + Change::State, stage as u32)?;
    cx.write(change + Change::NtNumber, index)?;
    cx.write((change + Change::ProcNumber) + PROCESSOR_NUMBER::Group, group)?;
    cx.write((change + Change::ProcNumber) + PROCESSOR_NUMBER::Number, number)?;
    let status: DriverPtr<NtStatus> = change.index(1).cast();
    call_routine(cx, Role::ProcessorCallback, routine, 0, &[context, change.address, status.address])?;
    let answer = cx.read(status)?;
    pool::free(cx, change)?;
    Ok(answer)
}

/// `KeDeregisterProcessorChangeCallback`.
///
/// # Errors
/// None of its own.
pub(crate) fn deregister_processors(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    forget(cx, handle).map(|_| ())
}
