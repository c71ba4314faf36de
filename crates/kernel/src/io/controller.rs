//! Controller objects: hardware that several devices share, one device at a time.
//!
//! Pages: *Controller Objects*, *IoCreateController function*, *IoAllocateController function*, *IoFreeController function*,
//! *IoDeleteController function*, *Returns from DriverControl Routines*. The object in memory is what drivers see: devices wait in its queue,
//! each by its own `Queue.Wcb`. Remembered here is who has it. It has no name and no handles.

use std::collections::BTreeMap;

use abi::{
    CONTROLLER_OBJECT, Code, DEVICE_OBJECT, DeallocateObject, DriverPtr, IO_TYPE_CONTROLLER,
    KDEVICE_QUEUE_ENTRY, KeepObject, WAIT_CONTEXT_BLOCK,
};
use engine::Flow;

use super::violation::device_name;
use super::{device_queue, routine};
use crate::cx::Cx;
use crate::event::Role;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ldr, witness};

const BODY: u64 = size_of::<CONTROLLER_OBJECT>() as u64;

/// Who uses a controller.
#[derive(Clone, Copy, Debug)]
struct Controller {
    /// Base of the image that made it.
    owner: Option<u64>,
    /// Return address of the call that made it.
    caller: u64,
    /// The device that has it, and the moment when it got it.
    holder: Option<(u64, u64)>,
}

/// All of them, by address.
#[derive(Default)]
pub(crate) struct State {
    controllers: BTreeMap<u64, Controller>,
}

/// `IoCreateController`: with so many zeroed bytes of the driver's own; null without memory.
///
/// # Errors
/// None.
pub(crate) fn create(cx: &mut Cx<'_>, size: u32) -> Flow<DriverPtr<CONTROLLER_OBJECT>> {
    let bytes = BODY + u64::from(size);
    let controller: DriverPtr<CONTROLLER_OBJECT> =
        pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"Cont"))?;
    if controller.is_null() {
        return Ok(controller);
    }
    cx.write(controller + CONTROLLER_OBJECT::Type, IO_TYPE_CONTROLLER)?;
    cx.write(controller + CONTROLLER_OBJECT::Size, i16::try_from(bytes).unwrap_or(i16::MAX))?;
    cx.write(controller + CONTROLLER_OBJECT::ControllerExtension, DriverPtr::new(controller.address + BODY))?;
    device_queue::initialize(cx, controller + CONTROLLER_OBJECT::DeviceWaitQueue)?;
    let (owner, caller) = pool::caller(cx);
    let made = Controller { owner, caller, holder: None };
    cx.with(|k| k.io.controllers.controllers.insert(controller.address, made));
    Ok(controller)
}

/// `IoAllocateController`: calls the routine for the device as soon as the controller is free, at once if it is.
///
/// # Errors
/// A verdict if it is no controller, if the device waits for it already, or on what the routine does.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    controller: DriverPtr<CONTROLLER_OBJECT>,
    device: DriverPtr<DEVICE_OBJECT>,
    routine: DriverPtr<Code>,
    context: DriverPtr<()>,
) -> Flow<()> {
    find(cx, "IoAllocateController", controller)?;
    let block = device + DEVICE_OBJECT::Queue_Wcb;
    cx.write(block + WAIT_CONTEXT_BLOCK::DeviceRoutine, routine)?;
    cx.write(block + WAIT_CONTEXT_BLOCK::DeviceContext, context)?;
    let queue = controller + CONTROLLER_OBJECT::DeviceWaitQueue;
    if device_queue::insert(cx, queue, block + WAIT_CONTEXT_BLOCK::WaitQueueEntry)? {
        return Ok(());
    }
    serve(cx, controller, device)
}

/// `IoFreeController`: the next device that waits gets it.
///
/// # Errors
/// A verdict if it is no controller, or on what a waiting device's routine does.
pub(crate) fn free(cx: &mut Cx<'_>, controller: DriverPtr<CONTROLLER_OBJECT>) -> Flow<()> {
    if find(cx, "IoFreeController", controller)?.holder.is_none() {
        let message = format!(
            "IoFreeController was called for the controller {:#x}, which no device has",
            controller.address
        );
        cx.report(Verdict::warning("controller-not-allocated", message));
    }
    match next(cx, controller)? {
        Some(device) => serve(cx, controller, device),
        None => Ok(()),
    }
}

