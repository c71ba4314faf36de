//! What a PCI function could use, and what of it the drivers of its stack have left when they have filtered it.
//!
//! Pages: *IO_RESOURCE_REQUIREMENTS_LIST structure*, *IRP_MN_FILTER_RESOURCE_REQUIREMENTS*, *Using Interrupt Resource Descriptors*. Of several
//! alternative lists the first that can be met counts. Devices that are no cards get theirs from [`super::arbiter`].
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use std::fmt;

use abi::{
    CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE, CM_RESOURCE_INTERRUPT_MESSAGE,
    CM_RESOURCE_INTERRUPT_MESSAGE_TOKEN, CM_RESOURCE_INTERRUPT_POLICY_INCLUDED,
    CmResourceShareDeviceExclusive, CmResourceShareShared, CmResourceTypeBusNumber,
    CmResourceTypeDevicePrivate, CmResourceTypeDma, CmResourceTypeInterrupt, CmResourceTypeMemory,
    CmResourceTypeMemoryLarge, CmResourceTypePort, IO_RESOURCE_PREFERRED, PCIBus,
};

use super::message::Offer;
use super::policy::Policy;
use super::resource::{MESSAGE_FLAGS, PORT_FLAGS, Resource, memory_flags};
use super::supply::{Asked, Supply};
use super::wanted::{Requirements, Wanted, large_shift};
use crate::hal::config;
use crate::hal::hardware::{PciAddress, Window};

/// The requirements of a PCI function: each window where it is (preferred) or anywhere, then its messages or, as an
/// alternative list if it has both, any line.
#[must_use]
pub(crate) fn list(
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
    let lists: Vec<Vec<Wanted>> = match messages {
        None => vec![with_line()],
        Some(offer) if has_line => vec![with_messages(offer), with_line()],
        Some(offer) => vec![with_messages(offer)],
    };
    Requirements { interface: PCIBus, bus: at.bus.into(), slot: config::slot(at), lists }.bytes()
}

/// MSI: one descriptor, whose range of tokens is as long as there are messages. MSI-X: one for each.
fn of_messages(offer: Offer, policy: Option<Policy>) -> Vec<Wanted> {
    let last = CM_RESOURCE_INTERRUPT_MESSAGE_TOKEN;
    let one = |first: u32| interrupt(CmResourceShareDeviceExclusive, MESSAGE_FLAGS, (first, last), policy);
    if offer.each { vec![one(last); offer.count as usize] } else { vec![one(last - (offer.count - 1))] }
}

/// An interrupt with one of these vectors.
fn interrupt(share: u8, flags: u16, (lowest, highest): (u32, u32), policy: Option<Policy>) -> Wanted {
    let plain =
        Wanted { alignment: highest, ..Wanted::number(CmResourceTypeInterrupt, share, flags, lowest) };
    match policy {
        None => plain,
        Some(Policy { affinity, priority, processors }) => Wanted {
            flags: flags | CM_RESOURCE_INTERRUPT_POLICY_INCLUDED,
            minimum: u64::from(affinity) | u64::from(priority) << 32,
            maximum: processors,
            ..plain
        },
    }
}

fn descriptors(resource: &Resource, policy: Option<Policy>) -> Vec<Wanted> {
    match resource {
        Resource::Window(window) => {
            let (kind, flags, last) = match window {
                Window { port: true, .. } => (CmResourceTypePort, PORT_FLAGS, 0xFFFF),
                window if window.base >> 32 != 0 => (CmResourceTypeMemory, memory_flags(window), u64::MAX),
                window => (CmResourceTypeMemory, memory_flags(window), 0xFFFF_FFFF),
            };
            let size = u32::try_from(window.length).unwrap_or(u32::MAX);
            // The alignment is the length.
            let at = |place| Wanted::range(kind, flags, size, size, place);
            let here = at((window.base, window.base + window.length - 1));
            let bar = Wanted::range(CmResourceTypeDevicePrivate, 0, 1, window.bar.into(), (0, 0));
            vec![Wanted { option: IO_RESOURCE_PREFERRED, ..here }, at((0, last)).or(), bar]
        }
        Resource::Interrupt(_) => {
            let flags = CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE;
            vec![interrupt(CmResourceShareShared, flags, (0, u32::MAX), policy)]
        }
        // Messages are asked for by an offer, not by what was given; the others are no card's.
        Resource::Messages(_) | Resource::Plain(_) | Resource::Private(_) => Vec::new(),
    }
}

