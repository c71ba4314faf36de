//! Install sections and the sections that belong to them: directives, what they lead to, what is legacy.
//!
//! Follows *INF DDInstall Section*, *INF DefaultInstall Section*, and the pages of the sections that belong to them.

use super::classes::needs_no_service;
use super::manufacturer::DECORATIONS;
use super::registry::Keys;
use super::{Tier, Walk};
use crate::inf::directives::{self, INSTALL, Known, PARTS, UNINSTALL};
use crate::inf::error::Spot;
use crate::inf::interface::is_guid;
use crate::inf::sections::{Entry, Section};
use crate::inf::target::number;
use crate::script::suggest::nearest;

/// Directives that name sections, nothing of which is looked at but that they are there.
const LEADING: &[&str] = &[
    "DelFiles",
    "RenFiles",
    "UpdateInis",
    "UpdateIniFields",
    "Ini2Reg",
    "RegisterDlls",
    "UnregisterDlls",
    "ProfileItems",
    "LogConfig",
    "AddTrigger",
    "FailureActions",
];

/// Directives whose value of this number names a section.
const NAMING: &[(&str, usize)] = &[
    ("UmdfService", 1),
    ("AddComponent", 2),
    ("AddSoftware", 2),
    ("AddComServer", 2),
    ("AddComClass", 2),
    ("WMIInterface", 2),
];

impl<'a> Walk<'a> {
    pub(super) fn default_installs(&mut self) {
        for base in ["DefaultInstall", "DefaultUninstall"] {
            for decoration in DECORATIONS {
                if let Some(section) = self.sections.get(&format!("{base}{decoration}")) {
                    if decoration == ".ntamd64" {
                        self.architectures.insert("amd64");
                    }
                    self.without_device(section, base, decoration);
                    self.install_section(section);
                }
            }
        }
        for decoration in DECORATIONS {
            if let Some(section) = self.sections.get(&format!("ClassInstall32{decoration}")) {
                self.install_section(section);
            }
        }
    }

    /// What a primitive driver's INF may not have. Source: *Creating a new primitive driver*.
    fn without_device(&mut self, section: Section<'a>, base: &'static str, decoration: &'static str) {
        if ["", ".nt"].contains(&decoration) {
            self.warning(0, section.spot(), format!("[{}] is for any processor, which Windows 10 version 1903 and later do not take; write [{base}.NTamd64]", section.name));
        }
        let passes = section.value_of("LegacyUninstall").is_some_and(|value| value == "1");
        if base == "DefaultUninstall" && !passes {
            self.warning(0, section.spot(), format!("Windows 10 version 1903 and later undo by themselves what was installed; remove [{}], or write LegacyUninstall = 1 there for those before", section.name));
        }
    }

    /// An install section, and those that belong to it. Each is looked at once.
    pub(super) fn install_section(&mut self, section: Section<'a>) {
        if !self.visited.insert(section.name.to_lowercase()) {
            return;
        }
        self.used(section);
        let lower = section.name.to_lowercase();
        let keys = match lower.as_str() {
            lower if lower.starts_with("default") => Keys::NoDevice,
            lower if lower.starts_with("classinstall32") => Keys::Class,
            _ => Keys::Software,
        };
        self.directives(
            section,
            if lower.starts_with("defaultuninstall") { UNINSTALL } else { INSTALL },
            keys,
        );
        for part in PARTS {
            let Some(own) = self.sections.get(&format!("{}.{}", section.name, part.section.name)) else {
                continue;
            };
            self.used(own);
            self.visited.insert(own.name.to_lowercase());
            if let Some(instead) = part.section.legacy {
                self.warning(1300, own.spot(), format!("[{}] is legacy; {instead}", own.name));
            }
            let keys = match part.section.name {
                _ if keys == Keys::NoDevice => Keys::NoDevice,
                "HW" => Keys::Hardware,
                _ => Keys::Other,
            };
            self.directives(own, part.directives, keys);
        }
    }

    /// Whether an install section gives its devices a function driver.
    pub(super) fn function_driver(&mut self, install: Section<'a>, model: Spot) {
        if needs_no_service(&self.class) {
            return;
        }
        let Some(services) = self.sections.get(&format!("{}.Services", install.name)) else {
            self.error(
                1296,
                model,
                format!(
                    "[{}] has no [{0}.Services], so that the device gets no driver; add it, with AddService = Name, 0x00000002, Section \
                     (Windows looks for exactly this name, decoration before .Services)",
                    install.name
                ),
            );
            return;
        };
        let is_elsewhere = services.entries().any(|entry| entry.is("Needs") || entry.is("Include"));
        let mut drivers = services.entries().filter(|entry| {
            entry.is("AddService")
                && number(&entry.value(1).unwrap_or_default()).is_some_and(|flags| flags & 2 != 0)
        });
        match (drivers.next(), drivers.next()) {
            (None, _) if !is_elsewhere => self.error(
                1296,
                services.spot(),
                format!("no AddService of [{}] has the flag 0x00000002, so that the device gets no driver; write AddService = Name, 0x00000002, Section", services.name),
            ),
            (Some(first), Some(second)) => self.error(
                0,
                second.spot(),
                format!("this is a second function driver (flag 0x00000002); the first is on line {}: keep one", first.spot().line),
            ),
            _ => {}
        }
    }

