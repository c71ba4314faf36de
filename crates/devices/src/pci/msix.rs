//! The MSI-X capability: a table of addresses and data in a window, a mask for each entry and one for all, pending bits.
//!
//! PCI Local Bus Specification 3.0, 6.8.2. As there, the table and the pending bits answer aligned accesses of 4 and 8
//! bytes, and each entry is masked after a reset.

use kernel::hal::hardware::{Message, Refusal, Width};

use super::header::Place;
use crate::bits::bits;
use crate::register::{Row, is_sorted, low32, parts};

/// PCI's number of this capability.
const ID: u32 = 0x11;
/// Bytes of a table entry.
const ENTRY: u64 = 16;
/// Bytes of the capability.
const LENGTH: u8 = 12;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    Id,
    Next,
    Control,
    Table,
    Pending,
}

const fn row(register: Register, offset: u64, bytes: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes, name }
}

const TABLE: &[Row<Register>] = &[
    row(Register::Id, 0x0, 1, "CapID"),
    row(Register::Next, 0x1, 1, "NextPtr"),
    row(Register::Control, 0x2, 2, "MessageControl"),
    row(Register::Table, 0x4, 4, "Table"),
    row(Register::Pending, 0x8, 4, "PBA"),
];

const _: () = assert!(is_sorted(TABLE));

bits! {
    /// Message Control.
    struct Control {
        /// Entries of the table, less one.
        TABLE_SIZE = 0..=10;
        FUNCTION_MASK = 14;
        ENABLE = 15;
    }
}

/// What software can change of Message Control.
const CONTROL_STORED: u32 = Control::FUNCTION_MASK.mask() | Control::ENABLE.mask();

bits! {
    /// Vector Control of a table entry.
    struct VectorControl {
        MASK = 0;
    }
}

/// A table entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    control: VectorControl,
}

/// As after a reset: masked.
const EMPTY: Entry = Entry { address: 0, data: 0, control: VectorControl(VectorControl::MASK.mask()) };

/// The capability's registers and what lies in the window.
pub(super) struct MsiX {
    at: u8,
    next: u8,
    table: Place,
    pending_at: Place,
    control: Control,
    entries: Vec<Entry>,
    /// One bit for each entry.
    pending: Vec<u32>,
}

impl MsiX {
    /// `count` is 1–2,048.
    pub(super) fn new(at: u8, next: u8, count: u16, table: Place, pending_at: Place) -> Self {
        let control = Control::default().with(Control::TABLE_SIZE, u32::from(count) - 1);
        let (entries, pending) = (vec![EMPTY; count.into()], vec![0; usize::from(count.div_ceil(64)) * 2]);
        Self { at, next, table, pending_at, control, entries, pending }
    }

    pub(super) fn reset(&mut self) {
        let Self { at: _, next: _, table: _, pending_at: _, control, entries, pending } = self;
        *control = control.merged(0, CONTROL_STORED);
        entries.fill(EMPTY);
        pending.fill(0);
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.control.is(Control::ENABLE)
    }

    pub(super) fn signal(&mut self, number: u16, sent: &mut Vec<Message>) {
        let number = usize::from(number);
        if self.is_enabled() && number < self.entries.len() {
            self.pending[number / 32] |= 1 << (number % 32);
            self.send(number, sent);
        }
    }

    /// Sends message `number` if it pends and nothing masks it.
    fn send(&mut self, number: usize, sent: &mut Vec<Message>) {
        let entry = self.entries[number];
        let masked = self.control.is(Control::FUNCTION_MASK) || entry.control.is(VectorControl::MASK);
        let pending = &mut self.pending[number / 32];
        if *pending & 1 << (number % 32) != 0 && self.control.is(Control::ENABLE) && !masked {
            *pending &= !(1 << (number % 32));
            sent.push(Message { address: entry.address, data: entry.data });
        }
    }

    fn inside(&self, offset: u8) -> Option<u64> {
        offset.checked_sub(self.at).filter(|offset| *offset < LENGTH).map(u64::from)
    }

    pub(super) fn config_read(&self, offset: u8, bytes: u64) -> Option<u32> {
        let cut = parts(TABLE, self.inside(offset)?, bytes);
        Some(low32(
            cut.map(|part| part.read(self.register(part.register))).fold(0, |value, bits| value | bits),
        ))
    }

    fn register(&self, register: Register) -> u32 {
        let place = |place: Place| place.offset | u32::from(place.bar);
        match register {
            Register::Id => ID,
            Register::Next => self.next.into(),
            Register::Control => self.control.0,
            Register::Table => place(self.table),
            Register::Pending => place(self.pending_at),
        }
    }

