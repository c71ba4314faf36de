//! What is known of a process' addresses.
//!
//! Pages: *ZwQueryVirtualMemory function*, *MEMORY_BASIC_INFORMATION structure*. A range goes as far as its pages are alike. *Ours:* no driver
//! code of applications runs, so pages which were given a protection to execute after their region was allocated with another
//! are reported as they can be read and written.

use abi::{
    DriverPtr, MEM_COMMIT, MEM_FREE, MEM_MAPPED, MEM_PRIVATE, MEM_RESERVE, NtStatus, PAGE_NOACCESS,
    PAGE_READONLY, PAGE_READWRITE,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::view_exports::process_of;
use super::{paging, user, virtual_memory};
use crate::cx::{Cx, Kernel};
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::fields::Fields;

/// `MemoryBasicInformation`.
const BASIC: u32 = 0;
/// Bytes of a `MEMORY_BASIC_INFORMATION`.
const SIZE: u64 = 0x30;

/// Something that a process has allocated in one piece.
struct Allocation {
    base: u64,
    pages: u64,
    /// `MEM_…`.
    kind: u32,
    /// `PAGE_…`, as it was allocated.
    protect: u32,
}

/// `ZwQueryVirtualMemory`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_query(
    cx: &mut Cx<'_>,
    process: u64,
    address: u64,
    class: u32,
    buffer: u64,
    length: u64,
    returned: DriverPtr<u64>,
) -> Flow<NtStatus> {
    if class != BASIC {
        return Ok(NtStatus::INVALID_INFO_CLASS);
    }
    if length < SIZE {
        return Ok(NtStatus::INFO_LENGTH_MISMATCH);
    }
    if address >= USER_PROBE_ADDRESS {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let key = match process_of(cx, process)? {
        Ok(key) => key,
        Err(status) => return Ok(status),
    };
    let information = cx.with(|k| about(k, key, address & !(PAGE - 1)));
    cx.write_bytes(buffer, &information)?;
    if !returned.is_null() {
        cx.write(returned, SIZE)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// The structure about the page at `at`, and those behind it that are alike.
fn about(k: &Kernel, process: u64, at: u64) -> Vec<u8> {
    let fields = Fields::default().u64(at);
    let Some(known) = containing(k, process, at) else {
        let end = next_behind(k, process, at).unwrap_or(USER_PROBE_ADDRESS);
        return fields
            .u64(0)
            .u32(0)
            .u32(0)
            .u64(end - at)
            .u32(MEM_FREE)
            .u32(PAGE_NOACCESS)
            .u32(0)
            .u32(0)
            .done();
    };
    let end = known.base + known.pages * PAGE;
    let first = state(k, process, &known, at);
    let alike = (at..end).step_by(0x1000).take_while(|page| state(k, process, &known, *page) == first);
    let (state, protect) = first;
    let fields = fields.u64(known.base).u32(known.protect).u32(0).u64(alike.count() as u64 * PAGE);
    fields.u32(state).u32(protect).u32(known.kind).u32(0).done()
}

fn containing(k: &Kernel, process: u64, at: u64) -> Option<Allocation> {
    if let Some((base, region)) = k.mm.spaces.containing(process, at) {
        return Some(Allocation { base, pages: region.pages, kind: MEM_PRIVATE, protect: region.protect });
    }
    if let Some((base, view)) = k.mm.view.containing(at).filter(|(_, view)| view.process == Some(process)) {
        return Some(Allocation {
            base,
            pages: view.pages,
            kind: MEM_MAPPED,
            protect: plain(view.protection()),
        });
    }
    let (base, pages) = user::own_range(k, process, at)?;
    Some(Allocation { base, pages, kind: MEM_PRIVATE, protect: PAGE_READWRITE })
}

/// Where the next thing begins that the process has.
fn next_behind(k: &Kernel, process: u64, at: u64) -> Option<u64> {
    let region = k.mm.spaces.next_behind(process, at);
    region.into_iter().chain(user::next_behind(k, process, at)).min()
}

/// `MEM_COMMIT` or `MEM_RESERVE`, and the page's protection; 0 where it is reserved.
fn state(k: &Kernel, process: u64, known: &Allocation, at: u64) -> (u32, u32) {
    let protection = match k.mm.spaces.containing(process, at) {
        Some((base, region)) => region.protection((at - base) / PAGE),
        None => paging::page(k, at).map(|page| page.protection),
    };
    match protection {
        None => (MEM_RESERVE, 0),
        Some(protection) if virtual_memory::allowed(known.protect) == Some(protection) => {
            (MEM_COMMIT, known.protect)
        }
        Some(protection) => (MEM_COMMIT, plain(protection)),
    }
}

/// The `PAGE_…` that says what can be done.
const fn plain(protection: Protection) -> u32 {
    match protection {
        Protection { write: true, .. } => PAGE_READWRITE,
        Protection { read: true, .. } => PAGE_READONLY,
        _ => PAGE_NOACCESS,
    }
}
