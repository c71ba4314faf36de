//! The routines a driver imports, as `wdm.h` and `wmilib.h` declare them for x64: `ntoskrnl.exe` exports them by these names, and `wmilib.sys` those of the WMI library.
//!
//! What `wdm.h` makes of macros and inline functions is not here; it is written in Rust beside its use.

#![allow(clippy::missing_safety_doc, reason = "Microsoft's page of each routine says what it asks")]

use core::ffi::c_void;

use abi::{
    DEVICE_DESCRIPTION, DEVICE_OBJECT, DMA_ADAPTER, DRIVER_OBJECT, GUID, IO_CONNECT_INTERRUPT_PARAMETERS,
    IO_DISCONNECT_INTERRUPT_PARAMETERS, IO_REMOVE_LOCK, IO_STATUS_BLOCK, IO_WORKITEM, IRP, KDEVICE_QUEUE,
    KDEVICE_QUEUE_ENTRY, KDPC, KEVENT, KINTERRUPT, KTIMER, MDL, NtStatus, RTL_QUERY_REGISTRY_TABLE,
    UNICODE_STRING, WMILIB_CONTEXT,
};

/// A dispatch routine.
pub(crate) type Dispatch = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP) -> NtStatus;
/// `AddDevice`.
pub(crate) type AddDevice = unsafe extern "system" fn(*mut DRIVER_OBJECT, *mut DEVICE_OBJECT) -> NtStatus;
/// A cancel routine, or `StartIo`.
pub(crate) type DeviceIrp = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP);
/// A completion routine.
pub(crate) type Completion = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP, *mut c_void) -> NtStatus;
/// What is called at the end of a power request that the driver has asked for: device, minor function, state, context, status.
pub(crate) type PowerCompletion =
    unsafe extern "system" fn(*mut DEVICE_OBJECT, u8, u32, *mut c_void, *mut IO_STATUS_BLOCK);
/// A deferred routine; the arguments behind the context are the system's two.
pub(crate) type Deferred = unsafe extern "system" fn(*mut KDPC, *mut c_void, *mut c_void, *mut c_void);
/// An interrupt service routine.
pub(crate) type ServiceRoutine = unsafe extern "system" fn(*mut KINTERRUPT, *mut c_void) -> u8;
/// An interrupt message service routine; the last argument is the message's number.
pub(crate) type MessageServiceRoutine = unsafe extern "system" fn(*mut KINTERRUPT, *mut c_void, u32) -> u8;
/// The routine of a work item.
pub(crate) type WorkItemRoutine = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut c_void);
/// A routine for `KeSynchronizeExecution`.
pub(crate) type SynchronizeRoutine = unsafe extern "system" fn(*mut c_void) -> u8;

