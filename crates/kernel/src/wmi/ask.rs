//! A WMI request: sent to the top of the provider's stack, waited for, judged.
//!
//! Pages: *WMI Minor IRPs*, *Handling WMI Requests*, *IRP_MN_QUERY_ALL_DATA* ("at IRQL = PASSIVE_LEVEL in an arbitrary thread context"), *WNODE_TOO_SMALL
//! structure* ("WMI can then increase the buffer to the recommended size and issue the request again"). How large the first buffer is no page says: it
//! is half a page, or, as choices, just room for a `WNODE_TOO_SMALL`, or for a few words of data behind a header.

use std::cell::Cell;

use abi::{
    DEVICE_OBJECT, DriverPtr, GUID, IRP_MJ_SYSTEM_CONTROL, IRP_MN_CHANGE_SINGLE_INSTANCE,
    IRP_MN_CHANGE_SINGLE_ITEM, NtStatus, WNODE_TOO_SMALL,
};
use engine::Flow;

use super::judge;
use super::node::Node;
use super::provider::answered;
use super::{Guid, State};
use crate::cx::{Cx, Kernel};
use crate::io::system_request::{Request, send_noting};
use crate::mm::pool;
use crate::{ke, ob};

/// The first buffer that a provider gets.
const FIRST_ROOM: usize = 0x800;
/// Behind the room for a `WNODE_TOO_SMALL`: for the rest of a header, and a little data.
const FEW_WORDS: usize = 64;
/// The largest.
const MOST_ROOM: usize = 16 << 20;
/// How often a provider may ask for a larger buffer.
const MOST_TRIES: usize = 4;

/// A request that is under way: what it has passed.
pub(super) struct Passing {
    serial: u64,
    irp: u64,
    devices: Vec<u64>,
}

/// What a request is about, in `Parameters.WMI.DataPath`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    /// A block.
    Block(Guid),
    /// `WMIREGISTER` or `WMIUPDATE`.
    Registration(u64),
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: NtStatus,
    /// What the provider says that it has written, of the buffer that it had.
    pub(super) bytes: Vec<u8>,
    /// The first four bytes of the buffer.
    pub(super) first: u32,
}

impl Answer {
    fn failed(status: NtStatus) -> Self {
        Self { status, bytes: Vec::new(), first: 0 }
    }
}

/// An IRP_MJ_SYSTEM_CONTROL has come to a device.
pub(crate) fn passes(k: &mut Kernel, irp: u64, device: u64) {
    if let Some(passing) = k.wmi.passing.iter_mut().rev().find(|passing| passing.irp == irp) {
        passing.devices.push(device);
    }
}

impl State {
    fn begin(&mut self, irp: u64) -> u64 {
        self.last_request += 1;
        self.passing.push(Passing { serial: self.last_request, irp, devices: Vec::new() });
        self.last_request
    }

    fn end(&mut self, serial: u64) -> Vec<u64> {
        let place = self.passing.iter().position(|passing| passing.serial == serial);
        place.map_or(Vec::new(), |place| self.passing.remove(place).devices)
    }
}

/// Sends `minor` to a provider, in a buffer of `room` bytes that begins with `input`. At PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver of its stack.
pub(super) fn request(
    cx: &mut Cx<'_>,
    id: u32,
    minor: u8,
    path: Path,
    input: &[u8],
    room: usize,
) -> Flow<Answer> {
    let strand = cx.with(|k| k.ke.processor().thread);
    let device = cx.with(|k| {
        let provider = k.wmi.provider(id).filter(|provider| !provider.is_blocked)?;
        provider.asking.push(strand);
        Some(provider.device)
    });
    let Some(device) = device else { return Ok(Answer::failed(NtStatus::WMI_GUID_DISCONNECTED)) };
    let device: DriverPtr<DEVICE_OBJECT> = DriverPtr::new(device);
    ob::object::reference(cx, device)?;
    let answer = exchange(cx, device, minor, path, input, room.max(input.len()))?;
    ob::object::dereference(cx, device)?;
    cx.with(|k| answered(k, id));
    ke::irql::settle(cx)?;
    Ok(answer)
}

