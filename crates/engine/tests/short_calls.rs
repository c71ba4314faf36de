//! Calls that driver code answers by itself: whatever way it calls, all is as if the guest had been asked.

use engine::windows::{DEVICE, IMAGES, PAGE, USER};
use engine::{Answer, DriverPtr, DriverState, Leave, Protection, Short, TakenLock, Tracking};
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::rig::{self, CODE, DATA, EXPORTS, Rig, STACK_SIZE, STACK_TOP, assemble, relative};

/// The short exports, 16 bytes each.
const EXPORT: u64 = EXPORTS + 0x1000;
/// An export that is not short.
const OTHER: usize = 8;
/// An import slot for each export, and a jump through it.
const SLOTS: u64 = CODE + 0x1_0000;
const STUBS: u64 = SLOTS + 0x800;
/// As much as that again, in a routine that ends with it.
const TAILS: u64 = SLOTS + 0xC00;
/// Where code leaves its registers.
const SAVED: u64 = DATA + 0x2000;
/// The processor's control region, and the level in it.
const REGION: u64 = DATA + 0x3000;
const IRQL: u64 = REGION + 0x50;
/// A lock.
const LOCK: u64 = DATA + 0x4000;

/// How code comes to call an import.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `call [slot]`.
    Slot,
    /// `call` of a `jmp [slot]`.
    Stub,
    /// `call register`, one that a call preserves.
    Register,
    /// The same by one that it does not.
    Rax,
    /// The same by the one that the engine counts in.
    R13,
    /// `call [register]`, which is no import to the engine.
    Memory,
    /// `call` of a routine that ends with a `jmp [slot]`.
    Tail,
}

/// The last two of them never take a lock by themselves.
const WAYS: [Way; 7] = [Way::Slot, Way::Stub, Way::Register, Way::Rax, Way::R13, Way::Memory, Way::Tail];

fn call(a: &mut CodeAssembler, way: Way, export: usize) {
    let (target, slot) = (EXPORT + 16 * export as u64, SLOTS + 8 * export as u64);
    let through_slot = MemoryOperand::with_base_displ(Register::RIP, slot.cast_signed());
    match way {
        Way::Slot => a.add_instruction(Instruction::with1(Code::Call_rm64, through_slot).unwrap()).unwrap(),
        Way::Stub => a.call(STUBS + 8 * export as u64).unwrap(),
        Way::Tail => a.call(TAILS + 8 * export as u64).unwrap(),
        Way::Register => {
            a.mov(rsi, target).unwrap();
            a.call(rsi).unwrap();
        }
        Way::Rax => {
            a.mov(rax, target).unwrap();
            a.call(rax).unwrap();
        }
        Way::R13 => {
            a.mov(r13, target).unwrap();
            a.call(r13).unwrap();
        }
        Way::Memory => {
            a.mov(r11, slot).unwrap();
            a.call(qword_ptr(r11)).unwrap();
        }
    }
}

/// A machine with this code, and these exports, which the guest knows as well.
fn machine(code: &[u8], shorts: &[Short]) -> Rig {
    let rig = Rig::new(code);
    let mut page = vec![0; 0x1000];
    for export in 0..16usize {
        let target = EXPORT + 16 * export as u64;
        page[8 * export..8 * export + 8].copy_from_slice(&target.to_le_bytes());
        let stub = STUBS + 8 * export as u64;
        let jump = relative(stub, &[0xFF, 0x25], SLOTS + 8 * export as u64);
        page[0x800 + 8 * export..0x800 + 8 * export + 6].copy_from_slice(&jump);
        let tail = TAILS + 8 * export as u64;
        let jump = relative(tail + 1, &[0xFF, 0x25], SLOTS + 8 * export as u64);
        page[0xC00 + 8 * export] = 0x90; // nop
        page[0xC01 + 8 * export..0xC01 + 8 * export + 6].copy_from_slice(&jump);
    }
    rig.load(SLOTS, &page[..0xFFF]);
    let numbered = shorts.iter().enumerate();
    let defined = numbered.map(|(export, short)| (EXPORT + 16 * export as u64, export as u32, Some(*short)));
    rig.engine.define_exports(defined);
    rig.engine.define_export(EXPORT + 16 * OTHER as u64, OTHER as u32);
    rig.engine.set_processor_region(REGION);
    *rig.export.borrow_mut() = Some(by_the_guest(shorts.to_vec()));
    rig
}

