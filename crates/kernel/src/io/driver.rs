//! Driver objects: made for a loaded image, initialised by `DriverEntry`, unloaded with a look at what is left behind.
//!
//! Pages: *DRIVER_OBJECT structure*, *DriverEntry*, *AddDevice*, *IoRegisterDriverReinitialization function*. Loading and unloading the
//! image itself is `ldr`'s.

use abi::{
    Code, DEVICE_OBJECT, DRIVER_EXTENSION, DRIVER_OBJECT, DRVO_INITIALIZED, DRVO_LEGACY_DRIVER, DriverPtr,
    IO_STATUS_BLOCK, IO_TYPE_DRIVER, IRP, IRP_MJ_MAXIMUM_FUNCTION, KEVENT, KLDR_DATA_TABLE_ENTRY, NtStatus,
    UNICODE_STRING,
};
use engine::Flow;

use super::call::low_half;
use super::{complete, device, library, reinitialize, routine, unload_check};
use crate::cx::Cx;
use crate::event::Role;
use crate::ldr;
use crate::mm::pool;
use crate::ob::{self, Kind, Procedures};
use crate::{pnp, wdf};

pub use super::library::{initialize_library, unload_library};
pub use super::load::{loaded_by_name, unload_for_program};
pub use super::reinitialize::booted;
pub use super::unload::{is_loaded, unload};

/// What the I/O manager knows of a driver beside what drivers see.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    /// The name of its service: `pciline`.
    pub(crate) service: String,
    /// Its image, from `base` for `size` bytes; 0 for built-in drivers.
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// `IoAllocateDriverObjectExtension`: client identifier → block.
    pub(crate) extensions: Vec<(u64, u64)>,
    /// Work items for its objects that are queued or run: the image stays for them.
    pub(crate) working: u32,
    /// Signaled when there are none any more; null unless that is waited for.
    pub(crate) idle: DriverPtr<KEVENT>,
    pub(crate) leaving: Leaving,
}

/// How far the unloading of a driver has come: its devices cannot be opened once it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaving {
    No,
    /// It begins when the last file on its devices is closed.
    WithLastFile,
    Begun,
}

/// An image that becomes a driver.
#[derive(Clone, Debug)]
pub struct NewDriver {
    /// The directory of its object's name: `\Driver`, or of a file system `\FileSystem`.
    pub directory: &'static str,
    /// The name of its service, which names its registry key and its object.
    pub service: String,
    /// Where the image lies; 0 for a built-in driver.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// `DriverEntry`, or null.
    pub entry: DriverPtr<Code>,
    /// What `DriverSection` points to.
    pub section: DriverPtr<KLDR_DATA_TABLE_ENTRY>,
}

const BODY: u64 = size_of::<DRIVER_OBJECT>() as u64;
const TAG: u32 = pool::tag(b"Driv");
const HARDWARE: &str = "\\REGISTRY\\MACHINE\\HARDWARE\\DESCRIPTION\\SYSTEM";

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete: free };

/// The registry key of a service, as `DriverEntry` gets it.
#[must_use]
pub fn registry_path(service: &str) -> String {
    format!("\\REGISTRY\\MACHINE\\SYSTEM\\ControlSet001\\Services\\{service}")
}

/// Makes a driver object, `\Driver\<service>` as a rule, with every dispatch routine preset to one that refuses.
///
/// # Errors
/// (inner) the name is taken, or there is no memory.
pub fn create_driver(cx: &mut Cx<'_>, new: &NewDriver) -> Flow<Result<DriverPtr<DRIVER_OBJECT>, NtStatus>> {
    let bytes = BODY + size_of::<DRIVER_EXTENSION>() as u64 + size_of::<UNICODE_STRING>() as u64;
    let driver: DriverPtr<DRIVER_OBJECT> = pool::allocate(cx, pool::Kind::NonPaged, bytes, TAG)?;
    if driver.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let name = format!("{}\\{}", new.directory, new.service);
    if let Err(status) = ob::object::create(cx, driver.address, Kind::Driver, &name, &PROCEDURES) {
        pool::free(cx, driver)?;
        return Ok(Err(status));
    }
    initialize(cx, driver, new, &name)?;
    let record = Driver {
        service: new.service.clone(),
        base: new.base,
        size: new.size,
        extensions: Vec::new(),
        working: 0,
        idle: DriverPtr::NULL,
        leaving: Leaving::No,
    };
    cx.with(|k| k.io.drivers.insert(driver.address, record));
    Ok(Ok(driver))
}

