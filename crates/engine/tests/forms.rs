//! Every form of return and call, for every kind of caller: a driver's routine, the kernel (from outside and from within an export),
//! and an exception, whose filter is called and whose handler goes on in the routine. Generated: each with all the others.
//!
//! Prefixes mean what Intel's manual says (an operand size does not make a near branch shorter in 64-bit mode).

use engine::{FaultKind, Leave, Stack};

use super::rig::{CODE, DATA, EXPORTS, Rig};

/// Prefixes that change nothing in front of a near branch.
const PREFIXES: [&[u8]; 12] = [
    &[],
    &[0xF3],
    &[0xF2],
    &[0x66],
    &[0x48],
    &[0x4E],
    &[0x2E],
    &[0x36],
    &[0x3E],
    &[0x65],
    &[0x67],
    &[0xF2, 0x66, 0x48],
];

/// `mov eax, 42`, and the return.
fn routine(end: &[u8]) -> Vec<u8> {
    [&[0xB8, 42, 0, 0, 0], end].concat()
}

/// Returns that leave the stack pointer behind the return address.
fn plain_returns() -> Vec<Vec<u8>> {
    let jumps = |opcode: &[u8]| -> Vec<Vec<u8>> {
        PREFIXES.iter().map(|prefix| [&[0x59], *prefix, opcode].concat()).collect() // pop rcx
    };
    let near = PREFIXES.iter().map(|prefix| [prefix, &[0xC3][..]].concat());
    let mut all: Vec<_> = near.collect();
    all.extend(jumps(&[0xFF, 0xE1])); // jmp rcx
    all.push(vec![0x59, 0x51, 0xC3]); // pop rcx; push rcx; ret
    let far = [0x59, 0x6A, 0x10, 0x51]; // pop rcx; push 10h; push rcx
    all.push([&far[..], &[0x48, 0xCB]].concat()); // retfq
    all.push([&far[..], &[0x48, 0xCA, 0, 0]].concat()); // retfq 0
    let mut interrupt = vec![0x59, 0x48, 0x89, 0xE2]; // pop rcx; mov rdx, rsp
    interrupt.extend([0x6A, 0x18, 0x52, 0x68, 2, 2, 0, 0, 0x6A, 0x10, 0x51]); // its frame
    interrupt.extend([0x48, 0xCF]); // iretq
    all.push(interrupt);
    let mut memory = vec![0x59, 0x48, 0xBA]; // pop rcx; mov rdx, ...
    memory.extend(DATA.to_le_bytes());
    memory.extend([0x48, 0x89, 0x0A, 0x66, 0xC7, 0x42, 0x08, 0x10, 0x00]); // mov [rdx], rcx; mov word [rdx+8], 10h
    all.push([&memory[..], &[0xFF, 0x22]].concat()); // jmp [rdx]
    all.push([&memory[..], &[0x48, 0xFF, 0x2A]].concat()); // jmp far [rdx]
    all.into_iter().map(|end| routine(&end)).collect()
}

/// `ret imm16` with this immediate, with all prefixes.
fn returns_with(immediate: u16) -> Vec<Vec<u8>> {
    let [low, high] = immediate.to_le_bytes();
    let ends = PREFIXES.iter().map(|prefix| [prefix, &[0xC2, low, high][..]].concat());
    ends.map(|end| routine(&end)).collect()
}

const IMMEDIATES: [u16; 6] = [8, 16, 1, 0x28, 0x1000, 0xFFFF];

/// Where the routine that is called lies.
const ROUTINE: u64 = CODE + 0x10_0000;

/// Callers in driver code: they answer what the routine did, and how far the stack pointer has moved, times 100.
fn callers() -> Vec<Vec<u8>> {
    let through =
        |opcode: &[u8]| -> Vec<Vec<u8>> { PREFIXES.iter().map(|prefix| [prefix, opcode].concat()).collect() };
    let mut calls = through(&[0xFF, 0xD0]); // call rax
    calls.extend(PREFIXES.iter().filter(|prefix| **prefix != [0x65]).map(|prefix| {
        [&[0x50, 0x90], *prefix, &[0xFF, 0x14, 0x24]].concat() // push rax; call [rsp], as [esp] not with 67h
    }));
    calls.retain(|call| !(call.contains(&0x67) && call.contains(&0x50)));
    let direct = PREFIXES.iter().map(|prefix| [prefix, &[0xE8][..]].concat());
    calls.extend(direct);
    calls.into_iter().map(|call| caller(&call)).collect()
}

