//! Makes one translated block from original bytes: decode up to a branch, copy what may be copied, end in an exit or
//! a chained jump.
//!
//! A block charges its length at its head. Instruction bytes are copied as they are; only RIP-relative operands and
//! branches are encoded anew. A call site has exactly one translated copy, so that returns are predicted.

mod aside;
mod branches;
mod calls;
pub(super) mod counter;
mod fetched;
pub(super) mod guess;
mod inline;
mod leaves;
mod returns;
mod switches;

use std::collections::VecDeque;

use aside::{Aside, Asides};
pub(super) use calls::Site;
use calls::Stub;
use fetched::Fetched;
use iced_x86::{Decoder, DecoderError, Encoder, Instruction};
use returns::Early;
use switches::Switch;

use super::blocks::Block;
use super::cache::{Cache, MapEntry, Saved};
use super::callout::Level;
use super::checked::Checks;
use super::classify::{Class, classify, is_direct_jump, rare_state};
use super::cuts::LONGEST;
use super::emitter::condition::LESS;
use super::emitter::{Emitter, Hole, RAX, RCX};
use super::exit::Exit;
use super::extended::Tested;
use super::flags::Live;
use super::scratch::{HEAD_RAX, RCX as SAVED_RCX, scratch};
use super::table;
use super::{places, site, stubs};
use crate::guest::FaultKind;
use crate::machine::state;
use crate::memory;
use crate::processor;
use crate::windows::PAGE;

/// Original code up to a block's end.
#[derive(Clone, Default)]
struct Source {
    instructions: Vec<Instruction>,
    /// Their bytes, and whatever comes behind them.
    bytes: Vec<[u8; 15]>,
    /// What the last instruction is, if it ends the block itself.
    terminator: Option<Class>,
    /// Where execution goes on if nothing ended the block: the next instruction, or a fetch that fails.
    next: u64,
    next_is_bad: bool,
    /// What may be read behind it.
    live_behind: Live,
}

/// What a translation works with, and leaves to the next one: making room anew each time would cost as much as the rest.
#[derive(Default)]
pub(super) struct Workshop {
    fetched: Fetched,
    source: Source,
    asides: Vec<Aside>,
    waiting: VecDeque<Aside>,
}

/// At most so many blocks are translated at once.
const BLOCKS: usize = 6;

impl Source {
    /// Nothing is known yet of the code at `pc`.
    fn begin(&mut self, pc: u64) {
        self.instructions.clear();
        self.bytes.clear();
        (self.terminator, self.next, self.next_is_bad) = (None, pc, false);
        self.live_behind = Live::ALL;
    }

    /// Where execution goes on behind it, if that is certain.
    fn leads_to(&self) -> Option<u64> {
        match self.terminator {
            None => Some(self.next),
            Some(Class::Call | Class::Jump) => self.instructions.last().map(Instruction::near_branch64),
            Some(_) => None,
        }
    }

    fn is_new(&self, target: u64) -> bool {
        self.instructions.iter().all(|instruction| instruction.ip() != target)
    }
}

/// So many direct jumps a block follows to their targets instead of ending there.
const JUMPS: usize = 2;

/// Translates the block at `pc`, and some that the straight way from it leads to; enters them in the table.
pub(crate) fn translate(cache: &mut Cache, pc: u64) -> Result<u64, FaultKind> {
    cache.emitter.align(64);
    cache.workshop.fetched.forget();
    // Where it is kept what driver code has come to, nothing is made before it is.
    let blocks = if cache.reached.is_some() { 0 } else { BLOCKS };
    let mut asides = Asides::new(cache, blocks);
    let start = asides.stretch(cache, pc)?;
    asides.write(cache);
    Ok(start)
}

/// Translates the first `count` instructions at `pc`, which all run on (a loop's rounds, which may be left early); ends in an
/// exact exit, and goes on where the block does.
pub(crate) fn translate_truncated(cache: &mut Cache, pc: u64, count: usize) -> Result<u64, FaultKind> {
    if count == 0 {
        let mut builder = Builder::empty(cache, vec![pc], 0);
        builder.end_slice(pc);
        let written = builder.finish();
        return Ok(Asides::alone(cache, written));
    }
    cache.workshop.fetched.forget();
    let whole = decode(cache, pc, LONGEST)?;
    let written = transaction(cache, |cache| {
        if count >= whole.instructions.len() && whole.terminator != Some(Class::Call) {
            let mut builder = Builder::begin(cache, &whole, count);
            builder.go_round(&whole, count, After::EndOfSlice)?;
            return Ok(builder.finish());
        }
        if count == whole.instructions.len() && whole.terminator == Some(Class::Call) {
            let mut builder = Builder::begin(cache, &whole, count);
            builder.copy(&whole, count - 1)?;
            builder.call_and_end(&whole.instructions[count - 1], count - 1);
            return Ok(builder.finish());
        }
        let source = decode(cache, pc, count)?;
        let mut builder = Builder::begin(cache, &source, count);
        builder.copy_all(&source)?;
        builder.end_slice(source.next);
        Ok(builder.finish())
    })?;
    Ok(Asides::alone(cache, written))
}

