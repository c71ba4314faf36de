//! Who a PCI function is: its identification registers, and the strings Windows makes of them.
//!
//! Pages: *Identifiers for PCI Devices*, *Instance IDs*, *IRP_MN_QUERY_ID*, *IRP_MN_QUERY_DEVICE_TEXT*. The order of the
//! ids is the one current Windows reports: those with a subsystem or a class are hardware ids, the others compatible ids.

use crate::hal::config;
use crate::hal::hardware::{Hardware, PciAddress};

/// The identification registers of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Where it sits.
    pub at: PciAddress,
    /// 00h.
    pub vendor: u16,
    /// 02h.
    pub device: u16,
    /// 08h.
    pub revision: u8,
    /// 09h–0Bh: programming interface, subclass, base class.
    pub class: [u8; 3],
    /// 2Ch; 0 if it has none.
    pub subsystem_vendor: u16,
    /// 2Eh.
    pub subsystem: u16,
}

impl Identity {
    /// Reads it from configuration space.
    pub fn read(hardware: &mut dyn Hardware, at: PciAddress) -> Self {
        let bytes = config::read(hardware, at, 0, 0x40);
        let byte = |offset: usize| bytes.get(offset).copied().unwrap_or(0xFF);
        let word = |offset: usize| u16::from_le_bytes([byte(offset), byte(offset + 1)]);
        Self {
            at,
            vendor: word(0),
            device: word(2),
            revision: byte(8),
            class: [byte(9), byte(10), byte(11)],
            subsystem_vendor: word(0x2C),
            subsystem: word(0x2E),
        }
    }

    fn vendor_device(&self) -> String {
        format!("PCI\\VEN_{:04X}&DEV_{:04X}", self.vendor, self.device)
    }

    /// `BusQueryDeviceID`.
    #[must_use]
    pub fn device_id(&self) -> String {
        format!(
            "{}&SUBSYS_{:04X}{:04X}&REV_{:02X}",
            self.vendor_device(),
            self.subsystem,
            self.subsystem_vendor,
            self.revision
        )
    }

    /// `BusQueryInstanceID`: unique on its bus only (device and function), so the PnP manager puts the parent in front.
    #[must_use]
    pub fn instance_id(&self) -> String {
        format!("{:02X}", self.at.device << 3 | self.at.function)
    }

    /// `BusQueryHardwareIDs`, the best first.
    #[must_use]
    pub fn hardware_ids(&self) -> Vec<String> {
        let own = self.vendor_device();
        let [interface, subclass, base] = self.class;
        vec![
            self.device_id(),
            format!("{own}&SUBSYS_{:04X}{:04X}", self.subsystem, self.subsystem_vendor),
            format!("{own}&CC_{base:02X}{subclass:02X}{interface:02X}"),
            format!("{own}&CC_{base:02X}{subclass:02X}"),
        ]
    }

    /// `BusQueryCompatibleIDs`, the best first.
    #[must_use]
    pub fn compatible_ids(&self) -> Vec<String> {
        let own = self.vendor_device();
        let vendor = format!("PCI\\VEN_{:04X}", self.vendor);
        let [interface, subclass, base] = self.class;
        vec![
            format!("{own}&REV_{:02X}", self.revision),
            own,
            format!("{vendor}&CC_{base:02X}{subclass:02X}{interface:02X}"),
            format!("{vendor}&CC_{base:02X}{subclass:02X}"),
            vendor,
            format!("PCI\\CC_{base:02X}{subclass:02X}{interface:02X}"),
            format!("PCI\\CC_{base:02X}{subclass:02X}"),
        ]
    }

    /// `DeviceTextDescription`: by class, as long as no INF says better.
    #[must_use]
    pub fn description(&self) -> &'static str {
        match self.class[2] {
            0x01 => "PCI Mass Storage Controller",
            0x02 => "PCI Network Controller",
            0x03 => "PCI Display Controller",
            0x04 => "PCI Multimedia Device",
            0x05 => "PCI Memory Controller",
            0x06 => "PCI Bridge Device",
            0x07 => "PCI Simple Communications Controller",
            0x08 => "PCI Base System Device",
            0x09 => "PCI Input Device",
            0x0B => "PCI Processor",
            0x0C => "PCI Serial Bus Controller",
            0x10 => "PCI Encryption/Decryption Controller",
            0x11 => "PCI Data Acquisition and Signal Processing Controller",
            _ => "PCI Device",
        }
    }

    /// `DeviceTextLocationInformation`.
    #[must_use]
    pub fn location(&self) -> String {
        let PciAddress { bus, device, function } = self.at;
        format!("PCI bus {bus}, device {device}, function {function}")
    }

    /// `DEVICE_CAPABILITIES::Address`: device in the upper, function in the lower half.
    #[must_use]
    pub const fn bus_relative_address(&self) -> u32 {
        (self.at.device as u32) << 16 | self.at.function as u32
    }
}

