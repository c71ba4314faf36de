//! How drivers use an application's memory by its own addresses: whether it was probed, whether an exception is handled, and what is
//! fetched twice. In a checked machine, which sees each access.
//!
//! Pages: *Using Neither Buffered Nor Direct I/O*, *ProbeForRead function*, *Buffer Handling*, rule *DoubleFetch*. An address counts as probed
//! once a routine has probed or locked it in the same thread, in an earlier request too. Code that imports `MmUserProbeAddress`, or what else says where an
//! application's addresses end, may probe inline, and is not judged by that. An exception counts as handled if any function that waits for the access has a handler, whatever it
//! covers. Bytes that begin where a number says that the driver has fetched (an offset in the buffer) are data, which the application may well have put over what
//! was fetched before: they are not fetched twice. *Not looked at*: what the driver itself has mapped for the application, and accesses in a thread of the system.

use std::collections::BTreeSet;

use abi::DriverPtr;
use engine::{Caller, Context, Engine, StrandId, Touch, TouchKind};

use super::space::Zone;
use crate::cx::{Cx, Kernel};
use crate::ldr;
use crate::ps;
use crate::rtl::frames::{self, Next, Position};
use crate::verdict::Verdict;

/// So many ranges and fetches are kept of all threads.
const KEPT: usize = 256;
/// So many words of what is fetched at once may be offsets.
const WORDS: usize = 16;
/// So many functions are looked at for a handler.
const DEEPEST: usize = 64;

/// Variables that say where an application's addresses end.
const LIMITS: [&str; 3] = ["MmUserProbeAddress", "MmHighestUserAddress", "MmSystemRangeStart"];

/// A range that a thread has probed, or fetched with the instruction at `rip`.
#[derive(Clone, Copy, Debug)]
struct Range {
    strand: StrandId,
    start: u64,
    end: u64,
    rip: u64,
}

/// What is known of accesses.
#[derive(Default)]
pub(crate) struct State {
    probed: Vec<Range>,
    /// Of the request that each thread is in.
    fetched: Vec<Range>,
    /// Numbers that were fetched with these.
    numbers: Vec<(StrandId, u64)>,
    /// Data that lies where one of them says, and was fetched before: so far.
    data: Vec<Range>,
    /// Instructions that were judged.
    judged: BTreeSet<u64>,
}

impl State {
    /// Whether what is fetched again lies where the application itself has said; or goes on with what does. Zero is an offset if as many bytes as `before` are not
    /// fetched there again.
    fn is_data(&mut self, range: Range, before: Range) -> bool {
        let goes_on =
            |data: &&mut Range| (data.strand, data.rip, data.end) == (range.strand, range.rip, range.start);
        if let Some(data) = self.data.iter_mut().find(goes_on) {
            data.end = range.end;
            return true;
        }
        let own = |known: &&Range| known.strand == range.strand;
        let probed = self.probed.iter().filter(own);
        let probed = probed.filter(|known| (known.start..known.end).contains(&range.start));
        let first = self.fetched.iter().filter(own).map(|known| known.start).min();
        let mut buffers = probed.map(|known| known.start).chain(first);
        let is_alike = (range.start, range.end) == (before.start, before.end);
        let is_named = buffers.any(|buffer| {
            let offset = range.start.wrapping_sub(buffer);
            self.numbers.contains(&(range.strand, offset)) && (offset != 0 || !is_alike)
        });
        if is_named {
            push(&mut self.data, range);
        }
        is_named
    }
}

fn push<T>(all: &mut Vec<T>, one: T) {
    if all.len() >= KEPT {
        all.remove(0);
    }
    all.push(one);
}

/// An application's request begins on this thread.
pub(crate) fn begin(k: &mut Kernel) {
    let strand = k.engine.strand();
    let State { fetched, numbers, data, .. } = &mut k.mm.user_access;
    fetched.retain(|range| range.strand != strand);
    numbers.retain(|(of, _)| *of != strand);
    data.retain(|range| range.strand != strand);
}

/// A routine has probed or locked the range.
pub(crate) fn probed(cx: &mut Cx<'_>, start: u64, bytes: u64) {
    if cx.engine().is_checked() && bytes > 0 {
        let (strand, rip) = (cx.engine().strand(), cx.engine().caller_rip());
        let range = Range { strand, start, end: start.saturating_add(bytes), rip };
        cx.with(|k| push(&mut k.mm.user_access.probed, range));
    }
}

/// Whether the thread has probed the range, and whether the instruction has been judged: it is from now on.
fn known(cx: &mut Cx<'_>, Range { strand, start, end, rip }: Range) -> (bool, bool) {
    cx.with(|k| {
        let state = &mut k.mm.user_access;
        let covers = |known: &Range| known.strand == strand && known.start <= start && known.end >= end;
        (state.probed.iter().any(covers), !state.judged.insert(rip))
    })
}

/// A driver is about to lock an application's memory and has said that it is the kernel's (`KernelMode`), so it is not probed by that.
pub(crate) fn locked_as_the_kernels(cx: &mut Cx<'_>, start: u64, bytes: u64) {
    let engine = cx.engine();
    if !engine.is_checked() || ps::current_process(cx) == ps::process::SYSTEM {
        return;
    }
    let Some(caller) = engine.caller() else { return };
    let range = Range { strand: engine.strand(), start, end: start.saturating_add(bytes), rip: caller.rip };
    let (is_probed, is_judged) = known(cx, range);
    if is_judged || is_probed || may_probe_inline(cx, caller.rip) {
        return;
    }
    let message = format!(
        "MmProbeAndLockPages was called with KernelMode for an application's memory at {start:#x}, which nothing has probed: an application that passes \
         a kernel address has the driver lock that"
    );
    report(cx, "user-memory-not-probed", message, caller);
}

