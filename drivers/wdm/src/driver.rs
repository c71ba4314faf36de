//! A driver and its devices: the routines they have, and the entry that registers them.
//!
//! Pages: *DRIVER_OBJECT*, *DriverEntry*, *AddDevice*, *Writing Dispatch Routines*. Every request is accepted under the
//! device's remove lock. It has no fast I/O, and no routine for requests of file systems.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null};

use abi::{DEVICE_OBJECT, DRIVER_EXTENSION, DRIVER_OBJECT, IRP, NtStatus, UNICODE_STRING};

use crate::bus::{self, Bus};
use crate::device::{self, Device, Pdo, Role};
use crate::irp::{Answer, Irp, Owned, PendingIrp};
use crate::irql::{Dispatch, DispatchOrBelow, Passive};
use crate::packet::Packet;
use crate::pnp::{self, Stop};
use crate::pool::{PoolBox, Tag};
use crate::registry::RegistryPath;
use crate::resource::Resources;
use crate::rundown::User;
use crate::security::Security;
use crate::text::Name;
use crate::wmi::{self, KeptPath, Offered};
use crate::{Result, packet, power, raw, sys};

/// What a driver has once: made by `DriverEntry`, dropped when it is unloaded.
pub trait Driver: Sized + Send + Sync + 'static {
    /// Its devices.
    type Function: Function<Driver = Self>;

    /// `DriverEntry`: reads settings, takes what all devices share.
    ///
    /// # Errors
    /// Why the driver cannot be loaded.
    fn load(registry: &RegistryPath<'_>, passive: &mut Passive) -> Result<Self>;
}

/// The state and routines of a function device. Requests it has no routine for end with `STATUS_INVALID_DEVICE_REQUEST`.
/// It is made and dropped at `PASSIVE_LEVEL`.
pub trait Function: Sized + Sync + 'static {
    /// The driver that has such devices.
    type Driver: Driver<Function = Self>;
    /// Names what the framework allocates for it.
    const TAG: Tag;
    /// `FILE_DEVICE_*`.
    const DEVICE_TYPE: u32 = abi::FILE_DEVICE_UNKNOWN;
    /// `FILE_DEVICE_SECURE_OPEN` and its like.
    const CHARACTERISTICS: u32 = abi::FILE_DEVICE_SECURE_OPEN;
    /// How reads and writes come.
    const TRANSFERS: Transfers = Transfers::Buffered;

    /// Who may open it, where the INF does not say so: see [`Security`].
    const SECURITY: Option<Security> = None;
    /// What it offers by WMI: see [`crate::wmi`]. Nothing, if not said.
    const WMI: &'static [Offered<Self>] = &[];

    /// `AddDevice`: the device's name and state. The card is not to be touched yet.
    ///
    /// # Errors
    /// Why there can be no such device.
    fn add(driver: &Self::Driver, pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)>;

    /// `IRP_MN_START_DEVICE`, when the drivers below have started: takes the hardware into use.
    ///
    /// # Errors
    /// Why it cannot; all that was taken is released then.
    fn start(device: &Device<Self>, resources: &Resources<'_>, passive: &mut Passive) -> Result<()>;

    /// Brings the card to rest and lets further requests wait: it may be stopped or removed.
    ///
    /// # Errors
    /// Why it may not; [`Function::resume`] is called then.
    fn pause(device: &Device<Self>, passive: &mut Passive) -> Result<()>;

    /// Goes on after [`Function::pause`].
    fn resume(device: &Device<Self>, passive: &mut Passive);

    /// Gives up the hardware, if it has it. It may come without [`Function::pause`], and after a start that failed.
    fn stop(device: &Device<Self>, why: Stop, passive: &mut Passive);

    /// The device is about to leave D0: it will lose its registers. Called once until [`Function::power_up`] is.
    fn power_down(_device: &Device<Self>, _passive: &mut Passive) {}

    /// The device is in D0 again, behind [`Function::power_down`]. A request for D0 that comes where the device is there reaches no driver:
    /// requests are under way.
    fn power_up(_device: &Device<Self>, _level: &mut DispatchOrBelow) {}

    /// `IRP_MJ_CREATE`.
    fn create<'irp>(_device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    /// `IRP_MJ_CLEANUP`: the last handle of a file is closed; its requests are to end.
    fn cleanup<'irp>(_device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    /// `IRP_MJ_CLOSE`.
    fn close<'irp>(_device: &Device<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    /// `IRP_MJ_READ`, as [`Function::TRANSFERS`] says.
    fn read<'irp>(_device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level)
    }

    /// `IRP_MJ_WRITE`, as [`Function::TRANSFERS`] says.
    fn write<'irp>(_device: &Device<Self>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level)
    }

    /// `IRP_MJ_DEVICE_CONTROL`.
    fn device_control<'irp>(
        _device: &Device<Self>,
        irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level)
    }

    /// `StartIo`: a request that came through [`Device::start_packet`], and can no longer be cancelled. When it has ended
    /// [`Device::start_next_packet`] is to be given its turn.
    fn start_io(device: &Device<Self>, irp: PendingIrp, packet: Packet, dispatch: &mut Dispatch) {
        device.start_next_packet(packet, dispatch);
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, dispatch);
    }

    /// `DpcForIsr`: the service routine answered [`crate::Claim::MineAndDpc`], once or several times.
    fn dpc_for_isr(_device: &Device<Self>, _dispatch: &mut Dispatch) {}
}

