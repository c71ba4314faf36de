//! Values and subkeys as drivers read, write and enumerate them.
//!
//! Pages: *ZwQueryValueKey function*, *ZwSetValueKey function*, *ZwEnumerateKey function*, *ZwEnumerateValueKey function*,
//! *ZwQueryKey function*, *ZwDeleteValueKey function*. Drivers that filter the registry are called (`callbacks`).

use abi::{DriverPtr, KeyNameInformation, NtStatus, REG_NONE, UNICODE_STRING};
use engine::Flow;

use super::information::{self, Form, of_key, of_value};
use super::key::{by_handle, status};
use super::registry::KeyId;
use super::{absent, access, callbacks};
use crate::cx::Cx;
use crate::rtl::string;

/// Two members of 32 bits, in one word.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// `ZwQueryValueKey`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn query(
    cx: &mut Cx<'_>,
    handle: u64,
    name: DriverPtr<UNICODE_STRING>,
    class: u32,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let rest = [name.address, class.into(), to, room.into(), length.address];
    let name = string::read(cx, name)?;
    callbacks::around(cx, callbacks::QUERY_VALUE, handle, &rest, |cx| {
        let key = by_handle(cx, handle);
        let form = key.and_then(|key| cx.with(|k| of_value(class, k.cm.registry.value(key, &name)?)));
        if let (Ok(key), Err(NtStatus::OBJECT_NAME_NOT_FOUND)) = (key, &form) {
            let data = information::room_for_data(class, name.len(), room);
            cx.with(|k| absent::note_value(&mut k.cm, key, &name, REG_NONE, data));
        }
        information::store(cx, form, to, room, length)
    })
}

/// `ZwEnumerateValueKey`.
///
/// # Errors
/// As [`query`].
pub(crate) fn enumerate(
    cx: &mut Cx<'_>,
    handle: u64,
    index: u32,
    class: u32,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let rest = [pair(index, class), to, room.into(), length.address];
    callbacks::around(cx, callbacks::ENUMERATE_VALUE, handle, &rest, |cx| {
        let form = by_handle(cx, handle)
            .and_then(|key| cx.with(|k| of_value(class, k.cm.registry.value_at(key, index as usize)?)));
        information::store(cx, form, to, room, length)
    })
}

/// `ZwQueryKey`.
///
/// # Errors
/// As [`query`].
pub(crate) fn query_key(
    cx: &mut Cx<'_>,
    handle: u64,
    class: u32,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let rest = [class.into(), to, room.into(), length.address];
    callbacks::around(cx, callbacks::QUERY_KEY, handle, &rest, |cx| {
        let form = by_handle(cx, handle).and_then(|key| describe(cx, key, class));
        information::store(cx, form, to, room, length)
    })
}

/// `ZwEnumerateKey`.
///
/// # Errors
/// As [`query`].
pub(crate) fn enumerate_key(
    cx: &mut Cx<'_>,
    handle: u64,
    index: u32,
    class: u32,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let rest = [pair(index, class), to, room.into(), length.address];
    callbacks::around(cx, callbacks::ENUMERATE_KEY, handle, &rest, |cx| {
        let form = by_handle(cx, handle).and_then(|key| {
            let subkey = cx.with(|k| k.cm.registry.subkey(key, index as usize))?;
            if class == KeyNameInformation {
                Err(NtStatus::INVALID_PARAMETER)
            } else {
                describe(cx, subkey, class)
            }
        });
        information::store(cx, form, to, room, length)
    })
}

fn describe(cx: &mut Cx<'_>, key: KeyId, class: u32) -> Result<Form, NtStatus> {
    cx.with(|k| of_key(class, &k.cm.registry.facts(key)?, &k.cm.registry.path(key)?))
}

/// `ZwSetValueKey`.
///
/// # Errors
/// As [`query`].
pub(crate) fn set(
    cx: &mut Cx<'_>,
    handle: u64,
    name: DriverPtr<UNICODE_STRING>,
    title: u32,
    kind: u32,
    data: u64,
    length: u32,
) -> Flow<NtStatus> {
    let rest = [name.address, pair(title, kind), data, length.into()];
    let name = string::read(cx, name)?;
    let data = cx.read_bytes(data, length.into())?;
    callbacks::around(cx, callbacks::SET_VALUE, handle, &rest, |cx| {
        let key = by_handle(cx, handle);
        Ok(status(key.and_then(|key| access::set_value(cx, key, &name, kind, &data))))
    })
}

/// `ZwDeleteValueKey`.
///
/// # Errors
/// As [`query`].
pub(crate) fn delete(cx: &mut Cx<'_>, handle: u64, name: DriverPtr<UNICODE_STRING>) -> Flow<NtStatus> {
    let rest = [name.address];
    let name = string::read(cx, name)?;
    callbacks::around(cx, callbacks::DELETE_VALUE, handle, &rest, |cx| {
        let key = by_handle(cx, handle);
        Ok(status(key.and_then(|key| access::delete_value(cx, key, &name))))
    })
}
