//! Generated instruction sequences, run natively and translated: same registers, flags, memory and count, whole and in
//! slices.
//!
//! Instructions come from random bytes, decoded and then tamed: memory operands are redirected to a data page, and what
//! would leave the sequence (stack pointer, privileged instructions) is dropped. So every form the decoder knows is
//! met, not only those a template thought of.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod rig;

use engine::windows::IMAGES;
use iced_x86::code_asm::{self, CodeAssembler, byte_ptr, ptr, qword_ptr};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, CpuidFeature, Decoder, DecoderOptions, Encoder, EncodingKind,
    FlowControl, Instruction, InstructionBlock, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use rig::native::Native;
use rig::{CODE, Rig};

/// Data in reach of RIP-relative operands of both copies.
const DATA: u64 = IMAGES.base + 0x3000_0000;
const DATA_SIZE: u64 = 0x1000;
/// The register file: 16 integer registers, flags, 16 XMM registers.
const FILE: u64 = DATA + 0x800;
const FILE_SIZE: usize = 0x400;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Registers the frame of the generated function needs.
const KEPT: [Register; 2] = [Register::RSP, Register::R15];

fn random_instruction(random: &mut Random) -> Option<Instruction> {
    let mut bytes = [0; 15];
    for byte in &mut bytes {
        *byte = (random.next() >> 32) as u8;
    }
    // Bias towards REX and 0F-prefixed forms, and vector ones.
    match random.below(6) {
        0 => bytes[0] = 0x48 | bytes[0] & 7,
        1 => bytes[0] = 0x0F,
        2 => bytes[..2].copy_from_slice(&[0x66, 0x0F]),
        3 => {
            let prefix = 0xF2 | bytes[0] & 1;
            bytes[..2].copy_from_slice(&[prefix, 0x0F]);
        }
        _ => {}
    }
    let instruction = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).decode();
    tame(instruction, random)
}

fn tame(mut instruction: Instruction, random: &mut Random) -> Option<Instruction> {
    let legacy = instruction.op_code().encoding() == EncodingKind::Legacy;
    if instruction.is_invalid() || !legacy || instruction.flow_control() != FlowControl::Next {
        return None;
    }
    if instruction.is_privileged() || !reproducible(&instruction) || instruction.is_stack_instruction() {
        return None;
    }
    if (0..instruction.op_count()).any(|i| instruction.op_register(i).is_segment_register()) {
        return None;
    }
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::Memory => redirect(&mut instruction, random),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI | OpKind::MemorySegESI => {
                return None;
            }
            OpKind::MemoryESEDI | OpKind::MemorySegEDI | OpKind::MemorySegSI | OpKind::MemorySegDI => {
                return None;
            }
            OpKind::MemoryESDI => return None,
            _ => {}
        }
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&instruction);
    let writes_kept = info.used_registers().iter().any(|used| {
        let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        writes && KEPT.contains(&used.register().full_register())
    });
    let reads_rsp = info.used_registers().iter().any(|used| used.register().full_register() == Register::RSP);
    let encodes = Encoder::new(64).encode(&instruction, CODE).is_ok();
    (!writes_kept && !reads_rsp && encodes).then_some(instruction)
}

/// Keeps to the virtual processor's instructions (x86-64-v2), without those that may fault on random data, answer
/// differently elsewhere, or are call-outs.
fn reproducible(instruction: &Instruction) -> bool {
    use CpuidFeature as F;
    use Mnemonic as M;
    let known = instruction.cpuid_features().iter().all(|feature| {
        matches!(
            feature,
            F::INTEL8086
                | F::INTEL186
                | F::INTEL286
                | F::INTEL386
                | F::INTEL486
                | F::X64
                | F::CMOV
                | F::CX8
                | F::SSE
                | F::SSE2
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
                | F::POPCNT
        )
    });
    let excluded = matches!(
        instruction.mnemonic(),
        M::Div
            | M::Idiv
            | M::Lss
            | M::Lfs
            | M::Lgs
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Lsl
            | M::Lar
            | M::Verr
            | M::Verw
            | M::Sgdt
            | M::Sidt
            | M::Ldmxcsr
            | M::Stmxcsr
            | M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::In
            | M::Out
            | M::Cli
            | M::Sti
            | M::Xlatb
            | M::Maskmovdqu
            | M::Std
            | M::Fxsave
            | M::Fxrstor
    );
    let mmx = (0..instruction.op_count()).any(|i| instruction.op_register(i).is_mm());
    known && !excluded && !mmx
}

