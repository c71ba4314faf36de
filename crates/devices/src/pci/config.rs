//! One function's configuration space: the type 0 header as one table of registers, read and written by any width.
//!
//! PCI Local Bus Specification 3.0, 6.1–6.2; PCI Express Base Specification, 7.2, for what lies from 100h on. It keeps what software can write; the rest comes from the model's
//! [`Header`]. Device-specific bytes from 40h on are read only. Error bits of the status register never get set.

use kernel::hal::hardware::Window;

use super::header::{Bar, Header};
use crate::bits::bits;
use crate::register::{Row, is_sorted, low32, parts};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    VendorId,
    DeviceId,
    Command,
    Status,
    RevisionId,
    ClassCode,
    CacheLineSize,
    Bar(usize),
    SubsystemVendorId,
    SubsystemId,
    ExpansionRom,
    CapabilitiesPointer,
    InterruptLine,
    InterruptPin,
    MinGrant,
    MaxLatency,
}

const fn row(register: Register, offset: u64, bytes: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes, name }
}

/// What is not listed reads 0: latency timer, header type 0, BIST, the CardBus pointer, reserved bytes.
const TABLE: &[Row<Register>] = &[
    row(Register::VendorId, 0x00, 2, "VendorID"),
    row(Register::DeviceId, 0x02, 2, "DeviceID"),
    row(Register::Command, 0x04, 2, "Command"),
    row(Register::Status, 0x06, 2, "Status"),
    row(Register::RevisionId, 0x08, 1, "RevisionID"),
    row(Register::ClassCode, 0x09, 3, "ClassCode"),
    row(Register::CacheLineSize, 0x0C, 1, "CacheLineSize"),
    row(Register::Bar(0), 0x10, 4, "BAR0"),
    row(Register::Bar(1), 0x14, 4, "BAR1"),
    row(Register::Bar(2), 0x18, 4, "BAR2"),
    row(Register::Bar(3), 0x1C, 4, "BAR3"),
    row(Register::Bar(4), 0x20, 4, "BAR4"),
    row(Register::Bar(5), 0x24, 4, "BAR5"),
    row(Register::SubsystemVendorId, 0x2C, 2, "SubsystemVendorID"),
    row(Register::SubsystemId, 0x2E, 2, "SubsystemID"),
    row(Register::ExpansionRom, 0x30, 4, "ExpansionROM"),
    row(Register::CapabilitiesPointer, 0x34, 1, "CapabilitiesPtr"),
    row(Register::InterruptLine, 0x3C, 1, "InterruptLine"),
    row(Register::InterruptPin, 0x3D, 1, "InterruptPin"),
    row(Register::MinGrant, 0x3E, 1, "MinGnt"),
    row(Register::MaxLatency, 0x3F, 1, "MaxLat"),
];

const _: () = assert!(is_sorted(TABLE));

/// Where the device-specific bytes start.
const SPECIFIC: u64 = 0x40;

bits! {
    /// The command register, 04h.
    pub(crate) struct Command {
        IO_SPACE = 0;
        MEMORY_SPACE = 1;
        BUS_MASTER = 2;
        PARITY_ERROR_RESPONSE = 6;
        SERR_ENABLE = 8;
        INTERRUPT_DISABLE = 10;
    }
}

bits! {
    /// The status register, 06h.
    struct Status {
        INTERRUPT = 3;
        CAPABILITIES_LIST = 4;
    }
}

/// What software has written.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigSpace {
    command: Command,
    cache_line_size: u8,
    bars: [u32; 6],
    rom: u32,
    interrupt_line: u8,
}

impl ConfigSpace {
    /// Nothing decoded, nothing assigned.
    pub(crate) fn reset(&mut self) {
        let Self { command, cache_line_size, bars, rom, interrupt_line } = self;
        *command = Command::default();
        *cache_line_size = 0;
        *bars = [0; 6];
        *rom = 0;
        *interrupt_line = 0;
    }

    /// The command register.
    pub(crate) fn command(&self) -> Command {
        self.command
    }

    /// Puts `line` in the interrupt line register.
    pub(crate) fn set_interrupt_line(&mut self, line: u8) {
        self.interrupt_line = line;
    }

    /// What firmware does once it has found places: bases, the line, decoding on.
    pub(crate) fn assign(&mut self, header: &Header, bases: [Option<u64>; 6], line: u8) {
        for (bar, base) in bases.into_iter().enumerate() {
            let Some(base) = base else { continue };
            self.bars[bar] = low32(base);
            if header.is_wide(bar) {
                self.bars[bar + 1] = low32(base >> 32);
            }
        }
        self.interrupt_line = line;
        let decode = Command::default().with(Command::IO_SPACE, 1).with(Command::MEMORY_SPACE, 1);
        self.command = Command(decode.0 & command_mask(header));
    }

