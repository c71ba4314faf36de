//! A trace provider that registers a callback in the place of a device: what WPP's generated code does where `EtwRegisterClassicProvider` is not exported.
//!
//! No page; the interface is that of the code which WPP puts into drivers. `IoWMIRegistrationControl` is given a record that begins with the callback's
//! address, and the callback the minor function, the GUID, a buffer and its length, the record, and where to say how much it has written. It is asked for
//! its registration by IRP_MN_REGINFO. *Ours*: that is done at once, in the thread that registers, so that what `DriverEntry` traces is seen; so is
//! IRP_MN_DISABLE_EVENTS, before it is forgotten. Where no session traces, it is kept and never called.

use abi::{
    Code, DriverPtr, GUID, IRP_MN_DISABLE_EVENTS, IRP_MN_ENABLE_EVENTS, IRP_MN_REGINFO, NtStatus,
    WMIREG_ACTION_DEREGISTER, WMIREG_ACTION_REGISTER, WMIREG_ACTION_REREGISTER, WMIREG_ACTION_UPDATE_GUIDS,
};
use engine::Flow;

use super::registration::{FIRST_ROOM, MOST_ROOM};
use super::{Guid, reginfo, trace};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::ldr;
use crate::mm::pool;
use crate::verdict::Verdict;

/// A callback that is registered, by the image that has done it, and where.
pub(super) struct Callback {
    owner: Option<u64>,
    caller: u64,
    /// The GUIDs that are enabled.
    enabled: Vec<Guid>,
}

/// `IoWMIRegistrationControl` of a callback.
///
/// # Errors
/// A verdict if the record is not there, or on what the callback does or says.
pub(super) fn control(cx: &mut Cx<'_>, record: u64, kind: u32) -> Flow<NtStatus> {
    let known = cx.with(|k| k.wmi.callbacks.contains_key(&record));
    match kind {
        WMIREG_ACTION_REGISTER if known => return Ok(NtStatus::OBJECT_NAME_EXISTS),
        WMIREG_ACTION_REGISTER => {
            let (owner, caller) = pool::caller(cx);
            cx.with(|k| k.wmi.callbacks.insert(record, Callback { owner, caller, enabled: Vec::new() }));
            ask(cx, record)?;
        }
        _ if !known => return Ok(NtStatus::INVALID_PARAMETER),
        WMIREG_ACTION_DEREGISTER => {
            disable(cx, record)?;
            cx.with(|k| k.wmi.callbacks.remove(&record));
        }
        WMIREG_ACTION_REREGISTER => {
            disable(cx, record)?;
            ask(cx, record)?;
        }
        WMIREG_ACTION_UPDATE_GUIDS => ask(cx, record)?,
        _ => {}
    }
    Ok(NtStatus::SUCCESS)
}

/// The callbacks that the image at `driver` has left registered, and who has registered each.
pub(crate) fn callbacks_of(cx: &mut Cx<'_>, driver: u64) -> Vec<(u64, String)> {
    let left: Vec<(u64, u64)> = cx.with(|k| {
        let own = k.wmi.callbacks.iter().filter(|(_, callback)| callback.owner == Some(driver));
        let own: Vec<(u64, u64)> = own.map(|(record, callback)| (*record, callback.caller)).collect();
        k.wmi.callbacks.retain(|_, callback| callback.owner != Some(driver));
        own
    });
    left.into_iter().map(|(record, caller)| (record, ldr::symbols::describe(cx, caller))).collect()
}

