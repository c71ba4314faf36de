//! Instructions that a block does itself instead of copying them: moves to and from CR8, the test whether an operand is a
//! device's, operands that a displacement does not reach.

use iced_x86::{Instruction, InstructionInfoFactory, Register};

use super::{Builder, counter};
use crate::guest::FaultKind;
use crate::translate::cache::Saved;
use crate::translate::callout::Level;
use crate::translate::emitter::condition::{ABOVE, BELOW};
use crate::translate::emitter::{Hole, R11, R13, RAX, RCX, RDX, Reg};
use crate::translate::exit::Exit;
use crate::translate::scratch::{
    DRIVER_R13, FREE_LEVELS, HELD, HIGHEST_LEVEL, LEVEL, R11 as SAVED_R11, RCX as SAVED_RCX, TARGET,
};
use crate::translate::{site, stubs, table};
use crate::windows::{DEVICE, SHARED_DATA, USER_DEVICE};

impl Builder<'_> {
    /// `mov` to or from CR8. A level from `scratch.free_levels` on is only written down, here and in the processor's control
    /// region; below, the guest is asked.
    pub(super) fn level(&mut self, level: Level, flags_live: bool, ahead: u8) {
        self.flags_live = flags_live;
        let e = &mut self.cache.emitter;
        let register = level.register;
        if !level.write {
            if register == R13 {
                e.store(HELD, R13);
            }
            let high = if register.0 > 7 { 0x44 } else { 0x40 };
            e.bytes(&[high, 0x0F, 0xB6]); // movzx r32, byte [level]
            e.scratch_operand(register.0, LEVEL);
            if register == R13 {
                counter::take(e, true);
            }
            return;
        }
        e.store(SAVED_RCX, RCX);
        if register == R13 {
            e.load(RCX, DRIVER_R13);
        } else {
            e.bytes(&[0x48 | register.0 >> 3 << 2, 0x89, 0xC1 | (register.0 & 7) << 3]); // mov rcx, register
        }
        self.save_flags();
        let e = &mut self.cache.emitter;
        e.bytes(&[0x48, 0x83, 0xF9, 0x0F]); // cmp rcx, 15
        let no_level = e.jump_if_hole(ABOVE);
        e.bytes(&[0x3A]); // cmp cl, [highest_level]
        e.scratch_operand(RCX.0, HIGHEST_LEVEL);
        let first = e.jump_if_hole(ABOVE);
        e.bytes(&[0x3A]); // cmp cl, [free_levels]
        e.scratch_operand(RCX.0, FREE_LEVELS);
        let ask = e.jump_if_hole(BELOW);
        e.bytes(&[0x88]); // mov [level], cl
        e.scratch_operand(RCX.0, LEVEL);
        e.bytes(&[0x65, 0x88, 0x0C, 0x25]); // mov gs:[Irql], cl
        e.bytes(&u32::try_from(abi::KPCR::Irql.offset()).expect("a small structure").to_le_bytes());
        self.restore_flags();
        let e = &mut self.cache.emitter;
        e.load(RCX, SAVED_RCX);
        let done = e.jump_hole();
        let here = e.here();
        e.fill(no_level, here);
        e.fill(first, here);
        e.fill(ask, here);
        self.restore_flags();
        self.cache.emitter.load(RCX, SAVED_RCX);
        self.exit(Exit::Level { level, ahead });
        let here = self.cache.emitter.here();
        self.cache.emitter.fill(done, here);
    }

    /// In front of an instruction that has touched a device: its address goes to `scratch.target`; if that is a device's,
    /// a jump is taken that [`Self::device_exit`] fills in. No flag is touched.
    pub(super) fn device_test(&mut self, instruction: &Instruction) -> Result<[Hole; 3], FaultKind> {
        self.cache.emitter.store(SAVED_RCX, RCX);
        self.encode_lea(&site::address_in_rcx(instruction))?;
        let e = &mut self.cache.emitter;
        e.store(TARGET, RCX);
        e.load32(RCX, TARGET + 4);
        let upper = |address: u64| (address >> 32) as u32;
        e.add_to_ecx(0u32.wrapping_sub(upper(DEVICE.base)));
        let device = e.jump_if_rcx_zero_hole();
        e.add_to_ecx(upper(DEVICE.base).wrapping_sub(upper(SHARED_DATA.base)));
        let shared = e.jump_if_rcx_zero_hole();
        e.add_to_ecx(upper(SHARED_DATA.base).wrapping_sub(upper(USER_DEVICE.base)));
        let user = e.jump_if_rcx_zero_hole();
        e.load(RCX, SAVED_RCX);
        Ok([device, shared, user])
    }

    /// Behind the instruction: the way to the device, which passes it by. `ahead` instructions of the block follow.
    pub(super) fn device_exit(&mut self, device: [Hole; 3], instruction: &Instruction, ahead: u8) {
        let over = self.cache.emitter.jump_hole();
        let here = self.cache.emitter.here();
        for hole in device {
            self.cache.emitter.fill(hole, here);
        }
        match site::Move::of(instruction) {
            Some(device) => {
                let number = self.cache.exit(Exit::Move { rip: instruction.ip(), device, ahead });
                stubs::access_stub(&mut self.cache.emitter, number);
            }
            None => {
                self.cache.emitter.load(RCX, SAVED_RCX);
                self.exit_with(instruction, |decoded| Exit::Site { decoded, ahead });
            }
        }
        let here = self.cache.emitter.here();
        self.cache.emitter.fill(over, here);
    }

    /// Encodes an instruction whose operand is RIP-relative, wherever that is.
    pub(super) fn encode_here(&mut self, instruction: &Instruction, index: usize) -> Result<(), FaultKind> {
        if !instruction.is_ip_rel_memory_operand() || table::covers(instruction.ip_rel_memory_address()) {
            return self.encode(instruction);
        }
        self.encode_far(instruction, index)
    }

    /// As [`Self::encode`], for a RIP-relative operand out of reach: through a register that the instruction leaves alone.
    fn encode_far(&mut self, instruction: &Instruction, index: usize) -> Result<(), FaultKind> {
        let mut info = InstructionInfoFactory::new();
        let used = info.info(instruction).used_registers();
        let free =
            |reg: &Reg| !used.iter().any(|u| u.register().full_register().number() == usize::from(reg.0));
        let free = [R11, RAX, RCX, RDX].into_iter().find(free).ok_or(FaultKind::NotImplemented)?;
        let mut through = *instruction;
        through.set_memory_base(match free {
            RAX => Register::RAX,
            RCX => Register::RCX,
            RDX => Register::RDX,
            _ => Register::R11,
        });
        through.set_memory_displacement64(0);
        through.set_memory_displ_size(0);
        self.cache.emitter.store(SAVED_R11, free);
        self.cache.emitter.constant(free, instruction.ip_rel_memory_address());
        let saved = if self.lent { Saved::LentInR11(free.0) } else { Saved::InR11(free.0) };
        self.map(index, saved);
        self.encode(&through)?;
        self.cache.emitter.load(free, SAVED_R11);
        Ok(())
    }
}
