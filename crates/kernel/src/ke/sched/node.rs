//! Nodes of processors that are near the same memory. Follows *KeQueryHighestNodeNumber function*,
//! *KeQueryNodeActiveAffinity function*, *NUMA Support*.
//!
//! A group of processors is a node, as where a boot option made the groups small. No memory is nearer than other memory.

use abi::{DriverPtr, GROUP_AFFINITY, NtStatus};
use engine::Flow;

use super::affinity;
use crate::cx::Cx;

/// `KeGetCurrentNodeNumber`: the node of the processor that runs.
///
/// # Errors
/// None of its own.
pub(crate) fn current(cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(cx.with(|k| affinity::number(k, k.ke.processor().number).0))
}

/// `KeQueryHighestNodeNumber`: nodes are numbered from 0.
///
/// # Errors
/// None of its own.
pub(crate) fn highest(cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(cx.with(|k| affinity::groups(k) - 1))
}

/// `KeQueryNodeActiveAffinity`: which processors a node has, and how many, where asked; none if there is no such node.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn active_affinity(
    cx: &mut Cx<'_>,
    node: u16,
    into: DriverPtr<GROUP_AFFINITY>,
    count: DriverPtr<u16>,
) -> Flow<()> {
    let (group, mask) = cx.with(|k| affinity::relative(k, affinity::of_group(k, node)));
    if !into.is_null() {
        cx.write(into, GROUP_AFFINITY::zeroed())?;
        cx.write(into + GROUP_AFFINITY::Group, group)?;
        cx.write(into + GROUP_AFFINITY::Mask, mask)?;
    }
    if count.is_null() {
        return Ok(());
    }
    let processors = maximum_count(cx, node)?;
    cx.write(count, processors)
}

/// `KeQueryNodeActiveAffinity2`: the groups of processors that a node has, as many as there is room for; how many there are goes to `needed`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn active_affinity_2(
    cx: &mut Cx<'_>,
    node: u16,
    into: DriverPtr<GROUP_AFFINITY>,
    room: u16,
    needed: DriverPtr<u16>,
) -> Flow<NtStatus> {
    if maximum_count(cx, node)? == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    cx.write(needed, 1)?;
    if room == 0 || into.is_null() {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    active_affinity(cx, node, into, DriverPtr::NULL)?;
    Ok(NtStatus::SUCCESS)
}

/// `KeQueryNodeActiveProcessorCount`, `KeQueryNodeMaximumProcessorCount`: how many processors a node has; 0 if there is no such node.
///
/// # Errors
/// None of its own.
pub(crate) fn maximum_count(cx: &mut Cx<'_>, node: u16) -> Flow<u16> {
    let processors = cx.with(|k| affinity::of_group(k, node)).count_ones();
    Ok(u16::try_from(processors).expect("there are at most 64"))
}
