//! What DMA version 3 has besides: requests that can be synchronous or cancelled, offsets into chains of MDLs, whole lists by `MapTransferEx`.
//!
//! Pages: *PINITIALIZE_DMA_TRANSFER_CONTEXT*, *PALLOCATE_ADAPTER_CHANNEL_EX*, *PMAP_TRANSFER_EX*, *PFLUSH_ADAPTER_BUFFERS_EX*,
//! *PGET_SCATTER_GATHER_LIST_EX*, *PBUILD_SCATTER_GATHER_LIST_EX*, *PFREE_ADAPTER_OBJECT*, *PCANCEL_ADAPTER_CHANNEL*, *PGET_DMA_ADAPTER_INFO*,
//! *PGET_DMA_TRANSFER_INFO callback function*. Completion routines are for system DMA, and its controllers here give no signal when they are done.

use abi::{
    ADAPTER_INFO_SYNCHRONOUS_CALLBACK, Code, DEVICE_OBJECT, DMA_ADAPTER, DMA_ADAPTER_INFO,
    DMA_ADAPTER_INFO_VERSION1, DMA_SYNCHRONOUS_CALLBACK, DMA_TRANSFER_CONTEXT_SIZE_V1, DMA_TRANSFER_INFO,
    DMA_TRANSFER_INFO_VERSION1, DMA_TRANSFER_INFO_VERSION2, DeallocateObject, DriverPtr, KeepObject, MDL,
    NtStatus, SCATTER_GATHER_ELEMENT,
};
use engine::Flow;
use engine::windows::PAGE;

use super::channel::{self, Terms, Work};
use super::pieces::{self, Piece, Run};
use super::scatter_gather::{self, Wanted, bytes};
use super::transfer::{self, Map};
use super::{By, find, system};
use crate::cx::{Cx, Kernel};
use crate::few::Few;
use crate::mm::{mdl, pool};

/// How far a request is that has a DMA transfer context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Initialised.
    New,
    /// A request was made with it.
    Asked,
    /// Cancelled, before or after that.
    Cancelled,
}

/// `InitializeDmaTransferContext`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn initialize_context(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    context: DriverPtr<()>,
) -> Flow<NtStatus> {
    find(cx, "InitializeDmaTransferContext", adapter)?;
    if context.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let size = usize::try_from(DMA_TRANSFER_CONTEXT_SIZE_V1).unwrap_or(0);
    cx.write_bytes(context.address, &vec![0; size])?;
    cx.with(|k| k.hal.dma.contexts.insert(context.address, Progress::New));
    Ok(NtStatus::SUCCESS)
}

/// A request with this context is made; not if it was cancelled before, or the context is none.
pub(super) fn begin(k: &mut Kernel, context: u64) -> Result<(), NtStatus> {
    match k.hal.dma.contexts.get_mut(&context) {
        None => Err(NtStatus::INVALID_PARAMETER),
        Some(Progress::Cancelled) => Err(NtStatus::CANCELLED),
        Some(progress) => {
            *progress = Progress::Asked;
            Ok(())
        }
    }
}

/// The request with this context, if it has one, was refused.
pub(super) fn take_back(k: &mut Kernel, context: u64) {
    if let Some(progress) = k.hal.dma.contexts.get_mut(&context) {
        *progress = Progress::New;
    }
}

/// Nothing more is done with this context; not if it is none.
pub(super) fn cancel_context(k: &mut Kernel, context: u64) -> bool {
    let progress = k.hal.dma.contexts.get_mut(&context);
    progress.map(|progress| *progress = Progress::Cancelled).is_some()
}

