//! Message-signaled interrupts on the bus: capabilities, masks, pending bits, and the `bench` card that sends them.

use kernel::hal::hardware::{Hardware, Message, Width};

use super::rig::{Rig, refused};

const CARD: &str = "bench#0";
/// Where its capability is.
const AT: u8 = 0x40;
/// Its registers.
const RAISE: u64 = 0x08;
const STATUS: u64 = 0x0C;
const STATUS_AND_CLEAR: u64 = 0x10;
const ENABLE: u64 = 0x14;
const SIGNAL: u64 = 0x18;
const DELAY: u64 = 0x20;

fn with_card(spec: &str) -> Rig {
    let mut rig = Rig::new(&[spec]);
    // Memory space, bus master.
    rig.set_config(CARD, 4, Width::Word, 6);
    rig
}

impl Rig {
    fn register(&mut self, offset: u64) -> u64 {
        self.read(CARD, 0, offset, Width::Dword)
    }

    fn set_register(&mut self, offset: u64, value: u64) {
        self.write(CARD, 0, offset, Width::Dword, value);
    }

    /// The data of the messages sent since this was asked last.
    fn sent(&mut self) -> Vec<u32> {
        self.bus.take_messages().into_iter().map(|message| message.data).collect()
    }

    /// Programs MSI with a 64-bit address for `1 << enabled` messages, and turns it on.
    fn program_msi(&mut self, enabled: u32) {
        self.set_config(CARD, AT + 4, Width::Dword, 0xFEE0_1003);
        self.set_config(CARD, AT + 8, Width::Dword, 0);
        self.set_config(CARD, AT + 0xC, Width::Word, 0x4040);
        self.set_config(CARD, AT + 2, Width::Word, 1 | enabled << 4);
    }

    /// Programs entry `n` of the MSI-X table.
    fn program_entry(&mut self, n: u64, data: u64, masked: u64) {
        self.write(CARD, 1, n * 16, Width::Qword, 0xFEE0_2000);
        self.write(CARD, 1, n * 16 + 8, Width::Qword, data | masked << 32);
    }
}

#[test]
fn an_msi_capability_says_what_the_function_can_do_and_stores_only_what_software_may_write() {
    let mut rig = with_card("bench,msi=4");
    assert_eq!(rig.config(CARD, 6, Width::Word) & 0x10, 0x10, "there is a capabilities list");
    assert_eq!(rig.config(CARD, 0x34, Width::Byte), AT.into());
    assert_eq!(rig.config(CARD, AT, Width::Dword), 0x0184_0005, "4 messages, 64 bits, masks");
    for offset in (0..0x18).step_by(4) {
        rig.set_config(CARD, AT + offset, Width::Dword, u32::MAX);
    }
    let read: Vec<u32> =
        (0..0x18).step_by(4).map(|offset| rig.config(CARD, AT + offset, Width::Dword)).collect();
    assert_eq!(read, [0x01F5_0005, 0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF, 0xF, 0]);
    assert_eq!(rig.config(CARD, AT + 0x18, Width::Dword), 0, "behind it there is nothing");
    let mut narrow = with_card("bench,msi=1,msi32,nomask");
    assert_eq!(narrow.config(CARD, AT, Width::Dword), 0x0000_0005);
    narrow.set_config(CARD, AT + 8, Width::Word, 0x1234);
    narrow.set_config(CARD, AT + 0xC, Width::Dword, u32::MAX);
    assert_eq!(narrow.config(CARD, AT + 8, Width::Dword), 0x1234, "the data is behind the short address");
    assert_eq!(narrow.config(CARD, AT + 0xC, Width::Dword), 0, "and no masks behind it");
}

