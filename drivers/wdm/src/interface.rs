//! The names by which applications find a device: symbolic links and device interfaces.
//!
//! Pages: *IoCreateSymbolicLink*, *IoRegisterDeviceInterface*, *IoSetDeviceInterfaceState*. Both go away when dropped, at
//! `PASSIVE_LEVEL`; above that their end is a bug check.

use core::cell::UnsafeCell;
use core::ptr::null_mut;

use abi::{GUID, UNICODE_STRING};

use crate::device::Pdo;
use crate::irql::{self, Passive};
use crate::text::Name;
use crate::{Result, sys};

/// A symbolic link, as `\DosDevices\Card0`.
pub struct SymbolicLink(Name);

impl SymbolicLink {
    /// Makes `link` lead to the device object named `target`.
    ///
    /// # Errors
    /// Those of `IoCreateSymbolicLink`: `STATUS_OBJECT_NAME_COLLISION` if there is one of that name.
    pub fn create(link: Name, target: &Name, _passive: &mut Passive) -> Result<Self> {
        // SAFETY: at PASSIVE_LEVEL; the strings outlive the call.
        let status =
            unsafe { sys::IoCreateSymbolicLink(&mut link.unicode_string(), &mut target.unicode_string()) };
        if status.is_success() { Ok(Self(link)) } else { Err(status) }
    }
}

impl Drop for SymbolicLink {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        // SAFETY: made by `create`; at PASSIVE_LEVEL.
        let _status = unsafe { sys::IoDeleteSymbolicLink(&mut self.0.unicode_string()) };
    }
}

/// A device's instance of an interface class. It is disabled until [enabled](Self::enable).
pub struct DeviceInterface(UnsafeCell<UNICODE_STRING>);

// SAFETY: the string is not changed before it is freed.
unsafe impl Sync for DeviceInterface {}
// SAFETY: the string is the kernel's; it may be freed by any thread.
unsafe impl Send for DeviceInterface {}

impl DeviceInterface {
    /// Registers the interface of class `class` for the device.
    ///
    /// # Errors
    /// Those of `IoRegisterDeviceInterface`.
    pub fn register(pdo: &Pdo, class: &GUID, _passive: &mut Passive) -> Result<Self> {
        let mut name = UNICODE_STRING::zeroed();
        // SAFETY: at PASSIVE_LEVEL; all arguments outlive the call.
        let status =
            unsafe { sys::IoRegisterDeviceInterface(pdo.object(), class, null_mut(), &raw mut name) };
        if status.is_success() { Ok(Self(UnsafeCell::new(name))) } else { Err(status) }
    }

    /// Lets applications find the device by it.
    ///
    /// # Errors
    /// Those of `IoSetDeviceInterfaceState`.
    pub fn enable(&self, _passive: &mut Passive) -> Result<()> {
        // SAFETY: registered; at PASSIVE_LEVEL.
        let status = unsafe { sys::IoSetDeviceInterfaceState(self.0.get(), 1) };
        if status.is_success() { Ok(()) } else { Err(status) }
    }

    /// Hides the device again. That it was hidden already is no error.
    pub fn disable(&self, _passive: &mut Passive) {
        // SAFETY: registered; at PASSIVE_LEVEL.
        let _status = unsafe { sys::IoSetDeviceInterfaceState(self.0.get(), 0) };
    }
}

impl Drop for DeviceInterface {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        // SAFETY: the string came from IoRegisterDeviceInterface; at PASSIVE_LEVEL.
        unsafe { sys::RtlFreeUnicodeString(self.0.get()) };
    }
}
