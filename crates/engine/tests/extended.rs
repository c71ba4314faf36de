//! Registers beyond SSE's, as a routine finds them: nothing in them is anybody else's, and nothing they tell is the host's.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; what is not tested is said"
)]

use engine::{Cpu, FaultKind, Leave, Stack};
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::rig::native::Native;
use super::rig::{self, CODE, DATA, EXPORTS, Rig, STACK_TOP, assemble, assemble_at};

const SECOND: u64 = CODE + 0x10_0000;

#[test]
fn a_routine_does_not_see_what_another_left_in_mmx_registers() {
    let rig = Rig::new(&assemble(|a| {
        for register in [mm0, mm1, mm2, mm3, mm4, mm5, mm6, mm7] {
            a.movq(register, rcx).unwrap();
        }
        a.emms().unwrap();
        a.ret().unwrap();
    }));
    rig.load(
        SECOND,
        &assemble_at(SECOND, |a| {
            a.movq(rax, mm0).unwrap();
            for register in [mm1, mm2, mm3, mm4, mm5, mm6, mm7] {
                a.movq(rdx, register).unwrap();
                a.or(rax, rdx).unwrap();
            }
            a.ret().unwrap();
        }),
    );
    assert_eq!(rig.call_at(SECOND, &[]), Ok(0), "nor what the host left");
    rig.call(&[u64::MAX]).unwrap();
    assert_eq!(rig.call_at(SECOND, &[]), Ok(0));
}

#[test]
fn upper_halves_are_empty_at_first_and_after_a_call_of_the_kernel() {
    let missing = Cpu::X86_64V3.missing();
    if !missing.is_empty() {
        return eprintln!("skipped: this host lacks {missing:?}");
    }
    let fill = |a: &mut CodeAssembler| {
        for register in [ymm0, ymm3, ymm6, ymm15] {
            a.vpcmpeqd(register, register, register).unwrap();
        }
    };
    let sum = |a: &mut CodeAssembler| {
        a.vorps(ymm0, ymm0, ymm3).unwrap();
        a.vorps(ymm0, ymm0, ymm6).unwrap();
        a.vorps(ymm0, ymm0, ymm15).unwrap();
        a.vextracti128(xmm0, ymm0, 1).unwrap();
        a.vmovq(rax, xmm0).unwrap();
    };
    let rig = Rig::new(&assemble(|a| {
        fill(a);
        a.ret().unwrap();
    }));
    rig.engine.imitate(Cpu::X86_64V3);
    rig.load(
        SECOND,
        &assemble_at(SECOND, |a| {
            sum(a);
            a.ret().unwrap();
        }),
    );
    rig.load(
        SECOND + 0x1000,
        &assemble_at(SECOND + 0x1000, |a| {
            a.sub(rsp, 0x28).unwrap();
            fill(a);
            a.mov(rax, EXPORTS + 0x1000).unwrap();
            a.call(rax).unwrap();
            sum(a);
            a.add(rsp, 0x28).unwrap();
            a.ret().unwrap();
        }),
    );
    rig.engine.define_export(EXPORTS + 0x1000, 0);
    assert_eq!(rig.call_at(SECOND, &[]), Ok(0));
    rig.call(&[]).unwrap();
    assert_eq!(rig.call_at(SECOND, &[]), Ok(0), "another routine's");
    assert_eq!(rig.call_at(SECOND + 0x1000, &[]), Ok(0), "its own, which a call may change");
}

