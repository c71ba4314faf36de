//! Unwinding: where each call into driver code stands, with all its registers, and how one of them goes on elsewhere.
//!
//! The guest decides where ([`crate::Engine::resume_at`]) and hands [`Leave::Unwind`] on; every call between is
//! left, and the one it is for loads the registers instead of leaving. What a handler put into them is data of the
//! driver's: flags and MXCSR are cut to what driver code may set.

use std::cell::Cell;

use super::callout::SETTABLE;
use super::exit::go_on;
use super::frame::{Frame, MXCSR_DEFAULT, USED_FLAGS, USED_MXCSR, USED_X87, USED_XMM0, USED_XMM6, USED_YMM};
use super::scratch::scratch;
use super::{caller_of, frame_at, innermost};
use crate::leave::{Flow, Leave};
use crate::machine::state;
use crate::registers::Context;

/// The flags of driver code that has not said otherwise: interrupts enabled, and the bit that is always set.
const FLAGS: u64 = 0x202;
/// The direction and the identification flag.
const RARE_FLAGS: u64 = 0x20_0400;
/// What MXCSR can hold on every processor of the x86-64-v2 level.
const MXCSR_BITS: u32 = 0xFFFF;

/// Which call goes on and where, between [`resume_at`] and that call.
#[derive(Default)]
pub(crate) struct Resumption(Cell<Option<(u32, Context)>>);

impl Resumption {
    fn take_for(&self, depth: u32) -> Option<Context> {
        let (for_depth, context) = self.0.get()?;
        if for_depth != depth {
            return None;
        }
        self.0.set(None);
        Some(context)
    }
}

/// See [`crate::Engine::contexts`].
pub(crate) fn contexts() -> Vec<Context> {
    std::iter::successors(innermost(), |frame| frame_at(frame.previous)).map(context_of).collect()
}

fn context_of(frame: &Frame) -> Context {
    let mut context = Context {
        rip: frame.rip,
        registers: frame.registers(),
        xmm: zerocopy::transmute!(frame.xmm),
        mxcsr: frame.driver_mxcsr,
    };
    if frame.rip == 0 {
        // A call of the kernel: as after its return. What the convention leaves undefined was never saved.
        context.rip = caller_of(frame).rip;
        context.registers.flags = 0;
        for volatile in [0, 1, 2, 8, 9, 10, 11] {
            context.registers.general[volatile] = 0;
        }
        context.registers.general[4] = frame.registers.rsp().wrapping_add(8);
    }
    if frame.rip == 0 || frame.used & USED_XMM0 == 0 {
        context.xmm[..6].fill(0);
    }
    context.registers.flags |= FLAGS;
    if frame.used & USED_XMM6 == 0 {
        context.xmm[6..].fill(0);
    }
    context
}

/// See [`crate::Engine::resume_at`].
pub(crate) fn resume_at(depth: u32, context: &Context) -> Leave {
    state().resumption.0.set(Some((depth, *context)));
    Leave::Unwind
}

/// What came of an exit or an export of the call with `frame`: if it is to go on elsewhere, the translated address
/// there, with the frame's registers replaced.
pub(super) fn settle(frame: &mut Frame, flow: Flow<u64>) -> Resumed {
    let mut flow = flow;
    let mut resumed = false;
    while flow == Err(Leave::Unwind)
        && let Some(context) = state().resumption.take_for(frame.depth)
    {
        resumed = true;
        load(frame, &context);
        flow = state().caught(|| go_on(frame, context.rip));
    }
    match flow {
        Ok(value) if resumed => Resumed::Elsewhere(value),
        other => Resumed::Not(other),
    }
}

/// How [`settle`] ended.
pub(super) enum Resumed {
    /// Translated code to go on at with all registers of the frame.
    Elsewhere(u64),
    /// Nothing was to be done, or it failed.
    Not(Flow<u64>),
}

fn load(frame: &mut Frame, context: &Context) {
    if frame.rip == 0 || frame.used & USED_YMM == 0 {
        // Of a call of the kernel, or from before any was used: never saved.
        frame.ymm = [[0; 2]; 16];
    }
    frame.rip = context.rip;
    frame.registers.general = context.registers.general;
    frame.registers.flags = context.registers.flags & SETTABLE | FLAGS;
    frame.xmm = zerocopy::transmute!(context.xmm);
    frame.driver_mxcsr = context.mxcsr & MXCSR_BITS;
    let mut used = scratch().used.get();
    if context.xmm[..6].iter().any(|register| *register != 0) {
        used |= USED_XMM0;
    }
    if context.xmm[6..].iter().any(|register| *register != 0) {
        used |= USED_XMM6;
    }
    if frame.driver_mxcsr != MXCSR_DEFAULT {
        used |= USED_MXCSR;
    }
    if frame.registers.flags & RARE_FLAGS != 0 {
        used |= USED_FLAGS;
    }
    scratch().uses(used);
    // What x87 has is saved or not, whatever the context says.
    frame.used |= used & !USED_X87;
}
