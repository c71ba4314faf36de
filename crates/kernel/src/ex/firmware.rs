//! Variables of the firmware.
//!
//! Pages: *ExGetFirmwareEnvironmentVariable function*, *ExSetFirmwareEnvironmentVariable function*, *ExGetFirmwareType
//! function*. The machine's firmware is a BIOS, which has none:
//! the status is the one that the pages give for such a machine.

use abi::NtStatus;
use engine::Flow;

use crate::cx::Cx;

/// `ExGetFirmwareEnvironmentVariable`.
///
/// # Errors
/// None.
pub(crate) fn get(
    _cx: &mut Cx<'_>,
    _name: u64,
    _vendor: u64,
    _value: u64,
    _length: u64,
    _attributes: u64,
) -> Flow<NtStatus> {
    Ok(NtStatus::NOT_IMPLEMENTED)
}

/// `ExSetFirmwareEnvironmentVariable`.
///
/// # Errors
/// None.
pub(crate) fn set(
    _cx: &mut Cx<'_>,
    _name: u64,
    _vendor: u64,
    _value: u64,
    _length: u32,
    _attributes: u32,
) -> Flow<NtStatus> {
    Ok(NtStatus::NOT_IMPLEMENTED)
}

/// `ExGetFirmwareType`: `FirmwareTypeBios`.
///
/// # Errors
/// None.
pub(crate) fn kind(_cx: &mut Cx<'_>) -> Flow<u32> {
    Ok(1)
}
