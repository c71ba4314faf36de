//! Accesses of driver code that the guest hears of: each of the right bytes, once, before its instruction has retired, and nothing else changes.

use std::cell::RefCell;
use std::rc::Rc;

use engine::windows::{DEVICE, PAGE};
use engine::{AccessKind, Cpu, Leave, Protection, Reports, Tracking};
use iced_x86::code_asm::{
    al, bl, byte_ptr, cl, dword_ptr, eax, ecx, edx, qword_ptr, r8, r9, rax, rcx, rdi, rdx, rsi, rsp, xmm0,
    xmm1, xmm2, xmmword_ptr,
};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::rig::{CODE, DATA, DATA_SIZE, Rig, assemble};

/// Offset in the data, bytes, kind, atomic, instructions that had retired.
type Reported = (u64, u64, AccessKind, bool, u64);

const LOAD: AccessKind = AccessKind::Load;
const UPDATE: AccessKind = AccessKind::Update;
const STORE: AccessKind = AccessKind::Store;

/// What came of a run.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    result: Result<u64, Leave>,
    data: Vec<u8>,
    retired: u64,
    reported: Vec<Reported>,
}

/// Whether the machine is checked, the guest hears of accesses, how long slices are, and whether the guest throws translations away while it
/// hears.
#[derive(Clone, Copy, Debug)]
struct Way {
    checked: bool,
    reports: Reports,
    slice: u64,
    flush: bool,
}

const PLAIN: Way = Way { checked: false, reports: Reports::Each, slice: u64::MAX, flush: false };

fn rig(way: Way, code: &[u8]) -> Rig {
    let rig = if way.checked { Rig::checked(code) } else { Rig::new(code) };
    if Cpu::X86_64V3.missing().is_empty() {
        rig.engine.imitate(Cpu::X86_64V3);
    }
    let filler: Vec<u8> = (0..=255).collect();
    rig.engine.write_bytes(DATA, &filler).unwrap();
    rig
}

fn run(way: Way, code: &[u8]) -> Seen {
    let rig = rig(way, code);
    let reported = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&reported);
    let began = rig.engine.retired();
    *rig.on_access.borrow_mut() = Some(Box::new(move |rig, it| {
        let retired = rig.engine.retired() - began;
        let offset = it.address.wrapping_sub(DATA);
        engine::outside(|| log.borrow_mut().push((offset, it.bytes, it.kind, it.atomic, retired)));
        if way.flush {
            rig.engine.protect(CODE, PAGE, Protection::READ_EXECUTE);
        }
        Ok(())
    }));
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(way.slice);
        Ok(())
    }));
    rig.engine.report_accesses(way.reports);
    rig.engine.set_slice(way.slice);
    let result = rig.call(&[]);
    let retired = rig.engine.retired() - began;
    let mut data = vec![0; 512];
    rig.engine.read_bytes(DATA, &mut data).unwrap();
    drop(rig);
    Seen { result, data, retired, reported: reported.take() }
}

