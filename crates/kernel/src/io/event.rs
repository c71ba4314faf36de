//! Event objects with handles or names, shared by applications and drivers.
//!
//! Pages: *IoCreateNotificationEvent function*, *IoCreateSynchronizationEvent function*, *ZwCreateEvent function*. What
//! an event does is `ke::event`.

use abi::{DriverPtr, KEVENT, NtStatus, OBJECT_ATTRIBUTES, UNICODE_STRING};
use engine::Flow;

use crate::cx::Cx;
use crate::ke;
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::ob::names::Target;
use crate::ob::{self, Handle, Kind, Procedures};

/// Whether waiting resets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// It does not: `NotificationEvent`.
    Notification = 0,
    /// It does: `SynchronizationEvent`.
    Synchronization = 1,
}

/// `EVENT_ALL_ACCESS`.
const ALL_ACCESS: u32 = 0x001F_0003;

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete: Procedures::free };

fn make(cx: &mut Cx<'_>, name: &str, kind: Type, signaled: bool) -> Flow<Option<DriverPtr<KEVENT>>> {
    let size = size_of::<KEVENT>() as u64;
    let event: DriverPtr<KEVENT> = pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"Even"))?;
    if event.is_null() {
        return Ok(None);
    }
    ke::event::initialize(cx, event, kind as u32, signaled)?;
    if ob::object::create(cx, event.address, Kind::Event, name, &PROCEDURES).is_err() {
        pool::free(cx, event)?;
        return Ok(None);
    }
    Ok(Some(event))
}

/// `CreateEvent`: an event without a name, with a handle of the running thread's process.
///
/// # Errors
/// As opening a handle; none inside if there is no memory.
pub fn create(cx: &mut Cx<'_>, kind: Type, signaled: bool) -> Flow<Option<Handle>> {
    let Some(event) = make(cx, "", kind, signaled)? else {
        return Ok(None);
    };
    let handle = handle::open(cx, event.address, ALL_ACCESS, false)?;
    ob::object::dereference(cx, event)?;
    Ok(Some(handle))
}

/// `WaitForSingleObject` on an event's handle, for ever, in this way.
///
/// # Errors
/// A verdict if the machine ends meanwhile.
pub(crate) fn wait_by(
    cx: &mut Cx<'_>,
    event: Handle,
    wait: impl FnOnce(&mut Cx<'_>, DriverPtr<KEVENT>) -> Flow<NtStatus>,
) -> Flow<NtStatus> {
    match handle::reference(cx, event, Some(Kind::Event), 0, Mode::User)? {
        Ok(entry) => {
            let object = DriverPtr::<KEVENT>::new(entry.object);
            let status = wait(cx, object)?;
            ob::object::dereference(cx, object)?;
            Ok(status)
        }
        Err(status) => Ok(status),
    }
}

/// `ZwCreateEvent`: `kind` 0 is a notification event. An event of that name is opened if `OBJ_OPENIF` allows it.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    kind: u32,
    signaled: bool,
) -> Flow<NtStatus> {
    let kind = match kind {
        0 => Type::Notification,
        1 => Type::Synchronization,
        _ => return Ok(NtStatus::INVALID_PARAMETER),
    };
    let named = match ob::attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    let kernel = named.kernel_handle();
    if let Some(status) = ob::attributes::open_existing(cx, &named, Kind::Event, access, handle)? {
        return Ok(status);
    }
    let Some(event) = make(cx, &named.name, kind, signaled)? else {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    };
    handle::open_made(cx, event, access, kernel, handle)
}

/// `ZwOpenEvent`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    ob::attributes::open_named(cx, handle, access, attributes, Kind::Event)
}

/// `ZwSetEvent`: signals; the previous state goes to `previous`, if that is not null.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_set(cx: &mut Cx<'_>, event: u64, previous: DriverPtr<i32>) -> Flow<NtStatus> {
    let entry = match handle::reference(cx, Handle(event), Some(Kind::Event), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let object = DriverPtr::<KEVENT>::new(entry.object);
    let before = ke::event::set(cx, object, 0, false)?;
    ob::object::dereference(cx, object)?;
    if !previous.is_null() {
        cx.write(previous, before)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `IoCreateNotificationEvent`: the named event, made signaled if it is new, with a kernel handle; null on failure.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn create_notification(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    handle: DriverPtr<u64>,
) -> Flow<DriverPtr<KEVENT>> {
    create_named(cx, name, handle, Type::Notification)
}

/// `IoCreateSynchronizationEvent`.
///
/// # Errors
/// As [`create_notification`].
pub(crate) fn create_synchronization(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    handle: DriverPtr<u64>,
) -> Flow<DriverPtr<KEVENT>> {
    create_named(cx, name, handle, Type::Synchronization)
}

fn create_named(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    handle: DriverPtr<u64>,
    kind: Type,
) -> Flow<DriverPtr<KEVENT>> {
    let name = ob::string::read(cx, name)?;
    let known = cx.with(|k| k.ob.names.resolve(&name));
    let event = match known.map(|found| found.target) {
        Ok(Target::Object(body)) if ob::object::kind(cx, body) == Some(Kind::Event) => {
            DriverPtr::<KEVENT>::new(body)
        }
        Ok(_) => return Ok(DriverPtr::NULL),
        Err(_) => match make(cx, &name, kind, true)? {
            Some(event) => event,
            None => return Ok(DriverPtr::NULL),
        },
    };
    let opened = handle::open(cx, event.address, ALL_ACCESS, true)?;
    let fresh = cx.with(|k| k.ob.objects.get(event.address).is_some_and(|object| object.handles == 1));
    if fresh {
        // The handle keeps it; the reference it was made with goes.
        ob::object::dereference(cx, event)?;
    }
    cx.write(handle, opened.0)?;
    Ok(event)
}
