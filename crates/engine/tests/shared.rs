//! Plain instructions on memory that others touch too: which they are is learned, and the guest is asked before each that is
//! watched, once, and nothing else changes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use engine::windows::PAGE;
use engine::{Leave, Protection, Tracking};
use iced_x86::Mnemonic;
use iced_x86::code_asm::{
    byte_ptr, cl, dword_ptr, eax, ecx, edx, qword_ptr, r8, r8d, r9, r9b, r9d, r10, r13, rax, rcx, rdi, rdx,
    rsi, rsp,
};

use super::rig::{self, CODE, DATA, Rig, STACK_SIZE, STACK_TOP, assemble};

/// Five rounds of a load, a store, a repeated string, a push and a call through memory, with flags live across all of them.
fn rounds() -> Vec<u8> {
    assemble(|a| {
        let (mut again, mut behind) = (a.create_label(), a.create_label());
        a.mov(r8, DATA).unwrap();
        a.xor(r9, r9).unwrap();
        a.mov(edx, 5).unwrap();
        a.set_label(&mut again).unwrap();
        a.stc().unwrap();
        a.mov(eax, dword_ptr(r8)).unwrap();
        a.adc(eax, 7).unwrap();
        a.mov(dword_ptr(r8), eax).unwrap();
        a.mov(rsi, DATA).unwrap();
        a.mov(rdi, DATA + 64).unwrap();
        a.mov(ecx, 9).unwrap();
        a.rep().movsb().unwrap();
        a.push(qword_ptr(r8)).unwrap();
        a.pop(rax).unwrap();
        a.add(r9, rax).unwrap();
        a.call(qword_ptr(r8 + 128)).unwrap();
        a.dec(edx).unwrap();
        a.jne(again).unwrap();
        a.mov(rax, r9).unwrap();
        a.ret().unwrap();
        a.set_label(&mut behind).unwrap();
        a.add(r9, 1).unwrap();
        a.ret().unwrap();
    })
}

/// Where the routine begins that is called through memory, and where all instructions are.
fn places(code: &[u8]) -> (u64, Vec<u64>) {
    let mut decoder = iced_x86::Decoder::with_ip(64, code, CODE, 0);
    let all: Vec<_> = decoder.iter().collect();
    let ret = all.iter().find(|it| it.mnemonic() == Mnemonic::Ret).unwrap();
    (ret.next_ip(), all.iter().map(iced_x86::Instruction::ip).collect())
}

/// What the code leaves, what it retired, and before what it was asked when.
fn run(watch: bool, slice: u64, flush: bool) -> (u64, Vec<u8>, u64, Vec<(u64, u64)>) {
    let code = rounds();
    let (routine, all) = places(&code);
    let rig = Rig::new(&code);
    rig.engine.write_bytes(DATA + 128, &routine.to_le_bytes()).unwrap();
    rig.engine.watch(if watch { &all } else { &[] });
    let asked = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&asked);
    let began = rig.engine.retired();
    *rig.before_shared.borrow_mut() = Some(Box::new(move |rig, rip| {
        engine::outside(|| log.borrow_mut().push((rip, rig.engine.retired() - began)));
        if flush {
            rig.engine.protect(CODE, PAGE, Protection::READ_EXECUTE);
        }
        Ok(())
    }));
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(slice);
        Ok(())
    }));
    rig.engine.set_slice(slice);
    let result = rig.call(&[]).unwrap();
    let retired = rig.engine.retired() - began;
    let mut data = vec![0; 256];
    rig.engine.read_bytes(DATA, &mut data).unwrap();
    drop(rig);
    (result, data, retired, asked.take())
}

