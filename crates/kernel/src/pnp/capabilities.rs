//! What a PCI function can do: a `DEVICE_CAPABILITIES` from its configuration space.
//!
//! Pages: *DEVICE_CAPABILITIES structure*, *IRP_MN_QUERY_CAPABILITIES*; PCI Bus Power Management Interface Specification,
//! 3.2.3. The system sleeps and wakes without the device: wake signals are not routed to anything.

use abi::{
    DEVICE_CAPABILITIES, PCI_CAPABILITY_ID_POWER_MANAGEMENT, PCI_STATUS_CAPABILITIES_LIST, PowerDeviceD0,
    PowerDeviceD3, PowerDeviceUnspecified, PowerSystemUnspecified,
};

use super::identity::Identity;
use crate::hal::config;
use crate::hal::hardware::{Hardware, PciAddress, Width};

/// The capabilities' size; drivers ask with it.
pub(crate) const SIZE: u16 = 0x40;

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

/// The `PMC` word of a function with the power management capability, else 0.
pub(crate) fn power_management(hardware: &mut dyn Hardware, at: PciAddress) -> u16 {
    let Some(offset) = find(hardware, at, PCI_CAPABILITY_ID_POWER_MANAGEMENT) else { return 0 };
    let bytes = config::read(hardware, at, u32::from(offset) + 2, 2);
    bytes.try_into().map_or(0, u16::from_le_bytes)
}

/// Fills in what the bus knows: D1 and D2 and waking by `pmc`, the place, and D0 for working, D3 for every sleep.
pub(crate) fn fill(bytes: &mut [u8; SIZE as usize], identity: &Identity, pmc: u16) {
    let bit = |from: u16, to: u32| if pmc & 1 << from != 0 { to } else { 0 };
    let flags = bit(9, DEVICE_CAPABILITIES::DeviceD1)
        | bit(10, DEVICE_CAPABILITIES::DeviceD2)
        | bit(11, DEVICE_CAPABILITIES::WakeFromD0)
        | bit(12, DEVICE_CAPABILITIES::WakeFromD1)
        | bit(13, DEVICE_CAPABILITIES::WakeFromD2)
        | bit(14, DEVICE_CAPABILITIES::WakeFromD3);
    let mut put = |at: u64, value: u32| {
        let at = usize::try_from(at).unwrap_or(0);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    put(DEVICE_CAPABILITIES::Bits.offset, flags);
    put(DEVICE_CAPABILITIES::Address.offset, identity.bus_relative_address());
    put(DEVICE_CAPABILITIES::UINumber.offset, identity.at.device.into());
    let states = DEVICE_CAPABILITIES::DeviceState.offset;
    put(states, PowerDeviceUnspecified);
    put(states + 4, PowerDeviceD0);
    for system in 2..7 {
        put(states + 4 * system, PowerDeviceD3);
    }
    put(DEVICE_CAPABILITIES::SystemWake.offset, PowerSystemUnspecified);
    put(DEVICE_CAPABILITIES::DeviceWake.offset, PowerDeviceUnspecified);
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
        let mut bytes = [0; 0x40];
        fill(&mut bytes, &identity, 0);
        assert_eq!(bytes[4..0x10], [0, 0, 0, 0, 0, 0, 3, 0, 3, 0, 0, 0]);
        let states: Vec<u8> = bytes[0x10..0x2C].chunks(4).map(|state| state[0]).collect();
        assert_eq!(states, [0, 1, 4, 4, 4, 4, 4]);
        fill(&mut bytes, &identity, 1 << 9 | 1 << 14);
        assert_eq!(bytes[4..8], [1, 0x20, 0, 0], "D1, and waking from D3");
    }
}
