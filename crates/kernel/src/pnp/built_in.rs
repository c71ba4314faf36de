//! What drivers without an image share, the bus drivers `\Driver\pci` and `\Driver\PnpManager` and that of stand-ins: their driver objects; and the bus drivers'
//! physical device objects.
//!
//! Pages: *Bus Drivers*, *Creating a Physical Device Object*. Dispatch routines are rows of `exports/internal.rs`, so that a
//! `MajorFunction` table holds addresses like any driver's.

use abi::{
    DEVICE_OBJECT, DO_BUS_ENUMERATED_DEVICE, DO_DEVICE_INITIALIZING, DO_POWER_PAGABLE, DRIVER_OBJECT,
    DRVO_BUILTIN_DRIVER, DriverPtr, FILE_DEVICE_UNKNOWN, IRP_MJ_PNP, IRP_MJ_POWER, IRP_MJ_SYSTEM_CONTROL,
};
use engine::Flow;

use crate::cx::Cx;
use crate::verdict::Verdict;
use crate::{io, ldr};

/// Makes the driver object `\Driver\SERVICE` of a bus driver, whose routine for `IRP_MJ_PNP` has this name in `exports/internal.rs`.
///
/// # Errors
/// As making a driver object; a verdict if the name is taken.
pub(super) fn load(cx: &mut Cx<'_>, service: &str, dispatch_pnp: &str) -> Flow<DriverPtr<DRIVER_OBJECT>> {
    let routines = [
        (IRP_MJ_PNP, dispatch_pnp),
        (IRP_MJ_POWER, "PciDispatchPower"),
        (IRP_MJ_SYSTEM_CONTROL, "PciDispatchSystemControl"),
    ];
    match make(cx, service, &routines)? {
        Some(driver) => Ok(driver),
        None => {
            let what = format!(r"a machine in which \Driver\{service} is taken");
            Err(cx.stop(Verdict::not_implemented(&what)))
        }
    }
}

/// Makes the driver object `\Driver\SERVICE` with these routines of `exports/internal.rs`. None if the name is taken, or there is no memory.
///
/// # Errors
/// As making a driver object.
pub(crate) fn make(
    cx: &mut Cx<'_>,
    service: &str,
    routines: &[(u8, &str)],
) -> Flow<Option<DriverPtr<DRIVER_OBJECT>>> {
    let new = io::driver::NewDriver {
        directory: "\\Driver",
        service: service.to_owned(),
        base: 0,
        size: 0,
        entry: DriverPtr::NULL,
        section: DriverPtr::NULL,
    };
    let Ok(driver) = io::driver::create_driver(cx, &new)? else { return Ok(None) };
    for (major, routine) in routines {
        let slot = (driver + DRIVER_OBJECT::MajorFunction).element((*major).into());
        cx.write(slot, ldr::internal_address(routine))?;
    }
    let flags = cx.read(driver + DRIVER_OBJECT::Flags)?;
    cx.write(driver + DRIVER_OBJECT::Flags, flags | DRVO_BUILTIN_DRIVER)?;
    Ok(Some(driver))
}

/// Makes a physical device object, with a name if there is one.
///
/// # Errors
/// As making a device; a verdict if there is no memory for it.
pub(super) fn new_physical(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    name: String,
    extension: u32,
    characteristics: u32,
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let device_type = FILE_DEVICE_UNKNOWN;
    let new = io::device::NewDevice { extension, name, device_type, characteristics, exclusive: false };
    let Ok(pdo) = io::device::create(cx, driver, new)? else {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a physical device object")));
    };
    let flags = cx.read(pdo + DEVICE_OBJECT::Flags)?;
    let flags = (flags | DO_BUS_ENUMERATED_DEVICE | DO_POWER_PAGABLE) & !DO_DEVICE_INITIALIZING;
    cx.write(pdo + DEVICE_OBJECT::Flags, flags)?;
    Ok(pdo)
}
