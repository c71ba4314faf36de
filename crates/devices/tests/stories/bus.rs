//! Who claims an access, where firmware puts things, and what the interrupt lines show.

use devices::pci::{PciBus, legacy_irq};
use kernel::hal::hardware::{Hardware, PciAddress, Width};

use crate::rig::{Rig, card};

const MEMORY_AND_PORTS: &str = "pci,id=1234:5678,bar0=mem:4K,bar1=io:64,irq";

#[test]
fn a_place_nobody_claims_reads_as_ones_and_swallows_writes() {
    let mut rig = Rig::new(&[MEMORY_AND_PORTS]);
    assert_eq!(rig.port_read(0, 0x378, Width::Byte), Ok(0xFF));
    assert_eq!(rig.memory_read(0, 0xFED0_0000, Width::Qword), Ok(u64::MAX));
    assert_eq!(rig.memory_write(0, 0xFED0_0000, Width::Dword, 1), Ok(()));
    assert_eq!(rig.port_write(0, 0x378, Width::Word, 1), Ok(()));
    assert_eq!(rig.bus.config_read(PciAddress { bus: 0, device: 9, function: 0 }, 0, Width::Dword), u32::MAX);
    assert_eq!(rig.bus.config_read(PciAddress { bus: 1, device: 1, function: 0 }, 0, Width::Word), 0xFFFF);
}

#[test]
fn a_card_decodes_only_the_spaces_its_command_register_enables() {
    let mut rig = Rig::new(&[MEMORY_AND_PORTS]);
    rig.write("pci#0", 0, 0, Width::Dword, 0x11);
    rig.write("pci#0", 1, 0, Width::Dword, 0x22);
    rig.set_config("pci#0", 4, Width::Word, 0b10);
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0x11);
    assert_eq!(rig.read("pci#0", 1, 0, Width::Dword), 0xFFFF_FFFF);
    rig.set_config("pci#0", 4, Width::Word, 0b01);
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0xFFFF_FFFF);
    assert_eq!(rig.read("pci#0", 1, 0, Width::Dword), 0x22);
}

#[test]
fn a_window_follows_its_base_address_register() {
    let mut rig = Rig::new(&[MEMORY_AND_PORTS]);
    rig.write("pci#0", 0, 0x10, Width::Dword, 0xCAFE);
    let old = rig.window("pci#0", 0).base;
    rig.set_config("pci#0", 0x10, Width::Dword, 0xF000_0000);
    assert_eq!(rig.window("pci#0", 0).base, 0xF000_0000);
    assert_eq!(rig.memory_read(0, 0xF000_0010, Width::Dword), Ok(0xCAFE));
    assert_eq!(rig.memory_read(0, old + 0x10, Width::Dword), Ok(0xFFFF_FFFF));
}

#[test]
fn an_access_past_the_end_of_a_window_is_refused_with_the_card_and_the_place() {
    let mut rig = Rig::new(&[MEMORY_AND_PORTS]);
    let refusal = rig.try_read("pci#0", 0, 0xFFE, Width::Dword).unwrap_err();
    assert_eq!(
        refusal,
        "pci#0 BAR0+FFEh: an access of 4 bytes runs past the end of the window (1000h bytes)"
    );
    assert!(rig.try_write("pci#0", 1, 0x3F, Width::Word, 0).is_err());
}

#[test]
fn firmware_places_windows_by_size_in_the_order_of_slots() {
    let rig = Rig::new(&[MEMORY_AND_PORTS, "pci,id=1:2,bar0=mem:1M,bar2=io:256", MEMORY_AND_PORTS]);
    let bases = |name| rig.function(name).windows.iter().map(|window| window.base).collect::<Vec<_>>();
    assert_eq!(bases("pci#0"), [0xE000_0000, 0xC000]);
    assert_eq!(bases("pci#1"), [0xE010_0000, 0xC100]);
    assert_eq!(bases("pci#2"), [0xE000_1000, 0xC040]);
    assert_eq!(rig.at("pci#0"), PciAddress { bus: 0, device: 1, function: 0 });
    assert_eq!(rig.at("pci#2"), PciAddress { bus: 0, device: 3, function: 0 });
}

