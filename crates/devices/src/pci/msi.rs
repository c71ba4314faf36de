//! The MSI capability: one address, consecutive data, masks and pending bits if the function has them.
//!
//! PCI Local Bus Specification 3.0, 6.8.1. It does not have extended message data.

use kernel::hal::hardware::Message;

use crate::bits::bits;
use crate::register::{Row, is_sorted, low32, parts};

/// PCI's number of this capability.
const ID: u32 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    Id,
    Next,
    Control,
    AddressLow,
    AddressHigh,
    Data,
    Mask,
    Pending,
}

const fn row(register: Register, offset: u64, bytes: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes, name }
}

/// With an address of 32 bits.
const NARROW: &[Row<Register>] = &[
    row(Register::Id, 0x0, 1, "CapID"),
    row(Register::Next, 0x1, 1, "NextPtr"),
    row(Register::Control, 0x2, 2, "MessageControl"),
    row(Register::AddressLow, 0x4, 4, "MessageAddress"),
    row(Register::Data, 0x8, 2, "MessageData"),
    row(Register::Mask, 0xC, 4, "MaskBits"),
    row(Register::Pending, 0x10, 4, "PendingBits"),
];

/// With one of 64 bits.
const WIDE: &[Row<Register>] = &[
    row(Register::Id, 0x0, 1, "CapID"),
    row(Register::Next, 0x1, 1, "NextPtr"),
    row(Register::Control, 0x2, 2, "MessageControl"),
    row(Register::AddressLow, 0x4, 4, "MessageAddress"),
    row(Register::AddressHigh, 0x8, 4, "MessageUpperAddress"),
    row(Register::Data, 0xC, 2, "MessageData"),
    row(Register::Mask, 0x10, 4, "MaskBits"),
    row(Register::Pending, 0x14, 4, "PendingBits"),
];

const _: () = assert!(is_sorted(NARROW) && is_sorted(WIDE));

bits! {
    /// Message Control.
    struct Control {
        ENABLE = 0;
        /// Messages the function can send, as a power of two.
        CAPABLE = 1..=3;
        /// Messages software has enabled, as a power of two.
        ENABLED = 4..=6;
        WIDE = 7;
        MASKING = 8;
    }
}

/// What software can change of Message Control.
const CONTROL_STORED: u32 = Control::ENABLE.mask() | Control::ENABLED.mask();

/// The capability's registers.
pub(super) struct Msi {
    at: u8,
    next: u8,
    table: &'static [Row<Register>],
    control: Control,
    maskable: bool,
    address: u64,
    data: u32,
    mask: u32,
    pending: u32,
}

impl Msi {
    /// `count` is 1, 2, 4, 8, 16 or 32.
    pub(super) fn new(at: u8, next: u8, count: u8, wide: bool, maskable: bool) -> Self {
        let control = Control::default()
            .with(Control::CAPABLE, count.trailing_zeros())
            .with(Control::WIDE, wide.into())
            .with(Control::MASKING, maskable.into());
        let table = if wide { WIDE } else { NARROW };
        Self { at, next, table, control, maskable, address: 0, data: 0, mask: 0, pending: 0 }
    }

    pub(super) fn reset(&mut self) {
        let Self { at: _, next: _, table: _, control, maskable: _, address, data, mask, pending } = self;
        *control = control.merged(0, CONTROL_STORED);
        *address = 0;
        (*data, *mask, *pending) = (0, 0, 0);
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.control.is(Control::ENABLE)
    }

    /// How many messages there are now.
    fn enabled(&self) -> u32 {
        1 << self.control.get(Control::ENABLED).min(self.control.get(Control::CAPABLE))
    }

    pub(super) fn signal(&mut self, number: u16, sent: &mut Vec<Message>) {
        if self.is_enabled() {
            self.pending |= 1 << (u32::from(number) % self.enabled());
            self.send(sent);
        }
    }

    /// Sends what pends and is not masked.
    fn send(&mut self, sent: &mut Vec<Message>) {
        if !self.is_enabled() {
            return;
        }
        let mut ready = self.pending & !self.mask;
        self.pending &= self.mask;
        while ready != 0 {
            let number = ready.trailing_zeros();
            ready &= ready - 1;
            // The function changes the low bits of the data, and only those.
            let data = self.data & !(self.enabled() - 1) | number & (self.enabled() - 1);
            sent.push(Message { address: self.address, data });
        }
    }

    /// The offset in the capability, if it is in it.
    fn inside(&self, offset: u8) -> Option<u64> {
        let rows = if self.maskable { self.table } else { &self.table[..self.table.len() - 2] };
        let end = rows.last().map_or(0, |row| row.offset + row.bytes);
        offset.checked_sub(self.at).map(u64::from).filter(|offset| *offset < end.next_multiple_of(4))
    }

    pub(super) fn config_read(&self, offset: u8, bytes: u64) -> Option<u32> {
        let cut = parts(self.table, self.inside(offset)?, bytes);
        Some(low32(
            cut.map(|part| part.read(self.register(part.register))).fold(0, |value, bits| value | bits),
        ))
    }

    fn register(&self, register: Register) -> u32 {
        match register {
            Register::Id => ID,
            Register::Next => self.next.into(),
            Register::Control => self.control.0,
            Register::AddressLow => low32(self.address),
            Register::AddressHigh => low32(self.address >> 32),
            Register::Data => self.data,
            Register::Mask => self.mask,
            Register::Pending => self.pending,
        }
    }

    pub(super) fn config_write(&mut self, offset: u8, bytes: u64, value: u32, sent: &mut Vec<Message>) {
        let Some(offset) = self.inside(offset) else { return };
        for part in parts(self.table, offset, bytes) {
            let (written, lanes) = (part.written(value.into()), part.lanes);
            match part.register {
                Register::Control => self.control = self.control.merged(written, lanes & CONTROL_STORED),
                // The two lowest bits are 0: a message is a DWORD.
                Register::AddressLow => {
                    let low = (low32(self.address) & !lanes | written) & !3;
                    self.address = self.address & !0xFFFF_FFFF | u64::from(low);
                }
                Register::AddressHigh => {
                    let high = low32(self.address >> 32) & !lanes | written;
                    self.address = self.address & 0xFFFF_FFFF | u64::from(high) << 32;
                }
                Register::Data => self.data = self.data & !lanes | written,
                Register::Mask if self.maskable => self.mask = self.mask & !lanes | written & self.existing(),
                _ => {}
            }
        }
        self.send(sent);
    }

    /// Mask bits that exist: one for each message the function can send.
    fn existing(&self) -> u32 {
        let count = 1_u64 << self.control.get(Control::CAPABLE);
        low32((1 << count) - 1)
    }
}