/// A body for an instruction at a learned site: itself, or one that refers to the scratch page instead of memory.
pub(crate) fn translate_site(cache: &mut Cache, original: &Instruction, body: &Instruction) -> u64 {
    let mut builder = Builder::begin_uncharged(cache, original);
    let class = classify(original);
    if matches!(class, Class::CallIndirect | Class::JumpIndirect) {
        builder.terminate_unasked(class, original, &[0; 15], 0);
        let written = builder.finish();
        return Asides::alone(cache, written);
    }
    builder.map(0, Saved::Nothing);
    if builder.encode_alone(body, 0).is_ok() {
        let decoded = builder.cache.keep(original);
        builder.exit(Exit::SiteDone { decoded });
    } else {
        let decoded = builder.cache.keep(original);
        builder.exit(Exit::NotImplemented { decoded });
    }
    let written = builder.finish();
    Asides::alone(cache, written)
}

fn decode(cache: &mut Cache, pc: u64, limit: usize) -> Result<Source, FaultKind> {
    cache.workshop.fetched.fetch(pc)?;
    let mut source = std::mem::take(&mut cache.workshop.source);
    source.begin(pc);
    let fetched = &cache.workshop.fetched;
    let cpu = state().cpu.get();
    let page = pc & !(PAGE - 1);
    let mut decoder = Decoder::with_ip(64, fetched.code(), page, cpu.decoding());
    let mut jumps = 0;
    go_to(&mut decoder, pc);
    while source.instructions.len() < limit {
        if source.next & !(PAGE - 1) != page {
            break;
        }
        let position = decoder.position();
        let instruction = cpu.understood(decoder.decode());
        if decoder.last_error() == DecoderError::NoMoreBytes {
            source.next_is_bad = true;
            break;
        }
        source.instructions.push(instruction);
        source.bytes.push(fetched.instruction(position));
        source.next = instruction.next_ip();
        scratch().uses(rare_state(&instruction));
        let class = classify(&instruction);
        let called_out = cache.sites.contains(&instruction.ip()) && !site::is_inline(&instruction)
            || cache.asks_before(&instruction);
        let target = instruction.near_branch64();
        if target != 0 && target & !(PAGE - 1) != page {
            cache.jumps.push((instruction.ip(), target));
        }
        if class == Class::Jump && jumps < JUMPS && source.is_new(target) && target & !(PAGE - 1) == page {
            jumps += 1;
            source.next = target;
            go_to(&mut decoder, target);
            continue;
        }
        if !matches!(class, Class::Plain | Class::Level) || called_out {
            source.terminator = Some(class);
            break;
        }
    }
    if source.next & !(PAGE - 1) != page {
        cache.jumps.push((pc, source.next));
    }
    if let Some(next) = source.leads_to().filter(|next| next & !(PAGE - 1) == page) {
        source.live_behind = live_at(&mut decoder, next);
    }
    if source.instructions.is_empty() { Err(FaultKind::Execute) } else { Ok(source) }
}

/// So many instructions behind a block are looked at.
const LOOKED_AT: usize = 12;

/// Which flags may be read from `pc` on, on the decoder's page: should its bytes change, all translations are made anew.
fn live_at(decoder: &mut Decoder<'_>, pc: u64) -> Live {
    go_to(decoder, pc);
    let page = pc & !(PAGE - 1);
    let (mut ahead, mut count) = ([Instruction::default(); LOOKED_AT], 0);
    for place in &mut ahead {
        let instruction = decoder.decode();
        let next = match classify(&instruction) {
            Class::Plain => instruction.next_ip(),
            Class::Jump | Class::Call => instruction.near_branch64(),
            _ => break,
        };
        *place = instruction;
        count += 1;
        if next & !(PAGE - 1) != page {
            break;
        }
        go_to(decoder, next);
    }
    Live::ALL.before(&ahead[..count])
}

