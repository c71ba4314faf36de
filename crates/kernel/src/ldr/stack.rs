//! The driver's call stack in original addresses, by unwind data, with symbols.
//!
//! Page: *x64 exception handling*. Each call of the kernel into a driver that is waiting gives a stretch of frames;
//! kernel routines between them are not shown.

use abi::DriverPtr;
use engine::windows::PAGE;
use engine::{Caller, RETURN_TO_KERNEL, StrandId};
use image::unwind::{self, UnwindRegisters};

use super::{between, symbols};
use crate::cx::Cx;
use crate::mm::stack::{KERNEL_STACK, KernelStack};
use crate::verdict::StackLine;
use crate::wdf;

/// Lines of one verdict: a recursion that overflowed its stack need not be shown whole.
const MOST_LINES: usize = 64;
/// Frames that a kernel stack can have at the most: return addresses alone.
const MOST_FRAMES: usize = (KERNEL_STACK / 8) as usize;

/// The stack of what runs now, innermost first: the driver's instruction, then return addresses.
pub(crate) fn lines(cx: &mut Cx<'_>) -> Vec<StackLine> {
    // So many calls of drivers, from the outermost in, had been made when a DPC or service routine came in between.
    let interrupted = cx.with(|k| k.ke.processor().interrupted.last().copied().unwrap_or(0)) as usize;
    let callers = cx.engine().callers();
    lines_from(cx, callers, interrupted)
}

/// The same, where this instruction was the innermost some time ago: it alone, if its routine is not on the stack any more.
pub(crate) fn lines_behind(cx: &mut Cx<'_>, instruction: u64) -> Vec<StackLine> {
    let routine = |symbol: &str| symbol.rsplit_once('+').map_or(symbol, |(routine, _)| routine).to_owned();
    let first = line_of(cx, instruction);
    let (own, lines) = (routine(&first.symbol), lines(cx));
    let above = lines.iter().position(|line| routine(&line.symbol) == own).map_or(lines.len(), |at| at + 1);
    std::iter::once(first).chain(lines.into_iter().skip(above)).collect()
}

/// A line for this instruction of a driver's alone, or for its routine that begins there.
pub(crate) fn line_of(cx: &mut Cx<'_>, instruction: u64) -> StackLine {
    let symbol = symbols::describe(cx, instruction);
    StackLine { address: instruction, is_return: false, symbol, interrupted: false, ddi: None }
}

/// The same of a thread that does not run.
pub(crate) fn lines_of(cx: &mut Cx<'_>, strand: StrandId) -> Vec<StackLine> {
    let callers = cx.engine().callers_of(strand);
    lines_from(cx, callers, 0)
}

fn lines_from(cx: &mut Cx<'_>, callers: Vec<Caller>, interrupted: usize) -> Vec<StackLine> {
    let all = callers.len();
    let mut lines = Vec::new();
    let mut frames = Vec::new();
    for (inner, caller) in callers.into_iter().enumerate() {
        // A driver's routine may have jumped into the kernel: then its frame is gone, and the next one out is the next.
        if caller.rip == RETURN_TO_KERNEL {
            continue;
        }
        let interrupted = all - inner <= interrupted;
        walk(cx, &caller, MOST_LINES - lines.len(), &mut frames);
        for Frame { address, is_return, rsp, .. } in frames.drain(..) {
            let describe = if is_return { symbols::describe_return } else { symbols::describe };
            let symbol = describe(cx, address);
            let ddi = wdf::call_at(cx.engine(), rsp.wrapping_sub(8), address).filter(|_| is_return);
            lines.push(StackLine { address, is_return, symbol, interrupted, ddi });
        }
    }
    lines
}

/// How much of a stack one routine uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    /// `name.sys!Function`.
    pub(crate) routine: String,
    /// Its frames.
    pub(crate) frames: u64,
    /// Bytes of all of them, return addresses and what they pass on the stack included.
    pub(crate) bytes: u64,
}

/// Which routines use the bytes of `stack` now: each that has frames there, most bytes first. What interrupts and calls of the kernel
/// put between them is not counted.
pub(crate) fn shares(cx: &mut Cx<'_>, stack: KernelStack) -> Vec<Share> {
    let standing = cx.engine().callers().into_iter().filter(|caller| caller.rip != RETURN_TO_KERNEL);
    let mut shares: Vec<Share> = Vec::new();
    for caller in standing {
        let mut frames = Vec::new();
        walk(cx, &caller, MOST_FRAMES, &mut frames);
        // The page below is the one that was hit.
        for frame in frames.into_iter().filter(|frame| (stack.limit - PAGE..stack.base).contains(&frame.rsp))
        {
            let place = symbols::describe_return(cx, frame.address);
            let routine = place.rsplit_once('+').map_or(place.as_str(), |(routine, _)| routine);
            match shares.iter_mut().find(|share| share.routine == routine) {
                Some(share) => (share.frames, share.bytes) = (share.frames + 1, share.bytes + frame.bytes),
                None => shares.push(Share { routine: routine.to_owned(), frames: 1, bytes: frame.bytes }),
            }
        }
    }
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    shares
}

/// One frame, from its stack pointer up to that of its caller.
struct Frame {
    address: u64,
    is_return: bool,
    rsp: u64,
    bytes: u64,
}

/// The frames of one stretch, from where the driver waits for the kernel up to where the kernel called it, and whether
/// each is a return address.
fn walk(cx: &mut Cx<'_>, caller: &Caller, most: usize, frames: &mut Vec<Frame>) {
    let mut registers =
        UnwindRegisters { rip: caller.rip, general: caller.registers.general, ..UnwindRegisters::default() };
    let engine = cx.engine();
    let mut read = |address| engine.read::<u64>(DriverPtr::new(address)).ok();
    let mut is_return = read(registers.rsp()) == Some(registers.rip);
    if is_return {
        // It stands in a call of the kernel: the return address is still on the stack.
        registers.general[unwind::RSP] += 8;
    }
    while frames.len() < most {
        let up = cx.with(|k| match k.ldr.image_at(registers.rip) {
            Some((base, loaded)) => unwind::step(&loaded.image, base, &registers, &mut read),
            None => up_from_kernel_code(&registers, &mut read),
        });
        let (address, rsp) = (registers.rip, registers.rsp());
        let bytes = up.as_ref().map_or(0, |up| up.rsp().saturating_sub(rsp));
        if !between::contains(address) {
            frames.push(Frame { address, is_return, rsp, bytes });
        }
        // The stack pointer grows with every frame, or the unwind data lie.
        let Some(next) = up.filter(|next| next.rsp() > registers.rsp()) else { return };
        if cx.with(|k| k.ldr.image_at(next.rip).is_none()) && !between::contains(next.rip) {
            return;
        }
        (registers, is_return) = (next, true);
    }
}

/// The caller of a routine of the kernel's that is code itself.
fn up_from_kernel_code(
    registers: &UnwindRegisters,
    read: &mut dyn FnMut(u64) -> Option<u64>,
) -> Option<UnwindRegisters> {
    let place = registers.rsp().wrapping_add(super::pushed_at(registers.rip)?);
    let mut caller = UnwindRegisters { rip: read(place)?, ..*registers };
    caller.general[unwind::RSP] = place.wrapping_add(8);
    Some(caller)
}
