//! `MmGetSystemRoutineAddress` and `MmGetSystemRoutineAddressEx`: an export by name, at run time.
//!
//! A name that this Windows version does not have gives null, as documented: drivers ask to find out. A name it has and
//! dirql does not gives an address that is a verdict when it is called.

use abi::{DriverPtr, UNICODE_STRING};
use engine::Flow;
use image::Selector;

use super::imports::{self, Bound};
use crate::cx::Cx;
use crate::exports::documented;
use crate::rtl::{crt, string};

/// `MmGetSystemRoutineAddressEx`: a routine that a driver exports; none of the kernel's and the HAL's.
///
/// # Errors
/// A verdict if a name cannot be read.
pub fn routine_of_module(cx: &mut Cx<'_>, module: DriverPtr<UNICODE_STRING>, routine: u64) -> Flow<u64> {
    let module = String::from_utf16_lossy(&string::read(cx, module)?);
    let length = crt::length::<1>(cx, routine)?;
    let routine = String::from_utf8_lossy(&cx.read_bytes(routine, length)?).into_owned();
    Ok(cx.with(|k| match k.ldr.image_named(&module) {
        Some(_) if !super::is_kernel(&module) => match imports::resolve(k, &module, &Selector::Name(routine))
        {
            Bound::Image(_, address) => address,
            Bound::Kernel(_) | Bound::Missing => 0,
        },
        _ => 0,
    }))
}

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