/// Lets the decoder, which stands in a page of code, go on at `pc` of that page.
fn go_to(decoder: &mut Decoder<'_>, pc: u64) {
    decoder.set_position(memory::usize_of(pc & (PAGE - 1))).expect("the page is there");
    decoder.set_ip(pc);
}

/// How many rounds of a block that is a loop are charged at once: of a short round the head would be a good part.
fn rounds(source: &Source, pc: u64) -> usize {
    let length = source.instructions.len();
    let loops = source.terminator == Some(Class::JumpIf)
        && source.instructions.last().is_some_and(|last| last.near_branch64() == pc);
    if loops { (LONGEST / length).clamp(1, 8) } else { 1 }
}

/// Takes back what was written if it cannot be finished.
fn transaction<T>(
    cache: &mut Cache,
    write: impl FnOnce(&mut Cache) -> Result<T, FaultKind>,
) -> Result<T, FaultKind> {
    let begin = cache.emitter.here();
    let exits = cache.exits.len();
    let result = write(cache);
    if result.is_err() {
        cache.emitter.roll_back(begin);
        cache.exits.truncate(exits);
    }
    result
}

fn emit(cache: &mut Cache, pc: u64, source: &Source) -> Result<Written, FaultKind> {
    let length = source.instructions.len();
    let rounds = rounds(source, pc);
    let stub = match (source.terminator, source.instructions.last()) {
        (Some(Class::Call), Some(call)) => Stub::of(cache, call),
        _ => None,
    };
    let followed = usize::from(stub.is_some());
    let mut builder = Builder::begin(cache, source, rounds * length + followed);
    if let Some(stub) = stub {
        builder.stub = Some(stub);
        builder.block.instructions.push(stub.rip);
    }
    let Some(class) = source.terminator else {
        builder.copy_all(source)?;
        if source.next_is_bad {
            builder.exit(Exit::BadFetch { rip: source.next });
        } else {
            let from = source.instructions.last().map_or(pc, Instruction::ip);
            builder.on = Some(Way { to: source.next, from });
        }
        return Ok(builder.finish());
    };
    let last = source.instructions.len() - 1;
    if rounds > 1 {
        builder.go_round(source, rounds * length, After::Again)?;
        return Ok(builder.finish());
    }
    if class == Class::Return && builder.checks.is_none() {
        builder.early = returns::early(builder.cache, &source.instructions);
    }
    if class == Class::JumpIndirect
        && builder.checks.is_none()
        && let Some(switch) = Switch::of(builder.cache, &source.instructions)
    {
        builder.copy(source, last - 1)?;
        builder.switch(switch, source);
        builder.cache.switches.insert(pc);
        return Ok(builder.finish());
    }
    builder.copy(source, last)?;
    builder.terminate(class, &source.instructions[last], &source.bytes[last], last);
    Ok(builder.finish())
}

/// What comes after the rounds of a loop that one head has charged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The head, and more rounds.
    Again,
    /// A part of a round, and the end of the slice.
    EndOfSlice,
}

/// A block being written.
struct Builder<'c> {
    cache: &'c mut Cache,
    start: u64,
    block: Block,
    flags_live: bool,
    /// The register of the countdown is the driver's.
    lent: bool,
    /// The head's jump at the end of a slice, and whether flags are saved there.
    slice_hole: Option<(Hole, bool)>,
    /// Instructions of the rounds before the one that is being written.
    before: usize,
    /// Of the checked translation.
    checks: Option<Checks>,
    tested: Tested,
    /// Where the target of the block's `ret` is looked up, if not there.
    early: Option<Early>,
    /// Where the block's call leads to, if that was charged too.
    stub: Option<Stub>,
    /// Where the straight way goes on behind the block.
    on: Option<Way>,
    asides: Vec<Aside>,
}

/// A direct branch in original code: its target, and the branch.
#[derive(Clone, Copy)]
struct Way {
    to: u64,
    from: u64,
}

/// A block as it was written, but for what stands aside from it.
struct Written {
    start: u64,
    on: Option<Way>,
    asides: Vec<Aside>,
}

impl<'c> Builder<'c> {
    /// A block of these instructions whose head charges `count`.
    fn begin(cache: &'c mut Cache, source: &Source, count: usize) -> Self {
        let charged = u32::try_from(count).expect("a block is short");
        let instructions = &source.instructions;
        let mut builder = Self::empty(cache, instructions.iter().map(Instruction::ip).collect(), charged);
        builder.flags_live = source.live_behind.before(instructions).any();
        builder.checks = Checks::new(builder.cache, builder.block.instructions[0], source.live_behind);
        builder.head();
        builder
    }