#[test]
fn a_watched_instruction_is_asked_about_once_and_counts_as_before() {
    let (result, data, retired, asked) = run(false, u64::MAX, false);
    assert_eq!(asked, []);
    let first = run(true, u64::MAX, false);
    // Four around the rounds; in each 12 plain ones, the call through memory and one of the routine's. No jump, no `ret`.
    assert_eq!(first.3.len(), 4 + 14 * 5);
    assert_eq!(first.3[..2], [(CODE, 0), (CODE + 10, 1)], "each before it has retired");
    for (slice, flush) in [(u64::MAX, false), (u64::MAX, true), (1, false), (1, true), (7, false), (3, true)]
    {
        let seen = run(true, slice, flush);
        assert_eq!((seen.0, &seen.1, seen.2), (result, &data, retired), "slices of {slice}, flush {flush}");
        assert_eq!(seen.3, first.3, "slices of {slice}, flush {flush}");
    }
}

#[test]
fn what_the_guest_does_before_a_watched_instruction_is_seen_by_it() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rdi, DATA).unwrap();
        a.mov(eax, dword_ptr(rdi)).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.watch(&[CODE + 10]);
    *rig.before_shared.borrow_mut() = Some(Box::new(|rig, _| {
        rig.engine.write_bytes(DATA, &5u32.to_le_bytes()).unwrap();
        Ok(())
    }));
    assert_eq!(rig.call(&[]).unwrap(), 5);
    rig.engine.watch(&[]);
    *rig.before_shared.borrow_mut() = Some(Box::new(|_, _| Err(Leave::Stop)));
    assert_eq!(rig.call(&[]).unwrap(), 5, "it is watched no more");
}

/// A store to a byte by one flow, a load of the byte behind it by another; then the same byte.
#[test]
fn instructions_that_meet_in_a_byte_are_learned_and_neighbours_are_not() {
    let store = assemble(|a| {
        a.mov(byte_ptr(rcx), 1).unwrap();
        a.ret().unwrap();
    });
    let load = rig::assemble_at(CODE + PAGE, |a| {
        a.push(rcx).unwrap();
        a.movzx(eax, byte_ptr(rcx)).unwrap();
        a.mov(cl, byte_ptr(rsp)).unwrap();
        a.pop(rcx).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::new(&store);
    rig.load(CODE + PAGE, &load);
    let call = |flow, target, address| {
        rig.flow.set(flow);
        let began = rig.engine.retired();
        rig.call_at(target, &[address]).unwrap();
        rig.engine.retired() - began
    };
    let fast = (call(1, CODE, DATA), call(2, CODE + PAGE, DATA));
    assert_eq!(rig.engine.shared(), [], "nothing is noted unless sharing is learned");
    rig.engine.learn_shared(true);
    assert_eq!((call(1, CODE, DATA), call(2, CODE + PAGE, DATA + 1)), fast, "nothing counts differently");
    assert_eq!(rig.engine.shared(), []);
    rig.engine.fresh(DATA, 1);
    call(2, CODE + PAGE, DATA);
    assert_eq!(rig.engine.shared(), [], "the store was to what was there before");
    call(1, CODE, DATA);
    // Both, and nothing of the stack's.
    assert_eq!(rig.engine.shared(), [CODE, CODE + PAGE + 1]);
}

/// Runs that begin where the machine is taken back to have all of the run behind them that lies before.
#[test]
fn what_was_touched_before_a_snapshot_is_known_again_behind_it() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(byte_ptr(rcx), 1).unwrap();
        a.ret().unwrap();
    }));
    rig.load(
        CODE + PAGE,
        &rig::assemble_at(CODE + PAGE, |a| {
            a.movzx(eax, byte_ptr(rcx)).unwrap();
            a.ret().unwrap();
        }),
    );
    let call = |flow, target, address| {
        rig.flow.set(flow);
        rig.call_at(target, &[address]).unwrap();
    };
    rig.host.track(Tracking::Faults).unwrap();
    rig.engine.learn_shared(true);
    let empty = rig.host.snapshot().unwrap();
    call(1, CODE, DATA);
    let stored = rig.host.snapshot().unwrap();
    call(1, CODE, DATA + 1);
    rig.host.rewind(stored);
    call(2, CODE + PAGE, DATA + 1);
    assert_eq!(rig.engine.shared(), [], "that store was taken back");
    rig.host.rewind(stored);
    rig.host.rewind(empty);
    call(2, CODE + PAGE, DATA);
    assert_eq!(rig.engine.shared(), [], "and here the other one");
    rig.host.rewind(empty);
    call(1, CODE, DATA);
    let stored = rig.host.snapshot().unwrap();
    rig.host.rewind(stored);
    call(2, CODE + PAGE, DATA);
    assert_eq!(rig.engine.shared(), [CODE, CODE + PAGE]);
    rig.host.discard(stored);
    rig.host.discard(empty);
}

