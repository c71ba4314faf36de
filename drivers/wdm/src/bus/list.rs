//! The children of a bus: plugged in, reported, unplugged, deleted.
//!
//! Pages: *IRP_MN_QUERY_DEVICE_RELATIONS*, *Removing a Device in a Bus Driver*, *IoInvalidateDeviceRelations*, *IoCreateDevice*. A spin lock guards the
//! list, so a child may be found gone at `DISPATCH_LEVEL`; therefore relations are put together in nonpaged pool, where the page says paged,
//! which the PnP manager frees all the same. Who takes a child off the list deletes it.
//!
//! A child that comes again while the one before has not been removed is refused: the PnP manager would take both for one device.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::AtomicBool;

use abi::{DEVICE_OBJECT, DEVICE_RELATIONS, DriverPtr, NtStatus};

use super::{Bus, ChildDevice, Identity};
use crate::device::{Device, Pdo, Role};
use crate::driver::Transfers;
use crate::irp::{Answer, Irp};
use crate::irql::{AtMostDispatch, Dispatch, Passive};
use crate::lock::SpinLock;
use crate::pnp::Stop;
use crate::remove_lock::RemoveLock;
use crate::{Result, raw, sys};

/// Where a child stands, in its extension; the list's lock guards it.
pub(super) struct Entry {
    next: *mut Self,
    object: *mut DEVICE_OBJECT,
    /// The driver says that it is there.
    is_present: bool,
    /// It has been reported at least once.
    is_known: bool,
    /// It was in the last report.
    is_reported: bool,
}

/// The children of a device; none, if it is no bus.
pub(crate) struct Children(SpinLock<Head>);

/// The first entry.
struct Head(*mut Entry);

// SAFETY: it is a pointer to what the list's lock guards.
unsafe impl Send for Head {}

impl Children {
    pub(crate) const fn new() -> Self {
        Self(SpinLock::new(Head(null_mut())))
    }
}

impl Head {
    /// Calls `body` with each entry, in the order in which they were plugged in.
    fn each(&mut self, mut body: impl FnMut(&mut Entry)) {
        let mut next = self.0;
        // SAFETY: whatever is on the list lives, and its entry is the lock's holder's alone.
        while let Some(entry) = unsafe { next.as_mut() } {
            next = entry.next;
            body(entry);
        }
    }

    /// # Safety
    /// The entry is on no list, and lives until it is taken off this one.
    unsafe fn push(&mut self, entry: *mut Entry) {
        let mut place = &raw mut self.0;
        // SAFETY: the caller's promise, and as `each`.
        unsafe {
            while let Some(other) = (*place).as_mut() {
                place = &raw mut other.next;
            }
            *place = entry;
        }
    }

    /// Takes the first such entry off: whose object it was. It is the caller's to delete.
    fn take(&mut self, is_it: impl Fn(&Entry) -> bool) -> Option<*mut DEVICE_OBJECT> {
        let mut place = &raw mut self.0;
        // SAFETY: as `each`.
        unsafe {
            while let Some(entry) = (*place).as_mut() {
                if is_it(entry) {
                    *place = entry.next;
                    return Some(entry.object);
                }
                place = &raw mut entry.next;
            }
        }
        None
    }
}

impl<B: Bus> Device<B> {
    /// A child is there: makes its physical device object and tells the PnP manager, which will ask for it and start it.
    ///
    /// # Errors
    /// `STATUS_DEVICE_BUSY` if a child with these ids is there or has not been removed yet, and those of `IoCreateDevice`. `child` is
    /// dropped.
    ///
    /// # Panics
    /// If the driver is named with [`crate::driver!`], not [`crate::bus_driver!`], which is a bug check.
    pub fn plug(&self, identity: &Identity, child: B::Child, passive: &mut Passive) -> Result<()> {
        assert!(self.role == Role::Bus, "a driver whose devices have children is named with bus_driver!");
        let object = self.new_child(identity, child, passive)?;
        let is_new = self.children.0.with(passive, |head, _dispatch| {
            let mut is_new = true;
            head.each(|entry| {
                // SAFETY: whatever is on the list lives.
                is_new &= !unsafe { ChildDevice::<B>::of(entry.object) }.identity.is_same(identity);
            });
            if is_new {
                // SAFETY: the child is new, and lives until it is taken off.
                unsafe { head.push(ChildDevice::<B>::of(object).entry.get()) };
            }
            is_new
        });
        if !is_new {
            // SAFETY: no other thread has ever seen the child.
            unsafe { delete::<B>(object, passive) };
            return Err(NtStatus::DEVICE_BUSY);
        }
        self.children_changed();
        Ok(())
    }

