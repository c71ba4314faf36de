//! DMA adapters: what a driver gets for a bus master, and the table of routines behind it.
//!
//! Pages: *IoGetDmaAdapter function*, *DEVICE_DESCRIPTION structure*, *DMA_ADAPTER structure*, *DMA_OPERATIONS structure*, *PPUT_DMA_ADAPTER
//! callback function*, *DMA Verification*. What version 3 has besides is in `extended`, `vector`, `domains` and `from_mdl`; devices that are no bus
//! masters are in `system`.

pub(crate) mod channel;
pub(crate) mod common_buffer;
pub(crate) mod domain;
pub(crate) mod domains;
pub(crate) mod extended;
pub(crate) mod from_mdl;
mod pieces;
pub(super) mod programmed;
pub(crate) mod scatter_gather;
pub(crate) mod system;
pub(crate) mod transfer;
pub(crate) mod unload_check;
pub(crate) mod vector;

use std::collections::{BTreeMap, VecDeque};

use abi::{
    DEVICE_DESCRIPTION, DEVICE_DESCRIPTION_VERSION2, DEVICE_DESCRIPTION_VERSION3, DEVICE_OBJECT, DMA_ADAPTER,
    DMA_OPERATIONS, DriverPtr,
};
use engine::windows::PAGE;
use engine::{Fill, Flow};

use crate::cx::Cx;
use crate::mm::pool;
use crate::nt::WindowsVersion;
use crate::verdict::Verdict;
use crate::{ldr, pnp, witness};

/// `DRIVER_VERIFIER_DMA_VIOLATION`.
pub(crate) const DMA_VIOLATION: u32 = 0xE6;
/// What copies of a transfer's data and common buffers are filled with. It is no mark of what a driver should have stored: a card should have.
const NOT_YET_TRANSFERRED: Fill = Fill::of(0xC7);
const TAG: u32 = pool::tag(b"DmaA");
/// The most map registers of one transfer: for 4 MiB, and for an ISA device 64 KiB.
const MOST_REGISTERS: u32 = 0x400;
const MOST_REGISTERS_OF_ISA: u32 = 17;
/// Adapters that are remembered when they are released.
const REMEMBERED: usize = 16;

/// Whose call it was, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct By {
    /// Base of the image.
    pub(crate) owner: Option<u64>,
    /// The return address.
    pub(crate) caller: u64,
    pub(crate) moment: u64,
}

impl By {
    pub(super) fn now(cx: &mut Cx<'_>) -> Self {
        let (owner, caller) = pool::caller(cx);
        Self { owner, caller, moment: witness::moment(cx) }
    }

    /// The caller by its name.
    pub(crate) fn name(self, cx: &mut Cx<'_>) -> String {
        ldr::symbols::describe_return(cx, self.caller)
    }
}

/// An adapter.
pub(crate) struct Adapter {
    /// The card; none for one of `HalGetAdapter`'s.
    card: Option<String>,
    /// The highest address it puts out.
    mask: u64,
    scatter_gather: bool,
    /// The most map registers of one transfer.
    most: u32,
    /// How many are free; none if it needs none.
    free: Option<u32>,
    channel: channel::Channel,
    /// Of a device that is no bus master.
    system: Option<system::System>,
    /// The adapter whose DMA domain it has joined; its own at first.
    joined: u64,
    by: By,
    released: Option<By>,
    /// By `HalGetAdapter`: it is never released.
    is_obsolete: bool,
}

/// All of them, by address.
#[derive(Default)]
pub(crate) struct State {
    adapters: BTreeMap<u64, Adapter>,
    released: VecDeque<u64>,
    pub(crate) domain: domain::Domain,
    pub(super) programmed: programmed::Programmed,
    /// By `MapRegisterBase`.
    registers: BTreeMap<u64, transfer::Registers>,
    /// Channels of the system's controllers, by number: whichever adapter's devices ask, they wait for each other.
    system: BTreeMap<u8, channel::Channel>,
    /// By virtual address and logical one: several devices can have the same memory.
    buffers: BTreeMap<(u64, u64), common_buffer::Buffer>,
    /// By address.
    lists: BTreeMap<u64, scatter_gather::List>,
    /// DMA transfer contexts, by address.
    contexts: BTreeMap<u64, extended::Progress>,
    /// Vectors of common buffers, by address.
    vectors: BTreeMap<u64, vector::Vector>,
}

impl State {
    /// Whether the card's driver has an adapter, and the card may put out logical addresses only.
    pub(crate) fn is_mapped(&self, card: &str) -> bool {
        self.adapters
            .values()
            .any(|adapter| adapter.released.is_none() && adapter.card.as_deref() == Some(card))
    }

