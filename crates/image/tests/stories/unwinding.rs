//! From anywhere in a function, one step up gives its caller's registers.
//!
//! Functions are written as instructions with a meaning: they are run by a few lines here, and at each instruction the
//! unwinder, which sees only code, unwind data and stack, must find what the caller had.

use std::collections::BTreeMap;

use image::Image;
use image::unwind::{FunctionEntry, RSP, UnwindRegisters, step};

use crate::assemble::{READ_ONLY, tiny, words};

const BASE: u64 = 0x7000_0000_0000;
const BEGIN: u32 = 0x1010;
const RETURN: u64 = 0x7123_4567_89ab;
const EXCEPTION: usize = 3;
const RBX: usize = 3;
const RBP: usize = 5;
const RSI: usize = 6;
const R13: usize = 13;
const R15: usize = 15;

#[derive(Clone, Copy)]
enum Do {
    Push(usize),
    Allocate(u32),
    SetFrame(usize, u8),
    Save(usize, u32),
    SaveXmm(usize, u32),
    /// The body changes a register.
    Change(usize),
    /// The body changes an XMM register.
    ChangeXmm(usize),
    /// The body allocates more (`alloca`).
    More(u32),
    Free(u32),
    FreeByFrame(usize, u8),
    Pop(usize),
    Return,
    JumpOut,
    /// A jump within the function, which is not taken here.
    JumpBack,
}

use Do::*;

impl Do {
    fn code(self) -> Vec<u8> {
        let byte = |value: usize| u8::try_from(value).expect("a byte");
        let low = |register: usize| byte(register & 7);
        let high = |register: usize| byte(register >> 3);
        let long = |head: &[u8], n: u32| [head, &n.to_le_bytes()].concat();
        match self {
            Push(r) => [vec![0x41; r >> 3], vec![0x50 | low(r)]].concat(),
            Pop(r) => [vec![0x41; r >> 3], vec![0x58 | low(r)]].concat(),
            Allocate(n) | More(n) => long(&[0x48, 0x81, 0xec], n),
            Free(n) if n < 128 => vec![0x48, 0x83, 0xc4, n.to_le_bytes()[0]],
            Free(n) => long(&[0x48, 0x81, 0xc4], n),
            SetFrame(r, n) => vec![0x48 | high(r) << 2, 0x8d, 0x44 | low(r) << 3, 0x24, n],
            FreeByFrame(r, n) => vec![0x48 | high(r), 0x8d, 0x60 | low(r), n.wrapping_neg()],
            Save(r, n) => long(&[0x48 | high(r) << 2, 0x89, 0x84 | low(r) << 3, 0x24], n),
            SaveXmm(r, n) => long(&[0x40 | high(r) << 2, 0x0f, 0x29, 0x84 | low(r) << 3, 0x24], n),
            Change(r) => long(&[0x48 | high(r), 0xc7, 0xc0 | low(r)], 0x55),
            ChangeXmm(r) => vec![0x40 | (5 * high(r)), 0x0f, 0x57, 0xc0 | (9 * low(r))],
            Return => vec![0xc3],
            JumpOut => long(&[0xe9], 0x1000),
            JumpBack => vec![0xeb, 0xf0],
        }
    }

    fn run(self, at: &mut UnwindRegisters, stack: &mut BTreeMap<u64, u64>) {
        let rsp = at.rsp();
        let low = |value: u128| u64::try_from(value & u128::from(u64::MAX)).expect("masked");
        match self {
            Push(r) => {
                at.general[RSP] = rsp - 8;
                stack.insert(rsp - 8, at.general[r]);
            }
            Pop(r) => {
                at.general[RSP] = rsp + 8;
                at.general[r] = stack[&rsp];
            }
            Allocate(n) | More(n) => at.general[RSP] = rsp - u64::from(n),
            Free(n) => at.general[RSP] = rsp + u64::from(n),
            SetFrame(r, n) => at.general[r] = rsp + u64::from(n),
            FreeByFrame(r, n) => at.general[RSP] = at.general[r] - u64::from(n),
            Save(r, n) => drop(stack.insert(rsp + u64::from(n), at.general[r])),
            SaveXmm(r, n) => {
                stack.insert(rsp + u64::from(n), low(at.xmm[r]));
                stack.insert(rsp + u64::from(n) + 8, low(at.xmm[r] >> 64));
            }
            Change(r) => at.general[r] = 0x55,
            ChangeXmm(r) => at.xmm[r] = 0,
            Return | JumpOut | JumpBack => {}
        }
    }

