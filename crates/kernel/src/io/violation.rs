//! Verdicts on misuse of IRPs and devices: rule, words, and Driver Verifier's bug check 0xC9.
//!
//! Page: *Bug Check 0xC9: DRIVER_VERIFIER_IOMANAGER_VIOLATION*. What the parameters hold beside the code and the IRP
//! differs between Windows versions; here they are the code, the routine, the device and the IRP.

use abi::{DEVICE_OBJECT, DriverPtr, IRP, IRP_MJ_POWER};

use crate::Kernel;
use crate::cx::Cx;
use crate::ke::locks::Held;
use crate::ke::who_waits;
use crate::verdict::Verdict;
use crate::wdf;

/// A finding that Driver Verifier's I/O checks would stop with.
pub(crate) fn io_manager(
    rule: &'static str,
    code: u64,
    message: String,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Verdict {
    Verdict::error(rule, message).bug_check(0xC9, [code, 0, device.address, irp.address])
}

/// A driver ends a request, or begins the next one, with a spin lock held: what others do then, may want the lock.
/// A lock of a driver further out is that one's doing, and in a framework that is not known.
#[cold]
pub(crate) fn lock_held(cx: &mut Cx<'_>, name: &str, (lock, held): (u64, Held)) {
    let caller = cx.engine().caller_rip();
    let is_callers = cx.with(|k| {
        let image = |address| k.ldr.image_at(address).map(|(base, _)| base);
        image(caller).is_some_and(|base| image(held.place) == Some(base) && !wdf::is_framework(k, base))
    });
    if !is_callers {
        return;
    }
    let lock = cx.with(|k| who_waits::whereabouts(k, lock));
    let message = format!(
        "{name} was called with the spin lock {lock} held: a routine that it calls and that wants the lock waits for ever"
    );
    cx.report(Verdict::warning("lock-held-over-request", message).of_lock(Some(held)));
}

/// More links than any list of devices has: a stack has 127 levels at most.
pub(crate) const MOST_DEVICES: u32 = 1 << 12;

/// The device that has the IRP, null if none does, and its name.
pub(crate) fn holder(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> (DriverPtr<DEVICE_OBJECT>, String) {
    let holder = DriverPtr::new(cx.with(|k| k.io.frames.holder(irp.address)).unwrap_or(0));
    (holder, device_name(cx, holder))
}

/// How a device is called in messages: `\Device\Foo (foo)`, or its address and driver.
pub(crate) fn device_name(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> String {
    cx.with(|k| name_of_device(k, device.address))
}

/// The same, of the device object at this address.
pub(crate) fn name_of_device(k: &Kernel, device: u64) -> String {
    let path = k.ob.objects.get(device).and_then(|object| object.path.clone());
    let driver = k.io.devices.get(device).and_then(|record| k.io.drivers.get(&record.driver));
    let driver = driver.map_or("no driver", |driver| driver.service.as_str());
    match path {
        Some(path) => format!("{path} ({driver})"),
        None => format!("the unnamed device {device:#x} ({driver})"),
    }
}

/// How a request is called in messages: `IRP_MJ_PNP/2`.
pub(crate) fn request_name(major: u8, minor: u8) -> String {
    const MAJORS: [&str; 28] = [
        "CREATE",
        "CREATE_NAMED_PIPE",
        "CLOSE",
        "READ",
        "WRITE",
        "QUERY_INFORMATION",
        "SET_INFORMATION",
        "QUERY_EA",
        "SET_EA",
        "FLUSH_BUFFERS",
        "QUERY_VOLUME_INFORMATION",
        "SET_VOLUME_INFORMATION",
        "DIRECTORY_CONTROL",
        "FILE_SYSTEM_CONTROL",
        "DEVICE_CONTROL",
        "INTERNAL_DEVICE_CONTROL",
        "SHUTDOWN",
        "LOCK_CONTROL",
        "CLEANUP",
        "CREATE_MAILSLOT",
        "QUERY_SECURITY",
        "SET_SECURITY",
        "POWER",
        "SYSTEM_CONTROL",
        "DEVICE_CHANGE",
        "QUERY_QUOTA",
        "SET_QUOTA",
        "PNP",
    ];
    const POWER: [&str; 4] = ["WAIT_WAKE", "POWER_SEQUENCE", "SET_POWER", "QUERY_POWER"];
    if let (IRP_MJ_POWER, Some(name)) = (major, POWER.get(usize::from(minor))) {
        return format!("IRP_MN_{name}");
    }
    let name = MAJORS.get(usize::from(major)).copied().unwrap_or("unknown");
    if minor == 0 { format!("IRP_MJ_{name}") } else { format!("IRP_MJ_{name} (minor {minor:#04x})") }
}