fn initialize(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, new: &NewDriver, name: &str) -> Flow<()> {
    let extension: DriverPtr<DRIVER_EXTENSION> = DriverPtr::new(driver.address + BODY);
    let hardware: DriverPtr<UNICODE_STRING> = extension.index(1).cast();
    cx.write(driver + DRIVER_OBJECT::Type, IO_TYPE_DRIVER)?;
    cx.write(driver + DRIVER_OBJECT::Size, i16::try_from(BODY).unwrap_or(i16::MAX))?;
    cx.write(driver + DRIVER_OBJECT::DriverStart, DriverPtr::new(new.base))?;
    cx.write(driver + DRIVER_OBJECT::DriverSize, low_half(new.size))?;
    cx.write(driver + DRIVER_OBJECT::DriverSection, new.section.cast())?;
    cx.write(driver + DRIVER_OBJECT::DriverInit, new.entry)?;
    cx.write(driver + DRIVER_OBJECT::DriverExtension, extension)?;
    cx.write(extension + DRIVER_EXTENSION::DriverObject, driver)?;
    cx.write(driver + DRIVER_OBJECT::HardwareDatabase, hardware)?;
    ob::string::allocate(cx, hardware, HARDWARE, pool::Kind::NonPaged, TAG)?;
    ob::string::allocate(cx, driver + DRIVER_OBJECT::DriverName, name, pool::Kind::NonPaged, TAG)?;
    let key = extension + DRIVER_EXTENSION::ServiceKeyName;
    ob::string::allocate(cx, key, &new.service, pool::Kind::NonPaged, TAG)?;
    refuse_missing(cx, driver)
}

/// Every dispatch routine that is null becomes the one that refuses.
fn refuse_missing(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    let refuse = ldr::internal_address("IopInvalidDeviceRequest");
    for major in 0..=IRP_MJ_MAXIMUM_FUNCTION {
        let slot = (driver + DRIVER_OBJECT::MajorFunction).element(major.into());
        if cx.read(slot)?.is_null() {
            cx.write(slot, refuse)?;
        }
    }
    Ok(())
}

/// The preset dispatch routine: completes with `STATUS_INVALID_DEVICE_REQUEST`. Drivers of ours may do so later (`pnp::answer_later`).
///
/// # Errors
/// As completing.
pub fn invalid_device_request(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    if let Some(pended) = pnp::answer_later::refuse(cx, device, irp)? {
        return Ok(pended);
    }
    cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status, NtStatus::INVALID_DEVICE_REQUEST)?;
    cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information, 0)?;
    complete::complete(cx, irp, 0)?;
    Ok(NtStatus::INVALID_DEVICE_REQUEST)
}

