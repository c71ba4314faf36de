//! Registers that driver code may use only where their state has been saved: x87's and MMX's, and AVX's. Follows *Using
//! extended processor features in Windows drivers*.
//!
//! Before a block's first such instruction stands a test of a word of the scratch page; while that is not 0 the guest is
//! asked. SSE needs no leave, and `fxsave` and its kind need none.

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic};

use super::cache::Cache;
use super::emitter::RCX;
use super::exit::{Exit, go_on};
use super::frame::Frame;
use super::scratch::{ASK_AVX, ASK_X87, RCX as SAVED_RCX, scratch};
use super::stubs;
use crate::guest::{Extended, Special};
use crate::leave::Flow;
use crate::machine::state;

/// Which of these registers the instruction uses.
pub(super) fn extended(instruction: &Instruction) -> Option<Extended> {
    use CpuidFeature as F;
    let features = instruction.cpuid_features();
    let any = |of: &[F]| features.iter().any(|feature| of.contains(feature));
    if instruction.encoding() == EncodingKind::VEX {
        return any(&[F::AVX, F::AVX2, F::FMA, F::F16C]).then_some(Extended::Avx);
    }
    let operand = |index: u32| instruction.op_register(index);
    let registers = (0..instruction.op_count()).any(|i| operand(i).is_mm() || operand(i).is_st());
    let x87 = registers
        || any(&[F::FPU, F::FPU287, F::FPU387, F::MMX])
        || instruction.mnemonic() == Mnemonic::Fisttp;
    x87.then_some(Extended::X87)
}

/// The guest is to be asked before the next use. Mostly that is so already: a look costs less than stores do.
#[inline]
pub(crate) fn ask_for_extended() {
    let scratch = scratch();
    if scratch.ask_x87.get() & scratch.ask_avx.get() == 0 {
        scratch.ask_x87.set(1);
        scratch.ask_avx.set(1);
    }
}

/// What a block being written has tested already: nothing within it changes the answer.
#[derive(Default)]
pub(super) struct Tested {
    x87: bool,
    avx: bool,
}

impl Tested {
    /// In front of `instruction`, behind which `ahead` instructions of the block have been charged. No flag is touched.
    pub(super) fn before(&mut self, cache: &mut Cache, instruction: &Instruction, ahead: u8) {
        let Some(state) = extended(instruction) else { return };
        let (tested, word) = match state {
            Extended::X87 => (&mut self.x87, ASK_X87),
            Extended::Avx => (&mut self.avx, ASK_AVX),
        };
        if std::mem::replace(tested, true) {
            return;
        }
        let decoded = cache.keep(instruction);
        let number = cache.exit(Exit::Extended { decoded, state, ahead });
        let e = &mut cache.emitter;
        e.store(SAVED_RCX, RCX);
        e.load(RCX, word);
        let granted = e.jump_if_rcx_zero_hole();
        e.load(RCX, SAVED_RCX);
        stubs::exit_stub(e, number);
        let here = e.here();
        e.fill(granted, here);
        e.load(RCX, SAVED_RCX);
    }
}

/// The guest may refuse the use; else it goes on, and the next ones do not ask.
pub(super) fn ask(frame: &mut Frame, rip: u64, extended: Extended) -> Flow<u64> {
    frame.rip = rip;
    state().guest().special(Special::Extended(extended))?;
    match extended {
        Extended::X87 => scratch().ask_x87.set(0),
        Extended::Avx => scratch().ask_avx.set(0),
    }
    go_on(frame, rip)
}
