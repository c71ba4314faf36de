//! System services as drivers call them (`Zw…`): a boundary that no exception crosses.
//!
//! Pages: *Using Nt and Zw Versions of the Native System Services Routines*, *PreviousMode*, *Bug Check 0x3B:
//! SYSTEM_SERVICE_EXCEPTION*, *Driver Verifier Security Checks*. An exception that no handler inside the service takes ends Windows there, whatever handlers
//! the caller has. A service takes all that it is given for the kernel's own, so Verifier stops where a pointer is an application's. What the services do
//! is elsewhere.

use abi::{DriverPtr, OBJECT_ATTRIBUTES, UNICODE_STRING};
use engine::{Args, Flow};

use crate::cx::Cx;
use crate::exports::{Export, arguments, data};
use crate::verdict::Verdict;

/// The arguments of services that are pointers to what the service reads or writes, from 0. Not those that are an address of another
/// process by their meaning (`BaseAddress` of `ZwUnmapViewOfSection`), nor the context of an APC, which is the caller's.
const POINTERS: &[(&str, &[usize])] = &[
    ("ZwAdjustPrivilegesToken", &[2, 4, 5]),
    ("ZwAllocateLocallyUniqueId", &[0]),
    ("ZwAllocateVirtualMemory", &[1, 3]),
    ("ZwCancelTimer", &[1]),
    ("ZwCreateDirectoryObject", &[0, 2]),
    ("ZwCreateEvent", &[0, 2]),
    ("ZwCreateFile", &[0, 2, 3, 4, 9]),
    ("ZwCreateKey", &[0, 2, 4, 6]),
    ("ZwCreateSection", &[0, 2, 3]),
    ("ZwCreateSymbolicLinkObject", &[0, 2, 3]),
    ("ZwCreateTimer", &[0, 2]),
    ("ZwDeleteFile", &[0]),
    ("ZwDeleteValueKey", &[1]),
    ("ZwDeviceIoControlFile", &[4, 6, 8]),
    ("ZwDuplicateObject", &[3]),
    ("ZwDuplicateToken", &[2, 5]),
    ("ZwEnumerateKey", &[3, 5]),
    ("ZwEnumerateValueKey", &[3, 5]),
    ("ZwFlushBuffersFile", &[1]),
    ("ZwFlushBuffersFileEx", &[2, 4]),
    ("ZwFreeVirtualMemory", &[1, 2]),
    ("ZwFsControlFile", &[4, 6, 8]),
    ("ZwLoadDriver", &[0]),
    ("ZwLockFile", &[4, 5, 6]),
    ("ZwMapViewOfSection", &[2, 5, 6]),
    ("ZwOpenDirectoryObject", &[0, 2]),
    ("ZwOpenEvent", &[0, 2]),
    ("ZwOpenFile", &[0, 2, 3]),
    ("ZwOpenKey", &[0, 2]),
    ("ZwOpenKeyEx", &[0, 2]),
    ("ZwOpenProcess", &[0, 2, 3]),
    ("ZwOpenProcessToken", &[2]),
    ("ZwOpenProcessTokenEx", &[3]),
    ("ZwOpenSection", &[0, 2]),
    ("ZwOpenSymbolicLinkObject", &[0, 2]),
    ("ZwOpenThreadToken", &[3]),
    ("ZwOpenThreadTokenEx", &[4]),
    ("ZwOpenTimer", &[0, 2]),
    ("ZwPowerInformation", &[1, 3]),
    ("ZwQueryDirectoryFile", &[4, 5, 9]),
    ("ZwQueryFullAttributesFile", &[0, 1]),
    ("ZwQueryInformationFile", &[1, 2]),
    ("ZwQueryInformationProcess", &[2, 4]),
    ("ZwQueryInformationToken", &[2, 4]),
    ("ZwQueryKey", &[2, 4]),
    ("ZwQueryObject", &[2, 4]),
    ("ZwQuerySection", &[2, 4]),
    ("ZwQuerySecurityObject", &[2, 4]),
    ("ZwQuerySymbolicLinkObject", &[1, 2]),
    ("ZwQuerySystemInformation", &[1, 3]),
    ("ZwQueryValueKey", &[1, 3, 5]),
    ("ZwQueryVirtualMemory", &[3, 5]),
    ("ZwQueryVolumeInformationFile", &[1, 2]),
    ("ZwReadFile", &[4, 5, 7, 8]),
    ("ZwSetEvent", &[1]),
    ("ZwSetInformationFile", &[1, 2]),
    ("ZwSetInformationThread", &[2]),
    ("ZwSetSecurityObject", &[2]),
    ("ZwSetTimer", &[1, 6]),
    ("ZwSetValueKey", &[1, 4]),
    ("ZwSetVolumeInformationFile", &[1, 2]),
    ("ZwUnloadDriver", &[0]),
    ("ZwUnlockFile", &[1, 2, 3]),
    ("ZwWaitForMultipleObjects", &[1, 4]),
    ("ZwWaitForSingleObject", &[2]),
    ("ZwWriteFile", &[4, 5, 7, 8]),
];

