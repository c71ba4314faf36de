//! What a device could use: the bytes of an `IO_RESOURCE_REQUIREMENTS_LIST`, made for a PCI function, and read back after the
//! drivers of the stack have filtered it.
//!
//! Pages: *IO_RESOURCE_REQUIREMENTS_LIST structure*, *IO_RESOURCE_DESCRIPTOR structure*,
//! *IRP_MN_FILTER_RESOURCE_REQUIREMENTS*, *Using
//! Interrupt Resource Descriptors*. Of several alternative lists the first that can be met counts.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use std::fmt;

use abi::{
    CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE, CM_RESOURCE_INTERRUPT_MESSAGE,
    CM_RESOURCE_INTERRUPT_MESSAGE_TOKEN, CM_RESOURCE_INTERRUPT_POLICY_INCLUDED,
    CmResourceShareDeviceExclusive, CmResourceShareShared, CmResourceTypeDevicePrivate,
    CmResourceTypeInterrupt, CmResourceTypeMemory, CmResourceTypeMemoryLarge, CmResourceTypeNull,
    CmResourceTypePort, IO_RESOURCE_ALTERNATIVE, IO_RESOURCE_PREFERRED, PCIBus,
};

use super::message::Offer;
use super::policy::Policy;
use super::resource::{MESSAGE_FLAGS, PORT_FLAGS, Resource, memory_flags};
use super::supply::{Asked, Supply};
use crate::hal::config;
use crate::hal::hardware::{PciAddress, Window};

/// Bytes before the first `IO_RESOURCE_LIST`.
const HEADER: usize = 0x20;
/// Bytes of an `IO_RESOURCE_LIST` before its descriptors.
const LIST_HEADER: usize = 8;
/// Bytes of an `IO_RESOURCE_DESCRIPTOR`.
const DESCRIPTOR: usize = 0x20;