/// Points the memory operand at the data page: by an absolute base in r14, or relative to RIP.
fn redirect(instruction: &mut Instruction, random: &mut Random) {
    let offset = random.below(0x60) * 16;
    instruction.set_segment_prefix(Register::None);
    instruction.set_memory_index(Register::None);
    instruction.set_memory_index_scale(1);
    instruction.set_memory_displ_size(8);
    let bit_offset =
        matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
            && instruction.op1_kind() == OpKind::Register;
    if bit_offset || random.below(2) == 0 {
        instruction.set_memory_base(Register::RIP);
        instruction.set_memory_displacement64(DATA + offset);
    } else {
        instruction.set_memory_base(Register::R15);
        instruction.set_memory_displacement64(offset);
    }
}

/// A whole function: loads the register file, runs the body, stores the file. `count` instructions in all.
fn function(random: &mut Random) -> Vec<Instruction> {
    let mut instructions = prologue();
    let begin = instructions.len();
    while instructions.len() < begin + 24 {
        if let Some(instruction) = random_instruction(random) {
            let bit_by_register = matches!(
                instruction.code(),
                Code::Bt_rm64_r64
                    | Code::Bts_rm64_r64
                    | Code::Btr_rm64_r64
                    | Code::Btc_rm64_r64
                    | Code::Bt_rm32_r32
                    | Code::Bts_rm32_r32
                    | Code::Btr_rm32_r32
                    | Code::Btc_rm32_r32
                    | Code::Bt_rm16_r16
                    | Code::Bts_rm16_r16
                    | Code::Btr_rm16_r16
                    | Code::Btc_rm16_r16
            );
            if !(bit_by_register && instruction.op0_kind() == OpKind::Memory) {
                instructions.push(instruction);
            }
        }
    }
    let end = instructions.len();
    instructions.extend(epilogue());
    for (index, instruction) in instructions.iter_mut().enumerate() {
        instruction.set_ip(1 + index as u64);
    }
    // Some forward branches over a few instructions; every condition comes up.
    for index in (begin + 2..end - 6).step_by(5) {
        let target = 1 + index as u64 + 1 + random.below(5);
        if random.below(2) == 0 {
            let mut branch = Instruction::with_branch(jcc(random), target).expect("a conditional branch");
            branch.set_ip(1 + index as u64);
            instructions[index] = branch;
        }
    }
    instructions
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

fn general(index: u64) -> code_asm::AsmRegister64 {
    use code_asm::*;
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15][index as usize]
}

fn vector(index: u64) -> code_asm::AsmRegisterXmm {
    use code_asm::*;
    [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15]
        [index as usize]
}

/// Integer registers that the body may use: all but rsp and r15.
fn integers() -> impl Iterator<Item = u64> {
    (0..15).filter(|i| *i != 4)
}

fn prologue() -> Vec<Instruction> {
    let mut a = CodeAssembler::new(64).unwrap();
    for saved in [3, 5, 6, 7, 12, 13, 14, 15] {
        a.push(general(saved)).unwrap();
    }
    a.sub(code_asm::rsp, 0xA8).unwrap();
    for i in 6..16 {
        a.movups(ptr(code_asm::rsp + 16 * (i as i32 - 6)), vector(i)).unwrap();
    }
    a.mov(code_asm::r15, code_asm::rcx).unwrap();
    for i in 0..16 {
        a.movups(vector(i), ptr(code_asm::r15 + 0x900 + 16 * i as i32)).unwrap();
    }
    a.push(qword_ptr(code_asm::r15 + 0x880)).unwrap();
    a.popfq().unwrap();
    for i in integers() {
        a.mov(general(i), qword_ptr(code_asm::r15 + 0x800 + 8 * i as i32)).unwrap();
    }
    a.take_instructions()
}

fn epilogue() -> Vec<Instruction> {
    let mut a = CodeAssembler::new(64).unwrap();
    for i in integers() {
        a.mov(qword_ptr(code_asm::r15 + 0x800 + 8 * i as i32), general(i)).unwrap();
    }
    a.pushfq().unwrap();
    a.pop(qword_ptr(code_asm::r15 + 0x880)).unwrap();
    a.cld().unwrap();
    for i in 0..16 {
        a.movups(ptr(code_asm::r15 + 0x900 + 16 * i as i32), vector(i)).unwrap();
    }
    a.mov(byte_ptr(code_asm::r15 + 0xFFF), 0).unwrap();
    for i in 6..16 {
        a.movups(vector(i), ptr(code_asm::rsp + 16 * (i as i32 - 6))).unwrap();
    }
    a.add(code_asm::rsp, 0xA8).unwrap();
    for saved in [15, 14, 13, 12, 7, 6, 5, 3] {
        a.pop(general(saved)).unwrap();
    }
    a.mov(code_asm::eax, 0).unwrap();
    a.ret().unwrap();
    a.take_instructions()
}

