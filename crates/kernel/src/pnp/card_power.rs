//! The power of a card, as the bus driver gives and takes it: what it keeps of the card's configuration space, and what it puts back.
//!
//! Pages: *Device Power States* ("D3: … the device's context is lost"), *Enabling Transitions to D3cold* (a sleeping system has no power for its
//! cards), *Handling IRP_MN_SET_POWER for Device Power States* (the bus driver changes the device's power). PCI Bus Power
//! Management Interface Specification 1.2, 5.4 and 8.3.3: the operating system restores base addresses, decoding, bus mastering and the interrupt line; what
//! else the card held is its driver's to restore. Of a PCI Express function it puts back what the capabilities of that standard hold, too: the control registers of device
//! and link, and of advanced error reporting masks and severity. When it starts a device it leaves them as firmware has set them. Microsoft's pages say of both nothing.
//!
//! A card with the power management capability goes where its PMCSR says. One without has no state between working and off: in D3 its slot has
//! no power (`D3: … power is typically removed`), so that no driver can depend on what such a card happens to keep. In D1 and D2 it does what it
//! does in D0. *It does not* model slots that share one supply.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    PCI_CAPABILITY_ID_PCI_EXPRESS, PCI_CAPABILITY_ID_POWER_MANAGEMENT, PowerDeviceD0, PowerDeviceD1,
    PowerDeviceD2, PowerDeviceD3,
};

use super::node::{NodeId, State};
use super::{bus, capabilities, message, remove_check, resource, wake};
use crate::cx::Kernel;
use crate::hal::hardware::{Hardware, PciAddress, Width};
use crate::hal::stale::Why;
use crate::ke::interrupt;

/// The command register.
const COMMAND: u16 = 4;
/// What software writes besides: cache line size and latency timer, base addresses, the ROM's, the interrupt line.
const REGISTERS: [u16; 9] = [0xC, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x30, 0x3C];
/// PMCSR, from the start of the capability; its bits.
pub(super) const PMCSR: u8 = 4;
pub(super) const PME_ENABLE: u32 = 1 << 8;

/// What software writes of the PCI Express capability, from its start: control of device and link, and in its second version the second ones.
const EXPRESS: [u8; 4] = [0x08, 0x10, 0x28, 0x30];
/// Of advanced error reporting: masks, severity, and what is done about ECRC.
const ERRORS: [u16; 4] = [0x08, 0x0C, 0x14, 0x18];
/// The number of that extended capability.
const ERRORS_ID: u16 = 1;

/// What the bus driver keeps of a card that is not in D0.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    registers: [u32; REGISTERS.len()],
    /// Registers of its capabilities, by their offsets.
    express: Vec<(u16, Width, u32)>,
    command: u32,
    /// The system sleeps, and the device was not sent to a lower state before.
    by_system: bool,
}

/// A card goes to a device state below D0 (`PowerDevice*`).
pub(super) fn lower(k: &mut Kernel, id: NodeId, state: u32) {
    let at = k.pnp.card(id).function.address;
    let capability = capabilities::find(k.configuration(), at, PCI_CAPABILITY_ID_POWER_MANAGEMENT);
    if capability.is_none() && state != PowerDeviceD3 {
        return;
    }
    if k.pnp.card(id).kept.is_none() {
        keep(k, id, false);
        bus::decode(k, id, false);
        remove_check::release_windows(k, id, Why::NoPower(name(state)));
    }
    match capability {
        Some(place) => set_state(k.hal.hardware.as_mut(), at, place, state - PowerDeviceD0),
        None => k.hal.hardware.set_powered(at, false),
    }
}

/// A card goes to D0: what the bus driver has kept is put back. Nothing happens to one that is there.
pub(super) fn raise(k: &mut Kernel, id: NodeId) {
    let Some(kept) = k.pnp.card_mut(id).kept.take() else { return };
    let at = k.pnp.card(id).function.address;
    let hardware = k.hal.hardware.as_mut();
    match capabilities::find(hardware, at, PCI_CAPABILITY_ID_POWER_MANAGEMENT) {
        Some(place) => set_state(hardware, at, place, 0),
        None => hardware.set_powered(at, true),
    }
    put_back(k, id, &kept);
}

/// The cards that have no power while the system sleeps: all but those whose drivers could not ask for them to be powered down. These go on as if it worked.
fn without_power(k: &Kernel) -> Vec<NodeId> {
    let mut all = cards(k);
    all.retain(|id| !k.po.refused.contains(&id.0));
    all
}

