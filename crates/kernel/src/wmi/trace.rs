//! Trace providers as since Windows XP: they are enabled by IRP_MN_ENABLE_EVENTS, which brings the handle of a logger, and write messages (WPP) or events to it.
//!
//! Pages: *WMI Event Tracing*, *IRP_MN_ENABLE_EVENTS*, *WNODE_HEADER structure* (`HistoricalContext` is the logger's handle), *WmiQueryTraceInformation
//! function*, *TRACE_INFORMATION_CLASS enumeration*, *WmiTraceMessage function*, *WmiTraceMessageVa function*, *EVENT_TRACE_HEADER structure*. What a message
//! says stands in its format, which a driver's PDB has: here it is a GUID, a number, and arguments. A provider with a device is not disabled before it goes: the
//! session lasts. There is no global logger. A session's settings and routines that are to be notified are not here.

use abi::{
    DriverPtr, IRP_MN_ENABLE_EVENTS, NtStatus, UNICODE_STRING, WMIREG_FLAG_TRACE_CONTROL_GUID,
    WNODE_FLAG_TRACED_GUID, WNODE_FLAG_USE_GUID_PTR, WNODE_FLAG_USE_MOF_PTR, WNODE_HEADER,
};
use engine::{Args, Flow};

use super::provider::Block;
use super::{Guid, ask, consumer, guid_text, node};
use crate::cx::{Cx, Kernel};
use crate::etw::describe::hex;
use crate::etw::session::{LOGGER, NAME, is_logger};
use crate::etw::write::lost;
use crate::event::Event;
use crate::rtl::string;
use crate::verdict::Verdict;

/// `TRACE_MESSAGE_GUID`: the message's GUID is there.
const MESSAGE_GUID: u32 = 2;
/// Bytes of a message or an event, and arguments of one, at most.
const LARGEST: u64 = 0x1_0000;
const MOST_ARGUMENTS: usize = 1024;
/// Bytes of an `EVENT_TRACE_HEADER`, and of a `MOF_FIELD`.
const HEADER: u64 = 0x30;
const MOF_FIELD: u64 = 16;

/// `TRACE_INFORMATION_CLASS`.
mod class {
    pub(super) const ID: u32 = 0;
    pub(super) const HANDLE: u32 = 1;
    pub(super) const ENABLE_FLAGS: u32 = 2;
    pub(super) const ENABLE_LEVEL: u32 = 3;
    pub(super) const GLOBAL_LOGGER_HANDLE: u32 = 4;
    pub(super) const ALL_LOGGER_HANDLES: u32 = 6;
    pub(super) const HANDLE_BY_NAME: u32 = 7;
    pub(super) const EVENTS_LOST: u32 = 8;
    pub(super) const EVENTS_LOGGED: u32 = 10;
    /// The first that is none.
    pub(super) const END: u32 = 16;
}

/// Whether a block is one by which a provider is enabled, and is.
pub(super) fn is_controlled(k: &Kernel, block: &Block) -> bool {
    block.flags & WMIREG_FLAG_TRACE_CONTROL_GUID != 0 && k.etw.tracing.has(&block.guid)
}

/// The header by which a provider is enabled or disabled: with the logger's handle in it.
pub(super) fn node(cx: &mut Cx<'_>, id: u32, guid: &Guid) -> Vec<u8> {
    let time = consumer::time(cx);
    let mut header = node::header(guid, id, WNODE_FLAG_TRACED_GUID, time);
    let handle = cx.with(|k| k.etw.tracing.logger_handle());
    let length = u32::try_from(header.len()).unwrap_or(0);
    header[..4].copy_from_slice(&length.to_le_bytes());
    let at = node::at(WNODE_HEADER::HistoricalContext);
    header[at..at + 8].copy_from_slice(&handle.to_le_bytes());
    header
}

/// Enables a provider with a device.
///
/// # Errors
/// A verdict on a driver of its stack.
pub(super) fn enable(cx: &mut Cx<'_>, id: u32, guid: Guid) -> Flow<()> {
    let node = node(cx, id, &guid);
    ask::block(cx, id, IRP_MN_ENABLE_EVENTS, guid, &node, node.len()).map(|_| ())
}

