//! A card as a device: what it has, and how Plug and Play and power change that.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *Handling an IRP_MN_SURPRISE_REMOVAL Request*,
//! *Holding Incoming IRPs When A Device Is Paused*. What requests do is in [`crate::transfer`], [`crate::wait`] and
//! [`crate::control`].

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::abi::{IO_ERR_CONFIGURATION_ERROR, IO_ERR_TIMEOUT};
use wdm::{
    Answer, Device, DeviceInterface, Dispatch, DispatchOrBelow, Function, Irp, IrpQueue, Line, LogEntry,
    ManagedQueue, Mutex, Name, NtStatus, Offered, Packet, Passive, Pdo, PendingIrp, Resources, Result,
    Rundown, Shared, Slot, Stop, SymbolicLink, Tag,
};

use crate::hardware::Hardware;
use crate::isr::Counters;
use crate::wmi::{Cause, TimedOut};
use crate::{INTERFACE, Pci9052, TAG, control, transfer, wait, wmi};

/// In the event log: the card has not ended what it had.
const TIMED_OUT: LogEntry = LogEntry::new(IO_ERR_TIMEOUT, NtStatus::IO_TIMEOUT).unique(1);
/// In the event log, with the status that says why: code, and place in the driver.
const NOT_STARTED: (u32, u32) = (IO_ERR_CONFIGURATION_ERROR, 2);

/// A card.
pub(crate) struct Card {
    _link: SymbolicLink,
    interface: DeviceInterface,
    /// Reach registers by ports.
    pub(crate) use_ports: bool,
    /// Milliseconds that a stop waits for the transfer under way.
    pub(crate) stop_timeout: AtomicU32,
    /// There from start to stop.
    pub(crate) hardware: Rundown<Hardware>,
    /// Reads and writes that wait for the card to be back.
    pub(crate) held: ManagedQueue,
    /// The request that the card works for.
    pub(crate) in_flight: IrpQueue,
    /// The turn for which the peripheral was rung and has not ended, though its request may have been cancelled.
    pub(crate) on_card: Slot<Packet>,
    /// Who waits for an interrupt.
    pub(crate) waiters: IrpQueue,
    /// The local configuration registers, of which CNTRL has the EEPROM's pins: one at a time.
    pub(crate) cntrl: Mutex<()>,
    pub(crate) counters: Shared<Counters>,
}

impl Function for Card {
    type Driver = Pci9052;
    const TAG: Tag = TAG;
    const WMI: &'static [Offered<Self>] = wmi::OFFERED;

    fn add(driver: &Pci9052, pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
        let number = driver.next_card();
        let name = Name::new(r"\Device\Pci9052-").with_number(number);
        let link = Name::new(r"\DosDevices\Pci9052-").with_number(number);
        let card = Self {
            _link: SymbolicLink::create(link, &name, passive)?,
            interface: DeviceInterface::register(pdo, &INTERFACE, passive)?,
            use_ports: pdo.hardware_setting(&Name::new("UsePorts"), 0, passive) != 0,
            stop_timeout: AtomicU32::new(driver.stop_timeout),
            hardware: Rundown::new(TAG, passive)?,
            held: ManagedQueue::parallel(TAG, passive)?,
            in_flight: IrpQueue::new(1),
            on_card: Slot::new(),
            waiters: IrpQueue::new(1),
            cntrl: Mutex::new((), TAG, passive)?,
            counters: Shared::new(Counters::default(), TAG, passive)?,
        };
        Ok((name, card))
    }

    fn start(device: &Device<Self>, resources: &Resources<'_>, passive: &mut Passive) -> Result<()> {
        let hardware = match Hardware::start(device, resources, passive) {
            Ok(hardware) => hardware,
            Err(why) => {
                device.log(&LogEntry::new(NOT_STARTED.0, why).unique(NOT_STARTED.1), &[], passive);
                return Err(why);
            }
        };
        if let Err(hardware) = device.hardware.put(hardware, passive) {
            hardware.quiet(passive);
            return Err(NtStatus::INVALID_DEVICE_STATE);
        }
        if let Some(hardware) = device.hardware.enter(passive) {
            hardware.wake(passive);
        }
        device.held.open(passive);
        let enabled = device.interface.enable(passive);
        match enabled {
            Ok(()) => transfer::settle(device, passive),
            Err(_) => Self::stop(device, Stop::Remove, passive),
        }
        enabled
    }

