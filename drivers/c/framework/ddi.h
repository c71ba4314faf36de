/*
 * The signatures of the functions that the framework has, each with the globals before these parameters: PFN_WdfDriverCreate and so on. To these
 * both sides are held: the framework's routines when its table is made, and the calls of clients.
 *
 * Signatures: the pages of the functions' names.
 */
#ifndef FRAMEWORK_DDI_H
#define FRAMEWORK_DDI_H

#define DDI(Result, Name, ...) typedef Result (*PFN_##Name)(PWDF_DRIVER_GLOBALS Globals, ##__VA_ARGS__)

DDI(NTSTATUS, WdfDriverCreate, PDRIVER_OBJECT Driver, PCUNICODE_STRING RegistryPath, PWDF_OBJECT_ATTRIBUTES Attributes,
    WDF_DRIVER_CONFIG *Config, WDFDRIVER *Created);
DDI(PWSTR, WdfDriverGetRegistryPath, WDFDRIVER Driver);
DDI(PDRIVER_OBJECT, WdfDriverWdmGetDriverObject, WDFDRIVER Driver);
DDI(VOID, WdfDriverMiniportUnload, WDFDRIVER Driver);

DDI(VOID, WdfDeviceInitFree, PWDFDEVICE_INIT Init);
DDI(VOID, WdfDeviceInitSetPnpPowerEventCallbacks, PWDFDEVICE_INIT Init, WDF_PNPPOWER_EVENT_CALLBACKS *Callbacks);
DDI(VOID, WdfDeviceInitSetPowerPolicyOwnership, PWDFDEVICE_INIT Init, BOOLEAN IsPowerPolicyOwner);
DDI(VOID, WdfDeviceInitSetIoType, PWDFDEVICE_INIT Init, WDF_DEVICE_IO_TYPE IoType);
DDI(VOID, WdfDeviceInitSetExclusive, PWDFDEVICE_INIT Init, BOOLEAN Exclusive);
DDI(VOID, WdfDeviceInitSetDeviceType, PWDFDEVICE_INIT Init, DEVICE_TYPE DeviceType);
DDI(NTSTATUS, WdfDeviceInitAssignName, PWDFDEVICE_INIT Init, PCUNICODE_STRING Name);
DDI(VOID, WdfDeviceInitSetFileObjectConfig, PWDFDEVICE_INIT Init, WDF_FILEOBJECT_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes);
DDI(VOID, WdfDeviceInitSetRequestAttributes, PWDFDEVICE_INIT Init, PWDF_OBJECT_ATTRIBUTES Attributes);
DDI(PWDFDEVICE_INIT, WdfControlDeviceInitAllocate, WDFDRIVER Driver, PCUNICODE_STRING Sddl);
DDI(VOID, WdfControlFinishInitializing, WDFDEVICE Device);
DDI(NTSTATUS, WdfDeviceCreate, PWDFDEVICE_INIT *Init, PWDF_OBJECT_ATTRIBUTES Attributes, WDFDEVICE *Created);
DDI(PDEVICE_OBJECT, WdfDeviceWdmGetDeviceObject, WDFDEVICE Device);
DDI(PDEVICE_OBJECT, WdfDeviceWdmGetAttachedDevice, WDFDEVICE Device);
DDI(PDEVICE_OBJECT, WdfDeviceWdmGetPhysicalDevice, WDFDEVICE Device);
DDI(WDFDEVICE, WdfWdmDeviceGetWdfDeviceHandle, PDEVICE_OBJECT Device);
DDI(NTSTATUS, WdfDeviceCreateDeviceInterface, WDFDEVICE Device, const GUID *Class, PCUNICODE_STRING Reference);
DDI(NTSTATUS, WdfDeviceCreateSymbolicLink, WDFDEVICE Device, PCUNICODE_STRING Link);
DDI(WDFQUEUE, WdfDeviceGetDefaultQueue, WDFDEVICE Device);
DDI(WDFDRIVER, WdfDeviceGetDriver, WDFDEVICE Device);
DDI(WDFIOTARGET, WdfDeviceGetIoTarget, WDFDEVICE Device);

