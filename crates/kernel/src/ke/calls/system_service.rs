//! System services as drivers call them (`Zw…`): a boundary that no exception crosses.
//!
//! Pages: *Using Nt and Zw Versions of the Native System Services Routines*, *PreviousMode*, *Bug Check 0x3B:
//! SYSTEM_SERVICE_EXCEPTION*, *Driver Verifier Security Checks*. An exception that no handler inside the service takes ends Windows there, whatever handlers
//! the caller has. A service takes all that it is given for the kernel's own, so Verifier stops where a pointer is an application's. What the services do
//! is elsewhere.

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

/// Whether an argument is the address of an application's memory.
fn look(cx: &mut Cx<'_>, export: &Export, args: &Args) -> Flow<()> {
    let Ok(row) = POINTERS.binary_search_by_key(&export.name, |(name, _)| name) else { return Ok(()) };
    for place in POINTERS[row].1 {
        let address: u64 = arguments::argument(cx, args, *place)?;
        if data::is_of_applications(address) {
            let (name, number) = (export.name, place + 1);
            let message = format!(
                "argument {number} of {name} is {address:#x}, an address of applications: the service takes it for the kernel's own and does not look whether the application may use what is there"
            );
            let verdict = Verdict::verifier("user-address-in-zw-call", message);
            return cx.verify(verdict.bug_check(0xC4, [0xE3, address, 0, 0]));
        }
    }
    Ok(())
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
