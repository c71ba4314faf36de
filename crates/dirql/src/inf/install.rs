//! From the device's model to all that is installed for it: the `DDInstall` section and those that belong to it.
//!
//! Follows *INF DDInstall Section*, *INF DDInstall.HW Section* and *INF DDInstall.Services Section*. A section of another
//! INF (`Include`, `Needs`) is not read; one of this file that `Needs` names is.

use kernel::se::sddl;

use super::Inf;
use super::addreg::{Remarks, add_reg};
use super::error::{Outcome, Remark, fault};
use super::models::{DeviceIds, Match, best, ids, models};
use super::registry::{RegistryWrite, Root, Value, Write};
use super::sections::{Entry, Sections};
use super::service::function_driver;
use super::target::Target;
use crate::script::suggest::nearest;

/// What an INF installs for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    /// The INF, as the user knows it.
    pub file: String,
    /// The service's name: its key is `\Registry\Machine\System\CurrentControlSet\Services\NAME`.
    pub service: String,
    /// The service's display name.
    pub display_name: Option<String>,
    /// The driver's file name, e.g. `pci9052.sys`.
    pub binary: String,
    /// Where the file is in the machine: `ImagePath`. Of the driver store only the part that no installation adds to.
    pub image_path: String,
    /// `Type`: 1 kernel driver, 2 file system driver.
    pub service_type: u32,
    /// `Start`: 0 boot, 1 system, 2 automatic, 3 on demand.
    pub start_type: u32,
    /// `ErrorControl`: 0 ignore … 3 critical.
    pub error_control: u32,
    /// Writes to the device's hardware key (`PLUGPLAY_REGKEY_DEVICE`), from `DDInstall.HW`.
    pub device_keys: Vec<RegistryWrite>,
    /// Writes to the device's software key (`PLUGPLAY_REGKEY_DRIVER`), from `DDInstall`.
    pub driver_keys: Vec<RegistryWrite>,
    /// Writes to the service's key.
    pub service_keys: Vec<RegistryWrite>,
    /// The setup class's name.
    pub class: String,
    /// The setup class's GUID in braces, if the file gives it.
    pub class_guid: Option<String>,
    /// The device's description.
    pub description: String,
    /// The manufacturer's name.
    pub manufacturer: String,
    /// The id in the file that matched the device.
    pub matched_id: String,
    /// How well it matched: the identifier score, the less the better.
    pub rank: u32,
    /// The install section, with its decoration.
    pub section: String,
    /// The file's provider.
    pub provider: String,
    /// `DriverVer`'s version, `1.0.0.0`; empty if there is none.
    pub version: String,
    /// `DriverVer`'s date as the registry has it, `1-31-2025`; empty if there is none.
    pub date: String,
    /// Who may open the device, as SDDL: `HKR,,Security,,"…"` of `DDInstall.HW`, or else of the class's `ClassInstall32`.
    pub security: Option<String>,
    /// What was passed over and cannot matter to the driver.
    pub ignored: Vec<Remark>,
    /// What was passed over and may matter to the driver: to be told to the user.
    pub unsupported: Vec<Remark>,
}

impl Installation {
    /// The install section without its decoration, and the decoration.
    #[must_use]
    pub fn undecorated(&self) -> [String; 2] {
        let lower = self.section.to_lowercase();
        let at =
            [".ntamd64", ".nt"].iter().find_map(|decoration| lower.strip_suffix(decoration)).map(str::len);
        let (name, decoration) = self.section.split_at(at.unwrap_or(self.section.len()));
        [name.to_owned(), decoration.to_owned()]
    }
}

/// The values of an entry of `[Version]`; none if it is not there.
fn version(sections: &Sections, name: &str) -> Vec<String> {
    let entry = sections.get("Version").and_then(|section| section.entries().find(|entry| entry.is(name)));
    entry.and_then(|entry| entry.values().ok()).unwrap_or_default()
}

/// `01/31/2025` as `1-31-2025`.
fn date(written: &str) -> String {
    written.split('/').map(|part| part.trim().trim_start_matches('0')).collect::<Vec<_>>().join("-")
}

