//! A generated attack on checked translation: memory instructions of every form that the decoder knows, made of an opcode that is worth it
//! and random bytes behind it, with registers that lead to memory of ours, to the edges of the driver's windows, across them, and there by
//! far bit offsets, indices of gathers, the direction flag, a count or a stack pointer. None may change a byte of ours or see one, each must end by
//! itself, and each that would go there is the driver's fault at its instruction.
//!
//! A sample stands here; `DIRQL_ROUNDS=1000000` does more.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed; bytes are cut out of random numbers"
)]

use engine::windows::{IMAGES, PAGE, SYSTEM, USER};
use engine::{Cpu, Leave, Protection};
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, Register};

use super::random::Random;
use super::rig::{CODE, DATA, DATA_SIZE, Rig, STACK_TOP, assemble};

/// What an attack begins with, behind its prefixes.
const OPCODES: &[&[u8]] = &[
    &[0x88],
    &[0x89],
    &[0x8A],
    &[0x8B],
    &[0xC6],
    &[0xC7],
    &[0x00],
    &[0x01],
    &[0x03],
    &[0x39],
    &[0x80],
    &[0x81],
    &[0x83],
    &[0x84],
    &[0x86],
    &[0x87],
    &[0x8C],
    &[0x8E],
    &[0x8F],
    &[0x63],
    &[0x69],
    &[0x6B],
    &[0xF6],
    &[0xF7],
    &[0xFE],
    &[0xFF],
    &[0xD0],
    &[0xD3],
    // Strings.
    &[0xA4],
    &[0xA5],
    &[0xA6],
    &[0xA7],
    &[0xAA],
    &[0xAB],
    &[0xAC],
    &[0xAD],
    &[0xAE],
    &[0xAF],
    &[0x6C],
    &[0x6D],
    &[0x6E],
    &[0x6F],
    // The stack.
    &[0x50],
    &[0x58],
    &[0x68],
    &[0x6A],
    &[0x9C],
    &[0x9D],
    &[0xC8],
    &[0xC9],
    &[0xE8, 0, 0, 0, 0],
    &[0xC2],
    &[0xC3],
    &[0xCA],
    &[0xCB],
    &[0xCF],
    &[0x0F, 0xA0],
    &[0x0F, 0xA1],
    &[0x0F, 0xA8],
    &[0x0F, 0xA9],
    // Addresses that are in the instruction, or in a table.
    &[0xA0],
    &[0xA1],
    &[0xA2],
    &[0xA3],
    &[0xD7],
    // x87.
    &[0xD8],
    &[0xD9],
    &[0xDA],
    &[0xDB],
    &[0xDC],
    &[0xDD],
    &[0xDE],
    &[0xDF],
    // Bits, exchanges, states, descriptors, hints.
    &[0x0F, 0xA3],
    &[0x0F, 0xAB],
    &[0x0F, 0xB3],
    &[0x0F, 0xBB],
    &[0x0F, 0xBA],
    &[0x0F, 0xB0],
    &[0x0F, 0xB1],
    &[0x0F, 0xC0],
    &[0x0F, 0xC1],
    &[0x0F, 0xC7],
    &[0x0F, 0xAE],
    &[0x0F, 0xC3],
    &[0x0F, 0x00],
    &[0x0F, 0x01],
    &[0x0F, 0x0D],
    &[0x0F, 0x18],
    &[0x0F, 0xB2],
    &[0x0F, 0xB4],
    &[0x0F, 0xA4],
    &[0x0F, 0xAD],
    &[0x0F, 0x90],
    &[0x0F, 0x44],
    &[0x0F, 0x1F],
    &[0x0F, 0x38, 0xF0],
    &[0x0F, 0x38, 0xF1],
    &[0x0F, 0x38, 0xF6],
    &[0x0F, 0x38, 0xF8],
    &[0x0F, 0x38, 0xF9],
    // Vectors.
    &[0x0F, 0x10],
    &[0x0F, 0x11],
    &[0x0F, 0x13],
    &[0x0F, 0x16],
    &[0x0F, 0x17],
    &[0x0F, 0x28],
    &[0x0F, 0x29],
    &[0x0F, 0x2B],
    &[0x0F, 0x51],
    &[0x0F, 0x58],
    &[0x0F, 0x6F],
    &[0x0F, 0x7E],
    &[0x0F, 0x7F],
    &[0x0F, 0xD6],
    &[0x0F, 0xE7],
    &[0x0F, 0xF0],
    &[0x0F, 0xF7],
    &[0x0F, 0x38, 0x2A],
    &[0x0F, 0x38, 0x00],
    &[0x0F, 0x3A, 0x14],
    &[0x0F, 0x3A, 0x16],
    &[0x0F, 0x3A, 0x17],
    &[0x0F, 0x3A, 0x22],
    &[0x0F, 0x3A, 0x63],
    // VEX: the maps 0F, 0F38 and 0F3A, whatever comes; masked moves and gathers.
    &[0xC5],
    &[0xC4, 0xE1],
    &[0xC4, 0xE2],
    &[0xC4, 0xE3],
    &[0xC4, 0xC2],
    &[0xC4, 0xE2, 0x75, 0x2C],
    &[0xC4, 0xE2, 0x75, 0x2E],
    &[0xC4, 0xE2, 0x75, 0x8C],
    &[0xC4, 0xE2, 0xF5, 0x8E],
    &[0xC4, 0xE2, 0x75, 0x90],
    &[0xC4, 0xE2, 0xF5, 0x90],
    &[0xC4, 0xE2, 0x75, 0x92],
    &[0xC4, 0xE2, 0xF5, 0x93],
    &[0xC4, 0xE2, 0x75, 0x91],
];

