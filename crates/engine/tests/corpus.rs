//! Whole functions as compilers make them: native and translated results are equal; then in slices of one instruction,
//! with an interrupt routine between any two of them, results and instruction counts still are. Routines that use AVX's,
//! x87's or MMX's registers are interrupted by one that fills the same registers, between a save and a restore of its own.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; what is not tested is said"
)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::{Leave, Protection, Special, Stack, Step};
use image::Image;

use super::corpora::{Compiler, address};
use super::rig::native::Native;
use super::rig::{CODE, DATA, EXPORTS, Rig, STACK_SIZE, STACK_TOP};

/// What `KeSaveExtendedProcessorState` and its counterpart are to these routines.
const SAVE: u64 = EXPORTS + 0x1000;
const RESTORE: u64 = EXPORTS + 0x1010;

/// Who may use extended registers: what runs now has saved them.
#[derive(Default)]
struct Saves {
    saved: Cell<bool>,
    asked: Cell<u64>,
}

impl Saves {
    /// Lets the rig answer by what is saved.
    fn of(rig: &Rig) -> Rc<Self> {
        let saves = Rc::new(Self::default());
        rig.engine.define_export(SAVE, 1);
        rig.engine.define_export(RESTORE, 2);
        let kept = saves.clone();
        *rig.export.borrow_mut() = Some(Box::new(move |rig, number, _| {
            kept.saved.set(number == 1);
            rig.engine.extended_changed();
            Ok(0)
        }));
        let kept = saves.clone();
        *rig.on_special.borrow_mut() = Some(Box::new(move |_, special| {
            assert!(matches!(special, Special::Extended(_)), "{special:?}");
            kept.asked.set(kept.asked.get() + 1);
            if kept.saved.get() { Ok(0) } else { Err(Leave::Stop) }
        }));
        saves
    }
}

/// A machine with the image, on the compiler's processor; none if the host cannot be that.
fn machine(compiler: &Compiler, image: &Image) -> Option<Rig> {
    let missing = compiler.cpu.missing();
    if !missing.is_empty() {
        eprintln!("{} is not run: this host lacks {missing:?}", compiler.name);
        return None;
    }
    let rig = Rig::new(&[0xC3]);
    rig.engine.imitate(compiler.cpu);
    rig.load_image(image);
    Some(rig)
}

/// Runs one function three ways and compares; answers how many instructions it has.
fn compare(rig: &Rig, image: &Image, native: &Native, function: &str, seed: u64) -> u64 {
    let rva = address(image, function);
    let expected = native.call(native.base() + rva, [seed, 0, 0, 0]);
    let saves = Saves::of(rig);
    saves.saved.set(true);
    *rig.on_slice.borrow_mut() = None;
    rig.engine.set_slice(u64::MAX);
    let before = rig.engine.now();
    assert_eq!(
        rig.call_at(CODE + rva, &[seed]),
        Ok(expected),
        "{} {function}: {:?}",
        image.name(),
        rig.fault
    );
    let count = rig.engine.now() - before;
    let extended = saves.asked.take() != 0;
    let (sliced, interrupts) = interrupted_at_every_instruction(rig, image, rva, seed, &saves);
    assert_eq!(sliced.0, expected, "{} {function} in slices of one instruction", image.name());
    assert_eq!(sliced.1, count, "{} {function}: instructions, sliced and whole", image.name());
    assert!(interrupts >= count - 1, "{interrupts} interrupts in {count} instructions");
    assert!(!extended || saves.asked.get() > interrupts, "each routine is asked about by itself");
    let anew = translated_anew_again_and_again(rig, image, rva, seed);
    assert_eq!(anew, (expected, count), "{} {function}, its translations dropped on the way", image.name());
    count
}

