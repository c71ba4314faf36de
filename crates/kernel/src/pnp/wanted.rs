//! The bytes of an `IO_RESOURCE_REQUIREMENTS_LIST`, and what its descriptors ask for.
//!
//! Pages: *IO_RESOURCE_REQUIREMENTS_LIST structure*, *IO_RESOURCE_LIST structure*, *IO_RESOURCE_DESCRIPTOR structure*. A descriptor and the alternatives behind
//! it (`IO_RESOURCE_ALTERNATIVE`) ask for one resource; what is preferred (`IO_RESOURCE_PREFERRED`) is tried before the others.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    CM_RESOURCE_INTERRUPT_MESSAGE, CM_RESOURCE_INTERRUPT_POLICY_INCLUDED, CM_RESOURCE_MEMORY_LARGE_40,
    CM_RESOURCE_MEMORY_LARGE_48, CM_RESOURCE_MEMORY_LARGE_64, CmResourceTypeBusNumber,
    CmResourceTypeDevicePrivate, CmResourceTypeDma, CmResourceTypeInterrupt, CmResourceTypeMemory,
    CmResourceTypeMemoryLarge, CmResourceTypeNull, CmResourceTypePort, IO_RESOURCE_ALTERNATIVE,
    IO_RESOURCE_PREFERRED,
};

use super::policy::Policy;

/// Bytes before the first `IO_RESOURCE_LIST`.
pub(super) const HEADER: usize = 0x20;
/// Bytes of an `IO_RESOURCE_LIST` before its descriptors.
pub(super) const LIST_HEADER: usize = 8;
/// Bytes of an `IO_RESOURCE_DESCRIPTOR`.
pub(super) const DESCRIPTOR: usize = 0x20;

/// An `IO_RESOURCE_DESCRIPTOR`: the last four are the members of its union, by where they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// `IO_RESOURCE_*`.
    pub option: u8,
    /// `CmResourceType*`.
    pub kind: u8,
    /// `CmResourceShare*`.
    pub share: u8,
    /// `CM_RESOURCE_*`.
    pub flags: u16,
    /// Bytes 8 to 11: a length, or the lowest vector or channel.
    pub length: u32,
    /// Bytes 12 to 15: an alignment, the highest vector or channel, or the lowest bus number.
    pub alignment: u32,
    /// Bytes 16 to 23: the lowest address, or the highest bus number.
    pub minimum: u64,
    /// Bytes 24 to 31: the highest address.
    pub maximum: u64,
}

/// Where a resource may lie, in units of its space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) length: u64,
    /// At least 1.
    pub(super) alignment: u64,
    pub(super) lowest: u64,
    /// The last unit that it may have.
    pub(super) highest: u64,
}

impl Wanted {
    /// Ports or memory: so many, from the first to the last of those that will do.
    #[must_use]
    pub const fn range(kind: u8, flags: u16, length: u32, alignment: u32, place: (u64, u64)) -> Self {
        let share = abi::CmResourceShareDeviceExclusive;
        Self { option: 0, kind, share, flags, length, alignment, minimum: place.0, maximum: place.1 }
    }

    /// An interrupt line or a DMA channel.
    #[must_use]
    pub const fn number(kind: u8, share: u8, flags: u16, number: u32) -> Self {
        Self { option: 0, kind, share, flags, length: number, alignment: number, minimum: 0, maximum: 0 }
    }

    /// The same, which will do if what is before it cannot be had.
    #[must_use]
    pub const fn or(self) -> Self {
        Self { option: IO_RESOURCE_ALTERNATIVE, ..self }
    }

    pub(super) const fn is_alternative(&self) -> bool {
        self.option & IO_RESOURCE_ALTERNATIVE != 0
    }

    pub(super) const fn is_preferred(&self) -> bool {
        self.option & IO_RESOURCE_PREFERRED != 0
    }

    /// The messages it asks for, if it asks for messages.
    pub(super) fn messages(&self) -> Option<u32> {
        let asks = self.kind == CmResourceTypeInterrupt && self.flags & CM_RESOURCE_INTERRUPT_MESSAGE != 0;
        asks.then(|| self.alignment.checked_sub(self.length).map_or(1, |more| more.saturating_add(1)))
    }

    /// The policy of an interrupt, if it includes one.
    pub(super) fn policy(&self) -> Option<Policy> {
        let [a, b, _, _, p, q, r, s] = self.minimum.to_le_bytes();
        (self.flags & CM_RESOURCE_INTERRUPT_POLICY_INCLUDED != 0).then_some(Policy {
            affinity: u16::from_le_bytes([a, b]),
            priority: u32::from_le_bytes([p, q, r, s]),
            processors: self.maximum,
        })
    }

    /// Entries that ask for nothing: their types are not arbitrated.
    pub(super) const fn asks_nothing(&self) -> bool {
        self.kind == CmResourceTypeNull || self.kind >= CmResourceTypeDevicePrivate - 1
    }

