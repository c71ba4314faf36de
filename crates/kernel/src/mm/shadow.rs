//! The shadow of a checked machine's memory: what its marks mean, and the verdict on accesses that a mark forbids.
//!
//! Pages: *Special Pool*, *Bug Check 0xA*, *Bug Check 0xD1*, *Bug Check 0xD5*, *Bug Check 0xD6*, *Bug Check 0xCC*, *Bug Check 0xCD*. A load of bytes
//! that were never stored is no verdict: copies of structures load their padding, and compilers compare bytes whose value
//! cannot matter. They are reported only where such bytes leave the kernel (`io::finish`).

use std::collections::BTreeMap;
use std::ops::Range;

use engine::windows::{PAGE, USER};
use engine::{BadAddress, Fault, FaultKind, Fill, Flow, Touch, TouchKind};

use super::pool::{Block, Kind, Request};
use super::{accessed, pool_check, user, user_access};
use crate::cx::{Cx, Kernel};
use crate::ke::irql::DISPATCH_LEVEL;
use crate::verdict::Verdict;
use crate::{io, ke, ldr, ps};

/// Around blocks of pool, and what of a page of theirs is not given out.
pub(crate) const GUARDED: u8 = 1;
/// A freed block.
pub(crate) const FREED: u8 = 2;
/// A block that a lookaside list keeps.
pub(crate) const KEPT: u8 = 3;
/// May be away at DISPATCH_LEVEL and above.
pub(crate) const PAGEABLE: u8 = 4;
/// An application's: pageable, and there for its own process only.
pub(crate) const APPLICATION: u8 = 5;

/// Nothing is there for drivers, though the host has it mapped: the buffer of a request that is complete, which its application may have
/// freed; what of a stretch no range has (`dense`).
pub(crate) const ABSENT: u8 = 6;

/// A process's, there for it only, and never paged out: a view of physical memory.
pub(crate) const RESIDENT: u8 = 7;
/// The cancel routine of an IRP: the code that writes to it is noted (`io::cancel_routine`).
pub(crate) const WATCHED: u8 = 8;

/// The mark of pageable memory at `address`.
pub(crate) const fn of_pageable(address: u64) -> u8 {
    if USER.contains(address) { APPLICATION } else { PAGEABLE }
}

/// State of a checked machine.
#[derive(Default)]
pub(crate) struct State {
    /// Blocks that are wholly stored because they are shared, with their ends.
    shared: BTreeMap<u64, u64>,
    /// Data of an application's look like what memory is filled with that is given out.
    pub(crate) is_fill_given: bool,
}

/// So many such bytes in a row are no coincidence.
const FILL_IN_A_ROW: usize = 4;

/// So much of a buffer is looked at.
const LOOKED_AT: u64 = 0x1_0000;

/// Whether any of these bytes is what drivers may not touch at any level: freed, kept by a lookaside list, or none of theirs.
pub(crate) fn is_gone(k: &Kernel, address: u64, length: u64) -> bool {
    (address..address + length).any(|byte| matches!(k.engine.mark_of(byte), GUARDED | FREED | KEPT | ABSENT))
}

/// Where in a buffer such a row begins, unless an application may have made it.
pub(crate) fn first_fresh(cx: &mut Cx<'_>, address: u64, length: u64) -> Option<usize> {
    if cx.with(|k| k.mm.shadow.is_fill_given) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length.min(LOOKED_AT)).ok()?];
    cx.engine().read_bytes(address, &mut bytes).ok()?;
    first_row(&bytes)
}

fn first_row(bytes: &[u8]) -> Option<usize> {
    let of = |row: &[u8]| row.first_chunk::<FILL_IN_A_ROW>().map_or(0, |row| u32::from_le_bytes(*row));
    // As words, which are compared at once: an application's data are looked at with each request.
    let all = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| of(&Fill::FRESH.from(at)));
    bytes.windows(FILL_IN_A_ROW).position(|row| all.contains(&of(row)))
}

