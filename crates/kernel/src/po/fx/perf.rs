//! Performance states of components.
//!
//! Pages: *PoFxRegisterComponentPerfStates function*, *PoFxIssueComponentPerfStateChange function*, *PoFxIssueComponentPerfStateChangeMultiple function*,
//! *PoFxQueryCurrentComponentPerfState function*, *ComponentPerfStateCallback*. There is no plug-in, so states are a driver's own
//! (`PO_FX_FLAG_PERF_PEP_OPTIONAL`), and each change succeeds. A set that was never changed is at its first state or its minimum: no page says where it is.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    Code, DriverPtr, NtStatus, PO_FX_COMPONENT_PERF_INFO, PO_FX_COMPONENT_PERF_SET,
    PO_FX_FLAG_PERF_PEP_OPTIONAL, PO_FX_PERF_STATE_CHANGE, PoFxPerfStateTypeDiscrete, PoFxPerfStateTypeRange,
};
use engine::Flow;

use super::component::{BadFlags, Manner};
use super::{drive, report};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::thread;

/// More sets than any component has.
const MOST: u32 = 1 << 10;

/// The performance states of a component.
pub(crate) struct States {
    routine: DriverPtr<Code>,
    sets: Vec<Set>,
    /// The driver has asked for a change, and has not been called back.
    changing: bool,
}

/// A set: which of its states, or which value, it has.
#[derive(Clone, Copy)]
struct Set {
    is_discrete: bool,
    /// The lowest and the highest value, or state.
    range: (u64, u64),
    current: u64,
}

/// `PoFxRegisterComponentPerfStates`.
///
/// # Errors
/// A verdict on the parameters.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    handle: u64,
    component: u32,
    flags: u64,
    routine: DriverPtr<Code>,
    input: DriverPtr<PO_FX_COMPONENT_PERF_INFO>,
    output: DriverPtr<DriverPtr<PO_FX_COMPONENT_PERF_INFO>>,
) -> Flow<NtStatus> {
    let index = report::check_component(cx, "PoFxRegisterComponentPerfStates", handle, component)?;
    if input.is_null() == output.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if input.is_null() || flags & u64::from(PO_FX_FLAG_PERF_PEP_OPTIONAL) == 0 {
        return Ok(NtStatus::NOT_IMPLEMENTED);
    }
    let count = cx.read(input + PO_FX_COMPONENT_PERF_INFO::PerfStateSetsCount)?;
    if count == 0 || count > MOST {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let first = (input + PO_FX_COMPONENT_PERF_INFO::PerfStateSets).element(0);
    let mut sets = Vec::new();
    for at in 0..count {
        let Some(set) = read_set(cx, first.index(at.into()))? else { return Ok(NtStatus::INVALID_PARAMETER) };
        sets.push(set);
    }
    let states = States { routine, sets, changing: false };
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.components[index].perf = Some(states)));
    Ok(NtStatus::SUCCESS)
}

fn read_set(cx: &mut Cx<'_>, from: DriverPtr<PO_FX_COMPONENT_PERF_SET>) -> Flow<Option<Set>> {
    match cx.read(from + PO_FX_COMPONENT_PERF_SET::Type)? {
        PoFxPerfStateTypeDiscrete => {
            let count = cx.read(from + PO_FX_COMPONENT_PERF_SET::Discrete_Count)?;
            let last = count.checked_sub(1).map(u64::from);
            Ok(last.map(|last| Set { is_discrete: true, range: (0, last), current: 0 }))
        }
        PoFxPerfStateTypeRange => {
            let least = cx.read(from + PO_FX_COMPONENT_PERF_SET::Range_Minimum)?;
            let most = cx.read(from + PO_FX_COMPONENT_PERF_SET::Range_Maximum)?;
            let set = Set { is_discrete: false, range: (least, most), current: least };
            Ok((least <= most).then_some(set))
        }
        _ => Ok(None),
    }
}

/// `PoFxIssueComponentPerfStateChange`.
///
/// # Errors
/// A verdict on the parameters, or while the driver has not been called back for the last change.
pub(crate) fn change(
    cx: &mut Cx<'_>,
    handle: u64,
    flags: u32,
    component: u32,
    change: DriverPtr<PO_FX_PERF_STATE_CHANGE>,
    context: u64,
) -> Flow<()> {
    change_multiple(cx, handle, flags, component, 1, change, context)
}

