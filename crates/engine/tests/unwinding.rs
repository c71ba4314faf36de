//! A call into driver code goes on elsewhere: at the guest's word, with all registers, whatever calls lie between.

use engine::{Context, Leave, Stack};
use iced_x86::code_asm::*;

use super::rig::{self, CODE, EXPORTS, Rig, assemble};

/// Code that calls export 0 and answers what `rbx` holds, then, at the second address, code that answers every
/// register it can.
fn code() -> (Vec<u8>, u64) {
    let mut landing = 0;
    let code = assemble(|a| {
        let mut target = a.create_label();
        a.push(rbx).unwrap();
        a.sub(rsp, 0x20).unwrap();
        a.mov(rbx, 7u64).unwrap();
        a.mov(rax, EXPORTS).unwrap();
        a.call(rax).unwrap();
        a.mov(rax, rbx).unwrap();
        a.add(rsp, 0x20).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut target).unwrap();
        // rax + rcx * 2 + r11 * 4 + the low half of xmm3 + the carry + mxcsr's rounding bits
        a.setc(r8b).unwrap();
        a.movzx(r8d, r8b).unwrap();
        a.add(rax, r8).unwrap();
        a.lea(rax, qword_ptr(rax + rcx * 2)).unwrap();
        a.lea(rax, qword_ptr(rax + r11 * 4)).unwrap();
        a.movq(rdx, xmm3).unwrap();
        a.add(rax, rdx).unwrap();
        a.stmxcsr(dword_ptr(rsp)).unwrap();
        a.mov(edx, dword_ptr(rsp)).unwrap();
        a.and(edx, 0x6000).unwrap();
        a.add(rax, rdx).unwrap();
        a.add(rsp, 0x20).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
        let assembled =
            a.assemble_options(CODE, iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS);
        landing = assembled.unwrap().label_ip(&target).unwrap();
    });
    (code, landing)
}

fn elsewhere(from: &Context, landing: u64) -> Context {
    let mut to = *from;
    to.rip = landing;
    to.registers.general[0] = 0x10_0000;
    to.registers.general[1] = 0x1000;
    to.registers.general[11] = 0x100;
    to.registers.flags |= 1;
    to.xmm[3] = 5;
    to.mxcsr = 0xFFFF_4000 | 0x1F80; // with bits that no processor has
    to
}

const ANSWER: u64 = 0x10_0000 + 0x2000 + 0x400 + 1 + 5 + 0x4000;

#[test]
fn an_export_that_does_not_return_goes_on_with_all_registers() {
    let (code, landing) = code();
    let rig = Rig::new(&code);
    rig.engine.define_export(EXPORTS, 0);
    *rig.export.borrow_mut() = Some(Box::new(move |rig, _, _| {
        let contexts = rig.engine.contexts();
        assert_eq!(contexts.len(), 1);
        assert_eq!(contexts[0].registers.general[3], 7, "rbx");
        Err(rig.engine.resume_at(1, &elsewhere(&contexts[0], landing)))
    }));
    assert_eq!(rig.call(&[]), Ok(ANSWER));
}

#[test]
fn calls_between_are_left_and_the_outer_one_goes_on() {
    let (code, landing) = code();
    let rig = Rig::new(&code);
    rig.engine.define_export(EXPORTS, 0);
    *rig.export.borrow_mut() = Some(Box::new(move |rig, _, _| {
        let depth = rig.engine.depth();
        if depth < 4 {
            let inner = rig.engine.call(CODE, &[], Stack::Current);
            assert_eq!(inner, if depth == 1 { Ok(ANSWER) } else { Err(Leave::Unwind) });
            return inner;
        }
        let contexts = rig.engine.contexts();
        assert_eq!(contexts.len(), 4);
        assert!(contexts.is_sorted_by_key(|context| context.registers.rsp()));
        Err(rig.engine.resume_at(2, &elsewhere(&contexts[2], landing)))
    }));
    let outer = std::cell::Cell::new(0);
    let answer = rig.host.run(&rig, || {
        let answer = rig.engine.call(CODE, &[], Stack::At(rig::STACK_TOP));
        outer.set(rig.engine.depth());
        answer
    });
    // The second call has answered the first one's export; the first goes on as ever.
    assert_eq!((answer, outer.get()), (Ok(7), 0));
}

#[test]
fn a_fault_goes_on_behind_the_instruction_or_tries_it_again() {
    let code = assemble(|a| {
        a.mov(rcx, 0x10u64).unwrap();
        a.mov(rax, qword_ptr(rcx)).unwrap();
        a.add(rax, 1).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::new(&code);
    rig.engine.write(abi::DriverPtr::new(rig::DATA), 41u64).unwrap();
    *rig.on_fault.borrow_mut() = Some(Box::new(|rig, fault| {
        let mut context = rig.engine.contexts()[0];
        assert_eq!(context.rip, fault.caller.rip);
        context.registers.general[1] = rig::DATA;
        rig.engine.resume_at(1, &context)
    }));
    let before = rig.engine.now();
    assert_eq!(rig.call(&[]), Ok(42));
    assert_eq!(rig.engine.now() - before, 4, "the instruction has retired once");
}

#[test]
fn a_handler_that_sends_execution_nowhere_faults_there() {
    let (code, _) = code();
    let rig = Rig::new(&code);
    rig.engine.define_export(EXPORTS, 0);
    *rig.export.borrow_mut() = Some(Box::new(move |rig, _, _| {
        Err(rig.engine.resume_at(1, &elsewhere(&rig.engine.contexts()[0], 0xDEAD_BEEF_DEAD_BEEF)))
    }));
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!(rig.the_fault().kind, engine::FaultKind::Execute);
}