    /// The object of a child, which is on no list. Its parts are written where they stay: an identity is too large to be copied about on a kernel stack.
    #[inline(never)]
    fn new_child(
        &self,
        identity: &Identity,
        child: B::Child,
        passive: &mut Passive,
    ) -> Result<*mut DEVICE_OBJECT> {
        const {
            assert!(align_of::<ChildDevice<B>>() <= 16, "device extensions are aligned to 16 bytes");
            assert!(!core::mem::needs_drop::<Identity>());
            assert!(!matches!(B::CHILD_TRANSFERS, Transfers::AsBelow), "nothing is below a child");
        }
        let bytes = u32::try_from(size_of::<ChildDevice<B>>()).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let traits = abi::FILE_AUTOGENERATED_DEVICE_NAME | abi::FILE_DEVICE_SECURE_OPEN;
        let mut object = null_mut();
        // SAFETY: the driver's own object; at PASSIVE_LEVEL, and `object` outlives the call.
        let status = unsafe {
            let driver = raw::follow(self.object(), DEVICE_OBJECT::DriverObject);
            sys::IoCreateDevice(driver, bytes, null_mut(), B::CHILD_TYPE, traits, 0, &raw mut object)
        };
        if !status.is_success() {
            return Err(status);
        }
        // SAFETY: the object is new and ours, its extension has room for a `ChildDevice<B>`.
        unsafe {
            let extension = raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast::<ChildDevice<B>>();
            let entry =
                Entry { next: null_mut(), object, is_present: true, is_known: false, is_reported: false };
            (&raw mut (*extension).role).write(Role::Child);
            (&raw mut (*extension).is_stopped).write(AtomicBool::new(false));
            (&raw mut (*extension).entry).write(entry.into());
            (&raw mut (*extension).pdo).write(Pdo::new(object));
            (&raw mut (*extension).bus).write(self);
            (&raw mut (*extension).remove_lock).write(RemoveLock::zeroed());
            core::ptr::copy_nonoverlapping(identity, &raw mut (*extension).identity, 1); // it has nothing to drop
            (&raw mut (*extension).child).write(child);
            (*extension).remove_lock.initialize(B::TAG, passive);
            let transfers = match B::CHILD_TRANSFERS {
                Transfers::Direct => abi::DO_DIRECT_IO,
                Transfers::Buffered | Transfers::AsBelow => abi::DO_BUFFERED_IO,
            };
            let flags = raw::get(object, DEVICE_OBJECT::Flags) | transfers | abi::DO_POWER_PAGABLE;
            raw::set(object, DEVICE_OBJECT::Flags, flags & !abi::DO_DEVICE_INITIALIZING);
        }
        Ok(object)
    }

    /// Those children for which `is_gone` says so are no longer there: how many. The PnP manager asks, and removes them; a child that was never
    /// reported is deleted when it asks next. `is_gone` is called with the list of children locked: it must not plug, unplug or visit.
    pub fn unplug<L: AtMostDispatch>(
        &self,
        mut is_gone: impl FnMut(&ChildDevice<B>) -> bool,
        level: &mut L,
    ) -> usize {
        let mut gone = 0;
        self.children.0.with(level, |head, _dispatch| {
            head.each(|entry| {
                // SAFETY: whatever is on the list lives.
                if entry.is_present && is_gone(unsafe { ChildDevice::of(entry.object) }) {
                    entry.is_present = false;
                    gone += 1;
                }
            });
        });
        if gone > 0 {
            self.children_changed();
        }
        gone
    }