#[test]
fn a_64_bit_window_that_does_not_fit_below_4_gb_goes_above() {
    let mut rig = Rig::new(&["pci,id=1:2,bar0=pmem64:16G,bar2=mem64:64K"]);
    let (large, small) = (rig.window("pci#0", 0), rig.window("pci#0", 2));
    assert_eq!((large.base, large.length, large.prefetchable), (0x80_0000_0000, 16 << 30, true));
    assert_eq!(small.base, 0xE000_0000);
    rig.write("pci#0", 0, 0x3_0000_0000, Width::Qword, 7);
    assert_eq!(rig.read("pci#0", 0, 0x3_0000_0000, Width::Dword), 7);
    assert_eq!(rig.config("pci#0", 0x14, Width::Dword), 0x80, "the upper half is in the next register");
}

#[test]
fn slots_and_bases_can_be_asked_for() {
    let rig = Rig::new(&["pci,id=1:2,bar0=mem:128,at0=E0000080", "pci,id=1:3,bar0=mem:4K,slot=1"]);
    assert_eq!(rig.window("pci#0", 0).base, 0xE000_0080);
    assert_eq!(rig.window("pci#1", 0).base, 0xE000_1000, "the first page is taken in part");
    assert_eq!((rig.at("pci#0").device, rig.at("pci#1").device), (2, 1));
    assert_eq!(rig.bus.functions()[0].name, "pci#1", "sorted by address");
}

#[test]
fn cards_that_cannot_be_placed_are_told_apart_by_name() {
    let error = |specs: &[&str]| {
        PciBus::new(specs.iter().map(|spec| card(spec)).collect()).err().expect("no place").to_string()
    };
    let large = error(&["pci,id=1:2,bar0=mem:256M", "pci,id=1:2,bar3=mem:512M"]);
    assert_eq!(
        large,
        "pci#1: no room for BAR3 (20000000h bytes) in memory E0000000h-FEBFFFFFh; ask for less"
    );
    let fixed = "pci,id=1:2,bar0=io:64,at0=C000";
    assert_eq!(error(&[fixed, fixed]), "pci#1: at0=C000 overlaps another card's window");
    assert!(error(&["pci,id=1:2,bar0=io:64,at0=C020"]).contains("must be a multiple"));
    assert!(error(&["pci,id=1:2,at0=C020"]).contains("BAR0 has no window"));
    assert!(error(&["pci,id=1:2,slot=3", "pci,id=1:2,slot=3"]).contains("pci#1: slot 3 is taken"));
    assert!(error(&["pci,id=1:2,line=17"]).contains("no interrupt pin"));
    assert!(error(&["pci,id=1:2"; 32]).contains("pci#31: no slot is left"));
}

#[test]
fn pins_are_swizzled_to_lines_by_slot_and_the_line_register_holds_the_legacy_number() {
    let mut rig = Rig::new(&["pci,id=1:2,irq", "pci,id=1:2,irq=c", "pci,id=1:2", "pci,id=1:2,irq,line=21"]);
    let lines: Vec<_> = rig.bus.functions().iter().map(|function| function.line).collect();
    assert_eq!(lines, [Some(17), Some(16), None, Some(21)]);
    let registers: Vec<_> = (0..4).map(|n| rig.config(&format!("pci#{n}"), 0x3C, Width::Word)).collect();
    assert_eq!(registers, [0x010A, 0x030B, 0x00FF, 0x0103]);
    assert_eq!(legacy_irq(Some(17)), 10);
}

