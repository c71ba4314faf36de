//! Makes one translated block from original bytes: decode up to a branch, copy what may be copied, end in an exit or
//! a chained jump.
//!
//! A block charges its length at its head. Instruction bytes are copied as they are; only RIP-relative operands and
//! branches are encoded anew. A call site has exactly one translated copy, so that returns are predicted.

use iced_x86::{Decoder, DecoderError, DecoderOptions, Encoder, Instruction};

use super::cache::{Block, Cache, MapEntry, Saved};
use super::classify::{Class, classify};
use super::emitter::{Hole, R11, RAX, RCX, RDX};
use super::exit::Exit;
use super::flags;
use super::scratch::{
    COUNTDOWN, HEAD_RAX, JUMP, R11 as SAVED_R11, RCX as SAVED_RCX, RDX as SAVED_RDX, TARGET,
};
use super::table::{self, Column};
use super::{site, stubs};
use crate::guest::FaultKind;
use crate::machine::state;
use crate::memory::{self, Protection};
use crate::windows::{IMAGES, PAGE};

/// A block's head charges it by an 8-bit immediate.
const LONGEST: usize = 64;

/// Original code up to a block's end.
struct Source {
    instructions: Vec<Instruction>,
    bytes: Vec<[u8; 15]>,
    /// What the last instruction is, if it ends the block itself.
    terminator: Option<Class>,
    /// Where execution goes on if nothing ended the block: the next instruction, or a fetch that fails.
    next: u64,
    next_is_bad: bool,
}

/// Translates the block at `pc` and enters it in the table.
pub(crate) fn translate(cache: &mut Cache, pc: u64) -> Result<u64, FaultKind> {
    let source = decode(cache, pc, LONGEST)?;
    let start = emit(cache, pc, &source)?;
    table::set(pc, Column::Jump, start);
    Ok(start)
}

/// Translates the first `count` instructions at `pc`, which all run on; ends in an exact exit.
pub(crate) fn translate_truncated(cache: &mut Cache, pc: u64, count: u32) -> Result<u64, FaultKind> {
    if let Some(start) = cache.truncated.get(&(pc, count)) {
        return Ok(*start);
    }
    let source = decode(cache, pc, count as usize)?;
    let mut builder = Builder::begin(cache, &source.instructions);
    builder.copy_all(&source)?;
    builder.exit(Exit::SliceEnded { rip: source.next });
    let start = builder.finish();
    cache.truncated.insert((pc, count), start);
    Ok(start)
}

/// A body for an instruction at a learned site: itself, or one that refers to the scratch page instead of memory.
pub(crate) fn translate_site(cache: &mut Cache, original: &Instruction, body: &Instruction) -> u64 {
    let mut builder = Builder::begin_uncharged(cache, original);
    builder.map(0, Saved::Nothing);
    if builder.encode(body).is_ok() {
        builder.exit(Exit::SiteDone { instruction: *original, operand: site::operand(original) });
    } else {
        builder.exit(Exit::NotImplemented { instruction: *original });
    }
    builder.finish()
}

fn decode(cache: &mut Cache, pc: u64, limit: usize) -> Result<Source, FaultKind> {
    let mut code = [0; memory::usize_of(PAGE) + 16];
    let length = fetch(pc, &mut code)?;
    watch(cache, pc);
    let mut decoder = Decoder::with_ip(64, &code[..length], pc, DecoderOptions::NONE);
    let mut source = Source {
        instructions: Vec::new(),
        bytes: Vec::new(),
        terminator: None,
        next: pc,
        next_is_bad: false,
    };
    while source.instructions.len() < limit {
        if source.next & !(PAGE - 1) != pc & !(PAGE - 1) {
            break;
        }
        if cache.sites.contains(&source.next) && !source.instructions.is_empty() {
            break;
        }
        let position = decoder.position();
        let instruction = decoder.decode();
        if decoder.last_error() == DecoderError::NoMoreBytes {
            source.next_is_bad = true;
            break;
        }
        let mut bytes = [0; 15];
        let end = decoder.position();
        bytes[..end - position].copy_from_slice(&code[position..end]);
        source.instructions.push(instruction);
        source.bytes.push(bytes);
        source.next = instruction.next_ip();
        let class = classify(&instruction);
        let site = cache.sites.contains(&instruction.ip());
        if class != Class::Plain || site {
            source.terminator = Some(class);
            break;
        }
    }
    if source.instructions.is_empty() { Err(FaultKind::Execute) } else { Ok(source) }
}

