//! A header from the text of `lspci -xxxx` (`-x` and `-xxx` do too), with or without `-v`/`-vv`.
//!
//! A dump does not hold window sizes. A size comes from the `[size=…]` that `-v` prints for the window's base; else it
//! is the largest that the base's alignment allows, but at most 64 KiB of memory or 256 ports. A base of 0 is no
//! window. Only type 0 headers (cards, not bridges).

use crate::pci::{Bar, Header, Location, Messages, Place, PowerManagement};
use crate::spec::{hex, size};

/// The most that is believed of a window whose size is not written down.
const UNSIZED_MEMORY: u64 = 64 << 10;
const UNSIZED_PORTS: u64 = 256;
/// What `lspci -x` prints at least: the standard header.
const HEADER_BYTES: usize = 64;

/// One function of the text.
struct Dump<'t> {
    /// As printed, e.g. `02:00.0`.
    address: &'t str,
    bytes: Vec<u8>,
    /// (base, size) of the windows that `-v` describes.
    sizes: Vec<(u64, u64)>,
    rom: Option<u64>,
}

/// The header of the text's only function, or of the one at `address`.
///
/// # Errors
/// What is wrong with the text, with the line, and what to do.
pub(super) fn header(text: &str, address: Option<&str>) -> Result<Header, String> {
    let dumps = dumps(text)?;
    let dump = choose(&dumps, address)?;
    if dump.bytes.len() < HEADER_BYTES {
        return Err(format!(
            "{}: only {} bytes of configuration space; 64 are needed",
            dump.address,
            dump.bytes.len()
        ));
    }
    if dump.bytes[0x0E] & 0x7F != 0 {
        return Err(format!(
            "{}: is a bridge (header type {}); give a card's dump",
            dump.address,
            dump.bytes[0x0E] & 0x7F
        ));
    }
    if dump.word(0x00) == 0xFFFF {
        return Err(format!("{}: vendor FFFF, so the card did not answer when it was dumped", dump.address));
    }
    Ok(dump.header())
}

fn choose<'d, 't>(dumps: &'d [Dump<'t>], address: Option<&str>) -> Result<&'d Dump<'t>, String> {
    let list = || dumps.iter().map(|dump| dump.address).collect::<Vec<_>>().join(", ");
    match (address, dumps) {
        (_, []) => Err("holds no configuration dump; give the output of `lspci -xxxx`".to_owned()),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("holds several functions ({}); choose one with function=", list())),
        (Some(wanted), _) => dumps
            .iter()
            .find(|dump| dump.address == wanted || dump.address.strip_prefix("0000:") == Some(wanted))
            .ok_or_else(|| format!("holds no function {wanted}; it holds {}", list())),
    }
}

fn dumps(text: &str) -> Result<Vec<Dump<'_>>, String> {
    let mut dumps: Vec<Dump<'_>> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if let Some(address) = function_line(line) {
            dumps.push(Dump { address, bytes: Vec::new(), sizes: Vec::new(), rom: None });
        } else if let Some((offset, row)) =
            line.split_once(": ").filter(|(offset, _)| hex(offset, 3).is_some())
        {
            let dump = match dumps.last_mut() {
                Some(dump) => dump,
                None => {
                    dumps.push(Dump {
                        address: "(unnamed)",
                        bytes: Vec::new(),
                        sizes: Vec::new(),
                        rom: None,
                    });
                    dumps.last_mut().ok_or("nothing to add to")?
                }
            };
            dump.add_row(offset, row).map_err(|why| format!("line {number}: {why}"))?;
        } else if let Some(dump) = dumps.last_mut() {
            dump.add_size(line);
        }
    }
    dumps.retain(|dump| !dump.bytes.is_empty());
    Ok(dumps)
}

/// `02:00.0 Bridge: …` or `0000:02:00.0 …`: the address.
fn function_line(line: &str) -> Option<&str> {
    let (address, _) = line.split_once(' ')?;
    let (bus_device, function) = address.rsplit_once('.')?;
    let numbers = bus_device.split(':').all(|part| hex(part, 8).is_some());
    (numbers && bus_device.contains(':') && hex(function, 1).is_some()).then_some(address)
}

