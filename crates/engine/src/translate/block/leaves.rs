//! A call through a register or memory that goes to a leaf, a short routine that only computes and loads: its translation stands in
//! the place of the call, with neither a call nor a return.
//!
//! What a call stores is stored, and the stack pointer moves, so a fault, the end of a slice and a look at the stack find what they
//! would find after a call. A leaf stores nothing and does not name the stack pointer, so it returns to where it was called from, unseen.
//! Another target goes by the call as it was. In a machine that looks at accesses there are no such calls.

use iced_x86::{Instruction, InstructionInfoFactory, Register};

use super::aside::Asides;
use super::guess::{self, Through};
use super::{Builder, LONGEST, Source, calls, decode};
use crate::translate::cache::{Cache, Saved};
use crate::translate::classify::{Class, classify};
use crate::translate::emitter::{self, RCX};
use crate::translate::extended::extended;
use crate::translate::operands::{touched, writes};
use crate::translate::scratch::RCX as SAVED_RCX;
use crate::translate::{site, stubs, table};
use crate::windows::CACHE;

/// A leaf has at most so many instructions.
const LONGEST_LEAF: usize = 16;
/// A cache with less than this left takes nothing that need not be there.
const ROOM: u64 = 4 << 10;

/// Where a leaf stands in the place of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inlined {
    call: u64,
    /// What the call leads to.
    aside: u64,
    leaf: u64,
}

impl Inlined {
    /// The call is made.
    pub(super) fn suspend(self) {
        emitter::patch_call(self.call, self.aside);
    }

    /// The leaf stands there again.
    pub(super) fn resume(self) {
        emitter::patch_jump(self.call, self.leaf);
    }
}

/// If the call at `rip`, which stands at `call`, goes to a leaf: puts that in its place from now on.
pub(super) fn inline(
    cache: &mut Cache,
    (rip, call, aside): (u64, u64, u64),
    through: Through,
    target: u64,
) -> Option<Inlined> {
    let next = site::instruction_at(rip)?.next_ip();
    let room = cache.emitter.here() + ROOM < CACHE.end();
    if calls::is_looked_at() || !room || !table::covers(next) || !table::covers(target) {
        return None;
    }
    cache.workshop.fetched.forget();
    let source = decode(cache, target, LONGEST).ok()?;
    let leaf = is_leaf(cache, &source).then(|| write(cache, &source, (rip, next, call), through));
    cache.workshop.source = source;
    let leaf = leaf?;
    let hole =
        calls::write_call(cache, calls::Ordinary { rip, next, charged: 1 }, Saved::CallThrough(through));
    cache.emitter.jump(call + emitter::JUMP_BYTES);
    cache.emitter.fill(hole, aside);
    let inlined = Inlined { call, aside, leaf };
    inlined.resume();
    Some(inlined)
}

/// What a call does, and the leaf; another target goes on behind it.
fn write(cache: &mut Cache, source: &Source, (rip, next, call): (u64, u64, u64), through: Through) -> u64 {
    cache.emitter.align(32);
    let mut builder = Builder::empty(cache, vec![rip], 1);
    let start = builder.start;
    builder.cache.emitter.store(SAVED_RCX, RCX);
    let other = guess::unless_equal(
        &mut builder.cache.emitter,
        through,
        0u64.wrapping_sub(source.instructions[0].ip()),
    );
    builder.map(0, Saved::Nothing);
    stubs::push(&mut builder.cache.emitter, next);
    builder.finish();
    let last = source.instructions.len() - 1;
    let mut builder = Builder::begin(cache, source, last + 1);
    builder.copy(source, last).expect("it was encoded before");
    builder.map(last, Saved::Nothing);
    let e = &mut builder.cache.emitter;
    e.bytes(&[0x48, 0x8D, 0x64, 0x24, 0x08]); // lea rsp, [rsp+8]
    e.jump(call + emitter::JUMP_BYTES + stubs::RESTORED);
    let written = builder.finish();
    Asides::alone(cache, written);
    cache.emitter.fill_here(other);
    cache.emitter.load(RCX, SAVED_RCX);
    start
}

fn is_leaf(cache: &Cache, source: &Source) -> bool {
    let Some((_, body)) = source.instructions.split_last() else { return false };
    source.terminator == Some(Class::Return)
        && body.len() < LONGEST_LEAF
        && body.iter().all(|instruction| is_calm(instruction) && !cache.sites.contains(&instruction.ip()))
}

/// Whether it only computes and loads, and does not name the stack pointer.
fn is_calm(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let names_stack = |register: Register| register.full_register() == Register::RSP;
    classify(instruction) == Class::Plain
        && !instruction.is_stack_instruction()
        && !instruction.is_string_instruction()
        && extended(instruction).is_none()
        && !touched(instruction).iter().any(|memory| writes(memory.access()))
        && !factory.info(instruction).used_registers().iter().any(|used| names_stack(used.register()))
}
