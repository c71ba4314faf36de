//! Stories of formats as drivers write them, and a loop of random ones.

use std::collections::BTreeMap;

use super::*;

/// A `va_list` and a little memory: blocks at addresses, nothing between.
#[derive(Default)]
struct Machine {
    slots: Vec<u64>,
    taken: usize,
    memory: BTreeMap<u64, Vec<u8>>,
    /// One behind the furthest byte that was read.
    furthest: u64,
}

impl Machine {
    fn with(slots: &[u64]) -> Self {
        Self { slots: slots.to_vec(), ..Self::default() }
    }

    fn block(mut self, address: u64, bytes: &[u8]) -> Self {
        self.memory.insert(address, bytes.to_vec());
        self
    }

    fn wide(self, address: u64, text: &str) -> Self {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.block(address, &bytes)
    }

    fn counted(self, address: u64, length: u16, buffer: u64) -> Self {
        let mut header = [0; 16];
        header[..2].copy_from_slice(&length.to_le_bytes());
        header[2..4].copy_from_slice(&length.to_le_bytes());
        header[8..].copy_from_slice(&buffer.to_le_bytes());
        self.block(address, &header)
    }
}

impl Arguments for Machine {
    fn next(&mut self) -> u64 {
        self.taken += 1;
        self.slots.get(self.taken - 1).copied().unwrap_or(0xcccc_cccc_cccc_cccc)
    }

    fn bytes(&mut self, address: u64, most: usize) -> Result<Vec<u8>, BadPointer> {
        let (start, block) = self.memory.range(..=address).next_back().ok_or(BadPointer { address })?;
        let skip = usize::try_from(address - start).unwrap();
        let piece: Vec<u8> = block.iter().skip(skip).take(most).copied().collect();
        self.furthest = self.furthest.max(address + piece.len() as u64);
        if piece.is_empty() { Err(BadPointer { address }) } else { Ok(piece) }
    }
}

fn printed(text: &str, machine: Machine) -> String {
    let mut machine = machine;
    let formatted = format(text.as_bytes(), &mut machine, 512).unwrap();
    String::from_utf8(formatted.text).unwrap()
}

fn number(text: &str, slot: u64) -> String {
    printed(text, Machine::with(&[slot]))
}

#[test]
fn integers_take_the_bits_their_size_says() {
    let slot = 0xffff_ffff_8000_00ff;
    for (text, expected) in [
        ("%d", "-2147483393"),
        ("%u", "2147483903"),
        ("%x", "800000ff"),
        ("%X", "800000FF"),
        ("%lx", "800000ff"),
        ("%I32x", "800000ff"),
        ("%I64x", "ffffffff800000ff"),
        ("%llu", "18446744071562068223"),
        ("%I64d", "-2147483393"),
        ("%Ix", "ffffffff800000ff"),
        ("%zx", "ffffffff800000ff"),
        ("%hx", "ff"),
        ("%hhd", "-1"),
        ("%hd", "255"),
        ("%o", "20000000377"),
        ("%p", "FFFFFFFF800000FF"),
    ] {
        assert_eq!(number(text, slot), expected, "{text}");
    }
    assert_eq!(number("%I64d", 1 << 63), "-9223372036854775808");
}

#[test]
fn flags_width_and_precision_shape_a_number() {
    for (text, slot, expected) in [
        ("[%5d]", 42, "[   42]"),
        ("[%-5d]", 42, "[42   ]"),
        ("[%05d]", (-42_i64).cast_unsigned(), "[-0042]"),
        ("[%+d]", 42, "[+42]"),
        ("[% d]", 42, "[ 42]"),
        ("[%#x]", 0x2a, "[0x2a]"),
        ("[%#x]", 0, "[0]"),
        ("[%#06X]", 0x2a, "[0X002A]"),
        ("[%#o]", 8, "[010]"),
        ("[%08lx]", 0xbeef, "[0000beef]"),
        ("[%.4d]", 42, "[0042]"),
        ("[%08.4d]", 42, "[    0042]"),
        ("[%.0d]", 0, "[]"),
        ("[%#.0o]", 0, "[0]"),
        ("[%-08x]", 1, "[1       ]"),
        ("[%p]", 0, "[0000000000000000]"),
    ] {
        assert_eq!(number(text, slot), expected, "{text}");
    }
    assert_eq!(printed("[%*d|%-*d|%.*d]", Machine::with(&[4, 1, 4, 2, 3, 3])), "[   1|2   |003]");
    assert_eq!(printed("[%*d]", Machine::with(&[u64::from((-4_i32).cast_unsigned()), 7])), "[7   ]");
}

