//! A call or a jump through a register or memory goes where it went first: its target is compared with that one, and only another is looked
//! up. A jump that has gone elsewhere once is looked up from then on: it is a switch.
//!
//! A call's comparison stands behind its push, so that there is one call, one landing pad, and the jump is a direct one. It
//! is written without a target; the first call leaves by an exit that fills it in.

use super::leaves::{self, Inlined};
use super::{Builder, calls, counter};
use crate::leave::Flow;
use crate::machine::state;
use crate::registers::number::RSP;
use crate::translate::cache::{Cache, Saved};
use crate::translate::emitter::{self, Emitter, Hole, R10, R11, R13, RAX, RCX, RDX, Reg};
use crate::translate::exit::{Exit, go_on};
use crate::translate::frame::Frame;
use crate::translate::host_words::JUMP;
use crate::translate::scratch::{
    DRIVER_R13, R11 as SAVED_R11, RCX as SAVED_RCX, RDX as SAVED_RDX, TARGET, scratch,
};
use crate::translate::short::inline;
use crate::translate::{site, stubs, table};
use crate::windows::CACHE;

/// A cache with less than this left takes nothing that need not be there.
const ROOM: u64 = 1 << 10;

/// What a branch goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Through {
    /// A register of the driver's.
    Register(Reg),
    /// Memory, or a register that is in use: the target was loaded to `scratch.target`.
    Word,
}

impl Through {
    /// Where it leads.
    pub(in crate::translate) fn target(self, frame: &Frame) -> u64 {
        match self {
            Self::Register(register) => frame.registers.general[usize::from(register.0)],
            Self::Word => scratch().target.get(),
        }
    }

    /// Whether another register is saved while it is compared.
    fn is_lent(self) -> bool {
        matches!(self, Self::Word | Self::Register(R13))
    }
}

/// Where a guess is filled in: offsets in the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guess {
    through: Through,
    /// The call, or the jump.
    site: u32,
    /// What a call leads to; 0 for a jump.
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
    /// A leaf that stands in the place of the call.
    inlined: Option<Inlined>,
}

impl Guessed {
    /// The call looks its target up from now on, as any other.
    pub(crate) fn suspend(self) {
        emitter::patch_displacement(self.jump, self.jump + DISPLACEMENT);
        if let Some(inlined) = self.inlined {
            inlined.suspend();
        }
    }

    /// It goes there straight again.
    pub(crate) fn resume(self) {
        emitter::patch_displacement(self.jump, self.translated);
        if let Some(inlined) = self.inlined {
            inlined.resume();
        }
    }
}

/// Bytes of a displacement. What is behind that of the direct jump is what a wrong guess goes on with.
const DISPLACEMENT: u64 = 4;

/// Bytes of [`counter::lend`], and of what stands in its place for [`Through::Word`].
fn lent() -> u64 {
    emitter::STORE_BYTES + emitter::load_bytes()
}

/// From the displacement of the direct jump to the exit, which is jumped over once there is a guess.
fn to_exit() -> u64 {
    DISPLACEMENT + emitter::load_bytes()
}

fn offset(address: u64) -> u32 {
    u32::try_from(address - CACHE.base).expect("the cache is smaller than 4 GiB")
}

fn at(offset: u32) -> u64 {
    CACHE.base + u64::from(offset)
}

/// What a call leads to.
pub(super) fn write(cache: &mut Cache, hole: Hole, next: u64, rip: u64, through: Through) {
    let e = &mut cache.emitter;
    let (site, aside) = (offset(hole.address() - 1), offset(e.here()));
    e.fill_here(hole);
    stubs::original_return_address(e, next);
    let (jump, to_constant) = compare(e, through);
    let guess = Guess { through, site, aside, to_constant, jump };
    leave(cache, rip, guess);
    look_up(cache, rip, through, true);
    cache.emitter.jump_through(JUMP);
}

/// A jump: where it is a switch, the look-up follows without a jump over what it was compared with first.
pub(super) fn write_jump(cache: &mut Cache, rip: u64, through: Through) {
    let site = offset(cache.emitter.here());
    let to_comparison = cache.emitter.jump_hole();
    look_up(cache, rip, through, false);
    let e = &mut cache.emitter;
    e.jump_through(JUMP);
    e.fill_here(to_comparison);
    let (jump, to_constant) = compare(e, through);
    let guess = Guess { through, site, aside: 0, to_constant, jump };
    leave(cache, rip, guess);
}

/// Goes to what is filled in later; until then, and if the target is another, to what comes next. `rcx` is compared, of which a target cannot
/// lie there. Answers where the displacement of the jump is, and how far behind the constant.
fn compare(e: &mut Emitter, through: Through) -> (u32, u8) {
    e.store(SAVED_RCX, RCX);
    let begin = e.here();
    let other = unless_equal(e, through, 1);
    let jump = e.jump_hole();
    e.fill_here(jump);
    e.fill_here(other);
    e.load(RCX, SAVED_RCX);
    assert_eq!(e.here() - jump.address(), to_exit(), "the layout is known");
    let constant = begin + 2 + if through.is_lent() { lent() } else { 0 };
    (offset(jump.address()), u8::try_from(jump.address() - constant).expect("it is near"))
}

