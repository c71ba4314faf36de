//! `[DDInstall.Services]`: the driver's service.
//!
//! Follows *INF AddService Directive*. The service that the device is given (`SPSVCINST_ASSOCSERVICE`) is its function driver; the others may be
//! its filters. Those that are no drivers are named as unsupported. Event logs, security and load order are passed over.

use super::addreg::{Remarks, add_reg};
use super::error::{Outcome, fault};
use super::registry::RegistryWrite;
use super::sections::{Entry, Section, Sections};
use super::target::number;

/// `SPSVCINST_ASSOCSERVICE`: the service is the device's function driver.
const FUNCTION_DRIVER: u32 = 2;

/// A driver's service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name: its key is `\Registry\Machine\System\CurrentControlSet\Services\NAME`.
    pub name: String,
    /// Its display name.
    pub display_name: Option<String>,
    /// `Type`: 1 kernel driver, 2 file system driver.
    pub kind: u32,
    /// `Start`: 0 boot, 1 system, 2 automatic, 3 on demand.
    pub start: u32,
    /// `ErrorControl`: 0 ignore … 3 critical.
    pub error_control: u32,
    /// The driver's file name, e.g. `pci9052.sys`.
    pub binary: String,
    /// Where the file is in the machine: `ImagePath`. Of the driver store only the part that no installation adds to.
    pub image_path: String,
    /// Writes to the service's key.
    pub keys: Vec<RegistryWrite>,
}

impl Service {
    /// The service of a driver that no INF installs.
    pub(crate) fn of_file(file: &str, name: String) -> Self {
        Self {
            name,
            display_name: None,
            kind: 1,
            start: 3,
            error_control: 1,
            binary: file.to_owned(),
            image_path: format!(r"\SystemRoot\System32\drivers\{file}"),
            keys: Vec::new(),
        }
    }
}

/// The services of a device: its function driver's, and the others.
pub(super) struct Services {
    pub(super) function_driver: Service,
    pub(super) others: Vec<Service>,
}