#[test]
fn strings_of_both_kinds_and_their_nulls() {
    let machine = |slots: &[u64]| {
        Machine::with(slots)
            .block(0x1000, b"hello\0")
            .wide(0x2000, "w\u{ef}de\0")
            .counted(0x3000, 5, 0x1000)
            .counted(0x4000, 6, 0x2000)
            .counted(0x5000, 0, 0)
    };
    let says = |text: &str, slots: &[u64]| {
        let mut machine = machine(slots);
        super::super::text::ansi_to_unicode(&format(text.as_bytes(), &mut machine, 512).unwrap().text)
    };
    for (text, slots, expected) in [
        ("%s|%hs|%.2s", &[0x1000, 0x1000, 0x1000][..], "hello|hello|he"),
        ("%S|%ws|%ls", &[0x2000, 0x2000, 0x2000], "wïde|wïde|wïde"),
        ("%8s|%-8s|%08s", &[0x1000, 0x1000, 0x1000], "   hello|hello   |000hello"),
        ("%Z|%hZ|%wZ|%lZ", &[0x3000, 0x3000, 0x4000, 0x4000], "hello|hello|wïd|wïd"),
        ("%s|%S|%Z|%wZ|%wZ", &[0, 0, 0, 0, 0x5000], "(null)|(null)|(null)|(null)|(null)"),
        ("%.3s|%8s", &[0, 0], "(nu|  (null)"),
        ("%c%C%wc%hc", &[0x41, 0xe9, 0x263a, 0x42], "Aé?B"),
        ("100%% %d", &[7], "100% 7"),
    ] {
        assert_eq!(String::from_utf16(&says(text, slots)).unwrap(), expected, "{text}");
    }
}

#[test]
fn a_wide_format_turns_the_meaning_of_s_around() {
    let mut machine = Machine::with(&[0x2000, 0x1000, 0x1000, 0x4000])
        .block(0x1000, b"\x80\0")
        .wide(0x2000, "日\0")
        .counted(0x4000, 2, 0x2000);
    let text: Vec<u16> = "%s %S %hs %wZ".encode_utf16().collect();
    let formatted = format_wide(&text, &mut machine, 100).unwrap();
    assert_eq!(String::from_utf16(&formatted.text).unwrap(), "日 € € 日");
}

#[test]
fn a_string_is_not_read_behind_its_end() {
    let mut machine = Machine::with(&[0x1000]).block(0x1000, b"abc");
    assert_eq!(format(b"%.3s", &mut machine, 512).unwrap().text, b"abc");
    let mut machine = Machine::with(&[0x1000]).block(0x1000, b"abc");
    assert_eq!(format(b"%s", &mut machine, 512).unwrap_err(), BadPointer { address: 0x1003 });
    let mut machine = Machine::with(&[0x1000]).block(0x1000, &[b'x'; 4096]);
    format(b"%s", &mut machine, 16).unwrap();
    let mut long = Machine::with(&[0x1000]).wide(0x1000, &format!("{}\0rest", "x".repeat(1001)));
    assert_eq!(super::format(b"%ws", &mut long, 5000).unwrap().text.len(), 1001);
    assert!(machine.furthest <= 0x1000 + 17, "read up to {:#x} for 16 bytes", machine.furthest);
}