/// `WmiQueryTraceInformation`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a class that is not here.
pub(crate) fn query(
    cx: &mut Cx<'_>,
    class: u32,
    to: DriverPtr<u8>,
    length: u32,
    required: DriverPtr<u32>,
    buffer: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let answered = match class {
        class::ID => with_header(cx, buffer, |_| u32::from(LOGGER).to_le_bytes().to_vec())?,
        class::ENABLE_FLAGS => {
            with_header(cx, buffer, |k| k.etw.tracing.enable_flags().to_le_bytes().to_vec())?
        }
        class::ENABLE_LEVEL => {
            with_header(cx, buffer, |k| u32::from(k.etw.tracing.level).to_le_bytes().to_vec())?
        }
        class::HANDLE => with_number(cx, buffer, |k| k.etw.tracing.logger_handle().to_le_bytes().to_vec())?,
        class::EVENTS_LOST => with_number(cx, buffer, |k| k.etw.lost.to_le_bytes().to_vec())?,
        class::EVENTS_LOGGED => with_number(cx, buffer, |k| k.etw.logged.to_le_bytes().to_vec())?,
        class::GLOBAL_LOGGER_HANDLE => Err(NtStatus::NOT_FOUND),
        class::ALL_LOGGER_HANDLES => Ok(cx.with(|k| all_handles(k))),
        class::HANDLE_BY_NAME => by_name(cx, buffer.cast())?,
        class::END.. => Err(NtStatus::INVALID_INFO_CLASS),
        _ => {
            let what = format!("class {class} of WmiQueryTraceInformation");
            return Err(cx.stop(Verdict::not_implemented(&what)));
        }
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(status) => return Ok(status),
    };
    let needed = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    if !required.is_null() {
        cx.write(required, needed)?;
    }
    let status = if class == class::ALL_LOGGER_HANDLES {
        let whole = length as usize / 8 * 8;
        let is_more = answer.len() > whole;
        answer.truncate(whole);
        if is_more { NtStatus::MORE_ENTRIES } else { NtStatus::SUCCESS }
    } else if length == needed {
        NtStatus::SUCCESS
    } else {
        return Ok(NtStatus::INFO_LENGTH_MISMATCH);
    };
    // If nothing is to be written, the address is not used.
    if !answer.is_empty() {
        cx.write_bytes(to.address, &answer)?;
    }
    Ok(status)
}

/// What a query comes to: its bytes, or why there are none.
type Asked = Result<Vec<u8>, NtStatus>;

/// A question about the logger whose handle is in a `WNODE_HEADER`.
fn with_header(cx: &mut Cx<'_>, node: DriverPtr<u8>, tell: impl FnOnce(&Kernel) -> Vec<u8>) -> Flow<Asked> {
    if node.is_null() {
        return Ok(Err(NtStatus::INVALID_PARAMETER_MIX));
    }
    let handle = cx.read(node.cast::<WNODE_HEADER>() + WNODE_HEADER::HistoricalContext)?;
    Ok(cx.with(|k| if is_logger(k, handle) { Ok(tell(k)) } else { Err(NtStatus::INVALID_HANDLE) }))
}

/// A question about the logger of a number.
fn with_number(cx: &mut Cx<'_>, number: DriverPtr<u8>, tell: impl FnOnce(&Kernel) -> Vec<u8>) -> Flow<Asked> {
    if number.is_null() {
        return Ok(Err(NtStatus::INVALID_PARAMETER_MIX));
    }
    let number: u32 = cx.read(number.cast())?;
    let is_it = |k: &Kernel| number == u32::from(LOGGER) && is_logger(k, number.into());
    Ok(cx.with(|k| if is_it(k) { Ok(tell(k)) } else { Err(NtStatus::INVALID_HANDLE) }))
}

fn all_handles(k: &Kernel) -> Vec<u8> {
    if k.etw.tracing.is_on() { k.etw.tracing.logger_handle().to_le_bytes().to_vec() } else { Vec::new() }
}

fn by_name(cx: &mut Cx<'_>, name: DriverPtr<UNICODE_STRING>) -> Flow<Asked> {
    if name.is_null() {
        return Ok(Err(NtStatus::INVALID_PARAMETER_MIX));
    }
    let name = String::from_utf16_lossy(&string::read(cx, name)?);
    let handles = cx.with(|k| all_handles(k));
    let is_it = !handles.is_empty() && name.eq_ignore_ascii_case(NAME);
    Ok(if is_it { Ok(handles) } else { Err(NtStatus::INVALID_PARAMETER) })
}

/// `WmiTraceMessage`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn message(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    let [handle, flags, guid, number] = args.registers;
    put(cx, handle, low32(flags), DriverPtr::new(guid), low16(number), args.slot(4))
}

/// `WmiTraceMessageVa`.
///
/// # Errors
/// As [`message`].
pub(crate) fn message_va(
    cx: &mut Cx<'_>,
    handle: u64,
    flags: u32,
    guid: DriverPtr<Guid>,
    number: u16,
    list: u64,
) -> Flow<NtStatus> {
    put(cx, handle, flags, guid, number, list)
}

