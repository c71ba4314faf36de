//! The kernel's image as drivers find it that look routines up by themselves: headers, an export directory, its entry in
//! `PsLoadedModuleList`.
//!
//! Page: *PE Format*. What lies in its sections is `pseudo`'s. The directory has what Windows of the machine's version exports by a documented
//! name; what dirql has not of that leads into pages that are never mapped, as an import that no module has, and a call or a read there is
//! a verdict that names it. It has no imports and no relocations, and `hal.dll` is no module of its own: its names are here.

use abi::DriverPtr;
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::{code, imports, modules, pseudo};
use crate::cx::{Cx, Kernel};
use crate::exports::{FUNCTIONS, INTERNAL, data, documented};
use crate::fields::Fields;
use crate::mm::map::Page;

/// Its file name.
pub(crate) const NAME: &str = "ntoskrnl.exe";
/// Where Windows keeps it.
pub(crate) const FOLDER: &str = "\\SystemRoot\\system32\\";
/// Where the export directory lies, behind the variables.
const DIRECTORY: u64 = data::OFFSET + data::PAGES * PAGE;
/// Pages of the export directory.
const DIRECTORY_PAGES: u64 = 16;
/// Bytes from its base to its end.
pub(crate) const SIZE: u64 = DIRECTORY + DIRECTORY_PAGES * PAGE;
/// What a time stamp is in files that are made the same each time: no time, but the same for the same contents.
const TIME_STAMP: u32 = 0xD1_2C_00_01;

const _: () = assert!(pseudo::exports_base() + SIZE <= pseudo::FIRST_IMAGE);

fn rva(offset: u64) -> u32 {
    u32::try_from(offset).expect("the image is smaller than 32 MiB")
}

/// The headers, `code::FIRST` bytes at most: `IMAGE_DOS_HEADER`, `IMAGE_NT_HEADERS64`, three `IMAGE_SECTION_HEADER`.
pub(super) fn headers(directory_bytes: u32) -> Vec<u8> {
    const NT_HEADERS: u32 = 0x80;
    const OPTIONAL_BYTES: u16 = 0xF0;
    let text = rva(16 * (FUNCTIONS.len() + INTERNAL.len()) as u64);
    let dos = Fields::default().bytes(b"MZ").pad_to(0x3C).u32(NT_HEADERS).pad_to(NT_HEADERS as usize);
    // IMAGE_FILE_HEADER: x64, sections; executable, large addresses.
    let file = dos.bytes(b"PE\0\0").u16(0x8664).u16(3).u32(TIME_STAMP).u64(0).u16(OPTIONAL_BYTES).u16(0x22);
    // IMAGE_OPTIONAL_HEADER64: PE32+, linker, sizes of code and data, no entry point, base of code and of the image, alignments.
    let sizes = file.u16(0x20B).u16(14).u32(text).u32(rva(data::PAGES * PAGE)).u64(0).u32(rva(PAGE));
    let placed = sizes.u64(pseudo::exports_base()).u32(rva(PAGE)).u32(0x200);
    // Versions of Windows, of the image and of the subsystem; sizes of image and headers, no checksum; native.
    let versions = placed.u32(10).u32(10).u32(10).u32(0);
    let whole = versions.u32(rva(SIZE)).u32(rva(code::FIRST)).u32(0).u16(1).u16(0);
    // Stack and heap, which a driver does not have; loader flags, and the first of the directories.
    let optional = whole.u64(0).u64(0).u64(0).u64(0).u32(0).u32(16).u32(rva(DIRECTORY)).u32(directory_bytes);
    let header = optional.pad_to(NT_HEADERS as usize + 4 + 20 + usize::from(OPTIONAL_BYTES));
    let sections: [(&[u8; 8], u32, u64, u32); 3] = [
        (b".text\0\0\0", text, PAGE, 0x6000_0020),
        (b".data\0\0\0", rva(data::PAGES * PAGE), data::OFFSET, 0xC000_0040),
        (b".edata\0\0", directory_bytes, DIRECTORY, 0x4000_0040),
    ];
    let all = sections.into_iter().fold(header, |header, (name, bytes, at, characteristics)| {
        let placed = header.bytes(name).u32(bytes).u32(rva(at)).u32(bytes).u32(rva(at));
        placed.u64(0).u32(0).u32(characteristics)
    });
    all.pad_to(rva(code::FIRST) as usize).done()
}

