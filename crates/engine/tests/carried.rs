//! What a store has of an earlier load: only what follows from the instructions between the two.

use engine::{Carried, Moved, Registers};
use iced_x86::code_asm::{CodeAssembler, al, dword_ptr, eax, ecx, edx, r8d, r9d, r10d, rcx, rdx, rsp};

use super::rig::{CODE, Rig, assemble};

/// Of code whose first instruction loads, and whose last before `ret` stores.
fn carried(write: impl Fn(&mut CodeAssembler)) -> Carried {
    carried_with(None, write)
}

/// The same with masks in `edx` and `r8d` at the store.
fn carried_with(masks: Option<(u64, u64)>, write: impl Fn(&mut CodeAssembler)) -> Carried {
    carried_as(masks, None, write)
}

/// The same where it is known what was loaded and stored.
fn carried_as(
    masks: Option<(u64, u64)>,
    moved: Option<Moved>,
    write: impl Fn(&mut CodeAssembler),
) -> Carried {
    let code = assemble(|a| {
        write(a);
        a.ret().unwrap();
    });
    let store =
        iced_x86::Decoder::with_ip(64, &code, CODE, 0).into_iter().map(|it| it.ip()).collect::<Vec<_>>();
    let registers = masks.map(|(and, or)| {
        let mut general = [0; 16];
        (general[2], general[8]) = (and, or);
        Registers { general, flags: 0 }
    });
    Rig::new(&code).engine.carried(CODE, store[store.len() - 2], registers, moved)
}

#[test]
fn masks_count_that_stand_in_registers_from_their_use_to_the_store() {
    let changed = |a: &mut CodeAssembler| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.and(eax, edx).unwrap();
        a.or(eax, r8d).unwrap();
    };
    let stored = |a: &mut CodeAssembler| {
        changed(a);
        a.mov(dword_ptr(rcx), eax).unwrap();
    };
    assert_eq!(carried_with(Some((0xFFFF_FFF0, 0x100)), stored), both(0xFFFF_FEF0));
    assert_eq!(carried_with(None, stored), NONE, "any of them may be set or cleared");
    let gone = carried_with(Some((0xFFFF_FFF0, 0x100)), |a| {
        changed(a);
        a.mov(edx, 3).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    assert_eq!(gone, NONE, "what the mask was is not known any more");
    let of_another = carried_with(Some((0xFFFF_FFF0, 0x100)), |a| {
        a.mov(r9d, dword_ptr(rcx)).unwrap();
        a.and(eax, r10d).unwrap();
        a.mov(r10d, 3).unwrap();
        a.and(eax, r9d).unwrap();
        a.or(eax, r8d).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    let ones = Carried { zeroes: 0, ones: 0xFFFF_FEFF };
    assert_eq!(of_another, ones, "what a value was made of that has nothing of the load is no mask of it");
}

const NONE: Carried = Carried { zeroes: 0, ones: 0 };

fn both(bits: u64) -> Carried {
    Carried { zeroes: bits, ones: bits }
}

#[test]
fn bits_that_are_set_and_cleared_are_not_carried_and_all_others_are() {
    let found = carried(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.or(al, 2).unwrap();
        a.and(eax, !0x100).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    assert_eq!(found, both(0xFFFF_FEFD));
}

#[test]
fn one_bit_that_is_kept_is_carried_where_others_are_added() {
    let found = carried(|a| {
        a.mov(edx, dword_ptr(rcx)).unwrap();
        a.and(edx, 0x80).unwrap();
        a.mov(r8d, dword_ptr(rcx + 8)).unwrap();
        a.or(r8d, edx).unwrap();
        a.mov(dword_ptr(rcx), r8d).unwrap();
    });
    assert_eq!(found, Carried { zeroes: 0x80, ones: 0 });
    assert_eq!((found.bits(0), found.bits(0x80)), (0x80, 0));
}

#[test]
fn a_value_is_carried_over_the_stack_a_call_and_either_way_of_a_branch() {
    let found = carried(|a| {
        let (mut other, mut end) = (a.create_label(), a.create_label());
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.mov(dword_ptr(rsp + 0x20), eax).unwrap();
        a.call(rdx).unwrap();
        a.mov(eax, dword_ptr(rsp + 0x20)).unwrap();
        a.test(ecx, ecx).unwrap();
        a.je(other).unwrap();
        a.or(eax, 1).unwrap();
        a.jmp(end).unwrap();
        a.set_label(&mut other).unwrap();
        a.and(eax, !2).unwrap();
        a.set_label(&mut end).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    assert_eq!(found, both(0xFFFF_FFFC));
}

#[test]
fn what_is_made_anew_is_not_carried() {
    let constant = carried(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.mov(eax, 5).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    let shifted = carried(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.shl(eax, 1).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    let after_a_call = carried(|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.call(rdx).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    assert_eq!([constant, shifted, after_a_call], [NONE; 3]);
}

#[test]
fn of_ways_by_which_the_loaded_did_not_become_the_stored_nothing_is_taken() {
    // As a service routine disables those of two sources that it has seen, and takes them back; the mask's register is used for another purpose then.
    let disabled = |a: &mut CodeAssembler| {
        let (mut both, mut end) = (a.create_label(), a.create_label());
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.mov(r8d, 0xFFFF_F3FE_u32).unwrap();
        a.mov(edx, 0x400).unwrap();
        a.test(eax, 0x20).unwrap();
        a.jne(both).unwrap();
        a.jmp(end).unwrap();
        a.set_label(&mut both).unwrap();
        a.mov(r8d, 0xFFFF_F3F6_u32).unwrap();
        a.mov(edx, 0xC00).unwrap();
        a.set_label(&mut end).unwrap();
        a.and(eax, r8d).unwrap();
        a.mov(r8d, dword_ptr(rcx + 8)).unwrap();
        a.or(eax, edx).unwrap();
        a.mov(rdx, rcx).unwrap();
        a.mov(dword_ptr(rdx), eax).unwrap();
    };
    let moved = |loaded, stored| carried_as(None, Some(Moved { loaded, stored }), disabled);
    assert_eq!(moved(0x24D, 0x64C), both(0xFFFF_F3FE), "one source was disabled, the other stays enabled");
    assert_eq!(moved(0x26D, 0xE64), both(0xFFFF_F3F6), "both were");
    assert_eq!(carried(disabled), both(0xFFFF_F3F6), "by either");
    assert_eq!(moved(0x24D, 0x1234), NONE, "by neither");
}

#[test]
fn what_one_way_makes_anew_is_not_carried_by_the_other_either() {
    let found = carried(|a| {
        let mut end = a.create_label();
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.test(eax, eax).unwrap();
        a.jne(end).unwrap();
        a.mov(eax, 7).unwrap();
        a.set_label(&mut end).unwrap();
        a.mov(dword_ptr(rcx), eax).unwrap();
    });
    assert_eq!(found, NONE);
}
