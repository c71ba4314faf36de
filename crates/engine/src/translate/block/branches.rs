//! How a block ends: jumps, returns, and what leaves translated code. Calls are [`super::calls`]'.

use iced_x86::{Instruction, OpKind, Register};

use super::guess::{self, Through};
use super::{Builder, Way, calls, counter};
use crate::translate::cache::{MapEntry, Saved};
use crate::translate::classify::Class;
use crate::translate::emitter::{R11, RCX, Reg};
use crate::translate::exit::Exit;
use crate::translate::scratch::{R11 as SAVED_R11, RCX as SAVED_RCX, TARGET};
use crate::translate::{callout, checked, stubs};

impl Builder<'_> {
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
            return self.visible(class, instruction, index);
        }
        self.terminate_unasked(class, instruction, bytes, index);
    }

    /// As [`Self::terminate`], even if the guest has asked to be called before the instruction.
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
            self.check(
                std::slice::from_ref(instruction),
                index,
                matches!(class, Class::Plain | Class::CallOut),
            );
        }
        self.map(index, Saved::Nothing);
        match class {
            Class::Jump => self.on = Some(Way { to: instruction.near_branch64(), from: ip }),
            Class::JumpIf => {
                let condition = instruction.condition_code() as u8 - 1;
                let (taken, falls) =
                    (Way { to: instruction.near_branch64(), from: ip }, Way { to: next, from: ip });
                if taken.to == self.block.instructions[0] {
                    let hole = self.cache.emitter.jump_if_hole(condition);
                    self.cache.emitter.fill(hole, self.start);
                    self.on = Some(falls);
                } else if self.stands_elsewhere(falls) && !self.is_translated(taken) {
                    // Turned round: what it falls to stands elsewhere, and what it jumps to can follow here.
                    let hole = self.cache.emitter.jump_if_hole(condition ^ 1);
                    self.branch(hole, falls);
                    self.on = Some(taken);
                } else {
                    let hole = self.cache.emitter.jump_if_hole(condition);
                    self.branch(hole, taken);
                    self.on = Some(falls);
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
                let taken = e.jump_hole();
                e.fill_here(falls);
                self.branch(taken, Way { to: instruction.near_branch64(), from: ip });
                self.on = Some(Way { to: next, from: ip });
            }
            Class::Return => self.terminate_return(ip, index),
            Class::Call | Class::CallIndirect => self.terminate_call(instruction, index),
            Class::JumpIndirect => match calls::import(self.cache, instruction) {
                Some(target) => self.on = Some(Way { to: target, from: ip }),
                None => {
                    let through = self.through(instruction, index);
                    guess::write_jump(self.cache, ip, through);
                }
            },
            Class::Plain | Class::Level => {
                self.exit_with(instruction, |decoded| Exit::Site { decoded, ahead: 0 })
            }
            Class::CallOut => match callout::Port::of(instruction) {
                Some(port) => {
                    let number = self.cache.exit(Exit::Port { rip: ip, port });
                    let e = &mut self.cache.emitter;
                    e.store(SAVED_RCX, RCX);
                    stubs::access_stub(e, number);
                    self.on = Some(Way { to: next, from: ip });
                }
                None => self.exit_with(instruction, |decoded| Exit::CallOut { decoded }),
            },
            Class::Invalid => self.exit_with(instruction, |decoded| Exit::Invalid { decoded }),
            Class::NotImplemented => self.exit_with(instruction, |decoded| Exit::NotImplemented { decoded }),
        }
    }

    /// The exit that asks the guest; behind it the instruction, if that is all that is to be done then.
    fn visible(&mut self, class: Class, instruction: &Instruction, index: usize) {
        let decoded = self.cache.keep(instruction);
        if class != Class::Plain || instruction.is_string_instruction() {
            return self.exit(Exit::Visible { decoded, resume: 0 });
        }
        checked::ask(self.cache, |resume| Exit::Visible { decoded, resume });
        self.map(index, Saved::Nothing);
        if self.encode_alone(instruction, index).is_err() {
            return self.exit(Exit::NotImplemented { decoded });
        }
        self.on = Some(Way { to: instruction.next_ip(), from: instruction.ip() });
    }

    /// Whether the block there is translated, and no copy of it may follow.
    fn stands_elsewhere(&mut self, way: Way) -> bool {
        self.is_translated(way) && !self.cache.switches.contains(&way.to)
    }

    fn is_translated(&mut self, way: Way) -> bool {
        self.cache.entry(way.to).is_some()
    }

    fn terminate_return(&mut self, ip: u64, index: usize) {
        if self.early.is_some() {
            return self.cache.emitter.bytes(&[0xC3]);
        }
        let miss = self.cache.exit(Exit::ReturnMiss { rip: ip });
        let (loads, end) = stubs::return_sequence(&mut self.cache.emitter, |e| stubs::exit_stub(e, miss));
        let index = u32::try_from(index).expect("a block is short");
        self.block.map.push(MapEntry { at: loads, index, saved: Saved::RcxRdx });
        self.block.map.push(MapEntry { at: end, index, saved: Saved::Nothing });
    }

    /// What `call r/m` or `jmp r/m` goes through.
    pub(super) fn through(&mut self, instruction: &Instruction, index: usize) -> Through {
        let register = instruction.op0_register();
        let apart = [Register::RSP, Register::RCX].contains(&register);
        if instruction.op0_kind() == OpKind::Register && !apart {
            return Through::Register(number(register));
        }
        if instruction.op0_kind() == OpKind::Register {
            self.cache.emitter.store(TARGET, number(register));
            return Through::Word;
        }
        self.cache.emitter.store(SAVED_R11, R11);
        self.map(index, Saved::R11);
        self.load_operand(instruction);
        self.cache.emitter.store(TARGET, R11);
        self.cache.emitter.load(R11, SAVED_R11);
        Through::Word
    }

    /// `mov r11, operand of the branch`, which is memory.
    fn load_operand(&mut self, instruction: &Instruction) {
        use iced_x86::Code;
        let mut load = Instruction::default();
        load.set_op0_kind(OpKind::Register);
        load.set_op0_register(Register::R11);
        load.set_code(Code::Mov_r64_rm64);
        load.set_op1_kind(OpKind::Memory);
        load.set_segment_prefix(instruction.segment_prefix());
        load.set_memory_base(instruction.memory_base());
        load.set_memory_index(instruction.memory_index());
        load.set_memory_index_scale(instruction.memory_index_scale());
        load.set_memory_displacement64(instruction.memory_displacement64());
        load.set_memory_displ_size(instruction.memory_displ_size());
        if instruction.is_ip_rel_memory_operand() && self.is_far() {
            self.cache.emitter.constant(R11, instruction.ip_rel_memory_address());
            self.cache.emitter.bytes(&[0x4D, 0x8B, 0x1B]); // mov r11, [r11]
            return;
        }
        if counter::addresses_by(instruction) {
            let mut address = load;
            address.set_code(Code::Lea_r64_m);
            address.set_segment_prefix(Register::None);
            if self.encode_lea(&address).is_ok() {
                load.set_memory_base(Register::R11);
                load.set_memory_index(Register::None);
                load.set_memory_index_scale(1);
                load.set_memory_displacement64(0);
                load.set_memory_displ_size(0);
            }
        }
        if self.encode(&load).is_err() {
            self.exit_with(instruction, |decoded| Exit::NotImplemented { decoded });
        }
    }
}

pub(super) fn number(register: Register) -> Reg {
    Reg(u8::try_from(register.number()).expect("there are 16"))
}