/// In a checked machine: an application gives a driver these bytes.
pub(super) fn given(cx: &mut Cx<'_>, bytes: &[u8]) {
    if cx.engine().is_checked() && first_row(bytes).is_some() {
        cx.with(|k| k.mm.shadow.is_fill_given = true);
    }
}

/// A block is given out.
pub(crate) fn allocated(k: &mut Kernel, address: u64, request: &Request) {
    k.mm.shadow.shared.remove(&address);
    if let Some(block) = k.mm.pool.block(address) {
        mark_live(k, address, block);
    }
    if !request.zeroed {
        k.engine.never_stored(address, request.bytes);
    }
}

/// A small block is freed: its bytes have no owner. A large one's pages are gone, and so are their marks.
pub(crate) fn freed(k: &Kernel, address: u64, room: u64) {
    k.engine.mark(address, room, FREED);
}

/// Marks a block that is given out, and what lies around it.
fn mark_live(k: &Kernel, address: u64, block: &Block) {
    let own = if block.kind == Kind::Paged { PAGEABLE } else { 0 };
    if block.small() {
        let page = address & !(PAGE - 1);
        if k.engine.mark_of(page + PAGE - 1) != GUARDED {
            k.engine.mark(page, PAGE, GUARDED); // fresh: no place in it is given out
        }
        // What lies before and behind a place stays marked while the page is there.
        let rest = block.room() - block.bytes;
        if rest > 0 {
            k.engine.mark(address + block.bytes, rest, GUARDED);
        }
    } else {
        let Range { start, end } = block.extent(address);
        k.engine.mark(start, end - start, GUARDED);
    }
    k.engine.mark(address, block.bytes, own);
}

/// Marks the block at `address`, if one begins there, as kept by a lookaside list: it may not be touched.
pub(crate) fn keep(k: &Kernel, address: u64) {
    if let Some(block) = k.mm.pool.block(address).filter(|block| !block.is_freed()) {
        k.engine.mark(address, block.bytes, KEPT);
    }
}

/// A block that was kept is given out again: its contents are nothing.
pub(crate) fn give(k: &mut Kernel, address: u64) {
    k.mm.shadow.shared.remove(&address);
    if let Some(block) = k.mm.pool.block(address).filter(|block| !block.is_freed()) {
        mark_live(k, address, block);
        k.engine.never_stored(address, block.bytes);
    }
}

/// Whether a byte with this mark may not be touched.
pub(crate) const fn is_bad(mark: u8) -> bool {
    matches!(mark, GUARDED | FREED | KEPT)
}

/// Who touches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The driver's own instruction.
    Driver,
    /// The kernel, where a driver pointed.
    Kernel,
}

/// Driver code is about to touch marked memory.
///
/// # Errors
/// A verdict if it must not.
pub(crate) fn touched(cx: &mut Cx<'_>, touch: &Touch) -> Flow<()> {
    if touch.mark == ABSENT {
        let kind = match touch.kind {
            TouchKind::Read => FaultKind::Read,
            TouchKind::Write => FaultKind::Write,
            TouchKind::Execute => FaultKind::Execute,
        };
        let fault = Fault { kind, address: touch.address, caller: touch.caller, what: "" };
        return Err(ke::exception::fault(cx, &fault));
    }
    if touch.mark == WATCHED {
        io::cancel_routine::touched(cx, touch);
        return Ok(());
    }
    judge(cx, touch, By::Driver)
}

/// A routine of the kernel's is about to touch what a driver pointed it to.
///
/// # Errors
/// As [`touched`].
pub(crate) fn pointed(cx: &mut Cx<'_>, address: u64, bytes: u64, kind: TouchKind) -> Flow<()> {
    let engine = cx.engine();
    if !engine.is_checked() {
        return Ok(());
    }
    let (mut at, end) = (address, address.saturating_add(bytes));
    while let Some((marked, mark)) = engine.first_marked(at, end - at) {
        if mark == ABSENT {
            return Err(cx.bad_pointer(BadAddress { address: marked, write: kind == TouchKind::Write }));
        }
        if let Some(caller) = engine.caller() {
            judge(cx, &Touch { kind, start: address, bytes, address: marked, mark, caller }, By::Kernel)?;
        }
        // Marks of whole pages are equal up to the page's end; the others are checked one by one.
        at = if is_bad(mark) || mark == WATCHED { marked + 1 } else { (marked | (PAGE - 1)) + 1 };
        if at >= end {
            break;
        }
    }
    Ok(())
}

