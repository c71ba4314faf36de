//! Drivers that filter handles of processes and threads.
//!
//! Pages: *ObRegisterCallbacks function*, *OB_CALLBACK_REGISTRATION structure*, *OB_OPERATION_REGISTRATION structure*,
//! *OB_PRE_OPERATION_INFORMATION structure*, *OB_POST_OPERATION_INFORMATION structure*. Before a handle is made, routines are called from the
//! highest altitude to the lowest, and may take access rights away; after it, the other way round. As on Windows the routines have to lie in an
//! image that asks for its signature to be checked (`/INTEGRITYCHECK`). `ObUnRegisterCallbacks` waits for routines that are to be called after an operation that
//! is under way, of which the pages say nothing: a driver could not free its `CallContext` else. Not here: desktops.

use std::collections::BTreeMap;

use abi::{
    Code, DriverPtr, NtStatus, OB_CALLBACK_REGISTRATION, OB_OPERATION_HANDLE_CREATE,
    OB_OPERATION_HANDLE_DUPLICATE, OB_OPERATION_REGISTRATION, OB_POST_OPERATION_INFORMATION,
    OB_PRE_OPERATION_INFORMATION,
};
use engine::Flow;

use super::object::{self, Kind};
use super::{object_type, string};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ex::altitude::Altitude;
use crate::ex::routines::{self, List, Routine, Routines};
use crate::exports::data;
use crate::ke::callout::call_routine;
use crate::ke::region;
use crate::ldr;
use crate::mm::pool;
use crate::verdict::Verdict;

/// `OB_FLT_REGISTRATION_VERSION`.
const VERSION: u16 = 0x100;
/// As many operations as one registration may have: more say that the structure is none.
const MOST: u16 = 64;
const TAG: u32 = pool::tag(b"ObCb");

/// What is done to handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Create,
    /// From one process's table to another's, whose objects these are.
    Duplicate {
        source: u64,
        target: u64,
    },
}

impl Operation {
    const fn flag(self) -> u32 {
        match self {
            Self::Create => OB_OPERATION_HANDLE_CREATE,
            Self::Duplicate { .. } => OB_OPERATION_HANDLE_DUPLICATE,
        }
    }
}

/// A driver's routines for handles to objects of one type.
#[derive(Clone, Copy)]
struct Filter {
    kind: Kind,
    operations: u32,
    before: DriverPtr<Code>,
    after: DriverPtr<Code>,
}

/// What one call of `ObRegisterCallbacks` has registered.
struct Registration {
    altitude: Altitude,
    filters: Vec<Filter>,
}

/// State of this file.
#[derive(Default)]
pub(crate) struct State {
    /// By their handles, the highest first. What is called is in the registration; here stand their contexts.
    order: Routines,
    registrations: BTreeMap<u64, Registration>,
}

impl State {
    pub(crate) fn is_any(&self) -> bool {
        !self.registrations.is_empty()
    }

    /// All routines that are registered.
    pub(crate) fn all(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        let filters = self.registrations.values().flat_map(|registration| &registration.filters);
        filters.flat_map(|filter| [filter.before, filter.after])
    }
}

fn list() -> impl List {
    |k: &mut Kernel| Some(&mut k.ob.callbacks.order)
}

/// `ObGetFilterVersion`.
///
/// # Errors
/// None.
pub(crate) fn version(_cx: &mut Cx<'_>) -> Flow<u16> {
    Ok(VERSION)
}