/// If a session traces, asks a callback what it has, and enables what is traced.
fn ask(cx: &mut Cx<'_>, record: u64) -> Flow<()> {
    if !cx.with(|k| k.etw.tracing.is_on()) {
        return Ok(());
    }
    let mut room = FIRST_ROOM;
    let mut answer = call(cx, record, IRP_MN_REGINFO, None, &[], room)?;
    if answer.status == NtStatus::BUFFER_TOO_SMALL && (room..=MOST_ROOM).contains(&(answer.first as usize)) {
        room = answer.first as usize;
        answer = call(cx, record, IRP_MN_REGINFO, None, &[], room)?;
    }
    if !answer.status.is_success() {
        return Ok(());
    }
    let found = match reginfo::read(&answer.bytes, |_| None) {
        Ok(found) => found,
        Err(what) => {
            let message = format!("the WMI callback at {record:#x} answered IRP_MN_REGINFO with {what}");
            return Err(cx.stop(Verdict::error("wmi-bad-block", message)));
        }
    };
    for block in found.blocks {
        let is_new = cx.with(|k| {
            let controlled = trace::is_controlled(k, &block);
            let callback = k.wmi.callbacks.get_mut(&record);
            callback.filter(|callback| controlled && !callback.enabled.contains(&block.guid)).is_some_and(
                |callback| {
                    callback.enabled.push(block.guid);
                    true
                },
            )
        });
        if is_new {
            switch(cx, record, IRP_MN_ENABLE_EVENTS, block.guid)?;
        }
    }
    Ok(())
}

/// Disables all that is enabled of a callback.
fn disable(cx: &mut Cx<'_>, record: u64) -> Flow<()> {
    let enabled = cx.with(|k| {
        k.wmi
            .callbacks
            .get_mut(&record)
            .map(|callback| std::mem::take(&mut callback.enabled))
            .unwrap_or_default()
    });
    for guid in enabled {
        switch(cx, record, IRP_MN_DISABLE_EVENTS, guid)?;
    }
    Ok(())
}

fn switch(cx: &mut Cx<'_>, record: u64, minor: u8, guid: Guid) -> Flow<()> {
    let node = trace::node(cx, 0, &guid);
    call(cx, record, minor, Some(guid), &node, node.len()).map(|_| ())
}

/// What a callback has answered.
struct Answer {
    status: NtStatus,
    bytes: Vec<u8>,
    /// The first four bytes of the buffer.
    first: u32,
}

/// Calls a callback with a buffer of `room` bytes that begins with `input`.
fn call(
    cx: &mut Cx<'_>,
    record: u64,
    minor: u8,
    guid: Option<Guid>,
    input: &[u8],
    room: usize,
) -> Flow<Answer> {
    /// What lies before the buffer: the GUID, and how much the callback has written.
    const WRITTEN: u64 = size_of::<GUID>() as u64;
    const BUFFER: u64 = WRITTEN + 8;
    let routine: DriverPtr<Code> = DriverPtr::new(cx.read(DriverPtr::new(record))?);
    let bytes = BUFFER + room as u64;
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"Wmip"))?;
    if block.is_null() {
        return Ok(Answer { status: NtStatus::INSUFFICIENT_RESOURCES, bytes: Vec::new(), first: 0 });
    }
    let mut whole = guid.unwrap_or_default().to_vec();
    whole.extend([0; 8]);
    whole.extend(input);
    whole.resize(whole.len() + room - input.len(), 0);
    cx.write_bytes(block.address, &whole)?;
    let (path, buffer) = (guid.map_or(0, |_| block.address), block.address + BUFFER);
    let written: DriverPtr<u32> = DriverPtr::new(block.address + WRITTEN);
    let arguments = [minor.into(), path, room as u64, buffer, record, written.address];
    let status = NtStatus(low32(call_routine(cx, Role::WmiCallback, routine, record, &arguments)?));
    let first = if room < 4 { 0 } else { cx.read(DriverPtr::new(buffer))? };
    let length = cx.read(written)?;
    if status.is_success() && length as usize > room {
        let message = format!(
            "the WMI callback at {record:#x} says that it has written {length:#x} bytes of a buffer that has {room:#x}"
        );
        return Err(cx.stop(Verdict::error("wmi-bad-block", message)));
    }
    let bytes = if status.is_success() { cx.read_bytes(buffer, length.into())? } else { Vec::new() };
    pool::free(cx, block)?;
    Ok(Answer { status, bytes, first })
}

#[allow(clippy::cast_possible_truncation, reason = "a status is the lower half of rax")]
const fn low32(value: u64) -> u32 {
    value as u32
}