fn caller(call: &[u8]) -> Vec<u8> {
    let mut code = vec![0x53, 0x48, 0x89, 0xE3, 0x48, 0xB8]; // push rbx; mov rbx, rsp; mov rax, ...
    code.extend(ROUTINE.to_le_bytes());
    code.extend(call);
    if call.last() == Some(&0xE8) {
        let next = CODE + code.len() as u64 + 4;
        code.extend(u32::try_from(ROUTINE - next).unwrap().to_le_bytes());
    }
    let pushed = if call.first() == Some(&0x50) { 8 } else { 0 };
    code.extend([0x48, 0x89, 0xE2, 0x48, 0x89, 0xDC]); // mov rdx, rsp; mov rsp, rbx
    code.extend([0x48, 0x29, 0xDA, 0x48, 0x83, 0xC2, pushed]); // sub rdx, rbx; add rdx, ...
    code.extend([0x48, 0x6B, 0xD2, 100, 0x48, 0x01, 0xD0, 0x5B, 0xC3]); // imul rdx, 100; add rax, rdx; pop rbx; ret
    code
}

/// Whole, and with an end of the slice in front of each instruction.
fn in_all_slices(rig: &Rig, mut run: impl FnMut() -> Result<u64, Leave>) -> Result<u64, Leave> {
    rig.engine.set_slice(u64::MAX);
    let begun = rig.engine.retired();
    let whole = run();
    let count = rig.engine.retired() - begun;
    *rig.on_slice.borrow_mut() = Some(Box::new(|rig| {
        rig.engine.set_slice(1);
        Ok(())
    }));
    rig.engine.set_slice(1);
    let begun = rig.engine.retired();
    assert_eq!((run(), rig.engine.retired() - begun), (whole, count), "in slices of one");
    *rig.on_slice.borrow_mut() = None;
    rig.engine.set_slice(u64::MAX);
    whole
}

fn outcome(rig: &Rig, code: &[u8]) -> String {
    format!("{code:02x?}: {:?}, {:?}", rig.fault.borrow(), rig.engine.panic_message())
}

#[test]
fn each_return_goes_back_to_each_call_of_a_driver() {
    for routine in plain_returns() {
        for caller in callers() {
            let rig = Rig::new(&caller);
            rig.load(ROUTINE, &routine);
            let answer = in_all_slices(&rig, || rig.call(&[]));
            assert_eq!(answer, Ok(42), "{} by {caller:02x?}", outcome(&rig, &routine));
        }
    }
    for immediate in [0].into_iter().chain(IMMEDIATES) {
        for (routine, caller) in returns_with(immediate)
            .into_iter()
            .flat_map(|r| callers().into_iter().map(move |c| (r.clone(), c)))
        {
            let rig = Rig::new(&caller);
            rig.load(ROUTINE, &routine);
            let answer = in_all_slices(&rig, || rig.call(&[]));
            let moved = u64::from(immediate) * 100;
            assert_eq!(answer, Ok(42 + moved), "{} by {caller:02x?}", outcome(&rig, &routine));
        }
    }
}

/// The ways in which the kernel calls a routine: each answers what the routine did.
type ByKernel = fn(&Rig) -> Result<u64, Leave>;

fn from_outside(rig: &Rig) -> Result<u64, Leave> {
    rig.call_at(ROUTINE, &[])
}

/// A driver's code at `CODE` calls export 0, which calls the routine.
fn from_an_export(rig: &Rig) -> Result<u64, Leave> {
    *rig.export.borrow_mut() =
        Some(Box::new(|rig, _, _| rig.engine.call(ROUTINE, &[1, 2, 3, 4, 5], Stack::Current)));
    rig.engine.define_export(EXPORTS, 0);
    rig.call(&[EXPORTS])
}

