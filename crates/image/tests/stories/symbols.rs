//! Addresses get the names a driver engineer would give them.

use image::{Image, ImageError, Lines, Problem, Symbols, TraceFormats};

use crate::assemble::{CODE, EXPORT, READ_ONLY, tiny, words};
use crate::{mingw, rustc};

const EXCEPTION: usize = 3;

#[test]
fn a_mingw_driver_brings_its_own_names() {
    let image = Image::parse("plain.sys", &mingw::driver("plain.c")).unwrap();
    let symbols = Symbols::new(&image, None).unwrap();
    let entry = image.entry_point().unwrap();
    assert_eq!(symbols.lookup(entry).unwrap().to_string(), "DriverEntry");
    assert_eq!(symbols.lookup(entry + 5).unwrap().to_string(), "DriverEntry+0x5");
    let outer = symbols.find("outer").unwrap();
    let add = symbols.find("add").expect("static functions too");
    assert_ne!(symbols.lookup(add).unwrap().name, symbols.lookup(outer).unwrap().name);
    let table = image.section_at(symbols.find("table").unwrap()).unwrap();
    assert!(table.protection.write, "and variables");
    assert!(
        image.sections().iter().all(|section| symbols.find(&section.name).is_none()),
        "sections are no symbols"
    );
}

#[test]
fn a_pdb_gives_names_files_and_lines() {
    let (file, pdb) = rustc::driver("lines.rs");
    let image = Image::parse("lines.sys", &file).unwrap();
    let reference = image.pdb().unwrap();
    assert!(reference.file_name().ends_with(".pdb") && reference.age == 1, "{reference}");
    let symbols = Symbols::new(&image, Some(&pdb)).unwrap();
    let count = symbols.find("CountTwice").unwrap();
    let wanted =
        include_str!("../fixtures/lines.rs").lines().position(|line| line.contains("// the line")).unwrap()
            + 1;
    let lines = Lines::new(&image, Some(&pdb));
    let lines: Vec<_> = (count..count + 0x20).filter_map(|rva| lines.at(rva)).collect();
    assert!(
        lines.iter().all(|line| line.file.ends_with("lines.rs") || line.file.contains("core")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.line as usize == wanted && line.file.ends_with("lines.rs")),
        "{lines:?}"
    );
    let entry = symbols.lookup(image.entry_point().unwrap()).unwrap();
    assert_eq!(entry.to_string(), "lines::DriverEntry");
    assert!(Symbols::new(&image, None).unwrap().lookup(count).is_none(), "without its PDB it has no name");
}

/// lld leaves annotations out of a PDB, so one is written where the record of a routine with a long name stands.
#[test]
fn a_pdb_gives_the_formats_of_trace_messages() {
    const GUID: [u8; 16] =
        [0x40, 0xFC, 0x29, 0x6B, 0x47, 0xCA, 0x67, 0x10, 0xB3, 0x1D, 0, 0xDD, 1, 6, 0x62, 0xDA];
    /// Bytes of `S_GPROC32` from its kind to its name.
    const BEFORE_NAME: usize = 37;
    let (file, mut pdb) = rustc::driver("lines.rs");
    let image = Image::parse("lines.sys", &file).unwrap();
    assert!(TraceFormats::read(&image, &pdb).unwrap().is_empty());

    let name = format!("lines::Room{}", "0123456789".repeat(24)).into_bytes();
    let is_record = |at: &usize| {
        let kind = at.checked_sub(BEFORE_NAME).and_then(|at| pdb.get(at..at + 2));
        pdb[*at..].starts_with(&name)
            && [&[0x0F, 0x11], &[0x10, 0x11]].iter().any(|known| kind == Some(*known))
    };
    let at = (0..pdb.len() - name.len()).find(is_record).expect("its record lies in one piece") - BEFORE_NAME;
    let texts = "TMF:\0\
        6b29fc40-ca47-1067-b31d-00dd010662da lines // SRC=lines.rs MJ= MN=\0\
        #typev lines_rs9 10 \"%0%!FUNC! counts %10!d!\" //   LEVEL=4 FUNC=CountTwice\0\
        {\0Value, ItemLong -- 10\0}\0";
    let annotation = [&[0x19, 0x10, 0, 0, 0, 0, 1, 0, 6, 0], texts.as_bytes()].concat();
    assert!(annotation.len() <= BEFORE_NAME + name.len());
    pdb[at..at + annotation.len()].copy_from_slice(&annotation);

    let formats = TraceFormats::read(&image, &pdb).unwrap();
    assert_eq!(formats.text(&GUID, 10, &7u32.to_le_bytes()).unwrap(), "CountTwice counts 7");
    assert_eq!(formats.routine(&GUID, 10), Some("CountTwice"));
    let other = Image::parse("tiny.sys", &tiny().link()).unwrap();
    assert!(TraceFormats::read(&other, &pdb).is_err(), "it is another's");
}

