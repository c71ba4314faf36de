//! Starting a device: `AddDevice`, resources, `IRP_MN_START_DEVICE`, and what Windows asks afterwards.
//!
//! Pages: *Adding a PnP Device to a Running System*, *IRP_MN_START_DEVICE*, *IRP_MN_FILTER_RESOURCE_REQUIREMENTS*,
//! *Writing an AddDevice Routine*. A card gets what the firmware assigned to it, others what is free ([`super::arbiter`]); nothing is moved to make room.
//!
//! *Ours*: no page says from which pool the lists of resources are; they are nonpaged, so a driver that reads its own with a lock held is right.

use std::fmt;

use abi::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DO_DIRECT_IO, DO_POWER_INRUSH, DO_POWER_PAGABLE, DRIVER_OBJECT, DriverPtr,
    IRP_MN_FILTER_RESOURCE_REQUIREMENTS, IRP_MN_QUERY_PNP_DEVICE_STATE, IRP_MN_QUERY_RESOURCE_REQUIREMENTS,
    IRP_MN_START_DEVICE, NtStatus, PNP_DEVICE_DISABLED, PNP_DEVICE_FAILED, PNP_DEVICE_REMOVED,
    PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED,
};
use engine::Flow;

use super::enumerate::{self, available, tell};
use super::lock::exclusively;
use super::node::{self, NodeId, State};
use super::problem::{Code, Problem};
use super::request::{self, ask, ask_about};
use super::requirements::{self, Unusable};
use super::resource::{self, Form, Resource};
use super::supply::Supply;
use super::wanted::Requirements;
use super::{arbiter, claim, install, invalidate, message, relations, remove, remove_check, shown};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::io;
use crate::mm::pool;
use crate::se::object;
use crate::verdict::Verdict;
use crate::wdf::power_policy;

const TAG: u32 = pool::tag(b"PnpR");

/// The drivers of a device. Their `AddDevice` routines are called from the lowest to the highest: *Adding a PnP Device to a Running System*.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drivers {
    /// Filters below the function driver, the lowest first.
    pub lower: Vec<DriverPtr<DRIVER_OBJECT>>,
    /// The function driver.
    pub function: DriverPtr<DRIVER_OBJECT>,
    /// Filters above it, the lowest first.
    pub upper: Vec<DriverPtr<DRIVER_OBJECT>>,
}

impl Drivers {
    /// A function driver without filters.
    #[must_use]
    pub const fn without_filters(function: DriverPtr<DRIVER_OBJECT>) -> Self {
        Self { lower: Vec::new(), function, upper: Vec::new() }
    }
}

/// Why a device did not start. The driver is not to blame by itself: it said so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartFailure {
    /// What failed: `AddDevice`, `IRP_MN_START_DEVICE`, …
    pub step: &'static str,
    /// Its status.
    pub status: NtStatus,
    /// More, in words; may be empty.
    pub why: String,
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed with {}", self.step, self.status)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// Whether it started.
pub type Started = Result<(), StartFailure>;

fn failure(step: &'static str, status: NtStatus, why: impl Into<String>) -> Started {
    Err(StartFailure { step, status, why: why.into() })
}

/// Adds the drivers to the device and starts it. On a system thread, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver of the stack. (inner) a step failed, and what had been added was removed again.
pub fn start(cx: &mut Cx<'_>, id: NodeId, drivers: &Drivers) -> Flow<Started> {
    exclusively(cx, |cx| start_while_locked(cx, id, drivers))
}

