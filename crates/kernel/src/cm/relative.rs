//! The run-time library's short ways into the registry: a well-known place and a path under it.
//!
//! Pages: *RtlWriteRegistryValue function*, *RtlDeleteRegistryValue function*, *RtlCheckRegistryKey function*,
//! *RtlCreateRegistryKey function*. `RtlQueryRegistryValues` is in `table`.

use abi::{NtStatus, RTL_REGISTRY_HANDLE, RTL_REGISTRY_OPTIONAL};
use engine::Flow;

use super::key::{by_handle, status};
use super::registry::KeyId;
use super::{absent, access};
use crate::cx::Cx;
use crate::rtl::crt;

/// The well-known places by number: `RTL_REGISTRY_ABSOLUTE` to `RTL_REGISTRY_USER`.
const PLACES: [&str; 6] = [
    "",
    "\\Registry\\Machine\\System\\CurrentControlSet\\Services\\",
    "\\Registry\\Machine\\System\\CurrentControlSet\\Control\\",
    "\\Registry\\Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion\\",
    "\\Registry\\Machine\\Hardware\\DeviceMap\\",
    "\\Registry\\User\\.Default\\",
];

/// The key that `place` and `path` name; with `make`, all that lacks is made. `None` if it lacks and is optional.
pub(crate) fn find(
    cx: &mut Cx<'_>,
    place: u32,
    path: u64,
    make: bool,
) -> Flow<Result<Option<KeyId>, NtStatus>> {
    if place & RTL_REGISTRY_HANDLE != 0 {
        return Ok(by_handle(cx, path).map(Some));
    }
    let Some(prefix) = PLACES.get((place & !RTL_REGISTRY_OPTIONAL) as usize) else {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    };
    let text = if path == 0 { Vec::new() } else { crt::read::<2>(cx, path, crt::ALL)? };
    let whole: Vec<u16> = prefix.encode_utf16().chain(text).collect();
    let key = if make {
        access::make(cx, None, &whole, true).map(|(key, _)| key)
    } else {
        absent::open(cx, None, &whole)
    };
    Ok(match key {
        Ok(key) => Ok(Some(key)),
        Err(NtStatus::OBJECT_NAME_NOT_FOUND) if place & RTL_REGISTRY_OPTIONAL != 0 => Ok(None),
        Err(status) => Err(status),
    })
}

/// `RtlWriteRegistryValue`: makes the key if it is not there.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn write(
    cx: &mut Cx<'_>,
    place: u32,
    path: u64,
    name: u64,
    kind: u32,
    data: u64,
    length: u32,
) -> Flow<NtStatus> {
    let name = crt::read::<2>(cx, name, crt::ALL)?;
    let data = cx.read_bytes(data, length.into())?;
    let set = |cx: &mut Cx<'_>, key| access::set_value(cx, key, &name, kind, &data);
    with_key(cx, place, path, true, set)
}

/// `RtlDeleteRegistryValue`.
///
/// # Errors
/// As [`write()`].
pub(crate) fn delete(cx: &mut Cx<'_>, place: u32, path: u64, name: u64) -> Flow<NtStatus> {
    let name = crt::read::<2>(cx, name, crt::ALL)?;
    let delete = |cx: &mut Cx<'_>, key| access::delete_value(cx, key, &name);
    with_key(cx, place, path, false, delete)
}

/// `RtlCheckRegistryKey`.
///
/// # Errors
/// As [`write()`].
pub(crate) fn check(cx: &mut Cx<'_>, place: u32, path: u64) -> Flow<NtStatus> {
    with_key(cx, place, path, false, |_, _| Ok(()))
}

/// `RtlCreateRegistryKey`.
///
/// # Errors
/// As [`write()`].
pub(crate) fn create(cx: &mut Cx<'_>, place: u32, path: u64) -> Flow<NtStatus> {
    with_key(cx, place, path, true, |_, _| Ok(()))
}

fn with_key(
    cx: &mut Cx<'_>,
    place: u32,
    path: u64,
    make: bool,
    then: impl FnOnce(&mut Cx<'_>, KeyId) -> Result<(), NtStatus>,
) -> Flow<NtStatus> {
    let key = find(cx, place, path, make)?;
    Ok(status(key.and_then(|key| key.map_or(Ok(()), |key| then(cx, key)))))
}
