//! `RtlQueryRegistryValues`: a driver's table of values to be read, each stored directly or passed to a routine.
//!
//! Pages: *RtlQueryRegistryValues function*, *QUERY_REGISTRY_ROUTINE callback function*. Of the environment only
//! `%SystemRoot%` is known.

use abi::{
    DriverPtr, NtStatus, REG_EXPAND_SZ, REG_MULTI_SZ, REG_NONE, REG_SZ, RTL_QUERY_REGISTRY_DELETE,
    RTL_QUERY_REGISTRY_DIRECT, RTL_QUERY_REGISTRY_NOEXPAND, RTL_QUERY_REGISTRY_NOVALUE,
    RTL_QUERY_REGISTRY_REQUIRED, RTL_QUERY_REGISTRY_SUBKEY, RTL_QUERY_REGISTRY_TABLE,
    RTL_QUERY_REGISTRY_TOPKEY, RTL_QUERY_REGISTRY_TYPECHECK, RTL_QUERY_REGISTRY_TYPECHECK_SHIFT,
    UNICODE_STRING,
};
use engine::Flow;

use super::registry::{KeyId, Value};
use super::relative;
use super::{absent, access};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::mm::pool;
use crate::rtl::{crt, string, text};
use crate::verdict::Verdict;

/// Entries of one table: a table without its end is not read for ever.
const MOST_ENTRIES: u64 = 4096;

/// One line of the table.
struct Entry {
    routine: u64,
    flags: u32,
    /// Where the name lies, and its text; 0 if there is none.
    name_at: u64,
    name: Vec<u16>,
    context: u64,
    default_type: u32,
    default_data: u64,
    default_length: u32,
}

impl Entry {
    fn read(cx: &mut Cx<'_>, at: DriverPtr<RTL_QUERY_REGISTRY_TABLE>) -> Flow<Self> {
        type Line = RTL_QUERY_REGISTRY_TABLE;
        let name_at = cx.read(at + Line::Name)?.address;
        Ok(Self {
            routine: cx.read(at + Line::QueryRoutine)?.address,
            flags: cx.read(at + Line::Flags)?,
            name: if name_at == 0 { Vec::new() } else { crt::read::<2>(cx, name_at, crt::ALL)? },
            name_at,
            context: cx.read(at + Line::EntryContext)?.address,
            default_type: cx.read(at + Line::DefaultType)?,
            default_data: cx.read(at + Line::DefaultData)?.address,
            default_length: cx.read(at + Line::DefaultLength)?,
        })
    }

