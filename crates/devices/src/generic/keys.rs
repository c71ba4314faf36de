//! What can be typed for a `pci` card, and the card it makes.

use std::ops::Range;

use super::lspci;
use super::registers::{Causes, Known, Place, Rule};
use super::{Generic, Pin, Reads};
use crate::catalog::{Entry, Key, POWER, POWER_EVENT, Signal, placement, power};
use crate::declared::{CAPABILITIES, ERRORS, EXPRESS, EXTENDED, SERIAL, declared};
use crate::pci::{self, Bar, Header, Location, Messages, Model};
use crate::sheet::{self, Sheet, card::SheetCard};
use crate::spec::{
    Options, ReadFile, SpecError, WORDS, hex, id_pair, nanoseconds, number, size, word_offset, words,
};

/// The signal that sends a message.
pub(super) const MESSAGE: &str = "message";

/// The signal that raises the pin for a while.
pub(super) const PULSE: &str = "pulse";
/// The signal that raises a cause of its interrupt, of which it is not known where it is shown.
pub(super) const CAUSE: &str = "cause";
/// The signal of a card that has done what it was asked for.
pub(super) const DONE: &str = "done";
/// The name of any of its registers, in the list of its signals.
const REGISTER: &str = "barN+OFFSET";

/// The catalog's line.
pub const ENTRY: Entry = Entry {
    name: "pci",
    summary: "any card: windows that answer as memory, ones or the last write; a script raises its interrupt",
    ids: &[],
    whole: "",
    keys: &[
        Key {
            name: "id",
            meaning: "VVVV:DDDD, vendor and device, hexadecimal",
            default: "none: this or config is needed",
        },
        Key {
            name: "config",
            meaning: "FILE, text of `lspci -xxxx` (add -vv for window sizes)",
            default: "none",
        },
        Key {
            name: "function",
            meaning: "which function of config=, as in 02:00.0",
            default: "the only one",
        },
        Key {
            name: "barN",
            meaning: "mem:SIZE, mem64:SIZE (takes BAR N+1 too), pmem:SIZE, pmem64:SIZE (prefetchable), io:SIZE or none",
            default: "none, or as config= has it",
        },
        Key {
            name: "irq",
            meaning: "an interrupt pin: a (or nothing), b, c, d; stuck is pin A, always asserted",
            default: "no pin, or as config= has it",
        },
        Key {
            name: "every",
            meaning: "TIME, 1us to 1s: the pin is raised for a moment so often, as by a busy card; for its neighbours on the line",
            default: "the pin is as a script says",
        },
        Key {
            name: "foreign",
            meaning: "another driver serves it, whose routine is the last of the line: it raises its pin whenever a neighbour does, too, and \
                      drops it when no routine before has claimed the interrupt",
            default: "the pin is dropped by itself",
        },
        Key {
            name: "sub",
            meaning: "VVVV:DDDD, subsystem vendor and device, hexadecimal",
            default: "0000:0000",
        },
        Key { name: "class", meaning: "CCSSPP, class code, hexadecimal", default: "ff0000" },
        Key { name: "rev", meaning: "revision, 0-255 (0x for hexadecimal)", default: "0" },
        EXPRESS,
        SERIAL,
        ERRORS,
        CAPABILITIES,
        EXTENDED,
        Key {
            name: "msi",
            meaning: "1, 2, 4, 8, 16 or 32: it can send so many messages (MSI), which `poke pci#0 message N` does",
            default: "none, or as config= has it",
        },
        Key {
            name: "msix",
            meaning: "COUNT:N, 1-2048 messages (MSI-X) whose table is in the window of BAR N, which is large enough for it twice",
            default: "none, or as config= has it",
        },
        Key {
            name: "regN",
            meaning: "OFFSET:VALUE[+OFFSET:VALUE]…, hexadecimal: what 32-bit registers of BAR N hold after reset",
            default: "0",
        },
        Key {
            name: "ackN",
            meaning: "OFFSET[:RULE], the register of BAR N that takes causes of the interrupt back: RULE is ones (each one that is \
                      written clears its bit), zeros, write (any) or read",
            default: "the pin is as a script says; with it `poke pci#0 irq BITS` sets these causes",
        },
        Key {
            name: "statusN",
            meaning: "OFFSET of the register of BAR N that shows the causes",
            default: "that of ackN",
        },
        Key {
            name: "enableN",
            meaning: "OFFSET of the register of BAR N that lets causes with its bits through to the pin",
            default: "all causes reach it",
        },
        POWER,
        Key { name: "reads", meaning: "ram, ones or last: how windows answer reads", default: "ram" },
        Key {
            name: "sheet",
            meaning: "FILE that says what its registers do, when its interrupt comes, and (in its `card` line) these keys: docs/sheet.md",
            default: "none",
        },
    ],
    signals: &[
        Signal {
            name: "irq",
            meaning: "1 raises the interrupt pin, 0 drops it; with ackN: the causes that are raised, as bits of the status register, or 0",
            usual: &[],
        },
        Signal {
            name: PULSE,
            meaning: "N: the interrupt pin is raised until the driver has made N accesses to the card, or for 20 us",
            usual: &[],
        },
        Signal {
            name: CAUSE,
            meaning: "BITS: the pin is raised, and all registers show these bits besides what they hold, until the driver has read some and then writes; for 20 us at most",
            usual: &[],
        },
        Signal {
            name: DONE,
            meaning: "BITS: as `cause`, and the card has done what it was asked for: all registers are as at the beginning, and show no bits behind the driver's first write that has seen them",
            usual: &[],
        },
        Signal {
            name: REGISTER,
            meaning: "what that register holds from now on, e.g. `bar0+4c`; `peek` looks at it",
            usual: &[],
        },
        Signal {
            name: MESSAGE,
            meaning: "N: it signals message N, with msi= or msix=, or those of config=",
            usual: &[],
        },
        POWER_EVENT,
    ],
    build,
};

