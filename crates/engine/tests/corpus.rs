//! Whole functions as compilers make them: native and translated results are equal; then in slices of one instruction,
//! with an interrupt routine between any two of them, results and instruction counts still are.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod rig;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use engine::{Protection, Stack, Step};
use image::{ExportTarget, Image};
use rig::native::Native;
use rig::{CODE, DATA, Rig, STACK_SIZE, STACK_TOP};

struct Compiler {
    name: &'static str,
    program: &'static str,
    missing: &'static str,
    arguments: &'static [&'static str],
    source: &'static str,
    functions: &'static [&'static str],
}

const C_FUNCTIONS: &[&str] =
    &["crc", "recursion", "sorting", "switching", "floating", "callbacks", "memory", "variadic"];

const MINGW: &str =
    "x86_64-w64-mingw32-gcc is missing: install Debian's gcc-mingw-w64-x86-64, as `cargo xtask test` does";

const fn mingw(name: &'static str, arguments: &'static [&'static str]) -> Compiler {
    let (program, source) = ("x86_64-w64-mingw32-gcc", "corpus.c");
    Compiler { name, program, missing: MINGW, arguments, source, functions: C_FUNCTIONS }
}

const CLANG: &str = "clang-19 is missing: install Debian's clang-19 and lld-19, as `cargo xtask test` does";

const fn clang(name: &'static str, arguments: &'static [&'static str]) -> Compiler {
    let (program, source) = ("clang-19", "corpus.c");
    Compiler { name, program, missing: CLANG, arguments, source, functions: C_FUNCTIONS }
}

const COMPILERS: &[Compiler] = &[
    mingw("gcc-O0", &["-O0"]),
    mingw("gcc-O2", &["-O2"]),
    mingw("gcc-Os-retpoline", &["-Os", "-mindirect-branch=thunk", "-mfunction-return=keep"]),
    clang("clang-O0", &["-O0"]),
    clang("clang-O2", &["-O2"]),
    Compiler {
        name: "rustc-O",
        program: "rustc",
        missing: "rustc is missing, or its x86_64-pc-windows-msvc target (rust-toolchain.toml names it)",
        arguments: &["--edition=2024", "-O"],
        source: "corpus.rs",
        functions: &["slices", "parsing"],
    },
];

impl Compiler {
    fn compile(&self) -> Image {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(self.source);
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("corpus-{}.dll", self.name));
        let mut command = Command::new(self.program);
        command.args(self.arguments).arg(source).arg("-o").arg(&out);
        if self.program == "rustc" {
            command.args(["--target=x86_64-pc-windows-msvc", "-Cpanic=abort", "-Clinker=rust-lld"]);
            command.arg("-Clink-args=/SUBSYSTEM:NATIVE /NODEFAULTLIB /ENTRY:_DllMainCRTStartup");
        } else if self.program == "clang-19" {
            command.args(["--target=x86_64-pc-windows-msvc", "-shared", "-nostdlib", "-ffreestanding"]);
            command.args(["-fuse-ld=lld", "-Wl,/subsystem:native,/noentry,/dynamicbase"]);
        } else {
            command.args(["-shared", "-nostdlib", "-ffreestanding", "-fno-tree-loop-distribute-patterns"]);
            command.args(["-Wl,--subsystem,native", "-Wl,--entry,DllMain", "-Wl,--dynamicbase"]);
        }
        let output = command.output().unwrap_or_else(|_| panic!("{}", self.missing));
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Image::parse(self.name, &std::fs::read(out).unwrap()).unwrap()
    }
}

fn address(image: &Image, name: &str) -> u64 {
    let export = image.export(&image::Selector::Name(name.into())).unwrap_or_else(|| panic!("no {name}"));
    match export.target {
        ExportTarget::Rva(rva) => rva.into(),
        ExportTarget::Forward(_) => panic!("{name} is forwarded"),
    }
}

/// Runs one function three ways and compares; answers how many instructions it has.
fn compare(rig: &Rig, image: &Image, native: &Native, function: &str, seed: u64) -> u64 {
    let rva = address(image, function);
    let expected = native.call(native.base() + rva, [seed, 0, 0, 0]);
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
    let (sliced, interrupts) = interrupted_at_every_instruction(rig, image, rva, seed);
    assert_eq!(sliced.0, expected, "{} {function} in slices of one instruction", image.name());
    assert_eq!(sliced.1, count, "{} {function}: instructions, sliced and whole", image.name());
    assert!(interrupts >= count - 1, "{interrupts} interrupts in {count} instructions");
    let anew = translated_anew_again_and_again(rig, image, rva, seed);
    assert_eq!(anew, (expected, count), "{} {function}, its translations dropped on the way", image.name());
    count
}

/// Result, instructions (those of the interrupt routine left out), and how many interrupts there were.
fn interrupted_at_every_instruction(rig: &Rig, image: &Image, rva: u64, seed: u64) -> ((u64, u64), u64) {
    let isr = CODE + address(image, "interrupt");
    let isr_time = std::rc::Rc::new(std::cell::Cell::new(0));
    let spent = isr_time.clone();
    rig.engine.write_bytes(DATA, &[0; 8]).unwrap();
    *rig.on_slice.borrow_mut() = Some(Box::new(move |rig| {
        rig.engine.set_slice(u64::MAX);
        let before = rig.engine.now();
        rig.engine.call(isr, &[DATA], Stack::At(STACK_TOP + 0x1000))?;
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
    let compiler = COMPILERS.iter().find(|c| c.name == name).expect("listed above");
    let image = compiler.compile();
    let rig = Rig::new(&[0xC3]);
    rig.load_image(&image);
    let native = Native::new(0x10_0000);
    native.load(&image.load_at(native.base()).unwrap());
    for function in compiler.functions {
        let instructions: u64 =
            [1, 0x1234_5678_9ABC].iter().map(|s| compare(&rig, &image, &native, function, *s)).sum();
        assert!(instructions > 20, "{function} does something");
    }
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
        let told = |address: &u64| {
            stores.iter().flatten().any(|store| address.wrapping_sub(store.address) < store.bytes.into())
        };
        if let Some(address) = changed.iter().find(|address| !told(address)) {
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
        let compiler = COMPILERS.iter().find(|c| c.name == name).expect("listed above");
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
            assert!(foretold.inside > 20, "{name} {function}: {} instructions were told of", foretold.inside);
        }
    }
}
