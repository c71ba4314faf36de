//! Plug and Play requests, reduced to what they ask of a function driver.
//!
//! Pages: *IRP_MN_START_DEVICE* and its neighbours. The framework passes them down at the right moment, keeps the state the
//! device is in, and removes the device when its routines have let go of it. Requests that a function driver need not
//! handle (capabilities, relations, texts) pass through.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use abi::{DEVICE_OBJECT, IO_STACK_LOCATION, IRP, NtStatus};

use crate::device::{self, Device};
use crate::driver::{Accepted, Function, accept};
use crate::irp::{Answer, Irp};
use crate::irql::Passive;
use crate::resource::Resources;
use crate::{raw, sys, wmi};

/// Why a device gives up its hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It will be started again, elsewhere: requests may wait.
    Rebalance,
    /// The card is gone: it must not be touched, and requests fail.
    SurpriseRemoval,
    /// The device goes: requests fail.
    Remove,
}

/// The state a device is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    NotStarted,
    Started,
    StopPending,
    Stopped,
    RemovePending,
    SurpriseRemoved,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::NotStarted,
        Self::Started,
        Self::StopPending,
        Self::Stopped,
        Self::RemovePending,
        Self::SurpriseRemoved,
    ];

    fn of<T>(device: &Device<T>) -> Self {
        Self::ALL[usize::from(device.phase.load(Ordering::Relaxed))]
    }

    /// The device enters this state.
    fn enter<T>(self, device: &Device<T>) {
        let before = device.phase.swap(self as u8, Ordering::Relaxed);
        device.phase_before.store(before, Ordering::Relaxed);
    }
}

pub(crate) unsafe extern "system" fn dispatch<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
) -> NtStatus {
    // SAFETY: called by the system with a request for a device of ours.
    unsafe { dispatch_of::<F>(object, irp, &Extras::NONE) }
}

/// What a bus has besides.
pub(crate) struct Extras<F> {
    /// Answers a question for relations.
    pub(crate) relations: for<'irp> fn(&Device<F>, Irp<'irp>, &mut Passive) -> Answer<'irp>,
    /// The device goes, and none of its own routines runs any more: so do its children.
    pub(crate) bury: fn(&Device<F>, &mut Passive),
}

impl<F: Function> Extras<F> {
    const NONE: Self =
        Self { relations: |device, irp, passive| irp.forward(device, passive), bury: |_device, _passive| () };
}

/// # Safety
/// Called first in a dispatch routine, with its arguments; the object is a [`Device`]'s.
pub(crate) unsafe fn dispatch_of<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    extras: &Extras<F>,
) -> NtStatus {
    // SAFETY: called by the system with a request for a device of ours, at PASSIVE_LEVEL.
    let (accepted, mut passive) = unsafe { (accept::<F>(object, irp), Passive::assume()) };
    let Accepted { irp, device, inside } = match accepted {
        Ok(accepted) => accepted,
        Err(status) => return status,
    };
    let passive = &mut passive;
    // SAFETY: the request is ours.
    let minor = unsafe { raw::get(irp.stack(), IO_STACK_LOCATION::MinorFunction) };
    let answer = match minor {
        abi::IRP_MN_START_DEVICE => start(device, irp, passive),
        abi::IRP_MN_QUERY_STOP_DEVICE => query(device, irp, Phase::StopPending, passive),
        abi::IRP_MN_QUERY_REMOVE_DEVICE => query(device, irp, Phase::RemovePending, passive),
        abi::IRP_MN_CANCEL_STOP_DEVICE => cancel(device, irp, Phase::StopPending, passive),
        abi::IRP_MN_CANCEL_REMOVE_DEVICE => cancel(device, irp, Phase::RemovePending, passive),
        abi::IRP_MN_STOP_DEVICE => give_up(device, irp, Phase::Stopped, Stop::Rebalance, passive),
        abi::IRP_MN_SURPRISE_REMOVAL => {
            give_up(device, irp, Phase::SurpriseRemoved, Stop::SurpriseRemoval, passive)
        }
        abi::IRP_MN_REMOVE_DEVICE => {
            drop(inside);
            // SAFETY: the object is the device's, the request the one that removes it.
            return unsafe { remove::<F>(object, irp, extras, passive) };
        }
        abi::IRP_MN_QUERY_DEVICE_RELATIONS => (extras.relations)(device, irp, passive),
        _ => irp.forward(device, passive),
    };
    answer.status()
}