const PREFIXES: [u8; 12] = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36, 0x64, 0x41, 0x48, 0x49, 0x4C];

/// Bytes before and behind a target that are looked at too, in the host's own memory.
const AROUND: u64 = 8 * PAGE;

/// Memory of the host's, and what is in it.
fn host() -> &'static [u64] {
    Box::leak(vec![0x0707_0707_0707_0707; 2 * AROUND as usize / 8].into_boxed_slice())
}

/// An address in each kind of memory that is ours.
fn ours(rig: &Rig, host: &[u64]) -> Vec<u64> {
    let [heap, pages, stacks, code, table] = rig.engine.own_windows().map(|window| window.base);
    let shadows = [0x0A00_0000_0740, 0x0060_0000_0B40].map(|distance| DATA + DATA_SIZE / 2 + distance);
    let middle = host.as_ptr() as u64 + AROUND;
    let known = [0x2000_6000_0000, 0x7000_0800, 0x2000_5F00_0800, 0x2001_8000_0000];
    let hidden = [heap + 0x1000, pages, stacks + 0x4_0000, code, table, middle, middle, middle];
    known.into_iter().chain(hidden).chain(shadows).collect()
}

fn peek(address: u64) -> [u8; 64] {
    // SAFETY: the addresses of `ours` are mapped and readable.
    unsafe { std::ptr::read_volatile(std::ptr::with_exposed_provenance(address as usize)) }
}

/// What the registers of an attack on `target` hold.
fn registers(random: &mut Random, target: u64) -> [u64; 16] {
    let edges = [
        SYSTEM.base,
        SYSTEM.end(),
        USER.base,
        USER.end(),
        IMAGES.base,
        IMAGES.end(),
        DATA + DATA_SIZE,
        DATA,
        CODE,
    ];
    std::array::from_fn(|_| {
        let near = random.next() % 160;
        match random.next() % 12 {
            0..4 => target.wrapping_add(near).wrapping_sub(80),
            4 => random.one(&edges).wrapping_add(near).wrapping_sub(80),
            5 => DATA + DATA_SIZE / 2,
            // From there to the target: by bits, and by elements.
            6 => target.wrapping_sub(DATA + DATA_SIZE / 2).wrapping_mul(8),
            7 => target.wrapping_sub(DATA + DATA_SIZE / 2) / random.one(&[1, 2, 4, 8]),
            8 => random.one(&[0, 1, 2, 8, 0x1000, u64::MAX, 1 << 63, 0xFFFF_FFFF]),
            9 => target.wrapping_sub(STACK_TOP),
            10 => near,
            _ => random.next(),
        }
    })
}

/// An attack: one instruction, as its bytes.
fn attack(random: &mut Random) -> Option<(Instruction, Vec<u8>)> {
    let mut bytes = Vec::new();
    for _ in 0..random.next() % 4 {
        bytes.push(random.one(&PREFIXES));
    }
    bytes.extend(random.one(OPCODES));
    while bytes.len() < 16 {
        let any = random.next() as u8;
        // Small displacements and immediates are worth more.
        bytes.push(if random.chance(2) { any } else { any & 0x3F });
    }
    let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
    let instruction = decoder.decode();
    bytes.truncate(instruction.len());
    (!instruction.is_invalid()).then_some((instruction, bytes))
}

const GENERAL: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