    fn pause(device: &Device<Self>, passive: &mut Passive) -> Result<()> {
        device.held.pause(passive);
        if is_idle(device, Cause::Stop, passive) { Ok(()) } else { Err(NtStatus::DEVICE_BUSY) }
    }

    fn resume(device: &Device<Self>, passive: &mut Passive) {
        device.held.resume(passive);
        transfer::settle(device, passive);
    }

    fn stop(device: &Device<Self>, why: Stop, passive: &mut Passive) {
        let comes_back = why == Stop::Rebalance;
        if comes_back {
            device.held.pause(passive);
        } else {
            device.held.close(passive);
        }
        if why == Stop::SurpriseRemoval {
            if device.hardware.take(passive).is_some() {
                Line::new("pci9052: the card is gone").print();
            }
        } else {
            release(device, passive);
        }
        wdm::at_dispatch(passive, |dispatch| transfer::abandon(device, dispatch));
        transfer::settle(device, passive);
        if !comes_back {
            device.interface.disable(passive);
        }
    }

    fn power_down(device: &Device<Self>, passive: &mut Passive) {
        device.held.sleep(passive);
        if let Some(hardware) = device.hardware.enter(passive) {
            if !is_idle(device, Cause::PowerDown, passive) {
                wdm::at_dispatch(passive, |dispatch| transfer::abandon(device, dispatch));
            }
            hardware.stop_polling(passive);
            // behind the owner of CNTRL: a word of the EEPROM is programmed whole
            device.cntrl.with(passive, |(), passive| hardware.quiet(passive));
        }
    }

    fn power_up(device: &Device<Self>, level: &mut DispatchOrBelow) {
        if let Some(hardware) = device.hardware.enter(level) {
            hardware.windows.clear_status();
            hardware.wake(level);
        }
        device.held.wake(level);
        transfer::settle(device, level);
    }

    fn cleanup<'irp>(device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        while let Some(waiting) = device.held.pop_of(irp.file(), passive) {
            waiting.complete(NtStatus::CANCELLED, 0, passive);
        }
        device.cancel_packets(irp.file(), passive);
        for queue in [&device.waiters, &device.in_flight] {
            while let Some(waiting) = queue.pop_of(irp.file(), passive) {
                waiting.complete(NtStatus::CANCELLED, 0, passive);
            }
        }
        irp.complete(NtStatus::SUCCESS, 0, passive)
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
        react(device, dispatch);
    }
}

/// Waits for the transfer under way, as long as a stop may. What takes longer is counted, fired as a WMI event, and put into the event log.
fn is_idle(device: &Device<Card>, cause: Cause, passive: &mut Passive) -> bool {
    let milliseconds = device.stop_timeout.load(Ordering::Relaxed);
    if device.wait_for_packets(milliseconds, passive) {
        return true;
    }
    let time_outs = device.counters.time_outs.fetch_add(1, Ordering::Relaxed) + 1;
    let _without_memory = device.fire::<TimedOut>(0, &[milliseconds, time_outs, cause as u32], passive);
    device.log(&TIMED_OUT, &[milliseconds, time_outs, cause as u32], passive);
    false
}

/// What the service routine saw takes its course. An interrupt that ends no transfer is what waiters wait for.
fn react(device: &Device<Card>, dispatch: &mut Dispatch) {
    let Some(hardware) = device.hardware.enter(dispatch) else { return };
    let seen = hardware.take_seen(dispatch);
    let ended = seen.done && transfer::end(device, &hardware, dispatch);
    if seen.outside || seen.done && !ended {
        wait::end(device, dispatch);
    }
    if seen.outside && device.on_card.is_full() {
        hardware.poll_later(dispatch);
    }
}

/// The timer's routine: others hold the line active, so that the end of a transfer makes no interrupt.
pub(crate) fn poll(device: &Device<Card>, dispatch: &mut Dispatch) {
    if !device.on_card.is_full() {
        return;
    }
    if let Some(hardware) = device.hardware.enter(dispatch)
        && !hardware.look(dispatch)
    {
        hardware.poll_later(dispatch);
    }
    react(device, dispatch);
}

/// Lets go of a card that is still there.
fn release(device: &Device<Card>, passive: &mut Passive) {
    if let Some(hardware) = device.hardware.take(passive) {
        hardware.quiet(passive);
        Line::new("pci9052: stopped").print();
    }
}
