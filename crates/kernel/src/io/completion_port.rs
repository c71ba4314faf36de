//! Completion ports: where applications receive the ends of requests on many files, by a queue of packets.
//!
//! Pages: *I/O Completion Ports*, *CreateIoCompletionPort function*, *GetQueuedCompletionStatus function*, *GetQueuedCompletionStatusEx function*, *PostQueuedCompletionStatus
//! function*, *SetFileCompletionNotificationModes function*. A port is a queue object (`ke::queue`): it is that which lets as many threads run as the port
//! is made for. A file says its port in `CompletionContext`. Every request here has an event, so its status block is written and its event is set
//! before its packet comes. Drivers have no documented way to make a port or to queue a packet; what they ask for by `Zw` routines has none.

use std::collections::BTreeSet;

use abi::{
    DriverPtr, FILE_OBJECT, FO_SKIP_COMPLETION_PORT, FO_SKIP_SET_EVENT, FO_SYNCHRONOUS_IO,
    IO_COMPLETION_CONTEXT, KQUEUE, LIST_ENTRY, NtStatus,
};
use engine::Flow;

use super::asked::{self, About};
use super::finish::is_error;
use super::system_request::Answer;
use crate::cx::Cx;
use crate::ke::queue::{self, Taken};
use crate::ke::user_apc::WaitMode;
use crate::ke::wait::Timeout;
use crate::ke::{patience, time};
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::ob::{self, Handle, Kind, Procedures};

/// `IO_COMPLETION_ALL_ACCESS`.
const ALL_ACCESS: u32 = 0x001F_0003;
const TAG: u32 = pool::tag(b"IoCo");
/// Bytes of a packet in nonpaged pool: its place in the queue, and its four words.
const PACKET: u64 = 0x30;
const WORDS: u64 = 0x10;

/// `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`: no packet for what succeeds at once.
pub const SKIP_ON_SUCCESS: u8 = 1;
/// `FILE_SKIP_SET_EVENT_ON_HANDLE`: the file's own event is left alone.
pub const SKIP_SET_EVENT: u8 = 2;

static PROCEDURES: Procedures = Procedures { close: closed, delete };

/// What a port tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// What the file was associated with.
    pub key: u64,
    /// Which request: [`super::file::Overlapped::id`].
    pub request: u64,
    /// How it ended.
    pub status: NtStatus,
    /// `IoStatus.Information`.
    pub information: u64,
}

/// `CreateIoCompletionPort` without a file: so many threads run at once that take packets, 0 being as many as there are processors. None if there
/// is no memory.
///
/// # Errors
/// As opening a handle.
pub fn create(cx: &mut Cx<'_>, threads: u32) -> Flow<Option<Handle>> {
    let size = size_of::<KQUEUE>() as u64;
    let port: DriverPtr<KQUEUE> = pool::allocate(cx, pool::Kind::NonPaged, size, TAG)?;
    if port.is_null() {
        return Ok(None);
    }
    queue::initialize(cx, port, threads)?;
    ob::object::create(cx, port.address, Kind::IoCompletion, "", &PROCEDURES)
        .expect("an object without a name cannot collide");
    let handle = handle::open(cx, port.address, ALL_ACCESS, false)?;
    ob::object::dereference(cx, port)?;
    Ok(Some(handle))
}

/// `CreateIoCompletionPort` with a file: its requests' ends come there from now on, with this key. A file has one port at the most, and must
/// be overlapped.
///
/// # Errors
/// As referring to handles.
pub fn associate(cx: &mut Cx<'_>, file: Handle, port: Handle, key: u64) -> Flow<NtStatus> {
    with_file(cx, file, |cx, file| {
        let port = match port_of(cx, port)? {
            Ok(port) => port,
            Err(status) => return Ok(status),
        };
        let synchronous = cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO != 0;
        let status = if synchronous || !cx.read(file + FILE_OBJECT::CompletionContext)?.is_null() {
            NtStatus::INVALID_PARAMETER
        } else {
            bind(cx, file, port, key)?
        };
        if !status.is_success() {
            ob::object::dereference(cx, port)?;
        }
        Ok(status)
    })
}

/// Writes port and key, whose reference the file has from now on.
fn bind(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, port: DriverPtr<KQUEUE>, key: u64) -> Flow<NtStatus> {
    let size = size_of::<IO_COMPLETION_CONTEXT>() as u64;
    let context: DriverPtr<IO_COMPLETION_CONTEXT> = pool::allocate(cx, pool::Kind::NonPaged, size, TAG)?;
    if context.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write(context + IO_COMPLETION_CONTEXT::Port, port.cast())?;
    cx.write(context + IO_COMPLETION_CONTEXT::Key, DriverPtr::new(key))?;
    cx.write(file + FILE_OBJECT::CompletionContext, context)?;
    Ok(NtStatus::SUCCESS)
}

