//! The checked translation: everything the fast one is held to, once more; then what only it can tell.
#![allow(
    clippy::duplicate_mod,
    clippy::print_stderr,
    reason = "the other files are taken in whole, with a rig of checked machines; what is not tested is said"
)]

#[path = "accesses.rs"]
mod accesses;
#[path = "corpus.rs"]
mod corpus;
#[path = "counter.rs"]
mod counter;
#[path = "differential.rs"]
mod differential;
#[path = "driver_code.rs"]
mod driver_code;
#[path = "elements.rs"]
mod elements;
#[path = "extended.rs"]
mod extended;
#[path = "hostile.rs"]
mod hostile;
#[path = "interlocked.rs"]
mod interlocked;
#[path = "returns.rs"]
mod returns;
#[path = "rewind.rs"]
mod rewind;
#[path = "rewind_memory.rs"]
mod rewind_memory;
#[path = "rig/mod.rs"]
mod rig;

use engine::windows::{DEVICE, IMAGES, SYSTEM, USER};
use engine::{Cpu, FaultKind, Leave, TouchKind, Tracking};
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, MemoryOperand, Register};
use rig::{CODE, DATA, Rig, STACK_TOP, assemble};

use super::{corpora, random, sequences};

const _: () = assert!(rig::CHECKED, "this rig makes checked machines");

/// What is mapped in the process and is no driver's: an address in each of the engine's own windows, in the two shadows,
/// and in the host program.
fn ours(engine: engine::Engine) -> Vec<u64> {
    static HOST: [u64; 8] = [7; 8];
    let shadows = [0x0A00_0000_0740, 0x0060_0000_0B40].map(|distance| DATA + distance);
    let windows = [
        0x2000_6000_0000, // code cache
        0x7000_0800,      // scratch page, behind what is in use
        0x2000_5F00_0800, // the same once more
        0x2001_8000_0000, // dispatch table
    ];
    let [heap, pages, stacks, code, table] = engine.own_windows().map(|window| window.base);
    let hidden = [heap + 0x1000, pages, stacks + 0x4_0000, code, table];
    let host = [(&raw const HOST) as u64, (&raw const *Box::leak(Box::new([7u64; 8]))) as u64];
    windows.into_iter().chain(hidden).chain(shadows).chain(host).collect()
}

/// 64 bytes of the process, whatever they are.
fn peek(address: u64) -> [u8; 64] {
    // SAFETY: the addresses of `ours` are mapped and readable.
    unsafe { std::ptr::read_volatile(std::ptr::with_exposed_provenance(address as usize)) }
}

/// A machine with this code, on the larger processor where the host can be that.
fn machine(code: &[u8]) -> Rig {
    let rig = Rig::new(code);
    if Cpu::X86_64V3.missing().is_empty() {
        rig.engine.imitate(Cpu::X86_64V3);
    }
    rig
}

/// The kinds that this host has.
fn available(all: &[Assembler], wide: &[Assembler]) -> Vec<Assembler> {
    let missing = Cpu::X86_64V3.missing();
    if !missing.is_empty() {
        eprintln!("AVX is left out: this host lacks {missing:?}");
        return all.to_vec();
    }
    [all, wide].concat()
}

type Assembler = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;

/// Each kind of store, to `rcx`.
const STORES: &[Assembler] = &[
    |a| a.mov(byte_ptr(rcx), 1),
    |a| a.mov(word_ptr(rcx), 1),
    |a| a.mov(dword_ptr(rcx + 4), edx),
    |a| a.mov(qword_ptr(rcx + rax * 8), rdx),
    |a| a.movups(xmmword_ptr(rcx + 16), xmm0),
    |a| a.add(dword_ptr(rcx), 1),
    |a| a.lock().inc(qword_ptr(rcx)),
    |a| a.xchg(qword_ptr(rcx), rdx),
    |a| a.bts(qword_ptr(rcx), rax),
    |a| a.cmpxchg16b(xmmword_ptr(rcx)),
    |a| a.fnsave(ptr(rcx)),
    |a| {
        a.mov(rdi, rcx)?;
        a.stosb()
    },
    |a| {
        a.mov(rdi, rcx)?;
        a.mov(ecx, 8)?;
        a.rep().stosd()
    },
    |a| {
        a.lea(rsp, ptr(rcx + 8))?;
        a.push(rdx)
    },
    |a| {
        a.lea(rsp, ptr(rcx + 8))?;
        let mut next = a.create_label();
        a.call(next)?;
        a.set_label(&mut next)
    },
];