#[test]
fn a_wild_pointer_is_named() {
    let mut machine = Machine::with(&[0xdead_beef]);
    assert_eq!(format(b"%wZ", &mut machine, 512).unwrap_err(), BadPointer { address: 0xdead_beef });
}

#[test]
fn what_is_longer_than_the_limit_is_cut_and_said() {
    let mut machine = Machine::with(&[1, 2]);
    let formatted = format(b"%1000000000d", &mut machine, 512).unwrap();
    assert_eq!((formatted.text.len(), formatted.truncated), (512, true));
    let exact = format(b"abc", &mut machine, 3).unwrap();
    assert!(!exact.truncated);
    assert!(format(b"abcd", &mut machine, 3).unwrap().truncated);
}

#[test]
fn floating_point_comes_from_the_slots_bits() {
    let float = |text: &str, value: f64| number(text, value.to_bits());
    for (text, value, expected) in [
        ("%f", 1.5, "1.500000"),
        ("%.0f", 2.5, "2"),
        ("%#.0f", 2.0, "2."),
        ("%8.2f", -2.71, "   -2.71"),
        ("%08.2f", -2.71, "-0002.71"),
        ("%e", 12345.678, "1.234568e+04"),
        ("%.2E", 0.000_123, "1.23E-04"),
        ("%e", 1e300, "1.000000e+300"),
        ("%g", 100_000.0, "100000"),
        ("%g", 1_000_000.0, "1e+06"),
        ("%g", 0.0001, "0.0001"),
        ("%G", 0.000_01, "1E-05"),
        ("%#g", 1.0, "1.00000"),
        ("%g", 0.0, "0"),
        ("%+f", f64::INFINITY, "+inf"),
        ("%F", f64::NAN, "NAN"),
    ] {
        assert_eq!(float(text, value), expected, "{text} of {value}");
    }
}

#[test]
fn what_a_rule_asks_about_is_reported() {
    let uses = |text: &str| format(text.as_bytes(), &mut Machine::with(&[0, 0, 0]), 512).unwrap().uses;
    assert_eq!(uses("%d %s %Z"), Uses::default());
    assert!(uses("%ws").unicode && uses("%C").unicode && uses("%wZ").unicode);
    assert!(uses("%.2f").floating);
    assert_eq!(uses("%y").unknown, Some(u16::from(b'y')));
    assert_eq!(uses("%n").unknown, Some(u16::from(b'n')));
    assert_eq!(printed("%y %n%d %", Machine::with(&[1, 2])), "y 2 ");
}

#[test]
fn random_formats_never_panic_and_stay_in_their_limit() {
    let letters = b"%%%%%%-+ 0#*.123456789hlwILjzt64diuxXoscCSZpeEfgGn\x80\xffya\n";
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for round in 0..30_000 {
        let text: Vec<u8> = (0..random(40)).map(|_| letters[random(letters.len())]).collect();
        let limit = [0, 1, 7, 512, 5000][random(5)];
        let choices =
            [0, 1, 0x1000, 0x1003, 0x2000, 0x3000, u64::MAX, 1 << 63, 0x7fff_ffff, 0x4009_21fb_5444_2d18];
        let slots: Vec<u64> = (0..12).map(|_| choices[random(choices.len())]).collect();
        let machine = || {
            Machine::with(&slots)
                .block(0x1000, &[b'x'; 700])
                .wide(0x2000, "wide\0")
                .counted(0x3000, 8, 0x2000)
        };
        let narrow = format(&text, &mut machine(), limit);
        if let Ok(formatted) = &narrow {
            assert!(formatted.text.len() <= limit, "round {round}: {text:?}");
            assert!(!formatted.truncated || formatted.text.len() == limit, "round {round}: {text:?}");
        }
        assert_eq!(narrow, format(&text, &mut machine(), limit), "round {round}");
        let wide: Vec<u16> = text.iter().map(|&byte| u16::from(byte) << (byte & 1)).collect();
        if let Ok(formatted) = format_wide(&wide, &mut machine(), limit) {
            assert!(formatted.text.len() <= limit, "round {round}: {text:?}");
        }
    }
}
