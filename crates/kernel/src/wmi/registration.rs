//! `IoWMIRegistrationControl`: a device becomes a WMI data provider, and is asked what it has.
//!
//! Pages: *IoWMIRegistrationControl function*, *Registering as a WMI Data Provider*, *IRP_MN_REGINFO_EX* ("in the context of a system thread"), *Bug Check
//! 0xC4* (DA). As on every Windows since XP, `IRP_MN_REGINFO` is not sent. Without a page is what a second registration returns (OBJECT_NAME_EXISTS). A trace provider may
//! register a callback in the place of a device (`callback`); that a device is one (`WMIREG_FLAG_TRACE_PROVIDER`) says its registration, too.

use abi::{
    DEVICE_OBJECT, DriverPtr, IRP_MN_ENABLE_COLLECTION, IRP_MN_ENABLE_EVENTS, IRP_MN_REGINFO_EX, NtStatus,
    WMIREG_ACTION_BLOCK_IRPS, WMIREG_ACTION_DEREGISTER, WMIREG_ACTION_REGISTER, WMIREG_ACTION_REREGISTER,
    WMIREG_ACTION_UPDATE_GUIDS, WMIREG_FLAG_EXPENSIVE, WMIREG_FLAG_REMOVE_GUID,
};
use engine::Flow;

use super::ask::{self, Path};
use super::provider::{Block, leave, now};
use super::reginfo::{self, Registration};
use super::{callback, consumer, judge, trace};
use crate::cx::Cx;
use crate::io::violation::device_name;
use crate::verdict::Verdict;
use crate::{ke, ob, pnp};

/// The bits of the action itself.
const ACTION: u32 = 0xFFFF;
/// `DeviceObject` is a callback's record.
const FLAG_CALLBACK: u32 = 0x8000_0000;
/// `DataPath` of a request for a registration.
pub(super) const WMIREGISTER: u64 = 0;
const WMIUPDATE: u64 = 1;
/// The first buffer for a registration.
pub(super) const FIRST_ROOM: usize = 0x1000;
/// The largest.
pub(super) const MOST_ROOM: usize = 1 << 20;