/// The services of the `AddService` entries; `line` is where the services section begins.
pub(super) fn services(
    sections: &Sections,
    entries: &[Entry<'_>],
    line: usize,
    remarks: &mut Remarks,
) -> Outcome<Services> {
    let mut chosen: Option<Entry<'_>> = None;
    let mut others = Vec::new();
    for &entry in entries.iter().filter(|entry| entry.is("AddService")) {
        let written = entry.value(1)?;
        let flags = if written.is_empty() { Some(0) } else { number(&written) };
        let Some(flags) = flags else {
            return fault(
                Some(entry.line()),
                format!("the flags `{written}` of AddService are not a number; write 0x00000002"),
            );
        };
        if flags & FUNCTION_DRIVER == 0 {
            others.extend(other_service(sections, entry, remarks)?);
        } else if let Some(first) = chosen {
            return fault(
                Some(entry.line()),
                format!(
                    "this is a second function driver (flag 0x00000002); the first is on line {}: keep one",
                    first.line()
                ),
            );
        } else {
            chosen = Some(entry);
        }
    }
    match chosen {
        Some(entry) => Ok(Services { function_driver: service(sections, entry, remarks)?, others }),
        None => fault(
            Some(line),
            "no AddService has the flag 0x00000002 (SPSVCINST_ASSOCSERVICE), so that the device gets no driver; \
             write `AddService = Name, 0x00000002, Section`"
                .to_owned(),
        ),
    }
}

/// A service that is not the function driver's: none if it is no kernel driver, which nothing here would start.
fn other_service(sections: &Sections, entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Option<Service>> {
    let section = sections.led_to(&entry.value(2)?, entry.line())?;
    let kind = section.value_of("ServiceType").and_then(|written| number(&written));
    if kind.is_some_and(|kind| !(1..=2).contains(&kind)) {
        remarks.name(
            entry.line(),
            format!("AddService = {}: a service of user mode; not started", entry.value(0)?),
        );
        return Ok(None);
    }
    service(sections, entry, remarks).map(Some)
}

fn service(sections: &Sections, entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Service> {
    let (name, section) = (entry.value(0)?, entry.value(2)?);
    if name.is_empty() {
        return fault(
            Some(entry.line()),
            "the device is given no driver (the null driver); name a service: `AddService = Name, 2, Section`"
                .to_owned(),
        );
    }
    if section.is_empty() {
        return fault(Some(entry.line()), format!("AddService = {name} names no service-install section"));
    }
    if entry.len() > 3 {
        remarks.ignore(entry.line(), "the event log's section".to_owned());
    }
    let section = sections.led_to(&section, entry.line())?;
    let kind = required(section, "ServiceType", "1", 1..=2)?;
    let start = required(section, "StartType", "3", 0..=3)?;
    let error_control = required(section, "ErrorControl", "1", 0..=3)?;
    let (binary, image_path) = binary(section)?;
    let mut keys = Vec::new();
    for entry in section.entries() {
        keys.extend(other(sections, entry, remarks)?);
    }
    Ok(Service {
        name,
        display_name: section.value_of("DisplayName"),
        kind,
        start,
        error_control,
        binary,
        image_path,
        keys,
    })
}

fn other(sections: &Sections, entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Vec<RegistryWrite>> {
    let key = entry.raw_key().unwrap_or_default();
    match key.to_lowercase().as_str() {
        "addreg" => return add_reg(sections, entry, remarks),
        "servicetype" | "starttype" | "errorcontrol" | "servicebinary" | "displayname" => {}
        "description" | "loadordergroup" | "dependencies" | "security" | "startname"
        | "requiredprivileges" | "servicesidtype" | "delayedautostart" | "addtrigger" | "failureactions"
        | "bootflags" | "delreg" => {
            remarks.ignore(entry.line(), format!("{key}: of no effect on the driver here"));
        }
        _ => remarks.name(entry.line(), format!("{key}: not a directive known in a service-install section")),
    }
    Ok(Vec::new())
}

fn required(
    section: Section<'_>,
    key: &str,
    usual: &str,
    range: std::ops::RangeInclusive<u32>,
) -> Outcome<u32> {
    let Some(entry) = section.entries().find(|entry| entry.is(key)) else {
        return fault(
            Some(section.line),
            format!("[{}] has no `{key}`, which a service needs; write {key} = {usual}", section.name),
        );
    };
    let written = entry.value(0)?;
    match number(&written) {
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) if key == "ServiceType" => fault(
            Some(entry.line()),
            format!("ServiceType {value:#x} is not a kernel driver (0x1); only kernel drivers can run here"),
        ),
        Some(4) if key == "StartType" => fault(
            Some(entry.line()),
            "StartType 4 is a disabled service, which Windows does not install; write 3".to_owned(),
        ),
        _ => fault(
            Some(entry.line()),
            format!("{key} `{written}` is not a number from {} to {}", range.start(), range.end()),
        ),
    }
}

/// `%dirid%\file`: the file's name and its path in the machine. Source: *Using Dirids*.
fn binary(section: Section<'_>) -> Outcome<(String, String)> {
    let Some(entry) = section.entries().find(|entry| entry.is("ServiceBinary")) else {
        return fault(
            Some(section.line),
            format!("[{}] has no `ServiceBinary`; write ServiceBinary = %12%\\name.sys", section.name),
        );
    };
    let written = entry.value(0)?;
    let wrong = |what: &str| {
        fault(
            Some(entry.line()),
            format!("ServiceBinary `{written}` {what}; write %12%\\name.sys or %13%\\name.sys"),
        )
    };
    let Some((dirid, path)) = written.strip_prefix('%').and_then(|rest| rest.split_once('%')) else {
        return wrong("does not begin with a directory's number");
    };
    let folder = match dirid {
        "10" => "\\SystemRoot",
        "11" => "\\SystemRoot\\System32",
        "12" => "\\SystemRoot\\System32\\drivers",
        "13" => "\\SystemRoot\\System32\\DriverStore\\FileRepository",
        _ => return wrong("names a directory that is not known here"),
    };
    let path = path.trim_start_matches('\\');
    let file = path.rsplit('\\').next().unwrap_or_default();
    if file.is_empty() {
        return wrong("names no file");
    }
    if file.contains(['=', '<', '>', ':', '|', '?', '*', '/']) {
        return wrong("is no file's name (a backslash at a line's end continues the line)");
    }
    Ok((file.to_owned(), format!("{folder}\\{path}")))
}