/// Reads original bytes from `pc` to the end of its page, and 15 more if the next page is code too.
fn fetch(pc: u64, code: &mut [u8]) -> Result<usize, FaultKind> {
    let memory = &state().memory;
    if !memory.executable(pc) {
        return Err(FaultKind::Execute);
    }
    if !IMAGES.contains(pc) {
        return Err(FaultKind::NotImplemented);
    }
    let page_end = (pc & !(PAGE - 1)) + PAGE;
    let end = if memory.executable(page_end) { page_end + 15 } else { page_end };
    let length = memory::usize_of(end - pc);
    memory::read(pc, &mut code[..length]).map_err(|_| FaultKind::Execute)?;
    Ok(length)
}

/// If the driver may write to the page it runs from, makes the next write a fault.
fn watch(cache: &mut Cache, pc: u64) {
    let memory = &state().memory;
    let last = pc | (PAGE - 1);
    for page in [pc & !(PAGE - 1), last + 1] {
        if memory.executable(page) && memory.writable(page) && cache.watched_pages.insert(page) {
            memory.protect(page, PAGE, Protection::READ_EXECUTE);
        }
    }
}

fn emit(cache: &mut Cache, pc: u64, source: &Source) -> Result<u64, FaultKind> {
    let begin = cache.emitter.here();
    let exits = cache.exits.len();
    let result = emit_or_fail(cache, pc, source);
    if result.is_err() {
        cache.emitter.roll_back(begin);
        cache.exits.truncate(exits);
    }
    result
}

fn emit_or_fail(cache: &mut Cache, pc: u64, source: &Source) -> Result<u64, FaultKind> {
    let mut builder = Builder::begin(cache, &source.instructions);
    let Some(class) = source.terminator else {
        builder.copy_all(source)?;
        if source.next_is_bad {
            builder.exit(Exit::BadFetch { rip: source.next });
        } else {
            let from = source.instructions.last().map_or(pc, Instruction::ip);
            builder.chain(None, source.next, from);
        }
        return Ok(builder.finish());
    };
    let last = source.instructions.len() - 1;
    builder.copy(source, last)?;
    builder.terminate(class, &source.instructions[last], &source.bytes[last], last);
    Ok(builder.finish())
}

/// A block being written.
struct Builder<'c> {
    cache: &'c mut Cache,
    start: u64,
    block: Block,
    flags_live: bool,
    slice_hole: Option<Hole>,
}

impl<'c> Builder<'c> {
    fn begin(cache: &'c mut Cache, instructions: &[Instruction]) -> Self {
        let count = u32::try_from(instructions.len()).expect("a block is short");
        let flags_live = flags::live_at_head(instructions);
        let mut builder = Self::empty(cache, instructions.iter().map(Instruction::ip).collect(), count);
        builder.flags_live = flags_live;
        builder.head();
        builder
    }

    fn begin_uncharged(cache: &'c mut Cache, instruction: &Instruction) -> Self {
        Self::empty(cache, vec![instruction.ip()], 1)
    }

    fn empty(cache: &'c mut Cache, instructions: Vec<u64>, charged: u32) -> Self {
        let start = cache.emitter.here();
        let block = Block { end: start, charged, instructions, map: Vec::new() };
        Self { cache, start, block, flags_live: false, slice_hole: None }
    }

