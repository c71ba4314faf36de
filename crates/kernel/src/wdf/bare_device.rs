//! A device that a client creates without its framework, though its requests go there.
//!
//! Page: *MiniportOnlyWdmDevice rule (kmdf)*. A miniport's requests go to its port driver, and it may create devices. So may a driver that has put dispatch
//! routines of its own before the framework's, which *is not known* of one that does so later.

use abi::{DRIVER_OBJECT, DriverPtr, IRP_MJ_CREATE};
use engine::Flow;

use super::{bind, is_framework};
use crate::cx::Cx;
use crate::io::driver as driver_object;
use crate::ldr;
use crate::verdict::Verdict;

/// A device of this driver's has been created.
///
/// # Errors
/// A verdict if the driver object cannot be read.
pub(crate) fn advise(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    if cx.with(|k| bind::version_of(k, driver)).is_none() {
        return Ok(());
    }
    let image = cx.read(driver + DRIVER_OBJECT::DriverStart)?.address;
    let routine = cx.read((driver + DRIVER_OBJECT::MajorFunction).element(IRP_MJ_CREATE.into()))?.address;
    let goes_to_framework = cx.with(|k| {
        let there = ldr::image_containing(k, routine);
        there.is_some_and(|there| is_framework(k, there))
    });
    if goes_to_framework && ldr::calling_image(cx) == Some(image) {
        let service = driver_object::service(cx, driver);
        let message = format!(
            "{service} has created a device with IoCreateDevice, whose requests its framework gets: it does not know the device, and crashes"
        );
        cx.report(Verdict::advice("kmdf-bare-device", message));
    }
    Ok(())
}