/// The exit.
fn leave(cache: &mut Cache, rip: u64, guess: Guess) {
    let number = cache.exit(Exit::Guess { rip, guess });
    stubs::exit_stub(&mut cache.emitter, number);
}

/// The jump is taken, with `rcx` still in its word, if it does not go through what `negative` is the negative of. No flag
/// is touched.
pub(super) fn unless_equal(e: &mut Emitter, through: Through, negative: u64) -> Hole {
    let register = match through {
        Through::Register(register) => register,
        Through::Word => R11,
    };
    if through == Through::Word {
        e.store(SAVED_R11, R11);
        e.load(R11, TARGET);
    } else if register == R13 {
        counter::lend(e);
    }
    e.constant(RCX, negative);
    e.bytes(&[0x48 | register.0 >> 3 << 1, 0x8D, 0x0C, (register.0 & 7) << 3 | 1]); // lea rcx, [rcx+register]
    if through == Through::Word {
        e.load(R11, SAVED_R11);
    } else if register == R13 {
        counter::take(e, false);
    }
    e.bytes(&[0xE3, 5]); // jrcxz over the jump
    let other = e.jump_hole();
    e.load(RCX, SAVED_RCX);
    other
}

/// Leaves the translation of the target in `scratch.jump`, by the table. `pushed` says that the return address is pushed already.
fn look_up(cache: &mut Cache, rip: u64, through: Through, pushed: bool) {
    let miss = cache.exit(Exit::IndirectMiss { rip, found: 0, pushed });
    let e = &mut cache.emitter;
    e.store(SAVED_RCX, RCX);
    e.store(SAVED_RDX, RDX);
    match through {
        Through::Register(R13) => {
            e.load(RCX, DRIVER_R13);
            e.store(TARGET, RCX);
        }
        Through::Register(register) => e.store(TARGET, register),
        Through::Word => {}
    }
    stubs::look_up_jump(e, TARGET, stubs::restore_rcx_rdx, |e| stubs::exit_stub(e, miss));
    let found = e.here();
    cache.exits[miss as usize] = Exit::IndirectMiss { rip, found, pushed };
}

/// The first call or jump of a site: goes there, and so will the next ones. Of a jump also the first that goes elsewhere: from then on all
/// are looked up.
pub(crate) fn learn(frame: &mut Frame, rip: u64, guess: Guess) -> Flow<u64> {
    frame.rip = rip;
    let translator = &state().translator;
    let generation = translator.generation();
    let target = guess.through.target(frame);
    let translated = if guess.is_call() { go_on_pushed(frame, target)? } else { go_on(frame, target)? };
    if translator.generation() == generation {
        let guessed = Guessed { rip, target, jump: at(guess.jump), translated, inlined: None };
        translator.with(|cache| guess.fill_in(cache, guessed));
    }
    Ok(translated)
}

impl Guess {
    fn is_call(&self) -> bool {
        self.aside != 0
    }

    fn fill_in(self, cache: &mut Cache, mut guessed: Guessed) {
        let Guessed { rip, target, jump, translated, .. } = guessed;
        if !self.is_call() && cache.guesses.iter().any(|known| known.jump == jump) {
            return emitter::patch_nothing(at(self.site));
        }
        emitter::patch_constant(jump - u64::from(self.to_constant), 0u64.wrapping_sub(target));
        emitter::patch_displacement(jump, translated);
        if self.is_call() {
            let exit = jump + to_exit();
            emitter::patch_jump(exit, exit + stubs::EXIT_STUB);
            shorten(cache, rip, self, target);
            let place = (rip, at(self.site), at(self.aside));
            guessed.inlined = leaves::inline(cache, place, self.through, target);
        }
        cache.guesses.push(guessed);
    }
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
    let pad = at(guess.site) + emitter::JUMP_BYTES;
    cache.emitter.align(32);
    let mut builder = Builder::empty(cache, vec![rip], 1);
    let start = builder.start;
    builder.cache.emitter.store(SAVED_RCX, RCX);
    let other = unless_equal(&mut builder.cache.emitter, guess.through, 0u64.wrapping_sub(target));
    builder.map(0, Saved::Untried);
    let rest = inline::write(&mut builder.cache.emitter, short, next);
    builder.cache.emitter.jump(pad + stubs::RESTORED);
    builder.finish();
    let e = &mut cache.emitter;
    let retry = rest.write(e);
    if let Through::Register(register @ (RAX | R10 | R11)) = guess.through {
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
    let hole = calls::write_call(cache, call, Saved::CallThrough(guess.through));
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
