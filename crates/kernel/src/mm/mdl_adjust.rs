//! What is changed about an MDL that is locked or mapped: where it begins, and what its mapping allows.
//!
//! Pages: *MmAdvanceMdl function*, *MmProtectMdlSystemAddress function*. The pages that an advance passes are unlocked, and are not mapped
//! any more. What an advance means to an application's mapping, to pages of a device, to reserved addresses and to pages of
//! `MmAllocatePagesForMdl` no page says: that stops by name.

use abi::{
    DriverPtr, MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_PARENT_MAPPED_SYSTEM_VA, MDL_PARTIAL,
    MDL_SOURCE_IS_NONPAGED_POOL, NtStatus,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::mdl::{self, Held};
use super::{code_integrity, map};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::verdict::Verdict;

/// `MmAdvanceMdl`: the MDL begins so many bytes later, and ends where it did; STATUS_INVALID_PARAMETER_2 if that is behind its end.
///
/// # Errors
/// A verdict if the MDL cannot be read or written.
pub(crate) fn advance(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, bytes: u32) -> Flow<NtStatus> {
    let (start, length) = mdl::buffer(cx, mdl)?;
    let Some(rest) = length.checked_sub(bytes.into()) else { return Ok(NtStatus::INVALID_PARAMETER_2) };
    let to = start.wrapping_add(bytes.into());
    let passed = (to / PAGE).wrapping_sub(start / PAGE);
    let flags = mdl::flags(cx, mdl)?;
    let held = cx.with(|k| k.mm.mdl.held.get(&mdl.address).cloned()).unwrap_or_default();
    if held.owns_pages
        || held.mappings.iter().any(|mapping| mapping.user || mapping.device || mapping.reserved)
    {
        let what = "MmAdvanceMdl of an MDL that an application sees, or whose pages or addresses are special";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    if flags & (MDL_PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARTIAL) != 0 {
        for index in 0..mdl::span(start, length).saturating_sub(passed) {
            let page = mdl::page(cx, mdl, index + passed)?;
            mdl::write_page(cx, mdl, index, page)?;
        }
    }
    let mapped = MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARENT_MAPPED_SYSTEM_VA;
    if flags & mapped != 0 {
        let system = cx.read(mdl + MDL::MappedSystemVa)?;
        cx.write(mdl + MDL::MappedSystemVa, system.byte_add(bytes.into()))?;
    }
    cx.write(mdl + MDL::StartVa, DriverPtr::new(to & !(PAGE - 1)))?;
    cx.write(mdl + MDL::ByteOffset, u32::try_from(to % PAGE).unwrap_or(0))?;
    cx.write(mdl + MDL::ByteCount, u32::try_from(rest).unwrap_or(u32::MAX))?;
    cx.with(|k| {
        let Some(Held { locked, mappings, .. }) = k.mm.mdl.held.get_mut(&mdl.address) else { return };
        let count = usize::try_from(passed).unwrap_or(usize::MAX).min(locked.len());
        let unlocked: Vec<u64> = locked.drain(..count).collect();
        let shown = mappings.first().copied();
        if let Some(mapping) = mappings.first_mut() {
            let gone = passed.min(mapping.pages);
            (mapping.address, mapping.pages) = (mapping.address + gone * PAGE, mapping.pages - gone);
        }
        unlocked.into_iter().for_each(|page| _ = k.mm.physical.unlock(page));
        if let Some(mapping) = shown {
            map::remove_front(k, mapping.address, mapping.pages, passed.min(mapping.pages));
        }
    });
    cx.detail(Kind::MdlAdvanced, || Event::MdlAdvanced { mdl: mdl.address, bytes, pages: passed });
    Ok(NtStatus::SUCCESS)
}

/// `MmProtectMdlSystemAddress`; STATUS_INVALID_PAGE_PROTECTION, STATUS_NOT_MAPPED_VIEW.
///
/// # Errors
/// A verdict if the MDL cannot be read.
pub(crate) fn protect(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, protection: u32) -> Flow<NtStatus> {
    let Some(allowed) = allowed(protection) else { return Ok(NtStatus::INVALID_PAGE_PROTECTION) };
    code_integrity::protection(cx, "MmProtectMdlSystemAddress", protection)?;
    let flags = mdl::flags(cx, mdl)?;
    let system = cx.with(|k| {
        let held = k.mm.mdl.held.get(&mdl.address)?;
        held.mappings.iter().find(|mapping| !mapping.user).copied()
    });
    let Some(mapping) = system.filter(|_| flags & MDL_MAPPED_TO_SYSTEM_VA != 0) else {
        return Ok(NtStatus::NOT_MAPPED_VIEW);
    };
    if mapping.device {
        let what = "MmProtectMdlSystemAddress of a device's pages";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    if mapping.pages > 0 {
        cx.with(|k| k.mm.map.protect(k.engine, mapping.address, mapping.pages, allowed));
    }
    Ok(NtStatus::SUCCESS)
}

/// What one of the protections that the page names lets be done.
const fn allowed(protection: u32) -> Option<Protection> {
    Some(match protection {
        abi::PAGE_NOACCESS => Protection::NONE,
        abi::PAGE_READONLY => Protection::READ,
        abi::PAGE_READWRITE => Protection::READ_WRITE,
        abi::PAGE_EXECUTE | abi::PAGE_EXECUTE_READ => Protection::READ_EXECUTE,
        abi::PAGE_EXECUTE_READWRITE => Protection { read: true, write: true, execute: true },
        _ => return None,
    })
}
