//! From the device's model to all that is installed for it: the `DDInstall` section and those that belong to it.
//!
//! Follows *INF DDInstall Section*, *INF DDInstall.HW Section* and *INF DDInstall.Services Section*. A section of another
//! INF (`Include`, `Needs`) is not read; one of this file that `Needs` names is.

pub use kernel::pnp::Filters;
use kernel::se::sddl;

use super::Inf;
use super::addreg::{Remarks, add_reg};
use super::error::{Outcome, Remark, fault};
use super::models::{DeviceIds, Match, best, ids, models};
use super::registry::{RegistryWrite, Root, Value, Write};
use super::sections::{Entry, Sections};
use super::service::{Service, Services, services};
use super::target::Target;
use crate::script::suggest::nearest;

/// What an INF installs for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    /// The INF, as the user knows it.
    pub file: String,
    /// The function driver's service.
    pub service: Service,
    /// The other drivers' services.
    pub other_services: Vec<Service>,
    /// The services of the filters of this device.
    pub filters: Filters,
    /// The services of the filters of each device of the class, if the INF installs the class.
    pub class_filters: Filters,
    /// Writes to the device's hardware key (`PLUGPLAY_REGKEY_DEVICE`), from `DDInstall.HW`.
    pub device_keys: Vec<RegistryWrite>,
    /// Writes to the device's software key (`PLUGPLAY_REGKEY_DRIVER`), from `DDInstall`.
    pub driver_keys: Vec<RegistryWrite>,
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
    /// All filters of the device, the class's behind its own: *Adding a PnP Device to a Running System*.
    #[must_use]
    pub fn all_filters(&self) -> Filters {
        let both = |own: &[String], class: &[String]| own.iter().chain(class).cloned().collect();
        Filters {
            lower: both(&self.filters.lower, &self.class_filters.lower),
            upper: both(&self.filters.upper, &self.class_filters.upper),
        }
    }

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
    let mut class_keys = of_class(sections, &mut remarks);
    let security = match security(&mut device_keys)? {
        Some(security) => Some(security),
        None => security(&mut class_keys)?,
    };
    let mut filters = filters(&mut device_keys)?;
    declared_filters(sections, &section, target, &mut filters, &mut remarks)?;
    let class_filters = self::filters(&mut class_keys)?;
    device_keys.retain(|write| !is_property(write, &mut remarks));

    let Some(list) = sections.get(&format!("{section}.Services")) else {
        return fault(
            Some(model.line),
            format!(
                "this installs [{section}], for which the file has no [{section}.Services]; \
                 add it (Windows looks for exactly this name, decoration before .Services)"
            ),
        );
    };
    let all = entries(sections, list.name, &mut remarks)?;
    let Services { function_driver, others } = services(sections, &all, list.line, &mut remarks)?;
    let driver_version = version(sections, "DriverVer");
    Ok(Installation {
        file: inf.file.clone(),
        service: function_driver,
        other_services: others,
        filters,
        class_filters,
        device_keys,
        driver_keys,
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
const PROPERTIES: [&str; 6] = [
    "DeviceCharacteristics",
    "DeviceType",
    "Exclusive",
    "LocationInformationOverride",
    "ResourcePickerTags",
    "ResourcePickerExceptions",
];

/// What the INF writes to the class's key, if it installs the class: `[ClassInstall32]`. Nothing else of that section is carried out.
fn of_class(sections: &Sections, remarks: &mut Remarks) -> Vec<RegistryWrite> {
    let section = [".NTamd64", ".NT", ""]
        .iter()
        .find_map(|decoration| sections.get(&format!("ClassInstall32{decoration}")));
    let Some(section) = section else { return Vec::new() };
    let entries = section.entries().filter(|entry| entry.is("AddReg"));
    // A section that it does not find is of no consequence here.
    entries.flat_map(|entry| add_reg(sections, entry, remarks).unwrap_or_default()).collect()
}

/// Takes the filters out of the writes to a device's or a class's key. Source: *Installing a Filter Driver*.
fn filters(writes: &mut Vec<RegistryWrite>) -> Outcome<Filters> {
    let mut filters = Filters::default();
    for (property, names) in [("LowerFilters", &mut filters.lower), ("UpperFilters", &mut filters.upper)] {
        while let Some(at) = writes.iter().position(|write| sets(write, property)) {
            let RegistryWrite { line, write, .. } = writes.remove(at);
            let Write::Set { value: Value::MultiSz(more), append, .. } = write else {
                return fault(
                    Some(line),
                    format!("{property} is a list: HKR,,{property},0x00010000,\"NameOfService\""),
                );
            };
            if !append {
                names.clear();
            }
            names.extend(more);
        }
    }
    Ok(filters)
}

/// The filters of `[DDInstall.Filters]`, which Windows knows since version 1903 of Windows 10. Source: *INF AddFilter Directive*. Levels of a base driver
/// package are not known here.
fn declared_filters(
    sections: &Sections,
    section: &str,
    target: Target,
    filters: &mut Filters,
    remarks: &mut Remarks,
) -> Outcome<()> {
    for entry in entries(sections, &format!("{section}.Filters"), remarks)? {
        let name = entry.value(0)?;
        if !entry.is("AddFilter") {
            let written = entry.raw_key().map_or(name, str::to_owned);
            remarks.name(entry.line(), format!("{written}: not a directive known in [{section}.Filters]"));
            continue;
        }
        if target.build < FIRST_WITH_ADD_FILTER {
            remarks.name(
                entry.line(),
                format!("AddFilter = {name}: this Windows does not know it; Windows 10 version 1903 does"),
            );
            continue;
        }
        let told = sections.led_to(&entry.value(2)?, entry.line())?;
        match told.value_of("FilterPosition").map(|position| position.to_lowercase()).as_deref() {
            Some("lower") => filters.lower.push(name),
            Some("upper") => filters.upper.push(name),
            Some(other) => {
                return fault(
                    Some(told.line),
                    format!("FilterPosition `{other}` of {name} is neither Upper nor Lower"),
                );
            }
            None if told.value_of("FilterLevel").is_some() => remarks.name(
                told.line,
                format!(
                    "FilterLevel of {name}: no base driver package defines levels here; it is not loaded"
                ),
            ),
            None => {
                return fault(
                    Some(told.line),
                    format!(
                        "[{}] says nothing of where {name} belongs; write FilterPosition = Upper",
                        told.name
                    ),
                );
            }
        }
    }
    Ok(())
}

/// Windows 10 version 1903.
const FIRST_WITH_ADD_FILTER: u32 = 18362;

/// Whether a write sets this value of the key itself.
fn sets(write: &RegistryWrite, value: &str) -> bool {
    write.root == Root::Relative
        && write.key.is_empty()
        && matches!(&write.write, Write::Set { name, .. } if name.eq_ignore_ascii_case(value))
}

/// Takes the device's security out of the writes to its key.
fn security(writes: &mut Vec<RegistryWrite>) -> Outcome<Option<String>> {
    let Some(at) = writes.iter().position(|write| sets(write, "Security")) else { return Ok(None) };
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
