//! What a driver leaves behind when it goes: findings, and verdicts on what would run into the void.
//!
//! Pages: *Unload Routine*, *Bug Check 0xC4* (60, 62), *Bug Check 0xCE*. Pool and queued timers are asked of their owners.

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr};
use engine::Flow;

use super::irp::Origin;
use super::violation::device_name;
use super::{device, driver};
use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;

/// Why the driver goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// `DriverEntry` failed.
    EntryFailed,
    /// `Unload` was called.
    Unloaded,
}

/// Reports everything that `driver` has not given back.
///
/// # Errors
/// A verdict on interrupts that stay connected or work that is queued: its code would run after it is gone.
pub(crate) fn report(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, when: When) -> Flow<()> {
    let service = driver::service(cx, driver);
    let after = match when {
        When::EntryFailed => "its DriverEntry failed",
        When::Unloaded => "it was unloaded",
    };
    if let Some(what) = cx.with(|k| still_called(k, driver.address)) {
        let message = format!("{service}: {after}, and {what}: its code is called when it is gone");
        let verdict = Verdict::error("unload-still-called", message);
        return Err(cx.stop(verdict.bug_check(0xCE, [0, 0, 0, 0])));
    }
    for left in device::of_driver(cx, driver)? {
        let name = device_name(cx, left);
        let below = cx.with(|k| k.io.devices.get(&left.address).map_or(0, |device| device.below));
        let attached = if below == 0 { "" } else { ", still attached to the device below" };
        leak(cx, "device-leak", format!("{service}: {after} and left the device object {name}{attached}"));
    }
    for link in cx.with(|k| links(k, driver.address)) {
        leak(cx, "symbolic-link-leak", format!("{service}: {after} and left the symbolic link {link}"));
    }
    for irp in cx.with(|k| irps(k, driver.address)) {
        leak(cx, "irp-leak", format!("{service}: {after} and did not free the IRP {irp:#x}"));
    }
    for item in cx.with(|k| work_items(k, driver.address)) {
        leak(cx, "work-item-leak", format!("{service}: {after} and did not free the work item {item:#x}"));
    }
    Ok(())
}

fn leak(cx: &mut Cx<'_>, rule: &'static str, message: String) {
    cx.report(Verdict::error(rule, message));
}

/// What still calls the driver's code, in words.
fn still_called(k: &Kernel, driver: u64) -> Option<String> {
    let interrupt = k.io.interrupts.iter().find(|(_, owner)| **owner == Some(driver));
    if let Some((interrupt, _)) = interrupt {
        return Some(format!("its interrupt {interrupt:#x} is still connected"));
    }
    let timer = k.io.timers.iter().find(|(device, timer)| {
        timer.running && k.io.devices.get(device).is_some_and(|device| device.driver == driver)
    });
    if let Some((device, _)) = timer {
        return Some(format!("the IoTimer of its device {device:#x} is still running"));
    }
    let queued = k.io.work_items.iter().find(|(_, item)| item.owner == Some(driver) && item.queued);
    queued.map(|(item, _)| format!("its work item {item:#x} is still queued"))
}

fn links(k: &Kernel, driver: u64) -> Vec<String> {
    k.io.links.iter().filter(|(_, owner)| **owner == driver).map(|(path, _)| path.clone()).collect()
}

fn irps(k: &Kernel, driver: u64) -> Vec<u64> {
    let live = k.io.irps.live.iter();
    live.filter(|(_, record)| record.owner == Some(driver) && record.origin == Origin::Allocated)
        .map(|(irp, _)| *irp)
        .collect()
}

fn work_items(k: &Kernel, driver: u64) -> Vec<u64> {
    let items = k.io.work_items.iter();
    items.filter(|(_, item)| item.owner == Some(driver)).map(|(address, _)| *address).collect()
}

/// IRPs that a device still has, for messages.
pub(crate) fn outstanding(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Vec<u64> {
    cx.with(|k| k.io.frames.held_by(device.address))
}
