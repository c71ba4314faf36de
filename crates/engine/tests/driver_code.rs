//! Driver code by hand: calls, returns, exports, sensitive instructions, devices, faults, slices.

use engine::windows::{DEVICE, SHARED_DATA};
use engine::{FaultKind, Leave, Stack};
use iced_x86::code_asm::*;

use super::rig::{CODE, DATA, EXPORTS, Rig, STACK_SIZE, STACK_TOP, assemble, relative};

#[test]
fn a_leaf_function_returns_its_sum() {
    let rig = Rig::new(&assemble(|a| {
        a.lea(rax, rcx + rdx).unwrap();
        a.add(rax, r8).unwrap();
        a.add(rax, r9).unwrap();
        a.add(rax, qword_ptr(rsp + 0x28)).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[1, 2, 3, 4, 5]), Ok(15));
    assert_eq!(rig.engine.now(), 5, "five instructions have retired");
}

#[test]
fn recursion_sees_original_return_addresses() {
    // f(n) = n == 0 ? [rsp] : f(n - 1) + 1
    let code = assemble(|a| {
        let mut f = a.create_label();
        let mut base = a.create_label();
        a.set_label(&mut f).unwrap();
        a.test(ecx, ecx).unwrap();
        a.je(base).unwrap();
        a.sub(rsp, 0x28).unwrap();
        a.dec(ecx).unwrap();
        a.call(f).unwrap();
        a.inc(rax).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.ret().unwrap();
        a.set_label(&mut base).unwrap();
        a.mov(rax, qword_ptr(rsp)).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::new(&code);
    assert_eq!(rig.call(&[0]), Ok(engine::RETURN_TO_KERNEL));
    let inner = rig.call(&[50]).unwrap();
    assert!((CODE..CODE + code.len() as u64).contains(&(inner - 50)), "an address in the original code");
    assert_eq!(rig.call(&[50]), Ok(inner));
}

#[test]
fn an_export_gets_its_arguments_and_volatile_registers_are_scrubbed() {
    let rig = Rig::new(&assemble(|a| {
        a.push(rbx).unwrap();
        a.sub(rsp, 0x30).unwrap();
        a.mov(rbx, rcx).unwrap();
        a.mov(qword_ptr(rsp + 0x20), 55).unwrap();
        a.mov(rax, EXPORTS + 0x1000).unwrap();
        a.call(rax).unwrap();
        a.add(rax, rbx).unwrap();
        a.or(rcx, r8).unwrap();
        a.or(rcx, r10).unwrap();
        a.add(rax, rcx).unwrap();
        a.add(rsp, 0x30).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.define_export(EXPORTS + 0x1000, 7);
    *rig.export.borrow_mut() = Some(Box::new(|rig, number, args| {
        assert_eq!((number, args.registers), (7, [1, 2, 3, 4]));
        let mut slots = [0; 40];
        rig.engine.read_bytes(args.slot(0), &mut slots).unwrap();
        let slots: Vec<u8> = slots.chunks(8).map(|c| c[0]).collect();
        assert_eq!(slots, [1, 2, 3, 4, 55], "home space and stack form a va_list");
        assert!(rig.engine.caller().unwrap().rip > CODE);
        Ok(1000)
    }));
    assert_eq!(rig.call(&[1, 2, 3, 4]), Ok(1001));
}

#[test]
fn an_export_can_call_back_into_the_driver() {
    // f(n): n == 0 ? 1 : export(n)
    let rig = Rig::new(&assemble(|a| {
        let mut go = a.create_label();
        a.test(rcx, rcx).unwrap();
        a.jne(go).unwrap();
        a.mov(eax, 1).unwrap();
        a.ret().unwrap();
        a.set_label(&mut go).unwrap();
        a.mov(rax, EXPORTS + 0x1000).unwrap();
        a.jmp(rax).unwrap();
    }));
    rig.engine.define_export(EXPORTS + 0x1000, 0);
    *rig.export.borrow_mut() = Some(Box::new(|rig, _, args| {
        let n = args.registers[0];
        Ok(2 * rig.engine.call(CODE, &[n - 1], Stack::Current)?)
    }));
    assert_eq!(rig.call(&[10]), Ok(1024));
}

#[test]
fn leaving_discards_every_driver_frame() {
    let rig = Rig::new(&assemble(|a| {
        a.sub(rsp, 0x28).unwrap();
        a.mov(rax, EXPORTS + 0x1000).unwrap();
        a.call(rax).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.define_export(EXPORTS + 0x1000, 0);
    *rig.export.borrow_mut() = Some(Box::new(|rig, _, _| {
        if rig.engine.depth() == 4 {
            return Err(Leave::Stop);
        }
        rig.engine.call(CODE, &[], Stack::Current)
    }));
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    assert_eq!(rig.engine.depth(), 0);
    *rig.export.borrow_mut() = Some(Box::new(|_, _, _| Ok(9)));
    assert_eq!(rig.call(&[]), Ok(9), "the machine can go on");
}

#[test]
fn sensitive_instructions_are_calls_to_the_platform() {
    let rig = Rig::new(&assemble(|a| {
        a.push(rbx).unwrap();
        a.mov(dx, 0x3F8).unwrap();
        a.mov(eax, 0x41).unwrap();
        a.out(dx, al).unwrap();
        a.in_(eax, dx).unwrap();
        a.mov(r8, cr8).unwrap();
        a.mov(r9d, 2).unwrap();
        a.mov(cr8, r9).unwrap();
        a.cli().unwrap();
        a.pushfq().unwrap();
        a.pop(r10).unwrap();
        a.sti().unwrap();
        a.pushfq().unwrap();
        a.pop(r11).unwrap();
        a.sub(r11, r10).unwrap();
        a.rdtsc().unwrap();
        a.mov(eax, 4).unwrap();
        a.xor(ecx, ecx).unwrap();
        a.cpuid().unwrap();
        a.lea(rax, rax + rbx).unwrap();
        a.lea(rax, rax + r11).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[]), Ok(5 + 2 + 0x200), "cpuid's eax and ebx, and the interrupt flag's bit");
    assert_eq!(rig.log(), ["out 0x3f8 1 0x41", "in 0x3f8 4", "level 2", "TimeStamp"]);
    assert_eq!(rig.engine.level(), 2);
}

/// `call [slot]` and `jmp [slot]`, while the slot's page is writable, is written by the kernel, by the driver, and read only.
#[test]
fn an_import_slot_is_followed_wherever_it_points_now() {
    let (slots, writer) = (CODE + 0x20_0000, CODE + 0x10_0000);
    // push rbx; sub rsp, 20h; call [slot]; mov rbx, rax; call tail; lea rax, [rax+rbx*8]; …; tail: jmp [slot]
    let mut code = vec![0x53, 0x48, 0x83, 0xEC, 0x20];
    code.extend(relative(CODE + 5, &[0xFF, 0x15], slots));
    code.extend([0x48, 0x89, 0xC3, 0xE8, 0x0A, 0, 0, 0]);
    code.extend([0x48, 0x8D, 0x04, 0xD8, 0x48, 0x83, 0xC4, 0x20, 0x5B, 0xC3]);
    code.extend(relative(CODE + 29, &[0xFF, 0x25], slots));
    let rig = Rig::new(&code);
    let mut store = relative(writer, &[0x48, 0x89, 0x0D], slots);
    store.push(0xC3);
    rig.load(writer, &store);
    *rig.export.borrow_mut() = Some(Box::new(|_, number, _| Ok(number.into())));
    for number in 1..5 {
        rig.engine.define_export(EXPORTS + 16 * u64::from(number), number);
    }
    let export = |number: u64| EXPORTS + 16 * number;
    rig.map(slots, 0x1000);
    rig.engine.write_bytes(slots, &export(1).to_le_bytes()).unwrap();
    assert_eq!((rig.call(&[]), rig.call(&[])), (Ok(9), Ok(9)));
    rig.engine.write_bytes(slots, &export(2).to_le_bytes()).unwrap();
    assert_eq!((rig.call(&[]), rig.call(&[])), (Ok(18), Ok(18)), "the kernel has written it");
    rig.call_at(writer, &[export(3)]).unwrap();
    assert_eq!((rig.call(&[]), rig.call(&[])), (Ok(27), Ok(27)), "the driver has");
    rig.call_at(writer, &[export(1)]).unwrap();
    assert_eq!((rig.call(&[]), rig.call(&[])), (Ok(9), Ok(9)), "again, though no translation relies on it");
    rig.engine.write_bytes(slots, &export(4).to_le_bytes()).unwrap();
    rig.engine.protect(slots, 0x1000, engine::Protection::READ);
    assert_eq!((rig.call(&[]), rig.call(&[])), (Ok(36), Ok(36)), "it is read only now");
    assert_eq!(rig.call_at(writer, &[export(1)]), Err(Leave::Stop));
    assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, slots));
}

/// Levels 5, 1, 12 and 16 go to CR8 in turn, with flags and registers alive; the answer is what CR8 says after each.
#[test]
fn a_level_nobody_need_know_of_is_set_without_asking_and_any_other_asks() {
    let rig = Rig::new(&assemble(|a| {
        a.xor(eax, eax).unwrap();
        for (level, from) in [(5u64, rcx), (1, r10), (12, rsp), (3, rax)] {
            if from == rsp || from == rax {
                a.mov(r11, rsp).unwrap();
                a.mov(r8, rax).unwrap();
            }
            a.mov(from, level).unwrap();
            a.stc().unwrap();
            a.mov(cr8, from).unwrap();
            a.setc(dl).unwrap();
            if from == rsp || from == rax {
                a.mov(rsp, r11).unwrap();
                a.mov(rax, r8).unwrap();
            }
            a.mov(r9, cr8).unwrap();
            a.shl(rax, 8).unwrap();
            a.lea(rax, rax + r9).unwrap();
            a.movzx(edx, dl).unwrap();
            a.shl(edx, 7).unwrap();
            a.lea(rax, rax + rdx).unwrap();
        }
        a.ret().unwrap();
    }));
    let region = DATA + 0x3000;
    rig.engine.set_processor_region(region);
    rig.engine.set_free_levels(3);
    assert_eq!(rig.call(&[]), Ok(0x8581_8C83), "each level, and the carry flag above it");
    assert_eq!(rig.log(), ["level 5", "level 1", "level 12"], "one below 3, and two above all before them");
    assert_eq!(rig.call(&[]), Ok(0x8581_8C83));
    assert_eq!(rig.log()[3..], ["level 1"], "the only one below 3");
    assert_eq!(rig.engine.highest_level(), 12);
    let mut mirrored = [0];
    rig.engine.read_bytes(region + 0x50, &mut mirrored).unwrap();
    assert_eq!((rig.engine.level(), mirrored[0]), (3, 3), "the control region says the same");
}

#[test]
fn device_memory_is_learned_and_every_form_of_access_reaches_it() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(dword_ptr(rcx), 0x1234_5678).unwrap();
        a.mov(eax, dword_ptr(rcx)).unwrap();
        a.or(dword_ptr(rcx + 4), 0x80).unwrap();
        a.movzx(edx, byte_ptr(rcx + 1)).unwrap();
        a.add(eax, edx).unwrap();
        a.test(byte_ptr(rcx + 4), 0x80).unwrap();
        let mut clear = a.create_label();
        a.je(clear).unwrap();
        a.inc(eax).unwrap();
        a.set_label(&mut clear).unwrap();
        a.ret().unwrap();
    }));
    let expected = 0x1234_5678 + 0x56 + 1;
    assert_eq!(rig.call(&[DEVICE.base + 0x40]), Ok(expected));
    let at = DEVICE.base + 0x40;
    let accesses = [
        format!("write {at:#x} 4 [78, 56, 34, 12]"),
        format!("read {at:#x} 4"),
        format!("read {:#x} 4", at + 4),
        format!("write {:#x} 4 [80, 0, 0, 0]", at + 4),
        format!("read {:#x} 1", at + 1),
        format!("read {:#x} 1", at + 4),
    ];
    assert_eq!(rig.log(), accesses);
    assert_eq!(rig.call(&[DATA]), Ok(expected), "the same sites work on memory");
    assert_eq!(rig.log().len(), accesses.len());
    assert_eq!(rig.engine.now(), 18, "learning does not change the clock");
}

#[test]
fn shared_data_at_its_fixed_address_can_be_read() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rax, SHARED_DATA.base + 0x320).unwrap();
        a.mov(rax, qword_ptr(rax)).unwrap();
        a.ret().unwrap();
    }));
    rig.device.borrow_mut()[0x320] = 77;
    assert_eq!(rig.call(&[]), Ok(77));
}