    /// Calls `visit` with each child that there is, also with those that are gone and not removed yet. The list of children is locked meanwhile: it must not
    /// plug, unplug or visit.
    pub fn visit_children<L: AtMostDispatch>(
        &self,
        mut visit: impl FnMut(&ChildDevice<B>, &mut Dispatch),
        level: &mut L,
    ) {
        self.children.0.with(level, |head, dispatch| {
            // SAFETY: whatever is on the list lives.
            head.each(|entry| visit(unsafe { ChildDevice::of(entry.object) }, dispatch));
        });
    }

    /// The PnP manager is to ask for the children.
    fn children_changed(&self) {
        // SAFETY: the device's own physical device object; at most at DISPATCH_LEVEL.
        unsafe { sys::IoInvalidateDeviceRelations(self.pdo().object(), abi::BusRelations) };
    }

    /// The child is not reported as there any more.
    pub(super) fn is_ejected(&self, child: &ChildDevice<B>, passive: &mut Passive) {
        self.children.0.with(passive, |_head, _dispatch| {
            // SAFETY: the list's lock is held, which guards the entry.
            unsafe { (*child.entry.get()).is_present = false };
        });
    }

    /// Takes a child off that is reported no more. Whether it is the caller's to delete.
    pub(super) fn take_unreported(&self, object: *mut DEVICE_OBJECT, passive: &mut Passive) -> bool {
        let is_it = |entry: &Entry| entry.object == object && !entry.is_reported;
        self.children.0.with(passive, |head, _dispatch| head.take(is_it)).is_some()
    }
}

/// Answers a question for relations: the children, behind what drivers above have reported. Other relations are the drivers' below.
pub(super) fn relations<'irp, B: Bus>(
    device: &Device<B>,
    mut irp: Irp<'irp>,
    passive: &mut Passive,
) -> Answer<'irp> {
    // SAFETY: the request is ours, a question for relations.
    let kind = unsafe { raw::get(irp.stack(), abi::IO_STACK_LOCATION::Parameters_QueryDeviceRelations_Type) };
    if kind != abi::BusRelations {
        return irp.forward(device, passive);
    }
    while let Some(object) =
        device.children.0.with(passive, |head, _| head.take(|entry| !entry.is_present && !entry.is_known))
    {
        // SAFETY: it is off the list, and was never reported to the PnP manager.
        unsafe { end::<B>(object, passive) };
    }
    let others: *mut DEVICE_RELATIONS = raw::pointer(DriverPtr::new(irp.information()));
    // SAFETY: a list that a driver above has made, if there is one; it is ours with the request.
    let list = unsafe { report(&device.children, others, B::TAG.number(), passive) };
    if !others.is_null() {
        // SAFETY: as above; the new list has what it had.
        unsafe { sys::ExFreePoolWithTag(others.cast(), 0) };
    }
    irp.set_information(list.expose_provenance() as u64);
    if list.is_null() {
        return irp.complete(NtStatus::INSUFFICIENT_RESOURCES, 0, passive);
    }
    irp.set_status(NtStatus::SUCCESS);
    irp.forward(device, passive)
}

