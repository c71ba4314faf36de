//! `dirql inf`: what is wrong with an INF file, and what it installs for each device.

use std::path::Path;

use anyhow::Result;
use dirql::inf::{
    self, DefaultInstallation, Filters, Finding, Inf, Installation, PropertyChange, PropertyWrite,
    RegistryWrite, Root, Service, Tier, Value, Write,
};
use dirql::{Error, InputError, windows};
use serde_json::json;

use crate::arguments::InfFile;
use crate::out::say;

/// An install section, the ids that lead to it, and what it installs.
struct Device {
    ids: Vec<String>,
    installation: Installation,
}

/// Tells both; 1 if the file has an error.
///
/// # Errors
/// The file cannot be read, or has no model for the device.
pub(crate) fn run(arguments: &InfFile) -> Result<u8> {
    let file = arguments.file.display().to_string();
    let bytes = read(&arguments.file)?;
    let findings = inf::check(&file, &bytes).map_err(|error| Error::Input(error.into()))?;
    let target = windows::target(windows::parse(&arguments.windows).map_err(Error::Input)?);
    let parsed = inf::parse(&file, &bytes).ok();
    let devices = match &parsed {
        Some(inf) => devices(inf, target, arguments.device.as_deref())?,
        None => Vec::new(),
    };
    // What is wrong with it is among the findings.
    let default = parsed.as_ref().and_then(Inf::default_installation).and_then(Result::ok);
    if arguments.json {
        say!("{}", object(&file, &findings, &devices, default.as_ref()));
    } else {
        findings.iter().for_each(|finding| show_finding(&file, finding));
        devices.iter().for_each(show);
        default.iter().for_each(show_default);
        say!("{}", sum(&findings, devices.len() + usize::from(default.is_some()), &file));
    }
    Ok(u8::from(findings.iter().any(|finding| finding.tier == Tier::Error)))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let message = format!("cannot read {}: {error}; name an INF file", path.display());
        Error::Input(InputError::new(message)).into()
    })
}

/// What is installed for each device, or for one. What keeps a device from being installed is among the findings.
fn devices(inf: &Inf, target: inf::Target, only: Option<&str>) -> Result<Vec<Device>> {
    let mut ids = inf.ids(target).unwrap_or_default();
    if let Some(only) = only {
        let wanted = match only.split_once(':') {
            Some((vendor, device)) if is_hexadecimal(vendor) && is_hexadecimal(device) => {
                [format!("VEN_{vendor}&DEV_{device}"), format!("VID_{vendor}&PID_{device}")]
                    .map(|id| id.to_uppercase())
            }
            _ => {
                return unusable(format!(
                    "`{only}` is not VVVV:DDDD, e.g. 10b5:9050: vendor and device with four hexadecimal digits each"
                ));
            }
        };
        let known = if ids.is_empty() { "none for this Windows".to_owned() } else { ids.join(", ") };
        ids.retain(|id| wanted.iter().any(|wanted| id.to_uppercase().contains(wanted)));
        if ids.is_empty() {
            return unusable(format!("the file has no model for the device {only}; its ids are: {known}"));
        }
    }
    let each = inf.described_each(target, |id| ids.iter().any(|wanted| wanted == id)).unwrap_or_default();
    Ok(each.into_iter().map(|(ids, installation)| Device { ids, installation }).collect())
}

