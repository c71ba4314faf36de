//! What can be typed for an `edu` card, and the card it makes.

use std::ops::Range;

use super::{Edu, Settings};
use crate::catalog::{Entry, Key, LATE, PIECES, POWER, POWER_EVENT, Signal, freedom, placement, power};
use crate::declared::{CAPABILITIES, ERRORS, EXPRESS, EXTENDED, SERIAL, declared};
use crate::pci::{Bar, Header, Messages, Model};
use crate::spec::{Options, ReadFile, SpecError, nanoseconds, number};

/// The catalog's line.
pub const ENTRY: Entry = Entry {
    name: "edu",
    summary: "QEMU's educational device: a factorial, interrupts by a line or MSI, DMA",
    ids: &[(0x1234, 0x11E8)],
    whole: "",
    keys: &[
        Key {
            name: "dma_mask",
            meaning: "the addresses it can reach, as in QEMU",
            default: "0xfffffff, 28 bits",
        },
        Key { name: "dma", meaning: "what a transfer takes: ns, us, ms or s", default: "100ms, as in QEMU" },
        LATE,
        PIECES,
        POWER,
        EXPRESS,
        SERIAL,
        ERRORS,
        CAPABILITIES,
        EXTENDED,
        Key { name: "factorial", meaning: "what computing a factorial takes", default: "1us" },
    ],
    signals: &[
        Signal {
            name: "raise",
            meaning: "bits put into the interrupt status, as by a write to its raise register",
            usual: &[],
        },
        POWER_EVENT,
    ],
    build,
};

/// As QEMU's configuration space has it.
const CAPABILITY: u8 = 0x40;
/// Where ours is: QEMU's card has no power management.
const POWER_CAPABILITY: u8 = 0x60;

/// What is free behind them.
const DECLARED: Range<u8> = 0x80..0xFC;

fn build(options: &Options<'_>, _read_file: &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError> {
    let mut header = Header {
        vendor: 0x1234,
        device: 0x11E8,
        revision: 0x10,
        class: 0x00_FF00,
        subsystem_vendor: 0x1AF4,
        subsystem: 0x1100,
        pin: 1,
        master: true,
        interrupt_disable: true,
        capabilities: CAPABILITY,
        messages: Some(Messages::Msi { at: CAPABILITY, next: 0, count: 1, wide: true, maskable: false }),
        ..Header::default()
    };
    header.bars[0] = Some(Bar::memory(1 << 20));
    power(options, &mut header, POWER_CAPABILITY)?;
    declared(options, &mut header, DECLARED)?;
    let time = "a time, e.g. 10us";
    Ok(Box::new(Edu::new(Settings {
        placement: placement(options)?,
        header,
        mask: options.value("dma_mask", "a number, e.g. 0xffffffff", number)?.unwrap_or(0xFFF_FFFF),
        transfer: options.value("dma", time, nanoseconds)?.unwrap_or(100_000_000),
        factorial: options.value("factorial", time, nanoseconds)?.unwrap_or(1_000),
        freedom: freedom(options)?,
    })))
}
