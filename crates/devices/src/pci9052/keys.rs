//! What can be typed for a `pci9052` card, and the card it makes.

use super::board::PORTS;
use super::timing::{CLOCK, Clock, period};
use super::{Idle, Pci9052, Settings, image};
use crate::catalog::{Entry, Key, Signal, placement};
use crate::pci::{Model, Placement};
use crate::sheet;
use crate::spec::{Options, ReadFile, SpecError, WORDS, id_pair, nanoseconds, word_offset, words};

/// What has data-out of the EEPROM stay at a level, whatever it is asked: low and high.
pub(super) const STUCK_EEPROM: [&str; 2] = ["eeprom-silent", "eeprom-erased"];
/// What a board of which nothing is known does to the interrupt inputs.
pub(super) const CAUSES: [&str; 2] = ["cause1", "cause2"];

/// Before the local address of a word of the built-in board's memory, as a script names it.
const LOCAL: &str = "local+";

/// The local address of a word of the built-in board's memory, by the name that a script gives it.
pub(super) fn word_at(name: &str) -> Option<u64> {
    name.strip_prefix(LOCAL).and_then(word_offset)
}

/// What the registers of such a board show.
pub(super) const SHOWS: &str = "shows";

/// The catalog's line.
pub const ENTRY: Entry = Entry {
    name: "pci9052",
    summary: "PLX PCI 9052 bridge: 64 KiB of local memory, and a peripheral at local FFF8h/FFFCh that raises LINTi1",
    ids: &[(0x10B5, 0x9050)],
    whole: "",
    keys: &[
        Key {
            name: "latency",
            meaning: "time from a doorbell write (local FFFCh) to LINTi1, in ns or with us, ms, s",
            default: "10us",
        },
        Key { name: "rev", meaning: "2 is the 9052; 1 the 9050, with its LCR erratum", default: "2" },
        Key {
            name: "eeprom",
            meaning: "FILE with the 93CS46's words (hexadecimal text or binary), blank or none",
            default: "the built-in board",
        },
        Key { name: "sub", meaning: "VVVV:DDDD, subsystem of the built-in board", default: "10b5:9050" },
        Key {
            name: "local",
            meaning: "FILE that says what is on the local bus, by local addresses, and drives LINTi1 and LINTi2: docs/sheet.md",
            default: "the built-in board's memory and peripheral",
        },
        Key {
            name: "holds",
            meaning: "OFFSET:VALUE[+OFFSET:VALUE]…, hexadecimal: what 32-bit words of the built-in board's memory hold at power-on, by local addresses",
            default: "0",
        },
        Key {
            name: "lclk",
            meaning: "the local bus's clock, e.g. 33MHz or 40ns: accesses take the wait states of LASxBRD: docs/pci9052.md",
            default: "accesses take no time on the local bus",
        },
        Key {
            name: "ready",
            meaning: "with lclk=: wait states of each data phase that the board asks for by READY#, 0–255",
            default: "0",
        },
        Key {
            name: "idle",
            meaning: "what LINTi1 and LINTi2 are while nothing drives them: low; or inactive, whichever level INTCSR makes that, as on a board \
                      of which nothing is known, where cause1 and cause2 make them active",
            default: "low",
        },
    ],
    signals: &[
        Signal {
            name: "linti1",
            meaning: "1 drives LINTi1 high besides the peripheral, 0 lets go",
            usual: &[1, 0],
        },
        Signal { name: "linti2", meaning: "1 drives LINTi2 high, 0 low", usual: &[1, 0] },
        Signal {
            name: CAUSES[0],
            meaning: "with idle=inactive: 1 makes LINTi1 active until the third access to the local bus behind a read of INTCSR, for 200 ms at most; 0 ends that; any other word does as 1, and each register of the board shows its bits besides until the next of them",
            usual: &[1, 0],
        },
        Signal { name: CAUSES[1], meaning: "the same of LINTi2", usual: &[1, 0] },
        Signal {
            name: SHOWS,
            meaning: "with idle=inactive: bits that each register of the board shows besides what it holds, from now on",
            usual: &[],
        },
        Signal {
            name: "local+OFFSET",
            meaning: "what the 32-bit word of the built-in board's memory at this local address, hexadecimal, holds from now on",
            usual: &[],
        },
        Signal {
            name: STUCK_EEPROM[0],
            meaning: "1: data-out of the EEPROM stays low, as of a part that is broken or always busy",
            usual: &[],
        },
        Signal {
            name: STUCK_EEPROM[1],
            meaning: "1: data-out of the EEPROM stays high, as of a part that is erased or is not there",
            usual: &[],
        },
        Signal { name: "uio0", meaning: "level of user I/O pin 0 where it is an input", usual: &[1, 0] },
        Signal { name: "uio1", meaning: "level of user I/O pin 1 where it is an input", usual: &[1, 0] },
        Signal { name: "uio2", meaning: "level of user I/O pin 2 where it is an input", usual: &[1, 0] },
        Signal { name: "uio3", meaning: "level of user I/O pin 3 where it is an input", usual: &[1, 0] },
    ],
    build,
};

