//! From the device's model to all that is installed for it: the `DDInstall` section and those that belong to it.
//!
//! Follows *INF DDInstall Section* and the pages of the sections that belong to it. A section of another
//! INF (`Include`, `Needs`) is not read, and noted; one of this file that `Needs` names is read. What is deleted is deleted before anything is
//! written.

use std::collections::BTreeMap;

pub use kernel::pnp::Filters;
use kernel::pnp::install::Configuration;
use kernel::se::sddl;

use super::Inf;
use super::addreg::{Remarks, add_reg, del_reg};
use super::bit_reg::bit_reg;
use super::check::classes::needs_no_service;
use super::directives::{Effect, HARDWARE, INSTALL, INTERFACES, Known, PARTS, WDF, find};
use super::error::{Outcome, Remark, Spot, fault};
use super::filter::{self, DeclaredFilter, Levels};
use super::interface::{Interface, interface};
use super::log_config;
use super::models::{DeviceIds, Match, Model, actual, best, best_of_each, ids, models};
use super::property::{self, PropertyWrite};
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
    /// The function driver's service; none if another INF has it, or the device has no driver.
    pub service: Option<Service>,
    /// The other drivers' services.
    pub other_services: Vec<Service>,
    /// The services of the filters of this device that the registry lists: `LowerFilters` and `UpperFilters`.
    pub filters: Filters,
    /// Filters that say where they belong: `AddFilter`.
    pub declared_filters: Vec<DeclaredFilter>,
    /// The levels that such filters may name.
    pub filter_levels: Levels,
    /// The services of the filters of each device of the class, if the INF installs the class.
    pub class_filters: Filters,
    /// What `AddProperty` and `DelProperty` do to the device's properties.
    pub properties: Vec<PropertyWrite>,
    /// Writes to the device's hardware key (`PLUGPLAY_REGKEY_DEVICE`), from `DDInstall.HW`.
    pub device_keys: Vec<RegistryWrite>,
    /// Writes to the device's software key (`PLUGPLAY_REGKEY_DRIVER`), from `DDInstall`.
    pub driver_keys: Vec<RegistryWrite>,
    /// Device interfaces whose keys are written.
    pub interfaces: Vec<Interface>,
    /// The framework's version that the INF names, e.g. `1.15`.
    pub framework: Option<String>,
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
    /// How well it matched: `00GGTHHH`, the feature score and the identifier score, the less the better.
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
    /// Resources that the file has for the device.
    pub configuration: Configuration,
    /// What was passed over and cannot matter to the driver.
    pub ignored: Vec<Remark>,
    /// What was passed over and may matter to the driver: the user gets a note.
    pub unsupported: Vec<Remark>,
}

impl Installation {
    /// All filters of the device, the class's behind its own: *Adding a PnP Device to a Running System*.
    #[must_use]
    pub fn all_filters(&self) -> Filters {
        let (own, _) = filter::ordered(&self.filters, &self.declared_filters, &self.filter_levels);
        let both =
            |own: Vec<String>, class: &[String]| own.into_iter().chain(class.iter().cloned()).collect();
        Filters {
            lower: both(own.lower, &self.class_filters.lower),
            upper: both(own.upper, &self.class_filters.upper),
        }
    }

    /// Adds what an extension INF has for the device. Source: *Using an Extension INF File*. Whose device it is, its class, and the levels of its filters stay as
    /// the base INF has them.
    pub fn extend(&mut self, extension: Self) {
        self.other_services.extend(extension.service.into_iter().chain(extension.other_services));
        let lists = [
            (&mut self.filters.lower, extension.filters.lower),
            (&mut self.filters.upper, extension.filters.upper),
        ];
        for (own, more) in lists {
            own.extend(more.into_iter().filter(|name| !own.contains(name)).collect::<Vec<_>>());
        }
        let before = self.declared_filters.len();
        self.declared_filters.extend(extension.declared_filters);
        self.remark_lost_filters(before);
        self.properties.extend(extension.properties);
        self.device_keys.extend(extension.device_keys);
        self.driver_keys.extend(extension.driver_keys);
        self.interfaces.extend(extension.interfaces);
        self.ignored.extend(extension.ignored);
        self.unsupported.extend(extension.unsupported);
    }

