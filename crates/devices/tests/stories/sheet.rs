//! Cards and boards that a text file describes.

use kernel::hal::hardware::{Hardware, Width};

use crate::rig::{Rig, card_with_file};

const SAMPLER: &str = include_str!("../../../../drivers/c/sampler.sheet");
const LINE: u64 = 1 << 17;

/// A card with this sheet.
fn rig(sheet: &str) -> Rig {
    let line = if sheet.contains(" irq\n") { ",line=17" } else { "" };
    Rig::of(vec![card_with_file(&format!("pci,sheet=x.sheet{line}"), sheet.as_bytes())])
}

/// A card with BAR0 of 256 bytes and these lines.
fn small(lines: &str) -> Rig {
    rig(&format!("card id=abcd:1 irq\nbar0 mem:256\n{lines}"))
}

fn read(rig: &mut Rig, offset: u64) -> u64 {
    rig.read("pci#0", 0, offset, Width::Dword)
}

fn write(rig: &mut Rig, offset: u64, value: u64) {
    rig.write("pci#0", 0, offset, Width::Dword, value);
}

/// The message for a sheet that cannot be used.
fn refused(sheet: &str) -> String {
    let bytes = sheet.as_bytes().to_vec();
    devices::parse("pci,sheet=x.sheet", &move |_: &str| Ok(bytes.clone()))
        .err()
        .expect("must be refused")
        .to_string()
}

#[test]
fn a_card_samples_interrupts_and_is_read_out() {
    let mut rig = rig(SAMPLER);
    assert_eq!(read(&mut rig, 0), 0x5A4D_0001);
    assert_eq!(read(&mut rig, 4), 0xA00, "PERIOD has its value from reset");
    write(&mut rig, 0xC, 0xF);
    write(&mut rig, 4, 0xA01);
    rig.pass_to(79_999);
    assert_eq!((read(&mut rig, 8), rig.bus.lines()), (7 << 16, 0));
    rig.pass_to(80_000);
    assert_eq!((read(&mut rig, 8), rig.bus.lines()), (8 << 16 | 1, LINE));
    assert_eq!((0..3).map(|_| read(&mut rig, 0x10)).collect::<Vec<_>>(), [100, 101, 102]);
    write(&mut rig, 8, 1);
    assert_eq!((read(&mut rig, 8), rig.bus.lines()), (5 << 16, 0));
    // Without reads: eleven more fit, the next is lost.
    rig.pass_to(80_000 + 12 * 10_000);
    assert_eq!((read(&mut rig, 8), rig.bus.lines()), (16 << 16 | 3, LINE));
    write(&mut rig, 4, 2);
    assert_eq!(read(&mut rig, 4), 0, "CLEAR is written only");
    rig.pass_to(1_000_000);
    assert_eq!(read(&mut rig, 8), 3, "it has stopped, and the FIFO is empty");
}

#[test]
fn a_card_moves_a_block_to_memory_and_says_whether_anybody_answered() {
    let mut rig = rig(SAMPLER);
    rig.set_config("pci#0", 4, Width::Word, 7);
    rig.write("pci#0", 0, 0x800, Width::Qword, 0x1122_3344_5566_7788);
    write(&mut rig, 0x20, 0x1000);
    write(&mut rig, 0x28, 8);
    assert_eq!(rig.memory.0[0x1000], 0, "it takes 2 us");
    rig.pass_to(2_000);
    assert_eq!(rig.memory.0[0x1000..0x1008], 0x1122_3344_5566_7788_u64.to_le_bytes());
    assert_eq!(read(&mut rig, 8), 4);
    write(&mut rig, 0x20, 0xFFFF_F000);
    write(&mut rig, 0x28, 8);
    rig.pass_to(4_000);
    assert_eq!(read(&mut rig, 8), 8, "nothing is there");
    write(&mut rig, 0x20, 0x1000);
    write(&mut rig, 0x28, 0x801);
    rig.pass_to(6_000);
    assert_eq!(read(&mut rig, 8), 8, "its block has 800h bytes");
}

