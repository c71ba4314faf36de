//! What a loaded image looks like: sections, protections, relocations, imports, exports.

use image::{ExportTarget, Image, Selector};

use crate::mingw;

fn u64_at(memory: &[u8], rva: u32) -> u64 {
    u64::from_le_bytes(memory[rva as usize..][..8].try_into().expect("eight bytes"))
}

#[test]
fn a_mingw_driver_imports_by_name_and_has_pageable_and_init_sections() {
    let image = Image::parse("plain.sys", &mingw::driver("plain.c")).unwrap();
    let names: Vec<String> = image.imports().iter().map(|import| import.selector.to_string()).collect();
    assert_eq!(names, ["DbgPrint", "KeInitializeEvent"]);
    assert!(image.imports().iter().all(|import| import.module == "ntoskrnl.exe" && !import.delayed));
    let entry = image.section_at(image.entry_point().unwrap()).unwrap();
    assert!(entry.name == "INIT" && entry.protection.execute, "{entry:?}");
    let page = image.sections().iter().find(|section| section.name == "PAGE").unwrap();
    assert!(page.is_pageable() && !page.is_init());
    assert!(image.checksum().matches());
}

#[test]
fn a_moved_image_has_its_addresses_moved_and_says_where_it_is() {
    let image = Image::parse("plain.sys", &mingw::driver("plain.c")).unwrap();
    let (old, new) = (image.preferred_base(), 0x7000_0000_0000);
    let (before, after) = (image.load_at(old).unwrap(), image.load_at(new).unwrap());
    assert_eq!(after.len(), image.size() as usize);
    let pointers = |memory: &[u8], base: u64| -> Vec<u32> {
        let rvas = (0..image.size() - 8).step_by(8);
        let text = image.sections().iter().find(|section| section.name == ".text").unwrap();
        let code = base + u64::from(text.rva)..base + u64::from(text.end());
        rvas.filter(|&rva| code.contains(&u64_at(memory, rva))).collect()
    };
    let moved = pointers(&after, new);
    assert!(moved.len() >= 2, "the table of two functions");
    assert_eq!(moved, pointers(&before, old));
    assert!(moved.iter().all(|&rva| u64_at(&after, rva) - new == u64_at(&before, rva) - old));
}

#[test]
fn an_export_library_has_no_entry_point_but_names_ordinals_and_forwarders() {
    let image = Image::parse("library.sys", &mingw::library()).unwrap();
    assert_eq!(image.entry_point(), None);
    let open = image.export(&Selector::Name("LibraryOpen".into())).unwrap();
    assert_eq!(image.export(&Selector::Ordinal(5)), Some(open));
    let ExportTarget::Rva(rva) = open.target else { panic!("{open:?}") };
    assert!(image.section_at(rva).unwrap().protection.execute);
    let forward = image.export(&Selector::Name("SetEvent".into())).unwrap();
    let ExportTarget::Forward(forwarder) = &forward.target else { panic!("{forward:?}") };
    assert_eq!(forwarder.to_string(), "ntoskrnl.KeSetEvent");
    assert_eq!(image.export(&Selector::Name("libraryopen".into())), None, "case matters");
}
