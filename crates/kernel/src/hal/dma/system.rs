//! System DMA: a channel of the PC's two DMA controllers (8237A) that is programmed for a device which is no bus master.
//!
//! Pages: *Using Packet-Based System DMA*, *Using Common-Buffer System DMA*, *DEVICE_DESCRIPTION structure*, *PREAD_DMA_COUNTER callback
//! function*, *PCANCEL_MAPPED_TRANSFER callback function*, *PCONFIGURE_ADAPTER_CHANNEL callback function*. All adapters for a channel share it, in
//! the order of asking. As in a PC, the controllers do not signal their end, so completion routines of version 3 are not implemented; nor are
//! scatter/gather lists, which the controllers cannot follow, nor words at an odd address. Speeds mean nothing on a PCI machine.

use abi::{DEVICE_DESCRIPTION, DMA_ADAPTER, DriverPtr, MaximumDmaSpeed, NtStatus, Width8Bits, Width16Bits};
use engine::Flow;
use engine::windows::PAGE;

use super::pieces::Run;
use super::transfer::Map;
use super::{extended, find};
use crate::cx::{Cx, Kernel};
use crate::hal::hardware::Width;
use crate::ke;
use crate::ke::history;
use crate::verdict::Verdict;

/// The channel that stands for the first controller on the second.
const CASCADE: u32 = 4;
/// Page registers.
const PAGES: [u16; 8] = [0x87, 0x83, 0x81, 0x82, 0x8F, 0x8B, 0x89, 0x8A];
/// Of a mode: from the device to memory, from memory to the device, again and again, one unit at a time.
const WRITE: u8 = 0x04;
const READ: u8 = 0x08;
const AUTO_INITIALIZE: u8 = 0x10;
const SINGLE: u8 = 0x40;
/// A single mask register's bit that masks.
const MASK: u8 = 4;

/// The highest address that the controllers put out.
pub(super) const HIGHEST: u64 = 0xFF_FFFF;

/// An adapter's channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System {
    pub(super) channel: u8,
    /// What the description says of the mode.
    mode: u8,
    /// Bytes that were programmed last.
    programmed: u64,
    /// They have all been moved, as the controller has said once.
    is_done: bool,
}

impl System {
    /// The channel that a description asks for; none if there is no such one.
    pub(super) fn asked(cx: &mut Cx<'_>, from: DriverPtr<DEVICE_DESCRIPTION>) -> Flow<Option<Self>> {
        let channel = cx.read(from + DEVICE_DESCRIPTION::DmaChannel)?;
        let width = cx.read(from + DEVICE_DESCRIPTION::DmaWidth)?;
        let speed = cx.read(from + DEVICE_DESCRIPTION::DmaSpeed)?;
        let its_width = if channel > CASCADE { Width16Bits } else { Width8Bits };
        if channel == CASCADE || channel > 7 || width != its_width || speed >= MaximumDmaSpeed {
            return Ok(None);
        }
        let is_demand = cx.read(from + DEVICE_DESCRIPTION::DemandMode)? != 0;
        let repeats = cx.read(from + DEVICE_DESCRIPTION::AutoInitialize)? != 0;
        let mode = if is_demand { 0 } else { SINGLE } | if repeats { AUTO_INITIALIZE } else { 0 };
        let channel = u8::try_from(channel).unwrap_or(0);
        Ok(Some(Self { channel, mode, programmed: 0, is_done: false }))
    }

    /// The driver looks at the buffer while the channel goes through it again and again.
    pub(super) const fn repeats(self) -> bool {
        self.mode & AUTO_INITIALIZE != 0
    }

    const fn is_wide(self) -> bool {
        self.channel as u32 > CASCADE
    }

    /// Bytes of a unit.
    pub(super) const fn unit(self) -> u64 {
        if self.is_wide() { 2 } else { 1 }
    }

    /// A transfer lies between two multiples of this.
    pub(super) const fn boundary(self) -> u64 {
        0x1_0000 * self.unit()
    }

    /// Pages of the longest one.
    pub(super) const fn pages(self) -> u64 {
        self.boundary() / PAGE
    }

    /// Of the second controller, registers are two ports apart.
    fn port(self, register: u16) -> u16 {
        if self.is_wide() { 0xC0 + 2 * register } else { register }
    }

    /// The number within its controller.
    const fn number(self) -> u8 {
        self.channel & 3
    }
}

fn write(k: &mut Kernel, port: u16, value: u8) {
    history::reads_clock(k);
    let now = k.engine.now();
    // Where there are no such controllers, the write is lost.
    let _ = k.hardware(now, |hardware, at| hardware.port_write(at, port, Width::Byte, value.into()));
    // A card that waited may do something soon.
    ke::slice::end_soon(k);
}

fn read(k: &mut Kernel, port: u16) -> u8 {
    history::reads_clock(k);
    let now = k.engine.now();
    let read = k.hardware(now, |hardware, at| hardware.port_read(at, port, Width::Byte));
    (read.unwrap_or(u32::MAX) & 0xFF) as u8
}

fn of(k: &Kernel, at: u64) -> Option<System> {
    k.hal.dma.adapters.get(&at).and_then(|adapter| adapter.system)
}