    /// The entries of a section, each of which is a directive.
    pub(super) fn directives(&mut self, section: Section<'a>, known: &'static [Known], keys: Keys) {
        let has_include = section.entries().any(|entry| entry.is("Include"));
        for entry in section.entries() {
            let name = entry.raw_key().unwrap_or_else(|| entry.raw_value(0));
            let Some(directive) = directives::find(known, name) else {
                let hint = nearest(name, known.iter().map(|known| known.name))
                    .map(|near| format!("did you mean {near}?"));
                let hint = hint.unwrap_or_else(|| "Windows passes it over; remove it".to_owned());
                self.warning(
                    0,
                    entry.spot(),
                    format!("{name} is not a directive of [{}]; {hint}", section.name),
                );
                continue;
            };
            if let Some(instead) = directive.legacy {
                self.warning(1300, entry.spot(), format!("{} is legacy; {instead}", directive.name));
            }
            if directive.name == "Needs" {
                self.needs(section, entry, known, keys, has_include);
            } else {
                self.directive(directive.name, entry, keys);
            }
        }
    }

    fn directive(&mut self, name: &'static str, entry: Entry<'a>, keys: Keys) {
        match name {
            "AddReg" | "DelReg" => self.registry(name, entry, keys),
            "AddProperty" | "DelProperty" | "BitReg" => self.lines_of(name, entry),
            "CopyFiles" => self.copy_files(entry),
            "AddService" => {
                if keys == Keys::NoDevice
                    && number(&entry.value(1).unwrap_or_default()).is_some_and(|flags| flags & 2 != 0)
                {
                    self.warning(0, entry.spot_of(1), "there is no device that this service could be the function driver of; leave the flag 0x00000002 out");
                }
                self.add_service(entry);
            }
            "AddInterface" => self.add_interface(entry),
            "AddFilter" => self.add_filter(entry),
            "AddEventProvider" => self.add_event_provider(entry),
            "KmdfService" => self.kmdf_service(entry),
            "FeatureScore" => {
                let score = self.value(entry, 0);
                if number(&score).is_none_or(|score| score > 0xff) {
                    self.error(
                        0,
                        entry.spot_of(0),
                        format!("FeatureScore `{score}` is not a number from 0x00 to 0xFF"),
                    );
                }
            }
            _ if LEADING.contains(&name) => {
                for (section, spot) in self.values(entry, 0) {
                    if !section.starts_with('@') {
                        self.led_to(&section, spot, name);
                    }
                }
            }
            _ => {
                if let Some((_, index)) = NAMING.iter().find(|(naming, _)| *naming == name) {
                    let (section, spot) = (self.value(entry, *index), entry.spot_of(*index));
                    if !section.is_empty() {
                        self.led_to(&section, spot, name);
                    }
                }
            }
        }
    }

    /// `Needs`: sections of this file are looked at as this one; those of other files cannot be.
    fn needs(
        &mut self,
        section: Section<'a>,
        entry: Entry<'a>,
        known: &'static [Known],
        keys: Keys,
        has_include: bool,
    ) {
        let part = |name: &str| {
            let parts = PARTS.iter().map(|part| part.section.name);
            let last = name.rsplit('.').next().unwrap_or_default().to_lowercase();
            parts.map(str::to_lowercase).find(|part| *part == last)
        };
        for (needed, spot) in self.values(entry, 0) {
            if part(&needed) != part(section.name) {
                self.warning(
                    1310,
                    spot,
                    format!("[{}] needs [{needed}], which is a section of another kind; both must end alike (.Services, .HW, …)", section.name),
                );
            }
            match self.sections.get(&needed) {
                Some(own) => {
                    self.used(own);
                    if self.visited.insert(own.name.to_lowercase()) {
                        self.directives(own, known, keys);
                    }
                }
                None if !has_include => self.warning(
                    1313,
                    spot,
                    format!("[{needed}] is not in this file, and [{}] includes no other; write Include = that.inf above it", section.name),
                ),
                None => {}
            }
        }
    }

    fn guid(&mut self, entry: Entry<'a>, index: usize, what: &str) {
        let guid = self.value(entry, index);
        if !is_guid(&guid) {
            self.error(
                0,
                entry.spot_of(index),
                format!("{what} `{guid}` is not a GUID; write {{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}}, or a token that stands for one"),
            );
        }
    }