#[test]
fn each_access_does_what_its_name_says() {
    // What a register of 0xF0 holds after a write of 0x3C, and what it reads as.
    let cases = [
        ("ro", 0xF0, 0xF0),
        ("rw", 0x3C, 0x3C),
        ("wo", 0x3C, 0),
        ("rc", 0xF0, 0xF0),
        ("rs", 0xF0, 0xF0),
        ("wc", 0, 0),
        ("ws", 0xFF, 0xFF),
        ("w1c", 0xC0, 0xC0),
        ("w1s", 0xFC, 0xFC),
        ("w1t", 0xCC, 0xCC),
        ("w0c", 0x30, 0x30),
        ("w0s", 0xF3, 0xF3),
        ("w0t", 0x33, 0x33),
    ];
    for (access, held, found) in cases {
        let mut rig =
            small(&format!("00 REG byte {access} = 0xf0\n10 HELD ro\n\non poke look\n    HELD = REG\n"));
        rig.write("pci#0", 0, 0, Width::Byte, 0x3C);
        rig.poke("pci#0", "look", "0");
        assert_eq!(read(&mut rig, 0x10), held, "{access} holds");
        assert_eq!(rig.read("pci#0", 0, 0, Width::Byte), found, "{access} reads");
        let again = match access {
            "rc" => 0,
            "rs" => 0xFF,
            _ => found,
        };
        assert_eq!(rig.read("pci#0", 0, 0, Width::Byte), again, "{access} reads again");
    }
}

#[test]
fn an_access_drives_its_bytes_only_and_one_of_eight_bytes_two_registers() {
    let mut rig = small(
        "00 LOW w1c = 0xffffffff\n04 HIGH rw\n08 WIDE qword rw\n10 HALF word rw = 0x1234\n12 BYTE byte ro = 7\n13 LAST byte rw",
    );
    rig.write("pci#0", 0, 1, Width::Byte, 0xFF);
    assert_eq!(read(&mut rig, 0), 0xFFFF_00FF);
    rig.write("pci#0", 0, 0, Width::Qword, 0x5566_7788_0000_000F);
    assert_eq!((read(&mut rig, 0), read(&mut rig, 4)), (0xFFFF_00F0, 0x5566_7788));
    rig.write("pci#0", 0, 8, Width::Qword, u64::MAX - 1);
    assert_eq!(rig.read("pci#0", 0, 8, Width::Qword), u64::MAX - 1);
    write(&mut rig, 0x10, 0xAABB_CCDD);
    assert_eq!(read(&mut rig, 0x10), 0xAA07_CCDD);
    assert_eq!(
        rig.bus.describe(false, rig.window("pci#0", 0).base + 0x13).as_deref(),
        Some("pci#0 BAR0+13h LAST")
    );
}

#[test]
fn where_the_sheet_has_nothing_an_access_is_refused_or_answered_as_it_says() {
    let mut rig = small("00 REG rw");
    let why = rig.try_read("pci#0", 0, 4, Width::Dword).unwrap_err();
    assert!(why.contains("pci#0 BAR0+4h") && why.contains("rest=zeros"), "{why}");
    assert!(rig.try_write("pci#0", 0, 2, Width::Dword, 0).is_err(), "half of it is nowhere");
    for (rest, found) in [("zeros", 0), ("ones", 0xFFFF_FFFF), ("memory", 0x1234)] {
        let mut rig = self::rig(&format!("card id=abcd:1\nbar0 mem:256 rest={rest}\n00 REG word rw\n"));
        write(&mut rig, 0x20, 0x1234);
        assert_eq!(read(&mut rig, 0x20), found, "{rest}");
        write(&mut rig, 0, 0x5555_6666);
        let above = if rest == "memory" { 0x5555 } else { found & 0xFFFF };
        assert_eq!(read(&mut rig, 0), above << 16 | 0x6666, "{rest}: the register is there");
    }
}

