//! The ends of slices within blocks: at every instruction, for the first time and again, with flags alive, around code that is
//! rewritten meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod rig;

use engine::{Leave, Protection};
use iced_x86::code_asm::*;
use rig::{CODE, Rig, assemble};

/// A loop of which each round begins with flags that its last one has set: a sum of words that carries, and what `seto` saw.
fn carrying() -> Vec<u8> {
    assemble(|a| {
        let mut again = a.create_label();
        a.mov(eax, 0x7FFF_FFF0_u32).unwrap();
        a.mov(edx, 20).unwrap();
        a.xor(r8d, r8d).unwrap();
        a.mov(r13, rcx).unwrap();
        a.set_label(&mut again).unwrap();
        a.adc(eax, ecx).unwrap();
        a.seto(r9b).unwrap();
        a.lea(r8, r8 + r9).unwrap();
        a.lea(rcx, rcx + rax * 2).unwrap();
        a.lea(r13, r13 + rcx + 1).unwrap();
        a.dec(edx).unwrap();
        a.jnz(again).unwrap();
        a.lea(rax, rax + r8 * 8).unwrap();
        a.lea(rax, rax + r13).unwrap();
        a.ret().unwrap();
    })
}

#[test]
fn slices_of_every_length_end_alike_the_first_time_and_again() {
    let rig = Rig::new(&carrying());
    let argument = 0x1234_5678_u64;
    let before = rig.engine.now();
    let whole = rig.call(&[argument]).unwrap();
    let length = rig.engine.now() - before;
    assert!(length > 140, "twenty rounds of seven instructions and more");
    for slice in 1..=70 {
        for time in 1..=3 {
            *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
                rig.engine.set_slice(slice);
                Ok(())
            }));
            let before = rig.engine.now();
            rig.engine.set_slice(slice);
            assert_eq!(rig.call(&[argument]), Ok(whole), "slices of {slice}, time {time}");
            assert_eq!(rig.engine.now() - before, length, "slices of {slice}, time {time}");
        }
    }
}

#[test]
fn a_slice_ends_at_the_same_instruction_whether_its_copy_was_there_or_not() {
    let rig = Rig::new(&carrying());
    for _ in 0..3 {
        for slice in 1..60 {
            // The end of one call, if it is shorter, counts for the next: so each begins by itself.
            rig.engine.set_slice(slice);
            let until = rig.engine.now() + slice;
            *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
                assert_eq!(rig.engine.now(), until);
                Err(Leave::Stop)
            }));
            assert_eq!(rig.call(&[5]), Err(Leave::Stop));
        }
    }
}

#[test]
fn code_behind_the_end_of_a_slice_runs_as_it_was_rewritten_then() {
    let rig = Rig::new(&assemble(|a| {
        a.nop().unwrap();
        a.nop().unwrap();
        a.mov(eax, 1).unwrap();
        a.ret().unwrap();
    }));
    for value in 2..9_u8 {
        rig.engine.set_slice(u64::from(value % 3));
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            rig.engine.protect(CODE, 0x1000, Protection::READ_WRITE);
            rig.engine.write_bytes(CODE + 3, &[value]).unwrap(); // the constant
            rig.engine.protect(CODE, 0x1000, Protection::READ_EXECUTE);
            rig.engine.set_slice(1000);
            Ok(())
        }));
        assert_eq!(rig.call(&[]), Ok(value.into()));
        assert_eq!(rig.call(&[]), Ok(value.into()), "and in a new translation");
    }
}
