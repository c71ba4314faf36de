//! `MmGetSystemRoutineAddress`: an export by name, at run time.
//!
//! A name that this Windows version does not have gives null, as documented: drivers ask to find out. A name it has and
//! dirql does not gives an address that is a verdict when it is called.

use abi::{DriverPtr, UNICODE_STRING};
use engine::Flow;
use image::Selector;

use super::imports;
use crate::cx::Cx;
use crate::exports::documented;
use crate::rtl::string;

/// `MmGetSystemRoutineAddress`.
///
/// # Errors
/// A verdict if the name cannot be read.
pub fn system_routine_address(cx: &mut Cx<'_>, name: DriverPtr<UNICODE_STRING>) -> Flow<u64> {
    let name = String::from_utf16_lossy(&string::read(cx, name)?);
    if cx.with(|k| imports::too_new(k, &name)).is_some() {
        return Ok(0);
    }
    if let Some(address) = imports::kernel_entry(&Selector::Name(name.clone())) {
        return Ok(address);
    }
    Ok(documented::find(&name).and_then(|known| imports::missing(cx, known.module, &name)).unwrap_or(0))
}
