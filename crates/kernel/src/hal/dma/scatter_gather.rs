//! Scatter/gather lists: a whole buffer mapped at once, run by run.
//!
//! Pages: *PGET_SCATTER_GATHER_LIST callback function*, *PPUT_SCATTER_GATHER_LIST callback function*,
//! *PCALCULATE_SCATTER_GATHER_LIST_SIZE callback function*, *PBUILD_SCATTER_GATHER_LIST callback function*,
//! *PBUILD_MDL_FROM_SCATTER_GATHER_LIST callback function*. MDLs may be chained.

use abi::{
    Code, DEVICE_OBJECT, DMA_ADAPTER, DriverPtr, MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, NtStatus,
    SCATTER_GATHER_ELEMENT, SCATTER_GATHER_LIST,
};
use engine::Flow;
use engine::windows::PAGE;

use super::channel::{self, Request, Terms, Work};
use super::pieces::{self, Piece};
use super::transfer::{self, Map};
use super::{By, DMA_VIOLATION, find, system};
use crate::cx::Cx;
use crate::event::Role;
use crate::io::routine;
use crate::mm::{mdl, mdl_map, pool};
use crate::verdict::Verdict;

/// Bytes before the elements.
const HEAD: u64 = SCATTER_GATHER_LIST::Elements.offset();
const ELEMENT: u64 = size_of::<SCATTER_GATHER_ELEMENT>() as u64;
const TAG: u32 = pool::tag(b"DmaL");

/// A list that is asked for, or there.
pub(crate) struct List {
    adapter: u64,
    /// Of its map registers; 0 as long as it has none.
    base: u64,
    /// Its memory is the kernel's.
    is_own: bool,
    va: u64,
    pieces: Vec<Piece>,
    to_device: bool,
    routine: DriverPtr<Code>,
    context: u64,
    /// What describes the memory that is mapped.
    described: DriverPtr<MDL>,
    /// Pages of it that were locked when it was asked for.
    locked: Vec<u64>,
    by: By,
}

impl List {
    /// Who has asked for it, if it is this adapter's.
    pub(super) fn left_of(&self, adapter: u64) -> Option<By> {
        (self.adapter == adapter).then_some(self.by)
    }
}

/// Bytes of a list with so many elements.
pub(super) const fn bytes(elements: usize) -> u64 {
    HEAD + ELEMENT * elements as u64
}

/// `GetScatterGatherList`.
///
/// # Errors
/// A verdict on an adapter or an MDL that is none, or on what the routine does.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn get(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    device: DriverPtr<DEVICE_OBJECT>,
    mdl: DriverPtr<MDL>,
    va: u64,
    length: u32,
    routine: DriverPtr<Code>,
    context: u64,
    to_device: bool,
) -> Flow<NtStatus> {
    let wanted = Wanted { device, va, pieces: Vec::new(), to_device, routine, context };
    ask_by_address(cx, "GetScatterGatherList", adapter, (mdl, length), wanted, None)
}

/// `BuildScatterGatherList`: in the caller's memory.
///
/// # Errors
/// As [`get`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn build(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    device: DriverPtr<DEVICE_OBJECT>,
    mdl: DriverPtr<MDL>,
    va: u64,
    length: u32,
    routine: DriverPtr<Code>,
    context: u64,
    to_device: bool,
    buffer: u64,
    room: u32,
) -> Flow<NtStatus> {
    let wanted = Wanted { device, va, pieces: Vec::new(), to_device, routine, context };
    ask_by_address(cx, "BuildScatterGatherList", adapter, (mdl, length), wanted, Some((buffer, room)))
}

