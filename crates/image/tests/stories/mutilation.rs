//! Thousands of mutilated copies of real images: each is refused or loads, and everything it says can be asked.
//!
//! The copies are the same in every run. A failure is a panic; it names the image, the copy's number and the change.

use fastrand::Rng;
use image::unwind::{FunctionEntry, RSP, UnwindRegisters, step};
use image::{Image, Lines, Symbols};

use crate::assemble::{DATA, READ_ONLY, tiny, words};
use crate::{mingw, rustc};

/// Copies made of each image.
const COPIES: u32 = 20_000;
/// The most memory this process may ever have had, in KiB: no table is allocated by a size that a file only claims.
const MOST_MEMORY: u64 = 600 << 10;

/// One of `0..limit`, or 0.
fn below(rng: &mut Rng, limit: usize) -> usize {
    rng.usize(..limit.max(1))
}

/// Changes a copy in one to three places and says how.
fn mutilate(file: &mut Vec<u8>, rng: &mut Rng) -> String {
    let changes: Vec<String> = (0..=below(rng, 3)).map(|_| change(file, rng)).collect();
    changes.join(", ")
}

fn change(file: &mut Vec<u8>, rng: &mut Rng) -> String {
    if below(rng, 20) == 0 {
        file.truncate(below(rng, file.len()));
        return format!("truncated to {:#x}", file.len());
    }
    let hot = if below(rng, 2) == 0 { file.len().min(0x400) } else { file.len() };
    let at = below(rng, hot);
    if below(rng, 3) == 0 {
        let bit = below(rng, 8);
        file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        return format!("bit {bit} of {at:#x}");
    }
    let width = [1, 2, 4, 8][below(rng, 4)];
    let at = at / width * width;
    let extremes =
        [0, 1, 7, 0x7f, 0xff, 0x1000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, u64::MAX, 1 << 63];
    let value =
        if below(rng, 4) == 0 { rng.u64(..) >> rng.u32(..64) } else { extremes[below(rng, extremes.len())] };
    for (place, byte) in file.iter_mut().skip(at).zip(&value.to_le_bytes()[..width]) {
        *place = *byte;
    }
    format!("{width} bytes at {at:#x} to {value:#x}")
}

/// Asks everything of an image that can be asked.
fn ask_everything(file: &[u8], rng: &mut Rng) -> bool {
    let image = match Image::parse("mutilated.sys", file) {
        Ok(image) => image,
        Err(error) => {
            assert!(error.to_string().len() < 2000, "a bounded message");
            return false;
        }
    };
    let base = 0x7fee_0000_0000;
    let loaded = image.load_at(base).or_else(|_| image.load_at(image.preferred_base()));
    assert!(loaded.is_ok_and(|memory| memory.len() == image.size() as usize));
    for range in image.protections() {
        assert!(range.rva + range.size <= image.size(), "{range:?} of {:#x}", image.size());
    }
    for import in image.imports() {
        assert!(import.slot + 8 <= image.size(), "{import:?}");
    }
    let bytes: usize = image.sections().iter().map(|section| image.section_data(section).len()).sum();
    assert!(bytes <= file.len() + 0x1000 * image.sections().len());
    let symbols = Symbols::new(&image, None).expect("no PDB is given");
    let known = image.functions().len();
    for index in 0..64 {
        let near = image.functions().get(below(rng, known)).map_or(0, |function| function.begin);
        let rva = if index % 2 == 0 {
            near + index
        } else {
            u32::try_from(below(rng, image.size() as usize)).expect("32 bits")
        };
        ask_at(&image, &symbols, base, rva, rng);
    }
    true
}

fn ask_at(image: &Image, symbols: &Symbols, base: u64, rva: u32, rng: &mut Rng) {
    if let Some(symbol) = symbols.lookup(rva) {
        assert!(symbol.offset <= rva);
    }
    if let Some(entry) = FunctionEntry::find(image, rva) {
        assert!(entry.handler().is_none_or(|handler| handler.rva < image.size()));
    }
    let mut registers = UnwindRegisters { rip: base + u64::from(rva), ..UnwindRegisters::default() };
    registers.general[RSP] = rng.u64(..);
    step(image, base, &registers, &mut |address| Some(address ^ 0x5555));
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse().expect("KiB")
}