/// Each form that drivers have, on the data, with flags live across some; and what is not reported.
fn forms() -> Vec<u8> {
    assemble(|a| {
        let mut routine = a.create_label();
        a.mov(r8, DATA).unwrap(); // 0
        a.mov(eax, dword_ptr(r8)).unwrap();
        a.stc().unwrap();
        a.mov(dword_ptr(r8 + 4), eax).unwrap();
        a.adc(qword_ptr(r8 + 8), 7).unwrap();
        a.lock().inc(dword_ptr(r8 + 16)).unwrap(); // 5
        a.xchg(qword_ptr(r8 + 24), rax).unwrap();
        a.mov(ecx, 3).unwrap();
        a.cmpxchg(dword_ptr(r8 + 32), ecx).unwrap();
        a.movups(xmm0, xmmword_ptr(r8 + 48)).unwrap();
        a.movups(xmmword_ptr(r8 + 64), xmm0).unwrap(); // 10
        a.mov(rsi, DATA + 80).unwrap();
        a.mov(rdi, DATA + 112).unwrap();
        a.mov(ecx, 3).unwrap();
        a.rep().movsd().unwrap();
        a.std().unwrap(); // 15
        a.mov(ecx, 2).unwrap();
        a.rep().stosb().unwrap();
        a.cld().unwrap();
        a.lea(rdx, qword_ptr(r8 + 1)).unwrap();
        a.push(rax).unwrap(); // 20
        a.mov(qword_ptr(rsp), rax).unwrap();
        a.push(qword_ptr(r8 + 128)).unwrap();
        a.pop(qword_ptr(r8 + 136)).unwrap();
        a.pop(rax).unwrap();
        a.mov(ecx, 70).unwrap(); // 25
        a.bts(qword_ptr(r8 + 144), rcx).unwrap();
        a.mov(rdi, DATA + 160).unwrap();
        a.mov(ecx, 9).unwrap();
        a.mov(al, byte_ptr(r8 + 163)).unwrap();
        a.repne().scasb().unwrap(); // 30
        a.xor(ecx, ecx).unwrap();
        a.rep().movsb().unwrap();
        a.lea(rax, iced_x86::code_asm::ptr(routine)).unwrap();
        a.mov(qword_ptr(r8 + 176), rax).unwrap();
        a.call(qword_ptr(r8 + 176)).unwrap(); // 35
        a.mov(rax, r9).unwrap();
        a.ret().unwrap();
        a.set_label(&mut routine).unwrap();
        a.mov(r9, 5u64).unwrap();
        a.prefetcht0(byte_ptr(r8)).unwrap();
        a.mov(bl, byte_ptr(r8 + 8 * rcx + 200)).unwrap();
        a.ret().unwrap();
    })
}

const FORMS: [Reported; 19] = [
    (0, 4, LOAD, false, 1),
    (4, 4, STORE, false, 3),
    (8, 8, UPDATE, false, 4),
    (16, 4, UPDATE, true, 5),
    (24, 8, UPDATE, true, 6),
    (32, 4, UPDATE, false, 8),
    (48, 16, LOAD, false, 9),
    (64, 16, STORE, false, 10),
    (80, 12, LOAD, false, 14),
    (112, 12, STORE, false, 14),
    (123, 2, STORE, false, 17),
    (128, 8, LOAD, false, 22),
    (136, 8, STORE, false, 23),
    (152, 8, UPDATE, false, 26),
    (163, 1, LOAD, false, 29),
    (160, 4, LOAD, false, 30),
    (176, 8, STORE, false, 34),
    (176, 8, LOAD, false, 35),
    (200, 1, LOAD, false, 38),
];

#[test]
fn each_access_is_told_once_before_it_happens_and_nothing_else_changes() {
    let code = forms();
    let unheard = run(Way { reports: Reports::None, ..PLAIN }, &code);
    assert_eq!((&unheard.result, unheard.reported.len()), (&Ok(5), 0));
    let first = run(PLAIN, &code);
    assert_eq!(first.reported, FORMS);
    let unheard = Seen { reported: first.reported.clone(), ..unheard };
    for (checked, slice, flush) in [
        (true, u64::MAX, false),
        (false, 1, false),
        (true, 1, true),
        (false, 7, true),
        (true, 3, false),
        (false, u64::MAX, true),
    ] {
        let seen = run(Way { checked, reports: Reports::Each, slice, flush }, &code);
        assert_eq!(seen, first, "checked {checked}, slices of {slice}, flush {flush}");
    }
    assert_eq!(first, unheard, "all but what is reported");
}

#[test]
fn a_machine_that_learns_and_one_whose_instructions_are_watched_report_the_same() {
    let code = forms();
    let first = run(PLAIN, &code);
    let places: Vec<u64> =
        iced_x86::Decoder::with_ip(64, &code, CODE, 0).iter().map(|instruction| instruction.ip()).collect();
    for (learns, watched) in [(true, &[][..]), (false, &places), (true, &places)] {
        let rig = rig(PLAIN, &code);
        let reported = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&reported);
        *rig.on_access.borrow_mut() = Some(Box::new(move |rig, it| {
            let offset = it.address.wrapping_sub(DATA);
            let access = (offset, it.bytes, it.kind, it.atomic, rig.engine.retired());
            engine::outside(|| log.borrow_mut().push(access));
            Ok(())
        }));
        rig.engine.report_accesses(Reports::Each);
        rig.engine.learn_shared(learns);
        rig.engine.watch(watched);
        assert_eq!(rig.call(&[]), Ok(5));
        assert_eq!(*reported.borrow(), first.reported, "learns {learns}, {} watched", watched.len());
    }
}

