//! Jumps to a sum, which are looked up in front of the addition, and branches that are turned round because what they fall to is
//! translated already.

use engine::windows::IMAGES;
use engine::{FaultKind, Leave, Protection};
use iced_x86::code_asm::*;

use super::rig::native::Native;
use super::rig::{CODE, DATA, Rig, assemble, assemble_at};

const PAGE: u64 = 0x1000;
/// Where the sums lead to, in an image.
const CASE: u64 = CODE + 0x10_0000;
/// The carry, sign and overflow flags of one, none or all of them.
const ADDED: [u64; 5] = [0x30, 0x8000_0000_0000_0001, 0x7FFF_FFFF_FFFF_FFFF, u64::MAX, CODE];

/// What is added up and jumped to, and what is added to it.
fn registers() -> Vec<(AsmRegister64, AsmRegister64)> {
    vec![(rcx, r11), (rax, rdx), (rdx, rax), (r8, rcx), (r12, rdx), (rdi, r15), (rcx, rdx), (r11, rbp)]
}

/// Loads all registers, adds, and jumps to `target`.
fn jump(a: &mut CodeAssembler, sum: AsmRegister64, added: AsmRegister64, target: u64, constant: u64) {
    for (number, register) in [rax, rcx, rdx, r8, r9, r10, r11].into_iter().enumerate() {
        a.mov(register, 0x101 * (number as u64 + 1)).unwrap();
    }
    a.mov(sum, target.wrapping_sub(constant)).unwrap();
    a.mov(added, constant).unwrap();
    a.add(sum, added).unwrap();
    a.jmp(sum).unwrap();
}

/// Sums up the volatile registers and the flags.
fn look(a: &mut CodeAssembler) {
    a.mov(qword_ptr(rsp + 8), rax).unwrap();
    a.lahf().unwrap();
    a.seto(al).unwrap();
    a.movzx(eax, ax).unwrap();
    for register in [rcx, rdx, r8, r9, r10, r11] {
        a.rol(rax, 9).unwrap();
        a.add(rax, register).unwrap();
    }
    a.add(rax, qword_ptr(rsp + 8)).unwrap();
    a.ret().unwrap();
}

/// Whole, and with an end of the slice in front of each instruction: the same result and count.
fn everywhere(rig: &Rig, expected: u64) {
    let run = |slice: u64| {
        let begun = rig.engine.retired();
        rig.engine.set_slice(slice);
        assert_eq!(rig.call(&[]), Ok(expected), "in slices of {slice}");
        rig.engine.retired() - begun
    };
    let whole = run(u64::MAX);
    for slice in [1, 2, 3, 7] {
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            rig.engine.set_slice(slice);
            Ok(())
        }));
        assert_eq!(run(slice), whole);
    }
    *rig.on_slice.borrow_mut() = None;
}

#[test]
fn a_case_finds_the_registers_and_flags_of_the_addition_that_led_there() {
    let rig = Rig::new(&[0xC3]);
    let native = Native::new(0x1000);
    rig.load(CASE, &assemble_at(CASE, look));
    for (sum, added) in registers() {
        for constant in ADDED {
            // Natively the code stands where the jump would lead from.
            let code = |go: &dyn Fn(&mut CodeAssembler)| {
                assemble(|a| {
                    a.push(rdi).unwrap();
                    a.push(r12).unwrap();
                    a.push(r15).unwrap();
                    a.push(rbp).unwrap();
                    let mut case = a.create_label();
                    a.sub(rsp, 0x20).unwrap();
                    a.call(case).unwrap();
                    a.add(rsp, 0x20).unwrap();
                    a.pop(rbp).unwrap();
                    a.pop(r15).unwrap();
                    a.pop(r12).unwrap();
                    a.pop(rdi).unwrap();
                    a.ret().unwrap();
                    a.set_label(&mut case).unwrap();
                    go(a);
                })
            };
            let straight = code(&|a| {
                jump_without_jumping(a, sum, added, constant);
                look(a);
            });
            native.load(&straight);
            let expected = native.call(native.base(), [0; 4]);
            rig.engine.protect(CODE, PAGE, Protection::READ_WRITE);
            rig.engine.write_bytes(CODE, &code(&|a| jump(a, sum, added, CASE, constant))).unwrap();
            rig.engine.protect(CODE, PAGE, Protection::READ_EXECUTE);
            everywhere(&rig, expected);
        }
    }
}

