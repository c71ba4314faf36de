//! Holds the layouts by something we did not write: a C file of static assertions, made from them, must compile against
//! mingw-w64's `ntifs.h` (which includes `wdm.h` and `ntddk.h`).
//!
//! It cannot assert words of bit-fields, nor what a layout says mingw has wrong or not at all.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use abi::{FieldLayout, Mingw, TypeLayout, all_layouts};

const COMPILER: &str = "x86_64-w64-mingw32-gcc";

const KERNEL_HEADERS: &[&str] = &["ntifs.h", "csq.h", "wmilib.h", "wmistr.h"];

/// mingw declares these for applications only, and its two worlds cannot be included together.
const FROM_WINNT: &[&str] =
    &["RUNTIME_FUNCTION", "UNWIND_HISTORY_TABLE_ENTRY", "UNWIND_HISTORY_TABLE", "DISPATCHER_CONTEXT"];

fn run(arguments: &[&str], what: &str) -> Output {
    Command::new(COMPILER).args(arguments).output().unwrap_or_else(|error| {
        panic!(
            "{COMPILER} did not start ({error}), so {what} is not checked: install Debian's gcc-mingw-w64-x86-64, or run \
             `cargo xtask test`, which does"
        )
    })
}

fn scratch(name: &str, c: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, c).expect("the target's folder takes files");
    path
}

/// The folder of `ddk/wdm.h`; the headers there include each other as if it were on the search path.
fn ddk_folder(file: &str) -> PathBuf {
    let probe = scratch(file, "#include <ddk/wdm.h>\n");
    let output = run(&["-M", &probe.to_string_lossy()], "the place of ddk/wdm.h");
    assert!(
        output.status.success(),
        "{COMPILER} has no ddk/wdm.h: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rule = String::from_utf8_lossy(&output.stdout).into_owned();
    let header =
        rule.split_whitespace().find(|word| word.ends_with("ddk/wdm.h")).expect("the rule names the header");
    Path::new(header).parent().expect("a header lies in a folder").to_owned()
}

fn includes(headers: &[&str]) -> String {
    headers
        .iter()
        .map(|header| format!("#include <{header}>\n"))
        .chain(["#include <stddef.h>\n".into()])
        .collect()
}

fn assert_that(c: &mut String, claim: &str) {
    writeln!(c, "_Static_assert({claim}, \"{claim}\");").expect("a string takes any text");
}

fn assertions<'a>(headers: &[&str], layouts: impl Iterator<Item = &'a TypeLayout>) -> String {
    let mut c = includes(headers);
    for layout in layouts {
        let (name, size) = (layout.c_name, layout.size);
        let end = match layout.mingw {
            Mingw::Whole => {
                assert_that(&mut c, &format!("_Alignof({name}) == {}", layout.align));
                size
            }
            Mingw::EndsAt { size, .. } => size,
            Mingw::Missing { .. } => continue,
        };
        assert_that(&mut c, &format!("sizeof({name}) == {end:#x}"));
        let asserted = layout.fields.iter().filter(|field| !field.c_path.is_empty() && field.offset < end);
        for FieldLayout { c_path, offset, size } in asserted {
            assert_that(&mut c, &format!("offsetof({name}, {c_path}) == {offset:#x}"));
            assert_that(&mut c, &format!("sizeof((({name} *)0)->{c_path}) == {size:#x}"));
        }
    }
    c
}

/// What the compiler says against `c`: nothing, if it agrees.
fn complaints(file: &str, c: &str) -> String {
    let path = scratch(file, c);
    let include = format!("-I{}", ddk_folder(&format!("folder_for_{file}")).display());
    let windows = ["-D_WIN32_WINNT=0x0A00", "-DNTDDI_VERSION=0x0A000008", "-DNT_PROCESSOR_GROUPS"];
    let path = path.to_string_lossy();
    let output =
        run(&[&["-fsyntax-only", "-w", &include, &path], &windows[..]].concat(), "the layout of a type");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), errors.is_empty(), "{errors}");
    errors
}

fn is_from_winnt(layout: &TypeLayout) -> bool {
    FROM_WINNT.contains(&layout.c_name)
}

#[test]
fn every_layout_is_as_mingw_declares_it() {
    let c = assertions(KERNEL_HEADERS, all_layouts().filter(|layout| !is_from_winnt(layout)));
    let errors = complaints("layouts.c", &c);
    assert!(errors.is_empty(), "mingw's headers disagree:\n{errors}");
}

#[test]
fn the_unwinders_types_are_as_winnt_declares_them() {
    let layouts: Vec<_> = all_layouts().filter(|layout| is_from_winnt(layout)).collect();
    assert_eq!(layouts.len(), FROM_WINNT.len());
    let errors = complaints("winnt.c", &assertions(&["windows.h"], layouts.into_iter()));
    assert!(errors.is_empty(), "mingw's headers disagree:\n{errors}");
}

#[test]
fn a_field_one_byte_off_does_not_compile() {
    const WRONG: &[TypeLayout] = &[TypeLayout {
        c_name: "IRP",
        size: 0xd0,
        align: 16,
        mingw: Mingw::Whole,
        fields: &[FieldLayout { c_path: "CancelRoutine", offset: 0x69, size: 4 }],
    }];
    let errors = complaints("wrong.c", &assertions(KERNEL_HEADERS, WRONG.iter()));
    for claim in [
        "_Alignof(IRP) == 16",
        "offsetof(IRP, CancelRoutine) == 0x69",
        "sizeof(((IRP *)0)->CancelRoutine) == 0x4",
    ] {
        assert!(errors.contains(claim), "{claim} went unnoticed: {errors}");
    }
}

#[test]
fn few_types_escape_the_comparison_and_each_says_why() {
    let total = all_layouts().count();
    let reasons: Vec<_> = all_layouts()
        .filter_map(|layout| match layout.mingw {
            Mingw::Missing { why } => Some((layout.c_name, why)),
            _ => None,
        })
        .collect();
    assert!(reasons.iter().all(|(_, why)| why.len() > 10), "{reasons:?}");
    assert!(reasons.len() * 10 < total, "{} of {total} types are unchecked: {reasons:?}", reasons.len());
}