/// Asks for a list of so many bytes of the MDL from `wanted.va` on.
fn ask_by_address(
    cx: &mut Cx<'_>,
    name: &str,
    adapter: DriverPtr<DMA_ADAPTER>,
    (mdl, length): (DriverPtr<MDL>, u32),
    wanted: Wanted,
    memory: Option<(u64, u32)>,
) -> Flow<NtStatus> {
    let at = find(cx, name, adapter)?;
    transfer::expect_bytes(cx, name, length.into())?;
    let Some(pieces) = pieces::of(cx, name, mdl, (wanted.va, length.into()), true)? else {
        let message = format!(
            "{name} was asked for {length:#x} bytes from {:#x} on, beyond the end of its MDL: it fails",
            wanted.va
        );
        let verdict = Verdict::verifier("dma-outside-mdl", message);
        cx.verify(verdict.bug_check(DMA_VIOLATION, [0x1F, 3, wanted.va, length.into()]))?;
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    };
    let asked = ask(cx, at, Wanted { pieces, ..wanted }, memory, Terms::default())?;
    Ok(asked.err().unwrap_or(NtStatus::SUCCESS))
}

/// What a list is asked for with.
pub(super) struct Wanted {
    pub(super) device: DriverPtr<DEVICE_OBJECT>,
    pub(super) va: u64,
    pub(super) pieces: Vec<Piece>,
    pub(super) to_device: bool,
    pub(super) routine: DriverPtr<Code>,
    pub(super) context: u64,
}

