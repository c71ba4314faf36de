//! Code that is out to surprise: it runs correctly or ends as a fault of its own, never as one of ours.

use engine::windows::{DEVICE, SYSTEM};
use engine::{FaultKind, Leave, Protection};
use iced_x86::code_asm::*;

use super::rig::{self, CODE, DATA, EXPORTS, Rig, STACK_TOP, assemble, assemble_at, relative};

#[test]
fn a_jump_into_the_middle_of_an_instruction_runs_what_is_there() {
    // jmp +1 over the B8 of `mov eax, 0xC3C3C031`: its immediate is `xor eax, eax; ret; ret`.
    let rig = Rig::new(&[0xEB, 0x01, 0xB8, 0x31, 0xC0, 0xC3, 0xC3]);
    assert_eq!(rig.call(&[]), Ok(0));
    assert_eq!(rig.call_at(CODE + 3, &[]), Ok(0));
    let overlapping = rig.call_at(CODE + 2, &[]);
    assert_eq!(
        overlapping,
        Err(Leave::Stop),
        "entered at the B8 the code runs on into zeroes: `add [rax], al`"
    );
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, 0xC3C3_C031));
}

#[test]
fn a_stretch_of_a_thousand_instructions_is_one_stretch() {
    let mut code = vec![0x90; 4095];
    code.extend([0x31, 0xC0]); // xor eax, eax, across the page's end
    code.extend(vec![0x90; 5000]);
    code.push(0xC3);
    let rig = Rig::new(&code);
    assert_eq!(rig.call(&[]), Ok(0));
    assert_eq!(rig.engine.now(), 4095 + 1 + 5000 + 1);
}

#[test]
fn counted_loops_count() {
    let rig = Rig::new(&assemble(|a| {
        let mut top = a.create_label();
        let mut none = a.create_label();
        a.xor(eax, eax).unwrap();
        a.jrcxz(none).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(eax, 3).unwrap();
        a.loop_(top).unwrap();
        a.set_label(&mut none).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!((rig.call(&[0]), rig.call(&[1]), rig.call(&[100])), (Ok(0), Ok(3), Ok(300)));
}

#[test]
fn return_with_a_count_drops_its_arguments() {
    let rig = Rig::new(&assemble(|a| {
        let mut callee = a.create_label();
        a.push(1).unwrap();
        a.push(2).unwrap();
        a.mov(rdx, rsp).unwrap();
        a.call(callee).unwrap();
        a.mov(rax, rsp).unwrap();
        a.sub(rax, rdx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut callee).unwrap();
        a.ret_1(16).unwrap();
    }));
    assert_eq!(rig.call(&[]), Ok(16));
}

#[test]
fn a_pushed_address_can_be_returned_to() {
    let rig = Rig::new(&assemble(|a| {
        let mut there = a.create_label();
        a.lea(rax, ptr(there)).unwrap();
        a.push(rax).unwrap();
        a.ret().unwrap();
        a.ud2().unwrap();
        a.set_label(&mut there).unwrap();
        a.mov(eax, 5).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[]), Ok(5));
}

#[test]
fn what_ret_has_consumed_is_the_original_return_address() {
    let rig = Rig::new(&assemble(|a| {
        let mut callee = a.create_label();
        let mut after = a.create_label();
        a.call(callee).unwrap();
        a.set_label(&mut after).unwrap();
        a.mov(rax, qword_ptr(rsp - 8)).unwrap();
        a.lea(rcx, ptr(after)).unwrap();
        a.sub(rax, rcx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut callee).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[]), Ok(0));
}

#[test]
fn a_stack_in_device_memory_or_shared_data_is_a_fault_of_the_drivers() {
    let uses: [(&[u8], FaultKind); 9] = [
        (&[0x50], FaultKind::Write),                               // push rax
        (&[0x58], FaultKind::Read),                                // pop rax
        (&[0xC3], FaultKind::Read),                                // ret
        (&[0xC2, 8, 0], FaultKind::Read),                          // ret 8
        (&[0xE8, 0, 0, 0, 0], FaultKind::Write),                   // call to what comes next
        (&[0xFF, 0xD1], FaultKind::Write),                         // call rcx
        (&[0x9C], FaultKind::Write),                               // pushfq
        (&[0x9D], FaultKind::Read),                                // popfq
        (&[0x48, 0x89, 0xE5, 0xC8, 0x10, 0, 0], FaultKind::Write), // mov rbp, rsp; enter 10h, 0
    ];
    for stack in [DEVICE.base + 0x800, engine::windows::SHARED_DATA.base + 0x800] {
        for (code, kind) in uses {
            let mut whole = vec![0x48, 0xBC];
            whole.extend(stack.to_le_bytes());
            whole.extend(code);
            for make in [Rig::new as fn(&[u8]) -> Rig, Rig::checked] {
                let rig = make(&whole);
                assert_eq!(rig.call(&[CODE]), Err(Leave::Stop), "{code:02x?}");
                let fault = rig.the_fault();
                assert_eq!(fault.kind, kind, "{code:02x?} at {stack:#x}");
                assert!(fault.address.abs_diff(stack) <= 8, "{code:02x?} at {:#x}", fault.address);
                assert_eq!(rig.engine.panic_message(), None);
            }
        }
    }
}

#[test]
fn a_pivoted_stack_that_is_not_there_is_a_fault_at_its_first_use() {
    let rig = Rig::new(&assemble(|a| {
        let mut f = a.create_label();
        a.mov(rsp, 0x4141_4141_4141u64).unwrap();
        a.set_label(&mut f).unwrap();
        a.call(f).unwrap();
    }));
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, 0x4141_4141_4139));
}

#[test]
fn an_export_called_on_a_bad_stack_does_not_hurt_us() {
    // jmp to an export with rsp at the very top of a mapping: the home space is not there.
    let rig = Rig::new(&assemble(|a| {
        a.mov(rsp, rcx).unwrap();
        a.mov(rax, rig::EXPORTS + 0x1000).unwrap();
        a.jmp(rax).unwrap();
    }));
    rig.engine.define_export(rig::EXPORTS + 0x1000, 0);
    *rig.export.borrow_mut() = Some(Box::new(|_, _, args| Ok(args.registers[0])));
    assert_eq!(rig.call(&[STACK_TOP + 0x1000 - 8]), Err(Leave::Stop), "it returns to address zero");
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Execute, 0));
    assert_eq!(
        rig.call(&[0x10]),
        Err(Leave::Stop),
        "and cannot return at all from a stack that is not there"
    );
}

#[test]
fn text_cannot_be_written_and_data_cannot_be_run() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(byte_ptr(rcx), 0x33).unwrap();
        a.call(rcx).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[CODE]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, CODE));
    assert_eq!(rig.call(&[DATA]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Execute, DATA));
    assert_eq!(rig.call(&[engine::RETURN_TO_KERNEL]), Err(Leave::Stop));
}

