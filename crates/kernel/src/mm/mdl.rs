//! Memory descriptor lists: a buffer as the list of its physical pages.
//!
//! Pages: *Using MDLs*, *IoAllocateMdl function*, *IoFreeMdl function*, *IoBuildPartialMdl function*,
//! *MmBuildMdlForNonPagedPool function*. Locking is in `mdl_lock`, mapping in `mdl_map`. The MDL in memory is what
//! drivers read and inlined macros change; what is remembered here is who holds what, for leaks.

use std::collections::BTreeMap;

use abi::{
    DriverPtr, IRP, MDL, MDL_IO_SPACE, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_PARTIAL,
    MDL_PARTIAL_HAS_BEEN_MAPPED, MDL_SOURCE_IS_NONPAGED_POOL, TARGET_MDL_TOO_SMALL,
};
use engine::windows::PAGE;
use engine::{Flow, Leave};

use super::space::Zone;
use super::{mdl_map, paging, physical, pool, shadow};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::ldr;
use crate::verdict::Verdict;

/// `Mdl `, as Windows tags them.
const TAG: u32 = pool::tag(b"Mdl ");

/// More MDLs than any chain has.
const MOST_CHAINED: u32 = 1 << 16;

/// What is held by the MDL at an address.
#[derive(Clone, Default, Debug)]
pub(crate) struct Held {
    /// Base of the image that locked the pages; none: the kernel.
    pub(crate) owner: Option<u64>,
    /// Return address of the call that did.
    pub(crate) caller: u64,
    /// Physical addresses of the pages it has locked.
    pub(crate) locked: Vec<u64>,
    /// Where its pages are shown besides their own place.
    pub(crate) mappings: Vec<mdl_map::Mapping>,
    /// The pages are its own (`MmAllocatePagesForMdl`).
    pub(crate) owns_pages: bool,
}

/// What MDLs hold, by their address.
#[derive(Default)]
pub struct State {
    pub(crate) held: BTreeMap<u64, Held>,
}

/// Pages that `length` bytes at `address` touch (`ADDRESS_AND_SIZE_TO_SPAN_PAGES`).
#[must_use]
pub(crate) const fn span(address: u64, length: u64) -> u64 {
    (address % PAGE + length).div_ceil(PAGE)
}

/// `MmSizeOfMdl`: bytes of an MDL for that buffer.
///
/// # Errors
/// None.
pub(crate) fn size_of_mdl(_cx: &mut Cx<'_>, address: u64, length: u64) -> Flow<u64> {
    Ok(bytes(span(address, length)))
}

const fn bytes(pages: u64) -> u64 {
    size_of::<MDL>() as u64 + 8 * pages
}

/// An MDL of the kernel's own for `length` bytes at `address`; null if there is no memory.
///
/// # Errors
/// As [`pool::allocate`].
pub(crate) fn create(cx: &mut Cx<'_>, address: u64, length: u32) -> Flow<DriverPtr<MDL>> {
    let mdl = pool::allocate(cx, pool::Kind::NonPaged, bytes(span(address, length.into())), TAG)?;
    initialize(cx, mdl, address, length)
}

/// `IoAllocateMdl`. With an IRP, it becomes the IRP's MDL, or (`secondary`) the last of its chain.
///
/// # Errors
/// A verdict if the IRP is none.
pub(crate) fn io_allocate(
    cx: &mut Cx<'_>,
    address: u64,
    length: u32,
    secondary: bool,
    _charge_quota: bool,
    irp: DriverPtr<IRP>,
) -> Flow<DriverPtr<MDL>> {
    if cx.choose("fault.mdl", 2) == 1 {
        return Ok(DriverPtr::NULL);
    }
    let size = bytes(span(address, length.into()));
    let mdl = pool::allocate_for_caller(cx, pool::Kind::NonPaged, size, TAG)?;
    let mdl = initialize(cx, mdl, address, length)?;
    if mdl.is_null() || irp.is_null() {
        return Ok(mdl);
    }
    let mut link = irp + IRP::MdlAddress;
    if secondary {
        let mut at = cx.read(link)?;
        for length in 0.. {
            if at.is_null() {
                break;
            }
            if length >= MOST_CHAINED {
                return Err(cx.stop(Verdict::endless_list("MDL.Next", irp.address)));
            }
            link = at + MDL::Next;
            at = cx.read(link)?;
        }
    }
    cx.write(link, mdl)?;
    Ok(mdl)
}