#[test]
fn msi_writes_the_programmed_data_with_the_number_in_its_low_bits() {
    let mut rig = with_card("bench,msi=4");
    rig.program_msi(2);
    rig.set_register(ENABLE, 0xF);
    rig.set_register(RAISE, 0b1010);
    let sent = rig.bus.take_messages();
    let message = |data| Message { address: 0xFEE0_1000, data };
    assert_eq!(sent, [message(0x4041), message(0x4043)]);
    rig.set_register(RAISE, 0b0010);
    assert_eq!(rig.sent(), [], "its status is set already: an edge comes once");
    rig.set_register(STATUS, 0b0010);
    rig.set_register(RAISE, 0b0010);
    assert_eq!(rig.sent(), [0x4041]);
}

#[test]
fn a_function_with_fewer_messages_enabled_than_it_has_uses_those_for_all() {
    let mut rig = with_card("bench,msi=8");
    rig.program_msi(1);
    rig.set_register(SIGNAL, 5);
    rig.set_register(SIGNAL, 4);
    assert_eq!(rig.sent(), [0x4041, 0x4040]);
}

#[test]
fn a_masked_message_pends_once_and_is_sent_when_its_mask_goes() {
    let mut rig = with_card("bench,msi=4");
    rig.set_config(CARD, AT + 0x10, Width::Dword, 0b0100);
    rig.program_msi(2);
    for _ in 0..3 {
        rig.set_register(SIGNAL, 2);
    }
    rig.set_register(SIGNAL, 0);
    assert_eq!(rig.sent(), [0x4040], "only the other one");
    assert_eq!(rig.config(CARD, AT + 0x14, Width::Dword), 0b0100, "it pends");
    rig.set_config(CARD, AT + 0x10, Width::Dword, 0);
    assert_eq!(rig.sent(), [0x4042]);
    assert_eq!(rig.config(CARD, AT + 0x14, Width::Dword), 0);
}

#[test]
fn with_messages_on_the_pin_is_silent_and_without_them_the_line_speaks() {
    let mut rig = with_card("bench,msi=2");
    let line = 1 << rig.function(CARD).line.unwrap();
    rig.set_register(ENABLE, 1);
    rig.set_register(RAISE, 1);
    assert_eq!((rig.bus.lines(), rig.sent()), (line, vec![]), "messages are off");
    rig.program_msi(0);
    assert_eq!(rig.bus.lines(), 0);
    rig.set_config(CARD, AT + 2, Width::Word, 0);
    assert_eq!(rig.bus.lines(), line);
    assert_eq!(rig.register(STATUS_AND_CLEAR), 1);
    assert_eq!((rig.register(STATUS), rig.bus.lines()), (0, 0), "reading cleared it");
}

#[test]
fn a_function_that_may_not_be_a_master_is_not_heard() {
    let mut rig = with_card("bench,msi=1");
    rig.program_msi(0);
    rig.set_config(CARD, 4, Width::Word, 2);
    rig.set_register(SIGNAL, 0);
    assert_eq!(rig.sent(), []);
}

#[test]
fn an_msi_x_table_lies_in_its_window_as_memory_and_each_entry_starts_masked() {
    let mut rig = with_card("bench,msix=3");
    assert_eq!(rig.config(CARD, AT, Width::Dword), 0x0002_0011, "3 entries");
    assert_eq!(rig.config(CARD, AT + 4, Width::Dword), 1, "the table: BAR1, offset 0");
    assert_eq!(rig.config(CARD, AT + 8, Width::Dword), 0x801, "the pending bits: BAR1, offset 800h");
    for entry in 0..3 {
        assert_eq!(rig.read(CARD, 1, entry * 16 + 8, Width::Qword), 1 << 32);
    }
    rig.program_entry(2, 0x77, 0);
    assert_eq!(rig.read(CARD, 1, 0x20, Width::Dword), 0xFEE0_2000);
    assert_eq!(rig.read(CARD, 1, 0x28, Width::Qword), 0x77, "mask taken away");
    let refusal = rig.try_read(CARD, 1, 0x28, Width::Byte).unwrap_err();
    assert_eq!(refusal, "bench#0 BAR1+28h MSI-X table[2] data: accepts 4 and 8 bytes, aligned");
    assert_eq!(rig.read(CARD, 1, 0x40, Width::Dword), 0, "behind the table there is the card");
}