/// What is mapped is what the adapter's channel moves, if it has one, from now on.
pub(super) fn program(k: &mut Kernel, at: u64, map: &Map) {
    let Some(system) = of(k, at) else { return };
    let unit = system.unit();
    let mode = system.mode | if map.to_device { READ } else { WRITE } | system.number();
    let address = map.logical / unit;
    let count = (map.bytes / unit).wrapping_sub(1);
    let (own, number) = (|register| system.port(register), u16::from(system.number()));
    let byte = |value: u64, shift: u32| (value >> shift & 0xFF) as u8;
    let page = byte(map.logical, 16) & if system.is_wide() { 0xFE } else { 0xFF };
    for (port, value) in [
        (own(0xA), MASK | system.number()),
        (own(0xC), 0),
        (own(0xB), mode),
        (own(2 * number), byte(address, 0)),
        (own(2 * number), byte(address, 8)),
        (PAGES[usize::from(system.channel)], page),
        (own(2 * number + 1), byte(count, 0)),
        (own(2 * number + 1), byte(count, 8)),
        (own(0xA), system.number()),
    ] {
        write(k, port, value);
    }
    if let Some(system) = k.hal.dma.adapters.get_mut(&at).and_then(|adapter| adapter.system.as_mut()) {
        (system.programmed, system.is_done) = (map.bytes, false);
    }
}

/// The adapter's channel, if it has one, moves nothing any more.
pub(super) fn stop(k: &mut Kernel, at: u64) {
    if let Some(system) = of(k, at) {
        write(k, system.port(0xA), MASK | system.number());
    }
}

/// As [`stop`], if it is by this adapter that a device has the channel.
pub(super) fn stop_for(k: &mut Kernel, at: u64) {
    if k.hal.dma.channel(at).is_some_and(|channel| channel.is_held_by(at)) {
        stop(k, at);
    }
}

/// As much of a run as the adapter's channel moves at once, if it has one.
pub(super) fn as_long(k: &Kernel, at: u64, run: Run) -> Run {
    match of(k, at) {
        Some(system) => extended::first_of(run, system.pages()),
        None => run,
    }
}

/// A transfer that the controllers cannot make.
///
/// # Errors
/// Always, if the adapter has a channel and that is one.
pub(super) fn refuse_odd(cx: &mut Cx<'_>, at: u64, (va, length): (u64, u64)) -> Flow<()> {
    match cx.with(|k| of(k, at)) {
        Some(system) if system.is_wide() && (va | length) & 1 != 0 => {
            Err(cx.stop(Verdict::not_implemented("a 16-bit DMA channel with an odd address or length")))
        }
        _ => Ok(()),
    }
}

/// A part of version 3 that is not there for system DMA says so by its name.
///
/// # Errors
/// If the adapter has a channel.
pub(super) fn refuse(cx: &mut Cx<'_>, at: u64, what: &'static str) -> Flow<()> {
    if cx.with(|k| of(k, at)).is_some() {
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    Ok(())
}

/// `ReadDmaCounter`: bytes that the channel has yet to move. Of a bus master the system knows nothing.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn counter(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>) -> Flow<u32> {
    let at = find(cx, "ReadDmaCounter", adapter)?;
    let left = cx.with(|k| {
        let system = of(k, at).filter(|system| system.programmed != 0)?;
        // Reading it clears it.
        let is_done = system.is_done || read(k, system.port(8)) & 1 << system.number() != 0;
        if let Some(known) = k.hal.dma.adapters.get_mut(&at).and_then(|adapter| adapter.system.as_mut()) {
            known.is_done = is_done;
        }
        let port = system.port(2 * u16::from(system.number()) + 1);
        write(k, system.port(0xC), 0);
        let units = u64::from(u16::from_le_bytes([read(k, port), read(k, port)])) + 1;
        // A count that has run out shows all ones, as that of the longest transfer does before it begins.
        let is_over = is_done && !system.repeats();
        Some(if is_over { 0 } else { (units * system.unit()).min(system.programmed) })
    });
    Ok(u32::try_from(left.unwrap_or(0)).unwrap_or(u32::MAX))
}

/// `CancelMappedTransfer`: the channel stops, and nothing more is mapped with this transfer context.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn cancel(cx: &mut Cx<'_>, adapter: DriverPtr<DMA_ADAPTER>, context: u64) -> Flow<NtStatus> {
    let at = find(cx, "CancelMappedTransfer", adapter)?;
    Ok(cx.with(|k| {
        if of(k, at).is_none() {
            // It cancels a system DMA transfer.
            return NtStatus::NOT_SUPPORTED;
        }
        if !extended::cancel_context(k, context) {
            return NtStatus::INVALID_PARAMETER;
        }
        stop(k, at);
        NtStatus::SUCCESS
    }))
}

/// `ConfigureAdapterChannel`: the controllers have no functions of their own.
///
/// # Errors
/// A verdict if it is no adapter.
pub(crate) fn configure(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    _function: u32,
    _context: u64,
) -> Flow<NtStatus> {
    find(cx, "ConfigureAdapterChannel", adapter).map(|_| NtStatus::NOT_IMPLEMENTED)
}