fn initialize(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, address: u64, length: u32) -> Flow<DriverPtr<MDL>> {
    if mdl.is_null() {
        return Ok(mdl);
    }
    let size = bytes(span(address, length.into()));
    // As in Windows: what does not fit in 16 bits is cut off.
    cx.write(mdl + MDL::Size, low16(size).cast_signed())?;
    cx.write(mdl + MDL::StartVa, DriverPtr::new(address & !(PAGE - 1)))?;
    cx.write(mdl + MDL::ByteOffset, low32(address % PAGE))?;
    cx.write(mdl + MDL::ByteCount, length)?;
    Ok(mdl)
}

/// `IoFreeMdl`. A mapping of a partial MDL goes with it.
///
/// # Errors
/// A verdict if its pages are locked or mapped, or if it is no block of pool.
pub(crate) fn io_free(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    let flags = flags(cx, mdl)?;
    if flags & MDL_PARTIAL_HAS_BEEN_MAPPED != 0 {
        mdl_map::take_away_system(cx, mdl)?;
    }
    let held = cx.with(|k| k.mm.mdl.held.get(&mdl.address).cloned()).unwrap_or_default();
    if flags & MDL_PAGES_LOCKED != 0 && !held.locked.is_empty() && !held.owns_pages {
        let message = format!(
            "IoFreeMdl was given the MDL {:#x}, whose {} pages are locked",
            mdl.address,
            held.locked.len()
        );
        let parameters = [held.caller, 0, mdl.address, held.locked.len() as u64];
        return Err(cx.stop(Verdict::error("mdl-freed-locked", message).bug_check(0xCB, parameters)));
    }
    if flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_PARTIAL) == MDL_MAPPED_TO_SYSTEM_VA && !held.mappings.is_empty()
    {
        let message = format!("IoFreeMdl was given the MDL {:#x}, whose pages are mapped", mdl.address);
        // Nothing can undo the mapping any more: its range of system addresses is lost, with Driver Verifier or without.
        let parameters = [0xB8, mdl.address, flags.into(), 0];
        return Err(cx.stop(Verdict::error("mdl-freed-mapped", message).bug_check(0xC4, parameters)));
    }
    pool::free(cx, mdl)
}

/// `MmBuildMdlForNonPagedPool`: fills in the pages of memory that is always there, a device's too (`MmMapIoSpace`).
///
/// # Errors
/// A verdict if the buffer is not nonpaged memory of the kernel's, or the MDL is locked already.
pub(crate) fn build_for_nonpaged_pool(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    let (address, length) = buffer(cx, mdl)?;
    let before = flags(cx, mdl)?;
    if before & (MDL_PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARTIAL) != 0 {
        let message =
            format!("MmBuildMdlForNonPagedPool was given an MDL that is built already (flags {before:#x})");
        let verdict = Verdict::error("mdl-built-twice", message);
        // The same pages once more, unless they were locked, or are another MDL's.
        if before & (MDL_PAGES_LOCKED | MDL_PARTIAL) != 0 {
            return Err(cx.stop(verdict));
        }
        cx.report(verdict.as_warning());
    }
    let pages = span(address, length);
    let mut of_device = 0;
    for index in 0..pages {
        let at = (address & !(PAGE - 1)).wrapping_add(index * PAGE);
        let page = cx.with(|k| paging::page(k, at));
        let Some(page) = page.filter(|page| !page.pageable) else {
            let what = if page.is_some() { "pageable memory" } else { "not mapped" };
            let message = format!("MmBuildMdlForNonPagedPool was given a buffer at {at:#x}, which is {what}");
            let parameters = [0x7F, mdl.address, before.into(), 0];
            return Err(cx.stop(Verdict::error("mdl-not-nonpaged", message).bug_check(0xC4, parameters)));
        };
        if !physical::is_ram(page.physical) {
            of_device = MDL_IO_SPACE;
        }
        write_page(cx, mdl, index, page.physical)?;
    }
    if Zone::of(address) == Some(Zone::Stacks) {
        let message = format!(
            "MmBuildMdlForNonPagedPool was given a buffer at {address:#x}, on a kernel stack, which is gone when its routine returns"
        );
        cx.report(Verdict::warning("mdl-of-stack", message));
    }
    shadow::shared(cx, address, length);
    cx.write(mdl + MDL::MappedSystemVa, DriverPtr::new(address))?;
    cx.write(mdl + MDL::Process, DriverPtr::NULL)?;
    set_flags(cx, mdl, before | MDL_SOURCE_IS_NONPAGED_POOL | of_device)?;
    cx.detail(Kind::MdlBuilt, || Event::MdlBuilt { mdl: mdl.address, source: None });
    Ok(())
}