#[test]
fn an_instruction_that_faults_by_its_memory_tells_nothing_and_a_repeated_one_what_it_does_before() {
    let end = DATA + DATA_SIZE;
    let alone = |checked| {
        let code = assemble(|a| {
            a.mov(r8, end).unwrap();
            a.mov(eax, dword_ptr(r8 - 4)).unwrap();
            a.mov(eax, dword_ptr(r8 - 2)).unwrap();
            a.ret().unwrap();
        });
        run(Way { checked, ..PLAIN }, &code)
    };
    let repeated = |checked| {
        let code = assemble(|a| {
            a.mov(rsi, DATA).unwrap();
            a.mov(rdi, end - 10).unwrap();
            a.mov(ecx, 4).unwrap();
            a.rep().movsd().unwrap();
            a.ret().unwrap();
        });
        run(Way { checked, ..PLAIN }, &code)
    };
    let read_only = |checked| {
        let code = assemble(|a| {
            a.mov(r8, CODE).unwrap();
            a.mov(eax, dword_ptr(r8)).unwrap();
            a.inc(dword_ptr(r8)).unwrap();
            a.ret().unwrap();
        });
        run(Way { checked, ..PLAIN }, &code)
    };
    for checked in [false, true] {
        let seen = alone(checked);
        assert_eq!((seen.result, seen.retired), (Err(Leave::Stop), 2));
        assert_eq!(seen.reported, [(DATA_SIZE - 4, 4, LOAD, false, 1)]);
        let seen = repeated(checked);
        assert_eq!(seen.result, Err(Leave::Stop));
        let expected = [(0, 8, LOAD, false, 3), (DATA_SIZE - 10, 8, STORE, false, 3)];
        assert_eq!(seen.reported, expected);
        let seen = read_only(checked);
        assert_eq!(seen.reported, [(CODE.wrapping_sub(DATA), 4, LOAD, false, 1)]);
    }
}

#[test]
fn an_instruction_on_a_device_tells_what_it_does_to_memory_once() {
    let code = assemble(|a| {
        a.mov(rsi, DATA).unwrap();
        a.mov(rdi, DEVICE.base).unwrap();
        a.movsd().unwrap();
        a.mov(eax, dword_ptr(rdi)).unwrap();
        a.ret().unwrap();
    });
    for checked in [false, true] {
        assert_eq!(
            run(Way { checked, ..PLAIN }, &code).reported,
            [(0, 4, LOAD, false, 2)],
            "learned, then done"
        );
    }
}

#[test]
fn a_gather_and_a_masked_store_tell_the_elements_that_the_mask_names() {
    let code = assemble(|a| {
        a.mov(r8, DATA).unwrap();
        a.movups(xmm1, xmmword_ptr(r8 + 256)).unwrap();
        a.movups(xmm2, xmmword_ptr(r8 + 272)).unwrap();
        a.mov(edx, 0).unwrap();
        a.vpmaskmovd(xmmword_ptr(r8 + 320), xmm2, xmm1).unwrap();
        let memory = MemoryOperand::new(Register::R8, Register::XMM1, 4, 0, 0, false, Register::None);
        let gather = Code::VEX_Vpgatherdd_xmm_vm32x_xmm;
        let gather = Instruction::with3(gather, Register::XMM0, memory, Register::XMM2).unwrap();
        a.add_instruction(gather).unwrap();
        a.ret().unwrap();
    });
    if !Cpu::X86_64V3.missing().is_empty() {
        return;
    }
    let words = [[1, 30, 5, 2], [-1, 0, -1, 0]];
    let rig = rig(PLAIN, &code);
    let bytes: Vec<u8> = words.into_iter().flatten().flat_map(i32::to_le_bytes).collect();
    rig.engine.write_bytes(DATA + 256, &bytes).unwrap();
    let reported = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&reported);
    *rig.on_access.borrow_mut() = Some(Box::new(move |_, it| {
        engine::outside(|| log.borrow_mut().push((it.address - DATA, it.bytes, it.kind)));
        Ok(())
    }));
    rig.engine.report_accesses(Reports::Each);
    rig.call(&[]).unwrap();
    let masked = [(320, 4, STORE), (328, 4, STORE), (4, 4, LOAD), (20, 4, LOAD)];
    assert_eq!(reported.borrow()[2..], masked);
}

