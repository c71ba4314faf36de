//! The registry from the kernel's side: for PnP, setup and benches, by Rust strings.
//!
//! Paths begin with `\Registry`. Drivers' own calls are in the files beside.

use abi::{NtStatus, REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ};

use super::registry::{KeyId, Value};
use crate::cx::Cx;
use crate::mm::memory;
use crate::rtl;

/// System time when the machine boots: 2026-01-01 00:00 UTC, in 100 ns since 1601.
pub const BOOT_TIME: i64 = 134_116_992_000_000_000;

/// Where services have their keys.
pub const SERVICES: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Services";
/// Where devices have theirs.
pub const ENUM: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Enum";
/// Where setup classes have theirs.
pub const CLASS: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Control\\Class";

/// System time now, in 100 ns since 1601.
#[must_use]
pub fn now(cx: &Cx<'_>) -> i64 {
    cx.reads_clock();
    BOOT_TIME + i64::try_from(cx.engine().now() / 100).unwrap_or(i64::MAX - BOOT_TIME)
}

fn wide(text: &str) -> Vec<u16> {
    let mut units = Vec::with_capacity(text.len());
    units.extend(text.encode_utf16());
    units
}

/// A text's bytes as `REG_SZ` keeps them.
#[must_use]
pub fn sz(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * text.len() + 2);
    bytes.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    bytes
}

/// Texts' bytes as `REG_MULTI_SZ` keeps them.
#[must_use]
pub fn multi_sz<T: AsRef<str>>(texts: &[T]) -> Vec<u8> {
    let mut bytes: Vec<u8> = texts.iter().flat_map(|text| sz(text.as_ref())).collect();
    bytes.extend([0, 0]);
    bytes
}

/// The key at `path`, made with all on the way to it if it is not there.
///
/// # Errors
/// What a wrong path is.
pub fn create(cx: &mut Cx<'_>, path: &str) -> Result<KeyId, NtStatus> {
    make(cx, None, &wide(path), true).map(|(key, _)| key)
}

/// The same, for a key that does not outlive the system.
///
/// # Errors
/// As [`create`].
pub fn create_volatile(cx: &mut Cx<'_>, path: &str) -> Result<KeyId, NtStatus> {
    let key = create(cx, path)?;
    cx.with(|k| k.cm.registry.set_volatile(key));
    Ok(key)
}

/// The key at `path`.
///
/// # Errors
/// `OBJECT_NAME_NOT_FOUND`, or what a wrong path is.
pub fn open(cx: &mut Cx<'_>, path: &str) -> Result<KeyId, NtStatus> {
    cx.with(|k| k.cm.registry.open(None, &wide(path)))
}

/// What a key takes of the machine's memory; names are at most 510 bytes, kept twice.
const KEY: u64 = 1024;

