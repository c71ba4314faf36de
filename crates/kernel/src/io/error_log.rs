//! The system error log: entries that drivers write for the administrator.
//!
//! Pages: *IoAllocateErrorLogEntry function*, *IoWriteErrorLogEntry function*, *IO_ERROR_LOG_PACKET structure*. An entry
//! becomes an event; no log is kept.

use std::collections::BTreeMap;

use abi::{DriverPtr, IO_ERROR_LOG_PACKET, NtStatus};
use engine::Flow;

use super::violation::device_name;
use crate::cx::Cx;
use crate::event::Event;
use crate::mm::pool;
use crate::verdict::Verdict;

/// `ERROR_LOG_MAXIMUM_SIZE`.
const MOST_BYTES: u8 = 0xF0;

/// Entries that are allocated and not yet written: address, and the object they are about.
#[derive(Default)]
pub(crate) struct State {
    entries: BTreeMap<u64, u64>,
}

/// `IoAllocateErrorLogEntry`; null if `size` (bytes) is out of range or there is no memory.
///
/// # Errors
/// As an allocation.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    object: DriverPtr<()>,
    size: u8,
) -> Flow<DriverPtr<IO_ERROR_LOG_PACKET>> {
    let least = size_of::<IO_ERROR_LOG_PACKET>();
    if object.is_null() || usize::from(size) < least || size > MOST_BYTES {
        return Ok(DriverPtr::NULL);
    }
    let entry: DriverPtr<IO_ERROR_LOG_PACKET> =
        pool::allocate(cx, pool::Kind::NonPaged, size.into(), pool::tag(b"IoEr"))?;
    if !entry.is_null() {
        cx.with(|k| k.io.error_log.entries.insert(entry.address, object.address));
    }
    Ok(entry)
}

/// `IoWriteErrorLogEntry`: the entry is the system's from here on.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn write(cx: &mut Cx<'_>, entry: DriverPtr<IO_ERROR_LOG_PACKET>) -> Flow<()> {
    let object = take(cx, entry, "IoWriteErrorLogEntry")?;
    let code = cx.read(entry + IO_ERROR_LOG_PACKET::ErrorCode)?.0;
    let unique = cx.read(entry + IO_ERROR_LOG_PACKET::UniqueErrorValue)?;
    let status: NtStatus = cx.read(entry + IO_ERROR_LOG_PACKET::FinalStatus)?;
    let source = source(cx, object);
    cx.emit(Event::ErrorLog { source, code, unique, status: status.0 });
    pool::free(cx, entry)
}

/// `IoFreeErrorLogEntry`.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn free(cx: &mut Cx<'_>, entry: DriverPtr<IO_ERROR_LOG_PACKET>) -> Flow<()> {
    take(cx, entry, "IoFreeErrorLogEntry")?;
    pool::free(cx, entry)
}

fn take(cx: &mut Cx<'_>, entry: DriverPtr<IO_ERROR_LOG_PACKET>, ddi: &str) -> Flow<u64> {
    match cx.with(|k| k.io.error_log.entries.remove(&entry.address)) {
        Some(object) => Ok(object),
        None => {
            let message = format!(
                "{ddi} on {:#x}, which is no entry of IoAllocateErrorLogEntry (any more)",
                entry.address
            );
            Err(cx.stop(Verdict::error("error-log-entry", message)))
        }
    }
}

fn source(cx: &mut Cx<'_>, object: u64) -> String {
    match cx.with(|k| k.io.drivers.get(&object).map(|driver| driver.service.clone())) {
        Some(service) => service,
        None => device_name(cx, DriverPtr::new(object)),
    }
}
