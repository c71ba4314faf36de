//! Locking a buffer's pages, so that they stay where they are.
//!
//! Pages: *MmProbeAndLockPages function*, *MmUnlockPages function*, *Bug Check 0xCB*, *Bug Check 0x76*. A buffer that
//! cannot be locked raises STATUS_ACCESS_VIOLATION in the driver, as documented. Pages of a device never go anywhere: an MDL
//! of them is flagged as I/O space.

use abi::{
    DriverPtr, IoReadAccess, MDL, MDL_IO_SPACE, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_PARTIAL,
    MDL_PARTIAL_HAS_BEEN_MAPPED, MDL_SOURCE_IS_NONPAGED_POOL, MDL_WRITE_OPERATION, NtStatus,
};
use engine::windows::PAGE;
use engine::{BadAddress, Flow};

use super::{mdl, mdl_map, paging, physical, pool, shadow, user_access};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::ex;
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::ps;
use crate::verdict::Verdict;

/// `UserMode` of `KPROCESSOR_MODE`.
const USER_MODE: u8 = 1;

/// `MmProbeAndLockPages`.
///
/// # Errors
/// The exception, or a verdict on an MDL in the wrong state.
pub(crate) fn probe_and_lock(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, mode: u8, operation: u32) -> Flow<()> {
    let (owner, caller) = pool::caller(cx);
    let flags = mdl::flags(cx, mdl)?;
    let busy =
        MDL_PAGES_LOCKED | MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARTIAL | MDL_IO_SPACE;
    if flags & busy != 0 {
        return Err(mdl::wrong_state(
            cx,
            "MmProbeAndLockPages",
            mdl,
            0xB0,
            "is built, locked or mapped already",
        ));
    }
    let (address, length) = mdl::buffer(cx, mdl)?;
    cx.with(|k| k.engine.note_address(address));
    let end = address.checked_add(length);
    let in_user_half = end.is_some_and(|end| end <= USER_PROBE_ADDRESS);
    if mode == USER_MODE && !in_user_half {
        return Err(ex::exception::raise(cx, NtStatus::ACCESS_VIOLATION, "MmProbeAndLockPages"));
    }
    if mode != USER_MODE && in_user_half {
        user_access::locked_as_the_kernels(cx, address, length);
    }
    match lock(cx, mdl, operation)? {
        Ok(()) => {
            cx.with(|k| {
                let held = k.mm.mdl.held.entry(mdl.address).or_default();
                (held.owner, held.caller) = (owner, caller);
            });
            if in_user_half {
                user_access::probed(cx, address, length);
            }
            Ok(())
        }
        Err(_) => Err(ex::exception::raise(cx, NtStatus::ACCESS_VIOLATION, "MmProbeAndLockPages")),
    }
}

/// Locks the pages of the buffer that a fresh MDL describes, for the kernel itself; inside, the first page that cannot be.
///
/// # Errors
/// A verdict if the MDL cannot be read, or its buffer is pageable at DISPATCH_LEVEL.
pub(crate) fn lock(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, operation: u32) -> Flow<Result<(), BadAddress>> {
    let (address, length) = mdl::buffer(cx, mdl)?;
    let first = address & !(PAGE - 1);
    let pages: Vec<u64> =
        (0..mdl::span(address, length)).map(|index| first.wrapping_add(index * PAGE)).collect();
    lock_pages(cx, mdl, &pages, operation)
}

