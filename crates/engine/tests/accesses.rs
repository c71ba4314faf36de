//! What happens around an access to a device or port, and around an export: slices that change under it, code that is
//! rewritten, registers that are not used yet.

use engine::windows::DEVICE;
use engine::{FaultKind, Leave, Protection};
use iced_x86::code_asm::*;

use super::rig::{CODE, EXPORTS, Rig, STACK_TOP, assemble};

/// One access, with `instructions` of one byte behind it in its block.
fn access_and(instructions: u32) -> Vec<u8> {
    assemble(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        (0..instructions).for_each(|_| a.nop().unwrap());
        a.add(eax, 1).unwrap();
        a.ret().unwrap();
    })
}

/// A machine that has learned the access of [`access_and`], at time 0.
fn learned(instructions: u32) -> (Rig, u64) {
    let rig = Rig::new(&access_and(instructions));
    rig.device.borrow_mut()[0] = 41;
    assert_eq!(rig.call(&[DEVICE.base]), Ok(42));
    let begun = rig.engine.now();
    assert_eq!(begun, u64::from(instructions) + 3);
    (rig, begun)
}

#[test]
fn a_slice_that_an_access_lengthens_does_not_end_where_it_would_have() {
    let (rig, begun) = learned(20);
    *rig.on_accessed.borrow_mut() = Some(Box::new(|rig| {
        rig.engine.set_slice(1000);
        Ok(())
    }));
    *rig.on_slice.borrow_mut() = Some(Box::new(|_| Err(Leave::Stop)));
    for slice in 1..=20 {
        rig.engine.set_slice(slice);
        assert_eq!(rig.call(&[DEVICE.base]), Ok(42), "the slice of {slice} was lengthened");
    }
    assert_eq!(rig.engine.now(), begun + 20 * 23, "each instruction is counted once");
}

#[test]
fn a_slice_that_an_access_shortens_ends_at_the_exact_instruction() {
    for slice in 1..=21 {
        let (rig, begun) = learned(20);
        *rig.on_accessed.borrow_mut() = Some(Box::new(move |rig| {
            rig.engine.set_slice(slice);
            Ok(())
        }));
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            let at = rig.engine.driver_state().unwrap().rip;
            // The access has two bytes, the addition five, and what is between one.
            assert_eq!(
                (at, rig.engine.now()),
                (CODE + 2 + if slice == 21 { 25 } else { slice }, begun + 1 + slice)
            );
            *rig.on_accessed.borrow_mut() = None;
            rig.engine.set_slice(1000);
            Ok(())
        }));
        assert_eq!(rig.call(&[DEVICE.base]), Ok(42));
        assert!(rig.on_accessed.borrow().is_none(), "the slice of {slice} has ended");
        assert_eq!(rig.engine.now(), begun + 23);
        drop(rig);
    }
}

#[test]
fn a_slice_ends_before_any_instruction_around_an_access() {
    for first in 1..=22 {
        let (rig, begun) = learned(20);
        rig.engine.set_slice(first);
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            assert_eq!(rig.engine.now(), begun + first);
            rig.engine.set_slice(1000);
            Ok(())
        }));
        assert_eq!(rig.call(&[DEVICE.base]), Ok(42));
        assert_eq!(rig.log().len(), 2, "each access has happened once");
        drop(rig);
    }
}

#[test]
fn code_behind_an_access_runs_as_an_interrupt_has_rewritten_it() {
    let (rig, _) = learned(1);
    *rig.on_accessed.borrow_mut() = Some(Box::new(|rig| {
        rig.engine.protect(CODE, 0x1000, Protection::READ_WRITE);
        rig.engine.write_bytes(CODE + 4, &[9]).unwrap(); // the addition's constant
        rig.engine.protect(CODE, 0x1000, Protection::READ_EXECUTE);
        Ok(())
    }));
    assert_eq!(rig.call(&[DEVICE.base]), Ok(50));
}

#[test]
fn a_run_that_ends_in_an_access_has_retired_the_instruction() {
    let (rig, begun) = learned(5);
    *rig.on_accessed.borrow_mut() = Some(Box::new(|rig| {
        let caller = rig.engine.caller().unwrap();
        assert_eq!((caller.rip, caller.registers.general[0]), (CODE, 41), "the value has arrived");
        Err(Leave::Stop)
    }));
    assert_eq!(rig.call(&[DEVICE.base]), Err(Leave::Stop));
    assert_eq!(rig.engine.now(), begun + 1);
    *rig.on_accessed.borrow_mut() = None;
    assert_eq!(rig.call(&[DEVICE.base]), Ok(42), "the machine can be used on");
}