/// What the exports do, as a guest. It logs an acquired lock as the engine reports one that driver code has taken by itself.
fn by_the_guest(shorts: Vec<Short>) -> rig::Export {
    Box::new(move |rig, number, args| {
        let [first, second, ..] = args.registers;
        let short = shorts.get(number as usize).copied();
        engine::outside(|| rig.log.borrow_mut().push(format!("{short:?}")));
        let level = rig.engine.level();
        let set = |level: u8| {
            rig.engine.set_level(level);
            rig.engine.write_bytes(IRQL, &[level]).unwrap();
        };
        let take = || {
            let taken = TakenLock {
                lock: first,
                place: rig.engine.caller_rip(),
                since: rig.engine.now(),
                short_calls: rig.engine.short_calls(),
                answered_calls: rig.engine.answered_calls(),
            };
            engine::outside(|| rig.taken.borrow_mut().push(taken));
            rig.engine.write_bytes(first, &1u64.to_le_bytes()).unwrap();
        };
        Ok(match short {
            None => 0x77,
            Some(Short::Level) => level.into(),
            Some(Short::Raise) => {
                set(first as u8);
                level.into()
            }
            Some(Short::RaiseTo(wanted)) => {
                set(wanted);
                level.into()
            }
            Some(Short::Lower) => {
                set(first as u8);
                0
            }
            Some(Short::AcquireRaise) => {
                take();
                set(2);
                level.into()
            }
            Some(Short::Acquire) => {
                take();
                0
            }
            Some(release @ (Short::ReleaseLower | Short::Release)) => {
                rig.engine.write_bytes(first, &[0; 8]).unwrap();
                if release == Short::ReleaseLower {
                    set(second as u8);
                }
                0
            }
            Some(Short::Answer(row, _)) => answered_by_the_guest(rig, row, args.rsp),
        })
    })
}

/// Fills the registers that a call does not preserve.
fn fill(a: &mut CodeAssembler) {
    for (index, register) in [rax, r8, r9, r10, r11].into_iter().enumerate() {
        a.mov(register, 0x1111_2222_u64 * (index as u64 + 1)).unwrap();
    }
    for register in [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5] {
        a.movq(register, r10).unwrap();
    }
}

/// Saves all that a call leaves at `rbx`, which moves on: registers, flags, and what lies below the stack pointer.
fn save(a: &mut CodeAssembler) {
    let general = [rax, rcx, rdx, r8, r9, r10, r11, r12, r13, r14, r15, rsi, rdi, rbp];
    for (index, register) in (0i32..).zip(general) {
        a.mov(qword_ptr(rbx + 8 * index), register).unwrap();
    }
    for (index, register) in (0i32..).zip([xmm0, xmm1, xmm2, xmm3, xmm4, xmm5]) {
        a.movups(xmmword_ptr(rbx + (0x80 + 16 * index)), register).unwrap();
    }
    a.lahf().unwrap();
    a.seto(al).unwrap();
    a.mov(qword_ptr(rbx + 0x70), rax).unwrap();
    a.mov(rax, qword_ptr(rsp - 8)).unwrap();
    a.mov(qword_ptr(rbx + 0x78), rax).unwrap();
    a.add(rbx, 0x100).unwrap();
}

/// Calls these exports one after the other with the driver's arguments, each twice at the same place, and saves what each leaves.
fn calls(way: Way, exports: &[usize]) -> Vec<u8> {
    calls_by(&exports.iter().map(|export| (way, *export)).collect::<Vec<_>>())
}

/// The same, each in its way.
fn calls_by(exports: &[(Way, usize)]) -> Vec<u8> {
    assemble(|a| {
        let mut again = a.create_label();
        for register in [rbx, rsi, r12, r13, r14] {
            a.push(register).unwrap();
        }
        a.sub(rsp, 0x40).unwrap();
        a.mov(rbx, SAVED).unwrap();
        a.mov(qword_ptr(rsp + 0x20), rcx).unwrap();
        a.mov(qword_ptr(rsp + 0x28), rdx).unwrap();
        a.mov(r14d, 2).unwrap();
        a.set_label(&mut again).unwrap();
        for (way, export) in exports {
            fill(a);
            a.mov(rcx, qword_ptr(rsp + 0x20)).unwrap();
            a.mov(rdx, qword_ptr(rsp + 0x28)).unwrap();
            call(a, *way, *export);
            save(a);
        }
        a.dec(r14d).unwrap();
        a.jne(again).unwrap();
        a.add(rsp, 0x40).unwrap();
        for register in [r14, r13, r12, rsi, rbx] {
            a.pop(register).unwrap();
        }
        a.ret().unwrap();
    })
}

/// All that can be seen of a run.
#[derive(PartialEq, Debug)]
struct Seen {
    answer: Result<u64, Leave>,
    saved: Vec<u8>,
    stack: Vec<u8>,
    lock: Vec<u8>,
    level: (u8, Vec<u8>),
    retired: u64,
    calls: u64,
    slices: Vec<(u64, DriverState, u8, u64)>,
}

/// How a run is made.
#[derive(Clone, Copy, Debug)]
struct How {
    level: u8,
    free_levels: u8,
    arguments: [u64; 2],
    /// Instructions of each slice.
    slice: u64,
}

