//! What the registry holds before any driver is installed.
//!
//! Page: *Registry Trees and Keys for Devices and Drivers*. Only what drivers look at: the control set, the version, the
//! processors.

use abi::{REG_DWORD, REG_SZ};

use super::access::{BOOT_TIME, sz};
use super::registry::Registry;
use crate::nt::Settings;
use crate::rtl::version::{Version, service_pack_text};

const KEYS: [&str; 14] = [
    "Machine\\Hardware\\Description\\System",
    "Machine\\Hardware\\DeviceMap",
    "Machine\\Hardware\\ResourceMap",
    "Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion",
    "Machine\\Software\\Classes",
    "Machine\\System\\ControlSet001\\Control\\Class",
    "Machine\\System\\ControlSet001\\Control\\DeviceClasses",
    "Machine\\System\\ControlSet001\\Control\\Session Manager\\Debug Print Filter",
    "Machine\\System\\ControlSet001\\Enum",
    "Machine\\System\\ControlSet001\\Hardware Profiles\\Current",
    "Machine\\System\\ControlSet001\\Services",
    "Machine\\System\\CurrentControlSet",
    "Machine\\System\\Select",
    "User\\.Default",
];

/// Makes the keys and values of a fresh system.
pub(crate) fn fill(registry: &mut Registry, settings: &Settings) {
    for key in KEYS {
        make(registry, key);
    }
    let hardware = make(registry, "Machine\\Hardware");
    registry.set_volatile(hardware);
    let set = make(registry, "Machine\\System\\ControlSet001");
    let link: Vec<u16> = "\\Registry\\Machine\\System\\CurrentControlSet".encode_utf16().collect();
    registry.link(&link, set).expect("the link was just made");
    for (name, value) in [("Current", 1), ("Default", 1), ("Failed", 0), ("LastKnownGood", 1)] {
        number(registry, "Machine\\System\\Select", name, value);
    }
    version(registry, settings);
    for processor in 0..settings.processors {
        let key = format!("Machine\\Hardware\\Description\\System\\CentralProcessor\\{processor}");
        // One instruction is a nanosecond.
        number(registry, &key, "~MHz", 1000);
        text(registry, &key, "Identifier", "Intel64 Family 6 Model 42 Stepping 7");
        text(registry, &key, "VendorIdentifier", "GenuineIntel");
    }
}

fn version(registry: &mut Registry, settings: &Settings) {
    const KEY: &str = "Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion";
    let version = Version::of(settings.windows);
    // From 8.1 on, the text stays at 6.3.
    let (major, minor) = if version.major >= 10 { (6, 3) } else { (version.major, version.minor) };
    text(registry, KEY, "CurrentVersion", &format!("{major}.{minor}"));
    text(registry, KEY, "CurrentBuild", &version.build.to_string());
    text(registry, KEY, "CurrentBuildNumber", &version.build.to_string());
    let pack = String::from_utf16_lossy(&service_pack_text(version));
    if !pack.is_empty() {
        text(registry, KEY, "CSDVersion", &pack);
    }
}

fn make(registry: &mut Registry, key: &str) -> super::registry::KeyId {
    let path: Vec<u16> = "\\Registry\\".encode_utf16().chain(key.encode_utf16()).collect();
    registry.create(None, &path, true, BOOT_TIME).expect("the boot keys' names are right").0
}

fn text(registry: &mut Registry, key: &str, name: &str, value: &str) {
    set(registry, key, name, REG_SZ, &sz(value));
}

fn number(registry: &mut Registry, key: &str, name: &str, value: u32) {
    set(registry, key, name, REG_DWORD, &value.to_le_bytes());
}

fn set(registry: &mut Registry, key: &str, name: &str, kind: u32, data: &[u8]) {
    let key = make(registry, key);
    let name: Vec<u16> = name.encode_utf16().collect();
    registry.set_value(key, &name, kind, data, BOOT_TIME).expect("the boot values' names are right");
}
