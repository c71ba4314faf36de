//! `AddService` and the service-install sections it leads to.
//!
//! Follows *INF AddService Directive*.

use super::Walk;
use super::registry::Keys;
use crate::inf::directives::{EVENT_LOG, SERVICE};
use crate::inf::error::Spot;
use crate::inf::folders;
use crate::inf::sections::{Entry, Section};
use crate::inf::service::{flags, is_function_driver};
use crate::inf::target::number;

/// A service's file, as its `ServiceBinary` says.
pub(super) struct Binary {
    /// Its name, lower case.
    pub(super) file: String,
    /// Its folder, lower case.
    pub(super) folder: String,
    /// The folder as the entry names it.
    pub(super) dirid: &'static str,
    pub(super) spot: Spot,
}

/// What a service-install section has to say: the entry, the highest value, and the usual one.
const NEEDED: &[(&str, u32, &str)] =
    &[("ServiceType", 0x3ff, "1"), ("StartType", 4, "3"), ("ErrorControl", 3, "1")];

impl<'a> Walk<'a> {
    pub(super) fn add_service(&mut self, entry: Entry<'a>) {
        let name = self.value(entry, 0);
        let Some(flags) = self.held(flags(entry)) else { return };
        if name.is_empty() {
            if !is_function_driver(flags) {
                self.error(
                    0,
                    entry.spot(),
                    "this AddService names no service; write AddService = Name, 0x00000002, Section",
                );
            }
            return;
        }
        if name.contains(['\\', '/']) || name.chars().count() > 256 {
            self.error(
                0,
                entry.spot_of(0),
                format!("`{name}` is not a name of a service: it has a slash, or more than 256 characters"),
            );
        }
        self.services.insert(name.to_lowercase());
        let section = self.value(entry, 2);
        if section.is_empty() {
            self.error(0, entry.spot(), format!("AddService = {name} names no service-install section; write AddService = {name}, 0x00000002, Section"));
        } else if let Some(section) = self.led_to(&section, entry.spot_of(2), "AddService") {
            self.service(section);
        }
        let log = self.value(entry, 3);
        if !log.is_empty()
            && let Some(section) = self.led_to(&log, entry.spot_of(3), "AddService's event log")
        {
            self.directives(section, EVENT_LOG, Keys::Other);
        }
    }

    fn service(&mut self, section: Section<'a>) {
        if !self.visited.insert(section.name.to_lowercase()) {
            return;
        }
        self.directives(section, SERVICE, Keys::Other);
        let kind = section.value_of("ServiceType").and_then(|written| number(&written));
        let is_driver = kind.is_none_or(|kind| (1..=2).contains(&kind));
        for (key, highest, usual) in NEEDED {
            let Some(entry) = section.entry(key) else {
                self.error(
                    0,
                    section.spot(),
                    format!("[{}] has no {key}, which a service needs; write {key} = {usual}", section.name),
                );
                continue;
            };
            let written = self.value(entry, 0);
            match number(&written) {
                Some(value) if value <= *highest => {
                    if *key == "StartType" && value == 4 && is_driver {
                        self.error(
                            0,
                            entry.spot_of(0),
                            "StartType 4 is a disabled driver, which Windows does not install; write 3",
                        );
                    }
                }
                _ => self.error(
                    0,
                    entry.spot_of(0),
                    format!(
                        "{key} `{written}` is not a number from 0 to {highest:#x}; the usual one is {usual}"
                    ),
                ),
            }
        }
        match section.entry("ServiceBinary") {
            Some(entry) => self.binary(entry, is_driver),
            None => self.error(0, section.spot(), format!("[{}] has no ServiceBinary, so that the service has no file; write ServiceBinary = %13%\\name.sys", section.name)),
        }
    }

    fn binary(&mut self, entry: Entry<'a>, is_driver: bool) {
        let (written, spot) = (self.value(entry, 0), entry.spot_of(0));
        let needed = r"write ServiceBinary = %13%\name.sys (the driver store) or %12%\name.sys";
        match folders::expand(&written) {
            None => self.error(
                0,
                spot,
                format!("ServiceBinary `{written}` does not begin with a directory's number; {needed}"),
            ),
            Some(Err(dirid)) if folders::is_custom(dirid) => self.warning(
                0,
                spot,
                format!("ServiceBinary: %{dirid}% is a directory that only an installer of yours can know; {needed}"),
            ),
            Some(Err(dirid)) => self.error(
                0,
                spot,
                format!("ServiceBinary: %{dirid}% is no directory that Windows knows; {needed}"),
            ),
            // What stands behind the file may be its arguments.
            Some(Ok(_)) if !is_driver => {}
            Some(Ok((folder, path))) => match path.rsplit('\\').next().unwrap_or_default() {
                "" => self.error(0, spot, format!("ServiceBinary `{written}` names no file; {needed}")),
                file if file.contains(['=', '<', '>', ':', '|', '?', '*', '/']) => {
                    self.error(0, spot, format!("ServiceBinary: `{file}` is no file's name (a backslash at a line's end continues the line); {needed}"));
                }
                file => {
                    let own = path[..path.len() - file.len()].trim_end_matches('\\').to_lowercase();
                    self.binaries.push(Binary {
                        file: file.to_lowercase(),
                        folder: own,
                        dirid: folder.dirid,
                        spot,
                    });
                }
            },
        }
    }

    /// Filters and frameworks' services that the file does not add.
    pub(super) fn unknown_services(&mut self) {
        for (name, by, spot) in std::mem::take(&mut self.named_services) {
            if !self.services.contains(&name.to_lowercase()) {
                self.advice(spot, format!("{by} names the service {name}, which this file does not add; if it is not Windows' or another package's, add it by AddService"));
            }
        }
    }
}