/// Where a capability of pm= is: in front of that of a sheet's messages.
const POWER_CAPABILITY: u8 = 0xD8;

const BARS: [&str; 6] = ["bar0", "bar1", "bar2", "bar3", "bar4", "bar5"];

fn build(options: &Options<'_>, read_file: &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError> {
    if let Some(path) = options.text("sheet") {
        let sheet = sheet::read(ENTRY.name, "sheet", path, read_file, &sheet::card::PORTS)?;
        return with_sheet(options, sheet, read_file);
    }
    let mut header = header(options, read_file)?;
    let pin = pin(options, &mut header)?;
    let reads = options.value("reads", "ram, ones or last", reads)?.unwrap_or_default();
    let known = known(options, &header)?;
    if options.has("reads") && reads != Reads::Ram && known != Known::default() {
        return Err(options.bad("reads", "ram where registers are named"));
    }
    let card = Generic::new(header, placement(options)?, reads, pin).with(known);
    match options.text("foreign") {
        None => Ok(Box::new(card)),
        Some("") if card.header().pin != 0 => Ok(Box::new(card.of_another())),
        Some("") => Err(options.bad("foreign", "of a card with a pin; add irq")),
        Some(_) => Err(options.bad("foreign", "without a value")),
    }
}

/// What can be typed about its configuration space.
fn header(options: &Options<'_>, read_file: &ReadFile<'_>) -> Result<Header, SpecError> {
    let mut header = base_header(options, read_file)?;
    if let Some((vendor, device)) = options.value("id", "VVVV:DDDD, e.g. 10b5:9050", id_pair)? {
        (header.vendor, header.device) = (vendor, device);
    }
    if let Some((vendor, device)) = options.value("sub", "VVVV:DDDD, e.g. 10b5:9050", id_pair)? {
        (header.subsystem_vendor, header.subsystem) = (vendor, device);
    }
    let class = |text: &str| hex(text, 6).filter(|_| text.len() == 6).and_then(|n| u32::try_from(n).ok());
    if let Some(class) = options.value("class", "six hexadecimal digits, e.g. 068000", class)? {
        header.class = class;
    }
    let revision = |text: &str| number(text).and_then(|n| u8::try_from(n).ok());
    if let Some(revision) = options.value("rev", "a number from 0 to 255", revision)? {
        header.revision = revision;
    }
    declared(options, &mut header, free(options, POWER_CAPABILITY))?;
    power(options, &mut header, POWER_CAPABILITY)?;
    bars(options, &mut header)?;
    messages(options, &mut header)?;
    Ok(header)
}

