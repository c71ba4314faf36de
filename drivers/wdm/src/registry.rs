//! Settings from the registry: numbers in the service's `Parameters` key and in a device's hardware key.
//!
//! Pages: *RtlQueryRegistryValues*, *IoOpenDeviceRegistryKey*, *ZwQueryValueKey*. It reads `REG_DWORD` values only, and
//! writes none.

use core::marker::PhantomData;
use core::ptr::null_mut;

use abi::{KEY_VALUE_PARTIAL_INFORMATION as Value, RTL_QUERY_REGISTRY_TABLE as Table, UNICODE_STRING};

use crate::device::Pdo;
use crate::irql::Passive;
use crate::text::Name;
use crate::{raw, sys};

/// Most characters of a service's key, its closing NUL included: names of services have at most 256.
const PATH_CAPACITY: usize = 384;

/// The service's key, as `DriverEntry` is given it.
pub struct RegistryPath<'entry> {
    path: *mut UNICODE_STRING,
    entry: PhantomData<&'entry ()>,
}

impl RegistryPath<'_> {
    /// # Safety
    /// `path` is the string that `DriverEntry` was given, and lives for `'entry`.
    pub(crate) unsafe fn new(path: *mut UNICODE_STRING) -> Self {
        Self { path, entry: PhantomData }
    }

    /// The `REG_DWORD` named `name` in the subkey `Parameters`; `default` if there is none.
    #[must_use]
    pub fn parameter(&self, name: &Name, default: u32, _passive: &mut Passive) -> u32 {
        // SAFETY: the path is a counted string, by `new`.
        let path = unsafe {
            let units = raw::get(self.path, UNICODE_STRING::Length) / 2;
            core::slice::from_raw_parts(raw::follow(self.path, UNICODE_STRING::Buffer), units.into())
        };
        let mut terminated = [0; PATH_CAPACITY];
        let Some(place) = terminated.get_mut(..path.len()).filter(|_| path.len() < PATH_CAPACITY) else {
            return default;
        };
        place.copy_from_slice(path);

        const PARAMETERS: Name = Name::new("Parameters");
        let subkey = PARAMETERS;
        let mut number = default;
        let mut tables = [Table::zeroed(); 3]; // the last one ends the list
        let [first, second, _] = &mut tables;
        // SAFETY: the tables are ours; a value of another type than asked for is not stored.
        unsafe {
            raw::set(first, Table::Flags, abi::RTL_QUERY_REGISTRY_SUBKEY);
            raw::set(first, Table::Name, raw::stored(subkey.as_wide().cast_mut()));
            let flags = abi::RTL_QUERY_REGISTRY_DIRECT | abi::RTL_QUERY_REGISTRY_TYPECHECK;
            raw::set(second, Table::Flags, flags);
            raw::set(second, Table::Name, raw::stored(name.as_wide().cast_mut()));
            raw::set(second, Table::EntryContext, raw::stored(&raw mut number));
            let kind = abi::REG_DWORD << abi::RTL_QUERY_REGISTRY_TYPECHECK_SHIFT | abi::REG_NONE;
            raw::set(second, Table::DefaultType, kind);
        }
        // SAFETY: at PASSIVE_LEVEL; path, names, tables and number outlive the call.
        let status = unsafe {
            let tables = tables.as_mut_ptr();
            sys::RtlQueryRegistryValues(
                abi::RTL_REGISTRY_ABSOLUTE,
                terminated.as_ptr(),
                tables,
                null_mut(),
                null_mut(),
            )
        };
        if status.is_success() { number } else { default }
    }
}

/// A `REG_DWORD` as `ZwQueryValueKey` returns it.
#[repr(C, align(8))]
struct Dword([u32; 4]);

const DWORD_BYTES: u32 = 16;
const _: () = assert!(size_of::<Dword>() == DWORD_BYTES as usize);

impl Pdo {
    /// The `REG_DWORD` named `name` in the device's hardware key; `default` if there is none.
    #[must_use]
    pub fn hardware_setting(&self, name: &Name, default: u32, _passive: &mut Passive) -> u32 {
        let mut key = null_mut();
        let mut value = Dword([0; 4]);
        let mut length = 0;
        // SAFETY: at PASSIVE_LEVEL; all that the calls are given outlives them, and the key is closed once.
        let status = unsafe {
            let kind = abi::PLUGPLAY_REGKEY_DEVICE;
            let status = sys::IoOpenDeviceRegistryKey(self.object(), kind, abi::KEY_READ, &raw mut key);
            if !status.is_success() {
                return default;
            }
            let status = sys::ZwQueryValueKey(
                key,
                &mut name.unicode_string(),
                abi::KeyValuePartialInformation,
                (&raw mut value).cast(),
                DWORD_BYTES,
                &raw mut length,
            );
            let _closed = sys::ZwClose(key);
            status
        };
        let at = (&raw mut value).cast::<Value>();
        // SAFETY: the value is ours.
        let (kind, bytes) = unsafe { (raw::get(at, Value::Type), raw::get(at, Value::DataLength)) };
        if status.is_success() && kind == abi::REG_DWORD && bytes == 4 { value.0[3] } else { default }
    }
}
