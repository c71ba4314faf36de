//! Registering a device with the framework, and taking that back.
//!
//! Pages: *PoFxRegisterDevice function*, *PoFxStartDevicePowerManagement function*, *PoFxUnregisterDevice function*, *PO_FX_DEVICE_V1*,
//! *PO_FX_DEVICE_V3*, *PO_FX_COMPONENT_V2* (dependencies). A description of an F-state is invalid where F0 takes time or where the deepest wakeable state
//! is none of the component's. Of a component's flags its page has `PO_FX_COMPONENT_FLAG_F0_ON_DX`; `PO_FX_COMPONENT_FLAG_NO_DEBOUNCE` of the
//! header means nothing here, where no component waits before it goes to an F-state but for its residency; others are named. Flags of a device that let children do without directed power mean
//! nothing, as children are not directed. What
//! `PoFxUnregisterDevice` waits for is not documented: it returns when no other thread is in a routine of the driver's; who waits for a component to
//! become active waits no more.

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, KEVENT, NtStatus, PO_FX_COMPONENT_FLAG_F0_ON_DX,
    PO_FX_COMPONENT_FLAG_NO_DEBOUNCE, PO_FX_COMPONENT_IDLE_STATE, PO_FX_COMPONENT_V1, PO_FX_COMPONENT_V2,
    PO_FX_DEVICE_V1, PO_FX_DEVICE_V2, PO_FX_DEVICE_V3, PO_FX_VERSION_V1, PO_FX_VERSION_V2, PO_FX_VERSION_V3,
};
use engine::Flow;

use super::component::Manner;
use super::{Component, Device, IdleState, Routines, drive, event_of, report};
use crate::cx::Cx;
use crate::ke;
use crate::ke::wait::Timeout;
use crate::mm::pool;
use crate::pnp::node::{self, State};
use crate::verdict::Verdict;

/// More components or F-states than any device has: a driver that names more has passed something else.
const MOST: u32 = 1 << 10;
/// How many levels of providers there may be.
const DEEPEST: usize = 4;

/// What a `PO_FX_DEVICE` says, of any version.
struct Described {
    routines: Routines,
    context: u64,
    components: Vec<Component>,
}

/// `PoFxRegisterDevice`.
///
/// # Errors
/// A verdict if a pointer is bad, or the device is registered already.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    pdo: DriverPtr<DEVICE_OBJECT>,
    description: DriverPtr<PO_FX_DEVICE_V1>,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    if pdo.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let id = node::of_pdo(cx, "PoFxRegisterDevice", pdo)?;
    if cx.with(|k| super::of_device(k, pdo)).is_some() {
        return Err(report::registered_twice(cx, pdo));
    }
    if matches!(node::state(cx, id), State::Enumerated | State::Deleted) {
        return Ok(NtStatus::DEVICE_NOT_READY);
    }
    let Some(Described { routines, context, components }) = read(cx, description)? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    let block: DriverPtr<KEVENT> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, pool::tag(b"PoFx"))?;
    if block.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    ke::event::initialize(cx, block, abi::NotificationEvent, false)?;
    let mut device = Device::new(pdo, routines, context, components);
    // All are active until power management is started.
    for index in 0..device.components.len() {
        device.activate(index, false);
    }
    cx.with(|k| k.po.fx.insert(block.address, device));
    cx.write(handle, block.address)?;
    Ok(NtStatus::SUCCESS)
}

/// `PoFxStartDevicePowerManagement`.
///
/// # Errors
/// A verdict on the handle, or of what the driver's routines do.
pub(crate) fn start(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    report::check(cx, "PoFxStartDevicePowerManagement", handle)?;
    let count = cx.with(|k| {
        let device = k.po.fx.get_mut(&handle)?;
        if std::mem::replace(&mut device.started, true) {
            return None;
        }
        for component in &mut device.components {
            component.inner -= 1;
        }
        Some(device.components.len())
    });
    for index in 0..count.unwrap_or(0) {
        if cx.with(|k| drive::is_due(k, handle, index)) && Manner::Either.is_here(cx) {
            drive::component(cx, handle, index, false)?;
        }
    }
    drive::advance(cx, handle)
}