/// Code in executable pool: calls within it, into the image and to an export, data beside it, an indirect jump.
#[test]
fn code_in_executable_pool_runs_and_calls_everywhere() {
    let pool = SYSTEM.base + 0x100_0000;
    let rig = Rig::new(&assemble(|a| {
        a.sub(rsp, 0x28).unwrap();
        a.call(rcx).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.ret().unwrap();
    }));
    rig.load(CODE + 0x10_0000, &[0x8D, 0x41, 0x07, 0xC3]); // lea eax, [rcx+7]; ret
    rig.engine.define_export(EXPORTS, 3);
    *rig.export.borrow_mut() = Some(Box::new(|rig, number, args| {
        let mut slot = [0; 8];
        rig.engine.read_bytes(args.rsp, &mut slot).unwrap();
        let back = u64::from_le_bytes(slot);
        assert!((SYSTEM.base + 0x100_0000..SYSTEM.base + 0x100_1000).contains(&back), "{back:#x}");
        Ok(u64::from(number) * 100)
    }));
    let code = assemble_at(pool, |a| {
        let (mut inner, mut data, mut end) = (a.create_label(), a.create_label(), a.create_label());
        a.push(rbx).unwrap();
        a.sub(rsp, 0x20).unwrap();
        a.mov(rbx, ptr(data)).unwrap();
        a.call(inner).unwrap();
        a.mov(r10, CODE + 0x10_0000).unwrap();
        a.mov(ecx, 5).unwrap();
        a.call(r10).unwrap();
        a.add(rbx, rax).unwrap();
        a.mov(r10, EXPORTS).unwrap();
        a.call(r10).unwrap();
        a.add(rbx, rax).unwrap();
        a.lea(r11, ptr(end)).unwrap();
        a.jmp(r11).unwrap();
        a.set_label(&mut inner).unwrap();
        a.add(qword_ptr(data), 1).unwrap();
        a.add(rbx, qword_ptr(data)).unwrap();
        a.ret().unwrap();
        a.set_label(&mut end).unwrap();
        a.mov(rax, rbx).unwrap();
        a.add(rsp, 0x20).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut data).unwrap();
        a.dq(&[1000]).unwrap();
    });
    rig.map(pool, 0x1000);
    rig.engine.write_bytes(pool, &code).unwrap();
    rig.engine.protect(pool, 0x1000, Protection { read: true, write: true, execute: true });
    for round in 0..3 {
        let stored = 1000 + round;
        assert_eq!(rig.call(&[pool]), Ok(stored + stored + 1 + 12 + 300), "{:?}", rig.fault);
    }
    rig.engine.protect(pool, 0x1000, Protection::READ_WRITE);
    assert_eq!(rig.call(&[pool]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Execute, pool));
}