/// The line of `plain.c` with this text, from 1.
fn line_of(text: &str) -> u32 {
    let lines = include_str!("../fixtures/plain.c").lines();
    u32::try_from(lines.take_while(|line| !line.contains(text)).count()).expect("32 bits") + 1
}

#[test]
fn each_version_of_dwarf_gives_files_and_lines() {
    for version in 2..=5 {
        let more = ["-Wl,--entry,DriverEntry", "-g", &format!("-gdwarf-{version}")];
        let image = Image::parse("plain.sys", &mingw::build(&["plain.c"], &more)).unwrap();
        let (symbols, lines) = (Symbols::new(&image, None).unwrap(), Lines::new(&image, None));
        let line = |rva| lines.at(rva).unwrap_or_else(|| panic!("version {version}: {rva:#x} has no line"));
        let entry = line(image.entry_point().unwrap());
        assert!(entry.file.ends_with("plain.c"), "version {version}: {entry}");
        // Its head or, from the first instruction on, its body.
        let head = |text| line_of(text)..=line_of(text) + 2;
        assert!(head("DriverEntry(").contains(&entry.line), "version {version}: {entry}");
        let outer = line(symbols.find("outer").unwrap());
        assert!(head("outer(").contains(&outer.line), "version {version}: {outer}");
        assert_eq!(lines.at(symbols.find("table").unwrap()), None, "a variable has no line");
        assert_eq!(lines.at(image.size()), None);
    }
    let image = Image::parse("plain.sys", &mingw::driver("plain.c")).unwrap();
    assert_eq!(Lines::new(&image, None).at(image.entry_point().unwrap()), None, "without -g");
}

/// The names of the functions of `labels.c`, by address.
fn functions_of_labels(more: &[&str]) -> Vec<Option<String>> {
    let more = [&["-Wl,--entry,DriverEntry", "-fno-toplevel-reorder"], more].concat();
    let image = Image::parse("labels.sys", &mingw::build(&["labels.c"], &more)).expect("it was just linked");
    let symbols = Symbols::new(&image, None).expect("no PDB is given");
    let name = |rva| symbols.lookup(rva).map(|symbol| symbol.to_string());
    image.functions().iter().map(|function| name(function.begin)).collect()
}

#[test]
fn functions_that_the_symbol_table_lacks_have_their_names_from_dwarf() {
    for version in 2..=5 {
        let names = functions_of_labels(&["-g", &format!("-gdwarf-{version}")]);
        let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
        assert_eq!(names, ["Lookup", "middle", "Last", "DriverEntry"], "version {version}");
    }
    let names = functions_of_labels(&[]);
    let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
    assert_eq!(names, [None, Some("middle"), None, Some("DriverEntry")], "a linker's mark names no function");
}

/// What each byte of the section HERE of `variables.c` is in, and where it begins.
fn variables(more: &[&str]) -> (Image, Symbols, u32) {
    let more = [&["-Wl,--entry,DriverEntry", "-fno-toplevel-reorder"], more].concat();
    let image =
        Image::parse("variables.sys", &mingw::build(&["variables.c"], &more)).expect("it was just linked");
    let symbols = Symbols::new(&image, None).expect("no PDB is given");
    let here = image.sections().iter().find(|section| section.name == "HERE").expect("its section").rva;
    (image, symbols, here)
}

#[test]
fn a_variable_without_a_symbol_is_not_named_by_its_neighbour() {
    let (_, symbols, here) = variables(&[]);
    let name = |offset| symbols.lookup(here + offset).map(|symbol| symbol.to_string());
    assert_eq!(name(0).as_deref(), Some("Before"));
    for offset in 1..symbols.find("After").unwrap() - here {
        assert_eq!(name(offset), None, "how large `Before` is, this table does not say: {offset:#x}");
        assert_eq!(symbols.data_section(here + offset), Some(("HERE", offset)));
    }
    assert_eq!(name(symbols.find("After").unwrap() - here).as_deref(), Some("After"));
    let code = symbols.find("DriverEntry").unwrap();
    assert_eq!(symbols.data_section(code), None, "code is in no section of variables");
    assert_eq!(symbols.lookup(code + 1).unwrap().to_string(), "DriverEntry+0x1");
}