/// The requirements of a PCI function: each window where it is (preferred) or anywhere, then its messages or, as an
/// alternative list if it has both, any line.
#[must_use]
pub fn list(
    resources: &[Resource],
    at: PciAddress,
    messages: Option<Offer>,
    policy: Option<Policy>,
) -> Vec<u8> {
    let has_line = resources.iter().any(|resource| matches!(resource, Resource::Interrupt(_)));
    let descriptors = |resource| descriptors(resource, policy);
    let with_line = || resources.iter().flat_map(descriptors).collect();
    let with_messages = |offer| {
        let others = resources.iter().filter(|resource| !matches!(resource, Resource::Interrupt(_)));
        others.flat_map(descriptors).chain(of_messages(offer, policy)).collect()
    };
    let lists: Vec<Vec<[u8; DESCRIPTOR]>> = match messages {
        None => vec![with_line()],
        Some(offer) if has_line => vec![with_messages(offer), with_line()],
        Some(offer) => vec![with_messages(offer)],
    };
    let descriptors: usize = lists.iter().map(Vec::len).sum();
    let size = HEADER + lists.len() * LIST_HEADER + descriptors * DESCRIPTOR;
    let mut bytes = Vec::with_capacity(size);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    // ListSize, InterfaceType, BusNumber, SlotNumber; Reserved; AlternativeLists.
    let head = [number(size), PCIBus, at.bus.into(), config::slot(at)];
    for word in head.into_iter().chain([0, 0, 0, number(lists.len())]) {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for list in lists {
        // Version 1, Revision 1; Count.
        bytes.extend([0x0001_0001, number(list.len())].iter().flat_map(|word: &u32| word.to_le_bytes()));
        bytes.extend(list.iter().flatten());
    }
    bytes
}

/// MSI: one descriptor, whose range of tokens is as long as there are messages. MSI-X: one for each.
fn of_messages(offer: Offer, policy: Option<Policy>) -> Vec<[u8; DESCRIPTOR]> {
    let last = CM_RESOURCE_INTERRUPT_MESSAGE_TOKEN;
    let one = |first: u32| interrupt(CmResourceShareDeviceExclusive, MESSAGE_FLAGS, (first, last), policy);
    if offer.each { vec![one(last); offer.count as usize] } else { vec![one(last - (offer.count - 1))] }
}

/// An interrupt with one of these vectors.
fn interrupt(
    share: u8,
    flags: u16,
    (lowest, highest): (u32, u32),
    policy: Option<Policy>,
) -> [u8; DESCRIPTOR] {
    let vectors = u64::from(lowest) | u64::from(highest) << 32;
    let (flags, policy) = match policy {
        None => (flags, [0; 2]),
        Some(Policy { affinity, priority, processors }) => (
            flags | CM_RESOURCE_INTERRUPT_POLICY_INCLUDED,
            [u64::from(affinity) | u64::from(priority) << 32, processors],
        ),
    };
    descriptor(0, CmResourceTypeInterrupt, share, flags, [vectors, policy[0], policy[1]])
}

fn descriptors(resource: &Resource, policy: Option<Policy>) -> Vec<[u8; DESCRIPTOR]> {
    match resource {
        Resource::Window(window) => {
            let (kind, flags, last) = match window {
                Window { port: true, .. } => (CmResourceTypePort, PORT_FLAGS, 0xFFFF),
                window if window.base >> 32 != 0 => (CmResourceTypeMemory, memory_flags(window), u64::MAX),
                window => (CmResourceTypeMemory, memory_flags(window), 0xFFFF_FFFF),
            };
            let share = CmResourceShareDeviceExclusive;
            let size = u64::from(u32::try_from(window.length).unwrap_or(u32::MAX));
            let size = size | size << 32; // length, and an alignment of the same
            let here = [size, window.base, window.base + window.length - 1];
            let private = [1 | u64::from(window.bar) << 32, 0, 0];
            vec![
                descriptor(IO_RESOURCE_PREFERRED, kind, share, flags, here),
                descriptor(IO_RESOURCE_ALTERNATIVE, kind, share, flags, [size, 0, last]),
                descriptor(0, CmResourceTypeDevicePrivate, share, 0, private),
            ]
        }
        Resource::Interrupt(_) => {
            let flags = CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE;
            vec![interrupt(CmResourceShareShared, flags, (0, u32::MAX), policy)]
        }
        // They are asked for by an offer, not by what was given.
        Resource::Messages(_) => Vec::new(),
    }
}

fn descriptor(option: u8, kind: u8, share: u8, flags: u16, u: [u64; 3]) -> [u8; DESCRIPTOR] {
    let mut bytes = [0; DESCRIPTOR];
    (bytes[0], bytes[1], bytes[2]) = (option, kind, share);
    bytes[4..6].copy_from_slice(&flags.to_le_bytes());
    for (to, value) in bytes[8..].chunks_exact_mut(8).zip(u) {
        to.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// A descriptor as a driver may have changed it.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    option: u8,
    kind: u8,
    flags: u16,
    /// Length, or lowest vector.
    length: u32,
    /// Alignment, or highest vector.
    alignment: u32,
    minimum: u64,
    maximum: u64,
}

impl Wanted {
    fn is_met_by(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Window(window) => {
                let kind = if window.port { CmResourceTypePort } else { CmResourceTypeMemory };
                let last = window.base + (window.length - 1);
                self.kind == kind
                    && u64::from(self.length) <= window.length
                    && self.minimum <= window.base
                    && last <= self.maximum
            }
            Resource::Interrupt(_) => {
                self.kind == CmResourceTypeInterrupt && self.flags & CM_RESOURCE_INTERRUPT_MESSAGE == 0
            }
            Resource::Messages(_) => false,
        }
    }

    /// The messages it asks for, if it does.
    fn messages(&self) -> Option<Asked> {
        if self.kind != CmResourceTypeInterrupt || self.flags & CM_RESOURCE_INTERRUPT_MESSAGE == 0 {
            return None;
        }
        Some(Asked {
            count: self.alignment.checked_sub(self.length).map_or(1, |more| more.saturating_add(1)),
            policy: self.policy(),
        })
    }

    /// The policy of an interrupt, if it includes one.
    fn policy(&self) -> Option<Policy> {
        let [a, b, _, _, p, q, r, s] = self.minimum.to_le_bytes();
        (self.flags & CM_RESOURCE_INTERRUPT_POLICY_INCLUDED != 0).then_some(Policy {
            affinity: u16::from_le_bytes([a, b]),
            priority: u32::from_le_bytes([p, q, r, s]),
            processors: self.maximum,
        })
    }

    /// Entries that ask for nothing.
    fn asks_nothing(&self) -> bool {
        self.kind == CmResourceTypeNull || self.kind >= CmResourceTypeDevicePrivate - 1
    }
}

/// Why a requirements list cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// A driver of the stack left a list that cannot be read.
    Malformed(String),
    /// The list can be read, and what it asks for is not there.
    Conflict(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Malformed(why) | Self::Conflict(why)) = self;
        f.write_str(why)
    }
}