    /// The channel that devices of this adapter wait for.
    fn channel(&self, at: u64) -> Option<&channel::Channel> {
        let adapter = self.adapters.get(&at)?;
        match adapter.system {
            Some(system) => self.system.get(&system.channel),
            None => Some(&adapter.channel),
        }
    }

    /// As [`State::channel`], to be changed.
    fn channel_mut(&mut self, at: u64) -> Option<&mut channel::Channel> {
        let adapter = self.adapters.get_mut(&at)?;
        match adapter.system {
            Some(system) => Some(self.system.entry(system.channel).or_default()),
            None => Some(&mut adapter.channel),
        }
    }
}

/// `IoGetDmaAdapter`: null for a version that is none, and without memory.
///
/// # Errors
/// A verdict if it is no physical device object.
pub(crate) fn get(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    description: DriverPtr<DEVICE_DESCRIPTION>,
    registers: DriverPtr<u32>,
) -> Flow<DriverPtr<DMA_ADAPTER>> {
    let card = if device.is_null() {
        None
    } else {
        let id = pnp::node::of_pdo(cx, "IoGetDmaAdapter", device)?;
        Some(cx.with(|k| k.pnp.node(id).name.clone()))
    };
    make(cx, card, false, description, registers)
}

/// `HalGetAdapter`: obsolete; for no device in particular, and never released.
///
/// # Errors
/// With Driver Verifier's option, a verdict.
pub(crate) fn get_obsolete(
    cx: &mut Cx<'_>,
    description: DriverPtr<DEVICE_DESCRIPTION>,
    registers: DriverPtr<u32>,
) -> Flow<DriverPtr<DMA_ADAPTER>> {
    let message = "HalGetAdapter was called, which is obsolete: IoGetDmaAdapter knows the device";
    let verdict = Verdict::verifier("obsolete-hal-get-adapter", message);
    cx.verify(verdict.bug_check(DMA_VIOLATION, [0x1E, 0, 0, 0]))?;
    make(cx, None, true, description, registers)
}

/// What `DEVICE_DESCRIPTION` says, as far as it matters.
struct Description {
    mask: u64,
    scatter_gather: bool,
    most: u32,
    system: Option<system::System>,
    /// Bytes of the table.
    table: u64,
}

fn make(
    cx: &mut Cx<'_>,
    card: Option<String>,
    is_obsolete: bool,
    from: DriverPtr<DEVICE_DESCRIPTION>,
    registers: DriverPtr<u32>,
) -> Flow<DriverPtr<DMA_ADAPTER>> {
    let Some(description) = describe(cx, from)? else { return Ok(DriverPtr::NULL) };
    if cx.choose("fault.dma", 2) == 1 {
        return Ok(DriverPtr::NULL);
    }
    let Description { mask, scatter_gather, most, system, table } = description;
    let head = size_of::<DMA_ADAPTER>() as u64;
    let adapter: DriverPtr<DMA_ADAPTER> =
        pool::allocate(cx, pool::Kind::NonPaged, head + size_of::<DMA_OPERATIONS>() as u64, TAG)?;
    if adapter.is_null() {
        return Ok(adapter);
    }
    let operations: DriverPtr<DMA_OPERATIONS> = DriverPtr::new(adapter.address + head);
    cx.write(adapter + DMA_ADAPTER::Version, 1)?;
    cx.write(adapter + DMA_ADAPTER::Size, u16::try_from(head).unwrap_or(u16::MAX))?;
    cx.write(adapter + DMA_ADAPTER::DmaOperations, operations)?;
    cx.write(operations + DMA_OPERATIONS::Size, u32::try_from(table).unwrap_or(u32::MAX))?;
    for (field, routine) in ROUTINES {
        if (operations + *field).address < operations.address + table {
            cx.write(operations + *field, ldr::internal_address(routine))?;
        }
    }
    cx.write(registers, most)?;
    let by = By::now(cx);
    // One that reaches all memory by itself needs none.
    let free = (mask != u64::MAX || !scatter_gather).then_some((2 * most).max(64));
    let channel = channel::Channel::default();
    let (released, joined) = (None, adapter.address);
    let made = Adapter {
        card,
        mask,
        scatter_gather,
        most,
        free,
        channel,
        system,
        joined,
        by,
        released,
        is_obsolete,
    };
    cx.with(|k| k.hal.dma.adapters.insert(adapter.address, made));
    Ok(adapter)
}