    /// The words of an entry that is private to a driver, which stand in the list of what is assigned as they are.
    pub(super) fn private(&self) -> Option<[u32; 3]> {
        let [a, b, c, d, _, _, _, _] = self.minimum.to_le_bytes();
        let third = u32::from_le_bytes([a, b, c, d]);
        (self.kind == CmResourceTypeDevicePrivate).then_some([self.length, self.alignment, third])
    }

    /// Where it may lie; none for what lies nowhere.
    pub(super) fn span(&self) -> Option<Span> {
        let (length, alignment) = (u64::from(self.length), u64::from(self.alignment).max(1));
        let (lowest, highest) = (self.minimum, self.maximum);
        match self.kind {
            CmResourceTypePort | CmResourceTypeMemory => Some(Span { length, alignment, lowest, highest }),
            CmResourceTypeMemoryLarge => {
                let shift = large_shift(self.flags);
                Some(Span { length: length << shift, alignment: alignment << shift, lowest, highest })
            }
            CmResourceTypeInterrupt | CmResourceTypeDma => {
                Some(Span { length: 1, alignment: 1, lowest: length, highest: self.alignment.into() })
            }
            CmResourceTypeBusNumber => Some(Span {
                length,
                alignment: 1,
                lowest: self.alignment.into(),
                highest: self.minimum & 0xFFFF_FFFF,
            }),
            _ => None,
        }
    }

    fn bytes(&self) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        (bytes[0], bytes[1], bytes[2]) = (self.option, self.kind, self.share);
        bytes[4..6].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.alignment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.minimum.to_le_bytes());
        bytes[24..].copy_from_slice(&self.maximum.to_le_bytes());
        bytes
    }
}

/// By how many bits the lengths of `CmResourceTypeMemoryLarge` are shifted.
pub(super) const fn large_shift(flags: u16) -> u32 {
    match flags {
        flags if flags & CM_RESOURCE_MEMORY_LARGE_40 != 0 => 8,
        flags if flags & CM_RESOURCE_MEMORY_LARGE_48 != 0 => 16,
        flags if flags & CM_RESOURCE_MEMORY_LARGE_64 != 0 => 32,
        _ => 0,
    }
}

/// What a device could use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Requirements {
    /// `INTERFACE_TYPE` of its bus.
    pub interface: u32,
    /// The number of its bus.
    pub bus: u32,
    /// Its slot there.
    pub slot: u32,
    /// Alternative lists, the best first.
    pub lists: Vec<Vec<Wanted>>,
}

impl Requirements {
    /// Reads a list; what stands behind `ListSize` is not looked at.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn read(list: &[u8]) -> Result<Self, String> {
        let word = |at: usize| dword(list, at).ok_or_else(|| "it is shorter than its header".to_owned());
        let (size, lists) = (word(0)? as usize, word(0x1C)?);
        let list = list.get(..size).ok_or_else(|| format!("ListSize {size:#x} is past its end"))?;
        let mut found = Self { interface: word(4)?, bus: word(8)?, slot: word(0xC)?, lists: Vec::new() };
        let mut at = HEADER;
        for number in 0..lists {
            let past = || format!("list {number} of {lists} is not inside ListSize {size:#x}");
            let count = dword(list, at + 4).ok_or_else(past)? as usize;
            at += LIST_HEADER;
            let end =
                count.checked_mul(DESCRIPTOR).and_then(|bytes| bytes.checked_add(at)).ok_or_else(past)?;
            let bytes = list.get(at..end).ok_or_else(past)?;
            found.lists.push(bytes.chunks_exact(DESCRIPTOR).map(wanted).collect());
            at = end;
        }
        Ok(found)
    }

    /// The bytes of the list.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let descriptors: usize = self.lists.iter().map(Vec::len).sum();
        let size = HEADER + self.lists.len() * LIST_HEADER + descriptors * DESCRIPTOR;
        let mut bytes = Vec::with_capacity(size);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // ListSize, InterfaceType, BusNumber, SlotNumber; Reserved; AlternativeLists.
        let head = [number(size), self.interface, self.bus, self.slot, 0, 0, 0, number(self.lists.len())];
        bytes.extend(head.iter().flat_map(|word| word.to_le_bytes()));
        for list in &self.lists {
            // Version 1, Revision 1; Count.
            bytes.extend([0x0001_0001, number(list.len())].iter().flat_map(|word: &u32| word.to_le_bytes()));
            bytes.extend(list.iter().flat_map(Wanted::bytes));
        }
        bytes
    }
}

fn wanted(bytes: &[u8]) -> Wanted {
    let word = |at| dword(bytes, at).unwrap_or(0);
    let long = |at| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    Wanted {
        option: bytes[0],
        kind: bytes[1],
        share: bytes[2],
        flags: u16::from_le_bytes([bytes[4], bytes[5]]),
        length: word(8),
        alignment: word(0xC),
        minimum: long(0x10),
        maximum: long(0x18),
    }
}

/// A word of a list, if it is inside.
pub(super) fn dword(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}