fn encode(instructions: &[Instruction], at: u64) -> Option<Vec<u8>> {
    let block = InstructionBlock::new(instructions, at);
    BlockEncoder::encode(64, block, BlockEncoderOptions::DONT_FIX_BRANCHES)
        .ok()
        .map(|result| result.code_buffer)
}

fn data(random: &mut Random) -> Vec<u8> {
    let mut data: Vec<u8> = (0..DATA_SIZE).map(|_| (random.next() >> 24) as u8).collect();
    data[0x880..0x888].copy_from_slice(&(random.next() & 0xCD5 | 2).to_le_bytes());
    data
}

/// The data page after a run, with the flags reduced to those that mean something.
fn result(rig: &Rig) -> Vec<u8> {
    let mut data = vec![0; DATA_SIZE as usize];
    rig.engine.read_bytes(DATA, &mut data).unwrap();
    data[0x881] &= 0x0C;
    data[0x882..0x888].fill(0);
    data
}

fn difference(expected: &[u8], got: &[u8]) -> Option<String> {
    let at = (0..expected.len()).find(|i| expected[*i] != got[*i])?;
    let place = match at {
        0x800..0x880 => format!("register {:?}", (at - 0x800) / 8),
        0x880..0x888 => "flags".to_owned(),
        0x900..0xA00 => format!("xmm{}", (at - 0x900) / 16),
        _ => format!("memory {at:#x}"),
    };
    Some(format!("{place}: natively {:#x}, translated {:#x}", expected[at], got[at]))
}

fn listing(instructions: &[Instruction]) -> String {
    instructions.iter().map(|i| format!("    {i}\n")).collect()
}

#[test]
fn translated_sequences_do_what_native_ones_do() {
    let rounds = std::env::var("DIRQL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000u64);
    let rig = Rig::new(&[0xC3]);
    rig.map(DATA, DATA_SIZE);
    let native = Native::new(0x1000);
    assert_eq!(FILE + FILE_SIZE as u64, DATA + 0xC00);
    let mut compared = 0;
    let mut forms = std::collections::BTreeSet::new();
    for seed in 1..=rounds {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let instructions = function(&mut random);
        let (Some(here), Some(there)) = (encode(&instructions, CODE), encode(&instructions, native.base()))
        else {
            continue;
        };
        let data = data(&mut random);
        rig.engine.write_bytes(DATA, &data).unwrap();
        native.load(&there);
        native.call(native.base(), [DATA, 0, 0, 0]);
        let expected = result(&rig);
        rig.engine.protect(CODE, 0x1000, engine::Protection::READ_WRITE);
        rig.engine.write_bytes(CODE, &here).unwrap();
        rig.engine.protect(CODE, 0x1000, engine::Protection::READ_EXECUTE);
        let mut counts = Vec::new();
        for slices in [None, Some(1), Some(1 + random.below(9))] {
            rig.engine.write_bytes(DATA, &data).unwrap();
            *rig.on_slice.borrow_mut() = slices.map(|n| -> rig::Hook {
                Box::new(move |rig| {
                    rig.engine.set_slice(n);
                    Ok(())
                })
            });
            rig.engine.set_slice(slices.unwrap_or(u64::MAX));
            let before = rig.engine.now();
            let ended = rig.call(&[DATA]);
            assert_eq!(ended, Ok(0), "seed {seed}: {:?}\n{}", rig.fault.borrow(), listing(&instructions));
            counts.push(rig.engine.now() - before);
            if let Some(difference) = difference(&expected, &result(&rig)) {
                panic!("seed {seed}, slices {slices:?}: {difference}\n{}", listing(&instructions));
            }
        }
        assert!(counts.iter().all(|c| *c == counts[0]), "seed {seed}: instruction counts {counts:?}");
        compared += 1;
        forms.extend(instructions.iter().map(|i| format!("{:?}", i.code())));
    }
    assert!(compared > rounds * 9 / 10, "{compared} of {rounds} were encodable");
    assert!(forms.len() > 500, "only {} forms of instructions came up", forms.len());
}
