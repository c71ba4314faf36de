//! Notifications sent one after the other, on a thread of the PnP manager's: interfaces that come and go, and drivers' own events.
//!
//! Pages: *DEVICE_INTERFACE_CHANGE_NOTIFICATION structure* ("allocated from paged memory"), *IoReportTargetDeviceChangeAsynchronous function*. A driver that enables an
//! interface does not wait for the callbacks.

use std::collections::VecDeque;

use abi::{
    Code, DEVICE_INTERFACE_CHANGE_NOTIFICATION, DriverPtr, GUID, GUID_DEVICE_INTERFACE_ARRIVAL,
    GUID_DEVICE_INTERFACE_REMOVAL, KEVENT, UNICODE_STRING,
};
use engine::Flow;

use super::{TAG, Wanted, call, custom};
use crate::cx::Cx;
use crate::event::Role;
use crate::io::unload;
use crate::ke::callout::call_routine;
use crate::mm::pool;
use crate::pnp::node::NodeId;
use crate::{ke, ob, wmi};

/// A notification to be sent.
pub(super) enum Notice {
    /// An interface of this class and name was enabled, or disabled.
    Interface { class: String, name: String, enabled: bool },
    /// An event of a driver's own.
    Custom(Custom),
}

/// An event of a driver's own.
pub(super) struct Custom {
    pub(super) device: NodeId,
    /// A `TARGET_DEVICE_CUSTOM_NOTIFICATION`.
    pub(super) bytes: Vec<u8>,
    /// Called when all have been notified: routine, context, and the driver that stays loaded for it.
    pub(super) then: Option<(DriverPtr<Code>, u64, u64)>,
    /// Signaled then.
    pub(super) done: DriverPtr<KEVENT>,
}

/// Notifications to be sent, the oldest first.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Notice>,
    /// A thread tells.
    is_told: bool,
}

/// An interface was enabled or disabled.
///
/// # Errors
/// As making a thread.
pub(crate) fn interface_changed(cx: &mut Cx<'_>, class: String, name: String, enabled: bool) -> Flow<()> {
    let is_wanted = cx.with(|k| {
        let wanted = Wanted::Interfaces(class.clone());
        !k.pnp.notify.which(|known| known.wanted == wanted).is_empty()
    });
    if is_wanted { add(cx, Notice::Interface { class, name, enabled }) } else { Ok(()) }
}

/// Puts a notice behind the others; a thread is made if none tells.
pub(super) fn add(cx: &mut Cx<'_>, notice: Notice) -> Flow<()> {
    let is_told = cx.with(|k| {
        let queue = &mut k.pnp.notify.queue;
        queue.waiting.push_back(notice);
        std::mem::replace(&mut queue.is_told, true)
    });
    if is_told {
        return Ok(());
    }
    ke::thread::spawn(cx, "PnP notifications", Box::new(tell_all)).map(|_| ())
}

fn tell_all(cx: &mut Cx<'_>) -> Flow<()> {
    loop {
        let next = cx.with(|k| {
            let queue = &mut k.pnp.notify.queue;
            let next = queue.waiting.pop_front();
            queue.is_told = next.is_some();
            next
        });
        match next {
            None => return Ok(()),
            Some(Notice::Interface { class, name, enabled }) => {
                let wanted = Wanted::Interfaces(class.clone());
                for entry in cx.with(|k| k.pnp.notify.which(|known| known.wanted == wanted)) {
                    tell_interface(cx, entry, &class, &name, enabled)?;
                }
            }
            Some(Notice::Custom(event)) => tell_custom(cx, &event)?,
        }
    }
}

fn tell_custom(cx: &mut Cx<'_>, event: &Custom) -> Flow<()> {
    custom::tell(cx, event.device, &event.bytes)?;
    if let Some((routine, context, driver)) = event.then {
        if !routine.is_null() {
            call_routine(cx, Role::DeviceChangeComplete, routine, event.device.0, &[context])?;
        }
        unload::end_work(cx, driver)?;
    }
    if !event.done.is_null() {
        ke::event::set(cx, event.done, 0, false)?;
    }
    Ok(())
}

/// Tells one registration of one interface.
///
/// # Errors
/// What its callback comes to.
pub(super) fn tell_interface(
    cx: &mut Cx<'_>,
    entry: u64,
    class: &str,
    name: &str,
    enabled: bool,
) -> Flow<()> {
    const HEAD: u64 = size_of::<DEVICE_INTERFACE_CHANGE_NOTIFICATION>() as u64;
    const STRING: u64 = size_of::<UNICODE_STRING>() as u64;
    let text = ob::string::encode(name);
    let size = HEAD + STRING + text.len() as u64;
    let block: DriverPtr<DEVICE_INTERFACE_CHANGE_NOTIFICATION> =
        pool::allocate(cx, pool::Kind::Paged, size, TAG)?;
    if block.is_null() {
        return Ok(());
    }
    let string: DriverPtr<UNICODE_STRING> = DriverPtr::new(block.address + HEAD);
    let buffer: DriverPtr<u16> = DriverPtr::new(string.address + STRING);
    let event = if enabled { GUID_DEVICE_INTERFACE_ARRIVAL } else { GUID_DEVICE_INTERFACE_REMOVAL };
    header(cx, block.address, u16::try_from(HEAD).unwrap_or(0), &event)?;
    let class = wmi::parse_guid(class).unwrap_or_default();
    cx.write_bytes((block + DEVICE_INTERFACE_CHANGE_NOTIFICATION::InterfaceClassGuid).address, &class)?;
    cx.write(block + DEVICE_INTERFACE_CHANGE_NOTIFICATION::SymbolicLinkName, string)?;
    cx.write_bytes(buffer.address, &text)?;
    ob::string::describe(cx, string, buffer, u16::try_from(text.len()).unwrap_or(u16::MAX))?;
    call(cx, entry, block.address)?;
    pool::free(cx, block)
}

/// `PLUGPLAY_NOTIFICATION_HEADER`.
///
/// # Errors
/// None: the block is the system's.
pub(super) fn header(cx: &mut Cx<'_>, block: u64, size: u16, event: &GUID) -> Flow<()> {
    let head: DriverPtr<abi::PLUGPLAY_NOTIFICATION_HEADER> = DriverPtr::new(block);
    cx.write(head + abi::PLUGPLAY_NOTIFICATION_HEADER::Version, 1)?;
    cx.write(head + abi::PLUGPLAY_NOTIFICATION_HEADER::Size, size)?;
    cx.write_bytes(
        (head + abi::PLUGPLAY_NOTIFICATION_HEADER::Event).address,
        zerocopy::IntoBytes::as_bytes(event),
    )
}
