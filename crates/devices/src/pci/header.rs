//! What a card says about itself in its type 0 configuration header, as a model describes it.
//!
//! PCI Local Bus Specification 3.0, 6.1–6.2. What software writes there (command, bases, line) is `config`'s.

/// Where a memory window may lie: bits 2:1 of its base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Location {
    /// 00: anywhere in 32 bits.
    Any32,
    /// 01: below 1 MB.
    Below1M,
    /// 10: anywhere in 64 bits; takes the next register for its upper half.
    Any64,
}

/// A window that a function asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// Memory space.
    Memory {
        /// Bytes, a power of two from 16.
        length: u64,
        /// Where it may lie.
        location: Location,
        /// Reads have no side effect.
        prefetchable: bool,
    },
    /// I/O space.
    Port {
        /// Bytes, a power of two from 4.
        length: u64,
    },
}

impl Bar {
    /// Memory anywhere in 32 bits, not prefetchable.
    #[must_use]
    pub const fn memory(length: u64) -> Self {
        Self::Memory { length, location: Location::Any32, prefetchable: false }
    }

    /// Bytes.
    #[must_use]
    pub const fn length(self) -> u64 {
        match self {
            Self::Memory { length, .. } | Self::Port { length } => length,
        }
    }

    /// Whether it is in I/O space.
    #[must_use]
    pub const fn is_port(self) -> bool {
        matches!(self, Self::Port { .. })
    }

    /// Whether reads have no side effect; memory only.
    #[must_use]
    pub const fn is_prefetchable(self) -> bool {
        matches!(self, Self::Memory { prefetchable: true, .. })
    }

    /// The read-only low bits of the base address register.
    #[must_use]
    pub const fn low_bits(self) -> u32 {
        match self {
            Self::Port { .. } => 1,
            Self::Memory { location, prefetchable, .. } => {
                let place = match location {
                    Location::Any32 => 0,
                    Location::Below1M => 2,
                    Location::Any64 => 4,
                };
                place | if prefetchable { 8 } else { 0 }
            }
        }
    }
}

/// A place in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which base address register, 0–5.
    pub bar: u8,
    /// Bytes from the window's base, a multiple of 8.
    pub offset: u32,
}

/// Message-signaled interrupts that a function can send. The bus has the capability's registers, and the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Messages {
    /// Consecutive messages to one address.
    Msi {
        /// Where the capability is in configuration space, a multiple of 4 from 40h.
        at: u8,
        /// The next capability; 0 for none.
        next: u8,
        /// 1, 2, 4, 8, 16 or 32.
        count: u8,
        /// The address has 64 bits.
        wide: bool,
        /// There are a mask and a pending bit for each message.
        maskable: bool,
    },
    /// Each message has its own address and data, in a table in a window.
    MsiX {
        /// Where the capability is in configuration space, a multiple of 4 from 40h.
        at: u8,
        /// The next capability; 0 for none.
        next: u8,
        /// Entries, 1–2,048.
        count: u16,
        /// 16 bytes for each entry.
        table: Place,
        /// A bit for each entry, in QWORDs.
        pending: Place,
    },
}

impl Messages {
    /// How many it can send.
    #[must_use]
    pub const fn count(self) -> u16 {
        match self {
            Self::Msi { count, .. } => count as u16,
            Self::MsiX { count, .. } => count,
        }
    }
}

/// The power management capability of a function. The bus has its registers, and carries its transitions out.
///
/// PCI Bus Power Management Interface Specification 1.2, 3.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PowerManagement {
    /// Where the capability is in configuration space, a multiple of 4 from 40h.
    pub at: u8,
    /// The next capability; 0 for none.
    pub next: u8,
    /// It has D1.
    pub d1: bool,
    /// It has D2.
    pub d2: bool,
    /// The states from which it can raise PME#: bit 0 is D0, bit 3 D3hot, bit 4 D3cold (it has auxiliary power then).
    pub wakes_from: u8,
    /// It keeps what it holds from D3hot to D0: `No_Soft_Reset`.
    pub keeps_state: bool,
    /// PMC without what is above: version, PME clock, device-specific initialisation, auxiliary current.
    pub rest: u16,
}

/// The read-only side of a function's configuration space. A model may change it, e.g. when it reloads its EEPROM; the
/// bus looks after every access.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// 00h.
    pub vendor: u16,
    /// 02h.
    pub device: u16,
    /// 08h.
    pub revision: u8,
    /// 09h, 24 bits: base class, subclass, interface.
    pub class: u32,
    /// 2Ch.
    pub subsystem_vendor: u16,
    /// 2Eh.
    pub subsystem: u16,
    /// 3Dh: 0 none, 1 INTA# … 4 INTD#.
    pub pin: u8,
    /// 3Eh, in units of 250 ns.
    pub min_grant: u8,
    /// 3Fh, in units of 250 ns.
    pub max_latency: u8,
    /// 10h–24h. A 64-bit window's following entry must be `None`.
    pub bars: [Option<Bar>; 6],
    /// 30h: bytes of the expansion ROM, a power of two from 2048. Its socket is empty: nothing answers there.
    pub rom: Option<u32>,
    /// Whether it can be a bus master: command bit 2 exists.
    pub master: bool,
    /// Whether command bit 10 (interrupt disable) and status bit 3 exist: PCI 2.3 and later.
    pub interrupt_disable: bool,
    /// 34h: where the capabilities list starts, 0 if there is none.
    pub capabilities: u8,
    /// The messages it can send; the registers of their capability lie over `specific`. They do not change.
    pub messages: Option<Messages>,
    /// Its power management, if it has any; the registers of that capability lie over `specific`. It does not change.
    pub power: Option<PowerManagement>,
    /// 40h–FFh, read only; what is missing at the end reads 0. A PCI Express function's go on, up to FFFh.
    pub specific: Vec<u8>,
    /// How often the function has loaded its interrupt line register (3Ch) by itself since reset. Each load
    /// overwrites what firmware put there.
    pub line_loads: u32,
    /// What such a load puts there.
    pub loaded_line: u8,
}

impl Header {
    /// Whether it has extended configuration space, as PCI Express functions have: 4 KiB.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.specific.len() > 0x100 - 0x40
    }

    /// Whether register `bar` is the lower half of a 64-bit base.
    #[must_use]
    pub fn is_wide(&self, bar: usize) -> bool {
        matches!(self.bars.get(bar), Some(Some(Bar::Memory { location: Location::Any64, .. })))
            && matches!(self.bars.get(bar + 1), Some(None))
    }
}