/// `IoBuildPartialMdl`: `target` comes to describe `length` bytes (0: all the rest) at `address` inside `source`.
///
/// # Errors
/// A verdict if they lie outside `source`, or `target` is too small.
pub(crate) fn build_partial(
    cx: &mut Cx<'_>,
    source: DriverPtr<MDL>,
    target: DriverPtr<MDL>,
    address: u64,
    length: u32,
) -> Flow<()> {
    let (start, total) = buffer(cx, source)?;
    let offset = address.wrapping_sub(start);
    if offset > total || (length != 0 && u64::from(length) > total - offset) {
        let message = format!(
            "IoBuildPartialMdl was asked for {length} bytes at {address:#x}; the source MDL describes {total} bytes at {start:#x}"
        );
        return Err(cx.stop(Verdict::error("mdl-partial-outside", message)));
    }
    let length = if length == 0 { low32(total - offset) } else { length };
    let pages = span(address, length.into());
    let room = u64::from(cx.read(target + MDL::Size)?.cast_unsigned());
    if room < bytes(pages) {
        let message = format!(
            "IoBuildPartialMdl needs {pages} pages in its target; it has room for {}",
            (room.max(48) - 48) / 8
        );
        let verdict = Verdict::error("mdl-target-too-small", message);
        return Err(cx.stop(verdict.bug_check(TARGET_MDL_TOO_SMALL, [0; 4])));
    }
    let is_mapped = flags(cx, target)? & (MDL_MAPPED_TO_SYSTEM_VA | MDL_PARTIAL_HAS_BEEN_MAPPED) != 0;
    let mapped = cx.with(|k| {
        let held = k.mm.mdl.held.get(&target.address)?;
        held.mappings.iter().find(|mapping| !mapping.user).copied()
    });
    if let Some(mapped) = mapped.filter(|_| is_mapped) {
        let message = format!(
            "IoBuildPartialMdl was given the MDL {:#x}, whose pages are mapped at {:#x}: nothing can undo that mapping any more",
            target.address, mapped.address
        );
        return Err(cx.stop(Verdict::error("mdl-rebuilt-mapped", message)));
    }
    let first = (address / PAGE).wrapping_sub(start / PAGE);
    for index in 0..pages {
        let page = page(cx, source, first.wrapping_add(index))?;
        write_page(cx, target, index, page)?;
    }
    cx.write(target + MDL::StartVa, DriverPtr::new(address & !(PAGE - 1)))?;
    cx.write(target + MDL::ByteOffset, low32(address % PAGE))?;
    cx.write(target + MDL::ByteCount, length)?;
    let process = cx.read(source + MDL::Process)?;
    cx.write(target + MDL::Process, process)?;
    inherit_mapping(cx, source, target, offset)?;
    let (mdl, source) = (target.address, Some(source.address));
    cx.detail(Kind::MdlBuilt, || Event::MdlBuilt { mdl, source });
    Ok(())
}

/// A partial MDL of a mapped buffer shows where its part of the mapping is.
fn inherit_mapping(cx: &mut Cx<'_>, source: DriverPtr<MDL>, target: DriverPtr<MDL>, offset: u64) -> Flow<()> {
    let from = flags(cx, source)?;
    let mut to = flags(cx, target)? & abi::MDL_ALLOCATED_FIXED_SIZE | MDL_PARTIAL;
    to |= from & (abi::MDL_IO_PAGE_READ | MDL_IO_SPACE);
    if from & MDL_SOURCE_IS_NONPAGED_POOL != 0 {
        to |= MDL_SOURCE_IS_NONPAGED_POOL;
    }
    if from & (MDL_SOURCE_IS_NONPAGED_POOL | MDL_MAPPED_TO_SYSTEM_VA) != 0 {
        let mapped = cx.read(source + MDL::MappedSystemVa)?;
        cx.write(target + MDL::MappedSystemVa, mapped.byte_add(offset))?;
        if from & MDL_MAPPED_TO_SYSTEM_VA != 0 {
            to |= abi::MDL_PARENT_MAPPED_SYSTEM_VA | MDL_MAPPED_TO_SYSTEM_VA;
        }
    }
    set_flags(cx, target, to)
}

