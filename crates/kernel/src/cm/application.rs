//! The registry as applications use it: `NtCreateKey`, `RegOpenKeyEx`, `RegSetValueEx`, `RegQueryValueEx`, `RegDeleteValue`, `RegDeleteKey`.
//!
//! Pages: *RegCreateKeyExW function*, which calls it for each key that is missing, and the like; *EX_CALLBACK_FUNCTION callback function* for what drivers that filter the registry get: names and data
//! are captured in the system's memory first, as since Windows 8; the buffer of an answer is the application's. It is a user who may do everything.

use abi::{
    DriverPtr, KeyValuePartialInformation, NtStatus, OBJ_CASE_INSENSITIVE, OBJECT_ATTRIBUTES, UNICODE_STRING,
};
use engine::Flow;

use super::{key, value};
use crate::cx::Cx;
use crate::io::driver::with_string;
use crate::mm::{pool, user};
use crate::ob::Handle;
use crate::ps;

const TAG: u32 = pool::tag(b"CmUs");
/// `KEY_ALL_ACCESS`.
const ALL_ACCESS: u32 = 0xF_003F;
/// Where in a `KEY_VALUE_PARTIAL_INFORMATION` the data begin, behind their length.
const PARTIAL_LENGTH: u64 = 8;
const PARTIAL_DATA: u32 = 12;

/// Opens the key of this path in the object manager's namespace, or makes its last component if `make`.
///
/// # Errors
/// A verdict on a driver that filters. (inner) Why there is no key.
pub fn open(cx: &mut Cx<'_>, path: &str, make: bool) -> Flow<Result<Handle, NtStatus>> {
    with_string(cx, path, |cx, name| {
        let size = size_of::<OBJECT_ATTRIBUTES>() as u64;
        let attributes: DriverPtr<OBJECT_ATTRIBUTES> =
            pool::allocate(cx, pool::Kind::NonPaged, size + 8, TAG)?;
        if attributes.is_null() {
            return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
        }
        cx.write_bytes(attributes.address, &vec![0; usize::try_from(size).unwrap_or(0) + 8])?;
        cx.write(attributes + OBJECT_ATTRIBUTES::Length, u32::try_from(size).unwrap_or(0))?;
        cx.write(attributes + OBJECT_ATTRIBUTES::ObjectName, name)?;
        cx.write(attributes + OBJECT_ATTRIBUTES::Attributes, OBJ_CASE_INSENSITIVE)?;
        let handle = DriverPtr::new(attributes.address + size);
        let status = if make {
            key::create(cx, handle, ALL_ACCESS, attributes, 0, DriverPtr::NULL, 0, DriverPtr::NULL)?
        } else {
            key::open(cx, handle, ALL_ACCESS, attributes)?
        };
        let opened = cx.read(handle)?;
        pool::free(cx, attributes)?;
        Ok(if status.is_success() { Ok(Handle(opened)) } else { Err(status) })
    })
}

/// Sets a value of this `REG_…` type.
///
/// # Errors
/// A verdict on a driver that filters.
pub fn set_value(cx: &mut Cx<'_>, key: Handle, name: &str, kind: u32, data: &[u8]) -> Flow<NtStatus> {
    with_string(cx, name, |cx, name| {
        let length = data.len() as u64;
        let captured: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, length.max(1), TAG)?;
        if captured.is_null() {
            return Ok(NtStatus::INSUFFICIENT_RESOURCES);
        }
        cx.write_bytes(captured.address, data)?;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let status = value::set(cx, key.0, name, 0, kind, captured.address, length)?;
        pool::free(cx, captured)?;
        Ok(status)
    })
}

/// The data of a value, of which there is room for `room` bytes.
///
/// # Errors
/// A verdict on a driver that filters. (inner) Why there are none: `BUFFER_OVERFLOW` if they are more.
pub fn query_value(cx: &mut Cx<'_>, key: Handle, name: &str, room: u32) -> Flow<Result<Vec<u8>, NtStatus>> {
    let process = u32::try_from(ps::current_process(cx)).unwrap_or(u32::MAX);
    let room = room.saturating_add(PARTIAL_DATA);
    let Some(buffer) = user::allocate(cx, process, room.into()) else {
        return Ok(Err(NtStatus::NO_MEMORY));
    };
    let status = with_string(cx, name, |cx, name| {
        let length: DriverPtr<u32> = pool::allocate(cx, pool::Kind::NonPaged, 4, TAG)?;
        if length.is_null() {
            return Ok(NtStatus::INSUFFICIENT_RESOURCES);
        }
        let status = value::query(cx, key.0, name, KeyValuePartialInformation, buffer, room, length)?;
        pool::free(cx, length)?;
        Ok(status)
    })?;
    let answer = if status.is_success() {
        let length = user::read(cx, buffer + PARTIAL_LENGTH, 4).ok();
        let length = length.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        let length = length.min(room - PARTIAL_DATA) as usize;
        Ok(user::read(cx, buffer + u64::from(PARTIAL_DATA), length).unwrap_or_default())
    } else {
        Err(status)
    };
    user::free(cx, buffer);
    Ok(answer)
}

/// Deletes a value.
///
/// # Errors
/// A verdict on a driver that filters.
pub fn delete_value(cx: &mut Cx<'_>, key: Handle, name: &str) -> Flow<NtStatus> {
    with_string(cx, name, |cx, name: DriverPtr<UNICODE_STRING>| value::delete(cx, key.0, name))
}

/// Deletes the key, which has no subkeys.
///
/// # Errors
/// A verdict on a driver that filters.
pub fn delete_key(cx: &mut Cx<'_>, key: Handle) -> Flow<NtStatus> {
    key::delete_key(cx, key.0)
}