/// A new list of `others`' devices and the children that are there, each referenced. Null where there is no memory: the devices of `others` are
/// dereferenced then.
///
/// # Safety
/// `others` is null or a list of relations.
unsafe fn report(
    children: &Children,
    others: *mut DEVICE_RELATIONS,
    tag: u32,
    passive: &mut Passive,
) -> *mut DEVICE_RELATIONS {
    let objects = |list: *mut DEVICE_RELATIONS| DEVICE_RELATIONS::Objects.of(list);
    // SAFETY: the caller's promise.
    let before = if others.is_null() { 0 } else { unsafe { raw::get(others, DEVICE_RELATIONS::Count) } };
    loop {
        let mut room = before;
        children.0.with(passive, |head, _dispatch| head.each(|entry| room += u32::from(entry.is_present)));
        let bytes = size_of::<DEVICE_RELATIONS>() + room as usize * size_of::<DriverPtr<DEVICE_OBJECT>>();
        // SAFETY: nonpaged pool, at PASSIVE_LEVEL.
        let list =
            unsafe { sys::ExAllocatePoolWithTag(abi::NonPagedPoolNx, bytes, tag) }.cast::<DEVICE_RELATIONS>();
        if list.is_null() {
            for index in 0..before as usize {
                // SAFETY: the caller's promise: as many as it says, each with a reference.
                unsafe {
                    let object = objects(others).wrapping_add(index).read_unaligned();
                    sys::ObfDereferenceObject(raw::pointer(object).cast::<c_void>());
                }
            }
            return list;
        }
        // SAFETY: the new list has room for this many.
        let written =
            children.0.with(passive, |head, _dispatch| unsafe { head.write_present(list, before, room) });
        if written {
            // SAFETY: the caller's promise, and the new list has room for them.
            unsafe { core::ptr::copy_nonoverlapping(objects(others), objects(list), before as usize) };
            return list;
        }
        // SAFETY: just allocated. A child was plugged in meanwhile: there is no room for it.
        unsafe { sys::ExFreePoolWithTag(list.cast(), tag) };
    }
}

impl Head {
    /// Writes the children that are there behind the first `before` places of a list, references and reports them. Nothing is done if
    /// there is no room for all.
    ///
    /// # Safety
    /// `list` has room for `room` devices.
    unsafe fn write_present(&mut self, list: *mut DEVICE_RELATIONS, before: u32, room: u32) -> bool {
        let mut count = before;
        self.each(|entry| count += u32::from(entry.is_present));
        if count > room {
            return false;
        }
        let mut place = DEVICE_RELATIONS::Objects.of(list).wrapping_add(before as usize);
        self.each(|entry| {
            entry.is_reported = entry.is_present;
            if entry.is_present {
                entry.is_known = true;
                // SAFETY: the caller's promise; whatever is on the list lives, at most at DISPATCH_LEVEL.
                unsafe {
                    sys::ObfReferenceObject(entry.object.cast());
                    place.write_unaligned(raw::stored(entry.object));
                }
                place = place.wrapping_add(1);
            }
        });
        // SAFETY: the caller's promise.
        unsafe { raw::set(list, DEVICE_RELATIONS::Count, count) };
        true
    }
}

/// The bus goes: so do its children, which have been removed before.
pub(super) fn bury<B: Bus>(device: &Device<B>, passive: &mut Passive) {
    // A routine of one child may plug another as long as there is one.
    while let Some(object) = device.children.0.with(passive, |head, _dispatch| head.take(|_entry| true)) {
        // SAFETY: it is off the list.
        unsafe { end::<B>(object, passive) };
    }
}

/// Waits until every request of the child has ended, and deletes it.
///
/// # Safety
/// It was taken off the list by the caller.
unsafe fn end<B: Bus>(object: *mut DEVICE_OBJECT, passive: &mut Passive) {
    // SAFETY: only who has taken it off the list deletes it.
    unsafe {
        let child = ChildDevice::<B>::of(object);
        child.stop(Stop::Remove, passive);
        if child.remove_lock.acquire(object.cast()).is_ok() {
            child.remove_lock.release_and_wait(object.cast(), passive);
        }
        delete::<B>(object, passive);
    }
}

/// Drops the driver's part of a child, and deletes its object.
///
/// # Safety
/// It is on no list, and no longer used.
pub(super) unsafe fn delete<B: Bus>(object: *mut DEVICE_OBJECT, _passive: &mut Passive) {
    // SAFETY: the caller's promise; made by `new_child`.
    unsafe {
        raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast::<ChildDevice<B>>().drop_in_place();
        sys::IoDeleteDevice(object);
    }
}
