//! A card as a device: what it has, and how Plug and Play and power change that.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Acquire;

use wdm::{
    Answer, Device, Dispatch, DispatchOrBelow, Function, Irp, Line, LogicalAddress, Mapped, Name, NtStatus,
    Packet, PagedBox, Passive, Pdo, PendingIrp, Resources, Result, Rundown, Security, Slot, Stop,
    SymbolicLink, Tag, Transfers,
};

use crate::gate::Gate;
use crate::hardware::{Hardware, TRANSFER_SOURCE};
use crate::{TAG, TheDriver, control, transfer};

/// Milliseconds that transfers may take to end.
const PATIENCE: u32 = 1000;

/// A card.
pub(crate) struct Card {
    _link: SymbolicLink,
    /// There from start to stop.
    pub(crate) hardware: Rundown<Hardware>,
    /// Open: requests are taken, and the card has power.
    pub(crate) gate: Gate,
    /// Of the request on the card, or on its way there.
    pub(crate) turn: Slot<Packet>,
    pub(crate) on_card: Slot<Mapped>,
    /// Where the last transfer went: what a mistake needs.
    pub(crate) last: Slot<LogicalAddress>,
    /// The mistake that the next transfer makes; 0: none.
    pub(crate) mistake: AtomicU32,
    pub(crate) transfers: AtomicU32,
    /// 1: a stop forgets the hardware.
    pub(crate) forgets: AtomicU32,
    /// 1: reads and writes are copied by the processor.
    pub(crate) by_processor: AtomicU32,
    /// Requests that a work item has ended.
    pub(crate) slept: AtomicU32,
    /// Squares: not needed above `PASSIVE_LEVEL`.
    pub(crate) squares: PagedBox<[u32; SQUARES]>,
}

/// How many squares there are.
pub(crate) const SQUARES: usize = 100;

fn squares(passive: &mut Passive) -> Result<PagedBox<[u32; SQUARES]>> {
    let mut table = PagedBox::new([0; SQUARES], TAG, passive)?;
    for (square, number) in table.get_mut(passive).iter_mut().zip(0..) {
        *square = number * number;
    }
    Ok(table)
}

impl Drop for Card {
    fn drop(&mut self) {
        Line::new("card_rust: the device has gone").print();
    }
}

impl Function for Card {
    type Driver = TheDriver;
    const TAG: Tag = TAG;
    /// The card reaches memory: only the system and administrators have access.
    const SECURITY: Option<Security> = Some(Security::new("D:P(A;;GA;;;SY)(A;;GA;;;BA)"));
    const TRANSFERS: Transfers = Transfers::Direct;

    fn add(_driver: &TheDriver, _pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
        let name = Name::new(r"\Device\CardRust-0");
        let card = Self {
            _link: SymbolicLink::create(Name::new(r"\DosDevices\CardRust-0"), &name, passive)?,
            hardware: Rundown::new(TAG, passive)?,
            gate: Gate::new(),
            turn: Slot::new(),
            on_card: Slot::new(),
            last: Slot::new(),
            mistake: AtomicU32::new(0),
            transfers: AtomicU32::new(0),
            forgets: AtomicU32::new(0),
            by_processor: AtomicU32::new(0),
            slept: AtomicU32::new(0),
            squares: squares(passive)?,
        };
        Ok((name, card))
    }

    fn start(device: &Device<Self>, resources: &Resources<'_>, passive: &mut Passive) -> Result<()> {
        let hardware = Hardware::start(device, resources, passive)?;
        device.hardware.put(hardware, passive).map_err(|_there| NtStatus::INVALID_DEVICE_STATE)?;
        device.gate.open();
        Ok(())
    }

    fn pause(device: &Device<Self>, passive: &mut Passive) -> Result<()> {
        device.gate.close(passive);
        let idle = device.wait_for_packets(PATIENCE, passive);
        if idle { Ok(()) } else { Err(NtStatus::DEVICE_BUSY) }
    }

    fn resume(device: &Device<Self>, _passive: &mut Passive) {
        device.gate.open();
    }

    fn stop(device: &Device<Self>, why: Stop, passive: &mut Passive) {
        device.gate.close(passive);
        let hardware = device.hardware.take(passive);
        if let Some(hardware) = &hardware
            && why != Stop::SurpriseRemoval
        {
            hardware.chip.quiet();
        }
        // before the adapter goes, which waits for what is mapped
        wdm::at_dispatch(passive, |dispatch| transfer::abandon(device, dispatch));
        if device.forgets.load(Acquire) != 0 {
            core::mem::forget(hardware);
        } else {
            drop(hardware);
        }
    }

    fn power_down(device: &Device<Self>, passive: &mut Passive) {
        device.gate.close(passive);
        let rested = device.wait_for_packets(PATIENCE, passive);
        if let Some(hardware) = device.hardware.enter(passive) {
            hardware.chip.quiet();
        }
        if !rested {
            wdm::at_dispatch(passive, |dispatch| transfer::abandon(device, dispatch));
        }
    }

    fn power_up(device: &Device<Self>, level: &mut DispatchOrBelow) {
        if let Some(hardware) = device.hardware.enter(level) {
            hardware.chip.enable();
            device.gate.open();
        }
    }

    fn read<'irp>(device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        transfer::dispatch(device, irp, level)
    }

    fn write<'irp>(device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        transfer::dispatch(device, irp, level)
    }

    fn device_control<'irp>(
        device: &Device<Self>,
        irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        control::dispatch(device, irp, level)
    }

    fn start_io(device: &Device<Self>, irp: PendingIrp, packet: Packet, dispatch: &mut Dispatch) {
        transfer::start(device, irp, packet, dispatch);
    }

    fn dpc_for_isr(device: &Device<Self>, dispatch: &mut Dispatch) {
        if let Some(hardware) = device.hardware.enter(dispatch)
            && hardware.chip.take_fired() & 1 << TRANSFER_SOURCE != 0
        {
            transfer::end(device, &hardware, dispatch);
        }
    }
}
