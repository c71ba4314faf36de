//! `Etw*`: providers of events for tracing.
//!
//! Pages: *EtwRegister function*, *ETWENABLECALLBACK callback function*, *EtwUnregister function*, *EtwWrite function*, *EtwEventEnabled function*,
//! *EtwProviderEnabled function*, *EtwSetInformation function*, *EtwActivityIdControl function*, *IoSetActivityIdThread function*. Which providers
//! are traced is a setting (`session`); by default none: no provider is enabled, no routine is called for that, and what is written goes nowhere. A
//! provider that is traced is enabled while it registers, when its handle is stored. Its callback is not called again: the session outlives it.
//! Capture of state, and filters of a session, are not here. A handle of 0 is refused and does no harm.

pub(crate) mod describe;
pub(crate) mod session;
pub(crate) mod write;

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, GUID, NtStatus};
use engine::Flow;

use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::ldr;
use crate::mm::pool;
use crate::rtl::guid;
use crate::verdict::Verdict;
use crate::wmi::Guid;
pub use session::TraceProviders;
use write::{Descriptor, Written};

/// A provider that is registered.
struct Provider {
    id: Guid,
    /// What it is called, where it has said so.
    name: Option<String>,
    /// The image that has registered it, and where.
    owner: Option<u64>,
    caller: u64,
}

/// State of this prefix.
pub struct State {
    /// By their handles.
    providers: BTreeMap<u64, Provider>,
    last: u64,
    /// Who traces.
    pub(crate) tracing: TraceProviders,
    /// Events that the session has, and those that it has not because they were too large.
    pub(crate) logged: u32,
    pub(crate) lost: u32,
}

impl State {
    pub(crate) fn new(settings: &crate::nt::Settings) -> Self {
        Self {
            providers: BTreeMap::new(),
            last: 0,
            tracing: settings.trace_providers.clone(),
            logged: 0,
            lost: 0,
        }
    }

    fn name_of(&self, handle: u64) -> Option<String> {
        self.providers.get(&handle)?.name.clone()
    }

    fn is_traced(&self, handle: u64) -> bool {
        self.providers.get(&handle).is_some_and(|provider| self.tracing.has(&provider.id))
    }
}

/// The first handle; they are as far apart as pointers to blocks.
const FIRST: u64 = 0x20;
/// `EVENT_CONTROL_CODE_ENABLE_PROVIDER`.
const ENABLE_PROVIDER: u64 = 1;
/// `EventProviderSetTraits`.
const SET_TRAITS: u32 = 2;

