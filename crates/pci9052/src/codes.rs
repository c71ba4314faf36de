//! The driver's control codes; their table is in `drivers/pci9052/src/control.rs`.
//!
//! Page: *Defining I/O Control Codes*. All are of device type `FILE_DEVICE_UNKNOWN` and `METHOD_BUFFERED`.

const FILE_DEVICE_UNKNOWN: u32 = 0x22;
const FILE_READ_ACCESS: u32 = 1;
const FILE_WRITE_ACCESS: u32 = 2;

/// Ends with the next interrupt that no transfer caused.
pub(crate) const WAIT: u32 = code(0x900, FILE_READ_ACCESS);
pub(crate) const COUNTERS: u32 = code(0x901, FILE_READ_ACCESS);
pub(crate) const READ_LCR: u32 = code(0x902, FILE_READ_ACCESS);
pub(crate) const WRITE_LCR: u32 = code(0x903, FILE_WRITE_ACCESS);
pub(crate) const READ_EEPROM: u32 = code(0x904, FILE_READ_ACCESS);
pub(crate) const WRITE_EEPROM: u32 = code(0x905, FILE_WRITE_ACCESS);

const fn code(function: u32, access: u32) -> u32 {
    FILE_DEVICE_UNKNOWN << 16 | access << 14 | function << 2
}
