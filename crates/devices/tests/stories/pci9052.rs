//! The PCI 9052 and its board: registers, local spaces, interrupts, reset and errata.

use kernel::hal::hardware::{Hardware, Width};

use crate::rig::{Numbers, Rig, refused};

const CARD: &str = "pci9052#0";
const INTCSR: u64 = 0x4C;
const CNTRL: u64 = 0x50;
/// Offsets in BAR2 of the built-in board.
const STATUS: u64 = 0xFFF8;
const DOORBELL: u64 = 0xFFFC;
/// LINTi1 enabled, active high, PCI interrupt enabled; LINTi2 active high.
const LISTEN: u64 = 0x53;

fn lcr(rig: &mut Rig, offset: u64) -> u64 {
    rig.read(CARD, 0, offset, Width::Dword)
}

fn set_lcr(rig: &mut Rig, offset: u64, value: u64) {
    rig.write(CARD, 0, offset, Width::Dword, value);
}

fn asserts(rig: &Rig) -> bool {
    rig.bus.lines() != 0
}

#[test]
fn the_card_shows_the_ids_and_windows_a_driver_looks_for() {
    let mut rig = Rig::new(&["pci9052"]);
    assert_eq!(rig.config(CARD, 0x00, Width::Dword), 0x9050_10B5);
    assert_eq!(rig.config(CARD, 0x08, Width::Dword), 0x0680_0002);
    assert_eq!(rig.config(CARD, 0x2C, Width::Dword), 0x9050_10B5);
    assert_eq!(rig.config(CARD, 0x3D, Width::Byte), 1);
    let windows: Vec<_> = rig.function(CARD).windows.iter().map(|w| (w.bar, w.port, w.length)).collect();
    assert_eq!(windows, [(0, false, 0x80), (1, true, 0x80), (2, false, 0x1_0000), (3, true, 0x100)]);
}

#[test]
fn a_blank_eeprom_leaves_the_chip_s_own_values() {
    for spec in ["pci9052,eeprom=blank", "pci9052,eeprom=none"] {
        let mut rig = Rig::new(&[spec]);
        assert_eq!(lcr(&mut rig, 0x00), 0x0FF0_0000);
        assert_eq!(
            (lcr(&mut rig, 0x04), lcr(&mut rig, 0x10), lcr(&mut rig, 0x24)),
            (0, 0x07FF_8000, 0x0008_0000)
        );
        assert_eq!((lcr(&mut rig, 0x28), lcr(&mut rig, 0x38)), (0x0080_0000, 0x0080_0000));
        assert_eq!(rig.function(CARD).windows.len(), 2, "no local space is enabled");
        assert_eq!(lcr(&mut rig, CNTRL) >> 28 & 1, u64::from(spec.ends_with("blank")), "EEPROM present");
    }
}

#[test]
fn data_out_of_a_silent_eeprom_stays_low_and_of_an_erased_one_high() {
    let mut rig = Rig::new(&["pci9052"]);
    let data_out = |rig: &mut Rig| lcr(rig, CNTRL) >> 27 & 1;
    assert_eq!(data_out(&mut rig), 1, "it is pulled up while the part is not selected");
    rig.poke(CARD, "eeprom-silent", "1");
    assert_eq!(data_out(&mut rig), 0);
    rig.poke(CARD, "eeprom-silent", "0");
    assert_eq!(data_out(&mut rig), 1);
    // Selected, with a start bit, READ and address 0 in: a dummy 0 comes first.
    let clocked = [1, 1, 0, 0, 0, 0, 0, 0, 0];
    for data in clocked {
        let lines = 1 << 25 | data << 26;
        rig.write(CARD, 0, CNTRL, Width::Dword, lines);
        rig.write(CARD, 0, CNTRL, Width::Dword, lines | 1 << 24);
    }
    assert_eq!(data_out(&mut rig), 0);
    rig.poke(CARD, "eeprom-erased", "1");
    assert_eq!(data_out(&mut rig), 1);
}

#[test]
fn the_registers_are_the_same_through_memory_and_through_ports() {
    let mut rig = Rig::new(&["pci9052"]);
    rig.write(CARD, 1, 0x40, Width::Dword, 0x1234_5678);
    assert_eq!(rig.read(CARD, 0, 0x40, Width::Dword), 0x1234_5678);
    rig.write(CARD, 0, 0x41, Width::Byte, 0xAA);
    assert_eq!(rig.read(CARD, 1, 0x40, Width::Word), 0xAA78);
    rig.write(CARD, 0, 0x60, Width::Dword, 0xFFFF_FFFF);
    assert_eq!(rig.read(CARD, 0, 0x60, Width::Dword), 0, "reserved");
}