/// `SetFileCompletionNotificationModes`; what is set stays so.
///
/// # Errors
/// As referring to a handle.
pub fn set_modes(cx: &mut Cx<'_>, file: Handle, modes: u8) -> Flow<NtStatus> {
    if modes & !(SKIP_ON_SUCCESS | SKIP_SET_EVENT) != 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    with_file(cx, file, |cx, file| {
        let mut flags = cx.read(file + FILE_OBJECT::Flags)?;
        flags |= if modes & SKIP_ON_SUCCESS != 0 { FO_SKIP_COMPLETION_PORT } else { 0 };
        flags |= if modes & SKIP_SET_EVENT != 0 { FO_SKIP_SET_EVENT } else { 0 };
        cx.write(file + FILE_OBJECT::Flags, flags)?;
        Ok(NtStatus::SUCCESS)
    })
}

fn with_file(
    cx: &mut Cx<'_>,
    file: Handle,
    what: impl FnOnce(&mut Cx<'_>, DriverPtr<FILE_OBJECT>) -> Flow<NtStatus>,
) -> Flow<NtStatus> {
    let file: DriverPtr<FILE_OBJECT> = match handle::reference(cx, file, Some(Kind::File), 0, Mode::User)? {
        Ok(entry) => DriverPtr::new(entry.object),
        Err(status) => return Ok(status),
    };
    let status = what(cx, file)?;
    ob::object::dereference(cx, file)?;
    Ok(status)
}

/// The port of a handle, with a reference.
fn port_of(cx: &mut Cx<'_>, port: Handle) -> Flow<Result<DriverPtr<KQUEUE>, NtStatus>> {
    let entry = handle::reference(cx, port, Some(Kind::IoCompletion), 0, Mode::User)?;
    Ok(entry.map(|entry| DriverPtr::new(entry.object)))
}

/// `PostQueuedCompletionStatus`.
///
/// # Errors
/// As referring to a handle; [`engine::Leave`] of what runs at once.
pub fn post(cx: &mut Cx<'_>, port: Handle, packet: Packet) -> Flow<NtStatus> {
    let port = match port_of(cx, port)? {
        Ok(port) => port,
        Err(status) => return Ok(status),
    };
    let put = put(cx, port, packet)?;
    ob::object::dereference(cx, port)?;
    Ok(if put { NtStatus::SUCCESS } else { NtStatus::INSUFFICIENT_RESOURCES })
}

/// `GetQueuedCompletionStatus`: the next packet, which is waited for: for ever, or so many nanoseconds.
///
/// # Errors
/// (inner) `TIMEOUT`; `ABANDONED_WAIT_0` if the port is closed meanwhile; `INVALID_HANDLE`. A verdict if the machine ends meanwhile.
pub fn wait(cx: &mut Cx<'_>, port: Handle, nanoseconds: Option<u64>) -> Flow<Result<Packet, NtStatus>> {
    patience::renew(cx);
    let number = asked::begin(cx, "GetQueuedCompletionStatus", |_| About::file(format!("{:#x}", port.0)));
    let packet = match port_of(cx, port)? {
        Ok(port) => {
            let packet = next(cx, port, nanoseconds, WaitMode::APPLICATION)?;
            ob::object::dereference(cx, port)?;
            packet
        }
        Err(status) => Err(status),
    };
    let answer = match packet {
        Ok(Packet { status, information, .. }) => Answer { status, information },
        Err(status) => Answer::failed(status),
    };
    asked::end(cx, number, "GetQueuedCompletionStatus", answer);
    Ok(packet)
}

/// `GetQueuedCompletionStatusEx`: the first packet, which is waited for, and those that are there besides, `most` (at least 1) in all.
///
/// # Errors
/// (inner) As [`wait`]; `USER_APC` if it is alertable and the thread gets one.
pub fn wait_for_several(
    cx: &mut Cx<'_>,
    port: Handle,
    most: u32,
    nanoseconds: Option<u64>,
    alertable: bool,
) -> Flow<Result<Vec<Packet>, NtStatus>> {
    const NAME: &str = "GetQueuedCompletionStatusEx";
    if most == 0 {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    }
    patience::renew(cx);
    let number =
        asked::begin(cx, NAME, |_| About { packets: Some(most), ..About::file(format!("{:#x}", port.0)) });
    let mode = if alertable { WaitMode::ALERTABLE_APPLICATION } else { WaitMode::APPLICATION };
    let packets = match port_of(cx, port)? {
        Ok(port) => {
            let packets = several(cx, port, most, nanoseconds, mode)?;
            ob::object::dereference(cx, port)?;
            packets
        }
        Err(status) => Err(status),
    };
    let answer = match &packets {
        Ok(packets) => Answer { status: NtStatus::SUCCESS, information: packets.len() as u64 },
        Err(status) => Answer::failed(*status),
    };
    asked::end(cx, number, NAME, answer);
    Ok(packets)
}

fn several(
    cx: &mut Cx<'_>,
    port: DriverPtr<KQUEUE>,
    most: u32,
    nanoseconds: Option<u64>,
    mode: WaitMode,
) -> Flow<Result<Vec<Packet>, NtStatus>> {
    let mut packets = Vec::new();
    let mut next_one = next(cx, port, nanoseconds, mode)?;
    loop {
        match next_one {
            Ok(packet) => packets.push(packet),
            Err(status) if packets.is_empty() => return Ok(Err(status)),
            Err(_) => return Ok(Ok(packets)),
        }
        if packets.len() as u64 == u64::from(most) {
            return Ok(Ok(packets));
        }
        next_one = next(cx, port, Some(0), WaitMode::KERNEL)?;
    }
}

fn next(
    cx: &mut Cx<'_>,
    port: DriverPtr<KQUEUE>,
    nanoseconds: Option<u64>,
    mode: WaitMode,
) -> Flow<Result<Packet, NtStatus>> {
    let timeout = match nanoseconds {
        None => Timeout::Never,
        Some(0) => Timeout::Poll,
        Some(some) => {
            let units = i64::try_from(some.div_ceil(100)).unwrap_or(i64::MAX);
            Timeout::At(cx.with(|k| time::due(k, -units)))
        }
    };
    Ok(match queue::take(cx, port, mode, timeout, "GetQueuedCompletionStatus")? {
        Taken::Entry(entry) => Ok(read(cx, entry)?),
        Taken::None(status) => Err(status),
    })
}

/// A packet becomes an entry of the queue. False if there is no memory.
fn put(cx: &mut Cx<'_>, port: DriverPtr<KQUEUE>, packet: Packet) -> Flow<bool> {
    if queue::is_run_down(cx.engine(), port).map_err(|bad| cx.bad_pointer(bad))? {
        // It cannot be taken any more.
        return Ok(true);
    }
    let entry: DriverPtr<LIST_ENTRY> = pool::allocate(cx, pool::Kind::NonPaged, PACKET, TAG)?;
    if entry.is_null() {
        return Ok(false);
    }
    let Packet { key, request, status, information } = packet;
    for (index, word) in (0..).zip([key, request, status.0.into(), information]) {
        cx.write(words(entry).index(index), word)?;
    }
    queue::insert(cx, port, entry)?;
    Ok(true)
}

fn words(entry: DriverPtr<LIST_ENTRY>) -> DriverPtr<u64> {
    DriverPtr::new(entry.address + WORDS)
}

/// What an entry says, which is freed.
fn read(cx: &mut Cx<'_>, entry: DriverPtr<LIST_ENTRY>) -> Flow<Packet> {
    let mut all = [0; 4];
    for (index, word) in (0..).zip(&mut all) {
        *word = cx.read(words(entry).index(index))?;
    }
    pool::free(cx, entry)?;
    let [key, request, status, information] = all;
    let status = NtStatus(u32::try_from(status).unwrap_or(u32::MAX));
    Ok(Packet { key, request, status, information })
}

/// A request on a file ends, and its status block and event are set; `request` is 0 for a driver's own. A request that failed at once
/// reports by its return value only.
///
/// # Errors
/// [`engine::Leave`] of what runs at once.
pub(crate) fn tell(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    request: u64,
    answer: Answer,
    was_pending: bool,
) -> Flow<()> {
    let context = cx.read(file + FILE_OBJECT::CompletionContext)?;
    if request == 0 || context.is_null() || (!was_pending && is_error(answer.status)) {
        return Ok(());
    }
    let skips = cx.read(file + FILE_OBJECT::Flags)? & FO_SKIP_COMPLETION_PORT != 0;
    if skips && !was_pending && answer.status.is_success() {
        return Ok(());
    }
    let port = cx.read(context + IO_COMPLETION_CONTEXT::Port)?.cast::<KQUEUE>();
    let key = cx.read(context + IO_COMPLETION_CONTEXT::Key)?.address;
    let packet = Packet { key, request, status: answer.status, information: answer.information };
    // Without memory the packet is lost. (On Windows the request's own resources are used.)
    put(cx, port, packet).map(|_| ())
}

/// A file goes: so does its reference to a port.
///
/// # Errors
/// As deleting the port.
pub(super) fn forget(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<()> {
    let context = cx.read(file + FILE_OBJECT::CompletionContext)?;
    if context.is_null() {
        return Ok(());
    }
    let port = cx.read(context + IO_COMPLETION_CONTEXT::Port)?;
    pool::free(cx, context)?;
    ob::object::dereference(cx, port).map(|_| ())
}

/// When its last handle is closed a port takes nothing any more: waits for a packet end, and its packets go with it.
fn closed(cx: &mut Cx<'_>, port: u64, _process: u64, _of_process: u32, of_all: u32) -> Flow<()> {
    if of_all == 0 { empty(cx, DriverPtr::new(port)) } else { Ok(()) }
}

fn delete(cx: &mut Cx<'_>, port: u64) -> Flow<()> {
    empty(cx, DriverPtr::new(port))?;
    pool::free(cx, DriverPtr::<KQUEUE>::new(port))
}

fn empty(cx: &mut Cx<'_>, port: DriverPtr<KQUEUE>) -> Flow<()> {
    let first = queue::run_down(cx, port)?;
    let (mut all, mut next) = (BTreeSet::new(), first);
    while !next.is_null() && all.insert(next.address) {
        next = cx.read(next + LIST_ENTRY::Flink)?;
    }
    all.into_iter().try_for_each(|entry| pool::free(cx, DriverPtr::<LIST_ENTRY>::new(entry)))
}