#[test]
fn registers_of_one_width_refuse_others() {
    let mut rig = rig("card id=abcd:1\nbar0 mem:256 width=32\n00 REG rw\n04 NEXT rw\n80 RAM memory 64\n");
    for (offset, width) in [(0, Width::Byte), (0, Width::Qword), (2, Width::Dword)] {
        let why = rig.try_read("pci#0", 0, offset, width).unwrap_err();
        assert!(why.contains("REG") && why.contains("by 4, aligned"), "{why}");
    }
    rig.write("pci#0", 0, 0x81, Width::Word, 0xABCD);
    assert_eq!(rig.read("pci#0", 0, 0x82, Width::Byte), 0xAB, "memory takes any");
}

#[test]
fn two_fifos_can_share_an_offset() {
    let mut rig = small(
        "fifo RX 2\nfifo TX 4\n00 DATA reads RX writes TX\n04 SENT reads TX.count\n08 LOST reads RX.lost << 8 | RX.full << 1 | RX.empty\n\
         on poke receive\n    push RX value\non poke drop\n    pop RX\n    clear TX\n",
    );
    assert_eq!((read(&mut rig, 0), read(&mut rig, 8)), (0, 1), "an empty one reads 0");
    write(&mut rig, 0, 5);
    write(&mut rig, 0, 6);
    assert_eq!(read(&mut rig, 4), 2);
    for value in ["7", "8", "9"] {
        rig.poke("pci#0", "receive", value);
    }
    assert_eq!(read(&mut rig, 8), 0x102);
    rig.poke("pci#0", "drop", "0");
    assert_eq!((read(&mut rig, 4), read(&mut rig, 0), read(&mut rig, 0)), (0, 8, 0));
}

#[test]
fn actions_know_what_was_there_and_what_is_written() {
    let mut rig = small(
        "00 COMMAND rw\n    0 GO\n    7:4 CODE\n04 RISES ro\n08 CODES ro\n0c READS ro\n10 PROBE ro = 3\nstate LAST\n\
         on write COMMAND\n    RISES = RISES + 1 if COMMAND.GO && !old.GO\n    CODES = CODES << 4 | written.CODE\n    LAST = old\n\
         on read PROBE\n    READS = READS + 1\n    PROBE = LAST\n",
    );
    for value in [0x11, 0x21, 0x30, 0x41] {
        write(&mut rig, 0, value);
    }
    assert_eq!((read(&mut rig, 4), read(&mut rig, 8)), (2, 0x1234));
    assert_eq!((read(&mut rig, 0x10), read(&mut rig, 0x10)), (3, 0x30));
    assert_eq!(read(&mut rig, 0xC), 2);
}

#[test]
fn timers_end_once_or_again_and_can_be_stopped_and_asked() {
    let mut rig = small(
        "00 GO rw\n04 ONCE ro\n08 AGAIN ro\n0c RUNNING reads T.running << 1 | P.running\n\
         on write GO\n    start T after GO ns\n    start P every 2 us\non timer T\n    ONCE = ONCE + 1\non timer P\n    AGAIN = AGAIN + 1\n    stop P if AGAIN == 3\n",
    );
    write(&mut rig, 0, 500);
    assert_eq!(read(&mut rig, 0xC), 3);
    rig.pass_to(499);
    assert_eq!(read(&mut rig, 4), 0);
    rig.pass_to(500);
    assert_eq!((read(&mut rig, 4), read(&mut rig, 0xC)), (1, 1));
    rig.pass_to(100_000);
    assert_eq!((read(&mut rig, 4), read(&mut rig, 8), read(&mut rig, 0xC)), (1, 3, 0));
}