/// Runs the machine's code with short calls or without. What the engine reported to the guest is in its log.
fn run(rig: &Rig, short: bool, how: How) -> Seen {
    let engine = rig.engine;
    let bytes = |address: u64, length: usize| {
        let mut bytes = vec![0; length];
        engine.read_bytes(address, &mut bytes).unwrap();
        bytes
    };
    rig.log.borrow_mut().clear();
    rig.taken.borrow_mut().clear();
    engine.fill(STACK_TOP - STACK_SIZE, STACK_SIZE, 0xEE).unwrap();
    engine.fill(SAVED, 0x1000, 0).unwrap();
    engine.write_bytes(LOCK, &[0; 8]).unwrap();
    engine.set_level(how.level);
    engine.write_bytes(IRQL, &[how.level]).unwrap();
    engine.set_free_levels(how.free_levels);
    engine.allow_short_calls(if short { u64::MAX } else { 0 });
    engine.free_calls(u64::MAX);
    engine.allow_short_locks(short);
    let slices = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let (noted, retired, calls) = (slices.clone(), engine.retired(), engine.calls());
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        let seen = (rig.engine.retired() - retired, rig.engine.driver_state().unwrap());
        let seen = (seen.0, seen.1, rig.engine.level(), rig.engine.calls() - calls);
        engine::outside(|| noted.borrow_mut().push(seen));
        rig.engine.set_slice(how.slice);
        Ok(())
    }));
    engine.set_slice(how.slice);
    let answer = rig.call(&how.arguments);
    let [lock, _] = how.arguments;
    Seen {
        answer,
        saved: bytes(SAVED, 0x1000),
        stack: bytes(STACK_TOP - 0x400, 0x400),
        lock: if lock == LOCK { bytes(LOCK, 8) } else { Vec::new() },
        level: (engine.level(), bytes(IRQL, 1)),
        retired: engine.retired() - retired,
        calls: engine.calls() - calls,
        slices: slices.take(),
    }
}

/// As long as any, and each that ends within a call.
const SLICES: [u64; 9] = [1 << 40, 1, 2, 3, 5, 7, 11, 13, 40];

/// Runs both ways; the same comes of them, and the guest was asked so often less.
fn hold_against_the_guest(rig: &Rig, how: How, least: usize, what: &str) {
    for slice in SLICES {
        let how = How { slice, ..how };
        let asked = run(rig, false, how);
        let calls = rig.log().len();
        assert_eq!(calls as u64, asked.calls);
        let before = rig.engine.short_calls();
        let alone = run(rig, true, how);
        assert!(alone == asked, "{what} in slices of {slice}: {}", difference(&alone, &asked));
        let short = rig.engine.short_calls() - before;
        assert_eq!(short as usize + rig.log().len(), calls, "{what} in slices of {slice}");
        if slice == SLICES[0] {
            assert!(short as usize >= least, "{what}: {short} of {calls} were short");
        }
    }
}

/// What differs first.
fn difference(alone: &Seen, asked: &Seen) -> String {
    let slices = alone.slices.iter().zip(&asked.slices).find(|(a, b)| a != b);
    let bytes = |a: &[u8], b: &[u8]| {
        let at = a.iter().zip(b).position(|(a, b)| a != b);
        at.map(|at| format!("{at:#x}: {:x?} {:x?}", a[at], b[at]))
    };
    let (saved, stack) = (bytes(&alone.saved, &asked.saved), bytes(&alone.stack, &asked.stack));
    let rest = |seen: &Seen| (seen.answer, seen.level.clone(), seen.retired, seen.calls, seen.lock.clone());
    format!("{slices:x?} saved {saved:?} stack {stack:?} {:?} {:?}", rest(alone), rest(asked))
}

#[test]
fn a_short_call_is_to_the_driver_what_the_export_is() {
    for way in WAYS {
        for (short, level, argument) in [
            (Short::Level, 2, 7),
            (Short::Raise, 2, 7),
            (Short::Raise, 2, 2),
            (Short::RaiseTo(9), 5, 0x7F),
            (Short::Lower, 9, 1),
        ] {
            let rig = machine(&calls(way, &[0]), &[short]);
            let how = How { level, free_levels: 1, arguments: [argument, 0x22], slice: 0 };
            hold_against_the_guest(&rig, how, 2, &format!("{short:?} by {way:?}"));
        }
    }
}

#[test]
fn a_lock_that_is_taken_and_given_back_alone_is_told_to_nobody() {
    for way in WAYS {
        for (shorts, level, lowered) in [
            ([Short::AcquireRaise, Short::ReleaseLower], 0, 0),
            ([Short::AcquireRaise, Short::ReleaseLower], 2, 1),
            ([Short::Acquire, Short::Release], 2, 0),
            ([Short::Acquire, Short::Release], 9, 0),
            ([Short::Acquire, Short::ReleaseLower], 2, 2),
        ] {
            let rig = machine(&calls(way, &[0, 1]), &shorts);
            let how = How { level, free_levels: 0, arguments: [LOCK, lowered], slice: 0 };
            // By a register the first call of each place is the guest's; and what it has taken, it takes back.
            let least = match way {
                Way::Memory | Way::Tail => 0,
                Way::Slot | Way::Stub => 4,
                _ => 2,
            };
            hold_against_the_guest(&rig, how, least, &format!("{shorts:?} by {way:?}"));
            run(&rig, true, How { slice: 1 << 40, ..how });
            assert_eq!(rig.taken.borrow().len(), rig.log().len() / 2, "{shorts:?} by {way:?}");
            assert_eq!(rig.engine.free_levels(), 0, "{shorts:?} by {way:?}");
        }
    }
}

