//! `[DDInstall.Services]`: the driver's service.
//!
//! Follows *INF AddService Directive*. The service that the device is given (`SPSVCINST_ASSOCSERVICE`) is its function driver; the others may be
//! its filters. Those that are no drivers are named as unsupported.

use super::addreg::{Remarks, add_reg, del_reg};
use super::bit_reg::bit_reg;
use super::directives::{EVENT_LOG, SERVICE, SERVICES};
use super::error::{Outcome, fault};
use super::folders;
use super::install::pass_over;
use super::registry::{RegistryWrite, Root, Value, Write};
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
#[derive(Default)]
pub(super) struct Services {
    pub(super) function_driver: Option<Service>,
    /// Whether the file says that the device needs no driver (`AddService = ,2`).
    pub(super) has_null_driver: bool,
    pub(super) others: Vec<Service>,
}

/// The services of the entries of a services section.
pub(super) fn services(
    sections: &Sections,
    entries: &[Entry<'_>],
    remarks: &mut Remarks,
) -> Outcome<Services> {
    let mut chosen: Option<Entry<'_>> = None;
    let mut found = Services::default();
    for &entry in entries {
        if !entry.is("AddService") {
            pass_over(entry, SERVICES, remarks);
            continue;
        }
        let flags = flags(entry)?;
        if flags & FUNCTION_DRIVER == 0 {
            found.others.extend(other_service(sections, entry, remarks)?);
        } else if let Some(first) = chosen.replace(entry) {
            return fault(
                Some(entry.spot()),
                format!(
                    "this is a second function driver (flag 0x00000002); the first is on line {}: keep one",
                    first.spot().line
                ),
            );
        } else if entry.value(0)?.is_empty() {
            found.has_null_driver = true;
        } else {
            found.function_driver = Some(service(sections, entry, remarks)?);
        }
    }
    Ok(found)
}

/// The flags of an `AddService` entry.
pub(super) fn flags(entry: Entry<'_>) -> Outcome<u32> {
    let written = entry.value(1)?;
    match number(&written) {
        Some(flags) => Ok(flags),
        None if written.is_empty() => Ok(0),
        None => fault(
            Some(entry.spot_of(1)),
            format!("the flags `{written}` of AddService are not a number; write 0x00000002"),
        ),
    }
}

/// Whether an `AddService` entry gives the device its function driver.
pub(super) fn is_function_driver(flags: u32) -> bool {
    flags & FUNCTION_DRIVER != 0
}

/// A service that is not the function driver's: none if it is no kernel driver, which nothing here would start.
fn other_service(sections: &Sections, entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Option<Service>> {
    let section = sections.led_to(&entry.value(2)?, entry.spot_of(2))?;
    let kind = section.value_of("ServiceType").and_then(|written| number(&written));
    if kind.is_some_and(|kind| !(1..=2).contains(&kind)) {
        remarks.name(
            entry.spot(),
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
            Some(entry.spot()),
            "this AddService names no service; write `AddService = Name, , Section`".to_owned(),
        );
    }
    if section.is_empty() {
        return fault(Some(entry.spot()), format!("AddService = {name} names no service-install section"));
    }
    let log = event_log(sections, entry, &name, remarks)?;
    let section = sections.led_to(&section, entry.spot_of(2))?;
    let kind = required(section, "ServiceType", "1", 1..=2)?;
    let start = required(section, "StartType", "3", 0..=3)?;
    let error_control = required(section, "ErrorControl", "1", 0..=3)?;
    let (binary, image_path) = binary(section)?;
    let (mut keys, mut written) = (Vec::new(), Vec::new());
    for entry in section.entries() {
        if entry.is("AddReg") {
            written.extend(add_reg(sections, entry, remarks)?);
        } else if entry.is("DelReg") {
            keys.extend(del_reg(sections, entry, remarks)?);
        } else if entry.is("BitReg") {
            written.extend(bit_reg(sections, entry, remarks)?);
        } else if entry.is("Dependencies") {
            keys.extend(dependencies(entry)?);
        } else if let Some(value) = value(entry)? {
            keys.push(set(entry, value.0, value.1));
        } else {
            pass_over(entry, SERVICE, remarks);
        }
    }
    keys.extend(written);
    keys.extend(log);
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

/// The value of the service's key that a directive stands for: *HKLM\SYSTEM\CurrentControlSet\Services Registry Tree*.
fn value(entry: Entry<'_>) -> Outcome<Option<(&'static str, Value)>> {
    let key = entry.raw_key().unwrap_or_default().to_lowercase();
    Ok(Some(match key.as_str() {
        "description" => ("Description", Value::Sz(entry.value(0)?)),
        "loadordergroup" => ("Group", Value::Sz(entry.value(0)?)),
        "startname" => ("ObjectName", Value::Sz(entry.value(0)?)),
        "bootflags" => match number(&entry.value(0)?) {
            Some(flags) => ("BootFlags", Value::Dword(flags)),
            None => return fault(Some(entry.spot_of(0)), "BootFlags is not a number; write 0x1".to_owned()),
        },
        _ => return Ok(None),
    }))
}

/// What a driver waits for: services, and groups, which are written with a `+`.
fn dependencies(entry: Entry<'_>) -> Outcome<Vec<RegistryWrite>> {
    let (groups, services): (Vec<String>, Vec<String>) =
        entry.values()?.into_iter().partition(|name| name.starts_with('+'));
    let groups = groups.iter().map(|group| group.trim_start_matches('+').to_owned()).collect();
    let lists = [("DependOnService", services), ("DependOnGroup", groups)];
    let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
    Ok(lists.map(|(name, names)| set(entry, name, Value::MultiSz(names))).collect())
}

/// A value of the service's own key.
fn set(entry: Entry<'_>, name: &str, value: Value) -> RegistryWrite {
    let write = Write::Set {
        name: name.to_owned(),
        value,
        keep_existing: false,
        only_existing: false,
        append: false,
    };
    RegistryWrite { spot: entry.spot(), root: Root::Relative, key: String::new(), write }
}

/// What the event log's section writes: `AddService = name, flags, section, event-log-section, [log], [event name]`.
fn event_log(
    sections: &Sections,
    entry: Entry<'_>,
    service: &str,
    remarks: &mut Remarks,
) -> Outcome<Vec<RegistryWrite>> {
    let named = entry.value(3)?;
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let or =
        |index, usual: &str| entry.value(index).map(|it| if it.is_empty() { usual.to_owned() } else { it });
    let (log, source) = (or(4, "System")?, or(5, service)?);
    let own = format!(r"System\CurrentControlSet\Services\EventLog\{log}\{source}");
    let mut keys = Vec::new();
    for directive in sections.led_to(&named, entry.spot_of(3))?.entries() {
        if directive.is("AddReg") {
            keys.extend(add_reg(sections, directive, remarks)?);
        } else if directive.is("DelReg") {
            keys.splice(0..0, del_reg(sections, directive, remarks)?);
        } else if directive.is("BitReg") {
            keys.extend(bit_reg(sections, directive, remarks)?);
        } else {
            pass_over(directive, EVENT_LOG, remarks);
        }
    }
    for write in keys.iter_mut().filter(|write| write.root == Root::Relative) {
        write.root = Root::LocalMachine;
        write.key = format!(r"{own}\{}", write.key).trim_end_matches('\\').to_owned();
    }
    Ok(keys)
}

fn required(
    section: Section<'_>,
    key: &str,
    usual: &str,
    range: std::ops::RangeInclusive<u32>,
) -> Outcome<u32> {
    let Some(entry) = section.entries().find(|entry| entry.is(key)) else {
        return fault(
            Some(section.spot()),
            format!("[{}] has no `{key}`, which a service needs; write {key} = {usual}", section.name),
        );
    };
    let written = entry.value(0)?;
    match number(&written) {
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) if key == "ServiceType" => fault(
            Some(entry.spot_of(0)),
            format!("ServiceType {value:#x} is not a kernel driver (0x1); only kernel drivers can run here"),
        ),
        Some(4) if key == "StartType" => fault(
            Some(entry.spot_of(0)),
            "StartType 4 is a disabled service, which Windows does not install; write 3".to_owned(),
        ),
        _ => fault(
            Some(entry.spot_of(0)),
            format!("{key} `{written}` is not a number from {} to {}", range.start(), range.end()),
        ),
    }
}

/// `%dirid%\file`: the file's name and its path in the machine. Source: *Using Dirids*.
fn binary(section: Section<'_>) -> Outcome<(String, String)> {
    let Some(entry) = section.entries().find(|entry| entry.is("ServiceBinary")) else {
        return fault(
            Some(section.spot()),
            format!("[{}] has no `ServiceBinary`; write ServiceBinary = %12%\\name.sys", section.name),
        );
    };
    let written = entry.value(0)?;
    let wrong = |what: &str| {
        fault(
            Some(entry.spot_of(0)),
            format!("ServiceBinary `{written}` {what}; write %12%\\name.sys or %13%\\name.sys"),
        )
    };
    let (folder, path) = match folders::expand(&written) {
        Some(Ok(found)) => found,
        Some(Err(_)) => return wrong("names a directory that Windows does not know"),
        None => return wrong("does not begin with a directory's number"),
    };
    let file = path.rsplit('\\').next().unwrap_or_default();
    if file.is_empty() {
        return wrong("names no file");
    }
    if path[folder.path.len()..].contains(['=', '<', '>', '|', '?', '*', '/']) && folder.dirid != "-1" {
        return wrong("is no file's name (a backslash at a line's end continues the line)");
    }
    Ok((file.to_owned(), path))
}
