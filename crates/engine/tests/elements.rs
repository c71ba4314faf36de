//! Masked moves and gathers touch the elements that their masks name, and no others: at the end of what is mapped, through
//! pointers to nowhere, on devices.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; what is not tested is said"
)]

use engine::windows::{DEVICE, PAGE, SYSTEM};
use engine::{Cpu, FaultKind, Leave};
use iced_x86::code_asm::*;
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register as R};

use super::rig::{CODE, DATA, DATA_SIZE, Rig, assemble};

/// Where `ymm1`, the mask, and `ymm2`, the index, are loaded from.
const MASK: u64 = DATA + 0x100;
const INDEX: u64 = DATA + 0x140;
/// Where `ymm0` is loaded from before, and stored after.
const VALUES: u64 = DATA + 0x180;
const AFTER: u64 = DATA + 0x1C0;
/// Where the page behind the data would be.
const END: u64 = DATA + DATA_SIZE;

/// One instruction on memory at `rcx`, with `ymm0`, `ymm1` and `ymm2` (also as `ymm10` to `ymm12`) loaded before.
struct Kind {
    name: &'static str,
    make: fn(&mut CodeAssembler) -> Result<(), IcedError>,
    /// Of an element.
    bytes: u64,
    elements: u64,
    /// Of an element of the index; 0 without one.
    index: u64,
    stores: bool,
}