#[test]
fn ports_in_a_loop_keep_every_register_and_flag() {
    let rig = Rig::new(&assemble(|a| {
        let mut again = a.create_label();
        a.push(rbx).unwrap();
        a.push(rsi).unwrap();
        a.mov(r8, rcx).unwrap();
        a.mov(edx, 0x3F8).unwrap();
        for (register, value) in [(rbx, 1_u64), (rsi, 2), (r9, 3), (r10, 4), (r11, 5), (rcx, 6)] {
            a.mov(register, value).unwrap();
        }
        a.set_label(&mut again).unwrap();
        a.cmp(r8, 1).unwrap(); // no instruction between changes a flag
        a.in_(eax, dx).unwrap();
        a.out(dx, eax).unwrap();
        a.lea(r8, r8 - 1).unwrap();
        a.ja(again).unwrap();
        a.lea(rax, rax + rbx).unwrap();
        a.lea(rax, rax + rsi * 2).unwrap();
        a.lea(rax, rax + r9 * 4).unwrap();
        a.lea(rax, rax + r10 * 8).unwrap();
        a.lea(rax, rax + r11).unwrap();
        a.lea(rax, rax + rcx).unwrap();
        a.pop(rsi).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
    }));
    let sum = 0x1122_3344 + 1 + 2 * 2 + 3 * 4 + 4 * 8 + 5 + 6;
    assert_eq!(rig.call(&[10]), Ok(sum));
    assert_eq!(rig.log().len(), 20, "ten times in and out");
    assert_eq!(rig.engine.now(), 10 + 5 * 10 + 9);
    assert_eq!(rig.call(&[3]), Ok(sum));
    assert_eq!(rig.log().len(), 26);
}

/// Fills all vector registers, as the host's code may.
fn dirty_vectors() {
    // SAFETY: registers only, all of them declared as clobbered.
    unsafe {
        std::arch::asm!(
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm2, xmm2", "pcmpeqd xmm3, xmm3",
            "pcmpeqd xmm4, xmm4", "pcmpeqd xmm5, xmm5", "pcmpeqd xmm6, xmm6", "pcmpeqd xmm7, xmm7",
            "pcmpeqd xmm8, xmm8", "pcmpeqd xmm9, xmm9", "pcmpeqd xmm10, xmm10", "pcmpeqd xmm11, xmm11",
            "pcmpeqd xmm12, xmm12", "pcmpeqd xmm13, xmm13", "pcmpeqd xmm14, xmm14", "pcmpeqd xmm15, xmm15",
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
}

/// `or`s all vector registers into `xmm0`, and both halves of that into `rax`.
fn any_vector(a: &mut CodeAssembler) {
    for register in
        [xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15]
    {
        a.orps(xmm0, register).unwrap();
    }
    a.movq(rax, xmm0).unwrap();
    a.psrldq(xmm0, 8).unwrap();
    a.movq(rcx, xmm0).unwrap();
    a.or(rax, rcx).unwrap();
}

#[test]
fn vector_registers_nobody_has_used_are_zero_at_their_first_use() {
    let behind = |way: &dyn Fn(&mut CodeAssembler)| {
        assemble(|a| {
            a.sub(rsp, 0x28).unwrap();
            way(a);
            any_vector(a);
            a.add(rsp, 0x28).unwrap();
            a.ret().unwrap();
        })
    };
    let ways: [&dyn Fn(&mut CodeAssembler); 4] = [
        &|_| {},
        &|a| a.call(EXPORTS).unwrap(),
        &|a| {
            a.mov(rcx, DEVICE.base).unwrap();
            a.mov(eax, dword_ptr(rcx)).unwrap();
        },
        &|a| a.in_(al, 0x80).unwrap(),
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let rig = Rig::new(&behind(way));
        rig.engine.define_export(EXPORTS, 0);
        rig.map(EXPORTS & !0xFFF, 0x1000);
        *rig.export.borrow_mut() = Some(Box::new(|_, _, _| {
            dirty_vectors();
            Ok(0)
        }));
        *rig.on_accessed.borrow_mut() = Some(Box::new(|_| {
            dirty_vectors();
            Ok(())
        }));
        for time in ["first", "second"] {
            dirty_vectors();
            assert_eq!(rig.call(&[]), Ok(0), "way {number}, the {time} time");
        }
        drop(rig);
    }
}

#[test]
fn an_exports_return_address_that_cannot_be_read_is_a_fault_of_the_drivers() {
    let nowhere = STACK_TOP + 0x10_0000;
    let rig = Rig::new(&assemble(|a| {
        a.mov(rsp, nowhere).unwrap();
        a.jmp(EXPORTS).unwrap();
    }));
    rig.engine.define_export(EXPORTS, 0);
    rig.map(EXPORTS & !0xFFF, 0x1000);
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Read, nowhere));
    assert_eq!(rig.engine.panic_message(), None);
}

#[test]
fn an_export_returns_to_code_that_was_never_called_from() {
    let rig = Rig::new(&assemble(|a| {
        let mut there = a.create_label();
        a.sub(rsp, 0x20).unwrap();
        a.lea(rax, ptr(there)).unwrap();
        a.push(rax).unwrap();
        a.jmp(EXPORTS).unwrap();
        a.set_label(&mut there).unwrap();
        a.add(rsp, 0x20).unwrap();
        a.add(rax, 1).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.define_export(EXPORTS, 0);
    rig.map(EXPORTS & !0xFFF, 0x1000);
    *rig.export.borrow_mut() = Some(Box::new(|_, _, _| Ok(6)));
    assert_eq!(rig.call(&[]), Ok(7));
    assert_eq!(rig.call(&[]), Ok(7));
}