/// How the bytes of reads and writes come to a device. Control codes say it for themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfers {
    /// `DO_BUFFERED_IO`: in a system buffer, [`Irp::buffer`].
    Buffered,
    /// `DO_DIRECT_IO`: in the application's pages, [`Irp::source`] and [`Irp::destination`].
    Direct,
    /// As to the device below: of a filter.
    AsBelow,
}

/// Where the driver's own value lies, in the image, and the path of its key, if it needs that.
pub struct DriverCell<D> {
    value: UnsafeCell<MaybeUninit<D>>,
    path: UnsafeCell<Option<PoolBox<KeptPath>>>,
}

// SAFETY: it is written by `DriverEntry` before anything else can see it.
unsafe impl<D: Sync> Sync for DriverCell<D> {}

impl<D> DriverCell<D> {
    /// An empty one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made by `driver!` alone, in a static")]
    pub const fn new() -> Self {
        Self { value: UnsafeCell::new(MaybeUninit::uninit()), path: UnsafeCell::new(None) }
    }

    /// The path that was kept.
    pub(crate) fn path(&self) -> Option<*mut KeptPath> {
        // SAFETY: written by `enter` before anything else can see it, and by `unload` when nothing can any more.
        unsafe { (*self.path.get()).as_ref() }.map(PoolBox::as_ptr)
    }
}

/// What `driver!` implements for the driver.
pub trait Entry: Driver {
    /// The driver's cell.
    fn cell() -> &'static DriverCell<Self>;
}

/// Makes a type that implements [`Driver`] the driver of this image: `DriverEntry`, registered routines, unload.
#[macro_export]
macro_rules! driver {
    ($driver:ty) => {
        $crate::driver!($driver, enter);
    };
    ($driver:ty, $enter:ident) => {
        const _: () = {
            static CELL: $crate::entry::DriverCell<$driver> = $crate::entry::DriverCell::new();

            impl $crate::entry::Entry for $driver {
                fn cell() -> &'static $crate::entry::DriverCell<Self> {
                    &CELL
                }
            }

            #[unsafe(no_mangle)]
            #[unsafe(link_section = "INIT")]
            unsafe extern "system" fn DriverEntry(
                driver: *mut $crate::entry::DRIVER_OBJECT,
                path: *mut $crate::entry::UNICODE_STRING,
            ) -> $crate::NtStatus {
                // SAFETY: the system calls it, once, with its driver object and the path of the service's key.
                unsafe { $crate::entry::$enter::<$driver>(driver, path) }
            }
        };
    };
}

/// As [`driver!`], for a driver whose devices are buses: its [`Driver::Function`] implements [`crate::Bus`].
#[macro_export]
macro_rules! bus_driver {
    ($driver:ty) => {
        $crate::driver!($driver, enter_bus);
    };
}

/// `DriverEntry` of a bus driver.
///
/// # Safety
/// As [`enter`].
pub unsafe fn enter_bus<D: Entry>(driver: *mut DRIVER_OBJECT, path: *mut UNICODE_STRING) -> NtStatus
where
    D::Function: Bus,
{
    // SAFETY: the caller's promise; the driver has no device yet, whose requests would come meanwhile.
    unsafe {
        let status = enter::<D>(driver, path);
        if status.is_success() {
            set_routines(driver, &bus::routines::<D>());
            set_add_device(driver, add_device::<D, true>);
        }
        status
    }
}

