//! Returns whose target is looked up ahead of the pops, and calls that go where they went first: where that does not hold.

use engine::{FaultKind, Leave, Protection, Stack};
use iced_x86::code_asm::*;

use super::rig::{self, CODE, DATA, Rig, STACK_TOP, assemble};

/// Whole, and with an end of the slice in front of each instruction: the same result and count.
fn everywhere(rig: &Rig, arguments: &[u64], expected: u64) {
    let run = |slice: u64| {
        let begun = rig.engine.retired();
        rig.engine.set_slice(slice);
        assert_eq!(rig.call(arguments), Ok(expected), "in slices of {slice}");
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
fn a_pop_in_front_of_a_return_faults_with_the_registers_it_found() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(ebx, 1).unwrap();
        a.mov(esi, 2).unwrap();
        a.stc().unwrap();
        a.mov(rsp, DATA - 0x10).unwrap();
        a.add(rsp, 8).unwrap();
        a.pop(rbx).unwrap();
        a.pop(rsi).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.write_bytes(DATA + 8, &engine::RETURN_TO_KERNEL.to_le_bytes()).unwrap();
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    let fault = rig.the_fault();
    let general = fault.caller.registers.general;
    assert_eq!((fault.kind, fault.address), (FaultKind::Read, DATA - 8));
    assert_eq!((general[3], general[6], general[4]), (1, 2, DATA - 8));
    assert_eq!(fault.caller.registers.flags & 1, 0, "the carry flag is that of `add`");
    assert_eq!(rig.engine.now(), 5, "the pop has not retired");
    let mut slot = [0; 8];
    rig.engine.read_bytes(DATA + 8, &mut slot).unwrap();
    assert_eq!(u64::from_le_bytes(slot), engine::RETURN_TO_KERNEL, "and the stack is as it was");
}

#[test]
fn a_division_in_front_of_a_return_faults_with_the_return_address_on_the_stack() {
    let rig = Rig::new(&assemble(|a| {
        a.xor(r8d, r8d).unwrap();
        a.mov(eax, 5).unwrap();
        a.cdq().unwrap();
        a.idiv(r8d).unwrap();
        a.add(eax, 1).unwrap();
        a.ret().unwrap();
    }));
    *rig.on_fault.borrow_mut() = Some(Box::new(|rig, fault| {
        let mut slot = [0; 8];
        rig.engine.read_bytes(fault.caller.registers.rsp(), &mut slot).unwrap();
        assert_eq!(u64::from_le_bytes(slot), engine::RETURN_TO_KERNEL);
        Leave::Stop
    }));
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().caller.rip), (FaultKind::Divide, CODE + 9));
    assert_eq!(rig.engine.panic_message(), None);
}

#[test]
fn an_address_that_no_call_has_pushed_is_returned_to_with_all_registers() {
    let rig = Rig::new(&assemble(|a| {
        let mut there = a.create_label();
        a.push(rbx).unwrap();
        a.push(r12).unwrap();
        a.lea(rax, ptr(there)).unwrap();
        a.push(rax).unwrap();
        a.push(7).unwrap();
        a.push(5).unwrap();
        a.sub(rsp, 0x20).unwrap();
        a.mov(ebx, 100).unwrap();
        a.mov(r12d, 200).unwrap();
        a.mov(eax, 1000).unwrap();
        a.add(rsp, 0x20).unwrap();
        a.pop(r12).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut there).unwrap();
        a.add(rax, rbx).unwrap();
        a.shl(r12, 8).unwrap();
        a.add(rax, r12).unwrap();
        a.pop(r12).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
    }));
    everywhere(&rig, &[], 1000 + 7 + (5 << 8));
}

#[test]
fn a_routine_returns_from_a_stack_that_cannot_be_written() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rsp, DATA).unwrap();
        a.mov(ecx, 9).unwrap();
        a.mov(edx, 4).unwrap();
        a.add(rsp, 0x10).unwrap();
        a.pop(rax).unwrap();
        a.ret().unwrap();
    }));
    // Where it returns to: a routine that takes its caller's stack back.
    let back = CODE + 0x10_0000;
    rig.load(
        back,
        &assemble(|a| {
            a.add(rax, rcx).unwrap();
            a.add(rax, rdx).unwrap();
            a.mov(rsp, r8).unwrap();
            a.ret().unwrap();
        }),
    );
    rig.engine.write_bytes(DATA + 0x10, &100u64.to_le_bytes()).unwrap();
    rig.engine.write_bytes(DATA + 0x18, &back.to_le_bytes()).unwrap();
    rig.engine.protect(DATA, 0x1000, Protection { read: true, write: false, execute: false });
    let begun = (STACK_TOP - 0x20) & !15;
    everywhere(&rig, &[0, 0, begun - 8], 113);
}

