//! Odd shapes that real drivers have, assembled by hand.

use image::{DEFAULT_COOKIE, Image, PageRange, Protection, Selector};

use crate::assemble::{
    Assembly, CODE, DATA, DELAY_IMPORT, EXPORT, IMPORT, LOAD_CONFIG, READ_ONLY, RELOCATIONS, put, tiny, words,
};

fn parse(assembly: &Assembly) -> Image {
    Image::parse("odd.sys", &assembly.link()).expect("a sound image")
}

/// A relocation block for `page`, its entries as given.
pub(crate) fn block(page: u32, entries: &[u16]) -> Vec<u8> {
    let mut bytes = words(&[page, 8 + 2 * u32::try_from(entries.len()).expect("few")]);
    bytes.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    bytes
}

/// Imports of `odd.sys` at RVA 2000h: `alpha.sys!#7` and `alpha.sys!Open`, slots at 20A0h.
fn imports() -> Vec<u8> {
    let mut bytes = vec![0; 0x100];
    put(&mut bytes, 0, &words(&[0x2040, 0, 0, 0x2080, 0x20a0]));
    for table in [0x40, 0xa0] {
        put(&mut bytes, table, &(1u64 << 63 | 7).to_le_bytes());
        put(&mut bytes, table + 8, &0x2090u64.to_le_bytes());
    }
    put(&mut bytes, 0x80, b"alpha.sys\0");
    put(&mut bytes, 0x90, b"\x03\0Open\0");
    bytes
}

#[test]
fn no_relocation_directory_but_not_stripped_may_go_anywhere() {
    let image = parse(&tiny());
    assert_eq!(image.preferred_base(), 0x1_0000);
    let memory = image.load_at(0x7fff_0000_0000).unwrap();
    assert_eq!(memory[0x1000], 0xc3);
    assert_eq!(memory[0x98 + 24..][..8], 0x7fff_0000_0000u64.to_le_bytes(), "ImageBase says where it is");
}

#[test]
fn stripped_relocations_hold_it_at_its_own_base() {
    let image = parse(&Assembly { characteristics: 0x0023, ..tiny() });
    assert!(image.load_at(0x1_0000).is_ok());
    let refusal = image.load_at(0x2_0000).err().unwrap().to_string();
    assert!(refusal.contains("relocations were stripped") && refusal.contains("0x20000"), "{refusal}");
}

#[test]
fn sections_aligned_to_128_bytes_share_one_mapping_of_all_their_rights() {
    let base = Assembly {
        section_alignment: 0x80,
        file_alignment: 0x80,
        size_of_headers: 0x280,
        entry: 0x280,
        ..tiny()
    };
    let mut odd = base.part(".data", 0x300, DATA, vec![9; 0x20]);
    odd.parts[0].rva = 0x280;
    let image = parse(&odd);
    let all = Protection { read: true, write: true, execute: true };
    assert_eq!(image.protections(), [PageRange { rva: 0, size: 0x1000, protection: all }]);
    let memory = image.load_at(0x5_0000).unwrap();
    assert_eq!((memory.len(), memory[0x280], memory[0x300], memory[0x31f]), (0x1000, 0xc3, 9, 9));
}

#[test]
fn each_section_keeps_its_own_rights() {
    let image = parse(&tiny().part(".data", 0x2000, DATA, vec![1; 0x1800]).part(
        ".rdata",
        0x4000,
        READ_ONLY,
        vec![2],
    ));
    let ranges = image.protections();
    let shown: Vec<_> = ranges.iter().map(|r| format!("{:x}+{:x} {}", r.rva, r.size, r.protection)).collect();
    assert_eq!(shown, ["0+1000 r--", "1000+1000 r-x", "2000+2000 rw-", "4000+1000 r--"]);
}

#[test]
fn what_the_file_does_not_give_is_zero() {
    let mut odd = tiny().part(".data", 0x2000, DATA, vec![5; 0x10]);
    odd.parts[1].virtual_size = 0x3000;
    let memory = parse(&odd).load_at(0x1_0000).unwrap();
    assert_eq!(memory.len(), 0x5000);
    assert_eq!(memory[0x2000..0x2010], [5; 16]);
    assert!(memory[0x2010..].iter().all(|&byte| byte == 0));
}

#[test]
fn imports_by_ordinal_and_by_name_each_have_their_slot() {
    let image = parse(&tiny().part(".idata", 0x2000, DATA, imports()).directory(IMPORT, 0x2000, 0x28));
    let shown: Vec<_> = image.imports().iter().map(|i| (i.selector.clone(), i.hint, i.slot)).collect();
    assert_eq!(shown, [(Selector::Ordinal(7), 0, 0x20a0), (Selector::Name("Open".into()), 3, 0x20a8)]);
    assert!(image.imports().iter().all(|import| import.module == "alpha.sys"));
}