/// As [`pointed`], for memory that the kernel may touch at any IRQL: only bytes that may not be touched are reported.
///
/// # Errors
/// As [`touched`].
#[cold]
#[inline(never)]
pub(crate) fn sound(cx: &mut Cx<'_>, address: u64, bytes: u64, kind: TouchKind) -> Flow<()> {
    let engine = cx.engine();
    let marked = engine.first_marked(address, bytes).filter(|(_, mark)| is_bad(*mark) || *mark == ABSENT);
    if let Some((address, ABSENT)) = marked {
        return Err(cx.bad_pointer(BadAddress { address, write: kind == TouchKind::Write }));
    }
    match (marked, engine.caller()) {
        (Some((at, mark)), Some(caller)) => {
            judge(cx, &Touch { kind, start: address, bytes, address: at, mark, caller }, By::Kernel)
        }
        _ => Ok(()),
    }
}

fn judge(cx: &mut Cx<'_>, touch: &Touch, by: By) -> Flow<()> {
    let verdict = match touch.mark {
        GUARDED | FREED | KEPT if by == By::Driver && is_word_trick(cx, touch) => None,
        GUARDED => Some(beyond(cx, touch, by)),
        FREED => Some(after_free(cx, touch, by)),
        KEPT => Some(kept(cx, touch, by)),
        PAGEABLE => paged(cx, touch, by),
        APPLICATION => match paged(cx, touch, by) {
            Some(verdict) => Some(verdict),
            None => another_process(cx, touch).or_else(|| {
                user_access::touched(cx, touch);
                None
            }),
        },
        RESIDENT => another_process(cx, touch),
        _ => None,
    };
    match verdict {
        Some(mut verdict) => {
            if is_bad(touch.mark)
                && let Some((start, block)) = cx.with(|k| nearest(k, touch.address))
            {
                let is_outside = !(start..start + block.bytes).contains(&touch.address);
                let accessed = accessed::of_block(cx, &block, is_outside, touch.caller.rip);
                verdict = Verdict { accessed: Some(accessed), ..verdict.of_block(&block) };
            }
            if let Some((irp, completed)) = cx.with(|k| completed_irp(k, touch.address)) {
                verdict.message +=
                    &format!("; it was the IRP {irp:#x}, which was completed at event {completed}");
                verdict = verdict.related("completed", completed);
            }
            verdict.caller = (by == By::Driver).then_some(touch.caller);
            Err(cx.stop(verdict))
        }
        None => Ok(()),
    }
}

/// The IRP that the freed block at `address` was, and when it was completed.
fn completed_irp(k: &Kernel, address: u64) -> Option<(u64, u64)> {
    let (start, block) = nearest(k, address)?;
    let completed = k.io.irps.completed_at(start).filter(|_| block.is_freed())?;
    Some((start, completed))
}

/// `strlen` and its kin load whole aligned words, of which only some bytes are the string's. Such a load cannot fault, and
/// nothing comes of the other bytes; so an aligned load of 4 bytes or more is let go if any of them may be touched.
fn is_word_trick(cx: &Cx<'_>, touch: &Touch) -> bool {
    let word = touch.kind == TouchKind::Read
        && (4..=64).contains(&touch.bytes)
        && touch.bytes.is_power_of_two()
        && touch.start.is_multiple_of(touch.bytes);
    let engine = cx.engine();
    word && (touch.start..touch.start + touch.bytes).any(|byte| !is_bad(engine.mark_of(byte)))
}