/// Gives a device what its (filtered) requirements ask for, out of what the firmware assigned to it and of free messages.
/// Of those it may get fewer than it asks for, but not none.
///
/// # Errors
/// The list is damaged, or asks for what the device does not have.
pub fn assign(
    list: &[u8],
    available: &[Resource],
    supply: Option<&Supply>,
) -> Result<Vec<Resource>, Unusable> {
    let mut conflict = None;
    for alternative in read(list)? {
        match assign_list(&alternative, available, supply.cloned()) {
            Ok(resources) => return Ok(resources),
            Err(why) => conflict = conflict.or(Some(why)),
        }
    }
    Err(conflict.unwrap_or_else(|| Unusable::Malformed("AlternativeLists is 0".to_owned())))
}

fn assign_list(
    wanted: &[Wanted],
    available: &[Resource],
    mut supply: Option<Supply>,
) -> Result<Vec<Resource>, Unusable> {
    let mut left = available.to_vec();
    let mut given = Vec::new();
    let mut index = 0;
    while let Some(first) = wanted.get(index) {
        // A descriptor and the alternatives that follow it ask for one resource.
        let group =
            1 + wanted[index + 1..].iter().take_while(|w| w.option & IO_RESOURCE_ALTERNATIVE != 0).count();
        let options = &wanted[index..index + group];
        index += group;
        if first.asks_nothing() {
            continue;
        }
        if let (Some(asked), Some(supply)) = (first.messages(), &mut supply) {
            match supply.take(asked) {
                Some(messages) => given.push(Resource::Messages(messages)),
                None if supply.has_given() => {}
                None => return Err(Unusable::Conflict(describe(first))),
            }
            continue;
        }
        let found = options.iter().find_map(|option| left.iter().position(|r| option.is_met_by(r)));
        match found {
            Some(at) => {
                let mut resource = left.remove(at);
                if let (Resource::Interrupt(line), Some(policy)) = (&mut resource, first.policy()) {
                    line.affinity = policy.choose(line.affinity, 0);
                }
                given.push(resource);
            }
            None => return Err(Unusable::Conflict(describe(first))),
        }
    }
    Ok(given)
}

fn describe(wanted: &Wanted) -> String {
    let Wanted { kind, flags, length, minimum, maximum, .. } = wanted;
    match *kind {
        CmResourceTypePort => {
            format!("{length:#x} ports between {minimum:#x} and {maximum:#x} cannot be given to the device")
        }
        CmResourceTypeMemory | CmResourceTypeMemoryLarge => {
            format!(
                "{length:#x} bytes of memory between {minimum:#x} and {maximum:#x} cannot be given to the device"
            )
        }
        CmResourceTypeInterrupt if flags & CM_RESOURCE_INTERRUPT_MESSAGE != 0 => {
            "message-signaled interrupts, which the device does not have, or its INF does not allow (MSISupported)"
                .to_owned()
        }
        CmResourceTypeInterrupt => "an interrupt, which the device does not have (any more)".to_owned(),
        kind => format!("a resource of type {kind}, which a PCI device does not have"),
    }
}

