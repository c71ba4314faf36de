//! `WppRecorder.sys`: logs in memory of a driver's trace messages (WPP), which are written whether a session wants them or not.
//!
//! Pages: *Inflight Trace Recorder (IFR) for logging traces*, *WppRecorderLogCreate macro*, *RECORDER_LOG_CREATE_PARAMS structure*, *WppRecorderLogDelete macro*,
//! *imp_WppRecorderLogGetDefault function*, *imp_WppRecorderIsDefaultLogAvailable function*. What they leave open is what compiled drivers do: where the control block
//! has the default log, and what the routines that macros call are given. A log is nonpaged memory of the size that was asked for, and its handle the address;
//! the newest messages that fit are kept, for a session that begins. A message to a log that is not there is STATUS_INVALID_HANDLE. Logs that a driver leaves go with
//! `WppAutoLogStop`. Configuring, counters, triage and live dumps are not here.

use std::collections::{BTreeMap, VecDeque};

use abi::{DRIVER_OBJECT, DriverPtr, NtStatus, UNICODE_STRING};
use engine::{Args, Flow};

use super::trace::{arguments, low16, low32};
use super::{Guid, guid_text};
use crate::cx::{Cx, Kernel};
use crate::etw::session::is_logger;
use crate::event::Event;
use crate::mm::{pool, pool_exports};

/// Where a driver's `WPP_TRACE_CONTROL_BLOCK` has the handle of its default log.
const AUTO_LOG_CONTEXT: u64 = 0x40;
/// Of `RECORDER_LOG_CREATE_PARAMS`: its bytes at least, then members.
const PARAMETERS: u32 = 0x30;
const LOG_TAG: u64 = 0x4;
const TOTAL_BUFFER_SIZE: u64 = 0x8;
const ERROR_PARTITION_SIZE: u64 = 0xC;
/// Bytes of a log that does not say how many, and of a message besides its arguments.
const USUAL: u32 = 0x1000;
const HEADER: usize = 0x20;
const TAG: u32 = pool::tag(b"WppR");

/// The logs, by their handles.
#[derive(Default)]
pub(super) struct State(BTreeMap<u64, Log>);

struct Log {
    /// The control block of the driver that has it.
    control: u64,
    is_default: bool,
    bytes: usize,
    used: usize,
    messages: VecDeque<Message>,
}

#[derive(Clone)]
struct Message {
    level: u8,
    /// The number of its flag, from 1.
    flag: u32,
    guid: Guid,
    number: u16,
    arguments: String,
}

impl Message {
    fn bytes(&self) -> usize {
        HEADER + self.arguments.len() / 2
    }
}

impl Log {
    fn put(&mut self, message: Message) {
        self.used += message.bytes();
        self.messages.push_back(message);
        while self.used > self.bytes {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.used -= oldest.bytes();
        }
    }
}

impl State {
    fn default_of(&self, control: u64) -> Option<u64> {
        let mut all = self.0.iter();
        all.find(|(_, log)| log.control == control && log.is_default).map(|(handle, _)| *handle)
    }
}

/// Makes a log; none if there is no memory.
fn make(cx: &mut Cx<'_>, control: u64, bytes: u32, tag: u32, is_default: bool) -> Flow<Option<u64>> {
    let block: DriverPtr<u8> = pool::allocate(cx, pool::Kind::NonPaged, bytes.into(), tag)?;
    if block.is_null() {
        return Ok(None);
    }
    let log = Log { control, is_default, bytes: bytes as usize, used: 0, messages: VecDeque::new() };
    cx.with(|k| k.wmi.recorder.0.insert(block.address, log));
    Ok(Some(block.address))
}

/// `WppAutoLogStart`: the driver has its default log from now on.
///
/// # Errors
/// A verdict if the control block is bad.
pub(crate) fn start(
    cx: &mut Cx<'_>,
    control: DriverPtr<u8>,
    _driver: DriverPtr<DRIVER_OBJECT>,
    _path: DriverPtr<UNICODE_STRING>,
) -> Flow<()> {
    if cx.with(|k| k.wmi.recorder.default_of(control.address)).is_some() {
        return Ok(());
    }
    let log = make(cx, control.address, USUAL, TAG, true)?;
    cx.write(DriverPtr::new(control.address + AUTO_LOG_CONTEXT), log.unwrap_or(0))
}

/// `WppAutoLogStop`.
///
/// # Errors
/// A verdict if the driver has damaged a log.
pub(crate) fn stop(cx: &mut Cx<'_>, control: DriverPtr<u8>, _driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    let its: Vec<u64> = cx.with(|k| {
        let its = k.wmi.recorder.0.extract_if(.., |_, log| log.control == control.address);
        its.map(|(handle, _)| handle).collect()
    });
    its.into_iter().try_for_each(|handle| pool::free(cx, DriverPtr::<u8>::new(handle)))
}

