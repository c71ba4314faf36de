//! Runs of bytes in a function's configuration space, moved by the widths that the bus has.
//!
//! PCI Local Bus Specification 3.0, 3.2.2.3.2: configuration cycles move 1, 2 or 4 aligned bytes. PCI Express Base
//! Specification, 7.2: a function has 4 KiB. From 100h on, bytes of a conventional function do not exist.

use super::hardware::{Hardware, PciAddress, Width};

/// Bytes of a conventional function's configuration space.
const CONVENTIONAL: u32 = 0x100;
/// Bytes of a PCI Express function's configuration space: the most there are.
pub(crate) const SIZE: u32 = 0x1000;

/// The widest aligned access at `offset` that moves at most `left` bytes.
fn width(offset: u32, left: u32) -> Width {
    if offset.is_multiple_of(4) && left >= 4 {
        Width::Dword
    } else if offset.is_multiple_of(2) && left >= 2 {
        Width::Word
    } else {
        Width::Byte
    }
}

/// The accesses that cover `length` bytes from `offset`, as far as they exist.
fn pieces(offset: u32, length: u32, size: u32) -> Vec<(u16, Width)> {
    let end = offset.saturating_add(length).min(size);
    let mut pieces = Vec::new();
    let mut at = offset;
    while at < end {
        let width = width(at, end - at);
        pieces.push((u16::try_from(at).unwrap_or(u16::MAX), width));
        at += width as u32;
    }
    pieces
}

fn size(hardware: &dyn Hardware, at: PciAddress) -> u32 {
    if hardware.is_extended(at) { SIZE } else { CONVENTIONAL }
}

/// Reads up to `length` bytes from `offset`; fewer where configuration space ends.
pub(crate) fn read(hardware: &mut dyn Hardware, at: PciAddress, offset: u32, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (offset, width) in pieces(offset, length, size(hardware, at)) {
        let value = hardware.config_read(at, offset, width).to_le_bytes();
        bytes.extend_from_slice(&value[..width as usize]);
    }
    bytes
}

/// Writes `bytes` from `offset` and says how many there was room for.
pub(crate) fn write(hardware: &mut dyn Hardware, at: PciAddress, offset: u32, bytes: &[u8]) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (mut rest, mut written) = (bytes, 0);
    for (offset, width) in pieces(offset, length, size(hardware, at)) {
        let (piece, after) = rest.split_at(width as usize);
        let mut value = [0; 4];
        value[..piece.len()].copy_from_slice(piece);
        hardware.config_write(at, offset, width, u32::from_le_bytes(value));
        (rest, written) = (after, written + width as u32);
    }
    written
}

/// The function in `slot` (`PCI_SLOT_NUMBER`: device in bits 0–4, function in bits 5–7) of `bus`.
#[must_use]
pub(crate) fn address(bus: u32, slot: u32) -> Option<PciAddress> {
    let [low, ..] = slot.to_le_bytes();
    Some(PciAddress { bus: u8::try_from(bus).ok()?, device: low & 0x1F, function: low >> 5 })
}

/// The `PCI_SLOT_NUMBER` of a function.
#[must_use]
pub(crate) const fn slot(at: PciAddress) -> u32 {
    at.device as u32 | (at.function as u32) << 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_run_is_moved_by_the_widest_aligned_accesses() {
        use Width::{Byte, Dword, Word};
        assert_eq!(pieces(1, 8, 0x100), [(1, Byte), (2, Word), (4, Dword), (8, Byte)]);
        assert_eq!(pieces(0xFC, 16, 0x100), [(0xFC, Dword)], "nothing lies behind FFh");
        assert_eq!(pieces(0x100, 4, 0x100), []);
        assert_eq!(pieces(0xFFE, 16, 0x1000), [(0xFFE, Word)]);
        assert_eq!(pieces(u32::MAX, u32::MAX, 0x1000), []);
    }

    #[test]
    fn a_slot_number_packs_device_and_function() {
        let at = PciAddress { bus: 0, device: 0x1F, function: 3 };
        assert_eq!(slot(at), 0x7F);
        assert_eq!(address(0, 0x7F), Some(at));
        assert_eq!(address(256, 0), None);
    }
}