impl Dump<'_> {
    fn add_row(&mut self, offset: &str, row: &str) -> Result<(), String> {
        let offset = hex(offset, 3).and_then(|n| usize::try_from(n).ok());
        if offset != Some(self.bytes.len()) {
            return Err(format!(
                "expected the row at {:02x}h; rows must follow each other",
                self.bytes.len()
            ));
        }
        for byte in row.split_whitespace() {
            let value = hex(byte, 2).filter(|_| byte.len() == 2).and_then(|n| u8::try_from(n).ok());
            self.bytes.push(value.ok_or_else(|| format!("`{byte}` is not a byte in hexadecimal"))?);
        }
        Ok(())
    }

    /// `Memory at f7d00000 (32-bit, …) [size=128]`, `I/O ports at e000 [size=256]`, `Expansion ROM at … [size=…]`.
    fn add_size(&mut self, line: &str) {
        let length = line.split("[size=").nth(1).and_then(|rest| rest.split(']').next()).and_then(size);
        let base = line.split(" at ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let Some(length) = length.filter(|length| length.is_power_of_two()) else { return };
        if line.contains("Expansion ROM at") {
            self.rom = Some(length);
        } else if let Some(base) = base.and_then(|base| hex(base, 16)) {
            self.sizes.push((base, length));
        }
    }

    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset + 1)])
    }

    fn dword(&self, offset: usize) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }

    fn header(&self) -> Header {
        let has_capabilities = self.word(0x06) & 0x10 != 0;
        Header {
            vendor: self.word(0x00),
            device: self.word(0x02),
            revision: self.byte(0x08),
            class: self.dword(0x08) >> 8,
            subsystem_vendor: self.word(0x2C),
            subsystem: self.word(0x2E),
            pin: self.byte(0x3D).min(4),
            min_grant: self.byte(0x3E),
            max_latency: self.byte(0x3F),
            bars: self.bars(),
            rom: self.rom.filter(|length| *length >= 2048).and_then(|length| u32::try_from(length).ok()),
            master: true,
            interrupt_disable: true,
            capabilities: if has_capabilities { self.byte(0x34) & 0xFC } else { 0 },
            messages: self.messages(),
            power: self.power(),
            specific: self.bytes.iter().skip(HEADER_BYTES).take(0x1000 - HEADER_BYTES).copied().collect(),
            line_loads: 0,
            loaded_line: 0,
        }
    }

    /// Where the capability `id` is, if it is in the list.
    fn capability(&self, id: u8) -> Option<u8> {
        let mut at = if self.word(0x06) & 0x10 != 0 { self.byte(0x34) & 0xFC } else { 0 };
        // Bounded, for a list that runs in a circle.
        for _ in 0..48 {
            let place = usize::from(at);
            if place < HEADER_BYTES {
                return None;
            }
            if self.byte(place) == id {
                return Some(at);
            }
            at = self.byte(place + 1) & 0xFC;
        }
        None
    }

    /// The power management capability, if there is one.
    fn power(&self) -> Option<PowerManagement> {
        let at = self.capability(1)?;
        let place = usize::from(at);
        let capabilities = self.word(place + 2);
        Some(PowerManagement {
            at,
            next: self.byte(place + 1),
            d1: capabilities & 1 << 9 != 0,
            d2: capabilities & 1 << 10 != 0,
            wakes_from: (capabilities >> 11 & 0x1F) as u8,
            rest: capabilities & 0x1FF,
            keeps_state: self.word(place + 4) & 8 != 0,
        })
    }

    /// The messages that it can send: MSI-X before MSI, if the windows for its table are there and their sizes are known to be large enough.
    fn messages(&self) -> Option<Messages> {
        let extended = self.capability(0x11).and_then(|at| self.msix(at));
        extended.or_else(|| self.capability(5).map(|at| self.msi(at)))
    }

    fn msi(&self, at: u8) -> Messages {
        let place = usize::from(at);
        let control = self.word(place + 2);
        Messages::Msi {
            at,
            next: self.byte(place + 1),
            count: 1 << (control >> 1 & 7).min(5),
            wide: control & 1 << 7 != 0,
            maskable: control & 1 << 8 != 0,
        }
    }

    fn msix(&self, at: u8) -> Option<Messages> {
        let place = usize::from(at);
        let count = (self.word(place + 2) & 0x7FF) + 1;
        let found = |offset: usize| Place {
            bar: (self.dword(place + offset) & 7) as u8,
            offset: self.dword(place + offset) & !7,
        };
        let (table, pending) = (found(4), found(8));
        let bars = self.bars();
        let fits = |place: Place, bytes: u64| {
            let window = bars.get(usize::from(place.bar)).copied().flatten();
            window.is_some_and(|bar| !bar.is_port() && u64::from(place.offset) + bytes <= bar.length())
        };
        let room = fits(table, u64::from(count) * 16) && fits(pending, u64::from(count.div_ceil(64)) * 8);
        room.then(|| Messages::MsiX { at, next: self.byte(place + 1), count, table, pending })
    }

    fn bars(&self) -> [Option<Bar>; 6] {
        let mut bars = [None; 6];
        let mut index = 0;
        while index < bars.len() {
            let low = self.dword(0x10 + index * 4);
            let next = if index < 5 { self.dword(0x14 + index * 4) } else { 0 };
            bars[index] = self.bar(low, next, index < 5);
            let wide = matches!(bars[index], Some(Bar::Memory { location: Location::Any64, .. }));
            index += if wide { 2 } else { 1 };
        }
        bars
    }

    fn bar(&self, low: u32, next: u32, may_be_wide: bool) -> Option<Bar> {
        if low & 1 != 0 {
            let base = u64::from(low & !3);
            return (base != 0)
                .then(|| Bar::Port { length: self.length(base, UNSIZED_PORTS).clamp(4, 0x4000) });
        }
        let location = match low >> 1 & 3 {
            1 => Location::Below1M,
            2 if may_be_wide => Location::Any64,
            _ => Location::Any32,
        };
        let high = if location == Location::Any64 { u64::from(next) << 32 } else { 0 };
        let base = high | u64::from(low & !0xF);
        let most = if location == Location::Any64 { 1 << 38 } else { 1 << 31 };
        let length = self.length(base, UNSIZED_MEMORY).clamp(16, most);
        (base != 0).then_some(Bar::Memory { length, location, prefetchable: low & 8 != 0 })
    }

    /// The size written down for the window at `base`, else what its alignment allows, at most `most`.
    fn length(&self, base: u64, most: u64) -> u64 {
        let written = self.sizes.iter().find(|(known, _)| *known == base).map(|(_, length)| *length);
        written.unwrap_or_else(|| (base & base.wrapping_neg()).min(most))
    }
}
