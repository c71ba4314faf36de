//! `NAME.sys`: a function driver for the PCI card VVVV:DDDD. Its device is `\\.\NAME`.
//!
//! The card has registers of 32 bits in BAR0. They are those of `NAME.sheet`: put your data sheet's here and there.
//! It does no power management.
//!
//! | control code | output | |
//! | --- | --- | --- |
//! | 226000h | `u32` | reads DATA |
//! | 226004h | `u32` | waits for an interrupt and tells its causes; can be cancelled |
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire};

use wdm::abi::{FILE_DEVICE_UNKNOWN, FILE_READ_ACCESS, METHOD_BUFFERED, ctl_code};
use wdm::{
    Answer, AtMostDispatch, Block, Claim, Device, Dirql, Dispatch, DispatchOrBelow, Driver,
    Function, Interrupt, Irp, IrpQueue, MemoryWindow, Name, NtStatus, Passive, Pdo, Register,
    RegistryPath, Resources, Result, Rundown, Service, Shared, SpinLock, Stop, SymbolicLink, Tag,
};

const READ_DATA: u32 = ctl_code(
    FILE_DEVICE_UNKNOWN,
    0x800,
    METHOD_BUFFERED,
    FILE_READ_ACCESS,
);
const WAIT_INTERRUPT: u32 = ctl_code(
    FILE_DEVICE_UNKNOWN,
    0x801,
    METHOD_BUFFERED,
    FILE_READ_ACCESS,
);

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"Task");

/// BAR0.
struct Registers;

impl Block for Registers {
    const LENGTH: u32 = 0x14;
}

const ENABLE: Register<Registers, u32> = Register::at(0x04);
const STATUS: Register<Registers, u32> = Register::at(0x08);
/// A one clears its cause.
const ACKNOWLEDGE: Register<Registers, u32> = Register::at(0x0C);
const DATA: Register<Registers, u32> = Register::at(0x10);

/// What the service routine shares with the rest of the driver.
struct Chip {
    registers: MemoryWindow<Registers>,
    /// Causes that no request has returned.
    causes: AtomicU32,
}

struct Isr(Shared<Chip>);

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        let causes = self.0.registers.read(STATUS);
        if causes == 0 || causes == u32::MAX {
            return Claim::Other; // another device's, or the card is gone
        }
        self.0.registers.write(ACKNOWLEDGE, causes);
        self.0.causes.fetch_or(causes, AcqRel);
        Claim::MineAndDpc
    }
}

/// The card in use, from start to stop. The interrupt goes first when it is dropped.
struct Hardware {
    _interrupt: Interrupt<Isr>,
    chip: Shared<Chip>,
}

impl Hardware {
    fn start(
        device: &Device<Card>,
        resources: &Resources<'_>,
        passive: &mut Passive,
    ) -> Result<Self> {
        let range = resources
            .memory()
            .ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)?;
        let line = resources
            .line()
            .ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)?;
        let registers = MemoryWindow::map(&range, passive)?;
        let chip = Shared::new(
            Chip {
                registers,
                causes: AtomicU32::new(0),
            },
            TAG,
            passive,
        )?;
        let interrupt = Interrupt::connect(device, &line, Isr(chip.clone()), TAG, passive)?;
        chip.registers.write(ENABLE, u32::MAX);
        Ok(Self {
            _interrupt: interrupt,
            chip,
        })
    }
}

/// A device.
struct Card {
    _link: SymbolicLink,
    hardware: Rundown<Hardware>,
    waiting: IrpQueue,
    /// One at a time gives causes to a request.
    turn: SpinLock<()>,
}

impl Function for Card {
    type Driver = TheDriver;
    const TAG: Tag = TAG;

    fn add(_driver: &TheDriver, _pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
        let name = Name::new(r"\Device\NAME");
        let card = Self {
            _link: SymbolicLink::create(Name::new(r"\DosDevices\NAME"), &name, passive)?,
            hardware: Rundown::new(TAG, passive)?,
            waiting: IrpQueue::new(16),
            turn: SpinLock::new(()),
        };
        Ok((name, card))
    }

    fn start(
        device: &Device<Self>,
        resources: &Resources<'_>,
        passive: &mut Passive,
    ) -> Result<()> {
        let hardware = Hardware::start(device, resources, passive)?;
        device
            .hardware
            .put(hardware, passive)
            .map_err(|_there| NtStatus::INVALID_DEVICE_STATE)
    }

    fn pause(_device: &Device<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn resume(_device: &Device<Self>, _passive: &mut Passive) {}

    /// Waits for all users of the hardware, makes it quiet, and ends the requests that wait.
    fn stop(device: &Device<Self>, why: Stop, passive: &mut Passive) {
        if let Some(hardware) = device.hardware.take(passive)
            && why != Stop::SurpriseRemoval
        {
            hardware.chip.registers.write(ENABLE, 0);
        }
        while let Some(irp) = device.waiting.pop(passive) {
            irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, passive);
        }
    }

    fn device_control<'irp>(
        device: &Device<Self>,
        mut irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        let Some(hardware) = device.hardware.enter(level) else {
            return irp.complete(NtStatus::DEVICE_NOT_READY, 0, level);
        };
        let result = match irp.control().code {
            READ_DATA => irp.output(&hardware.chip.registers.read(DATA)),
            WAIT_INTERRUPT if irp.control().output < 4 => Err(NtStatus::BUFFER_TOO_SMALL),
            WAIT_INTERRUPT => {
                let (irp, answer) = irp.pend();
                match device.park(irp, |card| &card.waiting, level) {
                    Ok(()) => tell(device, &hardware.chip, level),
                    Err((irp, why)) => irp.complete(why.status(), 0, level),
                }
                return answer;
            }
            _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
        };
        match result {
            Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
            Err(status) => irp.complete(status, 0, level),
        }
    }

    fn dpc_for_isr(device: &Device<Self>, dispatch: &mut Dispatch) {
        if let Some(hardware) = device.hardware.enter(dispatch) {
            tell(device, &hardware.chip, dispatch);
        }
    }
}

/// Tells causes, if there are any, to the request that has waited longest, if there is one.
fn tell<L: AtMostDispatch>(device: &Device<Card>, chip: &Chip, level: &mut L) {
    let served = device.turn.with(level, |(), dispatch| {
        if chip.causes.load(Acquire) == 0 {
            return None;
        }
        let irp = device.waiting.pop(dispatch)?;
        Some((irp, chip.causes.swap(0, AcqRel)))
    });
    if let Some((mut irp, causes)) = served {
        match irp.output(&causes) {
            Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
            Err(status) => irp.complete(status, 0, level),
        }
    }
}

/// The driver.
struct TheDriver;

impl Driver for TheDriver {
    type Function = Card;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self)
    }
}

wdm::driver!(TheDriver);
