//! `Etw*`: providers of events for tracing.
//!
//! Pages: *EtwRegister function*, *EtwUnregister function*, *EtwWrite function*, *EtwEventEnabled function*, *EtwProviderEnabled function*,
//! *EtwActivityIdControl function*, *IoSetActivityIdThread function*. As on a Windows where nobody traces there is no session: no provider is enabled, no routine is called for that,
//! and what is written goes nowhere. A handle of 0 is refused and does no harm.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, GUID, NtStatus};
use engine::Flow;

use crate::cx::Cx;
use crate::ldr;
use crate::mm::pool;
use crate::rtl::guid;
use crate::verdict::Verdict;

/// A provider that is registered.
struct Provider {
    /// The image that has registered it, and where.
    owner: Option<u64>,
    caller: u64,
}

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// By their handles.
    providers: BTreeMap<u64, Provider>,
    last: u64,
}

/// The first handle; they are as far apart as pointers to blocks.
const FIRST: u64 = 0x20;

/// `EtwRegister`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn register(
    cx: &mut Cx<'_>,
    _provider: DriverPtr<GUID>,
    _enabled: DriverPtr<Code>,
    _context: u64,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let (owner, caller) = pool::caller(cx);
    let made = cx.with(|k| {
        k.etw.last += FIRST;
        k.etw.providers.insert(k.etw.last, Provider { owner, caller });
        k.etw.last
    });
    cx.write(handle, made)?;
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

/// `EtwEventEnabled`: nobody listens.
///
/// # Errors
/// As [`unregister`].
pub fn event_enabled(cx: &mut Cx<'_>, handle: u64, _event: u64) -> Flow<bool> {
    is_provider(cx, "EtwEventEnabled", handle).map(|_| false)
}

/// `EtwProviderEnabled`: nobody listens.
///
/// # Errors
/// As [`unregister`].
pub fn provider_enabled(cx: &mut Cx<'_>, handle: u64, _level: u8, _keyword: u64) -> Flow<bool> {
    is_provider(cx, "EtwProviderEnabled", handle).map(|_| false)
}

/// `EtwWrite`.
///
/// # Errors
/// As [`unregister`].
pub fn write(
    cx: &mut Cx<'_>,
    handle: u64,
    _event: u64,
    _activity: u64,
    _count: u32,
    _data: u64,
) -> Flow<NtStatus> {
    answer(cx, "EtwWrite", handle)
}

/// `EtwWriteTransfer`.
///
/// # Errors
/// As [`unregister`].
pub fn write_transfer(
    cx: &mut Cx<'_>,
    handle: u64,
    _event: u64,
    _activity: u64,
    _related: u64,
    _count: u32,
    _data: u64,
) -> Flow<NtStatus> {
    answer(cx, "EtwWriteTransfer", handle)
}

/// `EtwWriteEx`.
///
/// # Errors
/// As [`unregister`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn write_ex(
    cx: &mut Cx<'_>,
    handle: u64,
    _event: u64,
    _filter: u64,
    _flags: u32,
    _activity: u64,
    _related: u64,
    _count: u32,
    _data: u64,
) -> Flow<NtStatus> {
    answer(cx, "EtwWriteEx", handle)
}

/// `EtwWriteString`.
///
/// # Errors
/// As [`unregister`].
pub fn write_string(
    cx: &mut Cx<'_>,
    handle: u64,
    _level: u8,
    _keyword: u64,
    _activity: u64,
    _text: u64,
) -> Flow<NtStatus> {
    answer(cx, "EtwWriteString", handle)
}

/// `EtwSetInformation`: nobody asks for it.
///
/// # Errors
/// As [`unregister`].
pub fn set_information(
    cx: &mut Cx<'_>,
    handle: u64,
    _class: u32,
    _information: u64,
    _length: u32,
) -> Flow<NtStatus> {
    answer(cx, "EtwSetInformation", handle)
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
        if let Some(thread) = k.ke.threads.get_mut(strand) {
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
        if let Some(thread) = k.ke.threads.get_mut(strand) {
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
