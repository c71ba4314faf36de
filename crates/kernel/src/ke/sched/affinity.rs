//! How many processors there are, and on which a thread may run. Follows *KeQueryActiveProcessorCountEx function*,
//! *KeSetSystemAffinityThreadEx function* and their neighbours.
//!
//! Groups are of `Settings::group_size` processors, in the order of the processors' numbers. In here an affinity is a
//! mask of processor numbers of the whole machine; a driver's is relative to a group, and routines that name none mean
//! group 0 (*Boot Parameters to Test Drivers for Multiple Processor Group Support*).

use abi::{ALL_PROCESSOR_GROUPS, DriverPtr, GROUP_AFFINITY, PROCESSOR_NUMBER};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::ke::levels::irql;
use crate::nt::WindowsVersion;
use crate::verdict::Verdict;

/// The mask of all processors.
pub(crate) fn all(k: &Kernel) -> u64 {
    u64::MAX >> (64 - k.ke.processors.len())
}

/// Where a new thread may run: on all processors from Windows 11 on, else in the group of the thread that makes it. Follows
/// *Processor Groups*.
pub(in crate::ke) fn of_new_thread(k: &Kernel) -> u64 {
    if k.ke.windows >= WindowsVersion::Win11 {
        return all(k);
    }
    let maker = k.ke.thread().map_or(0, |thread| thread.own_affinity);
    of_group(k, relative(k, maker).0)
}

/// How many groups there are.
pub(crate) fn groups(k: &Kernel) -> u16 {
    let groups = k.ke.processor_count().div_ceil(k.ke.sched.group_size);
    u16::try_from(groups).expect("there are at most 64")
}

/// The mask of all processors of a group; 0 if there is no such group.
pub(crate) fn of_group(k: &Kernel, group: u16) -> u64 {
    in_group(k, group, u64::MAX)
}

/// The mask of a set of processors that a driver named relative to a group.
pub(crate) fn in_group(k: &Kernel, group: u16, relative: u64) -> u64 {
    let (size, shift) = (k.ke.sched.group_size, u32::from(group).saturating_mul(k.ke.sched.group_size));
    let relative = relative & (u64::MAX >> (64 - size));
    relative.checked_shl(shift).unwrap_or(0) & all(k)
}

/// The group of the first processor of `mask`, and its processors of that group as the driver knows them.
pub(crate) fn relative(k: &Kernel, mask: u64) -> (u16, u64) {
    if mask == 0 {
        return (0, 0);
    }
    let (group, _) = number(k, mask.trailing_zeros());
    let shift = u32::from(group) * k.ke.sched.group_size;
    (group, (mask & of_group(k, group)) >> shift)
}

/// Group and number in it of processor `index`.
pub(crate) fn number(k: &Kernel, index: u32) -> (u16, u8) {
    let small = "there are at most 64 processors";
    let (group, low) = (index / k.ke.sched.group_size, index % k.ke.sched.group_size);
    (u16::try_from(group).expect(small), u8::try_from(low).expect(small))
}

/// The processor that a driver named by group and number, if there is one.
pub(crate) fn index(k: &Kernel, group: u16, number: u8) -> Option<u32> {
    let bit = 1_u64.checked_shl(number.into())?;
    match in_group(k, group, bit) {
        0 => None,
        mask => Some(mask.trailing_zeros()),
    }
}

/// The processor that a `PROCESSOR_NUMBER` names, if there is one.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(in crate::ke) fn read_number(cx: &mut Cx<'_>, from: DriverPtr<PROCESSOR_NUMBER>) -> Flow<Option<u32>> {
    let group = cx.read(from + PROCESSOR_NUMBER::Group)?;
    let low = cx.read(from + PROCESSOR_NUMBER::Number)?;
    Ok(cx.with(|k| index(k, group, low)))
}

/// Tells a driver which processor it is, in a `PROCESSOR_NUMBER`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(super) fn write_number(cx: &mut Cx<'_>, into: DriverPtr<PROCESSOR_NUMBER>, index: u32) -> Flow<()> {
    let (group, low) = cx.with(|k| number(k, index));
    cx.write(into, PROCESSOR_NUMBER::zeroed())?;
    cx.write(into + PROCESSOR_NUMBER::Group, group)?;
    cx.write(into + PROCESSOR_NUMBER::Number, low)
}

/// `KeQueryActiveProcessors`: the mask of group 0.
///
/// # Errors
/// None of its own.
pub(crate) fn active_mask(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| of_group(k, 0)))
}

/// `KeQueryActiveProcessorCount`: how many are in group 0, and their mask if asked.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn active_count(cx: &mut Cx<'_>, mask: DriverPtr<u64>) -> Flow<u32> {
    let group = cx.with(|k| of_group(k, 0));
    if !mask.is_null() {
        cx.write(mask, group)?;
    }
    Ok(group.count_ones())
}

/// `KeQueryActiveProcessorCountEx`, `KeQueryMaximumProcessorCountEx`: how many in a group; 0 if there is no such group.
///
/// # Errors
/// None of its own.
pub(crate) fn count_in_group(cx: &mut Cx<'_>, group: u16) -> Flow<u32> {
    let mask = cx.with(|k| if group == ALL_PROCESSOR_GROUPS { all(k) } else { of_group(k, group) });
    Ok(mask.count_ones())
}