/// Compilers end a routine with a jump to what it calls last.
#[test]
fn a_lock_that_driver_code_has_taken_alone_is_given_back_behind_a_jump_too() {
    for way in [Way::Tail, Way::Memory] {
        for (shorts, level, lowered) in [
            ([Short::AcquireRaise, Short::ReleaseLower], 0, 0),
            ([Short::AcquireRaise, Short::ReleaseLower], 2, 1),
            ([Short::Acquire, Short::Release], 2, 0),
            ([Short::Acquire, Short::Release], 9, 0),
            ([Short::Acquire, Short::ReleaseLower], 2, 2),
        ] {
            let rig = machine(&calls_by(&[(Way::Slot, 0), (way, 1)]), &shorts);
            let how = How { level, free_levels: 0, arguments: [LOCK, lowered], slice: 0 };
            hold_against_the_guest(&rig, how, 4, &format!("{shorts:?} by {way:?}"));
            run(&rig, true, How { slice: 1 << 40, ..how });
            assert_eq!((rig.taken.borrow().len(), rig.log().len()), (0, 0), "{shorts:?} by {way:?}");
            assert_eq!((rig.engine.free_levels(), rig.engine.allows_short_locks()), (0, true));
        }
        for (what, release, free_levels, lowered) in [
            ("lowered below the free levels", Short::ReleaseLower, 1, 0),
            ("lowered to a higher level", Short::ReleaseLower, 0, 9),
        ] {
            let rig = machine(&calls_by(&[(Way::Slot, 0), (way, 1)]), &[Short::AcquireRaise, release]);
            *rig.export.borrow_mut() = Some(Box::new(|_, _, _| Err(Leave::Stop)));
            rig.engine.set_level(2);
            let how = How { level: 1, free_levels, arguments: [LOCK, lowered], slice: 1 << 40 };
            assert_eq!(run(&rig, true, how).answer, Err(Leave::Stop), "{what}");
            assert_eq!((rig.engine.short_calls(), rig.taken.borrow().len()), (1, 1), "{what}");
        }
    }
}

#[test]
fn a_lock_that_driver_code_holds_is_told_of_before_anything_else() {
    for way in [Way::Slot, Way::Stub, Way::R13] {
        for (exports, what) in [(&[0, OTHER][..], "an export is called"), (&[0], "the routine returns")] {
            let code = assemble(|a| {
                let mut held = a.create_label();
                a.push(r13).unwrap();
                a.sub(rsp, 0x20).unwrap();
                a.test(rcx, rcx).unwrap();
                a.je(held).unwrap();
                exports.iter().for_each(|export| call(a, way, *export));
                a.set_label(&mut held).unwrap();
                a.add(rsp, 0x20).unwrap();
                a.pop(r13).unwrap();
                a.ret().unwrap();
            });
            let rig = machine(&code, &[Short::AcquireRaise]);
            let how = How { level: 1, free_levels: 0, arguments: [LOCK, 0], slice: 1 << 40 };
            run(&rig, true, how); // a call by a register is asked about once
            rig.engine.allow_short_locks(true);
            let (begun, calls) = (rig.engine.now(), rig.engine.short_calls());
            run(&rig, false, how);
            let [asked] = rig.taken.borrow()[..] else { panic!("it was asked once") };
            let (begun_again, calls_again) = (rig.engine.now(), rig.engine.short_calls());
            run(&rig, true, how);
            assert_eq!(rig.log().len(), exports.len() - 1, "{what} {way:?}");
            assert_eq!(rig.engine.free_levels(), 2, "nothing below may come in while it is held");
            let since = asked.since - begun + begun_again;
            let short_calls = asked.short_calls - calls + calls_again;
            let expected = TakenLock { since, short_calls, ..asked };
            assert_eq!(*rig.taken.borrow(), [expected], "{what} {way:?}");
            assert!(!rig.engine.allows_short_locks(), "until it is said again");
        }
    }
}