#[test]
fn string_moves_reach_devices_element_by_element() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(rdi, rcx).unwrap();
        a.mov(rsi, rdx).unwrap();
        a.mov(ecx, 3).unwrap();
        a.rep().movsd().unwrap();
        a.mov(rax, rcx).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.write_bytes(DATA, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]).unwrap();
    assert_eq!(rig.call(&[DEVICE.base, DATA]), Ok(0));
    assert_eq!(rig.device.borrow()[..12], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(rig.call(&[DATA + 0x100, DATA]), Ok(0), "and memory at full speed");
}

fn fault_of(build: impl FnOnce(&mut CodeAssembler)) -> (engine::Fault, u64) {
    let rig = Rig::new(&assemble(build));
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
    (rig.the_fault(), rig.engine.now())
}

#[test]
fn a_wild_write_is_told_at_its_instruction() {
    let (fault, retired) = fault_of(|a| {
        a.mov(ebx, 0xDEAD).unwrap();
        a.mov(eax, 5).unwrap();
        a.mov(dword_ptr(rbx), eax).unwrap();
        a.mov(ecx, 6).unwrap();
        a.ret().unwrap();
    });
    assert_eq!((fault.kind, fault.address, fault.caller.rip), (FaultKind::Write, 0xDEAD, CODE + 10));
    assert_eq!(fault.caller.registers.general[0], 5);
    assert_eq!(retired, 2, "the faulting instruction has not retired");
}

