//! What a device was given, as plain values and as the bytes of a `CM_RESOURCE_LIST`, raw or translated.
//!
//! Pages: *Hardware Resources*, *Raw and Translated Resources*, *Using Interrupt Resource Descriptors*, *CM_PARTIAL_RESOURCE_DESCRIPTOR structure*. As on Windows, a
//! window is followed by an entry that is private to the PCI driver and says which base address register it came from.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use std::collections::BTreeSet;

use abi::{
    CM_RESOURCE_INTERRUPT_LATCHED, CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE, CM_RESOURCE_INTERRUPT_MESSAGE,
    CM_RESOURCE_MEMORY_PREFETCHABLE, CM_RESOURCE_MEMORY_READ_WRITE, CM_RESOURCE_PORT_16_BIT_DECODE,
    CM_RESOURCE_PORT_IO, CM_RESOURCE_PORT_POSITIVE_DECODE, CmResourceShareDeviceExclusive,
    CmResourceShareShared, CmResourceTypeBusNumber, CmResourceTypeDevicePrivate, CmResourceTypeDma,
    CmResourceTypeInterrupt, CmResourceTypeMemory, CmResourceTypeMemoryLarge, CmResourceTypePort,
};

use super::arbiter::Range;
use super::wanted::large_shift;
use crate::cx::Kernel;
use crate::hal::hardware::{Function, Window};
use crate::hal::platform::Platform;
use crate::ke::vectors::irql_of_vector;

/// A line interrupt as it is routed and as a driver connects to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// The line: raw level and raw vector.
    pub line: u32,
    /// Translated vector.
    pub vector: u32,
    /// Translated level: the IRQL.
    pub irql: u8,
    /// The processors it is delivered to.
    pub affinity: u64,
    /// Edge-triggered.
    pub latched: bool,
    /// Other devices may have the line, too.
    pub shared: bool,
}

/// A resource of a device that is no card: ports, memory, a DMA channel or bus numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plain {
    /// `CmResourceType*`.
    pub kind: u8,
    /// `CmResourceShare*`.
    pub share: u8,
    /// `CM_RESOURCE_*`.
    pub flags: u16,
    /// The first port, byte, channel or bus.
    pub start: u64,
    /// How many: of memory, in bytes.
    pub length: u64,
}

/// Messages that one descriptor speaks of: all of a function with MSI, or one of a function with MSI-X.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Messages {
    /// The number of the first among all of the device's.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The vector of the first; those of the others follow.
    pub vector: u32,
    /// The processors they are delivered to.
    pub affinity: u64,
}

/// One resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    /// A window of a base address register.
    Window(Window),
    /// The line interrupt.
    Interrupt(Interrupt),
    /// Message-signaled interrupts.
    Messages(Messages),
    /// What a device that is no card was given.
    Plain(Plain),
    /// What a driver has put into the requirements for itself: `CmResourceTypeDevicePrivate`.
    Private([u32; 3]),
}

/// The windows that devices have been given.
pub(crate) fn given_windows(k: &Kernel) -> impl Iterator<Item = &Window> {
    let all = k.pnp.nodes.values().flat_map(|node| &node.resources);
    all.filter_map(|resource| if let Resource::Window(window) = resource { Some(window) } else { None })
}

/// How many bytes the windows of cards have.
#[must_use]
pub fn window_lengths(k: &Kernel) -> BTreeSet<u64> {
    given_windows(k).map(|window| window.length).collect()
}

/// Whether a device, of a card or on no bus, has been given this port.
pub(crate) fn has_port(k: &Kernel, port: u16) -> bool {
    let mut all = k.pnp.nodes.values().flat_map(|node| &node.resources).filter_map(range);
    all.any(|range| {
        range.kind == CmResourceTypePort && u64::from(port).wrapping_sub(range.start) < range.length
    })
}

/// Where a window lies.
pub(super) fn of_window(window: &Window) -> Range {
    let kind = if window.port { CmResourceTypePort } else { CmResourceTypeMemory };
    Range::exclusive(kind, window.base, window.length)
}

/// Where a resource lies; messages lie nowhere.
pub(super) fn range(resource: &Resource) -> Option<Range> {
    match *resource {
        Resource::Window(window) => Some(of_window(&window)),
        Resource::Interrupt(Interrupt { line, shared, latched, .. }) => {
            Some(Range { shared, latched, ..Range::exclusive(CmResourceTypeInterrupt, line.into(), 1) })
        }
        Resource::Plain(Plain { kind, share, start, length, .. }) => {
            let kind = if kind == CmResourceTypeMemoryLarge { CmResourceTypeMemory } else { kind };
            Some(Range { shared: share == CmResourceShareShared, ..Range::exclusive(kind, start, length) })
        }
        Resource::Messages(_) | Resource::Private(_) => None,
    }
}

