//! Device control requests.
//!
//! Page: *Defining I/O Control Codes*. All are buffered. Numbers in their buffers are 32 bits, little endian.
//!
//! | function | access | input | output | |
//! | --- | --- | --- | --- | --- |
//! | 900h | read | | | waits for an interrupt |
//! | 901h | read | | transfers, interrupts claimed, interrupts passed on, bytes of local space | counters |
//! | 902h | read | offset | value | reads a local configuration register |
//! | 903h | write | offset, value | | writes one of those an application may: see [`writable`] |
//! | 904h | read | word | value | reads a word of the EEPROM |
//! | 905h | write | word, value | | writes a word of the EEPROM |

use core::sync::atomic::Ordering;

use wdm::abi::{FILE_DEVICE_UNKNOWN, FILE_READ_ACCESS, FILE_WRITE_ACCESS, METHOD_BUFFERED, ctl_code};
use wdm::{Answer, Device, DispatchOrBelow, Irp, NtStatus, Passive, Register, Result, Way, Window};

use crate::card::Card;
use crate::eeprom::{self, Eeprom};
use crate::registers::Lcr;
use crate::wait;

const WAIT: u32 = code(0x900, FILE_READ_ACCESS);
const COUNTERS: u32 = code(0x901, FILE_READ_ACCESS);
const READ_LCR: u32 = code(0x902, FILE_READ_ACCESS);
const WRITE_LCR: u32 = code(0x903, FILE_WRITE_ACCESS);
const READ_EEPROM: u32 = code(0x904, FILE_READ_ACCESS);
const WRITE_EEPROM: u32 = code(0x905, FILE_WRITE_ACCESS);

const fn code(function: u32, access: u32) -> u32 {
    ctl_code(FILE_DEVICE_UNKNOWN, function, METHOD_BUFFERED, access)
}

/// The last local configuration register is CNTRL.
const LAST: u32 = 0x50;
/// Of a bus region descriptor: bus width, big endian, and which lanes.
const BYTE_ORDER: u32 = 0x03C0_0000;

/// `IRP_MJ_DEVICE_CONTROL`.
pub(crate) fn dispatch<'irp>(
    device: &Device<Card>,
    mut irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    let result = match irp.control().code {
        WAIT => return wait::start(device, irp, level),
        COUNTERS => counters(device, &mut irp, level),
        READ_LCR => read_lcr(device, &mut irp, level),
        WRITE_LCR => write_lcr(device, &mut irp, level),
        READ_EEPROM => read_eeprom(device, &mut irp, level),
        WRITE_EEPROM => write_eeprom(device, &mut irp, level),
        _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
    };
    match result {
        Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
        Err(status) => irp.complete(status, 0, level),
    }
}

/// Does something with the local configuration registers, one at a time, if the card is there and has power. It keeps that until this is done.
fn with_registers<R>(
    device: &Device<Card>,
    level: &mut DispatchOrBelow,
    body: impl FnOnce(&Window<Lcr>, &mut Passive) -> Result<R>,
) -> Result<R> {
    let passive = level.as_passive().ok_or(NtStatus::INVALID_DEVICE_STATE)?;
    device.cntrl.with(passive, |(), passive| {
        let hardware = match device.held.way(passive) {
            Way::Open => device.hardware.enter(passive).ok_or(NtStatus::DEVICE_NOT_CONNECTED),
            Way::Held => Err(NtStatus::DEVICE_BUSY),
            Way::Closed => Err(NtStatus::DEVICE_NOT_CONNECTED),
        }?;
        body(&hardware.windows.lcr, passive)
    })
}

fn counters(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let local = device.hardware.enter(level).map_or(0, |hardware| hardware.windows.local.length());
    let counters = &device.counters;
    let [transfers, interrupts, passed] = [&counters.transfers, &counters.interrupts, &counters.passed]
        .map(|counter| counter.load(Ordering::Relaxed));
    irp.output(&[transfers, interrupts, passed, local])
}

/// The register that a request names.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` if there is none at its offset.
fn register(offset: u32) -> Result<Register<Lcr, u32>> {
    Register::try_at(offset).filter(|_| offset <= LAST).ok_or(NtStatus::INVALID_PARAMETER)
}

fn read_lcr(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let register = register(irp.input()?)?;
    let value = with_registers(device, level, |lcr, _| Ok(lcr.read(register)))?;
    irp.output(&value)
}

/// The bits of a register that an application may write: bus region descriptors, chip selects, user I/O. The others are
/// the system's (ranges and remaps are what base address registers rest on), this driver's, or reset the card. Of the two spaces that
/// the driver uses itself, bus width and byte order stay as they are.
const fn writable(offset: u32) -> u32 {
    match offset {
        0x28 | 0x2C => !BYTE_ORDER,
        0x30..=0x48 => u32::MAX,
        LAST => 0xFFF,
        _ => 0,
    }
}

fn write_lcr(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let register = register(irp.input()?)?;
    let [_, value] = irp.input::<[u32; 2]>()?;
    let bits = writable(register.offset());
    if bits == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    with_registers(device, level, |lcr, _| {
        lcr.write(register, lcr.read(register) & !bits | value & bits);
        Ok(0)
    })
}

fn read_eeprom(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let word = eeprom::word(irp.input()?)?;
    let value = with_registers(device, level, |lcr, _| Ok(Eeprom::select(lcr)?.read(word)))?;
    irp.output(&u32::from(value))
}

fn write_eeprom(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let word = eeprom::word(irp.input()?)?;
    let [_, value] = irp.input::<[u32; 2]>()?;
    let value = u16::try_from(value).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    with_registers(device, level, |lcr, passive| Eeprom::select(lcr)?.write(word, value, passive))?;
    Ok(0)
}
