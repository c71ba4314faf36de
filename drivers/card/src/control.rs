//! Device control requests: copies between the card's memory and an application's pages, and what work items do.
//!
//! The codes stand in the driver's own header.

use core::sync::atomic::Ordering;

use wdm::abi::{
    FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED, METHOD_IN_DIRECT, METHOD_NEITHER,
    METHOD_OUT_DIRECT, ctl_code,
};
use wdm::{
    Answer, AtMostDispatch, Destination, Device, DispatchOrBelow, Irp, Line, NtStatus, Passive, PendingIrp,
    Result, WorkItem, delay_milliseconds,
};

use crate::card::Card;
use crate::{TAG, fault};

const fn code(function: u32, method: u32) -> u32 {
    ctl_code(FILE_DEVICE_UNKNOWN, function, method, FILE_ANY_ACCESS)
}

const PUT: u32 = code(0xE00, METHOD_IN_DIRECT);
const GET: u32 = code(0xE01, METHOD_OUT_DIRECT);
const SLEEP: u32 = code(0xE02, METHOD_BUFFERED);
const SLEEP_ALONE: u32 = code(0xE03, METHOD_BUFFERED);
const MISTAKE: u32 = code(0xE04, METHOD_BUFFERED);
const STATE: u32 = code(0xE05, METHOD_BUFFERED);
const BY_PROCESSOR: u32 = code(0xE06, METHOD_BUFFERED);
const FAULT: u32 = code(0xE07, METHOD_BUFFERED);
const CAPTURED_PUT: u32 = code(0xE08, METHOD_NEITHER);
const CAPTURED_GET: u32 = code(0xE09, METHOD_NEITHER);
const SQUARE: u32 = code(0xE0A, METHOD_BUFFERED);

/// Bytes that are copied at once.
const CHUNK: usize = 256;

/// `IRP_MJ_DEVICE_CONTROL`.
pub(crate) fn dispatch<'irp>(
    device: &Device<Card>,
    mut irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    if !device.gate.is_open() {
        return irp.complete(NtStatus::DEVICE_NOT_READY, 0, level);
    }
    let result = match irp.control().code {
        PUT => irp.input().and_then(|at| put(device, &irp, at, level)),
        GET => irp.input().and_then(|at| get(device, &irp, at, level)),
        SLEEP => return sleep(device, irp, level),
        SLEEP_ALONE => sleep_alone(device, &mut irp, level),
        MISTAKE => irp.input().map(|mistake| {
            device.mistake.store(mistake, Ordering::Release);
            0
        }),
        BY_PROCESSOR => irp.input().map(|yes| {
            device.by_processor.store(yes, Ordering::Relaxed);
            0
        }),
        FAULT => {
            return match irp.input() {
                Ok(fault) => fault::make(device, irp, fault, level),
                Err(status) => irp.complete(status, 0, level),
            };
        }
        STATE => state(device, &mut irp, level),
        SQUARE => square(device, &mut irp, level),
        CAPTURED_PUT => captured_put(device, &mut irp, level),
        CAPTURED_GET => return captured_get(device, irp, level),
        _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
    };
    answer(irp, result, level)
}

/// Ends a request: with so many bytes, or with why not.
pub(crate) fn answer<'irp>(
    irp: Irp<'irp>,
    result: Result<usize>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    match result {
        Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
        Err(status) => irp.complete(status, 0, level),
    }
}

/// The application's pages go to the card's memory.
///
/// # Errors
/// If they do not fit there.
pub(crate) fn put(
    device: &Device<Card>,
    irp: &Irp<'_>,
    at: u32,
    level: &mut DispatchOrBelow,
) -> Result<usize> {
    let hardware = device.hardware.enter(level).ok_or(NtStatus::DEVICE_NOT_CONNECTED)?;
    let _inside = device.gate.enter()?;
    let pages = irp.source(level)?;
    let mut chunk = [0; CHUNK];
    for done in (0..pages.len()).step_by(CHUNK) {
        let bytes = &mut chunk[..(pages.len() - done).min(CHUNK)];
        pages.copy_from(done, bytes)?;
        let offset = u32::try_from(done).ok().and_then(|done| done.checked_add(at));
        let offset = offset.ok_or(NtStatus::INVALID_PARAMETER)?;
        hardware.memory.copy_to(offset, bytes).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    }
    Ok(pages.len())
}

/// The card's memory goes to the application's pages.
///
/// # Errors
/// If there is not as much from there on.
pub(crate) fn get(
    device: &Device<Card>,
    irp: &Irp<'_>,
    at: u32,
    level: &mut DispatchOrBelow,
) -> Result<usize> {
    let pages = irp.destination(level)?;
    fill(device, &pages, at, level)
}

