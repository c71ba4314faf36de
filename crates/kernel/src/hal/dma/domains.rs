//! DMA domains of version 3: sets of devices that see the same logical addresses.
//!
//! Pages: *PGET_DMA_DOMAIN callback function*, *PJOIN_DMA_DOMAIN callback function*, *PLEAVE_DMA_DOMAIN callback function*,
//! *PALLOCATE_DOMAIN_COMMON_BUFFER callback function*, *PFLUSH_DMA_BUFFER callback function*, which give little more than the arguments. Each adapter
//! has a domain of its own until it joins another's. Devices are not kept apart here (`domain`), so that a driver which relies on a domain that its
//! device has not joined is not reported. Memory is coherent: a buffer's pages must be known, and there is nothing to flush.

use abi::{DMA_ADAPTER, DriverPtr, MDL, NtStatus};
use engine::Flow;

use super::{common_buffer, find, pieces};
use crate::cx::{Cx, Kernel};
use crate::mm::mdl;

/// Whether an adapter that is there has this domain for its own.
fn is_domain(k: &Kernel, handle: u64) -> bool {
    k.hal.dma.adapters.get(&handle).is_some_and(|adapter| adapter.released.is_none())
}

/// `GetDmaDomain`: the one that the adapter's device is in.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn get(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<u64> {
    let at = find(cx, "GetDmaDomain", adapter)?;
    Ok(cx.with(|k| k.hal.dma.adapters[&at].joined))
}

/// `JoinDmaDomain`.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn join(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>, domain: u64) -> Flow<NtStatus> {
    let at = find(cx, "JoinDmaDomain", adapter)?;
    Ok(cx.with(|k| {
        if !is_domain(k, domain) {
            return NtStatus::INVALID_PARAMETER;
        }
        if let Some(adapter) = k.hal.dma.adapters.get_mut(&at) {
            adapter.joined = domain;
        }
        NtStatus::SUCCESS
    }))
}

/// `LeaveDmaDomain`: the adapter's device is in its own again; not if it has joined none.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn leave(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<NtStatus> {
    let at = find(cx, "LeaveDmaDomain", adapter)?;
    Ok(cx.with(|k| match k.hal.dma.adapters.get_mut(&at) {
        Some(adapter) if adapter.joined != at => {
            adapter.joined = at;
            NtStatus::SUCCESS
        }
        _ => NtStatus::UNSUCCESSFUL,
    }))
}

/// `AllocateDomainCommonBuffer`: one for all devices of a domain; `FreeCommonBuffer` frees it.
///
/// # Errors
/// A verdict if it is no adapter, or on a bad pointer.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    domain: u64,
    highest: DriverPtr<u64>,
    length: u32,
    _flags: u32,
    _cache: DriverPtr<u32>,
    _node: u32,
    logical: DriverPtr<u64>,
    address: DriverPtr<u64>,
) -> Flow<NtStatus> {
    const NAME: &str = "AllocateDomainCommonBuffer";
    let at = find(cx, NAME, adapter)?;
    if !cx.with(|k| is_domain(k, domain)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let highest = if highest.is_null() { u64::MAX } else { cx.read(highest)? };
    match common_buffer::place(cx, NAME, at, (0, highest), length.into())? {
        Some((placed, buffer)) => {
            cx.write(logical, buffer.logical)?;
            cx.write(address, placed)?;
            Ok(NtStatus::SUCCESS)
        }
        None => Ok(NtStatus::INSUFFICIENT_RESOURCES),
    }
}

/// `FlushDmaBuffer`.
///
/// # Errors
/// A verdict on an adapter or an MDL that is none.
pub(crate) fn flush(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    _reads: bool,
) -> Flow<NtStatus> {
    const NAME: &str = "FlushDmaBuffer";
    find(cx, NAME, adapter)?;
    let (va, length) = mdl::buffer(cx, mdl)?;
    pieces::of(cx, NAME, mdl, (va, length), false).map(|_| NtStatus::SUCCESS)
}
