/*
 * The table of functions, with the real numbers: what is missing here has a routine of its own that says its name and number, and stops.
 */
#ifndef FRAMEWORK_TABLE_H
#define FRAMEWORK_TABLE_H

static DECLSPEC_NORETURN VOID MissingFunction(ULONG Number, const CHAR *Name)
{
    DbgPrint("framework: %s, number %u: missing\n", Name, Number);
    Violation(WHAT_IS_MISSING, Number, (ULONG_PTR)__builtin_return_address(0));
}

#define FUNCTION(Name) static VOID Missing##Name(VOID) { MissingFunction(Name##TableIndex, #Name); }
#include "functions.h"
#undef FUNCTION

static VOID VerifierDbgBreakPoint(PWDF_DRIVER_GLOBALS Globals)
{
    UNREFERENCED_PARAMETER(Globals);
    DbgBreakPoint();
}

static VOID VerifierKeBugCheck(PWDF_DRIVER_GLOBALS Globals, ULONG Code, ULONG_PTR First, ULONG_PTR Second, ULONG_PTR Third,
                               ULONG_PTR Fourth)
{
    UNREFERENCED_PARAMETER(Globals);
    KeBugCheckEx(Code, First, Second, Third, Fourth);
}

/* A routine of exactly the function's type. */
#define ROW(Name)                                                                                                                      \
    [Wdf##Name##TableIndex] =                                                                                                          \
        (WDFFUNC)__builtin_choose_expr(__builtin_types_compatible_p(__typeof__(&Name), PFN_Wdf##Name), Name, (VOID)0)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"

static const WDFFUNC Table[FUNCTION_COUNT] = {
#define FUNCTION(Name) [Name##TableIndex] = Missing##Name,
#include "functions.h"
#undef FUNCTION
    ROW(DriverCreate),
    ROW(DriverGetRegistryPath),
    ROW(DriverWdmGetDriverObject),
    ROW(DriverMiniportUnload),
    ROW(DeviceInitFree),
    ROW(DeviceInitSetPnpPowerEventCallbacks),
    ROW(DeviceInitSetPowerPolicyOwnership),
    ROW(DeviceInitSetIoType),
    ROW(DeviceInitSetExclusive),
    ROW(DeviceInitSetDeviceType),
    ROW(DeviceInitAssignName),
    ROW(DeviceInitSetFileObjectConfig),
    ROW(DeviceInitSetRequestAttributes),
    ROW(ControlDeviceInitAllocate),
    ROW(ControlFinishInitializing),
    ROW(DeviceCreate),
    ROW(DeviceWdmGetDeviceObject),
    ROW(DeviceWdmGetAttachedDevice),
    ROW(DeviceWdmGetPhysicalDevice),
    ROW(WdmDeviceGetWdfDeviceHandle),
    ROW(DeviceCreateDeviceInterface),
    ROW(DeviceCreateSymbolicLink),
    ROW(DeviceGetDefaultQueue),
    ROW(DeviceGetDriver),
    ROW(DeviceGetIoTarget),
    ROW(FileObjectWdmGetFileObject),
    ROW(FileObjectGetDevice),
    ROW(IoQueueCreate),
    ROW(IoQueueStart),
    ROW(IoQueueStop),
    ROW(IoQueueStopSynchronously),
    ROW(IoQueueGetDevice),
    ROW(IoQueueRetrieveNextRequest),
    ROW(RequestComplete),
    ROW(RequestCompleteWithInformation),
    ROW(RequestSetInformation),
    ROW(RequestGetInformation),
    ROW(RequestGetStatus),
    ROW(RequestGetParameters),
    ROW(RequestRetrieveInputBuffer),
    ROW(RequestRetrieveOutputBuffer),
    ROW(RequestMarkCancelable),
    ROW(RequestMarkCancelableEx),
    ROW(RequestUnmarkCancelable),
    ROW(RequestIsCanceled),
    ROW(RequestForwardToIoQueue),
    ROW(RequestRequeue),
    ROW(RequestSend),
    ROW(RequestStopAcknowledge),
    ROW(RequestGetIoQueue),
    ROW(RequestGetFileObject),
    ROW(RequestWdmGetIrp),
    ROW(SpinLockCreate),
    ROW(SpinLockAcquire),
    ROW(SpinLockRelease),
    ROW(WaitLockCreate),
    ROW(WaitLockAcquire),
    ROW(WaitLockRelease),
    ROW(TimerCreate),
    ROW(TimerStart),
    ROW(TimerStop),
    ROW(TimerGetParentObject),
    ROW(DpcCreate),
    ROW(DpcEnqueue),
    ROW(DpcCancel),
    ROW(DpcGetParentObject),
    ROW(DpcWdmGetDpc),
    ROW(WorkItemCreate),
    ROW(WorkItemEnqueue),
    ROW(WorkItemGetParentObject),
    ROW(WorkItemFlush),
    ROW(InterruptCreate),
    ROW(InterruptQueueDpcForIsr),
    ROW(InterruptSynchronize),
    ROW(InterruptAcquireLock),
    ROW(InterruptReleaseLock),
    ROW(InterruptEnable),
    ROW(InterruptDisable),
    ROW(InterruptWdmGetInterrupt),
    ROW(InterruptGetDevice),
    ROW(CmResourceListGetCount),
    ROW(CmResourceListGetDescriptor),
    ROW(ObjectGetTypedContextWorker),
    ROW(ObjectAllocateContext),
    ROW(ObjectContextGetObject),
    ROW(ObjectReferenceActual),
    ROW(ObjectDereferenceActual),
    ROW(ObjectCreate),
    ROW(ObjectDelete),
    ROW(VerifierDbgBreakPoint),
    ROW(VerifierKeBugCheck),
};

#pragma GCC diagnostic pop

#endif
