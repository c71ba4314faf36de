//! `[DefaultInstall]` and `[DefaultUninstall]`: a driver that no device has, which Windows calls a primitive driver.
//!
//! Follows *INF DefaultInstall Section*, *INF DefaultInstall.Services Section* and *Creating a new primitive driver*. What is installed is carried out: the services and what is
//! written below `HKLM`. What `[DefaultUninstall]` says is only shown: Windows 10 version 1903 and later undo what was installed by themselves.

use super::addreg::Remarks;
use super::directives::INSTALL;
use super::error::{Outcome, Remark};
use super::install::{entries, keys};
use super::models::actual;
use super::registry::RegistryWrite;
use super::sections::Sections;
use super::service::{Service, services};

/// What an INF installs without a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefaultInstallation {
    /// The install section, with its decoration.
    pub section: String,
    /// The drivers' services.
    pub services: Vec<Service>,
    /// Writes to the registry; none is relative, for there is no device.
    pub keys: Vec<RegistryWrite>,
    /// What is undone by `[DefaultUninstall]`, if there is one.
    pub uninstall: Option<DefaultUninstallation>,
    /// What was passed over and cannot matter to the driver.
    pub ignored: Vec<Remark>,
    /// What was passed over and may matter to the driver.
    pub unsupported: Vec<Remark>,
}

/// What `[DefaultUninstall]` undoes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefaultUninstallation {
    /// The section, with its decoration.
    pub section: String,
    /// Whether Windows 10 version 1903 and later pass it over: `LegacyUninstall = 1`.
    pub is_legacy: bool,
    /// The services that it deletes.
    pub services: Vec<String>,
    /// What it writes to the registry and deletes there.
    pub keys: Vec<RegistryWrite>,
}

/// What the file installs without a device; none if it has no such section for x64.
pub(super) fn default_installation(sections: &Sections) -> Option<Outcome<DefaultInstallation>> {
    let section = actual(sections, "DefaultInstall")?;
    Some(installation(sections, section.name))
}

fn installation(sections: &Sections, section: &str) -> Outcome<DefaultInstallation> {
    let mut remarks = Remarks::default();
    let keys = keys(sections, section, INSTALL, &mut remarks)?;
    let list = entries(sections, &format!("{section}.Services"), &mut remarks)?;
    let found = services(sections, &list, &mut remarks)?;
    Ok(DefaultInstallation {
        section: section.to_owned(),
        services: found.function_driver.into_iter().chain(found.others).collect(),
        keys,
        uninstall: uninstallation(sections)?,
        ignored: remarks.ignored,
        unsupported: remarks.unsupported,
    })
}

fn uninstallation(sections: &Sections) -> Outcome<Option<DefaultUninstallation>> {
    let Some(section) = actual(sections, "DefaultUninstall") else { return Ok(None) };
    // What would be passed over there is of no consequence: nothing of it is carried out.
    let mut remarks = Remarks::default();
    let keys = keys(sections, section.name, INSTALL, &mut remarks)?;
    let mut services = Vec::new();
    for entry in entries(sections, &format!("{}.Services", section.name), &mut remarks)? {
        if entry.is("DelService") {
            services.push(entry.value(0)?);
        }
    }
    let is_legacy = section.value_of("LegacyUninstall").is_some_and(|value| value == "1");
    Ok(Some(DefaultUninstallation { section: section.name.to_owned(), is_legacy, services, keys }))
}
