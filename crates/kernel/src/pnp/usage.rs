//! A paging, hibernation or crash dump file is made on a device, or removed from it: its drivers are asked, and notified.
//!
//! Page: *IRP_MN_DEVICE_USAGE_NOTIFICATION* ("System components send this IRP to ask the drivers for a device whether the device can support a
//! special file"; "Supporting Paging, Crash Dump, and Hibernation Files on a Device"), *IRP_MN_QUERY_DEVICE_RELATIONS* ("the driver should never complete this
//! IRP with a failure status code when InPath is FALSE"). The file itself is not there, and nothing is paged to it. Drivers of other devices
//! learn of it from the device's own. Files on a device that is gone are gone with it.

use abi::{
    DEVICE_OBJECT, DO_POWER_PAGABLE, DeviceUsageTypeDumpFile, DeviceUsageTypeHibernation,
    DeviceUsageTypePaging, IO_STACK_LOCATION, IRP_MN_DEVICE_USAGE_NOTIFICATION, NtStatus,
};
use engine::Flow;

use super::bus_pnp::{Location, Reply};
use super::enumerate::tell;
use super::lock::exclusively;
use super::node::{self, NodeId, State};
use super::{request, tree};
use crate::cx::Cx;
use crate::verdict::Verdict;
use crate::{io, ke};

/// A file that drivers must know of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// Memory is written to it and read from it.
    Paging,
    /// What the system knows when it hibernates.
    Hibernation,
    /// What it leaves when it crashes.
    Dump,
}

impl Special {
    pub(super) const ALL: [Self; 3] = [Self::Paging, Self::Hibernation, Self::Dump];

    const fn number(self) -> u32 {
        match self {
            Self::Paging => DeviceUsageTypePaging,
            Self::Hibernation => DeviceUsageTypeHibernation,
            Self::Dump => DeviceUsageTypeDumpFile,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Paging => "paging",
            Self::Hibernation => "hibernation",
            Self::Dump => "crash dump",
        }
    }

    /// What traces call it that there is such a file on a device, or is none any more.
    const fn step(self, there: bool) -> &'static str {
        match (self, there) {
            (Self::Paging, true) => "paging file on",
            (Self::Paging, false) => "paging file no longer on",
            (Self::Hibernation, true) => "hibernation file on",
            (Self::Hibernation, false) => "hibernation file no longer on",
            (Self::Dump, true) => "crash dump file on",
            (Self::Dump, false) => "crash dump file no longer on",
        }
    }
}

/// Asks the drivers of a device whether it can have a special file, or tells them that it has one less. On a system thread at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver of the stack.
pub fn notify(cx: &mut Cx<'_>, id: NodeId, file: Special, there: bool) -> Flow<NtStatus> {
    exclusively(cx, |cx| while_locked(cx, id, file, there))
}

fn while_locked(cx: &mut Cx<'_>, id: NodeId, file: Special, there: bool) -> Flow<NtStatus> {
    let place = file as usize;
    let (state, count) = cx.with(|k| (k.pnp.node(id).state, k.pnp.node(id).special_files[place]));
    if state != State::Started || !there && count == 0 {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    tell(cx, id, file.step(there));
    if !there {
        cx.with(|k| k.pnp.node_mut(id).special_files[place] -= 1);
    }
    let parameters = [there.into(), file.number().into(), 0, 0];
    let answer = request::ask(cx, id, IRP_MN_DEVICE_USAGE_NOTIFICATION, parameters)?;
    if !there {
        judge_end(cx, id, file, answer.status);
        return Ok(answer.status);
    }
    if answer.status.is_success() {
        cx.with(|k| k.pnp.node_mut(id).special_files[place] += 1);
        judge_pagable(cx, id, file)?;
    }
    Ok(answer.status)
}

/// What a bus driver without an image does with the request: any device can have such a file, and its power requests come at any level then.
pub(super) fn reached_bottom(cx: &mut Cx<'_>, id: NodeId, location: Location) -> Flow<Reply> {
    let there = cx.read(location + IO_STACK_LOCATION::Parameters_UsageNotification_InPath)? != 0;
    let others = cx.with(|k| k.pnp.node(id).special_files.iter().sum::<u32>());
    let flags = cx.read(id.pdo() + DEVICE_OBJECT::Flags)?;
    let flags = match there {
        true => flags & !DO_POWER_PAGABLE,
        false if others == 0 => flags | DO_POWER_PAGABLE,
        false => flags,
    };
    cx.write(id.pdo() + DEVICE_OBJECT::Flags, flags)?;
    Ok(Reply::status(NtStatus::SUCCESS))
}

/// A driver that fails the request after a file is gone goes on refusing to be removed.
fn judge_end(cx: &mut Cx<'_>, id: NodeId, file: Special, status: NtStatus) {
    if status.is_success() {
        return;
    }
    let device = cx.with(|k| k.pnp.node(id).name.clone());
    let message = format!(
        "IRP_MN_DEVICE_USAGE_NOTIFICATION of {device}, that a {} file is no longer on it (InPath is FALSE), was completed with {status}: it must not fail",
        file.name()
    );
    cx.report(Verdict::warning("usage-end-failed", message));
}

/// Drivers of a device with such a file must not have their power requests at PASSIVE_LEVEL only.
fn judge_pagable(cx: &mut Cx<'_>, id: NodeId, file: Special) -> Flow<()> {
    for device in node::stack(cx, id)?.into_iter().skip(1) {
        if cx.read(device + DEVICE_OBJECT::Flags)? & DO_POWER_PAGABLE == 0 {
            continue;
        }
        let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
        let (service, name) = (io::driver::service(cx, driver), cx.with(|k| k.pnp.node(id).name.clone()));
        let message = format!(
            "{service} let {name} have a {} file (IRP_MN_DEVICE_USAGE_NOTIFICATION) and left DO_POWER_PAGABLE set in its device object {:#x}: \
             clear it on the request's way up",
            file.name(),
            device.address
        );
        cx.report(Verdict::warning("usage-power-pagable", message));
    }
    Ok(())
}

/// A device with such a file has answered a request that asks whether it may be stopped, or removed.
pub(super) fn judge_query(cx: &mut Cx<'_>, id: NodeId, what: &str, status: NtStatus) -> Flow<()> {
    let (name, files) = cx.with(|k| (k.pnp.node(id).name.clone(), k.pnp.node(id).special_files));
    let Some(file) = Special::ALL.into_iter().find(|file| files[*file as usize] > 0) else { return Ok(()) };
    if status.is_success() {
        let message = format!(
            "the drivers of {name} agreed to {what} while a {} file is on it: they must refuse",
            file.name()
        );
        cx.report(Verdict::warning("usage-not-heeded", message));
    }
    Ok(())
}

/// The system ends: its special files with it.
///
/// # Errors
/// A verdict on a driver.
pub fn end_all(cx: &mut Cx<'_>) -> Flow<()> {
    let mut ended = false;
    for id in cx.with(|k| tree::all(k)) {
        for file in Special::ALL {
            while cx.with(|k| k.pnp.node(id).special_files[file as usize]) > 0
                && notify(cx, id, file, false)? != NtStatus::INVALID_DEVICE_STATE
            {
                ended = true;
            }
        }
    }
    // Drivers have said that their devices can be disabled now: their states are asked for by other threads.
    if ended { ke::wait::sleep(cx, 1_000_000) } else { Ok(()) }
}
