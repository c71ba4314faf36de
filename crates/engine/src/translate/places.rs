//! What `fnstenv`, `fnsave` and `fxsave` tell of the last x87 instruction: where it and its operand lay. For translated code
//! that is an address in the cache, which no driver may see; the host's segments come with it. So it is overwritten with
//! zeroes, as processors have it that keep these places for exceptions only.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// The stores to run right behind `instruction`; none for most.
pub(super) fn forget(instruction: &Instruction) -> impl Iterator<Item = Instruction> {
    use Code as C;
    let fields: &[(u64, Code)] = match instruction.code() {
        C::Fnstenv_m14byte | C::Fstenv_m14byte | C::Fnsave_m94byte | C::Fsave_m94byte => &[
            (6, C::Mov_rm16_imm16),
            (8, C::Mov_rm16_imm16),
            (10, C::Mov_rm16_imm16),
            (12, C::Mov_rm16_imm16),
        ],
        C::Fnstenv_m28byte | C::Fstenv_m28byte | C::Fnsave_m108byte | C::Fsave_m108byte => &[
            (12, C::Mov_rm32_imm32),
            (16, C::Mov_rm32_imm32),
            (20, C::Mov_rm32_imm32),
            (24, C::Mov_rm32_imm32),
        ],
        C::Fxsave_m512byte | C::Fxsave64_m512byte => {
            &[(6, C::Mov_rm16_imm16), (8, C::Mov_rm64_imm32), (16, C::Mov_rm64_imm32)]
        }
        _ => &[],
    };
    fields.iter().map(|(offset, code)| {
        let memory = MemoryOperand::with_base(Register::RAX);
        let mut store = Instruction::with2(*code, memory, 0).expect("the operands fit the code");
        store.set_segment_prefix(instruction.segment_prefix());
        store.set_memory_base(instruction.memory_base());
        store.set_memory_index(instruction.memory_index());
        store.set_memory_index_scale(instruction.memory_index_scale());
        store.set_memory_displacement64(instruction.memory_displacement64().wrapping_add(*offset));
        store.set_memory_displ_size(instruction.memory_displ_size().max(1));
        store
    })
}
