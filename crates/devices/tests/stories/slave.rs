//! The `slave` card and the DMA controllers behind the bridge: whose bytes go where, and when.

use kernel::hal::hardware::{Hardware, Width};

use super::rig::{Rig, refused};

const CARD: &str = "slave#0";
const CHANNEL: u64 = 0x04;
const COMMAND: u64 = 0x08;
const STATUS: u64 = 0x0C;
const MOVED: u64 = 0x10;
const OFFSET: u64 = 0x14;

fn with_card(spec: &str) -> Rig {
    let mut rig = Rig::new(&[spec]);
    // Memory space, and no bus master.
    rig.set_config(CARD, 4, Width::Word, 2);
    rig
}

impl Rig {
    fn read_slave(&mut self, offset: u64) -> u64 {
        self.read(CARD, 0, offset, Width::Dword)
    }

    fn write_slave(&mut self, offset: u64, value: u64) {
        self.write(CARD, 0, offset, Width::Dword, value);
    }

    fn out(&mut self, writes: &[(u16, u8)]) {
        for (port, value) in writes {
            self.port_write(self.now, *port, Width::Byte, (*value).into()).unwrap();
        }
    }

    /// Channel 1: so many bytes at 021000h.
    fn channel_1(&mut self, mode: u8, bytes: u16) {
        let [low, high] = (bytes - 1).to_le_bytes();
        let place = [(0x0A, 5), (0x0C, 0), (0x0B, mode), (0x02, 0), (0x02, 0x10), (0x83, 2)];
        self.out(&place);
        self.out(&[(0x03, low), (0x03, high), (0x0A, 1)]);
    }
}

#[test]
fn bytes_go_to_the_card_and_come_back_by_its_channel_in_bursts() {
    let mut rig = with_card("slave,burst=4,every=1us");
    assert_eq!(rig.read_slave(CHANNEL), 1);
    rig.memory.0[0x2_1000..0x2_1006].copy_from_slice(b"abcdef");
    // It waits until the channel is programmed.
    rig.write_slave(COMMAND, 1 | 4);
    rig.pass_to(50_000);
    assert_eq!((rig.read_slave(MOVED), rig.bus.deadline()), (0, None));
    rig.channel_1(0x49, 6);
    rig.pass_to(51_000);
    assert_eq!((rig.read_slave(MOVED), rig.bus.lines()), (4, 0));
    rig.out(&[(0x0C, 0)]);
    assert_eq!(rig.port_read(rig.now, 0x03, Width::Byte).unwrap(), 1, "two are left");
    rig.pass_to(60_000);
    assert_eq!((rig.read_slave(MOVED), rig.read_slave(STATUS), rig.read_slave(COMMAND)), (6, 1, 4));
    assert_ne!(rig.bus.lines(), 0);
    rig.write_slave(STATUS, 1);
    assert_eq!(rig.bus.lines(), 0);

    rig.memory.0[0x2_1000..0x2_1006].fill(0);
    rig.write_slave(OFFSET, 0);
    rig.channel_1(0x45, 6);
    rig.write_slave(COMMAND, 1 | 2);
    rig.pass_to(70_000);
    assert_eq!(&rig.memory.0[0x2_1000..0x2_1006], b"abcdef");
    assert_eq!((rig.read_slave(STATUS), rig.bus.lines()), (1, 0), "the end was to raise no interrupt");
}

#[test]
fn a_card_that_goes_on_moves_the_same_place_again_until_it_is_paused_or_stopped() {
    let mut rig = with_card("slave,burst=8,every=1us");
    rig.channel_1(0x59, 8);
    rig.write_slave(COMMAND, 1 | 8);
    rig.pass_to(5_500);
    assert_eq!((rig.read_slave(MOVED), rig.read_slave(COMMAND) & 1), (40, 1));
    rig.poke(CARD, "pause", "1");
    rig.pass_to(9_000);
    assert_eq!(rig.read_slave(MOVED), 40);
    rig.poke(CARD, "pause", "0");
    rig.pass_to(10_500);
    assert_eq!(rig.read_slave(MOVED), 48);
    rig.write_slave(COMMAND, 0);
    rig.pass_to(20_000);
    assert_eq!(rig.read_slave(MOVED), 48);
}

#[test]
fn channel_4_and_odd_bursts_are_none() {
    assert!(refused("slave,channel=4").contains("channel is a number: 0 to 3, 5 to 7"));
    assert!(refused("slave,burst=3").contains("burst is an even number"));
    assert!(refused("slave,every=0").contains("every is a time"));
}