/// Calls `DriverEntry` and, if it succeeds, makes the driver's devices ready. On a system thread, at PASSIVE_LEVEL.
/// A driver that fails is gone afterwards, with findings about what it left.
///
/// # Errors
/// A verdict on the driver.
pub fn start(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<NtStatus> {
    let entry = cx.read(driver + DRIVER_OBJECT::DriverInit)?;
    let path = registry_path(&service(cx, driver));
    let answer = with_string(cx, &path, |cx, string| {
        routine::call(cx, Role::DriverEntry, entry, driver.address, &[driver.address, string.address])
    })?;
    wdf::callbacks::routine_is_over(cx)?;
    let status = NtStatus(low_half(answer));
    if !status.is_success() {
        unload_check::report(cx, driver, unload_check::When::EntryFailed)?;
        forget(cx, driver)?;
        return Ok(status);
    }
    refuse_missing(cx, driver)?;
    device::ready_all(cx, driver)?;
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    let plug_and_play = !cx.read(extension + DRIVER_EXTENSION::AddDevice)?.is_null();
    let kind = if plug_and_play { DRVO_INITIALIZED } else { DRVO_INITIALIZED | DRVO_LEGACY_DRIVER };
    set_flags(cx, driver, kind)?;
    reinitialize::all(cx, driver)?;
    Ok(status)
}

/// Makes a driver of a loaded image and starts it; libraries it imports from are initialised first. If it fails, image
/// and driver object are gone. On a system thread, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on the driver.
pub fn load(
    cx: &mut Cx<'_>,
    service: &str,
    image: &ldr::LoadedImage,
) -> Flow<Result<DriverPtr<DRIVER_OBJECT>, NtStatus>> {
    let status = library::initialize_imports(cx, image.base)?;
    if !status.is_success() {
        ldr::unload(cx, image.base)?;
        return Ok(Err(status));
    }
    let Some(entry) = image.entry else {
        return Ok(Err(NtStatus::ENTRYPOINT_NOT_FOUND));
    };
    let service = service.to_owned();
    let directory = "\\Driver";
    let new =
        NewDriver { directory, service, base: image.base, size: image.size, entry, section: image.section };
    let driver = match create_driver(cx, &new)? {
        Ok(driver) => driver,
        Err(status) => {
            ldr::unload(cx, image.base)?;
            return Ok(Err(status));
        }
    };
    let status = start(cx, driver)?;
    if !status.is_success() {
        ldr::unload(cx, image.base)?;
        return Ok(Err(status));
    }
    ldr::discard_init(cx, image.base);
    Ok(Ok(driver))
}

/// Calls the driver's `AddDevice` for a physical device object.
///
/// # Errors
/// A verdict on the driver.
pub fn add_device(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    physical: DriverPtr<DEVICE_OBJECT>,
) -> Flow<NtStatus> {
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    let routine = cx.read(extension + DRIVER_EXTENSION::AddDevice)?;
    let arguments = [driver.address, physical.address];
    let before = cx.read(driver + DRIVER_OBJECT::DeviceObject)?;
    let answer = routine::call(cx, Role::AddDevice, routine, physical.address, &arguments)?;
    let status = NtStatus(low_half(answer));
    if status.is_success() {
        super::stack::check_added(cx, driver, before)?;
    }
    Ok(status)
}

/// Takes the driver object away. Devices it left stay in memory without a driver.
pub(super) fn forget(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    ob::object::make_temporary(cx, driver.address);
    cx.with(|k| {
        k.io.reinitialize.retain(|entry| entry.driver != driver.address);
        pnp::claim::forget_driver(k, driver.address);
        pnp::detected::forget_driver(k, driver.address);
    });
    ob::object::dereference(cx, driver).map(|_| ())
}

/// The last reference to a driver object is gone.
fn free(cx: &mut Cx<'_>, driver: u64) -> Flow<()> {
    let driver = DriverPtr::<DRIVER_OBJECT>::new(driver);
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    let hardware = cx.read(driver + DRIVER_OBJECT::HardwareDatabase)?;
    free_string(cx, hardware)?;
    free_string(cx, driver + DRIVER_OBJECT::DriverName)?;
    free_string(cx, extension + DRIVER_EXTENSION::ServiceKeyName)?;
    let record = cx.with(|k| k.io.drivers.remove(&driver.address));
    for (_, block) in record.map(|record| record.extensions).unwrap_or_default() {
        pool::free(cx, DriverPtr::<()>::new(block))?;
    }
    pool::free(cx, driver)
}

/// Calls `f` with `text` as a counted string in memory, which is freed afterwards.
pub(crate) fn with_string<R>(
    cx: &mut Cx<'_>,
    text: &str,
    f: impl FnOnce(&mut Cx<'_>, DriverPtr<UNICODE_STRING>) -> Flow<R>,
) -> Flow<R> {
    let string: DriverPtr<UNICODE_STRING> = pool::allocate(cx, pool::Kind::NonPaged, 0x10, TAG)?;
    ob::string::allocate(cx, string, text, pool::Kind::NonPaged, TAG)?;
    let result = f(cx, string)?;
    free_string(cx, string)?;
    pool::free(cx, string)?;
    Ok(result)
}

fn free_string(cx: &mut Cx<'_>, string: DriverPtr<UNICODE_STRING>) -> Flow<()> {
    let buffer = cx.read(string + UNICODE_STRING::Buffer)?;
    if buffer.is_null() { Ok(()) } else { pool::free(cx, buffer) }
}

pub(crate) fn set_flags(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, flags: u32) -> Flow<()> {
    let old = cx.read(driver + DRIVER_OBJECT::Flags)?;
    cx.write(driver + DRIVER_OBJECT::Flags, old | flags)
}

/// The name of a driver's service.
pub fn service(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> String {
    cx.with(|k| k.io.drivers.get(&driver.address).map(|driver| driver.service.clone())).unwrap_or_default()
}

/// The driver object of the code that called the kernel.
pub(crate) fn calling(cx: &mut Cx<'_>) -> Option<u64> {
    let base = ldr::calling_image(cx)?;
    cx.with(|k| k.io.drivers.iter().find(|(_, driver)| driver.base == base).map(|(driver, _)| *driver))
}
