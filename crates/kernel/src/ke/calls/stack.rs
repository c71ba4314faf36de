//! The stacks driver code runs on: which one a call gets, how deep it was used, whose guard page was hit. Follows
//! *Using the Kernel Stack*.
//!
//! The memory itself is `mm::stack`'s.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr};
use engine::windows::PAGE;
use engine::{Engine, Fill, Flow, Leave, Stack};

use crate::cx::{Cx, Kernel};
use crate::ke::levels::irql::DISPATCH_LEVEL;
use crate::ke::sched::processor::Entered;
use crate::ldr;
use crate::mm::stack::KernelStack;
use crate::verdict::Verdict;

/// The stack for a call into a driver from here: below the driver frame that called us, else the top of the stack we
/// stand on: the processor's for DPCs and interrupts, or the thread's own.
#[inline]
pub(crate) fn stack_for_call(cx: &mut Cx<'_>) -> Stack {
    let depth = cx.engine().depth();
    cx.with(|k| for_call(k, depth))
}

/// The same, with so many calls of drivers around.
#[inline]
pub(super) fn for_call(k: &Kernel, depth: u32) -> Stack {
    match k.ke.processor().entered.last() {
        Some(entered) if entered.depth == depth => Stack::At(entered.stack.base),
        _ if depth > 0 => Stack::Current,
        _ => Stack::At(k.ke.thread().map_or(0, |thread| thread.stack_base())),
    }
}