#[test]
fn an_msi_x_message_pends_under_its_own_mask_and_under_the_functions() {
    let mut rig = with_card("bench,msix=40");
    rig.program_entry(1, 0x51, 0);
    rig.program_entry(33, 0x61, 1);
    rig.set_register(SIGNAL, 1);
    assert_eq!(rig.sent(), [], "MSI-X is off: nothing is signaled");
    rig.set_config(CARD, AT + 2, Width::Word, 0x8000);
    rig.set_register(SIGNAL, 1);
    rig.set_register(SIGNAL, 33);
    assert_eq!(rig.sent(), [0x51]);
    assert_eq!(rig.read(CARD, 1, 0x800, Width::Qword), 1 << 33);
    rig.write(CARD, 1, 0x800, Width::Qword, 0);
    assert_eq!(rig.read(CARD, 1, 0x800, Width::Qword), 1 << 33, "pending bits are read only");

    rig.set_config(CARD, AT + 2, Width::Word, 0xC000);
    rig.write(CARD, 1, 33 * 16 + 12, Width::Dword, 0);
    rig.set_register(SIGNAL, 1);
    assert_eq!(rig.sent(), [], "the function's mask");
    rig.set_config(CARD, AT + 2, Width::Word, 0x8000);
    assert_eq!(rig.sent(), [0x51, 0x61]);
    assert_eq!(rig.read(CARD, 1, 0x800, Width::Qword), 0);
}

#[test]
fn the_largest_table_has_2048_entries() {
    let mut rig = with_card("bench,msix=2048");
    rig.set_config(CARD, AT + 2, Width::Word, 0x8000);
    rig.program_entry(2047, 0x99, 0);
    rig.set_register(SIGNAL, 2047);
    assert_eq!(rig.sent(), [0x99]);
}

#[test]
fn a_raise_with_a_delay_takes_effect_when_its_time_has_come() {
    let mut rig = with_card("bench,msi=4");
    rig.program_msi(2);
    rig.set_register(ENABLE, 0xF);
    rig.set_register(DELAY, 500);
    rig.set_register(RAISE, 0b10);
    assert_eq!((rig.bus.deadline(), rig.sent()), (Some(500), vec![]));
    rig.pass_to(499);
    assert_eq!(rig.register(STATUS), 0);
    rig.pass_to(500);
    assert_eq!((rig.sent(), rig.register(STATUS)), (vec![0x4041], 0b10));
}

#[test]
fn a_reset_masks_and_forgets_everything() {
    let mut rig = with_card("bench,msix=2");
    rig.set_config(CARD, AT + 2, Width::Word, 0x8000);
    rig.program_entry(0, 0x51, 1);
    rig.set_register(SIGNAL, 0);
    let base = rig.window(CARD, 1).base;
    rig.bus.reset();
    assert_eq!(rig.config(CARD, AT + 2, Width::Word), 1, "off");
    rig.set_config(CARD, 0x14, Width::Dword, u32::try_from(base).unwrap());
    rig.set_config(CARD, 4, Width::Word, 6);
    assert_eq!(rig.read(CARD, 1, 0, Width::Qword), 0);
    assert_eq!(rig.read(CARD, 1, 8, Width::Qword), 1 << 32);
    assert_eq!(rig.read(CARD, 1, 0x800, Width::Qword), 0, "nothing pends");
}

#[test]
fn what_is_no_bench_card_is_refused_with_what_would_be_one() {
    assert!(refused("bench,msi=3").contains("msi is 1, 2, 4, 8, 16 or 32"));
    assert!(refused("bench,msix=2049").contains("msix is a number from 1 to 2048"));
    assert!(refused("bench,msi=4,msix=4").contains("not both"));
    assert!(refused("bench,nomask").contains("add msi="));
}
