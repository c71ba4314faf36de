//! Tokens by handles.
//!
//! Pages: *ZwOpenProcessTokenEx function*, *ZwOpenThreadTokenEx function*, *ZwQueryInformationToken function*. A driver's own calls are trusted: whom the
//! thread acts for makes no difference to what it may open.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{DriverPtr, NtStatus, OBJ_KERNEL_HANDLE, TokenSessionId};
use engine::Flow;

use super::token::{self, TokenPtr};
use super::{impersonation, query};
use crate::cx::Cx;
use crate::ob::handle;
use crate::ob::{Handle, Kind};
use crate::ps;

fn hand_out(cx: &mut Cx<'_>, token: u64, access: u32, attributes: u32, to: DriverPtr<u64>) -> Flow<NtStatus> {
    let opened = handle::open(cx, token, access, attributes & OBJ_KERNEL_HANDLE != 0)?;
    cx.write(to, opened.0)?;
    Ok(NtStatus::SUCCESS)
}

/// `ZwOpenProcessToken`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn open_of_process(
    cx: &mut Cx<'_>,
    process: u64,
    access: u32,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    open_of_process_ex(cx, process, access, 0, to)
}

/// `ZwOpenProcessTokenEx`.
///
/// # Errors
/// As [`open_of_process`].
pub(crate) fn open_of_process_ex(
    cx: &mut Cx<'_>,
    process: u64,
    access: u32,
    attributes: u32,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let entry = match handle::entry_of(cx, Handle(process), Kind::Process) {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let Some(key) = cx.with(|k| ps::process::living(k, entry.object)) else {
        return Ok(NtStatus::PROCESS_IS_TERMINATING);
    };
    let token = cx.with(|k| token::of_process(k, key));
    hand_out(cx, token, access, attributes, to)
}

/// `ZwOpenThreadToken`.
///
/// # Errors
/// As [`open_of_process`].
pub(crate) fn open_of_thread(
    cx: &mut Cx<'_>,
    thread: u64,
    access: u32,
    as_self: bool,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    open_of_thread_ex(cx, thread, access, as_self, 0, to)
}

/// `ZwOpenThreadTokenEx`: STATUS_NO_TOKEN if the thread does not impersonate.
///
/// # Errors
/// As [`open_of_process`].
pub(crate) fn open_of_thread_ex(
    cx: &mut Cx<'_>,
    thread: u64,
    access: u32,
    _as_self: bool,
    attributes: u32,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let entry = match handle::entry_of(cx, Handle(thread), Kind::Thread) {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    match cx.with(|k| impersonation::of(k, entry.object)) {
        Some(acting) => hand_out(cx, acting.token, access, attributes, to),
        None => Ok(NtStatus::NO_TOKEN),
    }
}

/// `ZwQueryInformationToken`: what `SeQueryInformationToken` tells, into a buffer of the caller's.
///
/// # Errors
/// As [`open_of_process`]; on a class that is not here.
pub(crate) fn query(
    cx: &mut Cx<'_>,
    handle: u64,
    class: u32,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let entry = match handle::entry_of(cx, Handle(handle), Kind::Token) {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let token = token::get(cx, "ZwQueryInformationToken", TokenPtr::new(entry.object))?;
    let image = match class {
        TokenSessionId => Some(token.session.to_le_bytes().to_vec()),
        _ => query::image(&token, class, to),
    };
    let Some(image) = image else { return query::not_here(cx, "ZwQueryInformationToken", class) };
    let bytes = u32::try_from(image.len()).unwrap_or(u32::MAX);
    cx.write(length, bytes)?;
    if room < bytes {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(to, &image)?;
    Ok(NtStatus::SUCCESS)
}