#[test]
fn a_call_through_a_register_goes_elsewhere_the_next_time() {
    let rig = Rig::new(&assemble(|a| {
        let (mut one, mut two, mut again, mut first) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.push(rbx).unwrap();
        a.push(r12).unwrap();
        a.push(rsi).unwrap();
        a.xor(esi, esi).unwrap();
        a.mov(ebx, 9).unwrap();
        a.set_label(&mut again).unwrap();
        a.lea(r12, ptr(one)).unwrap();
        a.test(bl, 1).unwrap();
        a.je(first).unwrap();
        a.lea(r12, ptr(two)).unwrap();
        a.set_label(&mut first).unwrap();
        a.mov(ecx, ebx).unwrap();
        a.stc().unwrap();
        a.call(r12).unwrap();
        a.add(rsi, rax).unwrap();
        a.dec(ebx).unwrap();
        a.jne(again).unwrap();
        a.mov(rax, rsi).unwrap();
        a.pop(rsi).unwrap();
        a.pop(r12).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut one).unwrap();
        a.mov(eax, ecx).unwrap();
        a.adc(eax, 0).unwrap();
        a.ret().unwrap();
        a.set_label(&mut two).unwrap();
        a.mov(rax, qword_ptr(rsp)).unwrap();
        a.mov(r10, CODE).unwrap();
        a.sub(rax, r10).unwrap();
        a.and(eax, 0).unwrap();
        a.lea(eax, rcx + 100).unwrap();
        a.ret().unwrap();
    }));
    // Four even rounds with the carry flag, five odd ones.
    everywhere(&rig, &[], (8 + 6 + 4 + 2 + 4) + (9 + 7 + 5 + 3 + 1 + 500));
}

/// Writes a branch.
type Branch = fn(&mut CodeAssembler);

/// Nine rounds of a branch that `branch` writes, with the carry flag set, to one of two places by the parity of `ecx`. `r10`, `r13` and the
/// word at `r8` say where. The even one adds `ecx` and the carry flag to `esi`, the odd one `ecx` and 100; both add what was lost of `r11`,
/// `rdx` and `r13`.
fn rounds_of(is_call: bool, branch: Branch) -> Rig {
    Rig::new(&assemble(|a| {
        let (mut again, mut even, mut odd) = (a.create_label(), a.create_label(), a.create_label());
        let (mut known, mut lost, mut behind) = (a.create_label(), a.create_label(), a.create_label());
        a.push(rsi).unwrap();
        a.push(r13).unwrap();
        a.mov(r8, DATA).unwrap();
        a.xor(esi, esi).unwrap();
        a.mov(ecx, 9).unwrap();
        a.set_label(&mut again).unwrap();
        a.lea(r13, ptr(even)).unwrap();
        a.test(cl, 1).unwrap();
        a.je(known).unwrap();
        a.lea(r13, ptr(odd)).unwrap();
        a.set_label(&mut known).unwrap();
        a.mov(qword_ptr(r8), r13).unwrap();
        a.mov(r10, r13).unwrap();
        a.mov(edx, 7).unwrap();
        a.mov(r11d, 8).unwrap();
        a.stc().unwrap();
        branch(a);
        if is_call {
            a.jmp(behind).unwrap();
        } else {
            a.int3().unwrap();
        }
        a.set_label(&mut even).unwrap();
        a.adc(esi, ecx).unwrap();
        a.jmp(lost).unwrap();
        a.set_label(&mut odd).unwrap();
        a.lea(esi, rsi + rcx + 100).unwrap();
        a.set_label(&mut lost).unwrap();
        a.sub(rdx, 7).unwrap();
        a.sub(r11, 8).unwrap();
        a.sub(r13, qword_ptr(r8)).unwrap();
        a.or(rdx, r11).unwrap();
        a.or(rdx, r13).unwrap();
        a.add(rsi, rdx).unwrap();
        if is_call {
            a.ret().unwrap();
        } else {
            a.jmp(behind).unwrap();
        }
        a.set_label(&mut behind).unwrap();
        a.dec(ecx).unwrap();
        a.jne(again).unwrap();
        a.mov(rax, rsi).unwrap();
        a.pop(r13).unwrap();
        a.pop(rsi).unwrap();
        a.ret().unwrap();
    }))
}