/// As [`start`], by one who has the device's state to itself.
///
/// # Errors
/// As [`start`].
pub(super) fn start_while_locked(cx: &mut Cx<'_>, id: NodeId, drivers: &Drivers) -> Flow<Started> {
    let state = node::state(cx, id);
    if state != State::Enumerated {
        return Ok(failure(
            "start",
            NtStatus::INVALID_DEVICE_STATE,
            format!("the device is {}", state.name()),
        ));
    }
    cx.with(|k| k.pnp.node_mut(id).problem = None);
    if cx.with(|k| k.pnp.node(id).hardware_disabled) {
        cx.with(|k| {
            k.pnp.node_mut(id).problem = Some(Problem::new(Code::HardwareDisabled, "HardwareDisabled"))
        });
        return Ok(failure(
            "IRP_MN_QUERY_CAPABILITIES",
            NtStatus::NO_SUCH_DEVICE,
            "its hardware is disabled",
        ));
    }
    let started = match add(cx, id, drivers)? {
        Ok(()) => start_added(cx, id)?,
        failed => failed,
    };
    if let Err(failure) = &started {
        note_problem(cx, id, failure);
    }
    Ok(started)
}

/// Remembers why a device has not started.
pub(super) fn note_problem(cx: &mut Cx<'_>, id: NodeId, failure: &StartFailure) {
    let code = match failure.step {
        "AddDevice" => Code::FailedAdd,
        ASSIGNING => Code::NormalConflict,
        "IRP_MN_QUERY_PNP_DEVICE_STATE" => Code::FailedPostStart,
        _ => Code::FailedStart,
    };
    let why = if code == Code::NormalConflict { failure.why.clone() } else { failure.to_string() };
    // A device that has said what is wrong has its own code.
    cx.with(|k| k.pnp.node_mut(id).problem.get_or_insert(Problem::new(code, why)).code);
}

/// The step of a device whose resources cannot be had.
const ASSIGNING: &str = "assigning resources";

/// `AddDevice` of each driver. If one fails, those below it are removed again.
fn add(cx: &mut Cx<'_>, id: NodeId, drivers: &Drivers) -> Flow<Started> {
    cx.with(|k| {
        let node = k.pnp.node_mut(id);
        (node.told_to_go, node.added_last) = (false, Some(drivers.clone()));
    });
    if drivers.function.is_null() {
        // A raw device: its bus driver alone has it.
        cx.with(|k| k.pnp.node_mut(id).state = State::Added);
        return Ok(Ok(()));
    }
    tell(cx, id, "add");
    let mut below = node::stack(cx, id)?;
    cx.with(|k| {
        let node = k.pnp.node_mut(id);
        node.driver = drivers.function;
        node.filters = drivers.lower.iter().chain(&drivers.upper).copied().collect();
    });
    for &driver in drivers.lower.iter().chain([&drivers.function]).chain(&drivers.upper) {
        cx.with(|k| power_policy::add_begins(k, id, driver));
        let status = io::driver::add_device(cx, driver, id.pdo())?;
        cx.with(power_policy::add_ends);
        let stack = node::stack(cx, id)?;
        let added = &stack[below.len() - 1..];
        if !status.is_success() {
            remove_check::after_failed_add(cx, id, driver, added)?;
            let service = io::driver::service(cx, driver);
            let why =
                if driver == drivers.function { String::new() } else { format!("the filter {service}") };
            let failed = StartFailure { step: "AddDevice", status, why };
            if below.len() == 1 {
                cx.with(|k| k.pnp.node_mut(id).forget_drivers());
                return Ok(Err(failed));
            }
            return give_up(cx, id, failed);
        }
        check_stack(cx, id, driver, added)?;
        below = stack;
    }
    cx.with(|k| k.pnp.node_mut(id).state = State::Added);
    secure(cx, id, &below);
    Ok(Ok(()))
}

/// What was installed about who may open the device holds for each device object of its stack.
fn secure(cx: &mut Cx<'_>, id: NodeId, stack: &[DriverPtr<DEVICE_OBJECT>]) {
    let installation = cx.with(|k| k.pnp.node(id).installation.clone());
    if let Some(security) = installation.and_then(|installation| installation.security) {
        for device in stack {
            object::set_device(cx, device.address, security.information(), &security);
        }
    }
}