#[test]
fn a_null_call_is_told_at_the_call() {
    let (fault, _) = fault_of(|a| {
        a.xor(eax, eax).unwrap();
        a.call(rax).unwrap();
        a.ret().unwrap();
    });
    assert_eq!((fault.kind, fault.address, fault.caller.rip), (FaultKind::Execute, 0, CODE + 2));
}

#[test]
fn a_return_to_nowhere_is_told_at_the_return() {
    let (fault, _) = fault_of(|a| {
        a.mov(qword_ptr(rsp), 0x4242).unwrap();
        a.ret().unwrap();
    });
    assert_eq!((fault.kind, fault.address, fault.caller.rip), (FaultKind::Execute, 0x4242, CODE + 8));
}

#[test]
fn endless_recursion_ends_at_the_guard_of_the_stack() {
    let (fault, _) = fault_of(|a| {
        let mut f = a.create_label();
        a.set_label(&mut f).unwrap();
        a.call(f).unwrap();
        a.ret().unwrap();
    });
    let guard = STACK_TOP - STACK_SIZE;
    assert_eq!((fault.kind, fault.caller.rip), (FaultKind::Write, CODE));
    assert!((guard - 8..guard).contains(&fault.address), "{fault:?}");
}

#[test]
fn a_division_by_zero_and_an_address_that_is_not_canonical() {
    let (fault, _) = fault_of(|a| {
        a.xor(ecx, ecx).unwrap();
        a.div(ecx).unwrap();
        a.ret().unwrap();
    });
    assert_eq!((fault.kind, fault.caller.rip), (FaultKind::Divide, CODE + 2));
    let (fault, _) = fault_of(|a| {
        a.mov(rax, 0x8000_0000_0000u64).unwrap();
        a.mov(cl, byte_ptr(rax + 4)).unwrap();
        a.ret().unwrap();
    });
    assert_eq!((fault.kind, fault.address), (FaultKind::NonCanonical, 0x8000_0000_0004));
}