/// `CancelAdapterChannel`: whether the routine of the request with this context will not be called.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn cancel(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    _device: DriverPtr<DEVICE_OBJECT>,
    context: u64,
) -> Flow<bool> {
    let at = find(cx, "CancelAdapterChannel", adapter)?;
    let Some(progress) = cx.with(|k| k.hal.dma.contexts.get(&context).copied()) else { return Ok(false) };
    let taken = cx.with(|k| channel::take_back(k, at, context));
    if progress == Progress::Asked && taken.is_none() {
        return Ok(false);
    }
    cx.with(|k| k.hal.dma.contexts.insert(context, Progress::Cancelled));
    if let Some(request) = taken {
        pool::free(cx, DriverPtr::<()>::new(request.base))?;
        if let Work::List { list, .. } = request.work {
            scatter_gather::forget(cx, list)?;
        }
        // A request that waits behind it may need less.
        channel::serve(cx, at)?;
    }
    Ok(true)
}

/// `AllocateAdapterChannelEx`.
///
/// # Errors
/// A verdict if it is no adapter, or on what the routine does.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn allocate_channel(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    device: DriverPtr<DEVICE_OBJECT>,
    transfer: u64,
    count: u32,
    flags: u32,
    routine: DriverPtr<Code>,
    context: u64,
    base: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let at = find(cx, "AllocateAdapterChannelEx", adapter)?;
    let is_synchronous = flags & DMA_SYNCHRONOUS_CALLBACK != 0;
    if transfer == 0 || (routine.is_null() && base.is_null()) || (!base.is_null() && !is_synchronous) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let irp = cx.read(device + DEVICE_OBJECT::CurrentIrp)?;
    let work = if routine.is_null() { Work::Nothing } else { Work::Control { routine, context } };
    let terms = Terms { transfer, is_synchronous };
    match channel::ask(cx, at, (device, irp), count, terms, work)? {
        Ok(given) if !base.is_null() => cx.write(base, given).map(|()| NtStatus::SUCCESS),
        Ok(_) => Ok(NtStatus::SUCCESS),
        Err(status) => Ok(status),
    }
}

/// `FreeAdapterObject`: as an `AdapterControl` routine's return.
///
/// # Errors
/// As [`channel::free`].
pub(crate) fn free_object(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>, action: u32) -> Flow<()> {
    const NAME: &str = "FreeAdapterObject";
    let at = find(cx, NAME, adapter)?;
    if action == KeepObject {
        return Ok(());
    }
    channel::free_holders(cx, NAME, at, action == DeallocateObject)
}

/// `MapTransferEx`: as many runs as there are map registers and elements for, in a list in the caller's memory.
///
/// # Errors
/// A verdict on an adapter, map registers or MDLs that are none.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn map_transfer(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    base: u64,
    offset: u64,
    _device_offset: u32,
    length: DriverPtr<u32>,
    to_device: bool,
    buffer: u64,
    room: u32,
    completion: u64,
    _context: u64,
) -> Flow<NtStatus> {
    const NAME: &str = "MapTransferEx";
    let at = find(cx, NAME, adapter)?;
    transfer::check(cx, NAME, at, base)?;
    if completion != 0 {
        system::refuse(cx, at, "the completion routine of MapTransferEx")?;
    }
    let is_cancelled = cx.with(|k| {
        let dma = &k.hal.dma;
        dma.contexts.get(&dma.registers[&base].context) == Some(&Progress::Cancelled)
    });
    if is_cancelled {
        return Ok(NtStatus::CANCELLED);
    }
    let wanted = u64::from(cx.read(length)?);
    transfer::expect_bytes(cx, NAME, wanted)?;
    let elements = u64::from(room).saturating_sub(bytes(0)) / size_of::<SCATTER_GATHER_ELEMENT>() as u64;
    let Some((start, found)) = pieces::at_offset(cx, NAME, mdl, (offset, wanted))? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    if buffer == 0 || elements == 0 || wanted == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    system::refuse_odd(cx, at, (start, wanted))?;
    let (mask, several, mut unused) = cx.with(|k| {
        let adapter = &k.hal.dma.adapters[&at];
        (adapter.mask, adapter.scatter_gather, k.hal.dma.registers[&base].unused())
    });
    let by = By::now(cx);
    let (mut va, mut maps): (u64, Vec<Map>) = (start, Vec::new());
    for run in pieces::runs(found, mask, several) {
        if maps.len() as u64 == elements || unused == 0 {
            break;
        }
        let whole = run.pieces.len();
        let run = cx.with(|k| system::as_long(k, at, first_of(run, unused)));
        let is_whole = run.pieces.len() == whole;
        let map = transfer::place(cx, at, run, va, to_device, (NAME, by))?;
        cx.with(|k| system::program(k, at, &map));
        va = va.wrapping_add(map.bytes);
        unused = unused.saturating_sub(map.span());
        maps.push(map);
        if !is_whole {
            break;
        }
    }
    if maps.is_empty() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    scatter_gather::write(cx, buffer, base, &maps)?;
    let mapped: u64 = maps.iter().map(|map| map.bytes).sum();
    cx.with(|k| k.hal.dma.registers.get_mut(&base).map(|known| known.maps.extend(maps)));
    cx.write(length, u32::try_from(mapped).unwrap_or(u32::MAX))?;
    Ok(NtStatus::SUCCESS)
}