#[test]
fn dwarf_tells_which_variable_covers_an_address() {
    for version in 2..=5 {
        let (_, symbols, here) = variables(&["-g", &format!("-gdwarf-{version}")]);
        let name = |rva: u32| symbols.lookup(rva).map(|symbol| symbol.to_string());
        let (lock, table) = (symbols.find("Lock").unwrap(), symbols.find("LastTable").unwrap());
        assert_eq!(name(here + 3).as_deref(), Some("Before+0x3"), "version {version}");
        assert_eq!(name(here + 4), None, "what aligns `Lock` is no variable; version {version}");
        assert_eq!(name(lock + 7).as_deref(), Some("Lock+0x7"), "version {version}");
        assert_eq!(
            name(table + 0x5F).as_deref(),
            Some("LastTable+0x5f"),
            "2 by 3 of 16 bytes; version {version}"
        );
        let behind = name(table + 0x60);
        assert!(behind.is_none_or(|behind| behind == "After"), "version {version}");
    }
}

#[test]
fn a_pdb_tells_which_variable_covers_an_address() {
    let (file, pdb) = rustc::driver("lines.rs");
    let image = Image::parse("lines.sys", &file).unwrap();
    let symbols = Symbols::new(&image, Some(&pdb)).unwrap();
    let name = |rva: u32| symbols.lookup(rva).map(|symbol| symbol.to_string());
    for (variable, bytes) in
        [("lines::COUNTER", 4), ("lines::TABLE", 24), ("lines::PAIR", 12), ("lines::POINTER", 8)]
    {
        let rva = symbols.find(variable).unwrap_or_else(|| panic!("no {variable}"));
        assert_eq!(name(rva).as_deref(), Some(variable));
        let last = bytes - 1;
        assert_eq!(name(rva + last), Some(format!("{variable}+{last:#x}")));
        assert!(name(rva + bytes).is_none_or(|behind| !behind.starts_with(variable)), "{variable} ends");
    }
}

#[test]
fn a_pdb_that_is_not_the_images_own_is_refused_with_both_identities() {
    let (file, pdb) = rustc::driver("lines.rs");
    let image = Image::parse("lines.sys", &file).unwrap();
    let refused = |pdb: &[u8]| Symbols::new(&image, Some(pdb)).map(|_| ()).unwrap_err();
    let guid = image.pdb().unwrap().guid;
    let at = pdb.windows(16).position(|bytes| bytes == guid).expect("the PDB has its GUID");
    let mut other = pdb.clone();
    other[at] ^= 1;
    let message = refused(&other).to_string();
    assert!(
        message.starts_with("lines.sys: ") && message.contains("age 1") && message.contains("same build"),
        "{message}"
    );
    assert_eq!(refused(b"MZ").problem, Problem::NotPdb);
    assert!(matches!(refused(&pdb[..0x1000]).problem, Problem::DamagedPdb(_)));
    let plain = Image::parse("plain.sys", &mingw::driver("plain.c")).unwrap();
    let unnamed: ImageError = Symbols::new(&plain, Some(&pdb)).map(|_| ()).unwrap_err();
    assert!(unnamed.to_string().contains("names no PDB"), "{unnamed}");
}

#[test]
fn exports_are_better_than_nothing_but_do_not_name_their_neighbours() {
    let mut edata = words(&[0, 0, 0, 0, 1, 1, 1, 0x2028, 0x202c, 0x2030, 0x1000, 0x2034, 0]);
    edata.extend(b"Give\0");
    let pdata = words(&[0x1000, 0x1010, 0x4000, 0x1020, 0x1030, 0x4000]);
    let image = tiny()
        .part(".edata", 0x2000, READ_ONLY, edata)
        .part(".pdata", 0x3000, READ_ONLY, pdata)
        .part(".xdata", 0x4000, READ_ONLY, vec![1, 0, 0, 0])
        .part(".more", 0x5000, CODE, vec![0xc3; 16])
        .directory(EXPORT, 0x2000, 0x28)
        .directory(EXCEPTION, 0x3000, 24);
    let image = Image::parse("give.sys", &image.link()).unwrap();
    let symbols = Symbols::new(&image, None).unwrap();
    assert_eq!(symbols.lookup(0x1008).unwrap().to_string(), "Give+0x8");
    assert_eq!(symbols.lookup(0x1028), None, "another function, whose name is not known");
    assert_eq!(symbols.lookup(0x5008), None, "another section");
    assert_eq!(symbols.lookup(0x9_0000), None, "outside the image");
}