/// What the machine's Windows exports, sorted by name, and where it lies: what is documented, and what dirql has without a page.
fn entries(k: &Kernel) -> Vec<(&'static str, u32)> {
    let place = |address: u64| rva(address - pseudo::exports_base());
    // Both are sorted: no name is searched for.
    let mut rows = (0..).zip(FUNCTIONS).filter(|(_, row)| super::is_kernel(row.module)).peekable();
    let mut all = Vec::new();
    for (index, (name, since)) in (0..).zip(documented::names()) {
        while let Some((number, row)) = rows.next_if(|(_, row)| row.name < name) {
            all.push((row.name, place(pseudo::thunk(number))));
        }
        let routine = rows.next_if(|(_, row)| row.name == name).map(|(number, _)| pseudo::thunk(number));
        if imports::is_too_new(k, name, since) {
            continue;
        }
        let known =
            code::export(name).or(routine).or_else(|| data::find(name).map(data::DataExport::address));
        all.push((name, place(known.unwrap_or_else(|| imports::documented_entry(index)))));
    }
    all.extend(rows.map(|(number, row)| (row.name, place(pseudo::thunk(number)))));
    all
}

/// `IMAGE_EXPORT_DIRECTORY`, its three tables and its names.
fn directory(k: &Kernel) -> Vec<u8> {
    const HEAD: u32 = 0x28;
    let rows = entries(k);
    let count = u32::try_from(rows.len()).expect("Windows has some thousand");
    let functions = rva(DIRECTORY) + HEAD;
    let (names, ordinals) = (functions + 4 * count, functions + 8 * count);
    let texts = ordinals + 2 * count;
    let head =
        Fields::default().u64(u64::from(TIME_STAMP) << 32).u32(0).u32(texts).u32(1).u32(count).u32(count);
    let head = head.u32(functions).u32(names).u32(ordinals);
    let addresses = rows.iter().fold(head, |head, (_, function)| head.u32(*function));
    let module = Fields::default().bytes(NAME.as_bytes()).bytes(&[0]);
    let (named, text) = rows.iter().fold((addresses, module), |(named, text), (name, _)| {
        (named.u32(texts + rva(text.len() as u64)), text.bytes(name.as_bytes()).bytes(&[0]))
    });
    let ordered =
        (0..rows.len()).fold(named, |named, ordinal| named.u16(u16::try_from(ordinal).unwrap_or(u16::MAX)));
    ordered.bytes(&text.done()).done()
}

/// Lays out headers, directory and the entry in the list of modules. Once.
///
/// # Errors
/// None today; it is part of starting a machine, which may stop.
pub(super) fn boot(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| {
        let bytes = directory(k);
        assert!(bytes.len() as u64 <= DIRECTORY_PAGES * PAGE, "the directory has too few pages");
        let pages = k.mm.physical.take_pages(DIRECTORY_PAGES).expect("a machine that starts has memory");
        let page = Page { physical: 0, protection: Protection::READ, pageable: false };
        let at = pseudo::exports_base() + DIRECTORY;
        k.mm.map.map_filled(k.engine, at, &pages, page, |engine| engine.write_bytes(at, &bytes));
        code::boot(k, &headers(rva(bytes.len() as u64)));
    });
    Ok(())
}

/// Its entry in the list of modules, the first.
///
/// # Errors
/// As [`boot`].
pub(super) fn list(cx: &mut Cx<'_>) -> Flow<()> {
    let module = modules::Module {
        folder: FOLDER,
        name: NAME,
        base: pseudo::exports_base(),
        size: rva(SIZE),
        entry_point: DriverPtr::NULL,
        checksum: 0,
    };
    modules::add_at(cx, &module, data::kernel_module(), data::kernel_module_path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::rig::machine;

    #[test]
    fn every_routine_and_variable_is_in_the_directory_once_and_names_are_sorted() {
        machine(|cx: &mut Cx<'_>| {
            let entries = cx.with(|k| entries(k));
            assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
            for name in FUNCTIONS.iter().map(|row| row.name).chain(data::DATA.iter().map(|row| row.name)) {
                let found = entries.binary_search_by_key(&name, |entry| entry.0).is_ok();
                assert_eq!(found, !imports::is_library(name), "{name}");
            }
        });
    }
}
