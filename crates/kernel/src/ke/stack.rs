//! The stacks driver code runs on: which one a call gets, how deep it was used, whose guard page was hit. Follows
//! *Using the Kernel Stack*.
//!
//! The memory itself is `mm::stack`'s.

use engine::windows::PAGE;
use engine::{Engine, Flow, Stack};

use super::processor::Entered;
use crate::cx::{Cx, Kernel};
use crate::mm::stack::{KERNEL_STACK, KernelStack};

/// The stack for a call into a driver from here: below the driver frame that called us, else the top of the stack we
/// stand on: the processor's for DPCs and interrupts, or the thread's own.
pub(crate) fn stack_for_call(cx: &mut Cx<'_>) -> Stack {
    let depth = cx.engine().depth();
    let entered = cx.with(|k| k.ke.processor().entered.last().copied());
    match entered {
        Some(entered) if entered.depth == depth => Stack::At(entered.base),
        _ if depth > 0 => Stack::Current,
        _ => Stack::At(cx.with(|k| k.ke.thread().map_or(0, |thread| thread.stack_base()))),
    }
}

/// Runs `f` with calls into drivers on the processor's stack at `base`, unless that is in use already: then below what
/// is there, as on x64.
pub(crate) fn on<R>(cx: &mut Cx<'_>, base: u64, f: impl FnOnce(&mut Cx<'_>) -> Flow<R>) -> Flow<R> {
    let depth = cx.engine().depth();
    let first = cx.with(|k| {
        let entered = &mut k.ke.processor_mut().entered;
        let first = entered.iter().all(|stack| stack.base != base);
        if first {
            entered.push(Entered { base, depth });
        }
        first
    });
    let result = f(cx);
    if first {
        // A routine that runs at DISPATCH_LEVEL or above ends on the processor it began on.
        cx.with(|k| k.ke.processor_mut().entered.pop());
    }
    result
}

/// Bytes used at most: stacks begin zeroed, so what is not zero was written.
pub(crate) fn high_water(engine: Engine, stack: KernelStack) -> u64 {
    let mut page = [0; 0x1000];
    let mut at = stack.limit;
    while at < stack.base {
        engine.read_bytes(at, &mut page).expect("a stack is mapped as long as it exists");
        if let Some(first) = page.iter().position(|&byte| byte != 0) {
            return stack.base - at - (first as u64 & !7);
        }
        at += PAGE;
    }
    0
}

/// All stacks there are, with their owners' names.
fn all(k: &Kernel) -> impl Iterator<Item = (KernelStack, String)> {
    let threads = k.ke.threads.values();
    let own = threads.filter_map(|thread| thread.stack.map(|stack| (stack, format!("the {}", thread.name))));
    let processors = k.ke.processors.iter().flat_map(|processor| {
        let stack = |base: u64| KernelStack { limit: base - KERNEL_STACK, base };
        let name = |what: &str| format!("the {what} of processor {}", processor.number);
        [
            (stack(processor.dpc_stack), name("DPC stack")),
            (stack(processor.interrupt_stack), name("interrupt stack")),
        ]
    });
    own.chain(processors)
}

/// Whose stack ends just above `address`, if that lies in a guard page.
pub(crate) fn overflowed(k: &Kernel, address: u64) -> Option<String> {
    all(k)
        .find(|(stack, _)| stack.limit.wrapping_sub(address) <= PAGE && address < stack.limit)
        .map(|(_, n)| n)
}

/// The greatest number of bytes any driver stack had in use since boot.
#[must_use]
pub fn deepest(k: &Kernel) -> u64 {
    let live = all(k).map(|(stack, _)| high_water(k.engine, stack)).max().unwrap_or(0);
    live.max(k.ke.deepest_stack)
}

/// `IoGetStackLimits`: the lowest and the highest address of the current stack.
#[must_use]
pub fn limits(k: &Kernel) -> KernelStack {
    match k.ke.processor().entered.last() {
        Some(entered) => KernelStack { limit: entered.base - KERNEL_STACK, base: entered.base },
        None => k.ke.thread().and_then(|thread| thread.stack).unwrap_or(KernelStack { limit: 0, base: 0 }),
    }
}
