//! Pageable parts of drivers, and what is known of an address.
//!
//! Pages: *MmLockPagableDataSection macro*, *MmUnlockPagableImageSection function*, *MmPageEntireDriver function*,
//! *MmResetDriverPaging function*, *MmIsAddressValid function*, *MmGetPhysicalAddress function*. Pages are never really
//! out; whether they may be is what rules ask.

use engine::windows::{DEVICE, PAGE, USER, USER_DEVICE};
use engine::{Flow, Protection};

use super::map::Page;
use super::{io_space, shadow, user};
use crate::cx::{Cx, Kernel};
use crate::ps;
use crate::verdict::Verdict;

/// `MmLockPagableDataSection`: locks the section that `address` lies in; its handle.
///
/// # Errors
/// A verdict if that is no driver's section.
pub(crate) fn lock_section(cx: &mut Cx<'_>, address: u64) -> Flow<u64> {
    match section(cx, address) {
        Some((base, rva, _)) => {
            cx.with(|k| set_lock(k, base, rva, 1));
            Ok(base + u64::from(rva))
        }
        None => {
            let message =
                format!("MmLockPagableDataSection was given {address:#x}, which is in no driver's section");
            Err(cx.stop(Verdict::error("paging-address", message)))
        }
    }
}

/// `MmLockPagableSectionByHandle`.
///
/// # Errors
/// A verdict if it is no handle.
pub(crate) fn lock_by_handle(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    lock_section(cx, handle).map(|_| ())
}

/// `MmUnlockPagableImageSection`.
///
/// # Errors
/// A verdict if it is no handle, or the section is not locked.
pub(crate) fn unlock_section(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    let found = section(cx, handle).filter(|(_, _, locks)| *locks > 0);
    let Some((base, rva, _)) = found else {
        let message =
            format!("MmUnlockPagableImageSection was given {handle:#x}, which is no locked section");
        return Err(cx.stop(Verdict::error("paging-unlock", message)));
    };
    cx.with(|k| set_lock(k, base, rva, -1));
    Ok(())
}

/// `MmPageEntireDriver`: all of the driver that `address` lies in may be paged; its base.
///
/// # Errors
/// A verdict if that is in no driver.
pub(crate) fn page_entire_driver(cx: &mut Cx<'_>, address: u64) -> Flow<u64> {
    driver(cx, "MmPageEntireDriver", address, true)
}

/// `MmResetDriverPaging`: back to what its sections say.
///
/// # Errors
/// As [`page_entire_driver`].
pub(crate) fn reset_driver_paging(cx: &mut Cx<'_>, address: u64) -> Flow<()> {
    driver(cx, "MmResetDriverPaging", address, false).map(|_| ())
}

fn driver(cx: &mut Cx<'_>, name: &str, address: u64, all: bool) -> Flow<u64> {
    let base = cx.with(|k| {
        let base = k.ldr.image_at(address)?.0;
        let loaded = k.ldr.images.get_mut(&base)?;
        loaded.paged_entirely = all;
        let sections: Vec<u32> = loaded.image.sections().iter().map(|section| section.rva).collect();
        for rva in sections {
            apply(k, base, rva);
        }
        Some(base)
    });
    base.ok_or_else(|| {
        let message = format!("{name} was given {address:#x}, which is in no driver");
        cx.stop(Verdict::error("paging-address", message))
    })
}

/// The section at `address`: its image, its RVA, how often it is locked.
fn section(cx: &mut Cx<'_>, address: u64) -> Option<(u64, u32, u32)> {
    cx.with(|k| {
        let (base, loaded) = k.ldr.image_at(address)?;
        let rva = loaded.image.section_at(u32::try_from(address - base).ok()?)?.rva;
        Some((base, rva, loaded.locked_sections.get(&rva).copied().unwrap_or(0)))
    })
}

fn set_lock(k: &mut Kernel, base: u64, rva: u32, change: i32) {
    let Some(loaded) = k.ldr.images.get_mut(&base) else { return };
    let count = loaded.locked_sections.get(&rva).copied().unwrap_or(0).saturating_add_signed(change);
    if count == 0 {
        loaded.locked_sections.remove(&rva);
    } else {
        loaded.locked_sections.insert(rva, count);
    }
    apply(k, base, rva);
}

/// What of the section may be paged out is as its name, its locks and the driver say. An INIT section may be gone.
fn apply(k: &mut Kernel, base: u64, rva: u32) {
    let Some(loaded) = k.ldr.images.get(&base) else { return };
    let Some(section) = loaded.image.section_at(rva) else { return };
    let locked = loaded.locked_sections.contains_key(&rva);
    let pageable = !locked && (loaded.paged_entirely || section.is_pageable());
    let (at, count) = pages(base, section);
    if k.mm.map.page(at).is_some() {
        k.mm.map.set_pageable(k.engine, at, count, pageable);
    }
}

fn pages(base: u64, section: &image::Section) -> (u64, u64) {
    let start = base + u64::from(section.rva);
    let first = start & !(PAGE - 1);
    (first, (start % PAGE + u64::from(section.virtual_size)).div_ceil(PAGE))
}

/// The page that `address` lies in, of RAM or of a device, as the processor finds it.
pub(crate) fn page(k: &Kernel, address: u64) -> Option<Page> {
    if !DEVICE.contains(address) && !USER_DEVICE.contains(address) {
        let is_there = !USER.contains(address) || !user::rests(k, address);
        return if is_there { k.mm.map.page(address) } else { None };
    }
    let (bus, mapping) = io_space::resolve(k, address)?;
    let protection = if mapping.read_only { Protection::READ } else { Protection::READ_WRITE };
    let physical = k.hal.platform.to_system(bus) & !(PAGE - 1);
    Some(Page { physical, protection, pageable: false })
}

/// As [`page`], for the process that runs: what another has in its user half is not there.
fn seen(cx: &mut Cx<'_>, address: u64) -> Option<Page> {
    if user::is_elsewhere(cx, address) {
        return None;
    }
    let current = ps::current_process(cx);
    cx.with(|k| {
        let view = if USER_DEVICE.contains(address) { io_space::resolve(k, address) } else { None };
        let owner = view.and_then(|(_, mapping)| mapping.process);
        let elsewhere = owner.is_some_and(|owner| u64::from(owner) != current);
        if elsewhere { None } else { page(k, address) }
    })
}

/// `MmIsAddressValid`.
///
/// # Errors
/// None.
pub(crate) fn is_address_valid(cx: &mut Cx<'_>, address: u64) -> Flow<bool> {
    Ok(seen(cx, address).is_some_and(|page| page.protection.read))
}

/// `MmGetPhysicalAddress`; 0 and a finding if the address means nothing.
///
/// # Errors
/// None today.
pub(crate) fn physical_address(cx: &mut Cx<'_>, address: u64) -> Flow<u64> {
    let found = seen(cx, address).map(|page| page.physical + address % PAGE);
    shadow::shared(cx, address, 1);
    if found.is_none() {
        let message = format!("MmGetPhysicalAddress was given {address:#x}, where nothing is mapped");
        cx.report(Verdict::warning("physical-of-nothing", message));
    }
    Ok(found.unwrap_or(0))
}

/// `MmQuerySystemSize`: a large system, by today's measure.
///
/// # Errors
/// None.
pub(crate) fn query_system_size(_cx: &mut Cx<'_>) -> Flow<u32> {
    const MM_LARGE_SYSTEM: u32 = 2;
    Ok(MM_LARGE_SYSTEM)
}
