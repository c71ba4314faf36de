//! The channel of an adapter: who has it, who waits for it or for map registers, in their order.
//!
//! Pages: *PALLOCATE_ADAPTER_CHANNEL callback function*, *DRIVER_CONTROL callback function*, *Returns from DriverControl Routines*,
//! *PFREE_ADAPTER_CHANNEL callback function*.

use std::collections::VecDeque;

use abi::{
    Code, DEVICE_OBJECT, DMA_ADAPTER, DeallocateObject, DeallocateObjectKeepRegisters, DriverPtr, IRP,
    KeepObject, NtStatus, WAIT_CONTEXT_BLOCK,
};
use engine::Flow;

use super::transfer::{self, Registers};
use super::{By, DMA_VIOLATION, extended, find, scatter_gather, system};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::io::routine;
use crate::io::violation::device_name;
use crate::ke::irql::DISPATCH_LEVEL;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ke, ldr};

const TAG: u32 = pool::tag(b"DmaR");

/// Who has the channel, and who waits.
#[derive(Default)]
pub(crate) struct Channel {
    holder: Option<Holder>,
    waiting: VecDeque<Request>,
}

impl Channel {
    /// Whether a device has it, and asked for it by this adapter.
    pub(super) fn is_held_by(&self, adapter: u64) -> bool {
        self.holder.is_some_and(|holder| holder.adapter == adapter)
    }

    /// Who asked for it by this adapter, if a device has it, or waits for it; not for a list: that is counted by itself, and the channel is the
    /// HAL's business while its routine runs.
    pub(super) fn held_by(&self, adapter: u64) -> Option<By> {
        let waits = |request: &&Request| request.adapter == adapter && !request.is_of_list();
        let waiting = self.waiting.iter().find(waits).map(|request| request.by);
        let holder = self.holder.filter(|holder| holder.adapter == adapter && !holder.is_of_list);
        holder.map(|holder| holder.by).or(waiting)
    }
}

#[derive(Clone, Copy)]
struct Holder {
    adapter: u64,
    base: u64,
    /// For a scatter/gather list.
    is_of_list: bool,
    by: By,
}

/// A device that waits.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) adapter: u64,
    pub(super) device: DriverPtr<DEVICE_OBJECT>,
    pub(super) irp: DriverPtr<IRP>,
    /// Of its map registers, which it gets with the channel.
    pub(super) base: u64,
    pub(super) count: u32,
    /// The DMA transfer context, if it has one (version 3).
    pub(super) transfer: u64,
    pub(super) work: Work,
    pub(super) by: By,
}

/// What it is called for.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// `AllocateAdapterChannel`.
    Control { routine: DriverPtr<Code>, context: u64 },
    /// Nothing: who asked goes on with what it has got.
    Nothing,
    /// A scatter/gather list, at this address; with the channel, if that is kept.
    List { list: u64, is_kept: bool },
}

impl Request {
    const fn is_of_list(&self) -> bool {
        matches!(self.work, Work::List { .. })
    }
}

/// What version 3 says of a request besides.
#[derive(Clone, Copy, Default)]
pub(super) struct Terms {
    /// The DMA transfer context.
    pub(super) transfer: u64,
    /// At once, or not at all.
    pub(super) is_synchronous: bool,
}

/// `AllocateAdapterChannel`, and `IoAllocateAdapterChannel` of old.
///
/// # Errors
/// A verdict if it is no adapter or the device waits already, or on what the routine does.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    device: DriverPtr<DEVICE_OBJECT>,
    count: u32,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<NtStatus> {
    let at = find(cx, "AllocateAdapterChannel", adapter)?;
    refuse_waiting(cx, at, device)?;
    let block = device + DEVICE_OBJECT::Queue_Wcb;
    let irp = cx.read(device + DEVICE_OBJECT::CurrentIrp)?;
    cx.write(block + WAIT_CONTEXT_BLOCK::DeviceRoutine, routine)?;
    cx.write(block + WAIT_CONTEXT_BLOCK::DeviceContext, DriverPtr::new(context))?;
    cx.write(block + WAIT_CONTEXT_BLOCK::NumberOfMapRegisters, count)?;
    cx.write(block + WAIT_CONTEXT_BLOCK::CurrentIrp, irp.cast())?;
    let asked = ask(cx, at, (device, irp), count, Terms::default(), Work::Control { routine, context })?;
    Ok(asked.err().unwrap_or(NtStatus::SUCCESS))
}