/// `EtwRegister`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what the callback does.
pub fn register(
    cx: &mut Cx<'_>,
    provider: DriverPtr<GUID>,
    enabled: DriverPtr<Code>,
    context: u64,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    if provider.is_null() || handle.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let id: Guid = cx.read(provider.cast())?;
    let (owner, caller) = pool::caller(cx);
    let made = cx.with(|k| {
        k.etw.last += FIRST;
        k.etw.providers.insert(k.etw.last, Provider { id, name: None, owner, caller });
        k.etw.last
    });
    cx.write(handle, made)?;
    let session = cx.with(|k| k.etw.is_traced(made).then_some((k.etw.tracing.level, k.etw.tracing.flags)));
    if let Some((level, flags)) = session.filter(|_| !enabled.is_null()) {
        // The GUID of the session, which has none.
        let source: DriverPtr<Guid> =
            pool::allocate(cx, pool::Kind::NonPaged, size_of::<Guid>() as u64, pool::tag(b"EtwS"))?;
        if source.is_null() {
            return Ok(NtStatus::SUCCESS);
        }
        cx.write(source, [0; 16])?;
        let arguments = [source.address, ENABLE_PROVIDER, level.into(), flags, 0, 0, context];
        call_routine(cx, Role::EtwEnableCallback, enabled, made, &arguments)?;
        pool::free(cx, source)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// Whether it is a handle; 0 is none.
///
/// # Errors
/// A verdict on one that is not registered: Windows takes it for a pointer.
fn is_provider(cx: &mut Cx<'_>, ddi: &str, handle: u64) -> Flow<bool> {
    if handle == 0 || cx.with(|k| k.etw.providers.contains_key(&handle)) {
        return Ok(handle != 0);
    }
    let message = format!("{ddi} was called with {handle:#x}, which is no provider that is registered");
    Err(cx.stop(Verdict::error("etw-not-registered", message)))
}

fn answer(cx: &mut Cx<'_>, ddi: &str, handle: u64) -> Flow<NtStatus> {
    Ok(if is_provider(cx, ddi, handle)? { NtStatus::SUCCESS } else { NtStatus::INVALID_HANDLE })
}

/// `EtwUnregister`.
///
/// # Errors
/// A verdict on a handle that is not registered.
pub fn unregister(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    let status = answer(cx, "EtwUnregister", handle)?;
    cx.with(|k| k.etw.providers.remove(&handle));
    Ok(status)
}

/// `EtwEventEnabled`: whether the event would be written.
///
/// # Errors
/// As [`unregister`].
pub fn event_enabled(cx: &mut Cx<'_>, handle: u64, event: u64) -> Flow<bool> {
    if !is_provider(cx, "EtwEventEnabled", handle)? || !cx.with(|k| k.etw.is_traced(handle)) {
        return Ok(false);
    }
    let Descriptor { level, keyword, .. } = Descriptor::read(cx, event)?;
    Ok(cx.with(|k| k.etw.tracing.takes(level, keyword)))
}

/// `EtwProviderEnabled`: whether an event of this level with these keywords would be written.
///
/// # Errors
/// As [`unregister`].
pub fn provider_enabled(cx: &mut Cx<'_>, handle: u64, level: u8, keyword: u64) -> Flow<bool> {
    let is_provider = is_provider(cx, "EtwProviderEnabled", handle)?;
    Ok(is_provider && cx.with(|k| k.etw.is_traced(handle) && k.etw.tracing.takes(level, keyword)))
}

/// Writes an event, if its provider is enabled.
fn put(cx: &mut Cx<'_>, ddi: &str, handle: u64, event: u64, written: Written) -> Flow<NtStatus> {
    let status = answer(cx, ddi, handle)?;
    if status.is_success() && cx.with(|k| k.etw.is_traced(handle)) {
        return write::event(cx, handle, event, written);
    }
    Ok(status)
}

/// `EtwWrite`.
///
/// # Errors
/// As [`unregister`]; of an event that is written, a verdict on a bad pointer. So those below.
pub fn write(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    activity: u64,
    count: u32,
    data: u64,
) -> Flow<NtStatus> {
    put(cx, "EtwWrite", handle, event, Written { activity, related: 0, count, data })
}

/// `EtwWriteTransfer`.
///
/// # Errors
/// As [`write`](fn@write).
pub fn write_transfer(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    activity: u64,
    related: u64,
    count: u32,
    data: u64,
) -> Flow<NtStatus> {
    put(cx, "EtwWriteTransfer", handle, event, Written { activity, related, count, data })
}

/// `EtwWriteEx`.
///
/// # Errors
/// As [`write`](fn@write).
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn write_ex(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    _filter: u64,
    _flags: u32,
    activity: u64,
    related: u64,
    count: u32,
    data: u64,
) -> Flow<NtStatus> {
    put(cx, "EtwWriteEx", handle, event, Written { activity, related, count, data })
}

/// `EtwWriteString`.
///
/// # Errors
/// As [`write`](fn@write).
pub fn write_string(
    cx: &mut Cx<'_>,
    handle: u64,
    level: u8,
    keyword: u64,
    activity: u64,
    text: u64,
) -> Flow<NtStatus> {
    let status = answer(cx, "EtwWriteString", handle)?;
    if status.is_success() && cx.with(|k| k.etw.is_traced(handle)) {
        return write::string(cx, handle, (level, keyword), activity, text);
    }
    Ok(status)
}

/// `EtwSetInformation`: the traits of a provider that is traced begin with its name; the rest is not read.
///
/// # Errors
/// As [`unregister`]; a verdict if the traits are not there.
pub fn set_information(
    cx: &mut Cx<'_>,
    handle: u64,
    class: u32,
    information: u64,
    length: u32,
) -> Flow<NtStatus> {
    let status = answer(cx, "EtwSetInformation", handle)?;
    if status.is_success() && class == SET_TRAITS && cx.with(|k| k.etw.is_traced(handle)) {
        let traits = cx.read_bytes(information, length.into())?;
        let name = describe::provider(&traits);
        cx.with(|k| k.etw.providers.get_mut(&handle).map(|provider| provider.name = name));
    }
    Ok(status)
}

/// `EtwActivityIdControl`: the current thread's activity is got (1), set (2), made anew (3, and left to the caller), exchanged (4), or
/// made anew and set, with the old one for the caller (5).
///
/// # Errors
/// A verdict if the pointer is bad.
pub fn activity_id_control(cx: &mut Cx<'_>, control: u32, id: DriverPtr<GUID>) -> Flow<NtStatus> {
    let own = cx.with(|k| k.ke.thread().map(|thread| thread.activity)).unwrap_or_default();
    let given: DriverPtr<[u8; 16]> = id.cast();
    let new = match control {
        1 => own,
        2 | 4 => cx.read(given)?,
        3 => return guid::create(cx, id),
        5 => {
            let _made = guid::create(cx, id)?;
            cx.read(given)?
        }
        _ => return Ok(NtStatus::INVALID_PARAMETER),
    };
    if control != 2 {
        cx.write(given, own)?;
    }
    let strand = cx.with(|k| k.ke.processor().thread);
    cx.with(|k| {
        if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
            thread.activity = new;
        }
    });
    Ok(NtStatus::SUCCESS)
}

/// `IoGetActivityIdThread`: where the activity of the current thread stands that was given last; null if none was.
///
/// # Errors
/// None.
pub fn activity_of_thread(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| k.ke.thread().map_or(0, |thread| thread.activity_at)))
}

/// `IoSetActivityIdThread`: the current thread goes on with this one; where the one before stands.
///
/// # Errors
/// A verdict if the pointer is bad.
pub fn set_activity_of_thread(cx: &mut Cx<'_>, id: DriverPtr<GUID>) -> Flow<u64> {
    let before = activity_of_thread(cx)?;
    let new: [u8; 16] = if id.is_null() { [0; 16] } else { cx.read(id.cast())? };
    let strand = cx.with(|k| k.ke.processor().thread);
    cx.with(|k| {
        if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
            (thread.activity, thread.activity_at) = (new, id.address);
        }
    });
    Ok(before)
}

/// `IoClearActivityIdThread`: the current thread goes on with the one that it had before.
///
/// # Errors
/// As [`set_activity_of_thread`].
pub fn clear_activity_of_thread(cx: &mut Cx<'_>, before: DriverPtr<GUID>) -> Flow<()> {
    set_activity_of_thread(cx, before).map(|_| ())
}

/// Providers that the image at `driver` has registered and left so: each handle, and who registered it.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(u64, String)> {
    let left: Vec<(u64, u64)> = cx.with(|k| {
        let own = k.etw.providers.iter().filter(|(_, provider)| provider.owner == Some(driver));
        own.map(|(handle, provider)| (*handle, provider.caller)).collect()
    });
    left.into_iter().map(|(handle, caller)| (handle, ldr::symbols::describe(cx, caller))).collect()
}