#[test]
fn system_calls_and_privileged_instructions_never_reach_the_host() {
    let rig = Rig::new(&assemble(|a| {
        a.mov(eax, 60).unwrap();
        a.syscall().unwrap();
        a.lgdt(rcx + 0).unwrap();
        a.swapgs().unwrap();
        a.invd().unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(rig.call(&[DATA]), Ok(60));
    let asked = ["SystemCall", "GlobalTable", "ProcessorBlock", "Caches"];
    assert_eq!(rig.log().len(), asked.len());
    for (line, what) in rig.log().iter().zip(asked) {
        assert!(line.starts_with(&format!("TakeOver({what}, ")), "the guest judges it: {line}");
    }
    drop(rig);
    let (fault, _) = fault_of(|a| {
        a.sysenter().unwrap();
        a.ret().unwrap();
    });
    assert_eq!((fault.kind, fault.what), (FaultKind::Protection, "SYSENTER"));
    let (fault, _) = fault_of(|a| {
        a.vmcall().unwrap();
        a.ret().unwrap();
    });
    assert_eq!(fault.kind, FaultKind::InvalidOpcode);
    let (fault, _) = fault_of(|a| {
        a.ud2().unwrap();
    });
    assert_eq!((fault.kind, fault.caller.rip), (FaultKind::InvalidOpcode, CODE));
}

#[test]
fn an_endless_loop_is_cut_into_slices() {
    let rig = Rig::new(&assemble(|a| {
        let mut f = a.create_label();
        a.set_label(&mut f).unwrap();
        a.jmp(f).unwrap();
    }));
    rig.engine.set_slice(1_000_000);
    *rig.on_slice.borrow_mut() = Some(Box::new(|rig| {
        assert_eq!(rig.engine.now(), 1_000_000);
        assert_eq!(rig.engine.caller().unwrap().rip, CODE);
        Err(Leave::Stop)
    }));
    assert_eq!(rig.call(&[]), Err(Leave::Stop));
}

#[test]
fn code_that_changes_itself_runs_as_changed() {
    let code = assemble(|a| {
        a.mov(eax, 1).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::new(&code);
    assert_eq!(rig.call(&[]), Ok(1));
    rig.engine.protect(CODE, 0x1000, engine::Protection { read: true, write: true, execute: true });
    assert_eq!(rig.call(&[]), Ok(1));
    rig.engine.write_bytes(CODE + 1, &[2]).unwrap();
    assert_eq!(rig.call(&[]), Ok(2), "written by the kernel");
    let writer = iced_writer();
    rig.load(CODE + 0x10_0000, &writer);
    assert_eq!(rig.call_at(CODE + 0x10_0000, &[CODE + 1, 3]), Ok(0));
    assert_eq!(rig.call(&[]), Ok(3), "written by the driver");
}

fn iced_writer() -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    a.mov(byte_ptr(rcx), dl).unwrap();
    a.xor(eax, eax).unwrap();
    a.ret().unwrap();
    a.assemble(CODE + 0x10_0000).unwrap()
}