/// The code of an attack: registers, direction, the instruction, the end. Where the instruction lies.
fn code(file: &[u64; 16], down: bool, wide: bool, bytes: &[u8]) -> (Vec<u8>, u64) {
    let mut all = assemble(|a| {
        a.mov(rax, DATA).unwrap();
        for number in 0..8 {
            let at = rax + 32 * number;
            if wide {
                a.vmovups([ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7][number], ymmword_ptr(at)).unwrap();
            } else {
                a.movups([xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7][number], xmmword_ptr(at)).unwrap();
            }
        }
        if down {
            a.std().unwrap();
        }
        for (register, value) in GENERAL.into_iter().zip(file) {
            a.mov(register, *value).unwrap();
        }
    });
    let at = CODE + all.len() as u64;
    all.extend(bytes);
    all.extend([0x0F, 0x0B].repeat(16));
    (all, at)
}

/// Whether the instruction at `rip` reads or writes a byte of `[from, to)` whatever else holds.
fn goes_there(instruction: &Instruction, rip: u64, file: &[u64; 16], from: u64, to: u64) -> bool {
    let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
    if instruction.has_rep_prefix() || instruction.has_repne_prefix() || name.contains("maskmov") {
        return false; // a count may be zero, and a mask
    }
    let mut here = *instruction;
    here.set_ip(rip);
    here.set_next_ip(rip + instruction.len() as u64);
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&here);
    info.used_memory().iter().any(|used| {
        let certain = matches!(used.access(), OpAccess::Read | OpAccess::Write | OpAccess::ReadWrite);
        let address = used.virtual_address(0, |register, _, _| match register {
            Register::RIP => Some(0),
            _ if register.is_gpr() => {
                let value = file[register.full_register().number()];
                Some(if register.is_gpr32() { value & 0xFFFF_FFFF } else { value })
            }
            _ if register.is_segment_register() && !matches!(register, Register::FS | Register::GS) => {
                Some(0)
            }
            _ => None,
        });
        let bytes = (used.memory_size().size() as u64).max(1);
        certain && address.is_some_and(|at| at < to && at.saturating_add(bytes) > from)
    })
}

fn rounds() -> u64 {
    std::env::var("DIRQL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000)
}

#[test]
fn no_generated_attack_reaches_what_is_ours() {
    let rig = Rig::checked(&[0xC3]);
    let wide = Cpu::X86_64V3.missing().is_empty();
    if wide {
        rig.engine.imitate(Cpu::X86_64V3);
    }
    let mut random = Random::new(0x2545_F491_4F6C_DD1D);
    let host = host();
    let targets = ours(&rig, host);
    let (from, to) = (host.as_ptr() as u64, host.as_ptr() as u64 + 2 * AROUND);
    let (mut made, mut there) = (0, 0);
    while made < rounds() {
        let Some((instruction, bytes)) = attack(&mut random) else { continue };
        made += 1;
        let target = random.one(&targets);
        let (file, down) = (registers(&mut random, target), random.chance(2));
        let mut vectors = [0_u8; 256];
        for lane in vectors.chunks_mut(8) {
            let any = random.next();
            let value = random.one(&[
                u64::MAX,
                0,
                target,
                target.wrapping_sub(DATA + DATA_SIZE / 2),
                0x8000_0000_8000_0000,
                any,
            ]);
            lane.copy_from_slice(&value.to_le_bytes());
        }
        let (code, at) = code(&file, down, wide, &bytes);
        rig.engine.protect(CODE, PAGE, Protection::READ_WRITE);
        rig.engine.write_bytes(CODE, &code).unwrap();
        rig.engine.write_bytes(DATA, &vectors).unwrap();
        rig.engine.protect(CODE, PAGE, Protection::READ_EXECUTE);
        rig.engine.set_slice(10_000);
        *rig.on_slice.borrow_mut() = Some(Box::new(|_| Err(Leave::Stop)));
        *rig.fault.borrow_mut() = None;
        let before = peek(target);
        let ended = rig.call(&[]);
        let said = || {
            format!(
                "attack {made} on {target:#x}: {bytes:02x?} `{instruction}`, down {down}, {file:x?}: {ended:?} {:x?}",
                rig.fault
            )
        };
        assert_eq!(rig.engine.panic_message(), None, "{}", said());
        assert!(peek(target) == before, "{}", said());
        assert!(host.iter().all(|word| *word == 0x0707_0707_0707_0707), "{}", said());
        if goes_there(&instruction, at, &file, from, to) {
            there += 1;
            let stopped = rig.fault.borrow().is_some_and(|fault| fault.caller.rip == at);
            assert!(ended == Err(Leave::Stop) && stopped, "{}", said());
        }
    }
    assert!(there > rounds() / 40, "only {there} of {made} go where they must not");
}
