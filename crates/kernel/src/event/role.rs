//! What the kernel calls a routine of a driver for: one table says each role's name in traces, its class and its meaning. Names are
//! those of Microsoft's pages about the routines (*DriverEntry*, *Dispatch Routines*, *KSERVICE_ROUTINE*, …), where there is one.

use std::fmt;

use super::declaration::word_of;

/// What roles have in common, for readers that treat several alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A driver or library is begun, given a device, or ended.
    Driver,
    /// A dispatch routine: called with a device and an IRP.
    Dispatch,
    /// A StartIo routine.
    StartIo,
    /// An IRP or a power request is complete.
    Completion,
    /// An IRP is cancelled.
    Cancel,
    /// An interrupt service routine at DIRQL.
    Isr,
    /// One at `PASSIVE_LEVEL`, on a thread.
    PassiveIsr,
    /// Runs with the lock of an interrupt object.
    Synchronized,
    /// A DPC at `DISPATCH_LEVEL`.
    Dpc,
    /// A DPC on a thread.
    ThreadedDpc,
    /// A thread, or a work item on one of the system's.
    Thread,
    /// The machine stops with a bug check.
    BugCheck,
    /// The driver has registered it, and something happened.
    Callback,
    /// An export calls it back, as a part of what the driver asked that export for.
    Helper,
}

macro_rules! roles {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal: $class:ident,)*) => {
        /// What a routine of a driver is called for.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Role {
            $($(#[doc = $doc])* $name,)*
        }

        impl Role {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name, as traces and messages have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                const NAMES: &[&str] = &[$($text),*];
                NAMES[self as usize]
            }

            /// What hashes have for it: follows from its name.
            #[inline]
            pub(super) const fn word(self) -> u64 {
                const WORDS: &[u64] = &[$(word_of($text)),*];
                WORDS[self as usize]
            }

            /// What it has in common with others.
            #[must_use]
            pub const fn class(self) -> Class {
                const CLASSES: &[Class] = &[$(Class::$class),*];
                CLASSES[self as usize]
            }

            /// What the routine is.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*),)*
                }
            }
        }
    };
}