#[test]
fn a_descriptor_in_memory_is_read_and_its_status_written_back() {
    let mut rig = small(
        "00 RING rw\n80 BUFFER memory 64\non write RING\n    fetch BUFFER[4] from bus[RING] length bus[RING + 4]\n    BUFFER[0] = bus[RING + 4]\n    bus[RING + 8] = 0x80000000 | answered\n",
    );
    rig.set_config("pci#0", 4, Width::Word, 7);
    rig.memory.0[0x2000..0x2008].copy_from_slice(&[0, 0x30, 0, 0, 3, 0, 0, 0]);
    rig.memory.0[0x3000..0x3004].copy_from_slice(&[1, 2, 3, 4]);
    write(&mut rig, 0, 0x2000);
    assert_eq!(rig.memory.0[0x2008..0x200C], [1, 0, 0, 0x80], "before the driver's next instruction");
    assert_eq!((read(&mut rig, 0x80), read(&mut rig, 0x84)), (3, 0x0003_0201));
}

#[test]
fn a_message_is_signaled_when_its_reason_is_new() {
    let mut rig = rig(
        "card id=abcd:1\nbar0 mem:256\n00 STATUS w1c\nmessage 0 = STATUS & 1\nmessage 3 = STATUS & 2\non poke cause\n    STATUS = STATUS | value\n",
    );
    let capability = rig.config("pci#0", 0x34, Width::Byte);
    let at = u8::try_from(capability).unwrap();
    assert_eq!(rig.config("pci#0", at, Width::Word) & 0xFF, 5, "MSI");
    assert_eq!(rig.config("pci#0", at + 2, Width::Word) >> 1 & 7, 2, "four messages");
    rig.set_config("pci#0", 4, Width::Word, 7);
    rig.set_config("pci#0", at + 4, Width::Dword, 0xFEE0_0000);
    rig.set_config("pci#0", at + 12, Width::Word, 0x40);
    rig.set_config("pci#0", at + 2, Width::Word, 2 << 4 | 1);
    rig.poke("pci#0", "cause", "1");
    rig.poke("pci#0", "cause", "1");
    rig.poke("pci#0", "cause", "2");
    let sent: Vec<u32> = rig.bus.take_messages().iter().map(|message| message.data).collect();
    assert_eq!(sent, [0x40, 0x43], "not again while it is there");
    write(&mut rig, 0, 3);
    rig.poke("pci#0", "cause", "1");
    assert_eq!(rig.bus.take_messages().len(), 1);
}

#[test]
fn a_script_looks_at_registers_by_their_names() {
    let mut rig = rig(SAMPLER);
    let peek = |rig: &mut Rig, name: &str| {
        let mut memory = crate::rig::Ram(Vec::new());
        rig.bus.peek(&mut kernel::hal::hardware::Moment::new(0, &mut memory), "pci#0", name)
    };
    rig.poke("pci#0", "signal", "0x1f4");
    assert_eq!(peek(&mut rig, "NEXT").unwrap(), 500);
    assert_eq!(peek(&mut rig, "CONTROL").unwrap(), 0xA00);
    assert!(peek(&mut rig, "CONTRL").unwrap_err().ends_with("no register `CONTRL`; did you mean `CONTROL`?"));
    assert!(rig.try_poke("pci#0", "sgnal", "1").unwrap_err().ends_with("no signal `sgnal`; it has: signal"));
    assert!(rig.try_poke("pci#0", "signal", "fast").unwrap_err().ends_with("`fast` is no number"));
}

#[test]
fn what_is_typed_goes_before_the_card_line() {
    let card = card_with_file("pci,sheet=x.sheet,id=1234:5678,rev=3", SAMPLER.as_bytes());
    let header = card.header();
    assert_eq!((header.vendor, header.device, header.revision, header.class), (0x1234, 0x5678, 3, 0x11_8000));
}

/// A sheet behind the bridge, with LINTi1 and LINTi2; local addresses from 0 on are in BAR2.
fn board(sheet: &str) -> Rig {
    Rig::of(vec![card_with_file("pci9052,line=17,local=x.sheet", sheet.as_bytes())])
}