#[test]
fn a_table_without_a_name_list_takes_names_from_its_slots() {
    let mut bytes = imports();
    put(&mut bytes, 0, &0u32.to_le_bytes());
    let image = parse(&tiny().part(".idata", 0x2000, DATA, bytes).directory(IMPORT, 0x2000, 0x28));
    assert_eq!(image.imports()[1].selector, Selector::Name("Open".into()));
}

#[test]
fn delayed_imports_come_last_and_say_so() {
    let mut bytes = imports();
    bytes.extend(words(&[1, 0x2080, 0, 0x20a0, 0x2040, 0, 0, 0]));
    bytes.extend([0; 32]);
    let image = parse(&tiny().part(".didat", 0x2000, DATA, bytes).directory(DELAY_IMPORT, 0x2100, 0x40));
    let shown: Vec<_> = image.imports().iter().map(|i| (i.selector.to_string(), i.delayed)).collect();
    assert_eq!(shown, [("#7".into(), true), ("Open".into(), true)]);
}

#[test]
fn one_entry_with_two_names_is_two_exports() {
    let mut bytes = words(&[0, 0, 0, 0x2050, 10, 2, 2, 0x2028, 0x2030, 0x2038]);
    bytes.extend(words(&[0, 0x1004, 0x2040, 0x2044]));
    bytes.extend([1, 0, 1, 0, 0, 0, 0, 0]);
    bytes.extend(b"Old\0New\0");
    let image = parse(&tiny().part(".edata", 0x2000, READ_ONLY, bytes).directory(EXPORT, 0x2000, 0x48));
    let shown: Vec<_> = image.exports().iter().map(|e| (e.ordinal, e.name.as_deref())).collect();
    assert_eq!(shown, [(11, Some("New")), (11, Some("Old"))], "and the gap at ordinal 10 is none");
}

#[test]
fn relocations_move_addresses_and_padding_moves_nothing() {
    let mut data = 0x1_1000u64.to_le_bytes().to_vec();
    data.extend([0; 8]);
    data.extend(block(0x2000, &[10 << 12, 0]));
    let image = parse(&tiny().part(".data", 0x2000, DATA, data).directory(RELOCATIONS, 0x2010, 12));
    let memory = image.load_at(0x6666_0000).unwrap();
    assert_eq!(memory[0x2000..0x2008], 0x6666_1000u64.to_le_bytes());
    assert_eq!(memory[0x2008..0x2010], [0; 8]);
}

#[test]
fn the_loader_gives_the_cookie_a_value_of_its_own_the_same_each_time() {
    let mut data = vec![0; 0x100];
    put(&mut data, 0, &words(&[0x94]));
    put(&mut data, 0x58, &0x1_20c0u64.to_le_bytes());
    put(&mut data, 0x70, &0x1_20c8u64.to_le_bytes());
    put(&mut data, 0x78, &0x1_20d0u64.to_le_bytes());
    put(&mut data, 0xc0, &DEFAULT_COOKIE.to_le_bytes());
    let odd = tiny().part(".data", 0x2000, DATA, data).directory(LOAD_CONFIG, 0x2000, 0x94);
    let image = parse(&odd);
    let config = image.load_config();
    assert_eq!(config.security_cookie, Some(0x20c0));
    assert_eq!((config.guard_check, config.guard_dispatch), (Some(0x20c8), Some(0x20d0)));
    let cookie = |base| u64::from_le_bytes(image.load_at(base).unwrap()[0x20c0..][..8].try_into().unwrap());
    assert_eq!(cookie(0x1_0000), cookie(0x1_0000));
    assert_ne!(cookie(0x1_0000), cookie(0x2_0000));
    for value in [cookie(0x1_0000), cookie(0x2_0000)] {
        assert!(value != 0 && value != DEFAULT_COOKIE && value >> 48 == 0, "{value:#x}");
    }
}

#[test]
fn an_old_load_configuration_has_a_cookie_but_no_guard() {
    let mut data = vec![0xff; 0x100];
    put(&mut data, 0, &words(&[0x70]));
    put(&mut data, 0x58, &0x1_20c0u64.to_le_bytes());
    let config =
        parse(&tiny().part(".data", 0x2000, DATA, data).directory(LOAD_CONFIG, 0x2000, 0x70)).load_config();
    assert_eq!((config.security_cookie, config.guard_check), (Some(0x20c0), None));
}

#[test]
fn init_is_freed_only_if_it_is_discardable_too() {
    let image = parse(&tiny().part("INIT", 0x2000, CODE | 0x0200_0000, vec![0xc3]).part(
        "INIT",
        0x3000,
        CODE,
        vec![0xc3],
    ));
    let shown: Vec<_> = image.sections().iter().map(image::Section::is_init).collect();
    assert_eq!(shown, [false, true, false]);
}

#[test]
fn a_changed_byte_shows_in_the_checksum() {
    let mut file = crate::mingw::driver("plain.c");
    assert!(Image::parse("plain.sys", &file).unwrap().checksum().matches());
    let last = file.len() - 1;
    file[last] ^= 0x10;
    let checksum = Image::parse("plain.sys", &file).unwrap().checksum();
    assert!(!checksum.matches() && checksum.stored != 0);
}
