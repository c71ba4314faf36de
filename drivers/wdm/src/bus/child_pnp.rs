//! Plug and Play requests of a bus and of its children: the latter end here.
//!
//! Pages: *IRP_MN_QUERY_ID*, *IRP_MN_QUERY_CAPABILITIES*, *IRP_MN_QUERY_DEVICE_TEXT*, *IRP_MN_QUERY_BUS_INFORMATION*, *IRP_MN_QUERY_DEVICE_RELATIONS*
//! ("TargetDeviceRelation Request"), *IRP_MN_EJECT*, *Removing a Device in a Bus Driver*. What the crate has no answer to ends as it came, as
//! the pages ask: resources, interfaces, special files, locks.

use core::ffi::c_void;
use core::sync::atomic::Ordering;

use abi::{
    DEVICE_CAPABILITIES, DEVICE_OBJECT, DEVICE_RELATIONS, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, NtStatus,
    PNP_BUS_INFORMATION,
};

use super::dispatch::{Accepted, accept};
use super::{Bus, ChildDevice, list};
use crate::device::Role;
use crate::irp::{Answer, Irp};
use crate::irql::Passive;
use crate::pnp::{self, Extras, Stop};
use crate::text::Name;
use crate::{raw, sys};

pub(super) unsafe extern "system" fn dispatch<B: Bus>(object: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    // SAFETY: called by the system with a request for a device of ours, at PASSIVE_LEVEL.
    let (accepted, mut passive) = unsafe {
        if Role::of(object) != Role::Child {
            let extras = Extras { relations: list::relations::<B>, bury: list::bury::<B> };
            return pnp::dispatch_of::<B>(object, irp, &extras);
        }
        (accept::<B>(object, irp), Passive::assume())
    };
    let Accepted { irp, child, inside } = match accepted {
        Ok(accepted) => accepted,
        Err(status) => return status,
    };
    let passive = &mut passive;
    // SAFETY: the request is ours.
    let minor = unsafe { raw::get(irp.stack(), IO_STACK_LOCATION::MinorFunction) };
    let answer = match minor {
        abi::IRP_MN_START_DEVICE => {
            child.is_stopped.store(false, Ordering::Relaxed);
            let status = B::child_start(child, passive).err().unwrap_or(NtStatus::SUCCESS);
            irp.complete(status, 0, passive)
        }
        abi::IRP_MN_SURPRISE_REMOVAL => {
            child.stop(Stop::SurpriseRemoval, passive);
            irp.complete(NtStatus::SUCCESS, 0, passive)
        }
        abi::IRP_MN_REMOVE_DEVICE => {
            drop(inside);
            // SAFETY: the request is the one that removes this child.
            return unsafe { remove::<B>(object, irp, passive) };
        }
        abi::IRP_MN_QUERY_STOP_DEVICE
        | abi::IRP_MN_CANCEL_STOP_DEVICE
        | abi::IRP_MN_STOP_DEVICE
        | abi::IRP_MN_QUERY_REMOVE_DEVICE
        | abi::IRP_MN_CANCEL_REMOVE_DEVICE => irp.complete(NtStatus::SUCCESS, 0, passive),
        abi::IRP_MN_QUERY_ID => id(child, irp, passive),
        abi::IRP_MN_QUERY_DEVICE_TEXT => text(child, irp, passive),
        abi::IRP_MN_QUERY_CAPABILITIES => capabilities(child, irp, passive),
        abi::IRP_MN_QUERY_BUS_INFORMATION => bus_information::<B>(irp, passive),
        abi::IRP_MN_QUERY_DEVICE_RELATIONS => target_relation::<B>(object, irp, passive),
        abi::IRP_MN_EJECT => eject(child, irp, passive),
        _ => irp.complete_as_it_came(passive),
    };
    answer.status()
}

/// The object stays as long as the child is reported.
///
/// # Safety
/// The request is the one that removes the child of this object; the child must not be used after this.
unsafe fn remove<B: Bus>(object: *mut DEVICE_OBJECT, irp: Irp<'_>, passive: &mut Passive) -> NtStatus {
    // SAFETY: the lock that is held for the request keeps the child.
    let child = unsafe { ChildDevice::<B>::of(object) };
    child.stop(Stop::Remove, passive);
    if !child.bus().take_unreported(object, passive) {
        return irp.complete(NtStatus::SUCCESS, 0, passive).status();
    }
    let (irp, lock) = irp.into_raw();
    // SAFETY: the lock was taken for this request; behind it there is no request of the child, and no thread in a routine of it, and
    // it is off the list. The request is ours until it is completed.
    unsafe {
        if let Some(lock) = lock.as_ref() {
            lock.release_and_wait(irp.as_ptr().cast(), passive);
        }
        raw::set(IRP::IoStatus.of(irp.as_ptr()), IO_STATUS_BLOCK::Status, NtStatus::SUCCESS);
        sys::IofCompleteRequest(irp.as_ptr(), 0);
        list::delete::<B>(object, passive);
    }
    NtStatus::SUCCESS
}

/// Paged pool for an answer, which the PnP manager frees.
fn allocate<B: Bus>(bytes: usize, _passive: &mut Passive) -> Option<*mut c_void> {
    // SAFETY: at PASSIVE_LEVEL.
    let block = unsafe { sys::ExAllocatePoolWithTag(abi::PagedPool, bytes, B::TAG.number()) };
    (!block.is_null()).then_some(block)
}

fn answer<'irp>(irp: Irp<'irp>, block: *mut c_void, passive: &mut Passive) -> Answer<'irp> {
    irp.complete(NtStatus::SUCCESS, block.expose_provenance(), passive)
}