/// As much of a run as so many map registers are enough for.
pub(super) fn first_of(run: Run, registers: u64) -> Run {
    let offset = run.pieces.first().map_or(0, |piece| piece.physical % PAGE);
    let mut room = (registers * PAGE).saturating_sub(offset);
    let mut pieces = Few::default();
    for piece in run.pieces.iter().copied() {
        if room == 0 {
            break;
        }
        let bytes = piece.bytes.min(room);
        room -= bytes;
        pieces.push(Piece { bytes, ..piece });
    }
    Run { pieces, is_copied: run.is_copied }
}

/// `FlushAdapterBuffersEx`.
///
/// # Errors
/// As [`transfer::flush`].
pub(crate) fn flush(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    base: u64,
    offset: u64,
    length: u32,
    to_device: bool,
) -> Flow<NtStatus> {
    const NAME: &str = "FlushAdapterBuffersEx";
    let at = find(cx, NAME, adapter)?;
    transfer::check(cx, NAME, at, base)?;
    let start = mdl::buffer(cx, mdl)?.0.wrapping_add(offset);
    transfer::flush_range(cx, NAME, base, (start, length), to_device)?;
    Ok(NtStatus::SUCCESS)
}

/// `GetScatterGatherListEx`.
///
/// # Errors
/// As [`scatter_gather::get`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn get_list(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    device: DriverPtr<DEVICE_OBJECT>,
    transfer: u64,
    mdl: DriverPtr<MDL>,
    offset: u64,
    length: u32,
    flags: u32,
    routine: DriverPtr<Code>,
    context: u64,
    to_device: bool,
    _completion: u64,
    _completion_context: u64,
    list: DriverPtr<u64>,
) -> Flow<NtStatus> {
    const NAME: &str = "GetScatterGatherListEx";
    let wanted = Wanted { device, va: 0, pieces: Vec::new(), to_device, routine, context };
    ask_for_list(cx, (NAME, adapter), (mdl, offset, length), wanted, (transfer, flags), None, list)
}

/// `BuildScatterGatherListEx`.
///
/// # Errors
/// As [`get_list`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn build_list(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    device: DriverPtr<DEVICE_OBJECT>,
    transfer: u64,
    mdl: DriverPtr<MDL>,
    offset: u64,
    length: u32,
    flags: u32,
    routine: DriverPtr<Code>,
    context: u64,
    to_device: bool,
    buffer: u64,
    room: u32,
    _completion: u64,
    _completion_context: u64,
    list: DriverPtr<u64>,
) -> Flow<NtStatus> {
    const NAME: &str = "BuildScatterGatherListEx";
    let wanted = Wanted { device, va: 0, pieces: Vec::new(), to_device, routine, context };
    let memory = Some((buffer, room));
    ask_for_list(cx, (NAME, adapter), (mdl, offset, length), wanted, (transfer, flags), memory, list)
}

