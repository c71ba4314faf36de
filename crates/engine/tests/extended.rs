//! Registers beyond SSE's, as a routine finds them: nothing in them is anybody else's, and nothing they tell is the host's.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; what is not tested is said"
)]

mod rig;

use engine::Cpu;
use iced_x86::code_asm::*;
use rig::native::Native;
use rig::{CODE, DATA, EXPORTS, Rig, assemble, assemble_at};

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
        return eprintln!("not told: this host lacks {missing:?}");
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
        let mut expected = run(&|| drop(native.call(native.base(), [DATA, 0, 0, 0])));
        let got = run(&|| drop(rig.call(&[DATA])));
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