fn refuse_waiting(cx: &mut Cx<'_>, at: u64, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let waits = |request: &&Request| {
        request.device == device && request.transfer == 0 && matches!(request.work, Work::Control { .. })
    };
    let found = cx.with(|k| {
        let channel = k.hal.dma.channel(at)?;
        channel.waiting.iter().find(waits).map(|request| request.by)
    });
    let Some(by) = found else { return Ok(()) };
    let (name, who) = (device_name(cx, device), by.name(cx));
    let message = format!(
        "AllocateAdapterChannel was called for {name}, which waits for the channel already, as {who} has asked"
    );
    Err(cx.stop(Verdict::error("dma-channel-asked-twice", message).related("asked", by.moment)))
}

/// A device asks for the channel and so many map registers; where these are to be.
pub(super) fn ask(
    cx: &mut Cx<'_>,
    at: u64,
    (device, irp): (DriverPtr<DEVICE_OBJECT>, DriverPtr<IRP>),
    count: u32,
    terms: Terms,
    work: Work,
) -> Flow<Result<u64, NtStatus>> {
    let begun = if terms.transfer == 0 { Ok(()) } else { cx.with(|k| extended::begin(k, terms.transfer)) };
    if let Err(status) = begun {
        return Ok(Err(status));
    }
    let most = cx.with(|k| k.hal.dma.adapters[&at].most);
    let is_late = terms.is_synchronous && !cx.with(|k| is_free(k, at, count));
    let is_refused = count > most || is_late || cx.choose("fault.dma", 2) == 1;
    let base = if is_refused { 0 } else { pool::allocate::<()>(cx, pool::Kind::NonPaged, 16, TAG)?.address };
    if base == 0 {
        cx.with(|k| extended::take_back(k, terms.transfer));
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let by = By::now(cx);
    let request = Request { adapter: at, device, irp, base, count, transfer: terms.transfer, work, by };
    cx.with(|k| {
        if let Some(channel) = k.hal.dma.channel_mut(at) {
            channel.waiting.push_back(request);
        }
    });
    serve(cx, at)?;
    Ok(Ok(base))
}

/// Whether a request for so many map registers would not have to wait.
fn is_free(k: &Kernel, at: u64, count: u32) -> bool {
    let dma = &k.hal.dma;
    let is_idle = |channel: &Channel| channel.holder.is_none() && channel.waiting.is_empty();
    dma.channel(at).is_none_or(is_idle)
        && dma.adapters.get(&at).is_some_and(|adapter| adapter.free.is_none_or(|free| free >= count))
}

/// Takes back a request with this transfer context that waits.
pub(super) fn take_back(k: &mut Kernel, at: u64, transfer: u64) -> Option<Request> {
    let waiting = &mut k.hal.dma.channel_mut(at)?.waiting;
    let index = waiting.iter().position(|request| request.transfer == transfer)?;
    waiting.remove(index)
}

/// Serves those that wait, as long as the channel and map registers are free.
pub(super) fn serve(cx: &mut Cx<'_>, at: u64) -> Flow<()> {
    let old = ke::irql::raise(cx, DISPATCH_LEVEL)?;
    while let Some(request) = cx.with(|k| next(k, at)) {
        let at = request.adapter;
        match request.work {
            Work::Control { routine, context } => control(cx, at, &request, routine, context)?,
            Work::Nothing => {}
            Work::List { list, is_kept } => {
                scatter_gather::run(cx, at, list, &request)?;
                if !is_kept {
                    release_channel(cx, at, request.base);
                }
            }
        }
    }
    ke::irql::lower(cx, old)
}

/// The first that waits, if the channel is free and there are map registers for it: it has them.
fn next(k: &mut Kernel, at: u64) -> Option<Request> {
    let dma = &mut k.hal.dma;
    let channel = dma.channel(at)?;
    if channel.holder.is_some() {
        return None;
    }
    let first = *channel.waiting.front()?;
    match &mut dma.adapters.get_mut(&first.adapter)?.free {
        Some(free) if *free < first.count => return None,
        Some(free) => *free -= first.count,
        None => {}
    }
    let channel = dma.channel_mut(at)?;
    let request = channel.waiting.pop_front()?;
    let Request { adapter, base, by, .. } = request;
    channel.holder = Some(Holder { adapter, base, is_of_list: request.is_of_list(), by });
    dma.registers.insert(request.base, Registers::of(&request));
    Some(request)
}

fn control(cx: &mut Cx<'_>, at: u64, request: &Request, routine: DriverPtr<Code>, context: u64) -> Flow<()> {
    let Request { device, irp, base, .. } = *request;
    let arguments = [device.address, irp.address, base, context];
    let action = routine::call(cx, Role::AdapterControl, routine, device.address, &arguments)? & 0xFFFF_FFFF;
    if action == KeepObject.into() {
        return Ok(());
    }
    if action != DeallocateObject.into() && action != DeallocateObjectKeepRegisters.into() {
        let who = ldr::symbols::describe(cx, routine.address);
        let message = format!(
            "the AdapterControl routine {who} returned {action:#x}, which is no IO_ALLOCATION_ACTION"
        );
        return Err(cx.stop(Verdict::error("adapter-control-result", message)));
    }
    if !release_channel(cx, at, base) {
        not_allocated(cx, at, "an AdapterControl routine gave the channel back that it had freed itself")?;
    }
    if action == DeallocateObject.into() && cx.with(|k| k.hal.dma.registers.contains_key(&base)) {
        transfer::release(cx, at, base, "AdapterControl")?;
    }
    Ok(())
}

/// The channel is free, if it is this request that has it.
fn release_channel(cx: &mut Cx<'_>, at: u64, base: u64) -> bool {
    cx.with(|k| {
        let channel = k.hal.dma.channel_mut(at);
        channel.is_some_and(|channel| channel.holder.take_if(|holder| holder.base == base).is_some())
    })
}

fn not_allocated(cx: &mut Cx<'_>, at: u64, message: &str) -> Flow<()> {
    let verdict = Verdict::verifier("dma-channel-not-allocated", message);
    cx.verify(verdict.bug_check(DMA_VIOLATION, [0x4, at, 0, 0]))
}

/// `FreeAdapterChannel`: the channel, and the map registers that came with it.
///
/// # Errors
/// A verdict if it is no adapter, or on what the next device's routine does; with Driver Verifier's option, if no device has the channel.
pub(crate) fn free(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<()> {
    let at = find(cx, "FreeAdapterChannel", adapter)?;
    free_holders(cx, "FreeAdapterChannel", at, true)
}

/// The channel is given back, and its map registers if that is said: those of a list are the list's.
pub(super) fn free_holders(cx: &mut Cx<'_>, name: &'static str, at: u64, with_registers: bool) -> Flow<()> {
    let holder = cx.with(|k| {
        system::stop_for(k, at);
        k.hal.dma.channel_mut(at)?.holder.take_if(|holder| holder.adapter == at)
    });
    let Some(holder) = holder else {
        let message = format!("{name} was called for the DMA adapter {at:#x}, whose channel no device has");
        return not_allocated(cx, at, &message);
    };
    let is_own = cx.with(|k| k.hal.dma.registers.get(&holder.base).is_some_and(|known| !known.is_listed()));
    if with_registers && is_own {
        transfer::release(cx, at, holder.base, name)?;
    }
    serve(cx, at)
}

/// Who waits for a channel or for map registers, and who has them.
pub(crate) fn waiting(cx: &mut Cx<'_>) -> Vec<String> {
    let all = cx.with(|k| {
        let dma = &k.hal.dma;
        let channels = dma.adapters.values().map(|adapter| &adapter.channel).chain(dma.system.values());
        let requests = channels.flat_map(|channel| {
            channel.waiting.iter().map(move |request| {
                let free = dma.adapters.get(&request.adapter).and_then(|adapter| adapter.free);
                let taken = dma.registers.values().find_map(|known| known.taken_by(request.adapter));
                (*request, channel.holder, free.unwrap_or(0), taken)
            })
        });
        requests.collect::<Vec<_>>()
    });
    let tell = |(request, holder, free, taken): (Request, Option<Holder>, u32, Option<By>)| {
        let (device, who) = (device_name(cx, request.device), request.by.name(cx));
        let why = match (holder, taken) {
            (Some(holder), _) => format!("it is kept, as {} has asked", holder.by.name(cx)),
            (None, Some(by)) => format!("{free} are free, and {} has asked for others", by.name(cx)),
            (None, None) => format!("{free} are free"),
        };
        let count = request.count;
        format!("{device} waits for a DMA channel with {count} map registers, as {who} has asked: {why}")
    };
    all.into_iter().map(tell).collect()
}

/// `FreeMapRegisters`.
///
/// # Errors
/// A verdict if they are none of the adapter's, or on what the next device's routine does.
pub(crate) fn free_registers(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    base: u64,
    count: u32,
) -> Flow<()> {
    let at = find(cx, "FreeMapRegisters", adapter)?;
    let allocated = transfer::check(cx, "FreeMapRegisters", at, base)?;
    if count != allocated {
        let message = format!(
            "FreeMapRegisters was called for {count} map registers at {base:#x}; {allocated} were allocated"
        );
        let verdict = Verdict::verifier("dma-map-registers-count", message);
        cx.verify(verdict.bug_check(DMA_VIOLATION, [0x5, at, count.into(), allocated.into()]))?;
    }
    transfer::release(cx, at, base, "FreeMapRegisters")?;
    serve(cx, at)
}