/// `PoFxUnregisterDevice`.
///
/// # Errors
/// A verdict on the handle.
pub(crate) fn unregister(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    report::check(cx, "PoFxUnregisterDevice", handle)?;
    let is_going =
        cx.with(|k| k.po.fx.get_mut(&handle).map(|device| std::mem::replace(&mut device.gone, true)));
    if is_going == Some(true) {
        return Err(report::bad_handle(cx, "PoFxUnregisterDevice", handle));
    }
    super::changed(cx, handle)?;
    loop {
        ke::event::clear(cx, event_of(handle))?;
        let is_left = cx.with(|k| {
            let strand = drive::current(k);
            let device = &k.po.fx[&handle];
            device.inside.iter().chain(&device.waiting).all(|other| *other == strand)
        });
        if is_left {
            break;
        }
        cx.with(|k| drive::note_waiting(k, handle, true));
        let _ = drive::sleep(cx, handle, Timeout::Never)?;
        cx.with(|k| drive::note_waiting(k, handle, false));
    }
    cx.with(|k| k.po.fx.remove(&handle));
    pool::free(cx, event_of(handle))
}

/// What the driver says of its device; none if that is not valid.
fn read(cx: &mut Cx<'_>, from: DriverPtr<PO_FX_DEVICE_V1>) -> Flow<Option<Described>> {
    let version = cx.read(from + PO_FX_DEVICE_V1::Version)?;
    /// What a version has of what all have.
    macro_rules! common {
        ($version:ident) => {{
            let from = from.cast::<$version>();
            let first = from + $version::ComponentActiveConditionCallback;
            let count = cx.read(from + $version::ComponentCount)?;
            (first, cx.read(from + $version::DeviceContext)?, count, (from + $version::Components).address)
        }};
    }
    let (first, context, count, components) = match version {
        PO_FX_VERSION_V1 => common!(PO_FX_DEVICE_V1),
        PO_FX_VERSION_V2 => common!(PO_FX_DEVICE_V2),
        PO_FX_VERSION_V3 => common!(PO_FX_DEVICE_V3),
        _ => return Ok(None),
    };
    let routines = read_routines(cx, first, version == PO_FX_VERSION_V3)?;
    let Some(components) = read_components(cx, version, components, count)? else { return Ok(None) };
    let has_states = components.iter().any(|component| component.states.len() > 1);
    let lacks = routines.idle_state.is_null() || routines.active.is_null() || routines.idle.is_null();
    if has_states && lacks || !is_sound(&components) {
        return Ok(None);
    }
    Ok(Some(Described { routines, context, components }))
}

/// The routines of all versions lie in the same order, those of directed power behind the others; `PowerControlCallback` is never called.
fn read_routines(cx: &mut Cx<'_>, first: DriverPtr<DriverPtr<Code>>, directed: bool) -> Flow<Routines> {
    let directed_up = if directed { cx.read(first.index(6))? } else { DriverPtr::NULL };
    let directed_down = if directed { cx.read(first.index(7))? } else { DriverPtr::NULL };
    Ok(Routines {
        active: cx.read(first)?,
        idle: cx.read(first.index(1))?,
        idle_state: cx.read(first.index(2))?,
        required: cx.read(first.index(3))?,
        not_required: cx.read(first.index(4))?,
        directed_up,
        directed_down,
    })
}

fn read_components(cx: &mut Cx<'_>, version: u32, from: u64, count: u32) -> Flow<Option<Vec<Component>>> {
    if count == 0 || count > MOST {
        return Ok(None);
    }
    let mut components = Vec::new();
    for index in 0..count {
        let component = match version {
            PO_FX_VERSION_V1 => {
                read_component(cx, DriverPtr::<PO_FX_COMPONENT_V1>::new(from).index(index.into()))?
            }
            _ => read_component_v2(cx, DriverPtr::<PO_FX_COMPONENT_V2>::new(from).index(index.into()))?,
        };
        let Some(component) = component else { return Ok(None) };
        components.push(component);
    }
    Ok(Some(components))
}

