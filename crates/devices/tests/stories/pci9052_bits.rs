//! `docs/pci9052.md` against the model: the page has each bit of each register once, each with a test that is there, and whether a bit
//! keeps what is written is tried.

use std::collections::BTreeMap;

use kernel::hal::hardware::Width;

use crate::rig::Rig;

const PAGE: &str = include_str!("../../../../docs/pci9052.md");
const STORIES: [&str; 4] = [
    include_str!("pci9052.rs"),
    include_str!("pci9052_time.rs"),
    include_str!("eeprom.rs"),
    include_str!("pci9052_bits.rs"),
];
const CARD: &str = "pci9052#0";

/// A row of the page's tables.
struct Row {
    register: &'static str,
    low: u32,
    high: u32,
    here: &'static str,
    test: &'static str,
}

fn rows() -> Vec<Row> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let rows = PAGE.lines().filter(|line| line.starts_with("| ")).map(cells);
    let rows = rows.filter(|cells| cells.len() == 5 && !matches!(cells[0], "register" | "---"));
    rows.map(|cells| {
        let (high, low) = cells[1].split_once(':').unwrap_or((cells[1], cells[1]));
        let [low, high] = [low, high].map(|bit| bit.parse().unwrap());
        Row { register: cells[0], low, high, here: cells[3], test: cells[4] }
    })
    .collect()
}

/// Where the registers of this name lie.
fn offsets(register: &str) -> Vec<u64> {
    match register {
        "LASxRR" => vec![0x00, 0x04, 0x08, 0x0C],
        "EROMRR" => vec![0x10],
        "LASxBA" => vec![0x14, 0x18, 0x1C, 0x20],
        "EROMBA" => vec![0x24],
        "LASxBRD" => vec![0x28, 0x2C, 0x30, 0x34],
        "EROMBRD" => vec![0x38],
        "CSxBASE" => vec![0x3C, 0x40, 0x44, 0x48],
        "INTCSR" => vec![0x4C],
        "CNTRL" => vec![0x50],
        other => panic!("no register {other}"),
    }
}

#[test]
fn the_page_has_each_bit_once_with_a_test_that_is_there() {
    let mut known: BTreeMap<&str, u32> = BTreeMap::new();
    for Row { register, low, high, here, test } in rows() {
        assert!(["acts", "kept", "read only"].contains(&here), "{register} {high}:{low}: {here}");
        let bits = u32::MAX >> (31 - (high - low)) << low;
        let before = known.entry(register).or_default();
        assert_eq!(*before & bits, 0, "{register} {high}:{low} is there twice");
        *before |= bits;
        let test = format!("fn {test}() {{");
        assert!(STORIES.iter().any(|story| story.contains(&test)), "{register} {high}:{low}: no `{test}`");
    }
    assert_eq!(known.len(), 9);
    for (register, bits) in known {
        assert_eq!(bits, u32::MAX, "{register}");
    }
}

/// What the register reads as, after all bits but one were written 0.
fn after(offset: u64, written: u32) -> u32 {
    let mut rig = Rig::new(&["pci9052,eeprom=blank"]);
    rig.write(CARD, 0, offset, Width::Dword, written.into());
    u32::try_from(rig.read(CARD, 0, offset, Width::Dword)).unwrap()
}

#[test]
fn each_bit_is_kept_or_not_as_the_page_says() {
    let mut tried = 0;
    for Row { register, low, high, here, .. } in rows() {
        for bit in (low..=high).map(|bit| 1_u32 << bit).filter(|_| here != "acts") {
            for offset in offsets(register) {
                let found = (after(offset, bit) & bit, after(offset, 0) & bit);
                let kept = found == (bit, 0);
                let unchanged = found.0 == found.1;
                assert!(
                    if here == "kept" { kept } else { unchanged },
                    "{register} at {offset:02X}h, bit {bit:08X}, {here}: {found:X?}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 190, "{tried}");
}

#[test]
fn no_space_asks_for_more_than_its_range_says() {
    // Range, and what the base address register holds after ones: its size and its kind.
    let cases = [
        (0x0FFF_FF00, 0xFFFF_FF00), // memory, 256 bytes
        (0x0FFF_0002, 0xFFFF_0002), // below 1 MB
        (0x0FF0_0008, 0xFFF0_0008), // prefetchable
        (0x0FFF_FFC1, 0xFFFF_FFC1), // I/O, 64 ports
        (0x0FFF_FFFD, 0xFFFF_FFFD), // I/O, 4 ports
        (0xF000_0000, 0),           // no size
    ];
    for (range, found) in cases {
        let mut rig = Rig::new(&["pci9052"]);
        rig.write(CARD, 0, 0x08, Width::Dword, range);
        rig.write(CARD, 0, 0x1C, Width::Dword, 1);
        rig.set_config(CARD, 0x20, Width::Dword, 0xFFFF_FFFF);
        assert_eq!(rig.config(CARD, 0x20, Width::Dword), found, "{range:08X}");
    }
    let mut rig = Rig::new(&["pci9052"]);
    rig.write(CARD, 0, 0x08, Width::Dword, 0x0FFF_F004);
    rig.write(CARD, 0, 0x1C, Width::Dword, 1);
    for (register, found) in [(0x20, 0xFFFF_F004), (0x24, 0xFFFF_FFFF)] {
        rig.set_config(CARD, register, Width::Dword, 0xFFFF_FFFF);
        let held = rig.config(CARD, register, Width::Dword);
        assert_eq!(held, found, "a base of 64 bits takes two registers: {register:02X}h");
    }
}

#[test]
fn the_expansion_rom_has_the_size_of_its_range_and_nothing_in_it() {
    let mut rig = Rig::new(&["pci9052"]);
    rig.write(CARD, 0, 0x10, Width::Dword, 0x0FFF_0000);
    rig.set_config(CARD, 0x30, Width::Dword, 0xFFFF_FFFE);
    assert_eq!(rig.config(CARD, 0x30, Width::Dword), 0xFFFF_0000);
    rig.set_config(CARD, 0x30, Width::Dword, 0xD000_0001);
    rig.set_config(CARD, 0x04, Width::Word, 7);
    let now = rig.now;
    assert_eq!(rig.memory_read(now, 0xD000_0000, Width::Dword).unwrap(), 0xFFFF_FFFF);
    rig.write(CARD, 0, 0x10, Width::Dword, 0);
    assert_eq!(rig.config(CARD, 0x30, Width::Dword), 0, "no size, no ROM");
}