fn describe(cx: &mut Cx<'_>, from: DriverPtr<DEVICE_DESCRIPTION>) -> Flow<Option<Description>> {
    let version = cx.read(from + DEVICE_DESCRIPTION::Version)?;
    if version > DEVICE_DESCRIPTION_VERSION3 {
        let message = format!(
            "DEVICE_DESCRIPTION.Version is {version:#x}: there are versions 0 to 3, and no adapter for others"
        );
        let verdict = Verdict::verifier("dma-description-version", message);
        cx.verify(verdict.bug_check(DMA_VIOLATION, [0x25, version.into(), 0, 0]))?;
        return Ok(None);
    }
    if version == DEVICE_DESCRIPTION_VERSION3 && cx.with(|k| k.ldr.windows) == WindowsVersion::Win7 {
        return Ok(None);
    }
    let system = match cx.read(from + DEVICE_DESCRIPTION::Master)? {
        0 => match system::System::asked(cx, from)? {
            None => return Ok(None),
            asked => asked,
        },
        _ => None,
    };
    // A PC's controllers follow no lists.
    let scatter_gather = system.is_none() && cx.read(from + DEVICE_DESCRIPTION::ScatterGather)? != 0;
    let width = if version == DEVICE_DESCRIPTION_VERSION3 {
        cx.read(from + DEVICE_DESCRIPTION::DmaAddressWidth)?
    } else {
        0
    };
    let mask = if system.is_some() {
        system::HIGHEST
    } else if (1..64).contains(&width) {
        (1 << width) - 1
    } else if width >= 64 || cx.read(from + DEVICE_DESCRIPTION::Dma64BitAddresses)? != 0 {
        u64::MAX
    } else if cx.read(from + DEVICE_DESCRIPTION::Dma32BitAddresses)? != 0 {
        u32::MAX.into()
    } else {
        // An ISA device.
        0xFF_FFFF
    };
    let limit = match system {
        Some(system) => u32::try_from(system.pages() + 1).unwrap_or(MOST_REGISTERS_OF_ISA),
        None if mask > 0xFF_FFFF => MOST_REGISTERS,
        None => MOST_REGISTERS_OF_ISA,
    };
    let pages = u64::from(cx.read(from + DEVICE_DESCRIPTION::MaximumLength)?).div_ceil(PAGE);
    let most = u32::try_from(pages + 1).unwrap_or(u32::MAX).min(limit);
    let end = match version {
        DEVICE_DESCRIPTION_VERSION3 => size_of::<DMA_OPERATIONS>() as u64,
        DEVICE_DESCRIPTION_VERSION2 => OF_VERSION_2,
        _ => OF_VERSION_1,
    };
    Ok(Some(Description { mask, scatter_gather, most, system, table: end }))
}

/// `PutDmaAdapter`: nothing may be left of what came by it.
///
/// # Errors
/// A verdict if it is no adapter; with Driver Verifier's option, if anything is left.
pub(crate) fn put(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<()> {
    let at = find(cx, "PutDmaAdapter", adapter)?;
    unload_check::at_release(cx, at)?;
    let by = By::now(cx);
    let oldest = cx.with(|k| {
        let dma = &mut k.hal.dma;
        if let Some(adapter) = dma.adapters.get_mut(&at) {
            adapter.released = Some(by);
        }
        dma.released.push_back(at);
        (dma.released.len() > REMEMBERED).then(|| dma.released.pop_front()).flatten()
    });
    match oldest {
        Some(oldest) => {
            cx.with(|k| k.hal.dma.adapters.remove(&oldest));
            pool::free(cx, DriverPtr::<()>::new(oldest))
        }
        None => Ok(()),
    }
}

/// `GetDmaAlignment`: nothing need be aligned, but for channels that move words.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn alignment(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<u32> {
    let at = find(cx, "GetDmaAlignment", adapter)?;
    let unit = cx.with(|k| k.hal.dma.adapters[&at].system.map_or(1, system::System::unit));
    Ok(u32::try_from(unit).unwrap_or(1))
}

/// The adapter, which is not released.
pub(super) fn find(cx: &mut Cx<'_>, name: &str, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<u64> {
    let at = adapter.address;
    match cx.with(|k| k.hal.dma.adapters.get(&at).map(|adapter| adapter.released)) {
        Some(None) => Ok(at),
        Some(Some(by)) => {
            let who = by.name(cx);
            let message = format!(
                "{name} was called with the DMA adapter {at:#x}, which {who} has released (PutDmaAdapter)"
            );
            let verdict = Verdict::error("dma-adapter-released", message).related("released", by.moment);
            Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x18, at, 0, 0])))
        }
        None => {
            let message = format!("{name} was called with {at:#x}, which is no DMA adapter");
            let verdict = Verdict::error("not-a-dma-adapter", message);
            Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x19, at, 0, 0])))
        }
    }
}

