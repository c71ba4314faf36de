//! Instructions of an operating system that a driver may execute do what they do on x64 Windows; the rest faults by the rules
//! of the processor, at its own instruction.

use engine::{FaultKind, Leave};
use iced_x86::code_asm::*;

use super::rig::{CODE, DATA, Rig, STACK_TOP, assemble};

fn run(build: impl FnOnce(&mut CodeAssembler), arguments: &[u64]) -> Result<u64, (FaultKind, u64, u64)> {
    let rig = Rig::new(&assemble(build));
    match rig.call(arguments) {
        Ok(value) => Ok(value),
        Err(Leave::Stop) => {
            let fault = rig.the_fault();
            Err((fault.kind, fault.caller.rip - CODE, fault.address))
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn segment_registers_have_windows_selectors_and_take_them_again() {
    let all = |a: &mut CodeAssembler| {
        a.xor(eax, eax).unwrap();
        a.mov(ax, cs).unwrap();
        a.mov(edx, ss).unwrap();
        a.shl(rdx, 16).unwrap();
        a.or(rax, rdx).unwrap();
        a.mov(edx, fs).unwrap();
        a.shl(rdx, 32).unwrap();
        a.or(rax, rdx).unwrap();
        a.push(gs).unwrap();
        a.pop(rdx).unwrap();
        a.shl(rdx, 48).unwrap();
        a.or(rax, rdx).unwrap();
        a.mov(ecx, 0x2B).unwrap();
        a.mov(ds, ecx).unwrap();
        a.mov(es, ecx).unwrap();
        a.mov(ecx, 0x18).unwrap();
        a.mov(ss, ecx).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(all, &[]), Ok(0x002B_0053_0018_0010));
    let user_stack = |a: &mut CodeAssembler| {
        a.mov(ecx, 0x2B).unwrap();
        a.mov(ss, ecx).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(user_stack, &[]).unwrap_err().0, FaultKind::Protection);
}

#[test]
fn a_selector_can_be_asked_about() {
    // lar of the kernel's code, and whether it can be read; lsl of the user's thread block; verw of the task.
    let asks = |a: &mut CodeAssembler| {
        a.xor(eax, eax).unwrap();
        a.mov(edx, ecx).unwrap();
        a.lar(eax, edx).unwrap();
        a.setz(cl).unwrap();
        a.movzx(ecx, cl).unwrap();
        a.shl(rcx, 32).unwrap();
        a.or(rax, rcx).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(asks, &[0x10]), Ok(0x1_0020_9B00));
    assert_eq!(run(asks, &[0x33]), Ok(0x1_0020_FB00));
    assert_eq!(run(asks, &[0x13]), Ok(0), "not by who asks for user mode");
    assert_eq!(run(asks, &[0x88]), Ok(0), "there is none");
    let verifies = |a: &mut CodeAssembler| {
        a.xor(eax, eax).unwrap();
        a.verr(cx).unwrap();
        a.setz(al).unwrap();
        a.verw(cx).unwrap();
        a.setz(ah).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(verifies, &[0x10]), Ok(0x001), "code can be read");
    assert_eq!(run(verifies, &[0x18]), Ok(0x101), "data can be both");
    assert_eq!(run(verifies, &[0x40]), Ok(0), "a task can be neither");
}

#[test]
fn far_transfers_inside_the_kernel_are_near_ones() {
    let returns = |a: &mut CodeAssembler| {
        let mut there = a.create_label();
        a.lea(rax, ptr(there)).unwrap();
        a.push(0x10).unwrap();
        a.push(rax).unwrap();
        a.db(&[0x48, 0xCB]).unwrap(); // retfq
        a.ud2().unwrap();
        a.set_label(&mut there).unwrap();
        a.mov(eax, 6).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(returns, &[]), Ok(6));
    // iretq to the label with the stack as it is, carry set.
    let from_interrupt = |a: &mut CodeAssembler| {
        let mut there = a.create_label();
        a.mov(rdx, rsp).unwrap();
        a.lea(rax, ptr(there)).unwrap();
        a.push(0x18).unwrap();
        a.push(rdx).unwrap();
        a.push(0x203).unwrap();
        a.push(0x10).unwrap();
        a.push(rax).unwrap();
        a.xor(eax, eax).unwrap();
        a.iretq().unwrap();
        a.ud2().unwrap();
        a.set_label(&mut there).unwrap();
        a.setc(al).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(from_interrupt, &[]), Ok(1));
    // call far [target] ; the callee returns far.
    let calls = |a: &mut CodeAssembler| {
        let mut callee = a.create_label();
        a.lea(rax, ptr(callee)).unwrap();
        a.mov(qword_ptr(rcx), rax).unwrap();
        a.mov(word_ptr(rcx + 8), 0x10).unwrap();
        a.db(&[0x48, 0xFF, 0x19]).unwrap(); // call far [rcx]
        a.add(eax, 1).unwrap();
        a.ret().unwrap();
        a.set_label(&mut callee).unwrap();
        a.mov(eax, 40).unwrap();
        a.db(&[0x48, 0xCB]).unwrap(); // retfq
    };
    assert_eq!(run(calls, &[DATA]), Ok(41));
}

#[test]
fn a_far_jump_to_another_segment_is_refused_where_it_stands() {
    let jumps = |a: &mut CodeAssembler| {
        a.mov(qword_ptr(rcx), 0x1000).unwrap();
        a.mov(word_ptr(rcx + 8), 0x33).unwrap();
        a.db(&[0x48, 0xFF, 0x29]).unwrap(); // jmp far [rcx]
    };
    let (kind, at, _) = run(jumps, &[DATA]).unwrap_err();
    assert_eq!((kind, at), (FaultKind::Protection, 7 + 6));
}

#[test]
fn what_lies_behind_fs_is_address_zero_and_never_the_hosts() {
    let writes = |a: &mut CodeAssembler| {
        a.mov(qword_ptr(0x28).fs(), rcx).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(writes, &[1]), Err((FaultKind::Write, 0, 0x28)));
    let reads = |a: &mut CodeAssembler| {
        a.mov(rax, qword_ptr(rcx + 8).fs()).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(reads, &[0x100]), Err((FaultKind::Read, 0, 0x108)));
    let jumps = |a: &mut CodeAssembler| a.jmp(qword_ptr(rcx).fs()).unwrap();
    assert_eq!(run(jumps, &[0x30]), Err((FaultKind::Read, 0, 0x30)));
    let copies = |a: &mut CodeAssembler| {
        a.mov(rsi, 0x18u64).unwrap();
        a.db(&[0x64, 0x48, 0xAD]).unwrap(); // lods qword ptr fs:[rsi]
    };
    assert_eq!(run(copies, &[]).unwrap_err(), (FaultKind::Read, 10, 0x18));
}

#[test]
fn sixteen_bit_flags_go_through_the_stack_and_the_trap_flag_traps() {
    let flags = |a: &mut CodeAssembler| {
        a.stc().unwrap();
        a.db(&[0x66, 0x9C]).unwrap(); // pushf
        a.clc().unwrap();
        a.db(&[0x66, 0x9D]).unwrap(); // popf
        a.setc(al).unwrap();
        a.movzx(eax, al).unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(flags, &[]), Ok(1));
    let steps = |a: &mut CodeAssembler| {
        a.pushfq().unwrap();
        a.or(dword_ptr(rsp), 0x100).unwrap();
        a.popfq().unwrap();
        a.nop().unwrap();
        a.ret().unwrap();
    };
    assert_eq!(run(steps, &[]).unwrap_err().0, FaultKind::Trap);
}

#[test]
fn the_tables_registers_and_task_are_those_of_the_virtual_processor() {
    let asks = |a: &mut CodeAssembler| {
        a.sgdt(ptr(rcx)).unwrap();
        a.str(eax).unwrap();
        a.sldt(edx).unwrap();
        a.shl(edx, 16).unwrap();
        a.or(eax, edx).unwrap();
        a.ret().unwrap();
    };
    let rig = Rig::new(&assemble(asks));
    assert_eq!(rig.call(&[DATA]), Ok(0x40));
    assert_eq!(rig.log(), ["TableBase(Global)"]);
    let mut bytes = [0; 10];
    rig.engine.read_bytes(DATA, &mut bytes).unwrap();
    assert_eq!(bytes, [0x57, 0, 0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01]);
    assert_eq!(rig.call(&[STACK_TOP + 0x2000]), Err(Leave::Stop), "where nothing is");
    assert_eq!(rig.the_fault().kind, FaultKind::Write);
}
