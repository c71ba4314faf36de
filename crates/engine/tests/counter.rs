//! `r13` holds the countdown while translated code runs; to the driver it is a register like any other.

use engine::windows::{DEVICE, IMAGES};
use engine::{FaultKind, Leave};
use iced_x86::code_asm::*;

use super::rig::{CODE, DATA, EXPORTS, Rig, assemble, relative};

/// Runs the code whole, and with an interrupt (a call of driver code that has an `r13` of its own) at each instruction:
/// the same result and the same count.
fn everywhere(build: impl Fn(&mut CodeAssembler), prepare: impl Fn(&Rig), arguments: &[u64], expected: u64) {
    let code = assemble(build);
    let rig = Rig::new(&code);
    let interrupt = CODE + 0x20_0000;
    rig.load(
        interrupt,
        &assemble(|a| {
            a.mov(r13, 0x7777_7777_7777_7777u64).unwrap();
            a.mov(rax, r13).unwrap();
            a.ret().unwrap();
        }),
    );
    prepare(&rig);
    assert_eq!(rig.call(arguments), Ok(expected), "whole");
    let begun = rig.engine.retired();
    prepare(&rig);
    assert_eq!(rig.call(arguments), Ok(expected), "again");
    let count = rig.engine.retired() - begun;
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(u64::MAX);
        let below = rig.engine.caller().unwrap().registers.rsp() - 0x200;
        assert_eq!(rig.engine.call(interrupt, &[], engine::Stack::At(below)), Ok(0x7777_7777_7777_7777));
        rig.engine.set_slice(1);
        Ok(())
    }));
    prepare(&rig);
    let begun = rig.engine.retired();
    rig.engine.set_slice(1);
    assert_eq!(rig.call(arguments), Ok(expected), "an interrupt at each instruction");
    let interrupts = (rig.engine.retired() - begun - count) / 3;
    assert_eq!(rig.engine.retired() - begun, count + 3 * interrupts, "each instruction was counted once");
    assert!(interrupts >= count - 1, "{interrupts} interrupts in {count} instructions");
}

#[test]
fn it_is_a_base_an_index_a_source_and_a_destination() {
    let build = |a: &mut CodeAssembler| {
        a.push(r13).unwrap();
        a.mov(r13, rcx).unwrap();
        a.mov(qword_ptr(r13), r13).unwrap();
        a.mov(r13d, 0xFFFF_FFFFu32).unwrap(); // clears the upper half
        a.lea(rax, r13 + r13 * 8).unwrap();
        a.add(r13b, 2).unwrap();
        a.mov(r13w, r13w).unwrap();
        a.push(r13).unwrap();
        a.sub(r13, -0x100).unwrap();
        a.pop(r13).unwrap();
        a.and(r13d, 0xF).unwrap();
        a.mov(qword_ptr(rcx + r13 * 8), 5).unwrap();
        a.imul_2(r13, qword_ptr(rcx + r13 * 8)).unwrap();
        a.add(rax, r13).unwrap();
        a.xor(rax, qword_ptr(rcx)).unwrap();
        a.test(r13, r13).unwrap();
        a.setne(dl).unwrap();
        a.movzx(edx, dl).unwrap();
        a.add(rax, rdx).unwrap();
        a.cmp(edx, r13d).unwrap();
        a.adc(rax, 0).unwrap();
        a.movq(xmm0, r13).unwrap();
        a.movq(rdx, xmm0).unwrap();
        a.add(rax, rdx).unwrap();
        a.pop(r13).unwrap();
        a.add(rax, r13).unwrap();
        a.ret().unwrap();
    };
    // After `and` it is 1; times the 5 that lies there; less than which is 1.
    let sum = ((9 * 0xFFFF_FFFFu64 + 5) ^ DATA) + 1 + 1 + 5;
    everywhere(build, |_| {}, &[DATA], sum);
}

#[test]
fn calls_and_jumps_go_where_it_says() {
    let build = |a: &mut CodeAssembler| {
        let (mut five, mut out, mut end) = (a.create_label(), a.create_label(), a.create_label());
        a.push(r13).unwrap();
        a.lea(r13, ptr(five)).unwrap();
        a.call(r13).unwrap();
        a.mov(edx, eax).unwrap();
        a.mov(qword_ptr(rcx + 16), r13).unwrap();
        a.lea(r13, rcx + 8).unwrap();
        a.call(qword_ptr(r13 + 8)).unwrap();
        a.add(edx, eax).unwrap();
        a.lea(r13, ptr(out)).unwrap();
        a.jmp(r13).unwrap();
        a.set_label(&mut five).unwrap();
        a.mov(eax, 5).unwrap();
        a.ret().unwrap();
        a.set_label(&mut out).unwrap();
        a.lea(eax, rdx + 100).unwrap();
        a.set_label(&mut end).unwrap();
        a.pop(r13).unwrap();
        a.ret().unwrap();
    };
    everywhere(build, |_| {}, &[DATA], 110);
}