pub(super) fn installation(inf: &Inf, device: &DeviceIds, target: Target) -> Outcome<Installation> {
    let sections = &inf.sections;
    let models = models(sections, target)?;
    let Some(Match { model, rank, id }) = best(&models, device) else {
        return no_match(device, &ids(&models));
    };
    let section = actual_section(sections, &model.install, model.line)?;
    let mut remarks = Remarks::default();
    remark_sections(sections, &section, &mut remarks);

    let mut driver_keys = Vec::new();
    for entry in entries(sections, &section, &mut remarks)? {
        driver_keys.extend(directive(sections, entry, INSTALL, &mut remarks)?);
    }
    let mut device_keys = Vec::new();
    for entry in entries(sections, &format!("{section}.HW"), &mut remarks)? {
        device_keys.extend(directive(sections, entry, HARDWARE, &mut remarks)?);
    }
    let security = match security(&mut device_keys)? {
        Some(security) => Some(security),
        None => security_of_class(sections)?,
    };
    device_keys.retain(|write| !is_property(write, &mut remarks));

    let Some(services) = sections.get(&format!("{section}.Services")) else {
        return fault(
            Some(model.line),
            format!(
                "this installs [{section}], for which the file has no [{section}.Services]; \
                 add it (Windows looks for exactly this name, decoration before .Services)"
            ),
        );
    };
    let all = entries(sections, services.name, &mut remarks)?;
    let service = function_driver(sections, &all, services.line, &mut remarks)?;
    let driver_version = version(sections, "DriverVer");
    Ok(Installation {
        file: inf.file.clone(),
        service: service.name,
        display_name: service.display_name,
        binary: service.binary,
        image_path: service.image_path,
        service_type: service.kind,
        start_type: service.start,
        error_control: service.error_control,
        device_keys,
        driver_keys,
        service_keys: service.keys,
        class: inf.class.clone(),
        class_guid: inf.class_guid.clone(),
        description: model.description.clone(),
        manufacturer: model.manufacturer.clone(),
        matched_id: id,
        rank,
        section,
        provider: version(sections, "Provider").into_iter().next().unwrap_or_default(),
        version: driver_version.get(1).cloned().unwrap_or_default(),
        date: driver_version.first().map(|written| date(written)).unwrap_or_default(),
        security,
        ignored: remarks.ignored,
        unsupported: remarks.unsupported,
    })
}

fn no_match<T>(device: &DeviceIds, ids: &[String]) -> Outcome<T> {
    let own: Vec<&str> = device.hardware.iter().chain(&device.compatible).map(String::as_str).collect();
    let list = |ids: &[String]| {
        let shown: Vec<&str> = ids.iter().take(20).map(String::as_str).collect();
        let more = if ids.len() > 20 { format!(" and {} more", ids.len() - 20) } else { String::new() };
        format!("{}{more}", shown.join(", "))
    };
    let owned: Vec<String> = own.iter().map(|&id| id.to_owned()).collect();
    fault(
        None,
        format!(
            "no model in the file matches the device; the device is: {}; the file has: {}; \
             take a device that the file names, or add the device's id to a model",
            if owned.is_empty() { "(without ids)".to_owned() } else { list(&owned) },
            if ids.is_empty() { "no ids for this Windows".to_owned() } else { list(ids) },
        ),
    )
}

/// The install section with the decoration that x64 prefers.
fn actual_section(sections: &Sections, install: &str, line: usize) -> Outcome<String> {
    for decoration in [".NTamd64", ".NT", ""] {
        if let Some(section) = sections.get(&format!("{install}{decoration}")) {
            return Ok(section.name.to_owned());
        }
    }
    sections.led_to(install, line).map(|section| section.name.to_owned())
}

/// Sections that belong to the install section and are not read.
fn remark_sections(sections: &Sections, install: &str, remarks: &mut Remarks) {
    for (suffix, harmless, what) in [
        ("CoInstallers", true, "co-installers run in user mode"),
        ("Components", true, "components are user mode's"),
        ("Software", true, "software is user mode's"),
        ("FactDef", true, "resources come from the bus"),
        ("Wdf", false, "the framework's version is not looked at"),
        ("Interfaces", false, "device interfaces are not made by the INF"),
        ("LogConfigOverride", false, "resources are the bus's alone"),
        ("Filters", false, "filter drivers are not loaded"),
        ("Events", false, "events are not made"),
    ] {
        if let Some(section) = sections.get(&format!("{install}.{suffix}")) {
            let text = format!("[{}]: {what}", section.name);
            if harmless { remarks.ignore(section.line, text) } else { remarks.name(section.line, text) }
        }
    }
}

/// The entries of a section, and of the sections of this file that its `Needs` names.
fn entries<'a>(sections: &'a Sections, name: &str, remarks: &mut Remarks) -> Outcome<Vec<Entry<'a>>> {
    let Some(section) = sections.get(name) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for entry in section.entries() {
        if entry.is("Include") {
            remarks.name(
                entry.line(),
                format!("Include = {}: other INF files are not read", entry.values()?.join(", ")),
            );
        } else if entry.is("Needs") {
            for needed in entry.values()? {
                match sections.get(&needed) {
                    // Needs cannot be nested: those of the section are passed over.
                    Some(section) => all.extend(section.entries().filter(|entry| !entry.is("Needs"))),
                    None => {
                        remarks.name(entry.line(), format!("Needs = {needed}: a section of another INF file"))
                    }
                }
            }
        } else {
            all.push(entry);
        }
    }
    Ok(all)
}

