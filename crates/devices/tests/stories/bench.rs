//! The `bench` card on the bus: its FIFO, its bus master, its pins and its faults.

use kernel::hal::hardware::{Hardware, Width};

use super::rig::{Rig, refused};

const CARD: &str = "bench#0";
const RAISE: u64 = 0x08;
const STATUS: u64 = 0x0C;
const STATUS_AND_CLEAR: u64 = 0x10;
const ENABLE: u64 = 0x14;
const COUNT: u64 = 0x1C;
const DELAY: u64 = 0x20;
const FIFO: u64 = 0x24;
const FIFO_STATUS: u64 = 0x28;
const COMMAND: u64 = 0x40;
const DMA_STATUS: u64 = 0x44;
const MOVED: u64 = 0x48;

fn with_card(spec: &str) -> Rig {
    let mut rig = Rig::new(&[spec]);
    // Memory space, bus master.
    rig.set_config(CARD, 4, Width::Word, 6);
    rig
}

impl Rig {
    fn get(&mut self, offset: u64) -> u64 {
        self.read(CARD, 0, offset, Width::Dword)
    }

    fn set(&mut self, offset: u64, value: u64) {
        self.write(CARD, 0, offset, Width::Dword, value);
    }

    /// Starts a transfer.
    fn start(&mut self, address: u64, length: u64, offset: u64, command: u64) {
        for (register, value) in
            [(0x30, address & 0xFFFF_FFFF), (0x34, address >> 32), (0x38, length), (0x3C, offset)]
        {
            self.set(register, value);
        }
        self.set(COMMAND, command | 1);
    }

    /// A piece of a list, at `at` in memory.
    fn piece(&mut self, at: usize, address: u64, length: u32, last: bool) {
        self.memory.0[at..at + 8].copy_from_slice(&address.to_le_bytes());
        self.memory.0[at + 8..at + 12].copy_from_slice(&length.to_le_bytes());
        self.memory.0[at + 12..at + 16].copy_from_slice(&u32::from(last).to_le_bytes());
    }
}

#[test]
fn words_leave_the_fifo_in_their_order_and_a_peek_at_its_status_takes_none() {
    let mut rig = with_card("bench");
    rig.poke(CARD, "push", "7");
    rig.set(FIFO, 8);
    assert_eq!((rig.get(FIFO_STATUS), rig.get(FIFO_STATUS)), (2, 2));
    assert_eq!((rig.get(FIFO), rig.get(FIFO), rig.get(FIFO)), (7, 8, 0));
    assert_eq!(rig.get(FIFO_STATUS), 0x500, "empty, and read nevertheless");
    rig.set(FIFO_STATUS, 0x400);
    assert_eq!(rig.get(FIFO_STATUS), 0x100);
}

#[test]
fn a_transfer_takes_its_time_and_raises_the_source_it_names() {
    let mut rig = with_card("bench,dma=20us,ram");
    rig.set(ENABLE, 1 << 6);
    rig.memory.0[0x1000..0x1005].copy_from_slice(b"bytes");
    rig.start(0x1000, 5, 0x20, 8 | 6 << 8);
    assert_eq!((rig.get(COMMAND) & 1, rig.get(DMA_STATUS)), (1, 0));
    rig.pass_to(20_000);
    assert_eq!((rig.get(COMMAND) & 1, rig.get(DMA_STATUS), rig.get(MOVED)), (0, 1, 5));
    assert_eq!((rig.get(STATUS), rig.bus.lines() != 0), (1 << 6, true));
    assert_eq!(
        rig.read(CARD, 2, 0x20, Width::Dword),
        u64::from(u32::from_le_bytes(*b"byte")),
        "BAR2 shows it"
    );
    rig.write(CARD, 2, 0x21, Width::Byte, u64::from(b'i'));
    rig.start(0x2000, 5, 0x20, 2);
    rig.pass_to(40_000);
    assert_eq!(&rig.memory.0[0x2000..0x2006], b"bites\0");
}

#[test]
fn a_list_of_pieces_is_followed_to_its_last() {
    let mut rig = with_card("bench,dma=0");
    let bytes: Vec<u8> = (0..100).collect();
    rig.memory.0[0x1000..0x1064].copy_from_slice(&bytes);
    rig.start(0x1000, 100, 0, 0);
    rig.piece(0x100, 0x5000, 30, false);
    rig.piece(0x110, 0x9001, 1, false);
    rig.piece(0x120, 0x4000, 69, true);
    rig.piece(0x130, 0x7000, 9, true);
    rig.start(0x100, 0, 0, 2 | 4);
    assert_eq!((rig.get(DMA_STATUS), rig.get(MOVED)), (1, 100));
    assert_eq!(rig.memory.0[0x5000..0x501E], bytes[..30]);
    assert_eq!(rig.memory.0[0x9001], bytes[30]);
    assert_eq!(rig.memory.0[0x4000..0x4045], bytes[31..]);
    assert_eq!(rig.memory.0[0x7000..0x7009], [0; 9], "behind the last");
}