#[test]
fn it_outlives_exports_devices_ports_and_levels() {
    let build = |a: &mut CodeAssembler| {
        a.push(r13).unwrap();
        a.sub(rsp, 0x30).unwrap();
        a.mov(r13, rcx).unwrap();
        a.mov(dword_ptr(r13 + 4), 0x33).unwrap();
        a.add(dword_ptr(r13 + 4), r13d).unwrap();
        a.mov(eax, dword_ptr(r13 + 4)).unwrap();
        a.sub(eax, r13d).unwrap(); // 33h
        a.mov(r13d, dword_ptr(r13 + 4)).unwrap();
        a.sub(r13d, ecx).unwrap(); // 33h
        a.mov(edx, 0x10).unwrap();
        a.mov(qword_ptr(rsp + 0x20), rax).unwrap();
        a.in_(eax, dx).unwrap();
        a.mov(rax, EXPORTS + 0x1000).unwrap();
        a.call(rax).unwrap();
        a.add(rax, qword_ptr(rsp + 0x20)).unwrap();
        a.add(rax, r13).unwrap();
        a.mov(r13d, 2).unwrap();
        a.mov(cr8, r13).unwrap();
        a.xor(r13d, r13d).unwrap();
        a.mov(r13, cr8).unwrap();
        a.add(rax, r13).unwrap();
        a.xor(r13d, r13d).unwrap();
        a.mov(cr8, r13).unwrap();
        a.add(rsp, 0x30).unwrap();
        a.pop(r13).unwrap();
        a.ret().unwrap();
    };
    let prepare = |rig: &Rig| {
        rig.engine.define_export(EXPORTS + 0x1000, 0);
        rig.engine.set_processor_region(DATA + 0x3000);
        rig.engine.set_free_levels(1);
        *rig.export.borrow_mut() = Some(Box::new(|rig, _, _| {
            let own = rig.engine.caller().unwrap().registers.general[13];
            assert!(own == 0x33, "the kernel sees the driver's: {own:#x}");
            Ok(0x1000)
        }));
    };
    everywhere(build, prepare, &[DEVICE.base + 0x40], 0x1000 + 0x33 + 0x33 + 2);
}

#[test]
fn a_fault_of_an_instruction_that_names_it_has_the_drivers_registers_and_count() {
    for far in [false, true] {
        let code = assemble(|a| {
            a.mov(r13, 0x1234_5678u64).unwrap();
            a.add(r13, 8).unwrap();
            if far {
                a.lea(rdx, qword_ptr(r13)).unwrap();
                a.xadd(qword_ptr(rdx), r13).unwrap();
            } else {
                a.add(r13, qword_ptr(r13 + r13)).unwrap();
            }
            a.mov(eax, 1).unwrap();
            a.ret().unwrap();
        });
        let rig = Rig::new(&code);
        assert_eq!(rig.call(&[]), Err(Leave::Stop));
        let fault = rig.the_fault();
        assert!(matches!(fault.kind, FaultKind::Read | FaultKind::Write), "{:?}", fault.kind);
        assert_eq!(fault.caller.registers.general[13], 0x1234_5680);
        assert_eq!(rig.engine.now(), if far { 3 } else { 2 }, "the instruction has not retired");
    }
}

#[test]
fn code_far_from_images_may_load_it_from_beside_itself() {
    let pool = DATA + 0x4000;
    let mut code = relative(pool, &[0x4C, 0x8B, 0x2D], pool + 0x40); // mov r13, [pool+40h]
    code.extend([0x4C, 0x89, 0xE8, 0xC3]); // mov rax, r13; ret
    code.resize(0x40, 0xCC);
    code.extend(0x0102_0304_0506_0708u64.to_le_bytes());
    let rig = Rig::new(&[0xC3]);
    rig.engine.write_bytes(pool, &code).unwrap();
    rig.engine.protect(pool, 0x1000, engine::Protection::READ_EXECUTE);
    assert_eq!(rig.call_at(pool, &[]), Ok(0x0102_0304_0506_0708));
    assert!(!IMAGES.contains(pool));
}
