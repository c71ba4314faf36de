//! A card without a model: windows by one rule, an interrupt by hand.

use kernel::hal::hardware::{Hardware, Width};

use crate::rig::{Rig, refused};

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

/// A card whose status is at 8 and is acknowledged as `rule` says.
fn card(rule: &str) -> Rig {
    Rig::new(&[&format!("pci,id=1:2,bar0=mem:128,irq,line=17,reg0=0:12345678,{rule}")])
}

const LINE: u64 = 1 << 17;

#[test]
fn registers_hold_what_the_user_says_until_the_driver_writes_them() {
    let mut rig = card("ack0=8");
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0x1234_5678);
    assert_eq!(rig.read("pci#0", 0, 1, Width::Byte), 0x56);
    rig.write("pci#0", 0, 0, Width::Word, 0xAAAA);
    assert_eq!(rig.read("pci#0", 0, 0, Width::Dword), 0x1234_AAAA);
}

#[test]
fn a_one_clears_its_cause_and_the_line_falls_with_the_last() {
    let mut rig = card("ack0=8");
    rig.try_poke("pci#0", "irq", "769").unwrap(); // 301h
    assert_eq!((rig.bus.lines(), rig.read("pci#0", 0, 8, Width::Dword)), (LINE, 0x301));
    rig.write("pci#0", 0, 8, Width::Byte, 0xFF);
    assert_eq!((rig.bus.lines(), rig.read("pci#0", 0, 8, Width::Dword)), (LINE, 0x300), "its byte only");
    rig.write("pci#0", 0, 9, Width::Byte, 0x01);
    assert_eq!(rig.read("pci#0", 0, 8, Width::Dword), 0x200);
    rig.write("pci#0", 0, 4, Width::Qword, 0x200_0000_0055);
    assert_eq!((rig.bus.lines(), rig.read("pci#0", 0, 8, Width::Dword)), (0, 0));
    assert_eq!(rig.read("pci#0", 0, 4, Width::Dword), 0x55, "its neighbour is written");
}

#[test]
fn zeros_any_write_and_reads_acknowledge_where_the_sheet_says_so() {
    let mut rig = card("ack0=8:zeros");
    rig.try_poke("pci#0", "irq", "3").unwrap();
    rig.write("pci#0", 0, 8, Width::Dword, 0xFFFF_FFFE);
    assert_eq!(rig.read("pci#0", 0, 8, Width::Dword), 2);
    rig.write("pci#0", 0, 8, Width::Dword, 0);
    assert_eq!(rig.bus.lines(), 0);

    let mut rig = card("status0=8,ack0=c:write");
    rig.try_poke("pci#0", "irq", "3").unwrap();
    rig.write("pci#0", 0, 8, Width::Dword, 0xFFFF_FFFF);
    assert_eq!(rig.bus.lines(), LINE, "its status is read only");
    rig.write("pci#0", 0, 0xC, Width::Dword, 0);
    assert_eq!((rig.bus.lines(), rig.read("pci#0", 0, 0xC, Width::Dword)), (0, 0));

    let mut rig = card("ack0=8:read");
    rig.try_poke("pci#0", "irq", "3").unwrap();
    assert_eq!(rig.read("pci#0", 0, 8, Width::Dword), 3, "and then there are none");
    assert_eq!((rig.bus.lines(), rig.read("pci#0", 0, 8, Width::Dword)), (0, 0));
}

#[test]
fn only_enabled_causes_reach_the_line() {
    let mut rig = card("ack0=8,enable0=10");
    rig.try_poke("pci#0", "irq", "4").unwrap();
    assert_eq!(rig.bus.lines(), 0);
    rig.write("pci#0", 0, 0x10, Width::Dword, 4);
    assert_eq!(rig.bus.lines(), LINE);
    rig.try_poke("pci#0", "bar0+10", "3").unwrap();
    assert_eq!(rig.bus.lines(), 0);
    rig.try_poke("pci#0", "bar0+10", "7").unwrap();
    rig.try_poke("pci#0", "irq", "0").unwrap();
    assert_eq!(rig.bus.lines(), 0, "taken back by the card itself");
    let at = |offset| rig.bus.describe(false, rig.window("pci#0", 0).base + offset).unwrap();
    assert_eq!(at(8), "pci#0 BAR0+8h (interrupt status, acknowledged here)");
    assert_eq!(at(0x12), "pci#0 BAR0+12h (interrupt enable)");
}

#[test]
fn registers_that_cannot_be_are_refused_with_what_would_be_right() {
    let card = |rest: &str| refused(&format!("pci,id=1:2,bar0=mem:128,{rest}"));
    assert!(card("irq,reg0=3:1").contains("OFFSET a multiple of 4"), "{}", card("irq,reg0=3:1"));
    assert!(card("irq,reg0=80:1").contains("inside the window, which has 80h bytes"));
    assert!(card("irq,reg1=0:1").contains("add bar1="));
    assert!(card("ack0=8").contains("it has no pin; add irq"));
    assert!(card("irq,status0=8").contains("add ackN=OFFSET"));
    assert!(card("irq,ack0=8:once").contains("RULE one of ones, zeros, write, read"));
    assert!(card("irq,bar1=mem:16,ack0=8,ack1=8").contains("it has one ackN="));
    assert!(card("irq,reads=ones,reg0=0:1").contains("reads is ram where registers are named"));
}

#[test]
fn a_card_of_another_driver_joins_its_neighbours_and_waits_until_no_routine_claims() {
    const OTHERS: u64 = 1 << 18;
    let mut rig = Rig::new(&[
        "pci,id=1:2,irq,line=17",
        "pci,id=1:3,irq,line=17,foreign",
        "pci,id=1:4,irq,line=18,foreign,every=1ms",
    ]);
    let line = |rig: &Rig| rig.bus.lines() & LINE;
    rig.bus.left_unclaimed(18);
    assert_eq!(rig.bus.lines() & (LINE | OTHERS), 0);
    rig.try_poke("pci#0", "irq", "1").unwrap();
    assert_eq!((line(&rig), rig.bus.is_only_of_others(17)), (LINE, false));
    rig.try_poke("pci#0", "irq", "0").unwrap();
    assert_eq!((line(&rig), rig.bus.is_only_of_others(17)), (LINE, true), "it has joined, and waits");
    rig.bus.left_unclaimed(17);
    assert_eq!((line(&rig), rig.bus.is_only_of_others(17)), (0, false));
    rig.pass_to(1_000_000);
    assert_eq!(rig.bus.lines() & (LINE | OTHERS), OTHERS, "and one raises its pin by itself");
    rig.pass_to(9_000_000);
    assert_eq!(rig.bus.lines() & OTHERS, OTHERS, "until then");
    rig.bus.left_unclaimed(18);
    assert_eq!(rig.bus.lines() & OTHERS, 0);
}

#[test]
fn a_card_of_another_driver_has_a_pin() {
    assert!(refused("pci,id=1:2,foreign").contains("add irq"));
    assert!(refused("pci,id=1:2,irq,foreign=1").contains("without a value"));
}
