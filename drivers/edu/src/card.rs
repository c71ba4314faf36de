//! A card as a device: what it has, and how Plug and Play and power change that.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *Handling an IRP_MN_SURPRISE_REMOVAL Request*. What requests do is in
//! [`crate::work`].

use wdm::abi::{FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, METHOD_OUT_DIRECT, ctl_code};
use wdm::{
    Answer, Device, Dispatch, DispatchOrBelow, Function, Irp, ManagedQueue, Name, NtStatus, Passive, Pdo,
    Resources, Result, Rundown, SpinLock, Stop, SymbolicLink, Tag,
};

use crate::hardware::Hardware;
use crate::work::{self, Current};
use crate::{Edu, TAG};

pub(crate) const FACTORIAL: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS);
const STATE: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_ANY_ACCESS);
const CONFIGURATION: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC03, METHOD_BUFFERED, FILE_ANY_ACCESS);
pub(crate) const DIRECT: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0xC02, METHOD_OUT_DIRECT, FILE_ANY_ACCESS);

/// A card.
pub(crate) struct Card {
    _link: SymbolicLink,
    /// Of the addresses that the card puts out.
    pub(crate) address_bits: u32,
    /// There from start to stop.
    pub(crate) hardware: Rundown<Hardware>,
    pub(crate) waiting: ManagedQueue,
    /// What is on the card.
    pub(crate) current: SpinLock<Option<Current>>,
}

impl Function for Card {
    type Driver = Edu;
    const TAG: Tag = TAG;

    fn add(driver: &Edu, pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
        let number = driver.next_card();
        let name = Name::new(r"\Device\EduRust-").with_number(number);
        let link = Name::new(r"\DosDevices\EduRust-").with_number(number);
        let card = Self {
            _link: SymbolicLink::create(link, &name, passive)?,
            address_bits: pdo.hardware_setting(&Name::new("DmaBits"), 28, passive),
            hardware: Rundown::new(TAG, passive)?,
            waiting: ManagedQueue::serial(TAG, passive)?,
            current: SpinLock::new(None),
        };
        Ok((name, card))
    }

    fn start(device: &Device<Self>, resources: &Resources<'_>, passive: &mut Passive) -> Result<()> {
        let hardware = Hardware::start(device, resources, passive)?;
        if device.hardware.put(hardware, passive).is_err() {
            return Err(NtStatus::INVALID_DEVICE_STATE); // it was started already
        }
        device.waiting.open(passive);
        work::settle(device, passive);
        Ok(())
    }

    fn pause(device: &Device<Self>, passive: &mut Passive) -> Result<()> {
        device.waiting.pause(passive);
        if work::rest(device, passive) { Ok(()) } else { Err(NtStatus::DEVICE_BUSY) }
    }

    fn resume(device: &Device<Self>, passive: &mut Passive) {
        device.waiting.resume(passive);
        work::settle(device, passive);
    }

    fn stop(device: &Device<Self>, why: Stop, passive: &mut Passive) {
        match why {
            Stop::Rebalance => device.waiting.pause(passive),
            Stop::SurpriseRemoval | Stop::Remove => device.waiting.close(passive),
        }
        let present = why != Stop::SurpriseRemoval;
        let rested = present && work::rest(device, passive);
        let hardware = device.hardware.take(passive);
        if let Some(hardware) = &hardware
            && present
        {
            hardware.chip.quiet();
        }
        if !rested {
            let status = if present { NtStatus::IO_TIMEOUT } else { NtStatus::DEVICE_NOT_CONNECTED };
            work::abandon(device, status, passive); // before its adapter goes, which waits for what is mapped
        }
        drop(hardware);
        work::settle(device, passive);
    }

    fn power_down(device: &Device<Self>, passive: &mut Passive) {
        device.waiting.sleep(passive);
        let rested = work::rest(device, passive);
        if let Some(hardware) = device.hardware.enter(passive) {
            hardware.chip.quiet();
        }
        if !rested {
            work::abandon(device, NtStatus::IO_TIMEOUT, passive);
        }
    }

    fn power_up(device: &Device<Self>, level: &mut DispatchOrBelow) {
        device.waiting.wake(level);
        work::settle(device, level);
    }

    fn cleanup<'irp>(device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        while let Some(waiting) = device.waiting.pop_of(irp.file(), passive) {
            waiting.complete(NtStatus::CANCELLED, 0, passive);
        }
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    fn read<'irp>(device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        work::dispatch(device, irp, level)
    }

    fn write<'irp>(device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        work::dispatch(device, irp, level)
    }

    fn device_control<'irp>(
        device: &Device<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        let result = match irp.control().code {
            FACTORIAL | DIRECT => return work::dispatch(device, irp, level),
            STATE => state(device, &mut irp, level),
            CONFIGURATION => configuration(device, &mut irp, level),
            _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
        };
        match result {
            Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
            Err(status) => irp.complete(status, 0, level),
        }
    }

    fn dpc_for_isr(device: &Device<Self>, dispatch: &mut Dispatch) {
        if let Some(hardware) = device.hardware.enter(dispatch) {
            work::ended(device, &hardware, dispatch);
        }
    }
}

/// What the card's configuration space holds from an offset on, as far as it goes.
fn configuration(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let offset: u32 = irp.input()?;
    let mut bytes = [0; 16];
    let hardware = device.hardware.enter(level).ok_or(NtStatus::DEVICE_NOT_READY)?;
    let there = hardware.configuration.read(offset, &mut bytes, level);
    irp.output(bytes.get(..there).unwrap_or(&[]))
}

/// How the interrupt is connected, and what came since the device was started. Only at `PASSIVE_LEVEL`, because the line's
/// level may be that.
fn state(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let passive = level.as_passive().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let hardware = device.hardware.enter(passive).ok_or(NtStatus::DEVICE_NOT_READY)?;
    let interrupt = &hardware.interrupt;
    let counts = interrupt.synchronize(passive, |isr, _dirql| isr.counts);
    let messages = interrupt.table().map_or(0, |table| table.count);
    let numbers = [interrupt.version(), messages, hardware.level.into(), counts.interrupts, counts.passed];
    irp.output(&numbers)
}