/// Those of AVX.
const WIDE_STORES: &[Assembler] = &[
    |a| a.vmovups(ymmword_ptr(rcx), ymm0),
    |a| {
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        a.vextracti128(xmmword_ptr(rcx), ymm1, 1)
    },
    |a| {
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        a.vmaskmovps(ymmword_ptr(rcx), ymm1, ymm1)
    },
    // Every other quadword.
    |a| {
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        a.vpslldq(ymm2, ymm1, 8)?;
        a.vpmaskmovq(ymmword_ptr(rcx - 8), ymm2, ymm1)
    },
    |a| {
        a.vpcmpeqd(xmm11, xmm11, xmm11)?;
        a.mov(rdi, rcx)?;
        a.vmaskmovdqu(xmm11, xmm11)
    },
    |a| a.vcvtps2ph(xmmword_ptr(rcx), ymm0, 0),
];

const WIDE_LOADS: &[Assembler] = &[
    |a| a.vmovups(ymm0, ymmword_ptr(rcx)),
    |a| a.vbroadcasti128(ymm0, xmmword_ptr(rcx + 4)),
    |a| a.vfmadd213pd(ymm0, ymm1, ymmword_ptr(rcx)),
    |a| a.andn(rax, rax, qword_ptr(rcx)),
    |a| {
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        a.vpmaskmovd(ymm2, ymm1, ymmword_ptr(rcx))
    },
    |a| {
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        let memory = MemoryOperand::with_base_index(Register::RCX, Register::YMM2);
        let code = Code::VEX_Vgatherdps_ymm_vm32y_ymm;
        a.add_instruction(Instruction::with3(code, Register::YMM0, memory, Register::YMM1)?)
    },
];

/// Each kind of load, from `rcx`.
const LOADS: &[Assembler] = &[
    |a| a.movzx(eax, byte_ptr(rcx)),
    |a| a.mov(rax, qword_ptr(rcx)),
    |a| a.cmp(dword_ptr(rcx + 8), 0),
    |a| a.movdqu(xmm0, xmmword_ptr(rcx)),
    |a| a.movzx(eax, word_ptr(rcx + rax * 2 + 2)),
    |a| a.bt(dword_ptr(rcx), eax),
    |a| {
        a.mov(rsi, rcx)?;
        a.lodsq()
    },
    |a| {
        a.mov(rdi, rcx)?;
        a.mov(ecx, 8)?;
        a.repne().scasb()
    },
    |a| {
        a.mov(rbx, rcx)?;
        a.xlatb()
    },
    |a| {
        a.mov(rsp, rcx)?;
        a.pop(rax)
    },
    |a| {
        a.mov(rsp, rcx)?;
        a.ret()
    },
    |a| a.jmp(qword_ptr(rcx)),
    |a| a.call(qword_ptr(rcx)),
];

fn code(access: Assembler) -> Vec<u8> {
    assemble(|a| {
        a.xor(eax, eax).unwrap();
        access(a).unwrap();
        a.ud2().unwrap();
    })
}

#[test]
fn no_store_reaches_our_own_state() {
    for (number, store) in available(STORES, WIDE_STORES).into_iter().enumerate() {
        let rig = machine(&code(store));
        for address in ours(rig.engine) {
            let before = peek(address);
            assert_eq!(rig.call(&[address, 0x5555]), Err(Leave::Stop));
            assert!(peek(address) == before, "store {number} to {address:#x}");
            let fault = rig.the_fault();
            let distance = fault.address.wrapping_sub(address);
            assert!(fault.kind == FaultKind::Write && distance <= 16, "store {number}: {fault:x?}");
            let retired = rig.engine.now();
            assert!(fault.caller.rip > CODE && retired > 0);
        }
    }
}

#[test]
fn no_load_sees_our_own_state() {
    for (number, load) in available(LOADS, WIDE_LOADS).into_iter().enumerate() {
        let rig = machine(&code(load));
        for address in ours(rig.engine) {
            assert_eq!(rig.call(&[address]), Err(Leave::Stop));
            let fault = rig.the_fault();
            let distance = fault.address.wrapping_sub(address);
            assert!(fault.kind == FaultKind::Read && distance <= 16, "load {number}: {fault:x?}");
        }
    }
}