#[test]
fn a_register_refuses_what_it_does_not_take_and_says_what_it_does() {
    let mut rig = Rig::new(&["pci9052"]);
    let refusal = rig.try_read(CARD, 0, 0x4D, Width::Word).unwrap_err();
    assert_eq!(
        refusal,
        "pci9052#0 LCR+4Dh INTCSR: an access of 2 bytes not aligned; it accepts 1, 2 and 4 bytes, aligned"
    );
    assert!(rig.try_write(CARD, 0, 0x48, Width::Qword, 0).unwrap_err().contains("CS3BASE"));
    assert!(rig.try_read(CARD, 0, 0x7E, Width::Dword).unwrap_err().contains("past the end"));
    assert!(rig.try_write(CARD, 2, 0xFFF6, Width::Dword, 0).unwrap_err().contains("accepts 1, 2 and 4"));
}

#[test]
fn cntrl_chooses_which_of_bar0_and_bar1_exist() {
    let mut rig = Rig::new(&["pci9052"]);
    let bars = |rig: &Rig| rig.function(CARD).windows.iter().map(|w| w.bar).collect::<Vec<_>>();
    rig.write(CARD, 1, CNTRL, Width::Dword, 0x2000);
    assert_eq!(bars(&rig), [1, 2, 3]);
    assert_eq!(rig.config(CARD, 0x10, Width::Dword), 0);
    rig.write(CARD, 1, CNTRL, Width::Dword, 0x1000);
    assert_eq!(bars(&rig), [0, 2, 3]);
    rig.write(CARD, 0, CNTRL, Width::Dword, 0);
    assert_eq!(bars(&rig), [0, 1, 2, 3]);
}

#[test]
fn a_local_space_s_range_makes_its_bar_and_its_remap_says_where_it_looks() {
    let mut rig = Rig::new(&["pci9052"]);
    rig.write(CARD, 2, 0x40, Width::Dword, 0xFEED);
    set_lcr(&mut rig, 0x08, 0x0FFF_F008); // LAS2RR: 4 KiB, prefetchable
    assert_eq!(rig.config(CARD, 0x20, Width::Dword), 0, "disabled until its remap register enables it");
    set_lcr(&mut rig, 0x1C, 0x0000_0001); // LAS2BA: local 0
    rig.set_config(CARD, 0x20, Width::Dword, 0xFFFF_FFFF);
    assert_eq!(rig.config(CARD, 0x20, Width::Dword), 0xFFFF_F008);
    rig.set_config(CARD, 0x20, Width::Dword, 0xF000_0000);
    assert_eq!(rig.read(CARD, 4, 0x40, Width::Dword), 0xFEED, "both spaces look at local 40h");
    set_lcr(&mut rig, 0x1C, 0x0010_0001);
    assert_eq!(rig.read(CARD, 4, 0x40, Width::Dword), 0, "now at local 100040h");
}

#[test]
fn local_memory_takes_every_width_at_every_alignment() {
    let mut rig = Rig::new(&["pci9052"]);
    rig.write(CARD, 2, 0x101, Width::Qword, 0x1122_3344_5566_7788);
    assert_eq!(rig.read(CARD, 2, 0x104, Width::Dword), 0x2233_4455);
    rig.write(CARD, 3, 0x10, Width::Word, 0xBEEF);
    assert_eq!(rig.read(CARD, 2, 0xFF10, Width::Dword), 0xBEEF, "BAR3 is the last 256 bytes of BAR2");
}

#[test]
fn a_big_endian_space_turns_the_bytes_of_its_bus_width() {
    let mut rig = Rig::new(&["pci9052"]);
    for (descriptor, seen) in
        [(0x0180_0000, 0x4433_2211), (0x0140_0000, 0x2211_4433), (0x0100_0000, 0x1122_3344_u64)]
    {
        rig.write(CARD, 2, 0, Width::Dword, 0x1122_3344);
        set_lcr(&mut rig, 0x28, descriptor);
        assert_eq!(rig.read(CARD, 2, 0, Width::Dword), seen, "LAS0BRD {descriptor:08X}");
        set_lcr(&mut rig, 0x28, 0x0080_0000);
    }
}

