//! Holds layouts, constants and statuses by something we did not write: C files of static assertions, made from their
//! lists, must compile against mingw-w64's `ntifs.h` (which includes `wdm.h` and `ntddk.h`).
//!
//! It cannot assert words of bit-fields, nor what a layout or constant says mingw has wrong or not at all.

mod mingw;

use std::collections::BTreeSet;

use abi::{Constant, FieldLayout, Mingw, NtStatus, TypeLayout, all_constants, all_layouts};
use mingw::{KERNEL_HEADERS, assert_that, complaints, includes};

/// mingw declares these for applications only, and its two worlds cannot be included together.
const FROM_WINNT: &[&str] =
    &["RUNTIME_FUNCTION", "UNWIND_HISTORY_TABLE_ENTRY", "UNWIND_HISTORY_TABLE", "DISPATCHER_CONTEXT"];

/// mingw lacks these; `documented_members.rs` compares them with the members on Microsoft's pages.
const BY_THEIR_PAGES: &[&str] =
    &["PO_FX_DEVICE_V1", "PO_FX_DEVICE_V2", "PO_FX_DEVICE_V3", "PO_FX_COMPONENT_PERF_SET"];

/// A type of the frameworks' loader: no kit has them, and our own header for C drivers was written apart from the layouts.
fn is_of_the_loader(layout: &TypeLayout) -> bool {
    matches!(layout.mingw, Mingw::Missing { why } if why == "of the frameworks' loader")
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
        assert_fields(&mut c, layout, end);
    }
    c
}

/// The fields that lie before `end`.
fn assert_fields(c: &mut String, layout: &TypeLayout, end: u64) {
    let name = layout.c_name;
    let asserted = layout.fields.iter().filter(|field| !field.c_path.is_empty() && field.offset < end);
    for FieldLayout { c_path, offset, size } in asserted {
        assert_that(c, &format!("offsetof({name}, {c_path}) == {offset:#x}"));
        assert_that(c, &format!("sizeof((({name} *)0)->{c_path}) == {size:#x}"));
    }
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
fn the_loaders_types_are_as_the_header_of_our_c_drivers_declares_them() {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../../drivers/c/wdfldr/wdfldr.h");
    if !std::path::Path::new(header).is_file() {
        return; // a package of this crate alone
    }
    let mut c = includes(&["wdm.h"]) + &format!("#include \"{header}\"\n");
    let layouts: Vec<_> = all_layouts().filter(|layout| is_of_the_loader(layout)).collect();
    assert_eq!(layouts.len(), 10);
    for layout in layouts {
        assert_that(&mut c, &format!("sizeof({}) == {:#x}", layout.c_name, layout.size));
        assert_that(&mut c, &format!("_Alignof({}) == {}", layout.c_name, layout.align));
        assert_fields(&mut c, layout, layout.size);
    }
    let errors = complaints("loader.c", &c);
    assert!(errors.is_empty(), "the header disagrees:\n{errors}");
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
        .filter(|layout| !BY_THEIR_PAGES.contains(&layout.c_name) && !is_of_the_loader(layout))
        .filter_map(|layout| match layout.mingw {
            Mingw::Missing { why } => Some((layout.c_name, why)),
            _ => None,
        })
        .collect();
    assert!(reasons.iter().all(|(_, why)| why.len() > 10), "{reasons:?}");
    assert!(reasons.len() * 10 < total, "{} of {total} types are unchecked: {reasons:?}", reasons.len());
}

/// mingw's `ntstatus.h` ends before these.
const NEW_STATUSES: &[NtStatus] =
    &[NtStatus::DEVICE_FEATURE_NOT_SUPPORTED, NtStatus::DEVICE_UNREACHABLE, NtStatus::DEVICE_HARDWARE_ERROR];

fn equalities<'a>(constants: impl Iterator<Item = &'a Constant>) -> String {
    let mut c = includes(KERNEL_HEADERS);
    for Constant { name, value, bits, .. } in constants.filter(|constant| constant.not_in_mingw.is_none()) {
        assert_that(&mut c, &format!("(unsigned __int{bits})({name}) == {value:#x}"));
    }
    c
}

#[test]
fn every_constant_has_the_value_mingw_gives_it() {
    let errors = complaints("constants.c", &equalities(all_constants()));
    assert!(errors.is_empty(), "mingw's headers disagree:\n{errors}");
}

#[test]
fn every_status_has_the_value_mingw_gives_it() {
    let mut c = includes(KERNEL_HEADERS);
    for status in NtStatus::NAMED.iter().filter(|status| !NEW_STATUSES.contains(status)) {
        let name = status.name().expect("a named status has a name");
        assert_that(&mut c, &format!("(unsigned __int32)({name}) == {:#x}", status.0));
    }
    let errors = complaints("statuses.c", &c);
    assert!(errors.is_empty(), "mingw's headers disagree:\n{errors}");
}

#[test]
fn a_wrong_constant_does_not_compile() {
    let wrong = Constant { name: "IRP_MJ_READ", value: 4, bits: 8, not_in_mingw: None };
    let errors = complaints("wrong_constant.c", &equalities([wrong].iter()));
    assert!(errors.contains("IRP_MJ_READ"), "{errors}");
}

#[test]
fn no_constant_is_declared_twice() {
    let mut seen = BTreeSet::new();
    for constant in all_constants() {
        assert!(seen.insert(constant.name), "{} is listed twice", constant.name);
    }
}

#[test]
fn every_identifier_has_the_parts_mingw_gives_it() {
    // `wdmguid.h` consists of DEFINE_GUIDs: read as enumerators, their parts are constants that can be asserted.
    let names: Vec<_> = (0..11).map(|part| format!("n##_{part} = p{part}")).collect();
    let parameters: Vec<_> = (0..11).map(|part| format!("p{part}")).collect();
    let mut c = format!(
        "#define DEFINE_GUID(n, {}) enum {{ {} }};\n#include <wdmguid.h>\n",
        parameters.join(", "),
        names.join(", ")
    );
    for (name, guid) in abi::NAMED_GUIDS {
        let text = guid.to_string();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let widths = [8, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2];
        let mut rest = digits.as_str();
        for (part, width) in widths.into_iter().enumerate() {
            let (value, after) = rest.split_at(width);
            assert_that(&mut c, &format!("{name}_{part} == 0x{value}"));
            rest = after;
        }
    }
    let errors = complaints("guids.c", &c);
    assert!(errors.is_empty(), "mingw's headers disagree:\n{errors}");
}