    /// `sub countdown, n; js ?`, with the flags around it saved where they are live.
    fn head(&mut self) {
        let count = u8::try_from(self.block.charged).expect("a block is short");
        let e = &mut self.cache.emitter;
        if self.flags_live {
            e.store(HEAD_RAX, RAX);
            e.bytes(&[0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
        }
        e.subtract(COUNTDOWN, count);
        self.slice_hole = Some(e.jump_if_hole(0x8));
        self.restore_flags();
    }

    fn restore_flags(&mut self) {
        if self.flags_live {
            let e = &mut self.cache.emitter;
            e.bytes(&[0x04, 0x7F, 0x9E]); // add al, 7Fh; sahf
            e.load(RAX, HEAD_RAX);
        }
    }

    fn map(&mut self, index: usize, saved: Saved) {
        let at = self.cache.emitter.here();
        let index = u32::try_from(index).expect("a block is short");
        self.block.map.push(MapEntry { at, index, saved });
    }

    fn copy_all(&mut self, source: &Source) -> Result<(), FaultKind> {
        self.copy(source, source.instructions.len())
    }

    /// Copies the first `count` instructions.
    fn copy(&mut self, source: &Source, count: usize) -> Result<(), FaultKind> {
        for (index, instruction) in source.instructions[..count].iter().enumerate() {
            self.map(index, Saved::Nothing);
            if instruction.is_ip_rel_memory_operand() {
                self.encode(instruction)?;
            } else {
                self.cache.emitter.bytes(&source.bytes[index][..instruction.len()]);
            }
        }
        Ok(())
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

    /// Goes on at original address `target`: straight if it is translated, else by an exit that is patched away. A `hole`
    /// is a jump that was emitted before and leads here.
    fn chain(&mut self, hole: Option<Hole>, target: u64, from: u64) {
        if let Some(translated) = table::get(target, Column::Jump) {
            match hole {
                Some(hole) => self.cache.emitter.fill(hole, translated),
                None => self.cache.emitter.jump(translated),
            }
            return;
        }
        let stub = self.cache.emitter.here();
        let mut branch = 0;
        if let Some(hole) = hole {
            branch = hole.address();
            self.cache.emitter.fill(hole, stub);
        }
        self.exit(Exit::Chain { target, stub, branch, from });
    }

    fn terminate(&mut self, class: Class, instruction: &Instruction, bytes: &[u8; 15], index: usize) {
        let ip = instruction.ip();
        let next = instruction.next_ip();
        self.map(index, Saved::Nothing);
        match class {
            Class::Jump => self.chain(None, instruction.near_branch64(), ip),
            Class::JumpIf => {
                let condition = instruction.condition_code() as u8 - 1;
                let taken = self.cache.emitter.jump_if_hole(condition);
                self.chain(None, next, ip);
                self.chain(Some(taken), instruction.near_branch64(), ip);
            }
            Class::CountedJump => {
                // Encoded anew: with a 66h prefix AMD's processors would cut the instruction pointer to 16 bits.
                let (opcode, prefixes) = bytes[..instruction.len() - 1].split_last().expect("an opcode");
                let e = &mut self.cache.emitter;
                if prefixes.contains(&0x67) {
                    e.bytes(&[0x67]);
                }
                e.bytes(&[*opcode, 5]);
                let falls = e.jump_hole();
                self.chain(None, instruction.near_branch64(), ip);
                self.chain(Some(falls), next, ip);
            }
            Class::Return => self.terminate_return(ip, index),
            Class::Call | Class::CallIndirect => self.terminate_call(instruction, index),
            Class::JumpIndirect => {
                self.load_indirect_target(instruction, index);
                self.cache.emitter.jump_through(JUMP);
            }
            Class::Plain => {
                let operand = site::operand(instruction);
                self.exit(Exit::Site { instruction: *instruction, operand });
            }
            Class::CallOut => self.exit(Exit::CallOut { instruction: *instruction }),
            Class::Invalid => self.exit(Exit::Invalid { instruction: *instruction }),
            Class::NotImplemented => self.exit(Exit::NotImplemented { instruction: *instruction }),
        }
    }

    fn terminate_return(&mut self, ip: u64, index: usize) {
        let miss = self.cache.exit(Exit::ReturnMiss { rip: ip });
        let (loads, end) = stubs::return_sequence(&mut self.cache.emitter, |e| stubs::exit_stub(e, miss));
        let index = u32::try_from(index).expect("a block is short");
        self.block.map.push(MapEntry { at: loads, index, saved: Saved::RcxRdx });
        self.block.map.push(MapEntry { at: end, index, saved: Saved::Nothing });
    }

    /// A call: the one translated copy of its site, with the landing pad behind it.
    fn terminate_call(&mut self, instruction: &Instruction, index: usize) {
        let next = instruction.next_ip();
        if let Some(site) = self.cache.call_sites.get(&next) {
            let site = *site;
            self.cache.emitter.jump(site);
            return;
        }
        self.cache.call_sites.insert(next, self.cache.emitter.here());
        let direct = (classify(instruction) == Class::Call).then(|| instruction.near_branch64());
        if direct.is_none() {
            self.load_indirect_target(instruction, index);
        }
        self.map(index, Saved::Nothing);
        let thunk = self.cache.emitter.call_hole();
        let pad = self.cache.emitter.here();
        stubs::restore_return_address(&mut self.cache.emitter, next);
        self.chain(None, next, instruction.ip());
        let thunk_at = self.cache.emitter.here();
        let e = &mut self.cache.emitter;
        e.fill(thunk, thunk_at);
        stubs::original_return_address(e, next);
        match direct {
            Some(target) => self.chain(None, target, instruction.ip()),
            None => e.jump_through(JUMP),
        }
        table::set(next, Column::Return, pad);
    }

    /// Leaves the translated target of `call r/m` or `jmp r/m` in `scratch.jump`.
    fn load_indirect_target(&mut self, instruction: &Instruction, index: usize) {
        let sequence = self.cache.emitter.here();
        self.cache.emitter.store(SAVED_R11, R11);
        self.map(index, Saved::R11);
        self.load_operand(instruction);
        let miss = self.cache.exit(Exit::IndirectMiss { rip: instruction.ip(), sequence });
        let e = &mut self.cache.emitter;
        e.store(TARGET, R11);
        e.store(SAVED_RCX, RCX);
        e.store(SAVED_RDX, RDX);
        e.bytes(&[0x44, 0x89, 0xDA]); // mov edx, r11d
        e.load32(RCX, TARGET + 4);
        let restore = |e: &mut super::emitter::Emitter| {
            stubs::restore_rcx_rdx(e);
            e.load(R11, SAVED_R11);
        };
        stubs::look_up_jump(e, restore, |e| stubs::exit_stub(e, miss));
    }

    /// `mov r11, operand of the branch`.
    fn load_operand(&mut self, instruction: &Instruction) {
        use iced_x86::{Code, OpKind, Register};
        let mut load = Instruction::default();
        load.set_op0_kind(OpKind::Register);
        load.set_op0_register(Register::R11);
        load.set_code(Code::Mov_r64_rm64);
        if instruction.op0_kind() == OpKind::Register {
            load.set_op1_kind(OpKind::Register);
            load.set_op1_register(instruction.op0_register());
        } else {
            load.set_op1_kind(OpKind::Memory);
            load.set_segment_prefix(instruction.segment_prefix());
            load.set_memory_base(instruction.memory_base());
            load.set_memory_index(instruction.memory_index());
            load.set_memory_index_scale(instruction.memory_index_scale());
            load.set_memory_displacement64(instruction.memory_displacement64());
            load.set_memory_displ_size(instruction.memory_displ_size());
        }
        if self.encode(&load).is_err() {
            self.exit(Exit::NotImplemented { instruction: *instruction });
        }
    }

    fn finish(mut self) -> u64 {
        if let Some(hole) = self.slice_hole.take() {
            let here = self.cache.emitter.here();
            self.cache.emitter.fill(hole, here);
            self.restore_flags();
            let rip = self.block.instructions[0];
            let charged = self.block.charged;
            self.exit(Exit::Slice { rip, charged });
        }
        self.block.end = self.cache.emitter.here();
        self.cache.blocks.insert(self.start, self.block);
        self.start
    }
}