fn no_memory<'irp>(irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    irp.complete(NtStatus::INSUFFICIENT_RESOURCES, 0, passive)
}

/// A copy of a text for the asker, with a NUL behind it.
fn give<'irp, B: Bus>(irp: Irp<'irp>, units: &[u16], passive: &mut Passive) -> Answer<'irp> {
    let Some(block) = allocate::<B>(size_of_val(units) + 2, passive) else { return no_memory(irp, passive) };
    let copy = block.cast::<u16>();
    // SAFETY: the block has room for the text and its NUL.
    unsafe {
        core::ptr::copy_nonoverlapping(units.as_ptr(), copy, units.len());
        copy.wrapping_add(units.len()).write(0);
    }
    answer(irp, block, passive)
}

fn id<'irp, B: Bus>(child: &ChildDevice<B>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    let who = &child.identity;
    // SAFETY: the request is ours.
    let units = match unsafe { raw::get(irp.stack(), IO_STACK_LOCATION::Parameters_QueryId_IdType) } {
        abi::BusQueryDeviceID => who.device.units(),
        abi::BusQueryInstanceID => who.instance.units(),
        abi::BusQueryHardwareIDs => who.hardware.units(),
        abi::BusQueryCompatibleIDs => who.compatible.units(),
        _ => &[],
    };
    if units.is_empty() { irp.complete_as_it_came(passive) } else { give::<B>(irp, units, passive) }
}

fn text<'irp, B: Bus>(child: &ChildDevice<B>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    let who = &child.identity;
    // SAFETY: the request is ours.
    let kind = unsafe { raw::get(irp.stack(), IO_STACK_LOCATION::Parameters_QueryDeviceText_DeviceTextType) };
    let text = match kind {
        abi::DeviceTextDescription => who.description.as_ref(),
        abi::DeviceTextLocationInformation => who.location.as_ref(),
        _ => None,
    };
    match text.map(Name::units) {
        Some(units) => give::<B>(irp, units, passive),
        None => irp.complete_as_it_came(passive),
    }
}

fn capabilities<'irp, B: Bus>(child: &ChildDevice<B>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    type Capabilities = DEVICE_CAPABILITIES;
    // SAFETY: the request is ours, and the structure the asker's, for us to fill in; its size was looked at.
    unsafe {
        let asked = raw::follow(irp.stack(), IO_STACK_LOCATION::Parameters_DeviceCapabilities_Capabilities);
        if raw::get(asked, Capabilities::Version) != 1
            || usize::from(raw::get(asked, Capabilities::Size)) < size_of::<Capabilities>()
        {
            return irp.complete(NtStatus::UNSUCCESSFUL, 0, passive);
        }
        let bits = raw::get(asked, Capabilities::Bits) | child.identity.abilities;
        raw::set(asked, Capabilities::Bits, bits);
        if child.identity.address != u32::MAX {
            raw::set(asked, Capabilities::Address, child.identity.address);
            raw::set(asked, Capabilities::UINumber, child.identity.address);
        }
        // D0 while the system works, else D3; the first is that of no state.
        let mut states = [abi::PowerDeviceD3; 7];
        states[0] = abi::PowerDeviceUnspecified;
        states[1] = abi::PowerDeviceD0;
        raw::set(asked, Capabilities::DeviceState, states);
    }
    irp.complete(NtStatus::SUCCESS, 0, passive)
}

fn bus_information<'irp, B: Bus>(irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    let Some(block) = allocate::<B>(size_of::<PNP_BUS_INFORMATION>(), passive) else {
        return no_memory(irp, passive);
    };
    let information = block.cast::<PNP_BUS_INFORMATION>();
    // SAFETY: the block is ours, and large enough.
    unsafe {
        raw::set(information, PNP_BUS_INFORMATION::BusTypeGuid, B::BUS_TYPE);
        raw::set(information, PNP_BUS_INFORMATION::LegacyBusType, B::LEGACY_BUS_TYPE);
        raw::set(information, PNP_BUS_INFORMATION::BusNumber, 0);
    }
    answer(irp, block, passive)
}

/// The physical device object itself, referenced. A child has no other relations.
fn target_relation<'irp, B: Bus>(
    object: *mut DEVICE_OBJECT,
    irp: Irp<'irp>,
    passive: &mut Passive,
) -> Answer<'irp> {
    // SAFETY: the request is ours.
    let kind = unsafe { raw::get(irp.stack(), IO_STACK_LOCATION::Parameters_QueryDeviceRelations_Type) };
    if kind != abi::TargetDeviceRelation || irp.information() != 0 {
        return irp.complete_as_it_came(passive);
    }
    let Some(block) = allocate::<B>(size_of::<DEVICE_RELATIONS>(), passive) else {
        return no_memory(irp, passive);
    };
    let relations = block.cast::<DEVICE_RELATIONS>();
    // SAFETY: the block is ours, and has room for one device; the object is the child's.
    unsafe {
        sys::ObfReferenceObject(object.cast());
        raw::set(relations, DEVICE_RELATIONS::Count, 1);
        raw::set(relations, DEVICE_RELATIONS::Objects, raw::stored(object));
    }
    answer(irp, block, passive)
}

fn eject<'irp, B: Bus>(child: &ChildDevice<B>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    if child.identity.abilities & DEVICE_CAPABILITIES::EjectSupported == 0 {
        return irp.complete_as_it_came(passive);
    }
    match B::child_eject(child, passive) {
        Ok(()) => {
            child.bus().is_ejected(child, passive);
            irp.complete(NtStatus::SUCCESS, 0, passive)
        }
        Err(status) => irp.complete(status, 0, passive),
    }
}
