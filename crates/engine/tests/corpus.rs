//! Whole functions as compilers make them: native and translated results are equal; then in slices of one instruction,
//! with an interrupt routine between any two of them, results and instruction counts still are.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod rig;

use std::path::{Path, PathBuf};
use std::process::Command;

use engine::{Protection, Stack};
use image::{ExportTarget, Image};
use rig::native::Native;
use rig::{CODE, DATA, Rig, STACK_TOP};

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

const COMPILERS: &[Compiler] = &[
    mingw("gcc-O0", &["-O0"]),
    mingw("gcc-O2", &["-O2"]),
    mingw("gcc-Os-retpoline", &["-Os", "-mindirect-branch=thunk", "-mfunction-return=keep"]),
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

fn load(rig: &Rig, image: &Image) {
    let bytes = image.load_at(CODE).unwrap();
    rig.map(CODE + 0x1000, (bytes.len() as u64).next_multiple_of(0x1000) - 0x1000);
    rig.engine.protect(CODE, 0x1000, Protection::READ_WRITE);
    rig.engine.write_bytes(CODE, &bytes).unwrap();
    for range in image.protections() {
        let image::Protection { read, write, execute } = range.protection;
        let protection = Protection { read, write, execute };
        rig.engine.protect(
            CODE + u64::from(range.rva),
            u64::from(range.size).next_multiple_of(0x1000),
            protection,
        );
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

fn every_function_of(name: &str) {
    let compiler = COMPILERS.iter().find(|c| c.name == name).expect("listed above");
    let image = compiler.compile();
    let rig = Rig::new(&[0xC3]);
    load(&rig, &image);
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
