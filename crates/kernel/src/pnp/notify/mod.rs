//! Plug and Play notifications to drivers: of device interfaces that come and go, and of a device that is to be removed.
//!
//! Pages: *IoRegisterPlugPlayNotification function*, *IoUnregisterPlugPlayNotification function*, *IoUnregisterPlugPlayNotificationEx function*, *Using PnP
//! Notification*, *IRP_MN_QUERY_DEVICE_RELATIONS* ("TargetDeviceRelation Request"). Interfaces that come and go, and drivers' own events, are notified one after the other by a thread of the PnP manager's (`queue`);
//! notifications of a removal are sent by the thread that removes the device (`target`). A machine has one hardware profile, so that category
//! has no notifications. *Ours:* what a routine is handed is paged, as the routine should be (*Guidelines for Writing PnP Notification Callback Routines*).

pub(crate) mod custom;
pub mod foreign;
pub(crate) mod queue;
pub(crate) mod target;

use abi::{
    Code, DRIVER_OBJECT, DriverPtr, EventCategoryDeviceInterfaceChange, EventCategoryHardwareProfileChange,
    EventCategoryTargetDeviceChange, FILE_OBJECT, GUID, NtStatus,
    PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES,
};
use engine::{Flow, StrandId};

use super::node::NodeId;
use super::related;
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::io::interface;
use crate::ke::callout::call_routine;
use crate::ke::{irql, wait};
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ldr, ob, witness};

const TAG: u32 = pool::tag(b"PnpN");
/// Bytes of a registration; drivers see nothing of it.
const SIZE: u64 = 0x50;

/// What a registration is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    /// Interfaces of this class.
    Interfaces(String),
    /// The device that a file is open on.
    Target { device: NodeId, file: u64 },
    /// Hardware profiles.
    Profiles,
}

/// A registration.
struct Registration {
    /// What its driver knows it by.
    entry: u64,
    wanted: Wanted,
    callback: DriverPtr<Code>,
    context: u64,
    /// The moment when it was made, and where.
    registered: u64,
    caller: u64,
    driver: u64,
    /// It was notified that its device is gone.
    told_gone: bool,
    /// Threads that run its callback.
    running: Vec<StrandId>,
    /// It is taken back: not called any more, and forgotten when no thread runs it.
    is_removed: bool,
    /// Who waits for that.
    remover: Option<StrandId>,
}

/// All registrations, in the order in which they were made, and the notifications still to be sent.
#[derive(Default)]
pub(crate) struct State {
    registrations: Vec<Registration>,
    queue: queue::Queue,
}

impl State {
    fn find(&mut self, entry: u64) -> Option<&mut Registration> {
        self.registrations.iter_mut().find(|known| known.entry == entry && !known.is_removed)
    }

    /// The registrations for which this holds.
    fn which(&self, wanted: impl Fn(&Registration) -> bool) -> Vec<u64> {
        let own = self.registrations.iter().filter(|known| !known.is_removed && wanted(known));
        own.map(|known| known.entry).collect()
    }
}

/// `IoRegisterPlugPlayNotification`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what the callback does for interfaces that are there.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn register(
    cx: &mut Cx<'_>,
    category: u32,
    flags: u32,
    data: DriverPtr<()>,
    driver: DriverPtr<DRIVER_OBJECT>,
    callback: DriverPtr<Code>,
    context: u64,
    entry: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let wanted = match wanted(cx, category, data)? {
        Ok(wanted) => wanted,
        Err(status) => return Ok(status),
    };
    let existing = match &wanted {
        Wanted::Interfaces(class) if flags & PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES != 0 => {
            cx.with(|k| interface::of_class(k, class, None, false))
        }
        _ => Vec::new(),
    };
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, SIZE, TAG)?;
    if block.is_null() {
        release(cx, &wanted)?;
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let (registered, (_, caller)) = (witness::moment(cx), pool::caller(cx));
    let made = Registration {
        entry: block.address,
        wanted: wanted.clone(),
        callback,
        context,
        registered,
        caller,
        driver: driver.address,
        told_gone: false,
        running: Vec::new(),
        is_removed: false,
        remover: None,
    };
    cx.with(|k| k.pnp.notify.registrations.push(made));
    if let Wanted::Interfaces(class) = &wanted {
        for name in existing {
            // "the operating system might call the PnP notification callback routine twice for a single … event for an existing interface".
            for _ in 0..=cx.choose("pnp.told_twice", 2) {
                queue::tell_interface(cx, block.address, class, &name, true)?;
            }
        }
    }
    cx.write(entry, block.address)?;
    Ok(NtStatus::SUCCESS)
}

/// What a registration of this category is for; a status if it makes no sense.
fn wanted(cx: &mut Cx<'_>, category: u32, data: DriverPtr<()>) -> Flow<Result<Wanted, NtStatus>> {
    const SENSELESS: Result<Wanted, NtStatus> = Err(NtStatus::INVALID_PARAMETER);
    if category == EventCategoryHardwareProfileChange {
        return Ok(if data.is_null() { Ok(Wanted::Profiles) } else { SENSELESS });
    }
    if data.is_null() {
        return Ok(SENSELESS);
    }
    if category == EventCategoryDeviceInterfaceChange {
        return Ok(Ok(Wanted::Interfaces(interface::read_class(cx, data.cast::<GUID>())?)));
    }
    if category != EventCategoryTargetDeviceChange {
        return Ok(SENSELESS);
    }
    let file: DriverPtr<FILE_OBJECT> = data.cast();
    let found = device_of(cx, file)?;
    Ok(found.map(|device| Wanted::Target { device, file: file.address }))
}