/// Asks for a list, in the caller's memory if that is given, with its bytes; where it is, or is to be. Without a routine, which is for those
/// alone who ask synchronously, the channel is kept.
pub(super) fn ask(
    cx: &mut Cx<'_>,
    at: u64,
    wanted: Wanted,
    memory: Option<(u64, u32)>,
    terms: Terms,
) -> Flow<Result<u64, NtStatus>> {
    let Wanted { device, va, pieces, to_device, routine, context } = wanted;
    system::refuse(cx, at, "a scatter/gather list by system DMA")?;
    let list = match memory {
        Some((_, room)) if u64::from(room) < bytes(pieces.len()) => {
            return Ok(Err(NtStatus::BUFFER_TOO_SMALL));
        }
        Some((buffer, _)) => buffer,
        None => pool::allocate::<()>(cx, pool::Kind::NonPaged, bytes(pieces.len()), TAG)?.address,
    };
    if list == 0 {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let irp = cx.read(device + DEVICE_OBJECT::CurrentIrp)?;
    let (by, described, is_own) = (By::now(cx), DriverPtr::NULL, memory.is_none());
    let pages = pieces.iter().map(|piece| piece.physical);
    let locked = cx.with(|k| pages.filter(|page| k.mm.physical.is_locked(*page)).collect());
    let made =
        List { adapter: at, base: 0, is_own, va, pieces, to_device, routine, context, described, locked, by };
    let before = cx.with(|k| k.hal.dma.lists.insert(list, made));
    let work = Work::List { list, is_kept: terms.is_synchronous && routine.is_null() };
    match channel::ask(cx, at, (device, irp), count, terms, work)? {
        Ok(_) => Ok(Ok(list)),
        Err(status) => {
            cx.with(|k| k.hal.dma.lists.remove(&list));
            if let Some(before) = before {
                cx.with(|k| k.hal.dma.lists.insert(list, before));
            }
            if is_own {
                pool::free(cx, DriverPtr::<()>::new(list))?;
            }
            Ok(Err(status))
        }
    }
}

/// A request for a list was taken back.
pub(super) fn forget(cx: &mut Cx<'_>, list: u64) -> Flow<()> {
    match cx.with(|k| k.hal.dma.lists.remove(&list)) {
        Some(known) if known.is_own => pool::free(cx, DriverPtr::<()>::new(list)),
        _ => Ok(()),
    }
}

/// It has its map registers: the buffer is mapped, and the driver's routine is called.
pub(super) fn run(cx: &mut Cx<'_>, at: u64, address: u64, request: &Request) -> Flow<()> {
    let Some((pieces, start, to_device, routine, context, by, mask, several)) = cx.with(|k| {
        let adapter = k.hal.dma.adapters.get(&at)?;
        let (mask, several) = (adapter.mask, adapter.scatter_gather);
        let list = k.hal.dma.lists.get_mut(&address)?;
        list.base = request.base;
        Some((
            std::mem::take(&mut list.pieces),
            list.va,
            list.to_device,
            list.routine,
            list.context,
            list.by,
            mask,
            several,
        ))
    }) else {
        return Ok(());
    };
    let runs = pieces::runs(pieces, mask, several);
    let maps = transfer::place_all(cx, at, runs, start, to_device, ("GetScatterGatherList", by))?;
    write(cx, address, request.base, &maps)?;
    cx.with(|k| {
        let pieces = maps.iter().map(|map| (map.logical, map.bytes));
        k.hal.dma.programmed.mapped(request.base, pieces.clone(), pieces.map(|(_, bytes)| bytes).sum());
        k.hal.dma.registers.get_mut(&request.base).map(|known| known.maps = maps)
    });
    if matches!(request.work, Work::List { is_kept: true, .. }) {
        return Ok(());
    }
    let arguments = [request.device.address, request.irp.address, address, context];
    routine::call(cx, Role::AdapterListControl, routine, request.device.address, &arguments).map(|_| ())
}

/// Writes a list of what is mapped.
pub(super) fn write(cx: &mut Cx<'_>, address: u64, base: u64, maps: &[Map]) -> Flow<()> {
    let list: DriverPtr<SCATTER_GATHER_LIST> = DriverPtr::new(address);
    cx.write(list + SCATTER_GATHER_LIST::NumberOfElements, u32::try_from(maps.len()).unwrap_or(u32::MAX))?;
    cx.write(list + SCATTER_GATHER_LIST::Reserved, base)?;
    // As SCATTER_GATHER_ELEMENT has it, and all at once: address, length, reserved.
    let mut elements = Vec::with_capacity(maps.len() * size_of::<SCATTER_GATHER_ELEMENT>());
    for map in maps {
        let length = u32::try_from(map.bytes).unwrap_or(u32::MAX);
        [map.logical, length.into(), 0]
            .iter()
            .for_each(|word| elements.extend_from_slice(&word.to_le_bytes()));
    }
    cx.write_bytes(address + HEAD, &elements)
}

/// `PutScatterGatherList`: flushes the buffer, and frees map registers, list and what describes it.
///
/// # Errors
/// A verdict if it is no list of the adapter's, or data is lost.
pub(crate) fn put(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    address: u64,
    to_device: bool,
) -> Flow<()> {
    const NAME: &str = "PutScatterGatherList";
    let at = find(cx, NAME, adapter)?;
    held(cx, NAME, at, address)?;
    let Some(list) = cx.with(|k| k.hal.dma.lists.remove(&address)) else { return Ok(()) };
    if !list.described.is_null() {
        if mdl::flags(cx, list.described)? & MDL_MAPPED_TO_SYSTEM_VA != 0 {
            mdl_map::unmap_system(cx, list.described)?;
        }
        cx.with(|k| k.mm.mdl.held.remove(&list.described.address));
        pool::free(cx, list.described)?;
    }
    if cx.with(|k| list.locked.iter().any(|page| !k.mm.physical.is_locked(*page))) {
        let message = format!(
            "{NAME} was called with {address:#x}, whose buffer is not locked any more: its request was completed, or its pages were unlocked, before what was transferred had been flushed"
        );
        cx.report(Verdict::warning("dma-unlocked-while-mapped", message).related("mapped", list.by.moment));
    }
    if list.to_device && !to_device {
        // The other way round data may be lost: what is left mapped then is judged below.
        let message = format!(
            "{NAME} was called with {address:#x} for a transfer from the device, and the list was asked for by one to it"
        );
        let verdict = Verdict::verifier("dma-wrong-direction", message).related("mapped", list.by.moment);
        cx.verify(verdict)?;
    }
    transfer::flush_all(cx, list.base, to_device, NAME);
    transfer::release(cx, at, list.base, NAME)?;
    if list.is_own {
        pool::free(cx, DriverPtr::<()>::new(address))?;
    }
    channel::serve(cx, at)
}

/// The list is this adapter's, and the driver has it.
fn held(cx: &mut Cx<'_>, name: &str, at: u64, address: u64) -> Flow<()> {
    let found = cx.with(|k| k.hal.dma.lists.get(&address).map(|list| (list.adapter, list.base)));
    let why = match found {
        Some((adapter, base)) if adapter == at && base != 0 => return Ok(()),
        Some((adapter, _)) if adapter == at => "which still waits for map registers",
        Some(_) => "which is another adapter's",
        None => "which is no scatter/gather list, or was put already",
    };
    let message = format!("{name} was called with {address:#x}, {why}");
    let verdict = Verdict::error("not-a-scatter-gather-list", message);
    Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x6, at, address, 0])))
}

