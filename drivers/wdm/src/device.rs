//! The device object and its extension.
//!
//! Pages: *IoCreateDevice*, *IoAttachDeviceToDeviceStack*, *IoDeleteDevice*. The extension holds what the framework needs
//! and the driver's `T`, which every routine of the device is given.

use core::ops::Deref;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, NtStatus};

use crate::bus::Children;
use crate::dma::Lists;
use crate::driver::{Function, Transfers};
use crate::irql::Passive;
use crate::packet::Packets;
use crate::remove_lock::RemoveLock;
use crate::rundown::Rundown;
use crate::text::Name;
use crate::{Result, dpc, packet, raw, sys};

/// What a device object of the driver is. It lies first in each extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Role {
    /// A function or filter device, which has no children: [`Device`].
    Function,
    /// A function device which may have children: [`Device`].
    Bus,
    /// One of those: [`crate::ChildDevice`].
    Child,
}

impl Role {
    /// # Safety
    /// The object is one of the driver's, and live.
    pub(crate) unsafe fn of(object: *mut DEVICE_OBJECT) -> Self {
        // SAFETY: the caller's promise; the extension begins with a role, which nothing changes.
        unsafe { raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast::<Self>().read() }
    }
}

/// The physical device object: the bus driver's, at the bottom of the stack.
pub struct Pdo(*mut DEVICE_OBJECT);

impl Pdo {
    /// # Safety
    /// It is a physical device object that outlives this.
    pub(crate) unsafe fn new(object: *mut DEVICE_OBJECT) -> Self {
        Self(object)
    }

    pub(crate) fn object(&self) -> *mut DEVICE_OBJECT {
        self.0
    }
}

/// How many have a device by a pointer that the kernel calls them with: connected interrupts, timers, DMA adapters.
#[derive(Default)]
pub(crate) struct Ties(AtomicU32);

/// One of them. Who forgets it keeps the device from being removed: see [`Ties::expect_none`].
pub(crate) struct Tie(*const AtomicU32);

// SAFETY: it is a pointer to a counter in a device that is not removed before the tie is dropped.
unsafe impl Send for Tie {}
// SAFETY: as above.
unsafe impl Sync for Tie {}

impl Ties {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// To be asked before a device goes, when no routine of it runs any more that could make another.
    ///
    /// # Panics
    /// If something of the device is connected still, which is a bug check: else its routine would be called with memory that was
    /// freed.
    pub(crate) fn expect_none(&self) {
        assert!(
            self.0.load(Ordering::Acquire) == 0,
            "a device is removed while an interrupt, a timer or a DMA adapter of it is there"
        );
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        // SAFETY: the device is there until its ties are dropped.
        unsafe { &*self.0 }.fetch_sub(1, Ordering::Release);
    }
}

/// A device of the driver. It lives in the device extension and gives out the driver's `T`.
#[repr(C)]
pub struct Device<T> {
    pub(crate) role: Role,
    object: *mut DEVICE_OBJECT,
    pdo: Pdo,
    lower: *mut DEVICE_OBJECT,
    pub(crate) remove_lock: RemoveLock,
    /// [`crate::pnp::Phase`]; only Plug and Play requests, which come one at a time, change it.
    pub(crate) phase: AtomicU8,
    pub(crate) phase_before: AtomicU8,
    /// It is in D0, by the power requests, which come one at a time. A device starts there.
    pub(crate) in_d0: AtomicBool,
    /// It is registered as a WMI data provider.
    pub(crate) is_wmi_provider: AtomicBool,
    pub(crate) packets: Packets,
    /// Who is in a dispatch routine, or will be called with the device: work items, requests of its own.
    pub(crate) inside: Rundown<()>,
    pub(crate) ties: Ties,
    pub(crate) lists: Lists,
    /// Of a bus: what hangs on it.
    pub(crate) children: Children,
    function: T,
}

// SAFETY: the objects are the kernel's and may be used from any processor.
unsafe impl<T: Sync> Sync for Device<T> {}

impl<T> Device<T> {
    /// A device without objects, for tests of what needs none.
    #[cfg(test)]
    pub(crate) fn unattached(function: T, passive: &mut Passive) -> Self {
        let inside = Rundown::new(crate::pool::Tag::new(b"test"), passive).expect("the tests have memory");
        let _first = inside.put((), passive);
        Self {
            role: Role::Function,
            object: null_mut(),
            pdo: Pdo(null_mut()),
            lower: null_mut(),
            remove_lock: RemoveLock::zeroed(),
            phase: AtomicU8::new(0),
            phase_before: AtomicU8::new(0),
            in_d0: AtomicBool::new(true),
            is_wmi_provider: AtomicBool::new(false),
            packets: Packets::new(),
            inside,
            ties: Ties::new(),
            lists: Lists::new(),
            children: Children::new(),
            function,
        }
    }

