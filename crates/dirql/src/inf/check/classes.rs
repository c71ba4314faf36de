//! Windows' own device setup classes that driver packages of others are of.
//!
//! Follows *System-Defined Device Setup Classes Available to Vendors*. What is not here is taken for a vendor's own.

/// A setup class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) guid: &'static str,
}

const fn class(name: &'static str, guid: &'static str) -> Class {
    Class { name, guid }
}

const CLASSES: &[Class] = &[
    class("1394", "{6bdd1fc1-810f-11d0-bec7-08002be2092f}"),
    class("61883", "{7ebefbc0-3200-11d2-b4c2-00a0c9697d07}"),
    class("AVC", "{c06ff265-ae09-48f0-812c-16753d7cba83}"),
    class("Battery", "{72631e54-78a4-11d0-bcf7-00aa00b7b32a}"),
    class("Biometric", "{53d29ef7-377c-4d14-864b-eb3a85769359}"),
    class("Bluetooth", "{e0cbf06c-cd8b-4647-bb8a-263b43f0f974}"),
    class("Camera", "{ca3e7ab9-b4c3-4ae6-8251-579ef933890f}"),
    class("CDROM", "{4d36e965-e325-11ce-bfc1-08002be10318}"),
    class("DiskDrive", "{4d36e967-e325-11ce-bfc1-08002be10318}"),
    class("Display", "{4d36e968-e325-11ce-bfc1-08002be10318}"),
    class("Dot4", "{48721b56-6795-11d2-b1a8-0080c72e74a2}"),
    class("Dot4Print", "{49ce6ac8-6f86-11d2-b1e5-0080c72e74a2}"),
    class("Extension", "{e2f84ce7-8efa-411c-aa69-97454ca4cb57}"),
    class("FDC", "{4d36e969-e325-11ce-bfc1-08002be10318}"),
    class("Firmware", "{f2e7dd72-6468-4e36-b6f1-6488f42c1b52}"),
    class("FloppyDisk", "{4d36e980-e325-11ce-bfc1-08002be10318}"),
    class("GPS", "{6bdd1fc3-810f-11d0-bec7-08002be2092f}"),
    class("HDC", "{4d36e96a-e325-11ce-bfc1-08002be10318}"),
    class("HIDClass", "{745a17a0-74d3-11d0-b6fe-00a0c90f57da}"),
    class("Image", "{6bdd1fc6-810f-11d0-bec7-08002be2092f}"),
    class("Infrared", "{6bdd1fc5-810f-11d0-bec7-08002be2092f}"),
    class("Keyboard", "{4d36e96b-e325-11ce-bfc1-08002be10318}"),
    class("Media", "{4d36e96c-e325-11ce-bfc1-08002be10318}"),
    class("MediumChanger", "{ce5939ae-ebde-11d0-b181-0000f8753ec4}"),
    class("Modem", "{4d36e96d-e325-11ce-bfc1-08002be10318}"),
    class("Monitor", "{4d36e96e-e325-11ce-bfc1-08002be10318}"),
    class("Mouse", "{4d36e96f-e325-11ce-bfc1-08002be10318}"),
    class("MTD", "{4d36e970-e325-11ce-bfc1-08002be10318}"),
    class("MultiFunction", "{4d36e971-e325-11ce-bfc1-08002be10318}"),
    class("MultiPortSerial", "{50906cb8-ba12-11d1-bf5d-0000f805f530}"),
    class("Net", "{4d36e972-e325-11ce-bfc1-08002be10318}"),
    class("NetClient", "{4d36e973-e325-11ce-bfc1-08002be10318}"),
    class("NetService", "{4d36e974-e325-11ce-bfc1-08002be10318}"),
    class("NetTrans", "{4d36e975-e325-11ce-bfc1-08002be10318}"),
    class("PCMCIA", "{4d36e977-e325-11ce-bfc1-08002be10318}"),
    class("PNPPrinters", "{4658ee7e-f050-11d1-b6bd-00c04fa372a7}"),
    class("Ports", "{4d36e978-e325-11ce-bfc1-08002be10318}"),
    class("Printer", "{4d36e979-e325-11ce-bfc1-08002be10318}"),
    class("Processor", "{50127dc3-0f36-415e-a6cc-4cb3be910b65}"),
    class("SBP2", "{d48179be-ec20-11d1-b6b8-00c04fa372a7}"),
    class("SCSIAdapter", "{4d36e97b-e325-11ce-bfc1-08002be10318}"),
    class("SecurityAccelerator", "{268c95a1-edfe-11d3-95c3-0010dc4050a5}"),
    class("SecurityDevices", "{d94ee5d8-d189-4994-83d2-f68d7d41b0e6}"),
    class("Sensor", "{5175d334-c371-4806-b3ba-71fd53c9258d}"),
    class("SideShow", "{997b5d8d-c442-4f2e-baf3-9c8e671e9e21}"),
    class("SmartCardReader", "{50dd5230-ba8a-11d1-bf5d-0000f805f530}"),
    class("SoftwareComponent", "{5c4c3332-344d-483c-8739-259e934c9cc8}"),
    class("System", "{4d36e97d-e325-11ce-bfc1-08002be10318}"),
    class("TapeDrive", "{6d807884-7d21-11cf-801c-08002be10318}"),
    class("USB", "{36fc9e60-c465-11cf-8056-444553540000}"),
    class("USBDevice", "{88bae032-5a81-49f0-bc3d-a4ff138216d6}"),
    class("Volume", "{71a27cdd-812a-11d0-bec7-08002be2092f}"),
    class("WCEUSBS", "{25dbce51-6c8f-4a72-8a6d-b54c2b4fc835}"),
    class("WPD", "{eec5ad98-8080-425f-922a-dabf3de3f69a}"),
];

pub(super) fn by_name(name: &str) -> Option<Class> {
    CLASSES.iter().copied().find(|class| class.name.eq_ignore_ascii_case(name))
}

pub(super) fn by_guid(guid: &str) -> Option<Class> {
    CLASSES.iter().copied().find(|class| class.guid.eq_ignore_ascii_case(guid))
}

/// Classes whose devices need no function driver of their INF's.
pub(in crate::inf) fn needs_no_service(name: &str) -> bool {
    ["Extension", "SoftwareComponent", "Monitor", "Modem", "Printer", "Firmware"]
        .iter()
        .any(|class| class.eq_ignore_ascii_case(name))
}
