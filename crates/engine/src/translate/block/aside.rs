//! What does not stand on the straight way of a block is written behind it, and behind the blocks that the straight way
//! leads to: the code that runs most has no jumps over code that runs seldom.
//!
//! So some blocks are made before they are reached: where a conditional jump falls through, where a call returns to, a
//! routine that is called. That changes no count and no answer; a block that cannot be made is left to be reached.

use std::collections::VecDeque;

use super::calls::{self, Ordinary};
use super::guess::{self, Through};
use super::returns::{self, Early};
use super::switches::{self, Unknown};
use super::{Builder, Checks, LONGEST, Source, Way, Written, decode, emit, transaction};
use crate::guest::FaultKind;
use crate::translate::cache::Cache;
use crate::translate::emitter::Hole;
use crate::translate::exit::Exit;
use crate::translate::short::inline::Rest;
use crate::translate::stubs;
use crate::windows::{CACHE, PAGE};

/// Code that stands aside, and the jump that leads to it.
pub(super) enum Aside {
    /// The slice ends in the block at `rip`.
    Slice { hole: Hole, flags_live: bool, rip: u64, charged: u32 },
    /// A branch that is taken.
    Branch { hole: Hole, way: Way },
    /// The call that ends `block`, which has done a short one instead.
    Call { rest: Rest, block: u64, charged: u32, next: u64, target: Way },
    /// What a call does once it has pushed its landing pad.
    Thunk { hole: Hole, next: u64, target: Way },
    /// What a call through a register or memory does once it has pushed its landing pad.
    Guess { hole: Hole, next: u64, rip: u64, through: Through },
    /// The end of `block` without the early look-up of its return address.
    Return { holes: [Hole; 2], block: u64, early: Early, source: Source },
    /// A switch to an address that is not known.
    Switch(Unknown),
    /// Of the checked translation.
    Checks(Checks),
}

/// Asides to be written, and how many blocks may still be made ahead.
pub(super) struct Asides {
    waiting: VecDeque<Aside>,
    blocks: usize,
}

impl Asides {
    pub(super) fn new(cache: &mut Cache, blocks: usize) -> Self {
        Self { waiting: std::mem::take(&mut cache.workshop.waiting), blocks }
    }

    /// Translates the block at `pc` to here, and the blocks that follow on the straight way.
    pub(super) fn stretch(&mut self, cache: &mut Cache, pc: u64) -> Result<u64, FaultKind> {
        let written = self.block(cache, pc)?;
        self.go_on(cache, written.on, pc);
        Ok(written.start)
    }

    /// Translates a block, and enters it in the table.
    fn block(&mut self, cache: &mut Cache, pc: u64) -> Result<Written, FaultKind> {
        let written = self.copy(cache, pc)?;
        cache.enter(pc, written.start);
        Ok(written)
    }

    /// Translates a block.
    fn copy(&mut self, cache: &mut Cache, pc: u64) -> Result<Written, FaultKind> {
        self.blocks = self.blocks.saturating_sub(1);
        let source = decode(cache, pc, LONGEST)?;
        let written = transaction(cache, |cache| emit(cache, pc, &source));
        cache.workshop.source = source;
        let mut written = written?;
        self.waiting.extend(written.asides.drain(..));
        cache.workshop.asides = std::mem::take(&mut written.asides);
        Ok(written)
    }

    /// The straight way from the block at `pc`.
    fn go_on(&mut self, cache: &mut Cache, mut on: Option<Way>, mut pc: u64) {
        while let Some(way) = on {
            let near = way.to & !(PAGE - 1) == pc & !(PAGE - 1);
            match if near { self.ahead(cache, way) } else { None } {
                Some(written) => (on, pc) = (written.on, way.to),
                None => return jump(cache, way),
            }
        }
    }

