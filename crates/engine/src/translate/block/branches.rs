//! How a block ends: jumps, calls, returns, and what leaves translated code.
//!
//! A call site has exactly one translated copy, with a landing pad behind it, so that returns are predicted.

use iced_x86::{Instruction, Register};

use super::Builder;
use crate::translate::cache::{MapEntry, Saved};
use crate::translate::classify::{Class, classify};
use crate::translate::emitter::{Emitter, Hole, R11, RCX, RDX};
use crate::translate::exit::Exit;
use crate::translate::scratch::{JUMP, R11 as SAVED_R11, RCX as SAVED_RCX, RDX as SAVED_RDX, TARGET};
use crate::translate::table::{self, Column};
use crate::translate::{callout, stubs};
use crate::windows::CACHE;

impl Builder<'_> {
    /// Goes on at original address `target`: straight if it is translated, else by an exit that is patched away. A `hole`
    /// is a jump that was emitted before and leads here.
    pub(super) fn chain(&mut self, hole: Option<Hole>, target: u64, from: u64) {
        if let Some(translated) = self.cache.entry(target) {
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
        let offset =
            |address: u64| u32::try_from(address - CACHE.base).expect("the cache is smaller than 4 GiB");
        let branch = if branch == 0 { 0 } else { offset(branch) };
        self.exit(Exit::Chain { target, stub: offset(stub), branch, from });
    }

    pub(super) fn terminate(
        &mut self,
        class: Class,
        instruction: &Instruction,
        bytes: &[u8; 15],
        index: usize,
    ) {
        if self.cache.asks_before(instruction) {
            self.tested.before(self.cache, instruction, 0);
            self.map(index, Saved::Nothing);
            return self.exit_with(instruction, |decoded| Exit::Visible { decoded });
        }
        self.terminate_unasked(class, instruction, bytes, index);
    }

    /// As [`Self::terminate`], whoever may want to be asked.
    pub(super) fn terminate_unasked(
        &mut self,
        class: Class,
        instruction: &Instruction,
        bytes: &[u8; 15],
        index: usize,
    ) {
        let (ip, next) = (instruction.ip(), instruction.next_ip());
        if !matches!(class, Class::Invalid | Class::NotImplemented) {
            self.tested.before(self.cache, instruction, 0);
            self.check(instruction, index, matches!(class, Class::Plain | Class::CallOut));
        }
        self.map(index, Saved::Nothing);
        match class {
            Class::Jump => self.chain(None, instruction.near_branch64(), ip),
            Class::JumpIf => {
                let condition = instruction.condition_code() as u8 - 1;
                let taken = self.cache.emitter.jump_if_hole(condition);
                self.chain(None, next, ip);
                if instruction.near_branch64() == self.block.instructions[0] {
                    let start = self.start;
                    self.cache.emitter.fill(taken, start);
                } else {
                    self.chain(Some(taken), instruction.near_branch64(), ip);
                }
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
            Class::JumpIndirect => match self.import(instruction) {
                Some(target) => self.chain(None, target, ip),
                None => {
                    self.load_indirect_target(instruction, index);
                    self.cache.emitter.jump_through(JUMP);
                }
            },
            Class::Plain | Class::Level => {
                self.exit_with(instruction, |decoded| Exit::Site { decoded, ahead: 0 })
            }
            Class::CallOut => match callout::Port::of(instruction) {
                Some(port) => self.exit(Exit::Port { rip: ip, port }),
                None => self.exit_with(instruction, |decoded| Exit::CallOut { decoded }),
            },
            Class::Invalid => self.exit_with(instruction, |decoded| Exit::Invalid { decoded }),
            Class::NotImplemented => self.exit_with(instruction, |decoded| Exit::NotImplemented { decoded }),
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
        let direct = match classify(instruction) {
            Class::Call => Some(instruction.near_branch64()),
            _ => self.import(instruction),
        };
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
        if !self.is_far() {
            table::set(next, Column::Return, pad);
        }
    }

    /// The export that `call [slot]` or `jmp [slot]` goes to, for a slot in an import table.
    fn import(&mut self, instruction: &Instruction) -> Option<u64> {
        let plain = instruction.is_ip_rel_memory_operand() && instruction.memory_segment() == Register::DS;
        if plain { self.cache.import(instruction.ip_rel_memory_address()) } else { None }
    }

    /// Leaves the translated target of `call r/m` or `jmp r/m` in `scratch.jump`.
    fn load_indirect_target(&mut self, instruction: &Instruction, index: usize) {
        self.cache.emitter.store(SAVED_R11, R11);
        self.map(index, Saved::R11);
        self.load_operand(instruction);
        let miss = self.cache.exit(Exit::IndirectMiss { rip: instruction.ip(), found: 0 });
        let e = &mut self.cache.emitter;
        e.store(TARGET, R11);
        e.store(SAVED_RCX, RCX);
        e.store(SAVED_RDX, RDX);
        e.bytes(&[0x44, 0x89, 0xDA]); // mov edx, r11d
        e.load32(RCX, TARGET + 4);
        let restore = |e: &mut Emitter| {
            stubs::restore_rcx_rdx(e);
            e.load(R11, SAVED_R11);
        };
        stubs::look_up_jump(e, restore, |e| stubs::exit_stub(e, miss));
        let found = e.here();
        self.cache.exits[miss as usize] = Exit::IndirectMiss { rip: instruction.ip(), found };
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
        if instruction.is_ip_rel_memory_operand() && self.is_far() {
            self.cache.emitter.constant(R11, instruction.ip_rel_memory_address());
            self.cache.emitter.bytes(&[0x4D, 0x8B, 0x1B]); // mov r11, [r11]
            return;
        }
        if self.encode(&load).is_err() {
            self.exit_with(instruction, |decoded| Exit::NotImplemented { decoded });
        }
    }
}