/// A card whose sheet says the rest. What is typed goes before what the sheet's `card` line says.
fn with_sheet(
    options: &Options<'_>,
    sheet: Sheet,
    read_file: &ReadFile<'_>,
) -> Result<Box<dyn Model>, SpecError> {
    let path = options.text("sheet").unwrap_or_default();
    let wrong = |why: String| SpecError::new(format!("device `pci`: sheet={path}: {why}"));
    let typed = options.pairs().map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
    let keys = sheet.keys.iter().filter(|(key, _)| !options.has(key)).cloned();
    let spec = keys.chain(typed).fold(ENTRY.name.to_owned(), |spec, (key, value)| match value {
        Some(value) => format!("{spec},{key}={value}"),
        None => format!("{spec},{key}"),
    });
    let options = Options::cut(&spec)?;
    if let Some(key) = options.keys().find(|key| !ENTRY.all_keys().any(|known| known.matches(key))) {
        return Err(wrong(format!("its `card` line has `{key}`, which is no key of `--device pci`")));
    }
    let said = REGISTERS.iter().chain(&ACKNOWLEDGE).chain(&STATUS).chain(&ENABLE).chain(&["reads"]);
    if let Some(key) = said.copied().find(|key| options.has(key)) {
        return Err(wrong(format!("{key}= cannot stand beside it: the sheet says what registers do")));
    }
    if options.has("foreign") {
        return Err(
            options.bad("foreign", "left out beside a sheet: it is of a card that no driver here is for")
        );
    }
    let mut header = header(&options, read_file)?;
    match pin(&options, &mut header)? {
        Pin::Poked => {}
        Pin::Stuck => {
            return Err(
                options.bad("irq", "a, b, c, d or nothing beside a sheet; `line irq = 1` keeps it asserted")
            );
        }
        Pin::Every(_) => return Err(options.bad("every", "left out beside a sheet, which has timers")),
    }
    if sheet.drives && header.pin == 0 {
        return Err(wrong(
            "it drives the line irq, and the card has no pin; add irq to its `card` line".to_owned(),
        ));
    }
    for (bar, end) in (0_usize..).zip(sheet.ends).filter(|(_, end)| *end > 0) {
        match header.bars[bar] {
            Some(window) if end <= window.length() => {}
            Some(window) => {
                let length = window.length();
                return Err(wrong(format!(
                    "something lies behind the end of bar{bar}, which has {length:X}h bytes"
                )));
            }
            None => return Err(wrong(format!("bar{bar} has no size; say `bar{bar} mem:4K`"))),
        }
    }
    if sheet.messages > 0 {
        send_messages(&mut header, sheet.messages).map_err(wrong)?;
    }
    Ok(Box::new(SheetCard::new(ENTRY.name, header, placement(&options)?, sheet)))
}

/// What of configuration space typed capabilities may have: nothing of a dump's, whose bytes may all mean something.
fn free(options: &Options<'_>, end: u8) -> Range<u8> {
    if options.has("config") { end..end } else { 0x40..end }
}

/// Messages that are typed.
fn messages(options: &Options<'_>, header: &mut Header) -> Result<(), SpecError> {
    let msi = |text: &str| {
        number(text).and_then(|n| u16::try_from(n).ok()).filter(|n| n.is_power_of_two() && *n <= 32)
    };
    let msix = |text: &str| {
        let (count, bar) = text.split_once(':')?;
        let count = number(count).and_then(|n| u16::try_from(n).ok()).filter(|n| (1..=2048).contains(n))?;
        Some((count, bar.parse::<u8>().ok().filter(|bar| *bar < 6)?))
    };
    let msi = options.value("msi", "1, 2, 4, 8, 16 or 32", msi)?;
    let msix = options.value("msix", "COUNT:N, 1 to 2048 and the number of a BAR, e.g. 4:2", msix)?;
    match (msi, msix) {
        (Some(_), Some(_)) => return Err(SpecError::new("device `pci` has msi= or msix=, not both")),
        (None, None) => return Ok(()),
        (Some(count), None) => {
            send_messages(header, count).map_err(|_| options.bad("msi", "left out: config= has messages"))?;
        }
        (None, Some((count, bar))) => {
            if header.messages.is_some() {
                return Err(options.bad("msix", "left out: config= has messages"));
            }
            // The table fills the lower half of the window, as far as it goes.
            let half = match header.bars[usize::from(bar)] {
                Some(window) if !window.is_port() && window.length() / 2 >= u64::from(count) * 16 => {
                    window.length() / 2
                }
                _ => {
                    return Err(
                        options.bad("msix", "with a window of memory for twice 16 bytes for each message")
                    );
                }
            };
            let offset = u32::try_from(half).map_err(|_| options.bad("msix", "with a smaller window"))?;
            let (table, pending) = (pci::Place { bar, offset: 0 }, pci::Place { bar, offset });
            let next = header.capabilities;
            header.messages = Some(Messages::MsiX { at: MESSAGES_AT, next, count, table, pending });
            header.capabilities = MESSAGES_AT;
        }
    }
    Ok(())
}

