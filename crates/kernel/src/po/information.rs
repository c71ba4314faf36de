//! What the system says of its power.
//!
//! Page: *ZwPowerInformation function*: `PlatformInformation` is the only level that it supports; another one ends the run by its number.

use abi::NtStatus;
use engine::Flow;

use crate::cx::Cx;
use crate::verdict::Verdict;

/// `PlatformInformation`.
const PLATFORM: u32 = 66;
/// `POWER_PLATFORM_INFORMATION`: whether the platform is always on and always connected, which no PC of here is.
const PLATFORM_INFORMATION: [u8; 1] = [0];

/// `ZwPowerInformation`.
///
/// # Errors
/// A verdict on a bad pointer, or on a level that is not here.
pub(crate) fn zw(
    cx: &mut Cx<'_>,
    level: u32,
    input: u64,
    input_length: u32,
    output: u64,
    room: u32,
) -> Flow<NtStatus> {
    if level != PLATFORM {
        return Err(cx.stop(Verdict::not_implemented(&format!("level {level} of ZwPowerInformation"))));
    }
    if input != 0 || input_length != 0 || output == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if (room as usize) < PLATFORM_INFORMATION.len() {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(output, &PLATFORM_INFORMATION)?;
    Ok(NtStatus::SUCCESS)
}