#[test]
fn what_somebody_must_know_of_is_a_call() {
    let levels = [
        ("below the free levels", Short::Lower, 9, 1, 2),
        ("raised to a lower one", Short::Raise, 9, 3, 0),
        ("lowered to a higher one", Short::Lower, 3, 9, 0),
        ("no level", Short::Raise, 3, 16, 0),
        ("raised by a constant to a lower one", Short::RaiseTo(2), 3, 0, 0),
        ("levels are listened to", Short::Level, 3, 0, 16),
        ("taken above DISPATCH_LEVEL", Short::AcquireRaise, 3, LOCK, 0),
        ("taken below the free levels", Short::AcquireRaise, 1, LOCK, 3),
        ("taken below DISPATCH_LEVEL", Short::Acquire, 1, LOCK, 0),
        ("taken while levels are listened to", Short::Acquire, 2, LOCK, 16),
        ("not aligned", Short::Acquire, 2, LOCK + 4, 0),
        ("an application's", Short::Acquire, 2, USER.base + 0x1000, 0),
        ("given back, and not held", Short::Release, 2, LOCK, 0),
        ("given back with no lock's address", Short::Release, 2, 1, 0),
        ("given back with none", Short::Release, 2, 0, 0),
    ];
    for way in WAYS {
        for (what, short, level, argument, free_levels) in levels {
            let rig = machine(&calls(way, &[0]), &[short]);
            *rig.export.borrow_mut() = Some(Box::new(|_, _, _| Err(Leave::Stop)));
            // The second time round, where a call by a register is done.
            for _ in 0..2 {
                let how = How { level, free_levels, arguments: [argument, 0], slice: 1 << 40 };
                assert_eq!(run(&rig, true, how).answer, Err(Leave::Stop), "{what} by {way:?}");
            }
            assert_eq!(rig.engine.short_calls(), 0, "{what} by {way:?}");
            assert!(rig.taken.borrow().is_empty());
        }
    }
}

#[test]
fn so_many_calls_as_were_allowed_are_short() {
    let rig = machine(&calls(Way::Slot, &[0, 0, 0]), &[Short::Level]);
    run(&rig, true, How { level: 3, free_levels: 0, arguments: [0, 0], slice: 1 << 40 });
    assert_eq!((rig.engine.calls(), rig.engine.short_calls()), (6, 6));
    rig.engine.allow_short_calls(10);
    rig.call(&[0, 0]).unwrap();
    assert_eq!((rig.engine.calls(), rig.engine.short_calls()), (12, 10));
}

/// Short calls are counted for each export, and the highest level that driver code has raised itself to is known, by whichever code raised it.
#[test]
fn short_calls_are_counted_by_export_and_the_highest_level_is_kept() {
    for way in WAYS {
        let rig = machine(&calls(way, &[0, 1, 0]), &[Short::Raise, Short::Level]);
        let how = How { level: 3, free_levels: 0, arguments: [11, 0], slice: 1 << 40 };
        run(&rig, true, how);
        run(&rig, true, how);
        let (short, all) = (rig.engine.short_calls_by_export(), rig.engine.short_calls());
        assert_eq!(short.iter().map(|(_, count)| count).sum::<u64>(), all, "{short:?} by {way:?}");
        let made = |number: u32| short.iter().find(|short| short.0 == number).map_or(0, |short| short.1);
        assert!((4..8).contains(&made(0)) && (2..=4).contains(&made(1)), "{short:?} by {way:?}");
        assert_eq!(rig.engine.calls(), 12, "by {way:?}");
        assert_eq!(rig.engine.highest_level(), 11, "by {way:?}");
        run(&rig, true, How { arguments: [13, 0], ..how });
        assert_eq!(rig.engine.highest_level(), 13, "by {way:?}");
    }
}

/// A lock where none may lie, or one that is not free, is never touched.
#[test]
fn a_lock_must_be_free_and_lie_in_memory_of_drivers() {
    let ours = [
        0x2000_6000_0000, // the code cache
        0x7000_0800,      // the scratch page
        0x2000_5F00_0800, // the scratch page once more
        0x2001_8000_0000, // the dispatch table
        0x2430_0000_1000, // where the heap may be
        DEVICE.base,
        IMAGES.base + 0x2000_0000, // nothing is mapped there
        DATA + 0x100_0000,
        SLOTS, // code
        LOCK,
    ];
    for lock in ours {
        for (short, way) in [(Short::Acquire, Way::Slot), (Short::AcquireRaise, Way::Stub)] {
            let rig = machine(&calls(way, &[0]), &[short]);
            *rig.export.borrow_mut() = Some(Box::new(|rig, _, args| {
                engine::outside(|| rig.log.borrow_mut().push(format!("{:x?}", args.registers)));
                Err(Leave::Stop)
            }));
            let how = How { level: 2, free_levels: 0, arguments: [lock, 0x22], slice: 1 << 40 };
            if lock == LOCK {
                rig.engine.protect(LOCK & !(PAGE - 1), PAGE, Protection::READ);
                rig.engine.allow_short_calls(u64::MAX);
                rig.engine.allow_short_locks(true);
                rig.engine.set_level(2);
                rig.engine.set_free_levels(0);
                assert_eq!(rig.call(&how.arguments), Err(Leave::Stop));
            } else {
                assert_eq!(run(&rig, true, how).answer, Err(Leave::Stop), "{lock:#x}");
            }
            let [r8_, r9_] = [2u64, 3].map(|n| n * 0x1111_2222);
            assert_eq!(rig.log(), [format!("{:x?}", [lock, 0x22, r8_, r9_])]);
            assert_eq!(rig.engine.short_calls(), 0);
        }
    }
}