    pub(super) fn config_write(&mut self, offset: u8, bytes: u64, value: u32, sent: &mut Vec<Message>) {
        let Some(offset) = self.inside(offset) else { return };
        for part in parts(TABLE, offset, bytes).filter(|part| part.register == Register::Control) {
            let lanes = part.lanes & CONTROL_STORED;
            self.control = self.control.merged(part.written(value.into()), lanes);
        }
        (0..self.entries.len()).for_each(|number| self.send(number, sent));
    }

    /// The offset in the table.
    fn in_table(&self, bar: u8, offset: u64) -> Option<u64> {
        let bytes = self.entries.len() as u64 * ENTRY;
        offset.checked_sub(self.table.offset.into()).filter(|at| bar == self.table.bar && *at < bytes)
    }

    /// The offset in the pending bits.
    fn in_pending(&self, bar: u8, offset: u64) -> Option<u64> {
        let bytes = self.pending.len() as u64 * 4;
        offset
            .checked_sub(self.pending_at.offset.into())
            .filter(|at| bar == self.pending_at.bar && *at < bytes)
    }

    pub(super) fn owns(&self, bar: u8, offset: u64) -> bool {
        self.in_table(bar, offset).is_some() || self.in_pending(bar, offset).is_some()
    }

    pub(super) fn describe(&self, bar: u8, offset: u64) -> String {
        const FIELDS: [&str; 4] = ["address", "upper address", "data", "vector control"];
        match self.in_table(bar, offset) {
            Some(at) => {
                format!("MSI-X table[{}] {}", at / ENTRY, FIELDS[usize::from(at.to_le_bytes()[0] >> 2 & 3)])
            }
            None => format!("MSI-X pending bits+{:X}h", self.in_pending(bar, offset).unwrap_or(0)),
        }
    }

    fn refuse(&self, bar: u8, offset: u64) -> Refusal {
        let what = format!("BAR{bar}+{offset:X}h {}", self.describe(bar, offset));
        Refusal::new(what, "accepts 4 and 8 bytes, aligned".to_owned())
    }

    pub(super) fn window_read(&self, bar: u8, offset: u64, width: Width) -> Result<u64, Refusal> {
        match width {
            Width::Dword if offset.is_multiple_of(4) => Ok(self.dword(bar, offset).into()),
            Width::Qword if offset.is_multiple_of(8) => {
                let (low, high) = (self.dword(bar, offset), self.dword(bar, offset + 4));
                Ok(u64::from(low) | u64::from(high) << 32)
            }
            _ => Err(self.refuse(bar, offset)),
        }
    }

    fn dword(&self, bar: u8, offset: u64) -> u32 {
        if let Some((number, field)) = self.in_table(bar, offset).map(split) {
            let entry = &self.entries[number];
            return match field {
                0 => low32(entry.address),
                1 => low32(entry.address >> 32),
                2 => entry.data,
                _ => entry.control.0,
            };
        }
        let word = self.in_pending(bar, offset).and_then(|at| usize::try_from(at / 4).ok());
        word.and_then(|word| self.pending.get(word)).copied().unwrap_or(0)
    }

    pub(super) fn window_write(
        &mut self,
        bar: u8,
        offset: u64,
        width: Width,
        value: u64,
        sent: &mut Vec<Message>,
    ) -> Result<(), Refusal> {
        match width {
            Width::Dword if offset.is_multiple_of(4) => self.set_dword(bar, offset, low32(value)),
            Width::Qword if offset.is_multiple_of(8) => {
                self.set_dword(bar, offset, low32(value));
                self.set_dword(bar, offset + 4, low32(value >> 32));
            }
            _ => return Err(self.refuse(bar, offset)),
        }
        if let Some((number, _)) = self.in_table(bar, offset).map(split) {
            self.send(number, sent);
        }
        Ok(())
    }

    /// The pending bits are read only.
    fn set_dword(&mut self, bar: u8, offset: u64, value: u32) {
        let Some((number, field)) = self.in_table(bar, offset).map(split) else { return };
        let entry = &mut self.entries[number];
        match field {
            0 => entry.address = entry.address & !0xFFFF_FFFF | u64::from(value & !3),
            1 => entry.address = entry.address & 0xFFFF_FFFF | u64::from(value) << 32,
            2 => entry.data = value,
            _ => entry.control = entry.control.merged(value, VectorControl::MASK.mask()),
        }
    }
}

/// Entry, and DWORD in it.
fn split(at: u64) -> (usize, u64) {
    (usize::try_from(at / ENTRY).unwrap_or(usize::MAX), at % ENTRY / 4)
}