    /// Tells of the declared filters from this one on whose level the base INF does not define.
    fn remark_lost_filters(&mut self, first: usize) {
        let (_, lost) =
            filter::ordered(&Filters::default(), &self.declared_filters[first..], &self.filter_levels);
        for DeclaredFilter { spot, name, place } in lost {
            let text = format!(
                "FilterLevel = {place}: no such level is defined for the device; {name} is not loaded"
            );
            self.unsupported.push(Remark::new(spot, text));
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
    written.split(['/', '-']).map(|part| part.trim().trim_start_matches('0')).collect::<Vec<_>>().join("-")
}

pub(super) fn installation(inf: &Inf, device: &DeviceIds, target: Target) -> Outcome<Installation> {
    let sections = &inf.sections;
    let models = models(sections, target)?;
    match best(sections, &models, device) {
        Some(found) => of_match(inf, &found, target),
        None => no_match(device, &ids(&models)),
    }
}

/// What the file installs for the devices with each of its ids alone: one installation for each install section, that of its first id, and all its ids. What cannot be
/// installed is left out.
pub(super) fn each(
    inf: &Inf,
    target: Target,
    wanted: impl Fn(&str) -> bool,
) -> Outcome<Vec<(Vec<String>, Installation)>> {
    let models = models(&inf.sections, target)?;
    let mut places: BTreeMap<String, Option<usize>> = BTreeMap::new();
    let mut all: Vec<(Vec<String>, Installation)> = Vec::new();
    for (id, found) in best_of_each(&inf.sections, &models) {
        if !wanted(&id) {
            continue;
        }
        let Ok(section) = section_of(&inf.sections, found.model) else { continue };
        let place = *places.entry(section).or_insert_with(|| {
            let installation = of_match(inf, &found, target).ok()?;
            all.push((Vec::new(), installation));
            Some(all.len() - 1)
        });
        if let Some(place) = place {
            all[place].0.push(id);
        }
    }
    Ok(all)
}

/// The install section of a model, with its decoration.
fn section_of(sections: &Sections, model: &Model) -> Outcome<String> {
    match actual(sections, &model.install) {
        Some(section) => Ok(section.name.to_owned()),
        None => Ok(sections.led_to(&model.install, model.spot)?.name.to_owned()),
    }
}

fn of_match(inf: &Inf, found: &Match<'_>, target: Target) -> Outcome<Installation> {
    let sections = &inf.sections;
    let Match { model, rank, id } = found;
    let section = section_of(sections, model)?;
    let mut remarks = Remarks::default();
    remark_parts(sections, &section, &mut remarks);
    let driver_keys = keys(sections, &section, INSTALL, &mut remarks)?;
    let mut device_keys = keys(sections, &format!("{section}.HW"), HARDWARE, &mut remarks)?;
    let mut class_keys = of_class(sections, &mut remarks);
    let security = match security(&mut device_keys)? {
        Some(security) => Some(security),
        None => security(&mut class_keys)?,
    };
    let filters = filter::registered(&mut device_keys)?;
    let levels = Levels::of(&device_keys);
    let declared = filter::declared(sections, &section, target, &mut remarks)?;
    let class_filters = filter::registered(&mut class_keys)?;
    device_keys.retain(|write| !is_property(write, &mut remarks));
    let properties = properties(sections, &section, &mut remarks)?;
    let interfaces = interfaces(sections, &section, &mut remarks)?;
    let framework = framework(sections, &section, &mut remarks)?;
    let Services { function_driver, others, .. } = of_services(inf, &section, model.spot, &mut remarks)?;
    let configuration = log_config::configuration(sections, &section, id, &mut remarks)?;
    let own = sections.get(&section).and_then(|section| section.entry("DriverVer"));
    let own = own.map(Entry::values).transpose()?;
    let driver_version = own.unwrap_or_else(|| version(sections, "DriverVer"));
    let mut installation = Installation {
        file: inf.file.clone(),
        service: function_driver,
        other_services: others,
        filters,
        declared_filters: declared,
        filter_levels: levels,
        class_filters,
        properties,
        device_keys,
        driver_keys,
        interfaces,
        framework,
        class: inf.class.clone(),
        class_guid: inf.class_guid.clone(),
        description: model.description.clone(),
        manufacturer: model.manufacturer.clone(),
        matched_id: id.clone(),
        rank: *rank,
        section,
        provider: version(sections, "Provider").into_iter().next().unwrap_or_default(),
        version: driver_version.get(1).cloned().unwrap_or_default(),
        date: driver_version.first().map(|written| date(written)).unwrap_or_default(),
        security,
        configuration,
        ignored: remarks.ignored,
        unsupported: remarks.unsupported,
    };
    if !inf.is_extension() {
        installation.remark_lost_filters(0);
    }
    Ok(installation)
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

/// The services of an install section. That there is none is an error where the file says nothing of another INF's.
fn of_services(inf: &Inf, section: &str, model: Spot, remarks: &mut Remarks) -> Outcome<Services> {
    let sections = &inf.sections;
    let Some(list) = sections.get(&format!("{section}.Services")) else {
        if needs_no_service(&inf.class) {
            return Ok(Services::default());
        }
        return fault(
            Some(model),
            format!(
                "this installs [{section}], for which the file has no [{section}.Services]; \
                 add it (Windows looks for exactly this name, decoration before .Services)"
            ),
        );
    };
    let all = entries(sections, list.name, remarks)?;
    let services = services(sections, &all, remarks)?;
    let elsewhere = |entry: &Entry<'_>| entry.is("Needs") || entry.is("Include");
    if services.function_driver.is_some()
        || services.has_null_driver
        || list.entries().any(|entry| elsewhere(&entry))
        || needs_no_service(&inf.class)
    {
        return Ok(services);
    }
    fault(
        Some(list.spot()),
        "no AddService has the flag 0x00000002 (SPSVCINST_ASSOCSERVICE), so that the device gets no driver; \
         write `AddService = Name, 0x00000002, Section`"
            .to_owned(),
    )
}

/// The sections that belong to the install section and are not read.
fn remark_parts(sections: &Sections, install: &str, remarks: &mut Remarks) {
    for part in PARTS {
        let Some(section) = sections.get(&format!("{install}.{}", part.section.name)) else { continue };
        let text = |what: &str| format!("[{}]: {what}", section.name);
        match part.section.effect {
            Effect::Done => {}
            Effect::Harmless(why) => remarks.ignore(section.spot(), text(why)),
            Effect::Missing(what) => remarks.name(section.spot(), text(what)),
        }
    }
}

/// What `AddReg` and `DelReg` of a section write and delete, deletions first.
pub(super) fn keys(
    sections: &Sections,
    name: &str,
    known: &[Known],
    remarks: &mut Remarks,
) -> Outcome<Vec<RegistryWrite>> {
    let (mut deleted, mut written) = (Vec::new(), Vec::new());
    for entry in entries(sections, name, remarks)? {
        if entry.is("AddReg") {
            written.extend(add_reg(sections, entry, remarks)?);
        } else if entry.is("DelReg") {
            deleted.extend(del_reg(sections, entry, remarks)?);
        } else if entry.is("BitReg") {
            written.extend(bit_reg(sections, entry, remarks)?);
        } else {
            pass_over(entry, known, remarks);
        }
    }
    deleted.extend(written);
    Ok(deleted)
}

/// The interfaces of `DDInstall.Interfaces`.
fn interfaces(sections: &Sections, section: &str, remarks: &mut Remarks) -> Outcome<Vec<Interface>> {
    let mut all = Vec::new();
    for entry in entries(sections, &format!("{section}.Interfaces"), remarks)? {
        if entry.is("AddInterface") {
            all.push(interface(sections, entry, remarks)?);
        } else {
            pass_over(entry, INTERFACES, remarks);
        }
    }
    Ok(all)
}

/// What the install section does to the device's properties.
fn properties(sections: &Sections, section: &str, remarks: &mut Remarks) -> Outcome<Vec<PropertyWrite>> {
    let mut all = Vec::new();
    for entry in entries(sections, section, &mut Remarks::default())? {
        property::writes(sections, entry, remarks, &mut all)?;
    }
    Ok(all)
}

/// The version of the framework that `DDInstall.Wdf` names. Source: *INF DDInstall.Wdf Section*. What the driver binds as is compared with it.
fn framework(sections: &Sections, section: &str, remarks: &mut Remarks) -> Outcome<Option<String>> {
    let mut version = None;
    for entry in entries(sections, &format!("{section}.Wdf"), remarks)? {
        if entry.is("KmdfService") {
            version = sections.led_to(&entry.value(1)?, entry.spot_of(1))?.value_of("KmdfLibraryVersion");
        } else {
            pass_over(entry, WDF, remarks);
        }
    }
    Ok(version)
}

/// The entries of a section, and of the sections of this file that its `Needs` names.
pub(super) fn entries<'a>(
    sections: &'a Sections,
    name: &str,
    remarks: &mut Remarks,
) -> Outcome<Vec<Entry<'a>>> {
    let Some(section) = sections.get(name) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for entry in section.entries() {
        if entry.is("Include") {
            remarks.name(
                entry.spot(),
                format!("Include = {}: other INF files are not read", entry.values()?.join(", ")),
            );
        } else if entry.is("Needs") {
            for needed in entry.values()? {
                match sections.get(&needed) {
                    // Needs cannot be nested: those of the section are passed over.
                    Some(section) => all.extend(section.entries().filter(|entry| !entry.is("Needs"))),
                    None => {
                        remarks
                            .name(entry.spot(), format!("Needs = {needed}: a section of another INF file"));
                    }
                }
            }
        } else {
            all.push(entry);
        }
    }
    Ok(all)
}

/// Notes a directive that is not carried out.
pub(super) fn pass_over(entry: Entry<'_>, known: &[Known], remarks: &mut Remarks) {
    let written = entry.raw_key().unwrap_or_else(|| entry.raw_value(0));
    match find(known, written).map(|known| (known.name, known.effect)) {
        Some((_, Effect::Done)) => {}
        Some((name, Effect::Harmless(why))) => remarks.ignore(entry.spot(), format!("{name}: {why}")),
        Some((name, Effect::Missing(what))) => remarks.name(entry.spot(), format!("{name}: {what}")),
        None => {
            let hint = nearest(written, known.iter().map(|known| known.name));
            let hint = hint.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            remarks.name(entry.spot(), format!("{written}: not a directive known here{hint}"));
        }
    }
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
    let Some(section) = actual(sections, "ClassInstall32") else { return Vec::new() };
    let entries = section.entries().filter(|entry| entry.is("AddReg"));
    // A section that it does not find is of no consequence here.
    entries.flat_map(|entry| add_reg(sections, entry, remarks).unwrap_or_default()).collect()
}

/// Whether a write sets or deletes this value of the key itself.
pub(super) fn concerns(write: &RegistryWrite, value: &str) -> bool {
    write.root == Root::Relative
        && write.key.is_empty()
        && write.write.name().is_some_and(|name| name.eq_ignore_ascii_case(value))
}

/// Takes the device's security out of the writes to its key.
fn security(writes: &mut Vec<RegistryWrite>) -> Outcome<Option<String>> {
    let Some(at) = writes.iter().position(|write| concerns(write, "Security")) else { return Ok(None) };
    let RegistryWrite { spot, write, .. } = writes.remove(at);
    if matches!(write, Write::DeleteValue { .. }) {
        return security(writes);
    }
    let Write::Set { value: Value::Sz(text), .. } = write else {
        return fault(
            Some(spot),
            "Security is a text: HKR,,Security,,\"D:P(A;;GA;;;SY)(A;;GA;;;BA)\"".to_owned(),
        );
    };
    match sddl::parse(&text) {
        Ok(_) => Ok(Some(text)),
        Err(why) => fault(Some(spot), format!("Security: {why}")),
    }
}

fn is_property(write: &RegistryWrite, remarks: &mut Remarks) -> bool {
    let Write::Set { name, .. } = &write.write else { return false };
    let known = PROPERTIES.iter().find(|property| property.eq_ignore_ascii_case(name));
    match known {
        Some(property) if write.root == Root::Relative && write.key.is_empty() => {
            remarks
                .name(write.spot, format!("{property}: a property of the device, which is not given to it"));
            true
        }
        _ => false,
    }
}