    /// The unwind code's slots, for an instruction that ends `at` bytes into the prolog.
    fn slots(self, at: u8) -> Vec<u8> {
        let slot = |code: u8, operand: usize, rest: &[u16]| {
            let head = [at, code | u8::try_from(operand).expect("4 bits") << 4];
            [&head[..], &rest.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()].concat()
        };
        let word = |n: u32| u16::try_from(n).expect("a word");
        let halves = |n: u32| [word(n & 0xffff), word(n >> 16)];
        match self {
            Push(r) => slot(0, r, &[]),
            Allocate(n) if n <= 128 => slot(2, n as usize / 8 - 1, &[]),
            Allocate(n) if n < 0x8_0000 => slot(1, 0, &[word(n / 8)]),
            Allocate(n) => slot(1, 1, &halves(n)),
            SetFrame(..) => slot(3, 0, &[]),
            Save(r, n) if n < 0x8_0000 => slot(4, r, &[word(n / 8)]),
            Save(r, n) => slot(5, r, &halves(n)),
            SaveXmm(r, n) if n < 0x10_0000 => slot(8, r, &[word(n / 16)]),
            SaveXmm(r, n) => slot(9, r, &halves(n)),
            _ => vec![],
        }
    }
}

/// `UNWIND_INFO` without what follows the codes.
fn unwind_info(flags: u8, prolog: &[Do]) -> Vec<u8> {
    let mut end = 0;
    let mut slots = Vec::new();
    let mut frame = 0;
    for instruction in prolog {
        end += u8::try_from(instruction.code().len()).expect("a short prolog");
        slots.splice(0..0, instruction.slots(end));
        if let SetFrame(register, distance) = instruction {
            frame = u8::try_from(*register).expect("4 bits") | ((distance / 16) << 4);
        }
    }
    let count = u8::try_from(slots.len() / 2).expect("few codes");
    slots.resize(slots.len().next_multiple_of(4), 0);
    [vec![1 | flags << 3, end, count, frame], slots].concat()
}

/// An image with `code` at [`BEGIN`], `xdata` at 2000h and `pdata` at 3000h.
fn image(code: &[u8], xdata: Vec<u8>, pdata: &[u32]) -> Image {
    let mut assembly = tiny().part(".xdata", 0x2000, READ_ONLY, xdata);
    assembly = assembly.part(".pdata", 0x3000, READ_ONLY, words(pdata));
    assembly.parts[0].bytes.truncate(0x10);
    assembly.parts[0].bytes.extend(code);
    assembly.parts[0].bytes.resize(0x400, 0xcc);
    assembly.parts[0].virtual_size = 0x400;
    let size = u32::try_from(4 * pdata.len()).expect("a short table");
    Image::parse("unwound.sys", &assembly.directory(EXCEPTION, 0x3000, size).link()).expect("a sound image")
}

/// The registers just before the function's first instruction, and its return address on the stack.
fn entered() -> (UnwindRegisters, BTreeMap<u64, u64>) {
    let mut at = UnwindRegisters { rip: BASE + u64::from(BEGIN), ..UnwindRegisters::default() };
    for register in 0..16 {
        at.general[register] = 0x1111_0000 + register as u64;
        at.xmm[register] = (0x2222_0000 + register as u128) << 64 | register as u128;
    }
    at.general[RSP] = 0x9000_0000;
    (at, BTreeMap::from([(0x9000_0000, RETURN)]))
}

fn caller() -> UnwindRegisters {
    let (mut at, _) = entered();
    at.rip = RETURN;
    at.general[RSP] += 8;
    at
}

/// Runs the function and unwinds from each of its instructions.
fn unwinds_everywhere(prolog: &[Do], body_and_epilog: &[Do]) {
    let all = [prolog, body_and_epilog].concat();
    let code: Vec<u8> = all.iter().flat_map(|instruction| instruction.code()).collect();
    let end = BEGIN + u32::try_from(code.len()).expect("short");
    let image = image(&code, unwind_info(0, prolog), &[BEGIN, end, 0x2000]);
    let (mut at, mut stack) = entered();
    for (index, instruction) in all.iter().enumerate() {
        let up = step(&image, BASE, &at, &mut |address| stack.get(&address).copied());
        assert_eq!(
            up,
            Some(caller()),
            "at instruction {index}, {:#x} into the function",
            at.rip - BASE - u64::from(BEGIN)
        );
        instruction.run(&mut at, &mut stack);
        at.rip += instruction.code().len() as u64;
    }
}

