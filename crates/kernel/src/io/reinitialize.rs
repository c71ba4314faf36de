//! Routines that a driver wants called again after its `DriverEntry`.
//!
//! Page: *IoRegisterDriverReinitialization function*. They are called as soon as `DriverEntry` has returned: nothing else
//! starts at that time. The boot form is not here.

use abi::{Code, DRIVER_EXTENSION, DRIVER_OBJECT, DRVO_REINIT_REGISTERED, DriverPtr};
use engine::Flow;

use super::{driver, routine};
use crate::cx::Cx;

/// One `IoRegisterDriverReinitialization`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reinitialization {
    pub(crate) driver: u64,
    routine: DriverPtr<Code>,
    context: u64,
}

/// `IoRegisterDriverReinitialization`.
///
/// # Errors
/// A verdict if the driver object is bad.
pub fn register(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<()> {
    cx.with(|k| k.io.reinitialize.push(Reinitialization { driver: driver.address, routine, context }));
    driver::set_flags(cx, driver, DRVO_REINIT_REGISTERED)
}

/// Calls the reinitialization routines of `driver`, which may register themselves again.
pub(crate) fn all(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    loop {
        let next = cx.with(|k| {
            let index = k.io.reinitialize.iter().position(|entry| entry.driver == driver.address)?;
            Some(k.io.reinitialize.remove(index))
        });
        let Some(entry) = next else {
            return Ok(());
        };
        let flags = cx.read(driver + DRIVER_OBJECT::Flags)?;
        cx.write(driver + DRIVER_OBJECT::Flags, flags & !DRVO_REINIT_REGISTERED)?;
        let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
        let count = cx.read(extension + DRIVER_EXTENSION::Count)?.wrapping_add(1);
        cx.write(extension + DRIVER_EXTENSION::Count, count)?;
        let arguments = [driver.address, entry.context, count.into()];
        routine::call(cx, "Reinitialize", entry.routine, driver.address, &arguments)?;
    }
}