    /// The device is not removed before this is dropped.
    pub(crate) fn tie(&self) -> Tie {
        let before = self.ties.0.fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "so many ties were forgotten that their count would begin again");
        Tie(&raw const self.ties.0)
    }

    /// The driver's own device object.
    pub(crate) fn object(&self) -> *mut DEVICE_OBJECT {
        self.object
    }

    /// Where requests go that are passed down.
    pub(crate) fn lower(&self) -> *mut DEVICE_OBJECT {
        self.lower
    }

    /// The physical device object.
    pub fn pdo(&self) -> &Pdo {
        &self.pdo
    }

    /// The device whose object this is.
    ///
    /// # Safety
    /// `object` was made by [`create`] for a `T` and lives for `'a`.
    pub(crate) unsafe fn of<'a>(object: *mut DEVICE_OBJECT) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast() }
    }
}

impl<T> Deref for Device<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.function
    }
}

/// Makes the device object with its extension and attaches it above `pdo`. Where that fails, all of it is released.
///
/// # Safety
/// `driver` is the driver's object, `pdo` the object that `AddDevice` was given. If it is a bus, the driver's routines are those of [`crate::bus`].
pub(crate) unsafe fn create<F: Function>(
    driver: *mut DRIVER_OBJECT,
    pdo: *mut DEVICE_OBJECT,
    name: &Name,
    role: Role,
    function: F,
    passive: &mut Passive,
) -> Result<()> {
    const { assert!(align_of::<Device<F>>() <= 16, "device extensions are aligned to 16 bytes") };
    let bytes = u32::try_from(size_of::<Device<F>>()).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    let inside = Rundown::new(F::TAG, passive)?;
    let _first = inside.put((), passive);
    let mut object = null_mut();
    // SAFETY: at PASSIVE_LEVEL; name and `object` outlive the call.
    let status = unsafe {
        let name = &mut name.unicode_string();
        sys::IoCreateDevice(driver, bytes, name, F::DEVICE_TYPE, F::CHARACTERISTICS, 0, &raw mut object)
    };
    if !status.is_success() {
        return Err(status);
    }
    // SAFETY: the object is new and ours, its extension has room for a `Device<F>`.
    unsafe {
        let extension = raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast::<Device<F>>();
        extension.write(Device {
            role,
            object,
            pdo: Pdo::new(pdo),
            lower: null_mut(),
            remove_lock: RemoveLock::zeroed(),
            phase: AtomicU8::new(0),
            phase_before: AtomicU8::new(0),
            in_d0: AtomicBool::new(true),
            is_wmi_provider: AtomicBool::new(false),
            packets: Packets::new(),
            inside,
            ties: Ties::new(),
            lists: Lists::new(),
            children: Children::new(),
            function,
        });
        (*extension).remove_lock.initialize(F::TAG, passive);
        (*extension).packets.initialize(passive);
        dpc::initialize::<F>(object);
        packet::initialize(object);
        if let Some(security) = const { &F::SECURITY }
            && let Err(status) = security.set(object, passive)
        {
            extension.drop_in_place();
            sys::IoDeleteDevice(object);
            return Err(status);
        }
        let Some(lower) = NonNull::new(sys::IoAttachDeviceToDeviceStack(object, pdo)) else {
            extension.drop_in_place();
            sys::IoDeleteDevice(object);
            return Err(NtStatus::NO_SUCH_DEVICE);
        };
        (*extension).lower = lower.as_ptr();
        let transfers = match F::TRANSFERS {
            Transfers::Buffered => abi::DO_BUFFERED_IO,
            Transfers::Direct => abi::DO_DIRECT_IO,
            Transfers::AsBelow => {
                raw::get(lower.as_ptr(), DEVICE_OBJECT::Flags) & (abi::DO_BUFFERED_IO | abi::DO_DIRECT_IO)
            }
        };
        let flags = raw::get(object, DEVICE_OBJECT::Flags) | transfers | abi::DO_POWER_PAGABLE;
        raw::set(object, DEVICE_OBJECT::Flags, flags & !abi::DO_DEVICE_INITIALIZING);
    }
    Ok(())
}

/// Detaches and deletes the device, and drops the driver's `T`.
///
/// # Safety
/// The device was made by [`create`]; it is no longer used, and the request that removes it has gone down.
pub(crate) unsafe fn delete<T>(object: *mut DEVICE_OBJECT, _passive: &mut Passive) {
    // SAFETY: the caller's promise.
    unsafe {
        let extension = raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast::<Device<T>>();
        let lower = (*extension).lower;
        sys::IoDetachDevice(lower);
        extension.drop_in_place();
        sys::IoDeleteDevice(object);
    }
}
