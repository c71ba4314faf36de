//! `AddReg` and `DelReg`: lines that are wrong, and those that should not be there.
//!
//! Follows *INF AddReg Directive*, *INF DelReg Directive* and *Enabling Message-Signaled Interrupts in the Registry*.

use kernel::se::sddl;

use super::Walk;
use crate::inf::addreg::{self, Remarks};
use crate::inf::registry::{RegistryWrite, Root, Value, Write};
use crate::inf::sections::Entry;

/// Which key `HKR` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keys {
    /// The device's software key: of `DDInstall`.
    Software,
    /// The device's hardware key: of `DDInstall.HW`.
    Hardware,
    /// The class's: of `ClassInstall32`.
    Class,
    /// There is none: of `DefaultInstall`.
    NoDevice,
    /// A service's or an interface's.
    Other,
}

const FILTERS: [&str; 2] = ["UpperFilters", "LowerFilters"];

impl<'a> Walk<'a> {
    pub(super) fn registry(&mut self, directive: &'static str, entry: Entry<'a>, keys: Keys) {
        for (name, spot) in self.values(entry, 0) {
            let Some(section) = self.led_to(&name, spot, directive) else { continue };
            for line in section.entries() {
                let mut remarks = Remarks::default();
                let write = match directive {
                    "AddReg" => addreg::write(line, &mut remarks),
                    _ => addreg::deletion(line, &mut remarks),
                };
                let written = self.held(write).flatten();
                self.root(line, keys);
                if let (Some(write), "AddReg") = (written, directive) {
                    self.write(line, &write, keys);
                }
            }
        }
    }

    fn root(&mut self, line: Entry<'a>, keys: Keys) {
        let (root, key) = (self.value(line, 0).to_uppercase(), self.value(line, 1).to_lowercase());
        let spot = line.spot();
        match root.as_str() {
            "HKR" if keys == Keys::NoDevice => {
                self.error(0, spot, "[DefaultInstall] has no device, so that HKR names no key; write HKLM, or the service's own AddReg");
            }
            "HKLM" if key.trim_start_matches('\\').starts_with(r"system\currentcontrolset\services") => {
                self.error(1221, spot, "the services' keys are not written by HKLM; write HKR in an AddReg of the service-install section");
            }
            "HKLM" | "HKCR" | "HKCU" | "HKU" if keys != Keys::NoDevice => {
                self.warning(1304, spot, format!("{root}: a driver package writes below the keys of its device, service and interfaces only; write HKR"));
            }
            _ => {}
        }
    }

    fn write(&mut self, line: Entry<'a>, write: &RegistryWrite, keys: Keys) {
        let Write::Set { name, value, append, .. } = &write.write else { return };
        let is_own = write.root == Root::Relative && write.key.is_empty();
        if is_own && name.eq_ignore_ascii_case("CoInstallers32") {
            self.warning(
                1303,
                line.spot(),
                "this registers a co-installer, which Windows 11 does not run; remove it",
            );
        }
        if *append && !FILTERS.iter().any(|filter| filter.eq_ignore_ascii_case(name)) {
            self.warning(1305, line.spot_of(3), "this adds to a list that others write, too, and is not taken back; write a value of your own");
        }
        if is_own && name.eq_ignore_ascii_case("Security") && matches!(keys, Keys::Hardware | Keys::Class) {
            self.security(line, value);
        }
        if is_own && FILTERS.iter().any(|filter| filter.eq_ignore_ascii_case(name)) {
            self.filters(line, name, value, keys);
        }
        if is_own {
            self.filter_levels(line, name, value);
        }
        if write.key.to_lowercase().starts_with("interrupt management") && keys == Keys::Software {
            self.warning(0, line.spot(), "Windows reads Interrupt Management in the hardware key; lead to this by AddReg in [DDInstall.HW]");
        }
        if write.key.to_lowercase().starts_with("interrupt management")
            && ["MSISupported", "MessageNumberLimit", "DevicePolicy", "DevicePriority"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
            && !matches!(value, Value::Dword(_))
        {
            self.error(0, line.spot_of(3), format!("{name} is a REG_DWORD; write 0x00010001 for its flags"));
        }
    }

    fn security(&mut self, line: Entry<'a>, value: &Value) {
        let wrong = match value {
            Value::Sz(text) => sddl::parse(text).err().map(|why| why.to_string()),
            _ => Some("it is a text; leave the flags out".to_owned()),
        };
        if let Some(why) = wrong {
            self.error(0, line.spot_of(4), format!("Security: {why}"));
        }
    }

    fn filters(&mut self, line: Entry<'a>, name: &str, value: &Value, keys: Keys) {
        let Value::MultiSz(services) = value else {
            self.error(
                0,
                line.spot_of(3),
                format!("{name} is a list; write HKR,,{name},0x00010000,\"NameOfService\""),
            );
            return;
        };
        if keys == Keys::Software {
            self.warning(
                0,
                line.spot(),
                format!(
                    "{name} of a device is read in the hardware key; lead to this by AddReg in [DDInstall.HW]"
                ),
            );
        }
        for (index, service) in services.iter().enumerate() {
            self.named_services.push((service.clone(), "a list of filters", line.spot_of(4 + index)));
        }
    }
}
