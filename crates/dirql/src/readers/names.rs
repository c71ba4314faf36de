//! Words for numbers in events: IRP functions, statuses, exports, pool tags.
//!
//! Pages: *IRP Major Function Codes*, *Plug and Play Minor IRPs*, *Power Management Minor IRPs*.

use kernel::exports;

use crate::script::status_name;

const MAJORS: [&str; 28] = [
    "IRP_MJ_CREATE",
    "IRP_MJ_CREATE_NAMED_PIPE",
    "IRP_MJ_CLOSE",
    "IRP_MJ_READ",
    "IRP_MJ_WRITE",
    "IRP_MJ_QUERY_INFORMATION",
    "IRP_MJ_SET_INFORMATION",
    "IRP_MJ_QUERY_EA",
    "IRP_MJ_SET_EA",
    "IRP_MJ_FLUSH_BUFFERS",
    "IRP_MJ_QUERY_VOLUME_INFORMATION",
    "IRP_MJ_SET_VOLUME_INFORMATION",
    "IRP_MJ_DIRECTORY_CONTROL",
    "IRP_MJ_FILE_SYSTEM_CONTROL",
    "IRP_MJ_DEVICE_CONTROL",
    "IRP_MJ_INTERNAL_DEVICE_CONTROL",
    "IRP_MJ_SHUTDOWN",
    "IRP_MJ_LOCK_CONTROL",
    "IRP_MJ_CLEANUP",
    "IRP_MJ_CREATE_MAILSLOT",
    "IRP_MJ_QUERY_SECURITY",
    "IRP_MJ_SET_SECURITY",
    "IRP_MJ_POWER",
    "IRP_MJ_SYSTEM_CONTROL",
    "IRP_MJ_DEVICE_CHANGE",
    "IRP_MJ_QUERY_QUOTA",
    "IRP_MJ_SET_QUOTA",
    "IRP_MJ_PNP",
];

const PNP_MINORS: [&str; 25] = [
    "IRP_MN_START_DEVICE",
    "IRP_MN_QUERY_REMOVE_DEVICE",
    "IRP_MN_REMOVE_DEVICE",
    "IRP_MN_CANCEL_REMOVE_DEVICE",
    "IRP_MN_STOP_DEVICE",
    "IRP_MN_QUERY_STOP_DEVICE",
    "IRP_MN_CANCEL_STOP_DEVICE",
    "IRP_MN_QUERY_DEVICE_RELATIONS",
    "IRP_MN_QUERY_INTERFACE",
    "IRP_MN_QUERY_CAPABILITIES",
    "IRP_MN_QUERY_RESOURCES",
    "IRP_MN_QUERY_RESOURCE_REQUIREMENTS",
    "IRP_MN_QUERY_DEVICE_TEXT",
    "IRP_MN_FILTER_RESOURCE_REQUIREMENTS",
    "14",
    "IRP_MN_READ_CONFIG",
    "IRP_MN_WRITE_CONFIG",
    "IRP_MN_EJECT",
    "IRP_MN_SET_LOCK",
    "IRP_MN_QUERY_ID",
    "IRP_MN_QUERY_PNP_DEVICE_STATE",
    "IRP_MN_QUERY_BUS_INFORMATION",
    "IRP_MN_DEVICE_USAGE_NOTIFICATION",
    "IRP_MN_SURPRISE_REMOVAL",
    "IRP_MN_QUERY_LEGACY_BUS_INFORMATION",
];

const POWER_MINORS: [&str; 4] =
    ["IRP_MN_WAIT_WAKE", "IRP_MN_POWER_SEQUENCE", "IRP_MN_SET_POWER", "IRP_MN_QUERY_POWER"];

const PNP: u8 = 0x1B;
const POWER: u8 = 0x16;

/// The name of a major function.
pub(super) fn major(code: u8) -> String {
    MAJORS.get(usize::from(code)).map_or_else(|| format!("major function {code:#x}"), ToString::to_string)
}

/// The request an IRP carries: `IRP_MJ_READ`, or for Plug and Play and power `IRP_MN_START_DEVICE`.
pub(super) fn request(major_code: u8, minor: u8) -> String {
    let minors: &[&str] = match major_code {
        PNP => &PNP_MINORS,
        POWER => &POWER_MINORS,
        _ => &[],
    };
    match minors.get(usize::from(minor)) {
        Some(name) => (*name).to_owned(),
        None if minor != 0 => format!("{}, minor {minor:#x}", major(major_code)),
        None => major(major_code),
    }
}

/// A status as people read it: its name where that is known.
pub(crate) fn status_text(status: u32) -> String {
    status_name(status).map_or_else(|| format!("status {status:#010x}"), str::to_owned)
}

/// The name of an export by its row.
pub(crate) fn export_name(row: u32) -> &'static str {
    exports::row(row).map_or("(missing import)", |export| export.name)
}

/// A pool tag as debuggers show it: four characters, the first byte first.
pub(super) fn tag(value: u32) -> String {
    let printable = |byte: u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
    value.to_le_bytes().into_iter().map(printable).collect()
}

/// `1 byte`, `2 bytes`.
pub(super) fn bytes(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}