/// The drivers below start first; then there is a card to talk to.
fn start<'irp, F: Function>(device: &Device<F>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    let (irp, mut status) = irp.forward_and_wait(device, passive);
    if status.is_success() {
        // SAFETY: the lists belong to the request, which is ours until it is completed.
        let resources = unsafe {
            let stack = irp.stack();
            Resources::of(
                raw::follow(stack, IO_STACK_LOCATION::Parameters_StartDevice_AllocatedResources),
                raw::follow(stack, IO_STACK_LOCATION::Parameters_StartDevice_AllocatedResourcesTranslated),
            )
        };
        status = match F::start(device, &resources, passive) {
            Ok(()) => {
                Phase::Started.enter(device);
                wmi::register(device, passive);
                NtStatus::SUCCESS
            }
            Err(refused) => refused,
        };
    }
    irp.complete(status, 0, passive)
}

/// May the device be stopped, or removed?
fn query<'irp, F: Function>(
    device: &Device<F>,
    mut irp: Irp<'irp>,
    phase: Phase,
    passive: &mut Passive,
) -> Answer<'irp> {
    if Phase::of(device) == Phase::Started
        && let Err(refused) = F::pause(device, passive)
    {
        F::resume(device, passive);
        return irp.complete(refused, 0, passive);
    }
    phase.enter(device);
    irp.set_status(NtStatus::SUCCESS);
    irp.forward(device, passive)
}

/// It was only a question. The drivers below go on first.
fn cancel<'irp, F: Function>(
    device: &Device<F>,
    mut irp: Irp<'irp>,
    phase: Phase,
    passive: &mut Passive,
) -> Answer<'irp> {
    if Phase::of(device) != phase {
        irp.set_status(NtStatus::SUCCESS);
        return irp.forward(device, passive);
    }
    irp.set_status(NtStatus::SUCCESS);
    let (irp, status) = irp.forward_and_wait(device, passive);
    device.phase.store(device.phase_before.load(Ordering::Relaxed), Ordering::Relaxed);
    if Phase::of(device) == Phase::Started {
        F::resume(device, passive);
    }
    irp.complete(status, 0, passive)
}

fn give_up<'irp, F: Function>(
    device: &Device<F>,
    mut irp: Irp<'irp>,
    phase: Phase,
    stop: Stop,
    passive: &mut Passive,
) -> Answer<'irp> {
    phase.enter(device);
    if stop != Stop::Rebalance {
        wmi::deregister(device, passive);
    }
    F::stop(device, stop, passive);
    irp.set_status(NtStatus::SUCCESS);
    irp.forward(device, passive)
}

/// # Safety
/// The request is the one that removes the device of this object; the device must not be used after this.
unsafe fn remove<F: Function>(
    object: *mut DEVICE_OBJECT,
    mut irp: Irp<'_>,
    extras: &Extras<F>,
    passive: &mut Passive,
) -> NtStatus {
    // SAFETY: the caller's promise: the device lives until `delete` below.
    let device = unsafe { Device::<F>::of(object) };
    wmi::deregister(device, passive);
    if Phase::of(device) != Phase::SurpriseRemoved {
        F::stop(device, Stop::Remove, passive);
    }
    irp.set_status(NtStatus::SUCCESS);
    let (irp, lock): (NonNull<IRP>, _) = irp.into_raw();
    let lower = device.lower();
    // SAFETY: the lock, where there is one, was taken for this request; behind it there is no request of
    // the device, and no thread in a routine of it. The request is the driver's below from the call on.
    unsafe {
        if let Some(lock) = lock.as_ref() {
            lock.release_and_wait(irp.as_ptr().cast(), passive);
        }
        let _nobody = device.inside.take(passive);
        (extras.bury)(device, passive);
        device.ties.expect_none();
        crate::irp::skip(irp.as_ptr());
        let status = sys::IofCallDriver(lower, irp.as_ptr());
        device::delete::<F>(object, passive);
        status
    }
}