#[test]
fn two_cards_on_one_line_hold_it_up_until_both_let_go() {
    let mut rig = Rig::new(&["pci,id=1:2,irq,line=17", "pci,id=1:2,irq,line=17"]);
    assert_eq!(rig.bus.lines(), 0);
    rig.poke("pci#0", "irq", "1");
    rig.poke("pci#1", "irq", "1");
    assert_eq!(rig.bus.lines(), 1 << 17);
    assert_eq!(rig.bus.asserting(17), ["pci#0", "pci#1"]);
    rig.poke("pci#0", "irq", "0");
    assert_eq!((rig.bus.lines(), rig.bus.asserting(17)), (1 << 17, vec!["pci#1".to_owned()]));
    rig.poke("pci#1", "irq", "0");
    assert_eq!(rig.bus.lines(), 0);
}

#[test]
fn interrupt_disable_frees_the_line_while_the_status_bit_still_tells() {
    let mut rig = Rig::new(&["pci,id=1:2,irq=stuck"]);
    let line = rig.function("pci#0").line.unwrap();
    assert_eq!(rig.bus.asserting(line), ["pci#0"]);
    rig.set_config("pci#0", 4, Width::Word, 0x400);
    assert_eq!((rig.bus.lines(), rig.bus.asserting(line)), (0, vec![]));
    assert_eq!(
        rig.config("pci#0", 6, Width::Word) & 8,
        8,
        "interrupt status does not depend on the disable bit"
    );
}

#[test]
fn a_stuck_card_is_a_storm_that_nothing_a_driver_writes_to_its_windows_ends() {
    let mut rig = Rig::new(&["pci,id=1:2,bar0=mem:4K,irq=stuck"]);
    let line = rig.function("pci#0").line.unwrap();
    for offset in 0..64 {
        rig.write("pci#0", 0, offset * 4, Width::Dword, 0xFFFF_FFFF);
    }
    rig.poke("pci#0", "irq", "0");
    rig.pass_to(1_000_000_000);
    assert_eq!(rig.bus.lines(), 1 << line);
}

#[test]
fn a_bus_reset_takes_bases_decoding_and_contents_away() {
    let mut rig = Rig::new(&[MEMORY_AND_PORTS]);
    let base = rig.window("pci#0", 0).base;
    rig.write("pci#0", 0, 0, Width::Dword, 1);
    rig.bus.reset();
    assert_eq!(rig.window("pci#0", 0).base, 0);
    assert_eq!(rig.memory_read(0, base, Width::Dword), Ok(0xFFFF_FFFF));
    rig.set_config("pci#0", 0x10, Width::Dword, 0xE000_0000);
    rig.set_config("pci#0", 4, Width::Word, 2);
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0);
}

#[test]
fn a_poke_at_a_card_or_signal_that_is_not_there_names_what_is() {
    let mut rig = Rig::new(&["pci,id=1:2,irq", "pci9052"]);
    assert_eq!(
        rig.try_poke("pci#1", "irq", "1").unwrap_err(),
        "no device `pci#1` on the bus; there are: pci#0, pci9052#0"
    );
    assert_eq!(
        rig.try_poke("pci#0", "nmi", "1").unwrap_err(),
        "pci#0: no signal `nmi`; it has: irq, pulse, cause, done, and registers as bar0+4c (hexadecimal, 32 bits)"
    );
    assert_eq!(rig.try_poke("pci#0", "irq", "on").unwrap_err(), "pci#0: `on` is no level; say 1 or 0");
}

#[test]
fn a_card_pulled_out_of_its_slot_answers_nobody_and_lets_go_of_its_line() {
    let mut rig = Rig::new(&["pci,id=1234:5678,bar0=mem:4K,irq"]);
    let (name, at) = ("pci#0", rig.at("pci#0"));
    rig.poke(name, "irq", "1");
    assert_ne!(rig.bus.lines(), 0);
    rig.bus.set_present(at, false);
    assert_eq!(rig.bus.lines(), 0);
    assert_eq!(rig.read(name, 0, 0, Width::Dword), 0xFFFF_FFFF);
    assert_eq!(rig.config(name, 0, Width::Dword), 0xFFFF_FFFF);
    rig.bus.set_present(at, true);
    assert_eq!(rig.config(name, 0, Width::Dword), 0x5678_1234);
}