/// `IoWMIRegistrationControl`.
///
/// # Errors
/// A verdict if the caller waits for a request that waits for it.
pub(crate) fn control(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, action: u32) -> Flow<NtStatus> {
    let kind = action & ACTION;
    if !(WMIREG_ACTION_REGISTER..=WMIREG_ACTION_BLOCK_IRPS).contains(&kind) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if action & FLAG_CALLBACK != 0 {
        return callback::control(cx, device.address, kind);
    }
    cx.read(device + DEVICE_OBJECT::Type)?;
    if !cx.with(|k| k.io.devices.get(device.address).is_some_and(|device| !device.deleted)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let id = cx.with(|k| k.wmi.of_device(device.address).map(|provider| provider.id));
    match (kind, id) {
        (WMIREG_ACTION_REGISTER, None) => register(cx, device),
        (WMIREG_ACTION_REGISTER, Some(_)) => Ok(NtStatus::OBJECT_NAME_EXISTS),
        (WMIREG_ACTION_DEREGISTER, None) => not_registered(cx, device),
        (_, None) => Ok(NtStatus::INVALID_PARAMETER),
        (WMIREG_ACTION_DEREGISTER, Some(id)) => leave(cx, id).map(|()| NtStatus::SUCCESS),
        (WMIREG_ACTION_REREGISTER, Some(id)) => {
            leave(cx, id)?;
            register(cx, device)
        }
        (WMIREG_ACTION_UPDATE_GUIDS, Some(id)) => later(cx, id, WMIUPDATE),
        (_, Some(id)) => {
            cx.with(|k| k.wmi.provider(id).map(|provider| provider.is_blocked = true));
            Ok(NtStatus::SUCCESS)
        }
    }
}

fn register(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<NtStatus> {
    let registered = now(cx);
    let id = cx.with(|k| k.wmi.add(device.address, registered));
    later(cx, id, WMIREGISTER)
}

/// One that was deregistered already must not be again; one that never was does no harm.
fn not_registered(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<NtStatus> {
    if cx.with(|k| k.wmi.left.contains(&device.address)) {
        let name = device_name(cx, device);
        let message = format!(
            "IoWMIRegistrationControl deregisters {name} again: a driver that has done it in IRP_MN_SURPRISE_REMOVAL must not in IRP_MN_REMOVE_DEVICE"
        );
        cx.report(Verdict::warning("wmi-deregistered-twice", message));
    }
    Ok(NtStatus::INVALID_PARAMETER)
}

/// Asks a provider for its registration, on a thread of the system's.
fn later(cx: &mut Cx<'_>, id: u32, kind: u64) -> Flow<NtStatus> {
    let work = Box::new(move |cx: &mut Cx<'_>| take(cx, id, kind));
    ke::thread::spawn(cx, "WMI", work).map(|_| NtStatus::SUCCESS)
}

fn take(cx: &mut Cx<'_>, id: u32, kind: u64) -> Flow<()> {
    let Some(device) = cx.with(|k| k.wmi.provider(id).map(|provider| provider.device)) else {
        return Ok(());
    };
    let before = references(cx);
    let mut room = FIRST_ROOM;
    let mut answer = ask::request(cx, id, IRP_MN_REGINFO_EX, Path::Registration(kind), &[], room)?;
    if answer.status == NtStatus::BUFFER_TOO_SMALL && (room..=MOST_ROOM).contains(&(answer.first as usize)) {
        room = answer.first as usize;
        answer = ask::request(cx, id, IRP_MN_REGINFO_EX, Path::Registration(kind), &[], room)?;
    }
    if !answer.status.is_success() {
        return Ok(());
    }
    let found = reginfo::read(&answer.bytes, |pdo| path_of(&before, pdo));
    let found = match found {
        Ok(found) => found,
        Err(what) => return Err(judge::bad_node(cx, device, IRP_MN_REGINFO_EX, &what)),
    };
    give_back(cx, device, &found, &before)?;
    adopt(cx, id, found.blocks, kind)
}

/// A physical device object: its instance path, and how many references there are to it.
type Physical = (u64, String, i64);

fn references(cx: &mut Cx<'_>) -> Vec<Physical> {
    let devices = pnp::devices(cx);
    cx.with(|k| {
        let physical = devices.into_iter().filter_map(|device| {
            let references = k.ob.objects.get(device.id.0)?.references;
            Some((device.id.0, device.instance_path, references))
        });
        physical.collect()
    })
}

fn path_of(known: &[Physical], pdo: u64) -> Option<String> {
    known.iter().find(|(device, ..)| *device == pdo).map(|(_, path, _)| path.clone())
}

/// Gives the references back that a provider has taken on the physical device objects in its registration.
fn give_back(cx: &mut Cx<'_>, provider: u64, found: &Registration, before: &[Physical]) -> Flow<()> {
    for &pdo in &found.pdos {
        let were = before.iter().find(|(device, ..)| *device == pdo).map_or(0, |(.., count)| *count);
        let are = cx.with(|k| k.ob.objects.get(pdo).map_or(0, |object| object.references));
        if are > were {
            ob::object::dereference(cx, DriverPtr::<DEVICE_OBJECT>::new(pdo))?;
            continue;
        }
        let name = device_name(cx, DriverPtr::new(provider));
        let message = format!(
            "{name} answered IRP_MN_REGINFO_EX with the physical device object {pdo:#x} and has not referenced it: the system dereferences it (ObReferenceObject)"
        );
        cx.report(Verdict::warning("wmi-pdo-not-referenced", message));
    }
    Ok(())
}

/// The blocks of a registration, or of its update, are a provider's.
fn adopt(cx: &mut Cx<'_>, id: u32, blocks: Vec<Block>, kind: u64) -> Flow<()> {
    let new: Vec<Block> = cx.with(|k| {
        let Some(provider) = k.wmi.provider(id) else { return Vec::new() };
        if kind == WMIREGISTER {
            provider.blocks.clear();
        }
        let mut new = Vec::new();
        for block in blocks {
            let place = provider.blocks.iter().position(|known| known.guid == block.guid);
            match place {
                Some(place) if block.flags & WMIREG_FLAG_REMOVE_GUID != 0 => {
                    provider.blocks.remove(place);
                }
                Some(place) => provider.blocks[place] = block,
                None if block.flags & WMIREG_FLAG_REMOVE_GUID != 0 => {}
                None => {
                    new.push(block.clone());
                    provider.blocks.push(block);
                }
            }
        }
        new
    });
    // Who listens already, listens to this one, too.
    for block in new {
        let (listened, used) =
            cx.with(|k| (k.wmi.listeners.contains_key(&block.guid), k.wmi.users.contains_key(&block.guid)));
        if listened {
            let _ = consumer::switch(cx, id, IRP_MN_ENABLE_EVENTS, block.guid)?;
        }
        if used && block.flags & WMIREG_FLAG_EXPENSIVE != 0 {
            let _ = consumer::switch(cx, id, IRP_MN_ENABLE_COLLECTION, block.guid)?;
        }
        if cx.with(|k| trace::is_controlled(k, &block)) {
            trace::enable(cx, id, block.guid)?;
        }
    }
    Ok(())
}
