//! What a driver leaves behind when it goes: findings, and verdicts on what would run into the void.
//!
//! Pages: *Writing an Unload Routine*, *Bug Check 0xC4* (62), *Bug Check 0xCB*, *Bug Check 0xCE*. Images, pool and mappings
//! keep their own accounts, by the base of the image; here they are asked. No page says what becomes of a DPC's routine that runs on another processor while
//! `Unload` returns; Microsoft's sample of queues that are safe against cancelling, which does not flush, says that it comes to its end before the image goes.

use std::collections::BTreeMap;

use abi::{Code, DRIVER_OBJECT, DriverPtr, KDPC, KTIMER, WORK_QUEUE_ITEM};
use engine::Flow;

use super::irp::Origin;
use super::violation::device_name;
use super::{controller, device, driver, pending, unload};
use crate::cx::{Cx, Kernel};
use crate::ex::{lookaside, resource, timer};
use crate::hal::dma;
use crate::ke;
use crate::ke::thread::Thread;
use crate::mm::{contiguous, io_space, mdl, pool, pool_check, reserved, view};
use crate::ob::account::{self, Left};
use crate::ob::{handle, object};
use crate::pnp::notify;
use crate::se::subject;
use crate::verdict::{Tier, Verdict};
use crate::{etw, pcw, ps, wmi};

/// Why the driver goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// `DriverEntry` failed.
    EntryFailed,
    /// `Unload` was called.
    Unloaded,
}

/// At most so many leaks of one rule from one place of the driver's are listed; the rest is a number.
const OF_ONE_PLACE: u64 = 64;

/// The driver that goes.
struct Gone {
    driver: DriverPtr<DRIVER_OBJECT>,
    service: String,
    base: u64,
    size: u64,
    after: &'static str,
    /// How many leaks there are of a rule (what is left, in the plural) by a place.
    leaks: BTreeMap<(&'static str, &'static str, String), u64>,
}

impl Gone {
    /// Whether code or data at `address` go with it.
    const fn has(&self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.size
    }

    /// Whether one of these is reported by itself: not if `place` has left very many.
    fn is_told(&mut self, rule: &'static str, things: &'static str, place: &str) -> bool {
        let count = self.leaks.entry((rule, things, place.to_owned())).or_default();
        *count += 1;
        *count <= OF_ONE_PLACE
    }

    /// A finding that does not end the run.
    fn leak(&mut self, cx: &mut Cx<'_>, rule: &'static str, things: &'static str, what: &str, place: &str) {
        if self.is_told(rule, things, place) {
            cx.report(self.leaked(rule, what, place));
        }
    }

    /// Reports how many there are besides those that were listed.
    fn tell_more(&mut self, cx: &mut Cx<'_>) {
        for ((rule, things, place), count) in std::mem::take(&mut self.leaks) {
            if let Some(more @ 1..) = count.checked_sub(OF_ONE_PLACE) {
                cx.report(self.leaked(rule, &format!("left {more} more {things}"), &place));
            }
        }
    }

    /// All that one place has left is one finding.
    fn leaked(&self, rule: &'static str, what: &str, place: &str) -> Verdict {
        let identity = (!place.is_empty()).then(|| place.to_owned());
        Verdict { identity, ..self.verdict(rule, &format!("{what}{place}")) }
    }

    fn verdict(&self, rule: &'static str, what: &str) -> Verdict {
        Verdict::error(rule, format!("{} {} and {what}", self.service, self.after))
    }
}

/// Reports everything that `driver` has not given back.
///
/// # Errors
/// A verdict on interrupts, timers, threads and work that are left: its code would run after it is gone.
pub(crate) fn report(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, when: When) -> Flow<()> {
    let service = driver::service(cx, driver);
    let (base, size) = cx.with(|k| k.io.drivers.get(&driver.address).map_or((0, 0), |d| (d.base, d.size)));
    let after = match when {
        When::EntryFailed => "failed in its DriverEntry",
        When::Unloaded => "was unloaded",
    };
    let mut gone = Gone { driver, service, base, size, after, leaks: BTreeMap::new() };
    unload::wait_for_work(cx, driver)?;
    refuse_still_called(cx, &gone)?;
    objects(cx, &mut gone)?;
    trace_providers(cx, &gone)?;
    notifications(cx, &mut gone)?;
    pool_check::all(cx)?;
    if base != 0 {
        memory(cx, &mut gone);
    }
    gone.tell_more(cx);
    Ok(())
}

