//! A call through a register goes where it went first: its target is compared with that one, and only another is looked up.
//!
//! The comparison stands behind the call's push, so that there is one call, one landing pad, and the jump is a direct one. It
//! is written without a target; the first call leaves by an exit that fills it in.

use super::{Builder, calls, counter};
use crate::leave::Flow;
use crate::machine::state;
use crate::registers::number::RSP;
use crate::translate::cache::{Cache, Saved};
use crate::translate::emitter::{self, Emitter, Hole, R10, R11, R13, RAX, RCX, RDX, Reg};
use crate::translate::exit::{Exit, go_on};
use crate::translate::frame::Frame;
use crate::translate::host_words::JUMP;
use crate::translate::scratch::{DRIVER_R13, R11 as SAVED_R11, RCX as SAVED_RCX, RDX as SAVED_RDX, TARGET};
use crate::translate::short::inline;
use crate::translate::{site, stubs, table};
use crate::windows::CACHE;

/// A cache with less than this left takes nothing that need not be there.
const ROOM: u64 = 1 << 10;

/// Where a guess is filled in: offsets in the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    /// The driver's register that holds the target.
    register: u8,
    /// The call.
    site: u32,
    /// What it leads to.
    aside: u32,
    /// The displacement of the direct jump.
    jump: u32,
    /// So far behind the constant that is added to the register.
    to_constant: u8,
}

/// A guess that is filled in: the call, its target, where the displacement of the direct jump is, and where that leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guessed {
    pub(crate) rip: u64,
    pub(crate) target: u64,
    jump: u64,
    translated: u64,
}

impl Guessed {
    /// The call looks its target up from now on, as any other.
    pub(crate) fn suspend(self) {
        emitter::patch_displacement(self.jump, self.jump + DISPLACEMENT);
    }

    /// It goes there straight again.
    pub(crate) fn resume(self) {
        emitter::patch_displacement(self.jump, self.translated);
    }
}

/// Bytes of a displacement. What is behind that of the direct jump is what a wrong guess goes on with.
const DISPLACEMENT: u64 = 4;

/// Bytes of [`counter::lend`].
const LENT: u64 = 16;
/// From the displacement of the direct jump to the exit, which is jumped over once there is a guess.
const TO_EXIT: u64 = 12;

fn offset(address: u64) -> u32 {
    u32::try_from(address - CACHE.base).expect("the cache is smaller than 4 GiB")
}

/// What the call leads to: `rcx` is compared, of which a call's target cannot lie there.
pub(super) fn write(cache: &mut Cache, hole: Hole, next: u64, rip: u64, register: Reg) {
    let e = &mut cache.emitter;
    let (site, aside) = (offset(hole.address() - 1), offset(e.here()));
    e.fill_here(hole);
    stubs::original_return_address(e, next);
    e.store(SAVED_RCX, RCX);
    let begin = e.here();
    let other = unless_equal(e, register, 1);
    let jump = e.jump_hole();
    e.fill_here(jump); // as long as there is no guess: the exit
    e.fill_here(other);
    e.load(RCX, SAVED_RCX);
    let constant = if register == R13 { begin + LENT + 2 } else { begin + 2 };
    let to_constant = u8::try_from(jump.address() - constant).expect("it is near");
    assert_eq!(e.here() - jump.address(), TO_EXIT, "the layout is known");
    let guess = Guess { register: register.0, site, aside, to_constant, jump: offset(jump.address()) };
    let number = cache.exit(Exit::Guess { rip, guess });
    stubs::exit_stub(&mut cache.emitter, number);
    look_up(cache, rip, register, false, true);
    cache.emitter.jump_through(JUMP);
}