/// Asks for a list of so many bytes from an offset on into what the MDLs describe: `wanted` still lacks where that is.
fn ask_for_list(
    cx: &mut Cx<'_>,
    (name, adapter): (&str, DriverPtr<DMA_ADAPTER>),
    (mdl, offset, length): (DriverPtr<MDL>, u64, u32),
    wanted: Wanted,
    (context, flags): (u64, u32),
    memory: Option<(u64, u32)>,
    list: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let at = find(cx, name, adapter)?;
    transfer::expect_bytes(cx, name, length.into())?;
    let Some((va, pieces)) = pieces::at_offset(cx, name, mdl, (offset, length.into()))? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let is_synchronous = flags & DMA_SYNCHRONOUS_CALLBACK != 0;
    let is_lost = wanted.routine.is_null() && (list.is_null() || !is_synchronous);
    if context == 0 || is_lost {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let wanted = Wanted { va, pieces, ..wanted };
    match scatter_gather::ask(cx, at, wanted, memory, Terms { transfer: context, is_synchronous })? {
        Ok(given) if !list.is_null() => cx.write(list, given).map(|()| NtStatus::SUCCESS),
        Ok(_) => Ok(NtStatus::SUCCESS),
        Err(status) => Ok(status),
    }
}

/// `GetDmaAdapterInfo`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn adapter_info(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    info: DriverPtr<DMA_ADAPTER_INFO>,
) -> Flow<NtStatus> {
    let at = find(cx, "GetDmaAdapterInfo", adapter)?;
    if cx.read(info + DMA_ADAPTER_INFO::Version)? != DMA_ADAPTER_INFO_VERSION1 {
        return Ok(NtStatus::NOT_SUPPORTED);
    }
    let (mask, several, system) = cx.with(|k| {
        let adapter = &k.hal.dma.adapters[&at];
        (adapter.mask, adapter.scatter_gather, adapter.system)
    });
    cx.write(info + DMA_ADAPTER_INFO::V1_ReadDmaCounterAvailable, system.is_some().into())?;
    cx.write(info + DMA_ADAPTER_INFO::V1_ScatterGatherLimit, if several { u32::MAX } else { 1 })?;
    cx.write(info + DMA_ADAPTER_INFO::V1_DmaAddressWidth, u64::BITS - mask.leading_zeros())?;
    cx.write(info + DMA_ADAPTER_INFO::V1_Flags, ADAPTER_INFO_SYNCHRONOUS_CALLBACK)?;
    let unit = system.map_or(1, system::System::unit);
    cx.write(info + DMA_ADAPTER_INFO::V1_MinimumTransferUnit, u32::try_from(unit).unwrap_or(1))?;
    Ok(NtStatus::SUCCESS)
}

/// `GetDmaTransferInfo`.
///
/// # Errors
/// A verdict on an MDL that is none.
pub(crate) fn transfer_info(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    offset: u64,
    length: u32,
    _write_only: bool,
    info: DriverPtr<DMA_TRANSFER_INFO>,
) -> Flow<NtStatus> {
    const NAME: &str = "GetDmaTransferInfo";
    find(cx, NAME, adapter)?;
    let version = cx.read(info + DMA_TRANSFER_INFO::Version)?;
    if !matches!(version, DMA_TRANSFER_INFO_VERSION1 | DMA_TRANSFER_INFO_VERSION2) {
        return Ok(NtStatus::NOT_SUPPORTED);
    }
    let Some((_, pieces)) = pieces::at_offset(cx, NAME, mdl, (offset, length.into()))? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    cx.write(info + DMA_TRANSFER_INFO::V1_MapRegisterCount, count)?;
    cx.write(info + DMA_TRANSFER_INFO::V1_ScatterGatherElementCount, count)?;
    let size = u32::try_from(bytes(pieces.len())).unwrap_or(u32::MAX);
    cx.write(info + DMA_TRANSFER_INFO::V1_ScatterGatherListSize, size)?;
    if version == DMA_TRANSFER_INFO_VERSION2 {
        cx.write(info + DMA_TRANSFER_INFO::V2_LogicalPageCount, count)?;
    }
    Ok(NtStatus::SUCCESS)
}