fn read(list: &[u8]) -> Result<Vec<Vec<Wanted>>, Unusable> {
    let malformed = |why: String| Unusable::Malformed(why);
    let size = dword(list, 0).ok_or_else(|| malformed("it is shorter than its header".to_owned()))? as usize;
    let lists = dword(list, 0x1C).ok_or_else(|| malformed("it is shorter than its header".to_owned()))?;
    let list = list.get(..size).ok_or_else(|| malformed(format!("ListSize {size:#x} is past its end")))?;
    let mut alternatives = Vec::new();
    let mut at = HEADER;
    for number in 0..lists {
        let past = || malformed(format!("list {number} of {lists} is not inside ListSize {size:#x}"));
        let count = dword(list, at + 4).ok_or_else(past)? as usize;
        at += LIST_HEADER;
        let end = count.checked_mul(DESCRIPTOR).and_then(|bytes| bytes.checked_add(at)).ok_or_else(past)?;
        let bytes = list.get(at..end).ok_or_else(past)?;
        alternatives.push(bytes.chunks_exact(DESCRIPTOR).map(wanted).collect());
        at = end;
    }
    Ok(alternatives)
}

fn wanted(bytes: &[u8]) -> Wanted {
    let qword =
        |at| u64::from(dword(bytes, at).unwrap_or(0)) | u64::from(dword(bytes, at + 4).unwrap_or(0)) << 32;
    Wanted {
        option: bytes[0],
        kind: bytes[1],
        flags: u16::from_le_bytes([bytes[4], bytes[5]]),
        length: dword(bytes, 8).unwrap_or(0),
        alignment: dword(bytes, 0xC).unwrap_or(0),
        minimum: qword(0x10),
        maximum: qword(0x18),
    }
}