    /// Translates the block at the end of `way` to here, if that can be done now. One that ends in a switch has a copy behind each
    /// that leads straight to it: what comes to it goes on by one jump and not by two.
    fn ahead(&mut self, cache: &mut Cache, way: Way) -> Option<Written> {
        let room = cache.emitter.here() + ROOM < CACHE.end();
        if self.blocks == 0 || !room {
            return None;
        }
        let written = match cache.entry(way.to) {
            None => self.block(cache, way.to),
            Some(_) if cache.switches.contains(&way.to) => self.copy(cache, way.to),
            Some(_) => return None,
        };
        written.ok()
    }

    /// Behind a block that nothing else follows.
    pub(super) fn alone(cache: &mut Cache, written: Written) -> u64 {
        let mut asides = Self { waiting: written.asides.into(), blocks: 0 };
        asides.go_on(cache, written.on, written.start);
        asides.write(cache);
        written.start
    }

    /// Writes them all.
    pub(super) fn write(mut self, cache: &mut Cache) {
        while let Some(aside) = self.waiting.pop_front() {
            self.write_one(cache, aside);
        }
        cache.workshop.waiting = self.waiting;
    }

    fn write_one(&mut self, cache: &mut Cache, aside: Aside) {
        match aside {
            Aside::Slice { hole, flags_live, rip, charged } => {
                let e = &mut cache.emitter;
                e.fill_here(hole);
                if flags_live {
                    super::restore_flags(e);
                }
                let cuts = cache.cut(rip, charged);
                stubs::slice_stub(&mut cache.emitter, cuts);
            }
            Aside::Branch { hole, way } => match cache.entry(way.to) {
                Some(translated) => cache.emitter.fill(hole, translated),
                None => {
                    let here = cache.emitter.here();
                    cache.emitter.fill(hole, here);
                    chain(cache, way, Some(hole));
                }
            },
            Aside::Call { rest, block, charged, next, target } => {
                let from = target.from;
                let call = Ordinary { rip: from, next, charged };
                let hole = calls::write_ordinary(cache, rest, block, call);
                jump(cache, Way { to: next, from });
                self.waiting.push_back(Aside::Thunk { hole, next, target });
            }
            Aside::Thunk { hole, next, target } => {
                cache.emitter.align(32);
                cache.emitter.fill_here(hole);
                stubs::original_return_address(&mut cache.emitter, next);
                match self.ahead(cache, target) {
                    Some(written) => self.go_on(cache, written.on, target.to),
                    None => jump(cache, target),
                }
            }
            Aside::Guess { hole, next, rip, through } => guess::write(cache, hole, next, rip, through),
            Aside::Return { holes, block, early, source } => {
                returns::write_plain(cache, holes, block, early, &source);
            }
            Aside::Switch(unknown) => switches::write_exit(cache, &unknown),
            Aside::Checks(checks) => checks.finish(&mut cache.emitter),
        }
    }
}

/// A cache with less than this left takes no block that need not be there.
const ROOM: u64 = 32 << 10;

/// Goes on at an original address: straight if it is translated, else by an exit that is patched away.
fn jump(cache: &mut Cache, way: Way) {
    match cache.entry(way.to) {
        Some(translated) => cache.emitter.jump(translated),
        None => chain(cache, way, None),
    }
}

/// The exit; `hole` is of a conditional jump that leads to it.
fn chain(cache: &mut Cache, way: Way, hole: Option<Hole>) {
    let offset = |address: u64| u32::try_from(address - CACHE.base).expect("the cache is smaller than 4 GiB");
    let stub = offset(cache.emitter.here());
    let branch = hole.map_or(0, |hole| offset(hole.address()));
    let number = cache.exit(Exit::Chain { target: way.to, stub, branch, from: way.from });
    stubs::exit_stub(&mut cache.emitter, number);
}

impl Builder<'_> {
    /// Lets a jump lead to an original address.
    pub(super) fn branch(&mut self, hole: Hole, way: Way) {
        match self.cache.entry(way.to) {
            Some(translated) => self.cache.emitter.fill(hole, translated),
            None => self.asides.push(Aside::Branch { hole, way }),
        }
    }
}
