//! What keys and values are, in the forms drivers ask for.
//!
//! Pages: *KEY_BASIC_INFORMATION*, *KEY_NODE_INFORMATION*, *KEY_FULL_INFORMATION*, *KEY_VALUE_BASIC_INFORMATION*,
//! *KEY_VALUE_FULL_INFORMATION*, *KEY_VALUE_PARTIAL_INFORMATION*. Made as bytes; the callers store them.
#![allow(non_upper_case_globals, reason = "the classes are Microsoft's, under Microsoft's names")]

use abi::{
    DriverPtr, KeyBasicInformation, KeyFullInformation, KeyNameInformation, KeyNodeInformation,
    KeyValueBasicInformation, KeyValueFullInformation, KeyValueFullInformationAlign64,
    KeyValuePartialInformation, KeyValuePartialInformationAlign64, NtStatus,
};
use engine::Flow;

use super::registry::{Facts, Value};
use crate::cx::Cx;
use crate::fields::Fields;

/// A form, whole, and how much of it must fit for any to be stored.
pub(crate) struct Form {
    bytes: Vec<u8>,
    fixed: usize,
}

impl Fields {
    fn form(self, fixed: usize) -> Form {
        Form { bytes: self.done(), fixed }
    }
}

/// A key's facts in the form `class`; `path` is its whole name.
pub(crate) fn of_key(class: u32, facts: &Facts, path: &[u16]) -> Result<Form, NtStatus> {
    const NO_CLASS: usize = u32::MAX as usize;
    let new = Fields::default();
    let (name, class_name) = (&facts.name, &facts.class);
    Ok(match class {
        KeyBasicInformation => new.i64(facts.written).size(0).size(2 * name.len()).wide(name).form(0x10),
        KeyNodeInformation => {
            let offset = (0x18 + 2 * name.len()).next_multiple_of(4);
            let place = if class_name.is_empty() { NO_CLASS } else { offset };
            let head = new.i64(facts.written).size(0).size(place).size(2 * class_name.len());
            let named = head.size(2 * name.len()).wide(name);
            if class_name.is_empty() {
                named.form(0x18)
            } else {
                named.pad_to(offset).wide(class_name).form(0x18)
            }
        }
        KeyFullInformation => {
            let place = if class_name.is_empty() { NO_CLASS } else { 0x2C };
            let head = new.i64(facts.written).size(0).size(place).size(2 * class_name.len());
            let keys = head.size(facts.subkeys).size(facts.longest_subkey).size(0);
            let values = keys.size(facts.values).size(facts.longest_value_name).size(facts.longest_data);
            values.wide(class_name).form(0x2C)
        }
        KeyNameInformation => new.size(2 * path.len()).wide(path).form(4),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

/// A value in the form `class`.
pub(crate) fn of_value(class: u32, value: &Value) -> Result<Form, NtStatus> {
    let new = Fields::default();
    let (name, kind, data) = (&value.name, value.kind as usize, &value.data);
    Ok(match class {
        KeyValueBasicInformation => new.size(0).size(kind).size(2 * name.len()).wide(name).form(0xC),
        KeyValueFullInformation | KeyValueFullInformationAlign64 => {
            let offset = (0x14 + 2 * name.len()).next_multiple_of(8);
            let head = new.size(0).size(kind).size(offset).size(data.len()).size(2 * name.len());
            head.wide(name).pad_to(offset).bytes(data).form(0x14)
        }
        KeyValuePartialInformation => new.size(0).size(kind).size(data.len()).bytes(data).form(0xC),
        KeyValuePartialInformationAlign64 => new.size(kind).size(data.len()).bytes(data).form(8),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

/// How many bytes of data the form `class` of a value whose name has so many units has room for in so many bytes.
pub(crate) fn room_for_data(class: u32, name: usize, room: u32) -> u32 {
    let before = match class {
        KeyValueFullInformation | KeyValueFullInformationAlign64 => (0x14 + 2 * name).next_multiple_of(8),
        KeyValuePartialInformation => 0xC,
        KeyValuePartialInformationAlign64 => 8,
        _ => return 0,
    };
    room.saturating_sub(u32::try_from(before).unwrap_or(u32::MAX))
}

/// Stores as much of a form as fits, and its whole length.
pub(crate) fn store(
    cx: &mut Cx<'_>,
    form: Result<Form, NtStatus>,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let form = match form {
        Ok(form) => form,
        Err(status) => return Ok(status),
    };
    cx.write(length, u32::try_from(form.bytes.len()).unwrap_or(u32::MAX))?;
    let room = room as usize;
    if room < form.fixed {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(to, &form.bytes[..room.min(form.bytes.len())])?;
    Ok(if room < form.bytes.len() { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS })
}