/// The system has gone to sleep: no slot has power.
pub(crate) fn system_sleeps(k: &mut Kernel) {
    for id in without_power(k) {
        if k.pnp.card(id).kept.is_none() {
            keep(k, id, true);
            remove_check::release_windows(k, id, Why::NoPower("without power, as the system sleeps"));
        }
        let at = k.pnp.card(id).function.address;
        k.configuration().set_powered(at, false);
    }
}

/// The system wakes: slots have power again, and the cards that their drivers had not sent to a lower state are where they were.
pub(crate) fn system_wakes(k: &mut Kernel) {
    for id in without_power(k) {
        let at = k.pnp.card(id).function.address;
        let hardware = k.hal.hardware.as_mut();
        hardware.set_powered(at, true);
        let Some(kept) = k.pnp.card(id).kept.clone() else { continue };
        if kept.by_system {
            k.pnp.card_mut(id).kept = None;
            put_back(k, id, &kept);
        } else if capabilities::find(hardware, at, PCI_CAPABILITY_ID_POWER_MANAGEMENT).is_none() {
            hardware.set_powered(at, false);
        }
    }
}

/// A state below D0, for people.
const fn name(state: u32) -> &'static str {
    match state {
        PowerDeviceD1 => "in D1",
        PowerDeviceD2 => "in D2",
        _ => "in D3",
    }
}

/// The cards on the bus.
pub(super) fn cards(k: &Kernel) -> Vec<NodeId> {
    let there = k.pnp.nodes.iter().filter(|(_, node)| node.state != State::Deleted && node.card().is_some());
    there.map(|(id, _)| *id).collect()
}

fn keep(k: &mut Kernel, id: NodeId, by_system: bool) {
    let at = k.pnp.card(id).function.address;
    let hardware = k.configuration();
    let registers = REGISTERS.map(|register| hardware.config_read(at, register, Width::Dword));
    let command = hardware.config_read(at, COMMAND, Width::Word);
    let express = express(hardware, at);
    k.pnp.card_mut(id).kept = Some(Kept { registers, express, command, by_system });
}

/// What a PCI Express function's capabilities hold that software has written.
fn express(hardware: &mut dyn Hardware, at: PciAddress) -> Vec<(u16, Width, u32)> {
    let mut places = Vec::new();
    if let Some(place) = capabilities::find(hardware, at, PCI_CAPABILITY_ID_PCI_EXPRESS) {
        let version = hardware.config_read(at, (place + 2).into(), Width::Word) & 0xF;
        let count = if version >= 2 { EXPRESS.len() } else { EXPRESS.len() / 2 };
        places.extend(EXPRESS[..count].iter().map(|offset| (u16::from(place + offset), Width::Word)));
    }
    if let Some(place) = capabilities::find_extended(hardware, at, ERRORS_ID) {
        places.extend(ERRORS.map(|offset| (place + offset, Width::Dword)));
    }
    places
        .into_iter()
        .map(|(offset, width)| (offset, width, hardware.config_read(at, offset, width)))
        .collect()
}

fn put_back(k: &mut Kernel, id: NodeId, kept: &Kept) {
    let at = k.pnp.card(id).function.address;
    for (register, value) in REGISTERS.into_iter().zip(kept.registers) {
        k.hal.hardware.config_write(at, register, Width::Dword, value);
    }
    for &(register, width, value) in &kept.express {
        k.hal.hardware.config_write(at, register, width, value);
    }
    k.hal.hardware.config_write(at, COMMAND, Width::Word, kept.command);
    message::program(k, id);
    let connected: Vec<u32> = {
        let messages = k.pnp.node(id).messages().map(|message| message.vector);
        messages.filter(|vector| interrupt::is_active(k, *vector)).collect()
    };
    for vector in connected {
        message::set_masked(k, vector, false);
    }
    if !k.pnp.card(id).waiting.is_null() {
        wake::set_enabled(k, id, true);
    }
    let node = k.pnp.node(id);
    let (device, windows) = (node.name.clone(), resource::windows(&node.resources));
    k.hal.stale.assign(&device, &windows);
}

/// The state in PMCSR; PME_En stays, and PME_Status, which a 1 would clear.
fn set_state(hardware: &mut dyn Hardware, at: PciAddress, place: u8, state: u32) {
    let register = (place + PMCSR).into();
    let enable = hardware.config_read(at, register, Width::Word) & PME_ENABLE;
    hardware.config_write(at, register, Width::Word, enable | state);
}