DDI(PFILE_OBJECT, WdfFileObjectWdmGetFileObject, WDFFILEOBJECT File);
DDI(WDFDEVICE, WdfFileObjectGetDevice, WDFFILEOBJECT File);

DDI(NTSTATUS, WdfIoQueueCreate, WDFDEVICE Device, WDF_IO_QUEUE_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes, WDFQUEUE *Created);
DDI(VOID, WdfIoQueueStart, WDFQUEUE Queue);
DDI(VOID, WdfIoQueueStop, WDFQUEUE Queue, PFN_WDF_IO_QUEUE_STATE Complete, WDFCONTEXT Context);
DDI(VOID, WdfIoQueueStopSynchronously, WDFQUEUE Queue);
DDI(WDFDEVICE, WdfIoQueueGetDevice, WDFQUEUE Queue);
DDI(NTSTATUS, WdfIoQueueRetrieveNextRequest, WDFQUEUE Queue, WDFREQUEST *Request);

DDI(VOID, WdfRequestComplete, WDFREQUEST Request, NTSTATUS Status);
DDI(VOID, WdfRequestCompleteWithInformation, WDFREQUEST Request, NTSTATUS Status, ULONG_PTR Information);
DDI(VOID, WdfRequestSetInformation, WDFREQUEST Request, ULONG_PTR Information);
DDI(ULONG_PTR, WdfRequestGetInformation, WDFREQUEST Request);
DDI(NTSTATUS, WdfRequestGetStatus, WDFREQUEST Request);
DDI(VOID, WdfRequestGetParameters, WDFREQUEST Request, WDF_REQUEST_PARAMETERS *Parameters);
DDI(NTSTATUS, WdfRequestRetrieveInputBuffer, WDFREQUEST Request, SIZE_T Least, PVOID *Buffer, SIZE_T *Length);
DDI(NTSTATUS, WdfRequestRetrieveOutputBuffer, WDFREQUEST Request, SIZE_T Least, PVOID *Buffer, SIZE_T *Length);
DDI(VOID, WdfRequestMarkCancelable, WDFREQUEST Request, VOID (*EvtRequestCancel)(WDFREQUEST Request));
DDI(NTSTATUS, WdfRequestMarkCancelableEx, WDFREQUEST Request, VOID (*EvtRequestCancel)(WDFREQUEST Request));
DDI(NTSTATUS, WdfRequestUnmarkCancelable, WDFREQUEST Request);
DDI(BOOLEAN, WdfRequestIsCanceled, WDFREQUEST Request);
DDI(NTSTATUS, WdfRequestForwardToIoQueue, WDFREQUEST Request, WDFQUEUE Queue);
DDI(NTSTATUS, WdfRequestRequeue, WDFREQUEST Request);
DDI(BOOLEAN, WdfRequestSend, WDFREQUEST Request, WDFIOTARGET Target, WDF_REQUEST_SEND_OPTIONS *Options);
DDI(VOID, WdfRequestStopAcknowledge, WDFREQUEST Request, BOOLEAN Requeue);
DDI(WDFQUEUE, WdfRequestGetIoQueue, WDFREQUEST Request);
DDI(WDFFILEOBJECT, WdfRequestGetFileObject, WDFREQUEST Request);
DDI(PIRP, WdfRequestWdmGetIrp, WDFREQUEST Request);

DDI(NTSTATUS, WdfSpinLockCreate, PWDF_OBJECT_ATTRIBUTES Attributes, WDFSPINLOCK *Created);
DDI(VOID, WdfSpinLockAcquire, WDFSPINLOCK Lock);
DDI(VOID, WdfSpinLockRelease, WDFSPINLOCK Lock);
DDI(NTSTATUS, WdfWaitLockCreate, PWDF_OBJECT_ATTRIBUTES Attributes, WDFWAITLOCK *Created);
DDI(NTSTATUS, WdfWaitLockAcquire, WDFWAITLOCK Lock, PLONGLONG Timeout);
DDI(VOID, WdfWaitLockRelease, WDFWAITLOCK Lock);