#[test]
fn the_guest_may_leave_the_instruction_and_runs_that_are_taken_back_tell_anew() {
    let rig = rig(
        PLAIN,
        &assemble(|a| {
            a.mov(byte_ptr(rcx), 1).unwrap();
            a.mov(cl, byte_ptr(rcx)).unwrap();
            a.ret().unwrap();
        }),
    );
    let reported = Rc::new(RefCell::new(0));
    let count = Rc::clone(&reported);
    *rig.on_access.borrow_mut() = Some(Box::new(move |_, _| {
        engine::outside(|| *count.borrow_mut() += 1);
        Ok(())
    }));
    rig.engine.report_accesses(Reports::Each);
    rig.host.track(Tracking::Faults).unwrap();
    let before = rig.host.snapshot().unwrap();
    for round in 1..=3 {
        rig.call(&[DATA]).unwrap();
        assert_eq!(*reported.borrow(), 2 * round);
        rig.host.rewind(before);
    }
    rig.host.discard(before);
    *rig.on_access.borrow_mut() = Some(Box::new(|_, _| Err(Leave::Stop)));
    let began = rig.engine.retired();
    assert_eq!(rig.call(&[DATA]), Err(Leave::Stop));
    let mut byte = [7];
    rig.engine.read_bytes(DATA, &mut byte).unwrap();
    assert_eq!((byte, rig.engine.retired() - began), ([0], 0), "the store has not happened, nor retired");
    let count = Rc::clone(&reported);
    *rig.on_access.borrow_mut() = Some(Box::new(move |_, _| {
        engine::outside(|| *count.borrow_mut() += 1);
        Ok(())
    }));
    for (reports, more) in [(Reports::Each, 2), (Reports::Noted, 2), (Reports::None, 0)] {
        reported.replace(0);
        rig.engine.report_accesses(reports);
        assert_eq!((rig.call(&[DATA]).map(|_| ()), *reported.borrow()), (Ok(()), more));
    }
}

#[test]
fn accesses_that_are_written_down_are_those_that_are_reported_one_by_one_and_change_nothing_either() {
    // A call by way of memory is left out: what is loaded is where it leads.
    let of = |seen: &Seen| -> Vec<(u64, u64, AccessKind, bool)> {
        let all = seen.reported.iter().map(|&(offset, bytes, kind, atomic, _)| (offset, bytes, kind, atomic));
        all.filter(|access| *access != (176, 8, LOAD, false)).collect()
    };
    let code = forms();
    for checked in [false, true] {
        let each = run(Way { checked, ..PLAIN }, &code);
        assert!(each.reported.len() > 15);
        for slice in [u64::MAX, 1, 5] {
            let noted = run(Way { checked, reports: Reports::Noted, slice, flush: false }, &code);
            let case = format!("checked {checked}, slices of {slice}");
            assert_eq!(
                (&noted.result, &noted.data, noted.retired),
                (&each.result, &each.data, each.retired),
                "{case}"
            );
            assert_eq!(of(&noted), of(&each), "{case}");
        }
    }
}

#[test]
fn more_accesses_than_the_log_holds_are_reported_in_their_order() {
    let code = assemble(|a| {
        let mut round = a.create_label();
        a.mov(r8, DATA).unwrap();
        a.xor(ecx, ecx).unwrap();
        a.set_label(&mut round).unwrap();
        a.mov(byte_ptr(r8 + rcx), 1).unwrap();
        a.inc(ecx).unwrap();
        a.cmp(ecx, 400).unwrap();
        a.jne(round).unwrap();
        a.ret().unwrap();
    });
    for checked in [false, true] {
        let noted = run(Way { checked, reports: Reports::Noted, ..PLAIN }, &code);
        let stores: Vec<u64> = noted.reported.iter().map(|access| access.0).collect();
        assert_eq!(stores, (0..400).collect::<Vec<_>>());
    }
}

