//! Blocks of memory that a driver hangs on its driver object, by an identifier of its own.
//!
//! Pages: *IoAllocateDriverObjectExtension function*, *IoGetDriverObjectExtension function*. They go with the driver object.

use abi::{DRIVER_OBJECT, DriverPtr, NtStatus};
use engine::Flow;

use super::change;
use crate::cx::Cx;
use crate::mm::pool;

/// `IoAllocateDriverObjectExtension`.
///
/// # Errors
/// A verdict if `extension` cannot be written.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    identifier: u64,
    size: u32,
    extension: DriverPtr<u64>,
) -> Flow<NtStatus> {
    cx.write(extension, 0)?;
    if extension_of(cx, driver, identifier) != 0 {
        return Ok(NtStatus::OBJECT_NAME_COLLISION);
    }
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, size.into(), pool::tag(b"DrvE"))?;
    if block.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.with(|k| {
        change(&mut k.io.drivers, driver.address, |record| {
            record.extensions.push((identifier, block.address))
        });
    });
    cx.write(extension, block.address)?;
    Ok(NtStatus::SUCCESS)
}

fn extension_of(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, identifier: u64) -> u64 {
    cx.with(|k| {
        let extensions = &k.io.drivers.get(&driver.address)?.extensions;
        extensions.iter().find(|(known, _)| *known == identifier).map(|(_, block)| *block)
    })
    .unwrap_or(0)
}

/// `IoGetDriverObjectExtension`: the block, or null.
///
/// # Errors
/// None.
pub(crate) fn get(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, identifier: u64) -> Flow<u64> {
    Ok(extension_of(cx, driver, identifier))
}