    fn begin_uncharged(cache: &'c mut Cache, instruction: &Instruction) -> Self {
        Self::empty(cache, vec![instruction.ip()], 1)
    }

    fn empty(cache: &'c mut Cache, instructions: Vec<u64>, charged: u32) -> Self {
        let start = cache.emitter.here();
        let map = Vec::with_capacity(instructions.len() + 2);
        let block = Block { start, end: start, charged, instructions, map, retry: 0 };
        let asides = std::mem::take(&mut cache.workshop.asides);
        Self {
            cache,
            start,
            block,
            flags_live: false,
            lent: false,
            slice_hole: None,
            before: 0,
            checks: None,
            tested: Tested::default(),
            early: None,
            stub: None,
            on: None,
            asides,
        }
    }

    /// `sub r13, n; jl ?`, with the flags around it saved where they are live.
    fn head(&mut self) {
        let count = u8::try_from(self.block.charged).expect("a block is short");
        self.save_flags();
        let e = &mut self.cache.emitter;
        e.count_down(count);
        self.slice_hole = Some((e.jump_if_hole(LESS), self.flags_live));
        self.restore_flags();
    }

    fn save_flags(&mut self) {
        if self.flags_live {
            save_flags(&mut self.cache.emitter);
        }
    }

    fn restore_flags(&mut self) {
        if self.flags_live {
            restore_flags(&mut self.cache.emitter);
        }
    }

    fn map(&mut self, index: usize, saved: Saved) {
        let at = self.cache.emitter.here();
        let index = u32::try_from(self.before + index).expect("a block is short");
        self.block.map.push(MapEntry { at, index, saved });
    }

    fn copy_all(&mut self, source: &Source) -> Result<(), FaultKind> {
        self.copy(source, source.instructions.len())
    }

    /// Copies the first `count` instructions.
    fn copy(&mut self, source: &Source, count: usize) -> Result<(), FaultKind> {
        self.copy_from(source, 0, count)
    }

    fn copy_from(&mut self, source: &Source, begin: usize, end: usize) -> Result<(), FaultKind> {
        for (index, instruction) in source.instructions[..end].iter().enumerate().skip(begin) {
            if let Some(early) = self.early.filter(|early| early.before == index) {
                self.return_early(early, source);
            }
            if let Some(level) = Level::of(instruction) {
                let flags_live = source.live_behind.before(&source.instructions[index + 1..]).any();
                self.level(level, flags_live, self.ahead(index));
                if let Some(checks) = &mut self.checks {
                    checks.begin_anew();
                }
                continue;
            }
            if is_direct_jump(instruction) {
                continue; // what it leads to is next
            }
            let ahead = self.ahead(index);
            self.tested.before(self.cache, instruction, ahead);
            let learned = self.cache.sites.contains(&instruction.ip());
            self.check(&source.instructions[index..], index, learned);
            let device = if learned { Some(self.device_test(instruction)?) } else { None };
            self.map(index, Saved::Nothing);
            if counter::names(instruction) {
                self.encode_naming(instruction, index)?;
            } else if instruction.is_ip_rel_memory_operand() || processor::encoded_anew(instruction) {
                self.encode_here(instruction, index)?;
            } else {
                self.cache.emitter.instruction(&source.bytes[index], instruction.len());
            }
            self.forget_places(instruction, index)?;
            if let Some(device) = device {
                self.device_exit(device, instruction, self.ahead(index));
                // An interrupt may have come between, and driver code goes on in this block.
                self.tested = Tested::default();
                if let Some(checks) = &mut self.checks {
                    checks.begin_anew();
                }
            }
        }
        Ok(())
    }

    /// An instruction that ends its block, or is all of it.
    fn encode_alone(&mut self, instruction: &Instruction, index: usize) -> Result<(), FaultKind> {
        if counter::names(instruction) {
            self.encode_naming(instruction, index)?;
        } else {
            self.encode_here(instruction, index)?;
        }
        self.forget_places(instruction, index)
    }

    /// See [`places`].
    fn forget_places(&mut self, instruction: &Instruction, index: usize) -> Result<(), FaultKind> {
        places::forget(instruction).try_for_each(|store| self.encode_here(&store, index))
    }