    fn add_interface(&mut self, entry: Entry<'a>) {
        self.guid(entry, 0, "the interface class");
        let flags = self.value(entry, 3);
        if !flags.is_empty() && number(&flags) != Some(0) {
            self.warning(0, entry.spot_of(3), "the flags of AddInterface must be 0; leave them out");
        }
        let section = self.value(entry, 2);
        if !section.is_empty()
            && let Some(section) = self.led_to(&section, entry.spot_of(2), "AddInterface")
        {
            self.directives(section, directives::INTERFACE, Keys::Other);
        }
    }

    fn add_filter(&mut self, entry: Entry<'a>) {
        let (service, section) = (self.value(entry, 0), self.value(entry, 2));
        self.named_services.push((service.clone(), "AddFilter", entry.spot_of(0)));
        let Some(section) = self.led_to(&section, entry.spot_of(2), "AddFilter") else { return };
        if section.value_of("FilterPosition").is_some() && section.value_of("FilterLevel").is_some() {
            self.error(
                0,
                section.spot(),
                format!("[{}] has a FilterPosition and a FilterLevel; keep one of them", section.name),
            );
        }
        match section.value_of("FilterPosition") {
            Some(position)
                if ["Upper", "Lower"].iter().any(|known| known.eq_ignore_ascii_case(&position)) => {}
            Some(other) => {
                self.error(0, section.spot(), format!("FilterPosition `{other}` is neither Upper nor Lower"))
            }
            None if section.value_of("FilterLevel").is_some() => {}
            None => self.error(
                0,
                section.spot(),
                format!(
                    "[{}] says nothing of where {service} belongs; write FilterPosition = Upper",
                    section.name
                ),
            ),
        }
    }

    fn add_event_provider(&mut self, entry: Entry<'a>) {
        self.guid(entry, 0, "the provider");
        let section = self.value(entry, 1);
        let Some(section) = self.led_to(&section, entry.spot_of(1), "AddEventProvider") else { return };
        for needed in ["ProviderName", "ResourceFile"] {
            if section.entry(needed).is_none() {
                self.error(
                    0,
                    section.spot(),
                    format!("[{}] has no {needed}, which a provider needs", section.name),
                );
            }
        }
    }

    fn kmdf_service(&mut self, entry: Entry<'a>) {
        let (service, section) = (self.value(entry, 0), self.value(entry, 1));
        self.named_services.push((service, "KmdfService", entry.spot_of(0)));
        let Some(section) = self.led_to(&section, entry.spot_of(1), "KmdfService") else { return };
        let Some(version) = section.entry("KmdfLibraryVersion") else {
            self.error(
                0,
                section.spot(),
                format!(
                    "[{}] has no KmdfLibraryVersion; write the version that the driver was built for: 1.15",
                    section.name
                ),
            );
            return;
        };
        let text = self.value(version, 0);
        let is_version = text
            .split_once('.')
            .is_some_and(|(major, minor)| number(major).is_some() && number(minor).is_some());
        // What stampinf or a build puts there is no version yet.
        if !is_version && !text.contains('$') {
            self.error(
                0,
                version.spot_of(0),
                format!("KmdfLibraryVersion `{text}` is not a version; write it as 1.15"),
            );
        }
    }

    /// `[InterfaceInstall32]`: `{guid} = section`.
    pub(super) fn classes(&mut self) {
        let Some(interfaces) = self.sections.get("InterfaceInstall32") else {
            self.class_install();
            return;
        };
        for entry in interfaces.entries() {
            let guid = self.held(entry.key()).flatten().unwrap_or_default();
            if !is_guid(&guid) {
                self.error(0, entry.spot(), format!("the interface class `{guid}` is not a GUID; write {{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}} = Section"));
            }
            let section = self.value(entry, 0);
            if !section.is_empty()
                && let Some(section) = self.led_to(&section, entry.spot_of(0), "[InterfaceInstall32]")
            {
                self.directives(section, directives::INTERFACE, Keys::Other);
            }
        }
        self.class_install();
    }

    /// A class that is Windows' own is installed already; one that is not has to be.
    fn class_install(&mut self) {
        let install =
            self.sections.all().find(|section| section.name.to_lowercase().starts_with("classinstall32"));
        let known = super::classes::by_name(&self.class);
        match (install, known) {
            (Some(section), Some(class)) => self.error(
                1285,
                section.spot(),
                format!(
                    "[{}] installs the class {}, which is Windows' own; remove it",
                    section.name, class.name
                ),
            ),
            (None, None)
                if self.sections.get("Manufacturer").is_some()
                    && !self.class.is_empty()
                    && !self.class.eq_ignore_ascii_case("Sample") =>
            {
                let class = self.class.clone();
                self.tell(
                    Tier::Advice,
                    None,
                    self.sections.get("Version").map(Section::spot),
                    format!("{class} is no class of Windows', and the file has no [ClassInstall32] that installs it; add one, or take a class of Windows'"),
                );
            }
            _ => {}
        }
    }
}