#[test]
fn a_null_pointer_is_what_it_is_in_a_fast_machine() {
    let rig = Rig::new(&code(STORES[0]));
    for address in [0, 8, 0x4141_4141_4141, SYSTEM.base + 0x9_0000_0000, USER.base + 0x1000] {
        assert_eq!(rig.call(&[address]), Err(Leave::Stop));
        let fault = rig.the_fault();
        assert_eq!((fault.kind, fault.address, fault.caller.rip), (FaultKind::Write, address, CODE + 2));
        assert_eq!(fault.caller.registers.general[1], address, "rcx is the driver's own again");
    }
    assert_eq!(rig.call(&[0x8000_0000_0000_0000]), Err(Leave::Stop));
    assert_eq!(rig.the_fault().kind, FaultKind::NonCanonical);
    assert_eq!(rig.engine.now(), 6, "one instruction of each call has retired");
}

#[test]
fn an_export_jumped_to_on_a_stack_of_ours_stores_nothing_there() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rsp, rcx).unwrap();
        a.mov(rax, rig::EXPORTS + 0x1000).unwrap();
        a.jmp(rax).unwrap();
    }));
    rig.engine.define_export(rig::EXPORTS + 0x1000, 0);
    for address in ours(rig.engine) {
        let before = peek(address);
        assert_eq!(rig.call(&[address]), Err(Leave::Stop));
        assert!(peek(address) == before, "{address:#x}");
    }
}

#[test]
fn each_access_is_told_of_the_marked_byte_it_touches_and_no_other_is() {
    let widths: [(u64, Assembler); 5] = [
        (1, |a| a.mov(al, byte_ptr(rcx))),
        (2, |a| a.mov(word_ptr(rcx), ax)),
        (4, |a| a.add(eax, dword_ptr(rcx))),
        (8, |a| a.mov(qword_ptr(rcx), rdx)),
        (16, |a| a.movups(xmm1, xmmword_ptr(rcx))),
    ];
    let marked = DATA + 64;
    for (width, access) in widths {
        let rig = Rig::new(&assemble(|a| {
            a.nop().unwrap();
            access(a).unwrap();
            a.ret().unwrap();
        }));
        rig.engine.mark(marked, 1, 0x42);
        for start in marked - 20..marked + 4 {
            let before = rig.engine.now();
            rig.call(&[start]).unwrap();
            let touches = rig.touches.take();
            let overlaps = start <= marked && marked < start + width;
            assert_eq!(touches.len(), usize::from(overlaps), "{width} bytes at {start:#x}");
            if let Some((touch, now)) = touches.first() {
                assert_eq!(
                    (touch.start, touch.bytes, touch.address, touch.mark),
                    (start, width, marked, 0x42)
                );
                assert_eq!(
                    touch.kind,
                    if matches!(width, 2 | 8) { TouchKind::Write } else { TouchKind::Read }
                );
                assert_eq!((touch.caller.rip, now - before), (CODE + 1, 1), "the nop has retired");
                assert_eq!(touch.caller.registers.general[1], start);
            }
            assert_eq!(rig.engine.now() - before, 3);
        }
    }
}

#[test]
fn a_touch_that_is_refused_does_not_happen() {
    let rig = Rig::new(&code(STORES[0]));
    rig.engine.mark(DATA, 16, 1);
    rig.may_touch.set(false);
    assert_eq!(rig.call(&[DATA]), Err(Leave::Stop));
    let mut byte = [9];
    rig.engine.read_bytes(DATA, &mut byte).unwrap();
    assert_eq!((byte, rig.engine.now()), ([0], 1));
    rig.engine.mark(DATA, 16, 0);
    assert_eq!(rig.call(&[DATA]), Err(Leave::Stop), "it goes on to its ud2");
    assert_eq!((rig.the_fault().kind, rig.touches.borrow().len()), (FaultKind::InvalidOpcode, 1));
}

