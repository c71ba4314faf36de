//! A user's own card, from the text of `lspci`.

use kernel::hal::hardware::Width;

use crate::rig::{Rig, card_with_file};

const VERBOSE: &str = "\
02:00.0 Bridge: PLX Technology, Inc. PCI9052 PCI <-> IOBus Bridge (rev 02)
\tSubsystem: Device 1234:5678
\tFlags: medium devsel, IRQ 16
\tMemory at f7d00000 (32-bit, non-prefetchable) [size=128]
\tI/O ports at e080 [size=128]
\tMemory at f7c00000 (32-bit, prefetchable) [size=8K]
\tExpansion ROM at f7b00000 [disabled] [size=64K]
\tCapabilities: [40] Power Management version 2
00: b5 10 50 90 03 00 90 02 02 00 80 06 08 20 00 00
10: 00 00 d0 f7 81 e0 00 00 08 00 c0 f7 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 34 12 78 56
30: 00 00 b0 f7 40 00 00 00 00 00 00 00 0b 02 04 08
40: 01 00 02 00 00 00 00 00 00 00 00 00 00 00 00 00
";

fn rig(spec: &str, text: &str) -> Rig {
    Rig::of(vec![card_with_file(spec, text.as_bytes())])
}

fn trouble(spec: &str, text: &str) -> String {
    devices::parse(spec, &|_: &str| Ok(text.as_bytes().to_vec())).err().expect("refused").to_string()
}

/// A dump without what `-v` adds.
fn bare() -> String {
    VERBOSE.lines().filter(|line| !line.starts_with('\t')).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_dump_makes_the_card_it_was_taken_from() {
    let mut rig = rig("pci,config=card.txt", VERBOSE);
    let windows: Vec<_> =
        rig.function("pci#0").windows.iter().map(|w| (w.bar, w.port, w.length, w.prefetchable)).collect();
    assert_eq!(windows, [(0, false, 128, false), (1, true, 128, false), (2, false, 8192, true)]);
    assert_eq!(rig.config("pci#0", 0x00, Width::Dword), 0x9050_10B5);
    assert_eq!(rig.config("pci#0", 0x08, Width::Dword), 0x0680_0002);
    assert_eq!(rig.config("pci#0", 0x2C, Width::Dword), 0x5678_1234);
    assert_eq!(rig.config("pci#0", 0x3D, Width::Byte), 2, "INTB#");
    assert_eq!(rig.config("pci#0", 0x3E, Width::Word), 0x0804);
    assert_eq!(rig.function("pci#0").line, Some(18));
    rig.set_config("pci#0", 0x30, Width::Dword, 0xFFFF_FFFF);
    assert_eq!(rig.config("pci#0", 0x30, Width::Dword), 0xFFFF_0001, "64K of ROM");
}

#[test]
fn the_capabilities_of_a_dump_can_be_walked() {
    let mut rig = rig("pci,config=card.txt", VERBOSE);
    assert_eq!(rig.config("pci#0", 0x06, Width::Word) & 0x10, 0x10);
    let first = u8::try_from(rig.config("pci#0", 0x34, Width::Byte)).unwrap();
    assert_eq!(rig.config("pci#0", first, Width::Dword), 0x0002_0001);
    assert_eq!(rig.config("pci#0", 0xFC, Width::Dword), 0, "past the dump");
}

#[test]
fn sizes_that_are_not_written_down_come_from_alignment_and_can_be_told() {
    let lengths = |spec: &str| -> Vec<u64> {
        rig(spec, &bare()).function("pci#0").windows.iter().map(|window| window.length).collect()
    };
    assert_eq!(lengths("pci,config=card.txt"), [65536, 128, 65536]);
    assert_eq!(lengths("pci,config=card.txt,bar0=mem:128,bar2=none"), [128, 128]);
}

#[test]
fn a_64_bit_window_takes_two_registers_and_its_base_is_matched_whole() {
    let text = "\
0000:03:00.0 Ethernet controller: Made up
\tMemory at 4000000000 (64-bit, prefetchable) [size=32M]
00: 34 12 78 56 00 00 00 00 00 00 00 02 00 00 00 00
10: 0c 00 00 00 40 00 00 00 00 00 00 00 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
30: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
";
    let rig = rig("pci,config=nic.txt", text);
    let window = rig.window("pci#0", 0);
    assert_eq!((window.length, window.prefetchable), (32 << 20, true));
    assert_eq!(rig.function("pci#0").windows.len(), 1);
    assert_eq!(rig.function("pci#0").line, None);
}

#[test]
fn one_of_several_functions_is_chosen_by_its_address() {
    let other = bare().replace("02:00.0", "03:00.1").replace("b5 10 50 90", "b5 10 30 90");
    let both = format!("{}\n{other}", bare());
    let mut rig = rig("pci,config=all.txt,function=03:00.1", &both);
    assert_eq!(rig.config("pci#0", 2, Width::Word), 0x9030);
    assert_eq!(
        trouble("pci,config=all.txt", &both),
        "device `pci`: config=all.txt: holds several functions (02:00.0, 03:00.1); choose one with function="
    );
    assert!(
        trouble("pci,config=all.txt,function=04:00.0", &both)
            .contains("holds no function 04:00.0; it holds 02:00.0, 03:00.1")
    );
}

#[test]
fn text_that_is_no_dump_is_answered_with_what_and_where() {
    let bridge = bare().replace("08 20 00 00", "08 20 01 00");
    let gone = bare().replace("b5 10 50 90", "ff ff ff ff");
    let torn = bare().replace("20: 00 00", "20: 0x 00");
    let skipped = bare().replace("20: 00", "30: 00");
    let short: String = bare().lines().take(3).map(|line| format!("{line}\n")).collect();
    for (text, says) in [
        ("hello\n", "holds no configuration dump"),
        ("", "holds no configuration dump"),
        (&bridge, "02:00.0: is a bridge (header type 1)"),
        (&gone, "did not answer when it was dumped"),
        (&torn, "line 4: `0x` is not a byte in hexadecimal"),
        (&skipped, "line 4: expected the row at 20h"),
        (&short, "only 32 bytes of configuration space; 64 are needed"),
    ] {
        let message = trouble("pci,config=card.txt", text);
        assert!(message.contains(says), "{says}: {message}");
    }
    let binary = devices::parse("pci,config=x", &|_: &str| Ok(vec![0xFF, 0xFE])).err().expect("refused");
    assert!(binary.to_string().contains("is not text"));
}

#[test]
fn no_torn_dump_panics() {
    for cut in 0..VERBOSE.len() {
        let text = &VERBOSE[..cut];
        let swapped = VERBOSE.replacen(char::from(VERBOSE.as_bytes()[cut]), "f", 3);
        for text in [text, &swapped] {
            if let Ok(card) = devices::parse("pci,config=x", &|_: &str| Ok(text.as_bytes().to_vec())) {
                drop(devices::pci::PciBus::new(vec![card]));
            }
        }
    }
}