#[test]
fn a_doorbell_ends_in_an_interrupt_that_the_status_register_acknowledges() {
    let mut rig = Rig::new(&["pci9052,latency=50us"]);
    set_lcr(&mut rig, INTCSR, LISTEN);
    rig.now = 1_000;
    rig.write(CARD, 2, DOORBELL, Width::Dword, 0x3C);
    assert_eq!(rig.bus.deadline(), Some(51_000));
    assert_eq!(rig.read(CARD, 2, STATUS, Width::Dword), 2, "busy");
    rig.pass_to(50_999);
    assert!(!asserts(&rig));
    rig.pass_to(51_000);
    assert_eq!(rig.bus.asserting(17), [CARD]);
    assert_eq!(
        (rig.read(CARD, 2, STATUS, Width::Dword), lcr(&mut rig, INTCSR) & 4),
        (1, 4),
        "done, LINTi1 active"
    );
    assert_eq!(rig.config(CARD, 6, Width::Word) & 8, 0, "PCI 2.1 has no interrupt status bit");
    rig.write(CARD, 2, STATUS, Width::Dword, 1);
    assert!(!asserts(&rig) && rig.bus.deadline().is_none());
    assert_eq!((lcr(&mut rig, INTCSR) & 4, rig.read(CARD, 2, DOORBELL, Width::Dword)), (0, 0x3C));
}

#[test]
fn an_access_after_the_deadline_sees_the_operation_done_even_if_nobody_let_time_pass() {
    let mut rig = Rig::new(&["pci9052,latency=100"]);
    rig.write(CARD, 3, 0xFC, Width::Byte, 1);
    rig.now = 100;
    assert_eq!(rig.read(CARD, 3, 0xF8, Width::Byte), 1);
}

#[test]
fn a_doorbell_while_busy_starts_nothing_and_is_told() {
    let mut rig = Rig::new(&["pci9052,latency=100"]);
    rig.write(CARD, 2, DOORBELL, Width::Dword, 1);
    rig.now = 50;
    rig.write(CARD, 2, DOORBELL, Width::Dword, 2);
    assert_eq!((rig.bus.deadline(), rig.read(CARD, 2, STATUS, Width::Dword)), (Some(100), 6));
    rig.pass_to(100);
    rig.write(CARD, 2, STATUS, Width::Dword, 5);
    assert_eq!((rig.bus.deadline(), rig.read(CARD, 2, STATUS, Width::Dword)), (None, 0));
}

#[test]
fn nothing_interrupts_until_both_the_input_and_the_pci_interrupt_are_enabled() {
    for (intcsr, expected) in [(0x12, false), (0x13, false), (0x52, false), (0x53, true)] {
        let mut rig = Rig::new(&["pci9052"]);
        set_lcr(&mut rig, INTCSR, intcsr);
        rig.poke(CARD, "linti1", "1");
        assert_eq!(asserts(&rig), expected, "INTCSR {intcsr:02X}h");
    }
}

#[test]
fn a_wrong_polarity_is_a_line_that_is_up_before_anything_happened() {
    let mut rig = Rig::new(&["pci9052"]);
    set_lcr(&mut rig, INTCSR, 0x41);
    assert!(asserts(&rig), "active low, and the board idles low");
    rig.poke(CARD, "linti1", "1");
    assert!(!asserts(&rig));
}

#[test]
fn an_unknown_boards_inputs_are_inactive_by_either_polarity_until_it_raises_a_cause() {
    for intcsr in [0x41, 0x43] {
        let mut rig = Rig::new(&["pci9052,idle=inactive"]);
        set_lcr(&mut rig, INTCSR, intcsr);
        assert!(!asserts(&rig), "INTCSR {intcsr:02X}h");
        rig.poke(CARD, "cause1", "1");
        assert!(asserts(&rig), "INTCSR {intcsr:02X}h");
        rig.poke(CARD, "cause1", "0");
        assert!(!asserts(&rig), "INTCSR {intcsr:02X}h");
    }
    assert!(refused("pci9052,idle=high").contains("idle is low or inactive"));
}