/// Where the capability of messages is.
const MESSAGES_AT: u8 = 0xE0;

/// PCI Local Bus Specification 3.0, 6.8.1: a capability for so many messages, in front of those that are there.
fn send_messages(header: &mut Header, messages: u16) -> Result<(), String> {
    const AT: u8 = MESSAGES_AT;
    if header.messages.is_some() {
        return Err(
            "the card has messages of its own (config=, msi= or msix=), so the sheet cannot signal any"
                .to_owned(),
        );
    }
    let count = u8::try_from(messages.next_power_of_two()).unwrap_or(32);
    header.messages =
        Some(Messages::Msi { at: AT, next: header.capabilities, count, wide: true, maskable: true });
    header.capabilities = AT;
    Ok(())
}

const REGISTERS: [&str; 6] = ["reg0", "reg1", "reg2", "reg3", "reg4", "reg5"];
const ACKNOWLEDGE: [&str; 6] = ["ack0", "ack1", "ack2", "ack3", "ack4", "ack5"];
const STATUS: [&str; 6] = ["status0", "status1", "status2", "status3", "status4", "status5"];
const ENABLE: [&str; 6] = ["enable0", "enable1", "enable2", "enable3", "enable4", "enable5"];

/// A register as a script names it: `bar0+4c`.
pub(super) fn register(name: &str) -> Option<Place> {
    let (bar, offset) = name.strip_prefix("bar")?.split_once('+')?;
    let bar = bar.parse().ok().filter(|bar| *bar < 6)?;
    Some(Place { bar, offset: word_offset(offset)? })
}

/// Whether a script's word is the name of a register.
pub(super) fn is_register(name: &str) -> bool {
    register(name).is_some()
}

/// What the user knows of the card's registers.
fn known(options: &Options<'_>, header: &Header) -> Result<Known, SpecError> {
    let mut initial = Vec::new();
    for (bar, key) in (0..).zip(REGISTERS) {
        for (offset, value) in options.value(key, WORDS, words)?.unwrap_or_default() {
            initial.push((inside(options, header, key, Place { bar, offset })?, value));
        }
    }
    let offset = "an offset, hexadecimal, a multiple of 4, e.g. 4c";
    let status = one(options, header, STATUS, offset, |text| word_offset(text).map(|offset| (offset, ())))?;
    let enable = one(options, header, ENABLE, offset, |text| word_offset(text).map(|offset| (offset, ())))?;
    let rule = "OFFSET[:RULE], OFFSET hexadecimal and a multiple of 4, RULE one of ones, zeros, write, read";
    let Some((acknowledge, rule)) = one(options, header, ACKNOWLEDGE, rule, acknowledge)? else {
        if status.is_some() || enable.is_some() {
            return Err(SpecError::new(
                "device `pci`: statusN= and enableN= are of an interrupt that its driver takes back; add ackN=OFFSET",
            ));
        }
        return Ok(Known { initial, causes: None });
    };
    if header.pin == 0 {
        return Err(SpecError::new("device `pci`: ackN= is of an interrupt, and it has no pin; add irq"));
    }
    let status = status.map_or(acknowledge, |(status, ())| status);
    let causes = Causes { status, acknowledge, rule, enable: enable.map(|(enable, ())| enable) };
    Ok(Known { initial, causes: Some(causes) })
}

fn acknowledge(text: &str) -> Option<(u64, Rule)> {
    let (offset, rule) = text.split_once(':').unwrap_or((text, "ones"));
    let rule = match rule {
        "ones" => Rule::Ones,
        "zeros" => Rule::Zeros,
        "write" => Rule::Write,
        "read" => Rule::Read,
        _ => return None,
    };
    Some((word_offset(offset)?, rule))
}

