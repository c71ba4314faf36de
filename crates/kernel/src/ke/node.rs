//! Nodes of processors that are near the same memory. Follows *KeQueryHighestNodeNumber function*,
//! *KeQueryNodeActiveAffinity function*, *NUMA Support*.
//!
//! A group of processors is a node, as where a boot option made the groups small. No memory is nearer than other memory.

use abi::{DriverPtr, GROUP_AFFINITY};
use engine::Flow;

use super::affinity;
use crate::cx::Cx;

/// `KeGetCurrentNodeNumber`: the node of the processor that runs.
///
/// # Errors
/// None of its own.
pub fn current(cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(cx.with(|k| affinity::number(k, k.ke.processor().number).0))
}

/// `KeQueryHighestNodeNumber`: nodes are numbered from 0.
///
/// # Errors
/// None of its own.
pub fn highest(cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(cx.with(|k| affinity::groups(k) - 1))
}

/// `KeQueryNodeActiveAffinity`: which processors a node has, and how many, where asked; none if there is no such node.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn active_affinity(
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

/// `KeQueryNodeMaximumProcessorCount`: how many processors a node has; 0 if there is no such node.
///
/// # Errors
/// None of its own.
pub fn maximum_count(cx: &mut Cx<'_>, node: u16) -> Flow<u16> {
    let processors = cx.with(|k| affinity::of_group(k, node)).count_ones();
    Ok(u16::try_from(processors).expect("there are at most 64"))
}