#[test]
fn behind_the_bridge_a_board_drives_both_interrupt_inputs() {
    let mut rig = board(
        "local\n0100 CAUSES w1c\nline linti1 = CAUSES & 1\nline linti2 = CAUSES & 2\non poke cause\n    CAUSES = CAUSES | value\n",
    );
    const INTCSR: u64 = 0x4C;
    // Both enabled, active high, and the PCI interrupt.
    rig.write("pci9052#0", 0, INTCSR, Width::Dword, 0x5B);
    for cause in ["1", "2"] {
        assert_eq!(rig.bus.lines(), 0);
        rig.poke("pci9052#0", "cause", cause);
        assert_eq!(rig.bus.lines(), LINE, "{cause}");
        rig.write("pci9052#0", 2, 0x100, Width::Dword, 3);
    }
    assert_eq!(rig.bus.lines(), 0);
    rig.write("pci9052#0", 2, 0x2000, Width::Dword, 0x1234_5678);
    assert_eq!(rig.read("pci9052#0", 2, 0x2001, Width::Word), 0x3456, "the rest is memory");
    let described = rig.bus.describe(false, rig.window("pci9052#0", 2).base + 0x100).unwrap();
    assert!(described.ends_with(" CAUSES"), "{described}");
    rig.poke("pci9052#0", "uio0", "1");
    let why = rig.try_poke("pci9052#0", "cuase", "1").unwrap_err();
    assert!(why.contains("linti1") && why.ends_with("cause"), "{why}");
}

#[test]
fn a_board_behind_the_bridge_is_cleared_by_its_reset_but_not_its_memory() {
    let mut rig = board("local\n0100 REG rw = 7\n0200 RAM memory 256\n");
    const CNTRL: u64 = 0x50;
    rig.write("pci9052#0", 2, 0x100, Width::Dword, 1);
    rig.write("pci9052#0", 2, 0x200, Width::Dword, 2);
    let cntrl = rig.read("pci9052#0", 0, CNTRL, Width::Dword);
    rig.write("pci9052#0", 0, CNTRL, Width::Dword, cntrl | 1 << 30);
    assert_eq!(rig.read("pci9052#0", 2, 0x100, Width::Dword), 0xFFFF_FFFF, "held in reset");
    rig.write("pci9052#0", 0, CNTRL, Width::Dword, cntrl);
    assert_eq!(rig.read("pci9052#0", 2, 0x100, Width::Dword), 7);
    assert_eq!(rig.read("pci9052#0", 2, 0x200, Width::Dword), 2);
}

#[test]
fn a_big_endian_space_turns_the_bytes_of_bus_words_over() {
    // One write is one write of the register's, whatever the order of its bytes.
    let sheet = "local\n0100 REG rw\n0104 WRITES ro\n0108 BYTES byte rw = 0x11\n0109 B1 byte rw = 0x22\n010a B2 byte rw = 0x33\n010b B3 byte rw = 0x44\non write REG\n    WRITES = WRITES + 1\n";
    const LAS0BRD: u64 = 0x28;
    for (width, [dword, word, writes]) in
        [(1, [0x3344_1122, 0x1122, 0x0000_0200]), (2, [0x1122_3344, 0x1122, 0x0100_0000])]
    {
        let mut rig = board(sheet);
        let descriptor = rig.read("pci9052#0", 0, LAS0BRD, Width::Dword) & !(3 << 22) | 1 << 24;
        rig.write("pci9052#0", 0, LAS0BRD, Width::Dword, descriptor | width << 22);
        let word_at = if width == 1 { 0x108 } else { 0x10A };
        assert_eq!(rig.read("pci9052#0", 2, 0x108, Width::Dword), dword, "bus width {width}");
        assert_eq!(rig.read("pci9052#0", 2, word_at, Width::Word), word, "bus width {width}");
        rig.write("pci9052#0", 2, 0x100, Width::Dword, 0xAABB_CCDD);
        assert_eq!(rig.read("pci9052#0", 2, 0x100, Width::Dword), 0xAABB_CCDD);
        assert_eq!(rig.read("pci9052#0", 2, 0x104, Width::Dword), writes, "bus width {width}");
    }
}

