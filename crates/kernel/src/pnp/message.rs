//! The messages of a PCI function, from its configuration space to a connected routine: what it can send, what its INF
//! allows, and the programming that the bus driver does.
//!
//! Pages: *Enabling Message-Signaled Interrupts in the Registry*, *Introduction to Message-Signaled Interrupts*; PCI Local Bus
//! Specification 3.0, 6.8. A function is programmed when it is started; its messages stay masked, where it has masks,
//! until a driver connects. Which table entry brings which message is not for drivers to change
//! (`GUID_MSIX_TABLE_CONFIG_INTERFACE` is not offered).

use abi::{DEVICE_OBJECT, DriverPtr, PCI_CAPABILITY_ID_MSI, PCI_CAPABILITY_ID_MSIX};

use super::capabilities::find;
use super::install;
use super::node::{Node, NodeId};
use super::resource::{Messages, Resource};
use crate::cm::access;
use crate::cx::{Cx, Kernel};
use crate::hal::hardware::{Hardware, PciAddress, Width};
use crate::ke::history;
use crate::ke::vectors::irql_of_vector;

/// Below a device's hardware key.
const PROPERTIES: &str = r"Interrupt Management\MessageSignaledInterruptProperties";
/// The most that is asked for a function with MSI.
const MOST_MSI: u32 = 16;
/// Message Control, from the start of either capability.
const CONTROL: u8 = 2;
/// Its bits, of MSI.
const MSI_ENABLE: u32 = 1;
const MSI_WIDE: u32 = 1 << 7;
const MSI_MASKING: u32 = 1 << 8;
/// Its bits, of MSI-X.
const MSIX_ENABLE: u32 = 1 << 15;
/// Bytes of an entry of the MSI-X table.
const ENTRY: u64 = 16;

/// One message that a device was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Counted from 0: `MessageId`.
    pub number: u32,
    /// Translated vector.
    pub vector: u32,
    /// Translated level: the IRQL.
    pub irql: u8,
    /// The processors it is delivered to.
    pub affinity: u64,
}

impl Message {
    /// Where the function writes: to the processors, by a logical destination, the one with the lowest priority.
    #[must_use]
    pub const fn address(&self) -> u64 {
        0xFEE0_000C | (self.affinity & 0xFF) << 12
    }

    /// What it writes: the vector, edge triggered, delivery mode 1.
    #[must_use]
    pub const fn data(&self) -> u32 {
        self.vector | 1 << 8
    }
}

/// How many messages a function is to be asked for, and how they are spoken of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    /// MSI-X: each message for itself. Else MSI: all in one.
    pub each: bool,
    /// How many: the function has so many, and its INF allows it so many.
    pub count: u32,
}

/// What configuration space says.
#[derive(Clone, Copy)]
enum Capability {
    Msi { at: u8, count: u32, wide: bool, maskable: bool },
    MsiX { at: u8, count: u32, bar: u8, offset: u32 },
}

impl Capability {
    /// MSI-X before MSI, if a function has both.
    fn of(hardware: &mut dyn Hardware, at: PciAddress) -> Option<Self> {
        if let Some(place) = find(hardware, at, PCI_CAPABILITY_ID_MSIX) {
            let control = hardware.config_read(at, (place + CONTROL).into(), Width::Word);
            let table = hardware.config_read(at, (place + 4).into(), Width::Dword);
            let [low, ..] = table.to_le_bytes();
            return Some(Self::MsiX {
                at: place,
                count: (control & 0x7FF) + 1,
                bar: low & 7,
                offset: table & !7,
            });
        }
        let place = find(hardware, at, PCI_CAPABILITY_ID_MSI)?;
        let control = hardware.config_read(at, (place + CONTROL).into(), Width::Word);
        let (wide, maskable) = (control & MSI_WIDE != 0, control & MSI_MASKING != 0);
        Some(Self::Msi { at: place, count: 1 << (control >> 1 & 7).min(5), wide, maskable })
    }
}

/// The messages that a device may be given: what its function can send, as far as its INF has set `MSISupported`.
pub(super) fn offer(cx: &mut Cx<'_>, id: NodeId) -> Option<Offer> {
    let key = cx.with(|k| {
        let node = k.pnp.node(id);
        node.card().map(|_| format!(r"{}\{PROPERTIES}", install::hardware_key(node)))
    })?;
    if access::number(cx, &key, "MSISupported") != Some(1) {
        return None;
    }
    let limit = access::number(cx, &key, "MessageNumberLimit").filter(|limit| *limit > 0).unwrap_or(u32::MAX);
    let capability = cx.with(|k| {
        let at = k.pnp.card(id).function.address;
        Capability::of(k.hal.hardware.as_mut(), at)
    });
    Some(match capability? {
        Capability::MsiX { count, .. } => Offer { each: true, count: count.min(limit) },
        Capability::Msi { count, .. } => {
            Offer { each: false, count: power_of_two_within(count.min(MOST_MSI).min(limit)) }
        }
    })
}