/// `driver.sys!F+0x12 wrote 4 bytes at 0x…`.
fn did(cx: &mut Cx<'_>, touch: &Touch) -> String {
    let who = ldr::symbols::describe(cx, touch.caller.rip);
    let Touch { start, bytes, .. } = *touch;
    let count = if bytes == 1 { "a byte".to_owned() } else { format!("{bytes} bytes") };
    match touch.kind {
        TouchKind::Read => format!("{who} read {count} at {start:#x}"),
        TouchKind::Write => format!("{who} wrote {count} at {start:#x}"),
        TouchKind::Execute => format!("{who} ran"),
    }
}

const fn is_write(touch: &Touch) -> u64 {
    matches!(touch.kind, TouchKind::Write) as u64
}

/// Address, kind, instruction: the parameters that the bug checks of special pool share.
const fn special_pool(touch: &Touch) -> [u64; 4] {
    [touch.address, is_write(touch), touch.caller.rip, 0]
}

/// Outside any block of pool, near one.
fn beyond(cx: &mut Cx<'_>, touch: &Touch, by: By) -> Verdict {
    let did = did(cx, touch);
    let Some((start, block)) = cx.with(|k| nearest(k, touch.address)) else {
        return Verdict::error("pool-overrun", format!("{did}, where pool is not allocated"));
    };
    let what = describe_block(cx, start, &block);
    if touch.address < start {
        let before = start - touch.address;
        let message = format!("{did}: {before} bytes before {what}");
        let verdict = Verdict::error("pool-underrun", message);
        // The bug check of the later free; Windows does not see a load.
        let parameters = [start, touch.address, block.bytes, 0x23];
        return if is_write(touch) == 1 { verdict.bug_check(0xC1, parameters) } else { verdict };
    }
    let behind = touch.address - start - block.bytes;
    let message = format!("{did}: {behind} bytes behind the end of {what}");
    let code = if by == By::Driver { 0xD6 } else { 0xCD };
    Verdict::error("pool-overrun", message).bug_check(code, special_pool(touch))
}

fn after_free(cx: &mut Cx<'_>, touch: &Touch, by: By) -> Verdict {
    let did = did(cx, touch);
    let what = match cx.with(|k| nearest(k, touch.address)) {
        Some((start, block)) => {
            let what = describe_block(cx, start, &block);
            let into = touch.address - start;
            match into.checked_sub(block.bytes) {
                Some(behind) => format!("{behind} bytes behind the end of {what}"),
                None => format!("{into:#x} bytes into {what}"),
            }
        }
        None => "in freed pool".to_owned(),
    };
    let code = if by == By::Driver { 0xD5 } else { 0xCC };
    let message = format!("{did}: {what}");
    Verdict::error("use-after-free", message).bug_check(code, special_pool(touch))
}

fn kept(cx: &mut Cx<'_>, touch: &Touch, by: By) -> Verdict {
    let did = did(cx, touch);
    let what = match cx.with(|k| nearest(k, touch.address)) {
        Some((start, block)) => describe_block(cx, start, &block),
        None => "a block".to_owned(),
    };
    let code = if by == By::Driver { 0xD5 } else { 0xCC };
    let message = format!("{did}: in {what}, which was given back to a lookaside list");
    Verdict::error("use-after-free", message).bug_check(code, special_pool(touch))
}

/// The block an address lies in, or next to: of two that it lies between, the nearer one.
fn nearest(k: &Kernel, address: u64) -> Option<(u64, Block)> {
    let all = k.mm.pool.all();
    let above = all.partition_point(|(start, _)| *start <= address);
    let (below, above) = (above.checked_sub(1).map(|below| all[below]), all.get(above).copied());
    let behind = below.map(|(start, block)| (address - start).saturating_sub(block.bytes));
    let guards = above.filter(|(start, block)| block.extent(*start).contains(&address));
    let before = guards.map(|(start, _)| start - address);
    match (behind, before) {
        (Some(behind), Some(before)) if before < behind => above,
        (None, Some(_)) => above,
        (Some(behind), _) if behind < PAGE => below,
        _ => None,
    }
}