/// Mutilates `file`; of the copies, some must still load, or the test tests refusals only.
fn survives(name: &str, file: &[u8]) {
    let mut rng = Rng::with_seed(0x0123_4567_89ab_cdef);
    let mut loaded = 0;
    for copy in 0..COPIES {
        let mut mutilated = file.to_vec();
        let changes = mutilate(&mut mutilated, &mut rng);
        let seed = rng.u64(..);
        let asked = std::panic::catch_unwind(|| ask_everything(&mutilated, &mut Rng::with_seed(seed)));
        loaded += u32::from(asked.unwrap_or_else(|_| panic!("{name}, copy {copy}: {changes}")));
    }
    assert!((COPIES / 20..COPIES).contains(&loaded), "{loaded} of {COPIES} copies of {name} load");
    assert!(peak_memory() < MOST_MEMORY, "{} KiB at its peak", peak_memory());
}

#[test]
fn a_mutilated_mingw_driver_is_refused_or_loads() {
    survives("plain.sys", &mingw::driver("plain.c"));
}

#[test]
fn a_mutilated_export_library_is_refused_or_loads() {
    survives("library.sys", &mingw::library());
}

#[test]
fn a_mutilated_image_of_nothing_but_tables_is_refused_or_loads() {
    let mut tables = words(&[0x2040, 0, 0, 0x2060, 0x2040, 0, 0, 0, 0, 0]);
    tables.resize(0x40, 0);
    tables.extend(words(&[0x2070, 0, 0, 0]));
    tables.resize(0x60, 0);
    tables.extend(b"a.sys\0\0\0\0\0\0\0\0\0\0\0\0\0Name\0\0");
    tables.resize(0x100, 0);
    tables.extend(words(&[0x1000, 0x1040, 0x2110, 0, 0x04_02_02_01, 0x3204_5002, 0x1000, 0x1020, 0x2110]));
    tables.resize(0x200, 0);
    tables.extend(words(&[0x2000, 12, 0xa040_a048]));
    let pdb = words(&[0, 0, 0, 2, 0x40, 0x2280, 0]);
    tables.extend([words(&[0]), pdb].concat());
    tables.resize(0x280, 0);
    tables.extend(b"RSDS0123456789abcdef\x01\0\0\0C:\\x.pdb\0");
    let size = u32::try_from(tables.len()).expect("small");
    let assembly = tiny().part(".tables", 0x2000, DATA, tables).part(".rest", 0x3000, READ_ONLY, vec![0; 64]);
    let assembly = assembly.directory(1, 0x2000, 40).directory(3, 0x2100, 12).directory(5, 0x2200, 12);
    let file = assembly.directory(6, 0x2210, 28).directory(10, 0x2000, size).link();
    assert!(Image::parse("tables.sys", &file).is_ok_and(|image| image.pdb().is_some()));
    survives("tables.sys", &file);
}

#[test]
fn a_mutilated_pdb_is_refused_or_read() {
    let (file, pdb) = rustc::driver("lines.rs");
    survives("lines.sys", &file);
    let image = Image::parse("lines.sys", &file).unwrap();
    let mut rng = Rng::with_seed(0x0fed_cba9_8765_4321);
    let (mut read, mut with_lines) = (0, 0);
    for copy in 0..COPIES {
        let mut mutilated = pdb.clone();
        let changes = mutilate(&mut mutilated, &mut rng);
        let read_all = || (Symbols::new(&image, Some(&mutilated)).ok(), Lines::new(&image, Some(&mutilated)));
        let (symbols, lines) = std::panic::catch_unwind(read_all)
            .unwrap_or_else(|_| panic!("lines.pdb, copy {copy}: {changes}"));
        with_lines += u32::from((0..image.size()).step_by(16).any(|rva| lines.at(rva).is_some()));
        let Some(symbols) = symbols else { continue };
        read += 1;
        (0..image.size())
            .step_by(16)
            .for_each(|rva| drop(symbols.lookup(rva).map(|symbol| symbol.to_string())));
    }
    assert!((COPIES / 20..COPIES).contains(&with_lines), "{with_lines} of {COPIES} have lines");
    assert!((COPIES / 20..COPIES).contains(&read), "{read} of {COPIES} are read");
    assert!(peak_memory() < MOST_MEMORY, "{} KiB at its peak", peak_memory());
}