/// What the PnP manager puts in front of an instance id that is unique on its bus only: the depth in the device tree and
/// the parent's place in the registry, in short.
pub const PARENT_PREFIX: &str = "3&11583659&0";

/// The same for the child of a device: how deep it lies (a card at 3), and a number made of the parent's path.
#[must_use]
pub fn prefix_below(parent: &str, depth: usize) -> String {
    // FNV-1a: any number would do that stays the same.
    let number =
        parent.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{:x}&{number:x}&0", depth + 3)
}

/// The device instance path: the key below `Enum`. The prefix is empty if the instance id is unique in the machine.
#[must_use]
pub fn instance_path(device_id: &str, instance_id: &str, prefix: &str) -> String {
    if prefix.is_empty() {
        format!("{device_id}\\{instance_id}")
    } else {
        format!("{device_id}\\{prefix}&{instance_id}")
    }
}

/// Whether `id` can be a device or instance id: printable ASCII, no space, no comma, within 200 characters.
#[must_use]
pub fn is_valid(id: &str) -> bool {
    !id.is_empty() && id.len() <= 200 && id.chars().all(|c| c.is_ascii_graphic() && c != ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Identity {
        Identity {
            at: PciAddress { bus: 0, device: 4, function: 1 },
            vendor: 0x10B5,
            device: 0x9050,
            revision: 2,
            class: [0x00, 0x80, 0x06],
            subsystem_vendor: 0x10B5,
            subsystem: 0x2273,
        }
    }

    #[test]
    fn the_ids_of_a_card_go_from_exactly_it_to_its_kind() {
        assert_eq!(card().device_id(), r"PCI\VEN_10B5&DEV_9050&SUBSYS_227310B5&REV_02");
        assert_eq!(
            card().hardware_ids(),
            [
                r"PCI\VEN_10B5&DEV_9050&SUBSYS_227310B5&REV_02",
                r"PCI\VEN_10B5&DEV_9050&SUBSYS_227310B5",
                r"PCI\VEN_10B5&DEV_9050&CC_068000",
                r"PCI\VEN_10B5&DEV_9050&CC_0680",
            ]
        );
        assert_eq!(
            card().compatible_ids(),
            [
                r"PCI\VEN_10B5&DEV_9050&REV_02",
                r"PCI\VEN_10B5&DEV_9050",
                r"PCI\VEN_10B5&CC_068000",
                r"PCI\VEN_10B5&CC_0680",
                r"PCI\VEN_10B5",
                r"PCI\CC_068000",
                r"PCI\CC_0680",
            ]
        );
    }

    #[test]
    fn two_equal_cards_have_different_instance_paths() {
        let other = Identity { at: PciAddress { bus: 0, device: 5, function: 0 }, ..card() };
        assert_eq!((card().instance_id(), other.instance_id()), ("21".to_owned(), "28".to_owned()));
        assert_eq!(
            instance_path(&card().device_id(), "21", PARENT_PREFIX),
            r"PCI\VEN_10B5&DEV_9050&SUBSYS_227310B5&REV_02\3&11583659&0&21"
        );
        assert_eq!(instance_path("X", "1", ""), r"X\1");
    }

    #[test]
    fn a_user_reads_where_the_card_sits() {
        assert_eq!(card().location(), "PCI bus 0, device 4, function 1");
        assert_eq!(card().description(), "PCI Bridge Device");
        assert_eq!(card().bus_relative_address(), 0x4_0001);
    }

    #[test]
    fn an_id_that_cannot_be_a_registry_key_is_refused() {
        assert!(is_valid(r"PCI\VEN_10B5&DEV_9050"));
        assert!(!is_valid("") && !is_valid("a b") && !is_valid("a,b") && !is_valid("\u{e9}"));
    }
}