/// Result, instructions (those of the interrupt routine left out), and how many interrupts there were.
fn interrupted_at_every_instruction(
    rig: &Rig,
    image: &Image,
    rva: u64,
    seed: u64,
    saves: &Rc<Saves>,
) -> ((u64, u64), u64) {
    let isr = CODE + address(image, "interrupt");
    let isr_time = Rc::new(Cell::new(0));
    let (spent, saves) = (isr_time.clone(), saves.clone());
    rig.engine.write_bytes(DATA, &[0; 8]).unwrap();
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(u64::MAX);
        let before = rig.engine.now();
        saves.saved.set(false);
        rig.engine.call(isr, &[DATA, SAVE, RESTORE], Stack::At(STACK_TOP + 0x1000))?;
        saves.saved.set(true);
        spent.set(spent.get() + rig.engine.now() - before);
        rig.engine.set_slice(1);
        Ok(())
    }));
    rig.engine.set_slice(1);
    let before = rig.engine.now();
    let result = rig.call_at(CODE + rva, &[seed]).expect("it ran whole before");
    let count = rig.engine.now() - before - isr_time.get();
    *rig.on_slice.borrow_mut() = None;
    let mut interrupts = [0; 8];
    rig.engine.read_bytes(DATA, &mut interrupts).unwrap();
    ((result, count), u64::from_le_bytes(interrupts))
}

/// Result and instructions, with all translations of the image dropped after every 13 instructions, wherever that is.
fn translated_anew_again_and_again(rig: &Rig, image: &Image, rva: u64, seed: u64) -> (u64, u64) {
    let text: Vec<(u64, u64)> = image
        .protections()
        .iter()
        .filter(|range| range.protection.execute)
        .map(|range| (CODE + u64::from(range.rva), u64::from(range.size).next_multiple_of(0x1000)))
        .collect();
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        for (address, length) in &text {
            rig.engine.protect(*address, *length, Protection::READ_EXECUTE);
        }
        rig.engine.set_slice(13);
        Ok(())
    }));
    rig.engine.set_slice(13);
    let before = rig.engine.now();
    let result = rig.call_at(CODE + rva, &[seed]).expect("it ran whole before");
    *rig.on_slice.borrow_mut() = None;
    rig.engine.set_slice(u64::MAX);
    (result, rig.engine.now() - before)
}

fn every_function_of(name: &str) {
    let compiler = Compiler::named(name);
    let image = compiler.compile();
    let Some(rig) = machine(compiler, &image) else { return };
    let native = Native::new(0x10_0000);
    native.load(&image.load_at(native.base()).unwrap());
    for function in compiler.functions {
        let instructions: u64 =
            [1, 0x1234_5678_9ABC].iter().map(|s| compare(&rig, &image, &native, function, *s)).sum();
        assert!(instructions > 20, "{function} does something");
    }
}

/// Each encoding that some host's processor runs faster is right on any.
#[test]
fn encoded_for_the_other_maker() {
    engine::encode_for_the_other_maker();
    every_function_of("gcc-O2");
}

#[test]
fn gcc_without_optimisation() {
    every_function_of("gcc-O0");
}

#[test]
fn gcc_optimised() {
    every_function_of("gcc-O2");
}

#[test]
fn gcc_with_retpolines() {
    every_function_of("gcc-Os-retpoline");
}

#[test]
fn rustc_optimised_for_msvc() {
    every_function_of("rustc-O");
}

#[test]
fn clang_without_optimisation_for_msvc() {
    every_function_of("clang-O0");
}

#[test]
fn clang_optimised_for_msvc() {
    every_function_of("clang-O2");
}

#[test]
fn clang_for_avx2() {
    every_function_of("clang-avx2");
}

#[test]
fn gcc_for_x87_and_mmx() {
    every_function_of("gcc-x87");
}

