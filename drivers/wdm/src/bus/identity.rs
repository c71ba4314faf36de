//! What a bus driver says of a child: its ids, texts and abilities.
//!
//! Pages: *IRP_MN_QUERY_ID*, *Device Identification Strings*, *IRP_MN_QUERY_DEVICE_TEXT*, *DEVICE_CAPABILITIES*. Ids are ASCII; that none has a
//! character which the PnP manager stops the machine for is looked at where the id is made, which of a constant is when the driver is compiled.

use abi::DEVICE_CAPABILITIES;

use crate::text::Name;

/// Most code units of a list of ids, the closing NUL of each and that of the list included.
const CAPACITY: usize = 96;

/// Several ids, each with its NUL behind it (`REG_MULTI_SZ`, but for the last NUL).
#[derive(Clone)]
pub(crate) struct Ids {
    units: [u16; CAPACITY],
    length: usize,
}

impl Ids {
    const NONE: Self = Self { units: [0; CAPACITY], length: 0 };

    const fn and(mut self, id: &Name) -> Self {
        let units = valid(id);
        assert!(self.length + units.len() + 2 <= CAPACITY, "the ids of one list have at most 96 characters");
        let mut index = 0;
        while index < units.len() {
            self.units[self.length + index] = units[index];
            index += 1;
        }
        self.length += units.len() + 1;
        self
    }

    /// With the NUL of each, but not the list's own.
    pub(crate) fn units(&self) -> &[u16] {
        self.units.get(..self.length).unwrap_or_default()
    }
}

/// The characters of an id.
const fn valid(id: &Name) -> &[u16] {
    let units = id.units();
    assert!(!units.is_empty(), "an id has at least one character");
    let mut index = 0;
    while index < units.len() {
        let unit = units[index];
        assert!(
            unit >= 0x20 && unit <= 0x7F && unit != b',' as u16,
            "an id has a character that stops Windows"
        );
        index += 1;
    }
    units
}

/// Who a child is: what its physical device object answers when the PnP manager asks.
///
/// ```
/// use wdm::{Identity, Name};
///
/// /// What is in each slot of the bus. It is large: a constant, which is copied once and then given its place.
/// const PORT: Identity = Identity::new(Name::new(r"MYBUS\Port"), Name::new("0"))
///     .compatible(&Name::new(r"MYBUS\Generic"))
///     .description(Name::new("A port of my bus"))
///     .removable();
///
/// fn port(slot: u32) -> Identity {
///     let mut port = PORT;
///     port.set_instance(Name::new("").with_number(slot));
///     port.set_location(Name::new("Slot ").with_number(slot));
///     port.set_address(slot);
///     port
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Identity {
    pub(crate) device: Name,
    pub(crate) instance: Name,
    pub(crate) hardware: Ids,
    pub(crate) compatible: Ids,
    pub(crate) description: Option<Name>,
    pub(crate) location: Option<Name>,
    /// Bits of `DEVICE_CAPABILITIES`.
    pub(crate) abilities: u32,
    pub(crate) address: u32,
}

impl Identity {
    /// A child with this device id, as `MYBUS\Port`, which is its first hardware id too, and this instance id, which no other child of the bus
    /// with that device id has.
    ///
    /// # Panics
    /// If one is empty or has a comma or another character that is not allowed in ids.
    pub const fn new(device: Name, instance: Name) -> Self {
        let hardware = Ids::NONE.and(&device);
        let _ = valid(&instance);
        Self {
            device,
            instance,
            hardware,
            compatible: Ids::NONE,
            description: None,
            location: None,
            abilities: 0,
            address: u32::MAX, // unknown
        }
    }

    /// Another instance id.
    ///
    /// # Panics
    /// As [`Identity::new`].
    pub fn set_instance(&mut self, instance: Name) {
        let _ = valid(&instance);
        self.instance = instance;
    }

    /// Where it is (`DeviceTextLocationInformation`).
    pub fn set_location(&mut self, text: Name) {
        self.location = Some(text);
    }

    /// Its number on the bus: `Address` and `UINumber` of its capabilities.
    pub fn set_address(&mut self, number: u32) {
        self.address = number;
    }

    /// One more hardware id, less specific than those before.
    ///
    /// # Panics
    /// As [`Identity::new`], and if all have more than 96 characters.
    pub const fn hardware(mut self, id: &Name) -> Self {
        self.hardware = self.hardware.and(id);
        self
    }

    /// One more compatible id, less specific than those before.
    ///
    /// # Panics
    /// As [`Identity::hardware`].
    pub const fn compatible(mut self, id: &Name) -> Self {
        self.compatible = self.compatible.and(id);
        self
    }

    /// What the device manager calls it before an INF has said so (`DeviceTextDescription`).
    pub const fn description(mut self, text: Name) -> Self {
        self.description = Some(text);
        self
    }

    /// It may be pulled out while the system runs, without being asked for before.
    pub const fn removable(mut self) -> Self {
        self.abilities |= DEVICE_CAPABILITIES::Removable | DEVICE_CAPABILITIES::SurpriseRemovalOK;
        self
    }

    /// It can be ejected: see [`crate::Bus::child_eject`].
    pub const fn ejectable(mut self) -> Self {
        self.abilities |= DEVICE_CAPABILITIES::EjectSupported;
        self
    }

    /// It needs no other driver: the bus driver's [`crate::Bus::child_create`] and its neighbours answer who opens it.
    pub const fn raw(mut self) -> Self {
        self.abilities |= DEVICE_CAPABILITIES::RawDeviceOK;
        self
    }

    /// Whether both are the same device to the PnP manager, which compares without regard to case.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = |one: &Name, other: &Name| {
            let lower = |unit: &u16| u8::try_from(*unit).map_or(0, |byte| byte.to_ascii_lowercase());
            one.units().iter().map(lower).eq(other.units().iter().map(lower))
        };
        same(&self.device, &other.device) && same(&self.instance, &other.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_ids_begin_with_the_device_id_and_each_has_its_nul() {
        let port = Identity::new(Name::new(r"B\P"), Name::new("0")).hardware(&Name::new("B"));
        let expected: std::vec::Vec<u16> = "B\\P\0B\0".encode_utf16().collect();
        assert_eq!(port.hardware.units(), expected);
        assert!(port.compatible.units().is_empty());
    }

    #[test]
    fn ids_are_the_same_without_regard_to_case() {
        let of = |device, instance| Identity::new(Name::new(device), Name::new(instance));
        assert!(of(r"B\Port", "a1").is_same(&of(r"b\pORT", "A1")));
        assert!(!of(r"B\Port", "a1").is_same(&of(r"B\Port", "a")));
    }

    #[test]
    #[should_panic(expected = "stops Windows")]
    fn an_id_with_a_comma_is_refused() {
        let _ = Identity::new(Name::new(r"B\Port,1"), Name::new("0"));
    }
}
