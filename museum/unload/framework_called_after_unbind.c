/*
 * A driver that keeps the last numbers that programs wrote, in a log that lives as long as the image: DriverEntry makes it before the framework's own
 * entry routine is called, and it is dropped when the framework's unload routine has returned. A client of KMDF 1.13.
 *
 * The bug: the log is dropped with its lock held, as it is used: but the lock is the framework's, and its unload routine has unbound the driver, so
 * that there is no function any more to be called. It shows when the driver is unloaded.
 *
 * Device: none
 * Framework: KMDF
 * Rule: ddi-after-unbind
 * Needs: nothing
 */
#define KMDF_MINOR 13
#define DriverEntry FrameworkEntry
#include "../include/client.h"
#undef DriverEntry
#include "../../drivers/c/framework/control.h"

#define LOG_TAG 'goLN'
#define NUMBERS 32

typedef struct _LOG {
    ULONG Count; /* so many were written */
    ULONG Numbers[NUMBERS];
} LOG, *PLOG;

static PLOG Log;
static WDFSPINLOCK Lock; /* of the log */
static PDRIVER_UNLOAD FrameworkUnload;

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PULONG Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(ULONG), (PVOID *)&Output, NULL);

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(Length);
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Lock);
    *Output = Log->Count == 0 ? 0 : Log->Numbers[(Log->Count - 1) % NUMBERS];
    CALL(WdfSpinLockRelease, Lock);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID OnWrite(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PULONG Input;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), (PVOID *)&Input, NULL);

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(Length);
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Lock);
    Log->Numbers[Log->Count++ % NUMBERS] = *Input;
    CALL(WdfSpinLockRelease, Lock);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS MakeLog(VOID)
{
    Log = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Log), LOG_TAG);
    if (Log == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Log, sizeof(*Log));
    return STATUS_SUCCESS;
}

static VOID NTAPI ImageUnload(PDRIVER_OBJECT Driver)
{
    FrameworkUnload(Driver);
#ifdef FIXED
    ExFreePoolWithTag(Log, LOG_TAG); /* there is no one else any more who uses it */
#else
    CALL(WdfSpinLockAcquire, Lock);
    ExFreePoolWithTag(Log, LOG_TAG);
    Log = NULL;
    CALL(WdfSpinLockRelease, Lock);
#endif
}

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static NTSTATUS CreateQueue(WDFDEVICE Device)
{
    WDF_IO_QUEUE_CONFIG Config;

    InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfFalse);
    Config.DefaultQueue = TRUE;
    Config.EvtIoRead = OnRead;
    Config.EvtIoWrite = OnWrite;
    return CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\NumberLog");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\NumberLog");
    WDFDRIVER Handle;
    WDFDEVICE Device;
    NTSTATUS Status = CreateDriver(Driver, RegistryPath, OnUnload, &Handle);

    if (NT_SUCCESS(Status)) {
        Status = CreateControlDevice(Handle, &Name, NULL, &Device);
    }
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfDeviceCreateSymbolicLink, Device, &Link);
    }
    if (NT_SUCCESS(Status)) {
        Status = ClientSpinLock(Device, &Lock);
    }
    if (NT_SUCCESS(Status)) {
        Status = CreateQueue(Device);
    }
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return Status;
}

DRIVER_INITIALIZE DriverEntry;

/* Where the image begins; FrameworkEntry binds it to the framework and calls ClientEntry. */
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = MakeLog();

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = FrameworkEntry(Driver, RegistryPath);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Log, LOG_TAG);
        return Status;
    }
    FrameworkUnload = Driver->DriverUnload;
    Driver->DriverUnload = ImageUnload;
    return STATUS_SUCCESS;
}