/// Runs `f` with calls into drivers on the processor's stack at `base`, unless that is in use already: then below what
/// is there, as on x64.
pub(crate) fn on<R>(cx: &mut Cx<'_>, base: u64, f: impl FnOnce(&mut Cx<'_>) -> Flow<R>) -> Flow<R> {
    let depth = cx.engine().depth();
    let first = cx.with(|k| {
        let limit = base - k.ke.calls.kernel_stack;
        let entered = &mut k.ke.processor_mut().entered;
        let first = entered.iter().all(|entered| entered.stack.base != base);
        if first {
            entered.push(Entered { stack: KernelStack { limit, base }, depth });
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

/// Whether no processor is in a DPC or service routine, or about to begin a DPC.
#[must_use]
pub fn processors_are_free(k: &Kernel) -> bool {
    k.ke.processors.iter().enumerate().all(|(index, processor)| {
        let begins = k.level_of(index) >= DISPATCH_LEVEL && !processor.dpcs.is_empty();
        processor.entered.is_empty() && !begins
    })
}

/// What each call of a driver by the kernel takes of a kernel stack at the least: return addresses, home space and saved registers of
/// the driver's routine and of the kernel's between (which here stand on a stack of their own).
const BYTES_OF_A_CALL: u64 = 384;

/// How deep calls of drivers by the kernel may be nested on a stack of so many bytes.
pub(crate) fn most_calls(stack: u64) -> u32 {
    u32::try_from(stack / BYTES_OF_A_CALL).unwrap_or(u32::MAX)
}

/// The verdict on one more call.
pub(crate) fn too_deep(cx: &mut Cx<'_>, routine: DriverPtr<Code>) -> Leave {
    let who = ldr::symbols::describe(cx, routine.address);
    let bytes = cx.with(|k| k.ke.calls.kernel_stack);
    let most = most_calls(bytes);
    let message = format!(
        "{who} was to be called within {most} calls of drivers by the kernel, each from within the other: they need more \
         than a kernel stack of {} KiB, the stack overflowed",
        bytes >> 10
    );
    let rip = cx.engine().caller().map_or(0, |caller| caller.rip);
    cx.stop(Verdict::error("stack-overflow", message).bug_check(0x7F, [8, 0, 0, rip]))
}

/// Bytes used at most: stacks begin zeroed, so what is not zero was written; where stacks are filled below calls, that is not.
pub(in crate::ke) fn high_water(engine: Engine, stack: KernelStack) -> u64 {
    const WHY: &str = "a stack is mapped as long as it exists";
    // What is not used is most of it: pages, then lines.
    let is_used = |at: u64, bytes: u64| !engine.is_filled(at, bytes, 0).expect(WHY);
    let Some(page) = (stack.limit..stack.base).step_by(0x1000).find(|at| is_used(*at, PAGE)) else {
        return 0;
    };
    let line = (page..page + PAGE).step_by(64).find(|at| is_used(*at, 64)).expect("the page is used");
    for line in (line..stack.base).step_by(64) {
        let mut bytes = [0; 64];
        engine.read_bytes(line, &mut bytes).expect(WHY);
        let word_at =
            |index: usize| u64::from_le_bytes(bytes[8 * index..][..8].try_into().expect("of eight"));
        let is_filling = |word: u64| word == 0 || word == Fill::FRESH.0 && engine.fills_stacks();
        if let Some(first) = (0..8).find(|index| !is_filling(word_at(*index))) {
            return stack.base - line - 8 * first as u64;
        }
    }
    0
}

/// How messages call the owner of a stack: `the thread main`.
pub(crate) fn owner(thread: &str) -> String {
    if thread.starts_with("the ") { thread.to_owned() } else { format!("the {thread}") }
}

/// How messages call the owner of a stack of `KeExpandKernelStackAndCallout`.
pub(crate) fn expanded(thread: &str) -> String {
    format!("the expanded stack of {}", owner(thread))
}

/// The call at which a walk up the stack ends: what had called it was interrupted, or called the kernel from another stack.
pub(crate) fn end_of_walks(k: &Kernel) -> u32 {
    let processor = k.ke.processor();
    let interrupted = processor.interrupted.last().copied().unwrap_or(0);
    let interrupted = processor.entered.last().map_or(0, |entered| entered.depth).max(interrupted);
    let left = k.ke.thread().and_then(|thread| thread.left_stacks.last());
    left.map_or(interrupted, |left| left.depth.max(interrupted))
}

/// All stacks there are, with their owners' names.
fn all(k: &Kernel) -> impl Iterator<Item = (KernelStack, String)> {
    let threads = k.ke.sched.threads().iter();
    let own = threads.flat_map(|thread| {
        let name = |index| if index == 0 { owner(&thread.name) } else { expanded(&thread.name) };
        thread.stacks().enumerate().map(move |(index, stack)| (stack, name(index)))
    });
    let processors = k.ke.processors.iter().flat_map(|processor| {
        let stack = |base: u64| KernelStack { limit: base - k.ke.calls.kernel_stack, base };
        let name = |what: &str| format!("the {what} of processor {}", processor.number);
        let own = [
            (stack(processor.dpc_stack), name("DPC stack")),
            (stack(processor.interrupt_stack), name("interrupt stack")),
        ];
        let [dpc, interrupt] = own.each_ref().map(|(stack, _)| *stack);
        let larger = processor.entered.iter().map(|entered| entered.stack);
        let larger = larger.filter(move |stack| *stack != dpc && *stack != interrupt);
        let number = processor.number;
        own.into_iter().chain(larger.map(move |stack| (stack, expanded(&format!("processor {number}")))))
    });
    own.chain(processors)
}

/// The stack that ends just above `address`, if that lies in a guard page, and whose it is.
pub(crate) fn overflowed(k: &Kernel, address: u64) -> Option<(KernelStack, String)> {
    all(k).find(|(stack, _)| stack.limit.wrapping_sub(address) <= PAGE && address < stack.limit)
}

/// Whose stack `address` lies in.
pub(super) fn owner_of(k: &Kernel, address: u64) -> Option<String> {
    around(k, address).map(|(_, owner)| owner)
}

/// The stack that `address` lies in, and whose it is.
pub(in crate::ke) fn around(k: &Kernel, address: u64) -> Option<(KernelStack, String)> {
    all(k).find(|(stack, _)| (stack.limit..stack.base).contains(&address))
}

/// At most so many routines' shares of an overflowed stack are listed.
const LISTED: usize = 4;

/// What fills `stack`, in words: `faults.sys!Recurse: 43 frames, 24080 bytes; …`.
pub(super) fn describe_overflow(cx: &mut Cx<'_>, stack: KernelStack) -> String {
    let shares = ldr::stack::shares(cx, stack);
    let tell = |share: &ldr::stack::Share| {
        let plural = if share.frames == 1 { "" } else { "s" };
        format!("{}: {} frame{plural}, {} bytes", share.routine, share.frames, share.bytes)
    };
    let mut words: Vec<String> = shares.iter().take(LISTED).map(tell).collect();
    if shares.len() > LISTED {
        let bytes: u64 = shares[LISTED..].iter().map(|share| share.bytes).sum();
        words.push(format!("{} more: {bytes} bytes", shares.len() - LISTED));
    }
    words.join("; ")
}

/// The greatest number of bytes that the stack of each thread and processor had in use since boot, by whose it is. Threads of the same
/// name are one; stacks that no driver used are left out.
#[must_use]
pub fn deepest(k: &Kernel) -> BTreeMap<String, u64> {
    let mut deepest = k.ke.calls.deepest_stacks.clone();
    for (stack, name) in all(k) {
        note_depth(&mut deepest, &name, high_water(k.engine, stack));
    }
    deepest
}

/// A stack of this name was used so deep.
pub(in crate::ke) fn note_depth(deepest: &mut BTreeMap<String, u64>, name: &str, depth: u64) {
    match deepest.get_mut(name) {
        Some(known) => *known = depth.max(*known),
        None if depth > 0 => {
            deepest.insert(name.to_owned(), depth);
        }
        None => {}
    }
}

/// `IoGetStackLimits`: the lowest and the highest address of the current stack.
#[must_use]
pub(crate) fn limits(k: &Kernel) -> KernelStack {
    match k.ke.processor().entered.last() {
        Some(entered) => entered.stack,
        None => k.ke.thread().and_then(|thread| thread.stack).unwrap_or(KernelStack { limit: 0, base: 0 }),
    }
}
