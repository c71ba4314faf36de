//! What the engine says of the next instruction, shape by shape. Whole functions are stepped through in `corpus`.

use std::cell::RefCell;
use std::rc::Rc;

use engine::{Reference, Step};

use super::rig::{DATA, Rig};

/// What is said of the second instruction of `code`, which runs with `rcx`, and the stack pointer before it.
fn said(code: &[u8], rcx: u64) -> (Step, u64) {
    let rig = Rig::new(&[&[0x90], code].concat());
    let first = Rc::new(RefCell::new(None));
    let hold = first.clone();
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        let rsp = rig.engine.driver_state().expect("it is between two instructions").registers.rsp();
        engine::outside(|| hold.borrow_mut().get_or_insert((rig.engine.next_step(), rsp)).1);
        Ok(())
    }));
    rig.engine.set_slice(1);
    rig.call(&[rcx]).unwrap();
    *rig.on_slice.borrow_mut() = None;
    first.take().expect("the slice ended")
}

fn touch(address: u64, bytes: u8) -> [Option<Reference>; 2] {
    [Some(Reference { address, bytes }), None]
}

const NONE: [Option<Reference>; 2] = [None, None];

#[test]
fn loads_and_stores_are_told_with_address_and_size() {
    let plain = |loads, stores| Step::Inside { loads, stores, pushes: false, lands: None };
    // mov rax, [rcx]; mov [rcx+10h], al; lock cmpxchg [rcx+8], rax; movaps xmm0, [rcx]; lea rax, [rcx]
    assert_eq!(said(b"\x48\x8B\x01\xC3", DATA).0, plain(touch(DATA, 8), NONE));
    assert_eq!(said(b"\x88\x41\x10\xC3", DATA).0, plain(NONE, touch(DATA + 0x10, 1)));
    let word = touch(DATA + 8, 8);
    assert_eq!(said(b"\xF0\x48\x0F\xB1\x41\x08\xC3", DATA).0, plain(word, word));
    assert_eq!(said(b"\x0F\x28\x01\xC3", DATA).0, plain(touch(DATA, 16), NONE));
    assert_eq!(said(b"\x48\x8D\x01\xC3", DATA).0, plain(NONE, NONE));
}

#[test]
fn a_push_a_call_and_a_jump_are_told_with_where_they_leave_the_stack() {
    // push rax; pop rax
    let (step, rsp) = said(b"\x50\x58\xC3", DATA);
    assert_eq!(step, Step::Inside { loads: NONE, stores: touch(rsp - 8, 8), pushes: true, lands: None });
    // call +0; add rsp, 8
    let (step, rsp) = said(b"\xE8\0\0\0\0\x48\x83\xC4\x08\xC3", DATA);
    let lands = Some(rsp - 8);
    assert_eq!(step, Step::Inside { loads: NONE, stores: touch(rsp - 8, 8), pushes: true, lands });
    // jmp +0; jz +0
    let (step, rsp) = said(b"\xEB\0\xC3", DATA);
    assert_eq!(step, Step::Inside { loads: NONE, stores: NONE, pushes: false, lands: Some(rsp) });
    let (step, _) = said(b"\x74\0\xC3", DATA);
    assert_eq!(step, Step::Inside { loads: NONE, stores: NONE, pushes: false, lands: None });
}

#[test]
fn what_is_no_plain_step_is_not_told_of() {
    // in al, dx; cli; rep movsb of nothing; fld1, fstp st0
    let cases: [&[u8]; 4] = [b"\xEC\xC3", b"\xFA\xC3", b"\xF3\xA4\xC3", b"\xD9\xE8\xDD\xD8\xC3"];
    for code in cases {
        assert_eq!(said(code, 0).0, Step::Other, "{code:x?}");
    }
}