#[test]
fn a_repeated_string_is_looked_at_as_far_as_it_will_go() {
    let rig = Rig::new(&assemble(|a| {
        let mut compare = a.create_label();
        a.mov(rdi, rcx).unwrap();
        a.mov(rcx, rdx).unwrap();
        a.mov(al, 0x20).unwrap();
        a.test(r8, r8).unwrap();
        a.jnz(compare).unwrap();
        a.rep().stosb().unwrap();
        a.ret().unwrap();
        a.set_label(&mut compare).unwrap();
        a.repne().scasb().unwrap();
        a.ret().unwrap();
    }));
    rig.engine.mark(DATA + 40, 1, 3);
    let touched = |start: u64, count: u64, scan: u64| {
        rig.call(&[start, count, scan]).unwrap();
        rig.touches.take().iter().map(|(touch, _)| touch.address).collect::<Vec<_>>()
    };
    assert_eq!(touched(DATA, 40, 0), [], "up to the byte");
    assert_eq!(touched(DATA, 41, 0), [DATA + 40]);
    assert_eq!(touched(DATA, 0, 0), []);
    assert_eq!(touched(DATA, 1000, 1), [], "the comparison ends at the first blank");
    rig.engine.write_bytes(DATA, &[1; 64]).unwrap();
    assert_eq!(touched(DATA, 64, 1), [DATA + 40]);
    assert_eq!(rig.call(&[DATA, u64::MAX]), Err(Leave::Stop), "and runs into the page that is missing");
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, DATA + rig::DATA_SIZE));
}

/// As compilers clear and copy structures: elements of 2, 4 and 8 bytes.
#[test]
fn a_repeated_string_of_words_is_looked_at_to_its_last_byte() {
    let strings: [(u64, Assembler); 5] = [
        (2, |a| a.rep().stosw()),
        (4, |a| a.rep().stosd()),
        (8, |a| a.rep().stosq()),
        (8, |a| a.rep().movsq()),
        (4, |a| a.repe().cmpsd()),
    ];
    for (bytes, string) in strings {
        let rig = Rig::new(&assemble(|a| {
            a.mov(rdi, rcx).unwrap();
            a.mov(rcx, rdx).unwrap();
            a.mov(rsi, DATA + 0x800).unwrap();
            string(a).unwrap();
            a.ret().unwrap();
        }));
        rig.engine.mark(DATA + 80, 1, 3);
        rig.call(&[DATA, 80 / bytes]).unwrap();
        assert_eq!(rig.touches.borrow().len(), 0, "{bytes} bytes: up to the byte");
        rig.call(&[DATA, 80 / bytes + 1]).unwrap();
        assert_eq!(rig.touches.borrow()[0].0.address, DATA + 80, "{bytes} bytes");
    }
}

#[test]
fn what_was_never_stored_is_known_byte_by_byte() {
    for (number, store) in available(STORES, WIDE_STORES).into_iter().enumerate() {
        let rig = machine(&code(store));
        let block = DATA + 0x100;
        rig.engine.never_stored(block, 0x200);
        rig.engine.write_bytes(block + 0x1F0, &[0; 4]).unwrap();
        let before = peek(block);
        let _ = rig.call(&[block, 0x0123_4567_89AB_CDEF]);
        let stored = |at: u64| rig.engine.first_never_stored(at, 1).is_none();
        let changed = (0..64).filter(|i| peek(block)[*i] != before[*i]).map(|i| block + i as u64);
        assert!(changed.clone().all(stored), "store {number}");
        assert!(stored(block) || number == 2 || number == 4, "store {number}: to where it stores");
        assert!(!stored(block + 0x1EF) && stored(block + 0x1F0) && stored(block + 0x1F3));
        assert!(!stored(block + 0x1F4), "store {number}");
    }
}

