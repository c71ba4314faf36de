//! Language-specific handlers in progress: what they are called with, and what happens to those whose own code raises
//! an exception or unwinds past them.
//!
//! Page: *x64 exception handling* (*Language-specific handler*). An exception in a handler that is asked about another
//! one goes on to the frames of that one; in a handler that an unwind has called it collides with the unwind, and goes on
//! where that one stands: no frame is unwound twice.

use abi::{
    CONTEXT, DISPATCHER_CONTEXT, DriverPtr, EXCEPTION_RECORD, ExceptionContinueExecution,
    ExceptionContinueSearch,
};
use engine::{BadAddress, Engine, Flow, Leave, Stack};

use crate::cx::Cx;
use crate::exports::FromArgument;
use crate::rtl::context;
use crate::rtl::frames::{Frame, Handler, Next, Position};
use crate::verdict::Verdict;

/// A handler that was called and has not returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// How many calls into drivers were nested before.
    depth: u32,
    /// For one that an unwind has called: the frame, and the dispatcher context, where it counts its scopes.
    unwinding: Option<(Position, DriverPtr<DISPATCHER_CONTEXT>)>,
}

/// So many handlers inside each other are one that raises what it is asked about.
const MOST: usize = 64;

/// Where a walk goes on that comes from a handler called at `depth`, if it collides with an unwind there.
pub(crate) fn collision(cx: &mut Cx<'_>, depth: u32) -> Option<Next> {
    let running = cx.with(|k| k.ke.thread().map(|thread| thread.handlers.clone()))?;
    let handler = running.iter().rev().find(|handler| handler.depth == depth)?;
    let (position, dispatcher) = handler.unwinding?;
    let scope = cx.engine().read(dispatcher + DISPATCHER_CONTEXT::ScopeIndex).unwrap_or(u32::MAX);
    Some(Next::Collided(position, scope))
}

/// Room on the driver's stack for what handlers are given, as Windows has it on the kernel stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The context of the exception.
    pub(crate) context: DriverPtr<CONTEXT>,
    /// The context of the frame.
    pub(crate) working: DriverPtr<CONTEXT>,
    pub(crate) record: DriverPtr<EXCEPTION_RECORD>,
    pub(crate) dispatcher: DriverPtr<DISPATCHER_CONTEXT>,
}

impl Room {
    /// Below `rsp`.
    pub(crate) fn below(rsp: u64) -> Self {
        const fn room<T>(above: u64) -> DriverPtr<T> {
            DriverPtr::new(above.wrapping_sub(size_of::<T>() as u64) & !15)
        }
        let context = room::<CONTEXT>(rsp & !15);
        let working = room::<CONTEXT>(context.address);
        let record = room::<EXCEPTION_RECORD>(working.address);
        Self { context, working, record, dispatcher: room(record.address) }
    }

    /// Where the stack of a handler begins.
    pub(crate) const fn bottom(&self) -> u64 {
        self.dispatcher.address
    }
}

/// One question to a handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) record: DriverPtr<EXCEPTION_RECORD>,
    pub(crate) context: DriverPtr<CONTEXT>,
    pub(crate) frame: Frame,
    pub(crate) handler: Handler,
    /// Whose frame it is.
    pub(crate) position: Position,
    /// For an unwind: where it ends.
    pub(crate) target: Option<u64>,
    pub(crate) scope: u32,
}

/// What a handler answers (`EXCEPTION_DISPOSITION`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disposition {
    /// The exception is dealt with: execution goes on where it was.
    ContinueExecution,
    /// Not for this frame.
    ContinueSearch,
    /// What only the system's own handlers answer.
    Other(u32),
}

impl Disposition {
    fn of(answer: u32) -> Self {
        match answer {
            answer if answer == ExceptionContinueExecution => Self::ContinueExecution,
            answer if answer == ExceptionContinueSearch => Self::ContinueSearch,
            other => Self::Other(other),
        }
    }
}

/// Calls a handler; its disposition.
///
/// # Errors
/// [`Leave`], if it does not come back: an exception in it was handled further out, or it unwinds.
pub(crate) fn ask(cx: &mut Cx<'_>, room: &Room, question: &Question) -> Flow<Disposition> {
    let Question { frame, handler, position, .. } = question;
    if write(cx.engine(), room, question).is_err() {
        return Err(no_room(cx, room.bottom(), position.context.rip));
    }
    let depth = cx.engine().depth();
    let unwinding = question.target.map(|_| (*position, room.dispatcher));
    let nested = cx.with(|k| {
        let thread = k.ke.thread_mut().expect("driver code runs on a thread");
        thread.handlers.push(Running { depth, unwinding });
        thread.handlers.len()
    });
    if nested > MOST {
        return Err(no_room(cx, room.bottom(), position.context.rip));
    }
    let arguments =
        [question.record.address, frame.establisher, question.context.address, room.dispatcher.address];
    let answer = cx.call_on(DriverPtr::new(handler.routine), &arguments, Stack::At(room.bottom()));
    cx.with(|k| k.ke.change_thread(|thread| thread.handlers.truncate(nested - 1)));
    Ok(Disposition::of(u32::from_slot(answer?)))
}

fn write(engine: Engine, room: &Room, question: &Question) -> Result<(), BadAddress> {
    let Question { frame, handler, position, .. } = question;
    let to = room.dispatcher;
    engine.write(room.working, context::laid_out(&position.context))?;
    engine.write(to + DISPATCHER_CONTEXT::ControlPc, position.context.rip)?;
    engine.write(to + DISPATCHER_CONTEXT::ImageBase, frame.image_base)?;
    engine.write(to + DISPATCHER_CONTEXT::FunctionEntry, frame.entry)?;
    engine.write(to + DISPATCHER_CONTEXT::EstablisherFrame, frame.establisher)?;
    engine.write(to + DISPATCHER_CONTEXT::TargetIp, question.target.unwrap_or(0))?;
    engine.write(to + DISPATCHER_CONTEXT::ContextRecord, room.working)?;
    engine.write(to + DISPATCHER_CONTEXT::LanguageHandler, DriverPtr::new(handler.routine))?;
    engine.write(to + DISPATCHER_CONTEXT::HandlerData, DriverPtr::new(handler.data))?;
    engine.write(to + DISPATCHER_CONTEXT::HistoryTable, DriverPtr::NULL)?;
    engine.write(to + DISPATCHER_CONTEXT::ScopeIndex, question.scope)
}

/// The stack has no room for the next handler.
pub(crate) fn no_room(cx: &mut Cx<'_>, address: u64, rip: u64) -> Leave {
    let message = format!(
        "an exception was to be given to a handler, and the stack ends at {address:#x}: it overflowed, as when \
         a filter raises what it is asked about"
    );
    cx.stop(Verdict::error("stack-overflow", message).bug_check(0x7F, [8, 0, 0, rip]))
}
