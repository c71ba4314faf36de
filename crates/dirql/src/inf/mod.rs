//! INF files: which driver a device gets, and what is written to the registry for it.
//!
//! Follows *INF File Sections and Directives* and *General Syntax Rules for INF Files*. It copies no files, runs no
//! co-installers and reads no other INF; what it passes over is listed in [`Installation::ignored`] where that cannot
//! matter to the driver, and in [`Installation::unsupported`] where it can.

mod addreg;
mod bit_reg;
mod check;
mod default_install;
mod directives;
mod encoding;
mod error;
mod filter;
mod folders;
mod install;
mod interface;
mod log_config;
mod models;
mod property;
mod reader;
mod registry;
mod sections;
mod service;
mod strings;
mod target;
#[cfg(test)]
mod tests;

pub use check::{Finding, Tier, check};
pub use default_install::{DefaultInstallation, DefaultUninstallation};
pub(crate) use encoding::text_of;
pub use error::{Error, Remark, Spot};
pub(crate) use error::{Outcome, fault};
pub use filter::{DeclaredFilter, Levels, Place, Side, SideLevels};
pub use install::{Filters, Installation};
pub use interface::Interface;
pub use models::DeviceIds;
pub use property::{Combine, PropertyChange, PropertyWrite};
pub use registry::{RegistryWrite, Root, Value, Write};
pub use service::Service;
pub use target::Target;

use sections::Sections;

/// An INF file whose form and `[Version]` are right.
#[derive(Clone, Debug)]
pub struct Inf {
    file: String,
    sections: Sections,
    /// `Class` of `[Version]`: the device setup class's name.
    class: String,
    /// `ClassGuid` of `[Version]`, as written.
    class_guid: Option<String>,
}

/// The longest file that is read, in bytes; Windows' own largest are below 1 MB.
pub const MAX_FILE: usize = 8 << 20;

/// Reads an INF file. `file` is its name as the user knows it.
///
/// # Errors
/// What is no INF, or not an INF that Windows accepts: with the line and what to do about it.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Inf, Error> {
    read(file, bytes).map_err(|fault| fault.of(file))
}

fn read(file: &str, bytes: &[u8]) -> error::Outcome<Inf> {
    let text = encoding::decode(bytes)?;
    let sections = Sections::parse(text)?;
    let Some(version) = sections.get("Version") else {
        return error::fault(
            None,
            "there is no [Version] section, which every INF has; is this an INF file?".to_owned(),
        );
    };
    check_signature(version)?;
    let Some(class) = version.value_of("Class").filter(|class| !class.is_empty()) else {
        return error::fault(
            Some(version.spot()),
            "[Version] has no `Class`, which a PnP driver's INF needs; name the device's setup class there"
                .to_owned(),
        );
    };
    let class_guid = version.value_of("ClassGuid");
    Ok(Inf { file: file.to_owned(), class, class_guid, sections })
}

fn check_signature(version: sections::Section<'_>) -> error::Outcome<()> {
    let needed = "write Signature = \"$Windows NT$\"";
    let Some(entry) = version.entries().find(|entry| entry.is("Signature")) else {
        return error::fault(Some(version.spot()), format!("[Version] has no `Signature`; {needed}"));
    };
    let signature = entry.value(0)?;
    if ["$windows nt$", "$chicago$"].contains(&signature.to_lowercase().as_str()) {
        return Ok(());
    }
    error::fault(
        Some(entry.spot_of(0)),
        format!("the signature `{signature}` is not one that Windows accepts; {needed}"),
    )
}

/// The class of extension INFs. Source: *Using an Extension INF File*.
const EXTENSION: &str = "{E2F84CE7-8EFA-411C-AA69-97454CA4CB57}";

impl Inf {
    /// Whether this is an extension INF: it adds to what another one, the base INF, installs for a device.
    #[must_use]
    pub fn is_extension(&self) -> bool {
        self.class_guid.as_deref().is_some_and(|class| class.eq_ignore_ascii_case(EXTENSION))
    }

    /// What is installed for a device on a version of Windows: the best match of all models in the file.
    ///
    /// # Errors
    /// No model matches (the message lists both sides' ids), a section that the match leads to is missing or wrong, or the file has no
    /// function driver for the device: it is another INF's, or the device has none.
    pub fn installation(&self, device: &DeviceIds, target: Target) -> Result<Installation, Error> {
        let installation = self.described(device, target)?;
        match installation.service {
            Some(_) => Ok(installation),
            None => Err(error::Fault {
                spot: None,
                message: format!(
                    "[{}] gives the device no driver of this file's own, so that there is none to run; take the INF of its function driver",
                    installation.section
                ),
            }
            .of(&self.file)),
        }
    }

    /// The same, where the function driver may be another INF's, or the device has none.
    ///
    /// # Errors
    /// As [`Inf::installation`].
    pub fn described(&self, device: &DeviceIds, target: Target) -> Result<Installation, Error> {
        install::installation(self, device, target).map_err(|fault| fault.of(&self.file))
    }

    /// What the file installs without a device (`[DefaultInstall]`); none if it is for devices.
    ///
    /// # Errors
    /// The sections are wrong.
    #[must_use]
    pub fn default_installation(&self) -> Option<Result<DefaultInstallation, Error>> {
        let found = default_install::default_installation(&self.sections)?;
        Some(found.map_err(|fault| fault.of(&self.file)))
    }

    /// What an extension INF adds for a device; none if it has no model for it.
    ///
    /// # Errors
    /// The sections of the model are missing or wrong.
    pub fn extension(&self, device: &DeviceIds, target: Target) -> Option<Result<Installation, Error>> {
        let models = match models::models(&self.sections, target) {
            Ok(models) => models,
            Err(fault) => return Some(Err(fault.of(&self.file))),
        };
        models::best(&self.sections, &models, device).map(|_| self.described(device, target))
    }

    /// As [`Inf::described`] for the devices with each of the file's ids alone that is `wanted`: one installation for each install section, that of the
    /// first of its ids, and its ids. What cannot be installed is left out; the models are looked at once.
    ///
    /// # Errors
    /// The models sections are missing or wrong.
    pub fn described_each(
        &self,
        target: Target,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(Vec<String>, Installation)>, Error> {
        install::each(self, target, wanted).map_err(|fault| fault.of(&self.file))
    }

    /// The device ids in the file's models for this version of Windows, each once, in the order of the file.
    ///
    /// # Errors
    /// The models sections are missing or wrong.
    pub fn ids(&self, target: Target) -> Result<Vec<String>, Error> {
        let models = models::models(&self.sections, target).map_err(|fault| fault.of(&self.file))?;
        Ok(models::ids(&models))
    }
}