#[test]
fn a_lock_that_holds_something_is_looked_at_by_the_guest() {
    let rig = machine(
        &assemble(|a| {
            a.sub(rsp, 0x28).unwrap();
            a.mov(qword_ptr(rcx), 5).unwrap();
            call(a, Way::Slot, 0);
            a.add(rsp, 0x28).unwrap();
            a.ret().unwrap();
        }),
        &[Short::AcquireRaise],
    );
    *rig.export.borrow_mut() = Some(Box::new(|_, _, _| Err(Leave::Stop)));
    let how = How { level: 0, free_levels: 0, arguments: [LOCK, 0], slice: 1 << 40 };
    assert_eq!(run(&rig, true, how).answer, Err(Leave::Stop));
    assert_eq!(rig.engine.short_calls(), 0);
}

/// What the row of an answer says.
fn answer(row: u16) -> Answer {
    let value = 0x1111_2222_3333_0000 | u64::from(row);
    let plain = Answer { value, group: 2, levels: 1..=8, hands_on: (0, 0) };
    match row {
        HANDING_ON => Answer { hands_on: (0x38, 0x30), ..plain },
        CLOSED => Answer { group: 0, ..plain },
        _ => plain,
    }
}

/// The export that it answers.
fn short(row: u16) -> Short {
    Short::Answer(row, if matches!(row, NOTING | LAST) { 0x28 } else { 0 })
}

/// A row that says nothing else; and what its export does besides. 0x28 above the stack pointer the code has its first argument, and the second behind it.
const PLAIN: u16 = 7;
const NOTING: u16 = 0;
const HANDING_ON: u16 = 300;
/// Is noted, too.
const LAST: u16 = engine::ANSWERS as u16 - 1;
const CLOSED: u16 = 4;
const ROWS: [u16; 5] = [PLAIN, NOTING, HANDING_ON, LAST, CLOSED];

/// The same by the guest.
fn answered_by_the_guest(rig: &Rig, row: u16, at_call: u64) -> u64 {
    let Answer { value, hands_on: (to, from), .. } = answer(row);
    let word = |at: u64| rig.engine.read::<u64>(DriverPtr::new(at)).unwrap();
    if let Short::Answer(_, noted @ 1..) = short(row) {
        let place = at_call + u64::from(noted);
        rig.engine.note_call(row, place, word(place));
    }
    if from != to {
        let word = word(at_call + u64::from(from));
        rig.engine.write(DriverPtr::new(at_call + u64::from(to)), word).unwrap();
    }
    value
}

/// A machine whose code calls exports that the rows of the table answer.
fn answering(way: Way, rows: &[u16]) -> Rig {
    let exports: Vec<usize> = (0..rows.len()).collect();
    let shorts: Vec<Short> = rows.iter().map(|row| short(*row)).collect();
    let rig = machine(&calls(way, &exports), &shorts);
    lay_answers(&rig);
    rig
}

fn lay_answers(rig: &Rig) {
    rig.engine.make_answers();
    ROWS.iter().for_each(|row| rig.engine.answer(*row, &answer(*row)));
    rig.engine.open_answers(3);
}

/// How most of these are run.
const ANSWERED: How = How { level: 2, free_levels: 0, arguments: [0x4444_5555, 0x6666_7777], slice: 1 << 40 };

/// Where the code's first argument lies when it calls.
const NOTED: u64 = STACK_TOP - 0x20 - 8 - 0x28 - 0x40 + 0x20;

#[test]
fn an_answer_that_was_given_in_advance_is_to_the_driver_what_the_guest_answers() {
    for way in WAYS {
        for row in [PLAIN, NOTING, HANDING_ON, LAST] {
            let rig = answering(way, &[row]);
            hold_against_the_guest(&rig, ANSWERED, 2, &format!("{row} by {way:?}"));
            assert_eq!(rig.engine.answered(row), rig.engine.short_calls());
            assert_eq!(rig.engine.answered_calls(), rig.engine.short_calls());
            assert_eq!(rig.engine.short_calls_by_export(), []);
        }
    }
}

#[test]
fn a_call_is_noted_alike_by_whichever_it_is_answered() {
    for row in [NOTING, LAST, PLAIN] {
        for short in [false, true] {
            let rig = answering(Way::Register, &[row]);
            let [first, _] = ANSWERED.arguments;
            assert_eq!(rig.engine.noted_call(NOTED, first), None);
            run(&rig, short, ANSWERED);
            assert_eq!(rig.engine.answered_calls(), if short { 2 } else { 0 });
            assert_eq!(rig.engine.noted_call(NOTED, first), (row != PLAIN).then_some(row), "{short}");
            assert_eq!(rig.engine.noted_call(NOTED, first + 1), None);
            assert_eq!(
                rig.engine.noted_call(NOTED + 8 * 256, first),
                None,
                "it has the same place in the table"
            );
            // Another of that place.
            rig.engine.note_call(9, NOTED + 8 * 256, 5);
            assert_eq!(rig.engine.noted_call(NOTED + 8 * 256, 5), Some(9));
            assert_eq!(rig.engine.noted_call(NOTED, first), None);
        }
    }
}