#[cfg_attr(windows, link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim"))]
unsafe extern "C" {
    // The compiler calls these; here they make the linker find them in the kernel.
    #[allow(dead_code, reason = "called by what the compiler generates")]
    fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    #[allow(dead_code, reason = "called by what the compiler generates")]
    fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    #[allow(dead_code, reason = "called by what the compiler generates")]
    fn memset(to: *mut c_void, byte: i32, bytes: usize) -> *mut c_void;
    #[allow(dead_code, reason = "called by what the compiler generates")]
    fn memcmp(one: *const c_void, other: *const c_void, bytes: usize) -> i32;

    pub(crate) fn DbgPrint(format: *const u8, ...) -> u32;
    pub(crate) fn ExAllocatePoolWithTag(pool: u32, bytes: usize, tag: u32) -> *mut c_void;
    pub(crate) fn ExFreePoolWithTag(block: *mut c_void, tag: u32);
    pub(crate) fn IoAcquireCancelSpinLock(irql: *mut u8);
    pub(crate) fn IoAcquireRemoveLockEx(
        lock: *mut IO_REMOVE_LOCK,
        tag: *mut c_void,
        file: *const u8,
        line: u32,
        size: u32,
    ) -> NtStatus;
    pub(crate) fn IoAllocateErrorLogEntry(object: *mut c_void, size: u8) -> *mut c_void;
    pub(crate) fn IoAllocateIrp(stack_size: i8, charge_quota: u8) -> *mut IRP;
    pub(crate) fn IoAllocateMdl(
        address: *mut c_void,
        bytes: u32,
        secondary: u8,
        quota: u8,
        irp: *mut IRP,
    ) -> *mut MDL;
    pub(crate) fn IoAllocateWorkItem(device: *mut DEVICE_OBJECT) -> *mut IO_WORKITEM;
    pub(crate) fn IoAttachDeviceToDeviceStack(
        source: *mut DEVICE_OBJECT,
        target: *mut DEVICE_OBJECT,
    ) -> *mut DEVICE_OBJECT;
    pub(crate) fn IoBuildDeviceIoControlRequest(
        code: u32,
        device: *mut DEVICE_OBJECT,
        input: *mut c_void,
        input_length: u32,
        output: *mut c_void,
        output_length: u32,
        internal: u8,
        event: *mut KEVENT,
        result: *mut IO_STATUS_BLOCK,
    ) -> *mut IRP;
    pub(crate) fn IoConnectInterruptEx(parameters: *mut IO_CONNECT_INTERRUPT_PARAMETERS) -> NtStatus;
    pub(crate) fn IoCreateDevice(
        driver: *mut DRIVER_OBJECT,
        extension_bytes: u32,
        name: *mut UNICODE_STRING,
        kind: u32,
        characteristics: u32,
        exclusive: u8,
        device: *mut *mut DEVICE_OBJECT,
    ) -> NtStatus;
    pub(crate) fn IoCreateSymbolicLink(link: *mut UNICODE_STRING, target: *mut UNICODE_STRING) -> NtStatus;
    pub(crate) fn IoDeleteDevice(device: *mut DEVICE_OBJECT);
    pub(crate) fn IoDeleteSymbolicLink(link: *mut UNICODE_STRING) -> NtStatus;
    pub(crate) fn IoDetachDevice(lower: *mut DEVICE_OBJECT);
    pub(crate) fn IoDisconnectInterruptEx(parameters: *mut IO_DISCONNECT_INTERRUPT_PARAMETERS);
    pub(crate) fn IoGetCurrentProcess() -> *mut c_void;
    pub(crate) fn IoGetRequestorProcess(irp: *mut IRP) -> *mut c_void;
    #[allow(dead_code, reason = "named by a frame that is written in assembly")]
    fn __C_specific_handler(
        record: *mut c_void,
        frame: *mut c_void,
        context: *mut c_void,
        dispatcher: *mut c_void,
    ) -> i32;
    pub(crate) fn IoFreeMdl(list: *mut MDL);
    pub(crate) fn IoFreeIrp(irp: *mut IRP);
    pub(crate) fn IoFreeWorkItem(item: *mut IO_WORKITEM);
    pub(crate) fn IoGetDmaAdapter(
        pdo: *mut DEVICE_OBJECT,
        description: *mut DEVICE_DESCRIPTION,
        map_registers: *mut u32,
    ) -> *mut DMA_ADAPTER;
    pub(crate) fn IoInitializeRemoveLockEx(
        lock: *mut IO_REMOVE_LOCK,
        tag: u32,
        minutes: u32,
        high: u32,
        size: u32,
    );
    pub(crate) fn IoInvalidateDeviceRelations(device: *mut DEVICE_OBJECT, kind: u32);
    pub(crate) fn IoOpenDeviceRegistryKey(
        device: *mut DEVICE_OBJECT,
        kind: u32,
        access: u32,
        key: *mut *mut c_void,
    ) -> NtStatus;
    pub(crate) fn IoQueueWorkItem(
        item: *mut IO_WORKITEM,
        routine: WorkItemRoutine,
        queue: u32,
        context: *mut c_void,
    );
    pub(crate) fn IoRegisterDeviceInterface(
        pdo: *mut DEVICE_OBJECT,
        class: *const GUID,
        reference: *mut UNICODE_STRING,
        name: *mut UNICODE_STRING,
    ) -> NtStatus;
    pub(crate) fn IoReleaseCancelSpinLock(irql: u8);
    pub(crate) fn IoReleaseRemoveLockAndWaitEx(lock: *mut IO_REMOVE_LOCK, tag: *mut c_void, size: u32);
    pub(crate) fn IoReleaseRemoveLockEx(lock: *mut IO_REMOVE_LOCK, tag: *mut c_void, size: u32);
    pub(crate) fn IoReuseIrp(irp: *mut IRP, status: NtStatus);
    pub(crate) fn IoSetDeviceInterfaceState(name: *mut UNICODE_STRING, enable: u8) -> NtStatus;
    pub(crate) fn IoSetStartIoAttributes(device: *mut DEVICE_OBJECT, deferred: u8, non_cancelable: u8);
    pub(crate) fn IoStartNextPacket(device: *mut DEVICE_OBJECT, cancelable: u8);
    pub(crate) fn IoStartPacket(
        device: *mut DEVICE_OBJECT,
        irp: *mut IRP,
        key: *mut u32,
        cancel: Option<DeviceIrp>,
    );
    pub(crate) fn IoWMIRegistrationControl(device: *mut DEVICE_OBJECT, action: u32) -> NtStatus;
    pub(crate) fn IoWriteErrorLogEntry(entry: *mut c_void);
    pub(crate) fn IofCallDriver(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus;
    pub(crate) fn IofCompleteRequest(irp: *mut IRP, boost: i8);
    pub(crate) fn KeAcquireSpinLockAtDpcLevel(lock: *mut u64);
    pub(crate) fn KeAcquireSpinLockRaiseToDpc(lock: *mut u64) -> u8;
    #[cfg_attr(not(windows), allow(dead_code, reason = "called by panics in a driver only"))]
    pub(crate) fn KeBugCheckEx(code: u32, one: usize, two: usize, three: usize, four: usize) -> !;
    pub(crate) fn KeCancelTimer(timer: *mut KTIMER) -> u8;
    pub(crate) fn KeClearEvent(event: *mut KEVENT);
    pub(crate) fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *mut i64) -> NtStatus;
    pub(crate) fn KeEnterCriticalRegion();
    pub(crate) fn KeFlushQueuedDpcs();
    pub(crate) fn KeInitializeDpc(dpc: *mut KDPC, routine: Deferred, context: *mut c_void);
    pub(crate) fn KeInitializeEvent(event: *mut KEVENT, kind: u32, signaled: u8);
    pub(crate) fn KeInitializeTimer(timer: *mut KTIMER);
    pub(crate) fn KeInsertQueueDpc(dpc: *mut KDPC, one: *mut c_void, two: *mut c_void) -> u8;
    pub(crate) fn KeLeaveCriticalRegion();
    pub(crate) fn KeLowerIrql(irql: u8);
    pub(crate) fn KeReleaseSpinLock(lock: *mut u64, irql: u8);
    pub(crate) fn KeReleaseSpinLockFromDpcLevel(lock: *mut u64);
    pub(crate) fn KeRemoveEntryDeviceQueue(queue: *mut KDEVICE_QUEUE, entry: *mut KDEVICE_QUEUE_ENTRY) -> u8;
    pub(crate) fn KeSetEvent(event: *mut KEVENT, boost: i32, wait: u8) -> i32;
    pub(crate) fn KeSetTimer(timer: *mut KTIMER, due: i64, dpc: *mut KDPC) -> u8;
    pub(crate) fn KeStallExecutionProcessor(microseconds: u32);
    pub(crate) fn KeSynchronizeExecution(
        interrupt: *mut KINTERRUPT,
        routine: SynchronizeRoutine,
        context: *mut c_void,
    ) -> u8;
    pub(crate) fn KeWaitForSingleObject(
        object: *mut c_void,
        reason: u32,
        mode: i8,
        alertable: u8,
        timeout: *mut i64,
    ) -> NtStatus;
    pub(crate) fn KfRaiseIrql(irql: u8) -> u8;
    pub(crate) fn MmProbeAndLockPages(list: *mut MDL, mode: u8, operation: u32);
    pub(crate) fn MmUnlockPages(list: *mut MDL);
    pub(crate) fn MmMapIoSpace(physical: u64, bytes: usize, caching: u32) -> *mut c_void;
    pub(crate) fn MmMapLockedPagesSpecifyCache(
        list: *mut MDL,
        mode: i8,
        caching: u32,
        address: *mut c_void,
        bug_check: u32,
        priority: u32,
    ) -> *mut c_void;
    pub(crate) fn MmUnmapIoSpace(address: *mut c_void, bytes: usize);
    pub(crate) fn ObfDereferenceObject(object: *mut c_void) -> isize;
    pub(crate) fn ObfReferenceObject(object: *mut c_void) -> isize;
    pub(crate) fn ObOpenObjectByPointer(
        object: *mut c_void,
        attributes: u32,
        access_state: *mut c_void,
        access: u32,
        kind: *mut c_void,
        mode: i8,
        handle: *mut *mut c_void,
    ) -> NtStatus;
    pub(crate) fn PoCallDriver(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus;
    pub(crate) fn PoRequestPowerIrp(
        device: *mut DEVICE_OBJECT,
        minor: u8,
        state: u32,
        completion: PowerCompletion,
        context: *mut c_void,
        irp: *mut *mut IRP,
    ) -> NtStatus;
    pub(crate) fn PoSetPowerState(device: *mut DEVICE_OBJECT, kind: u32, state: u32) -> u32;
    pub(crate) fn PoStartNextPowerIrp(irp: *mut IRP);
    pub(crate) fn RtlFreeUnicodeString(string: *mut UNICODE_STRING);
    pub(crate) fn RtlQueryRegistryValues(
        relative_to: u32,
        path: *const u16,
        table: *mut RTL_QUERY_REGISTRY_TABLE,
        context: *mut c_void,
        environment: *mut c_void,
    ) -> NtStatus;
    pub(crate) fn ZwClose(handle: *mut c_void) -> NtStatus;
    pub(crate) fn ZwSetSecurityObject(
        handle: *mut c_void,
        information: u32,
        descriptor: *mut c_void,
    ) -> NtStatus;
    pub(crate) fn ZwQueryValueKey(
        key: *mut c_void,
        name: *mut UNICODE_STRING,
        class: u32,
        information: *mut c_void,
        length: u32,
        result_length: *mut u32,
    ) -> NtStatus;
}

#[cfg_attr(windows, link(name = "wmilib.sys", kind = "raw-dylib", modifiers = "+verbatim"))]
unsafe extern "C" {
    pub(crate) fn WmiCompleteRequest(
        device: *mut DEVICE_OBJECT,
        irp: *mut IRP,
        status: NtStatus,
        used: u32,
        boost: i8,
    ) -> NtStatus;
    pub(crate) fn WmiFireEvent(
        device: *mut DEVICE_OBJECT,
        guid: *const GUID,
        instance: u32,
        bytes: u32,
        data: *mut c_void,
    ) -> NtStatus;
    pub(crate) fn WmiSystemControl(
        context: *mut WMILIB_CONTEXT,
        device: *mut DEVICE_OBJECT,
        irp: *mut IRP,
        disposition: *mut u32,
    ) -> NtStatus;
}