/// A directive that is passed over, and whether that cannot matter to the driver.
type Passed = &'static [(&'static str, bool)];

const INSTALL: Passed = &[
    ("CopyFiles", true),
    ("CopyINF", true),
    ("DelFiles", true),
    ("RenFiles", true),
    ("DriverVer", true),
    ("FeatureScore", true),
    ("ExcludeID", true),
    ("ProfileItems", true),
    ("UpdateInis", true),
    ("UpdateIniFields", true),
    ("Ini2Reg", true),
    ("RegisterDlls", true),
    ("UnregisterDlls", true),
    ("Reboot", true),
    ("DelReg", true),
    ("LogConfig", true),
    ("AddProperty", false),
    ("DelProperty", false),
    ("BitReg", false),
    ("AddFilter", false),
];

const HARDWARE: Passed =
    &[("DelReg", true), ("AddProperty", false), ("DelProperty", false), ("BitReg", false)];

fn directive(
    sections: &Sections,
    entry: Entry<'_>,
    passed: Passed,
    remarks: &mut Remarks,
) -> Outcome<Vec<RegistryWrite>> {
    if entry.is("AddReg") {
        return add_reg(sections, entry, remarks);
    }
    let written = match entry.raw_key() {
        Some(key) => key.to_owned(),
        None => entry.value(0)?,
    };
    match passed.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written)) {
        Some((name, true)) => {
            remarks.ignore(entry.line(), format!("{name}: of no effect on the driver here"))
        }
        Some((name, false)) => remarks.name(entry.line(), format!("{name}: not carried out")),
        None => {
            let known = passed.iter().map(|(name, _)| *name).chain(["AddReg", "Include", "Needs"]);
            let hint = nearest(&written, known).map(|near| format!("; did you mean {near}?"));
            remarks.name(
                entry.line(),
                format!("{written}: not a directive known here{}", hint.unwrap_or_default()),
            );
        }
    }
    Ok(Vec::new())
}

/// Names in a hardware section's `HKR` that are not values of the key but properties of the device.
const PROPERTIES: [&str; 8] = [
    "DeviceCharacteristics",
    "DeviceType",
    "Exclusive",
    "UpperFilters",
    "LowerFilters",
    "LocationInformationOverride",
    "ResourcePickerTags",
    "ResourcePickerExceptions",
];

/// Who may open devices of the class, if the INF installs that: `[ClassInstall32]`. Nothing else of that section is carried out.
fn security_of_class(sections: &Sections) -> Outcome<Option<String>> {
    let mut remarks = Remarks::default();
    for decoration in [".NTamd64", ".NT", ""] {
        let Some(section) = sections.get(&format!("ClassInstall32{decoration}")) else { continue };
        let mut writes = Vec::new();
        for entry in section.entries().filter(|entry| entry.is("AddReg")) {
            // A section that it does not find is of no consequence here.
            writes.extend(add_reg(sections, entry, &mut remarks).unwrap_or_default());
        }
        return security(&mut writes);
    }
    Ok(None)
}

/// Takes the device's security out of the writes to its key.
fn security(writes: &mut Vec<RegistryWrite>) -> Outcome<Option<String>> {
    let is_it = |write: &RegistryWrite| {
        write.root == Root::Relative
            && write.key.is_empty()
            && matches!(&write.write, Write::Set { name, .. } if name.eq_ignore_ascii_case("Security"))
    };
    let Some(at) = writes.iter().position(is_it) else { return Ok(None) };
    let RegistryWrite { line, write, .. } = writes.remove(at);
    let Write::Set { value: Value::Sz(text), .. } = write else {
        return fault(
            Some(line),
            "Security is a text: HKR,,Security,,\"D:P(A;;GA;;;SY)(A;;GA;;;BA)\"".to_owned(),
        );
    };
    match sddl::parse(&text) {
        Ok(_) => Ok(Some(text)),
        Err(why) => fault(Some(line), format!("Security: {why}")),
    }
}

fn is_property(write: &RegistryWrite, remarks: &mut Remarks) -> bool {
    let Write::Set { name, .. } = &write.write else { return false };
    let known = PROPERTIES.iter().find(|property| property.eq_ignore_ascii_case(name));
    match known {
        Some(property) if write.root == Root::Relative && write.key.is_empty() => {
            remarks
                .name(write.line, format!("{property}: a property of the device, which is not given to it"));
            true
        }
        _ => false,
    }
}