/// The device that stands behind a file, with a reference, as its stack says.
fn device_of(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<Result<NodeId, NtStatus>> {
    if !cx.with(|k| k.io.files.contains_key(&file.address)) {
        cx.read(file + FILE_OBJECT::Type)?; // a bad pointer is one
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    }
    let device = cx.read(file + FILE_OBJECT::DeviceObject)?;
    related::target(cx, device, file)
}

/// "The PnP manager removes the reference to the PDO when the driver or application unregisters for notification on the device."
fn release(cx: &mut Cx<'_>, wanted: &Wanted) -> Flow<()> {
    if let Wanted::Target { device, .. } = wanted {
        ob::object::dereference(cx, device.pdo())?;
    }
    Ok(())
}

/// Calls the callback of a registration with `notification`; none if it has been taken back.
///
/// # Errors
/// What the callback comes to.
fn call(cx: &mut Cx<'_>, entry: u64, notification: u64) -> Flow<Option<NtStatus>> {
    let strand = cx.with(|k| k.ke.processor().thread);
    let routine = cx.with(|k| {
        let known = k.pnp.notify.find(entry)?;
        known.running.push(strand);
        Some((known.callback, known.context))
    });
    let Some((routine, context)) = routine else { return Ok(None) };
    let status = call_routine(cx, Role::PnpNotification, routine, entry, &[notification, context])?;
    let is_over = cx.with(|k| ended(k, entry, strand));
    if is_over {
        forget(cx, entry)?;
    }
    irql::settle(cx)?;
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of rax is undefined")]
    Ok(Some(NtStatus(status as u32)))
}

/// A call is over; who waits for the last of them goes on. Whether the registration is to be forgotten.
fn ended(k: &mut Kernel, entry: u64, strand: StrandId) -> bool {
    let all = &mut k.pnp.notify.registrations;
    let Some(known) = all.iter_mut().find(|known| known.entry == entry) else { return false };
    if let Some(place) = known.running.iter().position(|running| *running == strand) {
        known.running.remove(place);
    }
    // Who takes it back in its own callback does not wait for that call.
    let remover = known.remover.filter(|remover| known.running.iter().all(|running| running == remover));
    if remover.is_some() {
        known.remover = None;
    }
    let is_over = known.is_removed && known.running.is_empty();
    if let Some(remover) = remover {
        wait::grant(k, remover);
    }
    is_over
}

fn forget(cx: &mut Cx<'_>, entry: u64) -> Flow<()> {
    let wanted = cx.with(|k| {
        let all = &mut k.pnp.notify.registrations;
        all.iter().position(|known| known.entry == entry).map(|place| all.remove(place).wanted)
    });
    if let Some(wanted) = wanted {
        release(cx, &wanted)?;
    }
    pool::free(cx, DriverPtr::<()>::new(entry))
}

/// `IoUnregisterPlugPlayNotification`: a callback that runs may still run when it returns.
///
/// # Errors
/// A verdict if there is no such registration.
pub(crate) fn unregister(cx: &mut Cx<'_>, entry: u64) -> Flow<NtStatus> {
    take_back(cx, "IoUnregisterPlugPlayNotification", entry, false)
}

/// `IoUnregisterPlugPlayNotificationEx`: no callback runs when it returns, but the one that calls it.
///
/// # Errors
/// As [`unregister`].
pub(crate) fn unregister_ex(cx: &mut Cx<'_>, entry: u64) -> Flow<NtStatus> {
    take_back(cx, "IoUnregisterPlugPlayNotificationEx", entry, true)
}

fn take_back(cx: &mut Cx<'_>, ddi: &str, entry: u64, waits: bool) -> Flow<NtStatus> {
    let strand = cx.with(|k| k.ke.processor().thread);
    let found = cx.with(|k| {
        let known = k.pnp.notify.find(entry)?;
        known.is_removed = true;
        let others = known.running.iter().any(|running| *running != strand);
        if others && waits {
            known.remover = Some(strand);
        }
        Some((known.running.is_empty(), others && waits))
    });
    match found {
        None => {
            let message = format!("{ddi} was given {entry:#x}, which is no registration (any more)");
            Err(cx.stop(Verdict::error("not-a-notification", message)))
        }
        Some((true, _)) => forget(cx, entry).map(|()| NtStatus::SUCCESS),
        Some((false, true)) => wait::for_grant(cx, entry, ddi).map(|()| NtStatus::SUCCESS),
        Some((false, false)) => Ok(NtStatus::SUCCESS),
    }
}

/// The registrations that a driver has left, each with the moment and the place of its making; they are taken back.
///
/// # Errors
/// As freeing them.
pub(crate) fn outstanding(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
) -> Flow<Vec<(u64, u64, String)>> {
    let left: Vec<(u64, u64, u64)> = cx.with(|k| {
        let own = k.pnp.notify.registrations.iter_mut();
        let own = own.filter(|known| known.driver == driver.address && !known.is_removed);
        own.map(|known| {
            known.is_removed = true;
            (known.entry, known.registered, known.caller)
        })
        .collect()
    });
    let mut described = Vec::new();
    for (entry, registered, caller) in left {
        let runs = cx.with(|k| {
            k.pnp.notify.registrations.iter().any(|known| known.entry == entry && !known.running.is_empty())
        });
        if !runs {
            forget(cx, entry)?;
        }
        described.push((entry, registered, ldr::symbols::describe(cx, caller)));
    }
    Ok(described)
}
