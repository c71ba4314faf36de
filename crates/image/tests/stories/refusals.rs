//! Files that are no driver, or a damaged one: each is refused with what, where and what to do.

use image::{Image, MAX_SIZE_OF_IMAGE, Problem};

use crate::assemble::{Assembly, DATA, EXPORT, IMPORT, READ_ONLY, RELOCATIONS, put, tiny, words};
use crate::shapes::block;

fn refusal(file: &[u8]) -> Problem {
    let error = Image::parse("bad.sys", file).expect_err("refused");
    let message = error.to_string();
    assert!(message.starts_with("bad.sys: ") && message.len() < 300 && !message.contains("  "), "{message}");
    error.problem
}

fn says(problem: &Problem, words: &[&str]) {
    let message = problem.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn an_empty_file() {
    says(&refusal(&[]), &["empty", "copy or build it again"]);
}

#[test]
fn files_of_other_kinds_are_named() {
    says(&refusal(b"\x7fELF\x02\x01"), &["`MZ`", "ELF"]);
    says(&refusal(b"MSCF\0\0\0\0"), &["compressed", "expand"]);
    says(&refusal(b"PK\x03\x04"), &["ZIP"]);
    says(&refusal(b"\x64\x86\x05\0"), &["object file"]);
    says(&refusal(b"[Version]\r\nSignature="), &["a text file"]);
    says(&refusal(&[0; 4096]), &["something else"]);
}

#[test]
fn a_dos_program() {
    let mut file = tiny().link();
    put(&mut file, 0x80, b"NE");
    says(&refusal(&file), &["no `PE` signature at offset 0x80", "16-bit"]);
}

#[test]
fn every_truncation_is_refused_as_one() {
    let file = tiny().link();
    for length in 2..file.len() {
        let problem = refusal(&file[..length]);
        assert!(matches!(problem, Problem::Truncated { .. }), "{length:#x}: {problem}");
    }
    says(&refusal(&file[..file.len() - 1]), &["section .text", "0x600", "0x5ff", "copy it again"]);
}

#[test]
fn images_for_other_processors() {
    says(&refusal(&Assembly { machine: 0x14c, magic: 0x10b, ..tiny() }.link()), &["32-bit (x86)", "for x64"]);
    says(&refusal(&Assembly { machine: 0xaa64, ..tiny() }.link()), &["ARM64", "for x64"]);
    says(&refusal(&Assembly { machine: 0x5064, ..tiny() }.link()), &["unknown processor", "0x5064"]);
    says(&refusal(&Assembly { magic: 0x10b, ..tiny() }.link()), &["magic is PE32's"]);
}

#[test]
fn user_mode_programs_and_dlls() {
    says(
        &refusal(&Assembly { subsystem: 3, ..tiny() }.link()),
        &["program", "Windows console", "/SUBSYSTEM:NATIVE"],
    );
    says(
        &refusal(&Assembly { subsystem: 2, characteristics: 0x2022, ..tiny() }.link()),
        &["DLL", "Windows GUI"],
    );
}

#[test]
fn a_native_image_with_the_dll_bit_is_a_driver_as_mingw_links_them() {
    assert!(Image::parse("mingw.sys", &Assembly { characteristics: 0x2022, ..tiny() }.link()).is_ok());
}

#[test]
fn a_failed_link() {
    says(&refusal(&Assembly { characteristics: 0x0020, ..tiny() }.link()), &["the link failed"]);
}

#[test]
fn an_image_of_four_gigabytes_or_of_nothing() {
    says(
        &refusal(&Assembly { size_of_image: 0xffff_f000, ..tiny() }.link()),
        &["0xfffff000", "limit of 0x10000000"],
    );
    says(&refusal(&Assembly { size_of_image: MAX_SIZE_OF_IMAGE + 1, ..tiny() }.link()), &["limit"]);
    let mut file = tiny().link();
    put(&mut file, 0x98 + 56, &[0; 4]);
    says(&refusal(&file), &["SizeOfImage", "is 0"]);
}

#[test]
fn alignments_no_loader_accepts() {
    says(
        &refusal(&Assembly { section_alignment: 0x1800, size_of_image: 0x3000, ..tiny() }.link()),
        &["0x1800"],
    );
    says(&refusal(&Assembly { section_alignment: 0x100, ..tiny() }.link()), &["FileAlignment 0x200"]);
}

#[test]
fn headers_that_contradict_themselves() {
    says(&refusal(&Assembly { base: 0x1_1000, ..tiny() }.link()), &["ImageBase", "64 KiB"]);
    says(
        &refusal(&Assembly { base: 0xffff_ffff_ffff_0000, size_of_image: 0x2_0000, ..tiny() }.link()),
        &["wrap around"],
    );
    let mut file = tiny().link();
    put(&mut file, 0x98 + 60, &words(&[0x40]));
    says(&refusal(&file), &["SizeOfHeaders"]);
    let mut file = tiny().link();
    put(&mut file, 0x86, &[0, 0]);
    says(&refusal(&file), &["no sections"]);
}

#[test]
fn sections_that_overlap_or_stray() {
    let two = tiny().part(".data", 0x1000, DATA, vec![0; 16]);
    says(&refusal(&two.link()), &["section .text", ".data begins at RVA 0x1000", "not overlap"]);
    let mut low = tiny();
    low.parts[0].rva = 0;
    says(&refusal(&low.link()), &["header area"]);
    let crooked = tiny().part(".data", 0x2040, DATA, vec![0; 16]);
    says(&refusal(&crooked.link()), &["section .data", "0x2040", "multiple of SectionAlignment"]);
    let long = Assembly { size_of_image: 0x2000, ..tiny().part(".data", 0x2000, DATA, vec![0; 16]) };
    says(&refusal(&long.link()), &["section .data ends at RVA 0x2010", "past SizeOfImage 0x2000"]);
}

#[test]
fn an_entry_point_that_is_no_code() {
    says(&refusal(&Assembly { entry: 0x9_0000, ..tiny() }.link()), &["0x90000", "executable"]);
    let data = Assembly { entry: 0x2000, ..tiny().part(".data", 0x2000, DATA, vec![0; 16]) };
    says(&refusal(&data.link()), &["0x2000", "executable"]);
}

#[test]
fn an_import_directory_that_points_nowhere() {
    says(&refusal(&tiny().directory(IMPORT, 0x8000_0000, 40).link()), &["import descriptor", "0x80000000"]);
    let names = |thunk: u64, name: &[u8]| {
        let mut bytes = words(&[0x2040, 0, 0, 0x2060, 0x2040]);
        bytes.resize(0x80, 0);
        put(&mut bytes, 0x40, &thunk.to_le_bytes());
        put(&mut bytes, 0x60, name);
        refusal(&tiny().part(".idata", 0x2000, DATA, bytes).directory(IMPORT, 0x2000, 40).link())
    };
    says(&names(0x7777_7777_7777, b"a.sys"), &["imported name", "0x777777777777"]);
    says(&names(0x2070, b"a.sys"), &["imported name at RVA 0x2070", "readable name"]);
    says(&names(0x2070, b""), &["module's name at RVA 0x2060"]);
}

#[test]
fn an_import_table_without_an_end_is_cut_off() {
    let mut bytes = words(&[0x2040, 0, 0, 0x2020, 0x2040]);
    bytes.resize(0x2_8000, 0xff);
    put(&mut bytes, 0x20, b"a.sys\0");
    let file = tiny().part(".idata", 0x2000, DATA, bytes).directory(IMPORT, 0x2000, 40).link();
    says(&refusal(&file), &["more than 16384 imports"]);
}

#[test]
fn an_export_directory_that_makes_no_sense() {
    says(&refusal(&tiny().directory(EXPORT, 0x1_0000, 40).link()), &["export directory", "0x10000"]);
    let table = |functions: u32, target: u32, text: &[u8]| {
        let mut bytes = words(&[0, 0, 0, 0, 1, functions, 0, 0x2028, 0, 0, target]);
        bytes.extend(text);
        refusal(&tiny().part(".edata", 0x2000, READ_ONLY, bytes).directory(EXPORT, 0x2000, 0x40).link())
    };
    says(&table(u32::MAX, 0x1000, b""), &["more than 16384 exports"]);
    says(&table(0x4000, 0x1000, b""), &["export address table", "0x2028"]);
    says(&table(1, 0x6000_0000, b""), &["exported entry", "0x60000000"]);
    says(&table(1, 0x202c, b"NODOT\0"), &["forwarder at RVA 0x202c"]);
}

#[test]
fn relocations_that_make_no_sense() {
    let load = |relocations: Vec<u8>, size: u32| {
        let assembly =
            tiny().part(".reloc", 0x2000, READ_ONLY, relocations).directory(RELOCATIONS, 0x2000, size);
        let image = Image::parse("bad.sys", &assembly.link()).expect("relocations are read when it moves");
        assert!(image.load_at(0x1_0000).is_ok(), "where it was linked for, none is needed");
        image.load_at(0x2_0000).map(|_| ()).expect_err("refused").problem
    };
    says(&load(block(0x1000, &[3 << 12 | 4]), 10), &["type 3 (HIGHLOW)", "0x1004", "DIR64"]);
    says(&load(block(0x2000, &[10 << 12 | 0xfff]), 10), &["relocated address", "0x2fff"]);
    says(&load(block(0xffff_f000, &[10 << 12 | 0xfff]), 10), &["relocated address", "0xffffffff"]);
    says(&load(words(&[0x1000, 4]), 8), &["block at RVA 0x2000", "0x4"]);
    says(&load(words(&[0x1000, 0xffff_ffff]), 8), &["block at RVA 0x2000", "0xffffffff"]);
    says(&load(vec![], 0x10_0000), &["relocation directory", "0x2000"]);
}

#[test]
fn a_base_no_image_can_have() {
    let image = Image::parse("good.sys", &tiny().link()).unwrap();
    for base in [0x1234, 0x1_1000, 0xffff_ffff_ffff_0000] {
        let result = image.load_at(base);
        if base == 0xffff_ffff_ffff_0000 {
            assert!(result.is_ok(), "it just fits");
            continue;
        }
        says(&result.err().unwrap().problem, &["multiple of 0x10000"]);
    }
}