/// As [`jump`] to [`CASE`], but for its last instruction.
fn jump_without_jumping(a: &mut CodeAssembler, sum: AsmRegister64, added: AsmRegister64, constant: u64) {
    for (number, register) in [rax, rcx, rdx, r8, r9, r10, r11].into_iter().enumerate() {
        a.mov(register, 0x101 * (number as u64 + 1)).unwrap();
    }
    a.mov(sum, CASE.wrapping_sub(constant)).unwrap();
    a.mov(added, constant).unwrap();
    a.add(sum, added).unwrap();
}

#[test]
fn a_sum_that_is_no_address_of_code_faults_as_any_other_jump() {
    // An instruction between the addition and the jump makes it another kind. Below, above and far behind the images, and where only the low half is an image's.
    let bad = [8, IMAGES.end(), IMAGES.base - 8, DATA, 1 << 63, CASE + (1 << 32), CASE - (1 << 40)];
    for target in bad {
        let fault = |apart: bool| {
            let rig = Rig::new(&assemble(|a| {
                a.mov(rdx, 0x77u64).unwrap();
                a.mov(rcx, target.wrapping_sub(0x1234)).unwrap();
                a.mov(r11d, 0x1234).unwrap();
                if !apart {
                    a.nop().unwrap();
                }
                a.add(rcx, r11).unwrap();
                if apart {
                    a.nop().unwrap();
                }
                a.jmp(rcx).unwrap();
            }));
            rig.load(CASE, &assemble_at(CASE, look));
            rig.call_at(CASE, &[]).unwrap();
            let begun = rig.engine.now();
            assert_eq!(rig.call(&[]), Err(Leave::Stop));
            let fault = rig.the_fault();
            let general = fault.caller.registers.general;
            assert_eq!((general[1], general[2], general[11]), (target, 0x77, 0x1234), "{target:x}");
            (fault.kind, fault.address, fault.caller.registers.flags & 0x8D5, rig.engine.now() - begun)
        };
        let sum = fault(false);
        assert_eq!(sum.0, FaultKind::Execute);
        assert_eq!(sum, fault(true), "{target:x}");
    }
}

#[test]
fn a_sum_may_lead_out_of_images() {
    let pool = DATA + 0x4000;
    let rig = Rig::new(&assemble(|a| jump(a, rcx, r11, pool, 0x8000_0000_0000_0001)));
    rig.engine.write_bytes(pool, &[0xB8, 9, 0, 0, 0, 0xC3]).unwrap(); // mov eax, 9; ret
    rig.engine.protect(pool, PAGE, Protection::READ_EXECUTE);
    everywhere(&rig, 9);
}

