//! Entries of the system's event log: what an administrator is to know of a device.
//!
//! Pages: *IoAllocateErrorLogEntry function*, *IoWriteErrorLogEntry function*, *IO_ERROR_LOG_PACKET structure*, *Logging Errors*. The text of a code is in a message file: those of
//! `IO_ERR_…` are the system's own, once the driver's INF names `IoLogMsg.dll` in its `AddEventLog`. An entry has no strings of the driver's; the device's name is in it anyway.
//!
//! ```
//! use wdm::*;
//!
//! fn too_late<T: Function>(device: &Device<T>, milliseconds: u32, level: &mut DispatchOrBelow) {
//!     let entry = LogEntry::new(abi::IO_ERR_TIMEOUT, NtStatus::IO_TIMEOUT).unique(1);
//!     device.log(&entry, &[milliseconds], level);
//! }
//! ```

use abi::{IO_ERROR_LOG_PACKET as Packet, NtStatus};

use crate::device::Device;
use crate::irql::AtMostDispatch;
use crate::{raw, sys};

/// Bytes of the largest entry (`ERROR_LOG_MAXIMUM_SIZE`).
const MOST_BYTES: usize = 0xF0;
/// Where its numbers begin, inside the structure, which has room for two.
#[allow(clippy::cast_possible_truncation, reason = "an offset in a small structure")]
const DATA_FROM: usize = Packet::DumpData.offset() as usize;
/// Numbers that one has room for.
const MOST_DATA: usize = (MOST_BYTES - size_of::<Packet>()) / size_of::<u32>();

/// An entry, without its numbers.
#[derive(Clone, Copy)]
pub struct LogEntry {
    code: u32,
    status: NtStatus,
    unique: u32,
}

impl LogEntry {
    /// An entry of this code (`IO_ERR_…`, or of a message file of the driver's own) about something that ended with `status`.
    #[must_use]
    pub const fn new(code: u32, status: NtStatus) -> Self {
        Self { code, status, unique: 0 }
    }

    /// Says where in the driver it was written (`UniqueErrorValue`).
    #[must_use]
    pub const fn unique(self, unique: u32) -> Self {
        Self { unique, ..self }
    }
}

impl<T> Device<T> {
    /// Writes an entry about this device, with numbers that are shown behind its text. It is lost where there is no memory for it, as the page
    /// says of it. More than 48 numbers do not compile.
    pub fn log<const N: usize>(&self, entry: &LogEntry, data: &[u32; N], _level: &mut impl AtMostDispatch) {
        const { assert!(N <= MOST_DATA, "an entry has room for 48 numbers") };
        let bytes = (DATA_FROM + size_of_val(data)).max(size_of::<Packet>());
        let Ok(size) = u8::try_from(bytes) else { return };
        // SAFETY: the device object is ours; at most at DISPATCH_LEVEL. The entry is so long, and the system's once it is written.
        unsafe {
            let packet = sys::IoAllocateErrorLogEntry(self.object().cast(), size).cast::<Packet>();
            if packet.is_null() {
                return;
            }
            packet.cast::<u8>().write_bytes(0, bytes);
            #[expect(clippy::cast_possible_truncation, reason = "at most 48 numbers")]
            raw::set(packet, Packet::DumpDataSize, (size_of::<u32>() * N) as u16);
            raw::set(packet, Packet::ErrorCode, NtStatus(entry.code));
            raw::set(packet, Packet::UniqueErrorValue, entry.unique);
            raw::set(packet, Packet::FinalStatus, entry.status);
            let numbers = Packet::DumpData.of(packet);
            for (index, number) in data.iter().enumerate() {
                numbers.wrapping_add(index).write_unaligned(*number);
            }
            sys::IoWriteErrorLogEntry(packet.cast());
        }
    }
}