fn put(
    cx: &mut Cx<'_>,
    handle: u64,
    flags: u32,
    guid: DriverPtr<Guid>,
    number: u16,
    list: u64,
) -> Flow<NtStatus> {
    if !cx.with(|k| is_logger(k, handle)) {
        return Ok(NtStatus::INVALID_HANDLE);
    }
    let guid = if flags & MESSAGE_GUID != 0 { cx.read(guid)? } else { Guid::default() };
    let Some(arguments) = arguments(cx, list)? else {
        let _ = lost(cx);
        return Ok(NtStatus::NO_MEMORY);
    };
    cx.with(|k| k.etw.logged = k.etw.logged.saturating_add(1));
    cx.emit(Event::TraceMessage { guid: guid_text(&guid), number: number.into(), arguments });
    Ok(NtStatus::SUCCESS)
}

/// The arguments of a message, each in hexadecimal: pairs of a pointer and a length, up to a pointer that is null. None if they are too much.
pub(super) fn arguments(cx: &mut Cx<'_>, list: u64) -> Flow<Option<String>> {
    let (mut all, mut room): (Vec<String>, u64) = (Vec::new(), LARGEST);
    let mut at: DriverPtr<u64> = DriverPtr::new(list);
    loop {
        let pointer = cx.read(at)?;
        if pointer == 0 {
            return Ok(Some(all.join(" ")));
        }
        // One of the two pages says that a length is a ULONG.
        let length = u64::from(low32(cx.read(at.index(1))?));
        at = at.index(2);
        let Some(left) = room.checked_sub(length).filter(|_| all.len() < MOST_ARGUMENTS) else {
            return Ok(None);
        };
        room = left;
        let bytes = cx.read_bytes(pointer, length)?;
        all.push(if bytes.is_empty() { "-".to_owned() } else { hex(&bytes) });
    }
}

/// `IoWMIWriteEvent` of an event that is traced: an `EVENT_TRACE_HEADER`, which stays the driver's, and its data.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(super) fn event(cx: &mut Cx<'_>, wnode: DriverPtr<WNODE_HEADER>) -> Flow<NtStatus> {
    let handle = cx.read(wnode + WNODE_HEADER::HistoricalContext)?;
    if !cx.with(|k| is_logger(k, handle)) {
        return Ok(NtStatus::INVALID_HANDLE);
    }
    let flags = cx.read(wnode + WNODE_HEADER::Flags)?;
    let head: [u8; 8] = cx.read(wnode.cast())?;
    let [s0, s1, _, _, opcode, level, v0, _] = head;
    let size = u64::from(u16::from_le_bytes([s0, s1]));
    let Some(behind) = size.checked_sub(HEADER) else { return Ok(NtStatus::INVALID_PARAMETER) };
    let id: DriverPtr<Guid> = (wnode + WNODE_HEADER::Guid).cast();
    let id = if flags & WNODE_FLAG_USE_GUID_PTR != 0 { DriverPtr::new(cx.read(id.cast())?) } else { id };
    let guid = cx.read(id)?;
    let from = wnode.address + HEADER;
    let data = if flags & WNODE_FLAG_USE_MOF_PTR == 0 {
        cx.read_bytes(from, behind)?
    } else {
        let (mut data, mut room) = (Vec::new(), LARGEST);
        for field in 0..behind / MOF_FIELD {
            let at = from + MOF_FIELD * field;
            let pointer = cx.read(DriverPtr::new(at))?;
            let length = u64::from(cx.read::<u32>(DriverPtr::new(at + 8))?);
            let Some(left) = room.checked_sub(length) else {
                let _ = lost(cx);
                return Ok(NtStatus::BUFFER_OVERFLOW);
            };
            room = left;
            data.extend(cx.read_bytes(pointer, length)?);
        }
        data
    };
    cx.with(|k| k.etw.logged = k.etw.logged.saturating_add(1));
    cx.emit(Event::Traced {
        provider: guid_text(&guid),
        name: None,
        id: 0,
        version: v0,
        level,
        opcode,
        task: 0,
        keyword: 0,
        activity: None,
        related: None,
        data: hex(&data),
        text: None,
    });
    Ok(NtStatus::SUCCESS)
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half of such an argument is undefined")]
pub(super) const fn low32(value: u64) -> u32 {
    value as u32
}

#[allow(clippy::cast_possible_truncation, reason = "the upper bits of such an argument are undefined")]
pub(super) const fn low16(value: u64) -> u16 {
    value as u16
}