/// The jump is taken, with `rcx` still in its word, if the register does not hold what `negative` is the negative of. No flag
/// is touched.
fn unless_equal(e: &mut Emitter, register: Reg, negative: u64) -> Hole {
    if register == R13 {
        counter::lend(e);
    }
    e.constant(RCX, negative);
    e.bytes(&[0x48 | register.0 >> 3 << 1, 0x8D, 0x0C, (register.0 & 7) << 3 | 1]); // lea rcx, [rcx+register]
    if register == R13 {
        counter::take(e, false);
    }
    e.bytes(&[0xE3, 5]); // jrcxz over the jump
    let other = e.jump_hole();
    e.load(RCX, SAVED_RCX);
    other
}

/// Leaves the translation of the target that is in `register` in `scratch.jump`, by the table. `borrowed` says that the register is
/// `r11` and its own value is in `scratch.r11`; `pushed`, that the return address is pushed already.
pub(super) fn look_up(cache: &mut Cache, rip: u64, register: Reg, borrowed: bool, pushed: bool) {
    let miss = cache.exit(Exit::IndirectMiss { rip, found: 0, pushed });
    let e = &mut cache.emitter;
    e.store(SAVED_RCX, RCX);
    e.store(SAVED_RDX, RDX);
    let register = if register == R13 {
        e.load(RCX, DRIVER_R13);
        RCX
    } else {
        register
    };
    e.store(TARGET, register);
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
        let jump = CACHE.base + u64::from(guess.jump);
        emitter::patch_constant(jump - u64::from(guess.to_constant), 0u64.wrapping_sub(target));
        emitter::patch_displacement(jump, translated);
        translator.with(|cache| cache.guesses.push(Guessed { rip, target, jump, translated }));
        let exit = jump + TO_EXIT;
        emitter::patch_jump(exit, exit + stubs::EXIT_STUB);
        translator.with(|cache| shorten(cache, rip, guess, target));
    }
    Ok(translated)
}

/// If the call went to a short export, it is done before the call from now on: where the call stands, a jump leads to that,
/// and to the call as it was.
fn shorten(cache: &mut Cache, rip: u64, guess: Guess, target: u64) {
    let room = cache.emitter.here() + ROOM < CACHE.end();
    let Some(instruction) = site::instruction_at(rip) else { return };
    let next = instruction.next_ip();
    let Some(short) = cache.short(target) else { return };
    if calls::is_looked_at() || !room || !table::covers(next) {
        return;
    }
    let at = |offset: u32| CACHE.base + u64::from(offset);
    let (register, pad) = (Reg(guess.register), at(guess.site) + emitter::JUMP_BYTES);
    cache.emitter.align(32);
    let mut builder = Builder::empty(cache, vec![rip], 1);
    let start = builder.start;
    builder.cache.emitter.store(SAVED_RCX, RCX);
    let other = unless_equal(&mut builder.cache.emitter, register, 0u64.wrapping_sub(target));
    builder.map(0, Saved::Untried);
    let rest = inline::write(&mut builder.cache.emitter, short, next);
    builder.cache.emitter.jump(pad + stubs::RESTORED);
    builder.finish();
    let e = &mut cache.emitter;
    let retry = rest.write(e);
    if [RAX, R10, R11].contains(&register) {
        e.constant(register, target); // it was lost
    }
    let behind = e.jump_hole();
    e.fill_here(other);
    e.load(RCX, SAVED_RCX);
    e.fill_here(behind);
    if let Some(block) = cache.blocks.beginning_at(start) {
        block.retry = retry;
    }
    let call = calls::Ordinary { rip, next, charged: 1 };
    let hole = calls::write_call(cache, call, Saved::CallThrough(register.0));
    cache.emitter.jump(pad);
    cache.emitter.fill(hole, at(guess.aside));
    emitter::patch_jump(at(guess.site), start);
}

/// As [`go_on`], of a call that has pushed its return address: should the target be bad, it has not.
pub(crate) fn go_on_pushed(frame: &mut Frame, target: u64) -> Flow<u64> {
    let rsp = frame.registers.general[RSP];
    frame.registers.general[RSP] = rsp.wrapping_add(8);
    let translated = go_on(frame, target)?;
    frame.registers.general[RSP] = rsp;
    Ok(translated)
}