/// Whether a resource of a card's is what is wanted.
fn is_met_by(wanted: &Wanted, resource: &Resource) -> bool {
    match resource {
        Resource::Window(window) => {
            let kind = if window.port { CmResourceTypePort } else { CmResourceTypeMemory };
            let last = window.base + (window.length - 1);
            wanted.kind == kind
                && u64::from(wanted.length) <= window.length
                && wanted.minimum <= window.base
                && last <= wanted.maximum
        }
        Resource::Interrupt(_) => {
            wanted.kind == CmResourceTypeInterrupt && wanted.flags & CM_RESOURCE_INTERRUPT_MESSAGE == 0
        }
        Resource::Messages(_) | Resource::Plain(_) | Resource::Private(_) => false,
    }
}

/// Why a requirements list cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unusable {
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
pub(crate) fn assign(
    list: &[u8],
    available: &[Resource],
    supply: Option<&Supply>,
) -> Result<Vec<Resource>, Unusable> {
    let mut conflict = None;
    for alternative in Requirements::read(list).map_err(Unusable::Malformed)?.lists {
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
        let group = 1 + wanted[index + 1..].iter().take_while(|w| w.is_alternative()).count();
        let options = &wanted[index..index + group];
        index += group;
        if first.asks_nothing() {
            continue;
        }
        if let (Some(count), Some(supply)) = (first.messages(), &mut supply) {
            match supply.take(Asked { count, policy: first.policy() }) {
                Some(messages) => given.push(Resource::Messages(messages)),
                None if supply.has_given() => {}
                None => return Err(Unusable::Conflict(describe(first))),
            }
            continue;
        }
        let found = options.iter().find_map(|option| left.iter().position(|r| is_met_by(option, r)));
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
    format!("{} cannot be given to the device", wish(wanted))
}

/// What is wanted, in words.
pub(super) fn wish(wanted: &Wanted) -> String {
    let Wanted { kind, flags, length, alignment, minimum, maximum, .. } = wanted;
    match *kind {
        CmResourceTypePort => format!("{length:#x} ports between {minimum:#x} and {maximum:#x}"),
        CmResourceTypeMemory | CmResourceTypeMemoryLarge => {
            let bytes =
                u64::from(*length) << large_shift(if *kind == CmResourceTypeMemory { 0 } else { *flags });
            format!("{bytes:#x} bytes of memory between {minimum:#x} and {maximum:#x}")
        }
        CmResourceTypeInterrupt if flags & CM_RESOURCE_INTERRUPT_MESSAGE != 0 => {
            "message-signaled interrupts (which only a card has, and only if its INF has MSISupported)"
                .to_owned()
        }
        CmResourceTypeInterrupt if length == alignment => format!("interrupt line {length}"),
        CmResourceTypeInterrupt => "an interrupt line".to_owned(),
        CmResourceTypeDma if length == alignment => format!("DMA channel {length}"),
        CmResourceTypeDma => format!("a DMA channel from {length} to {alignment}"),
        CmResourceTypeBusNumber => format!("{length} bus numbers"),
        kind => format!("a resource of type {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pnp::resource::Interrupt;
    use crate::pnp::wanted::{DESCRIPTOR, HEADER, LIST_HEADER, dword};

    const AT: PciAddress = PciAddress { bus: 0, device: 3, function: 1 };

    fn resources() -> Vec<Resource> {
        let window = Window { bar: 2, port: false, base: 0xE000_1000, length: 0x1000, prefetchable: true };
        vec![
            Resource::Window(window),
            Resource::Window(Window { bar: 1, port: true, base: 0xC000, length: 0x80, prefetchable: false }),
            Resource::Interrupt(Interrupt {
                line: 17,
                vector: 0x91,
                irql: 9,
                affinity: 1,
                latched: false,
                shared: true,
            }),
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
        Requirements::read(list).unwrap().lists.into_iter().map(of).collect()
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
        let Resource::Interrupt(line) = &mut available[2] else { panic!("the line") };
        line.affinity = 0b1111;
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
