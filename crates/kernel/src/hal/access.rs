//! Accesses of driver code to ports, device memory and `KUSER_SHARED_DATA`: routed to the hardware, told as events.

use engine::{Access, Flow};

use crate::cx::Cx;

/// `in`.
pub(crate) fn port_read(_cx: &mut Cx<'_>, _port: u16, _bytes: u8) -> Flow<u32> {
    todo!("hal helper")
}

/// `out`.
pub(crate) fn port_write(_cx: &mut Cx<'_>, _port: u16, _bytes: u8, _value: u32) -> Flow<()> {
    todo!("hal helper")
}

/// A load from device memory or shared data.
pub(crate) fn device_read(_cx: &mut Cx<'_>, _access: Access, _data: &mut [u8]) -> Flow<()> {
    todo!("hal helper")
}

/// A store to device memory.
pub(crate) fn device_write(_cx: &mut Cx<'_>, _access: Access, _data: &[u8]) -> Flow<()> {
    todo!("hal helper")
}

/// The instruction that accessed a device has retired.
pub(crate) fn accessed(_cx: &mut Cx<'_>) -> Flow<()> {
    todo!("hal helper")
}