/// `DriverEntry`.
///
/// # Safety
/// Called once, by the system, with the driver's object and the path of its service's key.
pub unsafe fn enter<D: Entry>(driver: *mut DRIVER_OBJECT, path: *mut UNICODE_STRING) -> NtStatus {
    // SAFETY: DriverEntry is called at PASSIVE_LEVEL.
    let passive = &mut unsafe { Passive::assume() };
    let mut kept = None;
    if const { !D::Function::WMI.is_empty() } {
        // SAFETY: a counted string, that lives until this returns.
        match unsafe { KeptPath::of::<D::Function>(path, passive) } {
            Ok(copy) => kept = Some(copy),
            Err(status) => return status,
        }
    }
    // SAFETY: the path lives until this returns.
    let loaded = D::load(&unsafe { RegistryPath::new(path) }, passive);
    match loaded {
        // SAFETY: no other thread has seen the cell yet.
        Ok(value) => unsafe {
            (*D::cell().value.get()).write(value);
            *D::cell().path.get() = kept;
        },
        Err(status) => return status,
    };
    // SAFETY: the driver object is ours to fill in.
    unsafe { register::<D>(driver) };
    NtStatus::SUCCESS
}

/// # Safety
/// The driver object is the caller's to fill in.
unsafe fn register<D: Entry>(driver: *mut DRIVER_OBJECT) {
    let routines: [(u8, sys::Dispatch); 9] = [
        (abi::IRP_MJ_CREATE, create::<D::Function>),
        (abi::IRP_MJ_CLEANUP, cleanup::<D::Function>),
        (abi::IRP_MJ_CLOSE, close::<D::Function>),
        (abi::IRP_MJ_READ, read::<D::Function>),
        (abi::IRP_MJ_WRITE, write::<D::Function>),
        (abi::IRP_MJ_DEVICE_CONTROL, device_control::<D::Function>),
        (abi::IRP_MJ_PNP, pnp::dispatch::<D::Function>),
        (abi::IRP_MJ_POWER, power::dispatch::<D::Function>),
        (abi::IRP_MJ_SYSTEM_CONTROL, system_control::<D>),
    ];
    // SAFETY: the caller's promise.
    unsafe {
        set_routines(driver, &routines);
        packet::register::<D::Function>(driver);
        raw::set(driver, DRIVER_OBJECT::DriverUnload, raw::stored((unload::<D> as *const ()).cast_mut()));
        set_add_device(driver, add_device::<D, false>);
    }
}

/// # Safety
/// As [`register`].
unsafe fn set_routines(driver: *mut DRIVER_OBJECT, routines: &[(u8, sys::Dispatch)]) {
    let table = DRIVER_OBJECT::MajorFunction.of(driver).cast::<abi::DriverPtr<abi::Code>>();
    for (major, routine) in routines {
        let code = raw::stored((*routine as *const ()).cast_mut());
        // SAFETY: the caller's promise; the table has room for every major function.
        unsafe { table.wrapping_add((*major).into()).write_unaligned(code) };
    }
}

/// # Safety
/// As [`register`].
unsafe fn set_add_device(driver: *mut DRIVER_OBJECT, routine: sys::AddDevice) {
    // SAFETY: the caller's promise.
    unsafe {
        let extension = raw::follow(driver, DRIVER_OBJECT::DriverExtension);
        raw::set(extension, DRIVER_EXTENSION::AddDevice, raw::stored((routine as *const ()).cast_mut()));
    }
}

unsafe extern "system" fn unload<D: Entry>(_driver: *mut DRIVER_OBJECT) {
    // SAFETY: written by `enter`; no device, and so no routine, is left.
    unsafe {
        (*D::cell().value.get()).assume_init_drop();
        *D::cell().path.get() = None;
    }
}