#[test]
fn what_is_wrong_with_a_sheet_is_told_with_line_and_column() {
    let cases = [
        ("card id=1:1\nbar0 mem:256\n00 A rw\n00 B rw", "x.sheet:4:1: `A` is there already"),
        ("card id=1:1\nbar0 mem:256\n00 A rw\n04 A rw", "x.sheet:4:4: the name `A` is given twice"),
        (
            "bra0 mem:4K",
            "x.sheet:1:1: `bra0` begins no line; did you mean `bar0`? (a register begins with its offset, hexadecimal)",
        ),
        (
            "00 A rw",
            "x.sheet:1:1: in which window is this? Begin with one of: bar0, bar1, bar2, bar3, bar4, bar5",
        ),
        (
            "bar0 mem:256\n00 A rw\n    32 F",
            "x.sheet:3:5: a field of this register begins with its bits, as 7:4 or 0, up to 31; or indent the line as the register's",
        ),
        ("bar0 mem:256\n00 A rw\n    3:0 F\n    3 G", "x.sheet:4:5: another field has one of these bits"),
        ("bar0 mem:256\n00 A rw\n    1:0 F = 4", "x.sheet:3:13: that is more than these bits can hold"),
        (
            "bar0 mem:256\n00 STATUS rw\n    0 DONE\nline irq = STATUS.DOEN",
            "x.sheet:4:19: the register has no field `DOEN`; did you mean `DONE`?",
        ),
        (
            "bar0 mem:256\n00 STATUS rw\nline irq = STATSU",
            "x.sheet:3:12: nothing is named `STATSU`; did you mean `STATUS`?",
        ),
        ("bar0 mem:256\n00 A rw\non write A\n    A = old.X", "x.sheet:4:13: the register has no field `X`"),
        ("bar0 mem:256\n00 A rw\non write A\n    A == 3", "x.sheet:4:7: `=` is missing here"),
        ("bar0 mem:256\n00 A rw\non write A\n    A = 3 5", "x.sheet:4:11: the line should end here"),
        (
            "bar0 mem:256\n00 A reads 5\non write A\n    A = 3",
            "x.sheet:4:5: it reads as something else, so there is nothing to set",
        ),
        (
            "bar0 mem:256\n00 A reads B\n04 B reads A",
            "reads as what reads as something else again, without an end",
        ),
        ("bar0 mem:256\n00 A rw\non wirte A\n", "x.sheet:3:4: what happens? `on` is followed by"),
        (
            "bar0 mem:256\n00 A rw\non write A\n    start T after 5us",
            "x.sheet:4:11: no timer is named `T`; say what it does: `on timer T`",
        ),
        (
            "bar0 mem:256\n00 A rw\non write A\n    start T after 5\non timer T\n",
            "x.sheet:4:20: a unit is missing here: ns, us, ms or s",
        ),
        ("bar0 mem:256\n00 A reads bus[0]", "x.sheet:2:12: `bus` is known in actions only"),
        ("bar0 mem:256\n00 if rw", "x.sheet:2:4: `if` has a meaning of its own; choose another name"),
        ("bar0 mem:256\n00 A rw\n\t0 F", "x.sheet:3:1: indent with spaces"),
        ("bar0 mem:256\nline irq = 0xffffffffffffffffff", "x.sheet:2:12: this is no number of 64 bits"),
        ("bar0 mem:256\nline intx = 1", "x.sheet:2:6: there is no line `intx`; there are: irq"),
        ("bar0 mem:256 width=24", "x.sheet:1:6: `width=24`: width= is 8, 16, 32 or 64"),
        ("card id=1:1\nbar0 mem:16\n20 A rw", "something lies behind the end of bar0, which has 10h bytes"),
        ("card id=1:1\nbar0\n20 A rw", "bar0 has no size; say `bar0 mem:4K`"),
        ("card id=1:1\nbar0 mem:16\nline irq = 1", "the card has no pin; add irq to its `card` line"),
        (
            "card id=1:1 colour=red\nbar0 mem:16",
            "its `card` line has `colour`, which is no key of `--device pci`",
        ),
        (
            "card id=1:1 reads=ones\nbar0 mem:16",
            "reads= cannot stand beside it: the sheet says what registers do",
        ),
        ("card id=1:1\nbar0 mem:17", "bar0=mem:17 is not usable"),
    ];
    for (sheet, wanted) in cases {
        let got = refused(sheet);
        assert!(got.contains(wanted), "{sheet:?}\n   got: {got}\nwanted: {wanted}");
    }
    let bridged = |sheet: &str| {
        let bytes = sheet.as_bytes().to_vec();
        let parsed = devices::parse("pci9052,local=x.sheet", &move |_: &str| Ok(bytes.clone()));
        parsed.err().expect("must be refused").to_string()
    };
    assert!(bridged("local\n0 A rw\non write A\n    bus[0] = 1").contains("the bridge is no bus master"));
    assert!(bridged("local\nmessage 0 = 1").contains("the bridge has no messages"));
    assert!(bridged("local mem:4K").contains("it means nothing here"));
}

