//! Interlocked instructions that are watched: the guest is asked before each, once, and nothing else changes.

use std::cell::Cell;
use std::rc::Rc;

use engine::windows::{DEVICE, PAGE};
use engine::{Leave, Protection};
use iced_x86::code_asm::{
    al, byte_ptr, dword_ptr, eax, ecx, edx, qword_ptr, r8, r9, rax, rbx, rcx, rdi, rdx, rsp,
};

use super::rig::{CODE, DATA, Rig, assemble};

/// A loop of ten rounds with a `lock xadd`, an `xchg` with memory, and a failing `lock cmpxchg`; flags live across all.
fn rounds() -> Vec<u8> {
    assemble(|a| {
        let mut again = a.create_label();
        let mut skip = a.create_label();
        a.mov(ecx, 10).unwrap();
        a.mov(r8, DATA).unwrap();
        a.xor(r9, r9).unwrap();
        a.set_label(&mut again).unwrap();
        a.mov(edx, 3).unwrap();
        a.lock().xadd(dword_ptr(r8), edx).unwrap();
        a.mov(rax, r9).unwrap();
        a.stc().unwrap();
        a.xchg(qword_ptr(r8 + 8), rax).unwrap();
        a.adc(r9, 1).unwrap();
        a.mov(eax, 77).unwrap();
        a.lock().cmpxchg(dword_ptr(r8), ecx).unwrap();
        a.je(skip).unwrap();
        a.inc(r9).unwrap();
        a.set_label(&mut skip).unwrap();
        a.dec(ecx).unwrap();
        a.jne(again).unwrap();
        a.mov(rax, r9).unwrap();
        a.ret().unwrap();
    })
}

/// What the code leaves, what it retired, and when it was asked.
fn run(watch: bool, slice: u64, flush: bool) -> (u64, [u8; 16], u64, Vec<u64>) {
    let rig = Rig::new(&rounds());
    rig.engine.watch_interlocked(watch);
    let asked = Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = Rc::clone(&asked);
    *rig.before_interlocked.borrow_mut() = Some(Box::new(move |rig| {
        engine::outside(|| log.borrow_mut().push(rig.engine.retired()));
        if flush {
            // As if the question had let a thread run that made the engine throw its translations away.
            rig.engine.protect(CODE, PAGE, Protection::READ_EXECUTE);
        }
        Ok(())
    }));
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(slice);
        Ok(())
    }));
    rig.engine.set_slice(slice);
    let began = rig.engine.retired();
    let result = rig.call(&[]).unwrap();
    let retired = rig.engine.retired() - began;
    let mut data = [0; 16];
    rig.engine.read_bytes(DATA, &mut data).unwrap();
    drop(rig);
    let asked = asked.take().into_iter().map(|time| time - began).collect();
    (result, data, retired, asked)
}

#[test]
fn a_watched_interlocked_instruction_is_asked_about_once_and_counts_as_before() {
    let (result, data, retired, asked) = run(false, u64::MAX, false);
    assert_eq!(asked, [], "the guest is not asked unless they are watched");
    for (slice, flush) in [(u64::MAX, false), (u64::MAX, true), (1, false), (1, true), (7, false), (3, true)]
    {
        let seen = run(true, slice, flush);
        assert_eq!((seen.0, seen.1, seen.2), (result, data, retired), "slices of {slice}, flush {flush}");
        assert_eq!(seen.3.len(), 30, "three in each of ten rounds, slices of {slice}, flush {flush}");
        // Before the first: three instructions of set-up and one of the round.
        assert_eq!(seen.3[..3], [4, 7, 10], "each before it has retired");
    }
}

#[test]
fn what_the_guest_does_before_an_interlocked_instruction_is_seen_by_it() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rdi, DATA).unwrap();
        a.mov(eax, 1).unwrap();
        a.xchg(dword_ptr(rdi), eax).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.watch_interlocked(true);
    *rig.before_interlocked.borrow_mut() = Some(Box::new(|rig| {
        rig.engine.write_bytes(DATA, &5u32.to_le_bytes()).unwrap();
        Ok(())
    }));
    assert_eq!(rig.call(&[]).unwrap(), 5);
}

#[test]
fn a_guest_that_stops_before_an_interlocked_instruction_finds_it_not_done() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rdi, DATA).unwrap();
        a.lock().inc(dword_ptr(rdi)).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.watch_interlocked(true);
    *rig.before_interlocked.borrow_mut() = Some(Box::new(|_| Err(Leave::Stop)));
    let began = rig.engine.retired();
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!(rig.engine.retired() - began, 1);
    let mut data = [0; 4];
    rig.engine.read_bytes(DATA, &mut data).unwrap();
    assert_eq!(data, [0; 4]);
}

#[test]
fn a_watched_interlocked_instruction_on_a_device_reads_and_writes_it_and_is_asked_about_once() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rdi, DEVICE.base).unwrap();
        a.mov(ecx, 2).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.lock().or(dword_ptr(rdi), 0x10).unwrap();
        a.dec(ecx).unwrap();
        a.jne(again).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.watch_interlocked(true);
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    *rig.before_interlocked.borrow_mut() = Some(Box::new(move |_| {
        count.set(count.get() + 1);
        Ok(())
    }));
    rig.call(&[]).unwrap();
    assert_eq!(asked.get(), 2);
    assert_eq!(rig.log().len(), 4, "a read and a write each time: {:?}", rig.log());
}

#[test]
fn a_fault_of_a_watched_interlocked_instruction_is_told_where_it_is() {
    let rig = Rig::new(&assemble(|a| {
        a.xor(eax, eax).unwrap();
        a.mov(rbx, rsp).unwrap();
        a.xchg(byte_ptr(rax), al).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.watch_interlocked(true);
    let began = rig.engine.retired();
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!(rig.the_fault().caller.rip, CODE + 5);
    assert_eq!(rig.engine.retired() - began, 2);
}

#[test]
fn an_exchange_of_registers_is_nobodys_business() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(eax, 1).unwrap();
        a.mov(ecx, 2).unwrap();
        a.xchg(rcx, rax).unwrap();
        a.xchg(rax, rdx).unwrap();
        a.mov(rax, rdx).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.watch_interlocked(true);
    *rig.before_interlocked.borrow_mut() = Some(Box::new(|_| Err(Leave::Stop)));
    assert_eq!(rig.call(&[]).unwrap(), 2);
}