/// The greatest power of two that is no more than `count`, which is not 0.
pub(super) const fn power_of_two_within(count: u32) -> u32 {
    1 << count.ilog2()
}

impl Node {
    /// The messages it was started with, by number.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message> {
        let given = self.resources.iter().filter_map(|resource| match resource {
            Resource::Messages(messages) => Some(*messages),
            _ => None,
        });
        given.flat_map(|Messages { first, count, vector, affinity }| {
            (0..count).map(move |n| {
                let vector = vector + n;
                Message { number: first + n, vector, irql: irql_of_vector(vector), affinity }
            })
        })
    }
}

/// The messages that a device was started with, by its physical device object.
#[must_use]
pub fn messages_of(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Vec<Message> {
    k.pnp.nodes.get(&NodeId(device.address)).map_or_else(Vec::new, |node| node.messages().collect())
}

/// Writes addresses and data to a function that was given messages, and turns them on, masked where it has masks.
pub(super) fn program(k: &mut Kernel, id: NodeId) {
    let node = k.pnp.node(id);
    let (at, messages) = (k.pnp.card(id).function.address, node.messages().collect::<Vec<_>>());
    let Some(first) = messages.first() else { return };
    match Capability::of(k.hal.hardware.as_mut(), at) {
        Some(Capability::Msi { at: place, wide, maskable, .. }) => {
            let hardware = k.hal.hardware.as_mut();
            let [low, high] = halves(first.address());
            hardware.config_write(at, (place + 4).into(), Width::Dword, low);
            if wide {
                hardware.config_write(at, (place + 8).into(), Width::Dword, high);
            }
            let behind = place + if wide { 0xC } else { 8 };
            hardware.config_write(at, behind.into(), Width::Word, first.data());
            if maskable {
                hardware.config_write(at, (behind + 4).into(), Width::Dword, u32::MAX);
            }
            let count = u32::try_from(messages.len()).unwrap_or(1).max(1);
            hardware.config_write(at, (place + CONTROL).into(), Width::Word, MSI_ENABLE | count.ilog2() << 4);
        }
        Some(Capability::MsiX { at: place, bar, offset, .. }) => {
            for message in &messages {
                let [low, high] = halves(message.address());
                let entry = [low, high, message.data(), 1];
                for (dword, value) in (0..).zip(entry) {
                    write_entry(k, id, (bar, offset), message.number, dword, value);
                }
            }
            k.hal.hardware.config_write(at, (place + CONTROL).into(), Width::Word, MSIX_ENABLE);
        }
        None => {}
    }
}

/// Turns a function's messages off.
pub(super) fn silence(k: &mut Kernel, id: NodeId) {
    let at = k.pnp.card(id).function.address;
    match Capability::of(k.configuration(), at) {
        Some(Capability::Msi { at: place, .. } | Capability::MsiX { at: place, .. }) => {
            k.hal.hardware.config_write(at, (place + CONTROL).into(), Width::Word, 0);
        }
        None => {}
    }
}

/// Masks the message with this vector at its function, or lets it through, if it can be masked there.
pub(crate) fn set_masked(k: &mut Kernel, vector: u32, masked: bool) {
    let owner = k.pnp.nodes.iter().find_map(|(id, node)| {
        let message = node.messages().find(|message| message.vector == vector)?;
        Some((*id, node.card()?.function.address, message.number))
    });
    let Some((id, at, number)) = owner else { return };
    match Capability::of(k.hal.hardware.as_mut(), at) {
        Some(Capability::Msi { at: place, wide, maskable: true, .. }) => {
            let mask = place + if wide { 0x10 } else { 0xC };
            let old = k.hal.hardware.config_read(at, mask.into(), Width::Dword) & !(1 << number);
            let new = old | u32::from(masked) << number;
            k.hal.hardware.config_write(at, mask.into(), Width::Dword, new);
        }
        Some(Capability::MsiX { bar, offset, .. }) => {
            write_entry(k, id, (bar, offset), number, 3, masked.into());
        }
        _ => {}
    }
}

/// Writes a DWORD of an entry of the MSI-X table.
fn write_entry(k: &mut Kernel, id: NodeId, table: (u8, u32), number: u32, dword: u64, value: u32) {
    let (bar, offset) = table;
    let windows = &k.pnp.card(id).function.windows;
    let Some(window) = windows.iter().find(|window| window.bar == bar) else { return };
    let address = window.base + u64::from(offset) + u64::from(number) * ENTRY + dword * 4;
    history::reads_clock(k);
    let now = k.engine.now();
    let written =
        k.hardware(now, |hardware, at| hardware.memory_write(at, address, Width::Dword, value.into()));
    debug_assert!(written.is_ok(), "an MSI-X table takes aligned DWORDs");
}

fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
