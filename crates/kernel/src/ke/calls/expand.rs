//! More stack for one call of a driver's own routine.
//!
//! Pages: *KeExpandKernelStackAndCallout function*, *KeExpandKernelStackAndCalloutEx function*, *EXPAND_STACK_CALLOUT callback function*.
//! Where so much is left, the routine runs on the stack that is there; else on another, as large as if that one had grown by what was asked for.
//! An exception that the routine does not handle goes no further. Context is reserved, and not looked at. In a DPC, which the page of the second
//! lets call it, it is the processor's stack that is as large.

use abi::{Code, DriverPtr, NtStatus};
use engine::{Flow, Stack};

use super::{callout, stack};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::levels::irql;
use crate::ke::sched::processor::Entered;
use crate::mm::stack::{self as memory, KernelStack};

/// `MAXIMUM_EXPANSION_SIZE`: a large stack on x64, less half a page.
const MAXIMUM_EXPANSION_SIZE: u64 = 0x1_2000 - 0x800;

/// Stacks of one thread; Windows' own limit, beyond which it gives STATUS_STACK_OVERFLOW, is not documented.
const MOST_STACKS: usize = 32;

/// A stack that a thread has left for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    /// Its stack before.
    pub(crate) stack: KernelStack,
    /// How many calls of drivers there were then.
    pub(crate) depth: u32,
}

/// `KeExpandKernelStackAndCallout`.
///
/// # Errors
/// As [`callout_ex`].
pub(crate) fn callout(
    cx: &mut Cx<'_>,
    routine: DriverPtr<Code>,
    parameter: u64,
    size: u64,
) -> Flow<NtStatus> {
    callout_ex(cx, routine, parameter, size, false, 0)
}

/// `KeExpandKernelStackAndCalloutEx`: STATUS_INVALID_PARAMETER_3 and _4, STATUS_NO_MEMORY, STATUS_STACK_OVERFLOW as its page has them; the
/// routine has not been called then.
///
/// # Errors
/// A verdict on what the routine leaves behind.
pub(crate) fn callout_ex(
    cx: &mut Cx<'_>,
    routine: DriverPtr<Code>,
    parameter: u64,
    size: u64,
    wait: bool,
    _context: u64,
) -> Flow<NtStatus> {
    if size > MAXIMUM_EXPANSION_SIZE {
        return Ok(NtStatus::INVALID_PARAMETER_3);
    }
    if wait && irql::current(cx) > 1 {
        return Ok(NtStatus::INVALID_PARAMETER_4);
    }
    let pointer = cx.engine().caller().map_or(0, |caller| caller.registers.rsp());
    let (limit, in_interrupt, stacks) = cx.with(|k| {
        let entered = k.ke.processor().entered.len();
        let stacks = match k.ke.thread() {
            Some(thread) if entered == 0 => 1 + thread.left_stacks.len(),
            _ => entered,
        };
        (stack::limits(k).limit, entered > 0, stacks)
    });
    let left = pointer.saturating_sub(limit);
    if left >= size {
        callout::call_routine(cx, ROLE, routine, 0, &[parameter])?;
        return Ok(NtStatus::SUCCESS);
    }
    if stacks > MOST_STACKS {
        return Ok(NtStatus::STACK_OVERFLOW);
    }
    let refused = !wait && cx.choose("fault.stack", 2) == 1;
    let Some(new) = (if refused { None } else { memory::allocate_segment(cx, left + size) }) else {
        return Ok(NtStatus::NO_MEMORY);
    };
    if in_interrupt {
        run_in_interrupt(cx, new, routine, parameter)?;
    } else {
        run_on(cx, new, routine, parameter)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// What runs in the place of a thread, a DPC, calls the routine on another stack.
fn run_in_interrupt(cx: &mut Cx<'_>, new: KernelStack, routine: DriverPtr<Code>, parameter: u64) -> Flow<()> {
    let depth = cx.engine().depth();
    cx.with(|k| {
        k.ke.processor_mut().entered.push(Entered { stack: new, depth });
    });
    callout::call_routine_on(cx, ROLE, routine, 0, &[parameter], Some(Stack::At(new.base)))?;
    let used = stack::high_water(cx.engine(), new);
    cx.with(|k| {
        let processor = k.ke.processor_mut();
        processor.entered.pop();
        let name = stack::expanded(&format!("processor {}", processor.number));
        stack::note_depth(&mut k.ke.calls.deepest_stacks, &name, used);
    });
    memory::free_segment(cx, new);
    Ok(())
}

const ROLE: Role = Role::ExpandedStackCall;

/// The current thread calls the routine on another stack, which is gone afterwards.
fn run_on(cx: &mut Cx<'_>, new: KernelStack, routine: DriverPtr<Code>, parameter: u64) -> Flow<()> {
    let depth = cx.engine().depth();
    cx.with(|k| {
        let thread = k.ke.thread_mut().expect("a driver's routine is run by a thread");
        if let Some(stack) = thread.stack.replace(new) {
            thread.left_stacks.push(Left { stack, depth });
        }
    });
    // If the routine is never returned from, the machine stops: a thread must not end within.
    callout::call_routine_on(cx, ROLE, routine, 0, &[parameter], Some(Stack::At(new.base)))?;
    let used = stack::high_water(cx.engine(), new);
    cx.with(|k| {
        let thread = k.ke.thread_mut().expect("the thread that called it");
        let left = thread.left_stacks.pop().expect("pushed above");
        thread.stack = Some(left.stack);
        let name = stack::expanded(&thread.name);
        stack::note_depth(&mut k.ke.calls.deepest_stacks, &name, used);
    });
    memory::free_segment(cx, new);
    Ok(())
}