/// What a flow does on its own stack is not noted until another flow reaches into that: then the run has taught too little, and
/// the next one teaches all.
#[test]
fn a_stack_is_spared_until_another_flow_reaches_into_it() {
    let rig = Rig::new(&assemble(|a| {
        // With flags live across each access, and operands of each kind.
        a.push(r13).unwrap();
        a.mov(r13, rsp).unwrap();
        a.xor(eax, eax).unwrap();
        a.stc().unwrap();
        a.mov(dword_ptr(rsp - 0x40), 7).unwrap();
        a.adc(eax, dword_ptr(r13 - 0x40)).unwrap();
        a.mov(ecx, 1).unwrap();
        a.stc().unwrap();
        a.adc(dword_ptr(rsp + rcx * 8 - 0x40), 3).unwrap();
        a.adc(eax, 0).unwrap();
        a.pop(r13).unwrap();
        a.ret().unwrap();
    }));
    let own = CODE + PAGE;
    rig.load(
        own,
        &rig::assemble_at(own, |a| {
            a.mov(eax, dword_ptr(rcx)).unwrap();
            a.ret().unwrap();
        }),
    );
    let call = |flow: u64, target: u64, address: u64| {
        rig.flow.set(flow);
        let begun = rig.engine.retired();
        let result = rig.call_at(target, &[address]).unwrap();
        (result, rig.engine.retired() - begun)
    };
    let (local, other_stack) = (STACK_TOP - 0x70, STACK_TOP + 0x10_0000);
    rig.map(other_stack - STACK_SIZE, STACK_SIZE);
    rig.map(other_stack, PAGE);
    let fast = call(1, CODE, 0);
    assert_eq!(fast.0, 8);
    rig.engine.learn_shared(true);
    assert_eq!(call(1, CODE, 0), fast, "nothing counts differently");
    assert!(!rig.engine.must_learn_again());
    call(2, own, local);
    assert!(!rig.engine.must_learn_again(), "it stands on this stack");
    rig.stack_top.set(other_stack);
    call(2, own, DATA);
    assert!(!rig.engine.must_learn_again());
    call(2, own, local);
    assert_eq!(rig.engine.shared(), [], "who stored there was not noted");
    assert!(rig.engine.must_learn_again());
    assert!(!rig.engine.must_learn_again(), "it is said once");
    for _ in 0..2 {
        rig.stack_top.set(STACK_TOP);
        assert_eq!(call(1, CODE, 0), fast);
        rig.stack_top.set(other_stack);
        call(2, own, local);
    }
    let store = rig.engine.shared();
    assert_eq!(store.len(), 2);
    assert_eq!(store[1], own);
    assert!(!rig.engine.must_learn_again());
}