/// `WppAutoLogTrace`: a message to a log.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn trace(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    let [handle, level, flag, guid] = args.registers;
    if !cx.with(|k| k.wmi.recorder.0.contains_key(&handle)) {
        return Ok(NtStatus::INVALID_HANDLE);
    }
    let guid: Guid = cx.read(DriverPtr::new(guid))?;
    let number = low16(cx.read(DriverPtr::new(args.slot(4)))?);
    let Some(arguments) = arguments(cx, args.slot(5))? else { return Ok(NtStatus::NO_MEMORY) };
    let [level, ..] = level.to_le_bytes();
    let message = Message { level, flag: low32(flag), guid, number, arguments };
    tell(cx, &message);
    cx.with(|k| {
        if let Some(log) = k.wmi.recorder.0.get_mut(&handle) {
            log.put(message);
        }
    });
    Ok(NtStatus::SUCCESS)
}

fn tell(cx: &mut Cx<'_>, message: &Message) {
    let (guid, number) = (guid_text(&message.guid), message.number.into());
    cx.emit(Event::TraceMessage { guid, number, arguments: message.arguments.clone() });
}

/// `imp_WppRecorderReplay`: a session begins, and gets what the default log has of these flags and levels.
///
/// # Errors
/// None of its own.
pub(crate) fn replay(
    cx: &mut Cx<'_>,
    control: DriverPtr<u8>,
    session: u64,
    flags: u32,
    level: u32,
) -> Flow<()> {
    let wanted = |message: &&Message| {
        u32::from(message.level) <= level & 0xFF
            && flags & 1_u32.wrapping_shl(message.flag.wrapping_sub(1)) != 0
    };
    let messages: Vec<Message> = cx.with(|k: &mut Kernel| {
        let log = k.wmi.recorder.default_of(control.address).filter(|_| is_logger(k, session));
        let log = log.and_then(|handle| k.wmi.recorder.0.get(&handle));
        let messages: Vec<_> =
            log.into_iter().flat_map(|log| log.messages.iter().filter(wanted).cloned()).collect();
        k.etw.logged = k.etw.logged.saturating_add(u32::try_from(messages.len()).unwrap_or(u32::MAX));
        messages
    });
    messages.iter().for_each(|message| tell(cx, message));
    Ok(())
}

/// `imp_WppRecorderLogCreate`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn create(
    cx: &mut Cx<'_>,
    control: DriverPtr<u8>,
    parameters: DriverPtr<u8>,
    log: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let mut member = |offset| cx.read(DriverPtr::<u32>::new(parameters.address + offset));
    let [size, tag, total, errors] =
        [member(0)?, member(LOG_TAG)?, member(TOTAL_BUFFER_SIZE)?, member(ERROR_PARTITION_SIZE)?];
    let total = if total == 0 { USUAL } else { total };
    if size < PARAMETERS || errors > total {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let tag = if tag == 0 { TAG } else { tag };
    match make(cx, control.address, total, tag, false)? {
        Some(handle) => cx.write(log, handle).map(|()| NtStatus::SUCCESS),
        None => Ok(NtStatus::INSUFFICIENT_RESOURCES),
    }
}

/// `imp_WppRecorderLogDelete`.
///
/// # Errors
/// A verdict if there is no such log (any more), or the driver has damaged it.
pub(crate) fn delete(cx: &mut Cx<'_>, _control: DriverPtr<u8>, log: u64) -> Flow<()> {
    match cx.with(|k| k.wmi.recorder.0.remove(&log)) {
        Some(_) => pool::free(cx, DriverPtr::<u8>::new(log)),
        // Its memory is freed once more.
        None => pool_exports::free_pool(cx, DriverPtr::new(log)),
    }
}

/// `imp_WppRecorderLogGetDefault`.
///
/// # Errors
/// None.
pub(crate) fn default_log(cx: &mut Cx<'_>, control: DriverPtr<u8>) -> Flow<u64> {
    Ok(cx.with(|k| k.wmi.recorder.default_of(control.address)).unwrap_or(0))
}

/// `imp_WppRecorderIsDefaultLogAvailable`.
///
/// # Errors
/// None.
pub(crate) fn has_default_log(cx: &mut Cx<'_>, control: DriverPtr<u8>) -> Flow<bool> {
    Ok(cx.with(|k| k.wmi.recorder.default_of(control.address)).is_some())
}
