//! The serial EEPROM, driven through CNTRL bit by bit as PLX's tools and drivers do, and its image files.

use kernel::hal::hardware::Width;

use crate::rig::{Rig, card_with_file};

const CARD: &str = "pci9052#0";
const CNTRL: u64 = 0x50;
const CLOCK: u64 = 1 << 24;
const SELECT: u64 = 1 << 25;
const DATA_IN: u64 = 1 << 26;
const DATA_OUT: u64 = 1 << 27;
/// The other bits of CNTRL on the built-in board.
const REST: u64 = 0x0078_4000;

/// A driver's bit-banging routine.
struct Wire<'r>(&'r mut Rig);

impl Wire<'_> {
    fn set(&mut self, pins: u64) {
        self.0.write(CARD, 0, CNTRL, Width::Dword, REST | pins);
    }

    fn out(&mut self) -> u64 {
        u64::from(self.0.read(CARD, 0, CNTRL, Width::Dword) & DATA_OUT != 0)
    }

    fn select(&mut self) {
        self.set(0);
        self.set(SELECT);
    }

    fn send(&mut self, value: u64, bits: u32) {
        for bit in (0..bits).rev() {
            let data = if value >> bit & 1 == 1 { DATA_IN } else { 0 };
            self.set(SELECT | data);
            self.set(SELECT | data | CLOCK);
        }
    }

    fn receive(&mut self, bits: u32) -> u64 {
        (0..bits).fold(0, |value, _| {
            self.set(SELECT);
            self.set(SELECT | CLOCK);
            value << 1 | self.out()
        })
    }

    fn command(&mut self, command: u64) {
        self.select();
        self.send(command, 9);
    }

    fn read_word(&mut self, address: u64) -> u64 {
        self.command(0x180 | address);
        let word = self.receive(16);
        self.set(0);
        word
    }

    fn write_word(&mut self, address: u64, word: u64) {
        self.command(0x140 | address);
        self.send(word, 16);
        self.set(0);
    }
}

#[test]
fn a_word_is_read_most_significant_bit_first_after_a_dummy_zero() {
    let mut rig = Rig::new(&["pci9052"]);
    let mut wire = Wire(&mut rig);
    wire.command(0x180);
    assert_eq!(wire.out(), 0, "the dummy bit");
    assert_eq!(wire.receive(16), 0x9050);
    wire.set(0);
    assert_eq!(wire.out(), 1, "not selected: pulled up");
    assert_eq!(wire.read_word(1), 0x10B5);
}

#[test]
fn a_sequential_read_runs_on_over_word_ends_and_wraps() {
    let mut rig = Rig::new(&["pci9052,sub=1234:5678"]);
    let mut wire = Wire(&mut rig);
    wire.command(0x180 | 4);
    assert_eq!(wire.receive(32), 0x5678_1234);
    wire.command(0x180 | 63);
    assert_eq!(wire.receive(32), 0x0000_9050);
}

#[test]
fn a_write_needs_to_be_enabled_and_takes_its_time() {
    let mut rig = Rig::new(&["pci9052"]);
    let mut wire = Wire(&mut rig);
    wire.write_word(40, 0xBEEF);
    assert_eq!(wire.read_word(40), 0x0000, "writes are off until WREN");
    wire.command(0x130);
    wire.write_word(40, 0xBEEF);
    wire.set(SELECT);
    assert_eq!(wire.out(), 0, "busy");
    rig.now = 3_999_999;
    assert_eq!(Wire(&mut rig).out(), 0);
    rig.now = 4_000_000;
    let mut wire = Wire(&mut rig);
    assert_eq!(wire.out(), 1, "ready");
    wire.set(0);
    assert_eq!(wire.read_word(40), 0xBEEF);
    wire.command(0x100);
    wire.write_word(40, 0xDEAD);
    assert_eq!(wire.read_word(40), 0xBEEF, "WRDS turned writes off again");
}

#[test]
fn an_instruction_while_the_part_is_busy_is_lost() {
    let mut rig = Rig::new(&["pci9052"]);
    let mut wire = Wire(&mut rig);
    wire.command(0x130);
    wire.write_word(40, 1);
    wire.write_word(41, 2);
    rig.now = 5_000_000;
    let mut wire = Wire(&mut rig);
    assert_eq!((wire.read_word(40), wire.read_word(41)), (1, 0));
}

#[test]
fn a_write_that_is_cut_short_changes_nothing() {
    let mut rig = Rig::new(&["pci9052"]);
    let mut wire = Wire(&mut rig);
    wire.command(0x130);
    wire.command(0x140 | 40);
    wire.send(0x7FFF, 15);
    wire.set(0);
    assert_eq!(wire.read_word(40), 0);
}

#[test]
fn what_a_tool_programs_becomes_the_card_at_the_next_reload() {
    let mut rig = Rig::new(&["pci9052"]);
    Wire(&mut rig).command(0x130);
    // subsystem device, and LAS0RR for 4 KiB
    for (address, word) in [(4, 0xABCD), (8, 0x0FFF), (9, 0xF000)] {
        rig.now += 5_000_000;
        Wire(&mut rig).write_word(address, word);
    }
    assert_eq!(rig.config(CARD, 0x2E, Width::Word), 0x9050, "not before");
    Wire(&mut rig).set(1 << 29);
    assert_eq!(rig.config(CARD, 0x2E, Width::Word), 0xABCD);
    assert_eq!(rig.window(CARD, 2).length, 0x1000);
    rig.bus.reset();
    assert_eq!(rig.config(CARD, 0x2E, Width::Word), 0xABCD, "it survives a reset");
}

#[test]
fn an_empty_socket_reads_ones_and_is_not_present() {
    let mut rig = Rig::new(&["pci9052,eeprom=none"]);
    assert_eq!(Wire(&mut rig).read_word(0), 0xFFFF);
    assert_eq!(rig.read(CARD, 0, CNTRL, Width::Dword) >> 28 & 1, 0);
}

#[test]
fn an_image_file_makes_the_card_from_text_or_binary() {
    let text = "# device, vendor\n9050 10b5\n0680 0001 1111 2222 0000 0100\n0fff ff01 # LAS0RR: 256 ports\n\
                0000 0000 0000 0000 0000 0000 0000 0000\n0000 0001\n";
    let words = text.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace());
    let binary: Vec<u8> =
        words.flat_map(|word| u16::from_str_radix(word, 16).unwrap().to_le_bytes()).collect();
    for file in [text.as_bytes(), &binary] {
        let mut rig = Rig::of(vec![card_with_file("pci9052,eeprom=card.hex", file)]);
        assert_eq!(rig.config(CARD, 0x2C, Width::Dword), 0x1111_2222);
        assert_eq!(rig.config(CARD, 8, Width::Byte), 2, "the revision is the chip's own");
        let window = rig.window(CARD, 2);
        assert_eq!((window.port, window.length), (true, 0x100));
    }
}

#[test]
fn an_image_file_that_cannot_be_used_is_answered_with_what_and_where() {
    let trouble = |file: &[u8]| {
        let file = file.to_vec();
        devices::parse("pci9052,eeprom=x", &move |_: &str| Ok(file.clone()))
            .err()
            .expect("refused")
            .to_string()
    };
    assert_eq!(
        trouble(b"9050\n10b5x\n"),
        "device `pci9052`: eeprom=x: line 2: `10b5x` is not a word of four hexadecimal digits"
    );
    assert!(trouble(b"").contains("holds 0 words"));
    assert!(trouble(&[0; 130]).contains("holds 65 words; a 93CS46 has 1 to 64"));
    assert!(trouble(&[0; 3]).contains("3 bytes"));
}