#[test]
fn a_branch_whose_next_instruction_was_there_before_goes_both_ways() {
    type Branch = fn(&mut CodeAssembler, CodeLabel);
    let all: [Branch; 16] = [
        |a, l| a.jo(l).unwrap(),
        |a, l| a.jno(l).unwrap(),
        |a, l| a.jb(l).unwrap(),
        |a, l| a.jae(l).unwrap(),
        |a, l| a.je(l).unwrap(),
        |a, l| a.jne(l).unwrap(),
        |a, l| a.jbe(l).unwrap(),
        |a, l| a.ja(l).unwrap(),
        |a, l| a.js(l).unwrap(),
        |a, l| a.jns(l).unwrap(),
        |a, l| a.jp(l).unwrap(),
        |a, l| a.jnp(l).unwrap(),
        |a, l| a.jl(l).unwrap(),
        |a, l| a.jge(l).unwrap(),
        |a, l| a.jle(l).unwrap(),
        |a, l| a.jg(l).unwrap(),
    ];
    let native = Native::new(0x1000);
    let numbers = [0u64, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF];
    for (number, branch) in all.into_iter().enumerate() {
        let at = CODE + PAGE * (number as u64 + 1);
        let code = assemble_at(at, |a| {
            let mut taken = a.create_label();
            a.cmp(ecx, edx).unwrap();
            branch(a, taken);
            a.setb(al).unwrap();
            a.movzx(eax, al).unwrap();
            a.ret().unwrap();
            a.set_label(&mut taken).unwrap();
            a.setb(al).unwrap();
            a.movzx(eax, al).unwrap();
            a.add(eax, 2).unwrap();
            a.ret().unwrap();
        });
        native.load(&code);
        let rig = Rig::new(&[0xC3]);
        rig.load(at, &code);
        assert!(rig.call_at(at + 4, &[]).is_ok(), "what comes behind the branch is translated");
        for (one, other) in numbers.into_iter().flat_map(|one| numbers.map(|other| (one, other))) {
            let expected = native.call(native.base(), [one, other, 0, 0]);
            let begun = rig.engine.retired();
            assert_eq!(rig.call_at(at, &[one, other]), Ok(expected), "branch {number} of {one:x}, {other:x}");
            let whole = if expected & 2 == 0 { 5 } else { 6 };
            assert_eq!(rig.engine.retired() - begun, whole);
        }
    }
}

/// Four cases of 16 bytes, chosen by the round; each leads back to a branch in front of the switch. The argument is the number of rounds.
/// Answers where the switch begins, too.
fn rounds() -> (Vec<u8>, u64) {
    let code = assemble(|a| {
        let (mut head, mut cases, mut done) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(r8d, ecx).unwrap();
        a.mov(eax, 1).unwrap();
        a.lea(r9, ptr(cases)).unwrap();
        a.set_label(&mut head).unwrap();
        a.cmp(r8d, 1000).unwrap();
        a.ja(done).unwrap();
        a.mov(r11d, r8d).unwrap();
        a.and(r11d, 3).unwrap();
        a.shl(r11d, 4).unwrap();
        a.mov(edx, 0x77).unwrap();
        a.add(r11, r9).unwrap();
        a.jmp(r11).unwrap();
        a.set_label(&mut done).unwrap();
        a.or(rax, -1).unwrap();
        a.ret().unwrap();
        a.set_label(&mut cases).unwrap();
        for case in 1..5 {
            a.lea(eax, rax + rax * 2 + case).unwrap();
            a.dec(r8d).unwrap();
            a.jne(head).unwrap();
            a.ret().unwrap();
            a.db(&[0xCC; 6]).unwrap();
        }
    });
    let switch = code.windows(3).position(|bytes| bytes == [0x45, 0x89, 0xC3]).unwrap() as u64;
    (code, CODE + switch)
}

#[test]
fn a_switch_that_has_copies_goes_to_the_same_cases_from_each() {
    let (code, switch) = rounds();
    let native = Native::new(0x1000);
    native.load(&code);
    for switch_first in [false, true] {
        let rig = Rig::new(&code);
        if switch_first {
            // With registers that lead to a place of their own: it is translated before the branch is.
            assert_eq!(rig.call_at(switch, &[]), Err(Leave::Stop));
            assert_eq!(rig.the_fault().kind, FaultKind::Execute);
        }
        let run = |rounds: u64, slice: u64| {
            let begun = rig.engine.retired();
            rig.engine.set_slice(slice);
            assert_eq!(rig.call(&[rounds]), Ok(native.call(native.base(), [rounds, 0, 0, 0])));
            assert_eq!(rig.engine.retired() - begun, if rounds > 1000 { 7 } else { 3 + rounds * 11 + 1 });
        };
        for rounds in [1, 2, 7, 1001, 40] {
            run(rounds, u64::MAX);
        }
        for slice in [1, 2, 3, 5, 8, 13] {
            *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
                rig.engine.set_slice(slice);
                Ok(())
            }));
            run(40, slice);
        }
        *rig.on_slice.borrow_mut() = None;
    }
}