#[test]
fn a_fault_in_executable_pool_has_the_drivers_registers() {
    let pool = SYSTEM.base + 0x100_0000;
    let mut code = assemble_at(pool, |a| {
        a.mov(r11, 0x1111_2222_3333_4444u64).unwrap();
        a.mov(eax, 77).unwrap();
    });
    code.extend(relative(pool + 15, &[0x89, 0x05], pool + 0x2000)); // mov [the page that is not there], eax
    let rig = Rig::new(&[0xFF, 0xE1]); // jmp rcx
    rig.map(pool, 0x1000);
    rig.engine.write_bytes(pool, &code).unwrap();
    rig.engine.protect(pool, 0x1000, Protection { read: true, write: false, execute: true });
    assert_eq!(rig.call(&[pool]), Err(Leave::Stop));
    let fault = rig.the_fault();
    assert_eq!((fault.kind, fault.address), (FaultKind::Write, pool + 0x2000));
    assert_eq!(fault.caller.registers.general[11], 0x1111_2222_3333_4444);
    assert_eq!((fault.caller.registers.general[0], fault.caller.rip), (77, pool + 15));
}

#[test]
fn a_loop_that_writes_itself_keeps_up_with_itself() {
    // for (i = 0; i != 200; i++) { patch the immediate below with i; eax += imm8 }
    let code = assemble(|a| {
        let mut top = a.create_label();
        let mut patch = a.create_label();
        a.xor(eax, eax).unwrap();
        a.xor(edx, edx).unwrap();
        a.lea(r8, ptr(patch)).unwrap();
        a.set_label(&mut top).unwrap();
        a.mov(byte_ptr(r8 + 1), dl).unwrap();
        a.set_label(&mut patch).unwrap();
        a.mov(ecx, 0x7777_7777).unwrap();
        a.movzx(ecx, cl).unwrap();
        a.add(eax, ecx).unwrap();
        a.inc(edx).unwrap();
        a.cmp(edx, 200).unwrap();
        a.jne(top).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::new(&code);
    rig.engine.protect(CODE, 0x1000, Protection { read: true, write: true, execute: true });
    assert_eq!(rig.call(&[]), Ok((0..200).sum()));
}

#[test]
fn random_bytes_end_by_themselves() {
    let mut rng = fastrand::Rng::with_seed(1);
    let rig = Rig::new(&[0xC3]);
    let rounds = std::env::var("DIRQL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000u64);
    for round in 0..rounds {
        let code: Vec<u8> = (0..256).map(|_| rng.u8(..)).collect();
        rig.engine.protect(CODE, 0x1000, Protection::READ_WRITE);
        rig.engine.write_bytes(CODE, &code).unwrap();
        rig.engine.protect(CODE, 0x1000, Protection::READ_EXECUTE);
        rig.engine.set_slice(10_000);
        *rig.on_slice.borrow_mut() = Some(Box::new(|_| Err(Leave::Stop)));
        let _ = rig.call(&[DATA, DATA, DATA, DATA]);
        assert_eq!(rig.engine.panic_message(), None, "round {round}: {code:02x?}");
    }
}

#[test]
fn an_operand_size_prefix_on_a_counted_jump_does_not_cut_the_instruction_pointer() {
    let rig = Rig::new(&[0x31, 0xC0, 0xFF, 0xC0, 0x66, 0xE2, 0xFB, 0xC3]); // xor eax, eax; 1: inc eax; data16 loop 1b; ret
    assert_eq!(rig.call(&[7]), Ok(7));
    let rig_ecx = [0x31, 0xC0, 0xFF, 0xC0, 0x67, 0xE2, 0xFB, 0xC3];
    drop(rig);
    let rig = Rig::new(&rig_ecx);
    assert_eq!(rig.call(&[0xFFFF_FFFF_0000_0003]), Ok(3), "the address-size prefix counts in ecx");
}