/// `PoFxIssueComponentPerfStateChangeMultiple`.
///
/// # Errors
/// As [`change`].
pub(crate) fn change_multiple(
    cx: &mut Cx<'_>,
    handle: u64,
    flags: u32,
    component: u32,
    count: u32,
    changes: DriverPtr<PO_FX_PERF_STATE_CHANGE>,
    context: u64,
) -> Flow<()> {
    let index = report::check_component(cx, "PoFxIssueComponentPerfStateChange", handle, component)?;
    let manner = match manner(cx, handle, index, flags) {
        Ok(manner) => manner,
        Err(wrong) => return Err(report::perf(cx, handle, component, wrong)),
    };
    let mut wanted = Vec::new();
    for at in 0..count.min(MOST) {
        let change = changes.index(at.into());
        let set = cx.read(change + PO_FX_PERF_STATE_CHANGE::Set)? as usize;
        let index = cx.read(change + PO_FX_PERF_STATE_CHANGE::StateIndex)?;
        wanted.push((set, index, cx.read(change + PO_FX_PERF_STATE_CHANGE::StateValue)?));
    }
    let called = cx.with(|k| {
        let device = k.po.fx.get_mut(&handle)?;
        let states = device.components[index].perf.as_mut()?;
        let fits = states.take(&wanted);
        states.changing = true;
        Some((states.routine, [device.context, index as u64, fits.into(), context]))
    });
    let Some((routine, arguments)) = called else { return Ok(()) };
    let is_here = manner.is_here(cx);
    let call = move |cx: &mut Cx<'_>| {
        cx.with(|k| {
            let states = k.po.fx.get_mut(&handle)?.components[index].perf.as_mut()?;
            states.changing = false;
            Some(())
        });
        drive::call(cx, handle, Role::ComponentPerfStateCallback, routine, &arguments)
    };
    if is_here { call(cx) } else { thread::spawn(cx, "power manager", Box::new(call)).map(|_| ()) }
}

/// How a change is made, or why it may not be asked for.
fn manner(cx: &mut Cx<'_>, handle: u64, index: usize, flags: u32) -> Result<Manner, &'static str> {
    let manner = Manner::of(cx, flags).map_err(BadFlags::text)?;
    cx.with(|k| match &k.po.fx[&handle].components[index].perf {
        None => Err("which has none: PoFxRegisterComponentPerfStates first"),
        Some(states) if states.changing => {
            Err("before ComponentPerfStateCallback has been called for the last change")
        }
        Some(_) => Ok(manner),
    })
}

impl States {
    /// Takes all sets to what is wanted of them, or none if one of these does not exist.
    fn take(&mut self, wanted: &[(usize, u32, u64)]) -> bool {
        let value =
            |set: &Set, index: u32, value: u64| if set.is_discrete { u64::from(index) } else { value };
        let fits = wanted.iter().all(|(set, index, given)| {
            self.sets
                .get(*set)
                .is_some_and(|set| (set.range.0..=set.range.1).contains(&value(set, *index, *given)))
        });
        for (set, index, given) in wanted.iter().filter(|_| fits) {
            self.sets[*set].current = value(&self.sets[*set], *index, *given);
        }
        fits
    }
}

/// `PoFxQueryCurrentComponentPerfState`.
///
/// # Errors
/// A verdict on the handle.
pub(crate) fn query(
    cx: &mut Cx<'_>,
    handle: u64,
    _flags: u32,
    component: u32,
    set: u32,
    current: DriverPtr<u64>,
) -> Flow<NtStatus> {
    report::check(cx, "PoFxQueryCurrentComponentPerfState", handle)?;
    let found = cx.with(|k| {
        let component = k.po.fx[&handle].components.get(component as usize)?;
        component.perf.as_ref()?.sets.get(set as usize).map(|set| set.current)
    });
    let Some(found) = found else { return Ok(NtStatus::INVALID_PARAMETER) };
    cx.write(current, found)?;
    Ok(NtStatus::SUCCESS)
}