#[test]
fn words_of_the_boards_memory_hold_what_is_said() {
    let mut rig = Rig::new(&["pci9052,holds=0:50534944+10:1"]);
    let word = |rig: &mut Rig, at| rig.read(CARD, 2, at, Width::Dword);
    assert_eq!([0, 4, 0x10].map(|at| word(&mut rig, at)), [0x5053_4944, 0, 1]);
    rig.poke(CARD, "local+4", "7");
    assert_eq!(word(&mut rig, 4), 7);
    assert!(refused("pci9052,holds=2:1").contains("OFFSET a multiple of 4"));
    assert!(refused("pci9052,holds=0:1,local=board.txt").contains("local= brings its own board"));
}

#[test]
fn each_register_of_an_unknown_board_shows_bits_besides_what_it_holds() {
    let mut rig = Rig::new(&["pci9052,idle=inactive"]);
    rig.write(CARD, 2, 0x10, Width::Dword, 0x0000_0100);
    rig.poke(CARD, "shows", "0x80000002");
    assert_eq!(rig.read(CARD, 2, 0x10, Width::Dword), 0x8000_0102);
    assert_eq!((rig.read(CARD, 2, 0x23, Width::Byte), rig.read(CARD, 2, 0x20, Width::Word)), (0x80, 2));
    rig.poke(CARD, "shows", "0");
    assert_eq!(rig.read(CARD, 2, 0x10, Width::Dword), 0x0000_0100);
    assert!(rig.try_poke(CARD, "shows", "0x100000000").unwrap_err().contains("no word of 32 bits"));
    let mut known = Rig::new(&["pci9052"]);
    assert!(known.try_poke(CARD, "shows", "1").unwrap_err().contains("idle=inactive"));
}

#[test]
fn a_board_that_interrupts_with_a_word_shows_its_bits_until_the_next() {
    let mut rig = Rig::new(&["pci9052,idle=inactive"]);
    set_lcr(&mut rig, INTCSR, 0x41);
    rig.poke(CARD, "cause1", "0xffff");
    assert!(asserts(&rig));
    assert_eq!(rig.read(CARD, 2, 0x10, Width::Dword), 0xFFFF);
    rig.poke(CARD, "cause1", "1");
    assert!(asserts(&rig));
    assert_eq!(rig.read(CARD, 2, 0x10, Width::Dword), 0);
    rig.poke(CARD, "cause1", "0");
    assert!(!asserts(&rig));
}

#[test]
fn a_cause_of_an_unknown_board_is_taken_back_by_accesses_to_the_local_bus() {
    let mut rig = Rig::new(&["pci9052,idle=inactive"]);
    set_lcr(&mut rig, INTCSR, 0x41);
    rig.poke(CARD, "cause1", "1");
    rig.read(CARD, 2, 0, Width::Dword);
    assert_eq!(lcr(&mut rig, INTCSR), 0x45, "it is seen from now on");
    for is_asserted in [true, true, false] {
        rig.read(CARD, 2, 0, Width::Dword);
        assert_eq!(asserts(&rig), is_asserted);
    }
    rig.poke(CARD, "cause1", "1");
    for _ in 0..11 {
        rig.read(CARD, 2, 0, Width::Dword);
    }
    assert!(asserts(&rig), "the driver may not have seen it");
    rig.read(CARD, 2, 0, Width::Dword);
    assert!(!asserts(&rig));
    rig.poke(CARD, "cause1", "1");
    rig.pass_to(200_000_000);
    assert!(!asserts(&rig), "nor does it last longer than 200 ms");
}

#[test]
fn a_look_at_a_register_of_the_bridge_is_no_access() {
    let mut rig = Rig::new(&["pci9052,idle=inactive"]);
    set_lcr(&mut rig, INTCSR, 0x41);
    rig.poke(CARD, "cause1", "1");
    for _ in 0..4 {
        assert_eq!(rig.peek(CARD, "intcsr"), Ok(0x45));
        rig.read(CARD, 2, 0, Width::Dword);
    }
    assert!(asserts(&rig), "the driver has not seen it");
    let refused = rig.peek(CARD, "foo").unwrap_err();
    assert!(refused.contains("no register `foo`: the chip has LAS0RR, "), "{refused}");
}

