//! Events that providers send: to the callbacks of drivers, and to the application that listens.
//!
//! Pages: *IoWMIWriteEvent function*, *WNODE_EVENT_ITEM structure*, *WNODE_EVENT_REFERENCE structure*, *WmiFireEvent function*, *Sending an Event with
//! WmiFireEvent*. The driver's block is copied and freed at once, and delivered from a thread of the system's. How large an event may be is a value of the registry
//! that no page gives; here it is 64 KiB. An event for a trace session is `trace`'s.

use abi::{
    DEVICE_OBJECT, DriverPtr, GUID, NtStatus, WNODE_EVENT_REFERENCE, WNODE_FLAG_EVENT_ITEM,
    WNODE_FLAG_EVENT_REFERENCE, WNODE_FLAG_SINGLE_INSTANCE, WNODE_FLAG_STATIC_INSTANCE_NAMES,
    WNODE_FLAG_TRACED_GUID, WNODE_HEADER,
};
use engine::Flow;

use super::consumer::{Outcome, Which, one_instance, time};
use super::node::{self, Form, Node, Target, at};
use super::{Guid, block, shown, trace};
use crate::cx::Cx;
use crate::ke::{self, wait};
use crate::mm::pool;
use crate::verdict::Verdict;

/// The largest event.
const LARGEST: u32 = 0x1_0000;
/// Events that wait for the application to take them.
const MOST_WAITING: usize = 1024;
/// How long an application waits for an event, and how often it looks, in nanoseconds.
const PATIENCE: u64 = 10_000_000_000;
const LOOK: u64 = 1_000_000;

/// `IoWMIWriteEvent`: with a success the block is the system's.
///
/// # Errors
/// A verdict if the block is none, or the level too high for it.
pub(crate) fn write(cx: &mut Cx<'_>, wnode: DriverPtr<WNODE_HEADER>) -> Flow<NtStatus> {
    let flags = cx.read(wnode + WNODE_HEADER::Flags)?;
    if flags & WNODE_FLAG_TRACED_GUID != 0 {
        return trace::event(cx, wnode);
    }
    let irql = ke::irql::current(cx);
    if irql > 1 {
        let message = format!(
            "IoWMIWriteEvent was called at IRQL {irql} for an event that is not traced; it may be called at IRQL 1 at most"
        );
        return Err(cx.stop(Verdict::error("irql-too-high", message)));
    }
    let size = cx.read(wnode + WNODE_HEADER::BufferSize)?;
    if size > LARGEST {
        return Ok(NtStatus::BUFFER_OVERFLOW);
    }
    let least = u32::try_from(size_of::<WNODE_HEADER>()).unwrap_or(0);
    if size < least || flags & (WNODE_FLAG_EVENT_ITEM | WNODE_FLAG_EVENT_REFERENCE) == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let bytes = cx.read_bytes(wnode.address, size.into())?;
    pool::free(cx, wnode)?;
    send(cx, bytes)
}

/// Delivers an event, on a thread of the system's.
fn send(cx: &mut Cx<'_>, bytes: Vec<u8>) -> Flow<NtStatus> {
    let work = Box::new(move |cx: &mut Cx<'_>| deliver(cx, &bytes));
    ke::thread::spawn(cx, "WMI", work).map(|_| NtStatus::SUCCESS)
}

fn deliver(cx: &mut Cx<'_>, bytes: &[u8]) -> Flow<()> {
    let node = Node(bytes);
    let flags = node.u32(at(WNODE_HEADER::Flags)).unwrap_or(0);
    let guid = guid_at(bytes, at(WNODE_HEADER::Guid));
    if flags & WNODE_FLAG_EVENT_REFERENCE == 0 {
        return tell(cx, guid, bytes);
    }
    // The event is too large to be sent: it is asked for.
    let target = guid_at(bytes, at(WNODE_EVENT_REFERENCE::TargetGuid));
    let place = at(WNODE_EVENT_REFERENCE::TargetInstanceIndex);
    let which = if flags & WNODE_FLAG_STATIC_INSTANCE_NAMES != 0 {
        Which::Place(node.u32(place).unwrap_or(0))
    } else {
        Which::Name(node.text(u32::try_from(place).unwrap_or(0)).unwrap_or_default())
    };
    match one_instance(cx, target, &which)? {
        Ok((whole, _)) => tell(cx, guid, &whole),
        Err(_) => Ok(()),
    }
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut guid = [0; 16];
    if let Some(found) = bytes.get(at..at + 16) {
        guid.copy_from_slice(found);
    }
    guid
}

fn tell(cx: &mut Cx<'_>, guid: Guid, bytes: &[u8]) -> Flow<()> {
    let is_heard = cx.with(|k| {
        let is_watched = k.wmi.watched.contains(&guid);
        if is_watched && k.wmi.events.len() < MOST_WAITING {
            k.wmi.events.push_back((guid, bytes.to_vec()));
        }
        is_watched
    });
    shown::event(cx, &guid, bytes, is_heard);
    block::tell(cx, guid, bytes)
}

/// The first event of a block that the application has not taken, for which it waits; its data are those of its instance.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub(super) fn await_one(cx: &mut Cx<'_>, guid: Guid) -> Flow<Outcome> {
    for _ in 0..PATIENCE / LOOK {
        let event = cx.with(|k| {
            let place = k.wmi.events.iter().position(|(of, _)| *of == guid)?;
            k.wmi.events.remove(place).map(|(_, bytes)| bytes)
        });
        if let Some(bytes) = event {
            return Ok(match Node(&bytes).single_instance() {
                Ok(data) => Outcome { status: NtStatus::SUCCESS, data },
                Err(_) => Outcome { status: NtStatus::BUFFER_TOO_SMALL, data: bytes },
            });
        }
        wait::sleep(cx, LOOK)?;
    }
    Ok(Outcome { status: NtStatus::NO_MORE_ENTRIES, data: Vec::new() })
}

/// `WmiFireEvent`: an event of one instance with a static name; the data's block is freed.
///
/// # Errors
/// A verdict if a pointer is bad, or the data are no block of pool.
pub(crate) fn fire(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    guid: DriverPtr<GUID>,
    index: u32,
    size: u32,
    data: DriverPtr<()>,
) -> Flow<NtStatus> {
    let guid: Guid = cx.read(guid.cast())?;
    let bytes = if data.is_null() { Vec::new() } else { cx.read_bytes(data.address, size.into())? };
    if !data.is_null() {
        pool::free(cx, data)?;
    }
    let (id, name) = cx.with(|k| {
        let Some(provider) = k.wmi.of_device(device.address) else { return (0, String::new()) };
        (provider.id, provider.name_of(&guid, index).unwrap_or_default())
    });
    let time = time(cx);
    let target = Target { index: Some(index), name };
    let mut event = node::single(&guid, id, time, Form::Instance, &target, &bytes);
    let flags = WNODE_FLAG_SINGLE_INSTANCE | WNODE_FLAG_EVENT_ITEM | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    if length > LARGEST {
        return Ok(NtStatus::BUFFER_OVERFLOW);
    }
    event[..4].copy_from_slice(&length.to_le_bytes());
    let place = at(WNODE_HEADER::Flags);
    event[place..place + 4].copy_from_slice(&flags.to_le_bytes());
    send(cx, event)
}
