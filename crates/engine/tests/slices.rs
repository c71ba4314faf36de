//! The ends of slices within blocks: at every instruction, for the first time and again, with flags alive, around code that is
//! rewritten meanwhile.

use engine::{Leave, Protection};
use iced_x86::code_asm::*;

use super::rig::{CODE, Rig, assemble};

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

/// How a block of [`flags_go_on`] leads to the next one.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Jump,
    Call,
    On,
}

/// Flags that are set in one block, with `between` instructions that leave them alone in that and in the next, where `read` comes.
fn flags_go_on(way: Way, between: u32, read: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    assemble(|a| {
        let (mut next, mut end) = (a.create_label(), a.create_label());
        a.nop().unwrap();
        a.jmp(end).unwrap(); // a block begins behind it, whose head would change flags
        a.set_label(&mut next).unwrap();
        (0..between).for_each(|n| a.lea(r10, r10 + n).unwrap());
        read(a);
        a.ret().unwrap();
        a.set_label(&mut end).unwrap();
        a.xor(eax, eax).unwrap();
        a.cmp(ecx, edx).unwrap();
        (0..between).for_each(|n| a.lea(r11, r11 + n).unwrap());
        match way {
            Way::Jump => a.jmp(next).unwrap(),
            Way::Call => {
                a.call(next).unwrap();
                a.ret().unwrap();
            }
            // Longer than a block may be.
            Way::On => {
                (0..100).for_each(|_| a.lea(r11, r11 + 1).unwrap());
                a.setb(al).unwrap();
                a.sete(ah).unwrap();
                a.ret().unwrap();
            }
        }
    })
}

#[test]
fn flags_that_a_later_block_reads_are_there_however_a_slice_ends() {
    /// What is read, how, and what comes of it for two numbers that were compared.
    type Read = (&'static str, fn(&mut CodeAssembler), fn(u32, u32) -> u64);
    let reads: [Read; 3] = [
        (
            "both",
            |a| {
                a.setb(al).unwrap();
                a.sete(ah).unwrap();
            },
            |x, y| u64::from(x < y) | u64::from(x == y) << 8,
        ),
        (
            "the one that is left",
            |a| {
                a.inc(r10d).unwrap();
                a.setb(al).unwrap();
            },
            |x, y| u64::from(x < y),
        ),
        (
            "none",
            |a| {
                a.test(ecx, ecx).unwrap();
                a.setb(al).unwrap();
                a.sete(ah).unwrap();
            },
            |x, _| u64::from(x == 0) << 8,
        ),
    ];
    for way in [Way::Jump, Way::Call, Way::On] {
        for between in [0, 1, 5, 11, 12, 13] {
            for (what, read, expected) in reads {
                let rig = Rig::new(&flags_go_on(way, between, read));
                for slice in [1000, 1, 2, 3, 5, 7, 11] {
                    for (x, y) in [(1, 2), (2, 2), (3, 2), (0, 0)] {
                        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
                            rig.engine.set_slice(slice);
                            Ok(())
                        }));
                        rig.engine.set_slice(slice);
                        let expected = if way == Way::On { reads[0].2(x, y) } else { expected(x, y) };
                        let seen = rig.call(&[x.into(), y.into()]);
                        assert_eq!(
                            seen,
                            Ok(expected),
                            "{what}, {between} between, {way:?}, {x} and {y}, slices of {slice}"
                        );
                    }
                }
            }
        }
    }
}

/// What was seen ahead of a block does not outlive the bytes that it was seen in.
#[test]
fn code_that_begins_to_read_flags_finds_them() {
    let reads = |a: &mut CodeAssembler| {
        a.nop().unwrap();
        a.nop().unwrap(); // test ecx, ecx
        a.setb(al).unwrap();
    };
    for way in [Way::Jump, Way::Call] {
        let rig = Rig::new(&flags_go_on(way, 0, reads));
        let place = CODE + 3; // behind the nop and the jump
        let run = |slice| {
            *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
                rig.engine.set_slice(slice);
                Ok(())
            }));
            rig.engine.set_slice(slice);
            rig.call(&[1, 2])
        };
        for _ in 0..2 {
            assert_eq!([run(1000), run(3)], [Ok(1), Ok(1)], "{way:?}");
            for (bytes, expected) in [([0x85, 0xC9], 0), ([0x90, 0x90], 1)] {
                rig.engine.protect(CODE, 0x1000, Protection::READ_WRITE);
                rig.engine.write_bytes(place, &bytes).unwrap();
                rig.engine.protect(CODE, 0x1000, Protection::READ_EXECUTE);
                assert_eq!([run(1000), run(3)], [Ok(expected); 2], "{way:?}");
            }
        }
    }
}