#[test]
fn a_transfer_that_finds_nobody_or_no_end_fails_and_says_how_far_it_came() {
    let mut rig = with_card("bench,dma=0");
    rig.piece(0x100, 0x5000, 30, false);
    rig.piece(0x110, 0x7000_0000, 8, true);
    rig.start(0x100, 0, 0, 2 | 4);
    assert_eq!((rig.get(DMA_STATUS), rig.get(MOVED)), (2, 30), "no memory is there");
    rig.start(0x7000_0000, 0, 0, 2 | 4);
    assert_eq!((rig.get(DMA_STATUS), rig.get(MOVED)), (2, 0), "nor the list");
    rig.start(0x2000, 0x10, 0xFFF8, 2);
    assert_eq!((rig.get(DMA_STATUS), rig.get(MOVED)), (2, 0), "the card's memory ends");
    rig.set(DMA_STATUS, 2);
    assert_eq!(rig.get(DMA_STATUS), 0);
    for at in 0..300 {
        rig.piece(0x8000 + at * 16, 0x5000, 1, false);
    }
    rig.start(0x8000, 0, 0, 2 | 4);
    assert_eq!((rig.get(DMA_STATUS), rig.get(MOVED)), (2, 256), "a list without an end");
    rig.set_config(CARD, 4, Width::Word, 2);
    rig.start(0x2000, 4, 0, 2);
    assert_eq!(rig.get(DMA_STATUS), 2, "it is no bus master");
}

#[test]
fn a_pin_leads_to_the_line_of_its_letter() {
    for (pin, line) in [("a", 19), ("b", 16), ("c", 17), ("d", 18)] {
        let mut rig = with_card(&format!("bench,slot=3,pin={pin}"));
        rig.set(ENABLE, 1);
        rig.set(RAISE, 1);
        assert_eq!(rig.bus.lines(), 1 << line, "INT{pin}#");
    }
    assert!(refused("bench,pin=e").contains("pin is a, b, c, d or none"));
}

#[test]
fn what_was_chosen_for_delays_holds_after_reset() {
    let mut rig = with_card("bench,delay=3us,dma=4us");
    assert_eq!((rig.get(DELAY), rig.get(0x4C)), (3_000, 4_000));
    rig.set(RAISE, 2);
    rig.pass_to(2_999);
    assert_eq!(rig.get(STATUS), 0);
    rig.pass_to(3_000);
    assert_eq!(rig.get(STATUS_AND_CLEAR), 2);
    assert!(refused("bench,delay=5s").contains("delay is a time up to 4s"));
}

#[test]
fn a_card_that_never_interrupts_has_its_status_all_the_same() {
    let mut rig = with_card("bench,msi=1,never");
    rig.set_config(CARD, 0x44, Width::Dword, 0xFEE0_0000);
    rig.set_config(CARD, 0x42, Width::Word, 1);
    rig.set(ENABLE, 1);
    rig.set(RAISE, 1);
    assert_eq!((rig.get(STATUS), rig.get(COUNT), rig.bus.take_messages().len()), (1, 0, 0));
    let mut line = with_card("bench");
    line.poke(CARD, "never", "1");
    line.set(ENABLE, 1);
    line.set(RAISE, 1);
    assert_eq!(line.bus.lines(), 0);
    line.poke(CARD, "never", "0");
    assert_ne!(line.bus.lines(), 0, "it is well again");
}

#[test]
fn a_card_that_interrupts_early_asks_nobody() {
    let mut rig = with_card("bench,early");
    assert_ne!(rig.bus.lines(), 0);
    assert_eq!((rig.get(ENABLE), rig.get(STATUS)), (0, 1));
    rig.set(STATUS, 1);
    assert_eq!(rig.bus.lines(), 0);
    rig.set(RAISE, 4);
    assert_ne!(rig.bus.lines(), 0);
    rig.poke(CARD, "early", "0");
    assert_eq!(rig.bus.lines(), 0, "now it waits until it is enabled");
}

#[test]
fn a_card_that_is_stuck_keeps_its_line_and_says_that_nothing_is_there() {
    let mut rig = with_card("bench");
    rig.poke(CARD, "stuck", "1");
    assert_eq!(rig.bus.lines(), 0, "it was not asserted");
    rig.set(ENABLE, 1);
    rig.set(RAISE, 1);
    rig.set(STATUS, 1);
    assert_eq!((rig.get(STATUS), rig.bus.lines() != 0), (0, true));
    rig.set(ENABLE, 0);
    assert_ne!(rig.bus.lines(), 0);
    rig.poke(CARD, "stuck", "0");
    assert_eq!(rig.bus.lines(), 0);
}

#[test]
fn a_card_that_is_gone_reads_as_ones_everywhere_and_comes_back_as_it_was() {
    let mut rig = with_card("bench,ram");
    rig.set(ENABLE, 0x15);
    rig.set(RAISE, 1);
    rig.poke(CARD, "pulled", "1");
    assert_eq!((rig.get(STATUS), rig.read(CARD, 2, 0, Width::Qword)), (0xFFFF_FFFF, u64::MAX));
    assert_eq!((rig.config(CARD, 0, Width::Dword), rig.bus.lines()), (0xFFFF_FFFF, 0));
    rig.set(ENABLE, 0);
    rig.set_config(CARD, 4, Width::Word, 0);
    rig.poke(CARD, "pulled", "0");
    assert_eq!((rig.get(ENABLE), rig.get(STATUS), rig.bus.lines() != 0), (0x15, 1, true));
    let mut gone = with_card("bench,pulled");
    assert_eq!(gone.get(0), 0xFFFF_FFFF);
    assert_eq!(
        gone.try_poke(CARD, "burnt", "1").unwrap_err(),
        "bench#0: no signal `burnt`; it has: raise, push, never, early, stuck, pulled"
    );
}
