//! A call through a register goes where it went first: its target is compared with that one, and only another is looked up.
//!
//! The comparison stands behind the call's push, so that there is one call, one landing pad, and the jump is a direct one. It
//! is written without a target; the first call leaves by an exit that fills it in.

use crate::leave::Flow;
use crate::machine::state;
use crate::registers::number::RSP;
use crate::translate::cache::Cache;
use crate::translate::emitter::{self, Emitter, Hole, R11, RCX, RDX, Reg};
use crate::translate::exit::{Exit, go_on};
use crate::translate::frame::Frame;
use crate::translate::scratch::{JUMP, R11 as SAVED_R11, RCX as SAVED_RCX, RDX as SAVED_RDX, TARGET};
use crate::translate::stubs;
use crate::windows::CACHE;

/// Where a guess is filled in: offsets in the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    /// The driver's register that holds the target.
    register: u8,
    /// The constant that is added to it.
    constant: u32,
    /// The displacement of the direct jump.
    jump: u32,
    /// The exit, which is jumped over from then on.
    exit: u32,
}

/// What the call leads to: `rcx` is compared, of which a call's target cannot lie there.
pub(super) fn write(cache: &mut Cache, hole: Hole, next: u64, rip: u64, register: Reg) {
    let offset = |address: u64| u32::try_from(address - CACHE.base).expect("the cache is smaller than 4 GiB");
    let e = &mut cache.emitter;
    e.fill_here(hole);
    stubs::original_return_address(e, next);
    e.store(SAVED_RCX, RCX);
    let constant = offset(e.here() + 2);
    e.constant(RCX, 1);
    e.bytes(&[0x48 | register.0 >> 3 << 1, 0x8D, 0x0C, (register.0 & 7) << 3 | 1]); // lea rcx, [rcx+register]
    e.bytes(&[0xE3, 5]); // jrcxz over the jump
    let other = e.jump_hole();
    e.load(RCX, SAVED_RCX);
    let jump = e.jump_hole();
    e.fill_here(jump); // as long as there is no guess: the exit
    e.fill_here(other);
    e.load(RCX, SAVED_RCX);
    let exit = offset(e.here());
    let guess = Guess { register: register.0, constant, jump: offset(jump.address()), exit };
    let number = cache.exit(Exit::Guess { rip, guess });
    stubs::exit_stub(&mut cache.emitter, number);
    look_up(cache, rip, register, false, true);
    cache.emitter.jump_through(JUMP);
}

/// Leaves the translation of the target that is in `register` in `scratch.jump`, by the table. `borrowed` says that the register is
/// `r11` and its own value is in `scratch.r11`; `pushed`, that the return address is pushed already.
pub(super) fn look_up(cache: &mut Cache, rip: u64, register: Reg, borrowed: bool, pushed: bool) {
    let miss = cache.exit(Exit::IndirectMiss { rip, found: 0, pushed });
    let e = &mut cache.emitter;
    e.store(TARGET, register);
    e.store(SAVED_RCX, RCX);
    e.store(SAVED_RDX, RDX);
    e.bytes(&[0x40 | register.0 >> 3 << 2, 0x89, 0xC2 | (register.0 & 7) << 3]); // mov edx, register32
    e.load32(RCX, TARGET + 4);
    let restore = |e: &mut Emitter| {
        stubs::restore_rcx_rdx(e);
        if borrowed {
            e.load(R11, SAVED_R11);
        }
    };
    stubs::look_up_jump(e, restore, |e| stubs::exit_stub(e, miss));
    let found = e.here();
    cache.exits[miss as usize] = Exit::IndirectMiss { rip, found, pushed };
}

/// The first call of a site: goes there, and so will the next ones.
pub(crate) fn learn(frame: &mut Frame, rip: u64, guess: Guess) -> Flow<u64> {
    frame.rip = rip;
    let translator = &state().translator;
    let generation = translator.generation();
    let target = frame.registers.general[usize::from(guess.register)];
    let translated = go_on_pushed(frame, target)?;
    if translator.generation() == generation {
        let at = |offset: u32| CACHE.base + u64::from(offset);
        emitter::patch_constant(at(guess.constant), 0u64.wrapping_sub(target));
        emitter::patch_displacement(at(guess.jump), translated);
        emitter::patch_jump(at(guess.exit), at(guess.exit) + stubs::EXIT_STUB);
    }
    Ok(translated)
}

/// As [`go_on`], of a call that has pushed its return address: should the target be bad, it has not.
pub(crate) fn go_on_pushed(frame: &mut Frame, target: u64) -> Flow<u64> {
    let rsp = frame.registers.general[RSP];
    frame.registers.general[RSP] = rsp.wrapping_add(8);
    let translated = go_on(frame, target)?;
    frame.registers.general[RSP] = rsp;
    Ok(translated)
}