unsafe extern "system" fn add_device<D: Entry, const IS_BUS: bool>(
    driver: *mut DRIVER_OBJECT,
    pdo: *mut DEVICE_OBJECT,
) -> NtStatus {
    // SAFETY: AddDevice is called at PASSIVE_LEVEL, after DriverEntry has succeeded.
    let (value, mut passive) = unsafe { ((*D::cell().value.get()).assume_init_ref(), Passive::assume()) };
    // SAFETY: the system's object for this device.
    let added = D::Function::add(value, &unsafe { Pdo::new(pdo) }, &mut passive);
    let made = added.and_then(|(name, function)| {
        let role = if IS_BUS { Role::Bus } else { Role::Function };
        // SAFETY: the driver's own object, and the one AddDevice was given; `enter_bus` registers this routine with those of a bus.
        unsafe { device::create(driver, pdo, &name, role, function, &mut passive) }
    });
    made.err().unwrap_or(NtStatus::SUCCESS)
}

/// A request that a dispatch routine was called with.
pub(crate) struct Accepted<'irp, F> {
    pub(crate) irp: Irp<'irp>,
    pub(crate) device: &'irp Device<F>,
    /// Keeps the device for as long as the routine runs, whatever becomes of the request.
    pub(crate) inside: User<'irp, ()>,
}

/// Takes the remove lock for a request.
///
/// # Errors
/// The status with which the request was completed: the device is being removed.
///
/// # Safety
/// Called first in a dispatch routine, with its arguments; what is returned lives no longer than the routine runs.
pub(crate) unsafe fn accept<'irp, F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
) -> core::result::Result<Accepted<'irp, F>, NtStatus> {
    let Some(irp) = NonNull::new(irp) else { return Err(NtStatus::INVALID_PARAMETER) };
    // SAFETY: the system gave us the request; the lock lies in the extension, which lives as long as the object.
    let (device, level) = unsafe { (Device::<F>::of(object), &mut DispatchOrBelow::assume()) };
    let lock = &device.remove_lock;
    let status = match lock.acquire(irp.as_ptr().cast()) {
        Err(status) => status,
        Ok(()) => {
            // SAFETY: the request is ours, and now the lock is taken for it.
            let irp = Irp::new(unsafe { Owned::new(irp, lock) });
            match device.inside.enter(level) {
                Some(inside) => return Ok(Accepted { irp, device, inside }),
                None => return Err(irp.complete(NtStatus::DELETE_PENDING, 0, level).status()),
            }
        }
    };
    // SAFETY: the request is ours; no lock is taken for it.
    let irp = Irp::new(unsafe { Owned::new(irp, null()) });
    let status = match irp.major() {
        abi::IRP_MJ_CLEANUP | abi::IRP_MJ_CLOSE => NtStatus::SUCCESS, // a handle may be closed at any time
        _ => status,
    };
    if irp.major() == abi::IRP_MJ_POWER {
        // SAFETY: the request is ours.
        unsafe { sys::PoStartNextPowerIrp(irp.as_ptr()) };
    }
    Err(irp.complete(status, 0, level).status())
}

macro_rules! dispatch_routines {
    ($($name:ident at $level:ident;)*) => {$(
        pub(crate) unsafe extern "system" fn $name<F: Function>(object: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
            // An instruction of no bytes: else routines that do the same would be one, under the name of either.
            // SAFETY: it does nothing.
            unsafe {
                core::arch::asm!(
                    concat!("# ", stringify!($name)),
                    options(nomem, nostack, preserves_flags)
                );
            }
            // SAFETY: called by the system with a request for a device of ours, at this level.
            let (accepted, mut level) = unsafe { (accept::<F>(object, irp), $level::assume()) };
            match accepted {
                Ok(Accepted { irp, device, inside: _inside }) => F::$name(device, irp, &mut level).status(),
                Err(status) => status,
            }
        }
    )*};
}

dispatch_routines! {
    create at Passive;
    cleanup at Passive;
    close at Passive;
    read at DispatchOrBelow;
    write at DispatchOrBelow;
    device_control at DispatchOrBelow;
}

/// WMI requests pass, where the device offers nothing.
pub(crate) unsafe extern "system" fn system_control<D: Entry>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
) -> NtStatus {
    // SAFETY: called by the system with a request for a device of ours, at PASSIVE_LEVEL.
    let (accepted, mut passive) = unsafe { (accept::<D::Function>(object, irp), Passive::assume()) };
    match accepted {
        Ok(Accepted { irp, device, inside: _inside }) if const { D::Function::WMI.is_empty() } => {
            irp.forward(device, &mut passive).status()
        }
        Ok(Accepted { irp, device, inside: _inside }) => wmi::control::<D>(device, irp, &mut passive),
        Err(status) => status,
    }
}
