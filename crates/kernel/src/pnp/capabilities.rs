//! What a PCI function can do: a `DEVICE_CAPABILITIES` from its configuration space.
//!
//! Pages: *DEVICE_CAPABILITIES structure*, *IRP_MN_QUERY_CAPABILITIES* ("a driver should add capabilities before it passes the IRP to the
//! next lower driver"); PCI Bus Power Management Interface Specification,
//! 3.2.3. PME# wakes the system from S1 and S2, and from S3 where the function raises it with auxiliary power.

use abi::{
    DEVICE_CAPABILITIES, PCI_CAPABILITY_ID_POWER_MANAGEMENT, PCI_STATUS_CAPABILITIES_LIST, PowerDeviceD0,
    PowerDeviceD1, PowerDeviceD2, PowerDeviceD3, PowerDeviceUnspecified, PowerSystemSleeping2,
    PowerSystemSleeping3, PowerSystemUnspecified,
};

use super::identity::Identity;
use crate::hal::config;
use crate::hal::hardware::{Hardware, PciAddress, Width};

/// The capabilities' size; drivers ask with it.
pub(crate) const SIZE: u16 = 0x40;

/// The bits of some capabilities, as `DEVICE_CAPABILITIES` declares them; 0 if a device has answered none.
pub(crate) fn flags(capabilities: &[u8]) -> u32 {
    capabilities.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The offset of the capability `id`, if the function has it.
pub(crate) fn find(hardware: &mut dyn Hardware, at: PciAddress, id: u8) -> Option<u8> {
    let status = hardware.config_read(at, 6, Width::Word);
    if status & u32::from(PCI_STATUS_CAPABILITIES_LIST) == 0 || status == 0xFFFF {
        return None;
    }
    let mut byte = |offset: u8| hardware.config_read(at, offset.into(), Width::Byte).to_le_bytes()[0];
    let mut next = byte(0x34) & 0xFC;
    // Bounded, for a list that runs in a circle.
    for _ in 0..48 {
        if next < 0x40 {
            return None;
        }
        if byte(next) == id {
            return Some(next);
        }
        next = byte(next + 1) & 0xFC;
    }
    None
}

/// The offset of the extended capability `id`, if the function has it. PCI Express Base Specification, 7.6.3.
pub(crate) fn find_extended(hardware: &mut dyn Hardware, at: PciAddress, id: u16) -> Option<u16> {
    const FIRST: u16 = 0x100;
    let mut place = FIRST;
    if !hardware.is_extended(at) {
        return None;
    }
    // Bounded, for a list that runs in a circle.
    for _ in 0..256 {
        let head = hardware.config_read(at, place, Width::Dword);
        if head == 0 || head == u32::MAX {
            return None;
        }
        if head & 0xFFFF == u32::from(id) {
            return Some(place);
        }
        place = (head >> 20 & 0xFFC) as u16;
        if place < FIRST {
            return None;
        }
    }
    None
}

/// The `PMC` word of a function with the power management capability, else 0.
pub(crate) fn power_management(hardware: &mut dyn Hardware, at: PciAddress) -> u16 {
    let Some(offset) = find(hardware, at, PCI_CAPABILITY_ID_POWER_MANAGEMENT) else { return 0 };
    let bytes = config::read(hardware, at, u32::from(offset) + 2, 2);
    bytes.try_into().map_or(0, u16::from_le_bytes)
}

/// Adds what is known of a root-enumerated device: its instance id is unique in the machine, and it is in D0 for working and in D3 for every sleep.
pub(crate) fn fill_unique(bytes: &mut [u8; SIZE as usize]) {
    let at = usize::try_from(DEVICE_CAPABILITIES::Bits.offset()).unwrap_or(0);
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    let flags = u32::from_le_bytes(word) | DEVICE_CAPABILITIES::UniqueID;
    bytes[at..at + 4].copy_from_slice(&flags.to_le_bytes());
    fill_states(bytes);
}

/// D0 for working, D3 for every sleep, where drivers above have said nothing else.
fn fill_states(bytes: &mut [u8; SIZE as usize]) {
    let at = usize::try_from(DEVICE_CAPABILITIES::DeviceState.offset()).unwrap_or(0);
    for (system, to) in [(1, PowerDeviceD0)].into_iter().chain((2..7).map(|system| (system, PowerDeviceD3))) {
        let state = &mut bytes[at + 4 * system..at + 4 * system + 4];
        if *state == PowerDeviceUnspecified.to_le_bytes() {
            state.copy_from_slice(&to.to_le_bytes());
        }
    }
}

/// Adds what the bus knows: D1 and D2 and waking by `pmc`, the place, and D0 for working, D3 for every sleep. What drivers above have set
/// on the way down stays.
pub(crate) fn fill(bytes: &mut [u8; SIZE as usize], identity: &Identity, pmc: u16) {
    let bit = |from: u16, to: u32| if pmc & 1 << from != 0 { to } else { 0 };
    let flags = bit(9, DEVICE_CAPABILITIES::DeviceD1)
        | bit(10, DEVICE_CAPABILITIES::DeviceD2)
        | bit(11, DEVICE_CAPABILITIES::WakeFromD0)
        | bit(12, DEVICE_CAPABILITIES::WakeFromD1)
        | bit(13, DEVICE_CAPABILITIES::WakeFromD2)
        | bit(14, DEVICE_CAPABILITIES::WakeFromD3)
        | bit(15, DEVICE_CAPABILITIES::WakeFromD3);
    let mut change = |at: u64, to: &dyn Fn(u32) -> u32| {
        let at = usize::try_from(at).unwrap_or(0);
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        bytes[at..at + 4].copy_from_slice(&to(u32::from_le_bytes(word)).to_le_bytes());
    };
    change(DEVICE_CAPABILITIES::Bits.offset(), &|added| added | flags);
    let unless = |unset: u32, value: u32| move |was: u32| if was == unset { value } else { was };
    change(DEVICE_CAPABILITIES::Address.offset(), &unless(u32::MAX, identity.bus_relative_address()));
    change(DEVICE_CAPABILITIES::UINumber.offset(), &unless(u32::MAX, identity.at.device.into()));
    change(DEVICE_CAPABILITIES::SystemWake.offset(), &unless(PowerSystemUnspecified, system_wake(pmc)));
    change(DEVICE_CAPABILITIES::DeviceWake.offset(), &unless(PowerDeviceUnspecified, device_wake(pmc)));
    fill_states(bytes);
}

/// The lowest state from which a function with this `PMC` can wake, `PowerDevice*`; unspecified if from none.
pub(super) const fn device_wake(pmc: u16) -> u32 {
    match pmc >> 11 {
        0 => PowerDeviceUnspecified,
        1 => PowerDeviceD0,
        2..=3 => PowerDeviceD1,
        4..=7 => PowerDeviceD2,
        _ => PowerDeviceD3,
    }
}

/// The lowest state of the system from which it does, `PowerSystem*`: from S3 on slots have auxiliary power only.
pub(super) const fn system_wake(pmc: u16) -> u32 {
    match pmc >> 11 {
        0 => PowerSystemUnspecified,
        1..=15 => PowerSystemSleeping2,
        _ => PowerSystemSleeping3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_power_management_is_off_whenever_the_system_sleeps() {
        let identity = Identity {
            at: PciAddress { bus: 0, device: 3, function: 0 },
            vendor: 0,
            device: 0,
            revision: 0,
            class: [0; 3],
            subsystem_vendor: 0,
            subsystem: 0,
        };
        let asked = || {
            let mut bytes = [0; 0x40];
            bytes[8..0x10].fill(0xFF);
            bytes
        };
        let mut bytes = asked();
        fill(&mut bytes, &identity, 0);
        assert_eq!(bytes[4..0x10], [0, 0, 0, 0, 0, 0, 3, 0, 3, 0, 0, 0]);
        let states: Vec<u8> = bytes[0x10..0x2C].chunks(4).map(|state| state[0]).collect();
        assert_eq!(states, [0, 1, 4, 4, 4, 4, 4]);
        fill(&mut bytes, &identity, 1 << 9 | 1 << 14);
        assert_eq!(bytes[4..8], [1, 0x20, 0, 0], "D1, and waking from D3");
        let mut preset = asked();
        (preset[5], preset[12], preset[0x1C]) = (2, 7, 3);
        fill(&mut preset, &identity, 1 << 9);
        assert_eq!(preset[4..8], [1, 2, 0, 0], "what was added stays");
        assert_eq!((preset[12], preset[0x1C]), (7, 3));
    }
}
