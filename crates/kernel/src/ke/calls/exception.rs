//! Exceptions of driver code on their way to a handler: faults of its instructions, and what it or the kernel raises.
//!
//! Pages: *x64 exception handling*, *EXCEPTION_RECORD*, *Handling Exceptions* (of drivers). What an invalid kernel
//! address is, and any bad address at DISPATCH_LEVEL or above, is no exception: Windows stops at once. An exception
//! without a handler is a verdict on the code that raised it.

use abi::{CONTEXT, DriverPtr, EXCEPTION_NONCONTINUABLE, EXCEPTION_RECORD, NtStatus};
use engine::windows::USER_DEVICE;
use engine::{BadAddress, Fault, FaultKind, Leave, TouchKind};
use zerocopy::IntoBytes;

use super::fault::{self, Exception};
use super::handler::{self, Disposition, Question, Room};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::ke::levels::irql::DISPATCH_LEVEL;
use crate::ke::sched::budget;
use crate::mm::user_access;
use crate::rtl::context;
use crate::rtl::frames::{self, Next, Position};
use crate::verdict::Verdict;

/// What an exception costs of the budget of a call, in instructions.
const EXCEPTION: u64 = 10_000;
/// So often an instruction may raise the same in a row though a handler has let it go on: whatever the handler waits for, does not come.
const REPEATED: u32 = 10_000;

/// What happened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Record {
    pub(crate) code: NtStatus,
    pub(crate) flags: u32,
    /// The record of an exception that led to this one.
    pub(crate) chained: u64,
    pub(crate) address: u64,
    /// `ExceptionInformation`, 15 at most.
    pub(crate) information: Vec<u64>,
}

impl Record {
    /// What a kernel routine raises that its caller at `address` must not go on from.
    pub(crate) fn raised(code: NtStatus, address: u64) -> Self {
        Self { code, flags: EXCEPTION_NONCONTINUABLE, address, ..Self::default() }
    }

    /// As it lies in memory.
    pub(crate) fn laid_out(&self) -> EXCEPTION_RECORD {
        let mut information = [0; 15];
        let count = self.information.len().min(15);
        information[..count].copy_from_slice(&self.information[..count]);
        let mut record = EXCEPTION_RECORD::zeroed();
        let bytes = record.as_mut_bytes();
        bytes[..4].copy_from_slice(&self.code.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.chained.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.address.to_le_bytes());
        bytes[24..28].copy_from_slice(&u32::try_from(count).expect("at most 15").to_le_bytes());
        bytes[32..152].copy_from_slice(information.as_bytes());
        record
    }
}

/// A fault of the driver's: to its handlers, if Windows would ask them; else the end.
pub(crate) fn fault(cx: &mut Cx<'_>, fault: &Fault) -> Leave {
    if let Some(record) = exception_of(cx, fault)
        && let Some(leave) = dispatch(cx, &record)
    {
        match fault.kind {
            FaultKind::Read => user_access::missed(cx, fault.address, TouchKind::Read, &fault.caller),
            FaultKind::Write => user_access::missed(cx, fault.address, TouchKind::Write, &fault.caller),
            _ => {}
        }
        return leave;
    }
    let verdict = fault::verdict(cx, fault);
    cx.stop(verdict)
}

/// Whether an address is in Windows' lower half, the applications', and nothing of this machine's kernel is near it.
const fn is_an_applications(address: u64) -> bool {
    address < USER_DEVICE.end() || KERNEL_END <= address && address < 1 << 47
}

/// Behind all that is the kernel's here, which has no upper half: what is wild near it is a pointer into the kernel that has gone astray.
const KERNEL_END: u64 = 0x4000_0000_0000;

