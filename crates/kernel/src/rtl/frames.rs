//! The frames of driver code on a stack, seen from inside outwards, as exception handling walks them.
//!
//! Page: *x64 exception handling*. A walk begins where the driver waits for the kernel and goes from frame to frame by
//! the images' unwind data; where the kernel had called the driver it goes on in the driver's code that had called the
//! kernel. It ends where an interrupt or DPC came in, at a system service, and at the thread's end. Each step goes up the stack, so it ends.

use abi::{DriverPtr, RUNTIME_FUNCTION};
use engine::{Context, RETURN_TO_KERNEL};
use image::unwind::{self, UnwindRegisters};

use crate::cx::Cx;
use crate::ke::{handler, stack, system_service};
use crate::ldr::{self, between};

/// The registers of one frame, and the call of the kernel's that it belongs to (see [`engine::Engine::depth`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) depth: u32,
    pub(crate) context: Context,
}

/// A frame of a function with unwind data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) image_base: u64,
    pub(crate) entry: DriverPtr<RUNTIME_FUNCTION>,
    /// What a handler calls it.
    pub(crate) establisher: u64,
    /// The language-specific handler, if the frame is whole and has one.
    pub(crate) handler: Option<Handler>,
}

/// A language-specific handler: addresses of its routine and of its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handler {
    pub(crate) routine: u64,
    pub(crate) data: u64,
    pub(crate) exceptions: bool,
    pub(crate) termination: bool,
}

/// Where a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// At this frame.
    Frame(Position),
    /// At the frame that an unwind had come to when one of its handlers raised or unwound in its turn, from this scope
    /// of it on.
    Collided(Position, u32),
    /// Nowhere: this was the outermost.
    End,
}

/// Where the driver waits for the kernel now.
pub(crate) fn innermost(cx: &mut Cx<'_>) -> Option<Position> {
    let context = *cx.engine().contexts().first()?;
    Some(Position { depth: cx.engine().depth(), context })
}

/// Where a walk from there begins: it may have been called by the kernel itself, by way of a jump.
pub(crate) fn begin(cx: &mut Cx<'_>, innermost: &Position) -> Next {
    if system_service::is_waited_for(cx, innermost.depth) {
        Next::End
    } else if innermost.context.rip == RETURN_TO_KERNEL {
        across(cx, innermost.depth)
    } else {
        Next::Frame(*innermost)
    }
}

/// The driver's stack pointer where it waits for the kernel: what is below is free.
pub(crate) fn stack_top(cx: &mut Cx<'_>) -> u64 {
    cx.engine().caller().map_or(0, |caller| caller.registers.rsp())
}

/// The registers as the unwinder has them.
pub(crate) fn registers(context: &Context) -> UnwindRegisters {
    UnwindRegisters { rip: context.rip, general: context.registers.general, xmm: context.xmm }
}

/// What is known of the frame at `context.rip`; none in code without unwind data.
pub(crate) fn frame(cx: &mut Cx<'_>, context: &Context) -> Option<Frame> {
    cx.with(|k| {
        let (base, loaded) = k.ldr.image_at(context.rip)?;
        let found = unwind::establisher(&loaded.image, base, &registers(context))?;
        let entry = loaded.image.function_entry(found.function)?;
        let handler = found.handler.map(|handler| Handler {
            routine: base + u64::from(handler.rva),
            data: base + u64::from(handler.data),
            exceptions: handler.exceptions,
            termination: handler.termination,
        });
        Some(Frame {
            image_base: base,
            entry: DriverPtr::new(base + u64::from(entry)),
            establisher: found.frame,
            handler,
        })
    })
}

/// The registers of the function that called the one at `context.rip`; none if unwind data or stack are damaged.
pub(crate) fn caller(cx: &mut Cx<'_>, context: &Context) -> Option<Context> {
    let engine = cx.engine();
    let mut read = |address| engine.read::<u64>(DriverPtr::new(address)).ok();
    let before = registers(context);
    let after = cx.with(|k| match k.ldr.image_at(context.rip) {
        Some((base, loaded)) => unwind::step(&loaded.image, base, &before, &mut read),
        None => {
            // Called and not there: the return address is on top of the stack.
            let mut after = before;
            after.general[unwind::RSP] += ldr::pushed_at(before.rip).unwrap_or(0);
            after.rip = read(after.rsp())?;
            after.general[unwind::RSP] += 8;
            Some(after)
        }
    })?;
    let mut context = *context;
    context.rip = after.rip;
    context.registers.general = after.general;
    context.xmm = after.xmm;
    Some(context)
}

/// One step up from a frame.
pub(crate) fn up(cx: &mut Cx<'_>, at: &Position) -> Next {
    let Some(context) = caller(cx, &at.context) else { return Next::End };
    if context.registers.rsp() <= at.context.registers.rsp() {
        return Next::End;
    }
    if context.rip == RETURN_TO_KERNEL {
        return across(cx, at.depth);
    }
    if cx.with(|k| k.ldr.image_at(context.rip).is_none()) && !between::contains(context.rip) {
        return Next::End;
    }
    Next::Frame(Position { depth: at.depth, context })
}

/// From the outermost frame of call `depth` to the driver's code that had called the kernel before.
fn across(cx: &mut Cx<'_>, depth: u32) -> Next {
    let outer = depth - 1;
    if outer == 0 || cx.with(|k| stack::end_of_walks(k) == outer) || system_service::is_waited_for(cx, outer)
    {
        return Next::End;
    }
    if let Some(collision) = handler::collision(cx, outer) {
        return collision;
    }
    let contexts = cx.engine().contexts();
    let index = usize::try_from(cx.engine().depth() - outer).expect("calls nest less deep");
    match contexts.get(index) {
        // A routine that jumped into the kernel has no frame of its own any more.
        Some(context) if context.rip == RETURN_TO_KERNEL => across(cx, outer),
        Some(context) => Next::Frame(Position { depth: outer, context: *context }),
        None => Next::End,
    }
}

/// Whether a frame can be where it says it is.
pub(crate) fn is_sound(cx: &mut Cx<'_>, establisher: u64) -> bool {
    let stack = cx.with(|k| stack::limits(k));
    establisher.is_multiple_of(8) && (stack.limit..stack.base).contains(&establisher)
}

/// The call whose frames the stack pointer `rsp` is among.
pub(crate) fn depth_of(cx: &mut Cx<'_>, rsp: u64) -> Option<u32> {
    if !is_sound(cx, rsp) {
        return None;
    }
    let interrupted = cx.with(|k| stack::end_of_walks(k));
    let contexts = cx.engine().contexts();
    let depths = (interrupted + 1..=cx.engine().depth()).rev();
    let inside = depths.zip(&contexts).take_while(|(_, context)| context.registers.rsp() <= rsp);
    inside.last().map(|(depth, _)| depth).or_else(|| (!contexts.is_empty()).then(|| cx.engine().depth()))
}
