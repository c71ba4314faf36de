//! Drivers that filter calls of the registry.
//!
//! Pages: *Filtering Registry Calls*, *Handling Notifications*, *Supporting Layered Registry Filtering Drivers*, *CmRegisterCallbackEx
//! function*, *CmSetCallbackObjectContext function*, *CmCallbackGetKeyObjectIDEx function*, *REG_NOTIFY_CLASS enumeration*. Routines are
//! called from the highest altitude to the lowest before an operation, and the other way round after it: those that were called before it and
//! have let it pass. Those of `CmRegisterCallback`, without an altitude, come first. What the kernel itself does in the registry, for
//! `RtlWriteRegistryValue` and PnP, calls no routine; there are no transactions. What *Invalid Key Object Pointers in Registry Notifications* calls an
//! undefined value that is not NULL is always the same address here, [`UNDEFINED`], at which there is nothing.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, NtStatus, UNICODE_STRING};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ex::altitude::Altitude;
use crate::ex::routines::{self, List, Routine, Routines};
use crate::ke::callout::call_routine;
use crate::mm::pool;
use crate::ob;
use crate::verdict::Verdict;

/// `REG_NOTIFY_CLASS`: before an operation and after it.
#[derive(Clone, Copy)]
pub(crate) struct Class(u64, u64);

pub(crate) const DELETE_KEY: Class = Class(0, 15);
pub(crate) const SET_VALUE: Class = Class(1, 16);
pub(crate) const DELETE_VALUE: Class = Class(2, 17);
pub(crate) const ENUMERATE_KEY: Class = Class(5, 20);
pub(crate) const ENUMERATE_VALUE: Class = Class(6, 21);
pub(crate) const QUERY_KEY: Class = Class(7, 22);
pub(crate) const QUERY_VALUE: Class = Class(8, 23);
pub(crate) const CLOSE: Class = Class(14, 25);
pub(crate) const CREATE: Class = Class(26, 27);
pub(crate) const OPEN: Class = Class(28, 29);
pub(crate) const FLUSH: Class = Class(30, 31);
const CONTEXT_CLEANUP: u64 = 40;

const ROLE: Role = Role::RegistryCallback;
const TAG: u32 = pool::tag(b"CmCb");
/// `REG_POST_OPERATION_INFORMATION`, in words.
const POST_WORDS: u64 = 7;

/// The `Object` that routines get of a key that was not opened or created.
const UNDEFINED: u64 = 0xFFFF_C0DE_BAD0_0010;

/// State of this file.
#[derive(Default)]
pub(crate) struct State {
    /// By their cookies, the highest first.
    routines: Routines,
    /// Of those that have one.
    altitudes: BTreeMap<u64, Altitude>,
    last_cookie: u64,
    /// What drivers have associated with keys: by the key's object and the cookie.
    contexts: BTreeMap<(u64, u64), u64>,
    /// Names that `CmCallbackGetKeyObjectID` has given, which stay as long as the key's object.
    names: BTreeMap<u64, u64>,
}

impl State {
    /// The code of all routines that are registered.
    pub(crate) fn all(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        self.routines.code()
    }

    pub(crate) fn is_any(&self) -> bool {
        self.routines.len() > 0
    }
}

fn list() -> impl List {
    |k: &mut Kernel| Some(&mut k.cm.callbacks.routines)
}

