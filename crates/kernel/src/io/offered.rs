//! What a driver that has started offers to applications: names to open, and requests that it has routines for.
//!
//! For tools that are to find out by themselves what can be asked of a driver. It looks at names and the driver object; it asks the driver nothing.

use abi::{DEVICE_OBJECT, DRIVER_EXTENSION, DRIVER_OBJECT, DriverPtr, IRP_MJ_MAXIMUM_FUNCTION};
use engine::Flow;

use super::{device, stack};
use crate::cx::Cx;
use crate::ldr;

/// What can be asked of a driver.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Offered {
    /// The symbolic links to devices, as `CreateFile` takes them: `\\.\Name`. Those of device interfaces are among them.
    pub links: Vec<String>,
    /// The driver's named devices to which no link leads: `\Device\Name`. Of a Plug and Play driver that has neither, as filters have none, the physical device
    /// objects at the bottom of its stacks: requests for these go to the top.
    pub devices: Vec<String>,
    /// It has an `AddDevice` routine.
    pub plug_and_play: bool,
    /// Whether it has a dispatch routine of its own, by `IRP_MJ_*`.
    pub majors: Vec<bool>,
}

/// What `driver` offers now. Drives (`C:`) are no names of a driver's.
///
/// # Errors
/// A verdict if the driver object is damaged.
pub fn of(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<Offered> {
    let links: Vec<(String, String)> = cx.with(|k| {
        let names =
            k.ob.names.dos_devices().filter(|(name, to)| !name.ends_with(':') && to.starts_with(r"\Device\"));
        names.map(|(name, to)| (format!(r"\\.\{name}"), to.to_owned())).collect()
    });
    let path = |cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>| {
        cx.with(|k| k.ob.objects.get(device.address).and_then(|object| object.path.clone()))
    };
    let own = device::of_driver(cx, driver)?;
    let mut devices = Vec::new();
    for device in &own {
        let path = path(cx, *device);
        devices.extend(path.filter(|path| links.iter().all(|(_, to)| !to.eq_ignore_ascii_case(path))));
    }
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    let plug_and_play = !cx.read(extension + DRIVER_EXTENSION::AddDevice)?.is_null();
    if plug_and_play && links.is_empty() && devices.is_empty() {
        for device in own {
            let bottom = cx.with(|k| stack::bottom(k, device));
            devices.extend(path(cx, bottom));
        }
    }
    let preset = ldr::internal_address("IopInvalidDeviceRequest");
    let mut majors = Vec::new();
    for major in 0..=IRP_MJ_MAXIMUM_FUNCTION {
        let routine = cx.read((driver + DRIVER_OBJECT::MajorFunction).element(major.into()))?;
        majors.push(routine != preset);
    }
    Ok(Offered { links: links.into_iter().map(|(link, _)| link).collect(), devices, plug_and_play, majors })
}