/// Sends `minor` about a block to a device that is not registered.
///
/// # Errors
/// As [`request`].
pub(super) fn of_device(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    guid: Guid,
    input: &[u8],
) -> Flow<NtStatus> {
    Ok(exchange(cx, device, minor, Path::Block(guid), input, FIRST_ROOM)?.status)
}

fn exchange(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    minor: u8,
    path: Path,
    input: &[u8],
    room: usize,
) -> Flow<Answer> {
    let tag = pool::tag(b"Wmip");
    let buffer: DriverPtr<u32> = pool::allocate_packet(cx, room as u64, tag)?;
    let guid: DriverPtr<GUID> = pool::allocate(cx, pool::Kind::NonPaged, size_of::<GUID>() as u64, tag)?;
    if buffer.is_null() || guid.is_null() {
        for block in [buffer.address, guid.address].into_iter().filter(|block| *block != 0) {
            pool::free(cx, DriverPtr::<()>::new(block))?;
        }
        return Ok(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES));
    }
    // Behind it are zeroes, as in all that is allocated so.
    cx.write_bytes(buffer.address, input)?;
    let data_path = match path {
        Path::Block(block) => {
            cx.write_bytes(guid.address, &block)?;
            guid.address
        }
        Path::Registration(kind) => kind,
    };
    let parameters = [device.address, data_path, room as u64, buffer.address];
    let plain = Request::new(IRP_MJ_SYSTEM_CONTROL, minor);
    let serial = Cell::new(0);
    let sent = Request { parameters, status: NtStatus::NOT_SUPPORTED, ..plain };
    let answer = send_noting(cx, device, &sent, |k, irp| serial.set(k.wmi.begin(irp)))?;
    let passed = cx.with(|k| k.wmi.end(serial.get()));
    judge::way(cx, device, minor, &passed)?;
    judge::amount(cx, device, minor, answer, room)?;
    let first = cx.read(buffer)?;
    let came = if answer.status.is_success() { answer.information } else { 0 };
    let bytes = cx.read_bytes(buffer.address, came)?;
    pool::free(cx, guid)?;
    pool::free(cx, buffer)?;
    Ok(Answer { status: answer.status, bytes, first })
}

/// As [`request`] about a block, with a buffer that has at least `room` bytes and is made larger where the provider asks for that; for a change, with as many as
/// say what is changed.
///
/// # Errors
/// As [`request`].
pub(super) fn block(
    cx: &mut Cx<'_>,
    id: u32,
    minor: u8,
    guid: Guid,
    input: &[u8],
    room: usize,
) -> Flow<Answer> {
    let least = input.len().max(size_of::<WNODE_TOO_SMALL>());
    let small = if room == 0 { cx.choose("wmi.small_buffer", 3) } else { 0 };
    // A change has no answer.
    let is_change = matches!(minor, IRP_MN_CHANGE_SINGLE_INSTANCE | IRP_MN_CHANGE_SINGLE_ITEM);
    let mut room = match small {
        _ if is_change => least,
        0 => room.max(least).max(FIRST_ROOM),
        1 => least,
        _ => least + FEW_WORDS,
    };
    for _ in 0..MOST_TRIES {
        // The provider's own structure begins with how large the buffer is.
        let mut node = input.to_vec();
        let size = u32::try_from(room).unwrap_or(u32::MAX);
        if let Some(first) = node.get_mut(..4) {
            first.copy_from_slice(&size.to_le_bytes());
        }
        let answer = request(cx, id, minor, Path::Block(guid), &node, room)?;
        let needed = if answer.status.is_success() { Node(&answer.bytes).size_needed() } else { None };
        match needed.map(|needed| needed as usize) {
            None => return Ok(answer),
            Some(needed) if needed > room && needed <= MOST_ROOM => room = needed,
            Some(_) => break,
        }
    }
    Ok(Answer::failed(NtStatus::BUFFER_TOO_SMALL))
}