/// A gather whose index is the first `ymm` register that any driver code names.
#[test]
fn an_index_finds_its_upper_half_empty_too() {
    let missing = Cpu::X86_64V3.missing();
    if !missing.is_empty() {
        return eprintln!("skipped: this host lacks {missing:?}");
    }
    let rig = Rig::new(&assemble(|a| {
        a.vpcmpeqd(xmm3, xmm3, xmm3).unwrap();
        let memory = MemoryOperand::with_base_index(Register::RCX, Register::YMM2);
        let code = Code::VEX_Vgatherqps_xmm_vm64y_xmm;
        let gather = Instruction::with3(code, Register::XMM1, memory, Register::XMM3).unwrap();
        a.add_instruction(gather).unwrap();
        a.vpextrd(eax, xmm1, 3).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.imitate(Cpu::X86_64V3);
    rig.engine.write_bytes(DATA, &[9, 0, 0, 0, 7, 0, 0, 0]).unwrap();
    let native = Native::new(0x1000);
    let mut host = CodeAssembler::new(64).unwrap();
    host.vpcmpeqd(ymm2, ymm2, ymm2).unwrap();
    host.ret().unwrap();
    native.load(&host.assemble(native.base()).unwrap());
    for _ in 0..3 {
        native.call(native.base(), [0; 4]);
        assert_eq!(rig.call(&[DATA + 4]), Ok(7), "the host's own is not seen");
    }
}

#[test]
fn an_x87_exception_comes_at_the_next_instruction_that_waits_whatever_lies_between() {
    let code = assemble(|a| {
        a.fninit().unwrap();
        a.mov(dword_ptr(rcx), 0x27B).unwrap(); // division by zero is not masked
        a.fldcw(word_ptr(rcx)).unwrap();
        a.fld1().unwrap();
        a.fldz().unwrap();
        a.fdivp(st1, st0).unwrap();
        a.nop().unwrap();
        a.fnstsw(ax).unwrap();
        a.nop().unwrap();
        a.wait().unwrap();
        a.ret().unwrap();
    });
    let at = code.len() as u64 - 2;
    let rig = Rig::new(&code);
    let inner = &assemble_at(SECOND, |a| {
        a.fldpi().unwrap();
        a.fstp(st0).unwrap();
        a.wait().unwrap();
        a.ret().unwrap();
    });
    rig.load(SECOND, inner);
    for interrupted in [false, true] {
        *rig.on_slice.borrow_mut() = interrupted.then(|| -> rig::Hook {
            Box::new(|rig| {
                rig.engine.set_slice(u64::MAX);
                rig.engine.call(SECOND, &[], Stack::At(STACK_TOP + 0x1000))?;
                rig.engine.set_slice(1);
                Ok(())
            })
        });
        rig.engine.set_slice(if interrupted { 1 } else { u64::MAX });
        assert_eq!(rig.call(&[DATA]), Err(Leave::Stop));
        let fault = rig.the_fault();
        assert_eq!((fault.kind, fault.caller.rip - CODE), (FaultKind::FloatingPoint, at));
        assert_eq!(fault.caller.registers.general[0] & 0x84, 0x84, "the status word said so");
    }
}

/// Where the last x87 instruction was: offsets and lengths of it in what each instruction stores, and how much that is.
#[test]
fn what_is_stored_of_x87_does_not_tell_where_its_translation_lies() {
    type Store = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let stores: [(Store, usize, std::ops::Range<usize>); 6] = [
        (|a| a.fnstenv(ptr(rcx)), 28, 12..28),
        (|a| a.fnsave(ptr(rcx + r8 * 4)), 108, 12..28),
        (|a| a.db(&[0x66, 0xD9, 0x31]), 14, 6..14), // fnstenv, in its 16-bit form
        (|a| a.db(&[0x66, 0xDD, 0x31]), 94, 6..14), // fnsave
        (|a| a.fxsave(ptr(rcx)), 512, 6..24),
        (|a| a.fxsave64(ptr(rcx)), 512, 6..24),
    ];
    for (store, length, places) in stores {
        let code = assemble(|a| {
            a.xor(r8d, r8d).unwrap();
            a.fninit().unwrap();
            a.fld1().unwrap();
            a.fld(qword_ptr(rcx)).unwrap();
            store(a).unwrap();
            a.fninit().unwrap();
            a.ret().unwrap();
        });
        let rig = Rig::new(&code);
        let native = Native::new(0x1000);
        native.load(&code);
        let run = |how: &dyn Fn()| {
            rig.engine.write_bytes(DATA, &[0x3C; 512]).unwrap();
            how();
            let mut stored = vec![0; length];
            rig.engine.read_bytes(DATA, &mut stored).unwrap();
            stored
        };
        let mut expected = run(&|| {
            native.call(native.base(), [DATA, 0, 0, 0]);
        });
        let got = run(&|| {
            rig.call(&[DATA]).unwrap();
        });
        let sliced = run(&|| {
            *rig.on_slice.borrow_mut() = Some(Box::new(|rig| {
                rig.engine.set_slice(1);
                Ok(())
            }));
            rig.engine.set_slice(1);
            rig.call(&[DATA]).unwrap();
        });
        assert_eq!(got, sliced, "{length} bytes");
        expected[places].fill(0);
        if length == 512 {
            // The host's own vector registers, and what lies behind what is stored.
            assert_eq!(got[..160], expected[..160]);
        } else {
            assert_eq!(got, expected, "{length} bytes");
        }
    }
}