/// Reports what an export library without a driver object has not given back.
///
/// # Errors
/// As [`report`].
pub(crate) fn report_library(cx: &mut Cx<'_>, name: &str, base: u64, size: u64) -> Flow<()> {
    let after = "was unloaded";
    let service = name.to_owned();
    let mut gone = Gone { driver: DriverPtr::NULL, service, base, size, after, leaks: BTreeMap::new() };
    refuse_still_called(cx, &gone)?;
    memory(cx, &mut gone);
    gone.tell_more(cx);
    Ok(())
}

fn refuse_still_called(cx: &mut Cx<'_>, gone: &Gone) -> Flow<()> {
    let mut caller = still_called(cx, gone)?;
    if caller.is_none() {
        ke::dpc::wait_for_running(cx)?;
        // A DPC may have set its timer again.
        caller = still_called(cx, gone)?.or_else(|| cx.with(|k| thread_inside(k, gone)));
    }
    let Some((what, moment)) = caller else {
        return Ok(());
    };
    let message = format!("{} {}, and {what}: its code is called when it is gone", gone.service, gone.after);
    let verdict = Verdict::error("unload-still-called", message);
    let verdict = verdict.bug_check(0xCE, [gone.base, 0x10, gone.base, 0]);
    Err(cx.stop(moment.into_iter().fold(verdict, |verdict, (what, event)| verdict.related(what, event))))
}