/// `IoDeleteController`.
///
/// # Errors
/// A verdict if it is no controller, or devices wait for it.
pub(crate) fn delete(cx: &mut Cx<'_>, controller: DriverPtr<CONTROLLER_OBJECT>) -> Flow<()> {
    let Controller { holder, .. } = find(cx, "IoDeleteController", controller)?;
    let waiting = device_queue::entries(cx, controller + CONTROLLER_OBJECT::DeviceWaitQueue)?;
    let deleted = format!("IoDeleteController was called for the controller {:#x}", controller.address);
    let since = holder.map(|(_, since)| ("allocated", since));
    if let Some(first) = waiting.first() {
        let name = device_name(cx, device_of(*first));
        let message = format!(
            "{deleted}, while {} device(s) wait for it, first {name}: nothing calls them any more",
            waiting.len()
        );
        let verdict = Verdict::error("controller-in-use", message);
        return Err(
            cx.stop(since.into_iter().fold(verdict, |verdict, (what, event)| verdict.related(what, event)))
        );
    }
    if let Some((device, since)) = holder {
        let name = device_name(cx, DriverPtr::new(device));
        let verdict = Verdict::warning("controller-in-use", format!("{deleted}, which {name} still has"));
        cx.report(verdict.related("allocated", since));
    }
    cx.with(|k| k.io.controllers.controllers.remove(&controller.address));
    pool::free(cx, controller)
}

/// The device at whose `Queue.Wcb` this entry lies.
fn device_of(entry: DriverPtr<KDEVICE_QUEUE_ENTRY>) -> DriverPtr<DEVICE_OBJECT> {
    let block: DriverPtr<WAIT_CONTEXT_BLOCK> = entry.container(WAIT_CONTEXT_BLOCK::WaitQueueEntry);
    block.container(DEVICE_OBJECT::Queue_Wcb)
}

fn find(cx: &mut Cx<'_>, name: &str, controller: DriverPtr<CONTROLLER_OBJECT>) -> Flow<Controller> {
    let found = cx.with(|k| k.io.controllers.controllers.get(&controller.address).copied());
    found.ok_or_else(|| {
        let message =
            format!("{name} was called with {:#x}, which is no controller object", controller.address);
        cx.stop(Verdict::error("not-a-controller", message))
    })
}

fn set_holder(cx: &mut Cx<'_>, controller: DriverPtr<CONTROLLER_OBJECT>, holder: Option<(u64, u64)>) {
    cx.with(|k| {
        if let Some(known) = k.io.controllers.controllers.get_mut(&controller.address) {
            known.holder = holder;
        }
    });
}

/// The controller is free; the device that has waited longest, if one does.
fn next(cx: &mut Cx<'_>, controller: DriverPtr<CONTROLLER_OBJECT>) -> Flow<Option<DriverPtr<DEVICE_OBJECT>>> {
    set_holder(cx, controller, None);
    let entry = device_queue::remove(cx, controller + CONTROLLER_OBJECT::DeviceWaitQueue)?;
    Ok((!entry.is_null()).then(|| device_of(entry)))
}

/// The device has got the controller: calls its routine, and those of the devices behind it for as long as each gives it back.
fn serve(
    cx: &mut Cx<'_>,
    controller: DriverPtr<CONTROLLER_OBJECT>,
    mut device: DriverPtr<DEVICE_OBJECT>,
) -> Flow<()> {
    loop {
        let since = witness::moment(cx);
        set_holder(cx, controller, Some((device.address, since)));
        let block = device + DEVICE_OBJECT::Queue_Wcb;
        let control = cx.read(block + WAIT_CONTEXT_BLOCK::DeviceRoutine)?;
        let context = cx.read(block + WAIT_CONTEXT_BLOCK::DeviceContext)?;
        let irp = cx.read(device + DEVICE_OBJECT::CurrentIrp)?;
        let arguments = [device.address, irp.address, 0, context.address];
        let action = routine::call(cx, Role::ControllerControl, control, device.address, &arguments)?;
        if action & 0xFFFF_FFFF == KeepObject.into() {
            return Ok(());
        }
        if action & 0xFFFF_FFFF != DeallocateObject.into() {
            return Err(wrong_action(cx, control, action));
        }
        match next(cx, controller)? {
            Some(waiting) => device = waiting,
            None => return Ok(()),
        }
    }
}

fn wrong_action(cx: &mut Cx<'_>, control: DriverPtr<Code>, action: u64) -> engine::Leave {
    let who = ldr::symbols::describe(cx, control.address);
    let what = match action & 0xFFFF_FFFF {
        3 => "DeallocateObjectKeepRegisters (3), which only an AdapterControl routine returns".to_owned(),
        other => format!("{other:#x}, which is no IO_ALLOCATION_ACTION"),
    };
    let message = format!(
        "the ControllerControl routine {who} returned {what}: whether it keeps the controller is not said"
    );
    cx.stop(Verdict::error("controller-control-result", message))
}

/// Controllers that the image at `driver` has not deleted, with who made them.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(u64, String)> {
    let own: Vec<(u64, u64)> = cx.with(|k| {
        let all = k.io.controllers.controllers.iter();
        all.filter(|(_, made)| made.owner == Some(driver)).map(|(&at, made)| (at, made.caller)).collect()
    });
    own.into_iter().map(|(at, caller)| (at, ldr::symbols::describe(cx, caller))).collect()
}