/// Driver code writes down by itself what it touches, once it was inspected: all of it is noted, and nothing counts or ends differently.
#[test]
fn accesses_of_all_kinds_are_noted_and_change_nothing() {
    const TABLE: u64 = CODE + 4 * PAGE;
    let code = |relative: &[u8]| {
        assemble(|a| {
            a.mov(byte_ptr(rcx), 1).unwrap(); // inspected; what follows is written down
            a.mov(rdx, rcx).unwrap();
            a.mov(rax, rcx).unwrap();
            a.xor(r8d, r8d).unwrap();
            a.stc().unwrap();
            a.adc(dword_ptr(rax + 0x100), 5).unwrap(); // 6
            a.stc().unwrap();
            a.adc(r8d, dword_ptr(rdx + 0x100)).unwrap(); // 7
            a.mov(r9d, 2).unwrap();
            a.stc().unwrap();
            a.adc(dword_ptr(rcx + r9 * 8 + 0x200), r8d).unwrap(); // 8
            a.stc().unwrap();
            a.db(relative).unwrap(); // adc r8d, [TABLE]: 7 + 30 + 1
            a.push(qword_ptr(rcx + 0x300)).unwrap();
            a.pop(r10).unwrap();
            a.mov(r9d, 300).unwrap();
            let mut again = a.create_label();
            a.set_label(&mut again).unwrap();
            a.mov(byte_ptr(rcx + r9 + 0x400), r9b).unwrap();
            a.dec(r9).unwrap();
            a.jne(again).unwrap();
            a.add(r8d, dword_ptr(rcx + 0x210)).unwrap(); // 46
            a.sub(rdx, rcx).unwrap();
            a.sub(rax, rcx).unwrap();
            a.add(rax, rdx).unwrap();
            a.add(rax, r8).unwrap();
            a.ret().unwrap();
        })
    };
    let place = |bytes: &[u8], wanted: Mnemonic, number: usize| {
        let mut decoder = iced_x86::Decoder::with_ip(64, bytes, CODE, 0);
        decoder.iter().filter(|it| it.mnemonic() == wanted).nth(number).unwrap().ip()
    };
    let adc_r8d = |at| rig::relative(at, &[0x44, 0x13, 0x05], TABLE);
    let at = place(&code(&adc_r8d(CODE)), Mnemonic::Adc, 3);
    let code = code(&adc_r8d(at));
    let rig = Rig::new(&code);
    rig.map(TABLE, PAGE);
    let other = CODE + PAGE;
    rig.load(
        other,
        &rig::assemble_at(other, |a| {
            a.mov(byte_ptr(rcx), 1).unwrap();
            a.ret().unwrap();
        }),
    );
    let call = |flow: u64, target: u64, address: u64| {
        rig.flow.set(flow);
        let begun = rig.engine.retired();
        (rig.call_at(target, &[address]).unwrap(), rig.engine.retired() - begun)
    };
    let whole = || {
        rig.engine.write_bytes(DATA, &[0; 0x600]).unwrap();
        rig.engine.write_bytes(TABLE, &30_u32.to_le_bytes()).unwrap();
        call(1, CODE, DATA)
    };
    let fast = whole();
    assert_eq!(fast.0, 46);
    rig.engine.learn_shared(true);
    assert_eq!(whole(), fast);
    assert_eq!(rig.engine.shared(), []);
    let mut learned = BTreeSet::from([other]);
    for (address, instructions) in [
        (TABLE, vec![(Mnemonic::Adc, 3)]),
        (DATA + 0x100, vec![(Mnemonic::Adc, 0), (Mnemonic::Adc, 1)]),
        (DATA + 0x210, vec![(Mnemonic::Adc, 2), (Mnemonic::Add, 0)]),
        (DATA + 0x300, vec![(Mnemonic::Push, 0)]),
        (DATA + 0x401, vec![(Mnemonic::Mov, 5)]),
        (DATA + 0x52C, vec![]),
        (DATA, vec![(Mnemonic::Mov, 0)]),
    ] {
        learned.extend(instructions.into_iter().map(|(mnemonic, number)| place(&code, mnemonic, number)));
        call(2, other, address);
        assert_eq!(rig.engine.shared(), Vec::from_iter(learned.iter().copied()), "{address:#x}");
        assert_eq!(whole(), fast);
    }
}