const fn moves(
    name: &'static str,
    bytes: u64,
    elements: u64,
    stores: bool,
    make: fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Kind {
    Kind { name, make, bytes, elements, index: 0, stores }
}

const fn gathers(
    name: &'static str,
    bytes: u64,
    elements: u64,
    index: u64,
    make: fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Kind {
    Kind { name, make, bytes, elements, index, stores: false }
}

/// A gather from `rcx` and twice an index. iced's assembler has those of AVX-512 only.
fn gather(a: &mut CodeAssembler, code: Code, [into, index, mask]: [R; 3]) -> Result<(), IcedError> {
    let memory = MemoryOperand::with_base_index_scale(R::RCX, index, 2);
    a.add_instruction(Instruction::with3(code, into, memory, mask)?)
}

const KINDS: &[Kind] = &[
    moves("VMASKMOVPS", 4, 8, false, |a| a.vmaskmovps(ymm0, ymm1, ymmword_ptr(rcx))),
    moves("VMASKMOVPS", 4, 8, true, |a| a.vmaskmovps(ymmword_ptr(rcx), ymm1, ymm0)),
    moves("VMASKMOVPD", 8, 2, false, |a| a.vmaskmovpd(xmm0, xmm1, xmmword_ptr(rcx))),
    moves("VMASKMOVPD", 8, 4, true, |a| a.vmaskmovpd(ymmword_ptr(rcx), ymm11, ymm0)),
    moves("VPMASKMOVD", 4, 4, false, |a| a.vpmaskmovd(xmm0, xmm11, xmmword_ptr(rcx))),
    moves("VPMASKMOVQ", 8, 4, true, |a| a.vpmaskmovq(ymmword_ptr(rcx), ymm1, ymm0)),
    moves("MASKMOVDQU", 1, 16, true, |a| {
        a.mov(rdi, rcx)?;
        a.maskmovdqu(xmm0, xmm1)
    }),
    moves("VMASKMOVDQU", 1, 16, true, |a| {
        a.mov(rdi, rcx)?;
        a.vmaskmovdqu(xmm0, xmm11)
    }),
    moves("MASKMOVQ", 1, 8, true, |a| {
        a.movq(mm0, qword_ptr(rdx + (VALUES - DATA) as i32))?;
        a.movq(mm5, qword_ptr(rdx + (MASK - DATA) as i32))?;
        a.mov(rdi, rcx)?;
        a.maskmovq(mm0, mm5)?;
        a.emms()
    }),
    gathers("VGATHERDPS", 4, 8, 4, |a| {
        gather(a, Code::VEX_Vgatherdps_ymm_vm32y_ymm, [R::YMM0, R::YMM2, R::YMM1])
    }),
    gathers("VPGATHERDD", 4, 4, 4, |a| {
        gather(a, Code::VEX_Vpgatherdd_xmm_vm32x_xmm, [R::XMM0, R::XMM12, R::XMM1])
    }),
    gathers("VGATHERDPD", 8, 4, 4, |a| {
        gather(a, Code::VEX_Vgatherdpd_ymm_vm32x_ymm, [R::YMM0, R::XMM2, R::YMM11])
    }),
    gathers("VPGATHERDQ", 8, 2, 4, |a| {
        gather(a, Code::VEX_Vpgatherdq_xmm_vm32x_xmm, [R::XMM0, R::XMM2, R::XMM1])
    }),
    gathers("VPGATHERQD", 4, 4, 8, |a| {
        gather(a, Code::VEX_Vpgatherqd_xmm_vm64y_xmm, [R::XMM0, R::YMM12, R::XMM1])
    }),
    gathers("VGATHERQPS", 4, 2, 8, |a| {
        gather(a, Code::VEX_Vgatherqps_xmm_vm64x_xmm, [R::XMM0, R::XMM2, R::XMM11])
    }),
    gathers("VGATHERQPD", 8, 4, 8, |a| {
        gather(a, Code::VEX_Vgatherqpd_ymm_vm64y_ymm, [R::YMM0, R::YMM2, R::YMM1])
    }),
    gathers("VPGATHERQQ", 8, 2, 8, |a| {
        gather(a, Code::VEX_Vpgatherqq_xmm_vm64x_xmm, [R::XMM0, R::XMM2, R::XMM1])
    }),
];

impl Kind {
    /// The machine with its code; `rcx` is the operand, `rdx` the data. None if the host cannot run it.
    fn machine(&self) -> Option<Rig> {
        let missing = Cpu::X86_64V3.missing();
        if !missing.is_empty() {
            eprintln!("{} is not run: this host lacks {missing:?}", self.name);
            return None;
        }
        let offset = |address: u64| (address - DATA) as i32;
        let rig = Rig::new(&assemble(|a| {
            a.push(rdi).unwrap();
            for (one, other, from) in [(ymm0, ymm10, VALUES), (ymm1, ymm11, MASK), (ymm2, ymm12, INDEX)] {
                a.vmovdqu(one, ptr(rdx + offset(from))).unwrap();
                a.vmovdqu(other, one).unwrap();
            }
            (self.make)(a).unwrap();
            a.vmovdqu(ptr(rdx + offset(AFTER)), ymm0).unwrap();
            a.pop(rdi).unwrap();
            a.ret().unwrap();
        }));
        rig.engine.imitate(Cpu::X86_64V3);
        Some(rig)
    }

    /// Lays out a mask with these elements; the others have all bits but the one that counts.
    fn mask(&self, rig: &Rig, named: impl Fn(u64) -> bool) {
        let mask: Vec<u8> = (0..self.elements * self.bytes)
            .map(|byte| match (named(byte / self.bytes), byte % self.bytes == self.bytes - 1) {
                (true, last) => u8::from(last) << 7,
                (false, last) => {
                    if last {
                        0x7F
                    } else {
                        0xFF
                    }
                }
            })
            .collect();
        rig.engine.write_bytes(MASK, &mask).unwrap();
    }

    /// An element's address minus the operand's; a gather's index goes backwards, by halves of it.
    fn distance(&self, element: u64) -> u64 {
        let forwards = element * self.bytes;
        if self.index == 0 { forwards } else { forwards.wrapping_neg() }
    }

    fn index(&self, rig: &Rig) {
        let lanes = (0..self.elements).flat_map(|element| {
            let half = self.distance(element).cast_signed() / 2;
            half.to_le_bytes()[..self.index as usize].to_vec()
        });
        rig.engine.write_bytes(INDEX, &lanes.collect::<Vec<u8>>()).unwrap();
    }

    /// Where the operand is to be for an element to begin at `address`.
    fn base(&self, element: u64, address: u64) -> u64 {
        address.wrapping_sub(self.distance(element))
    }

    fn run(&self, rig: &Rig, base: u64) -> Result<u64, Leave> {
        self.index(rig);
        rig.engine.write_bytes(VALUES, &[0x5A; 32]).unwrap();
        rig.call(&[base, DATA])
    }
}

#[test]
fn what_a_mask_leaves_out_is_not_touched_whatever_lies_there() {
    // Of those that go by bytes Intel's manual says that they may fault all the same.
    for kind in KINDS.iter().filter(|kind| kind.bytes > 1) {
        let Some(rig) = kind.machine() else { return };
        // The last element that is mapped, with the rest behind the end; then nothing at all, nowhere.
        let last = if kind.index == 0 { 1 } else { kind.elements - 1 };
        let inside = |element: u64| if kind.index == 0 { element <= last } else { element >= last };
        rig.engine.write_bytes(END - 16, &[0x11; 16]).unwrap();
        kind.mask(&rig, inside);
        assert!(kind.run(&rig, kind.base(last, END - kind.bytes)).is_ok(), "{}: {:?}", kind.name, rig.fault);
        let (mut bytes, from) =
            ([0; 16], if kind.stores { END - kind.bytes } else { AFTER + last * kind.bytes });
        rig.engine.read_bytes(from, &mut bytes[..kind.bytes as usize]).unwrap();
        let expected = if kind.stores { 0x5A } else { 0x11 };
        assert!(
            bytes[..kind.bytes as usize].iter().all(|byte| *byte == expected),
            "{} {bytes:x?}",
            kind.name
        );
        kind.mask(&rig, |_| false);
        for nowhere in [0, 0x4141_4141_4141, DEVICE.base + 0x40, 0x8000_0000_0000, CODE] {
            assert!(kind.run(&rig, nowhere).is_ok(), "{} at {nowhere:#x}: {:?}", kind.name, rig.fault);
        }
        assert_eq!(rig.log().iter().filter(|line| !line.starts_with("Extended")).count(), 0);
    }
}

#[test]
fn an_element_that_is_not_there_is_a_fault_at_its_address() {
    for kind in KINDS {
        let Some(rig) = kind.machine() else { return };
        let what = if kind.stores { FaultKind::Write } else { FaultKind::Read };
        for element in [0, 1, kind.elements - 1] {
            kind.mask(&rig, |each| each == element);
            for (address, what) in [
                (END, what),
                (0x1008, what),
                (0x9000_0000_0000, FaultKind::NonCanonical),
                (SYSTEM.base + 0x900_0000, what),
            ] {
                assert_eq!(kind.run(&rig, kind.base(element, address)), Err(Leave::Stop));
                let fault = rig.the_fault();
                assert_eq!((fault.kind, fault.address), (what, address), "{}, {element}", kind.name);
                assert!(fault.caller.rip > CODE, "{}", kind.name);
            }
        }
    }
}

/// A gather that faults has loaded the elements before, and has taken them out of its mask.
#[test]
fn once_the_missing_page_is_there_they_go_on_as_if_it_had_been() {
    for kind in KINDS {
        let Some(rig) = kind.machine() else { return };
        *rig.on_fault.borrow_mut() = Some(Box::new(|rig, fault| {
            assert!((END..END + PAGE).contains(&fault.address), "{fault:?}");
            rig.map(END, PAGE);
            rig.engine.write_bytes(END, &[0x77; 64]).unwrap();
            rig.engine.resume_at(1, &rig.engine.contexts()[0])
        }));
        kind.mask(&rig, |_| true);
        let half = kind.bytes * kind.elements / 2;
        let base = if kind.index == 0 { END - half } else { END + half - kind.bytes };
        let run = || {
            rig.engine.write_bytes(END - 64, &[0x33; 64]).unwrap();
            let before = rig.engine.now();
            assert!(kind.run(&rig, base).is_ok(), "{}: {:?}", kind.name, rig.fault);
            let (mut register, mut memory) = ([0; 32], [0; 128]);
            rig.engine.read_bytes(AFTER, &mut register).unwrap();
            rig.engine.read_bytes(END - 64, &mut memory).unwrap();
            (register, memory, rig.engine.now() - before)
        };
        let mended = run();
        assert!(rig.fault.take().is_some(), "{}", kind.name);
        rig.engine.write_bytes(END, &[0x77; 64]).unwrap();
        assert_eq!(mended, run(), "{}", kind.name);
        assert!(rig.fault.take().is_none());
        let both = if kind.stores { mended.1.to_vec() } else { mended.0.to_vec() };
        let (one, other) = if kind.stores { (0x33, 0x77) } else { (0x77, 0x33) };
        assert!(both.contains(&one) && both.contains(&other), "{}: {mended:x?}", kind.name);
    }
}

#[test]
fn on_a_device_they_are_refused_by_name_and_the_device_sees_nothing() {
    for kind in KINDS {
        let Some(rig) = kind.machine() else { return };
        for element in [0, kind.elements - 1] {
            kind.mask(&rig, |each| each == element);
            for _ in 0..2 {
                let address = DEVICE.base + 0x800;
                assert_eq!(kind.run(&rig, kind.base(element, address)), Err(Leave::Stop));
                let fault = rig.the_fault();
                assert_eq!(
                    (fault.kind, fault.address),
                    (FaultKind::NotImplemented, address),
                    "{}",
                    kind.name
                );
                assert!(fault.what.starts_with(kind.name), "{} is called {}", kind.name, fault.what);
            }
            assert!(kind.run(&rig, kind.base(element, DATA + 0x800)).is_ok(), "it may go on elsewhere");
        }
        assert_eq!(rig.log().iter().filter(|line| !line.starts_with("Extended")).count(), 0);
    }
}

#[test]
fn whole_registers_reach_a_device_in_one_access() {
    let missing = Cpu::X86_64V3.missing();
    if !missing.is_empty() {
        return eprintln!("skipped: this host lacks {missing:?}");
    }
    let rig = Rig::new(&assemble(|a| {
        a.vmovdqu(ymm7, ptr(rdx)).unwrap();
        a.vmovdqu(ptr(rcx), ymm7).unwrap();
        a.vpaddd(ymm12, ymm7, ptr(rcx)).unwrap();
        a.vbroadcastss(ymm3, dword_ptr(rcx + 28)).unwrap();
        a.vextracti128(ptr(rcx + 0x40), ymm12, 1).unwrap();
        a.vpaddd(ymm12, ymm12, ymm3).unwrap();
        a.vmovdqu(ptr(rdx + 0x20), ymm12).unwrap();
        a.ret().unwrap();
    }));
    rig.engine.imitate(Cpu::X86_64V3);
    let before: Vec<u8> = (1..9u32).flat_map(|lane| (lane << 16).to_le_bytes()).collect();
    for (run, slice) in [u64::MAX, u64::MAX, 1].into_iter().enumerate() {
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            rig.engine.set_slice(slice);
            Ok(())
        }));
        rig.engine.set_slice(slice);
        rig.engine.write_bytes(DATA, &before).unwrap();
        rig.log.borrow_mut().clear();
        rig.call(&[DEVICE.base, DATA]).unwrap();
        let accesses: Vec<String> =
            rig.log().into_iter().filter(|line| !line.starts_with("Extended")).collect();
        let high: Vec<u8> = (5..9u32).flat_map(|lane| (lane << 17).to_le_bytes()).collect();
        let (at, above) = (DEVICE.base, DEVICE.base + 0x40);
        let expected = [
            format!("write {at:#x} 32 {before:x?}"),
            format!("read {at:#x} 32"),
            format!("read {:#x} 4", at + 28),
            format!("write {above:#x} 16 {high:x?}"),
        ];
        assert_eq!(accesses, expected, "run {run}");
        let mut after = [0; 32];
        rig.engine.read_bytes(DATA + 0x20, &mut after).unwrap();
        let expected: Vec<u8> = (1..9u32).flat_map(|lane| ((lane << 17) + (8 << 16)).to_le_bytes()).collect();
        assert_eq!(after.to_vec(), expected, "run {run}");
    }
}
