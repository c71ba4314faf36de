//! The ways between driver and host: a call, an import, a device access, a level, a translation.

use std::hint::black_box;

use engine::Stack;
use engine::windows::DEVICE;
use iced_x86::code_asm::{
    CodeAssembler, CodeLabel, al, byte_ptr, cr8, dword_ptr, dx, eax, ecx, edx, qword_ptr, rax, rbx, rcx, rsp,
};

use crate::rig::{CODE, EXPORTS, Rig, STACK_TOP, assemble};
use crate::{Figure, sampled};

const SAMPLES: u32 = 2000;
const REPEATS: u32 = 1_000;

pub(crate) fn all() -> Vec<Figure> {
    type Measure = fn() -> Figure;
    let all: [(&str, Measure); 6] = [
        ("engine_call", call),
        ("engine_gate", gate),
        ("engine_mmio_read", mmio),
        ("engine_port_read", port),
        ("engine_cr8", level),
        ("translate_instruction", translation),
    ];
    all.into_iter().filter(|(name, _)| crate::wanted(name)).map(|(_, measure)| measure()).collect()
}

fn call() -> Figure {
    let rig = Rig::new(&[0xC3]);
    let samples = rig.host.run(&rig, || {
        let work = |repeats| {
            (0..repeats).for_each(|_| {
                black_box(rig.engine.call(CODE, &[0, 0], Stack::At(STACK_TOP)).unwrap());
            });
        };
        let samples = sampled(SAMPLES, REPEATS, work);
        engine::outside(|| samples.clone())
    });
    Figure::new("engine_call", "ns", samples)
}

/// A loop of `repeats` (in `ecx`) around `body`.
fn looped(name: &str, body: impl FnOnce(&mut CodeAssembler)) -> Figure {
    let code = assemble(|a| {
        let mut head: CodeLabel = a.create_label();
        a.push(rbx).unwrap();
        a.sub(rsp, 0x20).unwrap();
        a.mov(rbx, rcx).unwrap();
        a.set_label(&mut head).unwrap();
        body(a);
        a.dec(rbx).unwrap();
        a.jne(head).unwrap();
        a.add(rsp, 0x20).unwrap();
        a.pop(rbx).unwrap();
        a.ret().unwrap();
    });
    let rig = Rig::quiet(&code);
    rig.engine.define_export(EXPORTS, 0);
    rig.map(EXPORTS & !0xFFF, 0x1000);
    let work = |repeats: u32| {
        black_box(rig.call(&[repeats.into()]).unwrap());
    };
    Figure::new(name, "ns", sampled(SAMPLES, REPEATS, work))
}

fn gate() -> Figure {
    looped("engine_gate", |a| a.call(EXPORTS).unwrap())
}

fn mmio() -> Figure {
    looped("engine_mmio_read", |a| {
        a.mov(rax, DEVICE.base).unwrap();
        a.mov(ecx, dword_ptr(rax + 0x10)).unwrap();
    })
}

fn port() -> Figure {
    looped("engine_port_read", |a| {
        a.mov(edx, 0x1000).unwrap();
        a.in_(eax, dx).unwrap();
    })
}

fn level() -> Figure {
    looped("engine_cr8", |a| {
        a.mov(rax, cr8).unwrap();
        a.mov(ecx, 2).unwrap();
        a.mov(cr8, rcx).unwrap();
        a.mov(cr8, rax).unwrap();
    })
}

/// What a compiler makes, spread over many short blocks, translated from nothing.
fn translation() -> Figure {
    let blocks = 2_000u32;
    let per_block = 8;
    let code = assemble(|a| {
        for _ in 0..blocks {
            let mut next = a.create_label();
            a.mov(rax, qword_ptr(rcx + 8)).unwrap();
            a.add(rax, rbx).unwrap();
            a.mov(qword_ptr(rcx + 16), rax).unwrap();
            a.movzx(edx, byte_ptr(rcx + 3)).unwrap();
            a.lea(rax, qword_ptr(rax + rdx_times_two())).unwrap();
            a.test(al, al).unwrap();
            a.je(next).unwrap();
            a.set_label(&mut next).unwrap();
            a.nop().unwrap();
        }
        a.ret().unwrap();
    });
    let rig = Rig::quiet(&code);
    let mut data = [0u8; 8];
    data[0] = 1;
    rig.engine.write_bytes(crate::rig::DATA, &data).unwrap();
    let work = |_| {
        rig.engine.protect(CODE, 0x1000, engine::Protection::READ_EXECUTE); // drops all translations
        rig.call(&[crate::rig::DATA]).unwrap();
    };
    let samples = sampled(60, 1, work).into_iter().map(|ns| ns / f64::from(blocks * per_block)).collect();
    Figure::new("translate_instruction", "ns", samples)
}

fn rdx_times_two() -> iced_x86::code_asm::AsmMemoryOperand {
    iced_x86::code_asm::rdx * 2
}