/// The exception that Windows makes of a fault, where it makes one.
fn exception_of(cx: &mut Cx<'_>, fault: &Fault) -> Option<Record> {
    let access = match fault.kind {
        FaultKind::Read => Some(0),
        FaultKind::Write => Some(1),
        FaultKind::Execute => Some(8),
        _ => None,
    };
    let mut address = fault.caller.rip;
    let (code, information) = match (access, fault.kind) {
        (Some(how), kind) => {
            cx.with(|k| k.ke.processor_mut().cr2 = fault.address);
            if !is_an_applications(fault.address) || crate::ke::levels::irql::current(cx) >= DISPATCH_LEVEL {
                return None;
            }
            if kind == FaultKind::Execute {
                address = fault.address;
            }
            (NtStatus::ACCESS_VIOLATION, vec![how, fault.address])
        }
        (_, FaultKind::NonCanonical | FaultKind::Protection) => {
            (NtStatus::ACCESS_VIOLATION, vec![0, u64::MAX])
        }
        (_, FaultKind::Divide) => (NtStatus::INTEGER_DIVIDE_BY_ZERO, Vec::new()),
        (_, FaultKind::InvalidOpcode) => (NtStatus::ILLEGAL_INSTRUCTION, Vec::new()),
        (_, FaultKind::FloatingPoint) => (NtStatus::FLOAT_INVALID_OPERATION, Vec::new()),
        (_, FaultKind::Trap) => (NtStatus::SINGLE_STEP, Vec::new()),
        (_, _) => return None,
    };
    Some(Record { code, address, information, ..Record::default() })
}

/// A kernel routine follows a pointer that a driver gave it to where nothing is: an exception below DISPATCH_LEVEL, for
/// an address of applications. None if it is no exception, or has no handler.
pub(crate) fn bad_pointer(cx: &mut Cx<'_>, bad: BadAddress) -> Option<Leave> {
    if !is_an_applications(bad.address) || crate::ke::levels::irql::current(cx) >= DISPATCH_LEVEL {
        return None;
    }
    let address = frames::innermost(cx)?.context.rip;
    let information = vec![bad.write.into(), bad.address];
    // Not to be retried: the kernel's routine cannot go on in its middle.
    dispatch(cx, &Record { information, ..Record::raised(NtStatus::ACCESS_VIOLATION, address) })
}

/// `routine` raises `status` in the driver that called it. It does not return there.
pub(crate) fn raise(cx: &mut Cx<'_>, status: NtStatus, routine: &str) -> Leave {
    let Some(caller) = frames::innermost(cx) else { return unhandled(cx, status, routine, 0) };
    let record = Record::raised(status, caller.context.rip);
    match dispatch(cx, &record) {
        Some(leave) => leave,
        None => unhandled(cx, status, routine, record.address),
    }
}

/// As [`raise`]: `verdict`, with the bug check of the exception, if it has no handler.
pub(in crate::ke) fn raise_or(cx: &mut Cx<'_>, status: NtStatus, verdict: Verdict) -> Leave {
    let address = frames::innermost(cx).map_or(0, |at| at.context.rip);
    if let Some(leave) = dispatch(cx, &Record::raised(status, address)) {
        return leave;
    }
    let check = fault::unhandled(cx, &Exception { code: status.0, rip: address, information: [0; 2] });
    cx.stop(verdict.bug_check(check.code, check.parameters))
}

/// An instruction of the driver's raises: `verdict`, with its bug check, if there is no handler.
pub(crate) fn raise_here(cx: &mut Cx<'_>, code: NtStatus, information: Vec<u64>, verdict: Verdict) -> Leave {
    let address = frames::innermost(cx).map_or(0, |at| at.context.rip);
    let record = Record { code, address, information, ..Record::default() };
    if let Some(leave) = dispatch(cx, &record) {
        return leave;
    }
    let check = fault::unhandled(cx, &Exception { code: code.0, rip: address, information: [0; 2] });
    cx.stop(verdict.bug_check(check.code, check.parameters))
}

/// The verdict on an exception that was raised by a call and has no handler.
pub(crate) fn unhandled(cx: &mut Cx<'_>, status: NtStatus, routine: &str, rip: u64) -> Leave {
    let check = fault::unhandled(cx, &Exception { code: status.0, rip, information: [0; 2] });
    let message = format!("{routine} raised the exception {status}, and no handler of the driver's took it");
    let verdict = Verdict::error("unhandled-exception", message);
    cx.stop(verdict.bug_check(check.code, check.parameters))
}

/// Gives an exception of the driver code that waits for the kernel now to its handlers, innermost first. None if none
/// handles it; else where the driver goes on, or why the run ends.
pub(crate) fn dispatch(cx: &mut Cx<'_>, record: &Record) -> Option<Leave> {
    let start = frames::innermost(cx)?;
    if cx.count_event(Kind::Exception) {
        cx.emit(Event::Exception { code: record.code.0, address: record.address });
    }
    if let Err(leave) = budget::spend(cx, EXCEPTION) {
        return Some(leave);
    }
    let top = frames::stack_top(cx);
    search(cx, record, &start, top)
}

