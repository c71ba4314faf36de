//! A card as a device: what it has, how Plug and Play and power change that, and what applications ask of it.
//!
//! All requests are carried out in the caller's thread, one that raises at a time.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use wdm::abi::{CONNECT_MESSAGE_BASED, FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, ctl_code};
use wdm::{
    Answer, Device, Dispatch, DispatchOrBelow, Event, Function, Irp, Mutex, Name, NtStatus, Passive, Pdo,
    Resources, Result, Rundown, Stop, SymbolicLink, Tag, User,
};

use crate::hardware::Hardware;
use crate::{Bench, TAG};

const RAISE: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS);
const STATE: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS);
const HOLD: u32 = ctl_code(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS);

/// Milliseconds that the card may take to be served.
const PATIENCE: u32 = 1000;

/// A card.
pub(crate) struct Card {
    _link: SymbolicLink,
    /// `CONNECT_*`: how its interrupts are to be connected.
    pub(crate) connect: u32,
    /// There from start to stop.
    hardware: Rundown<Hardware>,
    /// Sources that the raiser waits for.
    awaited: AtomicU32,
    served: Event,
    /// One raiser at a time.
    turn: Mutex<()>,
    /// 1: the card has no power.
    asleep: AtomicU32,
}

impl Function for Card {
    type Driver = Bench;
    const TAG: Tag = TAG;

    fn add(_driver: &Bench, pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
        let name = Name::new(r"\Device\BenchRust-0");
        let card = Self {
            _link: SymbolicLink::create(Name::new(r"\DosDevices\BenchRust-0"), &name, passive)?,
            connect: pdo.hardware_setting(&Name::new("Connect"), CONNECT_MESSAGE_BASED, passive),
            hardware: Rundown::new(TAG, passive)?,
            awaited: AtomicU32::new(0),
            served: Event::notification(TAG, passive)?,
            turn: Mutex::new((), TAG, passive)?,
            asleep: AtomicU32::new(0),
        };
        Ok((name, card))
    }

    fn start(device: &Device<Self>, resources: &Resources<'_>, passive: &mut Passive) -> Result<()> {
        let hardware = Hardware::start(device, resources, passive)?;
        device.asleep.store(0, Release);
        device.hardware.put(hardware, passive).map_err(|_there| NtStatus::INVALID_DEVICE_STATE)
    }

    fn pause(_device: &Device<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn resume(_device: &Device<Self>, _passive: &mut Passive) {}

    /// Waits for the requests under way: they end, or lose their patience.
    fn stop(device: &Device<Self>, why: Stop, passive: &mut Passive) {
        if let Some(hardware) = device.hardware.take(passive)
            && why != Stop::SurpriseRemoval
        {
            hardware.chip.quiet();
        }
    }

    /// Behind the request under way; the next ones find no card.
    fn power_down(device: &Device<Self>, passive: &mut Passive) {
        device.turn.with(passive, |(), passive| {
            device.asleep.store(1, Release);
            if let Some(hardware) = device.hardware.enter(passive) {
                hardware.chip.quiet();
            }
        });
    }

    fn power_up(device: &Device<Self>, level: &mut DispatchOrBelow) {
        if let Some(hardware) = device.hardware.enter(level) {
            hardware.chip.enable();
        }
        device.asleep.store(0, Release);
    }

    fn device_control<'irp>(
        device: &Device<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        let result = match (irp.control().code, level.as_passive()) {
            (_, None) => Err(NtStatus::INVALID_DEVICE_REQUEST),
            (RAISE, Some(passive)) => raise(device, &mut irp, passive),
            (STATE, Some(passive)) => state(device, &mut irp, passive),
            (HOLD, Some(passive)) => hold(device, &mut irp, passive),
            _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
        };
        match result {
            Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
            Err(status) => irp.complete(status, 0, level),
        }
    }

    fn dpc_for_isr(device: &Device<Self>, dispatch: &mut Dispatch) {
        let Some(hardware) = device.hardware.enter(dispatch) else { return };
        let fired = hardware.chip.take_fired();
        let awaited = device.awaited.fetch_and(!fired, AcqRel);
        if awaited != 0 && awaited & !fired == 0 {
            device.served.set(dispatch);
        }
    }
}

/// The card, if it is started and has power.
fn awake<'d>(device: &'d Device<Card>, passive: &mut Passive) -> Result<User<'d, Hardware>> {
    let hardware = device.hardware.enter(passive);
    hardware.filter(|_| device.asleep.load(Acquire) == 0).ok_or(NtStatus::DEVICE_NOT_READY)
}

fn raise(device: &Device<Card>, irp: &mut Irp<'_>, passive: &mut Passive) -> Result<usize> {
    let sources = irp.input()?;
    device.turn.with(passive, |(), passive| {
        let hardware = awake(device, passive)?;
        device.served.clear(passive);
        device.awaited.store(sources, Release);
        hardware.raise(sources);
        let ended = device.served.wait_milliseconds(PATIENCE, passive);
        if ended { Ok(0) } else { Err(NtStatus::IO_TIMEOUT) }
    })
}

fn state(device: &Device<Card>, irp: &mut Irp<'_>, passive: &mut Passive) -> Result<usize> {
    let hardware = device.hardware.enter(passive).ok_or(NtStatus::DEVICE_NOT_READY)?;
    irp.output(&hardware.tell(passive))
}

fn hold(device: &Device<Card>, irp: &mut Irp<'_>, passive: &mut Passive) -> Result<usize> {
    let [whose, source] = irp.input()?;
    let held = device.turn.with(passive, |(), passive| {
        let hardware = awake(device, passive)?;
        hardware.hold(whose, source, passive)
    });
    irp.output(&held?)
}
