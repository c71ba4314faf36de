//! One request at a time: `IoStartPacket` gives it to `StartIo`, or lets it wait in the device's queue.
//!
//! Pages: *IoStartPacket function*, *IoStartNextPacket function*, *IoStartNextPacketByKey function*,
//! *IoSetStartIoAttributes function*, *DRIVER_STARTIO callback function*.

use abi::{Code, DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, IRP, KDEVICE_QUEUE_ENTRY};
use engine::Flow;

use super::found::{self, Place};
use super::violation::device_name;
use super::{cancel, cancel_routine, device_queue, routine, violation};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ke;
use crate::verdict::Verdict;
use crate::witness;

/// `IoSetStartIoAttributes`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Attributes {
    /// A `StartIo` that starts the next packet is not entered again before it returns.
    deferred: bool,
    /// Packets that are started can no longer be cancelled.
    not_cancelable: bool,
    /// `StartIo` is running for this device.
    running: bool,
    /// The next packet to start when it returns: with which key, cancelable or not.
    waiting: Option<Next>,
    /// The last `StartIo` has completed its packet and written to no device, and no next packet was started since. What has it been started for, then?
    stands: bool,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    key: Option<u32>,
    cancelable: bool,
}

const DISPATCH_LEVEL: u8 = 2;
/// So many requests at most are cancelled each just before its `StartIo` runs.
const CANCELLED_IN_ROW: usize = 4;

/// `IoSetStartIoAttributes`.
///
/// # Errors
/// None.
pub(crate) fn set_attributes(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    deferred: bool,
    not_cancelable: bool,
) -> Flow<()> {
    cx.with(|k| {
        k.io.devices.change(device.address, |device| {
            device.start_io.deferred = deferred;
            device.start_io.not_cancelable = not_cancelable;
        });
    });
    Ok(())
}

fn attributes(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Attributes {
    cx.with(|k| k.io.devices.get(device.address).map(|device| device.start_io)).unwrap_or_default()
}

/// `IoStartPacket`: starts the request, or queues it (by `key`, if there is one). With `cancel`, it can be cancelled
/// while it waits.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn start(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    key: DriverPtr<u32>,
    cancel_routine: DriverPtr<Code>,
) -> Flow<()> {
    let moment = witness::moment(cx);
    cx.with(|k| k.io.irps.queued(irp.address, moment));
    found::tell(cx, irp, Place::Started);
    let old = ke::irql::raise(cx, DISPATCH_LEVEL)?;
    let cancelable = !cancel_routine.is_null();
    let cancel_irql = if cancelable { cancel::acquire(cx)? } else { DISPATCH_LEVEL };
    if cancelable {
        cancel_routine::set(cx, irp, cancel_routine)?;
    }
    let queue = device + DEVICE_OBJECT::DeviceQueue;
    let entry = irp + IRP::Tail_Overlay_DeviceQueueEntry;
    let queued = if key.is_null() {
        device_queue::insert(cx, queue, entry)?
    } else {
        let key = cx.read(key)?;
        device_queue::insert_by_key(cx, queue, entry, key)?
    };
    let lock = cancelable.then_some(cancel_irql);
    if queued {
        if let Some(irql) = call_if_cancelled(cx, irp, lock)? {
            cancel::release(cx, irql)?;
        }
    } else {
        cx.write(device + DEVICE_OBJECT::CurrentIrp, irp)?;
        let is_out_of_reach = attributes(cx, device).not_cancelable;
        let lock = if is_out_of_reach { lock } else { call_if_cancelled(cx, irp, lock)? };
        call_start_io(cx, device, irp, lock)?;
    }
    ke::irql::lower(cx, old)
}

/// The packet is in the queue or has become the current one; if it was cancelled before its cancel routine was set, that is called now, with the cancel spin
/// lock, which would be released to `lock`. What of the lock is still to be released.
///
/// No page says what comes of one that has become the current one; drivers rely on either: that their cancel routine is called, and that `StartIo` is, which
/// finds it cancelled or to be no longer the current one. Both are called, as where it is cancelled just before `StartIo`.
fn call_if_cancelled(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, lock: Option<u8>) -> Flow<Option<u8>> {
    let Some(irql) = lock else { return Ok(None) };
    if cx.read(irp + IRP::Cancel)? == 0 {
        return Ok(lock);
    }
    let routine = cancel::take_routine(cx, irp)?;
    if routine.is_null() {
        return Ok(lock);
    }
    cancel::call_routine(cx, irp, routine, irql)?;
    Ok(None)
}

