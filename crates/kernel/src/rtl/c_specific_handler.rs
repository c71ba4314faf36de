//! `__C_specific_handler`: the handler of every C function with `__try`.
//!
//! Pages: *x64 exception handling*, *try-except statement*, *try-finally statement*; `SCOPE_TABLE_AMD64` of `winnt.h`.
//! The scope table lists the guarded ranges, inner ones first: each has a filter and an `__except` block, or a
//! termination handler and no block.

use abi::{
    CONTEXT, Code, DISPATCHER_CONTEXT, DriverPtr, EXCEPTION_POINTERS, EXCEPTION_RECORD,
    EXCEPTION_TARGET_UNWIND, EXCEPTION_UNWINDING, ExceptionContinueExecution, ExceptionContinueSearch,
};
use engine::{Flow, Stack};

use super::unwind::{self, Target};
use crate::cx::Cx;
use crate::exports::FromArgument;
use crate::ke::handler;

/// A line of a scope table, in offsets from the image base.
#[derive(Clone, Copy, Debug)]
struct Scope {
    begin: u64,
    end: u64,
    /// Filter or termination handler; 1 is a filter that takes everything.
    handler: u64,
    /// The `__except` block; 0 for a `__finally`.
    block: u64,
}

/// A filter that takes everything.
const TAKES_ALL: u64 = 1;
/// Bytes of a line.
const LINE: u64 = 16;

impl Scope {
    fn read(cx: &mut Cx<'_>, table: u64, index: u32) -> Flow<Self> {
        let line: [u32; 4] = cx.read(DriverPtr::new(table + 4 + LINE * u64::from(index)))?;
        let [begin, end, handler, block] = line.map(u64::from);
        Ok(Self { begin, end, handler, block })
    }

    fn contains(&self, offset: u64) -> bool {
        (self.begin..self.end).contains(&offset)
    }

    fn is_finally(&self) -> bool {
        self.block == 0
    }
}

/// The frame that the handler is asked about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    establisher: u64,
    image_base: u64,
    /// Offset of the instruction in the image.
    control: u64,
    table: u64,
    lines: u32,
    /// The first line to look at.
    from: u32,
    dispatcher: DriverPtr<DISPATCHER_CONTEXT>,
}

impl Asked {
    fn read(cx: &mut Cx<'_>, establisher: u64, dispatcher: DriverPtr<DISPATCHER_CONTEXT>) -> Flow<Self> {
        let image_base = cx.read(dispatcher + DISPATCHER_CONTEXT::ImageBase)?;
        let control = cx.read(dispatcher + DISPATCHER_CONTEXT::ControlPc)?.wrapping_sub(image_base);
        let table = cx.read(dispatcher + DISPATCHER_CONTEXT::HandlerData)?.address;
        let lines = cx.read(DriverPtr::new(table))?;
        let from = cx.read(dispatcher + DISPATCHER_CONTEXT::ScopeIndex)?;
        Ok(Self { establisher, image_base, control, table, lines, from, dispatcher })
    }

    fn routine(&self, offset: u64) -> DriverPtr<Code> {
        DriverPtr::new(self.image_base.wrapping_add(offset))
    }
}

/// `__C_specific_handler`: asks the filters of the scopes that the instruction is in, or runs their termination handlers.
///
/// # Errors
/// [`engine::Leave`], if a filter takes the exception, or a handler does not come back.
pub(crate) fn c_specific_handler(
    cx: &mut Cx<'_>,
    record: DriverPtr<EXCEPTION_RECORD>,
    establisher: u64,
    context: DriverPtr<CONTEXT>,
    dispatcher: DriverPtr<DISPATCHER_CONTEXT>,
) -> Flow<u32> {
    let asked = Asked::read(cx, establisher, dispatcher)?;
    let flags = cx.read(record + EXCEPTION_RECORD::ExceptionFlags)?;
    if flags & EXCEPTION_UNWINDING != 0 {
        terminate(cx, &asked, flags & EXCEPTION_TARGET_UNWIND != 0)?;
        return Ok(ExceptionContinueSearch);
    }
    filter(cx, &asked, record, context)
}

fn filter(
    cx: &mut Cx<'_>,
    asked: &Asked,
    record: DriverPtr<EXCEPTION_RECORD>,
    context: DriverPtr<CONTEXT>,
) -> Flow<u32> {
    for index in asked.from..asked.lines {
        let scope = Scope::read(cx, asked.table, index)?;
        if scope.is_finally() || !scope.contains(asked.control) {
            continue;
        }
        let answer = if scope.handler == TAKES_ALL {
            1
        } else {
            call_filter(cx, asked.routine(scope.handler), record, context, asked.establisher)?
        };
        if answer < 0 {
            return Ok(ExceptionContinueExecution);
        }
        if answer > 0 {
            let code = cx.read(record + EXCEPTION_RECORD::ExceptionCode)?;
            let ip = asked.routine(scope.block).address;
            let target = Target { frame: asked.establisher, ip, value: code.0.into() };
            return Err(unwind::unwind(cx, target, record));
        }
    }
    Ok(ExceptionContinueSearch)
}

/// `filter(pointers, frame)`, the pointers on the driver's stack.
fn call_filter(
    cx: &mut Cx<'_>,
    filter: DriverPtr<Code>,
    record: DriverPtr<EXCEPTION_RECORD>,
    context: DriverPtr<CONTEXT>,
    establisher: u64,
) -> Flow<i32> {
    let caller = cx.engine().caller().expect("it is called by a driver");
    let pointers = DriverPtr::<EXCEPTION_POINTERS>::new(
        caller.registers.rsp().wrapping_sub(size_of::<EXCEPTION_POINTERS>() as u64) & !15,
    );
    let engine = cx.engine();
    if engine.write(pointers + EXCEPTION_POINTERS::ExceptionRecord, record).is_err()
        || engine.write(pointers + EXCEPTION_POINTERS::ContextRecord, context).is_err()
    {
        return Err(handler::no_room(cx, pointers.address, caller.rip));
    }
    let answer = cx.call_on(filter, &[pointers.address, establisher], Stack::At(pointers.address))?;
    Ok(i32::from_slot(answer))
}

/// Runs the termination handlers of the scopes that are left: all, or up to the one that the target is in too.
fn terminate(cx: &mut Cx<'_>, asked: &Asked, is_target: bool) -> Flow<()> {
    let target = cx.read(asked.dispatcher + DISPATCHER_CONTEXT::TargetIp)?.wrapping_sub(asked.image_base);
    for index in asked.from..asked.lines {
        let scope = Scope::read(cx, asked.table, index)?;
        if !scope.contains(asked.control) {
            continue;
        }
        if is_target && (scope.contains(target) || (!scope.is_finally() && scope.block == target)) {
            return Ok(());
        }
        if scope.is_finally() {
            // Whatever it does, it is not run again.
            cx.write(asked.dispatcher + DISPATCHER_CONTEXT::ScopeIndex, index + 1)?;
            cx.call(asked.routine(scope.handler), &[1, asked.establisher])?;
        }
    }
    Ok(())
}