/// Bytes of the tables of versions 1 and 2.
const OF_VERSION_1: u64 = 0x68;
const OF_VERSION_2: u64 = 0x80;

type Slot = abi::Field<DMA_OPERATIONS, DriverPtr<abi::Code>>;

/// Which row of `exports/internal.rs` stands where.
const ROUTINES: &[(Slot, &str)] = &[
    (DMA_OPERATIONS::PutDmaAdapter, "HalpPutDmaAdapter"),
    (DMA_OPERATIONS::AllocateCommonBuffer, "HalpAllocateCommonBuffer"),
    (DMA_OPERATIONS::FreeCommonBuffer, "HalpFreeCommonBuffer"),
    (DMA_OPERATIONS::AllocateAdapterChannel, "HalpAllocateAdapterChannel"),
    (DMA_OPERATIONS::FlushAdapterBuffers, "HalpFlushAdapterBuffers"),
    (DMA_OPERATIONS::FreeAdapterChannel, "HalpFreeAdapterChannel"),
    (DMA_OPERATIONS::FreeMapRegisters, "HalpFreeMapRegisters"),
    (DMA_OPERATIONS::MapTransfer, "HalpMapTransfer"),
    (DMA_OPERATIONS::GetDmaAlignment, "HalpGetDmaAlignment"),
    (DMA_OPERATIONS::ReadDmaCounter, "HalpReadDmaCounter"),
    (DMA_OPERATIONS::GetScatterGatherList, "HalpGetScatterGatherList"),
    (DMA_OPERATIONS::PutScatterGatherList, "HalpPutScatterGatherList"),
    (DMA_OPERATIONS::CalculateScatterGatherList, "HalpCalculateScatterGatherList"),
    (DMA_OPERATIONS::BuildScatterGatherList, "HalpBuildScatterGatherList"),
    (DMA_OPERATIONS::BuildMdlFromScatterGatherList, "HalpBuildMdlFromScatterGatherList"),
    (DMA_OPERATIONS::GetDmaAdapterInfo, "HalpGetDmaAdapterInfo"),
    (DMA_OPERATIONS::GetDmaTransferInfo, "HalpGetDmaTransferInfo"),
    (DMA_OPERATIONS::InitializeDmaTransferContext, "HalpInitializeDmaTransferContext"),
    (DMA_OPERATIONS::AllocateCommonBufferEx, "HalpAllocateCommonBufferEx"),
    (DMA_OPERATIONS::AllocateAdapterChannelEx, "HalpAllocateAdapterChannelEx"),
    (DMA_OPERATIONS::ConfigureAdapterChannel, "HalpConfigureAdapterChannel"),
    (DMA_OPERATIONS::CancelAdapterChannel, "HalpCancelAdapterChannel"),
    (DMA_OPERATIONS::MapTransferEx, "HalpMapTransferEx"),
    (DMA_OPERATIONS::GetScatterGatherListEx, "HalpGetScatterGatherListEx"),
    (DMA_OPERATIONS::BuildScatterGatherListEx, "HalpBuildScatterGatherListEx"),
    (DMA_OPERATIONS::FlushAdapterBuffersEx, "HalpFlushAdapterBuffersEx"),
    (DMA_OPERATIONS::FreeAdapterObject, "HalpFreeAdapterObject"),
    (DMA_OPERATIONS::CancelMappedTransfer, "HalpCancelMappedTransfer"),
    (DMA_OPERATIONS::AllocateDomainCommonBuffer, "HalpAllocateDomainCommonBuffer"),
    (DMA_OPERATIONS::FlushDmaBuffer, "HalpFlushDmaBuffer"),
    (DMA_OPERATIONS::JoinDmaDomain, "HalpJoinDmaDomain"),
    (DMA_OPERATIONS::LeaveDmaDomain, "HalpLeaveDmaDomain"),
    (DMA_OPERATIONS::GetDmaDomain, "HalpGetDmaDomain"),
    (DMA_OPERATIONS::AllocateCommonBufferWithBounds, "HalpAllocateCommonBufferWithBounds"),
    (DMA_OPERATIONS::AllocateCommonBufferVector, "HalpAllocateCommonBufferVector"),
    (DMA_OPERATIONS::GetCommonBufferFromVectorByIndex, "HalpGetCommonBufferFromVectorByIndex"),
    (DMA_OPERATIONS::FreeCommonBufferFromVector, "HalpFreeCommonBufferFromVector"),
    (DMA_OPERATIONS::FreeCommonBufferVector, "HalpFreeCommonBufferVector"),
    (DMA_OPERATIONS::CreateCommonBufferFromMdl, "HalpCreateCommonBufferFromMdl"),
];
