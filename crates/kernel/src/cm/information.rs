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

/// A form, whole, and how much of it must fit for any to be stored.
pub(crate) struct Form {
    bytes: Vec<u8>,
    fixed: usize,
}

struct Builder(Vec<u8>);

impl Builder {
    fn u32(mut self, value: usize) -> Self {
        self.0.extend(u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
        self
    }
    fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn wide(mut self, units: &[u16]) -> Self {
        self.0.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn pad_to(mut self, length: usize) -> Self {
        self.0.resize(length.max(self.0.len()), 0);
        self
    }
    fn form(self, fixed: usize) -> Form {
        Form { bytes: self.0, fixed }
    }
}

/// A key's facts in the form `class`; `path` is its whole name.
pub(crate) fn of_key(class: u32, facts: &Facts, path: &[u16]) -> Result<Form, NtStatus> {
    const NO_CLASS: usize = u32::MAX as usize;
    let new = Builder(Vec::new());
    let (name, class_name) = (&facts.name, &facts.class);
    Ok(match class {
        KeyBasicInformation => new.i64(facts.written).u32(0).u32(2 * name.len()).wide(name).form(0x10),
        KeyNodeInformation => {
            let offset = (0x18 + 2 * name.len()).next_multiple_of(4);
            let place = if class_name.is_empty() { NO_CLASS } else { offset };
            let head = new.i64(facts.written).u32(0).u32(place).u32(2 * class_name.len());
            let named = head.u32(2 * name.len()).wide(name);
            if class_name.is_empty() {
                named.form(0x18)
            } else {
                named.pad_to(offset).wide(class_name).form(0x18)
            }
        }
        KeyFullInformation => {
            let place = if class_name.is_empty() { NO_CLASS } else { 0x2C };
            let head = new.i64(facts.written).u32(0).u32(place).u32(2 * class_name.len());
            let keys = head.u32(facts.subkeys).u32(facts.longest_subkey).u32(0);
            let values = keys.u32(facts.values).u32(facts.longest_value_name).u32(facts.longest_data);
            values.wide(class_name).form(0x2C)
        }
        KeyNameInformation => new.u32(2 * path.len()).wide(path).form(4),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

/// A value in the form `class`.
pub(crate) fn of_value(class: u32, value: &Value) -> Result<Form, NtStatus> {
    let new = Builder(Vec::new());
    let (name, kind, data) = (&value.name, value.kind as usize, &value.data);
    Ok(match class {
        KeyValueBasicInformation => new.u32(0).u32(kind).u32(2 * name.len()).wide(name).form(0xC),
        KeyValueFullInformation | KeyValueFullInformationAlign64 => {
            let offset = (0x14 + 2 * name.len()).next_multiple_of(8);
            let head = new.u32(0).u32(kind).u32(offset).u32(data.len()).u32(2 * name.len());
            head.wide(name).pad_to(offset).bytes(data).form(0x14)
        }
        KeyValuePartialInformation => new.u32(0).u32(kind).u32(data.len()).bytes(data).form(0xC),
        KeyValuePartialInformationAlign64 => new.u32(kind).u32(data.len()).bytes(data).form(8),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
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
