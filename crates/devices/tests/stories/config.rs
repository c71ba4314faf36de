//! Configuration space, through the ports of mechanism 1 and through the kernel's own calls.

use kernel::hal::hardware::{Hardware, PciAddress, Width};

use crate::rig::{Numbers, Rig};

const CARD: &str =
    "pci,id=10b5:9054,bar0=mem:128,bar1=io:64,bar2=pmem64:1M,irq,sub=1234:5678,class=068000,rev=0x0B";

/// Reads as a legacy driver does: `out 0CF8h`, `in 0CFCh`.
fn by_ports(rig: &mut Rig, device: u32, register: u32) -> u32 {
    rig.port_write(0, 0xCF8, Width::Dword, 0x8000_0000 | device << 11 | register).unwrap();
    rig.port_read(0, 0xCFC, Width::Dword).unwrap()
}

#[test]
fn a_driver_that_scans_by_ports_finds_the_card_in_its_slot_only() {
    let mut rig = Rig::new(&[CARD]);
    let found: Vec<u32> = (0..32).filter(|device| by_ports(&mut rig, *device, 0) != u32::MAX).collect();
    assert_eq!(found, [1]);
    assert_eq!(by_ports(&mut rig, 1, 0), 0x9054_10B5);
    assert_eq!(by_ports(&mut rig, 1, 8), 0x0680_000B);
    assert_eq!(by_ports(&mut rig, 1, 0x2C), 0x5678_1234);
    assert_eq!(by_ports(&mut rig, 1, 0x3C), 0x0000_010A);
    assert_eq!(rig.port_read(0, 0xCF8, Width::Dword), Ok(0x8000_083C), "the latch reads back");
}

#[test]
fn bytes_and_words_of_config_data_lie_at_cfch_plus_n() {
    let mut rig = Rig::new(&[CARD]);
    by_ports(&mut rig, 1, 0);
    assert_eq!(rig.port_read(0, 0xCFE, Width::Word), Ok(0x9054));
    assert_eq!(rig.port_read(0, 0xCFD, Width::Byte), Ok(0x10));
    by_ports(&mut rig, 1, 0x3C);
    rig.port_write(0, 0xCFC, Width::Byte, 0x55).unwrap();
    assert_eq!(rig.config("pci#0", 0x3C, Width::Byte), 0x55);
    by_ports(&mut rig, 1, 0x04);
    rig.port_write(0, 0xCFD, Width::Byte, 0x04).unwrap();
    assert_eq!(
        rig.config("pci#0", 4, Width::Word),
        0x0403,
        "a byte write to the upper half of the command register"
    );
}

#[test]
fn config_data_is_nobody_without_the_enable_bit_and_the_latch_takes_only_dwords() {
    let mut rig = Rig::new(&[CARD]);
    rig.port_write(0, 0xCF8, Width::Dword, 1 << 11).unwrap();
    assert_eq!(rig.port_read(0, 0xCFC, Width::Dword), Ok(u32::MAX));
    rig.port_write(0, 0xCF8, Width::Byte, 0x3C).unwrap();
    assert_eq!(rig.port_read(0, 0xCF8, Width::Dword), Ok(1 << 11));
    assert_eq!(rig.bus.describe(true, 0xCFA).as_deref(), Some("CONFIG_ADDRESS"));
    assert_eq!(rig.bus.describe(true, 0xCFC).as_deref(), Some("CONFIG_DATA"));
}

#[test]
fn writing_ones_to_a_base_tells_its_size_and_kind() {
    let mut rig = Rig::new(&[CARD]);
    for (register, reads) in [
        (0x10, 0xFFFF_FF80),
        (0x14, 0xFFFF_FFC1),
        (0x18, 0xFFF0_000C),
        (0x1C, 0xFFFF_FFFF),
        (0x20, 0),
        (0x30, 0),
    ] {
        rig.set_config("pci#0", register, Width::Dword, 0xFFFF_FFFF);
        assert_eq!(rig.config("pci#0", register, Width::Dword), reads, "register {register:02X}h");
    }
}

#[test]
fn a_base_can_be_written_byte_by_byte() {
    let mut rig = Rig::new(&[CARD]);
    for (offset, byte) in [(0x10, 0xFF), (0x11, 0x12), (0x12, 0x34), (0x13, 0xF1)] {
        rig.set_config("pci#0", offset, Width::Byte, byte);
    }
    assert_eq!(rig.config("pci#0", 0x10, Width::Dword), 0xF134_1280);
}

#[test]
fn ids_and_missing_command_bits_cannot_be_written() {
    let mut rig = Rig::new(&["pci9052"]);
    for offset in [0x00, 0x08, 0x2C, 0x34, 0x40] {
        let before = rig.config("pci9052#0", offset, Width::Dword);
        rig.set_config("pci9052#0", offset, Width::Dword, !before);
        assert_eq!(rig.config("pci9052#0", offset, Width::Dword), before, "register {offset:02X}h");
    }
    rig.set_config("pci9052#0", 4, Width::Word, 0xFFFF);
    assert_eq!(
        rig.config("pci9052#0", 4, Width::Word),
        0x0143,
        "a target of PCI 2.1: no master, no interrupt disable"
    );
}

#[test]
fn no_sequence_of_configuration_accesses_panics_or_loses_a_window_s_size() {
    const CARDS: [&str; 3] = [CARD, "pci9052", "pci,id=1:2,bar0=mem64:64K,bar2=io:4,irq=d"];
    for seed in 1..200 {
        let mut numbers = Numbers::from(seed);
        let mut rig = Rig::new(&CARDS);
        let sizes = |rig: &Rig| -> Vec<Vec<u64>> {
            rig.bus.functions().iter().map(|f| f.windows.iter().map(|w| w.length).collect()).collect()
        };
        let before = sizes(&rig);
        for _ in 0..400 {
            step(&mut rig, &mut numbers);
        }
        assert_eq!(sizes(&rig), before, "seed {seed}");
        for (function, card) in rig.bus.functions().into_iter().zip(CARDS) {
            sizing_tells_the_size(&mut rig, &function.name, &format!("seed {seed}, {card}"));
        }
    }
}

/// One access of any width at any place: configuration calls, configuration ports, and whatever is decoded now.
fn step(rig: &mut Rig, numbers: &mut Numbers) {
    let width = [Width::Byte, Width::Word, Width::Dword][(numbers.next() % 3) as usize];
    let offset = (numbers.next() & 0xFFF) as u16;
    let at =
        PciAddress { bus: 0, device: (numbers.next() % 5) as u8, function: (numbers.next() % 8 / 7) as u8 };
    let value = (numbers.next() >> 32) as u32;
    let port = 0xCF6 + (numbers.next() % 12) as u16;
    match numbers.next() % 5 {
        0 => drop(rig.bus.config_read(at, offset, width)),
        1 => rig.bus.config_write(at, offset, width, value),
        2 => drop(rig.port_read(0, port, width)),
        3 => drop(rig.port_write(0, port, width, value)),
        _ => drop(rig.memory_read(0, value.into(), Width::Qword)),
    }
    assert!(rig.bus.lines() >> 24 == 0);
}

fn sizing_tells_the_size(rig: &mut Rig, name: &str, context: &str) {
    for window in rig.function(name).windows {
        let register = 0x10 + window.bar * 4;
        rig.set_config(name, register, Width::Dword, u32::MAX);
        let low_bits = if window.port { 3 } else { 15 };
        let size = !(rig.config(name, register, Width::Dword) & !low_bits) + 1;
        assert_eq!(u64::from(size), window.length, "{context}: BAR{}", window.bar);
    }
}