/// Flags that exclude each other.
fn check_flags(cx: &mut Cx<'_>, service: &str, device: DriverPtr<DEVICE_OBJECT>, flags: u32) -> Flow<()> {
    if flags & DO_POWER_INRUSH != 0 && flags & DO_POWER_PAGABLE != 0 {
        let message = format!(
            "AddDevice of {service} set DO_POWER_INRUSH and DO_POWER_PAGABLE in {:#x}: power requests of devices with inrush come at DISPATCH_LEVEL",
            device.address
        );
        cx.report(Verdict::warning("power-inrush-pagable", message));
    }
    if flags & DO_BUFFERED_IO != 0 && flags & DO_DIRECT_IO != 0 {
        let message = format!(
            "AddDevice of {service} set DO_BUFFERED_IO and DO_DIRECT_IO in {:#x}: reads and writes have one kind of buffer",
            device.address
        );
        let verdict = Verdict::verifier("io-flags-both-set", message);
        cx.verify(verdict.bug_check(0xC9, [0x245, 0, device.address, 0]))?;
    }
    Ok(())
}

/// What `AddDevice` must have done.
fn check_stack(
    cx: &mut Cx<'_>,
    id: NodeId,
    driver: DriverPtr<DRIVER_OBJECT>,
    stack: &[DriverPtr<DEVICE_OBJECT>],
) -> Flow<()> {
    let service = io::driver::service(cx, driver);
    let device = cx.with(|k| k.pnp.node(id).name.clone());
    if stack.len() == 1 {
        let message = format!(
            "AddDevice of {service} returned STATUS_SUCCESS and attached no device object to {device}"
        );
        cx.report(Verdict::warning("add-device-attached-nothing", message));
    }
    for pair in stack.windows(2) {
        let (below, above) = (pair[0], pair[1]);
        let lower = cx.read(below + DEVICE_OBJECT::Flags)?;
        let upper = cx.read(above + DEVICE_OBJECT::Flags)?;
        if lower & DO_POWER_PAGABLE != 0 && upper & (DO_POWER_PAGABLE | DO_POWER_INRUSH) == 0 {
            let message = format!(
                "AddDevice of {service} did not take over DO_POWER_PAGABLE from the device below {:#x}: its power requests may come at DISPATCH_LEVEL, those of the driver below must not",
                above.address
            );
            let verdict = Verdict::warning("power-pagable-not-taken-over", message);
            cx.report(verdict.bug_check(0xC9, [0x23F, 0, above.address, 0]));
        }
        check_flags(cx, &service, above, upper)?;
        let (size, size_below) =
            (cx.read(above + DEVICE_OBJECT::StackSize)?, cx.read(below + DEVICE_OBJECT::StackSize)?);
        if size <= size_below {
            let message = format!(
                "AddDevice of {service} left StackSize {size} in its device object, above one with {size_below}: requests to it have no room for the driver below"
            );
            // A driver that skips its stack location in every request does without: who needs the room runs into `no-stack-location`.
            cx.report(Verdict::warning("stack-size", message));
        }
    }
    Ok(())
}

/// Starts a device whose drivers have been added; removes them again if it fails.
pub(super) fn start_added(cx: &mut Cx<'_>, id: NodeId) -> Flow<Started> {
    let resources = match assign(cx, id)? {
        Ok(resources) => resources,
        Err(failed) => return give_up(cx, id, failed),
    };
    cx.with(|k| k.pnp.node_mut(id).resources = resources);
    let status = send_start(cx, id)?;
    if !status.is_success() {
        let failed = StartFailure { step: "IRP_MN_START_DEVICE", status, why: String::new() };
        return give_up(cx, id, failed);
    }
    cx.with(|k| k.pnp.node_mut(id).state = State::Started);
    install::write_control(cx, id);
    let capabilities = request::capabilities(cx, id)?;
    cx.with(|k| k.pnp.node_mut(id).answers.capabilities = capabilities);
    let state = query_state(cx, id)?;
    if !invalidate::act_on(cx, id, state)? {
        let why = format!("it answered {}", state_names(state));
        return Ok(failure("IRP_MN_QUERY_PNP_DEVICE_STATE", NtStatus::UNSUCCESSFUL, why));
    }
    relations::query(cx, id)?;
    Ok(Ok(()))
}

