//! Drivers' code as compilers make it: the sources in `tests/fixtures`, who compiles them and how, and what is in them.

use std::path::Path;
use std::process::Command;

use engine::Cpu;
use image::{ExportTarget, Image};

/// A way to compile one source.
pub(crate) struct Compiler {
    pub(crate) name: &'static str,
    program: &'static str,
    missing: &'static str,
    arguments: &'static [&'static str],
    source: &'static str,
    /// What the source exports, beside `interrupt`.
    pub(crate) functions: &'static [&'static str],
    /// The processor it compiles for.
    pub(crate) cpu: Cpu,
}

const C_FUNCTIONS: &[&str] =
    &["crc", "recursion", "sorting", "switching", "floating", "callbacks", "memory", "variadic"];

const AVX_FUNCTIONS: &[&str] = &["copying", "dotting", "masking", "gathering", "zeroing"];

const X87_FUNCTIONS: &[&str] = &["series", "nesting", "functions", "multimedia"];

const MINGW: &str =
    "x86_64-w64-mingw32-gcc is missing: install Debian's gcc-mingw-w64-x86-64, as `cargo xtask test` does";

const fn mingw(name: &'static str, arguments: &'static [&'static str]) -> Compiler {
    let (program, source) = ("x86_64-w64-mingw32-gcc", "corpus.c");
    Compiler { name, program, missing: MINGW, arguments, source, functions: C_FUNCTIONS, cpu: Cpu::X86_64V2 }
}

const CLANG: &str = "clang-19 is missing: install Debian's clang-19 and lld-19, as `cargo xtask test` does";

const fn clang(name: &'static str, arguments: &'static [&'static str]) -> Compiler {
    let (program, source) = ("clang-19", "corpus.c");
    Compiler { name, program, missing: CLANG, arguments, source, functions: C_FUNCTIONS, cpu: Cpu::X86_64V2 }
}

pub(crate) const COMPILERS: &[Compiler] = &[
    mingw("gcc-O0", &["-O0"]),
    mingw("gcc-O2", &["-O2"]),
    mingw("gcc-Os-retpoline", &["-Os", "-mindirect-branch=thunk", "-mfunction-return=keep"]),
    clang("clang-O0", &["-O0"]),
    clang("clang-O2", &["-O2"]),
    Compiler {
        source: "corpus_avx.c",
        functions: AVX_FUNCTIONS,
        cpu: Cpu::X86_64V3,
        ..clang("clang-avx2", &["-O2", "-mavx2", "-mfma"])
    },
    Compiler { source: "corpus_x87.c", functions: X87_FUNCTIONS, ..mingw("gcc-x87", &["-O2"]) },
    Compiler {
        name: "rustc-O",
        program: "rustc",
        missing: "rustc is missing, or its x86_64-pc-windows-msvc target (rust-toolchain.toml names it)",
        arguments: &["--edition=2024", "-O"],
        source: "corpus.rs",
        functions: &["slices", "parsing"],
        cpu: Cpu::X86_64V2,
    },
];

impl Compiler {
    /// The one of that name.
    pub(crate) fn named(name: &str) -> &'static Self {
        COMPILERS.iter().find(|c| c.name == name).expect("listed above")
    }

    pub(crate) fn compile(&self) -> Image {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(self.source);
        let folder =
            tempfile::Builder::new().prefix("corpus-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let out = folder.path().join(format!("{}.dll", self.name));
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

/// Where an image has a function, from its base.
pub(crate) fn address(image: &Image, name: &str) -> u64 {
    let export = image.export(&image::Selector::Name(name.into())).unwrap_or_else(|| panic!("no {name}"));
    match export.target {
        ExportTarget::Rva(rva) => rva.into(),
        ExportTarget::Forward(_) => panic!("{name} is forwarded"),
    }
}
