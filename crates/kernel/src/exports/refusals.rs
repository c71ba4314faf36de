//! Calls that may fail though all their arguments are right: whether one does is the choice `fault.call`, and by default none does.
//!
//! A call that fails so has done nothing: it is answered here, before its service. Each row's value is the failure that the routine's page
//! documents for lack of resources, or of a registry value. Routines whose failure drivers rightly pass over (those that take something back) are
//! not here, and neither are those that ask a choice of their own: pool, MDLs, mappings, DMA, PsSetCreateProcessNotifyRoutine and IoSetDeviceInterfaceState, which also
//! take back, and PoRequestPowerIrp, which does not fail where a device is to be powered up.

use engine::Flow;

use super::Export;
use crate::cx::Cx;

/// `STATUS_INSUFFICIENT_RESOURCES`.
const NO_RESOURCES: u64 = 0xC000_009A;
/// `STATUS_OBJECT_NAME_NOT_FOUND`.
const NOT_FOUND: u64 = 0xC000_0034;
/// `STATUS_NO_MEMORY`.
const NO_MEMORY: u64 = 0xC000_0017;
/// What a routine that returns a pointer returns.
const NULL: u64 = 0;

/// Sorted by name.
const REFUSALS: &[(&str, u64)] = &[
    ("CmRegisterCallback", NO_RESOURCES),
    ("CmRegisterCallbackEx", NO_RESOURCES),
    ("ExAllocateTimer", NULL),
    ("ExCreateCallback", NO_RESOURCES),
    ("ExInitializeLookasideListEx", NO_RESOURCES),
    ("ExRegisterCallback", NULL),
    ("IoAllocateDriverObjectExtension", NO_RESOURCES),
    ("IoAllocateErrorLogEntry", NULL),
    ("IoAllocateIrp", NULL),
    ("IoAllocateIrpEx", NULL),
    ("IoAllocateWorkItem", NULL),
    ("IoAttachDevice", NO_RESOURCES),
    ("IoAttachDeviceToDeviceStack", NULL),
    ("IoBuildAsynchronousFsdRequest", NULL),
    ("IoBuildDeviceIoControlRequest", NULL),
    ("IoBuildSynchronousFsdRequest", NULL),
    ("IoConnectInterrupt", NO_RESOURCES),
    ("IoConnectInterruptEx", NO_RESOURCES),
    ("IoCreateController", NULL),
    ("IoCreateDevice", NO_RESOURCES),
    ("IoCreateFile", NO_RESOURCES),
    ("IoCreateFileEx", NO_RESOURCES),
    ("IoCreateNotificationEvent", NULL),
    ("IoCreateSymbolicLink", NO_RESOURCES),
    ("IoCreateSynchronizationEvent", NULL),
    ("IoCreateUnprotectedSymbolicLink", NO_RESOURCES),
    ("IoGetDeviceInterfaces", NO_RESOURCES),
    ("IoGetDeviceObjectPointer", NO_RESOURCES),
    ("IoGetDevicePropertyData", NOT_FOUND),
    ("IoInitializeTimer", NO_RESOURCES),
    ("IoMakeAssociatedIrp", NULL),
    ("IoOpenDeviceInterfaceRegistryKey", NOT_FOUND),
    ("IoOpenDeviceRegistryKey", NOT_FOUND),
    ("IoOpenDriverRegistryKey", NOT_FOUND),
    ("IoRegisterDeviceInterface", NO_RESOURCES),
    ("IoRegisterPlugPlayNotification", NO_RESOURCES),
    ("IoRegisterShutdownNotification", NO_RESOURCES),
    ("IoSetCompletionRoutineEx", NO_RESOURCES),
    ("IoWMIAllocateInstanceIds", NO_RESOURCES),
    ("IoWMIOpenBlock", NO_RESOURCES),
    ("IoWMIQueryAllData", NO_RESOURCES),
    ("IoWMIQuerySingleInstance", NO_RESOURCES),
    ("IoWMIWriteEvent", NO_RESOURCES),
    ("KeExpandKernelStackAndCallout", NO_MEMORY),
    ("KeExpandKernelStackAndCalloutEx", NO_MEMORY),
    ("ObOpenObjectByPointer", NO_RESOURCES),
    ("ObRegisterCallbacks", NO_RESOURCES),
    ("PoCreatePowerRequest", NO_RESOURCES),
    ("PoFxRegisterDevice", NO_RESOURCES),
    ("PoRegisterDeviceForIdleDetection", NULL),
    ("PoRegisterPowerSettingCallback", NO_RESOURCES),
    ("PsCreateSystemThread", NO_RESOURCES),
    ("PsSetCreateThreadNotifyRoutine", NO_RESOURCES),
    ("PsSetLoadImageNotifyRoutine", NO_RESOURCES),
    ("RtlCreateRegistryKey", NO_RESOURCES),
    ("RtlQueryRegistryValues", NOT_FOUND),
    ("RtlWriteRegistryValue", NO_RESOURCES),
    ("SeCreateClientSecurity", NO_RESOURCES),
    ("ZwAllocateVirtualMemory", NO_MEMORY),
    ("ZwCreateDirectoryObject", NO_RESOURCES),
    ("ZwCreateEvent", NO_RESOURCES),
    ("ZwCreateFile", NO_RESOURCES),
    ("ZwCreateKey", NO_RESOURCES),
    ("ZwCreateSection", NO_RESOURCES),
    ("ZwCreateSymbolicLinkObject", NO_RESOURCES),
    ("ZwCreateTimer", NO_RESOURCES),
    ("ZwDeviceIoControlFile", NO_RESOURCES),
    ("ZwDuplicateObject", NO_RESOURCES),
    ("ZwMapViewOfSection", NO_MEMORY),
    ("ZwOpenDirectoryObject", NOT_FOUND),
    ("ZwOpenEvent", NOT_FOUND),
    ("ZwOpenFile", NO_RESOURCES),
    ("ZwOpenKey", NOT_FOUND),
    ("ZwOpenKeyEx", NOT_FOUND),
    ("ZwOpenProcess", NO_RESOURCES),
    ("ZwOpenSection", NOT_FOUND),
    ("ZwOpenSymbolicLinkObject", NOT_FOUND),
    ("ZwQueryInformationFile", NO_RESOURCES),
    ("ZwQueryKey", NO_RESOURCES),
    ("ZwQuerySymbolicLinkObject", NO_RESOURCES),
    ("ZwQuerySystemInformation", NO_RESOURCES),
    ("ZwQueryValueKey", NOT_FOUND),
    ("ZwReadFile", NO_RESOURCES),
    ("ZwSetInformationFile", NO_RESOURCES),
    ("ZwSetValueKey", NO_RESOURCES),
    ("ZwWriteFile", NO_RESOURCES),
];