#[test]
fn the_guest_is_asked_where_a_row_does_not_answer() {
    type Change = fn(&Rig);
    let ways: [(&str, u16, u8, Change); 7] = [
        ("its group is closed", PLAIN, 2, |rig| rig.engine.open_answers(1 | 4)),
        ("it has none", CLOSED, 2, |_| ()),
        ("the level is lower", PLAIN, 0, |_| ()),
        ("the level is higher", PLAIN, 9, |_| ()),
        ("there are no short calls", PLAIN, 2, |rig| rig.engine.allow_short_calls(0)),
        ("there is work before calls", PLAIN, 2, |rig| rig.engine.free_calls(0)),
        ("no group was opened", PLAIN, 2, |rig| rig.engine.open_answers(0)),
    ];
    for (what, row, level, change) in ways {
        let rig = answering(Way::Register, &[row]);
        rig.engine.allow_short_calls(u64::MAX);
        rig.engine.free_calls(u64::MAX);
        rig.engine.set_level(level);
        rig.engine.set_free_levels(0);
        change(&rig);
        rig.call(&ANSWERED.arguments).unwrap();
        assert_eq!((rig.engine.short_calls(), rig.log().len()), (0, 2), "{what}");
        assert_eq!(rig.engine.answered(row), 0, "{what}");
    }
    // At the ends of its levels it does.
    for level in [1, 8] {
        let rig = answering(Way::Register, &[PLAIN]);
        run(&rig, true, How { level, ..ANSWERED });
        assert_eq!(rig.engine.answered_calls(), 2, "at level {level}");
    }
}

/// Of the calls that are answered before and while a lock is held, the report of the lock has those before.
#[test]
fn a_lock_that_driver_code_holds_is_not_reported_for_a_call_that_is_answered() {
    let shorts = [Short::AcquireRaise, short(PLAIN), Short::ReleaseLower];
    let rig = machine(&calls(Way::Slot, &[1, 0, 1, 1, OTHER, 2]), &shorts);
    lay_answers(&rig);
    *rig.export.borrow_mut() = Some(Box::new(|rig, number, _| {
        let locks = rig.taken.borrow().len();
        engine::outside(|| rig.log.borrow_mut().push(format!("{number} after {locks} locks")));
        Err(Leave::Stop)
    }));
    let how = How { level: 1, free_levels: 0, arguments: [LOCK, 1], slice: 1 << 40 };
    rig.engine.set_level(2); // that there is one so high is known
    assert_eq!(run(&rig, true, how).answer, Err(Leave::Stop));
    assert_eq!(rig.log(), ["8 after 1 locks"]);
    assert_eq!((rig.engine.answered_calls(), rig.engine.short_calls()), (3, 4));
    let TakenLock { short_calls, answered_calls, .. } = rig.taken.borrow()[0];
    assert_eq!((short_calls, answered_calls), (1, 1));
}

/// The table and its notes go back with the machine, and so does its absence. The first store to each of its pages is one of host code's.
#[test]
fn a_machine_that_is_taken_back_has_the_table_that_it_had() {
    for tracking in [Tracking::Faults, Tracking::Userfault] {
        let rig = machine(&calls(Way::Register, &[0, 1]), &[short(LAST), short(PLAIN)]);
        if rig.host.track(tracking).is_err() {
            assert_ne!(tracking, Tracking::Faults);
            continue;
        }
        let nothing = rig.host.snapshot().unwrap();
        rig.host.inside(|| lay_answers(&rig));
        let [first, _] = ANSWERED.arguments;
        let counts = || [PLAIN, LAST].map(|row| rig.engine.answered(row));
        let mut marks = Vec::new();
        for rounds in 0..3 {
            let mark = rig.host.snapshot().unwrap();
            marks.push((mark, rig.engine.fingerprint()));
            assert_eq!(counts(), [2 * rounds; 2]);
            let seen = run(&rig, true, ANSWERED);
            assert_eq!((rig.log().len(), rig.engine.answered_calls()), (0, 4 * (rounds + 1)));
            assert_eq!(rig.engine.noted_call(NOTED, first), Some(LAST));
            for _ in 0..2 {
                rig.host.rewind(mark);
                assert_eq!(counts(), [2 * rounds; 2]);
                assert_eq!(rig.engine.noted_call(NOTED, first), (rounds > 0).then_some(LAST));
                assert_eq!(run(&rig, true, ANSWERED), seen);
                assert_eq!((rig.log().len(), counts()), (0, [2 * (rounds + 1); 2]));
            }
        }
        for (mark, fingerprint) in marks.into_iter().rev() {
            rig.host.rewind(mark);
            assert_eq!(rig.engine.fingerprint(), fingerprint);
        }
        rig.host.rewind(nothing);
        assert_eq!(counts(), [0; 2]);
        let asked = run(&rig, true, ANSWERED);
        assert_eq!((rig.log().len(), rig.engine.short_calls()), (4, 0), "there is no table");
        rig.host.inside(|| lay_answers(&rig));
        let answered = run(&rig, true, ANSWERED);
        assert!(answered == asked, "{}", difference(&answered, &asked));
        assert_eq!((rig.log().len(), rig.engine.answered_calls()), (0, 4));
    }
}