/// `ObRegisterCallbacks`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    from: DriverPtr<OB_CALLBACK_REGISTRATION>,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let count = cx.read(from + OB_CALLBACK_REGISTRATION::OperationRegistrationCount)?;
    let version = cx.read(from + OB_CALLBACK_REGISTRATION::Version)?;
    let altitude = string::read(cx, from + OB_CALLBACK_REGISTRATION::Altitude)?;
    let context = cx.read(from + OB_CALLBACK_REGISTRATION::RegistrationContext)?.address;
    let all = cx.read(from + OB_CALLBACK_REGISTRATION::OperationRegistration)?;
    let altitude = Altitude::parse(&altitude).filter(|_| version == VERSION && (1..=MOST).contains(&count));
    let Some(altitude) = altitude else { return Ok(NtStatus::INVALID_PARAMETER) };
    let mut filters = Vec::new();
    for index in 0..u64::from(count) {
        let one = all.byte_add(index * size_of::<OB_OPERATION_REGISTRATION>() as u64);
        match filter(cx, one)? {
            Ok(filter) => filters.push(filter),
            Err(status) => return Ok(status),
        }
    }
    if cx.with(|k| k.ob.callbacks.registrations.values().any(|other| other.altitude == altitude)) {
        return Ok(NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
    }
    let at: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, 0x20, TAG)?;
    if at.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.with(|k| {
        let State { order, registrations } = &mut k.ob.callbacks;
        order.add_before(at.address, Routine { code: DriverPtr::NULL, context }, |other| {
            registrations.get(&other).is_some_and(|other| other.altitude < altitude)
        });
        registrations.insert(at.address, Registration { altitude, filters });
    });
    cx.write(handle, at.address)?;
    Ok(NtStatus::SUCCESS)
}

fn filter(cx: &mut Cx<'_>, from: DriverPtr<OB_OPERATION_REGISTRATION>) -> Flow<Result<Filter, NtStatus>> {
    let kind = cx.read(from + OB_OPERATION_REGISTRATION::ObjectType)?;
    let operations = cx.read(from + OB_OPERATION_REGISTRATION::Operations)?;
    let before = cx.read(from + OB_OPERATION_REGISTRATION::PreOperation)?;
    let after = cx.read(from + OB_OPERATION_REGISTRATION::PostOperation)?;
    let kind = object_type::kind(cx.read(kind.cast::<u64>())?);
    let known = OB_OPERATION_HANDLE_CREATE | OB_OPERATION_HANDLE_DUPLICATE;
    let is_one = operations != 0 && operations & !known == 0 && !(before.is_null() && after.is_null());
    let Some(kind) = kind.filter(|kind| is_one && matches!(kind, Kind::Process | Kind::Thread)) else {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    };
    for code in [before, after] {
        if !code.is_null() && !ldr::is_signature_checked(cx, code.address)? {
            return Ok(Err(NtStatus::ACCESS_DENIED));
        }
    }
    Ok(Ok(Filter { kind, operations, before, after }))
}

/// `ObUnRegisterCallbacks`: returns when none of the routines runs any more.
///
/// # Errors
/// A verdict if nothing is registered by this handle, or the caller may not wait for the routines.
pub(crate) fn unregister(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    if !cx.with(|k| k.ob.callbacks.registrations.contains_key(&handle)) {
        let message =
            format!("ObUnRegisterCallbacks was called with {handle:#x}, by which nothing is registered");
        return Err(cx.stop(Verdict::error("not-a-callback", message)));
    }
    routines::remove(cx, list(), handle, "ObUnRegisterCallbacks")?;
    cx.with(|k| k.ob.callbacks.registrations.remove(&handle));
    pool::free(cx, DriverPtr::<()>::new(handle))
}

/// A handle that is being made.
pub(crate) struct Begun {
    /// The access that it is to have.
    pub(crate) access: u32,
    operation: Operation,
    object: u64,
    kernel: bool,
    /// Which registrations were asked, with what they want to have back.
    asked: Vec<(u64, u64)>,
}

/// The filter of a registration for this operation.
fn filter_of(k: &Kernel, registration: u64, kind: Kind, operation: Operation) -> Option<Filter> {
    let registration = k.ob.callbacks.registrations.get(&registration)?;
    let mut own = registration.filters.iter();
    own.find(|filter| filter.kind == kind && filter.operations & operation.flag() != 0).copied()
}

fn type_of(kind: Kind) -> u64 {
    data::object_type(if kind == Kind::Process { "PsProcessType" } else { "PsThreadType" })
}