impl Default for Settings {
    fn default() -> Self {
        Self {
            placement: Placement::default(),
            revision: 2,
            latency: 10_000,
            eeprom: Some(image::builtin((0x10B5, 0x9050))),
            clock: None,
            idle: Idle::Low,
        }
    }
}

fn build(options: &Options<'_>, read_file: &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError> {
    let defaults = Settings::default();
    let revision = |text: &str| match text {
        "1" => Some(1),
        "2" => Some(2),
        _ => None,
    };
    let idle = |text: &str| match text {
        "low" => Some(Idle::Low),
        "inactive" => Some(Idle::Inactive),
        _ => None,
    };
    let latency = options.value("latency", "a time, e.g. 500, 50us or 2ms", nanoseconds)?;
    let subsystem = options.value("sub", "VVVV:DDDD, e.g. 10b5:9050", id_pair)?;
    let eeprom = match (options.text("eeprom"), subsystem) {
        (Some(_), Some(_)) => {
            return Err(SpecError::new(
                "device `pci9052`: sub= is for the built-in board; eeprom= brings its own subsystem",
            ));
        }
        (Some("none"), None) => None,
        (Some("blank"), None) => Some(image::BLANK),
        (Some(path), None) => {
            let in_file = |why: String| SpecError::new(format!("device `pci9052`: eeprom={path}: {why}"));
            Some(image::parse(&read_file(path).map_err(in_file)?).map_err(in_file)?)
        }
        (None, Some(subsystem)) => Some(image::builtin(subsystem)),
        (None, None) => defaults.eeprom,
    };
    let local = options.text("local");
    if local.is_some() && latency.is_some() {
        return Err(SpecError::new(
            "device `pci9052`: latency= is of the built-in peripheral; local= brings its own board",
        ));
    }
    let settings = Settings {
        placement: placement(options)?,
        revision: options.value("rev", "1 or 2", revision)?.unwrap_or(defaults.revision),
        latency: latency.unwrap_or(defaults.latency),
        eeprom,
        clock: clock(options)?,
        idle: options.value("idle", "low or inactive", idle)?.unwrap_or(defaults.idle),
    };
    let holds = options.value("holds", WORDS, words)?;
    if holds.is_some() && local.is_some() {
        return Err(SpecError::new(
            "device `pci9052`: holds= is of the built-in board; local= brings its own board",
        ));
    }
    let card = Pci9052::new(settings);
    let Some(path) = local else { return Ok(Box::new(card.holding(holds.unwrap_or_default()))) };
    let sheet = sheet::read(ENTRY.name, "local", path, read_file, &PORTS)?;
    if sheet.state.is_timed() && !card.is_timed() {
        return Err(SpecError::new(format!(
            "device `pci9052`: local={path}: a register `takes` time, which passes on the local bus with lclk= only"
        )));
    }
    Ok(Box::new(card.with_board(sheet.state)))
}

/// The local clock, if time passes on the local bus.
fn clock(options: &Options<'_>) -> Result<Option<Clock>, SpecError> {
    let wait_states = |text: &str| text.parse::<u8>().ok();
    let period = options.value("lclk", CLOCK, period)?;
    let ready = options.value("ready", "wait states, 0 to 255", wait_states)?;
    if period.is_none() && ready.is_some() {
        return Err(SpecError::new(
            "device `pci9052`: ready= is in clocks of the local bus; lclk= says how long they are",
        ));
    }
    Ok(period.map(|period| Clock { period, ready: ready.unwrap_or(0).into() }))
}