/// What the firmware gave a function, in the order of its base address registers, the interrupt last. Windows that have no
/// base are left out.
#[must_use]
pub(crate) fn of_function(function: &Function, interrupt: Option<Interrupt>) -> Vec<Resource> {
    let windows = function.windows.iter().filter(|window| window.base != 0).copied().map(Resource::Window);
    windows.chain(interrupt.map(Resource::Interrupt)).collect()
}

/// The windows among some resources.
pub(crate) fn windows(resources: &[Resource]) -> Vec<Window> {
    let window = |resource: &Resource| match resource {
        Resource::Window(window) => Some(*window),
        _ => None,
    };
    resources.iter().filter_map(window).collect()
}

/// How a list speaks of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Bus addresses, lines.
    Raw,
    /// System addresses as this platform has them, vectors.
    Translated(Platform),
}

/// `CM_RESOURCE_PORT_*` of a PCI device's ports.
pub(crate) const PORT_FLAGS: u16 =
    CM_RESOURCE_PORT_IO | CM_RESOURCE_PORT_16_BIT_DECODE | CM_RESOURCE_PORT_POSITIVE_DECODE;

/// `CM_RESOURCE_INTERRUPT_*` of a message.
pub(crate) const MESSAGE_FLAGS: u16 = CM_RESOURCE_INTERRUPT_LATCHED | CM_RESOURCE_INTERRUPT_MESSAGE;

/// `CM_RESOURCE_MEMORY_*` of a window.
pub(crate) const fn memory_flags(window: &Window) -> u16 {
    CM_RESOURCE_MEMORY_READ_WRITE | if window.prefetchable { CM_RESOURCE_MEMORY_PREFETCHABLE } else { 0 }
}

/// The bytes of a `CM_RESOURCE_LIST` with one full descriptor, on a bus: its `INTERFACE_TYPE` and its number.
#[must_use]
pub(crate) fn list(resources: &[Resource], (interface, bus): (u32, u32), form: Form) -> Vec<u8> {
    let descriptors: Vec<[u8; 0x14]> = resources.iter().flat_map(|r| descriptors(r, form)).collect();
    let mut bytes = Vec::with_capacity(0x14 * (descriptors.len() + 1));
    let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
    // Count; InterfaceType, BusNumber; Version 1, Revision 1, Count.
    for word in [1, interface, bus, 0x0001_0001, count] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(descriptors.as_flattened());
    bytes
}

fn descriptors(resource: &Resource, form: Form) -> Vec<[u8; 0x14]> {
    match resource {
        Resource::Window(window) => {
            let (kind, flags) = match window.port {
                true => (CmResourceTypePort, PORT_FLAGS),
                false => (CmResourceTypeMemory, memory_flags(window)),
            };
            let length = u32::try_from(window.length).unwrap_or(u32::MAX);
            let base = match form {
                Form::Translated(platform) if !window.port => platform.to_system(window.base),
                _ => window.base,
            };
            let own = descriptor(kind, CmResourceShareDeviceExclusive, flags, [base, length.into()]);
            vec![own, private(window.bar)]
        }
        Resource::Interrupt(interrupt) => {
            let Interrupt { line, vector, irql, affinity, latched, shared } = *interrupt;
            // Level and group in the first four bytes, vector in the next, then the affinity.
            let (level, vector, affinity) = match form {
                Form::Raw => (line, line, u64::MAX),
                Form::Translated(_) => (irql.into(), vector, affinity),
            };
            let first = u64::from(level) | u64::from(vector) << 32;
            let flags =
                if latched { CM_RESOURCE_INTERRUPT_LATCHED } else { CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE };
            let share = if shared { CmResourceShareShared } else { CmResourceShareDeviceExclusive };
            vec![descriptor(CmResourceTypeInterrupt, share, flags, [first, affinity])]
        }
        Resource::Messages(messages) => {
            let Messages { first: _, count, vector, affinity } = *messages;
            // Raw: group, message count, vector. Translated: level, group, vector.
            let head = match form {
                Form::Raw => u64::from(count) << 16,
                Form::Translated(_) => irql_of_vector(vector).into(),
            };
            let u = [head | u64::from(vector) << 32, affinity];
            vec![descriptor(CmResourceTypeInterrupt, CmResourceShareDeviceExclusive, MESSAGE_FLAGS, u)]
        }
        Resource::Plain(plain) => vec![of_plain(plain, form)],
        Resource::Private([a, b, c]) => {
            let u = [u64::from(*a) | u64::from(*b) << 32, u64::from(*c)];
            vec![descriptor(CmResourceTypeDevicePrivate, CmResourceShareDeviceExclusive, 0, u)]
        }
    }
}