#[test]
fn a_load_whose_value_is_changed_and_stored_back_says_where() {
    let rig = rig(
        PLAIN,
        &assemble(|a| {
            a.mov(eax, dword_ptr(rcx)).unwrap();
            a.mov(edx, dword_ptr(rcx + 8)).unwrap();
            a.inc(eax).unwrap();
            a.mov(dword_ptr(rcx), eax).unwrap();
            a.ret().unwrap();
        }),
    );
    for reports in [Reports::Each, Reports::Noted] {
        let back = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&back);
        *rig.on_access.borrow_mut() = Some(Box::new(move |_, it| {
            engine::outside(|| log.borrow_mut().push((it.rip - CODE, it.stored_back.map(|at| at - CODE))));
            Ok(())
        }));
        rig.engine.report_accesses(reports);
        rig.call(&[DATA]).unwrap();
        assert_eq!(*back.borrow(), [(0, Some(7)), (2, None), (7, None)], "{reports:?}");
    }
}

#[test]
fn what_does_not_follow_from_what_was_loaded_is_not_stored_back() {
    let stored_back = |write: &dyn Fn(&mut iced_x86::code_asm::CodeAssembler)| {
        let rig = rig(PLAIN, &assemble(|a| write(a)));
        rig.engine.write_bytes(DATA + 8, &(DATA + 64).to_le_bytes()).unwrap();
        let back = Rc::new(RefCell::new(None));
        let first = Rc::clone(&back);
        *rig.on_access.borrow_mut() = Some(Box::new(move |_, it| {
            engine::outside(|| first.borrow_mut().get_or_insert(it.stored_back.is_some()).to_owned());
            Ok(())
        }));
        rig.engine.report_accesses(Reports::Each);
        rig.call(&[DATA]).unwrap();
        back.take().unwrap()
    };
    assert!(stored_back(&|a| {
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.lea(edx, dword_ptr(rax + 1)).unwrap();
        a.mov(eax, 5).unwrap();
        a.mov(dword_ptr(rcx), edx).unwrap();
        a.ret().unwrap();
    }));
    assert!(
        stored_back(&|a| {
            a.or(edx, dword_ptr(rcx)).unwrap();
            a.cmp(byte_ptr(rcx + 8), 0).unwrap();
            a.mov(dword_ptr(rcx), edx).unwrap();
            a.ret().unwrap();
        }),
        "what is loaded goes into a register that is stored"
    );
    assert!(
        stored_back(&|a| {
            let (mut full, mut end) = (a.create_label(), a.create_label());
            a.mov(eax, dword_ptr(rcx)).unwrap();
            a.cmp(eax, 64).unwrap();
            a.je(full).unwrap();
            a.cmp(eax, 65).unwrap();
            a.jne(end).unwrap();
            a.set_label(&mut full).unwrap();
            a.inc(eax).unwrap();
            a.mov(dword_ptr(rcx), eax).unwrap();
            a.set_label(&mut end).unwrap();
            a.ret().unwrap();
        }),
        "along one of two ways, both behind a jump"
    );
    assert!(
        !stored_back(&|a| {
            let mut again = a.create_label();
            a.mov(eax, dword_ptr(rcx)).unwrap();
            a.set_label(&mut again).unwrap();
            a.dec(edx).unwrap();
            a.jne(again).unwrap();
            a.mov(dword_ptr(rcx), edx).unwrap();
            a.ret().unwrap();
        }),
        "another register, behind a loop"
    );
    assert!(
        !stored_back(&|a| {
            a.mov(eax, dword_ptr(rcx)).unwrap();
            a.mov(eax, 5).unwrap();
            a.mov(dword_ptr(rcx), eax).unwrap();
            a.ret().unwrap();
        }),
        "a constant"
    );
    assert!(
        !stored_back(&|a| {
            a.mov(rax, qword_ptr(rcx + 8)).unwrap();
            a.mov(rdx, qword_ptr(rax)).unwrap();
            a.mov(qword_ptr(rcx + 8), rdx).unwrap();
            a.ret().unwrap();
        }),
        "what lies where a loaded pointer points"
    );
    assert!(
        !stored_back(&|a| {
            a.mov(eax, dword_ptr(rcx)).unwrap();
            a.lea(rcx, qword_ptr(rcx + 4)).unwrap();
            a.mov(dword_ptr(rcx), eax).unwrap();
            a.ret().unwrap();
        }),
        "a place whose register has changed"
    );
}
