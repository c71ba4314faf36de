//! What an installation makes of the properties of a device and of its interfaces.
//!
//! Follows *INF AddProperty Directive* and *INF DelProperty Directive*. A value that is to be combined with one of another type, or with none, replaces it, which the pages
//! do not say.

use kernel::Cx;
use kernel::pnp::property_data::{self, Owner};
use kernel::wmi::{Guid, parse_guid};

use crate::inf::{Combine, PropertyChange, PropertyWrite, Value};

/// A property's type (`DEVPROP_TYPE_*`) and its bytes.
type Data = (u32, Vec<u8>);

/// `DEVPROP_TYPE_STRING_LIST`.
const STRING_LIST: u32 = 0x2012;

/// Carries out what an INF says of its owner's properties.
pub(super) fn write(cx: &mut Cx<'_>, owner: &Owner, writes: &[PropertyWrite]) {
    for PropertyWrite { format, number, change, .. } in writes {
        // The reader of the INF has seen that it is one.
        let Some(format) = parse_guid(format) else { continue };
        let there = property_data::installed(cx, owner, format, *number);
        if let Some(value) = changed(there, change) {
            put(cx, owner, format, *number, value);
        }
    }
}

fn put(cx: &mut Cx<'_>, owner: &Owner, format: Guid, number: u32, value: Option<Data>) {
    property_data::install(cx, owner.clone(), format, number, value);
}

/// What becomes of a value: nothing, or what it is afterwards, if it is still there.
fn changed(there: Option<Data>, change: &PropertyChange) -> Option<Option<Data>> {
    match change {
        PropertyChange::Delete => Some(None),
        PropertyChange::DeleteText(text) => {
            let (STRING_LIST, bytes) = there? else { return None };
            let mut all = texts(&bytes);
            all.retain(|own| !own.eq_ignore_ascii_case(text));
            Some(Some((STRING_LIST, Value::MultiSz(all).bytes())))
        }
        PropertyChange::Set { keep_existing: true, .. } if there.is_some() => None,
        PropertyChange::Set { only_existing: true, .. } if there.is_none() => None,
        PropertyChange::Set { kind, value, combine, .. } => {
            let there = there.filter(|(own, _)| own == kind).map(|(_, bytes)| bytes);
            let value =
                there.and_then(|bytes| combined(&bytes, value, *combine)).unwrap_or_else(|| value.bytes());
            Some(Some((*kind, value)))
        }
    }
}

/// The value that is there with another one; none where it is replaced.
fn combined(there: &[u8], value: &Value, combine: Combine) -> Option<Vec<u8>> {
    let number = || <[u8; 4]>::try_from(there).ok().map(u32::from_le_bytes);
    match (combine, value) {
        (Combine::Append, Value::MultiSz(more)) => {
            let mut all = texts(there);
            all.extend(more.iter().filter(|text| !all.contains(text)).cloned().collect::<Vec<_>>());
            Some(Value::MultiSz(all).bytes())
        }
        (Combine::Or, Value::Dword(value)) => Some((number()? | value).to_le_bytes().to_vec()),
        (Combine::And, Value::Dword(value)) => Some((number()? & value).to_le_bytes().to_vec()),
        _ => None,
    }
}

/// The strings of a list, without the one that ends it.
fn texts(bytes: &[u8]) -> Vec<String> {
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let all = units.split(|unit| *unit == 0).map(String::from_utf16_lossy);
    all.filter(|text| !text.is_empty()).collect()
}