fn dword(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pnp::resource::Interrupt;

    const AT: PciAddress = PciAddress { bus: 0, device: 3, function: 1 };

    fn resources() -> Vec<Resource> {
        let window = Window { bar: 2, port: false, base: 0xE000_1000, length: 0x1000, prefetchable: true };
        vec![
            Resource::Window(window),
            Resource::Window(Window { bar: 1, port: true, base: 0xC000, length: 0x80, prefetchable: false }),
            Resource::Interrupt(Interrupt { line: 17, vector: 0x91, irql: 9, affinity: 1 }),
        ]
    }

    #[test]
    fn a_function_asks_for_its_windows_where_they_are_or_anywhere_and_for_any_line() {
        let list = list(&resources(), AT, None, None);
        assert_eq!(list.len(), HEADER + LIST_HEADER + 7 * DESCRIPTOR);
        assert_eq!(dword(&list, 0), u32::try_from(list.len()).ok());
        assert_eq!(dword(&list, 0xC), Some(0x23), "slot 3, function 1");
        #[rustfmt::skip]
        let preferred = [
            1, 3, 1, 0, 4, 0, 0, 0,  0, 0x10, 0, 0,  0, 0x10, 0, 0,
            0, 0x10, 0, 0xE0, 0, 0, 0, 0,  0xFF, 0x1F, 0, 0xE0, 0, 0, 0, 0,
        ];
        assert_eq!(list[0x28..0x48], preferred);
        let last = &list[list.len() - DESCRIPTOR..];
        assert_eq!(last[..16], [0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    }

    /// The interrupt descriptors of a list: flags, lowest and highest vector.
    fn interrupts(list: &[u8]) -> Vec<Vec<(u16, u32, u32)>> {
        let of = |list: Vec<Wanted>| {
            let interrupts = list.into_iter().filter(|wanted| wanted.kind == CmResourceTypeInterrupt);
            interrupts.map(|wanted| (wanted.flags, wanted.length, wanted.alignment)).collect()
        };
        read(list).unwrap().into_iter().map(of).collect()
    }

    /// Holds: interrupts/resource-descriptors
    #[test]
    fn msi_is_one_descriptor_with_tokens_and_msi_x_one_for_each_and_the_line_comes_second() {
        let msi = list(&resources(), AT, Some(Offer { each: false, count: 4 }), None);
        let line = vec![(0, 0, u32::MAX)];
        assert_eq!(interrupts(&msi), [vec![(3, 0xFFFF_FFFB, 0xFFFF_FFFE)], line.clone()]);
        let msix = list(&resources(), AT, Some(Offer { each: true, count: 3 }), None);
        assert_eq!(interrupts(&msix), [vec![(3, 0xFFFF_FFFE, 0xFFFF_FFFE); 3], line]);
        let no_pin = &resources()[..2];
        let alone = list(no_pin, AT, Some(Offer { each: false, count: 1 }), None);
        assert_eq!(interrupts(&alone), [vec![(3, 0xFFFF_FFFE, 0xFFFF_FFFE)]]);
        assert_eq!(assign(&msi, &resources(), None), Ok(resources()), "no messages left: the line");
    }

    #[test]
    fn a_policy_stands_in_the_descriptors_and_chooses_the_processors_of_a_line() {
        let mut available = resources();
        available[2] = Resource::Interrupt(Interrupt { line: 17, vector: 0x91, irql: 9, affinity: 0b1111 });
        let policy = Policy { affinity: abi::IrqPolicySpecifiedProcessors, priority: 3, processors: 0b110 };
        let list = list(&available, AT, None, Some(policy));
        let last = &list[list.len() - DESCRIPTOR..];
        assert_eq!(last[4..6], [0x04, 0], "POLICY_INCLUDED");
        assert_eq!(last[16..], [4, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        let given = assign(&list, &available, None).unwrap();
        assert!(matches!(given[2], Resource::Interrupt(Interrupt { affinity: 0b110, .. })), "{given:?}");
    }

    #[test]
    fn what_nobody_filtered_gives_the_device_all_it_has() {
        assert_eq!(assign(&list(&resources(), AT, None, None), &resources(), None), Ok(resources()));
    }

    #[test]
    fn a_filter_that_takes_the_interrupt_out_leaves_the_device_without() {
        let mut list = list(&resources(), AT, None, None);
        let shorter = list.len() - DESCRIPTOR;
        list.truncate(shorter);
        list[..4].copy_from_slice(&u32::try_from(shorter).unwrap().to_le_bytes());
        list[0x24..0x28].copy_from_slice(&6_u32.to_le_bytes());
        assert_eq!(assign(&list, &resources(), None).unwrap(), resources()[..2]);
    }

    #[test]
    fn a_list_that_asks_for_more_than_the_card_has_is_a_conflict() {
        let mut list = list(&resources(), AT, None, None);
        for at in [0x28 + 8, 0x48 + 8] {
            list[at..at + 4].copy_from_slice(&0x2000_u32.to_le_bytes());
        }
        let Err(Unusable::Conflict(why)) = assign(&list, &resources(), None) else { panic!("must conflict") };
        assert!(why.contains("0x2000 bytes of memory"), "{why}");
    }

    #[test]
    fn a_list_whose_counts_lie_is_malformed_and_never_read_past_its_end() {
        let good = list(&resources(), AT, None, None);
        for (at, value) in [(0, 0xFFFF), (0, 3), (0x1C, 2), (0x1C, 0), (0x24, 1000), (0x24, u32::MAX)] {
            let mut list = good.clone();
            list[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let result = assign(&list, &resources(), None);
            assert!(matches!(result, Err(Unusable::Malformed(_))), "{at:#x} = {value:#x}: {result:?}");
        }
        for length in 0..good.len() {
            assert!(assign(&good[..length], &resources(), None).is_err());
        }
    }
}