#[test]
fn an_interrupt_routine_that_has_not_saved_stops_before_its_first_use() {
    for (name, function) in [("clang-avx2", "copying"), ("gcc-x87", "series")] {
        let compiler = Compiler::named(name);
        let image = compiler.compile();
        let Some(rig) = machine(compiler, &image) else { continue };
        let saves = Saves::of(&rig);
        saves.saved.set(true);
        let isr = CODE + address(&image, "interrupt");
        let hold = saves.clone();
        *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
            rig.engine.set_slice(u64::MAX);
            hold.saved.set(false);
            // Its save is a call of something else.
            rig.engine.call(isr, &[DATA, RESTORE, RESTORE], Stack::At(STACK_TOP + 0x1000)).map(drop)
        }));
        rig.engine.set_slice(50);
        let ended = rig.call_at(CODE + address(&image, function), &[1]);
        let mut entered = [0; 8];
        rig.engine.read_bytes(DATA, &mut entered).unwrap();
        assert_eq!((ended, u64::from_le_bytes(entered)), (Err(Leave::Stop), 1), "{name}");
    }
}

/// Steps through code and compares what happens with what the engine said of it.
struct Foretold {
    stack: Vec<u8>,
    image: Vec<u8>,
    said: Step,
    inside: u64,
    wrong: Option<String>,
}

impl Foretold {
    fn new(image: &Image) -> Self {
        let image = vec![0; image.load_at(CODE).unwrap().len()];
        Self { stack: vec![0; STACK_SIZE as usize], image, said: Step::Other, inside: 0, wrong: None }
    }

    /// The last step is over, and the next one is asked about.
    fn step(&mut self, rig: &Rig) {
        let state = rig.engine.driver_state().expect("code is being stepped through");
        let wrong = self.judge(rig, state.registers.rsp());
        if let Some(wrong) = wrong.filter(|_| self.wrong.is_none()) {
            self.wrong = Some(format!("before {:#x}: {wrong}; it said {:x?}", state.rip - CODE, self.said));
        }
        self.said = rig.engine.next_step();
        self.inside += u64::from(self.said != Step::Other);
    }

    /// Memory changes only where the instruction may write, and a jump leaves the stack pointer where it was said.
    fn judge(&mut self, rig: &Rig, rsp: u64) -> Option<String> {
        let mut changed = changes(rig, STACK_TOP - STACK_SIZE, &mut self.stack);
        changed.extend(changes(rig, CODE, &mut self.image));
        let Step::Inside { stores, lands, .. } = self.said else { return None };
        let is_foretold = |address: &u64| {
            stores.iter().flatten().any(|store| address.wrapping_sub(store.address) < store.bytes.into())
        };
        if let Some(address) = changed.iter().find(|address| !is_foretold(address)) {
            return Some(format!("{address:#x} changed"));
        }
        lands.filter(|lands| *lands != rsp).map(|_| format!("rsp is {rsp:#x}"))
    }
}

/// The addresses of the bytes that have changed since the last look.
fn changes(rig: &Rig, base: u64, before: &mut Vec<u8>) -> Vec<u64> {
    let mut now = vec![0; before.len()];
    rig.engine.read_bytes(base, &mut now).unwrap();
    let old = std::mem::replace(before, now);
    let changed = (base..).zip(old.iter().zip(before.iter())).filter(|(_, (old, new))| old != new);
    changed.map(|(address, _)| address).collect()
}

#[test]
fn what_an_instruction_reads_and_writes_is_told_before_it_runs() {
    for name in ["gcc-O2", "clang-O0"] {
        let compiler = Compiler::named(name);
        let image = compiler.compile();
        let rig = Rig::new(&[0xC3]);
        rig.load_image(&image);
        for function in ["switching", "callbacks", "memory", "variadic", "floating"] {
            let foretold = Rc::new(RefCell::new(Foretold::new(&image)));
            let hold = foretold.clone();
            *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
                engine::outside(|| hold.borrow_mut().step(rig));
                rig.engine.set_slice(1);
                Ok(())
            }));
            rig.engine.set_slice(1);
            rig.call_at(CODE + address(&image, function), &[77]).expect("it runs");
            *rig.on_slice.borrow_mut() = None;
            let foretold = foretold.borrow();
            assert_eq!(foretold.wrong, None, "{name} {function}");
            assert!(foretold.inside > 20, "{name} {function}: {} were foretold", foretold.inside);
        }
    }
}