/// What still calls the driver's code, in words, and the moment when that began.
type Caller = (String, Option<(&'static str, u64)>);

fn still_called(cx: &mut Cx<'_>, gone: &Gone) -> Flow<Option<Caller>> {
    if let Some(what) = cx.with(|k| still_known(k, gone)) {
        return Ok(Some(what));
    }
    if let Some(timer) = cx.with(|k| timer::still_called(k, |address| gone.has(address))) {
        let set = cx.with(|k| k.ke.timing.timers().set_at(timer)).map(|event| ("set", event));
        let queued = cx.with(|k| ke::dpc::queued_at(k, timer)).map(|event| ("queued", event));
        return Ok(Some((format!("its timer {timer:#x} of ExAllocateTimer is still set"), set.or(queued))));
    }
    for timer in cx.with(|k| ke::timer::all_set(k)) {
        let dpc = cx.read(DriverPtr::<KTIMER>::new(timer) + KTIMER::Dpc)?;
        let called = !dpc.is_null() && gone.has(cx.read(dpc + KDPC::DeferredRoutine)?.address);
        if called || gone.has(timer) {
            let set = cx.with(|k| k.ke.timing.timers().set_at(timer)).map(|event| ("set", event));
            return Ok(Some((format!("its timer {timer:#x} is still set"), set)));
        }
    }
    for (dpc, queued) in cx.with(|k| ke::dpc::all_queued(k)) {
        if gone.has(cx.read(DriverPtr::<KDPC>::new(dpc) + KDPC::DeferredRoutine)?.address) {
            return Ok(Some((format!("its DPC {dpc:#x} is still queued"), Some(("queued", queued)))));
        }
    }
    let items: Vec<(u64, u64)> =
        cx.with(|k| k.ex.work_items.iter().map(|(&at, &queued)| (at, queued)).collect());
    for (item, queued) in items {
        let routine = DriverPtr::<WORK_QUEUE_ITEM>::new(item) + WORK_QUEUE_ITEM::WorkerRoutine;
        if gone.has(cx.read(routine)?.address) {
            return Ok(Some((format!("its work item {item:#x} is still queued"), Some(("queued", queued)))));
        }
    }
    Ok(None)
}

fn still_known(k: &Kernel, gone: &Gone) -> Option<Caller> {
    let driver = gone.driver.address;
    if driver == 0 {
        return None;
    }
    let interrupt = k.io.interrupts.iter().find(|(_, connected)| connected.owner == Some(driver));
    if let Some((interrupt, connected)) = interrupt {
        let what = format!("its interrupt {interrupt:#x} is still connected");
        return Some((what, Some(("connected", connected.at))));
    }
    let timer = k.io.timers.iter().find(|(device, timer)| {
        timer.running && k.io.devices.get(**device).is_some_and(|device| device.driver == driver)
    });
    if let Some((device, timer)) = timer {
        let what = format!("the IoTimer of its device {device:#x} is still running");
        return Some((what, Some(("started", timer.started))));
    }
    if let Some((what, code, how)) = registered(k).find(|(_, code, _)| gone.has(code.address)) {
        return Some((format!("its {what} {:#x} {how}", code.address), None));
    }
    if let Some(code) = wmi::block::callbacks(k).find(|code| gone.has(code.address)) {
        return Some((format!("its callback {:#x} is still registered for WMI events", code.address), None));
    }
    // An item for this driver's own objects has been waited for.
    let mut queued = k.io.work_items.iter().filter_map(|(item, known)| Some((item, known.queued?)));
    let (item, queued) = queued.find(|(_, queued)| gone.has(queued.routine))?;
    let what = format!("its work item {item:#x}, which is for another driver's object, is still queued");
    Some((what, Some(("queued", queued.at))))
}

/// Drivers' routines that the system calls when something happens: what each is, and what is still so of it.
fn registered(k: &Kernel) -> impl Iterator<Item = (&'static str, DriverPtr<Code>, &'static str)> {
    let notify = k.ps.notify.all().map(|(role, code)| (role, code, "is still registered"));
    let stops = k.ke.bug_check.records.iter();
    let stops = stops.map(|record| ("routine", record.routine, "for bug checks is still registered"));
    let machine =
        k.ke.machine_callbacks
            .all()
            .map(|code| ("routine", code, "for NMIs or processors is still registered"));
    let callbacks = k.ex.callbacks.all().map(|code| ("callback routine", code, "is still registered"));
    let registry = k.cm.callbacks.all().map(|code| ("RegistryCallback", code, "is still registered"));
    let handles = k.ob.callbacks.all();
    let handles = handles.map(|code| ("routine", code, "of ObRegisterCallbacks is still registered"));
    let counters = k.pcw.all().map(|code| ("PcwCallback", code, "is still registered"));
    let settings = k.po.settings.code();
    let settings = settings.map(|code| ("PowerSettingCallback", code, "is still registered"));
    let others = handles.chain(counters).chain(settings);
    notify.chain(stops).chain(machine).chain(callbacks).chain(registry).chain(others)
}

fn thread_inside(k: &Kernel, gone: &Gone) -> Option<Caller> {
    let current = k.ke.processor().thread;
    let mut threads = k.ke.sched.threads().iter().filter(|thread| thread.strand != current);
    let thread = threads.find(|thread| thread.callouts.iter().any(|call| gone.has(call.routine.address)));
    let inside = |thread: &Thread| {
        (format!("the {} is still running in it", thread.name), Some(("created", thread.created)))
    };
    thread.map(inside)
}

/// Devices, links, IRPs and work items.
fn objects(cx: &mut Cx<'_>, gone: &mut Gone) -> Flow<()> {
    for left in device::of_driver(cx, gone.driver)? {
        // Of one that was removed it was said then.
        if cx.with(|k| k.io.devices.get(left.address).is_some_and(|device| device.going)) {
            continue;
        }
        let name = device_name(cx, left);
        let below = cx.with(|k| k.io.devices.get(left.address).map_or(0, |device| device.below));
        let attached = if below == 0 { "" } else { ", still attached to the device below" };
        gone.leak(
            cx,
            "device-leak",
            "device objects",
            &format!("left the device object {name}{attached}"),
            "",
        );
    }
    for link in cx.with(|k| links(k, gone.driver.address)) {
        gone.leak(cx, "symbolic-link-leak", "symbolic links", &format!("left the symbolic link {link}"), "");
    }
    for (controller, who) in controller::outstanding(cx, gone.base) {
        let what = format!("did not delete its controller object {controller:#x}");
        gone.leak(cx, "controller-leak", "controller objects", &what, &format!(", made by {who}"));
    }
    for irp in cx.with(|k| irps(k, gone.driver.address)) {
        if !gone.is_told("irp-leak", "IRPs", "") {
            continue;
        }
        let verdict = gone.verdict("irp-leak", &format!("did not free the IRP {irp:#x}"));
        let verdict = pending::of_irp(cx, irp, verdict);
        cx.report(verdict);
    }
    for (item, made) in cx.with(|k| work_items(k, gone.driver.address)) {
        if !gone.is_told("work-item-leak", "work items", "") {
            continue;
        }
        let verdict = gone.verdict("work-item-leak", &format!("did not free the work item {item:#x}"));
        cx.report(verdict.related("allocated", made));
    }
    Ok(())
}

/// Registrations for Plug and Play notification. On Windows each is a reference to the driver object: the image stays for ever.
fn notifications(cx: &mut Cx<'_>, gone: &mut Gone) -> Flow<()> {
    for (entry, registered, who) in notify::outstanding(cx, gone.driver)? {
        if gone.is_told("pnp-notification-leak", "registrations for Plug and Play notification", &who) {
            let what = format!(
                "left its registration for Plug and Play notification {entry:#x}, made by {who}: Windows keeps its image for that, and does not load it again"
            );
            let verdict = gone.verdict("pnp-notification-leak", &what).related("registered", registered);
            cx.report(verdict);
        }
    }
    Ok(())
}

/// Callbacks that are registered with WMI: they are never called, but Driver Verifier looks.
fn trace_providers(cx: &mut Cx<'_>, gone: &Gone) -> Flow<()> {
    for (record, who) in wmi::callbacks_of(cx, gone.base) {
        let what = format!(
            "left its callback {record:#x} registered with WMI, by {who}: IoWMIRegistrationControl with WMIREG_ACTION_DEREGISTER"
        );
        let verdict = gone.verdict("wmi-still-registered", &what).as_verifier();
        cx.verify(verdict.bug_check(0xC4, [0xDA, record, 0, 0]))?;
    }
    Ok(())
}

fn links(k: &Kernel, driver: u64) -> Vec<String> {
    k.io.links.iter().filter(|(_, owner)| **owner == driver).map(|(path, _)| path.clone()).collect()
}

fn irps(k: &Kernel, driver: u64) -> Vec<u64> {
    let live = &k.io.irps.live;
    live.keys_where(|record| record.owner == Some(driver) && record.origin == Origin::Allocated)
}

fn work_items(k: &Kernel, driver: u64) -> Vec<(u64, u64)> {
    let items = k.io.work_items.iter();
    items
        .filter(|(_, item)| item.owner == Some(driver))
        .map(|(address, item)| (*address, item.made))
        .collect()
}

/// Pool, locked pages, contiguous memory, mappings and views; kernel handles.
fn memory(cx: &mut Cx<'_>, gone: &mut Gone) {
    for block in pool_check::outstanding(cx, gone.base) {
        let place = format!(", allocated by {}", block.allocated_by);
        if !gone.is_told("pool-leak", "blocks of pool", &place) {
            continue;
        }
        let kind = if block.paged { "paged" } else { "nonpaged" };
        let what = match block.bytes {
            0 => "a block without bytes".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        let what = format!(
            "did not free {what} of {kind} pool '{}' at {:#x}",
            pool::tag_text(block.tag),
            block.address
        );
        let verdict = gone.leaked("pool-leak", &what, &place).related("allocated", block.allocated);
        cx.report(verdict);
    }
    for list in mdl::outstanding(cx, gone.base) {
        let what = format!(
            "left {} page(s) locked and {} mapping(s) by the MDL {:#x}",
            list.pages, list.mappings, list.mdl
        );
        let place = format!(", locked by {}", list.locked_by);
        gone.leak(cx, "locked-pages-leak", "MDLs with pages locked or mapped", &what, &place);
    }
    for list in lookaside::outstanding(cx, gone.base) {
        let what = format!("did not delete its lookaside list {list:#x}");
        gone.leak(cx, "lookaside-leak", "lookaside lists", &what, "");
    }
    for timer in timer::outstanding(cx, gone.base) {
        let what = format!("did not delete its timer {timer:#x} of ExAllocateTimer");
        gone.leak(cx, "ex-timer-leak", "timers", &what, "");
    }
    for (set, name, who) in pcw::provider::outstanding(cx, gone.base) {
        let what = format!("did not unregister its counter set \"{name}\" {set:#x}");
        gone.leak(cx, "counter-set-leak", "counter sets", &what, &format!(", registered by {who}"));
    }
    for (provider, who) in etw::outstanding(cx, gone.base) {
        let what = format!("did not unregister its provider of events {provider:#x}");
        gone.leak(cx, "etw-provider-leak", "providers of events", &what, &format!(", registered by {who}"));
    }
    for (object, who) in wmi::block::outstanding(cx, gone.base) {
        let what = format!("did not dereference its data block object {object:#x}");
        gone.leak(cx, "wmi-block-leak", "data block objects", &what, &format!(", opened by {who}"));
    }
    for resource in resource::outstanding(cx, gone.base) {
        let what = format!("did not delete its ERESOURCE {resource:#x}");
        gone.leak(cx, "resource-leak", "resources", &what, "");
    }
    for (run, who) in contiguous::outstanding(cx, gone.base) {
        let (what, place) = (
            format!("did not free {} bytes of contiguous memory", run.bytes),
            format!(", allocated by {who}"),
        );
        gone.leak(cx, "contiguous-memory-leak", "blocks of contiguous memory", &what, &place);
    }
    for (rule, things, what, who) in dma::unload_check::outstanding(cx, gone.base) {
        gone.leak(cx, rule, things, &what, &format!(", asked for by {who}"));
    }
    for (mapping, who) in io_space::outstanding(cx, gone.base) {
        let what =
            format!("did not unmap {} bytes of device memory at {:#x}", mapping.bytes, mapping.address);
        gone.leak(cx, "io-space-leak", "mappings of device memory", &what, &format!(", mapped by {who}"));
    }
    for (range, who) in reserved::outstanding(cx, gone.base) {
        let what =
            format!("did not free {} page(s) of addresses reserved at {:#x}", range.pages, range.address);
        gone.leak(
            cx,
            "reserved-mapping-leak",
            "reserved ranges of addresses",
            &what,
            &format!(", reserved by {who}"),
        );
    }
    views(cx, gone);
    handles(cx, gone);
    references(cx, gone);
}

/// References to objects, to access tokens by subject contexts or without.
fn references(cx: &mut Cx<'_>, gone: &mut Gone) {
    for Left { taken_by, body, caller } in account::outstanding(cx, gone.base) {
        let place = format!(", taken by {caller}");
        match taken_by {
            account::OBJECT => {
                if gone.is_told("object-reference-leak", "references to objects", &place) {
                    let kind = object::kind(cx, body).map_or_else(String::new, |kind| format!("{kind:?} "));
                    let what =
                        format!("did not dereference the {kind}object {body:#x}, referenced by {caller}");
                    let verdict = gone.verdict("object-reference-leak", &what);
                    cx.report(Verdict { tier: Tier::Warning, ..verdict });
                }
            }
            subject::CAPTURE => {
                let what = "did not release a subject context";
                gone.leak(cx, "subject-context-leak", "subject contexts", what, &place);
            }
            _ => {
                let what = format!("did not dereference the access token {body:#x}");
                gone.leak(cx, "token-leak", "references to access tokens", &what, &place);
            }
        }
    }
}

/// Views of sections that nothing but the driver would unmap: an application's go with it, and may be the application's to unmap.
fn views(cx: &mut Cx<'_>, gone: &mut Gone) {
    for left in view::outstanding(cx, gone.base) {
        let whose = match left.process {
            None => "in system space",
            Some(ps::process::SYSTEM) => "in the system process",
            Some(_) => continue,
        };
        let what = format!("did not unmap {} bytes of a section at {:#x} {whose}", left.bytes, left.address);
        let place = format!(", mapped by {}", left.mapped_by);
        gone.leak(cx, "view-leak", "views of sections", &what, &place);
    }
}

/// Kernel handles.
fn handles(cx: &mut Cx<'_>, gone: &mut Gone) {
    for left in handle::outstanding(cx, gone.base) {
        let name = left.name.map_or_else(String::new, |name| format!(" of {name}"));
        let what = format!("did not close the handle {:#x}{name} ({:?})", left.handle, left.kind);
        gone.leak(cx, "handle-leak", "handles", &what, &format!(", opened by {}", left.opened_by));
    }
}