/// The flags of a `PNP_DEVICE_STATE` that take a device away.
pub(super) fn state_names(state: u32) -> String {
    let names = [
        (PNP_DEVICE_DISABLED, "PNP_DEVICE_DISABLED"),
        (PNP_DEVICE_FAILED, "PNP_DEVICE_FAILED"),
        (PNP_DEVICE_REMOVED, "PNP_DEVICE_REMOVED"),
        (PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED, "PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED"),
    ];
    let set = names.iter().filter(|(flag, _)| state & flag != 0).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(" and ")
}

fn give_up(cx: &mut Cx<'_>, id: NodeId, failed: StartFailure) -> Flow<Started> {
    remove::send_remove(cx, id)?;
    Ok(Err(failed))
}

/// What the device is started with: by a forced configuration, by one that overrides the bus driver's requirements, by those, or by what it
/// had at boot. An override that cannot be met gives way to what the bus driver reports: *INF DDInstall.LogConfigOverride Section*.
pub(super) fn assign(cx: &mut Cx<'_>, id: NodeId) -> Flow<Result<Vec<Resource>, StartFailure>> {
    let (forced, overriding) = cx.with(|k| {
        let node = k.pnp.node(id);
        // A card's resources are in its base address registers.
        let installed = node.installation.as_ref().filter(|_| node.card().is_none());
        let list = |list: &Requirements| (!list.lists.is_empty()).then(|| list.bytes());
        installed.map_or((None, None), |installed| {
            (list(&installed.configuration.forced), list(&installed.configuration.overriding))
        })
    });
    if let Some(list) = forced {
        let list = copy(cx, &list)?;
        return assign_by(cx, id, list);
    }
    if let Some(list) = overriding {
        let list = copy(cx, &list)?;
        let assigned = assign_by(cx, id, list)?;
        if !matches!(&assigned, Err(failure) if failure.step == ASSIGNING) {
            return Ok(assigned);
        }
        tell(cx, id, "no override configuration for");
    }
    let asked = ask(cx, id, IRP_MN_QUERY_RESOURCE_REQUIREMENTS, [0; 4])?;
    let mut original = if asked.status.is_success() { asked.information } else { 0 };
    if original == 0
        && let Some(boot) = cx.with(|k| at_boot(k, id))
    {
        original = copy(cx, &boot)?;
    }
    assign_by(cx, id, original)
}

/// The boot configuration of a device that is no card, as requirements.
fn at_boot(k: &Kernel, id: NodeId) -> Option<Vec<u8>> {
    let node = k.pnp.node(id);
    if node.card().is_some() || node.answers.boot_resources.is_empty() {
        return None;
    }
    let (interface, bus) = node.bus();
    let list = claim::wanted(&node.answers.boot_resources);
    Some(Requirements { interface, bus, slot: 0, lists: vec![list] }.bytes())
}

