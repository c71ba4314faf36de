//! Makes functions of random instructions: a register file is loaded, a body runs, the file is stored again.
//!
//! Instructions come from random bytes, decoded and then tamed (see `tame`): memory operands are redirected to a data page,
//! and what would leave the sequence (stack pointer, privileged instructions) is dropped. So every form the decoder knows is
//! met, not only those a template thought of.

mod file;
mod tame;

pub(crate) use file::{data, place};

pub(crate) use super::random::Random;

use iced_x86::code_asm::CodeAssembler;
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Decoder, DecoderOptions, EncodingKind, Instruction,
    InstructionBlock, OpKind, Register,
};

/// Which registers a sequence is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// The integer ones and `xmm`: what x86-64-v2 has.
    Sse,
    /// Also `ymm`: half of the instructions are encoded by VEX.
    Avx,
    /// Also those of x87 and MMX.
    X87,
}

/// A whole function, of a data page at `page`: loads the register file, runs the body, stores the file.
pub(crate) fn function(family: Family, random: &mut Random, page: u64) -> Vec<Instruction> {
    let mut instructions = file::prologue(family);
    let begin = instructions.len();
    while instructions.len() < begin + 24 {
        if let Some(instruction) = random_instruction(family, random, page) {
            instructions.extend(index_within_the_page(&instruction));
            instructions.push(instruction);
        }
    }
    let end = instructions.len();
    instructions.extend(file::epilogue(family));
    for (index, instruction) in instructions.iter_mut().enumerate() {
        instruction.set_ip(1 + index as u64);
    }
    branches(&mut instructions, begin + 2..end - 6, random);
    instructions
}

/// Some forward branches over a few instructions; every condition comes up. What a gather's index needs stays before it.
fn branches(instructions: &mut [Instruction], places: std::ops::Range<usize>, random: &mut Random) {
    for index in places.step_by(5) {
        let mut target = index + 1 + random.below(5) as usize;
        if instructions[target].is_vsib() {
            target += 1;
        }
        if random.below(2) == 0 && !instructions[index + 1].is_vsib() {
            let mut branch = Instruction::with_branch(jcc(random), 1 + target as u64).unwrap();
            branch.set_ip(1 + index as u64);
            instructions[index] = branch;
        }
    }
}

/// The bytes of the function at an address.
pub(crate) fn encode(instructions: &[Instruction], at: u64) -> Option<Vec<u8>> {
    let block = InstructionBlock::new(instructions, at);
    BlockEncoder::encode(64, block, BlockEncoderOptions::DONT_FIX_BRANCHES)
        .ok()
        .map(|result| result.code_buffer)
}

/// The function in words.
pub(crate) fn listing(instructions: &[Instruction]) -> String {
    instructions.iter().map(|i| format!("    {i}\n")).collect()
}

fn random_instruction(family: Family, random: &mut Random, page: u64) -> Option<Instruction> {
    let mut bytes = [0; 15];
    for byte in &mut bytes {
        *byte = (random.next() >> 32) as u8;
    }
    bias(family, &mut bytes, random);
    let instruction = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).decode();
    tame::tame(instruction, family, random, page)
}

/// Makes REX, 0F-prefixed and vector forms likelier, and the family's own.
fn bias(family: Family, bytes: &mut [u8; 15], random: &mut Random) {
    let no_third_operand = if random.below(3) == 0 { 0x78 } else { 0 };
    match (family, random.below(12)) {
        (Family::Avx, 6..8) => {
            bytes[0] = 0xC5;
            bytes[1] |= no_third_operand;
        }
        (Family::Avx, 8..12) => {
            bytes[0] = 0xC4;
            bytes[2] |= no_third_operand;
            bytes[1] = bytes[1] & 0xE0 | (1 + random.below(3) as u8);
            if random.below(12) == 0 {
                // Gathers are few among the opcodes: 66.0F38 90 to 93, with a SIB byte.
                bytes[1] = bytes[1] & 0xE0 | 2;
                bytes[2] = bytes[2] & !3 | 1;
                bytes[3] = 0x90 | bytes[3] & 3;
                bytes[4] = bytes[4] & !7 | 4;
            }
        }
        (Family::X87, 6..10) => bytes[0] = 0xD8 | bytes[0] & 7,
        (Family::X87, 10..12) => {
            bytes[0] = 0x0F;
            bytes[1] |= 0x40;
        }
        (_, 0 | 6) => bytes[0] = 0x48 | bytes[0] & 7,
        (_, 1 | 7) => bytes[0] = 0x0F,
        (_, 2 | 8) => bytes[..2].copy_from_slice(&[0x66, 0x0F]),
        (_, 3 | 9) => {
            let prefix = 0xF2 | bytes[0] & 1;
            bytes[..2].copy_from_slice(&[prefix, 0x0F]);
        }
        _ => {}
    }
}

/// For a gather: what keeps its index small.
fn index_within_the_page(instruction: &Instruction) -> Option<Instruction> {
    use iced_x86::code_asm::{get_ymm, r15, ymmword_ptr};
    let small = if instruction.vsib()? { file::SMALL_64 } else { file::SMALL_32 };
    let index = get_ymm(Register::YMM0 + instruction.memory_index().number() as u32)?;
    let mut a = CodeAssembler::new(64).unwrap();
    a.vandps(index, index, ymmword_ptr(r15 + small)).unwrap();
    a.take_instructions().pop()
}

/// `bt m, r` and its kind: the register moves the address by up to an eighth of the address space.
fn is_far_bit_test(instruction: &Instruction) -> bool {
    use Code as C;
    let by_register = matches!(
        instruction.code(),
        C::Bt_rm64_r64
            | C::Bts_rm64_r64
            | C::Btr_rm64_r64
            | C::Btc_rm64_r64
            | C::Bt_rm32_r32
            | C::Bts_rm32_r32
            | C::Btr_rm32_r32
            | C::Btc_rm32_r32
            | C::Bt_rm16_r16
            | C::Bts_rm16_r16
            | C::Btr_rm16_r16
            | C::Btc_rm16_r16
    );
    by_register && instruction.op0_kind() == OpKind::Memory
}

fn is_vex(instruction: &Instruction) -> bool {
    instruction.op_code().encoding() == EncodingKind::VEX
}

fn jcc(random: &mut Random) -> Code {
    const ALL: [Code; 16] = [
        Code::Jo_rel32_64,
        Code::Jno_rel32_64,
        Code::Jb_rel32_64,
        Code::Jae_rel32_64,
        Code::Je_rel32_64,
        Code::Jne_rel32_64,
        Code::Jbe_rel32_64,
        Code::Ja_rel32_64,
        Code::Js_rel32_64,
        Code::Jns_rel32_64,
        Code::Jp_rel32_64,
        Code::Jnp_rel32_64,
        Code::Jl_rel32_64,
        Code::Jge_rel32_64,
        Code::Jle_rel32_64,
        Code::Jg_rel32_64,
    ];
    ALL[random.below(16) as usize]
}