/// Makes the key at `path`, and with `all` those on the way to it; whether it was made.
///
/// # Errors
/// What a wrong path is; `INSUFFICIENT_RESOURCES`.
pub(crate) fn make(
    cx: &mut Cx<'_>,
    base: Option<KeyId>,
    path: &[u16],
    all: bool,
) -> Result<(KeyId, bool), NtStatus> {
    let now = now(cx);
    if !cx.with(|k| k.mm.physical.memory.take(KEY)) {
        memory::tell(cx);
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let made = cx.with(|k| k.cm.registry.create(base, path, all, now));
    if !matches!(made, Ok((_, true))) {
        cx.with(|k| k.mm.physical.memory.give(KEY));
    }
    made
}

/// Deletes a key.
///
/// # Errors
/// As [`super::registry::Registry::delete`].
pub(crate) fn delete(cx: &mut Cx<'_>, key: KeyId) -> Result<(), NtStatus> {
    let now = now(cx);
    cx.with(|k| {
        let values = k.cm.registry.bytes_of_values(key);
        k.cm.registry.delete(key, now)?;
        k.mm.physical.memory.give(KEY + values);
        Ok(())
    })
}

/// Gives a value its type and data.
///
/// # Errors
/// As [`super::registry::Registry::set_value`]; `INSUFFICIENT_RESOURCES`.
pub(crate) fn set_value(
    cx: &mut Cx<'_>,
    key: KeyId,
    name: &[u16],
    kind: u32,
    data: &[u8],
) -> Result<(), NtStatus> {
    let time = now(cx);
    let (now, then) = cx.with(|k| k.cm.registry.bytes_of(key, name, data.len()));
    if !cx.with(|k| k.mm.physical.memory.take(then.saturating_sub(now))) {
        memory::tell(cx);
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.with(|k| {
        let set = k.cm.registry.set_value(key, name, kind, data, time);
        let unused = if set.is_ok() { now.saturating_sub(then) } else { then.saturating_sub(now) };
        k.mm.physical.memory.give(unused);
        set
    })
}

/// Deletes a value.
///
/// # Errors
/// As [`super::registry::Registry::delete_value`].
pub(crate) fn delete_value(cx: &mut Cx<'_>, key: KeyId, name: &[u16]) -> Result<(), NtStatus> {
    let time = now(cx);
    cx.with(|k| {
        let (now, _) = k.cm.registry.bytes_of(key, name, 0);
        k.cm.registry.delete_value(key, name, time)?;
        k.mm.physical.memory.give(now);
        Ok(())
    })
}

/// Sets a value under `path`, making the key if need be.
///
/// # Errors
/// As [`create`].
pub fn set(cx: &mut Cx<'_>, path: &str, name: &str, kind: u32, data: &[u8]) -> Result<(), NtStatus> {
    let key = create(cx, path)?;
    set_value(cx, key, &wide(name), kind, data)
}

/// Sets a text.
///
/// # Errors
/// As [`create`].
pub fn set_text(cx: &mut Cx<'_>, path: &str, name: &str, text: &str) -> Result<(), NtStatus> {
    set(cx, path, name, REG_SZ, &sz(text))
}

/// Sets a number.
///
/// # Errors
/// As [`create`].
pub fn set_number(cx: &mut Cx<'_>, path: &str, name: &str, number: u32) -> Result<(), NtStatus> {
    set(cx, path, name, REG_DWORD, &number.to_le_bytes())
}

/// A value under `path`, if it is there.
pub fn value(cx: &mut Cx<'_>, path: &str, name: &str) -> Option<Value> {
    cx.with(|k| {
        let key = k.cm.registry.open(None, &wide(path)).ok()?;
        k.cm.registry.value(key, &wide(name)).ok().cloned()
    })
}

/// A number under `path`, if there is one.
pub fn number(cx: &mut Cx<'_>, path: &str, name: &str) -> Option<u32> {
    let value = value(cx, path, name).filter(|value| value.kind == REG_DWORD)?;
    Some(u32::from_le_bytes(value.data.try_into().ok()?))
}

/// A text under `path`, if there is one.
pub fn text(cx: &mut Cx<'_>, path: &str, name: &str) -> Option<String> {
    let value = value(cx, path, name).filter(|value| matches!(value.kind, REG_SZ | REG_EXPAND_SZ))?;
    texts_of(&value.data).into_iter().next()
}

/// Whether one of the texts in the key at `path` is this one.
pub fn has_text(cx: &mut Cx<'_>, path: &str, wanted: &str) -> bool {
    let data: Vec<u8> = wanted.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    cx.with(|k| {
        let registry = &k.cm.registry;
        let Ok(key) = registry.open(None, &wide(path)) else { return false };
        let mut values = (0..).map_while(|index| registry.value_at(key, index).ok());
        values.any(|value| value.kind == REG_SZ && value.data == data)
    })
}

/// Texts under `path`; none if there is no such value.
pub fn texts(cx: &mut Cx<'_>, path: &str, name: &str) -> Option<Vec<String>> {
    let value = value(cx, path, name).filter(|value| value.kind == REG_MULTI_SZ)?;
    Some(texts_of(&value.data).into_iter().filter(|text| !text.is_empty()).collect())
}

fn texts_of(data: &[u8]) -> Vec<String> {
    let units = rtl::text::units(data);
    let mut texts: Vec<String> = units.split(|&unit| unit == 0).map(String::from_utf16_lossy).collect();
    if texts.last().is_some_and(String::is_empty) {
        texts.pop();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::rig::machine;

    #[test]
    fn a_service_written_by_one_name_is_read_by_the_other() {
        machine(|cx| {
            let card = "\\Registry\\Machine\\System\\ControlSet001\\Services\\Card";
            set_text(cx, card, "ImagePath", "\\SystemRoot\\card.sys").unwrap();
            set_number(cx, card, "Start", 3).unwrap();
            set(cx, card, "Depends", REG_MULTI_SZ, &multi_sz(&["a", "bc"])).unwrap();
            let same = format!("{SERVICES}\\CARD");
            assert_eq!(text(cx, &same, "imagepath").as_deref(), Some("\\SystemRoot\\card.sys"));
            assert_eq!(number(cx, &same, "START"), Some(3));
            assert_eq!(texts(cx, &same, "Depends").unwrap(), ["a", "bc"]);
            assert_eq!(number(cx, &same, "ImagePath"), None, "no number");
        });
    }

    #[test]
    fn the_boot_time_is_new_year_2026() {
        let leap_days =
            (1601..2026).filter(|year| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)).count();
        let days = 365 * (2026 - 1601) + i64::try_from(leap_days).unwrap();
        assert_eq!(BOOT_TIME, days * 86_400 * 10_000_000);
    }

    #[test]
    fn windows_tells_its_build() {
        machine(|cx| {
            let key = "\\Registry\\Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion";
            assert_eq!(text(cx, key, "CurrentBuild").as_deref(), Some("26100"));
            assert!(
                open(cx, "\\Registry\\Machine\\Hardware\\Description\\System\\CentralProcessor\\0").is_ok()
            );
            assert!(
                open(cx, "\\Registry\\Machine\\Hardware\\Description\\System\\CentralProcessor\\1").is_err()
            );
        });
    }
}
