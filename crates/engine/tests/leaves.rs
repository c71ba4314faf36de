//! Calls through a register or memory that lead to leaves, whose translations stand in the place of the calls: nothing tells them from
//! calls.

use std::cell::Cell;

use engine::windows::DEVICE;
use engine::{FaultKind, Leave, Protection};
use iced_x86::code_asm::*;

use super::rig::{CODE, DATA, Rig, STACK_TOP, assemble, assemble_at};

/// Where the leaf lies, on a page of its own.
const LEAF: u64 = CODE + 0x1000;

/// Calls what `rcx` says three times, with the carry flag set, `rdx` as `rcx` and what is left of the rounds in `rdx`; sums up `rax`, the
/// carry flag and the low half of what lies below the stack afterwards.
fn call_three_times(a: &mut CodeAssembler) {
    let mut again = a.create_label();
    a.push(rbx).unwrap();
    a.push(rsi).unwrap();
    a.push(rdi).unwrap();
    a.push(r12).unwrap();
    a.sub(rsp, 0x28).unwrap();
    a.mov(rdi, rcx).unwrap();
    a.mov(r12, rdx).unwrap();
    a.mov(ebx, 3).unwrap();
    a.xor(esi, esi).unwrap();
    a.set_label(&mut again).unwrap();
    a.mov(r11d, 0x55).unwrap();
    a.mov(rcx, r12).unwrap();
    a.mov(edx, ebx).unwrap();
    a.nop().unwrap();
    a.stc().unwrap();
    a.call(rdi).unwrap();
    a.adc(rsi, rax).unwrap();
    a.mov(eax, dword_ptr(rsp - 8)).unwrap();
    a.add(rsi, rax).unwrap();
    a.add(rsi, r11).unwrap();
    a.dec(ebx).unwrap();
    a.jne(again).unwrap();
    a.mov(rax, rsi).unwrap();
    a.add(rsp, 0x28).unwrap();
    a.pop(r12).unwrap();
    a.pop(rdi).unwrap();
    a.pop(rsi).unwrap();
    a.pop(rbx).unwrap();
    a.ret().unwrap();
}

/// A machine with that code and this leaf, and where the call returns to.
fn machine(leaf: impl FnOnce(&mut CodeAssembler)) -> (Rig, u64) {
    let code = assemble(call_three_times);
    let call = code.windows(2).position(|bytes| bytes == [0xFF, 0xD7]).unwrap() as u64;
    let rig = Rig::new(&code);
    rig.load(LEAF, &assemble_at(LEAF, leaf));
    (rig, CODE + call + 2)
}

/// Whole, again, and with an end of the slice in front of each instruction: the same result and count.
fn everywhere(rig: &Rig, arguments: &[u64], expected: u64) -> u64 {
    let run = |slice: u64| {
        let begun = rig.engine.retired();
        rig.engine.set_slice(slice);
        assert_eq!(rig.call(arguments), Ok(expected), "in slices of {slice}");
        rig.engine.retired() - begun
    };
    let whole = run(u64::MAX);
    assert_eq!(run(u64::MAX), whole);
    for slice in [1, 2, 3, 5, 7, 11] {
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            rig.engine.set_slice(slice);
            Ok(())
        }));
        assert_eq!(run(slice), whole);
    }
    *rig.on_slice.borrow_mut() = None;
    assert_eq!(run(u64::MAX), whole);
    whole
}

/// Three times the low half of a return address, and what is lost of `r11`.
fn around(behind: u64) -> u64 {
    3 * (behind & 0xFFFF_FFFF) + 3 * 0x55
}

#[test]
fn a_leaf_finds_flags_and_arguments_and_leaves_flags_and_a_result() {
    let (rig, behind) = machine(|a| {
        a.adc(rcx, rdx).unwrap();
        a.lea(rax, rcx + rdx * 2).unwrap();
        a.cmp(edx, 2).unwrap();
        a.ret().unwrap();
    });
    let rounds: u64 = (1..=3).map(|round| 1000 + round + 1 + 2 * round + u64::from(round < 2)).sum();
    let count = everywhere(&rig, &[LEAF, 1000], rounds + around(behind));
    assert_eq!(count, 9 + 3 * (12 + 4) + 7);
}

#[test]
fn a_leaf_that_is_led_to_its_return_address_reads_it() {
    let (rig, behind) = machine(|a| {
        a.mov(rax, qword_ptr(rcx)).unwrap();
        a.ret().unwrap();
    });
    let slot = ((STACK_TOP - 0x20) & !15) - 8 - 4 * 8 - 0x28 - 8;
    everywhere(&rig, &[LEAF, slot], 3 * behind + 3 + around(behind));
}