/// Whether calls of an export go through the system service dispatcher.
pub(crate) const fn is_one(name: &str) -> bool {
    matches!(name.as_bytes(), [b'Z', b'w', ..])
}

/// Carries one out.
///
/// # Errors
/// The service's.
#[cold]
pub(crate) fn call(cx: &mut Cx<'_>, export: &Export, args: &Args) -> Flow<u64> {
    look(cx, export, args)?;
    let depth = cx.engine().depth();
    cx.with(|k| k.ke.change_thread(|thread| thread.services.push(depth)));
    let result = (export.call)(cx, args);
    cx.with(|k| {
        k.ke.change_thread(|thread| {
            thread.services.pop();
        });
    });
    result
}

/// Which of these arguments are strings, and which are `OBJECT_ATTRIBUTES`, whose name is one; all others have theirs at [`ATTRIBUTES`].
const STRINGS: &[(&str, usize)] = &[
    ("ZwCreateKey", 4),
    ("ZwCreateSymbolicLinkObject", 3),
    ("ZwDeleteValueKey", 1),
    ("ZwLoadDriver", 0),
    ("ZwQueryDirectoryFile", 9),
    ("ZwQuerySymbolicLinkObject", 1),
    ("ZwQueryValueKey", 1),
    ("ZwSetValueKey", 1),
    ("ZwUnloadDriver", 0),
];
/// Where what creates or opens an object has its `OBJECT_ATTRIBUTES`, and what deletes a file or asks for its attributes.
const ATTRIBUTES: [(&str, usize); 4] =
    [("ZwCreate", 2), ("ZwOpen", 2), ("ZwDeleteFile", 0), ("ZwQueryFullAttributesFile", 0)];

/// Whether an argument, or what it points to, is the address of an application's memory.
fn look(cx: &mut Cx<'_>, export: &Export, args: &Args) -> Flow<()> {
    let name = export.name;
    let Ok(row) = POINTERS.binary_search_by_key(&name, |(name, _)| name) else { return Ok(()) };
    for &place in POINTERS[row].1 {
        let address: u64 = arguments::argument(cx, args, place)?;
        let what = format!("argument {} of {name}", place + 1);
        look_at(cx, &what, address, 0xE3)?;
        if STRINGS.contains(&(name, place)) {
            look_at_string(cx, &what, DriverPtr::new(address))?;
        } else if ATTRIBUTES.iter().any(|(begins, at)| name.starts_with(begins) && *at == place)
            && !name.contains("Token")
        {
            look_at_attributes(cx, &what, DriverPtr::new(address))?;
        }
    }
    Ok(())
}

/// The same of a string's buffer.
fn look_at_string(cx: &mut Cx<'_>, what: &str, string: DriverPtr<UNICODE_STRING>) -> Flow<()> {
    if string.is_null() {
        return Ok(());
    }
    let buffer = cx.read(string + UNICODE_STRING::Buffer)?.address;
    look_at(cx, &format!("Buffer of {what}"), buffer, 0xE4)
}

/// The same of an object's name.
fn look_at_attributes(cx: &mut Cx<'_>, what: &str, attributes: DriverPtr<OBJECT_ATTRIBUTES>) -> Flow<()> {
    if attributes.is_null() {
        return Ok(());
    }
    let name = cx.read(attributes + OBJECT_ATTRIBUTES::ObjectName)?;
    let what = format!("ObjectName of {what}");
    look_at(cx, &what, name.address, 0xE3)?;
    look_at_string(cx, &what, name)
}

fn look_at(cx: &mut Cx<'_>, what: &str, address: u64, check: u64) -> Flow<()> {
    if !data::is_of_applications(address) {
        return Ok(());
    }
    let message = format!(
        "{what} is {address:#x}, an address of applications: the service takes it for the kernel's own and does not look whether the application may use what is there"
    );
    let verdict = Verdict::verifier("user-address-in-zw-call", message);
    cx.verify(verdict.bug_check(0xC4, [check, address, 0, 0]))
}

/// Whether the driver code of call `depth` waits for a service.
pub(crate) fn is_waited_for(cx: &mut Cx<'_>, depth: u32) -> bool {
    cx.with(|k| k.ke.thread().is_some_and(|thread| thread.services.contains(&depth)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::FUNCTIONS;

    #[test]
    fn each_service_has_a_row_or_no_pointers() {
        const NONE: [&str; 6] = [
            "ZwClose",
            "ZwDeleteKey",
            "ZwFlushKey",
            "ZwMakeTemporaryObject",
            "ZwUnmapViewOfSection",
            "ZwYieldExecution",
        ];
        assert!(POINTERS.is_sorted_by_key(|(name, _)| name));
        let services = FUNCTIONS.iter().filter(|export| export.system_service).map(|export| export.name);
        for name in services {
            let has_row = POINTERS.iter().any(|(row, _)| *row == name);
            assert_ne!(has_row, NONE.contains(&name), "{name}");
        }
    }
}
