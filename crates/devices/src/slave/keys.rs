//! What can be typed for a `slave` card, and the card it makes.

use super::{Settings, Slave};
use crate::catalog::{Entry, Key, Signal, placement};
use crate::declared::{CAPABILITIES, ERRORS, EXPRESS, EXTENDED, SERIAL, declared};
use crate::pci::{Bar, Header, Model};
use crate::spec::{Options, ReadFile, SpecError, nanoseconds, number};

/// The catalog's line.
pub const ENTRY: Entry = Entry {
    name: "slave",
    summary: "a card for tests of system DMA: it is no bus master, and wired to a channel of the PC's DMA controllers",
    ids: &[(0x1234, 0x51A7)],
    whole: "",
    keys: &[
        Key { name: "channel", meaning: "0 to 3 (bytes), 5 to 7 (words)", default: "1" },
        Key { name: "burst", meaning: "bytes that it moves at once, even", default: "16" },
        Key { name: "every", meaning: "the time from one burst to the next", default: "10us" },
        EXPRESS,
        SERIAL,
        ERRORS,
        CAPABILITIES,
        EXTENDED,
    ],
    signals: &[Signal {
        name: "pause",
        meaning: "1: it asks for its channel no more, as a device in trouble; 0: it goes on",
        usual: &[],
    }],
    build,
};

fn build(options: &Options<'_>, _read_file: &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError> {
    let channel =
        |text: &str| number(text).and_then(|n| u8::try_from(n).ok()).filter(|n| matches!(n, 0..=3 | 5..=7));
    let burst = |text: &str| {
        number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n % 2 == 0 && (2..=0x1_0000).contains(n))
    };
    let every = |text: &str| nanoseconds(text).filter(|time| *time > 0);
    let mut header = Header {
        vendor: 0x1234,
        device: 0x51A7,
        revision: 1,
        class: 0xFF_0000,
        pin: 1,
        interrupt_disable: true,
        ..Header::default()
    };
    header.bars[0] = Some(Bar::memory(0x100));
    declared(options, &mut header, 0x40..0xFC)?;
    Ok(Box::new(Slave::new(Settings {
        placement: placement(options)?,
        header,
        channel: options.value("channel", "a number: 0 to 3, 5 to 7", channel)?.unwrap_or(1),
        burst: options.value("burst", "an even number from 2 to 65536", burst)?.unwrap_or(16),
        every: options.value("every", "a time, e.g. 10us", every)?.unwrap_or(10_000),
    })))
}