/// As [`lock`], of these pages instead of those that follow the first.
///
/// # Errors
/// As there.
pub(crate) fn lock_pages(
    cx: &mut Cx<'_>,
    mdl: DriverPtr<MDL>,
    pages: &[u64],
    operation: u32,
) -> Flow<Result<(), BadAddress>> {
    let (address, length) = mdl::buffer(cx, mdl)?;
    let write = operation != IoReadAccess;
    let irql = crate::ke::irql::current(cx);
    let (mut locked, mut of_device) = (Vec::new(), false);
    for (index, &at) in (0..).zip(pages) {
        let page = cx.with(|k| paging::page(k, at));
        let Some(page) = page.filter(|page| page.protection.write || !write) else {
            return Ok(Err(BadAddress { address: at, write }));
        };
        of_device |= !physical::is_ram(page.physical);
        if page.pageable && irql > 1 {
            let message =
                format!("pageable memory at {at:#x} was locked at IRQL {irql}; at most 1 is allowed");
            let verdict = Verdict::error("irql-too-high", message);
            return Err(cx.stop(verdict.bug_check(0xA, [at, irql.into(), write.into(), 0])));
        }
        mdl::write_page(cx, mdl, index, page.physical)?;
        locked.push(page.physical);
    }
    if pages.windows(2).all(|two| two[1] == two[0].wrapping_add(PAGE)) {
        shadow::shared(cx, address, length);
    } else {
        pages.iter().for_each(|page| shadow::shared(cx, *page, PAGE));
    }
    // Of an application's pages, whose they are.
    let process =
        if address < USER_PROBE_ADDRESS { ps::process::current_object(cx) } else { DriverPtr::NULL };
    cx.write(mdl + MDL::Process, process)?;
    let mut flags = mdl::flags(cx, mdl)? & !MDL_WRITE_OPERATION | MDL_PAGES_LOCKED;
    flags |= if write { MDL_WRITE_OPERATION } else { 0 };
    flags |= if of_device { MDL_IO_SPACE } else { 0 };
    mdl::set_flags(cx, mdl, flags)?;
    cx.with(|k| {
        locked.iter().for_each(|&page| k.mm.physical.lock(page));
        let held = k.mm.mdl.held.entry(mdl.address).or_default();
        *held = mdl::Held { locked, ..mdl::Held::default() };
    });
    let count = pages.len() as u64;
    cx.detail(Kind::MdlLocked, || Event::MdlLocked { mdl: mdl.address, pages: count, allocated: false });
    Ok(Ok(()))
}

/// `MmUnlockPages`: a system mapping goes with the lock.
///
/// # Errors
/// A verdict if the pages are not locked by this MDL.
pub(crate) fn unlock(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    let flags = mdl::flags(cx, mdl)?;
    let wrong = if flags & MDL_SOURCE_IS_NONPAGED_POOL != 0 {
        Some((0x7D, "describes nonpaged pool, which is not locked"))
    } else if flags & MDL_PARTIAL != 0 {
        Some((0xB4, "is a partial one"))
    } else if flags & MDL_PAGES_LOCKED == 0 {
        Some((0x7C, "is not locked"))
    } else {
        None
    };
    if let Some((sub, what)) = wrong {
        return Err(mdl::wrong_state(cx, "MmUnlockPages", mdl, sub, what));
    }
    if flags & MDL_MAPPED_TO_SYSTEM_VA != 0 {
        mdl_map::unmap_system(cx, mdl)?;
    }
    let held = cx.with(|k| k.mm.mdl.held.remove(&mdl.address)).unwrap_or_default();
    // `MmAdvanceMdl` may have unlocked the last of them.
    if held.locked.is_empty() && mdl::buffer(cx, mdl)?.1 != 0 {
        let message =
            format!("MmUnlockPages was given the MDL {:#x}, whose pages are not locked", mdl.address);
        return Err(cx.stop(Verdict::error("mdl-state", message).bug_check(0x76, [1, mdl.address, 0, 0])));
    }
    cx.with(|k| held.locked.iter().for_each(|&page| _ = k.mm.physical.unlock(page)));
    cx.detail(Kind::MdlUnlocked, || Event::MdlUnlocked { mdl: mdl.address });
    let cleared = MDL_PAGES_LOCKED | MDL_IO_SPACE | MDL_MAPPED_TO_SYSTEM_VA | MDL_PARTIAL_HAS_BEEN_MAPPED;
    let flags = mdl::flags(cx, mdl)? & !cleared;
    mdl::set_flags(cx, mdl, flags)
}