/// The one register of this kind, in whichever window.
fn one<T>(
    options: &Options<'_>,
    header: &Header,
    keys: [&'static str; 6],
    form: &str,
    read: impl Fn(&str) -> Option<(u64, T)>,
) -> Result<Option<(Place, T)>, SpecError> {
    let mut found = None;
    for (bar, key) in (0..).zip(keys) {
        if let Some((offset, what)) = options.value(key, form, &read)? {
            if found.is_some() {
                let kind = key.trim_end_matches(|digit: char| digit.is_ascii_digit());
                return Err(SpecError::new(format!("device `pci`: it has one {kind}N=; leave {key}= out")));
            }
            found = Some((inside(options, header, key, Place { bar, offset })?, what));
        }
    }
    Ok(found)
}

/// A register that its window has.
fn inside(options: &Options<'_>, header: &Header, key: &str, place: Place) -> Result<Place, SpecError> {
    match header.bars[usize::from(place.bar)] {
        Some(bar) if place.offset + 4 <= bar.length() => Ok(place),
        Some(bar) => {
            Err(options.bad(key, &format!("inside the window, which has {:X}h bytes", bar.length())))
        }
        None => Err(options.bad(key, &format!("of a window that is there; add bar{}=", place.bar))),
    }
}

/// The header to start from: a dump's, or that of a card of PCI 2.3 without windows.
fn base_header(options: &Options<'_>, read_file: &ReadFile<'_>) -> Result<Header, SpecError> {
    let Some(path) = options.text("config") else {
        if options.has("function") {
            return Err(SpecError::new(
                "device `pci`: function= chooses from config=FILE, which is not given",
            ));
        }
        if !options.has("id") {
            return Err(SpecError::new(
                "device `pci` needs id=VVVV:DDDD or config=FILE, e.g. pci,id=10b5:9050,bar0=mem:128,irq",
            ));
        }
        return Ok(Header { class: 0xFF_0000, master: true, interrupt_disable: true, ..Header::default() });
    };
    let in_file = |why: String| SpecError::new(format!("device `pci`: config={path}: {why}"));
    let bytes = read_file(path).map_err(in_file)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| in_file("is not text; give the output of `lspci -xxxx`".to_owned()))?;
    lspci::header(&text, options.text("function")).map_err(in_file)
}

fn bars(options: &Options<'_>, header: &mut Header) -> Result<(), SpecError> {
    for (index, key) in BARS.into_iter().enumerate() {
        if let Some(bar) = options.value(key, FORM, bar)? {
            header.bars[index] = bar;
        }
    }
    for (index, key) in BARS.into_iter().enumerate() {
        let wide = matches!(header.bars[index], Some(Bar::Memory { location: Location::Any64, .. }));
        if wide && !header.is_wide(index) {
            return Err(
                options.bad(key, "64-bit, so it needs the next BAR for its upper half: leave that out")
            );
        }
    }
    Ok(())
}

const FORM: &str = "mem:SIZE, mem64:SIZE, pmem:SIZE, pmem64:SIZE, io:SIZE or none; SIZE a power of two (mem from 16, io 4 to 16K)";

fn bar(text: &str) -> Option<Option<Bar>> {
    if text == "none" {
        return Some(None);
    }
    let (kind, length) = text.split_once(':')?;
    let length = size(length).filter(|length| length.is_power_of_two())?;
    let memory = |location, prefetchable| Bar::Memory { length, location, prefetchable };
    let bar = match kind {
        "mem" => memory(Location::Any32, false),
        "mem64" => memory(Location::Any64, false),
        "pmem" => memory(Location::Any32, true),
        "pmem64" => memory(Location::Any64, true),
        "io" => Bar::Port { length },
        _ => return None,
    };
    let fits = match bar {
        Bar::Port { .. } => (4..=0x4000).contains(&length),
        Bar::Memory { location: Location::Any64, .. } => (16..=1 << 38).contains(&length),
        Bar::Memory { .. } => (16..=1 << 31).contains(&length),
    };
    fits.then_some(Some(bar))
}

fn pin(options: &Options<'_>, header: &mut Header) -> Result<Pin, SpecError> {
    let (number, pin) = match options.text("irq") {
        None if options.has("every") => {
            return Err(options.bad("every", "of a card with a pin; add irq"));
        }
        None => return Ok(Pin::Poked),
        Some("" | "a" | "A") => (1, Pin::Poked),
        Some("b" | "B") => (2, Pin::Poked),
        Some("c" | "C") => (3, Pin::Poked),
        Some("d" | "D") => (4, Pin::Poked),
        Some("stuck") => (1, Pin::Stuck),
        Some(_) => return Err(options.bad("irq", "a, b, c, d, stuck or nothing")),
    };
    header.pin = number;
    let period = |text: &str| nanoseconds(text).filter(|period| (1_000..=1_000_000_000).contains(period));
    match options.value("every", "1us to 1s, e.g. 1ms", period)? {
        None => Ok(pin),
        Some(period) if pin == Pin::Poked => Ok(Pin::Every(period)),
        Some(_) => Err(options.bad("every", "left out where the pin is stuck")),
    }
}

fn reads(text: &str) -> Option<Reads> {
    match text {
        "ram" => Some(Reads::Ram),
        "ones" => Some(Reads::Ones),
        "last" => Some(Reads::Last),
        _ => None,
    }
}