/// Calls `StartIo` for the current packet. `lock` is the level to release the cancel spin lock to, if it is held.
fn call_start_io(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    lock: Option<u8>,
) -> Flow<()> {
    let attributes = attributes(cx, device);
    if let Some(irql) = lock {
        if attributes.not_cancelable {
            cancel_routine::set(cx, irp, DriverPtr::NULL)?;
        }
        cancel::release(cx, irql)?;
    }
    let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
    let start_io = cx.read(driver + DRIVER_OBJECT::DriverStartIo)?;
    let (recurs, written) = cx.with(|k| {
        k.io.devices.change(device.address, |device| {
            device.start_io.running = true;
            device.start_io.stands = false;
        });
        (attributes.running && recurs(k, start_io), k.register_writes())
    });
    if recurs {
        recursion(cx, device);
    }
    let called = routine::call(cx, Role::StartIo, start_io, irp.address, &[device.address, irp.address]);
    let is_current =
        called.is_ok() && cx.read(device + DEVICE_OBJECT::CurrentIrp).is_ok_and(|now| now == irp);
    let waiting = cx.with(|k| {
        let is_over =
            is_current && k.io.irps.completed_at(irp.address).is_some() && k.register_writes() == written;
        let start_io = &mut k.io.devices.get_mut(device.address)?.start_io;
        // An outer StartIo of this device may still be on the stack (it is not deferred).
        start_io.running = attributes.running;
        start_io.stands = is_over;
        if called.is_ok() && !attributes.running { start_io.waiting.take() } else { None }
    });
    called?;
    match waiting {
        Some(next) => start_next_now(cx, device, next),
        None => Ok(()),
    }
}

/// Whether this `StartIo` goes one level deeper by each request that waits. One that starts the next packet only where its own request was cancelled goes deeper
/// by those alone that are cancelled just before their turn; for so many it is done.
fn recurs(k: &Kernel, start_io: DriverPtr<Code>) -> bool {
    let Some(thread) = k.ke.thread() else { return false };
    let calls = thread.callouts.iter();
    let requests: Vec<u64> = calls
        .filter(|call| call.role == Role::StartIo && call.routine == start_io)
        .map(|call| call.object)
        .collect();
    requests.len() > CANCELLED_IN_ROW || requests.iter().any(|irp| !k.io.irps.was_cancelled(*irp))
}

/// `IoStartNextPacket`.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn start_next(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, cancelable: bool) -> Flow<()> {
    expect_no_lock(cx, "IoStartNextPacket");
    next(cx, device, Next { key: None, cancelable })
}

/// `IoStartNextPacketByKey`.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn start_next_by_key(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    cancelable: bool,
    key: u32,
) -> Flow<()> {
    expect_no_lock(cx, "IoStartNextPacketByKey");
    next(cx, device, Next { key: Some(key), cancelable })
}

fn expect_no_lock(cx: &mut Cx<'_>, name: &str) {
    if let Some(lock) = cx.with(|k| ke::spinlock::held_here(k)) {
        violation::lock_held(cx, name, lock);
    }
}

fn next(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, next: Next) -> Flow<()> {
    let attributes = attributes(cx, device);
    if attributes.deferred && attributes.running {
        cx.with(|k| {
            k.io.devices.change(device.address, |device| device.start_io.waiting = Some(next));
        });
        return Ok(());
    }
    start_next_now(cx, device, next)
}

/// It goes as many levels deep as there are requests in the queue.
#[cold]
fn recursion(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) {
    let message = format!(
        "StartIo of {} has called IoStartNextPacket, and is called again before it returns: once more for each request that waits (IoSetStartIoAttributes with DeferredStartIo TRUE prevents it)",
        device_name(cx, device)
    );
    cx.report(Verdict::warning("start-io-recursion", message));
}

fn start_next_now(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, next: Next) -> Flow<()> {
    let old = ke::irql::raise(cx, DISPATCH_LEVEL)?;
    let lock = if next.cancelable { Some(cancel::acquire(cx)?) } else { None };
    cx.with(|k| k.io.devices.change(device.address, |device| device.start_io.stands = false));
    cx.write(device + DEVICE_OBJECT::CurrentIrp, DriverPtr::NULL)?;
    let queue = device + DEVICE_OBJECT::DeviceQueue;
    let entry: DriverPtr<KDEVICE_QUEUE_ENTRY> = match next.key {
        Some(key) => device_queue::remove_by_key(cx, queue, key)?,
        None => device_queue::remove(cx, queue)?,
    };
    if entry.is_null() {
        if let Some(irql) = lock {
            cancel::release(cx, irql)?;
        }
    } else {
        let irp = entry.container(IRP::Tail_Overlay_DeviceQueueEntry);
        cx.write(device + DEVICE_OBJECT::CurrentIrp, irp)?;
        call_start_io(cx, device, irp, lock)?;
    }
    ke::irql::lower(cx, old)
}

/// Whether the request waits in the queue of its device, of which nothing starts the next packet: the one before it was completed where it was started, without
/// `IoStartNextPacket`, and before any device was asked for something that it might answer.
pub(super) fn waits_for_nothing(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    device: DriverPtr<DEVICE_OBJECT>,
) -> bool {
    let entry = irp + IRP::Tail_Overlay_DeviceQueueEntry;
    let is_queued = cx.read(entry + KDEVICE_QUEUE_ENTRY::Inserted).is_ok_and(|inserted| inserted != 0);
    is_queued && cx.with(|k| k.io.devices.get(device.address).is_some_and(|device| device.start_io.stands))
}