#[test]
fn a_leaf_that_faults_stands_behind_the_push_of_its_call() {
    for rounds in 0..2 {
        let (rig, behind) = machine(|a| {
            a.lea(eax, edx + 1).unwrap();
            a.mov(rax, qword_ptr(rcx)).unwrap();
            a.ret().unwrap();
        });
        for _ in 0..rounds {
            rig.call(&[LEAF, DATA]).unwrap();
        }
        let begun = rig.engine.now();
        assert_eq!(rig.call(&[LEAF, DATA - 8]), Err(Leave::Stop));
        let fault = rig.the_fault();
        let slot = ((STACK_TOP - 0x20) & !15) - 8 - 4 * 8 - 0x28 - 8;
        assert_eq!((fault.kind, fault.address), (FaultKind::Read, DATA - 8));
        assert_eq!((fault.caller.rip, fault.caller.registers.rsp()), (LEAF + 4, slot));
        assert_eq!(fault.caller.registers.general[0], 4);
        let mut pushed = [0; 8];
        rig.engine.read_bytes(slot, &mut pushed).unwrap();
        assert_eq!(u64::from_le_bytes(pushed), behind);
        assert_eq!(rig.engine.now() - begun, 9 + 6 + 1, "the load has not retired");
    }
}

#[test]
fn the_push_of_a_leafs_call_faults_at_the_call_and_stores_nothing() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(r8, rsp).unwrap();
        a.mov(rsp, rcx).unwrap();
        a.mov(rax, LEAF).unwrap();
        a.call(rax).unwrap();
        a.mov(rsp, r8).unwrap();
        a.ret().unwrap();
    }));
    rig.load(LEAF, &[0xB8, 7, 0, 0, 0, 0xC3]); // mov eax, 7; ret
    for _ in 0..2 {
        assert_eq!(rig.call(&[DATA + 0x1000]), Ok(7));
        for bad in [DATA, DATA + 4] {
            assert_eq!(rig.call(&[bad]), Err(Leave::Stop));
            let fault = rig.the_fault();
            assert_eq!((fault.kind, fault.caller.rip), (FaultKind::Write, CODE + 16));
            assert_eq!(fault.caller.registers.rsp(), bad);
        }
        let mut below = [1; 4];
        rig.engine.read_bytes(DATA, &mut below).unwrap();
        assert_eq!(below, [0; 4]);
    }
}

#[test]
fn another_target_is_called_and_the_leaf_again_after_it() {
    let (rig, behind) = machine(|a| {
        a.mov(eax, edx).unwrap();
        a.ret().unwrap();
    });
    let other = LEAF + 0x1000;
    rig.load(
        other,
        &assemble_at(other, |a| {
            a.push(rdx).unwrap();
            a.pop(rax).unwrap();
            a.adc(rax, 100).unwrap();
            a.ret().unwrap();
        }),
    );
    for _ in 0..3 {
        everywhere(&rig, &[LEAF, 0], 6 + 3 + around(behind));
        everywhere(&rig, &[other, 0], 6 + 303 + around(behind));
    }
}

#[test]
fn a_leaf_that_was_written_anew_runs_as_it_is_now() {
    let (rig, behind) = machine(|a| {
        a.mov(eax, 1).unwrap();
        a.ret().unwrap();
    });
    for result in 2..5u8 {
        everywhere(&rig, &[LEAF, 0], 3 * u64::from(result - 1) + 3 + around(behind));
        rig.engine.protect(LEAF, 0x1000, Protection::READ_WRITE);
        rig.engine.write_bytes(LEAF + 1, &[result]).unwrap();
        rig.engine.protect(LEAF, 0x1000, Protection::READ_EXECUTE);
    }
}

#[test]
fn a_leaf_that_comes_to_a_device_asks_for_it() {
    let (rig, behind) = machine(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.ret().unwrap();
    });
    everywhere(&rig, &[LEAF, DATA], 3 + around(behind));
    rig.device.borrow_mut()[0x10] = 9;
    everywhere(&rig, &[LEAF, DEVICE.base + 0x10], 27 + 3 + around(behind));
    assert_eq!(rig.log().iter().filter(|line| line.starts_with("read")).count(), 9 * 3);
    everywhere(&rig, &[LEAF, DATA], 3 + around(behind));
}

#[test]
fn a_watched_load_of_a_leaf_is_asked_about() {
    let (rig, behind) = machine(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.ret().unwrap();
    });
    everywhere(&rig, &[LEAF, DATA], 3 + around(behind));
    let asked = std::rc::Rc::new(Cell::new(0));
    let counter = std::rc::Rc::clone(&asked);
    *rig.before_shared.borrow_mut() = Some(Box::new(move |_, rip| {
        assert_eq!(rip, LEAF);
        counter.set(counter.get() + 1);
        Ok(())
    }));
    rig.engine.watch(&[LEAF]);
    assert_eq!(rig.call(&[LEAF, DATA]), Ok(3 + around(behind)));
    assert_eq!(rig.call(&[LEAF, DATA]), Ok(3 + around(behind)));
    assert_eq!(asked.get(), 6);
}