/// A handle to `object` with this access is about to be made.
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn before(
    cx: &mut Cx<'_>,
    operation: Operation,
    object: u64,
    access: u32,
    kernel: bool,
) -> Flow<Begun> {
    let mut begun = Begun { access, operation, object, kernel, asked: Vec::new() };
    let kind = object::kind(cx, object).filter(|kind| matches!(kind, Kind::Process | Kind::Thread));
    let Some(kind) = kind else { return Ok(begun) };
    let list = list();
    let bytes = size_of::<OB_PRE_OPERATION_INFORMATION>() as u64;
    for serial in routines::all(cx, &list) {
        let asked = routines::call_one(cx, &list, serial, |cx, registration, Routine { context, .. }| {
            let Some(filter) = cx.with(|k| filter_of(k, registration, kind, operation)) else {
                return Ok(None);
            };
            // It may not go before its other routine has had what this one keeps for it.
            routines::keep(cx, &list, serial);
            if filter.before.is_null() {
                return Ok(Some((0, u32::MAX)));
            }
            let block: DriverPtr<OB_PRE_OPERATION_INFORMATION> =
                pool::allocate(cx, pool::Kind::NonPaged, bytes + 0x18, TAG)?;
            if block.is_null() {
                return Ok(Some((0, u32::MAX)));
            }
            let parameters = block.byte_add(bytes).cast::<u32>();
            cx.write(block + OB_PRE_OPERATION_INFORMATION::Operation, operation.flag())?;
            cx.write(block + OB_PRE_OPERATION_INFORMATION::Flags, kernel.into())?;
            cx.write(block + OB_PRE_OPERATION_INFORMATION::Object, DriverPtr::new(object))?;
            cx.write(block + OB_PRE_OPERATION_INFORMATION::ObjectType, DriverPtr::new(type_of(kind)))?;
            cx.write(block + OB_PRE_OPERATION_INFORMATION::Parameters, parameters.cast())?;
            cx.write(parameters, begun.access)?;
            cx.write(parameters.byte_add(4), access)?;
            if let Operation::Duplicate { source, target } = operation {
                cx.write(parameters.byte_add(8).cast(), source)?;
                cx.write(parameters.byte_add(16).cast(), target)?;
            }
            region::enter_critical(cx)?;
            call_routine(cx, Role::ObjectPreCallback, filter.before, object, &[context, block.address])?;
            region::leave_critical(cx)?;
            let kept = cx.read(parameters)?;
            let own = cx.read(block + OB_PRE_OPERATION_INFORMATION::CallContext)?.address;
            pool::free(cx, block)?;
            Ok(Some((own, kept)))
        })?;
        if let Some(Some((own, kept))) = asked {
            begun.access &= kept; // nothing is added
            begun.asked.push((serial, own));
        }
    }
    Ok(begun)
}

/// It has been made.
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn after(cx: &mut Cx<'_>, begun: Begun) -> Flow<()> {
    let Begun { access, operation, object, kernel, asked } = begun;
    // There is a handle to it.
    let Some(kind) = object::kind(cx, object) else { return Ok(()) };
    let list = list();
    let bytes = size_of::<OB_POST_OPERATION_INFORMATION>() as u64;
    for (serial, own) in asked.into_iter().rev() {
        routines::call_kept(cx, &list, serial, |cx, registration, Routine { context, .. }| {
            let filter = cx.with(|k| filter_of(k, registration, kind, operation));
            let Some(filter) = filter.filter(|filter| !filter.after.is_null()) else { return Ok(()) };
            let block: DriverPtr<OB_POST_OPERATION_INFORMATION> =
                pool::allocate(cx, pool::Kind::NonPaged, bytes + 8, TAG)?;
            if block.is_null() {
                return Ok(());
            }
            let parameters = block.byte_add(bytes).cast::<u32>();
            cx.write(block + OB_POST_OPERATION_INFORMATION::Operation, operation.flag())?;
            cx.write(block + OB_POST_OPERATION_INFORMATION::Flags, kernel.into())?;
            cx.write(block + OB_POST_OPERATION_INFORMATION::Object, DriverPtr::new(object))?;
            cx.write(block + OB_POST_OPERATION_INFORMATION::ObjectType, DriverPtr::new(type_of(kind)))?;
            cx.write(block + OB_POST_OPERATION_INFORMATION::CallContext, DriverPtr::new(own))?;
            cx.write(block + OB_POST_OPERATION_INFORMATION::ReturnStatus, NtStatus::SUCCESS)?;
            cx.write(block + OB_POST_OPERATION_INFORMATION::Parameters, parameters.cast())?;
            cx.write(parameters, access)?;
            region::enter_critical(cx)?;
            call_routine(cx, Role::ObjectPostCallback, filter.after, object, &[context, block.address])?;
            region::leave_critical(cx)?;
            pool::free(cx, block)
        })?;
    }
    Ok(())
}