fn of_plain(plain: &Plain, form: Form) -> [u8; 0x14] {
    let Plain { kind, share, flags, start, length } = *plain;
    let u = match kind {
        CmResourceTypeDma => [start, 0], // the channel, and no port
        CmResourceTypeBusNumber => [start | length << 32, 0],
        _ => {
            let is_memory = kind != CmResourceTypePort;
            let start = match form {
                Form::Translated(platform) if is_memory => platform.to_system(start),
                _ => start,
            };
            let shift = if kind == CmResourceTypeMemoryLarge { large_shift(flags) } else { 0 };
            [start, length >> shift]
        }
    };
    descriptor(kind, share, flags, u)
}

/// The PCI driver's own entry behind a window: `Data` is 1, the base address register, 0.
fn private(bar: u8) -> [u8; 0x14] {
    let share = CmResourceShareDeviceExclusive;
    descriptor(CmResourceTypeDevicePrivate, share, 0, [1 | u64::from(bar) << 32, 0])
}

fn descriptor(kind: u8, share: u8, flags: u16, u: [u64; 2]) -> [u8; 0x14] {
    let mut bytes = [0; 0x14];
    bytes[0] = kind;
    bytes[1] = share;
    bytes[2..4].copy_from_slice(&flags.to_le_bytes());
    bytes[4..12].copy_from_slice(&u[0].to_le_bytes());
    bytes[12..].copy_from_slice(&u[1].to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_pc() -> Form {
        Form::Translated(Platform::default())
    }

    fn resources() -> Vec<Resource> {
        vec![
            Resource::Window(Window {
                bar: 0,
                port: false,
                base: 0xE000_0000,
                length: 0x80,
                prefetchable: false,
            }),
            Resource::Window(Window { bar: 1, port: true, base: 0xC000, length: 0x80, prefetchable: false }),
            Resource::Interrupt(Interrupt {
                line: 17,
                vector: 0x91,
                irql: 9,
                affinity: 3,
                latched: false,
                shared: true,
            }),
        ]
    }

    #[test]
    fn a_raw_list_has_bus_addresses_and_the_line_byte_for_byte() {
        #[rustfmt::skip]
        let expected = [
            1, 0, 0, 0,  5, 0, 0, 0,  0, 0, 0, 0,  1, 0, 1, 0,  5, 0, 0, 0,
            3, 1, 0, 0,     0, 0, 0, 0xE0,  0, 0, 0, 0,   0x80, 0, 0, 0,  0, 0, 0, 0,
            0x81, 1, 0, 0,  1, 0, 0, 0,     0, 0, 0, 0,   0, 0, 0, 0,     0, 0, 0, 0,
            1, 1, 0x31, 0,  0, 0xC0, 0, 0,  0, 0, 0, 0,   0x80, 0, 0, 0,  0, 0, 0, 0,
            0x81, 1, 0, 0,  1, 0, 0, 0,     1, 0, 0, 0,   0, 0, 0, 0,     0, 0, 0, 0,
            2, 3, 0, 0,     17, 0, 0, 0,    17, 0, 0, 0,  0xFF, 0xFF, 0xFF, 0xFF,  0xFF, 0xFF, 0xFF, 0xFF,
        ];
        assert_eq!(list(&resources(), (abi::PCIBus, 0), Form::Raw), expected);
    }

    #[test]
    fn messages_of_one_descriptor_have_their_count_in_the_raw_list_and_their_level_in_the_other() {
        let given = [Resource::Messages(Messages { first: 0, count: 4, vector: 0x48, affinity: 3 })];
        let (raw, translated) =
            (list(&given, (abi::PCIBus, 0), Form::Raw), list(&given, (abi::PCIBus, 0), of_pc()));
        assert_eq!(raw[20..], [2, 1, 3, 0, 0, 0, 4, 0, 0x48, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(translated[20..], [2, 1, 3, 0, 4, 0, 0, 0, 0x48, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_translated_list_differs_in_the_interrupt_only() {
        let (raw, translated) =
            (list(&resources(), (abi::PCIBus, 0), Form::Raw), list(&resources(), (abi::PCIBus, 0), of_pc()));
        let interrupt = raw.len() - 0x14;
        assert_eq!(raw[..interrupt], translated[..interrupt]);
        assert_eq!(
            translated[interrupt..],
            [2, 3, 0, 0, 9, 0, 0, 0, 0x91, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
            "level is the IRQL, then the vector, then the processors"
        );
    }
}
