//! QEMU's educational device on the bus, where QEMU itself cannot be asked: what is refused, and what takes its time.

use kernel::hal::hardware::{Hardware, Width};

use super::rig::Rig;

const CARD: &str = "edu#0";
const BUFFER: u64 = 0x4_0000;

fn with_card(spec: &str) -> Rig {
    let mut rig = Rig::new(&[spec]);
    // Memory space, bus master.
    rig.set_config(CARD, 4, Width::Word, 6);
    rig
}

impl Rig {
    /// Starts a transfer between memory and the card's buffer.
    fn transfer(&mut self, memory: u64, card: u64, count: u64, command: u64) -> Result<(), String> {
        let (source, destination) = if command & 2 != 0 { (card, memory) } else { (memory, card) };
        for (offset, value) in [(0x80, source), (0x88, destination), (0x90, count)] {
            self.write(CARD, 0, offset, Width::Qword, value);
        }
        self.try_write(CARD, 0, 0x98, Width::Qword, command | 1)
    }
}

#[test]
fn a_transfer_happens_at_its_end_with_its_interrupt() {
    let mut rig = with_card("edu,dma=50us");
    rig.memory.0[0x1000..0x1004].copy_from_slice(b"edu!");
    rig.transfer(0x1000, BUFFER + 8, 4, 0).unwrap();
    rig.pass_to(49_999);
    assert_eq!(rig.read(CARD, 0, 0x98, Width::Dword), 1, "it runs");
    rig.memory.0[0x1003] = b'?';
    rig.pass_to(50_000);
    assert_eq!(rig.read(CARD, 0, 0x98, Width::Dword), 0);
    assert_eq!(rig.bus.lines(), 0, "no interrupt was asked for");
    rig.transfer(0x2000, BUFFER + 8, 4, 2 | 4).unwrap();
    assert_eq!(rig.memory.0[0x2000..0x2004], [0; 4]);
    rig.pass_to(100_000);
    assert_eq!(&rig.memory.0[0x2000..0x2004], b"edu?", "as memory was at the end of the first");
    assert_ne!(rig.bus.lines(), 0);
    assert_eq!(rig.read(CARD, 0, 0x24, Width::Dword), 0x100);
    rig.write(CARD, 0, 0x64, Width::Dword, 0x100);
    assert_eq!(rig.bus.lines(), 0);
}

#[test]
fn a_card_that_is_no_bus_master_moves_nothing() {
    let mut rig = with_card("edu,dma=0");
    rig.memory.0[0x1000..0x1004].copy_from_slice(b"edu!");
    rig.transfer(0x1000, BUFFER, 4, 0).unwrap();
    rig.set_config(CARD, 4, Width::Word, 2);
    rig.transfer(0x2000, BUFFER, 4, 2 | 4).unwrap();
    assert_eq!(rig.memory.0[0x2000..0x2004], [0; 4]);
    assert_eq!(rig.read(CARD, 0, 0x24, Width::Dword), 0x100, "it thinks that it has");
    rig.set_config(CARD, 4, Width::Word, 6);
    rig.transfer(0x2000, BUFFER, 4, 2).unwrap();
    assert_eq!(&rig.memory.0[0x2000..0x2004], b"edu!");
}

#[test]
fn a_card_that_is_pulled_out_in_the_middle_writes_nothing() {
    let mut rig = with_card("edu,dma=50us");
    rig.memory.0[0x2000..0x2004].copy_from_slice(b"safe");
    rig.transfer(0x2000, BUFFER, 4, 2 | 4).unwrap();
    let at = rig.at(CARD);
    rig.bus.set_present(at, false);
    rig.pass_to(60_000);
    assert_eq!(&rig.memory.0[0x2000..0x2004], b"safe");
    assert_eq!(rig.bus.lines(), 0);
}

#[test]
fn what_cannot_be_meant_is_refused_and_starts_nothing() {
    let mut rig = with_card("edu,dma=0");
    let no = |rig: &mut Rig, memory, card, count| rig.transfer(memory, card, count, 2).unwrap_err();
    assert_eq!(no(&mut rig, 0x1000, BUFFER, 0), "edu#0 BAR0+98h DMA_COMMAND: starts no transfer of 0 bytes");
    assert!(no(&mut rig, 0x1000, BUFFER + 1, 4096).contains("1000h bytes at 40001h of the card"));
    assert!(no(&mut rig, 0x1000, BUFFER - 1, 4).contains("whose buffer is 40000h-40FFFh"));
    assert!(no(&mut rig, 0x1000, u64::MAX, 4).contains("whose buffer is"));
    assert!(no(&mut rig, 0x1000_0000, BUFFER, 4).contains("10000000h, which the card cannot reach"));
    assert!(no(&mut rig, 0xFFF_FFFE, BUFFER, 4).contains("those up to FFFFFFFh"));
    assert_eq!(rig.read(CARD, 0, 0x98, Width::Dword), 0);
    rig.transfer(0x1000, BUFFER, 4096, 2).unwrap();
    let mut wide = with_card("edu,dma=0,dma_mask=0xffffffffff");
    wide.transfer(0xFF_FFFF_FFFC, BUFFER, 4, 2).unwrap();
    for (offset, width) in
        [(0x04, Width::Byte), (0x04, Width::Qword), (0x20, Width::Word), (0x98, Width::Byte)]
    {
        assert!(rig.try_read(CARD, 0, offset, width).is_err(), "{offset:x}h, {width:?}");
        assert!(rig.try_write(CARD, 0, offset, width, 0).is_err(), "{offset:x}h, {width:?}");
    }
    assert!(rig.try_read(CARD, 0, 0x82, Width::Dword).is_err(), "not aligned");
}

#[test]
fn a_factorial_takes_its_time_and_numbers_written_meanwhile_are_ignored() {
    let mut rig = with_card("edu,factorial=10us");
    rig.write(CARD, 0, 0x20, Width::Dword, 0x80);
    rig.write(CARD, 0, 0x08, Width::Dword, 10);
    rig.pass_to(5_000);
    assert_eq!(rig.read(CARD, 0, 0x20, Width::Dword), 0x81);
    let ignored = rig.try_write(CARD, 0, 0x08, Width::Dword, 3).unwrap_err();
    assert!(ignored.contains("takes no number while it computes"), "{ignored}");
    rig.pass_to(10_000);
    assert_eq!(rig.read(CARD, 0, 0x08, Width::Dword), 3_628_800);
    assert_eq!((rig.read(CARD, 0, 0x20, Width::Dword), rig.read(CARD, 0, 0x24, Width::Dword)), (0x80, 1));
    assert_ne!(rig.bus.lines(), 0);
}
