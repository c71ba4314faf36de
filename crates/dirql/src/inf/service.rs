//! `[DDInstall.Services]`: the driver's service.
//!
//! Follows *INF AddService Directive*. Only the service that the device is given (`SPSVCINST_ASSOCSERVICE`) is installed;
//! filters and user-mode services are named as unsupported. Event logs, security and load order are passed over.

use super::addreg::{Remarks, add_reg};
use super::error::{Outcome, fault};
use super::registry::RegistryWrite;
use super::sections::{Entry, Section, Sections};
use super::target::number;

/// `SPSVCINST_ASSOCSERVICE`: the service is the device's function driver.
const FUNCTION_DRIVER: u32 = 2;

/// The function driver's service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) display_name: Option<String>,
    pub(super) kind: u32,
    pub(super) start: u32,
    pub(super) error_control: u32,
    pub(super) binary: String,
    pub(super) image_path: String,
    pub(super) keys: Vec<RegistryWrite>,
}

/// The function driver among the `AddService` entries; `line` is where the services section begins.
pub(super) fn function_driver(
    sections: &Sections,
    entries: &[Entry<'_>],
    line: usize,
    remarks: &mut Remarks,
) -> Outcome<Service> {
    let mut chosen: Option<Entry<'_>> = None;
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
            let name = entry.value(0)?;
            remarks.name(
                entry.line(),
                format!("AddService = {name}: not the device's function driver; not loaded"),
            );
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
        Some(entry) => service(sections, entry, remarks),
        None => fault(
            Some(line),
            "no AddService has the flag 0x00000002 (SPSVCINST_ASSOCSERVICE), so that the device gets no driver; \
             write `AddService = Name, 0x00000002, Section`"
                .to_owned(),
        ),
    }
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