#[test]
fn pushes_and_an_allocation_are_undone_as_far_as_they_ran() {
    unwinds_everywhere(
        &[Push(RBX), Push(R15), Allocate(0x28)],
        &[Change(RBX), Change(R15), Free(0x28), Pop(R15), Pop(RBX), Return],
    );
}

#[test]
fn allocations_of_every_size() {
    for size in [8, 128, 136, 0x7_fff8, 0x8_0000, 0x1234_5678] {
        unwinds_everywhere(&[Push(RSI), Allocate(size)], &[Change(RSI), Free(size), Pop(RSI), Return]);
    }
}

#[test]
fn a_frame_register_finds_the_frame_whatever_the_body_allocated() {
    for frame in [RBP, R13] {
        unwinds_everywhere(
            &[Push(frame), Push(RBX), Allocate(0x40), SetFrame(frame, 0x20)],
            &[More(0x1230), Change(RBX), FreeByFrame(frame, 0x20), Free(0x40), Pop(RBX), Pop(frame), Return],
        );
    }
}

#[test]
fn registers_saved_by_mov_come_back_near_and_far() {
    for (size, near, far) in [(0x100, 0x40, 0x80), (0x20_0000, 0x9_0000, 0x18_0000)] {
        unwinds_everywhere(
            &[Allocate(size), Save(RSI, near), SaveXmm(6, far), SaveXmm(15, far + 16)],
            &[ChangeXmm(6), ChangeXmm(15), Change(RSI)],
        );
    }
}

#[test]
fn a_tail_call_is_an_epilog_and_a_jump_within_the_function_is_not() {
    unwinds_everywhere(&[Push(RBX), Allocate(0x20)], &[Change(RBX), Free(0x20), Pop(RBX), JumpOut]);
    unwinds_everywhere(&[Push(RBX), Allocate(0x20)], &[Change(RBX), JumpBack, Free(0x20), Pop(RBX), Return]);
}

#[test]
fn a_function_without_unwind_data_is_a_leaf() {
    let image = image(&[0x90, 0xc3], vec![], &[]);
    let (at, stack) = entered();
    assert_eq!(FunctionEntry::find(&image, BEGIN), None);
    assert_eq!(step(&image, BASE, &at, &mut |address| stack.get(&address).copied()), Some(caller()));
}

#[test]
fn a_chained_fragment_undoes_its_own_saves_and_then_its_functions_prolog() {
    let prolog = [Push(RBX), Allocate(0x40)];
    let mut xdata = unwind_info(0, &prolog);
    let second = 0x2000 + u32::try_from(xdata.len()).expect("short");
    xdata.extend(unwind_info(4, &[Save(RSI, 0x30)]));
    xdata.extend(words(&[BEGIN, BEGIN + 0x20, 0x2000]));
    let image =
        image(&[0x90; 0x60], xdata, &[BEGIN, BEGIN + 0x20, 0x2000, BEGIN + 0x20, BEGIN + 0x60, second]);
    let (mut at, mut stack) = entered();
    let before = prolog.iter().chain(&[Save(RSI, 0x30), Change(RSI), Change(RBX)]);
    before.for_each(|instruction| instruction.run(&mut at, &mut stack));
    at.rip = BASE + u64::from(BEGIN) + 0x40;
    assert_eq!(step(&image, BASE, &at, &mut |address| stack.get(&address).copied()), Some(caller()));
    let entry = FunctionEntry::find(&image, BEGIN + 0x40).unwrap();
    assert_eq!((entry.function.begin, entry.primary.begin), (BEGIN + 0x20, BEGIN));
}

#[test]
fn a_machine_frame_gives_instruction_and_stack_pointer_of_what_was_interrupted() {
    for (operand, skip) in [(0, 0), (1, 8)] {
        let image = image(
            &[0x90; 0x10],
            vec![1, 0, 1, 0, 0, 10 | operand << 4, 0, 0],
            &[BEGIN, BEGIN + 0x10, 0x2000],
        );
        let (at, _) = entered();
        let top = at.rsp() + skip;
        let stack = BTreeMap::from([(top, 0x1234), (top + 24, 0x8888_0000)]);
        let up = step(&image, BASE, &at, &mut |address| stack.get(&address).copied()).unwrap();
        assert_eq!((up.rip, up.rsp()), (0x1234, 0x8888_0000));
    }
}