/// A driver touches an application's memory, by its own instruction or by a routine that moves bytes.
pub(crate) fn touched(cx: &mut Cx<'_>, touch: &Touch) {
    let start = touch.start.max(touch.address);
    let end = touch.start.saturating_add(touch.bytes);
    if ps::current_process(cx) == ps::process::SYSTEM || end <= start || !Zone::User.window().contains(start)
    {
        return;
    }
    let strand = cx.engine().strand();
    let range = Range { strand, start, end, rip: touch.caller.rip };
    if touch.kind == TouchKind::Read {
        fetched(cx, range);
    }
    let (is_probed, is_judged) = known(cx, range);
    if is_judged {
        return;
    }
    if !is_probed && !may_probe_inline(cx, touch.caller.rip) {
        let message = format!(
            "{} an application's memory at {start:#x}, which nothing has probed: an application that passes a kernel address has the driver {} that",
            verb(touch.kind),
            if touch.kind == TouchKind::Write { "overwrite" } else { "read" }
        );
        report(cx, "user-memory-not-probed", message, touch.caller);
    }
    if !is_guarded(cx, &touch.caller) {
        let message = format!(
            "{} an application's memory at {start:#x} outside of __try: an application that frees it meanwhile stops the system",
            verb(touch.kind)
        );
        report(cx, "user-memory-unguarded", message, touch.caller);
    }
}

/// A driver has touched an address that is an application's to have, where nothing is, and a handler of its own will have the exception.
pub(crate) fn missed(cx: &mut Cx<'_>, address: u64, kind: TouchKind, caller: &Caller) {
    if !cx.engine().is_checked() || ps::current_process(cx) == ps::process::SYSTEM {
        return;
    }
    let strand = cx.engine().strand();
    let range = Range { strand, start: address, end: address.saturating_add(1), rip: caller.rip };
    let (is_probed, is_judged) = known(cx, range);
    if is_judged || is_probed || may_probe_inline(cx, caller.rip) {
        return;
    }
    let message = format!(
        "{} at {address:#x}, which nothing has probed and where nothing is: a pointer of the driver's own is wrong, or an application that passes a kernel address has the driver {} that",
        verb(kind),
        if kind == TouchKind::Write { "overwrite" } else { "read" }
    );
    report(cx, "user-memory-not-probed", message, *caller);
}

const fn verb(kind: TouchKind) -> &'static str {
    match kind {
        TouchKind::Write => "the driver writes",
        TouchKind::Read | TouchKind::Execute => "the driver reads",
    }
}

fn report(cx: &mut Cx<'_>, rule: &'static str, message: String, caller: Caller) {
    let verdict = Verdict { caller: Some(caller), ..Verdict::warning(rule, message) };
    cx.report(verdict);
}

/// The bytes that one instruction has fetched for a request, and another one fetches again.
fn fetched(cx: &mut Cx<'_>, range: Range) {
    let before = cx.with(|k| {
        let engine = k.engine;
        let state = &mut k.mm.user_access;
        let overlaps = |known: &&Range| {
            known.strand == range.strand && known.start < range.end && range.start < known.end
        };
        let before = state.fetched.iter().find(overlaps).copied();
        let again = before.filter(|before| before.rip != range.rip && !state.is_data(range, *before));
        if before.is_none() {
            push(&mut state.fetched, range);
            numbers(engine, range)
                .into_iter()
                .for_each(|number| push(&mut state.numbers, (range.strand, number)));
        }
        again
    });
    let Some(before) = before else { return };
    let first = cx.with(|k| ldr::symbols::code(k, before.rip));
    let message = format!(
        "the driver reads {} bytes of an application's memory at {:#x} that it has read for this request before ({first}): the application may have changed them meanwhile",
        range.end - range.start,
        range.start
    );
    cx.report(Verdict::warning("double-fetch", message));
}

/// The words that are fetched: of a structure that is copied whole, the first ones.
fn numbers(engine: Engine, Range { start, end, .. }: Range) -> Vec<u64> {
    if end - start == 2 {
        return engine.read(DriverPtr::<u16>::new(start)).map(u64::from).into_iter().collect();
    }
    let words = (start..end.saturating_sub(3)).step_by(4).take(WORDS);
    words.map_while(|at| engine.read(DriverPtr::<u32>::new(at)).map(u64::from).ok()).collect()
}

/// Whether the image imports what a probe without a call compares with.
fn may_probe_inline(cx: &mut Cx<'_>, rip: u64) -> bool {
    cx.with(|k| {
        let imports = k.ldr.image_at(rip).map(|(_, loaded)| loaded.image.imports()).unwrap_or_default();
        imports.iter().any(|import| LIMITS.contains(&import.selector.to_string().as_str()))
    })
}

/// Whether a function that waits for the instruction has an exception handler.
fn is_guarded(cx: &mut Cx<'_>, caller: &Caller) -> bool {
    let engine = cx.engine();
    let depth = engine.depth();
    // Of a call of the kernel: as it will have returned.
    let innermost = engine.contexts().first().copied().filter(|context| context.rip == caller.rip);
    let context =
        innermost.unwrap_or(Context { rip: caller.rip, registers: caller.registers, ..Context::default() });
    let mut position = Position { depth, context };
    for _ in 0..DEEPEST {
        let frame = frames::frame(cx, &position.context);
        if frame.and_then(|frame| frame.handler).is_some_and(|handler| handler.exceptions) {
            return true;
        }
        match frames::up(cx, &position) {
            Next::Frame(outer) => position = outer,
            Next::Collided(..) => return true,
            Next::End => return false,
        }
    }
    true
}