/// What a call of the routine of this name returns if it fails so; none if it does not.
pub(super) const fn of(name: &str) -> Option<u64> {
    let mut at = 0;
    while at < REFUSALS.len() {
        if is_same(REFUSALS[at].0.as_bytes(), name.as_bytes()) {
            return Some(REFUSALS[at].1);
        }
        at += 1;
    }
    None
}

const fn is_same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Calls the service of a routine that may fail, unless it does.
#[inline(never)]
pub(super) fn call(
    cx: &mut Cx<'_>,
    export: &Export,
    failure: u64,
    service: impl FnOnce(&mut Cx<'_>) -> Flow<u64>,
) -> Flow<u64> {
    debug_assert_eq!(export.refusal, Some(failure), "{}", export.name);
    if cx.choose("fault.call", 2) == 1 { Ok(failure) } else { service(cx) }
}

#[cfg(test)]
mod tests {
    use super::super::FUNCTIONS;
    use super::*;

    #[test]
    fn the_rows_are_sorted_and_name_exports() {
        assert!(REFUSALS.is_sorted_by(|one, next| one.0 < next.0));
        for (name, failure) in REFUSALS {
            let row = FUNCTIONS.iter().find(|row| row.name == *name);
            let row = row.unwrap_or_else(|| panic!("{name} is no export"));
            assert_eq!(row.refusal, Some(*failure), "{name}");
        }
        assert_eq!(of("IoDeleteDevice"), None);
    }
}
