//! Data block objects: drivers that ask other drivers' blocks, and listen to their events.
//!
//! Pages: *IoWMIOpenBlock function*, *IoWMIQueryAllData function*, *IoWMIQuerySingleInstance function*, *IoWMISetSingleInstance function*, *IoWMISetSingleItem
//! function*, *IoWMIExecuteMethod function*, *IoWMISetNotificationCallback function*, and the forms for several. A block of all data with static names gets these
//! behind what its provider has written. An object can be opened before anyone offers its block, and goes with its last reference.

use abi::{Code, DriverPtr, GUID, NtStatus, UNICODE_STRING, WNODE_ALL_DATA, WNODE_HEADER};
use engine::Flow;

use super::Guid;
use super::consumer::{self, Which};
use super::node::{ALIGNMENT, Instance, at};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::mm::pool;
use crate::ob::{self, Kind, Procedures};
use crate::verdict::Verdict;
use crate::{ke, ldr};

/// `WMIGUID_QUERY`, `WMIGUID_SET`, `WMIGUID_NOTIFICATION`, `WMIGUID_EXECUTE`.
const QUERY: u32 = 0x01;
const SET: u32 = 0x02;
const NOTIFICATION: u32 = 0x04;
const EXECUTE: u32 = 0x10;

const TAG: u32 = pool::tag(b"WmiG");
/// Bytes of an object; drivers see nothing of it.
const SIZE: u64 = 0x30;
/// More objects in one question than anyone asks.
const MOST: u32 = 0x400;

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete: deleted };

/// A data block object.
pub(super) struct Opened {
    guid: Guid,
    access: u32,
    callback: Option<(DriverPtr<Code>, u64)>,
    /// The image that has opened it, and where.
    owner: Option<u64>,
    caller: u64,
}

/// Does `work` at PASSIVE_LEVEL, where requests are sent.
fn at_passive<R: 'static>(cx: &mut Cx<'_>, work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static) -> Flow<R> {
    if ke::irql::current(cx) == 0 { work(cx) } else { ke::thread::wait_for_system(cx, "WMI", work) }
}

/// `IoWMIOpenBlock`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn open(
    cx: &mut Cx<'_>,
    guid: DriverPtr<GUID>,
    access: u32,
    object: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let guid: Guid = cx.read(guid.cast())?;
    let (owner, caller) = pool::caller(cx);
    let body: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, SIZE, TAG)?;
    if body.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    ob::object::create(cx, body.address, Kind::WmiGuid, "", &PROCEDURES)
        .expect("it has no name that could clash");
    cx.with(|k| {
        k.wmi.opened.insert(body.address, Opened { guid, access, callback: None, owner, caller });
    });
    at_passive(cx, move |cx| consumer::begin_use(cx, guid))?;
    cx.write(object, body.address)?;
    Ok(NtStatus::SUCCESS)
}

/// The last reference is gone.
fn deleted(cx: &mut Cx<'_>, body: u64) -> Flow<()> {
    if let Some(opened) = cx.with(|k| k.wmi.opened.remove(&body)) {
        if opened.callback.is_some() {
            let _ = consumer::leave(cx, opened.guid)?;
        }
        consumer::end_use(cx, opened.guid)?;
    }
    pool::free(cx, DriverPtr::<()>::new(body))
}

/// The block of an object that was opened for `access`.
fn opened_for(cx: &mut Cx<'_>, ddi: &str, object: u64, access: u32) -> Flow<Result<Guid, NtStatus>> {
    match cx.with(|k| k.wmi.opened.get(&object).map(|opened| (opened.guid, opened.access))) {
        Some((guid, granted)) if granted & access == access => Ok(Ok(guid)),
        Some(_) => Ok(Err(NtStatus::ACCESS_DENIED)),
        None => {
            let message = format!(
                "{ddi} was given {object:#x}, which is no data block object (any more): IoWMIOpenBlock returns one"
            );
            Err(cx.stop(Verdict::error("not-a-wmi-block", message)))
        }
    }
}

/// `IoWMIQueryAllData`.
///
/// # Errors
/// A verdict on a bad object or pointer, or on a driver that is asked.
pub(crate) fn query_all(
    cx: &mut Cx<'_>,
    object: u64,
    size: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    match opened_for(cx, "IoWMIQueryAllData", object, QUERY)? {
        Ok(guid) => answer_all(cx, vec![guid], size, buffer),
        Err(status) => Ok(status),
    }
}

/// `IoWMIQueryAllDataMultiple`: blocks of several objects, one behind the other.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn query_all_multiple(
    cx: &mut Cx<'_>,
    objects: DriverPtr<u64>,
    count: u32,
    size: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    match guids(cx, "IoWMIQueryAllDataMultiple", objects, count)? {
        Ok(guids) => answer_all(cx, guids, size, buffer),
        Err(status) => Ok(status),
    }
}