    /// The type that the value is expected to have, or `REG_NONE`.
    const fn expected(&self) -> u32 {
        match self.default_type & 0xFF {
            REG_NONE => self.default_type >> RTL_QUERY_REGISTRY_TYPECHECK_SHIFT,
            kind => kind,
        }
    }

    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// `RtlQueryRegistryValues`.
///
/// # Errors
/// A verdict on a bad pointer; whatever a routine of the driver's comes to.
pub(crate) fn query_registry_values(
    cx: &mut Cx<'_>,
    place: u32,
    path: u64,
    table: DriverPtr<RTL_QUERY_REGISTRY_TABLE>,
    context: u64,
    _environment: u64,
) -> Flow<NtStatus> {
    // Below an optional key that is not there nothing is: defaults apply, required values are missed.
    let top = match relative::find(cx, place, path, false)? {
        Ok(key) => key,
        Err(status) => return Ok(status),
    };
    let mut key = top;
    for index in 0..MOST_ENTRIES {
        let entry = Entry::read(cx, table.index(index))?;
        if entry.routine == 0
            && entry.name_at == 0
            && !entry.has(RTL_QUERY_REGISTRY_SUBKEY | RTL_QUERY_REGISTRY_DIRECT)
        {
            return Ok(NtStatus::SUCCESS);
        }
        if entry.has(RTL_QUERY_REGISTRY_TOPKEY | RTL_QUERY_REGISTRY_SUBKEY) {
            key = top;
        }
        if entry.has(RTL_QUERY_REGISTRY_SUBKEY) {
            let subkey = match key {
                Some(key) => absent::open(cx, Some(key), &entry.name),
                None => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            };
            key = match subkey {
                Err(status) if entry.has(RTL_QUERY_REGISTRY_REQUIRED) => return Ok(status),
                found => found.ok(),
            };
        }
        // Values under a subkey that is not there are not there.
        let status = line(cx, key, &entry, context)?;
        if !status.is_success() {
            return Ok(status);
        }
    }
    Ok(NtStatus::INVALID_PARAMETER)
}

/// Does what one line asks for.
fn line(cx: &mut Cx<'_>, key: Option<KeyId>, entry: &Entry, context: u64) -> Flow<NtStatus> {
    if entry.has(RTL_QUERY_REGISTRY_NOVALUE) {
        return tell_routine(cx, entry, &entry.name, REG_NONE, &[], context);
    }
    if entry.name_at == 0 || entry.has(RTL_QUERY_REGISTRY_SUBKEY) {
        return every_value(cx, key, entry, context);
    }
    let found = key.and_then(|key| cx.with(|k| k.cm.registry.value(key, &entry.name).ok().cloned()));
    if let (Some(key), None) = (key, &found) {
        cx.with(|k| absent::note_value(&mut k.cm, key, &entry.name, entry.expected(), 0));
    }
    match found {
        Some(value) => one_value(cx, key, entry, &value, context),
        None if entry.has(RTL_QUERY_REGISTRY_REQUIRED) => Ok(NtStatus::OBJECT_NAME_NOT_FOUND),
        None if entry.default_type & 0xFF == REG_NONE => Ok(NtStatus::SUCCESS),
        None => {
            let kind = entry.default_type & 0xFF;
            let data = default_data(cx, entry, kind)?;
            deliver(cx, entry, &Value { name: entry.name.clone(), kind, data }, context)
        }
    }
}

/// The default a line brings along; texts may leave their length to be found.
fn default_data(cx: &mut Cx<'_>, entry: &Entry, kind: u32) -> Flow<Vec<u8>> {
    if entry.default_data == 0 {
        return Ok(Vec::new());
    }
    if entry.default_length != 0 || !matches!(kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ) {
        return cx.read_bytes(entry.default_data, entry.default_length.into());
    }
    let mut units: Vec<u16> = Vec::new();
    loop {
        let text = crt::read::<2>(cx, entry.default_data + 2 * units.len() as u64, crt::ALL)?;
        let last = text.is_empty() || kind != REG_MULTI_SZ;
        units.extend(text.iter().chain(&[0]));
        if last {
            return Ok(units.iter().flat_map(|unit| unit.to_le_bytes()).collect());
        }
    }
}

fn every_value(cx: &mut Cx<'_>, key: Option<KeyId>, entry: &Entry, context: u64) -> Flow<NtStatus> {
    let (Some(key), true) = (key, entry.routine != 0) else { return Ok(NtStatus::SUCCESS) };
    let mut index = 0;
    while let Ok(value) = cx.with(|k| k.cm.registry.value_at(key, index).cloned()) {
        let status = one_value(cx, Some(key), entry, &value, context)?;
        if !status.is_success() {
            return Ok(status);
        }
        // A deleted value's place is the next one's.
        index += usize::from(!entry.has(RTL_QUERY_REGISTRY_DELETE));
    }
    Ok(NtStatus::SUCCESS)
}

fn one_value(
    cx: &mut Cx<'_>,
    key: Option<KeyId>,
    entry: &Entry,
    value: &Value,
    context: u64,
) -> Flow<NtStatus> {
    let status = deliver(cx, entry, value, context)?;
    if let (Some(key), true) = (key, entry.has(RTL_QUERY_REGISTRY_DELETE) && status.is_success()) {
        // Gone already if the routine deleted it.
        let _ = access::delete_value(cx, key, &value.name);
    }
    Ok(status)
}

fn deliver(cx: &mut Cx<'_>, entry: &Entry, value: &Value, context: u64) -> Flow<NtStatus> {
    let expand = !entry.has(RTL_QUERY_REGISTRY_NOEXPAND);
    if entry.has(RTL_QUERY_REGISTRY_DIRECT) {
        if entry.has(RTL_QUERY_REGISTRY_TYPECHECK)
            && entry.default_type >> RTL_QUERY_REGISTRY_TYPECHECK_SHIFT != value.kind
        {
            return Ok(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        return match value.kind {
            REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ => store_text(cx, entry, value, expand),
            _ => store_data(cx, entry, value),
        };
    }
    match value.kind {
        REG_MULTI_SZ if expand => {
            for text in texts(&value.data) {
                let data = [text.concat(), vec![0, 0]].concat();
                let status = tell_routine(cx, entry, &value.name, REG_SZ, &data, context)?;
                if !status.is_success() {
                    return Ok(status);
                }
            }
            Ok(NtStatus::SUCCESS)
        }
        REG_EXPAND_SZ if expand => {
            tell_routine(cx, entry, &value.name, REG_SZ, &expanded(&value.data), context)
        }
        _ => tell_routine(cx, entry, &value.name, value.kind, &value.data, context),
    }
}

/// The texts of a `REG_MULTI_SZ`, empty ones among them: each ends with a zero, and one more zero ends them all.
fn texts(data: &[u8]) -> impl Iterator<Item = &[[u8; 2]]> {
    let units = data.as_chunks::<2>().0;
    let all = units.strip_suffix(&[[0; 2]]).unwrap_or(units);
    all.split_inclusive(|unit| *unit == [0, 0]).map(|text| text.strip_suffix(&[[0; 2]]).unwrap_or(text))
}

/// Calls the driver's routine with name and data in memory of their own for as long as it runs.
fn tell_routine(
    cx: &mut Cx<'_>,
    entry: &Entry,
    name: &[u16],
    kind: u32,
    data: &[u8],
    context: u64,
) -> Flow<NtStatus> {
    if entry.routine == 0 {
        return Ok(NtStatus::SUCCESS);
    }
    let start = data.len().next_multiple_of(8);
    let mut bytes = data.to_vec();
    bytes.resize(start, 0);
    bytes.extend(name.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, bytes.len() as u64, string::TAG)?;
    if block.is_null() {
        return Ok(NtStatus::NO_MEMORY);
    }
    cx.write_bytes(block.address, &bytes)?;
    let data_at = if data.is_empty() { 0 } else { block.address };
    let name_at = block.address + start as u64;
    let arguments = [name_at, kind.into(), data_at, data.len() as u64, context, entry.context];
    let routine = DriverPtr::new(entry.routine);
    let status = call_routine(cx, Role::QueryRegistryRoutine, routine, 0, &arguments);
    pool::free(cx, block)?;
    Ok(NtStatus(u32::try_from(status? & 0xFFFF_FFFF).unwrap_or(0)))
}

/// A text is about to be stored where a line without `RTL_QUERY_REGISTRY_TYPECHECK` points: `registry-direct-type` if no `UNICODE_STRING` is there into which one
/// could go. Then the value says what is written over.
fn judge_text_place(cx: &mut Cx<'_>, entry: &Entry, value: &Value) -> Flow<()> {
    let at: DriverPtr<UNICODE_STRING> = DriverPtr::new(entry.context);
    let buffer = cx.read(at + UNICODE_STRING::Buffer)?;
    let lengths = (cx.read(at + UNICODE_STRING::Length)?, cx.read(at + UNICODE_STRING::MaximumLength)?);
    let is_one = match lengths {
        lengths if buffer.is_null() => lengths == (0, 0),
        (_, maximum) => maximum >= 2,
    };
    if !is_one && !entry.has(RTL_QUERY_REGISTRY_TYPECHECK) {
        let message = format!(
            "the value {} is a text, which RtlQueryRegistryValues stores (RTL_QUERY_REGISTRY_DIRECT) as into a UNICODE_STRING at {:#x}: there is none (Length {}, MaximumLength {}, \
             Buffer {:#x}), but what a value of another type was expected to go to. The line has no RTL_QUERY_REGISTRY_TYPECHECK",
            String::from_utf16_lossy(&value.name),
            entry.context,
            lengths.0,
            lengths.1,
            buffer.address
        );
        cx.report(Verdict::warning("registry-direct-type", message));
    }
    Ok(())
}

/// A text into the `UNICODE_STRING` that the line points to; its buffer is allocated if it has none.
fn store_text(cx: &mut Cx<'_>, entry: &Entry, value: &Value, expand: bool) -> Flow<NtStatus> {
    let to: DriverPtr<UNICODE_STRING> = DriverPtr::new(entry.context);
    let data = if value.kind == REG_EXPAND_SZ && expand { expanded(&value.data) } else { value.data.clone() };
    let bytes = data.len() as u64;
    if bytes > 0xFFFE {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    judge_text_place(cx, entry, value)?;
    let buffer = cx.read(to + UNICODE_STRING::Buffer)?;
    let (buffer, maximum) = if buffer.is_null() {
        let buffer: DriverPtr<u16> =
            pool::allocate_for_caller(cx, pool::Kind::Paged, bytes.max(1), string::TAG)?;
        if buffer.is_null() {
            return Ok(NtStatus::NO_MEMORY);
        }
        (buffer, bytes)
    } else {
        let maximum: u64 = cx.read(to + UNICODE_STRING::MaximumLength)?.into();
        if maximum < bytes {
            return Ok(NtStatus::BUFFER_TOO_SMALL);
        }
        (buffer, maximum)
    };
    cx.write_bytes(buffer.address, &data)?;
    // One zero, that of the text's end, does not count.
    let length = if data.ends_with(&[0, 0]) { bytes - 2 } else { bytes };
    string::set(cx, to, length, maximum, buffer.address)?;
    Ok(NtStatus::SUCCESS)
}

/// Other data: a number in place, longer data into a buffer whose first word tells its room.
fn store_data(cx: &mut Cx<'_>, entry: &Entry, value: &Value) -> Flow<NtStatus> {
    if value.data.len() <= 4 {
        cx.write_bytes(entry.context, &value.data)?;
        return Ok(NtStatus::SUCCESS);
    }
    let room = cx.read(DriverPtr::<i32>::new(entry.context))?;
    let (length, available) = (value.data.len() as u64, u64::from(room.unsigned_abs()));
    if room < 0 {
        if available < length {
            return Ok(NtStatus::BUFFER_TOO_SMALL);
        }
        cx.write_bytes(entry.context, &value.data)?;
    } else {
        if available < 8 + length {
            return Ok(NtStatus::BUFFER_TOO_SMALL);
        }
        cx.write(DriverPtr::<u32>::new(entry.context), u32::try_from(length).unwrap_or(0))?;
        cx.write(DriverPtr::<u32>::new(entry.context + 4), value.kind)?;
        cx.write_bytes(entry.context + 8, &value.data)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// A text with `%SystemRoot%` put in.
fn expanded(data: &[u8]) -> Vec<u8> {
    let text = String::from_utf16_lossy(&text::units(data));
    let lower = text.to_ascii_lowercase();
    let Some(at) = lower.find("%systemroot%") else { return data.to_vec() };
    let whole = [&text[..at], "C:\\WINDOWS", &text[at + "%systemroot%".len()..]].concat();
    whole.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