#[test]
fn the_second_input_and_the_software_interrupt_reach_the_line_too() {
    let mut rig = Rig::new(&["pci9052"]);
    set_lcr(&mut rig, INTCSR, 0x5A);
    rig.poke(CARD, "linti2", "1");
    assert!(asserts(&rig) && lcr(&mut rig, INTCSR) == 0x7A);
    rig.poke(CARD, "linti2", "0");
    assert!(!asserts(&rig));
    set_lcr(&mut rig, INTCSR, 0xD2);
    assert!(asserts(&rig));
    set_lcr(&mut rig, INTCSR, 0x52);
    assert!(!asserts(&rig));
}

#[test]
fn an_edge_is_remembered_until_software_clears_it() {
    let mut rig = Rig::new(&["pci9052"]);
    set_lcr(&mut rig, INTCSR, LISTEN | 0x100);
    rig.poke(CARD, "linti1", "1");
    rig.poke(CARD, "linti1", "0");
    assert!(asserts(&rig), "the pulse is over and the interrupt is not");
    set_lcr(&mut rig, INTCSR, LISTEN | 0x100 | 0x400);
    assert!(!asserts(&rig));
    assert_eq!(lcr(&mut rig, INTCSR), LISTEN | 0x100, "edge clear reads 0");
    rig.poke(CARD, "linti1", "1");
    set_lcr(&mut rig, INTCSR, LISTEN | 0x100 | 0x400);
    assert!(!asserts(&rig), "a level that stays is no new edge");
}

#[test]
fn the_9050_has_no_edges() {
    let mut rig = Rig::new(&["pci9052,rev=1"]);
    set_lcr(&mut rig, INTCSR, 0xFFFF_FFFF);
    assert_eq!(lcr(&mut rig, INTCSR), 0xDB);
}

#[test]
fn a_9050_whose_lcr_base_has_bit_7_reads_zeroes_but_takes_writes() {
    let mut rig = Rig::new(&["pci9052,rev=1,at1=C080"]);
    assert_eq!(rig.config(CARD, 8, Width::Byte), 1);
    rig.write(CARD, 1, 0x40, Width::Dword, 0x1234);
    assert_eq!(rig.read(CARD, 1, 0x40, Width::Dword), 0, "the erratum");
    assert_eq!(rig.read(CARD, 0, 0x40, Width::Dword), 0x1234, "BAR0's base has bit 7 clear");
    let mut fixed = Rig::new(&["pci9052,rev=2,at1=C080"]);
    fixed.write(CARD, 1, 0x40, Width::Dword, 0x1234);
    assert_eq!(fixed.read(CARD, 1, 0x40, Width::Dword), 0x1234);
}

#[test]
fn user_pins_show_the_outside_where_they_are_inputs_and_the_latch_where_they_are_outputs() {
    let mut rig = Rig::new(&["pci9052"]);
    rig.poke(CARD, "uio0", "1");
    rig.poke(CARD, "uio3", "1");
    assert_eq!(lcr(&mut rig, CNTRL) & 0xFFF, 0x804);
    set_lcr(&mut rig, CNTRL, 0x0078_4402);
    assert_eq!(lcr(&mut rig, CNTRL) & 0xFFF, 0x402, "outputs, driven low");
    set_lcr(&mut rig, CNTRL, 0x0078_4006);
    assert_eq!(lcr(&mut rig, CNTRL) & 0xFFF, 0x806);
}

#[test]
fn software_reset_stops_the_board_and_reload_brings_the_registers_back() {
    let mut rig = Rig::new(&["pci9052,latency=100"]);
    set_lcr(&mut rig, INTCSR, LISTEN);
    rig.write(CARD, 2, 0, Width::Dword, 0x77);
    rig.write(CARD, 2, DOORBELL, Width::Dword, 1);
    let cntrl = lcr(&mut rig, CNTRL);
    set_lcr(&mut rig, CNTRL, cntrl | 1 << 30);
    assert_eq!(rig.bus.deadline(), None, "the operation is lost");
    assert_eq!(rig.read(CARD, 2, 0, Width::Dword), 0xFFFF_FFFF, "held in reset");
    set_lcr(&mut rig, CNTRL, cntrl);
    assert_eq!((rig.read(CARD, 2, 0, Width::Dword), rig.read(CARD, 2, STATUS, Width::Dword)), (0x77, 0));
    assert_eq!(lcr(&mut rig, INTCSR) & 0x41, 0x41, "kept");
    set_lcr(&mut rig, CNTRL, cntrl | 1 << 29);
    assert_eq!(lcr(&mut rig, INTCSR), 0x12, "the EEPROM's: a driver must restore its own");
    assert_eq!(rig.config(CARD, 0x3C, Width::Byte), 0, "and the interrupt line register");
}

