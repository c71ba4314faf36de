//! A block that ends in a call. A call site has exactly one translated copy, with a landing pad behind it, so that returns
//! are predicted. A short call ([`crate::translate::short`]) is done in the block, and the call itself stands aside.

use iced_x86::{Decoder, Instruction, Register};

use super::aside::Aside;
use super::{Builder, Way};
use crate::machine::state;
use crate::memory;
use crate::translate::cache::{Cache, Saved};
use crate::translate::classify::{Class, classify};
use crate::translate::emitter::Hole;
use crate::translate::short::ShortExport;
use crate::translate::short::inline::{self, Rest};
use crate::translate::stubs;
use crate::translate::table::{self, Column};
use crate::windows::PAGE;

/// Where a call was translated: there is no second copy of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::translate) struct Site {
    start: u64,
    /// It has charged the jump that the call leads to.
    follows: bool,
}

/// A `jmp [slot]` that a call leads to, as linkers make for calls that compilers did not know for imports of what is short: the
/// block of the call follows it, and charges it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stub {
    pub(super) rip: u64,
    export: u64,
    short: ShortExport,
}

impl Stub {
    /// Of a block that ends in this call.
    pub(super) fn of(cache: &mut Cache, call: &Instruction) -> Option<Self> {
        let site = cache.call_sites.get(&call.next_ip());
        let rip = call.near_branch64();
        if is_looked_at() || !table::covers(call.ip()) || site.is_some_and(|site| !site.follows) {
            return None;
        }
        let jump = jump_at(cache, rip)?;
        let export = import(cache, &jump)?;
        let short = cache.short(export)?;
        cache.relies_on(rip);
        Some(Self { rip, export, short })
    }
}

/// Whether each access is looked at: then no call is done in its block.
pub(super) fn is_looked_at() -> bool {
    state().looks_at_accesses()
}

/// The `jmp [slot]` at `target`, if the guest need not be called before it.
fn jump_at(cache: &mut Cache, target: u64) -> Option<Instruction> {
    let fetched = &mut cache.workshop.fetched;
    if !table::covers(target) || fetched.fetch(target).is_err() {
        return None;
    }
    let offset = memory::usize_of(target & (PAGE - 1));
    let bytes = fetched.instruction(offset);
    let jump = Decoder::with_ip(64, &bytes, target, 0).decode();
    let whole = offset + jump.len() <= memory::usize_of(PAGE);
    let asks = cache.asks_before(&jump) || cache.sites.contains(&target);
    let is_it = whole && !asks && classify(&jump) == Class::JumpIndirect;
    is_it.then_some(jump)
}

/// The export that `call [slot]` or `jmp [slot]` goes to, for a slot in an import table.
pub(super) fn import(cache: &mut Cache, instruction: &Instruction) -> Option<u64> {
    let plain = instruction.is_ip_rel_memory_operand() && instruction.memory_segment() == Register::DS;
    if plain { cache.import(instruction.ip_rel_memory_address()) } else { None }
}

impl Builder<'_> {
    /// The one translated copy of the call, with the landing pad behind it. `stub` is what it leads to, if the block's head has
    /// charged that.
    pub(super) fn terminate_call(&mut self, instruction: &Instruction, index: usize) {
        let (from, next) = (instruction.ip(), instruction.next_ip());
        let follows = self.stub.is_some();
        match self.cache.call_sites.get(&next) {
            Some(site) if site.follows == follows => {
                let start = site.start;
                return self.cache.emitter.jump(start);
            }
            Some(_) => {}
            None => {
                let start = self.cache.emitter.here();
                self.cache.call_sites.insert(next, Site { start, follows });
            }
        }
        let direct = match (self.stub, classify(instruction)) {
            (Some(stub), _) => Some(stub.export),
            (None, Class::Call) => Some(instruction.near_branch64()),
            _ => import(self.cache, instruction),
        };
        if let Some(target) = direct
            && let Some(short) = self.short(target)
        {
            return self.short_call(index, Way { to: target, from }, short, next);
        }
        let target = direct.map(|to| Way { to, from }).ok_or_else(|| self.through(instruction, index));
        self.map(index, target.map_or_else(Saved::CallThrough, |_| Saved::Nothing));
        let hole = call(self.cache, next);
        self.on = Some(Way { to: next, from });
        self.asides.push(match target {
            Ok(target) => Aside::Thunk { hole, next, target },
            Err(through) => Aside::Guess { hole, next, rip: from, through },
        });
    }

    /// What a call of `target` does, if that can be done in the block.
    fn short(&self, target: u64) -> Option<ShortExport> {
        let short = self.stub.map(|stub| stub.short).or_else(|| self.cache.short(target));
        short.filter(|_| !is_looked_at() && !self.is_far())
    }

    /// A short call, and aside from it the call.
    fn short_call(&mut self, index: usize, target: Way, short: ShortExport, next: u64) {
        self.map(index, Saved::Untried);
        let rest = inline::write(&mut self.cache.emitter, short, next);
        self.on = Some(Way { to: next, from: target.from });
        let (block, charged) =
            (self.start, self.block.charged - u32::try_from(index).expect("a block is short"));
        self.asides.push(Aside::Call { rest, block, charged, next, target });
    }

    /// A call whose stub is not reached any more: the slice ends in front of it.
    pub(super) fn call_and_end(&mut self, call: &Instruction, index: usize) {
        self.map(index, Saved::Nothing);
        let e = &mut self.cache.emitter;
        let hole = e.call_hole();
        e.fill_here(hole);
        stubs::original_return_address(e, call.next_ip());
        self.end_slice(call.near_branch64());
    }
}

/// A call that stands aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordinary {
    pub(super) rip: u64,
    pub(super) next: u64,
    /// Its head has charged so many instructions that have not retired.
    pub(super) charged: u32,
}

/// The call of a block whose short one cannot be done.
pub(super) fn write_ordinary(cache: &mut Cache, rest: Rest, block: u64, call: Ordinary) -> Hole {
    let retry = rest.write(&mut cache.emitter);
    if let Some(block) = cache.blocks.beginning_at(block) {
        block.retry = retry;
    }
    write_call(cache, call, Saved::Nothing)
}

/// A call aside from its block. Answers what leads to its thunk.
pub(super) fn write_call(cache: &mut Cache, ordinary: Ordinary, saved: Saved) -> Hole {
    let mut builder = Builder::empty(cache, vec![ordinary.rip], ordinary.charged);
    builder.map(0, saved);
    let hole = call(builder.cache, ordinary.next);
    builder.finish();
    hole
}

/// `call ?` with the landing pad behind it, where a return to `next` is entered.
fn call(cache: &mut Cache, next: u64) -> Hole {
    let hole = cache.emitter.call_hole();
    let pad = cache.emitter.here();
    stubs::restore_return_address(&mut cache.emitter, next);
    if table::covers(next) {
        table::set(next, Column::Return, pad);
    }
    hole
}