/// As [`mutilate`], in one of the debug sections of an image.
fn mutilate_debug(file: &mut [u8], ranges: &[std::ops::Range<usize>], rng: &mut Rng) -> String {
    let range = ranges[below(rng, ranges.len())].clone();
    // The headers of programs are where a table's size is claimed.
    let hot = if below(rng, 2) == 0 { range.start..range.end.min(range.start + 0x80) } else { range };
    let mut part = file[hot.clone()].to_vec();
    let changes = mutilate(&mut part, rng);
    part.resize(hot.len(), 0);
    file[hot.clone()].copy_from_slice(&part);
    format!("{changes}, from {:#x}", hot.start)
}

/// `source` with DWARF of this version, and where in the file its sections of these names lie.
fn with_dwarf(source: &str, version: u32, sections: &[&str]) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let more = ["-Wl,--entry,DriverEntry", "-g", &format!("-gdwarf-{version}")];
    let file = mingw::build(&[source], &more);
    let image = Image::parse(source, &file).expect("it was just linked");
    let debug = image.sections().iter().filter(|section| sections.contains(&&*section.name));
    let range = |section: &image::Section| {
        section.file_offset as usize..(section.file_offset + section.virtual_size) as usize
    };
    let ranges: Vec<_> = debug.map(range).collect();
    assert!(!ranges.is_empty());
    (file, ranges)
}

#[test]
fn mutilated_dwarf_is_read_or_passed_over() {
    for version in [2, 4, 5] {
        let (file, ranges) = with_dwarf("plain.c", version, &[".debug_line", ".debug_line_str"]);
        let mut rng = Rng::with_seed(0x1357_9bdf_0246_8ace);
        let (mut all, mut some) = (0, 0);
        for copy in 0..COPIES / 5 {
            let mut mutilated = file.clone();
            let changes = mutilate_debug(&mut mutilated, &ranges, &mut rng);
            let image = Image::parse("plain.sys", &mutilated).unwrap();
            let lines = std::panic::catch_unwind(|| Lines::new(&image, None));
            let lines = lines.unwrap_or_else(|_| panic!("version {version}, copy {copy}: {changes}"));
            let known: Vec<_> = (0..image.size()).step_by(32).filter_map(|rva| lines.at(rva)).collect();
            some += u32::from(!known.is_empty());
            all += u32::from(!known.is_empty() && known.iter().all(|line| line.file.ends_with("plain.c")));
        }
        assert!((COPIES / 20..COPIES / 5).contains(&some), "version {version}: {some} copies have lines");
        assert!(all < some, "version {version}: names of files are damaged too");
    }
    assert!(peak_memory() < MOST_MEMORY, "{} KiB at its peak", peak_memory());
}

#[test]
fn mutilated_names_in_dwarf_are_read_or_passed_over() {
    for version in [2, 4, 5] {
        let (file, ranges) = with_dwarf("labels.c", version, &[".debug_info", ".debug_abbrev", ".debug_str"]);
        let mut rng = Rng::with_seed(0x0246_8ace_1357_9bdf);
        let mut named = 0;
        for copy in 0..COPIES / 5 {
            let mut mutilated = file.clone();
            let changes = mutilate_debug(&mut mutilated, &ranges, &mut rng);
            let image = Image::parse("labels.sys", &mutilated).unwrap();
            let symbols = std::panic::catch_unwind(|| Symbols::new(&image, None).unwrap());
            let symbols = symbols.unwrap_or_else(|_| panic!("version {version}, copy {copy}: {changes}"));
            named += u32::from(symbols.find("Lookup").is_some() && symbols.find("Last").is_some());
        }
        assert!((COPIES / 20..COPIES / 5).contains(&named), "version {version}: {named} copies have names");
    }
    assert!(peak_memory() < MOST_MEMORY, "{} KiB at its peak", peak_memory());
}
