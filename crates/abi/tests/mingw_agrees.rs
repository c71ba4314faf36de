//! Holds the layouts by something we did not write: a C file of static assertions, made from them, must compile against
//! mingw-w64's `ntifs.h` (which includes `wdm.h` and `ntddk.h`).
//!
//! It cannot assert words of bit-fields, nor what a layout says mingw has wrong or not at all.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use abi::{FieldLayout, Mingw, TypeLayout, all_layouts};

const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// Headers by name, found in mingw's `ddk` folder. `csq.h` has the cancel-safe queues' types before Windows XP's.
const PROLOGUE: &str = "#include <ntifs.h>\n#include <csq.h>\n#include <wmilib.h>\n#include <stddef.h>\n";

fn run(arguments: &[&str], what: &str) -> Output {
    Command::new(COMPILER).args(arguments).output().unwrap_or_else(|error| {
        panic!(
            "{COMPILER} did not start ({error}), so {what} is not checked: install Debian's gcc-mingw-w64-x86-64, or run \
             `cargo xtask test`, which does"
        )
    })
}

/// The folder of `ddk/wdm.h`; the headers there include each other as siblings of the standard ones.
fn ddk_folder() -> PathBuf {
    let probe = scratch("where_is_wdm.c");
    std::fs::write(&probe, "#include <ddk/wdm.h>\n").unwrap();
    let output = run(&["-M", &probe.to_string_lossy()], "the place of ddk/wdm.h");
    assert!(
        output.status.success(),
        "{COMPILER} has no ddk/wdm.h: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rule = String::from_utf8(output.stdout).unwrap();
    let header =
        rule.split_whitespace().find(|word| word.ends_with("ddk/wdm.h")).expect("the rule names the header");
    Path::new(header).parent().unwrap().to_owned()
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn assertions<'a>(layouts: impl Iterator<Item = &'a TypeLayout>) -> String {
    let mut c = String::from(PROLOGUE);
    for layout in layouts {
        let (name, size) = (layout.c_name, layout.size);
        let end = match layout.mingw {
            Mingw::Whole => {
                assert_that(&mut c, &format!("sizeof({name}) == {size:#x}"));
                assert_that(&mut c, &format!("_Alignof({name}) == {}", layout.align));
                size
            }
            Mingw::EndsAt { size, .. } => {
                assert_that(&mut c, &format!("sizeof({name}) == {size:#x}"));
                size
            }
            Mingw::Missing { .. } => continue,
        };
        let asserted = layout.fields.iter().filter(|field| !field.c_path.is_empty() && field.offset < end);
        for FieldLayout { c_path, offset, size } in asserted {
            assert_that(&mut c, &format!("offsetof({name}, {c_path}) == {offset:#x}"));
            assert_that(&mut c, &format!("sizeof((({name} *)0)->{c_path}) == {size:#x}"));
        }
    }
    c
}

fn assert_that(c: &mut String, claim: &str) {
    writeln!(c, "_Static_assert({claim}, \"{claim}\");").unwrap();
}

/// What the compiler says against `c`: nothing, if it agrees.
fn complaints(file: &str, c: &str) -> String {
    let path = scratch(file);
    std::fs::write(&path, c).unwrap();
    let include = format!("-I{}", ddk_folder().display());
    let windows = ["-D_WIN32_WINNT=0x0A00", "-DNTDDI_VERSION=0x0A000008", "-DNT_PROCESSOR_GROUPS"];
    let path = path.to_string_lossy();
    let output =
        run(&[&["-fsyntax-only", "-w", &include, &path], &windows[..]].concat(), "the layout of a type");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), errors.is_empty(), "{errors}");
    errors
}

#[test]
fn every_layout_is_as_mingw_declares_it() {
    let c = assertions(all_layouts());
    let errors = complaints("layouts.c", &c);
    assert!(errors.is_empty(), "mingw's headers disagree:\n{errors}");
}

#[test]
fn a_field_one_byte_off_does_not_compile() {
    const WRONG: &[TypeLayout] = &[TypeLayout {
        c_name: "IRP",
        size: 0xd0,
        align: 8,
        mingw: Mingw::Whole,
        fields: &[FieldLayout { c_path: "CancelRoutine", offset: 0x69, size: 8 }],
    }];
    let errors = complaints("wrong.c", &assertions(WRONG.iter()));
    assert!(errors.contains("offsetof(IRP, CancelRoutine) == 0x69"), "{errors}");
}

#[test]
fn few_types_escape_the_comparison_and_each_says_why() {
    let total = all_layouts().count();
    let escaped: Vec<_> =
        all_layouts().filter(|layout| matches!(layout.mingw, Mingw::Missing { .. })).collect();
    for layout in &escaped {
        let Mingw::Missing { why } = layout.mingw else { unreachable!() };
        assert!(why.len() > 10, "{} gives no reason", layout.c_name);
    }
    assert!(escaped.len() * 10 < total, "{} of {total} types are unchecked: {escaped:?}", escaped.len());
}