/// A driver's code at `CODE` faults; the routine is its filter, and execution goes on behind the fault with its answer.
fn from_a_fault(rig: &Rig) -> Result<u64, Leave> {
    *rig.on_fault.borrow_mut() = Some(Box::new(|rig, fault| {
        if fault.kind != FaultKind::Execute {
            return Leave::Stop;
        }
        match rig.engine.call(ROUTINE, &[], Stack::Current) {
            Ok(value) => {
                let mut context = rig.engine.contexts()[0];
                context.registers.general[0] = value;
                context.rip = CODE + BEHIND_CALL;
                rig.engine.resume_at(1, &context)
            }
            Err(leave) => leave,
        }
    }));
    rig.call(&[0x1000])
}

/// As [`from_a_fault`], by a handler in the routine itself.
fn by_a_handler(rig: &Rig) -> Result<u64, Leave> {
    *rig.on_fault.borrow_mut() = Some(Box::new(|rig, fault| {
        if fault.kind != FaultKind::Execute {
            return Leave::Stop;
        }
        let mut context = rig.engine.contexts()[0];
        context.registers.general[4] += 0x28; // as behind the prologue's
        context.rip = ROUTINE;
        rig.engine.resume_at(1, &context)
    }));
    rig.call(&[0x1000])
}

/// `sub rsp, 28h; call rcx; add rsp, 28h; ret`.
const CALLS_RCX: [u8; 11] = [0x48, 0x83, 0xEC, 0x28, 0xFF, 0xD1, 0x48, 0x83, 0xC4, 0x28, 0xC3];
const BEHIND_CALL: u64 = 6;

const WAYS: [(&str, ByKernel); 4] = [
    ("from outside", from_outside),
    ("from an export", from_an_export),
    ("from a fault", from_a_fault),
    ("by a handler", by_a_handler),
];

#[test]
fn each_return_goes_back_to_the_kernel() {
    for routine in plain_returns().into_iter().chain(returns_with(0)) {
        for (name, way) in WAYS {
            let rig = Rig::new(&CALLS_RCX);
            rig.load(ROUTINE, &routine);
            let answer = in_all_slices(&rig, || way(&rig));
            assert_eq!(answer, Ok(42), "{name}: {}", outcome(&rig, &routine));
        }
    }
}

#[test]
fn arguments_taken_off_the_kernels_stack_are_the_drivers_fault() {
    for (immediate, routine) in
        IMMEDIATES.into_iter().flat_map(|i| returns_with(i).into_iter().map(move |r| (i, r)))
    {
        for (name, way) in WAYS {
            let rig = Rig::new(&CALLS_RCX);
            rig.load(ROUTINE, &routine);
            let answer = in_all_slices(&rig, || way(&rig));
            assert_eq!(answer, Err(Leave::Stop), "{name}: {}", outcome(&rig, &routine));
            let fault = rig.the_fault();
            assert_eq!((fault.kind, fault.address), (FaultKind::StackMoved, immediate.into()), "{name}");
            assert_eq!(fault.caller.rip, ROUTINE + 5, "{name}");
            assert_eq!(rig.engine.panic_message(), None);
        }
    }
}

#[test]
fn a_routine_of_the_kernels_returns_from_a_stack_that_cannot_be_written() {
    // pop rdx; ret, from a page that is only read.
    let code = [0x48, 0x89, 0xCC, 0x48, 0x83, 0xC4, 0x08, 0x5A, 0xC3]; // mov rsp, rcx; add rsp, 8; pop rdx; ret
    let rig = Rig::new(&code);
    rig.engine.write_bytes(DATA + 0x10, &engine::RETURN_TO_KERNEL.to_le_bytes()).unwrap();
    rig.engine.protect(DATA, 0x1000, engine::Protection::READ);
    let answer = in_all_slices(&rig, || rig.call(&[DATA]));
    assert!(answer.is_ok(), "{}", outcome(&rig, &code));
}