/// The search, with what handlers are given below `top`.
fn search(cx: &mut Cx<'_>, record: &Record, start: &Position, top: u64) -> Option<Leave> {
    let room = Room::below(top);
    let mut next = frames::begin(cx, start);
    let mut written = false;
    loop {
        let (at, scope) = match next {
            Next::Frame(at) => (at, 0),
            Next::Collided(at, scope) => (at, scope),
            Next::End => return None,
        };
        if let Some(frame) = frames::frame(cx, &at.context)
            && let Some(handler) = frame.handler.filter(|handler| handler.exceptions)
        {
            if !frames::is_sound(cx, frame.establisher) {
                return None;
            }
            let engine = cx.engine();
            if !written
                && (engine.write(room.record, record.laid_out()).is_err()
                    || engine.write(room.context, context::laid_out(&start.context)).is_err())
            {
                return Some(handler::no_room(cx, room.bottom(), record.address));
            }
            written = true;
            let question = Question {
                record: room.record,
                context: room.context,
                frame,
                handler,
                position: at,
                target: None,
                scope,
            };
            match handler::ask(cx, &room, &question) {
                Err(leave) => return Some(leave),
                Ok(Disposition::ContinueExecution) => return Some(go_on(cx, record, start, &room)),
                Ok(Disposition::ContinueSearch) => {}
                Ok(Disposition::Other(other)) => {
                    return Some(wrong_disposition(cx, other, handler.routine));
                }
            }
        }
        next = frames::up(cx, &at);
    }
}

/// A handler said that execution goes on where it was, with what it has made of the context.
fn go_on(cx: &mut Cx<'_>, record: &Record, start: &Position, room: &Room) -> Leave {
    if record.flags & EXCEPTION_NONCONTINUABLE != 0 {
        let again = Record {
            chained: room.record.address,
            ..Record::raised(NtStatus::NONCONTINUABLE_EXCEPTION, record.address)
        };
        let what = format!("the handler of {} wanted to go on after it, and so", record.code);
        return match search(cx, &again, start, room.bottom()) {
            Some(leave) => leave,
            None => unhandled(cx, again.code, &what, record.address),
        };
    }
    match read_context(cx, room.context) {
        Some(context) if context == start.context && is_endless(cx, record, &context) => {
            let verdict = endless(cx, record);
            cx.stop(verdict)
        }
        Some(context) => cx.engine().resume_at(start.depth, &context),
        None => handler::no_room(cx, room.bottom(), record.address),
    }
}

/// An instruction whose exception was answered by going on with the same registers, and which raised it again.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Repeated {
    address: u64,
    rsp: u64,
    /// So often in a row.
    times: u32,
}

/// Whether that has happened so often in a row that it will go on for ever.
fn is_endless(cx: &mut Cx<'_>, record: &Record, context: &engine::Context) -> bool {
    let (address, rsp) = (record.address, context.registers.rsp());
    cx.with(|k| {
        let Some(thread) = k.ke.thread_mut() else { return false };
        let before = thread.repeated;
        let again = (before.address, before.rsp) == (address, rsp);
        thread.repeated = Repeated { address, rsp, times: if again { before.times + 1 } else { 1 } };
        thread.repeated.times >= REPEATED
    })
}

fn endless(cx: &mut Cx<'_>, record: &Record) -> Verdict {
    let place = crate::ldr::symbols::describe(cx, record.address);
    let message = format!(
        "the instruction at {place} has raised {} {REPEATED} times in a row, and each time a handler let it go on (EXCEPTION_CONTINUE_EXECUTION) with the same registers: it raises it for ever",
        record.code
    );
    Verdict::error("endless-exceptions", message)
}

fn read_context(cx: &mut Cx<'_>, at: DriverPtr<CONTEXT>) -> Option<engine::Context> {
    context::read(cx.engine(), at).ok()
}

/// A language-specific handler answered what is not for it to answer.
pub(crate) fn wrong_disposition(cx: &mut Cx<'_>, disposition: u32, routine: u64) -> Leave {
    let who = crate::ldr::symbols::describe(cx, routine);
    let message =
        format!("the exception handler {who} returned {disposition}, which is not for it to return");
    let exception = Exception { code: NtStatus::INVALID_DISPOSITION.0, rip: routine, information: [0; 2] };
    let check = fault::unhandled(cx, &exception);
    cx.stop(Verdict::error("handler-disposition", message).bug_check(check.code, check.parameters))
}