fn register_at(
    cx: &mut Cx<'_>,
    altitude: Option<Altitude>,
    routine: Routine,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let cookie = cx.with(|k| {
        let state = &mut k.cm.callbacks;
        if altitude.as_ref().is_some_and(|own| state.altitudes.values().any(|other| other == own)) {
            return Err(NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
        }
        state.last_cookie += 1;
        let cookie = state.last_cookie;
        // One without an altitude stays behind the others that have none.
        let altitudes = &state.altitudes;
        state.routines.add_before(cookie, routine, |other| {
            altitudes.get(&other).is_some_and(|other| altitude.as_ref().is_none_or(|own| other < own))
        });
        if let Some(altitude) = altitude {
            state.altitudes.insert(cookie, altitude);
        }
        Ok(cookie)
    });
    match cookie {
        Ok(cookie) => {
            cx.write(to, cookie)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `CmRegisterCallback`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    code: DriverPtr<Code>,
    context: u64,
    cookie: DriverPtr<u64>,
) -> Flow<NtStatus> {
    register_at(cx, None, Routine { code, context }, cookie)
}

/// `CmRegisterCallbackEx`.
///
/// # Errors
/// As [`register`].
pub(crate) fn register_ex(
    cx: &mut Cx<'_>,
    code: DriverPtr<Code>,
    altitude: DriverPtr<UNICODE_STRING>,
    _driver: u64,
    context: u64,
    cookie: DriverPtr<u64>,
    _reserved: u64,
) -> Flow<NtStatus> {
    let text = ob::string::read(cx, altitude)?;
    let Some(altitude) = Altitude::parse(&text) else { return Ok(NtStatus::INVALID_PARAMETER) };
    register_at(cx, Some(altitude), Routine { code, context }, cookie)
}

/// `CmUnRegisterCallback`: returns when the routine does not run any more, and was called for each context that it has set.
///
/// # Errors
/// A verdict if the caller may not wait for the routine.
pub(crate) fn unregister(cx: &mut Cx<'_>, cookie: u64) -> Flow<NtStatus> {
    let Some(routine) = cx.with(|k| k.cm.callbacks.routines.get(cookie)) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    routines::remove(cx, list(), cookie, "CmUnRegisterCallback")?;
    let contexts: Vec<(u64, u64)> = cx.with(|k| {
        let state = &mut k.cm.callbacks;
        state.altitudes.remove(&cookie);
        let own = state.contexts.iter().filter(|((_, of), _)| *of == cookie);
        let own: Vec<(u64, u64)> = own.map(|((object, _), context)| (*object, *context)).collect();
        state.contexts.retain(|(_, of), _| *of != cookie);
        own
    });
    for (object, context) in contexts {
        clean_up(cx, routine, object, context)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `RegNtCallbackObjectContextCleanup`.
fn clean_up(cx: &mut Cx<'_>, routine: Routine, object: u64, context: u64) -> Flow<()> {
    let block: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, 0x18, TAG)?;
    if block.is_null() {
        return Ok(());
    }
    store(cx, block, &[object, context, 0])?;
    call_routine(cx, ROLE, routine.code, object, &[routine.context, CONTEXT_CLEANUP, block.address])?;
    pool::free(cx, block)
}

fn store(cx: &mut Cx<'_>, to: DriverPtr<u64>, words: &[u64]) -> Flow<()> {
    for (at, word) in (0..).zip(words) {
        cx.write(to.byte_add(8 * at), *word)?;
    }
    Ok(())
}

/// The object of a key goes: so do the contexts and the name that it has.
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn object_goes(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    let (contexts, name) = cx.with(|k| {
        let state = &mut k.cm.callbacks;
        let own = state.contexts.iter().filter(|((of, _), _)| *of == object);
        let own: Vec<(u64, u64)> = own.map(|((_, cookie), context)| (*cookie, *context)).collect();
        state.contexts.retain(|(of, _), _| *of != object);
        (own, state.names.remove(&object))
    });
    for (cookie, context) in contexts {
        if let Some(routine) = cx.with(|k| k.cm.callbacks.routines.get(cookie)) {
            clean_up(cx, routine, object, context)?;
        }
    }
    match name {
        Some(name) => pool::free(cx, DriverPtr::<()>::new(name)),
        None => Ok(()),
    }
}

/// What routines get about an operation: `REG_…_KEY_INFORMATION`.
pub(crate) struct Information {
    /// Its words; those behind `CallContext` but for the object's context, which follows it, are 0.
    pub(crate) words: Vec<u64>,
    /// Which of them is `CallContext`.
    pub(crate) call_context: u64,
    /// The object of the key that it is about, or relative to.
    pub(crate) object: u64,
}

impl Information {
    /// An operation on the key of this object.
    pub(crate) fn of(object: u64, rest: &[u64]) -> Self {
        let words: Vec<u64> = [object].into_iter().chain(rest.iter().copied()).collect();
        Self { call_context: words.len() as u64, words, object }
    }
}

/// How far an operation has come.
pub(crate) struct Begun {
    class: Class,
    /// What routines get, before and after it.
    block: DriverPtr<u64>,
    call_context: u64,
    /// Which routines have let it pass, with what they want to have back.
    passed: Vec<(u64, u64)>,
}

impl Begun {
    /// A word of what the routines got, as they have left it.
    ///
    /// # Errors
    /// None of its own.
    pub(crate) fn word(&self, cx: &mut Cx<'_>, at: u64) -> Flow<u64> {
        cx.read(self.block.byte_add(8 * at))
    }

    /// Changes one.
    ///
    /// # Errors
    /// None of its own.
    pub(crate) fn set_word(&self, cx: &mut Cx<'_>, at: u64, value: u64) -> Flow<()> {
        cx.write(self.block.byte_add(8 * at), value)
    }
}

/// Calls the routines before an operation; its status if one of them does not let it pass (`SUCCESS` if that has
/// carried it out itself).
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn before(
    cx: &mut Cx<'_>,
    class: Class,
    information: Information,
) -> Flow<(Begun, Option<NtStatus>)> {
    let Information { words, call_context, object } = information;
    // CallContext, the object's context, and as many words as any structure has behind them.
    let words_in_all = call_context + 9;
    let bytes = 8 * (words_in_all + POST_WORDS);
    let block: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, bytes, TAG)?;
    let mut begun = Begun { class, block, call_context, passed: Vec::new() };
    if block.is_null() {
        return Ok((begun, Some(NtStatus::INSUFFICIENT_RESOURCES)));
    }
    store(cx, block, &words)?;
    let list = list();
    for serial in routines::all(cx, &list) {
        let answer = routines::call_one(cx, &list, serial, |cx, cookie, routine| {
            let context = cx.with(|k| k.cm.callbacks.contexts.get(&(object, cookie)).copied());
            store(cx, block.byte_add(8 * call_context), &[0, context.unwrap_or(0)])?;
            let arguments = [routine.context, class.0, block.address];
            let answer = call_routine(cx, ROLE, routine.code, object, &arguments)?;
            Ok((status_of(answer), cx.read(block.byte_add(8 * call_context))?))
        })?;
        match answer {
            None => {}
            Some((NtStatus::CALLBACK_BYPASS, _)) => return Ok((begun, Some(NtStatus::SUCCESS))),
            Some((status, _)) if !status.is_success() => return Ok((begun, Some(status))),
            Some((_, context)) => begun.passed.push((serial, context)),
        }
    }
    Ok((begun, None))
}

fn status_of(rax: u64) -> NtStatus {
    NtStatus(u32::try_from(rax & u64::from(u32::MAX)).unwrap_or(0))
}

/// Tells those that have let it pass what came of it, about the key of `object`, which is undefined if there is none by now; what the caller is to get.
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn after(cx: &mut Cx<'_>, begun: &Begun, object: u64, status: NtStatus) -> Flow<NtStatus> {
    let mut status = status;
    let Begun { class, block, call_context, .. } = *begun;
    let object = if object == 0 { UNDEFINED } else { object };
    let post = block.byte_add(8 * (call_context + 9));
    let list = list();
    for (serial, call_context) in begun.passed.iter().rev().copied() {
        let answer = routines::call_one(cx, &list, serial, |cx, cookie, routine| {
            let context = cx.with(|k| k.cm.callbacks.contexts.get(&(object, cookie)).copied());
            let own = u64::from(status.0);
            let words = [object, own, block.address, own, call_context, context.unwrap_or(0), 0];
            store(cx, post, &words)?;
            let arguments = [routine.context, class.1, post.address];
            let answer = call_routine(cx, ROLE, routine.code, object, &arguments)?;
            Ok((status_of(answer), status_of(cx.read(post.byte_add(8 * 3))?)))
        })?;
        if let Some((NtStatus::CALLBACK_BYPASS, wanted)) = answer {
            status = wanted;
        }
    }
    Ok(status)
}

/// It is over.
///
/// # Errors
/// None of its own.
pub(crate) fn end(cx: &mut Cx<'_>, begun: Begun) -> Flow<()> {
    if begun.block.is_null() { Ok(()) } else { pool::free(cx, begun.block) }
}

/// Carries out an operation on the key that `handle` stands for, whose other parameters are `rest`, and tells the routines of it.
///
/// # Errors
/// Whatever a routine comes to, or `operate`.
pub(crate) fn around(
    cx: &mut Cx<'_>,
    class: Class,
    handle: u64,
    rest: &[u64],
    operate: impl FnOnce(&mut Cx<'_>) -> Flow<NtStatus>,
) -> Flow<NtStatus> {
    let is_any = cx.with(|k| k.cm.callbacks.is_any());
    let Some(object) = super::key::object(cx, handle).filter(|_| is_any) else { return operate(cx) };
    // The caller may close the handle meanwhile.
    let kept = DriverPtr::<()>::new(object);
    ob::object::reference(cx, kept)?;
    let (begun, stopped) = before(cx, class, Information::of(object, rest))?;
    let status = match stopped {
        Some(status) => status,
        None => operate(cx)?,
    };
    let status = after(cx, &begun, object, status)?;
    end(cx, begun)?;
    ob::object::dereference(cx, kept)?;
    Ok(status)
}

/// A handle of a key's object is closed: the routines are called, and cannot prevent it.
///
/// # Errors
/// Whatever a routine comes to.
pub(crate) fn closing(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    if !cx.with(|k| k.cm.callbacks.is_any()) {
        return Ok(());
    }
    let (begun, _) = before(cx, CLOSE, Information::of(object, &[]))?;
    after(cx, &begun, object, NtStatus::SUCCESS).map(|_| ())?;
    end(cx, begun)
}

/// `CmSetCallbackObjectContext`.
///
/// # Errors
/// As [`register`].
pub(crate) fn set_context(
    cx: &mut Cx<'_>,
    object: u64,
    cookie: DriverPtr<u64>,
    new: u64,
    old: DriverPtr<u64>,
) -> Flow<NtStatus> {
    check_defined(cx, "CmSetCallbackObjectContext", object)?;
    let cookie = cx.read(cookie)?;
    let before = cx.with(|k| {
        let is_there = k.cm.open.contains_key(&object) && k.cm.callbacks.routines.has(cookie);
        is_there.then(|| k.cm.callbacks.contexts.insert((object, cookie), new))
    });
    let Some(before) = before else { return Ok(NtStatus::INVALID_PARAMETER) };
    if !old.is_null() {
        cx.write(old, before.unwrap_or(0))?;
    }
    Ok(NtStatus::SUCCESS)
}

/// # Errors
/// A verdict if a routine was given `object` where no key had been opened.
fn check_defined(cx: &mut Cx<'_>, ddi: &str, object: u64) -> Flow<()> {
    if object != UNDEFINED {
        return Ok(());
    }
    let message = format!(
        "{ddi} got the Object of a RegNtPostCreateKeyEx or RegNtPostOpenKeyEx whose Status is not STATUS_SUCCESS: it is undefined then"
    );
    Err(cx.stop(Verdict::error("bad-pointer", message)))
}

/// What a key is to routines: a number that no other key has, and its whole name.
fn identity(cx: &mut Cx<'_>, object: u64) -> Option<(u64, String)> {
    cx.with(|k| {
        let key = *k.cm.open.get(&object)?;
        let path = k.cm.registry.path(key).ok()?;
        Some((key.number(), String::from_utf16_lossy(&path)))
    })
}

/// A counted string of this text in one block, of the calling driver's if it is to free it.
fn counted(cx: &mut Cx<'_>, text: &str, is_callers: bool) -> Flow<u64> {
    const HEADER: u64 = 0x10;
    let bytes = ob::string::encode(text);
    let size = HEADER + bytes.len() as u64;
    let allocate = if is_callers { pool::allocate_for_caller } else { pool::allocate };
    let string: DriverPtr<UNICODE_STRING> = allocate(cx, pool::Kind::Paged, size, pool::tag(b"CMNb"))?;
    if string.is_null() {
        return Ok(0);
    }
    let buffer = string.cast::<u16>().byte_add(HEADER);
    cx.write_bytes(buffer.address, &bytes)?;
    ob::string::describe(cx, string, buffer, u16::try_from(bytes.len()).unwrap_or(u16::MAX - 1))?;
    Ok(string.address)
}

/// `CmCallbackGetKeyObjectID`: the name is the system's.
///
/// # Errors
/// As [`register`].
pub(crate) fn key_object_id(
    cx: &mut Cx<'_>,
    _cookie: DriverPtr<u64>,
    object: u64,
    id: DriverPtr<u64>,
    name: DriverPtr<u64>,
) -> Flow<NtStatus> {
    check_defined(cx, "CmCallbackGetKeyObjectID", object)?;
    let Some((number, path)) = identity(cx, object) else { return Ok(NtStatus::INVALID_PARAMETER) };
    if !id.is_null() {
        cx.write(id, number)?;
    }
    if name.is_null() {
        return Ok(NtStatus::SUCCESS);
    }
    let known = cx.with(|k| k.cm.callbacks.names.get(&object).copied());
    let string = match known {
        Some(string) => string,
        None => counted(cx, &path, false)?,
    };
    if string == 0 {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.with(|k| k.cm.callbacks.names.insert(object, string));
    cx.write(name, string)?;
    Ok(NtStatus::SUCCESS)
}

/// `CmCallbackGetKeyObjectIDEx`: the name is the caller's, for `CmCallbackReleaseKeyObjectIDEx`.
///
/// # Errors
/// As [`register`].
pub(crate) fn key_object_id_ex(
    cx: &mut Cx<'_>,
    _cookie: DriverPtr<u64>,
    object: u64,
    id: DriverPtr<u64>,
    name: DriverPtr<u64>,
    flags: u32,
) -> Flow<NtStatus> {
    check_defined(cx, "CmCallbackGetKeyObjectIDEx", object)?;
    let Some((number, path)) = identity(cx, object).filter(|_| flags == 0) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    if !id.is_null() {
        cx.write(id, number)?;
    }
    if !name.is_null() {
        let string = counted(cx, &path, true)?;
        cx.write(name, string)?;
        if string == 0 {
            return Ok(NtStatus::INSUFFICIENT_RESOURCES);
        }
    }
    Ok(NtStatus::SUCCESS)
}

/// `CmCallbackReleaseKeyObjectIDEx`.
///
/// # Errors
/// As freeing pool.
pub(crate) fn release_key_object_id_ex(cx: &mut Cx<'_>, name: DriverPtr<UNICODE_STRING>) -> Flow<()> {
    pool::free(cx, name)
}

/// `CmGetBoundTransaction`: no operation is part of one.
///
/// # Errors
/// None.
pub(crate) fn bound_transaction(_cx: &mut Cx<'_>, _cookie: DriverPtr<u64>, _object: u64) -> Flow<u64> {
    Ok(0)
}

/// `CmGetCallbackVersion`: since Windows 7.
///
/// # Errors
/// As [`register`].
pub(crate) fn version(cx: &mut Cx<'_>, major: DriverPtr<u32>, minor: DriverPtr<u32>) -> Flow<()> {
    for (to, value) in [(major, 1), (minor, 1)] {
        if !to.is_null() {
            cx.write(to, value)?;
        }
    }
    Ok(())
}