/// Requirements, in pool or none, filtered by the stack, and met.
fn assign_by(cx: &mut Cx<'_>, id: NodeId, original: u64) -> Flow<Result<Vec<Resource>, StartFailure>> {
    // Both name the list; the page has drivers use the one of the status block.
    let parameters = [original, 0, 0, 0];
    let filtered = ask_about(cx, id, IRP_MN_FILTER_RESOURCE_REQUIREMENTS, parameters, original)?;
    if !filtered.status.is_success() && filtered.status != NtStatus::NOT_SUPPORTED {
        if original != 0 {
            pool::free(cx, DriverPtr::<()>::new(original))?;
        }
        let (step, status) = ("IRP_MN_FILTER_RESOURCE_REQUIREMENTS", filtered.status);
        return Ok(Err(StartFailure { step, status, why: String::new() }));
    }
    // A driver that answers a list of its own has freed the one it was given.
    let list = match filtered {
        io::system_request::Answer { information, .. }
            if filtered.status.is_success() && information != 0 =>
        {
            information
        }
        _ => original,
    };
    if list == 0 {
        return Ok(Ok(Vec::new()));
    }
    let length = request::requirements_length(cx, list)?;
    let bytes = cx.read_bytes(list, length)?;
    pool::free(cx, DriverPtr::<()>::new(list))?;
    cx.with(|k| k.pnp.node_mut(id).requirements.clone_from(&bytes));
    let is_card = cx.with(|k| k.pnp.node(id).card().is_some());
    let assigned = if is_card {
        let available = available(cx, id);
        let offer = message::offer(cx, id);
        let supply = offer.map(|offer| cx.with(|k| Supply::new(k, offer)));
        requirements::assign(&bytes, &available, supply.as_ref())
    } else {
        cx.with(|k| arbiter::assign(k, id, &bytes))
    };
    match assigned {
        Ok(resources) => Ok(Ok(resources)),
        Err(Unusable::Malformed(why)) => {
            let device = cx.with(|k| k.pnp.node(id).name.clone());
            let message = format!(
                "the resource requirements of {device} cannot be read after IRP_MN_FILTER_RESOURCE_REQUIREMENTS: {why}"
            );
            Err(cx.stop(Verdict::error("bad-resource-requirements", message)))
        }
        Err(Unusable::Conflict(why)) => {
            tell(cx, id, "no resources for");
            Ok(Err(StartFailure { step: ASSIGNING, status: NtStatus::CONFLICTING_ADDRESSES, why }))
        }
    }
}

/// `IRP_MN_START_DEVICE` with the node's resources.
pub(super) fn send_start(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    tell(cx, id, "start");
    let (resources, device, bus, platform) = cx.with(|k| {
        let node = k.pnp.node(id);
        let (name, bus) = (node.name.clone(), node.bus());
        let resources = k.pnp.node(id).resources.clone();
        // Where it moves, the bus driver says when.
        if node.card().is_some_and(|card| card.moves.is_none()) {
            k.hal.stale.assign(&name, &resource::windows(&resources));
        }
        (resources, name, bus, k.hal.platform)
    });
    let (mut raw, mut translated) = (0, 0);
    if !resources.is_empty() {
        raw = copy(cx, &resource::list(&resources, bus, Form::Raw))?;
        translated = copy(cx, &resource::list(&resources, bus, Form::Translated(platform)))?;
    }
    if cx.count_event(Kind::Resources) {
        let text = shown::resources(&resources, platform);
        cx.emit(Event::Resources { device: device.clone(), resources: text });
    }
    let answer = ask(cx, id, IRP_MN_START_DEVICE, [raw, translated, 0, 0])?;
    for list in [raw, translated] {
        if list != 0 {
            pool::free(cx, DriverPtr::<()>::new(list))?;
        }
    }
    let outcome = if answer.status.is_success() { "started" } else { "failed to start" };
    enumerate::step(cx, outcome, device);
    Ok(answer.status)
}

fn copy(cx: &mut Cx<'_>, bytes: &[u8]) -> Flow<u64> {
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, bytes.len() as u64, TAG)?;
    if block.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a resource list")));
    }
    cx.write_bytes(block.address, bytes)?;
    Ok(block.address)
}

/// `IRP_MN_QUERY_PNP_DEVICE_STATE`; a stack that does not answer has nothing to say.
pub(super) fn query_state(cx: &mut Cx<'_>, id: NodeId) -> Flow<u32> {
    let answer = ask(cx, id, IRP_MN_QUERY_PNP_DEVICE_STATE, [0; 4])?;
    let state = if answer.status.is_success() { io::call::low_half(answer.information) } else { 0 };
    cx.with(|k| k.pnp.node_mut(id).device_state = state);
    Ok(state)
}