/// `MmGetMdlVirtualAddress` and `MmGetMdlByteCount`: the buffer it describes.
///
/// # Errors
/// A verdict if the MDL cannot be read.
pub(crate) fn buffer(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<(u64, u64)> {
    let start = cx.read(mdl + MDL::StartVa)?.address;
    let offset = cx.read(mdl + MDL::ByteOffset)?;
    let count = cx.read(mdl + MDL::ByteCount)?;
    Ok((start.wrapping_add(offset.into()), count.into()))
}

/// The physical address of its `index`-th page.
///
/// # Errors
/// As [`buffer`].
pub(crate) fn page(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, index: u64) -> Flow<u64> {
    Ok(cx.read(entry(mdl, index))?.wrapping_mul(PAGE))
}

/// The physical addresses of so many pages, from its `first` one on: at once.
pub(crate) fn pages(
    cx: &mut Cx<'_>,
    mdl: DriverPtr<MDL>,
    (first, count): (u64, u64),
) -> Flow<impl ExactSizeIterator<Item = u64>> {
    let bytes = cx.read_bytes(entry(mdl, first).address, 8 * count)?;
    let numbers: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|eight| eight.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        .collect();
    Ok(numbers.into_iter().map(|number| number.wrapping_mul(PAGE)))
}

pub(crate) fn write_page(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, index: u64, physical: u64) -> Flow<()> {
    cx.write(entry(mdl, index), physical / PAGE)
}

fn entry(mdl: DriverPtr<MDL>, index: u64) -> DriverPtr<u64> {
    mdl.byte_add(size_of::<MDL>() as u64).cast::<u64>().index(index)
}

pub(crate) fn flags(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<u16> {
    Ok(cx.read(mdl + MDL::MdlFlags)?.cast_unsigned())
}

pub(crate) fn set_flags(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, flags: u16) -> Flow<()> {
    cx.write(mdl + MDL::MdlFlags, flags.cast_signed())
}

/// A verdict on an MDL in the wrong state: Verifier's check `sub` of 0xC4.
pub(crate) fn wrong_state(
    cx: &mut Cx<'_>,
    routine: &str,
    mdl: DriverPtr<MDL>,
    sub: u64,
    what: &str,
) -> Leave {
    let flags = match flags(cx, mdl) {
        Ok(flags) => flags,
        Err(leave) => return leave,
    };
    let message = format!("{routine} was given the MDL {:#x}, which {what} (flags {flags:#x})", mdl.address);
    cx.stop(Verdict::error("mdl-state", message).bug_check(0xC4, [sub, mdl.address, flags.into(), 0]))
}

/// An MDL whose pages a driver has left locked or mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outstanding {
    /// The MDL.
    pub mdl: u64,
    /// Pages it holds locked.
    pub pages: usize,
    /// Mappings that were not taken away.
    pub mappings: usize,
    /// Who locked it, as a symbol.
    pub locked_by: String,
}

/// Every MDL through which the image at `driver` still holds pages: at its unload and when a process ends
/// (`DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS`).
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<Outstanding> {
    let held: Vec<(u64, Held)> = cx.with(|k| {
        let own = k.mm.mdl.held.iter().filter(|(_, held)| held.owner == Some(driver));
        own.map(|(&mdl, held)| (mdl, held.clone())).collect()
    });
    let tell = |(mdl, held): (u64, Held)| Outstanding {
        mdl,
        pages: held.locked.len(),
        mappings: held.mappings.len(),
        locked_by: ldr::symbols::describe(cx, held.caller),
    };
    held.into_iter().map(tell).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "the field has 16 bits")]
const fn low16(value: u64) -> u16 {
    value as u16
}

#[allow(clippy::cast_possible_truncation, reason = "the callers' values have at most 32 bits")]
const fn low32(value: u64) -> u32 {
    value as u32
}