DDI(NTSTATUS, WdfTimerCreate, WDF_TIMER_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes, WDFTIMER *Created);
DDI(BOOLEAN, WdfTimerStart, WDFTIMER Timer, LONGLONG DueTime);
DDI(BOOLEAN, WdfTimerStop, WDFTIMER Timer, BOOLEAN Wait);
DDI(WDFOBJECT, WdfTimerGetParentObject, WDFTIMER Timer);
DDI(NTSTATUS, WdfDpcCreate, WDF_DPC_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes, WDFDPC *Created);
DDI(BOOLEAN, WdfDpcEnqueue, WDFDPC Dpc);
DDI(BOOLEAN, WdfDpcCancel, WDFDPC Dpc, BOOLEAN Wait);
DDI(WDFOBJECT, WdfDpcGetParentObject, WDFDPC Dpc);
DDI(PKDPC, WdfDpcWdmGetDpc, WDFDPC Dpc);
DDI(NTSTATUS, WdfWorkItemCreate, WDF_WORKITEM_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes, WDFWORKITEM *Created);
DDI(VOID, WdfWorkItemEnqueue, WDFWORKITEM WorkItem);
DDI(WDFOBJECT, WdfWorkItemGetParentObject, WDFWORKITEM WorkItem);
DDI(VOID, WdfWorkItemFlush, WDFWORKITEM WorkItem);

DDI(NTSTATUS, WdfInterruptCreate, WDFDEVICE Device, WDF_INTERRUPT_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes,
    WDFINTERRUPT *Created);
DDI(BOOLEAN, WdfInterruptQueueDpcForIsr, WDFINTERRUPT Interrupt);
DDI(BOOLEAN, WdfInterruptSynchronize, WDFINTERRUPT Interrupt, PFN_WDF_INTERRUPT_SYNCHRONIZE Callback, WDFCONTEXT Context);
DDI(VOID, WdfInterruptAcquireLock, WDFINTERRUPT Interrupt);
DDI(VOID, WdfInterruptReleaseLock, WDFINTERRUPT Interrupt);
DDI(VOID, WdfInterruptEnable, WDFINTERRUPT Interrupt);
DDI(VOID, WdfInterruptDisable, WDFINTERRUPT Interrupt);
DDI(PKINTERRUPT, WdfInterruptWdmGetInterrupt, WDFINTERRUPT Interrupt);
DDI(WDFDEVICE, WdfInterruptGetDevice, WDFINTERRUPT Interrupt);
DDI(ULONG, WdfCmResourceListGetCount, WDFCMRESLIST List);
DDI(PCM_PARTIAL_RESOURCE_DESCRIPTOR, WdfCmResourceListGetDescriptor, WDFCMRESLIST List, ULONG Index);

DDI(PVOID, WdfObjectGetTypedContextWorker, WDFOBJECT Object, PCWDF_OBJECT_CONTEXT_TYPE_INFO Type);
DDI(NTSTATUS, WdfObjectAllocateContext, WDFOBJECT Object, PWDF_OBJECT_ATTRIBUTES Attributes, PVOID *Context);
DDI(WDFOBJECT, WdfObjectContextGetObject, PVOID Context);
DDI(VOID, WdfObjectReferenceActual, WDFOBJECT Object, PVOID Tag, LONG Line, PCSTR File);
DDI(VOID, WdfObjectDereferenceActual, WDFOBJECT Object, PVOID Tag, LONG Line, PCSTR File);
DDI(NTSTATUS, WdfObjectCreate, PWDF_OBJECT_ATTRIBUTES Attributes, WDFOBJECT *Created);
DDI(VOID, WdfObjectDelete, WDFOBJECT Object);
DDI(VOID, WdfVerifierDbgBreakPoint);
DDI(VOID, WdfVerifierKeBugCheck, ULONG Code, ULONG_PTR First, ULONG_PTR Second, ULONG_PTR Third, ULONG_PTR Fourth);

#endif