fn is_hexadecimal(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn unusable<T>(message: String) -> Result<T> {
    Err(Error::Input(InputError::new(message)).into())
}

fn show_finding(file: &str, finding: &Finding) {
    let spot = finding.spot.map(|spot| format!(":{spot}")).unwrap_or_default();
    let number = finding.infverif.map(|number| format!(" (InfVerif {number})")).unwrap_or_default();
    say!("{file}{spot}: {}: {}{number}", finding.tier, finding.message);
}

fn show(device: &Device) {
    let Device { ids, installation } = device;
    say!("");
    say!("{}", ids.join(", "));
    let row = |what: &str, text: &str| say!("  {what:13} {text}");
    let Installation { description, manufacturer, section, class, .. } = installation;
    row(
        "device",
        &format!(
            "{description}, of {manufacturer}; class {class}; [{section}], rank {:08X}",
            installation.rank
        ),
    );
    match &installation.service {
        Some(service) => show_service("driver", service),
        None => row("driver", "none of this file's own"),
    }
    for service in &installation.other_services {
        show_service("service", service);
    }
    if let Some(version) = &installation.framework {
        row("framework", &format!("KMDF {version}"));
    }
    let filters = installation.all_filters();
    filters.upper.iter().for_each(|name| row("filter above", name));
    filters.lower.iter().for_each(|name| row("filter below", name));
    for (side, levels) in
        [("above", &installation.filter_levels.upper), ("below", &installation.filter_levels.lower)]
    {
        if let Some(default) = levels.names.get(levels.default) {
            row("filter levels", &format!("{side}: {}; {default} by default", levels.names.join(", ")));
        }
    }
    for filter in installation.declared_filters.iter().filter(|filter| !is_there(&filters, &filter.name)) {
        row("filter", &format!("{}, at the level {} of another INF's", filter.name, filter.place));
    }
    installation.properties.iter().for_each(|write| row("property", &property(write)));
    if let Some(security) = &installation.security {
        row("security", security);
    }
    installation.device_keys.iter().for_each(|write| row("hardware key", &written(write)));
    installation.driver_keys.iter().for_each(|write| row("software key", &written(write)));
    for interface in &installation.interfaces {
        row("interface", format!("{} {}", interface.class, interface.reference).trim_end());
        interface.keys.iter().for_each(|write| row("", &written(write)));
        interface.properties.iter().for_each(|write| row("", &format!("property {}", property(write))));
    }
    for remark in &installation.unsupported {
        row("noted", &format!("line {}: {}", remark.line, remark.text));
    }
}

/// Whether a filter has a place in the stack.
fn is_there(filters: &Filters, name: &str) -> bool {
    filters.upper.iter().chain(&filters.lower).any(|own| own.eq_ignore_ascii_case(name))
}

/// What is installed without a device.
fn show_default(installation: &DefaultInstallation) {
    say!("");
    say!("[{}], without a device", installation.section);
    let row = |what: &str, text: &str| say!("  {what:13} {text}");
    for service in &installation.services {
        show_service("driver", service);
    }
    installation.keys.iter().for_each(|write| row("registry", &written(write)));
    if let Some(uninstall) = &installation.uninstall {
        let when = if uninstall.is_legacy { "before Windows 10 version 1903" } else { "by who calls it" };
        row("undone", &format!("by [{}], {when}", uninstall.section));
        uninstall.services.iter().for_each(|name| row("", &format!("the service {name} is deleted")));
        uninstall.keys.iter().for_each(|write| row("", &written(write)));
    }
    for remark in &installation.unsupported {
        row("noted", &format!("line {}: {}", remark.line, remark.text));
    }
}

/// A property as `{GUID}, number = value`.
fn property(write: &PropertyWrite) -> String {
    let name = write.name.map_or_else(|| format!("{}, {}", write.format, write.number), str::to_owned);
    match &write.change {
        PropertyChange::Set { value, .. } => format!("{name} = {}", shown(value)),
        PropertyChange::Delete => format!("{name} is deleted"),
        PropertyChange::DeleteText(text) => format!("{name} without {text:?}"),
    }
}

fn show_service(what: &str, service: &Service) {
    let start = match service.start {
        0 => "at boot",
        1 => "with the system",
        2 => "by itself",
        _ => "on demand",
    };
    say!("  {what:13} {}: {}, started {start}", service.name, service.image_path);
    service.keys.iter().for_each(|write| say!("  {:13}   {}", "", written(write)));
}

/// A write as `Key\Name = value`.
fn written(write: &RegistryWrite) -> String {
    let root = match write.root {
        Root::Relative => "",
        Root::LocalMachine => "HKLM\\",
    };
    let name = |name: &str| match (write.key.as_str(), name) {
        ("", "") => format!("{root}(unnamed)"),
        ("", name) => format!("{root}{name}"),
        (key, "") => format!("{root}{key}\\(unnamed)"),
        (key, name) => format!("{root}{key}\\{name}"),
    };
    match &write.write {
        Write::Key => format!("{root}{}\\", write.key),
        Write::Set { name: own, value, .. } => format!("{} = {}", name(own), shown(value)),
        Write::DeleteValue { name: own } => format!("{} is deleted", name(own)),
        Write::DeleteText { name: own, text } => format!("{} without {text:?}", name(own)),
        Write::Bits { name: own, set, mask, byte } => {
            format!(
                "{}: bits {mask:#04x} of byte {byte} are {}",
                name(own),
                if *set { "set" } else { "cleared" }
            )
        }
        Write::DeleteKey => format!("{root}{}\\ is deleted", write.key),
    }
}

fn shown(value: &Value) -> String {
    let bytes = |data: &[u8]| data.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ");
    match value {
        Value::Sz(text) => format!("{text:?}"),
        Value::ExpandSz(text) => format!("{text:?} (expanded)"),
        Value::MultiSz(texts) => format!("{texts:?}"),
        Value::Dword(number) => format!("{number:#x}"),
        Value::Binary(data) => bytes(data),
        Value::Other { kind, data } => format!("{} (type {kind})", bytes(data)).trim_start().to_owned(),
    }
}

/// How many findings of each tier there are.
fn sum(findings: &[Finding], installed: usize, file: &str) -> String {
    let count = |tier| findings.iter().filter(|finding| finding.tier == tier).count();
    let (errors, warnings, advice) = (count(Tier::Error), count(Tier::Warning), count(Tier::Advice));
    let line = if installed == 0 && findings.is_empty() { "" } else { "\n" };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    format!(
        "{line}{file}: {errors} error{}, {warnings} warning{}, {advice} advice",
        plural(errors),
        plural(warnings)
    )
}

fn object(
    file: &str,
    findings: &[Finding],
    devices: &[Device],
    default: Option<&DefaultInstallation>,
) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "tier": finding.tier.to_string(), "infverif": finding.infverif, "message": finding.message,
            "line": finding.spot.map(|spot| spot.line), "column": finding.spot.map(|spot| spot.column),
        })
    };
    let writes = |writes: &[RegistryWrite]| writes.iter().map(written).collect::<Vec<_>>();
    let properties = |writes: &[PropertyWrite]| writes.iter().map(property).collect::<Vec<_>>();
    let service = |service: &Service| {
        json!({
            "name": service.name, "display_name": service.display_name, "image_path": service.image_path,
            "type": service.kind, "start": service.start, "error_control": service.error_control,
            "keys": writes(&service.keys),
        })
    };
    let device = |device: &Device| {
        let installation = &device.installation;
        let filters = installation.all_filters();
        let interfaces: Vec<_> = installation
            .interfaces
            .iter()
            .map(|it| json!({ "class": it.class, "reference": it.reference, "keys": writes(&it.keys), "properties": properties(&it.properties) }))
            .collect();
        let noted: Vec<_> = installation
            .unsupported
            .iter()
            .map(|it| json!({ "line": it.line, "column": it.column, "text": it.text }))
            .collect();
        json!({
            "ids": device.ids, "description": installation.description, "manufacturer": installation.manufacturer,
            "class": installation.class, "class_guid": installation.class_guid, "section": installation.section,
            "rank": installation.rank, "driver": installation.service.as_ref().map(service),
            "services": installation.other_services.iter().map(service).collect::<Vec<_>>(),
            "framework": installation.framework, "upper_filters": filters.upper, "lower_filters": filters.lower,
            "security": installation.security, "hardware_key": writes(&installation.device_keys),
            "software_key": writes(&installation.driver_keys), "interfaces": interfaces, "noted": noted,
            "properties": properties(&installation.properties),
        })
    };
    let without_device = |installation: &DefaultInstallation| {
        let uninstall = installation.uninstall.as_ref();
        let uninstall = uninstall.map(|it| {
            json!({ "section": it.section, "legacy": it.is_legacy, "services": it.services, "registry": writes(&it.keys) })
        });
        json!({
            "section": installation.section, "services": installation.services.iter().map(service).collect::<Vec<_>>(),
            "registry": writes(&installation.keys), "uninstall": uninstall,
        })
    };
    json!({
        "file": file,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "devices": devices.iter().map(device).collect::<Vec<_>>(),
        "default_install": default.map(without_device),
    })
}