fn read_component(cx: &mut Cx<'_>, from: DriverPtr<PO_FX_COMPONENT_V1>) -> Flow<Option<Component>> {
    let count = cx.read(from + PO_FX_COMPONENT_V1::IdleStateCount)?;
    let deepest = cx.read(from + PO_FX_COMPONENT_V1::DeepestWakeableIdleState)?;
    let states = cx.read(from + PO_FX_COMPONENT_V1::IdleStates)?;
    described(cx, count, deepest, states, Vec::new())
}

fn read_component_v2(cx: &mut Cx<'_>, from: DriverPtr<PO_FX_COMPONENT_V2>) -> Flow<Option<Component>> {
    let flags = cx.read(from + PO_FX_COMPONENT_V2::Flags)?;
    if flags & !(PO_FX_COMPONENT_FLAG_F0_ON_DX | PO_FX_COMPONENT_FLAG_NO_DEBOUNCE) != 0 {
        let other = format!("Flags {flags:#x} of PO_FX_COMPONENT_V2");
        return Err(cx.stop(Verdict::not_implemented(&other)));
    }
    let count = cx.read(from + PO_FX_COMPONENT_V2::IdleStateCount)?;
    let deepest = cx.read(from + PO_FX_COMPONENT_V2::DeepestWakeableIdleState)?;
    let states = cx.read(from + PO_FX_COMPONENT_V2::IdleStates)?;
    let provider_count = cx.read(from + PO_FX_COMPONENT_V2::ProviderCount)?;
    let first = cx.read(from + PO_FX_COMPONENT_V2::Providers)?;
    if provider_count > MOST {
        return Ok(None);
    }
    let mut providers = Vec::new();
    for index in 0..provider_count {
        providers.push(cx.read(first.index(index.into()))? as usize);
    }
    let component = described(cx, count, deepest, states, providers)?;
    let f0_on_dx = flags & PO_FX_COMPONENT_FLAG_F0_ON_DX != 0;
    Ok(component.map(|component| Component { f0_on_dx, ..component }))
}

fn described(
    cx: &mut Cx<'_>,
    count: u32,
    deepest_wakeable: u32,
    first: DriverPtr<PO_FX_COMPONENT_IDLE_STATE>,
    providers: Vec<usize>,
) -> Flow<Option<Component>> {
    if count == 0 || count > MOST || deepest_wakeable >= count {
        return Ok(None);
    }
    let mut states = Vec::new();
    for index in 0..count {
        let state = first.index(index.into());
        states.push(IdleState {
            latency: cx.read(state + PO_FX_COMPONENT_IDLE_STATE::TransitionLatency)?,
            residency: cx.read(state + PO_FX_COMPONENT_IDLE_STATE::ResidencyRequirement)?,
        });
    }
    if states[0].latency != 0 || states[0].residency != 0 {
        return Ok(None);
    }
    Ok(Some(Component::new(states, deepest_wakeable, providers)))
}

/// Whether each component depends on others that exist, on none twice, and on itself by no way; and by few levels.
fn is_sound(components: &[Component]) -> bool {
    let once = |component: &Component| {
        let providers = &component.providers;
        (0..providers.len()).all(|at| !providers[..at].contains(&providers[at]))
    };
    let exist = |component: &Component| component.providers.iter().all(|it| *it < components.len());
    components.iter().all(|component| once(component) && exist(component))
        && (0..components.len()).all(|index| is_shallow(components, index, DEEPEST))
}

/// Whether no way along providers is longer than so many levels: one that never ends is.
fn is_shallow(components: &[Component], index: usize, levels: usize) -> bool {
    let providers = &components[index].providers;
    providers.is_empty()
        || levels > 0 && providers.iter().all(|provider| is_shallow(components, *provider, levels - 1))
}
