//! A jump through a register that the instruction in front of it has added up, `add r, b; jmp r`: what compilers make of a
//! switch. The addition sets all flags anew, so in front of it they are free: its target is looked up there, without a jump
//! that is taken, and with no other register than `r` and one that is put aside.
//!
//! An address that is not known goes aside: the addition is made, and an exit finds or makes its translation. There is no guess: a
//! switch has none.

use iced_x86::{Code, Instruction, OpKind, Register};

use super::aside::Aside;
use super::branches::number;
use super::{Builder, Source, counter};
use crate::translate::cache::{Cache, Saved};
use crate::translate::emitter::condition::{ABOVE_OR_EQUAL, EQUAL};
use crate::translate::emitter::{Emitter, Hole, RAX, RCX, RDX, Reg};
use crate::translate::exit::Exit;
use crate::translate::host_words::JUMP;
use crate::translate::scratch::{RCX as SAVED_SUM, RDX as SAVED_SPARE, TARGET};
use crate::translate::{stubs, table};
use crate::windows::IMAGES;

/// The two instructions that end a block so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switch {
    /// What is added up and jumped to.
    sum: Reg,
    added: Reg,
    /// A register that is neither.
    spare: Reg,
}

/// What a switch leaves to an exit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unknown {
    holes: [Hole; 2],
    switch: Switch,
    /// Of the jump.
    rip: u64,
    /// Where it jumps to what the exit has found.
    found: u64,
}

impl Switch {
    /// At the end of these instructions, which is an indirect jump.
    pub(super) fn of(cache: &Cache, instructions: &[Instruction]) -> Option<Self> {
        let [.., add, jump] = instructions else { return None };
        let register = |register: Register| {
            let usable = register.is_gpr64() && register != Register::RSP && !counter::is(register);
            usable.then(|| number(register))
        };
        let by_registers = jump.op0_kind() == OpKind::Register
            && matches!(add.code(), Code::Add_r64_rm64 | Code::Add_rm64_r64)
            && add.op1_kind() == OpKind::Register
            && add.op0_kind() == OpKind::Register;
        if !by_registers || add.op0_register() != jump.op0_register() || cache.asks_before(jump) {
            return None;
        }
        let (sum, added) = (register(add.op0_register())?, register(add.op1_register())?);
        let spare = [RDX, RCX, RAX].into_iter().find(|reg| *reg != sum && *reg != added)?;
        (sum != added).then_some(Self { sum, added, spare })
    }

    fn add(self, e: &mut Emitter) {
        e.registers(0x01, self.sum, self.added);
    }
}

impl Builder<'_> {
    /// The last two instructions of `source`.
    pub(super) fn switch(&mut self, switch: Switch, source: &Source) {
        let last = source.instructions.len() - 1;
        let Switch { sum, spare, .. } = switch;
        self.map(last - 1, Saved::Nothing);
        let e = &mut self.cache.emitter;
        e.store(SAVED_SUM, sum);
        e.store(SAVED_SPARE, spare);
        e.constant(spare, IMAGES.base);
        switch.add(e);
        e.registers(0x29, sum, spare); // sub sum, spare
        e.bytes(&[0x48 | sum.0 >> 3, 0x81, 0xF8 | sum.0 & 7]); // cmp sum, bytes of the window
        e.bytes(&u32::try_from(IMAGES.size).expect("a displacement reaches the window").to_le_bytes());
        let elsewhere = e.jump_if_hole(ABOVE_OR_EQUAL);
        let (high_sum, high_spare) = (sum.0 >> 3, spare.0 >> 3);
        e.bytes(&[0x40 | high_sum << 2 | high_sum << 1 | high_spare, 0x8B, 0x84 | (sum.0 & 7) << 3]);
        e.bytes(&[0xC0 | (sum.0 & 7) << 3 | spare.0 & 7]); // mov sum32, [spare+sum*8+jump column]
        e.bytes(&table::JUMP_COLUMN.to_le_bytes());
        e.bytes(&[0x40 | high_sum << 2 | high_sum, 0x85, 0xC0 | (sum.0 & 7) << 3 | sum.0 & 7]); // test sum32, sum32
        let missing = e.jump_if_hole(EQUAL);
        e.registers(0x01, sum, spare); // add sum, spare
        e.store_host(JUMP, sum);
        e.load(spare, SAVED_SPARE);
        e.load(sum, SAVED_SUM);
        switch.add(e);
        self.map(last, Saved::Nothing);
        let found = self.cache.emitter.here();
        self.cache.emitter.jump_through(JUMP);
        let (holes, rip) = ([elsewhere, missing], source.instructions[last].ip());
        self.asides.push(Aside::Switch(Unknown { holes, switch, rip, found }));
    }
}

/// The way to the exit.
pub(super) fn write_exit(cache: &mut Cache, unknown: &Unknown) {
    let Unknown { holes, switch, rip, found } = *unknown;
    let miss = cache.exit(Exit::IndirectMiss { rip, found, pushed: false });
    let e = &mut cache.emitter;
    holes.into_iter().for_each(|hole| e.fill_here(hole));
    e.load(switch.spare, SAVED_SPARE);
    e.load(switch.sum, SAVED_SUM);
    switch.add(e);
    e.store(TARGET, switch.sum);
    stubs::exit_stub(e, miss);
}