#[test]
fn a_handler_its_data_and_its_frame_are_found() {
    let mut xdata = unwind_info(1, &[Push(RBP), Allocate(0x30), SetFrame(RBP, 0x10)]);
    let data = 0x2000 + u32::try_from(xdata.len()).expect("short") + 4;
    xdata.extend(words(&[0x1000, 1]));
    let image = image(&[0x90; 0x40], xdata, &[BEGIN, BEGIN + 0x40, 0x2000]);
    let entry = FunctionEntry::find(&image, BEGIN + 0x20).unwrap();
    let handler = entry.handler().unwrap();
    assert_eq!((handler.rva, handler.data), (0x1000, data));
    assert!(handler.exceptions && !handler.termination);
    assert!(entry.in_prolog(BEGIN + 1) && !entry.in_prolog(BEGIN + 0x20));
    let mut at = entered().0;
    at.general[RBP] = 0x7777_0010;
    assert_eq!(entry.establisher_frame(&at), 0x7777_0000);
}

#[test]
fn damaged_unwind_data_end_the_walk() {
    let chained_to_itself = [vec![1 | 4 << 3, 0, 0, 0], words(&[BEGIN, BEGIN + 0x10, 0x2000])].concat();
    let cut_off = vec![1, 8, 1, 0, 4, 1, 0, 0];
    let unknown = vec![1, 8, 1, 0, 4, 15, 0, 0];
    let another_version = vec![5, 0, 0, 0];
    let wild_handler = [vec![1 | 1 << 3, 0, 0, 0], words(&[0x8000_0000, 0])].concat();
    for xdata in [chained_to_itself, cut_off, unknown, another_version, wild_handler] {
        let image = image(&[0x90; 0x10], xdata.clone(), &[BEGIN, BEGIN + 0x10, 0x2000]);
        assert_eq!(step(&image, BASE, &entered().0, &mut |_| Some(0)), None, "{xdata:x?}");
    }
    let indirect_to_itself = image(&[0x90; 0x10], vec![0; 16], &[BEGIN, BEGIN + 0x10, 0x3001]);
    assert_eq!(step(&indirect_to_itself, BASE, &entered().0, &mut |_| Some(0)), None);
}

#[test]
fn as_many_codes_as_can_be_written_are_undone() {
    let codes = [vec![1, 0, 255, 0], [0, 2].repeat(255), vec![0; 2]].concat();
    let image = image(&[0x90; 0x10], codes, &[BEGIN, BEGIN + 0x10, 0x2000]);
    let up = step(&image, BASE, &entered().0, &mut |_| Some(0)).unwrap();
    assert_eq!(up.rsp(), caller().rsp() + 255 * 8);
}

#[test]
fn a_stack_that_cannot_be_read_ends_the_walk() {
    let image = image(&[0x90; 0x10], unwind_info(0, &[Push(RBX)]), &[BEGIN, BEGIN + 0x10, 0x2000]);
    assert_eq!(step(&image, BASE, &entered().0, &mut |_| None), None);
}

#[test]
fn an_instruction_outside_the_image_is_not_this_images_business() {
    let image = image(&[0x90], vec![], &[]);
    for rip in [BASE - 1, BASE + u64::from(image.size())] {
        let at = UnwindRegisters { rip, ..entered().0 };
        assert_eq!(step(&image, BASE, &at, &mut |_| Some(0)), None);
    }
}

#[test]
fn a_compiled_function_unwinds_from_its_first_instruction_and_from_its_call() {
    let image = Image::parse("plain.sys", &crate::mingw::driver("plain.c")).unwrap();
    let entry_point = image.entry_point().unwrap();
    let entry = FunctionEntry::find(&image, entry_point).unwrap();
    assert_eq!(entry.primary.begin, entry_point);
    let (mut at, mut stack) = entered();
    at.rip = BASE + u64::from(entry_point);
    assert_eq!(step(&image, BASE, &at, &mut |address| stack.get(&address).copied()), Some(caller()));
    let rsp = 0x8fff_0000;
    stack = (0..0x200).map(|slot| (rsp + 8 * slot, 0xaaaa_0000 + slot)).collect();
    at.general[RSP] = rsp;
    at.rip = BASE + u64::from(entry.function.end) - 0x20;
    let up = step(&image, BASE, &at, &mut |address| stack.get(&address).copied()).unwrap();
    assert_eq!(stack[&(up.rsp() - 8)], up.rip, "the return address is what lies below the caller's stack");
    assert!(up.rsp() > rsp + 8, "the frame has a size");
}
