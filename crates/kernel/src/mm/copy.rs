//! Memory that may not be there, copied safely; and virtual addresses of physical ones.
//!
//! Page: *MmCopyMemory function*; *MmGetVirtualForPhysical* has none. What cannot be read is a status and a count, never an exception. Only
//! the system's addresses and RAM are read: registers of devices are not.

use abi::{DriverPtr, NtStatus};
use engine::Flow;
use engine::windows::PAGE;

use super::{paging, physical_access};
use crate::cx::Cx;
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::hal::access;
use crate::ke::budget;

/// `MM_COPY_MEMORY_PHYSICAL`, `MM_COPY_MEMORY_VIRTUAL`.
const PHYSICAL: u32 = 1;
const VIRTUAL: u32 = 2;

/// What lies on one page from `from` on; none if nothing can be read there.
fn piece(cx: &mut Cx<'_>, from: u64, bytes: u64, is_physical: bool) -> Option<Vec<u8>> {
    let mut read = vec![0; usize::try_from(bytes).unwrap_or(0)];
    if is_physical {
        return cx.with(|k| physical_access::load_bytes(k, from, &mut read)).then_some(read);
    }
    let is_there = cx.with(|k| paging::page(k, from).is_some_and(|page| page.protection.read));
    if from < USER_PROBE_ADDRESS || access::answers(from) || !is_there {
        return None;
    }
    cx.engine().read_bytes(from, &mut read).ok().map(|()| read)
}

/// `MmCopyMemory`.
///
/// # Errors
/// A verdict if the target or the count cannot be written.
pub(crate) fn copy_memory(
    cx: &mut Cx<'_>,
    to: u64,
    from: u64,
    bytes: u64,
    flags: u32,
    transferred: DriverPtr<u64>,
) -> Flow<NtStatus> {
    cx.write(transferred, 0)?;
    if flags != PHYSICAL && flags != VIRTUAL {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let mut done = 0;
    while done < bytes {
        let at = from.wrapping_add(done);
        let count = (PAGE - at % PAGE).min(bytes - done);
        budget::spend(cx, budget::SERVICE)?;
        let Some(read) = piece(cx, at, count, flags == PHYSICAL) else {
            return Ok(NtStatus::INVALID_ADDRESS);
        };
        cx.write_bytes(to.wrapping_add(done), &read)?;
        done += count;
        cx.write(transferred, done)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `MmGetVirtualForPhysical`: the system's address of a page of RAM; 0 if it has none.
///
/// # Errors
/// None.
pub(crate) fn virtual_for_physical(cx: &mut Cx<'_>, physical: u64) -> Flow<u64> {
    let shown = cx.with(|k| k.mm.map.showing(physical & !(PAGE - 1)));
    let own = shown.iter().find(|(address, _)| *address >= USER_PROBE_ADDRESS);
    Ok(own.map_or(0, |(address, _)| address + physical % PAGE))
}

/// `MmIsNonPagedSystemAddressValid`.
///
/// # Errors
/// None.
pub(crate) fn is_nonpaged_valid(cx: &mut Cx<'_>, address: u64) -> Flow<bool> {
    let page = cx.with(|k| paging::page(k, address));
    Ok(address >= USER_PROBE_ADDRESS && page.is_some_and(|page| page.protection.read && !page.pageable))
}
