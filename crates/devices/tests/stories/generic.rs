//! A card nobody has modelled: windows by one rule, an interrupt by hand.

use kernel::hal::hardware::{Hardware, Width};

use crate::rig::Rig;

#[test]
fn by_default_a_card_answers_as_memory() {
    let mut rig = Rig::new(&["pci,id=10b5:9050,bar0=mem:128,bar2=mem:64K,irq"]);
    rig.write("pci#0", 2, 0x1003, Width::Dword, 0x1122_3344);
    assert_eq!(rig.read("pci#0", 2, 0x1004, Width::Word), 0x2233);
    assert_eq!(rig.read("pci#0", 2, 0, Width::Qword), 0, "0 until written");
    assert_eq!(rig.read("pci#0", 0, 0x1C, Width::Dword), 0, "windows do not share contents");
    assert_eq!(
        rig.bus.describe(false, rig.window("pci#0", 2).base + 0x1003).as_deref(),
        Some("pci#0 BAR2+1003h")
    );
}

#[test]
fn a_card_can_answer_ones_as_if_it_were_pulled() {
    let mut rig = Rig::new(&["pci,id=1:2,bar0=mem:4K,reads=ones"]);
    rig.write("pci#0", 0, 0, Width::Dword, 0);
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0xFFFF_FFFF);
    assert_eq!(rig.read("pci#0", 0, 8, Width::Byte), 0xFF);
}

#[test]
fn a_card_can_answer_what_was_last_written_wherever_that_was() {
    let mut rig = Rig::new(&["pci,id=1:2,bar0=mem:4K,bar1=io:16,reads=last"]);
    rig.write("pci#0", 0, 0x40, Width::Dword, 0xAABB_CCDD);
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0xAABB_CCDD);
    assert_eq!(rig.read("pci#0", 0, 0x80, Width::Byte), 0xDD);
    assert_eq!(rig.read("pci#0", 1, 0, Width::Byte), 0, "each window for itself");
}

#[test]
fn a_card_without_a_pin_says_so_when_it_is_to_interrupt() {
    let mut rig = Rig::new(&["pci,id=1:2"]);
    let why = rig.try_poke("pci#0", "irq", "1").unwrap_err();
    assert_eq!(why, "pci#0: it has no interrupt pin; add `irq` to the device");
    assert_eq!(rig.bus.lines(), 0);
}
