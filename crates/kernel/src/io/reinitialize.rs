//! Routines that a driver wants called again after its `DriverEntry`.
//!
//! Pages: *IoRegisterDriverReinitialization function*, *IoRegisterBootDriverReinitialization function*. They are called as soon as `DriverEntry`
//! has returned: nothing else starts at that time. Those of the boot form are called when all devices have been started, whatever the start
//! type of the driver; later, and for a driver that another one loads, never.

use abi::{
    Code, DRIVER_EXTENSION, DRIVER_OBJECT, DRVO_BOOTREINIT_REGISTERED, DRVO_REINIT_REGISTERED, DriverPtr,
};
use engine::Flow;

use super::{driver, routine};
use crate::cx::Cx;
use crate::event::Role;

/// One `IoRegisterDriverReinitialization`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reinitialization {
    pub(crate) driver: u64,
    routine: DriverPtr<Code>,
    context: u64,
    when: When,
}

/// What a routine is called behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// `DriverEntry`.
    Entered,
    /// The start of all devices.
    Booted,
}

impl When {
    const fn flag(self) -> u32 {
        match self {
            Self::Entered => DRVO_REINIT_REGISTERED,
            Self::Booted => DRVO_BOOTREINIT_REGISTERED,
        }
    }
}

fn add(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    routine: DriverPtr<Code>,
    context: u64,
    when: When,
) -> Flow<()> {
    cx.with(|k| k.io.reinitialize.push(Reinitialization { driver: driver.address, routine, context, when }));
    driver::set_flags(cx, driver, when.flag())
}

/// `IoRegisterDriverReinitialization`.
///
/// # Errors
/// A verdict if the driver object is bad.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<()> {
    add(cx, driver, routine, context, When::Entered)
}

/// `IoRegisterBootDriverReinitialization`.
///
/// # Errors
/// A verdict if the driver object is bad.
pub(crate) fn register_boot(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<()> {
    add(cx, driver, routine, context, When::Booted)
}

/// Calls the reinitialization routines of `driver`, which may register themselves again.
pub(crate) fn all(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    call(cx, |entry| entry.driver == driver.address && entry.when == When::Entered)
}

/// All devices have been started: the routines of the boot form.
///
/// # Errors
/// A verdict on a driver.
pub fn booted(cx: &mut Cx<'_>) -> Flow<()> {
    call(cx, |entry| entry.when == When::Booted)
}

fn call(cx: &mut Cx<'_>, is_due: impl Fn(&Reinitialization) -> bool) -> Flow<()> {
    loop {
        let next = cx.with(|k| {
            let index = k.io.reinitialize.iter().position(&is_due)?;
            Some(k.io.reinitialize.remove(index))
        });
        let Some(entry) = next else {
            return Ok(());
        };
        let driver = DriverPtr::<DRIVER_OBJECT>::new(entry.driver);
        let flags = cx.read(driver + DRIVER_OBJECT::Flags)?;
        cx.write(driver + DRIVER_OBJECT::Flags, flags & !entry.when.flag())?;
        let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
        let count = cx.read(extension + DRIVER_EXTENSION::Count)?.wrapping_add(1);
        cx.write(extension + DRIVER_EXTENSION::Count, count)?;
        let arguments = [driver.address, entry.context, count.into()];
        routine::call(cx, Role::Reinitialize, entry.routine, driver.address, &arguments)?;
    }
}
