//! What can be typed for a `bench` card, and the card it makes.

use std::ops::Range;

use super::faults::Faults;
use super::transfer::RAM;
use super::{BenchCard, Settings};
use crate::catalog::{Entry, Key, LATE, PIECES, POWER, POWER_EVENT, Signal, freedom, placement, power};
use crate::declared::{CAPABILITIES, ERRORS, EXPRESS, EXTENDED, SERIAL, declared};
use crate::pci::{Bar, Header, Messages, Model, Place};
use crate::spec::{Options, ReadFile, SpecError, nanoseconds, number};

/// The catalog's line.
pub const ENTRY: Entry = Entry {
    name: "bench",
    summary: "a card for tests: sources that a driver raises, a FIFO, a bus master, faults on demand",
    ids: &[(0x1234, 0xBE2C)],
    whole: "ram",
    keys: &[
        Key { name: "msi", meaning: "1, 2, 4, 8, 16 or 32 messages, with masks", default: "none" },
        Key { name: "msi32", meaning: "the MSI address has 32 bits, not 64", default: "64 bits" },
        Key { name: "nomask", meaning: "MSI without masks and pending bits", default: "masks" },
        Key { name: "msix", meaning: "1 to 2048 messages, with their table in BAR1", default: "none" },
        Key { name: "pin", meaning: "a, b, c, d or none: its line besides its messages", default: "a" },
        Key { name: "delay", meaning: "what DELAY is after reset: ns, us, ms or s", default: "0" },
        Key { name: "dma", meaning: "what DMA_DELAY is after reset", default: "1us" },
        LATE,
        PIECES,
        POWER,
        EXPRESS,
        SERIAL,
        ERRORS,
        CAPABILITIES,
        EXTENDED,
        Key {
            name: "ram",
            meaning: "BAR2 shows the 64 KiB of memory on the card",
            default: "only its bus master does",
        },
        Key { name: "never", meaning: "a fault: it never interrupts", default: "it does" },
        Key {
            name: "early",
            meaning: "a fault: it interrupts from the start, enabled or not",
            default: "when enabled",
        },
        Key {
            name: "stuck",
            meaning: "a fault: its line stays asserted when acknowledged",
            default: "it falls",
        },
        Key { name: "pulled", meaning: "a fault: all reads give ones", default: "it answers" },
    ],
    signals: &[
        Signal { name: "raise", meaning: "the number of a source that is raised", usual: &[] },
        Signal { name: "push", meaning: "a word that comes into the FIFO", usual: &[1, 2] },
        Signal { name: "never", meaning: "1: it does not interrupt any more; 0: it does", usual: &[] },
        Signal {
            name: "early",
            meaning: "1: it interrupts whether enabled or not, with source 0 at once; 0: when enabled",
            usual: &[],
        },
        Signal {
            name: "stuck",
            meaning: "1: its line stays asserted once it is; 0: it falls when acknowledged",
            usual: &[],
        },
        Signal {
            name: "pulled",
            meaning: "1: it answers nothing, and this is not detected; 0: it is back",
            usual: &[],
        },
        POWER_EVENT,
    ],
    build,
};

/// Bytes of the registers' window.
const REGISTERS: u64 = 0x100;
/// Where the capability is.
const CAPABILITY: u8 = 0x40;
/// Where the power management capability is.
const POWER_CAPABILITY: u8 = 0x60;
/// What is free behind them.
const DECLARED: Range<u8> = 0x80..0xFC;
/// Sources of a card without messages.
const SOURCES: u32 = 8;

fn build(options: &Options<'_>, _read_file: &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError> {
    let msi = |text: &str| {
        number(text).and_then(|n| u8::try_from(n).ok()).filter(|n| n.is_power_of_two() && *n <= 32)
    };
    let msix =
        |text: &str| number(text).and_then(|n| u16::try_from(n).ok()).filter(|n| (1..=2048).contains(n));
    let pin = |text: &str| match text {
        "a" => Some(1),
        "b" => Some(2),
        "c" => Some(3),
        "d" => Some(4),
        "none" => Some(0),
        _ => None,
    };
    let msi = options.value("msi", "1, 2, 4, 8, 16 or 32", msi)?;
    let msix = options.value("msix", "a number from 1 to 2048", msix)?;
    if msi.is_some() && msix.is_some() {
        return Err(SpecError::new("device `bench` has msi= or msix=, not both"));
    }
    for key in ["msi32", "nomask"] {
        if options.has(key) && msi.is_none() {
            return Err(SpecError::new(format!("device `bench`: {key} is a kind of MSI; add msi=")));
        }
    }
    let mut header = Header {
        vendor: 0x1234,
        device: 0xBE2C,
        revision: 1,
        class: 0xFF_0000,
        pin: options.value("pin", "a, b, c, d or none", pin)?.unwrap_or(1),
        master: true,
        interrupt_disable: true,
        ..Header::default()
    };
    header.bars[0] = Some(Bar::memory(REGISTERS));
    let mut sources = SOURCES;
    if let Some(count) = msi {
        (header.capabilities, sources) = (CAPABILITY, count.into());
        let (wide, maskable) = (!options.has("msi32"), !options.has("nomask"));
        header.messages = Some(Messages::Msi { at: CAPABILITY, next: 0, count, wide, maskable });
    }
    if let Some(count) = msix {
        // The table fills the lower half of the window, as far as it goes.
        let half = (u32::from(count) * 16).next_power_of_two().max(0x800);
        (header.capabilities, sources) = (CAPABILITY, u32::from(count).min(32));
        header.bars[1] = Some(Bar::memory(u64::from(half) * 2));
        let (table, pending) = (Place { bar: 1, offset: 0 }, Place { bar: 1, offset: half });
        header.messages = Some(Messages::MsiX { at: CAPABILITY, next: 0, count, table, pending });
    }
    if options.has("ram") {
        header.bars[2] = Some(Bar::memory(RAM));
    }
    power(options, &mut header, POWER_CAPABILITY)?;
    declared(options, &mut header, DECLARED)?;
    let mut faults = Faults::default();
    for name in Faults::NAMES {
        faults.named(name).into_iter().for_each(|fault| *fault = options.has(name));
    }
    let nanoseconds = |text: &str| nanoseconds(text).and_then(|time| u32::try_from(time).ok());
    let time = "a time up to 4s, e.g. 10us";
    Ok(Box::new(BenchCard::new(Settings {
        placement: placement(options)?,
        header,
        sources,
        delay: options.value("delay", time, nanoseconds)?.unwrap_or(0),
        transfer: options.value("dma", time, nanoseconds)?.unwrap_or(1_000),
        faults,
        freedom: freedom(options)?,
    })))
}
