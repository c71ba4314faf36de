//! `[Version]`: what every INF file says about itself.
//!
//! Follows *INF Version Section* and *INF DriverVer Directive*.

use super::classes::{self, Class};
use super::{Tier, Walk};
use crate::inf::interface::is_guid;
use crate::inf::sections::{Entry, Section};
use crate::script::suggest::nearest;

const ENTRIES: &[&str] = &[
    "Signature",
    "Class",
    "ClassGuid",
    "Provider",
    "DriverVer",
    "CatalogFile",
    "PnpLockdown",
    "ExtensionId",
    "DriverPackageDisplayName",
    "DriverPackageType",
    "DontReflectOffline",
    "LayoutFile",
    "DriverIsolation",
    "TargetDevice",
    "SetupClass",
    "LayoutFile.NT",
];

impl<'a> Walk<'a> {
    pub(super) fn version(&mut self) {
        let Some(version) = self.sections.get("Version") else {
            self.tell(
                Tier::Error,
                Some(1001),
                None,
                "there is no [Version] section, which every INF has; begin the file with it",
            );
            return;
        };
        self.signature(version);
        self.class(version);
        self.provider(version);
        self.driver_version(version);
        let is_catalog = |entry: Entry<'_>| {
            entry.raw_key().is_some_and(|key| key.to_lowercase().starts_with("catalogfile"))
        };
        if !version.entries().any(is_catalog) {
            self.error(
                1233,
                version.spot(),
                "[Version] has no CatalogFile, without which the package cannot be signed; write CatalogFile = name.cat",
            );
        }
        for entry in version.entries() {
            self.entry_of_version(entry);
        }
        match version.value_of("PnpLockdown") {
            Some(value) if value.trim() == "1" => {}
            _ => self.advice(
                version.spot(),
                "[Version] has no PnpLockdown = 1, which protects the package's files",
            ),
        }
    }

    fn signature(&mut self, version: Section<'a>) {
        let needed = "write Signature = \"$Windows NT$\"";
        let Some(entry) = version.entry("Signature") else {
            self.error(1001, version.spot(), format!("[Version] has no Signature; {needed}"));
            return;
        };
        let signature = self.value(entry, 0);
        if !["$windows nt$", "$chicago$"].contains(&signature.to_lowercase().as_str()) {
            self.error(
                1001,
                entry.spot_of(0),
                format!("the signature `{signature}` is not one that Windows accepts; {needed}"),
            );
        }
    }

    fn class(&mut self, version: Section<'a>) {
        let named = version.entry("Class").map(|entry| (self.value(entry, 0), entry.spot_of(0)));
        let guid = version.entry("ClassGuid").map(|entry| (self.value(entry, 0), entry.spot_of(0)));
        let given = guid.as_ref().and_then(|(guid, _)| classes::by_guid(guid));
        match &named {
            Some((class, spot)) if class.chars().count() > 32 => {
                self.error(0, *spot, "the class's name has more than 32 characters; shorten it");
            }
            Some((class, _)) if !class.is_empty() => self.class.clone_from(class),
            _ => {
                let usual = given.map_or("System", |class| class.name);
                self.error(1233, version.spot(), format!("[Version] has no Class; write Class = {usual}, the name that belongs to the ClassGuid"));
            }
        }
        let of_name = classes::by_name(&self.class);
        match guid {
            None => {
                let guid = of_name.map_or("{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}", |class| class.guid);
                self.error(
                    1233,
                    version.spot(),
                    format!("[Version] has no ClassGuid; write ClassGuid = {guid}"),
                );
            }
            Some((guid, spot)) if !is_guid(&guid) => {
                self.error(
                    0,
                    spot,
                    format!(
                        "ClassGuid `{guid}` is not a GUID; write {{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}}"
                    ),
                );
            }
            Some((guid, spot)) => match (of_name, given) {
                (Some(Class { name, guid: own }), _) if !own.eq_ignore_ascii_case(&guid) => {
                    self.error(0, spot, format!("the class {name} of Windows has the GUID {own}; write that, or give a class of your own another name"));
                }
                (None, Some(Class { name, .. })) if !self.class.is_empty() => {
                    let class = self.class.clone();
                    self.error(0, spot, format!("this GUID is that of Windows' class {name}, and the file's class is {class}; write Class = {name}, or make a GUID of your own"));
                }
                _ => {}
            },
        }
        if self.class.eq_ignore_ascii_case("Extension") {
            let id = version.entry("ExtensionId").map(|entry| (self.value(entry, 0), entry.spot_of(0)));
            match id {
                None => self.error(
                    1233,
                    version.spot(),
                    "an extension INF needs an ExtensionId; make a GUID and write ExtensionId = {GUID}",
                ),
                Some((id, spot)) if !is_guid(&id) => {
                    self.error(0, spot, format!("ExtensionId `{id}` is not a GUID"))
                }
                Some(_) => {}
            }
        }
    }

    fn provider(&mut self, version: Section<'a>) {
        let Some(entry) = version.entry("Provider") else {
            self.error(1233, version.spot(), "[Version] has no Provider; write Provider = %Name%, and Name = \"Your company\" in [Strings]");
            return;
        };
        let provider = self.value(entry, 0);
        if provider.is_empty() {
            self.error(1233, entry.spot(), "Provider is empty; write your company's name");
        } else if provider.trim().eq_ignore_ascii_case("Microsoft") {
            self.error(1204, entry.spot_of(0), "Provider cannot be Microsoft; write your company's name");
        }
    }

    fn driver_version(&mut self, version: Section<'a>) {
        let needed = "write DriverVer = mm/dd/yyyy,1.0.0.0";
        let Some(entry) = version.entry("DriverVer") else {
            self.error(1233, version.spot(), format!("[Version] has no DriverVer; {needed}"));
            return;
        };
        let (date, number) = (self.value(entry, 0), self.value(entry, 1));
        if !is_date(&date) {
            self.error(
                0,
                entry.spot_of(0),
                format!("DriverVer's date `{date}` is not one; {needed}, month before day"),
            );
        }
        if number.is_empty() {
            self.warning(
                0,
                entry.spot(),
                format!("DriverVer has no version, which tells packages of one day apart; {needed}"),
            );
        } else if !is_version(&number) {
            self.error(
                0,
                entry.spot_of(1),
                format!("DriverVer's version `{number}` is not w.x.y.z with numbers up to 65535; {needed}"),
            );
        }
    }

    fn entry_of_version(&mut self, entry: Entry<'a>) {
        let Some(key) = entry.raw_key() else {
            self.warning(0, entry.spot(), "this line of [Version] has no `=`; write Name = value");
            return;
        };
        let plain = key.split('.').next().unwrap_or(key);
        if key.eq_ignore_ascii_case("DontReflectOffline") {
            self.warning(0, entry.spot(), "DontReflectOffline is Windows' own; remove it");
        } else if !ENTRIES.iter().any(|known| known.eq_ignore_ascii_case(plain)) {
            let hint = nearest(plain, ENTRIES.iter().copied()).map(|near| format!("; did you mean {near}?"));
            self.warning(
                0,
                entry.spot(),
                format!("{key} is not an entry of [Version]{}", hint.unwrap_or_default()),
            );
        } else if plain.eq_ignore_ascii_case("CatalogFile") {
            let name = self.value(entry, 0);
            if !name.to_lowercase().ends_with(".cat") {
                self.error(
                    0,
                    entry.spot_of(0),
                    format!("CatalogFile `{name}` is not a catalog; write name.cat"),
                );
            }
        }
    }
}

fn is_date(date: &str) -> bool {
    let parts: Option<Vec<u32>> = date.split(['/', '-']).map(|part| part.trim().parse().ok()).collect();
    let Some([month, day, year]) = parts.as_deref() else { return false };
    let days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=12).contains(month) && (1..=days).contains(day) && (1980..=9999).contains(year)
}

fn is_version(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    let is_number = |part: &&str| !part.starts_with('+') && part.trim().parse::<u16>().is_ok();
    (1..=4).contains(&parts.len()) && parts.iter().all(is_number)
}