roles! {
    /// `DriverEntry`.
    DriverEntry = "DriverEntry": Driver,
    /// `AddDevice`.
    AddDevice = "AddDevice": Driver,
    /// `DllInitialize` of an export driver.
    DllInitialize = "DllInitialize": Driver,
    /// `DllUnload` of an export driver.
    DllUnload = "DllUnload": Driver,
    /// `LibraryCommission` of a framework that has registered.
    LibraryCommission = "LibraryCommission": Driver,
    /// `LibraryDecommission` of a framework that is about to go.
    LibraryDecommission = "LibraryDecommission": Driver,
    /// `LibraryRegisterClient` of a framework, for a client's `WdfVersionBind`.
    LibraryRegisterClient = "LibraryRegisterClient": Driver,
    /// `LibraryUnregisterClient` of a framework, for a client's `WdfVersionUnbind`.
    LibraryUnregisterClient = "LibraryUnregisterClient": Driver,
    /// `ClassLibraryInitialize` of a class extension that has registered.
    ClassLibraryInitialize = "ClassLibraryInitialize": Driver,
    /// `ClassLibraryDeinitialize` of a class extension that is about to go.
    ClassLibraryDeinitialize = "ClassLibraryDeinitialize": Driver,
    /// `ClassLibraryBindClient` of a class extension, for a client's `WdfVersionBindClass`.
    ClassLibraryBindClient = "ClassLibraryBindClient": Driver,
    /// `ClassLibraryUnbindClient` of a class extension, for a client's `WdfVersionUnbindClass`.
    ClassLibraryUnbindClient = "ClassLibraryUnbindClient": Driver,
    /// A routine of `IoRegisterDriverReinitialization`.
    Reinitialize = "Reinitialize": Driver,
    /// `DriverUnload`.
    Unload = "Unload": Driver,
    /// The dispatch routine for `IRP_MJ_CREATE`.
    DispatchCreate = "DispatchCreate": Dispatch,
    /// The dispatch routine for `IRP_MJ_CREATE_NAMED_PIPE`.
    DispatchCreateNamedPipe = "DispatchCreateNamedPipe": Dispatch,
    /// The dispatch routine for `IRP_MJ_CLOSE`.
    DispatchClose = "DispatchClose": Dispatch,
    /// The dispatch routine for `IRP_MJ_READ`.
    DispatchRead = "DispatchRead": Dispatch,
    /// The dispatch routine for `IRP_MJ_WRITE`.
    DispatchWrite = "DispatchWrite": Dispatch,
    /// The dispatch routine for `IRP_MJ_QUERY_INFORMATION`.
    DispatchQueryInformation = "DispatchQueryInformation": Dispatch,
    /// The dispatch routine for `IRP_MJ_SET_INFORMATION`.
    DispatchSetInformation = "DispatchSetInformation": Dispatch,
    /// The dispatch routine for `IRP_MJ_QUERY_EA`.
    DispatchQueryEa = "DispatchQueryEa": Dispatch,
    /// The dispatch routine for `IRP_MJ_SET_EA`.
    DispatchSetEa = "DispatchSetEa": Dispatch,
    /// The dispatch routine for `IRP_MJ_FLUSH_BUFFERS`.
    DispatchFlushBuffers = "DispatchFlushBuffers": Dispatch,
    /// The dispatch routine for `IRP_MJ_QUERY_VOLUME_INFORMATION`.
    DispatchQueryVolumeInformation = "DispatchQueryVolumeInformation": Dispatch,
    /// The dispatch routine for `IRP_MJ_SET_VOLUME_INFORMATION`.
    DispatchSetVolumeInformation = "DispatchSetVolumeInformation": Dispatch,
    /// The dispatch routine for `IRP_MJ_DIRECTORY_CONTROL`.
    DispatchDirectoryControl = "DispatchDirectoryControl": Dispatch,
    /// The dispatch routine for `IRP_MJ_FILE_SYSTEM_CONTROL`.
    DispatchFileSystemControl = "DispatchFileSystemControl": Dispatch,
    /// The dispatch routine for `IRP_MJ_DEVICE_CONTROL`.
    DispatchDeviceControl = "DispatchDeviceControl": Dispatch,
    /// The dispatch routine for `IRP_MJ_INTERNAL_DEVICE_CONTROL`.
    DispatchInternalDeviceControl = "DispatchInternalDeviceControl": Dispatch,
    /// The dispatch routine for `IRP_MJ_SHUTDOWN`.
    DispatchShutdown = "DispatchShutdown": Dispatch,
    /// The dispatch routine for `IRP_MJ_LOCK_CONTROL`.
    DispatchLockControl = "DispatchLockControl": Dispatch,
    /// The dispatch routine for `IRP_MJ_CLEANUP`.
    DispatchCleanup = "DispatchCleanup": Dispatch,
    /// The dispatch routine for `IRP_MJ_CREATE_MAILSLOT`.
    DispatchCreateMailslot = "DispatchCreateMailslot": Dispatch,
    /// The dispatch routine for `IRP_MJ_QUERY_SECURITY`.
    DispatchQuerySecurity = "DispatchQuerySecurity": Dispatch,
    /// The dispatch routine for `IRP_MJ_SET_SECURITY`.
    DispatchSetSecurity = "DispatchSetSecurity": Dispatch,
    /// The dispatch routine for `IRP_MJ_POWER`.
    DispatchPower = "DispatchPower": Dispatch,
    /// The dispatch routine for `IRP_MJ_SYSTEM_CONTROL`.
    DispatchSystemControl = "DispatchSystemControl": Dispatch,
    /// The dispatch routine for `IRP_MJ_DEVICE_CHANGE`.
    DispatchDeviceChange = "DispatchDeviceChange": Dispatch,
    /// The dispatch routine for `IRP_MJ_QUERY_QUOTA`.
    DispatchQueryQuota = "DispatchQueryQuota": Dispatch,
    /// The dispatch routine for `IRP_MJ_SET_QUOTA`.
    DispatchSetQuota = "DispatchSetQuota": Dispatch,
    /// The dispatch routine for `IRP_MJ_PNP`.
    DispatchPnp = "DispatchPnp": Dispatch,
    /// The dispatch routine for a major function that has no name.
    Dispatch = "Dispatch": Dispatch,
    /// A routine of the driver's table of fast I/O: `FastIoDeviceControl`.
    FastIoDeviceControl = "FastIoDeviceControl": Helper,
    /// `DriverStartIo`, or one of a cancel-safe or device queue.
    StartIo = "StartIo": StartIo,
    /// An `IoCompletion` routine.
    IoCompletion = "IoCompletion": Completion,
    /// The completion routine of `PoRequestPowerIrp`.
    PowerCompletion = "PowerCompletion": Completion,
    /// A `Cancel` routine.
    Cancel = "Cancel": Cancel,
    /// An `InterruptService` routine.
    Isr = "Isr": Isr,
    /// An `InterruptService` routine at `PASSIVE_LEVEL`.
    PassiveIsr = "PassiveIsr": PassiveIsr,
    /// A `SynchCritSection` routine.
    SynchCritSection = "SynchCritSection": Synchronized,
    /// The `DpcForIsr` of a device object.
    DpcForIsr = "DpcForIsr": Dpc,
    /// A `CustomDpc` routine.
    CustomDpc = "CustomDpc": Dpc,
    /// A `CustomTimerDpc` routine.
    CustomTimerDpc = "CustomTimerDpc": Dpc,
    /// A `CustomThreadedDpc` routine.
    CustomThreadedDpc = "CustomThreadedDpc": ThreadedDpc,
    /// The routine of `KeIpiGenericCall`, on each processor.
    IpiGenericCall = "IpiGenericCall": Helper,
    /// The start routine of a system thread.
    ThreadStart = "ThreadStart": Thread,
    /// The routine of an `IO_WORKITEM`.
    WorkItem = "WorkItem": Thread,
    /// The routine of a `WORK_QUEUE_ITEM`.
    WorkerRoutine = "WorkerRoutine": Thread,
    /// An `IoTimer` routine.
    IoTimer = "IoTimer": Callback,
    /// The callback of an `EX_TIMER`.
    ExTimerCallback = "ExTimerCallback": Callback,
    /// The callback of `ExDeleteTimer`.
    ExTimerDeleteCallback = "ExTimerDeleteCallback": Callback,
    /// An `AdapterControl` routine.
    AdapterControl = "AdapterControl": Callback,
    /// An `AdapterListControl` routine.
    AdapterListControl = "AdapterListControl": Callback,
    /// A `ControllerControl` routine.
    ControllerControl = "ControllerControl": Callback,
    /// A routine of `KeRegisterBugCheckCallback`.
    BugCheckCallback = "BugCheckCallback": BugCheck,
    /// A routine of `KeRegisterBugCheckReasonCallback`.
    BugCheckReasonCallback = "BugCheckReasonCallback": BugCheck,
    /// The routine of a callback object.
    CallbackFunction = "CallbackFunction": Callback,
    /// A filter of the registry: `EX_CALLBACK_FUNCTION`.
    RegistryCallback = "RegistryCallback": Callback,
    /// A filter of handles, before.
    ObjectPreCallback = "ObjectPreCallback": Callback,
    /// A filter of handles, after.
    ObjectPostCallback = "ObjectPostCallback": Callback,
    /// A routine of `PsSetCreateProcessNotifyRoutine`.
    CreateProcessNotifyRoutine = "CreateProcessNotifyRoutine": Callback,
    /// A routine of `PsSetCreateThreadNotifyRoutine`.
    CreateThreadNotifyRoutine = "CreateThreadNotifyRoutine": Callback,
    /// A routine of `PsSetLoadImageNotifyRoutine`.
    LoadImageNotifyRoutine = "LoadImageNotifyRoutine": Callback,
    /// A routine of `KeRegisterProcessorChangeCallback`.
    ProcessorCallback = "ProcessorCallback": Callback,
    /// A routine of `IoRegisterPlugPlayNotification`.
    PnpNotification = "PnpNotification": Callback,
    /// The callback of `IoReportTargetDeviceChangeAsynchronous`.
    DeviceChangeComplete = "DeviceChangeComplete": Callback,
    /// `PO_FX_COMPONENT_ACTIVE_CONDITION_CALLBACK`.
    ComponentActiveConditionCallback = "ComponentActiveConditionCallback": Callback,
    /// `PO_FX_COMPONENT_IDLE_CONDITION_CALLBACK`.
    ComponentIdleConditionCallback = "ComponentIdleConditionCallback": Callback,
    /// `PO_FX_COMPONENT_IDLE_STATE_CALLBACK`.
    ComponentIdleStateCallback = "ComponentIdleStateCallback": Callback,
    /// `PO_FX_COMPONENT_PERF_STATE_CALLBACK`.
    ComponentPerfStateCallback = "ComponentPerfStateCallback": Callback,
    /// `PO_FX_DEVICE_POWER_REQUIRED_CALLBACK`.
    DevicePowerRequiredCallback = "DevicePowerRequiredCallback": Callback,
    /// `PO_FX_DEVICE_POWER_NOT_REQUIRED_CALLBACK`.
    DevicePowerNotRequiredCallback = "DevicePowerNotRequiredCallback": Callback,
    /// `PO_FX_DIRECTED_POWER_DOWN_CALLBACK`.
    DirectedPowerDownCallback = "DirectedPowerDownCallback": Callback,
    /// `PO_FX_DIRECTED_POWER_UP_CALLBACK`.
    DirectedPowerUpCallback = "DirectedPowerUpCallback": Callback,
    /// A routine of `PoRegisterPowerSettingCallback`.
    PowerSettingCallback = "PowerSettingCallback": Callback,
    /// The callback of a set of performance counters.
    PcwCallback = "PcwCallback": Callback,
    /// `EtwEnableCallback` of a provider of events.
    EtwEnableCallback = "EtwEnableCallback": Callback,
    /// The routine of `IoWMISetNotificationCallback`.
    WmiNotificationCallback = "WmiNotificationCallback": Callback,
    /// The routine of `IoWMIRegistrationControl` that a driver's requests of WMI go to.
    WmiCallback = "WmiCallback": Callback,
    /// `DpWmiQueryReginfo`.
    QueryWmiRegInfo = "QueryWmiRegInfo": Helper,
    /// `DpWmiQueryDataBlock`.
    QueryWmiDataBlock = "QueryWmiDataBlock": Helper,
    /// `DpWmiSetDataBlock`.
    SetWmiDataBlock = "SetWmiDataBlock": Helper,
    /// `DpWmiSetDataItem`.
    SetWmiDataItem = "SetWmiDataItem": Helper,
    /// `DpWmiExecuteMethod`.
    ExecuteWmiMethod = "ExecuteWmiMethod": Helper,
    /// `DpWmiFunctionControl`.
    WmiFunctionControl = "WmiFunctionControl": Helper,
    /// A `QueryRoutine` of `RtlQueryRegistryValues`.
    QueryRegistryRoutine = "QueryRegistryRoutine": Helper,
    /// `CsqInsertIrp` or `CsqInsertIrpEx`.
    CsqInsertIrp = "CsqInsertIrp": Helper,
    /// `CsqRemoveIrp`.
    CsqRemoveIrp = "CsqRemoveIrp": Helper,
    /// `CsqPeekNextIrp`.
    CsqPeekNextIrp = "CsqPeekNextIrp": Helper,
    /// `CsqAcquireLock`.
    CsqAcquireLock = "CsqAcquireLock": Helper,
    /// `CsqReleaseLock`.
    CsqReleaseLock = "CsqReleaseLock": Helper,
    /// `CsqCompleteCanceledIrp`.
    CsqCompleteCanceledIrp = "CsqCompleteCanceledIrp": Helper,
    /// The `Allocate` routine of a lookaside list.
    LookasideAllocate = "LookasideAllocate": Helper,
    /// The `Free` routine of a lookaside list.
    LookasideFree = "LookasideFree": Helper,
    /// The `CompareRoutine` of a generic table.
    GenericTableCompare = "GenericTableCompare": Helper,
    /// The `AllocateRoutine` of a generic table.
    GenericTableAllocate = "GenericTableAllocate": Helper,
    /// The `FreeRoutine` of a generic table.
    GenericTableFree = "GenericTableFree": Helper,
    /// The `MatchFunction` of a generic table.
    GenericTableMatch = "GenericTableMatch": Helper,
    /// A routine of `RtlRunOnceExecuteOnce`.
    RtlRunOnceInitFn = "RtlRunOnceInitFn": Helper,
    /// The routine of `KeExpandKernelStackAndCallout`.
    ExpandedStackCall = "ExpandedStackCall": Helper,
    /// The routine of `bsearch` or `qsort`.
    Compare = "compare": Helper,
    /// A routine that a test of dirql's own calls.
    Test = "Test": Thread,
    /// `EvtDeviceFileCreate` of a driver framework's client.
    EvtDeviceFileCreate = "EvtDeviceFileCreate": Callback,
    /// `EvtFileClose` of a driver framework's client.
    EvtFileClose = "EvtFileClose": Callback,
    /// `EvtFileCleanup` of a driver framework's client.
    EvtFileCleanup = "EvtFileCleanup": Callback,
    /// `EvtIoInCallerContext` of a driver framework's client.
    EvtIoInCallerContext = "EvtIoInCallerContext": Callback,
    /// `EvtDeviceD0Entry` of a driver framework's client.
    EvtDeviceD0Entry = "EvtDeviceD0Entry": Callback,
    /// `EvtDeviceD0EntryPostInterruptsEnabled` of a driver framework's client.
    EvtDeviceD0EntryPostInterruptsEnabled = "EvtDeviceD0EntryPostInterruptsEnabled": Callback,
    /// `EvtDeviceD0Exit` of a driver framework's client.
    EvtDeviceD0Exit = "EvtDeviceD0Exit": Callback,
    /// `EvtDeviceD0ExitPreInterruptsDisabled` of a driver framework's client.
    EvtDeviceD0ExitPreInterruptsDisabled = "EvtDeviceD0ExitPreInterruptsDisabled": Callback,
    /// `EvtDevicePrepareHardware` of a driver framework's client.
    EvtDevicePrepareHardware = "EvtDevicePrepareHardware": Callback,
    /// `EvtDeviceReleaseHardware` of a driver framework's client.
    EvtDeviceReleaseHardware = "EvtDeviceReleaseHardware": Callback,
    /// `EvtDeviceSelfManagedIoCleanup` of a driver framework's client.
    EvtDeviceSelfManagedIoCleanup = "EvtDeviceSelfManagedIoCleanup": Callback,
    /// `EvtDeviceSelfManagedIoFlush` of a driver framework's client.
    EvtDeviceSelfManagedIoFlush = "EvtDeviceSelfManagedIoFlush": Callback,
    /// `EvtDeviceSelfManagedIoInit` of a driver framework's client.
    EvtDeviceSelfManagedIoInit = "EvtDeviceSelfManagedIoInit": Callback,
    /// `EvtDeviceSelfManagedIoSuspend` of a driver framework's client.
    EvtDeviceSelfManagedIoSuspend = "EvtDeviceSelfManagedIoSuspend": Callback,
    /// `EvtDeviceSelfManagedIoRestart` of a driver framework's client.
    EvtDeviceSelfManagedIoRestart = "EvtDeviceSelfManagedIoRestart": Callback,
    /// `EvtDeviceSurpriseRemoval` of a driver framework's client.
    EvtDeviceSurpriseRemoval = "EvtDeviceSurpriseRemoval": Callback,
    /// `EvtDeviceQueryRemove` of a driver framework's client.
    EvtDeviceQueryRemove = "EvtDeviceQueryRemove": Callback,
    /// `EvtDeviceQueryStop` of a driver framework's client.
    EvtDeviceQueryStop = "EvtDeviceQueryStop": Callback,
    /// `EvtDeviceUsageNotification` of a driver framework's client.
    EvtDeviceUsageNotification = "EvtDeviceUsageNotification": Callback,
    /// `EvtDeviceRelationsQuery` of a driver framework's client.
    EvtDeviceRelationsQuery = "EvtDeviceRelationsQuery": Callback,
    /// `EvtDeviceUsageNotificationEx` of a driver framework's client.
    EvtDeviceUsageNotificationEx = "EvtDeviceUsageNotificationEx": Callback,
    /// `EvtDpcFunc` of a driver framework's client.
    EvtDpcFunc = "EvtDpcFunc": Callback,
    /// `EvtDriverDeviceAdd` of a driver framework's client.
    EvtDriverDeviceAdd = "EvtDriverDeviceAdd": Callback,
    /// `EvtDriverUnload` of a driver framework's client.
    EvtDriverUnload = "EvtDriverUnload": Callback,
    /// `EvtInterruptIsr` of a driver framework's client.
    EvtInterruptIsr = "EvtInterruptIsr": Callback,
    /// `EvtInterruptDpc` of a driver framework's client.
    EvtInterruptDpc = "EvtInterruptDpc": Callback,
    /// `EvtInterruptEnable` of a driver framework's client.
    EvtInterruptEnable = "EvtInterruptEnable": Callback,
    /// `EvtInterruptDisable` of a driver framework's client.
    EvtInterruptDisable = "EvtInterruptDisable": Callback,
    /// `EvtInterruptWorkItem` of a driver framework's client.
    EvtInterruptWorkItem = "EvtInterruptWorkItem": Callback,
    /// `EvtInterruptSynchronize` of a driver framework's client.
    EvtInterruptSynchronize = "EvtInterruptSynchronize": Callback,
    /// `EvtIoDefault` of a driver framework's client.
    EvtIoDefault = "EvtIoDefault": Callback,
    /// `EvtIoRead` of a driver framework's client.
    EvtIoRead = "EvtIoRead": Callback,
    /// `EvtIoWrite` of a driver framework's client.
    EvtIoWrite = "EvtIoWrite": Callback,
    /// `EvtIoDeviceControl` of a driver framework's client.
    EvtIoDeviceControl = "EvtIoDeviceControl": Callback,
    /// `EvtIoInternalDeviceControl` of a driver framework's client.
    EvtIoInternalDeviceControl = "EvtIoInternalDeviceControl": Callback,
    /// `EvtIoStop` of a driver framework's client.
    EvtIoStop = "EvtIoStop": Callback,
    /// `EvtIoResume` of a driver framework's client.
    EvtIoResume = "EvtIoResume": Callback,
    /// `EvtIoCanceledOnQueue` of a driver framework's client.
    EvtIoCanceledOnQueue = "EvtIoCanceledOnQueue": Callback,
    /// `EvtIoQueueState` of a driver framework's client.
    EvtIoQueueState = "EvtIoQueueState": Callback,
    /// `EvtRequestCancel` of a driver framework's client.
    EvtRequestCancel = "EvtRequestCancel": Callback,
    /// `EvtRequestCompletionRoutine` of a driver framework's client.
    EvtRequestCompletionRoutine = "EvtRequestCompletionRoutine": Callback,
    /// `EvtTimerFunc` of a driver framework's client.
    EvtTimerFunc = "EvtTimerFunc": Callback,
    /// `EvtWorkItem` of a driver framework's client.
    EvtWorkItem = "EvtWorkItem": Callback,
}

impl Role {
    /// Whether its routine is one of this class.
    #[must_use]
    #[inline]
    pub fn is(self, class: Class) -> bool {
        self.class() == class
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_role_has_a_name_of_its_own_and_only_dispatch_routines_are_named_so() {
        let names: BTreeSet<&str> = Role::ALL.iter().map(|role| role.name()).collect();
        assert_eq!(names.len(), Role::ALL.len());
        for role in Role::ALL {
            assert_eq!(role.name().starts_with("Dispatch"), role.is(Class::Dispatch), "{role}");
            // A framework's DPC calls its client's callback.
            let is_dpc = role.name().contains("Dpc") && !role.name().starts_with("Evt");
            assert_eq!(is_dpc, matches!(role.class(), Class::Dpc | Class::ThreadedDpc), "{role}");
        }
    }
}
