//! What driver code compares is noted before it is done, and nothing else changes; and which code is come to is kept.

use engine::{Asked, Compare};
use iced_x86::code_asm::{ax, byte_ptr, cl, dword_ptr, eax, ecx, r8, rax, rcx, rdx};

use super::rig::{CODE, DATA, Rig, assemble};

/// Compares a register, a word in memory, and half of a register; tests bits; takes a constant from one, as a switch does, and counts what was equal.
fn comparisons() -> Vec<u8> {
    assemble(|a| {
        let mut labels = [a.create_label(), a.create_label(), a.create_label(), a.create_label()];
        a.xor(eax, eax).unwrap();
        a.mov(r8, DATA).unwrap();
        a.cmp(ecx, 0x1234).unwrap();
        a.jne(labels[0]).unwrap();
        a.inc(rax).unwrap();
        a.set_label(&mut labels[0]).unwrap();
        a.cmp(dword_ptr(r8), -2).unwrap();
        a.jne(labels[1]).unwrap();
        a.inc(rax).unwrap();
        a.set_label(&mut labels[1]).unwrap();
        a.cmp(byte_ptr(r8 + 4), cl).unwrap();
        a.jne(labels[2]).unwrap();
        a.inc(rax).unwrap();
        a.set_label(&mut labels[2]).unwrap();
        a.test(rdx, rcx).unwrap();
        a.je(labels[3]).unwrap();
        a.inc(rax).unwrap();
        a.set_label(&mut labels[3]).unwrap();
        a.sub(ax, 9).unwrap();
        a.ret().unwrap();
    })
}

#[test]
fn operands_are_noted_while_that_is_wanted() {
    let rig = Rig::new(&comparisons());
    rig.engine.write_bytes(DATA, &[0xFE, 0xFF, 0xFF, 0xFF, 0x34]).unwrap();
    let run = || {
        let before = rig.engine.retired();
        let result = rig.call(&[0x1234, 6]).unwrap();
        (result, rig.engine.retired() - before)
    };
    let plain = run();
    assert_eq!(plain.0 & 0xFFFF, 4_u64.wrapping_sub(9) & 0xFFFF);
    assert_eq!(rig.engine.compared(), []);

    rig.engine.note_compares(true);
    assert_eq!(run(), plain);
    let compared = rig.engine.compared();
    let seen: Vec<_> = compared
        .iter()
        .map(|Compare { bytes, asked, left, right, .. }| (*bytes, *asked == Asked::Bits, *left, *right))
        .collect();
    let expected = [
        (4, false, 0x1234, 0x1234),
        (4, false, 0xFFFF_FFFE, 0xFFFF_FFFE),
        (1, false, 0x34, 0x34),
        (8, true, 6, 0x1234),
        (2, false, 4, 9),
    ];
    assert_eq!(seen, expected);
    assert!(compared.iter().all(|compare| (CODE..CODE + 0x100).contains(&compare.rip)), "{compared:?}");
    assert_eq!(rig.engine.compared(), [], "what was read is gone");

    rig.engine.note_compares(false);
    assert_eq!(run(), plain);
    assert_eq!(rig.engine.compared(), []);
}

#[test]
fn code_behind_a_branch_that_is_not_taken_is_not_come_to() {
    let code = assemble(|a| {
        let mut other = a.create_label();
        a.xor(eax, eax).unwrap();
        a.cmp(ecx, 1).unwrap();
        a.jne(other).unwrap();
        a.inc(rax).unwrap();
        a.ret().unwrap();
        a.set_label(&mut other).unwrap();
        a.dec(rax).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::new(&code);
    rig.engine.keep_reached();
    assert_eq!(rig.call(&[2]).unwrap(), u64::MAX);
    let reached = rig.engine.reached();
    assert_eq!((reached.len(), reached[0]), (5, CODE));
    assert_eq!(rig.call(&[1]).unwrap(), 1);
    assert_eq!(rig.engine.reached().len(), 7);
}