fn fill<L: AtMostDispatch>(
    device: &Device<Card>,
    pages: &Destination<'_>,
    at: u32,
    level: &mut L,
) -> Result<usize> {
    let hardware = device.hardware.enter(level).ok_or(NtStatus::DEVICE_NOT_CONNECTED)?;
    let _inside = device.gate.enter()?;
    let mut chunk = [0; CHUNK];
    for done in (0..pages.len()).step_by(CHUNK) {
        let bytes = &mut chunk[..(pages.len() - done).min(CHUNK)];
        let offset = u32::try_from(done).ok().and_then(|done| done.checked_add(at));
        let offset = offset.ok_or(NtStatus::INVALID_PARAMETER)?;
        hardware.memory.copy_from(offset, bytes).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        pages.copy_to(done, bytes)?;
    }
    Ok(pages.len())
}

/// What a work item sleeps for.
struct Sleeper {
    milliseconds: u32,
    irp: PendingIrp,
}

/// A work item ends the request.
fn sleep<'irp>(device: &Device<Card>, mut irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
    let asked = irp.input().and_then(|milliseconds| Ok((milliseconds, WorkItem::new(device, TAG, level)?)));
    let (milliseconds, item) = match asked {
        Ok(asked) => asked,
        Err(status) => return irp.complete(status, 0, level),
    };
    let (irp, answer) = irp.pend();
    if let Err((_item, sleeper)) = item.queue(device, Sleeper { milliseconds, irp }, slept, level) {
        sleeper.irp.complete(NtStatus::DELETE_PENDING, 0, level);
    }
    answer
}

fn slept(device: &Device<Card>, sleeper: Sleeper, _item: WorkItem<Card, Sleeper>, passive: &mut Passive) {
    let Sleeper { milliseconds, mut irp } = sleeper;
    delay_milliseconds(milliseconds, passive);
    let before = device.slept.fetch_add(1, Ordering::AcqRel);
    match irp.output(&before) {
        Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, passive),
        Err(status) => irp.complete(status, 0, passive),
    }
}

/// A work item that no request waits for: the device's removal does.
fn sleep_alone(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let [milliseconds, times] = irp.input()?;
    let item = WorkItem::new(device, TAG, level)?;
    item.queue(device, (milliseconds, times), slept_alone, level).map_err(|_| NtStatus::DELETE_PENDING)?;
    Ok(0)
}

fn slept_alone(
    device: &Device<Card>,
    (milliseconds, times): (u32, u32),
    item: WorkItem<Card, (u32, u32)>,
    passive: &mut Passive,
) {
    delay_milliseconds(milliseconds, passive);
    Line::new("card_rust: slept, ").decimal(times).text(" times to go").print();
    if times > 1
        && let Err((_item, (_, times))) = item.queue(device, (milliseconds, times - 1), slept_alone, passive)
    {
        Line::new("card_rust: the device goes, ").decimal(times).text(" times early").print();
    }
}

fn state(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let hardware = device.hardware.enter(level).ok_or(NtStatus::DEVICE_NOT_CONNECTED)?;
    let numbers = [&hardware.chip.interrupts, &device.transfers].map(|number| number.load(Ordering::Relaxed));
    irp.output(&numbers)
}

/// A number's square, from paged pool.
fn square(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let number: u32 = irp.input()?;
    let passive = level.as_passive().ok_or(NtStatus::INVALID_DEVICE_STATE)?;
    let square = device.squares.get(passive).get(number as usize).copied();
    irp.output(&square.ok_or(NtStatus::INVALID_PARAMETER)?)
}

/// The application's own input, from its beginning, goes to the card's memory, at 0.
fn captured_put(device: &Device<Card>, irp: &mut Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let passive = level.as_passive().ok_or(NtStatus::INVALID_DEVICE_STATE)?;
    irp.lock_input(passive)?;
    put(device, irp, 0, level).map(|_| 0)
}

/// The card's memory goes to the application's own output: where it begins and how long to wait is captured at once, and a work item copies, which
/// is in no process of the application's.
fn captured_get<'irp>(
    device: &Device<Card>,
    mut irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    let captured = match level.as_passive() {
        Some(passive) => capture(&mut irp, passive),
        None => Err(NtStatus::INVALID_DEVICE_STATE),
    };
    let made = captured.and_then(|asked| Ok((asked, WorkItem::new(device, TAG, level)?)));
    let (asked, item) = match made {
        Ok(made) => made,
        Err(status) => return irp.complete(status, 0, level),
    };
    let (irp, answer) = irp.pend();
    if let Err((_item, (_, irp))) = item.queue(device, (asked, irp), copied, level) {
        irp.complete(NtStatus::DELETE_PENDING, 0, level);
    }
    answer
}

fn capture(irp: &mut Irp<'_>, passive: &mut Passive) -> Result<[u32; 2]> {
    let asked = irp.capture_input(passive)?;
    irp.lock_output(passive)?;
    Ok(asked)
}

type Copied = ([u32; 2], PendingIrp);

fn copied(device: &Device<Card>, (asked, irp): Copied, _item: WorkItem<Card, Copied>, passive: &mut Passive) {
    let [at, milliseconds] = asked;
    delay_milliseconds(milliseconds, passive);
    match irp.destination(passive).and_then(|pages| fill(device, &pages, at, passive)) {
        Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, passive),
        Err(status) => irp.complete(status, 0, passive),
    }
}