    /// `bytes` (1–4) bytes at `offset`; those past the function's configuration space read as ones. `asserting` is the level of the function's pin.
    pub(crate) fn read(&self, header: &Header, asserting: bool, offset: u64, bytes: u64) -> u32 {
        let registers = parts(TABLE, offset, bytes)
            .map(|part| part.read(self.register(header, asserting, part.register)))
            .fold(0, |value, bits| value | bits);
        let beyond = (0..bytes)
            .filter(|i| offset + i >= SPECIFIC)
            .fold(0, |value, i| value | u64::from(specific_byte(header, offset + i - SPECIFIC)) << (i * 8));
        low32(registers | beyond)
    }

    fn register(&self, header: &Header, asserting: bool, register: Register) -> u32 {
        match register {
            Register::VendorId => header.vendor.into(),
            Register::DeviceId => header.device.into(),
            Register::Command => self.command.0,
            Register::Status => status(header, asserting).0,
            Register::RevisionId => header.revision.into(),
            Register::ClassCode => header.class,
            Register::CacheLineSize => self.cache_line_size.into(),
            Register::Bar(bar) => self.bar(header, bar),
            Register::SubsystemVendorId => header.subsystem_vendor.into(),
            Register::SubsystemId => header.subsystem.into(),
            Register::ExpansionRom => self.rom & rom_mask(header),
            Register::CapabilitiesPointer => header.capabilities.into(),
            Register::InterruptLine => self.interrupt_line.into(),
            Register::InterruptPin => header.pin.into(),
            Register::MinGrant => header.min_grant.into(),
            Register::MaxLatency => header.max_latency.into(),
        }
    }

    /// A write of `bytes` (1–4) bytes at `offset`. Bits that do not exist stay 0.
    pub(crate) fn write(&mut self, header: &Header, offset: u64, bytes: u64, value: u32) {
        for part in parts(TABLE, offset, bytes) {
            let (written, lanes) = (part.written(value.into()), part.lanes);
            match part.register {
                Register::Command => {
                    self.command = self.command.merged(written, lanes & command_mask(header));
                }
                Register::CacheLineSize => self.cache_line_size = (written & 0xFF) as u8,
                Register::Bar(bar) => self.bars[bar] = (self.bars[bar] & !lanes) | written,
                Register::ExpansionRom => self.rom = (self.rom & !lanes) | written,
                Register::InterruptLine => self.interrupt_line = (written & 0xFF) as u8,
                _ => {}
            }
        }
    }

    /// A base address register as it reads: the bits below the size are the kind, or 0.
    fn bar(&self, header: &Header, bar: usize) -> u32 {
        match header.bars[bar] {
            Some(kind) => (self.bars[bar] & low32(!(kind.length() - 1))) | kind.low_bits(),
            None if bar > 0 && header.is_wide(bar - 1) => {
                let length = header.bars[bar - 1].map_or(1, Bar::length);
                self.bars[bar] & low32(!(length - 1) >> 32)
            }
            None => 0,
        }
    }

    /// The windows as assigned now, whether decoded or not; an unassigned one has base 0.
    pub(crate) fn windows(&self, header: &Header) -> Vec<Window> {
        let mut windows = Vec::new();
        for (number, bar) in (0_u8..).zip(0..header.bars.len()) {
            let Some(kind) = header.bars[bar] else { continue };
            let low = u64::from(self.bar(header, bar) & !kind.low_bits());
            let high = if header.is_wide(bar) { u64::from(self.bar(header, bar + 1)) } else { 0 };
            windows.push(Window {
                bar: number,
                port: kind.is_port(),
                base: high << 32 | low,
                length: kind.length(),
                prefetchable: kind.is_prefetchable(),
            });
        }
        windows
    }
}

fn status(header: &Header, asserting: bool) -> Status {
    Status::default()
        .with(Status::INTERRUPT, (asserting && header.interrupt_disable).into())
        .with(Status::CAPABILITIES_LIST, (header.capabilities != 0).into())
}

/// The bits of the command register that this function has.
fn command_mask(header: &Header) -> u32 {
    let has = |kind: fn(Bar) -> bool| header.bars.iter().flatten().any(|bar| kind(*bar));
    Command(Command::PARITY_ERROR_RESPONSE.mask() | Command::SERR_ENABLE.mask())
        .with(Command::IO_SPACE, has(Bar::is_port).into())
        .with(Command::MEMORY_SPACE, (has(|bar| !bar.is_port()) || header.rom.is_some()).into())
        .with(Command::BUS_MASTER, header.master.into())
        .with(Command::INTERRUPT_DISABLE, header.interrupt_disable.into())
        .0
}

/// The bits of the expansion ROM register that exist: base and enable.
fn rom_mask(header: &Header) -> u32 {
    header.rom.map_or(0, |length| !(length - 1) | 1)
}

/// A byte from 40h on; past the end of configuration space it reads as ones.
fn specific_byte(header: &Header, index: u64) -> u8 {
    let end = if header.is_extended() { 0x1000 } else { 0x100 };
    if index >= end - SPECIFIC {
        return 0xFF;
    }
    usize::try_from(index).ok().and_then(|index| header.specific.get(index)).copied().unwrap_or(0)
}