    /// In a checked machine: tests what the first of these instructions will touch.
    fn check(&mut self, instructions: &[Instruction], index: usize, site: bool) {
        if let Some(checks) = &mut self.checks {
            checks.before(self.cache, &mut self.block, instructions, self.before + index, site);
        }
    }

    /// A block that is a loop: `count` instructions of it behind one head, `after` which it goes on. Where the loop is left early, what was charged and has not run is given back, without touching
    /// a flag.
    fn go_round(&mut self, source: &Source, count: usize, after: After) -> Result<(), FaultKind> {
        let length = source.instructions.len();
        let last = &source.instructions[length - 1];
        let condition = last.condition_code() as u8 - 1;
        let (rounds, rest) = (count / length, count % length);
        let mut left_early = Vec::new();
        for round in 1..=rounds {
            self.before = (round - 1) * length;
            self.copy(source, length - 1)?;
            self.map(length - 1, Saved::Nothing);
            left_early.push((self.cache.emitter.jump_if_hole(condition ^ 1), count - round * length));
        }
        match after {
            After::Again => self.cache.emitter.jump(self.start),
            After::EndOfSlice => {
                self.before = rounds * length;
                self.copy(source, rest)?;
                self.end_slice(source.instructions[rest].ip());
            }
        }
        let e = &mut self.cache.emitter;
        let mut out = Vec::new();
        for (hole, unused) in left_early {
            if unused == 0 {
                out.push(hole);
                continue;
            }
            e.fill_here(hole);
            e.count_up(u8::try_from(unused).expect("a block is short"));
            out.push(e.jump_hole());
        }
        out.into_iter().for_each(|hole| e.fill_here(hole));
        self.on = Some(Way { to: last.next_ip(), from: last.ip() });
        Ok(())
    }

    /// How many instructions the head has charged that come after the one with this index.
    fn ahead(&self, index: usize) -> u8 {
        let upto = u32::try_from(self.before + index + 1).expect("a block is short");
        u8::try_from(self.block.charged - upto).expect("a block is short")
    }

    /// Whether the original lies out of reach of a displacement: code in pool, and not in an image.
    fn is_far(&self) -> bool {
        !table::covers(self.block.instructions[0])
    }

    /// Encodes an instruction anew at this place.
    fn encode(&mut self, instruction: &Instruction) -> Result<(), FaultKind> {
        let mut encoder = Encoder::new(64);
        match encoder.encode(instruction, self.cache.emitter.here()) {
            Ok(_) => {
                self.cache.emitter.bytes(&encoder.take_buffer());
                Ok(())
            }
            Err(_) => Err(FaultKind::NotImplemented),
        }
    }

    /// Leaves to the host; execution comes back wherever the exit's handler says.
    fn exit(&mut self, exit: Exit) {
        let number = self.cache.exit(exit);
        stubs::exit_stub(&mut self.cache.emitter, number);
    }

    /// The slice ends here, in front of the instruction at `rip`; then it goes on there.
    fn end_slice(&mut self, rip: u64) {
        let number = self.cache.exit(Exit::SliceEnded { rip });
        self.cache.emitter.store(SAVED_RCX, RCX);
        stubs::access_stub(&mut self.cache.emitter, number);
        let on = self.cache.emitter.jump_hole();
        self.branch(on, Way { to: rip, from: rip });
    }

    /// As [`Self::exit`], for one that needs the instruction.
    fn exit_with(&mut self, instruction: &Instruction, exit: impl FnOnce(u32) -> Exit) {
        let decoded = self.cache.keep(instruction);
        self.exit(exit(decoded));
    }

    /// The straight way of the block is written.
    fn finish(mut self) -> Written {
        if let Some((hole, flags_live)) = self.slice_hole.take() {
            let (rip, charged) = (self.block.instructions[0], self.block.charged);
            self.asides.push(Aside::Slice { hole, flags_live, rip, charged });
        }
        if let Some(checks) = self.checks.take() {
            self.asides.push(Aside::Checks(checks));
        }
        self.block.end = self.cache.emitter.here();
        if let Some(reached) = &mut self.cache.reached {
            reached.extend(&self.block.instructions);
        }
        self.cache.blocks.insert(self.block);
        Written { start: self.start, on: self.on, asides: self.asides }
    }
}

pub(super) fn save_flags(e: &mut Emitter) {
    e.store(HEAD_RAX, RAX);
    e.bytes(&[0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
}

pub(super) fn restore_flags(e: &mut Emitter) {
    e.bytes(&[0x04, 0x7F, 0x9E]); // add al, 7Fh; sahf
    e.load(RAX, HEAD_RAX);
}