/// A word that is not there: the guest is asked, and finds all as it was.
#[test]
fn what_a_row_cannot_load_or_store_is_the_guests() {
    for (row, above) in [(NOTING, 0x28), (LAST, 0x28), (HANDING_ON, 0x38)] {
        let code = assemble(|a| {
            a.mov(rdi, rsp).unwrap();
            a.mov(rsp, rdx).unwrap();
            fill(a);
            call(a, Way::Register, 0);
            a.mov(rsp, rdi).unwrap();
            a.ret().unwrap();
        });
        let rig = machine(&code, &[short(row)]);
        lay_answers(&rig);
        *rig.export.borrow_mut() = Some(Box::new(|rig, number, args| {
            engine::outside(|| {
                rig.log.borrow_mut().push(format!("{number} {:x?} {:#x}", args.registers, args.rsp))
            });
            Ok(1)
        }));
        // The stack pointer in the export, whose last word is there or is not.
        for (stack, asked) in [(STACK_TOP + PAGE - above - 8, false), (STACK_TOP + PAGE - above, true)] {
            let arguments = [5, stack + 8];
            let seen = run(&rig, true, How { arguments, ..ANSWERED });
            assert_eq!(seen.answer, Ok(if asked { 1 } else { answer(row).value }), "{row} at {stack:#x}");
            let [r8_, r9_] = [2u64, 3].map(|n| n * 0x1111_2222);
            let expected = asked.then(|| format!("0 {:x?} {stack:#x}", [5, stack + 8, r8_, r9_]));
            assert_eq!(rig.log(), Vec::from_iter(expected), "{row} at {stack:#x}");
        }
    }
}

/// A stack that is not there faults at the call; a home that is not there does not fault.
#[test]
fn a_store_to_the_stack_that_faults_is_the_calls() {
    for (way, short) in [
        (Way::Slot, Short::Level),
        (Way::Stub, Short::AcquireRaise),
        (Way::Register, Short::Level),
        (Way::Slot, short(PLAIN)),
    ] {
        for top in [STACK_TOP - STACK_SIZE, STACK_TOP + PAGE - 8] {
            let code = assemble(|a| {
                a.test(rdx, rdx).unwrap();
                let mut elsewhere = a.create_label();
                a.mov(rdi, rsp).unwrap();
                a.lea(rsp, qword_ptr(rsp - 0x28)).unwrap();
                a.je(elsewhere).unwrap();
                a.mov(rsp, rdx).unwrap();
                a.set_label(&mut elsewhere).unwrap();
                fill(a);
                call(a, way, 0);
                a.mov(rsp, rdi).unwrap();
                a.ret().unwrap();
            });
            let rig = machine(&code, &[short]);
            lay_answers(&rig);
            let how = |top| How { level: 1, free_levels: 0, arguments: [LOCK, top], slice: 1 << 40 };
            run(&rig, true, how(0)); // a call by a register is asked about once
            let asked = run(&rig, false, how(top));
            let fault = rig.fault.take().map(|fault| format!("{fault:x?}"));
            let alone = run(&rig, true, how(top));
            assert_eq!(alone, asked, "{way:?} at {top:#x}");
            assert_eq!(rig.fault.take().map(|fault| format!("{fault:x?}")), fault, "{way:?} at {top:#x}");
            assert_eq!(fault.is_some(), top < STACK_TOP);
        }
    }
}

/// What a register leads to may change, and so may a jump through a slot.
#[test]
fn a_call_that_leads_elsewhere_later_goes_there() {
    let code = assemble(|a| {
        a.sub(rsp, 0x28).unwrap();
        a.call(rdx).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.ret().unwrap();
    });
    for register in [false, true] {
        let rig = machine(
            &if register {
                code.clone()
            } else {
                assemble(|a| {
                    a.sub(rsp, 0x28).unwrap();
                    call(a, Way::Stub, 0);
                    a.add(rsp, 0x28).unwrap();
                    a.ret().unwrap();
                })
            },
            &[Short::Level],
        );
        let how = |target| How { level: 5, free_levels: 0, arguments: [1, target], slice: 1 << 40 };
        let other = EXPORT + 16 * OTHER as u64;
        for _ in 0..2 {
            assert_eq!(run(&rig, true, how(EXPORT)).answer, Ok(5));
        }
        rig.engine.protect(SLOTS, PAGE, Protection::READ_WRITE);
        rig.engine.write_bytes(STUBS, &relative(STUBS, &[0xFF, 0x25], SLOTS + 8 * OTHER as u64)).unwrap();
        rig.engine.protect(SLOTS, PAGE, Protection::READ_EXECUTE);
        for _ in 0..2 {
            assert_eq!(run(&rig, true, how(other)).answer, Ok(0x77));
            assert_eq!(rig.log(), ["None"]);
        }
    }
}