#[test]
fn a_masked_access_is_told_of_the_elements_it_touches_and_no_others() {
    let missing = Cpu::X86_64V3.missing();
    if !missing.is_empty() {
        return eprintln!("skipped: this host lacks {missing:?}");
    }
    // The mask at `rdx`, the index at `rdx + 32`.
    let kinds: [(bool, Assembler); 3] = [
        (true, |a| a.vpmaskmovq(ymmword_ptr(rcx), ymm1, ymm0)),
        (false, |a| a.vmaskmovpd(ymm0, ymm1, ymmword_ptr(rcx))),
        (false, |a| {
            let memory = MemoryOperand::with_base_index(Register::RCX, Register::XMM2);
            let code = Code::VEX_Vgatherdpd_ymm_vm32x_ymm;
            a.add_instruction(Instruction::with3(code, Register::YMM0, memory, Register::YMM1)?)
        }),
    ];
    for (writes, access) in kinds {
        let rig = Rig::new(&assemble(|a| {
            a.vmovdqu(ymm1, ymmword_ptr(rdx)).unwrap();
            a.vmovdqu(xmm2, xmmword_ptr(rdx + 32)).unwrap();
            access(a).unwrap();
            a.ret().unwrap();
        }));
        rig.engine.imitate(Cpu::X86_64V3);
        let (block, mask) = (DATA + 0x100, DATA + 0x200);
        for (lane, offset) in (0u64..4).zip((0u32..32).step_by(8)) {
            rig.engine.write_bytes(mask + 32 + 4 * lane, &offset.to_le_bytes()).unwrap();
        }
        for named in 0u64..16 {
            let bits: Vec<u8> = (0..4).flat_map(|e| ((named >> e & 1) << 63).to_le_bytes()).collect();
            rig.engine.write_bytes(mask, &bits).unwrap();
            rig.engine.mark(block, 32, 9);
            rig.engine.never_stored(block, 32);
            rig.call(&[block, mask]).unwrap();
            let reported: Vec<u64> = rig.touches.take().iter().map(|(touch, _)| touch.address).collect();
            let elements: Vec<u64> = (0..4).filter(|e| named >> e & 1 != 0).map(|e| block + 8 * e).collect();
            assert_eq!(reported, elements, "mask {named:#b}");
            for at in block..block + 32 {
                let stored = rig.engine.first_never_stored(at, 1).is_none();
                assert_eq!(stored, writes && named >> ((at - block) / 8) & 1 != 0, "{named:#b} {at:#x}");
            }
        }
    }
}

#[test]
fn marked_code_is_told_when_it_is_entered() {
    let rig = Rig::new(&assemble(|a| {
        let mut twice = a.create_label();
        a.mov(eax, 2).unwrap();
        a.set_label(&mut twice).unwrap();
        a.dec(eax).unwrap();
        a.jnz(twice).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[]), Ok(0), "translated before it is marked");
    rig.engine.mark(CODE, 0x1000, 9);
    let before = rig.engine.now();
    assert_eq!(rig.call(&[]), Ok(0));
    let entered: Vec<(u64, u64)> =
        rig.touches.take().iter().map(|(touch, now)| (touch.caller.rip - CODE, now - before)).collect();
    assert_eq!(entered, [(0, 0), (5, 3), (9, 5)], "where, and after how many instructions");
    rig.engine.mark(CODE, 0x1000, 0);
    assert_eq!(rig.call(&[]), Ok(0));
    assert!(rig.touches.take().is_empty());
}

#[test]
fn what_lies_behind_gs_is_checked_too() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rax, qword_ptr(0x18).gs()).unwrap();
        a.mov(dword_ptr(rcx + 8).gs(), edx).unwrap();
        a.mov(byte_ptr(rcx + rdx).gs(), dl).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.set_processor_region(DATA + 0x1000);
    rig.engine.mark(DATA + 0x1018, 8, 5);
    rig.engine.mark(DATA + 0x1108, 4, 6);
    rig.engine.mark(DATA + 0x1140, 1, 7);
    rig.call(&[0x100, 0x40]).unwrap();
    let marks: Vec<u8> = rig.touches.take().iter().map(|(touch, _)| touch.mark).collect();
    assert_eq!(marks, [5, 6, 7]);
}

#[test]
fn the_stack_and_devices_are_what_they_were() {
    let rig = Rig::new(&assemble(|a| {
        let mut callee = a.create_label();
        a.push(rbx).unwrap();
        a.mov(rbx, rcx).unwrap();
        a.call(callee).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut callee).unwrap();
        a.mov(eax, dword_ptr(rbx + 0x10)).unwrap();
        a.or(dword_ptr(rbx + 0x10), 1).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[DEVICE.base]), Ok(0));
    assert_eq!(rig.call(&[DEVICE.base]), Ok(1));
    assert_eq!(rig.call(&[DATA]), Ok(0), "the same instruction on memory");
    rig.engine.mark(DATA + 0x13, 1, 1);
    assert_eq!(rig.call(&[DATA]), Ok(1));
    assert_eq!(rig.touches.take().len(), 2, "a learned instruction on memory is checked as any other");
    assert_eq!(rig.engine.now(), 4 * 8);
    rig.engine.mark(STACK_TOP - 0x1000, 0x1000, 4);
    rig.call(&[DATA]).unwrap();
    assert_eq!(rig.touches.take().len(), 2 + 5, "push, call, ret, pop, ret");
}

