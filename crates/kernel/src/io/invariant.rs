//! Buffers that must stay as they are while a request is under way: those whose MDL says so (`MDL_PAGE_CONTENTS_INVARIANT`), and what an
//! application writes by direct I/O.
//!
//! Pages: *Invariant MDL Checking for Stack*, *Invariant MDL Checking for Driver*. A write's buffer stays until the request has left all drivers, a
//! read's until the last driver has it. Each buffer is read when a request is first sent with it, and compared whenever it is sent on or
//! completed, so that the driver is found that had it in between. An application changes no buffer of a request that is under way here: each
//! request has memory of its own. *It does not* look at anything without Verifier's option, nor at buffers beyond 16 MiB.

use abi::{
    DriverPtr, IO_STACK_LOCATION, IRP, IRP_MJ_READ, IRP_MJ_WRITE, MDL, MDL_PAGE_CONTENTS_INVARIANT,
    MDL_PAGES_LOCKED, MDL_PARTIAL, MDL_SOURCE_IS_NONPAGED_POOL,
};
use engine::Flow;
use engine::windows::PAGE;

use super::irp::{self, Origin};
use super::violation::{holder, request_name};
use crate::cx::Cx;
use crate::mm::{mdl, physical_access};
use crate::nt::WindowsVersion;
use crate::verdict::Verdict;
use crate::verifier::VerifierOption;

/// The most bytes of a buffer that is looked at.
const MOST_BYTES: u64 = 16 << 20;
/// The most MDLs of a request.
const MOST_CHAINED: usize = 256;

/// A buffer as it was.
struct Buffer {
    irp: u64,
    mdl: u64,
    is_write: bool,
    /// An application's: no driver may have a reason to fill it anew.
    is_application: bool,
    /// Where it begins, and its bytes.
    range: (u64, u64),
    bytes: Vec<u8>,
}

/// Of the requests that are under way.
#[derive(Default)]
pub(crate) struct State {
    buffers: Vec<Buffer>,
}

impl State {
    /// The IRP is gone, or is another request now.
    pub(super) fn forget(&mut self, irp: u64) {
        self.buffers.retain(|buffer| buffer.irp != irp);
    }

    /// A completion routine has kept the IRP: what a driver has put into it, it may change.
    pub(super) fn kept(&mut self, irp: u64) {
        self.buffers.retain(|buffer| buffer.irp != irp || buffer.is_application && buffer.is_write);
    }
}

fn is_watched(cx: &mut Cx<'_>) -> bool {
    cx.nt().is_watched_for(VerifierOption::InvariantMdl)
        && cx.with(|k| k.ldr.windows) >= WindowsVersion::Win81
}

/// A read or write is sent.
///
/// # Errors
/// A verdict on the sender, or on a damaged MDL.
#[inline]
pub(super) fn sent(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, major: u8) -> Flow<()> {
    if matches!(major, IRP_MJ_READ | IRP_MJ_WRITE) && is_watched(cx) {
        return look(cx, irp, major == IRP_MJ_WRITE);
    }
    Ok(())
}

#[cold]
fn look(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, is_write: bool) -> Flow<()> {
    let is_user = cx.read(irp + IRP::RequestorMode)? != 0;
    let is_application = cx.with(|k| {
        let record = k.io.irps.live.get(irp.address);
        let is_new = k.io.frames.sender(irp.address).is_none();
        if is_new {
            k.io.invariant.forget(irp.address);
        }
        is_new && is_user && is_write && record.is_some_and(|record| record.origin == Origin::System)
    });
    for list in lists(cx, irp)? {
        if compare(cx, irp, list, "sent on")? {
            continue;
        }
        if !is_application && mdl::flags(cx, list)? & MDL_PAGE_CONTENTS_INVARIANT == 0 {
            continue;
        }
        let range = mdl::buffer(cx, list)?;
        let Some(bytes) = contents(cx, list, range)? else { continue };
        let buffer = Buffer { irp: irp.address, mdl: list.address, is_write, is_application, range, bytes };
        cx.with(|k| k.io.invariant.buffers.push(buffer));
    }
    Ok(())
}