#[test]
fn a_bus_reset_forgets_everything_but_the_outside() {
    let mut rig = Rig::new(&["pci9052"]);
    set_lcr(&mut rig, INTCSR, LISTEN | 0x100);
    rig.poke(CARD, "linti1", "1");
    rig.write(CARD, 2, 0, Width::Dword, 1);
    assert!(asserts(&rig));
    rig.bus.reset();
    assert!(!asserts(&rig));
    rig.set_config(CARD, 0x10, Width::Dword, 0xE000_0000);
    rig.set_config(CARD, 0x18, Width::Dword, 0xE001_0000);
    rig.set_config(CARD, 4, Width::Word, 2);
    assert_eq!(lcr(&mut rig, INTCSR), 0x16, "the EEPROM's, and LINTi1 is still driven from outside");
    assert_eq!(rig.read(CARD, 2, 0, Width::Dword), 0);
}

#[test]
fn a_trace_can_name_what_was_touched() {
    let rig = Rig::new(&["pci9052"]);
    let name = |bar, offset| {
        let window = rig.window(CARD, bar);
        rig.bus.describe(window.port, window.base + offset).unwrap()
    };
    assert_eq!(name(0, INTCSR), "pci9052#0 LCR+4Ch INTCSR");
    assert_eq!(name(1, 0x51), "pci9052#0 LCR+51h CNTRL");
    assert_eq!(name(0, 0x54), "pci9052#0 LCR+54h reserved");
    assert_eq!(name(2, DOORBELL), "pci9052#0 BAR2+FFFCh local 000FFFCh CS0# DOORBELL");
    assert_eq!(name(3, 0x10), "pci9052#0 BAR3+10h local 000FF10h CS0#");
    assert_eq!(rig.bus.describe(false, 0x1000), None);
}

#[test]
fn the_same_calls_give_the_same_card() {
    let play = || {
        let mut rig = Rig::new(&["pci9052", "pci9052,line=17", "pci,id=1:2,bar0=mem:4K,irq,line=17"]);
        let mut log = vec![format!("{:?}", rig.bus.functions())];
        for i in 0..200 {
            let name = format!("pci9052#{}", i % 2);
            rig.write(&name, 2, i * 4, Width::Dword, i);
            rig.write(&name, 2, DOORBELL, Width::Dword, i);
            rig.pass_to(i * 777);
            log.push(format!(
                "{:x} {:?} {:?}",
                rig.bus.lines(),
                rig.bus.deadline(),
                rig.read(&name, 2, STATUS, Width::Dword)
            ));
        }
        log
    };
    assert_eq!(play(), play());
}

#[test]
fn no_sequence_of_accesses_to_any_window_panics() {
    const WIDTHS: [Width; 4] = [Width::Byte, Width::Word, Width::Dword, Width::Qword];
    for seed in 1..200 {
        let mut numbers = Numbers::from(seed);
        let mut rig = Rig::new(&[if seed % 2 == 0 { "pci9052" } else { "pci9052,rev=1" }]);
        for _ in 0..500 {
            let windows = rig.function(CARD).windows;
            let window = windows[numbers.below(windows.len())];
            let width = WIDTHS[numbers.below(if window.port { 3 } else { 4 })];
            let address = window.base + (numbers.next() >> 8) % window.length.min(0x1_0000);
            let (value, now) = (numbers.next() | numbers.next() << 40, rig.now);
            rig.now += numbers.next() % 10_000;
            let Ok(port) = u16::try_from(address & 0xFFFF) else { continue };
            match (numbers.next() % 4, window.port) {
                (0, true) => drop(rig.port_read(now, port, width)),
                (_, true) => drop(rig.port_write(now, port, width, (value & 0xFFFF_FFFF) as u32)),
                (0, false) => drop(rig.memory_read(now, address, width)),
                (_, false) => drop(rig.memory_write(now, address, width, value)),
            }
            drop(rig.bus.describe(window.port, address));
            assert!(rig.bus.asserting(17).len() == rig.bus.lines().count_ones() as usize, "seed {seed}");
        }
    }
}