#[test]
fn marks_go_with_the_mapping_and_reach_no_further_than_driver_memory() {
    let rig = Rig::new(&[0xC3]);
    rig.engine.mark(DATA, 32, 7);
    assert_eq!((rig.engine.mark_of(DATA + 31), rig.engine.mark_of(DATA + 32)), (7, 0));
    assert_eq!(rig.engine.first_marked(DATA - 8, 64), Some((DATA, 7)));
    rig.engine.mark(IMAGES.end(), 16, 7);
    assert_eq!(rig.engine.mark_of(IMAGES.end()), 0);
    rig.engine.unmap(DATA, rig::DATA_SIZE);
    rig.map(DATA, rig::DATA_SIZE);
    assert_eq!(rig.engine.mark_of(DATA), 0);
}

/// Marks that the guest sets, and bytes that driver code stores: each as it was, as often as the machine is taken back.
#[test]
fn what_a_checked_machine_knows_of_memory_is_taken_back_with_it() {
    for tracking in [Tracking::Faults, Tracking::Userfault] {
        let rig = Rig::new(&assemble(|a| {
            a.mov(dword_ptr(rcx), 1).unwrap();
            a.ret().unwrap();
        }));
        let engine = rig.engine;
        if rig.host.track(tracking).is_err() {
            assert_eq!(tracking, Tracking::Userfault, "any Linux can do the other");
            continue;
        }
        engine.mark(DATA + 64, 8, 7);
        engine.never_stored(DATA, 16);
        let (before, print) = (rig.host.snapshot().unwrap(), engine.fingerprint());
        let knows = || {
            (
                engine.mark_of(DATA + 64),
                engine.mark_of(SYSTEM.base + 0x900_0000),
                engine.first_never_stored(DATA, 16),
            )
        };
        for round in 0..5 {
            assert_eq!(knows(), (7, 0, Some(DATA)), "round {round}");
            rig.call(&[DATA]).unwrap();
            engine.mark(DATA + 64, 8, 0);
            assert_eq!(knows(), (0, 0, Some(DATA + 4)));
            assert_ne!(engine.fingerprint(), print);
            let between = rig.host.snapshot().unwrap();
            rig.call(&[DATA + 64]).unwrap();
            assert_eq!(rig.touches.take().len(), 0, "there is no mark any more");
            engine.mark(SYSTEM.base + 0x900_0000, 3, 9);
            assert_eq!(knows(), (0, 9, Some(DATA + 4)));
            if round % 2 == 0 {
                rig.host.rewind(between);
                assert_eq!(knows(), (0, 0, Some(DATA + 4)));
            }
            rig.host.rewind(before);
            assert_eq!(engine.fingerprint(), print, "round {round}");
            rig.call(&[DATA + 64]).unwrap();
            assert_eq!(rig.touches.take().len(), 1, "the mark is there again");
            rig.host.rewind(before);
        }
        rig.host.discard(before);
    }
}

/// A translation asks about marks of its own code, or does not: which it does must fit the marks it is taken back to.
#[test]
fn code_that_was_marked_is_asked_about_again_when_the_machine_is_taken_back() {
    for tracking in [Tracking::Faults, Tracking::Userfault] {
        let rig = Rig::new(&[0xC3]);
        if rig.host.track(tracking).is_err() {
            continue;
        }
        rig.engine.mark(CODE, 1, 5);
        let marked = rig.host.snapshot().unwrap();
        rig.call(&[]).unwrap();
        assert_eq!(rig.touches.take().len(), 1);
        rig.engine.mark(CODE, 1, 0);
        rig.call(&[]).unwrap();
        assert_eq!(rig.touches.take().len(), 0);
        rig.host.rewind(marked);
        rig.call(&[]).unwrap();
        assert_eq!(rig.touches.take().len(), 1);
        rig.host.discard(marked);
    }
}
