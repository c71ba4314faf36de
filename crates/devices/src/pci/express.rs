//! What software can write of the capabilities that are bytes of a function's [`Header`]: those of a PCI Express function.
//!
//! PCI Express Base Specification 4.0, 7.5.3 (the PCI Express capability), 7.8.2 (latency tolerance reporting), 7.8.4 (advanced error reporting), 6.6.2 (function level
//! reset). Which there are is found by walking the lists of the header, declared or from a dump. All else of these capabilities is read only. *It does not* make errors: their
//! status bits never get set by themselves.

use std::collections::BTreeMap;

use super::header::{Header, Messages};
use super::power::Changed;

/// Numbers of conventional capabilities.
const POWER: u8 = 0x01;
const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
/// PCI Express.
pub(crate) const EXPRESS: u8 = 0x10;
/// Numbers of extended capabilities.
pub(crate) const ERRORS: u16 = 0x0001;
const LATENCY: u16 = 0x0018;

/// Where the extended list begins.
pub(crate) const EXTENDED: u16 = 0x100;
/// Where a header's device-specific bytes begin.
const SPECIFIC: u16 = 0x40;

/// Bits of a register that software can change.
#[derive(Clone, Copy)]
struct Rule {
    offset: u16,
    bytes: u16,
    /// They hold what is written.
    stored: u32,
    /// A 1 clears them.
    cleared: u32,
}

const fn stored(offset: u16, bytes: u16, stored: u32) -> Rule {
    Rule { offset, bytes, stored, cleared: 0 }
}

const fn cleared(offset: u16, bytes: u16, cleared: u32) -> Rule {
    Rule { offset, bytes, stored: 0, cleared }
}

/// Device Control, from the start of the capability.
const DEVICE_CONTROL: u16 = 0x08;
/// Initiate Function Level Reset, and in Device Capabilities that there is one.
const RESET: u32 = 1 << 15;
const CAN_RESET: u32 = 1 << 28;

/// Of the PCI Express capability: control and status of device and link.
const FIRST: &[Rule] =
    &[stored(DEVICE_CONTROL, 2, 0x7FFF), cleared(0x0A, 2, 0x000F), stored(0x10, 2, 0x0FFB)];
/// What its second version adds.
const SECOND: &[Rule] = &[stored(0x28, 2, 0x741F), stored(0x30, 2, 0x0F7F)];
/// Of advanced error reporting: status, mask and severity of both kinds, and ECRC.
const ERROR_RULES: &[Rule] = &[
    cleared(0x04, 4, 0x07FF_F030),
    stored(0x08, 4, 0x07FF_F030),
    stored(0x0C, 4, 0x07FF_F030),
    cleared(0x10, 4, 0x0000_F1C1),
    stored(0x14, 4, 0x0000_F1C1),
    stored(0x18, 4, 0x0000_0140),
];
/// The latencies of latency tolerance reporting.
const LATENCY_RULES: &[Rule] = &[stored(0x04, 4, 0x1FFF_1FFF)];

fn byte(header: &Header, offset: u16) -> u8 {
    let index = offset.checked_sub(SPECIFIC).map(usize::from);
    index.and_then(|index| header.specific.get(index)).copied().unwrap_or(0)
}

fn dword(header: &Header, offset: u16) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|i| byte(header, offset + i)))
}

/// The function's conventional capabilities in the order of its list: number and place.
fn conventional(header: &Header) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    let mut at = header.capabilities & 0xFC;
    // Bounded, for a list that runs in a circle.
    while u16::from(at) >= SPECIFIC && found.len() < 48 {
        let (id, next) = match (header.power, header.messages) {
            (Some(power), _) if power.at == at => (POWER, power.next),
            (_, Some(Messages::Msi { at: own, next, .. })) if own == at => (MSI, next),
            (_, Some(Messages::MsiX { at: own, next, .. })) if own == at => (MSIX, next),
            _ => (byte(header, at.into()), byte(header, u16::from(at) + 1)),
        };
        found.push((id, at));
        at = next & 0xFC;
    }
    found
}

/// The function's extended capabilities in the order of its list: number and place.
fn extended(header: &Header) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    let mut at = EXTENDED;
    while header.is_extended() && at >= EXTENDED && found.len() < 256 {
        let head = dword(header, at);
        if head == 0 || head == u32::MAX {
            break;
        }
        found.push(((head & 0xFFFF) as u16, at));
        at = (head >> 20 & 0xFFC) as u16;
    }
    found
}

/// What software has written into those capabilities.
pub(super) struct ExpressUnit {
    rules: Vec<Rule>,
    /// Device Control, where the function can be reset by it.
    reset_by: Option<u16>,
    /// Bytes that are not as the header has them.
    written: BTreeMap<u16, u8>,
}

impl ExpressUnit {
    pub(super) fn new(header: &Header) -> Self {
        let mut unit = Self { rules: Vec::new(), reset_by: None, written: BTreeMap::new() };
        for (_, at) in conventional(header).into_iter().filter(|(id, _)| *id == EXPRESS) {
            let at = u16::from(at);
            unit.add(at, FIRST);
            if byte(header, at + 2) & 0xF >= 2 {
                unit.add(at, SECOND);
            }
            unit.reset_by = (dword(header, at + 4) & CAN_RESET != 0).then_some(at + DEVICE_CONTROL);
        }
        for (id, at) in extended(header) {
            match id {
                ERRORS => unit.add(at, ERROR_RULES),
                LATENCY => unit.add(at, LATENCY_RULES),
                _ => {}
            }
        }
        unit
    }

    fn add(&mut self, at: u16, rules: &[Rule]) {
        self.rules.extend(rules.iter().map(|rule| Rule { offset: at + rule.offset, ..*rule }));
    }

    /// The function has been reset: all is as its header has it.
    pub(super) fn reset(&mut self) {
        let Self { rules: _, reset_by: _, written } = self;
        written.clear();
    }

    /// `value`, read at `offset` from the header, with what was written there.
    pub(super) fn config_read(&self, offset: u16, bytes: u64, value: u32) -> u32 {
        if self.written.is_empty() {
            return value;
        }
        let mut all = value.to_le_bytes();
        for (at, byte) in (offset..).zip(all.iter_mut()).take(usize::try_from(bytes).unwrap_or(4)) {
            if let Some(written) = self.written.get(&at) {
                *byte = *written;
            }
        }
        u32::from_le_bytes(all)
    }

    /// A write of `bytes` (1, 2 or 4) at `offset`.
    pub(super) fn config_write(&mut self, header: &Header, offset: u16, bytes: u64, value: u32) -> Changed {
        let mut resets = false;
        for (at, new) in (offset..).zip(value.to_le_bytes()).take(usize::try_from(bytes).unwrap_or(4)) {
            let Some(rule) =
                self.rules.iter().find(|rule| (rule.offset..rule.offset + rule.bytes).contains(&at))
            else {
                continue;
            };
            let shift = (at - rule.offset) * 8;
            let part = |mask: u32| (mask >> shift & 0xFF) as u8;
            resets |= self.reset_by == Some(rule.offset) && new & part(RESET) != 0;
            let old = self.written.get(&at).copied().unwrap_or_else(|| byte(header, at));
            let kept = old & !part(rule.stored) & !(new & part(rule.cleared));
            self.written.insert(at, kept | new & part(rule.stored));
        }
        if resets { Changed::Reset } else { Changed::Nothing }
    }
}