fn guids(
    cx: &mut Cx<'_>,
    ddi: &str,
    objects: DriverPtr<u64>,
    count: u32,
) -> Flow<Result<Vec<Guid>, NtStatus>> {
    let mut guids = Vec::new();
    for index in 0..count.min(MOST) {
        let object = cx.read(objects.index(index.into()))?;
        match opened_for(cx, ddi, object, QUERY)? {
            Ok(guid) => guids.push(guid),
            Err(status) => return Ok(Err(status)),
        }
    }
    Ok(if count > MOST { Err(NtStatus::INVALID_PARAMETER) } else { Ok(guids) })
}

fn answer_all(
    cx: &mut Cx<'_>,
    guids: Vec<Guid>,
    size: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    let nodes = at_passive(cx, move |cx| {
        let mut nodes = Vec::new();
        for guid in guids {
            for (id, block) in cx.with(|k| k.wmi.with_data(&guid)) {
                if let Ok((bytes, instances)) = consumer::all_data(cx, id, &block)? {
                    nodes.push(with_names(bytes, &instances));
                }
            }
        }
        Ok(nodes)
    })?;
    if nodes.is_empty() {
        return Ok(NtStatus::WMI_GUID_NOT_FOUND);
    }
    give(cx, &chain(nodes), size, buffer)
}