/// `CalculateScatterGatherList`: the bytes of a list for a buffer, and its map registers; without an MDL the most that there can be.
///
/// # Errors
/// A verdict on an adapter or an MDL that is none.
pub(crate) fn calculate(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    va: u64,
    length: u32,
    size: DriverPtr<u32>,
    registers: DriverPtr<u32>,
) -> Flow<NtStatus> {
    const NAME: &str = "CalculateScatterGatherList";
    let at = find(cx, NAME, adapter)?;
    let count = if mdl.is_null() {
        usize::try_from((va % PAGE + u64::from(length)).div_ceil(PAGE)).unwrap_or(usize::MAX)
    } else {
        match pieces::of(cx, NAME, mdl, (va, length.into()), true)? {
            Some(pieces) => pieces.len(),
            None => return Ok(NtStatus::BUFFER_TOO_SMALL),
        }
    };
    let needed = u32::try_from(count).unwrap_or(u32::MAX);
    if needed > cx.with(|k| k.hal.dma.adapters[&at].most) {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write(size, u32::try_from(bytes(count)).unwrap_or(u32::MAX))?;
    if !registers.is_null() {
        cx.write(registers, needed)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `BuildMdlFromScatterGatherList`: the MDL that the list was made from, or one of the copies that the device reaches instead.
///
/// # Errors
/// A verdict on a list that is none.
pub(crate) fn build_mdl(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    address: u64,
    original: DriverPtr<MDL>,
    target: DriverPtr<DriverPtr<MDL>>,
) -> Flow<NtStatus> {
    const NAME: &str = "BuildMdlFromScatterGatherList";
    let at = find(cx, NAME, adapter)?;
    held(cx, NAME, at, address)?;
    if original.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let (va, is_described, maps) = cx.with(|k| {
        let list = &k.hal.dma.lists[&address];
        (list.va, !list.described.is_null(), k.hal.dma.registers[&list.base].maps.clone())
    });
    if is_described {
        return Ok(NtStatus::NONE_MAPPED);
    }
    if maps.iter().all(|map| map.copy.is_none()) {
        cx.write(target, original)?;
        return Ok(NtStatus::SUCCESS);
    }
    let length: u64 = maps.iter().map(|map| map.bytes).sum();
    let described = mdl::create(cx, va, u32::try_from(length).unwrap_or(u32::MAX))?;
    if described.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let mut begin = va;
    for map in &maps {
        let mut inside = 0;
        while inside < map.bytes {
            let at = begin.wrapping_add(inside);
            let physical = match map.copy {
                Some((_, physical)) => physical + (map.logical % PAGE + inside) / PAGE * PAGE,
                None => page_of(&map.pieces, inside),
            };
            mdl::write_page(cx, described, (at / PAGE).wrapping_sub(va / PAGE), physical)?;
            inside += PAGE - at % PAGE;
        }
        begin = begin.wrapping_add(map.bytes);
    }
    let flags = mdl::flags(cx, described)?;
    mdl::set_flags(cx, described, flags | MDL_PAGES_LOCKED)?;
    cx.with(|k| k.hal.dma.lists.get_mut(&address).map(|list| list.described = described));
    cx.write(target, described)?;
    Ok(NtStatus::SUCCESS)
}

/// The page that holds the byte at `offset` of these pieces.
fn page_of(pieces: &[Piece], offset: u64) -> u64 {
    let mut begin = 0;
    for piece in pieces {
        if offset < begin + piece.bytes {
            return piece.physical.wrapping_add(offset - begin) & !(PAGE - 1);
        }
        begin += piece.bytes;
    }
    0
}