/// The block, who allocated it, and who freed it.
fn describe_block(cx: &mut Cx<'_>, start: u64, block: &Block) -> String {
    let mut text = pool_check::describe(start, block);
    if accessed::is_system_buffer(block) {
        text += " (a request's system buffer: as long as the larger of its two lengths)";
    }
    if block.allocator.is_driver() {
        let who = ldr::symbols::describe_return(cx, block.allocator.caller);
        text += &format!(", allocated by {who} (event {})", block.allocated);
    }
    match block.freed.at.number().filter(|_| block.is_freed()) {
        Some(_) if block.freed.by == 0 => text += ", which is freed",
        Some(event) => {
            let who = ldr::symbols::describe_return(cx, block.freed.by);
            text += &format!(", freed by {who} (event {event})");
        }
        None => {}
    }
    text
}

/// Pageable memory at an IRQL at which nothing is paged in.
fn paged(cx: &mut Cx<'_>, touch: &Touch, by: By) -> Option<Verdict> {
    let irql = ke::irql::current(cx);
    if irql < DISPATCH_LEVEL {
        return None;
    }
    let did = did(cx, touch);
    let address = touch.address;
    let what = match touch.mark {
        APPLICATION => "an application's memory".to_owned(),
        _ if touch.kind == TouchKind::Execute => "in a pageable section".to_owned(),
        _ => pool_check::explain(cx, address)
            .map(|(words, _)| words)
            .unwrap_or_else(|| format!("pageable: {}", ldr::symbols::describe(cx, address))),
    };
    let how = match touch.kind {
        TouchKind::Read => 0,
        TouchKind::Write => 1,
        TouchKind::Execute => 8,
    };
    let message = format!("{did}, {what}, at IRQL {irql}: it may be paged out");
    let verdict = Verdict::error("paged-at-raised-irql", message);
    let code = if by == By::Driver { 0xD1 } else { 0xA };
    Some(verdict.bug_check(code, [address, irql.into(), how, touch.caller.rip]))
}

/// An application's memory, and another process (or none) is current.
fn another_process(cx: &mut Cx<'_>, touch: &Touch) -> Option<Verdict> {
    let owner = cx.with(|k| user::process_of(k, touch.address))?;
    let current = ps::current_process(cx);
    if current == owner.into() {
        return None;
    }
    let did = did(cx, touch);
    Some(elsewhere(cx, &did, owner, (touch.address, is_write(touch), touch.caller.rip)))
}

/// The verdict on code that `did` that to memory of `owner` while another process is current: at an address, 1 if it wrote, by an
/// instruction.
pub(crate) fn elsewhere(cx: &mut Cx<'_>, did: &str, owner: u32, how: (u64, u64, u64)) -> Verdict {
    let (address, write, rip) = how;
    let process_name = |process: u64| match process {
        ps::process::SYSTEM => "a system thread".to_owned(),
        process => format!("process {process}"),
    };
    let here = process_name(ps::current_process(cx));
    let message = match u64::from(owner) {
        ps::process::SYSTEM => {
            format!("{did}, memory in the user half of the system process, in the context of {here}")
        }
        owner => format!("{did}, an application's memory (process {owner}), in the context of {here}"),
    };
    let mut verdict = Verdict::error("user-memory-elsewhere", message);
    verdict.bug_check = Some(ke::fault::access_violation(cx, rip, write, address));
    verdict
}

/// Memory is about to be seen under another address, a physical one or a mapping: stores through that are not seen here, so
/// all of it (of a block of pool, to its end) counts as stored.
pub(crate) fn shared(cx: &mut Cx<'_>, address: u64, bytes: u64) {
    let engine = cx.engine();
    if engine.is_checked() {
        let end = address.saturating_add(bytes);
        let known = cx.with(|k| k.mm.shadow.shared.range(..=address).next_back().map(|(_, end)| *end));
        if known.is_some_and(|known| end <= known) {
            return;
        }
        let block = cx.with(|k| k.mm.pool.last_up_to(address).map(|(at, block)| (at, block.bytes)));
        let block = block.filter(|(at, length)| address - at < *length);
        let (start, length) = block.unwrap_or((address, bytes));
        engine.stored(start, length.max(bytes));
        if block.is_some() {
            cx.with(|k| k.mm.shadow.shared.insert(start, start + length));
        }
    }
}