/// `KeQueryMaximumProcessorCount`: of group 0.
///
/// # Errors
/// None of its own.
pub(crate) fn maximum_count(cx: &mut Cx<'_>) -> Flow<u32> {
    count_in_group(cx, 0)
}

/// `KeQueryActiveGroupCount`, `KeQueryMaximumGroupCount`.
///
/// # Errors
/// None of its own.
pub(crate) fn group_count(cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(cx.with(|k| groups(k)))
}

/// `KeQueryGroupAffinity`: the mask of a group; 0 if there is no such group.
///
/// # Errors
/// None of its own.
pub(crate) fn group_mask(cx: &mut Cx<'_>, group: u16) -> Flow<u64> {
    Ok(cx.with(|k| relative(k, of_group(k, group)).1))
}

/// `KeSetSystemAffinityThreadEx`: the thread runs on these processors of group 0 until it reverts; the mask before, or 0
/// if none was set. A mask with a processor that is not there has no effect, and 0 is returned.
///
/// # Errors
/// [`engine::Leave`] if the thread is moved and the machine ends meanwhile.
pub(crate) fn set_system(cx: &mut Cx<'_>, mask: u64) -> Flow<u64> {
    let before = set(cx, 0, mask)?.unwrap_or(0);
    Ok(cx.with(|k| relative(k, before).1))
}

/// The thread runs on these processors of a group until it reverts. The machine-wide mask before (0 if none was set); nothing if not
/// every processor of the mask is there, for then the thread stays as it is.
fn set(cx: &mut Cx<'_>, group: u16, mask: u64) -> Flow<Option<u64>> {
    let (allowed, there) = cx.with(|k| (in_group(k, group, mask), relative(k, of_group(k, group)).1));
    if allowed == 0 || mask & !there != 0 {
        let message = format!(
            "the driver set the thread's affinity to {mask:#x} of group {group}, whose processors are {there:#x}: the call has no effect"
        );
        cx.report(Verdict::warning("affinity-without-effect", message));
        return Ok(None);
    }
    let before = replace(cx, Some(allowed));
    irql::settle(cx)?;
    Ok(Some(before))
}

/// `KeSetSystemAffinityThread`.
///
/// # Errors
/// As [`set_system`].
pub(crate) fn set_system_void(cx: &mut Cx<'_>, mask: u64) -> Flow<()> {
    set_system(cx, mask).map(|_| ())
}

/// `KeRevertToUserAffinityThreadEx`: back to `mask` of group 0, or to the thread's own affinity if it is 0.
///
/// # Errors
/// [`engine::Leave`] if the thread is moved and the machine ends meanwhile.
pub(crate) fn revert(cx: &mut Cx<'_>, mask: u64) -> Flow<()> {
    revert_to(cx, 0, mask)
}

fn revert_to(cx: &mut Cx<'_>, group: u16, mask: u64) -> Flow<()> {
    let (allowed, there) = cx.with(|k| (in_group(k, group, mask), relative(k, of_group(k, group)).1));
    // A mask with a processor that is not there has no effect here either.
    if mask == 0 || (allowed != 0 && mask & !there == 0) {
        replace(cx, (mask != 0).then_some(allowed));
        irql::settle(cx)?;
    }
    Ok(())
}

/// `KeRevertToUserAffinityThread`.
///
/// # Errors
/// As [`revert`].
pub(crate) fn revert_all(cx: &mut Cx<'_>) -> Flow<()> {
    revert(cx, 0)
}

/// `KeSetSystemGroupAffinityThread`: as [`set_system`], in any group. What was set before goes to `previous`: a mask of 0
/// if nothing was.
///
/// # Errors
/// As [`set_system`]; a verdict if a pointer is bad.
pub(crate) fn set_system_group(
    cx: &mut Cx<'_>,
    affinity: DriverPtr<GROUP_AFFINITY>,
    previous: DriverPtr<GROUP_AFFINITY>,
) -> Flow<()> {
    let group = cx.read(affinity + GROUP_AFFINITY::Group)?;
    let mask = cx.read(affinity + GROUP_AFFINITY::Mask)?;
    let before = set(cx, group, mask)?;
    if !previous.is_null() {
        // Zeros if the affinity did not change.
        let (group, mask) = cx.with(|k| relative(k, before.unwrap_or(0)));
        cx.write(previous, GROUP_AFFINITY::zeroed())?;
        cx.write(previous + GROUP_AFFINITY::Group, group)?;
        cx.write(previous + GROUP_AFFINITY::Mask, mask)?;
    }
    Ok(())
}

/// `KeRevertToUserGroupAffinityThread`.
///
/// # Errors
/// As [`revert`]; a verdict if the pointer is bad.
pub(crate) fn revert_group(cx: &mut Cx<'_>, previous: DriverPtr<GROUP_AFFINITY>) -> Flow<()> {
    let group = cx.read(previous + GROUP_AFFINITY::Group)?;
    let mask = cx.read(previous + GROUP_AFFINITY::Mask)?;
    revert_to(cx, group, mask)
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
            k.ke.request_yield();
        }
        before
    })
}
