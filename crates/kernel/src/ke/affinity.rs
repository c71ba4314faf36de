//! How many processors there are, and on which a thread may run. Follows *KeQueryActiveProcessorCountEx function*,
//! *KeSetSystemAffinityThreadEx function* and their neighbours.
//!
//! All processors are in group 0.

use abi::{ALL_PROCESSOR_GROUPS, DriverPtr, GROUP_AFFINITY};
use engine::Flow;

use super::irql;
use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;

/// The mask of all processors.
pub(crate) fn all(k: &Kernel) -> u64 {
    u64::MAX >> (64 - k.ke.processors.len())
}

fn count(cx: &mut Cx<'_>) -> u32 {
    cx.with(|k| u32::try_from(k.ke.processors.len()).expect("there are at most 64 processors"))
}

/// `KeQueryActiveProcessors`: the mask.
///
/// # Errors
/// None of its own.
pub fn active_mask(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| all(k)))
}

/// `KeQueryActiveProcessorCount`: how many, and the mask if asked.
///
/// # Errors
/// A verdict if the pointer is bad.
pub fn active_count(cx: &mut Cx<'_>, mask: DriverPtr<u64>) -> Flow<u32> {
    if !mask.is_null() {
        let all = cx.with(|k| all(k));
        cx.write(mask, all)?;
    }
    Ok(count(cx))
}

/// `KeQueryActiveProcessorCountEx`, `KeQueryMaximumProcessorCountEx`: how many in a group; 0 if there is no such group.
///
/// # Errors
/// None of its own.
pub fn count_in_group(cx: &mut Cx<'_>, group: u16) -> Flow<u32> {
    Ok(if group == 0 || group == ALL_PROCESSOR_GROUPS { count(cx) } else { 0 })
}

/// `KeQueryMaximumProcessorCount`.
///
/// # Errors
/// None of its own.
pub fn maximum_count(cx: &mut Cx<'_>) -> Flow<u32> {
    Ok(count(cx))
}

/// `KeQueryActiveGroupCount`, `KeQueryMaximumGroupCount`.
///
/// # Errors
/// None of its own.
pub fn group_count(_cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(1)
}

/// `KeQueryGroupAffinity`: the mask of a group; 0 if there is no such group.
///
/// # Errors
/// None of its own.
pub fn group_mask(cx: &mut Cx<'_>, group: u16) -> Flow<u64> {
    Ok(if group == 0 { cx.with(|k| all(k)) } else { 0 })
}

/// `KeSetSystemAffinityThreadEx`: the thread runs on these processors until it reverts; the mask before, or 0 if none
/// was set.
///
/// # Errors
/// A verdict if no processor of the mask exists.
pub fn set_system(cx: &mut Cx<'_>, mask: u64) -> Flow<u64> {
    let allowed = cx.with(|k| all(k)) & mask;
    if allowed == 0 {
        let message = format!("the driver set the thread's affinity to {mask:#x}, which holds no processor");
        return Err(cx.stop(Verdict::error("affinity-empty", message)));
    }
    let before = replace(cx, Some(allowed));
    irql::settle(cx)?;
    Ok(before)
}

/// `KeSetSystemAffinityThread`.
///
/// # Errors
/// As [`set_system`].
pub fn set_system_void(cx: &mut Cx<'_>, mask: u64) -> Flow<()> {
    set_system(cx, mask).map(|_| ())
}

/// `KeRevertToUserAffinityThreadEx`: back to `mask`, or to the thread's own affinity if it is 0.
///
/// # Errors
/// [`engine::Leave`] if the thread is moved and the machine ends meanwhile.
pub fn revert(cx: &mut Cx<'_>, mask: u64) -> Flow<()> {
    let allowed = cx.with(|k| all(k)) & mask;
    replace(cx, (allowed != 0).then_some(allowed));
    irql::settle(cx)
}

/// `KeRevertToUserAffinityThread`.
///
/// # Errors
/// As [`revert`].
pub fn revert_all(cx: &mut Cx<'_>) -> Flow<()> {
    revert(cx, 0)
}

/// `KeSetSystemGroupAffinityThread`: as [`set_system`], in group 0.
///
/// # Errors
/// As [`set_system`]; a verdict if a pointer is bad.
pub fn set_system_group(
    cx: &mut Cx<'_>,
    affinity: DriverPtr<GROUP_AFFINITY>,
    previous: DriverPtr<GROUP_AFFINITY>,
) -> Flow<()> {
    let group = cx.read(affinity + GROUP_AFFINITY::Group)?;
    let mask = cx.read(affinity + GROUP_AFFINITY::Mask)?;
    let before = set_system(cx, if group == 0 { mask } else { 0 })?;
    if !previous.is_null() {
        cx.write(previous, GROUP_AFFINITY::zeroed())?;
        cx.write(previous + GROUP_AFFINITY::Mask, before)?;
    }
    Ok(())
}

/// `KeRevertToUserGroupAffinityThread`.
///
/// # Errors
/// As [`revert`]; a verdict if the pointer is bad.
pub fn revert_group(cx: &mut Cx<'_>, previous: DriverPtr<GROUP_AFFINITY>) -> Flow<()> {
    let mask = cx.read(previous + GROUP_AFFINITY::Mask)?;
    revert(cx, mask)
}

/// Sets the system affinity of the current thread and says what it was (0: none). A thread that stands on a processor
/// it may not use gives way as soon as the level allows.
fn replace(cx: &mut Cx<'_>, mask: Option<u64>) -> u64 {
    cx.with(|k| {
        let here = k.ke.processor().mask();
        let Some(thread) = k.ke.thread_mut() else { return 0 };
        let before = thread.system_affinity.unwrap_or(0);
        thread.system_affinity = mask;
        if thread.affinity() & here == 0 {
            k.ke.processor_mut().yield_requested = true;
        }
        before
    })
}