const ROUNDS: u64 = (8 + 6 + 4 + 2 + 4) + (9 + 7 + 5 + 3 + 1 + 500);

#[test]
fn a_call_through_memory_and_one_through_the_countdowns_register_go_elsewhere_the_next_time() {
    let calls: [Branch; 2] = [|a| a.call(qword_ptr(r8)).unwrap(), |a| a.call(r13).unwrap()];
    for call in calls {
        everywhere(&rounds_of(true, call), &[], ROUNDS);
    }
}

#[test]
fn a_jump_that_has_gone_elsewhere_is_looked_up_from_then_on() {
    let jumps: [Branch; 3] =
        [|a| a.jmp(r10).unwrap(), |a| a.jmp(r13).unwrap(), |a| a.jmp(qword_ptr(r8)).unwrap()];
    for jump in jumps {
        let rig = rounds_of(false, jump);
        everywhere(&rig, &[], ROUNDS);
        // In a cache that is thrown away in between, too.
        rig.engine.protect(CODE, 0x1000, Protection::READ_EXECUTE);
        everywhere(&rig, &[], ROUNDS);
    }
}

#[test]
fn a_branch_to_where_no_code_is_faults_with_all_registers_the_first_time_and_later() {
    let branches: [(Branch, bool); 5] = [
        (|a| a.jmp(r10).unwrap(), false),
        (|a| a.jmp(qword_ptr(r8)).unwrap(), false),
        (|a| a.call(qword_ptr(r8)).unwrap(), true),
        (|a| a.call(r13).unwrap(), true),
        (|a| a.call(rcx).unwrap(), true),
    ];
    for (branch, is_call) in branches {
        // The argument is where it goes, first to `behind`, then to nowhere.
        let rig = Rig::new(&assemble(|a| {
            a.mov(r8, DATA).unwrap();
            a.mov(qword_ptr(r8), rcx).unwrap();
            a.mov(r10, rcx).unwrap();
            a.mov(r13, rcx).unwrap();
            a.mov(edx, 7).unwrap();
            a.mov(r11d, 8).unwrap();
            branch(a);
            a.ret().unwrap();
        }));
        let behind = CODE + 0x1000;
        rig.load(
            behind,
            &rig::assemble_at(behind, |a| {
                a.mov(eax, 5).unwrap();
                a.ret().unwrap();
            }),
        );
        let nowhere = DATA + 0x40;
        for (target, is_good) in [(nowhere, false), (behind, true), (nowhere, false), (behind, true)] {
            if is_good {
                assert_eq!(rig.call(&[target]), Ok(5));
                continue;
            }
            assert_eq!(rig.call(&[target]), Err(Leave::Stop));
            let fault = rig.the_fault();
            let general = fault.caller.registers.general;
            assert_eq!((fault.kind, fault.address), (FaultKind::Execute, nowhere), "{is_call}");
            assert_eq!(
                [general[1], general[2], general[10], general[11], general[13]],
                [nowhere, 7, nowhere, 8, nowhere]
            );
            assert_eq!(general[4], STACK_TOP - 0x28, "nothing is pushed");
        }
    }
}

#[test]
fn a_bad_target_is_told_at_the_call_with_the_stack_before_it() {
    for warm in [false, true] {
        let rig = Rig::new(&assemble(|a| {
            let mut good = a.create_label();
            a.push(rdi).unwrap();
            a.mov(rdi, rcx).unwrap();
            a.call(rdi).unwrap();
            a.pop(rdi).unwrap();
            a.set_label(&mut good).unwrap();
            a.ret().unwrap();
        }));
        let call = CODE + 4;
        if warm {
            assert!(rig.call(&[CODE + 7]).is_ok());
        }
        let retired = rig.engine.retired();
        let result = rig.host.run(&rig, || rig.engine.call(CODE, &[0x4242], Stack::At(STACK_TOP)));
        assert_eq!(result, Err(Leave::Stop));
        let fault = rig.the_fault();
        assert_eq!((fault.kind, fault.address, fault.caller.rip), (FaultKind::Execute, 0x4242, call));
        assert_eq!(fault.caller.registers.rsp(), ((STACK_TOP - 0x20) & !15) - 16, "nothing is pushed");
        assert_eq!(rig.engine.retired() - retired, 3);
    }
}
