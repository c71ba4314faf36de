//! Instructions that empty a processor's write-combining buffers: the guest hears of each, once, and nothing else changes.

use std::cell::RefCell;
use std::rc::Rc;

use engine::windows::DEVICE;
use iced_x86::code_asm::{dword_ptr, eax, ecx, edx, r8, rdi};

use super::rig::{DATA, Rig, assemble};

/// What code returns, what it retired, and when a fence was reported to the guest, each counted in instructions from the start.
fn run(code: &[u8], watch: bool, slice: u64) -> (u64, u64, Vec<u64>) {
    let rig = Rig::new(code);
    if watch {
        rig.engine.watch_fences();
    }
    let reported = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&reported);
    *rig.fence.borrow_mut() = Some(Box::new(move |rig| {
        engine::outside(|| log.borrow_mut().push(rig.engine.retired()));
        Ok(())
    }));
    *rig.before_interlocked.borrow_mut() = Some(Box::new(|_| panic!("that was not asked for")));
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(slice);
        Ok(())
    }));
    rig.engine.set_slice(slice);
    let began = rig.engine.retired();
    let result = rig.call(&[]).unwrap();
    let retired = rig.engine.retired() - began;
    drop(rig);
    (result, retired, reported.take().into_iter().map(|time| time - began).collect())
}

#[test]
fn fences_and_interlocked_instructions_are_told_where_they_are_watched() {
    let code = assemble(|a| {
        a.mov(r8, DATA).unwrap();
        a.mov(eax, 1).unwrap();
        a.sfence().unwrap();
        a.lfence().unwrap();
        a.mfence().unwrap();
        a.lock().add(dword_ptr(r8), eax).unwrap();
        a.add(dword_ptr(r8), eax).unwrap();
        a.xchg(dword_ptr(r8), eax).unwrap();
        a.xchg(eax, ecx).unwrap();
        a.mov(eax, ecx).unwrap();
        a.ret().unwrap();
    });
    let (result, retired, reported) = run(&code, false, u64::MAX);
    assert_eq!((result, reported), (2, vec![]), "no fence is reported unless they are watched");
    for slice in [u64::MAX, 1, 3] {
        assert_eq!(run(&code, true, slice), (result, retired, vec![2, 4, 5, 7]), "slices of {slice}");
    }
}

#[test]
fn serializing_instructions_are_told_in_any_case() {
    let code = assemble(|a| {
        a.xor(ecx, ecx).unwrap();
        a.mov(eax, 1).unwrap();
        a.cpuid().unwrap();
        a.rdtsc().unwrap();
        a.mov(edx, eax).unwrap();
        a.wbinvd().unwrap();
        a.ret().unwrap();
    });
    for watch in [false, true] {
        let (_, _, reported) = run(&code, watch, u64::MAX);
        assert_eq!(reported, [2, 5]);
    }
}

#[test]
fn what_an_interlocked_instruction_stores_to_a_device_is_not_kept_either() {
    let code = assemble(|a| {
        a.mov(rdi, DEVICE.base).unwrap();
        a.mov(eax, 7).unwrap();
        a.xchg(dword_ptr(rdi), eax).unwrap();
        a.ret().unwrap();
    });
    let (_, retired, reported) = run(&code, true, u64::MAX);
    assert_eq!((retired, reported.len()), (4, 2), "before it, and behind its store");
}