/// A `WNODE_ALL_DATA` with the names of its instances, where its provider has not said them.
fn with_names(mut bytes: Vec<u8>, instances: &[Instance]) -> Vec<u8> {
    let offsets = at(WNODE_ALL_DATA::OffsetInstanceNameOffsets);
    let has_names = bytes.get(offsets..offsets + 4).is_some_and(|offset| offset != [0; 4]);
    if has_names || instances.iter().any(|instance| instance.name.is_none()) {
        return bytes;
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let table = bytes.len();
    bytes[offsets..offsets + 4].copy_from_slice(&word(table));
    bytes.resize(table + 4 * instances.len(), 0);
    for (index, instance) in instances.iter().enumerate() {
        let place = table + 4 * index;
        let name: Vec<u8> =
            instance.name.iter().flat_map(|name| name.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let here = word(bytes.len());
        bytes[place..place + 4].copy_from_slice(&here);
        bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(name);
    }
    let whole = word(bytes.len());
    bytes[..4].copy_from_slice(&whole);
    bytes
}

/// Blocks one behind the other: each says where the next begins.
fn chain(nodes: Vec<Vec<u8>>) -> Vec<u8> {
    let (last, mut all) = (nodes.len() - 1, Vec::new());
    for (index, mut node) in nodes.into_iter().enumerate() {
        if index < last {
            node.resize(node.len().next_multiple_of(ALIGNMENT), 0);
        }
        let place = at(WNODE_HEADER::Linkage);
        let next = if index < last { u32::try_from(node.len()).unwrap_or(u32::MAX) } else { 0 };
        if let Some(linkage) = node.get_mut(place..place + 4) {
            linkage.copy_from_slice(&next.to_le_bytes());
        }
        all.extend(node);
    }
    all
}

fn give(cx: &mut Cx<'_>, bytes: &[u8], size: DriverPtr<u32>, buffer: DriverPtr<()>) -> Flow<NtStatus> {
    let room = cx.read(size)?;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    cx.write(size, length)?;
    if length > room {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(buffer.address, bytes)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoWMIQuerySingleInstance`.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn query_one(
    cx: &mut Cx<'_>,
    object: u64,
    name: DriverPtr<UNICODE_STRING>,
    size: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    let name = ob::string::read(cx, name)?;
    match opened_for(cx, "IoWMIQuerySingleInstance", object, QUERY)? {
        Ok(guid) => answer_ones(cx, vec![(guid, name)], size, buffer),
        Err(status) => Ok(status),
    }
}

/// `IoWMIQuerySingleInstanceMultiple`: one instance of each of several objects.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn query_one_multiple(
    cx: &mut Cx<'_>,
    objects: DriverPtr<u64>,
    names: DriverPtr<UNICODE_STRING>,
    count: u32,
    size: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    let guids = match guids(cx, "IoWMIQuerySingleInstanceMultiple", objects, count)? {
        Ok(guids) => guids,
        Err(status) => return Ok(status),
    };
    let mut wanted = Vec::new();
    for (index, guid) in (0..).zip(guids) {
        wanted.push((guid, ob::string::read(cx, names.index(index))?));
    }
    answer_ones(cx, wanted, size, buffer)
}

fn answer_ones(
    cx: &mut Cx<'_>,
    wanted: Vec<(Guid, String)>,
    size: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    let nodes = at_passive(cx, move |cx| {
        let (mut nodes, mut status) = (Vec::new(), NtStatus::WMI_GUID_NOT_FOUND);
        for (guid, name) in wanted {
            match consumer::one_instance(cx, guid, &Which::Name(name))? {
                Ok((whole, _)) => nodes.push(whole),
                Err(why) => status = why,
            }
        }
        Ok(if nodes.is_empty() { Err(status) } else { Ok(nodes) })
    })?;
    match nodes {
        Ok(nodes) => give(cx, &chain(nodes), size, buffer),
        Err(status) => Ok(status),
    }
}

/// `IoWMISetSingleInstance`.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn set_one(
    cx: &mut Cx<'_>,
    object: u64,
    name: DriverPtr<UNICODE_STRING>,
    _version: u32,
    size: u32,
    value: DriverPtr<()>,
) -> Flow<NtStatus> {
    set(cx, "IoWMISetSingleInstance", object, name, None, (size, value))
}

/// `IoWMISetSingleItem`.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn set_item(
    cx: &mut Cx<'_>,
    object: u64,
    name: DriverPtr<UNICODE_STRING>,
    item: u32,
    _version: u32,
    size: u32,
    value: DriverPtr<()>,
) -> Flow<NtStatus> {
    set(cx, "IoWMISetSingleItem", object, name, Some(item), (size, value))
}

fn set(
    cx: &mut Cx<'_>,
    ddi: &str,
    object: u64,
    name: DriverPtr<UNICODE_STRING>,
    item: Option<u32>,
    (size, value): (u32, DriverPtr<()>),
) -> Flow<NtStatus> {
    let guid = match opened_for(cx, ddi, object, SET)? {
        Ok(guid) => guid,
        Err(status) => return Ok(status),
    };
    let which = Which::Name(ob::string::read(cx, name)?);
    let data = cx.read_bytes(value.address, size.into())?;
    at_passive(cx, move |cx| consumer::change(cx, guid, &which, item, &data))
}

/// `IoWMIExecuteMethod`.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn execute(
    cx: &mut Cx<'_>,
    object: u64,
    name: DriverPtr<UNICODE_STRING>,
    method: u32,
    input: u32,
    output: DriverPtr<u32>,
    buffer: DriverPtr<()>,
) -> Flow<NtStatus> {
    let guid = match opened_for(cx, "IoWMIExecuteMethod", object, EXECUTE)? {
        Ok(guid) => guid,
        Err(status) => return Ok(status),
    };
    let which = Which::Name(ob::string::read(cx, name)?);
    let data = cx.read_bytes(buffer.address, input.into())?;
    let room = cx.read(output)?;
    let out = at_passive(cx, move |cx| consumer::execute(cx, guid, &which, method, &data, room as usize))?;
    match out {
        Ok(instance) => give(cx, &instance.data, output, buffer),
        Err(status) => Ok(status),
    }
}

/// `IoWMISetNotificationCallback`.
///
/// # Errors
/// As [`query_all`].
pub(crate) fn set_callback(
    cx: &mut Cx<'_>,
    object: u64,
    callback: DriverPtr<Code>,
    context: u64,
) -> Flow<NtStatus> {
    let guid = match opened_for(cx, "IoWMISetNotificationCallback", object, NOTIFICATION)? {
        Ok(guid) => guid,
        Err(status) => return Ok(status),
    };
    let had_one = cx.with(|k| {
        let opened = k.wmi.opened.get_mut(&object)?;
        opened.callback.replace((callback, context))
    });
    if had_one.is_some() {
        return Ok(NtStatus::SUCCESS);
    }
    at_passive(cx, move |cx| consumer::listen(cx, guid)).map(|_| NtStatus::SUCCESS)
}

/// Calls the callbacks of all objects of a block for an event.
///
/// # Errors
/// What a callback comes to.
pub(super) fn tell(cx: &mut Cx<'_>, guid: Guid, bytes: &[u8]) -> Flow<()> {
    let objects: Vec<u64> = cx.with(|k| {
        let own = k.wmi.opened.iter().filter(|(_, opened)| opened.guid == guid && opened.callback.is_some());
        own.map(|(object, _)| *object).collect()
    });
    for object in objects {
        let callback = cx.with(|k| k.wmi.opened.get(&object).and_then(|opened| opened.callback));
        let Some((routine, context)) = callback else { continue };
        let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, bytes.len() as u64, TAG)?;
        if block.is_null() {
            return Ok(());
        }
        cx.write_bytes(block.address, bytes)?;
        ob::object::reference(cx, DriverPtr::<()>::new(object))?;
        call_routine(cx, Role::WmiNotificationCallback, routine, object, &[block.address, context])?;
        pool::free(cx, block)?;
        ob::object::dereference(cx, DriverPtr::<()>::new(object))?;
    }
    Ok(())
}

/// The block of an object, whatever it was opened for.
///
/// # Errors
/// A verdict if it is none.
pub(super) fn guid_of(cx: &mut Cx<'_>, ddi: &str, object: u64) -> Flow<Guid> {
    Ok(opened_for(cx, ddi, object, 0)?.unwrap_or_default())
}

/// The objects that the image at `driver` has opened and left so, each with its opener.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(u64, String)> {
    let left: Vec<(u64, u64)> = cx.with(|k| {
        let own = k.wmi.opened.iter().filter(|(_, opened)| opened.owner == Some(driver));
        own.map(|(object, opened)| (*object, opened.caller)).collect()
    });
    left.into_iter().map(|(object, caller)| (object, ldr::symbols::describe(cx, caller))).collect()
}

/// The routines that are called for events.
pub(crate) fn callbacks(k: &crate::Kernel) -> impl Iterator<Item = DriverPtr<Code>> {
    k.wmi.opened.values().filter_map(|opened| opened.callback.map(|(routine, _)| routine))
}
