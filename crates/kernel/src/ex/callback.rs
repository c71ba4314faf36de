//! Callback objects: routines that one driver registers and another has called.
//!
//! Pages: *Callback Objects*, *ExCreateCallback function*, *ExRegisterCallback function*, *ExNotifyCallback function*,
//! *ExUnregisterCallback function*. The system's own three are there; of them only `\Callback\PowerState` is ever notified: the clock of a
//! machine is not set, and no processor is added. The pages do not say it, but drivers rely on it when they unload: the caller that takes a routine
//! back waits until it does not run any more. An object stays as long as it is referenced; a registration is a reference.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, NtStatus, OBJECT_ATTRIBUTES};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ex::routines::{self, List, Routine, Routines};
use crate::ke::callout::call_routine;
use crate::mm::pool;
use crate::ob::{self, Kind, Procedures, attributes};
use crate::verdict::Verdict;

/// Those that Windows has, made when they are opened first, and then there to stay.
const SYSTEM: [&str; 3] = [r"\Callback\SetSystemTime", POWER_STATE, r"\Callback\ProcessorAdd"];
/// Notified when the system leaves S0, and when it is back there.
const POWER_STATE: &str = r"\Callback\PowerState";
/// `PO_CB_SYSTEM_STATE_LOCK`.
const SYSTEM_STATE_LOCK: u64 = 3;
/// Bytes of an object and of a registration; drivers see nothing of them.
const SIZE: u64 = 0x30;

/// A callback object.
struct Callback {
    /// More than one routine may be registered at a time.
    multiple: bool,
    /// By the addresses of their registrations.
    routines: Routines,
}

/// All of them, by their addresses.
#[derive(Default)]
pub(crate) struct State {
    callbacks: BTreeMap<u64, Callback>,
    /// The object of each registration.
    registrations: BTreeMap<u64, u64>,
}

impl State {
    /// The code of all routines that are registered.
    pub(crate) fn all(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        self.callbacks.values().flat_map(|callback| callback.routines.code())
    }
}

fn list_of(object: u64) -> impl List {
    move |k: &mut Kernel| Some(&mut k.ex.callbacks.callbacks.get_mut(&object)?.routines)
}

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete };

fn delete(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    // Its name goes with it.
    ob::object::make_temporary(cx, object);
    cx.with(|k| k.ex.callbacks.callbacks.remove(&object));
    Procedures::free(cx, object)
}

fn make(cx: &mut Cx<'_>, name: &str, multiple: bool) -> Flow<Result<u64, NtStatus>> {
    let body: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"Call"))?;
    if body.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    if let Err(status) = ob::object::create(cx, body.address, Kind::Callback, name, &PROCEDURES) {
        pool::free(cx, body)?;
        return Ok(Err(status));
    }
    let callback = Callback { multiple, routines: Routines::default() };
    cx.with(|k| k.ex.callbacks.callbacks.insert(body.address, callback));
    Ok(Ok(body.address))
}

/// `ExCreateCallback`: opens the object, or makes it if that is asked for. The caller gets a reference.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn create(
    cx: &mut Cx<'_>,
    to: DriverPtr<u64>,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    may_make: bool,
    multiple: bool,
) -> Flow<NtStatus> {
    let named = match attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    let object = match ob::object::named(cx, &named.name, Kind::Callback) {
        Ok(Ok(object)) => {
            ob::object::reference(cx, DriverPtr::<()>::new(object))?;
            object
        }
        Ok(Err(status)) => return Ok(status),
        Err(_) => {
            let is_system = SYSTEM.iter().any(|name| name.eq_ignore_ascii_case(&named.name));
            if !may_make && !is_system {
                return Ok(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            let object = match make(cx, &named.name, multiple || is_system)? {
                Ok(object) => object,
                Err(status) => return Ok(status),
            };
            if is_system {
                ob::object::reference(cx, DriverPtr::<()>::new(object))?;
            }
            object
        }
    };
    ob::account::taken(cx, object);
    cx.write(to, object)?;
    Ok(NtStatus::SUCCESS)
}

fn expect<T>(cx: &mut Cx<'_>, name: &str, what: &str, at: u64, found: Option<T>) -> Flow<T> {
    found.ok_or_else(|| {
        let message = format!("{name} was called with {at:#x}, which is no {what}");
        cx.stop(Verdict::error("not-a-callback", message))
    })
}

/// `ExRegisterCallback`: the registration, or null if there may be only one, and is, or without memory.
///
/// # Errors
/// A verdict if it is no callback object.
pub(crate) fn register(cx: &mut Cx<'_>, object: u64, routine: DriverPtr<Code>, context: u64) -> Flow<u64> {
    let full = cx.with(|k| {
        let callback = k.ex.callbacks.callbacks.get(&object)?;
        Some(!callback.multiple && callback.routines.len() > 0)
    });
    if expect(cx, "ExRegisterCallback", "callback object", object, full)? {
        return Ok(0);
    }
    let at = pool::allocate::<()>(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"CBRg"))?.address;
    if at == 0 {
        return Ok(0);
    }
    ob::object::reference(cx, DriverPtr::<()>::new(object))?;
    cx.with(|k| {
        k.ex.callbacks.registrations.insert(at, object);
        let callback = k.ex.callbacks.callbacks.get_mut(&object).expect("it was found");
        callback.routines.add(at, Routine { code: routine, context });
    });
    Ok(at)
}

/// `ExUnregisterCallback`: returns when the routine does not run any more.
///
/// # Errors
/// A verdict if it is no registration, or the caller may not wait for the routine.
pub(crate) fn unregister(cx: &mut Cx<'_>, at: u64) -> Flow<()> {
    let object = cx.with(|k| k.ex.callbacks.registrations.remove(&at));
    let object = expect(cx, "ExUnregisterCallback", "registration of a callback routine", at, object)?;
    routines::remove(cx, list_of(object), at, "ExUnregisterCallback")?;
    pool::free(cx, DriverPtr::<()>::new(at))?;
    ob::object::dereference(cx, DriverPtr::<()>::new(object)).map(|_| ())
}

/// `ExNotifyCallback`: calls all routines, in the order in which they were registered.
///
/// # Errors
/// A verdict if it is no callback object; whatever a routine comes to.
pub(crate) fn notify(cx: &mut Cx<'_>, object: u64, first: u64, second: u64) -> Flow<()> {
    let known = cx.with(|k| k.ex.callbacks.callbacks.contains_key(&object).then_some(()));
    expect(cx, "ExNotifyCallback", "callback object", object, known)?;
    routines::call_all(cx, list_of(object), |cx, routine| {
        let arguments = [routine.context, first, second];
        call_routine(cx, Role::CallbackFunction, routine.code, object, &arguments).map(|_| ())
    })
}

/// The system is about to leave S0, or is back.
///
/// # Errors
/// As [`notify`].
pub(crate) fn power_state(cx: &mut Cx<'_>, is_working: bool) -> Flow<()> {
    match ob::object::named(cx, POWER_STATE, Kind::Callback) {
        Ok(Ok(object)) => notify(cx, object, SYSTEM_STATE_LOCK, is_working.into()),
        _ => Ok(()),
    }
}