/// An IRP is completed.
///
/// # Errors
/// As [`sent`].
#[inline]
pub(super) fn completed(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<()> {
    if !cx.with(|k| k.io.invariant.buffers.iter().any(|buffer| buffer.irp == irp.address)) {
        return Ok(());
    }
    for list in lists(cx, irp)? {
        let _ = compare(cx, irp, list, "completed")?;
    }
    Ok(())
}

/// The MDLs of an IRP.
fn lists(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<Vec<DriverPtr<MDL>>> {
    let mut lists = Vec::new();
    let mut at = cx.read(irp + IRP::MdlAddress)?;
    while !at.is_null() && lists.len() < MOST_CHAINED {
        lists.push(at);
        at = cx.read(at + MDL::Next)?;
    }
    Ok(lists)
}

/// Compares a buffer with what it was, if that is known; false if it is not. One that is described anew is forgotten.
fn compare(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, list: DriverPtr<MDL>, what: &str) -> Flow<bool> {
    let range = mdl::buffer(cx, list)?;
    let is_it = |buffer: &Buffer| buffer.irp == irp.address && buffer.mdl == list.address;
    let known = cx.with(|k| {
        let buffers = &mut k.io.invariant.buffers;
        buffers.retain(|buffer| !is_it(buffer) || buffer.range == range);
        buffers.iter().find(|buffer| is_it(buffer)).map(|buffer| (buffer.is_write, buffer.bytes.clone()))
    });
    let Some((is_write, before)) = known else { return Ok(false) };
    if !is_write && what == "completed" {
        return Ok(true);
    }
    let Some(now) = contents(cx, list, range)? else { return Ok(true) };
    let changed = before.iter().zip(&now).position(|(before, now)| before != now);
    if let Some(place) = changed {
        cx.with(|k| {
            let buffer = k.io.invariant.buffers.iter_mut().find(|buffer| is_it(buffer));
            if let Some(buffer) = buffer {
                buffer.bytes.clone_from(&now);
            }
        });
        let values = (place, before[place], now[place]);
        let verdict = changed_verdict(cx, (irp, list), is_write, what, values)?;
        cx.verify(verdict)?;
    }
    Ok(true)
}

fn changed_verdict(
    cx: &mut Cx<'_>,
    (irp, list): (DriverPtr<IRP>, DriverPtr<MDL>),
    is_write: bool,
    what: &str,
    (place, before, now): (usize, u8, u8),
) -> Flow<Verdict> {
    let current = irp::current(cx, irp)?;
    let minor = cx.read(current + IO_STACK_LOCATION::MinorFunction)?;
    let request = request_name(if is_write { IRP_MJ_WRITE } else { IRP_MJ_READ }, minor);
    let (device, name) = holder(cx, irp);
    let message = format!(
        "{request} of {name} is {what} with another buffer than it came with: byte {place} of the MDL {:#x} was {before:#x} and is {now:#x}, \
         and must not change while the request is under way",
        list.address
    );
    let mapped = cx.read(list + MDL::MappedSystemVa)?.address;
    let code = if is_write { 0x1010 } else { 0x1011 };
    let verdict = Verdict::verifier("invariant-buffer-changed", message);
    Ok(verdict.bug_check(0xC4, [code, device.address, irp.address, mapped]))
}

/// What an MDL's pages hold; none if they are not locked, or no RAM.
fn contents(cx: &mut Cx<'_>, list: DriverPtr<MDL>, (start, length): (u64, u64)) -> Flow<Option<Vec<u8>>> {
    let has_pages = MDL_PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARTIAL;
    if length > MOST_BYTES || mdl::flags(cx, list)? & has_pages == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let (mut at, mut rest) = (start % PAGE, &mut bytes[..]);
    let pages: Vec<u64> = mdl::pages(cx, list, (0, mdl::span(start, length)))?.collect();
    for page in pages {
        let count = rest.len().min(usize::try_from(PAGE - at).unwrap_or(0));
        let (part, behind) = rest.split_at_mut(count);
        if !cx.with(|k| physical_access::load_bytes(k, page + at, part)) {
            return Ok(None);
        }
        (at, rest) = (0, behind);
    }
    Ok(Some(bytes))
}
