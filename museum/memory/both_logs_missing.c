/*
 * A driver that keeps a log of what it is asked: in a block of its own, or, where there is none, in a small one that it asks for when all else is there.
 *
 * The bug: that there may be neither is not looked at. It shows where both allocations fail, and none of those between them, without which the driver does not load.
 *
 * Device: none
 * Rule: wild-write
 * Needs: failure
 */
#include <ddk/wdm.h>

#include "../include/control_device.h"

#define IOCTL_LOGGED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TABLES 14
#define TAG 'goLB'

typedef struct _LOGGER {
    PVOID Tables[TABLES];
    PULONG Log;
    PULONG SmallLog;
    LONG Count;
} LOGGER, *PLOGGER;

static PDEVICE_OBJECT Own;

static VOID Free(PLOGGER Logger)
{
    ULONG Table;

    for (Table = 0; Table < TABLES; Table++) {
        if (Logger->Tables[Table] != NULL) {
            ExFreePoolWithTag(Logger->Tables[Table], TAG);
        }
    }
    if (Logger->Log != NULL) {
        ExFreePoolWithTag(Logger->Log, TAG);
    }
    if (Logger->SmallLog != NULL) {
        ExFreePoolWithTag(Logger->SmallLog, TAG);
    }
}

static VOID Note(PLOGGER Logger)
{
    PULONG Log = Logger->Log != NULL ? Logger->Log : Logger->SmallLog;

#ifdef FIXED
    if (Log == NULL) {
        return;
    }
#endif
    InterlockedExchange((PLONG)&Log[0], InterlockedIncrement(&Logger->Count));
}

static NTSTATUS NTAPI OpenOrClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode != IOCTL_LOGGED) {
        return CtlComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Note(Device->DeviceExtension);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    Free(Own->DeviceExtension);
    CtlDelete(Own, L"\\DosDevices\\BothLogs");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PLOGGER Logger;
    NTSTATUS Status;
    ULONG Table;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = CtlCreate(Driver, L"\\Device\\BothLogs", L"\\DosDevices\\BothLogs", sizeof(LOGGER), DO_BUFFERED_IO, &Own);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Logger = Own->DeviceExtension;
    Logger->Log = ExAllocatePoolWithTag(NonPagedPoolNx, PAGE_SIZE, TAG);
    for (Table = 0; Table < TABLES; Table++) {
        Logger->Tables[Table] = ExAllocatePoolWithTag(NonPagedPoolNx, 64, TAG);
        if (Logger->Tables[Table] == NULL) {
            Free(Logger);
            CtlDelete(Own, L"\\DosDevices\\BothLogs");
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    Logger->SmallLog = ExAllocatePoolWithTag(NonPagedPoolNx, 64, TAG);
    Note(Logger);
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenOrClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenOrClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
