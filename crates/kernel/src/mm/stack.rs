//! Kernel stacks of threads, DPCs and interrupts. Follows *Using the Kernel Stack*.
//!
//! A page that is never mapped lies on either side, so that an overflow is a fault at the exact instruction. Stacks are
//! not filled with a pattern: how deep one was used is the scheduler's to find out.

use engine::windows::PAGE;
use engine::{Fill, Protection};

use super::map::{self, Page};
use super::memory;
use super::space::Zone;
use crate::cx::Cx;

/// Bytes of a thread's stack on x64 Windows.
pub const KERNEL_STACK: u64 = 0x6000;

/// A stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelStack {
    /// Lowest address that may be used.
    pub limit: u64,
    /// The address behind the highest; a multiple of a page. The stack grows down from here.
    pub base: u64,
}

/// A zeroed stack of at least `bytes`, for a thread, which has a strand; none if there is no memory for it.
pub fn allocate(cx: &mut Cx<'_>, bytes: u64) -> Option<KernelStack> {
    let count = bytes.div_ceil(PAGE).max(1);
    // The page below is taken as well and never mapped, whatever lies before.
    let page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };
    let stack = cx.with(|k| {
        if !k.mm.physical.memory.take_strand() {
            return None;
        }
        let limit = map::allocate(k, Zone::Stacks, count, page, Fill::of(0));
        if limit.is_none() {
            k.mm.physical.memory.give_strand();
        }
        let limit = limit?;
        Some(KernelStack { limit, base: limit + count * PAGE })
    });
    if stack.is_none() {
        memory::tell(cx);
    }
    stack
}

/// Gives a stack back.
pub fn free(cx: &mut Cx<'_>, stack: KernelStack) {
    cx.with(|k| {
        map::release(k, Zone::Stacks, stack.limit, (stack.base - stack.limit) / PAGE);
        k.mm.physical.memory.give_strand();
    });
}

/// A zeroed stack of at least `bytes`, for a thread that has one already; none if there is no memory for it.
pub(crate) fn allocate_segment(cx: &mut Cx<'_>, bytes: u64) -> Option<KernelStack> {
    let count = bytes.div_ceil(PAGE).max(1);
    let page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };
    let limit = cx.with(|k| map::allocate(k, Zone::Stacks, count, page, Fill::of(0)));
    if limit.is_none() {
        memory::tell(cx);
    }
    limit.map(|limit| KernelStack { limit, base: limit + count * PAGE })
}

/// Gives a stack of [`allocate_segment`] back.
pub(crate) fn free_segment(cx: &mut Cx<'_>, stack: KernelStack) {
    cx.with(|k| map::release(k, Zone::Stacks, stack.limit, (stack.base - stack.limit) / PAGE));
}