#[test]
fn no_text_makes_the_reader_fail() {
    let mut numbers = crate::rig::Numbers::from(52);
    for _ in 0..4_000 {
        let mut bytes = SAMPLER.as_bytes().to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len());
            match numbers.below(4) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, b" \n=.[]()0af#"[numbers.below(12)]),
                2 => bytes[at] = bytes[numbers.below(bytes.len())],
                _ => bytes.truncate(at + 16),
            }
        }
        let Ok(mut card) = devices::parse("pci,id=1:1,bar0=mem:4K,irq,sheet=x", &|_: &str| Ok(bytes.clone()))
        else {
            continue;
        };
        card.reset();
    }
}

#[test]
fn a_register_takes_the_time_that_the_sheet_says_and_no_other_does() {
    let mut rig = small("00 SLOW rw takes 2us\n04 QUICK rw\n08 TABLE rw reads QUICK + 1 takes 300 ns\n");
    for (offset, takes) in [(0, 2_000), (4, 0), (8, 300)] {
        read(&mut rig, offset);
        assert_eq!(rig.took, takes);
        write(&mut rig, offset, 1);
        assert_eq!(rig.took, takes);
    }
    rig.read("pci#0", 0, 0, Width::Qword);
    assert_eq!(rig.took, 2_000, "of each register that is touched");
    for (takes, says) in [("2", "a unit is missing"), ("2ms", "1 ms at most"), ("us", "how much longer")] {
        let sheet = format!("card id=abcd:1 irq\nbar0 mem:256\n00 SLOW rw takes {takes}\n");
        assert!(refused(&sheet).contains(says), "{}", refused(&sheet));
    }
}

#[test]
fn behind_the_bridge_a_register_holds_ready_back() {
    let sheet = b"local\n1000 SLOW rw takes 2us\n1004 QUICK rw\n";
    let card = |spec: &str| devices::parse(spec, &|_: &str| Ok(sheet.to_vec()));
    let refused = card("pci9052,local=board.sheet").err().unwrap().to_string();
    assert!(refused.contains("takes` time, which passes on the local bus with lclk="), "{refused}");
    let mut rig = Rig::of(vec![card("pci9052,lclk=25MHz,local=board.sheet").unwrap()]);
    for (descriptor, offset, takes) in
        [(0x0080_0000, 0x1000, 80), (0x0080_0002, 0x1000, 2_080), (0x0080_0002, 0x1004, 80)]
    {
        rig.write("pci9052#0", 0, 0x28, Width::Dword, descriptor);
        rig.read("pci9052#0", 2, offset, Width::Dword);
        assert_eq!(rig.took, takes, "LAS0BRD {descriptor:08X}");
        rig.pass_to(rig.now + 10_000);
    }
}
